//! Runs a buffer's jobs on an I/O thread: the one place where core and storage meet.
//! Never runs twice at once for one buffer, but for an assistant that writes, and never holds its lock while the disk works.

use std::{
    any::Any,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use super::{Locked, Shared, State};
use crate::{
    block::Block,
    clock,
    core::{ReadJob, WriteFault, WriteJob, Wrote},
    error::{SpillError, StorageOp},
    pool::Grant,
    storage::{Part, Progress, ReadFault, SpillFile, TrailersAhead, Wanted, is_full},
    sync::{Arc, Instant},
    threads::{Lane, Work},
};

/// Jobs that one buffer has done before it is another's turn.
pub(super) const TURN: usize = 8;

/// How long the driver waits at most for a buffer's next job before it goes; and never longer than the last one took.
const LINGER: Duration = Duration::from_micros(100);

/// Blocks of several buffers of a pool that are written at once: with a thousand buffers each has one block, and a call and a
/// hand-over for each costs as much as the writing.
const TOGETHER: usize = 16;

enum Step {
    Create(u64),
    AskSpace,
    Write(WriteJob, Arc<SpillFile>),
    Read(ReadJob),
    Idle,
}

impl Work for Shared {
    fn work(self: Arc<Self>, lane: &Lane) -> bool {
        let mut linger = Duration::ZERO;
        for _ in 0..TURN {
            let began = Instant::now();
            match self.next_step(!linger.is_zero()) {
                Step::Idle if linger.is_zero() => return false,
                Step::Idle => {
                    self.bell.wait(mem::take(&mut linger));
                    continue;
                }
                Step::Create(offset) => self.create(offset),
                Step::AskSpace => self.ask_space(),
                Step::Write(job, file) => {
                    self.call_assistant(&job, lane);
                    self.write_with_others(job, &file, lane);
                }
                Step::Read(job) => self.read(job),
            }
            linger = if lane.is_busy() { Duration::ZERO } else { began.elapsed().min(LINGER) };
        }
        true
    }

    fn kind(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.pool).addr())
    }
}

/// A second thread that writes for a buffer: where what is written is encrypted, one does that while the other has the file.
/// It has no queue of its own and reads nothing; what it leaves, the driver does.
struct Assistant(Arc<Shared>);

impl Work for Assistant {
    fn work(self: Arc<Self>, _: &Lane) -> bool {
        (0..TURN).all(|_| self.0.assist())
    }
}

/// One buffer's part of what is written together.
struct Writing {
    who: Arc<Shared>,
    job: WriteJob,
}

impl Writing {
    fn part(&self) -> Part<'_> {
        Part { stream: self.who.stream, run: self.job.run, blocks: &self.job.blocks }
    }
}

impl Shared {
    fn next_step(self: &Arc<Self>, may_linger: bool) -> Step {
        let mut state = self.lock();
        state.lingering = false;
        if let Some(job) = state.missed.take() {
            return Step::Read(job);
        }
        let (step, ends_turn) = self.next_write(&mut state);
        let idle = matches!(step, Step::Idle);
        state.lingering = idle && may_linger;
        state.driving = !idle || may_linger;
        self.unlock(state, ends_turn);
        step
    }

    /// What is next of writing, and whether its turn in the pool's queue is over with that.
    fn next_write(self: &Arc<Self>, state: &mut State) -> (Step, bool) {
        // One that still waits for its turn may be here for a read.
        let mut ends_turn = state.queued && !state.core.waits_for_slots();
        let step = loop {
            let Some(want) = state.core.wants_write() else { break Step::Idle };
            match self.pool.grant(want, self.stream.id, &self.member()) {
                Grant::Slots(run, file) => break Step::Write(state.core.start_write(run), file),
                Grant::NoFile => return (Step::Create(state.core.stats().read), false),
                Grant::AskSpace => return (Step::AskSpace, false),
                Grant::Busy => state.core.slots_busy(clock::now()),
                Grant::Full(by) => {
                    state.core.no_slots(by, clock::now());
                    state.queued = true;
                    ends_turn = false;
                }
            }
        };
        (step, ends_turn)
    }

    /// Releases the lock, and then the turn in the pool's queue if that is over.
    fn unlock(&self, mut state: Locked<'_>, ends_turn: bool) {
        if ends_turn {
            state.queued = false;
            drop(state);
            self.pool.end_turn(self.stream.id);
        }
    }

