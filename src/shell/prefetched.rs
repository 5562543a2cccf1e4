//! A reader that is read ahead of, on a disk that tells both apart: whatever becomes of what was read ahead, it only saves work.

use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt;
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use super::{
    Shared,
    prefetch::{BESIDE, BLOCKS},
    tests::eventually,
};
use crate::{
    SpillBuffer, SpillReader, SpillWriter,
    core::{Front, model::byte_at},
    pool::Member,
    slot::Geometry,
    storage::sys::{
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
    threads::REFUSES,
};

const BLOCK: usize = 64 << 10;
const WINDOW: usize = 16 * BLOCK;

/// The reader asks the page cache, which has everything; who reads ahead does not ask it.
#[derive(Default)]
struct Disk {
    /// Slots that were read by either, by place.
    by_reader: Mutex<BTreeSet<u64>>,
    ahead: Mutex<BTreeSet<u64>>,
    /// So many times the reader has read payload, of any length.
    reads: AtomicUsize,
    /// So many reads ahead of the reader have begun, and whether they wait there.
    begun: AtomicUsize,
    closed: AtomicBool,
}

impl Disk {
    fn read(&self, len: usize, at: u64, cached: bool) {
        let places = (at..at + len as u64).step_by(BLOCK).filter(|_| len >= BLOCK);
        if cached {
            self.by_reader.lock().unwrap().extend(places);
            self.reads.fetch_add(usize::from(len >= BLOCK / 4), SeqCst);
            return;
        }
        self.begun.fetch_add(1, SeqCst);
        eventually("it may go on", || !self.closed.load(SeqCst));
        self.ahead.lock().unwrap().extend(places);
    }
}

struct Pipe {
    disk: Arc<Disk>,
    writer: SpillWriter,
    reader: SpillReader,
    shared: Arc<Shared>,
    read: u64,
}

impl Pipe {
    /// All of this many slots are on disk, and the reader is there.
    fn at_the_disk(dir: &str, slots: usize, ahead: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        Self::of(true, dir, slots, ahead)
    }

    /// The same without encryption: what is read ahead is in the buffer's own memory, which the writer wants no more.
    fn in_its_own_memory(dir: &str, slots: usize, ahead: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let mut pipe = Self::of(false, dir, slots, ahead);
        // So little is left in memory that what the reader takes for itself and all that may be read ahead is free. (It was half of the
        // window once, and on a busy machine less was set aside than a test wanted.)
        let most = WINDOW / 4;
        eventually("that is free", || {
            let state = pipe.shared.raw_lock();
            let (quiet, held) = (!state.driving, state.core.stats().memory_held as usize);
            drop(state);
            if quiet && held >= most {
                pipe.write(BLOCK);
            }
            quiet && held < most
        });
        pipe.writer.end().unwrap();
        pipe
    }

    fn of(encrypt: bool, dir: &str, slots: usize, ahead: impl Fn(usize) -> Act + Send + Sync + 'static) -> Self {
        let disk = Arc::new(Disk::default());
        let platform = Hooked::new(Scripted { cached: true, ..Scripted::default() }, {
            let (disk, reads) = (Arc::clone(&disk), AtomicUsize::new(0));
            move |call| match *call {
                Call::Read { len, at, cached, .. } => {
                    disk.read(len, at, cached);
                    if cached { Act::Go } else { ahead(reads.fetch_add(1, SeqCst)) }
                }
                _ => Act::Go,
            }
        });
        let options = SpillBuffer::builder().memory_limit(WINDOW).encrypt(encrypt).temp_dir(dir).settings().check();
        let shared = Shared::on(&options.unwrap(), Some(platform));
        let (writer, reader) = SpillBuffer::of(shared.clone()).into_split();
        assert_eq!(shared.pool.limits().block, BLOCK);
        let mut pipe = Self { disk, writer, reader, shared, read: 0 };
        pipe.write((WINDOW / BLOCK + slots) * BLOCK);
        pipe.read_to_the_disk();
        pipe
    }

    fn read_to_the_disk(&mut self) {
        eventually("the reader is at the disk", || {
            let there = matches!(self.shared.lock().core.front(), Front::Disk);
            if !there {
                self.read_some("read", BLOCK);
            }
            there
        });
    }

    fn write(&mut self, len: usize) {
        let mut at = self.shared.stats().written;
        let end = at + len as u64;
        let mut cx = Context::from_waker(Waker::noop());
        eventually("it is written", || {
            let piece: Vec<u8> = (at..end.min(at + BLOCK as u64)).map(byte_at).collect();
            if let Poll::Ready(n) = tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.writer), &mut cx, &piece) {
                at += n.unwrap() as u64;
            }
            at == end
        });
    }

    /// Reads at most so much, if something is there.
    fn read_some(&mut self, way: &str, most: usize) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        let is_right = |from: u64, bytes: &[u8]| {
            let right = bytes.iter().zip(from..).all(|(byte, at)| *byte == byte_at(at));
            assert!(right, "wrong bytes behind {from}");
        };
        let n = match way {
            "read" => {
                let mut space = vec![0; most];
                let mut buf = ReadBuf::new(&mut space);
                if let Poll::Ready(read) = Pin::new(&mut self.reader).poll_read(&mut cx, &mut buf) {
                    read.unwrap();
                }
                is_right(self.read, buf.filled());
                buf.filled().len()
            }
            "chunk" => {
                let chunk = self.reader.next_chunk().now_or_never().map(|chunk| chunk.unwrap().unwrap_or_default());
                is_right(self.read, chunk.as_deref().unwrap_or_default());
                chunk.map_or(0, |chunk| chunk.len())
            }
            _ => {
                let Poll::Ready(bytes) = Pin::new(&mut self.reader).poll_fill_buf(&mut cx) else { return 0 };
                let bytes = bytes.unwrap();
                is_right(self.read, bytes);
                let n = bytes.len().min(most);
                Pin::new(&mut self.reader).consume(n);
                n
            }
        };
        self.read += n as u64;
        n
    }

    fn read_to(&mut self, end: u64, way: &str, most: usize) {
        eventually("it is read", || {
            self.read_some(way, most.min((end - self.read) as usize));
            self.read == end
        });
    }

    fn read_rest(&mut self, way: &str, most: usize) {
        self.writer.end().unwrap();
        self.read_to(self.shared.stats().written, way, most);
    }

    /// Nothing of this was read again by the reader; and so to the end.
    #[track_caller]
    fn ends_without_a_second_read_of(&mut self, ahead: &BTreeSet<u64>) {
        let by_reader = self.disk.by_reader.lock().unwrap().clone();
        assert!(by_reader.is_disjoint(ahead), "{by_reader:?} and {ahead:?}");
        self.read_rest("read", BLOCK);
        self.nothing_is_kept();
    }

    /// How many blocks were read ahead and wait for the reader, all of them in order.
    fn ready(&self) -> usize {
        self.shared.raw_lock().prefetch.as_ref().map_or(0, |prefetch| prefetch.ready_blocks())
    }

    /// The slots that are ready, counted from the stream's beginning.
    fn ready_slots(&self) -> Vec<u64> {
        let at = self.shared.raw_lock().prefetch.as_ref().map_or(Vec::new(), |prefetch| prefetch.ready_at());
        at.into_iter().map(|at| at / BLOCK as u64).collect()
    }

    /// Nobody works for this reader, and there is no memory for one more of the thread's turns.
    fn has_all_it_may(&self) -> bool {
        let state = self.shared.raw_lock();
        !state.prefetching && state.prefetch.as_ref().is_some_and(|prefetch| prefetch.has_all_it_may())
    }

    fn is_read_ahead_of(&self) -> bool {
        self.shared.raw_lock().prefetch.as_ref().is_some_and(|prefetch| prefetch.has_room())
    }

    /// Nor anything else: a write that was on its way when the reader came has ended too.
    fn no_memory_is_kept(&self) {
        self.nothing_is_kept();
        assert_eq!(self.shared.raw_lock().spare, 0);
        eventually("all memory is back", || self.shared.stats().memory_held == 0);
    }

    /// Nobody works for it any more, and there is nothing.
    fn nothing_is_kept(&self) {
        eventually("nothing is kept", || {
            let state = self.shared.raw_lock();
            state.prefetch.is_none() && !state.prefetching
        });
    }
}

