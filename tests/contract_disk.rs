//! The disk: its ceiling (C6), its faults (C8), privacy (C10), that it is one (C13), integrity (C14).
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]
#![cfg(target_os = "linux")]

mod support;

use std::{
    fs, io,
    io::{BufRead, BufReader},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    task::{Context, Poll, Waker},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use spillbuffer::{OnFull, SpillBuffer, SpillError, SpillReader, SpillWriter};

use crate::support::*;

const LIMIT: usize = 64 * KIB;

// ---- C6: the disk ceiling is true ----

#[test]
fn c06_neither_the_figures_nor_the_file_ever_pass_the_disk_limit() {
    // The last is what two groups of slots take exactly, and enough for pages to be given back in between.
    let cases = [
        (LIMIT, 100_000, 60),
        (LIMIT, MIB as u64 + 1, 60),
        (100_000, 333_333, 60),
        (256 * KIB, 4 << 20, 60),
        (MIB, 1_000_000, 60),
        (MIB, 2 * (4096 + 128 * 65_536), 15),
    ];
    for (seed, (memory, disk, cycles)) in cases.into_iter().enumerate() {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.builder(memory).disk_limit(disk).build().unwrap().into_split();
        let mut random = Random::new(seed as u64);
        let (mut at, mut read) = (0u64, 0u64);
        let (mut cx, mut buf) = (Context::from_waker(Waker::noop()), vec![0; 200_000]);
        let mut highest = 0;
        for _ in 0..cycles {
            // Up to the brim, then a random part of it away, again and again.
            let (full, error) = fill_quickly(&mut writer, at, disk);
            assert!(error.is_none(), "{error:?}");
            at = full;
            let goal = read + random.below((at - read) as usize + 1) as u64;
            let rounds = Rounds::new();
            while read < goal {
                rounds.next();
                let want = random.adversarial((goal - read) as usize).min(buf.len());
                if let Poll::Ready(n) = try_read(&mut reader, &mut cx, &mut buf[..want]) {
                    let n = n.unwrap();
                    verify(read, &buf[..n]);
                    read += n as u64;
                }
                let stats = reader.stats();
                identities(&stats, memory, Some(disk));
                let allocated = scratch.allocated();
                // The file system counts the map of a file's pieces as the file's (ext4: a page for up to 340,
                // once there are more than four). What the limit is about is in `file_bytes`.
                let map = 4096 * (1 + disk / (8 << 20)) * u64::from(disk > 1 << 20);
                assert!(allocated <= disk + map, "st_blocks say {allocated}, the limit {disk}: {stats:?}");
                highest = highest.max(allocated);
            }
        }
        assert!(at > 3 * disk, "much more than the limit has passed through: {at}");
        assert!(highest > disk / 3, "the disk was used: {highest} of {disk}");
    }
}

/// Writes until a write is pending, most of the disk's limit is used, and nothing wakes it for a few milliseconds.
fn fill_quickly(writer: &mut SpillWriter, mut at: u64, disk: u64) -> (u64, Option<io::Error>) {
    let counting = Counting::new();
    let waker = counting.waker();
    loop {
        let before = counting.wakes();
        match try_write(writer, &mut Context::from_waker(&waker), pattern(at, 50_000)) {
            Poll::Ready(Ok(n)) => at += n as u64,
            Poll::Ready(Err(error)) => return (at, Some(error)),
            Poll::Pending if holds_within(Duration::from_millis(5), || counting.wakes() > before) => {}
            Poll::Pending if writer.stats().disk_held < disk / 2 => {
                assert!(
                    holds_within(Duration::from_secs(20), || counting.wakes() > before),
                    "it hangs below its limit"
                );
            }
            Poll::Pending => return (at, None),
        }
    }
}

#[test]
fn c06_a_slot_is_free_as_soon_as_its_bytes_are_consumed_and_is_used_again() {
    // Many times the limit passes through it, though the backlog never is empty.
    let scratch = Scratch::new();
    let disk = 2 << 20;
    let (mut writer, mut reader) = scratch.builder(LIMIT).disk_limit(disk).build().unwrap().into_split();
    write_pattern(&mut writer, 0, MIB);
    let (mut at, mut read) = (MIB as u64, 0u64);
    let mut longest = 0;
    while at < 24 * MIB as u64 {
        read_pattern(&mut reader, read, 200_000);
        read += 200_000;
        write_pattern(&mut writer, at, 200_000);
        at += 200_000;
        longest = longest.max(scratch.file().allocated());
        assert!(reader.stats().disk_held > 0);
    }
    assert!(longest <= disk, "{longest}");
    assert!(reader.stats().spilled > 10 << 20, "{:?}", reader.stats());
}

#[test]
fn c06_the_limit_is_used_to_the_last_slot_that_fits() {
    for disk in [20_480u64, 40_000, 100_000, 524_288, 4 << 20] {
        let scratch = Scratch::new();
        let builder = scratch.builder(LIMIT).disk_limit(disk).on_full(OnFull::Fail);
        let (mut writer, _reader) = builder.build().unwrap().into_split();
        let (at, error) = fill_up(&mut writer, 0);
        assert!(matches!(spill(&error.unwrap()), SpillError::DiskLimit { .. }));
        let stats = writer.stats();
        identities(&stats, LIMIT, Some(disk));
        // A page of trailers and one slot of 16 KiB more would not have fitted.
        assert!(stats.disk_held + 4096 + 16 * KIB as u64 + 64 > disk, "{disk}: {stats:?}");
        assert!(at >= stats.on_disk + LIMIT as u64 - 16 * KIB as u64, "and memory is full: {stats:?}");
    }
}

#[test]
fn c06_disk_limit_zero_means_memory_only() {
    let scratch = Scratch::new();
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(scratch.missing()).disk_limit(0);
    let (mut writer, mut reader) = builder.clone().build().unwrap().into_split();
    let counting = Counting::new();
    let waker = counting.waker();
    let mut cx = Context::from_waker(&waker);
    write_pattern(&mut writer, 0, LIMIT);
    let (mut at, mut read) = (LIMIT as u64, 0u64);
    for _ in 0..100 {
        assert!(try_write(&mut writer, &mut cx, &[0]).is_pending(), "no room, and no disk to go to");
        read_pattern(&mut reader, read, LIMIT);
        read += LIMIT as u64;
        write_pattern(&mut writer, at, LIMIT);
        at += LIMIT as u64;
        let stats = writer.stats();
        assert_eq!((stats.spilled, stats.file_bytes, stats.disk_held), (0, 0, 0));
    }
    let (mut writer, _reader) = builder.on_full(OnFull::Fail).build().unwrap().into_split();
    write_pattern(&mut writer, 0, LIMIT);
    let error = write_some(&mut writer, &[0]).unwrap_err();
    assert!(matches!(spill(&error), SpillError::DiskLimit { limit: Some(0), .. }), "{error:?}");
}

#[test]
fn c06_a_limit_too_small_for_a_slot_is_refused_by_name_and_value() {
    for disk in [1, 512, 4096, 16_384, 20_479] {
        let error = SpillBuffer::builder().disk_limit(disk).build().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, SpillError::Config { .. }), "{error:?}");
        assert!(text.contains("disk_limit") && text.contains(&disk.to_string()), "{text}");
    }
    for disk in [0, 20_480, u64::MAX] {
        SpillBuffer::builder().disk_limit(disk).build().unwrap();
    }
}

