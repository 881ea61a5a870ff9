//! What callers hand to the ledger's threads, and how they hear back. Bounded: what does not fit is refused
//! with [`SubmitError::Busy`], and nothing of it is taken.

use super::sync::{Condvar, Mutex, MutexGuard, wait_while};
use crate::driver::{EngineError, SourceRow};
use crate::store::{SourceId, SourceMark};
use bursar_core::commit::{Answer, Busy, Outcome, RailAnswer, Ticket};
use bursar_core::{EventId, Request};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Why a request was not decided.
#[derive(Clone, Debug)]
pub enum SubmitError {
    /// Too much is under way. Nothing was decided; try again later.
    Busy,
    /// The customer's event waits for its rail, and so do too many requests behind it. Nothing was decided.
    CustomerBusy(Busy),
    /// More requests at once than the queue could ever hold.
    TooMany {
        /// How many were given.
        count: usize,
        /// How many the queue holds.
        count_max: usize,
    },
    /// Rows of a source cannot be taken in while events wait for a rail, nor go through one.
    OpenEvents,
    /// Rows of a source need stores that keep its position together with its events.
    SplitBatches,
    /// The ledger was closed before the request was decided.
    Closed,
    /// The engine stopped. Whether the request took effect shows when the ledger is opened again.
    Stopped(Arc<EngineError>),
}

impl SubmitError {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::CustomerBusy(_) => "customer_busy",
            Self::TooMany { .. } => "too_many",
            Self::OpenEvents => "open_events",
            Self::SplitBatches => "split_batches",
            Self::Closed => "closed",
            Self::Stopped(_) => "stopped",
        }
    }
}

impl From<EngineError> for SubmitError {
    /// What the rows of a source met, or why the engine stopped.
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::OpenEvents => Self::OpenEvents,
            EngineError::SplitBatches => Self::SplitBatches,
            EngineError::Store(_) | EngineError::Broken(_) | EngineError::Panicked => Self::Stopped(Arc::new(error)),
        }
    }
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("too much is under way; try again later"),
            Self::CustomerBusy(busy) => busy.fmt(f),
            Self::TooMany { count, count_max } => {
                write!(f, "{count} requests at once are more than the queue's {count_max}")
            }
            Self::OpenEvents => EngineError::OpenEvents.fmt(f),
            Self::SplitBatches => EngineError::SplitBatches.fmt(f),
            Self::Closed => f.write_str("the ledger was closed"),
            Self::Stopped(error) => write!(f, "the engine stopped: {error}"),
        }
    }
}

impl std::error::Error for SubmitError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Stopped(error) => Some(error.as_ref()),
            Self::Busy
            | Self::CustomerBusy(_)
            | Self::TooMany { .. }
            | Self::OpenEvents
            | Self::SplitBatches
            | Self::Closed => None,
        }
    }
}

/// What became of one request.
pub type Submitted = Result<Outcome, SubmitError>;

/// Called once with what became of the requests, in their order; not on the caller's thread.
pub(crate) type Done = Box<dyn FnOnce(Vec<Submitted>) + Send>;

/// Called once with what became of a source's rows, in their order, and the source's new position.
pub(crate) type RowsDone = Box<dyn FnOnce(Result<(Vec<Option<Outcome>>, SourceMark), SubmitError>) + Send>;

/// Something handed in.
pub(crate) enum Item {
    Requests { requests: Vec<Request>, done: Done },
    Rows { source: SourceId, rows: Vec<SourceRow>, ends: bool, done: RowsDone },
}

impl Item {
    fn count(&self) -> usize {
        match self {
            Self::Requests { requests, .. } => requests.len(),
            Self::Rows { rows, .. } => rows.len(),
        }
    }

    pub(crate) fn refuse(self, error: &SubmitError) {
        match self {
            Self::Requests { requests, done } => done(vec![Err(error.clone()); requests.len()]),
            Self::Rows { done, .. } => done(Err(error.clone())),
        }
    }
}

