//! The rules behind the cases. Never asserts less than who was told what, and in which order.

use std::{
    cell::Cell,
    convert::Infallible,
    error::Error as _,
    io,
    pin::pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::SinkExt;
use spillbuffer::pipeline::{Interrupted, Outcome, Pipeline};
use spillbuffer::transform::{Flow, Map, Output, Transform, Within};
use spillbuffer::{SpillBuffer, SpillError, SpillPool};
use tokio::io::AsyncReadExt;

use crate::kit::*;
use crate::support::{Counting, KIB, MIB, Scratch, block_on, eventually, item, verify};

fn feed(log: &Log, steps: impl IntoIterator<Item = Step>) -> Pipeline<'static> {
    Pipeline::from_source(Feed::new(log, steps))
}

/// Nothing of a pool is held any more: not soon, but now.
#[track_caller]
fn is_empty(pool: &SpillPool) {
    let stats = pool.stats();
    assert_eq!((stats.in_memory, stats.on_disk), (0, 0), "{stats:?}");
    assert_eq!((stats.memory_held, stats.lent, stats.disk_held), (0, 0, 0), "{stats:?}");
}

/// Much more than fits into memory: a pattern of so many chunks of 64 KiB.
fn much(count: usize) -> Vec<Step> {
    (0..count).map(|i| Step::Give(item((i * 64 * KIB) as u64, 64 * KIB))).collect()
}

#[test]
fn rule_01_one_failure_settles_every_stage_once_and_nothing_is_held() {
    // Whoever fails: the source, three stages, a sink, or nobody but the user, who cancels.
    for who in 0..6 {
        let (scratch, log) = (Scratch::new(), Log::default());
        let pool = pool(&scratch);
        let stage = |i: usize| {
            let does = Does { fail_at: (who == i).then_some(30), ..Does::default() };
            Probe::with(&log, format!("t{i}"), does)
        };
        let mut steps = much(40);
        steps.push(if who == 0 { fail(0) } else { Step::Sleep });
        let pipeline = feed(&log, steps).then("t1", stage(1)).spill("one", pool.buffer());
        let pipeline = pipeline.then("t2", stage(2)).spill("two", pool.buffer()).then("t3", stage(3));
        let plan = Plan { most: Some(64 * KIB), fail_write: (who == 4).then_some(30), ..Plan::default() };
        let run = pipeline.into_drain(Bin::with(&log, plan));
        let handle = run.handle();
        let mut run = pin!(run.run());
        let mut cancelled = false;
        let ended = block_on(std::future::poll_fn(|cx| {
            let polled = run.as_mut().poll(cx);
            if who == 5 && !cancelled && log.got().len() > 20 * 64 * KIB {
                cancelled = true;
                handle.cancel(Planned(5));
                cx.waker().wake_by_ref();
            }
            polled
        }));
        // At this moment, and not somewhat later.
        is_empty(&pool);
        let error = ended.unwrap_err();
        assert!(error.find::<Planned>().is_some(), "{who}: {error:?}");
        let at = [Some(0), Some(1), Some(3), Some(5), Some(6), None][who];
        assert_eq!(error.index(), at, "{who}: {error:?}");
        assert!(error.suppressed().is_empty(), "{who}: {:?}", error.suppressed());
        log.sink_first_but(&[["source", "t1", "t2", "t3", "", ""][who]], error.cause());
        log.all_closed(&["source", "t1", "t2", "t3", "sink"]);
        verify(0, &log.got());
    }
}

#[test]
fn rule_02_a_consequence_yields_to_the_cause_behind_it() {
    // The writer of the source's buffer is dropped because the sink has failed: seen by the source first.
    let log = Log::default();
    let (writer, reader) = SpillBuffer::new().into_split();
    let plan = Plan { fail_flush: true, ..Plan::default() };
    drop(writer);
    let error = block_on(Pipeline::from_spill(reader).into_drain(Bin::with(&log, plan)).run()).unwrap_err();
    assert_eq!((error.stage(), error.find()), (Some("sink"), Some(&Planned(101))), "{error:?}");
    let [cut] = error.suppressed() else { panic!("{:?}", error.suppressed()) };
    assert_eq!((&*cut.stage, cut.index), ("source", 0));
    assert!(matches!(cut.cause.downcast_ref(), Some(SpillError::WriterDropped)));

    // Two real ones: the first counts.
    both(|middle| {
        let log = Log::default();
        let broken = Probe::with(&log, "t", Does { fail_at: Some(0), ..Does::default() });
        let plan = Plan { fail_flush: true, ..Plan::default() };
        let steps = chunks(1).into_iter().chain([fail(2)]);
        let run = middle.put(feed(&log, steps).then("t", broken)).into_drain(Bin::with(&log, plan));
        failed(block_on(run.run()), "t", 1, 0);
    });
}

