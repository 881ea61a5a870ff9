//! Two engine processes write to the same customers of one ledger while their server is killed, paused and cut off,
//! and they themselves are killed and paused. After each round everything is compared: chains, table, sums, and what
//! the engines were told.
//!
//! A short form runs with all tests; `BURSAR_FAULT_ROUNDS=100` says how many rounds, `BURSAR_FAULT_SEED` which.
//! What is not tried: loss of power, since the server's files stay in the system's memory.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

mod common;

use bursar_engine::core::commit::{Outcome, RailAnswer, RailCall, Routes, Terms};
use bursar_engine::core::{
    AbortReason, Amount, ChainCheck, CurrencyIndex, CustomerId, EntryId, EventRef, EventStatus, LedgerConfig, Policy,
    RailId, ReasonText, Rejection, Request, RequestKey, TransactionId, TransactionState,
};
use bursar_engine::store::{ChainEntry, Chains, CustomerHead, ReadRange, Transactions};
use bursar_engine::{EngineError, Ledger, LedgerOptions, Rail, RailReply, Totals, new_config};
use bursar_postgres::{PostgresConfig, PostgresStore};
use common::PostgresServer;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const CUSTOMERS: u64 = 10;
const ROUTE: &str = "BURSAR_TEST_ENGINE";

/// Numbers that follow from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// A rail that keeps its promise without a book: its answer follows from the event's id. It takes its time.
#[derive(Debug)]
struct SlowRail;

impl Rail for SlowRail {
    fn call(&self, call: RailCall, reply: RailReply) {
        let bits = call.event.id().bits();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis((bits >> 64) as u64 % 15));
            let refused = || RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new("not today")));
            reply.answer(if bits.is_multiple_of(5) { refused() } else { RailAnswer::Done });
        });
    }
}

fn options() -> LedgerOptions {
    let rail = RailId::new(1).unwrap();
    let routes = Routes { withdrawal: Some(rail), ..Routes::default() };
    let mut options = LedgerOptions { routes, ..LedgerOptions::default() }.with_rail(rail, Arc::new(SlowRail));
    options.limits.ask_again_ms = 20;
    options
}

fn ledger_on(store: &Arc<PostgresStore>) -> Result<Ledger, EngineError> {
    Ledger::with_stores(store.config().clone(), store.clone(), store.clone(), options())
}

// ---------------------------------------------------------------------------------------------------------------------
// The engine process.

/// The requests that an engine makes: both engines choose among the same transactions.
fn request(dice: &mut Dice, round: u64) -> Request {
    let number = dice.below(300);
    let transaction = TransactionId::new(u128::from(round * 1_000 + number) << (number % 2 * 70));
    // Mostly the same customer and amount for the same transaction, so that repeats are repeats.
    let odd = u64::from(dice.below(10) == 0);
    let customer = CustomerId::new(u128::from((number + odd) % CUSTOMERS) << (number % 2 * 66));
    let amount = Amount::from_steps((number % 7 + 1 + odd).cast_signed());
    match dice.below(10) {
        0..=4 if !number.is_multiple_of(3) => Request::deposit(customer, transaction, amount),
        0..=4 => Request::withdrawal(customer, transaction, amount),
        5..=6 => Request::dispute(customer, transaction),
        7..=8 => Request::resolve(customer, transaction),
        _ if dice.below(4) == 0 => Request::chargeback(customer, transaction),
        _ => Request::unlock(customer),
    }
}

/// Not a test of its own: the engine process, which the other test starts.
#[test]
fn engine_process() {
    let Ok(route) = std::env::var(ROUTE) else { return };
    let [url, schema, round, seed, log] = route.split('|').collect::<Vec<_>>()[..] else { panic!("{route}") };
    let (round, seed): (u64, u64) = (round.parse().unwrap(), seed.parse().unwrap());
    let config = PostgresConfig { schema: schema.to_owned(), ..impatient(url) };
    let stopped = AtomicBool::new(false);
    // A ledger that has given up is opened again, as whoever runs the service would.
    let log = Mutex::new(File::create(log).unwrap());
    let mut life = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
            stopped.store(true, Ordering::Release);
        });
        while !stopped.load(Ordering::Acquire) {
            life += 1;
            let Ok(store) = PostgresStore::open(&config) else { continue };
            let Ok(ledger) = ledger_on(&Arc::new(store)) else { continue };
            std::thread::scope(|scope| {
                for thread in 0..3 {
                    let dice = Dice(seed + thread * 1_000_003 + life * 17);
                    let (ledger, log, stopped) = (&ledger, &log, &stopped);
                    scope.spawn(move || ask(ledger, round, dice, log, stopped));
                }
            });
        }
    });
}

