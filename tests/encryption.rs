//! Encryption at rest, over the public surface: what is in the file, and what becomes of a file that was changed.
#![cfg(feature = "encryption")]

mod support;

use std::{collections::HashMap, io, os::unix::fs::FileExt};

use spillbuffer::{SpillBuffer, SpillError, SpillPool, SpillReader, SpillWriter};
use support::*;

/// Eleven bytes that are nowhere by chance.
const SECRET: &[u8] = b"s3cr3t-T0kn";

fn secrets(len: usize) -> Vec<u8> {
    SECRET.iter().copied().cycle().take(len).collect()
}

fn pool(scratch: &Scratch, encrypt: bool) -> SpillPool {
    let pool = SpillPool::builder().temp_dir(scratch.path()).memory_limit(2 * MIB).retain(16 << 20);
    let pool = if encrypt { pool } else { pool.encrypt(false) };
    pool.build().unwrap()
}

/// In how many sectors of the temp file a secret is found: at their beginnings, which it cannot miss where a sector is full of
/// them.
fn found(scratch: &Scratch) -> usize {
    let file = scratch.file().open();
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    let shows = |sector: &&[u8]| sector[..2 * SECRET.len()].windows(SECRET.len()).any(|window| window == SECRET);
    content.chunks_exact(512).filter(shows).count()
}

fn write(writer: &mut SpillWriter, bytes: &[u8]) {
    for piece in bytes.chunks(64 * KIB) {
        assert_eq!(write_some(writer, piece).unwrap(), piece.len());
    }
}

/// Some streams write and are read, some have gone, some stand still: none of what they wrote lies in the file.
#[test]
fn c10_a_search_of_the_file_under_load_finds_no_plaintext() {
    for encrypt in [true, false] {
        let scratch = Scratch::new();
        let pool = pool(&scratch, encrypt);
        let mut seen = 0;
        let mut streams: Vec<_> = (0..4).map(|_| pool.buffer().into_split()).collect();
        for round in 0..6 {
            for (at, (writer, reader)) in streams.iter_mut().enumerate() {
                write(writer, &secrets(MIB));
                let mut buf = vec![0; 64 * KIB];
                for _ in 0..at * 4 {
                    let n = read_some(reader, &mut buf).unwrap();
                    // What comes out is what went in.
                    assert!(buf[..n.min(50)].windows(SECRET.len()).any(|window| window == SECRET) || n < 20);
                }
            }
            if round == 3 {
                streams[0] = pool.buffer().into_split();
            }
            seen += found(&scratch);
        }
        assert!(pool.stats().spilled > 4 * MIB as u64);
        assert_eq!(seen == 0, encrypt, "found {seen} times");
    }
}

/// The same bytes again, in the same place of the file or another: nothing in the file repeats.
#[test]
fn c10_the_same_bytes_never_look_the_same() {
    let scratch = Scratch::new();
    let pool = pool(&scratch, true);
    let mut lines: HashMap<[u8; 32], (usize, usize)> = HashMap::new();
    for round in 0..3 {
        let (mut writer, _reader) = pool.buffer().into_split();
        write(&mut writer, &vec![0; 4 * MIB]);
        eventually("it is on disk", || pool.stats().disk_held > 2 * MIB as u64);
        let file = scratch.file().open();
        let mut content = vec![0; file.metadata().unwrap().len().min(8 << 20) as usize];
        file.read_exact_at(&mut content, 0).unwrap();
        for (at, line) in content.chunks_exact(32).enumerate() {
            let line: [u8; 32] = line.try_into().unwrap();
            if line != [0; 32] {
                let before = lines.insert(line, (round, at));
                // What was left of an earlier round lies where it lay.
                assert!(before.is_none_or(|(_, place)| place == at), "{before:?} and {at}");
            }
        }
        drop(writer);
    }
    assert!(lines.len() > 3 * (2 * MIB / 32));
}

