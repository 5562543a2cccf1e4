//! A hundred uploads at different speeds through one `SpillPool`: what they take together is what the pool allows.
//!
//! Each upload has a producer that writes as fast as it is let, and a consumer that reads at its own speed and checks
//! each byte. Start reading at [`run`].

mod options;
mod progress;

use std::error::Error;
use std::io::{self, Write};
use std::iter::successors;
use std::panic::resume_unwind;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Parser;
use serde_json::json;
use spillbuffer::{OnFull, PoolStats, SpillError, SpillPool, SpillReader, SpillWriter};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::options::Options;
use crate::progress::Progress;

/// The largest piece that is written or compared. Small, as each producer has a buffer of this size, and these are
/// memory that no pool bounds.
const PIECE: usize = 16 * 1024;

// Two, however many cores there are: more streams do not need more threads.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    let done = run(&options).await.and_then(|report| report.print(&options));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("many_streams: {sentence}");
            ExitCode::FAILURE
        }
    }
}

/// The whole job: one pool, many uploads.
async fn run(options: &Options) -> Result<Report, String> {
    let started = Instant::now();
    let pool = pool(options).map_err(|e| explain("the pool", &e))?;
    let mut uploads = JoinSet::new();
    let mut controls = Vec::new();
    for stream in 0..options.streams {
        let (writer, reader) = pool.buffer().into_split();
        controls.push(reader.control());
        uploads.spawn(upload(writer, reader, stream, options.size.as_u64(), Pace::of(stream, options)));
    }
    let progress = Progress::show(pool.clone(), controls, options);

    let mut report = Report::default();
    while let Some(upload) = uploads.join_next().await {
        // A panic in a task goes on here. The first error ends the job, and with it all other uploads.
        let (sent, received) = upload.unwrap_or_else(|e| resume_unwind(e.into_panic()))?;
        report.bytes_in += sent;
        report.bytes_out += received.bytes;
        report.wrong = report.wrong.or(received.wrong);
    }
    drop(progress);
    let took = started.elapsed();
    Ok(Report { stats: at_rest(&pool).await, took, ..report })
}

/// A pool whose writers wait, rather than fail, once memory and disk are full.
fn pool(options: &Options) -> Result<SpillPool, SpillError> {
    let mut builder = SpillPool::builder()
        .memory_limit(options.memory_limit())
        .disk_limit(options.disk.as_u64())
        .on_full(OnFull::Wait);
    if let Some(dir) = &options.dir {
        builder = builder.temp_dir(dir);
    }
    builder.build()
}

