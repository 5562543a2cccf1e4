//! What a fuzzer found to differ, through the transforms: the seeds of `fuzz/`, and their like.
#![cfg(feature = "compression")]

#[path = "support/garbled.rs"]
mod garbled;

use std::{fs, path::Path};

/// Each seed as it is, cut short, and with a bit changed.
#[test]
fn whatever_the_bytes_are_nothing_panics_and_cutting_them_otherwise_changes_nothing() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        // A package comes without them.
        return;
    }
    let seeds: Vec<_> = fs::read_dir(fuzz.join("seeds/transforms")).unwrap().collect();
    assert!(seeds.len() > 10, "{} seeds", seeds.len());
    for seed in seeds {
        let seed = fs::read(seed.unwrap().path()).unwrap();
        garbled::check(&seed);
        garbled::check(&seed[..seed.len() * 2 / 3]);
        for bit in (0..8 * seed.len()).step_by(97) {
            let mut seed = seed.clone();
            seed[bit / 8] ^= 1 << (bit % 8);
            garbled::check(&seed);
        }
    }
}
