//! What a pool of many streams costs: memory, descriptors and threads against their ceilings, speed against one
//! stream and against a bare loop in the same run. Content is checked.
//!
//! `cargo bench --bench pool` prints the table, names each line that falls short, and fails then. `MIB` in the
//! environment sets the size of a stream (8), `STREAMS` their number (1000), `ROUNDS` the rounds (3, of bursts 9); `SCENARIO` runs one
//! alone (`many`, `one`, `empty`, `hog`) and prints what it saw.

// Speeds are printed, not compared to the last digit.
#![allow(clippy::cast_precision_loss)]

use std::{
    env, fs,
    hint::{black_box, spin_loop},
    os::unix::fs::FileExt,
    process::{Command, ExitCode},
    sync::{
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Release},
        },
        mpsc::sync_channel,
    },
    thread,
    time::{Duration, Instant},
};

use crc_fast::crc32_iscsi;
use spillbuffer::{SpillBuffer, SpillPool, SpillReader, SpillWriter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

const MEMORY: usize = 64 << 20;
const PIECE: usize = 64 << 10;

/// A line of the table.
struct Line {
    what: String,
    is: String,
    bound: String,
    holds: bool,
}

fn at_most(what: &str, is: f64, bound: f64, unit: &str) -> Line {
    let (is_text, bound_text) = (format!("{is:.2} {unit}"), format!("at most {bound} {unit}"));
    Line { what: what.into(), is: is_text, bound: bound_text, holds: is <= bound }
}

fn at_least(what: &str, is: f64, bound: f64) -> Line {
    Line { what: what.into(), is: format!("{is:.2}"), bound: format!("at least {bound}"), holds: is >= bound }
}

fn main() -> ExitCode {
    if let Ok(scenario) = env::var("SCENARIO") {
        run(&scenario);
        return ExitCode::SUCCESS;
    }
    let mut lines = Vec::new();
    lines.extend(thousand_streams());
    lines.extend(beside_a_hog());
    lines.extend(empty_buffers());
    lines.extend(bursts());
    println!("\n{:84} {:>16}  {:<20}", "", "is", "wanted");
    for line in &lines {
        let mark = if line.holds { "" } else { "FALLS SHORT" };
        println!("{:84} {:>16}  {:<20} {mark}", line.what, line.is, line.bound);
    }
    ExitCode::from(u8::from(lines.iter().any(|line| !line.holds)))
}

// ---- each scenario in a process of its own, which prints `name value` ----

fn run(scenario: &str) {
    match scenario {
        "many" => many(number("STREAMS", 1000), number("MIB", 8) << 20),
        "one" => one(number("STREAMS", 1000) * (number("MIB", 8) << 20)),
        "empty" => empty(10_000),
        "hog" => println!("{:?} {:?}", kept_up_with(false), kept_up_with(true)),
        other => panic!("no scenario {other}"),
    }
}

fn child(scenario: &str) -> impl Fn(&str) -> f64 + use<> {
    let output = Command::new(env::current_exe().unwrap()).env("SCENARIO", scenario).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{scenario}: {text} {}", String::from_utf8_lossy(&output.stderr));
    println!("{scenario}: {}", text.trim().replace('\n', ", "));
    move |name| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn thousand_streams() -> Vec<Line> {
    let (mut ratios, mut last) = (Vec::new(), None);
    for _ in 0..number("ROUNDS", 3) {
        let one = child("one");
        let many = child("many");
        ratios.push(one("seconds") / many("seconds"));
        last = Some(many);
    }
    let many = last.expect("a round");
    let mib = f64::from(1 << 20);
    vec![
        at_most("1,000 stalled streams, then drained: payload memory", many("peak_memory_held") / mib, 64.0, "MiB"),
        at_most("  peak RSS over the base", many("rss_kib") / 1024.0, 80.0, "MiB"),
        at_most("  open files", many("files"), 4.0, ""),
        at_most("  threads more than the runtime's own", many("threads"), 12.0, ""),
        at_least("  speed, of one stream moving as much", median(&mut ratios), 0.8),
    ]
}

/// All written with nobody reading, then all read at once. What the users hold themselves is kept small.
fn many(streams: u64, each: u64) {
    touch(streams * each);
    let runtime = runtime();
    let pool = SpillPool::builder().memory_limit(MEMORY).build().unwrap();
    let (base, threads) = (proc_status("VmRSS"), proc_status("Threads"));
    let files = open_files();
    let start = Instant::now();
    let (writers, readers): (Vec<_>, Vec<_>) = (0..streams).map(|_| pool.buffer().into_split()).unzip();
    runtime.block_on(async {
        let writers: Vec<_> =
            writers.into_iter().zip(0..).map(|(writer, stream)| tokio::spawn(produce(writer, stream, each))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
        println!("written after {}", start.elapsed().as_secs_f64());
        let (open, running) = (open_files() - files, proc_status("Threads") - threads);
        let readers: Vec<_> =
            readers.into_iter().zip(0..).map(|(reader, stream)| tokio::spawn(consume(reader, stream, each))).collect();
        for reader in readers {
            reader.await.unwrap();
        }
        println!("files {open}\nthreads {}", running.max(proc_status("Threads") - threads));
    });
    println!("seconds {}", start.elapsed().as_secs_f64());
    println!("rss_kib {}", proc_status("VmHWM") - base);
    println!("peak_memory_held {}", pool.stats().peak_memory_held);
}

/// Fills as many pages of the page cache and gives them back: fresh pages of a virtual machine cost ten times as much as those
/// that were touched just before, and who gets them is chance.
fn touch(bytes: u64) {
    let file = tempfile::tempfile_in(env::temp_dir()).unwrap();
    let piece = vec![7; 1 << 20];
    for at in (0..bytes).step_by(piece.len()) {
        file.write_all_at(&piece, at).unwrap();
    }
}

fn one(bytes: u64) {
    touch(bytes);
    let (writer, reader) = SpillBuffer::builder().memory_limit(1 << 20).build().unwrap().into_split();
    let start = Instant::now();
    runtime().block_on(async {
        tokio::spawn(produce(writer, 0, bytes)).await.unwrap();
        println!("written after {}", start.elapsed().as_secs_f64());
        tokio::spawn(consume(reader, 0, bytes)).await.unwrap();
    });
    println!("seconds {}", start.elapsed().as_secs_f64());
}

fn empty_buffers() -> Vec<Line> {
    let empty = child("empty");
    vec![
        at_most("10,000 empty buffers of a pool: each", empty("bytes_each") / 1024.0, 2.0, "KiB"),
        at_most("  block memory", empty("memory_held"), 0.0, "bytes"),
        at_most("  open files", empty("files"), 0.0, ""),
    ]
}

fn empty(count: u64) {
    let pool = SpillPool::builder().memory_limit(MEMORY).build().unwrap();
    let (base, files) = (proc_status("VmRSS"), open_files());
    let buffers: Vec<_> = (0..count).map(|_| pool.buffer().into_split()).collect();
    println!("bytes_each {}", (proc_status("VmRSS") - base) * 1024 / count);
    println!("memory_held {}\nfiles {}", pool.stats().memory_held, open_files() - files);
    drop(buffers);
}

// ---- in this process, in turns ----

fn beside_a_hog() -> Vec<Line> {
    let (mut ratios, mut spilled) = (Vec::new(), Vec::new());
    for _ in 0..number("ROUNDS", 3) {
        let (alone, _) = kept_up_with(false);
        let (beside, to_disk) = kept_up_with(true);
        ratios.push(alone.as_secs_f64() / beside.as_secs_f64());
        spilled.push(to_disk * 100.0);
    }
    vec![
        at_least("99 streams kept up with, beside a stalled hog: speed of that alone", median(&mut ratios), 0.9),
        at_most("  of their bytes to disk", median(&mut spilled), 1.0, "%"),
    ]
}

/// How long 99 streams take, and the part of their bytes that went to disk.
fn kept_up_with(hog: bool) -> (Duration, f64) {
    let each = 16 << 20;
    let pool = SpillPool::builder().memory_limit(MEMORY).build().unwrap();
    // Nobody reads it: it takes all the memory it can get, and stands still at its disk limit.
    let hog_limit = 256 << 20;
    let (hog_writer, hog_reader) =
        pool.builder().memory_limit(MEMORY).disk_limit(hog_limit).build().unwrap().into_split();
    runtime().block_on(async {
        let hogging = hog.then(|| tokio::spawn(produce(hog_writer, 99, 1 << 40)));
        while hog && hog_reader.stats().disk_held < hog_limit * 9 / 10 {
            tokio::task::yield_now().await;
        }
        let start = Instant::now();
        let mut all = Vec::new();
        for stream in 0..99 {
            let (writer, reader) = pool.buffer().into_split();
            let control = reader.control();
            all.push((
                tokio::spawn(produce(writer, stream, each)),
                tokio::spawn(consume(reader, stream, each)),
                control,
            ));
        }
        let mut spilled = 0;
        for (writer, reader, control) in all {
            writer.await.unwrap();
            reader.await.unwrap();
            spilled += control.stats().spilled;
        }
        let time = start.elapsed();
        drop(hog_reader);
        if let Some(hogging) = hogging {
            hogging.await.unwrap();
        }
        (time, spilled as f64 / (99 * each) as f64)
    })
}

/// Where memory begins decides how fast the kernel copies between it and the page cache, on some processors by half; so both
/// sides have the same, once at its best and once as a long `Vec` has it. A bare ring beside it is what any two threads reach; how far
/// these are from each other changes on virtual machines, and a raw loop does not notice.
fn bursts() -> Vec<Line> {
    [(0, "from and to the beginning of a page"), (16, "from and to an ordinary Vec, 16 bytes behind it")]
        .into_iter()
        .flat_map(|(off, what)| {
            let mut trips = Vec::new();
            let round = |_| {
                let raw = recycled(64 << 20, off);
                let ours = raw / burst(64 << 20, off);
                trips.push(there_and_back());
                (ours, raw / ring(64 << 20, off))
            };
            let (mut ours, mut rings): (Vec<_>, Vec<_>) = (0..number("ROUNDS", 9)).map(round).unzip();
            let is = format!("{:.2}", median(&mut rings));
            let trip = format!("{:.0} ns", median(&mut trips));
            [
                at_least(&format!("bursts of 64 MiB {what}: of a raw loop"), median(&mut ours), 0.7),
                Line { what: "    the same through a bare ring".into(), is, bound: String::new(), holds: true },
                Line { what: "    a word there and back".into(), is: trip, bound: String::new(), holds: true },
            ]
        })
        .collect()
}

/// Nanoseconds in which a word comes from one thread to another and back: 100 where their processors share a cache, as a rule, and
/// 300 or more where they do not.
fn there_and_back() -> f64 {
    const TIMES: usize = 50_000;
    /// In a cache line of its own.
    #[repr(align(128))]
    struct Word(AtomicUsize);
    let (ours, theirs) = (Word(AtomicUsize::new(0)), Word(AtomicUsize::new(0)));
    let wait = |word: &Word, i| {
        while word.0.load(Acquire) < i {
            spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            (1..=TIMES).for_each(|i| {
                wait(&ours, i);
                theirs.0.store(i, Release);
            });
        });
        let start = Instant::now();
        (1..=TIMES).for_each(|i| {
            ours.0.store(i, Release);
            wait(&theirs, i);
        });
        start.elapsed().as_secs_f64() * 1e9 / TIMES as f64
    })
}

/// Memory that begins so many bytes behind a page's beginning.
struct Placed {
    bytes: Vec<u8>,
    from: usize,
}

impl Placed {
    fn new(len: usize, off: usize) -> Self {
        const PAGE: usize = 4096;
        let bytes = vec![7; len + 2 * PAGE];
        let from = bytes.as_ptr().align_offset(PAGE) + off;
        Self { bytes, from }
    }

    fn get(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..][..1 << 20]
    }
}

