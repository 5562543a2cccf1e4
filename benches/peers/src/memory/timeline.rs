//! A stream that is written evenly while its reader stands still for the first half, watched as it goes: through this crate
//! and through a queue in memory, a process each.

use std::{
    future::Future,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use spillbuffer::SpillBuffer;
use tokio::{io::AsyncWriteExt, runtime::Builder, sync::mpsc::unbounded_channel, time::sleep};

use crate::{
    content::{Check, Compare, PIECE, Source},
    process::{disk_allocated, reset_peak, run_apart, status},
};

/// How long the writer takes.
const WRITING: Duration = Duration::from_secs(6);

pub(crate) const READER_BEGINS: Duration = Duration::from_secs(3);

/// So many times as fast as the writer is the reader, until it has caught up.
const READER_SPEED: f64 = 3.0;

const SAMPLE_EVERY: Duration = Duration::from_millis(20);

/// What was taken at a time.
pub(crate) struct Sample {
    pub seconds: f64,
    /// More than before the stream was made.
    pub memory_mib: f64,
    pub disk_mib: f64,
}

/// Runs the stream through this crate in a process of its own.
pub(crate) fn spillbuffer(mib: u64) -> Vec<Sample> {
    samples(OURS, mib)
}

/// The same through an unbounded channel of `Bytes`.
pub(crate) fn queue(mib: u64) -> Vec<Sample> {
    samples(QUEUE, mib)
}

const OURS: &str = "timeline";
const QUEUE: &str = "timeline of a queue";

fn samples(scenario: &str, mib: u64) -> Vec<Sample> {
    let figures = run_apart(scenario, mib);
    let sample = |line: &str| {
        let mut values = line.split(' ').map(|value| value.parse().expect("a number"));
        let mut next = || values.next().expect("three numbers");
        Sample { seconds: next(), memory_mib: next(), disk_mib: next() }
    };
    figures.text.lines().map(sample).collect()
}

/// Whether it is one of these.
pub(crate) fn run(scenario: &str, mib: u64) -> bool {
    match scenario {
        OURS => watch(through_spillbuffer(mib << 20)),
        QUEUE => watch(through_queue(mib << 20)),
        _ => return false,
    }
    true
}

/// Prints what is taken from time to time, until the stream is over.
fn watch(stream: impl Future<Output = ()>) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
    let base = reset_peak();
    let (over, is_over) = channel();
    let watching = thread::spawn(move || sample_until(&is_over, base));
    runtime.block_on(stream);
    drop(over);
    watching.join().expect("samples");
}

fn sample_until(over: &Receiver<()>, base: u64) {
    let started = Instant::now();
    loop {
        let memory = status("VmRSS").saturating_sub(base) as f64 / 1024.0;
        let disk = disk_allocated() as f64 / f64::from(1 << 20);
        println!("{:.3} {memory:.3} {disk:.3}", started.elapsed().as_secs_f64());
        if over.recv_timeout(SAMPLE_EVERY) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

async fn through_spillbuffer(bytes: u64) {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let writing = tokio::spawn(async move {
        let (mut source, mut pace) = (Source::new(0, PIECE), Pace::new(bytes, 1.0));
        for at in (0..bytes).step_by(PIECE) {
            pace.wait_for(at).await;
            writer.write_all(source.at(at)).await.unwrap();
        }
        writer.finish().unwrap();
    });
    sleep(READER_BEGINS).await;
    let (mut check, mut pace) = (Check::new(0, PIECE, Compare::All), Pace::new(bytes, READER_SPEED));
    while let Some(chunk) = reader.next_chunk().await.unwrap() {
        check.take(&chunk);
        pace.wait_for(check.taken()).await;
    }
    check.end(bytes);
    writing.await.unwrap();
}

async fn through_queue(bytes: u64) {
    let (sender, mut receiver) = unbounded_channel();
    let writing = tokio::spawn(async move {
        let (mut source, mut pace) = (Source::new(0, PIECE), Pace::new(bytes, 1.0));
        for at in (0..bytes).step_by(PIECE) {
            pace.wait_for(at).await;
            sender.send(Bytes::copy_from_slice(source.at(at))).unwrap();
        }
    });
    sleep(READER_BEGINS).await;
    let (mut check, mut pace) = (Check::new(0, PIECE, Compare::All), Pace::new(bytes, READER_SPEED));
    while let Some(bytes) = receiver.recv().await {
        check.take(&bytes);
        pace.wait_for(check.taken()).await;
    }
    check.end(bytes);
    writing.await.unwrap();
}

/// Holds a side to so many times the writer's speed.
struct Pace {
    started: Instant,
    bytes_per_second: f64,
}

impl Pace {
    fn new(bytes: u64, times: f64) -> Self {
        Self { started: Instant::now(), bytes_per_second: times * bytes as f64 / WRITING.as_secs_f64() }
    }

    async fn wait_for(&mut self, at: u64) {
        let due = Duration::from_secs_f64(at as f64 / self.bytes_per_second);
        let early = due.saturating_sub(self.started.elapsed());
        // The timer is no finer.
        if early >= Duration::from_millis(1) {
            sleep(early).await;
        }
    }
}
