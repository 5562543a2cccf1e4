//! The cases, each twice: plain, and with a spill stage in the middle. Never asserts less than exact bytes and the
//! identity of the cause.

use std::{
    error::Error,
    io,
    ops::ControlFlow,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use spillbuffer::pipeline::{Handle, Interrupted, Outcome, Pipeline};
use spillbuffer::transform::{PassThrough, Source};
use spillbuffer::{SpillBuffer, SpillError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::kit::*;
use crate::support::{Counting, block_on};
use crate::wild::run;

fn feed(log: &Log, steps: impl IntoIterator<Item = Step>) -> Pipeline<'static> {
    Pipeline::from_source(Feed::new(log, steps))
}

#[test]
fn case_01_a_plain_copy_is_done_after_the_sink_has_finished() {
    both(|middle| {
        let log = Log::default();
        let mut steps = chunks(50);
        steps.insert(10, Step::Pend);
        steps.insert(20, Step::Give(Bytes::new()));
        let run = middle.put(feed(&log, steps)).into_drain(Bin::new(&log));
        let report = block_on(run.run()).unwrap();
        assert_eq!(report.outcome(), Outcome::Completed);
        assert_eq!(log.got(), bytes_of(50));
        assert!(log.at("close") < log.at("drop sink"));
        assert_eq!((log.count("close"), log.count("abort"), log.count("cancel")), (1, 0, 0));
        if !middle.is_spill() {
            assert_eq!(log.sizes(), [8; 50]);
        }
        log.all_closed(&["source", "sink"]);
    });
}

#[test]
fn case_02_too_few_stages_do_not_compile_and_do_nothing() {
    // Where the type had a `run` of its own, that would be called and this would not compile.
    trait NotThere: Sized {
        fn run(self) -> &'static str {
            "there is none"
        }
    }
    impl NotThere for Pipeline<'_> {}
    both(|middle| {
        let log = Log::default();
        assert_eq!(middle.put(feed(&log, chunks(1))).run(), "there is none");
        assert_eq!((log.asked(), log.events()), (0, vec!["drop source".into()]));
    });
}

#[test]
fn case_03_a_source_that_ends_without_its_end_mark_is_an_error() {
    both(|middle| {
        let log = Log::default();
        let (mut writer, reader) = SpillBuffer::new().into_split();
        block_on(writer.write_all(bytes_of(5))).unwrap();
        drop(writer);
        let run = middle.put(Pipeline::from_spill(reader)).into_drain(Bin::new(&log));
        let error = block_on(run.run()).unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(SpillError::WriterDropped)), "{error:?}");
        assert_eq!((error.index(), error.kind()), (Some(0), io::ErrorKind::UnexpectedEof));
        let got = log.got();
        assert!(got == bytes_of(5) || (middle.is_spill() && bytes_of(5).starts_with(&got)));
        assert_eq!(error.report().stages()[0].bytes_out, 40, "the bytes so far are told");
        log.sink_first_but(&["source"], error.cause());
    });
}

#[test]
fn case_04_a_source_that_fails_is_that_error() {
    both(|middle| {
        let log = Log::default();
        let mut steps = chunks(5);
        steps.push(fail(5));
        let run = middle.put(feed(&log, steps).named("upload")).into_drain(Bin::new(&log));
        let error = failed(block_on(run.run()), "upload", 0, 5);
        log.sink_first_but(&["source"], error.cause());
        let got = log.got();
        assert!(bytes_of(5).starts_with(&got) && (middle.is_spill() || got.len() == 40));
        assert!(error.suppressed().is_empty(), "{:?}", error.suppressed());
        // It keeps its type as an io::Error, too.
        let error = io::Error::from(error);
        let error = spillbuffer::pipeline::PipelineError::from_io(&error).unwrap();
        assert_eq!(error.find(), Some(&Planned(5)));
        log.all_closed(&["source", "sink"]);
    });
}

