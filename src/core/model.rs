//! A model of the core's shell: one enum of operations drives it, with every order of completions and
//! every kind of fault. The property tests and the fuzzer share it.
//!
//! It knows what was accepted, as a function of the offset; so each byte that comes out is checked,
//! and so is each end.

mod herd;

use std::{cell::RefCell, collections::HashMap, io, rc::Rc, sync::Arc};

use bytes::Bytes;

use self::herd::Pooled;
pub(crate) use self::herd::{Herd, HerdOp};
use super::{Core, Front, ReadJob, Room, WriteFault, WriteJob, Wrote};
use crate::{
    block::Block,
    error::{SpillError, StorageOp},
    options::{Limits, OnFull},
    pool::Answer,
    slot::{SlotRun, TRAILER},
};

/// One step. Numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Write(u16),
    WriteVectored(u8, u8),
    /// A long copy without the lock: the block is out until the next of these.
    TakeTail,
    PutTail(u8),
    WriteBytes(u16),
    Read(u16),
    NextChunk,
    /// Begins to read into memory of the reader's own; it ends as a job.
    ReadDirect(u16),
    /// Looks at the front as `fill_buf` does, and takes some of it.
    Look(u8),
    DropChunk(u8),
    /// The future that waits is dropped: its wake-up goes nowhere.
    ForgetReader,
    ForgetWriter,
    Finish,
    Fail,
    Abort,
    DropWriter,
    Cancel,
    DropReader,
    /// Others need the memory.
    Squeeze,
    /// The driver takes its next job.
    Drive,
    /// A job ends: which, how much of it was done, and how.
    Complete(u8, u8, Fault),
    PassTime(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// `ENOSPC`.
    Full,
    /// `EIO`.
    Io,
    /// What comes back is not what was written.
    Corrupt,
    /// The thread that had the job is gone.
    Lost,
}

/// The disk of one buffer, or of a herd.
#[derive(Debug)]
struct Disk {
    slots: Slots,
    /// All slots that are not free.
    file: HashMap<u64, Granted>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it in a model")]
enum Slots {
    /// The highest is granted first, so that runs are broken up.
    Own(Vec<u64>),
    Shared(Pooled),
}

#[derive(Debug)]
struct Granted {
    owner: u64,
    /// The stream's offset, and its bytes from there.
    written: Option<(u64, Vec<u8>)>,
}

impl Disk {
    fn ask(&mut self, id: u64, want: u64) -> Answer {
        let answer = match &mut self.slots {
            Slots::Own(slots) => match slots.pop() {
                Some(first) => {
                    let mut run = SlotRun::one(first);
                    while run.count < want && slots.last() == Some(&run.end()) {
                        run.count += slots.pop().map_or(0, |_| 1);
                    }
                    Answer::Slots(run)
                }
                None => Answer::Full,
            },
            Slots::Shared(pooled) => pooled.ask(id, want),
        };
        if let Answer::Slots(run) = answer {
            assert!((1..=want).contains(&run.count), "{want} slots were wanted: {run:?}");
            for slot in run.first..run.end() {
                let before = self.file.insert(slot, Granted { owner: id, written: None });
                assert!(before.is_none(), "slot {slot} is granted to {id} and is another's: {before:?}");
            }
        }
        answer
    }

    fn free(&mut self, id: u64, run: SlotRun) {
        for slot in run.first..run.end() {
            let granted = self.file.remove(&slot);
            assert_eq!(granted.map(|granted| granted.owner), Some(id), "slot {slot} was not its to free");
        }
        match &mut self.slots {
            Slots::Own(slots) => slots.extend(run.first..run.end()),
            Slots::Shared(pooled) => pooled.free(run),
        }
    }

    /// Whoever waited for slots has some, wants none, or is gone.
    fn end_turn(&mut self, id: u64) {
        if let Slots::Shared(pooled) = &mut self.slots {
            pooled.end_turn(id);
        }
    }

    /// `None` is what a write that failed may leave.
    fn write(&mut self, id: u64, slot: u64, written: Option<(u64, Vec<u8>)>) {
        let granted = self.file.get_mut(&slot).filter(|granted| granted.owner == id);
        granted.expect("a write to a slot that is another's or free").written = written;
    }

