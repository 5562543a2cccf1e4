//! The core alone: properties over the model, and what single cases show better.

mod jobs;
mod sealed;

use proptest::prelude::*;

use std::{io, sync::Arc};

use super::{
    Core, Front, Room, WriteFault, Wrote,
    jobs::BUSY,
    model::{Fault, Herd, HerdOp, Model, Op},
};
use crate::{
    block::Block,
    error::{SpillError, StorageOp},
    lender::{Lender, Purpose},
    options::{Limits, OnFull},
    pool::Budget,
    slot::SlotRun,
};

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Full),
        1 => Just(Fault::Io),
        1 => Just(Fault::Corrupt),
        1 => Just(Fault::Lost),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => any::<u16>().prop_map(Op::Write),
        3 => any::<(u8, u8)>().prop_map(|(one, two)| Op::WriteVectored(one, two)),
        4 => Just(Op::TakeTail),
        4 => any::<u8>().prop_map(Op::PutTail),
        6 => any::<u16>().prop_map(Op::WriteBytes),
        12 => any::<u16>().prop_map(Op::Read),
        6 => Just(Op::NextChunk),
        6 => any::<u16>().prop_map(Op::ReadDirect),
        5 => any::<u8>().prop_map(Op::Look),
        5 => any::<u8>().prop_map(Op::DropChunk),
        1 => Just(Op::ForgetReader),
        1 => Just(Op::ForgetWriter),
        2 => Just(Op::Squeeze),
        15 => Just(Op::Drive),
        15 => (any::<u8>(), any::<u8>(), fault()).prop_map(|(which, part, fault)| Op::Complete(which, part, fault)),
        8 => (0u32..3_000_000).prop_map(Op::PassTime),
    ]
}

fn end() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Finish),
        1 => Just(Op::Fail),
        1 => Just(Op::Abort),
        1 => Just(Op::DropWriter),
        1 => Just(Op::Cancel),
        1 => Just(Op::DropReader),
    ]
}

fn script() -> impl Strategy<Value = Vec<Op>> {
    let part = |n| prop::collection::vec(op(), 0..n);
    (part(120), prop::collection::vec(end(), 0..3), part(40)).prop_map(|(mut ops, ends, after)| {
        ops.extend(ends);
        ops.extend(after);
        ops
    })
}

fn limits() -> impl Strategy<Value = (Limits, u64)> {
    (
        prop_oneof![3 => 4usize..10, 1 => 16usize..24],
        0usize..64,
        prop_oneof![Just(None), (0u64..20).prop_map(Some)],
        any::<bool>(),
    )
        .prop_map(|(blocks, odd, slots, fail)| {
            let limits = Limits {
                memory: blocks * 64 + odd,
                block: 64,
                encrypt: false,
                assisted: false,
                disk: slots,
                slots: slots.unwrap_or(u64::MAX),
                on_full: if fail { OnFull::Fail } else { OnFull::Wait },
            };
            (limits, slots.unwrap_or(10_000))
        })
}

/// Four times what is usual; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 4, max_shrink_iters: 20_000, failure_persistence: None, ..usual }
}

