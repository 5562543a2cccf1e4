//! What can go wrong, with its cause kept: one enum, cloneable, convertible to [`io::Error`].
//! Never turns a cause into text.

use std::{
    error::Error,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A cause handed in by a user, shared so that an error can be told to both sides and again.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// A cause as it was handed in. One that was shared already is shared on: behind the `Arc`, which is an error too, nobody would
/// find its type.
pub(crate) fn shared(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
    match cause.into().downcast::<Cause>() {
        Ok(shared) => *shared,
        Err(cause) => cause.into(),
    }
}

/// An error of a [`SpillBuffer`](crate::SpillBuffer).
///
/// Every error is terminal for its stream and repeats: the same call made again, and later `flush`,
/// `shutdown` and `finish`, report it again. It is [`Clone`], since both sides may be told.
///
/// # As an `io::Error`
///
/// `From<SpillError> for io::Error` keeps the error inside, so [`SpillError::from_io`] finds it
/// again, and its `source()` chain with every type in it. The kind is:
///
/// | variant | [`io::ErrorKind`] |
/// |---|---|
/// | [`WriterDropped`](Self::WriterDropped) | `UnexpectedEof` |
/// | [`ReaderDropped`](Self::ReaderDropped), [`Finished`](Self::Finished) | `BrokenPipe` |
/// | [`WriterFailed`](Self::WriterFailed) | the kind of its cause, where that is an `io::Error` or a `SpillError`; else `Other` |
/// | [`Cancelled`](Self::Cancelled) | likewise; else `BrokenPipe` |
/// | [`DiskLimit`](Self::DiskLimit) | `QuotaExceeded` for `disk_limit`; else that of its cause: `StorageFull` or `QuotaExceeded` where the disk is full, `FileTooLarge` where the temp file is as large as it may be (`RLIMIT_FSIZE`) |
/// | [`Storage`](Self::Storage) | the kind of its cause |
/// | [`Corrupt`](Self::Corrupt) | `InvalidData` |
/// | [`MemoryBackedDir`](Self::MemoryBackedDir), [`NoDiskBackedDir`](Self::NoDiskBackedDir) | `Unsupported` |
/// | [`Config`](Self::Config) | `InvalidInput` |
///
/// `Interrupted` and `WouldBlock` become `Other`: they ask to try again, and a failure is final.
///
/// # Causes that are shared
///
/// Wherever this crate takes a cause, an `Arc<dyn Error + Send + Sync>` is one too, and is kept as it is: `source()` is what it
/// shares. So the cause that one part was given can be handed to others, each of whom finds its type.
///
/// # Example
///
/// ```
/// use spillbuffer::SpillError;
/// use std::io;
///
/// let error: io::Error = SpillError::WriterDropped.into();
/// assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
/// assert!(matches!(SpillError::from_io(&error), Some(SpillError::WriterDropped)));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SpillError {
    /// The writer was dropped without `finish`, `fail` or `abort`: the stream was cut. The reader
    /// meets this after every byte that was accepted.
    WriterDropped,
    /// The reader was dropped: nobody will read what is written.
    ReaderDropped,
    /// A write came after `finish` (or `shutdown`).
    Finished,
    /// The writer's side failed (`fail`) or aborted (`abort`) with this cause.
    #[non_exhaustive]
    WriterFailed {
        /// What `fail` or `abort` was given; also this error's `source()`.
        cause: Cause,
    },
    /// The reader's side cancelled the stream (`cancel`) with this cause.
    #[non_exhaustive]
    Cancelled {
        /// What `cancel` was given; also this error's `source()`.
        cause: Cause,
    },
    /// Memory and disk are full and the buffer was told to fail rather than wait
    /// ([`OnFull::Fail`](crate::OnFull::Fail)).
    #[non_exhaustive]
    DiskLimit {
        /// The `disk_limit` that is used up, in bytes; where there is a `source` the one in force, `None` where none was set.
        limit: Option<u64>,
        /// Whether that is the pool's, for all of its buffers together.
        pool_limit: bool,
        /// The `memory_limit` that is used up, in bytes.
        memory_limit: usize,
        /// Whether that is the pool's, likewise.
        pool_memory_limit: bool,
        /// The stream's offset at which a byte could not be taken.
        offset: u64,
        /// Why there was no room on disk, where the limit was not reached.
        source: Option<Arc<io::Error>>,
    },
    /// The temp file could not be made, written or read, or an I/O thread could not be started.
    #[non_exhaustive]
    Storage {
        /// What was tried.
        op: StorageOp,
        /// The directory of the (nameless) temp file.
        path: PathBuf,
        /// The stream's offset, in bytes, of the data concerned.
        offset: u64,
        /// What the system said; also this error's `source()`.
        source: Arc<io::Error>,
    },
    /// What was read back from the temp file is not what was written there; or what was encrypted for it and read before it got there
    /// does not open any more, for the memory is bad.
    #[non_exhaustive]
    Corrupt {
        /// The stream's offset, in bytes, of the first byte that cannot be trusted.
        offset: u64,
        /// The directory of the (nameless) temp file.
        path: PathBuf,
        /// Which check failed.
        reason: &'static str,
    },
    /// The directory given lies in memory, so that spilling to it would save none
    /// (see [`Builder::allow_memory_backed_dir`](crate::Builder::allow_memory_backed_dir)).
    #[non_exhaustive]
    MemoryBackedDir {
        /// The directory.
        path: PathBuf,
        /// The file system's name, such as `tmpfs`.
        file_system: &'static str,
    },
    /// No directory was given, and none of the usual ones lies on a disk.
    #[non_exhaustive]
    NoDiskBackedDir {
        /// Each directory that was tried, with what spoke against it.
        tried: Arc<[(PathBuf, String)]>,
    },
    /// An option has a value that cannot be used.
    #[non_exhaustive]
    Config {
        /// The option's name, such as `memory_limit`.
        option: &'static str,
        /// Its value and what is wrong with it.
        problem: String,
    },
}

