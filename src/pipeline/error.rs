//! Why a pipeline failed: which stage, with which cause, and what else went wrong.
//! Never turns a cause into text.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use super::report::Report;
use crate::{
    error::{SpillError, find, inside, shared, terminal},
    transform::{TransformError, kind_of},
};

pub(super) type Cause = Arc<dyn Error + Send + Sync>;

/// A stage and what befell it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// The stage's name.
    pub stage: String,
    /// Its place: the source is 0, then the stages in order, the sink is the last.
    pub index: usize,
    /// Its own error.
    pub cause: Arc<dyn Error + Send + Sync>,
}

/// Why a pipeline failed.
///
/// `source()` is the cause itself, so that `downcast_ref` finds its type; [`find`](Self::find) also looks inside what wraps it.
/// Where several stages failed, the first real cause counts: one that merely follows from another's end (a broken pipe, a
/// stream cut short) yields to what is behind it, even if it was seen first.
///
/// As an [`io::Error`] it has the kind of its cause, and is found again by [`PipelineError::from_io`].
#[derive(Debug, Clone)]
pub struct PipelineError {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None where the pipeline as a whole was cancelled or ran out of time.
    failed: Option<(String, usize)>,
    cause: Cause,
    report: Report,
}

impl PipelineError {
    pub(super) fn new(failed: Option<(String, usize)>, cause: Cause, report: Report) -> Self {
        Self { inner: Arc::new(Inner { failed, cause, report }) }
    }

    /// The name of the stage that failed; `None` where the pipeline was cancelled or ran out of time.
    pub fn stage(&self) -> Option<&str> {
        self.inner.failed.as_ref().map(|(name, _)| &**name)
    }

    /// Its place: the source is 0, then the stages in order, the sink is the last.
    pub fn index(&self) -> Option<usize> {
        self.inner.failed.as_ref().map(|(_, index)| *index)
    }

    /// What the stage said, or what the pipeline was cancelled with.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.inner.cause
    }

    /// The first error of this type: the cause, or one behind it, also inside `io::Error`s on the way.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        find(Some(&*self.inner.cause))
    }

    /// What else went wrong.
    pub fn suppressed(&self) -> &[Failure] {
        self.inner.report.suppressed()
    }

    /// What each stage had done by then.
    pub fn report(&self) -> &Report {
        &self.inner.report
    }

    /// The [`io::ErrorKind`] this becomes as an [`io::Error`]: the cause's, where it has one.
    pub fn kind(&self) -> io::ErrorKind {
        let cause = self.cause();
        let own = cause.downcast_ref::<Interrupted>().map(Interrupted::kind);
        terminal(own.or_else(|| kind_of(cause)).unwrap_or(io::ErrorKind::Other))
    }

    /// The [`PipelineError`] inside an [`io::Error`], however often that was wrapped in further `io::Error`s on its way.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        inside(error)
    }
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The cause is told by `source()`; a reporter that walks the chain must not print it twice.
        match &self.inner.failed {
            Some((name, index)) => write!(f, "stage {index} of the pipeline ({name}) failed")?,
            None => f.write_str("the pipeline was stopped")?,
        }
        match self.suppressed().len() {
            0 => Ok(()),
            1 => f.write_str(", and another error was suppressed"),
            n => write!(f, ", and {n} other errors were suppressed"),
        }
    }
}

impl Error for PipelineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.inner.cause)
    }
}

impl From<PipelineError> for io::Error {
    fn from(error: PipelineError) -> Self {
        Self::new(error.kind(), error)
    }
}

/// A cause that the pipeline itself makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interrupted {
    /// It was dropped before it had ended.
    Dropped,
    /// A stage panicked.
    Panicked,
    /// Of a branch: the pipeline that it branches off had had enough before its end, so that what has passed is a part.
    Stopped,
    /// It was not done in time.
    #[non_exhaustive]
    Deadline {
        /// The time it had.
        limit: Duration,
    },
    /// Nothing moved for so long.
    #[non_exhaustive]
    Idle {
        /// The longest allowed.
        limit: Duration,
    },
    /// The sink's end, or what was held, took too long to go.
    #[non_exhaustive]
    CloseTimeout {
        /// The longest allowed.
        limit: Duration,
    },
    /// The sink took nothing of a chunk and said that it had.
    NoProgress,
}

impl Interrupted {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Deadline { .. } | Self::Idle { .. } | Self::CloseTimeout { .. } => io::ErrorKind::TimedOut,
            Self::Dropped | Self::Stopped => io::ErrorKind::ConnectionAborted,
            Self::NoProgress => io::ErrorKind::WriteZero,
            Self::Panicked => io::ErrorKind::Other,
        }
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dropped => f.write_str("the pipeline was dropped before it had ended"),
            Self::Panicked => f.write_str("a stage of the pipeline panicked"),
            Self::Stopped => f.write_str("the pipeline that this branches off had enough before its end"),
            Self::Deadline { limit } => write!(f, "the pipeline was not done within {limit:?}"),
            Self::Idle { limit } => write!(f, "nothing moved in the pipeline for {limit:?}"),
            Self::CloseTimeout { limit } => write!(f, "the end was not done within {limit:?}"),
            Self::NoProgress => f.write_str("the sink took nothing of a chunk"),
        }
    }
}

impl Error for Interrupted {}

/// A stage's failure, inside a pipeline.
#[derive(Debug)]
pub(super) struct Fault {
    /// None for the pipeline as a whole.
    pub(super) index: Option<usize>,
    pub(super) cause: Cause,
}

impl Fault {
    pub(super) fn of(index: usize, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { index: Some(index), cause: shared(cause) }
    }

    /// Whether it only says that somebody else has gone.
    pub(super) fn is_consequence(&self) -> bool {
        self.index.is_some() && follows(&*self.cause)
    }
}

fn follows(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<SpillError>() {
        return matches!(error, SpillError::WriterDropped | SpillError::ReaderDropped | SpillError::Finished);
    }
    if let Some(error) = error.downcast_ref::<TransformError>() {
        return match error {
            TransformError::Source { cause } | TransformError::Sink { cause } => follows(&**cause),
            TransformError::Stopped | TransformError::Finished => true,
            _ => false,
        };
    }
    let Some(error) = error.downcast_ref::<io::Error>() else { return false };
    match error.get_ref() {
        Some(inner) if inner.is::<SpillError>() || inner.is::<TransformError>() || inner.is::<io::Error>() => {
            follows(inner)
        }
        _ => matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_follows_from_anothers_end_is_told_from_a_cause() {
        let follows = |cause: Box<dyn Error + Send + Sync>| Fault::of(1, cause).is_consequence();
        assert!(follows(io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert!(follows(io::Error::from(SpillError::WriterDropped).into()));
        assert!(follows(SpillError::ReaderDropped.into()));
        assert!(!follows(SpillError::writer_failed("disk").into()));
        assert!(!follows(io::Error::from(SpillError::writer_failed("disk")).into()));
        assert!(!follows(io::Error::from(io::ErrorKind::ConnectionReset).into()));
        assert!(!follows("broken pipe".into()));
    }
}
