//! A fault stays with the stream that it hit: all others of the pool carry their bytes, and what the stream held comes
//! back to them.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use super::{
    BLOCK, HANG, KIB, MIB, Spot, eventually, nothing_is_left, owner, pattern, read_all, read_some, spot, with_pool,
    write_all,
};
use crate::{
    PoolBuilder, SpillError, SpillPool, StorageOp,
    storage::sys::{
        faulty::Scripted,
        hooked::{Act, Call, Hooked},
    },
};

/// Each test has a directory of its own, and so threads of its own.
fn small(dir: &str) -> PoolBuilder {
    SpillPool::builder().memory_limit(MIB).temp_dir(dir)
}

/// Whether a stream's bytes are among these, on their way to disk.
fn writes(call: &Call<'_>, stream: u64) -> bool {
    match call {
        Call::Write { bufs, at, .. } => {
            matches!(spot(*at), Spot::Payload(_)) && bufs.iter().any(|buf| owner(buf) == stream)
        }
        _ => false,
    }
}

/// Says yes once.
#[derive(Default)]
struct Once(AtomicUsize);

impl Once {
    fn now(&self) -> bool {
        self.0.fetch_add(1, SeqCst) == 0
    }
}

fn eio() -> Act {
    Act::Fail(io::Error::other("EIO, as planned"))
}

/// Three streams at once, of which some are hit: who was, by what, and that all others got everything.
fn three_streams(pool: &SpillPool) -> Vec<(u64, SpillError)> {
    let len = 2 * MIB;
    let pool = pool.clone();
    with_pool(&pool.clone(), move || {
        let (writers, readers): (Vec<_>, Vec<_>) = (1..=3u64)
            .map(|stream| {
                let (writer, reader) = pool.buffer().into_split();
                (write_all(writer, stream, len), (stream, reader))
            })
            .unzip();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        let mut hit = Vec::new();
        for ((stream, reader), written) in readers.into_iter().zip(written) {
            let control = reader.control();
            let (bytes, end) = read_all(reader, stream);
            assert_eq!(written.is_ok(), end.is_ok(), "stream {stream}: {written:?}, {end:?}");
            assert_eq!(bytes, control.stats().written, "stream {stream}: every accepted byte comes before any end");
            match end {
                Ok(()) => assert_eq!(bytes, len as u64),
                Err(error) => hit.push((stream, error)),
            }
        }
        nothing_is_left(&pool);
        hit
    })
}

#[test]
fn c08_a_write_that_fails_is_told_to_its_own_stream_alone() {
    let pool = small("/pool-eio")
        .build_on(Hooked::new(Scripted::default(), |call| if writes(call, 2) { eio() } else { Act::Go }));
    let hit = three_streams(&pool.unwrap());
    let [(2, SpillError::Storage { op: StorageOp::Write, source, .. })] = &hit[..] else { panic!("{hit:?}") };
    assert!(source.to_string().contains("as planned"));
}

/// What many streams want written goes in one call, and that fails, or panics, for one of them: each is written by itself then.
#[test]
fn c08_a_fault_of_one_that_is_written_with_others_hits_it_alone() {
    const STREAMS: u64 = 12;
    for panics in [false, true] {
        let (gate, together) = (Arc::new(RwLock::new(())), Arc::new(AtomicUsize::new(0)));
        let hooked = Hooked::new(Scripted::default(), {
            let (gate, together) = (Arc::clone(&gate), Arc::clone(&together));
            move |call| {
                let of_five = writes(call, 5);
                if let Call::Write { bufs, at, .. } = call
                    && matches!(spot(*at), Spot::Payload(_))
                {
                    let owners: BTreeSet<u64> = bufs.iter().map(|buf| owner(buf)).collect();
                    together.fetch_max(owners.len(), SeqCst);
                    drop(gate.read());
                }
                match of_five {
                    true if panics => Act::Panic,
                    true => eio(),
                    false => Act::Go,
                }
            }
        });
        let pool = SpillPool::builder().memory_limit(4 * MIB).temp_dir("/pool-together").build_on(hooked).unwrap();
        with_pool(&pool.clone(), move || {
            // One writes, and meanwhile all others come to the end of their windows.
            let closed = gate.write().unwrap();
            let streams: Vec<_> = (1..=STREAMS)
                .map(|stream| {
                    let buffer = pool.builder().memory_limit(4 * BLOCK).build().unwrap();
                    let (writer, reader) = buffer.into_split();
                    (stream, write_all(writer, stream, 8 * BLOCK), reader)
                })
                .collect();
            // Those that the first call does not have wait for a thread, and each thread waits for the file.
            eventually("others are to be written", || together.load(SeqCst) > 1 || pool.waiting_for_threads() > 1);
            drop(closed);
            for (stream, writer, reader) in streams {
                let written = writer.join().unwrap();
                let (bytes, end) = read_all(reader, stream);
                assert_eq!(
                    (written.is_err(), end.is_err()),
                    (stream == 5, stream == 5),
                    "{stream}: {written:?} {end:?}"
                );
                assert!(stream == 5 || bytes == 8 * BLOCK as u64);
            }
            assert!(together.load(SeqCst) > 1, "none was written with another");
            nothing_is_left(&pool);
        });
    }
}

