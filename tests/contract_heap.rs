//! The memory ceiling (C4) as the allocator sees it, whatever the figures say.
#![allow(missing_docs, reason = "a test crate has no readers of its docs")]
#![allow(clippy::items_after_statements, reason = "a helper of one test stands where it is used")]
#![allow(unsafe_code, reason = "a global allocator that counts cannot be written without; it forwards to the system's")]

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, Ordering},
    },
};

use spillbuffer::SpillBuffer;

use crate::support::*;

struct Counted;

static HELD: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn count(change: isize) {
    let held = HELD.fetch_add(change, Ordering::Relaxed) + change;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call is forwarded as it came; the counting touches no memory of theirs.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// One test at a time: what another allocates would be counted too.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    pattern(0, 1);
    alone
}

fn held() -> isize {
    HELD.load(Ordering::Relaxed)
}

/// The highest since `work` began, beyond what was held then.
fn peak_of(work: impl FnOnce()) -> isize {
    let before = held();
    PEAK.store(before, Ordering::Relaxed);
    work();
    PEAK.load(Ordering::Relaxed) - before
}

/// Freed blocks that the process keeps for the next one, and what threads, errors and test take.
const BESIDES: usize = MIB + 256 * KIB;

#[test]
fn c04_a_buffer_that_holds_nothing_takes_2_kib_at_most() {
    let _alone = alone();
    const MANY: usize = 1000;
    let mut buffers = Vec::with_capacity(MANY);
    let builder = SpillBuffer::builder().memory_limit(64 * KIB);
    drop(builder.clone().build().unwrap());
    let before = held();
    buffers.extend((0..MANY).map(|_| builder.clone().build().unwrap().into_split()));
    let each = (held() - before) / MANY.cast_signed();
    assert!(each <= 2048, "{each} bytes for an unused buffer");
    // And it is not more when it has been used.
    for (writer, reader) in buffers.iter_mut().take(100) {
        write_pattern(writer, 0, 40_000);
        read_pattern(reader, 0, 40_000);
    }
    let after = held() - before - MIB.cast_signed();
    assert!(after <= 2048 * MANY.cast_signed(), "{after} bytes for {MANY} buffers, and what is kept for reuse");
}

#[test]
fn c04_the_allocator_sees_no_more_than_the_limit_while_a_backlog_grows_and_goes() {
    let _alone = alone();
    for limit in [64 * KIB, MIB, 8 * MIB] {
        let scratch = Scratch::new();
        let (mut writer, mut reader) = scratch.split(limit);
        let peak = peak_of(|| {
            write_pattern(&mut writer, 0, 48 * MIB);
            read_pattern(&mut reader, 0, 24 * MIB);
            write_pattern(&mut writer, 48 * MIB as u64, 8 * MIB);
            read_pattern(&mut reader, 24 * MIB as u64, 32 * MIB);
        });
        assert!(peak <= (limit + BESIDES).cast_signed(), "limit {limit}: {peak} bytes");
        let stats = reader.stats();
        assert!(stats.peak_memory_held > limit as u64 / 2, "the window was used: {stats:?}");
    }
}

#[test]
fn c04_the_allocator_sees_no_more_with_a_fast_writer_and_a_fast_reader_at_once() {
    let _alone = alone();
    let limit = 4 * MIB;
    let scratch = Scratch::new();
    let (mut writer, mut reader) = scratch.split(limit);
    let peak = peak_of(|| {
        let producer = std::thread::spawn(move || {
            write_pattern(&mut writer, 0, 64 * MIB);
            writer.finish().unwrap();
        });
        read_pattern(&mut reader, 0, 64 * MIB);
        producer.join().unwrap();
    });
    assert!(peak <= (limit + BESIDES).cast_signed(), "{peak} bytes");
}

#[test]
fn c04_bookkeeping_does_not_grow_with_a_contiguous_backlog() {
    let _alone = alone();
    let scratch = Scratch::new();
    let (mut writer, reader) = scratch.split(64 * KIB);
    let settled = |writer: &spillbuffer::SpillWriter| {
        // No write is on its way any more when the figures stand still.
        let mut last = writer.stats();
        eventually("it stands still", || {
            let now = writer.stats();
            let still = now.spilled == last.spilled && now.memory_held == last.memory_held;
            last = now;
            still
        });
        held()
    };
    write_pattern(&mut writer, 0, 16 * MIB);
    let before = settled(&writer);
    write_pattern(&mut writer, 16 * MIB as u64, 240 * MIB);
    let grown = settled(&writer) - before;
    assert!(reader.stats().on_disk > 250 << 20);
    // Blocks come and go whole, in use or kept for the next one; what is beside them is bookkeeping. A
    // quarter of a GiB: kept block by block it would be hundreds of KiB.
    const BLOCK: isize = (16 * KIB).cast_signed();
    assert!(grown <= 5 * BLOCK, "{grown} bytes for 240 MiB more");
    let beside = (grown + BLOCK / 2).rem_euclid(BLOCK) - BLOCK / 2;
    assert!(beside <= 4096, "{beside} bytes beside whole blocks for 240 MiB more");
}

#[test]
fn c04_an_empty_buffer_gives_its_memory_back_to_the_allocator() {
    let _alone = alone();
    let scratch = Scratch::new();
    let before = held();
    let mut all: Vec<_> = (0..8).map(|_| scratch.split(2 * MIB)).collect();
    for (writer, reader) in &mut all {
        write_pattern(writer, 0, 5 * MIB);
        read_pattern(reader, 0, 5 * MIB);
    }
    eventually("it is given back", || held() - before <= BESIDES.cast_signed());
    for (writer, _) in &mut all {
        write_pattern(writer, 0, 2 * MIB);
    }
    assert!(held() - before > 15 << 20, "of this each holds its window");
    for (_, reader) in &mut all {
        reader.cancel("enough");
    }
    eventually("it is given back", || held() - before <= BESIDES.cast_signed());
}
