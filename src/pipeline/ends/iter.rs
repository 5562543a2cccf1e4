//! Chunks that are there already. Never waits.

use std::{
    error::Error,
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::source::Source;

pub(in crate::pipeline) struct IterSource<I>(pub(in crate::pipeline) I);

impl<I: Iterator<Item: Into<Bytes>>> Source for IterSource<I> {
    fn poll_chunk(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        Poll::Ready(self.0.next().map(|chunk| Ok(chunk.into())))
    }
}
