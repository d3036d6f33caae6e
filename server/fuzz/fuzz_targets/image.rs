//! Fuzz target of image verification: see `cowherd::fuzzing::run_image`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cowherd::fuzzing::run_image(input));
