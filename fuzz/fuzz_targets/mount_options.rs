//! `make fuzz FUZZ_TARGETS=mount_options`: bytes that are chosen by what they reach.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::mount_options::run(bytes));
