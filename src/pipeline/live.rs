//! What is seen of a pipeline while it runs: what each stage has moved, and the order to stop.
//! Never keeps what a pipeline holds.

use std::{
    error::Error,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::error::Cause;
use crate::error::shared;

/// What a stage has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// Bytes that it was given.
    pub bytes_in: u64,
    /// Bytes that it has given on.
    pub bytes_out: u64,
    /// How long the pipeline has waited for it, with the wait that goes on: for a source, until there is something; for a sink or
    /// a spill, until there is room. What a spill is empty for is a wait for what comes before it.
    pub waited: Duration,
}

/// Watches a pipeline and can cancel it, from anywhere.
///
/// # Example
///
/// ```
/// use spillbuffer::pipeline::Pipeline;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (upload, _still_open) = tokio::io::duplex(64);
/// let run = Pipeline::from_reader(upload).into_vec();
/// let handle = run.handle();
/// let running = tokio::spawn(run.run());
/// handle.cancel("the client went away");
/// let error = running.await?.unwrap_err();
/// assert_eq!(error.cause().to_string(), "the client went away");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Handle {
    live: Arc<Live>,
}

impl Handle {
    pub(super) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// Fails the pipeline with this cause, at once: whatever it waits for. Does nothing after an earlier failure or the end.
    pub fn cancel(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.live.cancel(shared(cause));
    }

    /// What each stage has done so far: the source first, the sink last.
    pub fn stages(&self) -> Vec<StageReport> {
        self.live.report()
    }
}

/// Shared by a pipeline and its handles.
#[derive(Debug)]
pub(super) struct Live {
    stages: Vec<Counters>,
    /// What the last one is called, where that was said.
    sink: OnceLock<String>,
    order: Mutex<Order>,
    /// That there is an order, to be seen without the lock.
    cancelled: AtomicBool,
    made: Instant,
}

#[derive(Debug)]
struct Counters {
    name: String,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// In nanoseconds, without the wait that goes on.
    waited: AtomicU64,
    /// When that began, in nanoseconds since all of this was made; 0 where there is none.
    since: AtomicU64,
}

#[derive(Debug, Default)]
struct Order {
    cause: Option<Cause>,
    waker: Option<Waker>,
}

impl Live {
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Arc<Self> {
        let counters = |name| Counters {
            name,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            waited: AtomicU64::new(0),
            since: AtomicU64::new(0),
        };
        Arc::new(Self {
            stages: names.into_iter().map(counters).collect(),
            sink: OnceLock::new(),
            order: Mutex::default(),
            cancelled: AtomicBool::new(false),
            made: Instant::now(),
        })
    }

    /// The first name counts.
    pub(super) fn name_sink(&self, name: String) {
        let _ = self.sink.set(name);
    }

    /// How many stages there are, the source and the sink among them.
    pub(super) fn len(&self) -> usize {
        self.stages.len()
    }

    pub(super) fn name(&self, stage: usize) -> &str {
        match self.sink.get() {
            Some(name) if stage + 1 == self.stages.len() => name,
            _ => self.stages.get(stage).map_or("", |stage| &stage.name),
        }
    }

    #[inline]
    pub(super) fn came(&self, stage: usize, bytes: usize) {
        if let Some(stage) = self.stages.get(stage) {
            add(&stage.bytes_in, bytes as u64);
        }
    }

    #[inline]
    pub(super) fn went(&self, stage: usize, bytes: usize) {
        if let Some(stage) = self.stages.get(stage) {
            add(&stage.bytes_out, bytes as u64);
        }
    }

    /// Bytes that a stage was given.
    pub(super) fn bytes_in(&self, stage: usize) -> u64 {
        self.stages.get(stage).map_or(0, |stage| stage.bytes_in.load(Relaxed))
    }

    /// Bytes that have moved, wherever: as long as this grows something goes on.
    pub(super) fn moved(&self) -> u64 {
        self.stages.iter().map(|stage| stage.bytes_in.load(Relaxed) + stage.bytes_out.load(Relaxed)).sum()
    }

    pub(super) fn report(&self) -> Vec<StageReport> {
        let report = |(at, stage): (usize, &Counters)| StageReport {
            name: self.name(at).to_owned(),
            bytes_in: stage.bytes_in.load(Relaxed),
            bytes_out: stage.bytes_out.load(Relaxed),
            waited: Duration::from_nanos(stage.waited.load(Relaxed) + self.waits(stage)),
        };
        self.stages.iter().enumerate().map(report).collect()
    }

    /// Counts how long a stage is waited for, and hands on what was polled.
    pub(super) fn watch<T>(&self, polled: Poll<T>, stage: usize) -> Poll<T> {
        if let Some(at) = self.stages.get(stage) {
            match (&polled, at.since.load(Relaxed)) {
                (Poll::Pending, 0) => at.since.store(self.now(), Relaxed),
                (Poll::Ready(_), 1..) => self.rest(stage),
                _ => {}
            }
        }
        polled
    }

    /// This stage is not waited for any more.
    fn rest(&self, stage: usize) {
        if let Some(stage) = self.stages.get(stage) {
            let waits = self.waits(stage);
            // In this order a handle may miss this wait for a moment, and never counts it twice.
            stage.since.store(0, Relaxed);
            add(&stage.waited, waits);
        }
    }

    /// Nor is any before it.
    pub(super) fn rest_until(&self, stage: usize) {
        (0..=stage).for_each(|stage| self.rest(stage));
    }

    /// Nor is any at all.
    pub(super) fn rest_all(&self) {
        self.rest_until(self.len());
    }

    /// How long the wait for it has gone on.
    fn waits(&self, stage: &Counters) -> u64 {
        match stage.since.load(Relaxed) {
            0 => 0,
            since => self.now().saturating_sub(since),
        }
    }

    /// Never 0.
    fn now(&self) -> u64 {
        self.made.elapsed().as_nanos() as u64 | 1
    }

    fn cancel(&self, cause: Cause) {
        let mut order = self.lock();
        // The first one counts; the other is a user's, to be dropped without the lock.
        let refused = if order.cause.is_none() { order.cause.replace(cause) } else { Some(cause) };
        self.cancelled.store(true, Relaxed);
        let waker = order.waker.take();
        drop(order);
        drop(refused);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it was cancelled. Whoever stops for this was woken, if it has asked `poll_cancelled` in the same poll.
    #[inline]
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Relaxed)
    }

    /// Ready when it was cancelled.
    pub(super) fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<Cause> {
        let mut order = self.lock();
        if let Some(cause) = &order.cause {
            return Poll::Ready(Arc::clone(cause));
        }
        let old = match &order.waker {
            Some(waker) if waker.will_wake(cx.waker()) => None,
            _ => order.waker.replace(cx.waker().clone()),
        };
        drop(order);
        drop(old);
        Poll::Pending
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only whoever drives the pipeline counts, so that this needs no more than a load and a store; handles read.
fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}
