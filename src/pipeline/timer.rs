//! The times that a pipeline keeps: its own, the longest silence, the longest close. On tokio's clock, so that a test may pause
//! it. Never wanted unless a limit is set.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::transform::clock::Pause;

#[derive(Debug, Default)]
pub(super) struct Timer {
    pub(super) limit: Option<Duration>,
    pause: Pause,
    runs: bool,
    /// What the watched count was when it was last started.
    at: u64,
}

impl Timer {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// Ready with the limit when it is over; begins with the first call.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(limit) = self.limit else { return Poll::Pending };
        if !self.runs {
            self.runs = true;
            if self.pause.begin(limit).is_err() {
                // There is no clock to keep it with.
                self.limit = None;
                return Poll::Pending;
            }
        }
        ready!(self.pause.poll(cx));
        Poll::Ready(limit)
    }

    /// The same, begun anew whenever `count` has changed.
    pub(super) fn poll_since(&mut self, count: u64, cx: &mut Context<'_>) -> Poll<Duration> {
        if self.limit.is_some() && count != self.at {
            self.at = count;
            self.runs = false;
        }
        self.poll(cx)
    }
}
