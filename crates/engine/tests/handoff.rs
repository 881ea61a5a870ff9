//! The hand-off between callers, the deciding thread, the durable thread, rails and readers, under a scheduler that
//! tries many orders of every lock, wait, channel and thread: the ledger's own code, on a store that keeps
//! account of what is durable and can fail.
//!
//! In every order: nobody hangs, every caller hears exactly once, nothing is answered before a sync that covers it,
//! readers see only what is durable, and nothing that was acknowledged is missing.
//!
//! ```text
//! cargo test -p bursar-engine --features shuttle --test handoff --locked
//! ```
//!
//! `BURSAR_SCHEDULES` says how many orders of each kind each test tries. A failure prints its schedule;
//! `BURSAR_SCHEDULE=<schedule>` with that test's name runs that one order again.
#![allow(clippy::unwrap_used, clippy::panic)] // clippy sees the helpers of a test as production code

use bursar_engine::core::commit::{Appended, Approval, Outcome, Proposal, ProposeResult, RailAnswer, RailCall, Routes};
use bursar_engine::core::{
    Amount, Currencies, CustomerId, EntryId, EventId, EventRef, EventStatus, Head, LedgerConfig, Policy, RailId,
    Record, Request, TransactionEntry, TransactionId,
};
use bursar_engine::driver::SourceRow;
use bursar_engine::store::{
    ChainEntry, Chains, CustomerHead, MemoryStore, ReadRange, SourceId, SourceMark, StoreError, Transactions,
};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, ReadError, SubmitError, Submitted, Totals};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, ReplayScheduler};
use shuttle::sync::Mutex;
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::thread;
use shuttle::{Config, MaxSteps, Runner};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What the store has been told, and what of it is durable.
#[derive(Debug, Default)]
struct Log {
    transactions: BTreeMap<EventId, Option<TransactionId>>,
    /// Events that are `Done`, oldest first.
    done: Vec<EventRef>,
    /// How many of them lie in batches that have ended.
    ended: usize,
    durable: usize,
    sync_count: usize,
    append_count: usize,
    failed: bool,
    sync_failed: bool,
}

/// A store in memory that yields at every call, and may fail in one of them.
#[derive(Debug)]
struct Store {
    memory: MemoryStore,
    log: Mutex<Log>,
    /// Which sync fails, counted from 1.
    fails_at_sync: Option<usize>,
    fails_at_append: Option<usize>,
}

impl Store {
    fn new(fails_at_sync: Option<usize>, fails_at_append: Option<usize>) -> Arc<Self> {
        let (memory, log) = (MemoryStore::new(&config()), Mutex::default());
        Arc::new(Self { memory, log, fails_at_sync, fails_at_append })
    }

    fn fault() -> StoreError {
        let error = Arc::new(std::io::Error::other("planted"));
        StoreError::Io { doing: "do as told", path: PathBuf::new(), error }
    }

    fn is_durable(&self, event: impl Fn(&EventRef) -> bool) -> bool {
        let log = self.log.lock().unwrap();
        log.done[..log.durable].iter().any(event)
    }

    /// Whether a transaction was made, and durably.
    fn has_durable(&self, id: u128) -> bool {
        let log = self.log.lock().unwrap();
        let id = Some(TransactionId::new(id));
        log.done[..log.durable].iter().any(|event| log.transactions.get(&event.id) == Some(&id))
    }

    /// How many syncs have succeeded or are on their way.
    fn sync_count(&self) -> usize {
        self.log.lock().unwrap().sync_count
    }

    /// Whether a transaction was made, durable or not.
    fn has(&self, id: u128) -> bool {
        let log = self.log.lock().unwrap();
        let id = Some(TransactionId::new(id));
        log.done.iter().any(|event| log.transactions.get(&event.id) == Some(&id))
    }
}

