//! What cannot be seen from outside: a disk that is held up.

use std::{
    error::Error,
    pin::{Pin, pin},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Interrupted, Pipeline, PipelineError, Report, Run};
use crate::{
    buffer::SpillBuffer,
    drain::Drain,
    options::Settings,
    shell::Shared,
    storage::sys::{
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
};

/// Longer than anything here takes that goes on at all.
const HANG: Duration = Duration::from_secs(30);

/// A sink that never gets to it.
struct Never;

impl Drain for Never {
    fn poll_write(&mut self, _: &mut Context<'_>, _: &mut Bytes) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Poll::Pending
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Poll::Pending
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Poll::Pending
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A spill whose disk is held up: a pipeline with a write on its way that does not end before it is let go.
struct Hung {
    shared: Arc<Shared>,
    gate: Arc<RwLock<()>>,
    entered: Arc<AtomicBool>,
}

impl Hung {
    fn new() -> Self {
        let (gate, entered) = (Arc::new(RwLock::new(())), Arc::new(AtomicBool::new(false)));
        let platform = Hooked::new(Scripted::default(), {
            let (gate, entered, test) = (Arc::clone(&gate), Arc::clone(&entered), thread::current());
            move |call| {
                if let Call::Write { .. } = call {
                    entered.store(true, SeqCst);
                    test.unpark();
                    drop(gate.read().unwrap());
                }
                Act::Go
            }
        });
        let options = Settings { memory_limit: 64 << 10, ..Settings::default() }.check().unwrap();
        Self { shared: Shared::on(&options, Some(platform)), gate, entered }
    }

    fn run(&self) -> Run<'static, Never> {
        let chunks = std::iter::repeat_n(Bytes::from(vec![0; 16 << 10]), 16);
        Pipeline::from_iter(chunks).spill("spill", SpillBuffer::of(Arc::clone(&self.shared))).into_drain(Never)
    }

    /// Until a write has begun.
    fn entered(&self) {
        let until = Instant::now() + HANG;
        while !self.entered.load(SeqCst) {
            assert!(Instant::now() < until, "nothing is written");
            thread::park_timeout(HANG);
        }
    }
}

fn unpark() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Polls it until it has failed.
fn failed(mut run: Pin<&mut impl Future<Output = Result<Report, PipelineError>>>) -> PipelineError {
    let (waker, until) = (unpark(), Instant::now() + HANG);
    loop {
        match run.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(ended) => return ended.unwrap_err(),
            Poll::Pending => thread::park_timeout(until.saturating_duration_since(Instant::now())),
        }
        assert!(Instant::now() < until, "it hangs");
    }
}

/// A pipeline that had resolved while its spill's write was still on its way left a block and a slot behind, for as long as the
/// disk liked; whoever counted them then found a leak.
#[test]
fn rule_01_a_failed_pipeline_waits_for_the_write_that_is_on_its_way() {
    let hung = Hung::new();
    let held = hung.gate.write().unwrap();
    let run = hung.run();
    let handle = run.handle();
    let mut run = pin!(run.run());
    let waker = unpark();
    let mut cx = Context::from_waker(&waker);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    hung.entered();
    handle.cancel("enough");
    for _ in 0..3 {
        assert!(run.as_mut().poll(&mut cx).is_pending(), "its write is still on its way");
        assert!(hung.shared.stats().memory_held > 0);
    }
    drop(held);
    let error = failed(run);
    assert_eq!(error.cause().to_string(), "enough");
    let stats = hung.shared.stats();
    assert_eq!((stats.memory_held, stats.disk_held), (0, 0), "{stats:?}");
}

#[test]
fn rule_08_what_is_on_its_way_to_a_disk_that_hangs_is_waited_for_as_long_as_for_a_close() {
    let hung = Hung::new();
    let held = hung.gate.write().unwrap();
    let limit = Duration::from_millis(20);
    let run = hung.run().close_limit(limit);
    let handle = run.handle();
    let mut run = pin!(run.run());
    let waker = unpark();
    assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    hung.entered();
    handle.cancel("enough");
    let error = failed(run);
    assert_eq!(error.cause().to_string(), "enough");
    let late = error.suppressed().iter().any(|failure| {
        matches!(failure.cause.downcast_ref(), Some(Interrupted::CloseTimeout { limit: told, .. }) if *told == limit)
    });
    assert!(late, "{error:?}");
    drop(held);
}
