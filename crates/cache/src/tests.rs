//! Which calls the cache spares, and lies with a good seal: what somebody could put who knows the secret.
#![allow(clippy::unwrap_used, clippy::panic)]

mod checks;

use crate::codec;
use crate::redis_server::RedisServer;
use crate::seal::{About, Seal, wall_ms};
use crate::{CacheSettings, Cached, wrap};
use bursar_core::commit::{Appended, Approval, Outcome, Proposal, ProposeResult};
use bursar_core::{
    AbortReason, Amount, CurrencyIndex, CustomerId, EntryId, Event, EventRef, EventStatus, Hash, Head, LedgerConfig,
    LinkedEvent, Policy, Record, Rejection, Request, RequestKind, TransactionEntry, TransactionId, TransactionKind,
};
use bursar_engine::store::{Chains, MemoryStore, ReadRange, StoreError, Transactions};
use bursar_engine::{Ledger, LedgerOptions, new_config};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A table that counts how often it is asked.
#[derive(Debug)]
struct Counting {
    store: Arc<MemoryStore>,
    gets: AtomicU64,
}

impl Transactions for Counting {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.store.get(ids, entries)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        self.store.propose(proposals, results)
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        self.store.approve(approvals)
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.store.events_of(transaction)
    }
}

struct World {
    redis: RedisServer,
    config: LedgerConfig,
    store: Arc<MemoryStore>,
    table: Arc<Counting>,
    cached: Cached,
    ledger: Ledger,
    seal: Seal,
}

fn world() -> World {
    world_with(|settings| settings)
}

fn world_with(change: fn(CacheSettings) -> CacheSettings) -> World {
    let redis = RedisServer::start();
    let config = new_config(Policy::default(), bursar_core::Currencies::default()).unwrap();
    let store = Arc::new(MemoryStore::new(&config).with_split_batches());
    let table = Arc::new(Counting { store: store.clone(), gets: AtomicU64::new(0) });
    // A slow machine is no fault of the cache: what is counted here must not depend on it.
    let settings = change(CacheSettings { shown_for_ms: 600_000, ..redis.patient_settings() });
    let cached = wrap(&config, store.clone(), table.clone(), &settings).unwrap();
    let options = LedgerOptions { readers: cached.readers.clone(), ..LedgerOptions::default() };
    let ledger = Ledger::with_stores(config.clone(), cached.chains.clone(), cached.transactions.clone(), options);
    let seal = Seal::new(&config.digest(), None);
    World { redis, ledger: ledger.unwrap(), config, store, table, cached, seal }
}

impl World {
    fn gets(&self) -> u64 {
        self.table.gets.load(Ordering::Relaxed)
    }

    fn figures(&self) -> crate::CacheFigures {
        self.cached.cache.as_ref().unwrap().figures()
    }

    /// Puts an entry as an engine would seal it.
    fn forge(&self, about: About, body: &[u8]) {
        let key = self.seal.key(about);
        self.redis.set(&key, &self.seal.close(&key, wall_ms(), body));
    }

    fn told(&self, request: Request) -> Outcome {
        self.ledger.submit(request).unwrap()
    }
}

fn id(n: u128) -> TransactionId {
    TransactionId::new(n)
}

fn deposit(customer: u128, transaction: u128, steps: i64) -> Request {
    Request::deposit(CustomerId::new(customer), id(transaction), Amount::from_steps(steps))
}

fn is_applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Applied(_))
}

const AGAIN: Outcome = Outcome::AlreadyApplied(None);

