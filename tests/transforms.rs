//! What transforms promise, each in every way it can be used. Never sleeps: a step limit turns a hang into a
//! failure.

#[path = "support/matrix.rs"]
mod matrix;
#[path = "support/wild.rs"]
mod wild;

use std::{
    convert::Infallible,
    error::Error,
    fmt, io, mem,
    num::NonZeroU64,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt, stream};
use spillbuffer::transform::{
    Contract, Counter, Flow, Head, Inspect, Limit, LimitExceeded, LineTooLong, Lines, Map, Output, PassThrough, Peek,
    PeekError, Peeked, Prefix, Progress, ReadSource, Suffix, Throttle, Transform, TransformError, TransformReader,
    TransformWriter, WriteDrain,
};
use spillbuffer::{SpillBuffer, SpillError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wild::{MANNERS, Manner, Planned, Take, WildReader, WildWriter, run};

/// Bytes of no pattern that a transform could lose unseen.
fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x2545_F491_4F6C_DD1D_u64;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..len).map(next).collect()
}

// ---- the transforms ----

#[test]
fn pass_through_gives_every_byte_back() {
    for len in [0, 1, 7, 100, 500] {
        matrix::becomes(PassThrough::new, noise(len), &noise(len), |()| ());
    }
}

#[test]
fn pass_through_and_inspect_hand_on_the_same_memory() {
    let input: Vec<Bytes> = [3, 4 << 20, 1].map(|len| Bytes::from(noise(len))).into();
    let places = |chunks: &[Bytes]| chunks.iter().map(|chunk| (chunk.as_ptr(), chunk.len())).collect::<Vec<_>>();

    let source = stream::iter(input.clone().into_iter().map(Ok::<_, Planned>));
    let reader = TransformReader::from_stream(source, PassThrough::new()).into_stream();
    let got: Vec<Bytes> = run(reader.map(Result::unwrap).collect());
    assert_eq!(places(&got), places(&input));

    let writer = TransformWriter::from_sink(WildWriter::new(MANNERS[0]), Inspect::new(|_| ()));
    let mut sink = writer.into_sink();
    for chunk in &input {
        run(sink.send(chunk.clone())).unwrap();
    }
    assert_eq!(places(&sink.get_ref().get_ref().chunks), places(&input));
}

#[test]
fn inspect_sees_every_byte_in_order_and_never_an_empty_piece() {
    let input = noise(300);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = || {
        seen.lock().unwrap().clear();
        let seen = Arc::clone(&seen);
        Inspect::new(move |piece: &[u8]| {
            assert!(!piece.is_empty());
            seen.lock().unwrap().extend_from_slice(piece);
        })
    };
    matrix::becomes(look, input.clone(), &input, |()| assert_eq!(*seen.lock().unwrap(), input));
}

#[test]
fn limit_lets_exactly_so_many_bytes_pass() {
    for limit in [0, 1, 6, 7, 8, 99] {
        matrix::fails(
            || Limit::new(limit),
            noise(100),
            &noise(100)[..limit as usize],
            |error| {
                assert_eq!(error.find::<LimitExceeded>().unwrap().limit, limit);
                assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
                assert!(error.source().unwrap().to_string().contains(&format!("limit of {limit} bytes")));
            },
        );
    }
    for limit in [100, 101, u64::MAX] {
        matrix::becomes(|| Limit::new(limit), noise(100), &noise(100), |()| ());
    }
}

#[cfg(feature = "digest")]
#[test]
fn digest_leaves_the_digest_of_all_that_passed() {
    use sha2::{Digest as _, Sha256};
    use spillbuffer::transform::Digest;

    for len in [0, 1, 300] {
        let expected = Sha256::digest(noise(len));
        matrix::becomes(Digest::<Sha256>::new, noise(len), &noise(len), |digest| assert_eq!(digest, expected));
    }
}

/// A head of one byte that says how long the rest of it is.
fn measured(head: &Head<'_>) -> Result<Option<Vec<u8>>, Planned> {
    match head.bytes().split_first() {
        Some((0, _)) => Err(Planned(0)),
        Some((len, rest)) if rest.len() >= usize::from(*len) => Ok(Some(rest[..usize::from(*len)].to_vec())),
        _ => Ok(None),
    }
}

