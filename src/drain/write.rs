//! Chunks into what can be written. Never writes an empty one.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::Drain;
use crate::{chunk::take_off, within::within};

/// Writes chunks to an [`AsyncWrite`]. A write of 0 bytes is an error of kind `WriteZero`.
#[derive(Debug)]
pub struct WriteDrain<W> {
    inner: W,
}

within!(WriteDrain);

impl<W> WriteDrain<W> {
    /// Writes to `writer`.
    pub fn new(writer: W) -> Self {
        Self { inner: writer }
    }
}

impl<W: AsyncWrite + Unpin> Drain for WriteDrain<W> {
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        if chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, chunk))?;
        if written == 0 {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
        }
        // A writer that claims more than it was given must not make us panic.
        take_off(chunk, written);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(Into::into)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Pin::new(&mut self.inner).poll_shutdown(cx).map_err(Into::into)
    }
}
