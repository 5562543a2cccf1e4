//! Rounds in which everybody has a turn, and their figures. The machine's speed drifts: who is measured in the same
//! round has met the same machine.

use super::entry::{Entry, Work};
use crate::{
    chart::speeds::{Bar, Panel},
    content::Compare,
    pages,
};

/// A median with the least and the most.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median, least, most })
    }
}

/// Those who take part, with bytes a second of each round.
pub(crate) struct Contest {
    stream: u64,
    compare: Compare,
    speeds: Vec<(Entry, Vec<f64>)>,
}

impl Contest {
    /// With streams of so many bytes.
    pub(crate) fn new(stream: u64, compare: Compare) -> Self {
        Self { stream, compare, speeds: Vec::new() }
    }

    pub(crate) fn admit(&mut self, wanted: impl Fn(Entry) -> bool) {
        self.speeds = Entry::ALL.into_iter().filter(|entry| wanted(*entry)).map(|entry| (entry, Vec::new())).collect();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.speeds.is_empty()
    }

    /// A round on a shorter stream that counts for nothing, in which every byte is compared.
    pub(crate) fn rehearse(&mut self) {
        let stream = (self.stream >> 23).max(1) << 20;
        self.run(stream, Compare::All);
    }

    pub(crate) fn round(&mut self) {
        let speeds = self.run(self.stream, self.compare);
        for ((_, rounds), speed) in self.speeds.iter_mut().zip(speeds) {
            rounds.push(speed);
        }
    }

    fn run(&self, stream: u64, compare: Compare) -> Vec<f64> {
        let mut alone = f64::INFINITY;
        let run = |(entry, _): &(Entry, _)| {
            let job = entry.job(stream, compare);
            if entry.spills() {
                pages::warm(job.bytes);
            }
            // Where nothing but short streams are made, what malloc takes to align is all there is to see.
            pages::align_bulk(entry.work() != Work::Short);
            let speed = job.bytes as f64 / entry.run(job, alone).as_secs_f64();
            pages::align_bulk(false);
            if *entry == Entry::WriterAlone {
                alone = speed;
            }
            speed
        };
        self.speeds.iter().map(run).collect()
    }

    /// Bytes a second of each round; none of who did not take part.
    pub(crate) fn rounds(&self, of: Entry) -> &[f64] {
        self.speeds.iter().find(|(entry, _)| *entry == of).map_or(&[], |(_, rounds)| rounds)
    }

    /// The figures in GB/s, by work.
    pub(crate) fn figures(&self) -> impl Iterator<Item = (Work, Vec<(Entry, Spread)>)> {
        Work::ALL.into_iter().filter_map(|work| {
            let of_work = self.speeds.iter().filter(|(entry, _)| entry.work() == work);
            let figures: Vec<_> = of_work
                .filter_map(|(entry, rounds)| {
                    Some((*entry, Spread::of(rounds.iter().map(|speed| speed / 1e9).collect())?))
                })
                .collect();
            (!figures.is_empty()).then_some((work, figures))
        })
    }

    /// What a chart shows of them.
    pub(crate) fn bars(&self) -> Vec<Panel> {
        let drawn = self.figures().filter(|(work, _)| matches!(work, Work::Backlog | Work::Pipe));
        drawn
            .map(|(work, figures)| Panel {
                title: work.name(),
                bars: figures
                    .into_iter()
                    .map(|(entry, Spread { median, least, most })| Bar {
                        name: entry.contender(),
                        ours: entry.is_ours(),
                        median,
                        least,
                        most,
                    })
                    .collect(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between_the_middle_two() {
        let spread =
            |values: &[f64]| Spread::of(values.to_vec()).map(|spread| (spread.least, spread.median, spread.most));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0]), Some((1.0, 2.0, 4.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some((1.0, 2.5, 4.0)));
    }
}
