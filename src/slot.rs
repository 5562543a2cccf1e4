//! Slots: numbered places of one block each in a temp file, and where in the file they lie.
//! Never touches a file.
//!
//! A file is a row of sections: pages of trailers, each for a group of slots, then the payloads they belong to.
//!
//! ```text
//! | trailers 0..128 | trailers 128..256 | .. | payload 0 | payload 1 | .. | payload 2047 | trailers 2048.. | ..
//! ```
//!
//! A payload is exactly a block, so that a 64 KiB write is one copy, a run of slots is one `pwritev`, and direct
//! I/O stays possible; none of that holds with a trailer inside the slot. Payloads of a section lie end to end from a multiple
//! of 64 KiB on: the page cache holds them in large pieces, and to the file system they are one extent every 128 MiB of
//! backlog. A page of trailers before each group's payloads would cut it into hundreds, which are searched for each page that
//! is written. Pages of trailers that nobody has written yet occupy nothing.

use std::ops::Range;

/// Bytes of one trailer on disk.
pub(crate) const TRAILER: usize = 32;
/// Bytes of a group's trailer page.
pub(crate) const PAGE: u64 = 4096;
/// Slots of one group: as many trailers as fill a page.
pub(crate) const GROUP: u64 = PAGE / TRAILER as u64;
/// From a section's beginning to its first payload, in bytes of the file: its pages of trailers.
const HEADER: u64 = 64 << 10;
/// Slots of one section: 128 MiB of the largest.
const SECTION: u64 = HEADER / PAGE * GROUP;
/// Runs of fewer bytes than this lie anywhere, and longer ones than [`MOST_PLACED`] no better than those.
const LEAST_PLACED: u64 = 128 << 10;
const MOST_PLACED: u64 = 1 << 20;
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
        self.section(slot) + HEADER + slot % SECTION * self.block
    }

    pub(crate) fn trailer(self, slot: u64) -> u64 {
        self.section(slot) + slot % SECTION * TRAILER as u64
    }

    /// A run up to where the next one of its length begins well, and the rest, which may be empty. The page cache holds what is
    /// written in one call in as few pieces as its place allows: one, where that is a multiple of its length. A run that lies
    /// across two such places would have three, each time that it is written and read.
    pub(crate) fn well_placed(self, run: SlotRun) -> (SlotRun, SlotRun) {
        let len = run.count * self.block;
        let whole = (len + 1).next_power_of_two() / 2;
        let mut count = run.count;
        if len >= LEAST_PLACED {
            let whole = whole.min(MOST_PLACED);
            let behind = self.payload(run.first) % whole;
            if behind > 0 {
                count = count.min((whole - behind) / self.block).max(1);
            }
        }
        (SlotRun::new(run.first, count), SlotRun::new(run.first + count, run.count - count))
    }

    /// Where the payloads of adjacent slots lie, each part from one place to another.
    pub(crate) fn payloads(self, run: SlotRun) -> impl Iterator<Item = (u64, u64)> {
        pieces(run, SECTION).map(move |piece| (self.payload(piece.first), piece.count * self.block))
    }

    /// Where the trailer pages of adjacent groups lie, likewise.
    pub(crate) fn trailer_pages(self, groups: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
        let slots = SlotRun::new(groups.start * GROUP, groups.end.saturating_sub(groups.start) * GROUP);
        pieces(slots, SECTION).map(move |piece| (self.trailer(piece.first), piece.count / GROUP * PAGE))
    }

    /// The section that a slot lies in.
    fn section(self, slot: u64) -> u64 {
        slot / SECTION * (HEADER + SECTION * self.block)
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
        self.whole_slots(bytes, PAGE, GROUP)
    }

    /// How many slots a file has that is at most `len` bytes long.
    pub(crate) fn slots_in_file(self, len: u64) -> u64 {
        self.whole_slots(len, HEADER, SECTION)
    }

    /// How many slots there are in `bytes`, where each `count` of them take `header` besides.
    fn whole_slots(self, bytes: u64, header: u64, count: u64) -> u64 {
        let together = header + count * self.block;
        let rest = bytes % together;
        let slots = bytes / together * count + rest.saturating_sub(header) / self.block;
        slots.min(MAX_SLOTS)
    }
}

/// The parts of a run that can be read and written in one call each: their payloads are contiguous in the file, and so are
/// their trailers, which fit a page.
pub(crate) fn io_pieces(run: SlotRun) -> impl Iterator<Item = SlotRun> {
    pieces(run, GROUP)
}

/// The parts of a run that end where `size` slots do.
fn pieces(run: SlotRun, size: u64) -> impl Iterator<Item = SlotRun> {
    let mut first = run.first;
    std::iter::from_fn(move || {
        let end = run.end().min((first / size + 1) * size);
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
            let around_a_section = geometry.file_len(SECTION);
            let limits = (0..(40 << 20)).step_by(7919);
            for limit in limits.chain((around_a_section..around_a_section + (3 << 20)).step_by(7919)) {
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
        let slots = (0..3 * GROUP).chain(SECTION - GROUP..SECTION + GROUP);
        let mut places: Vec<(u64, u64)> = slots
            .flat_map(|slot| [(geometry.payload(slot), 16 << 10), (geometry.trailer(slot), TRAILER as u64)])
            .collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0));
        for piece in io_pieces(SlotRun::new(100, 200)).chain(io_pieces(SlotRun::new(SECTION - 70, 140))) {
            let last = piece.end() - 1;
            assert_eq!(geometry.payload(last) - geometry.payload(piece.first), (piece.count - 1) * (16 << 10));
            assert_eq!(geometry.trailer(last) - geometry.trailer(piece.first), (piece.count - 1) * TRAILER as u64);
        }
        let total: u64 = io_pieces(SlotRun::new(100, 200)).map(|piece| piece.count).sum();
        assert_eq!(total, 200);
    }
}
