//! Comparing what is derived, the checkpoint and the index files, with what the journal says up to the point
//! that they cover.

use super::chains::Chains;
use super::report::{Finding, FindingCode};
use crate::embedded::checkpoint::{CHECKPOINT_NAME, Checkpoint, RunKind, RunName};
use crate::embedded::disk::Disk;
use crate::embedded::journal::{Journal, JournalPoint};
use crate::embedded::ledger_file::{Holds, LedgerFile};
use crate::embedded::run::{CustomerRun, TransactionRun, fingerprint, kept, key_fingerprint};
use crate::store::StoreError;
use bursar_core::{ChainCheck, CustomerId, EntryId, Head};
use std::collections::BTreeSet;
use std::path::Path;

/// The checkpoint as it was read, with the index files that it names and that can be opened.
#[derive(Debug)]
pub(super) struct Derived {
    pub(super) checkpoint: Checkpoint,
    pub(super) transactions: Vec<(RunName, TransactionRun)>,
    pub(super) customers: Vec<(RunName, CustomerRun)>,
    /// Whether all of them could be opened.
    pub(super) transactions_whole: bool,
    pub(super) customers_whole: bool,
}

fn finding(directory: &Path, name: &str, code: FindingCode, what: impl Into<String>) -> Finding {
    Finding { code, path: directory.join(name), offset: 0, what: what.into(), event: None, lost: None }
}

/// A finding about an index file that cannot be read. What the system refused to do is no finding.
fn of_error(directory: &Path, name: RunName, error: StoreError) -> Result<Finding, StoreError> {
    match error {
        StoreError::Damaged(damage) => {
            let at = finding(directory, &name.file_name(), FindingCode::IndexFile, damage.what);
            Ok(Finding { offset: damage.offset, ..at })
        }
        StoreError::Version { found, .. } => {
            let what = format!("the file has format version {found}, which is not known here");
            Ok(finding(directory, &name.file_name(), FindingCode::IndexFile, what))
        }
        StoreError::Io { ref error, .. } if error.kind() == std::io::ErrorKind::NotFound => Ok(finding(
            directory,
            &name.file_name(),
            FindingCode::IndexFile,
            "the checkpoint names it, and it is not there",
        )),
        error @ (StoreError::Io { .. }
        | StoreError::Database { .. }
        | StoreError::InUse { .. }
        | StoreError::NotFound { .. }
        | StoreError::Exists { .. }
        | StoreError::OtherStores { .. }
        | StoreError::BatchTooLarge { .. }
        | StoreError::Poisoned { .. }) => Err(error),
    }
}

impl Derived {
    /// Opens the index files that a checkpoint names, newest first.
    pub(super) fn open(
        disk: &dyn Disk,
        file: &LedgerFile,
        checkpoint: Checkpoint,
        findings: &mut Vec<Finding>,
    ) -> Result<Self, StoreError> {
        let ledger = &file.config.ledger;
        let (transactions, customers) = (Vec::new(), Vec::new());
        let mut this = Self { checkpoint, transactions, customers, transactions_whole: true, customers_whole: true };
        for kind in RunKind::ALL {
            let mut expected_from = 0;
            for name in this.checkpoint.runs.iter().filter(|run| run.kind == kind) {
                let whole = match kind {
                    RunKind::Transactions => TransactionRun::open(disk, &name.file_name(), ledger)
                        .map(|run| (*run.info(), this.transactions.insert(0, (*name, run))).0),
                    RunKind::Customers => CustomerRun::open(disk, &name.file_name(), ledger)
                        .map(|run| (*run.info(), this.customers.insert(0, (*name, run))).0),
                };
                let whole = match whole {
                    Ok(info) if info.from == name.from && info.to == name.to => true,
                    Ok(_) => {
                        let what = "the file covers another part of the journal than its name says";
                        findings.push(finding(disk.path(), &name.file_name(), FindingCode::IndexFile, what));
                        false
                    }
                    Err(error) => {
                        findings.push(of_error(disk.path(), *name, error)?);
                        false
                    }
                };
                match kind {
                    RunKind::Transactions => this.transactions_whole &= whole,
                    RunKind::Customers => this.customers_whole &= whole,
                }
                if name.from != expected_from {
                    let what = "the index files leave out a part of the journal";
                    findings.push(finding(disk.path(), CHECKPOINT_NAME, FindingCode::Checkpoint, what));
                }
                expected_from = name.to;
            }
            let is_missing = expected_from != this.checkpoint.point.position;
            // Chains alone have none of transactions.
            let is_wanted = expected_from > 0 || kind == RunKind::Customers || file.holds == Holds::Everything;
            if is_missing && is_wanted {
                let what = "the index files do not end where the checkpoint does";
                findings.push(finding(disk.path(), CHECKPOINT_NAME, FindingCode::Checkpoint, what));
            }
        }
        Ok(this)
    }