/// The key of some requests that take one. Mostly the same request has it again, sometimes another one.
fn key(ledger: &Ledger, dice: &mut Dice, round: u64, request: &Request) -> Option<RequestKey> {
    if !request.action.takes_key() || dice.below(2) == 0 {
        return None;
    }
    let (customer, transaction) = (request.customer, request.action.transaction());
    let text = match dice.below(10) {
        0 => format!("{round} any {}", dice.below(10)),
        _ => format!("{round} {} {customer} {transaction:?} {}", request.action.kind().name(), dice.below(2)),
    };
    Some(ledger.key(text.as_bytes()).unwrap())
}

fn ask(ledger: &Ledger, round: u64, mut dice: Dice, log: &Mutex<File>, stopped: &AtomicBool) {
    while !stopped.load(Ordering::Acquire) {
        let requests: Vec<Request> = (0..=dice.below(6)).map(|_| request(&mut dice, round)).collect();
        // Begun is written before, ended after: who is killed in between was told nothing.
        let id = dice.roll();
        let (mut begun, mut terms) = (String::new(), Vec::new());
        for (place, request) in requests.iter().enumerate() {
            let (kind, transaction) = (request.action.kind(), request.action.transaction());
            let transaction = transaction.map_or(0, TransactionId::bits);
            let amount = amount_of(request);
            let key = key(ledger, &mut dice, round, request);
            terms.extend(key.map(|key| (place, Terms { key: Some(key), ..Terms::default() })));
            let key = key.map_or(0, RequestKey::bits);
            let (customer, kind) = (request.customer.bits(), kind.name());
            writeln!(begun, "begin {id}.{place} {} {kind} {customer} {transaction} {amount} {key}", now_ns()).unwrap();
        }
        log.lock().unwrap().write_all(begun.as_bytes()).unwrap();
        let (sender, outcomes) = sync_channel(1);
        if ledger.submit_under_then(requests, terms, move |outcomes| drop(sender.send(outcomes))).is_err() {
            return;
        }
        let Ok(outcomes) = outcomes.recv() else { return };
        let ended = now_ns();
        let mut told = String::new();
        for (place, outcome) in outcomes.iter().enumerate() {
            let told_of = match outcome {
                Ok(Outcome::Applied(receipt)) => {
                    format!("applied {} {} {}", receipt.event.seq, receipt.event.id, receipt.hash)
                }
                Ok(Outcome::AlreadyApplied(receipt)) => {
                    format!("already {}", receipt.as_ref().map_or(String::from("-"), |it| it.event.id.to_string()))
                }
                Ok(Outcome::Rejected(Rejection::InsufficientFunds { available, .. })) => {
                    format!("insufficient {}", available.steps())
                }
                Ok(Outcome::Rejected(rejection)) => format!("rejected {}", rejection.code()),
                // Stopped or closed: nothing is known.
                Err(_) => continue,
            };
            writeln!(told, "end {id}.{place} {ended} {told_of}").unwrap();
        }
        log.lock().unwrap().write_all(told.as_bytes()).unwrap();
        if outcomes.iter().any(Result::is_err) {
            return;
        }
    }
}

fn amount_of(request: &Request) -> i64 {
    use bursar_engine::core::Action;
    match request.action {
        Action::Deposit(movement) | Action::Withdrawal(movement) => movement.amount.steps(),
        Action::Dispute(_) | Action::Resolve(_) | Action::Chargeback(_) | Action::Unlock => 0,
    }
}

