//! One transform with what goes in and what has come out: the only state machine there is, and what
//! holds a transform to its contract. Never waits: whoever drives it does.

use std::{
    fmt, mem,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Contract, Flow, Output, Transform, TransformError, output};
use crate::error::shared;

/// What a stage needs or has.
#[derive(Debug)]
pub(crate) enum Said {
    /// The next bytes of the output, never none, are in the place of the caller's.
    Chunk,
    /// It has nothing more of what it was given: the next `push` or `end_input`, please.
    NeedInput,
    /// To be asked again when so much time has passed.
    Wait(Duration),
    /// The clean end; it repeats.
    End,
}

/// A transform between its input and its output.
///
/// `next_into` is asked until it says [`Said::NeedInput`], then it is given more. What was put before an
/// error comes before it; an error and the end repeat.
pub(crate) struct Stage<T: Transform> {
    /// Dropped as soon as it has failed, so that what it holds is released then.
    transform: Option<T>,
    input: Bytes,
    output: Output,
    state: State,
    wait: Option<Duration>,
    /// What was taken since the last flush was asked for.
    unflushed: bool,
    taken: u64,
}

#[derive(Debug)]
enum State {
    /// Nothing to do before there is more input.
    Idle,
    /// There is input, or more output to come of it.
    Transforming,
    Flushing,
    Finishing,
    Ended {
        stopped: bool,
    },
    Failed(TransformError),
}

impl<T: Transform> Stage<T> {
    pub(crate) fn new(transform: T, clock: fn() -> Instant) -> Self {
        Self {
            transform: Some(transform),
            input: Bytes::new(),
            output: Output::new(output::DEFAULT_LIMIT, clock),
            state: State::Idle,
            wait: None,
            unflushed: false,
            taken: 0,
        }
    }

    /// How many made bytes the output may hold.
    pub(crate) fn set_output_limit(&mut self, limit: usize) {
        self.output.set_limit(limit);
    }

    /// Whether it has said [`Said::NeedInput`], and was given none since.
    pub(crate) fn needs_input(&self) -> bool {
        matches!(self.state, State::Idle) && self.wait.is_none() && self.output.is_empty()
    }

