//! Chains alone in a directory, with the transactions table in another store: what is kept and what is not, what a
//! crash between the two leaves, and that neither kind of directory is taken for the other.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::copy::{Target, compare, copy};
use bursar_engine::core::commit::{Appended, Batch, Broken, Limits, Routes, Step, Submission, Ticket};
use bursar_engine::core::{CurrencyIndex, EventStatus, LedgerConfig, Request};
use bursar_engine::driver::Driver;
use bursar_engine::embedded::backup::{backup, restore};
use bursar_engine::embedded::{EmbeddedChains, EmbeddedOptions, EmbeddedStore, FindingCode, VerifyOptions, verify};
use bursar_engine::store::{Chains, MemoryStore, ReadRange, StoreError, Transactions};
use bursar_engine::{EngineError, Ledger, LedgerOptions, SubmitError};
use common::{audit, code, config, customer, deposit, directory, dispute, transaction, withdrawal};
use std::path::Path;
use std::sync::Arc;

const SMALL: EmbeddedOptions =
    EmbeddedOptions { segment_bytes: 6_000, memtable_entries_max: 64, heads_max: 16, background: false };

fn table(config: &LedgerConfig) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(config).with_split_batches())
}

fn create(directory: &Path, config: &LedgerConfig) -> Arc<EmbeddedChains> {
    Arc::new(EmbeddedChains::create(directory, config, SMALL).unwrap())
}

fn open(directory: &Path) -> Arc<EmbeddedChains> {
    Arc::new(EmbeddedChains::open(directory, SMALL).unwrap().0)
}

fn ledger(config: &LedgerConfig, chains: &Arc<EmbeddedChains>, table: &Arc<MemoryStore>) -> Ledger {
    Ledger::with_stores(config.clone(), chains.clone(), table.clone(), LedgerOptions::default()).unwrap()
}

/// Deposits, withdrawals and disputes, some of them refused.
fn requests(batch: u128) -> Vec<Request> {
    let base = batch * 100;
    let mut requests: Vec<Request> = (0..12).map(|n| deposit(n % 5, base + n, 10)).collect();
    requests.extend([withdrawal(1, base + 50, 4), withdrawal(2, base + 51, 1_000_000), dispute(3, base + 3)]);
    requests
}

fn fill(ledger: &Ledger, batches: std::ops::Range<u128>) -> Vec<&'static str> {
    batches
        .flat_map(|batch| ledger.submit_batch(requests(batch)).unwrap())
        .map(|submitted| code(&submitted.unwrap()))
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

#[test]
fn neither_kind_of_directory_is_taken_for_the_other() {
    let (alone, whole, config) = (directory(), directory(), config());
    create(alone.path(), &config).close().unwrap();
    EmbeddedStore::create(whole.path(), &config, SMALL).unwrap().close().unwrap();
    let before = (names(alone.path()), names(whole.path()));
    let refused = EmbeddedStore::open(alone.path(), SMALL).unwrap_err();
    assert!(matches!(refused, StoreError::OtherStores { chains_alone: true, .. }), "{refused}");
    let refused = EmbeddedChains::open(whole.path(), SMALL).unwrap_err();
    assert!(matches!(refused, StoreError::OtherStores { chains_alone: false, .. }), "{refused}");
    assert_eq!(refused.code(), "other_stores");
    let refused = Ledger::open(alone.path(), LedgerOptions::default()).unwrap_err();
    assert!(matches!(refused, EngineError::Store(StoreError::OtherStores { .. })), "{refused}");
    assert_eq!((names(alone.path()), names(whole.path())), before);
    // It is the same ledger all the same, with the same chains.
    assert_eq!(open(alone.path()).config(), &config);
}

/// Whoever gets at the store behind the chains does not find a table that says that nothing was ever made.
#[test]
fn the_store_behind_the_chains_is_no_table() {
    let (home, config) = (directory(), config());
    let chains = create(home.path(), &config);
    let store = chains.embedded().unwrap();
    let mut entries = Vec::new();
    let ids = [transaction(1).into()];
    assert_eq!(store.get(&ids, &mut entries).unwrap_err().code(), "other_stores");
    assert_eq!(store.propose(&[], &mut Vec::new()).unwrap_err().code(), "other_stores");
    assert_eq!(store.approve(&[]).unwrap_err().code(), "other_stores");
    assert_eq!(store.events_of(transaction(1)).unwrap_err().code(), "other_stores");
    assert!(chains.begin_whole(1).unwrap().is_none() && !chains.whole_batches());
}

