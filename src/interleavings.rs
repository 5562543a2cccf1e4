//! The shell, its threads and its clock as they are, while shuttle decides at each lock, flag and wake-up who goes on.
//! Only the disk is another one: in memory, and each call of it a place where others go on.
//!
//! A wake-up that is lost is a deadlock, which shuttle tells. What an I/O thread or the clock would put right later than
//! that does not count as lost: waits that have an end do end here.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use shuttle::{
    Config, Runner,
    rand::{Rng, thread_rng},
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
    sync::{Condvar, Mutex},
    thread,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    Control, OnFull, SpillBuffer, SpillError, SpillReader, SpillWriter,
    clock::{self, Tick},
    options::{Limits, Options, Place},
    pool::{MinFreeSpace, Pool},
    shell::Shared,
    slot::Geometry,
    storage::sys::{
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    threads::{Lane, Work},
};

/// Larger than what is copied under the lock, so that both ways are taken.
const BLOCK: usize = 8 << 10;

/// Executions of each scenario under each scheduler; `INTERLEAVINGS` asks for more.
const USUAL: usize = 1_000;

/// Runs a scenario over and over, each time in another order.
fn explore(scenario: fn()) {
    let times = std::env::var("INTERLEAVINGS").ok().and_then(|times| times.parse().ok()).unwrap_or(USUAL);
    // What shuttle prints of an execution that failed, to see it once more.
    if let Ok(schedule) = std::env::var("INTERLEAVINGS_SCHEDULE") {
        return run(ReplayScheduler::new_from_encoded(&schedule), scenario);
    }
    run(RandomScheduler::new(times), scenario);
    // One runs as long as it can, but for so many moments: orders that hardly ever come up by chance.
    run(PctScheduler::new(3, times), scenario);
    run(PctScheduler::new(10, times), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: fn()) {
    let mut config = Config::new();
    config.stack_size = 256 << 10;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(scenario);
}

// ---- what the scenarios are made of ----

type Disk = Arc<Hooked<Scripted>>;

fn disk() -> Disk {
    Hooked::new(Scripted::default(), |_| {
        thread::yield_now();
        Act::Go
    })
}

/// One that is full now and then, when a file is made or written to.
fn moody_disk() -> Disk {
    Hooked::new(Scripted::default(), |call| {
        thread::yield_now();
        match call {
            Call::Create | Call::Write { .. } if any_of(&[true, false, false]) => {
                Act::Fail(io::ErrorKind::StorageFull.into())
            }
            _ => Act::Go,
        }
    })
}

/// So many blocks in memory and so many on disk. Whether it is encrypted is chance, and whether a second thread may write if not.
fn options(memory: usize, slots: u64) -> Options {
    let disk = Some(Geometry::new(BLOCK).occupied(slots));
    let encrypt = any_of(&[false, true]);
    let limits = Limits {
        memory: memory * BLOCK,
        block: BLOCK,
        encrypt,
        assisted: encrypt || any_of(&[false, true]),
        disk,
        slots,
        on_full: OnFull::Wait,
    };
    Options { limits, place: Place { dir: Some("/".into()), allow_memory_backed: false }, verify: true }
}

fn alone(options: &Options, disk: &Disk) -> (SpillWriter, SpillReader) {
    SpillBuffer::of(Shared::on(options, Some(disk.clone()))).into_split()
}

/// Wakes a thread that waits, and leaves a mark for one that does not yet. It never wakes for no reason.
#[derive(Default)]
struct Alarm {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.bell.notify_one();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let alarm = Arc::new(Alarm::default());
    let waker = Waker::from(alarm.clone());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        let mut rung = alarm.rung.lock().unwrap();
        while !*rung {
            rung = alarm.bell.wait(rung).unwrap();
        }
        *rung = false;
    }
}

fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn bytes_at(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(byte_at).collect()
}

/// Writes up to this offset, in pieces of so many bytes.
fn write_to(writer: &mut SpillWriter, at: &mut u64, end: u64, piece: usize) -> Result<(), SpillError> {
    while *at < end {
        let bytes = bytes_at(*at, piece.min((end - *at) as usize));
        let n = block_on(poll_fn(|cx| Pin::new(&mut *writer).poll_write(cx, &bytes)));
        *at += n.map_err(|error| SpillError::from_io(&error).expect("one of ours").clone())? as u64;
    }
    Ok(())
}

