//! Live bars on standard error: bytes in, in memory, on disk, out.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use spillbuffer::{Control, SpillStats};

const TICK: Duration = Duration::from_millis(100);

/// Shows the bars until it is dropped.
pub(crate) struct Progress {
    /// Never sends: that it hangs up is the message.
    stop: Option<Sender<()>>,
    painter: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn show(control: Control, memory: ByteSize) -> Self {
        let bars = Bars::new(memory);
        // Not a terminal: a thread that paints nothing would only cost its stack.
        if bars.all.is_hidden() {
            return Self { stop: None, painter: None };
        }
        let (stop, stopped) = mpsc::channel();
        let painter = thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                bars.paint(&control.stats());
            }
            bars.clear();
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

struct Bars {
    all: MultiProgress,
    input: ProgressBar,
    memory: ProgressBar,
    disk: ProgressBar,
    output: ProgressBar,
}

impl Bars {
    fn new(memory: ByteSize) -> Self {
        let all = MultiProgress::new();
        let gauge = "{prefix:>9} [{bar:30}] {binary_bytes:>11} of {binary_total_bytes}{msg}";
        let add = |name: &'static str| {
            let style = ProgressStyle::with_template(gauge).expect("a valid template");
            let bar = ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_prefix(name);
            all.add(bar)
        };
        let bars = Self {
            input: add("in"),
            memory: add("in memory"),
            disk: add("on disk"),
            output: add("out"),
            all: all.clone(),
        };
        bars.memory.set_length(memory.as_u64());
        bars.disk.set_message(" at the peak");
        bars
    }

    fn paint(&self, stats: &SpillStats) {
        // How much there will be, nobody knows: all that has come in is the measure of the rest.
        self.input.set_length(stats.written);
        self.input.set_position(stats.written);
        self.memory.set_position(stats.in_memory);
        // Not zero: a bar of no length is a full one.
        self.disk.set_length(stats.peak_on_disk.max(1));
        self.disk.set_position(stats.on_disk);
        self.output.set_length(stats.written);
        self.output.set_position(stats.read);
    }

    /// Leaves nothing behind: the report says it all.
    fn clear(&self) {
        for bar in [&self.input, &self.memory, &self.disk, &self.output] {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}
