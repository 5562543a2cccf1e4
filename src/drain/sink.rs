//! Chunks into a sink of chunks. Never copies them.

use std::{
    error::Error,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_sink::Sink;

use super::Drain;
use crate::within::within;

/// Sends chunks to a [`Sink`] of `Bytes`, whole.
#[derive(Debug)]
pub struct SinkDrain<S> {
    inner: S,
}

within!(SinkDrain);

impl<S> SinkDrain<S> {
    /// Sends to `sink`.
    pub fn new(sink: S) -> Self {
        Self { inner: sink }
    }
}

impl<S> Drain for SinkDrain<S>
where
    S: Sink<Bytes> + Unpin,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        let mut sink = Pin::new(&mut self.inner);
        ready!(sink.as_mut().poll_ready(cx)).map_err(Into::into)?;
        Poll::Ready(sink.start_send(mem::take(chunk)).map_err(Into::into))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(Into::into)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(Into::into)
    }
}