/// What was tried on the temp file when a [`SpillError::Storage`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageOp {
    /// Making the temp file.
    Create,
    /// Writing to it.
    Write,
    /// Reading from it.
    Read,
    /// Starting the thread that does the I/O.
    StartThread,
}

impl SpillError {
    /// The [`SpillError`] inside an [`io::Error`], however often that was wrapped in further
    /// `io::Error`s on its way.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        inside(error)
    }

    /// The [`io::ErrorKind`] this becomes as an [`io::Error`]; the table is on the type.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::WriterDropped => io::ErrorKind::UnexpectedEof,
            Self::ReaderDropped | Self::Finished => io::ErrorKind::BrokenPipe,
            Self::WriterFailed { cause } => kind_of(&**cause).unwrap_or(io::ErrorKind::Other),
            Self::Cancelled { cause } => kind_of(&**cause).unwrap_or(io::ErrorKind::BrokenPipe),
            Self::DiskLimit { source: Some(source), .. } | Self::Storage { source, .. } => terminal(source.kind()),
            Self::DiskLimit { source: None, .. } => io::ErrorKind::QuotaExceeded,
            Self::Corrupt { .. } => io::ErrorKind::InvalidData,
            Self::MemoryBackedDir { .. } | Self::NoDiskBackedDir { .. } => io::ErrorKind::Unsupported,
            Self::Config { .. } => io::ErrorKind::InvalidInput,
        }
    }

    /// The system's error number (`errno`), where a system call is behind this error: also that of
    /// an `io::Error` which was handed to `fail`, `abort` or `cancel`.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::DiskLimit { source: Some(source), .. } | Self::Storage { source, .. } => raw_of(&**source),
            Self::WriterFailed { cause } | Self::Cancelled { cause } => raw_of(&**cause),
            _ => None,
        }
    }

    pub(crate) fn writer_failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::WriterFailed { cause: shared(cause) }
    }

    pub(crate) fn cancelled(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Cancelled { cause: shared(cause) }
    }

    pub(crate) fn storage(op: StorageOp, path: &Path, offset: u64, source: io::Error) -> Self {
        Self::Storage { op, path: path.to_path_buf(), offset, source: Arc::new(source) }
    }
}

