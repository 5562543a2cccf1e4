//! The shell over storage that fails: a fixed script, every call of it, every kind of fault, over a
//! file in memory and over the real one.

use std::{
    io::{Read, Write},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{Shared, filling::Filling};
use crate::{
    BlockingReader, Builder, OnFull, SpillBuffer, SpillError, SpillStats, block,
    copy::streaming,
    core::model::byte_at,
    pool::Member,
    storage::sys::{
        Platform, RawFile, System,
        faulty::{Faulty, Kind, Plan, Scripted},
    },
};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EFBIG: i32 = 27;

pub(super) fn buffer(builder: Builder, platform: impl Platform + 'static) -> (SpillBuffer, Arc<Shared>) {
    let shared = Shared::on(&builder.settings().check().unwrap(), Some(Arc::new(platform)));
    (SpillBuffer::of(shared.clone()), shared)
}

fn stream(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(byte_at).collect()
}

pub(super) fn small() -> Builder {
    SpillBuffer::builder().memory_limit(64 << 10)
}

/// Fails instead of hanging.
pub(super) fn within<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let worker = thread::spawn(move || done.send(run()));
    match wait.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().expect_err("it ended without a result"))
        }
    }
}

/// A waker keeps a task alive, and with it what that task holds, which may be the other half: so neither a writer that has
/// ended keeps one, whether something followed from its end or nothing did, nor one that is told that it had failed.
#[test]
fn c12_a_writer_that_has_ended_keeps_no_waker() {
    struct Task;
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    for (quiet, failed) in [(true, false), (false, false), (false, true)] {
        let (buffer, shared) = buffer(small(), Scripted::default());
        let (mut writer, _reader) = buffer.into_split();
        let task = Arc::new(Task);
        // As one that was polled again before it was woken leaves it.
        shared.raw_lock().writer.waker = Some(Waker::from(task.clone()));
        shared.raw_lock().quiet = quiet;
        if failed {
            writer.abort("it has failed");
        }
        assert_eq!(writer.end().is_err(), failed);
        assert_eq!(Arc::strong_count(&task), 1, "quiet: {quiet}, failed: {failed}");
    }
    // Nor does either half that was dropped without a word, as long as the other is there.
    let task = Arc::new(Task);
    let (one, shared) = buffer(small(), Scripted::default());
    let (writer, reader) = one.into_split();
    shared.raw_lock().writer.waker = Some(Waker::from(task.clone()));
    shared.raw_lock().reader.waker = Some(Waker::from(task.clone()));
    drop(writer);
    assert_eq!(Arc::strong_count(&task), 2);
    drop(reader);
    assert_eq!(Arc::strong_count(&task), 1);
}

/// Waits for what I/O threads do by themselves, for a bounded time.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        thread::yield_now();
    }
}

/// How a run of the script came out for the reader.
#[derive(Debug)]
struct Outcome {
    bytes: u64,
    end: Result<(), SpillError>,
    written: Result<u64, SpillError>,
    stats: SpillStats,
    /// The writer got as far as it should before anything was read.
    stalled: bool,
}

/// Writes four times the memory with nobody reading, then reads some, writes more, finishes, reads all.
/// Under `Wait` on a disk that is full the reader must go on for the writer to, so it does.
fn script(builder: Builder, platform: impl Platform + 'static) -> Outcome {
    let (buffer, shared) = buffer(builder, platform);
    let (writer, reader) = buffer.into_split();
    let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
    let control = reader.control();
    let (stalled, stall) = mpsc::channel::<()>();
    let producer = thread::spawn(move || {
        let mut at = 0u64;
        for i in 0..40 {
            if i == 24 {
                let _ = stalled.send(());
            }
            let bytes = stream(at, 16_000);
            if let Err(error) = writer.write_all(&bytes) {
                drop(stalled);
                let told = SpillError::from_io(&error).expect("one of ours").clone();
                // It repeats, and what follows is no clean end.
                assert!(writer.flush().is_err() && writer.finish().is_err());
                return Err(told);
            }
            at += bytes.len() as u64;
        }
        writer.finish().map(|()| at)
    });
    // Until the writer has got far, or cannot; a disk that is full holds it until somebody reads.
    let stalled = stall.recv_timeout(Duration::from_millis(200)).is_ok();
    let mut buf = vec![0; 10_000];
    let mut bytes = 0;
    let end = loop {
        match reader.read(&mut buf) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                for (offset, &byte) in (bytes..).zip(&buf[..n]) {
                    assert_eq!(byte, byte_at(offset), "a wrong byte at {offset}");
                }
                bytes += n as u64;
            }
            Err(error) => break Err(SpillError::from_io(&error).expect("one of ours").clone()),
        }
    };
    if let Err(first) = &end {
        let again = reader.read(&mut buf).expect_err("an error repeats");
        assert_eq!(SpillError::from_io(&again).unwrap().to_string(), first.to_string());
    }
    let written = producer.join().expect("the producer");
    let accepted = control.stats().written;
    drop(reader);
    eventually("all blocks and slots are given back", || {
        let stats = shared.stats();
        stats.memory_held == 0 && stats.disk_held == 0 && stats.file_bytes == 0
    });
    let stats = control.stats();
    match &end {
        Ok(()) => assert_eq!((bytes, written.clone().ok()), (accepted, Some(accepted)), "a silently short stream"),
        Err(SpillError::Corrupt { offset, .. }) => assert_eq!(*offset / 16_384, bytes / 16_384),
        Err(_) => {}
    }
    Outcome { bytes, end, written, stats, stalled }
}

