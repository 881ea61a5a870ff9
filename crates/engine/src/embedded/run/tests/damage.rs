//! Damaged files: reported, or harmless; never a wrong answer and never a panic.

use super::file::{Kind, seal};
use super::medium::MemoryDisk;
use super::*;
use crate::embedded::codec::crc32c;
use crate::embedded::run::transactions::POSITION_SPAN_MAX;
use crate::store::Damage;
use proptest::prelude::*;
use std::sync::LazyLock;

const NAME: &str = "run";

/// Opens the files and asks them everything. `Ok` only if all the answers are the right ones; panics on a wrong
/// answer.
type Ask = fn(&MemoryDisk) -> Result<(), StoreError>;

static TRANSACTIONS: LazyLock<Vec<(u64, u64)>> = LazyLock::new(|| {
    (0..500u64).map(|number| (fingerprint(&LEDGER, u128::from(number % 400)), 100 + number)).collect()
});

static CUSTOMERS: LazyLock<Vec<(u128, Head, u64)>> =
    LazyLock::new(|| (0..100u64).map(|number| (u128::from(number) << 60, head(number, 1), 100 + number)).collect());

fn ask_transactions(disk: &MemoryDisk) -> Result<(), StoreError> {
    let run = TransactionRun::open(disk, NAME, &LEDGER)?;
    // An error ends the iteration, but the lookups are asked all the same.
    let mut result = run.iter().collect::<Result<Vec<_>, _>>().map(|entries| assert_eq!(entries.len(), 500));
    for number in (0..420usize).step_by(70) {
        let hash = fingerprint(&LEDGER, number as u128);
        let known = [number + 400, number].into_iter().filter_map(|at| TRANSACTIONS.get(at));
        let expected = known.filter(|(other, _)| *other == hash).map(|(_, position)| *position);
        match candidates(&run, hash) {
            Ok(positions) => assert_eq!(positions, expected.collect::<Vec<_>>()),
            Err(error) => result = Err(error),
        }
    }
    result
}

fn ask_customers(disk: &MemoryDisk) -> Result<(), StoreError> {
    let run = CustomerRun::open(disk, NAME, &LEDGER)?;
    let mut result = all_customers(&run, None).map(|entries| assert_eq!(entries, *CUSTOMERS));
    for (id, head, position) in CUSTOMERS.iter().step_by(15) {
        match run.get(CustomerId::new(*id)) {
            Ok(found) => assert_eq!(found, Some((head.clone(), *position))),
            Err(error) => result = Err(error),
        }
        match run.get(CustomerId::new(*id + 1)) {
            Ok(found) => assert_eq!(found, None),
            Err(error) => result = Err(error),
        }
    }
    result
}

/// Both files, small: three blocks at the most.
fn files() -> [(MemoryDisk, Ask); 2] {
    let (transactions, customers) = (MemoryDisk::default(), MemoryDisk::default());
    transaction_run(&transactions, NAME, info(100, 600), TRANSACTIONS.clone());
    customer_run(&customers, NAME, info(100, 200), &CUSTOMERS);
    assert!(ask_transactions(&transactions).is_ok() && ask_customers(&customers).is_ok());
    [(transactions, ask_transactions), (customers, ask_customers)]
}

#[test]
fn every_flipped_byte_is_reported() {
    for (disk, ask) in files() {
        let good = disk.content(NAME);
        let mut bad = good.clone();
        for offset in 0..good.len() {
            bad[offset] ^= 1 << (offset % 8);
            disk.set_content(NAME, &bad);
            let result = ask(&disk);
            assert!(is_damaged(&result), "byte {offset} of {}: {result:?}", good.len());
            bad[offset] = good[offset];
        }
    }
}

