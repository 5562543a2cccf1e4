//! Where the tar comes from: a directory, a tar that may be compressed, or thin air.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use tar::Builder;

use crate::fault::Fault;
use crate::{CHUNK, directory, generated};

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What is to be streamed.
pub(crate) enum Source {
    /// A context of about so many bytes.
    Generated(u64),
    Stdin,
    /// A directory or a file.
    Path(PathBuf),
}

impl Source {
    /// What messages call it.
    pub(crate) fn name(&self) -> &Path {
        match self {
            Self::Generated(_) => Path::new("generated context"),
            Self::Stdin => Path::new("standard input"),
            Self::Path(path) => path,
        }
    }

    /// Writes it as a tar, and returns what had to be left out.
    pub(crate) fn write_to(&self, out: &mut impl Write) -> Result<Vec<String>, Fault> {
        match self {
            Self::Generated(size) => self.archive(out, |tar| generated::pack(*size, tar)),
            Self::Stdin => self.copy(io::stdin().lock(), out),
            Self::Path(path) if self.is_dir()? => self.archive(out, |tar| directory::pack(path, tar)),
            Self::Path(path) => {
                let file = File::open(path).map_err(|e| Fault::new(path, "cannot open", e))?;
                self.copy(file, out)
            }
        }
    }

    fn is_dir(&self) -> Result<bool, Fault> {
        let name = self.name();
        let meta = fs::metadata(name).map_err(|e| Fault::new(name, "cannot open", e))?;
        Ok(meta.is_dir())
    }

    /// Writes what `fill` packs, and the end-of-archive marker only if all of it was packed.
    fn archive<W: Write>(
        &self,
        out: W,
        fill: impl FnOnce(&mut Builder<Valve<W>>) -> io::Result<Vec<String>>,
    ) -> Result<Vec<String>, Fault> {
        let mut tar = Builder::new(Valve { out, open: true });
        let filled = fill(&mut tar).and_then(|skipped| tar.finish().map(|()| skipped));
        // A builder that is dropped unfinished writes the marker after all, and with it a short
        // tar would look like a whole one.
        tar.get_mut().open = false;
        filled.map_err(|e| Fault::writing(self, &e))
    }

    /// Copies a tar as it is, or as it is without its compression.
    fn copy(&self, input: impl Read, out: &mut impl Write) -> Result<Vec<String>, Fault> {
        let mut input = BufReader::with_capacity(CHUNK, input);
        let mut head = Vec::new();
        let read = input.by_ref().take(GZIP.len() as u64).read_to_end(&mut head);
        read.map_err(|e| Fault::at(self.name(), "cannot read", 0, e))?;

        let compressed = head == GZIP;
        let input = Counted { inner: Cursor::new(head).chain(input), consumed: 0 };
        if compressed {
            self.pump(MultiGzDecoder::new(input), |gzip| gzip.get_ref().consumed, out)?;
        } else {
            self.pump(input, |input| input.consumed, out)?;
        }
        Ok(Vec::new())
    }

    fn pump<R: Read>(&self, mut input: R, offset: impl Fn(&R) -> u64, out: &mut impl Write) -> Result<(), Fault> {
        let mut buf = vec![0; CHUNK];
        loop {
            match input.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => out.write_all(&buf[..n]).map_err(|e| Fault::writing(self, &e))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Fault::at(self.name(), trouble(&e), offset(&input), e)),
            }
        }
    }
}

/// What an error says of a source: the system's errors have a number, a decoder's have none.
fn trouble(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if error.raw_os_error().is_some() => "cannot read",
        io::ErrorKind::UnexpectedEof => "the gzip is cut short",
        _ => "the gzip is corrupt",
    }
}

/// A writer that can be shut.
pub(crate) struct Valve<W> {
    out: W,
    open: bool,
}

impl<W: Write> Write for Valve<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Also shut by a panic on its way through the builder.
        if self.open && !std::thread::panicking() {
            self.out.write(bytes)
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Counts what a decoder has used, which is less than what was read ahead for it.
struct Counted<R> {
    inner: R,
    consumed: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.consumed += n as u64;
        Ok(n)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
        self.consumed += n as u64;
    }
}