    /// More input, while it [needs](Self::needs_input) some.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.needs_input(), "not asked for");
        if matches!(self.state, State::Idle) && !chunk.is_empty() {
            self.input = chunk;
            self.unflushed = true;
            self.state = State::Transforming;
        }
    }

    /// While it needs input: what the transform holds back is to be put out now.
    pub(crate) fn flush_input(&mut self) {
        // A transform that marks a flush in its output must not be asked twice for the same bytes.
        if matches!(self.state, State::Idle) && mem::take(&mut self.unflushed) {
            self.state = State::Flushing;
        }
    }

    /// While it needs input: there is none, it has ended cleanly.
    pub(crate) fn end_input(&mut self) {
        debug_assert!(!matches!(self.state, State::Transforming | State::Flushing), "the input is not used up");
        if matches!(self.state, State::Idle) {
            self.state = State::Finishing;
        }
    }

    /// The input, or what the output goes to, has failed. What was put before is still to be had. Does
    /// nothing after the end or an error.
    pub(crate) fn fail(&mut self, error: TransformError) {
        if !matches!(self.state, State::Ended { .. } | State::Failed(_)) {
            self.state = State::Failed(error);
            self.input = Bytes::new();
            self.wait = None;
            self.transform = None;
        }
    }

    /// What the output goes to has failed: what was put and not yet taken is dropped too. After the end as
    /// well.
    pub(crate) fn abort(&mut self, error: TransformError) {
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Idle;
            self.fail(error);
        }
        self.output.clear();
    }

    /// The error, once every good byte before it was taken.
    ///
    /// # Errors
    ///
    /// That.
    pub(crate) fn check(&self) -> Result<(), TransformError> {
        match &self.state {
            State::Failed(error) if self.output.is_empty() => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// What comes next: a chunk goes into `chunk`, which is empty, so that it is moved as seldom as can be where it passes many
    /// stages.
    ///
    /// # Errors
    ///
    /// What follows the last good byte; it repeats.
    #[inline]
    pub(crate) fn next_into(&mut self, chunk: &mut Bytes) -> Result<Said, TransformError> {
        loop {
            if self.output.take_into(chunk) {
                return Ok(Said::Chunk);
            }
            if let Some(wait) = self.wait.take() {
                return Ok(Said::Wait(wait));
            }
            match &self.state {
                State::Idle => return Ok(Said::NeedInput),
                State::Ended { .. } => return Ok(Said::End),
                State::Failed(error) => return Err(error.clone()),
                State::Transforming | State::Flushing | State::Finishing => self.call(),
            }
        }
    }

    /// Whether the transform has had enough, before its input had ended or then.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, State::Ended { stopped: true })
    }

    /// What it was given and the transform has not taken: what is left after it has stopped.
    pub(crate) fn rest(&self) -> &Bytes {
        &self.input
    }

    /// What the transform leaves behind.
    ///
    /// # Errors
    ///
    /// The stream has failed, or not ended, or its output has not been taken to the end.
    pub(crate) fn into_value(self) -> Result<T::Value, TransformError> {
        match (self.state, self.transform) {
            (State::Failed(error), _) => Err(error),
            (State::Ended { .. }, Some(transform)) if self.output.is_empty() => Ok(transform.into_value()),
            _ => Err(TransformError::NotEnded),
        }
    }

    /// One call of the transform, with an empty output.
    fn call(&mut self) {
        let Some(transform) = &mut self.transform else {
            return;
        };
        let before = self.input.len();
        let said = match self.state {
            State::Transforming => transform.transform(&mut self.input, &mut self.output),
            State::Flushing => transform.flush(&mut self.output),
            _ => transform.finish(&mut self.output),
        };
        let took = before.saturating_sub(self.input.len());
        self.taken += took as u64;
        if self.input.is_empty() {
            // Many transforms advance it to its end: what is left would keep the memory.
            self.input = Bytes::new();
        }
        match said {
            Err(error) => {
                let kind = T::error_kind(&error);
                self.fail(TransformError::Failed { cause: shared(error), kind, taken: self.taken });
            }
            Ok(flow) => match self.broken(flow, took) {
                Some(broken) => self.fail(TransformError::Contract { broken, taken: self.taken }),
                None => self.follow(flow),
            },
        }
    }

    fn broken(&self, flow: Flow, took: usize) -> Option<Contract> {
        let again = matches!(flow, Flow::Full | Flow::Wait(Duration::ZERO));
        if self.output.was_overrun() {
            Some(Contract::Overrun)
        } else if flow == Flow::Continue && !self.input.is_empty() {
            Some(Contract::InputLeft)
        } else if again && took == 0 && self.output.is_empty() {
            Some(Contract::NoProgress)
        } else {
            None
        }
    }

    fn follow(&mut self, flow: Flow) {
        match flow {
            Flow::Full => {}
            Flow::Wait(wait) => self.wait = Some(wait),
            Flow::Continue if matches!(self.state, State::Finishing) => self.state = State::Ended { stopped: false },
            Flow::Continue => self.state = State::Idle,
            Flow::Stop => self.state = State::Ended { stopped: true },
        }
    }
}

