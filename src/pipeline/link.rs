//! A stage of any type, behind one interface. Never knows what is before or behind it.

use std::{any::Any, error::Error, mem};

use bytes::Bytes;

use super::error::Cause;
use crate::transform::{
    Transform, TransformError,
    stage::{Said, Stage},
};

/// A [`Stage`] whose type is forgotten.
pub(super) trait Link: Send {
    /// What comes next: a chunk goes into `chunk`, which holds its input where `fed`. One call a chunk: most have nothing else to
    /// say.
    fn step(&mut self, chunk: &mut Bytes, fed: bool) -> Result<Said, Cause>;
    fn needs_input(&self) -> bool;
    fn end_input(&mut self);
    fn is_stopped(&self) -> bool;
    /// What it leaves behind, where it has ended.
    fn into_value(self: Box<Self>) -> Option<Box<dyn Any + Send>>;
}

impl<T: Transform + Send> Link for Stage<T> {
    fn step(&mut self, chunk: &mut Bytes, fed: bool) -> Result<Said, Cause> {
        if fed {
            self.push(mem::take(chunk));
        }
        self.next_into(chunk).map_err(|error| match error {
            // The stage is named by the pipeline: the cause is the transform's own.
            TransformError::Failed { cause, .. } => cause,
            error => Box::<dyn Error + Send + Sync>::from(error).into(),
        })
    }

    fn needs_input(&self) -> bool {
        Self::needs_input(self)
    }

    fn end_input(&mut self) {
        Self::end_input(self);
    }

    fn is_stopped(&self) -> bool {
        Self::is_stopped(self)
    }

    fn into_value(self: Box<Self>) -> Option<Box<dyn Any + Send>> {
        Self::into_value(*self).ok().map(|value| Box::new(value) as Box<dyn Any + Send>)
    }
}
