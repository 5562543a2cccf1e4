//! The stream itself: bytes exact (C1), visible at once (C2), a writer that is not held up (C3),
//! futures that may be dropped anywhere (C9).
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]

mod support;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{BufRead, IoSlice, Read, Write},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, StreamExt};
use proptest::prelude::*;
use spillbuffer::{OnFull, SpillBuffer, SpillError, SpillReader, SpillWriter};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::support::*;

const LIMIT: usize = 64 * KIB;

// ---- C1: exact ----

#[derive(Debug, Clone, Copy)]
enum In {
    Write,
    Vectored,
    Bytes,
    Sink,
    Blocking,
}

#[derive(Debug, Clone, Copy)]
enum Out {
    Read,
    FillBuf,
    Chunks,
    Stream,
    Blocking,
    BlockingBuf,
}

const INS: [In; 5] = [In::Write, In::Vectored, In::Bytes, In::Sink, In::Blocking];
const OUTS: [Out; 6] = [Out::Read, Out::FillBuf, Out::Chunks, Out::Stream, Out::Blocking, Out::BlockingBuf];

/// Writes `total` bytes in adversarial pieces and ends the stream.
fn feed(mut writer: SpillWriter, how: In, total: usize, seed: u64) {
    let mut random = Random::new(seed);
    let mut at = 0;
    match how {
        In::Write => {
            while at < total {
                let n = random.adversarial(total - at);
                at += write_some(&mut writer, pattern(at as u64, n)).unwrap();
            }
            writer.finish().unwrap();
        }
        In::Vectored => {
            while at < total {
                let n = random.adversarial(total - at);
                let (one, rest) = pattern(at as u64, n).split_at(random.below(n + 1));
                let (two, three) = rest.split_at(random.below(rest.len() + 1));
                let parts = [one, &[], two, three].map(IoSlice::new);
                at += block_on(poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &parts))).unwrap();
            }
            writer.finish().unwrap();
        }
        In::Bytes => {
            while at < total {
                let n = random.adversarial(total - at);
                block_on(writer.write_bytes(item(at as u64, n))).unwrap();
                at += n;
            }
            writer.finish().unwrap();
        }
        In::Sink => {
            let mut sink = writer.into_sink();
            while at < total {
                let n = random.adversarial(total - at);
                block_on(sink.send(item(at as u64, n))).unwrap();
                at += n;
            }
            block_on(sink.close()).unwrap();
        }
        In::Blocking => {
            let mut writer = writer.into_blocking();
            while at < total {
                let n = random.adversarial(total - at);
                at += writer.write(pattern(at as u64, n)).unwrap();
            }
            writer.flush().unwrap();
            writer.finish().unwrap();
        }
    }
}

/// Reads and checks to the clean end; how much there was.
fn drain(mut reader: SpillReader, how: Out, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut at = 0;
    let mut buf = vec![0; 150_000];
    match how {
        Out::Read => loop {
            let want = random.adversarial(buf.len());
            let n = read_some(&mut reader, &mut buf[..want]).unwrap();
            verify(at as u64, &buf[..n]);
            at += n;
            if n == 0 {
                return at;
            }
        },
        Out::FillBuf => loop {
            let taken = block_on(poll_fn(|cx| {
                try_fill(&mut reader, cx, at as u64, |shown| if shown == 0 { 0 } else { random.adversarial(shown) })
            }));
            match taken.unwrap() {
                0 => return at,
                n => at += n,
            }
        },
        Out::Chunks => {
            while let Some(chunk) = block_on(reader.next_chunk()).unwrap() {
                assert!(!chunk.is_empty());
                verify(at as u64, &chunk);
                at += chunk.len();
            }
            at
        }
        Out::Stream => {
            let mut stream = reader.into_stream();
            while let Some(chunk) = block_on(stream.next()) {
                let chunk = chunk.unwrap();
                verify(at as u64, &chunk);
                at += chunk.len();
            }
            at
        }
        Out::Blocking => comes_back(move || {
            let mut reader = reader.into_blocking();
            loop {
                let want = random.adversarial(buf.len());
                let n = reader.read(&mut buf[..want]).unwrap();
                verify(at as u64, &buf[..n]);
                at += n;
                if n == 0 {
                    return at;
                }
            }
        }),
        Out::BlockingBuf => comes_back(move || {
            let mut reader = reader.into_blocking();
            loop {
                let shown = reader.fill_buf().unwrap();
                if shown.is_empty() {
                    return at;
                }
                let n = random.adversarial(shown.len());
                verify(at as u64, &shown[..n]);
                at += n;
                reader.consume(n);
            }
        }),
    }
}

