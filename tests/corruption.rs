//! A file that changes under the buffers that use it (C1, C14): bits flipped, pages zeroed, slots swapped, old slots back in
//! their place, the file cut. Each byte that comes out is right, or there is an error at the block that was hit, and no other
//! stream notices. Plain hits on one buffer, trailers byte by byte and `verify(false)` are in `contract_disk.rs`.
//!
//! They look for what they hit by what is written there, so nothing is encrypted; `encryption.rs` hits what is.
//!
//! `CORRUPTION_SECONDS` makes the storm longer; `CORRUPTION_SEED` begins with the round that failed.
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]
#![cfg(target_os = "linux")]

mod support;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    io::{BufRead, Read, Write},
    ops::Range,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use spillbuffer::{Control, PoolBuilder, SpillError, SpillPool, SpillReader, SpillWriter};

use crate::support::*;

// ---- where a slot lies, as these tests know it ----

/// The memory of a pool, and the blocks that are so chosen.
const MEMORY: usize = 256 * KIB;
const BLOCK: usize = 32 * KIB;
/// The payloads begin here; before them lie the trailers, all in one row.
const HEADER: u64 = 64 << 10;
const TRAILER: usize = 32;
/// Where a trailer has the payload's length, whose it is, and its place in the stream.
const LENGTH: usize = 4;
const OWNER: Range<usize> = 8..16;
const INDEX: usize = 16;

fn pool(scratch: &Scratch) -> PoolBuilder {
    let builder = SpillPool::builder().memory_limit(MEMORY).temp_dir(scratch.path());
    #[cfg(feature = "encryption")]
    let builder = builder.encrypt(false);
    builder
}

fn payload_at(slot: u64) -> u64 {
    HEADER + slot * BLOCK as u64
}

fn trailer_at(slot: u64) -> u64 {
    slot * TRAILER as u64
}

/// A stream's bytes are those of the one pattern from here on, so that each byte tells whose it is.
fn origin(stream: usize) -> u64 {
    stream as u64 * 130_003
}

/// A block of a stream: which, and the offset of its first byte.
type Place = (usize, u64);

/// What a slot holds, by its trailer and by its bytes.
#[derive(Debug, Clone, Copy)]
struct Held {
    slot: u64,
    stream: usize,
    index: u64,
    len: usize,
}

impl Held {
    fn place(self) -> Place {
        (self.stream, self.index)
    }
}

/// The slots that hold what one of `streams` wrote there at some time.
///
/// Whose a slot is its bytes tell, for an owner's number is not known here; but eight bytes or fewer may be several streams'. Those
/// were passed over once, and what was lost of them by a cut came as an error that nobody had caused. So the owner's number in
/// the trailer of a longer one tells it of the short ones.
fn slots(file: &fs::File, streams: usize) -> Vec<Held> {
    let mut trailers = vec![0; HEADER as usize];
    let n = file.read_at(&mut trailers, 0).unwrap();
    let len_of_file = file.metadata().unwrap().len();
    let (mut found, mut owners) = (Vec::new(), HashMap::new());
    let mut short = Vec::new();
    for (slot, trailer) in trailers[..n].chunks_exact(TRAILER).enumerate().filter(|(_, trailer)| trailer[0] != 0) {
        let slot = slot as u64;
        let index = u64::from_le_bytes(*trailer[INDEX..].first_chunk().unwrap());
        let len = u32::from_le_bytes(*trailer[LENGTH..].first_chunk().unwrap()) as usize;
        // Where the file was cut.
        if payload_at(slot) + len as u64 > len_of_file {
            continue;
        }
        let mut head = [0; 16];
        let n = file.read_at(&mut head, payload_at(slot)).unwrap().min(len);
        let is_of = |stream: &usize| n > 0 && head[..n] == *pattern(origin(*stream) + index, n);
        let those: Vec<_> = (0..streams).filter(is_of).map(|stream| Held { slot, stream, index, len }).collect();
        let owner = trailer[OWNER].to_vec();
        match &those[..] {
            [one] if n > 8 => {
                owners.insert(owner, one.stream);
                found.push(*one);
            }
            _ => short.push((owner, those)),
        }
    }
    for (owner, those) in short {
        let stream = owners.get(&owner).copied();
        // Where nothing longer of it is here, it is whoever's it can be.
        found.extend(those.into_iter().find(|held| stream.is_none_or(|stream| held.stream == stream)));
    }
    found
}