/// However many streams want something written, one call takes so many blocks and no more: it has the file meanwhile.
#[test]
fn c12_what_is_written_in_one_call_has_a_bound() {
    const STREAMS: u64 = 120;
    let (gate, most) = (Arc::new(RwLock::new(())), Arc::new(AtomicUsize::new(0)));
    let hooked = Hooked::new(Scripted::default(), {
        let (gate, most) = (Arc::clone(&gate), Arc::clone(&most));
        move |call| {
            if let Call::Write { bufs, at, .. } = call
                && matches!(spot(*at), Spot::Payload(_))
            {
                most.fetch_max(bufs.len(), SeqCst);
                drop(gate.read());
            }
            Act::Go
        }
    });
    let pool = SpillPool::builder().memory_limit(8 * MIB).temp_dir("/pool-bound").build_on(hooked).unwrap();
    with_pool(&pool.clone(), move || {
        let closed = gate.write().unwrap();
        let streams: Vec<_> = (1..=STREAMS)
            .map(|stream| {
                let (writer, reader) = pool.builder().memory_limit(4 * BLOCK).build().unwrap().into_split();
                (stream, write_all(writer, stream, 2 * BLOCK), reader)
            })
            .collect();
        // There is less memory than they want, so those that stand still are asked for theirs, a block each.
        eventually("many have a block to write", || most.load(SeqCst) + pool.waiting_for_threads() > 18);
        drop(closed);
        for (stream, writer, reader) in streams {
            writer.join().unwrap().unwrap();
            assert_eq!(read_all(reader, stream).0, 2 * BLOCK as u64);
        }
        let most = most.load(SeqCst);
        // One less than sixteen, and the two at most that a window of four blocks gives at once.
        assert!((4..=17).contains(&most), "{most} blocks in one call");
        nothing_is_left(&pool);
    });
}

/// While one thread has the file, another is at the stream's next blocks: to encrypt them, where they are.
#[test]
fn c03_two_threads_write_for_one_stream_where_that_is_worth_it() {
    let gate = Arc::new(RwLock::new(()));
    let hooked = Hooked::new(Scripted::default(), {
        let gate = Arc::clone(&gate);
        move |call| {
            if writes(call, 1) {
                drop(gate.read());
            }
            Act::Go
        }
    });
    let pool = SpillPool::builder().memory_limit(4 * MIB).assisted(true).temp_dir("/pool-assisted").build_on(hooked);
    let pool = pool.unwrap();
    with_pool(&pool.clone(), move || {
        let closed = gate.write().unwrap();
        let (writer, reader) = pool.buffer().into_split();
        let writer = write_all(writer, 1, 3 * MIB);
        // One writes a quarter of its window at a time; the first a block less, for the rest would lie badly.
        let quarter = (MIB / 4) as u64;
        eventually("two are at work", || pool.stats().disk_held > 2 * quarter - BLOCK as u64);
        drop(closed);
        writer.join().unwrap().unwrap();
        let (bytes, end) = read_all(reader, 1);
        end.unwrap();
        assert_eq!(bytes, 3 * MIB as u64);
        nothing_is_left(&pool);
    });
}

