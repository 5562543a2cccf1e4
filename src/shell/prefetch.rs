//! Reads ahead of a reader that is at the disk: reader and I/O thread take [`Turns`], each reads and checks the slots of its own,
//! and the thread is a turn before the reader. Whose a slot is follows from its place in the stream, so the two meet only where the
//! thread is late.
//!
//! What is ready are copies of what the file holds, beside the ledger. So nothing depends on them: what is not there, or could not
//! be read, the reader reads itself, and meets the error itself. They lie in memory that the buffer has set aside, once its writer
//! wants none any more; where opening a slot takes longer than reading it, for it is encrypted, in memory that is no buffer's, and
//! beside a writer too.

use std::{collections::VecDeque, mem, time::Duration};

use super::{
    Shared, State,
    driver::{TURN, guarded, payloads},
};
use crate::{
    block::{Block, Reuse},
    clock,
    storage::{Progress, ReadFault, SpillFile, TrailersAhead, Wanted},
    sync::{Arc, MutexGuard, Weak},
    threads::{Lane, ReadAhead, Work},
};

/// Blocks that a reader may have ready, those in its own hands and the thread's among them: one turn is ready while the thread has
/// the next one in hands. A turn's slots are read with one call; one for each takes a third longer.
pub(super) const BLOCKS: usize = 8;

/// With fewer the thread would be asleep most of the time.
const LEAST: usize = 4;

/// As many in memory that is no buffer's: most of the time goes to opening the slots, and a call for each costs little.
pub(super) const BESIDE: usize = 4;

/// How long the thread waits at most for the reader to have taken what is ready, before it goes.
const LINGER: Duration = Duration::from_micros(50);

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
    turns: Turns,
    /// How many blocks there are, wherever they are.
    blocks: usize,
    /// All slots before this offset were begun, or left to the reader.
    next: u64,
    trailers: TrailersAhead,
    /// When the reader last came for something.
    asked_at: u64,
    /// There was no room for it. From this offset on the reader asks again.
    ask_again: Option<u64>,
}

/// Which slots of a stream the thread reads: every second turn. Whose a slot is follows from its place in the stream.
#[derive(Debug, Default, Clone, Copy)]
struct Turns {
    /// In slots.
    len: u64,
    /// In bytes.
    block: u64,
}

impl Turns {
    /// Slots from here to the end of the turn, whosever it is.
    fn left(self, at: u64) -> u64 {
        self.len - at / self.block % self.len
    }

    /// Where the thread is to begin, at `at` or behind it.
    fn of_the_thread(self, at: u64) -> u64 {
        let slot = at / self.block;
        if slot / self.len % 2 == 1 { at } else { (slot + self.left(at)) * self.block }
    }

    /// As many blocks as it takes.
    fn blocks(self) -> usize {
        2 * self.len as usize
    }
}

#[cfg(test)]
impl Prefetch {
    pub(super) fn ready_blocks(&self) -> usize {
        assert!(self.ready.iter().is_sorted_by_key(|(at, _)| *at));
        assert!(self.blocks <= self.turns.blocks() && self.ready.len() + self.free.len() <= self.blocks);
        self.ready.len()
    }

    pub(super) fn has_room(&self) -> bool {
        self.ask_again.is_none()
    }

    /// There is no memory for one more of the thread's turns.
    pub(super) fn has_all_it_may(&self) -> bool {
        self.ready_blocks() > self.turns.len as usize
    }

    pub(super) fn ready_at(&self) -> Vec<u64> {
        self.ready.iter().map(|(at, _)| *at).collect()
    }

    pub(super) fn asked(&mut self, at: u64) {
        self.asked_at = at;
    }
}

impl Prefetch {
    /// What is ready of the slots at `index`, as far as they lie one behind the other.
    fn ready_from(&self, index: u64) -> impl Iterator<Item = &Block> {
        let ready = self.ready.iter().skip_while(move |(at, _)| *at < index);
        ready.scan(index, |next, (at, block)| {
            let is_next = *at == *next;
            *next += block.len() as u64;
            is_next.then_some(block)
        })
    }

    /// Where the thread goes on, for a reader that is at `index`: so far from it that the two do the same of their turns meanwhile.
    fn next_from(&self, index: u64) -> u64 {
        self.turns.of_the_thread(self.next.max(index + self.turns.len * self.turns.block))
    }
}

/// What a reader finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The slots that it wants next, or the first of them.
    blocks: Vec<Block>,
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
        let mut waited = false;
        for _ in 0..TURN {
            match self.0.prefetch_next(!waited && !lane.is_busy()) {
                Next::Done => waited = false,
                Next::NoMemory => {
                    // It may have been rung for what was taken before this wait: only who was not called at all goes.
                    waited = !self.0.ahead.wait(LINGER);
                }
                Next::Nothing => return false,
            }
            // Somebody may wait for what they do.
            if lane.is_busy() {
                break;
            }
        }
        true
    }
}

enum Next {
    Done,
    /// Not until the reader has taken what is ready.
    NoMemory,
    Nothing,
}