/// A sink with streams of its own tells them why, as does a user who cancels several pipelines at once.
#[test]
fn rule_02_a_cause_that_is_shared_keeps_its_type_wherever_it_is_handed_on() {
    both(|middle| {
        let cause: Cause = std::sync::Arc::new(Planned(2));
        let log = Log::default();
        let (writer, mut reader) = SpillBuffer::new().into_split();
        let (other, mut others) = SpillBuffer::new().into_split();
        let run = middle.put(feed(&log, [Step::Sleep])).into_spill(writer);
        run.handle().cancel(Cause::clone(&cause));
        other.fail(Cause::clone(&cause));
        let error = cancelled(block_on(run.run()), 2);
        assert!(same(error.cause(), &*cause));
        for reader in [&mut reader, &mut others] {
            let met = block_on(reader.next_chunk()).unwrap_err();
            let met = met.source().unwrap().downcast_ref::<Planned>().unwrap();
            assert!(std::ptr::eq(met, cause.downcast_ref().unwrap()));
        }

        // A source, a stage and a closure give it back.
        for who in 0..3 {
            let fails = |i| (i == who).then(|| Cause::clone(&cause));
            let steps = chunks(1).into_iter().chain(fails(0).map(|cause| Step::Fail(cause.into())));
            let (mut stage, mut sink) = (fails(1), fails(2));
            let map = Map::new(move |chunk| stage.take().map_or(Ok(chunk), Err));
            let run = middle.put(feed(&log, steps).then("map", map)).for_each(move |_| {
                let failure = sink.take();
                async { failure.map_or(Ok(std::ops::ControlFlow::Continue(())), Err) }
            });
            let error = block_on(run.run()).unwrap_err();
            assert!(same(error.cause(), &*cause), "{who}: {error:?}");
        }
    });
}

#[test]
fn rule_03_the_sink_is_told_first_and_overtakes_what_waits() {
    let (scratch, log) = (Scratch::new(), Log::default());
    let pool = pool(&scratch);
    let gate = Gate::default();
    let plan = Plan { write_gate: Some(gate.clone()), most: Some(1000), ..Plan::default() };
    let failing = Gate::default();
    let steps = much(64).into_iter().chain([Step::Wait(failing.clone()), fail(3)]);
    let run = feed(&log, steps).spill("spill", pool.buffer()).into_drain(Bin::with(&log, plan));
    let handle = run.handle();
    let mut run = pin!(run.run());
    let counting = Counting::new();
    // Four MiB wait in the spill stage, behind a sink that has taken a thousand bytes.
    gate.open();
    while handle.stages()[1].bytes_in < 4 * MIB as u64 {
        let before = counting.wakes();
        assert!(run.as_mut().poll(&mut Context::from_waker(&counting.waker())).is_pending());
        if counting.wakes() == before && handle.stages()[1].bytes_in < 4 * MIB as u64 {
            counting.wait_beyond(before);
        }
    }
    assert!(pool.stats().on_disk > 0);
    failing.open();
    let error = failed(block_on(run), "source", 0, 3);
    is_empty(&pool);
    assert!(!log.got().is_empty() && log.got().len() < MIB, "{}", log.got().len());
    verify(0, &log.got());
    log.sink_first_but(&["source"], error.cause());

    // A writer of a spill is told, and its reader gets nothing of the backlog but the cause.
    let log = Log::default();
    let (writer, mut reader) = SpillBuffer::new().into_split();
    let steps = chunks(3).into_iter().chain([fail(4)]);
    failed(block_on(feed(&log, steps).into_spill(writer).run()), "source", 0, 4);
    let told = block_on(reader.next_chunk()).unwrap_err();
    assert_eq!(told.source().unwrap().downcast_ref(), Some(&Planned(4)));
}

#[test]
fn rule_04_a_stream_cut_short_is_never_an_end() {
    both(|middle| {
        let (mut writer, reader) = SpillBuffer::new().into_split();
        block_on(writer.write_bytes(Bytes::from_static(b"half a mess"))).unwrap();
        drop(writer);
        let (out, mut got) = SpillBuffer::new().into_split();
        let error = block_on(middle.put(Pipeline::from_spill(reader)).into_spill(out).run()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.report().stages()[0].bytes_out, 11);
        assert!(block_on(got.read_to_end(&mut Vec::new())).is_err(), "an end was made of it");
    });
}

#[test]
fn rule_05_what_comes_before_is_dropped_while_the_sink_is_still_closing() {
    both(|middle| {
        let (log, more, close) = (Log::default(), Gate::default(), Gate::default());
        let steps = chunks(5).into_iter().chain([Step::Wait(more.clone())]).chain(chunks(5));
        let plan = Plan { close_gate: Some(close.clone()), ..Plan::default() };
        let pipeline = middle.put(feed(&log, steps)).then("take", Take(20));
        let mut run = pin!(pipeline.into_drain(Bin::with(&log, plan)).run());
        let counting = Counting::new();
        settle(run.as_mut(), &counting);
        assert_eq!((log.count("drop source"), log.count("close")), (1, 0), "{:?}", log.events());
        // What it would have given is no failure.
        more.open();
        settle(run.as_mut(), &counting);
        close.open();
        let report = block_on(run).unwrap();
        assert_eq!((stopped(&report), log.got()), (Some(20), bytes_of(5)[..20].to_vec()));
        assert!(report.suppressed().is_empty(), "{:?}", report.suppressed());
    });
}

