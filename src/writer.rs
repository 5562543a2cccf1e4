//! The writing half. Never waits for anything but room.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{io::AsyncWrite, task::coop::poll_proceed};

use crate::{
    blocking::BlockingWriter, control::Control, error::SpillError, shell::Shared, sink::SpillSink, stats::SpillStats,
    turn,
};

/// The writing half of a [`SpillBuffer`](crate::SpillBuffer).
///
/// What it accepts is readable at once, without `flush`. It waits for a block that a disk write is
/// about to free, for the grace in which a reader that keeps up makes room (about a millisecond,
/// and at most a quarter of the time), or at the disk limit; a reader that stands still does not hold
/// it up.
///
/// **Say how the stream ends**: [`finish`](Self::finish), or `shutdown` of [`AsyncWrite`], is its end;
/// [`fail`](Self::fail) and [`abort`](Self::abort) are failures. Dropped without any of these, the
/// reader gets every accepted byte and then [`SpillError::WriterDropped`], so that a task that died
/// is never taken for a stream that ended.
///
/// # Cancel safety
///
/// Every future made of this may be dropped at any point: nothing is lost or repeated.
/// [`write_bytes`](Self::write_bytes) has accepted its item whole, or nothing of it.
#[derive(Debug)]
pub struct SpillWriter {
    shared: Arc<Shared>,
    /// It has said that this is the end, and was believed: its drop changes nothing.
    ended: bool,
}

impl SpillWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, ended: false }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// As [`finish`](Self::finish).
    pub(crate) fn end(&mut self) -> Result<(), SpillError> {
        self.shared.finish()?;
        self.ended = true;
        Ok(())
    }

    /// Accepts `item` whole. What does not fit the window at once waits inside, where the reader can
    /// read it already, and goes to blocks as these come free; a further item or write waits for that.
    ///
    /// The bytes are copied: a slice of ten bytes may pin an allocation of any size, which no limit
    /// would count. The one item that waits inside is what memory may hold beyond `memory_limit`.
    ///
    /// # Errors
    ///
    /// As for a write: the reader's end, an earlier failure, and [`SpillError::DiskLimit`] under
    /// [`OnFull::Fail`](crate::OnFull::Fail). Nothing of the item was accepted then.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing of the item was accepted.
    ///
    /// # Example
    ///
    /// ```
    /// # use spillbuffer::SpillBuffer;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), spillbuffer::SpillError> {
    /// let (mut writer, mut reader) = SpillBuffer::new().into_split();
    /// writer.write_bytes("hello".into()).await?;
    /// writer.finish()?;
    /// assert_eq!(reader.next_chunk().await?.unwrap(), "hello");
    /// assert!(reader.next_chunk().await?.is_none());
    /// # Ok(()) }
    /// ```
    pub async fn write_bytes(&mut self, mut item: Bytes) -> Result<(), SpillError> {
        poll_fn(|cx| {
            let coop = ready!(poll_proceed(cx));
            let len = item.len();
            let done = self.shared.poll_write_bytes(cx, &mut item);
            if done.is_ready() {
                coop.made_progress();
                turn::filled(len);
            }
            done
        })
        .await
    }

    /// Ends the stream: the reader gets every byte, then the end. Does not wait, and may be repeated
    /// through `shutdown`.
    ///
    /// # Errors
    ///
    /// The stream has failed before, or the reader has gone: then this is no clean end.
    pub fn finish(mut self) -> Result<(), SpillError> {
        self.end()
    }

    /// Fails the stream: the reader gets every accepted byte, then
    /// [`SpillError::WriterFailed`] with this cause. Does nothing after an earlier end or failure.
    ///
    /// # Example
    ///
    /// ```
    /// # use spillbuffer::{SpillBuffer, SpillError};
    /// # use std::{error::Error, io};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (writer, mut reader) = SpillBuffer::new().into_split();
    /// writer.fail(io::Error::from(io::ErrorKind::ConnectionReset));
    ///
    /// let error = reader.next_chunk().await.unwrap_err();
    /// let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    /// assert_eq!(cause.kind(), io::ErrorKind::ConnectionReset);
    /// # }
    /// ```
    pub fn fail(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shared.fail(SpillError::writer_failed(cause));
    }

    /// Fails the stream and frees its backlog now: the reader's next read is
    /// [`SpillError::WriterFailed`] with this cause. Does nothing after an earlier end or failure.
    pub fn abort(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shared.abort(SpillError::writer_failed(cause));
    }

    /// Resolves when the reader has gone: dropped, cancelled, or met by data that could not be read
    /// back. The future borrows nothing.
    ///
    /// # Cancel safety
    ///
    /// It changes nothing.
    pub fn closed(&self) -> Closed {
        Closed { shared: Arc::clone(&self.shared), key: None }
    }

    /// Whether [`closed`](Self::closed) would resolve now.
    pub fn is_closed(&self) -> bool {
        self.shared.is_closed()
    }

    /// What the buffer holds and has done.
    pub fn stats(&self) -> SpillStats {
        self.shared.stats()
    }

    /// A handle that outlives the move of both halves.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }

    /// The writing half as a [`Sink`](futures_sink::Sink) of `Bytes`.
    #[must_use]
    pub fn into_sink(self) -> SpillSink {
        SpillSink::new(self)
    }

    /// The writing half for a thread that may block: [`std::io::Write`].
    #[must_use]
    pub fn into_blocking(self) -> BlockingWriter {
        BlockingWriter::new(self)
    }
}

impl AsyncWrite for SpillWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let coop = ready!(poll_proceed(cx));
        let ControlFlow::Continue(lock) = self.shared.write_quietly(buf) else {
            coop.made_progress();
            return Poll::Ready(Ok(buf.len()));
        };
        let written = ready!(self.shared.write_under(lock, cx, &[IoSlice::new(buf)]));
        coop.made_progress();
        Poll::Ready(written.inspect(|&n| turn::filled(n)).map_err(Into::into))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(poll_proceed(cx));
        let written = ready!(self.shared.poll_write(cx, bufs));
        coop.made_progress();
        Poll::Ready(written.inspect(|&n| turn::filled(n)).map_err(Into::into))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Ready at once: what was accepted is visible already, and a pipe promises no more.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shared.check_flush().map_err(Into::into))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end().map_err(Into::into))
    }
}

impl Drop for SpillWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.drop_writer();
        }
    }
}

/// Resolves when the reader has gone; see [`SpillWriter::closed`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Closed {
    shared: Arc<Shared>,
    key: Option<u64>,
}

impl Future for Closed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.poll_closed(cx, &mut this.key)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.forget_closed(key);
        }
    }
}
