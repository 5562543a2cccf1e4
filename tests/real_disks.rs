//! Disks as they are: small file systems of three kinds, mounted for one test, which run full, fall ill or go away in
//! mid-stream. Needs root and loop mounts, so all but the tests at the end do nothing without `SPILL_REAL_DISKS=1`.
//!
//! What needs no file system of its own is in `contract_disk.rs`: a stand-alone buffer that finds no descriptor or a directory
//! that cannot be used, `/dev/shm`, and what the file looks like; the file-size limit is in `file_size.rs`. Faults that no real
//! disk can be made to show at will are in `src/pool_tests/`.
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]
#![cfg(target_os = "linux")]

#[path = "support/mounted.rs"]
mod mounted;
mod support;

use std::{
    fs,
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, setrlimit};
use spillbuffer::{OnFull, SpillBuffer, SpillError, SpillPool, SpillReader, SpillStats, SpillWriter};

use crate::{
    mounted::{BTRFS, DISKS, EXT4, FileSystem, Mount, XFS, wanted},
    support::*,
};

const LIMIT: usize = 256 * KIB;

/// How long the file may take to follow: 100 ms is promised, and a slow machine is given more.
const FOLLOWS: Duration = Duration::from_secs(2);

/// A buffer that stands alone, or a pool of a few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Alone,
    Pool,
}

const KINDS: [Kind; 2] = [Kind::Alone, Kind::Pool];

/// Streams on one file in a directory.
struct Streams {
    pool: Option<SpillPool>,
    ends: Vec<(SpillWriter, SpillReader)>,
}

impl Streams {
    fn new(kind: Kind, dir: &Path, on_full: OnFull) -> Self {
        let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(dir).on_full(on_full);
        if kind == Kind::Alone {
            return Self { pool: None, ends: vec![builder.build().unwrap().into_split()] };
        }
        let builder = SpillPool::builder().memory_limit(MIB).temp_dir(dir).on_full(on_full);
        let pool = builder.retain(2 << 20).min_free_space(0).build().unwrap();
        let ends = (0..4).map(|_| pool.buffer().into_split()).collect();
        Self { pool: Some(pool), ends }
    }
}

/// Where a stream begins in the one pattern: each has bytes of its own.
fn origin(stream: usize) -> u64 {
    stream as u64 * 300_007
}

/// Reads each stream to its end: all of it, and its writer is let on.
#[track_caller]
fn all_come(mut readers: Vec<SpillReader>, writers: Vec<thread::JoinHandle<()>>, len: usize) {
    for (stream, reader) in readers.iter_mut().enumerate() {
        let (at, end) = read_to_end(reader, origin(stream));
        end.unwrap();
        assert_eq!(at - origin(stream), len as u64);
    }
    for writer in writers {
        writer.join().unwrap();
    }
}

/// Writes a whole stream on a thread of its own.
fn write_all(mut writer: SpillWriter, stream: usize, len: usize) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        write_pattern(&mut writer, origin(stream), len);
        writer.finish().unwrap();
    })
}

/// Everything that was accepted comes out, then an error that is not the end.
#[track_caller]
fn everything_then_an_error(reader: &mut SpillReader, stream: usize, accepted: u64) -> SpillError {
    let (at, end) = read_to_end(reader, origin(stream));
    assert_eq!(at - origin(stream), accepted, "{end:?}");
    spill(&end.expect_err("not a clean end")).clone()
}

/// Runs it for each file system and both kinds of buffer.
fn on_each_disk(test: impl Fn(&FileSystem, Kind)) {
    if !wanted() {
        return;
    }
    for disk in DISKS {
        for kind in KINDS {
            eprintln!("{}, {kind:?}", disk.name);
            test(disk, kind);
        }
    }
}

// ---- a disk that runs full ----

