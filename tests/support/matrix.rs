//! One transform in every way it can be used: both shells, every kind of source and sink, every manner of
//! moving bytes, every bound of the output, a failure at every call; and `pipelines` likewise. Never asserts less than exact
//! bytes and the identity of the error.
#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part of this")]

#[path = "pipelines.rs"]
pub mod pipelines;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use spillbuffer::transform::{Drain, Source, Transform, TransformError, TransformReader, TransformWriter, Within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wild::{MANNERS, Manner, Planned, WildReader, WildWriter, run};

/// Bounds of the output, in bytes.
const BOUNDS: [usize; 4] = [1, 2, 61, 64 << 10];

/// What came of one way: the bytes, and the value or the error.
type Came<V> = (Vec<u8>, Result<V, TransformError>);

/// `input` becomes exactly `expected`, in every way, and `value` is content with what is left behind. A source
/// or sink that fails at whichever call is told with its own error after an exact prefix.
#[track_caller]
pub fn becomes<T: Transform>(make: impl Fn() -> T, input: impl Into<Bytes>, expected: &[u8], value: impl Fn(T::Value)) {
    let input = input.into();
    for (way, manner, bound) in ways() {
        let (got, end) = way.go(make(), input.clone(), manner, bound);
        assert!(got == expected, "{way:?} {manner:?} {bound}: {} bytes instead of {}", got.len(), expected.len());
        value(end.unwrap_or_else(|error| panic!("{way:?} {manner:?} {bound}: {error:?}")));
    }
    fails_with_its_ends(&make, &input, expected);
}

/// What `input` becomes, in every way, is for `check` to judge: its bytes may depend on the pieces.
#[track_caller]
pub fn each<T: Transform>(make: impl Fn() -> T, input: impl Into<Bytes>, check: impl Fn(Vec<u8>)) {
    let input = input.into();
    for (way, manner, bound) in ways() {
        let (got, end) = way.go(make(), input.clone(), manner, bound);
        assert!(end.is_ok(), "{way:?} {manner:?} {bound}: {:?}", end.err());
        check(got);
    }
}

/// In every way, `good` comes and then the transform's own error, which `error` is content with.
#[track_caller]
pub fn fails<T: Transform>(
    make: impl Fn() -> T,
    input: impl Into<Bytes>,
    good: &[u8],
    error: impl Fn(&TransformError),
) {
    let input = input.into();
    for (way, manner, bound) in ways() {
        let (got, end) = way.go(make(), input.clone(), manner, bound);
        assert!(got == good, "{way:?} {manner:?} {bound}: {} bytes instead of {}", got.len(), good.len());
        let Err(failure) = end else { panic!("{way:?} {manner:?} {bound}: it ended cleanly") };
        assert!(matches!(failure, TransformError::Failed { .. }), "{failure:?}");
        error(&failure);
    }
}

/// As `fails`, for a transform whose pieces decide how much comes before the error: a prefix of `most`.
#[track_caller]
pub fn fails_within<T: Transform>(
    make: impl Fn() -> T,
    input: impl Into<Bytes>,
    most: &[u8],
    error: impl Fn(&TransformError),
) {
    let input = input.into();
    for (way, manner, bound) in ways() {
        let (got, end) = way.go(make(), input.clone(), manner, bound);
        assert!(most.starts_with(&got), "{way:?} {manner:?} {bound}: wrong bytes");
        let Err(failure) = end else { panic!("{way:?} {manner:?} {bound}: it ended cleanly") };
        assert!(matches!(failure, TransformError::Failed { .. }), "{failure:?}");
        error(&failure);
    }
}

/// The source, and the sink, fails at call 0, 1, 2, .. until a call is not reached any more.
fn fails_with_its_ends<T: Transform>(make: &impl Fn() -> T, input: &Bytes, expected: &[u8]) {
    for way in WAYS {
        for piece in [7, 64] {
            for k in 0.. {
                let manner = Manner { piece, pending: k % 2 == 1, fail_at: Some(k) };
                let (got, end) = way.go(make(), input.clone(), manner, 16);
                assert!(expected.starts_with(&got), "{way:?} {manner:?}: wrong bytes");
                let Err(error) = end else { break };
                match (way.reads(), &error) {
                    (true, TransformError::Source { .. }) | (false, TransformError::Sink { .. }) => {}
                    _ => panic!("{way:?} {manner:?}: {error:?}"),
                }
                assert_eq!(error.find::<Planned>(), Some(&Planned(k)), "{way:?} {manner:?}: {error:?}");
                assert!(k < 10_000, "every call fails");
            }
        }
    }
}

fn ways() -> impl Iterator<Item = (Way, Manner, usize)> {
    WAYS.into_iter()
        .flat_map(|way| MANNERS.into_iter().flat_map(move |manner| BOUNDS.map(|bound| (way, manner, bound))))
}

/// A shell, what it stands at, and how it is used.
#[derive(Debug, Clone, Copy)]
enum Way {
    Read,
    ReadABit,
    BufRead,
    Stream,
    Write,
    WriteABit,
    Sink,
    WriteToSink,
}

const WAYS: [Way; 8] =
    [Way::Read, Way::ReadABit, Way::BufRead, Way::Stream, Way::Write, Way::WriteABit, Way::Sink, Way::WriteToSink];

impl Way {
    fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadABit | Self::BufRead | Self::Stream)
    }

    fn go<T: Transform>(self, transform: T, input: Bytes, manner: Manner, bound: usize) -> Came<T::Value> {
        match self {
            Self::Read => {
                let source = WildReader::new(input, manner);
                read(TransformReader::new(source, transform).output_limit(bound), usize::MAX)
            }
            Self::ReadABit => {
                let source = WildReader::new(input, manner);
                read(TransformReader::from_stream(source, transform).output_limit(bound), 3)
            }
            Self::BufRead => {
                let source = WildReader::new(input, manner);
                chunks(TransformReader::from_buf_read(source, transform).output_limit(bound))
            }
            Self::Stream => {
                let source = WildReader::new(input, manner);
                stream(TransformReader::from_stream(source, transform).output_limit(bound))
            }
            Self::Write => {
                let sink = WildWriter::new(manner);
                write(TransformWriter::new(sink, transform).output_limit(bound), &input, usize::MAX)
            }
            Self::WriteABit => {
                let sink = WildWriter::new(manner);
                write(TransformWriter::new(sink, transform).output_limit(bound), &input, 5)
            }
            Self::Sink => {
                let sink = WildWriter::new(manner);
                send(TransformWriter::from_sink(sink, transform).output_limit(bound), &input)
            }
            Self::WriteToSink => {
                let sink = WildWriter::new(manner);
                write(TransformWriter::from_sink(sink, transform).output_limit(bound), &input, 1000)
            }
        }
    }
}

