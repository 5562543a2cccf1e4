//! The shell around one buffer's core: one lock, and who waits beside it.
//! Never holds the lock across I/O, a wake-up, or anything of a user's that it drops.

mod driver;
mod filling;
mod prefetch;
#[cfg(test)]
mod prefetched;
mod reading;
#[cfg(test)]
mod sealed;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;
mod writing;

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

pub(crate) use self::reading::{Target, View};
use self::{filling::Filling, prefetch::Prefetch};
use crate::{
    block::Block,
    clock::{self, Tick},
    core::{Core, Quiet, ReadJob, WriteFault},
    error::{SpillError, StorageOp},
    lender::Purpose,
    options::Options,
    pool::{Member, Pool},
    stats::SpillStats,
    storage::{Codec, Stream, TrailersAhead, sys::Platform},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        process_wide,
    },
    threads::{Bell, Work},
};

/// What both halves, and whoever controls them, share.
pub(crate) struct Shared {
    stream: Stream,
    pool: Arc<Pool>,
    state: Mutex<State>,
    /// Rung when there is a job for the driver that lingers.
    bell: Bell,
    /// Rung when a thread that reads ahead may have memory again.
    ahead: Bell,
}

#[derive(Debug)]
pub(crate) struct State {
    core: Core,
    /// When the lock was last released nobody waited and nothing was on disk: most of what is done with short pieces has no
    /// consequences.
    quiet: bool,
    reader: Waiter,
    writer: Waiter,
    /// Those who wait for the reader's end, each under a number of its own.
    closed: Vec<(u64, Waker)>,
    next_closed: u64,
    /// In the lane's queue, or at work.
    driving: bool,
    /// A second thread writes, or is about to.
    assisted: bool,
    /// A thread reads ahead, or is about to.
    prefetching: bool,
    prefetch: Option<Box<Prefetch>>,
    filling: Filling,
    /// Blocks that the core has set aside for that.
    spare: usize,
    /// So many of these the thread has in hands.
    reading_ahead: usize,
    /// So many of them the reader has in hands.
    found: usize,
    /// At work, and waits for the bell.
    lingering: bool,
    /// A read that the page cache could not serve.
    missed: Option<ReadJob>,
    /// The disk was full and may have room by now; if it has none, it is full.
    tries_again: bool,
    /// What was read of trailers ahead; whoever reads has it in hands meanwhile.
    trailers: TrailersAhead,
    /// Waits in the pool's queue for memory, for this or for what comes before it.
    lacks: Option<Purpose>,
    /// Waits in the pool's queue for slots.
    queued: bool,
    /// A call by the clock is due at this time.
    armed: Option<u64>,
    over: bool,
    /// Who waits for that.
    released: Option<Waker>,
}

/// One side's waker, and how long it has waited.
#[derive(Debug, Default)]
struct Waiter {
    waker: Option<Waker>,
    waiting: bool,
    since: u64,
    waited: u64,
}

impl Waiter {
    /// Registers; hands back what was registered before, to be dropped without the lock.
    fn park(&mut self, cx: &Context<'_>) -> Option<Waker> {
        if !self.waiting {
            self.waiting = true;
            self.since = clock::now();
        }
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return None;
        }
        self.waker.replace(cx.waker().clone())
    }

    fn take(&mut self) -> Option<Waker> {
        self.goes_on();
        self.waker.take()
    }

    /// The wait is over: woken, or polled and found what it waited for. A waker that stays is stale.
    fn goes_on(&mut self) {
        if mem::take(&mut self.waiting) {
            self.waited += clock::now().saturating_sub(self.since);
        }
    }
}