/// Reads up to this offset or to the end, in pieces of at most so many bytes, and checks each.
fn read_to(reader: &mut SpillReader, at: &mut u64, end: u64, piece: usize) -> Result<(), SpillError> {
    let mut space = vec![0; piece];
    while *at < end {
        let most = piece.min((end - *at) as usize);
        let mut buf = ReadBuf::new(&mut space[..most]);
        block_on(poll_fn(|cx| Pin::new(&mut *reader).poll_read(cx, &mut buf)))
            .map_err(|error| SpillError::from_io(&error).expect("one of ours").clone())?;
        if buf.filled().is_empty() {
            break;
        }
        assert!(*buf.filled() == bytes_at(*at, buf.filled().len()), "wrong bytes at {at}");
        *at += buf.filled().len() as u64;
    }
    Ok(())
}

/// Reads to the end, which must be a clean one at this offset.
fn read_all(reader: &mut SpillReader, len: u64, piece: usize) {
    let mut at = 0;
    read_to(reader, &mut at, u64::MAX, piece).unwrap();
    assert_eq!(at, len, "it ends too early");
}

/// Waits for what I/O threads do by themselves.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..20_000 {
        if holds() {
            return;
        }
        thread::yield_now();
    }
    panic!("never: {what}");
}

/// Both halves are gone: so is all that they held.
#[track_caller]
fn nothing_is_left(control: &Control, disk: &Disk) {
    eventually("everything is given back", || {
        let stats = control.stats();
        (stats.memory_held, stats.lent, stats.disk_held, stats.in_memory, stats.on_disk) == (0, 0, 0, 0, 0)
            && disk.open() == 0
    });
}

fn any_of<T: Copy>(choices: &[T]) -> T {
    choices[thread_rng().gen_range(0..choices.len())]
}

// ---- one buffer ----