#[test]
fn case_05_a_transform_fails_and_every_stage_closes_with_it() {
    // Before the spill and behind it.
    for behind in [false, true] {
        both(|middle| {
            let log = Log::default();
            let broken = Probe::with(&log, "broken", Does { fail_at: Some(3), ..Does::default() });
            let mut steps = chunks(5);
            // So that behind a spill, which may join chunks, there are four.
            for at in 1..=5 {
                steps.insert(at * 2 - 1, Step::Pend);
            }
            steps.push(Step::Sleep);
            let mut pipeline = feed(&log, steps).then("before", Probe::new(&log, "before"));
            let index = if behind {
                pipeline = middle.put(pipeline).then("broken", broken);
                middle.behind(2)
            } else {
                pipeline = middle.put(pipeline.then("broken", broken));
                2
            };
            let run = pipeline.then("after", Probe::new(&log, "after")).into_drain(Bin::new(&log));
            let error = failed(block_on(run.run()), "broken", index, 3);
            log.sink_first_but(&["broken"], error.cause());
            assert!(same(&*log.told("source"), error.cause()));
            assert!(bytes_of(3).starts_with(&log.got()));
            assert!(middle.is_spill() || log.got() == bytes_of(3));
            log.all_closed(&["source", "before", "broken", "after", "sink"]);
        });
    }
}

#[test]
fn case_06_the_sink_fails_on_its_tenth_write_and_all_eight_close() {
    both(|middle| {
        let log = Log::default();
        let names = ["t1", "t2", "t3", "t4", "t5", "t6"];
        let mut pipeline = feed(&log, chunks(20).into_iter().chain([Step::Sleep]));
        for (i, name) in names.iter().enumerate() {
            if i == 3 {
                pipeline = middle.put(pipeline);
            }
            pipeline = pipeline.then(*name, Probe::new(&log, *name));
        }
        let plan = Plan { most: Some(8), fail_write: Some(9), ..Plan::default() };
        let ended = block_on(pipeline.into_drain(Bin::with(&log, plan)).run());
        let error = failed(ended, "sink", middle.behind(7), 9);
        assert_eq!(log.got(), bytes_of(9));
        log.sink_first(error.cause());
        assert!(same(&*log.told("source"), error.cause()));
        log.all_closed(&names);
        log.all_closed(&["source", "sink"]);
    });
}

