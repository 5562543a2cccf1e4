//! What buffers share: memory, one temp file and its slots, the threads that serve it.
//! Never touches a buffer while it is locked, and its locks may be taken under a buffer's.

mod budget;
mod extents;
mod members;
mod queue;
mod slots;
mod upkeep;

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

#[cfg(any(test, fuzzing))]
pub(crate) use self::slots::Punch;
pub(crate) use self::{
    budget::{Budget, LEAST_BLOCKS},
    members::{Member, Totals},
    queue::{Answer, Queue},
    slots::SlotMap,
    upkeep::Upkeep,
};
use self::{members::Members, upkeep::State};
use crate::{
    block, clock,
    error::{SpillError, StorageOp},
    lender::{Lender, Purpose},
    options::{Limits, Options, Place},
    slot::{GROUP, Geometry, PAGE, SlotRun, TRAILER},
    stats::SpillStats,
    storage::{
        Cipher, SpillFile,
        sys::{Platform, System},
    },
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    threads::{Lane, ReadAhead, Work},
};

/// What a stand-alone buffer's file keeps for reuse, in bytes.
const RETAIN_ALONE: u64 = 2 << 20;

/// What may newly be taken of a file system before its free space is asked for again, in bytes.
const SPACE_STEP: u64 = 64 << 20;

/// One temp file and its slots; for many buffers, their memory too.
#[derive(Debug)]
pub(crate) struct Pool {
    /// None for the system itself.
    platform: Option<Arc<dyn Platform>>,
    place: Place,
    geometry: Geometry,
    limits: Limits,
    /// Bytes that are kept warm for reuse.
    retain: u64,
    min_free_space: Option<MinFreeSpace>,
    /// Made when it is first asked for: most buffers never do.
    disk: OnceLock<Box<Mutex<Disk>>>,
    /// Held while a file is made, which may take as long as the disk likes; never with `disk`.
    creating: Mutex<()>,
    lane: OnceLock<Arc<Lane>>,
    /// Where what goes to disk is encrypted: made with the first file. It outlasts files, for memory may hold blocks that are
    /// sealed for any of them.
    cipher: OnceLock<Arc<Cipher>>,
    /// None for a buffer that stands alone: a pool of one.
    shared: Option<Box<Company>>,
    /// A buffer stands alone, and counts among those for which freed blocks are kept.
    counts: AtomicBool,
}

/// What only a pool of many has.
#[derive(Debug)]
struct Company {
    budget: Arc<Budget>,
    members: Members,
}

#[derive(Debug)]
struct Disk {
    file: Option<Arc<SpillFile>>,
    slots: SlotMap,
    /// Who waits for slots.
    queue: Queue<Weak<dyn Member>>,
    peak: u64,
    /// Slots that may be newly occupied before the file system is asked for its free space.
    spare: u64,
    upkeep: State,
}

/// How much of a file system is not to be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MinFreeSpace {
    Bytes(u64),
    /// The smaller of 256 MiB and a twentieth of it.
    Usual,
}

/// What comes of asking for slots.
pub(crate) enum Grant {
    Slots(SlotRun, Arc<SpillFile>),
    /// The limit is reached, or others come first; or the file cannot grow, and why. The caller is queued.
    Full(Option<Arc<io::Error>>),
    /// What is free is being given back to the file system; it will be there again in a moment.
    Busy,
    /// The file is to be made first.
    NoFile,
    /// The file system is to be asked first how much is free.
    AskSpace,
}

/// What is to be done once the caller's lock is released.
#[derive(Clone, Copy)]
#[must_use]
pub(crate) struct Followup {
    upkeep: Option<Upkeep>,
    /// Somebody waits for slots.
    turn: bool,
}

impl Pool {
    /// For a buffer that stands alone.
    pub(crate) fn private(options: &Options, platform: Option<Arc<dyn Platform>>) -> Arc<Self> {
        block::came(options.limits.memory);
        Self::new(options, platform, RETAIN_ALONE, None, None)
    }

