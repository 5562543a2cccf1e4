//! What a buffer takes, against what it may: memory by the system's count and by its own, and disk.
//!
//! `cargo bench --bench rss` prints the table, names each line that is broken, and fails then. It is the short form of
//! `cargo run --release -p peers -- memory`.

// Figures are printed, not compared to the last digit.
#![allow(clippy::cast_precision_loss)]

use std::process::ExitCode;

mod ceilings;
mod content;
mod process;
mod scenarios;

fn main() -> ExitCode {
    if let Some((scenario, mib)) = process::asked() {
        assert!(scenarios::run(&scenario, mib), "no scenario {scenario}");
        return ExitCode::SUCCESS;
    }
    let lines = ceilings::lines(&ceilings::Sizes { backlog: 256, smaller: 64, stalled: 1, keeping_up: 64 });
    ceilings::print(&lines);
    ExitCode::from(u8::from(lines.iter().any(|line| !line.holds())))
}
