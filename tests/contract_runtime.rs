//! Needs no runtime and never blocks one (C11); everything has a bound, and nothing panics (C12).
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs,
    future::poll_fn,
    io::{BufRead, IoSlice, Read, Write},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, StreamExt};
use proptest::prelude::*;
use spillbuffer::{OnFull, SpillBuffer, SpillError};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    runtime,
};

use crate::support::*;

const LIMIT: usize = 64 * KIB;

// ---- C11: no runtime needed, none blocked ----

#[test]
fn c11_futures_polled_by_hand_outside_any_runtime_spill_and_come_back() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, 4 * MIB);
    block_on(writer.write_bytes(item(4 * MIB as u64, 100_000))).unwrap();
    assert!(writer.stats().on_disk > 3 << 20);
    writer.finish().unwrap();
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 4 * MIB as u64 + 100_000);
    end.unwrap();
}

#[test]
fn c11_blocking_halves_work_on_plain_threads() {
    let scratch = Scratch::new();
    let (writer, reader) = scratch.split(LIMIT);
    let total = 8 * MIB + 3;
    let producer = thread::spawn(move || {
        let mut writer = writer.into_blocking();
        writer.write_all(&item(0, 5 * MIB)).unwrap();
        writer.write_bytes(item(5 * MIB as u64, total - 5 * MIB)).unwrap();
        writer.flush().unwrap();
        writer.finish().unwrap();
    });
    comes_back(move || {
        let mut reader = reader.into_blocking();
        let mut at = 0u64;
        let mut head = vec![0; 100_000];
        reader.read_exact(&mut head).unwrap();
        verify(0, &head);
        at += head.len() as u64;
        let chunk = reader.next_chunk().unwrap().unwrap();
        verify(at, &chunk);
        at += chunk.len() as u64;
        let shown = reader.fill_buf().unwrap();
        verify(at, shown);
        let n = shown.len() / 2;
        reader.consume(n);
        at += n as u64;
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        verify(at, &rest);
        assert_eq!(at as usize + rest.len(), total);
    });
    producer.join().unwrap();
}

#[test]
fn c11_halves_may_move_between_threads_and_worlds() {
    // Async, then blocking on one thread, then on another, then async again.
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let mut at = 0;
    for turn in 0..6 {
        write_pattern(&mut writer, at, 300_000);
        let mut blocking = writer.into_blocking();
        blocking.write_all(pattern(at + 300_000, 100_000)).unwrap();
        writer = thread::spawn(move || {
            blocking.write_all(pattern(at + 400_000, 100_000)).unwrap();
            blocking.into_inner()
        })
        .join()
        .unwrap();
        read_pattern(&mut reader, at, 100_000);
        let mut blocking = reader.into_blocking();
        let mut buf = vec![0; 200_000];
        blocking.read_exact(&mut buf).unwrap();
        verify(at + 100_000, &buf);
        reader = comes_back(move || {
            blocking.read_exact(&mut buf).unwrap();
            verify(at + 300_000, &buf);
            blocking.into_inner()
        });
        at += 500_000;
        assert_eq!(reader.stats().read, at, "turn {turn}");
    }
}

async fn a_round_trip(scratch: &Scratch, total: usize) {
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let producer = tokio::spawn(async move {
        let mut at = 0;
        while at < total {
            let n = (total - at).min(50_000);
            writer.write_all(pattern(at as u64, n)).await.unwrap();
            at += n;
        }
        writer.finish().unwrap();
    });
    // First all of it is written, so that it spills without a reader.
    producer.await.unwrap();
    assert!(reader.stats().spilled > 0);
    let mut at = 0;
    let mut buf = vec![0; 50_000];
    loop {
        let n = reader.read(&mut buf).await.unwrap();
        if n == 0 {
            break;
        }
        verify(at, &buf[..n]);
        at += n as u64;
    }
    assert_eq!(at, total as u64);
}