/// So that engines give up on answers, and on the server, within a round.
fn impatient(url: &str) -> PostgresConfig {
    PostgresConfig {
        statement_timeout_ms: 700,
        connect_timeout_ms: 700,
        retry_for_ms: 8_000,
        connections: 4,
        ..PostgresConfig::new(url)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The rounds.

struct Engine {
    child: Child,
    is_paused: bool,
}

impl Engine {
    fn start(config: &PostgresConfig, round: u64, seed: u64, log: &Path) -> Self {
        let route = format!("{}|{}|{round}|{seed}|{}", config.url, config.schema, log.display());
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "engine_process", "--quiet"])
            .env(ROUTE, route)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, is_paused: false }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets it finish what it has begun.
    fn stop(mut self) {
        if self.is_paused {
            self.signal(rustix::process::Signal::CONT);
        }
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "an engine failed: {status}");
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ServerKilled,
    ServerPaused,
    ConnectionsCut,
    EnginePaused,
    EngineKilled,
}

const FAULTS: [Fault; 5] =
    [Fault::ServerKilled, Fault::ServerPaused, Fault::ConnectionsCut, Fault::EnginePaused, Fault::EngineKilled];

#[test]
fn nothing_is_lost_and_nothing_done_twice() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let round_count = number("BURSAR_FAULT_ROUNDS", 5);
    let seed = number("BURSAR_FAULT_SEED", u64::from(std::process::id()));
    println!("BURSAR_FAULT_SEED={seed}");
    let mut dice = Dice(seed);
    let mut server = PostgresServer::start();
    let ledger = new_config(Policy::default(), bursar_engine::core::Currencies::default()).unwrap();
    let mut history = History::default();
    let config = server.fresh_schema();
    drop(PostgresStore::create(&config, &ledger).unwrap());
    let logs = tempfile::tempdir().unwrap();
    let mut witnessed: BTreeMap<Fault, u64> = BTreeMap::new();
    for round in 0..round_count {
        let mut log_count = 0;
        let mut engine = |dice: &mut Dice| {
            log_count += 1;
            Engine::start(&config, round, dice.roll() >> 8, &logs.path().join(format!("{round}-{log_count}")))
        };
        let mut engines: Vec<Engine> = (0..2).map(|_| engine(&mut dice)).collect();
        std::thread::sleep(Duration::from_millis(300 + dice.below(300)));
        let faults = [FAULTS[(round % 5) as usize], FAULTS[dice.below(5) as usize]];
        for fault in faults {
            *witnessed.entry(fault).or_default() += 1;
            let hit = dice.below(2) as usize;
            match fault {
                Fault::ServerKilled => {
                    server.kill();
                    std::thread::sleep(Duration::from_millis(dice.below(200)));
                    server.run();
                }
                Fault::ServerPaused => {
                    server.pause(true);
                    // Sometimes longer than the engines wait for one answer.
                    std::thread::sleep(Duration::from_millis([50, 500, 3_500][dice.below(3) as usize]));
                    server.pause(false);
                }
                Fault::ConnectionsCut => {
                    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND application_name = 'bursar'";
                    // On a slow machine the engines may not be connected yet.
                    let deadline = Instant::now() + Duration::from_secs(30);
                    while server.psql(cut) == "0" {
                        assert!(Instant::now() < deadline, "no connections to cut");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
                Fault::EnginePaused => {
                    engines[hit].signal(rustix::process::Signal::STOP);
                    engines[hit].is_paused = true;
                }
                Fault::EngineKilled => {
                    engines.remove(hit).kill();
                    engines.push(engine(&mut dice));
                }
            }
            std::thread::sleep(Duration::from_millis(dice.below(400)));
        }
        // Whoever is paused wakes up as a stale engine, beside the other one.
        for engine in &mut engines {
            if std::mem::take(&mut engine.is_paused) {
                engine.signal(rustix::process::Signal::CONT);
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        engines.into_iter().for_each(Engine::stop);
        for number in 1..=log_count {
            history.take(&std::fs::read_to_string(logs.path().join(format!("{round}-{number}"))).unwrap());
        }
        let wrong = check(&config, &ledger, &history);
        assert!(wrong.is_empty(), "seed {seed}, round {round}, {faults:?}:\n{}", wrong.join("\n"));
    }
    let History { begun, ended, .. } = &history;
    let applied = ended.values().filter(|end| matches!(end.told, Told::Applied { .. })).count();
    let keyed = |end: &Ended| matches!(&end.told, Told::Applied { .. } | Told::Already { .. });
    let keyed = ended.iter().filter(|(id, end)| begun[*id].key.is_some() && keyed(end)).count();
    println!(
        "{round_count} rounds, faults {witnessed:?}: {} requests, {} answered, {applied} applied, {keyed} by keys",
        begun.len(),
        ended.len()
    );
    assert!(keyed > 0, "no keys were used");
    assert!(applied as u64 > 20 * round_count, "too little was done: {applied}");
}

// ---------------------------------------------------------------------------------------------------------------------
// What the engines were told, and what must be true then.

#[derive(Clone, Debug)]
struct Begun {
    at_ns: u64,
    kind: String,
    customer: u128,
    transaction: u128,
    amount: i64,
    key: Option<RequestKey>,
}

#[derive(Clone, Debug)]
enum Told {
    Applied { seq: u64, id: String, hash: String },
    Already { id: String },
    Insufficient { available: i64 },
    Rejected,
}

#[derive(Clone, Debug)]
struct Ended {
    at_ns: u64,
    told: Told,
}

#[derive(Default)]
struct History {
    begun: BTreeMap<String, Begun>,
    ended: BTreeMap<String, Ended>,
}

impl History {
    fn take(&mut self, log: &str) {
        // The last line of one that was killed may be cut.
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["begin", id, at, kind, customer, transaction, amount, key] => {
                    let begun = Begun {
                        at_ns: at.parse().unwrap(),
                        kind: kind.to_owned(),
                        customer: customer.parse().unwrap(),
                        transaction: transaction.parse().unwrap(),
                        amount: amount.parse().unwrap(),
                        key: RequestKey::from_bits(key.parse().unwrap()),
                    };
                    self.begun.insert(id.to_owned(), begun);
                }
                ["end", id, at, ref told @ ..] => {
                    let told = match told {
                        ["applied", seq, id, hash] => {
                            Told::Applied { seq: seq.parse().unwrap(), id: (*id).to_owned(), hash: (*hash).to_owned() }
                        }
                        ["already", id] => Told::Already { id: (*id).to_owned() },
                        ["insufficient", available] => Told::Insufficient { available: available.parse().unwrap() },
                        ["rejected", _] => Told::Rejected,
                        _ => panic!("{line}"),
                    };
                    self.ended.insert(id.to_owned(), Ended { at_ns: at.parse().unwrap(), told });
                }
                _ => panic!("{line}"),
            }
        }
    }
}

/// Everything that is wrong.
fn check(config: &PostgresConfig, expected: &LedgerConfig, history: &History) -> Vec<String> {
    let store = Arc::new(PostgresStore::open_same(config, expected).unwrap());
    settle(&store);
    let mut wrong = Vec::new();
    let mut listed: Vec<CustomerHead> = Vec::new();
    store.list(None, usize::MAX, &mut listed).unwrap();
    let mut chains: BTreeMap<u128, Vec<ChainEntry>> = BTreeMap::new();
    for head in &listed {
        let mut entries = Vec::new();
        store.read(head.customer, ReadRange::ALL, &mut entries).unwrap();
        chains.insert(head.customer.bits(), entries);
    }
    check_chains(&store, &listed, &chains, &mut wrong);
    check_history(&chains, history, &mut wrong);
    wrong
}

/// What killed engines left open is rolled forward, or their rail is asked again.
fn settle(store: &Arc<PostgresStore>) {
    let ledger = ledger_on(store).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let open = ledger.open_events().unwrap();
        if open.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "events stay open: {open:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    ledger.close().unwrap();
    assert_eq!(store.open_customers().unwrap(), Vec::new());
}

fn check_chains(
    store: &PostgresStore,
    listed: &[CustomerHead],
    chains: &BTreeMap<u128, Vec<ChainEntry>>,
    wrong: &mut Vec<String>,
) {
    let config = store.config();
    let mut table: BTreeMap<TransactionId, TransactionState> = BTreeMap::new();
    let mut touched: BTreeMap<TransactionId, Vec<_>> = BTreeMap::new();
    let mut keyed: BTreeMap<RequestKey, EventRef> = BTreeMap::new();
    let mut totals = Totals::default();
    let mut newest = 0;
    for head in listed {
        let mut follow = ChainCheck::new(&config.digest(), head.customer);
        // By this chain alone: an id whose event was aborted is free for others, who may be looked at first.
        let mut own: BTreeMap<TransactionId, TransactionState> = BTreeMap::new();
        for ChainEntry { linked, status } in &chains[&head.customer.bits()] {
            let transaction = linked.event.transaction;
            let known = transaction.and_then(|id| own.get(&id)).copied();
            match follow.follow(config, known, linked, status) {
                Ok(state) => {
                    if let Some((id, state)) = transaction.zip(state) {
                        own.insert(id, state);
                        if table.insert(id, state).is_some_and(|before| before.customer != state.customer) {
                            wrong.push(format!("transaction {id} has two customers"));
                        }
                    }
                }
                Err(fault) => wrong.push(format!("{}, {linked:?}, {status:?}: {fault}", head.customer)),
            }
            totals.begun(&linked.event);
            newest = newest.max(linked.event.time_ms);
            match status {
                EventStatus::Started => wrong.push(format!("{}, event {} is open", head.customer, linked.event.seq)),
                EventStatus::Done | EventStatus::DoneByHand(_) => {
                    totals.done(&linked.event);
                    let had = linked.event.key.and_then(|key| keyed.insert(key, linked.reference()));
                    if let Some(had) = had {
                        wrong.push(format!("{:?} and {had:?} have one key", linked.reference()));
                    }
                    if let Some(id) = transaction {
                        touched.entry(id).or_default().push(linked.reference());
                    }
                }
                EventStatus::Aborted(_) => totals.aborted(),
            }
        }
        if *follow.head() != head.head {
            wrong.push(format!("the head of {} is {:?}, its chain says {:?}", head.customer, head.head, follow.head()));
        }
    }
    if store.totals().unwrap() != totals {
        wrong.push(format!("the sums are {:?}, the chains say {totals:?}", store.totals()));
    }
    if store.last_time_ms().unwrap() != newest {
        wrong.push("the newest time is another one".to_owned());
    }
    check_table(store, &table, &touched, wrong);
    let keys: Vec<EntryId> = keyed.keys().map(|key| EntryId::Key(*key)).collect();
    let mut entries = Vec::new();
    store.get(&keys, &mut entries).unwrap();
    for ((key, event), entry) in keyed.iter().zip(entries) {
        if entry.proposed.map(|proposed| proposed.event) != Some(*event) {
            wrong.push(format!("key {key} names {entry:?}, the chains say {event:?}"));
        }
    }
}

fn check_table(
    store: &PostgresStore,
    table: &BTreeMap<TransactionId, TransactionState>,
    touched: &BTreeMap<TransactionId, Vec<bursar_engine::core::EventRef>>,
    wrong: &mut Vec<String>,
) {
    let ids: Vec<TransactionId> = table.keys().copied().collect();
    let entry_ids: Vec<EntryId> = ids.iter().map(|id| EntryId::from(*id)).collect();
    let mut entries = Vec::new();
    store.get(&entry_ids, &mut entries).unwrap();
    for (id, entry) in ids.iter().zip(entries) {
        let mut statuses = Vec::new();
        let proposed: Vec<_> = entry.proposed.iter().map(|proposed| proposed.event).collect();
        store.status(&proposed, &mut statuses).unwrap();
        let is_done = statuses.first() == Some(&Some(EventStatus::Done));
        let state = if is_done { entry.proposed.map(|proposed| proposed.state) } else { entry.approved };
        if state != Some(table[id]) {
            wrong.push(format!("transaction {id} is {state:?}, the chains say {:?}", table[id]));
        }
        let mut events = store.events_of(*id).unwrap();
        let mut statuses = Vec::new();
        store.status(&events, &mut statuses).unwrap();
        let mut done = statuses.iter().map(|status| *status == Some(EventStatus::Done));
        events.retain(|_| done.next().unwrap());
        if events != touched[id] {
            wrong.push(format!("transaction {id} was touched by {events:?}, the chains say {:?}", touched[id]));
        }
    }
}

fn check_history(chains: &BTreeMap<u128, Vec<ChainEntry>>, history: &History, wrong: &mut Vec<String>) {
    let mut claimed: BTreeSet<&str> = BTreeSet::new();
    // By customer: what was applied, with its place.
    let mut applied: BTreeMap<u128, Vec<(u64, &Begun, &Ended)>> = BTreeMap::new();
    for (id, ended) in &history.ended {
        let begun = &history.begun[id];
        let chain = chains.get(&begun.customer).map(Vec::as_slice).unwrap_or_default();
        let fits = |entry: &ChainEntry| {
            let event = &entry.linked.event;
            let amount_fits = begun.amount == 0 || event.amount.steps() == begun.amount;
            entry.status == EventStatus::Done
                && event.kind.name() == begun.kind
                && event.transaction.map_or(0, TransactionId::bits) == begun.transaction
                && event.key == begun.key
                && amount_fits
        };
        match &ended.told {
            Told::Applied { seq, id: event, hash } => {
                let entry = chain.get(*seq as usize - 1);
                let found = entry.filter(|entry| {
                    entry.linked.id().to_string() == *event && entry.linked.hash.to_string() == *hash && fits(entry)
                });
                if found.is_none() {
                    wrong.push(format!("{id} was told of an event that is not there: {begun:?} {ended:?} {entry:?}"));
                }
                if !claimed.insert(event) {
                    wrong.push(format!("two were told of the same event: {begun:?} {ended:?}"));
                }
                applied.entry(begun.customer).or_default().push((*seq, begun, ended));
            }
            Told::Already { id: event } => {
                // Who asked with a key hears which event it was.
                let is_it = |entry: &&ChainEntry| begun.key.is_none() || entry.linked.id().to_string() == *event;
                if !chain.iter().filter(is_it).any(fits) {
                    wrong.push(format!("{id} was told that it is done already, and it is not: {begun:?}"));
                }
            }
            Told::Insufficient { .. } | Told::Rejected => {}
        }
    }
    // Every event in effect was asked for.
    let of = |begun: &'_ Begun| (begun.kind.clone(), begun.customer, begun.transaction, begun.key);
    let asked: BTreeSet<(String, u128, u128, Option<RequestKey>)> = history.begun.values().map(of).collect();
    for (customer, chain) in chains {
        for entry in chain.iter().filter(|entry| entry.status == EventStatus::Done) {
            let event = &entry.linked.event;
            let transaction = event.transaction.map_or(0, TransactionId::bits);
            if !asked.contains(&(event.kind.name().to_owned(), *customer, transaction, event.key)) {
                wrong.push(format!("nobody asked for {event:?}"));
            }
        }
    }
    for applied in applied.values_mut() {
        check_order(applied, wrong);
    }
    for (id, ended) in &history.ended {
        if let Told::Insufficient { available } = ended.told {
            let begun = &history.begun[id];
            let chain = chains.get(&begun.customer).map(Vec::as_slice).unwrap_or_default();
            let others = applied.get(&begun.customer).map(Vec::as_slice).unwrap_or_default();
            check_refusal(chain, others, begun, ended.at_ns, available, wrong);
        }
    }
}

/// What ended before something else began is before it in the chain.
fn check_order(applied: &mut [(u64, &Begun, &Ended)], wrong: &mut Vec<String>) {
    applied.sort_by_key(|(seq, _, _)| *seq);
    // Going back from the newest: the earliest end of what comes later.
    let mut earliest_end = u64::MAX;
    for (seq, begun, ended) in applied.iter().rev() {
        if earliest_end < begun.at_ns {
            wrong.push(format!("event {seq} comes before one that had ended when it began: {begun:?}"));
        }
        earliest_end = earliest_end.min(ended.at_ns);
    }
}

/// A refusal is true of one moment between question and answer.
fn check_refusal(
    chain: &[ChainEntry],
    applied: &[(u64, &Begun, &Ended)],
    begun: &Begun,
    ended_ns: u64,
    available: i64,
    wrong: &mut Vec<String>,
) {
    let before = applied.iter().filter(|(_, _, ended)| ended.at_ns < begun.at_ns).map(|(seq, _, _)| *seq);
    let behind = applied.iter().filter(|(_, begun, _)| begun.at_ns > ended_ns).map(|(seq, _, _)| *seq);
    let (from, to) = (before.max().unwrap_or(0), behind.min().unwrap_or(u64::MAX));
    // The states at those moments: behind the newest done event up to each place.
    let mut state = 0;
    let mut fits = from == 0 && available == 0;
    for entry in chain.iter().take_while(|entry| entry.linked.event.seq < to) {
        if entry.status == EventStatus::Done {
            state = entry.linked.event.state.accounts.get(CurrencyIndex(0)).available.steps();
        }
        fits |= entry.linked.event.seq >= from && state == available;
    }
    if !fits {
        wrong.push(format!("refused for {available} available, which it never was then: {begun:?}"));
    }
}
