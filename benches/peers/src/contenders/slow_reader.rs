//! What a reader that lags costs the writer of spillbuffer. The time is the writer's alone.

use std::time::{Duration, Instant};

use spillbuffer::SpillWriter;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use super::{Job, READ, free, runtime};

/// Nobody reads.
pub(crate) fn writer_alone(job: Job) -> Duration {
    let runtime = runtime();
    let task = runtime.spawn(async move {
        let (writer, reader) = job.buffer();
        let time = write(writer, job).await;
        free(reader);
        time
    });
    runtime.block_on(task).unwrap()
}

/// Another task reads so many bytes a second.
pub(crate) fn writer_beside(job: Job, bytes_per_second: f64) -> Duration {
    runtime().block_on(async {
        let (writer, mut reader) = job.buffer();
        let reading = tokio::spawn(async move {
            let (mut check, mut buf) = (job.check(), vec![0; READ]);
            let started = Instant::now();
            while check.taken() < job.bytes {
                if check.taken() as f64 >= started.elapsed().as_secs_f64() * bytes_per_second {
                    sleep(Duration::from_millis(1)).await;
                    continue;
                }
                let n = reader.read(&mut buf).await.unwrap();
                check.take(&buf[..n]);
            }
        });
        let time = tokio::spawn(write(writer, job)).await.unwrap();
        reading.abort();
        // The reader is dropped by then, and with it what it has not read.
        if let Err(error) = reading.await {
            assert!(error.is_cancelled(), "{error}");
        }
        free(());
        time
    })
}

async fn write(mut writer: SpillWriter, job: Job) -> Duration {
    let mut source = job.source();
    let started = Instant::now();
    for at in job.offsets() {
        writer.write_all(source.at(at)).await.unwrap();
    }
    let time = started.elapsed();
    writer.finish().unwrap();
    time
}