    fn read(&self, id: u64, slot: u64, offset: u64) -> &[u8] {
        let granted = self.file.get(&slot).filter(|granted| granted.owner == id);
        let written = granted.expect("a read of a slot that is another's or free").written.as_ref();
        let (start, bytes) = written.expect("a slot that was written");
        assert_eq!(*start, offset, "slot {slot} has other bytes of {id}");
        bytes
    }
}

#[derive(Debug)]
enum Job {
    Write(WriteJob),
    Read(ReadJob),
    /// The reader's own, which does nothing else meanwhile.
    Direct(super::jobs::DirectRead),
}

#[derive(Debug)]
pub(crate) struct Model {
    id: u64,
    core: Core,
    limits: Limits,
    now: u64,
    disk: Rc<RefCell<Disk>>,
    /// It waits for slots.
    queued: bool,
    jobs: Vec<Job>,
    chunks: Vec<Arc<Block>>,
    out: Option<Block>,
    accepted: u64,
    delivered: u64,
    /// The reader saw an end or an error.
    end: Option<Result<(), SpillError>>,
    writer_end: Option<&'static str>,
    reader_end: Option<&'static str>,
    /// A fault that may be told.
    write_fault: bool,
    read_fault: Option<u64>,
    /// The memory is bad: what is sealed there does not open.
    unopened: bool,
    /// It waits for memory of its lender.
    lacks: bool,
    /// The last settling was [quiet](Core::settle_if_quiet).
    quiet: bool,
}

/// The byte of the stream at this offset.
pub(crate) fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn bytes_at(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(byte_at).collect()
}

/// Whether a whole block that begins here is sealed: about every second.
fn seals(offset: u64) -> bool {
    byte_at(offset) & 1 == 1
}

/// Stands for encryption.
const SEAL: u8 = 0x5a;

fn seal(block: &mut Block, src: &[u8]) {
    let sealed = block.seal_from(src, |src, into| {
        for (byte, into) in src.iter().zip(into) {
            *into = byte ^ SEAL;
        }
        Ok::<_, ()>([SEAL; TRAILER])
    });
    sealed.unwrap();
}

fn unseal(block: &mut Block) {
    let opened = block.open(|bytes, trailer| {
        assert_eq!(*trailer, [SEAL; TRAILER]);
        for byte in bytes {
            *byte ^= SEAL;
        }
        Ok::<_, ()>(())
    });
    opened.unwrap();
}

/// What a slot opens to that this was written to.
fn plain(block: &Block) -> Vec<u8> {
    let seal = if block.sealed().is_some() { SEAL } else { 0 };
    block.filled().iter().map(|byte| byte ^ seal).collect()
}

impl Model {
    pub(crate) fn new(limits: Limits, slots: u64) -> Self {
        let disk = Disk { slots: Slots::Own((0..slots).collect()), file: HashMap::new() };
        Self::on(0, limits, Core::new(limits, None), Rc::new(RefCell::new(disk)))
    }

    fn on(id: u64, limits: Limits, core: Core, disk: Rc<RefCell<Disk>>) -> Self {
        Self {
            id,
            core,
            limits,
            now: 1,
            disk,
            queued: false,
            jobs: Vec::new(),
            chunks: Vec::new(),
            out: None,
            accepted: 0,
            delivered: 0,
            end: None,
            writer_end: None,
            reader_end: None,
            write_fault: false,
            read_fault: None,
            unopened: false,
            lacks: false,
            quiet: true,
        }
    }

