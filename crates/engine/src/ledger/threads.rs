//! The ledger's threads: one decides and appends, one makes durable, one answers.
//!
//! ```text
//!  callers ──► Inbox ──► deciding thread: Driver ──► (so many batches, see below) ──────► durable thread:
//!     ▲                     ▲     ▲                                                        sync, then
//!     │                     │     └── rails' answers ◄── rails ◄───────────────────────── calls,
//!     └── answering thread ◄┼─────────────────────────────────────────────────────────── answers,
//!                           └──────────── used batches ◄──────────────────────────────── approvals
//! ```
//!
//! While one batch is being made durable the next is decided on top of it; several that wait share one sync. Where
//! there is nothing else to do, the deciding thread makes a small batch durable itself: a lone caller then waits for one
//! wake-up less.
//! The first error stops all threads: everybody hears it, and nothing is acknowledged any more.

use super::by_hand::{ByHand, Tells};
use super::inbox::{Calls, Complete, Inbox, Item, SubmitError};
use super::sync::mpsc::{Receiver, Sender};
use super::sync::{Condvar, Mutex, MutexGuard, now_ms, thread};
use crate::driver::{Driver, EngineError, SourceRow};
use crate::figures::Observed;
use crate::rail::{Contradiction, Rail, RailReply};
use crate::store::{Chains, SourceId, SourceMark, Transactions};
use bursar_core::RailId;
use bursar_core::commit::{Batch, RailCall, Step, Submission, Terms, Ticket};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How many decided batches of requests may not be durable yet when the next is decided. One is being synced, one
/// waits, and meanwhile what arrives gathers into the next: a crowd shares a sync.
const REQUEST_BATCHES_MAX: u64 = 2;
/// A batch of more requests is made durable by the other thread: there is a crowd, and more of it will come meanwhile.
const LONE_REQUESTS_MAX: usize = 4;
/// The same for rows of a source, for which nobody waits one by one: a sync serves many batches, so that the disk
/// gets large pieces, while each frame stays small enough to be read for one event.
const ROW_BATCHES_MAX: u64 = 128;
/// How many rows of a source make a batch, where batches are whole.
const BATCH_ROWS_MAX: usize = 256;
/// Behind a position of stores without whole batches, lines up to this may have taken effect already: more than any
/// batch has rows.
const UNCERTAIN_LINES_MAX: u64 = 1 << 14;
/// So many batches of rows are handed over at once to be made durable: fewer would cost a sync of their own whenever
/// the disk is faster than what is decided.
const ROW_BATCHES_TOGETHER: usize = 16;
/// How long the deciding thread sleeps at the most when nothing is due.
pub(super) const IDLE: Duration = Duration::from_hours(1);

/// What the threads and all callers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inbox: Arc<Inbox>,
    pub(super) chains: Arc<dyn Chains>,
    pub(super) transactions: Arc<dyn Transactions>,
    /// What people read; the two above, unless something is in front of them.
    pub(super) readers: super::Readers,
    pub(super) rails: BTreeMap<u8, Arc<dyn Rail>>,
    pub(super) calls: Mutex<Calls>,
    pub(super) progress: Mutex<Progress>,
    pub(super) progressed: Condvar,
    pub(super) batch_requests_max: usize,
    pub(super) observed: Observed,
    /// Called whenever more has become durable.
    pub(super) on_durable: OnceLock<OnDurable>,
}

/// See [`super::Ledger::on_durable`].
pub(super) struct OnDurable(pub(super) Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for OnDurable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDurable")
    }
}

/// How far the ledger is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The number of the newest batch that may have been seen by a reader.
    pub(super) begun: u64,
    /// The number of the newest batch that is durable.
    pub(super) durable: u64,
    /// The number of the newest batch that is done with: its callers were told.
    pub(super) told: u64,
    pub(super) stopped: Option<Arc<EngineError>>,
}

/// A batch on its way from the deciding to the durable thread.
#[derive(Debug)]
pub(super) struct Decided {
    number: u64,
    batch: Batch,
    /// Added to the tickets of the answers.
    base: u64,
    /// When the oldest of its requests was handed in.
    arrived: Instant,
    /// The batch was the last one of rows handed in together.
    rows_end: Option<(u64, SourceMark)>,
    /// Operators who hear how an event ended.
    tells: Tells,
}

