//! What goes to disk and what comes back: jobs as data, and what follows when they are done.
//! Never does a job, and never loses a block before its write has succeeded.

use std::{io, sync::Arc};

use super::{
    Core,
    ledger::{Entry, Place},
};
use crate::{
    block::{Block, Reuse},
    error::SpillError,
    lender::Purpose,
    slot::SlotRun,
};

/// The most blocks that one write or read moves: 1 MiB of the largest. Larger calls gain nothing,
/// and the writer waits for the first block of a batch until its last is written.
const BATCH: usize = 16;

/// A window of so many blocks takes in while a part of it is written; a smaller one has none to spare.
const WIDE: usize = 16;

/// Bytes of the first entries that stay in memory at most.
const KEPT: usize = 128 << 10;

/// The most blocks that are read back at once.
const READ_BATCH: usize = 4;

/// The most slots that are read into the reader's own memory at once.
const DIRECT: u64 = 16;

/// A full disk is tried again after this many nanoseconds, if no slot came free before.
const RETRY: u64 = 1_000_000_000;

/// Giving slots back to the file system takes about this many nanoseconds.
pub(super) const BUSY: u64 = 2_000_000;

/// The disk as this buffer sees it.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// Bytes of the backlog that only the disk holds.
    pub(super) bytes: u64,
    /// Slots granted to this buffer.
    pub(super) slots: u64,
    /// Bytes written so far.
    pub(super) spilled: u64,
    /// Blocks on their way to disk.
    pub(super) writing: usize,
    /// The writer's patience is over: what does not fit goes to disk at once, until nothing is left there.
    pub(super) spilling: bool,
    /// While the last write went on, hardly anything came that is to be written next.
    pub(super) ahead: bool,
    blocked: Option<Blocked>,
    /// A write has failed, not for want of space: no more is written, unless others need the memory.
    broken: bool,
    /// Slots to be given back to the pool.
    freed: Vec<SlotRun>,
}

/// There was no room on disk.
#[derive(Debug)]
enum Blocked {
    /// No slot, until some come free; or since the file cannot grow, which is tried again as well.
    NoSlots { source: Option<Arc<io::Error>>, retry_at: Option<u64> },
    /// Slots are being given back to the file system, and will be there again.
    Busy { retry_at: u64 },
    /// A write found none.
    Full { source: Arc<io::Error>, retry_at: Option<u64> },
}

/// Blocks to be written to adjacent slots.
#[derive(Debug)]
#[must_use]
pub(crate) struct WriteJob {
    pub(crate) run: SlotRun,
    /// Each with the stream's offset of its first byte.
    pub(crate) blocks: Vec<(u64, Arc<Block>)>,
}

/// How a [`WriteJob`] went.
#[derive(Debug)]
pub(crate) struct Wrote {
    /// How many blocks are on disk, from the first one.
    pub(crate) done: usize,
    pub(crate) fault: Option<WriteFault>,
}

/// Why not all of it is.
#[derive(Debug)]
pub(crate) enum WriteFault {
    /// The disk is full: the limit reached early.
    Full(Arc<io::Error>),
    Broken(SpillError),
}

/// Blocks to be filled from adjacent slots; each has the length of its slot's payload.
#[derive(Debug)]
#[must_use]
pub(crate) struct ReadJob {
    /// The stream's offset of the first byte.
    pub(crate) start: u64,
    pub(crate) run: SlotRun,
    pub(crate) blocks: Vec<Block>,
    /// Slots behind these that hold what follows.
    pub(crate) behind: u64,
}

/// Slots to be read into the reader's own memory, which is as long as their payloads.
#[derive(Debug)]
#[must_use]
pub(crate) struct DirectRead {
    /// The stream's offset of the first byte.
    pub(crate) start: u64,
    pub(crate) run: SlotRun,
    pub(crate) len: usize,
    /// Slots behind these that hold what follows.
    pub(crate) behind: u64,
}

impl Disk {
    pub(super) fn retry_at(&self) -> Option<u64> {
        match self.blocked.as_ref()? {
            Blocked::Busy { retry_at } => Some(*retry_at),
            Blocked::NoSlots { retry_at, .. } | Blocked::Full { retry_at, .. } => *retry_at,
        }
    }

    /// Only a free slot will do: nobody can tell the time.
    pub(super) fn never_retry(&mut self) {
        match &mut self.blocked {
            Some(Blocked::NoSlots { retry_at, .. } | Blocked::Full { retry_at, .. }) => *retry_at = None,
            Some(busy @ Blocked::Busy { .. }) => *busy = Blocked::NoSlots { source: None, retry_at: None },
            None => {}
        }
    }