/// The slots that the thread has read when it has no memory for one more turn of `len`, of a reader that was at this slot when it
/// began.
fn two_turns(from: u64, len: u64) -> Vec<u64> {
    let mut turns = (from + len..).filter(|slot| slot / len % 2 == 1);
    let first = turns.next().unwrap();
    let rest = (first + 1..).take_while(|slot| slot % len != 0);
    let next = turns.find(|slot| slot / len > first / len).unwrap();
    std::iter::once(first).chain(rest).chain(next..next + len).collect()
}

#[test]
fn c12_a_reader_that_stands_still_has_two_turns_of_the_threads_ready() {
    let stands_still = |mut pipe: Pipe, blocks: usize| {
        let from = pipe.read / BLOCK as u64;
        assert!(!pipe.is_read_ahead_of());
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
        eventually("it has all that it may", || pipe.has_all_it_may());
        // The reader had a block in hands when the thread began, or had it already.
        let (ready, len) = (pipe.ready_slots(), blocks as u64 / 2);
        assert!(ready == two_turns(from, len) || ready == two_turns(from + 1, len), "{ready:?}, and {from} was read");
        let ahead = pipe.disk.ahead.lock().unwrap().clone();
        assert_eq!(ahead.len(), ready.len());
        // These are not read by the reader.
        pipe.ends_without_a_second_read_of(&ahead);
    };
    stands_still(Pipe::at_the_disk("/stands-still", 40, |_| Act::Go), BESIDE);
    for before in 0..BLOCKS {
        let mut pipe = Pipe::in_its_own_memory("/own-stands-still", 40, |_| Act::Go);
        // Nothing is read ahead where there is no memory for it.
        let others = pipe.shared.lock().core.take_spare(WINDOW / BLOCK);
        (0..before).for_each(|_| assert_eq!(pipe.read_some("read", BLOCK), BLOCK));
        pipe.shared.lock().core.return_spare(others);
        stands_still(pipe, BLOCKS);
    }
}

