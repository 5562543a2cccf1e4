//! Linux, through rustix: no `unsafe` of ours.

use std::{fs::File, io, path::Path};

use rustix::{
    fs::{CWD, FallocateFlags, Mode, OFlags, fallocate, openat, statfs, statvfs},
    io::{Errno, ReadWriteFlags, preadv, preadv2, pwritev},
    process::{Resource, getrlimit},
};

/// A file that never has a name, where the file system can (`O_TMPFILE`); else one that loses it
/// before its first byte. Mode 0600 and close-on-exec either way.
pub(super) fn create(dir: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(file.into()),
        // What kernels and file systems without it say.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => tempfile::tempfile_in(dir),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn write_at(file: &File, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
    Ok(pwritev(file, bufs, at)?)
}

pub(super) fn read_at(file: &File, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
    Ok(preadv(file, bufs, at)?)
}

pub(super) fn read_cached(file: &File, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
    Ok(preadv2(file, bufs, at, ReadWriteFlags::NOWAIT)?)
}

pub(super) fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len)?)
}

pub(super) fn memory_backed(path: &Path) -> io::Result<Option<&'static str>> {
    // Magic numbers of linux/magic.h; the type differs between architectures.
    #[allow(clippy::cast_lossless, clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the same")]
    let magic = statfs(path)?.f_type as u64 as u32;
    Ok(match magic {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        0x9584_58f6 => Some("hugetlbfs"),
        _ => None,
    })
}

pub(super) fn free_space(path: &Path) -> io::Result<(u64, u64)> {
    let stat = statvfs(path)?;
    Ok((bytes(stat.f_bavail, stat.f_frsize), bytes(stat.f_blocks, stat.f_frsize)))
}

/// What a file system says may be less than nothing: counters that are read as they change (xfs), or
/// what is kept back for root has been used. It stands there as a huge number, and means 0.
pub(in crate::storage) fn bytes(blocks: u64, size: u64) -> u64 {
    if blocks.cast_signed() < 0 { 0 } else { blocks.saturating_mul(size) }
}

pub(super) fn file_size_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}
