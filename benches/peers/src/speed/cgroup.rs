//! A backlog much larger than the memory that the process may use, its page cache included. The kernel's own writing back
//! sets the pace then, and what holds more than it may is killed.

use std::{
    env, fs, io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{self, Command, Stdio},
};

use clap::ValueEnum;

use super::{contest::Spread, lines::Verdict};
use crate::{options::SpeedOptions, pages};

pub(crate) const WHAT: &str = "backlog within a memory cgroup of 128 MiB";

const MEMORY: u64 = 128 << 20;
const MEMORY_CGROUPS: &str = "/sys/fs/cgroup/memory";

/// Rounds beyond these would take minutes more and say the same.
const MOST_ROUNDS: u32 = 3;

/// Who runs within it.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Store {
    Spillbuffer,
    Raw,
}

/// Runs both in turns, each in a process of its own within the cgroup, if that was asked for and there is one.
pub(crate) fn judge(options: &SpeedOptions) -> Verdict {
    let mut verdict = Verdict {
        what: WHAT,
        against: "pwrite, then pread, 1 MiB calls, in the same cgroup",
        ratio: None,
        bare: None,
        at_least: 0.9,
        goal: None,
        note: None,
        failed: false,
    };
    if env::var_os("PEERS_LONG").is_none_or(|long| long != "1") {
        verdict.note = Some("only with PEERS_LONG=1".into());
        return verdict;
    }
    let cgroup = match Cgroup::new() {
        Ok(cgroup) => cgroup,
        Err(error) => {
            verdict.note = Some(format!("no cgroup can be made in {MEMORY_CGROUPS} (version 1, root): {error}"));
            return verdict;
        }
    };
    let mib = 4 * options.mib;
    let mut ratios = Vec::new();
    for round in 1..=options.rounds.min(MOST_ROUNDS) {
        eprint!("\rcgroup, round {round}   ");
        match (cgroup.run(Store::Raw, mib), cgroup.run(Store::Spillbuffer, mib)) {
            (Ok(raw), Ok(ours)) => ratios.push(raw / ours),
            (Err(error), _) | (_, Err(error)) => {
                verdict.failed = true;
                verdict.note = Some(error);
                break;
            }
        }
    }
    eprintln!();
    verdict.ratio = Spread::of(ratios);
    verdict.note.get_or_insert_with(|| format!("{mib} MiB"));
    if cgroup.killed() > 0 {
        verdict.failed = true;
        verdict.note = Some("OOM-killed".into());
    }
    verdict
}

/// A memory cgroup, which goes with this.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn new() -> io::Result<Self> {
        let path = PathBuf::from(MEMORY_CGROUPS).join(format!("spillbuffer-peers-{}", process::id()));
        fs::create_dir(&path)?;
        let cgroup = Self { path };
        fs::write(cgroup.path.join("memory.limit_in_bytes"), MEMORY.to_string())?;
        Ok(cgroup)
    }

    /// Its seconds, or what became of it.
    fn run(&self, store: Store, mib: u64) -> Result<f64, String> {
        pages::warm(mib << 20);
        // A shell enters the cgroup and becomes the program, so that all of its memory counts.
        let output = Command::new("sh")
            .args(["-c", r#"echo $$ > "$0" && exec "$@""#])
            .arg(self.path.join("cgroup.procs"))
            .arg(env::current_exe().map_err(|error| error.to_string())?)
            .args(["backlog", if matches!(store, Store::Raw) { "raw" } else { "spillbuffer" }, &mib.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| error.to_string())?;
        // What it has left in the page cache is not the next one's.
        let _ = fs::write(self.path.join("memory.force_empty"), "0");
        if output.status.signal() == Some(9) {
            return Err("killed".into());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|_| format!("{}: {text}", output.status))
    }

    /// How many processes the kernel has killed in it for want of memory.
    fn killed(&self) -> u64 {
        let events = fs::read_to_string(self.path.join("memory.oom_control")).unwrap_or_default();
        let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}
