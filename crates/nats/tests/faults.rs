//! Two engines over one cluster, while its servers are killed, paused and restarted, and the engines fall asleep and die
//! in the middle of a batch.
//!
//! After each round: everything that was acknowledged is there, and once; what was refused was refused by a state that
//! was not out of date; every chain follows from its rules; the table says what the chains say. The short form runs a
//! few rounds; `BURSAR_NATS_FAULT_ROUNDS=100` runs more, `BURSAR_NATS_FAULT_SEED` other ones.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::{Appended, Outcome, Receipt};
use bursar_engine::core::{
    Action, Amount, ChainCheck, CustomerId, EntryId, EventRef, EventStatus, Head, LedgerConfig, Record, Rejection,
    Request, RequestKind, TransactionId, TransactionState,
};
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, ReadRange, SourceId, SourceMark, StoreError, Transactions,
};
use bursar_engine::{Ledger, LedgerOptions, Totals};
use bursar_nats::{NatsChains, NatsOptions};
use common::{Cluster, PairTable, Sync, config};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

const CUSTOMERS: u64 = 8;

/// What may happen to an engine between two steps of the protocol.
#[derive(Debug, Default)]
struct Fate {
    /// The next append begins so many milliseconds late: by then others have gone on.
    sleep_ms: AtomicU64,
    /// The engine dies: this many appends from now the store writes nothing any more.
    dies_in: AtomicU64,
    slept: AtomicU64,
    died: AtomicU64,
}

/// Chains of an engine to which that can happen.
#[derive(Debug)]
struct Mortal {
    chains: NatsChains,
    fate: Arc<Fate>,
}

impl Chains for Mortal {
    fn whole_batches(&self) -> bool {
        false
    }
    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.chains.load(customers, heads)
    }
    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let sleep_ms = self.fate.sleep_ms.swap(0, Ordering::Relaxed);
        if sleep_ms > 0 {
            self.fate.slept.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(sleep_ms));
        }
        let dies_in = self.fate.dies_in.load(Ordering::Relaxed);
        self.fate.dies_in.store(dies_in.saturating_sub(1), Ordering::Relaxed);
        if dies_in == 1 {
            self.fate.died.fetch_add(1, Ordering::Relaxed);
            let error = Arc::new(std::io::Error::other("the engine dies here"));
            return Err(StoreError::Io { doing: "append", path: "a mortal store".into(), error });
        }
        self.chains.append(records, results)
    }
    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.chains.end_batch(time_ms, mark)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.chains.sync()
    }
    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.chains.status(events, statuses)
    }
    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.chains.read(customer, range, entries)
    }
    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.chains.open_customers()
    }
    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.chains.list(after, limit, heads)
    }
    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.chains.source(source)
    }
    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.chains.sources()
    }
    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.chains.rejected_lines(source)
    }
    fn totals(&self) -> Result<Totals, StoreError> {
        self.chains.totals()
    }
    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.chains.last_time_ms()
    }
}

/// An engine of its own, made anew when it has stopped.
struct Engine {
    options: NatsOptions,
    table: Arc<PairTable>,
    fate: Arc<Fate>,
    ledger: RwLock<Option<Arc<Ledger>>>,
}

impl Engine {
    fn new(options: NatsOptions, table: Arc<PairTable>) -> Self {
        Self { options, table, fate: Arc::default(), ledger: RwLock::new(None) }
    }

    /// The ledger, opened if it is not; `None` while the cluster cannot be reached.
    fn ledger(&self) -> Option<Arc<Ledger>> {
        if let Some(ledger) = &*self.ledger.read().unwrap() {
            return Some(ledger.clone());
        }
        let mut ledger = self.ledger.write().unwrap();
        if ledger.is_none() {
            let chains = NatsChains::open(self.options.clone()).ok()?;
            let config = chains.config().clone();
            let chains = Arc::new(Mortal { chains, fate: self.fate.clone() });
            let table: Arc<dyn Transactions> = self.table.clone();
            let opened = Ledger::with_stores(config, chains, table, LedgerOptions::default());
            *ledger = Some(Arc::new(opened.ok()?));
        }
        ledger.clone()
    }

