//! Encryption at rest: what a slot holds of a payload where the pool's keys are the only ones that open it.
//! Never keeps a key longer than the pool it is for, and never seals in place.

use std::{fmt, io};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use zeroize::Zeroizing;

use super::codec::{self, Trailer};
use crate::{
    slot::TRAILER,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// A sealed slot's trailer, little-endian: format (1 byte), length (3), zeros (4), number (8), tag (16). The number tells the
/// nonce and the key. Stream and index are not in it: they are authenticated, so that only who knows them can open the slot.
const FORMAT: u8 = 3;
const NUMBER: usize = 8;
const TAG: usize = 16;

/// Slots that are sealed with one key: 256 TiB of the largest. With more, the odds against who looks for a collision of
/// AES blocks would begin to matter.
const SLOTS_A_KEY: u64 = 1 << 32;

/// The keys of one pool.
pub(crate) struct Cipher {
    /// In the order in which they were made; almost always one.
    keys: Mutex<Vec<Arc<LessSafeKey>>>,
    /// How many slots were sealed. A slot takes the next number, and with it a nonce that none had before: also where the
    /// same block is sealed a second time.
    sealed: AtomicU64,
}

impl Cipher {
    /// # Errors
    ///
    /// The system gives no random bytes.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { keys: Mutex::new(vec![Arc::new(random_key()?)]), sealed: AtomicU64::new(0) })
    }

    /// Seals `payload` into `into`, which is as long.
    pub(crate) fn seal(&self, stream: u64, index: u64, payload: &[u8], into: &mut [u8]) -> io::Result<Trailer> {
        let number = self.sealed.fetch_add(1, Relaxed);
        let mut trailer = header(payload.len());
        trailer[NUMBER..TAG].copy_from_slice(&number.to_le_bytes());
        let with = Aad::from(context(stream, index, &trailer));
        self.key_to_seal(number)?
            .seal_out_of_place_scatter(nonce(number), with, payload, into, &[], &mut trailer[TAG..])
            .map_err(|_| io::Error::other("the slot could not be encrypted"))?;
        Ok(trailer)
    }

    /// Makes of what was read the payload that was sealed; else says what was wrong, and `payload` is of no meaning.
    pub(crate) fn open(
        &self,
        stream: u64,
        index: u64,
        payload: &mut [u8],
        trailer: &Trailer,
    ) -> Result<(), &'static str> {
        let expected = header(payload.len());
        if trailer[0] != expected[0] || trailer[4..NUMBER] != expected[4..NUMBER] {
            return Err(codec::NO_SLOT);
        }
        if trailer[1..4] != expected[1..4] {
            return Err(codec::OTHER_LENGTH);
        }
        let mut number = [0; TAG - NUMBER];
        number.copy_from_slice(&trailer[NUMBER..TAG]);
        let number = u64::from_le_bytes(number);
        let Some(key) = self.key(number) else { return Err("the slot was sealed with no key of this pool") };
        let with = Aad::from(context(stream, index, trailer));
        key.open_in_place_separate_tag(nonce(number), with, &trailer[TAG..], payload)
            .map(drop)
            .map_err(|_| "the slot is not what was sealed for this place in the stream")
    }

    fn key(&self, number: u64) -> Option<Arc<LessSafeKey>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(usize::try_from(number / SLOTS_A_KEY).ok()?).cloned()
    }

    fn key_to_seal(&self, number: u64) -> io::Result<Arc<LessSafeKey>> {
        loop {
            if let Some(key) = self.key(number) {
                return Ok(key);
            }
            let next = random_key()?;
            self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(next));
        }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

/// The library wipes it when it is dropped, and what it was made of is wiped here.
fn random_key() -> io::Result<LessSafeKey> {
    let unavailable = |_| io::Error::other("the system gives no random bytes for a key");
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).map_err(unavailable)?;
    UnboundKey::new(&AES_256_GCM, &*bytes).map(LessSafeKey::new).map_err(unavailable)
}

fn header(len: usize) -> Trailer {
    let mut trailer = [0; TRAILER];
    trailer[0] = FORMAT;
    trailer[1..4].copy_from_slice(&(len as u32).to_le_bytes()[..3]);
    trailer
}

/// What is authenticated besides the payload: whose it is, its place there, and the trailer but for the tag.
fn context(stream: u64, index: u64, trailer: &Trailer) -> [u8; 32] {
    let mut context = [0; 32];
    context[..8].copy_from_slice(&stream.to_le_bytes());
    context[8..16].copy_from_slice(&index.to_le_bytes());
    context[16..].copy_from_slice(&trailer[..TAG]);
    context
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn c14_every_bit_of_a_sealed_slot_counts_and_so_does_its_place() {
        let cipher = Cipher::new().unwrap();
        let payload = b"some payload".to_vec();
        let mut sealed = vec![0; payload.len()];
        let trailer = cipher.seal(7, 4096, &payload, &mut sealed).unwrap();
        assert_ne!(sealed, payload);
        let open = |stream, index, sealed: &[u8], trailer: &Trailer| {
            let mut payload = sealed.to_vec();
            cipher.open(stream, index, &mut payload, trailer).map(|()| payload)
        };
        assert_eq!(open(7, 4096, &sealed, &trailer).unwrap(), payload);
        open(8, 4096, &sealed, &trailer).unwrap_err();
        open(7, 8192, &sealed, &trailer).unwrap_err();
        open(7, 4096, &sealed[1..], &trailer).unwrap_err();
        for bit in 0..payload.len() * 8 {
            let mut torn = sealed.clone();
            torn[bit / 8] ^= 1 << (bit % 8);
            open(7, 4096, &torn, &trailer).unwrap_err();
        }
        for bit in 0..TRAILER * 8 {
            let mut torn = trailer;
            torn[bit / 8] ^= 1 << (bit % 8);
            open(7, 4096, &sealed, &torn).unwrap_err();
        }
        // Nor does another pool's key open it.
        Cipher::new().unwrap().open(7, 4096, &mut sealed, &trailer).unwrap_err();
    }

    #[test]
    fn no_number_is_given_twice_and_one_key_does_not_seal_for_ever() {
        let cipher = Cipher::new().unwrap();
        cipher.sealed.store(SLOTS_A_KEY - 2, Relaxed);
        let mut seen = HashSet::new();
        for slot in 0..4_u64 {
            // The same block again: it must not look the same.
            let mut sealed = [0; 5];
            let trailer = cipher.seal(7, 0, b"bytes", &mut sealed).unwrap();
            assert!(seen.insert(trailer[NUMBER..TAG].to_vec()));
            assert!(seen.insert(sealed.to_vec()));
            cipher.open(7, 0, &mut sealed, &trailer).unwrap();
            assert_eq!((&sealed, cipher.keys.lock().unwrap().len()), (b"bytes", 1 + (slot / 2) as usize));
        }
    }
}