/// Fails the k-th call for every k, until the script makes no k-th call.
fn fail_every_call<P: Platform + 'static>(
    name: &str,
    kind: Kind,
    forever: bool,
    platform: impl Fn() -> P,
    check: impl Fn(usize, &Outcome),
) {
    for encrypt in [false, true] {
        fail_every_call_of(encrypt, name, kind, forever, &platform, &check);
    }
}

fn fail_every_call_of<P: Platform + 'static>(
    encrypt: bool,
    name: &str,
    kind: Kind,
    forever: bool,
    platform: impl Fn() -> P,
    check: impl Fn(usize, &Outcome),
) {
    for at in 0.. {
        let plan = Arc::new(Plan::new(at, forever, kind));
        let faulty = Faulty { platform: platform(), plan: plan.clone() };
        let what = format!("{name} at call {at}, encrypted: {encrypt}");
        let outcome = within(&what, move || script(small().encrypt(encrypt), faulty));
        check(at, &outcome);
        // On a busy machine the reader may have begun too early, and the script made fewer calls than it does.
        if plan.calls() <= at && outcome.stalled {
            assert!(at > 10, "the script makes no calls");
            assert!(outcome.end.is_ok() && outcome.bytes == 640_000 && outcome.stats.spilled > 0);
            return;
        }
        assert!(at < 1000, "the script never ends");
    }
}

fn is_storage(error: &SpillError) -> bool {
    matches!(error, SpillError::Storage { .. })
}

/// An error that is not about space is told to whom it concerns, or concerns nobody any more.
fn eio(at: usize, outcome: &Outcome) {
    if let Err(error) = &outcome.end {
        assert!(is_storage(error) && error.raw_os_error() == Some(EIO), "call {at}: {outcome:?}");
    }
    if let Err(error) = &outcome.written {
        assert!(is_storage(error) && error.raw_os_error() == Some(EIO), "call {at}: {outcome:?}");
        assert!(outcome.end.is_err(), "call {at}: {outcome:?}");
    }
}

/// Under `Wait` a full disk is no error at all.
fn enospc(at: usize, outcome: &Outcome) {
    let reads_failed = matches!(&outcome.end, Err(error) if is_storage(error));
    assert!(outcome.end.is_ok() || reads_failed, "call {at}: {outcome:?}");
    if outcome.end.is_ok() {
        assert_eq!(outcome.bytes, 640_000);
    }
}

fn all_is_well(at: usize, outcome: &Outcome) {
    assert!(outcome.end.is_ok() && outcome.bytes == 640_000, "call {at}: {outcome:?}");
}

fn corrupt(at: usize, outcome: &Outcome) {
    if let Err(error) = &outcome.end {
        assert!(matches!(error, SpillError::Corrupt { .. }), "call {at}: {outcome:?}");
    }
}

fn panicked(at: usize, outcome: &Outcome) {
    if let Err(error) = &outcome.end {
        assert!(is_storage(error), "call {at}: {outcome:?}");
    }
}

#[test]
fn c08_every_call_fails_once_with_eio_scripted() {
    fail_every_call("EIO", Kind::Errno(EIO), false, Scripted::default, eio);
}

