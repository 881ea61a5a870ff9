//! Values by transaction id, for ids as they mostly are.
//!
//! Most ids are numbers that rise, with few gaps. They form *runs*: an id's place follows from the run's first id,
//! a new one is above all others, and neither needs a search. All other ids (random numbers, UUIDs, late ones) lie
//! in hash tables, each of which holds the ids of one range of hashes, so that none is long in growing.

use crate::slots::{Found, Slots, TABLE_COUNT, table_of};
use bursar_core::TransactionId;
use foldhash::fast::RandomState;
use std::hash::BuildHasher;

/// Values by transaction id. Nothing is removed, but for all of it at once.
#[derive(Debug)]
pub(crate) struct ById<V> {
    /// In order of their first ids.
    runs: Vec<Run>,
    /// Those of all runs, one run behind the other. Ids that were left out are vacant.
    in_runs: Vec<Option<V>>,
    others: Tables<V>,
    count: usize,
}

/// Numbers that follow each other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first_id: u64,
    /// The place of the first value.
    begin: usize,
}

/// How many ids may be left out without ending a run.
const GAP_IDS_MAX: u64 = 64;
/// A new run is begun only if those before have at least so many places on average, but for the first few:
/// otherwise the ids are not of the sort for which runs are good.
const RUN_PLACES_MIN: usize = 64;
const RUNS_FREE: usize = 16;

impl<V> Default for ById<V> {
    fn default() -> Self {
        let others = Tables { by_hash: Vec::new(), hasher: RandomState::default(), id_max: None };
        Self { runs: Vec::new(), in_runs: Vec::new(), others, count: 0 }
    }
}

impl<V: Copy> ById<V> {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Removes all of them, and keeps their room.
    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.in_runs.clear();
        self.others.clear();
        self.count = 0;
    }

    /// The value of this id.
    #[inline]
    pub(crate) fn get(&self, transaction: TransactionId) -> Option<&V> {
        let in_run = self.place(transaction).and_then(|place| self.in_runs[place].as_ref());
        if in_run.is_some() { in_run } else { self.others.get(transaction.bits()) }
    }

    /// Reads the place where an id is, or would be; gives whether it is there at the first look.
    #[inline]
    pub(crate) fn is_at_hand(&self, transaction: TransactionId) -> bool {
        if self.follows(transaction.bits()) {
            return false;
        }
        match self.place(transaction) {
            Some(place) => self.in_runs[place].is_some(),
            None => self.others.is_at_hand(transaction.bits()),
        }
    }

    /// Gives an id a value, in place of the one it has.
    #[inline]
    pub(crate) fn insert(&mut self, transaction: TransactionId, value: V) {
        let place = match self.place(transaction) {
            Some(place) if self.in_runs[place].is_some() || !self.others.has(transaction.bits()) => Some(place),
            Some(_) => None,
            None => self.lengthen(transaction),
        };
        let is_new = match place {
            Some(place) => self.in_runs[place].replace(value).is_none(),
            None => self.others.insert(transaction.bits(), value),
        };
        self.count += usize::from(is_new);
    }

    /// Gives an id a value if it has none; gives whether that was so.
    #[inline]
    pub(crate) fn insert_new(&mut self, transaction: TransactionId, value: V) -> bool {
        let bits = transaction.bits();
        if self.follows(bits) && !self.others.has(bits) {
            self.in_runs.push(Some(value));
            self.count += 1;
            return true;
        }
        self.insert_new_anywhere(transaction, value)
    }

    fn insert_new_anywhere(&mut self, transaction: TransactionId, value: V) -> bool {
        let place = match self.place(transaction) {
            Some(place) if self.in_runs[place].is_some() || self.others.has(transaction.bits()) => return false,
            Some(place) => Some(place),
            None => self.lengthen(transaction),
        };
        let is_new = match place {
            Some(place) => self.in_runs[place].replace(value).is_none(),
            None => self.others.insert_new(transaction.bits(), value),
        };
        self.count += usize::from(is_new);
        is_new
    }

    /// Whether an id is the one behind the last run.
    #[inline]
    fn follows(&self, bits: u128) -> bool {
        let ahead = |last: &Run| bits.checked_sub(u128::from(last.first_id));
        // There is no next one behind the largest number.
        let last = self.runs.last().filter(|_| bits <= u128::from(u64::MAX));
        last.is_some_and(|last| ahead(last) == Some((self.in_runs.len() - last.begin) as u128))
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TransactionId, &V)> {
        let of_run = |(index, run): (usize, &Run)| {
            let end = self.runs.get(index + 1).map_or(self.in_runs.len(), |next| next.begin);
            let ids = u128::from(run.first_id)..;
            let values = ids.zip(&self.in_runs[run.begin..end]);
            values.filter_map(|(id, value)| Some((TransactionId::new(id), value.as_ref()?)))
        };
        let entries = self.others.by_hash.iter().flat_map(|table| &table.entries);
        let others = entries.map(|(id, value)| (TransactionId::new(*id), value));
        self.runs.iter().enumerate().flat_map(of_run).chain(others)
    }

    /// The place of an id within a run.
    #[inline]
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
                self.in_runs.resize(place + 1, None);
                return Some(place);
            }
        }
        if self.runs.len() > RUNS_FREE + count / RUN_PLACES_MIN || self.others.has(u128::from(id)) {
            return None;
        }
        self.runs.push(Run { first_id: id, begin: count });
        self.in_runs.push(None);
        Some(count)
    }
}

