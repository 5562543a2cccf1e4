//! Chunks of a stream of chunks. Never copies them.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream;

use super::Source;
use crate::within::within;

/// The chunks of a [`Stream`] of `Result<Bytes, E>`, as they are.
#[derive(Debug)]
pub struct StreamSource<S> {
    inner: S,
}

within!(StreamSource);

impl<S> StreamSource<S> {
    /// Takes from `stream`.
    pub fn new(stream: S) -> Self {
        Self { inner: stream }
    }
}

impl<S, E> Source for StreamSource<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        Pin::new(&mut self.inner).poll_next(cx).map(|next| next.map(|chunk| chunk.map_err(Into::into)))
    }
}
