//! How a writer fills blocks that go to disk: as usual, or past the cache. Only decides; knows no clock.
//!
//! The memory of such a block was read a moment ago by the thread that wrote it to disk. Where the two processors share a cache,
//! filling it again takes little. Where they do not, each line has to be fetched from the other one: 2 GB/s instead of 12, and a
//! copy past the cache has 20. But then whoever writes the block finds nothing in the cache, which is a third slower where they
//! share one. Which it is, no system call tells, and on virtual machines it changes from minute to minute. So it is measured.

/// A block is slow to fill that takes so many nanoseconds a KiB: 4 GB/s.
const SLOW: u64 = 250;

/// So many in a row are no accident.
const IN_A_ROW: u32 = 8;

/// Blocks that are filled past the cache before one is tried as usual; twice as many whenever that was slow again, up to the
/// second figure.
const FEWEST: u32 = 64;
const MOST: u32 = 1024;

/// What one writer has found out.
#[derive(Debug, Default)]
pub(super) struct Filling {
    /// So many blocks in a row were slow.
    slow: u32,
    /// So many more are filled past the cache.
    streams: u32,
    /// So many were, the last time.
    last: u32,
}

impl Filling {
    /// Whether the next block is to be filled past the cache. If not, [`took`](Self::took) wants to know how long that took.
    pub(super) fn streams(&mut self) -> bool {
        let streams = self.streams > 0;
        self.streams -= u32::from(streams);
        streams
    }

    /// A block was filled as usual: so many bytes in so many nanoseconds.
    pub(super) fn took(&mut self, bytes: usize, nanos: u64) {
        if nanos < SLOW * (bytes as u64 >> 10) {
            *self = Self::default();
            return;
        }
        self.slow += 1;
        if self.slow >= IN_A_ROW {
            self.last = (2 * self.last).clamp(FEWEST, MOST);
            self.streams = self.last;
        }
    }
}

#[cfg(test)]
impl Filling {
    /// As if the blocks before had been slow.
    pub(super) fn streaming(streams: u32) -> Self {
        Self { slow: IN_A_ROW, streams, last: streams }
    }

    /// How many blocks in a row were slow, and how many more are filled past the cache.
    pub(super) fn so_far(&self) -> (u32, u32) {
        (self.slow, self.streams)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 64 << 10;
    const QUICK: u64 = 5_000;
    const FAR: u64 = 27_000;

    /// How many of these blocks in a row are filled past the cache, where the others take so long.
    fn streamed(filling: &mut Filling, most: u32) -> u32 {
        (0..most).take_while(|_| filling.streams()).count() as u32
    }

    #[test]
    fn blocks_that_are_slow_to_fill_are_filled_past_the_cache() {
        let mut filling = Filling::default();
        for _ in 1..IN_A_ROW {
            assert!(!filling.streams());
            filling.took(BLOCK, FAR);
        }
        // One that was not is the end of the row.
        filling.took(BLOCK, QUICK);
        for _ in 0..IN_A_ROW {
            assert!(!filling.streams());
            filling.took(BLOCK, FAR);
        }
        for expected in [64, 128, 256, 512, 1024, 1024] {
            assert_eq!(streamed(&mut filling, 2000), expected);
            filling.took(BLOCK, FAR);
        }
        assert_eq!(streamed(&mut filling, 2000), 1024);
        filling.took(BLOCK, QUICK);
        assert!(!filling.streams());
        for _ in 0..IN_A_ROW {
            filling.took(BLOCK, FAR);
        }
        assert_eq!(streamed(&mut filling, 2000), 64);
    }

    #[test]
    fn how_slow_depends_on_the_length() {
        for (bytes, nanos, slow) in
            [(BLOCK, 15_999, false), (BLOCK, 16_000, true), (16 << 10, 3_999, false), (16 << 10, 4_000, true)]
        {
            let mut filling = Filling::default();
            (0..IN_A_ROW).for_each(|_| filling.took(bytes, nanos));
            assert_eq!(filling.streams(), slow, "{bytes} in {nanos}");
        }
    }
}
