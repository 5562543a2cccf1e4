//! Where each byte of the backlog lies: a row of entries in the stream's order.
//! Never moves a byte and never decides what goes to disk.
//!
//! What is in memory has one entry a block; what is on disk has one a run of adjacent slots, so that
//! a backlog of any length that lies contiguous is one entry.

use std::{collections::VecDeque, sync::Arc};

use crate::{block::Block, error::SpillError, slot::SlotRun};

#[derive(Debug)]
pub(crate) struct Entry {
    /// The stream's offset of the first byte.
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) place: Place,
}

#[derive(Debug)]
pub(crate) enum Place {
    Memory(Arc<Block>),
    /// On its way to a slot; still readable here, and only dropped once the write has succeeded.
    Writing {
        block: Arc<Block>,
        slot: u64,
    },
    /// All slots of a run but the last are full.
    Disk(SlotRun),
    /// On its way back.
    Reading(SlotRun),
    /// On its way into the reader's own memory.
    Direct(SlotRun),
    /// Read back and not yet consumed: the slot stays, so that the block can be taken away again.
    Ahead {
        block: Arc<Block>,
        slot: u64,
    },
    /// Could not be read back. The reader meets the error when it gets here.
    Bad(Box<SpillError>),
}

impl Entry {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    pub(crate) fn block(&self) -> Option<&Arc<Block>> {
        match &self.place {
            Place::Memory(block) | Place::Writing { block, .. } | Place::Ahead { block, .. } => Some(block),
            Place::Disk(_) | Place::Reading(_) | Place::Direct(_) | Place::Bad(_) => None,
        }
    }

    /// Whether its block is encrypted, as it is to be on disk.
    #[inline]
    pub(crate) fn is_sealed(&self) -> bool {
        self.block().is_some_and(|block| block.sealed().is_some())
    }

    /// Bytes that only the disk holds.
    pub(crate) fn on_disk(&self) -> u64 {
        match self.place {
            Place::Disk(_) | Place::Reading(_) | Place::Direct(_) => self.len,
            _ => 0,
        }
    }

    fn joins(&self, next: &Self, block: u64) -> bool {
        match (&self.place, &next.place) {
            (Place::Disk(this), Place::Disk(next)) => this.end() == next.first && self.len == this.count * block,
            _ => false,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: VecDeque<Entry>,
}

impl Ledger {
    pub(crate) fn push(&mut self, entry: Entry) {
        debug_assert!(self.entries.back().is_none_or(|last| last.end() == entry.start));
        self.entries.push_back(entry);
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<&Entry> {
        self.entries.front()
    }

    pub(crate) fn front_mut(&mut self) -> Option<&mut Entry> {
        self.entries.front_mut()
    }

    /// Gives up the first entry if it ends at or before `offset`.
    #[inline]
    pub(crate) fn pop_before(&mut self, offset: u64) -> Option<Entry> {
        if self.entries.front()?.end() > offset {
            return None;
        }
        let popped = self.entries.pop_front();
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries.shrink_to(16);
        }
        popped
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Entry> {
        self.entries.get(at)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Entry> {
        self.entries.get_mut(at)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    pub(crate) fn take_all(&mut self) -> VecDeque<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// The entry that begins at `start`, if there still is one.
    pub(crate) fn starting_at(&self, start: u64) -> Option<usize> {
        let at = self.entries.partition_point(|entry| entry.start < start);
        (self.entries.get(at)?.start == start).then_some(at)
    }

    /// Puts `parts` in the place of one entry. They cover the same bytes.
    pub(crate) fn replace(&mut self, at: usize, parts: impl DoubleEndedIterator<Item = Entry>) {
        let Some(old) = self.entries.remove(at) else { return };
        let mut covered = 0;
        for part in parts.rev() {
            covered += part.len;
            self.entries.insert(at, part);
        }
        debug_assert_eq!(covered, old.len);
    }

    /// Joins runs on disk that have become neighbours among the entries `from..=to`.
    pub(crate) fn join(&mut self, from: usize, to: usize, block: u64) {
        let to = to.min(self.entries.len().saturating_sub(1));
        for at in (from + 1..=to).rev() {
            if !self.entries[at - 1].joins(&self.entries[at], block) {
                continue;
            }
            let Some(next) = self.entries.remove(at) else { continue };
            if let (Entry { len, place: Place::Disk(run), .. }, Place::Disk(tail)) =
                (&mut self.entries[at - 1], next.place)
            {
                run.count += tail.count;
                *len += next.len;
            }
        }
    }
}
