//! A set of slot numbers, kept as runs. Never holds two runs that touch.

use std::collections::{BTreeMap, BTreeSet};

use crate::slot::SlotRun;

#[derive(Debug, Default)]
pub(crate) struct Extents {
    /// First slot to number of slots.
    runs: BTreeMap<u64, u64>,
    /// The same as number of slots and first slot.
    by_length: BTreeSet<(u64, u64)>,
    total: u64,
}

impl Extents {
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn insert(&mut self, run: SlotRun) {
        if run.count == 0 {
            return;
        }
        self.total += run.count;
        let SlotRun { mut first, mut count } = run;
        if let Some((&before, &len)) = self.runs.range(..first).next_back() {
            debug_assert!(before + len <= first, "slot {first} is in the set already");
            if before + len == first {
                self.take_run(before);
                first = before;
                count += len;
            }
        }
        if let Some(len) = self.take_run(run.end()) {
            count += len;
        }
        self.put_run(first, count);
    }

    /// Takes `count` slots from the lowest run that has as many below `end`.
    pub(crate) fn take_lowest(&mut self, count: u64, end: u64) -> Option<SlotRun> {
        self.longest().filter(|longest| longest.count >= count)?;
        let (&first, _) = self.runs.range(..end).find(|&(_, &len)| len >= count)?;
        let run = SlotRun::new(first, count);
        if run.end() > end {
            return None;
        }
        self.remove(run);
        Some(run)
    }

    /// The longest run; of several the one with the highest numbers.
    pub(crate) fn longest(&self) -> Option<SlotRun> {
        self.by_length.last().map(|&(count, first)| SlotRun::new(first, count))
    }

    /// The longest of what there is below `end`, likewise.
    pub(crate) fn longest_below(&self, end: u64) -> Option<SlotRun> {
        let longest = self.longest()?;
        if longest.end() <= end {
            return Some(longest);
        }
        let below = self.runs.range(..end).map(|(&first, &count)| SlotRun::new(first, count.min(end - first)));
        below.max_by_key(|run| run.count)
    }

    /// Takes out those slots of `range` that are in the set, and hands them out as runs.
    pub(crate) fn remove(&mut self, range: SlotRun) -> Vec<SlotRun> {
        let from = self.runs.range(..=range.first).next_back().map_or(range.first, |(&first, _)| first);
        let overlapping: Vec<_> = self
            .runs
            .range(from..range.end())
            .map(|(&first, &count)| SlotRun::new(first, count))
            .filter(|run| run.end() > range.first)
            .collect();
        let mut taken = Vec::with_capacity(overlapping.len());
        for run in overlapping {
            self.take_run(run.first);
            let (first, end) = (run.first.max(range.first), run.end().min(range.end()));
            if run.first < first {
                self.put_run(run.first, first - run.first);
            }
            if end < run.end() {
                self.put_run(end, run.end() - end);
            }
            self.total -= end - first;
            taken.push(SlotRun::new(first, end - first));
        }
        taken
    }

    /// How many slots of `range` are in the set.
    pub(crate) fn count_in(&self, range: SlotRun) -> u64 {
        let from = self.runs.range(..=range.first).next_back().map_or(range.first, |(&first, _)| first);
        self.runs
            .range(from..range.end())
            .map(|(&first, &count)| (first + count).min(range.end()).saturating_sub(first.max(range.first)))
            .sum()
    }

    fn put_run(&mut self, first: u64, count: u64) {
        self.runs.insert(first, count);
        self.by_length.insert((count, first));
    }

    fn take_run(&mut self, first: u64) -> Option<u64> {
        let count = self.runs.remove(&first)?;
        self.by_length.remove(&(count, first));
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(ops in prop::collection::vec((0u64..60, 1u64..12, 0u8..3), 0..80)) {
            let (mut extents, mut model) = (Extents::default(), BTreeSet::new());
            for (first, count, op) in ops {
                let run = SlotRun::new(first, count);
                let inside = (first..run.end()).filter(|slot| model.contains(slot)).count() as u64;
                prop_assert_eq!(extents.count_in(run), inside);
                match op {
                    0 if inside == 0 => {
                        extents.insert(run);
                        model.extend(first..run.end());
                    }
                    1 => {
                        let taken: u64 = extents.remove(run).iter().map(|run| run.count).sum();
                        prop_assert_eq!(taken, inside);
                        model.retain(|slot| !(first..run.end()).contains(slot));
                    }
                    _ => {
                        let runs = (0..first).filter(|&from| (from..from + count).all(|slot| model.contains(&slot)));
                        let lowest = runs.clone().find(|from| from + count <= first);
                        let taken = extents.take_lowest(count, first);
                        prop_assert_eq!(taken, lowest.map(|from| SlotRun::new(from, count)));
                        for slot in taken.into_iter().flat_map(|taken| taken.first..taken.end()) {
                            prop_assert!(model.remove(&slot));
                        }
                    }
                }
                let longest = (0..first).map(|from| (from..first).take_while(|slot| model.contains(slot)).count()).max();
                let below = extents.longest_below(first);
                prop_assert_eq!(below.map_or(0, |run| run.count), longest.unwrap_or(0) as u64);
                prop_assert!(below.is_none_or(|run| run.end() <= first && extents.count_in(run) == run.count));
                prop_assert_eq!(extents.total(), model.len() as u64);
                prop_assert_eq!(extents.longest().map(|run| run.count), extents.runs.values().copied().max());
                prop_assert_eq!(extents.by_length.len(), extents.runs.len());
                let runs: Vec<_> = extents.runs.iter().collect();
                prop_assert!(runs.windows(2).all(|two| two[0].0 + two[0].1 < *two[1].0));
            }
        }
    }
}