#[test]
fn peek_tells_its_value_early_and_changes_nothing() {
    let mut input = noise(200);
    input[0] = 40;
    let told = Mutex::new(None);
    let peek = || {
        let (peek, value) = Peek::new(41, measured);
        *told.lock().unwrap() = Some(value);
        peek
    };
    matrix::becomes(peek, input.clone(), &input, |()| {
        let value = run(told.lock().unwrap().take().unwrap()).unwrap();
        assert_eq!(value, input[1..41]);
    });

    // Early: with the piece that completes it, and not at the end.
    let (peek, mut value) = Peek::new(41, measured);
    let mut reader = TransformReader::new(WildReader::new(input, MANNERS[1]), peek);
    for seen in 0..=41 {
        let waiting = pin!(&mut value).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(waiting.is_ready(), seen == 41, "{seen}");
        run(reader.read_u8()).unwrap();
    }
    // An error repeats, and a value is had but once.
    assert!(matches!(run(&mut value), Err(PeekError::Taken)));
}

#[test]
fn peek_fails_the_stream_with_the_error_its_future_has() {
    let mut refused = noise(50);
    refused[0] = 0;
    let mut long = noise(50);
    long[0] = 49;
    for (input, limit, good) in [(refused, 10, 0), (long.clone(), 49, 50), (long[..49].to_vec(), 50, 49)] {
        let told = Mutex::new(None);
        let peek = || {
            let (peek, value) = Peek::new(limit, measured);
            *told.lock().unwrap() = Some(value);
            peek
        };
        matrix::fails_within(peek, input.clone(), &input[..good], |error| {
            let error = error.find::<PeekError>().unwrap().to_string();
            assert_eq!(run(told.lock().unwrap().take().unwrap()).unwrap_err().to_string(), error);
        });
    }
}

