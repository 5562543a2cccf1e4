//! Every kind of source with every kind of sink, plain, with a spill and with a branch, in every manner of moving bytes, and a
//! failure at every call. Never asserts less than exact bytes, who failed, and that a pool holds nothing afterwards.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use spillbuffer::pipeline::{Outcome, Pipeline, PipelineError, Report};
use spillbuffer::transform::{Limit, PassThrough, Within};
use spillbuffer::{SpillError, SpillPool, SpillReader};
use tokio::io::AsyncReadExt;

use super::{MANNERS, Manner, Planned, WildReader, WildWriter, run};

/// A pipeline of the matrix.
#[derive(Debug, Clone, Copy)]
struct Line {
    from: From,
    via: Via,
    to: To,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    Read,
    BufRead,
    Stream,
    Iter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Via {
    Plain,
    Spill,
    Branch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Write,
    Sink,
    Spill,
    Each,
    Vec,
    Reader,
}

/// Who fails at a call: of those, who can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Source,
    Sink,
    Branch,
}

fn lines() -> impl Iterator<Item = Line> {
    let froms = [From::Read, From::BufRead, From::Stream, From::Iter];
    froms.into_iter().flat_map(|from| {
        [Via::Plain, Via::Spill, Via::Branch].into_iter().flat_map(move |via| {
            let tos = [To::Write, To::Sink, To::Spill, To::Each, To::Vec, To::Reader];
            tos.into_iter().map(move |to| Line { from, via, to })
        })
    })
}

/// In every line and every manner of its ends, `bytes` arrive.
#[track_caller]
pub fn arrive(bytes: &Bytes, pool: &SpillPool) {
    for line in lines() {
        for source in MANNERS {
            for sink in MANNERS {
                let came = run(Flow { line, bytes, pool, source, sink, branch: sink }.go());
                came.check_whole(bytes, &format!("{line:?} {source:?} {sink:?}"));
                is_empty(pool);
            }
        }
    }
}

/// In every line, each end fails at call 0, 1, 2, .. until a call is not reached any more: what has arrived is an exact prefix, the
/// error is that of the end, and nothing is held.
#[track_caller]
pub fn fail(bytes: &Bytes, pool: &SpillPool) {
    for line in lines() {
        for who in line.who() {
            for manner in MANNERS {
                let mut failures = 0;
                for k in 0.. {
                    assert!(k < 10_000, "every call fails");
                    let failing = Manner { fail_at: Some(k), ..manner };
                    let of = |end: Who| if end == who { failing } else { manner };
                    let (source, sink, branch) = (of(Who::Source), of(Who::Sink), of(Who::Branch));
                    let came = run(Flow { line, bytes, pool, source, sink, branch }.go());
                    is_empty(pool);
                    let what = format!("{line:?} {who:?} {failing:?}");
                    if !came.failed {
                        came.check_whole(bytes, &what);
                        break;
                    }
                    came.check_failed(line, who, k, bytes, &what);
                    failures += 1;
                }
                assert!(failures > 0, "{line:?} {who:?} {manner:?}: no call fails");
            }
        }
    }
}

#[track_caller]
fn is_empty(pool: &SpillPool) {
    let stats = pool.stats();
    assert_eq!((stats.buffers, stats.memory_held, stats.lent, stats.disk_held), (0, 0, 0, 0), "{stats:?}");
}

impl Line {
    /// An iterator and a vector never fail.
    fn who(self) -> impl Iterator<Item = Who> {
        let source = (self.from != From::Iter).then_some(Who::Source);
        let sink = (self.to != To::Vec).then_some(Who::Sink);
        let branch = (self.via == Via::Branch).then_some(Who::Branch);
        [source, sink, branch].into_iter().flatten()
    }

    fn sink_index(self) -> usize {
        if self.via == Via::Plain { 3 } else { 4 }
    }
}

/// A run of a line.
#[derive(Clone, Copy)]
struct Flow<'a> {
    line: Line,
    bytes: &'a Bytes,
    pool: &'a SpillPool,
    source: Manner,
    sink: Manner,
    branch: Manner,
}

/// What came of it.
struct Came {
    main: Arrived,
    branch: Option<Arrived>,
    /// The call that was to fail was reached.
    failed: bool,
}

/// What arrived at one sink.
#[derive(Default)]
struct Arrived {
    got: Vec<u8>,
    /// The sink was told that this is all.
    closed: bool,
    /// The call at which it was to fail was reached.
    failed: bool,
    /// None where the pipeline was a reader and its user dropped it.
    ended: Option<Result<Report, PipelineError>>,
}