    fn submit(&self, request: Request) -> Option<Outcome> {
        let ledger = self.ledger()?;
        let submitted = ledger.submit(request);
        if let Err(error) = &submitted {
            if let bursar_engine::SubmitError::Busy = error {
                return None;
            }
            // It has stopped: the next one opens it again.
            self.ledger.write().unwrap().take_if(|stopped| Arc::ptr_eq(stopped, &ledger));
        }
        submitted.ok()
    }
}

/// What callers were told of one request.
#[derive(Debug)]
struct Told {
    request: Request,
    outcome: Option<Outcome>,
    /// The newest event of the customer that was acknowledged to anybody before the request was made.
    acknowledged_seq: u64,
}

#[derive(Default)]
struct Book {
    told: Mutex<Vec<Told>>,
    acknowledged: [AtomicU64; CUSTOMERS as usize + 1],
    next: AtomicU64,
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Asks one engine for one thing after the other; every few times the other engine for the same thing as well.
fn write(engines: &[Engine; 2], which: usize, book: &Book, stopped: &AtomicBool, seed: u64) {
    let mut random = Random(seed);
    let mut mine: Vec<(CustomerId, TransactionId)> = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        let number = random.below(CUSTOMERS) + 1;
        let customer = CustomerId::new(u128::from(number));
        let transaction = TransactionId::new(u128::from(book.next.fetch_add(1, Ordering::Relaxed)));
        let amount = Amount::from_steps(random.below(100).cast_signed() + 1);
        let old = mine.get(random.below(mine.len().max(1) as u64) as usize).copied();
        let request = match (random.below(10), old) {
            (0, Some((customer, transaction))) => Request::dispute(customer, transaction),
            (1, Some((customer, transaction))) => Request::resolve(customer, transaction),
            (2..=5, _) => Request::withdrawal(customer, transaction, amount),
            _ => {
                mine.push((customer, transaction));
                Request::deposit(customer, transaction, amount)
            }
        };
        let ask = |engine: &Engine| {
            let acknowledged = &book.acknowledged[request.customer.bits() as usize];
            let acknowledged_seq = acknowledged.load(Ordering::SeqCst);
            let outcome = engine.submit(request);
            if let Some(Outcome::Applied(Receipt { event, .. })) = &outcome {
                acknowledged.fetch_max(event.seq, Ordering::SeqCst);
            }
            book.told.lock().unwrap().push(Told { request, outcome, acknowledged_seq });
        };
        if random.below(8) == 0 {
            std::thread::scope(|scope| engines.iter().for_each(|engine| drop(scope.spawn(|| ask(engine)))));
        } else {
            ask(&engines[which]);
        }
    }
}

/// One thing that goes wrong, while engines write.
fn fault(cluster: &mut Cluster, engines: &[Engine; 2], random: &mut Random) -> &'static str {
    let which = random.below(3) as usize;
    let short = Duration::from_millis(200 + random.below(800));
    match random.below(7) {
        0 => {
            cluster.nodes[which].kill();
            std::thread::sleep(short);
            cluster.nodes[which].start();
            "a server killed"
        }
        1 => {
            cluster.nodes.iter_mut().for_each(common::Node::kill);
            std::thread::sleep(short);
            cluster.nodes.iter_mut().for_each(common::Node::start);
            "all servers killed"
        }
        2 => {
            for index in 0..3 {
                cluster.nodes[(which + index) % 3].kill();
                std::thread::sleep(short / 4);
                cluster.nodes[(which + index) % 3].start();
                std::thread::sleep(short);
            }
            "servers killed in turn"
        }
        3 => {
            cluster.nodes[which].pause();
            std::thread::sleep(short * 2);
            cluster.nodes[which].resume();
            "a server paused"
        }
        4 => {
            cluster.nodes[which].pause();
            cluster.nodes[(which + 1) % 3].pause();
            std::thread::sleep(short);
            cluster.nodes[which].resume();
            cluster.nodes[(which + 1) % 3].resume();
            "two servers paused"
        }
        5 => {
            engines[which % 2].fate.sleep_ms.store(short.as_millis() as u64, Ordering::Relaxed);
            std::thread::sleep(short * 2);
            "an engine asleep in the middle of a batch"
        }
        _ => {
            engines[which % 2].fate.dies_in.store(1 + random.below(4), Ordering::Relaxed);
            std::thread::sleep(short);
            "an engine dead in the middle of a batch"
        }
    }
}

