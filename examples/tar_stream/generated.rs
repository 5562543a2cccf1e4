//! Makes a build context on the fly: thousands of small files, a few large ones, none held whole.

use std::io::{self, Read};

use tar::Header;

use crate::source::Tar;

/// Small files to one large one.
const ROUND: u64 = 2048;
const SMALL: u64 = 64 * 1024;

/// Writes files until they have `size` bytes together.
pub(crate) fn pack(size: u64, tar: &mut Tar) -> io::Result<()> {
    let mut dice = Noise(size);
    let mut total = 0;
    for number in 0.. {
        if total >= size {
            break;
        }
        let (path, len) = match number % ROUND {
            0 => (format!("layers/{number}.bin"), size / 8),
            _ => (format!("src/{:03}/{number}.rs", number % 97), 1 + dice.next() % SMALL),
        };
        let mut header = Header::new_gnu();
        header.set_size(len);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, Noise(number).take(len))?;
        total += len;
    }
    Ok(())
}

/// A stream of bytes that looks random, so that nothing below can compress it away, and is the
/// same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }
}

impl Read for Noise {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        for bytes in buf.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
        Ok(buf.len())
    }
}