impl Shared {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        Self::on(options, None)
    }

    /// On another platform than the system.
    pub(crate) fn on(options: &Options, platform: Option<Arc<dyn Platform>>) -> Arc<Self> {
        Self::of(Pool::private(options, platform), options)
    }

    /// A buffer of this pool.
    pub(crate) fn of(pool: Arc<Pool>, options: &Options) -> Arc<Self> {
        process_wide!(NEXT: AtomicU64 = AtomicU64::new(1));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let lender = pool.lender();
        // Not `Arc::new`: that makes it on the stack first and copies it.
        let this = Arc::new_cyclic(|_| Self {
            stream: Stream { id, codec: Codec::new(options.verify && !options.limits.encrypt) },
            pool,
            state: Mutex::new(State {
                core: Core::new(options.limits, lender),
                quiet: true,
                reader: Waiter::default(),
                writer: Waiter::default(),
                closed: Vec::new(),
                next_closed: 0,
                driving: false,
                assisted: false,
                prefetching: false,
                prefetch: None,
                filling: Filling::default(),
                spare: 0,
                reading_ahead: 0,
                found: 0,
                lingering: false,
                missed: None,
                tries_again: false,
                trailers: TrailersAhead::default(),
                lacks: None,
                queued: false,
                armed: None,
                over: false,
                released: None,
            }),
            bell: Bell::default(),
            ahead: Bell::default(),
        });
        this.pool.join(id, || this.member());
        this
    }

    fn member(self: &Arc<Self>) -> Weak<dyn Member> {
        let me: Weak<Self> = Arc::downgrade(self);
        me
    }

    #[cfg(test)]
    pub(crate) fn stream_id(&self) -> u64 {
        self.stream.id
    }

    pub(crate) fn stats(&self) -> SpillStats {
        let state = self.raw_lock();
        SpillStats {
            file_bytes: self.pool.file_bytes(),
            writer_waited: Duration::from_nanos(state.writer.waited),
            reader_waited: Duration::from_nanos(state.reader.waited),
            ..state.core.stats()
        }
    }

    // An error that is refused is a user's to drop: after the statement, and so without the lock.

    pub(crate) fn fail(self: &Arc<Self>, error: SpillError) {
        let refused = self.lock().core.fail(error);
        drop(refused);
    }

    pub(crate) fn abort(self: &Arc<Self>, error: SpillError) {
        let refused = self.lock().core.abort(error);
        drop(refused);
    }

    pub(crate) fn end_reader(self: &Arc<Self>, error: SpillError) {
        let refused = self.lock().core.end_reader(error);
        drop(refused);
    }

    /// The writing half is gone, and its waker with it.
    pub(crate) fn drop_writer(self: &Arc<Self>) {
        let mut state = self.lock();
        let refused = state.core.fail(SpillError::WriterDropped);
        let waker = state.writer.waker.take();
        drop(state);
        drop((refused, waker));
    }

    /// The writing half says that this is the end: it needs no waker any more.
    pub(crate) fn finish(self: &Arc<Self>) -> Result<(), SpillError> {
        let mut guard = self.raw_lock();
        let state = &mut *guard;
        if state.quiet && state.core.finish_quietly() {
            let waker = state.writer.waker.take();
            drop(guard);
            drop(waker);
            return Ok(());
        }
        let mut state = self.locked(guard);
        let finished = state.core.finish();
        let waker = state.writer.waker.take();
        drop(state);
        drop(waker);
        finished
    }

    /// The reading half is gone, and its waker with it.
    pub(crate) fn drop_reader(self: &Arc<Self>) {
        let mut state = self.lock();
        let refused = state.core.end_reader(SpillError::ReaderDropped);
        let waker = state.reader.waker.take();
        drop(state);
        drop((refused, waker));
    }

    pub(crate) fn check_flush(self: &Arc<Self>) -> Result<(), SpillError> {
        self.lock().core.check_flush()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.raw_lock().core.reader_is_gone()
    }

    /// Ready when the reader has ended. `key` is where this caller is registered.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>, key: &mut Option<u64>) -> Poll<()> {
        let mut state = self.raw_lock();
        if state.core.reader_is_gone() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let own = key.and_then(|key| state.closed.iter().position(|(of, _)| *of == key));
        let old = if let Some(at) = own {
            Some(mem::replace(&mut state.closed[at].1, waker))
        } else {
            let new = state.next_closed;
            *key = Some(new);
            state.closed.push((new, waker));
            state.next_closed += 1;
            None
        };
        drop(state);
        drop(old);
        Poll::Pending
    }

    /// Ready when the reader has ended and nothing is on disk or on its way there any more. One waits for it at a time.
    pub(crate) fn poll_released(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.raw_lock();
        if state.over {
            return Poll::Ready(());
        }
        let old = state.released.replace(cx.waker().clone());
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(crate) fn forget_closed(&self, key: u64) {
        let mut state = self.raw_lock();
        let at = state.closed.iter().position(|(of, _)| *of == key);
        let old = at.map(|at| state.closed.swap_remove(at));
        drop(state);
        drop(old);
    }

    /// The lock; what follows from what is done under it happens when it is released.
    #[inline]
    fn lock(self: &Arc<Self>) -> Locked<'_> {
        self.locked(self.raw_lock())
    }

    /// The same for a lock that was taken raw.
    #[inline]
    fn locked<'a>(self: &'a Arc<Self>, mut state: MutexGuard<'a, State>) -> Locked<'a> {
        state.quiet = false;
        Locked { shared: self, state: Some(state), garbage: None, serving: false, absorbing: false }
    }

    #[inline]
    fn raw_lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves an item into blocks, one under each lock, as long as there is room.
    fn absorb(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            Locked::absorbing(&mut state);
            if !state.core.absorb_more() {
                return;
            }
        }
    }

    fn start_driver(self: &Arc<Self>) {
        if let Err(error) = self.pool.submit(Arc::clone(self) as Arc<dyn Work>) {
            let mut state = self.lock();
            state.driving = false;
            let at = state.core.stats().written;
            let error = SpillError::storage(StorageOp::StartThread, &self.pool.dir(), at, error);
            if let Some(job) = state.missed.take() {
                state.core.did_read(job, 0, Some(error.clone()));
            }
            state.core.cannot_write(WriteFault::Broken(error), clock::now());
        }
    }

    fn arm(self: &Arc<Self>, at: u64) {
        let me: Weak<Self> = Arc::downgrade(self);
        if clock::call_at(at, me).is_err() {
            let mut state = self.lock();
            state.armed = None;
            state.core.no_clock();
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Figures, never bytes: what passes through may be anybody's secret.
        f.debug_struct("Shared").field("stream", &self.stream.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Member for Shared {
    fn memory_came(self: Arc<Self>) {
        let mut state = self.lock();
        // Whoever calls this serves the others himself.
        Locked::serving(&mut state);
        state.lacks = None;
        state.core.memory_came();
    }

    fn slots_came(self: Arc<Self>) -> bool {
        let mut state = self.lock();
        state.core.unblock();
        let wants = state.driving || state.core.wants_write().is_some();
        state.queued &= wants;
        wants
    }

    fn squeeze(self: Arc<Self>) -> bool {
        self.lock().core.squeeze()
    }

    fn stats(&self) -> SpillStats {
        Self::stats(self)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.pool.leave(self.stream.id, || state.core.stats());
        self.pool.end_turn(self.stream.id);
    }
}

impl Tick for Shared {
    fn tick(self: Arc<Self>, now: u64) {
        let mut state = self.lock();
        // A call that was made before an earlier one is stale.
        if state.armed.is_none_or(|at| at <= now) {
            state.armed = None;
            state.core.tick(now);
        }
    }
}

/// The lock, held. Releasing it settles the core, then wakes and starts whom that names.
pub(crate) struct Locked<'a> {
    shared: &'a Arc<Shared>,
    state: Option<MutexGuard<'a, State>>,
    garbage: Option<Waker>,
    /// Others are served elsewhere, should memory come free here.
    serving: bool,
    /// The item is moved into blocks by whoever took this lock.
    absorbing: bool,
}

impl Locked<'_> {
    fn serving(this: &mut Self) {
        this.serving = true;
    }

    fn absorbing(this: &mut Self) {
        this.absorbing = true;
    }

    /// Releases the lock for a long copy and leaves what follows to whoever has it next: at the latest the caller, who takes it
    /// again when the copy is done. Only where nothing was found but what is there already.
    #[inline]
    fn pause(mut self) {
        self.state = None;
    }

    fn park_reader(&mut self, cx: &Context<'_>) {
        self.core.park_reader();
        self.garbage = self.reader.park(cx);
    }

    fn park_writer(&mut self, cx: &Context<'_>) {
        self.core.park_writer();
        self.garbage = self.writer.park(cx);
    }
}

// `state` is `None` only while the guard is being dropped.
impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_deref().expect("the lock is held until it is dropped")
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_deref_mut().expect("the lock is held until it is dropped")
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let Some(mut guard) = self.state.take() else { return };
        let state = &mut *guard;
        if state.missed.is_none()
            && let Some(Quiet { gave, closed, discarded }) = state.core.settle_if_quiet()
        {
            state.quiet = true;
            let pool = &self.shared.pool;
            let serve = || {
                if gave && !self.serving && pool.somebody_waits() {
                    pool.memory_came();
                }
            };
            if closed || discarded {
                let ended = Ended::of(state, closed);
                drop(guard);
                serve();
                ended.tell(pool);
            } else {
                drop(guard);
                serve();
            }
            return;
        }
        let now = if state.core.needs_time() { clock::now() } else { 0 };
        let wakes = state.core.settle(now);
        let pool = &self.shared.pool;
        let freed = state.core.has_freed().then(|| pool.free(state.core.freed()));
        let lacks = wakes.lacks.filter(|purpose| state.lacks.is_none_or(|row| *purpose < row));
        state.lacks = lacks.or(state.lacks);
        let reader = if wakes.reader { state.reader.take() } else { None };
        let writer = if wakes.writer { state.writer.take() } else { None };
        let work =
            (!state.driving || state.lingering) && (state.missed.is_some() || state.core.wants_write().is_some());
        let drive = work && !state.driving;
        if work && state.lingering {
            state.lingering = false;
            self.shared.bell.ring();
        }
        state.driving |= drive;
        let arm = state.core.deadline().filter(|at| state.armed.is_none_or(|armed| *at < armed));
        state.armed = arm.or(state.armed);
        let ended = Ended::of(state, wakes.closed);
        drop(guard);

        // First of all: others wait for this memory, and what follows may run a user's code.
        drop(wakes.given_up);
        if let Some(at) = arm {
            self.shared.arm(at);
        }
        if drive {
            self.shared.start_driver();
        }
        if let Some(freed) = freed {
            pool.see_to(freed);
        }
        if let Some(purpose) = lacks {
            pool.wait_for_memory(self.shared.stream.id, purpose);
        }
        if wakes.gave && !self.serving && pool.somebody_waits() {
            pool.memory_came();
        }
        // Last, and one by one: these run a user's code, and whatever it does the others are served.
        ended.tell(pool);
        if let Some(waker) = reader {
            quietly(|| waker.wake());
        }
        if let Some(waker) = writer {
            quietly(|| waker.wake());
        }
        if let Some(trash) = wakes.trash {
            quietly(|| drop(trash));
        }
        if wakes.more && !self.absorbing {
            self.shared.absorb();
        }
    }
}

