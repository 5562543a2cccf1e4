//! The ledger of one buffer and every decision about it: what is where, who waits, what goes to disk.
//! Never does I/O, reads a clock, takes a lock or wakes anyone: it is handed grants and times as
//! numbers, hands out jobs as data, and says in [`Wakes`] whom its shell should wake.

mod ends;
mod grace;
mod invariants;
mod jobs;
mod ledger;
mod memory;
#[cfg(any(test, fuzzing))]
pub(crate) mod model;
mod reading;
#[cfg(test)]
mod tests;
mod waiting;
mod writing;

use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::jobs::{ReadJob, WriteFault, WriteJob, Wrote};
use self::{
    ends::Ends,
    grace::Grace,
    jobs::Disk,
    ledger::{Entry, Ledger, Place},
    memory::{GivenUp, Memory},
};
use crate::{
    block::Block,
    error::SpillError,
    lender::{Lender, Purpose},
    options::Limits,
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
    /// Others need its memory: what can go to disk goes there, until the reader moves.
    squeezed: bool,
    /// When to look again whether the disk of all is full.
    look_at: Option<u64>,
    /// The reader has moved since it was last asked.
    moved: bool,
    /// It was asked for memory, and the reader has not moved since.
    asked: bool,
    /// The backlog was given up: by `abort`, by the reader's end, by data that cannot be read back.
    discarded: bool,
    parked: Parked,
    notes: Notes,
    peaks: Peaks,
    trash: Option<Bytes>,
    /// Boxed, for few streams ever have it.
    given_up: Option<Box<GivenUp>>,
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
    reader_polled: bool,
    reader_yields: bool,
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
    /// Memory may have gone back to the lender.
    pub(crate) gave: bool,
    /// Memory that only the lender can give is waited for.
    pub(crate) lacks: Option<Purpose>,
    /// More of the item has room: [`Core::absorb_more`], which takes a while, under a lock of its own.
    pub(crate) more: bool,
    /// Memory that was given up at once: freeing it takes a while, and gives it to the lender.
    pub(crate) given_up: Option<Box<GivenUp>>,
    /// A user's `Bytes`: dropping it may run a user's code.
    pub(crate) trash: Option<Bytes>,
}

/// What follows where hardly anything does.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) struct Quiet {
    /// As in [`Wakes`].
    pub(crate) gave: bool,
    pub(crate) closed: bool,
    /// The backlog was given up, now or before.
    pub(crate) discarded: bool,
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
    Block {
        block: Arc<Block>,
        at: usize,
    },
    /// A block that is encrypted: [`Core::open_front`] makes bytes of it.
    Sealed,
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
    pub(crate) fn new(limits: Limits, lender: Option<Arc<dyn Lender>>) -> Self {
        Self {
            limits,
            cursor: Cursor::default(),
            ledger: Ledger::default(),
            tail: Tail::None,
            item: Bytes::new(),
            memory: Memory::new(limits.memory, limits.encrypt, lender),
            disk: Disk::default(),
            ends: Ends::new(),
            grace: Grace::default(),
            squeezed: false,
            look_at: None,
            moved: false,
            asked: false,
            discarded: false,
            parked: Parked::default(),
            notes: Notes::default(),
            peaks: Peaks::default(),
            trash: None,
            given_up: None,
        }
    }

    /// The writer's side fails: every accepted byte, then the error. It comes back where an earlier end
    /// stands, to be dropped without the lock: it may be a user's.
    pub(crate) fn fail(&mut self, error: SpillError) -> Result<(), SpillError> {
        self.ends.fail_writer(error)?;
        self.notes.visible = true;
        self.notes.writable = true;
        Ok(())
    }

    /// The writer's side fails and takes its backlog with it.
    pub(crate) fn abort(&mut self, error: SpillError) -> Result<(), SpillError> {
        self.ends.fail_writer(error)?;
        self.discard();
        Ok(())
    }

    /// The reader's side ends.
    pub(crate) fn end_reader(&mut self, error: SpillError) -> Result<(), SpillError> {
        self.ends.end_reader(error)?;
        self.notes.reader_gone = true;
        self.discard();
        Ok(())
    }

    pub(crate) fn reader_is_gone(&self) -> bool {
        self.ends.reader_is_gone()
    }

    /// Every share of a block ends here, so that the last one to come frees it.
    pub(crate) fn put_back(&mut self, block: Arc<Block>) {
        if let Some(block) = Arc::into_inner(block) {
            self.release(block);
        }
    }

    pub(crate) fn stats(&self) -> SpillStats {
        let on_disk = self.on_disk();
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

    /// Bytes of the backlog that only the disk has. A block that is back on disk may have been read in part.
    fn on_disk(&self) -> u64 {
        let read_of_it = match self.ledger.front() {
            Some(front) if front.on_disk() > 0 => self.cursor.read - front.start,
            _ => 0,
        };
        self.disk.bytes - read_of_it
    }

    #[inline]
    pub(super) fn backlog(&self) -> u64 {
        if self.discarded { 0 } else { self.cursor.written - self.cursor.read }
    }

    #[inline]
    pub(super) fn note_peaks(&mut self) {
        let backlog = self.backlog();
        let peaks = &mut self.peaks;
        peaks.on_disk = peaks.on_disk.max(self.disk.bytes);
        peaks.slots = peaks.slots.max(self.disk.slots);
        peaks.in_memory = peaks.in_memory.max(backlog.saturating_sub(self.disk.bytes));
    }

    pub(super) fn release(&mut self, block: Block) {
        self.notes.writable = true;
        if self.discarded {
            self.memory.give_up(block, &mut self.given_up);
            return;
        }
        // First it is gone, then it is free.
        let size = block.capacity();
        drop(block);
        self.memory.release(size);
    }

    pub(super) fn drop_entry(&mut self, entry: Entry) {
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
            Place::Reading(_) | Place::Direct(_) => self.disk.bytes -= entry.len,
            Place::Bad(_) => {}
        }
    }

    /// Gives the backlog up, now.
    pub(super) fn discard(&mut self) {
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
}
