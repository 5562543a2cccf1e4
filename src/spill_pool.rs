//! Many buffers, one budget: the public pool. Never more than its options and a handle.

use std::{ops::Deref, path::PathBuf, sync::Arc};

use crate::{
    buffer::SpillBuffer,
    builder::Builder,
    error::SpillError,
    options::{OnFull, Settings},
    pool::{LEAST_BLOCKS, MinFreeSpace, Pool},
    storage::sys::{Platform, System},
};

const DEFAULT_MEMORY: usize = 64 << 20;
const DEFAULT_RETAIN: u64 = 64 << 20;

/// Many buffers that share one memory budget, one disk budget and one temp file.
///
/// A service that holds hundreds of streams is killed by their sum. A pool bounds that: all blocks of its
/// buffers together stay within `memory_limit`, all they have on disk within `disk_limit`, and neither
/// descriptors nor threads grow with the streams.
///
/// Memory goes where it helps most: what a stalled stream holds goes to disk when another needs it, also
/// a half-filled block, and some is kept for readers and for streams whose reader is waiting, so that an active
/// stream gets on beside any number of stalled ones. At the disk limit writers wait in order, or fail by their
/// own [`OnFull`].
///
/// A pool is cheap to clone and lives as long as its buffers.
///
/// # Example
///
/// ```
/// use spillbuffer::SpillPool;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let pool = SpillPool::builder().memory_limit(4 << 20).disk_limit(1 << 30).build()?;
/// let mut streams = Vec::new();
/// for _ in 0..20 {
///     let (mut writer, reader) = pool.buffer().into_split();
///     writer.write_all(&vec![7; 1 << 20]).await?; // 20 MiB into 4 MiB of memory
///     writer.finish()?;
///     streams.push(reader);
/// }
/// assert!(pool.stats().memory_held <= 4 << 20);
///
/// for mut reader in streams {
///     let mut all = Vec::new();
///     reader.read_to_end(&mut all).await?;
///     assert_eq!(all.len(), 1 << 20);
/// }
/// assert_eq!((pool.stats().in_memory, pool.stats().on_disk), (0, 0));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SpillPool {
    handle: PoolHandle,
}

impl SpillPool {
    /// Sets options of a pool. (Of one buffer: [`PoolHandle::builder`], as `pool.builder()`.)
    pub fn builder() -> PoolBuilder {
        PoolBuilder::new()
    }
}

impl Deref for SpillPool {
    type Target = PoolHandle;

    fn deref(&self) -> &PoolHandle {
        &self.handle
    }
}

/// What can be done with a [`SpillPool`], which derefs to this: a type of its own, so that `SpillPool::builder()`
/// makes a pool and `pool.builder()` a buffer.
#[derive(Debug, Clone)]
pub struct PoolHandle {
    pool: Arc<Pool>,
    defaults: Settings,
}

impl PoolHandle {
    /// A buffer with the pool's defaults. Makes no file and takes no block.
    #[must_use]
    pub fn buffer(&self) -> SpillBuffer {
        // `PoolBuilder::build` has checked them.
        match self.builder().build() {
            Ok(buffer) => buffer,
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Sets options of one buffer: limits of its own below the pool's (`memory_limit` is 1 MiB by default, or the
    /// pool's if that is less), `on_full` and `verify`. Where its bytes are stored is the pool's: `temp_dir` and
    /// `allow_memory_backed_dir` are refused by name.
    pub fn builder(&self) -> Builder {
        Builder::of(Arc::clone(&self.pool), self.defaults.clone())
    }

    /// Who waits for slots, in order, by the streams' numbers.
    #[cfg(test)]
    pub(crate) fn queue(&self) -> Vec<u64> {
        self.pool.queue()
    }

    /// How much work waits for an I/O thread.
    #[cfg(test)]
    pub(crate) fn waiting_for_threads(&self) -> usize {
        self.pool.waiting_for_threads()
    }

    /// What its buffers hold and have done together.
    pub fn stats(&self) -> PoolStats {
        let (members, past) = self.pool.members();
        let mut totals = past;
        let mut stats = PoolStats { buffers: members.len(), ..PoolStats::default() };
        for member in members {
            let one = member.stats();
            totals.add(&one);
            stats.in_memory += one.in_memory;
            stats.on_disk += one.on_disk;
        }
        if let Some(budget) = self.pool.budget() {
            stats.memory_held = budget.held() as u64;
            stats.lent = budget.lent() as u64;
            stats.peak_memory_held = budget.peak() as u64;
        }
        let (disk_held, peak_disk_held) = self.pool.disk_held();
        PoolStats {
            written: totals.written,
            read: totals.read,
            spilled: totals.spilled,
            disk_held,
            peak_disk_held,
            file_bytes: self.pool.file_bytes(),
            ..stats
        }
    }
}

/// Options of a [`SpillPool`]; made by [`SpillPool::builder`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PoolBuilder {
    settings: Settings,
    retain: u64,
    min_free_space: MinFreeSpace,
}

impl PoolBuilder {
    fn new() -> Self {
        Self {
            settings: Settings { memory_limit: DEFAULT_MEMORY, ..Settings::default() },
            retain: DEFAULT_RETAIN,
            min_free_space: MinFreeSpace::Usual,
        }
    }