/// A turn is read with one call, or copied, and no call reads of two.
#[test]
fn c12_a_reader_reads_to_the_end_of_a_turn() {
    let mut pipe = Pipe::in_its_own_memory("/turns", 40, |_| Act::Go);
    let most = |pipe: &Pipe| pipe.shared.raw_lock().most_slots(BLOCK) as u64;
    assert_eq!(most(&pipe), usize::MAX as u64, "there are no turns yet");
    pipe.disk.closed.store(true, SeqCst);
    let turn = BLOCKS as u64 / 2;
    for _ in 0..2 * turn {
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
        assert_eq!(most(&pipe), turn - pipe.read / BLOCK as u64 % turn);
    }
    pipe.disk.closed.store(false, SeqCst);
    eventually("it has all that it may", || {
        pipe.has_all_it_may() || {
            eventually("nobody works for it", || !pipe.shared.raw_lock().prefetching);
            pipe.read_some("read", BLOCK) == 0
        }
    });
    let ready = pipe.ready_slots();
    while pipe.read / (BLOCK as u64) < ready[0] {
        let to_the_ready = ready[0] - pipe.read / BLOCK as u64;
        assert_eq!(most(&pipe), to_the_ready.min(turn - pipe.read / BLOCK as u64 % turn));
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
    }
    assert_eq!(most(&pipe), ready.iter().zip(ready[0]..).take_while(|(slot, next)| **slot == *next).count() as u64);
    pipe.read_rest("read", BLOCK);
    pipe.no_memory_is_kept();
}

/// Whatever the reader asks for, it stops before what is ready.
#[test]
fn c01_what_is_ready_is_what_every_kind_of_reader_gets() {
    for (way, most) in [("read", BLOCK), ("read", 7 * BLOCK), ("read", 10_000), ("chunk", 0), ("look", 30_000)] {
        let mut pipe = Pipe::at_the_disk("/every-kind", 60, |_| Act::Go);
        let mut rounds = 0;
        while pipe.shared.stats().on_disk > 12 * BLOCK as u64 {
            pipe.read_some(way, most);
            eventually("what may be ready is", || !pipe.shared.raw_lock().prefetching);
            rounds += 1;
        }
        assert!(rounds > 3, "{way}");
        let (by_reader, ahead) = (pipe.disk.by_reader.lock().unwrap().clone(), pipe.disk.ahead.lock().unwrap().clone());
        assert!(ahead.len() >= 20, "{way} of {most}: {} slots were read ahead", ahead.len());
        // A long read may come to what the thread has in hands: a turn of it before each wait.
        let twice = by_reader.intersection(&ahead).count();
        assert!(twice <= if most > BLOCK { rounds } else { 0 }, "{way} of {most}: {by_reader:?} and {ahead:?}");
        pipe.read_rest(way, most);
        pipe.nothing_is_kept();
    }
}