impl Chains for Store {
    fn whole_batches(&self) -> bool {
        self.memory.whole_batches()
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        thread::yield_now();
        self.memory.load(customers, heads)
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        let mut log = self.log.lock().unwrap();
        log.append_count += 1;
        // Who has not heard yet that the store has failed hears it now.
        log.failed |= self.fails_at_append == Some(log.append_count);
        if log.failed {
            return Err(Self::fault());
        }
        let first = results.len();
        self.memory.append(records, results)?;
        for (record, result) in records.iter().zip(&results[first..]) {
            match record {
                Record::Started(linked) => drop(log.transactions.insert(linked.id(), linked.event.transaction)),
                Record::Done(event) | Record::DoneByHand(event, _) if *result == Appended::Yes => log.done.push(*event),
                Record::Done(_) | Record::DoneByHand(..) | Record::Aborted(..) => {}
            }
        }
        Ok(())
    }

    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        let mut log = self.log.lock().unwrap();
        log.ended = log.done.len();
        self.memory.end_batch(time_ms, mark)
    }

    fn sync(&self) -> Result<(), StoreError> {
        let (covers, fails) = {
            let mut log = self.log.lock().unwrap();
            assert!(!log.sync_failed, "a failed sync is tried again");
            log.sync_count += 1;
            log.failed |= self.fails_at_sync == Some(log.sync_count);
            log.sync_failed = log.failed;
            (log.ended, log.failed)
        };
        // Others go on while the disk works.
        thread::yield_now();
        if fails {
            return Err(Self::fault());
        }
        self.log.lock().unwrap().durable = covers;
        Ok(())
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.memory.status(events, statuses)
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        self.memory.read(customer, range, entries)
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.memory.open_customers()
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.memory.list(after, limit, heads)
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.memory.source(source)
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.memory.sources()
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.memory.rejected_lines(source)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.memory.totals()
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.memory.last_time_ms()
    }
}

impl Transactions for Store {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.memory.get(ids, entries)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        thread::yield_now();
        self.memory.propose(proposals, results)
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        thread::yield_now();
        self.memory.approve(approvals)
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        self.memory.events_of(transaction)
    }
}

fn config() -> LedgerConfig {
    LedgerConfig { ledger: [7; 16], policy: Policy::default(), currencies: Currencies::default() }
}

fn open(store: &Arc<Store>, options: LedgerOptions) -> Ledger {
    Ledger::with_stores(config(), store.clone(), store.clone(), options).unwrap()
}

fn deposit(customer: u128, id: u128) -> Request {
    Request::deposit(CustomerId::new(customer), TransactionId::new(id), Amount::from_steps(5))
}

fn withdrawal(customer: u128, id: u128) -> Request {
    Request::withdrawal(CustomerId::new(customer), TransactionId::new(id), Amount::from_steps(2))
}

/// Runs a scenario in many orders.
fn explore(scenario: fn()) {
    let number = std::env::var("BURSAR_SCHEDULES").ok().map(|text| text.parse().unwrap());
    let schedules = number.unwrap_or(8000);
    let config = || {
        let mut config = Config::new();
        config.stack_size = 1 << 19;
        config.max_steps = MaxSteps::FailAfter(100_000);
        config
    };
    if let Ok(schedule) = std::env::var("BURSAR_SCHEDULE") {
        Runner::new(ReplayScheduler::new_from_encoded(&schedule), config()).run(scenario);
        return;
    }
    Runner::new(RandomScheduler::new_from_seed(1, schedules), config()).run(scenario);
    for depth in [2, 4] {
        Runner::new(PctScheduler::new_from_seed(1, depth, schedules / 2), config()).run(scenario);
    }
    Runner::new(DfsScheduler::new(Some(schedules / 2), false), config()).run(scenario);
}

fn join<T>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Callers and what each of them has heard.
#[derive(Clone)]
struct Callers {
    store: Arc<Store>,
    heard: Arc<std::sync::Mutex<BTreeMap<u128, Vec<Submitted>>>>,
    sender: Arc<Mutex<Sender<()>>>,
}

impl Callers {
    fn new(store: &Arc<Store>) -> (Self, Receiver<()>) {
        let (sender, receiver) = channel();
        (Self { store: store.clone(), heard: Arc::default(), sender: Arc::new(Mutex::new(sender)) }, receiver)
    }

