//! Handing bytes out. Never copies more than [`STEAL`] bytes under the lock, but may decrypt a block there, and never waits for
//! the disk: what the page cache does not have at once, an I/O thread reads.

use std::{
    fmt, mem,
    ops::ControlFlow,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{Lent, Locked, Shared, driver::read_error};
use crate::{
    block::Block,
    copy::{copied, is_slow},
    core::Front,
    error::SpillError,
    storage::{Progress, Wanted},
    sync::Arc,
};

/// Up to this many bytes are copied under the lock; more would keep the writer from it.
const SHORT: usize = 4 << 10;

/// More than this in the block that is being filled is taken from the writer as a block of its own.
const STEAL: usize = 16 << 10;

/// One poll hands out about this many bytes at most, however fast they are written: others share its thread.
const MOST: usize = 1 << 20;

/// Where bytes are copied to.
pub(crate) trait Target {
    fn remaining(&self) -> usize;
    /// Takes as many as [`remaining`](Self::remaining) says, or fewer.
    fn put(&mut self, bytes: &[u8]);
    /// The next `len` bytes of it, to be filled. What is in them until [`advance`](Self::advance) does not count.
    fn space(&mut self, len: usize) -> &mut [u8];
    fn advance(&mut self, n: usize);
}

/// Whether the kernel copies from a page into this memory as fast as into any; if not, a block in between costs less.
fn is_well_placed(memory: &[u8]) -> bool {
    !is_slow(0, memory.as_ptr().addr())
}

/// What a reader looks into, at the front of the backlog. Its block still counts as the buffer's, so it
/// must come back ([`Shared::end_view`]).
pub(crate) enum View {
    /// From here to the block's end.
    Block(Arc<Block>, usize),
    /// The rest of a user's item that has found no room yet.
    Item(Bytes),
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it shows may be anybody's secret.
        f.debug_struct("View").field("len", &self.bytes().len()).finish()
    }
}

impl View {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Block(block, at) => &block.filled()[*at..],
            Self::Item(item) => item,
        }
    }
}

impl Shared {
    /// Reads what is there, or the end, where nothing follows from it: most reads of small pieces. Else the lock is for
    /// [`read_under`](Self::read_under).
    #[inline]
    pub(crate) fn read_quietly(self: &Arc<Self>, target: &mut impl Target) -> ControlFlow<(), Locked<'_>> {
        let most = target.remaining();
        let mut guard = self.raw_lock();
        let state = &mut *guard;
        if state.quiet
            && most > 0
            && let Some(bytes) = state.core.look_quietly(most)
            && bytes.len() <= SHORT
        {
            let n = bytes.len();
            target.put(bytes);
            state.core.consume_quietly(n);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(self.locked(guard))
    }

    /// Fills `target` with what is there, at least a byte. Ready with 0 at the end, or if `target` has
    /// no room.
    pub(crate) fn poll_read(
        self: &Arc<Self>,
        cx: &Context<'_>,
        target: &mut impl Target,
    ) -> Poll<Result<usize, SpillError>> {
        self.read_under(self.lock(), cx, target)
    }