    /// Has another thread write too, if one is free and there is something for it, and all of this job is still to be encrypted.
    fn call_assistant(self: &Arc<Self>, job: &WriteJob, lane: &Lane) {
        let sealed = || job.blocks.iter().any(|(_, block)| block.sealed().is_some());
        if !self.pool.limits().assisted || lane.is_busy() || sealed() {
            return;
        }
        let mut state = self.raw_lock();
        if state.assisted || state.core.wants_write().is_none() {
            return;
        }
        state.assisted = true;
        drop(state);
        if self.pool.submit(Arc::new(Assistant(Arc::clone(self)))).is_err() {
            self.raw_lock().assisted = false;
        }
    }

    /// Does one job of the assistant's, and says whether there was one.
    fn assist(self: &Arc<Self>) -> bool {
        let mut state = self.lock();
        let (step, ends_turn) = self.next_write(&mut state);
        state.assisted = matches!(step, Step::Write(..));
        self.unlock(state, ends_turn);
        let Step::Write(job, file) = step else { return false };
        let turn = file.turn();
        let progress = write_alone(&file, Part { stream: self.stream, run: job.run, blocks: &job.blocks });
        drop(turn);
        self.did_write(job, progress, &file, true);
        true
    }

    fn create(self: &Arc<Self>, offset: u64) {
        let panicked = |error| Err(SpillError::storage(StorageOp::Create, &self.pool.dir(), offset, error));
        match guarded(|| self.pool.create_file(offset)).unwrap_or_else(panicked) {
            Ok(()) => {}
            Err(SpillError::Storage { source, .. }) if is_full(&source) => self.found_no_room(source),
            Err(error) => self.lock().core.cannot_write(WriteFault::Broken(error), clock::now()),
        }
    }

    fn ask_space(self: &Arc<Self>) {
        let Err(source) = guarded(|| self.pool.ask_space()).unwrap_or_else(Err) else { return };
        if is_full(&source) {
            return self.found_no_room(Arc::new(source));
        }
        let at = self.stats().read;
        let fault = WriteFault::Broken(SpillError::storage(StorageOp::Create, &self.pool.dir(), at, source));
        self.lock().core.cannot_write(fault, clock::now());
    }

    /// The file system is full. That is tried once more when the pool has given back what it keeps.
    fn found_no_room(self: &Arc<Self>, source: Arc<io::Error>) {
        let kind = source.kind();
        let again = mem::replace(&mut self.raw_lock().tries_again, true);
        if self.pool.makes_room(again) {
            return;
        }
        let mut state = self.lock();
        state.tries_again = false;
        state.core.cannot_write(WriteFault::Full(source), clock::now());
        drop(state);
        // When this buffer's slots are back, for those say that there is room.
        self.pool.is_full(kind);
    }

    /// Writes this job, and with it what others of the pool want to have written.
    fn write_with_others(self: &Arc<Self>, job: WriteJob, file: &Arc<SpillFile>, lane: &Lane) {
        let turn = file.turn();
        let mut blocks = job.blocks.len();
        let mut writing = vec![Writing { who: Arc::clone(self), job }];
        while blocks < TOGETHER
            && let Some(next) = self.kind().and_then(|kind| lane.take_like(kind))
            && let Ok(other) = (next as Arc<dyn Any + Send + Sync>).downcast::<Self>()
        {
            match other.next_step(false) {
                Step::Write(job, _) => {
                    blocks += job.blocks.len();
                    writing.push(Writing { who: other, job });
                }
                Step::Idle => drop_quietly(other),
                // What is not written is done in its own turn.
                Step::Read(job) => {
                    other.lock().missed = Some(job);
                    lane.put_back(other);
                    break;
                }
                Step::Create(_) | Step::AskSpace => {
                    lane.put_back(other);
                    break;
                }
            }
        }
        let parts: Vec<_> = writing.iter().map(Writing::part).collect();
        // A fault hits only those whose it is: behind the first one, each is written by itself.
        let good = if parts.len() > 1 { guarded(|| file.write_together(&parts)).unwrap_or(0) } else { 0 };
        let outcomes: Vec<_> = parts
            .into_iter()
            .enumerate()
            .map(|(i, part)| {
                if i < good {
                    return Progress { done: part.blocks.len(), fault: None };
                }
                write_alone(file, part)
            })
            .collect();
        drop(turn);
        for (Writing { who, job }, progress) in writing.into_iter().zip(outcomes) {
            let leads = Arc::ptr_eq(&who, self);
            who.did_write(job, progress, file, leads);
            drop_quietly(who);
        }
    }