    /// Whether there would be slots but for what is being given back just now.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.blocked, Some(Blocked::Busy { .. }))
    }

    pub(super) fn blocked_by(&self) -> Option<Arc<io::Error>> {
        match self.blocked.as_ref()? {
            Blocked::NoSlots { source, .. } => source.clone(),
            Blocked::Busy { .. } => None,
            Blocked::Full { source, .. } => Some(Arc::clone(source)),
        }
    }
}

impl Core {
    /// How many slots are wanted for the next write, if there is to be one.
    pub(crate) fn wants_write(&self) -> Option<u64> {
        let most = self.limits.slots - self.disk.slots;
        Some((self.to_write()?.1 as u64).min(most)).filter(|&n| n > 0)
    }

    /// The pool has no slot: for its limit, or since the file cannot grow.
    pub(crate) fn no_slots(&mut self, source: Option<Arc<io::Error>>, now: u64) {
        let retry_at = source.as_ref().map(|_| now + RETRY);
        self.disk.blocked = Some(Blocked::NoSlots { source, retry_at });
        self.notes.writable = true;
    }

    /// Whether it was told that there is none, and not yet that some came free.
    pub(crate) fn waits_for_slots(&self) -> bool {
        matches!(self.disk.blocked, Some(Blocked::NoSlots { .. }))
    }

    /// The pool has no slot, but will have some in a moment.
    pub(crate) fn slots_busy(&mut self, now: u64) {
        self.disk.blocked = Some(Blocked::Busy { retry_at: now + BUSY });
    }

    /// Slots came free, or it is time to try again.
    pub(crate) fn unblock(&mut self) {
        self.disk.blocked = None;
    }

    /// Begins to write as many blocks as there are slots in `run`, which
    /// [`wants_write`](Self::wants_write) asked for. [`wrote`](Self::wrote) must follow.
    pub(crate) fn start_write(&mut self, run: SlotRun) -> WriteJob {
        let first = self.to_write().map_or(self.ledger.len(), |(first, _)| first);
        self.disk.slots += run.count;
        let mut job = WriteJob { run, blocks: Vec::with_capacity(run.count as usize) };
        for (i, slot) in (run.first..run.end()).enumerate() {
            let Some(entry) = self.ledger.get_mut(first + i) else { break };
            let Place::Memory(block) = &entry.place else { break };
            let block = Arc::clone(block);
            job.blocks.push((entry.start, Arc::clone(&block)));
            entry.place = Place::Writing { block, slot };
        }
        self.disk.writing += job.blocks.len();
        self.note_peaks();
        job
    }

    /// A write has ended. What was written leaves memory, what was not stays there.
    pub(crate) fn wrote(&mut self, job: WriteJob, outcome: Wrote, now: u64) {
        self.disk.writing -= job.blocks.len();
        let mut touched: Option<(usize, usize)> = None;
        let slots = job.run.first..job.run.end();
        // A run longer than its blocks cannot be; should it be, its slots are not lost.
        for slot in slots.clone().skip(job.blocks.len()) {
            self.give_back(SlotRun::one(slot));
        }
        for ((i, (start, block)), slot) in job.blocks.into_iter().enumerate().zip(slots) {
            let on_disk = i < outcome.done;
            if on_disk {
                self.disk.spilled += block.len() as u64;
            }
            let waiting = self.ledger.starting_at(start).filter(|&at| {
                matches!(self.ledger.get(at), Some(Entry { place: Place::Writing { slot: own, .. }, .. }) if *own == slot)
            });
            match waiting {
                // Overtaken by the reader, or given up.
                None => self.free(SlotRun::one(slot)),
                Some(at) if on_disk => {
                    self.moved_to_disk(at, slot, Some(&block));
                    touched = Some((touched.map_or(at, |(from, _)| from), at));
                }
                Some(at) => {
                    if let Some(entry) = self.ledger.get_mut(at)
                        && let Some(block) = entry.block().cloned()
                    {
                        // Not the job's: it may have been opened since.
                        entry.place = Place::Memory(block);
                    }
                    self.give_back(SlotRun::one(slot));
                }
            }
            self.put_back(block);
        }
        if let Some((from, to)) = touched {
            self.ledger.join(from.saturating_sub(1), to + 1, self.limits.block as u64);
        }
        if self.ledger.front().is_some_and(Entry::is_sealed) {
            // Nobody writes it any more: it can be opened where it lies, should the memory for a copy have been missing.
            self.notes.visible = true;
        }
        self.disk.ahead = self.is_wide() && self.adjacent_in_memory(self.kept(), 2).is_none_or(|(_, count)| count < 2);
        self.notes.writable = true;
        self.note_peaks();
        if let Some(fault) = outcome.fault {
            self.cannot_write(fault, now);
        }
    }

