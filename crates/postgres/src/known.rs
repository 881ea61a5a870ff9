//! What a store remembers of the chains that it has read and written, so that the server is asked for less.
//!
//! **[`Ends`]**: the newest event of a chain that is known to be done. Such an event stays where it is and stays done,
//! so all that can be new is an event behind it: a head is known by a look whether there is one, and nothing needs to be
//! looked for in front of the next event. This is true of one server only. What was read from a server that then lost
//! its place to another one may not be there, so each end is of an *epoch* (the server's process, see
//! [`crate::server`]), and a later epoch forgets those before. Bounded; losing an end costs time and nothing else.
//!
//! **[`UnderWay`]**: the events that this store has appended and not closed yet.
//!
//! What this module does not do: decide whether anything in it is still the newest. The server is asked for that.

use crate::values::{Uuid, is_withdrawal};
use bursar_core::{CustomerId, Event, EventId, LinkedEvent, RailId};
use std::collections::HashMap;

/// The newest events of chains, as far as they are known to be done.
#[derive(Debug)]
pub(crate) struct Ends {
    epoch: u64,
    /// The ends in use. Once they are too many, they become the old ones, and the old ones go.
    young: HashMap<CustomerId, LinkedEvent>,
    old: HashMap<CustomerId, LinkedEvent>,
    /// How many of each there are at the most.
    half_max: usize,
}

impl Ends {
    pub(crate) fn new(count_max: usize) -> Self {
        Self { epoch: 0, young: HashMap::new(), old: HashMap::new(), half_max: count_max / 2 }
    }

    /// The epoch that all ends are of.
    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The newest event that is known to be done; later ones may be there.
    pub(crate) fn of(&self, customer: CustomerId) -> Option<&LinkedEvent> {
        self.young.get(&customer).or_else(|| self.old.get(&customer))
    }

    /// Whether the event at this place, and so all before it, is known to be there and done.
    pub(crate) fn covers(&self, customer: CustomerId, seq: i64) -> bool {
        let reaches = |linked: &LinkedEvent| i64::try_from(linked.event.seq).is_ok_and(|known| known >= seq);
        seq == 0 || self.of(customer).is_some_and(reaches)
    }

    /// An event was seen to be done, or was made so, on a server of this epoch.
    pub(crate) fn done(&mut self, epoch: u64, linked: LinkedEvent) {
        if epoch > self.epoch {
            (self.epoch, self.young, self.old) = (epoch, HashMap::new(), HashMap::new());
        }
        let customer = linked.event.customer;
        let is_newer = self.of(customer).is_none_or(|known| known.event.seq < linked.event.seq);
        if epoch < self.epoch || self.half_max == 0 || !is_newer {
            return;
        }
        if self.young.len() >= self.half_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(customer, linked);
    }

    /// This end was of use again: it stays.
    pub(crate) fn used(&mut self, customer: CustomerId) {
        if !self.young.contains_key(&customer)
            && let Some(linked) = self.old.remove(&customer)
        {
            self.done(self.epoch, linked);
        }
    }
}

/// Which batches of this store have events that are not known to be closed.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    events: HashMap<EventId, (u128, LinkedEvent)>,
    batches: HashMap<u128, usize>,
    /// Batches whose events are all closed: their notes can go.
    pub(crate) over: Vec<u128>,
}

impl UnderWay {
    pub(crate) fn get(&self, event: EventId) -> Option<&LinkedEvent> {
        self.events.get(&event).map(|(_, linked)| linked)
    }

    pub(crate) fn begun(&mut self, batch: u128, events: impl Iterator<Item = LinkedEvent>) {
        let before = self.events.len();
        self.events.extend(events.map(|linked| (linked.id(), (batch, linked))));
        match self.events.len() - before {
            0 => self.over.push(batch),
            count => drop(self.batches.insert(batch, count)),
        }
    }

    /// An event is closed; gives it if this store has appended it.
    pub(crate) fn closed(&mut self, event: EventId) -> Option<LinkedEvent> {
        let (batch, linked) = self.events.remove(&event)?;
        if let Some(count) = self.batches.get_mut(&batch) {
            *count -= 1;
            if *count == 0 {
                self.batches.remove(&batch);
                self.over.push(batch);
            }
        }
        Some(linked)
    }
}

/// The small values of an event in one number, as statements take it.
pub(crate) fn packed(event: &Event) -> i64 {
    let flags = i64::from(is_withdrawal(event.transaction_kind)) << 24 | i64::from(event.state.locked) << 25;
    let rail = i64::from(event.rail.map_or(0, RailId::number));
    i64::from(event.kind.code()) | i64::from(event.currency.0) << 8 | rail << 16 | flags
}

/// Where an event is, as the database keeps it.
pub(crate) fn place_of(event: &Event) -> (Uuid, Option<i64>) {
    (Uuid(event.customer.bits()), i64::try_from(event.seq).ok())
}