#[test]
fn c08_every_call_from_some_on_fails_with_eio_scripted() {
    fail_every_call("EIO on", Kind::Errno(EIO), true, Scripted::default, eio);
}

#[test]
fn c08_every_call_fails_once_with_enospc_scripted() {
    fail_every_call("ENOSPC", Kind::Errno(ENOSPC), false, Scripted::default, enospc);
}

#[test]
fn c08_every_call_is_short_once_scripted() {
    fail_every_call("short", Kind::Short, false, Scripted::default, all_is_well);
    fail_every_call("always short", Kind::Short, true, Scripted::default, all_is_well);
}

#[test]
fn c14_every_call_flips_a_bit_once_scripted() {
    fail_every_call("flip", Kind::Flip, false, Scripted::default, corrupt);
}

#[test]
fn c08_every_call_fails_once_on_the_real_file() {
    fail_every_call("EIO", Kind::Errno(EIO), false, || System, eio);
    fail_every_call("ENOSPC", Kind::Errno(ENOSPC), false, || System, enospc);
    fail_every_call("short", Kind::Short, false, || System, all_is_well);
    fail_every_call("flip", Kind::Flip, false, || System, corrupt);
}

#[test]
fn c11_an_io_thread_that_panics_is_a_failed_job_and_no_hang() {
    // Only what runs on I/O threads: a panic in place would be the reader's own.
    for at in 0..12 {
        let mut plan = Plan::new(at, false, Kind::Panic);
        plan.only_writes = true;
        let faulty = Faulty { platform: Scripted::default(), plan: Arc::new(plan) };
        let outcome = within("a panic", move || script(small(), faulty));
        panicked(at, &outcome);
    }
}

#[test]
fn c08_a_disk_that_stays_full_makes_a_pipe_under_wait_and_an_error_under_fail() {
    // The latter is what a file system says of its own, whatever limit the process has.
    for (errno, kind) in [(ENOSPC, std::io::ErrorKind::StorageFull), (EFBIG, std::io::ErrorKind::FileTooLarge)] {
        let full = || {
            let mut plan = Plan::new(6, true, Kind::Errno(errno));
            plan.only_writes = true;
            Faulty { platform: Scripted::default(), plan: Arc::new(plan) }
        };
        let platform = full();
        let outcome = within("wait", move || script(small(), platform));
        all_is_well(6, &outcome);

        let platform = full();
        let outcome = within("fail", move || script(small().on_full(OnFull::Fail), platform));
        let error = outcome.written.as_ref().expect_err("the writer is told");
        assert!(matches!(error, SpillError::DiskLimit { .. }) && error.raw_os_error() == Some(errno), "{outcome:?}");
        assert_eq!(std::io::Error::from(error.clone()).kind(), kind);
        let told = outcome.end.as_ref().expect_err("the reader too");
        assert!(matches!(told, SpillError::DiskLimit { .. }));
        assert_eq!(outcome.bytes, outcome.stats.written, "every accepted byte came before it");
    }
}

#[test]
fn c08_a_file_size_limit_is_a_full_disk() {
    let platform = Scripted { file_size_limit: Some(100_000), ..Scripted::default() };
    let outcome = within("limit", move || script(small(), platform));
    all_is_well(0, &outcome);
    assert!(outcome.stats.peak_disk_held <= 100_000 && outcome.stats.spilled > 0);
    // Too small for anything: a pipe of what memory has.
    let platform = Scripted { file_size_limit: Some(1), ..Scripted::default() };
    let outcome = within("limit", move || script(small(), platform));
    all_is_well(0, &outcome);
    assert_eq!(outcome.stats.spilled, 0);
}

#[test]
fn c13_a_memory_backed_directory_is_refused_with_its_name_and_file_system() {
    let tmpfs = || Scripted { memory_backed: Some("tmpfs"), ..Scripted::default() };
    let outcome = within("tmpfs", move || script(small().temp_dir("/some/dir"), tmpfs()));
    let error = outcome.written.as_ref().expect_err("refused");
    assert!(matches!(error, SpillError::MemoryBackedDir { file_system: "tmpfs", path, .. } if path.ends_with("dir")));
    assert_eq!(outcome.bytes, outcome.stats.written, "the reader gets all that was accepted");

    let none_given = within("tmpfs", move || script(small(), tmpfs()));
    let text = none_given.written.as_ref().expect_err("refused").to_string();
    assert!(text.contains("/var/tmp") && text.contains(&*std::env::temp_dir().to_string_lossy()), "{text}");

    let allowed = small().temp_dir("/some/dir").allow_memory_backed_dir(true);
    all_is_well(0, &within("allowed", move || script(allowed, tmpfs())));
}

