//! How each side ends, and what that means for the other (C7).
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]

mod support;

use std::{
    error::Error,
    fmt, io,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
};

use futures_util::{SinkExt, StreamExt};
use spillbuffer::{Control, OnFull, SpillBuffer, SpillError, SpillReader, SpillWriter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::*;

const LIMIT: usize = 64 * KIB;

/// Backlogs of every kind: none, a few bytes, a full window, one with most of it on disk.
const BACKLOGS: [usize; 5] = [0, 1, 20_000, LIMIT, 8 * LIMIT + 5];

/// A user's own error, with a cause of its own.
#[derive(Debug)]
struct BuildFailed {
    code: i32,
    cause: io::Error,
}

impl fmt::Display for BuildFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "build failed with {}", self.code)
    }
}

impl Error for BuildFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

fn build_failed() -> BuildFailed {
    BuildFailed { code: 7, cause: io::Error::from_raw_os_error(104) }
}

/// Refuses anything but the whole of [`build_failed`], types included.
#[track_caller]
fn is_build_failed(error: &SpillError) {
    let cause = error.source().expect("a source").downcast_ref::<BuildFailed>().expect("its type");
    assert_eq!(cause.code, 7);
    let deeper = cause.source().unwrap().downcast_ref::<io::Error>().expect("the whole chain");
    assert_eq!(deeper.raw_os_error(), Some(104));
}

fn with_backlog(scratch: &Scratch, backlog: usize) -> (SpillWriter, SpillReader) {
    let (mut writer, reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, backlog);
    (writer, reader)
}

/// What each call of the writer says now, told twice: an error repeats.
fn writer_errors(writer: &mut SpillWriter) -> Vec<(&'static str, Option<SpillError>)> {
    let inner = |result: io::Result<()>| result.err().map(|error| spill(&error).clone());
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(("write", inner(write_some(writer, b"x").map(drop))));
        told.push(("flush", inner(block_on(writer.flush()))));
        told.push(("write_bytes", block_on(writer.write_bytes("x".into())).err()));
        told.push(("shutdown", inner(block_on(writer.shutdown()))));
    }
    told
}

/// The same of the reader.
fn reader_errors(reader: &mut SpillReader) -> Vec<(&'static str, SpillError)> {
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(("read", spill(&read_some(reader, &mut [0; 9]).unwrap_err()).clone()));
        told.push(("next_chunk", block_on(reader.next_chunk()).unwrap_err()));
        let shown = block_on(std::future::poll_fn(|cx| try_fill(reader, cx, 0, |n| n)));
        told.push(("fill_buf", spill(&shown.unwrap_err()).clone()));
    }
    told
}

// ---- the table, row by row ----

#[test]
fn c07_finish_gives_every_byte_then_the_end_and_later_writes_are_refused() {
    for backlog in BACKLOGS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = with_backlog(&scratch, backlog);
        block_on(writer.shutdown()).unwrap();
        block_on(writer.shutdown()).unwrap();
        for _ in 0..2 {
            let error = write_some(&mut writer, b"more").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert!(matches!(spill(&error), SpillError::Finished));
            assert!(matches!(block_on(writer.write_bytes("more".into())), Err(SpillError::Finished)));
        }
        block_on(writer.flush()).unwrap();
        writer.finish().unwrap();
        let (at, end) = read_to_end(&mut reader, 0);
        assert_eq!(at, backlog as u64);
        end.unwrap();
        assert_eq!(read_some(&mut reader, &mut [0; 9]).unwrap(), 0);
        assert!(block_on(reader.next_chunk()).unwrap().is_none());
    }
}

#[test]
fn c07_finish_does_not_wait_and_is_the_same_as_shutdown_and_close() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = with_backlog(&scratch, 8 * LIMIT);
    assert!(matches!(poll_once(pin!(writer.shutdown())), Poll::Ready(Ok(()))));
    drop(writer);
    assert_eq!(read_to_end(&mut reader, 0).0, 8 * LIMIT as u64);

    let (writer, mut reader) = with_backlog(&scratch, 5);
    let mut sink = writer.into_sink();
    block_on(sink.close()).unwrap();
    assert!(matches!(block_on(sink.send("x".into())), Err(SpillError::Finished)));
    drop(sink);
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 5);
    end.unwrap();

    let (writer, mut reader) = with_backlog(&scratch, 6);
    writer.into_blocking().finish().unwrap();
    read_to_end(&mut reader, 0).1.unwrap();
}

