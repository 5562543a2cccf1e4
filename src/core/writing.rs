//! The core towards the writer: what it may write now, and into which memory.
//! Never lets it take what the reader needs to get on.

use bytes::{Buf, Bytes};

use super::{
    Core, Fill, Room, Tail,
    ledger::{Entry, Place},
};
use crate::{
    block::{Block, Reuse},
    error::SpillError,
    lender::Purpose,
    options::OnFull,
};

impl Core {
    /// Whether a byte can be taken, having taken a block for it if one is needed.
    #[inline]
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

    /// Whether so much can be taken now without another block.
    #[inline]
    pub(crate) fn has_room_for(&mut self, len: usize) -> Result<bool, SpillError> {
        Ok(self.room()? != Room::Full && matches!(&self.tail, Tail::Filling(fill) if fill.block.room() >= len))
    }

    /// Takes what fits into the present block.
    #[inline]
    pub(crate) fn append(&mut self, src: &[u8]) -> usize {
        let Tail::Filling(fill) = &mut self.tail else { return 0 };
        let taken = fill.block.append(src);
        self.accepted(taken);
        taken
    }

    /// Takes all of it into one block, and says so, if that leaves the block with room: then nothing follows from it, where the
    /// last settling was [quiet](Self::settle_if_quiet).
    #[inline]
    pub(crate) fn append_quietly(&mut self, src: &[u8]) -> bool {
        debug_assert!(self.is_quiet(), "{self:?}");
        if !self.ends.are_open() || !(matches!(self.tail, Tail::Filling(_)) || self.begins_a_block_for(src.len())) {
            return false;
        }
        let Tail::Filling(fill) = &mut self.tail else { return false };
        if src.len() >= fill.block.room() {
            return false;
        }
        fill.block.append(src);
        self.cursor.written += src.len() as u64;
        let backlog = self.cursor.written - self.cursor.read;
        self.peaks.in_memory = self.peaks.in_memory.max(backlog);
        self.invariants();
        true
    }

    /// Takes none that would be left empty. Kept apart, for most short writes find a block.
    #[inline(never)]
    fn begins_a_block_for(&mut self, len: usize) -> bool {
        self.next_block().is_some_and(|size| len < size) && self.tail_room().is_some()
    }

    /// Whether what is written now is likely to go to disk, and those who write it there have no time to spare.
    pub(crate) fn keeps_the_disk_busy(&self) -> bool {
        (self.disk.spilling && !self.disk.ahead) || self.squeezed || self.memory.is_tight()
    }

    /// Whether what is written now will go to disk, and not to a reader that keeps up: such a one would have to decrypt it for
    /// nothing, or would not find it in the cache.
    pub(crate) fn spills(&self) -> bool {
        self.disk.spilling || self.squeezed
    }

