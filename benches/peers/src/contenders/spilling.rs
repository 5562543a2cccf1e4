//! spillbuffer where nobody reads until all is written.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Job, READ, runtime, stop};

pub(crate) fn spilling(job: Job) -> Duration {
    let runtime = runtime();
    let task = runtime.spawn(async move {
        let (mut source, mut check, mut buf) = (job.source(), job.check(), vec![0; READ]);
        let started = Instant::now();
        let (mut writer, mut reader) = job.buffer();
        for at in job.offsets() {
            writer.write_all(source.at(at)).await.unwrap();
        }
        writer.finish().unwrap();
        loop {
            let n = reader.read(&mut buf).await.unwrap();
            if n == 0 {
                break;
            }
            check.take(&buf[..n]);
        }
        check.end(job.bytes);
        stop(started, reader)
    });
    runtime.block_on(task).unwrap()
}