/// The stream failed before the head was whole, and whoever waited for the head's value in another task, while
/// the reader with its error lay unused, waited for ever.
#[test]
fn peek_tells_that_the_stream_was_cut_as_soon_as_it_is() {
    let (peek, value) = Peek::new(100, |_: &Head<'_>| Ok::<Option<()>, Infallible>(None));
    let source = WildReader::new(noise(50), Manner { piece: 10, pending: false, fail_at: Some(2) });
    let mut reader = TransformReader::new(source, peek);
    assert!(run(reader.read_to_end(&mut Vec::new())).is_err());
    let Err(error @ PeekError::Cut { seen: 20, .. }) = run(value) else { panic!("not told") };
    assert!(error.to_string().contains("20 bytes"));

    let (peek, value) = Peek::new(100, |_: &Head<'_>| Ok::<Option<()>, Infallible>(None));
    drop(TransformReader::new(&b""[..], peek));
    assert!(matches!(run(value), Err(PeekError::Cut { seen: 0, .. })));
}

#[test]
fn map_hands_on_what_its_closure_makes_and_fails_with_it() {
    let turned = |chunk: Bytes| Ok::<_, Planned>(chunk.iter().map(|byte| !byte).collect());
    let expected: Vec<u8> = noise(100).iter().map(|byte| !byte).collect();
    matrix::becomes(|| Map::new(turned), noise(100), &expected, |()| ());
    // What makes nothing of a chunk is no end.
    matrix::becomes(|| Map::new(|_| Ok::<_, Planned>(Bytes::new())), noise(100), b"", |()| ());
    let fails = || {
        let mut left = 21;
        Map::new(move |mut chunk: Bytes| {
            if left == 0 {
                return Err(Planned(3));
            }
            chunk.truncate(left);
            left -= chunk.len();
            Ok(chunk)
        })
    };
    let tail = |error: &TransformError| assert_eq!(error.find(), Some(&Planned(3)));
    // Of one great chunk there is no second call, so there must be several.
    let manner = Manner { piece: 7, pending: true, fail_at: None };
    let mut got = Vec::new();
    let end = run(TransformReader::new(WildReader::new(noise(100), manner), fails()).read_to_end(&mut got));
    tail(TransformError::from_io(&end.unwrap_err()).unwrap());
    assert_eq!(got, noise(21));
}

#[test]
fn prefix_and_suffix_stand_at_an_empty_stream_too() {
    for input in [noise(0), noise(100)] {
        matrix::becomes(|| Prefix::new("head"), input.clone(), &[b"head", &input[..]].concat(), |()| ());
        matrix::becomes(|| Suffix::new("tail"), input.clone(), &[&input[..], b"tail"].concat(), |()| ());
    }
}

#[test]
fn no_suffix_follows_a_stream_that_was_cut() {
    let source = WildReader::new(noise(100), Manner { piece: 10, pending: false, fail_at: Some(4) });
    let mut got = Vec::new();
    run(TransformReader::new(source, Suffix::new("tail")).read_to_end(&mut got)).unwrap_err();
    assert_eq!(got, noise(40));
}

#[test]
fn lines_come_one_a_chunk_and_change_no_byte() {
    let mut many = b"one\n\n\nfour\n".to_vec();
    many.extend_from_slice(&"\n".repeat(200).into_bytes());
    for (input, count) in [(&b""[..], 0), (b"\n", 1), (b"one", 1), (b"one\ntwo", 2), (b"one\ntwo\n", 2), (&many, 204)] {
        matrix::becomes(|| Lines::new(4), input.to_vec(), input, |lines| assert_eq!(lines, count));
        for manner in MANNERS {
            let reader = TransformReader::new(WildReader::new(input.to_vec(), manner), Lines::new(4));
            let lines: Vec<Bytes> = run(reader.into_stream().map(Result::unwrap).collect());
            let expected: Vec<&[u8]> = input.split_inclusive(|byte| *byte == b'\n').collect();
            assert_eq!(lines, expected);
        }
    }
}

#[test]
fn a_line_that_is_too_long_is_named() {
    for input in ["1\n2\n12345", "1\n2\n12345\n", "1\n2\n123456789\n"] {
        matrix::fails(
            || Lines::new(4),
            input,
            b"1\n2\n",
            |error| {
                let error = error.find::<LineTooLong>().unwrap();
                assert_eq!((error.line, error.limit), (3, 4));
                assert!(error.to_string().contains("line 3 is longer than the limit of 4 bytes"));
            },
        );
    }
    matrix::becomes(|| Lines::new(4), "1234\n1234", b"1234\n1234", |lines| assert_eq!(lines, 2));
}

#[test]
fn counter_counts_and_shows_it() {
    let shown = Mutex::new(None);
    let counter = || {
        let (counter, progress) = Counter::new(None);
        *shown.lock().unwrap() = Some(progress);
        counter
    };
    matrix::becomes(counter, noise(300), &noise(300), |count| {
        let progress = shown.lock().unwrap().take().unwrap();
        assert_eq!((count, progress.bytes(), progress.is_ended()), (300, 300, true));
    });
}

fn paused<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

#[test]
fn progress_tells_rate_and_rest() {
    paused(async {
        let (counter, progress) = Counter::new(Some(1000));
        let mut writer = TransformWriter::new(tokio::io::sink(), counter);
        assert_eq!((progress.rate(), progress.eta(), progress.is_ended()), (None, None, false));
        writer.write_all(&noise(100)).await.unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        writer.write_all(&noise(100)).await.unwrap();
        assert_eq!((progress.elapsed(), progress.rate()), (Duration::from_secs(10), Some(20.0)));
        assert_eq!(progress.eta(), Some(Duration::from_secs(40)));
    });
}

#[test]
fn throttle_holds_to_its_rate_and_changes_nothing() {
    paused(async {
        for (rate, len) in [(1, 5), (1000, 3000), (1_000_000, 2_500_000), (u64::MAX, 1_000_000)] {
            let throttle = || Throttle::new(NonZeroU64::new(rate).unwrap());
            #[allow(clippy::cast_precision_loss, reason = "a time")]
            let expected = len as f64 / rate as f64;
            // A twentieth of a second goes at once, and each wait may be a millisecond too long.
            let range = (expected - 0.06).max(0.0)..=expected * 1.02 + 0.002;
            let input = noise(len);

            let begun = tokio::time::Instant::now();
            let mut got = Vec::new();
            TransformReader::new(&input[..], throttle()).read_to_end(&mut got).await.unwrap();
            assert!(got == input);
            let took = begun.elapsed().as_secs_f64() + if rate == 1 { 1.0 } else { 0.0 };
            assert!(range.contains(&took), "{rate}: {took} s, {range:?}");

            let begun = tokio::time::Instant::now();
            let mut writer = TransformWriter::new(Vec::new(), throttle());
            writer.write_all(&input).await.unwrap();
            writer.shutdown().await.unwrap();
            let took = begun.elapsed().as_secs_f64() + if rate == 1 { 1.0 } else { 0.0 };
            assert!(writer.into_inner() == input && range.contains(&took), "{rate}: {took} s, {range:?}");
        }
    });
}

#[test]
fn what_a_throttle_did_not_use_is_not_saved_up() {
    paused(async {
        let mut writer = TransformWriter::new(Vec::new(), Throttle::new(NonZeroU64::new(1000).unwrap()));
        writer.write_all(&noise(10)).await.unwrap();
        tokio::time::advance(Duration::from_secs(60)).await;
        let begun = tokio::time::Instant::now();
        writer.write_all(&noise(1000)).await.unwrap();
        writer.flush().await.unwrap();
        assert!(begun.elapsed() > Duration::from_millis(850), "{:?}", begun.elapsed());
    });
}

// ---- the contract of a transform ----

/// Says whatever a test wants, at each call.
struct Says<F>(F);

fn says<F: FnMut(&mut Bytes, &mut Output) -> Result<Flow, Planned>>(what: F) -> Says<F> {
    Says(what)
}

impl<F: FnMut(&mut Bytes, &mut Output) -> Result<Flow, Planned>> Transform for Says<F> {
    type Value = ();
    type Error = Planned;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Planned> {
        (self.0)(input, output)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, Planned> {
        (self.0)(&mut Bytes::new(), output)
    }

    fn into_value(self) {}
}

fn broken(transform: impl Transform) -> Contract {
    let error = run(TransformReader::new(&b"some input"[..], transform).read_to_end(&mut Vec::new())).unwrap_err();
    match TransformError::from_io(&error) {
        Some(TransformError::Contract { broken, .. }) => *broken,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transform_that_breaks_a_rule_is_an_error_and_no_hang_and_no_loss() {
    assert_eq!(broken(says(|_, _| Ok(Flow::Continue))), Contract::InputLeft);
    assert_eq!(broken(says(|_, _| Ok(Flow::Full))), Contract::NoProgress);
    assert_eq!(broken(says(|_, _| Ok(Flow::Wait(Duration::ZERO)))), Contract::NoProgress);
    let overruns = says(|input: &mut Bytes, output: &mut Output| {
        input.clear();
        let lent = output.spare().len();
        output.advance(lent + 1);
        Ok(Flow::Continue)
    });
    assert_eq!(broken(overruns), Contract::Overrun);
    // Also at the end, where there is no input to take.
    let lingers = says(|input: &mut Bytes, _: &mut Output| {
        let ended = !input.has_remaining();
        input.clear();
        Ok(if ended { Flow::Full } else { Flow::Continue })
    });
    assert_eq!(broken(lingers), Contract::NoProgress);
}

#[test]
fn a_finish_that_makes_much_is_asked_until_it_is_done() {
    struct Tail(usize);
    impl Transform for Tail {
        type Value = ();
        type Error = Infallible;
        fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
            output.pass(mem::take(input));
            Ok(Flow::Continue)
        }
        fn finish(&mut self, output: &mut Output) -> Result<Flow, Infallible> {
            self.0 -= output.put_slice(&vec![b'.'; self.0]);
            Ok(if self.0 > 0 { Flow::Full } else { Flow::Continue })
        }
        fn into_value(self) {}
    }
    let expected = [noise(10), vec![b'.'; 1000]].concat();
    matrix::becomes(|| Tail(1000), noise(10), &expected, |()| ());
}

#[test]
fn what_was_put_before_an_error_comes_before_it() {
    let make = || {
        let mut left = 20;
        says(move |input: &mut Bytes, output: &mut Output| {
            let n = input.len().min(left);
            left -= n;
            output.pass(input.split_to(n));
            if left == 0 { Err(Planned(7)) } else { Ok(Flow::Continue) }
        })
    };
    matrix::fails(make, noise(100), &noise(20), |error| assert_eq!(error.find(), Some(&Planned(7))));
}

#[test]
fn a_failed_finish_is_the_error_and_no_end() {
    let make = || {
        says(|input: &mut Bytes, output: &mut Output| {
            let ended = input.is_empty();
            output.pass(mem::take(input));
            if ended { Err(Planned(9)) } else { Ok(Flow::Continue) }
        })
    };
    matrix::fails(make, noise(100), &noise(100), |error| assert_eq!(error.find(), Some(&Planned(9))));
}

#[test]
fn a_transform_that_has_had_enough_ends_the_stream_and_reads_no_further() {
    for manner in MANNERS {
        let mut reader = TransformReader::new(WildReader::new(noise(100), manner), Take(14));
        let mut got = Vec::new();
        run(reader.read_to_end(&mut got)).unwrap();
        assert_eq!(got, noise(14));
        assert_eq!(reader.get_ref().calls(), 14_usize.div_ceil(manner.piece));
        assert!(reader.is_stopped());
        let read = 14 + reader.rest().len();
        assert_eq!((&reader.rest()[..], read), (&noise(100)[14..read], reader.get_ref().given()));
        assert_eq!(reader.into_value().unwrap(), "enough");

        let mut writer = TransformWriter::new(WildWriter::new(manner), Take(14));
        run(writer.write_all(&noise(20))).unwrap();
        run(writer.flush()).unwrap();
        assert!(writer.is_stopped());
        assert_eq!(writer.rest(), &noise(20)[14..]);
        let error = run(writer.write(b"more")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(matches!(TransformError::from_io(&error), Some(TransformError::Stopped)));
        run(writer.shutdown()).unwrap();
        let (sink, value) = writer.into_parts();
        assert!(sink.closed && sink.got == noise(14));
        assert_eq!(value.unwrap(), "enough");
    }
}

/// Puts each byte of its input a thousand times over.
struct Inflate(usize);

impl Transform for Inflate {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        assert!(output.room() <= 64 << 10, "beyond the bound");
        while let Some(&byte) = input.first() {
            self.0 += output.put_slice(&[byte; 1000][self.0..]);
            if self.0 < 1000 {
                return Ok(Flow::Full);
            }
            self.0 = 0;
            input.advance(1);
        }
        Ok(Flow::Continue)
    }

    fn into_value(self) {}
}

#[test]
fn however_much_it_inflates_no_more_than_the_bound_is_made_at_once() {
    let expected: Vec<u8> = noise(3).iter().flat_map(|byte| vec![*byte; 1000]).collect();
    matrix::becomes(|| Inflate(0), noise(3), &expected, |()| ());
    let source = stream::iter([Ok::<_, Planned>(Bytes::from(noise(10_000)))]);
    let mut reader = TransformReader::from_stream(source, Inflate(0)).output_limit(64 << 10);
    let mut total = 0;
    while let Some(chunk) = run(reader.next_chunk()).unwrap() {
        assert!(chunk.len() <= 64 << 10);
        total += chunk.len();
    }
    assert_eq!(total, 10_000_000);
}

/// Holds its input back until it is flushed or finished.
#[derive(Default)]
struct Hold(Vec<u8>);

impl Hold {
    fn release(&mut self, output: &mut Output) -> Flow {
        let put = output.put_slice(&self.0);
        self.0.drain(..put);
        if self.0.is_empty() { Flow::Continue } else { Flow::Full }
    }
}

impl Transform for Hold {
    type Value = ();
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, _: &mut Output) -> Result<Flow, Infallible> {
        self.0.extend_from_slice(&mem::take(input));
        Ok(Flow::Continue)
    }

    fn flush(&mut self, output: &mut Output) -> Result<Flow, Infallible> {
        Ok(self.release(output))
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, Infallible> {
        Ok(self.release(output))
    }

    fn into_value(self) {}
}

#[test]
fn a_flush_puts_out_what_was_held_back_and_flushes_the_sink() {
    matrix::becomes(Hold::default, noise(300), &noise(300), |()| ());
    for manner in MANNERS {
        let mut writer = TransformWriter::new(WildWriter::new(manner), Hold::default()).output_limit(10);
        run(writer.write_all(&noise(100))).unwrap();
        assert!(writer.get_ref().got.is_empty());
        run(writer.flush()).unwrap();
        assert_eq!((writer.get_ref().got.len(), writer.get_ref().flushed), (100, 100));
        assert!(!writer.get_ref().closed);
    }
}

#[test]
fn dropped_without_shutdown_nothing_is_ended() {
    let mut sink = WildWriter::new(MANNERS[0]);
    let mut writer = TransformWriter::new(&mut sink, Hold::default());
    run(writer.write_all(b"begun")).unwrap();
    drop(writer);
    assert!(!sink.closed && sink.got.is_empty());
}

// ---- the shells ----

#[test]
fn a_future_that_is_dropped_loses_and_repeats_nothing() {
    let manner = Manner { piece: 7, pending: true, fail_at: None };
    let mut reader = TransformReader::new(WildReader::new(noise(300), manner), Inflate(0)).output_limit(64);
    let (mut got, mut turn) = (Vec::new(), 0);
    loop {
        turn += 1;
        let mut buffer = [0; 50];
        // Polled once and dropped.
        match pin!(reader.read(&mut buffer)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(read) => match read.unwrap() {
                0 => break,
                n => got.extend_from_slice(&buffer[..n]),
            },
            Poll::Pending => assert!(turn < 100_000),
        }
    }
    assert!(got == noise(300).iter().flat_map(|byte| vec![*byte; 1000]).collect::<Vec<_>>());

    let mut writer = TransformWriter::new(WildWriter::new(manner), Hold::default());
    let (input, mut at) = (noise(500), 0);
    while at < input.len() {
        let end = input.len().min(at + 33);
        if let Poll::Ready(n) = pin!(writer.write(&input[at..end])).poll(&mut Context::from_waker(Waker::noop())) {
            at += n.unwrap();
        }
        let _ = pin!(writer.flush()).poll(&mut Context::from_waker(Waker::noop()));
    }
    while pin!(writer.shutdown()).poll(&mut Context::from_waker(Waker::noop())).is_pending() {}
    assert!(writer.get_ref().closed && writer.get_ref().got == input);
}

#[test]
fn the_value_is_not_given_before_the_end() {
    let mut reader = TransformReader::new(&b"abcdef"[..], PassThrough::new());
    run(reader.read_u8()).unwrap();
    assert!(matches!(reader.into_value(), Err(TransformError::NotEnded)));
    let mut writer = TransformWriter::new(Vec::new(), PassThrough::new());
    run(writer.write_all(b"abc")).unwrap();
    assert!(matches!(writer.into_value(), Err(TransformError::NotEnded)));
}

#[test]
fn a_writer_that_takes_nothing_is_an_error() {
    struct Shut;
    impl tokio::io::AsyncWrite for Shut {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    let mut writer = TransformWriter::new(Shut, PassThrough::new());
    run(writer.write(b"x")).unwrap();
    assert_eq!(run(writer.shutdown()).unwrap_err().kind(), io::ErrorKind::WriteZero);
}

#[test]
fn a_source_that_is_always_ready_starves_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        // Swallows all that comes, for ever.
        let swallow = says(|input: &mut Bytes, _: &mut Output| {
            input.clear();
            Ok(Flow::Continue)
        });
        let endless = stream::repeat_with(|| Ok::<_, Planned>(Bytes::from_static(b"x")));
        let mut reader = TransformReader::from_stream(endless, swallow);
        let mut polls = 0;
        tokio::select! {
            biased;
            _ = reader.next_chunk() => unreachable!("there is no end"),
            () = std::future::poll_fn(|_| { polls += 1; if polls < 3 { Poll::Pending } else { Poll::Ready(()) } }) => {}
        }
    });
}

#[test]
fn a_wait_outside_a_runtime_is_an_error_and_no_panic() {
    let waits = says(|_: &mut Bytes, _: &mut Output| Ok(Flow::Wait(Duration::from_secs(1))));
    let error = run(TransformReader::new(&b"x"[..], waits).read_u8()).unwrap_err();
    assert!(matches!(TransformError::from_io(&error), Some(TransformError::NoRuntime)));
}

/// A runtime may keep no time, and tokio's own sleep then panics.
#[test]
fn a_wait_in_a_runtime_without_time_is_an_error_and_no_panic() {
    let waits = says(|_: &mut Bytes, _: &mut Output| Ok(Flow::Wait(Duration::from_secs(1))));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let error = runtime.block_on(TransformReader::new(&b"x"[..], waits).next_chunk()).unwrap_err();
    assert!(matches!(error, TransformError::NoRuntime));
}

#[test]
fn an_item_sent_unasked_is_refused_and_nothing_is_lost() {
    let mut sink = TransformWriter::from_sink(WildWriter::new(MANNERS[3]), PassThrough::new()).into_sink();
    run(sink.feed(Bytes::from_static(b"one"))).unwrap();
    let refused = sink.start_send_unpin(Bytes::from_static(b"two"));
    assert!(matches!(refused, Err(TransformError::NotReady)));
    run(sink.send(Bytes::from_static(b"three"))).unwrap();
    run(sink.close()).unwrap();
    assert_eq!(sink.get_ref().get_ref().got, b"onethree");
    let refused = sink.start_send_unpin(Bytes::from_static(b"four"));
    assert!(matches!(refused, Err(TransformError::Finished)));
}

// ---- beside a spill buffer ----

#[test]
fn chunks_go_through_a_spill_buffer_and_a_transform_at_each_side() {
    let (writer, reader) = SpillBuffer::new().into_split();
    let mut sink = TransformWriter::from_sink(writer.into_sink(), Limit::new(1000));
    run(sink.write_all(&noise(1000))).unwrap();
    run(sink.shutdown()).unwrap();
    let mut got = Vec::new();
    run(TransformReader::from_stream(reader.into_stream(), PassThrough::new()).read_to_end(&mut got)).unwrap();
    assert_eq!(got, noise(1000));
}

#[test]
fn a_spill_buffer_behind_a_transform_that_failed_or_was_dropped_is_cut() {
    for fails in [true, false] {
        let (writer, reader) = SpillBuffer::new().into_split();
        let mut sink = TransformWriter::from_sink(writer.into_sink(), Limit::new(10));
        run(sink.write_all(&noise(if fails { 11 } else { 10 }))).unwrap();
        assert_eq!(run(sink.flush()).is_err(), fails);
        if fails {
            run(sink.shutdown()).unwrap_err();
        }
        drop(sink);
        let mut reader = TransformReader::from_stream(reader.into_stream(), Limit::new(10));
        let mut got = Vec::new();
        let error = run(reader.read_to_end(&mut got)).unwrap_err();
        assert_eq!((got, error.kind()), (noise(10), io::ErrorKind::UnexpectedEof));
        let error = TransformError::from_io(&error).unwrap();
        assert!(matches!(error.find(), Some(SpillError::WriterDropped)), "{error:?}");
    }
}

#[test]
fn every_error_says_what_happened() {
    let plain: [(TransformError, &str); 3] = [
        (TransformError::Stopped, "had had enough"),
        (TransformError::Finished, "after the shutdown"),
        (TransformError::NotEnded, "before the stream had ended"),
    ];
    for (error, text) in plain {
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.source().is_none());
    }
}

const _: () = {
    const fn sound<T: Send + Sync + Unpin + fmt::Debug + 'static>() {}
    sound::<TransformReader<ReadSource<tokio::io::Empty>, PassThrough>>();
    sound::<TransformWriter<WriteDrain<tokio::io::Sink>, PassThrough>>();
    sound::<TransformError>();
    sound::<Peeked<u8>>();
    sound::<Progress>();
};
