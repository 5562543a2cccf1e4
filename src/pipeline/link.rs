//! A stage of any type, behind one interface. Never knows what is before or behind it.

use std::{any::Any, error::Error};

use bytes::Bytes;

use super::error::Cause;
use crate::transform::{
    Transform, TransformError,
    stage::{Stage, Step},
};

/// A [`Stage`] whose type is forgotten.
pub(super) trait Link: Send {
    fn step(&mut self) -> Result<Step, Cause>;
    fn push(&mut self, chunk: Bytes);
    fn end_input(&mut self);
    fn is_stopped(&self) -> bool;
    /// What it leaves behind, where it has ended.
    fn into_value(self: Box<Self>) -> Option<Box<dyn Any + Send>>;
}

impl<T: Transform + Send> Link for Stage<T> {
    fn step(&mut self) -> Result<Step, Cause> {
        self.next().map_err(|error| match error {
            // The stage is named by the pipeline: the cause is the transform's own.
            TransformError::Failed { cause, .. } => cause,
            error => Box::<dyn Error + Send + Sync>::from(error).into(),
        })
    }

    fn push(&mut self, chunk: Bytes) {
        Self::push(self, chunk);
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
