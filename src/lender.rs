//! Who lends memory, and what for. Only the words: a pool lends, a buffer's core asks.

use std::{fmt::Debug, io, sync::Arc};

/// What memory is wanted for: when it runs short, not all are served alike. The first ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// To read back what is on disk.
    Read,
    /// To write what a reader is about to take: nothing lies before it.
    HandOver,
    /// To write on where all that lies before is on disk: the only block in memory.
    WriteOne,
    Write,
}

impl Purpose {
    pub(crate) const ALL: [Self; 4] = [Self::Read, Self::HandOver, Self::WriteOne, Self::Write];
}

/// The limits of a pool, as its user gave them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedLimits {
    pub(crate) memory: usize,
    pub(crate) disk: Option<u64>,
}

/// Where the memory of many buffers comes from. It only counts: what it says may change at any time by
/// what other buffers do.
pub(crate) trait Lender: Debug + Send + Sync {
    fn take(&self, bytes: usize, purpose: Purpose) -> bool;
    fn can_take(&self, bytes: usize, purpose: Purpose) -> bool;
    fn give(&self, bytes: usize);
    /// Whether a block of this size may leave with a user.
    fn may_lend(&self, bytes: usize) -> bool;
    fn lend(&self, bytes: usize);
    fn unlend(&self, bytes: usize);
    /// Whether the disk that would relieve memory is full.
    fn is_exhausted(&self) -> bool;
    /// Why it was so last; `None` for its limit.
    fn exhausted_by(&self) -> Option<Arc<io::Error>>;
    /// What all who borrow here share, for errors.
    fn limits(&self) -> SharedLimits;
    /// Whether there is so little left that what can go to disk should.
    fn is_tight(&self) -> bool;
}
