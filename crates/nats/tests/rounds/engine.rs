//! An engine of its own over a cluster, which can fall asleep or die between two steps of the protocol; its rail, and
//! the operator who settles by hand what that rail never tells.

use super::Tables;
use super::history::{Answer, Told};
use bursar_engine::core::commit::{Appended, Outcome, RailAnswer, RailCall, Receipt, Routes, Settlement, Terms};
use bursar_engine::core::{
    AbortReason, CustomerId, EventId, EventRef, EventStatus, Head, RailId, ReasonText, Record, Request,
};
use bursar_engine::store::{ChainEntry, Chains, CustomerHead, ReadRange, SourceId, SourceMark, StoreError};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, SettleError, SubmitError, Totals};
use bursar_nats::{NatsChains, NatsOptions};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

/// What may happen to an engine between two steps of the protocol.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// The next append waits until this is over: by then others have gone on.
    is_asleep: AtomicBool,
    /// The engine dies: this many appends from now the store writes nothing any more.
    dies_in: AtomicU64,
    pub(crate) slept: AtomicU64,
    pub(crate) died: AtomicU64,
}

impl Fate {
    pub(crate) fn sleep(&self, is_asleep: bool) {
        self.is_asleep.store(is_asleep, Ordering::SeqCst);
    }

    pub(crate) fn die_in(&self, appends: u64) {
        self.dies_in.store(appends, Ordering::Relaxed);
    }
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
        if self.fate.is_asleep.load(Ordering::SeqCst) {
            self.fate.slept.fetch_add(1, Ordering::SeqCst);
            while self.fate.is_asleep.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
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

/// A rail that keeps its promise without a book: its answer follows from the event's id. Of some events it never tells
/// what became of them.
#[derive(Debug)]
struct Bank;

fn bits(event: EventId) -> u128 {
    event.bits() >> 64
}

fn is_silent_about(event: EventId) -> bool {
    bits(event) % 7 == 3
}

impl Rail for Bank {
    fn call(&self, call: RailCall, reply: RailReply) {
        let event = call.event.id();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis((bits(event) >> 8) as u64 % 15));
            match bits(event) % 7 {
                3 => reply.unknown("nobody answers".to_owned()),
                5 => reply.answer(RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new("not today")))),
                _ => reply.answer(RailAnswer::Done),
            }
        });
    }
}

fn options() -> LedgerOptions {
    let rail = RailId::new(1).unwrap();
    let routes = Routes { withdrawal: Some(rail), ..Routes::default() };
    let mut options = LedgerOptions { routes, ..LedgerOptions::default() }.with_rail(rail, Arc::new(Bank));
    options.limits.ask_again_ms = 100;
    options.limits.ask_again_ms_max = 1_000;
    options
}

/// Whoever asks and is told, with the time of both.
pub(crate) struct Book {
    began: Instant,
    told: Mutex<Vec<Told>>,
    /// Requests, whatever became of them.
    asked: Mutex<Vec<(Request, Terms)>>,
    /// By customer: the newest event that anybody was told of.
    newest: Vec<AtomicU64>,
    pub(crate) next: AtomicU64,
    pub(crate) applied: AtomicU64,
    /// Events that an operator closed, and those that an operator found closed otherwise.
    pub(crate) by_hand: [AtomicU64; 2],
}

