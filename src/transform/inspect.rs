//! A look at every byte that passes. Never changes one.

use std::{convert::Infallible, fmt, mem};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Shows each piece of the stream to a closure and hands it on, uncopied.
///
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Inspect, TransformReader};
/// use tokio::io::AsyncReadExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut newlines = 0;
/// let count = Inspect::new(|piece: &[u8]| newlines += piece.iter().filter(|byte| **byte == b'\n').count());
/// let mut text = String::new();
/// TransformReader::new(&b"one\ntwo\n"[..], count).read_to_string(&mut text).await?;
/// assert_eq!((text.len(), newlines), (8, 2));
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy)]
pub struct Inspect<F> {
    look: F,
}

impl<F: FnMut(&[u8])> Inspect<F> {
    /// Calls `look` with each piece, never with an empty one.
    pub fn new(look: F) -> Self {
        Self { look }
    }
}

impl<F: FnMut(&[u8])> Transform for Inspect<F> {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        if !input.is_empty() {
            (self.look)(input);
        }
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn into_value(self) {}
}

impl<F> fmt::Debug for Inspect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inspect").finish_non_exhaustive()
    }
}
