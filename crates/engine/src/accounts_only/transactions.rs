//! The transactions of accounts that are kept without a ledger: small entries, found by id.
//!
//! Most ids are numbers that rise, with few gaps. They form *runs*: an id's place follows from the run's first id,
//! a new one is above all others, and neither needs a search. All other ids (random numbers, UUIDs, late ones) lie
//! in hash tables, each of which holds the ids of one range of hashes, so that none is long in growing.

use bursar_core::{Amount, CurrencyIndex, TransactionId, TransactionKind, TransactionStatus};
use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// A transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Whose, by number.
    pub(super) customer: u32,
    pub(super) kind: TransactionKind,
    pub(super) amount: Amount,
    pub(super) currency: CurrencyIndex,
    pub(super) status: TransactionStatus,
}

/// All transactions.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// In order of their first ids.
    runs: Vec<Run>,
    /// Those of all runs, one run behind the other. Ids that were left out are vacant.
    in_runs: Vec<Entry>,
    others: Tables,
}

/// Numbers that follow each other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first_id: u64,
    /// The place of the first entry.
    begin: usize,
}

/// How many ids may be left out without ending a run.
const GAP_IDS_MAX: u64 = 64;
/// A new run is begun only if those before have at least so many entries on average, but for the first few:
/// otherwise the ids are not of the sort for which runs are good.
const RUN_ENTRIES_MIN: usize = 64;
const RUNS_FREE: usize = 16;

impl Transactions {
    /// The transaction with this id.
    pub(super) fn get(&self, transaction: TransactionId) -> Option<Stored> {
        let in_run = self.place(transaction).and_then(|place| self.in_runs[place].stored());
        if in_run.is_some() { in_run } else { self.others.get(transaction.bits()) }
    }

    /// Reads the place where a transaction is, or would be; gives whether it is there.
    pub(super) fn is_at_hand(&self, transaction: TransactionId) -> bool {
        match self.place(transaction) {
            Some(place) => self.in_runs[place].marks != 0,
            None => self.others.is_at_hand(transaction.bits()),
        }
    }

    /// Puts a transaction in its place, or another state in place of its own.
    pub(super) fn put(&mut self, transaction: TransactionId, stored: Stored) {
        let entry = Entry::new(stored);
        let place = match self.place(transaction) {
            Some(place) if self.in_runs[place].marks != 0 || !self.others.has(transaction.bits()) => Some(place),
            Some(_) => None,
            None => self.lengthen(transaction),
        };
        match place {
            Some(place) => self.in_runs[place] = entry,
            None => self.others.put(transaction.bits(), entry),
        }
    }

    /// The place of an id within a run.
    fn place(&self, transaction: TransactionId) -> Option<usize> {
        let id = u64::try_from(transaction.bits()).ok()?;
        let last = self.runs.last()?;
        let (run, end) = if last.first_id <= id {
            (last, self.in_runs.len())
        } else {
            let after = self.runs.partition_point(|run| run.first_id <= id);
            (self.runs.get(after.checked_sub(1)?)?, self.runs[after].begin)
        };
        let ahead = usize::try_from(id - run.first_id).ok()?;
        (ahead < end - run.begin).then(|| run.begin + ahead)
    }

    /// Makes room for an id above all runs, if it is near the last one or begins a new one.
    fn lengthen(&mut self, transaction: TransactionId) -> Option<usize> {
        let id = u64::try_from(transaction.bits()).ok()?;
        let count = self.in_runs.len();
        if let Some(last) = self.runs.last() {
            let ahead = id.checked_sub(last.first_id)?;
            let gap = ahead - (count - last.begin) as u64;
            if gap <= GAP_IDS_MAX && !self.others.has(u128::from(id)) {
                let place = count + gap as usize;
                self.in_runs.resize(place + 1, Entry::default());
                return Some(place);
            }
        }
        if self.runs.len() > RUNS_FREE + count / RUN_ENTRIES_MIN || self.others.has(u128::from(id)) {
            return None;
        }
        self.runs.push(Run { first_id: id, begin: count });
        self.in_runs.push(Entry::default());
        Some(count)
    }
}

