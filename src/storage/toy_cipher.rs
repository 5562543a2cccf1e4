//! Stands in for the cipher in tests where encryption is not built in, and where threads are shuttle's: it changes every byte, so
//! that what was not opened shows, and knows what was sealed for another place. It keeps no secret.

use std::io;

use super::codec::Trailer;
use crate::slot::TRAILER;

#[derive(Debug)]
pub(crate) struct Cipher;

impl Cipher {
    #[expect(clippy::unnecessary_wraps, reason = "a cipher's interface")]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    #[expect(clippy::unnecessary_wraps, clippy::unused_self, reason = "a cipher's interface")]
    pub(crate) fn seal(&self, stream: u64, index: u64, payload: &[u8], into: &mut [u8]) -> io::Result<Trailer> {
        into.copy_from_slice(payload);
        change(into);
        Ok(trailer(stream, index, into))
    }

    #[expect(clippy::unused_self, reason = "a cipher's interface")]
    pub(crate) fn open(
        &self,
        stream: u64,
        index: u64,
        payload: &mut [u8],
        sealed: &Trailer,
    ) -> Result<(), &'static str> {
        if *sealed != trailer(stream, index, payload) {
            return Err("the slot is not what was sealed for this place in the stream");
        }
        change(payload);
        Ok(())
    }
}

fn change(bytes: &mut [u8]) {
    for byte in bytes {
        *byte ^= 0x5a;
    }
}

/// Length (8 bytes), stream (8), index (8) and CRC32C of what was sealed: stream and index lie where tests look for them.
fn trailer(stream: u64, index: u64, sealed: &[u8]) -> Trailer {
    let mut trailer = [0; TRAILER];
    trailer[..8].copy_from_slice(&(sealed.len() as u64).to_le_bytes());
    trailer[8..16].copy_from_slice(&stream.to_le_bytes());
    trailer[16..24].copy_from_slice(&index.to_le_bytes());
    trailer[24..28].copy_from_slice(&crc_fast::crc32_iscsi(sealed).to_le_bytes());
    trailer
}
