//! Where a transform puts what it makes. Never holds more made bytes than its bound.

use std::{collections::VecDeque, fmt, mem, time::Instant};

use bytes::{Bytes, BytesMut};

use crate::copy::{copied, copy};

/// How many made bytes a stage holds where nothing else is asked for.
pub(crate) const DEFAULT_LIMIT: usize = 64 << 10;

/// How many chunks may wait, so that slices of no memory of their own are bounded too.
const MOST_CHUNKS: usize = 64;

/// Memory is first asked for in this size, then twice as much each time, up to the bound.
const FIRST_GRAIN: usize = 4 << 10;

/// The bounded output of a [`Transform`](super::Transform).
///
/// Bytes that are made are copied in with [`put_slice`](Self::put_slice) or written in place
/// ([`spare`](Self::spare), [`advance`](Self::advance)); they count against the bound, 64 KiB unless the
/// shell was told another. Bytes of the input go on uncopied with [`pass`](Self::pass) and count for
/// nothing. Both keep their order.
pub struct Output {
    limit: usize,
    clock: fn() -> Instant,
    /// What is complete, in order, with how much of it counts. The first lies by itself, empty where there is none: most calls
    /// put one chunk.
    first: (Bytes, usize),
    others: VecDeque<(Bytes, usize)>,
    /// Made bytes in these and in the filled part of `scratch`.
    made: usize,
    /// Zeroed once, so that it can be lent as `&mut [u8]`; its first `filled` bytes are made already.
    scratch: BytesMut,
    filled: usize,
    /// The last block that was put. Once nobody else holds it, it is filled again, without being zeroed again.
    spent: Bytes,
    grain: usize,
    /// More was said to be written than there was room for.
    overrun: bool,
}

impl Output {
    pub(crate) fn new(limit: usize, clock: fn() -> Instant) -> Self {
        Self {
            limit: limit.max(1),
            clock,
            first: (Bytes::new(), 0),
            others: VecDeque::new(),
            made: 0,
            scratch: BytesMut::new(),
            filled: 0,
            spent: Bytes::new(),
            grain: FIRST_GRAIN,
            overrun: false,
        }
    }

