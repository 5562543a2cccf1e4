//! What may be taken at most, and what is. Each figure comes from a process of its own.

use crate::{
    process::{Figures, run_apart},
    scenarios::{EMPTY, STALLED, STALLED_WINDOW},
};

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * KIB;

/// How much is done to measure.
pub(crate) struct Sizes {
    /// The backlog that memory is measured at, in MiB.
    pub backlog: u64,
    /// A smaller one: memory must not depend on it.
    pub smaller: u64,
    /// What each of the streams that stand still has written, in MiB.
    pub stalled: u64,
    /// What passes a reader that keeps up in a round, in MiB.
    pub keeping_up: u64,
}

/// A line of the table.
pub(crate) struct Line {
    pub what: String,
    pub is: f64,
    /// None where a figure is only shown.
    pub at_most: Option<f64>,
    pub unit: &'static str,
}

impl Line {
    fn bound(what: impl Into<String>, is: f64, at_most: f64, unit: &'static str) -> Self {
        Self { what: what.into(), is, at_most: Some(at_most), unit }
    }

    fn shown(what: impl Into<String>, is: f64, unit: &'static str) -> Self {
        Self { what: what.into(), is, at_most: None, unit }
    }

    pub(crate) fn holds(&self) -> bool {
        self.at_most.is_none_or(|most| self.is <= most)
    }
}

/// Measures all of it.
pub(crate) fn lines(sizes: &Sizes) -> Vec<Line> {
    let mut lines = backlog(sizes);
    lines.extend(empty());
    lines.extend(stalled(sizes.stalled));
    lines.extend(keeping_up(sizes.keeping_up));
    lines
}

fn backlog(sizes: &Sizes) -> Vec<Line> {
    let large = of_three(sizes.backlog);
    let small = of_three(sizes.smaller);
    let name = |mib: u64| if mib.is_multiple_of(1024) { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") };
    let (rss, rss_small) = (large.get("rss") / MIB, small.get("rss") / MIB);
    vec![
        Line::bound(
            format!("{} of backlog, 1 MiB window: peak RSS over the base", name(sizes.backlog)),
            rss,
            2.5,
            "MiB",
        ),
        Line::bound(format!("  more than with {}", name(sizes.smaller)), rss - rss_small, 0.5, "MiB"),
        Line::bound("  block memory, by stats", large.get("blocks") / MIB, 1.0, "MiB"),
        Line::shown("  on disk when all is written", large.get("disk_written") / MIB, "MiB"),
        Line::shown("  on disk when half is read", large.get("disk_half_read") / MIB, "MiB"),
    ]
}

/// The run whose RSS is the median.
fn of_three(mib: u64) -> Figures {
    let mut runs: Vec<_> = (0..3).map(|_| run_apart("backlog", mib)).collect();
    runs.sort_by(|a, b| a.get("rss").total_cmp(&b.get("rss")));
    runs.swap_remove(1)
}

fn empty() -> Vec<Line> {
    let empty = run_apart("empty", 0);
    vec![
        Line::bound(
            format!("{EMPTY} empty buffers, both halves: each"),
            empty.get("rss") / EMPTY as f64 / KIB,
            2.0,
            "KiB",
        ),
        Line::bound("  block memory, by stats", empty.get("blocks"), 0.0, "bytes"),
        Line::bound("  files", empty.get("files"), 0.0, ""),
    ]
}

fn stalled(mib: u64) -> Vec<Line> {
    let stalled = run_apart("stalled", mib);
    let limits = (STALLED * STALLED_WINDOW) as f64 / MIB;
    vec![
        Line::bound(
            format!("{STALLED} stalled streams, {} KiB window each: peak RSS over the base", STALLED_WINDOW >> 10),
            stalled.get("rss") / MIB,
            limits + 8.0,
            "MiB",
        ),
        Line::bound("  block memory, by stats", stalled.get("blocks") / MIB, limits, "MiB"),
    ]
}

fn keeping_up(mib: u64) -> Vec<Line> {
    let kept_up = run_apart("keeping up", mib);
    vec![
        Line::bound("a reader that keeps up: bytes to disk, median", kept_up.get("spilled"), 0.0, "bytes"),
        Line::shown("  most in a round", kept_up.get("spilled_most"), "bytes"),
    ]
}

/// The lines as a table, with a mark at each that is broken.
pub(crate) fn print(lines: &[Line]) {
    println!("{:66} {:>14}  {:<16}", "", "is", "at most");
    for line in lines {
        let is = format!("{:.2} {}", line.is, line.unit);
        let at_most = line.at_most.map(|most| format!("{most} {}", line.unit)).unwrap_or_default();
        let mark = if line.holds() { "" } else { "BROKEN" };
        println!("{:66} {is:>14}  {at_most:<16} {mark}", line.what);
    }
}
