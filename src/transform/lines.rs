//! One line, one chunk. Never holds a line that is longer than its limit.

use std::{error::Error, fmt, io};

use bytes::{Bytes, BytesMut};

use super::{Flow, Output, Transform};

/// Cuts the stream so that each chunk is one line with its `\n`; the last may lack it. The bytes stay the
/// same. The value at the end is the number of lines.
///
/// A line that lies within one chunk goes on uncopied. A longer line than the limit is [`LineTooLong`].
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Lines, TransformReader};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut lines = TransformReader::new(&b"one\ntwo\nthree"[..], Lines::new(1024));
/// assert_eq!(lines.next_chunk().await?.unwrap(), "one\n");
/// assert_eq!(lines.next_chunk().await?.unwrap(), "two\n");
/// assert_eq!(lines.next_chunk().await?.unwrap(), "three");
/// assert!(lines.next_chunk().await?.is_none());
/// assert_eq!(lines.into_value()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    /// The line so far, where it did not end with its chunk.
    begun: BytesMut,
    count: u64,
}

impl Lines {
    /// Lines of up to `limit` bytes, their `\n` not counted.
    pub fn new(limit: usize) -> Self {
        Self { limit, begun: BytesMut::new(), count: 0 }
    }

    fn check(&self, len: usize) -> Result<(), LineTooLong> {
        if len > self.limit { Err(LineTooLong { line: self.count + 1, limit: self.limit }) } else { Ok(()) }
    }
}

impl Transform for Lines {
    type Value = u64;
    type Error = LineTooLong;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, LineTooLong> {
        while !input.is_empty() {
            if output.room() == 0 {
                return Ok(Flow::Full);
            }
            // No farther than the limit: a long line is not to be searched again with each chunk of it.
            let most = (self.limit - self.begun.len()).saturating_add(1).min(input.len());
            let Some(end) = input[..most].iter().position(|byte| *byte == b'\n') else {
                self.check(self.begun.len() + most)?;
                self.begun.extend_from_slice(input);
                input.clear();
                break;
            };
            let end = input.split_to(end + 1);
            if self.begun.is_empty() {
                output.pass(end);
            } else {
                self.begun.extend_from_slice(&end);
                output.pass(self.begun.split().freeze());
            }
            self.count += 1;
        }
        Ok(Flow::Continue)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, LineTooLong> {
        if !self.begun.is_empty() {
            output.pass(self.begun.split().freeze());
            self.count += 1;
        }
        Ok(Flow::Continue)
    }

    fn into_value(self) -> u64 {
        self.count
    }

    fn error_kind(_: &LineTooLong) -> io::ErrorKind {
        io::ErrorKind::InvalidData
    }
}

/// A line is longer than the limit of its [`Lines`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineTooLong {
    /// Which line, from 1.
    pub line: u64,
    /// The limit, in bytes.
    pub limit: usize,
}

impl fmt::Display for LineTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} is longer than the limit of {} bytes", self.line, self.limit)
    }
}

impl Error for LineTooLong {}