/// How long the file may take to follow: 100 ms is promised, and a slow machine is given more.
const FOLLOWS: Duration = Duration::from_secs(2);

#[test]
fn c06_the_file_follows_the_backlog_down() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(MIB);
    let total = 256 * MIB;
    write_pattern(&mut writer, 0, total);
    assert!(scratch.allocated() >= 250 << 20);
    read_pattern(&mut reader, 0, total / 4 * 3);
    assert!(
        holds_within(FOLLOWS, || scratch.allocated() <= 75 << 20),
        "a quarter is left, and {} MiB allocated",
        scratch.allocated() >> 20
    );
    read_pattern(&mut reader, (total / 4 * 3) as u64, total / 4);
    assert!(
        holds_within(FOLLOWS, || scratch.allocated() < 4 << 20),
        "drained, and {} KiB allocated",
        scratch.allocated() >> 10
    );
    eventually("file_bytes follows", || reader.stats().file_bytes < 4 << 20);
    // And what was given back is of use again.
    write_pattern(&mut writer, total as u64, 8 * MIB);
    read_pattern(&mut reader, total as u64, 8 * MIB);
}

#[test]
fn c06_an_old_byte_at_the_front_does_not_hold_the_rest_of_the_file() {
    // One stream stalls near its front while most of it is read: only that is freed which was read.
    // Then the writer goes on and the file must not grow by what passed.
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    let (mut at, mut read) = (0u64, 0u64);
    for _ in 0..40 {
        write_pattern(&mut writer, at, 2 * MIB);
        at += 2 * MIB as u64;
        read_pattern(&mut reader, read, 2 * MIB - 1000);
        read += 2 * MIB as u64 - 1000;
    }
    assert!(holds_within(FOLLOWS, || scratch.allocated() < 8 << 20), "{}", scratch.allocated());
    read_pattern(&mut reader, read, (at - read) as usize);
}

