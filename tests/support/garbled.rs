//! Any bytes into every decoder, lines and a look at the head; and what was compressed, back again. Cut into pieces of any
//! size and through outputs of any bound. What a fuzzer and a plain test call.

use std::{
    error::Error,
    io::{Read, Write},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use futures_util::stream;
use spillbuffer::transform::{
    Compress, Decompress, DecompressError, Head, Level, Lines, Peek, PeekError, Transform, TransformReader,
    TransformWriter,
};
use tokio::io::AsyncWrite;

/// More than any seed makes, and little enough to be made often.
const MOST: u64 = 1 << 16;

const DECODERS: &[fn() -> Decompress] = &[
    Decompress::detect,
    Decompress::gzip,
    Decompress::zstd,
    #[cfg(feature = "bzip2")]
    Decompress::bzip2,
    #[cfg(feature = "xz")]
    Decompress::xz,
];

const ENCODERS: &[fn(Level) -> Compress] = &[
    Compress::gzip,
    Compress::zstd,
    #[cfg(feature = "bzip2")]
    Compress::bzip2,
    #[cfg(feature = "xz")]
    Compress::xz,
];

/// The first five bytes say what is done to the rest: what, in which pieces, through which bound, and something more.
pub(crate) fn check(bytes: &[u8]) {
    let Some((&[what, which, pieces, bound, more], rest)) = bytes.split_first_chunk() else { return };
    let how = How { pieces, bound: 1 + usize::from(bound) * usize::from(bound) };
    match what % 8 {
        0..4 => any_bytes_into(DECODERS[usize::from(which) % DECODERS.len()], how, more, rest),
        4 => gzip_like_another(how, rest),
        5 => there_and_back(usize::from(which) % ENCODERS.len(), how, more, rest),
        6 => lines_like_the_standard_library(how, usize::from(more), rest),
        _ => a_look_at_the_head(how, usize::from(which), usize::from(more), rest),
    }
}

#[derive(Clone, Copy)]
struct How {
    pieces: u8,
    bound: usize,
}

impl How {
    const WHOLE: Self = Self { pieces: 0, bound: 64 << 10 };

    /// One piece, all of one size, or of sizes that change.
    fn cut(self, bytes: &[u8]) -> Vec<Bytes> {
        let (mut rest, mut pieces, mut size) = (bytes, Vec::new(), usize::from(self.pieces));
        while !rest.is_empty() {
            let n = match self.pieces {
                0 => rest.len(),
                1..128 => size,
                _ => {
                    size = (size * 29 + 7) % 257;
                    size + 1
                }
            };
            let (piece, others) = rest.split_at(n.min(rest.len()));
            pieces.push(Bytes::copy_from_slice(piece));
            rest = others;
        }
        pieces
    }
}

/// Nothing here ever waits.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits, and nothing is to come"),
    }
}

/// What comes out, chunk by chunk, and the value or the error.
fn through<T>(transform: T, how: How, bytes: &[u8]) -> (Vec<Bytes>, Result<T::Value, T::Error>)
where
    T: Transform,
    T::Error: Clone,
{
    let source = stream::iter(how.cut(bytes).into_iter().map(Ok::<_, std::convert::Infallible>));
    let mut reader = TransformReader::from_stream(source, transform).output_limit(how.bound);
    let mut chunks = Vec::new();
    loop {
        match at_once(reader.next_chunk()) {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty(), "an empty chunk");
                chunks.push(chunk);
            }
            Ok(None) => break,
            Err(error) => {
                let own = error.find::<T::Error>().unwrap_or_else(|| panic!("it broke a rule: {error:?}")).clone();
                let again = at_once(reader.next_chunk()).expect_err("an error repeats");
                assert_eq!(again.to_string(), error.to_string());
                return (chunks, Err(own));
            }
        }
    }
    (chunks, Ok(reader.into_value().expect("it has ended")))
}

/// However it is cut, the same comes of it, within the bounds.
fn any_bytes_into(decoder: fn() -> Decompress, how: How, more: u8, bytes: &[u8]) {
    let bounded = || {
        let decoder = decoder().max_total(MOST >> (more % 20));
        if more.is_multiple_of(3) { decoder.max_ratio(1 + u32::from(more), 1 << 10) } else { decoder }
    };
    let (one, said) = through(bounded(), how, bytes);
    let (other, says) = through(bounded(), How::WHOLE, bytes);
    let (one, other) = (one.concat(), other.concat());
    assert!(one.len() as u64 <= MOST >> (more % 20), "more than max_total");
    match (&said, &says) {
        (Ok(said), Ok(says)) => {
            assert!(one == other, "cut otherwise, something else comes out");
            assert_eq!(said, says);
            assert_eq!((said.taken, said.made), (bytes.len() as u64, one.len() as u64));
        }
        (Err(said), Err(says)) => {
            // How far a decoder has got when it finds out differs.
            assert!(one.starts_with(&other) || other.starts_with(&one), "cut otherwise, something else comes out");
            let kind = |error| <Decompress as Transform>::error_kind(error);
            // A codec that fails keeps to itself what it has made of that piece: it may have been too much already.
            assert!(kind(said) == kind(says) || too_much(said) || too_much(says), "{said:?} and {says:?}");
        }
        _ => {
            // The ratio is looked at after each piece.
            let dense = |said: &Result<_, DecompressError>| matches!(said, Err(DecompressError::TooDense { .. }));
            assert!(dense(&said) || dense(&says), "{said:?} and {says:?}");
        }
    }
}