    /// `goes_on`: the caller looks what is next for this one; else it is queued again if there is something.
    fn did_write(self: &Arc<Self>, job: WriteJob, progress: Progress<io::Error>, file: &SpillFile, goes_on: bool) {
        let at = job.blocks.get(progress.done).map_or(0, |(start, _)| *start);
        let (mut full, mut broken) = (None, None);
        match progress.fault {
            None => {}
            // What was not written goes where it may.
            Some(source) if source.kind() == io::ErrorKind::FileTooLarge && self.pool.lower_limit(job.run) => {}
            Some(source) if is_full(&source) => full = Some(source),
            Some(source) => {
                broken = Some(WriteFault::Broken(SpillError::storage(StorageOp::Write, file.dir(), at, source)));
            }
        }
        // Its own slots may hold something as well, and are free before it is known whether there may be room.
        let held_up = full.is_some().then(|| self.pool.hold_up());
        let mut state = self.lock();
        state.driving &= goes_on || full.is_some();
        state.tries_again &= progress.done == 0;
        state.core.wrote(job, Wrote { done: progress.done, fault: broken }, clock::now());
        drop(state);
        if let Some(source) = full {
            self.found_no_room(Arc::new(source));
            drop(held_up);
            self.lock().driving &= goes_on;
        }
    }

    fn read(self: &Arc<Self>, mut job: ReadJob) {
        let Some(file) = self.pool.file() else { return self.no_file(job) };
        let (wanted, mut ahead) = (self.wanted(&job), mem::take(&mut self.lock().trailers));
        let progress = guarded(|| file.read(wanted, &mut ahead, &mut payloads(&mut job.blocks)))
            .unwrap_or_else(|error| Progress { done: 0, fault: Some(ReadFault::Io(error)) });
        self.did_read(job, progress, file, ahead);
    }

    pub(super) fn wanted(&self, job: &ReadJob) -> Wanted {
        Wanted { stream: self.stream, index: job.start, run: job.run, behind: job.behind }
    }

    pub(super) fn did_read(
        self: &Arc<Self>,
        job: ReadJob,
        progress: Progress<ReadFault>,
        file: Arc<SpillFile>,
        ahead: TrailersAhead,
    ) {
        let good: usize = job.blocks.iter().take(progress.done).map(Block::len).sum();
        // What was read of the block while memory still had it was right.
        let offset = (job.start + good as u64).max(self.stats().read);
        let fault = progress.fault.map(|fault| read_error(fault, &file, offset));
        drop(file);
        let mut state = self.lock();
        state.trailers = ahead;
        state.core.did_read(job, progress.done, fault);
    }

    /// A file that has live slots is never closed; should it be, that is an error and no hang.
    pub(super) fn no_file(self: &Arc<Self>, job: ReadJob) {
        let source = io::Error::new(io::ErrorKind::NotFound, "the temp file was closed");
        let error = SpillError::storage(StorageOp::Read, &self.pool.dir(), job.start, source);
        self.lock().core.did_read(job, 0, Some(error));
    }
}

fn write_alone(file: &SpillFile, part: Part<'_>) -> Progress<io::Error> {
    guarded(|| file.write(part)).unwrap_or_else(|error| Progress { done: 0, fault: Some(error) })
}

/// Where a read job's bytes go.
pub(super) fn payloads(blocks: &mut [Block]) -> Vec<&mut [u8]> {
    blocks.iter_mut().map(Block::filled_mut).collect()
}

pub(super) fn read_error(fault: ReadFault, file: &SpillFile, offset: u64) -> SpillError {
    match fault {
        ReadFault::Io(source) => SpillError::storage(StorageOp::Read, file.dir(), offset, source),
        ReadFault::Corrupt(reason) => SpillError::Corrupt { offset, path: file.dir().to_path_buf(), reason },
    }
}

/// It may be the last share of a buffer, and so of a user's error, whose drop may panic: others' jobs are not done yet.
fn drop_quietly(one: Arc<Shared>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(one)));
}

/// A job that panics is a job that failed: nobody must wait for it for ever.
pub(super) fn guarded<T>(job: impl FnOnce() -> T) -> Result<T, io::Error> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|said| {
        let said: &str = match (said.downcast_ref::<&str>(), said.downcast_ref::<String>()) {
            (Some(said), _) => said,
            (_, Some(said)) => said,
            _ => "no message",
        };
        io::Error::other(format!("the I/O thread panicked: {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_what_a_panic_said_is_in_the_error() {
        let said = |job: fn()| guarded(job).unwrap_err().to_string();
        assert_eq!(said(|| panic!("in words")), "the I/O thread panicked: in words");
        let at = std::hint::black_box(7);
        let said_with = guarded(|| panic!("at {at}")).unwrap_err().to_string();
        assert_eq!(said_with, "the I/O thread panicked: at 7");
        assert_eq!(said(|| std::panic::panic_any(7)), "the I/O thread panicked: no message");
    }
}
