//! The pool over a platform that does what a test says: its own handles, only the disk below is another.

mod hits;
mod limits;
mod misdirected;
mod room;
mod soak;
mod weather;

use std::{
    io::{Read, Write},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    BlockingReader, PoolHandle, SpillError, SpillReader, SpillWriter,
    slot::{Geometry, TRAILER},
    storage::sys::RawFile,
};

/// Longer than anything here takes on a busy machine: what is not done by then hangs.
const HANG: Duration = Duration::from_secs(100);

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The block of each pool here, for each has a memory limit of 512 KiB or more.
const BLOCK: usize = 64 * KIB;

const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// What undoes a multiplication by [`ODD`]: each step of Newton's doubles the bits that are right.
const BACK: u64 = {
    let (mut back, mut step) = (ODD, 0);
    while step < 5 {
        back = back.wrapping_mul(2u64.wrapping_sub(ODD.wrapping_mul(back)));
        step += 1;
    }
    back
};

/// The bytes of a stream: each eight tell whose they are and where they belong.
fn pattern(stream: u64, offset: u64, len: usize) -> Vec<u8> {
    let skip = (offset % 8) as usize;
    let mut bytes = Vec::with_capacity(len + 16);
    let mut word = (stream << 40) + offset / 8;
    while bytes.len() < skip + len {
        bytes.extend_from_slice(&word.wrapping_mul(ODD).to_le_bytes());
        word += 1;
    }
    bytes.truncate(skip + len);
    bytes.drain(..skip);
    bytes
}

/// Whose bytes these are, if they begin where eight do.
fn owner(bytes: &[u8]) -> u64 {
    let word = bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    word.wrapping_mul(BACK) >> 40
}

/// Fails instead of hanging; `state` is asked what to say then.
fn within<T: Send + 'static>(
    what: &str,
    state: impl FnOnce() -> String + Send + 'static,
    run: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, wait) = mpsc::channel();
    let worker = thread::spawn(move || done.send(run()));
    match wait.recv_timeout(HANG) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            // It may ask for a lock that is the reason of all this.
            let (tell, told) = mpsc::channel();
            thread::spawn(move || tell.send(state()));
            let state = told.recv_timeout(Duration::from_secs(5)).unwrap_or_else(|_| "which does not answer".into());
            panic!("{what}: hangs; {state}");
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(worker.join().expect_err("it ended without a result"))
        }
    }
}

/// The same for what one pool does.
fn with_pool<T: Send + 'static>(pool: &PoolHandle, run: impl FnOnce() -> T + Send + 'static) -> T {
    let watched = pool.clone();
    within("the pool", move || format!("{:?}", watched.stats()), run)
}

/// Waits for what I/O threads do by themselves, for a bounded time.
#[track_caller]
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < HANG, "never: {what}");
        // Only the pace of looking: the machine's cores belong to those who are waited for.
        thread::park_timeout(Duration::from_micros(200));
    }
}

/// All figures of what is in use are zero again; the buffers must be gone.
#[track_caller]
fn nothing_is_left(pool: &PoolHandle) {
    eventually("everything is given back", || {
        let stats = pool.stats();
        let memory = (stats.buffers, stats.memory_held, stats.lent, stats.in_memory);
        (memory, stats.disk_held, stats.on_disk) == ((0, 0, 0, 0), 0, 0)
    });
}

/// Writes a stream from its beginning and finishes it, on a thread of its own.
fn write_all(writer: SpillWriter, stream: u64, len: usize) -> thread::JoinHandle<Result<(), SpillError>> {
    thread::spawn(move || {
        let mut writer = writer.into_blocking();
        for at in (0..len).step_by(BLOCK) {
            let bytes = pattern(stream, at as u64, BLOCK.min(len - at));
            writer.write_all(&bytes).map_err(|error| ours(&error))?;
        }
        writer.finish()
    })
}

/// Reads to the end, checks each byte, and says how many there were and how it ended.
fn read_all(reader: SpillReader, stream: u64) -> (u64, Result<(), SpillError>) {
    let mut reader = reader.into_blocking();
    let (mut buf, mut at) = (vec![0; 30_000], 0);
    loop {
        match reader.read(&mut buf) {
            Ok(0) => return (at, Ok(())),
            Ok(n) => {
                assert!(buf[..n] == pattern(stream, at, n), "stream {stream}: wrong bytes at {at}");
                at += n as u64;
            }
            Err(error) => return (at, Err(ours(&error))),
        }
    }
}

/// Reads as much, which must be there.
fn read_some(reader: &mut BlockingReader, stream: u64, at: u64, len: usize) {
    let mut buf = vec![0; len];
    reader.read_exact(&mut buf).unwrap();
    assert!(buf == pattern(stream, at, len), "stream {stream}: wrong bytes from {at}");
}

fn ours(error: &std::io::Error) -> SpillError {
    SpillError::from_io(error).expect("one of ours").clone()
}

/// Who a slot says that it belongs to: a stream, and the offset of its first byte there.
fn identity(file: &dyn RawFile, slot: u64) -> (u64, u64) {
    let mut trailer = [0; TRAILER];
    let _ = file.read_at(&mut [std::io::IoSliceMut::new(&mut trailer)], Geometry::new(BLOCK).trailer(slot));
    identity_in(&trailer)
}

fn identity_in(trailer: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(*trailer[at..].first_chunk().unwrap());
    (number(8), number(16))
}

/// What lies at a place of the file: a slot's payload, or its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    Payload(u64),
    Trailer(u64),
}

fn spot(at: u64) -> Spot {
    let geometry = Geometry::new(BLOCK);
    match at.checked_sub(geometry.payload(0)) {
        // These tests' files are far from a second section.
        Some(inside) => Spot::Payload(inside / BLOCK as u64),
        None => Spot::Trailer(at / TRAILER as u64),
    }
}

#[test]
fn the_bytes_tell_whose_they_are_and_places_what_they_hold() {
    assert_eq!(pattern(7, 3, 100), pattern(7, 0, 103)[3..]);
    assert_eq!(owner(&pattern(7, 4096, 100)), 7);
    let geometry = Geometry::new(BLOCK);
    for slot in 0..300 {
        assert_eq!(spot(geometry.payload(slot) + 77), Spot::Payload(slot));
        assert_eq!(spot(geometry.trailer(slot) + 17), Spot::Trailer(slot));
    }
}
