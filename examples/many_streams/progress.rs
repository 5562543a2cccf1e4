//! A live table on standard error: what the pool holds, and how far its streams are.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use spillbuffer::{Control, SpillPool};

use crate::options::Options;
use crate::{process_kib, size};

const TICK: Duration = Duration::from_millis(100);

/// Shows the table until it is dropped.
pub(crate) struct Progress {
    /// Never sends: that it hangs up is the message.
    stop: Option<Sender<()>>,
    painter: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn show(pool: SpillPool, streams: Vec<Control>, options: &Options) -> Self {
        let style = ProgressStyle::with_template("{msg}").expect("a valid template");
        // One bar that is all text: so the lines of a table are always of the same moment.
        let bar = ProgressBar::new(0).with_style(style);
        // Not a terminal: a thread that paints nothing would only cost its stack.
        if bar.is_hidden() {
            return Self { stop: None, painter: None };
        }
        let before = vec![0; streams.len()];
        let mut table = Table {
            pool,
            streams,
            size: options.size.as_u64(),
            memory: options.memory.as_u64(),
            disk: options.disk.as_u64(),
            before,
        };
        let (stop, stopped) = mpsc::channel();
        let painter = thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                bar.set_message(table.text());
            }
            // Leaves nothing behind: the report says it all.
            bar.finish_and_clear();
        });
        Self { stop: Some(stop), painter: Some(painter) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
        }
    }
}

struct Table {
    pool: SpillPool,
    streams: Vec<Control>,
    /// Of each stream.
    size: u64,
    /// What the pool may use of it.
    memory: u64,
    disk: u64,
    /// What each stream had written at the last tick: one that has not moved since is one that waits.
    before: Vec<u64>,
}

impl Table {
    fn text(&mut self) -> String {
        let (mut moving, mut waiting, mut reading) = (0, 0, 0);
        let mut slowest = (0, u64::MAX);
        for (number, (stream, before)) in self.streams.iter().zip(&mut self.before).enumerate() {
            let stats = stream.stats();
            let moved = stats.written != *before;
            *before = stats.written;
            moving += u32::from(stats.written < self.size && moved);
            waiting += u32::from(stats.written < self.size && !moved);
            reading += u32::from(stats.read < self.size);
            if stats.read < slowest.1 {
                slowest = (number, stats.read);
            }
        }
        let all = self.streams.len() as u32;
        let (number, read) = slowest;
        let pool = self.pool.stats();
        let total = self.size.saturating_mul(all.into());
        let rss = process_kib("VmRSS").map_or_else(|| "unknown".into(), |kib| size(kib * 1024));
        [
            line("written", pool.written, total),
            line("read", pool.read, total),
            line("memory held", pool.memory_held, self.memory),
            format!("{:>12} {:32} {:>10}", "in memory", "", size(pool.in_memory)),
            line("on disk", pool.on_disk, self.disk.min(total)),
            format!("{:>12} {:32} {rss:>10}", "RSS", ""),
            format!("{:>12} {moving} writing, {waiting} waiting, {} done", "producers", all - moving - waiting),
            format!("{:>12} {reading} reading, {} done", "consumers", all - reading),
            format!("{:>12} stream {number} has read {} of {}", "slowest", size(read), size(self.size)),
        ]
        .join("\n")
    }
}

/// A name, a bar and the figures that it shows.
fn line(name: &str, is: u64, of: u64) -> String {
    const WIDTH: u128 = 30;
    let filled = u128::from(is.min(of)) * WIDTH / u128::from(of.max(1));
    let bar = "=".repeat(filled as usize);
    format!("{name:>12} [{bar:30}] {:>10} of {}", size(is), size(of))
}