#[test]
fn case_07_a_peer_that_goes_away_destroys_the_source() {
    both(|middle| {
        let log = Log::default();
        let (near, far) = tokio::io::duplex(64);
        let gone = Mutex::new(Some(far));
        let mut steps = chunks(3);
        steps.push(Step::Pend);
        steps.push(Step::Do(Box::new(move || drop(gone.lock().unwrap().take()))));
        steps.extend(chunks(3));
        steps.push(Step::Sleep);
        let error = block_on(middle.put(feed(&log, steps)).into_writer(near).run()).unwrap_err();
        assert_eq!(error.cause().downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!((error.stage(), error.kind()), (Some("sink"), io::ErrorKind::BrokenPipe));
        assert!(same(&*log.told("source"), error.cause()));
        log.all_closed(&["source"]);
    });
}

#[test]
fn case_08_after_an_error_of_the_source_the_sink_never_finishes() {
    both(|middle| {
        // A writer sees no shutdown.
        let log = Log::default();
        let sink = crate::wild::WildWriter::new(crate::wild::MANNERS[0]);
        let run = middle.put(feed(&log, chunks(3).into_iter().chain([fail(3)]))).into_writer(sink);
        let (drain, ended) = block_on(run.run_with_sink());
        failed(ended, "source", 0, 3);
        let sink = spillbuffer::transform::Within::into_inner(drain);
        assert!(!sink.closed && bytes_of(3).starts_with(&sink.got));

        // A spill's reader meets the cause and no end, though its user drops nothing.
        let (writer, mut reader) = SpillBuffer::new().into_split();
        let run = middle.put(feed(&log, chunks(3).into_iter().chain([fail(4)]))).into_spill(writer);
        let error = failed(block_on(run.run()), "source", 0, 4);
        let met = block_on(reader.next_chunk()).unwrap_err();
        assert!(matches!(met, SpillError::WriterFailed { .. }), "{met:?}");
        let cause = met.source().unwrap().downcast_ref::<Planned>().unwrap();
        assert!(std::ptr::eq(cause, error.cause().downcast_ref::<Planned>().unwrap()));
    });
}

#[test]
fn case_09_cancelled_before_during_the_first_pull_and_mid_stream() {
    both(|middle| {
        // Before: nothing is polled.
        let log = Log::default();
        let run = middle.put(feed(&log, chunks(5))).then("t", Probe::new(&log, "t")).into_drain(Bin::new(&log));
        run.handle().cancel(Planned(1));
        let error = cancelled(block_on(run.run()), 1);
        assert_eq!((log.asked(), log.got()), (0, vec![]));
        log.sink_first(error.cause());
        log.all_closed(&["source", "t", "sink"]);

        // During the first pull, and after some chunks.
        for before in [0, 3] {
            let log = Log::default();
            let run =
                middle.put(feed(&log, chunks(before).into_iter().chain([Step::Sleep]))).into_drain(Bin::new(&log));
            let handle = run.handle();
            let mut run = pin!(run.run());
            let counting = Counting::new();
            settle(run.as_mut(), &counting);
            let wakes = counting.wakes();
            handle.cancel(Planned(2));
            assert!(counting.wakes() > wakes, "nobody was woken");
            let error = cancelled(block_on(run), 2);
            assert_eq!(log.got(), bytes_of(before));
            log.sink_first(error.cause());
            assert!(same(&*log.told("source"), error.cause()));
            log.all_closed(&["source", "sink"]);
        }
    });
}

#[test]
fn case_10_cancelled_after_the_sixth_chunk_exactly_six_are_delivered() {
    both(|middle| {
        let log = Log::default();
        let held: Arc<Mutex<Option<Handle>>> = Arc::default();
        let cancel = {
            let held = Arc::clone(&held);
            move || held.lock().unwrap().take().unwrap().cancel(Planned(6))
        };
        let plan = Plan { most: Some(8), after_write: Some((5, Box::new(cancel))), ..Plan::default() };
        let run = middle.put(feed(&log, chunks(20).into_iter().chain([Step::Sleep]))).into_drain(Bin::with(&log, plan));
        *held.lock().unwrap() = Some(run.handle());
        let error = cancelled(block_on(run.run()), 6);
        assert_eq!(log.got().len(), 48);
        assert_eq!(log.got(), bytes_of(6));
        log.sink_first(error.cause());
        log.all_closed(&["source", "sink"]);
    });
}

#[test]
fn case_11_a_cancel_while_the_source_or_the_sink_waits_is_prompt() {
    both(|middle| {
        for sink_waits in [false, true] {
            let log = Log::default();
            let gate = sink_waits.then(Gate::default);
            let plan = Plan { write_gate: gate, ..Plan::default() };
            let run = middle.put(feed(&log, chunks(1).into_iter().chain([Step::Sleep])));
            let run = run.into_drain(Bin::with(&log, plan));
            let handle = run.handle();
            let mut run = pin!(run.run());
            let counting = Counting::new();
            settle(run.as_mut(), &counting);
            let wakes = counting.wakes();
            handle.cancel(Planned(11));
            assert_eq!(counting.wakes(), wakes + 1);
            let ended = block_on(run);
            cancelled(ended, 11);
            log.all_closed(&["source", "sink"]);
        }
    });
}

#[test]
fn case_12_a_source_that_panics_destroys_the_sink() {
    both(|middle| {
        let log = Log::default();
        let steps = chunks(2).into_iter().chain([Step::Panic]);
        let run = middle.put(feed(&log, steps)).then("t", Probe::new(&log, "t")).into_drain(Bin::new(&log));
        panics(|| block_on(run.run()));
        let told = log.told("sink");
        assert_eq!(told.downcast_ref(), Some(&Interrupted::Panicked));
        log.sink_first(&*told);
        log.all_closed(&["source", "t", "sink"]);
    });
}

#[test]
fn case_13_a_consumer_that_fails_destroys_what_is_upstream() {
    both(|middle| {
        let log = Log::default();
        let pipeline = middle.put(feed(&log, chunks(3).into_iter().chain([Step::Sleep])));
        let run = pipeline.then("t", Probe::new(&log, "t")).for_each(|_| async { Err(Planned(13)) });
        let error = failed(block_on(run.run()), "sink", middle.behind(2), 13);
        assert!(same(&*log.told("source"), error.cause()));
        log.all_closed(&["source", "t"]);
    });
}

#[test]
fn case_14_a_consumer_that_stops_early_is_a_success() {
    both(|middle| {
        let log = Log::default();
        let count = Arc::new(AtomicUsize::new(0));
        let mut steps = chunks(3);
        steps.insert(1, Step::Pend);
        steps.push(Step::Sleep);
        let counts = Arc::clone(&count);
        let mut pipeline = middle.put(feed(&log, steps));
        let key = pipeline.stage("t", Probe::new(&log, "t"));
        let run = pipeline.for_each(move |chunk: Bytes| {
            let seen = counts.fetch_add(chunk.len(), Ordering::SeqCst) + chunk.len();
            async move { Ok::<_, Planned>(if seen >= 16 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }) }
        });
        let (each, ended) = block_on(run.run_with_sink());
        let mut report = ended.unwrap();
        let bytes = count.load(Ordering::SeqCst) as u64;
        assert_eq!(stopped(&report), Some(bytes));
        assert!(report.suppressed().is_empty(), "{:?}", report.suppressed());
        // The consumer is handed back; what was upstream has not ended, so there is no value of it.
        drop(each.into_inner());
        assert_eq!(report.take(key), None);
        assert_eq!(log.count("finish t"), 0);
        log.all_closed(&["source", "t"]);
    });
}