    /// Runs all operations, then lets everything come to its end, and checks what is left.
    pub(crate) fn run(&mut self, ops: &[Op]) {
        for op in ops {
            self.apply(op);
        }
        self.come_to_an_end();
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        if self.quiet && self.apply_quietly(op) {
            return self.check();
        }
        let block = self.limits.block;
        match *op {
            Op::Write(len) => self.write(usize::from(len) % (3 * block)),
            Op::WriteVectored(one, two) => {
                self.write(usize::from(one));
                self.write(usize::from(two));
            }
            Op::TakeTail => self.take_tail(),
            Op::PutTail(len) => self.put_tail(usize::from(len)),
            Op::WriteBytes(len) => self.write_bytes(1 + usize::from(len) % (8 * block)),
            Op::Read(len) => self.read(usize::from(len) % (4 * block)),
            Op::NextChunk => self.next_chunk(),
            Op::ReadDirect(len) => self.read_direct(usize::from(len) % (6 * block)),
            Op::Look(len) => self.look(usize::from(len)),
            Op::DropChunk(which) => {
                if let Some(which) = choose(which, self.chunks.len()) {
                    let block = self.chunks.swap_remove(which);
                    self.core.return_lent(block);
                }
            }
            // A stale waker: the core still thinks that somebody waits. That must do no harm.
            Op::ForgetReader | Op::ForgetWriter => {}
            Op::Finish => {
                if self.writer_end.is_none() && self.out.is_none() && self.core.finish().is_ok() {
                    self.writer_end = Some("finish");
                }
            }
            Op::Fail => self.end_writer("fail", Core::fail),
            Op::Abort => self.end_writer("abort", Core::abort),
            Op::DropWriter => {
                if self.out.is_none() {
                    self.end_writer("drop", |core, _| core.fail(SpillError::WriterDropped));
                }
            }
            Op::Cancel => self.end_reader("cancel", SpillError::cancelled("cancel")),
            Op::DropReader => self.end_reader("drop", SpillError::ReaderDropped),
            Op::Squeeze => {
                self.core.squeeze();
                self.core.squeeze();
            }
            Op::Drive => self.drive(),
            Op::Complete(which, part, fault) => {
                if let Some(which) = choose(which, self.jobs.len()) {
                    self.complete(which, part, fault);
                }
            }
            Op::PassTime(nanos) => self.pass_time(u64::from(nanos)),
        }
        self.settle();
    }

    /// What the shell tries first, and settles nothing behind it; every other time, for it takes long pieces in the general way.
    fn apply_quietly(&mut self, op: &Op) -> bool {
        match *op {
            Op::Write(len) if len.is_multiple_of(2) && len > 0 && self.writer_end.is_none() && self.out.is_none() => {
                let taken = self.core.append_quietly(&bytes_at(self.accepted, len.into()));
                self.accepted += if taken { len.into() } else { 0 };
                taken
            }
            Op::Read(len) if len.is_multiple_of(2) && len > 0 && self.reads() => {
                let Some(bytes) = self.core.look_quietly(len.into()) else { return false };
                let bytes = bytes.to_vec();
                if bytes.is_empty() {
                    self.no_bytes(Front::End);
                }
                self.deliver(&bytes);
                self.core.consume_quietly(bytes.len());
                true
            }
            Op::Finish if self.writer_end.is_none() && self.out.is_none() && self.core.finish_quietly() => {
                self.writer_end = Some("finish");
                true
            }
            _ => false,
        }
    }

    /// Knows the time only where it was asked for, as the shell does.
    fn settle_in_full(&mut self) -> bool {
        let now = if self.core.needs_time() { self.now } else { 0 };
        let wakes = self.core.settle(now);
        self.lacks |= wakes.lacks.is_some();
        wakes.more
    }

    fn settle(&mut self) {
        self.quiet = self.core.settle_if_quiet().is_some();
        if !self.quiet {
            let mut more = self.settle_in_full();
            while more {
                more = self.core.absorb_more() | self.settle_in_full();
            }
        }
        for run in self.core.freed() {
            self.disk.borrow_mut().free(self.id, run);
        }
        self.check();
    }

    fn check(&self) {
        // One that is in its lender's queue is told from there.
        if let Some(problem) = self.core.missed_wake_up().filter(|_| !self.lacks) {
            panic!("{problem}: {:?}", self.core);
        }
        let stats = self.core.stats();
        assert_eq!(stats.written, self.accepted);
        assert!(stats.memory_held <= self.limits.memory as u64);
        assert!(stats.lent <= stats.memory_held);
        if self.core.discarded {
            assert_eq!((stats.in_memory, stats.on_disk), (0, 0));
        } else {
            assert_eq!(stats.written - stats.read, stats.in_memory + stats.on_disk);
        }
    }

