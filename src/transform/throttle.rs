//! Holds a stream to a rate. Never lets more than a twentieth of a second's bytes pass at once.

use std::{
    convert::Infallible,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// How long a stream may have been slower and make up for it; also how many bytes go at once.
const WINDOW: Duration = Duration::from_millis(50);

/// Lets so many bytes a second pass.
///
/// What is not used is saved up for 50 ms, no longer, and a piece is what 50 ms allow for: so at most two of these pass beyond the rate,
/// whenever one begins to count. The waits are the shell's, on tokio's clock, and need a runtime with its time enabled; a test may
/// pause it.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Throttle, TransformReader};
/// use std::num::NonZeroU64;
/// use tokio::io::AsyncReadExt;
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
/// # runtime.block_on(async {
/// let rate = NonZeroU64::new(1_000_000).expect("not zero");
/// let mut reader = TransformReader::new(tokio::io::repeat(0).take(2_000_000), Throttle::new(rate));
/// let begun = tokio::time::Instant::now();
/// reader.read_to_end(&mut Vec::new()).await?;
/// assert!(begun.elapsed().as_millis() > 1900);
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug, Clone)]
pub struct Throttle {
    rate: NonZeroU64,
    /// When the next byte may go.
    due: Option<Instant>,
}

impl Throttle {
    /// At most `rate` bytes a second.
    pub fn new(rate: NonZeroU64) -> Self {
        Self { rate, due: None }
    }

    /// How long so many bytes take.
    fn time_of(&self, bytes: usize) -> Duration {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.rate.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Transform for Throttle {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        if input.is_empty() {
            return Ok(Flow::Continue);
        }
        let now = output.now();
        let due = self.due.unwrap_or(now);
        if due > now {
            return Ok(Flow::Wait(due - now));
        }
        let piece = u128::from(self.rate.get()) * WINDOW.as_millis() / 1000;
        let piece = usize::try_from(piece).unwrap_or(usize::MAX).clamp(1, input.len());
        let from = now.checked_sub(WINDOW).map_or(due, |earliest| due.max(earliest));
        // Of one byte it is a second at the most.
        self.due = Some(from + self.time_of(piece));
        output.pass(input.split_to(piece));
        Ok(if input.is_empty() { Flow::Continue } else { Flow::Full })
    }

    fn into_value(self) {}
}