#[test]
fn rule_05_to_have_had_enough_is_a_success_and_no_broken_pipe() {
    both(|middle| {
        // A stage, the sink, and a stage behind a spill stage that holds more.
        let log = Log::default();
        let mut pipeline = middle.put(feed(&log, chunks(5).into_iter().chain([Step::Sleep])));
        let key = pipeline.stage("take", Take(20));
        let run = pipeline.then("t", Probe::new(&log, "t")).into_drain(Bin::new(&log));
        let mut report = block_on(run.run()).unwrap();
        assert_eq!((stopped(&report), log.got()), (Some(20), bytes_of(5)[..20].to_vec()));
        assert_eq!(report.take(key), Some("enough"));
        assert_eq!(report.take(key), None, "a value is had once");
        assert!(report.suppressed().is_empty());
        assert_eq!((log.count("close"), log.count("finish t"), log.count("abort")), (1, 1, 0));

        let log = Log::default();
        let plan = Plan { most: Some(8), enough: Some(16), ..Plan::default() };
        let run = middle.put(feed(&log, chunks(5).into_iter().chain([Step::Sleep]))).into_drain(Bin::with(&log, plan));
        let report = block_on(run.run()).unwrap();
        assert_eq!((stopped(&report), log.got()), (Some(16), bytes_of(2).to_vec()));
        assert_eq!((log.count("close"), log.count("abort")), (1, 0));
        assert!(report.suppressed().is_empty());
        log.all_closed(&["source", "sink"]);

        // A broken pipe is an error.
        let log = Log::default();
        let plan = Plan { fail_write: Some(0), kind: Some(io::ErrorKind::BrokenPipe), ..Plan::default() };
        let steps = chunks(5).into_iter().chain([Step::Sleep]);
        let error = block_on(middle.put(feed(&log, steps)).into_drain(Bin::with(&log, plan)).run()).unwrap_err();
        assert_eq!((error.kind(), error.stage()), (io::ErrorKind::BrokenPipe, Some("sink")));
    });
    // The stop is upstream of the spill stage.
    let log = Log::default();
    let pipeline = feed(&log, chunks(5).into_iter().chain([Step::Sleep])).then("take", Take(20));
    let report = block_on(Middle::Spill.put(pipeline).into_drain(Bin::new(&log)).run()).unwrap();
    assert_eq!((stopped(&report), log.got()), (Some(20), bytes_of(5)[..20].to_vec()));
}

#[test]
fn rule_06_a_cancel_has_a_cause_and_so_have_the_times() {
    both(paused_rule_06);
    both(|middle| {
        // A future of the user's.
        let log = Log::default();
        let gate = Gate::default();
        let waits = gate.clone();
        let stop = async move {
            std::future::poll_fn(|cx| waits.poll(cx)).await;
            Planned(6)
        };
        let run = middle.put(feed(&log, [Step::Sleep])).into_drain(Bin::new(&log)).cancel_on(stop);
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        gate.open();
        let error = cancelled(block_on(run), 6);
        log.sink_first(error.cause());

        // The first cancel counts, whoever gives it; after the end it does nothing.
        let log = Log::default();
        let run = middle.put(feed(&log, [Step::Sleep])).into_drain(Bin::new(&log));
        run.handle().cancel(Planned(7));
        run.handle().cancel(Planned(8));
        cancelled(block_on(run.run()), 7);
        let run = middle.put(feed(&log, [])).into_drain(Bin::new(&log));
        let handle = run.handle();
        assert_eq!(block_on(run.run()).unwrap().outcome(), Outcome::Completed);
        handle.cancel(Planned(9));

        // Dropped, both before it was polled and while it waits.
        for polled in [false, true] {
            let log = Log::default();
            let run = middle.put(feed(&log, chunks(1).into_iter().chain([Step::Sleep])));
            let run = run.then("t", Probe::new(&log, "t")).into_drain(Bin::new(&log));
            {
                let mut run = pin!(run.run());
                if polled {
                    settle(run.as_mut(), &Counting::new());
                }
            }
            let told = log.told("sink");
            assert_eq!(told.downcast_ref(), Some(&Interrupted::Dropped));
            log.sink_first(&*told);
            assert!(same(&*log.told("source"), &*told));
            log.all_closed(&["source", "t", "sink"]);
        }
    });
}

/// A stage that made gigabytes of some KiB once ran past its deadline, and nobody else had a turn.
#[test]
fn rule_06_whoever_interrupts_has_a_turn_however_much_a_stage_makes_of_little() {
    both(|middle| {
        let log = Log::default();
        let steps = [Step::Give(Bytes::from(vec![0; 64_000]))];
        let run = middle.put(feed(&log, steps).then("inflate", Inflate { left: 0 })).into_drain(Bin::new(&log));
        let handle = run.handle();
        let mut run = pin!(run.run());
        let woken = Counting::new();
        assert!(run.as_mut().poll(&mut Context::from_waker(&woken.waker())).is_pending());
        let made = handle.stages()[1].bytes_out;
        assert!(made > 0 && made <= 32 * 64 * KIB as u64 && woken.wakes() > 0, "{made}");
        handle.cancel(Planned(6));
        cancelled(block_on(run), 6);
    });
    // Who reads it takes part in tokio's budget.
    paused(async {
        let mut reader = Pipeline::from_iter(std::iter::repeat_n(bytes_of(1), 10_000)).into_reader();
        let mut read = 0;
        std::future::poll_fn(|cx| {
            while let Poll::Ready(Ok(Some(_))) = pin!(reader.next_chunk()).poll(cx) {
                read += 1;
            }
            Poll::Ready(())
        })
        .await;
        assert!((1..1000).contains(&read), "{read} chunks in one turn");
    });
}

