//! Nothing stays behind a stream: short ones that end in every way, in every phase, over and over, and what the process
//! holds meanwhile: heap, descriptors, threads, disk. `LEAKS_LONG=1` runs 100,000 of them (in release: two minutes),
//! `LEAKS_SEED` begins with the round that failed. Pipelines have `pipeline_leaks.rs`.
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]
#![allow(unsafe_code, reason = "a global allocator that counts cannot be written without; it forwards to the system's")]
#![cfg(target_os = "linux")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    fs, io,
    io::{BufRead, Read, Write},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use spillbuffer::{OnFull, SpillBuffer, SpillPool, SpillReader, SpillWriter};
use tokio::io::AsyncWriteExt;

use crate::support::*;

struct Counted;

static HELD: AtomicIsize = AtomicIsize::new(0);
static ALLOCATIONS: AtomicIsize = AtomicIsize::new(0);

// SAFETY: every call is forwarded as it came; the counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size().cast_signed(), Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size().cast_signed(), Ordering::Relaxed);
        ALLOCATIONS.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// One test at a time: what another holds would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    pattern(0, 1);
    alone
}

/// What a process holds of what can leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holdings {
    bytes: isize,
    allocations: isize,
    descriptors: usize,
    threads: usize,
    disk: u64,
}

impl Holdings {
    fn now(scratch: &Scratch) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
        let threads = threads.trim().parse().unwrap();
        drop(status);
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
        let disk = scratch.allocated();
        Self {
            bytes: HELD.load(Ordering::Relaxed),
            allocations: ALLOCATIONS.load(Ordering::Relaxed),
            descriptors,
            threads,
            disk,
        }
    }

    /// Whether this is what there was `before`, but for what is kept on purpose: freed blocks for the next one.
    fn is_no_more_than(&self, before: &Self) -> bool {
        self.bytes <= before.bytes + SLACK
            && self.allocations <= before.allocations + 150
            && self.descriptors <= before.descriptors
            && self.threads <= before.threads
            && self.disk <= before.disk
    }
}

/// A MiB of freed blocks that the process keeps, and what the harness and the standard library have at hand.
const SLACK: isize = (MIB + 128 * KIB).cast_signed();

// ---- the streams ----

const LIMIT: usize = 64 * KIB;

/// How far a stream is when it ends.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Empty,
    InMemory,
    Spilled,
    /// Some of what was on disk has been read.
    Draining,
    /// A chunk was lent, which outlives the stream.
    Lent,
    /// The writer waits for the disk.
    WriterParked,
    /// The reader waits for a byte.
    ReaderParked,
    /// An item is accepted and does not fit.
    ItemParked,
}

const PHASES: [Phase; 8] = [
    Phase::Empty,
    Phase::InMemory,
    Phase::Spilled,
    Phase::Draining,
    Phase::Lent,
    Phase::WriterParked,
    Phase::ReaderParked,
    Phase::ItemParked,
];

/// How it ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Finish,
    FinishAndRead,
    Fail,
    FailAndRead,
    Abort,
    DropWriter,
    DropReader,
    DropBoth,
    Cancel,
    /// By a control that outlives both.
    Control,
}

const ENDS: [End; 10] = [
    End::Finish,
    End::FinishAndRead,
    End::Fail,
    End::FailAndRead,
    End::Abort,
    End::DropWriter,
    End::DropReader,
    End::DropBoth,
    End::Cancel,
    End::Control,
];

/// By which handles.
#[derive(Debug, Clone, Copy)]
enum By {
    Halves,
    Blocking,
    SinkAndStream,
    /// Not split at all.
    Whole,
}

const HANDLES: [By; 4] = [By::Halves, By::Blocking, By::SinkAndStream, By::Whole];

/// A cause that holds memory of its own, which must go with the stream.
fn cause() -> io::Error {
    io::Error::other("planned".repeat(10))
}

/// Brings a stream into its phase. What is returned outlives it.
fn bring(phase: Phase, writer: &mut SpillWriter, reader: &mut SpillReader) -> Option<Bytes> {
    let counting = Counting::new();
    let waker = counting.waker();
    let mut cx = Context::from_waker(&waker);
    match phase {
        Phase::Empty => {}
        Phase::InMemory => write_pattern(writer, 0, 5000),
        Phase::Spilled => write_pattern(writer, 0, 4 * LIMIT),
        Phase::Draining => {
            write_pattern(writer, 0, 4 * LIMIT);
            read_pattern(reader, 0, 2 * LIMIT);
        }
        Phase::Lent => {
            write_pattern(writer, 0, 2 * LIMIT);
            let chunk = block_on(reader.next_chunk()).unwrap().unwrap();
            verify(0, &chunk);
            return Some(chunk);
        }
        Phase::WriterParked => {
            let mut at = 0;
            let rounds = Rounds::new();
            while let Poll::Ready(n) = try_write(writer, &mut cx, pattern(at, 20_000)) {
                rounds.next();
                at += n.unwrap() as u64;
            }
        }
        Phase::ReaderParked => assert!(try_read(reader, &mut cx, &mut [0; 9]).is_pending()),
        Phase::ItemParked => {
            let mut wait = pin!(writer.write_bytes(item(0, 20 * LIMIT)));
            let _ = wait.as_mut().poll(&mut cx);
        }
    }
    None
}

