//! How long a writer at a full window is held before its bytes go to disk.
//! Never reads a clock: times are nanoseconds that it is handed.
//!
//! A window that is full for a moment does not mean that the reader lags: writer and reader may share
//! one thread, and the window fills between their turns. So the writer is held first. Time held is a
//! debt, time running repays a third of itself, and at [`PATIENCE`] the buffer spills. A reader that
//! merely trickles therefore costs the writer at most a quarter of its time.

/// The debt, in nanoseconds, at which spilling begins.
pub(crate) const PATIENCE: u64 = 1_000_000;

/// How much time between the reader's wake-up and its next poll is the scheduler's, in nanoseconds:
/// a busy machine must not send traffic to disk.
pub(crate) const EXCUSE: u64 = 20_000_000;

/// Time running repays one part in this many.
const REPAYMENT: u64 = 3;

#[derive(Debug, Default)]
pub(crate) struct Grace {
    debt: u64,
    /// Up to when `debt` is reckoned.
    since: u64,
    /// What is left of [`EXCUSE`] for the present wake-up.
    excuse: u64,
    held: bool,
    /// When the present hold began.
    held_since: u64,
}

impl Grace {
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// The writer found no room.
    pub(crate) fn hold(&mut self, now: u64) {
        self.reckon(now);
        self.held = true;
        self.held_since = now;
    }

    /// There is room again, or nobody waits for it.
    pub(crate) fn release(&mut self, now: u64) {
        self.reckon(now);
        self.held = false;
    }

    /// The reader was woken; until it is polled, the time is the scheduler's.
    pub(crate) fn reader_woken(&mut self, now: u64) {
        self.reckon_if_held(now);
        self.excuse = EXCUSE;
    }

    pub(crate) fn reader_polled(&mut self, now: u64) {
        self.reckon_if_held(now);
        self.excuse = 0;
    }

    /// The same while the writer is not held: the time makes no difference.
    #[inline]
    pub(crate) fn reader_polled_while_free(&mut self) {
        self.excuse = 0;
    }

    /// The reader has caught up with half of the window: nothing is held against it.
    pub(crate) fn forgive(&mut self) {
        self.debt = 0;
    }

    /// Whether patience is at its end.
    pub(crate) fn is_over(&mut self, now: u64) -> bool {
        self.reckon(now);
        self.debt >= PATIENCE
    }

    /// When to look again whether patience has ended: not later than it would if the reader were polled now.
    pub(crate) fn next_look(&self) -> Option<u64> {
        self.held.then(|| self.since + PATIENCE.saturating_sub(self.debt).max(1))
    }

    /// Whether the present hold has lasted for this long; no longer than that is the writer held once there is any room.
    pub(crate) fn held_for(&self, nanos: u64, now: u64) -> bool {
        self.held && now >= self.held_since.saturating_add(nanos)
    }

    /// While nobody is held the time makes no difference here, and asking for it costs.
    fn reckon_if_held(&mut self, now: u64) {
        if self.held {
            self.reckon(now);
        }
    }

    fn reckon(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        self.since = self.since.max(now);
        if self.held {
            let excused = passed.min(self.excuse);
            self.excuse -= excused;
            self.debt = self.debt.saturating_add(passed - excused).min(PATIENCE);
        } else {
            self.debt = self.debt.saturating_sub(passed / REPAYMENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_a_writer_is_held_for_a_millisecond_then_no_more() {
        let mut grace = Grace::default();
        grace.hold(5_000);
        assert_eq!(grace.next_look(), Some(5_000 + PATIENCE));
        assert!(!grace.is_over(5_000 + PATIENCE - 1));
        assert!(grace.is_over(5_000 + PATIENCE));
    }

    #[test]
    fn c05_a_trickling_reader_costs_a_quarter_of_the_time_at_most() {
        // Held and running in turns: as long as spilling has not begun, time held is bounded.
        for (held, ran) in [(10_000, 10_000), (10_000, 30_000), (400_000, 1), (1, 7)] {
            let mut grace = Grace::default();
            let (mut now, mut total_held) = (0u64, 0u64);
            for _ in 0..10_000 {
                grace.hold(now);
                if grace.is_over(now + held) {
                    break;
                }
                now += held;
                total_held += held;
                grace.release(now);
                now += ran;
            }
            assert!(total_held <= now / 4 + PATIENCE + 10_000, "{held} {ran}: {total_held} of {now}");
        }
    }

    #[test]
    fn c05_time_between_wake_up_and_poll_does_not_count_up_to_twenty_milliseconds() {
        let mut grace = Grace::default();
        grace.hold(0);
        grace.reader_woken(0);
        assert!(!grace.is_over(EXCUSE));
        assert!(grace.is_over(EXCUSE + PATIENCE));
        let mut grace = Grace::default();
        grace.hold(0);
        grace.reader_woken(0);
        grace.reader_polled(EXCUSE / 2);
        assert!(!grace.is_over(EXCUSE / 2 + PATIENCE - 1));
        assert!(grace.is_over(EXCUSE / 2 + PATIENCE));
    }

    #[test]
    fn c05_a_hold_lasts_from_its_own_beginning_and_ends_with_it() {
        let mut grace = Grace::default();
        assert!(!grace.is_held());
        grace.hold(100);
        assert!(grace.is_held() && !grace.held_for(50, 149));
        assert!(grace.held_for(50, 150));
        grace.release(200);
        assert!(!grace.is_held() && !grace.held_for(50, 1_000));
        grace.hold(2_000);
        assert!(!grace.held_for(50, 2_049));
        assert!(grace.held_for(50, 2_050));
    }

    #[test]
    fn c05_the_next_look_is_when_the_rest_of_patience_ends_and_never_at_once() {
        let mut grace = Grace::default();
        assert_eq!(grace.next_look(), None);
        grace.hold(0);
        grace.release(PATIENCE / 2);
        grace.hold(PATIENCE / 2);
        assert_eq!(grace.next_look(), Some(PATIENCE));
        assert!(grace.is_over(PATIENCE));
        assert_eq!(grace.next_look(), Some(PATIENCE + 1));
        grace.release(PATIENCE);
        assert_eq!(grace.next_look(), None);
    }

    #[test]
    fn c05_what_was_held_is_repaid_at_a_third_or_forgiven() {
        let mut grace = Grace::default();
        grace.hold(0);
        grace.release(600_000);
        grace.hold(600_000 + 3 * 200_000);
        let now = 1_200_000;
        assert!(!grace.is_over(now + 599_999));
        assert!(grace.is_over(now + 600_000));
        grace.forgive();
        let now = now + 600_000;
        assert!(!grace.is_over(now + PATIENCE - 1));
        assert!(grace.is_over(now + PATIENCE));
    }

    #[test]
    fn c05_an_excuse_is_used_up_by_time_held_and_a_poll_ends_it() {
        let mut grace = Grace::default();
        grace.reader_woken(0);
        // Nobody was held meanwhile: it is all there still.
        grace.hold(EXCUSE);
        assert!(!grace.is_over(2 * EXCUSE + PATIENCE - 1));
        assert!(grace.is_over(2 * EXCUSE + PATIENCE));
        let mut grace = Grace::default();
        grace.reader_woken(0);
        grace.reader_polled_while_free();
        grace.hold(0);
        assert!(grace.is_over(PATIENCE));
    }
}
