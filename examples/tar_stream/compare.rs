//! `--compare memory`: the same work in two processes, each with its own peak of memory.

use std::env;
use std::process::{Command, Stdio};

use bytesize::ByteSize;
use clap::{CommandFactory, ValueEnum, error::ErrorKind};
use serde_json::{Value, json};

use crate::fault::Fault;
use crate::options::{Options, Queue};
use crate::source::Source;

/// Runs both, prints their table, and says whether all four digests agree.
pub(crate) fn run(options: &Options) -> Result<bool, Fault> {
    if let Source::Stdin = options.source() {
        let sorry = "--compare reads the source twice, and standard input can be read only once";
        Options::command().error(ErrorKind::ArgumentConflict, sorry).exit();
    }
    let spilled = child(Queue::Spillbuffer)?;
    let queued = child(Queue::Memory)?;

    if options.json {
        println!("{}", json!({ "spillbuffer": spilled, "memory": queued }));
    } else {
        println!("{:<16}{:>12}{:>11}  sha256 of what came out", "", "peak RSS", "seconds");
        println!("{}", row("spillbuffer", &spilled));
        println!("{}", row("memory queue", &queued));
    }
    Ok([&spilled, &queued].iter().all(|report| report["match"] == true)
        && spilled["sha256_out"] == queued["sha256_out"])
}

/// Does the work once in a process of its own, and returns its report.
fn child(queue: Queue) -> Result<Value, Fault> {
    let queue = queue.to_possible_value().expect("every queue has a name");
    let through = format!("--through={}", queue.get_name());
    let what = format!("the run with {through} failed");
    let itself = env::current_exe().unwrap_or_else(|_| env::args_os().next().unwrap_or_default().into());
    let fail = |cause: &dyn std::fmt::Display| Fault::new(&itself, &what, cause);

    // Its own arguments come first, as a `--` may be among those that were given.
    let output = Command::new(&itself)
        .args(["--json", &through])
        .args(env::args_os().skip(1))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| fail(&e))?;
    if !output.status.success() {
        return Err(fail(&output.status));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| fail(&e))
}

fn row(name: &str, report: &Value) -> String {
    let rss = match report["peak_rss_kib"].as_u64() {
        Some(kib) => ByteSize::kib(kib).display().iec().to_string(),
        None => "unknown".into(),
    };
    let seconds = report["seconds"].as_f64().unwrap_or_default();
    let digest = report["sha256_out"].as_str().unwrap_or_default();
    format!("{name:<16}{rss:>12}{seconds:>11.1}  {digest}")
}