/// Nothing but the write may wake the reader: no end follows before it has read.
pub fn a_parked_reader_and_a_small_write() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, 4), &disk);
        let control = reader.control();
        let reading = thread::spawn(move || {
            read_to(&mut reader, &mut 0, 12, 8).unwrap();
            reader
        });
        write_to(&mut writer, &mut 0, 12, any_of(&[5, 12])).unwrap();
        let mut reader = reading.join().unwrap();
        let finishing = thread::spawn(move || writer.finish().unwrap());
        read_to(&mut reader, &mut 12, u64::MAX, 8).unwrap();
        finishing.join().unwrap();
        assert_eq!((control.stats().written, control.stats().read), (12, 12));
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// Without a disk: only the reader makes room.
pub fn a_parked_writer_and_the_last_freed_block() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, 0), &disk);
        let control = writer.control();
        let len = 9 * BLOCK as u64;
        let piece = any_of(&[3_000, BLOCK, 2 * BLOCK]);
        let writing = thread::spawn(move || {
            write_to(&mut writer, &mut 0, len, piece).unwrap();
            writer.finish().unwrap();
        });
        read_all(&mut reader, len, any_of(&[4_000, BLOCK, 4 * BLOCK]));
        writing.join().unwrap();
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// Blocks that are with a user come back on another thread, while the writer waits for one.
pub fn a_parked_writer_and_a_chunk_that_comes_back() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, any_of(&[0, 2])), &disk);
        let control = writer.control();
        let blocks = 8;
        let writing = thread::spawn(move || {
            for block in 0..blocks {
                let item = Bytes::from(bytes_at((block * BLOCK) as u64, BLOCK));
                block_on(writer.write_bytes(item)).unwrap();
            }
            writer.finish().unwrap();
        });
        let (give, take) = shuttle::sync::mpsc::channel();
        let dropping = thread::spawn(move || while take.recv().is_ok() {});
        let mut at = 0;
        while let Some(chunk) = block_on(reader.next_chunk()).unwrap() {
            assert!(chunk == bytes_at(at, chunk.len()), "wrong bytes at {at}");
            at += chunk.len() as u64;
            give.send(chunk).unwrap();
        }
        assert_eq!(at, (blocks * BLOCK) as u64);
        drop(give);
        for done in [writing, dropping] {
            done.join().unwrap();
        }
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// A full window, held by nobody but the clock: it goes to disk though nobody reads.
pub fn the_clock_and_a_reader_that_stands_still() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, 64), &disk);
        let control = writer.control();
        let len = 10 * BLOCK as u64;
        write_to(&mut writer, &mut 0, len, any_of(&[3_000, 3 * BLOCK])).unwrap();
        let finishing = thread::spawn(move || writer.finish().unwrap());
        read_all(&mut reader, len, any_of(&[5_000, 4 * BLOCK]));
        finishing.join().unwrap();
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// The grace ends while the reader makes room and the writer takes it.
pub fn the_clock_and_both_sides() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, any_of(&[2, 64])), &disk);
        let control = writer.control();
        let len = 11 * BLOCK as u64;
        let piece = any_of(&[3_000, BLOCK, 3 * BLOCK]);
        let writing = thread::spawn(move || {
            write_to(&mut writer, &mut 0, len, piece).unwrap();
            writer.finish().unwrap();
        });
        read_all(&mut reader, len, any_of(&[5_000, BLOCK, 4 * BLOCK]));
        writing.join().unwrap();
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// A thread reads ahead of the reader while the reader reads too, and fails now and then, which is nobody's error. The writer goes
/// on, or somebody ends it all.
pub fn a_reader_and_what_is_read_ahead_of_it() {
    explore(|| {
        let fails = any_of(&[false, true]);
        let disk: Disk = Hooked::new(Scripted { cached: true, ..Scripted::default() }, move |call| {
            thread::yield_now();
            match call {
                // The page cache has everything, and who reads ahead does not ask it.
                Call::Read { cached: false, .. } if fails && any_of(&[true, false, false]) => {
                    Act::Fail(io::ErrorKind::TimedOut.into())
                }
                _ => Act::Go,
            }
        });
        let (mut writer, mut reader) = alone(&options(4, 64), &disk);
        let control = writer.control();
        let (first, len) = (18 * BLOCK as u64, 22 * BLOCK as u64);
        write_to(&mut writer, &mut 0, first, BLOCK).unwrap();
        let how = any_of(&["finish", "finish", "abort", "drop"]);
        let writing = thread::spawn(move || {
            if how == "abort" {
                return writer.control().abort("enough");
            }
            match write_to(&mut writer, &mut { first }, len, BLOCK) {
                Err(SpillError::ReaderDropped) if how == "drop" => {}
                wrote => {
                    wrote.unwrap();
                    writer.finish().or_else(|error| if how == "drop" { Ok(()) } else { Err(error) }).unwrap();
                }
            }
        });
        let piece = any_of(&[5_000, BLOCK, 3 * BLOCK]);
        let mut at = 0;
        match how {
            "finish" => read_all(&mut reader, len, piece),
            "drop" => read_to(&mut reader, &mut at, any_of(&[7, 12]) * BLOCK as u64, piece).unwrap(),
            _ => match read_to(&mut reader, &mut at, u64::MAX, piece).unwrap_err() {
                SpillError::WriterFailed { cause } => assert_eq!(cause.to_string(), "enough"),
                error => panic!("{error}"),
            },
        }
        drop(reader);
        writing.join().unwrap();
        nothing_is_left(&control, &disk);
    });
}

/// Work comes in bursts: between two of them the I/O thread and the clock's may have gone, or be about to.
pub fn bursts_and_threads_that_are_about_to_go() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, 64), &disk);
        let control = writer.control();
        let mut at = 0;
        for _ in 0..3 {
            let mut from = at;
            write_to(&mut writer, &mut at, from + 6 * BLOCK as u64, BLOCK).unwrap();
            for _ in 0..thread_rng().gen_range(0..40) {
                thread::yield_now();
            }
            read_to(&mut reader, &mut from, at, BLOCK).unwrap();
        }
        drop((writer, reader));
        nothing_is_left(&control, &disk);
    });
}