#[derive(Default)]
struct Contents {
    items: VecDeque<Item>,
    /// Requests and rows handed in and not answered yet.
    under_way: usize,
    rail_answers: Vec<(EventId, RailAnswer)>,
    closing: bool,
    stopped: Option<Arc<EngineError>>,
}

/// The ledger's door.
pub(crate) struct Inbox {
    contents: Mutex<Contents>,
    arrived: Condvar,
    count_max: usize,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("count_max", &self.count_max).finish_non_exhaustive()
    }
}

/// What the deciding thread gets at a time.
#[derive(Default)]
pub(crate) struct Taken {
    pub(crate) items: Vec<Item>,
    pub(crate) rail_answers: Vec<(EventId, RailAnswer)>,
    /// Nothing will come any more.
    pub(crate) closed: bool,
}

impl Inbox {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { contents: Mutex::default(), arrived: Condvar::new(), count_max }
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands something in, whole or not at all.
    pub(crate) fn put(&self, item: Item) -> Result<(), (SubmitError, Item)> {
        let count = item.count();
        let mut contents = self.lock();
        if let Some(error) = &contents.stopped {
            return Err((SubmitError::Stopped(error.clone()), item));
        }
        if contents.closing {
            return Err((SubmitError::Closed, item));
        }
        if count > self.count_max {
            return Err((SubmitError::TooMany { count, count_max: self.count_max }, item));
        }
        if contents.under_way + count > self.count_max {
            return Err((SubmitError::Busy, item));
        }
        contents.under_way += count;
        contents.items.push_back(item);
        drop(contents);
        self.arrived.notify_one();
        Ok(())
    }

    pub(crate) fn rail_answered(&self, event: EventId, answer: RailAnswer) {
        self.lock().rail_answers.push((event, answer));
        self.arrived.notify_one();
    }

    /// Says that so many requests or rows have been answered.
    pub(crate) fn answered(&self, count: usize) {
        let mut contents = self.lock();
        contents.under_way = contents.under_way.saturating_sub(count);
    }

    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.arrived.notify_one();
    }

    /// Refuses everything from now on, and all that was not taken yet.
    pub(crate) fn stop(&self, error: &Arc<EngineError>) {
        let items = {
            let mut contents = self.lock();
            contents.stopped.get_or_insert_with(|| error.clone());
            contents.under_way = 0;
            std::mem::take(&mut contents.items)
        };
        self.arrived.notify_one();
        for item in items {
            item.refuse(&SubmitError::Stopped(error.clone()));
        }
    }

    /// Takes what has arrived, up to about `count` requests; waits for something if `wait` says how long.
    pub(crate) fn take(&self, count: usize, wait: Option<Duration>) -> Taken {
        let mut contents = self.lock();
        if let Some(wait) = wait {
            let idle = |contents: &mut Contents| {
                contents.items.is_empty()
                    && contents.rail_answers.is_empty()
                    && !contents.closing
                    && contents.stopped.is_none()
            };
            contents = wait_while(&self.arrived, contents, wait, idle);
        }
        let mut taken = Taken { rail_answers: std::mem::take(&mut contents.rail_answers), ..Taken::default() };
        let mut left = count;
        while left > 0 {
            let Some(item) = contents.items.pop_front() else { break };
            left = left.saturating_sub(item.count());
            taken.items.push(item);
        }
        taken.closed = (contents.closing && contents.items.is_empty()) || contents.stopped.is_some();
        taken
    }
}

/// Requests handed in together, on their way to being answered.
struct Call {
    outcomes: Vec<Option<Submitted>>,
    left: usize,
    done: CallDone,
}

enum CallDone {
    Requests(Done),
    Rows(RowsDone, Option<SourceMark>),
}

/// The calls under way, by the upper half of their tickets; the lower half counts the requests of a call.
#[derive(Default)]
pub(crate) struct Calls {
    slots: Vec<Option<Call>>,
    free: Vec<usize>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

const POSITION_BITS: u32 = 32;

impl Calls {
    /// Notes a call; gives the ticket of its first request.
    pub(crate) fn begin(&mut self, count: usize, done: Done) -> u64 {
        self.insert(Call { outcomes: empty(count), left: count, done: CallDone::Requests(done) })
    }

