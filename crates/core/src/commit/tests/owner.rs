//! An owner of a ledger: a machine, its queue and the batch it is at, driven one step at a time.

use super::super::*;
use super::world::World;
use crate::chain::Head;
use crate::id::TransactionId;
use crate::request::RequestKind;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Clone)]
pub(super) struct Owner {
    pub(super) machine: Machine,
    pub(super) batch: Batch,
    pub(super) queue: VecDeque<Submission>,
    pub(super) in_batch: bool,
    pub(super) answers: Vec<Answer>,
}

/// What an owner did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    Gathered,
    Stepped(Step),
    Nothing,
}

pub(super) fn limits() -> Limits {
    Limits { batch_requests_max: 8, waiting_per_customer_max: 3, ask_again_ms: 100, ask_again_ms_max: 1000 }
}

impl Owner {
    /// Opens the ledger: a new machine, which recovers what it finds open.
    pub(super) fn open(world: &World, routes: Routes, whole_batches: bool, seed: u64) -> Self {
        let mut machine = Machine::new(world.config.clone(), routes, limits(), whole_batches, 0, seed);
        machine.recover(world.open_customers());
        let (batch, queue) = (Batch::new(seed), VecDeque::new());
        Self { machine, batch, queue, in_batch: false, answers: Vec::new() }
    }

    /// The same, for stores that can decide at once.
    pub(super) fn deciding_at_once(self) -> Self {
        Self { machine: self.machine.deciding_at_once(), ..self }
    }

    /// Submits requests, one per line, numbered on from `ticket`.
    pub(super) fn submit_all(&mut self, world: &mut World, ticket: u64, lines: &str) {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        for (ticket, line) in (ticket..).zip(lines) {
            self.submit(world, submission(ticket, line));
        }
    }

    pub(super) fn submit(&mut self, world: &mut World, submission: Submission) {
        world.submitted(&submission);
        self.queue.push_back(submission);
    }

    /// The step that comes next; `None` before a batch is gathered.
    pub(super) fn next_step(&self) -> Option<Step> {
        self.in_batch.then(|| self.batch.step())
    }

    /// One step, as the module's documentation says.
    pub(super) fn step(&mut self, world: &mut World, now_ms: u64) -> Did {
        if !self.in_batch {
            if self.queue.is_empty() && !self.machine.has_work() {
                return Did::Nothing;
            }
            self.machine.gather(now_ms, &mut self.queue, &mut self.batch);
            self.in_batch = true;
            return Did::Gathered;
        }
        let step = self.batch.step();
        if step == Step::Finish {
            let batch = core::mem::replace(&mut self.batch, Batch::new(0));
            self.answers.extend(Self::finish(world, batch, &mut self.queue, true));
            self.in_batch = false;
        } else {
            Self::take_step(&mut self.machine, world, &mut self.batch);
        }
        Did::Stepped(step)
    }

    /// One step of a batch but its last.
    pub(super) fn take_step(machine: &mut Machine, world: &mut World, batch: &mut Batch) {
        match batch.step() {
            Step::AtOnce => {
                for Submission { ticket, request, terms } in batch.take_submissions() {
                    let head = world.head(request.customer);
                    let head = head.unwrap_or_else(|| Head::start(&world.digest, request.customer));
                    let state = request.action.transaction().and_then(|transaction| world.in_effect(transaction));
                    let made = machine
                        .decide_at_once(batch, (ticket, &request, terms.as_deref()), &head, state.as_ref(), true)
                        .unwrap();
                    if let Some(linked) = made {
                        world.append_done(linked);
                    }
                }
                batch.decided_at_once();
            }
            Step::Load => {
                let heads: Vec<_> = batch.customers().iter().map(|customer| world.head(*customer)).collect();
                machine.loaded(&world.digest, batch, heads).unwrap();
            }
            Step::Get => {
                let entries: Vec<_> = batch.transactions().iter().map(|id| world.entry(*id)).collect();
                machine.found(batch, &entries).unwrap();
            }
            Step::Settle => {
                let statuses: Vec<_> = batch.to_settle().iter().map(|event| world.status(event)).collect();
                machine.settled(batch, &statuses).unwrap();
            }
            Step::Recall => {
                let events: Vec<_> = batch.to_recall().iter().map(|event| world.event(event)).collect();
                machine.recalled(batch, events).unwrap();
            }
            Step::AppendStarted => {
                let results = world.append(batch.started(), |_| true);
                machine.started(batch, &results).unwrap();
            }
            Step::Propose => {
                let results = world.propose(batch.proposals());
                machine.proposed(batch, &results).unwrap();
            }
            Step::AppendClosed => {
                let results = world.append(batch.closed(), |_| true);
                machine.closed(batch, &results).unwrap();
            }
            Step::Sync => {
                world.sync();
                batch.synced();
            }
            Step::Finish => unreachable!("a batch is finished as a whole"),
        }
    }

