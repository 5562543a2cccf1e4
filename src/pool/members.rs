//! The buffers of a pool: who waits for memory, in which order, and whom to ask for some.
//! Never calls them while it is locked.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::budget::Budget;
use crate::{
    lender::Purpose,
    stats::SpillStats,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicUsize, atomic::Ordering::SeqCst},
};

/// A buffer, as its pool sees it.
pub(crate) trait Member: Send + Sync {
    /// Memory may be had again.
    fn memory_came(self: Arc<Self>);
    /// It is this one's turn for slots; says whether it wants any.
    fn slots_came(self: Arc<Self>) -> bool;
    /// Gives up memory if its reader stands still; says whether there will be any.
    fn squeeze(self: Arc<Self>) -> bool;
    fn stats(&self) -> SpillStats;
}

#[derive(Default)]
pub(crate) struct Members {
    state: Mutex<State>,
    waiting: AtomicUsize,
}

#[derive(Default)]
struct State {
    all: BTreeMap<u64, Weak<dyn Member>>,
    /// Who was asked last for memory.
    asked: u64,
    /// Who waits for memory, a row for each purpose; and in which row each is.
    rows: [VecDeque<u64>; Purpose::ALL.len()],
    waits: HashMap<u64, Purpose>,
    /// What those did that are gone.
    past: Totals,
}

/// What adds up over a pool's life.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) spilled: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, stats: &SpillStats) {
        self.written += stats.written;
        self.read += stats.read;
        self.spilled += stats.spilled;
    }
}

impl Members {
    pub(crate) fn join(&self, id: u64, member: Weak<dyn Member>) {
        self.lock().all.insert(id, member);
    }

    pub(crate) fn leave(&self, id: u64, stats: &SpillStats) {
        let mut members = self.lock();
        members.past.add(stats);
        let gone = members.all.remove(&id);
        members.forget(id);
        self.waiting.store(members.waits.len(), SeqCst);
        drop(members);
        drop(gone);
    }

    /// All of them, and what those did that are gone.
    pub(crate) fn all(&self) -> (Vec<Arc<dyn Member>>, Totals) {
        let state = self.lock();
        (state.all.values().filter_map(Weak::upgrade).collect(), state.past)
    }

    pub(crate) fn somebody_waits(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// A member waits until it is served. One that waits already for something that comes later is moved up.
    pub(crate) fn wait(&self, id: u64, purpose: Purpose) {
        let mut state = self.lock();
        if state.waits.get(&id).is_some_and(|row| *row <= purpose) || !state.all.contains_key(&id) {
            return;
        }
        state.forget(id);
        state.rows[purpose as usize].push_back(id);
        state.waits.insert(id, purpose);
        self.waiting.store(state.waits.len(), SeqCst);
    }

    /// Those who can be served now, readers first, each in the order of waiting.
    pub(crate) fn served(&self, budget: &Budget) -> Vec<Arc<dyn Member>> {
        let mut served = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        for purpose in Purpose::ALL {
            let mut blocks = budget.available(purpose).saturating_sub(served.len());
            while blocks > 0
                && let Some(id) = state.rows[purpose as usize].pop_front()
            {
                state.waits.remove(&id);
                // One that is on its way out needs none.
                if let Some(member) = state.all.get(&id).and_then(Weak::upgrade) {
                    served.push(member);
                    blocks -= 1;
                }
            }
        }
        self.waiting.store(state.waits.len(), SeqCst);
        drop(guard);
        served
    }

    /// The next ones to ask for memory, each in its turn.
    pub(crate) fn to_ask(&self, most: usize) -> Vec<Arc<dyn Member>> {
        let mut state = self.lock();
        let after = state.asked + 1;
        let turn: Vec<u64> =
            state.all.range(after..).chain(state.all.range(..after)).map(|(&id, _)| id).take(most).collect();
        state.asked = turn.last().copied().unwrap_or(0);
        turn.iter().filter_map(|id| state.all.get(id)?.upgrade()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, id: u64) {
        if let Some(purpose) = self.waits.remove(&id) {
            self.rows[purpose as usize].retain(|waiting| *waiting != id);
        }
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lender::Lender;

    struct One;

    impl Member for One {
        fn memory_came(self: Arc<Self>) {}

        fn slots_came(self: Arc<Self>) -> bool {
            false
        }

        fn squeeze(self: Arc<Self>) -> bool {
            false
        }

        fn stats(&self) -> SpillStats {
            SpillStats::default()
        }
    }

    const BLOCK: usize = 16 << 10;

    /// A pool of sixteen blocks, of which stalled writers hold all that they may.
    fn full_of_writers(members: &Members, ids: std::ops::Range<u64>) -> (Budget, Vec<Arc<dyn Member>>) {
        let budget = Budget::new(16 * BLOCK, BLOCK);
        while budget.take(BLOCK, Purpose::Write) {}
        let all: Vec<_> = ids.clone().map(|_| Arc::new(One) as Arc<dyn Member>).collect();
        for (id, member) in ids.zip(&all) {
            members.join(id, Arc::downgrade(member));
        }
        (budget, all)
    }

    fn is(one: &Arc<dyn Member>, other: &Arc<dyn Member>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
    }

    /// A writer that waited like all others, and whose reader then caught up, was not told of the memory that is kept for
    /// such: it went on waiting for those who stood still.
    #[test]
    fn c04_one_whose_reader_has_caught_up_waits_no_longer_for_those_who_stand_still() {
        let members = Members::default();
        let (budget, all) = full_of_writers(&members, 0..3);
        for id in 0..3 {
            members.wait(id, Purpose::Write);
        }
        assert!(members.served(&budget).is_empty() && members.somebody_waits());
        members.wait(1, Purpose::HandOver);
        let served = members.served(&budget);
        assert!(served.len() == 1 && is(&served[0], &all[1]));
        members.wait(2, Purpose::Read);
        members.wait(2, Purpose::Write);
        let served = members.served(&budget);
        assert!(served.len() == 1 && is(&served[0], &all[2]), "it waits for the better one of the two");
        budget.give(BLOCK);
        let served = members.served(&budget);
        assert!(served.len() == 1 && is(&served[0], &all[0]));
        assert!(!members.somebody_waits());
    }

    #[test]
    fn c12_one_that_is_gone_waits_for_nothing() {
        let members = Members::default();
        let (_budget, all) = full_of_writers(&members, 0..2);
        members.wait(0, Purpose::Write);
        members.wait(0, Purpose::Write);
        drop(all);
        members.leave(0, &SpillStats::default());
        members.wait(0, Purpose::Read);
        assert!(!members.somebody_waits());
    }
}