    /// What the checkpoint says of its point, compared with where the walk is.
    pub(super) fn check_point(&self, directory: &Path, walked: JournalPoint, next: u64, findings: &mut Vec<Finding>) {
        // Between the last frame of a segment and the first of the next one lies a header.
        if self.checkpoint.point != walked && self.checkpoint.point != (JournalPoint { position: next, ..walked }) {
            let what = "the checkpoint's point is not behind a frame of this journal, by position, number or digest";
            findings.push(finding(directory, CHECKPOINT_NAME, FindingCode::Checkpoint, what));
        }
    }

    /// A finding about the checkpoint itself.
    pub(super) fn wrong(directory: &Path, what: &str) -> Finding {
        finding(directory, CHECKPOINT_NAME, FindingCode::Checkpoint, what)
    }

    /// Compares heads, open events and transactions of a pass that has come to the checkpoint's point.
    pub(super) fn compare(&self, chains: &mut Chains<'_>, journal: &Journal) -> Result<(), StoreError> {
        self.compare_heads(chains)?;
        self.compare_open(chains);
        if chains.has_table { self.compare_transactions(chains, journal) } else { Ok(()) }
    }

    fn compare_heads(&self, chains: &mut Chains<'_>) -> Result<(), StoreError> {
        let directory = chains.places.directory;
        let mut whole = self.customers_whole;
        for (name, run) in &self.customers {
            for entry in run.iter_from(None) {
                let (customer, head, newest) = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        let finding = of_error(directory, *name, error)?;
                        chains.findings.push(finding);
                        whole = false;
                        break;
                    }
                };
                if chains.partition.has_customer(customer) {
                    let findable = run.may_contain(customer);
                    compare_head(chains, *name, customer, &head, newest, findable);
                }
            }
        }
        if whole {
            for index in 0..chains.slots.len() {
                if !chains.slots[index].compared && chains.slots[index].newest.is_some() {
                    let what = "no index file has this customer";
                    let at = finding(directory, CHECKPOINT_NAME, FindingCode::IndexHead, what);
                    let event = Some((chains.customers[index], chains.slots[index].check.head().seq));
                    chains.findings.push(Finding { event, ..at });
                }
            }
        }
        Ok(())
    }

    fn compare_open(&self, chains: &mut Chains<'_>) {
        let directory = chains.places.directory;
        let wrong = |chains: &mut Chains<'_>, customer| {
            let what = "the checkpoint has other open events than the journal";
            let at = finding(directory, CHECKPOINT_NAME, FindingCode::Checkpoint, what);
            chains.findings.push(Finding { event: Some((customer, 0)), ..at });
        };
        let mut count = 0;
        let mut named = BTreeSet::new();
        for (customer, positions) in &self.checkpoint.open {
            if !chains.partition.has_customer(*customer) {
                continue;
            }
            if !named.insert(*customer) {
                wrong(chains, *customer);
                continue;
            }
            let index = chains.slot(*customer);
            let slot = &chains.slots[index];
            let there: Vec<u64> = slot.open.iter().map(|open| open.position).collect();
            let (first_seq, known) = (slot.check.head().seq + 1 + there.len() as u64, there.len());
            count += u64::from(known > 0);
            if there == *positions {
                continue;
            }
            let (Some(newest), true) = (positions.last(), positions.starts_with(&there)) else {
                wrong(chains, *customer);
                continue;
            };
            if chains.lose(index, *newest + 1, first_seq, (positions.len() - known) as u64) {
                chains.slots[index].lose_up_to(*customer, first_seq - 1 + (positions.len() - known) as u64);
                chains.slots[index].newest = Some(*newest);
            } else {
                wrong(chains, *customer);
            }
        }
        if chains.slots.iter().filter(|slot| !slot.open.is_empty()).count() as u64 > count {
            let all = chains.customers.iter().zip(&chains.slots);
            let missing: Vec<CustomerId> =
                all.filter(|(c, slot)| !slot.open.is_empty() && !named.contains(*c)).map(|(c, _)| *c).collect();
            for customer in missing {
                wrong(chains, customer);
            }
        }
    }

    /// Looks every transaction and every key up, all at once: the index files and what is looked up are walked in the order of
    /// fingerprints. What the store finds first is the entry with the highest position; an entry that is higher
    /// than the right one must belong to another transaction, which the journal can tell.
    fn compare_transactions(&self, chains: &mut Chains<'_>, journal: &Journal) -> Result<(), StoreError> {
        let directory = chains.places.directory;
        let ledger = journal.ledger();
        let mut wanted: Vec<(u64, EntryId, u64)> = Vec::with_capacity(chains.transactions.len() + chains.keys.len());
        wanted.extend(
            chains
                .transactions
                .iter()
                .map(|(id, known)| (fingerprint(&ledger, id.bits()), (*id).into(), known.position)),
        );
        wanted.extend(
            chains.keys.iter().map(|(key, holder)| (key_fingerprint(&ledger, *key), (*key).into(), holder.position)),
        );
        wanted.sort_unstable();
        let mut runs = Vec::new();
        for (name, run) in &self.transactions {
            runs.push((*name, run, run.iter().peekable(), self.transactions_whole));
        }
        let mut candidates: Vec<u64> = Vec::new();
        let mut at = 0;
        while let Some(&(hash, ..)) = wanted.get(at) {
            candidates.clear();
            for (name, _, entries, _) in &mut runs {
                while let Some(entry) = entries.next_if(|entry| !matches!(entry, Ok((key, _)) if *key > kept(hash))) {
                    match entry {
                        Ok((key, position)) if key == kept(hash) => candidates.push(position),
                        Ok(_) => {}
                        Err(error) => {
                            let finding = of_error(directory, *name, error)?;
                            chains.findings.push(finding);
                            // Nothing more can be said of what this file should have.
                            return Ok(());
                        }
                    }
                }
            }
            while let Some(&(hash, id, position)) = wanted.get(at).filter(|next| kept(next.0) == kept(hash)) {
                at += 1;
                let run = runs.iter().find(|(name, ..)| (name.from..name.to).contains(&position));
                let findable = run.is_some_and(|(_, run, ..)| {
                    let covers = id.transaction().is_none_or(|transaction| run.ids().contains(transaction.bits()));
                    covers && run.may_contain(hash)
                });
                let found = candidates.contains(&position) && findable;
                let damaged = !chains.damages.is_empty();
                let hidden = found && is_hidden(journal, &candidates, id, position, damaged)?;
                // Its newest event may be among those that cannot be read.
                let excused = damaged && candidates.iter().any(|&candidate| candidate > position);
                if (!found && !excused && self.transactions_whole) || hidden {
                    let what = format!("{id} is not found where its newest event is");
                    chains.findings.push(chains.places.finding(FindingCode::IndexTransaction, position, what));
                }
            }
        }
        Ok(())
    }
}

