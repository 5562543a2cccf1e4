//! How far a stream has come, for whoever watches. Never slows it down.

use std::{
    convert::Infallible,
    mem,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Flow, Output, Transform};

/// Counts what passes; the count is its value at the end, and [`Progress`] has it meanwhile.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Counter, TransformReader};
/// use tokio::io::AsyncReadExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let (counter, progress) = Counter::new(Some(10));
/// let mut reader = TransformReader::new(&b"some bytes"[..], counter);
/// reader.read_to_end(&mut Vec::new()).await?;
/// assert_eq!((progress.bytes(), progress.total()), (10, Some(10)));
/// assert!(progress.is_ended());
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Counter {
    shared: Arc<Shared>,
}

impl Counter {
    /// `total`: how many bytes there will be, where that is known; it is not enforced.
    pub fn new(total: Option<u64>) -> (Self, Progress) {
        let shared = Arc::new(Shared { total, ..Shared::default() });
        (Self { shared: Arc::clone(&shared) }, Progress { shared })
    }
}

impl Transform for Counter {
    type Value = u64;
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        self.shared.count(input.len() as u64, output.now());
        output.pass(mem::take(input));
        Ok(Flow::Continue)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, Infallible> {
        self.shared.count(0, output.now());
        self.shared.ended.store(true, Ordering::Release);
        Ok(Flow::Continue)
    }

    fn into_value(self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }
}

/// Watches a [`Counter`], from anywhere. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Progress {
    shared: Arc<Shared>,
}

impl Progress {
    /// How many bytes have passed.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Acquire)
    }

    /// How many bytes there will be, as the counter was told.
    pub fn total(&self) -> Option<u64> {
        self.shared.total
    }

    /// Whether the stream has ended, cleanly.
    pub fn is_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// From the first bytes to the last that have passed, and to the end once that has come.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.shared.nanos.load(Ordering::Acquire))
    }

    /// Bytes per second, on average over [`elapsed`](Self::elapsed); `None` while no time has passed.
    pub fn rate(&self) -> Option<f64> {
        let elapsed = self.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate is no count")]
        (elapsed > 0.0).then(|| self.bytes() as f64 / elapsed)
    }

    /// How long the rest will take at this [`rate`](Self::rate); `None` where the total or the rate is not
    /// known.
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total()?.saturating_sub(self.bytes());
        #[allow(clippy::cast_precision_loss, reason = "a guess")]
        Duration::try_from_secs_f64(left as f64 / self.rate()?).ok()
    }
}

#[derive(Debug, Default)]
struct Shared {
    total: Option<u64>,
    bytes: AtomicU64,
    begun: OnceLock<Instant>,
    nanos: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn count(&self, bytes: u64, now: Instant) {
        let begun = *self.begun.get_or_init(|| now);
        let nanos = u64::try_from(now.saturating_duration_since(begun).as_nanos()).unwrap_or(u64::MAX);
        self.nanos.store(nanos, Ordering::Release);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }
}