#[test]
fn c06_the_file_goes_when_the_backlog_is_given_up() {
    for end in ["abort", "reader", "both"] {
        let scratch = Scratch::new();
        let (mut writer, reader) = scratch.split(LIMIT);
        write_pattern(&mut writer, 0, 32 * MIB);
        assert!(scratch.allocated() > 30 << 20);
        let keep: Box<dyn std::any::Any> = match end {
            "abort" => {
                writer.abort("enough");
                Box::new((writer, reader))
            }
            "reader" => {
                drop(reader);
                Box::new(writer)
            }
            _ => {
                drop((writer, reader));
                Box::new(())
            }
        };
        eventually("it is freed", || scratch.allocated() == 0);
        drop(keep);
    }
}

// ---- C8: storage faults lose nothing that memory still holds ----

#[test]
fn c08_no_descriptor_left_fails_the_writer_and_loses_nothing() {
    in_child(
        "c08_no_descriptor_left_fails_the_writer_and_loses_nothing",
        |_| {},
        || {
            let scratch = Scratch::new();
            let (mut writer, mut reader) = scratch.split(256 * KIB);
            // Of these, the test itself has some; then there are none left.
            setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
            let mut hoard = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                hoard.push(file);
            }
            let (at, error) = fill_up(&mut writer, 0);
            let error = error.expect("a write must say so");
            const EMFILE: i32 = 24;
            let told = spill(&error);
            assert_eq!(told.raw_os_error(), Some(EMFILE), "{told:?}");
            assert!(matches!(told, SpillError::Storage { .. }));
            assert!(told.to_string().contains(&scratch.path().display().to_string()), "{told}");
            assert!(at >= 256 * KIB as u64);
            // It repeats, and so a finish after it is no clean end.
            assert_eq!(spill(&write_some(&mut writer, b"x").unwrap_err()).raw_os_error(), Some(EMFILE));
            assert_eq!(writer.finish().unwrap_err().raw_os_error(), Some(EMFILE));
            let told = everything_then_an_error(&mut reader, at);
            assert_eq!(told.raw_os_error(), Some(EMFILE), "{told:?}");
            drop(hoard);
        },
    );
}

#[test]
fn c08_a_directory_that_cannot_be_used_fails_the_writer_and_loses_nothing() {
    let scratch = Scratch::new();
    let file = scratch.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    for dir in [scratch.missing(), file.clone(), file.join("below")] {
        for limit in [LIMIT, 100_000, MIB] {
            let builder = SpillBuffer::builder().memory_limit(limit).temp_dir(&dir);
            let (mut writer, mut reader) = builder.build().unwrap().into_split();
            let (at, error) = fill_up(&mut writer, 0);
            let error = error.expect("a write must say so");
            assert!(matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory), "{error:?}");
            let SpillError::Storage { path, source, .. } = spill(&error) else { panic!("{error:?}") };
            assert_eq!(path, &dir);
            assert!(source.raw_os_error().is_some());
            assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
            assert!(at >= limit as u64, "the whole window was accepted before");
            drop(writer);
            assert!(matches!(everything_then_an_error(&mut reader, at), SpillError::Storage { .. }));
        }
    }
}