    /// How much memory the blocks of all buffers may take together, in bytes: 128 KiB or more, 64 MiB by
    /// default.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.settings.memory_limit = bytes;
        self
    }

    /// How much disk the backlogs of all buffers may take together, in bytes; by default as much as there is
    /// ([`min_free_space`](Self::min_free_space) aside). `0` means memory only.
    pub fn disk_limit(mut self, bytes: u64) -> Self {
        self.settings.disk_limit = Some(bytes);
        self
    }

    /// What a write does when memory and disk are full, unless its buffer says otherwise; [`OnFull::Wait`] by
    /// default.
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.settings.on_full = on_full;
        self
    }

    /// Where the temp file is made; as [`Builder::temp_dir`].
    pub fn temp_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.place.dir = Some(path.into());
        self
    }

    /// As [`Builder::allow_memory_backed_dir`].
    pub fn allow_memory_backed_dir(mut self, allow: bool) -> Self {
        self.settings.place.allow_memory_backed = allow;
        self
    }

    /// As [`Builder::verify`], unless a buffer says otherwise.
    pub fn verify(mut self, verify: bool) -> Self {
        self.settings.verify = verify;
        self
    }

    /// As [`Builder::encrypt`], for all of them.
    #[cfg(any(feature = "encryption", test))]
    pub fn encrypt(mut self, encrypt: bool) -> Self {
        self.settings.encrypt = Some(encrypt);
        self
    }

    /// How much of the file is kept for reuse when it is not in use, in bytes; 64 MiB by default. A recycled region
    /// is written several times as fast as a fresh one. After a second without any traffic on disk nothing is kept, and on a full disk
    /// all of it is given back before anybody is told that it is full.
    pub fn retain(mut self, bytes: u64) -> Self {
        self.retain = bytes;
        self
    }

    /// How much of the file system is never used, in bytes: with less free than that, the disk counts as full. By
    /// default the smaller of 256 MiB and 5% of it. Asked for as the file grows (each 64 MiB), not per call; with `0` not at all,
    /// for then the file system itself says when it is full.
    pub fn min_free_space(mut self, bytes: u64) -> Self {
        self.min_free_space = MinFreeSpace::Bytes(bytes);
        self
    }

    /// The pool. Makes no file and takes no block.
    ///
    /// # Errors
    ///
    /// [`SpillError::Config`] names an option whose value cannot be used, and the value.
    pub fn build(self) -> Result<SpillPool, SpillError> {
        self.build_on(Arc::new(System))
    }

    /// As if what is written were encrypted: two threads may write for one buffer.
    #[cfg(test)]
    pub(crate) fn assisted(mut self, assisted: bool) -> Self {
        self.settings.assisted = assisted;
        self
    }

    pub(crate) fn build_on(self, platform: Arc<dyn Platform>) -> Result<SpillPool, SpillError> {
        let options = self.settings.clone().check()?;
        let limits = options.limits;
        let least = LEAST_BLOCKS * limits.block;
        if limits.memory < least {
            let problem = format!("of {} bytes is too small for a pool: {least} is the least", limits.memory);
            return Err(SpillError::Config { option: "memory_limit", problem });
        }
        let pool = Pool::shared(&options, platform, self.retain, self.min_free_space);
        let defaults = self.settings.for_members();
        Ok(SpillPool { handle: PoolHandle { pool, defaults } })
    }
}

/// A snapshot of a pool. Each figure is exact; they are taken one after the other, while buffers go on.
///
/// `written` to `on_disk` count payload, of all buffers that there are and were; `memory_held` to `peak_disk_held`
/// count capacity, which is what `memory_limit` and `disk_limit` bound. All are bytes but `buffers`. Capacity may stay in
/// use for a moment after the last byte was read: a write to disk that the reader has overtaken is not called back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Buffers that there are.
    pub buffers: usize,
    /// Bytes accepted from writers.
    pub written: u64,
    /// Bytes handed to readers.
    pub read: u64,
    /// Bytes that have been written to disk in total.
    pub spilled: u64,
    /// Bytes of the backlogs that memory holds.
    pub in_memory: u64,
    /// Bytes of the backlogs that only the disk holds.
    pub on_disk: u64,
    /// Capacity of the blocks in use.
    pub memory_held: u64,
    /// Capacity of the blocks behind chunks that were lent and are not yet dropped.
    pub lent: u64,
    /// Capacity of the slots in use on disk, with their trailers.
    pub disk_held: u64,
    /// What the temp file occupies: slots in use and slots kept for reuse, with their trailers.
    pub file_bytes: u64,
    /// The highest `memory_held` so far.
    pub peak_memory_held: u64,
    /// The highest `disk_held` so far.
    pub peak_disk_held: u64,
}