#[test]
fn c11_a_runtime_without_time_and_io_will_do() {
    comes_back(|| {
        let scratch = Scratch::new();
        runtime::Builder::new_current_thread().build().unwrap().block_on(a_round_trip(&scratch, 4 * MIB));
        let multi = runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        multi.block_on(a_round_trip(&scratch, 4 * MIB));
    });
}

#[test]
fn c11_a_starved_blocking_pool_holds_nothing_up() {
    // The one thread that may block does, for as long as the test lasts, in a writer of ours.
    let scratch = Scratch::new();
    let runtime =
        runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(1).enable_time().build().unwrap();
    runtime.block_on(within(async {
        let (stuck, _nobody_reads) =
            SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
        let control = stuck.control();
        let blocked = tokio::task::spawn_blocking(move || stuck.into_blocking().write_all(&vec![0; MIB]));
        while control.stats().written < LIMIT as u64 {
            tokio::task::yield_now().await;
        }
        a_round_trip(&scratch, 4 * MIB).await;
        assert!(!blocked.is_finished());
        control.cancel("enough");
        blocked.await.unwrap().unwrap_err();
    }));
}

#[test]
fn c11_a_stream_outlives_the_runtime_it_began_on() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let first = current_thread();
    first.block_on(within(async {
        writer.write_all(&item(0, 2 * MIB)).await.unwrap();
        let mut head = vec![0; 100_000];
        reader.read_exact(&mut head).await.unwrap();
        verify(0, &head);
    }));
    drop(first);
    // Outside of any, then on another.
    write_pattern(&mut writer, 2 * MIB as u64, MIB);
    read_pattern(&mut reader, 100_000, MIB);
    multi_thread().block_on(within(async {
        writer.write_all(&item(3 * MIB as u64, MIB)).await.unwrap();
        writer.finish().unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).await.unwrap();
        verify(100_000 + MIB as u64, &rest);
        assert_eq!(rest.len(), 3 * MIB - 100_000);
    }));
}

/// Bytes that this thread has handed to write calls so far.
fn written_by_this_thread() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[test]
fn c11_the_thread_that_polls_never_writes_to_the_disk() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let before = written_by_this_thread();
    write_pattern(&mut writer, 0, 16 * MIB);
    block_on(writer.write_bytes(item(16 * MIB as u64, MIB))).unwrap();
    read_pattern(&mut reader, 0, 17 * MIB);
    assert!(reader.stats().spilled > 15 << 20);
    let by_us = written_by_this_thread() - before;
    assert!(by_us < 64 << 10, "{by_us} bytes were written by the thread that polls");
}

/// How many threads of this name the process has.
fn threads_named(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)).count()
}

#[test]
fn c11_dropping_halves_anywhere_frees_a_large_backlog_and_does_not_wait_for_it() {
    for place in ["outside", "inside", "runtime's end", "reader first", "while it writes"] {
        let scratch = Scratch::new();
        let (mut writer, reader) = scratch.split(MIB);
        write_pattern(&mut writer, 0, 48 * MIB);
        assert!(scratch.allocated() > 46 << 20);
        let runtime = current_thread();
        match place {
            "outside" => drop((writer, reader)),
            "inside" => runtime.block_on(async move { drop((writer, reader)) }),
            "runtime's end" => {
                // Tasks that are parked for ever are dropped with their runtime.
                runtime.spawn(async move {
                    let _reader = reader;
                    writer.write_all(&item(48 * MIB as u64, 8 * MIB)).await.unwrap();
                    std::future::pending::<()>().await;
                });
                runtime.block_on(tokio::task::yield_now());
                drop(runtime);
            }
            "reader first" => {
                drop(reader);
                assert_eq!((writer.stats().in_memory, writer.stats().on_disk), (0, 0), "at once, not by and by");
                drop(writer);
            }
            _ => {
                let mut cx = Context::from_waker(Waker::noop());
                let _ = try_write(&mut writer, &mut cx, pattern(48 * MIB as u64, MIB));
                drop(writer);
                drop(reader);
            }
        }
        eventually("the file is freed", || scratch.open_files().is_empty());
    }
}