/// In how many places of this process's memory that can be written to there is a secret.
fn in_memory() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let mut count = 0;
    for line in maps.lines().filter(|line| line.contains(" rw-p ")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        let mut at = from;
        let mut page = [0; 4096];
        while at < to && memory.read_exact_at(&mut page, at).is_ok() {
            let shows =
                |sector: &&[u8]| sector[..2 * SECRET.len()].windows(SECRET.len()).any(|window| window == SECRET);
            count += page.chunks_exact(512).filter(shows).count();
            at += page.len() as u64;
        }
        page.fill(0);
    }
    count
}

/// What went through a buffer was in its blocks, and they go to a shelf for whoever wants one next.
#[test]
fn c10_freed_blocks_are_wiped() {
    /// What is in one block, as the lent one; a debug build leaves less of its registers on the stacks of its threads.
    const MANY: usize = 64 * KIB / 512;
    in_child(
        "c10_freed_blocks_are_wiped",
        |_| (),
        || {
            let scratch = Scratch::new();
            for encrypt in [true, false] {
                let (mut writer, mut reader) = scratch.builder(MIB).encrypt(encrypt).build().unwrap().into_split();
                let mut bytes = secrets(64 * KIB);
                for _ in 0..64 {
                    assert_eq!(write_some(&mut writer, &bytes).unwrap(), bytes.len());
                }
                bytes.fill(0);
                let lent = block_on(reader.next_chunk()).unwrap().unwrap();
                assert!(reader.stats().on_disk > 0 && reader.stats().lent > 0);
                for _ in 0..20 {
                    read_some(&mut reader, &mut bytes).unwrap();
                }
                bytes.fill(0);
                assert!(in_memory() >= MANY, "the test cannot see what is there");
                drop((writer, reader, lent));
                eventually("the file is closed", || scratch.open_files().is_empty());
                if encrypt {
                    // The file may be closed while what an I/O thread had in hand is still being wiped.
                    eventually("all is wiped", || in_memory() == 0);
                } else {
                    assert!(in_memory() >= MANY, "what is not encrypted was wiped, which takes its user's time");
                }
            }
        },
    );
}

/// A buffer with a backlog on disk, and where in the file its blocks lie: by what is there, since what it looks like is not known.
fn spilled(buffer: SpillBuffer, len: usize) -> (SpillWriter, SpillReader) {
    let (mut writer, reader) = buffer.into_split();
    write_pattern(&mut writer, 0, len);
    eventually("it is on disk", || reader.stats().on_disk + (MIB as u64) >= len as u64);
    (writer, reader)
}

/// Reads up to the error, which must be told as such and where every byte before it was right.
fn corrupt_at(reader: &mut SpillReader) -> Option<u64> {
    let (end, result) = read_to_end(reader, 0);
    match result {
        Ok(()) => None,
        Err(error) => match SpillError::from_io(&error) {
            Some(&SpillError::Corrupt { offset, .. }) => {
                assert_eq!((offset, error.kind()), (end, io::ErrorKind::InvalidData));
                Some(offset)
            }
            other => panic!("{other:?}"),
        },
    }
}

/// One changed byte anywhere, checksums or not: never a wrong byte, and an error where it hit what is read.
#[test]
fn c14_no_flip_anywhere_in_the_file_ever_gives_a_wrong_byte() {
    let mut hits = 0;
    for round in 0..24_u64 {
        let scratch = Scratch::new();
        let (writer, mut reader) = spilled(scratch.builder(256 * KIB).verify(round % 2 == 0).build().unwrap(), 2 * MIB);
        let file = scratch.file().open();
        let at = (round * 7_919 * 13) % (2 * MIB as u64);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << (round % 8))], at).unwrap();
        writer.finish().unwrap();
        hits += u64::from(corrupt_at(&mut reader).is_some());
    }
    assert!(hits > 12, "{hits} of 24 were noticed: the test misses the file");
}

