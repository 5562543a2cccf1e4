//! Chunks into memory. Never bounded: a `Limit` before it is.

use std::{
    error::Error,
    mem,
    task::{Context, Poll},
};

use bytes::Bytes;

use crate::{copy::append, drain::Drain, within::within};

/// Collects bytes in a vector; made by [`Pipeline::into_vec`](crate::pipeline::Pipeline::into_vec).
///
/// The vector grows with the stream: put a [`Limit`](crate::transform::Limit) before it.
#[derive(Debug, Default)]
pub struct VecDrain<I = Vec<u8>> {
    inner: I,
}

within!(VecDrain);

impl Drain for VecDrain {
    fn poll_write(&mut self, _: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        append(&mem::take(chunk), &mut self.inner);
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        Poll::Ready(Ok(()))
    }
}