/// Values by id, in many small tables.
#[derive(Debug)]
struct Tables<V> {
    by_hash: Vec<Table<V>>,
    hasher: RandomState,
    id_max: Option<u128>,
}

/// Ids and their values in the order in which they came, and where each is. Nearly every id that is asked for is new.
#[derive(Clone, Debug)]
struct Table<V> {
    entries: Vec<(u128, V)>,
    slots: Slots,
}

impl<V: Copy> Tables<V> {
    fn hash(&self, id: u128) -> u64 {
        self.hasher.hash_one(id)
    }

    /// The table that an id with this hash belongs to.
    fn table(&self, hash: u64) -> Option<&Table<V>> {
        self.by_hash.get(table_of(hash))
    }

    fn get(&self, id: u128) -> Option<&V> {
        if self.is_above_all(id) {
            return None;
        }
        let hash = self.hash(id);
        let table = self.table(hash)?;
        let number = table.slots.find(hash as u32, |number| table.is(number, id))?;
        Some(&table.entries[number as usize].1)
    }

    fn has(&self, id: u128) -> bool {
        self.get(id).is_some()
    }

    fn is_at_hand(&self, id: u128) -> bool {
        if self.is_above_all(id) {
            return false;
        }
        let hash = self.hash(id);
        let Some(table) = self.table(hash) else { return false };
        table.slots.at_first(hash as u32).is_some_and(|number| table.is(number, id))
    }

    fn is_above_all(&self, id: u128) -> bool {
        self.id_max.is_none_or(|max| max < id)
    }

    fn clear(&mut self) {
        for table in &mut self.by_hash {
            table.entries.clear();
            table.slots.clear();
        }
        self.id_max = None;
    }

    /// Gives whether the id is new.
    fn insert(&mut self, id: u128, value: V) -> bool {
        let (table, hash) = self.table_for_one_more(id);
        match table.slots.search(hash, |number| table.is(number, id)) {
            Found::Entry(number) => table.entries[number as usize].1 = value,
            Found::Vacant(at) => {
                table.push(at, hash, id, value);
                return true;
            }
        }
        false
    }

    /// Leaves a value that is there as it is.
    fn insert_new(&mut self, id: u128, value: V) -> bool {
        let (table, hash) = self.table_for_one_more(id);
        match table.slots.search(hash, |number| table.is(number, id)) {
            Found::Entry(_) => false,
            Found::Vacant(at) => {
                table.push(at, hash, id, value);
                true
            }
        }
    }

    fn table_for_one_more(&mut self, id: u128) -> (&mut Table<V>, u32) {
        if self.by_hash.is_empty() {
            self.by_hash.resize(TABLE_COUNT, Table { entries: Vec::new(), slots: Slots::default() });
        }
        self.id_max = self.id_max.max(Some(id));
        let hash = self.hash(id);
        let table = &mut self.by_hash[table_of(hash)];
        table.slots.make_room();
        (table, hash as u32)
    }
}

impl<V: Copy> Table<V> {
    fn is(&self, number: u32, id: u128) -> bool {
        self.entries[number as usize].0 == id
    }

