//! Events that wait for their rails: who looks after them sees how it stands, and settles by hand what a rail will
//! never tell. An operator hears what became of an event once that is durable, whoever was first to close it; and a rail
//! that says otherwise afterwards is noticed.
//!
//! What this module does not do: deciding who is first, which is the commit machine's; and calling rails.

use super::Ledger;
use super::inbox::{Item, SubmitError};
use super::read::ReadError;
use super::sync::mpsc::sync_channel;
use crate::driver::Driver;
use crate::rail::{Contradiction, Rail, RailAnswered};
use crate::store::FeedError;
use bursar_core::commit::{Pending, RailAnswer, Settlement, Settling};
use bursar_core::{EventId, EventRef, EventStatus, RailId};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

/// How many events that waited for a rail are known after they have ended, for operators who come too late: of those that
/// rails have closed, and of those that operators have. Of others the store is asked.
const ENDED_MAX: usize = 4096;
/// How much of what is known of an unknown answer is kept, in bytes.
const SAID_BYTES_MAX: usize = 300;

/// The last answer of a rail that could not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastAnswer {
    /// When it came, in milliseconds since 1970.
    pub time_ms: u64,
    /// What is known of it, for people.
    pub said: String,
}

/// An event that waits for its rail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingEvent {
    /// The event, and when its rail was and will be asked.
    pub pending: Pending,
    /// What people call the rail.
    pub rail_name: Option<String>,
    /// Whether the rail's number is known here. If not, nobody asks it.
    pub is_configured: bool,
    /// What the rail said last, since the ledger was opened.
    pub last_answer: Option<LastAnswer>,
}

/// An event that is closed as an operator wanted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Where it is.
    pub event: EventRef,
    /// How it stands, with the reason that is in the chain.
    pub status: EventStatus,
    /// It was settled like this before; the reason is the one that was given then.
    pub is_repeat: bool,
}

/// Why an event was not settled.
#[derive(Clone, Debug)]
pub enum SettleError {
    /// It was closed otherwise: by its rail, which was first, or by an operator.
    ClosedOtherwise {
        /// Where it is.
        event: EventRef,
        /// How it stands.
        status: EventStatus,
    },
    /// No such event waits for a rail, nor did one end.
    NotOpen,
    /// No such event waits for a rail, and whether one ended could not be read.
    NotRead(FeedError),
    /// The engine did not get to it; [`SubmitError::Stopped`]: it is not known what became of it.
    NotDecided(SubmitError),
}

impl fmt::Display for SettleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosedOtherwise { event, status } => {
                write!(f, "event {} of customer {} is {} already", event.seq, event.customer, status.name())?;
                match status {
                    EventStatus::DoneByHand(reason) => write!(f, ", settled by an operator: {}", reason.as_str()),
                    EventStatus::Aborted(reason) => write!(f, ": {reason}"),
                    EventStatus::Started | EventStatus::Done => f.write_str(": its rail has acted"),
                }
            }
            Self::NotOpen => f.write_str("no such event waits for a rail"),
            Self::NotRead(error) => error.fmt(f),
            Self::NotDecided(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SettleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotDecided(error) => Some(error),
            Self::NotRead(error) => Some(error),
            Self::ClosedOtherwise { .. } | Self::NotOpen => None,
        }
    }
}

pub(crate) type SettleDone = Box<dyn FnOnce(Result<Settled, SettleError>) + Send>;
pub(crate) type PendingDone = Box<dyn FnOnce(Result<Vec<PendingEvent>, SubmitError>) + Send>;

/// What is told once a batch is durable.
#[derive(Default)]
pub(super) struct Tells {
    /// To operators.
    settled: Vec<(SettleDone, Result<Settled, SettleError>)>,
    /// Of rails.
    contradictions: Vec<(RailId, Contradiction)>,
}

impl Tells {
    /// Tells operators; gives what is to be told of rails.
    pub(super) fn tell(self) -> Vec<(RailId, Contradiction)> {
        for (done, result) in self.settled {
            done(result);
        }
        self.contradictions
    }
}

