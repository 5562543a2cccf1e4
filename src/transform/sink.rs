//! A transform in front of what is written, as a sink of chunks. Never copies them.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_sink::Sink;

use super::{Transform, TransformError, TransformWriter};
use crate::drain::Drain;

/// A [`Sink`] of `Bytes`; made by [`TransformWriter::into_sink`].
///
/// It is ready when everything before has been written on; closing is `shutdown`. Dropped without closing,
/// what is written to is not ended.
#[derive(Debug)]
pub struct TransformSink<D, T: Transform> {
    writer: TransformWriter<D, T>,
}

impl<D: Drain, T: Transform> TransformSink<D, T> {
    pub(super) fn new(writer: TransformWriter<D, T>) -> Self {
        Self { writer }
    }

    /// The writer.
    pub fn get_ref(&self) -> &TransformWriter<D, T> {
        &self.writer
    }

    /// The writer.
    pub fn get_mut(&mut self) -> &mut TransformWriter<D, T> {
        &mut self.writer
    }

    /// The writer, which has the transform's value.
    #[must_use]
    pub fn into_inner(self) -> TransformWriter<D, T> {
        self.writer
    }
}

// Nothing in it is ever pinned.
impl<D, T: Transform> Unpin for TransformSink<D, T> {}

impl<D: Drain, T: Transform> Sink<Bytes> for TransformSink<D, T> {
    type Error = TransformError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransformError>> {
        self.get_mut().writer.poll_room(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: Bytes) -> Result<(), TransformError> {
        self.get_mut().writer.take(item)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransformError>> {
        self.get_mut().writer.poll_flush_all(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), TransformError>> {
        self.get_mut().writer.poll_end(cx)
    }
}
