//! Copies past the cache, with what the processor has for it. The only `unsafe` code of the crate: streaming stores are
//! not to be had without.

#![allow(unsafe_code, reason = "streaming stores are intrinsics that take pointers")]

/// Whether [`copy`] is any different from another copy here.
pub(crate) const HAS: bool = cfg!(target_arch = "x86_64");

/// Fills `to`, which is as long, and leaves none of it in this processor's cache or another's.
#[cfg(target_arch = "x86_64")]
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    const VECTOR: usize = size_of::<__m128i>();

    assert_eq!(from.len(), to.len(), "a copy needs as much room as there are bytes");
    let head = to.as_ptr().align_offset(LINE).min(to.len());
    let (first, rest) = from.split_at(head);
    to[..head].copy_from_slice(first);
    let mut lines = to[head..].chunks_exact_mut(LINE);
    for (line, from) in lines.by_ref().zip(rest.chunks_exact(LINE)) {
        for at in (0..LINE).step_by(VECTOR) {
            // SAFETY: both are `LINE` bytes long, so that `VECTOR` bytes may be read and written from `at` on; `line` begins on a
            // multiple of `LINE`, as these stores need, and SSE2 is in every x86-64.
            unsafe {
                let vector = _mm_loadu_si128(from.as_ptr().add(at).cast());
                _mm_stream_si128(line.as_mut_ptr().add(at).cast(), vector);
            }
        }
    }
    let tail = lines.into_remainder();
    tail.copy_from_slice(&rest[rest.len() - tail.len()..]);
    // SAFETY: SSE2 again. These stores are not in order with others: whoever takes a lock next must find them done.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn copy(from: &[u8], to: &mut [u8]) {
    super::copy(from, to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c01_a_streaming_copy_is_a_copy_wherever_it_begins_and_however_long_it_is() {
        let source: Vec<u8> = (0..=255).cycle().take(700).collect();
        for from in [0, 1, 15, 16, 63] {
            for to in 0..130 {
                for len in [0, 1, 15, 16, 63, 64, 65, 127, 128, 191, 500] {
                    let mut target = vec![0xee; 700];
                    copy(&source[from..from + len], &mut target[to..to + len]);
                    assert_eq!(target[to..to + len], source[from..from + len], "{from}, {to}, {len}");
                    assert!(
                        target[..to].iter().chain(&target[to + len..]).all(|byte| *byte == 0xee),
                        "{from}, {to}, {len}"
                    );
                }
            }
        }
    }
}
