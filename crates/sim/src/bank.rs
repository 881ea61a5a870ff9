//! Simulated rails with a book of their own: what they did for an event they did once, and they never forget it.
//!
//! A call may be answered, refused, or not be heard of; before or after the rail acted; twice; and late, when its
//! owner is gone and another one has recovered the event. What this module does not do: judge whether the book is
//! right; see [`crate::oracle`].

use crate::random::Random;
use crate::witness::Witness;
use bursar_engine::core::commit::{RailAnswer, RailCall};
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

/// All rails of a world, and the network to them.
#[derive(Debug)]
pub struct Bank {
    book: BTreeMap<EventId, Deed>,
    calls: Vec<(usize, RailCall)>,
    answers: Vec<(usize, EventId, RailAnswer)>,
    witness: Witness,
}

impl Bank {
    /// A bank that has done nothing yet.
    pub const fn new(witness: Witness) -> Self {
        Self { book: BTreeMap::new(), calls: Vec::new(), answers: Vec::new(), witness }
    }

    /// What was done, by event.
    pub const fn book(&self) -> &BTreeMap<EventId, Deed> {
        &self.book
    }

    /// An owner's calls are on their way.
    pub fn call(&mut self, owner: usize, calls: impl IntoIterator<Item = RailCall>) {
        self.calls.extend(calls.into_iter().map(|call| (owner, call)));
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