#[test]
fn case_15_a_source_that_closes_with_its_end_queued_is_a_success() {
    both(|middle| {
        let log = Log::default();
        let (mut writer, reader) = SpillBuffer::new().into_split();
        block_on(writer.write_all(bytes_of(30))).unwrap();
        writer.finish().unwrap();
        let report = block_on(middle.put(Pipeline::from_spill(reader)).into_drain(Bin::new(&log)).run()).unwrap();
        assert_eq!((report.outcome(), log.got()), (Outcome::Completed, bytes_of(30).to_vec()));
        assert_eq!(log.count("close"), 1);

        // That its writer is dropped behind the end makes no cut of it.
        let (mut writer, reader) = SpillBuffer::new().into_split();
        block_on(writer.write_all(bytes_of(30))).unwrap();
        block_on(writer.shutdown()).unwrap();
        drop(writer);
        let (drain, ended) = block_on(middle.put(Pipeline::from_spill(reader)).into_vec().run_with_sink());
        assert_eq!(ended.unwrap().outcome(), Outcome::Completed);
        assert_eq!(spillbuffer::transform::Within::into_inner(drain), bytes_of(30));

        let (mut near, far) = tokio::io::duplex(1000);
        block_on(near.write_all(bytes_of(30))).unwrap();
        drop(near);
        let (drain, ended) = block_on(middle.put(Pipeline::from_reader(far)).into_vec().run_with_sink());
        assert_eq!(ended.unwrap().outcome(), Outcome::Completed);
        assert_eq!(spillbuffer::transform::Within::into_inner(drain), bytes_of(30));
    });
}

#[test]
fn case_16_a_last_stage_dropped_by_its_user_is_a_premature_close() {
    both(|middle| {
        // The reader that the pipeline is.
        let log = Log::default();
        let pipeline = middle.put(feed(&log, chunks(2).into_iter().chain([Step::Sleep])));
        let mut reader = pipeline.then("t", Probe::new(&log, "t")).into_reader();
        let mut half = [0; 12];
        block_on(reader.read_exact(&mut half)).unwrap();
        assert_eq!(half, bytes_of(2)[..12]);
        drop(reader);
        assert_eq!(log.told("source").downcast_ref(), Some(&Interrupted::Dropped));
        log.all_closed(&["source", "t"]);

        // The reader of a spill: noticed even while the source sleeps.
        let log = Log::default();
        let (writer, reader) = SpillBuffer::new().into_split();
        let run = middle.put(feed(&log, chunks(2).into_iter().chain([Step::Sleep]))).into_spill(writer);
        let mut run = pin!(run.run());
        let counting = Counting::new();
        settle(run.as_mut(), &counting);
        drop(reader);
        let error = block_on(run).unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(SpillError::ReaderDropped)), "{error:?}");
        assert_eq!((error.stage(), error.index()), (Some("sink"), Some(middle.behind(1))));
        assert!(same(&*log.told("source"), error.cause()));
        log.all_closed(&["source"]);

        // One that was cancelled says why.
        let (writer, reader) = SpillBuffer::new().into_split();
        reader.cancel(Planned(16));
        let run = middle.put(feed(&log, [Step::Sleep])).into_spill(writer);
        let error = block_on(run.run()).unwrap_err();
        assert_eq!(error.find(), Some(&Planned(16)));
    });
}

