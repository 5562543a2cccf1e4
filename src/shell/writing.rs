//! Taking bytes in. Never copies more than a block's worth under the lock, and that only of an item.

use std::{
    io::IoSlice,
    ops::ControlFlow,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{Locked, Shared};
use crate::{block::Block, clock, copy::streaming, core::Room, error::SpillError, sync::Arc};

/// Up to this many bytes are copied under the lock; more would keep the reader from it.
const SHORT: usize = 4 << 10;

/// One poll takes about this many bytes at most, however fast they are read: others share its thread.
const MOST: usize = 1 << 20;

impl Shared {
    /// Takes a short write whole, where nothing follows from it; else the lock is for [`write_under`](Self::write_under). This
    /// is what most writes of a stream of small pieces are, and it costs less than the copy.
    #[inline]
    pub(crate) fn write_quietly(self: &Arc<Self>, src: &[u8]) -> ControlFlow<(), Locked<'_>> {
        let mut state = self.raw_lock();
        if state.quiet && (1..=SHORT).contains(&src.len()) && state.core.append_quietly(src) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(self.locked(state))
    }

    /// Takes what there is room for, at least a byte if there is one to take.
    pub(crate) fn poll_write(
        self: &Arc<Self>,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, SpillError>> {
        self.write_under(self.lock(), cx, bufs)
    }

    pub(crate) fn write_under<'a>(
        self: &'a Arc<Self>,
        mut state: Locked<'a>,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, SpillError>> {
        let mut taken = 0;
        state.writer.goes_on();
        for buf in bufs {
            let mut rest = &buf[..];
            while !rest.is_empty() {
                if taken >= MOST {
                    return Poll::Ready(Ok(taken));
                }
                let room = match state.core.room() {
                    Ok(Room::Bytes(room)) => room,
                    Ok(Room::Full) | Err(_) if taken > 0 => return Poll::Ready(Ok(taken)),
                    Ok(Room::Full) => {
                        state.park_writer(cx);
                        return Poll::Pending;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                };
                let n = rest.len().min(room);
                let appended = if n <= SHORT {
                    state.core.append(&rest[..n])
                } else if let Some(block) = state.core.take_tail() {
                    let outcome;
                    (state, outcome) = self.fill(state, block, &rest[..n]);
                    match outcome {
                        Ok(appended) => appended,
                        Err(_) if taken > 0 => return Poll::Ready(Ok(taken)),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                } else {
                    0
                };
                taken += appended;
                rest = &rest[appended..];
            }
        }
        if taken == 0 {
            // There was nothing to take.
            state.core.check_write()?;
        }
        Poll::Ready(Ok(taken))
    }

    /// Takes an item whole, unless an earlier one still waits for room; then it stays in `item`.
    pub(crate) fn poll_write_bytes(
        self: &Arc<Self>,
        cx: &Context<'_>,
        item: &mut Bytes,
    ) -> Poll<Result<(), SpillError>> {
        let mut state = self.lock();
        state.writer.goes_on();
        if item.is_empty() {
            return Poll::Ready(state.core.check_write());
        }
        let (mut state, taken) = self.take_at_once(state, item);
        if taken? {
            drop(state);
            *item = Bytes::new();
            return Poll::Ready(Ok(()));
        }
        match state.core.offer(item) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                state.park_writer(cx);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes a long item without the lock, if the block that is being filled has room for all of it; else nothing of it.
    fn take_at_once<'a>(
        self: &'a Arc<Self>,
        mut state: Locked<'a>,
        item: &[u8],
    ) -> (Locked<'a>, Result<bool, SpillError>) {
        if item.len() <= SHORT {
            return (state, Ok(false));
        }
        match state.core.has_room_for(item.len()) {
            Ok(true) => {}
            other => return (state, other),
        }
        let Some(block) = state.core.take_tail() else { return (state, Ok(false)) };
        let (state, appended) = self.fill(state, block, item);
        (state, appended.map(|_| true))
    }

    /// Copies without the lock into the block that is being filled, as much as fits; or encrypts in place of copying.
    fn fill<'a>(
        self: &'a Arc<Self>,
        mut state: Locked<'a>,
        mut block: Block,
        src: &[u8],
    ) -> (Locked<'a>, Result<usize, SpillError>) {
        let verifies = self.stream.codec.verifies();
        let checksum = state.core.keeps_the_disk_busy() && verifies;
        let room = block.room();
        let spills = block.len() == 0 && src.len() >= room && state.core.spills();
        // An I/O thread that has nothing to do encrypts it as soon as it is there: where that takes longer than writing, both do.
        let seals = spills && !state.lingering;
        let seals_from = state.core.out_from().filter(|_| seals);
        // Fresh memory is slow for another reason.
        let measures = streaming::HAS && spills && block.is_warm() && !self.pool.limits().encrypt;
        let streams = measures && state.filling.streams();
        state.pause();
        let began = if measures { clock::now() } else { 0 };
        if streams {
            block.stream_from(&src[..room], verifies);
        } else if !seals_from.is_some_and(|start| self.seal(&mut block, start, &src[..room])) {
            block.append(src);
        }
        let took = if measures { clock::now().saturating_sub(began) } else { 0 };
        if checksum && block.room() == 0 && !streams {
            // It will go to disk as a rule; here it is in this core's cache, and the I/O thread is the busier one.
            block.reckon_checksum();
        }
        let mut state = self.lock();
        if measures && !streams {
            state.filling.took(room, took);
        }
        let appended = state.core.put_tail(block);
        (state, appended)
    }

    /// Fills a block for this place in the stream with what its slot will hold, and says so. Else the one who writes it seals it.
    fn seal(&self, block: &mut Block, start: u64, src: &[u8]) -> bool {
        let Some(cipher) = self.pool.cipher() else { return false };
        block.seal_from(src, |src, into| cipher.seal(self.stream.id, start, src, into)).is_ok()
    }

    /// Ready when an item can be taken.
    pub(crate) fn poll_item_room(self: &Arc<Self>, cx: &Context<'_>) -> Poll<Result<(), SpillError>> {
        let mut state = self.lock();
        state.writer.goes_on();
        match state.core.check_item_room() {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => {
                state.park_writer(cx);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Takes an item that [`poll_item_room`](Self::poll_item_room) has made way for.
    pub(crate) fn send(self: &Arc<Self>, mut item: Bytes) -> Result<(), SpillError> {
        if item.is_empty() {
            return self.lock().core.check_write();
        }
        let (mut state, taken) = self.take_at_once(self.lock(), &item);
        if taken? || state.core.offer(&mut item)? {
            return Ok(());
        }
        drop(state);
        Err(SpillError::Config { option: "start_send", problem: "was called without poll_ready".into() })
    }
}