/// What a stream held whose writes had failed stayed in memory until it was read. Where that was all that a pool has for
/// writers, all others waited for its reader.
#[test]
fn c08_a_stream_that_cannot_write_holds_nobody_up() {
    for fails in [1, usize::MAX] {
        let (gate, tries) = (Arc::new(RwLock::new(())), AtomicUsize::new(0));
        let hooked = Hooked::new(Scripted::default(), {
            let gate = Arc::clone(&gate);
            move |call| {
                if !writes(call, 2) {
                    return Act::Go;
                }
                drop(gate.read());
                if tries.fetch_add(1, SeqCst) < fails { eio() } else { Act::Go }
            }
        });
        let pool = small("/pool-full-of-one").build_on(hooked).unwrap();
        with_pool(&pool.clone(), move || {
            let closed = gate.write().unwrap();
            let (writer, hit) = pool.buffer().into_split();
            let writer = write_all(writer, 2, 2 * MIB);
            let all_for_writers = 11 * BLOCK as u64;
            eventually("it has what there is", || pool.stats().memory_held >= all_for_writers);
            drop(closed);
            let error = writer.join().unwrap().unwrap_err();
            assert!(matches!(error, SpillError::Storage { op: StorageOp::Write, .. }), "{error:?}");
            assert!(fails == 1 || pool.stats().memory_held >= all_for_writers);
            let readers: Vec<_> = [1, 3]
                .map(|stream| {
                    let (writer, reader) = pool.buffer().into_split();
                    (stream, write_all(writer, stream, 2 * MIB), reader)
                })
                .into_iter()
                .map(|(stream, writer, reader)| {
                    writer.join().unwrap().unwrap();
                    (stream, reader)
                })
                .collect();
            if fails == 1 {
                // Tried again, it went to disk.
                let control = hit.control();
                eventually("it gives its memory up", || control.stats().memory_held == 0);
            }
            for (stream, reader) in readers {
                let (bytes, end) = read_all(reader, stream);
                end.unwrap();
                assert_eq!(bytes, 2 << 20);
            }
            let written = hit.stats().written;
            let (bytes, end) = read_all(hit, 2);
            assert_eq!(bytes, written);
            assert!(matches!(end, Err(SpillError::Storage { op: StorageOp::Write, .. })), "{end:?}");
            nothing_is_left(&pool);
        });
    }
}

#[test]
fn c08_a_job_that_panics_is_told_to_its_own_stream_alone() {
    let pool = small("/pool-panic")
        .build_on(Hooked::new(Scripted::default(), |call| if writes(call, 2) { Act::Panic } else { Act::Go }));
    let hit = three_streams(&pool.unwrap());
    let [(2, SpillError::Storage { op: StorageOp::Write, source, .. })] = &hit[..] else { panic!("{hit:?}") };
    assert!(source.to_string().contains("panicked: as planned"), "{source}");
}

/// What one stream does for all, that is making the file and asking for its space, failed: only that one is told, and the
/// next one does it.
#[test]
fn c08_what_one_does_for_all_fails_alone() {
    for call_of in [|call: &Call<'_>| matches!(call, Call::Create), |call: &Call<'_>| matches!(call, Call::Space)] {
        for panics in [false, true] {
            let once = Once::default();
            let hooked = Hooked::new(Scripted::default(), move |call| match call_of(call) && once.now() {
                true if panics => Act::Panic,
                true => eio(),
                false => Act::Go,
            });
            let hit = three_streams(&small("/pool-create").build_on(hooked).unwrap());
            let [(_, SpillError::Storage { op: StorageOp::Create, source, .. })] = &hit[..] else { panic!("{hit:?}") };
            assert!(source.to_string().contains(if panics { "panicked" } else { "as planned" }), "{source}");
        }
    }
}

/// A fault while space is given back is nobody's: neither slots nor upkeep end with it.
#[test]
fn c06_a_punch_that_fails_or_panics_loses_no_slot() {
    for panics in [false, true] {
        let once = Arc::new(Once::default());
        let hooked = Hooked::new(Scripted::default(), {
            let once = Arc::clone(&once);
            move |call| match matches!(call, Call::Punch { .. }) && once.now() {
                true if panics => Act::Panic,
                true => eio(),
                false => Act::Go,
            }
        });
        let pool = small("/pool-punch").disk_limit(12 << 20).retain(0).build_on(hooked.clone()).unwrap();
        with_pool(&pool.clone(), move || {
            let (writer, reader) = pool.buffer().into_split();
            write_all(writer, 1, 11 * MIB).join().unwrap().unwrap();
            assert_eq!(read_all(reader, 1).0, 11 << 20);
            eventually("a hole is punched", || once.0.load(SeqCst) > 0);
            // It needs nearly all that there is, with nobody reading.
            let (writer, reader) = pool.buffer().into_split();
            write_all(writer, 2, 12 * MIB).join().unwrap().unwrap();
            assert_eq!(read_all(reader, 2).0, 12 << 20);
            nothing_is_left(&pool);
            eventually("the file is closed", || hooked.open() == 0);
        });
    }
}

