//! A source and the stages behind it, up to the next place where bytes wait. Pulled by whatever is at its end.
//! Never holds more than a chunk a stage.

use std::{
    any::Any,
    mem,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use super::{
    branch::Branch,
    error::{Cause, Fault},
    link::Link,
    live::Live,
};
use crate::{
    source::Source,
    transform::{clock::Pause, stage::Said},
};

/// Chunks that are taken from a source, or that a stage makes of what it has, before others have their turn: an end that is always
/// ready must not starve them, however much a stage makes of a little.
const TURN: u32 = 32;

pub(super) struct Chain<'a> {
    inlet: Inlet<'a>,
    parts: Vec<Part<'a>>,
}

struct Inlet<'a> {
    index: usize,
    /// None once it has ended or is not wanted any more. One that has failed is kept until the sink has been told.
    source: Option<Box<dyn Source + Send + 'a>>,
    failed: bool,
    /// What is left of the turn, of the stages as well.
    turn: u32,
    yields: bool,
}

pub(super) struct Part<'a> {
    pub(super) index: usize,
    pub(super) kind: Kind<'a>,
    pause: Pause,
}

pub(super) enum Kind<'a> {
    Stage(Box<dyn Link + 'a>),
    Branch(Branch),
}

impl<'a> Part<'a> {
    pub(super) fn new(index: usize, kind: Kind<'a>) -> Self {
        Self { index, kind, pause: Pause::default() }
    }

    fn is_stopped(&self) -> bool {
        matches!(&self.kind, Kind::Stage(stage) if stage.is_stopped())
    }
}

impl<'a> Chain<'a> {
    pub(super) fn new(index: usize, source: Box<dyn Source + Send + 'a>) -> Self {
        Self {
            inlet: Inlet { index, source: Some(source), failed: false, turn: TURN, yields: false },
            parts: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, part: Part<'a>) {
        self.parts.push(part);
    }

    /// Its turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.inlet.turn = TURN;
        self.inlet.yields = false;
    }

    /// Whether there is more, and only others have their turn first.
    pub(super) fn yields(&self) -> bool {
        self.inlet.yields
    }

    /// The next chunk at its end; `None` at the end of the stream.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>, live: &Live) -> Poll<Result<Option<Bytes>, Fault>> {
        let mut chunk = Bytes::new();
        let came = ready!(pull(&mut self.inlet, &mut self.parts, cx, live, &mut chunk))?;
        Poll::Ready(Ok(came.then_some(chunk)))
    }

    /// Whether a stage has had enough.
    pub(super) fn is_stopped(&self) -> bool {
        self.parts.iter().any(Part::is_stopped)
    }

    /// Nothing more is wanted of the source, and that is no failure.
    pub(super) fn stop(&mut self) {
        self.inlet.source = None;
    }

    /// Whether the source has failed too.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> Option<Fault> {
        let source = self.inlet.source.as_mut().filter(|_| !self.inlet.failed)?;
        let Poll::Ready(Some(Err(cause))) = source.poll_chunk(cx) else { return None };
        self.inlet.failed = true;
        Some(Fault::of(self.inlet.index, cause))
    }

    /// All of it is given up for this cause: the stages first, the source last. What those leave behind that had ended, and
    /// what became of branches, is handed out.
    pub(super) fn fail(&mut self, cause: &Cause, leave: &mut Leavings) {
        for part in self.parts.drain(..).rev() {
            leave.take(part, Some(cause));
        }
        if let Some(mut source) = self.inlet.source.take()
            && !self.inlet.failed
        {
            source.cancel(Cause::clone(cause));
        }
    }

    /// It has ended.
    pub(super) fn end(&mut self, leave: &mut Leavings) {
        self.inlet.source = None;
        for part in self.parts.drain(..) {
            leave.take(part, None);
        }
    }
}

/// What stages have left behind.
#[derive(Default)]
pub(super) struct Leavings {
    pub(super) values: Vec<(usize, Box<dyn Any + Send>)>,
    pub(super) lost: Vec<Fault>,
}

