//! A look at the head of a stream, once, for whoever decides by it. Never holds the stream up for it.

use std::{
    error::Error,
    fmt, io, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};

use super::{Flow, Output, Transform};
use crate::error::shared;

/// Shows the first bytes of a stream to a parser until that has its value, which [`Peeked`] has then; the
/// stream goes on unchanged.
///
/// So a header is parsed once, where the stream passes, and not again by everyone who needs it. Bytes pass as
/// soon as the parser has seen them, uncopied; a head that comes in several pieces is gathered in a copy, of no
/// more than the limit.
///
/// A parser that fails, or has no value when the [`Head`] is complete, fails the stream: what it refuses has not
/// passed in whole. One that wants the stream to go on all the same says so in its value.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Head, Peek, TransformReader};
/// use std::convert::Infallible;
/// use tokio::io::AsyncReadExt;
///
/// // The first line, or all that there is.
/// fn first_line(head: &Head<'_>) -> Result<Option<String>, Infallible> {
///     let bytes = head.bytes();
///     let end = bytes.iter().position(|byte| *byte == b'\n').or(head.is_complete().then_some(bytes.len()));
///     Ok(end.map(|end| String::from_utf8_lossy(&bytes[..end]).into_owned()))
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (peek, title) = Peek::new(1024, first_line);
/// let mut reader = TransformReader::new(&b"title\nand the rest"[..], peek);
/// let mut bytes = [0; 1];
/// reader.read_exact(&mut bytes).await?;
/// assert_eq!(title.await?, "title");
/// assert_eq!(&bytes, b"t");
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Peek<V, F> {
    parse: F,
    limit: usize,
    /// What earlier pieces had of the head.
    head: BytesMut,
    teller: Option<Teller<V>>,
}

impl<V, F, E> Peek<V, F>
where
    F: FnMut(&Head<'_>) -> Result<Option<V>, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    /// Shows up to `limit` bytes to `parse`, and again with each piece that comes, until it is content or
    /// fails. `Ok(None)` asks for more.
    pub fn new(limit: usize, parse: F) -> (Self, Peeked<V>) {
        let shared = Arc::new(Mutex::new(Shared { told: None, waker: None }));
        let teller = Some(Teller { shared: Arc::clone(&shared), seen: 0 });
        (Self { parse, limit, head: BytesMut::new(), teller }, Peeked { shared })
    }

    /// Shows the head as it is now. `ended`: there is no more of it.
    fn show(&mut self, piece: &[u8], ended: bool) -> Result<(), PeekError> {
        let more = piece.len().min(self.limit - self.head.len());
        // Gathered only where it must be: most heads lie in the first piece.
        let bytes = if self.head.is_empty() {
            &piece[..more]
        } else {
            self.head.extend_from_slice(&piece[..more]);
            &self.head[..]
        };
        let full = bytes.len() == self.limit;
        let len = bytes.len();
        let told = match (self.parse)(&Head { bytes, complete: full || ended }) {
            Ok(Some(value)) => Ok(value),
            Ok(None) if full => Err(PeekError::TooLong { limit: self.limit }),
            Ok(None) if ended => Err(PeekError::Ended { seen: len as u64 }),
            Ok(None) => {
                if self.head.is_empty() {
                    self.head.extend_from_slice(&piece[..more]);
                }
                return Ok(());
            }
            Err(cause) => Err(PeekError::Refused { cause: shared(cause) }),
        };
        self.head = BytesMut::new();
        let failed = told.as_ref().err().cloned();
        if let Some(teller) = self.teller.take() {
            teller.tell(told);
        }
        failed.map_or(Ok(()), Err)
    }
}

impl<V, F, E> Transform for Peek<V, F>
where
    F: FnMut(&Head<'_>) -> Result<Option<V>, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Value = ();
    type Error = PeekError;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, PeekError> {
        if self.teller.is_some() && !input.is_empty() {
            self.show(input, false)?;
            if let Some(teller) = &mut self.teller {
                teller.seen += input.len() as u64;
            }
        }
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn finish(&mut self, _: &mut Output) -> Result<Flow, PeekError> {
        if self.teller.is_some() {
            self.show(&[], true)?;
        }
        Ok(Flow::Continue)
    }

    fn into_value(self) {}

    fn error_kind(error: &PeekError) -> io::ErrorKind {
        error.kind()
    }
}

impl<V, F> fmt::Debug for Peek<V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peek").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// What a parser is shown by a [`Peek`].
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    bytes: &'a [u8],
    complete: bool,
}