/// Calls that durable batches have completed.
pub(super) struct Answered {
    /// The number of the newest of these batches.
    number: u64,
    complete: Vec<Complete>,
}

impl Shared {
    pub(super) fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the engine for good: everybody hears the error.
    pub(super) fn stop(&self, error: EngineError) {
        let error = self.lock_progress().stopped.get_or_insert_with(|| Arc::new(error)).clone();
        self.progressed.notify_all();
        self.inbox.stop(&error);
        let calls = self.lock_calls().take_all();
        for call in calls {
            call.tell(&SubmitError::Stopped(error.clone()));
        }
    }

    /// Tells callers whose requests are all answered.
    fn tell(&self, Answered { number, complete }: Answered) {
        let count = complete.iter().map(Complete::count).sum();
        if count > 0 {
            self.inbox.answered(count);
        }
        for call in complete {
            call.tell(&SubmitError::Closed);
        }
        self.lock_progress().told = number;
    }

    /// Makes batches durable, oldest first, and tells everybody; gives them back, to be used again.
    fn make_durable(&self, batches: Vec<Decided>, tell: impl FnOnce(Answered)) -> Result<Vec<Batch>, EngineError> {
        let Some(number) = batches.last().map(|last| last.number) else { return Ok(Vec::new()) };
        self.chains.sync()?;
        self.lock_progress().durable = number;
        self.progressed.notify_all();
        let now = Instant::now();
        for decided in &batches {
            self.observed.commit.record_time(now.saturating_duration_since(decided.arrived));
        }
        if let Some(OnDurable(call)) = self.on_durable.get() {
            call();
        }
        let mut complete = Vec::new();
        let mut used = Vec::with_capacity(batches.len());
        for Decided { mut batch, base, rows_end, tells, .. } in batches {
            self.tell_contradictions(tells.tell());
            if batch.step() == Step::Sync {
                batch.synced();
            }
            let mut calls = self.lock_calls();
            calls.answer(base, batch.take_answers(), &mut complete);
            if let Some((first_ticket, mark)) = rows_end {
                calls.end_rows(first_ticket, mark, &mut complete);
            }
            used.push(batch);
        }
        tell(Answered { number, complete });
        for batch in &used {
            self.call_rails(batch.calls());
            self.transactions.approve(batch.approvals())?;
        }
        Ok(used)
    }

    fn tell_contradictions(&self, contradictions: Vec<(RailId, Contradiction)>) {
        for (rail, contradiction) in contradictions {
            self.observed.rail_contradictions.fetch_add(1, Ordering::Relaxed);
            if let Some(rail) = self.rails.get(&rail.number()) {
                rail.contradicted(&contradiction);
            }
        }
    }

    fn call_rails(&self, calls: &[RailCall]) {
        for call in calls {
            let reply = RailReply::new(call.event.id(), call.rail, Arc::downgrade(&self.inbox));
            match self.rails.get(&call.rail.number()) {
                Some(rail) => rail.call(call.clone(), reply),
                // Nobody here knows this rail: what it did is unknown.
                None => reply.unknown(format!("no rail has the number {}", call.rail.number())),
            }
        }
    }
}

/// Stops the engine if its thread ends by a panic.
pub(super) struct PanicGuard(pub(super) Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop(EngineError::Panicked);
        }
    }
}

/// The deciding thread.
pub(super) struct Deciding {
    shared: Arc<Shared>,
    driver: Driver,
    decided: Sender<Vec<Decided>>,
    used: Receiver<Vec<Batch>>,
    spare: Vec<Batch>,
    marks: BTreeMap<SourceId, SourceMark>,
    /// Sources that an earlier run had begun, and how many lines it had taken in.
    resumed: BTreeMap<SourceId, u64>,
    by_hand: ByHand,
    number: u64,
    /// When the oldest request of what was taken last was handed in.
    arrived: Instant,
    seed: u64,
}

