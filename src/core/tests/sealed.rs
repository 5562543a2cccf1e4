//! Blocks that were encrypted on their way in and are still in memory, case by case.

use std::{io, sync::Arc};

use super::{
    super::{Core, Front, Room, WriteFault, WriteJob, Wrote},
    eio, fill_and_park, of, settle, spilling,
};
use crate::{
    block::Block,
    lender::{Lender, Purpose},
    options::OnFull,
    pool::Budget,
    slot::{SlotRun, TRAILER},
};

fn write_sealed(core: &mut Core) {
    assert_eq!(core.room().unwrap(), Room::Bytes(64));
    let mut block = core.take_tail().unwrap();
    let seal = |src: &[u8], into: &mut [u8]| {
        for (from, into) in src.iter().zip(into) {
            *into = from ^ 0xff;
        }
        Ok::<_, ()>([1; TRAILER])
    };
    block.seal_from(&[7; 64], seal).unwrap();
    assert_eq!(core.put_tail(block).unwrap(), 64);
    settle(core, 0);
}

/// Says whether it got a block to open.
fn open(core: &mut Core) -> bool {
    let mut opened = false;
    core.open_front(|_, block| {
        opened = true;
        block.open(|bytes, trailer| {
            assert_eq!(*trailer, [1; TRAILER]);
            for byte in bytes {
                *byte ^= 0xff;
            }
            Ok(())
        })
    });
    opened
}

fn look(core: &mut Core) -> Arc<Block> {
    let Front::Block { block, at } = core.front() else { panic!("{core:?}") };
    assert_eq!((at, block.filled()), (0, &[7; 64][..]));
    block
}

fn read(core: &mut Core) {
    let block = look(core);
    consume(core, block);
}

fn consume(core: &mut Core, block: Arc<Block>) {
    core.consume(64);
    core.put_back(block);
    settle(core, 0);
}

fn write_plain(core: &mut Core) {
    assert_eq!(core.room().unwrap(), Room::Bytes(64));
    assert_eq!(core.append(&[7; 64]), 64);
    settle(core, 0);
}

/// Four that are encrypted; one is on its way to disk and is the reader's next, the others are there.
fn on_its_way(lender: Option<Arc<dyn Lender>>) -> (Core, WriteJob) {
    written(lender, write_sealed)
}

fn written(lender: Option<Arc<dyn Lender>>, write: fn(&mut Core)) -> (Core, WriteJob) {
    let mut core = Core::new(of(4, u64::MAX, OnFull::Wait), lender);
    (0..4).for_each(|_| write(&mut core));
    while !core.squeeze() {}
    let mut slot = 100;
    loop {
        let want = core.wants_write().expect("all of it goes to disk");
        let job = core.start_write(SlotRun::new(slot, want));
        if job.blocks[0].0 == 0 {
            return (core, job);
        }
        slot += want;
        let done = job.blocks.len();
        core.wrote(job, Wrote { done, fault: None }, 0);
        settle(&mut core, 0);
    }
}

/// Where the reader keeps up that would be for nothing.
#[test]
fn c10_what_is_written_is_encrypted_where_it_goes_to_disk() {
    let mut core = Core::new(of(4, u64::MAX, OnFull::Wait), None);
    write_sealed(&mut core);
    assert!(!core.spills());
    while !core.squeeze() {}
    assert!(core.spills(), "others need its memory");
    assert!(open(&mut core));
    read(&mut core);
    assert!(!core.spills(), "the reader goes on");
    fill_and_park(&mut core, 0);
    assert!(!core.spills());
    spilling(&mut core, 0);
    assert!(core.spills(), "patience is over");
}

