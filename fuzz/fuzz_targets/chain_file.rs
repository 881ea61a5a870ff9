//! Feeds libFuzzer's inputs to [`bursar_fuzz::chain_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bursar_fuzz::chain_file(data));
