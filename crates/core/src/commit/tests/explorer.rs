//! Random executions: requests, crashes of owners and of the world, races of two owners, and a rail that acts,
//! refuses, stays silent, answers twice and late. The invariants of the world are asked after every step.
//!
//! A failure prints its seed; `BURSAR_CORE_SEED=<seed> cargo test -p bursar-core explorer` runs that one alone,
//! and `BURSAR_CORE_SEEDS=<count>` runs more of them than usual.

use super::super::*;
use super::owner::{Did, Owner};
use super::world::{Random, Verdict, World, config};
use crate::id::TransactionId;
use crate::policy::{DisputablePolicy, LockedPolicy};
use crate::request::{Action, Movement, Reference};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use std::eprintln;

/// What kind of execution it is.
#[derive(Clone, Copy, Debug)]
struct Shape {
    owner_count: usize,
    whole_batches: bool,
    at_once: bool,
    rails: bool,
}

impl Shape {
    fn open(self, world: &World, routes: Routes, seed: u64) -> Owner {
        let owner = Owner::open(world, routes, self.whole_batches, seed);
        if self.at_once { owner.deciding_at_once() } else { owner }
    }
}

struct Explorer {
    shape: Shape,
    routes: Routes,
    random: Random,
    world: World,
    /// Where the store falls back to if it dies within a batch that takes effect as a whole.
    before_batch: Option<World>,
    owners: Vec<Owner>,
    tickets: BTreeMap<Ticket, usize>,
    calls: Vec<(usize, RailCall)>,
    answers: Vec<(usize, EventId, RailAnswer)>,
    now_ms: u64,
    /// What happened, for whoever reads a failure.
    trace: bool,
    /// How often each fault was injected.
    faults: BTreeMap<&'static str, u32>,
    ticket: u64,
}

/// Says which seed failed.
struct Seed(u64, Shape);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with BURSAR_CORE_SEED={} {:?}", self.0, self.1);
        }
    }
}

impl Explorer {
    fn new(seed: u64, shape: Shape, trace: bool) -> Self {
        let mut random = Random(seed);
        let locked = LockedPolicy::ALL[random.below(3)];
        let disputable = DisputablePolicy::ALL[random.below(2)];
        let rail = |random: &mut Random| RailId::new(1).filter(|_| shape.rails && !random.one_in(3));
        let routes = Routes { deposit: rail(&mut random), withdrawal: rail(&mut random) };
        let world = World::new(config(locked, disputable));
        let owners = (0..shape.owner_count).map(|_| shape.open(&world, routes, seed)).collect();
        Self {
            shape,
            routes,
            random,
            world,
            before_batch: None,
            owners,
            tickets: BTreeMap::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            now_ms: 1000,
            trace,
            faults: BTreeMap::new(),
            ticket: 0,
        }
    }

    fn say(&self, what: impl FnOnce() -> alloc::string::String) {
        if self.trace {
            eprintln!("{:>6} {}", self.now_ms, what());
        }
    }

    fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// A request that has a chance: mostly of few transactions, and a dispute mostly where one fits.
    fn request(&mut self) -> Request {
        let customer = CustomerId::new(1 + self.random.below(2) as u128);
        let transaction = TransactionId::new(1 + self.random.below(6) as u128);
        let amount = Amount::from_steps([1, 2][self.random.below(2)]);
        let currency = CurrencyIndex(0);
        let known = self.world.model().transactions.get(&transaction.bits()).copied();
        let reference = Reference { transaction, amount: None, currency: None };
        let movement = Movement { transaction, amount, currency };
        let owner_of = |known: Option<crate::model::ModelTransaction>| {
            known.map_or(customer, |transaction| CustomerId::new(transaction.customer))
        };
        let (customer, action) = match (self.random.below(8), known.map(|known| known.status)) {
            (0, _) => (customer, Action::Unlock),
            (1, _) => (customer, Action::Withdrawal(movement)),
            (2, _) => (customer, Action::Deposit(movement)),
            (_, Some("posted")) => (owner_of(known), Action::Dispute(reference)),
            (3..6, Some(_)) => (owner_of(known), Action::Resolve(reference)),
            (6, Some(_)) => (owner_of(known), Action::Chargeback(reference)),
            (3, None) => (customer, Action::Withdrawal(movement)),
            (_, _) => (customer, Action::Deposit(movement)),
        };
        Request { customer, action }
    }