/// Slots of a stream whose memory others needed time and again may be as short as each other. The one that was ready was taken for
/// any that began less than a block before it, and where both were as long its bytes came out in the wrong place.
#[test]
fn c01_what_is_ready_is_not_taken_for_a_short_slot_before_it() {
    const HALF: usize = BLOCK / 2;
    let ways = [([HALF; 2], "read", BLOCK), ([HALF; 2], "read", 7 * BLOCK), ([HALF / 2; 2], "chunk", 0)];
    for (lens, way, most) in ways.into_iter().chain([([HALF, BLOCK], "read", BLOCK)]) {
        let mut pipe = Pipe::at_the_disk("/short", 1, |_| Act::Go);
        for len in lens.into_iter().cycle().take(40) {
            pipe.write(len);
            let written = pipe.shared.stats().written;
            eventually("it is on disk", || {
                Arc::clone(&pipe.shared).squeeze();
                pipe.shared.stats().on_disk == written - pipe.read
            });
        }
        while pipe.shared.stats().on_disk > 0 {
            pipe.read_some(way, most);
            eventually("what may be ready is", || !pipe.shared.raw_lock().prefetching);
        }
        let (begun, reads) = (pipe.disk.begun.load(SeqCst), pipe.disk.reads.load(SeqCst));
        assert!(begun > 5 && reads < 40, "{lens:?}, {way}: {begun} and {reads} of 40");
        pipe.read_rest(way, most);
        pipe.nothing_is_kept();
    }
}

/// The thread is slow: the reader has passed what it has in hands.
#[test]
fn c01_what_comes_too_late_is_dropped_and_what_follows_is_not() {
    let mut pipe = Pipe::at_the_disk("/too-late", 120, |_| Act::Go);
    for _ in 0..3 {
        let (from, begun) = (pipe.read, pipe.disk.begun.load(SeqCst));
        pipe.disk.closed.store(true, SeqCst);
        eventually("the thread has one in hands", || {
            pipe.read_some("read", BLOCK);
            pipe.disk.begun.load(SeqCst) > begun
        });
        pipe.read_to(from + 14 * BLOCK as u64, "read", BLOCK);
        pipe.disk.closed.store(false, SeqCst);
        // What was left behind may have been given back to the file system, and fail: then the next read has it go on.
        eventually("it has more", || {
            eventually("the thread is done", || !pipe.shared.raw_lock().prefetching);
            pipe.has_all_it_may() || pipe.read_some("read", BLOCK) == 0
        });
    }
    let ahead = pipe.disk.ahead.lock().unwrap().clone();
    pipe.disk.by_reader.lock().unwrap().clear();
    for _ in 0..8 {
        pipe.read_some("read", BLOCK);
        eventually("what may be ready is", || !pipe.shared.raw_lock().prefetching);
    }
    pipe.ends_without_a_second_read_of(&ahead);
}

/// The reader reads what it wants itself then, and finds nothing wrong.
#[test]
fn c08_a_read_ahead_that_fails_is_nobodys_error() {
    let fails: [fn() -> Act; 5] = [
        || Act::Fail(io::Error::other("as planned")),
        || Act::Panic,
        || Act::Nothing,
        || Act::Flip(11),
        // Another slot of the same stream.
        || Act::At(Geometry::new(BLOCK).payload(1)),
    ];
    for (i, fail) in fails.into_iter().enumerate() {
        for each in [1, 3] {
            let mut pipe = Pipe::at_the_disk("/fails", 80, move |n| if n % each == 0 { fail() } else { Act::Go });
            while pipe.shared.stats().on_disk > 0 {
                pipe.read_some("read", BLOCK);
                eventually("the thread is done", || !pipe.shared.raw_lock().prefetching);
            }
            assert!(pipe.disk.begun.load(SeqCst) >= 10, "{i}, {each}");
            pipe.read_rest("read", BLOCK);
            pipe.nothing_is_kept();
        }
    }
}