/// What is inside an [`io::Error`], however often that was wrapped in further ones.
pub(crate) fn inside<E: Error + 'static>(error: &io::Error) -> Option<&E> {
    let mut inner = error.get_ref()?;
    // Bounded: each turn goes one allocation deeper into a finite error.
    loop {
        if let Some(found) = inner.downcast_ref::<E>() {
            return Some(found);
        }
        inner = inner.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

/// The first error of this type from `error` on, also inside `io::Error`s on the way.
pub(crate) fn find<'a, E: Error + 'static>(error: Option<&'a (dyn Error + 'static)>) -> Option<&'a E> {
    let mut next = error;
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        if let Some(shared) = error.downcast_ref::<Cause>() {
            next = Some(&**shared);
            continue;
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            // An `io::Error` shows its inner error's source, and not that itself.
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The kind of what has one.
pub(crate) fn kind_of(cause: &(dyn Error + Send + Sync + 'static)) -> Option<io::ErrorKind> {
    cause
        .downcast_ref::<io::Error>()
        .map(|error| terminal(error.kind()))
        .or_else(|| cause.downcast_ref::<SpillError>().map(SpillError::kind))
}

/// A failure that repeats is not to be tried again, as readers and writers everywhere do on these kinds, for ever.
pub(crate) fn terminal(kind: io::ErrorKind) -> io::ErrorKind {
    match kind {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => io::ErrorKind::Other,
        kind => kind,
    }
}

fn raw_of(cause: &(dyn Error + Send + Sync + 'static)) -> Option<i32> {
    if let Some(spill) = cause.downcast_ref::<SpillError>() {
        return spill.raw_os_error();
    }
    let error = cause.downcast_ref::<io::Error>()?;
    error.raw_os_error().or_else(|| SpillError::from_io(error)?.raw_os_error())
}

impl fmt::Display for SpillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriterDropped => f.write_str("the writer was dropped before it finished the stream"),
            Self::ReaderDropped => f.write_str("the reader was dropped"),
            Self::Finished => f.write_str("written to after the stream was finished"),
            // The cause is told by `source()`; a reporter that walks the chain must not print it twice.
            Self::WriterFailed { .. } => f.write_str("the writer failed"),
            Self::Cancelled { .. } => f.write_str("the reader cancelled the stream"),
            Self::DiskLimit { limit, pool_limit, memory_limit, pool_memory_limit, offset, source } => {
                let whose = |pool: &bool| if *pool { "the pool's " } else { "" };
                let (whose_memory, whose_disk) = (whose(pool_memory_limit), whose(pool_limit));
                write!(
                    f,
                    "no room at offset {offset}: {whose_memory}memory_limit of {memory_limit} bytes is used up and "
                )?;
                match (source, limit) {
                    (Some(source), _) if source.kind() == io::ErrorKind::FileTooLarge => {
                        f.write_str("the temp file cannot grow")
                    }
                    (Some(_), _) => f.write_str("the disk is full"),
                    (None, Some(0)) => write!(f, "{whose_disk}disk_limit is 0"),
                    (None, Some(limit)) => write!(f, "so is {whose_disk}disk_limit of {limit} bytes"),
                    (None, None) => f.write_str("so is the disk space that may be used"),
                }
            }
            Self::Storage { op, path, offset, .. } => {
                write!(f, "could not {op} in {} (stream offset {offset})", path.display())
            }
            Self::Corrupt { offset, path, reason } => write!(
                f,
                "the temp file in {} does not give back what was written at stream offset {offset}: {reason}",
                path.display()
            ),
            Self::MemoryBackedDir { path, file_system } => write!(
                f,
                "the temp directory {} is memory-backed ({file_system}): spilling to it would save no memory \
                 (allow_memory_backed_dir permits it)",
                path.display()
            ),
            Self::NoDiskBackedDir { tried } => {
                f.write_str("no disk-backed temp directory")?;
                for (i, (path, problem)) in tried.iter().enumerate() {
                    let sep = if i == 0 { ": " } else { ", " };
                    write!(f, "{sep}{} is {problem}", path.display())?;
                }
                f.write_str(" (temp_dir names another)")
            }
            Self::Config { option, problem } => write!(f, "{option} {problem}"),
        }
    }
}

