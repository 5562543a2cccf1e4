//! Reads ahead of a reader that is at the disk: an I/O thread reads and checks some slots while the reader does it for those
//! before them.
//!
//! What is ready are copies of what the file holds, beside the ledger. So nothing depends on them: what is not there, or could not
//! be read, the reader reads itself, and meets the error itself. They lie in memory that the buffer has set aside, once its writer
//! wants none any more; where opening a slot takes longer than reading it, for it is encrypted, in memory that is no buffer's, and
//! beside a writer too.

use std::{collections::VecDeque, mem, time::Duration};

use super::{
    Shared, State,
    driver::{TURN, guarded},
};
use crate::{
    block::{Block, Reuse},
    clock,
    storage::{Progress, ReadFault, SpillFile, TrailersAhead, Wanted},
    sync::{Arc, MutexGuard, Weak},
    threads::{Lane, ReadAhead, Work},
};

/// Blocks that a reader may have ready, those in its own hands and the thread's among them.
pub(super) const BLOCKS: usize = 4;

/// With fewer blocks of a buffer's own the thread would be asleep most of the time.
const LEAST: usize = 3;

/// So many slots the reader reads itself before it gets to what the thread begins: each time that it catches up, so that it
/// need not wait and the thread does not work in vain.
pub(super) const DISTANCE: u64 = 4;

/// A reader that has not come for what is ready for so long loses it, if another one wants to be read ahead of.
const PATIENCE: Duration = Duration::from_millis(10);

/// Slots after which one asks again for whom there was no room.
const ASK_AGAIN: u64 = 64;

/// What was read ahead of one reader.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    /// In the stream's order, each with the offset of its first byte.
    ready: VecDeque<(u64, Block)>,
    free: Vec<Block>,
    /// How many blocks there are, wherever they are, and may be.
    blocks: usize,
    most: usize,
    /// All slots before this offset were begun, or left to the reader.
    next: u64,
    trailers: TrailersAhead,
    /// When the reader last came for something.
    asked_at: u64,
    /// There was no room for it. From this offset on the reader asks again.
    ask_again: Option<u64>,
}

#[cfg(test)]
impl Prefetch {
    pub(super) fn ready_blocks(&self) -> usize {
        assert!(self.ready.iter().is_sorted_by_key(|(at, _)| *at));
        assert!(self.blocks <= self.most && self.ready.len() + self.free.len() <= self.blocks);
        self.ready.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.ask_again.is_none()
    }

    pub(super) fn ready_from(&self) -> Option<u64> {
        self.ready.front().map(|(at, _)| *at)
    }

    pub(super) fn asked(&mut self, at: u64) {
        self.asked_at = at;
    }
}

/// What a reader finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The slot that it wants next.
    block: Option<Block>,
    /// Another thread is to go on.
    call: Call,
}

#[derive(Debug, Default)]
enum Call {
    #[default]
    None,
    /// If there is room for one more.
    Begin,
    GoOn,
}

/// What a thread does for one reader.
struct Prefetcher(Arc<Shared>);

impl Work for Prefetcher {
    fn work(self: Arc<Self>, lane: &Lane) -> bool {
        for _ in 0..TURN {
            if !self.0.prefetch_next() {
                return false;
            }
            // Somebody may wait for what they do.
            if lane.is_busy() {
                break;
            }
        }
        true
    }
}

impl ReadAhead for Shared {
    fn keeps_up(&self) -> bool {
        let mut state = self.raw_lock();
        let Some(prefetch) = &state.prefetch else { return false };
        if u128::from(clock::now().saturating_sub(prefetch.asked_at)) < PATIENCE.as_nanos() {
            return true;
        }
        // Who waits for this memory looks again before long; nobody can be told here.
        let gone = state.end_prefetch();
        drop(state);
        drop(gone);
        false
    }
}

