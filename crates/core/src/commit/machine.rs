//! The machine itself: which customers have an open event, and each step of a batch.

use super::batch::{Batch, BatchEvent, Closing, Entry, NOWHERE, Placed, Step};
use super::{
    Answer, Appended, Approval, Broken, Busy, Outcome, Proposal, ProposeResult, RailAnswer, RailCall, Receipt,
    Submission, Ticket,
};
use crate::chain::Head;
use crate::event::{AbortReason, Event, EventStatus, LinkedEvent, RailId, Record};
use crate::hash::{EventId, Hash};
use crate::id::CustomerId;
use crate::policy::LedgerConfig;
use crate::rejection::Rejection;
use crate::request::RequestKind;
use crate::rules::{Change, Decision, Known, decide, keeps_invariants};
use crate::transaction::{Proposed, TransactionEntry};
use alloc::collections::VecDeque;
use alloc::string::ToString;
use alloc::vec::Vec;
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Which kinds of request go through which rail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Deposits go through this rail.
    pub deposit: Option<RailId>,
    /// Withdrawals go through this rail.
    pub withdrawal: Option<RailId>,
}

impl Routes {
    const fn of(self, kind: RequestKind) -> Option<RailId> {
        match kind {
            RequestKind::Deposit => self.deposit,
            RequestKind::Withdrawal => self.withdrawal,
            RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback | RequestKind::Unlock => None,
        }
    }
}

/// What bounds the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many requests a batch takes at the most.
    pub batch_requests_max: usize,
    /// How many requests may wait for one customer whose event is open; further ones hear [`Busy`].
    pub waiting_per_customer_max: usize,
    /// How long after an unknown answer a rail is asked again the first time, in milliseconds. Doubles each
    /// time, up to `ask_again_ms_max`.
    pub ask_again_ms: u64,
    /// The longest time between two questions to a rail about one event, in milliseconds.
    pub ask_again_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_requests_max: 1024, waiting_per_customer_max: 1024, ask_again_ms: 1_000, ask_again_ms_max: 60_000 }
    }
}

/// A customer whose event waits for its rail.
#[derive(Debug)]
struct Open {
    linked: LinkedEvent,
    rail: RailId,
    ticket: Option<Ticket>,
    waiting: VecDeque<Submission>,
    attempt: u32,
    /// When to ask the rail again; `None` while a call is under way.
    ask_at_ms: Option<u64>,
    /// The rail has answered; to be closed by the next batch.
    answer: Option<EventStatus>,
}

/// The commit machine of one ledger. See the [module's documentation](super).
#[derive(Debug)]
pub struct Machine {
    config: LedgerConfig,
    routes: Routes,
    limits: Limits,
    whole_batches: bool,
    last_time_ms: u64,
    open: HashMap<CustomerId, Open, FixedState>,
    open_events: HashMap<EventId, CustomerId, FixedState>,
    answered: VecDeque<CustomerId>,
    to_recover: VecDeque<CustomerId>,
}

impl Machine {
    /// A machine that knows of no open event yet.
    ///
    /// `whole_batches`: the stores take effect for a batch as a whole or not at all, also across a crash (the
    /// embedded store: one frame). Then a batch may touch one transaction several times; otherwise it ends
    /// before the second time, since the table holds at most one proposed state.
    ///
    /// `last_time_ms`: the time of the newest event there is; time does not go back behind it.
    pub fn new(
        config: LedgerConfig,
        routes: Routes,
        limits: Limits,
        whole_batches: bool,
        last_time_ms: u64,
        seed: u64,
    ) -> Self {
        Self {
            config,
            routes,
            limits,
            whole_batches,
            last_time_ms,
            open: HashMap::with_hasher(FixedState::with_seed(seed)),
            open_events: HashMap::with_hasher(FixedState::with_seed(seed)),
            answered: VecDeque::new(),
            to_recover: VecDeque::new(),
        }
    }

    /// The ledger's rules and currencies.
    pub const fn config(&self) -> &LedgerConfig {
        &self.config
    }

    /// Customers whose chains end in an open event, found when the ledger was opened, or suspected. The next
    /// batches load them and settle what is open.
    pub fn recover(&mut self, customers: impl IntoIterator<Item = CustomerId>) {
        self.to_recover.extend(customers);
    }

