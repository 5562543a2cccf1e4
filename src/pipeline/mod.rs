//! A source, stages and a sink, joined: bytes go forward, and every failure goes both ways, with its cause.
//! Never buffers between stages, but where a spill says so.
//!
//! What Node's `stream.pipeline` and the web's `pipeTo` do, with their complaints mended: the first real cause wins and keeps its
//! type, a part is never taken for the whole, and a pipeline that failed has released what it held.
//!
//! # Example
//!
//! An upload goes to a slow sink through a spill, so that the client is not held up; what is known of it comes back as a value.
//!
//! ```
//! use spillbuffer::{SpillBuffer, pipeline::Pipeline, transform::{Counter, Limit}};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let upload = &b"a small file"[..];
//! let mut store = Vec::new();
//!
//! let mut pipeline = Pipeline::from_reader(upload).named("upload").then("limit", Limit::new(1 << 20));
//! let count = pipeline.stage("count", Counter::new(None).0);
//! let mut report = pipeline.spill("spool", SpillBuffer::new()).into_writer(&mut store).run().await?;
//!
//! assert_eq!(report.take(count), Some(12));
//! assert_eq!(store, b"a small file");
//! # Ok::<(), Box<dyn std::error::Error>>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Failures
//!
//! Where a stage fails, the sink is aborted first, out of band: it overtakes what waits in spills, whose backlog is freed at once. So
//! the sink has an exact prefix, and is never told that this is all: an [`AsyncWrite`] is not shut down, a [`SpillWriter`] given
//! to [`into_spill`](Pipeline::into_spill) is aborted with the cause, a [`Drain`] of one's own is told by [`Drain::abort`]. Then the
//! stages are dropped, and the source is [cancelled](Source::cancel) with the cause and dropped.
//!
//! A stream that was cut short is an error wherever the source can tell; a reader that merely ends has ended.

mod branch;
mod chain;
mod ends;
mod error;
mod link;
mod live;
mod parts;
mod reader;
mod report;
mod run;
mod segment;
mod settle;
#[cfg(test)]
mod tests;
mod timer;

use std::{error::Error, fmt, ops::ControlFlow};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use self::{
    branch::Branch,
    chain::{Chain, Kind, Part},
    ends::{IterSource, SpillSource},
    parts::Parts,
};
pub use self::{
    ends::{EachDrain, SpillDrain, VecDrain},
    error::{Failure, Interrupted, PipelineError},
    live::{Handle, StageReport},
    reader::PipelineReader,
    report::{Key, Outcome, Report},
    run::Run,
};
use crate::{
    buffer::SpillBuffer,
    drain::{Drain, SinkDrain, WriteDrain},
    reader::SpillReader,
    source::{BufReadSource, ReadSource, Source, StreamSource},
    transform::{Transform, clock, stage::Stage},
    writer::SpillWriter,
};

/// A source and the stages behind it, to be given a sink.
///
/// It begins with a source (`from_..`), gets stages in their order, and becomes a [`Run`] with a sink (`into_..`,
/// [`for_each`](Self::for_each)) or a [`PipelineReader`]. Nothing is polled before that is run or read.
///
/// Less than a source and a sink does not compile:
///
/// ```compile_fail,E0599
/// # use spillbuffer::pipeline::Pipeline;
/// let nowhere_to_go = Pipeline::from_iter(["bytes"]).run();
/// ```
///
/// ```compile_fail,E0599
/// # use spillbuffer::pipeline::Pipeline;
/// let nothing_to_go = Pipeline::default().into_vec();
/// ```
///
/// Memory is bounded: between two stages there is a chunk at most, of 64 KiB where it was made here. Backpressure goes from the sink
/// to the source, or to the last [`spill`](Self::spill) before it: that takes in what its buffer may, and sets what is before it
/// free.
///
/// All of it is driven by whoever polls it, in one task: no other is spawned, and no runtime is needed but by a transform that waits.
pub struct Pipeline<'a> {
    parts: Parts<'a>,
}

impl<'a> Pipeline<'a> {
    /// Reads from `reader`, 64 KiB at a time.
    pub fn from_reader(reader: impl AsyncRead + Unpin + Send + 'a) -> Self {
        Self::from_source(ReadSource::new(reader))
    }

    /// Takes what `reader` shows.
    pub fn from_buf_read(reader: impl AsyncBufRead + Unpin + Send + 'a) -> Self {
        Self::from_source(BufReadSource::new(reader))
    }

    /// Takes the chunks of `stream`, uncopied.
    pub fn from_stream<S, E>(stream: S) -> Self
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin + Send + 'a,
        E: Into<Box<dyn Error + Send + Sync>> + 'a,
    {
        Self::from_source(StreamSource::new(stream))
    }

    /// Takes the chunks that `chunks` gives, uncopied.
    #[expect(clippy::should_implement_trait, reason = "it is one of several sources, and named like them")]
    pub fn from_iter<I>(chunks: I) -> Self
    where
        I: IntoIterator<Item: Into<Bytes>>,
        I::IntoIter: Send + 'a,
    {
        Self::from_source(IterSource(chunks.into_iter()))
    }

    /// Reads from a buffer. Where the pipeline fails, the reader is cancelled with the cause.
    pub fn from_spill(reader: SpillReader) -> Self {
        Self::from_source(SpillSource(reader))
    }

