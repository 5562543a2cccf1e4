//! What can be wrong with a compressed stream. Never told as an end.

use std::{error::Error, fmt, io, sync::Arc};

use super::Format;

/// A stream cannot be decompressed, or is not to be.
///
/// What came out before is a beginning of the contents where the stream was cut; where it was damaged it may be wrong, for the checksum of
/// gzip and zstd comes behind all that it is for, and that of bzip2 and xz behind a block. That every byte was right is said by a clean end
/// alone.
///
/// As an [`io::Error`] a cut stream is `UnexpectedEof`, one beyond `max_total` or `max_ratio` is
/// `FileTooLarge`, and all else is `InvalidData`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DecompressError {
    /// The stream was cut: its format says that there is more.
    #[non_exhaustive]
    Truncated {
        /// What it is.
        format: Format,
        /// Its length, in compressed bytes.
        taken: u64,
        /// How many bytes came out of that.
        made: u64,
    },
    /// The stream begins otherwise than its format does.
    #[non_exhaustive]
    WrongFormat {
        /// What was expected.
        expected: Format,
    },
    /// What it says does not hold: a checksum, a length, a code.
    #[non_exhaustive]
    Corrupt {
        /// What it is.
        format: Format,
        /// How many compressed bytes had been read.
        taken: u64,
        /// What the codec said; also this error's `source()`.
        cause: Arc<io::Error>,
    },
    /// Something follows that is not another member of the same format.
    #[non_exhaustive]
    TrailingGarbage {
        /// What it is.
        format: Format,
        /// Where it begins, in compressed bytes.
        offset: u64,
    },
    /// More comes out than `max_total` allows.
    #[non_exhaustive]
    TooLong {
        /// `max_total`, in bytes.
        limit: u64,
        /// How many compressed bytes had been read.
        taken: u64,
    },
    /// More comes out for each byte that goes in than `max_ratio` allows.
    #[non_exhaustive]
    TooDense {
        /// `max_ratio`.
        ratio: u32,
        /// How many compressed bytes had been read.
        taken: u64,
        /// How many bytes had come out of them.
        made: u64,
    },
}

impl DecompressError {
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Self::TooLong { .. } | Self::TooDense { .. } => io::ErrorKind::FileTooLarge,
            Self::WrongFormat { .. } | Self::Corrupt { .. } | Self::TrailingGarbage { .. } => {
                io::ErrorKind::InvalidData
            }
        }
    }
}

impl fmt::Display for DecompressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { format, taken, made } => {
                write!(f, "the {format} stream was cut after {taken} compressed bytes, {made} bytes decompressed")
            }
            Self::WrongFormat { expected } => write!(f, "the stream does not begin as {expected} does"),
            Self::Corrupt { format, taken, .. } => {
                write!(f, "the {format} stream is corrupt, within its first {taken} compressed bytes")
            }
            Self::TrailingGarbage { format, offset } => {
                write!(f, "what follows the {format} stream at compressed offset {offset} is none of it")
            }
            Self::TooLong { limit, taken } => write!(
                f,
                "the first {taken} compressed bytes make more than the limit of {limit} bytes that max_total sets"
            ),
            Self::TooDense { ratio, taken, made } => write!(
                f,
                "{taken} compressed bytes make {made} bytes or more, beyond the ratio of {ratio} that max_ratio sets"
            ),
        }
    }
}

impl Error for DecompressError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Corrupt { cause, .. } => Some(&**cause),
            _ => None,
        }
    }
}