    /// For many.
    pub(crate) fn shared(
        options: &Options,
        platform: Arc<dyn Platform>,
        retain: u64,
        space: MinFreeSpace,
    ) -> Arc<Self> {
        let budget = Budget::new(options.limits.memory, options.limits.block).with_disk_limit(options.limits.disk);
        let budget = Arc::new(budget);
        block::keep_more(options.limits.memory);
        let company = Company { budget, members: Members::default() };
        // Where nothing is to be kept free, the file system is not asked: it says itself when it is full, and what it says
        // beforehand may be old. An xfs may tell of no free space long after others gave some back, until a write makes it look.
        let space = Some(space).filter(|&space| space != MinFreeSpace::Bytes(0));
        Self::new(options, Some(platform), retain, space, Some(Box::new(company)))
    }

    fn new(
        options: &Options,
        platform: Option<Arc<dyn Platform>>,
        retain: u64,
        min_free_space: Option<MinFreeSpace>,
        shared: Option<Box<Company>>,
    ) -> Arc<Self> {
        let geometry = Geometry::new(options.limits.block);
        let counts = AtomicBool::new(shared.is_none());
        // Not `Arc::new`: that makes it on the stack first and copies it.
        Arc::new_cyclic(|_| Self {
            counts,
            platform,
            place: options.place.clone(),
            geometry,
            limits: options.limits,
            retain,
            min_free_space,
            disk: OnceLock::new(),
            creating: Mutex::new(()),
            lane: OnceLock::new(),
            cipher: OnceLock::new(),
            shared,
        })
    }

    fn platform(&self) -> &dyn Platform {
        self.platform.as_deref().unwrap_or(&System)
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Has work done on an I/O thread.
    pub(crate) fn submit(&self, work: Arc<dyn Work>) -> io::Result<()> {
        self.lane.get_or_init(|| Lane::of(&self.place)).submit(work)
    }

    /// Whether a thread may read ahead of this reader: there is memory for a few at a time. Without any buffer's lock.
    pub(crate) fn may_read_ahead(&self, who: Weak<dyn ReadAhead>) -> bool {
        self.lane.get().is_some_and(|lane| lane.may_read_ahead(who))
    }

    /// The directory, for errors that come before there is a file.
    pub(crate) fn dir(&self) -> PathBuf {
        self.place.dir.clone().unwrap_or_else(std::env::temp_dir)
    }

    // ---- memory, where it is shared ----

    pub(crate) fn lender(&self) -> Option<Arc<dyn Lender>> {
        self.shared.as_ref().map(|shared| shared.budget.clone() as Arc<dyn Lender>)
    }

    pub(crate) fn budget(&self) -> Option<&Budget> {
        self.shared.as_ref().map(|shared| &*shared.budget)
    }

    pub(crate) fn join(&self, id: u64, member: impl FnOnce() -> Weak<dyn Member>) {
        if let Some(shared) = &self.shared {
            shared.members.join(id, member());
        }
    }

    pub(crate) fn leave(&self, id: u64, stats: impl FnOnce() -> SpillStats) {
        if let Some(shared) = &self.shared {
            shared.members.leave(id, &stats());
        }
    }

    /// All buffers, and what those did that are gone.
    pub(crate) fn members(&self) -> (Vec<Arc<dyn Member>>, Totals) {
        self.shared.as_ref().map_or_else(Default::default, |shared| shared.members.all())
    }

    /// A member waits for memory until [`Member::memory_came`]. Without the member's lock.
    pub(crate) fn wait_for_memory(self: &Arc<Self>, id: u64, purpose: Purpose) {
        let Some(shared) = &self.shared else { return };
        shared.members.wait(id, purpose);
        // Some may have come free before the queue knew of it: upkeep looks at that, and asks for more.
        if shared.budget.available(purpose) > 0 || self.may_ask() {
            self.begin_upkeep();
        } else {
            self.ask_again();
        }
    }

    pub(crate) fn somebody_waits(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.members.somebody_waits())
    }

    /// Memory came free: those who wait for it are told. Without any lock.
    pub(crate) fn memory_came(&self) {
        let Some(shared) = &self.shared else { return };
        for member in shared.members.served(&shared.budget) {
            told(|| member.memory_came());
        }
    }

    /// Asks members whose readers stand still for memory. Says whether any will come.
    fn squeeze(&self) -> bool {
        const AT_ONCE: usize = 256;
        let Some(shared) = &self.shared else { return false };
        let mut any = false;
        for member in shared.members.to_ask(AT_ONCE) {
            any |= told(|| member.squeeze());
        }
        any
    }

    // ---- the file and its slots ----