/// Seconds of 16 bursts, each after the last has drained, after a first one.
fn burst(bytes: u64, off: usize) -> f64 {
    // The pool's buffers have a window of 1 MiB each, so almost all of a burst goes to disk.
    let pool = SpillPool::builder().build().unwrap();
    let mut memory = Placed::new(1 << 20, off);
    runtime().block_on(async {
        let mut start = Instant::now();
        for round in 0..17 {
            if round == 1 {
                start = Instant::now();
            }
            let (mut writer, mut reader) = pool.buffer().into_split();
            let buf = memory.get();
            for _ in 0..bytes / buf.len() as u64 {
                writer.write_all(buf).await.unwrap();
            }
            writer.finish().unwrap();
            while reader.read(buf).await.unwrap() > 0 {
                black_box(&buf);
            }
        }
        start.elapsed().as_secs_f64()
    })
}

/// The same through a region of a file that is written and read again and again.
fn recycled(bytes: u64, off: usize) -> f64 {
    let file: fs::File = tempfile::tempfile_in(env::temp_dir()).unwrap();
    let mut memory = Placed::new(1 << 20, off);
    let buf = memory.get();
    let mut start = Instant::now();
    for round in 0..17 {
        if round == 1 {
            start = Instant::now();
        }
        for at in (0..bytes).step_by(buf.len()) {
            file.write_all_at(buf, at).unwrap();
        }
        for at in (0..bytes).step_by(buf.len()) {
            file.read_exact_at(buf, at).unwrap();
            black_box(&buf);
        }
    }
    start.elapsed().as_secs_f64()
}