#[test]
fn c08_after_finish_with_everything_in_memory_a_broken_disk_changes_nothing() {
    let scratch = Scratch::new();
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(scratch.missing());
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    // An item that does not fit wants to spill, which fails; the item is safe all the same.
    block_on(writer.write_bytes(item(0, 5 * LIMIT))).unwrap();
    writer.finish().unwrap();
    assert!(!holds_within(Duration::from_millis(30), || reader.stats().spilled > 0));
    let (at, end) = read_to_end(&mut reader, 0);
    assert_eq!(at, 5 * LIMIT as u64);
    end.unwrap();
}

#[test]
fn c08_a_file_cut_short_is_an_error_at_that_offset_and_the_bytes_before_are_good() {
    for whole in [true, false] {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.plain(LIMIT).build().unwrap().into_split();
        write_pattern(&mut writer, 0, 4 * MIB);
        writer.finish().unwrap();
        let file = scratch.file();
        let stream_at = 2 * MIB as u64;
        let cut = file.find(stream_at).expect("it is on disk");
        file.open().set_len(if whole { 0 } else { cut + 100 }).unwrap();
        let (at, end) = read_to_end(&mut reader, 0);
        let error = end.unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData), "{error:?}");
        assert!(at <= stream_at + 100, "{at}");
        let (SpillError::Storage { offset, .. } | SpillError::Corrupt { offset, .. }) = spill(&error) else {
            panic!("{error:?}")
        };
        assert_eq!(*offset, at, "the offset told is where the good bytes end");
        if !whole {
            assert!(at > stream_at - 16 * KIB as u64 * 4, "what lay before the cut was given: {at}");
        }
        // It repeats.
        let again = read_some(&mut reader, &mut [0; 9]).unwrap_err();
        assert_eq!(again.kind(), error.kind());
    }
}

#[test]
fn c08_a_read_fault_reaches_the_writer_too() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, 4 * MIB);
    scratch.file().open().set_len(0).unwrap();
    read_to_end(&mut reader, 0).1.unwrap_err();
    assert!(writer.is_closed());
    let error = write_some(&mut writer, b"x").unwrap_err();
    assert!(matches!(spill(&error), SpillError::Storage { .. } | SpillError::Corrupt { .. }), "{error:?}");
    writer.finish().unwrap_err();
}

// ---- C10: private ----

#[test]
fn c10_the_file_has_no_name_mode_0600_and_close_on_exec() {
    let scratch = Scratch::new();
    let (mut writer, _reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, MIB);
    assert!(scratch.is_empty(), "nothing is to be seen in the directory");
    let file = scratch.file();
    assert!(file.link.ends_with(" (deleted)"), "{}", file.link);
    let meta = file.metadata();
    assert_eq!(meta.nlink(), 0);
    assert_eq!(meta.mode() & 0o7777, 0o600);
    assert_eq!(meta.mode() & 0o170_000, 0o100_000, "a regular file");
    const O_CLOEXEC: u32 = 0o2_000_000;
    assert_eq!(file.flags() & O_CLOEXEC, O_CLOEXEC);
}

#[test]
fn c10_a_child_process_inherits_nothing() {
    let scratch = Scratch::new();
    let (mut writer, _reader) = scratch.split(LIMIT);
    write_pattern(&mut writer, 0, MIB);
    assert_eq!(scratch.open_files().len(), 1);
    let listing = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout);
    assert!(listing.contains(" -> "), "{listing}");
    assert!(!listing.contains(scratch.path().to_str().unwrap()), "{listing}");
}

#[test]
fn c10_the_umask_and_the_directorys_mode_do_not_widen_it() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("open to all");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(&dir);
    let (mut writer, _reader) = builder.build().unwrap().into_split();
    write_pattern(&mut writer, 0, MIB);
    let files = open_files_in(&dir);
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].metadata().mode() & 0o777, 0o600);
    assert!(fs::read_dir(&dir).unwrap().next().is_none());
}