#[test]
fn a_repeat_is_recognised_without_the_table() {
    let world = world();
    for n in 1..=40 {
        assert!(is_applied(&world.told(deposit(n % 3, n, 5))));
    }
    world.redis.wait_for(":m:", 40);
    let before = world.gets();
    let all: Vec<Request> = (1..=40).map(|n| deposit(n % 3, n, 5)).collect();
    for outcome in world.ledger.submit_batch(all).unwrap() {
        assert_eq!(outcome.unwrap(), AGAIN);
    }
    for n in [40, 1, 17] {
        assert_eq!(world.told(deposit(n % 3, n, 5)), AGAIN);
    }
    assert_eq!(world.gets(), before, "the table was not asked");
    assert!(world.figures().repeats >= 43);
    assert_eq!(world.ledger.figures().cache, Some(world.figures()));

    // Anything else about such a transaction is the table's to tell.
    let other = Rejection::TransactionIdTaken { existing: state(&world, 1) };
    assert_eq!(world.told(deposit(1, 1, 6)), Outcome::Rejected(other));
    assert!(is_applied(&world.told(Request::dispute(CustomerId::new(1), id(1)))));
    assert_eq!(world.told(deposit(1, 1, 5)), AGAIN);
    assert_eq!(world.told(Request::dispute(CustomerId::new(1), id(1))), Outcome::Rejected(Rejection::AlreadyDisputed));
    assert!(world.gets() > before);
}

fn state(world: &World, n: u128) -> bursar_core::TransactionState {
    let mut entries = Vec::new();
    world.store.get(&[id(n).into()], &mut entries).unwrap();
    entries[0].approved.unwrap()
}

/// The event that made a transaction, and what it builds on, as the chain has them.
fn maker_of(world: &World, customer: u128, seq: u64) -> (LinkedEvent, Hash) {
    let mut entries = Vec::new();
    world.store.read(CustomerId::new(customer), ReadRange::ALL, &mut entries).unwrap();
    let start = Head::start(&world.config.digest(), CustomerId::new(customer)).link;
    let before = entries.iter().find(|entry| entry.linked.event.seq + 1 == seq);
    let link = before.map_or(start, |entry| entry.linked.hash);
    (entries.iter().find(|entry| entry.linked.event.seq == seq).unwrap().linked.clone(), link)
}

/// Somebody with the secret puts makers that were never made: they are held against the chain.
#[test]
fn makers_that_lie_are_found_out_by_the_chain() {
    let world = world();
    for n in 1..=3 {
        assert!(is_applied(&world.told(deposit(1, n, 100))));
    }
    world.redis.wait_for(":m:", 3);
    let (event, link) = maker_of(&world, 1, 3);
    let put = |about: u128, event: &Event, link: &Hash| {
        world.forge(About::Maker(id(about)), &codec::put_maker(event, link));
    };
    // A deposit that was never made, in the place of one that was.
    let other_id = Event { transaction: Some(id(50)), ..event.event.clone() };
    put(50, &other_id, &link);
    assert!(is_applied(&world.told(deposit(1, 50, 100))), "it is new, whatever the cache says");
    // The true event under another transaction's key.
    put(51, &event.event, &link);
    assert!(is_applied(&world.told(deposit(1, 51, 100))));
    // Another amount of one that was made: its id is the true event's no more.
    put(3, &Event { amount: Amount::from_steps(7), ..event.event.clone() }, &link);
    let taken = Rejection::TransactionIdTaken { existing: state(&world, 3) };
    assert_eq!(world.told(deposit(1, 3, 7)), Outcome::Rejected(taken));
    // One from the future, at a place that the chain will have.
    let future = Event { seq: 6, transaction: Some(id(52)), ..event.event.clone() };
    put(52, &future, &link);
    assert!(is_applied(&world.told(deposit(1, 52, 100))));
    // Another customer's, and a withdrawal instead of a deposit.
    put(53, &Event { customer: CustomerId::new(2), transaction: Some(id(53)), ..event.event.clone() }, &link);
    assert!(is_applied(&world.told(deposit(2, 53, 100))));
    let (kind, transaction_kind) = (RequestKind::Withdrawal, TransactionKind::Withdrawal);
    put(54, &Event { kind, transaction_kind, transaction: Some(id(54)), ..event.event.clone() }, &link);
    let withdrawal = Request::withdrawal(CustomerId::new(1), id(54), Amount::from_steps(100));
    assert!(is_applied(&world.told(withdrawal)));
    let head = world.ledger.customer(CustomerId::new(1)).unwrap().unwrap();
    let available = head.state.accounts.get(CurrencyIndex(0)).available.steps();
    assert_eq!(available, 600 - 100, "six deposits and a withdrawal");
    assert!(world.figures().disbelieved >= 5, "{:?}", world.figures());
}

