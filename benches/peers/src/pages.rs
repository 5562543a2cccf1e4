//! Memory that begins on a page where the kernel copies from or to it, for every contender alike.
//!
//! From or to memory that lies 16 bytes off a page, where malloc puts large blocks, copying to the page cache takes twice as
//! long on some processors. Whom that hits is chance, and must not decide a comparison: here, while it is
//! switched on, whatever a contender allocates in bulk begins on a page. It is off where memory is measured.

use std::{
    alloc::{GlobalAlloc, Layout},
    fs::File,
    io::Write,
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use libc::{c_void, calloc, free, malloc, posix_memalign, realloc};

const PAGE: usize = 4 << 10;

/// What is smaller is no buffer of bulk data.
const BULK: usize = 16 << 10;

/// What malloc aligns to by itself.
const USUAL: usize = 16;

static SWITCHED_ON: AtomicBool = AtomicBool::new(false);

/// From now on, bulk memory begins on a page, or where malloc puts it.
pub(crate) fn align_bulk(on: bool) {
    SWITCHED_ON.store(on, Ordering::Relaxed);
}

/// Touches so many bytes of the page cache and gives them back, so that who comes next does not pay for pages that the
/// machine has not used yet: on a virtual one they cost ten times as much.
pub(crate) fn warm(bytes: u64) {
    let mut file: File = tempfile::tempfile().expect("a temp file");
    let zeros = vec![0; 1 << 20];
    for _ in 0..bytes.div_ceil(zeros.len() as u64) {
        file.write_all(&zeros).expect("room in the temp directory");
    }
}

/// The C library's allocator: `free` takes what either of its calls gave, so the switch may be thrown at any time.
pub(crate) struct Allocator;

fn alignment(layout: Layout) -> usize {
    if layout.size() >= BULK && SWITCHED_ON.load(Ordering::Relaxed) { layout.align().max(PAGE) } else { layout.align() }
}

// SAFETY: memory comes from `malloc`, `calloc`, `realloc` and `posix_memalign`, is of the size that was asked for, aligned to
// what was asked for or more (`USUAL` is what malloc guarantees here), and null where there is none.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let align = alignment(layout);
        if align <= USUAL {
            // SAFETY: any size may be asked for.
            return unsafe { malloc(layout.size()) }.cast();
        }
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: `align` is a power of two and, being more than `USUAL`, a multiple of a pointer's size.
        let error = unsafe { posix_memalign(&raw mut memory, align, layout.size()) };
        if error == 0 { memory.cast() } else { ptr::null_mut() }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if alignment(layout) <= USUAL {
            // SAFETY: any size may be asked for.
            return unsafe { calloc(1, layout.size()) }.cast();
        }
        // SAFETY: the layout is the caller's.
        let memory = unsafe { self.alloc(layout) };
        if !memory.is_null() {
            // SAFETY: it is of this size.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: it came from one of the calls above.
        unsafe { free(memory.cast()) };
    }

    unsafe fn realloc(&self, memory: *mut u8, old: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller vouches for the size.
        let new = unsafe { Layout::from_size_align_unchecked(size, old.align()) };
        if alignment(new) <= USUAL {
            // SAFETY: it came from one of the calls above, and needs no more alignment than `realloc` gives.
            return unsafe { realloc(memory.cast(), size) }.cast();
        }
        // SAFETY: the layout is not empty, since the caller may not ask for that.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both are that long, and do not overlap.
            unsafe { moved.copy_from_nonoverlapping(memory, old.size().min(size)) };
            // SAFETY: as in `dealloc`.
            unsafe { self.dealloc(memory, old) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_memory_begins_on_a_page_while_switched_on() {
        let before = vec![1_u8; BULK];
        align_bulk(true);
        let mut grown = before;
        for size in [BULK + 1, 3 * BULK, 100 * BULK] {
            grown.resize(size, 1);
            grown.shrink_to_fit();
            assert_eq!(grown.as_ptr().align_offset(PAGE), 0);
            let zeroed = vec![0_u8; size];
            assert_eq!(zeroed.as_ptr().align_offset(PAGE), 0);
        }
        align_bulk(false);
        grown.resize(200 * BULK, 1);
        assert!(grown.iter().all(|byte| *byte == 1));
    }
}
