//! What is known of a chain's end, and how records and messages move it on. No I/O.

use crate::message::{ChainMessage, closed_by};
use bursar_engine::Totals;
use bursar_engine::core::commit::Appended;
use bursar_engine::core::{CustomerId, EventRef, EventStatus, Hash, Head, LinkedEvent, Record};
use std::collections::{HashMap, VecDeque};

/// How many closed events of a chain are remembered with how they ended: those that a batch asks about.
const RECENT_MAX: usize = 64;
/// Stands for the sequence of a message that is not stored yet.
const NOT_STORED: u64 = u64::MAX;

/// The end of a chain as one message of its subject says it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) head: Head,
    /// For each open event, the stream sequence of the message that holds it.
    open_at: Vec<u64>,
    /// The stream sequence of the chain's newest message; 0 where there is none.
    pub(crate) seq: u64,
    pub(crate) totals: Totals,
    recent: VecDeque<(EventRef, EventStatus)>,
}

impl Known {
    /// Of a customer without a chain.
    pub(crate) fn nobody(ledger_digest: &Hash, customer: CustomerId) -> Self {
        let head = Head::start(ledger_digest, customer);
        Self { head, open_at: Vec::new(), seq: 0, totals: Totals::default(), recent: VecDeque::new() }
    }

    /// By the newest message of a chain, and the earlier ones that it names as holding open events.
    pub(crate) fn by(message: &ChainMessage, seq: u64, earlier: &[(u64, ChainMessage)]) -> Result<Self, &'static str> {
        let mut known = Self {
            head: message.head.clone(),
            open_at: Vec::new(),
            seq,
            totals: message.totals.clone(),
            recent: VecDeque::new(),
        };
        let messages = earlier.iter().map(|(seq, message)| (*seq, message)).chain([(seq, message)]);
        for (at, message) in messages {
            for linked in message.started().filter(|linked| linked.event.seq > known.head.seq) {
                let expected = known.newest_seq().checked_add(1);
                if expected != Some(linked.event.seq) {
                    return Err("an open event is missing");
                }
                if known.head.open.last().is_some_and(|before| linked.event.hash(&before.hash) != linked.hash) {
                    return Err("an open event's hash is not that of its content");
                }
                known.head.open.push(linked.clone());
                known.open_at.push(at);
            }
        }
        for record in &message.records {
            known.remember(record);
        }
        Ok(known)
    }

    /// The sequence number of the newest event, open ones included.
    pub(crate) fn newest_seq(&self) -> u64 {
        self.head.open.last().map_or(self.head.seq, |open| open.event.seq)
    }

    /// The time of the newest event, open ones included.
    pub(crate) fn newest_time_ms(&self) -> u64 {
        self.head.open.last().map_or(self.head.time_ms, |open| open.event.time_ms)
    }

    /// The messages before the next one that hold open events.
    fn open_in(&self) -> Vec<u64> {
        let mut open_in: Vec<u64> = self.open_at.iter().copied().filter(|at| *at != NOT_STORED).collect();
        open_in.dedup();
        open_in
    }

    fn remember(&mut self, record: &Record) {
        let Some(closed) = closed_by(record) else { return };
        self.recent.push_back(closed);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// How an event stands, if that can be told without reading the chain: `Err` if it cannot.
    pub(crate) fn status(&self, event: &EventRef) -> Result<Option<EventStatus>, ()> {
        if event.seq > self.head.seq {
            let is_open = self.head.open.iter().any(|open| open.reference() == *event);
            return Ok(is_open.then_some(EventStatus::Started));
        }
        let recent = self.recent.iter().find(|(closed, _)| closed.seq == event.seq);
        match recent {
            Some((closed, status)) => Ok((closed.id == event.id).then(|| status.clone())),
            None if event.seq == 0 => Ok(None),
            None => Err(()),
        }
    }

    /// Takes a record that fits; gives whether it did.
    fn take(&mut self, record: &Record) -> bool {
        match record {
            Record::Started(linked) => {
                if self.newest_seq().checked_add(1) != Some(linked.event.seq) {
                    return false;
                }
                self.totals.begun(&linked.event);
                self.head.open.push(linked.clone());
                self.open_at.push(NOT_STORED);
            }
            Record::Done(_) | Record::DoneByHand(..) | Record::Aborted(..) => {
                let Some((event, status)) = closed_by(record) else { return false };
                let Some(open) = self.head.open.first().filter(|open| open.reference() == event) else { return false };
                if status.is_done() {
                    self.totals.done(&open.event);
                } else {
                    self.totals.aborted();
                }
                self.head.close(&status);
                self.open_at.remove(0);
                self.remember(record);
            }
        }
        true
    }

    /// Moves on by the next message of the chain, and checks that it says what its records lead to. `None`: it does
    /// not build on what is known.
    pub(crate) fn follow(&mut self, message: &ChainMessage, seq: u64) -> Option<Result<(), &'static str>> {
        if message.previous != self.seq {
            return None;
        }
        let mut next = self.clone();
        for record in &message.records {
            if let Record::Started(linked) = record {
                let builds_on = next.head.open.last().map_or(next.head.link, |open| open.hash);
                // What was begun on an event that is aborted or settled by now builds on that event's own hash.
                let on_tentative = next.head.open.is_empty()
                    && next.recent.back().is_some_and(|(_, status)| *status != EventStatus::Done);
                if linked.event.hash(&builds_on) != linked.hash && !on_tentative {
                    return Some(Err("an event's hash is not that of its content behind the event before"));
                }
            }
            if !next.take(record) {
                return Some(Err("a record does not fit the chain"));
            }
        }
        next.stored(seq);
        let same = Head { open: Vec::new(), ..next.head.clone() } == message.head && next.totals == message.totals;
        if !same {
            return Some(Err("its head is not what its records lead to"));
        }
        *self = next;
        Some(Ok(()))
    }

    /// The message with the newest records is stored.
    fn stored(&mut self, seq: u64) {
        self.seq = seq;
        self.open_at.iter_mut().filter(|at| **at == NOT_STORED).for_each(|at| *at = seq);
    }
}

