//! What a buffer holds and has done, as plain numbers. Never asks the system.

use std::time::Duration;

/// A snapshot of one buffer, taken under its lock, so that the figures agree with each other:
/// `written - read == in_memory + on_disk` until a side gives the backlog up.
///
/// `written` to `on_disk` count payload; `memory_held` to `file_bytes` count capacity, which is what
/// `memory_limit` and `disk_limit` bound. All are bytes. No system call is made for it. Capacity may
/// stay in use for a moment after the last byte was read: a write to disk that the reader has
/// overtaken is not called back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpillStats {
    /// Bytes accepted from the writer.
    pub written: u64,
    /// Bytes handed to the reader.
    pub read: u64,
    /// Bytes of the backlog that memory holds.
    pub in_memory: u64,
    /// Bytes of the backlog that only the disk holds.
    pub on_disk: u64,
    /// Capacity of the blocks in use: filling, queued, in flight, read ahead and lent.
    pub memory_held: u64,
    /// Capacity of the blocks behind chunks that `next_chunk` lent and that are not yet dropped.
    pub lent: u64,
    /// Capacity of the slots in use on disk, with their trailers.
    pub disk_held: u64,
    /// What the temp file occupies: slots in use and slots kept for reuse, with their trailers.
    pub file_bytes: u64,
    /// The highest `in_memory` so far.
    pub peak_in_memory: u64,
    /// The highest `on_disk` so far.
    pub peak_on_disk: u64,
    /// The highest `memory_held` so far.
    pub peak_memory_held: u64,
    /// The highest `disk_held` so far.
    pub peak_disk_held: u64,
    /// Bytes that have been written to disk in total.
    pub spilled: u64,
    /// How long the writer has been kept waiting in total (from `Pending` to its wake-up).
    pub writer_waited: Duration,
    /// How long the reader has been kept waiting in total (from `Pending` to its wake-up).
    pub reader_waited: Duration,
}
