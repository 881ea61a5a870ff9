//! What callers hand to the ledger's threads, and how they hear back. Bounded: what does not fit is refused
//! with [`SubmitError::Busy`], and nothing of it is taken.

use super::by_hand::{PendingDone, SettleDone, SettleError};
use super::sync::{Condvar, Mutex, MutexGuard, wait_while};
use crate::driver::{EngineError, SourceRow};
use crate::rail::RailAnswered;
use crate::store::{SourceId, SourceMark};
use bursar_core::commit::{Answer, Busy, Outcome, Settlement, Terms, Ticket};
use bursar_core::{EventId, Request};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

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

/// What became of a source's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowsTaken {
    /// How many rows were taken in.
    pub row_count: usize,
    /// Of those that are requests and made no event, by place and in order: what became of them. All others that are
    /// requests did make one.
    pub without_event: Vec<(usize, Outcome)>,
    /// The source's position behind them.
    pub mark: SourceMark,
}

/// Called once with what became of a source's rows.
pub(crate) type RowsDone = Box<dyn FnOnce(Result<RowsTaken, SubmitError>) + Send>;

/// Something handed in.
pub(crate) enum Item {
    /// The terms of some of the requests, by place and in order.
    Requests {
        requests: Vec<Request>,
        terms: Vec<(usize, Terms)>,
        done: Done,
    },
    Rows {
        source: SourceId,
        rows: Vec<SourceRow>,
        ends: bool,
        done: RowsDone,
    },
    /// An operator settles an event.
    Settle {
        event: EventId,
        settlement: Settlement,
        done: SettleDone,
    },
    /// Somebody asks for what is pending.
    Pending {
        done: PendingDone,
    },
}

impl Item {
    fn count(&self) -> usize {
        match self {
            Self::Requests { requests, .. } => requests.len(),
            Self::Rows { rows, .. } => rows.len(),
            Self::Settle { .. } | Self::Pending { .. } => 0,
        }
    }

    pub(crate) fn refuse(self, error: &SubmitError) {
        match self {
            Self::Requests { requests, done, .. } => done(vec![Err(error.clone()); requests.len()]),
            Self::Rows { done, .. } => done(Err(error.clone())),
            Self::Settle { done, .. } => done(Err(SettleError::NotDecided(error.clone()))),
            Self::Pending { done } => done(Err(error.clone())),
        }
    }
}

#[derive(Default)]
struct Contents {
    items: VecDeque<Item>,
    /// Requests and rows handed in and not answered yet.
    under_way: usize,
    /// When the oldest of the items came in.
    oldest: Option<Instant>,
    rail_answers: Vec<RailAnswered>,
    /// The deciding thread waits, and nobody has woken it yet: a wake-up costs as much as a request.
    waited_for: bool,
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
    pub(crate) rail_answers: Vec<RailAnswered>,
    /// When the oldest item came in; of what was left over from before, when that did.
    pub(crate) oldest: Option<Instant>,
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
        contents.oldest.get_or_insert_with(Instant::now);
        contents.items.push_back(item);
        self.wake(contents);
        Ok(())
    }

    /// Wakes the deciding thread, if it waits, for something that has come in.
    fn wake(&self, mut contents: MutexGuard<'_, Contents>) {
        let waited_for = std::mem::take(&mut contents.waited_for);
        drop(contents);
        if waited_for {
            self.arrived.notify_one();
        }
    }

    pub(crate) fn rail_answered(&self, answered: RailAnswered) {
        let mut contents = self.lock();
        contents.rail_answers.push(answered);
        self.wake(contents);
    }

    /// How many requests and rows are under way, and how many may be.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        (self.lock().under_way, self.count_max)
    }

    /// Says that so many requests or rows have been answered.
    pub(crate) fn answered(&self, count: usize) {
        let mut contents = self.lock();
        contents.under_way = contents.under_way.saturating_sub(count);
    }

    pub(crate) fn close(&self) {
        let mut contents = self.lock();
        contents.closing = true;
        self.wake(contents);
    }

    /// Refuses everything from now on, and all that was not taken yet.
    pub(crate) fn stop(&self, error: &Arc<EngineError>) {
        let items = {
            let mut contents = self.lock();
            contents.stopped.get_or_insert_with(|| error.clone());
            contents.under_way = 0;
            let items = std::mem::take(&mut contents.items);
            self.wake(contents);
            items
        };
        for item in items {
            item.refuse(&SubmitError::Stopped(error.clone()));
        }
    }

    /// Whether nothing has arrived that was not taken.
    pub(crate) fn is_empty(&self) -> bool {
        let contents = self.lock();
        contents.items.is_empty() && contents.rail_answers.is_empty()
    }

    /// Takes what has arrived, up to about `count` requests; waits for something if `wait` says how long.
    pub(crate) fn take(&self, count: usize, wait: Option<Duration>) -> Taken {
        let mut contents = self.lock();
        if let Some(wait) = wait {
            let idle = |contents: &mut Contents| {
                contents.waited_for = contents.items.is_empty()
                    && contents.rail_answers.is_empty()
                    && !contents.closing
                    && contents.stopped.is_none();
                contents.waited_for
            };
            contents = wait_while(&self.arrived, contents, wait, idle);
            contents.waited_for = false;
        }
        let mut taken = Taken { rail_answers: std::mem::take(&mut contents.rail_answers), ..Taken::default() };
        let mut left = count;
        while left > 0 {
            let Some(item) = contents.items.pop_front() else { break };
            left = left.saturating_sub(item.count());
            taken.items.push(item);
        }
        taken.oldest = contents.oldest.filter(|_| !taken.items.is_empty());
        if contents.items.is_empty() {
            contents.oldest = None;
        }
        taken.closed = (contents.closing && contents.items.is_empty()) || contents.stopped.is_some();
        taken
    }
}