#[test]
fn a_ledger_on_chains_alone_closes_and_counts_as_any_other() {
    let (home, config) = (directory(), config());
    let (chains, table) = (create(home.path(), &config), table(&config));
    let first = ledger(&config, &chains, &table);
    let codes = fill(&first, 0..20);
    assert_eq!(codes.iter().filter(|&&code| code == "applied").count(), 20 * 14);
    let figures = first.figures().store.unwrap();
    assert!(figures.index_writes > 0 && figures.customer_runs > 0, "{figures:?}");
    assert_eq!((figures.transaction_runs, figures.transactions_asked), (0, 0), "there is no index of transactions");
    let audited = audit(&first);
    let totals = first.totals().unwrap();
    first.close().unwrap();
    drop(chains);
    assert!(names(home.path()).iter().all(|name| !name.starts_with("index-t-")), "{:?}", names(home.path()));
    let (chains, report) = EmbeddedChains::open(home.path(), SMALL).unwrap();
    assert_eq!((report.events_read, report.index_rebuilt, report.cut_off), (0, None, None));
    let second = ledger(&config, &Arc::new(chains), &table);
    assert_eq!(second.totals().unwrap(), totals);
    assert_eq!(audit(&second).chains, audited.chains);
    // What was done is known by the table, and by nothing here.
    assert!(
        fill(&second, 0..1)
            .iter()
            .all(|&code| matches!(code, "already_applied" | "insufficient_funds" | "already_disputed"))
    );
}

/// Few customers fill no memory with heads; the checkpoint follows all the same.
#[test]
fn opening_after_a_kill_costs_what_came_lately() {
    let (home, config) = (directory(), config());
    let (chains, table) = (create(home.path(), &config), table(&config));
    let first = ledger(&config, &chains, &table);
    fill(&first, 0..40);
    let totals = first.totals().unwrap();
    drop(first);
    drop(chains);
    let (chains, report) = EmbeddedChains::open(home.path(), SMALL).unwrap();
    assert!(report.events_read < 100, "{report:?} of {}", totals.event_count);
    assert_eq!(chains.totals().unwrap(), totals);
    drop(chains);
    // Without anything that is derived, it is all read, and the same.
    for name in names(home.path()) {
        if name.starts_with("index-") || name.starts_with("checkpoint") {
            std::fs::remove_file(home.path().join(name)).unwrap();
        }
    }
    let (chains, report) = EmbeddedChains::open(home.path(), SMALL).unwrap();
    assert_eq!(report.events_read, totals.event_count);
    audit(&ledger(&config, &Arc::new(chains), &table));
}

/// A batch is stopped before each of its steps: what was appended until then is durable by chance or lost, what was
/// proposed is in the table, and the next owner makes one whole out of it.
#[test]
fn a_kill_before_any_step_of_a_batch_leaves_what_recovery_settles() {
    let config = config();
    let mut stops = Vec::new();
    for (stop, is_durable) in (0..).flat_map(|stop| [(stop, false), (stop, true)]) {
        let home = directory();
        let (chains, table) = (create(home.path(), &config), table(&config));
        let start = ledger(&config, &chains, &table);
        start.submit_batch(vec![deposit(1, 1, 100), deposit(2, 2, 100)]).unwrap();
        drop(start);
        let shared: Arc<dyn Chains> = chains.clone();
        let limits = Limits::default();
        let mut driver = Driver::new(config.clone(), Routes::default(), limits, shared, table.clone(), 1).unwrap();
        let asked = [withdrawal(1, 3, 30), deposit(2, 4, 5), dispute(2, 2), withdrawal(1, 5, 30)];
        for (number, request) in (0..).zip(&asked) {
            driver.submit(Submission::new(Ticket(number), *request));
        }
        let mut batch = Batch::new(1);
        driver.begin_batch(2_000_000_000_000, &mut batch);
        let mut is_over = false;
        for _ in 0..stop {
            is_over = !driver.step_batch(&mut batch).unwrap();
        }
        stops.push(batch.step());
        if is_durable {
            chains.sync().unwrap();
        }
        drop(driver);
        drop(chains);
        let chains = open(home.path());
        let left = chains.open_customers().unwrap().len();
        let is_begun = matches!(batch.step(), Step::Propose | Step::AppendClosed);
        assert_eq!(left > 0, is_begun && is_durable, "before {:?}", batch.step());
        let next = ledger(&config, &chains, &table);
        // Who never heard asks again: each takes effect once, whether it had got far or not.
        let codes = next.submit_batch(asked.to_vec()).unwrap();
        let codes: Vec<_> = codes.into_iter().map(|submitted| code(&submitted.unwrap())).collect();
        let before = [["applied"; 4], ["already_applied", "already_applied", "already_disputed", "already_applied"]];
        assert!(before.iter().any(|expected| codes == *expected), "before {:?}: {codes:?}", batch.step());
        let head = next.customer(customer(1)).unwrap().unwrap();
        assert_eq!((head.seq, head.open.len()), (3, 0));
        audit(&next);
        next.close().unwrap();
        if is_over && is_durable {
            break;
        }
    }
    for step in [Step::Load, Step::Get, Step::AppendStarted, Step::Propose, Step::AppendClosed, Step::Sync] {
        assert!(stops.contains(&step), "never stopped before {step:?}: {stops:?}");
    }
}

