//! The memory ceiling (C4), and no disk unless it is needed (C5).
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]

mod support;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::IoSlice,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::SinkExt;
use spillbuffer::{SpillBuffer, SpillReader, SpillWriter};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::*;

/// Limits that are a whole number of blocks and those that are not.
const LIMITS: [usize; 12] = [
    64 * KIB,
    64 * KIB + 1,
    64 * KIB + 300,
    100_000,
    128 * KIB - 1,
    128 * KIB,
    200_001,
    256 * KIB,
    512 * KIB + 511,
    1_000_000,
    MIB,
    MIB + 777,
];

// ---- C4: the memory ceiling is true ----

#[test]
fn c04_memory_held_is_within_the_limit_after_every_step() {
    for (seed, limit) in LIMITS.into_iter().enumerate() {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        let mut random = Random::new(seed as u64);
        let (mut written, mut read) = (0u64, 0u64);
        let mut kept = VecDeque::new();
        let mut buf = vec![0; 150_000];
        let mut cx = Context::from_waker(Waker::noop());
        for step in 0..400 {
            // First more is written than read, then the other way round.
            let turns = if step < 200 { 3 } else { 1 };
            for _ in 0..turns {
                let n = random.adversarial(150_000);
                if random.below(3) > 0 {
                    if let Poll::Ready(n) = try_write(&mut writer, &mut cx, pattern(written, n)) {
                        written += n.unwrap() as u64;
                    }
                } else if poll_once(pin!(writer.write_bytes(item(written, n)))).is_ready() {
                    written += n as u64;
                }
                identities(&writer.stats(), limit, None);
            }
            for _ in 0..4 - turns {
                match random.below(3) {
                    0 => {
                        if let Poll::Ready(n) = try_read(&mut reader, &mut cx, &mut buf) {
                            verify(read, &buf[..n.unwrap_or(0)]);
                        }
                    }
                    1 => {
                        if let Poll::Ready(Ok(Some(chunk))) = poll_once(pin!(reader.next_chunk())) {
                            verify(read, &chunk);
                            kept.push_back(chunk);
                        }
                    }
                    _ => {
                        let most = random.adversarial(100_000);
                        let _ = try_fill(&mut reader, &mut cx, read, |shown| shown.min(most));
                    }
                }
                read = reader.stats().read;
                identities(&reader.stats(), limit, None);
                if kept.len() > random.below(6) {
                    kept.pop_front();
                    identities(&reader.stats(), limit, None);
                }
            }
        }
        writer.finish().unwrap();
        assert_eq!(read_to_end(&mut reader, read).0, written, "limit {limit}");
        identities(&reader.stats(), limit, None);
    }
}

#[test]
fn c04_every_limit_from_64_kib_up_works_and_the_reader_always_gets_on() {
    let odd = (0..48).map(|i| 64 * KIB + i * 4099);
    for limit in odd.chain(LIMITS) {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        let total = 5 * limit + 4321;
        write_pattern(&mut writer, 0, total);
        // While the writer goes on between the reads, too.
        let (mut at, mut read) = (total as u64, 0u64);
        for _ in 0..6 {
            read_pattern(&mut reader, read, 30_011);
            read += 30_011;
            write_pattern(&mut writer, at, 20_011);
            at += 20_011;
        }
        writer.finish().unwrap();
        let (end, outcome) = read_to_end(&mut reader, read);
        assert_eq!(end, at, "limit {limit}");
        outcome.unwrap();
        // The last write to disk may still be on its way, overtaken by the reader.
        eventually("drained", || reader.stats().memory_held == 0);
        let stats = reader.stats();
        identities(&stats, limit, None);
        assert!(stats.spilled > 0, "limit {limit}: {stats:?}");
    }
}