#[test]
fn c10_sigkill_leaves_nothing_behind() {
    const NAME: &str = "c10_sigkill_leaves_nothing_behind";
    const DIR: &str = "SPILLBUFFER_TEST_DIR";
    let total = 256 * MIB;
    if is_child_for(NAME) {
        let dir = std::env::var_os(DIR).unwrap();
        let (mut writer, _reader) = SpillBuffer::builder().temp_dir(dir).build().unwrap().into_split();
        write_pattern(&mut writer, 0, total);
        println!("child: on disk {}", writer.stats().on_disk);
        // It ends by being killed; should the parent be gone instead, there is no more to read.
        let _ = io::stdin().read_line(&mut String::new());
        return;
    }
    let scratch = Scratch::new();
    let mut process = child(NAME).env(DIR, scratch.path()).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let on_disk = comes_back(move || {
        lines.find_map(|line| {
            let line = line.unwrap();
            let at = line.find("child: on disk ")?;
            line[at + 15..].trim().parse::<u64>().ok()
        })
    });
    assert!(on_disk.expect("the child told") > 250 << 20);
    assert!(scratch.is_empty(), "not even while it runs");
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(scratch.is_empty());
}

#[test]
fn c10_debug_of_a_handle_does_not_tell_its_bytes() {
    let (mut writer, reader) = SpillBuffer::builder().memory_limit(LIMIT).build().unwrap().into_split();
    for _ in 0..3 {
        write_some(&mut writer, b"hunter2 is the password ").unwrap();
    }
    block_on(writer.write_bytes(b"hunter2".repeat(10_000).into())).unwrap();
    for text in [format!("{writer:?}"), format!("{reader:?}"), format!("{:#?}", writer.control())] {
        assert!(!text.contains("hunter2") && !text.contains("104, 117, 110"), "{text:.300}");
        assert!(text.len() < 10_000, "{} bytes of it", text.len());
    }
}

// ---- C13: disk means disk ----

fn is_memory_backed(error: &SpillError, dir: &Path) -> bool {
    matches!(error, SpillError::MemoryBackedDir { path, file_system, .. } if path == dir && *file_system == "tmpfs")
}

#[test]
fn c13_a_memory_backed_directory_is_refused_by_path_and_file_system() {
    let Some(shm) = memory_backed_dir() else { return };
    let below = tempfile::tempdir_in(shm).unwrap();
    // By what it is, not by its name: a link to it elsewhere too.
    let scratch = Scratch::new();
    let link = scratch.path().join("innocent");
    std::os::unix::fs::symlink(below.path(), &link).unwrap();
    for dir in [shm, below.path(), &link] {
        let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(dir);
        let (mut writer, mut reader) = builder.build().unwrap().into_split();
        let (at, error) = fill_up(&mut writer, 0);
        let error = error.expect("spilling to it saves nothing");
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(is_memory_backed(spill(&error), dir), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(&dir.display().to_string()) && text.contains("tmpfs"), "{text}");
        assert!(open_files_in(dir).is_empty());
        assert!(at >= LIMIT as u64);
        assert!(is_memory_backed(&everything_then_an_error(&mut reader, at), dir));
    }
}

#[test]
fn c13_it_is_probed_when_the_first_file_is_made_not_before() {
    let Some(shm) = memory_backed_dir() else { return };
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(shm);
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    for at in 0..10 {
        write_pattern(&mut writer, at * LIMIT as u64, LIMIT);
        read_pattern(&mut reader, at * LIMIT as u64, LIMIT);
    }
    writer.finish().unwrap();
    assert_eq!(read_some(&mut reader, &mut [0; 4]).unwrap(), 0);
}

#[test]
fn c13_a_memory_backed_directory_is_used_where_the_caller_allows_it() {
    let Some(shm) = memory_backed_dir() else { return };
    let dir = tempfile::tempdir_in(shm).unwrap();
    let builder = SpillBuffer::builder().memory_limit(LIMIT).temp_dir(dir.path()).allow_memory_backed_dir(true);
    let (mut writer, mut reader) = builder.build().unwrap().into_split();
    write_pattern(&mut writer, 0, 4 * MIB);
    let files = open_files_in(dir.path());
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].metadata().nlink(), 0);
    read_pattern(&mut reader, 0, 4 * MIB);
}

