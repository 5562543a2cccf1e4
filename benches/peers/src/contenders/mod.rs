//! Those who are compared, each a file: the same work through different means. None of them knows of a clock but the one
//! it starts and stops.

mod blocking_spooled;
mod channel;
mod chunks;
mod copies;
mod pipe;
mod raw;
mod seekable;
mod short;
mod slow_reader;
mod spilling;
mod two_threads;

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use spillbuffer::{SpillBuffer, SpillReader, SpillWriter};
use tokio::runtime::{Builder, Runtime};

use crate::{
    content::{Check, Compare, PIECE, Source},
    process::unlinked,
};

pub(crate) use {
    blocking_spooled::blocking_spooled,
    channel::{channel_backlog, channel_pipe},
    chunks::{channel_chunks, spillbuffer_chunks},
    copies::{one_copy, two_copies},
    pipe::{duplex_pipe, spillbuffer_pipe},
    raw::raw,
    seekable::{async_spooled, tokio_file},
    short::{duplex_short, spillbuffer_short},
    slow_reader::{writer_alone, writer_beside},
    spilling::spilling,
    two_threads::two_threads,
};

/// What a contender reads with, in one call.
const READ: usize = 64 << 10;

/// The work.
#[derive(Clone, Copy)]
pub(crate) struct Job {
    /// Length of the stream.
    pub bytes: u64,
    /// How many bytes are written at a time.
    pub piece: usize,
    /// Bytes that may wait in memory, for those who can be told.
    pub window: usize,
    /// Whether what comes back from the disk is checked, for those who can.
    pub verify: bool,
    pub compare: Compare,
}

impl Job {
    pub(crate) fn new(bytes: u64, window: usize, compare: Compare) -> Self {
        Self { bytes, piece: PIECE, window, verify: true, compare }
    }

    fn source(&self) -> Source {
        Source::new(0, self.piece)
    }

    fn check(&self) -> Check {
        Check::new(0, self.piece, self.compare)
    }

    fn offsets(&self) -> impl Iterator<Item = u64> + use<> {
        (0..self.bytes).step_by(self.piece)
    }

    fn buffer(&self) -> (SpillWriter, SpillReader) {
        let builder = SpillBuffer::builder().memory_limit(self.window).verify(self.verify);
        builder.build().expect("a window that is allowed").into_split()
    }
}

/// Two workers: one for each side.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

/// Drops what holds a file, and stops the clock when the file's space is free.
fn stop(started: Instant, store: impl Sized) -> Duration {
    free(store);
    started.elapsed()
}

/// Drops what holds a file, and waits until its space is free: some free it on a thread of their own.
fn free(store: impl Sized) {
    // Held open here, the file cannot go before all others have closed it. Then it goes on this thread.
    let held: Vec<File> = unlinked().iter().filter_map(|path| File::open(path).ok()).collect();
    drop(store);
    while unlinked().len() > held.len() {
        thread::yield_now();
    }
}