#[test]
fn c01_every_way_in_comes_out_of_every_way_out_after_a_spill() {
    let total = 9 * LIMIT + 12_345;
    for (i, how_in) in INS.into_iter().enumerate() {
        for (j, how_out) in OUTS.into_iter().enumerate() {
            let scratch = Scratch::new();
            let (writer, reader) = scratch.split(LIMIT);
            let control = writer.control();
            feed(writer, how_in, total, i as u64);
            assert!(control.stats().spilled > 0, "{how_in:?}: it must go through the disk to prove anything");
            assert_eq!(drain(reader, how_out, 100 + j as u64), total, "{how_in:?} to {how_out:?}");
        }
    }
}

#[test]
fn c01_every_way_in_comes_out_of_every_way_out_at_the_same_time() {
    let total = 20 * LIMIT + 1;
    for (i, how_in) in INS.into_iter().enumerate() {
        for (j, how_out) in OUTS.into_iter().enumerate() {
            let scratch = Scratch::new();
            let (writer, reader) = scratch.split(LIMIT);
            let seed = (i * 10 + j) as u64;
            let producer = thread::spawn(move || feed(writer, how_in, total, seed));
            assert_eq!(drain(reader, how_out, seed + 1000), total, "{how_in:?} to {how_out:?}");
            producer.join().unwrap();
        }
    }
}

