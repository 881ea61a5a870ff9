//! Verification of sound ledgers, of ledgers with lost parts, and of ledgers that somebody edited with care.

#[path = "../../../tests/support/mod.rs"]
mod support;

use super::*;
use support::{OPTIONS, small_ledger};

fn verified(disk: &Arc<crate::embedded::memory_disk::MemoryDisk>, options: &VerifyOptions) -> VerifyReport {
    verify_on(disk.clone(), options, &mut |_| {}).unwrap()
}

#[test]
fn a_sound_ledger_has_no_findings() {
    let disk = small_ledger(200, OPTIONS);
    let report = verified(&disk, &VerifyOptions::default());
    assert_eq!(report.findings, []);
    let files = disk.files();
    assert!(files.len() > 5, "{:?}", files.keys());
    assert_eq!((report.open_count, report.pass_count), (1, 1));
    let small = VerifyOptions { memory_bytes_max: 4 << 10, ..VerifyOptions::default() };
    let in_parts = verified(&disk, &small);
    assert!(in_parts.pass_count > 3, "{}", in_parts.pass_count);
    assert_eq!(VerifyReport { pass_count: 1, ..in_parts }, report);
    let one = VerifyOptions { only: Some(CustomerId::new(2)), ..VerifyOptions::default() };
    let one = verified(&disk, &one);
    assert_eq!((one.finding_count, one.totals.customer_count), (0, 1));
}