#[test]
fn case_17_a_last_stage_that_is_still_readable_is_left_open() {
    both(|middle| {
        let log = Log::default();
        let (near, mut far) = tokio::io::duplex(1000);
        let (drain, ended) = block_on(middle.put(feed(&log, chunks(4))).into_writer(near).run_with_sink());
        ended.unwrap();
        let mut got = Vec::new();
        block_on(far.read_to_end(&mut got)).unwrap();
        assert_eq!(got, bytes_of(4));
        block_on(far.write_all(b"thanks")).unwrap();
        drop(far);
        let mut answer = String::new();
        block_on(spillbuffer::transform::Within::into_inner(drain).read_to_string(&mut answer)).unwrap();
        assert_eq!(answer, "thanks");
    });
}

/// Both sides of a connection; cancelled, it closes both.
struct Line(Arc<Mutex<Option<DuplexStream>>>);

impl Source for Line {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Box<dyn Error + Send + Sync>>>> {
        let mut line = self.0.lock().unwrap();
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(line.as_mut().unwrap()).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        Poll::Ready((!read.is_empty()).then(|| Ok(Bytes::copy_from_slice(read))))
    }

    fn cancel(&mut self, _: Cause) {
        *self.0.lock().unwrap() = None;
    }
}

#[test]
fn case_18_a_duplex_source_keeps_its_writable_side() {
    both(|middle| {
        // At its end, and where a stage has had enough of it; a failure closes both sides.
        for (enough, fails) in [(false, false), (true, false), (false, true)] {
            let (near, mut far) = tokio::io::duplex(1000);
            let line = Arc::new(Mutex::new(Some(near)));
            block_on(far.write_all(bytes_of(4))).unwrap();
            // Nothing is cancelled that has ended.
            if !enough && !fails {
                block_on(far.shutdown()).unwrap();
            }
            let pipeline = middle.put(Pipeline::from_source(Line(Arc::clone(&line))));
            let log = Log::default();
            let broken = Does { fail_at: fails.then_some(0), ..Does::default() };
            let pipeline = pipeline.then("broken", Probe::with(&log, "broken", broken));
            let run = pipeline.then("take", Take(if enough { 20 } else { 1000 })).into_drain(Bin::new(&log));
            let ended = block_on(run.run());
            let near = line.lock().unwrap().take();
            if fails {
                failed(ended, "broken", middle.behind(1), 0);
                assert!(near.is_none(), "it was not cancelled");
                continue;
            }
            ended.unwrap();
            assert_eq!(log.got(), &bytes_of(4)[..if enough { 20 } else { 32 }]);
            block_on(near.expect("its writable side is gone").write_all(b"got it")).unwrap();
            let mut answer = String::new();
            block_on(far.read_to_string(&mut answer)).unwrap();
            assert_eq!(answer, "got it");
        }

        // One that is lent as a reader is not closed either.
        let (mut near, mut far) = tokio::io::duplex(1000);
        block_on(async {
            far.write_all(bytes_of(4)).await.unwrap();
            far.shutdown().await.unwrap();
            let (drain, ended) = middle.put(Pipeline::from_reader(&mut near)).into_vec().run_with_sink().await;
            ended.unwrap();
            assert_eq!(spillbuffer::transform::Within::into_inner(drain), bytes_of(4));
            near.write_all(b"got it").await.unwrap();
            drop(near);
            let mut answer = String::new();
            far.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "got it");
        });
    });
}

