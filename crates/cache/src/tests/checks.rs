//! Each check that the crate relies on, by itself: taken away, one of these fails.

use super::{AGAIN, World, deposit, id, is_applied, world, world_with};
use crate::codec;
use crate::redis_server::RedisServer;
use crate::seal::About;
use crate::shared::{Asked, UnderWay};
use crate::{CacheSettings, Cached, wrap};
use bursar_core::commit::Appended;
use bursar_core::{
    AbortReason, Account, Amount, CurrencyIndex, CustomerId, CustomerState, Event, EventId, EventRef, EventStatus,
    Hash, Head, LedgerConfig, LinkedEvent, Policy, Record, RequestKind, TransactionKind,
};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, MemoryStore, ReadRange, SourceId, SourceMark, StoreError,
};
use bursar_engine::{Readers, Totals, new_config};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Whose keys the tests put themselves, and how such a key looks.
const OWN_CUSTOMER: u128 = 0x0999;
const OWN: &str = ":s:00000000000000000000000000000999:";

/// Chains whose appends or syncs fail when they are told to.
#[derive(Debug)]
struct Failing {
    store: Arc<MemoryStore>,
    append: AtomicBool,
    sync: AtomicBool,
}

fn refused() -> StoreError {
    let error = Arc::new(std::io::Error::other("as the test wants it"));
    StoreError::Io { doing: "write", path: "nowhere".into(), error }
}

impl Chains for Failing {
    fn whole_batches(&self) -> bool {
        false
    }
    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.store.load(customers, heads)
    }
    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        if self.append.load(Ordering::Relaxed) { Err(refused()) } else { self.store.append(records, results) }
    }
    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.store.end_batch(time_ms, mark)
    }
    fn sync(&self) -> Result<(), StoreError> {
        if self.sync.load(Ordering::Relaxed) { Err(refused()) } else { self.store.sync() }
    }
    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.store.status(events, statuses)
    }
    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.store.read(customer, range, entries)
    }
    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.store.open_customers()
    }
    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.store.list(after, limit, heads)
    }
    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.store.source(source)
    }
    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.store.sources()
    }
    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.store.rejected_lines(source)
    }
    fn totals(&self) -> Result<Totals, StoreError> {
        self.store.totals()
    }
    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.store.last_time_ms()
    }
}

/// Stores behind a cache, and nobody who decides.
struct Bare {
    redis: RedisServer,
    config: LedgerConfig,
    chains: Arc<Failing>,
    cached: Cached,
    readers: Readers,
}

fn bare() -> Bare {
    let redis = RedisServer::start();
    let config = new_config(Policy::default(), bursar_core::Currencies::default()).unwrap();
    let store = Arc::new(MemoryStore::new(&config).with_split_batches());
    let (append, sync) = (AtomicBool::new(false), AtomicBool::new(false));
    let chains = Arc::new(Failing { store: store.clone(), append, sync });
    let settings = CacheSettings { shown_for_ms: 600_000, ..redis.patient_settings() };
    let cached = wrap(&config, chains.clone(), store, &settings).unwrap();
    let readers = cached.readers.clone().unwrap();
    Bare { redis, config, chains, cached, readers }
}

impl Bare {
    /// Begins a customer's first event, straight in the store, and leaves it open.
    fn begin(&self, customer: u128, transaction: u128) -> LinkedEvent {
        let (customer, amount, currency) = (CustomerId::new(customer), Amount::from_steps(100), CurrencyIndex(0));
        let mut state = CustomerState::default();
        state.accounts.set(currency, Account { available: amount, held: Amount::ZERO });
        let event = Event {
            customer,
            seq: 1,
            time_ms: 1,
            kind: RequestKind::Deposit,
            transaction: Some(id(transaction)),
            transaction_kind: TransactionKind::Deposit,
            amount,
            currency,
            rail: None,
            key: None,
            state,
        };
        let linked = LinkedEvent::new(event, &Head::start(&self.config.digest(), customer).link);
        let mut results = Vec::new();
        self.chains.append(&[Record::Started(linked.clone())], &mut results).unwrap();
        assert_eq!(results, [Appended::Yes]);
        linked
    }

    fn end(&self, event: EventRef) {
        let mut results = Vec::new();
        self.chains.append(&[Record::Done(event)], &mut results).unwrap();
        assert_eq!(results, [Appended::Yes]);
    }

    /// Waits until everything that was to be put is put: entries are put in order. Each call puts one of its own (keys
    /// with `s`), since one that an earlier call put says nothing.
    fn settle(&self) {
        let shared = &self.cached.cache.as_ref().unwrap().0;
        let settled_count = self.redis.keys(OWN).len();
        let own = About::Status(CustomerId::new(OWN_CUSTOMER), settled_count as u64);
        shared.put_kept(Asked::now(), std::iter::once((own, vec![0])));
        self.redis.wait_for(OWN, settled_count + 1);
    }

