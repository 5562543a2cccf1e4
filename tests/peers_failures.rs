//! Ways in which other buffers, spools and pipes have failed their users: each must not happen here.
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![cfg(target_os = "linux")]

mod support;

use std::{
    error::Error,
    fs, io,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use spillbuffer::{OnFull, SpillBuffer, SpillError, SpillReader, SpillWriter};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Barrier,
};

use crate::support::*;

const LIMIT: usize = 64 * KIB;

/// Halves whose first spill fails, and how many bytes were accepted before it did.
fn with_a_failed_spill(scratch: &Scratch) -> (SpillWriter, SpillReader, u64) {
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(scratch.missing());
    let (mut writer, reader) = builder.build().unwrap().into_split();
    let (at, error) = fill_up(&mut writer, 0);
    assert!(error.is_some());
    (writer, reader, at)
}

/// tokio 6325: the first flush told of the failed write, the second said Ok, and the bytes were gone.
#[test]
fn c07_peer_an_error_told_once_is_told_again() {
    let scratch = Scratch::new();
    let (mut writer, _reader, _) = with_a_failed_spill(&scratch);
    for _ in 0..5 {
        assert_eq!(block_on(writer.flush()).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(write_some(&mut writer, b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(block_on(writer.shutdown()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    assert!(matches!(writer.finish(), Err(SpillError::Storage { .. })));
}

/// `tokio::fs::File`: a read that met an earlier write's error kept only its kind. A builder's spool: the
/// error became a text, its type and cause were lost.
#[test]
fn c07_peer_the_reader_is_told_of_a_write_error_with_all_that_is_known() {
    let scratch = Scratch::new();
    let (_writer, mut reader, at) = with_a_failed_spill(&scratch);
    let (read, end) = read_to_end(&mut reader, 0);
    assert_eq!(read, at);
    let error = end.unwrap_err();
    let SpillError::Storage { op, path, source, .. } = spill(&error) else { panic!("{error:?}") };
    assert_eq!(*op, spillbuffer::StorageOp::Create);
    assert_eq!(path, &scratch.missing());
    assert_eq!(source.raw_os_error(), Some(2));
    let cause = spill(&error).source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!(cause.raw_os_error(), Some(2));
}

/// tokio 6914, 3756: a pipe's half hung for ever when the other was dropped.
#[test]
fn c07_peer_neither_half_hangs_when_the_other_goes() {
    comes_back(|| {
        for flavor in [current_thread(), multi_thread()] {
            flavor.block_on(within(async {
                let (mut writer, reader) =
                    SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
                let blocked = tokio::spawn(async move { writer.write_all(&item(0, 4 * LIMIT)).await });
                tokio::task::yield_now().await;
                drop(reader);
                assert_eq!(blocked.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);

                let (writer, mut reader) = SpillBuffer::new().into_split();
                let blocked = tokio::spawn(async move { reader.read(&mut [0; 8]).await });
                tokio::task::yield_now().await;
                drop(writer);
                assert_eq!(blocked.await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            }));
        }
    });
}

/// async-spooled-tempfile: when the rollover failed, what memory held was lost.
#[test]
fn c08_peer_a_failed_first_spill_loses_nothing() {
    let scratch = Scratch::new();
    let (writer, mut reader, at) = with_a_failed_spill(&scratch);
    drop(writer);
    assert!(at >= LIMIT as u64);
    let (read, end) = read_to_end(&mut reader, 0);
    assert_eq!(read, at);
    end.unwrap_err();
}

/// `DataFusion` 20683: the drop of a writer's clone signalled the end, and the rest was lost.
#[test]
fn c07_peer_a_second_handle_that_is_dropped_ends_nothing() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let (one, two) = (writer.control(), reader.control());
    write_pattern(&mut writer, 0, 10);
    drop((one.clone(), one, two));
    write_pattern(&mut writer, 10, 10);
    read_pattern(&mut reader, 0, 20);
    writer.finish().unwrap();
    assert_eq!(read_some(&mut reader, &mut [0; 4]).unwrap(), 0);
}

/// `DataFusion` 24883: two open spill files of one task were a deadlock.
#[test]
fn c11_peer_many_spilled_buffers_of_one_task_do_not_wait_for_each_other() {
    let scratch = Scratch::new();
    let mut all: Vec<_> = (0..10).map(|_| scratch.split(LIMIT)).collect();
    for round in 0..5u64 {
        for (writer, _) in &mut all {
            write_pattern(writer, round * 300_000, 300_000);
        }
        for (_, reader) in all.iter_mut().rev() {
            read_pattern(reader, round * 300_000, 300_000);
        }
    }
}

/// `DataFusion` 19425: the reader outran writes that were not flushed yet.
#[test]
fn c02_peer_a_reader_at_the_writers_heels_never_reads_what_is_not_there_yet() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let total = 8 * MIB;
    let producer = thread::spawn(move || {
        let mut random = Random::new(8);
        let mut at = 0;
        while at < total {
            let n = random.adversarial(total - at);
            write_pattern(&mut writer, at as u64, n);
            at += n;
        }
        writer.finish().unwrap();
    });
    let mut random = Random::new(9);
    let (mut at, mut buf) = (0, vec![0; 150_000]);
    loop {
        let n = random.adversarial(buf.len());
        match read_some(&mut reader, &mut buf[..n]).unwrap() {
            0 => break,
            n => {
                verify(at, &buf[..n]);
                at += n as u64;
            }
        }
    }
    assert_eq!(at, total as u64);
    producer.join().unwrap();
}

/// `DataFusion` 24228: an I/O error leaked the quota of what it was about.
#[test]
fn c06_peer_writes_that_fail_for_want_of_space_leak_no_quota() {
    in_child(
        "c06_peer_writes_that_fail_for_want_of_space_leak_no_quota",
        |_| {},
        || {
            setrlimit(Resource::Fsize, Rlimit { current: Some(300_000), maximum: None }).unwrap();
            let scratch = Scratch::new();
            let (mut writer, mut reader) = scratch.split(LIMIT);
            let mut at = 0;
            let mut reached = Vec::new();
            for _ in 0..6 {
                let (full, error) = fill_up(&mut writer, at);
                assert!(error.is_none());
                reached.push(full - at);
                read_pattern(&mut reader, at, (full - at) as usize);
                at = full;
                eventually("all of it is free", || reader.stats().disk_held == 0 && reader.stats().memory_held == 0);
            }
            let (least, most) = (reached.iter().min().unwrap(), reached.iter().max().unwrap());
            assert!(most - least <= 40_000, "each time as much as the first: {reached:?}");
        },
    );
}

/// `DataFusion`: one blocking task an open file used up the pool of blocking threads, and all stood still.
#[test]
fn c11_peer_a_hundred_spilled_streams_need_no_thread_each() {
    let scratch = Scratch::new();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(within(async {
        let barrier = Arc::new(Barrier::new(100));
        let tasks: Vec<_> = (0..100)
            .map(|_| {
                let (mut writer, mut reader) = scratch.split(LIMIT);
                let barrier = Arc::clone(&barrier);
                tokio::spawn(async move {
                    writer.write_all(&item(0, 300_000)).await.unwrap();
                    // All are on disk before the first is read.
                    barrier.wait().await;
                    writer.finish().unwrap();
                    let mut back = Vec::new();
                    reader.read_to_end(&mut back).await.unwrap();
                    assert_eq!(back.len(), 300_000);
                    verify(0, &back);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    }));
}

/// spring-framework 37285: the quota was not looked at when memory was switched for disk.
#[test]
fn c06_peer_the_disk_limit_holds_from_the_first_spilled_byte() {
    let scratch = Scratch::new();
    let builder = scratch.builder(LIMIT).disk_limit(100_000).on_full(OnFull::Fail);
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    // One item that is larger than memory and disk are: it waits inside, and not on disk.
    block_on(writer.write_bytes(item(0, 10 * LIMIT))).unwrap();
    let refused = block_on(writer.write_bytes(item(10 * LIMIT as u64, 10)));
    assert!(matches!(refused, Err(SpillError::DiskLimit { .. })), "{refused:?}");
    let stats = reader.stats();
    identities(&stats, LIMIT, Some(100_000));
    assert!(scratch.allocated() <= 100_000);
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 10 * LIMIT as u64);
    end.unwrap_err();
}

/// fs-capacitor 75: an early close took a race, and one file in 5000 came out short.
#[test]
fn c01_peer_a_close_that_races_with_reads_cuts_nothing_off() {
    let scratch = Scratch::new();
    let builder = scratch.builder(LIMIT);
    // Two threads that hand each other one pair of halves after another.
    let (give, take) = std::sync::mpsc::sync_channel::<(SpillWriter, usize)>(4);
    let producer = thread::spawn(move || {
        while let Ok((mut writer, total)) = take.recv() {
            write_pattern(&mut writer, 0, total);
            writer.finish().unwrap();
        }
    });
    let mut random = Random::new(75);
    for _ in 0..5000 {
        let total = if random.below(20) == 0 { 70_000 + random.below(30_000) } else { random.below(5000) };
        let (writer, mut reader) = builder.clone().build().unwrap().into_split();
        give.send((writer, total)).unwrap();
        let (at, end) = read_to_end(&mut reader, 0);
        assert_eq!(at, total as u64);
        end.unwrap();
    }
    drop(give);
    producer.join().unwrap();
}

/// nginx, `LANraragi` 1286: a quota that counted what had passed, not what was there, cut long bodies off.
#[test]
fn c06_peer_a_quota_is_of_what_is_there_not_of_what_has_passed() {
    let scratch = Scratch::new();
    let builder = scratch.builder(LIMIT).disk_limit(500_000).on_full(OnFull::Fail);
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    let mut at = 0u64;
    while at < 40 * 500_000 {
        write_pattern(&mut writer, at, 400_000);
        read_pattern(&mut reader, at, 400_000);
        at += 400_000;
    }
    assert!(reader.stats().spilled > 20 * 300_000);
    writer.finish().unwrap();
    assert_eq!(read_some(&mut reader, &mut [0; 4]).unwrap(), 0);
}

/// nginx: nameless temp files of many streams kept the disk full, where no `du` could see it.
#[test]
fn c06_peer_drained_streams_that_stay_open_keep_no_disk() {
    let scratch = Scratch::new();
    let mut all: Vec<_> = (0..6).map(|_| scratch.split(LIMIT)).collect();
    for (writer, _) in &mut all {
        write_pattern(writer, 0, 8 * MIB);
    }
    assert!(scratch.allocated() > 47 << 20);
    for (_, reader) in &mut all {
        read_pattern(reader, 0, 8 * MIB);
    }
    eventually("the disk is free", || scratch.allocated() < 6 * (3 << 20));
    eventually("and after a while no file is left", || scratch.open_files().is_empty());
    drop(all);
}

/// starlette PR 2962: the rollover to disk blocked the event loop.
#[test]
fn c11_peer_the_event_loop_goes_on_while_a_task_spills() {
    let scratch = Scratch::new();
    let (mut writer, _reader) = scratch.split(LIMIT);
    current_thread().block_on(within(async {
        let spilling = tokio::spawn(async move {
            writer.write_all(&item(0, 24 * MIB)).await.unwrap();
            writer.stats().spilled
        });
        // It is given turns while the other waits for the disk, and not only when it is done.
        let mut turns = 0u64;
        while !spilling.is_finished() {
            turns += 1;
            tokio::task::yield_now().await;
        }
        assert!(turns > 10, "{turns}");
        assert!(spilling.await.unwrap() > 20 << 20);
    }));
}

/// starlette 579: a maximum of 0 meant that nothing ever was spilled.
#[test]
fn c05_peer_a_limit_of_nothing_is_refused_and_not_misread() {
    assert!(matches!(SpillBuffer::builder().memory_limit(0).build(), Err(SpillError::Config { .. })));
    let scratch = Scratch::new();
    let (mut writer, _reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, 10 * LIMIT);
    assert!(writer.stats().on_disk >= 9 * LIMIT as u64);
}

/// aspnetcore 41287: a read of zero bytes was taken for the end.
#[test]
fn c12_peer_a_read_of_nothing_is_not_the_end() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(try_read(&mut reader, &mut cx, &mut []), Poll::Ready(Ok(0))));
    write_pattern(&mut writer, 0, 5);
    assert!(matches!(try_read(&mut reader, &mut cx, &mut []), Poll::Ready(Ok(0))));
    read_pattern(&mut reader, 0, 5);
}

/// aspnet `HttpAbstractions` 343: the directory was looked at on every call. A builder's spool: one build's
/// failure removed the directory while its siblings still read from it.
#[test]
fn c10_peer_a_directory_that_is_removed_takes_no_stream_with_it() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("spool");
    fs::create_dir(&dir).unwrap();
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(&dir);
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    write_pattern(&mut writer, 0, MIB);
    fs::remove_dir_all(&dir).unwrap();
    write_pattern(&mut writer, MIB as u64, 8 * MIB);
    writer.finish().unwrap();
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 9 * MIB as u64);
    end.unwrap();
}

/// Passenger 1620, moby PR 17877: memory grew without bound where the disk was slower than the network.
#[test]
fn c04_peer_a_writer_faster_than_the_disk_is_held_and_not_buffered() {
    let scratch = Scratch::new();
    let (mut writer, reader) = scratch.split(LIMIT);
    let mut cx = Context::from_waker(Waker::noop());
    let (mut at, mut pending, rounds) = (0u64, 0, Rounds::new());
    while at < 16 * MIB as u64 {
        rounds.next();
        match try_write(&mut writer, &mut cx, pattern(at, MIB)) {
            Poll::Ready(n) => at += n.unwrap() as u64,
            Poll::Pending => {
                pending += 1;
                thread::yield_now();
            }
        }
        let stats = reader.stats();
        assert!(stats.memory_held <= LIMIT as u64 && stats.in_memory <= LIMIT as u64, "{stats:?}");
    }
    assert!(pending > 0);
}

/// fluent-bit 7402, 8723, 10436: at the disk limit data was dropped, where pausing the producer was wanted.
#[test]
fn c03_peer_at_the_disk_limit_the_producer_is_paused_and_nothing_is_dropped() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.builder(LIMIT).disk_limit(200_000).build().unwrap().into_split();
    let total = 4 * MIB;
    let control = reader.control();
    let producer = thread::spawn(move || {
        write_pattern(&mut writer, 0, total);
        writer.finish().unwrap();
    });
    // The reader comes when the producer has met the limit.
    eventually("the limit is met", || control.stats().disk_held > 160_000);
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, total as u64);
    end.unwrap();
    producer.join().unwrap();
}

/// The chunkio of fluent-bit: the file was mapped, and its cutting short or a full disk was a SIGBUS.
#[test]
fn c08_peer_the_file_is_not_mapped() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, MIB);
    read_pattern(&mut reader, 0, 300_000);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    assert!(!maps.contains(scratch.path().to_str().unwrap()));
    scratch.file().open().set_len(0).unwrap();
    let (at, end) = read_to_end(&mut reader, 300_000);
    assert!(at < MIB as u64);
    end.unwrap_err();
}

