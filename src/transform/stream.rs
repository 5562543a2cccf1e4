//! What a transform makes as a stream of chunks. Never reads ahead of its caller.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::{FusedStream, Stream};

use super::{Transform, TransformError, TransformReader};
use crate::source::Source;

/// A [`Stream`] of chunks; made by [`TransformReader::into_stream`].
///
/// An error comes once, then `None`: a stream that was cut is told from one that ended by the item before.
#[derive(Debug)]
pub struct TransformStream<S, T: Transform> {
    reader: TransformReader<S, T>,
    over: bool,
}

impl<S: Source, T: Transform> TransformStream<S, T> {
    pub(super) fn new(reader: TransformReader<S, T>) -> Self {
        Self { reader, over: false }
    }

    /// The reader.
    pub fn get_ref(&self) -> &TransformReader<S, T> {
        &self.reader
    }

    /// The reader.
    pub fn get_mut(&mut self) -> &mut TransformReader<S, T> {
        &mut self.reader
    }

    /// The reader, which has the transform's value.
    #[must_use]
    pub fn into_inner(self) -> TransformReader<S, T> {
        self.reader
    }
}

// Nothing in it is ever pinned.
impl<S, T: Transform> Unpin for TransformStream<S, T> {}

impl<S: Source, T: Transform> Stream for TransformStream<S, T> {
    type Item = Result<Bytes, TransformError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.reader.poll_next_chunk(cx)).transpose();
        self.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl<S: Source, T: Transform> FusedStream for TransformStream<S, T> {
    fn is_terminated(&self) -> bool {
        self.over
    }
}
