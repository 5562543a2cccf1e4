//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, value_parser};

use crate::speed::Store;

/// How fast spillbuffer is and how much memory it takes, beside what one would use instead
#[derive(Parser)]
#[command(name = "peers")]
pub(crate) struct Options {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Compare speeds, and fail where a ratio falls short
    ///
    /// `PEERS_LONG=1` in the environment adds a run within a memory cgroup (root, and cgroup v1).
    Speed(SpeedOptions),
    /// Compare memory and disk with their ceilings, and fail where one is broken
    ///
    /// `PEERS_LONG=1` in the environment makes the backlog eight times as large.
    Memory(MemoryOptions),
    /// Draw what a long soak has written down (`SOAK_LOG`)
    Soak(SoakOptions),
    /// One backlog, written and read: what the comparison runs within a cgroup
    #[command(hide = true)]
    Backlog(BacklogOptions),
}

#[derive(Args)]
pub(crate) struct SpeedOptions {
    /// Rounds, in each of which every contender has its turn
    #[arg(long, default_value = "7", value_parser = value_parser!(u32).range(1..), value_name = "COUNT")]
    pub rounds: u32,

    /// Size of a stream
    #[arg(long, default_value = "1024", value_parser = value_parser!(u64).range(1..=65_536), value_name = "MIB")]
    pub mib: u64,

    /// Measure only what has this in its name
    #[arg(long, value_name = "SUBSTRING")]
    pub only: Option<String>,

    /// Compare every byte within the clock too, not only in the round before it starts
    #[arg(long)]
    pub compare_all: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,

    /// Draw the speeds
    #[arg(long, value_name = "FILE.svg")]
    pub chart: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct MemoryOptions {
    /// Size of the backlog
    #[arg(long, default_value = "1024", value_parser = value_parser!(u64).range(64..=65_536), value_name = "MIB")]
    pub mib: u64,

    /// Print one JSON object on standard output
    #[arg(long)]
    pub json: bool,

    /// Draw memory and disk over time, beside a queue in memory
    #[arg(long, value_name = "FILE.svg")]
    pub chart: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct SoakOptions {
    /// What it has written: seconds, KiB of RSS, of memory held, of the file, a line each time
    pub log: PathBuf,

    /// The chart
    #[arg(long, value_name = "FILE.svg")]
    pub chart: PathBuf,
}

#[derive(Args)]
pub(crate) struct BacklogOptions {
    pub store: Store,
    pub mib: u64,
}
