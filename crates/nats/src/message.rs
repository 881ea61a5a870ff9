//! What a message of a chain holds, and how it lies in bytes.
//!
//! A message has the records that one `append` call wrote for one customer, and what the chain's end says after them:
//! so the newest message of a subject is all that is needed to decide the customer's next request. `docs/nats.md`,
//! "Messages", has the same table byte by byte.
//!
//! What this module does not do: asking a cluster for anything ([`crate::net`]), or following a chain from message to
//! message ([`crate::follow`]).

use crate::bytes::{Reader, Unreadable, put_sum, put_varint};
use bursar_engine::core::{
    AbortReason, Account, Amount, CurrencyIndex, CustomerId, CustomerState, Event, EventId, EventRef, EventStatus,
    Hash, Head, LinkedEvent, RailId, ReasonText, Record, RequestKey, RequestKind, Sum, TransactionId, TransactionKind,
};
use bursar_engine::{CurrencyTotals, Totals};
use crc_fast::{CrcAlgorithm, checksum};

/// The first byte behind the checksum of every message that this crate writes.
pub(crate) const MAGIC: u8 = 0xB5;
/// The version of the encoding. A reader refuses every other.
pub(crate) const VERSION: u8 = 1;

/// What a message is about; the byte behind its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chain = 1,
    Ledger = 2,
    Source = 3,
    Order = 4,
}

const STARTED: u8 = 1;
const DONE: u8 = 2;
const ABORTED: u8 = 3;
const DONE_BY_HAND: u8 = 4;

const LOCKED: u8 = 1;
const OF_WITHDRAWAL: u8 = 1 << 1;
const HAS_TRANSACTION: u8 = 1 << 2;
const HAS_RAIL: u8 = 1 << 3;
const HAS_KEY: u8 = 1 << 4;
const KNOWN_FLAGS: u8 = LOCKED | OF_WITHDRAWAL | HAS_TRANSACTION | HAS_RAIL | HAS_KEY;

/// A message of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChainMessage {
    pub(crate) customer: CustomerId,
    /// Who wrote it: a random number of each store that is open.
    pub(crate) writer: u64,
    /// The writer's own count: a message that is sent again keeps its number.
    pub(crate) number: u64,
    /// The stream sequence of the chain's message before this one; 0 for the first.
    pub(crate) previous: u64,
    pub(crate) records: Vec<Record>,
    /// The chain's end after the records, without what is open.
    pub(crate) head: Head,
    /// The stream sequences of earlier messages that hold events which are still open.
    pub(crate) open_in: Vec<u64>,
    /// The sums over this chain alone.
    pub(crate) totals: Totals,
}

