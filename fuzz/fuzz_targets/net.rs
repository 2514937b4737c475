//! `cargo +nightly fuzz run net`: bytes that are chosen by what they reach.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    bulkhead_fuzz::net::run(bytes);
});
