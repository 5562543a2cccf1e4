//! Chunks of what shows its buffer. Never takes more of it than it hands on.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncBufRead;

use super::Source;
use crate::{copy::copied, within::within};

/// The most that is copied out at a time.
const CHUNK: usize = 64 << 10;

/// Chunks of an [`AsyncBufRead`]: what it shows, copied, up to 64 KiB at a time.
#[derive(Debug)]
pub struct BufReadSource<R> {
    inner: R,
}

within!(BufReadSource);

impl<R> BufReadSource<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self { inner: reader }
    }
}

impl<R: AsyncBufRead + Unpin> Source for BufReadSource<R> {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        let mut reader = Pin::new(&mut self.inner);
        let shown = match ready!(reader.as_mut().poll_fill_buf(cx)) {
            Ok(shown) => copied(&shown[..shown.len().min(CHUNK)]),
            Err(error) => return Poll::Ready(Some(Err(error.into()))),
        };
        reader.consume(shown.len());
        Poll::Ready(Some(shown).filter(|shown| !shown.is_empty()).map(Ok))
    }
}