// ---- hits ----

#[derive(Debug, Clone, Copy)]
enum Hit {
    /// One bit of the payload.
    Bit,
    /// One bit of the trailer.
    Trailer,
    /// A page of the payload.
    Page,
    /// The whole trailer.
    NoTrailer,
    /// Two slots change places, with their trailers.
    Swap,
    /// What was in this slot before is there again, as if a write had been lost.
    Old,
    /// The same of the payload alone.
    OldPayload,
}

const HITS: [Hit; 7] = [Hit::Bit, Hit::Trailer, Hit::Page, Hit::NoTrailer, Hit::Swap, Hit::Old, Hit::OldPayload];

/// A slot as it is in the file.
#[derive(Debug, Clone)]
struct Copied {
    place: Place,
    payload: Vec<u8>,
    trailer: [u8; TRAILER],
}

fn copy(file: &fs::File, held: Held) -> Copied {
    let mut copied = Copied { place: held.place(), payload: vec![0; held.len], trailer: [0; TRAILER] };
    file.read_exact_at(&mut copied.payload, payload_at(held.slot)).unwrap();
    file.read_exact_at(&mut copied.trailer, trailer_at(held.slot)).unwrap();
    copied
}

fn paste(file: &fs::File, slot: u64, copied: &Copied) {
    file.write_all_at(&copied.payload, payload_at(slot)).unwrap();
    file.write_all_at(&copied.trailer, trailer_at(slot)).unwrap();
}

/// What was seen in each slot at one time.
type Album = HashMap<u64, Copied>;

/// Hits a slot, or two; says which. `None` where there is nothing to do it with.
fn hit(file: &fs::File, how: Hit, held: &[Held], album: &Album, random: &mut Random) -> Option<Vec<Held>> {
    let one = held[random.below(held.len())];
    let flip = |at: u64, bit: usize| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
    };
    match how {
        Hit::Bit => flip(payload_at(one.slot) + random.below(one.len) as u64, random.below(8)),
        Hit::Trailer => flip(trailer_at(one.slot) + random.below(TRAILER) as u64, random.below(8)),
        Hit::Page => {
            let page = random.below(one.len.div_ceil(4096)) * 4096;
            file.write_all_at(&vec![0; 4096.min(one.len - page)], payload_at(one.slot) + page as u64).unwrap();
        }
        Hit::NoTrailer => file.write_all_at(&[0; TRAILER], trailer_at(one.slot)).unwrap(),
        Hit::Swap => {
            let two = held[random.below(held.len())];
            if two.slot == one.slot {
                return None;
            }
            let (first, second) = (copy(file, one), copy(file, two));
            paste(file, one.slot, &second);
            paste(file, two.slot, &first);
            return Some(vec![one, two]);
        }
        Hit::Old | Hit::OldPayload => {
            let was_another = |held: &&Held| album.get(&held.slot).is_some_and(|old| old.place != held.place());
            let changed: Vec<_> = held.iter().filter(was_another).collect();
            if changed.is_empty() {
                return None;
            }
            let one = *changed[random.below(changed.len())];
            let old = &album[&one.slot];
            if matches!(how, Hit::Old) {
                paste(file, one.slot, old);
            } else {
                file.write_all_at(&old.payload, payload_at(one.slot)).unwrap();
            }
            return Some(vec![one]);
        }
    }
    Some(vec![one])
}

/// How a stream ended: the bytes that came, each of them checked, and the error if there was one.
type Ended = (u64, Option<SpillError>);

