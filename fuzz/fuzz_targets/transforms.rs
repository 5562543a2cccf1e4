//! Any bytes into every decoder, and round trips; in pieces of any size and through outputs of any bound.
#![no_main]

#[path = "../../tests/support/garbled.rs"]
mod garbled;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| garbled::check(bytes));
