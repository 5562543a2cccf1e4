//! Who waits for slots, in order, and what whoever asks for some gets.
//! Never tells anyone that it is his turn, and never touches the file.

use std::collections::VecDeque;

use super::slots::SlotMap;
use crate::slot::SlotRun;

/// The first one's turn ends when it has got slots, or wants none.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    tickets: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    /// The buffer's number.
    id: u64,
    /// Another each time that it asks in vain: it may have asked again by the time it is taken out for having wanted none.
    ticket: u64,
    who: T,
}

/// What comes of asking for slots.
#[derive(Debug)]
pub(crate) enum Answer {
    Slots(SlotRun),
    /// The limit is reached, or others come first.
    Full,
    /// What is free is being given back to the file system.
    Busy,
    /// None may be newly occupied before the file system has been asked for its free space.
    AskSpace,
}

impl<T: Clone> Queue<T> {
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::new(), tickets: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// For the model.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.waiting.iter().any(|waiting| waiting.id == id)
    }

    #[cfg(test)]
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.waiting.iter().map(|waiting| waiting.id).collect()
    }

    /// Up to `want` adjacent slots; at most `spare` of them newly occupied, which are counted off it.
    pub(crate) fn ask(&self, id: u64, slots: &mut SlotMap, want: u64, spare: &mut u64) -> Answer {
        if self.waiting.front().is_some_and(|first| first.id != id) {
            return Answer::Full;
        }
        if let Some(run) = slots.grant_warm(want) {
            return Answer::Slots(run);
        }
        if slots.has_room() {
            if *spare == 0 {
                return Answer::AskSpace;
            }
            if let Some(run) = slots.grant(want.min(*spare)) {
                *spare -= run.count;
                return Answer::Slots(run);
            }
        }
        if slots.is_punching() { Answer::Busy } else { Answer::Full }
    }

    /// Who was told [`Answer::Full`] waits for his turn.
    pub(crate) fn wait(&mut self, id: u64, who: &T) {
        self.tickets += 1;
        let ticket = self.tickets;
        match self.waiting.iter_mut().find(|waiting| waiting.id == id) {
            Some(waiting) => waiting.ticket = ticket,
            None => self.waiting.push_back(Waiting { id, ticket, who: who.clone() }),
        }
    }

    /// Whom to tell that there are slots, and the ticket to [`skip`](Self::skip) if he wants none.
    pub(crate) fn next(&self, slots: &SlotMap) -> Option<(u64, T)> {
        let first = self.waiting.front().filter(|_| slots.has_room())?;
        Some((first.ticket, first.who.clone()))
    }

    /// The first one was told, and wanted none; unless he has asked again since.
    pub(crate) fn skip(&mut self, ticket: u64) -> Option<T> {
        let still = self.waiting.front().is_some_and(|first| first.ticket == ticket);
        if still { self.waiting.pop_front().map(|first| first.who) } else { None }
    }

    /// It has got slots, wants none, or is gone: then it is the next one's turn.
    pub(crate) fn leave(&mut self, id: u64) -> Option<T> {
        let at = self.waiting.iter().position(|waiting| waiting.id == id)?;
        self.waiting.remove(at).map(|gone| gone.who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::Geometry;

    fn map(slots: u64) -> SlotMap {
        SlotMap::new(Geometry::new(4096), slots)
    }

    /// A disk that was full just when the space that had been asked for was used up was granted as a run of no slots: its
    /// buffer wrote nothing, over and over, and one that fails rather than waits never failed.
    #[test]
    fn c08_a_full_disk_is_full_whatever_space_there_is() {
        let (queue, mut slots, mut spare) = (Queue::<()>::new(), map(4), 4);
        assert!(matches!(queue.ask(1, &mut slots, 16, &mut spare), Answer::Slots(run) if run.count == 4));
        assert_eq!(spare, 0);
        assert!(matches!(queue.ask(1, &mut slots, 16, &mut spare), Answer::Full));
        slots.free(SlotRun::one(0));
        let punch = slots.next_punch(0, 1, 1).unwrap();
        assert!(matches!(queue.ask(1, &mut slots, 16, &mut spare), Answer::Busy));
        slots.punched(punch, true);
        assert!(matches!(queue.ask(1, &mut slots, 16, &mut spare), Answer::AskSpace));
    }

    /// Whoever wanted no slots when told of them, but asked again before being taken out of the queue for that, was taken out
    /// all the same: it waited, and nobody knew.
    #[test]
    fn c08_one_that_asks_again_is_not_taken_out() {
        let (mut queue, slots) = (Queue::new(), map(4));
        queue.wait(1, &"one");
        queue.wait(2, &"two");
        let (ticket, first) = queue.next(&slots).unwrap();
        assert_eq!(first, "one");
        queue.wait(1, &"one");
        assert_eq!(queue.skip(ticket), None);
        let (ticket, first) = queue.next(&slots).unwrap();
        assert_eq!(first, "one", "it keeps its place");
        assert_eq!(queue.skip(ticket), Some("one"));
        assert_eq!(queue.leave(2), Some("two"));
        assert!(queue.is_empty());
    }
}
