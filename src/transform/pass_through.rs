//! A transform that changes nothing. Never copies.

use std::{convert::Infallible, mem};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Hands every chunk on as it is.
///
/// Of use where a stage is wanted for its place: to count a stream, or to stand in for a transform that a
/// configuration has turned off.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct PassThrough;

impl PassThrough {
    /// Has no options.
    pub fn new() -> Self {
        Self
    }
}

impl Transform for PassThrough {
    type Value = ();
    type Error = Infallible;

    #[inline]
    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn into_value(self) {}
}