#[test]
fn c07_fail_gives_every_accepted_byte_then_the_cause() {
    for backlog in BACKLOGS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = with_backlog(&scratch, backlog);
        writer.fail(build_failed());
        for (call, error) in writer_errors(&mut writer) {
            let error = error.unwrap_or_else(|| panic!("{call} said Ok after a failure"));
            assert!(matches!(error, SpillError::WriterFailed { .. }), "{call}: {error:?}");
            is_build_failed(&error);
        }
        is_build_failed(&writer.finish().expect_err("not a clean end"));
        let (at, end) = read_to_end(&mut reader, 0);
        assert_eq!(at, backlog as u64);
        is_build_failed(spill(&end.unwrap_err()));
        for (call, error) in reader_errors(&mut reader) {
            assert!(matches!(error, SpillError::WriterFailed { .. }), "{call}: {error:?}");
            is_build_failed(&error);
        }
    }
}

#[test]
fn c07_abort_frees_the_backlog_now_and_the_next_read_is_the_cause() {
    for backlog in BACKLOGS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = with_backlog(&scratch, backlog);
        if backlog > 100 {
            read_pattern(&mut reader, 0, 100);
        }
        writer.abort(build_failed());
        eventually("the backlog is freed", || {
            let stats = reader.stats();
            (stats.memory_held, stats.disk_held, stats.in_memory, stats.on_disk) == (0, 0, 0, 0)
        });
        for (call, error) in reader_errors(&mut reader) {
            assert!(matches!(error, SpillError::WriterFailed { .. }), "{call}: {error:?}");
            is_build_failed(&error);
        }
        for (call, error) in writer_errors(&mut writer) {
            is_build_failed(&error.unwrap_or_else(|| panic!("{call} said Ok after an abort")));
        }
        is_build_failed(&writer.finish().unwrap_err());
        eventually("the file is closed", || scratch.open_files().is_empty());
    }
}

#[test]
fn c07_dropped_writer_is_not_an_end() {
    for backlog in BACKLOGS {
        for how in 0..3 {
            let scratch = Scratch::new();
            let (writer, mut reader) = with_backlog(&scratch, backlog);
            match how {
                0 => drop(writer),
                1 => drop(writer.into_sink()),
                _ => drop(writer.into_blocking()),
            }
            let (at, end) = read_to_end(&mut reader, 0);
            assert_eq!(at, backlog as u64);
            let error = end.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert!(matches!(spill(&error), SpillError::WriterDropped));
            for (call, error) in reader_errors(&mut reader) {
                assert!(matches!(error, SpillError::WriterDropped), "{call}: {error:?}");
            }
        }
    }
}

#[test]
fn c07_a_flush_or_a_panic_before_the_drop_is_no_end_either() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let task = thread::spawn(move || {
        write_pattern(&mut writer, 0, 10);
        block_on(writer.flush()).unwrap();
        // Not through the hook: the message would look like a failure in the output.
        std::panic::resume_unwind(Box::new("the producer died"));
    });
    task.join().unwrap_err();
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 10);
    assert!(matches!(spill(&end.unwrap_err()), SpillError::WriterDropped));
}

#[test]
fn c07_reader_dropped_frees_the_backlog_and_fails_the_writer() {
    for backlog in BACKLOGS {
        for how in 0..3 {
            let scratch = Scratch::new();
            let (mut writer, reader) = with_backlog(&scratch, backlog);
            assert!(!writer.is_closed());
            match how {
                0 => drop(reader),
                1 => drop(reader.into_stream()),
                _ => drop(reader.into_blocking()),
            }
            assert!(writer.is_closed());
            for (call, error) in writer_errors(&mut writer) {
                let error = error.unwrap_or_else(|| panic!("{call} said Ok to nobody"));
                assert!(matches!(error, SpillError::ReaderDropped), "{call}: {error:?}");
                assert_eq!(io::Error::from(error).kind(), io::ErrorKind::BrokenPipe);
            }
            eventually("the backlog is freed", || {
                let stats = writer.stats();
                (stats.memory_held, stats.disk_held, stats.in_memory, stats.on_disk) == (0, 0, 0, 0)
            });
            eventually("the file is closed", || scratch.open_files().is_empty());
            assert!(matches!(writer.finish(), Err(SpillError::ReaderDropped)), "finish too says it");
        }
    }
}

