//! The one error of this example: a sentence that names a path and, in a stream, an offset.

use std::error::Error;
use std::fmt::{self, Display};
use std::io;
use std::iter::successors;
use std::path::Path;

use spillbuffer::SpillError;
use spillbuffer::pipeline::PipelineError;
use spillbuffer::transform::DecompressError;

/// Why the job failed. It travels through pipelines and buffers as itself: see [`Fault::of`].
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

    /// Why a pipeline failed that has its bytes from `source`: each cause has kept its type.
    pub(crate) fn of(error: &PipelineError, source: &Path) -> Self {
        if let Some(fault) = error.find::<Self>() {
            return fault.clone();
        }
        if let Some(error) = error.find::<DecompressError>() {
            return Self::in_compressed(error, source);
        }
        if let Some(error) = error.find::<SpillError>() {
            return Self::in_buffer(error);
        }
        let read = error.report().stages().first().map_or(0, |source| source.bytes_out);
        Self::at(source, "cannot read", read, error.cause())
    }

    fn in_compressed(error: &DecompressError, source: &Path) -> Self {
        let (format, how, offset) = match error {
            DecompressError::Truncated { format, taken, .. } => (format, "cut short", taken),
            DecompressError::Corrupt { format, taken, .. } => (format, "corrupt", taken),
            DecompressError::TrailingGarbage { format, offset, .. } => (format, "corrupt", offset),
            _ => return Self::new(source, "cannot decompress", error),
        };
        Self::at(source, &format!("the {format} is {how}"), *offset, error.source().unwrap_or(error))
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
