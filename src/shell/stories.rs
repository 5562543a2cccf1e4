//! Regressions: each begins with what went wrong.

use std::{
    error::Error,
    fmt, io,
    io::{Read, Write},
    path::Path,
    pin::Pin,
    sync::{
        Arc, RwLock, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};

use tokio::io::AsyncWrite;

use super::{
    Shared,
    tests::{buffer, eventually, small, within},
};
use crate::{
    OnFull, SpillBuffer, clock,
    options::Options,
    pool::{Grant, Member, MinFreeSpace, Pool},
    slot::SlotRun,
    stats::SpillStats,
    storage::sys::{Platform, RawFile, faulty::Scripted},
};

/// A disk on which making a file and punching holes wait until they are let go.
#[derive(Debug, Default, Clone)]
struct Gates {
    create: Arc<RwLock<()>>,
    punch: Arc<RwLock<()>>,
    creating: Arc<AtomicUsize>,
    punching: Arc<AtomicUsize>,
    punched: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct GatedFile {
    file: Box<dyn RawFile>,
    gates: Gates,
}

impl Platform for Gates {
    fn create(&self, dir: &Path) -> io::Result<Box<dyn RawFile>> {
        self.creating.fetch_add(1, SeqCst);
        let _let_go = self.create.read().unwrap();
        self.open.fetch_add(1, SeqCst);
        Ok(Box::new(GatedFile { file: Scripted::default().create(dir)?, gates: self.clone() }))
    }

    fn memory_backed(&self, _: &Path) -> io::Result<Option<&'static str>> {
        Ok(None)
    }

    fn free_space(&self, _: &Path) -> io::Result<(u64, u64)> {
        Ok((u64::MAX, u64::MAX))
    }
}

impl RawFile for GatedFile {
    fn write_at(&self, bufs: &[io::IoSlice<'_>], at: u64) -> io::Result<usize> {
        self.file.write_at(bufs, at)
    }

    fn read_at(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.file.read_at(bufs, at)
    }

    fn read_cached(&self, bufs: &mut [io::IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.file.read_cached(bufs, at)
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.gates.punching.fetch_add(1, SeqCst);
        let _let_go = self.gates.punch.read().unwrap();
        let punched = self.file.punch(at, len);
        self.gates.punched.fetch_add(1, SeqCst);
        punched
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn size_limit(&self) -> Option<u64> {
        self.file.size_limit()
    }
}

impl Drop for GatedFile {
    fn drop(&mut self) {
        self.gates.open.fetch_sub(1, SeqCst);
    }
}

/// While holes were punched, the slots concerned were nobody's; a writer that wanted them was told that the disk
/// is full, and nothing ever told it otherwise: under `Wait` it hung, under `Fail` it failed below its limit.
#[test]
fn c08_slots_that_are_being_given_back_are_not_a_full_disk() {
    for on_full in [OnFull::Wait, OnFull::Fail] {
        let gates = Gates::default();
        let (buffer, _shared) = buffer(small().disk_limit(24 << 20).on_full(on_full), gates.clone());
        let (writer, reader) = buffer.into_split();
        let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
        writer.write_all(&vec![1; 20 << 20]).unwrap();
        let held = gates.punch.write().unwrap();
        reader.read_exact(&mut vec![0; 20 << 20]).unwrap();
        eventually("holes are punched", || gates.punching.load(SeqCst) > 0);
        let producer = thread::spawn(move || {
            // Nearly all of the limit, with nobody reading.
            let written = writer.write_all(&vec![2; 22 << 20]);
            (writer, written)
        });
        let control = reader.control();
        eventually("it has got as far as it can", || control.stats().on_disk > 1 << 20);
        drop(held);
        let (_writer, written) = within("the writer", move || producer.join().unwrap());
        written.unwrap();
    }
}

/// A look that is due in an hour, as for a disk that was full, must not keep a writer held until then: what is due earlier is
/// asked for too.
#[test]
fn c05_patience_ends_in_time_where_a_later_look_is_already_due() {
    let (buffer, shared) = buffer(small(), Scripted::default());
    shared.raw_lock().armed = Some(clock::now() + 3_600_000_000_000);
    let (writer, _reader) = buffer.into_split();
    let mut writer = writer.into_blocking();
    within("the writer", move || writer.write_all(&vec![1; 1 << 20])).unwrap();
    assert!(shared.stats().spilled > 0);
}

/// A file that was still being made when its buffer ended, or was drained, stayed open for ever.
#[test]
fn c06_a_file_that_comes_too_late_is_closed() {
    for drained in [true, false] {
        let gates = Gates::default();
        let held = gates.create.write().unwrap();
        let (buffer, _shared) = buffer(small(), gates.clone());
        let (writer, reader) = buffer.into_split();
        let (mut writer, mut reader) = (writer.into_blocking(), Some(reader.into_blocking()));
        writer.write_bytes(vec![1; 200_000].into()).unwrap();
        eventually("the file is being made", || gates.creating.load(SeqCst) > 0);
        if drained {
            reader.as_mut().unwrap().read_exact(&mut vec![0; 200_000]).unwrap();
        } else {
            reader = None;
        }
        drop(held);
        eventually("the file is made and closed", || {
            gates.creating.load(SeqCst) > 0 && gates.create.try_write().is_ok() && gates.open.load(SeqCst) == 0
        });
        drop((writer, reader));
    }
}

#[derive(Debug)]
struct Holding<T>(T);

impl<T> fmt::Display for Holding<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an error that holds something")
    }
}

impl<T: fmt::Debug> Error for Holding<T> {}

/// A cause that came too late was dropped under the buffer's lock; one that held a chunk of the same buffer then
/// waited for that lock, for ever.
#[test]
fn c12_a_cause_that_is_refused_may_hold_anything() {
    within("the second cause", || {
        let (writer, reader) = SpillBuffer::new().into_split();
        let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
        writer.write_all(&vec![1; 256 << 10]).unwrap();
        let mut chunk = || Holding(reader.next_chunk().unwrap().unwrap());
        let (one, two, three) = (chunk(), chunk(), chunk());
        reader.cancel("first");
        reader.cancel(one);
        writer.fail(two);
        writer.abort(three);
        assert_eq!(reader.stats().lent, 0);
    });
}

/// The waker of a half that was polled, went on and ended was kept as long as anything of the buffer.
#[test]
fn c12_a_half_that_is_gone_keeps_no_waker() {
    struct Count;
    impl Wake for Count {
        fn wake(self: Arc<Self>) {}
    }
    let (buffer, _shared) = buffer(small().disk_limit(0), Scripted::default());
    let (mut writer, reader) = buffer.into_split();
    let mut reader = reader.into_blocking();
    let count = Arc::new(Count);
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    let piece = vec![1; 16 << 10];
    while Pin::new(&mut writer).poll_write(&mut cx, &piece).is_ready() {}
    reader.read_exact(&mut vec![0; 16 << 10]).unwrap();
    let _ = Pin::new(&mut writer).poll_write(&mut cx, &piece);
    writer.finish().unwrap();
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1);
}

/// One poll took as much as a reader beside it made room for: hundreds of MiB, while other tasks waited.
#[test]
fn c11_one_poll_is_bounded_however_fast_the_other_side_is() {
    let (mut writer, reader) = SpillBuffer::builder().memory_limit(8 << 20).build().unwrap().into_split();
    let mut cx = Context::from_waker(Waker::noop());
    let all = vec![1; 4 << 20];
    let Poll::Ready(Ok(n)) = Pin::new(&mut writer).poll_write(&mut cx, &all) else { panic!("there is room") };
    assert!((1..=2 << 20).contains(&n), "{n}");
    assert!(Pin::new(&mut writer).poll_write(&mut cx, &all).is_ready());
    let mut buf = vec![0; 8 << 20];
    let n = reader.into_blocking().read(&mut buf).unwrap();
    assert!((1..=2 << 20).contains(&n), "{n}");
}

/// An error whose drop panicked, dropped with its buffer by an I/O thread, ended that thread, and was never counted off:
/// after four, nobody in that directory could spill any more.
#[test]
fn c12_a_drop_that_panics_costs_no_thread() {
    #[derive(Debug)]
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(thread::panicking(), "as planned");
        }
    }
    let at_bombs = || small().temp_dir("/bombs");
    for _ in 0..5 {
        let gates = Gates::default();
        let held = gates.create.write().unwrap();
        let (buffer, shared) = buffer(at_bombs(), gates.clone());
        let (writer, reader) = buffer.into_split();
        let mut writer = writer.into_blocking();
        writer.write_bytes(vec![1; 200_000].into()).unwrap();
        eventually("the file is being made", || gates.creating.load(SeqCst) > 0);
        writer.fail(Holding(Bomb));
        let weak = Arc::downgrade(&shared);
        drop((shared, reader, writer));
        drop(held);
        eventually("the I/O thread has dropped it", || weak.strong_count() == 0);
    }
    within("another buffer of that directory", move || {
        let (buffer, _shared) = buffer(at_bombs(), Scripted::default());
        let (writer, _reader) = buffer.into_split();
        writer.into_blocking().write_all(&vec![1; 300_000]).unwrap();
    });
}