#[test]
fn c07_cancel_frees_the_backlog_and_gives_the_writer_its_cause() {
    for backlog in BACKLOGS {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = with_backlog(&scratch, backlog);
        reader.cancel(build_failed());
        assert!(writer.is_closed());
        for (call, error) in writer_errors(&mut writer) {
            let error = error.unwrap_or_else(|| panic!("{call} said Ok after a cancel"));
            assert!(matches!(error, SpillError::Cancelled { .. }), "{call}: {error:?}");
            is_build_failed(&error);
        }
        for (call, error) in reader_errors(&mut reader) {
            assert!(matches!(error, SpillError::Cancelled { .. }), "{call}: {error:?}");
        }
        eventually("the backlog is freed", || {
            let stats = writer.stats();
            (stats.memory_held, stats.disk_held) == (0, 0)
        });
        is_build_failed(&writer.finish().unwrap_err());
        // Dropping the reader afterwards changes nothing.
        drop(reader);
        eventually("the file is closed", || scratch.open_files().is_empty());
    }
}

// ---- the first terminal event wins ----

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Finish,
    Fail,
    Abort,
    Cancel,
    ControlFail,
    ControlAbort,
    ControlCancel,
}

const EVENTS: [Event; 7] = [
    Event::Finish,
    Event::Fail,
    Event::Abort,
    Event::Cancel,
    Event::ControlFail,
    Event::ControlAbort,
    Event::ControlCancel,
];

impl Event {
    fn happen(self, writer: &mut SpillWriter, reader: &SpillReader, control: &Control, cause: &'static str) {
        match self {
            Self::Finish => drop(block_on(writer.shutdown())),
            Self::Fail => writer.fail(cause),
            Self::Abort => writer.abort(cause),
            Self::Cancel => reader.cancel(cause),
            Self::ControlFail => control.fail(cause),
            Self::ControlAbort => control.abort(cause),
            Self::ControlCancel => control.cancel(cause),
        }
    }

    fn is_cancel(self) -> bool {
        matches!(self, Self::Cancel | Self::ControlCancel)
    }

    fn keeps_the_backlog(self) -> bool {
        matches!(self, Self::Finish | Self::Fail | Self::ControlFail)
    }
}

fn cause_of(error: &SpillError) -> Option<String> {
    error.source().map(ToString::to_string)
}

#[test]
fn c07_the_first_terminal_event_wins() {
    for first in EVENTS {
        for second in EVENTS {
            let scratch = Scratch::new();
            let backlog = 3 * LIMIT;
            let (mut writer, mut reader) = with_backlog(&scratch, backlog);
            let control = reader.control();
            first.happen(&mut writer, &reader, &control, "first");
            second.happen(&mut writer, &reader, &control, "second");
            drop(writer);
            let (at, end) = read_to_end(&mut reader, 0);
            let what = format!("{first:?} then {second:?}: {at} {end:?}");
            let told = end.as_ref().err().map(|error| spill(error).clone());
            match (first, second) {
                // A reader may still give up what a writer has ended; then nothing more is to be read,
                // and a stream that was cut is no clean end.
                (Event::Finish, _) if second.is_cancel() => {
                    assert_eq!(at, 0, "{what}");
                    assert!(matches!(told, Some(SpillError::Cancelled { .. })), "{what}");
                }
                (Event::Finish, _) => {
                    assert_eq!(at, backlog as u64, "{what}");
                    assert!(told.is_none(), "{what}");
                }
                _ => {
                    let told = told.unwrap_or_else(|| panic!("a clean end: {what}"));
                    assert_eq!(cause_of(&told).as_deref(), Some("first"), "{what}");
                    assert_eq!(matches!(told, SpillError::Cancelled { .. }), first.is_cancel(), "{what}");
                    let keeps = first.keeps_the_backlog() && !second.is_cancel();
                    assert_eq!(at, if keeps { backlog as u64 } else { 0 }, "{what}");
                }
            }
        }
    }
}

