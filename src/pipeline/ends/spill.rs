//! The two ends of a buffer, with their errors as they are. Never takes a buffer's end for a stream's.

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use crate::{
    chunk::take_off,
    drain::Drain,
    error::SpillError,
    reader::SpillReader,
    source::Source,
    writer::{Closed, SpillWriter},
};

/// The buffer's own error, out of what the traits made of it.
pub(in crate::pipeline) fn spill_error(error: io::Error) -> Box<dyn Error + Send + Sync> {
    match SpillError::from_io(&error) {
        Some(error) => error.clone().into(),
        None => error.into(),
    }
}

/// What a buffer's reader gives.
pub(in crate::pipeline) struct SpillSource(pub(in crate::pipeline) SpillReader);

impl Source for SpillSource {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        self.0.poll_next_chunk(cx).map(|next| next.map_err(Into::into).transpose())
    }

    fn cancel(&mut self, cause: Arc<dyn Error + Send + Sync>) {
        self.0.cancel(cause);
    }
}

/// Writes to a buffer; made by [`Pipeline::into_spill`](crate::pipeline::Pipeline::into_spill).
///
/// The end of the pipeline is `finish`, its failure is `abort` with the cause; a reader that has gone fails the pipeline, also
/// while there is nothing to write.
#[derive(Debug)]
pub struct SpillDrain {
    writer: SpillWriter,
    closed: Closed,
}

impl SpillDrain {
    pub(in crate::pipeline) fn new(writer: SpillWriter) -> Self {
        let closed = writer.closed();
        Self { writer, closed }
    }

    /// The writing half.
    #[must_use]
    pub fn into_inner(self) -> SpillWriter {
        self.writer
    }
}

impl Drain for SpillDrain {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        let n = ready!(Pin::new(&mut self.writer).poll_write(cx, chunk)).map_err(spill_error)?;
        take_off(chunk, n);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Pin::new(&mut self.writer).poll_flush(cx).map_err(spill_error)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Pin::new(&mut self.writer).poll_shutdown(cx).map_err(spill_error)
    }

    fn abort(&mut self, cause: Arc<dyn Error + Send + Sync>) {
        self.writer.abort(cause);
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Error + Send + Sync>> {
        ready!(Pin::new(&mut self.closed).poll(cx));
        // What the reader's end was, the next call tells.
        match Pin::new(&mut self.writer).poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(spill_error(error)),
            _ => Poll::Ready(SpillError::ReaderDropped.into()),
        }
    }
}