    /// Terms for some requests: one of few keys, so that they meet, and conditions that hold or just do not.
    fn terms(&mut self, request: &Request) -> Option<Box<Terms>> {
        let mut terms = Terms::default();
        if request.action.takes_key() && self.random.one_in(2) {
            terms.key = RequestKey::from_bits(1 + self.random.below(8) as u128);
        }
        if self.random.one_in(8) {
            let seq = self.world.head(request.customer).map_or(0, |head| head.seq);
            terms.expected_seq = Some(seq + self.random.below(2) as u64);
        }
        if self.random.one_in(8) {
            let amount = Amount::from_steps([-1, 0, 1, 2][self.random.below(4)]);
            terms.minimum_available = Some(Minimum { currency: CurrencyIndex(0), amount });
        }
        (!terms.is_empty()).then(|| Box::new(terms))
    }

    fn submit(&mut self) {
        let owner = self.random.below(self.owners.len());
        for _ in 0..=self.random.below(3) {
            let request = self.request();
            let terms = self.terms(&request);
            self.ticket += 1;
            self.say(|| alloc::format!("submit {} to {owner}: {request:?} {terms:?}", self.ticket));
            let submission = Submission { terms, ..Submission::new(Ticket(self.ticket), request) };
            self.owners[owner].submit(&mut self.world, submission);
            self.tickets.insert(Ticket(self.ticket), owner);
        }
    }

    fn step(&mut self, owner: usize) -> Did {
        if self.shape.whole_batches && !self.owners[owner].in_batch {
            self.before_batch = Some(self.world.clone());
        }
        let answered = self.owners[owner].answers.len();
        let did = self.owners[owner].step(&mut self.world, self.now_ms);
        if did != Did::Nothing {
            self.say(|| alloc::format!("{owner} {did:?} {:?}", &self.owners[owner].answers[answered..]));
        }
        if did == Did::Stepped(Step::Sync) {
            self.before_batch = None;
        }
        let calls = core::mem::take(&mut self.world.calls);
        self.calls.extend(calls.into_iter().map(|call| (owner, call)));
        did
    }

    /// The rail takes one of the calls made to it.
    fn rail(&mut self, faults: bool) {
        if self.calls.is_empty() {
            return;
        }
        let at = self.random.below(self.calls.len());
        let (owner, call) = self.calls.swap_remove(at);
        let id = call.event.id();
        if faults && self.random.one_in(5) {
            self.count("rail silent before it acted");
            self.answers.push((owner, id, RailAnswer::Unknown));
            return;
        }
        let verdict = if self.random.one_in(3) { Verdict::Refused("no") } else { Verdict::Acted };
        let answer = self.world.act(&call, verdict);
        self.say(|| alloc::format!("rail, {id}: {answer:?}"));
        if faults && self.random.one_in(5) {
            self.count("rail silent after it acted");
            self.answers.push((owner, id, RailAnswer::Unknown));
            return;
        }
        if faults && self.random.one_in(5) {
            self.count("rail answers twice");
            self.answers.push((owner, id, answer.clone()));
        }
        self.answers.push((owner, id, answer));
    }