fn paused_rule_06(middle: Middle) {
    let limit = Duration::from_secs(5);
    paused(async {
        let log = Log::default();
        let run = middle.put(feed(&log, chunks(1).into_iter().chain([Step::Sleep]))).into_drain(Bin::new(&log));
        let begun = tokio::time::Instant::now();
        let error = run.deadline(limit).run().await.unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::Deadline { limit: l, .. }) if *l == limit));
        assert_eq!((error.index(), error.kind()), (None, io::ErrorKind::TimedOut));
        assert!(begun.elapsed() >= limit && begun.elapsed() < limit * 2);
        log.sink_first(error.cause());
        log.all_closed(&["source", "sink"]);

        // What moves is not idle, however long it takes in all; what stands still is.
        let log = Log::default();
        let (gates, mut steps) = ([Gate::default(), Gate::default(), Gate::default()], Vec::new());
        for (gate, chunk) in gates.iter().zip(chunks(3)) {
            steps.extend([Step::Wait(gate.clone()), chunk]);
        }
        steps.push(Step::Sleep);
        let run = middle.put(feed(&log, steps)).into_drain(Bin::new(&log)).idle_timeout(limit);
        let open = async {
            for gate in &gates {
                tokio::time::sleep(limit.saturating_sub(Duration::from_millis(100))).await;
                gate.open();
            }
        };
        let begun = tokio::time::Instant::now();
        let (ended, ()) = tokio::join!(run.run(), open);
        let error = ended.unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::Idle { .. })), "{error:?}");
        assert_eq!(log.got(), bytes_of(3));
        assert!(begun.elapsed() >= (limit * 4).saturating_sub(Duration::from_millis(300)), "{:?}", begun.elapsed());
        log.sink_first(error.cause());
    });
}

#[test]
fn rule_07_a_finish_may_give_bytes_and_its_error_is_no_end() {
    both(|middle| {
        for fail_finish in [false, true] {
            let log = Log::default();
            let last = Probe::with(&log, "last", Does { tail: b"tail", fail_finish, ..Does::default() });
            let steps = chunks(2);
            let run = middle.put(feed(&log, steps).then("last", last)).into_drain(Bin::new(&log));
            let ended = block_on(run.run());
            let all = [bytes_of(2), b"tail"].concat();
            if fail_finish {
                let error = failed(ended, "last", 1, 103);
                assert!(all.starts_with(&log.got()));
                assert!(middle.is_spill() || log.got() == all, "what was put before the error comes before it");
                log.sink_first_but(&["source", "last"], error.cause());
            } else {
                ended.unwrap();
                assert_eq!(log.got(), all);
                assert!(log.count("flush") > 0 && log.at("flush") < log.at("close"));
            }
        }
    });
}

#[test]
fn rule_07_a_flush_is_awaited() {
    both(|middle| {
        for closes in [true, false] {
            let (log, gate) = (Log::default(), Gate::default());
            let plan = Plan { flush_gate: Some(gate.clone()), ..Plan::default() };
            let run = middle.put(feed(&log, chunks(2))).into_drain(Bin::with(&log, plan));
            let run = if closes { run } else { run.keep_open() };
            let mut run = pin!(run.run());
            settle(run.as_mut(), &Counting::new());
            assert_eq!((log.got(), log.count("flush"), log.count("close")), (bytes_of(2).to_vec(), 0, 0));
            gate.open();
            block_on(run).unwrap();
            assert_eq!((log.count("flush"), log.count("close")), (1, usize::from(closes)), "{:?}", log.events());
        }
    });
}

#[test]
fn rule_08_a_slow_close_has_a_limit_and_a_failed_one_is_told() {
    both(|middle| {
        paused(async {
            let log = Log::default();
            let plan = Plan { close_gate: Some(Gate::default()), ..Plan::default() };
            let run = middle.put(feed(&log, chunks(2))).into_drain(Bin::with(&log, plan));
            let limit = Duration::from_secs(7);
            let begun = tokio::time::Instant::now();
            let error = run.close_limit(limit).run().await.unwrap_err();
            assert!(begun.elapsed() >= limit && begun.elapsed() < limit * 2);
            assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::CloseTimeout { .. })), "{error:?}");
            assert_eq!((error.stage(), error.kind()), (Some("sink"), io::ErrorKind::TimedOut));
            log.sink_first_but(&["source"], error.cause());
        });
        for (fail_flush, k) in [(true, 101), (false, 102)] {
            let log = Log::default();
            let plan = Plan { fail_flush, fail_close: true, ..Plan::default() };
            let run = middle.put(feed(&log, chunks(2))).into_drain(Bin::with(&log, plan)).sink_named("file");
            failed(block_on(run.run()), "file", middle.behind(1), k);
            log.all_closed(&["source", "sink"]);
        }
    });
}

/// Nobody has asked for a time, and tokio's panics where there is none: a process without unwinding was gone.
#[test]
fn rule_08_the_usual_limit_asks_no_runtime_for_time_that_may_have_none() {
    thread_local!(static PANICS: Cell<usize> = const { Cell::new(0) });
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        hook(info);
    }));
    both(|middle| {
        let (log, gate) = (Log::default(), Gate::default());
        let plan = Plan { close_gate: Some(gate.clone()), ..Plan::default() };
        let run = middle.put(feed(&log, chunks(2))).into_drain(Bin::with(&log, plan));
        let mut run = pin!(run.run());
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
            settle(run.as_mut(), &Counting::new());
            gate.open();
            run.await.unwrap();
        });
    });
    assert_eq!(PANICS.get(), 0);

    // A test need not wait for it.
    paused(async {
        let log = Log::default();
        let plan = Plan { close_gate: Some(Gate::default()), ..Plan::default() };
        let begun = tokio::time::Instant::now();
        let error = feed(&log, chunks(2)).into_drain(Bin::with(&log, plan)).run().await.unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::CloseTimeout { .. })), "{error:?}");
        assert!((30..31).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    });
}

