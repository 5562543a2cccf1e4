//! The reading half as a stream of chunks. Never reads ahead of its caller.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::{FusedStream, Stream};

use crate::{error::SpillError, reader::SpillReader};

/// A [`Stream`] of chunks; made by [`SpillReader::into_stream`].
///
/// Chunks are those of [`SpillReader::next_chunk`]. An error comes once, then `None`: a stream that was
/// cut is told from one that ended by the item before.
#[derive(Debug)]
pub struct SpillStream {
    reader: SpillReader,
    over: bool,
}

impl SpillStream {
    pub(crate) fn new(reader: SpillReader) -> Self {
        Self { reader, over: false }
    }

    /// The reading half.
    pub fn get_ref(&self) -> &SpillReader {
        &self.reader
    }

    /// The reading half.
    pub fn get_mut(&mut self) -> &mut SpillReader {
        &mut self.reader
    }

    /// The reading half.
    #[must_use]
    pub fn into_inner(self) -> SpillReader {
        self.reader
    }
}

impl Stream for SpillStream {
    type Item = Result<Bytes, SpillError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.reader.poll_next_chunk(cx)).transpose();
        self.over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl FusedStream for SpillStream {
    fn is_terminated(&self) -> bool {
        self.over
    }
}
