//! A program that has a ledger by way of the library: its requests, what it was told, and whether that is still
//! true after a power cut.
//!
//! The program is this test binary, started once more. It has tiny segments and a tiny memory, so that segments,
//! index files, checkpoints and merges come all the time, and it says what it is told as soon as it is told.

use super::common::Random;
use super::filesystem::{Ended, Lies, PowerDisk};
use bursar_core::commit::{Limits, Outcome, RailAnswer, RailCall, Routes};
use bursar_core::{AbortReason, Amount, Currencies, CustomerId, Policy, RailId, Request, TransactionId};
use bursar_core::{EventStatus, Hash, LinkedEvent, ReasonText};
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify};
use bursar_engine::store::{Chains, ReadRange};
use bursar_engine::{Ledger, LedgerOptions, Rail, RailReply, SubmitError, new_config};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Tells the program where its ledger is.
const DIRECTORY: &str = "BURSAR_POWER_DIRECTORY";
/// Tells the program what to do, as a number.
const SEED: &str = "BURSAR_POWER_PROGRAM";

const CUSTOMERS: usize = 8;
const TRANSACTIONS: usize = 2000;
const THREADS: usize = 3;

type Told = Arc<Mutex<dyn Write + Send>>;

/// One line, given to the system at once.
fn tell(told: &Told, line: &str) {
    let mut out = told.lock().unwrap();
    out.write_all(format!("{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// Says that it was called before it answers: by then, the event must be durable.
struct Bank(Told);

impl std::fmt::Debug for Bank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bank")
    }
}

impl Rail for Bank {
    fn call(&self, call: RailCall, reply: RailReply) {
        let event = &call.event;
        tell(&self.0, &format!("called {} {} {}", event.event.customer, event.event.seq, event.hash));
        let refuses = event.hash.as_bytes()[31].is_multiple_of(4);
        let refusal = AbortReason::RailRefused(ReasonText::new("not today"));
        reply.answer(if refuses { RailAnswer::Refused(refusal) } else { RailAnswer::Done });
    }
}

fn embedded(random: &mut Random) -> EmbeddedOptions {
    EmbeddedOptions {
        segment_bytes: 600 + random.below(4000) as u64,
        memtable_entries_max: 3 + random.below(40),
        heads_max: random.below(10),
        background: random.below(2) == 0,
    }
}

fn request(random: &mut Random) -> Request {
    let customer = CustomerId::new(1 + random.below(CUSTOMERS) as u128);
    let transaction = TransactionId::new(random.below(TRANSACTIONS) as u128);
    let amount = Amount::from_steps(1 + random.below(3).cast_signed() as i64);
    match random.below(12) {
        0..=6 => Request::deposit(customer, transaction, amount),
        7 | 8 => Request::withdrawal(customer, transaction, amount),
        9 => Request::dispute(customer, transaction),
        10 => Request::resolve(customer, transaction),
        _ => Request::unlock(customer),
    }
}

/// The program: opens or creates the ledger, submits from several threads, and closes it.
fn program(directory: &Path, seed: u64, told: &Told) {
    let mut random = Random(seed);
    let bank = RailId::new(1).unwrap();
    let options = LedgerOptions {
        limits: Limits { batch_requests_max: [8, 40][random.below(2)], ..Limits::default() },
        embedded: embedded(&mut random),
        routes: Routes { withdrawal: Some(bank), ..Routes::default() },
        ..LedgerOptions::default()
    };
    let options = options.with_rail(bank, Arc::new(Bank(told.clone())));
    let ledger = if EmbeddedStore::exists(directory) {
        Ledger::open(directory, options).unwrap().0
    } else {
        let config = new_config(Policy::default(), Currencies::default()).unwrap();
        Ledger::create(directory, &config, options).unwrap()
    };
    tell(told, "opened");
    // What can be read must be durable as well.
    for head in ledger.customers(None, usize::MAX).unwrap() {
        let newest = ReadRange { limit: 3, newest_first: true, ..ReadRange::ALL };
        for entry in ledger.chain(head.customer, newest).unwrap() {
            if entry.status == EventStatus::Done {
                let LinkedEvent { event, hash } = entry.linked;
                tell(told, &format!("read {} {} {hash}", event.customer, event.seq));
            }
        }
    }
    let requests_max = [4, 16][random.below(2)];
    let rounds = 10 + random.below(80);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let mut random = Random(random.next());
            let ledger = &ledger;
            scope.spawn(move || {
                for _ in 0..rounds {
                    let requests: Vec<Request> =
                        (0..=random.below(requests_max)).map(|_| request(&mut random)).collect();
                    for submitted in ledger.submit_batch(requests).unwrap() {
                        match submitted {
                            Ok(Outcome::Applied(receipt)) => {
                                let event = &receipt.event;
                                tell(told, &format!("receipt {} {} {}", event.customer, event.seq, receipt.hash));
                            }
                            Ok(Outcome::AlreadyApplied(_) | Outcome::Rejected(_))
                            | Err(SubmitError::CustomerBusy(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            });
        }
    });
    ledger.close().unwrap();
    tell(told, "closed");
}

/// What a program was told or has read, by customer and sequence number.
#[derive(Debug, Default)]
pub(crate) struct Known {
    opened: bool,
    receipts: BTreeMap<(CustomerId, u64), String>,
    calls: BTreeMap<(CustomerId, u64), String>,
}

impl Known {
    fn hear(&mut self, told: &str) {
        // A last line without its end was never told.
        for line in told.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["opened"] => self.opened = true,
                [what @ ("receipt" | "read" | "called"), customer, seq, hash] => {
                    let key = (CustomerId::parse(customer.as_bytes()).unwrap(), seq.parse().unwrap());
                    let list = if what == "called" { &mut self.calls } else { &mut self.receipts };
                    list.entry(key).or_insert_with(|| hash.to_owned());
                }
                // What the test harness says.
                _ => {}
            }
        }
    }

    fn count(&self) -> usize {
        self.receipts.len() + self.calls.len()
    }

    /// Whether everything that was told is still true, and everything there is right.
    fn check(&self, directory: &Path) -> Result<(), String> {
        if !EmbeddedStore::exists(directory) {
            let is_right = !self.opened && self.count() == 0;
            return if is_right { Ok(()) } else { Err("the ledger is gone".to_owned()) };
        }
        verified(directory, "as found")?;
        let options = EmbeddedOptions { background: false, ..EmbeddedOptions::default() };
        let (store, _) = EmbeddedStore::open(directory, options).map_err(|error| format!("cannot open: {error}"))?;
        let mut found = BTreeMap::new();
        let mut customers = Vec::new();
        store.list(None, usize::MAX, &mut customers).map_err(|error| error.to_string())?;
        for customer in customers {
            let mut entries = Vec::new();
            store.read(customer.customer, ReadRange::ALL, &mut entries).map_err(|error| error.to_string())?;
            for entry in entries {
                let event = &entry.linked.event;
                found.insert((event.customer, event.seq), (entry.linked.hash, entry.status));
            }
        }
        for ((customer, seq), hash) in &self.receipts {
            let is_there =
                |(found, status): &(Hash, EventStatus)| found.to_string() == *hash && *status == EventStatus::Done;
            if !found.get(&(*customer, *seq)).is_some_and(is_there) {
                return Err(format!("the receipt for event {seq} of customer {customer} is worth nothing"));
            }
        }
        for ((customer, seq), hash) in &self.calls {
            if found.get(&(*customer, *seq)).is_none_or(|(found, _)| found.to_string() != *hash) {
                return Err(format!("the bank was called about event {seq} of customer {customer}, which is gone"));
            }
        }
        let totals = store.totals().map_err(|error| error.to_string())?;
        if !totals.currencies().iter().all(bursar_engine::CurrencyTotals::is_balanced) {
            return Err("the sums do not fit".to_owned());
        }
        store.close().map_err(|error| format!("cannot close: {error}"))?;
        drop(store);
        verified(directory, "after opening and closing")
    }
}

fn verified(directory: &Path, when: &str) -> Result<(), String> {
    let report = verify(directory, &VerifyOptions::default(), &mut |_| {});
    let report = report.map_err(|error| format!("cannot verify {when}: {error}"))?;
    report.findings.first().map_or(Ok(()), |finding| Err(format!("verification {when}: {finding:?}")))
}

/// Several power cuts of one ledger, and kills without one between them. Says what was lost.
pub(crate) fn cut_again_and_again(disk: &PowerDisk, seed: u64, cuts: usize, lies: Lies) -> Result<usize, String> {
    let mut random = Random(seed);
    disk.format();
    let directory = disk.path().join("books").join("ledger");
    let mut known = Known::default();
    let (mut cut, mut was_killed) = (1, false);
    while cut <= cuts {
        if cut > lies.after_cuts {
            disk.lie(lies);
        }
        let story = |what: String| format!("seed {seed}, cut {cut}: {what}");
        let told = tempfile::NamedTempFile::new().unwrap();
        let complaints = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "library::a_program_keeps_its_receipts", "--nocapture", "--test-threads=1"]);
        command.env(DIRECTORY, &directory).env(SEED, random.next().to_string());
        command.stdin(std::process::Stdio::null());
        command.stdout(told.reopen().unwrap()).stderr(complaints.reopen().unwrap());
        // After a mere kill, soon: what was read from what the kill left must be durable.
        let most = if was_killed { 12 } else { [40, 600, 600][random.below(3)] };
        let calls = 1 + random.below(most);
        let ended = disk.run_until_cut(&mut command, calls);
        known.hear(&std::fs::read_to_string(told.path()).unwrap());
        match ended {
            Ended::Exited(status) if !status.success() => {
                let complaints = std::fs::read_to_string(complaints.path()).unwrap();
                return Err(story(format!("the program could not go on: {complaints}")));
            }
            Ended::Exited(_) | Ended::Cut => {}
        }
        was_killed = !was_killed && random.below(3) == 0;
        if was_killed {
            disk.go_on();
            continue;
        }
        disk.restart(&mut random);
        disk.on_a_copy(|| known.check(&directory)).map_err(story)?;
        cut += 1;
    }
    Ok(known.count())
}

/// The program by itself on an ordinary disk, or, where it is told a directory, as part of another test.
#[test]
fn a_program_keeps_its_receipts() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        // The harness has begun a line.
        let told: Told = Arc::new(Mutex::new(std::io::stdout()));
        tell(&told, "");
        return program(Path::new(&directory), std::env::var(SEED).unwrap().parse().unwrap(), &told);
    }
    let _alone = super::filesystem::alone();
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger");
    let mut known = Known::default();
    for seed in 0..3 {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let told: Told = lines.clone();
        program(&ledger, seed, &told);
        known.hear(std::str::from_utf8(&lines.lock().unwrap()).unwrap());
        assert_eq!(known.check(&ledger), Ok(()));
    }
    let customers: BTreeSet<_> = known.receipts.keys().map(|(customer, _)| *customer).collect();
    assert_eq!(customers.len(), CUSTOMERS);
    assert!(!known.calls.is_empty());
}