    fn pass_time(&mut self, nanos: u64) {
        self.now += nanos;
        if self.core.deadline().is_some_and(|at| at <= self.now) {
            self.core.tick(self.now);
        }
    }

    // ---- the writer ----

    fn write(&mut self, len: usize) {
        if self.writer_end.is_some() || self.out.is_some() {
            return;
        }
        let mut taken = 0;
        while taken < len {
            match self.core.room() {
                Ok(Room::Bytes(room)) if room == self.limits.block && len - taken >= room && seals(self.accepted) => {
                    let mut block = self.core.take_tail().expect("there is room in it");
                    assert_eq!(self.core.out_from(), Some(self.accepted));
                    seal(&mut block, &bytes_at(self.accepted, room));
                    assert_eq!(self.core.put_tail(block).unwrap(), room);
                    taken += room;
                    self.accepted += room as u64;
                }
                Ok(Room::Bytes(room)) => {
                    let n = self.core.append(&bytes_at(self.accepted, room.min(len - taken)));
                    assert!(n > 0);
                    taken += n;
                    self.accepted += n as u64;
                }
                Ok(Room::Full) if taken > 0 => return,
                Ok(Room::Full) => return self.core.park_writer(),
                Err(error) => return self.writer_was_told(&error),
            }
        }
    }

    fn take_tail(&mut self) {
        if self.writer_end.is_none() && self.out.is_none() && matches!(self.core.room(), Ok(Room::Bytes(_))) {
            self.out = self.core.take_tail();
        }
    }

    fn put_tail(&mut self, len: usize) {
        let Some(mut block) = self.out.take() else { return };
        let mut n = block.room();
        if block.len() == 0 && n <= len && seals(self.accepted) {
            seal(&mut block, &bytes_at(self.accepted, n));
        } else {
            n = block.append(&bytes_at(self.accepted, len));
        }
        match self.core.put_tail(block) {
            Ok(appended) => {
                assert_eq!(appended, n);
                self.accepted += n as u64;
            }
            Err(error) => self.writer_was_told(&error),
        }
    }

    fn write_bytes(&mut self, len: usize) {
        if self.writer_end.is_some() || self.out.is_some() {
            return;
        }
        let mut item = Bytes::from(bytes_at(self.accepted, len));
        match self.core.offer(&mut item) {
            Ok(true) => self.accepted += len as u64,
            Ok(false) => {
                assert_eq!(item.len(), len, "an item that was refused is whole");
                self.core.park_writer();
            }
            Err(error) => self.writer_was_told(&error),
        }
    }

    fn writer_was_told(&mut self, error: &SpillError) {
        let expected = match error {
            SpillError::ReaderDropped | SpillError::Cancelled { .. } => self.reader_end.is_some(),
            SpillError::WriterFailed { .. } => matches!(self.writer_end, Some("fail" | "abort")),
            SpillError::DiskLimit { .. } => {
                assert_eq!(self.limits.on_full, OnFull::Fail);
                true
            }
            SpillError::Storage { op: StorageOp::Write, .. } => self.write_fault,
            SpillError::Storage { .. } | SpillError::Corrupt { .. } => self.read_fault.is_some(),
            _ => false,
        };
        assert!(expected, "the writer was told {error:?}: {:?}", self.core);
        // It repeats, and a finish after it is no clean end.
        assert!(self.core.check_flush().is_err() && self.core.finish().is_err() && self.core.room().is_err());
    }

    fn end_writer(&mut self, how: &'static str, end: impl FnOnce(&mut Core, SpillError) -> Result<(), SpillError>) {
        let _ = end(&mut self.core, SpillError::writer_failed(how));
        self.writer_end = self.writer_end.or(Some(how));
    }

    // ---- the reader ----

