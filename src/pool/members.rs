//! The buffers of a pool: who waits for memory, in which order, and whom to ask for some.
//! Never calls them while it is locked.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicUsize, atomic::Ordering::SeqCst},
};

use super::budget::Budget;
use crate::{lender::Purpose, stats::SpillStats};

/// A buffer, as its pool sees it.
pub(crate) trait Member: Send + Sync {
    /// Memory may be had again.
    fn memory_came(&self);
    /// It is this one's turn for slots; says whether it wants any.
    fn slots_came(&self) -> bool;
    /// Gives up memory if its reader stands still; says whether there will be any.
    fn squeeze(&self) -> bool;
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
    readers: VecDeque<Weak<dyn Member>>,
    handing_over: VecDeque<Weak<dyn Member>>,
    writers: VecDeque<Weak<dyn Member>>,
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

    pub(crate) fn wait(&self, member: Weak<dyn Member>, purpose: Purpose) {
        let mut state = self.lock();
        state.queue(purpose).push_back(member);
        self.waiting.fetch_add(1, SeqCst);
    }

    /// Those who can be served now, readers first, each in the order of waiting.
    pub(crate) fn served(&self, budget: &Budget) -> Vec<Arc<dyn Member>> {
        let mut served = Vec::new();
        let mut gone = Vec::new();
        let mut state = self.lock();
        for purpose in [Purpose::Read, Purpose::HandOver, Purpose::Write] {
            let mut blocks = budget.available(purpose).saturating_sub(served.len());
            while blocks > 0
                && let Some(member) = state.queue(purpose).pop_front()
            {
                self.waiting.fetch_sub(1, SeqCst);
                match member.upgrade() {
                    Some(member) => {
                        served.push(member);
                        blocks -= 1;
                    }
                    None => gone.push(member),
                }
            }
        }
        drop(state);
        drop(gone);
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
    fn queue(&mut self, purpose: Purpose) -> &mut VecDeque<Weak<dyn Member>> {
        match purpose {
            Purpose::Read => &mut self.readers,
            Purpose::HandOver => &mut self.handing_over,
            Purpose::Write => &mut self.writers,
        }
    }
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}