    /// What one call heard of a request; must be durable.
    fn hear(&self, id: u128, syncs_before: usize, submitted: Submitted) {
        match &submitted {
            Ok(Outcome::Applied(receipt)) => {
                assert!(self.store.is_durable(|event| *event == receipt.event), "{id} is told before it is durable");
            }
            Ok(Outcome::AlreadyApplied(_) | Outcome::Rejected(_)) => {
                assert!(self.store.sync_count() > syncs_before, "{id} is told without a sync");
            }
            Err(_) => {}
        }
        self.heard.lock().unwrap().entry(id).or_default().push(submitted);
    }

    /// Submits, and lets the ledger's thread hear.
    fn submit(&self, ledger: &Ledger, id: u128, request: Request) -> Result<(), SubmitError> {
        let (callers, syncs) = (self.clone(), self.store.sync_count());
        ledger.submit_then(vec![request], move |mut submitted| {
            assert_eq!(submitted.len(), 1);
            callers.hear(id, syncs, submitted.pop().unwrap());
            // Nobody may wait any more.
            callers.sender.lock().unwrap().send(()).ok();
        })
    }

    /// Submits and waits.
    fn submit_and_wait(&self, ledger: &Ledger, id: u128, request: Request) {
        let syncs = self.store.sync_count();
        self.hear(id, syncs, ledger.submit(request));
    }

    /// Everybody has heard once; what they were told is so.
    fn check(&self, ids: &[u128]) -> BTreeMap<u128, Submitted> {
        let heard = self.heard.lock().unwrap();
        assert_eq!(heard.keys().copied().collect::<Vec<_>>(), ids, "who has heard");
        for (id, all) in heard.iter() {
            assert_eq!(all.len(), 1, "{id} has heard {all:?}");
            match &all[0] {
                Ok(Outcome::Applied(_) | Outcome::AlreadyApplied(_)) => assert!(self.store.has(*id), "{id} is lost"),
                Ok(Outcome::Rejected(_))
                | Err(
                    SubmitError::Busy
                    | SubmitError::CustomerBusy(_)
                    | SubmitError::TooMany { .. }
                    | SubmitError::OpenEvents
                    | SubmitError::SplitBatches
                    | SubmitError::Closed,
                ) => assert!(!self.store.has(*id), "{id} took effect"),
                Err(SubmitError::Stopped(_)) => {}
            }
        }
        heard.iter().map(|(id, all)| (*id, all[0].clone())).collect()
    }

    /// As above, and all of it took effect.
    fn check_applied(&self, ids: &[u128]) {
        for (id, submitted) in self.check(ids) {
            assert!(matches!(submitted, Ok(Outcome::Applied(_))), "{id}: {submitted:?}");
        }
    }
}

/// Reads a customer; what is seen is durable.
fn look(store: &Store, ledger: &Ledger, customer: u128) -> u64 {
    let customer = CustomerId::new(customer);
    match ledger.customer(customer) {
        Ok(None) => 0,
        Ok(Some(head)) => {
            let is_newest = |event: &EventRef| event.customer == customer && event.seq == head.seq;
            assert!(head.seq == 0 || store.is_durable(is_newest), "a reader sees what is not durable");
            head.seq
        }
        Err(ReadError::Stopped(_)) => 0,
        Err(ReadError::Store(error)) => panic!("{error}"),
    }
}

/// Several submit and wait, others look on.
fn crowd() {
    let store = Store::new(None, None);
    let ledger = Arc::new(open(&store, LedgerOptions::default()));
    let (callers, _heard) = Callers::new(&store);
    let submitters: Vec<_> = [10, 20]
        .into_iter()
        .map(|first| {
            let (ledger, callers) = (ledger.clone(), callers.clone());
            thread::spawn(move || {
                callers.submit_and_wait(&ledger, first, deposit(1, first));
                callers.submit_and_wait(&ledger, first + 1, deposit(first, first + 1));
            })
        })
        .collect();
    let reader = {
        let (ledger, store) = (ledger.clone(), store.clone());
        thread::spawn(move || {
            let first = look(&store, &ledger, 1);
            assert!(look(&store, &ledger, 1) >= first, "what was seen is gone");
        })
    };
    join(submitters.into_iter().chain([reader]));
    callers.check_applied(&[10, 11, 20, 21]);
    assert_eq!(look(&store, &ledger, 1), 2);
    Arc::into_inner(ledger).unwrap().close().unwrap();
}

