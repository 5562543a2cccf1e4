//! What the job comes to: one JSON object, or a few lines for people.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytesize::ByteSize;
use serde_json::{Value, json};
use spillbuffer::SpillStats;

use crate::consume::Received;
use crate::fault::Fault;
use crate::options::Options;
use crate::tap::Tapped;

pub(crate) struct Report {
    sent: Tapped,
    /// Names that a tar cannot hold: sockets.
    skipped: Vec<String>,
    received: Received,
    usage: Usage,
    took: Duration,
}

/// What the queue took, of whatever kind it was.
#[derive(Default)]
pub(crate) struct Usage {
    pub spilled: u64,
    pub peak_in_memory: u64,
    pub peak_on_disk: u64,
    pub disk_at_end: u64,
    pub writer_waited: Duration,
    pub reader_waited: Duration,
}

impl From<SpillStats> for Usage {
    fn from(stats: SpillStats) -> Self {
        Self {
            spilled: stats.spilled,
            peak_in_memory: stats.peak_in_memory,
            peak_on_disk: stats.peak_on_disk,
            disk_at_end: stats.disk_held,
            writer_waited: stats.writer_waited,
            reader_waited: stats.reader_waited,
        }
    }
}

impl Report {
    pub(crate) fn new(
        sent: Tapped,
        skipped: Receiver<String>,
        received: Received,
        usage: Usage,
        took: Duration,
    ) -> Self {
        Self { sent, skipped: skipped.into_iter().collect(), received, usage, took }
    }

    /// Prints it, and says whether what came out is what went in.
    pub(crate) fn print(&self, options: &Options) -> Result<bool, Fault> {
        for socket in &self.skipped {
            eprintln!("tar_stream: {socket}: a socket, left out");
        }
        let text = if options.json { self.to_json().to_string() } else { self.to_text() };
        writeln!(io::stdout(), "{text}").map_err(|e| Fault::new(Path::new("standard output"), "cannot write", e))?;
        Ok(self.matches())
    }

    fn matches(&self) -> bool {
        self.sent == self.received.tar
    }

    fn to_json(&self) -> Value {
        json!({
            "entries": self.received.contents.entries,
            "entries_sha256": self.received.contents.digest(),
            "bytes_in": self.sent.bytes,
            "bytes_out": self.received.tar.bytes,
            "sha256_in": self.sent.sha256,
            "sha256_out": self.received.tar.sha256,
            "match": self.matches(),
            "skipped": self.skipped.len(),
            "seconds": self.took.as_secs_f64(),
            "peak_rss_kib": peak_rss_kib(),
            "spilled": self.usage.spilled,
            "peak_in_memory": self.usage.peak_in_memory,
            "peak_on_disk": self.usage.peak_on_disk,
            "disk_at_end": self.usage.disk_at_end,
            "writer_waited_seconds": self.usage.writer_waited.as_secs_f64(),
            "reader_waited_seconds": self.usage.reader_waited.as_secs_f64(),
        })
    }

    fn to_text(&self) -> String {
        let Self { sent, received, usage, took, .. } = self;
        let size = |bytes| ByteSize::b(bytes).display().iec();
        let verdict = if self.matches() { "the same" } else { "NOT THE SAME" };
        let rss = peak_rss_kib().map_or_else(|| "unknown".into(), |kib| size(kib * 1024).to_string());
        [
            format!("{} entries in {:.1} s", received.contents.entries, took.as_secs_f64()),
            format!("in   {:>11}  sha256 {}", size(sent.bytes), sent.sha256),
            format!("out  {:>11}  sha256 {}  {verdict}", size(received.tar.bytes), received.tar.sha256),
            format!(
                "spilled {}, at most {} on disk, {} at the end",
                size(usage.spilled),
                size(usage.peak_on_disk),
                size(usage.disk_at_end),
            ),
            format!("the writer waited {:.1} s; peak RSS {rss}", usage.writer_waited.as_secs_f64()),
        ]
        .join("\n")
    }
}

/// The most memory this process ever had, where the system tells.
fn peak_rss_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}