    /// Adds an entry that is not there, at the slot that the search for it ended at. No table has as many entries as
    /// there are numbers: that would take 256 times their room in all.
    fn push(&mut self, at: usize, hash: u32, id: u128, value: V) {
        self.slots.put(at, hash, self.entries.len() as u32);
        self.entries.push((id, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
        fn every_id_has_the_value_it_was_given_last(first in ids(), second in ids()) {
            let mut values = ById::default();
            for ids in [first, second] {
                let mut model = BTreeMap::new();
                for (number, id) in ids.iter().enumerate() {
                    for near in [*id, id.wrapping_add(1), id.wrapping_sub(1)] {
                        prop_assert_eq!(values.get(TransactionId::new(near)), model.get(&near));
                    }
                    if number % 3 == 0 {
                        let is_new = values.insert_new(TransactionId::new(*id), number);
                        prop_assert_eq!(is_new, !model.contains_key(id));
                        model.entry(*id).or_insert(number);
                    } else {
                        values.insert(TransactionId::new(*id), number);
                        model.insert(*id, number);
                    }
                    prop_assert_eq!((values.len(), values.is_empty()), (model.len(), false));
                }
                let mut all: Vec<(u128, usize)> = values.iter().map(|(id, number)| (id.bits(), *number)).collect();
                all.sort_unstable();
                prop_assert_eq!(all, model.into_iter().collect::<Vec<_>>());
                values.clear();
                prop_assert_eq!((values.len(), values.iter().count()), (0, 0));
            }
        }
    }

    /// Enough for every table to grow several times, twice into the same room.
    #[test]
    fn ids_in_no_order_are_found_however_many_they_are() {
        let ids = |round: u64| (0..50_000).map(move |number: u64| scattered(number << 1 | round));
        let mut values = ById::default();
        for round in 0..2 {
            for (id, number) in ids(round).zip(0u32..) {
                assert!(values.insert_new(id, number) && !values.insert_new(id, number + 1));
            }
            for (id, number) in ids(round).zip(0u32..) {
                assert_eq!((values.get(id), values.is_at_hand(scattered(!0))), (Some(&number), false));
            }
            assert!(ids(1 - round).all(|id| values.get(id).is_none()));
            let at_hand_count = ids(round).filter(|id| values.is_at_hand(*id)).count();
            assert!(at_hand_count > 25_000, "{at_hand_count}");
            assert_eq!(values.iter().map(|(_, number)| u64::from(*number)).sum::<u64>(), 49_999 * 50_000 / 2);
            values.clear();
        }
    }

    /// An id that is no number, and follows from one.
    fn scattered(number: u64) -> TransactionId {
        let high = u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        TransactionId::new(high << 64 | u128::from(number))
    }

    /// Ids whose hashes are the same, as far as the table knows them, are told apart.
    #[test]
    fn the_hash_alone_does_not_say_whose_an_entry_is() {
        let mut table = Table { entries: Vec::new(), slots: Slots::default() };
        // The last slot: the search goes on with the first one.
        let hash = u32::MAX;
        for id in 0..20 {
            table.slots.make_room();
            let found = table.slots.search(hash, |number| table.is(number, id));
            let Found::Vacant(at) = found else { panic!("{id} is there") };
            table.push(at, hash, id, id * 10);
        }
        for id in 0..20 {
            let number = table.slots.find(hash, |number| table.is(number, id)).unwrap();
            assert_eq!(table.entries[number as usize], (id, id * 10));
        }
        assert_eq!(table.slots.find(hash, |number| table.is(number, 20)), None);
    }

    /// What is counted from anywhere, with gaps, is in runs; what comes in no order is not.
    #[test]
    fn rising_ids_are_in_runs() {
        let mut values = ById::default();
        values.insert(TransactionId::new(7), 0);
        for id in 1_000_000u128..1_010_000 {
            values.insert(TransactionId::new(id * 3), 1);
        }
        assert_eq!((values.runs.len(), values.others.by_hash.len()), (2, 0));
        let scattered = (1..10_000u64).map(|id| id.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        scattered.for_each(|id| values.insert(TransactionId::new(u128::from(id)), 2));
        assert!(values.runs.len() < 1000, "{}", values.runs.len());
    }

    /// An id that came too far ahead lies in a table, and stays there when the last run has grown past it.
    #[test]
    fn an_id_that_a_run_grows_past_stays_where_it_is() {
        let mut values = ById::default();
        let id = TransactionId::new;
        let run_count = RUNS_FREE as u128 + 1;
        (1..=run_count).for_each(|run| values.insert(id(run * 1000), 1));
        let ahead = run_count * 1000 + u128::from(GAP_IDS_MAX) + 10;
        values.insert(id(ahead), 2);
        assert_eq!((values.runs.len() as u128, values.others.has(ahead)), (run_count, true));
        (run_count * 1000 + 1..ahead + 10)
            .for_each(|number| assert!(values.insert_new(id(number), 3) == (number != ahead)));
        let count = values.len();
        assert_eq!((values.runs.len() as u128, values.get(id(ahead))), (run_count, Some(&2)));
        values.insert(id(ahead), 4);
        assert!(!values.insert_new(id(ahead), 5));
        assert_eq!((values.len(), values.get(id(ahead))), (count, Some(&4)));
        assert_eq!(values.iter().filter(|(other, _)| *other == id(ahead)).count(), 1);
    }
}