impl Flow<'_> {
    async fn go(self) -> Came {
        let mut pipeline = self.source().then("pass", PassThrough::new());
        let mut branch = None;
        match self.line.via {
            Via::Plain => {}
            Via::Spill => pipeline = pipeline.spill("spill", self.pool.buffer()),
            Via::Branch => branch = Some(pipeline.branch("copy", self.pool.buffer())),
        }
        let pipeline = pipeline.then("limit", Limit::new(self.bytes.len() as u64));
        let branch = async {
            let branch = branch?;
            Some(write(branch, self.branch).await)
        };
        let (main, branch) = tokio::join!(self.sink(pipeline), branch);
        let of_source = |arrived: &Arrived| matches!(&arrived.ended, Some(Err(error)) if self.source.fail_at.is_some() && error.index() == Some(0));
        let failed = main.failed || of_source(&main) || branch.as_ref().is_some_and(|branch| branch.failed);
        Came { main, branch, failed }
    }

    fn source(self) -> Pipeline<'static> {
        let reader = WildReader::new(self.bytes.clone(), self.source);
        match self.line.from {
            From::Read => Pipeline::from_reader(reader),
            From::BufRead => Pipeline::from_buf_read(reader),
            From::Stream => Pipeline::from_stream(reader),
            From::Iter => {
                let piece = self.source.piece.min(self.bytes.len());
                let bytes = self.bytes.clone();
                let ends = (0..bytes.len()).step_by(piece);
                Pipeline::from_iter(ends.map(move |at| bytes.slice(at..(at + piece).min(bytes.len()))))
            }
        }
    }

    async fn sink(self, pipeline: Pipeline<'static>) -> Arrived {
        match self.line.to {
            To::Write => write(pipeline, self.sink).await,
            To::Sink => {
                let (drain, ended) = pipeline.into_sink(WildWriter::new(self.sink)).run_with_sink().await;
                Arrived::at(drain.into_inner(), ended)
            }
            To::Spill => {
                let (writer, reader) = self.pool.buffer().into_split();
                let (ended, read) = tokio::join!(pipeline.into_spill(writer).run(), read_spill(reader, self.sink));
                Arrived { ended: Some(ended), ..read }
            }
            To::Each => each(pipeline, self.sink).await,
            To::Vec => {
                let (drain, ended) = pipeline.into_vec().run_with_sink().await;
                Arrived { got: drain.into_inner(), closed: ended.is_ok(), failed: false, ended: Some(ended) }
            }
            To::Reader => read(pipeline, self.sink).await,
        }
    }
}

async fn write(pipeline: Pipeline<'static>, manner: Manner) -> Arrived {
    let (drain, ended) = pipeline.into_writer(WildWriter::new(manner)).run_with_sink().await;
    Arrived::at(drain.into_inner(), ended)
}

/// A closure that fails at a chunk fails as does a writer at a call.
async fn each(pipeline: Pipeline<'static>, manner: Manner) -> Arrived {
    let seen: Arc<Mutex<Arrived>> = Arc::default();
    let shared = Arc::clone(&seen);
    let mut calls = 0..;
    let each = pipeline.for_each(move |chunk: Bytes| {
        let (seen, call) = (Arc::clone(&shared), calls.next());
        async move {
            pend(manner).await;
            let mut seen = seen.lock().unwrap();
            seen.failed = manner.fail_at.is_some() && manner.fail_at == call;
            if seen.failed {
                return Err(Planned(manner.fail_at.unwrap()));
            }
            seen.got.extend_from_slice(&chunk);
            Ok(ControlFlow::Continue(()))
        }
    });
    let ended = each.run().await;
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    Arrived { closed: ended.is_ok(), ended: Some(ended), ..seen }
}

/// A spill's reader fails in that it cancels.
async fn read_spill(mut reader: SpillReader, manner: Manner) -> Arrived {
    let mut read = Arrived::default();
    for call in 0.. {
        pend(manner).await;
        if manner.fail_at == Some(call) {
            read.failed = true;
            reader.cancel(Planned(call));
            break;
        }
        let mut buffer = vec![0; manner.piece.min(4096)];
        match reader.read(&mut buffer).await {
            Ok(0) => {
                read.closed = true;
                break;
            }
            Ok(n) => read.got.extend_from_slice(&buffer[..n]),
            Err(error) => {
                assert!(matches!(SpillError::from_io(&error), Some(SpillError::WriterFailed { .. })), "{error:?}");
                break;
            }
        }
    }
    read
}

/// A pipeline's reader fails in that it is dropped.
async fn read(pipeline: Pipeline<'static>, manner: Manner) -> Arrived {
    let mut reader = pipeline.into_reader();
    let mut read = Arrived::default();
    for call in 0.. {
        pend(manner).await;
        if manner.fail_at == Some(call) {
            read.failed = true;
            break;
        }
        let mut buffer = vec![0; manner.piece.min(4096)];
        match reader.read(&mut buffer).await {
            Ok(0) => {
                read.closed = true;
                read.ended = Some(Ok(reader.report().unwrap()));
                break;
            }
            Ok(n) => read.got.extend_from_slice(&buffer[..n]),
            Err(error) => {
                read.ended = Some(Err(PipelineError::from_io(&error).unwrap().clone()));
                break;
            }
        }
    }
    read
}

