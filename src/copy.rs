//! Long copies, in strides where one go would be many times slower. Never decides what is copied.
//!
//! `rep movsb`, with which glibc and the kernel copy what is long, is microcode. On AMD's Zen 3 and 4 it falls back to a few bytes
//! at a time where the destination's offset in its page is up to 31 bytes beyond the source's: 2 to 3 GB/s instead of 45 (glibc's
//! bug 30994 tells of it). Which memory a caller has is chance, and one in 128 pairs of places is such a one, so a stream
//! would meet it all the time.

use bytes::{BufMut, Bytes};

/// glibc copies less than 4 KiB with vector registers (2 KiB where these are short), and strides of this many bytes so are as
/// fast as one go.
const STRIDE: usize = 2 << 10;

const PAGE: usize = 4096;

/// Whether a long copy between these addresses is slow on some processors.
#[inline]
pub(crate) fn is_slow(from: usize, to: usize) -> bool {
    (1..32).contains(&(to.wrapping_sub(from) % PAGE))
}

/// Whether `from` is to be copied to the address `to` in strides. What is short never is, and costs no more than this look.
#[inline]
pub(crate) fn needs_strides(from: &[u8], to: impl FnOnce() -> usize) -> bool {
    from.len() > STRIDE && is_slow(from.as_ptr().addr(), to())
}

/// Fills `to`, which is as long.
#[inline]
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    if needs_strides(from, || to.as_ptr().addr()) {
        copy_in_strides(from, to);
    } else {
        to.copy_from_slice(from);
    }
}

#[cold]
#[inline(never)]
fn copy_in_strides(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "a copy needs as much room as there are bytes");
    for (from, to) in from.chunks(STRIDE).zip(to.chunks_mut(STRIDE)) {
        to.copy_from_slice(from);
    }
}

/// Puts `from` behind what is in `to`, whose memory lies in one piece.
#[inline]
pub(crate) fn put(from: &[u8], to: &mut impl BufMut) {
    if needs_strides(from, || to.chunk_mut().as_mut_ptr().addr()) {
        put_in_strides(from, to);
    } else {
        to.put_slice(from);
    }
}

#[cold]
#[inline(never)]
pub(crate) fn put_in_strides(from: &[u8], to: &mut impl BufMut) {
    from.chunks(STRIDE).for_each(|piece| to.put_slice(piece));
}

/// The same for a vector, which grows at most once.
pub(crate) fn append(from: &[u8], to: &mut Vec<u8>) {
    to.reserve(from.len());
    put(from, to);
}

/// A copy that belongs to the caller.
pub(crate) fn copied(from: &[u8]) -> Bytes {
    let mut to = Vec::with_capacity(from.len());
    append(from, &mut to);
    to.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every distance within a page, lengths around the stride.
    fn cases() -> impl Iterator<Item = (usize, usize, usize)> {
        let offsets = [0, 1, 16, 31, 32, 33, 64, 2048, 4064, 4065, 4080, 4095];
        let lens = [0, 1, STRIDE - 1, STRIDE, STRIDE + 1, 3 * STRIDE + 7, 16 << 10];
        let pairs = offsets.into_iter().flat_map(move |from| offsets.into_iter().map(move |to| (from, to)));
        pairs.flat_map(move |(from, to)| lens.into_iter().map(move |len| (from, to, len)))
    }

    /// Memory that begins with a page.
    fn paged(memory: &mut [u8]) -> &mut [u8] {
        let start = memory.as_ptr().align_offset(PAGE);
        &mut memory[start..]
    }

    #[test]
    fn all_of_it_is_copied_and_nothing_else_wherever_it_lies() {
        let (mut from, mut to) = (vec![0; 8 * PAGE], vec![0; 8 * PAGE]);
        let (from, to) = (paged(&mut from), paged(&mut to));
        for (at, byte) in from.iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        for (source, target, len) in cases() {
            let bytes = &from[source..source + len];
            to.fill(255);
            copy(bytes, &mut to[target..target + len]);
            assert_eq!(&to[target..target + len], bytes, "{source} to {target}, {len}");
            assert!(to[..target].iter().chain(&to[target + len..]).all(|&byte| byte == 255));
            let mut appended = b"before".to_vec();
            append(bytes, &mut appended);
            assert_eq!((&appended[..6], &appended[6..]), (&b"before"[..], bytes));
            assert_eq!(copied(bytes), bytes);
            to.fill(255);
            put(bytes, &mut &mut to[target..]);
            assert_eq!(&to[target..target + len], bytes);
            assert!(to[..target].iter().chain(&to[target + len..]).all(|&byte| byte == 255));
        }
    }

    #[test]
    fn only_a_long_copy_to_a_slow_place_is_taken_apart() {
        let mut from = vec![0; 8 * PAGE];
        let from = paged(&mut from);
        let start = from.as_ptr().addr();
        for (source, target, len) in cases() {
            let beyond = (target + PAGE - source) % PAGE;
            let wanted = len > STRIDE && beyond > 0 && beyond < 32;
            let strides = needs_strides(&from[source..source + len], || start + target);
            assert_eq!(strides, wanted, "{source} to {target}, {len}");
        }
    }

    #[test]
    #[should_panic(expected = "as much room")]
    fn a_copy_in_strides_into_less_room_is_a_mistake() {
        copy_in_strides(&[0; 2 * STRIDE], &mut [0; STRIDE]);
    }
}
