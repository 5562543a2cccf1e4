//! Decompresses what passes, within bounds. Never believes an end that the format does not confirm.

use std::{fmt, io, mem, sync::Arc};

use bytes::{Buf, Bytes, BytesMut};
use compression_codecs::{DecodeV2, GzipDecoder, ZstdDecoder};

use super::{
    super::{Flow, Output, Transform},
    DecompressError, Format,
    format::Looks,
    run,
};

/// The most memory that xz may take, in bytes; zstd's own bound for its window is the same.
#[cfg(feature = "xz")]
const MOST_MEMORY: u64 = 128 << 20;

/// Decompresses a stream, all its members to the end.
///
/// Members (gzip), frames (zstd) and streams (bzip2, xz) that follow one another are read as one stream, as
/// each format's own tool does. A stream that was cut is [`DecompressError::Truncated`], also where all its bytes could
/// be decompressed and only its end mark is missing; anything else behind its end is
/// [`DecompressError::TrailingGarbage`].
///
/// # Bombs
///
/// A few kilobytes can stand for terabytes. Memory is bounded in any case: output comes in bounded pieces, and
/// a stream that asks its decoder for more than 128 MiB is refused. How much may come out is for the user to say,
/// with [`max_total`](Self::max_total) and [`max_ratio`](Self::max_ratio); by default there is no such bound. Both
/// are errors as soon as they are passed.
///
/// # Example
///
/// ```
/// use spillbuffer::transform::{Compress, Decompress, DecompressError, Level, TransformError, TransformReader};
/// use tokio::io::AsyncReadExt;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// // 10 MiB of zeros, which is 10 KiB compressed.
/// let bomb = TransformReader::new(tokio::io::repeat(0).take(10 << 20), Compress::gzip(Level::Default));
///
/// let careful = Decompress::detect().max_total(1 << 30).max_ratio(100, 1 << 20);
/// let error = TransformReader::new(bomb, careful).read_to_end(&mut Vec::new()).await.unwrap_err();
/// let error: &DecompressError = TransformError::from_io(&error).unwrap().find().unwrap();
/// assert!(matches!(error, DecompressError::TooDense { ratio: 100, .. }));
/// # });
/// # std::io::Result::Ok(())
/// ```
pub struct Decompress {
    expected: Option<Format>,
    max_total: u64,
    max_ratio: Option<(u32, u64)>,
    state: State,
    /// The first bytes of a member, until they tell what it is.
    head: BytesMut,
    taken: u64,
    made: u64,
    found: Option<Format>,
}

enum State {
    /// Before the first member.
    Start,
    Member(Member),
    /// After a member: another may follow, or the end.
    Between(Member, Padding),
    /// Nothing that is known: it passes as it is.
    Plain,
}

struct Member {
    format: Format,
    codec: Box<dyn DecodeV2 + Send + Sync>,
    /// What has been taken of it for its head, and goes to the codec before the input does.
    held: Bytes,
    /// What follows the head are gzip's flags.
    flags_come: bool,
    /// The last piece of output was filled: the codec may have more, even without input.
    more: bool,
}

/// How many zero bytes there were behind a member, which xz allows in fours.
type Padding = u64;

/// What [`Decompress`] leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decompressed {
    /// What the stream was; `None` where [`Decompress::detect`] found it plain.
    pub format: Option<Format>,
    /// How many bytes went in.
    pub taken: u64,
    /// How many came out.
    pub made: u64,
}

impl Decompress {
    /// Gzip, or [`DecompressError::WrongFormat`].
    pub fn gzip() -> Self {
        Self::new(Some(Format::Gzip))
    }

    /// Zstd, or [`DecompressError::WrongFormat`].
    pub fn zstd() -> Self {
        Self::new(Some(Format::Zstd))
    }

    /// Bzip2, or [`DecompressError::WrongFormat`].
    #[cfg(feature = "bzip2")]
    pub fn bzip2() -> Self {
        Self::new(Some(Format::Bzip2))
    }

    /// Xz, or [`DecompressError::WrongFormat`].
    #[cfg(feature = "xz")]
    pub fn xz() -> Self {
        Self::new(Some(Format::Xz))
    }

    /// Whichever format the first bytes are of, of those that are built in; what is none of them passes
    /// as it is.
    pub fn detect() -> Self {
        Self::new(None)
    }

    /// At most `bytes` come out; further ones are [`DecompressError::TooLong`].
    #[must_use]
    pub fn max_total(mut self, bytes: u64) -> Self {
        self.max_total = bytes;
        self
    }

    /// Once more than `grace` bytes have come out, they are at most `ratio` times as many as went in; more are
    /// [`DecompressError::TooDense`], behind what was made with them at one go, 64 KiB at most. Real data seldom exceeds 20, sparse
    /// images and logs may. Gzip cannot exceed 1032; zstd, bzip2 and xz can by far.
    #[must_use]
    pub fn max_ratio(mut self, ratio: u32, grace: u64) -> Self {
        self.max_ratio = Some((ratio, grace));
        self
    }