/// Its reader goes, or the stream is given up, while a thread has a block in hands.
#[test]
fn c06_nothing_is_kept_for_a_reader_that_has_gone() {
    for how in ["dropped", "aborted", "cancelled"] {
        let mut pipe = Pipe::at_the_disk("/gone", 40, |_| Act::Go);
        pipe.disk.closed.store(true, SeqCst);
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
        eventually("a thread reads", || pipe.disk.begun.load(SeqCst) > 0);
        assert!(pipe.is_read_ahead_of());
        let control = pipe.reader.control();
        let Pipe { disk, writer, reader, shared, .. } = pipe;
        match how {
            "dropped" => drop(reader),
            "aborted" => control.abort("enough"),
            _ => control.cancel("enough"),
        }
        assert!(shared.raw_lock().prefetch.is_none(), "{how}");
        disk.closed.store(false, SeqCst);
        eventually("the thread sees it", || !shared.raw_lock().prefetching);
        assert!(shared.raw_lock().prefetch.is_none(), "{how}");
        assert_eq!((shared.stats().memory_held, shared.stats().disk_held), (0, 0), "{how}");
        drop(writer);
    }
}

/// There is memory for four of them. A fifth one has to wait until one of these does not come for what is ready.
#[test]
fn c06_as_many_readers_are_read_ahead_of_as_there_are_threads() {
    five((0..5).map(|_| Pipe::at_the_disk("/five", 200, |_| Act::Go)).collect());
    five((0..5).map(|_| Pipe::in_its_own_memory("/own-five", 200, |_| Act::Go)).collect());
}

fn five(mut pipes: Vec<Pipe>) {
    let read_ahead = |pipes: &[Pipe]| pipes.iter().filter(|pipe| pipe.is_read_ahead_of()).count();
    let (fifth, four) = pipes.split_first_mut().unwrap();
    for pipe in &mut *four {
        pipe.read_some("read", BLOCK);
        eventually("it is read ahead of", || pipe.ready() > 0);
    }
    // Those four are asked whether they still come, and do.
    let now = crate::clock::now();
    for pipe in &mut *four {
        pipe.shared.raw_lock().prefetch.as_mut().unwrap().asked(now + 3_600_000_000_000);
    }
    let from = fifth.read;
    fifth.read_some("read", BLOCK);
    assert!(!fifth.is_read_ahead_of());
    assert_eq!(fifth.shared.raw_lock().spare, 0, "nothing is set aside in vain");
    fifth.read_to(from + 50 * BLOCK as u64, "read", BLOCK);
    assert_eq!(fifth.disk.begun.load(SeqCst), 0);
    // Now one of them has not come for long.
    four[2].shared.raw_lock().prefetch.as_mut().unwrap().asked(0);
    // That is asked once in a while.
    fifth.read_to(from + 60 * BLOCK as u64, "read", BLOCK);
    assert!(!fifth.is_read_ahead_of() && four[2].is_read_ahead_of());
    fifth.read_to(from + 66 * BLOCK as u64, "read", BLOCK);
    assert!(fifth.is_read_ahead_of() && !four[2].is_read_ahead_of());
    eventually("it is read ahead of", || fifth.ready() > 0);
    assert_eq!(read_ahead(&pipes), 4);
    for pipe in &mut pipes {
        pipe.read_rest("read", BLOCK);
        pipe.nothing_is_kept();
    }
}

#[test]
fn c04_what_is_read_ahead_in_a_buffers_own_memory_counts_and_leaves_the_reader_what_it_needs() {
    let mut pipe = Pipe::of(false, "/own", 60, |_| Act::Go);
    for _ in 0..8 {
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
    }
    assert!(!pipe.is_read_ahead_of(), "the writer may want all of its memory");
    pipe.writer.end().unwrap();
    let before = pipe.shared.stats().memory_held;
    assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
    assert!(pipe.is_read_ahead_of());
    assert_eq!(pipe.shared.raw_lock().spare, BLOCKS);
    eventually("it has all that it may", || pipe.has_all_it_may());
    assert_eq!(pipe.shared.stats().memory_held, before + (BLOCKS * BLOCK) as u64);
    assert!(pipe.shared.stats().memory_held <= (WINDOW - BLOCK) as u64, "the reader has a block for itself");
    let ahead = pipe.disk.ahead.lock().unwrap().clone();
    assert_eq!(ahead.len(), pipe.ready());
    pipe.ends_without_a_second_read_of(&ahead);
    pipe.no_memory_is_kept();
}