impl Deciding {
    pub(super) fn new(
        shared: Arc<Shared>,
        driver: Driver,
        decided: Sender<Vec<Decided>>,
        used: Receiver<Vec<Batch>>,
        seed: u64,
    ) -> Self {
        let (spare, marks, resumed, by_hand) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), ByHand::default());
        Self { shared, driver, decided, used, spare, marks, resumed, by_hand, number: 0, arrived: Instant::now(), seed }
    }

    pub(super) fn run(mut self) {
        let _guard = PanicGuard(self.shared.clone());
        if let Err(error) = self.decide_all() {
            self.shared.stop(error);
        }
    }

    fn decide_all(&mut self) -> Result<(), EngineError> {
        loop {
            let wait = if self.driver.has_work() { None } else { Some(self.idle_time()) };
            let room = self.shared.batch_requests_max.saturating_sub(self.driver.queued_count());
            let taken = self.shared.inbox.take(room, wait);
            match taken.oldest {
                Some(oldest) => self.arrived = oldest,
                // What is still queued came before.
                None if self.driver.has_work() => {}
                None => self.arrived = Instant::now(),
            }
            let now_ms = now_ms();
            for answered in taken.rail_answers {
                self.by_hand.rail_answered(&self.driver, now_ms, &answered);
                self.driver.rail_answered(now_ms, answered.event, answered.answer);
            }
            let due = self.driver.due_calls(now_ms);
            self.shared.call_rails(&due);
            for item in taken.items {
                match item {
                    Item::Requests { requests, terms, done } => self.submit(requests, terms, done),
                    Item::Rows { source, rows, ends, done } => {
                        self.decide_queued()?;
                        if let Err(error) = self.driver.check_rows(&rows) {
                            self.shared.inbox.answered(rows.len());
                            done(Err(error.into()));
                            continue;
                        }
                        let first_ticket = self.shared.lock_calls().begin_rows(rows.len(), done);
                        self.decide_rows(source, &rows, ends, first_ticket)?;
                    }
                    // What was found open when the ledger was opened waits as well.
                    Item::Settle { event, settlement, done } => {
                        self.decide_queued()?;
                        self.by_hand.settle(&mut self.driver, event, settlement, done);
                    }
                    Item::Pending { done } => {
                        self.decide_queued()?;
                        done(Ok(self.by_hand.pending(&self.driver, &self.shared.rails)));
                    }
                }
            }
            if self.driver.has_work() || self.by_hand.has_tells() {
                self.decide_once()?;
            } else if taken.closed {
                return Ok(());
            }
        }
    }

    fn idle_time(&self) -> Duration {
        match self.driver.next_due_ms() {
            Some(due_ms) => Duration::from_millis(due_ms.saturating_sub(now_ms())),
            None => IDLE,
        }
    }

    fn submit(&mut self, requests: Vec<bursar_core::Request>, terms: Vec<(usize, Terms)>, done: super::inbox::Done) {
        if requests.is_empty() {
            done(Vec::new());
            return;
        }
        let first = self.shared.lock_calls().begin(requests.len(), done);
        let mut terms = terms.into_iter().peekable();
        for (place, request) in requests.into_iter().enumerate() {
            let terms = terms.next_if(|(of, _)| *of == place).map(|(_, terms)| Box::new(terms));
            self.driver.submit(Submission { ticket: Ticket(first + place as u64), request, terms });
        }
    }

    fn decide_queued(&mut self) -> Result<(), EngineError> {
        while self.driver.has_work() {
            self.decide_once()?;
        }
        Ok(())
    }

    fn decide_once(&mut self) -> Result<(), EngineError> {
        let mut batch = self.begin_batch(REQUEST_BATCHES_MAX)?;
        self.driver.run_batch(now_ms(), &mut batch)?;
        let tells = self.by_hand.ended(batch.ends());
        let is_small = batch.answers().len() <= LONE_REQUESTS_MAX;
        self.shared.observed.batch_requests.record(batch.answers().len() as u64);
        let arrived = self.arrived;
        let decided = Decided { number: self.number, batch, base: 0, arrived, rows_end: None, tells };
        let nothing_under_way = || self.shared.lock_progress().told + 1 == self.number;
        if is_small && !self.driver.has_work() && self.shared.inbox.is_empty() && nothing_under_way() {
            self.spare.extend(self.shared.make_durable(vec![decided], |answered| self.shared.tell(answered))?);
            return Ok(());
        }
        self.hand_over(vec![decided])
    }

    fn decide_rows(
        &mut self,
        source: SourceId,
        rows: &[SourceRow],
        ends: bool,
        first_ticket: u64,
    ) -> Result<(), EngineError> {
        let mut mark = if let Some(mark) = self.marks.remove(&source) {
            mark
        } else {
            let known = self.shared.chains.source(source)?;
            let is_new = known.is_none();
            let mark = known.unwrap_or_else(|| SourceMark::new(source));
            if !is_new {
                self.resumed.insert(source, mark.line_count);
            }
            mark
        };
        let is_split = !self.shared.chains.whole_batches();
        let batch_rows_max = if is_split { usize::MAX } else { BATCH_ROWS_MAX };
        // The ledger may come from stores where rows are more certain than the position.
        let is_near = |line: &u64| mark.line_count - line <= UNCERTAIN_LINES_MAX;
        let is_uncertain = !is_split && self.resumed.get(&source).is_some_and(is_near);
        let under_keys = is_uncertain && self.driver.has_row_in_effect(source, rows)?;
        let mut taken = 0;
        let mut decided = Vec::new();
        loop {
            let mut batch = self.begin_batch(ROW_BATCHES_MAX)?;
            let end = rows.len().min(taken + self.shared.batch_requests_max.min(batch_rows_max));
            let is_last = end == rows.len();
            let next = &rows[taken..end];
            let ends = ends && is_last;
            let count = if under_keys {
                self.driver.run_rows_under_keys(now_ms(), &mut batch, next, ends, &mut mark)?
            } else {
                self.driver.run_rows(now_ms(), &mut batch, next, ends, &mut mark)?
            };
            let base = first_ticket + taken as u64;
            taken += count;
            let is_end = taken == rows.len();
            let rows_end = is_end.then(|| (first_ticket, mark.clone()));
            let (arrived, tells) = (self.arrived, Tells::default());
            decided.push(Decided { number: self.number, batch, base, arrived, rows_end, tells });
            if is_end || decided.len() >= ROW_BATCHES_TOGETHER {
                self.hand_over(std::mem::take(&mut decided))?;
            }
            if is_end {
                self.marks.insert(source, mark);
                return Ok(());
            }
        }
    }

    /// Begins the next batch, once fewer than so many wait to be made durable.
    fn begin_batch(&mut self, waiting_max: u64) -> Result<Batch, EngineError> {
        self.number += 1;
        let mut progress = self.shared.lock_progress();
        while progress.stopped.is_none() && self.number - progress.durable > waiting_max {
            progress = self.shared.progressed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &progress.stopped {
            return Err(EngineError::clone(error));
        }
        progress.begun = self.number;
        drop(progress);
        if self.spare.is_empty() {
            self.spare.extend(self.used.try_recv().into_iter().flatten());
        }
        Ok(self.spare.pop().unwrap_or_else(|| Batch::new(self.seed)))
    }

    fn hand_over(&self, decided: Vec<Decided>) -> Result<(), EngineError> {
        self.decided.send(decided).map_err(|_| match &self.shared.lock_progress().stopped {
            Some(error) => EngineError::clone(error),
            None => EngineError::Panicked,
        })
    }
}

/// The thread that makes batches durable. Who is answered is told by another: to wake a crowd takes as long as a sync,
/// and the next one can begin meanwhile.
pub(super) fn make_durable(
    shared: &Arc<Shared>,
    decided: &Receiver<Vec<Decided>>,
    answered: &Sender<Answered>,
    used: &Sender<Vec<Batch>>,
) {
    let _guard = PanicGuard(shared.clone());
    while let Ok(mut batches) = decided.recv() {
        batches.extend(decided.try_iter().flatten());
        // If the other thread is gone, it has stopped the engine: everybody was told.
        match shared.make_durable(batches, |all| drop(answered.send(all))) {
            // If nobody takes the batches back, nobody needs them.
            Ok(batches) => drop(used.send(batches)),
            Err(error) => return shared.stop(error),
        }
    }
}

/// The thread that tells callers.
pub(super) fn answer(shared: &Arc<Shared>, answered: &Receiver<Answered>) {
    let _guard = PanicGuard(shared.clone());
    while let Ok(batch) = answered.recv() {
        shared.tell(batch);
    }
}
