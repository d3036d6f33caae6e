//! Fuzz target of the command table: see `cowherd::fuzzing::run_commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cowherd::fuzzing::run_commands(input));