/// A generator that is the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// A few bytes, or many.
    fn length(&mut self) -> usize {
        let most = [100, 5_000, 40_000, 150_000][self.roll(4) as usize];
        1 + self.roll(most) as usize
    }
}

/// Two threads, every way in and every way out, in pieces of any size; how it ends is left to chance.
fn two_threads(seed: u64, platform: impl Platform + 'static) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let memory = (64 << 10) + dice.roll(5) as usize * 7_777;
    let (buffer, shared) =
        buffer(SpillBuffer::builder().memory_limit(memory).encrypt(seed.is_multiple_of(2)), platform);
    let (writer, reader) = buffer.into_split();
    let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
    let control = reader.control();
    let (total, ending, mut way) = (dice.roll(1 << 21), dice.roll(5), Dice(dice.0));
    let producer = thread::spawn(move || {
        let mut at = 0;
        while at < total {
            let len = way.length();
            let bytes = stream(at, len);
            if way.roll(4) == 0 {
                writer.write_bytes(bytes.into()).unwrap();
            } else {
                writer.write_all(&bytes).unwrap();
            }
            at += len as u64;
        }
        match ending {
            0 => writer.fail("as planned"),
            1 => drop(writer),
            _ => writer.finish().unwrap(),
        }
    });
    let (mut at, mut held) = (0u64, Vec::new());
    let mut buf = vec![0; 150_000];
    let end = loop {
        let len = dice.length();
        let check = |at: u64, bytes: &[u8]| {
            let wrong = bytes.iter().zip(at..).position(|(&byte, offset)| byte != byte_at(offset));
            assert_eq!(wrong, None, "seed {seed}: a wrong byte behind {at}");
        };
        let n = match dice.roll(4) {
            0 => match reader.next_chunk() {
                Ok(Some(chunk)) => {
                    check(at, &chunk);
                    let n = chunk.len();
                    held.push(chunk);
                    n
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            1 => match std::io::BufRead::fill_buf(&mut reader) {
                Ok([]) => break Ok(()),
                Ok(bytes) => {
                    let n = bytes.len().min(len);
                    check(at, &bytes[..n]);
                    std::io::BufRead::consume(&mut reader, n);
                    n
                }
                Err(error) => break Err(SpillError::from_io(&error).unwrap().clone()),
            },
            _ => match reader.read(&mut buf[..len]) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    check(at, &buf[..n]);
                    n
                }
                Err(error) => break Err(SpillError::from_io(&error).unwrap().clone()),
            },
        };
        at += n as u64;
        if dice.roll(3) == 0 {
            held.clear();
        }
        assert!(control.stats().memory_held <= memory as u64);
    };
    producer.join().unwrap();
    let written = control.stats().written;
    assert_eq!(at, written, "seed {seed}: every accepted byte comes before any end");
    match ending {
        0 => assert!(matches!(end, Err(SpillError::WriterFailed { .. }))),
        1 => assert!(matches!(end, Err(SpillError::WriterDropped))),
        _ => end.unwrap(),
    }
    held.clear();
    drop(reader);
    eventually("everything is given back", || {
        let stats = shared.stats();
        (stats.memory_held, stats.disk_held, stats.file_bytes) == (0, 0, 0)
    });
}

#[test]
fn c01_two_threads_at_random_over_storage_that_misses() {
    for seed in 0..150 {
        within(&format!("seed {seed}"), move || two_threads(seed, Scripted::default()));
    }
}

#[test]
fn c01_two_threads_at_random_over_the_real_file() {
    for seed in 1000..1100 {
        within(&format!("seed {seed}"), move || two_threads(seed, System));
    }
}