/// Refuses an end that is neither whole nor an error at a block that was hit. Whether it was an error.
#[track_caller]
fn judge(stream: usize, ended: &Ended, total: u64, hits: &HashSet<Place>, story: &[String]) -> bool {
    let (came, error) = ended;
    let Some(error) = error else {
        assert_eq!(*came, total, "stream {stream}: a clean end of what is not whole");
        return false;
    };
    let (SpillError::Corrupt { offset, .. } | SpillError::Storage { offset, .. }) = error else {
        panic!("stream {stream}: {error:?}")
    };
    assert_eq!(offset, came, "stream {stream}: the offset told is where the good bytes end: {error:?}");
    // A reader that has had a part of it while it was in memory goes on from there.
    let is_there = |index: &u64| (*index..*index + BLOCK as u64).contains(offset);
    assert!(
        hits.iter().any(|(of, index)| *of == stream && is_there(index)),
        "stream {stream}: {error:?}, and what was hit is {hits:?}: {story:?}"
    );
    true
}

fn ours(error: &std::io::Error) -> SpillError {
    SpillError::from_io(error).expect("one of ours").clone()
}

// ---- one hit while everything stands still ----

/// Nothing is read before the hit, so it must be noticed: this fails as well should a slot lie elsewhere than it is looked for.
#[test]
fn c14_each_kind_of_hit_on_what_nobody_has_read_is_an_error_there_and_of_that_stream_alone() {
    let scratch = Scratch::new();
    for seed in 0..42 {
        let mut random = Random::new(seed);
        let how = HITS[seed as usize % HITS.len()];
        let pool = pool(&scratch).build().unwrap();
        let mut ends: Vec<_> = (0..3).map(|_| pool.buffer().into_split()).collect();
        // The same slots twice, each time with other bytes.
        let first = random.below(MIB);
        for (stream, (writer, reader)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream), MIB + first);
            if stream == 2 {
                still(&pool);
            }
            let _ = reader;
        }
        let file = scratch.file().open();
        let album = slots(&file, 3).into_iter().map(|held| (held.slot, copy(&file, held))).collect();
        let read = MIB + first - random.below(MIB / 2);
        for (stream, (_, reader)) in ends.iter_mut().enumerate() {
            read_pattern(reader, origin(stream), read);
        }
        for (stream, (writer, _)) in ends.iter_mut().enumerate() {
            write_pattern(writer, origin(stream) + (MIB + first) as u64, 2 * MIB);
        }
        still(&pool);

        // Where the layout is as these tests know it, all that is on disk is found.
        let mut held = slots(&file, 3);
        held.retain(|held| is_unread(&ends, *held));
        let found: usize = held.iter().map(|held| held.len).sum();
        let on_disk = pool.stats().on_disk;
        let partly = 3 * BLOCK as u64;
        assert!(found as u64 <= on_disk && found as u64 + partly > on_disk, "{found} of {on_disk} found, seed {seed}");
        // What the reader has ahead it does not ask for again: a few blocks, and the trailers of half a MiB.
        held.retain(|held| held.index > (read + MIB) as u64);
        let Some(hits) = hit(&file, how, &held, &album, &mut random) else { continue };
        let hits: HashSet<_> = hits.into_iter().map(Held::place).collect();
        let total = (3 * MIB + first) as u64;
        for (stream, (writer, mut reader)) in ends.into_iter().enumerate() {
            writer.finish().unwrap();
            let (at, end) = read_to_end(&mut reader, origin(stream) + read as u64);
            let ended = (at - origin(stream), end.err().map(|error| ours(&error)));
            let failed = judge(stream, &ended, total, &hits, &[]);
            let is_hit = hits.iter().any(|(of, _)| *of == stream);
            assert_eq!(failed, is_hit, "{how:?} of {hits:?} and stream {stream}, seed {seed}: {ended:?}");
        }
    }
}

fn is_unread(ends: &[(SpillWriter, SpillReader)], held: Held) -> bool {
    ends[held.stream].1.stats().read <= held.index
}

/// Waits until no write is on its way any more.
///
/// That nothing changed for a while does not say so: a thread may have been kept from the processor just as long, in the midst of a
/// write, between a payload and its trailer. What was cut then was not seen. So each thread must have slept since the last change.
/// And a pool that lacks memory asks for that of those who stand still every 20 ms.
fn still(pool: &SpillPool) {
    const WHILE: Duration = Duration::from_millis(50);
    let (mut last, mut since, mut awake) = (pool.stats(), Instant::now(), other_threads(|_| true));
    eventually("nothing moves", || {
        let now = pool.stats();
        if now != last {
            (last, since, awake) = (now, Instant::now(), other_threads(|_| true));
        }
        let running = other_threads(|state| state != 'S');
        awake.retain(|thread| running.contains(thread));
        since.elapsed() > WHILE && awake.is_empty()
    });
}