/// With fewer than four the thread would wait most of the time.
#[test]
fn c04_no_more_is_read_ahead_than_was_set_aside() {
    for (least, set_aside) in [(BLOCKS, BLOCKS), (7, 6), (4, 4), (3, 0)] {
        let mut pipe = Pipe::in_its_own_memory("/own-least", 40, |_| Act::Go);
        // All but the reader's own block is somebody else's.
        let others = pipe.shared.lock().core.take_spare(WINDOW / BLOCK) - least;
        pipe.shared.lock().core.return_spare(least);
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
        assert_eq!(pipe.shared.raw_lock().spare, set_aside);
        assert_eq!(pipe.is_read_ahead_of(), set_aside > 0);
        if set_aside > 0 {
            eventually("it has all that it may", || {
                pipe.ready() > set_aside / 2 && !pipe.shared.raw_lock().prefetching
            });
            let ahead = pipe.disk.ahead.lock().unwrap().clone();
            assert_eq!(ahead.len(), pipe.ready());
            pipe.read_to(pipe.read + (8 * BLOCK) as u64, "read", BLOCK);
            assert!(pipe.disk.by_reader.lock().unwrap().is_disjoint(&ahead), "{set_aside}");
        }
        pipe.read_rest("read", BLOCK);
        pipe.shared.lock().core.return_spare(others);
        pipe.no_memory_is_kept();
    }
}

#[test]
fn c01_what_is_ready_in_a_buffers_own_memory_is_what_every_kind_of_reader_gets() {
    for (way, most) in [("read", BLOCK), ("read", 7 * BLOCK), ("read", 10_000), ("chunk", 0), ("look", 30_000)] {
        let mut pipe = Pipe::in_its_own_memory("/own-kinds", 60, |_| Act::Go);
        while pipe.shared.stats().on_disk > 0 {
            pipe.read_some(way, most);
            eventually("what may be ready is", || !pipe.shared.raw_lock().prefetching);
            assert!(pipe.shared.stats().memory_held <= WINDOW as u64);
        }
        let ahead = pipe.disk.ahead.lock().unwrap().len();
        if way == "read" {
            assert!(ahead >= 20, "{way} of {most}: {ahead} slots were read ahead");
        } else {
            assert_eq!(ahead, 0, "{way}: who takes blocks away needs them all");
        }
        pipe.read_rest(way, most);
        pipe.no_memory_is_kept();
    }
}

/// Who copies at first, and then takes blocks away, has all memory for these again.
#[test]
fn c04_a_reader_that_begins_to_take_blocks_away_is_read_ahead_of_no_more() {
    let mut pipe = Pipe::in_its_own_memory("/own-changes", 60, |_| Act::Go);
    for way in ["chunk", "look"] {
        eventually("it is read ahead of", || {
            pipe.read_some("read", BLOCK);
            pipe.ready() > 0
        });
        eventually("it takes one from the disk", || {
            pipe.read_some(way, BLOCK);
            !pipe.is_read_ahead_of()
        });
        eventually("nobody works for it", || !pipe.shared.raw_lock().prefetching);
        assert_eq!(pipe.shared.raw_lock().spare, 0);
    }
    pipe.read_rest("read", BLOCK);
    pipe.no_memory_is_kept();
}

#[test]
fn c08_a_read_ahead_into_a_buffers_own_memory_that_fails_is_nobodys_error() {
    let fails: [fn() -> Act; 3] = [|| Act::Fail(io::Error::other("as planned")), || Act::Panic, || Act::Flip(11)];
    for fail in fails {
        let mut pipe = Pipe::in_its_own_memory("/own-fails", 80, move |n| if n % 3 == 0 { fail() } else { Act::Go });
        while pipe.shared.stats().on_disk > 0 {
            pipe.read_some("read", BLOCK);
            eventually("the thread is done", || !pipe.shared.raw_lock().prefetching);
        }
        assert!(pipe.disk.begun.load(SeqCst) >= 10);
        pipe.read_rest("read", BLOCK);
        pipe.no_memory_is_kept();
    }
}

