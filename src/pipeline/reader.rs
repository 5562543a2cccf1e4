//! A pipeline that is pulled instead of run. Never moves on by itself, but for what flows into its spills.

use std::{
    fmt,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufRead, AsyncRead, ReadBuf},
    task::coop::poll_proceed,
};

use super::{
    chain::{Chain, Leavings},
    error::{Cause, Fault, PipelineError},
    live::{Handle, Live},
    parts::{Parts, Upstream},
    report::{Outcome, Report},
    segment::Ended,
    settle::{Faults, Settled, dropped, poll_stopped},
};
use crate::{chunk::take_off, copy};

/// What comes out of a pipeline, to be read; made by [`Pipeline::into_reader`](super::Pipeline::into_reader).
///
/// An error of the pipeline comes behind every byte that has come out before it, and repeats; as an [`io::Error`] it is found by
/// [`PipelineError::from_io`]. Dropped before the end, the pipeline fails with [`Interrupted::Dropped`](super::Interrupted).
///
/// # Cancel safety
///
/// Every future made of this may be dropped at any point: nothing is lost or repeated.
pub struct PipelineReader<'a> {
    upstream: Upstream<'a>,
    chain: Chain<'a>,
    live: Arc<Live>,
    chunk: Bytes,
    began: Option<Instant>,
    stopped: bool,
    end: End,
}

enum End {
    NotYet,
    Clean(Option<Report>),
    Failed(PipelineError),
}

impl<'a> PipelineReader<'a> {
    pub(super) fn new(parts: Parts<'a>) -> Self {
        let (upstream, chain, live) = parts.into_live(None);
        Self { upstream, chain, live, chunk: Bytes::new(), began: None, stopped: false, end: End::NotYet }
    }

    /// The next chunk; `None` at the end.
    ///
    /// # Errors
    ///
    /// What follows the last good byte; it repeats.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was taken.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, PipelineError> {
        poll_fn(|cx| {
            let more = ready!(self.poll_show(cx))?;
            Poll::Ready(Ok(more.then(|| std::mem::take(&mut self.chunk))))
        })
        .await
    }

    /// Watches it and can cancel it, from anywhere.
    pub fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.live))
    }

    /// What the pipeline has done, once the end was read; once.
    pub fn report(&mut self) -> Option<Report> {
        match &mut self.end {
            End::Clean(report) => report.take(),
            _ => None,
        }
    }

    /// Has a chunk where there is one; `false` at the end.
    fn poll_show(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, PipelineError>> {
        match &self.end {
            _ if !self.chunk.is_empty() => {}
            End::NotYet => {}
            End::Clean(_) => return Poll::Ready(Ok(false)),
            End::Failed(error) => return Poll::Ready(Err(error.clone())),
        }
        // Others have their turn, however fast it comes.
        let coop = ready!(poll_proceed(cx));
        if !self.chunk.is_empty() {
            coop.made_progress();
            return Poll::Ready(Ok(true));
        }
        self.began.get_or_insert_with(Instant::now);
        let faults = match ready!(self.advance(cx)) {
            Ok(Some(chunk)) => {
                coop.made_progress();
                self.chunk = chunk;
                return Poll::Ready(Ok(true));
            }
            Ok(None) => None,
            Err(fault) => Some(Faults::of(fault, &self.live, cx, |cx, but| {
                let mut faults = self.upstream.look(cx, but);
                faults.extend(self.chain.look(cx));
                faults
            })),
        };
        Poll::Ready(self.settle(faults))
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        if let Poll::Ready(fault) = poll_stopped(&self.live, cx) {
            return Poll::Ready(Err(fault));
        }
        if self.chain.is_stopped() {
            self.upstream.stop_all(&self.live);
        }
        self.stopped |= self.upstream.poll(cx, &self.live)? == Some(Ended::Stopped);
        self.chain.begin_turn();
        let chunk = ready!(self.chain.poll_chunk(cx, &self.live))?;
        self.stopped |= self.chain.is_stopped();
        Poll::Ready(Ok(chunk))
    }

    fn settle(&mut self, faults: Option<Faults>) -> Result<bool, PipelineError> {
        let mut leavings = Leavings::default();
        if let Some(faults) = &faults {
            self.fail(&faults.first.cause, &mut leavings);
        } else {
            self.upstream.end(&mut leavings);
            self.chain.end(&mut leavings);
        }
        let bytes = self.live.report().last().map_or(0, |stage| stage.bytes_out);
        let outcome = if self.stopped { Outcome::Stopped { bytes } } else { Outcome::Completed };
        let live = Arc::clone(&self.live);
        match (Settled { live, began: self.began, outcome, faults, leavings }).result() {
            Ok(report) => self.end = End::Clean(Some(report)),
            Err(error) => {
                self.end = End::Failed(error.clone());
                return Err(error);
            }
        }
        Ok(false)
    }

    fn fail(&mut self, cause: &Cause, leavings: &mut Leavings) {
        self.live.rest_all();
        self.chain.fail(cause, leavings);
        self.upstream.fail(cause, leavings);
    }
}

// Nothing in it is ever pinned.
impl Unpin for PipelineReader<'_> {}

impl AsyncRead for PipelineReader<'_> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() > 0 && ready!(this.poll_show(cx))? {
            let n = this.chunk.len().min(buf.remaining());
            copy::put(&this.chunk[..n], buf);
            take_off(&mut this.chunk, n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for PipelineReader<'_> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_show(cx))?;
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(self: Pin<&mut Self>, amt: usize) {
        take_off(&mut self.get_mut().chunk, amt);
    }
}

impl Drop for PipelineReader<'_> {
    fn drop(&mut self) {
        if matches!(self.end, End::NotYet) {
            // A stage that has panicked may do so again; that must not become an abort of the process.
            let _ = catch_unwind(AssertUnwindSafe(|| self.fail(&dropped(), &mut Leavings::default())));
        }
    }
}

impl fmt::Debug for PipelineReader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineReader").field("live", &self.live).finish_non_exhaustive()
    }
}
