//! One buffer's core: every order of calls and completions, and faults. The bytes are a script of the model's.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| spillbuffer::fuzzing::core(bytes));
