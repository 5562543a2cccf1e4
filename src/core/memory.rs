//! How much block memory a buffer holds, against its limit.
//! Never lets it pass the limit, and never knows what is in a block.

use crate::block::Block;

#[derive(Debug)]
pub(crate) struct Memory {
    limit: usize,
    held: usize,
    lent: usize,
    peak: usize,
}

impl Memory {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, held: 0, lent: 0, peak: 0 }
    }

    pub(crate) fn take(&mut self, size: usize) -> Block {
        self.held += size;
        self.peak = self.peak.max(self.held);
        debug_assert!(self.held <= self.limit);
        Block::allocate(size)
    }

    pub(crate) fn release(&mut self, block: Block) {
        self.held -= block.capacity();
        drop(block);
    }

    pub(crate) fn lend(&mut self, size: usize) {
        self.lent += size;
    }

    pub(crate) fn unlend(&mut self, size: usize) {
        self.lent -= size;
    }

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
