//! Many buffers that share memory and disk, and what their pool does for them: who waits for memory, who
//! waits for slots and in which order, what is given back to the file system.
//!
//! Whatever another thread of the pool would do may come late here: a step of its own, between any two others.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use super::{Core, Disk, Fault, Job, Model, Op, Slots};
use crate::{
    lender::{Lender, Purpose},
    options::{Limits, OnFull},
    pool::{Answer, Budget, Punch, Queue, SlotMap},
    slot::{Geometry, SlotRun},
};

/// So often may nothing happen before it counts as a hang. The longest wait is the reader's excuse of 20 ms.
const PATIENCE: usize = 60;

/// So often time may pass to no avail before all counts as being at rest: longer than any grace or excuse takes.
const VAIN: u32 = 50;

/// What each that still can writes when the script is over, in blocks.
const MORE: usize = 6;

/// One step. Numbers are taken modulo what there is to choose from.
#[derive(Debug, Clone)]
pub(crate) enum HerdOp {
    /// One of the buffers.
    One(u8, Op),
    /// More than its window is written, and goes to disk as far as there are slots.
    Spill(u8),
    /// Its reader takes most of what there is.
    CatchUp(u8),
    /// Both halves are dropped, whatever is on its way.
    Drop(u8),
    /// A thread that tells whose turn it is gets on by a step.
    Tell(u8),
    /// One that was told, and wanted none, wants some before it is taken out of the queue.
    WantAgain,
    /// Free slots are given back to the file system: at most so many.
    Punch(u8),
    /// They have been, or it did not take them.
    Punched(bool),
    /// All threads have time to come to rest.
    Rest,
    /// So many slots may be newly occupied each time that the file system is asked.
    Space(u8),
}

/// The slots of all, as the pool keeps them.
#[derive(Debug)]
pub(super) struct Pooled {
    map: SlotMap,
    queue: Queue<u64>,
    budget: Arc<Budget>,
    spare: u64,
    space: u64,
    /// Who waits, kept a second time: nobody may be served before them.
    line: Vec<u64>,
    tellers: Vec<Teller>,
}

/// A thread that tells whose turn it is.
#[derive(Debug)]
enum Teller {
    /// It looks whose turn it is.
    Looks,
    /// The one with this number and ticket wanted none.
    Skips(u64, u64),
}

impl Pooled {
    pub(super) fn ask(&mut self, id: u64, want: u64) -> Answer {
        let answer = self.queue.ask(id, &mut self.map, want, &mut self.spare);
        match answer {
            Answer::Slots(_) => {
                assert!(self.line.first().is_none_or(|first| *first == id), "{id} is not next: {self:?}");
            }
            Answer::Full => {
                if self.map.has_room() {
                    self.budget.replenish();
                } else {
                    self.budget.exhaust(None);
                }
                self.queue.wait(id, &id);
                if !self.line.contains(&id) {
                    self.line.push(id);
                }
            }
            Answer::Busy | Answer::AskSpace => {}
        }
        answer
    }

    pub(super) fn free(&mut self, run: SlotRun) {
        self.map.free(run);
        self.budget.replenish();
        if !self.queue.is_empty() {
            self.tellers.push(Teller::Looks);
        }
    }

    pub(super) fn end_turn(&mut self, id: u64) {
        self.line.retain(|waiting| *waiting != id);
        if self.queue.leave(id).is_some() {
            self.tellers.push(Teller::Looks);
        }
    }

    pub(super) fn ask_space(&mut self) -> bool {
        self.spare = self.space;
        self.spare > 0
    }

    fn skip(&mut self, ticket: u64) {
        if let Some(id) = self.queue.skip(ticket) {
            self.line.retain(|waiting| *waiting != id);
        }
    }
}

/// What must hold of all: faults stay with whom they hit, everybody gets on, and all is given back.
#[derive(Debug)]
pub(crate) struct Herd {
    models: Vec<Model>,
    dropped: Vec<bool>,
    disk: Rc<RefCell<Disk>>,
    budget: Arc<Budget>,
    punch: Option<Punch>,
}

