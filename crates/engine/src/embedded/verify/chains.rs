//! Following all chains at once, record by record: hashes, sequence numbers, accounts by the rules, transactions,
//! and the positions by which records point to each other.
//!
//! One pass follows the customers of one [`Partition`], so that its tables fit into memory.

use super::report::{Finding, FindingCode, Findings, LostEvents};
use super::walk::Digests;
use crate::embedded::journal::Segment;
use crate::embedded::memtable::Table;
use crate::embedded::record::{Stored, StoredClosing, StoredEvent};
use crate::embedded::scan::length;
use crate::totals::Totals;
use bursar_core::{
    Amount, ChainCheck, CurrencyIndex, CustomerId, EventStatus, Hash, Head, LedgerConfig, LinkedEvent, RequestKey,
    RequestKind, TransactionId, TransactionKind, TransactionState, TransactionStatus,
};
use std::path::Path;
use std::sync::Arc;

/// Which customers one pass follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Partition {
    /// Those whose ids, mixed, end in these bits.
    Bits { count: u32, value: u64 },
    /// One.
    Only(CustomerId),
}

impl Partition {
    pub(super) const ALL: Self = Self::Bits { count: 0, value: 0 };

    /// Whether an id belongs to it: a customer's, or a transaction's.
    pub(super) fn has(self, id: u128) -> bool {
        match self {
            Self::Bits { count: 0, .. } => true,
            Self::Bits { count, value } => mixed(id) & ((1 << count) - 1) == value,
            Self::Only(customer) => customer.bits() == id,
        }
    }

    pub(super) fn has_customer(self, customer: CustomerId) -> bool {
        self.has(customer.bits())
    }

    /// Whether the pass must watch for transactions that customers of other partitions make as well.
    const fn is_part(self) -> bool {
        matches!(self, Self::Bits { count: 1.., .. })
    }

    /// Its share of the frames' digests: each belongs to one partition, however they were divided.
    pub(super) const fn digests(self) -> Digests {
        match self {
            Self::Bits { count, value } => Digests::Share { rest: value, count: 1 << count },
            Self::Only(_) => Digests::ALL,
        }
    }

    /// The two halves of it, if it has any.
    pub(super) const fn halves(self) -> Option<[Self; 2]> {
        match self {
            Self::Bits { count, value } if count < 12 => {
                let count = count + 1;
                Some([Self::Bits { count, value }, Self::Bits { count, value: value | 1 << (count - 1) }])
            }
            Self::Bits { .. } | Self::Only(_) => None,
        }
    }
}

/// The bits of an id, spread.
pub(super) const fn mixed(id: u128) -> u64 {
    let folded = (id as u64) ^ (id >> 64) as u64;
    folded.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

/// One customer's chain as far as it was followed.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) check: ChainCheck,
    /// Events that no record has closed yet, oldest first.
    pub(super) open: Vec<OpenHere>,
    /// The position of the newest record; `None` before the first, and where it was lost.
    pub(super) newest: Option<u64>,
    /// The state behind the head is not known: the next event is taken as it comes.
    pub(super) unknown: bool,
    /// Events are missing.
    pub(super) gapped: bool,
    /// An index file has been compared.
    pub(super) compared: bool,
}

impl Slot {
    fn new(ledger_digest: &Hash, customer: CustomerId) -> Self {
        let check = ChainCheck::new(ledger_digest, customer);
        Self { check, open: Vec::new(), newest: None, unknown: false, gapped: false, compared: false }
    }

    fn last_seq(&self) -> u64 {
        self.check.head().seq + self.open.len() as u64
    }

    /// Forgets what lies between here and `seq`, which cannot be followed.
    pub(super) fn lose_up_to(&mut self, customer: CustomerId, seq: u64) {
        let head = Head { seq, open: Vec::new(), time_ms: 0, ..self.check.head().clone() };
        self.check = ChainCheck::behind(customer, head);
        self.open.clear();
        (self.unknown, self.gapped) = (true, true);
    }
}

/// An event that is not closed yet, and where it lies.
#[derive(Debug)]
pub(super) struct OpenHere {
    pub(super) linked: LinkedEvent,
    pub(super) position: u64,
}

