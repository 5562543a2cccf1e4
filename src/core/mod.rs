//! The ledger of one buffer and every decision about it: what is where, who waits, what goes to disk.
//! Never does I/O, reads a clock, takes a lock or wakes anyone: it is handed grants and times as
//! numbers, hands out jobs as data, and says in [`Wakes`] whom its shell should wake.

mod ends;
mod grace;
mod jobs;
mod ledger;
mod memory;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Buf, Bytes};

pub(crate) use self::jobs::{ReadJob, WriteFault, WriteJob, Wrote};
use self::{
    ends::{Ends, Outcome},
    grace::Grace,
    jobs::Disk,
    ledger::{Entry, Ledger, Place},
    memory::Memory,
};
use crate::{
    block::Block,
    error::SpillError,
    options::{Limits, OnFull},
    slot::{SlotRun, TRAILER},
    stats::SpillStats,
};

/// One buffer.
///
/// The stream's bytes lie, in order: in the ledger, in the tail (the block being filled), in the item
/// (a user's `Bytes` of which not all has found room).
#[derive(Debug)]
pub(crate) struct Core {
    limits: Limits,
    cursor: Cursor,
    ledger: Ledger,
    tail: Tail,
    item: Bytes,
    memory: Memory,
    disk: Disk,
    ends: Ends,
    grace: Grace,
    /// The backlog was given up: by `abort`, by the reader's end, by data that cannot be read back.
    discarded: bool,
    parked: Parked,
    notes: Notes,
    peaks: Peaks,
    trash: Option<Bytes>,
}

/// How far each side has come, in bytes of the stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    written: u64,
    read: u64,
}

/// The block that is being filled.
#[derive(Debug, Default)]
enum Tail {
    #[default]
    None,
    Filling(Fill),
    /// The writer has it in hands, copying into it without the lock.
    Out {
        start: u64,
        /// Bytes in it that were accepted before.
        accepted: usize,
    },
}

#[derive(Debug)]
struct Fill {
    /// The stream's offset of the block's first byte.
    start: u64,
    block: Block,
}

/// Who is waiting, as far as the core was told.
#[derive(Debug, Default)]
struct Parked {
    reader: bool,
    writer: bool,
}

/// What has happened since the last [`Core::settle`].
#[derive(Debug, Default)]
struct Notes {
    /// The reader may find something new: bytes, an end, or memory to read into.
    visible: bool,
    /// Memory came free, or a terminal event: the writer may go on.
    writable: bool,
    /// The writer found room.
    accepted: bool,
    reader_polled: bool,
    reader_gone: bool,
    ticked: bool,
}

#[derive(Debug, Default)]
struct Peaks {
    in_memory: u64,
    on_disk: u64,
    slots: u64,
}

/// Whom to wake, now that the lock can be released; what to drop then.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Wakes {
    pub(crate) reader: bool,
    pub(crate) writer: bool,
    /// Those who wait for the reader's end.
    pub(crate) closed: bool,
    /// A user's `Bytes`: dropping it may run a user's code.
    pub(crate) trash: Option<Bytes>,
}

/// What a write finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// This many bytes can be taken now, without another block.
    Bytes(usize),
    Full,
}

/// What a read finds.
#[derive(Debug)]
pub(crate) enum Front {
    /// Bytes of this block, from here to its end.
    Block { block: Arc<Block>, at: usize },
    /// This many bytes in the block that is being filled.
    Tail(usize),
    /// The rest of an item that has found no room yet.
    Item(Bytes),
    /// The next byte is on disk, and there is memory to read it into.
    Disk,
    Wait,
    End,
    Failed(SpillError),
}