    /// Takes from a source of any kind.
    pub fn from_source(source: impl Source + Send + 'a) -> Self {
        Self { parts: Parts::new(Chain::new(0, Box::new(source))) }
    }

    /// Names the source, for errors and reports; `source` without.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        if let Some(source) = self.parts.names.first_mut() {
            *source = name.into();
        }
        self
    }

    /// Adds a stage whose value nobody asks for.
    #[must_use]
    pub fn then<T: Transform + Send + 'a>(mut self, name: impl Into<String>, transform: T) -> Self {
        self.stage(name, transform);
        self
    }

    /// Adds a stage. What it leaves behind is in the [`Report`], under this key.
    pub fn stage<T: Transform + Send + 'a>(&mut self, name: impl Into<String>, transform: T) -> Key<T::Value> {
        let stage = Stage::new(transform, clock::now);
        Key::new(self.parts.push(name.into(), |index| Part::new(index, Kind::Stage(Box::new(stage)))))
    }

    /// What comes after this is decoupled from what comes before: bytes wait in `buffer`, which stands alone or is of a pool.
    #[must_use]
    pub fn spill(mut self, name: impl Into<String>, buffer: SpillBuffer) -> Self {
        self.parts.spill(name.into(), buffer);
        self
    }

    /// Everything that passes here also goes to the branch, which is a pipeline to be run by itself: a tee.
    ///
    /// `buffer` lies between them, so that neither paces the other until that is full. The end is the branch's end too, and a
    /// failure its failure: [`SpillError::WriterFailed`](crate::SpillError::WriterFailed) with the cause, behind what has passed.
    /// Where somebody behind this has had enough before the end, nobody asks for the rest: the branch fails so with
    /// [`Interrupted::Stopped`], for what it has is a part. A branch that fails or is dropped does this one no harm, and is a
    /// [suppressed](Report::suppressed) failure of its report.
    ///
    /// # Example
    ///
    /// ```
    /// use spillbuffer::{SpillBuffer, pipeline::Pipeline};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let (mut one, mut two) = (Vec::new(), Vec::new());
    /// let mut pipeline = Pipeline::from_reader(&b"for both"[..]);
    /// let branch = pipeline.branch("copy", SpillBuffer::new());
    /// tokio::try_join!(pipeline.into_writer(&mut one).run(), branch.into_writer(&mut two).run())?;
    /// assert_eq!((one, two), (b"for both".to_vec(), b"for both".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn branch(&mut self, name: impl Into<String>, buffer: SpillBuffer) -> Pipeline<'static> {
        let (writer, reader) = buffer.into_split();
        let name = name.into();
        let branch = Pipeline::from_spill(reader).named(name.clone());
        self.parts.push(name, |index| Part::new(index, Kind::Branch(Branch::new(writer))));
        branch
    }

    /// Writes to `writer`, and shuts it down at the end.
    pub fn into_writer<W: AsyncWrite + Unpin + Send + 'a>(self, writer: W) -> Run<'a, WriteDrain<W>> {
        self.into_drain(WriteDrain::new(writer))
    }

    /// Sends chunks to `sink`, uncopied, and closes it at the end.
    pub fn into_sink<S>(self, sink: S) -> Run<'a, SinkDrain<S>>
    where
        S: Sink<Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + Send + 'a,
    {
        self.into_drain(SinkDrain::new(sink))
    }

    /// Writes to a buffer, and finishes it at the end. Where the pipeline fails, that is aborted with the cause.
    pub fn into_spill(self, writer: SpillWriter) -> Run<'a, SpillDrain> {
        self.into_drain(SpillDrain::new(writer))
    }

    /// Collects the bytes; [`Run::run_with_sink`] has the vector. Put a [`Limit`](crate::transform::Limit) before it.
    pub fn into_vec(self) -> Run<'a, VecDrain> {
        self.into_drain(VecDrain::default())
    }

    /// Calls `each` for each chunk, one after another. [`ControlFlow::Break`] says that it has had enough, which is a success: the
    /// source is dropped, and the outcome is [`Outcome::Stopped`].
    pub fn for_each<F, Fut, E>(self, each: F) -> Run<'a, EachDrain<F, Fut>>
    where
        F: FnMut(Bytes) -> Fut + Send + 'a,
        Fut: Future<Output = Result<ControlFlow<()>, E>> + Send + 'a,
        E: Into<Box<dyn Error + Send + Sync>> + 'a,
    {
        self.into_drain(EachDrain::new(each))
    }

    /// Writes to a drain of any kind.
    pub fn into_drain<D: Drain + Send + 'a>(self, drain: D) -> Run<'a, D> {
        Run::new(self.parts, drain)
    }

    /// What comes out is read.
    ///
    /// # Example
    ///
    /// ```
    /// use spillbuffer::{pipeline::Pipeline, transform::Prefix};
    /// use tokio::io::AsyncReadExt;
    ///
    /// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
    /// let mut text = String::new();
    /// let pipeline = Pipeline::from_iter(["to read"]).then("prefix", Prefix::new("nice "));
    /// pipeline.into_reader().read_to_string(&mut text).await?;
    /// assert_eq!(text, "nice to read");
    /// # std::io::Result::Ok(()) })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn into_reader(self) -> PipelineReader<'a> {
        PipelineReader::new(self.parts)
    }
}

impl fmt::Debug for Pipeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("stages", &self.parts.names).finish_non_exhaustive()
    }
}