#[test]
fn c08_on_a_full_disk_wait_goes_on_as_the_reader_frees_and_nothing_is_lost() {
    on_each_disk(|disk, kind| {
        let mount = Mount::new(disk);
        let free = mount.free();
        let Streams { pool, ends } = Streams::new(kind, mount.path(), OnFull::Wait);
        // Three times what there is room for.
        let len = 3 * free as usize / ends.len();
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for (stream, (writer, reader)) in ends.into_iter().enumerate() {
            writers.push(write_all(writer, stream, len));
            readers.push(reader);
        }
        stands_still(&readers);
        let backlog: u64 = readers.iter().map(|reader| reader.stats().on_disk).sum();
        assert!(backlog > free / 2, "{backlog} of {free}");
        assert!(mount.free() < 2 << 20, "{} left", mount.free());
        assert!(writers.iter().all(|writer| !writer.is_finished()), "more was taken than there is room for");

        let mut random = Random::new(8);
        let mut at = vec![0; readers.len()];
        while let Some(stream) = (0..at.len()).filter(|&stream| at[stream] < len).min_by_key(|_| random.next()) {
            let n = random.adversarial(len - at[stream]);
            read_pattern(&mut readers[stream], origin(stream) + at[stream] as u64, n);
            at[stream] += n;
        }
        for (writer, reader) in writers.into_iter().zip(&mut readers) {
            writer.join().unwrap();
            assert_eq!(read_some(reader, &mut [0; 10]).unwrap(), 0);
        }
        drop((readers, pool));
        eventually("the disk is as empty as it was", || mount.free() + (1 << 20) > free);
    });
}

/// Waits until no writer has got on for longer than a full disk takes to be tried again.
fn stands_still(readers: &[SpillReader]) {
    let figures = || readers.iter().map(|reader| (reader.stats().written, reader.stats().on_disk)).collect::<Vec<_>>();
    let (mut last, mut since) = (figures(), Instant::now());
    eventually("the disk is full", || {
        if figures() != last {
            (last, since) = (figures(), Instant::now());
        }
        since.elapsed() > Duration::from_millis(1500)
    });
}

#[test]
fn c08_what_others_give_back_of_a_full_disk_lets_the_writer_on_without_a_read() {
    on_each_disk(|disk, kind| {
        let (mount, others) = Mount::shared(disk, 6 << 20);
        let Streams { ends, .. } = Streams::new(kind, mount.path(), OnFull::Wait);
        // More than there is room for beside the others, less than there is without.
        let len = 10 * MIB / ends.len();
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for (stream, (writer, reader)) in ends.into_iter().enumerate() {
            writers.push(write_all(writer, stream, len));
            readers.push(reader);
        }
        stands_still(&readers);
        assert!(writers.iter().any(|writer| !writer.is_finished()), "there was room for all");
        fs::remove_file(&others).unwrap();
        eventually("the writers get on", || writers.iter().all(thread::JoinHandle::is_finished));
        for (stream, reader) in readers.iter_mut().enumerate() {
            let (at, end) = read_to_end(reader, origin(stream));
            end.unwrap();
            assert_eq!(at - origin(stream), len as u64);
        }
    });
}

#[test]
fn c08_on_a_full_disk_fail_says_so_and_nothing_is_lost() {
    const ENOSPC: i32 = 28;
    on_each_disk(|disk, kind| {
        let mount = Mount::new(disk);
        let Streams { pool, mut ends } = Streams::new(kind, mount.path(), OnFull::Fail);
        let mut accepted = Vec::new();
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            let (at, error) = fill_up_until_told(writer, origin(stream));
            assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error:?}");
            let told = spill(&error);
            assert!(matches!(told, SpillError::DiskLimit { limit: None, .. }), "{told:?}");
            assert_eq!(told.raw_os_error(), Some(ENOSPC), "{told:?}");
            accepted.push(at - origin(stream));
        }
        assert!(accepted.iter().sum::<u64>() > mount.free_at_first() / 2, "{accepted:?}");
        for (stream, (_, reader)) in ends.iter_mut().enumerate() {
            let told = everything_then_an_error(reader, stream, accepted[stream]);
            assert_eq!(told.kind(), io::ErrorKind::StorageFull);
        }
        drop(ends);
        // The next stream finds room again, as soon as the file system has noted what was given back.
        eventually("there is room again", || {
            let (mut writer, mut reader) = match &pool {
                Some(pool) => pool.buffer().into_split(),
                None => Streams::new(kind, mount.path(), OnFull::Fail).ends.pop().unwrap(),
            };
            let (len, mut done) = (4 * MIB, 0);
            while done < len {
                match write_some(&mut writer, pattern(done as u64, (64 * KIB).min(len - done))) {
                    Ok(n) => done += n,
                    Err(error) => {
                        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error:?}");
                        return false;
                    }
                }
            }
            read_pattern(&mut reader, 0, len);
            writer.stats().spilled > 0
        });
    });
}

