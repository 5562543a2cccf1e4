//! What goes to disk and what comes back, case by case.

use std::{io, sync::Arc};

use super::{
    super::{
        Core, Front, Room, Wrote,
        ledger::{Entry, Ledger, Place},
    },
    consume_a_block, core, eio, fill, fill_and_park, of, settle, spilling, take_on_loan,
};
use crate::{
    error::{SpillError, StorageOp},
    lender::{Lender, Purpose},
    options::{Limits, OnFull},
    pool::Budget,
    slot::{SlotRun, TRAILER},
};

/// A window of sixteen blocks, full, with a writer that waits and whose patience is over.
fn wide_and_spilling() -> Core {
    let mut core = Core::new(of(16, u64::MAX, OnFull::Wait), None);
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    core
}

/// A call and a wake-up a block took a twentieth of the time of a writer that is slower than the disk.
#[test]
fn c03_a_writer_that_the_disk_is_ahead_of_is_written_in_halves_of_the_window() {
    let mut core = wide_and_spilling();
    let fill = |core: &mut Core, blocks: usize| {
        for _ in 0..blocks {
            let Ok(Room::Bytes(room)) = core.room() else { panic!("it waits for a disk that is ahead") };
            core.append(&vec![7; room]);
            settle(core, 2_000_000);
        }
    };
    let mut slot = 0;
    let mut batches = Vec::new();
    let mut write = |core: &mut Core, batches: &mut Vec<u64>| {
        while let Some(want) = core.wants_write() {
            let job = core.start_write(SlotRun::new(slot, want));
            let done = job.blocks.len();
            core.wrote(job, Wrote { done, fault: None }, 2_000_000);
            settle(core, 2_000_000);
            slot += want;
            batches.push(want);
        }
    };
    write(&mut core, &mut batches);
    batches.clear();
    for _ in 0..80 {
        fill(&mut core, 1);
        write(&mut core, &mut batches);
    }
    assert_eq!(batches, [8; 10]);

    // Whether it is ahead is seen by what came while it wrote: a block is hardly anything, two are not.
    for (come, ahead) in [(1, true), (2, false)] {
        while core.wants_write().is_none() {
            fill(&mut core, 1);
        }
        let job = core.wants_write().map(|want| core.start_write(SlotRun::new(slot, want))).unwrap();
        let done = job.blocks.len();
        slot += done as u64;
        fill(&mut core, come);
        core.wrote(job, Wrote { done, fault: None }, 2_000_000);
        assert_eq!(!core.keeps_the_disk_busy(), ahead, "{come}");
    }

    // One that keeps the disk busy is not made to wait for more to be written.
    fill_and_park(&mut core, 2_000_000);
    let job = core.wants_write().map(|want| core.start_write(SlotRun::new(slot, want))).unwrap();
    let done = job.blocks.len();
    fill_and_park(&mut core, 2_000_000);
    core.wrote(job, Wrote { done, fault: None }, 2_000_000);
    assert!(core.keeps_the_disk_busy());
    assert_eq!(core.wants_write(), Some(4));
}

/// As where the earliest blocks are written last, since they are wanted first.
#[test]
fn c04_a_run_that_comes_to_lie_before_another_is_one_with_it() {
    let mut core = wide_and_spilling();
    let write = |core: &mut Core, first: u64| {
        let want = core.wants_write().unwrap();
        let job = core.start_write(SlotRun::new(first, want));
        let from = job.blocks[0].0;
        core.wrote(job, Wrote { done: want as usize, fault: None }, 0);
        (from, want, core.ledger.iter().filter(|entry| matches!(entry.place, Place::Disk(_))).count())
    };
    assert_eq!(write(&mut core, 104), (4 * 64, 4, 1));
    assert_eq!(write(&mut core, 108), (8 * 64, 4, 1));
    assert_eq!(write(&mut core, 112), (12 * 64, 4, 1));
    // Others need the memory of those that are wanted first, too.
    core.squeeze();
    assert!(core.squeeze());
    assert_eq!(write(&mut core, 101), (64, 3, 1));
}

