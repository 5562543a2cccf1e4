//! Pipelines that fail, over and over, and at every call of their ends. Never sleeps, and lets nothing grow.
//! `PIPELINE_LONG=1` fails five times as often; `PIPELINE_SEED` begins with the round that failed.
#![allow(missing_docs)]

#[path = "support/matrix.rs"]
mod matrix;
mod support;
#[path = "support/wild.rs"]
mod wild;

use std::{fs, pin::pin, sync::Mutex, task::Context, time::Duration};

use bytes::Bytes;
use spillbuffer::pipeline::{Pipeline, PipelineError, Report};
use spillbuffer::transform::{Limit, LimitExceeded, Map, PassThrough, Within};
use spillbuffer::{SpillBuffer, SpillPool};
use support::{Counting, KIB, MIB, Random, Scratch, block_on, eventually, holds_within, item, verify};
use wild::{MANNERS, Manner, Planned, WildReader, WildWriter};

/// The descriptors are the whole process's, so one at a time counts them.
static ALONE: Mutex<()> = Mutex::new(());

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The resident memory, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap() * KIB
}

// ---- failing over and over ----

fn pool(scratch: &Scratch) -> SpillPool {
    SpillPool::builder().memory_limit(MIB).temp_dir(scratch.path()).retain(0).build().unwrap()
}

/// Who fails, or what else ends it before its time.
#[derive(Debug, Clone, Copy)]
enum Who {
    Source,
    Early,
    Late,
    Sink,
    Cancel,
    Drop,
    Panic,
}

const WHO: [Who; 7] = [Who::Source, Who::Early, Who::Late, Who::Sink, Who::Cancel, Who::Drop, Who::Panic];

/// Fails, or panics, after so many bytes.
fn breaks(at: Option<usize>, panics: bool) -> Map<impl FnMut(Bytes) -> Result<Bytes, Planned> + Send> {
    let mut seen = 0;
    Map::new(move |chunk: Bytes| {
        seen += chunk.len();
        match at {
            Some(at) if seen > at && panics => panic!("planned"),
            Some(at) if seen > at => Err(Planned(at)),
            _ => Ok(chunk),
        }
    })
}

/// One failure. All that is random of it comes from the seed.
fn one(pool: &SpillPool, seed: u64) {
    let mut random = Random::new(seed);
    let who = WHO[random.below(WHO.len())];
    // Now and then more than fits into memory.
    let len = if random.below(20) == 0 { 2 * MIB + random.below(MIB) } else { random.below(100_000) + 1 };
    let at = random.below(len);
    let piece = random.adversarial(64 * KIB).max(len / 100);
    let calls = at / piece;
    let fails = |failing: bool| Manner { piece, pending: seed & 1 == 0, fail_at: failing.then_some(calls) };
    let source = WildReader::new(item(0, len), fails(matches!(who, Who::Source)));
    let mut pipeline = Pipeline::from_stream(source);
    if random.below(2) == 0 {
        pipeline = pipeline.then("pass", PassThrough::new());
    }
    pipeline = pipeline
        .then("early", breaks(matches!(who, Who::Early | Who::Panic).then_some(at), matches!(who, Who::Panic)))
        .spill("first", pool.buffer())
        .then("late", breaks(matches!(who, Who::Late).then_some(at), false));
    if random.below(2) == 0 {
        pipeline = pipeline.spill("second", pool.buffer());
    }
    let mut sink = WildWriter::new(fails(matches!(who, Who::Sink)));
    let run = pipeline.into_writer(&mut sink);
    let handle = run.handle();
    let ended = {
        let mut run = pin!(run.run());
        let counting = Counting::new();
        let waker = counting.waker();
        let mut polls = random.below(20);
        // Once: each call wakes, so that one that does nothing would be repeated for ever.
        let mut cancels = matches!(who, Who::Cancel);
        loop {
            let before = counting.wakes();
            let attempt = || run.as_mut().poll(&mut Context::from_waker(&waker));
            let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
            match polled {
                Err(_) => break Err(None),
                Ok(std::task::Poll::Ready(Ok(report))) => break Ok(report),
                Ok(std::task::Poll::Ready(Err(error))) => break Err(Some(error)),
                Ok(std::task::Poll::Pending) => {}
            }
            polls = polls.saturating_sub(1);
            if polls == 0 && matches!(who, Who::Drop) {
                break Err(None);
            }
            if polls == 0 && std::mem::take(&mut cancels) {
                handle.cancel(Planned(seed as usize));
            }
            counting.wait_beyond(before);
        }
    };
    verify(0, &sink.got);
    match ended {
        Ok(_) => assert!(sink.closed && sink.got.len() == len, "{who:?} {len} {at} {piece}"),
        Err(None) => assert!(!sink.closed && matches!(who, Who::Drop | Who::Panic)),
        Err(Some(error)) => {
            assert!(!sink.closed);
            assert!(error.find::<Planned>().is_some(), "{who:?}: {error:?}");
            assert!(!matches!(who, Who::Cancel) || error.index().is_none());
        }
    }
}

