//! What a user may set, checked once. Never does I/O.

use std::path::PathBuf;

use crate::{buffer::SpillBuffer, error::SpillError, slot};

/// The smallest `memory_limit`, in bytes.
pub(crate) const MIN_MEMORY: usize = 64 << 10;
const DEFAULT_MEMORY: usize = 1 << 20;

const LARGEST_BLOCK: usize = 64 << 10;
const SMALLEST_BLOCK: usize = 16 << 10;

/// What a write does when memory and disk are full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// It waits until the reader has made room: the buffer is then an ordinary bounded pipe.
    #[default]
    Wait,
    /// It fails with [`SpillError::DiskLimit`], after the same short grace in which a reader that
    /// keeps up makes room (about a millisecond). The reader gets every accepted byte, then that
    /// error.
    Fail,
}

/// Options of a [`SpillBuffer`]; made by [`SpillBuffer::builder`].
///
/// # Example
///
/// ```
/// use spillbuffer::{OnFull, SpillBuffer};
///
/// # fn main() -> Result<(), spillbuffer::SpillError> {
/// let buffer = SpillBuffer::builder()
///     .memory_limit(256 << 10)
///     .disk_limit(4 << 30)
///     .on_full(OnFull::Fail)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    memory_limit: usize,
    disk_limit: Option<u64>,
    on_full: OnFull,
    place: Place,
    verify: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            memory_limit: DEFAULT_MEMORY,
            disk_limit: None,
            on_full: OnFull::Wait,
            place: Place { dir: None, allow_memory_backed: false },
            verify: true,
        }
    }

    /// How much memory the buffer's blocks may take, in bytes: 64 KiB or more, 1 MiB by default.
    ///
    /// It counts whole blocks (16, 32 or 64 KiB, so that there are at least four), also those that
    /// [`next_chunk`](crate::SpillReader::next_chunk) lent and that are not dropped yet.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// How much disk the backlog may take, in bytes; by default as much as there is.
    ///
    /// `0` means memory only. It counts what is on disk now, with checksums, not what has passed
    /// through; a value too small for a single slot (20 KiB) is refused.
    pub fn disk_limit(mut self, bytes: u64) -> Self {
        self.disk_limit = Some(bytes);
        self
    }

    /// What a write does when memory and disk are full; [`OnFull::Wait`] by default.
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// Where the temp file is made. By default the first of the system's temp directory
    /// ([`std::env::temp_dir`]) and `/var/tmp` that is not memory-backed.
    ///
    /// It is looked at when the first byte spills, not here.
    pub fn temp_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.place.dir = Some(path.into());
        self
    }

    /// Whether a directory in memory (tmpfs, ramfs) will do; `false` by default, since it defeats the
    /// purpose: [`SpillError::MemoryBackedDir`]. An overlayfs whose upper layer is a tmpfs cannot be
    /// told from one on a disk.
    pub fn allow_memory_backed_dir(mut self, allow: bool) -> Self {
        self.place.allow_memory_backed = allow;
        self
    }

    /// Whether what comes back from the disk is checked against its CRC32C; `true` by default.
    /// `false` skips this checksum alone: stale, misplaced and short data is still told.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }

    /// The buffer. Makes no file and takes no block.
    ///
    /// # Errors
    ///
    /// [`SpillError::Config`] names an option whose value cannot be used, and the value.
    pub fn build(self) -> Result<SpillBuffer, SpillError> {
        Ok(SpillBuffer::with(&self.check()?))
    }

    pub(crate) fn check(self) -> Result<Options, SpillError> {
        let refuse = |option, problem| Err(SpillError::Config { option, problem });
        if self.memory_limit < MIN_MEMORY {
            return refuse(
                "memory_limit",
                format!("of {} bytes is too small: {MIN_MEMORY} is the least", self.memory_limit),
            );
        }
        if self.place.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            return refuse("temp_dir", "is an empty path".into());
        }
        let block = block_size(self.memory_limit, self.disk_limit);
        let slots = match self.disk_limit {
            None => slot::MAX_SLOTS,
            Some(bytes) => slot::slots_within(bytes, block),
        };
        if let (0, Some(bytes @ 1..)) = (slots, self.disk_limit) {
            return refuse(
                "disk_limit",
                format!(
                    "of {bytes} bytes is too small: one slot takes {} (0 means memory only)",
                    slot::least_file(block)
                ),
            );
        }
        Ok(Options {
            limits: Limits { memory: self.memory_limit, block, disk: self.disk_limit, on_full: self.on_full },
            slots,
            place: self.place,
            verify: self.verify,
        })
    }
}

/// Blocks as large as still leave eight of them (four at the smallest size): fewer would let the
/// writer and the disk take turns instead of working at once.
fn block_size(memory: usize, disk: Option<u64>) -> usize {
    let mut block = LARGEST_BLOCK;
    let slots = |block| disk.filter(|&bytes| bytes > 0).map_or(u64::MAX, |bytes| slot::slots_within(bytes, block));
    while block > SMALLEST_BLOCK && (memory / block < 8 || slots(block) < 4) {
        block /= 2;
    }
    block
}

/// Checked options, as the parts below want them.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
    /// How many slots the file may have.
    pub(crate) slots: u64,
    pub(crate) place: Place,
    pub(crate) verify: bool,
}

/// What bounds one buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of blocks.
    pub(crate) memory: usize,
    /// Bytes of one block, and of one slot's payload.
    pub(crate) block: usize,
    /// The `disk_limit` as the user gave it, for errors; `Some(0)` never spills.
    pub(crate) disk: Option<u64>,
    pub(crate) on_full: OnFull,
}

/// Where temp files are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) allow_memory_backed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c04_at_least_four_blocks_fit_any_limit() {
        for memory in (MIN_MEMORY..(2 << 20)).step_by(977) {
            let options = Builder::new().memory_limit(memory).check().unwrap();
            assert!(options.limits.memory / options.limits.block >= 4, "{memory}");
        }
    }

    #[test]
    fn bad_values_are_refused_and_named() {
        for (builder, option, value) in [
            (Builder::new().memory_limit(65535), "memory_limit", "65535"),
            (Builder::new().memory_limit(0), "memory_limit", "0"),
            (Builder::new().disk_limit(1), "disk_limit", "1"),
            (Builder::new().disk_limit(20 << 10).memory_limit(1 << 20), "ok", ""),
            (Builder::new().disk_limit((20 << 10) - 1), "disk_limit", "20479"),
            (Builder::new().temp_dir(""), "temp_dir", "empty"),
            (Builder::new().disk_limit(0), "ok", ""),
        ] {
            match builder.check() {
                Ok(_) => assert_eq!(option, "ok"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with(option) && text.contains(value), "{text}");
                }
            }
        }
    }
}