/// Twelve blocks on disk as one run that begins at slot 100, the reader in front of them, and nothing in memory.
fn at_the_disk() -> Core {
    let mut core = wide_and_spilling();
    for first in [100, 104, 108] {
        let job = core.start_write(SlotRun::new(first, 4));
        let done = job.blocks.len();
        core.wrote(job, Wrote { done, fault: None }, 0);
    }
    for _ in 0..4 {
        consume_a_block(&mut core);
        settle(&mut core, 0);
    }
    assert_eq!(places(&core), ["disk 100 12"]);
    core
}

fn places(core: &Core) -> Vec<String> {
    let place = |entry: &Entry| match &entry.place {
        Place::Disk(run) => format!("disk {} {}", run.first, run.count),
        Place::Ahead { slot, .. } => format!("ahead {slot}"),
        Place::Bad(_) => "bad".into(),
        Place::Memory(_) => "memory".into(),
        other => format!("{other:?}"),
    };
    core.ledger.iter().map(place).collect()
}

fn read_fault() -> SpillError {
    SpillError::storage(StorageOp::Read, "/".as_ref(), 0, io::Error::other("EIO"))
}

fn freed(core: &mut Core) -> Vec<(u64, u64)> {
    core.freed().map(|run| (run.first, run.count)).collect()
}

#[test]
fn c04_what_is_read_back_at_once_leaves_half_of_what_is_free_to_the_writer() {
    let mut core = at_the_disk();
    assert_eq!(core.wants_read(), Some(4), "the most at once");
    while let Ok(Room::Bytes(room)) = core.room() {
        core.append(&vec![7; room]);
    }
    assert_eq!(core.memory.free(), 64, "the last one is the reader's");
    assert_eq!(core.wants_read(), Some(1));
    let job = core.start_read(usize::MAX).unwrap();
    assert_eq!((job.run.first, job.run.count, job.behind), (100, 1, 11));
}

#[test]
fn c08_what_a_read_leaves_out_without_a_fault_stays_one_run() {
    let mut core = at_the_disk();
    let job = core.start_read(usize::MAX).unwrap();
    assert_eq!((job.run.count, job.behind), (4, 8));
    core.did_read(job, 1, None);
    assert_eq!(places(&core), ["ahead 100", "disk 101 11"]);
}

#[test]
fn c08_a_read_into_the_readers_own_memory_is_as_exact_as_any_other() {
    let mut core = at_the_disk();
    assert!(core.start_direct(63).is_none(), "whole slots only");
    let job = core.start_direct(3 * 64 + 10).unwrap();
    assert_eq!((job.run.first, job.run.count, job.len, job.behind), (100, 3, 192, 9));
    // A miss in the page cache: the rest is read in another way.
    assert_eq!(core.did_direct(&job, 1, None), 64);
    assert_eq!((places(&core), core.stats().read), (vec!["disk 101 11".into()], 5 * 64));

    let job = core.start_direct(3 * 64).unwrap();
    assert_eq!(core.did_direct(&job, 1, Some(read_fault())), 64);
    assert_eq!(places(&core), ["bad", "disk 103 9"], "the one behind what was good");
    assert_eq!(freed(&mut core), [(100, 1), (102, 1), (101, 1)]);
    assert!(matches!(core.front(), Front::Failed(SpillError::Storage { op: StorageOp::Read, .. })));

    // All of it was read: what failed is not of it.
    let mut core = at_the_disk();
    let job = core.start_direct(2 * 64).unwrap();
    assert_eq!(core.did_direct(&job, 2, Some(read_fault())), 128);
    assert_eq!(places(&core), ["disk 102 10"]);
    assert_eq!((freed(&mut core), core.stats().disk_held), (vec![(100, 2)], 10 * (64 + TRAILER as u64)));
}

#[test]
fn c08_a_broken_disk_is_tried_again_a_second_later_where_others_need_the_memory() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    core.cannot_write(eio(), 5);
    assert_eq!(core.deadline(), None, "not by itself");
    core.cannot_write(eio(), 5);
    assert_eq!(core.deadline(), Some(1_000_000_005));
}

