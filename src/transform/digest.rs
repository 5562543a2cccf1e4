//! A digest of what passes. Never changes a byte.

use std::{convert::Infallible, fmt, mem};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Computes a digest of all that passes; it is the value at the end, and there is none of a stream that
/// failed.
///
/// Takes any hash of the `digest` crate, which the feature `digest` turns on.
///
/// # Example
///
/// ```
/// use sha2::Sha256;
/// use spillbuffer::transform::{Digest, TransformReader};
/// use tokio::io::AsyncReadExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut reader = TransformReader::new(&b"abc"[..], Digest::<Sha256>::new());
/// reader.read_to_end(&mut Vec::new()).await?;
/// let digest = reader.into_value()?;
/// assert_eq!(digest[..4], [0xba, 0x78, 0x16, 0xbf]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Digest<D> {
    hash: D,
}

impl<D: digest::Digest> Digest<D> {
    /// Of all the bytes.
    pub fn new() -> Self {
        Self { hash: D::new() }
    }

    /// Goes on with a hash that has seen something already.
    pub fn with(hash: D) -> Self {
        Self { hash }
    }
}

impl<D: digest::Digest> Transform for Digest<D>
where
    digest::Output<D>: Send + 'static,
{
    type Value = digest::Output<D>;
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        self.hash.update(&input[..]);
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn into_value(self) -> Self::Value {
        self.hash.finalize()
    }
}

impl<D> fmt::Debug for Digest<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Digest").finish_non_exhaustive()
    }
}
