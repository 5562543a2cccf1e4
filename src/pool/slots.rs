//! Which slots of the file are free: granted lowest first, those still warm before all others, and
//! what of the file can be given back. Never touches the file.

use super::extents::Extents;
use crate::slot::{GROUP, Geometry, SlotRun};

#[derive(Debug)]
pub(crate) struct SlotMap {
    geometry: Geometry,
    /// Slots that there may be.
    max: u64,
    /// Slots that there have been since the file was made: all above are fresh.
    high: u64,
    /// Free, and the file still has their pages.
    warm: Extents,
    /// Free, and given back to the file system.
    holes: Extents,
    live: u64,
    /// Slots that are being given back.
    punching: u64,
}

/// A part of the file to give back. No slot in it is granted until
/// [`SlotMap::punched`] has been told of it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Punch {
    /// What the file loses.
    slots: SlotRun,
    /// Groups that lose their trailer page too, for nothing in them is live.
    whole_groups: std::ops::Range<u64>,
    /// Slots that were holes before, taken out of circulation meanwhile.
    were_holes: Vec<SlotRun>,
}

impl SlotMap {
    pub(crate) fn new(geometry: Geometry, max: u64) -> Self {
        Self { geometry, max, high: 0, warm: Extents::default(), holes: Extents::default(), live: 0, punching: 0 }
    }

    /// `want` adjacent slots whose pages the file has already.
    pub(crate) fn grant_warm(&mut self, want: u64) -> Option<SlotRun> {
        let run = self.take_warm(want)?;
        self.live += run.count;
        Some(run)
    }

    /// Whether a slot could be granted.
    pub(crate) fn has_room(&self) -> bool {
        if self.high <= self.max {
            return self.live + self.punching < self.max;
        }
        let below = SlotRun::new(0, self.max);
        self.warm.count_in(below) + self.holes.count_in(below) > 0
    }

    /// Up to `want` adjacent slots; `None` when there is none at all. Fewer than that where the rest would
    /// [lie badly](Geometry::well_placed).
    pub(crate) fn grant(&mut self, want: u64) -> Option<SlotRun> {
        let fresh = self.max.saturating_sub(self.high);
        let run = if let Some(run) = self.take_warm(want) {
            run
        } else if let Some(run) = self.holes.take_lowest(want, self.max) {
            let (run, rest) = self.geometry.well_placed(run);
            self.holes.insert(rest);
            run
        } else if fresh >= want {
            let run = SlotRun::new(self.high, want);
            self.extend(self.geometry.well_placed(run).0.count)
        } else {
            // Fewer than wanted: the most that lies together.
            let warm = self.warm.longest_below(self.max);
            let hole = self.holes.longest_below(self.max);
            let best = warm.into_iter().chain(hole).max_by_key(|run| run.count).filter(|run| run.count >= fresh);
            match best {
                Some(run) => {
                    self.warm.remove(run);
                    self.holes.remove(run);
                    run
                }
                None if fresh > 0 => self.extend(fresh),
                None => return None,
            }
        };
        self.live += run.count;
        Some(run)
    }

    pub(crate) fn free(&mut self, run: SlotRun) {
        self.live -= run.count;
        self.warm.insert(run);
    }

    /// How many slots there may be. Those above a limit that was lowered are granted no more.
    pub(crate) fn set_limit(&mut self, slots: u64) {
        self.max = slots;
    }

    pub(crate) fn limit(&self) -> u64 {
        self.max
    }

    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    pub(crate) fn high(&self) -> u64 {
        self.high
    }

    /// Slots that are free and still occupy the file.
    pub(crate) fn warm(&self) -> u64 {
        self.warm.total()
    }

    /// As many of them lie together at most.
    pub(crate) fn longest_warm(&self) -> u64 {
        self.warm.longest().map_or(0, |run| run.count)
    }

    /// Slots that occupy the file.
    pub(crate) fn occupied(&self) -> u64 {
        self.live + self.warm.total() + self.punching
    }

    pub(crate) fn is_punching(&self) -> bool {
        self.punching > 0
    }