/// The threads of this process that are in a state such as is asked for, but for this one.
fn other_threads(is_asked: impl Fn(char) -> bool) -> HashSet<String> {
    let own = fs::read_link("/proc/thread-self").unwrap();
    let state = |thread: &str| {
        // Behind the name, which is in brackets and may be anything. One that has ended has no state.
        let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
        stat.rsplit(')').next()?.trim_start().chars().next()
    };
    let threads =
        fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().file_name().into_string().unwrap());
    let others = threads.filter(|thread| !own.ends_with(thread));
    others.filter(|thread| state(thread).is_some_and(&is_asked)).collect()
}

// ---- hits under load ----

const STREAMS: usize = 4;
/// What each carries, in bytes.
const TOTAL: u64 = 2 << 20;
/// Readers stay this far behind, and what is hit is this far before them.
const LAG: u64 = 500 << 10;
const AHEAD: u64 = 160 << 10;

/// The pace of looking; what is waited for is what is looked at.
fn pause() {
    thread::park_timeout(Duration::from_micros(100));
}

/// What the threads of a round share.
struct Round {
    pool: SpillPool,
    /// Its disk limit.
    disk: u64,
    controls: Vec<Control>,
    stop_and_wait: AtomicBool,
    /// Readers come this far before the next moment, so that there is something on disk then.
    released: AtomicU64,
    failed: Vec<AtomicBool>,
}

impl Round {
    /// Lets nobody on while the file is being cut.
    fn gate(&self) {
        while self.stop_and_wait.load(Ordering::SeqCst) {
            pause();
        }
    }

    fn write(&self, stream: usize, writer: SpillWriter, random: &mut Random) -> Option<SpillError> {
        let mut writer = writer.into_blocking();
        let mut at = 0;
        while at < TOTAL {
            self.gate();
            let n = random.adversarial((TOTAL - at) as usize);
            let bytes = pattern(origin(stream) + at, n);
            let said = if random.below(4) == 0 {
                writer.write_bytes(bytes.into())
            } else {
                writer.write_all(bytes).map_err(|error| ours(&error))
            };
            if let Err(error) = said {
                return Some(error);
            }
            at += n as u64;
        }
        writer.finish().err()
    }

    fn read(&self, stream: usize, reader: SpillReader, random: &mut Random) -> Ended {
        let mut reader = reader.into_blocking();
        let (mut at, mut buf, mut kept) = (0, vec![0; 150_000], Vec::new());
        let (mut seen, mut idle) = (0, 0);
        loop {
            self.gate();
            // Should the others have taken all the disk, nothing more comes before something has been read.
            let written = self.controls[stream].stats().written;
            idle = if written == seen { idle + 1 } else { 0 };
            seen = written;
            let is_stuck = idle > 10 && self.pool.stats().disk_held + 8 * BLOCK as u64 > self.disk || idle > 300;
            if at >= self.released.load(Ordering::SeqCst) && !is_stuck && !self.failed[stream].load(Ordering::SeqCst) {
                pause();
                continue;
            }
            let got = match random.below(3) {
                0 => reader.next_chunk().map(|chunk| {
                    let chunk = chunk.unwrap_or_default();
                    verify(origin(stream) + at, &chunk);
                    kept.push(chunk.clone());
                    chunk.len()
                }),
                1 => {
                    let most = random.adversarial(buf.len());
                    let got = reader.read(&mut buf[..most]).map_err(|error| ours(&error));
                    got.inspect(|&n| verify(origin(stream) + at, &buf[..n]))
                }
                _ => match reader.fill_buf() {
                    Ok(shown) => {
                        verify(origin(stream) + at, shown);
                        let n = random.adversarial(150_000).min(shown.len());
                        reader.consume(n);
                        Ok(n)
                    }
                    Err(error) => Err(ours(&error)),
                },
            };
            match got {
                Ok(0) => return (at, None),
                Ok(n) => at += n as u64,
                Err(error) => return (at, Some(error)),
            }
            // Sometimes chunks are kept for a while.
            if kept.len() > 3 {
                kept.clear();
            }
        }
    }

