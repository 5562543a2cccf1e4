//! Each chunk through a closure. Never cuts chunks up or gathers them.

use std::{error::Error, fmt, mem};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Replaces each chunk by what a closure makes of it.
///
/// Where the chunks begin and end is the source's affair, so the closure must not care: a byte for a byte
/// is right, a line is not (see [`Lines`](super::Lines) in front of it). What it makes is its own memory and goes on
/// whole, beyond the bound of the output: who inflates much implements [`Transform`] instead.
///
/// # Example
///
/// ```
/// use bytes::Bytes;
/// use spillbuffer::transform::{Map, TransformReader};
/// use std::convert::Infallible;
/// use tokio::io::AsyncReadExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let upper = Map::new(|chunk: Bytes| Ok::<_, Infallible>(Bytes::from(chunk.to_ascii_uppercase())));
/// let mut text = String::new();
/// TransformReader::new(&b"some bytes"[..], upper).read_to_string(&mut text).await?;
/// assert_eq!(text, "SOME BYTES");
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy)]
pub struct Map<F> {
    map: F,
}

impl<F, E> Map<F>
where
    F: FnMut(Bytes) -> Result<Bytes, E>,
    E: Error + Send + Sync + 'static,
{
    /// Calls `map` with each chunk, never with an empty one. It may return an empty one.
    pub fn new(map: F) -> Self {
        Self { map }
    }
}

impl<F, E> Transform for Map<F>
where
    F: FnMut(Bytes) -> Result<Bytes, E>,
    E: Error + Send + Sync + 'static,
{
    type Value = ();
    type Error = E;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, E> {
        if !input.is_empty() {
            output.pass((self.map)(mem::take(input))?);
        }
        Ok(Flow::Continue)
    }

    fn into_value(self) {}
}

impl<F> fmt::Debug for Map<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}