    /// The last step of a batch. `approves`: the table takes the approvals.
    pub(super) fn finish(
        world: &mut World,
        mut batch: Batch,
        queue: &mut VecDeque<Submission>,
        approves: bool,
    ) -> Vec<Answer> {
        let answers = batch.take_answers();
        for answer in &answers {
            world.answered(answer);
        }
        for call in batch.calls().to_vec() {
            world.call(call);
        }
        if approves {
            world.approve(batch.approvals());
        }
        batch.give_back(queue);
        answers
    }

    /// Dies in the middle of a step: some of its writes get through, and nobody hears of it.
    pub(super) fn die_in_step(self, world: &mut World, mut keep: impl FnMut() -> bool) {
        match self.next_step() {
            Some(Step::AppendStarted) => drop(world.append(self.batch.started(), |_| keep())),
            Some(Step::AppendClosed) => drop(world.append(self.batch.closed(), |_| keep())),
            Some(Step::Propose) => {
                let some: Vec<_> = self.batch.proposals().iter().copied().filter(|_| keep()).collect();
                world.propose(&some);
            }
            Some(Step::Finish) => {
                let some: Vec<_> = self.batch.approvals().iter().copied().filter(|_| keep()).collect();
                world.approve(&some);
            }
            Some(Step::Sync) if keep() => world.sync(),
            Some(Step::AtOnce | Step::Load | Step::Get | Step::Settle | Step::Recall | Step::Sync) | None => {}
        }
    }

    /// Goes on until there is nothing to do; each step is followed by the checks of the world.
    pub(super) fn run(&mut self, world: &mut World, now_ms: u64) {
        for _ in 0..1000 {
            if self.step(world, now_ms) == Did::Nothing {
                return;
            }
            world.check();
        }
        panic!("the machine does not come to rest");
    }

    /// Goes on until `step` would be next.
    pub(super) fn run_to(&mut self, world: &mut World, now_ms: u64, step: Step) {
        for _ in 0..1000 {
            if self.next_step() == Some(step) {
                return;
            }
            assert_ne!(self.step(world, now_ms), Did::Nothing, "{step:?} never came");
        }
        panic!("{step:?} never came");
    }

    /// The codes of the answers so far, by ticket: `1 applied, 2 busy`.
    pub(super) fn codes(&self) -> alloc::string::String {
        let mut answers: Vec<_> = self.answers.iter().map(|a| (a.ticket.0, code(&a.result))).collect();
        answers.sort_unstable();
        let texts: Vec<_> = answers.iter().map(|(ticket, code)| alloc::format!("{ticket} {code}")).collect();
        texts.join(", ")
    }
}

pub(super) fn code(result: &Result<Outcome, Busy>) -> &'static str {
    match result {
        Ok(Outcome::Applied(_)) => "applied",
        Ok(Outcome::AlreadyApplied(_)) => "already_applied",
        Ok(Outcome::Rejected(rejection)) => rejection.code(),
        Err(Busy { .. }) => "busy",
    }
}

/// Reads a request and its terms: `dispute 1 10 key=7 expect=2 left=5`.
pub(super) fn submission(ticket: u64, text: &str) -> Submission {
    let mut terms = Terms::default();
    for (name, value) in text.split_whitespace().filter_map(|word| word.split_once('=')) {
        let value = value.parse::<u32>().expect(text);
        match name {
            "key" => terms.key = RequestKey::from_bits(u128::from(value)),
            "expect" => terms.expected_seq = Some(u64::from(value)),
            "left" => {
                let amount = Amount::from_steps(i64::from(value));
                terms.minimum_available = Some(Minimum { currency: CurrencyIndex(0), amount });
            }
            _ => panic!("no such term: {text}"),
        }
    }
    let terms = (!terms.is_empty()).then(|| Box::new(terms));
    Submission { terms, ..Submission::new(Ticket(ticket), request(text)) }
}

/// Reads `deposit 1 10 5`: the kind, the customer, the transaction, and for new transactions the amount.
pub(super) fn request(text: &str) -> Request {
    let words: Vec<_> = text.split_whitespace().collect();
    let kind = RequestKind::from_name(words[0].as_bytes()).expect(text);
    let number = |at: usize| words[at].parse::<u32>().expect(text);
    let customer = CustomerId::new(u128::from(number(1)));
    let transaction = || TransactionId::new(u128::from(number(2)));
    let amount = || Amount::from_steps(i64::from(number(3)));
    match kind {
        RequestKind::Deposit => Request::deposit(customer, transaction(), amount()),
        RequestKind::Withdrawal => Request::withdrawal(customer, transaction(), amount()),
        RequestKind::Dispute => Request::dispute(customer, transaction()),
        RequestKind::Resolve => Request::resolve(customer, transaction()),
        RequestKind::Chargeback => Request::chargeback(customer, transaction()),
        RequestKind::Unlock => Request::unlock(customer),
    }
}
