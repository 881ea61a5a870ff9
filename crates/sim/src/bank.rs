//! Simulated rails with a book of their own: what they did for an event they did once, and they never forget it.
//!
//! A call may be answered, refused, or not be heard of; before or after the rail acted; twice; and late, when its
//! owner is gone and another one has recovered the event. An operator asks a rail by other means, sees to it that it will
//! not act later, and settles the event by hand as the book then says. What this module does not do: judge whether the book is
//! right; see [`crate::oracle`].

use crate::random::Random;
use crate::witness::Witness;
use bursar_engine::core::commit::{RailAnswer, RailCall, Settlement};
use bursar_engine::core::{AbortReason, EventId, LinkedEvent, ReasonText};
use std::collections::BTreeMap;

/// What a rail did for an event, once and for all.
#[derive(Clone, Debug)]
pub struct Deed {
    /// The event it was asked for.
    pub linked: LinkedEvent,
    /// It acted; otherwise it refused.
    pub acted: bool,
}

/// What a rail gives as its reason.
pub const REASON: &str = "declined";
/// What an operator gives as a reason.
pub const BY_HAND: &str = "asked by telephone";

/// All rails of a world, and the network to them.
#[derive(Debug)]
pub struct Bank {
    book: BTreeMap<EventId, Deed>,
    calls: Vec<(usize, RailCall)>,
    answers: Vec<(usize, EventId, RailAnswer)>,
    /// All events that a rail was ever called about.
    known: BTreeMap<EventId, LinkedEvent>,
    witness: Witness,
}

impl Bank {
    /// A bank that has done nothing yet.
    pub const fn new(witness: Witness) -> Self {
        Self { book: BTreeMap::new(), calls: Vec::new(), answers: Vec::new(), known: BTreeMap::new(), witness }
    }

    /// What was done, by event.
    pub const fn book(&self) -> &BTreeMap<EventId, Deed> {
        &self.book
    }

    /// An owner's calls are on their way.
    pub fn call(&mut self, owner: usize, calls: impl IntoIterator<Item = RailCall>) {
        for call in calls {
            self.known.insert(call.event.id(), call.event.clone());
            self.calls.push((owner, call));
        }
    }

    /// An operator finds out what a rail did for an event that is open, and has it written down for good what is not
    /// decided yet. How the event is to be settled.
    pub fn ask_by_hand(
        &mut self,
        random: &mut Random,
        is_open: impl Fn(EventId) -> bool,
    ) -> Option<(EventId, Settlement)> {
        let open: Vec<EventId> = self.known.keys().copied().filter(|event| is_open(*event)).collect();
        let event = *open.get(random.place(open.len().max(1)))?;
        let acts = random.one_in(2);
        let linked = self.known.get(&event)?.clone();
        let deed = self.book.entry(event).or_insert(Deed { linked, acted: acts });
        let reason = ReasonText::new(BY_HAND);
        if deed.acted {
            self.witness.count("operator: settles as done");
            Some((event, Settlement::Done(reason)))
        } else {
            self.witness.count("operator: settles as aborted");
            Some((event, Settlement::Aborted(reason)))
        }
    }

    /// Whether nothing is on its way, in neither direction.
    pub fn is_quiet(&self) -> bool {
        self.calls.is_empty() && self.answers.is_empty()
    }

    /// A rail takes one of the calls.
    pub fn take_a_call(&mut self, random: &mut Random, with_faults: bool) {
        if self.calls.is_empty() {
            return;
        }
        let (owner, call) = self.calls.swap_remove(random.place(self.calls.len()));
        let id = call.event.id();
        if with_faults && random.one_in(5) {
            self.witness.count("rail: times out before it acts");
            self.answers.push((owner, id, RailAnswer::Unknown));
            return;
        }
        let acts = !random.one_in(3);
        if !acts {
            self.witness.count("rail: refuses");
        }
        let deed = self.book.entry(id).or_insert_with(|| Deed { linked: call.event.clone(), acted: acts });
        let answer = if deed.acted {
            RailAnswer::Done
        } else {
            RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new(REASON)))
        };
        self.witness.say(|| format!("         rail, {id}: {answer:?}"));
        if with_faults && random.one_in(5) {
            self.witness.count("rail: times out after it acted");
            self.answers.push((owner, id, RailAnswer::Unknown));
            return;
        }
        if with_faults && random.one_in(5) {
            self.witness.count("rail: answers twice");
            self.answers.push((owner, id, answer.clone()));
        }
        self.answers.push((owner, id, answer));
    }

    /// One of the answers arrives: at which owner, about which event.
    pub fn deliver(&mut self, random: &mut Random) -> Option<(usize, EventId, RailAnswer)> {
        if self.answers.is_empty() {
            return None;
        }
        Some(self.answers.swap_remove(random.place(self.answers.len())))
    }

    /// Who has answers or calls under way to an owner that died: its successor gets the answers.
    pub fn owner_died(&mut self, owner: usize) {
        if self.answers.iter().any(|(whose, ..)| *whose == owner) {
            self.witness.count("rail: answers after its caller died");
        }
    }
}