impl ChainMessage {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = begin(Kind::Chain, 160 + self.records.len() * 140);
        out.extend_from_slice(&self.customer.bits().to_be_bytes());
        out.extend_from_slice(&self.writer.to_be_bytes());
        out.extend_from_slice(&self.number.to_be_bytes());
        put_varint(&mut out, self.previous);
        put_varint(&mut out, self.records.len() as u64);
        self.records.iter().for_each(|record| put_record(&mut out, record));
        put_varint(&mut out, self.head.seq);
        put_varint(&mut out, self.head.time_ms);
        out.extend_from_slice(self.head.link.as_bytes());
        out.push(u8::from(self.head.state.locked));
        put_accounts(&mut out, &self.head.state);
        put_varint(&mut out, self.open_in.len() as u64);
        self.open_in.iter().for_each(|seq| put_varint(&mut out, *seq));
        put_totals(&mut out, &self.totals);
        end(out)
    }

    /// Reads a message, and checks all that can be checked of it by itself.
    pub(crate) fn decode(bytes: &[u8], customer: CustomerId) -> Result<Self, Unreadable> {
        let mut reader = body(bytes, Kind::Chain)?;
        if reader.u128()? != customer.bits() {
            return Err(Unreadable("it belongs to another customer"));
        }
        let (writer, number, previous) = (reader.u64()?, reader.u64()?, reader.varint()?);
        let count = reader.count()?;
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            records.push(record(&mut reader, customer)?);
        }
        let (seq, time_ms, link) = (reader.varint()?, reader.varint()?, Hash(reader.array()?));
        let state = CustomerState { locked: flag(&mut reader)?, ..accounts(&mut reader)? };
        let head = Head { seq, link, time_ms, state, open: Vec::new() };
        let open_in = (0..reader.count()?).map(|_| reader.varint()).collect::<Result<_, _>>()?;
        let totals = totals(&mut reader)?;
        reader.at_end()?;
        let message = Self { customer, writer, number, previous, records, head, open_in, totals };
        message.check()?;
        Ok(message)
    }

    /// The newest record that closes an event says what the head must be. The link behind one that is not plainly done
    /// is made of the link before it, which is not known here.
    fn check(&self) -> Result<(), Unreadable> {
        let Some((event, status)) = self.records.iter().rev().find_map(closed_by) else { return Ok(()) };
        let is_link = event.id == EventId::from_hash(&self.head.link);
        if event.seq == self.head.seq && (is_link || status != EventStatus::Done) {
            Ok(())
        } else {
            Err(Unreadable("its head is not what its records lead to"))
        }
    }

    /// The events that this message began.
    pub(crate) fn started(&self) -> impl DoubleEndedIterator<Item = &LinkedEvent> {
        self.records.iter().filter_map(|record| match record {
            Record::Started(linked) => Some(linked),
            Record::Done(_) | Record::DoneByHand(..) | Record::Aborted(..) => None,
        })
    }
}

/// The event that a record closes, and how it stands then.
pub(crate) fn closed_by(record: &Record) -> Option<(EventRef, EventStatus)> {
    match record {
        Record::Started(_) => None,
        Record::Done(event) => Some((*event, EventStatus::Done)),
        Record::DoneByHand(event, reason) => Some((*event, EventStatus::DoneByHand(reason.clone()))),
        Record::Aborted(event, reason) => Some((*event, EventStatus::Aborted(reason.clone()))),
    }
}

/// Begins a message; its checksum comes with [`end`].
pub(crate) fn begin(kind: Kind, capacity: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(capacity);
    out.extend_from_slice(&[0, 0, 0, 0, MAGIC, VERSION, kind as u8]);
    out
}

/// Puts the checksum in its place.
pub(crate) fn end(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c(&out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    out
}

/// What lies behind the beginning of a message whose checksum holds.
pub(crate) fn body(bytes: &[u8], kind: Kind) -> Result<Reader<'_>, Unreadable> {
    let mut reader = Reader::new(bytes);
    let crc = u32::from_be_bytes(reader.array()?);
    if bytes.get(4..).map(crc32c) != Some(crc) {
        return Err(Unreadable("its checksum does not hold"));
    }
    if reader.u8()? != MAGIC {
        return Err(Unreadable("it was not written by this program"));
    }
    if reader.u8()? != VERSION {
        return Err(Unreadable("it was written by a version of this program that is not known here"));
    }
    if reader.u8()? != kind as u8 {
        return Err(Unreadable("it is of another kind"));
    }
    Ok(reader)
}

/// Whether a message's checksum holds.
pub(crate) fn is_whole(bytes: &[u8]) -> bool {
    bytes.split_at_checked(4).is_some_and(|(crc, rest)| crc == crc32c(rest).to_be_bytes())
}

/// CRC-32C (Castagnoli), which processors have instructions for.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Started(linked) => {
            out.push(STARTED);
            put_event(out, linked);
        }
        Record::Done(event) => {
            out.push(DONE);
            put_reference(out, event);
        }
        Record::Aborted(event, reason) => {
            out.push(ABORTED);
            put_reference(out, event);
            out.push(reason.code());
            put_text(out, reason.text());
        }
        Record::DoneByHand(event, reason) => {
            out.push(DONE_BY_HAND);
            put_reference(out, event);
            put_text(out, reason.as_str());
        }
    }
}

/// A reason's text, whose type keeps it to 255 bytes.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

