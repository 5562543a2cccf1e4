//! Every other platform, through std alone. Untested. Holes cannot be punched here, so a file gives
//! its space back when it is drained, and every read goes to an I/O thread.

use std::{fs::File, io, path::Path};

#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;

pub(super) fn create(dir: &Path) -> io::Result<File> {
    tempfile::tempfile_in(dir)
}

pub(super) fn write_at(file: &File, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
    let Some(buf) = bufs.iter().find(|buf| !buf.is_empty()) else { return Ok(0) };
    #[cfg(unix)]
    return file.write_at(buf, at);
    #[cfg(windows)]
    return file.seek_write(buf, at);
}

pub(super) fn read_at(file: &File, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
    let Some(buf) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Ok(0) };
    #[cfg(unix)]
    return file.read_at(buf, at);
    #[cfg(windows)]
    return file.seek_read(buf, at);
}

pub(super) fn read_cached(_: &File, _: &mut [io::IoSliceMut<'_>], _: u64) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn punch(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(super) fn memory_backed(_: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

/// Not known here: never short of it.
pub(super) fn free_space(_: &Path) -> io::Result<(u64, u64)> {
    Ok((u64::MAX, u64::MAX))
}

pub(super) fn file_size_limit() -> Option<u64> {
    None
}
