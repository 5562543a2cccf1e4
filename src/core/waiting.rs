//! Who waits, for how long, and who goes on: what follows from what has happened.
//! Never forgets one who is parked.

use super::{Core, Quiet, Wakes};
use crate::{lender::Purpose, options::OnFull};

/// How often a writer that would fail looks whether others have filled the disk, in nanoseconds.
const LOOK: u64 = 5_000_000;

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
        self.look_at = None;
        if self.disk.retry_at().is_some_and(|at| at <= now) {
            self.unblock();
        }
    }

    /// The lender has memory again.
    pub(crate) fn memory_came(&mut self) {
        self.notes.writable = true;
    }

    /// Nobody can tell the time: what would wait for it happens now.
    pub(crate) fn no_clock(&mut self) {
        self.disk.spilling |= self.grace.is_held();
        self.disk.never_retry();
        self.notes.writable = true;
    }

    /// When to call [`tick`](Self::tick), if nothing happens until then.
    ///
    /// It may be earlier than needed, so that it does not move forward as the reader is woken and polled:
    /// one call in a millisecond is enough for a buffer, however often it is full.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let grace = if self.disk.spilling { None } else { self.grace.next_look() };
        [grace, self.disk.retry_at(), self.look_at].into_iter().flatten().min()
    }

    /// Whether [`settle`](Self::settle) wants to know the time.
    #[inline]
    pub(crate) fn needs_time(&self) -> bool {
        let notes = &self.notes;
        let held = self.grace.is_held();
        let waits = self.parked.writer || !self.item.is_empty();
        (waits && !held && !self.disk.spilling)
            || self.looks_at_the_disk()
            || (held && (notes.reader_polled || notes.reader_yields || notes.visible || notes.writable || notes.ticked))
    }

    /// Does what [`settle`](Self::settle) does where nobody waits and nothing is on disk or given up: that is, hardly anything.
    /// Then says what it was.
    #[inline]
    pub(crate) fn settle_if_quiet(&mut self) -> Option<Quiet> {
        if !self.is_quiet() {
            return None;
        }
        let notes = &mut self.notes;
        if notes.reader_yields || notes.ticked {
            return None;
        }
        if notes.reader_polled {
            self.grace.reader_polled_while_free();
        }
        let notes = std::mem::take(&mut self.notes);
        self.invariants();
        Some(Quiet { gave: notes.writable, closed: notes.reader_gone, discarded: self.discarded })
    }

    /// Whether nobody waits and nothing is on disk or given up.
    #[inline]
    pub(super) fn is_quiet(&self) -> bool {
        let waits = self.parked.reader || self.parked.writer || !self.item.is_empty() || self.grace.is_held();
        let at_the_disk = self.disk.spilling || self.disk.slots > 0 || self.squeezed || self.has_freed();
        let to_drop = self.trash.is_some() || self.given_up.is_some();
        !(waits || at_the_disk || to_drop || self.look_at.is_some())
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
        // During the grace the writer is let on when half of the window is free, not at each block: a reader
        // that keeps up gets there in no time, and both go their way in long strides. One that does not,
        // at five bytes a nanosecond, must not set the pace: then any room will do.
        let stride = self.limits.memory as u64 / 10;
        let lets_on =
            !self.grace.is_held() || self.disk.spilling || self.at_most_half_full() || self.grace.held_for(stride, now);
        let resumes = (notes.writable || notes.ticked || newly_held) && lets_on;
        if resumes {
            self.absorb();
            self.notes.writable = false;
        }
        let goes_on = match self.ends.check_write() {
            Ok(()) => resumes && (self.has_room() || self.must_refuse()),
            Err(_) => notes.writable || notes.visible,
        };
        let mut writer = goes_on && std::mem::take(&mut self.parked.writer);
        let waits = !self.item.is_empty() || (self.parked.writer && self.ends.writer_is_open());
        if self.grace.is_held() && !waits {
            self.grace.release(now);
        }
        if self.is_to_be_held() {
            // What has just been absorbed took the room there was.
            self.grace.hold(now);
            self.disk.spilling = self.grace.is_over(now);
            writer |= self.must_refuse() && std::mem::take(&mut self.parked.writer);
        }
        let visible = notes.visible || (notes.writable && self.reader_waits_for_memory());
        let reader = visible && std::mem::take(&mut self.parked.reader);
        if reader || notes.reader_yields {
            self.grace.reader_woken(now);
        }
        self.look_at = self.looks_at_the_disk().then(|| self.look_at.unwrap_or(now + LOOK));
        self.invariants();
        let more = (lets_on || !self.grace.is_held()) && self.item_has_room();
        let lacks = self.lacks(lets_on);
        Wakes {
            reader,
            writer,
            closed: notes.reader_gone,
            gave: notes.writable,
            more,
            lacks,
            trash: self.trash.take(),
            given_up: self.given_up.take(),
        }
    }

    /// What is waited for that only the lender can give. It is not asked again whether it has some: it may have by now,
    /// and then whoever waits is served at once; but who is not registered is not served at all.
    fn lacks(&self, lets_on: bool) -> Option<Purpose> {
        if !self.memory.is_borrowed() {
            return None;
        }
        if self.parked.reader && (self.wants_read().is_some() || self.copy_to_open().is_some()) {
            return Some(Purpose::Read);
        }
        (lets_on && self.writer_wants_block()).then(|| self.purpose())
    }

    /// Whether room is only a matter of what others hold. That is not held against the reader: the lender asks those who stand
    /// still for theirs.
    pub(super) fn waits_on_lender(&self) -> bool {
        self.memory.is_borrowed() && self.limits.on_full == OnFull::Wait && self.writer_wants_block()
    }

    /// Whether a writer that fails rather than waits is out of patience, and waits for what others hold: it fails when the disk
    /// is full, which nobody tells it.
    fn looks_at_the_disk(&self) -> bool {
        self.limits.on_full == OnFull::Fail
            && self.disk.spilling
            && self.parked.writer
            && self.memory.is_borrowed()
            && self.ends.writer_is_open()
    }

    /// Whether somebody waits for room, and the time for which he does does not count yet.
    pub(super) fn is_to_be_held(&self) -> bool {
        let waits = self.parked.writer || !self.item.is_empty();
        waits && !self.disk.spilling && !self.grace.is_held() && !self.item_has_room() && !self.waits_on_lender()
    }

    /// Whether the window is half empty; an item that waits to get into it does not count.
    #[inline]
    pub(super) fn at_most_half_full(&self) -> bool {
        let window = self.limits.memory - self.memory.lent();
        self.backlog().saturating_sub(self.item.len() as u64) <= window as u64 / 2
    }
}
