//! What can go wrong between a source and where its bytes go. Never turns a cause into text.

use std::{error::Error, fmt, io, sync::Arc};

use crate::error::{find, inside, kind_of as kind_of_cause, shared, terminal};

type Cause = Arc<dyn Error + Send + Sync>;

/// An error of a [`TransformReader`](super::TransformReader) or [`TransformWriter`](super::TransformWriter).
///
/// Every error is terminal and repeats. It says which part failed; the cause behind it keeps its type
/// ([`find`](Self::find), or `source()`).
///
/// # As an `io::Error`
///
/// `From<TransformError> for io::Error` keeps the error inside ([`TransformError::from_io`]). The kind is:
///
/// | variant | [`io::ErrorKind`] |
/// |---|---|
/// | [`Failed`](Self::Failed) | [`Transform::error_kind`](super::Transform::error_kind) |
/// | [`Source`](Self::Source), [`Sink`](Self::Sink) | the kind of the cause, where it has one; else `Other` |
/// | [`Stopped`](Self::Stopped), [`Finished`](Self::Finished) | `BrokenPipe` |
/// | the others | `Other` |
///
/// `Interrupted` and `WouldBlock` become `Other`: they ask to try again, and a failure is final.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Limit, LimitExceeded, TransformError, TransformReader};
/// use tokio::io::AsyncReadExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut bytes = Vec::new();
/// let error = TransformReader::new(&b"abc"[..], Limit::new(2)).read_to_end(&mut bytes).await.unwrap_err();
/// let error = TransformError::from_io(&error).unwrap();
/// assert_eq!(error.find::<LimitExceeded>().unwrap().limit, 2);
/// assert_eq!(bytes, b"ab");
/// # });
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum TransformError {
    /// The transform failed.
    #[non_exhaustive]
    Failed {
        /// Its own error; also this error's `source()`.
        cause: Cause,
        /// What it is as an [`io::Error`].
        kind: io::ErrorKind,
        /// How many bytes of the input the transform had taken.
        taken: u64,
    },
    /// What the bytes come from failed.
    #[non_exhaustive]
    Source {
        /// Its own error; also this error's `source()`.
        cause: Cause,
    },
    /// What the bytes go to failed.
    #[non_exhaustive]
    Sink {
        /// Its own error; also this error's `source()`.
        cause: Cause,
    },
    /// The transform broke a rule of [`Transform`](super::Transform).
    #[non_exhaustive]
    Contract {
        /// Which.
        broken: Contract,
        /// How many bytes of the input the transform had taken.
        taken: u64,
    },
    /// A write came after the transform had had enough ([`Flow::Stop`](super::Flow::Stop)).
    Stopped,
    /// A write came after `shutdown`.
    Finished,
    /// An item was sent to a [`TransformSink`](super::TransformSink) that had not said it was ready. It was
    /// not taken; this one error is not final.
    NotReady,
    /// The value was asked for before the stream had ended.
    NotEnded,
    /// The transform asks to wait ([`Flow::Wait`](super::Flow::Wait)), and there is no tokio runtime with
    /// its time enabled to do so in.
    NoRuntime,
}

/// A rule of [`Transform`](super::Transform) that one broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Contract {
    /// It said [`Flow::Continue`](super::Flow::Continue) and left some of its input.
    InputLeft,
    /// It asked to be called again, and had neither taken nor put a byte.
    NoProgress,
    /// It said to have written more than [`Output::spare`](super::Output::spare) had lent.
    Overrun,
}

impl TransformError {
    /// The [`TransformError`] inside an [`io::Error`], however often that was wrapped in further
    /// `io::Error`s on its way. Of two of them, one behind the other, the outer.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        inside(error)
    }

    /// The first cause of this type behind this error, also inside `io::Error`s on the way.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        find(self.source())
    }

    /// The [`io::ErrorKind`] this becomes as an [`io::Error`]; the table is on the type.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Failed { kind, .. } => terminal(*kind),
            Self::Source { cause } | Self::Sink { cause } => kind_of(&**cause).unwrap_or(io::ErrorKind::Other),
            Self::Stopped | Self::Finished => io::ErrorKind::BrokenPipe,
            Self::Contract { .. } | Self::NotReady | Self::NotEnded | Self::NoRuntime => io::ErrorKind::Other,
        }
    }

    pub(crate) fn source_failed(cause: Box<dyn Error + Send + Sync>) -> Self {
        Self::Source { cause: shared(cause) }
    }

    pub(crate) fn sink_failed(cause: Box<dyn Error + Send + Sync>) -> Self {
        Self::Sink { cause: shared(cause) }
    }
}

/// The kind of what has one.
pub(crate) fn kind_of(cause: &(dyn Error + Send + Sync + 'static)) -> Option<io::ErrorKind> {
    cause.downcast_ref().map(TransformError::kind).or_else(|| kind_of_cause(cause))
}

impl fmt::Display for TransformError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The cause is told by `source()`; a reporter that walks the chain must not print it twice.
            Self::Failed { taken, .. } => write!(f, "the transform failed after {taken} bytes of input"),
            Self::Source { .. } => f.write_str("the transform's source failed"),
            Self::Sink { .. } => f.write_str("the transform's sink failed"),
            Self::Contract { broken, taken } => {
                write!(f, "the transform broke a rule after {taken} bytes of input: it {broken}")
            }
            Self::Stopped => f.write_str("written to after the transform had had enough"),
            Self::Finished => f.write_str("written to after the shutdown"),
            Self::NotReady => f.write_str("sent to before it was ready"),
            Self::NotEnded => f.write_str("the transform's value was asked for before the stream had ended"),
            Self::NoRuntime => {
                f.write_str("the transform asks to wait, and there is no tokio runtime with its time enabled")
            }
        }
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InputLeft => "said Continue and left some of its input",
            Self::NoProgress => "asked to be called again and had neither taken nor put a byte",
            Self::Overrun => "said to have written more than it was lent room for",
        })
    }
}

impl Error for TransformError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Written by hand: a derived source over an `Arc` would hide the inner type from `downcast_ref`.
        match self {
            Self::Failed { cause, .. } | Self::Source { cause } | Self::Sink { cause } => Some(&**cause),
            _ => None,
        }
    }
}

impl From<TransformError> for io::Error {
    fn from(error: TransformError) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SpillError;

    #[test]
    fn a_cause_is_found_behind_io_errors_and_keeps_its_kind() {
        let reset = io::Error::from_raw_os_error(104);
        let spill = io::Error::from(SpillError::writer_failed(reset));
        let inner = io::Error::from(TransformError::source_failed(spill.into()));
        let outer = TransformError::sink_failed(inner.into());
        assert_eq!(outer.kind(), io::ErrorKind::ConnectionReset);
        assert!(matches!(outer.find::<TransformError>(), Some(TransformError::Source { .. })));
        assert_eq!(outer.find::<SpillError>().unwrap().raw_os_error(), Some(104));
        assert!(outer.find::<fmt::Error>().is_none());
        let io = io::Error::from(outer.clone());
        assert!(matches!(TransformError::from_io(&io), Some(TransformError::Sink { .. })));
    }

    #[test]
    fn a_failure_never_asks_to_be_tried_again() {
        let error = TransformError::source_failed(io::Error::from(io::ErrorKind::Interrupted).into());
        assert_eq!(error.kind(), io::ErrorKind::Other);
    }
}