    fn read(&mut self, len: usize) {
        let mut left = len;
        while left > 0 && self.reads() {
            match self.core.front() {
                Front::Block { block, at } => {
                    let n = left.min(block.len() - at);
                    self.deliver(&block.filled()[at..at + n]);
                    self.core.consume(n);
                    self.core.put_back(block);
                    left -= n;
                }
                Front::Tail(unread) => {
                    let n = left.min(unread);
                    let bytes = self.core.tail_unread()[..n].to_vec();
                    self.deliver(&bytes);
                    self.core.consume(n);
                    left -= n;
                }
                Front::Item(item) => {
                    let n = left.min(item.len());
                    self.deliver(&item[..n]);
                    self.core.consume(n);
                    left -= n;
                }
                Front::Sealed => self.open_front(),
                other => return self.no_bytes(other),
            }
        }
    }

    /// Whether the reader may be called: it has met no end, and is not in the middle of a call.
    fn reads(&self) -> bool {
        let busy = self.jobs.iter().any(|job| matches!(job, Job::Direct(_)));
        self.reader_end.is_none() && self.end.is_none() && !busy
    }

    fn read_direct(&mut self, len: usize) {
        if self.reads() && matches!(self.core.front(), Front::Disk) {
            self.jobs.extend(self.core.start_direct(len).map(Job::Direct));
        }
    }

    /// What is sealed opens to what was sealed there, or does not open.
    fn open_front(&mut self) {
        let fault =
            self.unopened.then(|| SpillError::Corrupt { offset: self.delivered, path: "/".into(), reason: "no" });
        let mut failed = false;
        self.core.open_front(|start, block| {
            assert!(seals(start));
            failed = fault.is_some();
            fault.map_or(Ok(()), Err)?;
            unseal(block);
            Ok(())
        });
        if failed {
            self.read_fault = Some(self.delivered);
        }
    }

    fn next_chunk(&mut self) {
        if !self.reads() {
            return;
        }
        match self.core.front() {
            Front::Block { block, at } => {
                let n = block.len() - at;
                self.deliver(&block.filled()[at..]);
                if self.core.may_lend(&block, n) {
                    self.core.lend(&block);
                    self.core.consume(n);
                    self.chunks.push(block);
                } else {
                    self.core.consume(n);
                    self.core.put_back(block);
                }
            }
            Front::Tail(_) => {
                self.core.seal_tail();
                self.next_chunk();
            }
            Front::Sealed => {
                self.open_front();
                self.next_chunk();
            }
            Front::Item(item) => {
                self.deliver(&item);
                self.core.consume(item.len());
            }
            other => self.no_bytes(other),
        }
    }

    /// A block is looked at while other things happen, as `fill_buf` and a long copy do.
    fn look(&mut self, len: usize) {
        if !self.reads() {
            return;
        }
        match self.core.front() {
            Front::Block { block, at } => {
                let n = len.min(block.len() - at);
                self.settle();
                self.drive();
                if !self.jobs.is_empty() {
                    self.complete(0, u8::MAX, Fault::None);
                }
                self.settle();
                self.deliver(&block.filled()[at..at + n]);
                self.core.consume(n);
                self.core.put_back(block);
            }
            Front::Tail(_) => self.core.seal_tail(),
            Front::Sealed => self.open_front(),
            Front::Item(_) => {}
            other => self.no_bytes(other),
        }
    }

    fn no_bytes(&mut self, front: Front) {
        match front {
            Front::Disk => {
                // The shell may want less than there is memory for.
                let most = if self.delivered.is_multiple_of(3) { 1 } else { usize::MAX };
                let job = self.core.start_read(most).expect("there is memory for the front");
                self.jobs.push(Job::Read(job));
            }
            Front::Wait => self.core.park_reader(),
            Front::End => {
                assert_eq!(self.delivered, self.accepted, "a clean end on a stream that was cut: {:?}", self.core);
                assert_eq!(self.writer_end, Some("finish"));
                self.end = Some(Ok(()));
            }
            Front::Failed(error) => self.reader_was_told(error),
            Front::Block { .. } | Front::Sealed | Front::Tail(_) | Front::Item(_) => unreachable!(),
        }
    }