/// An event that stands in the chain, and was aborted, makes nothing: its id can be used, and is.
#[test]
fn an_aborted_maker_makes_nothing() {
    let world = world();
    assert!(is_applied(&world.told(deposit(1, 1, 100))));
    let (first, _) = maker_of(&world, 1, 1);
    let event = Event { seq: 2, transaction: Some(id(9)), ..first.event.clone() };
    let linked = LinkedEvent::new(event.clone(), &first.hash);
    let aborted = Record::Aborted(linked.reference(), AbortReason::TransactionConflict);
    let mut results = Vec::new();
    world.store.append(&[Record::Started(linked), aborted], &mut results).unwrap();
    assert_eq!(results, [Appended::Yes, Appended::Yes]);
    world.forge(About::Maker(id(9)), &codec::put_maker(&event, &first.hash));
    assert!(is_applied(&world.told(deposit(1, 9, 100))), "it was never in effect");
}

/// Accounts and states that lie, with a good seal, are shown to people and decide nothing.
#[test]
fn heads_and_entries_that_lie_decide_nothing() {
    let world = world();
    assert!(is_applied(&world.told(deposit(1, 1, 100))));
    let customer = CustomerId::new(1);
    let mut head = world.ledger.customer(customer).unwrap().unwrap();
    let rich = bursar_core::Account { available: Amount::from_steps(1_000_000), held: Amount::ZERO };
    head.state.accounts.set(CurrencyIndex(0), rich);
    world.forge(About::Head(customer), &codec::put_head(&head));
    assert_eq!(world.ledger.customer(customer).unwrap().unwrap(), head, "who has the secret can lie to people");
    let withdrawal = Request::withdrawal(customer, id(2), Amount::from_steps(101));
    let (asked, available) = (Amount::from_steps(101), Amount::from_steps(100));
    let refused = Rejection::InsufficientFunds { currency: CurrencyIndex(0), asked, available };
    assert_eq!(world.told(withdrawal), Outcome::Rejected(refused));
    // Poorer than true, too.
    head.state.accounts.set(CurrencyIndex(0), bursar_core::Account::default());
    world.forge(About::Head(customer), &codec::put_head(&head));
    let all = Request::withdrawal(customer, id(3), Amount::from_steps(100));
    assert!(is_applied(&world.told(all)));
    // A transaction said to be disputed is posted all the same.
    let mut entries = Vec::new();
    world.store.get(&[id(1).into()], &mut entries).unwrap();
    let mut entry = entries[0];
    entry.approved.as_mut().unwrap().status = bursar_core::TransactionStatus::Disputed;
    world.forge(About::Transaction(id(1)), &codec::put_entry(&entry));
    assert_eq!(world.told(Request::resolve(customer, id(1))), Outcome::Rejected(Rejection::NotDisputed));
    assert!(is_applied(&world.told(Request::dispute(customer, id(1)))));
    // How an event stands is not believed either, where something is decided on it.
    let (event, _) = maker_of(&world, 1, 1);
    let aborted = EventStatus::Aborted(AbortReason::TransactionConflict);
    world.forge(About::Status(customer, 1), &codec::put_closed(&event.reference(), &aborted));
    assert_eq!(world.told(deposit(1, 1, 100)), AGAIN);
}

/// With a secret, entries sealed without it are not believed by anybody.
#[test]
fn without_the_secret_nobody_is_lied_to() {
    let world = world_with(|settings| CacheSettings { secret_env: Some("PATH".to_owned()), ..settings });
    assert!(is_applied(&world.told(deposit(1, 1, 100))));
    let customer = CustomerId::new(1);
    let head = world.ledger.customer(customer).unwrap().unwrap();
    let mut forged = head.clone();
    forged.state.locked = true;
    world.forge(About::Head(customer), &codec::put_head(&forged));
    assert_eq!(world.ledger.customer(customer).unwrap().unwrap(), head);
    assert!(world.figures().disbelieved > 0);
}