impl Herd {
    /// Each of them may have more of the memory than there is for all, and all of the disk.
    pub(crate) fn new(count: usize, limits: Limits, budget: &Arc<Budget>) -> Self {
        let pooled = Pooled {
            map: SlotMap::new(Geometry::new(limits.block), limits.slots),
            queue: Queue::new(),
            budget: budget.clone(),
            spare: 0,
            space: 1000,
            line: Vec::new(),
            tellers: Vec::new(),
        };
        let disk = Rc::new(RefCell::new(Disk { slots: Slots::Shared(pooled), file: HashMap::new() }));
        let lender: Arc<dyn Lender> = budget.clone();
        let one = |id| Model::on(id as u64, limits, Core::new(limits, Some(lender.clone())), disk.clone());
        Self {
            models: (0..count).map(one).collect(),
            dropped: vec![false; count],
            disk: disk.clone(),
            budget: budget.clone(),
            punch: None,
        }
    }

    /// Runs all operations, then reads what is left of one buffer after the other in this order, while the others stand
    /// still and hold what they hold; then has all that can write on, and checks what is left.
    pub(crate) fn run(&mut self, ops: &[HerdOp], order: &[usize]) {
        for op in ops {
            self.apply(op);
            self.serve();
        }
        let order: Vec<_> = order.iter().copied().filter(|at| *at < self.models.len()).collect();
        assert_eq!(order.len(), self.models.len());
        self.with_pool(|pooled| pooled.space = 3);
        for model in &mut self.models {
            // Its writer comes to the end of a long copy.
            model.put_tail(0);
            model.settle();
        }
        for &at in &order {
            self.drain(at);
        }
        self.nothing_is_held();
        for &at in &order {
            self.has_all_to_itself(at);
        }
        self.write_on(&order);
        for model in &mut self.models {
            model.ended_as_it_should();
        }
        for at in order {
            self.models[at].is_given_back();
            self.dropped[at] = true;
        }
        self.background();
        self.nothing_is_held();
    }

    fn apply(&mut self, op: &HerdOp) {
        let count = self.models.len();
        let at = |which: u8| usize::from(which) % count;
        match op {
            // One thread drives a buffer, a job at a time.
            HerdOp::One(which, Op::Drive) if self.models[at(*which)].is_writing() => {}
            HerdOp::One(which, op) => {
                let at = at(*which);
                if !self.dropped[at] || matches!(op, Op::Drive | Op::Complete(..) | Op::DropChunk(_) | Op::PassTime(_))
                {
                    self.models[at].apply(op);
                }
            }
            HerdOp::Spill(which) => self.spill(at(*which)),
            HerdOp::CatchUp(which) => {
                let model = &mut self.models[at(*which)];
                for _ in 0..8 {
                    model.apply(&Op::Read(u16::MAX));
                    model.apply(&Op::Complete(0, 0, Fault::None));
                }
            }
            HerdOp::Drop(which) => {
                let model = &mut self.models[at(*which)];
                model.put_tail(0);
                model.apply(&Op::DropWriter);
                model.apply(&Op::DropReader);
                self.dropped[at(*which)] = true;
            }
            HerdOp::Tell(which) => {
                let teller = self.with_pool(|pooled| {
                    let which = super::choose(*which, pooled.tellers.len())?;
                    Some(pooled.tellers.remove(which))
                });
                if let Some(teller) = teller {
                    self.tell(&teller);
                }
            }
            HerdOp::WantAgain => {
                let skipped = self.with_pool(|pooled| {
                    pooled.tellers.iter().find_map(|teller| match teller {
                        Teller::Skips(id, _) => Some(*id),
                        Teller::Looks => None,
                    })
                });
                if let Some(id) = skipped {
                    self.spill(id as usize);
                }
            }
            HerdOp::Punch(most) => {
                if self.punch.is_none() {
                    self.punch = self.with_pool(|pooled| pooled.map.next_punch(0, 1, 1 + u64::from(*most) % 8));
                }
            }
            HerdOp::Punched(gone) => self.punched(*gone),
            HerdOp::Rest => self.background(),
            HerdOp::Space(slots) => self.with_pool(|pooled| pooled.space = u64::from(*slots) % 8),
        }
        self.bury();
    }

    fn spill(&mut self, at: usize) {
        let model = &mut self.models[at];
        if self.dropped[at] {
            return;
        }
        model.write_bytes(20 * model.limits.block);
        for _ in 0..3 {
            model.apply(&Op::PassTime(2_000_000));
            if !model.is_writing() {
                model.apply(&Op::Drive);
            }
            model.apply(&Op::Complete(0, 0, Fault::None));
        }
    }

