//! Compressed streams, on the sans-io codecs of the `compression-codecs` crate.
//! Never takes a stream that was cut for one that ended.

mod compress;
mod decompress;
mod error;
mod format;

use bytes::{Buf, Bytes};
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};

pub use self::{
    compress::{Compress, Level},
    decompress::{Decompress, Decompressed},
    error::DecompressError,
    format::Format,
};

/// Lets a codec take from `input` and write to `spare`: how much it wrote, and what it said.
fn run<R>(
    input: &mut Bytes,
    spare: &mut [u8],
    codec: impl FnOnce(&mut PartialBuffer<&[u8]>, &mut WriteBuffer<'_>) -> R,
) -> (usize, R) {
    let mut from = PartialBuffer::new(&input[..]);
    let mut into = WriteBuffer::new_initialized(spare);
    let said = codec(&mut from, &mut into);
    let (took, put) = (from.written_len(), into.written_len());
    input.advance(took);
    (put, said)
}
