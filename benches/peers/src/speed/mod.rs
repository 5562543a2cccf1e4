//! `peers speed`: who moves how many bytes a second, and whether this crate keeps what it promises itself.

mod cgroup;
mod contest;
mod entry;
mod lines;
mod report;

use std::error::Error;

use serde_json::json;

use crate::{
    chart::speeds,
    contenders,
    content::Compare,
    machine::Machine,
    options::{BacklogOptions, SpeedOptions},
    pages,
};
use contest::Contest;
use lines::{LINES, Verdict};

pub(crate) use cgroup::Store;

/// Measures, prints, draws. False where a line falls short.
pub(crate) fn compare(options: &SpeedOptions, machine: &Machine) -> Result<bool, Box<dyn Error>> {
    let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    let lines: Vec<_> = LINES.iter().filter(|line| wanted(line.what)).collect();
    let mut contest = Contest::new(options.mib << 20, if options.compare_all { Compare::All } else { Compare::Names });
    contest.admit(|entry| wanted(&entry.name()) || lines.iter().any(|line| line.needs(entry)));
    if contest.is_empty() && !wanted(cgroup::WHAT) {
        return Err(
            format!("Nothing that is measured has {:?} in its name.", options.only.as_deref().unwrap_or("")).into()
        );
    }
    for round in 0..=options.rounds {
        eprint!(
            "\r{}   ",
            if round == 0 { "comparing every byte".into() } else { format!("round {round} of {}", options.rounds) }
        );
        if round == 0 { contest.rehearse() } else { contest.round() }
    }
    eprintln!();
    let mut verdicts: Vec<_> = lines.iter().map(|line| line.judge(&contest)).collect();
    if wanted(cgroup::WHAT) {
        verdicts.push(cgroup::judge(options));
    }
    if options.json {
        let settings = json!({ "rounds": options.rounds, "mib": options.mib, "compare_all": options.compare_all });
        println!("{:#}", report::json(machine, &settings, &contest, &verdicts));
    } else {
        println!("{}", machine.text());
        println!(
            "{} rounds, streams of {} MiB; GB/s are 10^9 bytes written and read a second\n",
            options.rounds, options.mib
        );
        report::print(&contest, &verdicts);
    }
    if let Some(file) = &options.chart {
        let foot = format!("{}; {} rounds, streams of {} MiB", machine.text(), options.rounds, options.mib);
        speeds::draw(file, &contest.bars(), &foot)?;
    }
    Ok(verdicts.iter().all(Verdict::holds))
}

/// What runs within the cgroup: prints its seconds.
pub(crate) fn backlog(options: &BacklogOptions) {
    pages::align_bulk(true);
    let job = contenders::Job::new(options.mib << 20, 1 << 20, Compare::Names);
    let time = match options.store {
        Store::Spillbuffer => contenders::spilling(job),
        Store::Raw => contenders::raw(job),
    };
    println!("{}", time.as_secs_f64());
}
