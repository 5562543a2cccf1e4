//! The time, and who wants to be told when some of it has passed.
//! Never does anything that could wait: one thread serves every buffer and pipeline of the process.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::sync::{Arc, Condvar, Instant, Mutex, MutexGuard, OnceLock, PoisonError, Weak, process_wide, thread};

/// How long the thread waits with nobody to call before it goes.
const IDLE: Duration = Duration::from_secs(1);

/// Is told when its time has come.
pub(crate) trait Tick: Send + Sync {
    fn tick(self: Arc<Self>, now: u64);
}

/// Nanoseconds since the process first asked.
pub(crate) fn now() -> u64 {
    process_wide!(START: OnceLock<Instant> = OnceLock::new());
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Has `target` told at `at`. Everyone keeps to one call at a time, so that the queue is as long as there
/// are buffers, pools and pipelines that wait.
///
/// # Errors
///
/// The clock's thread cannot be started.
pub(crate) fn call_at(at: u64, target: Weak<dyn Tick>) -> io::Result<()> {
    let mut calls = CLOCK.lock();
    if !calls.running {
        thread::Builder::new().name("spillbuffer-clock".into()).stack_size(128 << 10).spawn(run)?;
        calls.running = true;
    }
    let first = calls.queue.peek().is_none_or(|Reverse(next)| at < next.at);
    calls.queue.push(Reverse(Call { at, target }));
    drop(calls);
    if first {
        CLOCK.changed.notify_one();
    }
    Ok(())
}

process_wide!(
    CLOCK: Clock =
        Clock { calls: Mutex::new(Calls { queue: BinaryHeap::new(), running: false }), changed: Condvar::new() }
);

struct Clock {
    calls: Mutex<Calls>,
    changed: Condvar,
}

struct Calls {
    queue: BinaryHeap<Reverse<Call>>,
    running: bool,
}

struct Call {
    at: u64,
    target: Weak<dyn Tick>,
}

fn run() {
    let mut calls = CLOCK.lock();
    loop {
        let now = now();
        let next = calls.queue.peek().map(|Reverse(call)| call.at);
        let wait = match next {
            Some(at) if at <= now => {
                let due = calls.queue.pop();
                drop(calls);
                // It may be the last drop of a buffer, and so of a user's error.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    if let Some(target) = due.and_then(|Reverse(call)| call.target.upgrade()) {
                        target.tick(now);
                    }
                }));
                calls = CLOCK.lock();
                continue;
            }
            Some(at) => Duration::from_nanos(at - now),
            None => IDLE,
        };
        let (woken, timeout) = CLOCK.changed.wait_timeout(calls, wait).unwrap_or_else(PoisonError::into_inner);
        calls = woken;
        if next.is_none() && timeout.timed_out() && calls.queue.is_empty() {
            calls.running = false;
            return;
        }
    }
}

impl Clock {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ord for Call {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Call {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Call {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Call {}