    /// Has a head read until it is put.
    fn head_is_put(&self, customer: CustomerId) {
        let key = self.cached.cache.as_ref().unwrap().0.seal.key(About::Head(customer));
        self.redis.put_by(&key, || self.readers.chains.load(&[customer], &mut Vec::new()).unwrap());
    }

    fn shown(&self, event: &EventRef) -> (Option<EventStatus>, ChainEntry) {
        let (mut statuses, mut entries) = (Vec::new(), Vec::new());
        self.readers.chains.status(&[*event], &mut statuses).unwrap();
        let range = ReadRange { from_seq: event.seq, to_seq: event.seq, limit: 1, newest_first: false };
        self.readers.chains.read(event.customer, range, &mut entries).unwrap();
        (statuses.pop().unwrap(), entries.pop().unwrap())
    }
}

/// What an event that has not ended says of itself is not kept; and nothing else than what it ended as is shown then.
#[test]
fn an_event_is_put_once_it_has_ended() {
    let bare = bare();
    let event = bare.begin(1, 1).reference();
    for _ in 0..3 {
        assert_eq!(bare.shown(&event).0, Some(EventStatus::Started));
    }
    bare.settle();
    assert!(bare.redis.keys(":e:").is_empty(), "an open event");
    assert_eq!(bare.redis.keys(":s:").len(), 1, "the test's own");
    bare.end(event);
    let (status, entry) = bare.shown(&event);
    assert_eq!((status, entry.status), (Some(EventStatus::Done), EventStatus::Done));
    bare.settle();
    assert_eq!((bare.redis.keys(":e:").len(), bare.redis.keys(":s:").len()), (1, 3), "two are the test's own");
}

/// What was read may be taken back by a crash, until it is durable.
#[test]
fn nothing_is_put_before_it_is_durable() {
    let bare = bare();
    let event = bare.begin(1, 1).reference();
    bare.end(event);
    bare.chains.sync.store(true, Ordering::Relaxed);
    let chains = &bare.readers.chains;
    assert!(chains.load(&[event.customer], &mut Vec::new()).is_err(), "a head");
    assert!(chains.status(&[event], &mut Vec::new()).is_err(), "how an event ended");
    let range = ReadRange { from_seq: 1, to_seq: 1, limit: 1, newest_first: false };
    assert!(chains.read(event.customer, range, &mut Vec::new()).is_err(), "an event");
    bare.settle();
    assert_eq!(bare.redis.keys("bursar:").len(), 1, "the test's own");
    bare.chains.sync.store(false, Ordering::Relaxed);
    bare.shown(&event);
    bare.head_is_put(event.customer);
}

/// Somebody with the secret puts an event, and how it ended, in the place of another one.
#[test]
fn an_entry_about_another_event_is_not_shown() {
    let bare = bare();
    let (one, other) = (bare.begin(1, 1), bare.begin(2, 2));
    bare.end(one.reference());
    bare.end(other.reference());
    let seal = &bare.cached.cache.as_ref().unwrap().0.seal;
    let put = |about: About, body: &[u8]| {
        let key = seal.key(about);
        bare.redis.set(&key, &seal.close(&key, 1, body));
    };
    let aborted = EventStatus::Aborted(AbortReason::TransactionConflict);
    put(About::Status(one.event.customer, 1), &codec::put_closed(&other.reference(), &aborted));
    let lie = ChainEntry { linked: other, status: EventStatus::Done };
    put(About::Event(one.event.customer, 1), &codec::put_closed_event(&lie));
    let (status, entry) = bare.shown(&one.reference());
    assert_eq!(status, Some(EventStatus::Done));
    assert_eq!(entry.linked, one);
}

/// That something does not exist is nothing to be remembered: it may exist a moment later.
#[test]
fn what_does_not_exist_is_never_put() {
    let bare = bare();
    let mut entries = Vec::new();
    let (customer, transaction) = (CustomerId::new(5), id(50));
    bare.readers.transactions.get(&[transaction.into()], &mut entries).unwrap();
    assert!(bare.readers.transactions.events_of(transaction).unwrap().is_empty());
    bare.readers.chains.load(&[customer], &mut Vec::new()).unwrap();
    let never = EventRef { customer, seq: 1, id: EventId::from_first_bits(7) };
    bare.readers.chains.status(&[never], &mut Vec::new()).unwrap();
    bare.settle();
    assert_eq!(bare.redis.keys("bursar:").len(), 1, "the test's own");
}