/// Pending once, where that is its manner.
async fn pend(manner: Manner) {
    let mut pending = manner.pending;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut pending) {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
}

impl Arrived {
    fn at(sink: WildWriter, ended: Result<Report, PipelineError>) -> Self {
        let failed = sink.has_failed();
        assert!(!sink.closed || sink.flushed == sink.got.len(), "closed before it was flushed");
        Self { got: sink.got, closed: sink.closed, failed, ended: Some(ended) }
    }

    #[track_caller]
    fn check_whole(&self, bytes: &Bytes, what: &str) {
        assert!(self.got == *bytes && self.closed, "{what}: {} bytes", self.got.len());
        let report = self.ended.as_ref().unwrap().as_ref().unwrap();
        assert_eq!(report.outcome(), Outcome::Completed, "{what}");
        assert!(report.suppressed().is_empty(), "{what}: {report:?}");
        let len = bytes.len() as u64;
        assert!(
            report.stages().iter().all(|stage| (stage.bytes_in, stage.bytes_out) == (len, len)),
            "{what}: {report:?}"
        );
    }

    /// It has a prefix and knows that; the cause is `Planned(k)`.
    #[track_caller]
    fn check_cut(&self, k: usize, bytes: &Bytes, what: &str) -> &PipelineError {
        assert!(bytes.starts_with(&self.got), "{what}: wrong bytes");
        assert!(!self.closed, "{what}: ended cleanly");
        let error = self.ended.as_ref().unwrap().as_ref().expect_err(what);
        assert_eq!(error.find::<Planned>(), Some(&Planned(k)), "{what}: {error:?}");
        assert!(error.suppressed().is_empty(), "{what}: {error:?}");
        error
    }
}

impl Came {
    #[track_caller]
    fn check_whole(&self, bytes: &Bytes, what: &str) {
        self.main.check_whole(bytes, what);
        if let Some(branch) = &self.branch {
            branch.check_whole(bytes, what);
        }
    }

    #[track_caller]
    fn check_failed(&self, line: Line, who: Who, k: usize, bytes: &Bytes, what: &str) {
        let place = |error: &PipelineError| (error.stage().map(str::to_owned), error.index());
        if who == Who::Branch {
            // It harms nobody; whether the main one still wrote to it when it went is not said.
            let branch = self.branch.as_ref().unwrap();
            assert_eq!(place(branch.check_cut(k, bytes, what)), (Some("sink".into()), Some(1)), "{what}");
            assert!(self.main.got == *bytes && self.main.closed, "{what}");
            let report = self.main.ended.as_ref().unwrap().as_ref().unwrap();
            assert!(report.suppressed().iter().all(|failure| failure.stage == "copy"), "{what}: {report:?}");
            return;
        }
        let mut expected = match who {
            Who::Source => (Some("source".into()), Some(0)),
            _ => (Some("sink".into()), Some(line.sink_index())),
        };
        match &self.main.ended {
            // Its user dropped the reader.
            None => assert!(bytes.starts_with(&self.main.got), "{what}: wrong bytes"),
            // A spill's reader cancelled what had been written to its end: that is no failure of the pipeline's.
            Some(Ok(report)) => {
                assert!(line.to == To::Spill && who == Who::Sink && bytes.starts_with(&self.main.got), "{what}");
                assert_eq!(report.stages().last().unwrap().bytes_in, bytes.len() as u64, "{what}");
                self.branch.iter().for_each(|branch| branch.check_whole(bytes, what));
                return;
            }
            Some(Err(_)) => assert_eq!(place(self.main.check_cut(k, bytes, what)), expected, "{what}"),
        }
        let Some(branch) = &self.branch else { return };
        // Its branch gets all that has passed, and then the cause.
        assert!(branch.got.starts_with(&self.main.got) && bytes.starts_with(&branch.got), "{what}: wrong bytes");
        if branch.closed && who == Who::Sink {
            // The end had passed before the sink failed.
            branch.check_whole(bytes, what);
            return;
        }
        assert!(!branch.closed, "{what}: its branch ended cleanly");
        let error = branch.ended.as_ref().unwrap().as_ref().expect_err(what);
        expected = (Some("copy".into()), Some(0));
        assert_eq!(place(error), expected, "{what}: {error:?}");
        assert!(self.main.ended.is_none() || error.find() == Some(&Planned(k)), "{what}: {error:?}");
    }
}