/// The power goes while the newest batch is being made durable: its two frames are cut off at any byte. The table has all
/// that the batch proposed, and approved nothing of it, since nobody was told.
#[test]
fn a_torn_tail_is_cut_off_and_what_it_held_can_be_asked_for_again() {
    let config = config();
    let options = EmbeddedOptions::default();
    let (mut whole, mut torn_count, mut open_count, mut again_count) = (None, 0, 0, 0);
    for kept_bytes in (0..).step_by(61) {
        let home = directory();
        let table = table(&config);
        let chains = Arc::new(EmbeddedChains::create(home.path(), &config, options).unwrap());
        let first = ledger(&config, &chains, &table);
        fill(&first, 0..2);
        drop(first);
        let acknowledged = chains.embedded().unwrap().durable_position();
        let shared: Arc<dyn Chains> = chains.clone();
        let limits = Limits::default();
        let mut driver = Driver::new(config.clone(), Routes::default(), limits, shared, table.clone(), 1).unwrap();
        for (number, request) in (0..).zip(requests(2)) {
            driver.submit(Submission::new(Ticket(number), request));
        }
        driver.run_batch(2_000_000_000_000, &mut Batch::new(1)).unwrap();
        chains.sync().unwrap();
        let end = chains.embedded().unwrap().durable_position();
        drop(driver);
        drop(chains);
        let cut = (acknowledged + kept_bytes).min(end);
        let journal = names(home.path()).into_iter().rfind(|name| name.starts_with("journal-")).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(home.path().join(journal)).unwrap();
        file.set_len(cut).unwrap();
        let (chains, report) = EmbeddedChains::open(home.path(), options).unwrap();
        torn_count += u64::from(report.cut_off.is_some());
        open_count += u64::from(!chains.open_customers().unwrap().is_empty());
        let second = ledger(&config, &Arc::new(chains), &table);
        let codes = fill(&second, 2..3);
        again_count += u64::from(codes[0] == "applied");
        let audited = audit(&second);
        let sums = second.totals().unwrap().currency(CurrencyIndex(0));
        let (all_sums, all) = whole.get_or_insert_with(|| (sums, audited.transactions.clone()));
        assert_eq!((&sums, &audited.transactions), (&*all_sums, &*all), "{kept_bytes} bytes of the batch are left");
        assert!(fill(&second, 0..3).iter().all(|&code| code != "applied"));
        second.close().unwrap();
        let report = verify(home.path(), &VerifyOptions::default(), &mut |_| ()).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        if cut == end {
            assert_eq!(codes[0], "already_applied");
            break;
        }
    }
    // All was lost, or what was done of it, or nothing.
    assert!(torn_count > 10 && open_count > 3 && again_count > 5, "{torn_count} {open_count} {again_count}");
}

