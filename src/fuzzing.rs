//! Operations out of bytes: what the fuzz targets `core` and `pool` run. Whatever the bytes are, they are a script.

use std::sync::Arc;

use crate::{
    core::model::{Fault, Herd, HerdOp, Model, Op},
    options::{Limits, OnFull},
    pool::Budget,
};

const BLOCK: usize = 64;

/// One buffer, every order of calls and completions, and faults.
pub fn core(bytes: &[u8]) {
    let mut script = Script(bytes);
    let blocks = match usize::from(script.byte()) {
        wide @ 192.. => 16 + wide % 8,
        narrow => 4 + narrow % 6,
    };
    let odd = usize::from(script.byte()) % BLOCK;
    let slots = Some(u64::from(script.byte()) % 32).filter(|slots| *slots < 20);
    let limits = Limits {
        memory: blocks * BLOCK + odd,
        block: BLOCK,
        encrypt: false,
        assisted: false,
        disk: slots,
        slots: slots.unwrap_or(u64::MAX),
        on_full: script.on_full(),
    };
    let mut ops = Vec::new();
    while !script.0.is_empty() {
        ops.push(script.op());
    }
    Model::new(limits, slots.unwrap_or(10_000)).run(&ops);
}

/// Many buffers, and what their pool does for them.
pub fn pool(bytes: &[u8]) {
    let mut script = Script(bytes);
    let count = 2 + usize::from(script.byte()) % 4;
    let slots = match script.byte() {
        many @ 128.. => u64::from(many) * 50,
        few => 1 + u64::from(few) % 64,
    };
    let limits = Limits {
        memory: 6 * BLOCK,
        block: BLOCK,
        encrypt: false,
        assisted: false,
        disk: Some(slots * BLOCK as u64),
        slots,
        on_full: script.on_full(),
    };
    let mut order: Vec<_> = (0..count).collect();
    for at in 0..count {
        order.swap(at, usize::from(script.byte()) % count);
    }
    let mut ops = Vec::new();
    while !script.0.is_empty() {
        ops.push(script.herd_op());
    }
    Herd::new(count, limits, &Arc::new(Budget::new(8 * BLOCK, BLOCK))).run(&ops, &order);
}

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    /// Behind the end there are zeros.
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn on_full(&mut self) -> OnFull {
        if self.byte() % 4 == 3 { OnFull::Fail } else { OnFull::Wait }
    }

    fn fault(&mut self) -> Fault {
        match self.byte() % 16 {
            0 => Fault::Full,
            1 => Fault::Io,
            2 => Fault::Corrupt,
            3 => Fault::Lost,
            _ => Fault::None,
        }
    }

    /// An end is one of forty: most scripts should get far.
    fn op(&mut self) -> Op {
        match self.byte() {
            0..38 => Op::Write(self.short()),
            38..44 => Op::WriteVectored(self.byte(), self.byte()),
            44..52 => Op::TakeTail,
            52..60 => Op::PutTail(self.byte()),
            60..72 => Op::WriteBytes(self.short()),
            72..98 => Op::Read(self.short()),
            98..110 => Op::NextChunk,
            110..122 => Op::ReadDirect(self.short()),
            122..132 => Op::Look(self.byte()),
            132..142 => Op::DropChunk(self.byte()),
            142 => Op::ForgetReader,
            143 => Op::ForgetWriter,
            144..148 => Op::Squeeze,
            148..185 => Op::Drive,
            185..230 => Op::Complete(self.byte(), self.byte(), self.fault()),
            230..250 => Op::PassTime(u32::from(self.short()) * 50),
            250 => Op::Finish,
            251 => Op::Fail,
            252 => Op::Abort,
            253 => Op::DropWriter,
            254 => Op::Cancel,
            255 => Op::DropReader,
        }
    }

    fn herd_op(&mut self) -> HerdOp {
        match self.byte() {
            0..152 => HerdOp::One(self.byte(), self.op()),
            152..172 => HerdOp::Spill(self.byte()),
            172..186 => HerdOp::CatchUp(self.byte()),
            186..189 => HerdOp::Drop(self.byte()),
            189..215 => HerdOp::Tell(self.byte()),
            215..230 => HerdOp::WantAgain,
            230..238 => HerdOp::Punch(self.byte()),
            238..246 => HerdOp::Punched(self.byte().is_multiple_of(2)),
            246..252 => HerdOp::Rest,
            252.. => HerdOp::Space(self.byte()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// The seeds, which are a sample of what a fuzzer found to differ. A package comes without them.
    fn seeds(target: &str, run: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        if !fuzz.exists() {
            return;
        }
        let seeds: Vec<_> = fs::read_dir(fuzz.join("seeds").join(target)).unwrap().collect();
        assert!(seeds.len() > 10, "{} seeds", seeds.len());
        for seed in seeds {
            run(&fs::read(seed.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn c01_what_a_fuzzer_found_to_differ_in_the_core() {
        seeds("core", super::core);
    }

    #[test]
    fn c04_what_a_fuzzer_found_to_differ_in_a_pool() {
        seeds("pool", super::pool);
    }
}
