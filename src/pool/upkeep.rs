//! Giving back what is not needed: pages of the file, the file itself, memory of those who stand still.
//! Never while a lock is held, and never on an async thread.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{
    Disk, Pool,
    slots::{Punch, SlotMap},
};
use crate::{
    block,
    clock::{self, Tick},
    storage::{Punched, SpillFile},
    sync::{Arc, Mutex, PoisonError, Weak},
    threads::{Lane, Work},
};

/// Above what is kept, pages are given back in steps of this many bytes: a step of 4 MiB or more costs
/// 30 ms a GiB, smaller ones cost more.
const STEP: u64 = 4 << 20;

/// Runs shorter than this many bytes wait as well: where many streams are read at once, what each frees grows together.
const LEAST: u64 = 1 << 20;

/// What is below a step is given back after this time, in nanoseconds.
const SETTLE: u64 = 20_000_000;

/// When no slot has been granted or freed for this time, in nanoseconds, nothing is kept for reuse,
/// and a file with nothing in it is closed.
const QUIET: u64 = 1_000_000_000;

/// How long one who waits for memory goes unserved before all are looked at again, in nanoseconds: one that was
/// served may not have taken what it was offered.
const ASK_AGAIN: u64 = 5_000_000;

/// The time in which a reader moves if it does not stand still, in nanoseconds: as long as its writer is held for it while the
/// scheduler does not come to it. With a hundred tasks on two threads that takes more than five milliseconds.
const STANDS_STILL: u64 = 20_000_000;

/// Space should be given back.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) enum Upkeep {
    Now,
    At(u64),
}

/// How far upkeep is.
#[derive(Debug, Default)]
pub(super) struct State {
    /// In the lane's queue, or at work.
    queued: bool,
    /// A call by the clock is due at this time.
    armed: Option<u64>,
    /// When the members were last asked for memory.
    asked_at: u64,
    /// A look at those who wait for memory is due at this time.
    asks_at: Option<u64>,
    /// When a slot was last granted or freed.
    pub(super) active_at: u64,
    /// Give back what exceeds what is kept, however little it is.
    fully: bool,
    /// A write found no room: nothing is kept, and no slot is granted until all that is free is given back.
    making_room: bool,
    /// Jobs that have found no room and still hold their slots.
    held_up: usize,
    /// Close the file as soon as nothing in it is live.
    pub(super) close: bool,
    cannot_punch: bool,
}

/// What upkeep does next.
enum Chore {
    Punch(Arc<SpillFile>, Vec<(u64, u64)>, Punch),
    Close(Arc<SpillFile>),
    Nothing,
}

impl State {
    /// Whether slots are to be granted.
    pub(super) fn grants(&self) -> bool {
        !self.making_room && self.held_up == 0
    }

    fn later(&mut self, at: u64) -> Option<Upkeep> {
        if self.armed.is_some_and(|armed| armed <= at) {
            return None;
        }
        self.armed = Some(at);
        Some(Upkeep::At(at))
    }
}

impl Pool {
    /// What the present state asks for.
    pub(super) fn due(&self, disk: &mut Disk) -> Option<Upkeep> {
        let block = self.geometry.block() as u64;
        let (warm, longest) = (disk.slots.warm() * block, disk.slots.longest_warm() * block);
        let upkeep = &mut disk.upkeep;
        if disk.file.is_none() || upkeep.queued {
            return None;
        }
        if upkeep.close && disk.slots.live() == 0 {
            return Some(Upkeep::Now);
        }
        if upkeep.cannot_punch {
            return if disk.slots.live() == 0 { upkeep.later(upkeep.active_at + SETTLE) } else { None };
        }
        if warm > self.retain.saturating_add(STEP) && longest >= LEAST {
            return Some(Upkeep::Now);
        }
        if warm > self.retain {
            return upkeep.later(upkeep.active_at + SETTLE);
        }
        if warm > 0 || disk.slots.live() == 0 {
            return upkeep.later(upkeep.active_at + QUIET);
        }
        None
    }

    pub(super) fn begin_upkeep(self: &Arc<Self>) {
        let mut disk = self.lock();
        if disk.upkeep.queued {
            return;
        }
        disk.upkeep.queued = true;
        drop(disk);
        if self.submit(Arc::clone(self) as Arc<dyn Work>).is_err() {
            // No thread can be started: the space waits for the next occasion, the file for its drop.
            let mut disk = self.lock();
            disk.upkeep.queued = false;
            disk.upkeep.making_room = false;
        }
    }

    /// The file system had no room: all that is free is given back, and until then nothing is granted. Whether it is worth to try then;
    /// `again`: that has been tried already. Without any lock.
    ///
    /// What is kept for reuse is of no use where even that is written to another place; and there it may hold far more of the disk than
    /// itself, for btrfs frees an extent when nothing in it is in use any more.
    pub(crate) fn makes_room(self: &Arc<Self>, again: bool) -> bool {
        let mut disk = self.lock();
        if disk.upkeep.making_room {
            return true;
        }
        // What the caller held a moment ago may have been given back with what others did: nothing being left says nothing.
        if again || disk.file.is_none() {
            return false;
        }
        disk.upkeep.making_room = true;
        drop(disk);
        self.begin_upkeep();
        true
    }

