//! Files for async code, which are written, rewound and read.

use std::{
    io::SeekFrom,
    time::{Duration, Instant},
};

use async_spooled_tempfile::SpooledTempFile;
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt, AsyncWrite, AsyncWriteExt},
};

use super::{Job, READ, runtime, stop};

/// `tokio::fs::File`.
pub(crate) fn tokio_file(job: Job) -> Duration {
    through(job, || File::from_std(tempfile::tempfile().expect("a temp file")))
}

/// `async_spooled_tempfile::SpooledTempFile`.
pub(crate) fn async_spooled(job: Job) -> Duration {
    through(job, move || SpooledTempFile::new(job.window))
}

fn through<S>(job: Job, open: impl FnOnce() -> S + Send + 'static) -> Duration
where
    S: AsyncRead + AsyncWrite + AsyncSeek + Unpin + Send + 'static,
{
    let runtime = runtime();
    let task = runtime.spawn(async move {
        let (mut source, mut check, mut buf) = (job.source(), job.check(), vec![0; READ]);
        let started = Instant::now();
        let mut store = open();
        for at in job.offsets() {
            store.write_all(source.at(at)).await.unwrap();
        }
        store.flush().await.unwrap();
        store.seek(SeekFrom::Start(0)).await.unwrap();
        loop {
            let n = store.read(&mut buf).await.unwrap();
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
