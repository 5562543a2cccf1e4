//! A pipeline with its sink, and what drives it. Never resolves before everything it held has been released.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    chain::Leavings,
    error::{Cause, Fault, Interrupted, PipelineError},
    live::{Handle, Live},
    parts::{Parts, Upstream},
    report::{Outcome, Report},
    segment::{Ended, Segment},
    settle::{Faults, Settled, dropped, poll_stopped},
    timer::Timer,
};
use crate::{drain::Drain, error::shared};

/// How long the sink's end may take, where nothing else was said.
const CLOSE: Duration = Duration::from_secs(30);

/// A pipeline that is ready to [`run`](Self::run).
///
/// Dropped before it has ended, also in the middle of a run, it fails with [`Interrupted::Dropped`]: the sink is aborted, and
/// everything is released.
#[must_use = "a pipeline does nothing until it is run"]
pub struct Run<'a, D: Drain> {
    /// None once it has been settled.
    engine: Option<Engine<'a, D>>,
}

struct Engine<'a, D> {
    upstream: Upstream<'a>,
    last: Segment<'a, D>,
    live: Arc<Live>,
    cancelling: Vec<Pin<Box<dyn Future<Output = Cause> + Send + 'a>>>,
    deadline: Timer,
    idle: Timer,
    close: Timer,
    began: Option<Instant>,
    stopped: bool,
}

impl<'a, D: Drain> Run<'a, D> {
    pub(super) fn new(parts: Parts<'a>, drain: D) -> Self {
        let sink = parts.names.len();
        let (upstream, chain, live) = parts.into_live(Some("sink".into()));
        let mut last = Segment::new(chain, drain, sink);
        last.is_sink = true;
        Self {
            engine: Some(Engine {
                upstream,
                last,
                live,
                cancelling: Vec::new(),
                deadline: Timer::default(),
                idle: Timer::default(),
                close: Timer::usual(CLOSE),
                began: None,
                stopped: false,
            }),
        }
    }

    fn with(mut self, set: impl FnOnce(&mut Engine<'a, D>)) -> Self {
        if let Some(engine) = &mut self.engine {
            set(engine);
        }
        self
    }

    /// Names the sink, for errors and reports; `sink` without.
    pub fn sink_named(self, name: impl Into<String>) -> Self {
        self.with(|engine| engine.live.name_sink(name.into()))
    }

    /// The sink is flushed, and neither ended nor aborted, whatever happens: it goes on to be used.
    pub fn keep_open(self) -> Self {
        self.with(|engine| engine.last.closes = false)
    }

    /// Fails with [`Interrupted::Deadline`] where it has not ended within this time, from the first poll on.
    ///
    /// This and the other limits on time are kept on tokio's clock, so that a test may pause it, and on one of the crate's own where
    /// there is no runtime, or one without time; only where no thread can be started for that one they are not kept. (In a runtime
    /// without time tokio panics when it is asked for some, which cannot be found out before. That is caught, and a hook for panics
    /// is told of it; a process that is built with `panic = "abort"` ends there.)
    pub fn deadline(self, limit: Duration) -> Self {
        self.with(|engine| engine.deadline = Timer::new(limit))
    }

    /// Fails with [`Interrupted::Idle`] where no byte moves for this time, at the source or at any stage.
    pub fn idle_timeout(self, limit: Duration) -> Self {
        self.with(|engine| engine.idle = Timer::new(limit))
    }

    /// Fails with [`Interrupted::CloseTimeout`] where the sink's end takes longer than this, from the last byte on. Without being set
    /// it is 30 seconds, for which tokio is not asked unless its clock is paused when that end begins.
    pub fn close_limit(self, limit: Duration) -> Self {
        self.with(|engine| engine.close = Timer::new(limit))
    }

    /// Fails with what this future gives, as soon as it does. May be called several times.
    ///
    /// # Example
    ///
    /// ```
    /// use spillbuffer::pipeline::Pipeline;
    /// use tokio::sync::oneshot;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let (stop, stopped) = oneshot::channel::<()>();
    /// let (endless, _open) = tokio::io::duplex(64);
    /// let run = Pipeline::from_reader(endless).into_vec().cancel_on(async move {
    ///     let _ = stopped.await;
    ///     "shutting down"
    /// });
    /// drop(stop);
    /// assert_eq!(run.run().await.unwrap_err().cause().to_string(), "shutting down");
    /// # });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel_on<F, E>(self, stop: F) -> Self
    where
        F: Future<Output = E> + Send + 'a,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let cause = async move { shared(stop.await) };
        self.with(|engine| engine.cancelling.push(Box::pin(cause)))
    }

    /// Watches it and can cancel it, from anywhere.
    pub fn handle(&self) -> Handle {
        // Made with the pipeline, and taken only by what consumes this.
        let live = self.engine.as_ref().map_or_else(|| Live::new([]), |engine| Arc::clone(&engine.live));
        Handle::new(live)
    }