/// A herd takes longer than a single buffer.
fn herd_config() -> ProptestConfig {
    ProptestConfig { cases: ProptestConfig::default().cases, ..config() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn c01_every_accepted_byte_comes_out_once_or_an_error_does((limits, slots) in limits(), ops in script()) {
        Model::new(limits, slots).run(&ops);
    }
}

fn core() -> Core {
    Core::new(of(4, u64::MAX, OnFull::Wait), None)
}

fn herd_op() -> impl Strategy<Value = HerdOp> {
    let who = any::<u8>();
    prop_oneof![
        60 => (who, op()).prop_map(|(who, op)| HerdOp::One(who, op)),
        2 => (who, end()).prop_map(|(who, op)| HerdOp::One(who, op)),
        8 => who.prop_map(HerdOp::Spill),
        5 => who.prop_map(HerdOp::CatchUp),
        1 => who.prop_map(HerdOp::Drop),
        10 => who.prop_map(HerdOp::Tell),
        6 => Just(HerdOp::WantAgain),
        3 => any::<u8>().prop_map(HerdOp::Punch),
        3 => any::<bool>().prop_map(HerdOp::Punched),
        2 => Just(HerdOp::Rest),
        1 => any::<u8>().prop_map(HerdOp::Space),
    ]
}

proptest! {
    #![proptest_config(herd_config())]

    #[test]
    fn c04_buffers_that_share_memory_and_disk_all_get_on_and_give_all_back(
        count in 2usize..6,
        slots in prop_oneof![1u64..8, 8u64..64, Just(10_000)],
        fail in prop::bool::weighted(0.25),
        ops in prop::collection::vec(herd_op(), 0..250),
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let on_full = if fail { OnFull::Fail } else { OnFull::Wait };
        let limits = Limits { disk: Some(slots * 64), ..of(6, slots, on_full) };
        let order: Vec<_> = order.into_iter().filter(|at| *at < count).collect();
        Herd::new(count, limits, &Arc::new(Budget::new(8 * 64, 64))).run(&ops, &order);
    }
}

/// As the shell does it.
fn settle(core: &mut Core, now: u64) {
    if core.settle_if_quiet().is_some() {
        return;
    }
    let settle = |core: &mut Core| {
        let now = if core.needs_time() { now } else { 0 };
        core.settle(now).more
    };
    let mut more = settle(core);
    while more {
        more = core.absorb_more() | settle(core);
    }
}

/// A buffer whose item waits for room, and whose patience is over.
fn spilling(core: &mut Core, now: u64) {
    settle(core, now);
    let at = core.deadline().expect("the writer is held");
    core.tick(at);
    settle(core, at);
}

fn eio() -> WriteFault {
    let source = io::Error::from_raw_os_error(5);
    WriteFault::Broken(SpillError::storage(StorageOp::Write, "/".as_ref(), 0, source))
}

fn read_all(core: &mut Core) -> (usize, Front) {
    let mut read = 0;
    loop {
        let n = match core.front() {
            Front::Block { block, at } => {
                let n = block.len() - at;
                core.consume(n);
                core.put_back(block);
                n
            }
            Front::Tail(n) => {
                core.consume(n);
                n
            }
            Front::Item(item) => {
                core.consume(item.len());
                item.len()
            }
            other => return (read, other),
        };
        read += n;
        settle(core, 0);
    }
}

#[test]
fn c08_a_write_error_after_finish_is_a_clean_end_if_memory_has_everything() {
    for finished in [true, false] {
        let mut core = core();
        assert!(core.offer(&mut vec![7; 1000].into()).unwrap());
        if finished {
            core.finish().unwrap();
        }
        spilling(&mut core, 0);
        let want = core.wants_write().expect("the item waits for room");
        let job = core.start_write(SlotRun::new(0, want));
        core.wrote(job, Wrote { done: 0, fault: Some(eio()) }, 0);
        settle(&mut core, 0);
        assert_eq!(core.check_write().is_err_and(|error| matches!(error, SpillError::Storage { .. })), !finished);
        let (read, end) = read_all(&mut core);
        assert_eq!(read, 1000, "every accepted byte is in memory");
        match end {
            Front::End => assert!(finished),
            Front::Failed(error) => assert!(!finished && error.raw_os_error() == Some(5)),
            other => panic!("{other:?}"),
        }
        assert_eq!(core.stats().memory_held, 0);
    }
}

#[test]
fn c08_a_full_disk_is_tried_again_after_a_free_and_once_a_second() {
    let mut core = core();
    assert!(core.offer(&mut vec![7; 1000].into()).unwrap());
    spilling(&mut core, 0);
    let full = || WriteFault::Full(Arc::new(io::Error::from_raw_os_error(28)));
    let job = core.start_write(SlotRun::new(0, 1));
    core.wrote(job, Wrote { done: 1, fault: Some(full()) }, 5);
    settle(&mut core, 5);
    assert!(core.wants_write().is_none());
    assert_eq!(core.deadline(), Some(1_000_000_005));
    core.tick(1_000_000_005);
    settle(&mut core, 1_000_000_005);
    assert!(core.wants_write().is_some(), "a second has passed");
    core.cannot_write(full(), 2_000_000_000);
    assert!(core.wants_write().is_none());
    // The first block is in memory, the second one's slot comes free by reading it.
    for _ in 0..2 {
        if let Front::Block { block, at } = core.front() {
            core.consume(block.len() - at);
            core.put_back(block);
        } else {
            let job = core.start_read(usize::MAX).expect("the block is on disk");
            core.did_read(job, 1, None);
            let Front::Block { block, .. } = core.front() else { panic!("it was read") };
            core.consume(block.len());
            core.put_back(block);
        }
        settle(&mut core, 2_000_000_000);
    }
    assert_eq!(core.stats().disk_held, 0);
    settle(&mut core, 2_000_000_000);
    core.tick(3_000_000_000);
    settle(&mut core, 3_000_000_000);
    assert!(core.disk.retry_at().is_none(), "a slot came free");
}

#[test]
fn c08_slots_that_are_being_given_back_are_waited_for_unless_nobody_can_tell_the_time() {
    let mut core = core();
    core.limits.on_full = OnFull::Fail;
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    core.slots_busy(2_000_000);
    settle(&mut core, 2_000_000);
    assert_eq!(core.room().unwrap(), Room::Full, "there will be some in a moment");
    assert!(!core.waits_for_slots(), "nobody need give any back");
    core.park_writer();
    settle(&mut core, 2_000_000);
    assert_eq!(core.deadline(), Some(2_000_000 + BUSY));
    core.no_clock();
    assert!(core.settle(2_000_000).writer);
    assert_eq!(core.deadline(), None);
    assert!(matches!(core.room(), Err(SpillError::DiskLimit { .. })), "that moment would never be over");
}

/// The limit of a file's size may be raised while nobody frees a slot.
#[test]
fn c08_a_file_that_could_not_grow_is_tried_again() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    core.no_slots(Some(Arc::new(io::ErrorKind::FileTooLarge.into())), 5);
    settle(&mut core, 5);
    assert!(core.waits_for_slots() && core.wants_write().is_none());
    assert_eq!(core.deadline(), Some(1_000_000_005));
    core.tick(1_000_000_005);
    assert!(core.wants_write().is_some());
    core.no_slots(None, 5);
    settle(&mut core, 5);
    assert_eq!(core.deadline(), None, "whoever frees one says so");
}

