//! Slots: numbered places of one block each in a temp file, and where in the file they lie.
//! Never touches a file.
//!
//! A file is a row of groups: one page of trailers, then the payloads they belong to.
//!
//! ```text
//! | trailers 0..128 | payload 0 | payload 1 | .. | payload 127 | trailers 128..256 | payload 128 | ..
//! ```
//!
//! A payload is exactly a block and begins on a page, so that a 64 KiB write is one copy, a run of
//! slots is one `pwritev`, and direct I/O stays possible; neither holds with a trailer inside the slot.

/// Bytes of one trailer on disk.
pub(crate) const TRAILER: usize = 32;
/// Bytes of a group's trailer page.
pub(crate) const PAGE: u64 = 4096;
/// Slots of one group: as many trailers as fill a page.
pub(crate) const GROUP: u64 = PAGE / TRAILER as u64;
/// A number of slots that no disk holds and whose offsets still fit a file offset.
pub(crate) const MAX_SLOTS: u64 = 1 << 44;

/// Adjacent slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotRun {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl SlotRun {
    pub(crate) fn new(first: u64, count: u64) -> Self {
        Self { first, count }
    }

    pub(crate) fn one(slot: u64) -> Self {
        Self::new(slot, 1)
    }

    pub(crate) fn end(self) -> u64 {
        self.first + self.count
    }
}

/// Where the slots of a file with this block size lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    block: u64,
}

impl Geometry {
    pub(crate) fn new(block: usize) -> Self {
        Self { block: block as u64 }
    }

    pub(crate) fn block(self) -> usize {
        self.block as usize
    }

    pub(crate) fn payload(self, slot: u64) -> u64 {
        self.group_start(slot / GROUP) + PAGE + slot % GROUP * self.block
    }

    pub(crate) fn trailer(self, slot: u64) -> u64 {
        self.group_start(slot / GROUP) + slot % GROUP * TRAILER as u64
    }

    pub(crate) fn group_start(self, group: u64) -> u64 {
        group * self.group_bytes()
    }

    pub(crate) fn group_bytes(self) -> u64 {
        PAGE + GROUP * self.block
    }

    /// Bytes of a file that ends behind this many slots.
    pub(crate) fn file_bytes(self, slots: u64) -> u64 {
        if slots == 0 { 0 } else { self.payload(slots - 1) + self.block }
    }
}

/// The parts of a run that lie in one group each, and so are contiguous in the file.
pub(crate) fn pieces(run: SlotRun) -> impl Iterator<Item = SlotRun> {
    let mut first = run.first;
    std::iter::from_fn(move || {
        let end = run.end().min((first / GROUP + 1) * GROUP);
        let piece = SlotRun::new(first, end.checked_sub(first).filter(|&n| n > 0)?);
        first = end;
        Some(piece)
    })
}

/// How many slots a file of at most `bytes` can have.
pub(crate) fn slots_within(bytes: u64, block: usize) -> u64 {
    let geometry = Geometry::new(block);
    let rest = bytes % geometry.group_bytes();
    let slots = bytes / geometry.group_bytes() * GROUP + rest.saturating_sub(PAGE) / geometry.block;
    slots.min(MAX_SLOTS)
}

/// The smallest file that has a slot.
pub(crate) fn least_file(block: usize) -> u64 {
    Geometry::new(block).file_bytes(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c06_the_file_of_as_many_slots_as_a_limit_allows_is_within_it() {
        for block in [16 << 10, 32 << 10, 64 << 10] {
            let geometry = Geometry::new(block);
            for limit in (0..(40 << 20)).step_by(7919) {
                let slots = slots_within(limit, block);
                assert!(geometry.file_bytes(slots) <= limit);
                assert!(geometry.file_bytes(slots + 1) > limit);
            }
        }
    }

    #[test]
    fn no_two_places_overlap_and_pieces_are_contiguous() {
        let geometry = Geometry::new(16 << 10);
        let mut places: Vec<(u64, u64)> = (0..3 * GROUP)
            .flat_map(|slot| [(geometry.payload(slot), 16 << 10), (geometry.trailer(slot), TRAILER as u64)])
            .collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0));
        for piece in pieces(SlotRun::new(100, 200)) {
            let last = piece.end() - 1;
            assert_eq!(geometry.payload(last) - geometry.payload(piece.first), (piece.count - 1) * (16 << 10));
        }
        let total: u64 = pieces(SlotRun::new(100, 200)).map(|piece| piece.count).sum();
        assert_eq!(total, 200);
    }
}
