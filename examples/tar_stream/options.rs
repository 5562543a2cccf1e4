//! The command line.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Parser, ValueEnum};

use crate::source::Source;

/// Stream a build context as a tar to a consumer that is slower than the producer, and prove what
/// came out
#[derive(Parser)]
#[command(name = "tar_stream")]
pub(crate) struct Options {
    /// A directory, a .tar, a .tar.gz or .tar.zst, or `-` for standard input [default: a generated context]
    source: Option<PathBuf>,

    /// Size of the generated context
    #[arg(long, default_value = "512MiB", value_name = "SIZE", conflicts_with = "source")]
    size: ByteSize,

    /// Bytes per second that the consumer takes [default: all it can]
    #[arg(long, value_parser = rate, value_name = "SIZE")]
    pub rate: Option<NonZeroU64>,

    /// Time before the consumer's first read [default: 0s, for a generated context 2s]
    #[arg(long, value_parser = humantime::parse_duration, value_name = "TIME")]
    stall: Option<Duration>,

    /// Memory that the buffer may use
    #[arg(long, default_value = "1MiB", value_name = "SIZE")]
    pub memory: ByteSize,

    /// Disk space that the buffer may use
    #[arg(long, default_value = "4GiB", value_name = "SIZE")]
    pub disk: ByteSize,

    /// Directory of the buffer's temporary file
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,

    /// Write the bytes that the consumer took to a file
    #[arg(long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Print one JSON object on standard output
    #[arg(long, overrides_with = "json")]
    pub json: bool,

    /// Do the work twice, in two processes, the second time through another kind of queue
    #[arg(long, value_name = "KIND", conflicts_with = "output")]
    pub compare: Option<Other>,

    /// The queue of one process of a comparison
    #[arg(long, hide = true)]
    pub through: Option<Queue>,
}

/// What a comparison compares with.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Other {
    /// An unbounded queue in memory
    Memory,
}

/// What stands between producer and consumer.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Queue {
    Spillbuffer,
    Memory,
}

impl Options {
    pub(crate) fn source(&self) -> Source {
        match self.source.as_deref() {
            None => Source::Generated(self.size.as_u64()),
            Some(path) if path == Path::new("-") => Source::Stdin,
            Some(path) => Source::Path(path.to_owned()),
        }
    }

    pub(crate) fn stall(&self) -> Duration {
        let default = if self.source.is_none() { 2 } else { 0 };
        self.stall.unwrap_or(Duration::from_secs(default))
    }

    pub(crate) fn memory_limit(&self) -> usize {
        usize::try_from(self.memory.as_u64()).unwrap_or(usize::MAX)
    }
}

fn rate(text: &str) -> Result<NonZeroU64, String> {
    let rate = text.strip_suffix("/s").unwrap_or(text).parse::<ByteSize>()?.as_u64();
    NonZeroU64::new(rate).ok_or_else(|| "a consumer that takes nothing would never end".into())
}
