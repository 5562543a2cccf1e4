//! Everything that is measured: who does what, with which settings. Never a figure.

use std::time::Duration;

use crate::{
    contenders::{self as by, Job},
    content::Compare,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The kinds of work. Within one all figures can be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Nobody reads until all is written.
    Backlog,
    /// The reader keeps up.
    Pipe,
    /// The same, read as `Bytes`.
    Chunks,
    /// The same, in small pieces.
    Small,
    /// Streams that are over after a piece.
    Short,
    /// The writer's time alone.
    Writer,
}

impl Work {
    pub(crate) const ALL: [Self; 6] = [Self::Backlog, Self::Pipe, Self::Chunks, Self::Small, Self::Short, Self::Writer];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backlog => "nobody reads until all is written, 64 KiB pieces",
            Self::Pipe => "reader keeps up, 64 KiB pieces",
            Self::Chunks => "reader keeps up and takes Bytes, 64 KiB pieces",
            Self::Small => "reader keeps up, 512-byte pieces",
            Self::Short => "streams of 4 KiB, one after another",
            Self::Writer => "the writer alone, 64 KiB pieces",
        }
    }

    /// Bytes of the work, for streams of so many.
    fn bytes(self, stream: u64) -> u64 {
        match self {
            Self::Backlog | Self::Pipe => stream,
            Self::Chunks => 4 * stream,
            Self::Small => stream / 4,
            // 20 streams for each MiB.
            Self::Short => stream / MIB as u64 * 20 * SHORT as u64,
            Self::Writer => 2 * stream,
        }
    }

    fn piece(self) -> usize {
        match self {
            Self::Small => 512,
            Self::Short => SHORT,
            _ => 64 * KIB,
        }
    }
}

const SHORT: usize = 4 * KIB;

/// A contender at a kind of work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Raw,
    Spilling,
    SpillingSmallWindow,
    SpillingUnverified,
    TwoThreads,
    TwoThreadsSmallWindow,
    TokioFile,
    AsyncSpooled,
    BlockingSpooled,
    ChannelBacklog,
    DuplexSmallWindow,
    PipeSmallWindow,
    CopiesSmallWindow,
    Duplex,
    Pipe,
    Copies,
    ChannelPipe,
    Chunks,
    OneCopy,
    ChannelChunks,
    DuplexSmall,
    Small,
    DuplexShort,
    Short,
    WriterAlone,
    WriterBeside,
}

#[allow(clippy::enum_glob_use, reason = "the tables below are easier to read")]
use Entry::*;

impl Entry {
    /// In the order in which they have their turns: those that are compared lie close together.
    pub(crate) const ALL: [Self; 26] = [
        Raw,
        Spilling,
        SpillingSmallWindow,
        SpillingUnverified,
        TwoThreads,
        TwoThreadsSmallWindow,
        TokioFile,
        AsyncSpooled,
        BlockingSpooled,
        ChannelBacklog,
        DuplexSmallWindow,
        PipeSmallWindow,
        CopiesSmallWindow,
        Duplex,
        Pipe,
        Copies,
        ChannelPipe,
        Chunks,
        OneCopy,
        ChannelChunks,
        DuplexSmall,
        Small,
        DuplexShort,
        Short,
        WriterAlone,
        WriterBeside,
    ];

    pub(crate) fn work(self) -> Work {
        match self {
            Raw
            | Spilling
            | SpillingSmallWindow
            | SpillingUnverified
            | TwoThreads
            | TwoThreadsSmallWindow
            | TokioFile
            | AsyncSpooled
            | BlockingSpooled
            | ChannelBacklog => Work::Backlog,
            DuplexSmallWindow | PipeSmallWindow | CopiesSmallWindow | Duplex | Pipe | Copies | ChannelPipe => {
                Work::Pipe
            }
            Chunks | OneCopy | ChannelChunks => Work::Chunks,
            DuplexSmall | Small => Work::Small,
            DuplexShort | Short => Work::Short,
            WriterAlone | WriterBeside => Work::Writer,
        }
    }

    pub(crate) fn contender(self) -> &'static str {
        match self {
            Spilling | Pipe | Small | Chunks => "spillbuffer, 1 MiB",
            SpillingSmallWindow | PipeSmallWindow => "spillbuffer, 256 KiB",
            SpillingUnverified => "spillbuffer, 1 MiB, verification off",
            Short => "spillbuffer",
            WriterAlone => "spillbuffer, nobody reading",
            WriterBeside => "spillbuffer, a reader at half its speed",
            Raw => "pwrite, then pread, 1 MiB calls",
            TwoThreads => "bare: two threads, copy and CRC32C, 1 MiB",
            TwoThreadsSmallWindow => "bare: two threads, copy and CRC32C, 256 KiB",
            CopiesSmallWindow => "bare: two copies by one thread, 256 KiB",
            Copies => "bare: two copies by one thread, 1 MiB",
            OneCopy => "bare: one copy by one thread, 1 MiB",
            TokioFile => "tokio::fs::File",
            AsyncSpooled => "async-spooled-tempfile, 1 MiB",
            BlockingSpooled => "SpooledTempFile on the blocking pool",
            ChannelBacklog | ChannelPipe | ChannelChunks => "unbounded channel of Bytes",
            DuplexSmallWindow => "tokio duplex, 256 KiB",
            Duplex | DuplexSmall => "tokio duplex, 1 MiB",
            DuplexShort => "tokio duplex, 64 KiB",
        }
    }

    pub(crate) fn is_ours(self) -> bool {
        self.contender().starts_with("spillbuffer")
    }

    /// What `--only` looks at.
    pub(crate) fn name(self) -> String {
        format!("{}: {}", self.work().name(), self.contender())
    }

    /// Whether it needs pages of the page cache.
    pub(crate) fn spills(self) -> bool {
        matches!(self.work(), Work::Backlog | Work::Writer)
    }

    pub(crate) fn job(self, stream: u64, compare: Compare) -> Job {
        let window = match self {
            SpillingSmallWindow | TwoThreadsSmallWindow | PipeSmallWindow | CopiesSmallWindow | DuplexSmallWindow => {
                256 * KIB
            }
            DuplexShort => 64 * KIB,
            _ => MIB,
        };
        let work = self.work();
        let job = Job::new(work.bytes(stream), window, compare);
        Job { piece: work.piece(), verify: self != SpillingUnverified, ..job }
    }

    /// `alone` is how fast the writer was alone in the same round, in bytes a second.
    pub(crate) fn run(self, job: Job, alone: f64) -> Duration {
        match self {
            Raw => by::raw(job),
            Spilling | SpillingSmallWindow | SpillingUnverified => by::spilling(job),
            TwoThreads | TwoThreadsSmallWindow => by::two_threads(job),
            Copies | CopiesSmallWindow => by::two_copies(job),
            OneCopy => by::one_copy(job),
            TokioFile => by::tokio_file(job),
            AsyncSpooled => by::async_spooled(job),
            BlockingSpooled => by::blocking_spooled(job),
            ChannelBacklog => by::channel_backlog(job),
            Duplex | DuplexSmall | DuplexSmallWindow => by::duplex_pipe(job),
            Pipe | Small | PipeSmallWindow => by::spillbuffer_pipe(job),
            ChannelPipe => by::channel_pipe(job),
            Chunks => by::spillbuffer_chunks(job),
            ChannelChunks => by::channel_chunks(job),
            DuplexShort => by::duplex_short(job),
            Short => by::spillbuffer_short(job),
            WriterAlone => by::writer_alone(job),
            WriterBeside => by::writer_beside(job, alone / 2.0),
        }
    }
}