impl Book {
    pub(crate) fn new(customers: u64) -> Self {
        Self {
            began: Instant::now(),
            told: Mutex::default(),
            asked: Mutex::default(),
            newest: (0..=customers).map(|_| AtomicU64::new(0)).collect(),
            next: AtomicU64::new(1),
            applied: AtomicU64::new(0),
            by_hand: Default::default(),
        }
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    pub(crate) fn newest(&self, customer: CustomerId) -> u64 {
        self.newest[customer.bits() as usize].load(Ordering::SeqCst)
    }

    fn note(&self, customer: CustomerId, asked_ns: u64, answer: Answer) {
        let seq = match &answer {
            Answer::Outcome(_, _, Outcome::Applied(Receipt { event, .. })) => {
                self.applied.fetch_add(1, Ordering::SeqCst);
                event.seq
            }
            Answer::Head(head) => head.as_ref().map_or(0, |head| head.seq),
            Answer::Outcome(..) | Answer::Settled(..) => 0,
        };
        self.newest[customer.bits() as usize].fetch_max(seq, Ordering::SeqCst);
        let answered_ns = self.now_ns();
        self.told.lock().unwrap().push(Told { customer, asked_ns, answered_ns, answer });
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn asked(&self) -> Vec<(Request, Terms)> {
        self.asked.lock().unwrap().clone()
    }
}

/// An engine of its own, made anew when it has stopped.
pub(crate) struct Engine {
    options: NatsOptions,
    tables: Arc<dyn Tables>,
    pub(crate) fate: Arc<Fate>,
    ledger: RwLock<Option<Arc<Ledger>>>,
}

impl Engine {
    pub(crate) fn new(options: NatsOptions, tables: Arc<dyn Tables>) -> Self {
        Self { options, tables, fate: Arc::default(), ledger: RwLock::new(None) }
    }

    /// The ledger, opened if it is not; `None` while the cluster or the table cannot be reached.
    pub(crate) fn ledger(&self) -> Option<Arc<Ledger>> {
        if let Some(ledger) = &*self.ledger.read().unwrap() {
            return Some(ledger.clone());
        }
        let mut ledger = self.ledger.write().unwrap();
        if ledger.is_none() {
            let chains = NatsChains::open(self.options.clone()).ok()?;
            let config = chains.config().clone();
            let chains = Arc::new(Mortal { chains, fate: self.fate.clone() });
            let table = self.tables.open(&config)?;
            *ledger = Some(Arc::new(Ledger::with_stores(config, chains, table, options()).ok()?));
        }
        ledger.clone()
    }

    /// It has stopped: the next one opens it again.
    fn is_over(&self, stopped: &Arc<Ledger>) {
        self.ledger.write().unwrap().take_if(|ledger| Arc::ptr_eq(stopped, ledger));
    }

    pub(crate) fn submit(&self, book: &Book, request: Request, terms: Terms) {
        let Some(ledger) = self.ledger() else { return std::thread::sleep(Duration::from_millis(20)) };
        book.asked.lock().unwrap().push((request, terms));
        let asked_ns = book.now_ns();
        match ledger.submit_under(request, terms) {
            Ok(outcome) => book.note(request.customer, asked_ns, Answer::Outcome(request, terms, outcome)),
            Err(SubmitError::Busy) => {}
            Err(_) => self.is_over(&ledger),
        }
    }

    pub(crate) fn read(&self, book: &Book, customer: CustomerId) {
        let Some(ledger) = self.ledger() else { return std::thread::sleep(Duration::from_millis(20)) };
        let asked_ns = book.now_ns();
        match ledger.customer(customer) {
            Ok(head) => book.note(customer, asked_ns, Answer::Head(head)),
            Err(_) => self.is_over(&ledger),
        }
    }

    /// Settles what the bank never tells. Operators of different engines do not always find out the same.
    pub(crate) fn settle(&self, book: &Book, operator: u8) {
        let Some(ledger) = self.ledger() else { return };
        let Ok(pending) = ledger.pending() else { return self.is_over(&ledger) };
        for waiting in pending {
            let event = waiting.pending.linked.id();
            if !is_silent_about(event) {
                continue;
            }
            let reason = ReasonText::new(&format!("seen by operator {operator}"));
            let differs = bits(event) >> 20 & 7 == u128::from(operator);
            let has_acted = (bits(event) >> 16).is_multiple_of(2) != differs;
            let settlement = if has_acted { Settlement::Done(reason) } else { Settlement::Aborted(reason) };
            let asked_ns = book.now_ns();
            let customer = waiting.pending.linked.event.customer;
            match ledger.settle(event, settlement) {
                Ok(settled) => {
                    book.by_hand[0].fetch_add(1, Ordering::SeqCst);
                    book.note(customer, asked_ns, Answer::Settled(settled.event, settled.status));
                }
                Err(SettleError::ClosedOtherwise { event, status }) => {
                    book.by_hand[1].fetch_add(1, Ordering::SeqCst);
                    book.note(customer, asked_ns, Answer::Settled(event, status));
                }
                // These stores have no order to be read in: who is not waiting is not looked for.
                Err(SettleError::NotOpen | SettleError::NotRead(_)) => {}
                Err(SettleError::NotDecided(_)) => return self.is_over(&ledger),
            }
        }
    }
}