#[test]
fn c07_the_writer_too_is_told_of_the_first_event() {
    for first in EVENTS.into_iter().filter(|event| *event != Event::Finish) {
        for second in EVENTS {
            let (mut writer, reader) = SpillBuffer::new().into_split();
            let control = writer.control();
            write_pattern(&mut writer, 0, 100);
            first.happen(&mut writer, &reader, &control, "first");
            second.happen(&mut writer, &reader, &control, "second");
            drop(reader);
            for (call, error) in writer_errors(&mut writer) {
                let error = error.unwrap_or_else(|| panic!("{first:?}, {second:?}: {call} said Ok"));
                assert_eq!(cause_of(&error).as_deref(), Some("first"), "{first:?}, {second:?}: {call}");
            }
        }
    }
}

#[test]
fn c07_an_ignored_error_followed_by_finish_is_no_clean_end() {
    // The writer is refused, looks away, and ends the stream as if nothing had been.
    let scratch = Scratch::new();
    let (mut writer, mut reader) =
        scratch.builder(LIMIT).disk_limit(0).on_full(OnFull::Fail).build().unwrap().into_split();
    write_pattern(&mut writer, 0, LIMIT);
    let error = write_some(&mut writer, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
    for (call, error) in writer_errors(&mut writer) {
        assert!(matches!(error, Some(SpillError::DiskLimit { .. })), "{call}: {error:?}");
    }
    assert!(matches!(writer.finish(), Err(SpillError::DiskLimit { .. })));
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, LIMIT as u64);
    assert!(matches!(spill(&end.unwrap_err()), SpillError::DiskLimit { .. }));
}

// ---- causes ----

#[test]
fn c07_a_cause_keeps_its_type_through_clone_and_io_error_on_both_sides() {
    let (writer, mut reader) = SpillBuffer::new().into_split();
    writer.fail(build_failed());
    let error = read_some(&mut reader, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Other);
    is_build_failed(spill(&error));
    let clone = spill(&error).clone();
    drop(error);
    is_build_failed(&clone);
    let again: io::Error = clone.clone().into();
    is_build_failed(spill(&again));
    // One more wrapping, as a codec in between would do it.
    let wrapped = io::Error::new(io::ErrorKind::InvalidData, again);
    is_build_failed(spill(&wrapped));
    // A reporter that walks the chain finds each cause once.
    let mut texts = vec![clone.to_string()];
    let mut next = clone.source();
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    assert!(texts.len() >= 3 && texts[1] == "build failed with 7", "{texts:?}");
    assert!(!texts[0].contains("build failed"), "told twice: {texts:?}");
}