#[test]
fn case_19_a_delayed_finish_is_awaited() {
    both(|middle| {
        let log = Log::default();
        let gate = Gate::default();
        let plan = Plan { close_gate: Some(gate.clone()), ..Plan::default() };
        let last = Probe::with(&log, "last", Does { tail: b"tail", ..Does::default() });
        let run = middle.put(feed(&log, chunks(2))).then("last", last).into_drain(Bin::with(&log, plan));
        let mut run = pin!(run.run());
        let counting = Counting::new();
        settle(run.as_mut(), &counting);
        assert_eq!(log.got(), [bytes_of(2), b"tail"].concat());
        assert_eq!((log.count("close"), log.count("finish last")), (0, 1));
        gate.open();
        block_on(run).unwrap();
        assert!(log.at("finish last") < log.at("close"));
        assert_eq!(log.events().iter().rev().find(|event| *event == "flush" || *event == "close").unwrap(), "close");
    });
}

#[test]
fn case_20_a_sink_that_is_kept_open_is_neither_ended_nor_aborted() {
    both(|middle| {
        for fails in [false, true] {
            let log = Log::default();
            let steps = chunks(3).into_iter().chain(fails.then(|| fail(20)));
            let run = middle.put(feed(&log, steps)).into_drain(Bin::new(&log)).keep_open();
            let (sink, ended) = block_on(run.run_with_sink());
            if fails {
                failed(ended, "source", 0, 20);
                assert!(bytes_of(3).starts_with(&log.got()));
            } else {
                assert_eq!(ended.unwrap().outcome(), Outcome::Completed);
                assert_eq!(log.got(), bytes_of(3));
                assert!(log.count("flush") > 0, "what it has is not flushed");
            }
            assert_eq!((log.count("close"), log.count("abort"), log.count("drop sink")), (0, 0, 0));
            // It goes on where it was.
            let before = log.got().len();
            block_on(Pipeline::from_iter(["more"]).into_drain(sink).run()).unwrap();
            assert_eq!((&log.got()[before..], log.count("close")), (&b"more"[..], 1));
        }
    });
}

