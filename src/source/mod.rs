//! Where chunks come from: anything that can be read, one adapter a file.
//! Never reads ahead of who asks.

mod buf_read;
mod read;
mod stream;

use std::{
    error::Error,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;

pub use self::{buf_read::BufReadSource, read::ReadSource, stream::StreamSource};

/// Where chunks come from.
///
/// After an error or the end it is not asked again.
pub trait Source {
    /// The next chunk; `None` at a clean end. An empty chunk says nothing.
    ///
    /// # Errors
    ///
    /// With its own type, so that it can be downcast to.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>>;

    /// What its chunks went to has failed with this cause: no more are wanted. A source that can tell the other side does so
    /// here; it is dropped next.
    fn cancel(&mut self, cause: Arc<dyn Error + Send + Sync>) {
        let _ = cause;
    }
}
