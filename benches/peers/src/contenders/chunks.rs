//! A reader that keeps up and takes `Bytes`.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::{io::AsyncWriteExt, sync::mpsc::unbounded_channel};

use super::{Job, runtime};
use crate::content::Check;

/// Written as into any pipe, from one piece of memory that is named anew each time, and read by `next_chunk`.
pub(crate) fn spillbuffer_chunks(job: Job) -> Duration {
    runtime().block_on(async {
        let started = Instant::now();
        let (mut writer, mut reader) = job.buffer();
        let writing = tokio::spawn(async move {
            let mut source = job.source();
            for at in job.offsets() {
                writer.write_all(source.at(at)).await.unwrap();
            }
            writer.finish().unwrap();
        });
        let reading = tokio::spawn(async move {
            let mut check = job.check();
            while let Some(chunk) = reader.next_chunk().await.unwrap() {
                check.take(&chunk);
            }
            check.end(job.bytes);
        });
        writing.await.unwrap();
        reading.await.unwrap();
        started.elapsed()
    })
}

/// tokio's unbounded channel. The writer has the pieces already and clones them, so no byte is copied.
pub(crate) fn channel_chunks(job: Job) -> Duration {
    let items = Items::new(job);
    runtime().block_on(async {
        let started = Instant::now();
        let (sender, mut receiver) = unbounded_channel();
        let sending = tokio::spawn(async move {
            for at in job.offsets() {
                sender.send(items.next(at)).unwrap();
            }
        });
        let receiving = tokio::spawn(async move {
            let mut check = Items::check(job);
            while let Some(bytes) = receiver.recv().await {
                check.take(&bytes);
            }
            check.end(job.bytes);
        });
        sending.await.unwrap();
        receiving.await.unwrap();
        started.elapsed()
    })
}

/// Pieces that are made before the clock starts, and then cloned in turns.
struct Items {
    items: Vec<Bytes>,
    piece: u64,
}

/// More than a window of 1 MiB holds, so that what comes a window early or late is seen.
const ITEMS: u64 = 17;

impl Items {
    fn new(job: Job) -> Self {
        let mut source = job.source();
        let piece = job.piece as u64;
        Self { items: (0..ITEMS).map(|n| Bytes::copy_from_slice(source.at(n * piece))).collect(), piece }
    }

    fn next(&self, at: u64) -> Bytes {
        self.items[(at / self.piece % ITEMS) as usize].clone()
    }

    fn check(job: Job) -> Check {
        job.check().repeating(ITEMS * job.piece as u64)
    }
}
