//! `make fuzz FUZZ_TARGETS=id_maps`: bytes that are chosen by what they reach.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::id_maps::run(bytes));
