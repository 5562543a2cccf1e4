//! The core towards the reader: what lies at the front, and what follows from consuming it.
//! Never gives a byte twice.

use std::sync::Arc;

use super::{
    Core, Fill, Front, Tail,
    ends::Outcome,
    ledger::{Entry, Place},
};
use crate::{
    block::{Block, Reuse},
    error::SpillError,
    lender::Purpose,
    slot::SlotRun,
};

impl Core {
    /// Where the next byte is.
    pub(crate) fn front(&mut self) -> Front {
        self.notes.reader_polled = true;
        self.parked.reader = false;
        let front = self.look();
        if let Front::Failed(error) = &front {
            // Data that cannot be read back ends the reader; after any other failure this says nothing new.
            if matches!(self.ledger.front(), Some(Entry { place: Place::Bad(_), .. })) {
                let _ = self.end_reader(error.clone());
            }
        }
        front
    }

    #[inline]
    pub(super) fn look(&self) -> Front {
        if let Err(error) = self.ends.check_read() {
            return Front::Failed(error);
        }
        if self.discarded {
            return self.behind_the_last_byte();
        }
        if let Some(entry) = self.ledger.front() {
            return match &entry.place {
                _ if entry.is_sealed() => self.look_at_sealed(),
                Place::Memory(block) | Place::Writing { block, .. } | Place::Ahead { block, .. } => {
                    Front::Block { block: Arc::clone(block), at: (self.cursor.read - entry.start) as usize }
                }
                Place::Disk(_) if self.wants_read().is_some() && !self.reader_lacks_memory() => Front::Disk,
                Place::Disk(_) | Place::Reading(_) | Place::Direct(_) => Front::Wait,
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

    #[inline(never)]
    fn look_at_sealed(&self) -> Front {
        match self.copy_to_open() {
            // The write ends before long, or memory comes.
            Some(size) if !self.memory.can_take(size, Purpose::Read) => Front::Wait,
            _ => Front::Sealed,
        }
    }

    /// The memory that is needed to open the block at the front, if that is still to be written as it is. Any other is opened
    /// where it lies.
    pub(super) fn copy_to_open(&self) -> Option<usize> {
        let block = self.ledger.front().filter(|front| front.is_sealed())?.block()?;
        (Arc::strong_count(block) > 1).then(|| block.capacity())
    }

    /// Has the block at the front opened, where [`front`](Self::front) said that it is [sealed](Front::Sealed). `open` gets
    /// it with the stream's offset of its first byte. If it fails, the reader meets the error when it looks again.
    pub(crate) fn open_front(&mut self, open: impl FnOnce(u64, &mut Block) -> Result<(), SpillError>) {
        let copy = match self.copy_to_open() {
            None => None,
            Some(size) => match self.memory.take(size, Purpose::Read, Reuse::Newest) {
                Some(block) => Some(block),
                None => return,
            },
        };
        let Some(Entry { start, place, .. }) = self.ledger.front_mut() else { return };
        let (Place::Memory(block) | Place::Writing { block, .. } | Place::Ahead { block, .. }) = place else { return };
        if let Some(mut copy) = copy {
            copy.copy_from(block);
            *block = Arc::new(copy);
        }
        // Nobody else has it: only what is open is shown.
        let Some(own) = Arc::get_mut(block) else { return };
        if let Err(error) = open(*start, own) {
            self.is_bad(error);
        }
    }

    /// The block at the front is of no use.
    fn is_bad(&mut self, error: SpillError) {
        let Some(front) = self.ledger.front_mut() else { return };
        let place = std::mem::replace(&mut front.place, Place::Bad(Box::new(error)));
        let (start, len) = (front.start, front.len);
        self.drop_entry(Entry { start, len, place });
    }

    /// The reader waits for its turn: as if it had been woken and not yet polled.
    pub(crate) fn reader_yields(&mut self) {
        self.notes.reader_yields = true;
    }

    /// What is unread in the block that is being filled.
    #[inline]
    pub(crate) fn tail_unread(&self) -> &[u8] {
        match &self.tail {
            Tail::Filling(fill) => &fill.block.filled()[fill.block.len() - self.unread_in(fill)..],
            _ => &[],
        }
    }

    /// The next bytes, `most` at most and none at the end, if nothing follows from consuming them where the last settling was
    /// [quiet](Self::settle_if_quiet): that is, if they lie in a block that has more behind them, or are all that there is.
    #[inline]
    pub(crate) fn look_quietly(&self, most: usize) -> Option<&[u8]> {
        debug_assert!(self.is_quiet(), "{self:?}");
        if self.ends.reader_is_gone() {
            return None;
        }
        let unread = match self.ledger.front() {
            Some(Entry { start, place: Place::Memory(block), .. }) if block.sealed().is_none() => {
                block.filled().get((self.cursor.read - start) as usize..)?
            }
            Some(_) => return None,
            None => self.tail_unread(),
        };
        if unread.len() > most { unread.get(..most) } else { self.look_at_the_last() }
    }

    /// All that there is, if it lies in the block that is being filled. Kept apart, for most short reads find more.
    #[inline(never)]
    fn look_at_the_last(&self) -> Option<&[u8]> {
        if self.ledger.front().is_some() {
            return None;
        }
        match self.tail_unread() {
            [] => (self.cursor.read == self.cursor.written && self.ends.is_finished()).then_some(&[]),
            // Others may wait for the memory that comes free.
            unread => (!self.memory.is_borrowed()).then_some(unread),
        }
    }

    /// Counts what [`look_quietly`](Self::look_quietly) has shown as read.
    #[inline]
    pub(crate) fn consume_quietly(&mut self, n: usize) {
        self.cursor.read += n as u64;
        self.moved = true;
        self.grace.reader_polled_while_free();
        if self.cursor.read == self.cursor.written {
            self.consume_tail();
        }
        self.invariants();
    }

    /// Counts `n` bytes at the front as read and frees what nobody needs any more.
    #[inline]
    pub(crate) fn consume(&mut self, n: usize) {
        self.cursor.read += n as u64;
        self.moved = true;
        self.squeezed = false;
        if self.discarded {
            return;
        }
        while let Some(entry) = self.next_consumed() {
            self.drop_entry(entry);
            // Even if that freed no memory: what is kept for the reader depends on what is next.
            self.notes.writable = true;
        }
        if !self.item.is_empty() {
            let waiting_from = self.cursor.written - self.item.len() as u64;
            let n = self.cursor.read.saturating_sub(waiting_from) as usize;
            self.advance_item(n);
        }
        self.consume_tail();
        if self.at_most_half_full() {
            self.grace.forgive();
            // Lending frees no memory, but it may be what the writer was held for.
            self.notes.writable |= self.grace.is_held();
            self.end_spilling_if_drained();
        }
    }

    /// Takes out of the ledger what was read to its end. A look at an item outlasts its move into blocks and to disk: what was
    /// read of a run there meanwhile is cut off from the rest.
    fn next_consumed(&mut self) -> Option<Entry> {
        if let Some(&Entry { start, len, place: Place::Disk(run) }) = self.ledger.front() {
            let block = self.limits.block as u64;
            let slots = self.cursor.read.saturating_sub(start) / block;
            if (1..run.count).contains(&slots) {
                let read = SlotRun::new(run.first, slots);
                let rest = SlotRun::new(read.end(), run.count - slots);
                let parts = [(start, slots * block, read), (start + slots * block, len - slots * block, rest)];
                let parts = parts.map(|(start, len, run)| Entry { start, len, place: Place::Disk(run) });
                self.ledger.replace(0, parts.into_iter());
            }
        }
        self.ledger.pop_before(self.cursor.read)
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

    /// Whether `n` bytes at the front, in `block`, may be lent. Else they are to be copied: at most
    /// half the limit is lent, few bytes do not pin a block, and while something is on disk
    /// a block stays for it.
    pub(crate) fn may_lend(&self, block: &Block, n: usize) -> bool {
        self.memory.may_lend(block.capacity())
            && n >= block.capacity() / 4
            && self.memory.free() >= self.reserved_behind(self.ledger.get(1))
    }

    /// A block leaves with a user; [`return_lent`](Self::return_lent) must follow.
    pub(crate) fn lend(&mut self, block: &Block) {
        self.memory.lend(block.capacity());
    }

    pub(crate) fn return_lent(&mut self, block: Arc<Block>) {
        self.memory.unlend(block.capacity());
        // Also where that frees no memory: the window is larger now, and so is its half.
        self.notes.writable |= self.grace.is_held();
        self.put_back(block);
    }

    pub(super) fn behind_the_last_byte(&self) -> Front {
        match self.ends.outcome() {
            Outcome::Open => Front::Wait,
            Outcome::Finished => Front::End,
            Outcome::Failed(error) => Front::Failed(error),
        }
    }

    #[inline]
    pub(super) fn unread_in(&self, fill: &Fill) -> usize {
        ((fill.start + fill.block.len() as u64).saturating_sub(self.cursor.read)) as usize
    }

    /// A tail that was read to its end starts afresh: small writes that are read at once stay in the
    /// same few cache lines. An empty buffer keeps no block.
    #[inline]
    pub(super) fn consume_tail(&mut self) {
        match std::mem::take(&mut self.tail) {
            Tail::Filling(mut fill) if self.unread_in(&fill) == 0 && !self.item.is_empty() => {
                fill.block.clear();
                fill.start = self.cursor.written - self.item.len() as u64;
                self.tail = Tail::Filling(fill);
                self.notes.writable = true;
            }
            Tail::Filling(fill) if self.unread_in(&fill) == 0 => self.release(fill.block),
            other => self.tail = other,
        }
    }

    pub(super) fn reader_waits_for_memory(&self) -> bool {
        self.parked.reader
            && match self.copy_to_open() {
                Some(size) => self.memory.can_take(size, Purpose::Read),
                None => self.wants_read().is_some() && !self.reader_lacks_memory(),
            }
    }

    /// Whether only the lender keeps the reader from the disk.
    pub(super) fn reader_lacks_memory(&self) -> bool {
        let size = self.limits.block.min(self.memory.free());
        self.wants_read().is_some() && !self.memory.can_take(size, Purpose::Read)
    }
}