fn chain(chains: &dyn Chains, customer: CustomerId) -> Vec<ChainEntry> {
    let mut entries = Vec::new();
    chains.read(customer, ReadRange::ALL, &mut entries).unwrap();
    entries
}

/// Everything that must be true after a round.
fn check(config: &LedgerConfig, options: &NatsOptions, table: &PairTable, book: &Book) -> (usize, usize) {
    // What an engine that died left open is settled by whoever opens the ledger next.
    let chains = Arc::new(NatsChains::open(options.clone()).unwrap());
    let mut all: HashMap<CustomerId, Vec<ChainEntry>> = HashMap::new();
    let mut made: HashMap<TransactionId, usize> = HashMap::new();
    let mut states: HashMap<TransactionId, TransactionState> = HashMap::new();
    for number in 1..=CUSTOMERS {
        let customer = CustomerId::new(u128::from(number));
        let entries = chain(&*chains, customer);
        let mut follow = ChainCheck::new(&config.digest(), customer);
        for entry in &entries {
            let transaction = entry.linked.event.transaction.unwrap();
            let known = states.get(&transaction).copied();
            let state = follow.follow(config, known, &entry.linked, &entry.status);
            let state = state.unwrap_or_else(|fault| panic!("customer {customer}, {:?}: {fault}", entry.linked.event));
            states.extend(state.map(|state| (transaction, state)));
            let makes = matches!(entry.linked.event.kind, RequestKind::Deposit | RequestKind::Withdrawal);
            if makes && entry.status == EventStatus::Done {
                *made.entry(transaction).or_default() += 1;
            }
        }
        let mut heads = Vec::new();
        chains.load(&[customer], &mut heads).unwrap();
        let head = heads.pop().flatten();
        assert_eq!(head.as_ref().map_or(0, |head| head.seq), follow.head().seq, "the head of customer {customer}");
        all.insert(customer, entries);
    }
    assert!(made.values().all(|count| *count == 1), "made twice: {made:?}");
    let told = book.told.lock().unwrap();
    let mut applied: HashMap<EventRef, usize> = HashMap::new();
    for Told { request, outcome, acknowledged_seq } in &*told {
        let entries = &all[&request.customer];
        match outcome {
            Some(Outcome::Applied(receipt)) => {
                let entry = &entries[receipt.event.seq as usize - 1];
                assert_eq!(entry.linked.reference(), receipt.event, "acknowledged, and another event is there");
                assert_eq!(entry.status, EventStatus::Done, "acknowledged, and not done: {request:?}");
                *applied.entry(receipt.event).or_default() += 1;
            }
            Some(Outcome::Rejected(Rejection::InsufficientFunds { available, .. })) => {
                let from = *acknowledged_seq as usize;
                // After some event that was not out of date, the account was as the refusal says.
                let nothing = Amount::ZERO;
                let before = if from == 0 { nothing } else { state_after(entries, from) };
                let mut then =
                    std::iter::once(before).chain((from + 1..=entries.len()).map(|seq| state_after(entries, seq)));
                assert!(
                    then.any(|then| then == *available),
                    "refused by a state that was gone: {request:?} {outcome:?}"
                );
                if let Action::Withdrawal(movement) = request.action {
                    let twice = told.iter().filter(|told| told.request == *request).count() > 1;
                    assert!(twice || !made.contains_key(&movement.transaction), "refused, and made: {request:?}");
                }
            }
            Some(Outcome::AlreadyApplied(_)) => {
                let there = request.action.transaction().is_some_and(|transaction| states.contains_key(&transaction));
                assert!(there, "applied before, and not there: {request:?}");
            }
            Some(Outcome::Rejected(_)) | None => {}
        }
    }
    assert!(applied.values().all(|count| *count == 1), "told twice to have been applied");
    let transactions: Vec<TransactionId> = states.keys().copied().collect();
    let (mut table_says, mut statuses) = (Vec::new(), Vec::new());
    let ids: Vec<EntryId> = transactions.iter().map(|transaction| EntryId::from(*transaction)).collect();
    table.get(&ids, &mut table_says).unwrap();
    let proposed: Vec<EventRef> = table_says.iter().map(|entry| entry.proposed.unwrap().event).collect();
    chains.status(&proposed, &mut statuses).unwrap();
    for ((transaction, entry), status) in transactions.iter().zip(&table_says).zip(statuses) {
        let state = entry.proposed.filter(|_| status == Some(EventStatus::Done)).map(|proposed| proposed.state);
        let in_effect = state.or(entry.approved);
        assert_eq!(in_effect.as_ref(), states.get(transaction), "table and chains differ on {transaction}");
    }
    let answered = told.iter().filter(|told| told.outcome.is_some()).count();
    (all.values().map(Vec::len).sum(), answered)
}