#[test]
fn c04_a_limit_below_64_kib_is_refused_by_name_and_value() {
    for limit in [0, 1, 4096, 64 * KIB - 1] {
        let error = SpillBuffer::builder().memory_limit(limit).build().unwrap_err();
        assert!(matches!(error, spillbuffer::SpillError::Config { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("memory_limit") && text.contains(&limit.to_string()), "{text}");
    }
    SpillBuffer::builder().memory_limit(64 * KIB).build().unwrap();
}

#[test]
fn c04_an_empty_buffer_holds_no_block() {
    for limit in LIMITS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        assert_eq!(writer.stats().memory_held, 0, "before the first byte");
        let mut at = 0u64;
        for n in [1, 4096, 16_384, 65_536, limit, limit + 1, 3 * limit, 10] {
            write_pattern(&mut writer, at, n);
            assert!(writer.stats().memory_held > 0);
            read_pattern(&mut reader, at, n);
            at += n as u64;
            // The last write to disk may still be on its way, overtaken by the reader.
            eventually("drained", || reader.stats().memory_held == 0);
            let stats = reader.stats();
            assert_eq!((stats.in_memory, stats.on_disk, stats.lent), (0, 0, 0));
        }
        block_on(writer.write_bytes(item(at, 2 * limit))).unwrap();
        read_pattern(&mut reader, at, 2 * limit);
        eventually("drained", || reader.stats().memory_held == 0);
        // A poll that finds nothing takes no block either, nor does one that writes nothing.
        assert!(poll_once(pin!(reader.next_chunk())).is_pending());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(try_write(&mut writer, &mut cx, &[]), Poll::Ready(Ok(0))));
        assert_eq!(reader.stats().memory_held, 0);
    }
}

#[test]
fn c04_collecting_every_chunk_of_a_long_stream_never_hangs() {
    for limit in [64 * KIB, 100_000, 256 * KIB, MIB] {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        let total = 12 * MIB;
        let producer = std::thread::spawn(move || {
            write_pattern(&mut writer, 0, total);
            writer.finish().unwrap();
        });
        let mut chunks: Vec<(u64, Bytes)> = Vec::new();
        let mut at = 0u64;
        while let Some(chunk) = block_on(reader.next_chunk()).unwrap() {
            at += chunk.len() as u64;
            chunks.push((at - chunk.len() as u64, chunk));
            let stats = reader.stats();
            identities(&stats, limit, None);
            // Below half, one more may be lent: a block is 64 KiB at most and a quarter of the limit.
            let most = limit / 2 + (64 * KIB).min(limit / 4);
            assert!(stats.lent <= most as u64, "limit {limit}: {stats:?}");
        }
        assert_eq!(at, total as u64);
        producer.join().unwrap();
        for (at, chunk) in &chunks {
            verify(*at, chunk);
        }
        assert!(reader.stats().lent > 0, "some of it was lent");
        drop(chunks);
        assert_eq!(reader.stats().lent, 0);
        eventually("nothing is held", || reader.stats().memory_held == 0);
    }
}

#[test]
fn c04_a_writer_gets_on_while_all_that_may_be_lent_is_lent() {
    // What is lent shrinks the window; the reader then stalls, with something on disk.
    for limit in LIMITS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        write_pattern(&mut writer, 0, 2 * limit);
        let mut at = 2 * limit as u64;
        let (mut kept, mut read) = (Vec::new(), 0u64);
        for _ in 0..12 {
            let chunk = block_on(reader.next_chunk()).unwrap().unwrap();
            verify(read, &chunk);
            read += chunk.len() as u64;
            kept.push(chunk);
            write_pattern(&mut writer, at, 40_000);
            at += 40_000;
            identities(&reader.stats(), limit, None);
        }
        write_pattern(&mut writer, at, 4 * limit);
        at += 4 * limit as u64;
        read_pattern(&mut reader, read, (at - read) as usize);
    }
}

#[test]
fn c04_a_lent_block_counts_until_its_last_share_is_dropped() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(256 * KIB);
    write_pattern(&mut writer, 0, 200 * KIB);
    let chunk = block_on(reader.next_chunk()).unwrap().unwrap();
    let lent = reader.stats().lent;
    assert!(lent >= chunk.len() as u64, "{lent}");
    let slice = chunk.slice(10..20);
    let clone = chunk.clone();
    drop(chunk);
    assert_eq!(reader.stats().lent, lent);
    drop(clone);
    assert_eq!(reader.stats().lent, lent, "a slice of ten bytes holds its block");
    verify(10, &slice);
    let control = reader.control();
    drop((writer, reader));
    verify(10, &slice);
    assert_eq!((control.stats().lent, control.stats().memory_held), (lent, lent), "it outlives both halves");
    std::thread::spawn(move || drop(slice)).join().unwrap();
    assert_eq!((control.stats().lent, control.stats().memory_held), (0, 0));
}

#[test]
fn c04_blocks_are_lent_up_to_half_of_the_limit_and_copies_beyond() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(1024 * KIB);
    write_pattern(&mut writer, 0, 1024 * KIB);
    let kept: Vec<_> = (0..16).map(|_| block_on(reader.next_chunk()).unwrap().unwrap()).collect();
    assert_eq!(reader.stats().lent, 512 * KIB as u64);
    let mut at = 0;
    for chunk in &kept {
        verify(at, chunk);
        at += chunk.len() as u64;
    }
}

