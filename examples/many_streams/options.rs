//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, value_parser};

/// Send many uploads at different speeds through one pool, and prove what came out
#[derive(Parser)]
#[command(name = "many_streams")]
pub(crate) struct Options {
    /// Number of streams
    #[arg(long, default_value = "100", value_parser = value_parser!(u32).range(1..), value_name = "COUNT")]
    pub streams: u32,

    /// Size of each stream
    #[arg(long, default_value = "8MiB", value_name = "SIZE")]
    pub size: ByteSize,

    /// Memory that all streams together may use
    #[arg(long, default_value = "16MiB", value_name = "SIZE")]
    pub memory: ByteSize,

    /// Disk space that all streams together may use
    #[arg(long, default_value = "4GiB", value_name = "SIZE")]
    pub disk: ByteSize,

    /// Directory of the pool's temporary file
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,

    /// Time that the slowest reader takes
    #[arg(long, default_value = "4s", value_parser = seconds, value_name = "TIME")]
    pub seconds: Duration,

    /// Print one JSON object on standard output
    #[arg(long, overrides_with = "json")]
    pub json: bool,
}

impl Options {
    pub(crate) fn memory_limit(&self) -> usize {
        usize::try_from(self.memory.as_u64()).unwrap_or(usize::MAX)
    }
}

/// A bare number is what the option's name says, seconds.
fn seconds(text: &str) -> Result<Duration, humantime::DurationError> {
    text.parse().map(Duration::from_secs).or_else(|_| humantime::parse_duration(text))
}
