//! What cannot be seen from outside: a disk that is held up.

use std::{
    error::Error,
    pin::pin,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::Pipeline;
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

/// A pipeline that had resolved while its spill's write was still on its way left a block and a slot behind, for as long as the
/// disk liked; whoever counted them then found a leak.
#[test]
fn rule_01_a_failed_pipeline_waits_for_the_write_that_is_on_its_way() {
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
    let shared = Shared::on(&options, Some(platform));
    let held = gate.write().unwrap();

    let chunks = std::iter::repeat_n(Bytes::from(vec![0; 16 << 10]), 16);
    let run = Pipeline::from_iter(chunks).spill("spill", SpillBuffer::of(Arc::clone(&shared))).into_drain(Never);
    let handle = run.handle();
    let mut run = pin!(run.run());
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    assert!(run.as_mut().poll(&mut cx).is_pending());
    let until = Instant::now() + HANG;
    while !entered.load(SeqCst) {
        assert!(Instant::now() < until, "nothing is written");
        thread::park_timeout(HANG);
    }
    handle.cancel("enough");
    for _ in 0..3 {
        assert!(run.as_mut().poll(&mut cx).is_pending(), "its write is still on its way");
        assert!(shared.stats().memory_held > 0);
    }
    drop(held);
    let until = Instant::now() + HANG;
    let error = loop {
        match run.as_mut().poll(&mut cx) {
            Poll::Ready(ended) => break ended.unwrap_err(),
            Poll::Pending => thread::park_timeout(until.saturating_duration_since(Instant::now())),
        }
        assert!(Instant::now() < until, "it hangs");
    };
    assert_eq!(error.cause().to_string(), "enough");
    let stats = shared.stats();
    assert_eq!((stats.memory_held, stats.disk_held), (0, 0), "{stats:?}");
}
