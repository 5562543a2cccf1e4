//! How much block memory a buffer holds, against its limit and its lender's.
//! Never lets it pass either, and never knows what is in a block.

use std::{io, sync::Arc};

use crate::{
    block::{Block, Reuse},
    lender::{Lender, Purpose, SharedLimits},
};

#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    /// None for a buffer that stands alone: its limit is all there is.
    lender: Option<Arc<dyn Lender>>,
    /// Blocks are wiped when they are freed.
    secret: bool,
    held: usize,
    lent: usize,
    peak: usize,
}

/// Blocks of a backlog that was given up. They are freed without the buffer's lock, for that takes a while; only then is their
/// memory free for others.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    blocks: Vec<Block>,
    bytes: usize,
    lender: Option<Arc<dyn Lender>>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.blocks.clear();
        if let Some(lender) = &self.lender {
            lender.give(self.bytes);
        }
    }
}

impl Memory {
    pub(crate) fn new(limit: usize, secret: bool, lender: Option<Arc<dyn Lender>>) -> Self {
        Self { limit, lender, secret, held: 0, lent: 0, peak: 0 }
    }

    /// `None` where the lender has none.
    pub(crate) fn take(&mut self, size: usize, purpose: Purpose, reuse: Reuse) -> Option<Block> {
        if !self.reserve(size, purpose) {
            return None;
        }
        let block = Block::allocate(size, reuse);
        Some(if self.secret { block.secret() } else { block })
    }

    /// Counts as held what somebody else has, if the lender has that much.
    pub(crate) fn reserve(&mut self, size: usize, purpose: Purpose) -> bool {
        debug_assert!(size <= self.free());
        if !self.lender.as_ref().is_none_or(|lender| lender.take(size, purpose)) {
            return false;
        }
        self.held += size;
        self.peak = self.peak.max(self.held);
        true
    }

    pub(crate) fn can_take(&self, size: usize, purpose: Purpose) -> bool {
        size <= self.free() && self.lender.as_ref().is_none_or(|lender| lender.can_take(size, purpose))
    }

    pub(crate) fn release(&mut self, size: usize) {
        self.held -= size;
        if let Some(lender) = &self.lender {
            lender.give(size);
        }
    }

    /// Counts a block as held no more, and leaves the rest to `given_up`.
    pub(crate) fn give_up(&mut self, block: Block, given_up: &mut Option<Box<GivenUp>>) {
        let given_up = given_up.get_or_insert_default();
        self.held -= block.capacity();
        given_up.bytes += block.capacity();
        given_up.lender.clone_from(&self.lender);
        given_up.blocks.push(block);
    }

    pub(crate) fn may_lend(&self, size: usize) -> bool {
        self.lent + size <= self.limit / 2 && self.lender.as_ref().is_none_or(|lender| lender.may_lend(size))
    }

    pub(crate) fn lend(&mut self, size: usize) {
        self.lent += size;
        if let Some(lender) = &self.lender {
            lender.lend(size);
        }
    }

    pub(crate) fn unlend(&mut self, size: usize) {
        self.lent -= size;
        if let Some(lender) = &self.lender {
            lender.unlend(size);
        }
    }

    pub(crate) fn is_borrowed(&self) -> bool {
        self.lender.is_some()
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.lender.as_ref().is_some_and(|lender| lender.is_exhausted())
    }

    pub(crate) fn exhausted_by(&self) -> Option<Arc<io::Error>> {
        self.lender.as_ref()?.exhausted_by()
    }

    /// Of a buffer that does not stand alone.
    pub(crate) fn lenders_limits(&self) -> Option<SharedLimits> {
        self.lender.as_ref().map(|lender| lender.limits())
    }

    pub(crate) fn is_tight(&self) -> bool {
        self.lender.as_ref().is_some_and(|lender| lender.is_tight())
    }

    /// What is left of the buffer's own limit.
    pub(crate) fn free(&self) -> usize {
        self.limit - self.held
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(crate) fn lent(&self) -> usize {
        self.lent
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    pub(crate) fn invariants(&self) {
        assert!(self.held <= self.limit && self.lent <= self.held && self.held <= self.peak);
    }
}
