//! Platforms for tests: a file in memory, and one that fails a chosen call of either.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Platform, RawFile};

/// What happens to the call that is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Errno(i32),
    /// Half of it is done, without an error.
    Short,
    /// It says that all is done, and one bit is wrong.
    Flip,
    Panic,
}

/// Which call: the `at`-th of all that are counted, and every later one if `on` is set.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) at: usize,
    pub(crate) forever: bool,
    pub(crate) kind: Kind,
    pub(crate) only_reads: bool,
    pub(crate) only_writes: bool,
    count: AtomicUsize,
}

impl Plan {
    pub(crate) fn new(at: usize, forever: bool, kind: Kind) -> Self {
        Self { at, forever, kind, only_reads: false, only_writes: false, count: AtomicUsize::new(0) }
    }

    pub(crate) fn calls(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn strikes(&self, reads: bool, writes: bool) -> Option<Kind> {
        if (self.only_reads && !reads) || (self.only_writes && !writes) {
            return None;
        }
        let n = self.count.fetch_add(1, Ordering::Relaxed);
        (n == self.at || (self.forever && n > self.at)).then_some(self.kind)
    }
}

#[derive(Debug)]
pub(crate) struct Faulty<P> {
    pub(crate) platform: P,
    pub(crate) plan: Arc<Plan>,
}

impl<P: Platform> Platform for Faulty<P> {
    fn create(&self, dir: &Path) -> io::Result<Box<dyn RawFile>> {
        match self.plan.strikes(false, false) {
            Some(Kind::Errno(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Kind::Panic) => panic!("as planned"),
            _ => {}
        }
        let file = self.platform.create(dir)?;
        Ok(Box::new(FaultyFile { file, plan: Arc::clone(&self.plan) }))
    }

    fn memory_backed(&self, path: &Path) -> io::Result<Option<&'static str>> {
        self.platform.memory_backed(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<(u64, u64)> {
        self.platform.free_space(path)
    }
}

#[derive(Debug)]
struct FaultyFile {
    file: Box<dyn RawFile>,
    plan: Arc<Plan>,
}

impl FaultyFile {
    fn read(
        &self,
        bufs: &mut [io::IoSliceMut<'_>],
        read: impl FnOnce(&mut [io::IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match self.plan.strikes(true, false) {
            None => read(bufs),
            Some(Kind::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Kind::Panic) => panic!("as planned"),
            Some(Kind::Short) => {
                let Some(first) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Ok(0) };
                let half = first.len().div_ceil(2);
                read(&mut [io::IoSliceMut::new(&mut first[..half])])
            }
            Some(Kind::Flip) => {
                let n = read(bufs)?;
                if let Some(byte) = bufs.iter_mut().find_map(|buf| buf.first_mut()).filter(|_| n > 0) {
                    *byte ^= 0x10;
                }
                Ok(n)
            }
        }
    }
}

impl RawFile for FaultyFile {
    fn write_at(&self, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
        match self.plan.strikes(false, true) {
            None => self.file.write_at(bufs, at),
            Some(Kind::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Kind::Panic) => panic!("as planned"),
            Some(Kind::Short) => {
                let Some(first) = bufs.iter().find(|buf| !buf.is_empty()) else { return Ok(0) };
                self.file.write_at(&[io::IoSlice::new(&first[..first.len().div_ceil(2)])], at)
            }
            Some(Kind::Flip) => {
                let mut bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                self.file.write_at(&[io::IoSlice::new(&bytes)], at)
            }
        }
    }

    fn read_at(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.read(bufs, |bufs| self.file.read_at(bufs, at))
    }

    fn read_cached(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.read(bufs, |bufs| self.file.read_cached(bufs, at))
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        match self.plan.strikes(false, false) {
            Some(Kind::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => self.file.punch(at, len),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.plan.strikes(false, true) {
            Some(Kind::Errno(errno)) => Err(io::Error::from_raw_os_error(errno)),
            _ => self.file.set_len(len),
        }
    }

    fn size_limit(&self) -> Option<u64> {
        self.file.size_limit()
    }
}

/// A disk in memory. Every other cached read has to wait, so that both ways of reading are taken; unless all are `cached`.
#[derive(Debug, Default)]
pub(crate) struct Scripted {
    pub(crate) cached: bool,
    pub(crate) file_size_limit: Option<u64>,
    pub(crate) memory_backed: Option<&'static str>,
    pub(crate) free_space: Option<u64>,
}

impl Platform for Scripted {
    fn create(&self, _: &Path) -> io::Result<Box<dyn RawFile>> {
        Ok(Box::new(ScriptedFile { cached: self.cached, limit: self.file_size_limit, ..ScriptedFile::default() }))
    }

    fn memory_backed(&self, _: &Path) -> io::Result<Option<&'static str>> {
        Ok(self.memory_backed)
    }

    fn free_space(&self, _: &Path) -> io::Result<(u64, u64)> {
        Ok((self.free_space.unwrap_or(u64::MAX), u64::MAX))
    }
}

#[derive(Debug, Default)]
struct ScriptedFile {
    cached: bool,
    limit: Option<u64>,
    bytes: Mutex<Vec<u8>>,
    cached_reads: AtomicUsize,
}

impl RawFile for ScriptedFile {
    fn write_at(&self, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        let mut at = at as usize;
        let start = at;
        for buf in bufs {
            if bytes.len() < at + buf.len() {
                bytes.resize(at + buf.len(), 0);
            }
            bytes[at..at + buf.len()].copy_from_slice(buf);
            at += buf.len();
        }
        Ok(at - start)
    }

    fn read_at(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        let bytes = self.bytes.lock().unwrap();
        let mut at = (at as usize).min(bytes.len());
        let start = at;
        for buf in bufs {
            let n = buf.len().min(bytes.len() - at);
            buf[..n].copy_from_slice(&bytes[at..at + n]);
            at += n;
        }
        Ok(at - start)
    }

    fn read_cached(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        if !self.cached && self.cached_reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.read_at(bufs, at)
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes.lock().unwrap();
        let end = ((at + len) as usize).min(bytes.len());
        let at = (at as usize).min(end);
        bytes[at..end].fill(0);
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn size_limit(&self) -> Option<u64> {
        self.limit
    }
}