#[test]
fn a_file_of_another_length_is_reported() {
    for (disk, ask) in files() {
        let good = disk.content(NAME);
        for length in (0..good.len()).step_by(61).chain([good.len() - 1]) {
            disk.set_content(NAME, &good[..length]);
            assert!(is_damaged(&ask(&disk)), "{length} bytes of {}", good.len());
        }
        disk.set_content(NAME, &[&good[..], b"x"].concat());
        assert!(is_damaged(&ask(&disk)), "a byte too many");
    }
}

/// A medium may lose a write, or put one elsewhere: the old block there is whole and has a right checksum.
#[test]
fn a_block_of_another_place_or_file_is_reported() {
    for (disk, ask) in files() {
        let good = disk.content(NAME);
        let mut swapped = good.clone();
        swapped[4096..3 * 4096].rotate_left(4096);
        disk.set_content(NAME, &swapped);
        assert!(is_damaged(&ask(&disk)));
    }
    let [(disk, _), _] = files();
    transaction_run(&disk, "other", info(99, 600), TRANSACTIONS.clone());
    let (mut mixed, other) = (disk.content(NAME), disk.content("other"));
    mixed[4096..2 * 4096].copy_from_slice(&other[4096..2 * 4096]);
    disk.set_content(NAME, &mixed);
    assert!(is_damaged(&ask_transactions(&disk)));
}

#[test]
fn what_is_no_run_of_this_ledger_is_refused() {
    let [(transactions, _), (customers, _)] = files();
    let other = b"ledger of others";
    for result in [
        TransactionRun::open(&transactions, NAME, other).map(drop),
        CustomerRun::open(&customers, NAME, other).map(drop),
        TransactionRun::open(&customers, NAME, &LEDGER).map(drop),
        CustomerRun::open(&transactions, NAME, &LEDGER).map(drop),
    ] {
        let Err(StoreError::Damaged(Damage { path, .. })) = &result else { panic!("{result:?}") };
        assert_eq!(path, std::path::Path::new("/memory/run"));
    }
}

#[test]
fn a_newer_version_is_named() {
    let [(disk, _), _] = files();
    let mut file = disk.content(NAME);
    file[8] = 2;
    let checksum = crc32c(&file[..4092]).to_le_bytes();
    file[4092..4096].copy_from_slice(&checksum);
    disk.set_content(NAME, &file);
    let result = TransactionRun::open(&disk, NAME, &LEDGER);
    assert!(matches!(result, Err(StoreError::Version { found: 2, known: 1, .. })), "{result:?}");
}

#[test]
fn iteration_ends_after_an_error() {
    for (disk, _) in files() {
        let mut bad = disk.content(NAME);
        bad[4096] ^= 1;
        disk.set_content(NAME, &bad);
        let count = TransactionRun::open(&disk, NAME, &LEDGER).map(|run| run.iter().count());
        let count = count.or_else(|_| CustomerRun::open(&disk, NAME, &LEDGER).map(|run| run.iter_from(None).count()));
        assert_eq!(count.unwrap(), 1);
    }
}

#[test]
fn a_merge_of_damaged_runs_makes_no_file() {
    let [(transactions, _), (customers, _)] = files();
    for (disk, merge) in [
        (
            &transactions,
            (|disk| {
                let run = TransactionRun::open(disk, NAME, &LEDGER)?;
                merge_transactions(disk, "merged", &[&run])
            }) as Ask,
        ),
        (&customers, |disk| {
            let run = CustomerRun::open(disk, NAME, &LEDGER)?;
            merge_customers(disk, "merged", &[&run])
        }),
    ] {
        let mut bad = disk.content(NAME);
        bad[2 * 4096 + 17] ^= 4;
        disk.set_content(NAME, &bad);
        assert!(is_damaged(&merge(disk)));
        assert!(!disk.list().unwrap().contains(&"merged".to_owned()));
    }
}

