//! What the system says of this process, and a run of this program in a process of its own. Never asks the library.

use std::{
    env, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Names the scenario for which a process was started.
const SCENARIO: &str = "SCENARIO";

/// A line of `/proc/self/status`: KiB of memory, or a count.
pub(crate) fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc/self/status");
    let line = status.lines().find(|line| line.starts_with(name)).expect("a line of that name");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}

/// Resident memory now, in KiB, from which the peak begins anew.
pub(crate) fn reset_peak() -> u64 {
    fs::write("/proc/self/clear_refs", "5").expect("/proc/self/clear_refs");
    status("VmRSS")
}

/// The open files that have no name any more, as paths that can be opened.
pub(crate) fn unlinked() -> Vec<PathBuf> {
    let open = fs::read_dir("/proc/self/fd").expect("/proc/self/fd").filter_map(Result::ok).map(|entry| entry.path());
    let unlinked = |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.to_string_lossy().ends_with(" (deleted)"));
    open.filter(unlinked).collect()
}

/// What they occupy, in bytes.
pub(crate) fn disk_allocated() -> u64 {
    unlinked().iter().filter_map(|path| fs::metadata(path).ok()).map(|file| file.blocks() * 512).sum()
}

/// The scenario and the size in MiB for which this process was started, if it was.
pub(crate) fn asked() -> Option<(String, u64)> {
    let asked = env::var(SCENARIO).ok()?;
    let (scenario, mib) = asked.rsplit_once(' ')?;
    Some((scenario.into(), mib.parse().ok()?))
}

/// What a scenario has printed, a figure a line: its name and its value.
pub(crate) struct Figures {
    pub text: String,
}

impl Figures {
    pub(crate) fn get(&self, name: &str) -> f64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {}", self.text))
    }
}

/// Runs a scenario in a process of its own, so that its peak is its own.
pub(crate) fn run_apart(scenario: &str, mib: u64) -> Figures {
    let mut command = Command::new(env::current_exe().expect("this program"));
    let output = command.env(SCENARIO, format!("{scenario} {mib}")).stderr(Stdio::inherit()).output();
    let output = output.expect("this program can be started");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{scenario}, {mib} MiB: {} {text}", output.status);
    Figures { text }
}