#[test]
fn c04_a_few_bytes_do_not_pin_a_block() {
    let (mut writer, mut reader) = SpillBuffer::builder().memory_limit(64 * KIB).build().unwrap().into_split();
    let mut kept = Vec::new();
    for at in 0..2000u64 {
        write_pattern(&mut writer, at * 100, 100);
        kept.push(block_on(reader.next_chunk()).unwrap().unwrap());
        let stats = reader.stats();
        assert_eq!((stats.lent, stats.memory_held), (0, 0), "{stats:?}");
    }
    for (i, chunk) in kept.iter().enumerate() {
        verify(i as u64 * 100, chunk);
    }
    // The rest of a block of which the most was read otherwise is few bytes too.
    write_pattern(&mut writer, 0, 64 * KIB);
    read_pattern(&mut reader, 0, 16 * KIB - 50);
    let rest = block_on(reader.next_chunk()).unwrap().unwrap();
    verify(16 * KIB as u64 - 50, &rest);
    assert!(reader.stats().lent == 0 || rest.len() >= 4 * KIB, "{} bytes pin a block", rest.len());
}

#[test]
fn c04_the_callers_bytes_are_copied_and_let_go() {
    struct Owner(#[allow(dead_code, reason = "its drop is what counts")] DropFlag, Vec<u8>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.1
        }
    }
    let owned = |len: usize| {
        let freed = Arc::new(AtomicBool::new(false));
        (Bytes::from_owner(Owner(DropFlag(Arc::clone(&freed)), item(0, len).to_vec())), freed)
    };
    let (mut writer, mut reader) =
        SpillBuffer::builder().memory_limit(64 * KIB).disk_limit(0).build().unwrap().into_split();
    // A slice of ten bytes would pin the lot.
    let (large, freed) = owned(MIB);
    block_on(writer.write_bytes(large.slice(..10))).unwrap();
    drop(large);
    assert!(freed.load(Ordering::SeqCst), "an item that fits is let go at once");
    assert_eq!(writer.stats().memory_held, 16 * KIB as u64, "one block is held for it");
    read_pattern(&mut reader, 0, 10);

    let (large, freed) = owned(200 * KIB);
    block_on(writer.write_bytes(large)).unwrap();
    assert!(!freed.load(Ordering::SeqCst), "the one item that is being taken in is the exception");
    assert!(writer.stats().memory_held <= 64 * KIB as u64);
    // It is let go when its last byte has found room, long before it is read.
    read_pattern(&mut reader, 0, 170 * KIB);
    assert!(freed.load(Ordering::SeqCst));
    read_pattern(&mut reader, 170 * KIB as u64, 30 * KIB);
}

#[test]
fn c04_a_view_of_fill_buf_is_counted() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(64 * KIB);
    let (mut at, mut read) = (0u64, 0u64);
    for _ in 0..200 {
        // The writer works while the reader looks into a block.
        let counting = Counting::new();
        let waker = counting.waker();
        let mut cx = Context::from_waker(&waker);
        write_pattern(&mut writer, at, 20_000);
        at += 20_000;
        let taken = block_on(poll_fn(|cx| try_fill(&mut reader, cx, read, |_| 0))).unwrap();
        assert_eq!(taken, 0);
        if let Poll::Ready(n) = try_write(&mut writer, &mut cx, pattern(at, 50_000)) {
            at += n.unwrap() as u64;
        }
        identities(&reader.stats(), 64 * KIB, None);
        let n = block_on(poll_fn(|cx| try_fill(&mut reader, cx, read, |shown| shown.min(15_000)))).unwrap();
        read += n as u64;
        identities(&reader.stats(), 64 * KIB, None);
    }
    read_pattern(&mut reader, read, (at - read) as usize);
}

// ---- C5: no disk unless needed ----

#[derive(Debug, Clone, Copy)]
enum How {
    Pieces(usize),
    Vectored,
    OneItem,
    Items(usize),
    Sink(usize),
}

fn fill(writer: SpillWriter, how: How, total: usize) -> SpillWriter {
    let mut writer = writer;
    let mut at = 0;
    match how {
        How::Pieces(size) => {
            while at < total {
                at += write_some(&mut writer, pattern(at as u64, size.min(total - at))).unwrap();
            }
        }
        How::Vectored => {
            while at < total {
                let n = (total - at).min(100_003);
                let (one, two) = pattern(at as u64, n).split_at(n / 3);
                let parts = [IoSlice::new(one), IoSlice::new(two)];
                at += block_on(poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &parts))).unwrap();
            }
        }
        How::OneItem => block_on(writer.write_bytes(item(0, total))).unwrap(),
        How::Items(size) => {
            while at < total {
                let n = size.min(total - at);
                block_on(writer.write_bytes(item(at as u64, n))).unwrap();
                at += n;
            }
        }
        How::Sink(size) => {
            let mut sink = writer.into_sink();
            while at < total {
                let n = size.min(total - at);
                block_on(sink.send(item(at as u64, n))).unwrap();
                at += n;
            }
            return sink.into_inner();
        }
    }
    writer
}