#[test]
fn c11_an_always_ready_buffer_starves_no_other_task() {
    // One thread. A task that reads or writes and never finds a reason to wait would never let the other
    // one run, if polls took no part in the budget that tokio gives each task.
    type Busy = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;
    fn full() -> (spillbuffer::SpillWriter, spillbuffer::SpillReader) {
        SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split()
    }
    /// What is not under test takes no part in the budget.
    async fn put(writer: &mut spillbuffer::SpillWriter, n: usize) {
        tokio::task::unconstrained(writer.write_all(pattern(0, n))).await.unwrap();
    }
    async fn take(reader: &mut spillbuffer::SpillReader) {
        let n = tokio::task::unconstrained(reader.read(&mut [0; 10])).await.unwrap();
        assert_eq!(n, 10);
    }
    let busy: [(&str, Busy); 6] = [
        ("read", || {
            Box::pin(async {
                let (mut writer, mut reader) = full();
                loop {
                    put(&mut writer, 10).await;
                    assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 10);
                }
            })
        }),
        ("fill_buf", || {
            Box::pin(async {
                let (mut writer, mut reader) = full();
                put(&mut writer, 10).await;
                loop {
                    reader.fill_buf().await.unwrap();
                    reader.consume(0);
                }
            })
        }),
        ("next_chunk", || {
            Box::pin(async {
                let (mut writer, mut reader) = full();
                loop {
                    put(&mut writer, 10).await;
                    reader.next_chunk().await.unwrap();
                }
            })
        }),
        ("stream", || {
            Box::pin(async {
                let (mut writer, reader) = full();
                let mut stream = reader.into_stream();
                loop {
                    put(&mut writer, 10).await;
                    stream.next().await.unwrap().unwrap();
                }
            })
        }),
        ("write", || {
            Box::pin(async {
                let (mut writer, mut reader) = full();
                loop {
                    writer.write_all(&[0; 10]).await.unwrap();
                    take(&mut reader).await;
                }
            })
        }),
        ("write_bytes", || {
            Box::pin(async {
                let (mut writer, mut reader) = full();
                loop {
                    writer.write_bytes(Bytes::from_static(b"0123456789")).await.unwrap();
                    take(&mut reader).await;
                }
            })
        }),
    ];
    for (what, busy) in busy {
        let done = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&done);
        // On a thread of its own: were it starved, nothing on this runtime could tell.
        thread::spawn(move || {
            current_thread().block_on(async move {
                tokio::spawn(busy());
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                told.store(true, Ordering::SeqCst);
            });
        });
        eventually(what, || done.load(Ordering::SeqCst));
    }
}

/// What one task does with a stream, so many bytes of it.
type Busy = fn(spillbuffer::SpillWriter, spillbuffer::SpillReader) -> Pin<Box<dyn Future<Output = ()> + Send>>;

const ALL: usize = 16 * MIB;

