//! The same work through an unbounded queue in memory: what `--compare memory` compares with.

use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_blocking;

use crate::consume::consume;
use crate::fault::Fault;
use crate::options::Options;
use crate::pace::Paced;
use crate::report::{Report, Usage};
use crate::{join, produce};

pub(crate) async fn stream(options: &Options) -> Result<Report, Fault> {
    let started = Instant::now();
    let (mut writer, reader) = queue();
    let peak = Arc::clone(&writer.queued.peak);

    let source = options.source();
    let producer = spawn_blocking(move || {
        let sent = produce(&source, &mut writer);
        writer.end(sent.as_ref().err().cloned());
        sent
    });

    let received = consume(Paced::new(reader, options.stall(), options.rate), options).await?;
    let sent = join(producer).await?;
    let usage = Usage { peak_in_memory: peak.load(Ordering::Relaxed), ..Usage::default() };
    Ok(Report::new(sent, received, usage, started.elapsed()))
}

/// Bytes, or how they ended.
enum Message {
    Bytes(Vec<u8>),
    End(Option<Fault>),
}

struct Writer {
    sender: UnboundedSender<Message>,
    queued: Queued,
}

struct Reader {
    receiver: UnboundedReceiver<Message>,
    queued: Queued,
    current: Vec<u8>,
    taken: usize,
    ended: bool,
}

/// How many bytes the queue holds, and the most it ever held.
#[derive(Clone, Default)]
struct Queued {
    now: Arc<AtomicU64>,
    peak: Arc<AtomicU64>,
}

fn queue() -> (Writer, Reader) {
    let (sender, receiver) = unbounded_channel();
    let queued = Queued::default();
    let writer = Writer { sender, queued: queued.clone() };
    (writer, Reader { receiver, queued, current: Vec::new(), taken: 0, ended: false })
}

impl Writer {
    fn end(&self, fault: Option<Fault>) {
        // A reader that is gone has said why itself.
        let _ = self.sender.send(Message::End(fault));
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len() as u64;
        let now = self.queued.now.fetch_add(len, Ordering::Relaxed) + len;
        self.queued.peak.fetch_max(now, Ordering::Relaxed);
        let sent = self.sender.send(Message::Bytes(bytes.to_vec()));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Reader {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.taken == self.current.len() && !self.ended {
            match ready!(self.receiver.poll_recv(cx)) {
                Some(Message::Bytes(bytes)) => (self.current, self.taken) = (bytes, 0),
                Some(Message::End(None)) => self.ended = true,
                Some(Message::End(Some(fault))) => return Poll::Ready(Err(fault.into())),
                None => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
        }
        let rest = &self.current[self.taken..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.taken += n;
        self.queued.now.fetch_sub(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}
