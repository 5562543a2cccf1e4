//! Readers and writers as they come in the wild: a byte at a time, pending in between, failing at any
//! call. Never sleeps: a future that is polled too often, or that nobody wakes, is a failure.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of this")]

use std::{
    convert::Infallible,
    error::Error,
    fmt, io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use spillbuffer::transform::{Flow, Output, Transform};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

/// The failure that a test has planned, with the call at which it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned(pub usize);

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "planned for call {}", self.0)
    }
}

impl Error for Planned {}

/// How one behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The most bytes a call moves.
    pub piece: usize,
    /// Pending once before each call that does something.
    pub pending: bool,
    /// Fails at this call, and whoever calls again after that has done wrong.
    pub fail_at: Option<usize>,
}

/// Every manner of moving bytes that does not fail.
pub const MANNERS: [Manner; 6] = [
    Manner { piece: usize::MAX, pending: false, fail_at: None },
    Manner { piece: 1, pending: false, fail_at: None },
    Manner { piece: 7, pending: false, fail_at: None },
    Manner { piece: usize::MAX, pending: true, fail_at: None },
    Manner { piece: 1, pending: true, fail_at: None },
    Manner { piece: 7, pending: true, fail_at: None },
];

/// What both sides do at each call.
#[derive(Debug)]
struct Turns {
    manner: Manner,
    calls: usize,
    pended: bool,
    failed: bool,
}

impl Turns {
    fn new(manner: Manner) -> Self {
        Self { manner, calls: 0, pended: false, failed: false }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        assert!(!self.failed, "called again after it has failed");
        if self.manner.pending && !self.pended {
            self.pended = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.pended = false;
        self.calls += 1;
        self.failed = self.manner.fail_at == Some(self.calls - 1);
        Poll::Ready(if self.failed { Err(Planned(self.calls - 1)) } else { Ok(()) })
    }
}

/// A source of bytes.
#[derive(Debug)]
pub struct WildReader {
    left: Bytes,
    len: usize,
    turns: Turns,
    shown: bool,
    ended: bool,
}

impl WildReader {
    pub fn new(bytes: impl Into<Bytes>, manner: Manner) -> Self {
        let left = bytes.into();
        Self { len: left.len(), left, turns: Turns::new(manner), shown: false, ended: false }
    }

    pub fn calls(&self) -> usize {
        self.turns.calls
    }

    /// How many bytes were read.
    pub fn given(&self) -> usize {
        self.len - self.left.len()
    }

    fn next(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<Bytes, Planned>> {
        assert!(!self.ended, "called again after its end");
        self.turns.poll(cx).map_ok(|()| {
            let piece = self.left.split_to(self.left.len().min(most).min(self.turns.manner.piece));
            self.ended = piece.is_empty() && most > 0;
            piece
        })
    }
}

impl AsyncRead for WildReader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.next(cx, buf.remaining()).map(|next| next.map(|piece| buf.put_slice(&piece)).map_err(io::Error::other))
    }
}

impl AsyncBufRead for WildReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if !this.shown {
            match this.turns.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Poll::Ready(Ok(())) => this.shown = true,
            }
        }
        Poll::Ready(Ok(&this.left[..this.left.len().min(this.turns.manner.piece)]))
    }

    fn consume(mut self: Pin<&mut Self>, amt: usize) {
        self.shown &= amt == 0;
        let _ = self.left.split_to(amt);
    }
}

impl Stream for WildReader {
    type Item = Result<Bytes, Planned>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.next(cx, usize::MAX)
            .map(|next| Some(next).filter(|next| next.as_ref().map_or(true, |piece| !piece.is_empty())))
    }
}

/// Where bytes go.
#[derive(Debug)]
pub struct WildWriter {
    pub got: Vec<u8>,
    /// The chunks as they came, where it is used as a sink.
    pub chunks: Vec<Bytes>,
    /// How much of it was flushed.
    pub flushed: usize,
    pub closed: bool,
    turns: Turns,
    ready: bool,
}

impl WildWriter {
    pub fn new(manner: Manner) -> Self {
        Self { got: vec![], chunks: vec![], flushed: 0, closed: false, turns: Turns::new(manner), ready: false }
    }

    pub fn calls(&self) -> usize {
        self.turns.calls
    }

    /// Whether the call at which it was to fail was made.
    pub fn has_failed(&self) -> bool {
        self.turns.failed
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        assert!(!self.closed, "called again after it was closed");
        self.turns.poll(cx)
    }

    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        self.turn(cx).map_ok(|()| self.flushed = self.got.len())
    }

    fn close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        self.turn(cx).map_ok(|()| self.closed = true)
    }
}

impl AsyncWrite for WildWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        assert!(!bytes.is_empty(), "written nothing to");
        let n = bytes.len().min(self.turns.manner.piece);
        self.turn(cx).map_err(io::Error::other).map_ok(|()| {
            self.got.extend_from_slice(&bytes[..n]);
            n
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush(cx).map_err(io::Error::other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close(cx).map_err(io::Error::other)
    }
}

impl Sink<Bytes> for WildWriter {
    type Error = Planned;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        self.turn(cx).map_ok(|()| self.ready = true)
    }

    fn start_send(mut self: Pin<&mut Self>, item: Bytes) -> Result<(), Planned> {
        assert!(std::mem::take(&mut self.ready), "not asked whether it is ready");
        assert!(!item.is_empty(), "sent nothing");
        self.got.extend_from_slice(&item);
        self.chunks.push(item);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        self.flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Planned>> {
        self.close(cx)
    }
}

/// Far more polls than any test needs.
const MOST_POLLS: usize = 1_000_000;

struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Runs a future to its end on this thread, in no runtime. Whoever says `Pending` must have seen to it
/// that it is woken.
#[track_caller]
pub fn run<F: Future>(future: F) -> F::Output {
    let count = Arc::new(Wakes(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut future = pin!(future);
    for _ in 0..MOST_POLLS {
        let before = count.0.load(Ordering::SeqCst);
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(count.0.load(Ordering::SeqCst) > before, "it hangs: pending, and nobody will wake it");
    }
    panic!("it hangs: polled {MOST_POLLS} times");
}

/// Has had enough after so many bytes.
pub struct Take(pub usize);

impl Transform for Take {
    type Value = &'static str;
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        let n = input.len().min(self.0);
        self.0 -= n;
        output.pass(input.split_to(n));
        Ok(if self.0 == 0 { Flow::Stop } else { Flow::Continue })
    }

    fn into_value(self) -> &'static str {
        "enough"
    }
}