#[test]
fn c01_the_end_comes_right_behind_the_last_byte_at_every_boundary() {
    for limit in [LIMIT, 100_000, 256 * KIB] {
        for total in [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, limit - 1, limit, limit + 1, 3 * limit] {
            let scratch = Scratch::new();
            let (mut writer, mut reader) = scratch.split(limit);
            write_pattern(&mut writer, 0, total);
            writer.finish().unwrap();
            let (at, end) = read_to_end(&mut reader, 0);
            assert_eq!(at, total as u64, "limit {limit}");
            end.unwrap();
            // The end repeats.
            assert_eq!(read_some(&mut reader, &mut [0; 10]).unwrap(), 0);
            assert!(block_on(reader.next_chunk()).unwrap().is_none());
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Write(usize),
    Vectored(usize, usize),
    Bytes(usize),
    Flush,
    Read(usize),
    Fill(usize),
    Chunk {
        keep: bool,
    },
    DropChunks,
    /// Lets the I/O threads and the grace get on: a write is waited for, reading if it must.
    Settle,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let size = || prop_oneof![0usize..4, 500usize..600, 4000usize..5000, 16_000usize..17_000, 60_000usize..140_000];
    let op = prop_oneof![
        4 => size().prop_map(Op::Write),
        1 => (size(), size()).prop_map(|(a, b)| Op::Vectored(a, b)),
        3 => size().prop_map(Op::Bytes),
        1 => Just(Op::Flush),
        3 => size().prop_map(Op::Read),
        2 => size().prop_map(Op::Fill),
        2 => any::<bool>().prop_map(|keep| Op::Chunk { keep }),
        1 => Just(Op::DropChunks),
        3 => Just(Op::Settle),
    ];
    prop::collection::vec(op, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against the simplest model there is: two offsets. Everything is polled once and never waited
    /// for, so that each future is also dropped where it is pending (C9).
    #[test]
    fn c01_any_order_of_calls_keeps_every_byte_in_its_place(
        ops in ops(),
        limit in prop_oneof![Just(64 * KIB), Just(100_000), Just(200_001)],
        disk in prop_oneof![Just(None), Just(Some(0)), Just(Some(200_000u64)), Just(Some(2u64 << 20))],
    ) {
        let scratch = Scratch::new();
        let mut builder = scratch.builder(limit);
        if let Some(disk) = disk {
            builder = builder.disk_limit(disk);
        }
        let (mut writer, mut reader) = builder.build().unwrap().into_split();
        let (mut written, mut read) = (0u64, 0u64);
        let mut kept: VecDeque<(u64, Bytes)> = VecDeque::new();
        let mut buf = vec![0; 150_000];
        let mut cx = Context::from_waker(Waker::noop());
        for op in ops {
            match op {
                Op::Write(n) => if let Poll::Ready(done) = try_write(&mut writer, &mut cx, pattern(written, n)) {
                    let done = done.unwrap();
                    prop_assert!(done > 0 || n == 0);
                    written += done as u64;
                },
                Op::Vectored(a, b) => {
                    let parts = [IoSlice::new(pattern(written, a)), IoSlice::new(pattern(written + a as u64, b))];
                    if let Poll::Ready(done) = Pin::new(&mut writer).poll_write_vectored(&mut cx, &parts) {
                        written += done.unwrap() as u64;
                    }
                }
                Op::Bytes(n) => if poll_once(pin!(writer.write_bytes(item(written, n)))).is_ready() {
                    written += n as u64;
                },
                Op::Flush => prop_assert!(poll_once(pin!(writer.flush())).is_ready()),
                Op::Read(n) => if let Poll::Ready(n) = try_read(&mut reader, &mut cx, &mut buf[..n]) {
                    let n = n.unwrap();
                    verify(read, &buf[..n]);
                    read += n as u64;
                },
                Op::Fill(n) => if let Poll::Ready(n) = try_fill(&mut reader, &mut cx, read, |_| n) {
                    read += n.unwrap() as u64;
                },
                Op::Chunk { keep } => if let Poll::Ready(chunk) = poll_once(pin!(reader.next_chunk())) {
                    let chunk = chunk.unwrap().unwrap();
                    verify(read, &chunk);
                    if keep {
                        kept.push_back((read, chunk.clone()));
                    }
                    read += chunk.len() as u64;
                },
                Op::DropChunks => {
                    kept.pop_front();
                }
                Op::Settle => {
                    let counting = Counting::new();
                    let waker = counting.waker();
                    let mut cx = Context::from_waker(&waker);
                    loop {
                        let before = counting.wakes();
                        if let Poll::Ready(n) = try_write(&mut writer, &mut cx, pattern(written, 1)) {
                            written += n.unwrap() as u64;
                            break;
                        }
                        if let Poll::Ready(n) = try_read(&mut reader, &mut cx, &mut buf[..5000]) {
                            let n = n.unwrap();
                            verify(read, &buf[..n]);
                            read += n as u64;
                        } else {
                            counting.wait_beyond(before);
                        }
                    }
                }
            }
            let stats = reader.stats();
            prop_assert_eq!((stats.written, stats.read), (written, read));
            identities(&stats, limit, disk);
        }
        // What was lent has not changed under its owner.
        for (at, chunk) in &kept {
            verify(*at, chunk);
        }
        writer.finish().unwrap();
        let (at, end) = read_to_end(&mut reader, read);
        prop_assert_eq!(at, written);
        end.unwrap();
        drop(kept);
        // The last write to disk may still be on its way, overtaken by the reader.
        eventually("nothing is held", || {
            let stats = reader.stats();
            (stats.memory_held, stats.disk_held, stats.lent) == (0, 0, 0)
        });
    }
}

#[test]
fn c01_lent_chunks_keep_their_bytes_while_the_buffer_goes_on() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let (mut at, mut written) = (0u64, 0u64);
    let mut kept = VecDeque::new();
    for _ in 0..300 {
        write_pattern(&mut writer, written, 24 * KIB);
        written += 24 * KIB as u64;
        let chunk = block_on(reader.next_chunk()).unwrap().unwrap();
        verify(at, &chunk);
        at += chunk.len() as u64;
        kept.push_back((at - chunk.len() as u64, chunk));
        if kept.len() > 7 {
            let (at, chunk) = kept.pop_front().unwrap();
            verify(at, &chunk);
        }
    }
    for (at, chunk) in kept {
        verify(at, &chunk);
    }
}

#[test]
fn c01_the_whole_handle_is_a_pipe_too() {
    let scratch = Scratch::new();
    let mut buffer = scratch.builder(LIMIT).build().unwrap();
    let total = 5 * LIMIT + 77;
    current_thread().block_on(within(async {
        buffer.write_all(&item(0, total)).await.unwrap();
        assert_eq!(buffer.stats().written, total as u64);
        buffer.shutdown().await.unwrap();
        let shown = buffer.fill_buf().await.unwrap();
        verify(0, shown);
        buffer.consume(5);
        let mut back = Vec::new();
        assert_eq!(buffer.read_to_end(&mut back).await.unwrap(), total - 5);
        verify(5, &back);
    }));
}

// ---- C2: visible at once ----

#[test]
fn c02_one_byte_is_readable_without_flush_however_it_was_written() {
    let mut buf = [0; 10];
    for how in INS {
        let (mut writer, mut reader) = SpillBuffer::new().into_split();
        let keep: Box<dyn std::any::Any> = match how {
            In::Write | In::Vectored => {
                write_pattern(&mut writer, 0, 1);
                Box::new(writer)
            }
            In::Bytes => {
                block_on(writer.write_bytes(item(0, 1))).unwrap();
                Box::new(writer)
            }
            In::Sink => {
                let mut sink = writer.into_sink();
                block_on(poll_fn(|cx| Pin::new(&mut sink).poll_ready(cx))).unwrap();
                Pin::new(&mut sink).start_send(item(0, 1)).unwrap();
                Box::new(sink)
            }
            In::Blocking => {
                let mut writer = writer.into_blocking();
                writer.write_all(pattern(0, 1)).unwrap();
                Box::new(writer)
            }
        };
        let read = try_read(&mut reader, &mut Context::from_waker(Waker::noop()), &mut buf);
        assert!(matches!(read, Poll::Ready(Ok(1))), "{how:?}: {read:?}");
        verify(0, &buf[..1]);
        drop(keep);
    }
}

#[test]
fn c02_a_parked_reader_is_woken_by_one_byte() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    for at in 0..100 {
        let counting = Counting::new();
        let waker = counting.waker();
        let mut cx = Context::from_waker(&waker);
        let mut buf = [0; 8];
        assert!(try_read(&mut reader, &mut cx, &mut buf).is_pending());
        assert_eq!(counting.wakes(), 0);
        match at % 3 {
            0 => write_pattern(&mut writer, at, 1),
            1 => block_on(writer.write_bytes(item(at, 1))).unwrap(),
            _ => {
                let parts = [IoSlice::new(&[]), IoSlice::new(pattern(at, 1))];
                block_on(poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &parts))).unwrap();
            }
        }
        assert_eq!(counting.wakes(), 1, "at {at}");
        assert!(matches!(try_read(&mut reader, &mut cx, &mut buf), Poll::Ready(Ok(1))));
        verify(at, &buf[..1]);
    }
}

