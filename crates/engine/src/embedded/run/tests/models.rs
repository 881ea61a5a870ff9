//! Runs and merges against plain maps.

use super::medium::MemoryDisk;
use super::*;
use crate::embedded::codec::crc32c;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Hashes of which many share their upper 40 bits, and some are far from all others.
fn hash() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0u64..20, any::<u16>()).prop_map(|(upper, lower)| upper << 24 | u64::from(lower)),
        any::<u64>(),
        Just(0),
        Just(u64::MAX),
    ]
}

/// Ids of both forms, some of them close together.
fn id() -> impl Strategy<Value = u128> {
    prop_oneof![0u128..40, any::<u64>().prop_map(u128::from), any::<u128>(), Just(u128::MAX)]
}

/// Sizes of the parts of a journal; the parts are adjacent and not empty.
fn adjacent(part_count: usize) -> Vec<RunInfo> {
    (0..part_count as u64).map(|part| info(1_000 + part * 10_000, 1_000 + (part + 1) * 10_000)).collect()
}

/// Entries in the order of a run.
fn in_order(entries: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut sorted: Vec<_> = entries.iter().map(|(hash, position)| (hash >> 24, *position)).collect();
    sorted.sort_unstable_by_key(|&(fingerprint, position)| (fingerprint, Reverse(position)));
    sorted
}

fn check_transactions(run: &TransactionRun, entries: &[(u64, u64)], probes: &[u64]) {
    let model = in_order(entries);
    let found: Vec<_> = run.iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(found, model);
    assert_eq!(run.entry_count(), model.len() as u64);
    for hash in entries.iter().map(|(hash, _)| hash).chain(probes) {
        let of_hash = model.iter().filter(|(fingerprint, _)| *fingerprint == hash >> 24);
        let expected: Vec<_> = of_hash.map(|(_, position)| *position).collect();
        assert_eq!(candidates(run, *hash).unwrap(), expected, "{hash:#x}");
        assert!(run.may_contain(*hash) || expected.is_empty());
    }
}