/// Whole slots with their trailers, moved or brought back: each is good somewhere else, and no checksum would tell.
#[test]
fn c14_slots_that_are_swapped_or_replayed_are_errors() {
    let block = 64 * KIB;
    let place = |slot: usize| ((64 * KIB + slot * block) as u64, (slot * 32) as u64);
    let take = |file: &std::fs::File, slot| {
        let (mut payload, mut trailer) = (vec![0; block], [0; 32]);
        file.read_exact_at(&mut payload, place(slot).0).unwrap();
        file.read_exact_at(&mut trailer, place(slot).1).unwrap();
        (payload, trailer)
    };
    let put = |file: &std::fs::File, slot, (payload, trailer): &(Vec<u8>, [u8; 32])| {
        file.write_all_at(payload, place(slot).0).unwrap();
        file.write_all_at(trailer, place(slot).1).unwrap();
    };
    let buffer = |scratch: &Scratch| scratch.builder(512 * KIB).encrypt(true).build().unwrap();

    let scratch = Scratch::new();
    let (writer, mut reader) = spilled(buffer(&scratch), 4 * MIB);
    let file = scratch.file().open();
    let (a, b) = (take(&file, 5), take(&file, 6));
    put(&file, 5, &b);
    put(&file, 6, &a);
    writer.finish().unwrap();
    assert!(corrupt_at(&mut reader).is_some(), "swapped");

    let scratch = Scratch::new();
    let (mut writer, mut reader) = spilled(buffer(&scratch), 4 * MIB);
    let file = scratch.file().open();
    let old = take(&file, 5);
    read_pattern(&mut reader, 0, 4 * MIB);
    write_pattern(&mut writer, 4 * MIB as u64, 4 * MIB);
    eventually("it is on disk", || reader.stats().on_disk > 3 * MIB as u64);
    assert_ne!(take(&file, 5), old, "the slot was not used again: the test misses the file");
    put(&file, 5, &old);
    writer.finish().unwrap();
    let (end, result) = read_to_end(&mut reader, 4 * MIB as u64);
    let error = result.unwrap_err();
    assert!(
        matches!(SpillError::from_io(&error), Some(&SpillError::Corrupt { offset, .. }) if offset == end),
        "replayed: {error}"
    );
}