#[test]
fn a_crowd_of_submitters_and_readers() {
    explore(crowd);
}

/// Closed while much is under way: it is all answered first.
fn close() {
    let store = Store::new(None, None);
    let ledger = open(&store, LedgerOptions::default());
    let (callers, _heard) = Callers::new(&store);
    for id in 10..13 {
        callers.submit(&ledger, id, deposit(id % 2, id)).unwrap();
    }
    ledger.close().unwrap();
    callers.check_applied(&[10, 11, 12]);
}

#[test]
fn closing_answers_what_is_under_way() {
    explore(close);
}

/// Whoever holds it last drops it, while others have just submitted.
fn drop_last() {
    let store = Store::new(None, None);
    let ledger = Arc::new(open(&store, LedgerOptions::default()));
    let (callers, _heard) = Callers::new(&store);
    let submitters: Vec<_> = [10, 20, 30]
        .into_iter()
        .map(|id| {
            let (ledger, callers) = (ledger.clone(), callers.clone());
            thread::spawn(move || {
                callers.submit(&ledger, id, deposit(1, id)).unwrap();
                drop(ledger);
            })
        })
        .collect();
    drop(ledger);
    join(submitters);
    callers.check_applied(&[10, 20, 30]);
}

#[test]
fn dropping_answers_what_is_under_way() {
    explore(drop_last);
}

/// The store fails while calls are under way: everybody hears, nobody hangs, nothing more is acknowledged.
fn fail(fails_at_sync: Option<usize>, fails_at_append: Option<usize>) {
    let store = Store::new(fails_at_sync, fails_at_append);
    let ledger = Arc::new(open(&store, LedgerOptions::default()));
    let (callers, _heard) = Callers::new(&store);
    let submitters: Vec<_> = [10, 20]
        .into_iter()
        .map(|first| {
            let (ledger, callers) = (ledger.clone(), callers.clone());
            thread::spawn(move || {
                for id in first..first + 2 {
                    if let Err(error) = callers.submit(&ledger, id, deposit(first, id)) {
                        callers.hear(id, 0, Err(error));
                    }
                }
                callers.submit_and_wait(&ledger, first + 2, deposit(first, first + 2));
            })
        })
        .collect();
    let reader = {
        let (ledger, store) = (ledger.clone(), store.clone());
        thread::spawn(move || look(&store, &ledger, 10))
    };
    join(submitters);
    reader.join().unwrap();
    let failed = store.log.lock().unwrap().failed;
    let closed = Arc::into_inner(ledger).unwrap().close();
    let failed = failed || store.log.lock().unwrap().failed;
    assert_eq!(closed.is_err(), failed, "{closed:?}");
    for (id, submitted) in callers.check(&[10, 11, 12, 20, 21, 22]) {
        match submitted {
            Ok(Outcome::Applied(_)) => {}
            Err(SubmitError::Stopped(_)) => assert!(failed, "{id} hears of a failure that was none"),
            Ok(_) | Err(_) => panic!("{id}: {submitted:?}"),
        }
    }
}

#[test]
fn everybody_hears_that_the_first_sync_failed() {
    explore(|| fail(Some(1), None));
}

#[test]
fn everybody_hears_that_a_later_sync_failed() {
    explore(|| fail(Some(2), None));
}

#[test]
fn everybody_hears_that_an_append_failed() {
    explore(|| fail(None, Some(3)));
}

/// Calls that the deciding thread has taken, and begins only after the engine has stopped, have a place of their own
/// although all places were cleared meanwhile.
fn begin_late(fails_at_sync: usize) {
    let store = Store::new(Some(fails_at_sync), None);
    let ledger = open(&store, LedgerOptions::default());
    let (callers, heard) = Callers::new(&store);
    let submit = |id| {
        if let Err(error) = callers.submit(&ledger, id, deposit(id, id)) {
            callers.hear(id, 0, Err(error));
        }
    };
    // Together, so that more than one place is free again.
    submit(10);
    submit(11);
    heard.recv().unwrap();
    heard.recv().unwrap();
    (12..15).for_each(submit);
    drop(ledger);
    for (id, submitted) in callers.check(&[10, 11, 12, 13, 14]) {
        assert!(matches!(submitted, Ok(Outcome::Applied(_)) | Err(SubmitError::Stopped(_))), "{id}: {submitted:?}");
    }
}

