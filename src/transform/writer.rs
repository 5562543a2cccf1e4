//! A transform in front of what is written. Never ends what it writes to after a failure, nor when it is
//! merely dropped.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_sink::Sink;
use tokio::{io::AsyncWrite, task::coop::poll_proceed};

use super::{
    Transform, TransformError, TransformSink,
    clock::{self, Pause},
    stage::{Said, Stage},
};
use crate::{
    copy,
    drain::{Drain, SinkDrain, WriteDrain},
    within::Within,
};

/// The most that one write takes, in bytes.
const PIECE: usize = 64 << 10;

/// Below this much space the next write gets new memory.
const LEAST: usize = 4 << 10;

/// Writes to a sink, through a transform.
///
/// A write takes up to 64 KiB once everything before it has been written on, and begins to write on what
/// comes of it. `flush` writes the rest, what the transform holds back included. `shutdown` finishes the
/// transform, writes what comes of that, flushes, and then shuts the sink down.
///
/// After a failure the sink is not shut down, so that a part is never taken for the whole; neither is it
/// where this is dropped without `shutdown`. Errors are [`TransformError`]s with their cause, and repeat. An
/// error of what was written on in the background is told by the next call.
///
/// Where the transform stops by itself, later writes are [`TransformError::Stopped`], and `shutdown` is a
/// success.
///
/// The sink must be `Unpin`: wrap what is not in `Box::pin`.
///
/// # Cancel safety
///
/// A write that is dropped before it is ready has taken nothing. A `flush` or `shutdown` that is dropped goes on
/// where it was when it is called again.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Inspect, TransformWriter};
/// use tokio::io::AsyncWriteExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut lines = 0;
/// let count = Inspect::new(|piece: &[u8]| lines += piece.iter().filter(|byte| **byte == b'\n').count());
/// let mut writer = TransformWriter::new(Vec::new(), count);
/// writer.write_all(b"one\ntwo\n").await?;
/// writer.shutdown().await?;
/// assert_eq!(writer.into_inner(), b"one\ntwo\n");
/// assert_eq!(lines, 2);
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct TransformWriter<D, T: Transform> {
    sink: D,
    stage: Stage<T>,
    pause: Pause,
    /// What has come out and was not written yet.
    chunk: Bytes,
    /// What writes are copied into.
    buffer: BytesMut,
    ending: Ending,
}

/// A flush or the like of the sink.
type Call<D> = fn(&mut D, &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>>;

/// How far the shutdown is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Open,
    /// No further write is taken.
    Finishing,
    Closing,
    Closed,
}

impl<W: AsyncWrite + Unpin, T: Transform> TransformWriter<WriteDrain<W>, T> {
    /// In front of an [`AsyncWrite`].
    pub fn new(writer: W, transform: T) -> Self {
        Self::from_drain(WriteDrain::new(writer), transform)
    }
}

impl<S, T> TransformWriter<SinkDrain<S>, T>
where
    S: Sink<Bytes> + Unpin,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    T: Transform,
{
    /// In front of a [`Sink`] of chunks, such as [`SpillWriter::into_sink`](crate::SpillWriter::into_sink),
    /// without a copy of what comes out.
    pub fn from_sink(sink: S, transform: T) -> Self {
        Self::from_drain(SinkDrain::new(sink), transform)
    }
}

impl<D: Drain, T: Transform> TransformWriter<D, T> {
    /// In front of a drain of any kind.
    pub fn from_drain(drain: D, transform: T) -> Self {
        Self {
            sink: drain,
            stage: Stage::new(transform, clock::now),
            pause: Pause::default(),
            chunk: Bytes::new(),
            buffer: BytesMut::new(),
            ending: Ending::Open,
        }
    }

