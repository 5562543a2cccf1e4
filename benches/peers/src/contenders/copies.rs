//! What a pipe whose reader keeps up costs at least: the copies alone, by one thread. No locks, no ledger, no tasks, no ends.

use std::time::{Duration, Instant};

use super::Job;

/// Each piece is copied into a window of memory and, when that is full, out of it.
pub(crate) fn two_copies(job: Job) -> Duration {
    through(job, Some(vec![0; job.piece]))
}

/// Each piece is copied into a window of memory and, when that is full, looked at there.
pub(crate) fn one_copy(job: Job) -> Duration {
    through(job, None)
}

fn through(job: Job, mut out: Option<Vec<u8>>) -> Duration {
    let (mut source, mut check) = (job.source(), job.check());
    let mut window = vec![vec![0; job.piece]; job.window / job.piece];
    let mut offsets = job.offsets().peekable();
    let started = Instant::now();
    while offsets.peek().is_some() {
        let filled =
            window.iter_mut().zip(&mut offsets).map(|(block, at)| block.copy_from_slice(source.at(at))).count();
        for block in &window[..filled] {
            match &mut out {
                Some(out) => {
                    out.copy_from_slice(block);
                    check.take(out);
                }
                None => check.take(block),
            }
        }
    }
    check.end(job.bytes);
    started.elapsed()
}
