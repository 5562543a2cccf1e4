//! A tee: what passes goes to a buffer as well, whose other end is a pipeline of its own.
//! Never fails the pipeline it is in.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{
    ends::spill_error,
    error::{Cause, Interrupted},
};
use crate::{chunk::take_off, writer::SpillWriter};

#[derive(Debug)]
pub(super) struct Branch {
    /// None once it has ended or was lost.
    writer: Option<SpillWriter>,
    /// The chunk that passes, and what of it the buffer has not taken yet.
    chunk: Bytes,
    rest: Bytes,
    lost: Option<Box<dyn Error + Send + Sync>>,
}

impl Branch {
    pub(super) fn new(writer: SpillWriter) -> Self {
        Self { writer: Some(writer), chunk: Bytes::new(), rest: Bytes::new(), lost: None }
    }

    /// A chunk that is to pass.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.rest = if self.writer.is_some() { chunk.clone() } else { Bytes::new() };
        self.chunk = chunk;
    }

    /// The chunk, once the buffer has it too; `None` where there is none.
    pub(super) fn poll_pass(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        while !self.rest.is_empty() {
            let Some(writer) = &mut self.writer else { break };
            match ready!(Pin::new(writer).poll_write(cx, &self.rest)) {
                Ok(n) => take_off(&mut self.rest, n),
                Err(error) => self.lose(spill_error(error)),
            }
        }
        let chunk = std::mem::take(&mut self.chunk);
        Poll::Ready(Some(chunk).filter(|chunk| !chunk.is_empty()))
    }

    pub(super) fn finish(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.finish()
        {
            self.lose(error.into());
        }
    }

    /// The pipeline has ended. Where that was before the end came by here, somebody behind has had enough: what passed is a part.
    pub(super) fn end(&mut self) {
        if self.writer.is_some() {
            self.fail(&(Arc::new(Interrupted::Stopped) as Cause));
        }
    }

    /// The pipeline has failed: the branch gets what passed, then the cause.
    pub(super) fn fail(&mut self, cause: &Cause) {
        if let Some(writer) = self.writer.take() {
            writer.fail(Cause::clone(cause));
        }
    }

    /// Why the branch has gone, if it did before its end.
    pub(super) fn lost(&mut self) -> Option<Box<dyn Error + Send + Sync>> {
        self.lost.take()
    }

    fn lose(&mut self, cause: Box<dyn Error + Send + Sync>) {
        self.writer = None;
        self.rest = Bytes::new();
        self.lost.get_or_insert(cause);
    }
}
