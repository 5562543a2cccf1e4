//! Streams a build context as a tar through a `SpillBuffer` to a slow consumer, and proves what came out.
//!
//! Two pipelines, with the buffer between them: the producer's, which is not held up by the consumer,
//! and the consumer's, which an async tar reader reads at its own pace. Start reading at [`stream`].

mod compare;
mod consume;
mod directory;
mod fault;
mod generated;
mod memory;
mod options;
mod progress;
mod report;
mod source;
mod tap;

use std::panic::resume_unwind;
use std::process::exit;
use std::time::Instant;

use clap::Parser;
use spillbuffer::pipeline::Pipeline;
use spillbuffer::{OnFull, SpillBuffer};
use tokio::task::JoinHandle;

use crate::consume::consume;
use crate::fault::Fault;
use crate::options::{Options, Queue};
use crate::report::Report;
use crate::tap::{Tap, Tapped};

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

    let source = options.source();
    let (mut tar, skipped) = source.open()?;
    let tap = Tap::on(&mut tar);
    let producer = tokio::spawn(async move {
        // Kept open: the consumer is owed every byte before a failure, and an abort would free what waits.
        let (sink, sent) = tar.into_spill(writer).keep_open().run_with_sink().await;
        let writer = sink.into_inner();
        match sent {
            // Only this tells the consumer that the tar is complete ...
            Ok(report) => writer.finish().map(|()| tap.tapped(report)).map_err(|e| Fault::in_buffer(&e)),
            // ... and this is what it gets, after the last byte, in place of an end.
            Err(error) => {
                let fault = Fault::of(&error, source.name());
                writer.fail(fault.clone());
                Err(fault)
            }
        }
    });

    let consumer = consume(Pipeline::from_spill(reader), options);
    let received = progress::during(consumer, &control, options.memory).await?;
    let sent = join(producer).await?;
    Ok(Report::new(sent, skipped, received, control.stats().into(), started.elapsed()))
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

/// The producer's result; a panic in it goes on here.
async fn join(producer: JoinHandle<Result<Tapped, Fault>>) -> Result<Tapped, Fault> {
    producer.await.unwrap_or_else(|e| resume_unwind(e.into_panic()))
}