    /// How many bytes of output the transform may hold at once (default 64 KiB, at least 1).
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.stage.set_output_limit(bytes);
        self
    }

    /// Whether the transform has had enough: no more is taken, and `shutdown` will be a success.
    pub fn is_stopped(&self) -> bool {
        self.stage.is_stopped()
    }

    /// What was written and the transform has not taken, once it has [stopped](Self::is_stopped).
    pub fn rest(&self) -> &Bytes {
        self.stage.rest()
    }

    /// The writer as a [`Sink`] of chunks, which go into the transform uncopied.
    #[must_use]
    pub fn into_sink(self) -> TransformSink<D, T> {
        TransformSink::new(self)
    }

    /// What the transform leaves behind: a digest, a count.
    ///
    /// # Errors
    ///
    /// The stream's own, where it has failed; [`TransformError::NotEnded`] before `shutdown` is done.
    pub fn into_value(self) -> Result<T::Value, TransformError> {
        value(self.stage, self.ending)
    }

    /// Both: what is written to, and what [`into_value`](Self::into_value) gives.
    pub fn into_parts(self) -> (D::Inner, Result<T::Value, TransformError>)
    where
        D: Within,
    {
        (self.sink.into_inner(), value(self.stage, self.ending))
    }

    /// What is written to.
    pub fn get_ref(&self) -> &D::Inner
    where
        D: Within,
    {
        self.sink.get_ref()
    }

    /// What is written to. What is written to it directly the transform does not see.
    pub fn get_mut(&mut self) -> &mut D::Inner
    where
        D: Within,
    {
        self.sink.get_mut()
    }

    /// What is written to. Bytes that have not been written on are dropped.
    pub fn into_inner(self) -> D::Inner
    where
        D: Within,
    {
        self.sink.into_inner()
    }

    /// Ready when the transform can take more: everything before has been written on.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransformError>> {
        if self.ending != Ending::Open {
            return Poll::Ready(Err(self.over()));
        }
        // An error of the transform comes out of this, behind the good bytes before it.
        let ended = ready!(self.poll_drive(cx))?;
        Poll::Ready(if ended { Err(TransformError::Stopped) } else { Ok(()) })
    }

    /// Takes `chunk`, after [`poll_room`](Self::poll_room).
    pub(super) fn take(&mut self, chunk: Bytes) -> Result<(), TransformError> {
        if self.ending != Ending::Open {
            return Err(self.over());
        }
        if !self.stage.needs_input() {
            self.stage.check()?;
            return Err(if self.is_stopped() { TransformError::Stopped } else { TransformError::NotReady });
        }
        self.stage.push(chunk);
        Ok(())
    }

    pub(super) fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransformError>> {
        if self.ending == Ending::Closed {
            return Poll::Ready(self.stage.check());
        }
        // First what was taken, then what the transform held back of it.
        if !ready!(self.poll_drive(cx))? {
            self.stage.flush_input();
            ready!(self.poll_drive(cx))?;
        }
        self.poll_sink(cx, D::poll_flush)
    }

    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransformError>> {
        if self.ending == Ending::Open {
            self.ending = Ending::Finishing;
        }
        if self.ending == Ending::Finishing {
            if !ready!(self.poll_drive(cx))? {
                self.stage.end_input();
                ready!(self.poll_drive(cx))?;
            }
            ready!(self.poll_sink(cx, D::poll_flush))?;
            self.ending = Ending::Closing;
        }
        if self.ending == Ending::Closing {
            ready!(self.poll_sink(cx, D::poll_close))?;
            self.ending = Ending::Closed;
        }
        Poll::Ready(self.stage.check())
    }

    /// Writes on all that the transform has; `true` where that was the end of it.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TransformError>> {
        loop {
            // Once for each chunk, as in the reader.
            let coop = ready!(poll_proceed(cx));
            if !self.chunk.is_empty() {
                if let Err(cause) = ready!(self.sink.poll_write(cx, &mut self.chunk)) {
                    self.abort(cause);
                }
                coop.made_progress();
                continue;
            }
            ready!(self.pause.poll(cx));
            let step = self.stage.next_into(&mut self.chunk);
            coop.made_progress();
            match step? {
                Said::Chunk => {}
                Said::NeedInput => return Poll::Ready(Ok(false)),
                Said::Wait(wait) => {
                    if let Err(error) = self.pause.begin(wait) {
                        self.stage.fail(error);
                    }
                }
                Said::End => return Poll::Ready(Ok(true)),
            }
        }
    }

    fn poll_sink(&mut self, cx: &mut Context<'_>, call: Call<D>) -> Poll<Result<(), TransformError>> {
        self.stage.check()?;
        if let Err(cause) = ready!(call(&mut self.sink, cx)) {
            self.abort(cause);
        }
        Poll::Ready(self.stage.check())
    }

    /// The sink has failed: nothing more is written to it.
    fn abort(&mut self, cause: Box<dyn Error + Send + Sync>) {
        self.chunk = Bytes::new();
        self.stage.abort(TransformError::sink_failed(cause));
    }

    /// What a write after the shutdown is told.
    fn over(&self) -> TransformError {
        self.stage.check().err().unwrap_or(TransformError::Finished)
    }
}

fn value<T: Transform>(stage: Stage<T>, ending: Ending) -> Result<T::Value, TransformError> {
    stage.check()?;
    if ending == Ending::Closed { stage.into_value() } else { Err(TransformError::NotEnded) }
}

// Nothing in it is ever pinned.
impl<D, T: Transform> Unpin for TransformWriter<D, T> {}

impl<D: Drain, T: Transform> AsyncWrite for TransformWriter<D, T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_room(cx))?;
        let n = bytes.len().min(PIECE);
        if this.buffer.capacity() < n.min(LEAST) {
            // Takes the old block again where nobody holds a part of it.
            this.buffer.reserve(PIECE.min(n.next_power_of_two().max(LEAST)));
        }
        this.buffer.reserve(n);
        copy::put(&bytes[..n], &mut this.buffer);
        let piece = this.buffer.split().freeze();
        this.take(piece)?;
        // Begun now and not with the next call, so that bytes are not held back. Where it must wait, the next
        // call goes on; what fails, the next call tells.
        let _ = this.poll_drive(cx);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush_all(cx).map_err(Into::into)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_end(cx).map_err(Into::into)
    }
}
