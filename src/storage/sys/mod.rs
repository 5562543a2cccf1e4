//! What is asked of the platform: one small seam. `linux` is the platform that is tested.
//! Never retries and never interprets an error.

#[cfg(any(test, spill_shuttle))]
pub(crate) mod faulty;
#[cfg(any(test, spill_shuttle))]
pub(crate) mod hooked;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) mod linux;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;

use std::{fmt, fs, io, path::Path};

#[cfg(any(target_os = "linux", target_os = "android"))]
use linux as imp;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use portable as imp;

/// A file by positions: one method a system call, so that a test can fail each of them.
pub(crate) trait RawFile: Send + Sync + fmt::Debug {
    /// Writes from the first buffers, and says how many bytes.
    fn write_at(&self, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize>;
    /// Reads into the first buffers, and says how many bytes: 0 at the file's end.
    fn read_at(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize>;
    /// The same, but only what needs no waiting for the disk; else `WouldBlock`.
    fn read_cached(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize>;
    /// Gives a part of the file back to the file system; it reads as zeros then.
    fn punch(&self, at: u64, len: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// How long this process may make a file now, in bytes. What exceeds it fails on an I/O thread, and ends the process elsewhere.
    fn size_limit(&self) -> Option<u64>;
}

/// What is asked before there is a file.
pub(crate) trait Platform: Send + Sync + fmt::Debug {
    /// A file without a name, for this process alone.
    fn create(&self, dir: &Path) -> io::Result<Box<dyn RawFile>>;
    /// The name of the file system at `path`, if it lies in memory.
    fn memory_backed(&self, path: &Path) -> io::Result<Option<&'static str>>;
    /// How many bytes of the file system at `path` may still be used, and how many it has.
    fn free_space(&self, path: &Path) -> io::Result<(u64, u64)>;
}

#[derive(Debug)]
pub(crate) struct System;

impl Platform for System {
    fn create(&self, dir: &Path) -> io::Result<Box<dyn RawFile>> {
        Ok(Box::new(SystemFile(imp::create(dir)?)))
    }

    fn memory_backed(&self, path: &Path) -> io::Result<Option<&'static str>> {
        imp::memory_backed(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<(u64, u64)> {
        imp::free_space(path)
    }
}

#[derive(Debug)]
struct SystemFile(fs::File);

impl RawFile for SystemFile {
    fn write_at(&self, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
        imp::write_at(&self.0, bufs, at)
    }

    fn read_at(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        imp::read_at(&self.0, bufs, at)
    }

    fn read_cached(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        imp::read_cached(&self.0, bufs, at)
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        imp::punch(&self.0, at, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn size_limit(&self) -> Option<u64> {
        imp::file_size_limit()
    }
}