/// Requests handed in together, on their way to being answered.
enum Call {
    Requests {
        outcomes: Vec<Option<Submitted>>,
        left: usize,
        done: Done,
    },
    Rows {
        row_count: usize,
        without_event: Vec<(usize, Outcome)>,
        /// Where the source is once all rows have been taken in.
        mark: Option<SourceMark>,
        done: RowsDone,
    },
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
        self.insert(Call::Requests { outcomes: empty(count), left: count, done })
    }

    /// Notes rows, which are done when [`Calls::end_rows`] is called: behind all answers to them.
    pub(crate) fn begin_rows(&mut self, row_count: usize, done: RowsDone) -> u64 {
        self.insert(Call::Rows { row_count, without_event: Vec::new(), mark: None, done })
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
            let (outcomes, left) = match call {
                Call::Requests { outcomes, left, .. } => (outcomes, left),
                Call::Rows { without_event, .. } => {
                    without_event.extend(result.ok().map(|outcome| (position, outcome)));
                    continue;
                }
            };
            let Some(outcome) = outcomes.get_mut(position).filter(|outcome| outcome.is_none()) else { continue };
            *outcome = Some(result.map_err(SubmitError::CustomerBusy));
            *left -= 1;
            if *left == 0 {
                self.complete(slot, complete);
            }
        }
    }

    /// Notes that rows have been taken in to their end.
    pub(crate) fn end_rows(&mut self, first_ticket: u64, new_mark: SourceMark, complete: &mut Vec<Complete>) {
        let slot = (first_ticket >> POSITION_BITS) as usize;
        if let Some(Some(Call::Rows { mark, .. })) = self.slots.get_mut(slot) {
            *mark = Some(new_mark);
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
        match &self.0 {
            Call::Requests { outcomes, .. } => outcomes.len(),
            Call::Rows { row_count, .. } => *row_count,
        }
    }

    /// Tells the caller. What was not answered is told as `missing`.
    pub(crate) fn tell(self, missing: &SubmitError) {
        match self.0 {
            Call::Requests { outcomes, done, .. } => {
                done(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(missing.clone()))).collect());
            }
            Call::Rows { row_count, mut without_event, mark: Some(mark), done } => {
                without_event.sort_by_key(|(place, _)| *place);
                done(Ok(RowsTaken { row_count, without_event, mark }));
            }
            Call::Rows { mark: None, done, .. } => done(Err(missing.clone())),
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
            tickets.iter().map(|&ticket| Answer { ticket: Ticket(ticket), result: Ok(Outcome::AlreadyApplied(None)) });
        calls.answer(0, answers.skip(1).collect(), &mut complete);
        assert_eq!(complete.len(), 2);
        assert_eq!(calls.take_all().len(), 1);
        for _ in 0..3 {
            calls.begin(1, Box::new(drop));
        }
        assert_eq!(calls.take_all().len(), 3);
    }
}