    /// Notes rows of which `request_count` will be answered, and which are done when [`Calls::end_rows`] was
    /// called as well.
    pub(crate) fn begin_rows(&mut self, row_count: usize, request_count: usize, done: RowsDone) -> u64 {
        let left = request_count + 1;
        self.insert(Call { outcomes: empty(row_count), left, done: CallDone::Rows(done, None) })
    }

    fn insert(&mut self, call: Call) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(call);
        (slot as u64) << POSITION_BITS
    }

    /// Notes answers; gives the calls that are complete. `base` is added to the tickets.
    pub(crate) fn answer(&mut self, base: u64, answers: Vec<Answer>, complete: &mut Vec<Complete>) {
        for Answer { ticket: Ticket(ticket), result } in answers {
            let ticket = base + ticket;
            let slot = (ticket >> POSITION_BITS) as usize;
            let Some(Some(call)) = self.slots.get_mut(slot) else { continue };
            let position = (ticket & ((1 << POSITION_BITS) - 1)) as usize;
            let Some(outcome) = call.outcomes.get_mut(position).filter(|outcome| outcome.is_none()) else { continue };
            *outcome = Some(result.map_err(SubmitError::CustomerBusy));
            call.left -= 1;
            if call.left == 0 {
                self.complete(slot, complete);
            }
        }
    }

    /// Notes that rows have been taken in to their end.
    pub(crate) fn end_rows(&mut self, first_ticket: u64, new_mark: SourceMark, complete: &mut Vec<Complete>) {
        let slot = (first_ticket >> POSITION_BITS) as usize;
        let Some(Some(call)) = self.slots.get_mut(slot) else { return };
        if let CallDone::Rows(_, mark) = &mut call.done {
            *mark = Some(new_mark);
        }
        call.left -= 1;
        if call.left == 0 {
            self.complete(slot, complete);
        }
    }

    fn complete(&mut self, slot: usize, complete: &mut Vec<Complete>) {
        if let Some(call) = self.slots[slot].take() {
            self.free.push(slot);
            complete.push(Complete(call));
        }
    }

    /// Everything under way, to be refused.
    pub(crate) fn take_all(&mut self) -> Vec<Complete> {
        self.free.clear();
        self.slots.drain(..).flatten().map(Complete).collect()
    }
}

fn empty(count: usize) -> Vec<Option<Submitted>> {
    std::iter::repeat_with(|| None).take(count).collect()
}

/// A call whose requests are all answered, or never will be.
pub(crate) struct Complete(Call);

impl Complete {
    /// How many requests or rows it had.
    pub(crate) fn count(&self) -> usize {
        self.0.outcomes.len()
    }

    /// Tells the caller. What was not answered is told as `missing`.
    pub(crate) fn tell(self, missing: &SubmitError) {
        let Call { outcomes, done, .. } = self.0;
        match done {
            CallDone::Requests(done) => {
                done(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(missing.clone()))).collect());
            }
            CallDone::Rows(done, Some(mark)) => {
                let outcomes = outcomes.into_iter().map(|outcome| outcome.and_then(Result::ok)).collect();
                done(Ok((outcomes, mark)));
            }
            CallDone::Rows(done, None) => done(Err(missing.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that begin after all were taken (the engine has stopped, and the deciding thread has not heard yet)
    /// used to be given places that were gone; the deciding thread panicked, and its callers never heard.
    #[test]
    fn calls_begun_after_all_were_taken_have_a_place() {
        let mut calls = Calls::default();
        let mut complete = Vec::new();
        let tickets: Vec<u64> = (0..3).map(|_| calls.begin(1, Box::new(drop))).collect();
        let answers =
            tickets.iter().map(|&ticket| Answer { ticket: Ticket(ticket), result: Ok(Outcome::AlreadyApplied) });
        calls.answer(0, answers.skip(1).collect(), &mut complete);
        assert_eq!(complete.len(), 2);
        assert_eq!(calls.take_all().len(), 1);
        for _ in 0..3 {
            calls.begin(1, Box::new(drop));
        }
        assert_eq!(calls.take_all().len(), 3);
    }
}
