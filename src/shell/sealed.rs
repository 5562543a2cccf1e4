//! Blocks that the writer has encrypted on their way in, and a reader that gets at them before the disk has them.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::{Shared, tests::eventually};
use crate::{
    SpillBuffer, SpillError, SpillReader, SpillWriter,
    core::{Front, model::byte_at},
    pool::Member,
    storage::sys::{
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
};

const MARK: &[u8] = b"a page of the writer's";
const PAGE: usize = 4096;
const WINDOW: usize = 256 << 10;

/// Each page begins with a mark that must not get to the disk.
fn stream(from: u64, len: usize) -> Vec<u8> {
    let at = |offset: u64| MARK.get(offset as usize % PAGE).copied().unwrap_or_else(|| byte_at(offset));
    (from..from + len as u64).map(at).collect()
}

/// A disk whose writes wait at a gate, and fail where that is asked for.
#[derive(Default, Clone)]
struct Disk {
    gate: Arc<RwLock<()>>,
    /// So many writes wait.
    waiting: Arc<AtomicUsize>,
    /// So many are told that it is full.
    full: Arc<AtomicUsize>,
    /// So many pages were written that anybody can read.
    plain: Arc<AtomicUsize>,
}

impl Disk {
    fn write(&self, bufs: &[io::IoSlice<'_>]) -> Act {
        self.waiting.fetch_add(1, SeqCst);
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, SeqCst);
        // What is written is what lies there now, whatever it was when the write began.
        let plain = bufs.iter().flat_map(|buf| buf.chunks(PAGE)).filter(|page| page.starts_with(MARK)).count();
        drop(gate);
        self.plain.fetch_add(plain, SeqCst);
        if self.full.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Act::Fail(io::ErrorKind::StorageFull.into());
        }
        Act::Go
    }
}

struct Pipe {
    writer: SpillWriter,
    reader: SpillReader,
    shared: Arc<Shared>,
    block: usize,
    written: u64,
    read: u64,
}

impl Pipe {
    fn over(disk: &Disk) -> Self {
        let platform = Hooked::new(Scripted { cached: true, ..Scripted::default() }, {
            let disk = disk.clone();
            move |call| match call {
                Call::Write { bufs, .. } => disk.write(bufs),
                _ => Act::Go,
            }
        });
        let shared = Shared::on(
            &SpillBuffer::builder().memory_limit(WINDOW).encrypt(true).settings().check().unwrap(),
            Some(platform),
        );
        let buffer = SpillBuffer::of(shared.clone());
        let (writer, reader) = buffer.into_split();
        let block = shared.pool.limits().block;
        Self { writer, reader, shared, block, written: 0, read: 0 }
    }

    /// One whose window is full and whose next write to disk waits at the gate, until what comes with it is dropped.
    fn held_up(disk: &Disk) -> (Self, RwLockWriteGuard<'_, ()>) {
        let mut pipe = Self::over(disk);
        pipe.spill();
        // What was written while the I/O thread had nothing to do was left to it: that is to be on disk.
        eventually("it is on disk", || {
            Arc::clone(&pipe.shared).squeeze();
            pipe.shared.stats().on_disk == pipe.written - pipe.read
        });
        // What comes then is asked for by nobody.
        eventually("a block is read", || pipe.read(pipe.block).unwrap() > 0);
        let closed = disk.gate.write().unwrap();
        eventually("the thread has gone", || !pipe.shared.raw_lock().lingering);
        pipe.fill(disk);
        (pipe, closed)
    }

    /// Writes a block, if there is room for one.
    fn write(&mut self) {
        let piece = stream(self.written, self.block);
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(n) = Pin::new(&mut self.writer).poll_write(&mut cx, &piece) {
            self.written += n.unwrap() as u64;
        }
    }

    /// Writes four times what the window holds.
    fn spill(&mut self) {
        let end = self.written + 4 * WINDOW as u64;
        eventually("it spills", || {
            self.write();
            self.written >= end
        });
    }

    /// Writes on where writes wait at the gate, until one does and the window is full.
    fn fill(&mut self, disk: &Disk) {
        eventually("a write waits and the window is full", || {
            self.write();
            disk.waiting.load(SeqCst) > 0 && self.shared.stats().memory_held + self.block as u64 >= WINDOW as u64
        });
    }

    /// Whether the next byte is in a block that is encrypted.
    fn at_a_sealed_one(&self) -> bool {
        matches!(self.shared.raw_lock().core.front(), Front::Sealed)
    }