/// What is due and never done would be asked for again and again.
#[test]
fn c08_a_full_disk_is_not_tried_again_where_nobody_can_tell_the_time() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    spilling(&mut core, 0);
    core.cannot_write(WriteFault::Full(Arc::new(io::ErrorKind::StorageFull.into())), 2_000_000);
    settle(&mut core, 2_000_000);
    assert!(core.deadline().is_some());
    core.no_clock();
    settle(&mut core, 2_000_000);
    assert_eq!(core.deadline(), None);
    assert!(core.disk.blocked_by().is_some() && !core.waits_for_slots(), "it is full as before");
}

/// A reader looked into an item for which there was no memory; before it said how much it took, the item was moved into blocks,
/// and those to disk as one run. What it took ended within the second block of that run, and the first one was offered again: a panic.
#[test]
fn c01_a_look_at_an_item_outlasts_its_move_to_disk() {
    let budget = Arc::new(Budget::new(8 * 64, 64));
    let mut core = Core::new(of(6, u64::MAX, OnFull::Wait), Some(budget.clone()));
    let others = 8 * 64;
    assert!(budget.take(others, Purpose::Read));
    assert!(core.offer(&mut vec![7; 300].into()).unwrap());
    settle(&mut core, 0);
    assert!(matches!(core.front(), Front::Item(item) if item.len() == 300));
    budget.give(others);
    core.memory_came();
    settle(&mut core, 0);
    for _ in 0..10 {
        core.squeeze();
        while let Some(want) = core.wants_write() {
            let run = SlotRun::new(core.stats().spilled / 64, want);
            let job = core.start_write(run);
            core.wrote(job, Wrote { done: want as usize, fault: None }, 0);
            settle(&mut core, 0);
        }
    }
    assert_eq!(core.stats().on_disk, 300);
    core.consume(150);
    settle(&mut core, 0);
    assert_eq!((core.stats().on_disk, core.stats().in_memory), (150, 0));
    let mut read = 150;
    while read < 300 {
        if let Front::Disk = core.front() {
            let job = core.start_read(usize::MAX).unwrap();
            assert_eq!(job.start, read / 64 * 64);
            let good = job.blocks.len();
            core.did_read(job, good, None);
        }
        let Front::Block { block, at } = core.front() else { panic!("it was read") };
        assert_eq!(at as u64, read % 64);
        let n = block.len() - at;
        read += n as u64;
        core.consume(n);
        core.put_back(block);
        settle(&mut core, 0);
    }
    assert_eq!((core.stats().disk_held, core.stats().memory_held, budget.held()), (0, 0, 0));
}