/// Slots to be read ahead.
struct Job {
    wanted: Wanted,
    /// In bytes.
    len: usize,
    /// The memory for them, as far as there is some already.
    blocks: Vec<Block>,
    trailers: TrailersAhead,
}

impl ReadAhead for Shared {
    fn keeps_up(&self) -> bool {
        let mut state = self.raw_lock();
        let Some(prefetch) = &state.prefetch else { return false };
        if u128::from(clock::now().saturating_sub(prefetch.asked_at)) < PATIENCE.as_nanos() {
            return true;
        }
        // Who waits for this memory looks again before long; nobody can be told here.
        state.end_prefetch();
        false
    }
}

impl State {
    /// How many slots the reader may read at once from the disk, where it is: those that are ready, or those of this turn that are
    /// not.
    pub(super) fn most_slots(&self, block: usize) -> usize {
        let prefetch = self.prefetch.as_ref().filter(|prefetch| prefetch.ask_again.is_none());
        let (Some(prefetch), Some(index)) = (prefetch, self.core.disk_from()) else { return usize::MAX };
        let left = prefetch.turns.left(index) as usize;
        match prefetch.ready.iter().find(|(at, _)| *at >= index) {
            Some((at, _)) if *at == index => prefetch.ready_from(index).count(),
            // Each may be shorter than a block.
            Some((at, _)) => ((at - index) as usize / block).clamp(1, left),
            None => left,
        }
    }

    /// What is ready of the `count` slots at `index`, where the reader is.
    fn prefetched(&mut self, index: u64, count: usize, block: usize, own: bool) -> Found {
        let mut found = Found::default();
        let mut from = index + (BLOCKS / 2 * block) as u64;
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
                let ready = prefetch.ready_from(index).take(count).count();
                found.blocks.extend(prefetch.ready.drain(..ready).map(|(_, block)| block));
                if prefetch.ready.len() <= prefetch.turns.len as usize {
                    found.call = Call::GoOn;
                }
                from = prefetch.next_from(index);
            }
        }
        if self.prefetching || self.core.slots_from(from, 1).is_none() {
            found.call = Call::None;
        }
        if matches!(found.call, Call::Begin) {
            let blocks = if own { self.take_spare() } else { BESIDE };
            if blocks == 0 {
                found.call = Call::None;
            } else {
                let turns = Turns { len: blocks as u64 / 2, block: block as u64 };
                self.prefetch = Some(Box::new(Prefetch { turns, asked_at: clock::now(), ..Prefetch::default() }));
            }
        }
        self.prefetching |= !matches!(found.call, Call::None);
        self.found = found.blocks.len();
        found
    }

    /// The reader has what it wanted. [`Shared::end_found`] tells the thread.
    fn end_prefetched(&mut self, found: Found) {
        self.found = 0;
        // One that was refused meanwhile has no memory.
        if let Some(prefetch) = self.prefetch.as_mut().filter(|prefetch| prefetch.ask_again.is_none()) {
            prefetch.free.extend(found.blocks);
        } else if self.spare > 0 {
            drop(found);
            self.return_spare();
        }
    }

    /// Gives up what is kept where nothing is left on disk, or others need its memory. Kept apart, for most streams have none.
    #[cold]
    #[inline(never)]
    pub(super) fn end_prefetch_if_drained(&mut self) {
        if self.core.slots_from(0, 1).is_none() || (self.spare > 0 && self.core.is_squeezed()) {
            self.end_prefetch();
        }
    }

    fn end_prefetch(&mut self) {
        // First it is gone, then it is free.
        self.prefetch = None;
        self.return_spare();
    }

    /// Sets memory aside for what is read ahead: so many blocks.
    fn take_spare(&mut self) -> usize {
        let taken = self.core.take_spare(BLOCKS);
        self.spare = if taken < LEAST { 0 } else { taken / 2 * 2 };
        self.core.return_spare(taken - self.spare);
        self.spare
    }

    /// What was set aside is free again, but for what the reader has in hands, and the thread.
    fn return_spare(&mut self) {
        let stays = self.spare.min(self.reading_ahead + self.found);
        self.core.return_spare(self.spare - stays);
        self.spare = stays;
    }
}

impl Found {
    /// Copies to `slots` what was found of them; else reads all of them if the page cache has them.
    pub(super) fn copy_or_read(
        &self,
        file: &SpillFile,
        wanted: Wanted,
        trailers: &mut TrailersAhead,
        slots: &mut [&mut [u8]],
    ) -> Option<Progress<ReadFault>> {
        let same = self.blocks.iter().zip(&mut *slots).take_while(|(block, slot)| block.len() == slot.len());
        match same.map(|(block, slot)| slot.copy_from_slice(block.filled())).count() {
            0 => file.read_cached(wanted, trailers, slots),
            done => Some(Self::done(wanted, trailers, done)),
        }
    }