    /// Whoever was dropped leaves the queue when nothing holds it any more.
    fn bury(&mut self) {
        for (model, _) in self.models.iter_mut().zip(&self.dropped).filter(|(_, dropped)| **dropped) {
            if model.jobs.is_empty() && model.chunks.is_empty() {
                model.queued = false;
                model.disk.borrow_mut().end_turn(model.id);
            }
        }
    }

    /// Memory may have come free: who lacks some is told, as the pool does.
    fn serve(&mut self) {
        for model in &mut self.models {
            if std::mem::take(&mut model.lacks) {
                model.core.memory_came();
                model.settle();
            }
        }
    }

    fn tell(&mut self, teller: &Teller) {
        match *teller {
            Teller::Looks => {
                let next = self.with_pool(|pooled| pooled.queue.next(&pooled.map));
                if let Some((ticket, id)) = next
                    && !self.models[id as usize].slots_came()
                {
                    self.with_pool(|pooled| pooled.tellers.push(Teller::Skips(id, ticket)));
                }
            }
            Teller::Skips(_, ticket) => self.with_pool(|pooled| {
                pooled.skip(ticket);
                pooled.tellers.push(Teller::Looks);
            }),
        }
    }

    fn punched(&mut self, gone: bool) {
        if let Some(punch) = self.punch.take() {
            self.with_pool(|pooled| {
                pooled.map.punched(punch, gone);
                pooled.tellers.push(Teller::Looks);
            });
        }
    }

    /// What goes on by itself: I/O without faults, the pool's threads, the clock. Until there is nothing to do.
    fn background(&mut self) {
        // While the file system is full, those who wait for it ask again each second, and tell each other that they have: that goes
        // on for ever, and counts as rest. Time passes only when all have been told, so that telling comes to an end by itself.
        let mut vain = 0;
        for _ in 0..1000 {
            let mut busy = self.punch.is_some();
            self.punched(true);
            let time = self.with_pool(|pooled| pooled.tellers.is_empty());
            while let Some(teller) = self.with_pool(|pooled| pooled.tellers.pop()) {
                self.tell(&teller);
            }
            for model in &mut self.models {
                let due = model.core.deadline().map_or(0, |at| at.saturating_sub(model.now));
                model.pass_time(if time { due } else { 0 });
                model.settle();
                if !model.is_writing() {
                    model.apply(&Op::Drive);
                }
                while !model.jobs.is_empty() {
                    busy = true;
                    model.apply(&Op::Complete(0, 0, Fault::None));
                }
            }
            self.serve();
            self.bury();
            vain = if busy { 0 } else { vain + u32::from(time) };
            let told = self.with_pool(|pooled| pooled.tellers.is_empty());
            if !busy && told && (time || vain >= VAIN) {
                return self.no_turn_is_lost();
            }
        }
        panic!("it goes round in circles: {self:?}");
    }

    /// Nothing is on its way: then nobody waits for what is there, or without anybody knowing.
    fn no_turn_is_lost(&self) {
        self.with_pool(|pooled| {
            let next = pooled.queue.next(&pooled.map);
            assert!(next.is_none(), "there are slots, and whose turn it is was not told: {pooled:?}");
            for model in &self.models {
                let waits = model.queued || (model.core.waits_for_slots() && !model.core.discarded);
                assert!(!waits || pooled.queue.contains(model.id), "{} is not in the queue: {pooled:?}", model.id);
            }
        });
    }

    /// One reader takes what there is, whoever else stands still.
    fn drain(&mut self, at: usize) {
        let mut idle = 0;
        loop {
            self.background();
            let model = &mut self.models[at];
            let before = model.delivered;
            model.apply(&Op::Read(u16::MAX));
            if model.is_drained() {
                return;
            }
            idle = if model.delivered > before { 0 } else { idle + 1 };
            // Those who stand still are asked for memory, and only then what is with users is given back.
            if idle > PATIENCE / 3 {
                self.squeeze_but(at);
            }
            if idle > PATIENCE / 2 {
                self.drop_chunks();
            }
            assert!(idle < PATIENCE, "buffer {at} hangs: {self:?}");
        }
    }

    fn squeeze_but(&mut self, at: usize) {
        for (_, model) in self.models.iter_mut().enumerate().filter(|(other, _)| *other != at) {
            model.apply(&Op::Squeeze);
        }
    }

    fn drop_chunks(&mut self) {
        for model in &mut self.models {
            while !model.chunks.is_empty() {
                model.apply(&Op::DropChunk(0));
            }
        }
    }

