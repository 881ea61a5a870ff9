//! Every seed, and every case that once failed, through the check that it belongs to.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use std::fs;
use std::path::{Path, PathBuf};

/// The files for one target: in `seeds/`, `cases/`, and, where fuzzers have run here, in `corpus/`.
fn files(target: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for kind in ["seeds", "cases", "corpus"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(target);
        let Ok(entries) = fs::read_dir(directory) else { continue };
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    files
}

fn replay(target: &str, check: fn(&[u8])) {
    let files = files(target);
    let seed_count = files.iter().filter(|file| file.components().any(|part| part.as_os_str() == "seeds")).count();
    assert!(seed_count >= 5, "{target} has only {seed_count} seeds");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| check(&bytes)) {
            eprintln!("the case is {}", file.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn csv_rows() {
    replay("csv_rows", bursar_fuzz::csv_rows);
}

#[test]
fn record_frame() {
    replay("record_frame", bursar_fuzz::record_frame);
}

#[test]
fn open_directory() {
    replay("open_directory", bursar_fuzz::open_directory);
}

#[test]
fn chain_file() {
    replay("chain_file", bursar_fuzz::chain_file);
}

#[test]
fn requests() {
    replay("requests", bursar_fuzz::requests);
}
