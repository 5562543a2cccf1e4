//! The time of the shells: tokio's, so that a test may pause it. Never starts a runtime.

use std::{
    panic::catch_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, time::Sleep};

use super::TransformError;

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A wait that a transform has asked for.
#[derive(Debug, Default)]
pub(crate) struct Pause {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pause {
    /// # Errors
    ///
    /// There is no runtime to wait in.
    pub(crate) fn begin(&mut self, wait: Duration) -> Result<(), TransformError> {
        // Without a runtime tokio's sleep panics, and so it does in one that keeps no time, which cannot be asked.
        Handle::try_current().map_err(|_| TransformError::NoRuntime)?;
        let sleep = catch_unwind(|| Box::pin(tokio::time::sleep(wait))).map_err(|_| TransformError::NoRuntime)?;
        self.sleep = Some(sleep);
        Ok(())
    }

    /// Ready where nothing is waited for.
    #[inline]
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_some() { self.poll_sleep(cx) } else { Poll::Ready(()) }
    }

    fn poll_sleep(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}
