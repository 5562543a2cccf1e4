//! The memory that many buffers share, counted without a lock; and why the disk would take no more of it, for errors.
//! Never says who gets it next: that is the queue's.

use std::io;

use crate::{
    lender::{Lender, Purpose, SharedLimits},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

/// What a pool needs at least, in blocks: two kept for readers, two for what is handed over, one for those who have nothing
/// else, three for all.
pub(crate) const LEAST_BLOCKS: usize = 8;

#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    block: usize,
    /// Kept for readers alone, and as much again for writers whose reader is about to take it: so that an
    /// active stream gets on however much memory stalled ones hold.
    reserve: usize,
    /// Kept besides for writers that have no block: some may hold theirs for good, where the disk does not take them.
    last: usize,
    held: AtomicUsize,
    lent: AtomicUsize,
    peak: AtomicUsize,
    exhausted: AtomicBool,
    /// Why it is, where not for the limit.
    exhausted_by: Mutex<Option<Arc<io::Error>>>,
    /// Of the disk, for errors.
    disk_limit: Option<u64>,
}

impl Budget {
    pub(crate) fn new(limit: usize, block: usize) -> Self {
        let reserve = (limit / 16).max(LEAST_BLOCKS / 4 * block);
        Self {
            limit,
            block,
            reserve,
            last: (limit / 64).max(block),
            held: AtomicUsize::new(0),
            lent: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            exhausted: AtomicBool::new(false),
            exhausted_by: Mutex::new(None),
            disk_limit: None,
        }
    }

    pub(crate) fn with_disk_limit(self, disk_limit: Option<u64>) -> Self {
        Self { disk_limit, ..self }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    pub(crate) fn lent(&self) -> usize {
        self.lent.load(SeqCst)
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak.load(SeqCst)
    }

    /// There was no slot, or no room for what was to be written to it; for the limit, or for this reason.
    pub(crate) fn exhaust(&self, by: Option<Arc<io::Error>>) {
        *self.exhausted_by.lock().unwrap_or_else(PoisonError::into_inner) = by;
        self.exhausted.store(true, SeqCst);
    }

    /// There are slots again, as far as is known.
    pub(crate) fn replenish(&self) {
        self.exhausted.store(false, SeqCst);
    }

    /// How many blocks could be had now.
    pub(crate) fn available(&self, purpose: Purpose) -> usize {
        self.most(purpose).saturating_sub(self.held()) / self.block
    }

    fn most(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Read => self.limit,
            Purpose::HandOver => self.limit - self.reserve,
            Purpose::WriteOne => self.limit - 2 * self.reserve,
            Purpose::Write => self.limit - 2 * self.reserve - self.last,
        }
    }
}

impl Lender for Budget {
    fn take(&self, bytes: usize, purpose: Purpose) -> bool {
        let most = self.most(purpose);
        let taken = self.held.fetch_update(SeqCst, SeqCst, |held| Some(held + bytes).filter(|&held| held <= most));
        if let Ok(before) = taken {
            self.peak.fetch_max(before + bytes, SeqCst);
        }
        taken.is_ok()
    }

    fn can_take(&self, bytes: usize, purpose: Purpose) -> bool {
        self.held() + bytes <= self.most(purpose)
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, SeqCst);
    }

    fn may_lend(&self, bytes: usize) -> bool {
        self.lent() + bytes <= self.limit / 2
    }

    fn lend(&self, bytes: usize) {
        self.lent.fetch_add(bytes, SeqCst);
    }

    fn unlend(&self, bytes: usize) {
        self.lent.fetch_sub(bytes, SeqCst);
    }

    fn is_exhausted(&self) -> bool {
        self.exhausted.load(SeqCst)
    }

    fn exhausted_by(&self) -> Option<Arc<io::Error>> {
        self.exhausted_by.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn limits(&self) -> SharedLimits {
        SharedLimits { memory: self.limit, disk: self.disk_limit }
    }

    fn is_tight(&self) -> bool {
        self.available(Purpose::Write).saturating_mul(8 * self.block) < self.limit
    }
}