    /// Nothing more can be written for now, or ever.
    pub(crate) fn cannot_write(&mut self, fault: WriteFault, now: u64) {
        self.notes.writable = true;
        match fault {
            WriteFault::Full(source) => {
                self.disk.blocked = Some(Blocked::Full { source, retry_at: Some(now + RETRY) });
            }
            WriteFault::Broken(error) => {
                if std::mem::replace(&mut self.disk.broken, true) {
                    // It was tried again since others need the memory, and will be once more.
                    let source = Arc::new(io::Error::other(error.clone()));
                    self.disk.blocked = Some(Blocked::Full { source, retry_at: Some(now + RETRY) });
                }
                // After `finish` this changes nothing: memory still has everything.
                let _ = self.fail(error);
            }
        }
    }

    /// The slots whose bytes come next, if the reader is at the disk and there is memory for them.
    pub(crate) fn wants_read(&self) -> Option<usize> {
        let front = self.ledger.front()?;
        let Place::Disk(run) = front.place else { return None };
        let block = self.limits.block;
        let free = self.memory.free();
        if free < block {
            // Only a short block was ever written: its own length will do.
            return (front.len.min(block as u64) as usize <= free).then_some(1);
        }
        // Half of what is free stays with the writer.
        Some((free / block / 2).clamp(1, READ_BATCH).min(run.count as usize))
    }

    /// How far the reader has come.
    pub(crate) fn read_to(&self) -> u64 {
        self.cursor.read
    }

    /// Where the reader's next slot begins, if it is at the disk.
    pub(crate) fn disk_from(&self) -> Option<u64> {
        self.ledger.front().filter(|front| matches!(front.place, Place::Disk(_))).map(|front| front.start)
    }

    /// Slots on disk that begin at `from` or behind it, and lie in one piece, not more than `most`: the stream's offset of their
    /// first byte, their place, their length in bytes, and how many slots of the stream lie behind them.
    pub(crate) fn slots_from(&self, from: u64, most: u64) -> Option<(u64, SlotRun, usize, u64)> {
        const LOOK: usize = 64;
        let block = self.limits.block as u64;
        self.ledger.iter().take(LOOK).find_map(|entry| {
            let Place::Disk(run) = entry.place else { return None };
            let at = from.saturating_sub(entry.start).div_ceil(block);
            let left = run.count.checked_sub(at).filter(|left| *left > 0)?;
            let count = left.min(most);
            let start = entry.start + at * block;
            let len = (count * block).min(entry.end() - start) as usize;
            Some((start, SlotRun::new(run.first + at, count), len, left - count))
        })
    }

    /// Whether memory may be set aside for a thread that reads ahead of the reader: the writer wants none any more, and nobody
    /// else is short of it. A small window has too little.
    pub(crate) fn has_spare(&self) -> bool {
        let wanted = self.ends.writer_is_open() || !self.item.is_empty() || self.squeezed || self.memory.is_tight();
        !wanted && self.is_wide()
    }

    /// Sets so many blocks' memory aside, or fewer, and says how many: what the reader needs to get at the disk itself stays free.
    /// [`return_spare`](Self::return_spare) must follow.
    pub(crate) fn take_spare(&mut self, most: usize) -> usize {
        if !self.has_spare() {
            return 0;
        }
        let block = self.limits.block;
        let most = most.min(self.memory.free().saturating_sub(self.reserved()) / block);
        let taken = (0..most).take_while(|_| self.memory.reserve(block, Purpose::Write)).count();
        self.invariants();
        taken
    }

    pub(crate) fn return_spare(&mut self, blocks: usize) {
        if blocks > 0 {
            self.memory.release(blocks * self.limits.block);
            self.notes.writable = true;
        }
    }

    /// Others need what it has.
    pub(crate) fn is_squeezed(&self) -> bool {
        self.squeezed
    }

