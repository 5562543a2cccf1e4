//! A long soak's memory and disk over time. Only draws: the soak is a test of the library's own.

use std::{error::Error, fs};

use crate::{
    chart::over_time::{Curves, draw as draw_over_time},
    machine::Machine,
    options::SoakOptions,
};

pub(crate) fn draw(options: &SoakOptions, machine: &Machine) -> Result<bool, Box<dyn Error>> {
    let (mut memory, mut disk) = (Vec::new(), Vec::new());
    for (at, line) in fs::read_to_string(&options.log)?.lines().enumerate() {
        let values: Vec<f64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [seconds, rss, _held, file] = values[..] else {
            return Err(format!("{}: line {} is not of a soak", options.log.display(), at + 1).into());
        };
        memory.push((seconds, rss / 1024.0));
        disk.push((seconds, file / 1024.0));
    }
    let most = |points: &[(f64, f64)]| points.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
    let (tenth, end) = (memory.len() / 10, memory.last().map_or(0.0, |(_, mib)| *mib));
    println!(
        "RSS: {:.1} MiB at most in the first tenth, {:.1} in all, {end:.1} at the end; disk {:.1} at most",
        most(&memory[..tenth]),
        most(&memory),
        most(&disk)
    );
    let curves = Curves {
        memory,
        disk,
        queue: Vec::new(),
        reader_begins: None,
        unit: "MiB",
        title: "A hundred random streams at a time over a disk that fails, pool after pool".into(),
        machine: machine.text(),
    };
    draw_over_time(&options.chart, &curves)?;
    Ok(true)
}