fn read_all_there_is(reader: &mut SpillReader, from: u64) {
    let _ = read_to_end(reader, from);
}

/// One stream, from its making to its end.
fn one(buffer: SpillBuffer, phase: Phase, end: End, by: By) {
    if matches!(by, By::Whole) {
        return whole(buffer, phase, end);
    }
    let (mut writer, mut reader) = buffer.into_split();
    let lent = bring(phase, &mut writer, &mut reader);
    let control = writer.control();
    let mut closed = Box::pin(writer.closed());
    let _ = poll_once(closed.as_mut());
    let from = reader.stats().read;
    match by {
        By::Blocking => {
            let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
            if matches!(phase, Phase::InMemory) {
                writer.write_all(pattern(5000, 100)).unwrap();
                reader.fill_buf().unwrap();
            }
            end_blocking(end, writer, &mut reader);
        }
        By::SinkAndStream => {
            let (mut sink, mut stream) = (writer.into_sink(), reader.into_stream());
            match end {
                End::Finish => block_on(sink.close()).unwrap(),
                End::FinishAndRead => {
                    block_on(sink.close()).unwrap();
                    while let Some(chunk) = block_on(stream.next()) {
                        chunk.unwrap();
                    }
                }
                End::DropReader => {
                    drop(stream);
                    assert!(block_on(sink.send(Bytes::from_static(b"late"))).is_err());
                }
                End::Control => control.abort(cause()),
                End::Cancel => stream.get_ref().cancel(cause()),
                End::Fail | End::FailAndRead => {
                    sink.get_ref().fail(cause());
                    if matches!(end, End::FailAndRead) {
                        while let Some(Ok(_)) = block_on(stream.next()) {}
                    }
                }
                End::Abort => sink.get_ref().abort(cause()),
                End::DropWriter => {
                    drop(sink);
                    let _ = block_on(stream.next());
                }
                End::DropBoth => {}
            }
        }
        By::Halves | By::Whole => match end {
            End::Finish => drop(writer.finish()),
            End::FinishAndRead => {
                writer.finish().unwrap();
                read_all_there_is(&mut reader, from);
            }
            End::Fail => writer.fail(cause()),
            End::FailAndRead => {
                writer.fail(cause());
                read_all_there_is(&mut reader, from);
            }
            End::Abort => writer.abort(cause()),
            End::DropWriter => {
                drop(writer);
                read_all_there_is(&mut reader, from);
            }
            End::DropReader => {
                drop(reader);
                write_some(&mut writer, b"late").unwrap_err();
            }
            End::DropBoth => {}
            End::Cancel => reader.cancel(cause()),
            End::Control => control.cancel(cause()),
        },
    }
    drop(closed);
    drop(control);
    drop(lent);
}

fn end_blocking(end: End, mut writer: spillbuffer::BlockingWriter, reader: &mut spillbuffer::BlockingReader) {
    let mut rest = Vec::new();
    match end {
        End::Finish => drop(writer.finish()),
        End::FinishAndRead => {
            writer.finish().unwrap();
            reader.read_to_end(&mut rest).unwrap();
        }
        End::Fail => writer.fail(cause()),
        End::FailAndRead => {
            writer.fail(cause());
            reader.read_to_end(&mut rest).unwrap_err();
        }
        End::Abort => writer.abort(cause()),
        End::DropWriter => {
            drop(writer);
            reader.read_to_end(&mut rest).unwrap_err();
        }
        End::DropReader | End::Cancel => {
            reader.cancel(cause());
            writer.write_all(b"late").unwrap_err();
        }
        End::DropBoth => {}
        End::Control => writer.control().fail(cause()),
    }
}

/// The same by the one handle that is both.
fn whole(mut buffer: SpillBuffer, phase: Phase, end: End) {
    let control = buffer.control();
    let len = match phase {
        Phase::Empty | Phase::ReaderParked => 0,
        Phase::InMemory | Phase::Lent => 5000,
        _ => 3 * LIMIT,
    };
    for part in (0..len).step_by(5000) {
        block_on(buffer.write_all(pattern(part as u64, 5000.min(len - part)))).unwrap();
    }
    match end {
        End::Finish => block_on(buffer.shutdown()).unwrap(),
        End::FinishAndRead => {
            block_on(buffer.shutdown()).unwrap();
            block_on(tokio::io::copy(&mut buffer, &mut tokio::io::sink())).unwrap();
        }
        End::Fail | End::FailAndRead => control.fail(cause()),
        End::Abort | End::Control => control.abort(cause()),
        End::Cancel => control.cancel(cause()),
        End::DropWriter | End::DropReader | End::DropBoth => {}
    }
}

// ---- over and over ----

