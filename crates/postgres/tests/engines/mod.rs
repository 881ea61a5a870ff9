//! Engine processes that write to the same customers of one ledger, and write down what they ask for and are told.

#![allow(dead_code, unreachable_pub)] // each test file uses a part of it

use bursar_engine::core::commit::{Outcome, RailAnswer, RailCall, Routes, Terms};
use bursar_engine::core::{
    AbortReason, Amount, CustomerId, RailId, ReasonText, Rejection, Request, RequestKey, TransactionId,
};
use bursar_engine::{EngineError, Ledger, LedgerOptions, Rail, RailReply};
use bursar_postgres::{PostgresConfig, PostgresStore};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const CUSTOMERS: u64 = 10;
const ROUTE: &str = "BURSAR_TEST_ENGINE";

/// Numbers that follow from a seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }
}

pub fn now_ns() -> u64 {
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

pub fn options() -> LedgerOptions {
    let rail = RailId::new(1).unwrap();
    let routes = Routes { withdrawal: Some(rail), ..Routes::default() };
    let mut options = LedgerOptions { routes, ..LedgerOptions::default() }.with_rail(rail, Arc::new(SlowRail));
    options.limits.ask_again_ms = 20;
    options
}

pub fn ledger_on(store: &Arc<PostgresStore>) -> Result<Ledger, EngineError> {
    Ledger::with_stores(store.config().clone(), store.clone(), store.clone(), options())
}

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

/// The engine process: what [`Engine::start`] runs, by the test of this name.
pub fn engine_process() {
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
                    format!("rejected insufficient:{}", available.steps())
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
pub fn impatient(url: &str) -> PostgresConfig {
    PostgresConfig {
        statement_timeout_ms: 700,
        connect_timeout_ms: 700,
        retry_for_ms: 8_000,
        connections: 4,
        // Not all of the customers.
        heads_kept: 12,
        ..PostgresConfig::new(url)
    }
}

pub struct Engine {
    pub child: Child,
    pub is_paused: bool,
}

impl Engine {
    pub fn start(config: &PostgresConfig, round: u64, seed: u64, log: &Path) -> Self {
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

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets it finish what it has begun.
    pub fn stop(mut self) {
        if self.is_paused {
            self.signal(rustix::process::Signal::CONT);
        }
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "an engine failed: {status}");
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}
