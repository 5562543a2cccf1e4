//! Slots: numbered places of one block each in a temp file, and where in the file they lie.
//! Never touches a file.
//!
//! A file is a row of groups: one page of trailers, a hole, then the payloads they belong to.
//!
//! ```text
//! | trailers 0..128 | hole | payload 0 | payload 1 | .. | payload 127 | trailers 128..256 | hole | payload 128 | ..
//! ```
//!
//! A payload is exactly a block, so that a 64 KiB write is one copy, a run of slots is one `pwritev`, and direct
//! I/O stays possible; none of that holds with a trailer inside the slot. The hole occupies nothing, and has payloads begin
//! where the page cache can hold them in large pieces: a page off that, writing them takes up to half as long again.

/// Bytes of one trailer on disk.
pub(crate) const TRAILER: usize = 32;
/// Bytes of a group's trailer page.
pub(crate) const PAGE: u64 = 4096;
/// From a group's beginning to its first payload, in bytes of the file: the trailer page and a hole.
const HEADER: u64 = 64 << 10;
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
        self.group_start(slot / GROUP) + HEADER + slot % GROUP * self.block
    }

    pub(crate) fn trailer(self, slot: u64) -> u64 {
        self.group_start(slot / GROUP) + slot % GROUP * TRAILER as u64
    }

    pub(crate) fn group_start(self, group: u64) -> u64 {
        group * self.group_bytes()
    }

    fn group_bytes(self) -> u64 {
        HEADER + GROUP * self.block
    }

    /// The length of a file that ends behind this many slots.
    pub(crate) fn file_len(self, slots: u64) -> u64 {
        if slots == 0 { 0 } else { self.payload(slots - 1) + self.block }
    }

    /// What the first so many slots of a file occupy with their trailers, in bytes.
    pub(crate) fn occupied(self, slots: u64) -> u64 {
        slots * self.block + slots.div_ceil(GROUP) * PAGE
    }

    /// How many slots occupy at most `bytes`.
    pub(crate) fn slots_within(self, bytes: u64) -> u64 {
        self.whole_slots(bytes, PAGE)
    }

    /// How many slots a file has that is at most `len` bytes long.
    pub(crate) fn slots_in_file(self, len: u64) -> u64 {
        self.whole_slots(len, HEADER)
    }

    /// How many slots there are in `bytes`, where each group takes `header` besides.
    fn whole_slots(self, bytes: u64, header: u64) -> u64 {
        let group = header + GROUP * self.block;
        let rest = bytes % group;
        let slots = bytes / group * GROUP + rest.saturating_sub(header) / self.block;
        slots.min(MAX_SLOTS)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c06_as_many_slots_as_a_limit_allows_are_within_it_and_one_more_is_not() {
        for block in [16 << 10, 32 << 10, 64 << 10] {
            let geometry = Geometry::new(block);
            for limit in (0..(40 << 20)).step_by(7919) {
                let slots = geometry.slots_within(limit);
                assert!(geometry.occupied(slots) <= limit);
                assert!(geometry.occupied(slots + 1) > limit);
                let slots = geometry.slots_in_file(limit);
                assert!(geometry.file_len(slots) <= limit);
                assert!(geometry.file_len(slots + 1) > limit);
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