    /// A rail has answered for an event. An answer for an event that is not open (any more) changes nothing,
    /// so that answers may come twice and late.
    pub fn rail_answered(&mut self, now_ms: u64, event: EventId, answer: RailAnswer) {
        let Some(&customer) = self.open_events.get(&event) else { return };
        let Some(open) = self.open.get_mut(&customer) else { return };
        if open.answer.is_some() {
            return;
        }
        let status = match answer {
            RailAnswer::Done => EventStatus::Done,
            RailAnswer::Refused(reason) => EventStatus::Aborted(reason),
            RailAnswer::Unknown => {
                let doubled = self.limits.ask_again_ms.saturating_mul(1 << open.attempt.min(32));
                open.ask_at_ms = Some(now_ms.saturating_add(doubled.min(self.limits.ask_again_ms_max)));
                return;
            }
        };
        open.answer = Some(status);
        self.answered.push_back(customer);
    }

    /// The calls that are due by now to rails that could not tell before.
    pub fn due_calls(&mut self, now_ms: u64) -> Vec<RailCall> {
        let mut calls = Vec::new();
        for open in self.open.values_mut() {
            if open.answer.is_none() && open.ask_at_ms.is_some_and(|at| at <= now_ms) {
                open.ask_at_ms = None;
                open.attempt = open.attempt.saturating_add(1);
                calls.push(RailCall { rail: open.rail, event: open.linked.clone(), attempt: open.attempt });
            }
        }
        calls.sort_by_key(|call| call.event.event.customer);
        calls
    }