#[test]
fn calls_that_begin_while_the_engine_stops_hear() {
    explore(|| begin_late(2));
    explore(|| begin_late(3));
}

/// What does not fit is refused whole, and there is room again once answers were heard.
fn busy() {
    let store = Store::new(None, None);
    let ledger = Arc::new(open(&store, LedgerOptions { queue_requests_max: 2, ..LedgerOptions::default() }));
    let (callers, _heard) = Callers::new(&store);
    let submitters: Vec<_> = [10, 20, 30]
        .into_iter()
        .map(|first| {
            let (ledger, callers) = (ledger.clone(), callers.clone());
            thread::spawn(move || {
                let count = if first == 10 { 2 } else { 1 };
                let syncs = callers.store.sync_count();
                let requests = (first..first + count).map(|id| deposit(first, id)).collect();
                match ledger.submit_batch(requests) {
                    Ok(all) => (first..).zip(all).for_each(|(id, submitted)| callers.hear(id, syncs, submitted)),
                    Err(error) => {
                        assert!(matches!(error, SubmitError::Busy), "{error:?}");
                        (first..first + count).for_each(|id| callers.hear(id, syncs, Err(error.clone())));
                    }
                }
            })
        })
        .collect();
    join(submitters);
    let heard = callers.check(&[10, 11, 20, 30]);
    assert!(heard.values().any(Result::is_ok), "somebody fits: {heard:?}");
    assert_eq!(heard[&10].is_ok(), heard[&11].is_ok(), "half of a batch was taken");
    let last = ledger.submit_batch(vec![deposit(40, 40), deposit(40, 41)]);
    assert!(last.is_ok_and(|all| all.iter().all(Result::is_ok)), "there is room for as many as before");
    let many = ledger.submit_batch(vec![deposit(50, 50), deposit(50, 51), deposit(50, 52)]);
    assert!(matches!(many, Err(SubmitError::TooMany { count: 3, count_max: 2 })), "{many:?}");
}

#[test]
fn a_full_queue_says_busy_and_has_room_again() {
    explore(busy);
}

/// A rail that hands its calls to a thread of its own.
#[derive(Debug)]
struct Bank(Mutex<Sender<(RailCall, RailReply)>>);

impl Rail for Bank {
    fn call(&self, call: RailCall, reply: RailReply) {
        // Where nobody works at the bank any more, the reply is dropped.
        drop(self.0.lock().unwrap().send((call, reply)));
    }
}

fn bank() -> (LedgerOptions, Receiver<(RailCall, RailReply)>) {
    let (sender, calls) = channel();
    let rail = RailId::new(1).unwrap();
    let routes = Routes { deposit: None, withdrawal: Some(rail) };
    let options = LedgerOptions { routes, ..LedgerOptions::default() };
    (options.with_rail(rail, Arc::new(Bank(Mutex::new(sender)))), calls)
}

/// The bank drops its first reply, says next that it cannot tell, and acts when it is asked a third time.
fn rail_answers() {
    let store = Store::new(None, None);
    let (options, calls) = bank();
    let ledger = open(&store, options);
    let (callers, heard) = Callers::new(&store);
    let worker = {
        let store = store.clone();
        thread::spawn(move || {
            let mut attempts = Vec::new();
            while let Ok((call, reply)) = calls.recv() {
                let log = store.log.lock().unwrap();
                assert!(!log.done.contains(&call.event.reference()), "a rail is asked about what is done");
                assert!(log.sync_count > 1, "a rail is called before a sync");
                drop(log);
                attempts.push(call.attempt);
                match call.attempt {
                    0 => drop(reply),
                    1 => reply.answer(RailAnswer::Unknown),
                    _ => reply.answer(RailAnswer::Done),
                }
            }
            attempts
        })
    };
    callers.submit_and_wait(&ledger, 10, deposit(1, 10));
    callers.submit(&ledger, 11, withdrawal(1, 11)).unwrap();
    callers.submit(&ledger, 12, deposit(1, 12)).unwrap();
    // Somebody else does not wait.
    callers.submit_and_wait(&ledger, 20, deposit(2, 20));
    heard.recv().unwrap();
    heard.recv().unwrap();
    callers.check_applied(&[10, 11, 12, 20]);
    ledger.close().unwrap();
    assert_eq!(worker.join().unwrap(), [0, 1, 2]);
}

