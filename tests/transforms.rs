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
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt, stream};
use spillbuffer::transform::{
    Contract, Flow, Head, Inspect, Limit, LimitExceeded, Output, PassThrough, Peek, PeekError, Transform,
    TransformError, TransformReader, TransformWriter,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wild::{MANNERS, Manner, Planned, WildReader, WildWriter, run};

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

/// Stops after so many bytes.
struct Take(usize);

impl Transform for Take {
    type Value = &'static str;
    type Error = Infallible;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, Infallible> {
        let n = input.len().min(self.0);
        self.0 -= n;
        output.pass(input.split_to(n));
        Ok(if self.0 == 0 { Flow::Stop } else { Flow::Continue })
    }

    fn into_value(self) -> &'static str {
        "enough"
    }
}

#[test]
fn a_transform_that_has_had_enough_ends_the_stream_and_reads_no_further() {
    for manner in MANNERS {
        let mut reader = TransformReader::new(WildReader::new(noise(100), manner), Take(14));
        let mut got = Vec::new();
        run(reader.read_to_end(&mut got)).unwrap();
        assert_eq!(got, noise(14));
        assert_eq!(reader.get_ref().calls(), 14_usize.div_ceil(manner.piece));
        assert_eq!(reader.into_value().unwrap(), "enough");

        let mut writer = TransformWriter::new(WildWriter::new(manner), Take(14));
        run(writer.write_all(&noise(14))).unwrap();
        run(writer.flush()).unwrap();
        assert!(writer.is_stopped());
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
    let mut reader = TransformReader::from_stream(source, Inflate(0)).output_limit(5000);
    let mut total = 0;
    while let Some(chunk) = run(reader.next_chunk()).unwrap() {
        assert!(chunk.len() <= 5000);
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

fn _handles_can_be_sent_anywhere() {
    fn sound<T: Send + Sync + Unpin + 'static>() {}
    sound::<TransformReader<spillbuffer::transform::ReadSource<tokio::io::Empty>, PassThrough>>();
    sound::<TransformWriter<spillbuffer::transform::WriteDrain<tokio::io::Sink>, PassThrough>>();
    sound::<TransformError>();
    fn shown<T: fmt::Debug>() {}
    shown::<PeekError>();
}