    pub(crate) fn read_under<'a>(
        self: &'a Arc<Self>,
        mut state: Locked<'a>,
        cx: &Context<'_>,
        target: &mut impl Target,
    ) -> Poll<Result<usize, SpillError>> {
        let (mut copied, mut direct) = (0, true);
        state.reader.goes_on();
        while target.remaining() > 0 && copied < MOST {
            match state.core.front() {
                Front::Block { block, at } => {
                    let n = target.remaining().min(block.len() - at);
                    let bytes = &block.filled()[at..at + n];
                    if n <= SHORT {
                        target.put(bytes);
                    } else {
                        state.pause();
                        target.put(bytes);
                        state = self.lock();
                    }
                    state.core.consume(n);
                    copied += n;
                    state.core.put_back(block);
                }
                Front::Sealed => self.open_front(&mut state),
                Front::Tail(unread) if unread.min(target.remaining()) > STEAL => state.core.seal_tail(),
                Front::Tail(unread) => {
                    let n = unread.min(target.remaining());
                    target.put(&state.core.tail_unread()[..n]);
                    state.core.consume(n);
                    copied += n;
                }
                Front::Item(item) => {
                    drop(state);
                    let n = target.remaining().min(item.len());
                    target.put(&item[..n]);
                    drop(item);
                    state = self.lock();
                    state.core.consume(n);
                    copied += n;
                }
                Front::Disk if direct && state.missed.is_none() => {
                    let n;
                    (state, n) = self.read_direct(state, target);
                    direct = n > 0;
                    copied += n;
                }
                _ if copied > 0 => break,
                Front::Disk => state = self.read_front(state, true),
                Front::Wait => {
                    state.park_reader(cx);
                    return Poll::Pending;
                }
                Front::End => break,
                Front::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(copied))
    }

    /// Opens the block at the front. This is done under the lock: the reader has caught up with what the writer took for the
    /// disk's, which is over when it has read a window of that.
    fn open_front(&self, state: &mut Locked<'_>) {
        state.core.open_front(|start, block| {
            let opened = block.open(|payload, trailer| match self.pool.cipher() {
                Some(cipher) => cipher.open(self.stream.id, start, payload, trailer),
                None => Err("there is no key"),
            });
            opened.map_err(|reason| SpillError::Corrupt { offset: start, path: self.pool.dir(), reason })
        });
    }

    /// The bytes at the front, to look into; `None` at the end. Nothing is consumed.
    pub(crate) fn poll_view(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Result<Option<View>, SpillError>> {
        let mut state = self.lock();
        state.reader.goes_on();
        loop {
            match state.core.front() {
                Front::Block { block, at } => return Poll::Ready(Ok(Some(View::Block(block, at)))),
                Front::Sealed => self.open_front(&mut state),
                Front::Tail(_) => state.core.seal_tail(),
                Front::Item(item) => return Poll::Ready(Ok(Some(View::Item(item)))),
                Front::Disk => state = self.read_front(state, false),
                Front::Wait => {
                    state.park_reader(cx);
                    return Poll::Pending;
                }
                Front::End => return Poll::Ready(Ok(None)),
                Front::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The reader was polled, did not get to look, and will be polled again.
    pub(crate) fn reader_yields(self: &Arc<Self>) {
        self.lock().core.reader_yields();
    }

    /// Ends a look, counting the first `n` bytes of what was seen as read.
    pub(crate) fn end_view(self: &Arc<Self>, view: View, n: usize) {
        let mut state = self.lock();
        if n > 0 {
            state.core.consume(n);
        }
        match view {
            View::Block(block, _) => state.core.put_back(block),
            View::Item(item) => {
                drop(state);
                drop(item);
            }
        }
    }

    /// The next bytes as they lie, lent where memory allows it, else copied; `None` at the end.
    pub(crate) fn poll_chunk(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, SpillError>> {
        let mut state = self.lock();
        state.reader.goes_on();
        loop {
            match state.core.front() {
                Front::Block { block, at } => return Poll::Ready(Ok(Some(self.chunk(state, block, at)))),
                Front::Sealed => self.open_front(&mut state),
                Front::Tail(unread) if unread > STEAL => state.core.seal_tail(),
                Front::Tail(unread) => {
                    let bytes = copied(state.core.tail_unread());
                    state.core.consume(unread);
                    return Poll::Ready(Ok(Some(bytes)));
                }
                Front::Item(item) => {
                    // It is the caller's own memory already.
                    state.core.consume(item.len());
                    drop(state);
                    return Poll::Ready(Ok(Some(item)));
                }
                Front::Disk => state = self.read_front(state, false),
                Front::Wait => {
                    state.park_reader(cx);
                    return Poll::Pending;
                }
                Front::End => return Poll::Ready(Ok(None)),
                Front::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn chunk(self: &Arc<Self>, mut state: Locked<'_>, block: Arc<Block>, at: usize) -> Bytes {
        let n = block.len() - at;
        if state.core.may_lend(&block, n) {
            state.core.lend(&block);
            state.core.consume(n);
            drop(state);
            return Lent { shared: Arc::clone(self), block: Some(block), from: at }.into_bytes();
        }
        drop(state);
        let bytes = copied(&block.filled()[at..]);
        let mut state = self.lock();
        state.core.consume(n);
        state.core.put_back(block);
        bytes
    }

    /// Reads what is at the front of the disk into `target`, where that has room for a whole slot and the page cache has it.
    fn read_direct<'a>(self: &'a Arc<Self>, mut state: Locked<'a>, target: &mut impl Target) -> (Locked<'a>, usize) {
        if target.remaining() == 0 || !is_well_placed(target.space(1)) {
            return (state, 0);
        }
        let block = self.pool.limits().block;
        let room = target.remaining().min(MOST).min(state.most_slots(block).saturating_mul(block));
        let Some(job) = state.core.start_direct(room) else { return (state, 0) };
        let file = self.pool.file();
        let mut ahead = mem::take(&mut state.trailers);
        let found = self.found(&mut state, job.start, job.run.count as usize, true);
        drop(state);
        self.prefetch(&found);
        let wanted = Wanted { stream: self.stream, index: job.start, run: job.run, behind: job.behind };
        let progress = file.as_ref().and_then(|file| {
            let mut slots: Vec<_> = target.space(job.len).chunks_mut(block).collect();
            found.copy_or_read(file, wanted, &mut ahead, &mut slots)
        });
        let (good, fault) = match (progress, &file) {
            (Some(Progress { done, fault }), Some(file)) => {
                let at = job.start + (done * block) as u64;
                (done, fault.map(|fault| read_error(fault, file, at)))
            }
            _ => (0, None),
        };
        drop(file);
        let mut state = self.lock();
        state.trailers = ahead;
        let n = state.core.did_direct(&job, good, fault);
        self.end_found(&mut state, found);
        target.advance(n);
        (state, n)
    }

    /// Reads what is at the front of the disk, here if the page cache has it, else on an I/O thread. `copies`: the reader takes no
    /// blocks away.
    fn read_front<'a>(self: &'a Arc<Self>, mut state: Locked<'a>, copies: bool) -> Locked<'a> {
        let most = state.most_slots(self.pool.limits().block);
        let Some(mut job) = state.core.start_read(most) else { return state };
        let file = self.pool.file();
        let mut ahead = mem::take(&mut state.trailers);
        let mut found = self.found(&mut state, job.start, job.blocks.len(), copies);
        drop(state);
        self.prefetch(&found);
        match file {
            None => self.no_file(job),
            Some(file) => {
                let wanted = self.wanted(&job);
                let progress = found.swap_or_read(&file, wanted, &mut ahead, &mut job.blocks);
                if let Some(progress) = progress {
                    self.did_read(job, progress, file, ahead);
                } else {
                    drop(file);
                    self.lock().missed = Some(job);
                }
            }
        }
        let mut state = self.lock();
        self.end_found(&mut state, found);
        state
    }
}
