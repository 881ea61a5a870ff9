//! Feeds libFuzzer's inputs to [`bursar_fuzz::record_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bursar_fuzz::record_frame(data));
