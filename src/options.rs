//! What a user may set, checked once. Never does I/O.

use std::path::PathBuf;

use crate::{
    error::SpillError,
    slot::{Geometry, MAX_SLOTS},
};

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
    /// It fails with [`SpillError::DiskLimit`], once the short grace is over in which a reader that
    /// keeps up makes room (about a millisecond, from when the window was first full). The reader
    /// gets every accepted byte, then that error.
    Fail,
}

/// What a user has set, not yet checked.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) memory_limit: usize,
    pub(crate) disk_limit: Option<u64>,
    pub(crate) on_full: OnFull,
    pub(crate) place: Place,
    pub(crate) verify: bool,
    /// None where nothing was said: wherever encryption is built in.
    pub(crate) encrypt: Option<bool>,
    /// Two threads may write for one buffer also where nothing is encrypted; for tests.
    pub(crate) assisted: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory_limit: DEFAULT_MEMORY,
            disk_limit: None,
            on_full: OnFull::Wait,
            place: Place::default(),
            verify: true,
            encrypt: None,
            assisted: false,
        }
    }
}

impl Settings {
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
        // The crate's own tests look at what the file holds: there it is off unless they ask for it.
        let encrypt = self.encrypt.unwrap_or(cfg!(all(feature = "encryption", not(test))));
        let block = block_size(self.memory_limit, self.disk_limit);
        let slots = match self.disk_limit {
            None => MAX_SLOTS,
            Some(bytes) => Geometry::new(block).slots_within(bytes),
        };
        if let (0, Some(bytes @ 1..)) = (slots, self.disk_limit) {
            return refuse(
                "disk_limit",
                format!(
                    "of {bytes} bytes is too small: one slot takes {} (0 means memory only)",
                    Geometry::new(block).occupied(1)
                ),
            );
        }
        Ok(Options {
            limits: Limits {
                memory: self.memory_limit,
                block,
                encrypt,
                assisted: encrypt || self.assisted,
                disk: self.disk_limit,
                slots,
                on_full: self.on_full,
            },
            place: self.place,
            verify: self.verify,
        })
    }

    /// What a pool's settings mean for each of its buffers.
    pub(crate) fn for_members(self) -> Self {
        let memory_limit = self.memory_limit.min(DEFAULT_MEMORY);
        Self { memory_limit, disk_limit: None, place: Place::default(), encrypt: None, ..self }
    }

    /// Checks the settings of a pool's buffer against the pool's own.
    pub(crate) fn check_within(self, pool: &Limits) -> Result<Options, SpillError> {
        let refuse = |option, problem| Err(SpillError::Config { option, problem });
        let least = MIN_MEMORY.max(4 * pool.block);
        if self.memory_limit < least || self.memory_limit > pool.memory {
            let problem = format!(
                "of {} bytes does not fit the pool: {least} is the least, {} the pool's",
                self.memory_limit, pool.memory
            );
            return refuse("memory_limit", problem);
        }
        if self.place.dir.is_some() {
            return refuse("temp_dir", "is the pool's to choose".into());
        }
        if self.place.allow_memory_backed {
            return refuse("allow_memory_backed_dir", "is the pool's to choose".into());
        }
        if self.encrypt.is_some() {
            return refuse("encrypt", "is the pool's to choose".into());
        }
        let slots = match self.disk_limit {
            None => pool.slots,
            Some(bytes) => Geometry::new(pool.block).slots_within(bytes),
        };
        if let Some(bytes) = self.disk_limit {
            let least = Geometry::new(pool.block).occupied(1);
            if bytes > 0 && (slots == 0 || slots > pool.slots) {
                let most = pool.disk.unwrap_or(u64::MAX);
                let problem =
                    format!("of {bytes} bytes does not fit the pool: {least} is the least, {most} the pool's");
                return refuse("disk_limit", problem);
            }
        }
        Ok(Options {
            limits: Limits {
                memory: self.memory_limit,
                block: pool.block,
                encrypt: pool.encrypt,
                assisted: pool.assisted,
                disk: self.disk_limit,
                slots,
                on_full: self.on_full,
            },
            place: self.place,
            verify: self.verify,
        })
    }
}

/// Blocks as large as still leave eight of them (four at the smallest size): fewer would let the
/// writer and the disk take turns instead of working at once.
fn block_size(memory: usize, disk: Option<u64>) -> usize {
    let mut block = LARGEST_BLOCK;
    let slots =
        |block| disk.filter(|&bytes| bytes > 0).map_or(u64::MAX, |bytes| Geometry::new(block).slots_within(bytes));
    while block > SMALLEST_BLOCK && (memory / block < 8 || slots(block) < 4) {
        block /= 2;
    }
    block
}

/// Checked options, as the parts below want them.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) limits: Limits,
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
    /// What goes to disk is encrypted, and freed blocks are wiped.
    pub(crate) encrypt: bool,
    /// Two threads may write for one buffer: what they do besides the file's own part is worth it.
    pub(crate) assisted: bool,
    /// The `disk_limit` as the user gave it to this buffer, or to this pool; for errors.
    pub(crate) disk: Option<u64>,
    /// How many slots that is; none never spills.
    pub(crate) slots: u64,
    pub(crate) on_full: OnFull,
}

/// Where temp files are made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
            let options = Settings { memory_limit: memory, ..Settings::default() }.check().unwrap();
            assert!(options.limits.memory / options.limits.block >= 4, "{memory}");
        }
    }
}
