//! A handle to a buffer that is held beside its halves. Never keeps a stream from ending.

use std::{
    error::Error,
    sync::Arc,
    task::{Context, Poll},
};

use crate::{error::SpillError, shell::Shared, stats::SpillStats};

/// Watches a buffer and can end it, from anywhere: made by either half, it outlives the moves of both.
///
/// # Example
///
/// ```
/// # use spillbuffer::{SpillBuffer, SpillError};
/// # use tokio::io::AsyncWriteExt;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (mut writer, reader) = SpillBuffer::new().into_split();
/// let control = reader.control();
/// control.cancel("the build was cancelled");
///
/// let error = writer.write_all(b"more").await.unwrap_err();
/// assert!(matches!(SpillError::from_io(&error), Some(SpillError::Cancelled { .. })));
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl Control {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What tells the stream from all others in the trailers of its slots.
    #[cfg(test)]
    pub(crate) fn stream_id(&self) -> u64 {
        self.shared.stream_id()
    }

    /// What the buffer holds and has done.
    pub fn stats(&self) -> SpillStats {
        self.shared.stats()
    }

    /// As [`SpillWriter::fail`](crate::SpillWriter::fail).
    pub fn fail(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shared.fail(SpillError::writer_failed(cause));
    }

    /// As [`SpillWriter::abort`](crate::SpillWriter::abort).
    pub fn abort(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shared.abort(SpillError::writer_failed(cause));
    }

    /// Ready when the reader has ended and nothing of the buffer is on disk or on its way there any more.
    pub(crate) fn poll_released(&self, cx: &Context<'_>) -> Poll<()> {
        self.shared.poll_released(cx)
    }

    /// As [`SpillReader::cancel`](crate::SpillReader::cancel).
    pub fn cancel(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.shared.end_reader(SpillError::cancelled(cause));
    }
}
