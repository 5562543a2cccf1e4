//! Measures spillbuffer against what one would use instead: `peers speed` and `peers memory`.
//!
//! All contenders do the same work in the same run, turn by turn, and what comes out is checked. The machine's own speed
//! drifts, so the ratios within a round are what counts.

#![allow(clippy::cast_precision_loss, reason = "figures are printed, not compared to the last digit")]

#[path = "../../rss/ceilings.rs"]
mod ceilings;
mod chart;
mod contenders;
#[path = "../../rss/content.rs"]
mod content;
#[cfg(test)]
mod content_tests;
mod machine;
mod memory;
mod options;
mod pages;
#[path = "../../rss/process.rs"]
mod process;
#[path = "../../rss/scenarios.rs"]
mod scenarios;
mod soak;
mod speed;

use std::process::ExitCode;

use clap::Parser;

use machine::Machine;
use options::{Options, Task};

#[global_allocator]
static ALLOCATOR: pages::Allocator = pages::Allocator;

fn main() -> ExitCode {
    if let Some((scenario, mib)) = process::asked() {
        memory::run(&scenario, mib);
        return ExitCode::SUCCESS;
    }
    let options = Options::parse();
    let machine = Machine::this();
    if machine.has_no_disk() {
        eprintln!("The temp directory is in memory: set TMPDIR to one on a disk.");
        return ExitCode::FAILURE;
    }
    let holds = match options.task {
        Task::Speed(options) => speed::compare(&options, &machine),
        Task::Memory(options) => memory::compare(&options, &machine),
        Task::Soak(options) => soak::draw(&options, &machine),
        Task::Backlog(options) => {
            speed::backlog(&options);
            Ok(true)
        }
    };
    match holds {
        Ok(holds) => ExitCode::from(u8::from(!holds)),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