#[test]
fn rule_08_limits_on_time_hold_without_a_runtime_too() {
    let limit = Duration::from_millis(20);
    both(|middle| {
        let (log, gate) = (Log::default(), Gate::default());
        let plan = Plan { close_gate: Some(gate), ..Plan::default() };
        let run = middle.put(feed(&log, chunks(2))).into_drain(Bin::with(&log, plan));
        let error = block_on(run.close_limit(limit).run()).unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::CloseTimeout { .. })), "{error:?}");

        let stuck = || {
            let log = Log::default();
            middle.put(feed(&log, chunks(1).into_iter().chain([Step::Sleep]))).into_drain(Bin::new(&log))
        };
        let error = block_on(stuck().deadline(limit).run()).unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::Deadline { .. })), "{error:?}");
        let error = block_on(stuck().idle_timeout(limit).run()).unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(Interrupted::Idle { .. })), "{error:?}");
    });
}

#[test]
fn rule_09_what_is_kept_open_is_handed_back_also_after_an_error() {
    both(|middle| {
        let log = Log::default();
        let mut sink = Vec::new();
        let steps = chunks(3).into_iter().chain([Step::Pend, fail(9)]);
        let run = middle.put(feed(&log, steps)).into_writer(&mut sink).keep_open();
        let (drain, ended) = block_on(run.run_with_sink());
        failed(ended, "source", 0, 9);
        let sink = drain.into_inner();
        assert!(bytes_of(3).starts_with(sink));

        // Of a spill's writer its reader sees nothing: neither an end nor a cause.
        let (writer, mut reader) = SpillBuffer::new().into_split();
        let steps = chunks(1).into_iter().chain([Step::Wait(Gate::default())]);
        let run = middle.put(feed(&log, steps)).into_spill(writer).keep_open();
        let handle = run.handle();
        let mut run = pin!(run.run_with_sink());
        settle(run.as_mut(), &Counting::new());
        handle.cancel(Planned(10));
        let (drain, ended) = block_on(run);
        cancelled(ended, 10);
        let mut writer = drain.into_inner();
        block_on(writer.write_bytes(Bytes::from_static(b"more"))).unwrap();
        writer.finish().unwrap();
        let mut got = Vec::new();
        block_on(reader.read_to_end(&mut got)).unwrap();
        assert_eq!(got, [bytes_of(1), b"more"].concat());
    });
}

#[test]
fn rule_10_what_is_dead_at_the_start_is_an_error_and_no_hang() {
    both(|middle| {
        let log = Log::default();
        let (writer, reader) = SpillBuffer::new().into_split();
        drop(reader);
        let error = block_on(middle.put(feed(&log, [Step::Sleep])).into_spill(writer).run()).unwrap_err();
        assert!(matches!(error.cause().downcast_ref(), Some(SpillError::ReaderDropped)), "{error:?}");
        log.all_closed(&["source"]);

        let log = Log::default();
        let (writer, reader) = SpillBuffer::new().into_split();
        writer.fail(Planned(10));
        let error = block_on(middle.put(Pipeline::from_spill(reader)).into_drain(Bin::new(&log)).run()).unwrap_err();
        assert_eq!((error.index(), error.find()), (Some(0), Some(&Planned(10))));
        log.sink_first(error.cause());

        // A sink of chunks that was closed already.
        let log = Log::default();
        let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
        drop(receiver);
        let sink = futures_util::sink::unfold(sender, |sender, chunk| async move {
            sender.send(chunk).await.map_err(io::Error::other)?;
            Ok::<_, io::Error>(sender)
        });
        let run =
            middle.put(feed(&log, chunks(1).into_iter().chain([Step::Sleep]))).into_sink(Box::pin(sink.buffer(1)));
        assert_eq!(block_on(run.run()).unwrap_err().stage(), Some("sink"));
        log.all_closed(&["source"]);
    });
}

/// A byte becomes a thousand.
struct Inflate {
    left: usize,
}

impl Transform for Inflate {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        loop {
            while self.left > 0 {
                let put = output.put_slice(&[0; 1000][..self.left]);
                self.left -= put;
                if put == 0 {
                    return Ok(Flow::Full);
                }
            }
            if input.is_empty() {
                return Ok(Flow::Continue);
            }
            input.advance(1);
            self.left = 1000;
        }
    }

    fn into_value(self) {}
}

#[test]
fn rule_11_however_much_a_transform_inflates_memory_is_bounded() {
    both(|middle| {
        let log = Log::default();
        // A million bytes of a thousand are not there at once, and a sink that takes nothing sees no second chunk made.
        let steps = [Step::Give(Bytes::from(vec![0; 4000]))];
        let gate = Gate::default();
        let plan = Plan { write_gate: Some(gate.clone()), ..Plan::default() };
        let run = feed(&log, steps).then("inflate", Inflate { left: 0 });
        let run = if middle.is_spill() {
            run.spill("spill", SpillBuffer::builder().memory_limit(MIB).build().unwrap())
        } else {
            run
        };
        let run = run.into_drain(Bin::with(&log, plan));
        let handle = run.handle();
        let mut run = pin!(run.run());
        if !middle.is_spill() {
            settle(run.as_mut(), &Counting::new());
            assert!(handle.stages()[1].bytes_out <= 64 * KIB as u64, "{:?}", handle.stages());
        }
        gate.open_for_good();
        let report = block_on(run).unwrap();
        assert_eq!(log.got().len(), 4_000_000);
        assert!(log.got().iter().all(|byte| *byte == 0));
        let most = *log.sizes().iter().max().unwrap();
        assert!(most <= 64 * KIB, "a chunk of {most} bytes");
        assert_eq!((report.stages()[1].bytes_in, report.stages()[1].bytes_out), (4000, 4_000_000));
    });
}

