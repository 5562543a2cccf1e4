//! Stands in for the cipher in tests where encryption is not built in, and where threads are shuttle's: it changes every byte, so
//! that what was not opened shows, and knows what was sealed for another place. It keeps no secret.

use std::{
    io,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

use super::codec::Trailer;
use crate::slot::TRAILER;

/// What one seals another does not open.
#[derive(Debug)]
pub(crate) struct Cipher {
    key: u8,
}

impl Cipher {
    #[expect(clippy::unnecessary_wraps, reason = "a cipher's interface")]
    pub(crate) fn new() -> io::Result<Self> {
        static MADE: AtomicU8 = AtomicU8::new(0);
        Ok(Self { key: MADE.fetch_add(1, Relaxed) | 0x80 })
    }

    #[expect(clippy::unnecessary_wraps, reason = "a cipher's interface")]
    pub(crate) fn seal(&self, stream: u64, index: u64, payload: &[u8], into: &mut [u8]) -> io::Result<Trailer> {
        into.copy_from_slice(payload);
        self.change(into);
        Ok(self.trailer(stream, index, into))
    }

    pub(crate) fn open(
        &self,
        stream: u64,
        index: u64,
        payload: &mut [u8],
        sealed: &Trailer,
    ) -> Result<(), &'static str> {
        if *sealed != self.trailer(stream, index, payload) {
            return Err("the slot is not what was sealed for this place in the stream");
        }
        self.change(payload);
        Ok(())
    }

    fn change(&self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte ^= self.key;
        }
    }

    /// Length (8 bytes), stream (8), index (8), CRC32C of what was sealed, and the key: stream and index lie where tests look.
    fn trailer(&self, stream: u64, index: u64, sealed: &[u8]) -> Trailer {
        let mut trailer = [self.key; TRAILER];
        trailer[..8].copy_from_slice(&(sealed.len() as u64).to_le_bytes());
        trailer[8..16].copy_from_slice(&stream.to_le_bytes());
        trailer[16..24].copy_from_slice(&index.to_le_bytes());
        trailer[24..28].copy_from_slice(&crc_fast::crc32_iscsi(sealed).to_le_bytes());
        trailer
    }
}
