//! The times that a pipeline keeps: its own, the longest silence, the longest close. On tokio's clock, so that a test may pause
//! it, or on the crate's. Never wanted unless a limit is set, or the sink's end is waited for.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use crate::{
    clock::{self, Tick},
    transform::clock::{Pause, now},
};

/// How long the crate's clock is asked for at once: what is not wanted any more stays in its queue until then.
const STEP: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Timer {
    pub(super) limit: Option<Duration>,
    /// Whether somebody asked for it. Else tokio is not asked for its time, for that is a panic where a runtime has none.
    set: bool,
    wait: Wait,
    /// What the watched count was when it was last started.
    at: u64,
}

#[derive(Debug, Default)]
enum Wait {
    #[default]
    NotBegun,
    Tokios(Pause),
    Own(Arc<Alarm>),
}

impl Timer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit: Some(limit), set: true, ..Self::default() }
    }

    /// A limit that nobody asked for.
    pub(super) fn usual(limit: Duration) -> Self {
        Self { set: false, ..Self::new(limit) }
    }

    /// The same, from the beginning.
    pub(super) fn anew(&self) -> Self {
        Self { limit: self.limit, set: self.set, ..Self::default() }
    }

    /// Ready with the limit when it is over; begins with the first call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if matches!(self.wait, Wait::NotBegun) {
            self.wait = Wait::begin(limit, self.set);
        }
        ready!(match &mut self.wait {
            Wait::NotBegun => Poll::Pending,
            Wait::Tokios(pause) => pause.poll(cx),
            Wait::Own(alarm) => alarm.poll(cx),
        });
        Poll::Ready(limit)
    }

    /// The same, begun anew whenever `count` has changed.
    pub(super) fn poll_since(&mut self, count: u64, cx: &mut Context<'_>) -> Poll<Duration> {
        if let Some(limit) = self.limit
            && count != self.at
        {
            self.at = count;
            match &self.wait {
                Wait::Own(alarm) => alarm.set(limit),
                _ => self.wait = Wait::NotBegun,
            }
        }
        self.poll(cx)
    }
}

impl Wait {
    fn begin(limit: Duration, set: bool) -> Self {
        let asks = set || is_steered();
        if asks && let Some(tokios) = Self::tokios(limit) {
            return tokios;
        }
        let alarm = Arc::new(Alarm::default());
        alarm.set(limit);
        // Without a thread there is no clock of our own, and tokio's may serve after all.
        if alarm.arm(&mut alarm.lock()).is_err()
            && !asks
            && let Some(tokios) = Self::tokios(limit)
        {
            return tokios;
        }
        Self::Own(alarm)
    }

    /// None where there is no runtime, or one without time.
    fn tokios(limit: Duration) -> Option<Self> {
        let mut pause = Pause::default();
        pause.begin(limit).ok().map(|()| Self::Tokios(pause))
    }
}

/// Whether tokio's time is not the system's: a test has paused it.
fn is_steered() -> bool {
    let before = Instant::now();
    let told = now();
    told < before || told > Instant::now()
}

/// A wait on the crate's own clock.
#[derive(Debug, Default)]
struct Alarm {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In nanoseconds of that clock.
    due: u64,
    /// A call by the clock is to come.
    armed: bool,
    waker: Option<Waker>,
}

impl Alarm {
    /// From now on.
    fn set(&self, limit: Duration) {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        self.lock().due = clock::now().saturating_add(limit);
    }

