//! Who waits, for how long, and who goes on: what follows from what has happened.
//! Never forgets one who is parked.

use super::{Core, Wakes};

impl Core {
    pub(crate) fn park_reader(&mut self) {
        self.parked.reader = true;
    }

    /// The writer waits for room; [`room`](Self::room) said that there is none.
    pub(crate) fn park_writer(&mut self) {
        self.parked.writer = true;
    }

    /// Time has passed, as [`deadline`](Self::deadline) asked.
    pub(crate) fn tick(&mut self, now: u64) {
        self.notes.ticked = true;
        if self.disk.retry_at().is_some_and(|at| at <= now) {
            self.unblock();
        }
    }

    /// Nobody can tell the time: what would wait for it happens now.
    pub(crate) fn no_clock(&mut self) {
        self.disk.spilling |= self.grace.is_held();
        self.notes.writable = true;
    }

    /// When to call [`tick`](Self::tick), if nothing happens until then.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let grace = if self.disk.spilling { None } else { self.grace.deadline() };
        [grace, self.disk.retry_at()].into_iter().flatten().min()
    }

    /// Whether [`settle`](Self::settle) wants to know the time.
    pub(crate) fn needs_time(&self) -> bool {
        let notes = &self.notes;
        let held = self.grace.is_held();
        self.is_to_be_held() || (held && (notes.reader_polled || notes.visible || notes.writable || notes.ticked))
    }

    /// What follows from all that has happened since the last time: to be called before the lock is
    /// released. `now` counts where [`needs_time`](Self::needs_time) says so.
    pub(crate) fn settle(&mut self, now: u64) -> Wakes {
        let notes = std::mem::take(&mut self.notes);
        if notes.reader_polled {
            self.grace.reader_polled(now);
        }
        let newly_held = self.is_to_be_held();
        if newly_held {
            self.grace.hold(now);
        }
        if (newly_held || notes.ticked) && self.grace.is_held() && self.grace.is_over(now) {
            self.disk.spilling = true;
        }
        // During the grace the writer is let on when half of the window is free, not at each block:
        // a reader that keeps up gets there in no time, and both go their way in long strides.
        let resumes = (notes.writable || notes.ticked || newly_held)
            && (!self.grace.is_held() || self.disk.spilling || self.at_most_half_full());
        if resumes {
            self.absorb();
            self.notes.writable = false;
        }
        let goes_on = match self.ends.check_write() {
            Ok(()) => resumes && (self.has_room() || self.must_refuse()),
            Err(_) => notes.writable || notes.visible,
        };
        let writer = goes_on && std::mem::take(&mut self.parked.writer);
        let waits = !self.item.is_empty() || (self.parked.writer && self.ends.writer_is_open());
        if self.grace.is_held() && !waits {
            self.grace.release(now);
        }
        let visible = notes.visible || (notes.writable && self.reader_waits_for_memory());
        let reader = visible && std::mem::take(&mut self.parked.reader);
        if reader {
            self.grace.reader_woken(now);
        }
        self.invariants();
        Wakes { reader, writer, closed: notes.reader_gone, trash: self.trash.take() }
    }

    /// Whether somebody waits for room, and the time for which he does does not count yet.
    pub(super) fn is_to_be_held(&self) -> bool {
        (self.parked.writer || !self.item.is_empty()) && !self.disk.spilling && !self.grace.is_held()
    }

    /// Whether the window is half empty; an item that waits to get into it does not count.
    pub(super) fn at_most_half_full(&self) -> bool {
        let window = self.limits.memory - self.memory.lent();
        self.backlog().saturating_sub(self.item.len() as u64) <= window as u64 / 2
    }
}