/// A transaction in 16 bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    amount: i64,
    customer: u32,
    currency: u8,
    /// Kind and status; 0: vacant.
    marks: u8,
}

const POSTED: u8 = 1;
const DISPUTED: u8 = 2;
const CHARGED_BACK: u8 = 3;
const STATUS: u8 = 0b11;
const WITHDRAWAL: u8 = 1 << 2;

impl Entry {
    const fn new(stored: Stored) -> Self {
        let Stored { customer, kind, amount, currency, status } = stored;
        let status = match status {
            TransactionStatus::Posted => POSTED,
            TransactionStatus::Disputed => DISPUTED,
            TransactionStatus::ChargedBack => CHARGED_BACK,
        };
        let kind = match kind {
            TransactionKind::Deposit => 0,
            TransactionKind::Withdrawal => WITHDRAWAL,
        };
        Self { amount: amount.steps(), customer, currency: currency.0, marks: status | kind }
    }

    const fn stored(self) -> Option<Stored> {
        let status = match self.marks & STATUS {
            POSTED => TransactionStatus::Posted,
            DISPUTED => TransactionStatus::Disputed,
            CHARGED_BACK => TransactionStatus::ChargedBack,
            _ => return None,
        };
        let kind = if self.marks & WITHDRAWAL == 0 { TransactionKind::Deposit } else { TransactionKind::Withdrawal };
        let (amount, currency) = (Amount::from_steps(self.amount), CurrencyIndex(self.currency));
        Some(Stored { customer: self.customer, kind, amount, currency, status })
    }
}

/// Entries by id, in many small tables.
#[derive(Debug, Default)]
struct Tables {
    tables: Vec<Table>,
    hasher: RandomState,
    id_max: Option<u128>,
}

/// How many tables there are, as a power of two.
const TABLES_BITS: u32 = 8;
/// How many places a table begins with, as a power of two.
const PLACES_BITS_MIN: u32 = 4;

/// Ids and their entries, each at the place its hash says or, where that is taken, at the next vacant one.
#[derive(Debug, Default)]
struct Table {
    slots: Vec<(u128, Entry)>,
    count: usize,
}

impl Tables {
    fn hash(&self, id: u128) -> u64 {
        self.hasher.hash_one(id)
    }

    fn table(&self, hash: u64) -> Option<&Table> {
        self.tables.get((hash >> (u64::BITS - TABLES_BITS)) as usize)
    }

    fn get(&self, id: u128) -> Option<Stored> {
        if self.is_above_all(id) {
            return None;
        }
        let hash = self.hash(id);
        let table = self.table(hash)?;
        let (_, entry) = table.slots.get(table.place(hash, id)?)?;
        entry.stored()
    }

    fn has(&self, id: u128) -> bool {
        self.get(id).is_some()
    }

    fn is_at_hand(&self, id: u128) -> bool {
        if self.is_above_all(id) {
            return false;
        }
        let hash = self.hash(id);
        let slot = self.table(hash).and_then(|table| table.slots.get(table.first_place(hash)?));
        slot.is_some_and(|(other, _)| *other == id)
    }

    fn is_above_all(&self, id: u128) -> bool {
        self.id_max.is_none_or(|max| max < id)
    }

    fn put(&mut self, id: u128, entry: Entry) {
        if self.tables.is_empty() {
            self.tables.resize_with(1 << TABLES_BITS, Table::default);
        }
        self.id_max = self.id_max.max(Some(id));
        let hash = self.hash(id);
        let table = &mut self.tables[(hash >> (u64::BITS - TABLES_BITS)) as usize];
        // At least a quarter is vacant, so that every search ends, and soon.
        if table.count >= table.slots.len() / 4 * 3 {
            table.grow(&self.hasher);
        }
        table.put(hash, id, entry);
    }
}

