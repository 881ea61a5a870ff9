//! Tests of whole run files: against models, and against damage.

mod damage;
mod medium;
mod models;

use super::*;
use crate::embedded::disk::Disk;
use crate::store::StoreError;
use bursar_core::{Account, Amount, CurrencyIndex, CustomerId, CustomerState, Hash, Head};

const LEDGER: [u8; 16] = *b"ledger of a test";

fn info(from: u64, to: u64) -> RunInfo {
    RunInfo { ledger: LEDGER, from, to }
}

/// A head that differs from number to number, in one account or several.
fn head(number: u64, account_count: u8) -> Head {
    let mut state = CustomerState { locked: number % 3 == 1, ..CustomerState::default() };
    for index in 0..account_count {
        let available = Amount::from_steps(number.cast_signed() * if index % 2 == 0 { 1 } else { -1 });
        let held = Amount::from_steps(i64::from(index) * 1_000_000_007);
        state.accounts.set(CurrencyIndex(index), Account { available, held });
    }
    let mut link = Hash::default();
    for (at, byte) in link.0.iter_mut().enumerate() {
        *byte = (fingerprint(&LEDGER, u128::from(number)) >> (at % 8 * 8)) as u8;
    }
    Head { seq: number, link, time_ms: 1_760_000_000_000 + number, state, open: Vec::new() }
}

fn is_damaged<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Damaged(_)))
}

fn candidates(run: &TransactionRun, hash: u64) -> Result<Vec<u64>, StoreError> {
    let mut positions = Vec::new();
    run.candidates(hash, &mut positions).map(|()| positions)
}

fn all_customers(run: &CustomerRun, after: Option<u128>) -> Result<Vec<(u128, Head, u64)>, StoreError> {
    let entries = run.iter_from(after.map(CustomerId::new));
    entries.map(|entry| entry.map(|(customer, head, position)| (customer.bits(), head, position))).collect()
}

/// Writes the customers and gives the open run.
fn customer_run(disk: &dyn Disk, name: &str, info: RunInfo, entries: &[(u128, Head, u64)]) -> CustomerRun {
    let entries = entries.iter().map(|(id, head, position)| (CustomerId::new(*id), head.clone(), *position));
    write_customers(disk, name, info, entries.len(), entries).unwrap();
    CustomerRun::open(disk, name, &LEDGER).unwrap()
}

/// Writes the entries and gives the open run.
fn transaction_run(disk: &dyn Disk, name: &str, info: RunInfo, entries: Vec<(u64, u64)>) -> TransactionRun {
    let ids = if entries.is_empty() { IdRange::EMPTY } else { IdRange { min: 1, max: 1 << 100 } };
    write_transactions(disk, name, info, ids, entries).unwrap();
    TransactionRun::open(disk, name, &LEDGER).unwrap()
}