#[test]
fn c02_the_reader_sees_each_piece_when_it_is_written_not_when_a_block_is_full() {
    // As `fill_buf` and `next_chunk` show blocks, they could hide one that is still filling.
    let (mut writer, mut reader) = SpillBuffer::builder().memory_limit(LIMIT).build().unwrap().into_split();
    let mut at = 0u64;
    let mut random = Random::new(5);
    for turn in 0..600 {
        let n = 1 + random.below(3000);
        write_pattern(&mut writer, at, n);
        let mut seen = 0;
        while seen < n {
            seen += if turn % 2 == 0 {
                let chunk = poll_once(pin!(reader.next_chunk()));
                let Poll::Ready(Ok(Some(chunk))) = chunk else { panic!("turn {turn}: {chunk:?}") };
                verify(at + seen as u64, &chunk);
                chunk.len()
            } else {
                let mut cx = Context::from_waker(Waker::noop());
                let Poll::Ready(taken) = try_fill(&mut reader, &mut cx, at + seen as u64, |shown| shown) else {
                    panic!("turn {turn}: pending")
                };
                taken.unwrap()
            };
        }
        assert_eq!(seen, n);
        at += n as u64;
    }
}

#[test]
fn c02_flush_is_ready_at_once_whatever_is_pending() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.builder(LIMIT).disk_limit(256 << 10).build().unwrap().into_split();
    assert!(matches!(poll_once(pin!(writer.flush())), Poll::Ready(Ok(()))), "with nothing written");
    write_pattern(&mut writer, 0, 3 * LIMIT);
    assert!(matches!(poll_once(pin!(writer.flush())), Poll::Ready(Ok(()))), "with bytes on disk");
    let (at, error) = fill_up(&mut writer, 3 * LIMIT as u64);
    assert!(error.is_none());
    assert!(matches!(poll_once(pin!(writer.flush())), Poll::Ready(Ok(()))), "while a write would wait");
    writer.finish().unwrap();
    assert_eq!(read_to_end(&mut reader, 0).0, at);
}

