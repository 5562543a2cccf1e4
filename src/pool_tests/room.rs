//! A disk that is full of what nobody uses: what is kept for reuse is given back before anybody is told.

use std::{
    collections::BTreeSet,
    io::{ErrorKind::StorageFull, Write},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use super::{
    BLOCK, MIB, Spot, eventually, nothing_is_left, ours, owner, pattern, read_all, read_some, spot, with_pool, within,
    write_all,
};
use crate::{
    OnFull, SpillBuffer, SpillError, SpillPool, SpillWriter,
    shell::Shared,
    storage::sys::{
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
};

const PAGE: u64 = 4096;

/// A disk that writes to another place what was written before, and has back what it gave when the last of it is given back: as
/// btrfs, where all payloads are one extent.
#[derive(Debug, Default)]
struct Extent {
    /// Bytes that there are.
    capacity: u64,
    /// It gives nothing back.
    sticks: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    taken: u64,
    pages: BTreeSet<u64>,
    full: bool,
    refused: usize,
    files: usize,
}

impl Extent {
    fn of(capacity: usize) -> Self {
        Self { capacity: capacity as u64, ..Self::default() }
    }

    /// How many writes found no room, and how many files there were.
    fn seen(&self) -> (usize, usize) {
        let inner = self.inner.lock().unwrap();
        (inner.refused, inner.files)
    }

    fn hooked(self: &Arc<Self>) -> Arc<Hooked<Scripted>> {
        let disk = Arc::clone(self);
        Hooked::new(Scripted::default(), move |call| {
            let mut inner = disk.inner.lock().unwrap();
            match *call {
                Call::Write { bufs, at } if matches!(spot(at), Spot::Payload(_)) => {
                    let len: usize = bufs.iter().map(|buf| buf.len()).sum();
                    let pages = at / PAGE..(at + len as u64).div_ceil(PAGE);
                    let taken = inner.taken + (pages.end - pages.start) * PAGE;
                    // Once that there is too little for one there is nothing for anybody.
                    inner.full |= taken > disk.capacity;
                    if inner.full {
                        inner.refused += 1;
                        return Act::Fail(StorageFull.into());
                    }
                    inner.taken = taken;
                    inner.pages.extend(pages);
                }
                Call::Punch { .. } if disk.sticks => return Act::Fail(std::io::Error::other("not now")),
                Call::Punch { at, len } => {
                    for page in at.div_ceil(PAGE)..(at + len) / PAGE {
                        inner.pages.remove(&page);
                    }
                    if inner.pages.is_empty() {
                        (inner.taken, inner.full) = (0, false);
                    }
                }
                // The one before has gone, for it was not used for a second.
                Call::Create => *inner = Inner { refused: inner.refused, files: inner.files + 1, ..Inner::default() },
                _ => {}
            }
            Act::Go
        })
    }
}

/// Writes up to `len` bytes of a stream, and says how many and why not all.
fn write_until_told(writer: SpillWriter, stream: u64, len: usize) -> (u64, Result<(), SpillError>) {
    let mut writer = writer.into_blocking();
    for at in (0..len as u64).step_by(BLOCK) {
        if let Err(error) = writer.write_all(&pattern(stream, at, BLOCK)) {
            return (at, Err(ours(&error)));
        }
    }
    (len as u64, writer.finish())
}

/// A pool that had filled a btrfs and was read to the end kept 2 MiB of it, and with these the disk: whoever came next was told that
/// it was full, over and over.
#[test]
fn c08_what_is_kept_for_reuse_is_given_back_before_a_full_disk_is_told() {
    for sticks in [false, true] {
        let disk = Arc::new(Extent { sticks, ..Extent::of(8 * MIB) });
        let pool = SpillPool::builder().memory_limit(MIB).retain(2 << 20).min_free_space(0).temp_dir("/room");
        let pool = pool.on_full(OnFull::Fail).build_on(disk.hooked()).unwrap();
        with_pool(&pool.clone(), move || {
            let (writer, reader) = pool.buffer().into_split();
            let (accepted, told) = write_until_told(writer, 1, 16 * MIB);
            assert!(matches!(told, Err(SpillError::DiskLimit { limit: None, source: Some(_), .. })), "{told:?}");
            assert!(accepted > 7 << 20, "{accepted}");
            assert_eq!(read_all(reader, 1).0, accepted);
            nothing_is_left(&pool);

            let (writer, reader) = pool.buffer().into_split();
            let (accepted, told) = write_until_told(writer, 2, 4 * MIB);
            assert_eq!(told.is_err(), sticks, "{told:?}");
            assert_eq!(read_all(reader, 2).0, accepted);
            nothing_is_left(&pool);
        });
    }
}

/// One that stands alone and waits was a pipe of what memory it had until its file was closed, for which nobody may try for a second.
/// On a machine that stands still for as long it is closed all the same.
#[test]
fn c08_a_buffer_that_was_read_to_the_end_of_a_full_disk_has_the_disk_again() {
    let in_one_file = || {
        let disk = Arc::new(Extent::of(8 * MIB));
        let options = SpillBuffer::builder().temp_dir("/room-alone").settings().check().unwrap();
        let (writer, reader) = SpillBuffer::of(Shared::on(&options, Some(disk.hooked()))).into_split();
        within("the buffer", String::new, move || {
            let writer = std::thread::spawn(move || write_until_told(writer, 1, 14 * MIB));
            let mut reader = reader.into_blocking();
            eventually("the disk is full", || disk.seen().0 > 1);
            for at in (0..10 * MIB).step_by(BLOCK) {
                read_some(&mut reader, 1, at as u64, BLOCK);
            }
            // Nobody reads any more, and what is left is more than memory holds.
            let (accepted, told) = writer.join().unwrap();
            assert!(accepted == 14 << 20 && told.is_ok(), "{accepted}: {told:?}");
            disk.seen().1 == 1
        })
    };
    assert!((0..5).any(|_| in_one_file()));
}

/// What is given back is free space too.
#[test]
fn c08_free_space_is_asked_for_once_more_before_a_full_disk_is_told() {
    for free in [[0, 1 << 40], [0, 0]] {
        let asked = Arc::new(AtomicUsize::new(0));
        let hooked = Hooked::new(Scripted::default(), {
            let asked = Arc::clone(&asked);
            move |call| match call {
                Call::Space => Act::Space(free[asked.fetch_add(1, SeqCst).min(1)], 1 << 40),
                _ => Act::Go,
            }
        });
        let pool = SpillPool::builder().memory_limit(MIB).temp_dir("/room-space").on_full(OnFull::Fail);
        let pool = pool.min_free_space(1).build_on(hooked).unwrap();
        with_pool(&pool.clone(), move || {
            let (writer, _reader) = pool.buffer().into_split();
            let told = write_all(writer, 1, 4 * MIB).join().unwrap();
            assert_eq!((told.is_err(), asked.load(SeqCst)), (free[1] == 0, 2), "{told:?}");
        });
    }
}

/// Each time that there may be room it is tried again, not once in a stream's life.
#[test]
fn c08_who_found_room_on_a_full_disk_tries_again_the_next_time_too() {
    let full = Arc::new(AtomicBool::new(false));
    let hooked = Hooked::new(Scripted::default(), {
        let full = Arc::clone(&full);
        move |call| match call {
            Call::Write { .. } if full.load(SeqCst) => Act::Fail(StorageFull.into()),
            Call::Punch { .. } => {
                full.store(false, SeqCst);
                Act::Go
            }
            _ => Act::Go,
        }
    });
    let pool = SpillPool::builder().memory_limit(MIB).temp_dir("/room-again").on_full(OnFull::Fail);
    let pool = pool.build_on(hooked).unwrap();
    with_pool(&pool.clone(), move || {
        let (writer, reader) = pool.buffer().into_split();
        let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
        for round in 0..3 {
            full.store(true, SeqCst);
            let at = round * 4 * MIB;
            writer.write_all(&pattern(1, at as u64, 4 * MIB)).unwrap();
            assert!(!full.load(SeqCst), "round {round}: nothing went to disk");
            read_some(&mut reader, 1, at as u64, 4 * MIB);
        }
    });
}

/// Each of those whose blocks are written in one call tries again, not only the one that leads.
#[test]
fn c08_room_is_made_for_all_that_are_written_together() {
    const STREAMS: u64 = 12;
    let (gate, full) = (Arc::new(RwLock::new(())), Arc::new(AtomicBool::new(true)));
    let together = Arc::new(AtomicUsize::new(0));
    let hooked = Hooked::new(Scripted::default(), {
        let (gate, full, together) = (Arc::clone(&gate), Arc::clone(&full), Arc::clone(&together));
        move |call| match call {
            Call::Write { bufs, at } => {
                if matches!(spot(*at), Spot::Payload(_)) {
                    let owners: BTreeSet<u64> = bufs.iter().map(|buf| owner(buf)).collect();
                    together.fetch_max(owners.len(), SeqCst);
                    drop(gate.read());
                }
                if full.load(SeqCst) { Act::Fail(StorageFull.into()) } else { Act::Go }
            }
            Call::Punch { .. } => {
                full.store(false, SeqCst);
                Act::Go
            }
            _ => Act::Go,
        }
    });
    let pool = SpillPool::builder().memory_limit(4 * MIB).temp_dir("/room-together").on_full(OnFull::Fail);
    let pool = pool.build_on(hooked).unwrap();
    with_pool(&pool.clone(), move || {
        let closed = gate.write().unwrap();
        let streams: Vec<_> = (1..=STREAMS)
            .map(|stream| {
                let (writer, reader) = pool.builder().memory_limit(4 * BLOCK).build().unwrap().into_split();
                (stream, write_all(writer, stream, 12 * BLOCK), reader)
            })
            .collect();
        eventually("others are to be written", || together.load(SeqCst) > 1 || pool.waiting_for_threads() > 1);
        drop(closed);
        for (stream, writer, reader) in streams {
            writer.join().unwrap().unwrap();
            assert_eq!(read_all(reader, stream).0, 12 * BLOCK as u64);
        }
        assert!(!full.load(SeqCst) && together.load(SeqCst) > 1);
        nothing_is_left(&pool);
    });
}