/// guava 2575 (CVE-2023-2976): a temp file that others could read, under a name that they could guess.
#[test]
fn c10_peer_nothing_has_a_name_at_any_time() {
    let scratch = Scratch::new();
    // The directory's own times tell of any entry that came and went, even for a moment.
    let before = fs::metadata(scratch.path()).unwrap().modified().unwrap();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, MIB);
    read_pattern(&mut reader, 0, MIB);
    drop((writer, reader));
    assert!(scratch.is_empty());
    assert_eq!(fs::metadata(scratch.path()).unwrap().modified().unwrap(), before);
}

/// tokio-tar 14: a terminator that was written on drop made a failed archive look complete.
#[test]
fn c07_peer_a_producer_that_dies_leaves_no_stream_that_looks_complete() {
    current_thread().block_on(within(async {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(LIMIT);
        let producer = tokio::spawn(async move {
            writer.write_all(&item(0, 5 * LIMIT)).await.unwrap();
            writer.flush().await.unwrap();
            std::future::pending::<()>().await;
        });
        while reader.stats().written < 5 * LIMIT as u64 {
            tokio::task::yield_now().await;
        }
        producer.abort();
        let mut back = Vec::new();
        let error = reader.read_to_end(&mut back).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(back.len(), 5 * LIMIT);
        verify(0, &back);
    }));
}