#[test]
fn c06_what_the_file_occupies_follows_the_backlog_down() {
    on_each_disk(|disk, kind| {
        let mount = Mount::new(disk);
        let Streams { pool, mut ends } = Streams::new(kind, mount.path(), OnFull::Wait);
        let len = 12 * MIB / ends.len();
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream), len);
        }
        let files = open_files_in(mount.path());
        assert_eq!(files.len(), 1, "{files:?}");
        let on_disk = |ends: &[(SpillWriter, SpillReader)]| ends.iter().map(|(_, r)| r.stats().on_disk).sum::<u64>();
        // What memory has need not be on disk, and a file system's own map of the pieces comes on top.
        eventually("all that is to be on disk is there", || {
            let whole = on_disk(&ends);
            whole > 10 << 20 && files[0].allocated() >= whole
        });
        let mut slowest = Duration::ZERO;
        for step in 0..6 {
            let part = len / 6;
            for (stream, (_, reader)) in ends.iter_mut().enumerate() {
                read_pattern(reader, origin(stream) + (step * part) as u64, part);
            }
            // A slot is freed whole, so each stream may hold one that it has begun.
            let most = on_disk(&ends) + (2 << 20) + ends.len() as u64 * (64 << 10) + (256 << 10);
            let start = Instant::now();
            assert!(
                holds_within(FOLLOWS, || files[0].allocated() <= most),
                "{} allocated, where {most} would do: {:?}",
                files[0].allocated(),
                ends[0].1.stats()
            );
            slowest = slowest.max(start.elapsed());
        }
        for (stream, (_, reader)) in ends.iter_mut().enumerate() {
            read_pattern(reader, origin(stream) + (len / 6 * 6) as u64, len % 6);
        }
        eprintln!("  followed within {slowest:?}");
        eventually("nothing is kept", || files[0].allocated() == 0);
        drop(pool);
    });
}

#[test]
fn c10_sigkill_gives_the_disk_back() {
    const NAME: &str = "c10_sigkill_gives_the_disk_back";
    const DIR: &str = "SPILLBUFFER_TEST_DIR";
    if is_child_for(NAME) {
        let dir = std::env::var_os(DIR).unwrap();
        let kind = if std::env::var_os("SPILLBUFFER_TEST_POOL").is_some() { Kind::Pool } else { Kind::Alone };
        let mut streams = Streams::new(kind, Path::new(&dir), OnFull::Wait);
        for (stream, (writer, _)) in streams.ends.iter_mut().enumerate() {
            fill_up(writer, origin(stream));
        }
        println!("child: full");
        // It ends by being killed; should the parent be gone instead, there is no more to read.
        let _ = io::stdin().read_line(&mut String::new());
        return;
    }
    on_each_disk(|disk, kind| {
        let mount = Mount::new(disk);
        let mut command = child(NAME);
        command.env(DIR, mount.path()).stdin(Stdio::piped());
        if kind == Kind::Pool {
            command.env("SPILLBUFFER_TEST_POOL", "1");
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let full = comes_back(move || lines.any(|line| line.unwrap().contains("child: full")));
        assert!(full, "the child ended before its time");
        assert!(mount.free() < 2 << 20, "{} left", mount.free());
        process.kill().unwrap();
        process.wait().unwrap();
        eventually("the disk is free", || mount.free() + (1 << 20) > mount.free_at_first());
        // Nothing has a name but what the file system made itself.
        assert_eq!(mount.names(), mount.names_at_first());
    });
}

// ---- a disk that falls ill or goes away ----

#[test]
fn c08_a_disk_that_turned_read_only_before_the_first_file_loses_nothing() {
    const EROFS: i32 = 30;
    on_each_disk(|disk, kind| {
        let mount = Mount::new(disk);
        let Streams { pool, mut ends } = Streams::new(kind, mount.path(), OnFull::Wait);
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream), 100_000);
        }
        assert_eq!(ends[0].0.stats().spilled, 0);
        mount.remount("ro").unwrap();
        let mut accepted = Vec::new();
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            let (at, error) = fill_up_until_told(writer, origin(stream) + 100_000);
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error:?}");
            assert!(error.to_string().contains(&mount.path().display().to_string()), "{error}");
            accepted.push(at - origin(stream));
        }
        for (stream, (_, reader)) in ends.iter_mut().enumerate() {
            let told = everything_then_an_error(reader, stream, accepted[stream]);
            assert_eq!(told.raw_os_error(), Some(EROFS), "{told:?}");
        }
        // Writable again, it is of use again.
        mount.remount("rw").unwrap();
        let (mut writer, mut reader) = match &pool {
            Some(pool) => pool.buffer().into_split(),
            None => Streams::new(kind, mount.path(), OnFull::Wait).ends.pop().unwrap(),
        };
        drop(ends);
        write_pattern(&mut writer, 0, 4 * MIB);
        read_pattern(&mut reader, 0, 4 * MIB);
    });
}

