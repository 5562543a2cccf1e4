//! Many short streams, one after another: made, written, ended, read to the end, dropped.

use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Job, runtime};

pub(crate) fn spillbuffer_short(job: Job) -> Duration {
    through(job, move || job.buffer())
}

/// `tokio::io::duplex`.
pub(crate) fn duplex_short(job: Job) -> Duration {
    through(job, move || tokio::io::duplex(job.window))
}

/// Each piece is a stream.
fn through<W, R>(job: Job, open: impl Fn() -> (W, R) + Send + 'static) -> Duration
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    let runtime = runtime();
    let task = runtime.spawn(async move {
        let (mut source, mut check, mut buf) = (job.source(), job.check(), vec![0; 2 * job.piece]);
        let started = Instant::now();
        for at in job.offsets() {
            let (mut writer, mut reader) = open();
            writer.write_all(source.at(at)).await.unwrap();
            writer.shutdown().await.unwrap();
            loop {
                let n = reader.read(&mut buf).await.unwrap();
                if n == 0 {
                    break;
                }
                check.take(&buf[..n]);
            }
        }
        check.end(job.bytes);
        started.elapsed()
    });
    runtime.block_on(task).unwrap()
}