/// Nobody knows what has become of an append that failed: what it concerned is taken away at once.
#[test]
fn an_append_that_fails_takes_away_what_it_concerns() {
    let bare = bare();
    let linked = bare.begin(1, 1);
    bare.end(linked.reference());
    let of = linked.event.customer;
    bare.head_is_put(of);
    bare.chains.append.store(true, Ordering::Relaxed);
    assert!(bare.cached.chains.append(&[Record::Done(linked.reference())], &mut Vec::new()).is_err());
    let key = bare.cached.cache.as_ref().unwrap().0.seal.key(About::Head(of));
    assert_ne!(bare.redis.get(&key).as_deref().unwrap_or(crate::link::MARK)[0], 1, "an entry");
}

/// A server that gives entries and takes no marks: what this engine has changed, it does not show from there.
#[test]
fn where_no_marks_can_be_made_nothing_is_shown() {
    let world = world_with(|settings| CacheSettings { pause_ms: 1, ..settings });
    let customer = CustomerId::new(1);
    assert!(is_applied(&world.ledger.submit(deposit(1, 1, 100)).unwrap()));
    std::thread::sleep(crate::client::MARK_FOR + Duration::from_millis(50));
    let key = world.seal.key(About::Head(customer));
    world.redis.put_by(&key, || assert_eq!(world.ledger.customer(customer).unwrap().unwrap().seq, 1));
    let rights = redis::cmd("ACL").arg(&["SETUSER", "default", "-set", "-del"]).to_owned();
    rights.exec(&mut world.redis.connection().unwrap()).unwrap();
    assert!(is_applied(&world.ledger.submit(deposit(1, 2, 100)).unwrap()));
    assert_eq!(world.redis.keys(":h:").len(), 1, "it is there, and old");
    // The cache answers again, as far as anybody can tell.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(world.ledger.customer(customer).unwrap().unwrap().seq, 2);
    }
}

/// Whoever was slow puts nothing: a mark may have come and gone since the store was read.
#[test]
fn what_was_read_long_ago_is_not_put() {
    let world = world();
    let customer = CustomerId::new(1);
    assert!(is_applied(&world.ledger.submit(deposit(1, 1, 100)).unwrap()));
    let body = head_of(&world, customer);
    std::thread::sleep(crate::client::MARK_FOR + Duration::from_millis(50));
    let shared = &world.cached.cache.as_ref().unwrap().0;
    let put = |asked: Asked| {
        shared.put_shown(asked, std::iter::once((About::Head(customer), body.clone())));
        shared.put_kept(asked, std::iter::once((About::Status(customer, 99), vec![0])));
        world.redis.wait_for(":s:", 1);
        let key = world.seal.key(About::Head(customer));
        world.redis.get(&key).is_some()
    };
    let asked = Asked::now();
    std::thread::sleep(crate::client::PUT_WITHIN + Duration::from_millis(50));
    assert!(!put(asked), "too late");
    // In time, unless the machine was slow just then.
    world.redis.flush();
    for attempt in 0.. {
        if put(Asked::now()) {
            break;
        }
        assert!(attempt < 100, "it is never put");
        world.redis.flush();
    }
}

fn head_of(world: &World, customer: CustomerId) -> Vec<u8> {
    let mut heads = Vec::new();
    world.store.load(&[customer], &mut heads).unwrap();
    codec::put_head(heads[0].as_ref().unwrap())
}

/// A short look at some of a batch says nothing about the others: one deposit in it is new, wherever it stands.
#[test]
fn what_is_new_among_repeats_is_applied() {
    let world = world();
    for n in 1..=40 {
        assert!(is_applied(&world.ledger.submit(deposit(n % 3, n, 5)).unwrap()));
    }
    world.redis.wait_for(":m:", 40);
    for place in 0..40 {
        let new = 100 + place;
        let batch = (0..40).map(|at| if at == place { deposit(1, new, 5) } else { deposit((at + 1) % 3, at + 1, 5) });
        for (at, outcome) in (0..40).zip(world.ledger.submit_batch(batch.collect()).unwrap()) {
            let outcome = outcome.unwrap();
            assert!(if at == place { is_applied(&outcome) } else { outcome == AGAIN }, "{at} of {place}: {outcome:?}");
        }
    }
}

/// A head that was loaded for an earlier batch says nothing about this one: the store may have failed over since.
#[test]
fn only_heads_of_this_batch_confirm_events() {
    let bare = bare();
    let linked = bare.begin(1, 1);
    bare.end(linked.reference());
    let (customer, digest) = (linked.event.customer, bare.config.digest());
    let mut heads = Vec::new();
    bare.chains.load(&[customer], &mut heads).unwrap();
    let mut under_way = UnderWay::default();
    under_way.loaded(&digest, &[customer], &heads);
    assert!(under_way.is_head(&linked.reference()));
    let other = EventRef { id: EventId::from_hash(&Hash([3; 32])), ..linked.reference() };
    assert!(!under_way.is_head(&other), "in the same place");
    under_way.loaded(&digest, &[CustomerId::new(2)], &[None]);
    assert!(!under_way.is_head(&linked.reference()));
}
