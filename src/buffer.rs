//! The buffer as one handle, before it is split. Never more than its two halves.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    builder::Builder,
    control::Control,
    options::{Options, Settings},
    reader::SpillReader,
    shell::Shared,
    stats::SpillStats,
    sync::LazyLock,
    writer::SpillWriter,
};

/// A pipe: bytes wait in a small memory window, what does not fit waits in an unlinked temp file,
/// and when the reader has caught up everything is memory again.
///
/// As one handle it can be written and read by one task; [`into_split`](Self::into_split) gives each
/// side its own, which is how it is mostly used. Reading while it is empty waits, as with tokio's
/// duplex: shut it down (`AsyncWriteExt::shutdown`) for the reads to come to an end.
///
/// # Example
///
/// ```
/// use spillbuffer::SpillBuffer;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let mut buffer = SpillBuffer::new();
/// buffer.write_all(&vec![7; 4 << 20]).await?; // four times its memory: nobody has to read yet
/// buffer.shutdown().await?;
///
/// let mut back = Vec::new();
/// buffer.read_to_end(&mut back).await?;
/// assert_eq!(back.len(), 4 << 20);
/// # Ok(()) }
/// ```
///
/// # Cancel safety
///
/// Reads, writes, flush and shutdown move nothing before they are ready: dropped earlier, they have
/// neither lost nor repeated a byte. `write_all` and `read_exact` of tokio may have moved a part, as
/// their docs say.
#[derive(Debug)]
pub struct SpillBuffer {
    writer: SpillWriter,
    reader: SpillReader,
}

impl SpillBuffer {
    /// A buffer with defaults: 1 MiB of memory, as much disk as there is, verified. Makes no file.
    #[must_use]
    pub fn new() -> Self {
        static DEFAULTS: LazyLock<Options> = LazyLock::new(|| match Settings::default().check() {
            Ok(options) => options,
            // They are values that it accepts; a test holds that.
            Err(error) => unreachable!("{error}"),
        });
        Self::with(&DEFAULTS)
    }

    /// Sets options.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn with(options: &Options) -> Self {
        let shared = Shared::new(options);
        Self::of(shared)
    }

    pub(crate) fn of(shared: std::sync::Arc<Shared>) -> Self {
        Self { reader: SpillReader::new(shared.clone()), writer: SpillWriter::new(shared) }
    }

    /// The two halves, each to be moved where it is wanted.
    #[must_use]
    pub fn into_split(self) -> (SpillWriter, SpillReader) {
        (self.writer, self.reader)
    }

    /// What it holds and has done.
    pub fn stats(&self) -> SpillStats {
        self.writer.stats()
    }

    /// A handle that outlives the move of both halves.
    pub fn control(&self) -> Control {
        self.writer.control()
    }
}

impl Default for SpillBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl AsyncRead for SpillBuffer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncBufRead for SpillBuffer {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().reader).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, amt: usize) {
        Pin::new(&mut self.reader).consume(amt);
    }
}

impl AsyncWrite for SpillBuffer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