fn too_much(error: &DecompressError) -> bool {
    matches!(error, DecompressError::TooDense { .. } | DecompressError::TooLong { .. })
}

/// What this takes for gzip another does, and the other way round.
fn gzip_like_another(how: How, bytes: &[u8]) {
    let (ours, said) = through(Decompress::gzip().max_total(MOST), how, bytes);
    let ours = ours.concat();
    let mut theirs = Vec::new();
    let says = flate2::read::MultiGzDecoder::new(bytes).take(MOST + 1).read_to_end(&mut theirs);
    if matches!(said, Err(DecompressError::TooLong { .. })) {
        assert!(theirs.len() as u64 > MOST);
        return;
    }
    assert!(ours.starts_with(&theirs) || theirs.starts_with(&ours), "not what another gzip makes");
    match (&said, &says) {
        (Ok(_), _) => assert!(says.is_ok() && ours == theirs, "another gzip says {says:?}"),
        (Err(said), Ok(_)) => panic!("another gzip takes it: {said:?}"),
        (Err(_), Err(_)) => {}
    }
}

/// What was written, and flushed now and then, comes back.
fn there_and_back(which: usize, how: How, more: u8, plain: &[u8]) {
    let level = Level::Exactly(i32::from(more) % 4);
    let mut writer = TransformWriter::new(Vec::new(), ENCODERS[which](level)).output_limit(how.bound);
    let mut cx = Context::from_waker(Waker::noop());
    for (at, piece) in how.cut(plain).into_iter().enumerate() {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let Poll::Ready(n) = Pin::new(&mut writer).poll_write(&mut cx, rest) else { panic!("a Vec never waits") };
            rest = &rest[n.unwrap()..];
        }
        if more & 16 != 0 && at % 5 == 0 {
            assert!(matches!(Pin::new(&mut writer).poll_flush(&mut cx), Poll::Ready(Ok(()))));
        }
    }
    assert!(matches!(Pin::new(&mut writer).poll_shutdown(&mut cx), Poll::Ready(Ok(()))));
    let mut compressed = writer.into_inner();
    if which == 0 {
        let mut theirs = Vec::new();
        flate2::read::MultiGzDecoder::new(&compressed[..]).read_to_end(&mut theirs).unwrap();
        assert!(theirs == plain, "another gzip makes something else of it");
        // And a second member, which is theirs.
        let mut encoder = flate2::write::GzEncoder::new(compressed, flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        compressed = encoder.finish().unwrap();
    }
    let times = if which == 0 { 2 } else { 1 };
    for decoder in [Decompress::detect, DECODERS[1 + which]] {
        let (back, said) = through(decoder(), how, &compressed);
        assert_eq!(said.unwrap().taken, compressed.len() as u64);
        assert!(back.concat() == plain.repeat(times), "it does not come back");
    }
    // All but the last byte is not a stream that has ended.
    let (_, said) = through(DECODERS[1 + which](), how, &compressed[..compressed.len() - 1]);
    said.unwrap_err();
}

fn lines_like_the_standard_library(how: How, limit: usize, bytes: &[u8]) {
    let (lines, said) = through(Lines::new(limit), how, bytes);
    let expected: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let fits = |line: &&[u8]| line.strip_suffix(b"\n").unwrap_or(line).len() <= limit;
    let good = expected.iter().take_while(|line| fits(line)).count();
    assert!(lines.iter().zip(&expected).all(|(line, expected)| line == *expected), "another line");
    assert_eq!(lines.len(), good);
    match said {
        Ok(count) => assert_eq!((count, good), (good as u64, expected.len())),
        Err(error) => assert_eq!((error.line, error.limit), (good as u64 + 1, limit)),
    }
}

/// A parser that wants so many bytes sees these, or that there are no more; and the stream stays as it is.
fn a_look_at_the_head(how: How, wanted: usize, limit: usize, bytes: &[u8]) {
    let mut seen = 0;
    let parse = |head: &Head<'_>| -> Result<Option<Vec<u8>>, Box<dyn Error + Send + Sync>> {
        assert!(head.bytes().len() <= limit && head.bytes().len() >= seen, "it shrinks, or is too long");
        assert!(bytes.starts_with(head.bytes()), "it shows what is not there");
        seen = head.bytes().len();
        Ok((seen >= wanted).then(|| head.bytes()[..wanted].to_vec()))
    };
    let (peek, peeked) = Peek::new(limit, parse);
    let (chunks, said) = through(peek, how, bytes);
    let told = at_once(peeked);
    let passed = chunks.concat();
    if wanted <= limit.min(bytes.len()) {
        assert!(said.is_ok() && passed == bytes, "a look changes nothing");
        assert!(told.is_ok_and(|head| head == bytes[..wanted]));
    } else {
        let (said, told) = (said.expect_err("it is never content"), told.map(drop).expect_err("nor is who asked"));
        assert_eq!(said.to_string(), told.to_string());
        assert!(bytes.starts_with(&passed));
        match said {
            PeekError::TooLong { limit: at, .. } => assert!(at == limit && bytes.len() >= limit),
            PeekError::Ended { seen, .. } => assert!(seen == bytes.len() as u64 && bytes.len() < limit),
            other => panic!("{other:?}"),
        }
    }
}