/// A remount by hand is refused while a file is open to be written, ours too. What turns a disk read-only under an open file
/// is an error of its own, which ext4 can be told to have.
#[test]
fn c08_a_disk_that_turns_read_only_in_mid_stream_fails_the_writer_and_what_is_on_it_can_be_read() {
    if !wanted() {
        return;
    }
    for kind in KINDS {
        let mount = Mount::new(&EXT4);
        let Streams { mut ends, .. } = Streams::new(kind, mount.path(), OnFull::Wait);
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream), 2 * MIB);
        }
        assert!(ends[0].0.stats().on_disk > 0);
        mount.remount("ro").unwrap_err();
        mount.remount("abort").unwrap();
        let mut filled = Vec::new();
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            filled.push(fill_up(writer, origin(stream) + 2 * MIB as u64));
        }
        assert!(filled.iter().any(|(_, error)| error.is_some()), "nobody was told");
        // Those that hold nothing in memory when others have all of it wait for it, as any would; what the others have
        // there is read first, and then they are told.
        let is_waiting = |stream: &usize| filled[*stream].1.is_none();
        let (waiting, told): (Vec<_>, Vec<_>) = (0..ends.len()).partition(is_waiting);
        for stream in told.into_iter().chain(waiting) {
            let (writer, reader) = &mut ends[stream];
            let &(mut at, ref error) = &filled[stream];
            if let Some(error) = error {
                assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error:?}");
            } else {
                let (end, error) = fill_up_until_told(writer, at);
                assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{error:?}");
                at = end;
            }
            let told = everything_then_an_error(reader, stream, at - origin(stream));
            assert_eq!(told.kind(), io::ErrorKind::ReadOnlyFilesystem);
        }
    }
}

/// A disk that has gone answers nothing but EIO, to reads too.
#[test]
fn c08_a_disk_that_is_shut_down_in_mid_stream_is_an_error_at_an_offset_and_never_a_wrong_byte() {
    if !wanted() {
        return;
    }
    for disk in [&EXT4, &XFS] {
        for kind in KINDS {
            let mount = Mount::new(disk);
            let Streams { mut ends, .. } = Streams::new(kind, mount.path(), OnFull::Wait);
            for (stream, (writer, _)) in ends.iter_mut().enumerate() {
                write_pattern(writer, origin(stream), 2 * MIB);
            }
            let before: Vec<SpillStats> = ends.iter().map(|(writer, _)| writer.stats()).collect();
            mount.shut_down();
            let mut hit = 0;
            for (stream, (writer, reader)) in ends.iter_mut().enumerate() {
                if before[stream].on_disk == 0 {
                    continue;
                }
                let (at, end) = read_to_end(reader, origin(stream));
                let error = end.expect_err("a clean end of what cannot be read");
                let told = spill(&error);
                let SpillError::Storage { offset, source, .. } = told else { panic!("{told:?}") };
                assert_eq!(*offset, at - origin(stream), "the offset told is where the good bytes end");
                const EIO: i32 = 5;
                assert_eq!(source.raw_os_error(), Some(EIO), "{told:?}");
                // What memory had comes first: the earliest bytes of a stream that nobody else took memory from.
                assert!(kind == Kind::Pool || at > 0, "{:?}", before[stream]);
                write_some(writer, b"x").unwrap_err();
                hit += 1;
            }
            assert!(hit > 0);
        }
    }
}