fn check_customers(run: &CustomerRun, model: &BTreeMap<u128, (Head, u64)>, probes: &[u128]) {
    let expected: Vec<_> = model.iter().map(|(id, (head, position))| (*id, head.clone(), *position)).collect();
    assert_eq!(all_customers(run, None).unwrap(), expected);
    assert_eq!(run.entry_count(), model.len() as u64);
    for id in model.keys().chain(probes) {
        assert_eq!(run.get(CustomerId::new(*id)).unwrap(), model.get(id).cloned(), "{id}");
        assert!(run.may_contain(CustomerId::new(*id)) || !model.contains_key(id));
    }
    for after in model.keys().chain(probes).step_by(7) {
        let later: Vec<_> = expected.iter().filter(|(id, _, _)| id > after).cloned().collect();
        assert_eq!(all_customers(run, Some(*after)).unwrap(), later, "after {after}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn transactions_are_what_was_written(
        entries in prop::collection::vec((hash(), 1_000u64..11_000), 0..1_500),
        probes in prop::collection::vec(hash(), 20),
    ) {
        let disk = MemoryDisk::default();
        let run = transaction_run(&disk, "run", info(1_000, 11_000), entries.clone());
        check_transactions(&run, &entries, &probes);
    }

    #[test]
    fn merged_transactions_are_all_of_them(
        parts in prop::collection::vec(prop::collection::vec((hash(), 0u64..10_000), 0..500), 1..6),
        probes in prop::collection::vec(hash(), 20),
    ) {
        let disk = MemoryDisk::default();
        let (mut runs, mut all) = (Vec::new(), Vec::new());
        for (index, (mut part, info)) in parts.iter().cloned().zip(adjacent(parts.len())).enumerate() {
            for (_, position) in &mut part {
                *position += info.from;
            }
            all.extend_from_slice(&part);
            runs.push(transaction_run(&disk, &format!("part-{index}"), info, part));
        }
        merge_transactions(&disk, "merged", &runs.iter().collect::<Vec<_>>()).unwrap();
        let merged = TransactionRun::open(&disk, "merged", &LEDGER).unwrap();
        check_transactions(&merged, &all, &probes);
        prop_assert_eq!(*merged.info(), info(1_000, 1_000 + parts.len() as u64 * 10_000));
        prop_assert_eq!(merged.ids(), runs.iter().fold(IdRange::EMPTY, |ids, run| ids.join(run.ids())));
        // A merge is the same file as one written at once.
        write_transactions(&disk, "at once", *merged.info(), merged.ids(), all).unwrap();
        prop_assert!(disk.content("merged") == disk.content("at once"));
    }

    #[test]
    fn customers_are_what_was_written(
        customers in prop::collection::btree_map(id(), (0u64..10_000, 0u8..=64), 0..200),
        probes in prop::collection::vec(id(), 20),
    ) {
        let disk = MemoryDisk::default();
        let model: BTreeMap<_, _> =
            customers.into_iter().map(|(id, (number, accounts))| (id, (head(number, accounts), number + 5))).collect();
        let entries: Vec<_> = model.iter().map(|(id, (head, position))| (*id, head.clone(), *position)).collect();
        let run = customer_run(&disk, "run", info(5, 10_005), &entries);
        check_customers(&run, &model, &probes);
        let ids = model.keys().fold(IdRange::EMPTY, |ids, id| ids.with(*id));
        prop_assert_eq!(run.ids(), ids);
    }

    #[test]
    fn merged_customers_have_their_newest_head(
        parts in prop::collection::vec(prop::collection::btree_map(id(), (0u64..10_000, 0u8..3), 0..150), 1..6),
        probes in prop::collection::vec(id(), 20),
    ) {
        let disk = MemoryDisk::default();
        let (mut runs, mut model) = (Vec::new(), BTreeMap::new());
        for (index, (part, info)) in parts.iter().zip(adjacent(parts.len())).enumerate() {
            let entry = |(id, &(number, accounts)): (&u128, &(u64, u8))| (*id, head(number, accounts), info.from + number);
            let entries: Vec<_> = part.iter().map(entry).collect();
            runs.push(customer_run(&disk, &format!("part-{index}"), info, &entries));
            model.extend(entries.into_iter().map(|(id, head, position)| (id, (head, position))));
        }
        merge_customers(&disk, "merged", &runs.iter().collect::<Vec<_>>()).unwrap();
        let merged = CustomerRun::open(&disk, "merged", &LEDGER).unwrap();
        check_customers(&merged, &model, &probes);
        prop_assert_eq!(*merged.info(), info(1_000, 1_000 + parts.len() as u64 * 10_000));
    }
}

#[test]
fn equal_fingerprints_over_many_blocks_are_all_found() {
    let disk = MemoryDisk::default();
    let mut entries: Vec<_> = (0..3_000).map(|position| (7 << 24, position)).collect();
    entries.extend((0..1_000).map(|position| (5 << 24, position)));
    entries.extend((0..1_000).map(|position| (9 << 24, position)));
    let run = transaction_run(&disk, "run", info(0, 3_000), entries.clone());
    check_transactions(&run, &entries, &[4 << 24, 6 << 24, 8 << 24, 10 << 24]);
}

#[test]
fn a_lookup_reads_one_block() {
    let disk = MemoryDisk::default();
    let hash = |number: u64| fingerprint(&LEDGER, u128::from(number));
    let run = transaction_run(&disk, "t", info(0, 50_000), (0..50_000).map(|number| (hash(number), number)).collect());
    let heads: Vec<_> = (0..5_000u64).map(|number| (u128::from(number), head(number, 1), number)).collect();
    let customers = customer_run(&disk, "c", info(0, 5_000), &heads);
    let before = disk.read_count();
    (0..5_000).for_each(|number| assert!(candidates(&run, hash(number)).unwrap().contains(&number)));
    let transactions_read = disk.read_count() - before;
    for (id, _, _) in &heads {
        assert!(customers.get(CustomerId::new(*id)).unwrap().is_some());
    }
    let customers_read = disk.read_count() - before - transactions_read;
    // One in 409 is the first of its block, and the block before might end with it.
    assert!((5_000..5_050).contains(&transactions_read), "{transactions_read}");
    assert_eq!(customers_read, 5_000);
    let before = disk.read_count();
    (50_000..60_000).for_each(|number| drop(candidates(&run, hash(number)).unwrap()));
    assert!(disk.read_count() - before < 300, "absent ones mostly cost no read");
}

/// A file of version 1 is read with the same fingerprints, filters and seals for ever: a filter that is asked
/// about other bits says "absent" of what is there. Who changes these bytes needs a new version.
#[test]
fn the_bytes_of_a_file_never_change() {
    let disk = MemoryDisk::default();
    let entries = (0..1_000u64).map(|number| (fingerprint(&LEDGER, u128::from(number)), 100 + number)).collect();
    transaction_run(&disk, "t", info(100, 1_100), entries);
    let heads: Vec<_> = (0..200u64).map(|number| (u128::from(number) << 60, head(number, 2), 100 + number)).collect();
    customer_run(&disk, "c", info(100, 300), &heads);
    let of = |name| (disk.content(name).len(), crc32c(&disk.content(name)));
    assert_eq!((of("t"), of("c")), ((17_687, 0xcfb5_5887), (20_872, 0x2094_95a2)));
}

/// What docs/format.md says about sizes.
#[test]
fn entries_are_as_small_as_documented() {
    let disk = MemoryDisk::default();
    let count = 100_000u64;
    let entries = (0..count).map(|number| (fingerprint(&LEDGER, u128::from(number)), number * 100)).collect();
    let transactions = transaction_run(&disk, "t", info(0, count * 100), entries);
    let milli = |bytes: u64| bytes * 1_000 / count;
    assert_eq!((milli(transactions.file_bytes()), milli(transactions.memory_bytes())), (11_338, 1_269));

    let (numbers, uuids) = ((0..count).map(u128::from), (0..count).map(|number| u128::from(number) << 107 | 1 << 64));
    let sizes: [(Vec<u128>, (u64, u64)); 2] =
        [(numbers.collect(), (54_311, 1_473)), (uuids.collect(), (69_526, 1_532))];
    for (ids, expected) in sizes {
        let entry = |(number, id)| (id, head(number as u64, 1), number as u64 * 100);
        let entries: Vec<_> = ids.into_iter().enumerate().map(entry).collect();
        let customers = customer_run(&disk, "c", info(0, count * 100), &entries);
        assert_eq!((milli(customers.file_bytes()), milli(customers.memory_bytes())), expected);
    }
}