/// That the disk was full for another, who may be gone, was held against one that had not tried it yet.
#[test]
fn c08_a_disk_that_was_full_for_another_is_tried_before_a_write_is_refused() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    budget.exhaust(None);
    let mut core = Core::new(of(6, u64::MAX, OnFull::Fail), Some(budget));
    while let Room::Bytes(room) = core.room().unwrap() {
        core.append(&vec![7; room]);
    }
    core.park_writer();
    spilling(&mut core, 0);
    assert_eq!(core.room().unwrap(), Room::Full);
    assert!(core.wants_write().is_some());
    core.no_slots(None, 0);
    assert!(matches!(core.room(), Err(SpillError::DiskLimit { .. })), "it has tried");
}

#[test]
fn c05_a_window_that_is_full_between_turns_is_not_spilled() {
    let mut core = core();
    for turn in 0..1000u64 {
        // Whatever time the scheduler takes between a wake-up and its poll, up to the excuse.
        let now = turn * 40_000_000;
        while let Ok(Room::Bytes(room)) = core.room() {
            core.append(&vec![7; room]);
        }
        core.park_writer();
        settle(&mut core, now);
        assert_eq!(core.stats().in_memory, 256, "it holds the whole window");
        let late = now + 900_000;
        if core.deadline().is_some_and(|at| at <= late) {
            core.tick(late);
            settle(&mut core, late);
        }
        assert!(core.wants_write().is_none(), "turn {turn}");
        let (read, _) = read_all(&mut core);
        assert_eq!(read, 256);
        core.park_reader();
        settle(&mut core, late);
    }
    assert_eq!(core.stats().spilled, 0);
}

#[test]
fn c05_a_reader_that_was_woken_and_not_polled_is_excused_for_twenty_milliseconds() {
    let mut core = core();
    assert!(matches!(core.front(), Front::Wait));
    core.park_reader();
    settle(&mut core, 0);
    assert!(core.offer(&mut vec![7; 1000].into()).unwrap());
    let wakes = core.settle(0);
    assert!(wakes.reader && core.absorb_more());
    settle(&mut core, 0);
    core.tick(20_999_999);
    settle(&mut core, 20_999_999);
    assert!(core.wants_write().is_none());
    core.tick(21_000_000);
    settle(&mut core, 21_000_000);
    assert!(core.wants_write().is_some());
}

/// The excuse ends with the poll, also where nobody is held up just then.
#[test]
fn c05_a_reader_that_was_polled_meanwhile_is_not_excused_any_more() {
    let mut core = core();
    assert!(matches!(core.front(), Front::Wait));
    core.park_reader();
    settle(&mut core, 0);
    assert!(matches!(core.room(), Ok(Room::Bytes(_))));
    core.append(b"x");
    assert!(core.settle(0).reader);
    assert!(matches!(core.front(), Front::Tail(1)));
    settle(&mut core, 0);
    fill_and_park(&mut core, 0);
    core.tick(1_000_000);
    settle(&mut core, 1_000_000);
    assert!(core.wants_write().is_some());
}