    /// The next part of the file to give back so that at most `retain` slots stay warm: the longest run of them, for each
    /// costs a call. At least `shortest` slots, at most `most`.
    pub(crate) fn next_punch(&mut self, retain: u64, shortest: u64, most: u64) -> Option<Punch> {
        let excess = self.warm.total().checked_sub(retain).filter(|&n| n > 0)?.min(most);
        let run = self.warm.longest()?;
        let count = run.count.min(excess);
        if count < shortest {
            return None;
        }
        let slots = SlotRun::new(run.end() - count, count);
        self.warm.remove(slots);
        self.punching += slots.count;
        let mut were_holes = Vec::new();
        let (first, last) = (slots.first / GROUP, (slots.end() - 1) / GROUP);
        // Groups in between are in `slots` as a whole; those at its ends may have the rest as holes.
        // Slots above `high` cannot be kept from anyone, so a group that has some keeps its page.
        let mut claim = |group: u64| {
            let group = SlotRun::new(group * GROUP, GROUP);
            let ours = slots.end().min(group.end()) - slots.first.max(group.first);
            let whole = ours + self.holes.count_in(group) == GROUP;
            if whole {
                were_holes.extend(self.holes.remove(group));
            }
            whole
        };
        let first_whole = claim(first);
        let last_whole = if first == last { first_whole } else { claim(last) };
        let whole_groups = first + u64::from(!first_whole)..last + u64::from(last_whole);
        Some(Punch { slots, whole_groups, were_holes })
    }

    /// The parts of the file to punch.
    pub(crate) fn ranges(&self, punch: &Punch) -> Vec<(u64, u64)> {
        let pages = self.geometry.trailer_pages(punch.whole_groups.clone());
        self.geometry.payloads(punch.slots).chain(pages).collect()
    }

    /// The punch is done; `gone` says whether the file system took the pages.
    pub(crate) fn punched(&mut self, punch: Punch, gone: bool) {
        self.punching -= punch.slots.count;
        if gone {
            self.holes.insert(punch.slots);
        } else {
            self.warm.insert(punch.slots);
        }
        for run in punch.were_holes {
            self.holes.insert(run);
        }
    }

    fn take_warm(&mut self, want: u64) -> Option<SlotRun> {
        let (run, rest) = self.geometry.well_placed(self.warm.take_lowest(want, self.max)?);
        self.warm.insert(rest);
        Some(run)
    }

