//! Who lends memory, and what for. Only the words: a pool lends, a buffer's core asks.

use std::fmt::Debug;

/// What memory is wanted for: when it runs short, not all are served alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write,
    /// To write what a reader is about to take: nothing lies before it.
    HandOver,
    /// To read back what is on disk.
    Read,
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
    /// Whether there is so little left that what can go to disk should.
    fn is_tight(&self) -> bool;
}
