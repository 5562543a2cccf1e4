//! One temp file and its slots: sealed on the way in, checked on the way out.
//! Never knows whose slots they are, nor why they are written.

#[cfg(feature = "encryption")]
mod cipher;
#[cfg(all(not(feature = "encryption"), not(any(test, spill_shuttle))))]
#[path = "no_cipher.rs"]
mod cipher;
#[cfg(all(not(feature = "encryption"), any(test, spill_shuttle)))]
#[path = "toy_cipher.rs"]
mod cipher;
mod codec;
mod place;
pub(crate) mod sys;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IoSlice, IoSliceMut},
    path::{Path, PathBuf},
};

pub(crate) use self::{cipher::Cipher, codec::Codec};
use self::{
    codec::Trailer,
    sys::{Platform, RawFile},
};
use crate::{
    block::{Block, Reuse},
    error::{SpillError, StorageOp},
    options::Place,
    slot::{GROUP, Geometry, SlotRun, TRAILER, io_pieces},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// By how much the file's length grows at a time. A length that is ahead of what is written costs no
/// space, and keeps a file system from allocating ahead of a file's end on its own (xfs does).
const GROW: u64 = 64 << 20;

/// Trailers that are read at once and kept for the reads that follow: one system call for a MiB of the largest blocks.
const TRAILERS_AHEAD: usize = 16;

/// Slots that are sealed at a time, into memory that is nobody's window: as many as a usual job has, for whoever waits for the
/// file meanwhile sleeps, and is slow to wake.
const SEALED: usize = 4;

/// Slots that are read at a time: what has been read is checked while it is still in the processor's cache.
const STEP: usize = 4;

/// A temp file without a name.
#[derive(Debug)]
pub(crate) struct SpillFile {
    raw: Box<dyn RawFile>,
    dir: PathBuf,
    geometry: Geometry,
    len: Mutex<u64>,
    reads_cached: AtomicBool,
    turn: Mutex<()>,
    /// Where what is written is encrypted.
    cipher: Option<Arc<Cipher>>,
}

/// Whose slots are written or read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// Tells it from all others of the process.
    pub(crate) id: u64,
    pub(crate) codec: Codec,
}

/// Blocks of one stream for adjacent slots, each with its index in the stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) stream: Stream,
    pub(crate) run: SlotRun,
    pub(crate) blocks: &'a [(u64, Arc<Block>)],
}

impl Part<'_> {
    /// Whether what lies in the slots behind this can be written in the same call: all payloads but the last of a call fill
    /// their slots.
    fn leads_to(&self, next: &Self, geometry: Geometry) -> bool {
        let full = |(_, block): &(u64, Arc<Block>)| block.len() == geometry.block();
        self.run.end() == next.run.first && self.blocks.last().is_some_and(full)
    }
}

/// Adjacent slots of one stream to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) stream: Stream,
    /// The first slot's index in the stream.
    pub(crate) index: u64,
    pub(crate) run: SlotRun,
    /// How many slots behind these hold what follows in the stream.
    pub(crate) behind: u64,
}

/// Trailers that were read ahead of their payloads, for one stream.
#[derive(Debug, Default)]
pub(crate) struct TrailersAhead {
    first: u64,
    /// The index of the first one. A slot that was freed and is the stream's again has another one by then.
    index: u64,
    trailers: Vec<Trailer>,
}

impl TrailersAhead {
    /// Those of these slots.
    fn of(&self, run: SlotRun, index: u64, block: usize) -> Option<&[Trailer]> {
        let at = run.first.checked_sub(self.first)?;
        if self.index + at * block as u64 != index {
            return None;
        }
        self.trailers.get(at as usize..)?.get(..run.count as usize)
    }
}

/// How many slots, from the first, were done, and what stopped the next.
#[derive(Debug)]
pub(crate) struct Progress<E> {
    pub(crate) done: usize,
    pub(crate) fault: Option<E>,
}

/// Whether a part of the file has been given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Punched {
    Gone,
    /// It may work at another time.
    NotNow,
    /// The file system cannot.
    Never,
}