/// Whoever goes first, and whatever is on its way to disk or back: the other one is told, and nothing stays.
pub fn both_drops_and_jobs_in_flight() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, any_of(&[0, 2, 64])), &disk);
        let control = writer.control();
        let closed = writer.closed();
        let (wrote, reads) = (any_of(&[3, 6, 9]) * BLOCK as u64, any_of(&[0, 1, 3, 9]) * BLOCK as u64);
        let writing = thread::spawn(move || match write_to(&mut writer, &mut 0, wrote, BLOCK) {
            Ok(()) => drop(writer),
            Err(SpillError::ReaderDropped) => assert!(matches!(writer.finish(), Err(SpillError::ReaderDropped))),
            Err(error) => panic!("{error}"),
        });
        let waiting = thread::spawn(move || block_on(closed));
        let released = control.clone();
        let releasing = thread::spawn(move || {
            block_on(poll_fn(|cx| released.poll_released(cx)));
            let stats = released.stats();
            assert_eq!((stats.disk_held, stats.on_disk), (0, 0));
        });
        let mut at = 0;
        match read_to(&mut reader, &mut at, reads, BLOCK) {
            Ok(()) => assert_eq!(at, reads),
            Err(SpillError::WriterDropped) => assert_eq!(at, wrote),
            Err(error) => panic!("{error}"),
        }
        drop(reader);
        for done in [writing, waiting, releasing] {
            done.join().unwrap();
        }
        nothing_is_left(&control, &disk);
    });
}

