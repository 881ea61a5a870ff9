//! A row in the middle of a batch is put off, because another writer was faster; those behind it are not.
//!
//! The story: a proposal lost its race against an approval, the row behind which it stood was decided anew, and
//! with it all rows behind it, which had taken effect already. A repeated deposit is harmless (it is known by its
//! id), but disputes and resolves carry none: a dispute behind a resolve took effect once too often, and accounts
//! were wrong after an ingest that nobody had interrupted. Rows were counted twice as well.
#![allow(clippy::unwrap_used)] // clippy sees the helpers of a test as production code

use bursar_engine::core::commit::{Approval, Batch, Limits, Proposal, ProposeResult, Routes};
use bursar_engine::core::{
    Amount, Currencies, CurrencyIndex, CustomerId, EntryId, EventRef, Policy, Request, TransactionEntry, TransactionId,
};
use bursar_engine::driver::{Driver, SourceRow};
use bursar_engine::new_config;
use bursar_engine::store::{Chains, MemoryStore, RowCounts, SourceId, SourceMark, StoreError, Transactions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Answers one proposal with `Conflict`, as a table does whose entry an approval has changed meanwhile.
#[derive(Debug)]
struct OneConflict {
    store: Arc<MemoryStore>,
    transaction: TransactionId,
    is_due: AtomicBool,
}

impl Transactions for OneConflict {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.store.get(ids, entries)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        for proposal in proposals {
            if proposal.entry == self.transaction.into() && self.is_due.swap(false, Ordering::Relaxed) {
                results.push(ProposeResult::Conflict);
            } else {
                self.store.propose(&[*proposal], results)?;
            }
        }
        Ok(())
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        self.store.approve(approvals)
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.store.events_of(transaction)
    }
}

#[test]
fn rows_behind_one_that_is_put_off_take_effect_once() {
    let config = new_config(Policy::default(), Currencies::default()).unwrap();
    let store = Arc::new(MemoryStore::new(&config));
    let (one, two) = (CustomerId::new(1), CustomerId::new(2));
    let transactions =
        OneConflict { store: store.clone(), transaction: TransactionId::new(1), is_due: AtomicBool::new(true) };
    let mut driver =
        Driver::new(config, Routes::default(), Limits::default(), store.clone(), Arc::new(transactions), 1).unwrap();
    let deposit = |customer, id| Request::deposit(customer, TransactionId::new(id), Amount::from_steps(10));
    let requests = [
        deposit(one, 1),
        deposit(two, 2),
        Request::dispute(two, TransactionId::new(2)),
        Request::resolve(two, TransactionId::new(2)),
    ];
    let rows: Vec<SourceRow> = requests
        .into_iter()
        .zip(2..)
        .map(|(request, line)| SourceRow { request: Some(request), line, end_offset: line * 10, end_line_count: line })
        .collect();
    let mut mark = SourceMark::new(SourceId([1; 32]));
    let mut taken = 0;
    while taken < rows.len() {
        let mut batch = Batch::new(1);
        taken += driver.run_rows(1_000, &mut batch, &rows[taken..], true, &mut mark).unwrap();
        batch.synced();
    }
    assert_eq!(mark.counts, RowCounts { applied: 4, ..RowCounts::default() });
    let mut heads = Vec::new();
    store.load(&[one, two], &mut heads).unwrap();
    let seqs: Vec<u64> = heads.iter().flatten().map(|head| head.seq).collect();
    // The event that lost its race stands in the chain as aborted, followed by the one that took its place.
    assert_eq!(seqs, [2, 3]);
    let account = heads[1].as_ref().unwrap().state.accounts.get(CurrencyIndex(0));
    assert_eq!((account.available.steps(), account.held.steps()), (10, 0));
}
