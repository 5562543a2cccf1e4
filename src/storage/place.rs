//! In which directory a temp file is made: one that lies on a disk. Never makes a file.

use std::path::{Path, PathBuf};

use super::sys::Platform;
use crate::{
    error::{SpillError, StorageOp},
    options::Place,
};

impl Place {
    /// The directory to use. `offset` is the stream's, for the error.
    pub(super) fn choose(&self, platform: &dyn Platform, offset: u64) -> Result<PathBuf, SpillError> {
        match &self.dir {
            Some(dir) => self.check(platform, dir, offset).map(|()| dir.clone()),
            None => self.first_on_disk(platform),
        }
    }

    fn check(&self, platform: &dyn Platform, dir: &Path, offset: u64) -> Result<(), SpillError> {
        match platform.memory_backed(dir) {
            Ok(Some(file_system)) if !self.allow_memory_backed => {
                Err(SpillError::MemoryBackedDir { path: dir.to_path_buf(), file_system })
            }
            Ok(_) => Ok(()),
            Err(source) => Err(SpillError::storage(StorageOp::Create, dir, offset, source)),
        }
    }

    fn first_on_disk(&self, platform: &dyn Platform) -> Result<PathBuf, SpillError> {
        let mut candidates = vec![std::env::temp_dir()];
        if cfg!(unix) && candidates[0] != Path::new("/var/tmp") {
            candidates.push("/var/tmp".into());
        }
        let mut tried = Vec::with_capacity(candidates.len());
        for dir in candidates {
            match platform.memory_backed(&dir) {
                Ok(Some(file_system)) if !self.allow_memory_backed => {
                    tried.push((dir, format!("memory-backed ({file_system})")));
                }
                Ok(_) => return Ok(dir),
                Err(error) => tried.push((dir, format!("not usable ({error})"))),
            }
        }
        Err(SpillError::NoDiskBackedDir { tried: tried.into() })
    }
}
