//! `peers memory`: what a buffer takes of memory and disk, against what it may, and over time beside a queue in memory.

mod timeline;

use std::{env, error::Error};

use serde_json::{Value, json};

use crate::{
    ceilings::{self, Line, Sizes},
    chart::over_time::{self, Curves},
    machine::Machine,
    options::MemoryOptions,
    scenarios,
};
use timeline::Sample;

/// Does what a process of its own was started for.
pub(crate) fn run(scenario: &str, mib: u64) {
    assert!(timeline::run(scenario, mib) || scenarios::run(scenario, mib), "no scenario {scenario}");
}

/// Measures, prints, draws. False where a ceiling is broken.
pub(crate) fn compare(options: &MemoryOptions, machine: &Machine) -> Result<bool, Box<dyn Error>> {
    let mib = options.mib;
    // Eight times as much must not take more.
    let (backlog, smaller) =
        if env::var_os("PEERS_LONG").is_some_and(|long| long == "1") { (8 * mib, mib) } else { (mib, mib / 8) };
    let sizes = Sizes { backlog, smaller, stalled: mib.div_ceil(256), keeping_up: mib.div_ceil(4) };
    let lines = ceilings::lines(&sizes);
    let timelines = options.chart.as_ref().map(|_| (timeline::spillbuffer(mib / 2), timeline::queue(mib / 2)));
    if options.json {
        println!("{:#}", report(machine, mib, &lines, timelines.as_ref()));
    } else {
        println!("{}\n", machine.text());
        ceilings::print(&lines);
    }
    if let (Some(file), Some((ours, queue))) = (&options.chart, timelines) {
        over_time::draw(file, &curves(mib / 2, &ours, &queue, machine))?;
    }
    Ok(lines.iter().all(Line::holds))
}

fn curves(mib: u64, ours: &[Sample], queue: &[Sample], machine: &Machine) -> Curves {
    let memory = |samples: &[Sample]| samples.iter().map(|sample| (sample.seconds, sample.memory_mib)).collect();
    Curves {
        memory: memory(ours),
        disk: ours.iter().map(|sample| (sample.seconds, sample.disk_mib)).collect(),
        queue: memory(queue),
        reader_begins: Some(timeline::READER_BEGINS.as_secs_f64()),
        unit: "MiB, over the base",
        title: format!("{mib} MiB written evenly; the reader stands still for the first half"),
        machine: machine.text(),
    }
}

fn report(machine: &Machine, mib: u64, lines: &[Line], timelines: Option<&(Vec<Sample>, Vec<Sample>)>) -> Value {
    let lines: Vec<_> = lines
        .iter()
        .map(|Line { what, is, at_most, unit }| json!({ "what": what.trim_start(), "is": is, "at_most": at_most, "unit": unit }))
        .collect();
    let samples = |samples: &[Sample]| -> Value {
        samples.iter().map(|Sample { seconds, memory_mib, disk_mib }| json!([seconds, memory_mib, disk_mib])).collect()
    };
    let timelines = timelines.map(|(ours, queue)| json!({ "spillbuffer": samples(ours), "queue": samples(queue) }));
    json!({ "machine": machine.json(), "settings": { "mib": mib }, "lines": lines, "seconds_memory_mib_disk_mib": timelines })
}