    /// Moves all there is from the source to the sink, and ends that.
    ///
    /// # Errors
    ///
    /// A stage failed, or the pipeline was cancelled or ran out of time. By then the sink has been aborted, the source cancelled,
    /// and everything between them released.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the pipeline fails as a whole; see [`Run`].
    ///
    /// # Panics
    ///
    /// As a stage does: the sink is aborted and everything is released before that goes on.
    pub async fn run(self) -> Result<Report, PipelineError> {
        self.run_with_sink().await.1
    }

    /// The same, and hands the sink back, also after a failure.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run), as is the rest.
    pub async fn run_with_sink(mut self) -> (D, Result<Report, PipelineError>) {
        let ended = poll_fn(|cx| match &mut self.engine {
            Some(engine) => engine.poll(cx),
            None => Poll::Pending,
        })
        .await;
        let Some(mut engine) = self.engine.take() else { unreachable!("only this and the drop take it") };
        let mut settled = engine.settle(ended.err());
        let Engine { mut upstream, last: Segment { drain, .. }, close, .. } = engine;
        // What was in flight to or from the disk is waited for.
        let mut close = close.anew();
        poll_fn(|cx| {
            if upstream.poll_released(cx).is_ready() {
                return Poll::Ready(());
            }
            close.poll(cx).map(|limit| {
                let cause = Interrupted::CloseTimeout { limit };
                settled.leavings.lost.push(Fault::of(settled.live.len() - 1, cause));
            })
        })
        .await;
        (drain, settled.result())
    }
}

impl<D: Drain> Engine<'_, D> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Faults>> {
        self.began.get_or_insert_with(Instant::now);
        let fault = match self.advance(cx) {
            Poll::Ready(Err(fault)) => fault,
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready(Err(Faults::of(fault, &self.live, cx, |cx, but| {
            let mut faults = self.upstream.look(cx, but);
            faults.extend(self.last.look(cx, but));
            faults
        })))
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if let Poll::Ready(fault) = self.poll_interrupted(cx) {
            return Poll::Ready(Err(fault));
        }
        self.stopped |= self.upstream.poll(cx, &self.live)? == Some(Ended::Stopped);
        if let Poll::Ready(ended) = self.last.poll(cx, &self.live) {
            self.stopped |= ended? == Ended::Stopped;
            return Poll::Ready(Ok(()));
        }
        if self.last.is_stopped() {
            self.upstream.stop_all(&self.live);
        }
        let sink = self.live.len() - 1;
        if self.last.is_closing() {
            let late = self.close.poll(cx);
            return late.map(|limit| Err(Fault::of(sink, Interrupted::CloseTimeout { limit })));
        }
        if self.idle.limit.is_none() {
            return Poll::Pending;
        }
        let silent = self.idle.poll_since(self.live.moved(), cx);
        silent.map(|limit| Err(Fault { index: None, cause: Arc::new(Interrupted::Idle { limit }) }))
    }

    /// Whether somebody outside, or the clock, stops it.
    fn poll_interrupted(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        if let Poll::Ready(fault) = poll_stopped(&self.live, cx) {
            return Poll::Ready(fault);
        }
        for stop in &mut self.cancelling {
            if let Poll::Ready(cause) = stop.as_mut().poll(cx) {
                return Poll::Ready(Fault { index: None, cause });
            }
        }
        self.deadline.poll(cx).map(|limit| Fault { index: None, cause: Arc::new(Interrupted::Deadline { limit }) })
    }

    /// Tells everybody how it ended, the sink first, and gives up what is held.
    fn settle(&mut self, faults: Option<Faults>) -> Settled {
        let mut leavings = Leavings::default();
        if let Some(faults) = &faults {
            self.fail(&faults.first.cause, &mut leavings);
        } else {
            self.upstream.end(&mut leavings);
            self.last.chain.end(&mut leavings);
        }
        self.cancelling.clear();
        let bytes = self.live.bytes_in(self.live.len() - 1);
        let outcome = if self.stopped { Outcome::Stopped { bytes } } else { Outcome::Completed };
        Settled { live: Arc::clone(&self.live), began: self.began, outcome, faults, leavings }
    }

    fn fail(&mut self, cause: &Cause, leavings: &mut Leavings) {
        self.live.rest_all();
        self.last.abort(cause);
        self.last.fail(cause, leavings);
        self.upstream.fail(cause, leavings);
    }
}

impl<D: Drain> Drop for Run<'_, D> {
    fn drop(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        // A stage that has panicked may do so again; that must not become an abort of the process.
        let _ = catch_unwind(AssertUnwindSafe(|| engine.fail(&dropped(), &mut Leavings::default())));
        let _ = catch_unwind(AssertUnwindSafe(|| drop(engine)));
    }
}

impl<D: Drain> fmt::Debug for Run<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("live", &self.engine.as_ref().map(|engine| &engine.live)).finish_non_exhaustive()
    }
}