/// What follows from an end, if there is one.
struct Ended {
    closed: Vec<(u64, Waker)>,
    /// Nothing is on disk any more, nor on its way there.
    over: bool,
    released: Option<Waker>,
}

impl Ended {
    /// `closed`: the reader has ended.
    fn of(state: &mut State, closed: bool) -> Self {
        let closed = if closed { mem::take(&mut state.closed) } else { Vec::new() };
        let over = !state.over && state.core.is_over();
        state.over |= over;
        if state.prefetch.is_some() {
            state.end_prefetch_if_drained();
        }
        Self { closed, over, released: if over { state.released.take() } else { None } }
    }

    /// Without the lock: it runs a user's code.
    fn tell(self, pool: &Arc<Pool>) {
        if self.over {
            pool.close();
        }
        for waker in self.released.into_iter().chain(self.closed.into_iter().map(|(_, waker)| waker)) {
            quietly(|| waker.wake());
        }
    }
}

/// A panic of a user's code has been told by its hook; here it must not end an I/O thread's turn.
fn quietly(call: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(call));
}

/// A block that was lent to the user: it still counts until the last share of it is dropped.
struct Lent {
    shared: Arc<Shared>,
    block: Option<Arc<Block>>,
    from: usize,
}

impl Lent {
    fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.filled()[self.from..])
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.shared.lock().core.return_lent(block);
        }
    }
}