#[test]
fn c02_bytes_written_behind_a_spilled_backlog_need_no_flush_either() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let mut at = 0;
    for _ in 0..40 {
        write_pattern(&mut writer, at, 100_001);
        at += 100_001;
    }
    assert!(writer.stats().on_disk > 0);
    // No finish, no flush: all of it, up to the very last byte.
    read_pattern(&mut reader, 0, at as usize);
    assert!(try_read(&mut reader, &mut Context::from_waker(Waker::noop()), &mut [0; 8]).is_pending());
}

#[test]
fn c02_an_item_that_waits_for_room_can_be_read_meanwhile() {
    let (mut writer, mut reader) =
        SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
    block_on(writer.write_bytes(item(0, 10 * LIMIT))).unwrap();
    assert_eq!(writer.stats().written, 10 * LIMIT as u64);
    read_pattern(&mut reader, 0, 10 * LIMIT);
}

// ---- C3: the writer is decoupled ----

#[test]
fn c03_a_stalled_reader_never_stalls_the_writer() {
    for limit in [LIMIT, 100_000, MIB] {
        let scratch = Scratch::new();
        let (mut writer, reader) = scratch.split(limit);
        let total = 24 * MIB;
        // Each write that waits must be woken though nobody reads.
        write_pattern(&mut writer, 0, total);
        let stats = reader.stats();
        assert_eq!((stats.written, stats.read), (total as u64, 0));
        assert!(stats.on_disk >= (total - limit) as u64, "{stats:?}");
        identities(&stats, limit, None);
    }
}

#[test]
fn c03_a_reader_that_was_polled_and_stalls_does_not_stall_the_writer_either() {
    // The reader is parked, woken by the first byte, and never polled again: that is the scheduler's
    // time at first, and must not be for ever.
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    assert!(try_read(&mut reader, &mut Context::from_waker(Waker::noop()), &mut [0; 8]).is_pending());
    write_pattern(&mut writer, 0, 2 * MIB);
    read_pattern(&mut reader, 0, 2 * MIB);
}

#[test]
fn c03_a_reader_that_trickles_does_not_hold_the_writer() {
    // After each byte the writer may be held anew; were its debt forgotten, it would be held for ever.
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let counting = Counting::new();
    let waker = counting.waker();
    let mut cx = Context::from_waker(&waker);
    let (mut at, mut read) = (0u64, 0u64);
    while at < 4 * MIB as u64 {
        let before = counting.wakes();
        match try_write(&mut writer, &mut cx, pattern(at, 16 * KIB)) {
            Poll::Ready(n) => at += n.unwrap() as u64,
            Poll::Pending => counting.wait_beyond(before),
        }
        read_pattern(&mut reader, read, 1);
        read += 1;
    }
    let stats = writer.stats();
    assert!(stats.on_disk > 3 * MIB as u64, "{stats:?}");
}

#[test]
fn c03_items_and_a_sink_are_not_held_up_either() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let mut at = 0u64;
    for n in [1, 70_000, 16_384, 500_000, 3, 65_536].into_iter().cycle().take(60) {
        block_on(writer.write_bytes(item(at, n))).unwrap();
        at += n as u64;
    }
    let mut sink = writer.into_sink();
    for n in [100_000, 7, 16_385].into_iter().cycle().take(30) {
        block_on(sink.send(item(at, n))).unwrap();
        at += n as u64;
    }
    block_on(sink.close()).unwrap();
    assert_eq!(read_to_end(&mut reader, 0).0, at);
}

