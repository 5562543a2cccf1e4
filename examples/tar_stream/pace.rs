//! Makes a consumer slow: it stalls before its first read, then takes so many bytes per second.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A reader that is not ready before its time.
pub(crate) struct Paced<R> {
    inner: R,
    rate: Option<u64>,
    /// When the first byte may be taken; all later times follow from it and the count, so that a
    /// late wake-up is made good by the next reads.
    start: Instant,
    read: u64,
    pause: Pin<Box<Sleep>>,
}

impl<R> Paced<R> {
    pub(crate) fn new(inner: R, stall: Duration, rate: Option<u64>) -> Self {
        let start = Instant::now() + stall;
        Self { inner, rate, start, read: 0, pause: Box::pin(sleep_until(start)) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.pause.as_mut().poll(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if let Some(rate) = self.rate {
            self.read += (buf.filled().len() - before) as u64;
            let due = u128::from(self.read) * 1_000_000_000 / u128::from(rate);
            let due = self.start + Duration::from_nanos(due as u64);
            self.pause.as_mut().reset(due);
        }
        Poll::Ready(Ok(()))
    }
}