#[test]
fn c04_bookkeeping_of_a_backlog_that_was_in_pieces_is_given_back() {
    let mut ledger = Ledger::default();
    for at in 0..10_000 {
        ledger.push(Entry { start: at, len: 1, place: Place::Disk(SlotRun::one(2 * at)) });
    }
    for at in 1..=10_000 {
        assert!(ledger.pop_before(at).is_some());
    }
    assert!(ledger.capacity() <= 64, "{}", ledger.capacity());
}

fn write_next(core: &mut Core, slot: u64) -> u64 {
    let want = core.wants_write().expect("something is to be written");
    let job = core.start_write(SlotRun::new(slot, want));
    let done = job.blocks.len();
    core.wrote(job, Wrote { done, fault: None }, 2_000_000);
    settle(core, 2_000_000);
    want
}

/// Writes as long as something is to be written, into slots from here on; says which is the first that was not needed.
fn write_all(core: &mut Core, mut slot: u64) -> u64 {
    while core.wants_write().is_some() {
        slot += write_next(core, slot);
    }
    slot
}

/// Eight blocks: two that the reader has taken, three read ahead of four on disk, two in memory behind them.
fn read_ahead(slots: u64) -> Core {
    let mut core = Core::new(of(8, slots, OnFull::Wait), None);
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    assert_eq!(write_next(&mut core, 100), 4);
    for _ in 0..2 {
        consume_a_block(&mut core);
        settle(&mut core, 2_000_000);
    }
    let job = core.start_read(usize::MAX).unwrap();
    core.did_read(job, 3, None);
    assert_eq!(places(&core), ["ahead 100", "ahead 101", "ahead 102", "disk 103 1", "memory", "memory"]);
    core
}

#[test]
fn c04_the_writer_takes_back_what_was_read_ahead_where_the_disk_takes_no_more() {
    let mut core = read_ahead(4);
    assert_eq!(fill(&mut core), 3 + 2, "three free blocks, and two that were read ahead");
    assert_eq!(places(&core)[..2], ["ahead 100", "disk 101 3"], "one run again; the reader is at the first");
    assert_eq!(core.memory.free(), 0);
    let mut read = 2 * 64;
    while read < 13 * 64 {
        if matches!(core.front(), Front::Disk) {
            let job = core.start_read(usize::MAX).unwrap();
            let good = job.blocks.len();
            core.did_read(job, good, None);
        }
        consume_a_block(&mut core);
        settle(&mut core, 2_000_000);
        read += 64;
        assert_eq!(core.stats().read, read);
    }
}

#[test]
fn c04_nothing_is_taken_back_while_a_write_is_about_to_free_memory() {
    let mut core = read_ahead(5);
    assert_eq!(fill(&mut core), 3);
    let job = core.start_write(SlotRun::new(104, core.wants_write().unwrap()));
    assert!(core.wants_write().is_none(), "the disk's limit");
    assert_eq!(core.room().unwrap(), Room::Full);
    assert_eq!(places(&core)[..3], ["ahead 100", "ahead 101", "ahead 102"]);
    core.wrote(job, Wrote { done: 1, fault: None }, 2_000_000);
    assert_eq!(core.room().unwrap(), Room::Bytes(64));
}

#[test]
fn c04_what_was_read_ahead_is_one_run_again_when_others_need_its_memory() {
    let mut core = read_ahead(4);
    assert!(!core.squeeze(), "the reader has moved");
    assert!(!core.squeeze(), "asked for the first time");
    assert!(core.squeeze());
    assert_eq!(places(&core), ["disk 100 4", "memory", "memory"]);
    // One who moves is let off again, and asked anew.
    let job = core.start_read(usize::MAX).unwrap();
    core.did_read(job, 1, None);
    consume_a_block(&mut core);
    assert!(!core.squeeze() && !core.squeeze());
    assert!(core.squeeze());
}