    /// The same for blocks, which change places with those that were found.
    pub(super) fn swap_or_read(
        &mut self,
        file: &SpillFile,
        wanted: Wanted,
        trailers: &mut TrailersAhead,
        blocks: &mut [Block],
    ) -> Option<Progress<ReadFault>> {
        let is_same = |found: &Block, block: &Block| (found.len(), found.capacity()) == (block.len(), block.capacity());
        let same = self.blocks.iter_mut().zip(&mut *blocks).take_while(|(found, block)| is_same(found, block));
        match same.map(|(found, block)| mem::swap(found, block)).count() {
            0 => file.read_cached(wanted, trailers, &mut payloads(blocks)),
            done => Some(Self::done(wanted, trailers, done)),
        }
    }

    fn done(wanted: Wanted, trailers: &mut TrailersAhead, done: usize) -> Progress<ReadFault> {
        if wanted.behind == 0 && wanted.run.count == done as u64 {
            *trailers = TrailersAhead::default();
        }
        Progress { done, fault: None }
    }
}

impl Shared {
    /// What is ready of the slots at `index`, where the reader is. [`prefetch`](Self::prefetch) must follow, and then
    /// [`end_found`](Self::end_found). A reader that takes blocks away needs all memory for these.
    pub(super) fn found(&self, state: &mut State, index: u64, count: usize, copies: bool) -> Found {
        let limits = self.pool.limits();
        if limits.assisted {
            state.prefetched(index, count, limits.block, false)
        } else if copies && (state.prefetch.is_some() || state.core.has_spare()) {
            state.prefetched(index, count, limits.block, true)
        } else {
            if state.prefetch.is_some() {
                state.end_prefetch();
            }
            Found::default()
        }
    }

    /// The reader has what it wanted, and a thread may go on that waits for that.
    pub(super) fn end_found(&self, state: &mut State, found: Found) {
        let some = !found.blocks.is_empty();
        state.end_prefetched(found);
        if some && state.prefetching {
            self.ahead.ring();
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
        if let Some(prefetch) = &mut state.prefetch {
            // What was set aside for it comes back with what the reader has in hands.
            **prefetch = Prefetch { ask_again, ..Prefetch::default() };
        }
    }

    /// Reads some slots ahead, and says whether to go on. `may_wait`: the thread would rather wait for memory than go.
    fn prefetch_next(self: &Arc<Self>, may_wait: bool) -> Next {
        let Job { wanted, mut len, mut blocks, mut trailers } = match self.next_to_prefetch(may_wait) {
            Ok(job) => job,
            Err(next) => return next,
        };
        let limits = self.pool.limits();
        blocks.resize_with(wanted.run.count as usize, || {
            let memory = Block::allocate(limits.block, Reuse::Oldest);
            if limits.encrypt { memory.secret() } else { memory }
        });
        for block in &mut blocks {
            let part = len.min(limits.block);
            block.receive(part);
            len -= part;
        }
        let good = self.pool.file().is_some_and(|file| {
            let progress = guarded(|| file.read(wanted, &mut trailers, &mut payloads(&mut blocks)));
            progress.is_ok_and(|progress| progress.fault.is_none())
        });
        let mut state = self.raw_lock();
        state.reading_ahead = 0;
        let Some(prefetch) = &mut state.prefetch else {
            // Nobody wants it any more.
            drop(blocks);
            state.prefetching = false;
            self.end_thread(state);
            return Next::Nothing;
        };
        prefetch.trailers = trailers;
        if good {
            let mut at = wanted.index;
            for block in blocks {
                let next = at + block.len() as u64;
                prefetch.ready.push_back((at, block));
                at = next;
            }
        } else {
            prefetch.free.extend(blocks);
        }
        state.prefetching = good;
        if good { Next::Done } else { Next::Nothing }
    }

    /// What is to be read ahead next: what is left of the thread's turn, as far as it lies in one piece.
    fn next_to_prefetch(&self, may_wait: bool) -> Result<Job, Next> {
        let mut guard = self.raw_lock();
        let state = &mut *guard;
        let (mut next, mut no_memory) = (None, false);
        if let Some(prefetch) = &mut state.prefetch {
            let turns = prefetch.turns;
            let from = prefetch.next_from(state.core.read_to());
            let most = turns.left(from);
            no_memory = prefetch.free.len() + turns.blocks() - prefetch.blocks < most as usize;
            if !no_memory && let Some((index, run, len, behind)) = state.core.slots_from(from, most) {
                prefetch.next = index + len as u64;
                let blocks = prefetch.free.split_off(prefetch.free.len().saturating_sub(run.count as usize));
                state.reading_ahead = run.count as usize;
                prefetch.blocks += state.reading_ahead - blocks.len();
                let wanted = Wanted { stream: self.stream, index, run, behind };
                next = Some(Job { wanted, len, blocks, trailers: mem::take(&mut prefetch.trailers) });
            }
        }
        state.prefetching = next.is_some() || (no_memory && may_wait);
        match next {
            Some(job) => Ok(job),
            None if state.prefetching => Err(Next::NoMemory),
            None => {
                self.end_thread(guard);
                Err(Next::Nothing)
            }
        }
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
