//! The bare loop: `pwrite` until all is written, then `pread`, on one thread. What the file system takes, and nothing else.

use std::{
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use super::{Job, stop};
use crate::content::Source;

/// Bytes in one call.
const CALL: usize = 1 << 20;

pub(crate) fn raw(job: Job) -> Duration {
    let (mut source, mut check, mut buf) = (Source::many(job.piece, CALL), job.check(), vec![0; CALL]);
    let started = Instant::now();
    let file = tempfile::tempfile().expect("a temp file");
    for at in (0..job.bytes).step_by(CALL) {
        file.write_all_at(source.at(at), at).unwrap();
    }
    for at in (0..job.bytes).step_by(CALL) {
        file.read_exact_at(&mut buf, at).unwrap();
        check.take(&buf);
    }
    check.end(job.bytes);
    stop(started, file)
}