#[test]
fn c08_a_disk_that_is_unmounted_lazily_in_mid_stream_changes_nothing() {
    on_each_disk(|disk, kind| {
        let mut mount = Mount::new(disk);
        let Streams { pool, mut ends } = Streams::new(kind, mount.path(), OnFull::Wait);
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream), 2 * MIB);
        }
        assert!(ends[0].0.stats().on_disk > 0);
        mount.unmount_lazily();
        assert!(!mount.is_mounted() && mount.is_in_use(), "there is no way there any more, but the file is open");
        // It runs full as before, and goes on as it did.
        let len = 30 * MIB / ends.len();
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for (stream, (mut writer, reader)) in ends.into_iter().enumerate() {
            writers.push(thread::spawn(move || {
                write_pattern(&mut writer, origin(stream) + 2 * MIB as u64, len - 2 * MIB);
                writer.finish().unwrap();
            }));
            readers.push((stream, reader));
        }
        for (stream, mut reader) in readers {
            let (at, end) = read_to_end(&mut reader, origin(stream));
            end.unwrap();
            assert_eq!(at - origin(stream), len as u64);
        }
        for writer in writers {
            writer.join().unwrap();
        }
        drop(pool);
        eventually("the disk is let go", || !mount.is_in_use());
    });
}

// ---- a disk that is none ----

#[test]
fn c13_memory_mounted_where_the_disk_was_is_refused_by_name() {
    if !wanted() {
        return;
    }
    for file_system in ["tmpfs", "ramfs"] {
        for kind in KINDS {
            let memory = Mount::memory(file_system);
            let Streams { mut ends, .. } = Streams::new(kind, memory.path(), OnFull::Wait);
            let (writer, reader) = &mut ends[0];
            let (at, error) = fill_up_until_told(writer, 0);
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains(file_system) && text.contains(&memory.path().display().to_string()), "{text}");
            let told = everything_then_an_error(reader, 0, at);
            assert!(matches!(told, SpillError::MemoryBackedDir { file_system: told, .. } if told == file_system));
            assert!(open_files_in(memory.path()).is_empty());
        }
    }
}

// ---- quotas ----

/// Fills a directory on a file system with a quota, which says `EDQUOT`.
fn a_quota_is_a_full_disk(kind: Kind, dir: &Path) {
    const EDQUOT: i32 = 122;
    let Streams { mut ends, .. } = Streams::new(kind, dir, OnFull::Fail);
    let (writer, reader) = &mut ends[0];
    let (at, error) = fill_up_until_told(writer, 0);
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded, "{error:?}");
    let told = spill(&error);
    assert!(matches!(told, SpillError::DiskLimit { limit: None, .. }), "{told:?}");
    assert_eq!(told.raw_os_error(), Some(EDQUOT));
    assert!(at > 2 << 20, "{at}");
    assert_eq!(everything_then_an_error(reader, 0, at).kind(), io::ErrorKind::QuotaExceeded);
    drop(ends);

    // Told to wait, it is a pipe.
    let Streams { ends, .. } = Streams::new(kind, dir, OnFull::Wait);
    let (len, mut writers, mut readers) = (12 * MIB, Vec::new(), Vec::new());
    for (stream, (writer, reader)) in ends.into_iter().enumerate() {
        writers.push(write_all(writer, stream, len));
        readers.push(reader);
    }
    stands_still(&readers);
    assert!(readers.iter().all(|reader| reader.stats().written < len as u64));
    all_come(readers, writers, len);
}

#[test]
fn c08_the_quota_of_a_btrfs_subvolume_is_a_full_disk() {
    if !wanted() {
        return;
    }
    for kind in KINDS {
        let mount = Mount::new(&BTRFS);
        mount.btrfs_quota(8 << 20);
        a_quota_is_a_full_disk(kind, mount.path());
    }
}

#[test]
fn c08_a_users_quota_is_a_full_disk() {
    const NAME: &str = "c08_a_users_quota_is_a_full_disk";
    const DIR: &str = "SPILLBUFFER_TEST_DIR";
    /// Root is above quotas, so it is somebody else who meets one.
    const NOBODY: u32 = 65_534;
    if is_child_for(NAME) {
        for kind in KINDS {
            a_quota_is_a_full_disk(kind, Path::new(&std::env::var_os(DIR).unwrap()));
        }
        println!("child: done");
        return;
    }
    if !wanted() {
        return;
    }
    let Some(mount) = Mount::ext4_with_quota(NOBODY, 8 << 20) else {
        eprintln!(
            "not tested: this kernel has no user quotas for ext4 (CONFIG_QFMT_V2); btrfs's are, in the test above"
        );
        return;
    };
    let output = child(NAME).env(DIR, mount.path()).uid(NOBODY).gid(NOBODY).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("child: done"), "{}\n{out}\n{err}", output.status);
}