#[test]
fn c03_while_something_is_on_disk_the_writer_is_held_by_nobody() {
    let mut core = core();
    assert!(core.offer(&mut vec![7; 1000].into()).unwrap());
    spilling(&mut core, 0);
    for slot in 0..100 {
        let mut want = None;
        for _ in 0..20 {
            while core.offer(&mut vec![7; 64].into()).unwrap() {}
            core.park_writer();
            settle(&mut core, 2_000_000);
            assert_eq!(core.deadline(), None, "no grace");
            want = core.wants_write();
            if want.is_some() {
                break;
            }
        }
        let Some(want) = want else { panic!("nothing goes to disk, and the writer waits: {core:?}") };
        let job = core.start_write(SlotRun::new(slot * 100, want));
        let done = job.blocks.len();
        core.wrote(job, Wrote { done, fault: None }, 2_000_000);
        let wakes = core.settle(2_000_000);
        assert!(wakes.writer || wakes.more || core.wants_write().is_some());
        settle(&mut core, 2_000_000);
    }
}

#[test]
fn c04_bookkeeping_of_a_contiguous_backlog_is_one_entry() {
    let mut core = core();
    spill_contiguously(&mut core, 10_000);
    assert!(core.stats().on_disk > 10_000 * 32);
    assert!(core.ledger.len() < 10, "{} entries", core.ledger.len());
}

fn spill_contiguously(core: &mut Core, slots: u64) {
    assert!(core.offer(&mut vec![7; 1000].into()).unwrap());
    spilling(core, 0);
    let mut slot = 0;
    while slot < slots {
        let _ = core.offer(&mut vec![7; 64].into()).unwrap();
        settle(core, 2_000_000);
        let Some(want) = core.wants_write() else { continue };
        let job = core.start_write(SlotRun::new(slot, want));
        let done = job.blocks.len();
        slot += want;
        core.wrote(job, Wrote { done, fault: None }, 2_000_000);
        settle(core, 2_000_000);
    }
}

fn fill_and_park(core: &mut Core, now: u64) {
    fill(core);
    core.park_writer();
    settle(core, now);
}

fn consume_a_block(core: &mut Core) {
    let Front::Block { block, at } = core.front() else { panic!("it is in memory") };
    core.consume(block.len() - at);
    core.put_back(block);
}

/// A reader that took half the window within a millisecond held the writer nearly all the time: it was let on at half the
/// window and not before, and half the window forgave the time it was held.
#[test]
fn c03_a_slow_reader_does_not_set_the_writers_pace() {
    let mut core = core();
    fill_and_park(&mut core, 1000);
    consume_a_block(&mut core);
    assert!(!core.settle(1010).writer, "a fast reader is about to make half the window free");
    consume_a_block(&mut core);
    assert!(core.settle(1020).writer, "half of the window is free");

    fill_and_park(&mut core, 10_000);
    consume_a_block(&mut core);
    assert!(core.settle(11_000).writer, "whatever room there is will do when it takes long");
}

/// With many tasks on few threads a turn takes longer than the writer's patience: a reader whose budget was used up, and that
/// waited for its next turn, was taken for one that lags.
#[test]
fn c05_a_reader_that_yields_is_excused_like_one_that_was_woken() {
    for (yields, excused) in [(true, true), (false, false)] {
        let mut core = core();
        fill_and_park(&mut core, 0);
        if yields {
            core.reader_yields();
        }
        settle(&mut core, 0);
        for now in [1_000_000, 20_900_000] {
            core.tick(now);
            settle(&mut core, now);
        }
        assert_eq!(core.wants_write().is_none(), excused);
        core.tick(21_000_000);
        settle(&mut core, 21_000_000);
        assert!(core.wants_write().is_some(), "not for ever");
    }
}

/// What is lent makes the window smaller, and so its half. A writer that was held until half of it is free was not let on when a
/// chunk came back whose block was still on its way to disk: that freed no memory, and so nobody looked (a fuzzer found it).
#[test]
fn c03_a_chunk_that_comes_back_may_be_what_the_writer_was_held_for() {
    let limits = Limits { memory: 283, disk: Some(12), ..of(4, 12, OnFull::Wait) };
    // Three blocks go to disk for others' sake, and a fourth is written; the first is lent, and all is read but half of a window.
    // The model sees that nobody waits for what is there.
    Model::new(limits, 12).run(&[
        Op::Write(191),
        Op::Squeeze,
        Op::Drive,
        Op::Drive,
        Op::Drive,
        Op::WriteVectored(135, 141),
        Op::NextChunk,
        Op::Read(76),
        Op::Complete(0, 0, Fault::None),
        Op::DropChunk(0),
    ]);
}