/// What was available after an event, by the newest one in effect up to it.
fn state_after(entries: &[ChainEntry], seq: usize) -> Amount {
    let done = entries[..seq].iter().rev().find(|entry| entry.status == EventStatus::Done);
    done.map_or(Amount::ZERO, |entry| entry.linked.event.account().available)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_applied_twice() {
    let rounds = number("BURSAR_NATS_FAULT_ROUNDS", 3);
    let seed = number("BURSAR_NATS_FAULT_SEED", 1);
    let mut cluster = Cluster::start(3, Sync::Always);
    let config = config(9);
    let options = NatsOptions { patience: Duration::from_secs(40), ..cluster.options() };
    let chains = Arc::new(NatsChains::create(&config, options.clone()).unwrap());
    let table = Arc::new(PairTable::new(&config, chains));
    let engines = [Engine::new(options.clone(), table.clone()), Engine::new(options.clone(), table.clone())];
    let book = Book { next: AtomicU64::new(1), ..Book::default() };
    let mut random = Random(seed);
    for round in 1..=rounds {
        let began = Instant::now();
        let stopped = AtomicBool::new(false);
        let (mut faults, mut times) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (engines, book, stopped) = (&engines, &book, &stopped);
                let seed = seed ^ round << 20 ^ writer << 10;
                scope.spawn(move || write(engines, writer as usize % 2, book, stopped, seed));
            }
            for _ in 0..2 {
                std::thread::sleep(Duration::from_millis(300));
                faults.push(fault(&mut cluster, &engines, &mut random));
            }
            times.push(began.elapsed().as_millis());
            cluster.wait_until_healthy();
            times.push(began.elapsed().as_millis());
            std::thread::sleep(Duration::from_millis(700));
            stopped.store(true, Ordering::Relaxed);
        });
        times.push(began.elapsed().as_millis());
        for engine in &engines {
            engine.fate.dies_in.store(0, Ordering::Relaxed);
        }
        let (events, answered) = check(&config, &options, &table, &book);
        times.push(began.elapsed().as_millis());
        eprintln!(
            "round {round}: {events} events, {answered} answers; {faults:?}; faults, healthy, ended, checked after {times:?} ms"
        );
        assert!(answered > 0, "nobody was answered at all");
    }
}