/// Runs streams one after the other and a few at a time, and looks now and then.
fn over_and_over(scratch: &Scratch, streams: usize, pool: Option<&SpillPool>) {
    let first: u64 = std::env::var("LEAKS_SEED").map_or(1, |seed| seed.parse().unwrap());
    let alone = scratch.builder(LIMIT).disk_limit(16 * LIMIT as u64);
    let one_by_seed = |seed: u64| {
        let mut random = Random::new(seed);
        let phase = PHASES[random.below(PHASES.len())];
        let end = ENDS[random.below(ENDS.len())];
        let by = HANDLES[random.below(HANDLES.len())];
        let buffer = match pool {
            Some(pool) => pool.builder().memory_limit(2 * LIMIT).disk_limit(16 * LIMIT as u64).build(),
            None => alone.clone().build(),
        };
        if let Err(panic) =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(buffer.unwrap(), phase, end, by)))
        {
            eprintln!("LEAKS_SEED={seed}: {phase:?}, {end:?}, {by:?}");
            std::panic::resume_unwind(panic);
        }
    };
    // Some at a time, so that they meet in the file and at the threads.
    let batch = |from: u64, to: u64| {
        thread::scope(|scope| {
            for part in 0..4 {
                scope.spawn(move || (from..to).filter(|seed| seed % 4 == part).for_each(one_by_seed));
            }
        });
    };
    let warm_up = (streams as u64 / 10).clamp(200, 2000);
    let settled = || {
        eventually("the pool is empty", || pool.is_none_or(|pool| pool.stats().file_bytes == 0));
        // Threads go after a moment without work, and are not the stream's.
        eventually("threads and files are gone", || scratch.open_files().is_empty() && io_threads() == 0);
        Holdings::now(scratch)
    };
    batch(first, first + warm_up);
    let before = settled();
    // Where there are many, what grows slowly shows from one half to the next.
    let step = streams as u64 / if streams > 10_000 { 2 } else { 1 };
    for from in (0..streams as u64).step_by(step as usize) {
        batch(first + from, first + from + step);
        let mut now = settled();
        let fits = holds_within(Duration::from_secs(5), || {
            now = Holdings::now(scratch);
            now.is_no_more_than(&before)
        });
        assert!(fits, "{now:?} after {} streams, and {before:?} after {warm_up}", from + step);
        eprintln!("{} streams: {now:?}", from + step);
    }
}

/// The crate's own threads, by their name.
fn io_threads() -> usize {
    let names = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = names.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("spill")).count()
}

fn how_many() -> usize {
    if std::env::var_os("LEAKS_LONG").is_some() { 50_000 } else { 600 }
}

#[test]
fn c12_nothing_is_left_of_streams_that_stand_alone_however_they_end() {
    let _alone = alone();
    let scratch = Scratch::new();
    over_and_over(&scratch, how_many(), None);
}

#[test]
fn c12_nothing_is_left_of_a_pools_streams_however_they_end() {
    let _alone = alone();
    let scratch = Scratch::new();
    let builder = SpillPool::builder().memory_limit(4 * LIMIT).disk_limit(8 << 20).temp_dir(scratch.path());
    let pool = builder.min_free_space(0).on_full(OnFull::Wait).build().unwrap();
    over_and_over(&scratch, how_many(), Some(&pool));
    let stats = pool.stats();
    assert_eq!((stats.buffers, stats.memory_held, stats.lent, stats.disk_held), (0, 0, 0, 0), "{stats:?}");
}

/// Each way to end in each phase by each handle, one at a time: to the byte, where nothing else is going on.
#[test]
fn c12_each_end_in_each_phase_gives_back_each_allocation() {
    let _alone = alone();
    let scratch = Scratch::new();
    let pool = SpillPool::builder().memory_limit(4 * LIMIT).temp_dir(scratch.path()).retain(0).min_free_space(0);
    let pool = Arc::new(pool.build().unwrap());
    for pooled in [false, true] {
        for phase in PHASES {
            for end in ENDS {
                // In a pool, one of the handles for each: what they do is the same.
                let first = if pooled { (phase as usize + end as usize) % HANDLES.len() } else { 0 };
                for by in HANDLES.into_iter().skip(first).take(if pooled { 1 } else { HANDLES.len() }) {
                    let disk = 16 * LIMIT as u64;
                    let make = || {
                        let (builder, limit) =
                            if pooled { (pool.builder(), 2 * LIMIT) } else { (scratch.builder(LIMIT), LIMIT) };
                        builder.memory_limit(limit).disk_limit(disk).build().unwrap()
                    };
                    // The first may make what stays: a thread, a table that grew. So may the harness at any time, but not
                    // three times on end.
                    one(make(), phase, end, by);
                    let stay = || {
                        let before = ALLOCATIONS.load(Ordering::Relaxed);
                        one(make(), phase, end, by);
                        one(make(), phase, end, by);
                        !holds_within(Duration::from_secs(5), || ALLOCATIONS.load(Ordering::Relaxed) - before < 2)
                    };
                    let leaks = (0..3).all(|_| stay());
                    assert!(!leaks, "something stays of each stream: {phase:?}, {end:?}, {by:?}, in a pool: {pooled}");
                }
            }
        }
    }
}
