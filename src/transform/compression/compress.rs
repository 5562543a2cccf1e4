//! Compresses what passes. Never ends the compressed stream unless its input has ended.

use std::{fmt, io};

use bytes::{Buf, Bytes};
use compression_codecs::{EncodeV2, GzipEncoder, ZstdEncoder, core::Level as CodecLevel, zstd::params::CParameter};

use super::{
    super::{Flow, Output, Transform},
    run,
};

/// What a flush writes into: it must never be full just when the flush is done, or another would be begun.
const FLUSH_ROOM: usize = 4 << 10;

/// Compresses a stream.
///
/// What is held back for a better ratio is put out by a `flush`, which costs some of that ratio. The end of the
/// compressed stream is written by `shutdown` alone: dropped before, it is a cut stream, which every decompressor
/// can tell.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Compress, Decompress, Level, TransformReader, TransformWriter};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let mut writer = TransformWriter::new(Vec::new(), Compress::gzip(Level::Default));
/// writer.write_all(b"some bytes").await?;
/// writer.shutdown().await?;
/// let gz = writer.into_inner();
///
/// let mut text = String::new();
/// TransformReader::new(&gz[..], Decompress::gzip()).read_to_string(&mut text).await?;
/// assert_eq!(text, "some bytes");
/// # std::io::Result::Ok(()) })?;
/// # std::io::Result::Ok(())
/// ```
pub struct Compress {
    codec: Box<dyn EncodeV2 + Send + Sync>,
    /// What a flush has made and found no room for.
    rest: Bytes,
    flushed: bool,
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// As fast as the format allows without inflating.
    Fastest,
    /// What the format's own tool does by default.
    #[default]
    Default,
    /// As small as the format allows, however long that takes.
    Best,
    /// The format's own number (gzip and xz 0 to 9, bzip2 1 to 9, zstd up to 22 and below 0 for speed); beyond
    /// its range the nearest.
    Exactly(i32),
}

impl Compress {
    /// To one gzip member.
    pub fn gzip(level: Level) -> Self {
        Self::new(GzipEncoder::new(level.of_codecs().into()))
    }

    /// To one zstd frame, with its checksum: without it a wrong byte could come out unseen.
    pub fn zstd(level: Level) -> Self {
        let quality = CParameter::quality(level.of_codecs());
        Self::new(ZstdEncoder::new_with_params(quality, &[CParameter::checksum_flag(true)]))
    }

    /// To one bzip2 stream.
    #[cfg(feature = "bzip2")]
    pub fn bzip2(level: Level) -> Self {
        Self::new(compression_codecs::BzEncoder::new(level.of_codecs().into(), 0))
    }

    /// To one xz stream.
    #[cfg(feature = "xz")]
    pub fn xz(level: Level) -> Self {
        Self::new(compression_codecs::XzEncoder::new(level.of_codecs()))
    }

    fn new(codec: impl EncodeV2 + Send + Sync + 'static) -> Self {
        Self { codec: Box::new(codec), rest: Bytes::new(), flushed: false }
    }

    /// Puts what the last flush has left; whether that was all.
    fn put_rest(&mut self, output: &mut Output) -> bool {
        let put = output.put_slice(&self.rest);
        self.rest.advance(put);
        self.rest.is_empty()
    }
}

impl Transform for Compress {
    type Value = ();
    type Error = io::Error;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, io::Error> {
        while !input.is_empty() {
            let spare = output.spare();
            if spare.is_empty() {
                return Ok(Flow::Full);
            }
            let (put, said) = run(input, spare, |from, into| self.codec.encode(from, into));
            output.advance(put);
            said?;
        }
        Ok(Flow::Continue)
    }

    fn flush(&mut self, output: &mut Output) -> Result<Flow, io::Error> {
        while self.put_rest(output) {
            if std::mem::take(&mut self.flushed) {
                return Ok(Flow::Continue);
            }
            let mut room = vec![0; FLUSH_ROOM];
            let (put, done) = run(&mut Bytes::new(), &mut room, |_, into| self.codec.flush(into));
            room.truncate(put);
            self.rest = room.into();
            self.flushed = done?;
        }
        Ok(Flow::Full)
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, io::Error> {
        loop {
            let spare = output.spare();
            if spare.is_empty() {
                return Ok(Flow::Full);
            }
            let (put, done) = run(&mut Bytes::new(), spare, |_, into| self.codec.finish(into));
            output.advance(put);
            if done? {
                return Ok(Flow::Continue);
            }
        }
    }

    fn into_value(self) {}
}

impl Level {
    fn of_codecs(self) -> CodecLevel {
        match self {
            Self::Fastest => CodecLevel::Fastest,
            Self::Default => CodecLevel::Default,
            Self::Best => CodecLevel::Best,
            Self::Exactly(level) => CodecLevel::Precise(level),
        }
    }
}

impl fmt::Debug for Compress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compress").finish_non_exhaustive()
    }
}