fn where_it_spills_by_default() {
    let (mut writer, mut reader) = SpillBuffer::builder().memory_limit(LIMIT).build().unwrap().into_split();
    let (at, error) = fill_up_to(&mut writer, 2 * MIB as u64);
    assert!(error.is_none(), "{error:?}");
    let found: Vec<_> = ["/var/tmp", "/dev/shm"].into_iter().flat_map(|dir| open_files_in(Path::new(dir))).collect();
    println!("child: file {}", found.first().map_or("none", |file| &file.link));
    read_pattern(&mut reader, 0, at as usize);
}

fn fill_up_to(writer: &mut SpillWriter, total: u64) -> (u64, Option<io::Error>) {
    let mut at = 0;
    while at < total {
        match write_some(writer, pattern(at, 64 * KIB)) {
            Ok(n) => at += n as u64,
            Err(error) => return (at, Some(error)),
        }
    }
    (at, None)
}

/// Whether the fallback of the system's temp directory is on a disk here.
fn var_tmp_is_on_disk() -> bool {
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "the type differs between architectures")]
    let magic = rustix::fs::statfs("/var/tmp").map_or(0, |stat| stat.f_type as u64);
    magic != 0 && magic != 0x0102_1994 && magic != 0x8584_58f6
}

#[test]
fn c13_without_a_directory_the_first_that_is_on_a_disk_is_taken() {
    const NAME: &str = "c13_without_a_directory_the_first_that_is_on_a_disk_is_taken";
    if is_child_for(NAME) {
        return where_it_spills_by_default();
    }
    if !var_tmp_is_on_disk() {
        return;
    }
    // A temp directory in memory, one that is not there, and one that is as it should be.
    let scratch = Scratch::new();
    let mut cases: Vec<(PathBuf, &str)> = vec![(scratch.missing(), "/var/tmp/")];
    if let Some(shm) = memory_backed_dir() {
        cases.push((shm.to_path_buf(), "/var/tmp/"));
    }
    for (tmpdir, expected) in cases {
        let output = child(NAME).env("TMPDIR", &tmpdir).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&format!("child: file {expected}")), "TMPDIR={}: {text}", tmpdir.display());
    }
}

#[test]
fn c13_without_a_directory_the_systems_own_is_taken_where_it_will_do() {
    const NAME: &str = "c13_without_a_directory_the_systems_own_is_taken_where_it_will_do";
    let scratch = Scratch::new();
    if is_child_for(NAME) {
        let dir = std::env::temp_dir();
        let (mut writer, _reader) = SpillBuffer::builder().memory_limit(LIMIT).build().unwrap().into_split();
        write_pattern(&mut writer, 0, MIB);
        println!("child: {} in it", open_files_in(&dir).len());
        return;
    }
    let output = child(NAME).env("TMPDIR", scratch.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("child: 1 in it"), "{text} {}", String::from_utf8_lossy(&output.stderr));
}

// ---- C14: integrity ----

/// A buffer whose middle is on disk, and its file.
fn spilled(scratch: &Scratch, verified: bool) -> (SpillWriter, SpillReader, OpenFile) {
    let (mut writer, reader) = scratch.plain(LIMIT).verify(verified).build().unwrap().into_split();
    write_pattern(&mut writer, 0, 2 * MIB);
    let file = scratch.file();
    (writer, reader, file)
}

/// Reads what was tampered with from `bad` on: the bytes before may come, none after, and the error says
/// so. `verify` inside sees to it that no wrong byte comes.
fn refused_at(reader: &mut SpillReader, bad: u64) {
    let (at, end) = read_to_end(reader, 0);
    let error = end.expect_err("a clean end of a stream that was tampered with");
    assert!(at <= bad, "{at} bytes were delivered, {bad} is bad");
    assert!(matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof), "{error:?}");
    match spill(&error) {
        SpillError::Corrupt { offset, .. } => {
            assert_eq!(*offset, at, "the offset told is where the good bytes end");
            assert!(error.to_string().contains(&offset.to_string()), "{error}");
        }
        other => assert!(matches!(other, SpillError::Storage { .. }), "{other:?}"),
    }
    // It repeats, and there is no end behind it.
    for _ in 0..2 {
        assert_eq!(read_some(reader, &mut [0; 10]).unwrap_err().kind(), error.kind());
        block_on(reader.next_chunk()).unwrap_err();
    }
}