fn read<S: Source, T: Transform>(mut reader: TransformReader<S, T>, most: usize) -> Came<T::Value> {
    let mut got = Vec::new();
    let end = run(async {
        let mut buffer = vec![0; most.min(4096)];
        loop {
            match reader.read(&mut buffer).await? {
                0 => break Ok(()),
                n => got.extend_from_slice(&buffer[..n]),
            }
        }
    });
    if let Err(error) = end {
        let error = typed(&error);
        // It repeats.
        for _ in 0..2 {
            assert_eq!(typed(&run(reader.read(&mut [0; 8])).unwrap_err()).to_string(), error.to_string());
        }
        assert_eq!(reader.into_value().err().map(|error| error.to_string()), Some(error.to_string()));
        return (got, Err(error));
    }
    assert_eq!(run(reader.read(&mut [0; 8])).unwrap(), 0, "something after the end");
    (got, reader.into_value())
}

fn chunks<S: Source, T: Transform>(mut reader: TransformReader<S, T>) -> Came<T::Value> {
    let mut got = Vec::new();
    loop {
        match run(reader.next_chunk()) {
            Ok(Some(chunk)) => {
                assert!(!chunk.is_empty());
                got.extend_from_slice(&chunk);
            }
            Ok(None) => return (got, reader.into_value()),
            Err(error) => return (got, Err(error)),
        }
    }
}

fn stream<S: Source, T: Transform>(reader: TransformReader<S, T>) -> Came<T::Value> {
    let (mut got, mut stream) = (Vec::new(), reader.into_stream());
    while let Some(chunk) = run(stream.next()) {
        match chunk {
            Ok(chunk) => got.extend_from_slice(&chunk),
            Err(error) => {
                assert!(run(stream.next()).is_none(), "something after the error");
                return (got, Err(error));
            }
        }
    }
    (got, stream.into_inner().into_value())
}

fn write<D, T>(mut writer: TransformWriter<D, T>, input: &[u8], most: usize) -> Came<T::Value>
where
    D: Drain + Within<Inner = WildWriter>,
    T: Transform,
{
    let end = run(async {
        for piece in input.chunks(most.min(input.len().max(1))) {
            writer.write_all(piece).await?;
        }
        writer.shutdown().await
    });
    if let Err(error) = end {
        let error = typed(&error);
        let got = writer.get_ref().got.clone();
        // It repeats, whatever is asked; in particular an ignored error is not followed by a clean end.
        for _ in 0..2 {
            assert_eq!(typed(&run(writer.flush()).unwrap_err()).to_string(), error.to_string());
            assert_eq!(typed(&run(writer.shutdown()).unwrap_err()).to_string(), error.to_string());
            assert_eq!(typed(&run(writer.write(b"x")).unwrap_err()).to_string(), error.to_string());
        }
        let (sink, value) = writer.into_parts();
        assert!(!sink.closed, "ended cleanly in spite of {error:?}");
        assert_eq!(value.err().map(|error| error.to_string()), Some(error.to_string()));
        assert_eq!(sink.got, got, "written after the error");
        return (got, Err(error));
    }
    assert!(run(writer.write(b"x")).is_err(), "written to after the shutdown");
    run(writer.flush()).unwrap();
    run(writer.shutdown()).unwrap();
    let (sink, value) = writer.into_parts();
    assert!(sink.closed && sink.flushed == sink.got.len(), "{sink:?}");
    (sink.got, value)
}

fn send<D, T>(writer: TransformWriter<D, T>, input: &Bytes) -> Came<T::Value>
where
    D: Drain + Within<Inner = WildWriter>,
    T: Transform,
{
    let mut sink = writer.into_sink();
    let end = run(async {
        let mut left = input.clone();
        while !left.is_empty() {
            sink.send(left.split_to(left.len().min(100))).await?;
        }
        sink.close().await
    });
    let (sink, value) = sink.into_inner().into_parts();
    match end {
        Ok(()) => assert!(sink.closed),
        Err(error) => {
            assert!(!sink.closed, "ended cleanly in spite of {error:?}");
            assert!(value.is_err());
            return (sink.got, Err(error));
        }
    }
    (sink.got, value)
}

fn typed(error: &std::io::Error) -> TransformError {
    TransformError::from_io(error).expect("a TransformError is inside").clone()
}