fn readers_and_writers() -> [(&'static str, Busy); 9] {
    [
        ("read", |writer, mut reader| {
            Box::pin(async move {
                writer.finish().unwrap();
                let mut piece = vec![0; MIB];
                while reader.read(&mut piece).await.unwrap() > 0 {}
            })
        }),
        ("fill_buf", |writer, mut reader| {
            Box::pin(async move {
                writer.finish().unwrap();
                loop {
                    let n = reader.fill_buf().await.unwrap().len();
                    if n == 0 {
                        break;
                    }
                    reader.consume(n);
                }
            })
        }),
        ("next_chunk", |writer, mut reader| {
            Box::pin(async move {
                writer.finish().unwrap();
                while reader.next_chunk().await.unwrap().is_some() {}
            })
        }),
        ("stream", |writer, reader| {
            Box::pin(async move {
                writer.finish().unwrap();
                let mut stream = reader.into_stream();
                while stream.next().await.is_some() {}
            })
        }),
        ("write", |mut writer, reader| {
            Box::pin(async move {
                let _reader = reader;
                writer.write_all(&vec![0; ALL]).await.unwrap();
            })
        }),
        ("write_vectored", |mut writer, reader| {
            Box::pin(async move {
                let _reader = reader;
                let piece = vec![0; MIB / 2];
                let mut written = 0;
                while written < ALL {
                    written += writer.write_vectored(&[IoSlice::new(&piece), IoSlice::new(&piece)]).await.unwrap();
                }
            })
        }),
        ("write_bytes", |mut writer, reader| {
            Box::pin(async move {
                let _reader = reader;
                for _ in 0..ALL / MIB {
                    writer.write_bytes(vec![0; MIB].into()).await.unwrap();
                }
            })
        }),
        ("sink", |writer, reader| {
            Box::pin(async move {
                let _reader = reader;
                let mut sink = writer.into_sink();
                for _ in 0..ALL / MIB {
                    sink.feed(vec![0; MIB].into()).await.unwrap();
                }
                sink.close().await.unwrap();
            })
        }),
        ("short pieces", |mut writer, reader| {
            Box::pin(async move {
                let _reader = reader;
                // Just below the length that counts twice.
                let piece = vec![0; 32_000];
                for _ in 0..ALL / piece.len() {
                    writer.write_all(&piece).await.unwrap();
                }
            })
        }),
    ]
}

/// By calls alone a turn was 128 pieces, however long: with a hundred streams on two threads each reader came so late to its
/// next turn that its writer took it for one that stands still, and a tenth of the bytes went to disk.
#[test]
fn c11_a_turn_ends_after_two_mebibytes_however_long_the_pieces_are() {
    // What a turn is left with when it has moved all but a byte, and then a piece more.
    const MOST: u64 = 3 * MIB as u64;
    for (what, busy) in readers_and_writers() {
        let (mut writer, reader) =
            SpillBuffer::builder().memory_limit(2 * ALL).disk_limit(0).build().unwrap().into_split();
        let control = writer.control();
        let reads = matches!(what, "read" | "fill_buf" | "next_chunk" | "stream");
        if reads {
            write_pattern(&mut writer, 0, ALL);
        }
        let moved = || if reads { control.stats().read } else { control.stats().written };
        let task = busy(writer, reader);
        current_thread().block_on(async {
            let task = tokio::spawn(task);
            let (mut last, mut turns) = (0, 0);
            while !task.is_finished() {
                tokio::task::yield_now().await;
                let now = moved();
                assert!(now - last <= MOST, "{what}: {} bytes in one turn", now - last);
                (last, turns) = (now, turns + 1);
            }
            task.await.unwrap();
            // Nor is it shorter than needed: each turn costs a change of tasks. Memory that is filled for the first time counts
            // for more.
            let shortest = if reads { MIB } else { MIB / 8 };
            assert!(turns <= ALL / shortest + 2, "{what}: {turns} turns");
        });
        assert!(moved() >= (ALL - MIB) as u64, "{what}");
    }
}

/// A hundred streams that begin at once fill a window of fresh memory each: that took so long that no reader had its turn in time.
#[test]
fn c11_a_turn_is_shorter_where_memory_is_fresh() {
    // In a process of its own, where no other test has left any.
    in_child(
        "c11_a_turn_is_shorter_where_memory_is_fresh",
        |_| {},
        || {
            let (writer, mut reader) =
                SpillBuffer::builder().memory_limit(32 * MIB).disk_limit(0).build().unwrap().into_split();
            let runtime = current_thread();
            let first_turn = |mut writer: spillbuffer::SpillWriter| {
                let control = writer.control();
                let before = control.stats().written;
                runtime.block_on(async move {
                    let writing = tokio::spawn(async move {
                        let piece = vec![0; 64 * KIB];
                        for _ in 0..32 {
                            writer.write_all(&piece).await.unwrap();
                        }
                        writer
                    });
                    tokio::task::yield_now().await;
                    let moved = control.stats().written - before;
                    (writing.await.unwrap(), moved)
                })
            };
            let (writer, fresh) = first_turn(writer);
            block_on(reader.read_exact(&mut vec![0; 2 * MIB])).unwrap();
            let (_writer, warm) = first_turn(writer);
            assert!((1..=512 << 10).contains(&fresh), "{fresh} of fresh memory in a turn");
            assert!(warm >= 1 << 20, "{warm} in a turn of memory that was used before");
        },
    );
}

// ---- C12: bounded everywhere, and no panic ----

#[test]
fn c12_threads_are_few_per_directory_however_many_buffers_there_are_and_go_when_idle() {
    const NAME: &str = "c12_threads_are_few_per_directory_however_many_buffers_there_are_and_go_when_idle";
    // In a process of its own, where no other test has threads.
    in_child(
        NAME,
        |_| {},
        || {
            let scratch = Scratch::new();
            assert_eq!(threads_named("spillbuffer-io"), 0, "they are started when there is work");
            let most = Arc::new(AtomicUsize::new(0));
            let workers: Vec<_> = (0..4)
                .map(|_| {
                    let halves: Vec<_> = (0..16).map(|_| scratch.split(LIMIT)).collect();
                    let most = Arc::clone(&most);
                    thread::spawn(move || {
                        let mut halves = halves;
                        for (writer, _) in &mut halves {
                            write_pattern(writer, 0, MIB);
                            most.fetch_max(threads_named("spillbuffer-io"), Ordering::SeqCst);
                        }
                        for (_, reader) in &mut halves {
                            read_pattern(reader, 0, MIB);
                            most.fetch_max(threads_named("spillbuffer-io"), Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            for worker in workers {
                worker.join().unwrap();
            }
            let most = most.load(Ordering::SeqCst);
            assert!((1..=4).contains(&most), "{most} I/O threads for one directory");
            assert!(threads_named("spillbuffer-cloc") <= 1);
            eventually("idle threads go", || {
                threads_named("spillbuffer-io") == 0 && threads_named("spillbuffer-cloc") == 0
            });
            // And are there again when needed.
            let (mut writer, mut reader) = scratch.split(LIMIT);
            write_pattern(&mut writer, 0, MIB);
            read_pattern(&mut reader, 0, MIB);
        },
    );
}

#[test]
fn c12_a_buffer_has_one_descriptor_at_most_and_gives_it_up() {
    let scratch = Scratch::new();
    let mut halves: Vec<_> = (0..20).map(|_| scratch.split(LIMIT)).collect();
    for (writer, _) in &mut halves {
        write_pattern(writer, 0, MIB);
    }
    assert_eq!(scratch.open_files().len(), 20);
    for (_, reader) in &mut halves {
        read_pattern(reader, 0, MIB);
    }
    assert!(scratch.open_files().len() <= 20);
    // Empty for a while, they need none.
    eventually("idle files are closed", || scratch.open_files().is_empty());
    for (writer, reader) in &mut halves {
        write_pattern(writer, MIB as u64, MIB);
        read_pattern(reader, MIB as u64, MIB);
    }
    drop(halves);
    eventually("all are closed", || scratch.open_files().is_empty());
}

#[test]
fn c12_empty_writes_and_reads_of_nothing_are_nothing() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let mut cx = Context::from_waker(Waker::noop());
    // A read into no room is ready with nothing, and that is not the end, whatever there is to read.
    for filled in [0, 10] {
        write_pattern(&mut writer, 0, filled);
        assert!(matches!(try_read(&mut reader, &mut cx, &mut []), Poll::Ready(Ok(0))));
        assert!(matches!(try_write(&mut writer, &mut cx, &[]), Poll::Ready(Ok(0))));
        let none = Pin::new(&mut writer).poll_write_vectored(&mut cx, &[]);
        assert!(matches!(none, Poll::Ready(Ok(0))));
        let empty = Pin::new(&mut writer).poll_write_vectored(&mut cx, &[IoSlice::new(&[]), IoSlice::new(&[])]);
        assert!(matches!(empty, Poll::Ready(Ok(0))));
        assert!(matches!(poll_once(pin!(writer.write_bytes(Bytes::new()))), Poll::Ready(Ok(()))));
        assert_eq!(reader.stats().in_memory, filled as u64);
    }
    read_pattern(&mut reader, 0, 10);
    // Nothing of that has left an empty chunk behind.
    assert!(poll_once(pin!(reader.next_chunk())).is_pending());
    writer.finish().unwrap();
    assert!(block_on(reader.next_chunk()).unwrap().is_none());
}

#[test]
fn c12_consuming_more_than_was_shown_counts_only_that() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    // Without having looked at all.
    Pin::new(&mut reader).consume(10);
    Pin::new(&mut reader).consume(usize::MAX);
    write_pattern(&mut writer, 0, 5 * LIMIT);
    Pin::new(&mut reader).consume(10);
    assert_eq!(reader.stats().read, 0, "what nobody was shown is not read");
    let mut at = 0u64;
    while at < 5 * LIMIT as u64 {
        at += block_on(poll_fn(|cx| try_fill(&mut reader, cx, at, |_| usize::MAX))).unwrap() as u64;
        assert_eq!(reader.stats().read, at);
        // Once more, for what is gone.
        Pin::new(&mut reader).consume(usize::MAX);
        assert_eq!(reader.stats().read, at);
    }
    assert!(poll_once(pin!(reader.fill_buf())).is_pending());
}

#[test]
fn c12_partial_consumes_and_other_reads_mix() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, MIB);
    writer.finish().unwrap();
    let mut random = Random::new(3);
    let (mut at, mut buf) = (0u64, vec![0; 40_000]);
    while at < MIB as u64 {
        at += match random.below(4) {
            0 => block_on(poll_fn(|cx| try_fill(&mut reader, cx, at, |shown| random.below(shown + 1)))).unwrap() as u64,
            1 => block_on(poll_fn(|cx| try_fill(&mut reader, cx, at, |_| 0))).unwrap() as u64,
            2 => {
                let n = read_some(&mut reader, &mut buf[..random.adversarial(40_000)]).unwrap();
                verify(at, &buf[..n]);
                n as u64
            }
            _ => {
                let chunk = block_on(reader.next_chunk()).unwrap().unwrap();
                verify(at, &chunk);
                chunk.len() as u64
            }
        };
    }
    assert_eq!(at, MIB as u64);
}

#[test]
fn c12_a_read_buffer_that_is_partly_filled_keeps_what_is_in_it() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    write_pattern(&mut writer, 0, 100);
    let mut memory = [0xAA; 50];
    let mut buf = ReadBuf::new(&mut memory);
    buf.put_slice(b"before");
    let mut cx = Context::from_waker(Waker::noop());
    let read = tokio::io::AsyncRead::poll_read(Pin::new(&mut reader), &mut cx, &mut buf);
    assert!(read.is_ready());
    assert_eq!(&buf.filled()[..6], b"before");
    verify(0, &buf.filled()[6..]);
    assert_eq!(buf.filled().len(), 50);
}

#[test]
fn c12_extreme_options_are_refused_or_work() {
    for memory in [64 * KIB, usize::MAX / 2, usize::MAX] {
        for disk in [None, Some(0), Some(20_480), Some(u64::MAX)] {
            let mut builder = SpillBuffer::builder().memory_limit(memory);
            if let Some(disk) = disk {
                builder = builder.disk_limit(disk);
            }
            let (mut writer, mut reader) = builder.build().unwrap().into_split();
            write_pattern(&mut writer, 0, 60_000);
            block_on(writer.write_bytes(item(60_000, 5_000))).unwrap();
            read_pattern(&mut reader, 0, 65_000);
            identities(&reader.stats(), memory, disk);
        }
    }
    assert!(matches!(SpillBuffer::builder().temp_dir("").build(), Err(SpillError::Config { .. })));
}

#[test]
fn c12_a_sink_used_out_of_order_is_an_error_and_no_panic() {
    let (writer, _reader) = SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
    let mut sink = writer.into_sink();
    Pin::new(&mut sink).start_send(item(0, 3 * LIMIT)).unwrap();
    Pin::new(&mut sink).start_send(item(0, 10)).unwrap_err();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut sink).poll_ready(&mut cx).is_pending());
    assert!(matches!(Pin::new(&mut sink).poll_flush(&mut cx), Poll::Ready(Ok(()))));
    assert_eq!(sink.get_ref().stats().written, 3 * LIMIT as u64);
}

