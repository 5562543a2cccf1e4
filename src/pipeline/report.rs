//! What a pipeline has done, and the values its stages have left behind. Never what they still hold.

use std::{any::Any, fmt, marker::PhantomData, sync::Mutex, time::Duration};

use super::{error::Failure, live::StageReport};

/// Where a stage's value is found in the [`Report`]; made by [`Pipeline::stage`](super::Pipeline::stage).
pub struct Key<T> {
    pub(super) index: usize,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    pub(super) fn new(index: usize) -> Self {
        Self { index, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.index).finish()
    }
}

/// How a pipeline that did not fail has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The source was read to its end, and all of it has arrived.
    Completed,
    /// A stage or the sink had had enough, which is a success: what comes before it was stopped.
    #[non_exhaustive]
    Stopped {
        /// Bytes that the sink got.
        bytes: u64,
    },
}

/// What a pipeline has done.
#[derive(Debug)]
pub struct Report {
    pub(super) outcome: Outcome,
    pub(super) stages: Vec<StageReport>,
    pub(super) suppressed: Vec<Failure>,
    pub(super) elapsed: Duration,
    pub(super) values: Values,
}

/// By stage. In a lock since a value need not be `Sync`, and a report in an error must be.
#[derive(Default)]
pub(super) struct Values(Mutex<Vec<Option<Box<dyn Any + Send>>>>);

impl Values {
    pub(super) fn new(values: Vec<Option<Box<dyn Any + Send>>>) -> Self {
        Self(Mutex::new(values))
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Values").finish_non_exhaustive()
    }
}

impl Report {
    /// How it ended. Of a pipeline that failed it says what came of it until then.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The stages: the source first, the sink last.
    pub fn stages(&self) -> &[StageReport] {
        &self.stages
    }

    /// The value that a stage has left behind; once. `None` where it did not end, and for another pipeline's key.
    pub fn take<T: 'static>(&mut self, key: Key<T>) -> Option<T> {
        let values = self.values.0.get_mut().ok()?;
        let value = values.get_mut(key.index)?;
        if !value.as_ref()?.is::<T>() {
            return None;
        }
        value.take()?.downcast().ok().map(|value| *value)
    }

    /// What went wrong without failing the pipeline, or beside what did.
    pub fn suppressed(&self) -> &[Failure] {
        &self.suppressed
    }

    /// From the first poll to the last.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}