#[test]
fn case_21_it_is_done_only_after_all_have_closed() {
    both(|middle| {
        let log = Log::default();
        let names: Vec<String> = (0..10).map(|i| format!("pass {i}")).collect();
        let gate = Gate::default();
        let mut pipeline = feed(&log, chunks(5));
        for (i, name) in names.iter().enumerate() {
            if i == 5 {
                pipeline = middle.put(pipeline);
            }
            pipeline = pipeline.then(name.as_str(), Probe::new(&log, name));
        }
        let plan = Plan { close_gate: Some(gate.clone()), ..Plan::default() };
        let mut run = pin!(pipeline.into_drain(Bin::with(&log, plan)).run());
        settle(run.as_mut(), &Counting::new());
        gate.open();
        block_on(run).unwrap();
        let ends: Vec<_> = log.events().into_iter().filter(|event| event.starts_with("finish")).collect();
        assert_eq!(ends, names.iter().map(|name| format!("finish {name}")).collect::<Vec<_>>());
        assert!(log.at("finish pass 9") < log.at("close"));
        assert_eq!(log.got(), bytes_of(5));
        log.all_closed(&["source", "sink"]);
        log.all_closed(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    });
}

#[test]
fn case_22_an_end_issued_while_being_destroyed_is_a_premature_close() {
    both(|middle| {
        // The end is there, but the cancel came before it was seen.
        let log = Log::default();
        let gate = Gate::default();
        let run = middle.put(feed(&log, chunks(2).into_iter().chain([Step::Wait(gate.clone())])));
        let run = run.into_drain(Bin::new(&log));
        let handle = run.handle();
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        handle.cancel(Planned(22));
        gate.open();
        let error = cancelled(block_on(run), 22);
        log.sink_first(error.cause());

        // A writer that failed and then says that it has finished.
        let log = Log::default();
        let (writer, reader) = SpillBuffer::new().into_split();
        writer.fail(Planned(23));
        assert!(writer.finish().is_err());
        let error = block_on(middle.put(Pipeline::from_spill(reader)).into_drain(Bin::new(&log)).run()).unwrap_err();
        assert_eq!((error.index(), error.find()), (Some(0), Some(&Planned(23))));
        assert_eq!(log.count("close"), 0);
    });
}

#[test]
fn case_23_the_same_duplex_at_both_ends_is_an_echo() {
    both(|middle| {
        // Far more than the connection holds.
        let (near, far) = tokio::io::duplex(64);
        let (read, write) = tokio::io::split(near);
        let (mut hear, mut say) = tokio::io::split(far);
        let echo = middle.put(Pipeline::from_reader(read)).into_writer(write).run();
        let talk = async {
            say.write_all(bytes_of(1000)).await.unwrap();
            say.shutdown().await.unwrap();
        };
        let listen = async {
            let mut back = Vec::new();
            hear.read_to_end(&mut back).await.unwrap();
            back
        };
        let (ended, (), back) = run(async { tokio::join!(echo, talk, listen) });
        assert_eq!(ended.unwrap().outcome(), Outcome::Completed);
        assert_eq!(back, bytes_of(1000));

        // Who says nothing more before it has heard the last word hears it, though the sink gathers what is written to it.
        let (near, mut far) = tokio::io::duplex(64);
        let (read, write) = tokio::io::split(near);
        let echo = middle.put(Pipeline::from_reader(read)).into_writer(tokio::io::BufWriter::new(write)).run();
        let talk = async {
            for at in 0..20 {
                let (word, mut back) = (&bytes_of(20)[at * 8..][..8], [0; 8]);
                far.write_all(word).await.unwrap();
                far.read_exact(&mut back).await.unwrap();
                assert_eq!(back, word);
            }
            far.shutdown().await.unwrap();
            assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        };
        let (ended, ()) = run(async { tokio::join!(echo, talk) });
        assert_eq!(ended.unwrap().stages().last().unwrap().bytes_out, 160);
    });
}

#[test]
fn case_24_later_errors_are_not_swallowed() {
    both(|middle| {
        // The sink sees a broken pipe first; behind it is the source's own error.
        let log = Log::default();
        let plan = Plan { fail_write: Some(0), kind: Some(io::ErrorKind::BrokenPipe), ..Plan::default() };
        let steps = chunks(1).into_iter().chain([fail(24)]);
        let run = middle.put(feed(&log, steps)).into_drain(Bin::with(&log, plan));
        let error = failed(block_on(run.run()), "source", 0, 24);
        let broken: Vec<_> = error.suppressed().iter().filter(|failure| failure.stage == "sink").collect();
        if !middle.is_spill() {
            // With a spill between, the source's error overtakes the write.
            assert_eq!((broken.len(), broken[0].index), (1, 1));
            assert!(broken[0].cause.downcast_ref::<io::Error>().is_some());
        }

        // A branch that fails harms nobody and is told.
        let log = Log::default();
        let mut pipeline = middle.put(feed(&log, chunks(4)));
        let branch = pipeline.branch("copy", SpillBuffer::new());
        drop(branch);
        let report = block_on(pipeline.into_drain(Bin::new(&log)).run()).unwrap();
        assert_eq!((log.got(), report.outcome()), (bytes_of(4).to_vec(), Outcome::Completed));
        let [failure] = report.suppressed() else { panic!("{:?}", report.suppressed()) };
        assert_eq!((&*failure.stage, failure.index), ("copy", middle.behind(1)));
        assert!(failure.cause.downcast_ref::<SpillError>().is_some());
    });
}

#[test]
fn case_25_a_stage_destroyed_before_it_was_consumed_is_premature_and_says_so_twice() {
    both(|middle| {
        let (writer, reader) = SpillBuffer::new().into_split();
        drop(writer);
        let mut reader = middle.put(Pipeline::from_spill(reader)).into_reader();
        let first = block_on(reader.next_chunk()).unwrap_err();
        assert!(matches!(first.cause().downcast_ref(), Some(SpillError::WriterDropped)));
        let again = block_on(reader.next_chunk()).unwrap_err();
        assert!(same(first.cause(), again.cause()));
        let read = block_on(reader.read(&mut [0; 4])).unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::UnexpectedEof);
        assert!(same(spillbuffer::pipeline::PipelineError::from_io(&read).unwrap().cause(), first.cause()));
        // And it cannot be asked for what it never had.
        assert!(reader.report().is_none());
    });
}