/// What `room` says is there, filled block by block until it says that there is none.
fn fill(core: &mut Core) -> usize {
    let mut blocks = 0;
    while let Ok(Room::Bytes(room)) = core.room() {
        core.append(&vec![7; room]);
        blocks += 1;
    }
    blocks
}

/// The next blocks, each of them read by one who keeps it.
fn take_on_loan(core: &mut Core, blocks: usize) -> Vec<Arc<Block>> {
    let mut lent = Vec::new();
    for _ in 0..blocks {
        let Front::Block { block, .. } = core.front() else { panic!("it is in memory") };
        core.lend(&block);
        core.consume(64);
        lent.push(block);
    }
    lent
}

fn of(blocks: usize, slots: u64, on_full: OnFull) -> Limits {
    Limits { memory: blocks * 64, block: 64, encrypt: false, assisted: false, disk: None, slots, on_full }
}

#[test]
fn c07_what_was_accepted_before_a_long_copy_comes_before_the_failure_beside_it() {
    let mut core = core();
    assert_eq!(core.room().unwrap(), Room::Bytes(64));
    core.append(&[7; 10]);
    let mut block = core.take_tail().unwrap();
    block.append(&[8; 20]);
    core.fail(SpillError::writer_failed("beside it")).unwrap();
    assert!(matches!(core.front(), Front::Wait), "those ten bytes are with the writer");
    core.put_tail(block).unwrap_err();
    let (read, end) = read_all(&mut core);
    assert_eq!(read, 10);
    assert!(matches!(end, Front::Failed(SpillError::WriterFailed { .. })));
}

#[test]
fn c08_without_a_clock_patience_is_over_at_once() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    assert!(core.wants_write().is_none());
    core.no_clock();
    settle(&mut core, 0);
    assert!(core.wants_write().is_some());
}

/// It was excused only where a writer was held already.
#[test]
fn c05_a_reader_that_yields_before_the_window_is_full_is_excused_as_well() {
    let mut core = core();
    core.room().unwrap();
    core.append(b"x");
    core.reader_yields();
    settle(&mut core, 0);
    fill_and_park(&mut core, 0);
    core.tick(20_000_000);
    settle(&mut core, 20_000_000);
    assert!(core.wants_write().is_none());
}

#[test]
fn c05_waiting_for_what_others_hold_is_no_grace() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    let mut core = Core::new(of(8, u64::MAX, OnFull::Wait), Some(budget.clone()));
    core.room().unwrap();
    core.append(&[7; 64]);
    assert!(budget.take(31 * 64, Purpose::Read), "others have the rest");
    assert_eq!(core.room().unwrap(), Room::Full);
    core.park_writer();
    assert_eq!(core.settle(0).lacks, Some(Purpose::Write));
    assert_eq!(core.deadline(), None);
}

#[test]
fn the_most_that_was_in_memory_is_told_where_it_was_written_in_short_pieces() {
    let mut core = core();
    core.room().unwrap();
    core.append(&[7; 10]);
    core.consume(10);
    settle(&mut core, 0);
    core.room().unwrap();
    assert!(core.append_quietly(&[7; 5]));
    assert_eq!(core.stats().peak_in_memory, 10);
}