#[test]
fn c14_a_flipped_bit_is_an_error_at_its_offset_and_not_a_byte_later() {
    // Offsets within a slot and at its edges.
    for in_slot in [0, 1, 63, 4095, 8192, 16_383] {
        let scratch = Scratch::new();
        let (_writer, mut reader, file) = spilled(&scratch, true);
        let slot = MIB as u64;
        let place = file.find(slot).expect("the middle of the backlog is on disk") + in_slot;
        let raw = file.open();
        let mut byte = [0];
        raw.read_exact_at(&mut byte, place).unwrap();
        raw.write_all_at(&[byte[0] ^ 0x10], place).unwrap();
        refused_at(&mut reader, slot + in_slot);
    }
}

#[test]
fn c14_a_page_of_zeros_is_an_error() {
    for page in [0u64, 4096, 12_288] {
        let scratch = Scratch::new();
        let (_writer, mut reader, file) = spilled(&scratch, true);
        let slot = MIB as u64;
        let place = file.find(slot).unwrap() + page;
        file.open().write_all_at(&[0; 4096], place).unwrap();
        refused_at(&mut reader, slot + page);
    }
}

#[test]
fn c14_two_slots_that_have_changed_places_are_an_error_whatever_is_verified() {
    for verified in [true, false] {
        let scratch = Scratch::new();
        let (_writer, mut reader, file) = spilled(&scratch, verified);
        let block = 16 * KIB;
        let (one, two) = (MIB as u64, MIB as u64 + 5 * block as u64);
        let (at_one, at_two) = (file.find(one).unwrap(), file.find(two).unwrap());
        let raw = file.open();
        let (mut first, mut second) = (vec![0; block], vec![0; block]);
        raw.read_exact_at(&mut first, at_one).unwrap();
        raw.read_exact_at(&mut second, at_two).unwrap();
        raw.write_all_at(&second, at_one).unwrap();
        raw.write_all_at(&first, at_two).unwrap();
        if verified {
            refused_at(&mut reader, one);
            continue;
        }
        // Without the checksum a payload that was moved alone cannot be told; a slot that was moved
        // with its trailer can, and so can a trailer that is not its own.
        let trailers = trailers(&raw);
        assert!(trailers.len() > 20, "found {} trailers", trailers.len());
        let (one, two) = (trailers[trailers.len() / 2], trailers[trailers.len() / 2 + 3]);
        let (mut first, mut second) = ([0; TRAILER], [0; TRAILER]);
        raw.read_exact_at(&mut first, one).unwrap();
        raw.read_exact_at(&mut second, two).unwrap();
        raw.write_all_at(&second, one).unwrap();
        raw.write_all_at(&first, two).unwrap();
        let mut buf = vec![0; LIMIT];
        let error = loop {
            match read_some(&mut reader, &mut buf) {
                Ok(0) => panic!("no data, no error"),
                Ok(_) => {}
                Err(error) => break error,
            }
            assert!(reader.stats().read < 2 * MIB as u64, "all of it was taken for good");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

const TRAILER: usize = 32;

/// Where 32 bytes lie in the first page that are no payload: the places of trailers, by their being a
/// table of that stride.
fn trailers(raw: &fs::File) -> Vec<u64> {
    let mut page = [0; 4096];
    raw.read_exact_at(&mut page, 0).unwrap();
    (0..4096u64).step_by(TRAILER).filter(|&at| page[at as usize..][..TRAILER].iter().any(|&b| b != 0)).collect()
}

#[test]
fn c14_every_byte_of_a_trailer_counts() {
    let mut random = Random::new(1);
    for field in 0..TRAILER as u64 {
        for verified in [true, false] {
            // The checksums themselves are not looked at where they are not asked for.
            if !verified && field >= 24 {
                continue;
            }
            let scratch = Scratch::new();
            let (_writer, mut reader, file) = spilled(&scratch, verified);
            let raw = file.open();
            let trailers = trailers(&raw);
            let place = trailers[trailers.len() / 2 + random.below(8)] + field;
            let mut byte = [0];
            raw.read_exact_at(&mut byte, place).unwrap();
            raw.write_all_at(&[byte[0] ^ (1 << random.below(8))], place).unwrap();
            refused_at(&mut reader, 2 * MIB as u64 - 1);
        }
    }
}

#[test]
fn c14_a_slot_of_another_buffer_is_an_error_whatever_is_verified() {
    // Same place in the file, same offset in the stream, same bytes even: another stream's all the same.
    for verified in [true, false] {
        let scratch = Scratch::new();
        let (_writer, mut reader, file) = spilled(&scratch, verified);
        let other = Scratch::new();
        let (_w, _r, foreign) = spilled(&other, verified);
        let (mine, theirs) = (file.open(), foreign.open());
        let len = theirs.metadata().unwrap().len().min(3 << 20);
        let mut bytes = vec![0; len as usize];
        theirs.read_exact_at(&mut bytes, 0).unwrap();
        mine.write_all_at(&bytes, 0).unwrap();
        refused_at(&mut reader, 2 * MIB as u64 - 1);
    }
}

#[test]
fn c14_a_stale_slot_is_an_error_whatever_is_verified() {
    for verified in [true, false] {
        let scratch = Scratch::new();
        let (mut writer, mut reader, file) = spilled(&scratch, verified);
        let raw = file.open();
        let mut stale = vec![0; 3 << 20];
        let n = raw.metadata().unwrap().len().min(3 << 20) as usize;
        raw.read_exact_at(&mut stale[..n], 0).unwrap();
        drop(raw);
        // Drained, then filled anew in the same slots: what was there before comes back, as if the
        // second writing had been lost.
        read_pattern(&mut reader, 0, 2 * MIB);
        write_pattern(&mut writer, 2 * MIB as u64, 2 * MIB);
        let file = scratch.file();
        file.open().write_all_at(&stale[..n], 0).unwrap();
        let mut buf = vec![0; LIMIT];
        let mut at = 2 * MIB as u64;
        let error = loop {
            match read_some(&mut reader, &mut buf) {
                Ok(n) => {
                    verify(at, &buf[..n]);
                    at += n as u64;
                }
                Err(error) => break error,
            }
            assert!(at < 4 * MIB as u64, "all of it was taken for good");
        };
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error:?}");
    }
}

#[test]
fn c14_no_flip_anywhere_in_the_file_ever_gives_a_wrong_byte() {
    let mut random = Random::new(14);
    let mut refused = 0;
    for _ in 0..60 {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(LIMIT);
        write_pattern(&mut writer, 0, 400_000);
        writer.finish().unwrap();
        let raw = scratch.file().open();
        let len = 400_000;
        let place = random.below(len) as u64;
        let mut byte = [0];
        let n = raw.read_at(&mut byte, place).unwrap();
        if n == 1 {
            raw.write_all_at(&[byte[0] ^ (1 << random.below(8))], place).unwrap();
        }
        // It may have hit what nobody reads again; but whatever is delivered is right.
        match read_to_end(&mut reader, 0) {
            (at, Ok(())) => assert_eq!(at, 400_000),
            (_, Err(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                refused += 1;
            }
        }
    }
    assert!(refused > 30, "most flips hit live bytes: {refused} of 60");
}

#[test]
fn c14_verify_false_skips_the_checksum_alone() {
    let scratch = Scratch::new();
    let (mut writer, mut reader, file) = spilled(&scratch, false);
    let slot = MIB as u64;
    let place = file.find(slot).unwrap() + 777;
    let raw = file.open();
    let mut byte = [0];
    raw.read_exact_at(&mut byte, place).unwrap();
    raw.write_all_at(&[!byte[0]], place).unwrap();
    block_on(tokio::io::AsyncWriteExt::shutdown(&mut writer)).unwrap();
    let mut all = Vec::new();
    let mut buf = vec![0; LIMIT];
    loop {
        match read_some(&mut reader, &mut buf).unwrap() {
            0 => break,
            n => all.extend_from_slice(&buf[..n]),
        }
    }
    let mut expected = item(0, 2 * MIB).to_vec();
    expected[MIB + 777] = !expected[MIB + 777];
    assert!(all == expected, "all of it comes, the flipped byte too");

    // But a file that was cut is told.
    let scratch = Scratch::new();
    let (_writer, mut reader, file) = spilled(&scratch, false);
    file.open().set_len(0).unwrap();
    refused_at(&mut reader, MIB as u64);
}