#[test]
fn c03_nothing_is_written_while_most_of_the_memory_is_free() {
    let mut core = wide_and_spilling();
    write_all(&mut core, 100);
    assert_eq!(core.stats().memory_held, 4 * 64);
    for _ in 0..4 {
        consume_a_block(&mut core);
        settle(&mut core, 2_000_000);
    }
    core.disk.ahead = false;
    for _ in 0..2 {
        assert!(matches!(core.room(), Ok(Room::Bytes(64))));
        core.append(&[7; 64]);
    }
    assert!(core.wants_write().is_none(), "also where the reader is at the disk");
}

#[test]
fn c03_a_batch_is_a_quarter_of_the_window_and_half_of_a_small_one() {
    for (blocks, batch) in [(4, 2), (8, 4), (16, 4), (32, 8)] {
        let mut core = Core::new(of(blocks, u64::MAX, OnFull::Wait), None);
        fill_and_park(&mut core, 0);
        spilling(&mut core, 0);
        assert_eq!(core.wants_write(), Some(batch), "{blocks}");
    }
}

#[test]
fn c03_what_is_lent_is_no_part_of_the_window() {
    let mut core = Core::new(of(16, u64::MAX, OnFull::Wait), None);
    fill_and_park(&mut core, 0);
    let _lent = take_on_loan(&mut core, 8);
    fill_and_park(&mut core, 0);
    assert_eq!(core.stats().in_memory, 8 * 64, "what is lent is held");
    spilling(&mut core, 0);
    let job = core.start_write(SlotRun::new(0, core.wants_write().unwrap()));
    assert_eq!((job.blocks[0].0, job.blocks.len()), ((8 + 2) * 64, 4), "of the eight that are left two stay");
}

#[test]
fn c03_short_blocks_are_written_when_little_room_is_left_though_a_batch_they_never_make() {
    let mut core = wide_and_spilling();
    write_all(&mut core, 100);
    core.disk.ahead = true;
    while core.memory.free() > 4 * 64 {
        assert!(core.wants_write().is_none(), "there is room to wait for more: {}", core.memory.free());
        assert!(matches!(core.room(), Ok(Room::Bytes(_))));
        core.append(&[7; 10]);
        core.seal_tail();
    }
    assert_eq!(core.wants_write(), Some(1));
}

#[test]
fn c03_a_small_window_is_never_waited_for() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    write_all(&mut core, 0);
    assert!(matches!(core.room(), Ok(Room::Bytes(64))));
    core.append(&[7; 64]);
    assert_eq!(core.wants_write(), Some(1));
}

#[test]
fn c05_spilling_goes_on_until_nothing_is_on_disk_and_no_longer() {
    let mut core = at_the_disk();
    for left in (0..12).rev() {
        let job = core.start_direct(64).unwrap();
        assert_eq!(core.did_direct(&job, 1, None), 64);
        settle(&mut core, 0);
        assert_eq!(core.disk.spilling, left > 0, "{left}");
    }
    fill_and_park(&mut core, 0);
    assert!(core.wants_write().is_none() && core.deadline().is_some(), "the writer is held first");
}

#[test]
fn c06_slots_that_come_free_in_order_are_one_run() {
    let mut core = at_the_disk();
    for _ in 0..3 {
        let job = core.start_direct(64).unwrap();
        core.did_direct(&job, 1, None);
    }
    assert_eq!(freed(&mut core), [(100, 3)]);
}

#[test]
fn c04_a_direct_read_that_got_nothing_leaves_one_run() {
    let mut core = at_the_disk();
    let job = core.start_direct(3 * 64).unwrap();
    assert_eq!(core.did_direct(&job, 0, None), 0);
    assert_eq!(places(&core), ["disk 100 12"]);
}

#[test]
fn c04_a_block_that_is_being_read_into_needs_no_other() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    write_next(&mut core, 0);
    consume_a_block(&mut core);
    settle(&mut core, 0);
    let job = core.start_read(usize::MAX).unwrap();
    assert_eq!((job.blocks.len(), core.memory.free()), (1, 128));
    assert_eq!(fill(&mut core), 2, "the block that it needs it has");
}

