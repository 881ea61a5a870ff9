//! The machine itself: which customers have an open event, what their rails say, and what the next batch is
//! to do. How a batch is decided is in [`super::decide`], what becomes of it in [`super::conclude`].

use super::batch::{Batch, Closing, Step};
use super::{Answer, Busy, Outcome, RailAnswer, RailCall, Settlement, Submission};
use crate::event::{AbortReason, EventStatus, LinkedEvent, RailId, ReasonText};
use crate::hash::EventId;
use crate::id::CustomerId;
use crate::planted::{Planted, is_planted};
use crate::policy::LedgerConfig;
use crate::rejection::Rejection;
use crate::request::RequestKind;
use crate::transaction::EventRef;
use alloc::collections::{BTreeMap, VecDeque};
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
    /// The rail that a kind of request goes through, if there is one.
    pub const fn of(self, kind: RequestKind) -> Option<RailId> {
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
    /// How long after an unknown answer a rail without a [`Schedule`] is asked again the first time, in
    /// milliseconds. Doubles each time, up to `ask_again_ms_max`.
    pub ask_again_ms: u64,
    /// The longest time between two questions to such a rail about one event, in milliseconds.
    pub ask_again_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { batch_requests_max: 1024, waiting_per_customer_max: 1024, ask_again_ms: 1_000, ask_again_ms_max: 60_000 }
    }
}

/// When a rail that could not tell is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How long after the first unknown answer, in milliseconds.
    pub first_ms: u64,
    /// How many times longer after each further one.
    pub factor: u32,
    /// The longest time between two calls for one event, in milliseconds.
    pub max_ms: u64,
    /// How long after an event was decided its rail is called of itself, in milliseconds; `None`: without end.
    /// Then it is an operator's turn.
    pub deadline_ms: Option<u64>,
}

impl Schedule {
    /// How long to wait behind a call that was the so manieth, counted from 0.
    fn pause_ms(&self, attempt: u32) -> u64 {
        let factor = u64::from(self.factor).saturating_pow(attempt);
        self.first_ms.saturating_mul(factor).min(self.max_ms)
    }

    /// Until when an event's rail is called of itself.
    fn deadline_of(&self, linked: &LinkedEvent) -> Option<u64> {
        self.deadline_ms.map(|deadline_ms| linked.event.time_ms.saturating_add(deadline_ms))
    }
}

/// Whether a rail is being asked about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asking {
    /// A call is under way.
    UnderWay,
    /// It will be called at this time, in milliseconds since 1970.
    At(u64),
    /// Its deadline has passed: it is not called any more, and an operator has to settle the event.
    Stopped,
}

/// An event that waits for its rail, for those who look after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The event.
    pub linked: LinkedEvent,
    /// Its rail.
    pub rail: RailId,
    /// How many times the rail was called since the ledger was opened.
    pub call_count: u32,
    /// Whether it is being called, or when it will be.
    pub asking: Asking,
    /// Until when it is called of itself, in milliseconds since 1970.
    pub deadline_ms: Option<u64>,
    /// How many requests of the customer wait behind it.
    pub waiting_count: usize,
}

/// What becomes of a settlement by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// A coming batch closes the event like this.
    Begun,
    /// A coming batch closes the event anyway: its rail has answered, or somebody else has settled it.
    CameFirst,
    /// No such event waits for a rail here.
    NotOpen,
}

/// A customer whose event waits for its rail.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Open {
    pub(super) linked: LinkedEvent,
    pub(super) rail: RailId,
    /// What led to the event, if somebody waits for the answer.
    pub(super) asked: Option<Submission>,
    pub(super) waiting: VecDeque<Submission>,
    pub(super) attempt: u32,
    pub(super) call_count: u32,
    pub(super) asking: Asking,
    /// The rail has answered, or an operator has settled it; to be closed by the next batch.
    pub(super) answer: Option<EventStatus>,
}

/// Whether a request waits for its customer's open event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// The customer has no open event.
    No,
    /// It does wait.
    Yes,
    /// Too many wait already.
    Busy,
    /// One with the same key waits already.
    UnderWay,
}