/// What goes to disk, and not what a reader that keeps up would then not find in the cache, nor what is encrypted on its way.
#[test]
fn c01_what_is_filled_past_the_cache_comes_back_from_the_disk() {
    // No other test has blocks of this size: they would take warm ones away, and leave some.
    const BLOCK: usize = 256 << 10;
    const PIECES: u64 = 32;
    const MANY: u32 = 1000;
    let ways = [
        // First, while no other stream has left blocks behind.
        ("at once", BLOCK, true, false),
        ("spills", BLOCK, true, false),
        ("spills", BLOCK, false, false),
        ("keeps up", BLOCK, true, false),
        ("encrypts", BLOCK, true, true),
        ("pieces", 160 << 10, true, false),
    ];
    // So that there is room for them on the shelf, whatever tests beside this one put there.
    block::keep_more(32 << 20);
    for (way, piece, verify, encrypt) in ways {
        let builder = SpillBuffer::builder().memory_limit(8 * BLOCK).verify(verify).encrypt(encrypt);
        let mut options = builder.settings().check().unwrap();
        options.limits.block = BLOCK;
        let shared = Shared::on(&options, Some(Arc::new(Scripted { cached: true, ..Scripted::default() })));
        let buffer = SpillBuffer::of(shared.clone());
        shared.raw_lock().filling = Filling::streaming(MANY);
        let (writer, reader) = buffer.into_split();
        let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
        let mut got = vec![0; piece];
        let mut read = |reader: &mut BlockingReader, from: u64| {
            reader.read_exact(&mut got).unwrap();
            assert!(got == stream(from, piece), "{way}: wrong bytes behind {from}");
        };
        let places = (0..PIECES).map(|at| at * piece as u64);
        for from in places.clone() {
            if way == "at once" {
                // Others need its memory, and the first blocks come from the allocator.
                Arc::clone(&shared).squeeze();
            }
            writer.write_all(&stream(from, piece)).unwrap();
            if way == "keeps up" {
                read(&mut reader, from);
            }
        }
        writer.finish().unwrap();
        let (_, left) = shared.raw_lock().filling.so_far();
        if streaming::HAS && matches!(way, "spills" | "at once") {
            assert!((1..MANY - PIECES as u32 / 2).contains(&left), "{way}: {left} of {MANY}");
        } else {
            assert_eq!(left, MANY, "{way}");
        }
        if way != "keeps up" {
            assert!(shared.stats().spilled > 0);
            places.for_each(|from| read(&mut reader, from));
        }
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
    block::keep_less(32 << 20);
}

#[test]
fn who_fills_a_block_for_the_disk_finds_out_how_long_that_takes() {
    let (buffer, shared) = buffer(SpillBuffer::builder(), Scripted::default());
    shared.raw_lock().filling = Filling::streaming(0);
    let before = shared.raw_lock().filling.so_far();
    let (writer, _reader) = buffer.into_split();
    writer.into_blocking().write_all(&stream(0, 4 << 20)).unwrap();
    assert_eq!(shared.raw_lock().filling.so_far() != before, streaming::HAS);
}

#[test]
fn c04_an_empty_buffer_takes_less_than_two_kib() {
    let counts = 2 * size_of::<usize>();
    let arcs = size_of::<Shared>() + size_of::<crate::pool::Pool>() + 2 * counts;
    let handles = size_of::<SpillBuffer>();
    assert!(arcs + handles <= 1536, "{arcs} + {handles}: what grows with use has the rest");
    let (buffer, shared) = buffer(SpillBuffer::builder(), Scripted::default());
    assert_eq!(buffer.stats(), SpillStats::default());
    assert!(shared.pool.file().is_none());
}

/// Counts how often it was woken.
#[derive(Debug, Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn c07_each_who_waits_for_the_readers_end_is_woken_by_the_waker_of_his_own_last_poll() {
    let (buffer, _shared) = buffer(small(), Scripted::default());
    let (writer, reader) = buffer.into_split();
    let counts: [Arc<Count>; 4] = Default::default();
    let poll = |closed: &mut crate::Closed, count: &Arc<Count>| {
        Pin::new(closed).poll(&mut Context::from_waker(&Waker::from(count.clone()))).is_pending()
    };
    let [mut one, mut two, mut three] = [(); 3].map(|()| writer.closed());
    assert!(poll(&mut one, &counts[0]) && poll(&mut two, &counts[1]) && poll(&mut three, &counts[2]));
    // The second comes again, from another task; the third gives up.
    assert!(poll(&mut two, &counts[3]));
    drop(three);
    drop(reader);
    assert_eq!(counts.map(|count| count.0.load(SeqCst)), [1, 0, 0, 1]);
}