    /// When [`Machine::due_calls`] will next have a call, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.open.values().filter(|open| open.answer.is_none()).filter_map(|open| open.ask_at_ms).min()
    }

    /// Events that wait for their rails, in no order.
    pub fn open_events(&self) -> impl Iterator<Item = &LinkedEvent> {
        self.open.values().map(|open| &open.linked)
    }

    /// How many requests wait behind open events.
    pub fn waiting_count(&self) -> usize {
        self.open.values().map(|open| open.waiting.len()).sum()
    }

    /// Whether a batch would have something to do even without new requests.
    pub fn has_work(&self) -> bool {
        !self.answered.is_empty() || !self.to_recover.is_empty()
    }

    /// Fills an empty batch: first with what rails have answered and the requests that waited for that, then
    /// with customers to recover, then with requests from the queue's front, up to the limit. Requests of
    /// customers whose event is open are taken from the queue and wait.
    pub fn gather(&mut self, now_ms: u64, queue: &mut VecDeque<Submission>, batch: &mut Batch) {
        batch.clear();
        batch.time_ms = now_ms.max(self.last_time_ms);
        self.last_time_ms = batch.time_ms;
        while let Some(customer) = self.answered.pop_front() {
            self.gather_answered(customer, batch);
        }
        while let Some(customer) = self.to_recover.pop_front() {
            if !self.open.contains_key(&customer) {
                batch.place_customer(customer);
            }
            if batch.customers.len() >= self.limits.batch_requests_max {
                break;
            }
        }
        while batch.submissions.len() < self.limits.batch_requests_max {
            let Some(submission) = queue.pop_front() else { break };
            if !self.open.is_empty() && self.wait_if_open(submission, batch) {
                continue;
            }
            place(submission, batch);
        }
        batch.step = Step::Load;
        if batch.customers.is_empty() {
            batch.step = Step::Finish;
        }
    }

    fn gather_answered(&mut self, customer: CustomerId, batch: &mut Batch) {
        let Some(open) = self.open.remove(&customer) else { return };
        self.open_events.remove(&open.linked.id());
        let place_of = batch.place_customer(customer);
        if let Some(transaction) = open.linked.event.transaction {
            batch.place_transaction(transaction);
        }
        let status = open.answer.unwrap_or(EventStatus::Started);
        batch.closings.push(Closing { customer: place_of, linked: open.linked, ticket: open.ticket, status });
        for submission in open.waiting {
            place(submission, batch);
        }
    }

    /// Lets a request wait if its customer's event is open; too many hear [`Busy`].
    fn wait_if_open(&mut self, submission: Submission, batch: &mut Batch) -> bool {
        let customer = submission.request.customer;
        let Some(open) = self.open.get_mut(&customer) else { return false };
        if open.waiting.len() < self.limits.waiting_per_customer_max {
            open.waiting.push_back(submission);
        } else {
            batch.answers.push(Answer { ticket: submission.ticket, result: Err(Busy { customer }) });
        }
        true
    }

    /// Takes the heads of [`Batch::customers`], in that order; `None` for a customer without a chain.
    pub fn loaded(
        &mut self,
        ledger_digest: &Hash,
        batch: &mut Batch,
        heads: impl IntoIterator<Item = Option<Head>>,
    ) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Load);
        batch.heads.extend(
            heads
                .into_iter()
                .zip(&batch.customers)
                .map(|(head, &customer)| head.unwrap_or_else(|| Head::start(ledger_digest, customer))),
        );
        if batch.heads.len() != batch.customers.len() {
            return Err(Broken::Store { what: "fewer heads than customers" });
        }
        for place in 0..batch.heads.len() {
            for open in 0..batch.heads[place].open.len() {
                if let Some(transaction) = batch.heads[place].open[open].event.transaction {
                    batch.place_transaction(transaction);
                }
            }
        }
        batch.step = Step::Get;
        if batch.transactions.is_empty() {
            self.decide_all(batch)?;
        }
        Ok(())
    }

    /// Takes the table's entries of [`Batch::transactions`], in that order.
    pub fn found(&mut self, batch: &mut Batch, entries: &[TransactionEntry]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Get);
        if entries.len() != batch.transactions.len() {
            return Err(Broken::Store { what: "fewer entries than transactions" });
        }
        for entry in entries {
            if let Some(proposed) = entry.proposed {
                batch.to_settle.push(proposed.event);
            }
            batch.entries.push(Entry { table: *entry, approved: entry.approved, reserved: false, touched: false });
        }
        batch.step = Step::Settle;
        if batch.to_settle.is_empty() {
            self.decide_all(batch)?;
        }
        Ok(())
    }

    /// Takes how the events of [`Batch::to_settle`] stand, in that order; `None` for an event that no chain
    /// has. A proposed state counts only if its event is `Done`; then the table is brought up to date.
    pub fn settled(&mut self, batch: &mut Batch, statuses: &[Option<EventStatus>]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Settle);
        if statuses.len() != batch.to_settle.len() {
            return Err(Broken::Store { what: "fewer statuses than events" });
        }
        let mut statuses = statuses.iter();
        for (entry, transaction) in batch.entries.iter_mut().zip(&batch.transactions) {
            let Some(proposed) = entry.table.proposed else { continue };
            match statuses.next() {
                Some(Some(EventStatus::Done)) => {
                    entry.approved = Some(proposed.state);
                    let Proposed { event, state } = proposed;
                    batch.approvals.push(Approval { transaction: *transaction, event: event.id, state });
                }
                Some(Some(EventStatus::Started)) => entry.reserved = true,
                Some(Some(EventStatus::Aborted(_)) | None) | None => {}
            }
        }
        self.decide_all(batch)
    }

    /// Decides everything in the batch, in order: what recovery finds, what rails have answered, requests.
    fn decide_all(&mut self, batch: &mut Batch) -> Result<(), Broken> {
        for place in 0..batch.heads.len() {
            if !batch.heads[place].open.is_empty() && !batch.closings.iter().any(|c| c.customer as usize == place) {
                self.recover_customer(batch, place as u32);
            }
        }
        for closing in core::mem::take(&mut batch.closings) {
            close_answered(batch, closing);
        }
        for place in 0..batch.submissions.len() {
            let Placed { submission, transaction, .. } = batch.submissions[place];
            if !self.open.is_empty() && self.wait_if_open(submission, batch) {
                continue;
            }
            let again = transaction != NOWHERE && batch.entries[transaction as usize].touched;
            if again && !self.whole_batches {
                let rest = batch.submissions[place..].iter().map(|placed| placed.submission);
                batch.rest.extend(rest);
                batch.submissions.truncate(place);
                break;
            }
            self.decide_one(batch, place)?;
        }
        batch.step = Step::AppendStarted;
        if batch.started.is_empty() {
            list_proposals(batch);
        }
        Ok(())
    }

    /// Settles what a chain's end leaves open: rolls forward without a rail, asks again with one.
    fn recover_customer(&mut self, batch: &mut Batch, customer: u32) {
        let open = batch.heads[customer as usize].open.clone();
        for linked in open {
            let head = &mut batch.heads[customer as usize];
            let builds_on_head = linked.event.hash(&head.link) == linked.hash;
            let status = match linked.event.rail {
                _ if !builds_on_head => EventStatus::Aborted(AbortReason::TransactionConflict),
                None => EventStatus::Done,
                Some(_) => EventStatus::Started,
            };
            let proposal = if builds_on_head { propose(batch, &linked) } else { None };
            batch.heads[customer as usize].close(&status);
            batch.events.push(BatchEvent {
                reference: linked.reference(),
                customer,
                started: NOWHERE,
                submission: NOWHERE,
                proposal,
                proposed_before: false,
                status,
                ticket: None,
                lost: false,
            });
            if let Some(rail) = linked.event.rail.filter(|_| builds_on_head) {
                self.hold_open(batch, linked, rail, None, 1);
                return;
            }
        }
    }

    /// Keeps a customer locked for an event that waits for its rail.
    fn hold_open(
        &mut self,
        batch: &mut Batch,
        linked: LinkedEvent,
        rail: RailId,
        ticket: Option<Ticket>,
        attempt: u32,
    ) {
        let customer = linked.event.customer;
        batch.calls.push(RailCall { rail, event: linked.clone(), attempt });
        self.open_events.insert(linked.id(), customer);
        let waiting = VecDeque::new();
        self.open.insert(customer, Open { linked, rail, ticket, waiting, attempt, ask_at_ms: None, answer: None });
    }

    fn decide_one(&mut self, batch: &mut Batch, place: usize) -> Result<(), Broken> {
        let Placed { submission, customer, transaction } = batch.submissions[place];
        let Submission { ticket, request } = submission;
        let known = match batch.entries.get(transaction as usize) {
            None => Known::default(),
            Some(entry) => Known { state: entry.approved, reserved: entry.reserved },
        };
        let head = &batch.heads[customer as usize];
        let outcome = match decide(&self.config, &head.state, known, &request) {
            Ok(Decision::Change(change)) => return self.make_event(batch, place as u32, change),
            Ok(Decision::AlreadyApplied) => Outcome::AlreadyApplied,
            Err(rejection) => Outcome::Rejected(rejection),
        };
        batch.answers.push(Answer { ticket, result: Ok(outcome) });
        Ok(())
    }

    fn make_event(&mut self, batch: &mut Batch, place: u32, change: Change) -> Result<(), Broken> {
        let Placed { submission, customer, .. } = batch.submissions[place as usize];
        let ticket = submission.ticket;
        let head = &batch.heads[customer as usize];
        let before = head.state.accounts.get(change.currency);
        let rail = self.routes.of(change.kind);
        let time_ms = batch.time_ms.max(head.time_ms);
        let event = Event::new(submission.request.customer, head.seq + 1, time_ms, change, rail);
        let after = event.account();
        if !keeps_invariants(event.kind, event.transaction_kind, event.amount, before, after) {
            return Err(Broken::Account { customer: event.customer, before, after, amount: event.amount });
        }
        let linked = LinkedEvent::new(event, &head.link);
        let proposal = propose(batch, &linked);
        let head = &mut batch.heads[customer as usize];
        let status = match rail {
            None => {
                head.done(&linked);
                batch.answers.push(Answer { ticket, result: Ok(Outcome::Applied(receipt(&linked))) });
                EventStatus::Done
            }
            Some(rail) => {
                self.hold_open(batch, linked.clone(), rail, Some(ticket), 0);
                EventStatus::Started
            }
        };
        batch.events.push(BatchEvent {
            reference: linked.reference(),
            customer,
            started: batch.started.len() as u32,
            submission: place,
            proposal,
            proposed_before: false,
            status,
            ticket: Some(ticket),
            lost: false,
        });
        batch.started.push(Record::Started(linked));
        Ok(())
    }

    /// Takes what became of [`Batch::started`], in that order. Where another owner was faster, the customer's
    /// requests are put off, to be decided anew on what the chain then says.
    pub fn started(&mut self, batch: &mut Batch, results: &[Appended]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::AppendStarted);
        if results.len() != batch.started.len() {
            return Err(Broken::Store { what: "fewer results than records" });
        }
        for index in 0..batch.events.len() {
            let event = &batch.events[index];
            let lost = event.started != NOWHERE && results[event.started as usize] != Appended::Yes;
            if lost && !event.lost {
                let customer = event.customer;
                self.lose(batch, customer, index, 0);
            }
        }
        list_proposals(batch);
        Ok(())
    }

    /// Leaves out a customer's events from `first` on, and puts off its submissions from `from` on.
    fn lose(&mut self, batch: &mut Batch, customer: u32, first: usize, from_submission: u32) {
        let id = batch.customers[customer as usize];
        for event in batch.events.iter_mut().skip(first).filter(|event| event.customer == customer) {
            event.lost = true;
        }
        batch.put_off(customer, from_submission);
        self.forget_open(batch, id);
    }

    /// Unlocks a customer whose open event is not to be; who waited for it goes back to the queue.
    fn forget_open(&mut self, batch: &mut Batch, customer: CustomerId) {
        if let Some(open) = self.open.remove(&customer) {
            self.open_events.remove(&open.linked.id());
            batch.calls.retain(|call| call.event.event.customer != customer);
            for submission in open.waiting {
                if !batch.retry.iter().any(|again| again.ticket == submission.ticket) {
                    batch.retry.push(submission);
                }
            }
        }
    }

    /// Takes what became of [`Batch::proposals`], in that order. Where another event has taken the transaction,
    /// the event is aborted, with those of its customer that were decided on top of it.
    pub fn proposed(&mut self, batch: &mut Batch, results: &[ProposeResult]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::Propose);
        if results.len() != batch.proposals.len() {
            return Err(Broken::Store { what: "fewer results than proposals" });
        }
        if results.contains(&ProposeResult::Conflict) {
            let mut results = results.iter();
            for index in 0..batch.events.len() {
                let event = &batch.events[index];
                if !event.proposes() {
                    continue;
                }
                if results.next() == Some(&ProposeResult::Conflict) {
                    self.abort_from(batch, index);
                }
            }
        }
        list_closed(batch);
        Ok(())
    }

    fn abort_from(&mut self, batch: &mut Batch, first: usize) {
        let (customer, from_submission) = (batch.events[first].customer, batch.events[first].submission);
        for event in batch.events.iter_mut().skip(first).filter(|event| event.customer == customer) {
            event.status = EventStatus::Aborted(AbortReason::TransactionConflict);
        }
        let from_submission = if from_submission == NOWHERE { 0 } else { from_submission };
        batch.put_off(customer, from_submission);
        let id = batch.customers[customer as usize];
        self.forget_open(batch, id);
    }

    /// Takes what became of [`Batch::closed`], in that order. `Done` or `Aborted` wins once; whoever comes
    /// second takes over what the first decided.
    pub fn closed(&mut self, batch: &mut Batch, results: &[Appended]) -> Result<(), Broken> {
        debug_assert_eq!(batch.step, Step::AppendClosed);
        if results.len() != batch.closed.len() {
            return Err(Broken::Store { what: "fewer results than records" });
        }
        for (place, result) in results.iter().enumerate() {
            let index = batch.closed_events[place] as usize;
            let event = &batch.events[index];
            if event.lost {
                continue;
            }
            match (result, &event.status) {
                (Appended::Yes | Appended::AlreadyDone, _) | (Appended::AlreadyAborted(_), EventStatus::Aborted(_)) => {
                }
                (Appended::AlreadyAborted(reason), _) => {
                    let reason = reason.text().to_string();
                    let ticket = event.ticket.filter(|_| event.submission == NOWHERE);
                    self.lose_closed(batch, index);
                    change_answer(batch, ticket, Outcome::Rejected(Rejection::RailRefused { reason }));
                }
                (Appended::Conflict, _) if event.submission == NOWHERE && event.ticket.is_some() => {
                    return Err(Broken::Store { what: "an event that waited for its rail is gone" });
                }
                (Appended::Conflict, _) => self.lose_closed(batch, index),
            }
        }
        for event in &batch.events {
            if let (Some(proposal), false, EventStatus::Done) = (&event.proposal, event.lost, &event.status) {
                let Proposal { transaction, state, event, .. } = *proposal;
                batch.approvals.push(Approval { transaction, event: event.id, state });
            }
        }
        batch.step = Step::Sync;
        Ok(())
    }

    /// Somebody else has closed an event otherwise: what was decided on top of it is void, and the chain's
    /// end is settled anew.
    fn lose_closed(&mut self, batch: &mut Batch, index: usize) {
        let BatchEvent { customer, submission, .. } = batch.events[index];
        let from_submission = if submission == NOWHERE { 0 } else { submission };
        self.lose(batch, customer, index, from_submission);
        self.to_recover.push_back(batch.customers[customer as usize]);
    }
}