/// A transaction as the events so far have left it, small.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    slot: u32,
    kind: TransactionKind,
    status: TransactionStatus,
    currency: CurrencyIndex,
    amount: Amount,
    /// The record by which its newest event took effect.
    pub(super) position: u64,
}

/// The event in effect that has a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHolder {
    event: (CustomerId, u64),
    /// The record by which it took effect.
    pub(super) position: u64,
}

/// A part of the journal that cannot be read.
#[derive(Debug)]
pub(super) struct Damage {
    pub(super) position: u64,
    pub(super) events: Vec<LostEvents>,
    pub(super) event_count: u64,
    pub(super) customer_count: u64,
}

const LOST_CUSTOMERS_MAX: usize = 1000;

impl Damage {
    /// Nothing is known yet of what was lost there.
    pub(super) const fn at(position: u64) -> Self {
        Self { position, events: Vec::new(), event_count: 0, customer_count: 0 }
    }

    /// Adds what another pass knows of the same place.
    pub(super) fn add(&mut self, other: Self) {
        self.event_count += other.event_count;
        self.customer_count += other.customer_count;
        let room = LOST_CUSTOMERS_MAX.saturating_sub(self.events.len());
        self.events.extend(other.events.into_iter().take(room));
    }
}

/// The segments, to say in which file a position lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    pub(super) segments: &'a [Arc<Segment>],
    pub(super) directory: &'a Path,
}

impl Places<'_> {
    pub(super) fn finding(&self, code: FindingCode, position: u64, what: impl Into<String>) -> Finding {
        let after = self.segments.partition_point(|segment| segment.start <= position);
        let (path, offset) = match after.checked_sub(1).map(|index| &self.segments[index]) {
            Some(segment) => (segment.path.clone(), position - segment.start),
            None => (self.directory.to_owned(), position),
        };
        Finding { code, path, offset, what: what.into(), event: None, lost: None }
    }

    pub(super) fn journal_end(&self) -> u64 {
        self.segments.last().map_or(0, |last| last.start + length(last).unwrap_or(0))
    }
}

/// One pass over the journal.
#[derive(Debug)]
pub(super) struct Chains<'a> {
    pub(super) places: Places<'a>,
    config: LedgerConfig,
    pub(super) ledger_digest: Hash,
    /// See [`super::pass::Inputs`].
    pub(super) has_table: bool,
    pub(super) partition: Partition,
    ids: Table<CustomerId, u32>,
    /// See [`Chains::bring_near`].
    near: Vec<u32>,
    pub(super) slots: Vec<Slot>,
    pub(super) customers: Vec<CustomerId>,
    pub(super) transactions: Table<TransactionId, Known>,
    /// Transactions of this partition by their own ids, and who made them; only if there are several partitions.
    makers: Table<TransactionId, CustomerId>,
    /// Transactions that open events would make.
    pending_makers: Table<(CustomerId, u64), TransactionId>,
    /// Keys of this partition by their own bits, and the event in effect that has each.
    pub(super) keys: Table<RequestKey, KeyHolder>,
    /// Keys of open events.
    pending_keys: Table<(CustomerId, u64), RequestKey>,
    pub(super) findings: Findings,
    pub(super) damages: Vec<Damage>,
    pub(super) totals: Totals,
    pub(super) event_count: u64,
    pub(super) last_time_ms: u64,
}

impl<'a> Chains<'a> {
    pub(super) fn new(
        places: Places<'a>,
        config: LedgerConfig,
        has_table: bool,
        partition: Partition,
        findings_max: usize,
    ) -> Self {
        Self {
            places,
            ledger_digest: config.digest(),
            config,
            has_table,
            partition,
            ids: Table::default(),
            near: Vec::new(),
            slots: Vec::new(),
            customers: Vec::new(),
            transactions: Table::default(),
            makers: Table::default(),
            pending_makers: Table::default(),
            keys: Table::default(),
            pending_keys: Table::default(),
            findings: Findings::new(findings_max),
            damages: Vec::new(),
            totals: Totals::default(),
            event_count: 0,
            last_time_ms: 0,
        }
    }