/// Whether a lookup would find another event of the transaction, or of the key, before the right one, or nothing that can be read
/// although the journal is whole.
fn is_hidden(
    journal: &Journal,
    candidates: &[u64],
    id: EntryId,
    position: u64,
    damaged: bool,
) -> Result<bool, StoreError> {
    for &candidate in candidates.iter().filter(|&&candidate| candidate > position) {
        match journal.effect(candidate, &mut None) {
            Ok(Some(event)) if event.linked.event.entries().any(|(entry, _)| entry == id) => return Ok(true),
            Ok(_) => {}
            Err(StoreError::Damaged(_)) if damaged => {}
            Err(StoreError::Damaged(_)) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn compare_head(
    chains: &mut Chains<'_>,
    name: RunName,
    customer: CustomerId,
    head: &Head,
    newest: u64,
    findable: bool,
) {
    let index = chains.slot(customer);
    if std::mem::replace(&mut chains.slots[index].compared, true) {
        return;
    }
    let slot = &chains.slots[index];
    let (seq, differs) = (slot.check.head().seq, !slot.unknown && slot.check.head() != head);
    let what = if head.seq > seq && chains.lose(index, name.to, seq + 1, head.seq - seq) {
        // The index knows how the chain went on; so what comes after can be followed.
        let slot = &mut chains.slots[index];
        slot.check = ChainCheck::behind(customer, head.clone());
        slot.open.clear();
        (slot.newest, slot.unknown, slot.gapped) = (Some(newest), false, true);
        None
    } else if !findable {
        Some("the filter of the index file hides this customer")
    } else if differs {
        Some("the index has another head of this chain than the journal")
    } else if chains.slots[index].newest < Some(newest) && chains.may_have_lost(index, newest + 1) {
        // An open event, which the checkpoint tells.
        None
    } else if chains.slots[index].newest != Some(newest) && !chains.slots[index].gapped {
        Some("the index does not lead to the newest record of this chain")
    } else {
        None
    };
    if let Some(what) = what {
        let at = finding(chains.places.directory, &name.file_name(), FindingCode::IndexHead, what);
        chains.findings.push(Finding { event: Some((customer, head.seq)), ..at });
    }
}
