//! One file over a platform that keeps a list of the calls and answers some of them as a test says.

use std::{
    collections::VecDeque,
    io::{
        self,
        ErrorKind::{
            FileTooLarge, Interrupted, InvalidInput, Other, UnexpectedEof, Unsupported, WouldBlock, WriteZero,
        },
        IoSlice, IoSliceMut,
    },
    path::Path,
    sync::{Arc, Mutex},
};

use super::{
    Cipher, Codec, GROW, Part, Progress, Punched, ReadFault, SpillFile, Stream, TRAILERS_AHEAD, TrailersAhead, Wanted,
    sys::{Platform, RawFile, System, faulty::Scripted},
};
use crate::{
    block::{Block, Reuse},
    error::SpillError,
    options::Place,
    slot::{GROUP, Geometry, SlotRun, TRAILER},
};

const BLOCK: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Write(u64, usize),
    Read(u64, usize),
    Cached(u64, usize),
    Punch(u64, u64),
    SetLen(u64),
}

/// Answers each call with the next of `answers`: an error, that nothing was done, or what the disk says.
#[derive(Debug, Default)]
struct Listed {
    calls: Mutex<Vec<Call>>,
    answers: Mutex<VecDeque<Answer>>,
    limit: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Fails(io::ErrorKind),
    Nothing,
    /// As much, at most.
    Short(usize),
    Done,
}
use Answer::{Done, Fails, Nothing, Short};

impl Listed {
    /// How many bytes may be moved.
    fn answer(&self, call: Call) -> io::Result<usize> {
        self.calls.lock().unwrap().push(call);
        match self.answers.lock().unwrap().pop_front() {
            Some(Fails(kind)) => Err(kind.into()),
            Some(Nothing) => Ok(0),
            Some(Short(len)) => Ok(len),
            Some(Done) | None => Ok(usize::MAX),
        }
    }

    fn then(&self, answers: &[Answer]) {
        assert!(self.answers.lock().unwrap().is_empty(), "all that was planned has happened");
        self.answers.lock().unwrap().extend(answers);
    }

    /// The calls since the last look.
    fn calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

#[derive(Debug)]
struct ListedFile(Box<dyn RawFile>, Arc<Listed>);

#[derive(Debug)]
struct Disk(Arc<Listed>);

impl Platform for Disk {
    fn create(&self, dir: &Path) -> io::Result<Box<dyn RawFile>> {
        Ok(Box::new(ListedFile(Scripted::default().create(dir)?, self.0.clone())))
    }

    fn memory_backed(&self, _: &Path) -> io::Result<Option<&'static str>> {
        Ok(None)
    }

    fn free_space(&self, _: &Path) -> io::Result<(u64, u64)> {
        Ok((u64::MAX, u64::MAX))
    }
}

impl ListedFile {
    fn read(&self, bufs: &mut [IoSliceMut<'_>], at: u64, call: fn(u64, usize) -> Call) -> io::Result<usize> {
        let mut bytes = vec![0; bufs.iter().map(|buf| buf.len()).sum()];
        let most = self.1.answer(call(at, bytes.len()))?.min(bytes.len());
        let n = self.0.read_at(&mut [IoSliceMut::new(&mut bytes[..most])], at)?;
        let mut rest = &bytes[..n];
        for buf in bufs {
            let (this, others) = rest.split_at(rest.len().min(buf.len()));
            buf[..this.len()].copy_from_slice(this);
            rest = others;
        }
        Ok(n)
    }
}

impl RawFile for ListedFile {
    fn write_at(&self, bufs: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let most = self.1.answer(Call::Write(at, bytes.len()))?;
        self.0.write_at(&[IoSlice::new(&bytes[..most.min(bytes.len())])], at)
    }

    fn read_at(&self, bufs: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.read(bufs, at, Call::Read)
    }