#[test]
fn c03_at_the_disk_limit_the_writer_waits_and_reading_lets_it_on() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.builder(LIMIT).disk_limit(400_000).build().unwrap().into_split();
    let (full_at, error) = fill_up(&mut writer, 0);
    assert!(error.is_none(), "{error:?}");
    assert!(full_at as usize > LIMIT, "{full_at}");
    let mut at = full_at;
    let mut read = 0;
    let counting = Counting::new();
    let waker = counting.waker();
    let mut cx = Context::from_waker(&waker);
    let goal = full_at + 30 * LIMIT as u64;
    for _ in 0..500 {
        if at > goal {
            return;
        }
        // To be woken, it must be waiting.
        let mut before = counting.wakes();
        while let Poll::Ready(n) = try_write(&mut writer, &mut cx, pattern(at, 4096)) {
            at += n.unwrap() as u64;
            before = counting.wakes();
        }
        // The writer may have found room for a block only, being woken for the first that came free: there may be less.
        let n = LIMIT.min((at - read) as usize);
        read_pattern(&mut reader, read, n);
        read += n as u64;
        counting.wait_beyond(before);
    }
    panic!("it does not get on: {at} of {goal}");
}

// ---- C9: cancel-safe ----

/// Polls a fresh future up to `times` times, dropping it if it is still pending then.
fn poll_a_few_times<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(out) = poll_once(future.as_mut()) {
            return Some(out);
        }
    }
    None
}

#[test]
fn c09_futures_dropped_at_every_pending_lose_and_repeat_nothing() {
    for times in 1..4 {
        for disk in [None, Some(0), Some(300_000)] {
            let scratch = Scratch::new();
            let mut builder = scratch.builder(LIMIT);
            if let Some(disk) = disk {
                builder = builder.disk_limit(disk);
            }
            let (mut writer, mut reader) = builder.build().unwrap().into_split();
            let mut random = Random::new(times as u64);
            let (mut written, mut read) = (0u64, 0u64);
            let mut buf = vec![0; 40_000];
            let (mut dropped, total, rounds) = (0, 3 * MIB as u64, Rounds::new());
            while read < total {
                rounds.next();
                if written < total {
                    let n = random.adversarial((total - written) as usize);
                    let done = match random.below(3) {
                        0 => poll_a_few_times(writer.write(pattern(written, n)), times).map(Result::unwrap),
                        1 => poll_a_few_times(writer.write_bytes(item(written, n)), times).map(|done| {
                            done.unwrap();
                            n
                        }),
                        _ => poll_a_few_times(writer.flush(), times).map(|done| {
                            done.unwrap();
                            0
                        }),
                    };
                    dropped += usize::from(done.is_none());
                    written += done.unwrap_or(0) as u64;
                    assert_eq!(writer.stats().written, written);
                }
                let n = random.adversarial(buf.len());
                let done = match random.below(3) {
                    0 => poll_a_few_times(reader.read(&mut buf[..n]), times).map(|n| {
                        let n = n.unwrap();
                        verify(read, &buf[..n]);
                        n
                    }),
                    1 => poll_a_few_times(reader.next_chunk(), times).map(|chunk| {
                        let chunk = chunk.unwrap().unwrap();
                        verify(read, &chunk);
                        chunk.len()
                    }),
                    _ => {
                        let shown = poll_a_few_times(reader.fill_buf(), times).map(|shown| {
                            let shown = shown.unwrap();
                            verify(read, shown);
                            shown.len()
                        });
                        shown.map(|shown| {
                            reader.consume(n.min(shown));
                            n.min(shown)
                        })
                    }
                };
                dropped += usize::from(done.is_none());
                read += done.unwrap_or(0) as u64;
                assert_eq!(reader.stats().read, read);
            }
            assert!(dropped > 0);
            writer.finish().unwrap();
            let (at, end) = read_to_end(&mut reader, read);
            assert_eq!(at, total);
            end.unwrap();
        }
    }
}

#[test]
fn c09_write_bytes_dropped_before_it_is_ready_accepted_nothing() {
    let (mut writer, mut reader) =
        SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
    // The first waits inside, so the second cannot be taken.
    block_on(writer.write_bytes(item(0, 3 * LIMIT))).unwrap();
    let freed = Arc::new(AtomicBool::new(false));
    let owner = (DropFlag(Arc::clone(&freed)), vec![0xEE; 10]);
    struct Owner((DropFlag, Vec<u8>));
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0.1
        }
    }
    {
        let mut second = pin!(writer.write_bytes(Bytes::from_owner(Owner(owner))));
        for _ in 0..5 {
            assert!(poll_once(second.as_mut()).is_pending());
        }
    }
    assert!(freed.load(Ordering::SeqCst), "nothing of it is kept");
    assert_eq!(writer.stats().written, 3 * LIMIT as u64);
    read_pattern(&mut reader, 0, 3 * LIMIT);
    // Not a byte of it comes out, and what comes next is what is written next.
    write_pattern(&mut writer, 3 * LIMIT as u64, 100);
    writer.finish().unwrap();
    let (at, end) = read_to_end(&mut reader, 3 * LIMIT as u64);
    assert_eq!(at, 3 * LIMIT as u64 + 100);
    end.unwrap();
}

