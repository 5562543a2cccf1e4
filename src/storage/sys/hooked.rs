//! A platform for tests that asks before each call what shall become of it. It knows no policy of its own:
//! what fails, when and whom is the test's to say.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::{Platform, RawFile};

/// A call that is about to be made.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Create,
    Space,
    Write {
        bufs: &'a [io::IoSlice<'a>],
        at: u64,
    },
    /// `file` is the one below, to look into.
    Read {
        file: &'a dyn RawFile,
        len: usize,
        at: u64,
        cached: bool,
    },
    Punch {
        at: u64,
        len: u64,
    },
    SetLen,
}

/// What becomes of it.
#[derive(Debug)]
pub(crate) enum Act {
    Go,
    Fail(io::Error),
    Panic,
    /// Half of the first buffer is done, and it says so.
    Short,
    /// It says that nothing was done, as at a file's end.
    Nothing,
    /// It says that all is done, and a bit of this byte is wrong.
    Flip(usize),
    /// It says that all is done, and the file is as it was.
    Lose,
    /// It says that all is done, and the file has the first half.
    Tear,
    /// It is done in another place.
    At(u64),
    /// What a file system has free, and has.
    Space(u64, u64),
}

type Hook = Arc<dyn Fn(&Call<'_>) -> Act + Send + Sync>;

pub(crate) struct Hooked<P> {
    platform: P,
    hook: Hook,
    open: Arc<AtomicUsize>,
    last: Mutex<Option<Arc<dyn RawFile>>>,
}

impl<P: Platform> Hooked<P> {
    pub(crate) fn new(platform: P, hook: impl Fn(&Call<'_>) -> Act + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { platform, hook: Arc::new(hook), open: Arc::default(), last: Mutex::default() })
    }

    /// How many of its files are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// The file that was made last, without the hook.
    pub(crate) fn file(&self) -> Arc<dyn RawFile> {
        self.last.lock().unwrap().clone().expect("a file was made")
    }
}

impl<P> fmt::Debug for Hooked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooked").field("open", &self.open).finish_non_exhaustive()
    }
}

/// Without a word from the panic hook: some tests do this thousands of times.
fn panic() -> ! {
    std::panic::resume_unwind(Box::new("as planned"))
}

/// For calls that are done or not.
fn done(act: Act) -> io::Result<()> {
    match act {
        Act::Fail(error) => Err(error),
        Act::Panic => panic(),
        _ => Ok(()),
    }
}

impl<P: Platform> Platform for Hooked<P> {
    fn create(&self, dir: &Path) -> io::Result<Box<dyn RawFile>> {
        done((self.hook)(&Call::Create))?;
        let file: Arc<dyn RawFile> = self.platform.create(dir)?.into();
        *self.last.lock().unwrap() = Some(Arc::clone(&file));
        self.open.fetch_add(1, SeqCst);
        Ok(Box::new(HookedFile { file, hook: Arc::clone(&self.hook), open: Arc::clone(&self.open) }))
    }

    fn memory_backed(&self, path: &Path) -> io::Result<Option<&'static str>> {
        self.platform.memory_backed(path)
    }

    fn free_space(&self, path: &Path) -> io::Result<(u64, u64)> {
        match (self.hook)(&Call::Space) {
            Act::Space(free, total) => Ok((free, total)),
            act => done(act).and_then(|()| self.platform.free_space(path)),
        }
    }
}

struct HookedFile {
    file: Arc<dyn RawFile>,
    hook: Hook,
    open: Arc<AtomicUsize>,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Drop for HookedFile {
    fn drop(&mut self) {
        self.open.fetch_sub(1, SeqCst);
    }
}

impl HookedFile {
    fn read(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64, cached: bool) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let read = |bufs: &mut [io::IoSliceMut<'_>], at| {
            if cached { self.file.read_cached(bufs, at) } else { self.file.read_at(bufs, at) }
        };
        match (self.hook)(&Call::Read { file: &*self.file, len, at, cached }) {
            Act::Fail(error) => Err(error),
            Act::Panic => panic(),
            Act::Nothing => Ok(0),
            Act::Short => {
                let Some(first) = bufs.iter_mut().find(|buf| !buf.is_empty()) else { return Ok(0) };
                let half = first.len().div_ceil(2);
                read(&mut [io::IoSliceMut::new(&mut first[..half])], at)
            }
            Act::Flip(byte) => {
                let n = read(bufs, at)?;
                let mut byte = byte.min(n.saturating_sub(1));
                for buf in bufs {
                    if let Some(wrong) = buf.get_mut(byte).filter(|_| n > 0) {
                        *wrong ^= 0x10;
                        break;
                    }
                    byte -= buf.len();
                }
                Ok(n)
            }
            Act::At(at) => read(bufs, at),
            _ => read(bufs, at),
        }
    }
}

impl RawFile for HookedFile {
    fn write_at(&self, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let all = || bufs.iter().flat_map(|buf| buf.iter().copied()).collect::<Vec<u8>>();
        match (self.hook)(&Call::Write { bufs, at }) {
            Act::Fail(error) => Err(error),
            Act::Panic => panic(),
            Act::Nothing => Ok(0),
            Act::Lose => Ok(len),
            Act::Short => {
                let Some(first) = bufs.iter().find(|buf| !buf.is_empty()) else { return Ok(0) };
                self.file.write_at(&[io::IoSlice::new(&first[..first.len().div_ceil(2)])], at)
            }
            Act::Flip(byte) => {
                let mut bytes = all();
                bytes[byte] ^= 0x10;
                self.file.write_at(&[io::IoSlice::new(&bytes)], at)
            }
            Act::Tear => {
                self.file.write_at(&[io::IoSlice::new(&all()[..len / 2])], at)?;
                Ok(len)
            }
            Act::At(at) => self.file.write_at(bufs, at),
            Act::Go | Act::Space(..) => self.file.write_at(bufs, at),
        }
    }

    fn read_at(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.read(bufs, at, false)
    }

    fn read_cached(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.read(bufs, at, true)
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        done((self.hook)(&Call::Punch { at, len }))?;
        self.file.punch(at, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        done((self.hook)(&Call::SetLen))?;
        self.file.set_len(len)
    }

    fn size_limit(&self) -> Option<u64> {
        self.file.size_limit()
    }
}
