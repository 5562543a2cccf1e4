//! A block: a fixed piece of memory that fills up once and is then only read.
//! Never zeroes memory twice, and never knows who holds it.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use crate::{copy, slot::TRAILER};

/// Freed memory that is kept for the next block, in bytes, for the whole process. A stream that
/// keeps up takes and returns a block every few microseconds: without this each would go through the
/// allocator, and fresh pages cost ten times as much as warm ones.
const KEEP: usize = 1 << 20;

/// Where many buffers are in use more is kept, for what is given back to an allocator with an arena a thread counts several
/// times: an eighth of what they may take, and no more than this, in bytes. A pool has as much kept as it may take.
const KEEP_MOST: usize = 8 << 20;

/// The memory limits of all buffers that stand alone, in bytes.
static ALONE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of blocks that came from the allocator and were not asked for since.
static FRESH: AtomicUsize = AtomicUsize::new(0);

/// What is kept, in bytes, to be looked at without the lock.
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// Blocks smaller than this go back to the allocator.
const KEEP_FROM: usize = 16 << 10;

/// Blocks begin on a multiple of this many bytes. The kernel copies between them and pages of the page cache; from or to
/// memory that lies 16 bytes off a page, where large allocations begin as a rule, that takes twice as long on some processors.
const ALIGN: usize = 64;

static KEPT: Mutex<Kept> = Mutex::new(Kept { shelf: VecDeque::new(), bytes: 0, limit: 0 });

/// Which of the freed blocks is taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Still in this processor's cache, as a rule.
    Newest,
    /// Written to disk a moment ago, by another processor, the newest is in that one's cache: it costs half as much again to
    /// fill that than one which has left it.
    Oldest,
}

/// Memory of `capacity` bytes, of which the first `len` are filled.
pub(crate) struct Block {
    /// What lies before the block, then the block, initialised as far as it was ever filled. It is never
    /// reallocated.
    bytes: Vec<u8>,
    /// Where the block begins in it.
    start: usize,
    len: usize,
    capacity: usize,
    /// The CRC32C of what is filled, where somebody had the time to reckon it before it was asked for.
    checksum: Option<u32>,
    /// What is filled is encrypted, and this is the trailer of a slot that holds it. Boxed, for few blocks have it and all are moved.
    sealed: Option<Box<[u8; TRAILER]>>,
    /// Wiped before anybody else gets the memory, as far as it was filled.
    secret: bool,
    /// How much was filled before `len` was less again.
    dirty: usize,
}

