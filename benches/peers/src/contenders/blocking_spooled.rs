//! tempfile's `SpooledTempFile`, each call of it on tokio's blocking pool.

use std::{
    io::{Read, Seek, Write},
    time::{Duration, Instant},
};

use tempfile::SpooledTempFile;
use tokio::task::spawn_blocking;

use super::{Job, READ, runtime, stop};

pub(crate) fn blocking_spooled(job: Job) -> Duration {
    let runtime = runtime();
    let task = runtime.spawn(async move {
        let (mut source, mut check, mut buf) = (job.source(), job.check(), vec![0; READ]);
        let started = Instant::now();
        let mut store = SpooledTempFile::new(job.window);
        for at in job.offsets() {
            let write = spawn_blocking(move || store.write_all(source.at(at)).map(|()| (store, source)));
            (store, source) = write.await.unwrap().unwrap();
        }
        store.rewind().unwrap();
        loop {
            let n;
            let read = spawn_blocking(move || store.read(&mut buf).map(|n| (n, store, buf)));
            (n, store, buf) = read.await.unwrap().unwrap();
            if n == 0 {
                break;
            }
            check.take(&buf[..n]);
        }
        check.end(job.bytes);
        stop(started, store)
    });
    runtime.block_on(task).unwrap()
}
