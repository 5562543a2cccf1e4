//! The one error of this example: a sentence that names a path and, in a stream, an offset.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;
use std::iter::successors;
use std::path::Path;

use spillbuffer::SpillError;

use crate::source::Source;

/// Why the job failed. It travels through the buffer as itself: see [`Fault::carried_by`].
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    sentence: String,
}

impl Fault {
    /// `path: what: cause`
    pub(crate) fn new(path: &Path, what: &str, cause: impl Display) -> Self {
        let path = path.display();
        Self { sentence: format!("{path}: {what}: {cause}") }
    }

    /// `path: what at byte offset: cause`
    pub(crate) fn at(path: &Path, what: &str, offset: u64, cause: impl Display) -> Self {
        Self::new(path, &format!("{what} at byte {offset}"), cause)
    }

    /// The buffer itself is in trouble, such as a disk that is full.
    pub(crate) fn in_buffer(error: &SpillError) -> Self {
        let chain = successors(Some(error as &dyn Error), |error| (*error).source());
        let causes: Vec<_> = chain.map(ToString::to_string).collect();
        Self { sentence: format!("the buffer: {}", causes.join(": ")) }
    }

    /// The queue did not take what `source` gave.
    pub(crate) fn writing(source: &Source, error: &io::Error) -> Self {
        Self::carried_by(error).unwrap_or_else(|| Self::new(source.name(), "its tar was not taken", error))
    }

    /// The fault behind an error of the queue, if it is one: how the consumer tells that the
    /// producer failed, or the buffer did, from what is wrong with the bytes.
    pub(crate) fn carried_by(error: &io::Error) -> Option<Self> {
        let mut link: Option<&(dyn Error + 'static)> = error.get_ref().map(|e| e as _);
        while let Some(error) = link {
            if let Some(fault) = error.downcast_ref::<Self>() {
                return Some(fault.clone());
            }
            link = error.source();
        }
        SpillError::from_io(error).map(Self::in_buffer)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names, of files and inside of what was no tar, may hold anything: keep it to one line.
        self.sentence.chars().try_for_each(|c| match c {
            c if c.is_control() => write!(f, "{}", c.escape_default()),
            c => write!(f, "{c}"),
        })
    }
}

impl Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        io::Error::other(fault)
    }
}