    /// Grants nothing until this is dropped: what comes free is for [`makes_room`](Self::makes_room), not for the next one to fail with.
    pub(crate) fn hold_up(&self) -> HeldUp<'_> {
        self.lock().upkeep.held_up += 1;
        HeldUp(self)
    }

    pub(super) fn call_at(self: &Arc<Self>, at: u64) {
        let me: Weak<Self> = Arc::downgrade(self);
        if clock::call_at(at, me).is_err() {
            self.lock().upkeep.armed = None;
        }
    }

    /// Whether the members have had time to move since they were last asked for memory.
    pub(super) fn may_ask(&self) -> bool {
        clock::now() >= self.lock().upkeep.asked_at + STANDS_STILL
    }

    /// Those who wait are looked at again in a while: one who was served may not have taken what there was.
    pub(super) fn ask_again(self: &Arc<Self>) {
        if !self.somebody_waits() {
            return;
        }
        let at = clock::now() + ASK_AGAIN;
        let mut disk = self.lock();
        if disk.upkeep.asks_at.is_some() {
            return;
        }
        disk.upkeep.asks_at = Some(at);
        drop(disk);
        self.call_at(at);
    }

    fn next_chore(self: &Arc<Self>) -> Chore {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let block = self.geometry.block() as u64;
        if let Some(file) = disk.file.clone() {
            let idle = disk.slots.live() == 0 && !disk.slots.is_punching();
            let quiet = clock::now() >= disk.upkeep.active_at + QUIET;
            let over = disk.slots.warm() * block > self.retain;
            if idle && (quiet || disk.upkeep.close || (over && disk.upkeep.cannot_punch)) {
                disk.file = None;
                disk.slots = SlotMap::new(self.geometry, self.limits.slots);
                let State { armed, asks_at, close, held_up, .. } = disk.upkeep;
                disk.upkeep = State { armed, asks_at, close, held_up, queued: true, ..State::default() };
                if quiet {
                    block::trim();
                }
                return Chore::Close(file);
            }
            let empties = quiet || disk.upkeep.making_room;
            let keep = if empties { 0 } else { self.retain };
            let fully = disk.upkeep.fully || empties;
            let (over, least) = if fully { (keep, 1) } else { (keep.saturating_add(STEP), LEAST / block) };
            if disk.slots.warm() * block > over
                && !disk.upkeep.cannot_punch
                && let Some(punch) = disk.slots.next_punch(keep / block, least, 16 * STEP / block)
            {
                let ranges = disk.slots.ranges(&punch);
                return Chore::Punch(file, ranges, punch);
            }
        }
        disk.upkeep.queued = false;
        disk.upkeep.fully = false;
        disk.upkeep.making_room = false;
        let due = match self.due(disk) {
            // As much is warm as a step; it has been looked at just now.
            Some(Upkeep::Now) => disk.upkeep.later(clock::now() + SETTLE),
            other => other,
        };
        drop(guard);
        if let Some(Upkeep::At(at)) = due {
            self.call_at(at);
        }
        Chore::Nothing
    }
}

/// A job has found no room.
pub(crate) struct HeldUp<'a>(&'a Pool);

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        self.0.lock().upkeep.held_up -= 1;
    }
}

impl Work for Pool {
    fn work(self: Arc<Self>, _: &Lane) -> bool {
        match self.next_chore() {
            Chore::Close(file) => {
                drop(file);
                true
            }
            Chore::Punch(file, ranges, punch) => {
                // Should it panic, the slots are not lost, and upkeep goes on.
                let punched = catch_unwind(AssertUnwindSafe(|| file.punch(&ranges))).unwrap_or(Punched::NotNow);
                drop(file);
                let mut disk = self.lock();
                disk.upkeep.cannot_punch |= punched == Punched::Never;
                disk.slots.punched(punch, punched == Punched::Gone);
                let goes_on = punched != Punched::NotNow;
                disk.upkeep.queued = goes_on;
                disk.upkeep.making_room &= goes_on;
                let later = if goes_on { None } else { disk.upkeep.later(clock::now() + SETTLE) };
                drop(disk);
                if let Some(Upkeep::At(at)) = later {
                    self.call_at(at);
                }
                // Meanwhile these slots were nobody's, and whose turn it is was not told of them.
                self.next_turn();
                goes_on
            }
            Chore::Nothing => {
                if self.somebody_waits() {
                    if self.may_ask() {
                        self.lock().upkeep.asked_at = clock::now();
                        self.squeeze();
                    }
                    self.memory_came();
                    self.ask_again();
                }
                false
            }
        }
    }
}

impl Tick for Pool {
    fn tick(self: Arc<Self>, now: u64) {
        let mut disk = self.lock();
        let upkeep = &mut disk.upkeep;
        let due = [&mut upkeep.armed, &mut upkeep.asks_at].map(|at| at.take_if(|at| *at <= now).is_some());
        upkeep.fully |= due[0];
        drop(disk);
        // A call that was made before an earlier one is stale.
        if due.contains(&true) {
            self.begin_upkeep();
            self.next_turn();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.shared.is_some() {
            block::keep_less(self.limits.memory);
        }
        self.left();
        // Freeing a large file takes tens of milliseconds a GiB: not on the thread that drops us.
        let Some(disk) = self.disk.get_mut() else { return };
        let disk = disk.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(file), Some(lane)) = (disk.file.take(), self.lane.get()) {
            // Where no thread can be started it is freed here after all.
            let _ = lane.submit(Arc::new(Closing(Mutex::new(Some(file)))));
        }
    }
}

/// A file that is waiting to be closed.
struct Closing(Mutex<Option<Arc<SpillFile>>>);

impl Work for Closing {
    fn work(self: Arc<Self>, _: &Lane) -> bool {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        false
    }
}
