//! Feeds libFuzzer's inputs to [`bursar_fuzz::open_directory`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bursar_fuzz::open_directory(data));
