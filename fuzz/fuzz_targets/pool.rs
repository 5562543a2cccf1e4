//! Many buffers and what their pool does for them. The bytes are a script of the model's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spillbuffer::fuzzing::pool(bytes));