impl Core {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            cursor: Cursor::default(),
            ledger: Ledger::default(),
            tail: Tail::None,
            item: Bytes::new(),
            memory: Memory::new(limits.memory),
            disk: Disk::default(),
            ends: Ends::new(),
            grace: Grace::default(),
            discarded: false,
            parked: Parked::default(),
            notes: Notes::default(),
            peaks: Peaks::default(),
            trash: None,
        }
    }

    // ---- the writer ----

    /// Whether a byte can be taken, having taken a block for it if one is needed.
    pub(crate) fn room(&mut self) -> Result<Room, SpillError> {
        self.ends.check_write()?;
        self.parked.writer = false;
        if self.item.is_empty()
            && let Some(room) = self.tail_room()
        {
            return Ok(Room::Bytes(room));
        }
        if self.must_refuse() {
            return Err(self.refuse());
        }
        Ok(Room::Full)
    }

    /// Takes what fits into the present block.
    pub(crate) fn append(&mut self, src: &[u8]) -> usize {
        let Tail::Filling(fill) = &mut self.tail else { return 0 };
        let taken = fill.block.append(src);
        self.accepted(taken);
        taken
    }

    /// Hands out the block that is being filled, so that a long copy needs no lock.
    /// [`put_tail`](Self::put_tail) must follow.
    pub(crate) fn take_tail(&mut self) -> Option<Block> {
        match std::mem::take(&mut self.tail) {
            Tail::Filling(Fill { start, block }) => {
                self.tail = Tail::Out { start, accepted: block.len() };
                Some(block)
            }
            other => {
                self.tail = other;
                None
            }
        }
    }

    /// Takes the block back; what was appended to it counts as accepted, unless the stream has ended
    /// in between.
    pub(crate) fn put_tail(&mut self, mut block: Block) -> Result<usize, SpillError> {
        let Tail::Out { start, accepted } = std::mem::take(&mut self.tail) else {
            self.release(block);
            return Ok(0);
        };
        let appended = block.len() - accepted;
        let outcome = self.ends.check_write();
        if outcome.is_err() {
            block.truncate(accepted);
        }
        if self.discarded || block.len() == 0 {
            self.release(block);
            self.notes.visible = true;
            return outcome.map(|()| 0);
        }
        self.tail = Tail::Filling(Fill { start, block });
        self.accepted(if outcome.is_ok() { appended } else { 0 });
        outcome.map(|()| appended)
    }

    /// Accepts an item whole, taking it out of `item`; or leaves it there (`false`) where an earlier
    /// one still waits for room.
    pub(crate) fn offer(&mut self, item: &mut Bytes) -> Result<bool, SpillError> {
        if self.room()? == Room::Full && !self.item.is_empty() {
            return Ok(false);
        }
        self.cursor.written += item.len() as u64;
        self.item = std::mem::take(item);
        self.notes.visible = true;
        self.notes.accepted = true;
        self.absorb();
        Ok(true)
    }

    /// Whether an item would be accepted now.
    pub(crate) fn check_item_room(&mut self) -> Result<bool, SpillError> {
        self.ends.check_write()?;
        if self.must_refuse() {
            return Err(self.refuse());
        }
        Ok(self.item.is_empty())
    }

    pub(crate) fn check_write(&self) -> Result<(), SpillError> {
        self.ends.check_write()
    }

    pub(crate) fn finish(&mut self) -> Result<(), SpillError> {
        let open = self.ends.writer_is_open();
        self.ends.finish()?;
        if open {
            self.notes.visible = true;
        }
        Ok(())
    }

    pub(crate) fn check_flush(&self) -> Result<(), SpillError> {
        self.ends.check_flush()
    }

    /// The writer's side fails: every accepted byte, then the error.
    pub(crate) fn fail(&mut self, error: SpillError) {
        if self.ends.fail_writer(error) {
            self.notes.visible = true;
            self.notes.writable = true;
        }
    }

    /// The writer's side fails and takes its backlog with it.
    pub(crate) fn abort(&mut self, error: SpillError) {
        if self.ends.fail_writer(error) {
            self.discard();
        }
    }

    /// The reader's side ends.
    pub(crate) fn end_reader(&mut self, error: SpillError) {
        if self.ends.end_reader(error) {
            self.notes.reader_gone = true;
            self.discard();
        }
    }

    pub(crate) fn reader_is_gone(&self) -> bool {
        self.ends.reader_is_gone()
    }

    // ---- the reader ----

    /// Where the next byte is.
    pub(crate) fn front(&mut self) -> Front {
        self.notes.reader_polled = true;
        self.parked.reader = false;
        let front = self.look();
        if let Front::Failed(error) = &front {
            // Data that cannot be read back ends the reader; after any other failure this says nothing new.
            if matches!(self.ledger.front(), Some(Entry { place: Place::Bad(_), .. })) {
                self.end_reader(error.clone());
            }
        }
        front
    }

    fn look(&self) -> Front {
        if let Err(error) = self.ends.check_read() {
            return Front::Failed(error);
        }
        if self.discarded {
            return self.behind_the_last_byte();
        }
        if let Some(entry) = self.ledger.front() {
            return match &entry.place {
                Place::Memory(block) | Place::Writing { block, .. } | Place::Ahead { block, .. } => {
                    Front::Block { block: Arc::clone(block), at: (self.cursor.read - entry.start) as usize }
                }
                Place::Disk(_) if self.wants_read().is_some() => Front::Disk,
                Place::Disk(_) | Place::Reading(_) => Front::Wait,
                Place::Bad(error) => Front::Failed(SpillError::clone(error)),
            };
        }
        match &self.tail {
            Tail::Filling(fill) if self.unread_in(fill) > 0 => return Front::Tail(self.unread_in(fill)),
            Tail::Out { start, accepted } if start + *accepted as u64 > self.cursor.read => return Front::Wait,
            _ => {}
        }
        if !self.item.is_empty() {
            return Front::Item(self.item.clone());
        }
        self.behind_the_last_byte()
    }

    /// What is unread in the block that is being filled.
    pub(crate) fn tail_unread(&self) -> &[u8] {
        match &self.tail {
            Tail::Filling(fill) => &fill.block.filled()[fill.block.len() - self.unread_in(fill)..],
            _ => &[],
        }
    }

    /// Counts `n` bytes at the front as read and frees what nobody needs any more.
    pub(crate) fn consume(&mut self, n: usize) {
        self.cursor.read += n as u64;
        if self.discarded {
            return;
        }
        while let Some(entry) = self.ledger.pop_before(self.cursor.read) {
            self.drop_entry(entry);
            // Even if that freed no memory: what is kept for the reader depends on what is next.
            self.notes.writable = true;
        }
        self.consume_tail();
        if !self.item.is_empty() {
            let waiting_from = self.cursor.written - self.item.len() as u64;
            let n = self.cursor.read.saturating_sub(waiting_from) as usize;
            self.advance_item(n);
        }
        if self.at_most_half_full() {
            self.grace.forgive();
            // Lending frees no memory, but it may be what the writer was held for.
            self.notes.writable |= self.grace.is_held();
            self.end_spilling_if_drained();
        }
    }

    /// Makes what is in the block that is being filled a block of its own, to be lent or borrowed.
    pub(crate) fn seal_tail(&mut self) {
        match std::mem::take(&mut self.tail) {
            Tail::Filling(fill) if self.unread_in(&fill) > 0 => self.ledger.push(Entry {
                start: fill.start,
                len: fill.block.len() as u64,
                place: Place::Memory(Arc::new(fill.block)),
            }),
            Tail::Filling(fill) => self.release(fill.block),
            other => self.tail = other,
        }
    }

    /// Whether `n` bytes at the front, in `block`, may be lent. Else they are to be copied: less than
    /// half the limit is ever lent, few bytes do not pin a block, and while something is on disk
    /// a block stays for it.
    pub(crate) fn may_lend(&self, block: &Block, n: usize) -> bool {
        self.memory.lent() < self.limits.memory / 2
            && n >= block.capacity() / 4
            && self.memory.free() >= self.reserved_behind(self.ledger.get(1))
    }

    /// A block leaves with a user; [`return_lent`](Self::return_lent) must follow.
    pub(crate) fn lend(&mut self, block: &Block) {
        self.memory.lend(block.capacity());
    }

    pub(crate) fn return_lent(&mut self, block: Arc<Block>) {
        self.memory.unlend(block.capacity());
        self.put_back(block);
    }

    /// Every share of a block ends here, so that the last one to come frees it.
    pub(crate) fn put_back(&mut self, block: Arc<Block>) {
        if let Some(block) = Arc::into_inner(block) {
            self.release(block);
        }
    }

    // ---- waiting ----

    pub(crate) fn park_reader(&mut self) {
        self.parked.reader = true;
    }

    /// The writer waits for room; [`room`](Self::room) said that there is none.
    pub(crate) fn park_writer(&mut self) {
        self.parked.writer = true;
    }

    /// Time has passed, as [`deadline`](Self::deadline) asked.
    pub(crate) fn tick(&mut self, now: u64) {
        self.notes.ticked = true;
        if self.disk.retry_at().is_some_and(|at| at <= now) {
            self.unblock();
        }
    }

    /// Nobody can tell the time: what would wait for it happens now.
    pub(crate) fn no_clock(&mut self) {
        self.disk.spilling |= self.grace.is_held();
        self.notes.writable = true;
    }

    /// When to call [`tick`](Self::tick), if nothing happens until then.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let grace = if self.disk.spilling { None } else { self.grace.deadline() };
        [grace, self.disk.retry_at()].into_iter().flatten().min()
    }

    /// Whether [`settle`](Self::settle) wants to know the time.
    pub(crate) fn needs_time(&self) -> bool {
        let notes = &self.notes;
        let held = self.grace.is_held();
        self.is_to_be_held()
            || (held && (notes.reader_polled || notes.visible || notes.writable || notes.ticked))
    }

    /// What follows from all that has happened since the last time: to be called before the lock is
    /// released. `now` counts where [`needs_time`](Self::needs_time) says so.
    pub(crate) fn settle(&mut self, now: u64) -> Wakes {
        let notes = std::mem::take(&mut self.notes);
        if notes.reader_polled {
            self.grace.reader_polled(now);
        }
        let newly_held = self.is_to_be_held();
        if newly_held {
            self.grace.hold(now);
        }
        if (newly_held || notes.ticked) && self.grace.is_held() && self.grace.is_over(now) {
            self.disk.spilling = true;
        }
        // During the grace the writer is let on when half of the window is free, not at each block:
        // a reader that keeps up gets there in no time, and both go their way in long strides.
        let resumes = (notes.writable || notes.ticked || newly_held)
            && (!self.grace.is_held() || self.disk.spilling || self.at_most_half_full());
        if resumes {
            self.absorb();
            self.notes.writable = false;
        }
        let goes_on = match self.ends.check_write() {
            Ok(()) => resumes && (self.has_room() || self.must_refuse()),
            Err(_) => notes.writable || notes.visible,
        };
        let writer = goes_on && std::mem::take(&mut self.parked.writer);
        let waits = !self.item.is_empty() || (self.parked.writer && self.ends.writer_is_open());
        if self.grace.is_held() && !waits {
            self.grace.release(now);
        }
        let visible = notes.visible || (notes.writable && self.reader_waits_for_memory());
        let reader = visible && std::mem::take(&mut self.parked.reader);
        if reader {
            self.grace.reader_woken(now);
        }
        self.invariants();
        Wakes { reader, writer, closed: notes.reader_gone, trash: self.trash.take() }
    }

    // ---- figures ----

    pub(crate) fn stats(&self) -> SpillStats {
        let on_disk = self.disk.bytes;
        let slot = (self.limits.block + TRAILER) as u64;
        SpillStats {
            written: self.cursor.written,
            read: self.cursor.read,
            in_memory: self.backlog() - on_disk,
            on_disk,
            memory_held: self.memory.held() as u64,
            lent: self.memory.lent() as u64,
            disk_held: self.disk.slots * slot,
            peak_in_memory: self.peaks.in_memory,
            peak_on_disk: self.peaks.on_disk,
            peak_memory_held: self.memory.peak() as u64,
            peak_disk_held: self.peaks.slots * slot,
            spilled: self.disk.spilled,
            ..SpillStats::default()
        }
    }

    fn backlog(&self) -> u64 {
        if self.discarded { 0 } else { self.cursor.written - self.cursor.read }
    }

    /// Whether the window is half empty; an item that waits to get into it does not count.
    fn at_most_half_full(&self) -> bool {
        let window = self.limits.memory - self.memory.lent();
        self.backlog().saturating_sub(self.item.len() as u64) <= window as u64 / 2
    }

    fn note_peaks(&mut self) {
        let backlog = self.backlog();
        let peaks = &mut self.peaks;
        peaks.on_disk = peaks.on_disk.max(self.disk.bytes);
        peaks.slots = peaks.slots.max(self.disk.slots);
        peaks.in_memory = peaks.in_memory.max(backlog.saturating_sub(self.disk.bytes));
    }

    // ---- below: consequences ----

    fn accepted(&mut self, n: usize) {
        self.cursor.written += n as u64;
        self.notes.visible = true;
        self.notes.accepted = true;
        self.seal_if_full();
        self.note_peaks();
    }

    fn seal_if_full(&mut self) {
        if matches!(&self.tail, Tail::Filling(fill) if fill.block.room() == 0) {
            self.seal_tail();
        }
    }

    /// Room in the tail, having begun a new one where that is possible.
    fn tail_room(&mut self) -> Option<usize> {
        match &self.tail {
            Tail::Filling(fill) => return Some(fill.block.room()),
            Tail::Out { .. } => return None,
            Tail::None => {}
        }
        let mut size = self.next_block();
        if size.is_none() && self.take_back_ahead() {
            size = self.next_block();
        }
        let size = size?;
        let block = self.memory.take(size);
        let room = block.room();
        let start = self.cursor.written - self.item.len() as u64;
        self.tail = Tail::Filling(Fill { start, block });
        Some(room)
    }

    /// The size of the block that the writer may have now.
    fn next_block(&self) -> Option<usize> {
        let free = self.memory.free();
        if free >= self.reserved() + self.limits.block {
            return Some(self.limits.block);
        }
        // What a limit leaves beside whole blocks is used too, so that a backlog within the limit
        // needs no disk; but not while spilling, when each would waste a slot.
        (!self.disk.spilling && self.disk.slots == 0 && free > self.limits.block / 32).then_some(free)
    }

    /// What the writer must leave free.
    fn reserved(&self) -> usize {
        self.reserved_behind(self.ledger.front())
    }

    /// The memory that must stay free while `front` is the reader's next: enough, with what `front` will
    /// set free itself, for a block to read the disk with.
    fn reserved_behind(&self, front: Option<&Entry>) -> usize {
        match front {
            Some(front) if self.disk.slots > 0 => match &front.place {
                Place::Reading(_) => 0,
                _ => self.limits.block.saturating_sub(front.block().map_or(0, |block| block.capacity())),
            },
            _ => 0,
        }
    }

    fn has_room(&self) -> bool {
        self.item.is_empty()
            && match &self.tail {
                Tail::Filling(_) => true,
                Tail::Out { .. } => false,
                Tail::None => self.next_block().is_some(),
            }
    }

    /// Whether somebody waits for room, and the time for which he does does not count yet.
    fn is_to_be_held(&self) -> bool {
        (self.parked.writer || !self.item.is_empty()) && !self.disk.spilling && !self.grace.is_held()
    }

    fn must_refuse(&self) -> bool {
        self.limits.on_full == OnFull::Fail
            && self.disk.spilling
            && self.disk.writing == 0
            && !self.disk_takes_more()
            && self.ends.writer_is_open()
            && !self.has_room()
    }

    fn refuse(&mut self) -> SpillError {
        let error = SpillError::DiskLimit {
            limit: self.limits.disk,
            memory_limit: self.limits.memory,
            offset: self.cursor.written,
            source: self.disk.blocked_by(),
        };
        self.fail(error.clone());
        error
    }

    /// Moves what fits of the item into blocks.
    fn absorb(&mut self) {
        while !self.item.is_empty() {
            let Some(_) = self.tail_room() else { return };
            let Tail::Filling(fill) = &mut self.tail else { return };
            let taken = fill.block.append(&self.item);
            self.advance_item(taken);
            self.seal_if_full();
        }
        self.note_peaks();
    }

    fn advance_item(&mut self, n: usize) {
        self.item.advance(n);
        if self.item.is_empty() {
            self.trash = Some(std::mem::take(&mut self.item));
            self.notes.writable = true;
        }
    }

    fn unread_in(&self, fill: &Fill) -> usize {
        ((fill.start + fill.block.len() as u64).saturating_sub(self.cursor.read)) as usize
    }

    fn behind_the_last_byte(&self) -> Front {
        match self.ends.outcome() {
            Outcome::Open => Front::Wait,
            Outcome::Finished => Front::End,
            Outcome::Failed(error) => Front::Failed(error),
        }
    }

    /// A tail that was read to its end starts afresh: small writes that are read at once stay in the
    /// same few cache lines. An empty buffer keeps no block.
    fn consume_tail(&mut self) {
        let (all_read, more) = match &self.tail {
            Tail::Filling(fill) => (self.unread_in(fill) == 0 && fill.block.len() > 0, !self.item.is_empty()),
            _ => return,
        };
        if !all_read {
            return;
        }
        if more {
            if let Tail::Filling(fill) = &mut self.tail {
                fill.block.clear();
                fill.start = self.cursor.read;
            }
            self.notes.writable = true;
        } else if let Tail::Filling(fill) = std::mem::take(&mut self.tail) {
            self.release(fill.block);
        }
    }

    fn release(&mut self, block: Block) {
        self.memory.release(block);
        self.notes.writable = true;
    }

    fn reader_waits_for_memory(&self) -> bool {
        self.parked.reader
            && matches!(self.ledger.front(), Some(Entry { place: Place::Disk(_), .. }))
            && self.wants_read().is_some()
    }

    fn drop_entry(&mut self, entry: Entry) {
        match entry.place {
            // A write in flight frees its slot when it ends and finds nobody waiting for it.
            Place::Memory(block) | Place::Writing { block, .. } => self.put_back(block),
            Place::Ahead { block, slot } => {
                self.put_back(block);
                self.free(SlotRun::one(slot));
            }
            Place::Disk(run) => {
                self.disk.bytes -= entry.len;
                self.free(run);
            }
            // A read in flight frees its slots when it ends.
            Place::Reading(_) => self.disk.bytes -= entry.len,
            Place::Bad(_) => {}
        }
    }

    /// Gives the backlog up, now.
    fn discard(&mut self) {
        self.discarded = true;
        for entry in self.ledger.take_all() {
            self.drop_entry(entry);
        }
        if let Tail::Filling(_) = &self.tail
            && let Tail::Filling(fill) = std::mem::take(&mut self.tail)
        {
            self.release(fill.block);
        }
        if !self.item.is_empty() {
            self.trash = Some(std::mem::take(&mut self.item));
        }
        self.notes.visible = true;
        self.notes.writable = true;
        self.end_spilling_if_drained();
    }

    /// Whether one who is parked has missed his wake-up. For the model: nobody waits for what is there.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn missed_wake_up(&self) -> Option<&'static str> {
        if self.parked.reader && !matches!(self.look(), Front::Wait) {
            return Some("the reader is parked and could go on");
        }
        let resumes = !self.grace.is_held() || self.disk.spilling || self.at_most_half_full();
        let could_write =
            self.ends.check_write().is_err() || (resumes && self.item.is_empty() && (self.has_room() || self.must_refuse()));
        if self.parked.writer && could_write {
            return Some("the writer is parked and could go on");
        }
        let waits = self.ends.writer_is_open() && (self.parked.writer || !self.item.is_empty()) && !self.discarded;
        if waits && !self.disk.spilling && self.deadline().is_none() {
            return Some("the writer is held and nobody will end it");
        }
        if waits
            && self.disk.spilling
            && self.disk_takes_more()
            && self.disk.writing == 0
            && self.memory.lent() == 0
            && self.wants_write().is_none()
            && !matches!(self.ledger.front(), Some(Entry { place: Place::Reading(_), .. }))
        {
            return Some("the writer waits and nothing is on its way to disk");
        }
        None
    }

    /// What must hold whenever the lock is free. Run after each mutation in debug builds.
    fn invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.memory.invariants();
        assert!(self.cursor.read <= self.cursor.written);
        let mut at = None;
        let (mut on_disk, mut slots) = (0, 0);
        for entry in self.ledger.iter() {
            assert!(entry.len > 0);
            assert!(at.is_none_or(|at| at == entry.start), "a gap before {entry:?}");
            at = Some(entry.end());
            on_disk += entry.on_disk();
            slots += match &entry.place {
                Place::Disk(run) | Place::Reading(run) => {
                    let block = self.limits.block as u64;
                    assert!(run.count > 0 && entry.len <= run.count * block && entry.len > (run.count - 1) * block);
                    run.count
                }
                Place::Ahead { .. } | Place::Writing { .. } => 1,
                Place::Memory(_) | Place::Bad(_) => 0,
            };
            if let Some(block) = entry.block() {
                assert_eq!(block.len() as u64, entry.len);
            }
        }
        assert_eq!(on_disk, self.disk.bytes);
        assert!(slots <= self.disk.slots, "{slots} slots in the ledger, {} granted", self.disk.slots);
        if let Some(front) = self.ledger.front() {
            assert!(front.start <= self.cursor.read && self.cursor.read < front.end());
        }
        if self.discarded {
            assert_eq!(self.ledger.len(), 0);
            return;
        }
        let (start, len) = match &self.tail {
            Tail::None => (at.unwrap_or(self.cursor.written - self.item.len() as u64), 0),
            Tail::Filling(fill) => (fill.start, fill.block.len()),
            Tail::Out { start, accepted } => (*start, *accepted),
        };
        assert!(at.is_none_or(|at| at == start));
        assert_eq!(start + (len + self.item.len()) as u64, self.cursor.written);
        // The reader always gets on: there is memory for the disk's next block, or it is on its way.
        if matches!(self.ledger.front(), Some(Entry { place: Place::Disk(_), .. }))
            && self.disk.writing == 0
        {
            assert!(self.wants_read().is_some(), "no memory for the reader: {self:?}");
        }
    }
}
