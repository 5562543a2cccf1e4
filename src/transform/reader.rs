//! A transform around what is read. Never reads on while it has something to give.

use std::{
    error::Error,
    future::poll_fn,
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use tokio::{
    io::{AsyncBufRead, AsyncRead, ReadBuf},
    task::coop::poll_proceed,
};

use super::{
    Transform, TransformError, TransformStream,
    clock::{self, Pause},
    stage::{Said, Stage},
};
use crate::{
    chunk::take_off,
    copy,
    source::{BufReadSource, ReadSource, Source, StreamSource},
    within::Within,
};

/// Reads from a source, through a transform.
///
/// Every byte that was good before an error is given before it; then the error, a [`TransformError`]
/// with its cause, and it repeats. Where the transform stops by itself, that is the end, and the source is
/// not read on.
///
/// The source must be `Unpin`: wrap what is not in `Box::pin`.
///
/// # Cancel safety
///
/// Every future made of this may be dropped at any point: nothing is lost or repeated.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Inspect, TransformReader};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut seen = 0;
/// let mut reader = TransformReader::new(&b"some bytes"[..], Inspect::new(|piece: &[u8]| seen += piece.len()));
/// while let Some(chunk) = reader.next_chunk().await? {
///     assert_eq!(chunk, "some bytes");
/// }
/// drop(reader);
/// assert_eq!(seen, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TransformReader<S, T: Transform> {
    source: S,
    stage: Stage<T>,
    pause: Pause,
    /// What has come out and was not read yet.
    chunk: Bytes,
}

impl<R: AsyncRead + Unpin, T: Transform> TransformReader<ReadSource<R>, T> {
    /// Around an [`AsyncRead`], in chunks of up to 64 KiB.
    pub fn new(reader: R, transform: T) -> Self {
        Self::from_source(ReadSource::new(reader), transform)
    }
}

impl<R: AsyncBufRead + Unpin, T: Transform> TransformReader<BufReadSource<R>, T> {
    /// Around an [`AsyncBufRead`], in chunks of what its buffer shows.
    pub fn from_buf_read(reader: R, transform: T) -> Self {
        Self::from_source(BufReadSource::new(reader), transform)
    }
}

impl<S, E, T> TransformReader<StreamSource<S>, T>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
    T: Transform,
{
    /// Around a [`Stream`] of chunks, such as [`SpillReader::into_stream`](crate::SpillReader::into_stream),
    /// without a copy.
    pub fn from_stream(stream: S, transform: T) -> Self {
        Self::from_source(StreamSource::new(stream), transform)
    }
}

impl<S: Source, T: Transform> TransformReader<S, T> {
    /// Around a source of any kind.
    pub fn from_source(source: S, transform: T) -> Self {
        let stage = Stage::new(transform, clock::now);
        Self { source, stage, pause: Pause::default(), chunk: Bytes::new() }
    }

    /// How many bytes of output the transform may hold at once (default 64 KiB, at least 1).
    #[must_use]
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.stage.set_output_limit(bytes);
        self
    }

    /// The next bytes, as many as lie together; `None` at the end. Never an empty chunk.
    ///
    /// # Errors
    ///
    /// What follows the last good byte; it repeats.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, nothing was taken.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, TransformError> {
        poll_fn(|cx| self.poll_next_chunk(cx)).await
    }

    pub(super) fn poll_next_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, TransformError>> {
        let more = ready!(self.poll_show(cx))?;
        Poll::Ready(Ok(more.then(|| mem::take(&mut self.chunk))))
    }

    /// The stream as a [`Stream`] of chunks.
    #[must_use]
    pub fn into_stream(self) -> TransformStream<S, T> {
        TransformStream::new(self)
    }

    /// Whether the transform has had enough, so that the stream ends before its source does.
    pub fn is_stopped(&self) -> bool {
        self.stage.is_stopped()
    }

    /// What was read from the source and the transform has not taken, once it has
    /// [stopped](Self::is_stopped): whoever goes on with the source begins with this.
    pub fn rest(&self) -> &Bytes {
        self.stage.rest()
    }

    /// What the transform leaves behind: a digest, a count.
    ///
    /// # Errors
    ///
    /// The stream's own, where it has failed; [`TransformError::NotEnded`] where it was not read to its end.
    pub fn into_value(self) -> Result<T::Value, TransformError> {
        if self.chunk.is_empty() { self.stage.into_value() } else { Err(TransformError::NotEnded) }
    }

    /// Both: the source's reader or stream, and what [`into_value`](Self::into_value) gives.
    pub fn into_parts(self) -> (S::Inner, Result<T::Value, TransformError>)
    where
        S: Within,
    {
        let Self { source, stage, pause: _, chunk } = self;
        let value = if chunk.is_empty() { stage.into_value() } else { Err(TransformError::NotEnded) };
        (source.into_inner(), value)
    }

    /// What is read from.
    pub fn get_ref(&self) -> &S::Inner
    where
        S: Within,
    {
        self.source.get_ref()
    }

    /// What is read from. What is read from it directly the transform does not see.
    pub fn get_mut(&mut self) -> &mut S::Inner
    where
        S: Within,
    {
        self.source.get_mut()
    }

    /// What is read from. Bytes that were taken from it and have not come out are dropped.
    pub fn into_inner(self) -> S::Inner
    where
        S: Within,
    {
        self.source.into_inner()
    }

    /// Has a chunk where there is one; `false` at the end.
    fn poll_show(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, TransformError>> {
        loop {
            // Once for each chunk of the input, so that a transform that swallows all of it starves nobody.
            let coop = ready!(poll_proceed(cx));
            if !self.chunk.is_empty() {
                coop.made_progress();
                return Poll::Ready(Ok(true));
            }
            ready!(self.pause.poll(cx));
            match self.stage.next_into(&mut self.chunk) {
                Ok(Said::Chunk) => {}
                Ok(Said::NeedInput) => match ready!(self.source.poll_chunk(cx)) {
                    Some(Ok(chunk)) => self.stage.push(chunk),
                    Some(Err(cause)) => self.stage.fail(TransformError::source_failed(cause)),
                    None => self.stage.end_input(),
                },
                Ok(Said::Wait(wait)) => {
                    if let Err(error) = self.pause.begin(wait) {
                        self.stage.fail(error);
                    }
                }
                Ok(Said::End) => return Poll::Ready(Ok(false)),
                Err(error) => return Poll::Ready(Err(error)),
            }
            coop.made_progress();
        }
    }
}

// Nothing in it is ever pinned.
impl<S, T: Transform> Unpin for TransformReader<S, T> {}

impl<S: Source, T: Transform> AsyncRead for TransformReader<S, T> {
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

impl<S: Source, T: Transform> AsyncBufRead for TransformReader<S, T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_show(cx))?;
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(self: Pin<&mut Self>, amt: usize) {
        take_off(&mut self.get_mut().chunk, amt);
    }
}
