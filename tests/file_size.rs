//! The file-size limit of the process (`RLIMIT_FSIZE`): a full disk (C8), whenever it is set, lowered or raised. Each test has a process
//! of its own.
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![cfg(target_os = "linux")]

mod support;

use std::{error::Error, io, time::Duration};

use rustix::process::{Resource, Rlimit, setrlimit};
use spillbuffer::{Builder, OnFull, SpillError, SpillPool};

use crate::support::*;

const LIMIT: usize = 64 * KIB;

fn set_limit(bytes: Option<u64>) {
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn c08_the_file_size_limit_is_a_full_disk_and_no_death() {
    in_child(
        "c08_the_file_size_limit_is_a_full_disk_and_no_death",
        |_| {},
        || {
            let limit = 1_000_000;
            set_limit(Some(limit));
            let scratch = Scratch::new();
            let (mut writer, mut reader) = scratch.split(LIMIT);
            // It waits as at a disk limit, and goes on as what it is then, a pipe.
            let (mut at, error) = fill_up(&mut writer, 0);
            assert!(error.is_none(), "{error:?}");
            assert!(at as usize > 900_000, "most of the file that may be was used: {at}");
            let mut read = 0u64;
            for _ in 0..15 {
                assert!(at - read > 800_000, "it does not fill up again: {at}, {read}, {:?}", reader.stats());
                read_pattern(&mut reader, read, 300_000);
                read += 300_000;
                at = fill_up(&mut writer, at).0;
                assert!(scratch.file().metadata().len() <= limit);
            }
            writer.finish().unwrap();
            let (end, outcome) = read_to_end(&mut reader, read);
            assert_eq!(end, at);
            outcome.unwrap();

            // Told to fail, it says what is full, whatever limit it was given.
            for disk in [None, Some(1 << 30)] {
                let builder = scratch.builder(LIMIT).on_full(OnFull::Fail);
                let builder = disk.into_iter().fold(builder, Builder::disk_limit);
                let (mut writer, mut reader) = builder.build().unwrap().into_split();
                let (at, error) = fill_up(&mut writer, 0);
                let error = error.unwrap();
                assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
                assert!(
                    matches!(spill(&error), SpillError::DiskLimit { limit, pool_limit: false, .. } if *limit == disk)
                );
                let why = "no file of this process may be larger than 1000000 bytes (RLIMIT_FSIZE)";
                assert_eq!(spill(&error).source().unwrap().to_string(), why);
                let text = "memory_limit of 65536 bytes is used up and the temp file cannot grow";
                assert!(error.to_string().ends_with(text), "{error}");
                assert!(matches!(everything_then_an_error(&mut reader, at), SpillError::DiskLimit { .. }));
            }
        },
    );
}

/// The limit was asked for when the file was made, and no more: a write beyond a new one was the process's end.
#[test]
fn c08_a_file_size_limit_that_is_lowered_under_the_file_is_a_full_disk_too() {
    in_child(
        "c08_a_file_size_limit_that_is_lowered_under_the_file_is_a_full_disk_too",
        |_| {},
        || {
            let scratch = Scratch::new();
            // While writes are on their way.
            for _ in 0..10 {
                let (mut writer, mut reader) = scratch.split(LIMIT);
                write_pattern(&mut writer, 0, 2 * MIB);
                set_limit(Some(reader.stats().spilled / 2));
                let (at, error) = fill_up_within(Duration::from_millis(20), &mut writer, 2 * MIB as u64);
                assert!(error.is_none(), "{error:?}");
                writer.finish().unwrap();
                let (end, outcome) = read_to_end(&mut reader, 0);
                assert_eq!(end, at);
                outcome.unwrap();
                set_limit(None);
            }

            let pool = SpillPool::builder().temp_dir(scratch.path()).min_free_space(0).build().unwrap();
            let builder = |disk| pool.builder().memory_limit(MIB).disk_limit(disk);
            // At its limit it is quiet: nothing is on its way when the other limit comes.
            let (mut writer, mut reader) = builder(60 << 20).build().unwrap().into_split();
            let (mut at, _) = fill_up(&mut writer, 0);
            // Further than the length that the file was given ahead, at first 64 MiB; then within that; then within what is written.
            for mib in [70, 62, 30] {
                set_limit(Some(mib << 20));
                let (mut other, mut others) = builder(32 << 20).build().unwrap().into_split();
                let (end, error) = fill_up(&mut other, 0);
                assert!(error.is_none(), "{error:?}");
                assert_eq!(others.stats().spilled > 0, mib > 60, "{mib} MiB: {:?}", others.stats());
                assert!(end < 12 << 20, "{mib} MiB: {end}");
                assert!(scratch.file().metadata().len() <= 70 << 20);
                other.finish().unwrap();
                assert_eq!(read_to_end(&mut others, 0).0, end);
            }
            let (mut failing, mut others) = builder(32 << 20).on_full(OnFull::Fail).build().unwrap().into_split();
            let (end, error) = fill_up_until_told(&mut failing, 0);
            assert_eq!(error.kind(), io::ErrorKind::FileTooLarge, "{error:?}");
            assert!(matches!(everything_then_an_error(&mut others, end), SpillError::DiskLimit { .. }));

            // What it frees below the limit is used again.
            read_pattern(&mut reader, 0, 20 * MIB);
            at = fill_up(&mut writer, at).0;
            assert!(at > 75 << 20, "{at}");
            writer.finish().unwrap();
            let (end, outcome) = read_to_end(&mut reader, 20 << 20);
            assert_eq!(end, at);
            outcome.unwrap();
        },
    );
}

/// What was free above it was tried over and over, and a write of which only the end lay above it was refused whole.
#[test]
fn c08_all_that_is_free_below_a_lowered_file_size_limit_is_used() {
    in_child(
        "c08_all_that_is_free_below_a_lowered_file_size_limit_is_used",
        |_| {},
        || {
            let scratch = Scratch::new();
            let pool =
                || SpillPool::builder().temp_dir(scratch.path()).min_free_space(0).retain(2 << 20).build().unwrap();
            let high = pool();
            let split = |memory, disk, on_full| {
                high.builder().memory_limit(memory).disk_limit(disk).on_full(on_full).build().unwrap().into_split()
            };
            let (mut low, mut reader) = split(MIB, 30 << 20, OnFull::Wait);
            let (at, _) = fill_up(&mut low, 0);
            let mut above = split(MIB, 30 << 20, OnFull::Wait);
            fill_up(&mut above.0, 0);
            // What stays warm lies above the limit, and below it there are holes.
            drop(above);
            eventually("it is given back", || high.stats().file_bytes < 33 << 20);
            read_pattern(&mut reader, 0, 25 * MIB);
            eventually("it is given back", || high.stats().file_bytes < 10 << 20);
            set_limit(Some(30 << 20));
            let (mut failing, mut others) = split(MIB, 22 << 20, OnFull::Fail);
            let (end, error) = fill_up_until_told(&mut failing, 0);
            assert!(others.stats().spilled > 21 << 20, "{error}: {:?}", others.stats());
            assert!(error.to_string().ends_with("so is disk_limit of 23068672 bytes"), "{error}");
            assert!(matches!(everything_then_an_error(&mut others, end), SpillError::DiskLimit { .. }));
            low.finish().unwrap();
            assert_eq!(read_to_end(&mut reader, 25 << 20).0, at);

            // As much as of a file that was made under it.
            let (mut writer, mut reader) = split(4 * MIB, 64 << 20, OnFull::Wait);
            set_limit(Some(1_000_000));
            let (mut at, _) = fill_up(&mut writer, 0);
            let spilled = reader.stats().spilled;
            assert!(spilled > 850_000, "{spilled}");
            // One that is raised counts within a second, though nobody reads.
            for raised in [2_000_000, u64::MAX] {
                let spilled = reader.stats().spilled;
                set_limit(Some(raised));
                eventually("it is tried again", || reader.stats().spilled > spilled + 500_000);
            }
            at = fill_up(&mut writer, at).0;
            assert!(at > 64 << 20, "{at}");
            writer.finish().unwrap();
            assert_eq!(read_to_end(&mut reader, 0).0, at);
        },
    );
}

#[test]
fn c08_a_file_size_limit_without_room_for_a_slot_leaves_a_pipe_of_memory() {
    in_child(
        "c08_a_file_size_limit_without_room_for_a_slot_leaves_a_pipe_of_memory",
        |_| {},
        || {
            for limit in [0, 1, 4096, 20_000] {
                set_limit(Some(limit));
                let scratch = Scratch::new();
                let (mut writer, mut reader) = scratch.split(LIMIT);
                let (mut at, error) = fill_up(&mut writer, 0);
                assert!(error.is_none(), "{error:?}");
                assert_eq!(at, LIMIT as u64);
                let mut read = 0u64;
                for _ in 0..30 {
                    read_pattern(&mut reader, read, LIMIT);
                    read += LIMIT as u64;
                    write_pattern(&mut writer, at, LIMIT);
                    at += LIMIT as u64;
                }
                assert_eq!(reader.stats().spilled, 0);
            }
        },
    );
}