impl<'a> Head<'a> {
    /// The stream from its first byte on, as far as it has come.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether no more will be shown: the stream ends here, or the limit is reached.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// The value that a [`Peek`] finds, as a future. It may be awaited anywhere, in any runtime or none; the
/// stream must be read meanwhile, for nothing else moves it.
///
/// # Errors
///
/// A [`PeekError`]; also where the stream failed or was dropped before there was a value.
///
/// # Cancel safety
///
/// Awaited by reference and dropped, the value is not lost. Once it has been had, further awaiting gives
/// [`PeekError::Taken`].
pub struct Peeked<V> {
    shared: Arc<Mutex<Shared<V>>>,
}

impl<V> Future for Peeked<V> {
    type Output = Result<V, PeekError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut shared = lock(&self.shared);
        let Some(told) = shared.told.take() else {
            shared.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        // An error repeats; a value can be had but once.
        let error = told.as_ref().err().cloned();
        shared.told = Some(Err(error.unwrap_or(PeekError::Taken)));
        Poll::Ready(told)
    }
}

impl<V> fmt::Debug for Peeked<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peeked").finish_non_exhaustive()
    }
}

/// Why a [`Peek`] has no value.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PeekError {
    /// The parser failed.
    #[non_exhaustive]
    Refused {
        /// Its own error; also this error's `source()`.
        cause: Arc<dyn Error + Send + Sync>,
    },
    /// The parser was shown as much as it may be, and still wanted more.
    #[non_exhaustive]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stream has ended, and the parser still wanted more.
    #[non_exhaustive]
    Ended {
        /// The length of the stream, in bytes.
        seen: u64,
    },
    /// The stream failed or was given up before there was a value. Told to [`Peeked`] alone.
    #[non_exhaustive]
    Cut {
        /// How many bytes had passed by then.
        seen: u64,
    },
    /// There was a value, and it was had already.
    Taken,
}

impl PeekError {
    /// What this is as an [`io::Error`].
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Refused { cause } => super::error::kind_of(&**cause).unwrap_or(io::ErrorKind::InvalidData),
            Self::TooLong { .. } => io::ErrorKind::InvalidData,
            Self::Ended { .. } | Self::Cut { .. } => io::ErrorKind::UnexpectedEof,
            Self::Taken => io::ErrorKind::Other,
        }
    }
}

impl fmt::Display for PeekError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { .. } => f.write_str("the head of the stream was refused"),
            Self::TooLong { limit } => write!(f, "the head of the stream is longer than its limit of {limit} bytes"),
            Self::Ended { seen } => write!(f, "the stream ended after {seen} bytes, within its head"),
            Self::Cut { seen } => write!(f, "the stream was cut after {seen} bytes, before its head was known"),
            Self::Taken => f.write_str("the value of the stream's head was had already"),
        }
    }
}

impl Error for PeekError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused { cause } => Some(&**cause),
            _ => None,
        }
    }
}

struct Shared<V> {
    told: Option<Result<V, PeekError>>,
    waker: Option<Waker>,
}

/// Tells the future once; dropped before, it tells it that there will be nothing.
struct Teller<V> {
    shared: Arc<Mutex<Shared<V>>>,
    seen: u64,
}

impl<V> Teller<V> {
    fn tell(&self, told: Result<V, PeekError>) {
        let mut shared = lock(&self.shared);
        if shared.told.is_some() {
            return;
        }
        shared.told = Some(told);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<V> Drop for Teller<V> {
    fn drop(&mut self) {
        self.tell(Err(PeekError::Cut { seen: self.seen }));
    }
}

/// A panic under this lock leaves nothing half done.
fn lock<V>(shared: &Mutex<Shared<V>>) -> MutexGuard<'_, Shared<V>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
