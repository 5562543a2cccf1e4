//! What this crate promises itself of its speed: each line against a peer, as a ratio.

use super::{
    contest::{Contest, Spread},
    entry::Entry,
};

/// A promise.
pub(crate) struct Line {
    pub what: &'static str,
    pub against: &'static str,
    ours: Entry,
    /// The fastest of a round counts.
    peers: &'static [Entry],
    at_least: f64,
    goal: Option<f64>,
    /// The same work by a bare loop, to compare with. What beats it shows that it is no ceiling.
    bare: Option<Entry>,
}

/// What came of it.
pub(crate) struct Verdict {
    pub what: &'static str,
    pub against: &'static str,
    /// Of the ratios within the rounds; none where it was not measured.
    pub ratio: Option<Spread>,
    /// The same for a bare loop in the place of this crate.
    pub bare: Option<Spread>,
    pub at_least: f64,
    pub goal: Option<f64>,
    /// What else is to be said.
    pub note: Option<String>,
    /// Whatever the ratio, this must not have happened.
    pub failed: bool,
}

const RAW: &str = "pwrite, then pread, 1 MiB calls";

pub(crate) const LINES: &[Line] = &[
    Line {
        what: "backlog, 1 MiB window",
        against: RAW,
        ours: Entry::Spilling,
        peers: &[Entry::Raw],
        at_least: 0.7,
        goal: Some(0.85),
        bare: Some(Entry::TwoThreads),
    },
    Line {
        what: "backlog, 256 KiB window",
        against: RAW,
        ours: Entry::SpillingSmallWindow,
        peers: &[Entry::Raw],
        at_least: 0.6,
        goal: Some(0.7),
        bare: Some(Entry::TwoThreadsSmallWindow),
    },
    Line {
        what: "backlog, 1 MiB window, against async files",
        against: "the faster of tokio::fs::File and async-spooled-tempfile",
        ours: Entry::Spilling,
        peers: &[Entry::TokioFile, Entry::AsyncSpooled],
        at_least: 3.0,
        goal: Some(4.0),
        bare: Some(Entry::TwoThreads),
    },
    Line {
        what: "keeping up, 64 KiB pieces, 256 KiB window",
        against: "tokio duplex, 256 KiB",
        ours: Entry::PipeSmallWindow,
        peers: &[Entry::DuplexSmallWindow],
        at_least: 1.0,
        goal: None,
        bare: Some(Entry::CopiesSmallWindow),
    },
    Line {
        what: "keeping up, 64 KiB pieces, 1 MiB window",
        against: "tokio duplex, 1 MiB",
        ours: Entry::Pipe,
        peers: &[Entry::Duplex],
        at_least: 1.5,
        goal: None,
        bare: Some(Entry::Copies),
    },
    Line {
        what: "keeping up, Bytes, 1 MiB window",
        against: "tokio duplex, 1 MiB, 64 KiB pieces",
        ours: Entry::Chunks,
        peers: &[Entry::Duplex],
        at_least: 3.0,
        goal: None,
        bare: Some(Entry::OneCopy),
    },
    Line {
        what: "keeping up, 512-byte pieces, 1 MiB window",
        against: "tokio duplex, 1 MiB",
        ours: Entry::Small,
        peers: &[Entry::DuplexSmall],
        at_least: 1.0,
        goal: None,
        bare: None,
    },
    Line {
        what: "made, 4 KiB written, finished, read, dropped",
        against: "tokio duplex, 64 KiB",
        ours: Entry::Short,
        peers: &[Entry::DuplexShort],
        at_least: 1.0,
        goal: None,
        bare: None,
    },
    Line {
        what: "the writer beside a reader at half its speed",
        against: "the writer with nobody reading",
        ours: Entry::WriterBeside,
        peers: &[Entry::WriterAlone],
        at_least: 0.9,
        goal: None,
        bare: None,
    },
    Line {
        what: "backlog, verification on",
        against: "verification off",
        ours: Entry::Spilling,
        peers: &[Entry::SpillingUnverified],
        at_least: 0.9,
        goal: None,
        bare: None,
    },
];

impl Line {
    pub(crate) fn needs(&self, entry: Entry) -> bool {
        self.ours == entry || self.peers.contains(&entry) || self.bare == Some(entry)
    }

    pub(crate) fn judge(&self, contest: &Contest) -> Verdict {
        let fastest = |round: usize| self.peers.iter().map(|peer| contest.rounds(*peer)[round]).fold(0.0, f64::max);
        let ratio = |of: Entry| {
            let ratios = contest.rounds(of).iter().enumerate().map(|(round, speed)| speed / fastest(round));
            Spread::of(ratios.collect())
        };
        Verdict {
            what: self.what,
            against: self.against,
            ratio: ratio(self.ours),
            bare: self.bare.and_then(ratio),
            at_least: self.at_least,
            goal: self.goal,
            note: None,
            failed: false,
        }
    }
}

impl Verdict {
    /// What was not measured is not broken.
    pub(crate) fn holds(&self) -> bool {
        !self.failed && self.ratio.is_none_or(|ratio| ratio.median >= self.at_least)
    }
}