/// A third hand ends the stream while both sides are at it or wait.
pub fn an_end_from_a_third_thread() {
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, any_of(&[0, 2, 64])), &disk);
        let control = writer.control();
        let how = any_of(&["fail", "abort", "cancel"]);
        let third = control.clone();
        let ending = thread::spawn(move || match how {
            "fail" => third.fail("third"),
            "abort" => third.abort("third"),
            _ => third.cancel("third"),
        });
        // It writes on for ever: only an end stops it.
        let piece = any_of(&[50, 3_000, BLOCK]);
        let writing = thread::spawn(move || {
            let mut at = 0;
            let end = loop {
                let next = at + piece as u64;
                if let Err(error) = write_to(&mut writer, &mut at, next, piece) {
                    break error;
                }
                // Or a scheduler that likes it never lets the third one on.
                thread::yield_now();
            };
            assert!(writer.finish().is_err(), "what failed is no clean end");
            (at, end)
        });
        let mut read = 0;
        let told = read_to(&mut reader, &mut read, u64::MAX, any_of(&[3_000, 2 * BLOCK])).unwrap_err();
        let (wrote, end) = writing.join().unwrap();
        ending.join().unwrap();
        let third = |error: &SpillError| match error {
            SpillError::WriterFailed { cause } => how != "cancel" && cause.to_string() == "third",
            SpillError::Cancelled { cause } => how == "cancel" && cause.to_string() == "third",
            _ => false,
        };
        assert!(third(&told) && third(&end), "{how}: {told} and {end}");
        assert!(if how == "fail" { read == wrote } else { read <= wrote }, "{how}: {read} of {wrote}");
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// The reader looks at what is taken from it, and moves on.
pub fn a_look_and_an_abort() {
    use tokio::io::AsyncBufRead;
    explore(|| {
        let disk = disk();
        let (mut writer, mut reader) = alone(&options(4, 64), &disk);
        let control = writer.control();
        let aborting = thread::spawn(move || {
            write_to(&mut writer, &mut 0, 7 * BLOCK as u64, BLOCK).unwrap();
            writer.abort("enough");
        });
        let mut at = 0;
        loop {
            let shown = block_on(poll_fn(|cx| Pin::new(&mut reader).poll_fill_buf(cx).map_ok(<[u8]>::to_vec)));
            let Ok(shown) = shown else { break };
            assert!(!shown.is_empty() && shown == bytes_at(at, shown.len()), "wrong bytes at {at}");
            Pin::new(&mut reader).consume(shown.len().min(5_000));
            at += shown.len().min(5_000) as u64;
        }
        aborting.join().unwrap();
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

/// A full disk is a limit that is reached early: it is tried again, and all get on meanwhile.
pub fn both_sides_and_a_disk_that_is_full_now_and_then() {
    explore(|| {
        let disk = moody_disk();
        let (mut writer, mut reader) = alone(&options(4, any_of(&[2, 64])), &disk);
        let control = writer.control();
        let len = 9 * BLOCK as u64;
        let piece = any_of(&[3_000, 2 * BLOCK]);
        let writing = thread::spawn(move || {
            write_to(&mut writer, &mut 0, len, piece).unwrap();
            writer.finish().unwrap();
        });
        read_all(&mut reader, len, any_of(&[5_000, 4 * BLOCK]));
        writing.join().unwrap();
        drop(reader);
        nothing_is_left(&control, &disk);
    });
}

// ---- many buffers ----

/// Buffers of four blocks each, in a pool of so much memory and disk.
fn members<const N: usize>(blocks: usize, slots: u64, disk: &Disk) -> (Arc<Pool>, [(SpillWriter, SpillReader); N]) {
    let pool = Pool::shared(&options(blocks, slots), disk.clone(), 0, MinFreeSpace::Bytes(1));
    let one = |_| SpillBuffer::of(Shared::of(pool.clone(), &options(4, slots))).into_split();
    (pool.clone(), std::array::from_fn(one))
}

/// Each is written and read by two threads of its own.
fn all_get_on<const N: usize>(all: [(SpillWriter, SpillReader); N], len: u64) {
    let threads = all.map(|(mut writer, mut reader)| {
        let piece = any_of(&[3_000, BLOCK, 3 * BLOCK]);
        let writing = thread::spawn(move || {
            write_to(&mut writer, &mut 0, len, BLOCK).unwrap();
            writer.finish().unwrap();
        });
        let reading = thread::spawn(move || read_all(&mut reader, len, piece));
        [writing, reading]
    });
    for thread in threads.into_iter().flatten() {
        thread.join().unwrap();
    }
}

#[track_caller]
fn pool_is_empty(pool: &Pool) {
    eventually("the pool has everything back", || {
        let budget = pool.budget().expect("a pool of many");
        (budget.held(), budget.lent(), pool.disk_held().0) == (0, 0, 0)
    });
}

/// Memory for what all need at once there is not: who waits is told when some comes free.
pub fn buffers_of_a_pool_and_its_last_block() {
    explore(|| {
        let disk = disk();
        let (pool, all) = members::<2>(8, any_of(&[0, 32]), &disk);
        all_get_on(all, 7 * BLOCK as u64);
        pool_is_empty(&pool);
    });
}

/// Nor are there slots enough: who waits for some gets his turn.
pub fn buffers_of_a_pool_and_its_last_slot() {
    explore(|| {
        let disk = disk();
        let (pool, all) = members::<3>(24, any_of(&[1, 2]), &disk);
        all_get_on(all, 7 * BLOCK as u64);
        pool_is_empty(&pool);
    });
}

/// What is full for one is full for all, until it is not.
pub fn buffers_of_a_pool_and_a_disk_that_is_full_now_and_then() {
    explore(|| {
        let disk = moody_disk();
        let (pool, all) = members::<2>(any_of(&[8, 16]), any_of(&[2, 64]), &disk);
        all_get_on(all, 7 * BLOCK as u64);
        pool_is_empty(&pool);
    });
}

/// More buffers than there are I/O threads, all with something to be written: one writes what others wait to have written.
pub fn what_many_want_written_is_written_by_one() {
    explore(|| {
        let disk = disk();
        let (pool, all) = members::<6>(48, 200, &disk);
        let len = 6 * BLOCK as u64;
        let writing = all.map(|(mut writer, reader)| {
            thread::spawn(move || {
                write_to(&mut writer, &mut 0, len, 2 * BLOCK).unwrap();
                writer.finish().unwrap();
                reader
            })
        });
        for thread in writing {
            read_all(&mut thread.join().unwrap(), len, 4 * BLOCK);
        }
        pool_is_empty(&pool);
    });
}

/// One that has nothing yet wants its first block, and just then those who have all give theirs back and are gone: nobody else
/// will ever tell it that there is some.
pub fn a_first_block_and_those_who_give_theirs() {
    explore(|| {
        let disk = disk();
        let (pool, [(mut writer, mut reader), hogs @ ..]) = members::<3>(8, 0, &disk);
        let hogs = hogs.map(|(mut writer, reader)| {
            let piece = bytes_at(0, BLOCK);
            let mut cx = Context::from_waker(Waker::noop());
            while Pin::new(&mut writer).poll_write(&mut cx, &piece).is_ready() {}
            thread::spawn(move || drop((writer, reader)))
        });
        let len = BLOCK as u64;
        let writing = thread::spawn(move || {
            write_to(&mut writer, &mut 0, len, BLOCK).unwrap();
            writer
        });
        // Nobody reads before it is written: a reader that waits gets its writer memory of another kind.
        let writer = writing.join().unwrap();
        for hog in hogs {
            hog.join().unwrap();
        }
        writer.finish().unwrap();
        read_all(&mut reader, len, BLOCK);
        drop(reader);
        pool_is_empty(&pool);
    });
}

/// The first in the queue for slots wants none any more, for its reader has caught up, and then wants some again.
pub fn a_queue_whose_first_wants_none_and_wants_some_again() {
    explore(|| {
        let disk = disk();
        let (pool, [(mut hog, hogs_reader), (mut writer, mut reader)]) = members::<2>(32, 2, &disk);
        write_to(&mut hog, &mut 0, 5 * BLOCK as u64, BLOCK).unwrap();
        let (first, len) = (4 * BLOCK as u64, 9 * BLOCK as u64);
        let writing = thread::spawn(move || {
            // In whole blocks: a short one takes a slot as well, and what is left would not fit.
            write_to(&mut writer, &mut 0, len, BLOCK).unwrap();
            writer.finish().unwrap();
        });
        let freeing = thread::spawn(move || drop((hogs_reader, hog)));
        let mut at = 0;
        read_to(&mut reader, &mut at, first, BLOCK).unwrap();
        // What is left fits into memory and on the disk, once the other one has gone from there.
        writing.join().unwrap();
        freeing.join().unwrap();
        read_to(&mut reader, &mut at, u64::MAX, BLOCK).unwrap();
        assert_eq!(at, len);
        drop(reader);
        pool_is_empty(&pool);
    });
}

/// One goes while it waits for memory or slots: it is the next one's turn.
pub fn a_buffer_that_goes_while_it_waits() {
    explore(|| {
        let disk = disk();
        let (pool, [(mut writer, reader), other]) = members::<2>(any_of(&[8, 24]), 2, &disk);
        let control = writer.control();
        let writing = thread::spawn(move || {
            let told = write_to(&mut writer, &mut 0, 20 * BLOCK as u64, BLOCK);
            assert!(matches!(told, Err(SpillError::ReaderDropped)));
        });
        let dropping = thread::spawn(move || drop(reader));
        all_get_on([other], 7 * BLOCK as u64);
        for done in [writing, dropping] {
            done.join().unwrap();
        }
        assert_eq!(control.stats().memory_held, 0);
        pool_is_empty(&pool);
    });
}

// ---- the threads themselves ----

/// Each piece of work is done as often as it was asked for, also by a thread that has just found nothing to do.
pub fn work_and_a_thread_that_is_about_to_go() {
    struct Job(AtomicUsize);
    impl Work for Job {
        fn work(self: Arc<Self>, _: &Lane) -> bool {
            thread::yield_now();
            // Once more, at first.
            self.0.fetch_add(1, SeqCst) == 0
        }
    }
    explore(|| {
        let lane = Lane::of(&Place::default());
        let jobs: [_; 6] = std::array::from_fn(|_| Arc::new(Job(AtomicUsize::new(0))));
        let threads = [&jobs[..3], &jobs[3..]].map(|jobs| {
            let (lane, jobs) = (lane.clone(), jobs.to_vec());
            thread::spawn(move || {
                for job in jobs {
                    lane.submit(job.clone()).unwrap();
                    for _ in 0..thread_rng().gen_range(0..50) {
                        thread::yield_now();
                    }
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        eventually("all is done", || jobs.iter().all(|job| job.0.load(SeqCst) == 2));
        assert!(!lane.is_busy());
    });
}

/// Everyone is called, also by a thread that has just found nobody to call.
pub fn calls_and_a_clock_that_is_about_to_go() {
    struct Call(AtomicUsize);
    impl Tick for Call {
        fn tick(self: Arc<Self>, _: u64) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    explore(|| {
        let calls: [_; 4] = std::array::from_fn(|_| Arc::new(Call(AtomicUsize::new(0))));
        let threads = [&calls[..2], &calls[2..]].map(|calls| {
            let calls = calls.to_vec();
            thread::spawn(move || {
                for call in calls {
                    let target: Weak<dyn Tick> = Arc::downgrade(&(call as Arc<dyn Tick>));
                    let after = any_of(&[Duration::ZERO, Duration::from_millis(1), Duration::from_millis(30)]);
                    clock::call_at(clock::now() + after.as_nanos() as u64, target).unwrap();
                    for _ in 0..thread_rng().gen_range(0..50) {
                        thread::yield_now();
                    }
                }
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        eventually("all were called", || calls.iter().all(|call| call.0.load(SeqCst) == 1));
    });
}
