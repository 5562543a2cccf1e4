//! The threads that do what must not be done on an async thread: disk I/O, and freeing files.
//! Never a runtime's: those may be starved, absent, or gone before a stream is.
//!
//! Each temp directory has a lane of its own, so that a hung disk holds back only its own streams.
//! A lane starts threads when there is work for them, at most [`MAX_THREADS`], and they go when idle.
//! That idea is `blocking`'s (smol-rs).

use std::{
    any::Any,
    collections::VecDeque,
    fmt, hint, io,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use crate::{
    options::Place,
    sync::{
        Arc, Condvar, Instant, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
        process_wide, thread,
    },
};

/// Threads of one lane at most. The page cache takes what two can give it; more help on slow disks.
const MAX_THREADS: usize = 4;

/// How long a thread waits for work before it goes.
const IDLE: Duration = Duration::from_secs(1);

/// Something that has work from time to time. It is in a lane's queue once at most, so that the
/// queue is as long as there are buffers, pools, assistants of buffers (one each at most), and readers that are read ahead of.
pub(crate) trait Work: Any + Send + Sync {
    /// Does a bounded amount of work, and says whether to be called again.
    fn work(self: Arc<Self>, lane: &Lane) -> bool;

    /// What is alike may be done together: see [`Lane::take_like`].
    fn kind(&self) -> Option<usize> {
        None
    }
}

/// A reader that a thread reads ahead of.
pub(crate) trait ReadAhead: Send + Sync {
    /// Whether it has come for what is ready. If not, that has been dropped.
    fn keeps_up(&self) -> bool;
}

/// Tells a thread that waits for a few microseconds, which is less than a sleep and a wake-up take.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
    }

    /// Waits until it is rung, or for this time, and says whether it was: not at all if it was rung since the last wait. Others
    /// that want the processor get it meanwhile.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        const SPINS: usize = 32;
        let began = Instant::now();
        loop {
            if self.rung.swap(false, Ordering::Acquire) {
                return true;
            }
            if began.elapsed() >= at_most {
                return false;
            }
            for _ in 0..SPINS {
                hint::spin_loop();
            }
            thread::yield_now();
        }
    }
}

/// The queue and the threads of one temp directory.
#[derive(Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
    work: Condvar,
    /// As many as there are threads at most.
    read_ahead: Mutex<Vec<Weak<dyn ReadAhead>>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<dyn Work>>,
    threads: usize,
    idle: usize,
}

process_wide!(LANES: Mutex<Vec<(Place, Weak<Lane>)>> = Mutex::new(Vec::new()));

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Lane").field("queued", &state.queue.len()).field("threads", &state.threads).finish()
    }
}

#[cfg(test)]
thread_local! {
    /// No thread can be started for what this one submits.
    pub(crate) static REFUSES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// A call that exceeds the process's file-size limit, which may be lowered at any time, ends the process by a signal; where the thread
/// has blocked that, it fails. So it does in what a user's waker starts here, for that inherits it.
fn block_file_size_signal() {
    #[cfg(all(unix, not(spill_shuttle)))]
    {
        use nix::sys::signal::{SigSet, Signal};
        // Fails for no thread and no signal that there is; without, the limit is what it is in other programs.
        let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    }
}

impl Lane {
    /// The lane of a directory, shared by all who use that.
    pub(crate) fn of(place: &Place) -> Arc<Self> {
        let mut lanes = LANES.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|(_, lane)| lane.strong_count() > 0);
        if let Some(lane) = lanes.iter().find(|(of, _)| of.dir == place.dir).and_then(|(_, lane)| lane.upgrade()) {
            return lane;
        }
        let lane = Arc::new(Self::default());
        lanes.push((place.clone(), Arc::downgrade(&lane)));
        lane
    }

    /// Queues work.
    ///
    /// # Errors
    ///
    /// There is no thread to do it and none can be started; the work is not queued then.
    pub(crate) fn submit(self: &Arc<Self>, work: Arc<dyn Work>) -> io::Result<()> {
        #[cfg(test)]
        if REFUSES.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut state = self.lock();
        state.queue.push_back(work);
        if state.idle < state.queue.len() && state.threads < MAX_THREADS {
            match self.start_thread() {
                Ok(()) => state.threads += 1,
                Err(error) if state.threads == 0 => {
                    let refused = state.queue.pop_back();
                    drop(state);
                    drop(refused);
                    return Err(error);
                }
                // Those that there are will come to it.
                Err(_) => {}
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Whether there may be one more reader that is read ahead of. It is, from then on.
    pub(crate) fn may_read_ahead(&self, who: Weak<dyn ReadAhead>) -> bool {
        let mut those = self.read_ahead.lock().unwrap_or_else(PoisonError::into_inner);
        those.retain(|one| !one.ptr_eq(&who));
        let mut asked = Vec::new();
        if those.len() >= MAX_THREADS {
            asked.extend(those.iter().filter_map(Weak::upgrade));
            *those = asked.iter().filter(|one| one.keeps_up()).map(Arc::downgrade).collect();
        }
        let may = those.len() < MAX_THREADS;
        if may {
            those.push(who);
        }
        drop(those);
        // One of these may be the last share of a buffer, and so of a user's error, whose drop may panic.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(asked)));
        may
    }

    #[cfg(test)]
    pub(crate) fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether others wait for a thread.
    pub(crate) fn is_busy(&self) -> bool {
        !self.lock().queue.is_empty()
    }

    /// Takes out what is next, if it is of this kind: its caller does it instead of the thread that it was queued for.
    pub(crate) fn take_like(&self, kind: usize) -> Option<Arc<dyn Work>> {
        let mut state = self.lock();
        state.queue.front().filter(|next| next.kind() == Some(kind))?;
        state.queue.pop_front()
    }

    /// Gives back what was taken, to be done next.
    pub(crate) fn put_back(&self, work: Arc<dyn Work>) {
        self.lock().queue.push_front(work);
        self.work.notify_one();
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        let lane = Arc::clone(self);
        let work = move || {
            block_file_size_signal();
            lane.run();
        };
        thread::Builder::new().name("spillbuffer-io".into()).stack_size(256 << 10).spawn(work).map(drop)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if let Some(work) = state.queue.pop_front() {
                drop(state);
                // It may be the last drop of a buffer, and so of a user's error: should that panic, the thread
                // goes on.
                let turn = AssertUnwindSafe(|| {
                    let again = Arc::clone(&work).work(self);
                    if again { Some(work) } else { None }
                });
                let again = catch_unwind(turn).unwrap_or(None);
                state = self.lock();
                state.queue.extend(again);
                continue;
            }
            state.idle += 1;
            let (woken, timeout) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