impl fmt::Display for StorageOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create the temp file",
            Self::Write => "write to the temp file",
            Self::Read => "read from the temp file",
            Self::StartThread => "start an I/O thread for the temp file",
        })
    }
}

impl Error for SpillError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Written by hand: a derived source over an `Arc` would hide the inner type from `downcast_ref`.
        match self {
            Self::WriterFailed { cause } | Self::Cancelled { cause } => Some(&**cause),
            Self::DiskLimit { source: Some(source), .. } | Self::Storage { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl From<SpillError> for io::Error {
    fn from(error: SpillError) -> Self {
        Self::new(error.kind(), error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Deep(io::Error);
    impl fmt::Display for Deep {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("deep")
        }
    }
    impl Error for Deep {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn c07_a_cause_keeps_its_type_and_chain_through_clone_and_io_error() {
        let error = SpillError::writer_failed(Deep(io::Error::from_raw_os_error(104)));
        let io: io::Error = error.clone().into();
        assert_eq!(io.kind(), io::ErrorKind::Other);
        let found = SpillError::from_io(&io).expect("the SpillError is inside");
        let deep = found.source().expect("cause").downcast_ref::<Deep>().expect("its own type");
        assert_eq!(deep.source().unwrap().downcast_ref::<io::Error>().unwrap().raw_os_error(), Some(104));
    }

    /// What a drain was aborted with and told its own streams was an `Arc` to them, and no longer the error that it shares.
    #[test]
    fn c07_a_shared_cause_is_handed_on_as_it_is() {
        let cause: Cause = Arc::new(Deep(io::Error::from_raw_os_error(104)));
        for error in [SpillError::writer_failed(Arc::clone(&cause)), SpillError::cancelled(Arc::clone(&cause))] {
            let source = error.source().unwrap().downcast_ref::<Deep>().unwrap();
            assert!(std::ptr::addr_eq(source, Arc::as_ptr(&cause)));
        }
        assert_eq!(SpillError::writer_failed(shared(io::Error::from_raw_os_error(104))).raw_os_error(), Some(104));
        let outer = io::Error::other(io::Error::other(cause));
        assert!(find::<Deep>(Some(&outer)).is_some());
    }

    /// `read_to_end` and its like try again on `Interrupted`; with an error that repeats they did so for ever.
    #[test]
    fn c07_a_failure_never_asks_to_be_tried_again() {
        for kind in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
            let error = SpillError::writer_failed(io::Error::from(kind));
            assert_eq!(io::Error::from(error.clone()).kind(), io::ErrorKind::Other);
            assert_eq!(error.source().unwrap().downcast_ref::<io::Error>().unwrap().kind(), kind);
        }
    }

    #[test]
    fn c07_an_io_error_keeps_kind_and_errno() {
        let error = SpillError::writer_failed(io::Error::from_raw_os_error(104));
        assert_eq!(error.raw_os_error(), Some(104));
        let io = io::Error::from(error);
        assert_eq!(io.kind(), io::ErrorKind::ConnectionReset);
        // and through one more wrapping, as a codec would do it
        let outer = io::Error::new(io.kind(), io);
        assert_eq!(SpillError::from_io(&outer).unwrap().raw_os_error(), Some(104));
    }
}
