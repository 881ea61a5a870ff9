//! Feeds libFuzzer's inputs to [`bursar_fuzz::csv_rows`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bursar_fuzz::csv_rows(data));