    fn deliver(&mut self) {
        if !self.answers.is_empty() {
            let at = self.random.below(self.answers.len());
            let (owner, event, answer) = self.answers.swap_remove(at);
            self.say(|| alloc::format!("{owner} hears of {event}: {answer:?}"));
            self.owners[owner].machine.rail_answered(self.now_ms, event, answer);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        for (index, owner) in self.owners.iter_mut().enumerate() {
            self.calls.extend(owner.machine.due_calls(self.now_ms).into_iter().map(|call| (index, call)));
        }
    }

    fn forget(&mut self, owner: usize) {
        let (tickets, world) = (&mut self.tickets, &mut self.world);
        tickets.retain(|ticket, whose| {
            if *whose == owner {
                world.watched.remove(ticket);
            }
            *whose != owner
        });
    }

    fn reopen(&mut self, owner: usize) {
        let seed = self.random.next();
        self.owners[owner] = self.shape.open(&self.world, self.routes, seed);
    }

    /// One owner's process dies; the stores do not.
    fn kill_owner(&mut self, owner: usize) {
        self.count("owner dies");
        self.say(|| alloc::format!("{owner} dies at {:?}", self.owners[owner].next_step()));
        if self.shape.whole_batches {
            self.fall_back();
        } else {
            let idle = Owner::open(&self.world, self.routes, false, 0);
            let owner = core::mem::replace(&mut self.owners[owner], idle);
            let random = &mut self.random;
            owner.die_in_step(&mut self.world, || !random.one_in(3));
        }
        self.forget(owner);
        self.reopen(owner);
    }

    /// The batch that was not yet durable never was; or it is, and nobody was told.
    fn fall_back(&mut self) {
        if let Some(before) = self.before_batch.take() {
            let all_written = self.owners[0].next_step() == Some(Step::Sync);
            if self.owners[0].in_batch && !(all_written && self.random.one_in(2)) {
                let (watched, book) = (core::mem::take(&mut self.world.watched), self.world.book.clone());
                self.world = World { book, watched, ..before };
            }
        }
    }

    /// The power fails everywhere.
    fn crash(&mut self) {
        self.count("power fails");
        self.say(|| "the power fails".into());
        if self.shape.whole_batches {
            self.fall_back();
        } else {
            let random = &mut self.random;
            self.world.crash(|unsynced| random.below(unsynced + 1));
        }
        for owner in 0..self.owners.len() {
            self.forget(owner);
        }
        for owner in 0..self.owners.len() {
            self.reopen(owner);
        }
    }

    fn check(&mut self) {
        // A batch that takes effect as a whole is consistent as a whole.
        if !self.shape.whole_batches || !self.owners[0].in_batch {
            self.world.check();
        }
    }

    /// A time of faults.
    fn trouble(&mut self) {
        for _ in 0..30 + self.random.below(120) {
            let owner = self.random.below(self.owners.len());
            match self.random.below(100) {
                0..12 => self.submit(),
                12..24 => self.rail(true),
                24..36 => self.deliver(),
                36..40 => self.wait(150),
                40..42 => self.kill_owner(owner),
                42 => self.crash(),
                _ => {
                    // Owners have different paces, so that one can lie still for long.
                    let pace = if self.random.one_in(4) { 1 } else { 1 + self.random.below(8) };
                    for _ in 0..pace {
                        self.step(owner);
                        self.check();
                    }
                }
            }
            self.check();
        }
    }

    /// The faults stop, and everything must finish.
    fn finish(&mut self) {
        for _ in 0..5000 {
            let owner = self.random.below(self.owners.len());
            for _ in 0..=self.random.below(12) {
                self.step(owner);
                self.check();
            }
            self.rail(false);
            self.deliver();
            self.wait(50);
            let owners_rest = self.owners.iter().all(|o| !o.in_batch && o.queue.is_empty() && !o.machine.has_work());
            let quiet = self.calls.is_empty() && self.answers.is_empty();
            if owners_rest && quiet && self.owners.iter().all(|owner| owner.machine.open_events().count() == 0) {
                break;
            }
        }
        let unanswered: Vec<_> = self.world.watched.keys().collect();
        assert!(unanswered.is_empty(), "nobody answered {unanswered:?}");
        assert_eq!(self.world.open_customers(), [], "a customer stays locked");
    }
}

fn explore(salt: u64, seed_count: u64, shape: Shape) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let only = number("BURSAR_CORE_SEED");
    let seed_count = number("BURSAR_CORE_SEEDS").unwrap_or(seed_count);
    let mut faults = BTreeMap::new();
    let mut answers = BTreeMap::new();
    for seed in 0..seed_count {
        let seed = only.unwrap_or(salt + seed);
        let _says = Seed(seed, shape);
        let mut explorer = Explorer::new(seed, shape, only.is_some());
        explorer.trouble();
        explorer.finish();
        for (fault, count) in &explorer.faults {
            *faults.entry(*fault).or_insert(0) += count;
        }
        for answer in explorer.owners.iter().flat_map(|owner| &owner.answers) {
            *answers.entry(super::owner::code(&answer.result)).or_insert(0) += 1;
        }
        if only.is_some() {
            break;
        }
    }
    if only.is_none() {
        eprintln!("{shape:?}: {seed_count} executions, faults {faults:?}, answers {answers:?}");
    }
}

#[test]
fn explorer_one_owner() {
    explore(1 << 32, 1500, Shape { owner_count: 1, whole_batches: false, at_once: false, rails: true });
}

#[test]
fn explorer_one_owner_deciding_at_once() {
    explore(5 << 32, 1500, Shape { owner_count: 1, whole_batches: true, at_once: true, rails: true });
}

#[test]
fn explorer_one_owner_whole_batches() {
    explore(2 << 32, 1500, Shape { owner_count: 1, whole_batches: true, at_once: false, rails: true });
}

#[test]
fn explorer_two_owners() {
    explore(3 << 32, 1500, Shape { owner_count: 2, whole_batches: false, at_once: false, rails: false });
}

#[test]
fn explorer_two_owners_with_rails() {
    explore(4 << 32, 1500, Shape { owner_count: 2, whole_batches: false, at_once: false, rails: true });
}