    fn extend(&mut self, count: u64) -> SlotRun {
        let run = SlotRun::new(self.high, count);
        self.high += count;
        run
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::slot::TRAILER;

    const BLOCK: usize = 4096;

    fn map(max: u64) -> SlotMap {
        SlotMap::new(Geometry::new(BLOCK), max)
    }

    #[test]
    fn c06_the_lowest_warm_run_is_reused_first() {
        let mut map = map(1000);
        let runs: Vec<_> = (0..5).map(|_| map.grant(10).unwrap()).collect();
        map.free(runs[3]);
        map.free(runs[1]);
        assert_eq!(map.grant(10), Some(runs[1]));
        assert_eq!(map.grant(5), Some(SlotRun::new(30, 5)));
        assert_eq!(map.grant(10), Some(SlotRun::new(50, 10)), "what fits, not what is left of a run");
    }

    #[test]
    fn c06_every_slot_up_to_the_limit_is_granted_however_they_lie() {
        let mut map = map(100);
        while map.grant(7).is_some() {}
        assert_eq!(map.live(), 100);
        for slot in (0..100).step_by(2) {
            map.free(SlotRun::one(slot));
        }
        let mut granted = 0;
        while let Some(run) = map.grant(16) {
            granted += run.count;
        }
        assert_eq!(granted, 50);
    }

    /// What was free above a lowered limit was granted over and over, and what was free below it was not.
    #[test]
    fn c08_below_a_limit_that_is_lowered_all_is_granted_and_nothing_above() {
        for holes in [false, true] {
            let mut map = map(100);
            while map.grant(7).is_some() {}
            for slot in (0..100).filter(|slot| slot % 10 < 6) {
                map.free(SlotRun::one(slot));
            }
            while holes && let Some(punch) = map.next_punch(0, 1, 100) {
                map.punched(punch, true);
            }
            map.set_limit(52);
            let mut granted = Vec::new();
            while let Some(run) = map.grant(4) {
                assert!(map.limit() == 52 && run.end() <= 52, "{run:?}");
                granted.extend(run.first..run.end());
            }
            granted.sort_unstable();
            assert!(granted.into_iter().eq((0..52).filter(|slot| slot % 10 < 6)));
            assert!(!map.has_room());
            map.free(SlotRun::one(77));
            assert!(!map.has_room());
            map.free(SlotRun::one(51));
            assert!(map.has_room() && map.grant_warm(1) == Some(SlotRun::one(51)));
            map.set_limit(100);
            assert_eq!(map.grant(6), Some(SlotRun::new(60, 6)));
        }
    }

    #[test]
    fn c06_a_drained_file_is_given_back_with_its_trailers() {
        let mut map = map(10_000);
        for _ in 0..200 {
            let _ = map.grant(25);
        }
        map.free(SlotRun::new(0, 5000));
        let geometry = Geometry::new(BLOCK);
        let mut given_back = BTreeSet::new();
        while let Some(punch) = map.next_punch(0, 1, 96) {
            for (at, len) in map.ranges(&punch) {
                given_back.extend((at / 4096..(at + len).div_ceil(4096)).collect::<Vec<_>>());
            }
            map.punched(punch, true);
        }
        let places = geometry.payloads(SlotRun::new(0, 5000)).chain(geometry.trailer_pages(0..5000 / GROUP));
        for (at, len) in places {
            assert!((at / 4096..(at + len) / 4096).all(|page| given_back.contains(&page)), "{len} bytes at {at}");
        }
        assert_eq!((map.warm(), map.live()), (0, 0));
    }

    #[test]
    fn batches_begin_where_the_page_cache_can_hold_each_in_one_piece() {
        let places = |block: usize, want: u64, count: usize| {
            let mut map = SlotMap::new(Geometry::new(block), 1000);
            let runs: Vec<_> = (0..count).map(|_| map.grant(want).unwrap()).collect();
            assert!(runs.windows(2).all(|two| two[0].end() == two[1].first), "a slot was left out: {runs:?}");
            (map, runs)
        };
        let (mut map, runs) = places(64 << 10, 4, 8);
        let geometry = Geometry::new(64 << 10);
        assert_eq!(runs[0], SlotRun::new(0, 3), "up to a multiple of what was asked for");
        assert!(runs[1..].iter().all(|run| run.count == 4 && geometry.payload(run.first).is_multiple_of(256 << 10)));
        // Where they are granted again, warm or given back, they lie as well.
        map.free(SlotRun::new(0, 31));
        assert_eq!([map.grant(4), map.grant(4)], [Some(runs[0]), Some(runs[1])]);
        map.free(SlotRun::new(0, 7));
        assert_eq!([map.grant_warm(4), map.grant_warm(4)], [Some(runs[0]), Some(runs[1])]);
        map.free(SlotRun::new(0, 7));
        while let Some(punch) = map.next_punch(0, 1, 1000) {
            map.punched(punch, true);
        }
        assert_eq!([map.grant(4), map.grant(4)], [Some(runs[0]), Some(runs[1])]);
        let (_, runs) = places(32 << 10, 4, 3);
        assert_eq!(runs.iter().map(|run| run.count).collect::<Vec<_>>(), [2, 4, 4]);
        // No power of two: every other one lies well, and the ones between are not cut to pieces.
        let (_, runs) = places(64 << 10, 12, 5);
        assert_eq!(runs.iter().map(|run| run.count).collect::<Vec<_>>(), [7, 12, 4, 12, 4]);
        // What is short lies in small pieces anyway.
        let (_, runs) = places(16 << 10, 4, 3);
        assert!(runs.iter().all(|run| run.count == 4));
    }

    #[test]
    fn c06_slots_that_lie_badly_are_granted_all_the_same() {
        let mut map = SlotMap::new(Geometry::new(64 << 10), 5);
        let counts: Vec<_> = std::iter::from_fn(|| map.grant(4)).map(|run| run.count).collect();
        assert_eq!(counts, [3, 2]);
    }

    proptest! {
        #[test]
        fn c06_nothing_live_is_ever_punched(ops in prop::collection::vec((0u8..5, 1u64..200, any::<bool>()), 1..120)) {
            let geometry = Geometry::new(BLOCK);
            let mut map = map(1500);
            let mut live: Vec<SlotRun> = Vec::new();
            let mut punch: Option<Punch> = None;
            for (op, n, yes) in ops {
                match op {
                    0 | 1 => if let Some(run) = map.grant(n) {
                        prop_assert!(run.end() <= map.limit());
                        let apart = |other: &SlotRun| run.end() <= other.first || other.end() <= run.first;
                        prop_assert!(live.iter().all(apart), "granted twice");
                        live.push(run);
                    },
                    4 => map.set_limit(if yes { 1500 } else { n * 7 }),
                    2 if !live.is_empty() => map.free(live.swap_remove(n as usize % live.len())),
                    _ => match punch.take() {
                        Some(punch) => map.punched(punch, yes),
                        None => punch = map.next_punch(n / 10, 1, n),
                    },
                }
                for (at, len) in punch.iter().flat_map(|punch| map.ranges(punch)) {
                    for slot in live.iter().flat_map(|run| run.first..run.end()) {
                        for (place, size) in [(geometry.payload(slot), BLOCK), (geometry.trailer(slot), TRAILER)] {
                            prop_assert!(place + size as u64 <= at || at + len <= place, "slot {slot} is punched");
                        }
                    }
                }
                let count: u64 = live.iter().map(|run| run.count).sum();
                prop_assert_eq!(count, map.live());
            }
        }
    }
}