/// A disk whose writes wait until they are let go.
#[derive(Debug)]
struct Hung {
    disk: Scripted,
    gate: Arc<std::sync::RwLock<()>>,
}

#[derive(Debug)]
struct HungFile {
    file: Box<dyn RawFile>,
    gate: Arc<std::sync::RwLock<()>>,
}

impl Platform for Hung {
    fn create(&self, dir: &std::path::Path) -> std::io::Result<Box<dyn RawFile>> {
        Ok(Box::new(HungFile { file: self.disk.create(dir)?, gate: self.gate.clone() }))
    }

    fn memory_backed(&self, path: &std::path::Path) -> std::io::Result<Option<&'static str>> {
        self.disk.memory_backed(path)
    }

    fn free_space(&self, path: &std::path::Path) -> std::io::Result<(u64, u64)> {
        self.disk.free_space(path)
    }
}

impl RawFile for HungFile {
    fn write_at(&self, bufs: &[std::io::IoSlice<'_>], at: u64) -> std::io::Result<usize> {
        let _let_go = self.gate.read().unwrap();
        self.file.write_at(bufs, at)
    }

    fn read_at(&self, bufs: &mut [std::io::IoSliceMut<'_>], at: u64) -> std::io::Result<usize> {
        self.file.read_at(bufs, at)
    }

    fn read_cached(&self, bufs: &mut [std::io::IoSliceMut<'_>], at: u64) -> std::io::Result<usize> {
        self.file.read_cached(bufs, at)
    }

    fn punch(&self, at: u64, len: u64) -> std::io::Result<()> {
        self.file.punch(at, len)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    fn size_limit(&self) -> Option<u64> {
        self.file.size_limit()
    }
}

#[test]
fn c11_a_hung_disk_holds_back_only_its_own_streams_and_never_a_drop() {
    let gate = Arc::new(std::sync::RwLock::new(()));
    let hangs = gate.write().unwrap();
    // More of them than a lane has threads.
    let hung: Vec<_> = (0..6)
        .map(|_| {
            let platform = Hung { disk: Scripted::default(), gate: gate.clone() };
            let (buffer, shared) = buffer(small().temp_dir("/hung"), platform);
            let (writer, reader) = buffer.into_split();
            let mut writer = writer.into_blocking();
            writer.write_bytes(stream(0, 200_000).into()).unwrap();
            (writer, reader, shared)
        })
        .collect();
    eventually("they are at the disk", || hung.iter().all(|(_, _, shared)| shared.raw_lock().driving));

    let outcome = within("another directory", || script(small().temp_dir("/fine"), Scripted::default()));
    all_is_well(0, &outcome);
    assert!(outcome.stats.spilled > 0);

    let watched: Vec<_> = hung.iter().map(|(_, _, shared)| shared.clone()).collect();
    // Instant: nothing of this waits for the disk, which hangs still.
    within("drop", move || drop(hung));
    assert!(watched.iter().all(|shared| shared.is_closed()));
    drop(hangs);
    eventually("what was in flight is given back", || {
        watched.iter().all(|shared| (shared.stats().memory_held, shared.stats().disk_held) == (0, 0))
    });
}

/// Each block of an item would be a call within the one before.
#[test]
fn c09_an_item_of_many_blocks_takes_no_deeper_stack() {
    let write = || {
        let buffer = SpillBuffer::builder().memory_limit(64 << 20).build().unwrap();
        let (mut writer, _reader) = buffer.into_split();
        writer.write_bytes(vec![7; 48 << 20].into()).now_or_never().expect("there is room").unwrap();
        assert_eq!(writer.stats().memory_held, 48 << 20);
    };
    thread::Builder::new().stack_size(192 << 10).spawn(write).unwrap().join().unwrap();
}

/// An abort that had nothing to give up was taken for something that nothing follows from.
#[test]
fn c07_an_abort_of_a_buffer_that_holds_nothing_is_its_end_too() {
    let (buffer, shared) = buffer(small(), Scripted::default());
    let (writer, _reader) = buffer.into_split();
    let cx = Context::from_waker(Waker::noop());
    assert!(shared.poll_released(&cx).is_pending());
    writer.abort("enough");
    assert!(shared.poll_released(&cx).is_ready());
}
