//! The times that a pipeline keeps: its own, the longest silence, the longest close. On tokio's clock, so that a test may pause
//! it, or on the crate's. Never wanted unless a limit is set, or the sink's end is waited for.

use std::{
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
        ready!(match &mut self.wait {
            Wait::Tokios(pause) => pause.poll(cx),
            Wait::Own(alarm) => alarm.poll(cx),
            Wait::NotBegun => {
                self.wait = Wait::begin(limit, self.set);
                return self.poll(cx);
            }
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
        let mut pause = Pause::default();
        if (set || is_steered()) && pause.begin(limit).is_ok() {
            return Self::Tokios(pause);
        }
        let alarm = Alarm::default();
        alarm.set(limit);
        Self::Own(Arc::new(alarm))
    }
}

/// Whether tokio's time is not the system's: a test has paused it, and there is one.
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
        let mut state = self.lock();
        let now = clock::now();
        if now >= state.due {
            return Poll::Ready(());
        }
        let waker = state.waker.replace(cx.waker().clone());
        // Without a thread there is no clock to keep it with.
        state.armed = state.armed || self.arm(&state, now);
        drop(state);
        drop(waker);
        Poll::Pending
    }

    fn arm(self: &Arc<Self>, state: &State, now: u64) -> bool {
        let me: Weak<Self> = Arc::downgrade(self);
        clock::call_at(state.due.min(now.saturating_add(STEP.as_nanos() as u64)), me).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tick for Alarm {
    fn tick(self: Arc<Self>, now: u64) {
        let mut state = self.lock();
        state.armed = now < state.due && self.arm(&state, now);
        let waker = if state.armed { None } else { state.waker.take() };
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
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut timer = Timer::usual(HOUR);
        assert!(timer.poll(&mut Context::from_waker(&waker)).is_pending());
        let alarm = Arc::clone(alarm(&timer));
        let due = alarm.lock().due;
        assert!(alarm.lock().armed);
        Arc::clone(&alarm).tick(due - 1);
        assert!(alarm.lock().armed, "nobody would call again");
        assert_eq!(count.0.load(SeqCst), 0);
        Arc::clone(&alarm).tick(due);
        assert_eq!((alarm.lock().armed, count.0.load(SeqCst)), (false, 1));
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
            let mut timer = Timer { set, ..Timer::new(HOUR) };
            assert!(timer.poll(&mut cx).is_pending());
            assert_eq!(matches!(timer.wait, Wait::Tokios(_)), paused || set, "paused {paused}, set {set}");
        }
    }
}