#[test]
fn rule_12_nothing_is_buffered_but_where_a_spill_stage_says_so() {
    for middle in [Middle::Plain, Middle::Spill] {
        let log = Log::default();
        let plan = Plan { write_gate: Some(Gate::default()), ..Plan::default() };
        let pipeline = feed(&log, chunks(20)).then("a", Probe::new(&log, "a")).then("b", Probe::new(&log, "b"));
        let run = middle.put(pipeline).then("c", Probe::new(&log, "c")).into_drain(Bin::with(&log, plan));
        let handle = run.handle();
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        let stages = handle.stages();
        // One chunk is on its way; a spill stage has the rest.
        let taken = if middle.is_spill() { 160 } else { 8 };
        assert!(stages[..3].iter().all(|stage| stage.bytes_out == taken), "{stages:?}");
        assert_eq!(log.asked(), if middle.is_spill() { 21 } else { 1 });
        let names: Vec<_> = stages.iter().map(|stage| &*stage.name).collect();
        assert_eq!(names.contains(&"spill"), middle.is_spill());
        assert_eq!(stages.last().unwrap().bytes_in, 0);
    }
}

/// A chunk that was advanced to its end kept its memory until the next one came: of a buffer that is a block, for as long as the
/// source liked.
#[test]
fn rule_12_what_has_gone_on_is_let_go_of_while_the_source_waits() {
    /// Takes what it is given a byte at a time.
    struct Bytewise;

    impl Transform for Bytewise {
        type Value = ();
        type Error = Infallible;

        fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
            while !input.is_empty() {
                if output.put_slice(&input[..1]) == 0 {
                    return Ok(Flow::Full);
                }
                input.advance(1);
            }
            Ok(Flow::Continue)
        }

        fn into_value(self) {}
    }

    let log = Log::default();
    let chunk = item(0, 8 * KIB);
    let source = || feed(&log, [Step::Give(chunk.clone()), Step::Sleep]);
    let mut run = pin!(source().into_drain(Bin::new(&log)).run());
    settle(run.as_mut(), &Counting::new());
    assert!(chunk.is_unique(), "a drain");
    let mut run = pin!(source().into_writer(tokio::io::sink()).run());
    settle(run.as_mut(), &Counting::new());
    assert!(chunk.is_unique(), "a writer");
    let (writer, _reader) = SpillBuffer::new().into_split();
    let mut run = pin!(source().into_spill(writer).run());
    settle(run.as_mut(), &Counting::new());
    assert!(chunk.is_unique(), "a buffer");
    let mut run = pin!(source().then("bytewise", Bytewise).into_vec().run());
    settle(run.as_mut(), &Counting::new());
    assert!(chunk.is_unique(), "a transform");
    let mut reader = source().into_reader();
    block_on(reader.read_exact(&mut [0; 8 * KIB])).unwrap();
    assert!(chunk.is_unique(), "a reader");
    let mut pipeline = source();
    let _branch = pipeline.branch("branch", SpillBuffer::new());
    let mut run = pin!(pipeline.into_writer(tokio::io::sink()).run());
    settle(run.as_mut(), &Counting::new());
    assert!(chunk.is_unique(), "a branch");
}

#[test]
fn rule_13_backpressure_reaches_the_source() {
    let log = Log::default();
    let gate = Gate::default();
    let plan = Plan { write_gate: Some(gate.clone()), ..Plan::default() };
    let run = feed(&log, chunks(20)).then("a", Probe::new(&log, "a")).into_drain(Bin::with(&log, plan));
    let mut run = pin!(run.run());
    let counting = Counting::new();
    for written in 1..=20 {
        settle(run.as_mut(), &counting);
        assert_eq!((log.asked(), log.sizes().len()), (written, written - 1));
        gate.open();
    }
    block_on(run).unwrap();

    // A spill stage that is full passes it on, too.
    let (scratch, log) = (Scratch::new(), Log::default());
    let buffer = scratch.builder(64 * KIB).disk_limit(0).build().unwrap();
    let plan = Plan { write_gate: Some(Gate::default()), ..Plan::default() };
    let run = feed(&log, much(100)).spill("spill", buffer).into_drain(Bin::with(&log, plan));
    let handle = run.handle();
    let mut run = pin!(run.run());
    settle(run.as_mut(), &counting);
    assert!(handle.stages()[0].bytes_out <= 3 * 64 * KIB as u64, "{:?}", handle.stages());
}

