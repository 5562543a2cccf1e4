//! C14 in a pool, where slots go from stream to stream: a disk that lies never gives one the bytes of another.

use std::{
    io::{IoSlice, IoSliceMut},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use super::{
    BLOCK, KIB, MIB, Spot, eventually, identity, nothing_is_left, owner, pattern, read_all, spot, with_pool, write_all,
};
use crate::{
    Control, SpillError, SpillPool, SpillReader,
    slot::{Geometry, TRAILER},
    storage::sys::{
        RawFile,
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
};

const LEN: usize = 2 * MIB;

type Disk = Arc<Hooked<Scripted>>;

fn geometry() -> Geometry {
    Geometry::new(BLOCK)
}

/// A pool over a disk that lies, and what goes on on it.
fn on(dir: &str, verify: bool, hook: impl Fn(&Call<'_>) -> Act + Send + Sync + 'static) -> (SpillPool, Disk) {
    let disk = Hooked::new(Scripted::default(), hook);
    (SpillPool::builder().memory_limit(2 * MIB).verify(verify).temp_dir(dir).build_on(disk.clone()).unwrap(), disk)
}

/// A stream of which most is on disk, complete, with nobody reading yet.
fn stalled(pool: &SpillPool, stream: u64) -> SpillReader {
    // So little that each lies in blocks of its own, and none is asked for its memory.
    let (writer, reader) = pool.builder().memory_limit(256 * KIB).build().unwrap().into_split();
    write_all(writer, stream, LEN).join().unwrap().unwrap();
    eventually("no write is under way", || {
        let stats = reader.stats();
        stats.on_disk > 0 && stats.on_disk / BLOCK as u64 == stats.disk_held / (BLOCK + TRAILER) as u64
    });
    reader
}

/// The slots that say they are a stream's, with the offsets of their blocks there; its first one first.
fn slots_of(disk: &Disk, control: &Control) -> Vec<(u64, u64)> {
    let file = disk.file();
    let mut found: Vec<_> = (0..400)
        .map(|slot| (slot, identity(&*file, slot)))
        .filter(|(_, (id, _))| *id == control.stream_id())
        .map(|(slot, (_, offset))| (offset, slot))
        .collect();
    found.sort_unstable();
    found
}

/// It ends there, and had come to there with its own bytes only.
#[track_caller]
fn is_corrupt_at(reader: SpillReader, stream: u64, at: u64, why: &str) {
    let (bytes, end) = read_all(reader, stream);
    let Err(SpillError::Corrupt { offset, reason, .. }) = end else { panic!("stream {stream} at {bytes}: {end:?}") };
    assert_eq!((bytes, offset), (at, at), "{reason}");
    assert!(reason.contains(why), "{reason}");
}

#[track_caller]
fn is_whole(reader: SpillReader, stream: u64) {
    let (bytes, end) = read_all(reader, stream);
    assert!(end.is_ok() && bytes == LEN as u64, "stream {stream} at {bytes}: {end:?}");
}

fn get(file: &dyn RawFile, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    assert_eq!(file.read_at(&mut [IoSliceMut::new(&mut bytes)], at).unwrap(), len);
    bytes
}

fn put(file: &dyn RawFile, at: u64, bytes: &[u8]) {
    assert_eq!(file.write_at(&[IoSlice::new(bytes)], at).unwrap(), bytes.len());
}

/// The disk writes what is one stream's where another's lies: neither gets the other's bytes.
#[test]
fn c14_a_write_that_lands_in_another_streams_slot_is_an_error_for_both() {
    for verify in [true, false] {
        // By how many slots what stream 2 writes is off, and the first slot that is not to be hit.
        let lands = Arc::new(Mutex::new((0, 0)));
        let follows = AtomicBool::new(false);
        let (pool, disk) = on("/pool-landed", verify, {
            let lands = Arc::clone(&lands);
            move |call| {
                let Call::Write { bufs, at, .. } = call else { return Act::Go };
                let (off, end) = *lands.lock().unwrap();
                match spot(*at) {
                    Spot::Payload(slot) => {
                        follows.store(owner(&bufs[0]) == 2 && slot + bufs.len() as u64 <= off + end, SeqCst);
                        if follows.load(SeqCst) { Act::At(geometry().payload(slot - off)) } else { Act::Go }
                    }
                    Spot::Trailer(slot) if follows.load(SeqCst) => Act::At(geometry().trailer(slot - off)),
                    Spot::Trailer(_) => Act::Go,
                }
            }
        });
        with_pool(&pool.clone(), move || {
            let (one, three) = (stalled(&pool, 1), stalled(&pool, 3));
            let (before, others) = (slots_of(&disk, &one.control()), slots_of(&disk, &three.control()));
            let slots = || before.iter().map(|(_, slot)| *slot);
            let (first, last) = (slots().min().unwrap(), slots().max().unwrap());
            // What the second writes begins behind all that there is.
            let fresh = others.iter().map(|(_, slot)| slot + 1).max().unwrap().max(last + 1);
            *lands.lock().unwrap() = (fresh - first, last + 1);
            let two = stalled(&pool, 2);
            let landed = slots_of(&disk, &two.control()).into_iter().filter(|(_, slot)| *slot <= last).min();
            let left = slots_of(&disk, &one.control());
            let overwritten = before.iter().find(|slot| !left.contains(slot));
            // Where it should be, nothing was ever written; the file is longer than that.
            put(&*disk.file(), geometry().payload(127), &[0]);
            is_corrupt_at(two, 2, landed.expect("some of it landed").0, "no slot of this format");
            is_corrupt_at(one, 1, overwritten.expect("some of it was hit").0, "another stream");
            is_whole(three, 3);
            nothing_is_left(&pool);
        });
    }
}

/// The disk says that it has written, and has not: what it gives back is what the slot held before, sealed and whole, of a stream
/// that is gone.
#[test]
fn c14_a_lost_write_in_a_recycled_slot_never_gives_the_bytes_of_who_was_there_before() {
    for verify in [true, false] {
        let loses = Arc::new(AtomicBool::new(false));
        let (pool, disk) = on("/pool-lost", verify, {
            let loses = Arc::clone(&loses);
            move |call| match call {
                Call::Write { .. } if loses.load(SeqCst) => Act::Lose,
                _ => Act::Go,
            }
        });
        with_pool(&pool.clone(), move || {
            let (one, three) = (stalled(&pool, 1), stalled(&pool, 3));
            let was_at: Vec<_> = slots_of(&disk, &one.control()).iter().map(|(_, slot)| *slot).collect();
            is_whole(one, 1);
            loses.store(true, SeqCst);
            let two = stalled(&pool, 2);
            loses.store(false, SeqCst);
            assert!(slots_of(&disk, &two.control()).is_empty());
            // The slots are those of the first stream, whose bytes are all there still.
            let file = disk.file();
            assert!(was_at.iter().all(|slot| owner(&get(&*file, geometry().payload(*slot), 8)) == 1));
            let first = is_corrupt_behind_memory(two, 2);
            assert!(first < LEN as u64);
            is_whole(three, 3);
            nothing_is_left(&pool);
        });
    }
}

/// What memory still had has come, and then the error that says whose slot it was.
#[track_caller]
fn is_corrupt_behind_memory(reader: SpillReader, stream: u64) -> u64 {
    let (bytes, end) = read_all(reader, stream);
    let Err(SpillError::Corrupt { offset, reason, .. }) = end else { panic!("stream {stream} at {bytes}: {end:?}") };
    assert_eq!((offset, reason), (bytes, "the slot belongs to another stream"));
    bytes
}

/// Half of a payload arrives, into a slot that another had before, and its trailer does.
#[test]
fn c14_a_torn_write_in_a_recycled_slot_is_an_error_at_its_block() {
    let tears = Arc::new(AtomicBool::new(false));
    let (pool, disk) = on("/pool-torn", true, {
        let tears = Arc::clone(&tears);
        move |call| match call {
            Call::Write { at, .. } if tears.load(SeqCst) && matches!(spot(*at), Spot::Payload(_)) => Act::Tear,
            _ => Act::Go,
        }
    });
    with_pool(&pool.clone(), move || {
        let (one, three) = (stalled(&pool, 1), stalled(&pool, 3));
        is_whole(one, 1);
        tears.store(true, SeqCst);
        let two = stalled(&pool, 2);
        tears.store(false, SeqCst);
        // The first whose second half is the other's.
        let file = disk.file();
        let torn = slots_of(&disk, &two.control())
            .into_iter()
            .find(|(offset, slot)| get(&*file, geometry().payload(*slot), BLOCK) != pattern(2, *offset, BLOCK));
        is_corrupt_at(two, 2, torn.expect("a write was torn").0, "checksum");
        is_whole(three, 3);
        nothing_is_left(&pool);
    });
}

/// The trailers of two streams' slots change places, their payloads do not: and the other way round.
#[test]
fn c14_slots_of_two_streams_that_change_places_are_an_error_for_both() {
    for (verify, payloads) in [(true, false), (true, true), (false, false)] {
        let (pool, disk) = on("/pool-swapped", verify, |_| Act::Go);
        with_pool(&pool.clone(), move || {
            let (one, two, three) = (stalled(&pool, 1), stalled(&pool, 2), stalled(&pool, 3));
            // Not the first of either, so that some comes back from disk before.
            let (at_one, slot_one) = slots_of(&disk, &one.control())[2];
            let (at_two, slot_two) = slots_of(&disk, &two.control())[3];
            let file = disk.file();
            let place = |slot| if payloads { geometry().payload(slot) } else { geometry().trailer(slot) };
            let len = if payloads { BLOCK } else { TRAILER };
            let (of_one, of_two) = (get(&*file, place(slot_one), len), get(&*file, place(slot_two), len));
            put(&*file, place(slot_one), &of_two);
            put(&*file, place(slot_two), &of_one);
            let why = if payloads { "checksum" } else { "another stream" };
            is_corrupt_at(one, 1, at_one, why);
            is_corrupt_at(two, 2, at_two, why);
            is_whole(three, 3);
            nothing_is_left(&pool);
        });
    }
}
