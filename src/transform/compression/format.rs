//! The compressed formats there are, and how each begins. Never guesses from less than all of that.

use std::fmt;

/// A compressed format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// `.gz`, RFC 1952.
    Gzip,
    /// `.zst`, RFC 8878.
    Zstd,
    /// `.bz2`; with the feature `bzip2`.
    Bzip2,
    /// `.xz`; with the feature `xz`.
    Xz,
}

/// What the first bytes of a stream tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    Right,
    /// So far, and they are too few to be sure.
    RightSoFar,
    Wrong,
}

impl Format {
    /// All that are built in.
    pub(super) const ALL: &[Self] = &[
        Self::Gzip,
        Self::Zstd,
        #[cfg(feature = "bzip2")]
        Self::Bzip2,
        #[cfg(feature = "xz")]
        Self::Xz,
    ];

    /// Whether a stream of this format may begin so.
    pub(super) fn looks(self, head: &[u8]) -> Looks {
        match self {
            Self::Gzip => looks_like(head, &[0x1f, 0x8b, 8]),
            // A skippable frame may come first; the low half of its first byte is free.
            Self::Zstd => match head.first() {
                Some(first) if first & 0xf0 == 0x50 => looks_like(&head[1..], &[0x2a, 0x4d, 0x18]),
                _ => looks_like(head, &[0x28, 0xb5, 0x2f, 0xfd]),
            },
            // `BZh` alone begins many a text: the mark of the first block, or of the end, follows the level.
            Self::Bzip2 => match head.get(3) {
                Some(b'1'..=b'9') if head.starts_with(b"BZh") => {
                    let block = looks_like(&head[4..], &[0x31, 0x41, 0x59, 0x26, 0x53, 0x59]);
                    let end = looks_like(&head[4..], &[0x17, 0x72, 0x45, 0x38, 0x50, 0x90]);
                    if block == Looks::Wrong { end } else { block }
                }
                Some(_) => Looks::Wrong,
                None => looks_like(head, b"BZh?"),
            },
            Self::Xz => looks_like(head, &[0xfd, b'7', b'z', b'X', b'Z', 0]),
        }
    }
}

fn looks_like(head: &[u8], mark: &[u8]) -> Looks {
    if head.starts_with(mark) {
        Looks::Right
    } else if mark.starts_with(head) {
        Looks::RightSoFar
    } else {
        Looks::Wrong
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
        })
    }
}