    /// Another bound from now on. What was put stays.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.max(1);
    }

    /// How many bytes can be put now. At the start of a call it is never 0.
    #[inline]
    pub fn room(&self) -> usize {
        if self.others.len() + 1 < MOST_CHUNKS { self.limit.saturating_sub(self.made) } else { 0 }
    }

    /// Copies in as much of `bytes` as there is room for, and says how much that was.
    #[must_use = "what did not fit was not put"]
    pub fn put_slice(&mut self, mut bytes: &[u8]) -> usize {
        let mut put = 0;
        while !bytes.is_empty() {
            let spare = self.spare();
            if spare.is_empty() {
                break;
            }
            let n = spare.len().min(bytes.len());
            copy(&bytes[..n], &mut spare[..n]);
            self.advance(n);
            bytes = &bytes[n..];
            put += n;
        }
        put
    }

    /// Memory to write into: not all the [`room`](Self::room) that there is, but empty only where there
    /// is none. What was written is put by [`advance`](Self::advance). What the memory holds before is of
    /// no meaning.
    pub fn spare(&mut self) -> &mut [u8] {
        let room = self.room();
        if room > 0 && self.filled == self.scratch.len() {
            self.seal();
            let grain = self.grain.min(self.limit);
            self.scratch = mem::take(&mut self.spent).try_into_mut().unwrap_or_default();
            self.scratch.resize(grain, 0);
            self.grain = self.grain.saturating_mul(2).min(self.limit.max(FIRST_GRAIN));
        }
        let end = self.scratch.len().min(self.filled + room);
        &mut self.scratch[self.filled..end]
    }

    /// Puts the first `n` bytes of what [`spare`](Self::spare) has lent.
    pub fn advance(&mut self, n: usize) {
        let most = self.room().min(self.scratch.len() - self.filled);
        self.overrun |= n > most;
        let n = n.min(most);
        self.filled += n;
        self.made += n;
    }

    /// Hands on `bytes` as they are, uncopied; meant for the input and slices of it, which add no memory.
    /// They go whole, however many they are. Where a call passes many, [`room`](Self::room) of 0 says that
    /// it is time for [`Flow::Full`](super::Flow::Full).
    #[inline]
    pub fn pass(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.seal();
            self.push((bytes, 0));
        }
    }

    /// The shell's clock: tokio's, so that a test may pause it.
    pub fn now(&self) -> Instant {
        (self.clock)()
    }

    #[cfg(test)]
    fn take(&mut self) -> Option<Bytes> {
        let mut chunk = Bytes::new();
        self.take_into(&mut chunk).then_some(chunk)
    }

    /// Puts the next chunk, in order, into `chunk`, which is empty. Never an empty one.
    #[inline]
    pub(crate) fn take_into(&mut self, chunk: &mut Bytes) -> bool {
        if self.first.0.is_empty() {
            if self.filled == 0 {
                return false;
            }
            self.seal_filled();
        }
        debug_assert!(chunk.is_empty());
        mem::swap(chunk, &mut self.first.0);
        self.made -= mem::take(&mut self.first.1);
        if !self.others.is_empty() {
            self.first = self.others.pop_front().unwrap_or_default();
        }
        true
    }

    /// Drops what was not taken.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limit, self.clock);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.0.is_empty() && self.filled == 0
    }

    #[inline]
    pub(crate) fn was_overrun(&self) -> bool {
        self.overrun
    }

    /// Makes a chunk of what was made so far.
    #[inline]
    fn seal(&mut self) {
        if self.filled > 0 {
            self.seal_filled();
        }
    }

    #[inline(never)]
    fn seal_filled(&mut self) {
        let filled = mem::take(&mut self.filled);
        let chunk = if filled < self.scratch.len() / 2 {
            // A few bytes must not keep a whole block, nor leave a part of one behind that is too short to be filled well.
            copied(&self.scratch[..filled])
        } else {
            self.spent = mem::take(&mut self.scratch).freeze();
            self.spent.slice(..filled)
        };
        self.push((chunk, filled));
    }

    #[inline]
    fn push(&mut self, chunk: (Bytes, usize)) {
        if self.first.0.is_empty() {
            self.first = chunk;
        } else {
            self.others.push_back(chunk);
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("limit", &self.limit).field("made", &self.made).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(limit: usize) -> Output {
        Output::new(limit, Instant::now)
    }

    #[test]
    fn what_is_put_stops_at_the_bound_and_goes_on_when_it_was_taken() {
        let mut output = output(10_000);
        assert_eq!(output.put_slice(&vec![7; 20_000]), 10_000);
        assert_eq!((output.room(), output.spare().len()), (0, 0));
        assert_eq!(output.put_slice(b"x"), 0);
        let mut got = 0;
        while let Some(chunk) = output.take() {
            assert!(chunk.iter().all(|byte| *byte == 7));
            got += chunk.len();
        }
        assert_eq!((got, output.room()), (10_000, 10_000));
    }

    #[test]
    fn passed_and_put_bytes_keep_their_order_and_passed_ones_their_place() {
        let mut output = output(100);
        let input = Bytes::from(vec![1; 5000]);
        assert_eq!(output.put_slice(b"before"), 6);
        output.pass(input.clone());
        assert_eq!(output.put_slice(b"after"), 5);
        assert_eq!(output.room(), 100 - 11);
        assert_eq!(output.take().unwrap(), "before");
        let passed = output.take().unwrap();
        assert_eq!((passed.as_ptr(), passed.len()), (input.as_ptr(), 5000));
        assert_eq!(output.take().unwrap(), "after");
        assert!(output.take().is_none() && output.is_empty());
    }

    #[test]
    fn chunks_that_wait_are_bounded_in_number() {
        let mut output = output(1000);
        let input = Bytes::from_static(b"x");
        for _ in 0..MOST_CHUNKS {
            assert!(output.room() > 0);
            output.pass(input.clone());
        }
        assert_eq!((output.room(), output.put_slice(b"y")), (0, 0));
        output.take();
        assert_eq!(output.room(), 1000);
    }

    #[test]
    fn memory_that_nobody_holds_is_used_again() {
        let mut output = output(8192);
        let mut places = Vec::new();
        for _ in 0..100 {
            while output.room() > 0 {
                let n = output.spare().len();
                output.advance(n);
            }
            while let Some(chunk) = output.take() {
                places.push(chunk.as_ptr() as usize);
            }
        }
        places.sort_unstable();
        places.dedup();
        assert!(places.len() < 10, "{}", places.len());
    }

    #[test]
    fn another_bound_loses_nothing() {
        let mut output = output(10);
        assert_eq!(output.put_slice(b"abcdef"), 6);
        output.set_limit(4);
        assert_eq!((output.room(), output.put_slice(b"x")), (0, 0));
        output.set_limit(7);
        assert_eq!(output.put_slice(b"ghi"), 1);
        assert_eq!(std::iter::from_fn(|| output.take()).collect::<Vec<_>>().concat(), b"abcdefg");
    }

    #[test]
    fn advancing_beyond_the_room_is_seen() {
        let mut output = output(10);
        let n = output.spare().len();
        output.advance(n + 1);
        assert!(output.was_overrun());
        assert_eq!(output.take().unwrap().len(), 10);
    }
}