    fn poll(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<()> {
        // The clock's thread takes this lock, and waits for nothing of a user's.
        let waker = cx.waker().clone();
        let mut state = self.lock();
        if clock::now() >= state.due {
            return Poll::Ready(());
        }
        let before = state.waker.replace(waker);
        if !state.armed {
            // Where it cannot be, whoever polls for another reason finds that it is time.
            let _ = self.arm(&mut state);
        }
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// # Errors
    ///
    /// The clock's thread cannot be started.
    fn arm(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        #[cfg(test)]
        if REFUSES.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let me: Weak<Self> = Arc::downgrade(self);
        let armed = clock::call_at(next_call(state.due, clock::now()), me);
        state.armed = armed.is_ok();
        armed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next_call(due: u64, now: u64) -> u64 {
    due.min(now.saturating_add(STEP.as_nanos() as u64))
}

#[cfg(test)]
thread_local! {
    /// The clock's thread cannot be started for what this one arms.
    static REFUSES: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

impl Tick for Alarm {
    fn tick(self: Arc<Self>, now: u64) {
        let mut state = self.lock();
        state.armed = false;
        if now < state.due {
            // The thread that does this is there.
            let _ = self.arm(&mut state);
            return;
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::Wake,
    };

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn alarm(timer: &Timer) -> &Arc<Alarm> {
        match &timer.wait {
            Wait::Own(alarm) => alarm,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_waits_on_our_own_clock_is_called_in_steps_and_woken_once() {
        let counts = [(); 2].map(|()| Arc::new(Count::default()));
        let woken = || counts.each_ref().map(|count| count.0.load(SeqCst));
        let mut timer = Timer::usual(HOUR);
        for count in &counts {
            let waker = Waker::from(Arc::clone(count));
            assert!(timer.poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let alarm = Arc::clone(alarm(&timer));
        let due = alarm.lock().due;
        assert!(alarm.lock().armed);
        // The clock's queue has it.
        assert_eq!(Arc::weak_count(&alarm), 1);
        Arc::clone(&alarm).tick(due - 1);
        assert!(alarm.lock().armed);
        assert_eq!((Arc::weak_count(&alarm), woken()), (2, [0, 0]), "nobody would call again");
        Arc::clone(&alarm).tick(due);
        assert_eq!((alarm.lock().armed, woken()), (false, [0, 1]), "the waker of the last poll");
        // What is long gone does not stay in the queue for an hour.
        assert_eq!(next_call(due, 7), 1_000_000_007);
        assert_eq!(next_call(1_000_000_006, 7), 1_000_000_006);
    }

    #[test]
    fn where_no_thread_can_be_started_tokio_is_asked_after_all() {
        let mut cx = Context::from_waker(Waker::noop());
        REFUSES.set(true);
        for set in [false, true] {
            let mut timer = Timer { set, ..Timer::new(HOUR) };
            assert!(timer.poll(&mut cx).is_pending(), "there is no runtime either");
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let mut timer = Timer::usual(HOUR);
        assert!(timer.poll(&mut cx).is_pending());
        assert!(matches!(timer.wait, Wait::Tokios(_)));
        REFUSES.set(false);
    }

    #[test]
    fn what_moves_puts_the_time_off_without_another_call() {
        let mut cx = Context::from_waker(Waker::noop());
        // Without a runtime.
        let mut timer = Timer::new(HOUR);
        assert!(timer.poll_since(0, &mut cx).is_pending());
        let first = Arc::clone(alarm(&timer));
        let due = first.lock().due;
        assert!(timer.poll_since(0, &mut cx).is_pending());
        assert_eq!(first.lock().due, due);
        assert!(timer.poll_since(1, &mut cx).is_pending());
        assert!(first.lock().due > due && Arc::ptr_eq(&first, alarm(&timer)));
        // The clock's queue, and the two here.
        assert_eq!((Arc::weak_count(&first), Arc::strong_count(&first)), (1, 2));
        // The time was over, and put off before the pipeline was polled.
        let due = first.lock().due;
        Arc::clone(&first).tick(due);
        assert!(timer.poll_since(2, &mut cx).is_pending());
        assert!(first.lock().armed);
        let anew = timer.anew();
        assert!(matches!(anew.wait, Wait::NotBegun) && anew.limit == Some(HOUR) && anew.set);
        assert!(!Timer::usual(HOUR).anew().set);
    }

    #[test]
    fn a_clock_that_a_test_has_paused_is_asked_also_for_a_usual_limit() {
        let mut cx = Context::from_waker(Waker::noop());
        let runtime =
            |paused| tokio::runtime::Builder::new_current_thread().enable_time().start_paused(paused).build().unwrap();
        for (paused, set) in [(false, false), (false, true), (true, false)] {
            let runtime = runtime(paused);
            let _inside = runtime.enter();
            let mut asks = || {
                let mut timer = Timer { set, ..Timer::new(HOUR) };
                timer.poll(&mut cx).is_pending() && matches!(timer.wait, Wait::Tokios(_))
            };
            assert_eq!(asks(), paused || set, "paused {paused}, set {set}");
            if paused {
                runtime.block_on(tokio::time::advance(HOUR));
                assert!(asks(), "ahead of the system's time");
            }
        }
    }
}