    fn reader_was_told(&mut self, error: SpillError) {
        match &error {
            SpillError::WriterFailed { cause } if cause.to_string() == "abort" => {}
            SpillError::Storage { op: StorageOp::Read, .. } | SpillError::Corrupt { .. } => {
                assert_eq!(self.read_fault, Some(self.delivered), "told at another offset: {:?}", self.core);
            }
            // All others come behind the last accepted byte.
            _ => assert_eq!(self.delivered, self.accepted, "{error:?} before the last byte: {:?}", self.core),
        }
        let expected = match &error {
            SpillError::WriterFailed { cause } => self.writer_end.is_some_and(|how| how == cause.to_string()),
            SpillError::WriterDropped => self.writer_end == Some("drop"),
            SpillError::DiskLimit { .. } => self.limits.on_full == OnFull::Fail,
            SpillError::Storage { op: StorageOp::Write, .. } => self.write_fault,
            SpillError::Storage { .. } | SpillError::Corrupt { .. } => self.read_fault.is_some(),
            _ => false,
        };
        assert!(expected, "the reader was told {error:?}: {:?}", self.core);
        self.end = Some(Err(error));
    }

    fn deliver(&mut self, bytes: &[u8]) {
        for (offset, &byte) in (self.delivered..).zip(bytes) {
            assert_eq!(byte, byte_at(offset), "a wrong byte at {offset}");
        }
        self.delivered += bytes.len() as u64;
        assert!(self.delivered <= self.accepted);
    }

    fn end_reader(&mut self, how: &'static str, error: SpillError) {
        let _ = self.core.end_reader(error);
        self.reader_end = self.reader_end.or(Some(how));
    }

    // ---- the disk ----

    /// One step of the I/O thread.
    fn drive(&mut self) {
        let mut ends_turn = self.queued && !self.core.waits_for_slots();
        while let Some(want) = self.core.wants_write() {
            let answer = self.disk.borrow_mut().ask(self.id, want);
            match answer {
                Answer::Slots(run) => {
                    self.start_write(run);
                    break;
                }
                Answer::Full => {
                    self.core.no_slots(None, 0);
                    self.queued = true;
                    ends_turn = false;
                }
                Answer::Busy => self.core.slots_busy(self.now),
                Answer::AskSpace => self.ask_space(),
            }
        }
        if ends_turn {
            self.queued = false;
            self.disk.borrow_mut().end_turn(self.id);
        }
    }

    fn start_write(&mut self, run: SlotRun) {
        let job = self.core.start_write(run);
        assert_eq!(job.blocks.len() as u64, run.count);
        let full = |(_, block): &(u64, Arc<Block>)| block.len() == self.limits.block;
        assert!(job.blocks.iter().rev().skip(1).all(full), "a short block lies before others of its run");
        self.jobs.push(Job::Write(job));
    }

    fn complete(&mut self, which: usize, part: u8, fault: Fault) {
        match self.jobs.remove(which) {
            Job::Write(job) => {
                let n = job.blocks.len();
                self.unopened |= fault == Fault::Corrupt;
                let done = if matches!(fault, Fault::None | Fault::Corrupt) { n } else { usize::from(part) % n };
                for (i, (slot, (start, block))) in (job.run.first..).zip(&job.blocks).enumerate() {
                    let written = (i < done).then(|| (*start, plain(block)));
                    self.disk.borrow_mut().write(self.id, slot, written);
                }
                let fault = match fault {
                    Fault::None | Fault::Corrupt => None,
                    Fault::Full => Some(WriteFault::Full(Arc::new(io::ErrorKind::StorageFull.into()))),
                    Fault::Io | Fault::Lost => {
                        self.write_fault = true;
                        let source = io::Error::other("EIO");
                        Some(WriteFault::Broken(SpillError::storage(StorageOp::Write, "/".as_ref(), 0, source)))
                    }
                };
                self.core.wrote(job, Wrote { done, fault }, self.now);
            }
            Job::Read(mut job) => {
                let good = if fault == Fault::None { job.blocks.len() } else { usize::from(part) % job.blocks.len() };
                let mut offset = job.start;
                for (slot, block) in (job.run.first..).zip(&mut job.blocks).take(good) {
                    let disk = self.disk.borrow();
                    let stored = disk.read(self.id, slot, offset);
                    assert_eq!(stored.len(), block.len());
                    block.filled_mut().copy_from_slice(stored);
                    offset += block.len() as u64;
                }
                let error = self.read_error(fault, offset);
                self.core.did_read(job, good, error);
            }
            Job::Direct(job) => {
                let count = job.run.count as usize;
                let good = if fault == Fault::None { count } else { usize::from(part) % count };
                let mut bytes = Vec::new();
                for slot in (job.run.first..).take(good) {
                    let disk = self.disk.borrow();
                    bytes.extend_from_slice(disk.read(self.id, slot, job.start + bytes.len() as u64));
                }
                assert!(bytes.len() <= job.len && (good < count || bytes.len() == job.len));
                // A miss in the page cache is no fault: what is left is read in another way.
                let missed = fault == Fault::Lost;
                let error = if missed { None } else { self.read_error(fault, job.start + bytes.len() as u64) };
                let n = self.core.did_direct(&job, good, error);
                self.deliver(&bytes[..n]);
                assert!(n == bytes.len() || self.core.discarded);
            }
        }
    }