#[test]
fn verification_follows_the_chains_and_says_that_the_table_is_elsewhere() {
    let (home, config) = (directory(), config());
    let (chains, table) = (create(home.path(), &config), table(&config));
    let first = ledger(&config, &chains, &table);
    fill(&first, 0..20);
    let totals = first.totals().unwrap();
    first.close().unwrap();
    drop(chains);
    let all = VerifyOptions::default();
    let report = verify(home.path(), &all, &mut |_| ()).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!((&report.totals, report.event_count, report.open_count), (&totals, totals.event_count, 0));
    let [note] = &report.notes[..] else { panic!("{:?}", report.notes) };
    assert!(note.what.contains("table is elsewhere"), "{note:?}");
    // One customer's chain goes the other way, event by event.
    let only = VerifyOptions { only: Some(customer(3)), ..all };
    let report = verify(home.path(), &only, &mut |_| ()).unwrap();
    assert!(report.is_sound() && report.event_count > 20, "{:?}", report.findings);
    // A head that is not the chain's, an index that is not there, and a byte of an event.
    let names = names(home.path());
    let run = home.path().join(names.iter().find(|name| name.starts_with("index-c-")).unwrap());
    let kept = std::fs::read(&run).unwrap();
    std::fs::remove_file(&run).unwrap();
    let report = verify(home.path(), &all, &mut |_| ()).unwrap();
    assert_eq!(report.findings.iter().map(|found| found.code).collect::<Vec<_>>(), [FindingCode::IndexFile]);
    std::fs::write(&run, kept).unwrap();
    let journal = home.path().join(names.iter().find(|name| name.starts_with("journal-")).unwrap());
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    let report = verify(home.path(), &all, &mut |_| ()).unwrap();
    assert_eq!(report.findings[0].code, FindingCode::FrameUnreadable, "{:?}", report.findings);
    let lost = report.findings[0].lost.as_ref().unwrap();
    assert!(lost.event_count > 0 && lost.customer_count > 0, "{lost:?}");
}

/// What somebody wrote there as if it had happened: the same transaction made by two customers. The table would never
/// have let it pass; the chains tell it by themselves.
#[test]
fn verification_finds_a_transaction_that_two_customers_made() {
    let (home, config) = (directory(), config());
    let chains = create(home.path(), &config);
    // Each with a table of its own, which knows nothing of the other.
    for of in [1, 2] {
        let deluded = ledger(&config, &chains, &table(&config));
        assert_eq!(code(&deluded.submit(deposit(of, 7, 10)).unwrap()), "applied");
        deluded.close().unwrap();
    }
    drop(chains);
    let report = verify(home.path(), &VerifyOptions::default(), &mut |_| ()).unwrap();
    assert!(!report.is_sound());
    assert_eq!(report.findings[0].code.code(), "not_allowed", "{:?}", report.findings);
}

#[test]
fn a_copy_stays_what_it_is_and_a_table_can_be_made_anew_from_it() {
    let (home, copied, restored, anew, config) = (directory(), directory(), directory(), directory(), config());
    let (chains, first_table) = (create(home.path(), &config), table(&config));
    let first = ledger(&config, &chains, &first_table);
    fill(&first, 0..10);
    let audited = audit(&first);
    drop(first);
    drop(chains);
    let report = backup(home.path(), copied.path(), SMALL, &mut |_, _| ()).unwrap();
    assert!(report.frames_copied > 20, "{report:?}");
    let to = restored.path().join("data");
    restore(copied.path(), &to, &mut |_, _| ()).unwrap();
    assert!(matches!(EmbeddedStore::open(&to, SMALL).unwrap_err(), StoreError::OtherStores { chains_alone: true, .. }));
    let chains = open(&to);
    audit(&ledger(&config, &chains, &first_table));
    // The table is lost: chains and table are made anew from the chains.
    let (new_chains, new_table) = (create(anew.path(), &config), table(&config));
    let target = Target { chains: &*new_chains, transactions: &*new_table };
    copy(&config.digest(), &*chains, target, 7, |_| ()).unwrap();
    assert_eq!(compare(&*chains, &*new_chains).unwrap(), audited.chains.len() as u64);
    let second = ledger(&config, &new_chains, &new_table);
    let again = audit(&second);
    assert_eq!((again.chains, again.transactions), (audited.chains, audited.transactions));
    assert!(fill(&second, 0..10).iter().all(|&code| code != "applied"));
}