    /// Begins to read what [`wants_read`](Self::wants_read) said and not more than so many slots, or as much of it as the lender
    /// has memory for. [`did_read`](Self::did_read) must follow.
    pub(crate) fn start_read(&mut self, most: usize) -> Option<ReadJob> {
        let wanted = self.wants_read()?.min(most);
        let Some(&Entry { start, len, place: Place::Disk(run) }) = self.ledger.front() else { return None };
        let block = self.limits.block as u64;
        let mut blocks = Vec::with_capacity(wanted);
        let mut taken = 0;
        while blocks.len() < wanted {
            let size = self.limits.block.min(self.memory.free());
            let Some(mut memory) = self.memory.take(size, Purpose::Read, Reuse::Newest) else { break };
            let part = block.min(len - taken);
            memory.receive(part as usize);
            taken += part;
            blocks.push(memory);
        }
        if blocks.is_empty() {
            return None;
        }
        let head = SlotRun::new(run.first, blocks.len() as u64);
        let reading = Entry { start, len: taken, place: Place::Reading(head) };
        let rest = (run.count > head.count).then(|| Entry {
            start: start + taken,
            len: len - taken,
            place: Place::Disk(SlotRun::new(head.end(), run.count - head.count)),
        });
        self.ledger.replace(0, [Some(reading), rest].into_iter().flatten());
        Some(ReadJob { start, run: head, blocks, behind: run.count - head.count })
    }

    /// A read has ended: the first `good` blocks are what was written; what `fault` is about begins
    /// behind them.
    pub(crate) fn did_read(&mut self, job: ReadJob, good: usize, fault: Option<SpillError>) {
        let ReadJob { start, run, blocks, .. } = job;
        self.notes.visible = true;
        // What is kept for the reader depends on what it has got.
        self.notes.writable = true;
        let Some(at) = self
            .ledger
            .starting_at(start)
            .filter(|&at| matches!(self.ledger.get(at), Some(Entry { place: Place::Reading(own), .. }) if *own == run))
        else {
            // Given up meanwhile.
            self.free(run);
            for block in blocks {
                self.release(block);
            }
            return;
        };
        let mut fault = fault.map(Box::new);
        let mut parts = Vec::with_capacity(blocks.len());
        let mut start = start;
        for (i, (block, slot)) in blocks.into_iter().zip(run.first..).enumerate() {
            let len = block.len() as u64;
            let place = if i < good {
                self.disk.bytes -= len;
                Place::Ahead { block: Arc::new(block), slot }
            } else {
                self.release(block);
                match fault.take() {
                    Some(error) => {
                        self.disk.bytes -= len;
                        self.free(SlotRun::one(slot));
                        Place::Bad(error)
                    }
                    None => Place::Disk(SlotRun::one(slot)),
                }
            };
            parts.push(Entry { start, len, place });
            start += len;
        }
        let last = at + parts.len();
        self.ledger.replace(at, parts.into_iter());
        self.ledger.join(at, last, self.limits.block as u64);
        self.note_peaks();
    }

    /// Begins to read as many whole slots at the front as fit into `room` bytes of the reader's own memory: no block is
    /// needed for them, and no second copy. [`did_direct`](Self::did_direct) must follow.
    pub(crate) fn start_direct(&mut self, room: usize) -> Option<DirectRead> {
        let &Entry { start, len, place: Place::Disk(run) } = self.ledger.front()? else { return None };
        let block = self.limits.block as u64;
        let fit = if len <= room as u64 { run.count } else { room as u64 / block };
        let head = SlotRun::new(run.first, fit.min(DIRECT));
        if head.count == 0 || start != self.cursor.read {
            return None;
        }
        let taken = len.min(head.count * block);
        let parts = [
            Some(Entry { start, len: taken, place: Place::Direct(head) }),
            (head.count < run.count).then(|| Entry {
                start: start + taken,
                len: len - taken,
                place: Place::Disk(SlotRun::new(head.end(), run.count - head.count)),
            }),
        ];
        self.ledger.replace(0, parts.into_iter().flatten());
        Some(DirectRead { start, run: head, len: taken as usize, behind: run.count - head.count })
    }