/// A pool's file, hit in every way that `corruption.rs` hits a plain one: whose slot it was cannot be seen, but who notices can.
#[test]
fn c14_every_kind_of_hit_is_an_error_at_its_place_and_of_one_stream_alone() {
    const BLOCK: usize = 32 * KIB;
    const TRAILER: usize = 32;
    const KINDS: [&str; 8] = ["bit", "trailer", "page", "no trailer", "swap", "old", "old payload", "cut"];
    let payload_at = |slot: usize| (64 * KIB + slot * BLOCK) as u64;
    let trailer_at = |slot: usize| (slot * TRAILER) as u64;
    let copy = |file: &std::fs::File, slot| {
        let (mut payload, mut trailer) = (vec![0; BLOCK], [0; TRAILER]);
        file.read_exact_at(&mut payload, payload_at(slot)).unwrap();
        file.read_exact_at(&mut trailer, trailer_at(slot)).unwrap();
        (payload, trailer)
    };
    let paste = |file: &std::fs::File, slot, (payload, trailer): &(Vec<u8>, [u8; TRAILER])| {
        file.write_all_at(payload, payload_at(slot)).unwrap();
        file.write_all_at(trailer, trailer_at(slot)).unwrap();
    };
    let mut noticed: HashMap<&str, usize> = HashMap::new();
    for seed in 0..64 {
        let mut random = Random::new(seed);
        let how = KINDS[seed as usize % KINDS.len()];
        let scratch = Scratch::new();
        let pool = SpillPool::builder().memory_limit(256 * KIB).temp_dir(scratch.path()).build().unwrap();
        let mut ends: Vec<_> = (0..3).map(|_| pool.buffer().into_split()).collect();
        let origin = |stream: usize| stream as u64 * 130_003;
        // The same slots twice, so that there is something old to put back.
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream), MIB);
        }
        eventually("it is on disk", || pool.stats().on_disk > 2 * MIB as u64);
        let file = scratch.file().open();
        let old: Vec<_> = (0..64).map(|slot| copy(&file, slot)).collect();
        for (stream, (writer, reader)) in ends.iter_mut().enumerate() {
            read_pattern(reader, origin(stream), MIB);
            write_pattern(writer, origin(stream) + MIB as u64, 2 * MIB);
        }
        eventually("it is on disk", || pool.stats().on_disk > 5 * MIB as u64);

        let one = 20 + random.below(40);
        let flip = |at: u64, bit: usize| {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
        };
        match how {
            "bit" => flip(payload_at(one) + random.below(BLOCK) as u64, random.below(8)),
            "trailer" => flip(trailer_at(one) + random.below(TRAILER) as u64, random.below(8)),
            "page" => file.write_all_at(&[0; 4096], payload_at(one) + 4096 * random.below(8) as u64).unwrap(),
            "no trailer" => file.write_all_at(&[0; TRAILER], trailer_at(one)).unwrap(),
            "swap" => {
                let two = one + 1;
                let (first, second) = (copy(&file, one), copy(&file, two));
                paste(&file, one, &second);
                paste(&file, two, &first);
            }
            "old" => paste(&file, one, &old[one]),
            "old payload" => file.write_all_at(&old[one].0, payload_at(one)).unwrap(),
            _ => file.set_len(payload_at(150) + random.below(BLOCK) as u64).unwrap(),
        }
        let mut failed = 0;
        for (stream, (writer, mut reader)) in ends.into_iter().enumerate() {
            writer.finish().unwrap();
            let (at, end) = read_to_end(&mut reader, origin(stream) + MIB as u64);
            let came = at - origin(stream);
            let Err(error) = end else {
                assert_eq!(came, 3 * MIB as u64, "{how}, seed {seed}: a clean end of what is not whole");
                continue;
            };
            let (SpillError::Corrupt { offset, .. } | SpillError::Storage { offset, .. }) =
                SpillError::from_io(&error).unwrap()
            else {
                panic!("{how}, seed {seed}: {error:?}")
            };
            assert_eq!(*offset, came, "{how}, seed {seed}: {error}");
            failed += 1;
        }
        let most = match how {
            "swap" => 2,
            "cut" => 3,
            _ => 1,
        };
        assert!(failed <= most, "{how}, seed {seed}: {failed} streams noticed");
        *noticed.entry(how).or_default() += usize::from(failed > 0);
    }
    // A slot that has been given back is nobody's to notice; most are somebody's.
    assert!(KINDS.iter().all(|how| noticed.get(how).is_some_and(|&times| times >= 4)), "{noticed:?}");
}

#[test]
fn c12_who_is_encrypted_is_the_pools_to_choose() {
    let scratch = Scratch::new();
    let pool = pool(&scratch, true);
    let error = pool.builder().encrypt(false).build().unwrap_err();
    assert_eq!(error.to_string(), "encrypt is the pool's to choose");
}

/// The read side decrypts into the reader's own memory: a short buffer, a long one and an odd one get the same bytes.
#[test]
fn c01_reads_of_any_size_are_decrypted() {
    for size in [1000, 64 * KIB, 100_000, 3 * MIB] {
        let scratch = Scratch::new();
        let (writer, mut reader) = spilled(scratch.builder(512 * KIB).build().unwrap(), 6 * MIB);
        writer.finish().unwrap();
        let (mut at, mut buf) = (0, vec![0; size]);
        loop {
            let n = read_some(&mut reader, &mut buf).unwrap();
            verify(at, &buf[..n]);
            at += n as u64;
            if n == 0 {
                break;
            }
        }
        assert_eq!(at, 6 * MIB as u64);
    }
}