#[test]
fn c08_a_writer_that_rather_fails_waits_for_memory_while_the_disk_has_room() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    let mut core = Core::new(of(6, u64::MAX, OnFull::Fail), Some(budget.clone()));
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    assert!(!core.squeeze() && core.squeeze());
    write_all(&mut core, 0);
    assert!(budget.take(budget.available(Purpose::Read) * 64, Purpose::Read), "others have the rest");
    assert_eq!(core.room().unwrap(), Room::Full, "the disk takes what others have");
    budget.exhaust(None);
    assert!(matches!(core.room(), Err(SpillError::DiskLimit { .. })));
}

#[test]
fn c04_where_memory_is_short_for_all_everything_goes_to_disk() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    let mut core = Core::new(of(8, u64::MAX, OnFull::Wait), Some(budget.clone()));
    fill_and_park(&mut core, 0);
    core.disk.spilling = true;
    let slot = write_all(&mut core, 0);
    assert_eq!(core.memory.held(), 2 * 64, "there is enough");
    assert!(budget.take(budget.available(Purpose::Read) * 64, Purpose::Read));
    write_all(&mut core, slot);
    assert_eq!(core.memory.held(), 0);
}

/// A window of sixteen in a pool of so many blocks; the reader has come to the disk.
fn at_the_disk_of_a_pool(blocks: usize) -> (Arc<Budget>, Core) {
    let budget = Arc::new(Budget::new(blocks * 64, 64));
    let mut core = Core::new(of(16, u64::MAX, OnFull::Wait), Some(budget.clone()));
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    write_all(&mut core, 100);
    while matches!(core.front(), Front::Block { .. }) {
        consume_a_block(&mut core);
        settle(&mut core, 0);
    }
    (budget, core)
}

#[test]
fn c04_memory_is_set_aside_where_nobody_wants_it_and_the_reader_keeps_a_block() {
    let mut core = at_the_disk();
    assert_eq!(core.take_spare(4), 0, "the writer may want it");
    core.finish().unwrap();
    assert_eq!(core.take_spare(4), 4);
    assert_eq!(core.stats().memory_held, 4 * 64);
    core.return_spare(4);
    assert_eq!(core.take_spare(100), 15);
    assert!(core.wants_read().is_some());
    core.return_spare(15);
    assert_eq!(core.stats().memory_held, 0);
    // Not of a small window, nor where others are short of it.
    let mut core = read_ahead(5);
    core.finish().unwrap();
    assert_eq!(core.take_spare(4), 0);
    let (budget, mut core) = at_the_disk_of_a_pool(128);
    core.finish().unwrap();
    assert_eq!(core.take_spare(4), 4);
    assert_eq!(budget.held(), 4 * 64);
    core.return_spare(4);
    assert_eq!(budget.held(), 0);
    assert!(!core.squeeze(), "it has nothing");
    assert_eq!(core.take_spare(4), 4);
    assert!(!core.squeeze() && core.squeeze());
    core.return_spare(4);
    assert_eq!(core.take_spare(4), 0, "others need it");
    let (budget, mut core) = at_the_disk_of_a_pool(128);
    core.finish().unwrap();
    assert!(budget.take((budget.available(Purpose::Write) - 10) * 64, Purpose::Write));
    assert_eq!(core.take_spare(4), 0, "the pool's is nearly used up");
}

/// Sixteen of the largest blocks had four of them stay, and the writer twelve; it waited longer for the disk.
#[test]
fn c03_no_more_stays_in_memory_than_takes_a_reader_to_the_disk() {
    for (block, blocks, stay) in [(64 << 10, 16, 2), (64 << 10, 1024, 2), (32 << 10, 8, 2), (16 << 10, 4, 1)] {
        let limits = Limits { memory: blocks * block, block, ..of(0, u64::MAX, OnFull::Wait) };
        let mut core = Core::new(limits, None);
        fill_and_park(&mut core, 0);
        spilling(&mut core, 0);
        let job = core.start_write(SlotRun::new(0, core.wants_write().unwrap()));
        assert_eq!(job.blocks[0].0, stay * block as u64, "{blocks} of {block}");
    }
}
