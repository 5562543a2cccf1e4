//! Bytes that tell where they belong: what every stream carries here, and the check of what comes out. Never the same
//! for two places, and cheap enough to be inside a clock.
//!
//! A stream is made of pieces. The first eight bytes of each name the stream and the offset, the rest is a constant.

/// The longest piece.
pub(crate) const PIECE: usize = 64 << 10;

const NAME: usize = 8;
const FILLING: u8 = 0x5a;
static FILLED: [u8; PIECE] = [FILLING; PIECE];

fn name(stream: u64, at: u64) -> [u8; NAME] {
    ((stream << 40) | at).to_le_bytes()
}

/// Where the bytes come from: memory that is named anew for each offset.
pub(crate) struct Source {
    stream: u64,
    piece: usize,
    bytes: Vec<u8>,
}

impl Source {
    /// Pieces of `piece` bytes, one at a time.
    pub(crate) fn new(stream: u64, piece: usize) -> Self {
        Self { stream, piece, bytes: vec![FILLING; piece] }
    }

    /// As many pieces at a time as make `bytes`.
    #[allow(dead_code, reason = "only raw loops write more than a piece at once")]
    pub(crate) fn many(piece: usize, bytes: usize) -> Self {
        Self { stream: 0, piece, bytes: vec![FILLING; bytes] }
    }

    /// How many bytes there are at a time.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// What the stream carries from `at` on.
    pub(crate) fn at(&mut self, at: u64) -> &[u8] {
        for (piece, at) in self.bytes.chunks_mut(self.piece).zip((at..).step_by(self.piece)) {
            piece[..NAME].copy_from_slice(&name(self.stream, at));
        }
        &self.bytes
    }
}

/// How much of what comes out is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    /// The name of each piece, so that one that is missing, repeated or in another's place is seen.
    #[allow(dead_code, reason = "only speed needs it")]
    Names,
    /// Every byte.
    All,
}

/// Takes what comes out, however it is cut, and panics where it is not what went in.
pub(crate) struct Check {
    stream: u64,
    piece: usize,
    compare: Compare,
    /// After so many bytes the names begin anew.
    period: u64,
    at: u64,
}

impl Check {
    pub(crate) fn new(stream: u64, piece: usize, compare: Compare) -> Self {
        Self { stream, piece, compare, period: u64::MAX, at: 0 }
    }

    /// Of a stream that carries the same bytes again after so many.
    #[allow(dead_code, reason = "only speed needs it")]
    pub(crate) fn repeating(self, period: u64) -> Self {
        Self { period, ..self }
    }

    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let inside = (self.at % self.piece as u64) as usize;
            let (part, rest) = bytes.split_at(bytes.len().min(self.piece - inside));
            let named = NAME.saturating_sub(inside).min(part.len());
            let name = name(self.stream, (self.at - inside as u64) % self.period);
            assert_eq!(part[..named], name[inside.min(NAME)..][..named], "another's piece at {}", self.at);
            if self.compare == Compare::All {
                assert!(part[named..] == FILLED[..part.len() - named], "a wrong byte behind {}", self.at);
            }
            self.at += part.len() as u64;
            bytes = rest;
        }
    }

    /// How many bytes have come so far.
    pub(crate) fn taken(&self) -> u64 {
        self.at
    }

    pub(crate) fn end(&self, bytes: u64) {
        assert_eq!(self.at, bytes, "bytes that came out");
    }
}