fn put_reference(out: &mut Vec<u8>, event: &EventRef) {
    put_varint(out, event.seq);
    out.extend_from_slice(&event.id.bits().to_be_bytes());
}

fn put_event(out: &mut Vec<u8>, linked: &LinkedEvent) {
    let LinkedEvent { event, hash } = linked;
    let mut flags = 0;
    flags |= if event.state.locked { LOCKED } else { 0 };
    flags |= if event.transaction_kind == TransactionKind::Withdrawal { OF_WITHDRAWAL } else { 0 };
    flags |= if event.transaction.is_some() { HAS_TRANSACTION } else { 0 };
    flags |= if event.rail.is_some() { HAS_RAIL } else { 0 };
    flags |= if event.key.is_some() { HAS_KEY } else { 0 };
    out.extend_from_slice(&[flags, event.kind.code(), event.currency.0]);
    put_varint(out, event.seq);
    put_varint(out, event.time_ms);
    if let Some(transaction) = event.transaction {
        out.extend_from_slice(&transaction.bits().to_be_bytes());
    }
    if let Some(rail) = event.rail {
        out.push(rail.number());
    }
    if let Some(key) = event.key {
        out.extend_from_slice(&key.bits().to_be_bytes());
    }
    out.extend_from_slice(&event.amount.steps().to_be_bytes());
    put_accounts(out, &event.state);
    out.extend_from_slice(hash.as_bytes());
}

fn put_accounts(out: &mut Vec<u8>, state: &CustomerState) {
    out.push(state.accounts.len() as u8);
    for (currency, account) in state.accounts.iter() {
        out.push(currency.0);
        out.extend_from_slice(&account.available.steps().to_be_bytes());
        out.extend_from_slice(&account.held.steps().to_be_bytes());
    }
}

fn put_totals(out: &mut Vec<u8>, totals: &Totals) {
    put_varint(out, totals.event_count);
    put_varint(out, totals.transaction_count);
    put_varint(out, totals.currencies().len() as u64);
    for sums in totals.currencies() {
        let CurrencyTotals { deposits, withdrawals, deposits_charged_back, .. } = sums;
        let CurrencyTotals { withdrawals_charged_back, provisional, held, total, .. } = sums;
        for sum in [deposits, withdrawals, deposits_charged_back, withdrawals_charged_back, provisional, held, total] {
            put_sum(out, sum.steps());
        }
    }
}

fn record(reader: &mut Reader<'_>, customer: CustomerId) -> Result<Record, Unreadable> {
    match reader.u8()? {
        STARTED => Ok(Record::Started(event(reader, customer)?)),
        DONE => Ok(Record::Done(reference(reader, customer)?)),
        ABORTED => {
            let event = reference(reader, customer)?;
            let code = reader.u8()?;
            let reason = AbortReason::from_code(code, text(reader)?).ok_or(Unreadable("a reason is not known"))?;
            Ok(Record::Aborted(event, reason))
        }
        DONE_BY_HAND => Ok(Record::DoneByHand(reference(reader, customer)?, ReasonText::new(text(reader)?))),
        _ => Err(Unreadable("a record is of a kind that is not known")),
    }
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Unreadable> {
    let length = usize::from(reader.u8()?);
    std::str::from_utf8(reader.take(length)?).map_err(|_| Unreadable("a reason is no text"))
}

fn reference(reader: &mut Reader<'_>, customer: CustomerId) -> Result<EventRef, Unreadable> {
    let seq = reader.varint()?;
    let bits = reader.u128()?;
    let id = EventId::from_first_bits(bits);
    if id.bits() == bits { Ok(EventRef { customer, seq, id }) } else { Err(Unreadable("an event's id is none")) }
}

fn event(reader: &mut Reader<'_>, customer: CustomerId) -> Result<LinkedEvent, Unreadable> {
    let flags = reader.u8()?;
    if flags & !KNOWN_FLAGS != 0 {
        return Err(Unreadable("an event has marks that are not known"));
    }
    let kind = RequestKind::from_code(reader.u8()?).ok_or(Unreadable("an event is of no kind"))?;
    let currency = CurrencyIndex(reader.u8()?);
    let (seq, time_ms) = (reader.varint()?, reader.varint()?);
    let transaction = if flags & HAS_TRANSACTION == 0 { None } else { Some(TransactionId::new(reader.u128()?)) };
    let rail = if flags & HAS_RAIL == 0 { None } else { RailId::new(reader.u8()?) };
    let key = if flags & HAS_KEY == 0 {
        None
    } else {
        Some(RequestKey::from_bits(reader.u128()?).ok_or(Unreadable("an event's key is none"))?)
    };
    let withdrawal = flags & OF_WITHDRAWAL != 0;
    let transaction_kind = if withdrawal { TransactionKind::Withdrawal } else { TransactionKind::Deposit };
    let amount = Amount::from_steps(reader.u64()?.cast_signed());
    let state = CustomerState { locked: flags & LOCKED != 0, ..accounts(reader)? };
    let event =
        Event { customer, seq, time_ms, kind, transaction, transaction_kind, amount, currency, rail, key, state };
    Ok(LinkedEvent { event, hash: Hash(reader.array()?) })
}

fn flag(reader: &mut Reader<'_>) -> Result<bool, Unreadable> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Unreadable("a mark is neither yes nor no")),
    }
}

