//! A task's turn: how much it moves before others of its runtime go on. Only counts; tokio decides.

use std::task::{Context, Poll, Waker};

use tokio::task::coop::{has_budget_remaining, poll_proceed};

use crate::block;

/// So many bytes count as one call more in tokio's cooperative budget. That is for 128 calls, so a turn ends after 2 MiB however
/// long the pieces are. By calls alone it would last for as many as 128 MiB, and then those who share a thread with many such streams,
/// their own readers among them, are not polled for longer than a writer is held for them.
const CALL: usize = 16 << 10;

/// What tokio's budget is at most; more need not be counted.
const CALLS: usize = 128;

/// Memory that is fresh from the system takes about as long as so many times as much that was used before.
const FRESH: usize = 8;

/// A call, which counts for itself, has moved so many bytes.
#[inline]
pub(crate) fn moved(bytes: usize) {
    if bytes >= CALL {
        count((bytes / CALL).min(CALLS));
    }
}

/// The same for one who fills blocks with them. Which of several writers at work pays for fresh memory is chance, and makes no
/// difference.
#[inline]
pub(crate) fn filled(bytes: usize) {
    moved(bytes.saturating_add(FRESH * block::take_fresh()));
}

#[inline(never)]
fn count(calls: usize) {
    // Nobody is to be woken: whoever calls next, and finds nothing left, is.
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..calls {
        if !has_budget_remaining() {
            break;
        }
        if let Poll::Ready(coop) = poll_proceed(&mut cx) {
            coop.made_progress();
        }
    }
}
