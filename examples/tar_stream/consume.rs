//! The consumer: reads the entries with a real tar reader and accepts nothing but a complete tar.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use spillbuffer::pipeline::{Pipeline, PipelineError, PipelineReader};
use spillbuffer::transform::{Map, Throttle};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::sleep;
use tokio_tar::{Archive, Entry};

use crate::fault::Fault;
use crate::options::Options;
use crate::tap::{Tap, Tapped, hex};

const BLOCK: usize = 512;

/// What the consumer got.
pub(crate) struct Received {
    pub tar: Tapped,
    pub contents: Contents,
}

/// What the tar reader found in it.
#[derive(Default)]
pub(crate) struct Contents {
    pub entries: u64,
    /// Over every entry's name, link target, size and content.
    sha256: Sha256,
}

/// Reads `tar` to its very end, late and slowly, and hashes every entry and every byte.
pub(crate) async fn consume(mut tar: Pipeline<'_>, options: &Options) -> Result<Received, Fault> {
    if let Some(rate) = options.rate {
        tar = tar.then("rate", Throttle::new(rate));
    }
    let tap = Tap::on(&mut tar);
    if let Some(path) = &options.output {
        let mut file = File::create(path).map_err(|e| Fault::new(path, "cannot create", e))?;
        let path = path.clone();
        // Blocks, which a task that shares its thread with others should not do.
        let copy = move |chunk: Bytes| match file.write_all(&chunk) {
            Ok(()) => Ok(chunk),
            Err(e) => Err(Fault::new(&path, "cannot write", e)),
        };
        tar = tar.then("copy", Map::new(copy));
    }
    sleep(options.stall()).await;

    let mut reader = Reader { inner: tar.into_reader(), bytes: 0, ended: false, failed: None };
    let mut contents = Contents::default();
    let read = read_tar(&mut reader, &mut contents).await;
    read.map_err(|e| explain(&e, options.source().name(), contents.entries, &reader))?;
    let report = reader.inner.report().expect("it was read to its end");
    Ok(Received { tar: tap.tapped(report), contents })
}

/// Knows where the tar reader is, and what has failed before it.
struct Reader<'a> {
    inner: PipelineReader<'a>,
    bytes: u64,
    /// Whether a read has met the end: what tells a cut tar from a broken one.
    ended: bool,
    failed: Option<PipelineError>,
}

impl AsyncRead for Reader<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.inner).poll_read(cx, buf));
        self.failed = read.as_ref().err().and_then(PipelineError::from_io).cloned();
        let read_now = (buf.filled().len() - before) as u64;
        self.ended = read.is_ok() && read_now == 0;
        self.bytes += read_now;
        Poll::Ready(read)
    }
}

async fn read_tar(reader: &mut Reader<'_>, contents: &mut Contents) -> io::Result<()> {
    let mut buf = vec![0; 64 * 1024];
    let mut archive = Archive::new(&mut *reader);
    let mut entries = archive.entries()?;
    while let Some(entry) = entries.next().await {
        contents.add(entry?, &mut buf).await?;
    }
    drop((entries, archive));
    read_end(reader, &mut buf).await
}

impl Contents {
    pub(crate) fn digest(&self) -> String {
        hex(&self.sha256.clone().finalize())
    }

    async fn add<R: AsyncRead + Unpin>(&mut self, mut entry: Entry<R>, buf: &mut [u8]) -> io::Result<()> {
        self.sha256.update(entry.path_bytes()?);
        self.sha256.update([0]);
        self.sha256.update(entry.link_name_bytes()?.unwrap_or_default());
        self.sha256.update([0]);
        self.sha256.update(entry.effective_size().to_le_bytes());
        loop {
            match entry.read(buf).await? {
                0 => break,
                n => self.sha256.update(&buf[..n]),
            }
        }
        self.entries += 1;
        Ok(())
    }
}

/// Takes what follows the last entry. A tar reader is content with the end of the stream, or with
/// one block of zeros, which is where a cut tar may end just as well: a whole one has two such
/// blocks, and nothing but zeros after them.
async fn read_end(reader: &mut Reader<'_>, buf: &mut [u8]) -> io::Result<()> {
    if reader.ended {
        return Err(io::Error::other("no end-of-archive marker"));
    }
    let mut zeros = 0;
    loop {
        match reader.read(&mut buf[..BLOCK]).await? {
            0 if zeros < BLOCK => return Err(io::Error::other("half an end-of-archive marker")),
            0 => return Ok(()),
            n if buf[..n].iter().any(|&byte| byte != 0) => {
                return Err(io::Error::other("data after the end of the archive"));
            }
            n => zeros += n,
        }
    }
}

/// Names the pipeline's failure if there was one, else what is wrong with the tar and where.
fn explain(error: &io::Error, source: &Path, entries: u64, reader: &Reader<'_>) -> Fault {
    if let Some(error) = &reader.failed {
        return Fault::of(error, source);
    }
    let at = reader.bytes;
    // Headers are whole blocks, so the one that is wrong is the one with the last byte.
    let block = at.saturating_sub(1) / BLOCK as u64 * BLOCK as u64;
    let error = error.to_string();
    // What comes after a colon is what was found where a header should be: anything.
    let why = error.split(':').next().unwrap_or_default();
    match at {
        0 => Fault::at(source, "not a tar, it ends", at, "it is empty"),
        _ if reader.ended => Fault::at(source, "the tar is cut short", at, why),
        _ if entries == 0 && block == 0 => Fault::at(source, "not a tar, no header", block, why),
        _ => Fault::at(source, "the tar is broken", block, why),
    }
}
