//! `cargo +nightly fuzz run client`: bytes that are chosen by what they reach.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::client::run(bytes));