/// A stream that is dropped while the disk has its blocks in hands: the rest goes on, and what it held comes back when the disk
/// lets go.
#[test]
fn c08_a_stream_that_goes_with_jobs_in_flight_leaks_nothing() {
    let (gate, at_it) = (Arc::new(RwLock::new(())), Arc::new(AtomicUsize::new(0)));
    let hooked = Hooked::new(Scripted::default(), {
        let (gate, at_it) = (Arc::clone(&gate), Arc::clone(&at_it));
        move |call| {
            if writes(call, 1) {
                at_it.fetch_add(1, SeqCst);
                drop(gate.read());
            }
            Act::Go
        }
    });
    let pool = small("/pool-hung").build_on(hooked).unwrap();
    with_pool(&pool.clone(), move || {
        let closed = gate.write().unwrap();
        let (mut writer, reader) = pool.builder().memory_limit(256 * KIB).build().unwrap().into_split();
        let control = reader.control();
        let item = pattern(1, 0, 512 * KIB).into();
        futures(writer.write_bytes(item)).unwrap();
        eventually("the disk has some of it", || at_it.load(SeqCst) > 0);
        drop((writer, reader));
        let left = control.stats();
        assert!(left.memory_held > 0 && left.disk_held > 0, "in flight: {left:?}");

        // A file is written by one at a time: this one goes on as far as memory goes.
        let (writer, reader) = pool.buffer().into_split();
        let writer = write_all(writer, 2, 3 * MIB);
        eventually("another goes on", || reader.stats().written >= 4 * BLOCK as u64);
        drop(closed);
        writer.join().unwrap().unwrap();
        assert!(reader.stats().spilled > 0);
        assert_eq!(read_all(reader, 2).0, 3 << 20);
        eventually("it comes back", || (control.stats().memory_held, control.stats().disk_held) == (0, 0));
        drop(control);
        nothing_is_left(&pool);
    });
}

fn futures<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(HANG, run).await.expect("it hangs") })
}

/// A read that fails ends its stream at its own place; the bytes before it have come, and the slots behind it come back.
#[test]
fn c08_a_read_that_fails_is_told_to_its_own_stream_alone() {
    let whose = Arc::new(AtomicUsize::new(0));
    let hooked = Hooked::new(Scripted::default(), {
        let whose = Arc::clone(&whose);
        move |call| match call {
            Call::Read { file, at, .. } => match spot(*at) {
                Spot::Payload(slot) if super::identity(*file, slot).0 == whose.load(SeqCst) as u64 => eio(),
                _ => Act::Go,
            },
            _ => Act::Go,
        }
    });
    let pool = small("/pool-read").build_on(hooked).unwrap();
    with_pool(&pool.clone(), move || {
        let (writer, reader) = pool.buffer().into_split();
        let (other_writer, other) = pool.buffer().into_split();
        whose.store(reader.control().stream_id() as usize, SeqCst);
        write_all(writer, 1, 2 * MIB).join().unwrap().unwrap();
        write_all(other_writer, 2, 2 * MIB).join().unwrap().unwrap();
        let (bytes, end) = read_all(reader, 1);
        let Err(SpillError::Storage { op: StorageOp::Read, offset, .. }) = end else { panic!("{end:?}") };
        assert_eq!(offset, bytes);
        assert_eq!(read_all(other, 2).0, 2 << 20);
        nothing_is_left(&pool);
    });
}

/// What had been read of a block while memory held it was named as what cannot be trusted, when the rest of the block went
/// to disk and did not come back.
#[test]
fn c14_what_was_read_from_memory_is_not_named_as_corrupt() {
    let hooked = Hooked::new(Scripted::default(), |call| match call {
        Call::Read { at, .. } if matches!(spot(*at), Spot::Payload(_)) => Act::Flip(0),
        _ => Act::Go,
    });
    let pool = small("/pool-half").build_on(hooked).unwrap();
    with_pool(&pool.clone(), move || {
        let (writer, reader) = pool.builder().memory_limit(512 * KIB).build().unwrap().into_split();
        let (mut writer, mut reader) = (writer.into_blocking(), reader.into_blocking());
        writer.write_all(&pattern(1, 0, 4 * BLOCK)).unwrap();
        read_some(&mut reader, 1, 0, 10_000);
        // Another wants the memory, for as long as it takes.
        let control = reader.control();
        let (other_writer, other) = pool.buffer().into_split();
        let mut other_writer = other_writer.into_blocking();
        eventually("its rest is on disk", || {
            other_writer.write_all(&vec![7; MIB]).unwrap();
            control.stats().memory_held == 0
        });
        let error = io::Read::read(&mut reader, &mut [0; 100]).unwrap_err();
        let error = super::ours(&error);
        assert!(matches!(error, SpillError::Corrupt { offset: 10_000, .. }), "{error:?}");
        drop(other_writer);
        drop((writer, reader, other, control));
        nothing_is_left(&pool);
    });
}