    fn read_cached(&self, bufs: &mut [IoSliceMut<'_>], at: u64) -> io::Result<usize> {
        self.read(bufs, at, Call::Cached)
    }

    fn punch(&self, at: u64, len: u64) -> io::Result<()> {
        self.1.answer(Call::Punch(at, len)).map(drop)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.answer(Call::SetLen(len)).map(drop)
    }

    fn size_limit(&self) -> Option<u64> {
        self.1.limit
    }
}

fn geometry() -> Geometry {
    Geometry::new(BLOCK)
}

fn file_with(limit: Option<u64>) -> (SpillFile, Arc<Listed>) {
    let listed = Arc::new(Listed { limit, ..Listed::default() });
    let place = Place { dir: Some("/listed".into()), allow_memory_backed: false };
    (SpillFile::create(&Disk(listed.clone()), &place, geometry(), None, 0).unwrap(), listed)
}

fn file() -> (SpillFile, Arc<Listed>) {
    file_with(None)
}

/// One whose slots are encrypted.
fn sealed_file() -> (SpillFile, Arc<Listed>, Arc<Cipher>) {
    let (listed, cipher) = (Arc::new(Listed::default()), Arc::new(Cipher::new().unwrap()));
    let place = Place { dir: Some("/listed".into()), allow_memory_backed: false };
    let file = SpillFile::create(&Disk(listed.clone()), &place, geometry(), Some(cipher.clone()), 0).unwrap();
    (file, listed, cipher)
}

fn stream() -> Stream {
    Stream { id: 7, codec: Codec::new(true) }
}

fn byte(slot: u64) -> u8 {
    slot as u8 ^ 0x5a
}

/// Full slots' blocks; each is at its own place in the stream.
fn blocks(run: SlotRun) -> Vec<(u64, Arc<Block>)> {
    (run.first..run.end())
        .map(|slot| {
            let mut block = Block::allocate(BLOCK, Reuse::Newest);
            block.append(&[byte(slot); BLOCK]);
            (slot * BLOCK as u64, Arc::new(block))
        })
        .collect()
}

fn write(file: &SpillFile, run: SlotRun) -> Progress<io::Error> {
    file.write(Part { stream: stream(), run, blocks: &blocks(run) })
}

fn wanted(run: SlotRun, behind: u64) -> Wanted {
    Wanted { stream: stream(), index: run.first * BLOCK as u64, run, behind }
}

/// Reads them, and looks whether they are right.
fn read(file: &SpillFile, wanted: Wanted, ahead: &mut TrailersAhead, cached: bool) -> Option<Progress<ReadFault>> {
    let mut bytes = vec![0; wanted.run.count as usize * BLOCK];
    let mut slots: Vec<_> = bytes.chunks_mut(BLOCK).collect();
    let progress =
        if cached { file.read_cached(wanted, ahead, &mut slots)? } else { file.read(wanted, ahead, &mut slots) };
    for (slot, bytes) in (wanted.run.first..).zip(bytes.chunks(BLOCK)).take(progress.done) {
        assert!(bytes.iter().all(|&found| found == byte(slot)), "slot {slot}");
    }
    Some(progress)
}

fn all_done<E: std::fmt::Debug>(progress: &Progress<E>, count: usize) {
    assert!(progress.done == count && progress.fault.is_none(), "{progress:?}");
}

fn lengths(calls: &[Call]) -> Vec<u64> {
    let set = calls.iter().filter_map(|call| if let Call::SetLen(len) = call { Some(*len) } else { None });
    set.collect()
}

#[test]
fn c06_the_length_runs_ahead_of_what_is_written() {
    let (file, listed) = file();
    all_done(&write(&file, SlotRun::one(0)), 1);
    let ahead = geometry().file_len(1) + GROW;
    assert_eq!(lengths(&listed.calls()), [ahead]);
    // As long as it is long enough, nobody asks.
    let within = geometry().slots_in_file(ahead) - 1;
    all_done(&write(&file, SlotRun::one(within)), 1);
    assert_eq!(lengths(&listed.calls()), []);
    all_done(&write(&file, SlotRun::one(within + 1)), 1);
    assert_eq!(lengths(&listed.calls()), [geometry().file_len(within + 2) + GROW]);
}

#[test]
fn c06_a_length_that_is_just_reached_is_not_asked_for_again() {
    let limit = geometry().file_len(3);
    let (file, listed) = file_with(Some(limit));
    assert_eq!(file.slots(), 3);
    all_done(&write(&file, SlotRun::one(0)), 1);
    assert_eq!(lengths(&listed.calls()), [limit], "never beyond what the process may write");
    all_done(&write(&file, SlotRun::one(2)), 1);
    assert_eq!(lengths(&listed.calls()), []);
}

#[test]
fn c08_where_the_file_system_has_a_limit_the_length_is_what_is_needed() {
    let (file, listed) = file();
    let end = geometry().file_len(2);
    listed.then(&[Fails(FileTooLarge)]);
    all_done(&write(&file, SlotRun::new(0, 2)), 2);
    assert_eq!(lengths(&listed.calls()), [end + GROW, end]);
    // It is as long as it was made, not as long as it was asked to be.
    listed.then(&[Fails(FileTooLarge), Fails(FileTooLarge)]);
    let progress = write(&file, SlotRun::one(2));
    assert_eq!((progress.done, progress.fault.map(|fault| fault.kind())), (0, Some(FileTooLarge)));
    assert_eq!(lengths(&listed.calls()), [geometry().file_len(3) + GROW, geometry().file_len(3)]);
}

#[test]
fn c08_a_call_that_was_interrupted_is_made_again() {
    let (file, listed) = file();
    // The length; the payload; the trailer.
    listed.then(&[Done, Fails(Interrupted), Done, Fails(Interrupted)]);
    all_done(&write(&file, SlotRun::one(0)), 1);
    let mut ahead = TrailersAhead::default();
    listed.then(&[Fails(Interrupted), Done, Fails(Interrupted)]);
    all_done(&read(&file, wanted(SlotRun::one(0), 0), &mut ahead, false).unwrap(), 1);
    listed.calls();
    listed.then(&[Fails(Interrupted)]);
    assert_eq!(file.punch(&[(0, 4096), (8192, 4096)]), Punched::Gone);
    let punched = [Call::Punch(0, 4096), Call::Punch(0, 4096), Call::Punch(8192, 4096)];
    assert_eq!(listed.calls(), punched);
}

#[test]
fn c08_what_a_short_call_left_is_done_behind_it() {
    let (file, listed) = file();
    let (two, some) = (SlotRun::new(0, 2), BLOCK + 100);
    // The length; the payloads; the trailers.
    listed.then(&[Done, Short(some), Short(7), Done, Short(TRAILER + 1), Done]);
    all_done(&write(&file, two), 2);
    listed.then(&[Short(TRAILER + 1), Done, Short(some), Short(7), Done]);
    all_done(&read(&file, wanted(two, 0), &mut TrailersAhead::default(), false).unwrap(), 2);
    all_done(&read(&file, wanted(two, 0), &mut TrailersAhead::default(), false).unwrap(), 2);
}

#[test]
fn c08_a_write_that_takes_nothing_is_an_error_and_no_loop() {
    let (file, listed) = file();
    listed.then(&[Done, Nothing]);
    let progress = write(&file, SlotRun::one(0));
    assert_eq!((progress.done, progress.fault.map(|fault| fault.kind())), (0, Some(WriteZero)));
}

#[test]
fn c08_a_block_without_its_trailer_is_not_written() {
    let (file, listed) = file();
    // The length and the payloads go well.
    listed.then(&[Done, Done, Fails(Other)]);
    let progress = write(&file, SlotRun::new(0, 3));
    assert_eq!((progress.done, progress.fault.map(|fault| fault.kind())), (0, Some(Other)));
}

#[test]
fn c08_what_was_written_before_a_fault_behind_a_page_of_trailers_counts() {
    let (file, listed) = file();
    // The length, two payloads with their trailers, and then those that lie behind the page's end.
    listed.then(&[Done, Done, Done, Fails(Other)]);
    let progress = write(&file, SlotRun::new(GROUP - 2, 5));
    assert_eq!((progress.done, progress.fault.map(|fault| fault.kind())), (2, Some(Other)));
}

#[test]
fn c08_what_is_written_together_is_counted_by_parts_up_to_the_fault() {
    let runs = [SlotRun::new(0, 2), SlotRun::one(2), SlotRun::new(5, 2)];
    let blocks: Vec<_> = runs.iter().map(|&run| blocks(run)).collect();
    let parts: Vec<_> = runs.iter().zip(&blocks).map(|(&run, blocks)| Part { stream: stream(), run, blocks }).collect();
    // The length; the first two in one call, with their trailers; then the last one.
    for (answers, done) in [(&[Done; 5][..], 3), (&[Done, Done, Done, Fails(Other)], 2), (&[Done, Fails(Other)], 0)] {
        let (file, listed) = file();
        listed.then(answers);
        assert_eq!(file.write_together(&parts), done);
        let first = Call::Write(geometry().payload(0), 3 * BLOCK);
        assert_eq!(listed.calls()[1], first, "those that lie together are one call");
    }
}

#[test]
fn c08_a_file_that_ends_early_is_an_error_of_the_read() {
    let (file, listed) = file();
    all_done(&write(&file, SlotRun::new(0, 2)), 2);
    // In the trailers: at once, or behind the first one. In the payloads.
    for (answers, done) in [(&[Nothing][..], 0), (&[Short(TRAILER), Nothing], 1), (&[Done, Nothing], 0)] {
        listed.then(answers);
        let progress = read(&file, wanted(SlotRun::new(0, 2), 0), &mut TrailersAhead::default(), false).unwrap();
        let Some(ReadFault::Io(fault)) = progress.fault else { panic!("{progress:?}") };
        assert_eq!((progress.done, fault.kind()), (done, UnexpectedEof));
    }
}

#[test]
fn c06_what_cannot_be_given_back_now_is_told_from_what_never_can() {
    let (file, listed) = file();
    for (answer, said) in [
        (Fails(Unsupported), Punched::Never),
        (Fails(InvalidInput), Punched::Never),
        (Fails(Other), Punched::NotNow),
        (Done, Punched::Gone),
    ] {
        listed.then(&[answer]);
        assert_eq!(file.punch(&[(0, 4096)]), said, "{answer:?}");
    }
}

#[test]
fn c11_where_the_page_cache_cannot_be_asked_it_is_asked_once() {
    let (file, listed) = file();
    let mut ahead = TrailersAhead::default();
    all_done(&write(&file, SlotRun::one(0)), 1);
    let one = wanted(SlotRun::one(0), 0);
    // It has it not at hand: it may the next time.
    listed.then(&[Fails(WouldBlock)]);
    assert!(read(&file, one, &mut ahead, true).is_none());
    all_done(&read(&file, one, &mut ahead, true).unwrap(), 1);
    // An error of the disk is told, and not taken for either.
    listed.then(&[Fails(Other)]);
    let progress = read(&file, one, &mut ahead, true).unwrap();
    assert!(matches!(progress.fault, Some(ReadFault::Io(fault)) if fault.kind() == Other));
    all_done(&read(&file, one, &mut TrailersAhead::default(), true).unwrap(), 1);
    listed.then(&[Fails(Unsupported)]);
    assert!(read(&file, one, &mut TrailersAhead::default(), true).is_none());
    listed.calls();
    assert!(read(&file, one, &mut ahead, true).is_none());
    assert_eq!(listed.calls(), []);
}

/// The trailers that are read, each time from which slot on and how many, where slots are read one by one from `first` on.
fn trailers_read(first: u64, count: u64) -> Vec<(u64, usize)> {
    let (file, listed) = file();
    all_done(&write(&file, SlotRun::new(first, count)), count as usize);
    let mut ahead = TrailersAhead::default();
    listed.calls();
    for slot in first..first + count {
        let behind = first + count - slot - 1;
        all_done(&read(&file, wanted(SlotRun::one(slot), behind), &mut ahead, false).unwrap(), 1);
    }
    let begins = geometry().trailer(0);
    let trailers = listed.calls().into_iter().filter_map(|call| match call {
        Call::Read(at, len) if at < geometry().payload(0) => Some(((at - begins) / TRAILER as u64, len / TRAILER)),
        _ => None,
    });
    trailers.collect()
}

#[test]
fn c12_trailers_are_read_a_few_ahead_and_no_more_than_there_are() {
    let most = TRAILERS_AHEAD as u64;
    assert_eq!(trailers_read(0, 40), [(0, TRAILERS_AHEAD), (most, TRAILERS_AHEAD), (2 * most, 8)]);
    assert_eq!(trailers_read(5, 3), [(5, 3)], "what lies behind is another's");
    // A page of them ends here, and the next one's payloads are another piece.
    assert_eq!(trailers_read(GROUP - 3, 8), [(GROUP - 3, 3), (GROUP, 5)]);
}

#[test]
fn c14_trailers_that_were_read_ahead_are_not_kept_when_the_disk_is_drained() {
    let (file, _) = file();
    all_done(&write(&file, SlotRun::new(0, 4)), 4);
    let mut ahead = TrailersAhead::default();
    all_done(&read(&file, wanted(SlotRun::new(0, 2), 2), &mut ahead, false).unwrap(), 2);
    assert_eq!(ahead.trailers.len(), 4);
    all_done(&read(&file, wanted(SlotRun::new(2, 2), 0), &mut ahead, false).unwrap(), 2);
    assert!(ahead.trailers.capacity() == 0, "a drained stream holds nothing");
}

/// What the writer has sealed is written where it lies, and with it the rest: as many blocks in one call as four are among them that
/// are still to be sealed.
#[test]
fn c10_what_is_sealed_already_is_written_as_it_is_and_the_rest_is_sealed_for_it() {
    let run = SlotRun::new(0, 12);
    let sealed_ones = [1, 2, 3, 4, 5, 11];
    // By the writes that succeed: how many blocks are on disk.
    let calls = [(Some(0), 0), (Some(1), 9), (None, 12)];
    for (fails_at, done) in calls {
        let (file, listed, cipher) = sealed_file();
        let mut blocks = blocks(run);
        for at in sealed_ones {
            let (start, block) = &mut blocks[at];
            let mut sealed = Block::allocate(BLOCK, Reuse::Newest);
            sealed.seal_from(block.filled(), |src, into| cipher.seal(7, *start, src, into)).unwrap();
            *block = Arc::new(sealed);
        }
        listed.then(&vec![Done; 1 + fails_at.unwrap_or(0)]);
        if fails_at.is_some() {
            listed.answers.lock().unwrap().push_back(Fails(Other));
        }
        let progress = file.write(Part { stream: stream(), run, blocks: &blocks });
        assert_eq!((progress.done, progress.fault.is_none()), (done, fails_at.is_none()), "{fails_at:?}");
        let written: Vec<_> = listed
            .calls()
            .into_iter()
            .filter_map(|call| match call {
                Call::Write(at, len) if at >= geometry().payload(0) => Some(len / BLOCK),
                _ => None,
            })
            .collect();
        let expected = [9, 3];
        assert_eq!(written, expected[..fails_at.map_or(2, |at| at + 1)]);
        let read_back = read(&file, wanted(SlotRun::new(0, done as u64), 0), &mut TrailersAhead::default(), false);
        all_done(&read_back.unwrap(), done);
    }
}

#[test]
fn c14_trailers_of_a_slot_that_was_freed_and_is_the_streams_again_are_read_anew() {
    let (file, _) = file();
    all_done(&write(&file, SlotRun::new(0, 4)), 4);
    let mut ahead = TrailersAhead::default();
    all_done(&read(&file, wanted(SlotRun::one(0), 3), &mut ahead, false).unwrap(), 1);
    // The slot lies within what was read ahead; what is in it now is from further on in the stream.
    let mut block = Block::allocate(BLOCK, Reuse::Newest);
    block.append(&[byte(1); BLOCK]);
    let index = 9 * BLOCK as u64;
    all_done(&file.write(Part { stream: stream(), run: SlotRun::one(1), blocks: &[(index, Arc::new(block))] }), 1);
    let again = Wanted { index, ..wanted(SlotRun::one(1), 1) };
    all_done(&read(&file, again, &mut ahead, false).unwrap(), 1);
}

#[test]
fn c13_without_a_directory_memory_will_do_where_that_is_allowed() {
    let tmpfs = Scripted { memory_backed: Some("tmpfs"), ..Scripted::default() };
    let create =
        |allow_memory_backed| SpillFile::create(&tmpfs, &Place { dir: None, allow_memory_backed }, geometry(), None, 0);
    assert_eq!(create(true).unwrap().dir(), std::env::temp_dir());
    let error = create(false).unwrap_err();
    assert!(matches!(error, SpillError::NoDiskBackedDir { .. }), "{error:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn c06_what_a_disk_has_is_told_in_bytes() {
    let dir = std::env::temp_dir();
    let (free, total) = System.free_space(&dir).unwrap();
    // Another's words for it.
    let df = std::process::Command::new("df").args(["-B1", "--output=avail,size"]).arg(&dir).output().unwrap();
    let text = String::from_utf8(df.stdout).unwrap();
    let figures: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert_eq!(total, figures[1], "{text}");
    // Others write and free meanwhile; a block more or less is not what this is about.
    assert!(free.max(figures[0]) / 2 <= free.min(figures[0]) && free <= total, "{free}: {text}");
}

/// xfs, asked as it runs full, has said that -2 blocks are free: an overflow on the I/O thread.
#[cfg(target_os = "linux")]
#[test]
fn c08_a_disk_with_less_than_nothing_free_is_full() {
    use super::sys::linux::bytes;
    assert_eq!(bytes(0_u64.wrapping_sub(2), 4096), 0);
    assert_eq!(bytes(3, 4096), 12_288);
    assert_eq!(bytes(u64::MAX / 4, 4096), u64::MAX);
}