/// astral-tokio-tar 0.7: a reader that had moved to another task was pending without a waker.
#[test]
fn c09_peer_a_reader_that_moves_between_tasks_is_woken_in_the_last() {
    multi_thread().block_on(within(async {
        let (mut writer, mut reader) = SpillBuffer::new().into_split();
        for at in 0..200u64 {
            // Parked in one task, which then gives it away.
            reader = tokio::spawn(async move {
                assert!(poll_once(pin!(reader.next_chunk())).is_pending());
                reader
            })
            .await
            .unwrap();
            let reading = tokio::spawn(async move {
                let chunk = reader.next_chunk().await.unwrap().unwrap();
                verify(at, &chunk);
                assert_eq!(chunk.len(), 1);
                reader
            });
            tokio::task::yield_now().await;
            writer.write_all(pattern(at, 1)).await.unwrap();
            reader = reading.await.unwrap();
        }
    }));
}

/// A builder's spool: an error reached the caller, but source and buffers were never let go.
#[test]
fn c07_peer_a_failure_releases_everything_while_handles_are_still_held() {
    for by_reader in [true, false] {
        let scratch = Scratch::new();
        let (mut writer, reader) = scratch.split(MIB);
        write_pattern(&mut writer, 0, 16 * MIB);
        if by_reader {
            reader.cancel("the build failed");
        } else {
            writer.abort("the build failed");
        }
        eventually("all of it is released", || {
            let stats = reader.stats();
            (stats.memory_held, stats.disk_held, stats.file_bytes) == (0, 0, 0) && scratch.open_files().is_empty()
        });
        drop((writer, reader));
    }
}

/// The same, with the producer in the middle of a write.
#[test]
fn c07_peer_a_cancelled_build_stops_its_producer_with_the_reason() {
    multi_thread().block_on(within(async {
        let scratch = Scratch::new();
        let (mut writer, reader) = scratch.builder(LIMIT).disk_limit(300_000).build().unwrap().into_split();
        let producer = tokio::spawn(async move {
            loop {
                writer.write_all(&[7; 10_000]).await?;
            }
            #[allow(unreachable_code, reason = "it names the type")]
            Ok::<(), io::Error>(())
        });
        while reader.stats().disk_held < 200_000 {
            tokio::task::yield_now().await;
        }
        reader.cancel(io::Error::new(io::ErrorKind::TimedOut, "the build took too long"));
        let error = producer.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let cause = spill(&error).source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(cause.to_string(), "the build took too long");
    }));
}