/// What is done quietly is what nothing follows from: all else is refused, and is done in the general way.
#[test]
fn c02_only_what_has_no_consequences_is_written_and_read_quietly() {
    let mut core = core();
    assert!(!core.append_quietly(&[7; 64]), "a block that is full is to be sealed");
    assert!(core.append_quietly(&[7; 63]));
    assert!(!core.append_quietly(&[7; 1]));
    assert_eq!(core.look_quietly(62).unwrap().len(), 62);
    assert_eq!(core.look_quietly(1000).unwrap().len(), 63, "all that there is");
    assert_eq!(core.append(&[7; 1]), 1);
    settle(&mut core, 0);
    assert_eq!(core.look_quietly(63).unwrap().len(), 63);
    assert_eq!(core.look_quietly(64), None, "a block that is read to its end is to be freed");
    core.consume(64);
    assert_eq!(core.look_quietly(1), None, "the reader is to wait");

    assert!(core.append_quietly(&[7; 10]));
    core.consume_quietly(10);
    assert_eq!(core.stats().memory_held, 0, "an empty buffer holds no block");

    assert!(core.append_quietly(&[7; 10]));
    let out = core.take_tail().unwrap();
    assert!(core.finish_quietly());
    assert_eq!(core.look_quietly(10), None, "the writer has ten bytes in hands: this is not the end");
    assert!(!core.append_quietly(&[7; 1]));
    core.put_tail(out).unwrap_err();
    settle(&mut core, 0);
    core.consume_quietly(10);
    assert_eq!(core.look_quietly(1), Some(&[][..]), "the end");
    core.end_reader(SpillError::cancelled("no more")).unwrap();
    settle(&mut core, 0);
    assert_eq!(core.look_quietly(1), None, "a reader that has ended is told how");
}

/// The block for a short write was taken before it was asked whether that leaves it with room. It does not, so nothing was
/// written; an empty buffer held a block, which another of its pool might wait for.
#[test]
fn c04_what_is_not_written_quietly_takes_no_block() {
    let mut core = core();
    assert!(!core.append_quietly(&[7; 64]));
    assert_eq!(core.stats().memory_held, 0);
}

/// A mutant that no test told settled quickly here: a failed stream's blocks stayed until something else happened to it.
#[test]
fn c12_what_is_given_up_is_handed_out_by_the_next_settling() {
    let budget = Arc::new(Budget::new(32 * 64, 64));
    let mut core = Core::new(of(8, u64::MAX, OnFull::Wait), Some(budget.clone()));
    core.room().unwrap();
    core.append(&[7; 10]);
    core.end_reader(SpillError::cancelled("no more")).unwrap();
    assert!(core.settle_if_quiet().is_none());
    let wakes = core.settle(0);
    assert!(wakes.given_up.is_some());
    // Nobody else has it as long as it is there.
    assert_eq!((core.stats().memory_held, budget.held()), (0, 64));
    drop(wakes);
    assert_eq!(budget.held(), 0);
}

/// Others may wait for the block that comes free.
#[test]
fn c04_what_frees_memory_of_all_is_not_read_quietly() {
    let mut core = Core::new(of(8, u64::MAX, OnFull::Wait), Some(Arc::new(Budget::new(32 * 64, 64))));
    assert!(core.append_quietly(&[7; 10]));
    assert!(core.look_quietly(9).is_some());
    assert_eq!(core.look_quietly(10), None);
}

/// Between two moves of an item into blocks the lock is free.
#[test]
fn c01_a_reader_may_come_between_two_moves_of_an_item() {
    let mut core = core();
    core.room().unwrap();
    core.append(&[7; 10]);
    assert!(core.offer(&mut vec![7; 200].into()).unwrap());
    assert!(core.settle(0).more);
    consume_a_block(&mut core);
    assert!(matches!(core.front(), Front::Tail(10)));
    core.consume(10);
    assert!(matches!(core.front(), Front::Item(item) if item.len() == 136));
    settle(&mut core, 0);
    let (read, end) = read_all(&mut core);
    assert_eq!((read, core.stats().read), (136, 210));
    assert!(matches!(end, Front::Wait));
    assert_eq!(core.stats().memory_held, 0);
}

#[test]
fn c05_half_of_the_window_is_half_of_what_is_not_lent() {
    let mut core = core();
    fill_and_park(&mut core, 0);
    let _lent = take_on_loan(&mut core, 2);
    settle(&mut core, 0);
    fill_and_park(&mut core, 0);
    core.tick(800_000);
    settle(&mut core, 800_000);
    assert_eq!(core.deadline(), Some(1_000_000));
    assert!(matches!(core.front(), Front::Block { .. }));
    core.consume(1);
    settle(&mut core, 900_000);
    assert_eq!(core.deadline(), Some(1_000_000), "127 of 128 bytes are not half");
}
