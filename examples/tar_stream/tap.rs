//! Hashes and counts the bytes that go by, on the way in and on the way out.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, ReadBuf};

use crate::fault::Fault;

/// A writer or an async reader that keeps account of its bytes.
pub(crate) struct Tap<T> {
    inner: T,
    sha256: Sha256,
    bytes: u64,
    ended: bool,
    copy: Option<Copy>,
}

/// A file that gets what a reader read.
struct Copy {
    path: PathBuf,
    file: BufWriter<File>,
}

/// What went through a [`Tap`].
pub(crate) struct Tapped {
    pub bytes: u64,
    pub sha256: String,
}

impl<T> Tap<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self { inner, sha256: Sha256::new(), bytes: 0, ended: false, copy: None }
    }

    /// Has every byte that is read from here on written to a new file at `path`, too.
    pub(crate) fn copy_to(&mut self, path: &Path) -> Result<(), Fault> {
        let file = File::create(path).map_err(|e| Fault::new(path, "cannot create", e))?;
        self.copy = Some(Copy { path: path.to_owned(), file: BufWriter::new(file) });
        Ok(())
    }

    /// Brings the copy to its file.
    pub(crate) fn finish_copy(&mut self) -> Result<(), Fault> {
        self.copy.as_mut().map_or(Ok(()), |copy| copy.done(Write::flush))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a read has met the end: what tells a cut tar from a broken one.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn tapped(&self) -> Tapped {
        Tapped { bytes: self.bytes, sha256: hex(self.sha256.clone()) }
    }

    fn account(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Tap<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.account(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Tap<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        self.ended = read.is_empty();
        if let Some(copy) = &mut self.copy {
            // Blocks, which a task that shares its thread with others should not do.
            copy.done(|file| file.write_all(read))?;
        }
        self.account(read);
        Poll::Ready(Ok(()))
    }
}

impl Copy {
    fn done(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), Fault> {
        write(&mut self.file).map_err(|e| Fault::new(&self.path, "cannot write", e))
    }
}

pub(crate) fn hex(sha256: Sha256) -> String {
    sha256.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