fn copy_directory(from: &Path, to: &Path) {
    for name in names(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

/// An older copy of the directory was put beside the table that went on. Whoever asked about what came after the copy was
/// never answered: its customer was loaded again and again.
#[test]
fn an_older_directory_beside_its_table_is_an_error_that_names_the_event() {
    let (home, older, config) = (directory(), directory(), config());
    let (chains, table) = (create(home.path(), &config), table(&config));
    let first = ledger(&config, &chains, &table);
    fill(&first, 0..2);
    first.close().unwrap();
    drop(chains);
    copy_directory(home.path(), older.path());
    let chains = open(home.path());
    let second = ledger(&config, &chains, &table);
    let receipts = second.submit_batch(vec![deposit(1, 9_001, 10), deposit(2, 9_002, 10)]).unwrap();
    assert!(receipts.iter().all(|receipt| code(receipt.as_ref().unwrap()) == "applied"));
    second.close().unwrap();
    drop(chains);
    let newest_seq = |customer: u128| {
        let mut heads = Vec::new();
        open(home.path()).load(&[common::customer(customer)], &mut heads).unwrap();
        heads[0].as_ref().unwrap().seq
    };
    for (of, asked) in [(1, deposit(1, 9_001, 10)), (2, dispute(2, 9_002)), (1, withdrawal(1, 9_001, 10))] {
        let away = directory();
        copy_directory(older.path(), away.path());
        let chains: Arc<dyn Chains> = open(away.path());
        let limits = Limits::default();
        let mut driver = Driver::new(config.clone(), Routes::default(), limits, chains, table.clone(), 1).unwrap();
        driver.submit(Submission::new(Ticket(1), deposit(4, 9_100 + of, 10)));
        driver.submit(Submission::new(Ticket(2), asked));
        let mut batch = Batch::new(1);
        let mut batches = (0..10).map(|time_ms| driver.run_batch(2_000_000_000_000 + time_ms, &mut batch));
        let error = batches.find_map(Result::err).expect("it asks for ever");
        let EngineError::Broken(Broken::EventMissing { entry, event }) = &error else { panic!("{error}") };
        assert_eq!(*entry, transaction(9_000 + of).into());
        assert_eq!((event.customer, event.seq), (customer(of), newest_seq(of)));
        for named in [format!("{}", event.id), format!("transaction {}", 9_000 + of), format!("customer {of}")] {
            assert!(error.to_string().contains(&named), "{error}");
        }
    }
    // Whoever asks through a ledger hears it, and so does everybody after.
    let chains = open(older.path());
    let third = ledger(&config, &chains, &table);
    for asked in [deposit(1, 9_001, 10), deposit(4, 9_200, 10)] {
        let error = third.submit(asked).unwrap_err();
        let SubmitError::Stopped(error) = error else { panic!("{error}") };
        assert!(matches!(&*error, EngineError::Broken(Broken::EventMissing { .. })), "{error}");
    }
    drop(third);
    // With the newer directory everything is as it was.
    let fourth = ledger(&config, &open(home.path()), &table);
    assert_eq!(code(&fourth.submit(deposit(1, 9_001, 10)).unwrap()), "already_applied");
    audit(&fourth);
}

/// Every event is begun in one frame and closed in a later one, and the feed tells both.
#[test]
fn what_was_started_and_what_was_done_are_records_of_their_own() {
    let (home, config) = (directory(), config());
    let (chains, table) = (create(home.path(), &config), table(&config));
    let only = ledger(&config, &chains, &table);
    fill(&only, 0..10);
    let feed = chains.feed().unwrap();
    let (mut items, mut position) = (Vec::new(), feed.start());
    loop {
        let known = items.len();
        position = feed.read(position, 17, &mut items).unwrap();
        if items.len() == known {
            break;
        }
    }
    let event_count = only.totals().unwrap().event_count as usize;
    assert_eq!(items.len(), 2 * event_count);
    let mut begun = std::collections::BTreeSet::new();
    for item in &items {
        let event = item.entry.linked.reference();
        let place = (event.customer, event.seq);
        match item.entry.status {
            EventStatus::Started => assert!(begun.insert(place), "{event:?} is begun twice"),
            EventStatus::Done => assert!(begun.remove(&place), "{event:?} is done before it is begun"),
            EventStatus::DoneByHand(_) | EventStatus::Aborted(_) => panic!("{item:?}"),
        }
    }
    assert!(begun.is_empty(), "{begun:?}");
    let mut entries = Vec::new();
    chains.read(customer(1), ReadRange::ALL, &mut entries).unwrap();
    assert!(entries.iter().all(|entry| entry.status == EventStatus::Done));
    let mut again = Vec::new();
    let closed = bursar_engine::core::Record::Done(entries[0].linked.reference());
    chains.append(&[closed], &mut again).unwrap();
    assert_eq!(again, [Appended::AlreadyDone]);
}