    /// Whether this slot is the stream's, and will be until it has been read.
    fn is_live(&self, held: Held) -> bool {
        let stats = self.controls[held.stream].stats();
        stats.read <= held.index && stats.on_disk > 0
    }

    /// Keeps what slots hold now, to be put back when they hold something else.
    fn remember(&self, file: &fs::File, album: &mut Album) {
        for held in slots(file, STREAMS).into_iter().filter(|held| self.is_live(*held)) {
            let kept = copy(file, held);
            // Payload and trailer are of the same time, if it has been live all along.
            if self.is_live(held) {
                album.insert(held.slot, kept);
            }
        }
    }

    /// Hits what is live, and says what that was. Should a reader have come that far meanwhile, nobody knows what was
    /// hit: `Err`.
    fn strike(&self, file: &fs::File, how: Hit, past: &mut Past, random: &mut Random) -> Result<Vec<Place>, ()> {
        let mut held = slots(file, STREAMS);
        // A slot that was swapped says that it is another's. And one that could not be read is free before its reader has got
        // there: what it says is not true any more while it is written anew.
        held.retain(|held| !past.struck.contains(&held.slot));
        held.retain(|held| self.is_live(*held));
        // What is nearest to its reader may be gone at any moment.
        held.retain(|held| self.controls[held.stream].stats().read + AHEAD < held.index);
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let hits = hit(file, how, &held, &past.album, random).unwrap_or_default();
        past.struck.extend(hits.iter().map(|held| held.slot));
        if hits.iter().all(|held| self.is_live(*held)) {
            Ok(hits.into_iter().map(Held::place).collect())
        } else {
            Err(())
        }
    }

    /// Cuts the file while nothing moves, and says what was behind the cut. What stands still may be asked for its memory by the
    /// pool, and go to disk; should that have happened between the look and the cut, nobody knows what was lost: `Err`.
    fn cut(&self, file: &fs::File, past: &mut Past, random: &mut Random) -> Result<Vec<Place>, ()> {
        self.stop_and_wait.store(true, Ordering::SeqCst);
        still(&self.pool);
        let before = self.pool.stats();
        let mut held = slots(file, STREAMS);
        held.retain(|held| self.is_live(*held) || self.controls[held.stream].stats().read < held.index + BLOCK as u64);
        let mut lost = Vec::new();
        if !held.is_empty() {
            let from = held[random.below(held.len())].slot;
            file.set_len(payload_at(from) + random.below(BLOCK) as u64).unwrap();
            held.retain(|held| held.slot >= from);
            past.struck.extend(held.iter().map(|held| held.slot));
            lost.extend(held.into_iter().map(Held::place));
        }
        // A write that was on its way counts when it is done.
        still(&self.pool);
        let stood_still = self.pool.stats() == before;
        self.stop_and_wait.store(false, Ordering::SeqCst);
        if stood_still { Ok(lost) } else { Err(()) }
    }
}

/// What a round has seen and done so far.
#[derive(Debug, Default)]
struct Past {
    album: Album,
    struck: HashSet<u64>,
    /// What was done, for the one who reads of a failure.
    story: Vec<String>,
}

/// Lets readers on to there when the moment is over.
struct Released<'a>(&'a AtomicU64, u64);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::SeqCst);
    }
}

/// What came of a number of rounds.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    hits: usize,
    unclear: usize,
    errors: usize,
    kinds: BTreeMap<String, usize>,
}

