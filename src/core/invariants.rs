//! What must hold whenever the lock is free. Never changes anything.

#[cfg(any(test, fuzzing))]
use super::Front;
use super::{
    Core, Tail,
    ledger::{Entry, Place},
};

impl Core {
    /// Whether one who is parked has missed his wake-up. For the model: nobody waits for what is there.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn missed_wake_up(&self) -> Option<&'static str> {
        if self.parked.reader && !matches!(self.look(), Front::Wait) {
            return Some("the reader is parked and could go on");
        }
        let resumes = !self.grace.is_held() || self.disk.spilling || self.at_most_half_full();
        let could_write = self.ends.check_write().is_err()
            || (resumes && self.item.is_empty() && (self.has_room() || self.must_refuse()));
        if self.parked.writer && could_write {
            return Some("the writer is parked and could go on");
        }
        let waits = self.ends.writer_is_open() && (self.parked.writer || !self.item.is_empty()) && !self.discarded
            // The lender has them in its queue.
            && !self.waits_on_lender();
        if waits && !self.disk.spilling && self.deadline().is_none() {
            return Some("the writer is held and nobody will end it");
        }
        if waits
            && self.disk.spilling
            && self.disk_takes_more()
            && self.disk.writing == 0
            && self.wants_write().is_none()
            && !matches!(self.ledger.front(), Some(Entry { place: Place::Reading(_) | Place::Direct(_), .. }))
        {
            return Some("the writer waits and nothing is on its way to disk");
        }
        None
    }

    /// Whether the writer waits for room. For the model.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn writer_waits(&self) -> bool {
        self.parked.writer && self.ends.check_write().is_ok()
    }

    /// What must hold whenever the lock is free. Run after each mutation in debug builds.
    pub(super) fn invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.memory.invariants();
        assert!(self.cursor.read <= self.cursor.written);
        let mut at = None;
        let (mut on_disk, mut slots) = (0, 0);
        for entry in self.ledger.iter() {
            assert!(entry.len > 0);
            assert!(at.is_none_or(|at| at == entry.start), "a gap before {entry:?}");
            at = Some(entry.end());
            on_disk += entry.on_disk();
            slots += match &entry.place {
                Place::Disk(run) | Place::Reading(run) | Place::Direct(run) => {
                    let block = self.limits.block as u64;
                    assert!(run.count > 0 && entry.len <= run.count * block && entry.len > (run.count - 1) * block);
                    run.count
                }
                Place::Ahead { .. } | Place::Writing { .. } => 1,
                Place::Memory(_) | Place::Bad(_) => 0,
            };
            if let Some(block) = entry.block() {
                assert_eq!(block.len() as u64, entry.len);
            }
        }
        assert_eq!(on_disk, self.disk.bytes);
        assert!(slots <= self.disk.slots, "{slots} slots in the ledger, {} granted", self.disk.slots);
        if let Some(front) = self.ledger.front() {
            assert!(front.start <= self.cursor.read && self.cursor.read < front.end());
        }
        if self.discarded {
            assert_eq!(self.ledger.len(), 0);
            return;
        }
        let (start, len) = match &self.tail {
            Tail::None => (at.unwrap_or(self.cursor.written - self.item.len() as u64), 0),
            Tail::Filling(fill) => (fill.start, fill.block.len()),
            Tail::Out { start, accepted } => (*start, *accepted),
        };
        assert!(at.is_none_or(|at| at == start));
        assert_eq!(start + (len + self.item.len()) as u64, self.cursor.written);
        // The reader always gets on: there is memory for the disk's next block, or it is on its way.
        if matches!(self.ledger.front(), Some(Entry { place: Place::Disk(_), .. })) && self.disk.writing == 0 {
            assert!(self.wants_read().is_some(), "no memory for the reader: {self:?}");
        }
    }
}