#[test]
fn rule_14_a_panic_aborts_the_sink_releases_everything_and_goes_on() {
    for who in 0..5 {
        let (scratch, log) = (Scratch::new(), Log::default());
        let pool = pool(&scratch);
        let stage = |i: usize| {
            let does = Does { panic_at: (who == i).then_some(20), ..Does::default() };
            Probe::with(&log, format!("t{i}"), does)
        };
        let steps = much(40).into_iter().chain([if who == 0 { Step::Panic } else { Step::Sleep }]);
        let pipeline = feed(&log, steps).then("t1", stage(1)).spill("spill", pool.buffer()).then("t2", stage(2));
        let plan = Plan { most: Some(64 * KIB), panic_write: (who == 3).then_some(20), ..Plan::default() };
        let run = pipeline.into_drain(Bin::with(&log, plan));
        // The fifth is a panic of the future that cancels.
        let run = if who == 4 { run.cancel_on(panicking()) } else { run };
        panics(|| block_on(run.run()));
        let told = log.told("sink");
        assert_eq!(told.downcast_ref(), Some(&Interrupted::Panicked), "{who}");
        log.sink_first(&*told);
        log.all_closed(&["source", "t1", "t2", "sink"]);
        verify(0, &log.got());
        // Nobody is there to wait for what is on its way to the disk.
        eventually("everything is given back", || pool.stats().memory_held == 0 && pool.stats().disk_held == 0);
    }
}

#[expect(clippy::unused_async, reason = "a future is wanted, and it must panic when it is polled")]
async fn panicking() -> Planned {
    panic!("planned")
}

/// Errors after the end are in the report, and no other error is lost.
#[test]
fn rule_14_errors_beside_the_end_are_in_the_report() {
    both(|middle| {
        let log = Log::default();
        let mut pipeline = middle.put(feed(&log, chunks(4)));
        let (small, scratch) = (SpillBuffer::builder().memory_limit(64 * KIB), Scratch::new());
        let branch = pipeline.branch("copy", small.temp_dir(scratch.path()).build().unwrap());
        let gone = branch.for_each(|_| async { Err(Planned(14)) });
        let (main, side) = block_on(async { tokio::join!(pipeline.into_drain(Bin::new(&log)).run(), gone.run()) });
        failed(side, "sink", 1, 14);
        // Whether the main one has still written to it is not said; that it did not fail is.
        let report = main.unwrap();
        assert_eq!(log.got(), bytes_of(4));
        assert!(report.suppressed().iter().all(|failure| failure.stage == "copy"), "{:?}", report.suppressed());
    });
    // What befalls the main one befalls its branch, with the cause.
    let log = Log::default();
    let mut pipeline = feed(&log, chunks(4).into_iter().chain([fail(15)]));
    let branch = pipeline.branch("copy", SpillBuffer::new());
    let copy = Log::default();
    let (main, side) = block_on(async {
        tokio::join!(pipeline.into_drain(Bin::new(&log)).run(), branch.into_drain(Bin::new(&copy)).run())
    });
    let error = failed(main, "source", 0, 15);
    let side = side.unwrap_err();
    assert!(matches!(side.find(), Some(SpillError::WriterFailed { .. })), "{side:?}");
    assert!(std::ptr::eq(side.find::<Planned>().unwrap(), error.find::<Planned>().unwrap()));
    assert_eq!((side.stage(), copy.count("close"), copy.count("abort")), (Some("copy"), 0, 1));
    assert!(bytes_of(4).starts_with(&copy.got()));
    // And its end is the end, for which the branch need not wait until the main one's sink has closed.
    let (log, copy, close) = (Log::default(), Log::default(), Gate::default());
    let mut pipeline = feed(&log, chunks(4));
    let branch = pipeline.branch("copy", SpillBuffer::new());
    let plan = Plan { close_gate: Some(close.clone()), ..Plan::default() };
    let mut main = pin!(pipeline.into_drain(Bin::with(&log, plan)).run());
    settle(main.as_mut(), &Counting::new());
    block_on(branch.into_drain(Bin::new(&copy)).run()).unwrap();
    close.open();
    block_on(main).unwrap();
    assert_eq!((log.got(), copy.got(), copy.count("close")), (bytes_of(4).to_vec(), bytes_of(4).to_vec(), 1));
}

/// A branch of a pipeline that had enough once ended cleanly in the middle of a line.
#[test]
fn rule_04_a_branch_that_was_cut_short_is_told() {
    let cut = |by: &dyn Fn(Pipeline<'static>) -> Outcome, whole: bool| {
        let (log, copy) = (Log::default(), Log::default());
        let mut pipeline = feed(&log, chunks(5).into_iter().chain((!whole).then_some(Step::Sleep)));
        let branch = pipeline.branch("copy", SpillBuffer::new());
        let outcome = by(pipeline);
        (outcome, block_on(branch.into_drain(Bin::new(&copy)).run()), copy)
    };
    let take = |pipeline: Pipeline<'static>| {
        block_on(pipeline.then("take", Take(20)).into_drain(Bin::new(&Log::default())).run()).unwrap().outcome()
    };
    let behind_a_spill = |pipeline: Pipeline<'static>| take(pipeline.spill("spill", SpillBuffer::new()));
    let sink = |pipeline: Pipeline<'static>| {
        let enough = |_| async { Ok::<_, Planned>(std::ops::ControlFlow::Break(())) };
        block_on(pipeline.for_each(enough).run()).unwrap().outcome()
    };
    let read = |pipeline: Pipeline<'static>| {
        let mut reader = pipeline.then("take", Take(20)).into_reader();
        let mut all = Vec::new();
        block_on(reader.read_to_end(&mut all)).unwrap();
        reader.report().unwrap().outcome()
    };
    for by in [&take as &dyn Fn(_) -> _, &behind_a_spill, &sink, &read] {
        let (outcome, side, copy) = cut(by, false);
        assert!(matches!(outcome, Outcome::Stopped { .. }));
        let side = side.unwrap_err();
        assert!(matches!(side.find(), Some(SpillError::WriterFailed { .. })), "{side:?}");
        assert_eq!(side.find(), Some(&Interrupted::Stopped));
        assert_eq!((copy.count("close"), copy.count("abort")), (0, 1));
        assert!(bytes_of(5).starts_with(&copy.got()));
    }
    // All of it has passed before somebody behind a spill had enough.
    let (outcome, side, copy) = cut(&behind_a_spill, true);
    assert!(matches!(outcome, Outcome::Stopped { .. }));
    assert_eq!((side.unwrap().outcome(), copy.got()), (Outcome::Completed, bytes_of(5).to_vec()));
    // Whoever has enough before the branch says where its end is.
    let (log, copy) = (Log::default(), Log::default());
    let mut pipeline = feed(&log, chunks(5).into_iter().chain([Step::Sleep])).then("take", Take(20));
    let branch = pipeline.branch("copy", SpillBuffer::new());
    block_on(pipeline.into_drain(Bin::new(&log)).run()).unwrap();
    block_on(branch.into_drain(Bin::new(&copy)).run()).unwrap();
    assert_eq!(copy.got(), bytes_of(5)[..20].to_vec());
}

