//! The options of a buffer, as a user sets them. Never does I/O.

use std::{path::PathBuf, sync::Arc};

use crate::{
    buffer::SpillBuffer,
    error::SpillError,
    options::{OnFull, Settings},
    pool::Pool,
    shell::Shared,
};

/// Options of a [`SpillBuffer`]; made by [`SpillBuffer::builder`], or for a buffer of a pool by
/// [`PoolHandle::builder`](crate::PoolHandle::builder).
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
    settings: Settings,
    /// None for a buffer that stands alone.
    pool: Option<Arc<Pool>>,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { settings: Settings::default(), pool: None }
    }

    /// Of a buffer of this pool.
    pub(crate) fn of(pool: Arc<Pool>, defaults: Settings) -> Self {
        Self { settings: defaults, pool: Some(pool) }
    }

    /// How much memory the buffer's blocks may take, in bytes: 64 KiB or more, 1 MiB by default.
    ///
    /// It counts whole blocks (16, 32 or 64 KiB, so that there are at least four), also those that
    /// [`next_chunk`](crate::SpillReader::next_chunk) lent and that are not dropped yet.
    ///
    /// A pool has one size of blocks for all of its buffers, which follows from the pool's limits, and a buffer needs four of them: 256 KiB
    /// where they are of 64. [`build`](Self::build) names the least where this is less.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.settings.memory_limit = bytes;
        self
    }

    /// How much disk the backlog may take, in bytes; by default as much as there is.
    ///
    /// The file system's own map of the file may come on top: a page for some 340 pieces of it on ext4.
    ///
    /// `0` means memory only. It counts what is on disk now, with checksums, not what has passed
    /// through; a value too small for a single slot (20 KiB) is refused.
    pub fn disk_limit(mut self, bytes: u64) -> Self {
        self.settings.disk_limit = Some(bytes);
        self
    }

    /// What a write does when memory and disk are full; [`OnFull::Wait`] by default.
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.settings.on_full = on_full;
        self
    }

    /// Where the temp file is made. By default the first of the system's temp directory
    /// ([`std::env::temp_dir`]) and `/var/tmp` that is not memory-backed.
    ///
    /// It is looked at when the first byte spills, not here.
    pub fn temp_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.settings.place.dir = Some(path.into());
        self
    }

    /// Whether a directory in memory (tmpfs, ramfs) will do; `false` by default, since it defeats the
    /// purpose: [`SpillError::MemoryBackedDir`]. An overlayfs whose upper layer is a tmpfs cannot be
    /// told from one on a disk.
    pub fn allow_memory_backed_dir(mut self, allow: bool) -> Self {
        self.settings.place.allow_memory_backed = allow;
        self
    }

    /// Whether what comes back from the disk is checked against its CRC32C; `true` by default.
    /// `false` skips this checksum alone: stale, misplaced and short data is still told.
    pub fn verify(mut self, verify: bool) -> Self {
        self.settings.verify = verify;
        self
    }

    /// Whether what goes to disk is encrypted; `true` by default, where this feature is built in.
    ///
    /// With AES-256-GCM: each slot with a nonce of its own, bound to its stream and its place there, under a key that is made
    /// with the first temp file and never leaves memory. What is read back is then always authenticated, whatever
    /// [`verify`](Self::verify) says, and blocks are wiped when they are freed.
    ///
    /// A writer whose reader is behind encrypts instead of copying, where it hands over whole blocks (16, 32 or 64 KiB; their
    /// multiples are good pieces to write). What it wrote in other pieces an I/O thread encrypts, never where it lies, for a reader
    /// may be about to take it: each that writes, at most four for a temp directory, has four blocks of its own for that, 256 KiB at
    /// most. This is besides the `memory_limit` of buffers, whose whole window is theirs. Two of these threads may work for one
    /// buffer: one encrypts while the other writes.
    ///
    /// A reader decrypts what it reads from disk itself, and a thread does some of that ahead of it: up to four blocks for each reader,
    /// at most four readers a temp directory at a time, again besides the `memory_limit`. They are wiped like all others.
    #[cfg(any(feature = "encryption", test))]
    pub fn encrypt(mut self, encrypt: bool) -> Self {
        self.settings.encrypt = Some(encrypt);
        self
    }

    /// The buffer. Makes no file and takes no block.
    ///
    /// # Errors
    ///
    /// [`SpillError::Config`] names an option whose value cannot be used, and the value.
    pub fn build(self) -> Result<SpillBuffer, SpillError> {
        let Some(pool) = self.pool else { return Ok(SpillBuffer::with(&self.settings.check()?)) };
        let options = self.settings.check_within(&pool.limits())?;
        Ok(SpillBuffer::of(Shared::of(pool, &options)))
    }

    #[cfg(test)]
    pub(crate) fn settings(self) -> Settings {
        self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            match builder.settings().check() {
                Ok(_) => assert_eq!(option, "ok"),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with(option) && text.contains(value), "{text}");
                }
            }
        }
    }
}
