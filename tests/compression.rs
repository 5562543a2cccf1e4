//! What compressed streams promise: exact bytes, no end that is none, no bomb. Never trusts one codec with
//! both directions where there is another to ask.
#![cfg(feature = "compression")]

#[path = "support/matrix.rs"]
mod matrix;
#[path = "support/wild.rs"]
mod wild;

use std::{
    error::Error as _,
    io::{self, Read, Write},
    sync::LazyLock,
};

use bytes::Bytes;
use futures_util::stream;
use spillbuffer::transform::{
    Compress, Decompress, DecompressError, Decompressed, Flow, Format, Level, Output, Transform, TransformError,
    TransformReader, TransformWriter,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wild::{MANNERS, Manner, Planned, WildReader, WildWriter, run};

/// Each format that is built in, with both directions.
type Codec = (Format, fn(Level) -> Compress, fn() -> Decompress);

const CODECS: &[Codec] = &[
    (Format::Gzip, Compress::gzip, Decompress::gzip),
    (Format::Zstd, Compress::zstd, Decompress::zstd),
    #[cfg(feature = "bzip2")]
    (Format::Bzip2, Compress::bzip2, Decompress::bzip2),
    #[cfg(feature = "xz")]
    (Format::Xz, Compress::xz, Decompress::xz),
];

/// Text that compresses, and not to nothing.
fn text(len: usize) -> Vec<u8> {
    let words = ["stage ", "spill ", "slot ", "window ", "extent ", "replay ", "backlog\n"];
    let mut x = 7_u32;
    let mut bytes = Vec::new();
    while bytes.len() < len {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.extend_from_slice(words[(x >> 24) as usize % words.len()].as_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What does not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed;
    let next = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn compressed(make: fn(Level) -> Compress, plain: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    run(TransformReader::new(plain, make(Level::Default)).read_to_end(&mut bytes)).unwrap();
    bytes
}

/// What comes of `input`, a piece at a time, and the error where there is one.
fn decompressed(transform: Decompress, input: &[u8], piece: usize) -> (Vec<u8>, Result<Decompressed, DecompressError>) {
    let manner = Manner { piece, pending: false, fail_at: None };
    let mut reader = TransformReader::new(WildReader::new(input.to_vec(), manner), transform).output_limit(100);
    let mut bytes = Vec::new();
    match run(reader.read_to_end(&mut bytes)) {
        Ok(_) => (bytes, Ok(reader.into_value().unwrap())),
        Err(error) => (bytes, Err(found(TransformError::from_io(&error).unwrap()))),
    }
}

fn found(error: &TransformError) -> DecompressError {
    error.find::<DecompressError>().unwrap_or_else(|| panic!("{error:?}")).clone()
}

#[test]
fn what_was_compressed_comes_back() {
    for (format, compress, decompress) in CODECS {
        for plain in [vec![], b"x".to_vec(), text(600)] {
            matrix::each(
                || compress(Level::Fastest),
                plain.clone(),
                |got| assert!(decompressed(decompress(), &got, 1000).0 == plain, "{format}"),
            );
            let gone_in = compressed(*compress, &plain);
            matrix::becomes(*decompress, gone_in.clone(), &plain, |value| {
                assert_eq!(value.format, Some(*format));
                assert_eq!((value.taken, value.made), (gone_in.len() as u64, plain.len() as u64));
            });
            matrix::becomes(Decompress::detect, gone_in, &plain, |value| assert_eq!(value.format, Some(*format)));
        }
    }
}

#[test]
fn levels_are_taken_as_they_are() {
    let plain = text(50_000);
    for (format, compress, decompress) in CODECS {
        for level in
            [Level::Fastest, Level::Best, Level::Exactly(3), Level::Exactly(i32::MAX), Level::Exactly(i32::MIN)]
        {
            let mut bytes = Vec::new();
            run(TransformReader::new(&plain[..], compress(level)).read_to_end(&mut bytes)).unwrap();
            assert!(decompressed(decompress(), &bytes, 1000).0 == plain, "{format} {level:?}");
        }
    }
}

#[test]
fn gzip_agrees_with_another_gzip() {
    let plain = text(30_000);
    let mut back = Vec::new();
    flate2::read::MultiGzDecoder::new(&compressed(Compress::gzip, &plain)[..]).read_to_end(&mut back).unwrap();
    assert!(back == plain);

    // Every optional part of the header is there.
    let mut theirs = Vec::new();
    flate2::GzBuilder::new()
        .filename("name")
        .comment("comment")
        .extra("extra")
        .mtime(7)
        .read(&plain[..], flate2::Compression::new(4))
        .read_to_end(&mut theirs)
        .unwrap();
    for piece in [1, 7, 1000] {
        assert!(decompressed(Decompress::gzip(), &theirs, piece).0 == plain);
    }
}

/// A bzip2 stream whose end was missing was once read as a success by a wide-spread decoder: the
/// build went on with half a context.
#[test]
fn a_stream_that_is_cut_anywhere_is_an_error() {
    for (format, compress, decompress) in CODECS {
        let plain = text(900);
        let whole = compressed(*compress, &plain);
        for cut in 0..whole.len() {
            for piece in [1, 1000] {
                let (got, end) = decompressed(decompress(), &whole[..cut], piece);
                assert!(plain.starts_with(&got));
                match end {
                    Err(DecompressError::Truncated { format: of, taken, made, .. }) => {
                        assert_eq!((of, taken, made), (*format, cut as u64, got.len() as u64));
                    }
                    other => panic!("{format} cut at {cut}: {other:?}"),
                }
            }
            // And in front of a writer, which must not end its sink.
            let mut writer = TransformWriter::new(WildWriter::new(MANNERS[2]), decompress());
            run(writer.write_all(&whole[..cut])).unwrap();
            let error = run(writer.shutdown()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            assert!(!writer.get_ref().closed && plain.starts_with(&writer.get_ref().got));
        }
        // Also within a second member.
        let twice = [&whole[..], &whole[..]].concat();
        for cut in whole.len() + 1..twice.len() {
            let (got, end) = decompressed(decompress(), &twice[..cut], 1000);
            assert!(got.starts_with(&plain));
            assert!(matches!(end, Err(DecompressError::Truncated { .. })), "{format} cut at {cut}: {end:?}");
        }
    }
}

#[test]
fn members_that_follow_one_another_are_one_stream() {
    for (format, compress, decompress) in CODECS {
        let parts = [text(200), vec![], text(5), vec![0; 500]];
        let whole: Vec<u8> = parts.iter().flat_map(|part| compressed(*compress, part)).collect();
        matrix::becomes(*decompress, whole.clone(), &parts.concat(), |value| {
            assert_eq!((value.format, value.taken), (Some(*format), whole.len() as u64));
        });
    }
}

#[test]
fn a_zstd_frame_that_is_to_be_skipped_is_skipped() {
    let frame = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"notes"].concat();
    let data = compressed(Compress::zstd, b"data");
    for whole in [[&frame[..], &data].concat(), [&data[..], &frame].concat(), [&frame[..], &frame, &data].concat()] {
        matrix::becomes(Decompress::detect, whole, b"data", |value| assert_eq!(value.format, Some(Format::Zstd)));
    }
}

/// A gzip header with a flag that is reserved was taken as if it had none: what that flag stands for would have been read as
/// data (a fuzzer found it, another gzip refused what this one took).
#[test]
fn a_gzip_header_with_an_unknown_flag_is_an_error() {
    let plain = text(1000);
    let good = compressed(Compress::gzip, &plain);
    for (bit, known) in [(0, true), (5, false), (6, false), (7, false)] {
        for piece in [1, 3, 4, 5, 1 << 20] {
            let mut second = good.clone();
            second[3] |= 1 << bit;
            let (made, said) = decompressed(Decompress::gzip(), &second, piece);
            let (both, says) = decompressed(Decompress::detect(), &[&good[..], &second].concat(), piece);
            if known {
                assert_eq!((said.unwrap().made, says.unwrap().made), (1000, 2000));
                continue;
            }
            let (said, says) = (said.unwrap_err(), says.unwrap_err());
            assert!(matches!(said, DecompressError::Corrupt { taken: 4, .. }), "{said:?}");
            let begin = good.len() as u64;
            assert!(matches!(says, DecompressError::Corrupt { taken, .. } if taken == begin + 4), "{says:?}");
            assert!(made.is_empty() && both == plain, "what is before it is whole");
            assert!(said.source().is_some_and(|cause| cause.to_string().contains("unknown flags")), "{said:?}");
        }
    }
}

/// A frame may ask its decoder for a window of any size, before a byte of data has come.
#[test]
fn a_zstd_frame_that_asks_for_too_much_memory_is_refused() {
    for (window_log, good) in [(10, true), (27, true), (28, false), (41, false)] {
        // No content size, no checksum; one last block, raw and empty.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3, 1, 0, 0];
        let (_, end) = decompressed(Decompress::zstd(), &frame, 1000);
        assert_eq!(end.is_ok(), good, "{window_log}: {end:?}");
        assert!(good || matches!(end, Err(DecompressError::Corrupt { .. })), "{end:?}");
    }
}

#[cfg(feature = "xz")]
#[test]
fn xz_may_be_padded_with_zeros_in_fours() {
    let whole = compressed(Compress::xz, b"data");
    for (zeros, good) in [(4, true), (8, true), (1, false), (6, false)] {
        let padded = [&whole[..], &vec![0; zeros]].concat();
        let between = [&padded[..], &whole].concat();
        for piece in [1, 3, 1000] {
            let end = decompressed(Decompress::xz(), &padded, piece);
            assert_eq!((end.0.as_slice(), end.1.is_ok()), (&b"data"[..], good), "{zeros}");
            let end = decompressed(Decompress::xz(), &between, piece);
            assert_eq!(end.1.is_ok(), good, "{zeros}");
            if good {
                assert_eq!(end.0, b"datadata");
            } else {
                assert!(matches!(end.1, Err(DecompressError::TrailingGarbage { .. })), "{:?}", end.1);
            }
        }
    }
}

#[test]
fn whatever_else_follows_is_an_error_and_not_an_end() {
    for (format, compress, decompress) in CODECS {
        let whole = compressed(*compress, b"data");
        for garbage in [&b"x"[..], b"garbage", &whole[1..], &[0x1f, 0x8c]] {
            let input = [&whole[..], garbage].concat();
            for piece in [1, 1000] {
                let (got, end) = decompressed(decompress(), &input, piece);
                assert_eq!(got, b"data");
                let Err(DecompressError::TrailingGarbage { offset, .. }) = end else { panic!("{format}: {end:?}") };
                assert_eq!(offset, whole.len() as u64);
            }
        }
    }
}

#[test]
fn what_is_not_of_the_format_is_an_error() {
    for (format, _, decompress) in CODECS {
        for (other, compress, _) in CODECS {
            if format != other {
                let (got, end) = decompressed(decompress(), &compressed(*compress, b"data"), 1);
                assert!(got.is_empty());
                assert!(matches!(end, Err(DecompressError::WrongFormat { expected, .. }) if expected == *format));
            }
        }
    }
}

#[test]
fn a_changed_byte_never_changes_what_comes_out_unseen() {
    for (format, compress, decompress) in CODECS {
        let plain = text(300);
        let whole = compressed(*compress, &plain);
        for at in 0..whole.len() {
            for change in [1, 0x80] {
                let mut changed = whole.clone();
                changed[at] ^= change;
                let (got, end) = decompressed(decompress(), &changed, 1000);
                // Gzip's header has fields that mean nothing for the data.
                assert!(end.is_err() || got == plain, "{format} at {at}");
            }
        }
    }
}

#[test]
fn detect_knows_what_is_built_in_and_lets_the_rest_pass() {
    let plain: [&[u8]; 8] =
        [b"", b"x", &[0x1f], &[0x1f, 0x8b], b"BZh", b"BZh9 is no archive", b"plain text", &[0x28, 0xb5, 0x2f]];
    for plain in plain {
        matrix::becomes(Decompress::detect, plain.to_vec(), plain, |value| {
            assert_eq!(value.format, None);
            assert_eq!(value.made, plain.len() as u64);
        });
    }
    // Uncopied, but for the bytes it was told by.
    let chunk = Bytes::from(text(100_000));
    let source = stream::iter([Ok::<_, Planned>(chunk.clone())]);
    let mut reader = TransformReader::from_stream(source, Decompress::detect());
    let head = run(reader.next_chunk()).unwrap().unwrap();
    let rest = run(reader.next_chunk()).unwrap().unwrap();
    assert_eq!(rest.as_ptr(), chunk[head.len()..].as_ptr());
}

/// 1 MiB of zeros, compressed by gzip; again and again it makes a bomb of any size.
static MEMBER: LazyLock<Vec<u8>> = LazyLock::new(|| compressed(Compress::gzip, &vec![0; 1 << 20]));

#[test]
fn of_a_bomb_no_more_than_the_bound_is_ever_there() {
    // A gibibyte in one chunk of about a mebibyte.
    let bomb = Bytes::from(MEMBER.repeat(1024));
    let source = stream::iter([Ok::<_, Planned>(bomb)]);
    let mut reader = TransformReader::from_stream(source, Watched(Decompress::gzip())).output_limit(64 << 10);
    let mut total = 0;
    while let Some(chunk) = run(reader.next_chunk()).unwrap() {
        assert!(chunk.len() <= 64 << 10);
        total += chunk.len();
    }
    assert_eq!(total, 1 << 30);
    assert_eq!(reader.into_value().unwrap().made, 1 << 30);
}

/// Sees after every call that all that waits in the output is within its bound.
struct Watched(Decompress);

impl Transform for Watched {
    type Value = Decompressed;
    type Error = DecompressError;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, DecompressError> {
        assert_eq!(output.room(), 64 << 10, "what was made before has been taken");
        let flow = self.0.transform(input, output);
        // What a call has made lies in the output, and the output counts it.
        assert!(output.spare().is_empty() == (flow.as_ref().ok() == Some(&Flow::Full)));
        flow
    }

    fn into_value(self) -> Decompressed {
        self.0.into_value()
    }
}

#[test]
fn a_bomb_is_an_error_as_soon_as_it_shows() {
    let bomb = MEMBER.repeat(3);
    // The grace is let through, and a piece of output at most is beyond it.
    let (got, end) = decompressed(Decompress::detect().max_ratio(100, 10_000), &bomb, 1000);
    assert!((10_000..=10_100).contains(&got.len()), "{}", got.len());
    let Err(error @ DecompressError::TooDense { ratio: 100, .. }) = end else { panic!("{end:?}") };
    assert!(error.to_string().contains("ratio of 100"), "{error}");
    // What is dense and short, and what is long and not dense, pass.
    assert!(decompressed(Decompress::gzip().max_ratio(100, 4 << 20), &bomb, 1000).1.is_ok());
    let fair = compressed(Compress::gzip, &text(100_000));
    assert!(decompressed(Decompress::gzip().max_ratio(20, 0), &fair, 1000).1.is_ok());
}

#[test]
fn max_total_lets_exactly_so_many_bytes_out() {
    for (format, compress, decompress) in CODECS {
        let plain = text(1000);
        let whole = compressed(*compress, &plain);
        for (input, make) in [(&whole, *decompress), (&plain, Decompress::detect as fn() -> Decompress)] {
            for limit in [0, 1, 999] {
                matrix::fails(
                    || make().max_total(limit),
                    input.clone(),
                    &plain[..limit as usize],
                    |error| {
                        let DecompressError::TooLong { limit: told, .. } = found(error) else { panic!("{error:?}") };
                        assert_eq!((told, error.kind()), (limit, io::ErrorKind::FileTooLarge));
                    },
                );
            }
            for limit in [1000, 1001] {
                let (got, end) = decompressed(make().max_total(limit), input, 7);
                assert!(got == plain && end.is_ok(), "{format}");
            }
        }
    }
}

#[test]
fn a_flush_makes_what_was_written_readable() {
    for (format, compress, decompress) in CODECS {
        for bound in [1, 64 << 10] {
            let transform = compress(Level::Default);
            let mut writer = TransformWriter::new(WildWriter::new(MANNERS[0]), transform).output_limit(bound);
            let (plain, mut before) = (text(3000), 0);
            for part in plain.chunks(1000) {
                run(writer.write_all(part)).unwrap();
                run(writer.flush()).unwrap();
                before += part.len();
                // Cut, for there is no end yet; but all that was flushed is there.
                let (got, _) = decompressed(decompress(), &writer.get_ref().got, 1000);
                if *format != Format::Bzip2 {
                    assert_eq!(got.len(), before, "{format}");
                }
                // Nothing new: nothing more to flush.
                let len = writer.get_ref().got.len();
                run(writer.flush()).unwrap();
                assert_eq!(writer.get_ref().got.len(), len);
            }
            run(writer.shutdown()).unwrap();
            let (got, end) = decompressed(decompress(), &writer.get_ref().got, 1000);
            assert!(got == plain && end.is_ok(), "{format}");
        }
    }
}

/// What made gzip without `zlib-rs` put out less than all in one flush of 60: pieces of many lengths that do not compress.
#[test]
fn a_flush_holds_nothing_back_of_what_does_not_compress() {
    for level in [Level::Fastest, Level::Default, Level::Best] {
        let mut writer = TransformWriter::new(Vec::new(), Compress::gzip(level));
        let mut decoder = flate2::write::GzDecoder::new(Vec::new());
        let (mut plain, mut len, mut seen) = (Vec::new(), 1000, 0);
        for seed in 1..=60 {
            len = (len * 7919 + 13) % 100_000;
            let part = noise(seed, len);
            run(writer.write_all(&part)).unwrap();
            run(writer.flush()).unwrap();
            plain.extend(part);
            decoder.write_all(&writer.get_ref()[seen..]).unwrap();
            decoder.flush().unwrap();
            seen = writer.get_ref().len();
            assert_eq!(decoder.get_ref().len(), plain.len(), "{level:?}, flush {seed}");
        }
        run(writer.shutdown()).unwrap();
        decoder.write_all(&writer.get_ref()[seen..]).unwrap();
        assert!(decoder.finish().unwrap() == plain);
    }
}

/// Text, and behind it a block whose length contradicts itself.
fn corrupt_behind(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    // An empty block ends what is flushed: its length, and that once more with every bit turned.
    encoder.flush().unwrap();
    let mut bytes = encoder.get_ref().clone();
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

/// The piece that the error lay in did not count as read: "corrupt within its first 10 bytes", which were right (a fuzzer
/// found it).
#[test]
fn what_is_corrupt_is_so_within_what_was_read() {
    let bytes = corrupt_behind(b"text");
    for piece in [1, 3, 1000] {
        let (_, said) = decompressed(Decompress::gzip(), &bytes, piece);
        let Err(DecompressError::Corrupt { taken, .. }) = said else { panic!("{piece}: {said:?}") };
        assert_eq!(taken, bytes.len() as u64, "{piece}");
    }
}