/// A pool with room in memory for many small buffers.
fn pool(platform: impl Platform + 'static, disk: u64) -> (Arc<Pool>, Options) {
    let options = small().disk_limit(disk).settings().check().unwrap();
    let mut whole = options.clone();
    whole.limits.memory = 4 << 20;
    (Pool::shared(&whole, Arc::new(platform), 0, MinFreeSpace::Bytes(1)), options)
}

/// Slots that were being given back when they came free were nobody's at that moment, and nobody told those in the queue when
/// they were there again: writers waited below the disk limit.
#[test]
fn c08_who_waits_for_slots_is_told_when_they_have_been_given_back() {
    #[derive(Default)]
    struct Waits(AtomicUsize);
    impl Member for Waits {
        fn memory_came(self: Arc<Self>) {}
        fn slots_came(self: Arc<Self>) -> bool {
            self.0.fetch_add(1, SeqCst);
            true
        }
        fn squeeze(self: Arc<Self>) -> bool {
            false
        }
        fn stats(&self) -> SpillStats {
            SpillStats::default()
        }
    }
    let gates = Gates::default();
    let (pool, _) = pool(gates.clone(), 24 << 20);
    pool.create_file(0).unwrap();
    let waits = Arc::new(Waits::default());
    let member: Weak<dyn Member> = Arc::downgrade(&(waits.clone() as Arc<dyn Member>));
    let mut granted = 0;
    loop {
        match pool.grant(16, 1, &member) {
            Grant::Slots(run, _) => granted += run.count,
            Grant::AskSpace => pool.ask_space().unwrap(),
            _ => break,
        }
    }
    pool.end_turn(1);
    assert!(matches!(pool.grant(16, 2, &member), Grant::Full(_)));
    // A slot that comes free while nothing is given back; by and by that is given back too, and no look is due any more.
    pool.see_to(pool.free([SlotRun::one(0)].into_iter()));
    // Until then: a hole that is being punched while the gate closes would be taken for the next one.
    eventually("it is looked at again", || waits.0.load(SeqCst) > 1 && gates.punched.load(SeqCst) > 0);
    let held = gates.punch.write().unwrap();
    let punched = gates.punching.load(SeqCst);
    // One stays live, so that the file is not closed.
    pool.see_to(pool.free([SlotRun::new(2, granted - 2)].into_iter()));
    eventually("holes are punched", || gates.punching.load(SeqCst) > punched);
    let before = waits.0.load(SeqCst);
    drop(held);
    eventually("it is told", || waits.0.load(SeqCst) > before);
}

