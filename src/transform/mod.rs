//! What is done to a stream on its way: one [`Transform`], driven by any reader, writer or stream.
//! Never does I/O itself, and never holds more output than its bound.
//!
//! A transform is a plain state machine: bytes in, bytes out, no waiting. Two shells drive it:
//! [`TransformReader`] around what is read, [`TransformWriter`] in front of what is written.
//!
//! | transform | what it does | value at the end |
//! |---|---|---|
//! | [`PassThrough`] | nothing | |
//! | [`Inspect`] | shows each piece to a closure | |
//! | [`Limit`] | refuses more than so many bytes | |
//! | [`Peek`] | shows the head to a parser | (the parser's, early, from [`Peeked`]) |
//! | [`Map`] | puts each chunk through a closure | |
//! | [`Lines`] | makes each line a chunk, of bounded length | how many there were |
//! | [`Prefix`], [`Suffix`] | put bytes in front, behind | |
//! | [`Counter`] | counts, and shows it in [`Progress`] | the count |
//! | [`Throttle`] | holds to a rate | |
//! | `Compress`, `Decompress` | gzip and zstd (feature `compression`), `bzip2`, `xz` (their own) | what it was |
//! | `Digest` | hashes what passes (feature `digest`) | the digest |
//!
//! # Example
//!
//! ```
//! use spillbuffer::transform::{Limit, TransformReader};
//! use tokio::io::AsyncReadExt;
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let mut upload = TransformReader::new(&b"small enough"[..], Limit::new(1 << 20));
//! let mut text = String::new();
//! upload.read_to_string(&mut text).await?;
//! assert_eq!(text, "small enough");
//! # std::io::Result::Ok(()) })?;
//! # std::io::Result::Ok(())
//! ```

mod affix;
pub(crate) mod clock;
#[cfg(feature = "compression")]
mod compression;
mod counter;
#[cfg(feature = "digest")]
mod digest;
mod error;
mod inspect;
mod limit;
mod lines;
mod map;
mod output;
mod pass_through;
mod peek;
mod reader;
mod sink;
pub(crate) mod stage;
mod stream;
mod throttle;
mod writer;

use std::{error::Error, io, time::Duration};

use bytes::Bytes;

#[cfg(feature = "compression")]
pub use self::compression::{Compress, Decompress, DecompressError, Decompressed, Format, Level};
#[cfg(feature = "digest")]
pub use self::digest::Digest;
pub(crate) use self::error::kind_of;
pub use self::{
    affix::{Prefix, Suffix},
    counter::{Counter, Progress},
    error::{Contract, TransformError},
    inspect::Inspect,
    limit::{Limit, LimitExceeded},
    lines::{LineTooLong, Lines},
    map::Map,
    output::Output,
    pass_through::PassThrough,
    peek::{Head, Peek, PeekError, Peeked},
    reader::TransformReader,
    sink::TransformSink,
    stream::TransformStream,
    throttle::Throttle,
    writer::TransformWriter,
};
pub use crate::{
    drain::{Drain, SinkDrain, WriteDrain},
    source::{BufReadSource, ReadSource, Source, StreamSource},
    within::Within,
};

/// Bytes in, bytes out: one step of what is done to a stream.
///
/// It is asked again and again: [`transform`](Self::transform) for each piece of the input, then
/// [`finish`](Self::finish) where the input has ended cleanly, then [`into_value`](Self::into_value).
/// It never waits and never does I/O, so it works the same wherever it is used.
///
/// Output is bounded: a transform puts no more than [`Output::room`] and says [`Flow::Full`] where
/// there is more. So neither a chunk of any size nor any rate of inflation takes more memory than that.
///
/// A transform that breaks a rule is [`TransformError::Contract`], and neither a hang nor a loss. One that
/// fails is dropped at once, with what it holds.
///
/// # Example
///
/// Doubles every byte, and counts them:
///
/// ```
/// use bytes::{Buf, Bytes};
/// use spillbuffer::transform::{Flow, Output, Transform, TransformReader};
/// use std::convert::Infallible;
/// use tokio::io::AsyncReadExt;
///
/// struct Twice {
///     count: u64,
/// }
///
/// impl Transform for Twice {
///     type Value = u64;
///     type Error = Infallible;
///
///     fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
///         while let Some(&byte) = input.first() {
///             if output.room() < 2 {
///                 return Ok(Flow::Full);
///             }
///             let _both_fit = output.put_slice(&[byte, byte]);
///             input.advance(1);
///             self.count += 1;
///         }
///         Ok(Flow::Continue)
///     }
///
///     fn into_value(self) -> u64 {
///         self.count
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut reader = TransformReader::new(&b"abc"[..], Twice { count: 0 });
/// let mut text = String::new();
/// reader.read_to_string(&mut text).await?;
/// assert_eq!(text, "aabbcc");
/// assert_eq!(reader.into_value()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Transform {
    /// What it leaves behind after a clean end: a digest, a count, a parsed value; `()` where there
    /// is nothing.
    type Value: Send + 'static;

    /// What can go wrong; [`Infallible`](std::convert::Infallible) where nothing can. It keeps its type
    /// as the cause of a [`TransformError::Failed`].
    type Error: Error + Send + Sync + 'static;

    /// Takes from `input` what it can and puts into `output` what comes of it.
    ///
    /// What it takes it removes from the front of `input`. The rest is shown again, so nothing need be
    /// kept back for want of room. After [`Flow::Full`] and [`Flow::Wait`] it is called again even where
    /// no input is left.
    ///
    /// # Errors
    ///
    /// Terminal: what was put before is still delivered, then the error, and no end.
    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Self::Error>;

    /// The user asks that what is held back be put out now. Called until it says [`Flow::Continue`].
    ///
    /// # Errors
    ///
    /// As for [`transform`](Self::transform).
    fn flush(&mut self, output: &mut Output) -> Result<Flow, Self::Error> {
        let _ = output;
        Ok(Flow::Continue)
    }

    /// The input has ended cleanly. It may put more, and is called again while it says [`Flow::Full`].
    ///
    /// # Errors
    ///
    /// As for [`transform`](Self::transform): no end follows.
    fn finish(&mut self, output: &mut Output) -> Result<Flow, Self::Error> {
        let _ = output;
        Ok(Flow::Continue)
    }

    /// What it leaves behind, asked for after a clean end and after [`Flow::Stop`] alone.
    fn into_value(self) -> Self::Value
    where
        Self: Sized;

    /// What `error` is as an [`io::Error`]: by default the kind of the `io::Error` or
    /// [`SpillError`](crate::SpillError) that it is, else `Other`.
    fn error_kind(error: &Self::Error) -> io::ErrorKind
    where
        Self: Sized,
    {
        kind_of(error).unwrap_or(io::ErrorKind::Other)
    }
}

/// What a [`Transform`] says after each call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// The input is used up; in `flush` and `finish`: done.
    Continue,
    /// There is more to come than the output has room for: take it and call again, with what is left
    /// of the input. At least one byte must have been taken or put.
    Full,
    /// It has had enough, and that is a success: no more input is wanted, the stream ends here.
    Stop,
    /// Nothing more before so much time has passed; then call again.
    Wait(Duration),
}