#[test]
fn what_cannot_be_a_run_is_an_error_of_the_caller() {
    let disk = MemoryDisk::default();
    let (one, two) = (head(1, 1), head(2, 1));
    let customers = |entries: &[(u128, &Head, u64)], info| {
        write_customers(
            &disk,
            NAME,
            info,
            entries.len(),
            entries.iter().map(|&(id, head, at)| (CustomerId::new(id), head.clone(), at)),
        )
    };
    let run = |name, from, to| transaction_run(&disk, name, info(from, to), Vec::new());
    let (first, second, apart) = (run("a", 0, 10), run("b", 10, 20), run("c", 21, 30));
    let mut foreign = one.clone();
    foreign.state.accounts.set(CurrencyIndex(64), Account::default());
    for (what, result) in [
        ("order", customers(&[(2, &one, 1), (1, &two, 1)], info(0, 10))),
        ("twice", customers(&[(1, &one, 1), (1, &two, 1)], info(0, 10))),
        ("position", customers(&[(1, &one, 10)], info(0, 10))),
        ("range", customers(&[], info(10, 0))),
        ("currency", customers(&[(1, &foreign, 1)], info(0, 10))),
        ("position", write_transactions(&disk, NAME, info(5, 10), IdRange::EMPTY, vec![(1, 4)])),
        ("span", write_transactions(&disk, NAME, info(0, POSITION_SPAN_MAX + 1), IdRange::EMPTY, Vec::new())),
        ("nothing", merge_transactions(&disk, NAME, &[])),
        ("gap", merge_transactions(&disk, NAME, &[&second, &apart])),
        ("order", merge_transactions(&disk, NAME, &[&second, &first])),
    ] {
        assert!(matches!(result, Err(StoreError::Io { .. })), "{what}: {result:?}");
    }
    merge_transactions(&disk, NAME, &[&first, &second]).unwrap();
    assert!(disk.list().unwrap().contains(&NAME.to_owned()));
}

/// Gives all parts of a file the checksum of what is in them.
fn seal_again(file: &mut [u8], kind: Kind, info: &RunInfo, key_bytes: usize) {
    let block_count = usize::from(file[56]);
    let keys_at = 4096 * (1 + block_count);
    let filter_at = keys_at + block_count * key_bytes + 4;
    let blocks = (1..=block_count).map(|index| 4096 * index..4096 * (index + 1));
    for part in blocks.chain([keys_at..filter_at, filter_at..file.len()]) {
        let (content, end) = (part.start..part.end - 4, part.end);
        let checksum = crc32c(&file[content]) ^ seal(kind, info, part.start as u64);
        file[end - 4..end].copy_from_slice(&checksum.to_le_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Bytes that no writer wrote, under right checksums: nothing panics, whatever the answers are.
    #[test]
    fn no_content_makes_a_reader_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        few_places: bool,
    ) {
        let disk = MemoryDisk::default();
        transaction_run(&disk, "t", info(100, 600), TRANSACTIONS.clone());
        customer_run(&disk, "c", info(100, 200), &CUSTOMERS);
        let table = [("t", Kind::Transactions, info(100, 600), 5), ("c", Kind::Customers, info(100, 200), 16)];
        for (name, kind, info, key_bytes) in table {
            let mut file = disk.content(name);
            let length = if few_places { 64 } else { file.len() - 4096 };
            for (at, byte) in &changes {
                file[4096 + at.index(length)] = *byte;
            }
            seal_again(&mut file, kind, &info, key_bytes);
            disk.set_content(name, &file);
        }
        if let Ok(run) = TransactionRun::open(&disk, "t", &LEDGER) {
            prop_assert!(run.iter().count() <= 501);
            TRANSACTIONS.iter().step_by(20).for_each(|(hash, _)| drop(candidates(&run, *hash)));
            drop(merge_transactions(&disk, "merged", &[&run]));
        }
        if let Ok(run) = CustomerRun::open(&disk, "c", &LEDGER) {
            drop(all_customers(&run, None));
            CUSTOMERS.iter().step_by(10).for_each(|(id, _, _)| drop(run.get(CustomerId::new(*id))));
            drop(merge_customers(&disk, "merged", &[&run]));
        }
    }
}