    /// A direct read has ended: the first `good` slots are what was written; what `fault` is about begins behind them.
    /// Says how many bytes the reader has got; they count as read.
    pub(crate) fn did_direct(&mut self, job: &DirectRead, good: usize, fault: Option<SpillError>) -> usize {
        let &DirectRead { start, run, len, .. } = job;
        let reads = |entry: &Entry| matches!(entry.place, Place::Direct(own) if own == run);
        let Some(at) = self.ledger.starting_at(start).filter(|&at| self.ledger.get(at).is_some_and(reads)) else {
            // Given up meanwhile.
            self.free(run);
            return 0;
        };
        let (block, len) = (self.limits.block as u64, len as u64);
        let good = (good as u64).min(run.count);
        let bad = u64::from(fault.is_some() && good < run.count);
        let bytes = |slots: u64| len.min(slots * block);
        let entry = |from: u64, to: u64, place: Place| Entry {
            start: start + bytes(from),
            len: bytes(to) - bytes(from),
            place,
        };
        let on_disk = |from: u64, to: u64| {
            (from < to).then(|| entry(from, to, Place::Disk(SlotRun::new(run.first + from, to - from))))
        };
        let fault = fault.filter(|_| bad > 0).map(|error| entry(good, good + bad, Place::Bad(Box::new(error))));
        if let Some(fault) = &fault {
            self.disk.bytes -= fault.len;
            self.free(SlotRun::one(run.first + good));
        }
        let parts = [on_disk(0, good), fault, on_disk(good + bad, run.count)];
        let count = parts.iter().flatten().count();
        self.ledger.replace(at, parts.into_iter().flatten());
        self.ledger.join(at + usize::from(good > 0), at + count, block);
        if good > 0 {
            self.consume(bytes(good) as usize);
        }
        // What is kept for the reader depends on what is next.
        self.notes.writable = true;
        bytes(good) as usize
    }

    /// Others need the memory of a buffer whose reader stands still: what is on disk too leaves memory
    /// now, the rest is written. Says whether there is any; one whose reader has moved since the last time, or that is asked
    /// for the first time, is let off.
    pub(crate) fn squeeze(&mut self) -> bool {
        let moved = std::mem::take(&mut self.moved);
        let asked_before = std::mem::replace(&mut self.asked, !moved);
        if moved || !asked_before || self.memory.held() == self.memory.lent() {
            return false;
        }
        self.squeezed = true;
        self.seal_tail();
        for at in (0..self.ledger.len()).rev() {
            if let Some(Entry { place: Place::Ahead { block, slot }, .. }) = self.ledger.get(at)
                && Arc::strong_count(block) == 1
            {
                let slot = *slot;
                self.moved_to_disk(at, slot, None);
                self.ledger.join(at.saturating_sub(1), at + 1, self.limits.block as u64);
            }
        }
        true
    }

    /// The writer takes back memory that was filled by reading ahead. The bytes are still in their
    /// slots, so this costs no I/O. Only when nothing on its way to disk will free any.
    pub(super) fn take_back_ahead(&mut self) -> bool {
        if self.disk.writing > 0 || self.to_write().is_some() {
            return false;
        }
        let last = (1..self.ledger.len())
            .rev()
            .find(|&at| matches!(self.ledger.get(at), Some(Entry { place: Place::Ahead { .. }, .. })));
        let Some((at, entry)) = last.and_then(|at| Some((at, self.ledger.get_mut(at)?))) else { return false };
        let Place::Ahead { slot, .. } = entry.place else { return false };
        self.moved_to_disk(at, slot, None);
        self.ledger.join(at.saturating_sub(1), at + 1, self.limits.block as u64);
        true
    }

    /// Slots that are free again, for the pool.
    pub(crate) fn freed(&mut self) -> impl Iterator<Item = SlotRun> {
        self.disk.freed.drain(..)
    }

    pub(crate) fn has_freed(&self) -> bool {
        !self.disk.freed.is_empty()
    }

    /// Whether the backlog was given up and nothing is left on disk or on its way.
    pub(crate) fn is_over(&self) -> bool {
        self.discarded && self.disk.slots == 0 && self.disk.writing == 0
    }

    pub(super) fn disk_takes_more(&self) -> bool {
        self.disk.slots < self.limits.slots && self.disk.blocked.is_none()
    }

    /// Slots whose bytes are no longer needed: room on disk, so a full one is worth another try.
    pub(super) fn free(&mut self, run: SlotRun) {
        self.give_back(run);
        self.unblock();
        self.end_spilling_if_drained();
    }

    fn give_back(&mut self, run: SlotRun) {
        self.disk.slots -= run.count;
        // Runs are freed in order as a rule: keep them few.
        match self.disk.freed.last_mut() {
            Some(last) if last.end() == run.first => last.count += run.count,
            _ => self.disk.freed.push(run),
        }
    }