#[test]
fn c07_an_io_error_keeps_its_kind_and_its_number() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    reader.cancel(io::Error::from_raw_os_error(110));
    let error = write_some(&mut writer, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(spill(&error).raw_os_error(), Some(110));
    let error = block_on(reader.next_chunk()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(110));

    let (writer, mut reader) = SpillBuffer::new().into_split();
    writer.abort(io::Error::new(io::ErrorKind::ConnectionReset, "gone"));
    let error = read_some(&mut reader, &mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(spill(&error).raw_os_error(), None);
}

#[test]
fn c07_an_error_passes_through_a_second_buffer_typed() {
    // Two pipes in a row, as a pipeline has them: the first one's error fails the second.
    let (first, mut between) = SpillBuffer::new().into_split();
    let (second, mut last) = SpillBuffer::new().into_split();
    first.fail(build_failed());
    second.fail(block_on(between.next_chunk()).unwrap_err());
    let error = block_on(last.next_chunk()).unwrap_err();
    let inner = error.source().unwrap().downcast_ref::<SpillError>().expect("the first one's error");
    is_build_failed(inner);
}

#[test]
fn c07_a_boxed_error_and_a_text_do_as_causes() {
    let boxed: Box<dyn Error + Send + Sync> = Box::new(build_failed());
    let (writer, mut reader) = SpillBuffer::new().into_split();
    writer.fail(boxed);
    is_build_failed(&block_on(reader.next_chunk()).unwrap_err());
    let (writer, mut reader) = SpillBuffer::new().into_split();
    writer.control().fail("a text");
    assert_eq!(cause_of(&block_on(reader.next_chunk()).unwrap_err()).as_deref(), Some("a text"));
}

#[test]
fn c07_a_stream_gives_an_error_once_then_none() {
    let (mut writer, reader) = SpillBuffer::new().into_split();
    write_pattern(&mut writer, 0, 10);
    writer.fail("broken");
    let mut stream = reader.into_stream();
    assert_eq!(block_on(stream.next()).unwrap().unwrap().len(), 10);
    assert!(matches!(block_on(stream.next()), Some(Err(SpillError::WriterFailed { .. }))));
    assert!(block_on(stream.next()).is_none());
    assert!(block_on(stream.next()).is_none());
}

// ---- whoever waits is woken ----

type ReaderEnd = (&'static str, fn(SpillReader));

fn reader_ends() -> [ReaderEnd; 3] {
    [
        ("drop", |reader| drop(reader)),
        ("cancel", |reader| {
            reader.cancel("gone");
            std::mem::forget(reader);
        }),
        ("control", |reader| {
            reader.control().cancel("gone");
            std::mem::forget(reader);
        }),
    ]
}

#[test]
fn c07_a_parked_writer_is_woken_by_each_end_of_the_reader_from_another_thread() {
    for disk in [0, 200_000] {
        for (how, end) in reader_ends() {
            let scratch = Scratch::new();
            let (mut writer, reader) = scratch.builder(LIMIT).disk_limit(disk).build().unwrap().into_split();
            let (at, error) = fill_up(&mut writer, 0);
            assert!(error.is_none() && at >= LIMIT as u64);
            let counting = Counting::new();
            let waker = counting.waker();
            let mut before = counting.wakes();
            while let Poll::Ready(n) = try_write(&mut writer, &mut Context::from_waker(&waker), &[0; 1000]) {
                n.unwrap();
                before = counting.wakes();
            }
            let other = thread::spawn(move || end(reader));
            counting.wait_beyond(before);
            other.join().unwrap();
            let error = write_some(&mut writer, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{how}");
        }
    }
}

#[test]
fn c07_a_parked_writer_is_woken_by_its_own_controls_end() {
    for abort in [false, true] {
        let (mut writer, _reader) =
            SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
        let control = writer.control();
        write_pattern(&mut writer, 0, LIMIT);
        let counting = Counting::new();
        let waker = counting.waker();
        assert!(try_write(&mut writer, &mut Context::from_waker(&waker), b"x").is_pending());
        let other = thread::spawn(move || if abort { control.abort("it") } else { control.fail("it") });
        counting.wait_beyond(0);
        other.join().unwrap();
        let error = write_some(&mut writer, b"x").unwrap_err();
        assert!(matches!(spill(&error), SpillError::WriterFailed { .. }), "{error:?}");
    }
}

#[test]
fn c07_a_parked_reader_is_woken_by_each_end_from_another_thread() {
    type End = fn(SpillWriter, Control);
    let ends: [(&str, End); 8] = [
        ("finish", |writer, _| writer.finish().unwrap()),
        ("fail", |writer, _| {
            writer.fail("it");
            std::mem::forget(writer);
        }),
        ("abort", |writer, _| {
            writer.abort("it");
            std::mem::forget(writer);
        }),
        ("drop", |writer, _| drop(writer)),
        ("control fail", |writer, control| {
            control.fail("it");
            std::mem::forget(writer);
        }),
        ("control abort", |writer, control| {
            control.abort("it");
            std::mem::forget(writer);
        }),
        ("control cancel", |writer, control| {
            control.cancel("it");
            std::mem::forget(writer);
        }),
        ("shutdown", |mut writer, _| {
            block_on(writer.shutdown()).unwrap();
            std::mem::forget(writer);
        }),
    ];
    for (how, end) in ends {
        let (mut writer, mut reader) = SpillBuffer::new().into_split();
        let control = reader.control();
        write_pattern(&mut writer, 0, 10);
        read_pattern(&mut reader, 0, 10);
        let counting = Counting::new();
        let waker = counting.waker();
        let mut cx = Context::from_waker(&waker);
        assert!(try_read(&mut reader, &mut cx, &mut [0; 8]).is_pending());
        let other = thread::spawn(move || end(writer, control));
        counting.wait_beyond(0);
        other.join().unwrap();
        let read = try_read(&mut reader, &mut cx, &mut [0; 8]);
        match how {
            "finish" | "shutdown" => assert!(matches!(read, Poll::Ready(Ok(0))), "{how}: {read:?}"),
            _ => assert!(matches!(read, Poll::Ready(Err(_))), "{how}: {read:?}"),
        }
    }
}

#[test]
fn c07_blocking_halves_are_woken_too() {
    let (mut writer, reader) = SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).build().unwrap().into_split();
    write_pattern(&mut writer, 0, LIMIT);
    let control = reader.control();
    let mut blocking = writer.into_blocking();
    let parked = thread::spawn(move || io::Write::write_all(&mut blocking, &[0; 100]).unwrap_err());
    eventually("it waits", || control.stats().in_memory == LIMIT as u64);
    control.cancel("enough");
    let error = comes_back(move || parked.join().unwrap());
    assert!(matches!(spill(&error), SpillError::Cancelled { .. }));

    let (writer, reader) = SpillBuffer::new().into_split();
    let mut blocking = reader.into_blocking();
    let parked = thread::spawn(move || io::Read::read(&mut blocking, &mut [0; 100]).unwrap_err());
    drop(writer);
    let error = comes_back(move || parked.join().unwrap());
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

// ---- closed() ----

#[test]
fn c07_closed_resolves_at_each_end_of_the_reader() {
    for (how, end) in reader_ends() {
        let (writer, reader) = SpillBuffer::new().into_split();
        let mut closed = pin!(writer.closed());
        let mut second = pin!(writer.closed());
        let counting = Counting::new();
        let waker = counting.waker();
        let mut cx = Context::from_waker(&waker);
        for _ in 0..3 {
            assert!(closed.as_mut().poll(&mut cx).is_pending());
            assert!(second.as_mut().poll(&mut cx).is_pending());
        }
        let other = thread::spawn(move || end(reader));
        counting.wait_beyond(1);
        other.join().unwrap();
        assert_eq!(counting.wakes(), 2, "{how}: each of the two once");
        assert!(closed.as_mut().poll(&mut cx).is_ready(), "{how}");
        assert!(second.as_mut().poll(&mut cx).is_ready(), "{how}");
        // And at once for whoever asks later.
        assert!(writer.is_closed());
        block_on(writer.closed());
    }
}

#[test]
fn c07_closed_borrows_nothing_and_a_dropped_one_wakes_nobody() {
    let (mut writer, reader) = SpillBuffer::new().into_split();
    let closed = writer.closed();
    let counting = Counting::new();
    {
        let mut dropped = pin!(writer.closed());
        assert!(dropped.as_mut().poll(&mut Context::from_waker(&counting.waker())).is_pending());
    }
    // It is not the writer's end that it waits for.
    write_pattern(&mut writer, 0, 10);
    let watcher = thread::spawn(move || block_on(closed));
    writer.finish().unwrap();
    drop(reader);
    comes_back(move || watcher.join().unwrap());
    assert_eq!(counting.wakes(), 0);
}

#[test]
fn c07_closed_lets_a_producer_stop_before_it_has_anything_to_write() {
    current_thread().block_on(within(async {
        let (writer, mut reader) = SpillBuffer::new().into_split();
        let producer = tokio::spawn(async move {
            tokio::select! {
                () = writer.closed() => "stopped",
                () = std::future::pending() => "never",
            }
        });
        let mut buf = [0; 8];
        tokio::select! {
            biased;
            _ = reader.read(&mut buf) => panic!("there is nothing to read"),
            () = tokio::task::yield_now() => {}
        }
        drop(reader);
        assert_eq!(producer.await.unwrap(), "stopped");
    }));
}

// ---- OnFull::Fail ----

#[test]
fn c07_a_full_buffer_that_fails_gives_every_accepted_byte_then_the_limit() {
    for disk in [0, 20_480, 100_000, 400_001] {
        let scratch = Scratch::new();
        let builder = scratch.builder(LIMIT).disk_limit(disk).on_full(OnFull::Fail);
        let (mut writer, mut reader) = builder.build().unwrap().into_split();
        let control = reader.control();
        let (at, error) = fill_up(&mut writer, 0);
        let error = error.expect("it waits instead of failing");
        assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
        let SpillError::DiskLimit { limit, memory_limit, offset, .. } = spill(&error) else { panic!("{error:?}") };
        assert_eq!((*limit, *memory_limit, *offset), (Some(disk), LIMIT, at));
        let text = error.to_string();
        assert!(text.contains(&disk.to_string()) && text.contains(&at.to_string()), "{text}");
        assert!(at >= LIMIT as u64, "not before memory is used up: {at}");
        identities(&control.stats(), LIMIT, Some(disk));
        let (read, end) = read_to_end(&mut reader, 0);
        assert_eq!(read, at);
        assert!(matches!(spill(&end.unwrap_err()), SpillError::DiskLimit { .. }));
    }
}

#[test]
fn c07_fail_on_full_does_not_fail_while_a_reader_keeps_up() {
    let builder = SpillBuffer::builder().memory_limit(LIMIT).disk_limit(0).on_full(OnFull::Fail);
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut at, mut buf) = (0u64, vec![0; LIMIT]);
    for _ in 0..500 {
        // It is never asked for more than there is room for, or than reading has made room for.
        let n = try_write(&mut writer, &mut cx, pattern(at, 3 * LIMIT / 4));
        let Poll::Ready(Ok(n)) = n else { panic!("at {at}: {n:?}") };
        let Poll::Ready(Ok(m)) = try_read(&mut reader, &mut cx, &mut buf) else { panic!("at {at}") };
        verify(at, &buf[..m]);
        assert_eq!(n, m);
        at += n as u64;
    }
    writer.finish().unwrap();
}

// ---- handles ----

#[test]
fn c07_handles_are_send_sync_unpin_and_static() {
    fn check<T: Send + Sync + Unpin + 'static>() {}
    check::<SpillBuffer>();
    check::<SpillWriter>();
    check::<SpillReader>();
    check::<Control>();
    check::<spillbuffer::SpillSink>();
    check::<spillbuffer::SpillStream>();
    check::<spillbuffer::BlockingWriter>();
    check::<spillbuffer::BlockingReader>();
    check::<spillbuffer::Closed>();
    check::<SpillError>();
    check::<spillbuffer::Builder>();
    // A future of ours may be spawned.
    fn spawnable<T: Send>(_: &T) {}
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    spawnable(&writer.write_bytes("x".into()));
    spawnable(&reader.next_chunk());
    spawnable(&writer.closed());
    fn unpin<T: Unpin>(_: &T) {}
    unpin(&writer.closed());
}

#[test]
fn c07_a_control_keeps_no_stream_from_ending() {
    let (mut writer, mut reader) = SpillBuffer::new().into_split();
    let (control, second) = (writer.control(), reader.control());
    write_pattern(&mut writer, 0, 10);
    let clone = control.clone();
    drop(writer);
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 10);
    assert!(matches!(spill(&end.unwrap_err()), SpillError::WriterDropped));
    drop(reader);
    for control in [control, second, clone] {
        control.fail("late");
        control.abort("late");
        control.cancel("late");
        assert_eq!((control.stats().written, control.stats().read), (10, 10));
    }
}

/// A write of nothing takes nothing, and says all the same that the stream is over.
#[tokio::test]
async fn c07_a_write_of_nothing_repeats_the_end() {
    let (mut writer, reader) = SpillBuffer::new().into_split();
    assert_eq!(writer.write(&[]).await.unwrap(), 0);
    drop(reader);
    assert_eq!(writer.write(&[]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let (mut writer, _reader) = SpillBuffer::new().into_split();
    writer.shutdown().await.unwrap();
    assert_eq!(writer.write(&[]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