impl<T: Transform> fmt::Debug for Stage<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("state", &self.state).field("taken", &self.taken).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use super::*;
    use crate::transform::{Limit, LimitExceeded, PassThrough};

    /// [`Said`], with the chunk.
    #[derive(Debug)]
    enum Step {
        Chunk(Bytes),
        NeedInput,
        Wait(Duration),
        End,
    }

    impl<T: Transform> Stage<T> {
        fn next(&mut self) -> Result<Step, TransformError> {
            let mut chunk = Bytes::new();
            self.next_into(&mut chunk).map(|said| match said {
                Said::Chunk => Step::Chunk(chunk),
                Said::NeedInput => Step::NeedInput,
                Said::Wait(wait) => Step::Wait(wait),
                Said::End => Step::End,
            })
        }
    }

    struct Says<F>(F);

    impl<F: FnMut(&mut Bytes, &mut Output) -> Flow> Transform for Says<F> {
        type Value = ();
        type Error = std::convert::Infallible;

        fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Self::Error> {
            Ok((self.0)(input, output))
        }

        fn into_value(self) {}
    }

    fn stage<F: FnMut(&mut Bytes, &mut Output) -> Flow>(says: F) -> Stage<Says<F>> {
        Stage::new(Says(says), Instant::now)
    }

    #[test]
    fn what_was_put_before_a_wait_comes_before_it_and_the_wait_is_not_forgotten() {
        let mut stage = stage(|input, output| {
            if input.is_empty() {
                return Flow::Continue;
            }
            output.pass(input.split_to(1));
            Flow::Wait(Duration::from_secs(1))
        });
        assert!(matches!(stage.next(), Ok(Step::NeedInput)));
        stage.push(Bytes::from_static(b"ab"));
        for byte in ["a", "b"] {
            assert!(matches!(stage.next(), Ok(Step::Chunk(chunk)) if chunk == byte));
            assert!(matches!(stage.next(), Ok(Step::Wait(wait)) if wait == Duration::from_secs(1)));
        }
        assert!(matches!(stage.next(), Ok(Step::NeedInput)));
        stage.end_input();
        for _ in 0..3 {
            assert!(matches!(stage.next(), Ok(Step::End)));
        }
        assert!(stage.into_value().is_ok());
    }

    #[test]
    fn a_stage_that_is_aborted_gives_nothing_more_and_repeats_why() {
        let mut stage = stage(|input, output| {
            output.pass(mem::take(input));
            Flow::Stop
        });
        stage.push(Bytes::from_static(b"abc"));
        stage.call();
        stage.abort(TransformError::Finished);
        for _ in 0..3 {
            assert!(matches!(stage.next(), Err(TransformError::Finished)));
        }
        assert!(matches!(stage.check(), Err(TransformError::Finished)));
        stage.fail(TransformError::Stopped);
        assert!(matches!(stage.into_value(), Err(TransformError::Finished)), "the first error wins");
    }

    #[test]
    fn an_error_waits_for_the_good_bytes_before_it_and_releases_the_transform_at_once() {
        let held = std::sync::Arc::new(());
        let holds = std::sync::Arc::clone(&held);
        let mut stage = stage(move |input, output| {
            let _ = &holds;
            output.pass(input.split_to(1));
            Flow::Continue
        });
        stage.push(Bytes::from_static(b"ab"));
        assert!(matches!(stage.next(), Ok(Step::Chunk(chunk)) if chunk == "a"));
        assert_eq!(std::sync::Arc::strong_count(&held), 1, "it is held on to");
        for _ in 0..3 {
            let Err(error) = stage.next() else { panic!("no error") };
            assert!(matches!(error, TransformError::Contract { broken: Contract::InputLeft, taken: 1 }));
        }
    }

    /// What a pipeline makes of stages of every kind.
    trait AnyStage: Send {
        fn push(&mut self, chunk: Bytes);
        fn next(&mut self) -> Result<Step, TransformError>;
        fn into_value(self: Box<Self>) -> Result<Box<dyn Any + Send>, TransformError>;
    }

    impl<T: Transform + Send> AnyStage for Stage<T> {
        fn push(&mut self, chunk: Bytes) {
            self.push(chunk);
        }

        fn next(&mut self) -> Result<Step, TransformError> {
            self.next()
        }

        fn into_value(self: Box<Self>) -> Result<Box<dyn Any + Send>, TransformError> {
            (*self).into_value().map(|value| Box::new(value) as _)
        }
    }

    #[test]
    fn stages_of_different_kinds_can_stand_in_one_list() {
        let mut stages: [Box<dyn AnyStage>; 2] =
            [Box::new(Stage::new(PassThrough::new(), Instant::now)), Box::new(Stage::new(Limit::new(1), Instant::now))];
        for stage in &mut stages {
            stage.push(Bytes::from_static(b"ab"));
            assert!(matches!(stage.next(), Ok(Step::Chunk(_))));
        }
        let [pass, limit] = stages;
        assert!(matches!(pass.into_value(), Err(TransformError::NotEnded)));
        let error = limit.into_value().err().and_then(|error| error.find::<LimitExceeded>().copied());
        assert_eq!(error.map(|error| error.limit), Some(1));
    }
}