impl Table {
    fn first_place(&self, hash: u64) -> Option<usize> {
        self.slots.len().checked_sub(1).map(|mask| hash as usize & mask)
    }

    /// Where an id is, or would be.
    fn place(&self, hash: u64, id: u128) -> Option<usize> {
        let mut place = self.first_place(hash)?;
        loop {
            let (other, entry) = &self.slots[place];
            if *other == id || entry.marks == 0 {
                return Some(place);
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    fn put(&mut self, hash: u64, id: u128, entry: Entry) {
        if let Some(place) = self.place(hash, id) {
            self.count += usize::from(self.slots[place].1.marks == 0);
            self.slots[place] = (id, entry);
        }
    }

    fn grow(&mut self, hasher: &RandomState) {
        let count = (self.slots.len() * 2).max(1 << PLACES_BITS_MIN);
        let slots = std::mem::replace(&mut self.slots, vec![(0, Entry::default()); count]);
        self.count = 0;
        for (id, entry) in slots.into_iter().filter(|(_, entry)| entry.marks != 0) {
            self.put(hasher.hash_one(id), id, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn stored(number: u32) -> Stored {
        let status = [TransactionStatus::Posted, TransactionStatus::Disputed, TransactionStatus::ChargedBack];
        Stored {
            customer: number,
            kind: if number.is_multiple_of(2) { TransactionKind::Deposit } else { TransactionKind::Withdrawal },
            amount: Amount::from_steps(i64::from(number) - 5),
            currency: CurrencyIndex(number as u8),
            status: status[number as usize % 3],
        }
    }

    /// Ids that rise with gaps of all lengths, go back, lie in gaps, and are no numbers.
    fn ids() -> impl Strategy<Value = Vec<u128>> {
        let step = prop_oneof![
            6 => Just(1i64), 2 => 0i64..5, 2 => -200i64..200, 1 => 60i64..70, 1 => -100_000i64..100_000,
        ];
        let id = (step, prop_oneof![9 => Just(None), 1 => any::<u128>().prop_map(Some)]);
        (any::<u64>(), proptest::collection::vec(id, 1..2000)).prop_map(|(first, steps)| {
            let mut id = first;
            let next = |(step, other): (i64, Option<u128>)| {
                id = id.wrapping_add_signed(step);
                other.unwrap_or(u128::from(id))
            };
            steps.into_iter().map(next).collect()
        })
    }

    proptest! {
        #[test]
        fn every_transaction_is_found_as_it_was_put_last(ids in ids()) {
            let mut transactions = Transactions::default();
            let mut model = HashMap::new();
            for (id, number) in ids.iter().zip(0u32..) {
                for near in [*id, id.wrapping_add(1), id.wrapping_sub(1)] {
                    prop_assert_eq!(transactions.get(TransactionId::new(near)), model.get(&near).copied());
                }
                transactions.put(TransactionId::new(*id), stored(number));
                model.insert(*id, stored(number));
            }
            for (id, stored) in model {
                prop_assert_eq!(transactions.get(TransactionId::new(id)), Some(stored));
            }
        }
    }

    /// What is counted from anywhere, with gaps, is in runs; what comes in no order is not.
    #[test]
    fn rising_ids_are_in_runs() {
        let mut transactions = Transactions::default();
        for id in 1_000_000u128..1_010_000 {
            transactions.put(TransactionId::new(id * 3), stored(1));
        }
        assert_eq!((transactions.runs.len(), transactions.others.tables.len()), (1, 0));
        let scattered = (1..10_000u64).map(|id| id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        scattered.for_each(|id| transactions.put(TransactionId::new(u128::from(id)), stored(2)));
        assert!(transactions.runs.len() < 1000, "{}", transactions.runs.len());
    }
}
