//! Feeds libFuzzer's inputs to [`bursar_fuzz::requests`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bursar_fuzz::requests(data));
