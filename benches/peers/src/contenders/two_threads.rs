//! What this crate does, without all that makes it right: each byte is copied once and checked on
//! the way in, and on the way out, and the other thread does the I/O meanwhile. No ledger, no limits, no ends.

// A side that ends drops what it sends with: so the other one knows.
#![allow(clippy::needless_pass_by_value, reason = "the drop of an end is what the other waits for")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use crc_fast::crc32_iscsi;

use super::{Job, READ, stop};

/// Blocks of a window, each of one call and one checksum.
const BLOCKS: usize = 4;

pub(crate) fn two_threads(job: Job) -> Duration {
    let block = job.window / BLOCKS;
    let ring: Vec<_> = (0..BLOCKS).map(|_| vec![0; block]).collect();
    let started = Instant::now();
    let file = tempfile::tempfile().expect("a temp file");
    let (free, to_fill) = sync_channel(BLOCKS);
    let (full, to_take) = sync_channel(BLOCKS);
    for block in ring {
        free.send(block).unwrap();
    }
    let sums = thread::scope(|scope| {
        scope.spawn(|| write(&file, to_take, free));
        fill(job, &to_fill, full)
    });
    let ring: Vec<_> = to_fill.iter().collect();
    let (full, to_take) = sync_channel(BLOCKS);
    let (free, to_fill) = sync_channel(BLOCKS);
    for block in ring {
        free.send(block).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| read(&file, &sums, to_fill, full));
        take(job, to_take, free);
    });
    stop(started, file)
}

fn fill(job: Job, empty: &Receiver<Vec<u8>>, full: SyncSender<Vec<u8>>) -> Vec<u32> {
    let (mut source, mut sums) = (job.source(), Vec::new());
    let mut offsets = job.offsets().peekable();
    while offsets.peek().is_some() {
        let mut block = empty.recv().unwrap();
        for (part, at) in block.chunks_mut(job.piece).zip(&mut offsets) {
            part.copy_from_slice(source.at(at));
        }
        sums.push(crc32_iscsi(&block));
        full.send(block).unwrap();
    }
    sums
}

fn write(file: &File, full: Receiver<Vec<u8>>, empty: SyncSender<Vec<u8>>) {
    let mut at = 0;
    for block in &full {
        file.write_all_at(&block, at).unwrap();
        at += block.len() as u64;
        empty.send(block).unwrap();
    }
}

fn read(file: &File, sums: &[u32], empty: Receiver<Vec<u8>>, full: SyncSender<Vec<u8>>) {
    let mut at = 0;
    for sum in sums {
        let mut block = empty.recv().unwrap();
        file.read_exact_at(&mut block, at).unwrap();
        at += block.len() as u64;
        assert_eq!(crc32_iscsi(&block), *sum);
        full.send(block).unwrap();
    }
}

fn take(job: Job, full: Receiver<Vec<u8>>, empty: SyncSender<Vec<u8>>) {
    let (mut check, mut buf) = (job.check(), vec![0; READ]);
    for block in full {
        for part in block.chunks(READ) {
            buf[..part.len()].copy_from_slice(part);
            check.take(&buf[..part.len()]);
        }
        // The other side is done when it has filled the last one.
        let _ = empty.send(block);
    }
    check.end(job.bytes);
}
