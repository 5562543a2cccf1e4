//! The consumer: reads the entries with a real tar reader and accepts nothing but a complete tar.

use std::io;
use std::path::Path;

use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};
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

/// Reads `reader` to its very end, hashing every entry and every byte.
pub(crate) async fn consume(reader: impl AsyncRead + Unpin, options: &Options) -> Result<Received, Fault> {
    let mut tap = Tap::new(reader);
    if let Some(path) = &options.output {
        tap.copy_to(path)?;
    }
    let mut contents = Contents::default();
    let read = read_tar(&mut tap, &mut contents).await;
    read.map_err(|e| explain(&e, options.source().name(), contents.entries, &tap))?;
    tap.finish_copy()?;
    Ok(Received { tar: tap.tapped(), contents })
}

async fn read_tar<R: AsyncRead + Unpin>(tap: &mut Tap<R>, contents: &mut Contents) -> io::Result<()> {
    let mut buf = vec![0; 64 * 1024];
    let mut archive = Archive::new(&mut *tap);
    let mut entries = archive.entries()?;
    while let Some(entry) = entries.next().await {
        contents.add(entry?, &mut buf).await?;
    }
    drop((entries, archive));
    read_end(tap, &mut buf).await
}

impl Contents {
    pub(crate) fn digest(&self) -> String {
        hex(self.sha256.clone())
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
async fn read_end<R: AsyncRead + Unpin>(tap: &mut Tap<R>, buf: &mut [u8]) -> io::Result<()> {
    if tap.ended() {
        return Err(io::Error::other("no end-of-archive marker"));
    }
    let mut zeros = 0;
    loop {
        match tap.read(&mut buf[..BLOCK]).await? {
            0 if zeros < BLOCK => return Err(io::Error::other("half an end-of-archive marker")),
            0 => return Ok(()),
            n if buf[..n].iter().any(|&byte| byte != 0) => {
                return Err(io::Error::other("data after the end of the archive"));
            }
            n => zeros += n,
        }
    }
}

/// Names the producer's failure if there was one, else what is wrong with the tar and where.
fn explain<R>(error: &io::Error, source: &Path, entries: u64, tap: &Tap<R>) -> Fault {
    if let Some(fault) = Fault::carried_by(error) {
        return fault;
    }
    let at = tap.bytes();
    // Headers are whole blocks, so the one that is wrong is the one with the last byte.
    let block = at.saturating_sub(1) / BLOCK as u64 * BLOCK as u64;
    let error = error.to_string();
    // What comes after a colon is what was found where a header should be: anything.
    let why = error.split(':').next().unwrap_or_default();
    match at {
        0 => Fault::at(source, "not a tar, it ends", at, "it is empty"),
        _ if tap.ended() => Fault::at(source, "the tar is cut short", at, why),
        _ if entries == 0 && block == 0 => Fault::at(source, "not a tar, no header", block, why),
        _ => Fault::at(source, "the tar is broken", block, why),
    }
}
