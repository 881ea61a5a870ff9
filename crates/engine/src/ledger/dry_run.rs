//! What a request would lead to, if it were submitted now.
//!
//! The machine that decides real requests decides this one, on a batch of its own: what it reads is what the stores
//! have, and what it would write goes nowhere. So there is no second reading of the rules, the table or the terms.
//! Nothing is promised: the next request may change everything.

use super::Ledger;
use super::inbox::{SubmitError, Submitted};
use super::read::ReadError;
use super::sync::now_ms;
use crate::driver::{EngineError, recall};
use crate::store::StoreError;
use bursar_core::Request;
use bursar_core::commit::{
    Appended, Batch, Busy, Limits, Machine, ProposeResult, Routes, Step, Submission, Terms, Ticket,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// How many batches are tried. The first may find that another customer's open event has to be looked at, and the
/// second does.
const BATCHES_MAX: usize = 3;

impl Ledger {
    /// Says what a request would lead to now, and does nothing. A receipt is of the event that would be made: its time
    /// and its hash are this moment's. Of a rail nobody is asked, so what would go through one is taken to be done.
    pub fn dry_run(&self, request: Request, terms: Terms) -> Submitted {
        let mut machine =
            Machine::new(self.config.clone(), Routes::default(), Limits::default(), true, self.last_time_ms()?, 0);
        let terms = (!terms.is_empty()).then(|| Box::new(terms));
        let mut queue = VecDeque::from([Submission { terms, ..Submission::new(Ticket(0), request) }]);
        let mut batch = Batch::new(0);
        for _ in 0..BATCHES_MAX {
            machine.gather(now_ms(), &mut queue, &mut batch);
            while batch.step() != Step::Finish {
                self.pretend(&mut machine, &mut batch)?;
            }
            if let Some(answer) = batch.take_answers().pop() {
                self.wait_until_durable().map_err(of_read)?;
                return answer.result.map_err(SubmitError::CustomerBusy);
            }
            batch.give_back(&mut queue);
        }
        // The customer's event waits for its rail, and so would the request.
        Err(SubmitError::CustomerBusy(Busy { customer: request.customer }))
    }

    fn last_time_ms(&self) -> Result<u64, SubmitError> {
        self.shared.chains.last_time_ms().map_err(stopped)
    }

    /// Does what a batch's next step says, as far as it reads; what it writes is said to be written.
    fn pretend(&self, machine: &mut Machine, batch: &mut Batch) -> Result<(), SubmitError> {
        let (chains, transactions) = (&self.shared.chains, &self.shared.transactions);
        let done = match batch.step() {
            Step::Load => {
                let mut heads = Vec::new();
                chains.load(batch.customers(), &mut heads).map_err(stopped)?;
                machine.loaded(&self.config.digest(), batch, heads)
            }
            Step::Get => {
                let mut entries = Vec::new();
                transactions.get(batch.transactions(), &mut entries).map_err(stopped)?;
                machine.found(batch, &entries)
            }
            Step::Settle => {
                let mut statuses = Vec::new();
                chains.status(batch.to_settle(), &mut statuses).map_err(stopped)?;
                machine.settled(batch, &statuses)
            }
            Step::Recall => {
                let events = recall(&**chains, batch.to_recall()).map_err(stopped)?;
                machine.recalled(batch, events)
            }
            Step::AppendStarted => {
                let results = vec![Appended::Yes; batch.started().len()];
                machine.started(batch, &results)
            }
            Step::Propose => {
                let results = vec![ProposeResult::Proposed; batch.proposals().len()];
                machine.proposed(batch, &results)
            }
            Step::AppendClosed => {
                let results = vec![Appended::Yes; batch.closed().len()];
                machine.closed(batch, &results)
            }
            Step::Sync => {
                batch.synced();
                Ok(())
            }
            // Only of a machine that was told that it can.
            Step::AtOnce => {
                batch.go_step_by_step();
                Ok(())
            }
            Step::Finish => Ok(()),
        };
        done.map_err(|broken| SubmitError::Stopped(Arc::new(EngineError::Broken(broken))))
    }
}

fn stopped(error: StoreError) -> SubmitError {
    SubmitError::Stopped(Arc::new(EngineError::Store(error)))
}

fn of_read(error: ReadError) -> SubmitError {
    match error {
        ReadError::Store(error) => stopped(error),
        ReadError::Stopped(error) => SubmitError::Stopped(error),
    }
}