#[test]
fn c10_what_is_on_its_way_is_opened_in_a_copy_and_the_disk_gets_what_was_sealed() {
    for fails in [false, true] {
        let (mut core, job) = on_its_way(None);
        assert_eq!((core.stats().memory_held, core.stats().on_disk), (64, 3 * 64));
        assert!(matches!(core.front(), Front::Sealed));
        assert!(open(&mut core));
        assert_eq!(core.stats().memory_held, 2 * 64);
        let seen = look(&mut core);
        assert_eq!(job.blocks[0].1.filled(), [7 ^ 0xff; 64]);
        assert!(job.blocks[0].1.sealed().is_some());
        core.wrote(job, Wrote { done: usize::from(!fails), fault: fails.then(eio) }, 0);
        settle(&mut core, 0);
        // The copy is what it is read from, whether the disk has it now or not.
        assert_eq!(core.stats().memory_held, 64);
        consume(&mut core, seen);
        assert_eq!((core.stats().memory_held, core.stats().disk_held), (0, 3 * (64 + TRAILER as u64)));
    }
}

#[test]
fn c04_what_is_not_on_its_way_is_opened_where_it_lies() {
    let mut core = Core::new(of(4, u64::MAX, OnFull::Wait), None);
    (0..4).for_each(|_| write_sealed(&mut core));
    for left in (0..4).rev() {
        assert!(matches!(core.front(), Front::Sealed));
        assert!(open(&mut core));
        read(&mut core);
        assert_eq!(core.stats().memory_held, left * 64);
    }
}

/// Short reads were shown what goes to disk.
#[test]
fn c10_what_is_encrypted_is_not_read_quietly() {
    let mut core = Core::new(of(4, u64::MAX, OnFull::Wait), None);
    write_sealed(&mut core);
    assert!(core.look_quietly(10).is_none());
    assert!(open(&mut core));
    assert_eq!(core.look_quietly(10), Some(&[7; 10][..]));
}

#[test]
fn c04_the_memory_for_a_copy_is_asked_for_of_those_who_have_it() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    let (mut core, job) = on_its_way(Some(budget.clone()));
    assert!(matches!(core.front(), Front::Sealed));
    let mut others = 0;
    while budget.take(64, Purpose::Read) {
        others += 64;
    }
    assert!(!open(&mut core), "what was there a moment ago is gone");
    assert!(matches!(core.front(), Front::Wait));
    core.park_reader();
    let wakes = core.settle(0);
    assert_eq!((wakes.reader, wakes.lacks), (false, Some(Purpose::Read)));
    budget.give(others);
    core.memory_came();
    assert!(core.settle(0).reader);
    assert!(matches!(core.front(), Front::Sealed));
    assert!(open(&mut core));
    read(&mut core);
    core.wrote(job, Wrote { done: 1, fault: None }, 0);
}

/// The model found a reader that waited for ever: for the memory of a copy, when none was needed any more.
#[test]
fn c07_a_reader_that_waits_for_the_memory_of_a_copy_goes_on_when_the_write_has_ended() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    let (mut core, job) = on_its_way(Some(budget.clone()));
    while budget.take(64, Purpose::Read) {}
    assert!(matches!(core.front(), Front::Wait));
    core.park_reader();
    assert!(!core.settle(0).reader);
    // It stays where it is, and nobody else writes it.
    let full = WriteFault::Full(Arc::new(io::ErrorKind::StorageFull.into()));
    core.wrote(job, Wrote { done: 0, fault: Some(full) }, 0);
    assert!(core.settle(0).reader);
    assert!(open(&mut core));
    read(&mut core);
}

#[test]
fn c04_the_writer_leaves_a_block_for_the_copy_of_what_is_on_its_way() {
    let (mut core, job) = on_its_way(None);
    // Two of the three that are free; the last one is not the writer's.
    (0..2).for_each(|_| write_sealed(&mut core));
    assert_eq!((core.memory.free(), core.room().unwrap()), (64, Room::Full));
    assert!(open(&mut core));
    assert_eq!(core.memory.free(), 0);
    core.wrote(job, Wrote { done: 1, fault: None }, 0);

    // What needs no copy needs no memory for one.
    let (mut core, job) = written(None, write_plain);
    (0..3).for_each(|_| write_plain(&mut core));
    assert_eq!(core.memory.free(), 0);
    core.wrote(job, Wrote { done: 1, fault: None }, 0);
}