    /// Up to `want` adjacent slots of the file. Under the limit, those who wait are served in order.
    pub(crate) fn grant(&self, want: u64, id: u64, member: &Weak<dyn Member>) -> Grant {
        let mut guard = self.lock();
        let disk = &mut *guard;
        let Some(file) = disk.file.clone() else { return Grant::NoFile };
        disk.upkeep.active_at = clock::now();
        if !disk.upkeep.grants() {
            return Grant::Busy;
        }
        if disk.slots.limit() < self.limits.slots {
            // The file-size limit may have been raised since.
            disk.slots.set_limit(self.limits.slots.min(file.slots()));
        }
        match disk.queue.ask(id, &mut disk.slots, want, &mut disk.spare) {
            Answer::Slots(run) => {
                if let Some(budget) = self.budget() {
                    budget.replenish();
                }
                disk.peak = disk.peak.max(disk.slots.live());
                Grant::Slots(run, file)
            }
            Answer::AskSpace => Grant::AskSpace,
            Answer::Busy => Grant::Busy,
            Answer::Full => {
                let by = file.too_large(self.limits.slots).map(Arc::new);
                if let Some(shared) = &self.shared {
                    if disk.slots.has_room() {
                        shared.budget.replenish();
                    } else {
                        shared.budget.exhaust(by.clone());
                    }
                    disk.queue.wait(id, member);
                }
                Grant::Full(by)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn waiting_for_threads(&self) -> usize {
        self.lane.get().map_or(0, |lane| lane.queued())
    }

    #[cfg(test)]
    pub(crate) fn queue(&self) -> Vec<u64> {
        self.lock().queue.ids()
    }

    /// The member has got slots, or wants none: it is the next one's turn. Without any lock.
    pub(crate) fn end_turn(&self, id: u64) {
        if self.shared.is_none() {
            return;
        }
        let gone = self.lock().queue.leave(id);
        if gone.is_some() {
            drop(gone);
            self.next_turn();
        }
    }

    /// Tells the one whose turn it is that there are slots. Without any lock.
    fn next_turn(&self) {
        loop {
            let disk = self.lock();
            let Some((ticket, first)) = disk.queue.next(&disk.slots) else { return };
            drop(disk);
            if told(|| first.upgrade().is_some_and(Member::slots_came)) {
                return;
            }
            let gone = self.lock().queue.skip(ticket);
            drop(gone);
        }
    }

    pub(crate) fn file(&self) -> Option<Arc<SpillFile>> {
        self.lock().file.clone()
    }

    /// Makes the file, unless there is one. Waits for the disk: for I/O threads only.
    pub(crate) fn create_file(self: &Arc<Self>, offset: u64) -> Result<(), SpillError> {
        let _creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.file().is_some() {
            return Ok(());
        }
        let cipher = self.make_cipher(offset)?;
        let file = SpillFile::create(self.platform(), &self.place, self.geometry, cipher, offset)?;
        let mut disk = self.lock();
        disk.slots.set_limit(self.limits.slots.min(file.slots()));
        disk.file = Some(Arc::new(file));
        disk.upkeep.active_at = clock::now();
        // What it was made for may be over by now: it must not stay for ever.
        let upkeep = self.due(&mut disk);
        drop(disk);
        self.see_to(Followup { upkeep, turn: false });
        Ok(())
    }

    fn make_cipher(&self, offset: u64) -> Result<Option<Arc<Cipher>>, SpillError> {
        if self.limits.encrypt && self.cipher().is_none() {
            let failed = |source| SpillError::storage(StorageOp::Create, &self.dir(), offset, source);
            let made = Arc::new(Cipher::new().map_err(failed)?);
            self.cipher.get_or_init(|| made);
        }
        Ok(self.cipher().cloned())
    }

    /// What encrypts, where that is asked for and there was a file.
    pub(crate) fn cipher(&self) -> Option<&Arc<Cipher>> {
        self.cipher.get()
    }

    /// Asks the file system how much is free. Waits for the disk: for I/O threads only.
    ///
    /// # Errors
    ///
    /// There is less than is to be left free.
    pub(crate) fn ask_space(&self) -> io::Result<()> {
        let (Some(file), Some(min)) = (self.file(), self.min_free_space) else { return Ok(()) };
        let (free, total) = self.platform().free_space(file.dir())?;
        let min = match min {
            MinFreeSpace::Bytes(bytes) => bytes,
            MinFreeSpace::Usual => (256 << 20).min(total / 20),
        };
        let block = self.geometry.block() as u64;
        let spare = free.saturating_sub(min).min(SPACE_STEP) / block;
        self.lock().spare = spare;
        if spare > 0 {
            return Ok(());
        }
        let dir = file.dir().display();
        let problem = format!("{free} bytes are free in {dir}, and min_free_space keeps {min}");
        Err(io::Error::new(io::ErrorKind::StorageFull, problem))
    }

    /// A write was refused for the file's size. Whether that is for a limit of the process that was lowered: no slots above it are granted
    /// from now on.
    pub(crate) fn lower_limit(&self, run: SlotRun) -> bool {
        let mut disk = self.lock();
        let Some(file) = disk.file.clone() else { return false };
        let slots = file.slots();
        disk.slots.set_limit(self.limits.slots.min(slots));
        run.end() > slots
    }

    /// The file system has no room, whatever the limit says: those who would wait for others to spill are told. Of what kind, for the
    /// error itself is another's.
    pub(crate) fn is_full(&self, kind: io::ErrorKind) {
        if let Some(budget) = self.budget() {
            let problem = "there was no room for another stream of the pool";
            budget.exhaust(Some(Arc::new(io::Error::new(kind, problem))));
        }
    }

    /// Takes slots back whose bytes nobody needs any more. [`see_to`](Self::see_to) must follow once the
    /// caller's lock is released.
    pub(crate) fn free(&self, runs: impl Iterator<Item = SlotRun>) -> Followup {
        let mut disk = self.lock();
        for run in runs {
            disk.slots.free(run);
        }
        disk.upkeep.active_at = clock::now();
        if let Some(budget) = self.budget() {
            budget.replenish();
        }
        let turn = !disk.queue.is_empty();
        Followup { upkeep: self.due(&mut disk), turn }
    }

    /// Does what follows from giving slots back. Without any lock.
    pub(crate) fn see_to(self: &Arc<Self>, followup: Followup) {
        match followup.upkeep {
            None => {}
            Some(Upkeep::Now) => self.begin_upkeep(),
            Some(Upkeep::At(at)) => self.call_at(at),
        }
        if followup.turn {
            self.next_turn();
        }
    }

    /// The buffer that this pool was made for has ended: the file goes as soon as nothing in it is live.
    pub(crate) fn close(self: &Arc<Self>) {
        self.left();
        // Files are made by threads: with none asked for, there is no file and will be none.
        if self.shared.is_some() || self.lane.get().is_none() {
            return;
        }
        let mut disk = self.lock();
        disk.upkeep.close = true;
        let made = disk.file.is_some();
        drop(disk);
        // Else whoever makes one sees it.
        if made {
            self.begin_upkeep();
        }
    }

    /// The buffer that stands alone wants no more memory.
    fn left(&self) {
        // Mostly it was said before.
        if self.counts.load(Ordering::Relaxed) && self.counts.swap(false, Ordering::Relaxed) {
            block::left(self.limits.memory);
        }
    }

    /// Bytes that the file occupies, trailers included, by the count of slots.
    pub(crate) fn file_bytes(&self) -> u64 {
        if self.disk.get().is_none() {
            return 0;
        }
        let disk = self.lock();
        if disk.file.is_none() {
            return 0;
        }
        // A group that has nothing left gives back its trailers too.
        let occupied = disk.slots.occupied();
        occupied * self.geometry.block() as u64 + disk.slots.high().div_ceil(GROUP).min(occupied) * PAGE
    }

    /// Bytes of the slots in use with their trailers, and the most that ever were.
    pub(crate) fn disk_held(&self) -> (u64, u64) {
        let slot = (self.geometry.block() + TRAILER) as u64;
        let disk = self.lock();
        (disk.slots.live() * slot, disk.peak * slot)
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        let disk = self.disk.get_or_init(|| {
            Box::new(Mutex::new(Disk {
                file: None,
                slots: SlotMap::new(self.geometry, self.limits.slots),
                queue: Queue::new(),
                peak: 0,
                spare: if self.min_free_space.is_some() { 0 } else { u64::MAX },
                upkeep: State::default(),
            }))
        });
        disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a member says when it is told. It may be the last share of a buffer, and so of a user's error, whose drop may panic: those who
/// come after it are told all the same.
fn told<T: Default>(call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::{
        options::Settings,
        storage::sys::{
            faulty::Scripted,
            hooked::{Act, Call, Hooked},
        },
        sync::atomic::AtomicUsize,
    };

    /// Counts how often it is told something, and may panic then.
    struct One {
        told: AtomicUsize,
        panics: bool,
    }

    impl One {
        fn is_told(&self) -> bool {
            self.told.fetch_add(1, Ordering::SeqCst);
            // Without a word from the panic hook.
            if self.panics {
                std::panic::resume_unwind(Box::new("as planned"));
            }
            true
        }
    }

    impl Member for One {
        fn memory_came(self: Arc<Self>) {
            self.is_told();
        }

        fn slots_came(self: Arc<Self>) -> bool {
            self.is_told()
        }

        fn squeeze(self: Arc<Self>) -> bool {
            self.is_told()
        }

        fn stats(&self) -> SpillStats {
            SpillStats::default()
        }
    }

    #[test]
    fn c08_a_member_that_panics_when_it_is_told_keeps_no_other_from_being_told() {
        let settings = Settings { disk_limit: Some(100_000), ..Settings::default() };
        let options = settings.check().unwrap();
        let pool = Pool::shared(&options, Arc::new(Scripted::default()), 0, MinFreeSpace::Bytes(0));
        let members = [true, false].map(|panics| Arc::new(One { told: AtomicUsize::new(0), panics }));
        let told = || [0, 1].map(|i| members[i].told.swap(0, Ordering::SeqCst));
        let weak = |i: usize| -> Weak<dyn Member> { Arc::downgrade(&(Arc::clone(&members[i]) as Arc<dyn Member>)) };
        for i in 0..2 {
            pool.join(i as u64, || weak(i));
            pool.shared.as_ref().unwrap().members.wait(i as u64, Purpose::Write);
        }
        pool.memory_came();
        assert_eq!(told(), [1, 1]);
        assert!(pool.squeeze());
        assert_eq!(told(), [1, 1]);

        pool.create_file(0).unwrap();
        let mut runs = Vec::new();
        while let Grant::Slots(run, _) = pool.grant(16, 7, &weak(0)) {
            runs.push(run);
        }
        pool.end_turn(7);
        for i in 0..2 {
            assert!(matches!(pool.grant(1, i as u64, &weak(i)), Grant::Full(_)));
        }
        pool.see_to(pool.free(runs.into_iter()));
        assert_eq!(told(), [1, 1]);
        assert_eq!(pool.queue(), [1], "it is this one's turn");
    }

    /// Until all is given back nobody is told that the disk is full, nor that there are slots.
    #[test]
    fn c08_while_room_is_made_no_slot_is_granted() {
        let (gate, at_it) = (Arc::new(Mutex::new(())), Arc::new(AtomicBool::new(false)));
        let hooked = Hooked::new(Scripted::default(), {
            let (gate, at_it) = (Arc::clone(&gate), Arc::clone(&at_it));
            move |call| {
                if matches!(call, Call::Punch { .. }) {
                    at_it.store(true, Ordering::SeqCst);
                    drop(gate.lock());
                }
                Act::Go
            }
        });
        let place = Place { dir: Some("/while-room-is-made".into()), ..Place::default() };
        let settings = Settings { place, ..Settings::default() };
        let pool = Pool::private(&settings.check().unwrap(), Some(hooked));
        let member: Weak<dyn Member> = Weak::<One>::new();
        let grant = || pool.grant(4, 0, &member);
        assert!(!pool.makes_room(false), "there is no file");
        pool.create_file(0).unwrap();
        let (Grant::Slots(..), Grant::Slots(run, _)) = (grant(), grant()) else { panic!("a new file has slots") };
        let held_up = pool.hold_up();
        assert!(matches!(grant(), Grant::Busy));
        let closed = gate.lock().unwrap();
        pool.see_to(pool.free([run].into_iter()));
        assert!(!pool.makes_room(true), "it is to be tried once");
        drop(held_up);

        assert!(pool.makes_room(false));
        while !at_it.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert!(matches!(grant(), Grant::Busy) && pool.makes_room(true));
        drop(closed);
        let began = Instant::now();
        while matches!(grant(), Grant::Busy) {
            assert!(began.elapsed() < Duration::from_secs(30), "nothing is granted any more");
            std::thread::yield_now();
        }
        let Grant::Slots(again, _) = grant() else { panic!("there are slots") };
        assert!(again.count > 0 && pool.file_bytes() > 0);
    }
}
