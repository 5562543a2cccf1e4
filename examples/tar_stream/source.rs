//! Where the tar comes from: a directory, a tar that may be compressed, or thin air.

use std::fs::File;
use std::future::ready;
use std::io::{self, BufWriter, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use spillbuffer::pipeline::Pipeline;
use spillbuffer::transform::Decompress;
use tar::Builder;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::fault::Fault;
use crate::{directory, generated};

/// What the packer gathers before it hands it on: a tar is full of 512-byte headers.
const CHUNK: usize = 64 * 1024;

/// What a [`Source`] packs into.
pub(crate) type Tar = Builder<BufWriter<Chunks>>;

/// What is to be streamed.
#[derive(Clone)]
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

    /// The tar, and the names of what is left out of it.
    pub(crate) fn open(&self) -> Result<(Pipeline<'static>, Receiver<String>), Fault> {
        let (skipped, left_out) = channel();
        let tar = match self.clone() {
            Self::Generated(size) => packed(self.name(), move |tar| generated::pack(size, tar)),
            Self::Stdin => unpacked(tokio::io::stdin()),
            Self::Path(path) => {
                let file = File::open(&path).and_then(|file| Ok((file.metadata()?.is_dir(), file)));
                match file.map_err(|e| Fault::new(&path, "cannot open", e))? {
                    (true, _) => packed(self.name(), move |tar| directory::pack(&path, tar, &skipped)),
                    (false, file) => unpacked(tokio::fs::File::from_std(file)),
                }
            }
        };
        Ok((tar, left_out))
    }
}

/// A tar as it is, or as it is without its compression.
fn unpacked(file: impl AsyncRead + Unpin + Send + 'static) -> Pipeline<'static> {
    Pipeline::from_reader(file).then("decompress", Decompress::detect())
}

/// What `fill` packs, on a thread that may block.
fn packed(name: &Path, fill: impl FnOnce(&mut Tar) -> io::Result<()> + Send + 'static) -> Pipeline<'static> {
    let (sender, mut chunks) = mpsc::channel(1);
    let packer = spawn_blocking(move || archive(sender, fill));
    let chunks = stream::poll_fn(move |cx| chunks.poll_recv(cx)).map(Ok);
    // Why it has ended comes behind the last chunk; a panic goes on here.
    let name = name.to_owned();
    let end = stream::once(packer).filter_map(move |packed| {
        let error = packed.unwrap_or_else(|e| resume_unwind(e.into_panic())).err();
        ready(error.map(|e| Err(e.downcast().unwrap_or_else(|e| Fault::new(&name, "cannot pack", e)))))
    });
    Pipeline::from_stream(chunks.chain(end))
}

/// Sends what `fill` packs, and the end-of-archive marker only if all of it was packed.
fn archive(sender: mpsc::Sender<Bytes>, fill: impl FnOnce(&mut Tar) -> io::Result<()>) -> io::Result<()> {
    let mut tar = Builder::new(BufWriter::with_capacity(CHUNK, Chunks(Some(sender))));
    let filled = fill(&mut tar).and_then(|()| tar.finish());
    // Even after a failure: the consumer is owed every byte that came before it.
    let flushed = tar.get_mut().flush();
    // A builder that is dropped unfinished writes the marker after all, and with it a short tar
    // would look like a whole one.
    tar.get_mut().get_mut().0 = None;
    filled.and(flushed)
}

/// Sends what is written, until it is shut.
pub(crate) struct Chunks(Option<mpsc::Sender<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Also shut by a panic on its way through the builder.
        let open = self.0.as_ref().filter(|_| !std::thread::panicking());
        let sent = open.and_then(|sender| sender.blocking_send(Bytes::copy_from_slice(bytes)).ok());
        sent.map(|()| bytes.len()).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