impl Block {
    pub(crate) fn allocate(capacity: usize, reuse: Reuse) -> Self {
        let mut bytes = kept().take(capacity, reuse).unwrap_or_else(|| {
            FRESH.fetch_add(capacity, Relaxed);
            Vec::with_capacity(capacity + ALIGN - 1)
        });
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN - 1);
        if bytes.is_empty() {
            bytes.resize(start, 0);
        }
        Self { bytes, start, len: 0, capacity, checksum: None, sealed: None, secret: false, dirty: 0 }
    }

    /// The same, wiped when it is dropped.
    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Copies as much of `src` as fits and says how much that was.
    #[inline]
    pub(crate) fn append(&mut self, src: &[u8]) -> usize {
        let n = src.len().min(self.capacity - self.len);
        let end = self.start + self.len;
        let warm = self.bytes.len() - end;
        if n <= warm {
            copy::copy(&src[..n], &mut self.bytes[end..end + n]);
        } else {
            copy::copy(&src[..warm], &mut self.bytes[end..]);
            copy::append(&src[warm..n], &mut self.bytes);
        }
        self.len += n;
        self.checksum = None;
        n
    }

    /// Whether all of it was filled before, and so is initialised and has its pages.
    pub(crate) fn is_warm(&self) -> bool {
        self.bytes.len() >= self.start + self.capacity
    }

    /// Fills an empty block that [is warm](Self::is_warm), past the cache. The checksum is reckoned of `src`, which is as long and
    /// in the cache.
    pub(crate) fn stream_from(&mut self, src: &[u8], checksum: bool) {
        debug_assert!(self.len == 0 && self.is_warm());
        copy::streaming::copy(src, &mut self.bytes[self.start..self.start + src.len()]);
        self.len = src.len();
        self.checksum = checksum.then(|| crc_fast::crc32_iscsi(src));
    }

    /// Fills an empty block with what `seal` makes of `src`; it gets the memory for that. If it fails, the block stays empty.
    pub(crate) fn seal_from<E>(
        &mut self,
        src: &[u8],
        seal: impl FnOnce(&[u8], &mut [u8]) -> Result<[u8; TRAILER], E>,
    ) -> Result<(), E> {
        debug_assert_eq!(self.len, 0);
        self.receive(src.len());
        match seal(src, self.filled_mut()) {
            Ok(trailer) => self.sealed = Some(Box::new(trailer)),
            Err(error) => {
                self.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The trailer that goes with what is filled, if that is encrypted.
    #[inline]
    pub(crate) fn sealed(&self) -> Option<&[u8; TRAILER]> {
        self.sealed.as_deref()
    }

    /// Has `open` make of what is filled, with its trailer, what it was before. If it fails, neither is left.
    pub(crate) fn open<E>(&mut self, open: impl FnOnce(&mut [u8], &[u8; TRAILER]) -> Result<(), E>) -> Result<(), E> {
        let Some(trailer) = self.sealed.take() else { return Ok(()) };
        open(self.filled_mut(), &trailer)
    }

    /// Makes this what `other` is, encrypted or not.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.clear();
        self.append(other.filled());
        self.sealed.clone_from(&other.sealed);
    }

    /// Reckons the checksum now, on the core that has just filled the block.
    pub(crate) fn reckon_checksum(&mut self) {
        self.checksum = Some(crc_fast::crc32_iscsi(self.filled()));
    }

    /// The checksum of what is filled.
    pub(crate) fn checksum(&self) -> u32 {
        self.checksum.unwrap_or_else(|| crc_fast::crc32_iscsi(self.filled()))
    }

    /// The first `len` bytes, to be filled by a read; what was in the block is gone.
    pub(crate) fn receive(&mut self, len: usize) {
        assert!(len <= self.capacity, "a read of {len} bytes into a block of {}", self.capacity);
        if self.bytes.len() < self.start + len {
            self.bytes.resize(self.start + len, 0);
        }
        self.dirty = self.dirty.max(self.len);
        self.len = len;
        self.checksum = None;
        self.sealed = None;
    }

    /// What [`receive`](Self::receive) made room for.
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        self.checksum = None;
        &mut self.bytes[self.start..self.start + self.len]
    }

    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn room(&self) -> usize {
        self.capacity - self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn clear(&mut self) {
        self.dirty = self.dirty.max(self.len);
        self.len = 0;
        self.checksum = None;
        self.sealed = None;
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.dirty = self.dirty.max(self.len);
            self.len = len;
            self.checksum = None;
            self.sealed = None;
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What it holds may be anybody's secret, and is a lot.
        f.debug_struct("Block")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .field("sealed", &self.sealed.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // What is still encrypted is no secret.
        if self.secret && (self.sealed.is_none() || self.dirty > self.len) {
            let filled = &mut self.bytes[self.start..self.start + self.dirty.max(self.len)];
            filled.fill(0);
            // Somebody might look: so these zeros are not left out because the memory is freed next.
            std::hint::black_box(filled);
        }
        kept().put(std::mem::take(&mut self.bytes), self.capacity);
    }
}

/// How many bytes came from the allocator since this was last asked, by anybody: filling those takes far longer.
pub(crate) fn take_fresh() -> usize {
    if FRESH.load(Relaxed) == 0 { 0 } else { FRESH.swap(0, Relaxed) }
}

/// A buffer that stands alone may take so much, until [`left`] says that it is gone.
pub(crate) fn came(limit: usize) {
    ALONE.fetch_add(limit, Relaxed);
}

/// Ends what [`came`] began.
pub(crate) fn left(limit: usize) {
    ALONE.fetch_sub(limit, Relaxed);
    if BYTES.load(Relaxed) > KEEP {
        let mut kept = kept();
        let most = kept.most();
        let gone = kept.shrink(most);
        drop(kept);
        drop(gone);
    }
}

/// Has so much more kept, until [`keep_less`] takes it back.
pub(crate) fn keep_more(bytes: usize) {
    let mut kept = kept();
    kept.limit = kept.limit.saturating_add(bytes);
}

/// Ends what [`keep_more`] began.
pub(crate) fn keep_less(bytes: usize) {
    let mut kept = kept();
    kept.limit = kept.limit.saturating_sub(bytes);
    let most = kept.most();
    let gone = kept.shrink(most);
    drop(kept);
    drop(gone);
}

/// Gives back what is kept beyond the usual: nobody has needed it for a while.
pub(crate) fn trim() {
    let gone = kept().shrink(KEEP);
    drop(gone);
}

fn kept() -> std::sync::MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Kept {
    /// In the order in which they came.
    shelf: VecDeque<(usize, Vec<u8>)>,
    bytes: usize,
    /// What pools may take.
    limit: usize,
}

impl Kept {
    fn most(&self) -> usize {
        self.limit.saturating_add((ALONE.load(Relaxed) / 8).clamp(KEEP, KEEP_MOST))
    }

    fn take(&mut self, capacity: usize, reuse: Reuse) -> Option<Vec<u8>> {
        let mut kept = self.shelf.iter();
        let at = match reuse {
            Reuse::Newest => kept.rposition(|(of, _)| *of == capacity),
            Reuse::Oldest => kept.position(|(of, _)| *of == capacity),
        };
        let at = at?;
        // As a rule all are of one size, and this is the last.
        let (_, bytes) = if at + 1 == self.shelf.len() { self.shelf.pop_back() } else { self.shelf.remove(at) }?;
        self.bytes -= capacity;
        BYTES.store(self.bytes, Relaxed);
        Some(bytes)
    }

    /// Takes out what is kept beyond `most` bytes, to be dropped without the lock.
    fn shrink(&mut self, most: usize) -> Vec<(usize, Vec<u8>)> {
        let mut gone = Vec::new();
        while self.bytes > most
            && let Some(block) = self.shelf.pop_front()
        {
            self.bytes -= block.0;
            gone.push(block);
        }
        BYTES.store(self.bytes, Relaxed);
        gone
    }

    fn put(&mut self, bytes: Vec<u8>, capacity: usize) {
        if capacity >= KEEP_FROM && capacity.is_power_of_two() && self.bytes + capacity <= self.most() {
            self.bytes += capacity;
            BYTES.store(self.bytes, Relaxed);
            self.shelf.push_back((capacity, bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_block_shows_only_what_was_put_into_it() {
        let mut block = Block::allocate(8, Reuse::Newest);
        assert_eq!(block.append(b"abcdefghij"), 8);
        block.clear();
        assert_eq!(block.append(b"xy"), 2);
        assert_eq!(block.filled(), b"xy");
        assert_eq!(block.append(b"12345678"), 6);
        assert_eq!(block.filled(), b"xy123456");
        block.receive(3);
        block.filled_mut().copy_from_slice(b"new");
        assert_eq!(block.filled(), b"new");
    }

    #[test]
    fn a_block_is_filled_past_the_cache_where_it_was_filled_before() {
        let mut block = Block::allocate(64 << 10, Reuse::Newest);
        let src: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
        // Of this size nobody else has any.
        let fresh = Block::allocate(48 << 10, Reuse::Newest);
        assert!(!fresh.is_warm());
        block.append(&src);
        assert!(block.is_warm());
        let checksum = block.checksum();
        for reckons in [true, false] {
            block.append(b"else");
            block.clear();
            block.stream_from(&src, reckons);
            assert_eq!((block.filled(), block.room()), (&src[..], 0));
            assert_eq!(block.checksum.is_some(), reckons);
            assert_eq!(block.checksum(), checksum);
        }
    }

    #[test]
    fn a_secret_block_is_wiped_as_far_as_it_ever_was_filled() {
        const ODD: usize = 128 << 10;
        fn seal(block: &mut Block, len: usize) {
            let sealed = block.seal_from(&[7; 5000][..len], |_, into| {
                into.fill(9);
                Ok::<_, ()>([1; TRAILER])
            });
            sealed.unwrap();
        }
        // So that there is room on the shelf, whatever tests beside this one put there.
        keep_more(32 << 20);
        let left_by = |secret: bool, fill: fn(&mut Block)| {
            // Until the same memory comes back.
            for _ in 0..1000 {
                let block = Block::allocate(ODD, Reuse::Newest);
                let mut block = if secret { block.secret() } else { block };
                block.append(&[7; 5000]);
                block.clear();
                fill(&mut block);
                let place = block.bytes[block.start..].as_ptr().addr();
                drop(block);
                let mut again = Block::allocate(ODD, Reuse::Newest);
                again.receive(5000);
                if again.filled().as_ptr().addr() == place {
                    return again.filled().to_vec();
                }
            }
            panic!("the memory never came back")
        };
        let short = |block: &mut Block| {
            block.append(&[7; 10]);
        };
        assert_eq!(left_by(false, short), [7; 5000], "the test cannot see what was there");
        assert_eq!(left_by(true, short), [0; 5000]);
        // Of what is encrypted no secret is left where it has covered what was there before.
        assert_eq!(left_by(true, |block| seal(block, 5000)), [9; 5000]);
        assert_eq!(left_by(true, |block| seal(block, 4999)), [0; 5000]);
        let opened = left_by(true, |block| {
            seal(block, 5000);
            block
                .open(|bytes, _| {
                    bytes.fill(7);
                    Ok::<_, ()>(())
                })
                .unwrap();
        });
        assert_eq!(opened, [0; 5000]);
        let opened_in_part = left_by(true, |block| {
            seal(block, 5000);
            block
                .open(|bytes, _| {
                    bytes[..100].fill(7);
                    Err("it is damaged")
                })
                .unwrap_err();
        });
        assert_eq!(opened_in_part, [0; 5000]);
        keep_less(32 << 20);
    }

    #[test]
    fn what_is_sealed_is_what_was_made_of_it_until_it_is_opened() {
        let mut block = Block::allocate(8, Reuse::Newest);
        let fails = |_: &[u8], into: &mut [u8]| {
            into.fill(9);
            Err("no number is left")
        };
        block.seal_from(b"abc", fails).unwrap_err();
        assert_eq!((block.filled(), block.sealed()), (&b""[..], None));
        let add_one = |from: &[u8], into: &mut [u8]| {
            for (from, into) in from.iter().zip(into) {
                *into = from + 1;
            }
            Ok::<_, ()>([7; TRAILER])
        };
        block.seal_from(b"abc", add_one).unwrap();
        assert_eq!((block.filled(), block.sealed()), (&b"bcd"[..], Some(&[7; TRAILER])));
        let mut copy = Block::allocate(8, Reuse::Newest);
        copy.append(b"something");
        copy.copy_from(&block);
        assert_eq!((copy.filled(), copy.sealed()), (&b"bcd"[..], Some(&[7; TRAILER])));
        let take_one = |bytes: &mut [u8], trailer: &[u8; TRAILER]| {
            for byte in bytes {
                *byte -= 1;
            }
            if *trailer == [7; TRAILER] { Ok(()) } else { Err(()) }
        };
        block.open(take_one).unwrap();
        assert_eq!((block.filled(), block.sealed()), (&b"abc"[..], None));
        // Not a second time.
        block.open(take_one).unwrap();
        assert_eq!(block.filled(), b"abc");
        // Whatever is filled anew is not what was sealed.
        for anew in [Block::clear, |block: &mut Block| block.truncate(2), |block: &mut Block| block.receive(3)] {
            let mut again = Block::allocate(8, Reuse::Newest);
            again.copy_from(&copy);
            anew(&mut again);
            assert_eq!(again.sealed(), None);
        }
    }

    #[test]
    fn the_newest_or_the_oldest_of_its_size_is_taken() {
        let mut kept = Kept { shelf: VecDeque::new(), bytes: 0, limit: 0 };
        for (mark, capacity) in [(1, 32 << 10), (2, 64 << 10), (3, 64 << 10), (4, 64 << 10), (5, 32 << 10)] {
            kept.put(vec![mark], capacity);
        }
        assert_eq!(kept.take(64 << 10, Reuse::Newest), Some(vec![4]));
        assert_eq!(kept.take(64 << 10, Reuse::Oldest), Some(vec![2]));
        assert_eq!(kept.take(64 << 10, Reuse::Oldest), Some(vec![3]));
        assert_eq!(kept.take(64 << 10, Reuse::Newest), None);
        assert_eq!(kept.bytes, 64 << 10);
    }

    #[test]
    fn what_is_kept_for_reuse_is_bounded() {
        let many: Vec<_> = (0..100).map(|_| Block::allocate(64 << 10, Reuse::Oldest)).collect();
        drop(many);
        let kept = kept();
        assert!(kept.bytes <= kept.most());
        let sum: usize = kept.shelf.iter().map(|(capacity, _)| capacity).sum();
        assert_eq!(sum, kept.bytes);
    }
}
