//! Live bars on standard error: bytes in, in memory, on disk, out.

use std::pin::pin;
use std::time::Duration;

use bytesize::ByteSize;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use spillbuffer::{Control, SpillStats};
use tokio::select;
use tokio::time::interval;

const TICK: Duration = Duration::from_millis(100);

/// Does the work, and shows the bars meanwhile, if there is a terminal.
pub(crate) async fn during<T>(work: impl Future<Output = T>, control: &Control, memory: ByteSize) -> T {
    let bars = Bars::new(memory);
    let mut work = pin!(work);
    let mut tick = interval(TICK);
    let done = loop {
        select! {
            done = &mut work => break done,
            _ = tick.tick(), if !bars.all.is_hidden() => bars.paint(&control.stats()),
        }
    };
    bars.clear();
    done
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
