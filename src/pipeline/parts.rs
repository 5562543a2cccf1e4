//! A pipeline as it is put together, and all that comes before its last chain. Never runs by itself.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    chain::{Chain, Leavings, Part},
    ends::{SpillDrain, SpillSource},
    error::{Cause, Fault},
    live::Live,
    segment::{Ended, Segment},
};
use crate::{buffer::SpillBuffer, control::Control};

/// The stages that were added so far.
pub(super) struct Parts<'a> {
    pub(super) names: Vec<String>,
    pub(super) upstream: Upstream<'a>,
    /// What the next stage is added to.
    chain: Chain<'a>,
}

/// What comes before the last spill.
#[derive(Default)]
pub(super) struct Upstream<'a> {
    segments: Vec<Segment<'a, SpillDrain>>,
    /// The spills between the segments.
    spills: Vec<Control>,
    /// Of segments that were stopped.
    leavings: Leavings,
}

impl<'a> Parts<'a> {
    pub(super) fn new(chain: Chain<'a>) -> Self {
        Self { names: vec!["source".into()], upstream: Upstream::default(), chain }
    }

    /// Adds what is made for the place it gets.
    pub(super) fn push(&mut self, name: String, make: impl FnOnce(usize) -> Part<'a>) -> usize {
        let index = self.names.len();
        self.names.push(name);
        self.chain.push(make(index));
        index
    }

    pub(super) fn spill(&mut self, name: String, buffer: SpillBuffer) {
        let index = self.names.len();
        self.names.push(name);
        let (writer, reader) = buffer.into_split();
        self.upstream.spills.push(writer.control());
        let next = Chain::new(index, Box::new(SpillSource(reader)));
        let before = std::mem::replace(&mut self.chain, next);
        self.upstream.segments.push(Segment::new(before, SpillDrain::new(writer), index));
    }

    pub(super) fn into_live(self, sink: Option<String>) -> (Upstream<'a>, Chain<'a>, Arc<Live>) {
        (self.upstream, self.chain, Live::new(self.names.into_iter().chain(sink)))
    }
}

impl Upstream<'_> {
    /// Moves what can be moved now.
    ///
    /// # Errors
    ///
    /// A segment has failed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, live: &Live) -> Result<Option<Ended>, Fault> {
        let mut ended = None;
        if let Some(at) = self.segments.iter().rposition(Segment::is_stopped) {
            self.stop(at, live);
        }
        for segment in &mut self.segments {
            if let Poll::Ready(how) = segment.poll(cx, live) {
                let how = how?;
                if ended != Some(Ended::Stopped) {
                    ended = Some(how);
                }
            }
        }
        Ok(ended)
    }

    /// Nobody wants what comes before this segment, and that is no failure.
    fn stop(&mut self, before: usize, live: &Live) {
        for mut segment in self.segments.drain(..before) {
            live.rest_until(segment.index);
            segment.chain.end(&mut self.leavings);
        }
    }

    /// Nobody wants any of it.
    pub(super) fn stop_all(&mut self, live: &Live) {
        self.stop(self.segments.len(), live);
    }

    pub(super) fn look(&mut self, cx: &mut Context<'_>, but: Option<usize>) -> Vec<Fault> {
        self.segments.iter_mut().flat_map(|segment| segment.look(cx, but)).collect()
    }

    /// From the end to the source. Each chain's source is the spill before it, whose backlog goes as that is cancelled.
    pub(super) fn fail(&mut self, cause: &Cause, leave: &mut Leavings) {
        leave.append(&mut self.leavings);
        for mut segment in self.segments.drain(..).rev() {
            segment.fail(cause, leave);
        }
    }

    pub(super) fn end(&mut self, leave: &mut Leavings) {
        leave.append(&mut self.leavings);
        for mut segment in self.segments.drain(..) {
            segment.chain.end(leave);
        }
    }

    /// Ready when the spills hold nothing any more.
    pub(super) fn poll_released(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.spills.retain(|spill| spill.poll_released(cx).is_pending());
        if self.spills.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}
