//! Chunks into a closure, one after another. Never calls it again before it is done with the last one.

use std::{
    error::Error,
    fmt, mem,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;

use crate::drain::Drain;

/// Calls an async closure for each chunk; made by [`Pipeline::for_each`](crate::pipeline::Pipeline::for_each).
pub struct EachDrain<F, Fut> {
    each: F,
    /// What the closure is at.
    at: Option<Pin<Box<Fut>>>,
    enough: bool,
}

impl<F, Fut> EachDrain<F, Fut> {
    pub(in crate::pipeline) fn new(each: F) -> Self {
        Self { each, at: None, enough: false }
    }

    /// The closure, with what it has captured.
    pub fn into_inner(self) -> F {
        self.each
    }
}

impl<F, Fut> fmt::Debug for EachDrain<F, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EachDrain").field("enough", &self.enough).finish_non_exhaustive()
    }
}

// The closure's future is boxed; nothing else is ever pinned.
impl<F, Fut> Unpin for EachDrain<F, Fut> {}

impl<F, Fut, E> Drain for EachDrain<F, Fut>
where
    F: FnMut(Bytes) -> Fut,
    Fut: Future<Output = Result<ControlFlow<()>, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
    ) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        ready!(self.poll_flush(cx))?;
        if !self.enough {
            self.at = Some(Box::pin((self.each)(mem::take(chunk))));
            // Begun at once; what it has to wait for is waited for by the next call.
            if let Poll::Ready(done) = self.poll_flush(cx) {
                done?;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        let Some(at) = &mut self.at else { return Poll::Ready(Ok(())) };
        let said = ready!(at.as_mut().poll(cx));
        self.at = None;
        self.enough |= said.map_err(Into::into)?.is_break();
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Box<dyn Error + Send + Sync>>> {
        self.poll_flush(cx)
    }

    fn abort(&mut self, _: std::sync::Arc<dyn Error + Send + Sync>) {
        self.at = None;
    }

    fn has_enough(&self) -> bool {
        self.enough
    }
}