/// The same by two threads and nothing else, in a pool's window and through a region that is written again and again: a copy and
/// a checksum into a ring while the other thread writes; then reading in place, and a checksum. No ledger, limits, ends, trailers.
fn ring(bytes: u64, off: usize) -> f64 {
    const BLOCK: usize = 256 << 10;
    let file: fs::File = tempfile::tempfile_in(env::temp_dir()).unwrap();
    let mut memory = Placed::new(1 << 20, off);
    let buf = memory.get();
    let blocks = buf.len() / BLOCK;
    let (free, to_fill) = sync_channel(blocks);
    let (full, to_write) = sync_channel::<(Vec<u8>, u64)>(blocks);
    for _ in 0..blocks {
        free.send(vec![0; BLOCK]).unwrap();
    }
    thread::scope(|scope| {
        let (again, file) = (free.clone(), &file);
        scope.spawn(move || {
            for (block, at) in to_write {
                file.write_all_at(&block, at).unwrap();
                again.send(block).unwrap();
            }
        });
        let mut start = Instant::now();
        for round in 0..17 {
            if round == 1 {
                start = Instant::now();
            }
            let mut sums = Vec::new();
            for at in (0..bytes).step_by(BLOCK) {
                let mut block = to_fill.recv().unwrap();
                block.copy_from_slice(&buf[at as usize % buf.len()..][..BLOCK]);
                sums.push(crc32_iscsi(&block));
                full.send((block, at)).unwrap();
            }
            // All is written when all blocks are back.
            let back: Vec<_> = to_fill.iter().take(blocks).collect();
            for block in back {
                free.send(block).unwrap();
            }
            for (at, sum) in (0..bytes).step_by(BLOCK).zip(sums) {
                let from = at as usize % buf.len();
                let part = &mut buf[from..][..BLOCK];
                file.read_exact_at(part, at).unwrap();
                assert_eq!(crc32_iscsi(part), sum);
            }
        }
        drop(full);
        start.elapsed().as_secs_f64()
    })
}

