//! The shell around one buffer's core: one lock, and who waits beside it.
//! Never holds the lock across I/O, a wake-up, or anything of a user's that it drops.

mod driver;
mod reading;
#[cfg(test)]
mod tests;
mod writing;

use std::{
    fmt, mem,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;

pub(crate) use self::reading::{Target, View};
use crate::{
    block::Block,
    clock::{self, Tick},
    core::{Core, ReadJob, WriteFault},
    error::{SpillError, StorageOp},
    options::Options,
    pool::Pool,
    stats::SpillStats,
    storage::sys::{Platform, System},
};

/// What both halves, and whoever controls them, share.
pub(crate) struct Shared {
    me: Weak<Self>,
    /// Tells this stream's slots from all others of the process.
    id: u64,
    pool: Arc<Pool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    core: Core,
    reader: Waiter,
    writer: Waiter,
    /// Those who wait for the reader's end, each under a number of its own.
    closed: Vec<(u64, Waker)>,
    next_closed: u64,
    /// In the lane's queue, or at work.
    driving: bool,
    /// A read that the page cache could not serve.
    missed: Option<ReadJob>,
    /// A call by the clock is due at this time.
    armed: Option<u64>,
    over: bool,
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
        Self::on(options, Arc::new(System))
    }

    pub(crate) fn on(options: &Options, platform: Arc<dyn Platform>) -> Arc<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            pool: Pool::new(options, platform),
            state: Mutex::new(State {
                core: Core::new(options.limits),
                reader: Waiter::default(),
                writer: Waiter::default(),
                closed: Vec::new(),
                next_closed: 0,
                driving: false,
                missed: None,
                armed: None,
                over: false,
            }),
        })
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

    pub(crate) fn fail(&self, error: SpillError) {
        self.lock().core.fail(error);
    }

    pub(crate) fn abort(&self, error: SpillError) {
        self.lock().core.abort(error);
    }

    pub(crate) fn end_reader(&self, error: SpillError) {
        self.lock().core.end_reader(error);
    }

    pub(crate) fn finish(&self) -> Result<(), SpillError> {
        self.lock().core.finish()
    }

    pub(crate) fn check_flush(&self) -> Result<(), SpillError> {
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

    pub(crate) fn forget_closed(&self, key: u64) {
        let mut state = self.raw_lock();
        let at = state.closed.iter().position(|(of, _)| *of == key);
        let old = at.map(|at| state.closed.swap_remove(at));
        drop(state);
        drop(old);
    }

    /// The lock; what follows from what is done under it happens when it is released.
    fn lock(&self) -> Locked<'_> {
        Locked { shared: self, state: Some(self.raw_lock()), garbage: None }
    }

    fn raw_lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strong(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    fn start_driver(&self) {
        let Some(me) = self.strong() else { return };
        if let Err(error) = self.pool.submit(me) {
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

    fn arm(&self, at: u64) {
        let me: Weak<dyn Tick> = self.me.clone();
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
        f.debug_struct("Shared").field("id", &self.id).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Tick for Shared {
    fn tick(&self, now: u64) {
        let mut state = self.lock();
        state.armed = None;
        state.core.tick(now);
    }
}

/// The lock, held. Releasing it settles the core, then wakes and starts whom that names.
struct Locked<'a> {
    shared: &'a Shared,
    state: Option<MutexGuard<'a, State>>,
    garbage: Option<Waker>,
}

impl Locked<'_> {
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
        let now = if state.core.needs_time() { clock::now() } else { 0 };
        let wakes = state.core.settle(now);
        let upkeep = if state.core.has_freed() { self.shared.pool.free(state.core.freed()) } else { None };
        let reader = if wakes.reader { state.reader.take() } else { None };
        let writer = if wakes.writer { state.writer.take() } else { None };
        let closed = if wakes.closed { mem::take(&mut state.closed) } else { Vec::new() };
        let drive = !state.driving && (state.missed.is_some() || state.core.wants_write().is_some());
        state.driving |= drive;
        let arm = state.core.deadline().filter(|at| state.armed.is_none_or(|armed| *at < armed));
        state.armed = arm.or(state.armed);
        let over = !state.over && state.core.is_over();
        state.over |= over;
        drop(guard);

        if let Some(at) = arm {
            self.shared.arm(at);
        }
        if drive {
            self.shared.start_driver();
        }
        if let Some(upkeep) = upkeep {
            self.shared.pool.see_to(upkeep);
        }
        if over {
            self.shared.pool.close();
        }
        // Last, and one by one: these run a user's code, and whatever it does the others are served.
        // A panic has been told by its hook; here it must not end an I/O thread's turn.
        let to_wake = [reader, writer].into_iter().flatten().chain(closed.into_iter().map(|(_, waker)| waker));
        for waker in to_wake {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(wakes.trash)));
    }
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
