//! The core alone: properties over the model, and what single cases show better.

use proptest::prelude::*;

use super::model::{Fault, Model, Op};
use crate::options::{Limits, OnFull};

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Full),
        1 => Just(Fault::Io),
        1 => Just(Fault::Corrupt),
        1 => Just(Fault::Lost),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => any::<u16>().prop_map(Op::Write),
        3 => any::<(u8, u8)>().prop_map(|(one, two)| Op::WriteVectored(one, two)),
        4 => Just(Op::TakeTail),
        4 => any::<u8>().prop_map(Op::PutTail),
        6 => any::<u16>().prop_map(Op::WriteBytes),
        12 => any::<u16>().prop_map(Op::Read),
        6 => Just(Op::NextChunk),
        5 => any::<u8>().prop_map(Op::Look),
        5 => any::<u8>().prop_map(Op::DropChunk),
        1 => Just(Op::ForgetReader),
        1 => Just(Op::ForgetWriter),
        15 => Just(Op::Drive),
        15 => (any::<u8>(), any::<u8>(), fault()).prop_map(|(which, part, fault)| Op::Complete(which, part, fault)),
        8 => (0u32..3_000_000).prop_map(Op::PassTime),
    ]
}

fn end() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Finish),
        1 => Just(Op::Fail),
        1 => Just(Op::Abort),
        1 => Just(Op::DropWriter),
        1 => Just(Op::Cancel),
        1 => Just(Op::DropReader),
    ]
}

fn script() -> impl Strategy<Value = Vec<Op>> {
    let part = |n| prop::collection::vec(op(), 0..n);
    (part(120), prop::collection::vec(end(), 0..3), part(40)).prop_map(|(mut ops, ends, after)| {
        ops.extend(ends);
        ops.extend(after);
        ops
    })
}

fn limits() -> impl Strategy<Value = (Limits, u64)> {
    (4usize..10, 0usize..64, prop_oneof![Just(None), (0u64..20).prop_map(Some)], any::<bool>()).prop_map(
        |(blocks, odd, slots, fail)| {
            let limits = Limits {
                memory: blocks * 64 + odd,
                block: 64,
                disk: slots,
                on_full: if fail { OnFull::Fail } else { OnFull::Wait },
            };
            (limits, slots.unwrap_or(10_000))
        },
    )
}

/// Four times what is usual; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 4, max_shrink_iters: 20_000, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn c01_every_accepted_byte_comes_out_once_or_an_error_does((limits, slots) in limits(), ops in script()) {
        Model::new(limits, slots).run(&ops);
    }
}