    /// Every buffer is empty: nobody may have anything, and nobody waits.
    fn nothing_is_held(&mut self) {
        self.drop_chunks();
        self.background();
        assert_eq!((self.budget.held(), self.budget.lent()), (0, 0), "memory was lost: {self:?}");
        assert!(self.budget.can_take(0, Purpose::Write) && !self.budget.is_tight());
        assert!(self.disk.borrow().file.is_empty(), "slots were lost: {self:?}");
        let (live, queued) = self.with_pool(|pooled| (pooled.map.live(), !pooled.queue.is_empty()));
        assert_eq!(live, 0, "slots were lost: {self:?}");
        assert!(!queued, "somebody waits for slots, and all are free: {self:?}");
        for model in &self.models {
            assert!(!model.queued && !model.core.writer_waits(), "it waits, and all is free: {model:?}");
        }
    }

    /// All others are empty: whatever happened to them, this one may fill the disk though nobody reads.
    fn has_all_to_itself(&mut self, at: usize) {
        let limits = self.models[at].limits;
        let most = (limits.slots.min(8) as usize + 2) * limits.block;
        let mut left = most;
        for _ in 0..PATIENCE {
            let model = &mut self.models[at];
            if left == 0 || !model.can_write() {
                break;
            }
            let before = model.accepted;
            model.write(left);
            left -= (model.accepted - before) as usize;
            model.apply(&Op::Squeeze);
            self.background();
        }
        // One that fails rather than waits may have met the end of its patience.
        assert!(left == 0 || !self.models[at].can_write(), "{left} of {most} bytes find no room: {self:?}");
        self.drain(at);
    }

    /// Faults of others, and what was full meanwhile, leave nobody behind.
    fn write_on(&mut self, order: &[usize]) {
        let mut left: Vec<_> = self.models.iter().map(|model| MORE * model.limits.block).collect();
        for _ in 0..1000 {
            for &at in order {
                let model = &mut self.models[at];
                if !model.can_write() {
                    left[at] = 0;
                }
                let before = model.accepted;
                model.write(left[at].min(2 * model.limits.block));
                left[at] = left[at].saturating_sub((model.accepted - before) as usize);
                model.settle();
            }
            // One of them, so that the others come to the limits meanwhile.
            let backlog = |at: &usize| self.models[*at].accepted - self.models[*at].delivered;
            if let Some(most) = order.iter().copied().filter(|at| self.models[*at].can_write()).max_by_key(backlog) {
                self.drain(most);
            }
            if left.iter().all(|left| *left == 0) {
                break;
            }
        }
        assert!(left.iter().all(|left| *left == 0), "a writer hangs: {self:?}");
        for &at in order {
            self.models[at].apply(&Op::Finish);
            self.models[at].apply(&Op::DropWriter);
            self.drain(at);
        }
    }

    fn with_pool<T>(&self, call: impl FnOnce(&mut Pooled) -> T) -> T {
        match &mut self.disk.borrow_mut().slots {
            Slots::Shared(pooled) => call(pooled),
            Slots::Own(_) => unreachable!("a herd shares its disk"),
        }
    }
}

impl Model {
    fn is_writing(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job, Job::Write(_)))
    }

    /// It is its turn for slots; says whether it wants any.
    fn slots_came(&mut self) -> bool {
        self.core.unblock();
        let wants = self.is_writing() || self.core.wants_write().is_some();
        self.queued &= wants;
        self.settle();
        wants
    }

    fn can_write(&self) -> bool {
        self.writer_end.is_none() && self.core.check_write().is_ok()
    }

    /// The reader has met an end, or all there is for now.
    fn is_drained(&self) -> bool {
        self.end.is_some() || self.reader_end.is_some() || (self.can_write() && self.delivered == self.accepted)
    }

    /// Only what hit this one may have kept it from its end.
    fn ended_as_it_should(&self) {
        let hit = self.write_fault || self.read_fault.is_some();
        let ended = self.reader_end.is_some() || self.writer_end == Some("abort");
        if hit || ended || self.limits.on_full == OnFull::Fail {
            return;
        }
        assert_eq!(self.delivered, self.accepted);
        let clean = matches!(self.end, Some(Ok(())));
        assert_eq!(clean, self.writer_end == Some("finish"), "{:?}: {:?}", self.end, self.core);
    }
}
