//! What a pipeline begins and ends with beside readers, writers, streams and sinks; one a file.
//! Never buffers more than a chunk.

mod each;
mod iter;
mod spill;
mod vec;

pub use self::{each::EachDrain, spill::SpillDrain, vec::VecDrain};
pub(super) use self::{
    iter::IterSource,
    spill::{SpillSource, spill_error},
};