/// What the pool holds once nothing goes on: a disk write that was under way when its bytes were read from memory
/// outlives its stream by some milliseconds. After a second, what is held is held for good.
async fn at_rest(pool: &SpillPool) -> PoolStats {
    let patience = Instant::now() + Duration::from_secs(1);
    loop {
        let stats = pool.stats();
        if stats.disk_held == 0 || Instant::now() > patience {
            return stats;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// One stream from end to end: how many bytes went in, and what came out.
async fn upload(
    writer: SpillWriter,
    reader: SpillReader,
    stream: u32,
    size: u64,
    pace: Pace,
) -> Result<(u64, Received), String> {
    let name = |error: &io::Error| explain(&format!("stream {stream}"), error);
    let producer = tokio::spawn(produce(writer, stream, size));
    // A producer here fails only with its buffer, and then its consumer is told why. One whose source can fail would
    // say so with `writer.fail(cause)`.
    let received = consume(reader, stream, size, pace).await.map_err(|e| name(&e.into()))?;
    let sent = producer.await.unwrap_or_else(|e| resume_unwind(e.into_panic()));
    Ok((sent.map_err(|e| name(&e))?, received))
}

/// Writes the stream's bytes as fast as it is let, in pieces of all sizes, and says how many it wrote.
async fn produce(mut writer: SpillWriter, stream: u32, size: u64) -> io::Result<u64> {
    let mut noise = Noise::of(stream);
    let mut piece = vec![0; PIECE];
    let mut sent = 0;
    while sent < size {
        let len = (1 + mix(sent + u64::from(stream)) % PIECE as u64).min(size - sent);
        let piece = &mut piece[..len as usize];
        noise.fill(piece);
        writer.write_all(piece).await?;
        sent += len;
    }
    // Only this tells the consumer that it has everything: a writer that is dropped is a stream that was cut.
    writer.finish()?;
    Ok(sent)
}

/// What a consumer got.
struct Received {
    bytes: u64,
    /// The first byte that is not what was written.
    wrong: Option<Wrong>,
}

struct Wrong {
    stream: u32,
    at: u64,
}

/// Reads to the end at its own pace, and checks each byte.
async fn consume(mut reader: SpillReader, stream: u32, size: u64, pace: Pace) -> Result<Received, SpillError> {
    let mut noise = Noise::of(stream);
    let mut bytes = 0;
    let mut wrong = None;
    sleep_until(pace.due(0)).await;
    while let Some(chunk) = reader.next_chunk().await? {
        let found = noise.differs(&chunk).map(|at| Wrong { stream, at: bytes + at as u64 });
        wrong = wrong.or(found);
        bytes += chunk.len() as u64;
        // A chunk is a block of the pool's memory, and others could use it while this one sleeps.
        drop(chunk);
        sleep_until(pace.due(bytes)).await;
    }
    if bytes != size {
        wrong = wrong.or(Some(Wrong { stream, at: bytes.min(size) }));
    }
    Ok(Received { bytes, wrong })
}

/// When a consumer takes what: all times follow from its start, so that a late wake-up is made good.
struct Pace {
    start: Instant,
    stall: Duration,
    reading: Duration,
    size: u64,
}

impl Pace {
    /// From as fast as it can to as slow as was asked for; most are fast, as most are in a service.
    fn of(stream: u32, options: &Options) -> Self {
        let number = stream + 1;
        let time = options.seconds / options.streams * number / options.streams * number;
        // Every tenth takes nothing at all for the first half, the slowest is one of them.
        let stall = if number.is_multiple_of(10) { time / 2 } else { Duration::ZERO };
        Self { start: Instant::now(), stall, reading: time.saturating_sub(stall), size: options.size.as_u64() }
    }

    /// When so many bytes may have been read.
    fn due(&self, bytes: u64) -> Instant {
        let reading = self.reading.as_nanos() * u128::from(bytes) / u128::from(self.size.max(1));
        self.start + self.stall + Duration::from_nanos(reading as u64)
    }
}

/// The bytes of a stream. Each follows from the stream's number and its own place, so that a byte of another stream,
/// or of another place, is a wrong one.
struct Noise {
    seed: u64,
    at: u64,
}

impl Noise {
    fn of(stream: u32) -> Self {
        Self { seed: mix(stream.into()), at: 0 }
    }

    /// Makes the next bytes.
    fn fill(&mut self, mut buf: &mut [u8]) {
        while !buf.is_empty() {
            let word = mix(self.seed ^ (self.at / 8)).to_le_bytes();
            let word = &word[self.at as usize % 8..];
            let len = word.len().min(buf.len());
            let (next, rest) = buf.split_at_mut(len);
            next.copy_from_slice(&word[..len]);
            self.at += len as u64;
            buf = rest;
        }
    }

    /// Where `bytes` are not the next ones.
    fn differs(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut wanted = [0; PIECE];
        let mut differs = None;
        for (number, found) in bytes.chunks(PIECE).enumerate() {
            let wanted = &mut wanted[..found.len()];
            self.fill(wanted);
            if differs.is_none() && wanted != found {
                let place = wanted.iter().zip(found).position(|(wanted, found)| wanted != found);
                differs = place.map(|place| number * PIECE + place);
            }
        }
        differs
    }
}

/// Scatters a number over all 64 bits (the last step of splitmix64).
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What the job comes to.
#[derive(Default)]
struct Report {
    bytes_in: u64,
    bytes_out: u64,
    wrong: Option<Wrong>,
    stats: PoolStats,
    took: Duration,
}

impl Report {
    /// Prints it; fails if what came out is not what went in.
    fn print(&self, options: &Options) -> Result<(), String> {
        let text = if options.json { self.to_json(options) } else { self.to_text(options) };
        writeln!(io::stdout(), "{text}").map_err(|e| explain("standard output", &e))?;
        match &self.wrong {
            None => Ok(()),
            Some(Wrong { stream, at }) => Err(format!("stream {stream}: byte {at} is not the one that was written")),
        }
    }

    fn to_json(&self, options: &Options) -> String {
        json!({
            "streams": options.streams,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "match": self.wrong.is_none(),
            "peak_memory_held": self.stats.peak_memory_held,
            "memory_limit": options.memory.as_u64(),
            "peak_rss_kib": process_kib("VmHWM"),
            "peak_disk_held": self.stats.peak_disk_held,
            "disk_at_end": self.stats.disk_held,
            "seconds": self.took.as_secs_f64(),
        })
        .to_string()
    }

    fn to_text(&self, options: &Options) -> String {
        let verdict = if self.wrong.is_none() { "every byte right" } else { "NOT THE SAME" };
        let rss = process_kib("VmHWM").map_or_else(|| "unknown".into(), |kib| size(kib * 1024));
        let PoolStats { peak_memory_held, peak_disk_held, disk_held, .. } = self.stats;
        [
            format!(
                "{} streams of {} in {:.1} s",
                options.streams,
                size(options.size.as_u64()),
                self.took.as_secs_f64()
            ),
            format!("in      {:>10}", size(self.bytes_in)),
            format!("out     {:>10}  {verdict}", size(self.bytes_out)),
            format!(
                "memory  {:>10}  at the peak, of {} allowed",
                size(peak_memory_held),
                size(options.memory.as_u64())
            ),
            format!("RSS     {rss:>10}  at the peak: that memory, and the program's own"),
            format!("disk    {:>10}  at the peak, {} at the end", size(peak_disk_held), size(disk_held)),
        ]
        .join("\n")
    }
}

/// What failed, and all that is known about why, in one sentence.
fn explain(what: &str, error: &dyn Error) -> String {
    successors(Some(error), |error| (*error).source()).fold(what.into(), |text, error| format!("{text}: {error}"))
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// What the system says of this process under `name`, where it does.
fn process_kib(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
