//! tokio's unbounded channel of `Bytes`: a queue in memory that takes as much as there is.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Job, runtime, stop};

/// All is sent, then all is received.
pub(crate) fn channel_backlog(job: Job) -> Duration {
    let runtime = runtime();
    let task = runtime.spawn(async move {
        let started = Instant::now();
        let (sender, mut receiver) = unbounded_channel();
        send(sender, job);
        receive(&mut receiver, job).await;
        stop(started, receiver)
    });
    runtime.block_on(task).unwrap()
}

/// A task sends and another one receives.
pub(crate) fn channel_pipe(job: Job) -> Duration {
    let runtime = runtime();
    runtime.block_on(async {
        let started = Instant::now();
        let (sender, mut receiver) = unbounded_channel();
        let sending = tokio::spawn(async move { send(sender, job) });
        let receiving = tokio::spawn(async move { receive(&mut receiver, job).await });
        sending.await.unwrap();
        receiving.await.unwrap();
        started.elapsed()
    })
}

/// Each piece is copied, as everybody does: the writer wants its memory back.
#[expect(clippy::needless_pass_by_value, reason = "its drop is the end of the stream")]
fn send(sender: UnboundedSender<Bytes>, job: Job) {
    let mut source = job.source();
    for at in job.offsets() {
        sender.send(Bytes::copy_from_slice(source.at(at))).unwrap();
    }
}

async fn receive(receiver: &mut UnboundedReceiver<Bytes>, job: Job) {
    let mut check = job.check();
    while let Some(bytes) = receiver.recv().await {
        check.take(&bytes);
    }
    check.end(job.bytes);
}