impl fmt::Debug for Tells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = (self.settled.len(), self.contradictions.len());
        f.debug_struct("Tells").field("counts", &counts).finish()
    }
}

/// An operator who waits for a batch that closes an event.
struct Waiting {
    settlement: Settlement,
    /// Somebody else had closed it when the operator came.
    came_first: bool,
    done: SettleDone,
}

/// Events that have ended, and how: the newest [`ENDED_MAX`].
#[derive(Default)]
struct Ended {
    known: HashMap<EventId, (EventRef, EventStatus)>,
    /// The same events, oldest first.
    order: VecDeque<EventId>,
}

impl Ended {
    fn insert(&mut self, event: EventRef, status: EventStatus) {
        if self.known.insert(event.id, (event, status)).is_none() {
            self.order.push_back(event.id);
        }
        if self.order.len() > ENDED_MAX {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.known.remove(&oldest));
        }
    }
}

/// What the deciding thread knows of operators and of what rails said.
#[derive(Default)]
pub(super) struct ByHand {
    waiting: HashMap<EventId, Vec<Waiting>>,
    ended_by_rails: Ended,
    ended_by_operators: Ended,
    said: HashMap<EventId, LastAnswer>,
    /// Answers to events that an operator is about to close.
    late: Vec<RailAnswered>,
    /// To be told with the next batch.
    tells: Tells,
}

impl ByHand {
    pub(super) const fn has_tells(&self) -> bool {
        !self.tells.settled.is_empty() || !self.tells.contradictions.is_empty()
    }

    /// Notes what a rail said that could not tell, and what it said too late.
    pub(super) fn rail_answered(&mut self, driver: &Driver, now_ms: u64, answered: &RailAnswered) {
        let RailAnswered { event, rail, answer, said } = answered;
        let is_open = driver.is_open(*event);
        if !said.is_empty() && is_open {
            let said = &said[..said.floor_char_boundary(SAID_BYTES_MAX)];
            self.said.insert(*event, LastAnswer { time_ms: now_ms, said: said.to_owned() });
        }
        if !is_open {
            self.compare(*event, *rail, answer);
        } else if self.waiting.get(event).is_some_and(|waiting| waiting.iter().any(|one| !one.came_first)) {
            let (answer, said) = (answer.clone(), String::new());
            self.late.push(RailAnswered { event: *event, rail: *rail, answer, said });
        }
    }

    /// Compares what a rail says of an event with what an operator has made of it.
    fn compare(&mut self, event: EventId, rail: RailId, answer: &RailAnswer) {
        let Some((event, settled)) = self.ended_by_operators.known.get(&event) else { return };
        let said = match answer {
            RailAnswer::Done => EventStatus::Done.name(),
            RailAnswer::Refused(reason) => EventStatus::Aborted(reason.clone()).name(),
            RailAnswer::Unknown => return,
        };
        if said != settled.name() {
            let contradiction = Contradiction { event: *event, settled: settled.clone(), answer: answer.clone() };
            self.tells.contradictions.push((rail, contradiction));
        }
    }

    pub(super) fn settle(&mut self, driver: &mut Driver, event: EventId, settlement: Settlement, done: SettleDone) {
        let came_first = match driver.settle(event, &settlement) {
            Settling::Begun => false,
            Settling::CameFirst => true,
            Settling::NotOpen => {
                let ended = self.ended_by_operators.known.get(&event).or_else(|| self.ended_by_rails.known.get(&event));
                let result = match ended {
                    Some((event, status)) => judge(&settlement, *event, status, true),
                    None => Err(SettleError::NotOpen),
                };
                self.tells.settled.push((done, result));
                return;
            }
        };
        self.waiting.entry(event).or_default().push(Waiting { settlement, came_first, done });
    }