#[test]
fn case_26_an_abort_beats_the_error_after_it_and_loses_to_the_one_before_it() {
    both(|middle| {
        // Cancelled, then the source fails.
        let log = Log::default();
        let gate = Gate::default();
        let steps = chunks(1).into_iter().chain([Step::Wait(gate.clone()), fail(99)]);
        let run = middle.put(feed(&log, steps)).into_drain(Bin::new(&log));
        let handle = run.handle();
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        handle.cancel(Planned(26));
        gate.open();
        cancelled(block_on(run), 26);

        // What follows from the cancel is seen before it: whoever gave it has closed the connection, too.
        let log = Log::default();
        let held: Arc<Mutex<Option<Handle>>> = Arc::default();
        let cancel = Arc::clone(&held);
        let cancel = move || cancel.lock().unwrap().as_ref().unwrap().cancel(Planned(26));
        let broken = Step::Fail(io::Error::from(io::ErrorKind::BrokenPipe).into());
        let steps = chunks(1).into_iter().chain([Step::Pend, Step::Do(Box::new(cancel)), broken]);
        let run = middle.put(feed(&log, steps)).into_drain(Bin::new(&log));
        *held.lock().unwrap() = Some(run.handle());
        let error = cancelled(block_on(run.run()), 26);
        let [broken] = error.suppressed() else { panic!("{:?}", error.suppressed()) };
        assert_eq!((&*broken.stage, broken.index), ("source", 0));
        log.sink_first_but(&["source"], error.cause());

        // The source has failed; the cancel comes while that is told, and once more when all is over.
        let log = Log::default();
        let held: Arc<Mutex<Option<Handle>>> = Arc::default();
        let late = Arc::clone(&held);
        let source = Feed::new(&log, chunks(1).into_iter().chain([Step::Sleep]))
            .on_cancel(move || late.lock().unwrap().as_ref().unwrap().cancel(Planned(99)));
        let broken = Probe::with(&log, "broken", Does { fail_at: Some(0), ..Does::default() });
        let run = middle.put(Pipeline::from_source(source)).then("broken", broken).into_drain(Bin::new(&log));
        let handle = run.handle();
        *held.lock().unwrap() = Some(handle.clone());
        failed(block_on(run.run()), "broken", middle.behind(1), 0);
        handle.cancel(Planned(98));
    });
}

#[test]
fn case_27_pending_writes_complete_before_the_sink_is_told() {
    both(|middle| {
        // The end waits for the write that waits.
        let log = Log::default();
        let gate = Gate::default();
        let (waits, notes) = (gate.clone(), log.clone());
        let run = middle.put(feed(&log, chunks(1))).for_each(move |chunk| {
            let (gate, log) = (waits.clone(), notes.clone());
            async move {
                std::future::poll_fn(|cx| gate.poll(cx)).await;
                log.note(format!("took {}", chunk.len()));
                Ok::<_, Planned>(ControlFlow::Continue(()))
            }
        });
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        assert_eq!(log.count("took 8"), 0);
        gate.open();
        block_on(run).unwrap();
        assert_eq!(log.count("took 8"), 1);

        // A source's error waits for it, too; but it overtakes what waits in a spill stage.
        let log = Log::default();
        let gate = Gate::default();
        let plan = Plan { write_gate: Some(gate.clone()), ..Plan::default() };
        let source = feed(&log, chunks(1).into_iter().chain([Step::Pend, fail(27)]));
        let run = middle.put(source).then("pass", PassThrough::new()).into_drain(Bin::with(&log, plan));
        let mut run = pin!(run.run());
        if middle.is_spill() {
            failed(block_on(run), "source", 0, 27);
            assert_eq!(log.got(), b"");
        } else {
            settle(run.as_mut(), &Counting::new());
            assert_eq!(log.count("abort"), 0);
            gate.open();
            let error = failed(block_on(run), "source", 0, 27);
            assert_eq!(log.got(), bytes_of(1));
            assert!(log.at("write") < log.at("abort"));
            log.sink_first_but(&["source"], error.cause());
        }
    });
}