/// Why a slot could not be read back.
#[derive(Debug)]
pub(crate) enum ReadFault {
    Io(io::Error),
    Corrupt(&'static str),
}

impl SpillFile {
    /// Makes a file in a fit directory. `offset` is the stream's, for errors. What is written is
    /// encrypted if there is a cipher.
    pub(crate) fn create(
        platform: &dyn Platform,
        place: &Place,
        geometry: Geometry,
        cipher: Option<Arc<Cipher>>,
        offset: u64,
    ) -> Result<Self, SpillError> {
        let dir = place.choose(platform, offset)?;
        let raw =
            platform.create(&dir).map_err(|source| SpillError::storage(StorageOp::Create, &dir, offset, source))?;
        Ok(Self {
            raw,
            dir,
            geometry,
            len: Mutex::new(0),
            reads_cached: AtomicBool::new(true),
            turn: Mutex::new(()),
            cipher,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many slots the process's file-size limit leaves room for now.
    pub(crate) fn slots(&self) -> u64 {
        self.geometry.slots_in_file(self.limit())
    }

    /// Why it has no room for so many, if it has not.
    pub(crate) fn too_large(&self, slots: u64) -> Option<io::Error> {
        let limit = self.limit();
        (self.geometry.slots_in_file(limit) < slots).then(|| {
            let problem = format!("no file of this process may be larger than {limit} bytes (RLIMIT_FSIZE)");
            io::Error::new(io::ErrorKind::FileTooLarge, problem)
        })
    }

    fn limit(&self) -> u64 {
        self.raw.size_limit().unwrap_or(u64::MAX).min(i64::MAX as u64)
    }

    /// The right to write, for a whole job; `None` where each call asks for it, so that one encrypts while another is written.
    pub(crate) fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.cipher.is_none().then(|| self.wait_turn())
    }

    /// A file is written by one at a time whatever one does, and those who wait for it in the kernel do so in a loop.
    fn wait_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the blocks of several streams, those that lie together in one call. After a fault, says how far the first of
    /// them have come; the part that it hit is to be written again by itself.
    pub(crate) fn write_together(&self, parts: &[Part<'_>]) -> usize {
        let mut done = 0;
        for together in parts.chunk_by(|this, next| this.leads_to(next, self.geometry)) {
            let count = together.iter().map(|part| part.run.count).sum();
            let Some(first) = together.first() else { continue };
            let blocks = together.iter().flat_map(|part| part.blocks.iter().map(|block| (part.stream, block)));
            let progress = self.write_blocks(SlotRun::new(first.run.first, count), blocks);
            if progress.fault.is_some() {
                break;
            }
            done += together.len();
        }
        done
    }

    /// Writes one stream's blocks.
    pub(crate) fn write(&self, part: Part<'_>) -> Progress<io::Error> {
        self.write_blocks(part.run, part.blocks.iter().map(|block| (part.stream, block)))
    }

    fn write_blocks<'a>(
        &self,
        run: SlotRun,
        blocks: impl Iterator<Item = (Stream, &'a (u64, Arc<Block>))>,
    ) -> Progress<io::Error> {
        let mut blocks = blocks.take(run.count as usize);
        let mut done = 0;
        if let Err(error) = self.grow(run) {
            return Progress { done, fault: Some(error) };
        }
        for piece in io_pieces(run) {
            let blocks: Vec<_> = blocks.by_ref().take(piece.count as usize).collect();
            let progress = self.write_piece(piece, &blocks);
            done += progress.done;
            if progress.fault.is_some() {
                return Progress { done, ..progress };
            }
        }
        Progress { done, fault: None }
    }

    fn write_piece(&self, piece: SlotRun, blocks: &[(Stream, &(u64, Arc<Block>))]) -> Progress<io::Error> {
        // All payloads but the last fill their slots, so they lie end to end in the file.
        debug_assert!(blocks.iter().rev().skip(1).all(|(_, (_, block))| block.len() == self.geometry.block()));
        let mut trailers = Vec::with_capacity(blocks.len());
        let (written, mut fault) = match &self.cipher {
            None => {
                let seal = |(stream, (index, block)): &(Stream, &(u64, Arc<Block>))| {
                    stream.codec.seal(stream.id, *index, block)
                };
                trailers.extend(blocks.iter().map(seal));
                let mut bufs: Vec<_> = blocks.iter().map(|(_, (_, block))| IoSlice::new(block.filled())).collect();
                self.write_all(&mut bufs, self.geometry.payload(piece.first))
            }
            Some(cipher) => self.write_sealed(cipher, piece, blocks, &mut trailers),
        };
        let mut whole = 0;
        let mut end = 0;
        for (_, (_, block)) in blocks {
            end += block.len();
            if end > written {
                break;
            }
            whole += 1;
        }
        if whole > 0 {
            // A payload without its trailer is not there.
            let mut bufs = [IoSlice::new(trailers[..whole].as_flattened())];
            let (written, trouble) = self.write_all(&mut bufs, self.geometry.trailer(piece.first));
            whole = written / TRAILER;
            fault = trouble.or(fault);
        }
        Progress { done: whole, fault }
    }

    /// Writes what is sealed as it is. The rest it seals, a few payloads for each call, which are then in the processor's cache.
    fn write_sealed(
        &self,
        cipher: &Cipher,
        piece: SlotRun,
        blocks: &[(Stream, &(u64, Arc<Block>))],
        trailers: &mut Vec<Trailer>,
    ) -> (usize, Option<io::Error>) {
        let mut scratch = None;
        let (mut done, mut rest) = (0, blocks);
        while !rest.is_empty() {
            let mut open = 0;
            let fits = |(_, (_, block)): &&(Stream, &(u64, Arc<Block>))| {
                open += usize::from(block.sealed().is_none());
                open <= SEALED
            };
            let (these, behind) = rest.split_at(rest.iter().take_while(fits).count());
            rest = behind;
            if these.iter().any(|(_, (_, block))| block.sealed().is_none()) {
                // No buffer's: at a full window none of them has a block to spare. One for each thread that writes is the most.
                let scratch =
                    scratch.get_or_insert_with(|| Block::allocate(SEALED * self.geometry.block(), Reuse::Newest));
                if let Err(error) = seal_into(scratch, cipher, these, trailers) {
                    return (done, Some(error));
                }
            } else {
                trailers.extend(these.iter().filter_map(|(_, (_, block))| block.sealed()));
            }
            let mut sealed = scratch.as_ref().map_or(&[][..], Block::filled);
            let mut bufs: Vec<_> = these
                .iter()
                .map(|(_, (_, block))| {
                    if block.sealed().is_some() {
                        return IoSlice::new(block.filled());
                    }
                    let (this, others) = sealed.split_at(block.len());
                    sealed = others;
                    IoSlice::new(this)
                })
                .collect();
            let (written, fault) = self.write_all(&mut bufs, self.geometry.payload(piece.first) + done as u64);
            done += written;
            if fault.is_some() {
                return (done, fault);
            }
        }
        (done, None)
    }

    fn write_all(&self, mut bufs: &mut [IoSlice<'_>], at: u64) -> (usize, Option<io::Error>) {
        let _turn = self.cipher.as_ref().map(|_| self.wait_turn());
        let mut written = 0;
        while bufs.iter().any(|buf| !buf.is_empty()) {
            match self.raw.write_at(bufs, at + written as u64) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    written += n;
                    IoSlice::advance_slices(&mut bufs, n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Reads the payloads of adjacent slots into `slots`, each as long as its payload, and checks them.
    pub(crate) fn read(
        &self,
        wanted: Wanted,
        ahead: &mut TrailersAhead,
        slots: &mut [&mut [u8]],
    ) -> Progress<ReadFault> {
        self.read_with(wanted, ahead, slots, |bufs, at| self.raw.read_at(bufs, at))
    }

    /// The same, if the page cache has all of it; `None` if the disk would have to be waited for.
    pub(crate) fn read_cached(
        &self,
        wanted: Wanted,
        ahead: &mut TrailersAhead,
        slots: &mut [&mut [u8]],
    ) -> Option<Progress<ReadFault>> {
        if !self.reads_cached.load(Ordering::Relaxed) {
            return None;
        }
        let progress = self.read_with(wanted, ahead, slots, |bufs, at| self.raw.read_cached(bufs, at));
        match &progress.fault {
            Some(ReadFault::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Some(ReadFault::Io(error)) if is_unsupported(error) => {
                self.reads_cached.store(false, Ordering::Relaxed);
                None
            }
            _ => Some(progress),
        }
    }

    fn read_with(
        &self,
        wanted: Wanted,
        ahead: &mut TrailersAhead,
        slots: &mut [&mut [u8]],
        read_at: impl Fn(&mut [IoSliceMut<'_>], u64) -> io::Result<usize>,
    ) -> Progress<ReadFault> {
        let Wanted { stream, mut index, run, behind } = wanted;
        let mut done = 0;
        for piece in io_pieces(run) {
            let slots = &mut slots[done..done + piece.count as usize];
            let mut trouble = None;
            if ahead.of(piece, index, self.geometry.block()).is_none() {
                trouble = self.read_trailers(ahead, piece, index, run.end() + behind, &read_at);
            }
            let mut first = piece.first;
            for slots in slots.chunks_mut(STEP) {
                let count = slots.len();
                let mut bufs: [_; STEP] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
                for (buf, slot) in bufs.iter_mut().zip(&mut *slots) {
                    *buf = IoSliceMut::new(slot);
                }
                let (payload_bytes, error) = read_all(&mut bufs[..count], self.geometry.payload(first), &read_at);
                trouble = error.or(trouble);
                let mut end = 0;
                for payload in slots {
                    end += payload.len();
                    let trailer = ahead.of(SlotRun::one(first), index, self.geometry.block());
                    let (Some([trailer]), true) = (trailer, end <= payload_bytes) else {
                        let error = trouble.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                        return Progress { done, fault: Some(ReadFault::Io(error)) };
                    };
                    let opened = match &self.cipher {
                        None => stream.codec.open(stream.id, index, payload, trailer),
                        Some(cipher) => cipher.open(stream.id, index, payload, trailer),
                    };
                    if let Err(reason) = opened {
                        return Progress { done, fault: Some(ReadFault::Corrupt(reason)) };
                    }
                    done += 1;
                    first += 1;
                    index += payload.len() as u64;
                }
            }
        }
        if behind == 0 {
            *ahead = TrailersAhead::default();
        }
        Progress { done, fault: None }
    }

    /// Reads the trailers of `piece`, and a few more up to the slot `end`, if these lie in the same page.
    fn read_trailers(
        &self,
        ahead: &mut TrailersAhead,
        piece: SlotRun,
        index: u64,
        end: u64,
        read_at: impl Fn(&mut [IoSliceMut<'_>], u64) -> io::Result<usize>,
    ) -> Option<io::Error> {
        let page_end = (piece.first / GROUP + 1) * GROUP;
        let count = end.min(page_end).min(piece.first + TRAILERS_AHEAD as u64).max(piece.end()) - piece.first;
        ahead.trailers.resize(count as usize, [0; TRAILER]);
        let mut bufs = [IoSliceMut::new(ahead.trailers.as_flattened_mut())];
        let (bytes, trouble) = read_all(&mut bufs, self.geometry.trailer(piece.first), read_at);
        ahead.trailers.truncate(bytes / TRAILER);
        (ahead.first, ahead.index) = (piece.first, index);
        trouble
    }

    /// Gives a part of the file back.
    pub(crate) fn punch(&self, ranges: &[(u64, u64)]) -> Punched {
        for &(at, len) in ranges {
            loop {
                match self.raw.punch(at, len) {
                    Ok(()) => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if is_unsupported(&error) => return Punched::Never,
                    Err(_) => return Punched::NotNow,
                }
            }
        }
        Punched::Gone
    }

    /// Makes the file long enough for what is written next.
    fn grow(&self, run: SlotRun) -> io::Result<()> {
        let end = self.geometry.file_len(run.end());
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
        if end <= *len {
            return Ok(());
        }
        let ahead = end.saturating_add(GROW).min(self.limit()).max(end);
        *len = match self.raw.set_len(ahead) {
            Ok(()) => ahead,
            // The file system may know a limit of its own.
            Err(_) => self.raw.set_len(end).map(|()| end)?,
        };
        Ok(())
    }
}

fn read_all(
    mut bufs: &mut [IoSliceMut<'_>],
    at: u64,
    read_at: impl Fn(&mut [IoSliceMut<'_>], u64) -> io::Result<usize>,
) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while bufs.iter().any(|buf| !buf.is_empty()) {
        match read_at(bufs, at + filled as u64) {
            Ok(0) => return (filled, None),
            Ok(n) => {
                filled += n;
                IoSliceMut::advance_slices(&mut bufs, n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

/// Seals the payloads that are not, end to end into `scratch`. All of their trailers go to `trailers`.
fn seal_into(
    scratch: &mut Block,
    cipher: &Cipher,
    blocks: &[(Stream, &(u64, Arc<Block>))],
    trailers: &mut Vec<Trailer>,
) -> io::Result<()> {
    let open = blocks.iter().filter(|(_, (_, block))| block.sealed().is_none());
    scratch.receive(open.map(|(_, (_, block))| block.len()).sum());
    let mut into = scratch.filled_mut();
    for (stream, (index, block)) in blocks {
        if let Some(trailer) = block.sealed() {
            trailers.push(*trailer);
            continue;
        }
        let (sealed, rest) = into.split_at_mut(block.len());
        trailers.push(cipher.seal(stream.id, *index, block.filled(), sealed)?);
        into = rest;
    }
    Ok(())
}

/// Whether this is about space: the disk limit reached early.
pub(crate) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

fn is_unsupported(error: &io::Error) -> bool {
    // EINVAL: a kernel or file system that does not know the flag.
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput)
}
