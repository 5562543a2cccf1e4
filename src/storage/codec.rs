//! The slot codec: what goes into a slot and its trailer, and whether what comes back is that.
//! Never touches a file. What is encrypted is sealed by the cipher instead.

use crate::{block::Block, slot::TRAILER};

/// A trailer, little-endian: format (1 byte), 3 zeros, length (4), stream (8), index (8), CRC32C of the
/// payload (4), CRC32C of all before (4); without checksums the last two are zeros.
pub(crate) type Trailer = [u8; TRAILER];

pub(super) const NO_SLOT: &str = "no slot of this format was written there";
pub(super) const OTHER_LENGTH: &str = "the slot has another length";

const WITH_CHECKSUM: u8 = 1;
const WITHOUT_CHECKSUM: u8 = 2;
/// Where the payload's checksum lies, and the trailer's own.
const PAYLOAD: usize = TRAILER - 8;
const OWN: usize = TRAILER - 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Codec {
    verify: bool,
}

impl Codec {
    pub(crate) fn new(verify: bool) -> Self {
        Self { verify }
    }

    /// The trailer of a slot. `stream` is one buffer of this process, `index` the place in it, so
    /// that a slot which is stale or another's is told from the right one.
    pub(crate) fn seal(self, stream: u64, index: u64, block: &Block) -> Trailer {
        let mut trailer = self.header(stream, index, block.len());
        if self.verify {
            trailer[PAYLOAD..OWN].copy_from_slice(&block.checksum().to_le_bytes());
            let own = own_checksum(&trailer);
            trailer[OWN..].copy_from_slice(&own);
        }
        trailer
    }

    /// Whether sealing wants a block's checksum.
    pub(crate) fn verifies(self) -> bool {
        self.verify
    }

    /// Whether `payload` is what was sealed; else which check failed.
    pub(crate) fn open(self, stream: u64, index: u64, payload: &[u8], trailer: &Trailer) -> Result<(), &'static str> {
        let expected = self.header(stream, index, payload.len());
        for (field, problem) in [
            (0..4, NO_SLOT),
            (8..16, "the slot belongs to another stream"),
            (16..24, "the slot belongs to another place in the stream"),
            (4..8, OTHER_LENGTH),
        ] {
            if expected[field.clone()] != trailer[field] {
                return Err(problem);
            }
        }
        if !self.verify {
            return Ok(());
        }
        if own_checksum(trailer) != trailer[OWN..] {
            return Err("the checksum of the slot's trailer does not match");
        }
        if crc_fast::crc32_iscsi(payload).to_le_bytes() != trailer[PAYLOAD..OWN] {
            return Err("the checksum does not match");
        }
        Ok(())
    }

    fn header(self, stream: u64, index: u64, len: usize) -> Trailer {
        let mut trailer = [0; TRAILER];
        trailer[0] = if self.verify { WITH_CHECKSUM } else { WITHOUT_CHECKSUM };
        trailer[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        trailer[8..16].copy_from_slice(&stream.to_le_bytes());
        trailer[16..24].copy_from_slice(&index.to_le_bytes());
        trailer
    }
}

fn own_checksum(trailer: &Trailer) -> [u8; 4] {
    crc_fast::crc32_iscsi(&trailer[..OWN]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Reuse;

    fn block(payload: &[u8]) -> Block {
        let mut block = Block::allocate(payload.len(), Reuse::Newest);
        block.append(payload);
        block
    }

    #[test]
    fn c14_every_bit_of_a_sealed_slot_counts() {
        let codec = Codec::new(true);
        let payload = b"some payload".to_vec();
        let trailer = codec.seal(7, 4096, &block(&payload));
        codec.open(7, 4096, &payload, &trailer).unwrap();
        for bit in 0..payload.len() * 8 {
            let mut torn = payload.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            codec.open(7, 4096, &torn, &trailer).unwrap_err();
        }
        for bit in 0..TRAILER * 8 {
            let mut torn = trailer;
            torn[bit / 8] ^= 1 << (bit % 8);
            codec.open(7, 4096, &payload, &torn).unwrap_err();
        }
    }

    #[test]
    fn c14_a_trailer_that_is_wrong_is_told_from_a_payload_that_is() {
        let codec = Codec::new(true);
        let trailer = codec.seal(7, 4096, &block(b"payload"));
        assert_eq!(codec.open(7, 4096, b"payl0ad", &trailer), Err("the checksum does not match"));
        for at in PAYLOAD..TRAILER {
            let mut torn = trailer;
            torn[at] ^= 1;
            let told = codec.open(7, 4096, b"payload", &torn);
            assert_eq!(told, Err("the checksum of the slot's trailer does not match"), "byte {at}");
        }
    }

    #[test]
    fn c14_a_slot_of_another_stream_or_place_or_length_is_refused_even_unverified() {
        for codec in [Codec::new(true), Codec::new(false)] {
            let trailer = codec.seal(7, 4096, &block(b"payload"));
            codec.open(7, 4096, b"payload", &trailer).unwrap();
            codec.open(8, 4096, b"payload", &trailer).unwrap_err();
            codec.open(7, 8192, b"payload", &trailer).unwrap_err();
            codec.open(7, 4096, b"payloa", &trailer).unwrap_err();
            codec.open(7, 4096, b"payload", &[0; TRAILER]).unwrap_err();
        }
        let trailer = Codec::new(false).seal(7, 0, &block(b"payload"));
        Codec::new(false).open(7, 0, b"payl0ad", &trailer).unwrap();
    }
}