/// What one customer's records lead to: a message, and what each record hears once it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) results: Vec<(usize, Appended)>,
    pub(crate) records: Vec<Record>,
    pub(crate) number: u64,
    /// What was known when it was made.
    pub(crate) before_seq: u64,
    after: Known,
}

impl Draft {
    /// The message, if there is anything to be written.
    pub(crate) fn message(&self, customer: CustomerId, writer: u64) -> ChainMessage {
        ChainMessage {
            customer,
            writer,
            number: self.number,
            previous: self.before_seq,
            records: self.records.clone(),
            head: Head { open: Vec::new(), ..self.after.head.clone() },
            open_in: self.after.open_in(),
            totals: self.after.totals.clone(),
        }
    }

    /// What is known once it is stored.
    pub(crate) fn stored(self, seq: u64) -> (Known, Vec<(usize, Appended)>) {
        let mut after = self.after;
        after.stored(seq);
        (after, self.results)
    }

    /// Whether every record came out as it was asked.
    pub(crate) fn is_plain(&self) -> bool {
        self.results.iter().all(|(_, result)| *result == Appended::Yes)
    }
}

/// The records of one customer in one call, on their way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) customer: CustomerId,
    /// With their places in the call.
    pub(crate) records: Vec<(usize, Record)>,
    /// How many of them are done with.
    pub(crate) done: usize,
    /// A record has come out otherwise than it was asked.
    pub(crate) failed: bool,
    pub(crate) draft: Option<Draft>,
}

/// What a plan needs to be told first.
#[derive(Debug)]
pub(crate) struct Ask(pub(crate) EventRef);

