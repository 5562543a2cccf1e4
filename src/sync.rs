//! What threads meet in: locks, flags, each other, and the time.
//! Never anything but std's own, except where shuttle decides who goes on at each of them.

#[cfg(spill_shuttle)]
mod shuttled;

#[cfg(not(spill_shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, atomic},
    thread,
    time::Instant,
};
// Nothing waits in these.
pub(crate) use std::sync::{Arc, LazyLock, PoisonError, Weak};

#[cfg(spill_shuttle)]
pub(crate) use self::shuttled::{Condvar, Instant, Mutex, MutexGuard, OnceLock};
#[cfg(spill_shuttle)]
pub(crate) use shuttle::{sync::atomic, thread};

/// A static. Under shuttle each of its executions begins with one of its own.
macro_rules! process_wide {
    ($name:ident: $kind:ty = $value:expr) => {
        #[cfg(not(spill_shuttle))]
        static $name: $kind = $value;
        #[cfg(spill_shuttle)]
        shuttle::lazy_static! { static ref $name: $kind = $value; }
    };
}

pub(crate) use process_wide;