    /// Reads at most so many bytes, and none of the next block; nothing where it would have to wait.
    fn read(&mut self, most: usize) -> io::Result<usize> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut space = vec![0; most.min(self.block - self.read as usize % self.block)];
        let mut buf = ReadBuf::new(&mut space);
        if let Poll::Ready(read) = Pin::new(&mut self.reader).poll_read(&mut cx, &mut buf) {
            read?;
        }
        let n = buf.filled().len();
        assert!(buf.filled() == stream(self.read, n), "wrong bytes at {}", self.read);
        self.read += n as u64;
        Ok(n)
    }

    /// Reads up to a block that is encrypted.
    fn read_to_a_sealed_one(&mut self) {
        eventually("a block that is encrypted comes next", || {
            let there = self.at_a_sealed_one();
            if !there {
                self.read(self.block).unwrap();
            }
            there
        });
    }

    fn read_by(&mut self, way: &str, most: usize) {
        let mut cx = Context::from_waker(Waker::noop());
        let n = match way {
            "read" => return self.read(most).map(drop).unwrap(),
            "chunk" => {
                let Some(chunk) = self.reader.next_chunk().now_or_never() else { return };
                let chunk = chunk.unwrap().expect("it goes on");
                assert!(chunk[..] == stream(self.read, chunk.len()), "wrong bytes at {}", self.read);
                chunk.len()
            }
            _ => {
                let Poll::Ready(bytes) = Pin::new(&mut self.reader).poll_fill_buf(&mut cx) else { return };
                let bytes = bytes.unwrap();
                let n = bytes.len().min(most);
                assert!(bytes[..n] == stream(self.read, n), "wrong bytes at {}", self.read);
                Pin::new(&mut self.reader).consume(n);
                n
            }
        };
        self.read += n as u64;
    }

    fn read_all(mut self) {
        self.writer.end().unwrap();
        let (read, written) = (&mut self.read, self.written);
        let mut reader = self.reader.into_blocking();
        let mut buf = vec![0; 100_000];
        loop {
            let n = io::Read::read(&mut reader, &mut buf).unwrap();
            assert!(buf[..n] == stream(*read, n), "wrong bytes at {read}");
            *read += n as u64;
            if n == 0 {
                break;
            }
        }
        assert_eq!(*read, written);
        drop(reader);
        is_given_back(&self.shared);
    }
}

fn is_given_back(shared: &Shared) {
    eventually("everything is given back", || {
        let stats = shared.stats();
        (stats.memory_held, stats.disk_held) == (0, 0)
    });
}

/// Those in memory are opened where they lie, those on their way to disk in a copy: the page cache would have had the plain bytes.
#[test]
fn c10_what_the_writer_sealed_is_read_before_it_is_on_disk_and_stays_sealed_there() {
    for way in ["read", "chunk", "look"] {
        let disk = Disk::default();
        let (mut pipe, closed) = Pipe::held_up(&disk);
        let mut opened = 0;
        eventually("all of it is read", || {
            let (sealed, before) = (pipe.at_a_sealed_one(), pipe.read);
            pipe.read_by(way, [1_000, 20_000, pipe.block][before as usize % 3]);
            assert!(pipe.shared.stats().memory_held <= WINDOW as u64);
            opened += usize::from(sealed && pipe.read > before);
            pipe.read == pipe.written
        });
        assert!(opened > WINDOW / pipe.block / 2, "{way}: {opened} were encrypted when they were read");
        drop(closed);
        pipe.spill();
        pipe.read_all();
        assert_eq!(disk.plain.load(SeqCst), 0, "{way}: pages that anybody can read");
    }
}

/// What was opened is written again where the disk did not take it and others need its memory; and sealed again for that.
#[test]
fn c10_a_block_that_was_opened_while_its_write_failed_is_sealed_anew() {
    let disk = Disk::default();
    let (mut pipe, closed) = Pipe::held_up(&disk);
    // A few bytes of one that is on its way: its copy stays at the front.
    pipe.read_to_a_sealed_one();
    let held = pipe.shared.stats().memory_held;
    assert_eq!(pipe.read(1_000).unwrap(), 1_000);
    assert_eq!(pipe.shared.stats().memory_held, held + pipe.block as u64);
    disk.full.store(1, SeqCst);
    drop(closed);
    eventually("the write fails", || disk.full.load(SeqCst) == 0);
    // Others need its memory, too.
    eventually("it is on disk after all", || {
        Arc::clone(&pipe.shared).squeeze();
        matches!(pipe.shared.lock().core.front(), Front::Disk)
    });
    pipe.read_all();
    assert_eq!(disk.plain.load(SeqCst), 0, "pages that anybody can read");
}

/// In memory, or in the copy that was made of it.
#[test]
fn c14_what_was_sealed_in_memory_and_does_not_open_is_an_error_there() {
    for hangs in [false, true] {
        let disk = Disk::default();
        let (mut pipe, closed) = Pipe::held_up(&disk);
        // From now on nothing more is written.
        pipe.writer.end().unwrap();
        let closed = hangs.then_some(closed);
        pipe.read_to_a_sealed_one();
        pipe.shared.raw_lock().core.open_front(|_, block| {
            block.filled_mut()[7] ^= 1;
            Ok(())
        });
        for _ in 0..2 {
            let error = pipe.read(100).unwrap_err();
            let told = SpillError::from_io(&error).unwrap();
            assert!(matches!(told, SpillError::Corrupt { offset, .. } if *offset == pipe.read), "{told:?}");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
        drop(closed);
        let Pipe { writer, reader, shared, .. } = pipe;
        drop((writer, reader));
        is_given_back(&shared);
    }
}

/// It was sealed for a file that has been closed since: the key is the pool's.
#[test]
fn c10_what_was_sealed_is_opened_when_its_file_is_gone() {
    let disk = Disk::default();
    let (mut pipe, closed) = Pipe::held_up(&disk);
    // From now on nothing more is written.
    pipe.writer.end().unwrap();
    drop(closed);
    eventually("only memory has the rest", || {
        let there = pipe.shared.stats().disk_held == 0 && pipe.at_a_sealed_one();
        if !there {
            pipe.read(pipe.block).unwrap();
        }
        there
    });
    eventually("the file is closed", || pipe.shared.pool.file().is_none());
    assert!(pipe.at_a_sealed_one());
    pipe.read_all();
}