const HOWS: [How; 9] = [
    How::Pieces(513),
    How::Pieces(4096),
    How::Pieces(64 * KIB),
    How::Pieces(MIB),
    How::Vectored,
    How::OneItem,
    How::Items(1000),
    How::Items(70_001),
    How::Sink(16_385),
];

#[test]
fn c05_a_backlog_of_exactly_the_limit_makes_no_file_and_opens_nothing() {
    for limit in LIMITS {
        for how in HOWS {
            let scratch = Scratch::new();
            let (writer, mut reader) = scratch.split(limit);
            let writer = fill(writer, how, limit);
            let stats = writer.stats();
            assert_eq!((stats.in_memory, stats.on_disk), (limit as u64, 0), "{limit} {how:?}");
            assert_eq!((stats.spilled, stats.disk_held, stats.file_bytes), (0, 0, 0), "{limit} {how:?}: {stats:?}");
            assert!(scratch.open_files().is_empty(), "{limit} {how:?}");
            writer.finish().unwrap();
            let (at, end) = read_to_end(&mut reader, 0);
            assert_eq!(at, limit as u64);
            end.unwrap();
            assert_eq!(reader.stats().spilled, 0, "{limit} {how:?}");
            assert!(scratch.open_files().is_empty());
        }
    }
}

#[test]
fn c05_a_backlog_within_the_limit_needs_no_directory() {
    // Whatever would make a file, sooner or later, would fail here.
    for limit in LIMITS {
        let scratch = Scratch::new();
        let builder = SpillBuffer::builder().memory_limit(limit).temp_dir(scratch.missing());
        let (mut writer, mut reader) = builder.build().unwrap().into_split();
        let mut at = 0u64;
        for _ in 0..5 {
            write_pattern(&mut writer, at, limit);
            assert_eq!(writer.stats().in_memory, limit as u64);
            read_pattern(&mut reader, at, limit);
            at += limit as u64;
        }
        writer.finish().unwrap();
        assert_eq!(read_some(&mut reader, &mut [0; 8]).unwrap(), 0);
    }
}

#[test]
fn c05_a_byte_more_than_the_limit_spills_if_nobody_reads() {
    // So that the tests above are not about a buffer that never spills.
    for limit in LIMITS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        write_pattern(&mut writer, 0, limit + 1);
        let stats = writer.stats();
        assert!(stats.spilled > 0 && stats.file_bytes > 0, "{stats:?}");
        assert_eq!(scratch.open_files().len(), 1);
        read_pattern(&mut reader, 0, limit + 1);
    }
}

#[test]
fn c05_an_unused_buffer_opens_nothing_and_building_does_no_io() {
    let scratch = Scratch::new();
    let buffer = SpillBuffer::builder().temp_dir(scratch.missing()).build().unwrap();
    drop(buffer);
    let many: Vec<_> = (0..1000).map(|_| scratch.builder(64 * KIB).build().unwrap()).collect();
    assert!(scratch.open_files().is_empty());
    drop(many);
}

/// How long a writer is held, all its waits together, before anything goes to disk (a tenth less: two clocks are read).
const PATIENCE: Duration = Duration::from_micros(900);

/// Tries whether the traffic stays off the disk. Grace is given by the clock: a machine that takes a thread away in the middle of
/// its work for a millisecond says nothing about us, and a busy one does so in most tries. But then the writer was held for that
/// long, in each try; and one of them, at least, leaves the disk alone.
fn stays_in_memory(traffic: impl Fn(SpillWriter, SpillReader)) {
    let (mut clean, mut seen) = (0, Vec::new());
    while clean == 0 && seen.len() < 64 || clean + seen.len() < 8 {
        let scratch = Scratch::new();
        let (writer, reader) = scratch.split(MIB);
        let control = reader.control();
        traffic(writer, reader);
        let (stats, files) = (control.stats(), scratch.open_files());
        assert_eq!(stats.written, stats.read);
        // A file may have been made, and the reader have caught up before anything was written to it.
        if stats.spilled == 0 && stats.file_bytes == 0 && files.is_empty() {
            clean += 1;
            continue;
        }
        assert!(stats.writer_waited >= PATIENCE, "to disk without any need: {stats:?}, {files:?}");
        seen.push((stats.spilled, stats.writer_waited));
    }
    assert!(clean > 0, "bytes that went to disk and how long the writer was held, try by try: {seen:?}");
}