// ---- what the scenarios share ----

/// The same bytes for everyone but the first eight of each piece, which name stream and offset: so every piece that is
/// another's, or in another place, is seen, and every byte is compared.
static FILLING: [u8; PIECE] = [0x5a; PIECE];

async fn produce(mut writer: SpillWriter, stream: u64, bytes: u64) {
    for at in (0..bytes).step_by(PIECE) {
        let name = ((stream << 40) | at).to_le_bytes();
        let piece = async {
            writer.write_all(&name).await?;
            writer.write_all(&FILLING[name.len()..]).await
        };
        if piece.await.is_err() {
            return;
        }
    }
    writer.finish().unwrap();
}

async fn consume(mut reader: SpillReader, stream: u64, bytes: u64) {
    let mut at = 0;
    while let Some(mut chunk) = reader.next_chunk().await.unwrap() {
        while !chunk.is_empty() {
            let inside = at % PIECE as u64;
            let n = chunk.len().min(PIECE - inside as usize);
            let part = chunk.split_to(n);
            let name = ((stream << 40) | (at - inside)).to_le_bytes();
            let named = name.len().saturating_sub(inside as usize).min(n);
            assert_eq!(part[..named], name[(inside as usize).min(8)..][..named], "another's piece at {at}");
            assert!(part[named..] == FILLING[..n - named], "a wrong byte behind {at}");
            at += n as u64;
        }
    }
    assert_eq!(at, bytes);
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn open_files() -> u64 {
    fs::read_dir("/proc/self/fd").unwrap().count() as u64
}

fn proc_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