    /// Notes how events ended by a batch; gives what is told once it is durable.
    pub(super) fn ended(&mut self, ends: &[(EventRef, EventStatus)]) -> Tells {
        for (event, status) in ends {
            self.said.remove(&event.id);
            let is_by_hand = status.by_hand().is_some();
            let ended = if is_by_hand { &mut self.ended_by_operators } else { &mut self.ended_by_rails };
            ended.insert(*event, status.clone());
            for Waiting { settlement, came_first, done } in self.waiting.remove(&event.id).unwrap_or_default() {
                self.tells.settled.push((done, judge(&settlement, *event, status, came_first)));
            }
            let late = self.late.extract_if(.., |answered| answered.event == event.id).collect::<Vec<_>>();
            for RailAnswered { event, rail, answer, .. } in late {
                self.compare(event, rail, &answer);
            }
        }
        std::mem::take(&mut self.tells)
    }

    /// What waits for rails, oldest first.
    pub(super) fn pending(&self, driver: &Driver, rails: &BTreeMap<u8, Arc<dyn Rail>>) -> Vec<PendingEvent> {
        let mut all: Vec<PendingEvent> = driver
            .pending()
            .map(|pending| {
                let rail = rails.get(&pending.rail.number());
                PendingEvent {
                    rail_name: rail.and_then(|rail| rail.name()).map(str::to_owned),
                    is_configured: rail.is_some(),
                    last_answer: self.said.get(&pending.linked.id()).cloned(),
                    pending,
                }
            })
            .collect();
        all.sort_by_key(|waiting| {
            let event = &waiting.pending.linked.event;
            (event.time_ms, event.customer)
        });
        all
    }
}

/// What an operator hears of an event that is closed.
fn judge(
    settlement: &Settlement,
    event: EventRef,
    status: &EventStatus,
    came_first: bool,
) -> Result<Settled, SettleError> {
    let status = status.clone();
    let is_as_wanted = status.by_hand().is_some() && status.name() == settlement.status().name();
    if is_as_wanted {
        return Ok(Settled { event, status, is_repeat: came_first });
    }
    Err(SettleError::ClosedOtherwise { event, status })
}

impl Ledger {
    /// The events that wait for their rails, oldest first. Only what is durable is told.
    pub fn pending(&self) -> Result<Vec<PendingEvent>, ReadError> {
        let (sender, told) = sync_channel(1);
        // If the receiver is gone, nobody waits.
        let done: PendingDone = Box::new(move |pending| drop(sender.send(pending)));
        let put = self.shared.inbox.put(Item::Pending { done }).map_err(|(error, _)| error);
        let pending = put.and_then(|()| told.recv().unwrap_or(Err(SubmitError::Closed)));
        // A ledger that does not answer has stopped; why is told below.
        self.wait_until_durable()?;
        Ok(pending.unwrap_or_default())
    }

    /// Settles an event by hand that waits for its rail: the rail cannot tell, and somebody has found out what it did.
    /// The reason goes into the chain. Waits until the end is durable. The first end counts: if the rail answers at the
    /// same moment, or another operator was faster, this says what happened. So it does for an event that ended before,
    /// however long ago: told once more, the same is a repeat, and something else an error. (Long ago: all records may be
    /// read for that. Where a store has no feed, only what ended since the ledger was opened is known.)
    ///
    /// Nobody can check this: an event that is aborted although its rail has acted, or will act, is money lost.
    pub fn settle(&self, event: EventId, settlement: Settlement) -> Result<Settled, SettleError> {
        let (sender, told) = sync_channel(1);
        // If the receiver is gone, nobody waits.
        let done: SettleDone = Box::new(move |settled| drop(sender.send(settled)));
        let wanted = settlement.clone();
        let put = self.shared.inbox.put(Item::Settle { event, settlement, done });
        put.map_err(|(error, _)| SettleError::NotDecided(error))?;
        let settled = told.recv().unwrap_or_else(|_| {
            let stopped = self.shared.lock_progress().stopped.clone();
            Err(SettleError::NotDecided(stopped.map_or(SubmitError::Closed, SubmitError::Stopped)))
        });
        match (settled, self.shared.chains.feed()) {
            (Err(SettleError::NotOpen), Some(feed)) => {
                let (event, status) = feed.end_of(event).map_err(SettleError::NotRead)?.ok_or(SettleError::NotOpen)?;
                judge(&wanted, event, &status, true)
            }
            (settled, _) => settled,
        }
    }
}