impl Job {
    /// Plans the next message: takes records on top of what is known, as many as fit. `statuses` are how closed events
    /// stand that were asked for.
    pub(crate) fn plan(
        &self,
        known: &Known,
        statuses: &HashMap<EventRef, Option<EventStatus>>,
        bytes_max: usize,
        number: u64,
    ) -> Result<Draft, Ask> {
        let mut after = known.clone();
        let (mut results, mut records) = (Vec::new(), Vec::new());
        let (mut failed, mut bytes) = (self.failed, 0);
        for (place, record) in &self.records[self.done..] {
            let rests_on_failed = failed && !matches!(record, Record::Aborted(..));
            let result = if rests_on_failed {
                Appended::Conflict
            } else if after.take(record) {
                records.push(record.clone());
                bytes += bytes_of(record);
                Appended::Yes
            } else {
                Self::refusal(&after, record, statuses)?
            };
            failed |= !result.is_as_wanted(record);
            results.push((*place, result));
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(Draft { results, records, number, before_seq: known.seq, after })
    }

    fn refusal(
        known: &Known,
        record: &Record,
        statuses: &HashMap<EventRef, Option<EventStatus>>,
    ) -> Result<Appended, Ask> {
        let Some((event, _)) = closed_by(record) else { return Ok(Appended::Conflict) };
        let status = match known.status(&event) {
            Ok(status) => status,
            Err(()) => statuses.get(&event).cloned().ok_or(Ask(event))?,
        };
        Ok(status.and_then(|status| Appended::closed_already(&status)).unwrap_or(Appended::Conflict))
    }

    /// Notes what became of the records of a draft.
    pub(crate) fn conclude(&mut self, results: &[(usize, Appended)]) {
        for (_, result) in results {
            let (_, record) = &self.records[self.done];
            self.failed |= !result.is_as_wanted(record);
            self.done += 1;
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.done >= self.records.len()
    }
}

/// About how many bytes a record takes.
fn bytes_of(record: &Record) -> usize {
    match record {
        Record::Started(LinkedEvent { event, .. }) => 106 + 17 * event.state.accounts.len(),
        Record::Done(_) => 22,
        Record::DoneByHand(_, reason) => 25 + reason.as_str().len(),
        Record::Aborted(_, reason) => 25 + reason.text().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_engine::core::rules::{Decision, Known as OfTransaction, decide};
    use bursar_engine::core::{
        AbortReason, Amount, Currencies, Event, LedgerConfig, Policy, ReasonText, Request, RequestKey, TransactionId,
    };

    const CUSTOMER: CustomerId = CustomerId::new(5);

    fn config() -> LedgerConfig {
        LedgerConfig { ledger: [7; 16], policy: Policy::default(), currencies: Currencies::default() }
    }

    /// A deposit at the next place, on top of `link`.
    fn deposit(known: &Known, seq: u64, link: &Hash) -> LinkedEvent {
        let request = Request::deposit(CUSTOMER, TransactionId::new(u128::from(seq)), Amount::from_steps(300));
        let Ok(Decision::Change(change)) = decide(&config(), &known.head.state, OfTransaction::default(), &request)
        else {
            panic!("a deposit is always possible")
        };
        let event = Event::new(CUSTOMER, seq, 1_700_000_000_000 + seq, change, None);
        LinkedEvent::new(Event { key: RequestKey::from_bits(u128::from(seq)), ..event }, link)
    }

    fn plan(known: &Known, records: &[Record]) -> Draft {
        let records = records.iter().cloned().enumerate().collect();
        let job = Job { customer: CUSTOMER, records, done: 0, failed: false, draft: None };
        job.plan(known, &HashMap::new(), usize::MAX, 1).unwrap()
    }

    /// Writes records as one store, and follows the message as another; gives what each record heard.
    fn write(writer: &mut Known, reader: &mut Known, records: &[Record]) -> Vec<Appended> {
        let draft = plan(writer, records);
        let became = draft.results.iter().map(|(_, result)| result.clone()).collect();
        if draft.records.is_empty() {
            return became;
        }
        let message = ChainMessage::decode(&draft.message(CUSTOMER, 1).encode(), CUSTOMER).unwrap();
        let seq = writer.seq + 1;
        *writer = draft.stored(seq).0;
        assert_eq!(reader.follow(&message, seq), Some(Ok(())));
        assert_eq!((&reader.head, &reader.totals), (&writer.head, &writer.totals));
        became
    }

    #[test]
    fn what_is_settled_by_hand_is_in_effect_and_keeps_its_reason() {
        let mut writer = Known::nobody(&config().digest(), CUSTOMER);
        let mut reader = writer.clone();
        let first = deposit(&writer, 1, &writer.head.link);
        let begun = [Record::Started(first.clone())];
        assert_eq!(write(&mut writer, &mut reader, &begun), [Appended::Yes]);
        let before = writer.clone();
        let status = EventStatus::DoneByHand(ReasonText::new("seen"));
        let closing = Record::closing(first.reference(), &status).unwrap();
        assert_eq!(write(&mut writer, &mut reader, std::slice::from_ref(&closing)), [Appended::Yes]);
        let mut expected = Head { open: Vec::new(), ..before.head.clone() };
        expected.take(first.clone(), &status);
        assert_eq!(reader.head, expected);
        assert_ne!(reader.head.link, first.hash);
        let mut totals = before.totals.clone();
        totals.done(&first.event);
        assert_eq!(reader.totals, totals);
        assert_eq!(reader.status(&first.reference()), Ok(Some(status.clone())));
        // Who comes later hears what was decided, and what rests on it is not taken.
        let second = deposit(&writer, 2, &first.hash);
        let late = [Record::Done(first.reference()), Record::Started(second.clone())];
        let expected = [Appended::AlreadyDoneByHand(ReasonText::new("seen")), Appended::Conflict];
        assert_eq!(write(&mut writer, &mut reader, &late), expected);
        let again = [closing, Record::Started(deposit(&writer, 2, &writer.head.link))];
        let expected = [Appended::AlreadyDoneByHand(ReasonText::new("seen")), Appended::Yes];
        assert_eq!(plan(&writer, &again).results.into_iter().map(|(_, result)| result).collect::<Vec<_>>(), expected);
        // What was begun on its own hash by itself is taken, and only to be aborted.
        let reason = AbortReason::TransactionConflict;
        let run = [Record::Started(second.clone()), Record::Aborted(second.reference(), reason)];
        assert_eq!(write(&mut writer, &mut reader, &run), [Appended::Yes, Appended::Yes]);
    }

    #[test]
    fn another_reason_for_the_same_head_is_noticed() {
        let mut writer = Known::nobody(&config().digest(), CUSTOMER);
        let mut reader = writer.clone();
        let first = deposit(&writer, 1, &writer.head.link);
        write(&mut writer, &mut reader, &[Record::Started(first.clone())]);
        let by_hand = |reason| Record::DoneByHand(first.reference(), ReasonText::new(reason));
        let message = plan(&writer, &[by_hand("seen")]).message(CUSTOMER, 1);
        for record in [by_hand("seem"), Record::Done(first.reference())] {
            let changed = ChainMessage { records: vec![record], ..message.clone() };
            assert!(matches!(reader.clone().follow(&changed, 2), Some(Err(_))));
        }
        assert_eq!(reader.follow(&message, 2), Some(Ok(())));
    }
}