fn place(submission: Submission, batch: &mut Batch) {
    let customer = batch.place_customer(submission.request.customer);
    let transaction = submission.request.action.transaction().map_or(NOWHERE, |id| batch.place_transaction(id));
    batch.submissions.push(Placed { submission, customer, transaction });
}

/// The proposal an event makes, noted in the batch's own view of the transaction.
fn propose(batch: &mut Batch, linked: &LinkedEvent) -> Option<Proposal> {
    let transaction = linked.event.transaction?;
    let state = linked.event.transaction_state()?;
    let event = linked.reference();
    let place = *batch.transaction_places.get(&transaction)?;
    let entry = &mut batch.entries[place as usize];
    let proposal = Proposal {
        transaction,
        seen_approved: entry.table.approved,
        seen_proposed: entry.table.proposed.map(|proposed| proposed.event.id),
        approved: entry.approved,
        state,
        event,
    };
    entry.table = TransactionEntry { approved: entry.approved, proposed: Some(Proposed { state, event }) };
    entry.touched = true;
    entry.reserved = linked.event.rail.is_some();
    if !entry.reserved {
        entry.approved = Some(state);
    }
    Some(proposal)
}

/// Closes an event whose rail has answered, in the batch's own view.
fn close_answered(batch: &mut Batch, closing: Closing) {
    let Closing { customer, linked, ticket, status } = closing;
    let head = &mut batch.heads[customer as usize];
    if head.open.first().is_some_and(|open| open.hash == linked.hash) {
        head.close(&status);
    }
    let place = linked.event.transaction.and_then(|transaction| batch.transaction_places.get(&transaction)).copied();
    let mut proposal = None;
    if let Some((place, state)) = place.zip(linked.event.transaction_state()) {
        let entry = &mut batch.entries[place as usize];
        entry.reserved = false;
        if status == EventStatus::Done {
            let transaction = batch.transactions[place as usize];
            let TransactionEntry { approved, proposed } = entry.table;
            proposal = Some(Proposal {
                transaction,
                seen_approved: approved,
                seen_proposed: proposed.map(|proposed| proposed.event.id),
                approved,
                state,
                event: linked.reference(),
            });
            entry.approved = Some(state);
        }
        entry.touched = true;
    }
    let outcome = match &status {
        EventStatus::Aborted(reason) => Outcome::Rejected(Rejection::RailRefused { reason: reason.text().into() }),
        EventStatus::Done | EventStatus::Started => Outcome::Applied(receipt(&linked)),
    };
    if let Some(ticket) = ticket {
        batch.answers.push(Answer { ticket, result: Ok(outcome) });
    }
    let reference = linked.reference();
    let (started, submission) = (NOWHERE, NOWHERE);
    batch.events.push(BatchEvent {
        reference,
        customer,
        started,
        submission,
        proposal,
        proposed_before: true,
        status,
        ticket,
        lost: false,
    });
}

