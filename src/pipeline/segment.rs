//! A chain and what it flows into: a spill, or the pipeline's sink. Moves one chunk at a time.
//! Never closes what it flows into after a failure.

use std::{
    error::Error,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    chain::{Chain, Leavings},
    error::{Cause, Fault, Interrupted},
    live::Live,
};
use crate::drain::Drain;

pub(super) struct Segment<'a, D> {
    pub(super) chain: Chain<'a>,
    pub(super) drain: D,
    /// The drain's place in the pipeline.
    pub(super) index: usize,
    /// Whether the drain is closed at the end, and aborted after a failure.
    pub(super) closes: bool,
    /// What it has written is out: nobody reads it again, as a spill stage's is.
    pub(super) is_sink: bool,
    chunk: Bytes,
    /// Something was written since the last flush.
    unflushed: bool,
    state: State,
}

/// How a segment has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Completed,
    /// Somebody has had enough.
    Stopped,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Moving,
    Flushing(Ended),
    Closing(Ended),
    Done(Ended),
    Failed,
}

impl<'a, D: Drain> Segment<'a, D> {
    pub(super) fn new(chain: Chain<'a>, drain: D, index: usize) -> Self {
        Self {
            chain,
            drain,
            index,
            closes: true,
            is_sink: false,
            chunk: Bytes::new(),
            unflushed: false,
            state: State::Moving,
        }
    }

    /// Moves what can be moved now. Ready when all of it is in the drain, flushed, and that closed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, live: &Live) -> Poll<Result<Ended, Fault>> {
        self.chain.begin_turn();
        loop {
            if matches!(self.state, State::Moving) && live.is_cancelled() {
                return Poll::Pending;
            }
            match self.state {
                State::Moving if self.chunk.is_empty() => match self.chain.poll_chunk(cx, live) {
                    Poll::Ready(Ok(Some(chunk))) => self.chunk = chunk,
                    Poll::Ready(Ok(None)) => {
                        let stopped = self.chain.is_stopped();
                        self.state = State::Flushing(if stopped { Ended::Stopped } else { Ended::Completed });
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(fault)),
                    Poll::Pending if self.chain.yields() => return Poll::Pending,
                    Poll::Pending => return self.poll_idle(cx),
                },
                State::Moving => ready!(self.poll_write(cx, live))?,
                State::Flushing(ended) => {
                    ready!(live.watch(self.drain.poll_flush(cx), self.index)).map_err(|cause| self.fault(cause))?;
                    self.state = if self.closes { State::Closing(ended) } else { State::Done(ended) };
                }
                State::Closing(ended) => {
                    ready!(live.watch(self.drain.poll_close(cx), self.index)).map_err(|cause| self.fault(cause))?;
                    self.state = State::Done(ended);
                }
                State::Done(ended) => return Poll::Ready(Ok(ended)),
                // Whoever failed it does not ask again.
                State::Failed => return Poll::Pending,
            }
        }
    }

    /// Whether all has been written, and only the drain's end is waited for.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state, State::Flushing(_) | State::Closing(_))
    }

    /// Whether somebody in it has had enough: what comes before it is not wanted any more.
    pub(super) fn is_stopped(&self) -> bool {
        let (State::Flushing(ended) | State::Closing(ended) | State::Done(ended)) = self.state else { return false };
        ended == Ended::Stopped
    }

    /// Whether the source or the drain have failed too, for all that is known; not asked where they have said so.
    pub(super) fn look(&mut self, cx: &mut Context<'_>, but: Option<usize>) -> Vec<Fault> {
        let mut faults: Vec<_> = self.chain.look(cx).into_iter().collect();
        if but != Some(self.index)
            && matches!(self.state, State::Moving)
            && let Poll::Ready(Err(cause)) = self.drain.poll_flush(cx)
        {
            faults.push(Fault::of(self.index, cause));
        }
        faults
    }

    /// The drain first: it is told that what it has is not the whole.
    pub(super) fn abort(&mut self, cause: &Cause) {
        self.chunk = Bytes::new();
        if self.closes && !matches!(self.state, State::Done(_)) {
            self.drain.abort(Cause::clone(cause));
        }
        self.state = State::Failed;
    }

    pub(super) fn fail(&mut self, cause: &Cause, leave: &mut Leavings) {
        self.chain.fail(cause, leave);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, live: &Live) -> Poll<Result<(), Fault>> {
        let before = self.chunk.len();
        ready!(live.watch(self.drain.poll_write(cx, &mut self.chunk), self.index))
            .map_err(|cause| self.fault(cause))?;
        let written = before.saturating_sub(self.chunk.len());
        if self.chunk.is_empty() {
            // A drain of a user's may have advanced it to its end: what is left would keep the memory.
            self.chunk = Bytes::new();
        }
        live.came(self.index, written);
        if self.is_sink {
            live.went(self.index, written);
        }
        self.unflushed = true;
        if self.drain.has_enough() {
            self.stop();
        } else if written == 0 {
            return Poll::Ready(Err(self.fault(Interrupted::NoProgress.into())));
        }
        Poll::Ready(Ok(()))
    }

    /// There is nothing to write for now: what was written goes on, and a drain that has gone is noticed.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Fault>> {
        if let Poll::Ready(cause) = self.drain.poll_broken(cx) {
            return Poll::Ready(Err(self.fault(cause)));
        }
        if self.unflushed
            && let Poll::Ready(flushed) = self.drain.poll_flush(cx)
        {
            self.unflushed = false;
            flushed.map_err(|cause| self.fault(cause))?;
            if self.drain.has_enough() {
                self.stop();
                // The flush and the close are for the next turn.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn stop(&mut self) {
        self.chunk = Bytes::new();
        self.chain.stop();
        self.state = State::Flushing(Ended::Stopped);
    }

    fn fault(&self, cause: Box<dyn Error + Send + Sync>) -> Fault {
        Fault::of(self.index, cause)
    }
}