// ---- what needs no disk of its own ----

/// Of a stand-alone buffer: `c08_no_descriptor_left_fails_the_writer_and_loses_nothing`.
#[test]
fn c08_a_pool_that_finds_no_descriptor_fails_who_needs_one_and_is_of_use_when_there_is_one() {
    const NAME: &str = "c08_a_pool_that_finds_no_descriptor_fails_who_needs_one_and_is_of_use_when_there_is_one";
    const EMFILE: i32 = 24;
    in_child(
        NAME,
        |_| {},
        || {
            let scratch = Scratch::new();
            let Streams { pool, mut ends } = Streams::new(Kind::Pool, scratch.path(), OnFull::Wait);
            setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
            let mut hoard = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                hoard.push(file);
            }
            let (last, others) = ends.split_last_mut().unwrap();
            for (stream, (writer, reader)) in others.iter_mut().enumerate() {
                let (at, error) = fill_up_until_told(writer, origin(stream));
                assert_eq!(spill(&error).raw_os_error(), Some(EMFILE), "{error:?}");
                let told = everything_then_an_error(reader, stream, at - origin(stream));
                assert_eq!(told.raw_os_error(), Some(EMFILE));
            }
            drop(hoard);
            // One that had asked for nothing notices nothing, and neither does a new one.
            write_pattern(&mut last.0, origin(3), 4 * MIB);
            read_pattern(&mut last.1, origin(3), 4 * MIB);
            let (mut writer, mut reader) = pool.unwrap().buffer().into_split();
            write_pattern(&mut writer, 0, 4 * MIB);
            read_pattern(&mut reader, 0, 4 * MIB);
            assert!(writer.stats().spilled > 0);
        },
    );
}

/// Of a stand-alone buffer: `c08_the_file_size_limit_is_a_full_disk_and_no_death`.
#[test]
fn c08_a_pool_at_the_file_size_limit_is_on_a_full_disk() {
    in_child(
        "c08_a_pool_at_the_file_size_limit_is_on_a_full_disk",
        |_| {},
        || {
            let limit = 3_000_000;
            setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: Some(limit) }).unwrap();
            let scratch = Scratch::new();
            let Streams { ends, .. } = Streams::new(Kind::Pool, scratch.path(), OnFull::Wait);
            let (len, mut writers, mut readers) = (3 * MIB, Vec::new(), Vec::new());
            for (stream, (writer, reader)) in ends.into_iter().enumerate() {
                writers.push(write_all(writer, stream, len));
                readers.push(reader);
            }
            stands_still(&readers);
            assert!(readers.iter().map(|reader| reader.stats().on_disk).sum::<u64>() > limit / 2);
            assert!(scratch.file().metadata().len() <= limit);
            all_come(readers, writers, len);
        },
    );
}

#[test]
fn c08_a_directory_that_is_removed_under_the_file_matters_to_the_next_file_alone() {
    for kind in KINDS {
        let scratch = Scratch::new();
        let dir = scratch.path().join("removed");
        fs::create_dir(&dir).unwrap();
        let Streams { pool, mut ends } = Streams::new(kind, &dir, OnFull::Wait);
        let (writer, reader) = &mut ends[0];
        write_pattern(writer, 0, 4 * MIB);
        fs::remove_dir(&dir).expect("nothing in it has a name");
        write_pattern(writer, 4 * MIB as u64, 4 * MIB);
        read_pattern(reader, 0, 8 * MIB);
        // A second after the last of it was read, the file is closed; there is no other to be had.
        eventually("the file is closed", || writer.stats().file_bytes == 0);
        let from = 8 * MIB as u64;
        let (at, error) = fill_up_until_told(writer, from);
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error:?}");
        assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
        let (end, outcome) = read_to_end(reader, from);
        assert_eq!(end, at, "{outcome:?}");
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::NotFound);
        // Where it is there again, the pool's next stream is served.
        fs::create_dir(&dir).unwrap();
        if let Some(pool) = pool {
            let (mut writer, mut reader) = pool.buffer().into_split();
            write_pattern(&mut writer, 0, 4 * MIB);
            read_pattern(&mut reader, 0, 4 * MIB);
            assert!(writer.stats().spilled > 0);
        }
    }
}