async fn produce(mut writer: SpillWriter, total: usize, piece: usize) {
    let mut at = 0;
    while at < total {
        let n = piece.min(total - at);
        writer.write_all(pattern(at as u64, n)).await.unwrap();
        at += n;
    }
    writer.finish().unwrap();
}

async fn consume(mut reader: SpillReader, total: usize, piece: usize) {
    let mut buf = vec![0; piece];
    let mut at = 0u64;
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

/// Bytes in all and a piece: many windows full, so that one that went to disk for no reason is met.
const TRAFFIC: [(usize, usize); 2] = [(64 * MIB, 64 * KIB), (12 * MIB, 512)];

#[test]
fn c05_a_reader_that_keeps_up_in_the_same_task_causes_no_disk_io() {
    for (total, piece) in TRAFFIC {
        stays_in_memory(|writer, reader| {
            current_thread().block_on(within(async {
                tokio::join!(produce(writer, total, piece), consume(reader, total, 64 * KIB));
            }));
        });
    }
}

#[test]
fn c05_a_reader_that_keeps_up_on_the_same_thread_causes_no_disk_io() {
    for (total, piece) in TRAFFIC {
        stays_in_memory(|writer, reader| {
            current_thread().block_on(within(async {
                let producer = tokio::spawn(produce(writer, total, piece));
                consume(reader, total, piece).await;
                producer.await.unwrap();
            }));
        });
    }
}

#[test]
fn c05_a_reader_that_keeps_up_on_another_thread_causes_no_disk_io() {
    for (total, piece) in TRAFFIC {
        stays_in_memory(|writer, reader| {
            multi_thread().block_on(within(async {
                let producer = tokio::spawn(produce(writer, total, piece));
                tokio::spawn(consume(reader, total, 64 * KIB)).await.unwrap();
                producer.await.unwrap();
            }));
        });
    }
}

#[test]
fn c05_a_full_window_holds_the_writer_before_anything_is_written_to_disk() {
    // By hand: fill to the brim, meet `Pending`, read, go on. Nothing of it may reach the disk.
    stays_in_memory(|mut writer, mut reader| {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut at, mut read) = (0u64, 0u64);
        let mut buf = vec![0; MIB];
        for _ in 0..100 {
            while let Poll::Ready(n) = try_write(&mut writer, &mut cx, pattern(at, 64 * KIB)) {
                at += n.unwrap() as u64;
            }
            let stats = reader.stats();
            assert!(stats.peak_disk_held > 0 || at - read == MIB as u64, "it holds the whole window: {stats:?}");
            let n = read_some(&mut reader, &mut buf).unwrap();
            verify(read, &buf[..n]);
            read += n as u64;
        }
        // Should it have spilled after all, the rest is there still.
        read_pattern(&mut reader, read, (at - read) as usize);
    });
}

#[test]
fn c05_after_a_drain_traffic_is_memory_again() {
    let scratch = Scratch::new();
    for limit in [64 * KIB, 100_000, MIB] {
        let (mut writer, mut reader) = scratch.split(limit);
        let mut at = 0u64;
        for _ in 0..4 {
            write_pattern(&mut writer, at, 3 * limit);
            read_pattern(&mut reader, at, 3 * limit);
            at += 3 * limit as u64;
            eventually("nothing is on disk or on its way", || reader.stats().disk_held == 0);
            let spilled = reader.stats().spilled;
            assert!(spilled > 0);
            for _ in 0..5 {
                write_pattern(&mut writer, at, limit);
                assert_eq!(writer.stats().in_memory, limit as u64);
                read_pattern(&mut reader, at, limit);
                at += limit as u64;
            }
            assert_eq!(reader.stats().spilled, spilled, "within the limit again, so off the disk again");
        }
    }
}

#[test]
fn c05_an_item_that_fits_does_not_spill_what_is_there() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(64 * KIB);
    block_on(writer.write_bytes(item(0, 30_000))).unwrap();
    block_on(writer.write_bytes(item(30_000, 64 * KIB - 30_000))).unwrap();
    assert_eq!(writer.stats().spilled, 0);
    read_pattern(&mut reader, 0, 64 * KIB);
    assert!(scratch.open_files().is_empty());
}