fn list_proposals(batch: &mut Batch) {
    batch.proposals.extend(batch.events.iter().filter(|event| event.proposes()).filter_map(|event| event.proposal));
    batch.step = Step::Propose;
    if batch.proposals.is_empty() {
        list_closed(batch);
    }
}

fn list_closed(batch: &mut Batch) {
    for (index, event) in batch.events.iter().enumerate().filter(|(_, event)| !event.lost) {
        let record = match &event.status {
            EventStatus::Started => continue,
            EventStatus::Done => Record::Done(event.reference),
            EventStatus::Aborted(reason) => Record::Aborted(event.reference, reason.clone()),
        };
        batch.closed.push(record);
        batch.closed_events.push(index as u32);
    }
    batch.step = if batch.closed.is_empty() { Step::Sync } else { Step::AppendClosed };
}

fn change_answer(batch: &mut Batch, ticket: Option<Ticket>, outcome: Outcome) {
    if let Some(answer) = batch.answers.iter_mut().find(|answer| Some(answer.ticket) == ticket) {
        answer.result = Ok(outcome);
    }
}

fn receipt(linked: &LinkedEvent) -> Receipt {
    let LinkedEvent { event, hash } = linked;
    Receipt {
        event: linked.reference(),
        hash: *hash,
        time_ms: event.time_ms,
        currency: event.currency,
        account: event.account(),
        locked: event.state.locked,
    }
}
