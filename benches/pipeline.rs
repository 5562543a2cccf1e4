//! What a pipeline costs beside the bare work, and what a bomb takes in memory. Prints each figure and what is wanted, and fails
//! where one falls short.

#[allow(dead_code, reason = "shared with the ceilings of memory")]
#[path = "rss/process.rs"]
mod process;

use std::{
    convert::Infallible,
    error::Error,
    fs::File,
    hint::black_box,
    io::{Read, Write},
    ops::ControlFlow,
    os::unix::fs::FileExt,
    process::ExitCode,
    sync::mpsc::sync_channel,
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use process::{asked, reset_peak, run_apart, status};
use sha2::{Digest as _, Sha256};
use spillbuffer::{
    SpillBuffer,
    pipeline::Pipeline,
    transform::{Decompress, Digest, Drain, Inspect, Limit, PassThrough},
};
use tokio::runtime::{Builder, Runtime};

const CHUNK: usize = 64 << 10;
const ROUNDS: usize = 9;
const MIB: usize = 1 << 20;

type Failure = Box<dyn Error + Send + Sync>;

/// Copies each chunk, as writing it anywhere does, once it has seen that it lies where it lay at the source.
struct Copy {
    source: usize,
    into: Vec<u8>,
    bytes: usize,
}

impl Drain for Copy {
    fn poll_write(&mut self, _: &mut Context<'_>, chunk: &mut Bytes) -> Poll<Result<(), Failure>> {
        assert_eq!(chunk.as_ptr().addr(), self.source, "a chunk was copied on its way");
        self.into[..chunk.len()].copy_from_slice(chunk);
        black_box(&self.into);
        self.bytes += chunk.len();
        chunk.clear();
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }
}

/// So many bytes through so many stages that do nothing.
fn pass(runtime: &Runtime, stages: usize, bytes: usize) -> Duration {
    let chunk = Bytes::from(vec![7; CHUNK]);
    let sink = Copy { source: chunk.as_ptr().addr(), into: vec![0; CHUNK], bytes: 0 };
    let mut pipeline = Pipeline::from_iter(std::iter::repeat_n(chunk, bytes / CHUNK));
    for n in 0..stages {
        pipeline = pipeline.then(format!("pass {n}"), PassThrough::new());
    }
    let started = Instant::now();
    let (sink, report) = runtime.block_on(pipeline.into_drain(sink).run_with_sink());
    let time = started.elapsed();
    report.expect("nothing fails");
    assert_eq!(sink.bytes, bytes);
    time
}

/// Half of it random: what a context of source and binaries is like.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut content = Vec::with_capacity(bytes);
    while content.len() < bytes {
        let word = random().to_le_bytes();
        content.extend_from_slice(&word);
        content.extend_from_slice(&[word[0]; 8]);
    }
    content
}

fn gzip(content: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).expect("memory");
    encoder.finish().expect("memory").into()
}

/// gunzip and sha256, one after the other on one thread.
fn bare(compressed: &Bytes) -> (Duration, Vec<u8>) {
    let started = Instant::now();
    let (mut decoder, mut hash, mut buf) = (GzDecoder::new(&compressed[..]), Sha256::new(), vec![0; CHUNK]);
    loop {
        let n = decoder.read(&mut buf).expect("good");
        if n == 0 {
            break;
        }
        hash.update(&buf[..n]);
    }
    (started.elapsed(), hash.finalize().to_vec())
}

/// The same, and each chunk copied into one of sixteen blocks that a second thread writes to a recycled file, eight at a time: what
/// is left without ledger, checksum, limit and reader, and so about the most that a spill can reach.
fn ring(compressed: &Bytes, file: &File) -> Duration {
    let (full, filled) = sync_channel::<Vec<Vec<u8>>>(2);
    let (free, emptied) = sync_channel::<Vec<Vec<u8>>>(2);
    for _ in 0..2 {
        free.send(vec![vec![1; CHUNK]; 8]).expect("the receiver is here");
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut at = 0;
            for batch in filled {
                for block in &batch {
                    file.write_all_at(block, at).expect("a disk");
                    at += block.len() as u64;
                }
                if free.send(batch).is_err() {
                    break;
                }
            }
        });
        let started = Instant::now();
        let (mut decoder, mut hash, mut buf) = (GzDecoder::new(&compressed[..]), Sha256::new(), vec![0; CHUNK]);
        'all: while let Ok(mut batch) = emptied.recv() {
            for block in &mut batch {
                let n = decoder.read(&mut buf).expect("good");
                if n == 0 {
                    break 'all;
                }
                hash.update(&buf[..n]);
                block[..n].copy_from_slice(&buf[..n]);
            }
            full.send(batch).expect("the thread goes on until there is no more");
        }
        black_box(hash.finalize());
        let time = started.elapsed();
        drop(full);
        time
    })
}

