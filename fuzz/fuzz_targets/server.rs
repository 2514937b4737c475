//! `cargo +nightly fuzz run server`: bytes that are chosen by what they reach.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::server::run(bytes));