    fn read_error(&mut self, fault: Fault, offset: u64) -> Option<SpillError> {
        let error = match fault {
            Fault::None => return None,
            Fault::Corrupt => SpillError::Corrupt { offset, path: "/".into(), reason: "the checksum does not match" },
            Fault::Full | Fault::Io | Fault::Lost => {
                SpillError::storage(StorageOp::Read, "/".as_ref(), offset, io::Error::other("EIO"))
            }
        };
        if !self.core.discarded {
            // Bytes of the broken block that were read before lie in front of its start.
            self.read_fault = Some(offset.max(self.delivered));
        }
        Some(error)
    }

    /// The file system says how much is free.
    fn ask_space(&mut self) {
        if let Slots::Shared(pooled) = &mut self.disk.borrow_mut().slots
            && !pooled.ask_space()
        {
            let source = io::ErrorKind::StorageFull.into();
            self.core.cannot_write(WriteFault::Full(Arc::new(source)), self.now);
        }
    }

    fn come_to_an_end(&mut self) {
        self.end_writing();
        while self.goes_on() {}
        self.is_given_back();
    }

    fn end_writing(&mut self) {
        self.put_tail(0);
        self.settle();
        self.apply(&Op::DropWriter);
    }

    /// Reads on, and does what an I/O thread and the clock would; `false` when the reader has met an end.
    fn goes_on(&mut self) -> bool {
        // Of what is on its way one is done each time, and another may begin: the one that is waited for may be the last.
        for _ in 0..10 + self.jobs.len() {
            if self.end.is_some() || self.reader_end.is_some() {
                return false;
            }
            let before = (self.delivered, self.jobs.len(), self.core.deadline());
            self.apply(&Op::Read(u16::MAX));
            self.apply(&Op::Drive);
            self.apply(&Op::Complete(0, 0, Fault::None));
            self.apply(&Op::PassTime(2_000_000));
            if before != (self.delivered, self.jobs.len(), self.core.deadline()) {
                return true;
            }
        }
        // Lent blocks are a user's to return; all else goes on by itself.
        assert!(!self.chunks.is_empty(), "it hangs: {:?}", self.core);
        self.apply(&Op::DropChunk(0));
        true
    }

    fn is_given_back(&mut self) {
        if let Some(Ok(())) = self.end {
            assert_eq!(self.delivered, self.accepted);
        }
        self.apply(&Op::DropReader);
        while !self.jobs.is_empty() {
            self.apply(&Op::Complete(0, 0, Fault::None));
        }
        while !self.chunks.is_empty() {
            self.apply(&Op::DropChunk(0));
        }
        let stats = self.core.stats();
        assert_eq!((stats.memory_held, stats.lent, stats.disk_held), (0, 0, 0), "a leak: {:?}", self.core);
        let disk = self.disk.borrow();
        assert!(disk.file.values().all(|granted| granted.owner != self.id), "a slot was lost: {disk:?}");
        assert!(self.core.is_over());
    }
}

fn choose(which: u8, of: usize) -> Option<usize> {
    (of > 0).then(|| usize::from(which) % of.max(1))
}
