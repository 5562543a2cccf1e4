//! Ends and stages that do what a test has planned and note what befalls them. Never sleeps, and refuses to be asked
//! again after its end.

#![allow(unreachable_pub, reason = "as in the other support")]

use std::{
    collections::VecDeque,
    error::Error,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use spillbuffer::pipeline::{Outcome, Pipeline, PipelineError, Report};
use spillbuffer::transform::{Drain, Flow, Output, Source, Transform};
use spillbuffer::{SpillBuffer, SpillPool};

use crate::support::{Counting, Scratch, pattern};
pub use crate::wild::{Planned, Take};

pub type Cause = Arc<dyn Error + Send + Sync>;

// ---- what happened ----

#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    events: Vec<String>,
    got: Vec<u8>,
    sizes: Vec<usize>,
    told: Vec<(String, Cause)>,
    asked: usize,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn note(&self, event: impl Into<String>) {
        self.lock().events.push(event.into());
    }

    pub fn events(&self) -> Vec<String> {
        self.lock().events.clone()
    }

    /// How often this was noted.
    pub fn count(&self, event: &str) -> usize {
        self.lock().events.iter().filter(|noted| *noted == event).count()
    }

    /// When this was noted first.
    pub fn at(&self, event: &str) -> usize {
        let events = self.events();
        let at = events.iter().position(|noted| noted == event);
        at.unwrap_or_else(|| panic!("there was no {event}: {events:?}"))
    }

    /// What the sink has.
    pub fn got(&self) -> Vec<u8> {
        self.lock().got.clone()
    }

    /// How much the sink took at each write.
    pub fn sizes(&self) -> Vec<usize> {
        self.lock().sizes.clone()
    }

    /// How often the source was asked for more.
    pub fn asked(&self) -> usize {
        self.lock().asked
    }

    /// The cause that the source or the sink was told.
    #[track_caller]
    pub fn told(&self, whom: &str) -> Cause {
        let noted = self.lock();
        let mut told = noted.told.iter().filter(|(name, _)| name == whom);
        let cause = Cause::clone(&told.next().unwrap_or_else(|| panic!("{whom} was told nothing")).1);
        assert!(told.next().is_none(), "{whom} was told twice");
        cause
    }

    /// Each of these was dropped, once.
    #[track_caller]
    pub fn all_closed(&self, names: &[&str]) {
        for name in names {
            assert_eq!(self.count(&format!("drop {name}")), 1, "{name}: {:?}", self.events());
        }
    }

    /// The sink was told of a failure before anybody else, with this very cause, and was not ended.
    #[track_caller]
    pub fn sink_first(&self, cause: &(dyn Error + Send + Sync + 'static)) {
        self.sink_first_but(&[], cause);
    }

    /// The same where these had gone of themselves: they had ended, or it was they who failed.
    #[track_caller]
    pub fn sink_first_but(&self, gone: &[&str], cause: &(dyn Error + Send + Sync + 'static)) {
        let events = self.events();
        assert_eq!(self.count("close"), 0, "{events:?}");
        let told = |event: &&String| ["abort", "cancel"].contains(&&***event) || event.starts_with("drop");
        let own = |event: &&String| gone.iter().any(|name| **event == format!("drop {name}"));
        let first = events.iter().filter(told).find(|event| !own(event));
        assert_eq!(first.map(|event| &**event), Some("abort"), "{events:?}");
        assert!(same(&*self.told("sink"), cause), "the sink was told another cause");
    }
}

/// Whether it is the very same error, and not one like it.
pub fn same(a: &(dyn Error + Send + Sync + 'static), b: &(dyn Error + Send + Sync + 'static)) -> bool {
    // Of no size there is no place to tell them apart by: `Planned` has one.
    std::ptr::addr_eq(a, b)
}

// ---- a gate ----

/// What waits until the test opens it.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Door>>);

#[derive(Default)]
struct Door {
    open: bool,
    for_good: bool,
    waker: Option<Waker>,
}

impl Gate {
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut door = self.0.lock().unwrap();
        if door.open {
            return Poll::Ready(());
        }
        door.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub fn open(&self) {
        let waker = {
            let mut door = self.0.lock().unwrap();
            door.open = true;
            door.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Never shut again.
    pub fn open_for_good(&self) {
        self.0.lock().unwrap().for_good = true;
        self.open();
    }

    /// Shut again behind what has passed.
    pub fn shut(&self) {
        let mut door = self.0.lock().unwrap();
        door.open = door.for_good;
    }
}

// ---- a source ----

pub enum Step {
    Give(Bytes),
    /// Pending, and woken at once.
    Pend,
    /// Pending until the gate is opened.
    Wait(Gate),
    /// Pending for ever.
    Sleep,
    Fail(Box<dyn Error + Send + Sync>),
    Panic,
    Do(Box<dyn FnOnce() + Send>),
}

pub fn fail(k: usize) -> Step {
    Step::Fail(Planned(k).into())
}

/// So many chunks of 8 bytes.
pub fn chunks(count: usize) -> Vec<Step> {
    (0..count).map(|i| Step::Give(Bytes::from_static(pattern(i as u64 * 8, 8)))).collect()
}

/// What so many chunks are.
pub fn bytes_of(count: usize) -> &'static [u8] {
    pattern(0, count * 8)
}

pub struct Feed {
    log: Log,
    steps: VecDeque<Step>,
    ended: bool,
    on_cancel: Option<Box<dyn FnOnce() + Send>>,
}

impl Feed {
    pub fn new(log: &Log, steps: impl IntoIterator<Item = Step>) -> Self {
        Self { log: log.clone(), steps: steps.into_iter().collect(), ended: false, on_cancel: None }
    }

    pub fn on_cancel(mut self, act: impl FnOnce() + Send + 'static) -> Self {
        self.on_cancel = Some(Box::new(act));
        self
    }
}

impl Source for Feed {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        assert!(!self.ended, "asked again after its end");
        self.log.lock().asked += 1;
        loop {
            match self.steps.pop_front() {
                Some(Step::Give(chunk)) => return Poll::Ready(Some(Ok(chunk))),
                Some(Step::Pend) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Wait(gate)) => {
                    if gate.poll(cx).is_pending() {
                        self.steps.push_front(Step::Wait(gate));
                        return Poll::Pending;
                    }
                }
                Some(Step::Sleep) => {
                    self.steps.push_front(Step::Sleep);
                    return Poll::Pending;
                }
                Some(Step::Fail(cause)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(cause)));
                }
                Some(Step::Panic) => panic!("planned"),
                Some(Step::Do(act)) => act(),
                None => {
                    self.ended = true;
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn cancel(&mut self, cause: Cause) {
        self.log.note("cancel");
        self.log.lock().told.push(("source".into(), cause));
        if let Some(act) = self.on_cancel.take() {
            act();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.log.note("drop source");
    }
}

// ---- a sink ----

/// What a sink does at which write; counted from 0.
#[derive(Default)]
pub struct Plan {
    /// The most bytes of a write.
    pub most: Option<usize>,
    pub fail_write: Option<usize>,
    pub panic_write: Option<usize>,
    /// Each write waits here first.
    pub write_gate: Option<Gate>,
    pub flush_gate: Option<Gate>,
    pub close_gate: Option<Gate>,
    pub fail_flush: bool,
    pub fail_close: bool,
    /// Has had enough after so many bytes.
    pub enough: Option<usize>,
    /// The kind of the error, where it is not `Planned`.
    pub kind: Option<io::ErrorKind>,
    /// After that write.
    pub after_write: Option<(usize, Box<dyn FnOnce() + Send>)>,
}

pub struct Bin {
    log: Log,
    plan: Plan,
    writes: usize,
    bytes: usize,
    over: bool,
}

impl Bin {
    pub fn new(log: &Log) -> Self {
        Self::with(log, Plan::default())
    }

    pub fn with(log: &Log, plan: Plan) -> Self {
        Self { log: log.clone(), plan, writes: 0, bytes: 0, over: false }
    }

    fn failure(&mut self, k: usize) -> Box<dyn Error + Send + Sync> {
        self.over = true;
        match self.plan.kind {
            Some(kind) => io::Error::from(kind).into(),
            None => Planned(k).into(),
        }
    }
}

impl Drain for Bin {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        assert!(!self.over, "written to after its end");
        if let Some(gate) = &self.plan.write_gate {
            std::task::ready!(gate.poll(cx));
            gate.shut();
        }
        let write = self.writes;
        self.writes += 1;
        assert!(self.plan.panic_write != Some(write), "planned");
        if self.plan.fail_write == Some(write) {
            return Poll::Ready(Err(self.failure(write)));
        }
        let n = chunk.len().min(self.plan.most.unwrap_or(usize::MAX));
        self.bytes += n;
        self.log.note("write");
        let mut noted = self.log.lock();
        noted.got.extend_from_slice(&chunk[..n]);
        noted.sizes.push(n);
        drop(noted);
        chunk.advance(n);
        if self.plan.after_write.as_ref().is_some_and(|(after, _)| *after == write) {
            let (_, act) = self.plan.after_write.take().unwrap();
            act();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        assert!(!self.over, "flushed after its end");
        if let Some(gate) = &self.plan.flush_gate {
            std::task::ready!(gate.poll(cx));
        }
        self.log.note("flush");
        Poll::Ready(if self.plan.fail_flush { Err(self.failure(101)) } else { Ok(()) })
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        assert!(!self.over, "closed after its end");
        if let Some(gate) = &self.plan.close_gate {
            std::task::ready!(gate.poll(cx));
        }
        if self.plan.fail_close {
            return Poll::Ready(Err(self.failure(102)));
        }
        self.over = true;
        self.log.note("close");
        Poll::Ready(Ok(()))
    }

    fn abort(&mut self, cause: Cause) {
        self.over = true;
        self.log.note("abort");
        self.log.lock().told.push(("sink".into(), cause));
    }

    fn has_enough(&self) -> bool {
        self.plan.enough.is_some_and(|enough| self.bytes >= enough)
    }
}

impl Drop for Bin {
    fn drop(&mut self) {
        self.log.note("drop sink");
    }
}

// ---- a stage ----

/// What a stage does beside passing everything on.
#[derive(Default)]
pub struct Does {
    pub fail_at: Option<usize>,
    pub panic_at: Option<usize>,
    pub fail_finish: bool,
    pub tail: &'static [u8],
}

/// Passes everything on, and does what was planned at which call.
pub struct Probe {
    log: Log,
    name: String,
    calls: usize,
    does: Does,
}

impl Probe {
    pub fn new(log: &Log, name: impl Into<String>) -> Self {
        Self::with(log, name, Does::default())
    }

    pub fn with(log: &Log, name: impl Into<String>, does: Does) -> Self {
        Self { log: log.clone(), name: name.into(), calls: 0, does }
    }
}

impl Transform for Probe {
    type Value = String;
    type Error = Planned;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Planned> {
        let call = self.calls;
        self.calls += 1;
        assert!(self.does.panic_at != Some(call), "planned");
        if self.does.fail_at == Some(call) {
            return Err(Planned(call));
        }
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, Planned> {
        self.log.note(format!("finish {}", self.name));
        output.pass(Bytes::from_static(self.does.tail));
        if self.does.fail_finish { Err(Planned(103)) } else { Ok(Flow::Continue) }
    }

    fn into_value(self) -> String {
        self.name.clone()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.log.note(format!("drop {}", self.name));
    }
}

// ---- both ways ----

/// Every case is run plain, and with a spill stage in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Middle {
    Plain,
    Spill,
}

pub fn both(case: impl Fn(Middle)) {
    case(Middle::Plain);
    case(Middle::Spill);
}

impl Middle {
    pub fn put(self, pipeline: Pipeline<'_>) -> Pipeline<'_> {
        match self {
            Self::Plain => pipeline,
            Self::Spill => pipeline.spill("spill", SpillBuffer::new()),
        }
    }

    /// The place of what stands at `index` where there is no spill stage before it.
    pub fn behind(self, index: usize) -> usize {
        index + usize::from(self == Self::Spill)
    }

    pub fn is_spill(self) -> bool {
        self == Self::Spill
    }
}

/// A pool of 1 MiB on a disk.
pub fn pool(scratch: &Scratch) -> SpillPool {
    SpillPool::builder().memory_limit(1 << 20).temp_dir(scratch.path()).retain(0).build().unwrap()
}

/// The one panic that was planned, if it was that.
#[track_caller]
pub fn panics<T>(run: impl FnOnce() -> T) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { panic!("it did not panic") };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    assert_eq!(text.as_deref(), Some("planned"));
}

/// Polls until it is pending and nobody has woken it: everything that can go on has.
#[track_caller]
pub fn settle<F: Future>(future: std::pin::Pin<&mut F>, counting: &Arc<Counting>) {
    let waker = counting.waker();
    let mut future = future;
    loop {
        let before = counting.wakes();
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "it is done already");
        // A reader of a spill stage is woken at once, on this thread.
        if counting.wakes() == before {
            return;
        }
    }
}

/// It ended with `Planned(k)` of the stage at `index`, told by identity.
#[track_caller]
pub fn failed(ended: Result<Report, PipelineError>, name: &str, index: usize, k: usize) -> PipelineError {
    let error = ended.expect_err("it ended well");
    assert_eq!((error.stage(), error.index()), (Some(name), Some(index)), "{error:?}");
    assert_eq!(error.cause().downcast_ref::<Planned>(), Some(&Planned(k)), "{error:?}");
    assert_eq!(error.find::<Planned>(), Some(&Planned(k)));
    assert_eq!(error.source().unwrap().downcast_ref::<Planned>(), Some(&Planned(k)));
    error
}

/// How many bytes the sink got, where it or a stage had had enough.
pub fn stopped(report: &Report) -> Option<u64> {
    match report.outcome() {
        Outcome::Stopped { bytes, .. } => Some(bytes),
        _ => None,
    }
}

/// Was cancelled with `Planned(k)`.
#[track_caller]
pub fn cancelled(ended: Result<Report, PipelineError>, k: usize) -> PipelineError {
    let error = ended.expect_err("it ended well");
    assert_eq!((error.stage(), error.index()), (None, None), "{error:?}");
    assert_eq!(error.cause().downcast_ref::<Planned>(), Some(&Planned(k)), "{error:?}");
    error
}

/// Runs a future that has to wait for time, whose clock goes on by itself: what waits for nothing in it hangs for an hour of that.
pub fn paused<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let future = pin!(future);
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(3600), future).await.expect("it hangs") })
}