    /// How much memory the tables take, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * (size_of::<Slot>() + size_of::<CustomerId>())
            + self.ids.capacity() * size_of::<(CustomerId, u32, u8)>()
            // With what comparing the index takes.
            + self.transactions.capacity() * (size_of::<(TransactionId, Known)>() + 33)
            + self.makers.capacity() * 33
            + self.keys.capacity() * (size_of::<(RequestKey, KeyHolder)>() + 33)
    }

    /// The chain of a customer of this partition; begun if there is none yet.
    pub(super) fn slot(&mut self, customer: CustomerId) -> usize {
        let next = self.slots.len() as u32;
        let index = *self.ids.entry(customer).or_insert(next);
        if index == next {
            self.slots.push(Slot::new(&self.ledger_digest, customer));
            self.customers.push(customer);
        }
        index as usize
    }

    /// Touches the slots of the customers whose events come next: memory answers for all of them at about the same
    /// time, and not for one after the other. Changes nothing.
    pub(super) fn bring_near(&mut self, records: &[(u64, Stored)]) {
        self.near.clear();
        for (_, record) in records {
            if let Stored::Event(stored) = record
                && self.partition.has_customer(stored.linked.event.customer)
                && let Some(&index) = self.ids.get(&stored.linked.event.customer)
            {
                self.near.push(index);
            }
        }
        let touched = |&index: &u32| {
            let slot = &self.slots[index as usize];
            let head = slot.check.head();
            let ends = [head.seq, u64::from(head.link.0[0]), u64::from(head.state.locked), head.open.len() as u64];
            ends.iter().sum::<u64>().wrapping_add(slot.newest.unwrap_or(0)).wrapping_add(slot.open.len() as u64)
        };
        std::hint::black_box(self.near.iter().map(touched).fold(0, u64::wrapping_add));
    }

    /// Adds a finding about an event.
    pub(super) fn find(&mut self, code: FindingCode, position: u64, what: impl Into<String>, event: (CustomerId, u64)) {
        let finding = self.places.finding(code, position, what);
        self.findings.push(Finding { event: Some(event), ..finding });
    }

    /// Notes that events are missing before `position`. Gives whether that is explained by a part of the journal
    /// that cannot be read.
    pub(super) fn lose(&mut self, slot: usize, position: u64, first_seq: u64, event_count: u64) -> bool {
        let (customer, after) = (self.customers[slot], self.slots[slot].newest.unwrap_or(0));
        let explains = |damage: &&mut Damage| damage.position >= after && damage.position < position;
        let Some(damage) = self.damages.iter_mut().find(explains) else { return false };
        damage.event_count += event_count;
        damage.customer_count += 1;
        if damage.events.len() < LOST_CUSTOMERS_MAX {
            damage.events.push(LostEvents { customer, first_seq, event_count });
        }
        true
    }

    /// Whether a record of a chain between its newest one and `position` may lie in a part that cannot be read.
    pub(super) fn may_have_lost(&self, slot: usize, position: u64) -> bool {
        let after = self.slots[slot].newest.unwrap_or(0);
        self.damages.iter().any(|damage| damage.position >= after && damage.position < position)
    }

    /// Takes an event record of any customer.
    pub(super) fn event(&mut self, position: u64, stored: &StoredEvent) {
        let customer = stored.linked.event.customer;
        self.last_time_ms = self.last_time_ms.max(stored.linked.event.time_ms);
        if self.partition.is_part() {
            self.watch_maker(position, stored);
        }
        if let Some(key) = stored.linked.event.key {
            self.watch_key(position, stored, key);
        }
        if !self.partition.has_customer(customer) {
            return;
        }
        self.event_count += 1;
        self.totals.begun(&stored.linked.event);
        let index = self.slot(customer);
        self.check_place(index, position, stored);
        let StoredEvent { linked, done, .. } = stored;
        let slot = &mut self.slots[index];
        slot.newest = Some(position);
        if !*done {
            slot.open.push(OpenHere { linked: linked.clone(), position });
            return;
        }
        if !slot.open.is_empty() {
            let seq = linked.event.seq;
            let what = "the event is done although one before it is still open";
            self.find(FindingCode::Chain("done_after_open"), position, what, (customer, seq));
            self.slots[index].lose_up_to(customer, seq - 1);
        }
        self.follow(index, linked, &EventStatus::Done, position, position);
    }

    /// Checks an event's place in its chain, and the positions it points to.
    fn check_place(&mut self, index: usize, position: u64, stored: &StoredEvent) {
        let event = &stored.linked.event;
        let (customer, seq) = (event.customer, event.seq);
        let slot = &self.slots[index];
        let (expected, newest) = (slot.last_seq() + 1, slot.newest);
        if seq != expected {
            let closed = slot.check.head().seq;
            let missing = if seq > expected { seq - closed - 1 } else { 0 };
            if missing == 0 || !self.lose(index, position, closed + 1, missing) {
                let what = format!("the sequence number should be {expected}");
                self.find(FindingCode::Chain("wrong_seq"), position, what, (customer, seq));
            }
            self.slots[index].lose_up_to(customer, seq.saturating_sub(1));
        } else if stored.previous > newest && self.lose_closings(index, position) {
            self.slots[index].lose_up_to(customer, seq - 1);
        } else if stored.previous != newest && !self.slots[index].unknown {
            let what = "the record does not point to the customer's record before it";
            self.find(FindingCode::Previous, position, what, (customer, seq));
        }
        let transaction_before = match event.kind {
            RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback => event
                .transaction
                .filter(|_| self.has_table)
                .and_then(|transaction| self.transactions.get(&transaction))
                .map(|known| known.position),
            RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Unlock => None,
        };
        if stored.transaction_previous != transaction_before && !self.slots[index].gapped {
            let what = "the event does not point to the one before it on its transaction";
            self.find(FindingCode::TransactionPrevious, position, what, (customer, seq));
        }
    }

    /// Whether records that closed the open events of a chain lie in a part of the journal that cannot be read.
    fn lose_closings(&mut self, index: usize, position: u64) -> bool {
        let slot = &self.slots[index];
        let (first_seq, count) = (slot.check.head().seq + 1, slot.open.len() as u64);
        count > 0 && self.lose(index, position, first_seq, count)
    }

    /// Takes a closing record of any customer.
    pub(super) fn closing(&mut self, position: u64, closing: &StoredClosing) {
        let (customer, seq) = (closing.event.customer, closing.event.seq);
        if self.partition.is_part()
            && let Some(transaction) = self.pending_makers.remove(&(customer, seq))
            && closing.status.is_done()
        {
            self.make(position, transaction, (customer, seq));
        }
        if let Some(key) = self.pending_keys.remove(&(customer, seq))
            && closing.status.is_done()
        {
            self.use_key(position, key, (customer, seq));
        }
        if !self.partition.has_customer(customer) {
            return;
        }
        let index = self.slot(customer);
        let slot = &mut self.slots[index];
        let newest = slot.newest.replace(position);
        let fits = slot.open.first().is_some_and(|open| open.linked.reference() == closing.event);
        if !fits {
            self.closing_of_nothing(index, position, newest, closing);
            return;
        }
        let open = slot.open.remove(0);
        if newest != Some(closing.previous) || open.position != closing.started {
            let what = "the record does not point to the customer's record before it, or to the event it closes";
            self.find(FindingCode::Previous, position, what, (customer, seq));
        }
        self.follow(index, &open.linked, &closing.status, open.position, position);
    }

    /// A closing record whose event is not there: it was lost, or somebody made the record up.
    fn closing_of_nothing(&mut self, index: usize, position: u64, newest: Option<u64>, closing: &StoredClosing) {
        let (customer, seq) = (closing.event.customer, closing.event.seq);
        let head_seq = self.slots[index].check.head().seq;
        self.slots[index].newest = newest;
        let explained = seq > head_seq && self.lose(index, position, head_seq + 1, seq - head_seq);
        if !explained {
            let what = "the record closes an event that is not there, or not the oldest open one";
            self.find(FindingCode::ClosingWithoutEvent, position, what, (customer, seq));
        }
        if seq > head_seq {
            self.slots[index].lose_up_to(customer, seq);
        }
        self.slots[index].newest = Some(position);
    }

    /// Follows an event by its chain. `place` is where its content lies, `effect` the record that decides it.
    pub(super) fn follow(&mut self, index: usize, linked: &LinkedEvent, status: &EventStatus, place: u64, effect: u64) {
        let event = &linked.event;
        let known = event.transaction.and_then(|transaction| self.transactions.get(&transaction));
        let known = known.map(|known| TransactionState {
            customer: self.customers[known.slot as usize],
            kind: known.kind,
            amount: known.amount,
            currency: known.currency,
            status: known.status,
        });
        let slot = &mut self.slots[index];
        let known = if slot.gapped { assumed(known, linked) } else { known };
        if slot.unknown {
            let mut head = slot.check.head().clone();
            head.take(linked.clone(), status);
            slot.check = ChainCheck::behind(event.customer, head);
            slot.unknown = *status != EventStatus::Done;
        } else if let Err(fault) = slot.check.follow(&self.config, known, linked, status) {
            let mut head = slot.check.head().clone();
            head.take(linked.clone(), status);
            slot.check = ChainCheck::behind(event.customer, head);
            let code = FindingCode::Chain(fault.code());
            self.find(code, place, fault.to_string(), (event.customer, event.seq));
        }
        match status {
            EventStatus::Done | EventStatus::DoneByHand(_) => {
                self.totals.done(event);
                if let Some((transaction, state)) = event.transaction.zip(event.transaction_state()) {
                    let TransactionState { kind, amount, currency, status, .. } = state;
                    let known = Known { slot: index as u32, kind, status, currency, amount, position: effect };
                    self.transactions.insert(transaction, known);
                }
            }
            EventStatus::Aborted(_) => self.totals.aborted(),
            EventStatus::Started => {}
        }
    }

    /// Watches for transactions made by two customers of different partitions.
    fn watch_maker(&mut self, position: u64, stored: &StoredEvent) {
        let event = &stored.linked.event;
        let (RequestKind::Deposit | RequestKind::Withdrawal, Some(transaction)) = (event.kind, event.transaction)
        else {
            return;
        };
        if !self.partition.has(transaction.bits()) {
            return;
        }
        if stored.done {
            self.make(position, transaction, (event.customer, event.seq));
        } else {
            self.pending_makers.insert((event.customer, event.seq), transaction);
        }
    }

    /// Watches for keys that two events in effect have, whoever's they are.
    fn watch_key(&mut self, position: u64, stored: &StoredEvent, key: RequestKey) {
        let event = (stored.linked.event.customer, stored.linked.event.seq);
        let has_key = match self.partition {
            Partition::Bits { .. } => self.partition.has(key.bits()),
            Partition::Only(customer) => customer == event.0,
        };
        if !has_key {
            return;
        }
        if stored.done {
            self.use_key(position, key, event);
        } else {
            self.pending_keys.insert(event, key);
        }
    }

    fn use_key(&mut self, position: u64, key: RequestKey, event: (CustomerId, u64)) {
        let before = self.keys.insert(key, KeyHolder { event, position });
        if let Some(KeyHolder { event: (customer, seq), .. }) = before {
            let what = format!("the key {key} was used before, by event {seq} of customer {customer}");
            self.find(FindingCode::KeyTwice, position, what, event);
        }
    }

    fn make(&mut self, position: u64, transaction: TransactionId, event: (CustomerId, u64)) {
        let maker = *self.makers.entry(transaction).or_insert(event.0);
        if maker != event.0 {
            let what = format!("transaction {transaction} was made before, by customer {maker}");
            self.find(FindingCode::TransactionTwice, position, what, event);
        }
    }
}

/// What an event's transaction must have been for the event to be right: where events before it are missing, and
/// where it is compared later with what it was.
pub(super) fn assumed(known: Option<TransactionState>, linked: &LinkedEvent) -> Option<TransactionState> {
    let before = match linked.event.kind {
        RequestKind::Dispute => TransactionStatus::Posted,
        RequestKind::Resolve | RequestKind::Chargeback => TransactionStatus::Disputed,
        RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Unlock => return known,
    };
    let state = known.or_else(|| linked.event.transaction_state())?;
    Some(TransactionState { status: before, ..state })
}
