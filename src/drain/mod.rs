//! Where chunks go: anything that can be written, one adapter a file.
//! Never buffers, and never ends what it writes to unless it is told to.

mod sink;
mod write;

use std::{
    error::Error,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

pub use self::{sink::SinkDrain, write::WriteDrain};

/// Where chunks go.
///
/// After an error it is not asked again.
pub trait Drain {
    /// Takes from the front of `chunk` at least a byte, where there is one.
    ///
    /// # Errors
    ///
    /// With its own type, so that it can be downcast to. So do the others.
    fn poll_write(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes)
    -> Poll<Result<(), Box<dyn Error + Send + Sync>>>;

    /// What was taken has gone on.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>>;

    /// Ends it cleanly.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>>;

    /// What came so far is not the whole, and no more will come: for this cause. A drain that can tell an abort from an end does so
    /// here; it is not closed then.
    fn abort(&mut self, cause: Arc<dyn Error + Send + Sync>) {
        let _ = cause;
    }

    /// Whether it wants no more, which is a success: the rest is not asked for.
    fn has_enough(&self) -> bool {
        false
    }

    /// Ready when it will take no more, for this reason: asked while there is nothing to write, so that a source which waits is
    /// told.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<Box<dyn Error + Send + Sync>> {
        let _ = cx;
        Poll::Pending
    }
}
