//! An owner of a ledger: the real driver, with its two threads' work in an order that the simulator chooses.
//!
//! What `bursar_engine`'s ledger does on two threads is done here in steps: batches are decided one after the other,
//! while those that have ended wait for a sync, which serves all of them; then their answers are given, their rails
//! called and their approvals written. What this module does not do: judge; see [`crate::world`].

use crate::scenario::Wanted;
use bursar_engine::EngineError;
use bursar_engine::core::commit::{
    Answer, Batch, Limits, RailAnswer, RailCall, Routes, Settlement, Settling, Step, Submission, Ticket,
};
use bursar_engine::core::{EventId, LedgerConfig};
use bursar_engine::driver::{Driver, SourceRow};
use bursar_engine::store::{Chains, SourceId, SourceMark, Transactions};
use std::sync::Arc;

/// How many batches may wait for a sync at once.
const ENDED_MAX: usize = 3;

/// The one source of a run.
pub const SOURCE: SourceId = SourceId([7; 32]);

/// A batch that waits to be made durable.
#[derive(Debug)]
struct Ended {
    batch: Batch,
    /// It took in rows: the source's position behind them.
    mark: Option<SourceMark>,
}

/// What the world hears of an owner when something has become durable.
#[derive(Debug, Default)]
pub struct Heard {
    /// Answers to requests.
    pub answers: Vec<Answer>,
    /// Calls to rails.
    pub calls: Vec<RailCall>,
    /// How far the source is durably taken in.
    pub mark: Option<SourceMark>,
}

/// An owner of a ledger.
#[derive(Debug)]
pub struct Owner {
    driver: Driver,
    chains: Arc<dyn Chains>,
    transactions: Arc<dyn Transactions>,
    batch: Option<Batch>,
    ended: Vec<Ended>,
    seed: u64,
}

impl Owner {
    /// Opens the ledger.
    pub fn open(
        config: LedgerConfig,
        routes: Routes,
        limits: Limits,
        chains: Arc<dyn Chains>,
        transactions: Arc<dyn Transactions>,
        seed: u64,
    ) -> Result<Self, EngineError> {
        let driver = Driver::new(config, routes, limits, chains.clone(), transactions.clone(), seed)?;
        Ok(Self { driver, chains, transactions, batch: None, ended: Vec::new(), seed })
    }

    /// Takes a request.
    pub fn submit(&mut self, ticket: u64, wanted: Wanted) {
        let terms = (!wanted.under.is_empty()).then(|| Box::new(wanted.under));
        self.driver.submit(Submission { terms, ..Submission::new(Ticket(ticket), wanted.request) });
    }

    /// Whether a batch is being decided.
    pub const fn is_in_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Whether there is nothing to do, and nothing to wait for.
    pub fn is_idle(&self) -> bool {
        self.batch.is_none()
            && self.ended.is_empty()
            && !self.driver.has_work()
            && self.driver.open_events().next().is_none()
    }

    /// The step that is next, for the trace.
    pub fn next_step(&self) -> Option<Step> {
        self.batch.as_ref().map(Batch::step)
    }

    /// Goes one step on, or begins a batch. Gives whether there was something to do.
    pub fn advance(&mut self, now_ms: u64) -> Result<bool, EngineError> {
        if let Some(batch) = &mut self.batch {
            if !self.driver.step_batch(batch)? {
                self.ended.extend(self.batch.take().map(|batch| Ended { batch, mark: None }));
            }
            return Ok(true);
        }
        if self.ended.len() >= ENDED_MAX || !self.driver.has_work() {
            return Ok(false);
        }
        let mut batch = Batch::new(self.seed);
        self.driver.begin_batch(now_ms, &mut batch);
        self.batch = Some(batch);
        Ok(true)
    }

    /// Takes in some of the rows that follow behind the source's position.
    pub fn take_rows(&mut self, now_ms: u64, rows: &[SourceRow], count: usize) -> Result<(), EngineError> {
        let mut mark = self.chains.source(SOURCE)?.unwrap_or_else(|| SourceMark::new(SOURCE));
        if self.batch.is_some() || mark.finished || self.ended.len() >= ENDED_MAX {
            return Ok(());
        }
        let left = rows.get(mark.line_count as usize..).unwrap_or_default();
        let next = &left[..count.min(left.len())];
        let mut batch = Batch::new(self.seed);
        self.driver.run_rows(now_ms, &mut batch, next, next.len() == left.len(), &mut mark)?;
        self.ended.push(Ended { batch, mark: Some(mark) });
        Ok(())
    }

    /// Makes durable what has ended, and says what the world hears of it. What was heard before an error was heard.
    pub fn sync(&mut self) -> (Heard, Result<(), EngineError>) {
        let mut heard = Heard::default();
        let done = self.sync_and_tell(&mut heard);
        (heard, done)
    }

    fn sync_and_tell(&mut self, heard: &mut Heard) -> Result<(), EngineError> {
        if self.ended.is_empty() {
            return Ok(());
        }
        self.chains.sync()?;
        for mut ended in std::mem::take(&mut self.ended) {
            if ended.batch.step() == Step::Sync {
                ended.batch.synced();
            }
            self.tell(ended, heard)?;
        }
        Ok(())
    }

    fn tell(&self, ended: Ended, heard: &mut Heard) -> Result<(), EngineError> {
        let Ended { mut batch, mark } = ended;
        match mark {
            Some(mark) => heard.mark = Some(mark),
            None => heard.answers.append(&mut batch.take_answers()),
        }
        heard.calls.extend(batch.calls().iter().cloned());
        self.transactions.approve(batch.approvals())?;
        Ok(())
    }

    /// What the machine says of batches that need no sync: that nobody's request was decided by them.
    pub fn tell_at_once(&mut self) -> (Heard, Result<(), EngineError>) {
        let mut heard = Heard::default();
        while self.ended.first().is_some_and(|ended| ended.batch.step() == Step::Finish && ended.mark.is_none()) {
            let ended = self.ended.remove(0);
            if let Err(error) = self.tell(ended, &mut heard) {
                return (heard, Err(error));
            }
        }
        (heard, Ok(()))
    }

    /// A rail has answered.
    pub fn rail_answered(&mut self, now_ms: u64, event: EventId, answer: RailAnswer) {
        self.driver.rail_answered(now_ms, event, answer);
    }

    /// Whether an event waits for its rail.
    pub fn is_open(&self, event: EventId) -> bool {
        self.driver.is_open(event)
    }

    /// An operator settles an event; gives what becomes of that.
    pub fn settle(&mut self, event: EventId, settlement: &Settlement) -> Settling {
        self.driver.settle(event, settlement)
    }

    /// The calls that are due to rails that could not tell.
    pub fn due_calls(&mut self, now_ms: u64) -> Vec<RailCall> {
        self.driver.due_calls(now_ms)
    }

    /// How far the source is taken in, for the owner.
    pub fn mark(&self) -> Result<Option<SourceMark>, EngineError> {
        Ok(self.chains.source(SOURCE)?)
    }
}
