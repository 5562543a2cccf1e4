//! Long copies, in strides where one go would be many times slower. Never decides what is copied.
//!
//! `rep movsb`, with which glibc and the kernel copy what is long, is microcode. On AMD's Zen 3 and 4 it falls back to a few bytes
//! at a time where the destination's offset in its page is up to 31 bytes beyond the source's: 2 to 3 GB/s instead of 45 (glibc's
//! bug 30994 tells of it). Which memory a caller has is chance, and 31 of 4,096 distances are such ones: of the many blocks that a
//! stream passes through, some would lie so.

pub(crate) mod streaming;

use std::mem;

use bytes::{BufMut, Bytes};

/// glibc copies up to 2,112 bytes with vector registers where the processor calls `rep movsb` fast for short pieces too, up to 2 KiB
/// or more elsewhere. Strides of this many bytes are as fast as one good go.
const STRIDE: usize = 2 << 10;

const PAGE: usize = 4096;

/// Whether a long copy between these addresses is slow on some processors.
#[inline]
pub(crate) fn is_slow(from: usize, to: usize) -> bool {
    (1..32).contains(&(to.wrapping_sub(from) % PAGE))
}

/// Has `put` copy `from` to the address `to`, where it lies in one piece: in one go, or in strides where that would be slow.
#[inline]
pub(crate) fn each_stride(from: &[u8], to: usize, mut put: impl FnMut(&[u8])) {
    if from.len() > STRIDE && is_slow(from.as_ptr().addr(), to) {
        in_strides(from, put);
    } else {
        put(from);
    }
}

// Out of the way of short copies, which are the most.
#[cold]
#[inline(never)]
fn in_strides(from: &[u8], put: impl FnMut(&[u8])) {
    from.chunks(STRIDE).for_each(put);
}

/// Fills `to`, which is as long.
#[inline]
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    assert_eq!(from.len(), to.len(), "a copy needs as much room as there are bytes");
    let (at, mut rest) = (to.as_ptr().addr(), to);
    each_stride(from, at, |piece| {
        let (next, behind) = mem::take(&mut rest).split_at_mut(piece.len());
        next.copy_from_slice(piece);
        rest = behind;
    });
}

/// Puts `from` behind what is in `to`, which grows at most once.
pub(crate) fn append(from: &[u8], to: &mut Vec<u8>) {
    to.reserve(from.len());
    each_stride(from, to.as_ptr().addr() + to.len(), |piece| to.extend_from_slice(piece));
}

/// Puts `from` into `to`, which has room for it in one piece.
pub(crate) fn put(from: &[u8], to: &mut impl BufMut) {
    each_stride(from, to.chunk_mut().as_mut_ptr().addr(), |piece| to.put_slice(piece));
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
            let slow = len > STRIDE && beyond > 0 && beyond < 32;
            let mut strides = Vec::new();
            each_stride(&from[source..source + len], start + target, |piece| strides.push(piece.len()));
            assert_eq!(strides.iter().sum::<usize>(), len);
            let wanted = if slow { len.div_ceil(STRIDE) } else { 1 };
            assert_eq!(strides.len(), wanted, "{source} to {target}, {len}");
            assert!(!slow || strides.iter().all(|&stride| stride <= STRIDE));
        }
    }

    #[test]
    #[should_panic(expected = "as much room")]
    fn a_copy_into_other_room_than_it_needs_is_a_mistake() {
        copy(b"three", &mut [0; 6]);
    }
}
