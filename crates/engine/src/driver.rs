//! The driver: takes batches through the commit machine's steps against two stores.
//!
//! One call at a time, no threads, no clock: the ledger's threads drive it ([`crate::Ledger`]), and so does a
//! simulator. The order of things is the machine's ([`bursar_core::commit`]); the driver only does what each
//! step says, up to the point where the batch waits to be made durable.

use crate::store::{ChainEntry, Chains, ReadRange, SourceId, SourceMark, StoreError, Transactions, WholeBatch};
use bursar_core::commit::{
    Answer, Appended, Batch, Broken, Limits, Machine, Outcome, Pending, ProposeResult, RailAnswer, RailCall, Routes,
    Schedule, Settlement, Settling, Step, Submission, Terms, Ticket,
};
use bursar_core::planted::{Planted, is_planted};
use bursar_core::{
    Action, CustomerId, EntryId, EventId, EventRef, EventStatus, Hash, Head, LedgerConfig, LinkedEvent, RailId,
    Request, RequestKey, TransactionEntry, TransactionId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

/// Why the engine stopped. Nothing is acknowledged any more; everything acknowledged is safe.
#[derive(Clone, Debug)]
pub enum EngineError {
    /// A store failed.
    Store(StoreError),
    /// Money would have become wrong.
    Broken(Broken),
    /// A source's position cannot pass events that wait for a rail: there are some, or its rows would make some.
    OpenEvents,
    /// A part of the engine panicked: a fault in the program.
    Panicked,
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Broken(broken) => broken.fmt(f),
            Self::OpenEvents => f.write_str("rows cannot be taken in while events wait for a rail, nor go through one"),
            Self::Panicked => f.write_str("a part of the engine panicked; this is a fault in the program"),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Broken(broken) => Some(broken),
            Self::OpenEvents | Self::Panicked => None,
        }
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Broken> for EngineError {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// A row of a source: a request, or a row that could not be read, with where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// What is asked for; `None` for a row that could not be read.
    pub request: Option<Request>,
    /// The row's first line, counted from 1.
    pub line: u64,
    /// The offset behind the row, in bytes of the (decompressed) source.
    pub end_offset: u64,
    /// How many lines lie before that offset.
    pub end_line_count: u64,
}

/// Takes batches to where they wait to be made durable.
#[derive(Debug)]
pub struct Driver {
    machine: Machine,
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
    ledger_digest: Hash,
    routes: Routes,
    queue: VecDeque<Submission>,
    /// What the requests of a batch decided at once are about.
    expected: Vec<(CustomerId, Option<TransactionId>)>,
    heads: Vec<Option<Head>>,
    entries: Vec<TransactionEntry>,
    appended: Vec<Appended>,
    proposed: Vec<ProposeResult>,
    statuses: Vec<Option<EventStatus>>,
    refused: BTreeMap<SourceId, Refused>,
}

impl Driver {
    /// A driver for two stores of one ledger. Events found open are settled by the first batches.
    pub fn new(
        config: LedgerConfig,
        routes: Routes,
        limits: Limits,
        chains: Arc<dyn Chains>,
        transactions: Arc<dyn Transactions>,
        seed: u64,
    ) -> Result<Self, EngineError> {
        let ledger_digest = config.digest();
        let last_time_ms = chains.last_time_ms()?;
        let mut machine = Machine::new(config, routes, limits, chains.whole_batches(), last_time_ms, seed);
        if chains.whole_batches() {
            machine = machine.deciding_at_once();
        }
        if !is_planted(Planted::RecoveryLeftOut) {
            machine.recover(chains.open_customers()?);
        }
        Ok(Self {
            machine,
            chains,
            transactions,
            ledger_digest,
            routes,
            queue: VecDeque::new(),
            expected: Vec::new(),
            heads: Vec::new(),
            entries: Vec::new(),
            appended: Vec::new(),
            proposed: Vec::new(),
            statuses: Vec::new(),
            refused: BTreeMap::new(),
        })
    }

    /// The driver, with when it asks a rail again.
    #[must_use]
    pub fn with_schedules(mut self, schedules: BTreeMap<RailId, Schedule>) -> Self {
        self.machine = self.machine.with_schedules(schedules);
        self
    }

    /// Puts a request at the end of the driver's queue.
    pub fn submit(&mut self, submission: Submission) {
        self.queue.push_back(submission);
    }

    /// How many requests are in the queue, or wait behind open events.
    pub fn pending_count(&self) -> usize {
        self.queue.len() + self.machine.waiting_count()
    }

    /// How many requests are in the queue.
    pub fn queued_count(&self) -> usize {
        self.queue.len()
    }

    /// Whether a batch would have something to do.
    pub fn has_work(&self) -> bool {
        !self.queue.is_empty() || self.machine.has_work()
    }

    /// Events that wait for their rails, in no order.
    pub fn open_events(&self) -> impl Iterator<Item = &LinkedEvent> {
        self.machine.open_events()
    }

    /// A rail has answered; see [`Machine::rail_answered`].
    pub fn rail_answered(&mut self, now_ms: u64, event: EventId, answer: RailAnswer) {
        self.machine.rail_answered(now_ms, event, answer);
    }

    /// An operator settles an event; see [`Machine::settle`].
    pub fn settle(&mut self, event: EventId, settlement: &Settlement) -> Settling {
        self.machine.settle(event, settlement)
    }

    /// Whether an event waits for its rail.
    pub fn is_open(&self, event: EventId) -> bool {
        self.machine.is_open(event)
    }

    /// Events that wait for their rails, with how it stands about them; in no order.
    pub fn pending(&self) -> impl Iterator<Item = Pending> {
        self.machine.pending()
    }

    /// The calls due to rails that could not tell before.
    pub fn due_calls(&mut self, now_ms: u64) -> Vec<RailCall> {
        self.machine.due_calls(now_ms)
    }

    /// When the next such call is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.machine.next_due_ms()
    }

    /// Decides and appends one batch. It then waits for a [`Chains::sync`], after which its answers may be given,
    /// its rails called and its approvals written. After an error nothing may be built on the stores any more.
    pub fn run_batch(&mut self, now_ms: u64, batch: &mut Batch) -> Result<(), EngineError> {
        self.begin_batch(now_ms, batch);
        while self.step_batch(batch)? {}
        Ok(())
    }

    /// The beginning of [`Driver::run_batch`], for whoever wants to see the world between two steps: fills the batch.
    pub fn begin_batch(&mut self, now_ms: u64, batch: &mut Batch) {
        self.machine.gather(now_ms, &mut self.queue, batch);
    }

    /// Takes a batch one step on. Gives whether there are more; if not, it is where [`Driver::run_batch`] leaves it.
    pub fn step_batch(&mut self, batch: &mut Batch) -> Result<bool, EngineError> {
        if self.take_step(batch)? {
            return Ok(true);
        }
        batch.give_back(&mut self.queue);
        self.chains.end_batch(batch.time_ms(), None)?;
        Ok(false)
    }

    /// Whether these rows of a source can be taken in as things stand.
    pub fn check_rows(&self, rows: &[SourceRow]) -> Result<(), EngineError> {
        let has_rail = |request: &Request| self.routes.of(request.action.kind()).is_some();
        let any_route = self.routes != Routes::default();
        let makes_open = any_route && rows.iter().filter_map(|row| row.request.as_ref()).any(has_rail);
        if makes_open || self.machine.open_events().next().is_some() {
            return Err(EngineError::OpenEvents);
        }
        Ok(())
    }

    /// Like [`Driver::run_batch`], for rows of a source: takes rows from the front, as many as fit a batch, and
    /// makes the source's new position part of the batch. Tickets count the rows given, from 0; rows that could
    /// not be read, and rows that made an event, get no answer. Gives how many rows were taken. `mark` is the source's position before, and
    /// its new one afterwards; `ends` says that the source ends behind these rows.
    ///
    /// Where batches are not whole, events may be there whose position is not. So each row that brings no id of its own
    /// goes under a key made of the source and the row's place, and takes effect once, however often it is taken. Which
    /// rows of a batch are refused is written down before its events are: what they change must not let a row through
    /// that was refused without them.
    pub fn run_rows(
        &mut self,
        now_ms: u64,
        batch: &mut Batch,
        rows: &[SourceRow],
        ends: bool,
        mark: &mut SourceMark,
    ) -> Result<usize, EngineError> {
        self.check_rows(rows)?;
        if self.take_rows_at_once(now_ms, batch, rows, ends, mark)? {
            return Ok(rows.len());
        }
        let under_keys = !self.chains.whole_batches();
        self.take_rows(now_ms, batch, (rows, ends), under_keys, mark)
    }

    /// [`Driver::run_rows`] as it is done over stores without whole batches, whatever these stores do: for rows of
    /// which some may have been decided over such stores ([`Driver::has_row_in_effect`]).
    pub fn run_rows_under_keys(
        &mut self,
        now_ms: u64,
        batch: &mut Batch,
        rows: &[SourceRow],
        ends: bool,
        mark: &mut SourceMark,
    ) -> Result<usize, EngineError> {
        self.check_rows(rows)?;
        self.take_rows(now_ms, batch, (rows, ends), true, mark)
    }

    fn take_rows(
        &mut self,
        now_ms: u64,
        batch: &mut Batch,
        (rows, ends): (&[SourceRow], bool),
        under_keys: bool,
        mark: &mut SourceMark,
    ) -> Result<usize, EngineError> {
        let is_split = !self.chains.whole_batches();
        let mut refused = if under_keys { self.refused_of(mark)? } else { Refused::default() };
        let requests = rows.iter().zip(0..).filter_map(|(row, ticket)| Some((Ticket(ticket), row, row.request?)));
        let requests = requests.filter(|(_, row, _)| !refused.before.contains(&row.line));
        let mut queue: VecDeque<Submission> = requests
            .map(|(ticket, row, request)| {
                let key = if under_keys { self.row_key(mark.source, row) } else { None };
                let terms = key.map(|key| Box::new(Terms { key: Some(key), ..Terms::default() }));
                Submission { terms, ..Submission::new(ticket, request) }
            })
            .collect();
        let mut answers = Vec::new();
        loop {
            self.machine.gather(now_ms, &mut queue, batch);
            loop {
                if is_split && batch.step() == Step::AppendStarted {
                    let new = refused.new_lines(rows, batch, &answers);
                    if !new.is_empty() {
                        self.chains
                            .end_batch(batch.time_ms(), Some(&SourceMark { rejected_lines: new, ..mark.clone() }))?;
                    }
                }
                if !self.take_step(batch)? {
                    break;
                }
            }
            batch.give_back(&mut queue);
            // Another engine's event waits for its rail, and rows of this batch behind it.
            if self.machine.waiting_count() > 0 {
                return Err(EngineError::OpenEvents);
            }
            // A position cannot pass a row that was put off while rows behind it were decided: as long as there
            // is one, the batch goes on.
            let last_decided = answers.iter().chain(batch.answers()).map(|answer: &Answer| answer.ticket).max();
            if queue.front().is_none_or(|first_left| last_decided.is_none_or(|last| last < first_left.ticket)) {
                break;
            }
            if is_split {
                self.chains.end_batch(batch.time_ms(), None)?;
                self.chains.sync()?;
            }
            self.transactions.approve(batch.approvals())?;
            answers.append(&mut batch.take_answers());
        }
        batch.add_answers(answers);
        batch.leave_out_applied();
        let taken = queue.front().map_or(rows.len(), |first_left| first_left.ticket.0 as usize);
        advance(mark, &rows[..taken], batch.answers(), &refused);
        mark.finished = ends && taken == rows.len();
        self.chains.end_batch(batch.time_ms(), Some(mark))?;
        refused.now.retain(|&line| line > mark.line_count);
        if under_keys {
            self.refused.insert(mark.source, refused);
        }
        Ok(taken)
    }

    /// The key of a row that brings no id by which it takes effect once.
    fn row_key(&self, source: SourceId, row: &SourceRow) -> Option<RequestKey> {
        row.request.filter(|request| request.action.takes_key())?;
        RequestKey::of_text(&self.ledger_digest, format!("row {} of {source}", row.end_offset).as_bytes())
    }

    /// What is known of rows of a source that were refused, and lie behind its position.
    fn refused_of(&mut self, mark: &SourceMark) -> Result<Refused, EngineError> {
        if let Some(refused) = self.refused.remove(&mark.source) {
            return Ok(refused);
        }
        let lines = self.chains.rejected_lines(mark.source)?.into_iter().map(|(line, _)| line);
        let before = lines.filter(|&line| line > mark.line_count).collect();
        Ok(Refused { before, now: BTreeSet::new() })
    }

    /// Whether one of these rows, which lie behind the source's position, has taken effect: by its key, or by the id of its
    /// transaction. Rows that repeat earlier ones look like that too, which does no harm.
    pub fn has_row_in_effect(&self, source: SourceId, rows: &[SourceRow]) -> Result<bool, EngineError> {
        let id = |row: &SourceRow| match row.request?.action {
            Action::Deposit(movement) | Action::Withdrawal(movement) => Some(EntryId::from(movement.transaction)),
            Action::Dispute(_) | Action::Resolve(_) | Action::Chargeback(_) | Action::Unlock => {
                self.row_key(source, row).map(EntryId::from)
            }
        };
        let ids: Vec<_> = rows.iter().filter_map(id).collect();
        let mut entries = Vec::new();
        self.transactions.get(&ids, &mut entries)?;
        Ok(entries.iter().any(|entry| *entry != TransactionEntry::default()))
    }

    /// Decides rows at once, if the machine and the stores can.
    fn take_rows_at_once(
        &mut self,
        now_ms: u64,
        batch: &mut Batch,
        rows: &[SourceRow],
        ends: bool,
        mark: &mut SourceMark,
    ) -> Result<bool, EngineError> {
        if !self.machine.begin_at_once(now_ms, batch) {
            return Ok(false);
        }
        let chains = self.chains.clone();
        let Some(mut whole) = chains.begin_whole(batch.time_ms())? else { return Ok(false) };
        let requests =
            rows.iter().zip(0..).filter_map(|(row, ticket)| Some((Ticket(ticket), row.request.as_ref()?, None)));
        self.decide_at_once(&mut *whole, batch, requests, false)?;
        advance(mark, rows, batch.answers(), &Refused::default());
        mark.finished = ends;
        whole.end(Some(mark))?;
        Ok(true)
    }

    /// Decides a batch's requests at once, if the stores can; otherwise its steps are taken one by one.
    fn take_batch_at_once(&mut self, batch: &mut Batch) -> Result<(), EngineError> {
        let chains = self.chains.clone();
        let Some(mut whole) = chains.begin_whole(batch.time_ms())? else {
            batch.go_step_by_step();
            return Ok(());
        };
        let submissions: Vec<Submission> = batch.take_submissions().collect();
        let requests = submissions.iter();
        let requests = requests.map(|Submission { ticket, request, terms }| (*ticket, request, terms.as_deref()));
        self.decide_at_once(&mut *whole, batch, requests, true)?;
        Ok(whole.end(None)?)
    }

    /// Decides requests one by one, and appends the events they make. `tell`: see [`Machine::decide_at_once`].
    fn decide_at_once<'r>(
        &mut self,
        whole: &mut dyn WholeBatch,
        batch: &mut Batch,
        requests: impl Iterator<Item = (Ticket, &'r Request, Option<&'r Terms>)> + Clone,
        tell: bool,
    ) -> Result<(), EngineError> {
        self.expected.clear();
        self.expected.extend(requests.clone().map(|(_, request, _)| (request.customer, request.action.transaction())));
        whole.expect(&self.expected);
        for (ticket, request, terms) in requests {
            let (head, state) = whole.find(request.customer, request.action.transaction())?;
            if let Some(linked) = self.machine.decide_at_once(batch, (ticket, request, terms), head, state, tell)? {
                whole.append_done(&linked)?;
            }
        }
        batch.decided_at_once();
        Ok(())
    }

    /// Does what a batch's next step says. Gives `false` where the batch waits for its last sync. A sync in its
    /// middle, which only stores without whole batches need, is waited for here.
    fn take_step(&mut self, batch: &mut Batch) -> Result<bool, EngineError> {
        match batch.step() {
            Step::AtOnce => self.take_batch_at_once(batch)?,
            Step::Load => {
                self.chains.load(batch.customers(), &mut self.heads)?;
                self.machine.loaded(&self.ledger_digest, batch, self.heads.drain(..))?;
            }
            Step::Get => {
                self.transactions.get_for(batch, &mut self.entries)?;
                self.machine.found(batch, &self.entries)?;
                self.entries.clear();
            }
            Step::Settle => {
                self.chains.status(batch.to_settle(), &mut self.statuses)?;
                self.machine.settled(batch, &self.statuses)?;
                self.statuses.clear();
            }
            Step::Recall => {
                let events = recall(&*self.chains, batch.to_recall())?;
                self.machine.recalled(batch, events)?;
            }
            Step::AppendStarted => {
                self.chains.append(batch.started(), &mut self.appended)?;
                self.machine.started(batch, &self.appended)?;
                self.appended.clear();
            }
            Step::Propose => {
                self.transactions.propose(batch.proposals(), &mut self.proposed)?;
                self.machine.proposed(batch, &self.proposed)?;
                self.proposed.clear();
            }
            Step::AppendClosed => {
                self.chains.append(batch.closed(), &mut self.appended)?;
                self.machine.closed(batch, &self.appended)?;
                self.appended.clear();
            }
            Step::Sync if batch.goes_on_after_sync() => {
                self.chains.end_batch(batch.time_ms(), None)?;
                self.chains.sync()?;
                batch.synced();
            }
            Step::Sync | Step::Finish => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads events that are in effect from their chains; `None` for one that is not there.
pub(crate) fn recall(chains: &dyn Chains, events: &[EventRef]) -> Result<Vec<Option<LinkedEvent>>, StoreError> {
    let mut found = Vec::with_capacity(events.len());
    let mut entries = Vec::with_capacity(1);
    for event in events {
        let range = ReadRange { from_seq: event.seq, to_seq: event.seq, limit: 1, newest_first: false };
        chains.read(event.customer, range, &mut entries)?;
        let is_it = |entry: &ChainEntry| entry.status.is_done() && entry.linked.reference() == *event;
        found.push(entries.pop().filter(is_it).map(|entry| entry.linked));
        entries.clear();
    }
    Ok(found)
}

/// The lines of rows that were refused although the source's position lies before them.
#[derive(Debug, Default)]
struct Refused {
    /// By an earlier run: they are not decided again.
    before: BTreeSet<u64>,
    /// By this one.
    now: BTreeSet<u64>,
}

impl Refused {
    /// Takes over which rows of a batch are refused; gives those that were not known to be.
    fn new_lines(&mut self, rows: &[SourceRow], batch: &Batch, answers: &[Answer]) -> Vec<(u64, u8)> {
        let decided = answers.iter().filter_map(|answer| match &answer.result {
            Ok(Outcome::Rejected(rejection)) => Some((answer.ticket, rejection)),
            Ok(Outcome::Applied(_) | Outcome::AlreadyApplied(_)) | Err(_) => None,
        });
        let mut new = Vec::new();
        for (Ticket(ticket), rejection) in decided.chain(batch.refused()) {
            let Some(row) = rows.get(ticket as usize) else { continue };
            if self.now.insert(row.line) {
                new.push((row.line, rejection.precedence() as u8));
            }
        }
        new
    }
}

/// Moves a source's position behind `rows`, and counts what became of them. `answers` are those of requests that
/// made no event.
fn advance(mark: &mut SourceMark, rows: &[SourceRow], answers: &[Answer], refused: &Refused) {
    let Some(last) = rows.last() else { return };
    mark.offset = last.end_offset;
    mark.line_count = last.end_line_count;
    mark.rejected_lines.clear();
    let request_count = rows.iter().filter(|row| row.request.is_some()).count();
    mark.counts.unreadable += (rows.len() - request_count) as u64;
    let refused_before = rows.iter().filter(|row| refused.before.contains(&row.line)).count();
    mark.counts.rejected += refused_before as u64;
    mark.counts.applied += (request_count - refused_before - answers.len()) as u64;
    for answer in answers {
        match &answer.result {
            Ok(Outcome::AlreadyApplied(_)) => mark.counts.already_applied += 1,
            Ok(Outcome::Rejected(rejection)) => {
                mark.counts.rejected += 1;
                let line = rows.get(answer.ticket.0 as usize).map_or(0, |row| row.line);
                if !refused.now.contains(&line) {
                    mark.rejected_lines.push((line, rejection.precedence() as u8));
                }
            }
            // Left out of the answers; and only behind open events, which there are none of here.
            Ok(Outcome::Applied(_)) | Err(_) => {}
        }
    }
}