impl State {
    /// How many slots the reader may read at once from the disk, where it is: one that is ready, or those before the next that is
    /// or may be by then.
    pub(super) fn most_slots(&self, block: usize) -> usize {
        let prefetch = self.prefetch.as_ref().filter(|prefetch| prefetch.ask_again.is_none());
        let (Some(prefetch), Some(index)) = (prefetch, self.core.disk_from()) else { return usize::MAX };
        // Each may be shorter than a block.
        let next = prefetch.ready.iter().map(|(at, _)| *at).find(|at| *at >= index);
        next.map_or(DISTANCE, |at| (at - index) / block as u64).clamp(1, DISTANCE) as usize
    }

    /// What is ready of the slot at `index`, where the reader is.
    fn prefetched(&mut self, index: u64, block: u64, own: bool) -> Found {
        let mut found = Found::default();
        let mut from = index + DISTANCE * block;
        match self.prefetch.as_deref_mut() {
            None => found.call = Call::Begin,
            Some(Prefetch { ask_again: Some(at), .. }) => {
                if index >= *at {
                    found.call = Call::Begin;
                }
            }
            Some(prefetch) => {
                prefetch.asked_at = clock::now();
                while prefetch.ready.front().is_some_and(|(at, _)| *at < index) {
                    prefetch.free.extend(prefetch.ready.pop_front().map(|(_, block)| block));
                }
                if prefetch.ready.front().is_some_and(|(at, _)| *at == index) {
                    found.block = prefetch.ready.pop_front().map(|(_, block)| block);
                }
                if prefetch.ready.len() <= prefetch.most / 2 {
                    found.call = Call::GoOn;
                }
                from = from.max(prefetch.next);
            }
        }
        if self.prefetching || self.core.slot_from(from).is_none() {
            found.call = Call::None;
        }
        if matches!(found.call, Call::Begin) {
            let most = if own { self.take_spare() } else { BLOCKS };
            if most == 0 {
                found.call = Call::None;
            } else {
                self.prefetch = Some(Box::new(Prefetch { asked_at: clock::now(), most, ..Prefetch::default() }));
            }
        }
        self.prefetching |= !matches!(found.call, Call::None);
        self.found = found.block.is_some();
        found
    }

    /// The reader has what it wanted.
    pub(super) fn end_prefetched(&mut self, found: Found) {
        self.found = false;
        if let Some(prefetch) = &mut self.prefetch {
            prefetch.free.extend(found.block);
        } else if self.spare > 0 {
            drop(found);
            self.return_spare();
        }
    }

    /// Gives up what is kept where nothing is left on disk, or others need its memory. Kept apart, for most streams have none.
    #[cold]
    #[inline(never)]
    pub(super) fn end_prefetch_if_drained(&mut self) {
        if self.core.slot_from(0).is_none() || (self.spare > 0 && self.core.is_squeezed()) {
            drop(self.end_prefetch());
        }
    }

    fn end_prefetch(&mut self) -> Option<Box<Prefetch>> {
        let gone = self.prefetch.take();
        self.return_spare();
        gone
    }

    /// Sets memory aside for what is read ahead. For a block or two no thread is called.
    fn take_spare(&mut self) -> usize {
        self.spare = self.core.take_spare(BLOCKS);
        if self.spare < LEAST {
            self.core.return_spare(mem::take(&mut self.spare));
        }
        self.spare
    }

    /// What was set aside is free again, but for what the reader has in hands, and the thread, or is about to take.
    fn return_spare(&mut self) {
        let stays = self.spare.min(usize::from(self.prefetching) + usize::from(self.found));
        self.core.return_spare(self.spare - stays);
        self.spare = stays;
    }
}

impl Found {
    /// Reads the first of `slots` from what was found, else all of them if the page cache has them.
    pub(super) fn read_cached(
        &self,
        file: &SpillFile,
        wanted: Wanted,
        trailers: &mut TrailersAhead,
        slots: &mut [&mut [u8]],
    ) -> Option<Progress<ReadFault>> {
        if let (Some(block), Some(slot)) = (&self.block, slots.first_mut())
            && block.len() == slot.len()
        {
            slot.copy_from_slice(block.filled());
            if wanted.behind == 0 && wanted.run.count == 1 {
                *trailers = TrailersAhead::default();
            }
            return Some(Progress { done: 1, fault: None });
        }
        file.read_cached(wanted, trailers, slots)
    }
}

