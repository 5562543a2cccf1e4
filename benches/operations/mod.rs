//! The small operations, each done once by a caller who holds both ends.
//!
//! What is written fits in memory and is read before more is written, so each future is ready when it is first polled.
//! That is asserted: no runtime, waker or second thread has a part in what is measured.

use std::hint::black_box;

use bytes::Bytes;
use futures_util::FutureExt;
use spillbuffer::{SpillBuffer, SpillReader, SpillWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A write that is short beside a block.
pub(crate) const SHORT: usize = 512;
/// How many short ones are written before they are read.
#[allow(dead_code, reason = "only the counts need it")]
pub(crate) const ROW: usize = 64;
/// A write as long as a block.
pub(crate) const LONG: usize = 64 << 10;
/// All that passes through a short-lived buffer.
pub(crate) const STREAM: usize = 4 << 10;

/// A buffer with what it has by default.
pub(crate) fn buffer() -> (SpillWriter, SpillReader) {
    SpillBuffer::new().into_split()
}

/// Writes `piece` and reads it back.
pub(crate) fn write_and_read(
    writer: &mut (impl AsyncWrite + Unpin),
    reader: &mut (impl AsyncRead + Unpin),
    piece: &[u8],
    into: &mut [u8],
) {
    at_once(writer.write_all(black_box(piece))).unwrap();
    at_once(reader.read_exact(&mut into[..piece.len()])).unwrap();
    black_box(into);
}

/// Writes `piece` several times in a row, then reads it back as often.
#[allow(dead_code, reason = "only the counts need it")]
pub(crate) fn row(writer: &mut SpillWriter, reader: &mut SpillReader, piece: &[u8], into: &mut [u8]) {
    for _ in 0..ROW {
        at_once(writer.write_all(black_box(piece))).unwrap();
    }
    for _ in 0..ROW {
        at_once(reader.read_exact(&mut into[..piece.len()])).unwrap();
    }
    black_box(into);
}

/// Writes `item` and takes it as a chunk.
pub(crate) fn write_and_take(writer: &mut SpillWriter, reader: &mut SpillReader, item: &Bytes) {
    at_once(writer.write_bytes(black_box(item).clone())).unwrap();
    let chunk = at_once(reader.next_chunk()).unwrap().unwrap();
    assert_eq!(black_box(chunk).len(), item.len());
}

/// The whole life of a short stream; `into` is empty again afterwards and keeps its memory.
pub(crate) fn stream(
    (mut writer, mut reader): (impl AsyncWrite + Unpin, impl AsyncRead + Unpin),
    bytes: &[u8],
    into: &mut Vec<u8>,
) {
    at_once(writer.write_all(black_box(bytes))).unwrap();
    at_once(writer.shutdown()).unwrap();
    at_once(reader.read_to_end(into)).unwrap();
    assert_eq!(black_box(&*into).len(), bytes.len());
    into.clear();
}

fn at_once<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("there is nothing to wait for")
}