/// The same as a pipeline, with a limit, a spill and a sink that takes twice as long as all before it: how long until the last byte
/// has gone into the spill, which is there so that the sink holds nobody up.
fn whole(runtime: &Runtime, compressed: &Bytes, bytes: usize) -> (Duration, Vec<u8>) {
    let chunks: Vec<_> =
        (0..compressed.len()).step_by(CHUNK).map(|at| compressed.slice(at..compressed.len().min(at + CHUNK))).collect();
    let mut pipeline = Pipeline::from_iter(chunks).then("gunzip", Decompress::gzip());
    pipeline = pipeline.then("limit", Limit::new(bytes as u64));
    let sum = pipeline.stage("sha256", Digest::<Sha256>::new());
    let (mut taken, mut made, mut time) = (0, 0, Duration::ZERO);
    let started = Instant::now();
    pipeline = pipeline.then(
        "clock",
        Inspect::new(|chunk| {
            made += chunk.len();
            time = started.elapsed();
        }),
    );
    let buffer = SpillBuffer::new();
    let spool = buffer.control();
    let run = pipeline.spill("spool", buffer).for_each(|chunk| {
        taken += chunk.len();
        let sleeps = taken % MIB < chunk.len();
        async move {
            if sleeps {
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
            Ok::<_, Infallible>(ControlFlow::Continue(()))
        }
    });
    let mut report = runtime.block_on(run.run()).expect("nothing fails");
    let sum = report.take(sum).expect("a digest").to_vec();
    drop(report);
    assert_eq!((taken, made), (bytes, bytes));
    assert!(spool.stats().spilled > bytes as u64 / 4, "the sink was not slow");
    (time, sum)
}

/// A GiB of zeros out of a MiB, to nowhere: prints what that takes of memory.
fn bomb() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let zeros = vec![0; MIB];
    for _ in 0..1024 {
        encoder.write_all(&zeros).expect("memory");
    }
    let compressed = Bytes::from(encoder.finish().expect("memory"));
    drop(zeros);
    let runtime = runtime();
    let base = reset_peak();
    let pipeline = Pipeline::from_iter([compressed]).then("gunzip", Decompress::gzip());
    let mut bytes = 0_u64;
    let run = pipeline.for_each(|chunk| {
        bytes += chunk.len() as u64;
        async { Ok::<_, Infallible>(ControlFlow::Continue(())) }
    });
    runtime.block_on(run.run()).expect("nothing fails");
    println!("rss {}", status("VmHWM").saturating_sub(base) * 1024);
    assert_eq!(bytes, 1 << 30);
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> ExitCode {
    if asked().is_some() {
        bomb();
        return ExitCode::SUCCESS;
    }
    let runtime = runtime();
    let passes = 1024 * MIB;
    pass(&runtime, 10, MIB);
    let ten: Vec<_> = (0..ROUNDS)
        .map(|_| pass(&runtime, 0, passes).as_secs_f64() / pass(&runtime, 10, passes).as_secs_f64())
        .collect();
    let content = content(64 * MIB);
    let compressed = gzip(&content);
    let file = tempfile::tempfile_in("/var/tmp").expect("a file");
    file.write_all_at(&content, 0).expect("a disk");
    let mut most = Vec::new();
    let work: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let (bare, wanted) = bare(&compressed);
            most.push(bare.as_secs_f64() / ring(&compressed, &file).as_secs_f64());
            let (whole, sum) = whole(&runtime, &compressed, content.len());
            assert_eq!(sum, wanted);
            bare.as_secs_f64() / whole.as_secs_f64()
        })
        .collect();
    let rss = run_apart("bomb", 0).get("rss") / f64::from(1 << 20);
    let lines = [
        ("ten pass-throughs: of the speed with none", median(ten), 0.8, true),
        ("gunzip, limit, sha256, spill, slow sink: of gunzip and sha256 alone", median(work), 0.95, true),
        ("a bomb of a GiB through gunzip: MiB of RSS over the base", rss, 2.0, false),
    ];
    let mut short = false;
    println!("{:72} {:>6}  wanted", "", "is");
    for (what, is, wanted, least) in lines {
        let holds = if least { is >= wanted } else { is <= wanted };
        short |= !holds;
        let bound = if least { "at least" } else { "at most" };
        println!("{what:72} {is:>6.2}  {bound} {wanted}{}", if holds { "" } else { "  FALLS SHORT" });
    }
    println!("{:72} {:>6.2}", "the same with a bare ring of two threads in the spill's place", median(most));
    if short { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