/// One round. All that is random of it but the threads' pace comes from the seed.
fn round(scratch: &Scratch, seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let builder = pool(scratch).min_free_space(0);
    // Where there is little disk, slots are soon another's.
    let disk = [3 << 20, 4 << 20, 1 << 30][random.below(3)];
    let pool = builder.disk_limit(disk).retain([0, 1 << 20][random.below(2)]).build().unwrap();
    let ends: Vec<_> = (0..STREAMS).map(|_| pool.buffer().into_split()).collect();
    let shared = Arc::new(Round {
        pool: pool.clone(),
        disk,
        controls: ends.iter().map(|(writer, _)| writer.control()).collect(),
        stop_and_wait: AtomicBool::new(false),
        released: AtomicU64::new(0),
        failed: (0..STREAMS).map(|_| AtomicBool::new(false)).collect(),
    });
    let (mut writers, mut readers) = (Vec::new(), Vec::new());
    for (stream, (writer, reader)) in ends.into_iter().enumerate() {
        let (mut one, mut other) = (Random::new(random.next()), Random::new(random.next()));
        let round = Arc::clone(&shared);
        writers.push(thread::spawn(move || {
            let error = round.write(stream, writer, &mut one);
            round.failed[stream].store(error.is_some(), Ordering::SeqCst);
            error
        }));
        let round = Arc::clone(&shared);
        readers.push(thread::spawn(move || round.read(stream, reader, &mut other)));
    }

    let (mut hits, mut past, mut clear, mut cut) = (HashSet::new(), Past::default(), true, false);
    let mut at = 0;
    for _ in 0..4 + random.below(6) {
        // At a moment that is as random as the threads' pace.
        at += random.below(STREAMS * TOTAL as usize / 6) as u64;
        let moment = || pool.stats().written >= at || readers.iter().any(thread::JoinHandle::is_finished);
        eventually("the moment comes", moment);
        let _on = Released(&shared.released, (at / STREAMS as u64).saturating_sub(LAG));
        let Some(file) = scratch.open_files().pop() else { continue };
        let Ok(file) = fs::File::options().read(true).write(true).open(&file.proc_path) else { continue };
        let what = random.below(20);
        if what < 6 {
            shared.remember(&file, &mut past.album);
            continue;
        }
        if what == 6 {
            match shared.cut(&file, &mut past, &mut random) {
                Ok(lost) => {
                    past.story.push(format!("cut {lost:?}"));
                    hits.extend(lost);
                    cut = true;
                }
                Err(()) => clear = false,
            }
            continue;
        }
        let how = HITS[random.below(HITS.len())];
        match shared.strike(&file, how, &mut past, &mut random) {
            Ok(struck) => {
                past.story.push(format!("{how:?} {struck:?}"));
                *tally.kinds.entry(format!("{how:?}")).or_default() += usize::from(!struck.is_empty());
                hits.extend(struck);
            }
            Err(()) => clear = false,
        }
    }
    drop(Released(&shared.released, u64::MAX));
    *tally.kinds.entry("Cut".into()).or_default() += usize::from(cut);
    let ends = comes_back(move || {
        let readers: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        let writers: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        readers.into_iter().zip(writers).collect::<Vec<_>>()
    });
    tally.rounds += 1;
    tally.hits += hits.len();
    tally.unclear += usize::from(!clear);
    for (stream, (ended, said)) in ends.iter().enumerate() {
        if let Some(error) = said {
            let is_it =
                matches!(error, SpillError::Corrupt { .. } | SpillError::Storage { .. } | SpillError::ReaderDropped);
            assert!(is_it && ended.1.is_some(), "stream {stream}: {error:?} after {ended:?}");
        }
        if clear {
            tally.errors += usize::from(judge(stream, ended, TOTAL, &hits, &past.story));
        }
    }
    drop(shared);
    eventually("everything is given back", || {
        let stats = pool.stats();
        (stats.buffers, stats.memory_held, stats.lent, stats.disk_held) == (0, 0, 0, 0)
    });
}

#[test]
fn c14_whatever_hits_the_file_under_load_no_wrong_byte_comes_and_no_other_stream_notices() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let end = Instant::now() + Duration::from_secs(number("CORRUPTION_SECONDS").unwrap_or(4));
    let first = number("CORRUPTION_SEED").unwrap_or(1);
    let scratch = Scratch::new();
    let mut tally = Tally::default();
    for seed in first.. {
        if Instant::now() >= end && tally.rounds > 0 {
            break;
        }
        let went = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| round(&scratch, seed, &mut tally)));
        if let Err(panic) = went {
            eprintln!("CORRUPTION_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    eprintln!("{tally:?}");
    // Some hit what its reader had ahead already; most are noticed.
    assert!(tally.errors * 4 > tally.rounds, "hardly anything was noticed: {tally:?}");
    assert!(tally.unclear * 4 <= tally.rounds, "it is hardly ever known what was hit: {tally:?}");
}