#[test]
fn c09_an_item_that_was_accepted_survives_the_writers_end() {
    let total = 20 * LIMIT;
    for end in ["drop", "finish", "fail"] {
        for disk in [0, 100_000] {
            let scratch = Scratch::new();
            let (mut writer, mut reader) = scratch.builder(LIMIT).disk_limit(disk).build().unwrap().into_split();
            block_on(writer.write_bytes(item(0, total))).unwrap();
            match end {
                "drop" => drop(writer),
                "finish" => writer.finish().unwrap(),
                _ => writer.fail("enough"),
            }
            let (at, outcome) = read_to_end(&mut reader, 0);
            assert_eq!(at, total as u64, "{end}");
            assert_eq!(outcome.is_ok(), end == "finish", "{outcome:?}");
        }
    }
}

#[test]
fn c09_an_item_is_accepted_whole_or_not_at_all() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) =
        scratch.builder(LIMIT).disk_limit(200_000).on_full(OnFull::Fail).build().unwrap().into_split();
    let mut at = 0u64;
    let error = loop {
        match block_on(writer.write_bytes(item(at, 50_001))) {
            Ok(()) => at += 50_001,
            Err(error) => break error,
        }
        assert!(at < 10 * MIB as u64, "the limit is never met");
        assert_eq!(writer.stats().written, at);
    };
    assert!(matches!(error, SpillError::DiskLimit { .. }), "{error:?}");
    assert_eq!(writer.stats().written, at, "nothing of the refused item was accepted");
    let (read, end) = read_to_end(&mut reader, 0);
    assert_eq!(read, at);
    end.unwrap_err();
}

#[test]
fn c09_the_waker_of_the_last_poll_is_the_one_that_is_woken() {
    // A future is dropped while parked, and another takes its place.
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let (first, second) = (Counting::new(), Counting::new());
    assert!(pin!(reader.next_chunk()).poll(&mut Context::from_waker(&first.waker())).is_pending());
    let waker = second.waker();
    let mut cx = Context::from_waker(&waker);
    assert!(try_read(&mut reader, &mut cx, &mut [0; 4]).is_pending());
    write_pattern(&mut writer, 0, 1);
    assert_eq!(second.wakes(), 1);

    let (mut writer, reader) = SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
    write_pattern(&mut writer, 0, LIMIT);
    assert!(pin!(writer.write_bytes(item(0, 1))).poll(&mut Context::from_waker(&first.waker())).is_ready());
    assert!(pin!(writer.write_bytes(item(0, 1))).poll(&mut Context::from_waker(&first.waker())).is_pending());
    let third = Counting::new();
    let waker = third.waker();
    assert!(try_write(&mut writer, &mut Context::from_waker(&waker), &[1]).is_pending());
    drop(reader);
    assert_eq!(third.wakes(), 1);
}

#[test]
fn c09_select_between_reading_and_other_work_loses_nothing() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let total = 4 * MIB;
    current_thread().block_on(within(async move {
        let producer = tokio::spawn(async move {
            let mut at = 0;
            while at < total {
                let n = (total - at).min(30_000);
                tokio::select! {
                    biased;
                    done = writer.write_bytes(item(at as u64, n)) => {
                        done.unwrap();
                        at += n;
                    }
                    () = tokio::task::yield_now() => {}
                }
            }
            writer.finish().unwrap();
        });
        let mut at = 0u64;
        loop {
            tokio::select! {
                biased;
                chunk = reader.next_chunk() => match chunk.unwrap() {
                    Some(chunk) => {
                        verify(at, &chunk);
                        at += chunk.len() as u64;
                    }
                    None => break,
                },
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(at, total as u64);
        producer.await.unwrap();
    }));
}
