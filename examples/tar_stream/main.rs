//! Streams a build context as a tar through a `SpillBuffer` to a slow consumer, and proves what came out.
//!
//! The producer packs on a blocking thread and is not held up by the consumer; the consumer reads
//! the entries with an async tar reader, at its own pace. Start reading at [`stream`].

mod compare;
mod consume;
mod directory;
mod fault;
mod generated;
mod memory;
mod options;
mod pace;
mod progress;
mod report;
mod source;
mod tap;

use std::io::{BufWriter, Write};
use std::panic::resume_unwind;
use std::process::exit;
use std::time::Instant;

use clap::Parser;
use spillbuffer::{OnFull, SpillBuffer};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::consume::consume;
use crate::fault::Fault;
use crate::options::{Options, Queue};
use crate::pace::Paced;
use crate::progress::Progress;
use crate::report::Report;
use crate::source::Source;
use crate::tap::{Tap, Tapped};

/// What the packer gathers before it hands it on: a tar is full of 512-byte headers.
const CHUNK: usize = 128 * 1024;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let options = Options::parse();
    let good = match (options.through, options.compare) {
        (None, Some(_)) => compare::run(&options),
        (None | Some(Queue::Spillbuffer), _) => stream(&options).await.and_then(|r| r.print(&options)),
        (Some(Queue::Memory), _) => memory::stream(&options).await.and_then(|r| r.print(&options)),
    };
    // Not a return: that would wait for a producer which may still sit in a read of standard input.
    exit(match good {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(fault) => {
            eprintln!("tar_stream: {fault}");
            1
        }
    })
}

/// The whole job: one producer, one buffer, one slow consumer.
async fn stream(options: &Options) -> Result<Report, Fault> {
    let started = Instant::now();
    let (writer, reader) = buffer(options)?.into_split();
    let control = reader.control();
    let progress = Progress::show(control.clone(), options.memory);

    let source = options.source();
    let producer = spawn_blocking(move || {
        let mut writer = writer.into_blocking();
        match produce(&source, &mut writer) {
            // Only this tells the consumer that the tar is complete ...
            Ok(sent) => writer.finish().map(|()| sent).map_err(|e| Fault::in_buffer(&e)),
            // ... and this is what it gets, after the last byte, in place of an end.
            Err(fault) => {
                writer.fail(fault.clone());
                Err(fault)
            }
        }
    });

    let received = consume(Paced::new(reader, options.stall(), options.rate), options).await?;
    let sent = join(producer).await?;
    drop(progress);
    Ok(Report::new(sent, received, control.stats().into(), started.elapsed()))
}

/// A buffer whose writer waits, rather than fails, once memory and disk are full.
fn buffer(options: &Options) -> Result<SpillBuffer, Fault> {
    let mut builder = SpillBuffer::builder()
        .memory_limit(options.memory_limit())
        .disk_limit(options.disk.as_u64())
        .on_full(OnFull::Wait);
    if let Some(dir) = &options.dir {
        builder = builder.temp_dir(dir);
    }
    builder.build().map_err(|e| Fault::in_buffer(&e))
}

/// Writes the source's tar into `writer`, and says what was written.
fn produce(source: &Source, writer: &mut impl Write) -> Result<Sent, Fault> {
    let mut tap = BufWriter::with_capacity(CHUNK, Tap::new(writer));
    let written = source.write_to(&mut tap);
    // Even after a failure: the consumer is owed every byte that came before it.
    let flushed = tap.flush().map_err(|e| Fault::writing(source, &e));
    let skipped = written?;
    flushed?;
    Ok(Sent { tar: tap.get_ref().tapped(), skipped })
}

/// What the producer wrote.
struct Sent {
    tar: Tapped,
    /// Names that a tar cannot hold: sockets.
    skipped: Vec<String>,
}

/// The producer's result; a panic in it goes on here.
async fn join(producer: JoinHandle<Result<Sent, Fault>>) -> Result<Sent, Fault> {
    producer.await.unwrap_or_else(|e| resume_unwind(e.into_panic()))
}
