//! On what machine this runs: speeds mean nothing without it. Never a name by which it could be found.

use std::{env, fs, path::Path, thread};

use serde_json::{Value, json};

/// What is said of the machine.
pub(crate) struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    file_system: String,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into());
        let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
        Self {
            processor,
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory.trim_end_matches(" kB").parse().unwrap_or(0) / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".into(), |text| text.trim().into()),
            file_system: file_system_of(&env::temp_dir()).unwrap_or_else(|| "unknown".into()),
        }
    }

    /// Whether the temp directory is memory: then nothing here goes to a disk.
    pub(crate) fn has_no_disk(&self) -> bool {
        matches!(self.file_system.as_str(), "tmpfs" | "ramfs")
    }

    pub(crate) fn text(&self) -> String {
        let Self { processor, cores, memory_mib, kernel, file_system } = self;
        format!("{processor}, {cores} cores, {memory_mib} MiB, Linux {kernel}, temp files on {file_system}")
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "processor": self.processor,
            "cores": self.cores,
            "memory_mib": self.memory_mib,
            "kernel": self.kernel,
            "file_system": self.file_system,
        })
    }
}

/// The first `name : value` of a file.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (_, value) = text.lines().filter_map(|line| line.split_once(':')).find(|(field, _)| field.trim() == name)?;
    Some(value.trim().into())
}

/// The type of what is mounted at the directory or closest above it.
fn file_system_of(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    // Of those at the same place the last one covers the others.
    let closest = mounts.filter(|(at, _)| directory.starts_with(at)).max_by_key(|(at, _)| at.components().count());
    closest.map(|(_, kind)| kind.into())
}