fn accounts(reader: &mut Reader<'_>) -> Result<CustomerState, Unreadable> {
    let mut state = CustomerState::default();
    for _ in 0..reader.u8()? {
        let currency = CurrencyIndex(reader.u8()?);
        let available = Amount::from_steps(reader.u64()?.cast_signed());
        let held = Amount::from_steps(reader.u64()?.cast_signed());
        state.accounts.set(currency, Account { available, held });
    }
    Ok(state)
}

fn totals(reader: &mut Reader<'_>) -> Result<Totals, Unreadable> {
    let mut totals = Totals::default();
    totals.event_count = reader.varint()?;
    totals.transaction_count = reader.varint()?;
    totals.customer_count = 1;
    let mut currencies = Vec::new();
    for _ in 0..reader.count()? {
        let mut sum = || reader.sum().map(Sum::from_steps);
        currencies.push(CurrencyTotals {
            deposits: sum()?,
            withdrawals: sum()?,
            deposits_charged_back: sum()?,
            withdrawals_charged_back: sum()?,
            provisional: sum()?,
            held: sum()?,
            total: sum()?,
        });
    }
    totals.set_currencies(currencies);
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_engine::core::rules::{Decision, Known, decide};
    use bursar_engine::core::{Currencies, LedgerConfig, Policy, ReasonText, Request};

    /// Goes on behind [`message`]: what was begun there is settled by hand, and a dispute with a key is begun.
    fn settled() -> ChainMessage {
        let ChainMessage { customer, records, mut head, mut totals, .. } = message();
        let [Record::Started(first), _, Record::Started(open)] = &records[..] else {
            panic!("one event is done, and one is begun")
        };
        let status = EventStatus::DoneByHand(ReasonText::new("séen"));
        totals.begun(&open.event);
        totals.done(&open.event);
        head.take(open.clone(), &status);
        let request = Request::dispute(customer, TransactionId::new(1));
        let state = first.event.transaction_state();
        let known = Known { state: state.as_ref(), reserved: false };
        let config = LedgerConfig { ledger: [7; 16], policy: Policy::default(), currencies: Currencies::default() };
        let Ok(Decision::Change(change)) = decide(&config, &head.state, known, &request) else {
            panic!("what was deposited can be disputed")
        };
        let event = Event::new(customer, 3, 1_700_000_000_002, change, RailId::new(9));
        let event = Event { key: RequestKey::from_bits(0xabc << 100 | 7), ..event };
        let disputed = LinkedEvent::new(event, &head.link);
        totals.begun(&disputed.event);
        let records =
            Record::closing(open.reference(), &status).into_iter().chain([Record::Started(disputed)]).collect();
        ChainMessage { customer, writer: 1, number: 3, previous: 301, records, head, open_in: Vec::new(), totals }
    }

    /// A chain of two events: one done, one begun.
    fn message() -> ChainMessage {
        let config = LedgerConfig { ledger: [7; 16], policy: Policy::default(), currencies: Currencies::default() };
        let customer = CustomerId::new(5);
        let mut head = Head::start(&config.digest(), customer);
        let mut totals = Totals::default();
        let mut next = |transaction, rail| {
            let request = Request::deposit(customer, TransactionId::new(transaction), Amount::from_steps(300));
            let Ok(Decision::Change(change)) = decide(&config, &head.state, Known::default(), &request) else {
                panic!("a deposit is always possible")
            };
            let event = Event::new(customer, head.seq + 1, 1_700_000_000_000 + head.seq, change, rail);
            let linked = LinkedEvent::new(event, &head.link);
            if rail.is_none() {
                totals.begun(&linked.event);
                totals.done(&linked.event);
                head.done(&linked);
            }
            linked
        };
        let (first, second) = (next(1, None), next(1 << 100, RailId::new(3)));
        let records = vec![Record::Started(first.clone()), Record::Done(first.reference()), Record::Started(second)];
        ChainMessage { customer, writer: 1, number: 2, previous: 300, records, head, open_in: vec![77], totals }
    }

    #[test]
    fn a_message_reads_back_and_every_flip_is_noticed() {
        let mut aborted = message();
        aborted.records.truncate(1);
        let event = EventRef { customer: aborted.customer, seq: 1, id: aborted.head_id() };
        for reason in [
            AbortReason::TransactionConflict,
            AbortReason::RailRefused(ReasonText::new("né")),
            AbortReason::Operator(ReasonText::new("")),
        ] {
            aborted.records.push(Record::Aborted(event, reason));
        }
        for message in [message(), settled(), aborted] {
            let bytes = message.encode();
            assert_eq!(ChainMessage::decode(&bytes, message.customer), Ok(message.clone()));
            assert!(ChainMessage::decode(&bytes, CustomerId::new(6)).is_err());
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                assert!(ChainMessage::decode(&flipped, message.customer).is_err(), "byte {at}");
                assert!(ChainMessage::decode(&bytes[..at], message.customer).is_err(), "cut at {at}");
            }
        }
    }

    /// What is not known is an error, and never skipped.
    #[test]
    fn unknown_versions_kinds_and_marks_are_refused() {
        let bytes = message().encode();
        let first_record = 7 + 16 + 16 + 2 + 1;
        let places = [
            (4, "magic"),
            (5, "version"),
            (6, "kind"),
            (first_record, "record"),
            (first_record + 1, "marks of an event"),
        ];
        for (at, what) in places {
            let mut changed = bytes[4..].to_vec();
            changed[at - 4] = 0x70;
            let changed = end([vec![0; 4], changed].concat());
            assert!(is_whole(&changed));
            assert!(ChainMessage::decode(&changed, CustomerId::new(5)).is_err(), "{what}");
        }
    }

    /// A head that its own records contradict is not believed.
    #[test]
    fn a_head_must_be_what_the_records_lead_to() {
        let mut wrong = message();
        wrong.head.link.0[0] ^= 1;
        assert!(ChainMessage::decode(&wrong.encode(), wrong.customer).is_err());
        let mut wrong = message();
        wrong.head.seq = 2;
        assert!(ChainMessage::decode(&wrong.encode(), wrong.customer).is_err());
        let mut wrong = settled();
        wrong.head.seq = 3;
        assert!(ChainMessage::decode(&wrong.encode(), wrong.customer).is_err());
    }

    /// Golden: these bytes are the format. A change here is a new version of the encoding.
    #[test]
    fn a_message_is_what_the_format_says() {
        let hex = |message: ChainMessage| {
            let bytes = message.encode();
            bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
        };
        let golden: Vec<&str> = include_str!("message_golden.txt").lines().collect();
        assert_eq!([hex(message()), hex(settled())].to_vec(), golden);
    }

    impl ChainMessage {
        fn head_id(&self) -> EventId {
            EventId::from_hash(&self.head.link)
        }
    }
}