#[test]
fn c12_a_waker_that_panics_or_comes_back_into_the_buffer_breaks_nothing() {
    // A waker is a user's code: it may use the very buffer that wakes it.
    struct Curious(spillbuffer::Control, AtomicUsize);
    impl std::task::Wake for Curious {
        fn wake(self: Arc<Self>) {
            assert!(self.0.stats().written < 1 << 30);
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let curious = Arc::new(Curious(reader.control(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&curious));
    assert!(try_read(&mut reader, &mut Context::from_waker(&waker), &mut [0; 4]).is_pending());
    comes_back(move || {
        write_pattern(&mut writer, 0, MIB);
        writer
    });
    assert_eq!(curious.1.load(Ordering::SeqCst), 1);

    // One that panics, on whatever thread it is: the buffer and its threads go on.
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("a waker's own fault"));
        }
    }
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let waker = Waker::from(Arc::new(Panics));
    let mut at = 0;
    while let Poll::Ready(n) = try_write(&mut writer, &mut Context::from_waker(&waker), pattern(at, 50_000)) {
        at += n.unwrap() as u64;
    }
    eventually("it spills all the same", || reader.stats().spilled > 0);
    write_pattern(&mut writer, at, MIB);
    read_pattern(&mut reader, 0, at as usize + MIB);
    let (mut other, mut others_reader) = scratch.split(LIMIT);
    write_pattern(&mut other, 0, MIB);
    read_pattern(&mut others_reader, 0, MIB);
}

