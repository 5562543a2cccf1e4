//! A pipe whose writer is not held up by a slow reader until a declared quota, in a declared amount
//! of memory.
#![doc = include_str!("../README.md")]

mod block;
mod blocking;
mod buffer;
mod builder;
mod chunk;
mod clock;
mod control;
mod copy;
mod core;
mod drain;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(spill_shuttle)]
pub mod interleavings;
mod lender;
mod options;
pub mod pipeline;
mod pool;
#[cfg(test)]
mod pool_tests;
mod reader;
mod shell;
mod sink;
mod slot;
mod source;
mod spill_pool;
mod stats;
mod storage;
mod stream;
mod sync;
mod threads;
pub mod transform;
mod turn;
mod within;
mod writer;

pub use blocking::{BlockingReader, BlockingWriter};
pub use buffer::SpillBuffer;
pub use builder::Builder;
pub use control::Control;
pub use error::{SpillError, StorageOp};
pub use options::OnFull;
pub use reader::SpillReader;
pub use sink::SpillSink;
pub use spill_pool::{PoolBuilder, PoolHandle, PoolStats, SpillPool};
pub use stats::SpillStats;
pub use stream::SpillStream;
pub use writer::{Closed, SpillWriter};
