//! What shuttle lacks: a wait that may time out, a value that is made once, and a time that passes.
//!
//! Time is a number that jumps: a little whenever it is asked for, at times a lot, and over the whole of a wait when that
//! times out. A wait times out after a few turns of other threads, or earlier; so a thread may find that nothing has happened
//! at any moment, and all that has a time to end by does end.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{LockResult, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use shuttle::{
    rand::{Rng, thread_rng},
    sync,
    thread::yield_now,
};

/// One that a [`Condvar`] can take again.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

pub(crate) struct MutexGuard<'a, T> {
    guard: sync::MutexGuard<'a, T>,
    mutex: &'a Mutex<T>,
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guarded = |guard| MutexGuard { guard, mutex: self };
        self.0.lock().map(guarded).map_err(|error| PoisonError::new(guarded(error.into_inner())))
    }

    pub(crate) fn get_mut(&mut self) -> LockResult<&mut T> {
        self.0.get_mut()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl<T> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MutexGuard").finish_non_exhaustive()
    }
}

/// Who waits: each has a number, and is taken out when told. Std's lock is enough here, since nobody is scheduled in between.
#[derive(Debug, Default)]
pub(crate) struct Condvar(std::sync::Mutex<(u64, Vec<u64>)>);

pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(std::sync::Mutex::new((0, Vec::new())))
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, TimedOut)> {
        let began = now();
        let me = {
            let (next, waiting) = &mut *self.waiting();
            *next += 1;
            waiting.push(*next);
            *next
        };
        let mutex = guard.mutex;
        drop(guard);
        // A second takes longer than a millisecond, as a rule.
        let mut turns = thread_rng().gen_range(0..if most < Duration::from_millis(100) { 12 } else { 40 });
        let told = loop {
            yield_now();
            let at = self.waiting().1.iter().position(|other| *other == me);
            let Some(at) = at else { break true };
            if turns == 0 {
                self.waiting().1.swap_remove(at);
                NOW.fetch_max(began + most.as_nanos() as u64, Relaxed);
                break false;
            }
            turns -= 1;
        };
        let result = |guard| (guard, TimedOut(!told));
        mutex.lock().map(result).map_err(|error| PoisonError::new(result(error.into_inner())))
    }

    pub(crate) fn notify_one(&self) {
        yield_now();
        let mut waiting = self.waiting();
        if !waiting.1.is_empty() {
            let at = thread_rng().gen_range(0..waiting.1.len());
            waiting.1.swap_remove(at);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, (u64, Vec<u64>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Made under a lock, in which others may wait for it: the one who makes it may be scheduled away.
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    making: sync::Mutex<()>,
    made: std::sync::OnceLock<T>,
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        Self { making: sync::Mutex::new(()), made: std::sync::OnceLock::new() }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.made.get()
    }

    pub(crate) fn get_mut(&mut self) -> Option<&mut T> {
        self.made.get_mut()
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(made) = self.made.get() {
            return made;
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = self.made.get() {
            return made;
        }
        let made = make();
        self.made.get_or_init(|| made)
    }
}

shuttle::lazy_static! { static ref NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0); }

/// Nanoseconds since the execution began.
fn now() -> u64 {
    let step = match thread_rng().gen_range(0..32) {
        0 => 3_000_000,
        1..4 => 300_000,
        _ => 1_000,
    };
    NOW.fetch_add(step, Relaxed) + step
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(now() - self.0)
    }
}
