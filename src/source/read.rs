//! Chunks of what can be read. Never copies them once more, nor clears their memory first.

use std::{
    error::Error,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::Source;
use crate::within::within;

/// How much is asked for at a time.
const CHUNK: usize = 64 << 10;

/// Below this much space the next read gets new memory: many small reads share one block, and no read
/// is made small by the last one.
const LEAST: usize = 8 << 10;

/// Chunks of an [`AsyncRead`], of up to 64 KiB. A chunk that is kept keeps its block of 64 KiB.
#[derive(Debug)]
pub struct ReadSource<R> {
    inner: R,
    buffer: BytesMut,
}

within!(ReadSource);

impl<R> ReadSource<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self { inner: reader, buffer: BytesMut::new() }
    }
}

impl<R: AsyncRead + Unpin> Source for ReadSource<R> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        if self.buffer.capacity() < LEAST {
            // Takes the old block again where every chunk of it is gone.
            self.buffer.reserve(CHUNK);
        }
        // Made anew at each poll: this future keeps nothing of its own.
        let read: Pin<&mut _> = pin!(self.inner.read_buf(&mut self.buffer));
        Poll::Ready(match ready!(read.poll(cx)) {
            Ok(0) => None,
            Ok(_) => Some(Ok(self.buffer.split().freeze())),
            Err(error) => Some(Err(error.into())),
        })
    }
}