    /// The stream's offset of the first byte of the block that was [taken](Self::take_tail).
    pub(crate) fn out_from(&self) -> Option<u64> {
        match self.tail {
            Tail::Out { start, .. } => Some(start),
            _ => None,
        }
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

    pub(crate) fn check_flush(&self) -> Result<(), SpillError> {
        self.ends.check_flush()
    }

    pub(crate) fn finish(&mut self) -> Result<(), SpillError> {
        let open = self.ends.writer_is_open();
        self.ends.finish()?;
        if open {
            self.notes.visible = true;
        }
        Ok(())
    }

    /// Ends the stream, and says so, unless it has failed before: nothing follows from that, where the last settling was
    /// [quiet](Self::settle_if_quiet).
    #[inline]
    pub(crate) fn finish_quietly(&mut self) -> bool {
        debug_assert!(self.is_quiet(), "{self:?}");
        self.ends.finish().is_ok()
    }

    /// Moves of the item what fits into blocks; a block's worth at most, for this runs under the lock.
    pub(super) fn absorb(&mut self) {
        let mut most = self.limits.block;
        while most > 0 && !self.item.is_empty() {
            let Some(_) = self.tail_room() else { break };
            let Tail::Filling(fill) = &mut self.tail else { break };
            let taken = fill.block.append(&self.item[..most.min(self.item.len())]);
            most -= taken;
            self.advance_item(taken);
            self.seal_if_full();
        }
        self.note_peaks();
    }

    /// Goes on with what [`Wakes::more`](super::Wakes::more) asked for; says whether there is more to do.
    pub(crate) fn absorb_more(&mut self) -> bool {
        if self.item_has_room() {
            self.absorb();
        }
        self.item_has_room()
    }

    /// Whether more of the item could go into blocks now.
    pub(super) fn item_has_room(&self) -> bool {
        !self.item.is_empty()
            && match &self.tail {
                Tail::Filling(_) => true,
                Tail::Out { .. } => false,
                Tail::None => self.next_block().is_some_and(|size| self.memory.can_take(size, self.purpose())),
            }
    }

    pub(super) fn has_room(&self) -> bool {
        self.item.is_empty()
            && match &self.tail {
                Tail::Filling(_) => true,
                Tail::Out { .. } => false,
                Tail::None => self.next_block().is_some_and(|size| self.memory.can_take(size, self.purpose())),
            }
    }

    pub(super) fn must_refuse(&self) -> bool {
        self.limits.on_full == OnFull::Fail
            && self.disk.spilling
            && self.disk.writing == 0
            // What it can write itself it tries: the disk may have room again.
            && (!self.disk_takes_more() || (self.memory.is_exhausted() && self.to_write().is_none()))
            && !self.disk.is_busy()
            && self.ends.writer_is_open()
            && !self.has_room()
    }

    pub(super) fn refuse(&mut self) -> SpillError {
        let source = if self.disk_takes_more() { self.memory.exhausted_by() } else { self.disk.blocked_by() };
        let pool = self.memory.lenders_limits();
        // Its own limits are named where they are what is reached, or nothing of the kind is.
        let pools_memory = pool.map(|pool| pool.memory).filter(|_| self.next_block().is_some());
        let is_pools = source.is_none() && self.disk.slots < self.limits.slots;
        let pools_disk = pool.and_then(|pool| pool.disk).filter(|_| is_pools || self.limits.disk.is_none());
        let error = SpillError::DiskLimit {
            limit: pools_disk.or(self.limits.disk),
            pool_limit: pools_disk.is_some(),
            memory_limit: pools_memory.unwrap_or(self.limits.memory),
            pool_memory_limit: pools_memory.is_some(),
            offset: self.cursor.written,
            source,
        };
        // Never refused: the writer was open.
        let _ = self.fail(error.clone());
        error
    }

    #[inline]
    pub(super) fn accepted(&mut self, n: usize) {
        self.cursor.written += n as u64;
        self.notes.visible = true;
        self.seal_if_full();
        self.note_peaks();
    }

    #[inline]
    pub(super) fn seal_if_full(&mut self) {
        if matches!(&self.tail, Tail::Filling(fill) if fill.block.room() == 0) {
            self.seal_tail();
        }
    }

    /// Room in the tail, having begun a new one where that is possible.
    #[inline]
    pub(super) fn tail_room(&mut self) -> Option<usize> {
        match &self.tail {
            Tail::Filling(fill) => return Some(fill.block.room()),
            Tail::Out { .. } => return None,
            Tail::None => {}
        }
        let block = match self.take_block() {
            Some(block) => block,
            None if self.take_back_ahead() => self.take_block()?,
            None => return None,
        };
        let room = block.room();
        let start = self.cursor.written - self.item.len() as u64;
        self.tail = Tail::Filling(Fill { start, block });
        Some(room)
    }

    #[inline]
    fn take_block(&mut self) -> Option<Block> {
        let size = self.next_block()?;
        let reuse = if self.disk.spilling { Reuse::Oldest } else { Reuse::Newest };
        self.memory.take(size, self.purpose(), reuse)
    }

    #[inline]
    pub(super) fn purpose(&self) -> Purpose {
        if self.backlog() <= self.item.len() as u64 {
            Purpose::HandOver
        } else if self.memory.held() == self.memory.lent() {
            Purpose::WriteOne
        } else {
            Purpose::Write
        }
    }

    /// Whether somebody waits for a block that the buffer's own limit allows.
    pub(super) fn writer_wants_block(&self) -> bool {
        let waits = (self.parked.writer && self.ends.writer_is_open()) || !self.item.is_empty();
        waits && matches!(self.tail, Tail::None) && self.next_block().is_some()
    }

    /// The size of the block that the writer may have now.
    #[inline]
    pub(super) fn next_block(&self) -> Option<usize> {
        let free = self.memory.free();
        if free >= self.reserved() + self.limits.block {
            return Some(self.limits.block);
        }
        // What a limit leaves beside whole blocks is used too, so that a backlog within the limit
        // needs no disk; but not while spilling, when each would waste a slot.
        (!self.disk.spilling && self.disk.slots == 0 && free > 0).then_some(free)
    }

    /// What the writer must leave free.
    pub(super) fn reserved(&self) -> usize {
        self.reserved_behind(self.ledger.front())
    }

    /// The memory that must stay free while `front` is the reader's next: enough, with what `front` will
    /// set free itself, for a block to read the disk with.
    pub(super) fn reserved_behind(&self, front: Option<&Entry>) -> usize {
        match front {
            Some(front) if self.disk.slots > 0 => {
                let block = self.limits.block;
                block.saturating_sub(match &front.place {
                    // A short slot may have been given no more memory than it needs.
                    Place::Reading(_) => front.len.min(block as u64) as usize,
                    // To open it while it is being written takes another.
                    Place::Writing { .. } if front.is_sealed() => 0,
                    _ => front.block().map_or(0, |block| block.capacity()),
                })
            }
            _ => 0,
        }
    }

    pub(super) fn advance_item(&mut self, n: usize) {
        self.item.advance(n);
        if self.item.is_empty() {
            self.trash = Some(std::mem::take(&mut self.item));
            self.notes.writable = true;
        }
    }
}
