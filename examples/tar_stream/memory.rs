//! The same work through an unbounded queue in memory: what `--compare memory` compares with.

use std::future::ready;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use futures_util::stream::poll_fn;
use spillbuffer::pipeline::Pipeline;
use spillbuffer::transform::Counter;
use tokio::sync::mpsc::unbounded_channel;

use crate::consume::consume;
use crate::fault::Fault;
use crate::join;
use crate::options::Options;
use crate::report::{Report, Usage};
use crate::tap::Tap;

pub(crate) async fn stream(options: &Options) -> Result<Report, Fault> {
    let started = Instant::now();
    let (sender, mut queue) = unbounded_channel();
    let (counter, taken) = Counter::new(None);
    let peak = Arc::new(AtomicU64::new(0));

    let source = options.source();
    let (mut tar, skipped) = source.open()?;
    let tap = Tap::on(&mut tar);
    let most = Arc::clone(&peak);
    let producer = tokio::spawn(async move {
        let (end, mut put) = (sender.clone(), 0);
        let sending = tar.for_each(move |chunk| {
            put += chunk.len() as u64;
            most.fetch_max(put - taken.bytes(), Relaxed);
            ready(sender.send(Ok(chunk)).map(ControlFlow::Continue))
        });
        let sent = sending.run().await.map_err(|e| Fault::of(&e, source.name()));
        if let Err(fault) = &sent {
            // A consumer that is gone has said why itself.
            let _ = end.send(Err(fault.clone()));
        }
        sent.map(|report| tap.tapped(report))
    });

    let queued = Pipeline::from_stream(poll_fn(move |cx| queue.poll_recv(cx))).then("taken", counter);
    let received = consume(queued, options).await?;
    let sent = join(producer).await?;
    let usage = Usage { peak_in_memory: peak.load(Relaxed), ..Usage::default() };
    Ok(Report::new(sent, skipped, received, usage, started.elapsed()))
}
