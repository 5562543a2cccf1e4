//! Bytes in front of a stream or behind it. Never behind one that was cut.

use std::{convert::Infallible, mem};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Puts bytes in front of the stream: a header, a mark. An empty stream has them too.
#[derive(Debug, Clone)]
pub struct Prefix {
    bytes: Bytes,
}

impl Prefix {
    /// Puts `bytes` in front, uncopied.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into() }
    }
}

impl Transform for Prefix {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        output.pass(mem::take(&mut self.bytes));
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, Infallible> {
        output.pass(mem::take(&mut self.bytes));
        Ok(Flow::Continue)
    }

    fn into_value(self) {}
}

/// Puts bytes behind the stream, when it has ended cleanly: a trailer, a terminator.
#[derive(Debug, Clone)]
pub struct Suffix {
    bytes: Bytes,
}

impl Suffix {
    /// Puts `bytes` behind, uncopied.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into() }
    }
}

impl Transform for Suffix {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, Infallible> {
        output.pass(mem::take(&mut self.bytes));
        Ok(Flow::Continue)
    }

    fn into_value(self) {}
}