#[test]
fn nothing_grows_while_pipelines_fail_over_and_over() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A panic that is planned says nothing.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"planned") {
            hook(info);
        }
    }));
    let scratch = Scratch::new();
    let pool = pool(&scratch);
    let rounds = if std::env::var_os("PIPELINE_LONG").is_some() { 10_000 } else { 2_000 };
    let first: u64 = std::env::var("PIPELINE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (mut most_descriptors, mut memory) = (0, 0);
    for round in 0..rounds {
        let seed = first + round;
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(&pool, seed))) {
            eprintln!("PIPELINE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
        if round == 200 {
            (most_descriptors, memory) = (descriptors(), resident());
        }
        if round % 100 == 0 && round > 200 {
            // One file more or less: the pool's own.
            assert!(descriptors() <= most_descriptors + 2, "{} of {most_descriptors}, seed {seed}", descriptors());
            assert!(resident() < memory + 24 * MIB, "{} bytes of {memory}, seed {seed}", resident());
        }
    }
    // Where a pipeline was dropped or panicked, nobody waited for what was on its way to the disk.
    eventually("everything is given back", || {
        let stats = pool.stats();
        stats.buffers == 0 && stats.memory_held == 0 && stats.lent == 0 && stats.disk_held == 0
    });
    eventually("the pool's file is given up", || pool.stats().file_bytes == 0);
}

// ---- at every call of the ends ----

const LEN: usize = 300;

/// Runs it on this thread, which waits for no other longer than for a wake-up.
fn go(source: Manner, sink: Manner, limit: u64, buffer: SpillBuffer) -> (WildWriter, Result<Report, PipelineError>) {
    let source = WildReader::new(item(0, LEN), source);
    let pipeline = Pipeline::from_reader(source)
        .then("pass", PassThrough::new())
        .spill("spill", buffer)
        .then("limit", Limit::new(limit));
    let (drain, ended) = block_on(pipeline.into_writer(WildWriter::new(sink)).run_with_sink());
    (drain.into_inner(), ended)
}

#[test]
fn every_manner_of_the_ends_gives_every_byte() {
    let scratch = Scratch::new();
    matrix::pipelines::arrive(&item(0, LEN), &pool(&scratch));
}

#[test]
fn a_failure_at_every_call_of_either_end_is_told_after_an_exact_prefix() {
    let scratch = Scratch::new();
    // Few bytes, since each is a call.
    matrix::pipelines::fail(&item(0, 30), &pool(&scratch));
}

#[test]
fn a_limit_behind_a_spill_stage_is_told_and_nothing_beyond_it_passes() {
    for manner in MANNERS {
        for limit in [0, 1, 7, 299] {
            let (sink, ended) = go(manner, manner, limit, SpillBuffer::new());
            let error = ended.unwrap_err();
            assert_eq!((error.stage(), error.index()), (Some("limit"), Some(3)));
            assert_eq!(error.find::<LimitExceeded>().unwrap().limit, limit);
            // What was let through before the refusal is delivered, and no byte more.
            assert_eq!(sink.got, item(0, limit as usize), "{manner:?} {limit}");
            assert!(!sink.closed);
        }
    }
}

/// The same with a backlog on the disk, which both fail at once in the middle of.
#[test]
fn a_failure_while_a_backlog_is_on_the_disk_frees_it_before_run_resolves() {
    let scratch = Scratch::new();
    let pool = pool(&scratch);
    for round in 0..40 {
        let len = 4 * MIB;
        let fail_at = Some(64 + round);
        let source = WildReader::new(item(0, len), Manner { piece: 64 * KIB, pending: round % 2 == 0, fail_at: None });
        let sink = WildWriter::new(Manner { piece: 10_000, pending: round % 3 == 0, fail_at });
        let pipeline = Pipeline::from_stream(source).spill("one", pool.buffer()).spill("two", pool.buffer());
        let (drain, ended) = block_on(pipeline.into_writer(sink).run_with_sink());
        let stats = pool.stats();
        assert_eq!((stats.memory_held, stats.disk_held, stats.lent), (0, 0, 0), "{stats:?}");
        let error = ended.unwrap_err();
        assert_eq!((error.stage(), error.index()), (Some("sink"), Some(3)), "{error:?}");
        assert!(error.find::<Planned>().is_some());
        verify(0, &drain.get_ref().got);
        assert!(!drain.get_ref().closed);
    }
    assert!(holds_within(Duration::from_secs(20), || pool.stats().buffers == 0));
}
