//! What is done in a process of its own to see what it takes. Each prints its figures, a name and a value a line; none
//! judges them.

use spillbuffer::{Control, SpillBuffer, SpillReader, SpillWriter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

use crate::{
    content::{Check, Compare, PIECE, Source},
    process::{disk_allocated, reset_peak, status, unlinked},
};

/// How many buffers there are that nobody uses.
pub(crate) const EMPTY: u64 = 10_000;

/// How many streams stand still, and the window of each.
pub(crate) const STALLED: u64 = 200;
pub(crate) const STALLED_WINDOW: u64 = 256 << 10;

const WINDOW: usize = 1 << 20;

/// Pieces of the many streams: what their users hold is not what is measured.
const SHORT: usize = 1 << 10;

/// Whether there is a scenario of that name.
pub(crate) fn run(scenario: &str, mib: u64) -> bool {
    match scenario {
        "backlog" => backlog(mib << 20),
        "empty" => empty(),
        "stalled" => stalled(mib << 20),
        "keeping up" => keeping_up(mib << 20),
        _ => return false,
    }
    true
}

/// All is written with nobody reading, then all is read.
fn backlog(bytes: u64) {
    let runtime = runtime();
    let (mut source, mut buf) = (Source::new(0, PIECE), vec![1; PIECE]);
    let base = reset_peak();
    let (mut writer, mut reader) = buffer(WINDOW);
    let control = reader.control();
    runtime.block_on(async {
        write(&mut writer, &mut source, bytes).await;
        writer.finish().unwrap();
        println!("disk_written {}", disk_allocated());
        let mut check = Check::new(0, PIECE, Compare::All);
        let mut half = None;
        loop {
            let n = reader.read(&mut buf).await.unwrap();
            check.take(&buf[..n]);
            if half.is_none() && check.taken() >= bytes / 2 {
                half = Some(disk_allocated());
            }
            if n == 0 {
                break;
            }
        }
        check.end(bytes);
        println!("disk_half_read {}", half.unwrap_or_default());
    });
    print_memory(base, &[control]);
    drop(reader);
}

fn empty() {
    let base = reset_peak();
    let buffers: Vec<_> = (0..EMPTY).map(|_| buffer(WINDOW)).collect();
    let controls: Vec<_> = buffers.iter().map(|(_, reader)| reader.control()).collect();
    print_memory(base, &controls);
    println!("files {}", unlinked().len());
}

/// All are written, a task each, before any is read.
fn stalled(each: u64) {
    let runtime = runtime();
    let base = reset_peak();
    let (writers, readers): (Vec<_>, Vec<_>) = (0..STALLED).map(|_| buffer(STALLED_WINDOW as usize)).unzip();
    let controls: Vec<_> = readers.iter().map(SpillReader::control).collect();
    runtime.block_on(async {
        let write = |(mut writer, stream): (SpillWriter, u64)| {
            tokio::spawn(async move {
                write(&mut writer, &mut Source::new(stream, SHORT), each).await;
                writer.finish().unwrap();
            })
        };
        let tasks: Vec<_> = writers.into_iter().zip(0..).map(write).collect();
        for task in tasks {
            task.await.unwrap();
        }
        for (reader, stream) in readers.into_iter().zip(0..) {
            tokio::spawn(read(reader, stream, SHORT, each)).await.unwrap();
        }
    });
    print_memory(base, &controls);
}

/// Rounds of it, for what the scheduler does to one of them says little.
fn keeping_up(bytes: u64) {
    let runtime = runtime();
    let mut spilled: Vec<u64> = (0..7)
        .map(|_| {
            let (mut writer, reader) = buffer(WINDOW);
            let control = reader.control();
            runtime.block_on(async {
                let writing = tokio::spawn(async move {
                    write(&mut writer, &mut Source::new(0, PIECE), bytes).await;
                    writer.finish().unwrap();
                });
                tokio::spawn(read(reader, 0, PIECE, bytes)).await.unwrap();
                writing.await.unwrap();
            });
            control.stats().spilled
        })
        .collect();
    spilled.sort_unstable();
    println!("spilled {}\nspilled_most {}", spilled[spilled.len() / 2], spilled[spilled.len() - 1]);
}

fn print_memory(base: u64, buffers: &[Control]) {
    println!("rss {}", status("VmHWM").saturating_sub(base) * 1024);
    let held: u64 = buffers.iter().map(|buffer| buffer.stats().peak_memory_held).sum();
    println!("blocks {held}");
}

fn buffer(window: usize) -> (SpillWriter, SpillReader) {
    SpillBuffer::builder().memory_limit(window).build().expect("a window that is allowed").into_split()
}

async fn write(writer: &mut SpillWriter, source: &mut Source, bytes: u64) {
    for at in (0..bytes).step_by(source.len()) {
        writer.write_all(source.at(at)).await.unwrap();
    }
}

async fn read(mut reader: SpillReader, stream: u64, piece: usize, bytes: u64) {
    let mut check = Check::new(stream, piece, Compare::All);
    while let Some(chunk) = reader.next_chunk().await.unwrap() {
        check.take(&chunk);
    }
    check.end(bytes);
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).build().expect("a runtime")
}