#[test]
fn rule_15_every_stage_counts_and_shows_it() {
    both(|middle| {
        let log = Log::default();
        let gate = Gate::default();
        let steps = chunks(3).into_iter().chain([Step::Wait(gate.clone())]).chain(chunks(2));
        let mut pipeline = feed(&log, steps).named("upload");
        let key = pipeline.stage("tail", Probe::with(&log, "tail", Does { tail: b"tail", ..Does::default() }));
        let run = middle.put(pipeline).into_drain(Bin::new(&log)).sink_named("file");
        let handle = run.handle();
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        let all = |stages: &[spillbuffer::pipeline::StageReport]| {
            stages.iter().map(|stage| (stage.name.clone(), stage.bytes_in, stage.bytes_out)).collect::<Vec<_>>()
        };
        let expected = |source: u64, rest: u64| {
            let mut expected = vec![("upload".into(), source, source), ("tail".into(), source, rest)];
            expected.extend(middle.is_spill().then(|| ("spill".into(), rest, rest)));
            expected.push((String::from("file"), rest, rest));
            expected
        };
        assert_eq!(all(&handle.stages()), expected(24, 24));
        gate.open();
        let mut report = block_on(run).unwrap();
        assert_eq!(all(report.stages()), expected(40, 44));
        assert_eq!(all(&handle.stages()), expected(40, 44));
        assert!(report.stages()[0].waited > Duration::ZERO && report.stages()[0].waited <= report.elapsed());
        assert_eq!(report.take(key).as_deref(), Some("tail"));
    });
}

/// A handle showed nothing of a wait before that was over, and the report nothing of one that a failure had ended.
#[test]
fn rule_15_what_is_waited_for_is_seen_while_it_is_and_in_the_end() {
    for fails in [false, true] {
        let (scratch, log, gate) = (Scratch::new(), Log::default(), Gate::default());
        // The spill is full, and the sink takes nothing; the source is always ready.
        let buffer = scratch.builder(64 * KIB).disk_limit(0).build().unwrap();
        let plan = Plan { write_gate: Some(gate.clone()), ..Plan::default() };
        let pipeline = feed(&log, much(10)).spill("spill", buffer).then("t", Probe::new(&log, "t"));
        let run = pipeline.into_drain(Bin::with(&log, plan));
        let handle = run.handle();
        let waited = || handle.stages().iter().map(|stage| stage.waited).collect::<Vec<_>>();
        let mut run = pin!(run.run());
        settle(run.as_mut(), &Counting::new());
        let before = waited();
        assert!(before[1] > Duration::ZERO && before[3] > Duration::ZERO, "{before:?}");
        eventually("it is seen to grow", || waited()[1] > before[1] && waited()[3] > before[3]);
        let before = waited();
        assert_eq!((before[0], before[2]), (Duration::ZERO, Duration::ZERO));
        let report = if fails {
            handle.cancel(Planned(15));
            cancelled(block_on(run), 15).report().stages().to_vec()
        } else {
            gate.open_for_good();
            block_on(run).unwrap().stages().to_vec()
        };
        let in_the_end: Vec<_> = report.iter().map(|stage| stage.waited).collect();
        assert!(in_the_end[1] >= before[1] && in_the_end[3] >= before[3], "{in_the_end:?}, {before:?} before");
        assert_eq!(waited(), in_the_end, "it goes on after the end");
    }
}

#[test]
fn rule_15_nobody_waits_for_what_was_stopped() {
    let (scratch, log, close) = (Scratch::new(), Log::default(), Gate::default());
    let buffer = scratch.builder(64 * KIB).disk_limit(0).build().unwrap();
    let plan = Plan { close_gate: Some(close.clone()), ..Plan::default() };
    let steps = much(10).into_iter().chain([Step::Sleep]);
    let pipeline = feed(&log, steps).spill("spill", buffer).then("take", Take(20));
    let run = pipeline.into_drain(Bin::with(&log, plan));
    let handle = run.handle();
    let waited = || handle.stages().iter().map(|stage| stage.waited).collect::<Vec<_>>();
    let mut run = pin!(run.run());
    settle(run.as_mut(), &Counting::new());
    let before = waited();
    eventually("the sink's end is waited for", || waited()[3] > before[3]);
    assert_eq!(waited()[..3], before[..3]);
    close.open();
    assert_eq!(stopped(&block_on(run).unwrap()), Some(20));
}