/// A buffer that waited for its turn lost it when an I/O thread came by to read for it: its writer waited on, however much
/// space others gave back.
#[test]
fn c08_a_read_does_not_cost_the_writer_its_turn() {
    let (pool, options) = pool(Scripted::default(), 8 << 20);
    let one = || {
        let shared = Shared::of(pool.clone(), &options);
        let (writer, reader) = SpillBuffer::of(shared.clone()).into_split();
        (writer.into_blocking(), reader.into_blocking(), shared)
    };
    let (mut writer, mut reader, shared) = one();
    let (mut hog, hogs_reader, _) = one();
    writer.write_all(&vec![1; 200_000]).unwrap();
    let hog = thread::spawn(move || hog.write_all(&vec![2; 16 << 20]));
    eventually("the disk is full", || pool.disk_held().0 > (8 << 20) - (64 << 10));
    let producer = thread::spawn(move || writer.write_all(&vec![1; 1 << 20]));
    eventually("it waits for its turn", || shared.raw_lock().queued);
    // One block from memory, and of the next, which is on disk, so little that its slot stays.
    reader.read_exact(&mut vec![0; (16 << 10) + 1]).unwrap();
    eventually("the I/O thread has gone", || !shared.raw_lock().driving);
    drop(hogs_reader);
    within("the writer", move || producer.join().unwrap()).unwrap();
    hog.join().unwrap().unwrap_err();
}
