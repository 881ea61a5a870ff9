//! Merges: several runs that cover adjacent parts of the journal become one.
//!
//! Runs are read and the new one is written entry by entry. Memory: a block of each run, the new run's filter
//! and first keys, and the writer's buffer; nothing else grows with the runs.

use super::customers::{CustomerRun, CustomerWriter};
use super::file::{IdRange, RunInfo, misuse};
use super::transactions::{TransactionRun, TransactionWriter};
use crate::embedded::disk::Disk;
use crate::store::StoreError;
use std::cmp::Reverse;

/// Merges runs over transactions, oldest first, into one with all their entries.
pub(crate) fn merge_transactions(disk: &dyn Disk, name: &str, runs: &[&TransactionRun]) -> Result<(), StoreError> {
    let info = joined(disk, name, runs.iter().map(|run| run.info()))?;
    let entry_count = runs.iter().map(|run| run.entry_count()).sum();
    let ids = runs.iter().fold(IdRange::EMPTY, |ids, run| ids.join(run.ids()));
    let mut sources = Sources::new(runs.iter().map(|run| run.iter()))?;
    let mut writer = TransactionWriter::new(disk, name, info, entry_count)?;
    while let Some((fingerprint, position)) = sources.next(|&(hash, position)| (hash, Reverse(position)))? {
        writer.push(fingerprint, position)?;
    }
    writer.finish(ids)
}

/// Merges runs over customers, oldest first, into one with the newest head of each customer.
pub(crate) fn merge_customers(disk: &dyn Disk, name: &str, runs: &[&CustomerRun]) -> Result<(), StoreError> {
    let info = joined(disk, name, runs.iter().map(|run| run.info()))?;
    let count_max = runs.iter().map(|run| run.entry_count()).sum();
    let mut sources = Sources::new(runs.iter().map(|run| run.iter_from(None)))?;
    let mut writer = CustomerWriter::new(disk, name, info, count_max)?;
    // Of equal customers the one from the newest run comes last, and replaces those before.
    let mut newest = None;
    while let Some(entry) = sources.next(|(customer, _, _)| *customer)? {
        if let Some((customer, head, position)) = newest.replace(entry)
            && newest.as_ref().is_some_and(|(next, _, _)| *next != customer)
        {
            writer.push(customer, &head, position)?;
        }
    }
    if let Some((customer, head, position)) = newest {
        writer.push(customer, &head, position)?;
    }
    writer.finish()
}

/// What the new run covers; an error of the caller if there is a gap, or no run.
fn joined<'r>(disk: &dyn Disk, name: &str, infos: impl Iterator<Item = &'r RunInfo>) -> Result<RunInfo, StoreError> {
    let mut joined: Option<RunInfo> = None;
    for info in infos {
        let before = joined.get_or_insert(RunInfo { to: info.from, ..*info });
        if before.to != info.from || before.ledger != info.ledger {
            return Err(misuse(disk, name, "only indexes of adjacent parts of one journal can be merged"));
        }
        before.to = info.to;
    }
    joined.ok_or_else(|| misuse(disk, name, "there is nothing to merge"))
}

/// Sorted sources, and the next item of each.
struct Sources<I, T> {
    sources: Vec<(I, Option<T>)>,
}

impl<T, I: Iterator<Item = Result<T, StoreError>>> Sources<I, T> {
    fn new(iters: impl Iterator<Item = I>) -> Result<Self, StoreError> {
        let with_first = |mut iter: I| iter.next().transpose().map(|first| (iter, first));
        Ok(Self { sources: iters.map(with_first).collect::<Result<_, _>>()? })
    }

    /// Takes the item with the smallest key; of equal ones that of the first source.
    ///
    /// A merge has few sources, so all are looked at.
    fn next<K: Ord>(&mut self, key: impl Fn(&T) -> K) -> Result<Option<T>, StoreError> {
        let keyed = self.sources.iter().enumerate();
        let keyed = keyed.filter_map(|(index, (_, item))| item.as_ref().map(|item| (key(item), index)));
        let Some((_, index)) = keyed.min() else { return Ok(None) };
        let Some((source, item)) = self.sources.get_mut(index) else { return Ok(None) };
        let next = source.next().transpose()?;
        Ok(std::mem::replace(item, next))
    }
}