impl Shared {
    /// What is ready of the slot at `index`, where the reader is. [`prefetch`](Self::prefetch) must follow. A reader that takes
    /// blocks away needs all memory for these.
    pub(super) fn found(&self, state: &mut State, index: u64, copies: bool) -> Found {
        let limits = self.pool.limits();
        if limits.assisted {
            state.prefetched(index, limits.block as u64, false)
        } else if copies && (state.prefetch.is_some() || state.core.has_spare()) {
            state.prefetched(index, limits.block as u64, true)
        } else {
            if state.prefetch.is_some() {
                drop(state.end_prefetch());
            }
            Found::default()
        }
    }

    /// Has a thread read ahead, where that is wanted. Without any lock.
    pub(super) fn prefetch(self: &Arc<Self>, found: &Found) {
        let go = match found.call {
            Call::None => return,
            Call::GoOn => true,
            Call::Begin => {
                let me: Weak<Self> = Arc::downgrade(self);
                self.pool.may_read_ahead(me)
            }
        };
        if go && self.pool.submit(Arc::new(Prefetcher(Arc::clone(self)))).is_ok() {
            return;
        }
        let mut state = self.raw_lock();
        state.prefetching = false;
        let ask_again = Some(state.core.read_to() + ASK_AGAIN * self.pool.limits().block as u64);
        let refused = Prefetch { ask_again, ..Prefetch::default() };
        let gone = state.prefetch.as_mut().map(|prefetch| mem::replace(&mut **prefetch, refused));
        state.return_spare();
        drop(state);
        drop(gone);
    }

    /// Reads one slot ahead, and says whether to go on.
    fn prefetch_next(self: &Arc<Self>) -> bool {
        let Some((wanted, len, memory, mut trailers)) = self.next_to_prefetch() else { return false };
        let limits = self.pool.limits();
        let mut memory = memory.unwrap_or_else(|| {
            let memory = Block::allocate(limits.block, Reuse::Oldest);
            if limits.encrypt { memory.secret() } else { memory }
        });
        memory.receive(len);
        let good = self.pool.file().is_some_and(|file| {
            let progress = guarded(|| file.read(wanted, &mut trailers, &mut [memory.filled_mut()]));
            progress.is_ok_and(|progress| progress.fault.is_none())
        });
        let mut state = self.raw_lock();
        let Some(prefetch) = &mut state.prefetch else {
            // Nobody wants it any more.
            drop(memory);
            state.prefetching = false;
            self.end_thread(state);
            return false;
        };
        prefetch.trailers = trailers;
        if good {
            prefetch.ready.push_back((wanted.index, memory));
        } else {
            prefetch.free.push(memory);
        }
        state.prefetching = good;
        good
    }

    /// The next slot to be read ahead with its length in bytes, the memory for it if there is some already, and what was read of
    /// trailers; `None` if enough is ready, or nothing is there.
    fn next_to_prefetch(&self) -> Option<(Wanted, usize, Option<Block>, TrailersAhead)> {
        let mut guard = self.raw_lock();
        let state = &mut *guard;
        let distance = DISTANCE * self.pool.limits().block as u64;
        let next = state.prefetch.as_mut().and_then(|prefetch| {
            if prefetch.free.is_empty() && prefetch.blocks >= prefetch.most {
                return None;
            }
            let (index, run, len, behind) = state.core.slot_from(prefetch.next.max(state.core.read_to() + distance))?;
            prefetch.next = index + len as u64;
            let memory = prefetch.free.pop();
            prefetch.blocks += usize::from(memory.is_none());
            let wanted = Wanted { stream: self.stream, index, run, behind };
            Some((wanted, len, memory, mem::take(&mut prefetch.trailers)))
        });
        state.prefetching = next.is_some();
        if next.is_none() {
            self.end_thread(guard);
        }
        next
    }

    /// The thread has nothing in hands any more. Where nobody wants what it had, all that was set aside is free.
    fn end_thread(&self, mut state: MutexGuard<'_, State>) {
        let ended = state.spare > 0 && state.prefetch.is_none();
        if ended {
            state.return_spare();
        }
        drop(state);
        if ended && self.pool.somebody_waits() {
            self.pool.memory_came();
        }
    }
}
