//! Pipes with a reader that keeps up: a task writes and another one reads.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Job, READ, runtime};

pub(crate) fn spillbuffer_pipe(job: Job) -> Duration {
    through(job, || job.buffer())
}

/// `tokio::io::duplex`, which is bounded, in one direction.
pub(crate) fn duplex_pipe(job: Job) -> Duration {
    through(job, || tokio::io::duplex(job.window))
}

fn through<W, R>(job: Job, open: impl FnOnce() -> (W, R)) -> Duration
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    runtime().block_on(async {
        let started = Instant::now();
        let (mut writer, mut reader) = open();
        let writing = tokio::spawn(async move {
            let mut source = job.source();
            for at in job.offsets() {
                writer.write_all(source.at(at)).await.unwrap();
            }
            writer.shutdown().await.unwrap();
        });
        let reading = tokio::spawn(async move {
            let (mut check, mut buf) = (job.check(), vec![0; READ]);
            loop {
                let n = reader.read(&mut buf).await.unwrap();
                if n == 0 {
                    break;
                }
                check.take(&buf[..n]);
            }
            check.end(job.bytes);
        });
        writing.await.unwrap();
        reading.await.unwrap();
        started.elapsed()
    })
}
