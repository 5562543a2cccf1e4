//! The halves for threads that may block. Never needs a runtime, and works beside one.

use std::{
    error::Error,
    io::{self, BufRead, IoSlice, Read, Write},
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;

use crate::{
    control::Control,
    copy,
    error::SpillError,
    reader::SpillReader,
    shell::Target,
    stats::SpillStats,
    sync::{
        Arc,
        thread::{self, Thread},
    },
    writer::SpillWriter,
};

/// The writing half as a [`Write`]; made by [`SpillWriter::into_blocking`].
///
/// It parks its thread where the async half would be pending, so it belongs on a thread of its own
/// (`std::thread::spawn`, `tokio::task::spawn_blocking`), not on one that runs tasks. What is said at
/// [`SpillWriter`] of ends holds here too.
///
/// # Example
///
/// ```
/// use spillbuffer::SpillBuffer;
/// use std::io::{Read, Write};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (writer, reader) = SpillBuffer::new().into_split();
/// let producer = std::thread::spawn(move || {
///     let mut writer = writer.into_blocking();
///     writer.write_all(b"no runtime anywhere")?;
///     writer.finish().map_err(std::io::Error::from)
/// });
/// let mut text = String::new();
/// reader.into_blocking().read_to_string(&mut text)?;
/// assert_eq!(text, "no runtime anywhere");
/// producer.join().unwrap()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct BlockingWriter {
    writer: SpillWriter,
    parker: Parker,
}

impl BlockingWriter {
    pub(crate) fn new(writer: SpillWriter) -> Self {
        Self { writer, parker: Parker::default() }
    }

    /// As [`SpillWriter::write_bytes`].
    pub fn write_bytes(&mut self, mut item: Bytes) -> Result<(), SpillError> {
        let Self { writer, parker } = self;
        parker.block_on(|cx| writer.shared().poll_write_bytes(cx, &mut item))
    }

    /// As [`SpillWriter::finish`].
    pub fn finish(self) -> Result<(), SpillError> {
        self.writer.finish()
    }

    /// As [`SpillWriter::fail`].
    pub fn fail(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.writer.fail(cause);
    }

    /// As [`SpillWriter::abort`].
    pub fn abort(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.writer.abort(cause);
    }

    /// What the buffer holds and has done.
    pub fn stats(&self) -> SpillStats {
        self.writer.stats()
    }

    /// A handle that outlives the move of both halves.
    pub fn control(&self) -> Control {
        self.writer.control()
    }

    /// The async half.
    #[must_use]
    pub fn into_inner(self) -> SpillWriter {
        self.writer
    }
}

impl Write for BlockingWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let Self { writer, parker } = self;
        Ok(parker.block_on(|cx| writer.shared().poll_write(cx, bufs))?)
    }

    /// Returns at once: what was accepted is visible already.
    fn flush(&mut self) -> io::Result<()> {
        Ok(self.writer.shared().check_flush()?)
    }
}

/// The reading half as a [`Read`] and [`BufRead`]; made by [`SpillReader::into_blocking`].
///
/// It parks its thread where the async half would be pending; see [`BlockingWriter`].
#[derive(Debug)]
pub struct BlockingReader {
    reader: SpillReader,
    parker: Parker,
}

impl BlockingReader {
    pub(crate) fn new(reader: SpillReader) -> Self {
        Self { reader, parker: Parker::default() }
    }

    /// As [`SpillReader::next_chunk`].
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, SpillError> {
        let Self { reader, parker } = self;
        parker.block_on(|cx| reader.poll_chunk(cx))
    }

    /// As [`SpillReader::cancel`].
    pub fn cancel(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.reader.cancel(cause);
    }

    /// What the buffer holds and has done.
    pub fn stats(&self) -> SpillStats {
        self.reader.stats()
    }

    /// A handle that outlives the move of both halves.
    pub fn control(&self) -> Control {
        self.reader.control()
    }

    /// The async half.
    #[must_use]
    pub fn into_inner(self) -> SpillReader {
        self.reader
    }
}

impl Read for BlockingReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Self { reader, parker } = self;
        let mut target = Slice { buf, filled: 0 };
        Ok(parker.block_on(|cx| reader.poll_copy(cx, &mut target))?)
    }
}

impl BufRead for BlockingReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let Self { reader, parker } = self;
        parker.block_on(|cx| reader.poll_show(cx).map_ok(drop))?;
        Ok(reader.shown())
    }

    fn consume(&mut self, amt: usize) {
        self.reader.take(amt);
    }
}

struct Slice<'a> {
    buf: &'a mut [u8],
    filled: usize,
}

impl Target for Slice<'_> {
    fn remaining(&self) -> usize {
        self.buf.len() - self.filled
    }

    fn put(&mut self, bytes: &[u8]) {
        copy::copy(bytes, self.space(bytes.len()));
        self.filled += bytes.len();
    }

    fn space(&mut self, len: usize) -> &mut [u8] {
        &mut self.buf[self.filled..self.filled + len]
    }

    fn advance(&mut self, n: usize) {
        self.filled += n;
    }
}

/// Parks its thread until a waker is called. Tokio's cooperative budget has no part in it: a thread
/// that may block starves nobody.
#[derive(Debug, Default)]
struct Parker {
    /// Made anew when the half has moved to another thread.
    waker: Option<(Thread, Waker)>,
}

impl Parker {
    fn block_on<T>(&mut self, mut poll: impl FnMut(&Context<'_>) -> Poll<T>) -> T {
        let here = thread::current();
        let (_, waker) = match &mut self.waker {
            Some(own) if own.0.id() == here.id() => own,
            own => own.insert((here.clone(), Waker::from(Arc::new(Unpark(here))))),
        };
        let cx = Context::from_waker(waker);
        loop {
            if let Poll::Ready(done) = poll(&cx) {
                return done;
            }
            // It may wake for no reason; then it is asked once more.
            thread::park();
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}
