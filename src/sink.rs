//! The writing half as a sink of `Bytes`. Never buffers beyond the buffer.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_sink::Sink;
use tokio::task::coop::poll_proceed;

use crate::{error::SpillError, turn, writer::SpillWriter};

/// A [`Sink`] of `Bytes`; made by [`SpillWriter::into_sink`].
///
/// An item is accepted whole, as by [`SpillWriter::write_bytes`]; flushing is ready at once, and closing
/// is `finish`. Dropped without closing, the stream was cut.
#[derive(Debug)]
pub struct SpillSink {
    writer: SpillWriter,
}

impl SpillSink {
    pub(crate) fn new(writer: SpillWriter) -> Self {
        Self { writer }
    }

    /// The writing half.
    pub fn get_ref(&self) -> &SpillWriter {
        &self.writer
    }

    /// The writing half.
    pub fn get_mut(&mut self) -> &mut SpillWriter {
        &mut self.writer
    }

    /// The writing half. An item that still waits inside is not lost.
    #[must_use]
    pub fn into_inner(self) -> SpillWriter {
        self.writer
    }
}

impl Sink<Bytes> for SpillSink {
    type Error = SpillError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SpillError>> {
        let coop = ready!(poll_proceed(cx));
        let room = ready!(self.writer.shared().poll_item_room(cx));
        coop.made_progress();
        Poll::Ready(room)
    }

    fn start_send(self: Pin<&mut Self>, item: Bytes) -> Result<(), SpillError> {
        turn::filled(item.len());
        self.writer.shared().send(item)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SpillError>> {
        Poll::Ready(self.writer.shared().check_flush())
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), SpillError>> {
        Poll::Ready(self.writer.end())
    }
}
