//! A bound on how long a stream may be. Never lets a byte beyond it pass.

use std::{error::Error, fmt, io};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Refuses a stream of more than so many bytes: those up to the limit pass, uncopied, then comes
/// [`LimitExceeded`], of kind `FileTooLarge`.
#[derive(Debug, Clone)]
pub struct Limit {
    limit: u64,
    left: u64,
}

impl Limit {
    /// At most `limit` bytes.
    pub fn new(limit: u64) -> Self {
        Self { limit, left: limit }
    }
}

impl Transform for Limit {
    type Value = ();
    type Error = LimitExceeded;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, LimitExceeded> {
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        self.left -= fits as u64;
        output.pass(input.split_to(fits));
        if input.is_empty() { Ok(Flow::Continue) } else { Err(LimitExceeded { limit: self.limit }) }
    }

    fn into_value(self) {}

    fn error_kind(_: &LimitExceeded) -> io::ErrorKind {
        io::ErrorKind::FileTooLarge
    }
}

/// A stream is longer than its [`Limit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitExceeded {
    /// The limit, in bytes; also the offset of the first byte that did not pass.
    pub limit: u64,
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = self.limit;
        write!(f, "the stream is longer than its limit of {limit} bytes: there is a byte at offset {limit}")
    }
}

impl Error for LimitExceeded {}