    pub(super) fn end_spilling_if_drained(&mut self) {
        if self.disk.slots == 0 && self.disk.writing == 0 {
            self.disk.spilling = false;
        }
    }

    /// The blocks to write next, as their first entry and number: those farthest from the reader, in
    /// one adjacent run; the earliest stay in memory, for they are wanted next. A read-back costs as
    /// much as a write, so nothing is written while most of the memory is free; but more than the writer waits for
    /// is, so that it finds the disk at work when it has been woken.
    pub(super) fn to_write(&self) -> Option<(usize, usize)> {
        let waited_for = self.ends.writer_is_open() || !self.item.is_empty();
        let wanted = self.squeezed || (self.disk.spilling && waited_for && !self.disk.broken);
        if !wanted || !self.disk_takes_more() || self.discarded {
            return None;
        }
        let window = self.limits.memory - self.memory.lent();
        let free = self.memory.free();
        let tight = self.squeezed || self.memory.is_tight();
        if !tight && free >= window * 3 / 4 && free >= self.reserved() + self.limits.block {
            return None;
        }
        let blocks = window / self.limits.block;
        // A quarter of the window, so that the writer fills one while another is written; of a small one half, for the page
        // cache takes short writes in small pieces.
        let mut batch = (blocks / 4).max(4.min(blocks / 2)).clamp(1, BATCH);
        if self.disk.ahead {
            batch = batch.max(blocks / 2).min(BATCH);
        }
        let found = self.adjacent_in_memory(self.kept(), batch);
        // To wake a thread for a block or two costs a writer that is slower than the disk more than its copying does: it fills
        // a whole batch first, while there is room for it.
        let has_room = free > window / 4 && free >= self.reserved() + self.limits.block;
        if self.disk.ahead && !tight && has_room && found.is_none_or(|(_, count)| count < batch) {
            return None;
        }
        // Where that leaves nothing, all but the block that the reader is at may go; and that too where
        // others need it.
        found
            .or_else(|| self.adjacent_in_memory(1, batch))
            .or_else(|| if tight { self.adjacent_in_memory(0, batch) } else { None })
    }

    fn is_wide(&self) -> bool {
        self.limits.memory / self.limits.block >= WIDE
    }

    /// How many of the first entries stay in memory as long as there are others to write: no more than takes a reader to the
    /// disk, for all others are what the writer and the disk have between them.
    fn kept(&self) -> usize {
        let blocks = (self.limits.memory - self.memory.lent()) / self.limits.block;
        (blocks / 4).min(KEPT / self.limits.block)
    }

    /// The last run of entries that only memory has, beyond the first `keep` entries: at most `batch`
    /// of them, from the run's beginning, so that later ones follow them in the file.
    fn adjacent_in_memory(&self, keep: usize, batch: usize) -> Option<(usize, usize)> {
        let in_memory = |at: usize| matches!(self.ledger.get(at), Some(Entry { place: Place::Memory(_), .. }));
        let last = (keep..self.ledger.len()).rev().find(|&at| in_memory(at))?;
        let first = (keep..last).rev().take_while(|&at| in_memory(at)).last().unwrap_or(last);
        let most = (last + 1 - first).min(batch);
        // A block that is not full ends a batch: what followed it would not lie where its slot is.
        let full = |at: usize| self.ledger.get(at).is_some_and(|entry| entry.len == self.limits.block as u64);
        let short = (0..most).find(|&i| !full(first + i));
        Some((first, short.map_or(most, |i| i + 1)))
    }

    /// What was in memory is on disk, and leaves memory; unless the reader is at it. `written` is the block that a job still has.
    fn moved_to_disk(&mut self, at: usize, slot: u64, written: Option<&Arc<Block>>) {
        let tight = self.squeezed || self.memory.is_tight();
        let Some(entry) = self.ledger.get_mut(at) else { return };
        let old = std::mem::replace(&mut entry.place, Place::Disk(SlotRun::one(slot)));
        let (Place::Writing { block, .. } | Place::Ahead { block, .. } | Place::Memory(block)) = old else {
            entry.place = old;
            return;
        };
        // Held here and by the job that wrote it, and by nobody who looks at it.
        let at_the_job = written.is_some_and(|written| Arc::ptr_eq(written, &block));
        let unseen = Arc::strong_count(&block) <= 1 + usize::from(at_the_job);
        if at == 0 && !(tight && unseen) {
            entry.place = Place::Ahead { block, slot };
            return;
        }
        self.disk.bytes += entry.len;
        self.put_back(block);
    }
}