/// Readers are spared the stores, and see what this engine has changed at once.
#[test]
fn people_are_shown_what_is_true_after_each_change() {
    let world = world();
    let customer = CustomerId::new(1);
    for n in 1..=20 {
        let applied = world.told(deposit(1, n, 10));
        let Outcome::Applied(receipt) = applied else { panic!("{applied:?}") };
        for _ in 0..2 {
            let head = world.ledger.customer(customer).unwrap().unwrap();
            assert_eq!((head.seq, head.link), (receipt.event.seq, receipt.hash));
        }
        let shown = world.ledger.transaction(id(n)).unwrap().unwrap();
        assert_eq!(shown.events, [receipt.event]);
        assert!(is_applied(&world.told(Request::dispute(customer, id(n)))));
        let shown = world.ledger.transaction(id(n)).unwrap().unwrap();
        assert_eq!(shown.events.len(), 2);
        assert_eq!(shown.state.unwrap().status, bursar_core::TransactionStatus::Disputed);
    }
    // Once nothing changes, the table is not asked for what was shown before.
    std::thread::sleep(crate::client::MARK_FOR + std::time::Duration::from_millis(50));
    for about in [About::Transaction(id(3)), About::Touches(id(3))] {
        world.redis.put_by(&world.seal.key(about), || drop(world.ledger.transaction(id(3)).unwrap()));
    }
    let before = world.gets();
    for _ in 0..5 {
        assert_eq!(world.ledger.transaction(id(3)).unwrap().unwrap().events.len(), 2);
    }
    assert_eq!(world.gets(), before);
    let range = ReadRange { from_seq: 2, to_seq: 2, limit: 1, newest_first: false };
    let true_entry = world.ledger.chain(customer, range).unwrap();
    world
        .redis
        .put_by(&world.seal.key(About::Event(customer, 2)), || drop(world.ledger.chain(customer, range).unwrap()));
    let hits = world.figures().hits;
    assert_eq!(world.ledger.chain(customer, range).unwrap(), true_entry);
    assert_eq!(world.figures().hits, hits + 1);
}

/// An entry that was true once is not shown after its time, whoever puts it back, and whenever.
#[test]
fn an_old_entry_is_not_shown() {
    let world = world_with(|settings| CacheSettings { shown_for_ms: 200, ..settings });
    let customer = CustomerId::new(1);
    assert!(is_applied(&world.told(deposit(1, 1, 100))));
    let old = world.ledger.customer(customer).unwrap().unwrap();
    let key = world.seal.key(About::Head(customer));
    let value = world.seal.close(&key, wall_ms() - 300, &codec::put_head(&old));
    assert!(is_applied(&world.told(deposit(1, 2, 100))));
    for _ in 0..3 {
        world.redis.set(&key, &value);
        assert_eq!(world.ledger.customer(customer).unwrap().unwrap().seq, 2);
    }
}

/// What was read before a change is not put after it.
#[test]
fn a_slow_reader_does_not_put_back_what_has_changed() {
    let world = world();
    let customer = CustomerId::new(1);
    assert!(is_applied(&world.told(deposit(1, 1, 100))));
    let shared = &world.cached.cache.as_ref().unwrap().0;
    let asked = crate::shared::Asked::now();
    let mut heads = Vec::new();
    world.store.load(&[customer], &mut heads).unwrap();
    assert!(is_applied(&world.told(deposit(1, 2, 100))));
    let body = codec::put_head(heads[0].as_ref().unwrap());
    shared.put_shown(asked, std::iter::once((About::Head(customer), body)));
    // Entries are put in order: once this one is there, that one has been dealt with.
    shared.put_kept(asked, std::iter::once((About::Status(customer, 99), vec![0])));
    world.redis.wait_for(":s:", 1);
    assert_eq!(world.ledger.customer(customer).unwrap().unwrap().seq, 2);
    let mark = world.redis.get(&world.seal.key(About::Head(customer)));
    assert!(mark.is_none_or(|mark| mark == crate::link::MARK));
}
