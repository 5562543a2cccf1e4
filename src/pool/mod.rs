//! What buffers share: one temp file, its slots, the threads that serve it.
//! Never touches a buffer, so that its lock may be taken under theirs.

mod extents;
mod slots;

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use self::slots::{Punch, SlotMap};
use crate::{
    clock::{self, Tick},
    error::SpillError,
    options::{Options, Place},
    slot::{GROUP, Geometry, PAGE, SlotRun},
    storage::{Codec, SpillFile, sys::Platform},
    threads::{Lane, Work},
};

/// What a stand-alone buffer's file keeps for reuse, in bytes.
const RETAIN: u64 = 2 << 20;

/// Above that, pages are given back in steps of this many bytes: a step of 4 MiB or more costs 30 ms
/// a GiB, smaller ones cost more.
const STEP: u64 = 4 << 20;

/// What is below a step is given back after this time, in nanoseconds.
const SETTLE: u64 = 40_000_000;

/// A file with nothing in it is closed after this time, in nanoseconds.
const QUIET: u64 = 1_000_000_000;

/// One temp file and its slots.
#[derive(Debug)]
pub(crate) struct Pool {
    me: Weak<Self>,
    platform: Arc<dyn Platform>,
    place: Place,
    geometry: Geometry,
    codec: Codec,
    max_slots: u64,
    disk: Mutex<Disk>,
    /// Held while a file is made, which may take as long as the disk likes; never with `disk`.
    creating: Mutex<()>,
    lane: OnceLock<Arc<Lane>>,
}

#[derive(Debug)]
struct Disk {
    file: Option<Arc<SpillFile>>,
    slots: SlotMap,
    upkeep: State,
}

/// Space should be given back.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub(crate) enum Upkeep {
    Now,
    At(u64),
}

/// How far upkeep is.
#[derive(Debug, Default)]
struct State {
    /// In the lane's queue, or at work.
    queued: bool,
    /// A call by the clock is due at this time.
    armed: Option<u64>,
    /// Nothing has been live since this time.
    quiet_since: Option<u64>,
    /// Give back what exceeds what is kept, however little it is.
    fully: bool,
    /// Close the file as soon as nothing in it is live.
    close: bool,
    cannot_punch: bool,
}

impl State {
    fn later(&mut self, delay: u64) -> Option<Upkeep> {
        let at = clock::now() + delay;
        if self.armed.is_some_and(|armed| armed <= at) {
            return None;
        }
        self.armed = Some(at);
        Some(Upkeep::At(at))
    }
}

/// What upkeep does next.
enum Chore {
    Punch(Arc<SpillFile>, Vec<(u64, u64)>, Punch),
    Close(Arc<SpillFile>),
    Nothing,
}