#[test]
fn a_rail_drops_its_reply_and_answers_from_another_thread() {
    explore(rail_answers);
}

/// The ledger is closed while the bank thinks; its answer comes before, meanwhile or after that.
fn rail_is_late() {
    let store = Store::new(None, None);
    let (options, calls) = bank();
    let ledger = open(&store, options);
    let (callers, _heard) = Callers::new(&store);
    callers.submit_and_wait(&ledger, 10, deposit(1, 10));
    callers.submit(&ledger, 11, withdrawal(1, 11)).unwrap();
    callers.submit(&ledger, 12, deposit(1, 12)).unwrap();
    let (call, reply) = calls.recv().unwrap();
    let worker = thread::spawn(move || reply.answer(RailAnswer::Done));
    ledger.close().unwrap();
    worker.join().unwrap();
    let heard = callers.check(&[10, 11, 12]);
    let is_done = store.log.lock().unwrap().done.contains(&call.event.reference());
    for id in [11, 12] {
        match &heard[&id] {
            Ok(Outcome::Applied(_)) => assert!(is_done),
            Err(SubmitError::Closed) => assert!(!is_done),
            other => panic!("{id}: {other:?}"),
        }
    }
    let open = store.memory.open_customers().unwrap();
    assert_eq!(open.is_empty(), is_done, "an event without an answer stays open");
}

#[test]
fn a_rail_answers_while_the_ledger_is_closed() {
    explore(rail_is_late);
}

/// Rows of a source are taken in beside requests.
fn rows() {
    let store = Store::new(None, None);
    let ledger = Arc::new(open(&store, LedgerOptions::default()));
    let (callers, _heard) = Callers::new(&store);
    let source = SourceId([3; 32]);
    let row =
        |line: u64, request: Option<Request>| SourceRow { request, line, end_offset: line * 10, end_line_count: line };
    let submitter = {
        let (ledger, callers) = (ledger.clone(), callers.clone());
        thread::spawn(move || {
            callers.submit_and_wait(&ledger, 10, deposit(1, 10));
            callers.submit_and_wait(&ledger, 11, deposit(2, 11));
        })
    };
    let marks = Arc::new(std::sync::Mutex::new(Vec::new()));
    let parts = [vec![row(1, Some(deposit(1, 20))), row(2, None)], vec![row(3, Some(deposit(1, 21)))]];
    for (place, part) in parts.into_iter().enumerate() {
        let (marks, store) = (marks.clone(), store.clone());
        let taken = ledger.take_rows_then(source, part, place == 1, move |result| {
            let taken = result.unwrap();
            assert_eq!((taken.row_count, taken.without_event), (2 - place, Vec::new()));
            assert!(store.has_durable(20 + place as u128), "rows are told before they are durable");
            marks.lock().unwrap().push(taken.mark.offset);
        });
        assert!(taken.is_ok());
    }
    submitter.join().unwrap();
    let seen = ledger.source(source).unwrap();
    assert!(seen.is_none_or(|mark| [20, 30].contains(&mark.offset)));
    Arc::into_inner(ledger).unwrap().close().unwrap();
    callers.check_applied(&[10, 11]);
    assert_eq!(*marks.lock().unwrap(), [20, 30]);
    let mark = store.memory.source(source).unwrap().unwrap();
    assert!(mark.finished);
    assert_eq!((mark.counts.applied, mark.counts.unreadable), (2, 1));
}

#[test]
fn rows_of_a_source_beside_requests() {
    explore(rows);
}