#[derive(Debug, Clone)]
enum Call {
    Write(usize),
    WriteBytes(usize),
    Flush,
    Shutdown,
    Read(usize),
    Fill(usize),
    Consume(usize),
    Chunk,
    Fail,
    Abort,
    Cancel,
    Closed,
    DropWriter,
    DropReader,
    DropChunks,
    Stats,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let size = || prop_oneof![0usize..3, 1000usize..20_000, 60_000usize..70_000, 100_000usize..300_000];
    let call = prop_oneof![
        6 => size().prop_map(Call::Write),
        4 => size().prop_map(Call::WriteBytes),
        1 => Just(Call::Flush),
        1 => Just(Call::Shutdown),
        5 => size().prop_map(Call::Read),
        3 => size().prop_map(Call::Fill),
        2 => size().prop_map(Call::Consume),
        4 => Just(Call::Chunk),
        1 => Just(Call::Fail),
        1 => Just(Call::Abort),
        1 => Just(Call::Cancel),
        1 => Just(Call::Closed),
        1 => Just(Call::DropWriter),
        1 => Just(Call::DropReader),
        2 => Just(Call::DropChunks),
        1 => Just(Call::Stats),
    ];
    prop::collection::vec(call, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c12_no_order_of_calls_panics_or_gives_a_wrong_byte(
        calls in calls(),
        limit in prop_oneof![Just(64 * KIB), Just(77_777)],
        disk in prop_oneof![Just(None), Just(Some(0)), Just(Some(100_000u64))],
        fail in any::<bool>(),
        missing in any::<bool>(),
    ) {
        let scratch = Scratch::new();
        let mut builder = scratch.builder(limit).on_full(if fail { OnFull::Fail } else { OnFull::Wait });
        if missing {
            builder = builder.temp_dir(scratch.missing());
        }
        if let Some(disk) = disk {
            builder = builder.disk_limit(disk);
        }
        let (writer, reader) = builder.build().unwrap().into_split();
        let control = reader.control();
        let (mut writer, mut reader) = (Some(writer), Some(reader));
        let mut chunks = Vec::new();
        let mut buf = vec![0; 300_000];
        let mut cx = Context::from_waker(Waker::noop());
        let (mut at, mut read) = (0u64, 0u64);
        for call in calls {
            match (call, &mut writer, &mut reader) {
                (Call::Write(n), Some(writer), _) => if let Poll::Ready(Ok(n)) = try_write(writer, &mut cx, pattern(at, n)) {
                    at += n as u64;
                },
                (Call::WriteBytes(n), Some(writer), _) => {
                    if let Poll::Ready(Ok(())) = poll_once(pin!(writer.write_bytes(item(at, n)))) {
                        at += n as u64;
                    }
                }
                (Call::Flush, Some(writer), _) => drop(poll_once(pin!(writer.flush()))),
                (Call::Shutdown, Some(writer), _) => drop(poll_once(pin!(writer.shutdown()))),
                (Call::Read(n), _, Some(reader)) => if let Poll::Ready(Ok(n)) = try_read(reader, &mut cx, &mut buf[..n]) {
                    verify(read, &buf[..n]);
                    read += n as u64;
                },
                (Call::Fill(n), _, Some(reader)) => if let Poll::Ready(Ok(n)) = try_fill(reader, &mut cx, read, |_| n) {
                    read += n as u64;
                },
                (Call::Consume(n), _, Some(reader)) => Pin::new(reader).consume(n),
                (Call::Chunk, _, Some(reader)) => if let Poll::Ready(Ok(Some(chunk))) = poll_once(pin!(reader.next_chunk())) {
                    verify(read, &chunk);
                    read += chunk.len() as u64;
                    chunks.push((read - chunk.len() as u64, chunk));
                },
                (Call::Fail, ..) => control.fail("fail"),
                (Call::Abort, Some(writer), _) => writer.abort("abort"),
                (Call::Cancel, _, Some(reader)) => reader.cancel("cancel"),
                (Call::Closed, Some(writer), _) => {
                    let gone = poll_once(pin!(writer.closed())).is_ready();
                    prop_assert_eq!(gone, writer.is_closed());
                }
                (Call::DropWriter, ..) => writer = None,
                (Call::DropReader, ..) => reader = None,
                (Call::DropChunks, ..) => chunks.clear(),
                _ => {}
            }
            let stats = control.stats();
            prop_assert_eq!((stats.written, stats.read), (at, read));
            bounds(&stats, limit, disk);
        }
        for (at, chunk) in &chunks {
            verify(*at, chunk);
        }
        drop((writer, reader, chunks));
        eventually("nothing is held", || {
            let stats = control.stats();
            (stats.memory_held, stats.disk_held, stats.lent) == (0, 0, 0)
        });
        eventually("nothing is open", || scratch.open_files().is_empty());
    }
}

#[test]
fn c12_a_reader_that_only_looks_never_takes_anything() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    write_pattern(&mut writer, 0, 1000);
    for _ in 0..100 {
        let shown = Pin::new(&mut reader).poll_fill_buf(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Ok(shown)) = shown else { panic!("{shown:?}") };
        verify(0, shown);
    }
    assert_eq!(reader.stats().read, 0);
    read_pattern(&mut reader, 0, 1000);
}