/// The commit machine of one ledger. See the [module's documentation](super).
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))] // for the search of all states; a ledger has one machine
pub struct Machine {
    pub(super) config: LedgerConfig,
    pub(super) routes: Routes,
    limits: Limits,
    schedules: BTreeMap<RailId, Schedule>,
    pub(super) whole_batches: bool,
    /// See [`Machine::deciding_at_once`].
    pub(super) at_once: bool,
    pub(super) last_time_ms: u64,
    pub(super) open: HashMap<CustomerId, Open, FixedState>,
    /// Which customer each open event is of.
    pub(super) open_events: HashMap<EventId, CustomerId, FixedState>,
    /// Customers whose rail has answered; may name some whose event is not open any more.
    pub(super) answered: VecDeque<CustomerId>,
    pub(super) to_recover: VecDeque<CustomerId>,
    /// Events that the table has approved, and that the heads of a batch did not reach. The next batch, whose heads are
    /// loaded after that, tells a read that came too early from a chain that lacks them.
    pub(super) doubted: Vec<EventRef>,
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
            schedules: BTreeMap::new(),
            whole_batches,
            at_once: false,
            last_time_ms,
            open: HashMap::with_hasher(FixedState::with_seed(seed)),
            open_events: HashMap::with_hasher(FixedState::with_seed(seed)),
            answered: VecDeque::new(),
            to_recover: VecDeque::new(),
            doubted: Vec::new(),
        }
    }

    /// The machine, with when it asks a rail again.
    #[must_use]
    pub fn with_schedules(mut self, schedules: BTreeMap<RailId, Schedule>) -> Self {
        self.schedules = schedules;
        self
    }

    fn schedule(&self, rail: RailId) -> Schedule {
        let Limits { ask_again_ms: first_ms, ask_again_ms_max: max_ms, .. } = self.limits;
        let usual = Schedule { first_ms, factor: 2, max_ms, deadline_ms: None };
        self.schedules.get(&rail).copied().unwrap_or(usual)
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
        let Some(rail) = self.open.get(&customer).map(|open| open.rail) else { return };
        let schedule = self.schedule(rail);
        let Some(open) = self.open.get_mut(&customer) else { return };
        if open.answer.is_some() {
            return;
        }
        let status = match answer {
            RailAnswer::Done => EventStatus::Done,
            RailAnswer::Refused(reason) => EventStatus::Aborted(reason),
            RailAnswer::Unknown if is_planted(Planted::UnknownTakenForRefused) => {
                EventStatus::Aborted(AbortReason::RailRefused(ReasonText::new("unknown")))
            }
            // Not while it is known already when to ask again: answers may come twice.
            RailAnswer::Unknown if open.asking != Asking::UnderWay => return,
            RailAnswer::Unknown => {
                let at_ms = now_ms.saturating_add(schedule.pause_ms(open.attempt));
                open.asking = match schedule.deadline_of(&open.linked) {
                    Some(deadline_ms) if now_ms >= deadline_ms => Asking::Stopped,
                    Some(deadline_ms) => Asking::At(at_ms.min(deadline_ms)),
                    None => Asking::At(at_ms),
                };
                return;
            }
        };
        open.answer = Some(status);
        self.answered.push_back(customer);
    }

    /// An operator settles an event that waits for its rail. Whatever the rail says from here on changes nothing:
    /// the first end counts. How the event has ended is among the [`Batch::ends`] of a coming batch.
    pub fn settle(&mut self, event: EventId, settlement: &Settlement) -> Settling {
        let Some(&customer) = self.open_events.get(&event) else { return Settling::NotOpen };
        let Some(open) = self.open.get_mut(&customer) else { return Settling::NotOpen };
        if open.answer.is_some() {
            return Settling::CameFirst;
        }
        open.answer = Some(settlement.status());
        self.answered.push_back(customer);
        Settling::Begun
    }

    /// The calls that are due by now to rails that could not tell before.
    pub fn due_calls(&mut self, now_ms: u64) -> Vec<RailCall> {
        let mut calls = Vec::new();
        for open in self.open.values_mut() {
            if open.answer.is_none() && matches!(open.asking, Asking::At(at_ms) if at_ms <= now_ms) {
                open.asking = Asking::UnderWay;
                open.attempt = open.attempt.saturating_add(1);
                open.call_count = open.call_count.saturating_add(1);
                calls.push(RailCall { rail: open.rail, event: open.linked.clone(), attempt: open.attempt });
            }
        }
        calls.sort_by_key(|call| call.event.event.customer);
        calls
    }

    /// When [`Machine::due_calls`] will next have a call, in milliseconds since 1970.
    pub fn next_due_ms(&self) -> Option<u64> {
        let due_ms = |open: &Open| match open.asking {
            Asking::At(at_ms) if open.answer.is_none() => Some(at_ms),
            Asking::At(_) | Asking::UnderWay | Asking::Stopped => None,
        };
        self.open.values().filter_map(due_ms).min()
    }

    /// Events that wait for their rails, in no order.
    pub fn open_events(&self) -> impl Iterator<Item = &LinkedEvent> {
        self.open.values().map(|open| &open.linked)
    }

    /// Whether an event waits for its rail.
    pub fn is_open(&self, event: EventId) -> bool {
        self.open_events.contains_key(&event)
    }

    /// The same, with how it stands about them.
    pub fn pending(&self) -> impl Iterator<Item = Pending> {
        self.open.values().map(|open| Pending {
            linked: open.linked.clone(),
            rail: open.rail,
            call_count: open.call_count,
            asking: open.asking,
            deadline_ms: self.schedule(open.rail).deadline_of(&open.linked),
            waiting_count: open.waiting.len(),
        })
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
        self.begin(now_ms, batch);
        while batch.submissions.len() < self.limits.batch_requests_max {
            let Some(customer) = self.answered.pop_front() else { break };
            self.gather_answered(customer, batch);
        }
        while batch.customers.len() < self.limits.batch_requests_max {
            let Some(customer) = self.to_recover.pop_front() else { break };
            if !self.open.contains_key(&customer) {
                batch.place_customer(customer);
            }
        }
        while batch.submissions.len() < self.limits.batch_requests_max {
            let Some(submission) = queue.pop_front() else { break };
            match self.wait_if_open(&submission) {
                Waits::No => batch.put(submission),
                Waits::Yes => {}
                waits @ (Waits::Busy | Waits::UnderWay) => batch.answers.push(may_not_wait(&submission, waits)),
            }
        }
        batch.step = if self.goes_at_once(batch) { Step::AtOnce } else { batch.place_all() };
    }

    /// Empties a batch and gives it its time.
    pub(super) fn begin(&mut self, now_ms: u64, batch: &mut Batch) {
        batch.clear();
        batch.time_ms = now_ms.max(self.last_time_ms);
        self.last_time_ms = batch.time_ms;
        batch.doubted.append(&mut self.doubted);
    }

    fn gather_answered(&mut self, customer: CustomerId, batch: &mut Batch) {
        let Some(status) = self.open.get_mut(&customer).and_then(|open| open.answer.take()) else { return };
        let Some(open) = self.open.remove(&customer) else { return };
        self.open_events.remove(&open.linked.id());
        let place_of = batch.place_customer(customer);
        batch.place_event(&open.linked.event);
        batch.closings.push(Closing { customer: place_of, linked: open.linked, asked: open.asked, status });
        for submission in open.waiting {
            batch.put(submission);
        }
    }

    /// Lets a request wait if its customer's event is open.
    pub(super) fn wait_if_open(&mut self, submission: &Submission) -> Waits {
        if self.open.is_empty() {
            return Waits::No;
        }
        let Some(open) = self.open.get_mut(&submission.request.customer) else { return Waits::No };
        if submission.key().is_some_and(|key| open.waiting.iter().any(|waiting| waiting.key() == Some(key))) {
            return Waits::UnderWay;
        }
        if open.waiting.len() >= self.limits.waiting_per_customer_max {
            return Waits::Busy;
        }
        open.waiting.push_back(submission.clone());
        Waits::Yes
    }

    /// Keeps a customer locked for an event that waits for its rail.
    pub(super) fn hold_open(
        &mut self,
        batch: &mut Batch,
        linked: LinkedEvent,
        rail: RailId,
        asked: Option<Submission>,
        attempt: u32,
    ) {
        let customer = linked.event.customer;
        let deadline_ms = self.schedule(rail).deadline_of(&linked);
        // One that is found behind its deadline is not called once more, only because the ledger was opened again.
        let is_stopped = attempt > 0 && deadline_ms.is_some_and(|deadline_ms| batch.time_ms >= deadline_ms);
        let (asking, call_count) = if is_stopped { (Asking::Stopped, 0) } else { (Asking::UnderWay, 1) };
        if !is_stopped {
            batch.calls.push(RailCall { rail, event: linked.clone(), attempt });
        }
        self.open_events.insert(linked.id(), customer);
        let waiting = VecDeque::new();
        self.open.insert(customer, Open { linked, rail, asked, waiting, attempt, call_count, asking, answer: None });
    }

    /// Unlocks a customer whose open event, made or found by this batch, is not to be. Who waited for it is
    /// decided anew.
    pub(super) fn forget_open(&mut self, batch: &mut Batch, customer: CustomerId) {
        if let Some(open) = self.open.remove(&customer) {
            self.open_events.remove(&open.linked.id());
            batch.calls.retain(|call| call.event.event.customer != customer);
            // Those of this batch are put off there; others came while it was on its way.
            let of_batch = |ticket| batch.submissions.iter().any(|placed| placed.submission.ticket == ticket);
            let later: Vec<_> = open.waiting.into_iter().filter(|waiting| !of_batch(waiting.ticket)).collect();
            batch.waited.extend(later);
        }
    }
}

/// The answer to a request that may not even wait.
pub(super) fn may_not_wait(submission: &Submission, waits: Waits) -> Answer {
    let result = match waits {
        Waits::UnderWay => Ok(Outcome::Rejected(Rejection::RequestInProgress)),
        Waits::Busy | Waits::Yes | Waits::No => Err(Busy { customer: submission.request.customer }),
    };
    Answer { ticket: submission.ticket, result }
}
