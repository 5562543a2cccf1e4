//! The reading half. Never waits for the disk on the caller's thread.

use std::{
    error::Error,
    future::poll_fn,
    io,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufRead, AsyncRead, ReadBuf},
    task::coop::{RestoreOnPending, poll_proceed},
};

use crate::{
    blocking::BlockingReader,
    control::Control,
    copy,
    error::SpillError,
    shell::{Shared, Target, View},
    stats::SpillStats,
    stream::SpillStream,
    turn,
};

/// The reading half of a [`SpillBuffer`](crate::SpillBuffer).
///
/// It gives every accepted byte once and in order, then the end or an error, and repeats that. What
/// lies on disk and in the page cache is read in place; what the disk must be waited for is read by
/// an I/O thread.
///
/// Dropped, it frees the backlog at once and the writer's next write fails.
///
/// # Cancel safety
///
/// Every future made of this may be dropped at any point: nothing is lost or repeated.
#[derive(Debug)]
pub struct SpillReader {
    shared: Arc<Shared>,
    /// What `fill_buf` has shown.
    view: Option<View>,
}

impl SpillReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, view: None }
    }

    /// The next bytes, as many as lie together (a block at most, but an item of
    /// [`write_bytes`](crate::SpillWriter::write_bytes) that has found no room comes whole); `None` at
    /// the end. Never an empty chunk.
    ///
    /// A chunk is the buffer's own block, lent, while less than half of `memory_limit` is lent; it
    /// counts until it is dropped ([`SpillStats::lent`]). Beyond that, and where a few bytes would pin a
    /// block, it is a copy of the caller's own: whoever collects all chunks of a long stream holds the
    /// stream in memory, and the pipe goes on.
    ///
    /// # Errors
    ///
    /// What follows the last good byte; it repeats.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was taken.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, SpillError> {
        poll_fn(|cx| self.poll_next_chunk(cx)).await
    }

    pub(crate) fn poll_next_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, SpillError>> {
        let coop = ready!(self.proceed(cx));
        let chunk = ready!(self.poll_chunk(cx));
        coop.made_progress();
        if let Ok(Some(chunk)) = &chunk {
            turn::moved(chunk.len());
        }
        Poll::Ready(chunk)
    }

    /// Gives the stream up: the backlog is freed now, the writer's next write is
    /// [`SpillError::Cancelled`] with this cause, and so is the next read. Does nothing after the
    /// reader's end.
    pub fn cancel(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shared.end_reader(SpillError::cancelled(cause));
    }

    /// What the buffer holds and has done.
    pub fn stats(&self) -> SpillStats {
        self.shared.stats()
    }

    /// A handle that outlives the move of both halves.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }

    /// The reading half as a [`Stream`](futures_core::Stream) of chunks.
    #[must_use]
    pub fn into_stream(self) -> SpillStream {
        SpillStream::new(self)
    }

    /// The reading half for a thread that may block: [`std::io::Read`] and [`std::io::BufRead`].
    #[must_use]
    pub fn into_blocking(self) -> BlockingReader {
        BlockingReader::new(self)
    }

    // What both the async and the blocking traits are made of.

    pub(crate) fn poll_copy(&mut self, cx: &Context<'_>, target: &mut impl Target) -> Poll<Result<usize, SpillError>> {
        self.drop_view();
        self.shared.poll_read(cx, target)
    }

    pub(crate) fn poll_show(&mut self, cx: &Context<'_>) -> Poll<Result<&[u8], SpillError>> {
        // Asked anew each time, so that an abort in between is seen.
        self.drop_view();
        self.view = ready!(self.shared.poll_view(cx))?;
        Poll::Ready(Ok(self.shown()))
    }

    /// What [`poll_show`](Self::poll_show) has shown.
    pub(crate) fn shown(&self) -> &[u8] {
        self.view.as_ref().map_or(&[], View::bytes)
    }

    pub(crate) fn poll_chunk(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, SpillError>> {
        self.drop_view();
        self.shared.poll_chunk(cx)
    }

    pub(crate) fn take(&mut self, amt: usize) {
        // More than was shown would count bytes that nobody saw.
        let amt = amt.min(self.shown().len());
        if let Some(view) = self.view.take() {
            self.shared.end_view(view, amt);
        }
    }

    /// Takes part in tokio's cooperative budget. Where that is used up, the task is to be polled again, and until then the
    /// time is the scheduler's: the writer must not take this for a reader that lags.
    fn proceed(&self, cx: &mut Context<'_>) -> Poll<RestoreOnPending> {
        let coop = poll_proceed(cx);
        if coop.is_pending() {
            self.shared.reader_yields();
        }
        coop
    }

    fn drop_view(&mut self) {
        if let Some(view) = self.view.take() {
            self.shared.end_view(view, 0);
        }
    }
}

impl AsyncRead for SpillReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let coop = ready!(self.proceed(cx));
        self.drop_view();
        let ControlFlow::Continue(lock) = self.shared.read_quietly(buf) else {
            coop.made_progress();
            return Poll::Ready(Ok(()));
        };
        let read = ready!(self.shared.read_under(lock, cx, buf));
        coop.made_progress();
        Poll::Ready(read.map(turn::moved).map_err(Into::into))
    }
}

impl AsyncBufRead for SpillReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let coop = ready!(self.proceed(cx));
        let shown = ready!(self.get_mut().poll_show(cx));
        coop.made_progress();
        Poll::Ready(shown.map_err(Into::into))
    }

    fn consume(mut self: Pin<&mut Self>, amt: usize) {
        self.take(amt);
        turn::moved(amt);
    }
}

impl Target for ReadBuf<'_> {
    fn remaining(&self) -> usize {
        ReadBuf::remaining(self)
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.filled().as_ptr_range().end.addr();
        copy::each_stride(bytes, end, |piece| self.put_slice(piece));
    }

    fn space(&mut self, len: usize) -> &mut [u8] {
        self.initialize_unfilled_to(len)
    }

    fn advance(&mut self, n: usize) {
        ReadBuf::advance(self, n);
    }
}

impl Drop for SpillReader {
    fn drop(&mut self) {
        self.drop_view();
        self.shared.drop_reader();
    }
}