impl Leavings {
    pub(super) fn append(&mut self, other: &mut Self) {
        self.values.append(&mut other.values);
        self.lost.append(&mut other.lost);
    }

    fn take(&mut self, part: Part<'_>, cause: Option<&Cause>) {
        match part.kind {
            Kind::Stage(stage) => self.values.extend(stage.into_value().map(|value| (part.index, value))),
            Kind::Branch(mut branch) => {
                match cause {
                    Some(cause) => branch.fail(cause),
                    None => branch.end(),
                }
                self.lost.extend(branch.lost().map(|cause| Fault::of(part.index, cause)));
            }
        }
    }
}

/// Puts the next chunk behind the last of `parts` into `chunk`, which is empty, and says whether there was one: a chunk is moved as
/// seldom as can be, however many it passes.
fn pull(
    inlet: &mut Inlet<'_>,
    parts: &mut [Part<'_>],
    cx: &mut Context<'_>,
    live: &Live,
    chunk: &mut Bytes,
) -> Poll<Result<bool, Fault>> {
    let Some((part, before)) = parts.split_last_mut() else { return inlet.poll(cx, live, chunk) };
    let index = part.index;
    loop {
        match &mut part.kind {
            Kind::Stage(stage) => {
                ready!(part.pause.poll(cx));
                let mut fed = false;
                if stage.needs_input() {
                    fed = ready!(pull(inlet, before, cx, live, chunk))?;
                    if fed {
                        live.came(index, chunk.len());
                    } else {
                        stage.end_input();
                    }
                } else {
                    ready!(inlet.take_of_turn(cx));
                }
                match stage.step(chunk, fed) {
                    Ok(Said::Chunk) => {
                        live.went(index, chunk.len());
                        return Poll::Ready(Ok(true));
                    }
                    Ok(Said::NeedInput) => {}
                    Ok(Said::Wait(wait)) => {
                        if let Err(error) = part.pause.begin(wait) {
                            return Poll::Ready(Err(Fault::of(index, error)));
                        }
                    }
                    Ok(Said::End) => {
                        if stage.is_stopped() {
                            inlet.source = None;
                        }
                        return Poll::Ready(Ok(false));
                    }
                    Err(cause) => return Poll::Ready(Err(Fault::of(index, cause))),
                }
            }
            Kind::Branch(branch) => {
                if let Some(passed) = ready!(branch.poll_pass(cx)) {
                    live.went(index, passed.len());
                    *chunk = passed;
                    return Poll::Ready(Ok(true));
                }
                if !ready!(pull(inlet, before, cx, live, chunk))? {
                    branch.finish();
                    return Poll::Ready(Ok(false));
                }
                live.came(index, chunk.len());
                branch.push(mem::take(chunk));
            }
        }
    }
}

impl Inlet<'_> {
    /// Ready while there is something left of the turn, with one chunk less.
    fn take_of_turn(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.yields = self.turn == 0;
        if self.yields {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.turn -= 1;
        Poll::Ready(())
    }

    fn poll(&mut self, cx: &mut Context<'_>, live: &Live, into: &mut Bytes) -> Poll<Result<bool, Fault>> {
        loop {
            if self.source.is_some() {
                ready!(self.take_of_turn(cx));
            }
            let Some(source) = &mut self.source else { return Poll::Ready(Ok(false)) };
            let polled = source.poll_chunk(cx);
            // What a spill stage is empty for is the wait of what comes before it.
            let polled = if self.index == 0 { live.watch(polled, 0) } else { polled };
            match ready!(polled) {
                Some(Ok(chunk)) if chunk.is_empty() => {}
                Some(Ok(chunk)) => {
                    if self.index == 0 {
                        live.came(0, chunk.len());
                    }
                    live.went(self.index, chunk.len());
                    *into = chunk;
                    return Poll::Ready(Ok(true));
                }
                Some(Err(cause)) => {
                    self.failed = true;
                    return Poll::Ready(Err(Fault::of(self.index, cause)));
                }
                None => self.source = None,
            }
        }
    }
}