impl Pool {
    pub(crate) fn new(options: &Options, platform: Arc<dyn Platform>) -> Arc<Self> {
        let geometry = Geometry::new(options.limits.block);
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            platform,
            place: options.place.clone(),
            geometry,
            codec: Codec::new(options.verify),
            max_slots: options.slots,
            disk: Mutex::new(Disk {
                file: None,
                slots: SlotMap::new(geometry, options.slots),
                upkeep: State::default(),
            }),
            creating: Mutex::new(()),
            lane: OnceLock::new(),
        })
    }

    /// Has work done on an I/O thread.
    pub(crate) fn submit(&self, work: Arc<dyn Work>) -> io::Result<()> {
        self.lane.get_or_init(|| Lane::of(&self.place)).submit(work)
    }

    /// The directory, for errors that come before there is a file.
    pub(crate) fn dir(&self) -> std::path::PathBuf {
        self.place.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Up to `want` adjacent slots of the file, which there must be.
    pub(crate) fn grant(&self, want: u64) -> Option<(SlotRun, Arc<SpillFile>)> {
        let mut disk = self.lock();
        let file = Arc::clone(disk.file.as_ref()?);
        disk.upkeep.quiet_since = None;
        let run = disk.slots.grant(want)?;
        Some((run, file))
    }

    pub(crate) fn file(&self) -> Option<Arc<SpillFile>> {
        self.lock().file.clone()
    }

    pub(crate) fn has_file(&self) -> bool {
        self.lock().file.is_some()
    }

    /// Makes the file, unless there is one. Waits for the disk: for I/O threads only.
    pub(crate) fn create_file(&self, offset: u64) -> Result<(), SpillError> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_file() {
            return Ok(());
        }
        let file = SpillFile::create(&*self.platform, &self.place, self.geometry, self.codec, offset)?;
        let mut disk = self.lock();
        disk.slots.lower_limit(file.slots());
        disk.file = Some(Arc::new(file));
        Ok(())
    }

    /// Takes slots back whose bytes nobody needs any more. What that asks for is to be handed to
    /// [`see_to`](Self::see_to) once the caller's lock is released.
    #[must_use]
    pub(crate) fn free(&self, runs: impl Iterator<Item = SlotRun>) -> Option<Upkeep> {
        let mut disk = self.lock();
        for run in runs {
            disk.slots.free(run);
        }
        let warm = disk.slots.warm() * self.geometry.block() as u64;
        let idle = disk.slots.live() == 0;
        if idle && disk.upkeep.quiet_since.is_none() {
            disk.upkeep.quiet_since = Some(clock::now());
        }
        match warm {
            _ if warm > RETAIN + STEP => Some(Upkeep::Now).filter(|_| !disk.upkeep.queued),
            _ if warm > RETAIN => disk.upkeep.later(SETTLE),
            _ if idle => disk.upkeep.later(QUIET),
            _ => None,
        }
    }

    /// Has the file's space given back, now or later.
    pub(crate) fn see_to(&self, upkeep: Upkeep) {
        match upkeep {
            Upkeep::Now => self.begin_upkeep(),
            Upkeep::At(at) => {
                let me: Weak<dyn Tick> = self.me.clone();
                if clock::call_at(at, me).is_err() {
                    self.lock().upkeep.armed = None;
                }
            }
        }
    }

    /// Nothing will be written any more: the file goes as soon as nothing in it is live.
    pub(crate) fn close(&self) {
        let mut disk = self.lock();
        disk.upkeep.close = disk.file.is_some();
        drop(disk);
        self.begin_upkeep();
    }

    /// Bytes that the file occupies, trailers included, by the count of slots.
    pub(crate) fn file_bytes(&self) -> u64 {
        let disk = self.lock();
        if disk.file.is_none() {
            return 0;
        }
        disk.slots.occupied() * self.geometry.block() as u64 + disk.slots.high().div_ceil(GROUP) * PAGE
    }

    fn begin_upkeep(&self) {
        let Some(me) = self.me.upgrade() else { return };
        let mut disk = self.lock();
        if disk.upkeep.queued || disk.file.is_none() {
            return;
        }
        disk.upkeep.queued = true;
        drop(disk);
        if self.submit(me).is_err() {
            // No thread can be started: the space waits for the next occasion, the file for its drop.
            self.lock().upkeep.queued = false;
        }
    }

    fn next_chore(&self) -> Chore {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let Some(file) = disk.file.clone() else {
            disk.upkeep.queued = false;
            return Chore::Nothing;
        };
        let block = self.geometry.block() as u64;
        let idle = disk.slots.live() == 0 && !disk.slots.is_punching();
        let quiet = disk.upkeep.quiet_since.is_some_and(|since| clock::now() >= since + QUIET);
        let over = disk.slots.warm() * block > RETAIN;
        if idle && (quiet || disk.upkeep.close || (over && disk.upkeep.cannot_punch)) {
            disk.file = None;
            disk.slots = SlotMap::new(self.geometry, self.max_slots);
            disk.upkeep = State { armed: disk.upkeep.armed, ..State::default() };
            return Chore::Close(file);
        }
        let least = if disk.upkeep.fully { RETAIN } else { RETAIN + STEP };
        if disk.slots.warm() * block > least
            && !disk.upkeep.cannot_punch
            && let Some(punch) = disk.slots.next_punch(RETAIN / block, 16 * STEP / block)
        {
            let ranges = disk.slots.ranges(&punch);
            return Chore::Punch(file, ranges, punch);
        }
        disk.upkeep.queued = false;
        disk.upkeep.fully = false;
        let later = match () {
            () if over && !disk.upkeep.cannot_punch => disk.upkeep.later(SETTLE),
            () if idle => disk.upkeep.later(QUIET),
            () => None,
        };
        drop(guard);
        if let Some(later) = later {
            self.see_to(later);
        }
        Chore::Nothing
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work for Pool {
    fn work(self: Arc<Self>) -> bool {
        match self.next_chore() {
            Chore::Nothing => false,
            Chore::Close(file) => {
                drop(file);
                true
            }
            Chore::Punch(file, ranges, punch) => {
                let gone = file.punch(&ranges);
                drop(file);
                let mut disk = self.lock();
                disk.upkeep.cannot_punch |= !gone;
                disk.slots.punched(punch, gone);
                true
            }
        }
    }
}

impl Tick for Pool {
    fn tick(&self, _: u64) {
        let mut disk = self.lock();
        disk.upkeep.armed = None;
        disk.upkeep.fully = true;
        drop(disk);
        self.begin_upkeep();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Freeing a large file takes tens of milliseconds a GiB: not on the thread that drops us.
        let disk = self.disk.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(file), Some(lane)) = (disk.file.take(), self.lane.get()) {
            // Where no thread can be started it is freed here after all.
            let _ = lane.submit(Arc::new(Closing(Mutex::new(Some(file)))));
        }
    }
}

/// A file that is waiting to be closed.
struct Closing(Mutex<Option<Arc<SpillFile>>>);

impl Work for Closing {
    fn work(self: Arc<Self>) -> bool {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        false
    }
}