    fn new(expected: Option<Format>) -> Self {
        Self {
            expected,
            max_total: u64::MAX,
            max_ratio: None,
            state: State::Start,
            head: BytesMut::new(),
            taken: 0,
            made: 0,
            found: None,
        }
    }

    /// Takes a byte at a time until it is clear what begins here. At most ten bytes, once a member.
    fn start(&mut self, input: &mut Bytes) -> Result<(), DecompressError> {
        while let Some(&byte) = input.first() {
            self.head.extend_from_slice(&[byte]);
            input.advance(1);
            match self.looks_like() {
                (Looks::RightSoFar, _) => {}
                (Looks::Right, Some(format)) => {
                    self.found = Some(format);
                    self.state = State::Member(Member::new(format, self.head.split().freeze()));
                    return Ok(());
                }
                _ => {
                    if let Some(expected) = self.expected {
                        return Err(DecompressError::WrongFormat { expected });
                    }
                    self.state = State::Plain;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Of the formats it may be, the one that the head fits best.
    fn looks_like(&self) -> (Looks, Option<Format>) {
        let formats = self.expected.as_ref().map_or(Format::ALL, std::slice::from_ref);
        let look = |wanted| formats.iter().copied().find(|format| format.looks(&self.head) == wanted);
        if let Some(format) = look(Looks::Right) {
            (Looks::Right, Some(format))
        } else if let Some(format) = look(Looks::RightSoFar) {
            (Looks::RightSoFar, Some(format))
        } else {
            (Looks::Wrong, None)
        }
    }

    /// Takes what follows a member until it is clear that it is another.
    fn go_on(&mut self, input: &mut Bytes) -> Result<(), DecompressError> {
        let State::Between(member, padding) = &mut self.state else {
            return Ok(());
        };
        let format = member.format;
        while let Some(&byte) = input.first() {
            let garbage = DecompressError::TrailingGarbage { format, offset: self.taken };
            if format == Format::Xz && self.head.is_empty() && byte == 0 {
                *padding += 1;
                self.taken += 1;
                input.advance(1);
                continue;
            }
            self.head.extend_from_slice(&[byte]);
            input.advance(1);
            match format.looks(&self.head) {
                Looks::Wrong => return Err(garbage),
                _ if *padding % 4 != 0 => return Err(garbage),
                Looks::RightSoFar => {}
                Looks::Right => {
                    member.restart(self.head.split().freeze()).map_err(|cause| DecompressError::Corrupt {
                        format,
                        taken: self.taken,
                        cause: Arc::new(cause),
                    })?;
                    if let State::Between(member, _) = mem::replace(&mut self.state, State::Plain) {
                        self.state = State::Member(member);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// One call of the codec; `None` where it has used up all there is.
    fn decode(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Option<Flow>, DecompressError> {
        let State::Member(member) = &mut self.state else {
            return Ok(None);
        };
        if input.is_empty() && member.held.is_empty() && !member.more {
            return Ok(Some(Flow::Continue));
        }
        member.check_flags(input).map_err(|cause| DecompressError::Corrupt {
            format: member.format,
            taken: self.taken + 1,
            cause: Arc::new(cause),
        })?;
        let spare = output.spare();
        if spare.is_empty() {
            return Ok(Some(Flow::Full));
        }
        let mut held = mem::take(&mut member.held);
        let input = if held.is_empty() { input } else { &mut held };
        // One more than may come, so that it is seen whether there is more.
        let left = self.max_total.saturating_sub(self.made).saturating_add(1);
        let len = spare.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let before = input.len();
        let (put, said) = member.decode(input, &mut spare[..len]);
        // A codec that fails does not say how far it has come: somewhere within what it was given.
        let took = if said.is_ok() { before - input.len() } else { before };
        member.more = put == len;
        member.held = held;
        self.taken += took as u64;
        self.made += put as u64;
        let over = self.made.saturating_sub(self.max_total);
        output.advance(put - over as usize);

        let format = member.format;
        let corrupt = |cause| DecompressError::Corrupt { format, taken: self.taken, cause: Arc::new(cause) };
        if said.map_err(corrupt)? {
            if let State::Member(member) = mem::replace(&mut self.state, State::Plain) {
                self.state = State::Between(member, 0);
            }
        } else if took == 0 && put == 0 && before > 0 {
            return Err(corrupt(io::Error::other("the decoder makes no progress")));
        }
        self.check_size(over > 0)?;
        Ok(None)
    }

    fn check_size(&self, over: bool) -> Result<(), DecompressError> {
        if over {
            return Err(DecompressError::TooLong { limit: self.max_total, taken: self.taken });
        }
        match self.max_ratio {
            Some((ratio, grace)) if self.made > grace && self.made > self.taken.saturating_mul(u64::from(ratio)) => {
                Err(DecompressError::TooDense { ratio, taken: self.taken, made: self.made })
            }
            _ => Ok(()),
        }
    }

    /// What is plain counts too.
    fn pass(&mut self, mut bytes: Bytes, output: &mut Output) -> Result<(), DecompressError> {
        let left = usize::try_from(self.max_total - self.made).unwrap_or(usize::MAX);
        let over = bytes.len() > left;
        bytes.truncate(left);
        self.taken += bytes.len() as u64;
        self.made += bytes.len() as u64;
        output.pass(bytes);
        self.check_size(over)
    }

    fn truncated(&self, format: Format) -> DecompressError {
        let taken = self.taken + self.head.len() as u64;
        DecompressError::Truncated { format, taken, made: self.made }
    }
}

impl Transform for Decompress {
    type Value = Decompressed;
    type Error = DecompressError;

    fn transform(&mut self, input: &mut Bytes, output: &mut Output) -> Result<Flow, DecompressError> {
        loop {
            match &self.state {
                State::Start | State::Between(..) if input.is_empty() => return Ok(Flow::Continue),
                State::Start => self.start(input)?,
                State::Between(..) => self.go_on(input)?,
                State::Member(_) => {
                    if let Some(flow) = self.decode(input, output)? {
                        return Ok(flow);
                    }
                }
                State::Plain => {
                    let head = self.head.split().freeze();
                    self.pass(head, output)?;
                    self.pass(mem::take(input), output)?;
                    return Ok(Flow::Continue);
                }
            }
        }
    }

    fn finish(&mut self, output: &mut Output) -> Result<Flow, DecompressError> {
        match (&self.state, self.expected) {
            (State::Start, Some(expected)) => Err(self.truncated(expected)),
            // Too short to be any of them.
            (State::Start | State::Plain, _) => {
                let head = self.head.split().freeze();
                self.pass(head, output)?;
                Ok(Flow::Continue)
            }
            (State::Member(member), _) => Err(self.truncated(member.format)),
            (State::Between(member, _), _) if !self.head.is_empty() => Err(self.truncated(member.format)),
            (State::Between(member, padding), _) if padding % 4 != 0 => {
                Err(DecompressError::TrailingGarbage { format: member.format, offset: self.taken })
            }
            (State::Between(..), _) => Ok(Flow::Continue),
        }
    }

    fn into_value(self) -> Decompressed {
        Decompressed { format: self.found, taken: self.taken, made: self.made }
    }

    fn error_kind(error: &DecompressError) -> io::ErrorKind {
        error.kind()
    }
}

impl Member {
    fn new(format: Format, held: Bytes) -> Self {
        let codec: Box<dyn DecodeV2 + Send + Sync> = match format {
            Format::Zstd => Box::new(ZstdDecoder::new()),
            #[cfg(feature = "bzip2")]
            Format::Bzip2 => Box::new(compression_codecs::BzDecoder::new()),
            #[cfg(feature = "xz")]
            Format::Xz => Box::new(compression_codecs::XzDecoder::with_memlimit(MOST_MEMORY)),
            // The others are never looked for where they are not built in.
            _ => Box::new(GzipDecoder::new()),
        };
        Self { format, codec, held, flags_come: format == Format::Gzip, more: false }
    }

    fn restart(&mut self, held: Bytes) -> io::Result<()> {
        self.held = held;
        self.flags_come = self.format == Format::Gzip;
        self.more = false;
        self.codec.reinit()
    }

    /// Flags that nobody knows stand for fields that would be taken for data: RFC 1952 wants an error, and the codec does
    /// not look.
    fn check_flags(&mut self, input: &Bytes) -> io::Result<()> {
        const RESERVED: u8 = 0b1110_0000;
        if self.flags_come
            && self.held.is_empty()
            && let Some(flags) = input.first()
        {
            self.flags_come = false;
            if flags & RESERVED != 0 {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("its header has unknown flags: {flags:#04x}"),
                ));
            }
        }
        Ok(())
    }

    /// How much was written, and whether the member has ended.
    fn decode(&mut self, input: &mut Bytes, spare: &mut [u8]) -> (usize, io::Result<bool>) {
        run(input, spare, |from, into| {
            if from.unwritten().is_empty() && self.format == Format::Gzip {
                // Its decoder takes a lack of input for an error. The end of a member is never in here: its
                // checksum is still to come.
                self.codec.flush(into).map(|_| false)
            } else {
                self.codec.decode(from, into)
            }
        })
    }
}

impl fmt::Debug for Decompress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decompress")
            .field("format", &self.found.or(self.expected))
            .field("taken", &self.taken)
            .field("made", &self.made)
            .finish_non_exhaustive()
    }
}