/// What the thread has in hands is held until it lets go, whatever has become of the stream.
#[test]
fn c04_blocks_in_the_threads_hands_count_until_they_are_back() {
    for how in ["dropped", "cancelled", "squeezed", "evicted"] {
        let mut pipe = Pipe::in_its_own_memory("/own-gone", 40, |_| Act::Go);
        pipe.disk.closed.store(true, SeqCst);
        assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
        eventually("a thread reads", || pipe.disk.begun.load(SeqCst) > 0);
        let hands = pipe.shared.raw_lock().reading_ahead;
        assert!(hands > 0 && pipe.shared.raw_lock().spare == BLOCKS);
        let control = pipe.reader.control();
        let Pipe { disk, writer, reader, shared, .. } = pipe;
        let mut reader = Some(reader);
        match how {
            "dropped" => drop(reader.take()),
            "cancelled" => control.cancel("enough"),
            "squeezed" => {
                let asked = (0..3).filter(|_| Arc::clone(&shared).squeeze()).count();
                assert_eq!(asked, 1, "it moved, it was asked, it gave");
            }
            _ => {
                shared.raw_lock().prefetch.as_mut().unwrap().asked(0);
                assert!(!crate::threads::ReadAhead::keeps_up(&*shared));
            }
        }
        assert!(shared.raw_lock().prefetch.is_none(), "{how}");
        assert_eq!(shared.raw_lock().spare, hands, "{how}");
        disk.closed.store(false, SeqCst);
        eventually("the thread sees it", || !shared.raw_lock().prefetching);
        let state = shared.raw_lock();
        assert_eq!((state.spare, state.prefetch.is_none()), (0, true), "{how}");
        drop(state);
        if matches!(how, "dropped" | "cancelled") {
            assert_eq!((shared.stats().memory_held, shared.stats().disk_held), (0, 0), "{how}");
        }
        drop((writer, reader));
        eventually("all is given back", || shared.stats().memory_held == 0);
    }
}

#[test]
fn c04_blocks_in_the_readers_hands_count_until_they_are_back() {
    let mut pipe = Pipe::in_its_own_memory("/own-found", 40, |_| Act::Go);
    assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
    eventually("there is one", || pipe.ready() > 0 && !pipe.shared.raw_lock().prefetching);
    let from = pipe.ready_slots()[0] * BLOCK as u64;
    pipe.read_to(from, "read", BLOCK);
    eventually("nobody works for it", || !pipe.shared.raw_lock().prefetching);
    let in_a_row =
        pipe.ready_slots().iter().zip(from / BLOCK as u64..).take_while(|(slot, next)| **slot == *next).count();
    let mut state = pipe.shared.lock();
    let found = pipe.shared.found(&mut state, from, 3, true);
    let hands = state.found;
    assert_eq!(hands, in_a_row.min(3));
    // The thread is called no more.
    state.prefetching = false;
    drop(state);
    let asked = (0..3).filter(|_| Arc::clone(&pipe.shared).squeeze()).count();
    assert_eq!(asked, 1);
    assert!(pipe.shared.raw_lock().prefetch.is_none());
    assert_eq!(pipe.shared.raw_lock().spare, hands);
    pipe.shared.end_found(&mut pipe.shared.lock(), found);
    assert_eq!(pipe.shared.raw_lock().spare, 0);
    pipe.read_rest("read", BLOCK);
    pipe.no_memory_is_kept();
}

/// No thread can be started to go on, while the reader has in hands what was read ahead.
#[test]
fn c04_blocks_in_the_readers_hands_come_back_where_no_thread_can_be_started() {
    let mut pipe = Pipe::in_its_own_memory("/own-refused", 200, |_| Act::Go);
    for _ in 0..2 {
        eventually("what is next is ready, and nobody works", || {
            let waits = !pipe.shared.raw_lock().prefetching;
            let is_ready =
                waits && pipe.is_read_ahead_of() && pipe.ready_slots().first() == Some(&(pipe.read / BLOCK as u64));
            if waits && !is_ready {
                pipe.read_some("read", BLOCK);
            }
            is_ready
        });
        REFUSES.set(true);
        while pipe.is_read_ahead_of() {
            assert_eq!(pipe.read_some("read", BLOCK), BLOCK);
        }
        REFUSES.set(false);
        assert_eq!(pipe.shared.raw_lock().spare, 0);
    }
    pipe.read_rest("read", BLOCK);
    pipe.no_memory_is_kept();
}
