//! `cargo +nightly fuzz run registers`: bytes that are chosen by what they reach.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::registers::run(bytes));
