//! Who waits for slots, in order, and what whoever asks for some gets.
//! Never tells anyone that it is his turn, and never touches the file.

use std::collections::VecDeque;

use super::slots::SlotMap;
use crate::slot::SlotRun;

/// Each under its buffer's number. The first one's turn ends when it has got slots, or wants none.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    waiting: VecDeque<(u64, T)>,
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
        Self { waiting: VecDeque::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Up to `want` adjacent slots; at most `spare` of them newly occupied, which are counted off it.
    pub(crate) fn ask(&self, id: u64, slots: &mut SlotMap, want: u64, spare: &mut u64) -> Answer {
        if self.waiting.front().is_some_and(|(first, _)| *first != id) {
            return Answer::Full;
        }
        if let Some(run) = slots.grant_warm(want) {
            return Answer::Slots(run);
        }
        if *spare == 0 && slots.has_room() {
            return Answer::AskSpace;
        }
        match slots.grant(want.min(*spare)) {
            Some(run) => {
                *spare -= run.count;
                Answer::Slots(run)
            }
            None if slots.is_punching() => Answer::Busy,
            None => Answer::Full,
        }
    }

    /// Who was told [`Answer::Full`] waits for his turn.
    pub(crate) fn wait(&mut self, id: u64, who: &T) {
        if self.waiting.iter().all(|(queued, _)| *queued != id) {
            self.waiting.push_back((id, who.clone()));
        }
    }

    /// Whom to tell that there are slots.
    pub(crate) fn next(&self, slots: &SlotMap) -> Option<(u64, T)> {
        self.waiting.front().filter(|_| slots.has_room()).cloned()
    }

    /// The first one was told, and wants none.
    pub(crate) fn skip(&mut self, id: u64) -> Option<(u64, T)> {
        let still = self.waiting.front().is_some_and(|(first, _)| *first == id);
        if still { self.waiting.pop_front() } else { None }
    }

    /// It has got slots, wants none, or is gone: then it is the next one's turn.
    pub(crate) fn leave(&mut self, id: u64) -> Option<(u64, T)> {
        let at = self.waiting.iter().position(|(queued, _)| *queued == id)?;
        self.waiting.remove(at)
    }
}
