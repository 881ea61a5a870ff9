//! Records: how an event, a closing and a source's mark lie in a frame's body.
//!
//! A record says all that is needed to give back the event as it was hashed, and no more: its id and the link
//! before it follow from its neighbours. Records of one customer form a list from the newest to the oldest by
//! their `previous` positions; those of one transaction by `transaction_previous`. Byte by byte in
//! `docs/format.md`, "Records".

use super::codec::{Decoder, Malformed, put_id, put_signed, put_varint};
use crate::store::{RowCounts, SourceId, SourceMark};
use bursar_core::{
    AbortReason, Account, Amount, CurrencyIndex, CustomerId, CustomerState, Event, EventId, EventRef, EventStatus,
    Hash, LinkedEvent, RailId, ReasonText, RequestKey, RequestKind, TransactionId, TransactionKind,
};

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// An event.
    Event(StoredEvent),
    /// The end of an open event.
    Closing(StoredClosing),
    /// How far a source got with this frame.
    Mark(SourceMark),
}

/// An event as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredEvent {
    pub(crate) linked: LinkedEvent,
    /// `Done` in the same frame; otherwise `Started`, and closed by a later record if at all.
    pub(crate) done: bool,
    /// The position of the customer's record before this one.
    pub(crate) previous: Option<u64>,
    /// The position of the record by which the event before took effect on the same transaction: that event, or
    /// the closing record of one that had been open.
    pub(crate) transaction_previous: Option<u64>,
}

/// The end of an open event as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredClosing {
    pub(crate) event: EventRef,
    /// How it ended; never `Started`.
    pub(crate) status: EventStatus,
    /// The position of the customer's record before this one.
    pub(crate) previous: u64,
    /// The position of the event closed.
    pub(crate) started: u64,
}

const TYPE_DONE_EVENT: u8 = 1;
const TYPE_STARTED_EVENT: u8 = 2;
const TYPE_DONE: u8 = 3;
const TYPE_ABORTED: u8 = 4;
const TYPE_MARK: u8 = 5;
const TYPE_DONE_BY_HAND: u8 = 6;

const LOCKED: u8 = 1 << 6;
const OF_WITHDRAWAL: u8 = 1 << 7;

const WIDE_CUSTOMER: u8 = 1;
const WIDE_TRANSACTION: u8 = 1 << 1;
const HAS_RAIL: u8 = 1 << 2;
const HAS_CURRENCY: u8 = 1 << 3;
const HAS_OTHERS: u8 = 1 << 4;
const HAS_PREVIOUS: u8 = 1 << 5;
const HAS_TRANSACTION_PREVIOUS: u8 = 1 << 6;
const HAS_KEY: u8 = 1 << 7;

/// Where a record lies: the frame's position in the journal and the record's offset in the frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) frame: u64,
    pub(crate) offset: u64,
}

impl Place {
    pub(crate) const fn position(self) -> u64 {
        self.frame + self.offset
    }

    fn back_to(self, position: u64) -> u64 {
        self.position() - position
    }
}

/// Appends an event. `time_base_ms` is the frame's time.
pub(crate) fn put_event(
    out: &mut Vec<u8>,
    place: Place,
    time_base_ms: u64,
    linked: &LinkedEvent,
    done: bool,
    previous: Option<u64>,
    transaction_previous: Option<u64>,
) {
    let LinkedEvent { event, hash } = linked;
    let record_type = if done { TYPE_DONE_EVENT } else { TYPE_STARTED_EVENT };
    let locked = if event.state.locked { LOCKED } else { 0 };
    let withdrawal = if event.transaction_kind == TransactionKind::Withdrawal { OF_WITHDRAWAL } else { 0 };
    out.push(record_type | event.kind.code() << 3 | locked | withdrawal);
    put_varint(out, place.offset);
    let flags_at = out.len();
    out.push(0);
    let mut flags = 0;
    if put_id(out, event.customer.bits()) {
        flags |= WIDE_CUSTOMER;
    }
    put_varint(out, event.seq);
    put_signed(out, event.time_ms.wrapping_sub(time_base_ms).cast_signed());
    if let Some(transaction) = event.transaction {
        if put_id(out, transaction.bits()) {
            flags |= WIDE_TRANSACTION;
        }
        put_signed(out, event.amount.steps());
    }
    put_account(out, event.account());
    if event.currency != CurrencyIndex(0) {
        flags |= HAS_CURRENCY;
        out.push(event.currency.0);
    }
    if let Some(rail) = event.rail {
        flags |= HAS_RAIL;
        out.push(rail.number());
    }
    if event.state.accounts.len() > 1 {
        flags |= HAS_OTHERS;
        out.push(event.other_accounts().count() as u8);
        for (currency, account) in event.other_accounts() {
            out.push(currency.0);
            put_account(out, account);
        }
    }
    if let Some(previous) = previous {
        flags |= HAS_PREVIOUS;
        put_varint(out, place.back_to(previous));
    }
    if let Some(previous) = transaction_previous {
        flags |= HAS_TRANSACTION_PREVIOUS;
        put_varint(out, place.back_to(previous));
    }
    if let Some(key) = event.key {
        flags |= HAS_KEY;
        out.extend_from_slice(&key.bits().to_be_bytes());
    }
    out.extend_from_slice(hash.as_bytes());
    out[flags_at] = flags;
}

fn put_account(out: &mut Vec<u8>, account: Account) {
    put_signed(out, account.available.steps());
    put_signed(out, account.held.steps());
}

/// Appends the end of an open event.
pub(crate) fn put_closing(
    out: &mut Vec<u8>,
    place: Place,
    event: &EventRef,
    status: &EventStatus,
    previous: u64,
    started: u64,
) {
    out.push(match status {
        EventStatus::Started | EventStatus::Done => TYPE_DONE,
        EventStatus::DoneByHand(_) => TYPE_DONE_BY_HAND,
        EventStatus::Aborted(_) => TYPE_ABORTED,
    });
    put_varint(out, place.offset);
    let flags_at = out.len();
    out.push(0);
    if put_id(out, event.customer.bits()) {
        out[flags_at] = WIDE_CUSTOMER;
    }
    put_varint(out, event.seq);
    out.extend_from_slice(&event.id.bits().to_be_bytes());
    put_varint(out, place.back_to(previous));
    put_varint(out, place.back_to(started));
    match status {
        EventStatus::Started | EventStatus::Done => {}
        EventStatus::DoneByHand(reason) => put_text(out, reason.as_str()),
        EventStatus::Aborted(reason) => {
            out.push(reason.code());
            put_text(out, reason.text());
        }
    }
}

/// Appends a reason's text, which is never longer than a byte can say.
fn put_text(out: &mut Vec<u8>, text: &str) {
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// Appends a source's mark.
pub(crate) fn put_mark(out: &mut Vec<u8>, place: Place, mark: &SourceMark) {
    out.push(TYPE_MARK);
    put_varint(out, place.offset);
    put_mark_content(out, mark);
}

/// The part of a mark that a checkpoint holds as well.
pub(crate) fn put_mark_content(out: &mut Vec<u8>, mark: &SourceMark) {
    out.push(u8::from(mark.finished));
    out.extend_from_slice(&mark.source.0);
    let RowCounts { applied, already_applied, rejected, unreadable } = mark.counts;
    for value in [mark.offset, mark.line_count, applied, already_applied, rejected, unreadable] {
        put_varint(out, value);
    }
    put_varint(out, mark.rejected_lines.len() as u64);
    let mut line_before = 0;
    for &(line, rejection) in &mark.rejected_lines {
        put_varint(out, line.saturating_sub(line_before));
        out.push(rejection);
        line_before = line;
    }
}

/// Reads the distance from a record to the beginning of its frame, given the record's first bytes.
pub(crate) fn frame_distance(bytes: &[u8]) -> Result<u64, Malformed> {
    Decoder::new(bytes, 1).varint()
}

/// The most bytes that [`frame_distance`] needs.
pub(crate) const DISTANCE_BYTES_MAX: usize = 11;

/// Reads the record at the decoder's offset, which counts from the beginning of the frame at `frame`.
pub(crate) fn take_record(decoder: &mut Decoder<'_>, frame: u64, time_base_ms: u64) -> Result<Stored, Malformed> {
    let start = decoder.offset();
    take_record_of(decoder, frame, time_base_ms, |_| true)?.ok_or(Malformed { offset: start })
}

/// As [`take_record`]; `None`: the record is of a customer who is not wanted, and was stepped over. Whether it is one
/// that somebody writes was not looked at then.
#[inline]
pub(crate) fn take_record_of(
    decoder: &mut Decoder<'_>,
    frame: u64,
    time_base_ms: u64,
    wanted: impl Fn(CustomerId) -> bool,
) -> Result<Option<Stored>, Malformed> {
    let start = decoder.offset();
    let place = Place { frame, offset: start as u64 };
    let first = decoder.byte()?;
    if decoder.varint()? != place.offset {
        return Err(Malformed { offset: start });
    }
    let record = match first & 0b111 {
        record_type @ (TYPE_DONE_EVENT | TYPE_STARTED_EVENT) => {
            take_event(decoder, place, time_base_ms, first, record_type == TYPE_DONE_EVENT, wanted)
        }
        TYPE_DONE | TYPE_ABORTED | TYPE_DONE_BY_HAND if first <= 0b111 => take_closing(decoder, place, first, wanted),
        TYPE_MARK if first == TYPE_MARK => take_mark_content(decoder).map(|mark| Some(Stored::Mark(mark))),
        _ => Err(Malformed { offset: start }),
    };
    record.map_err(|malformed| Malformed { offset: malformed.offset.max(start) })
}

#[inline]
fn take_event(
    decoder: &mut Decoder<'_>,
    place: Place,
    time_base_ms: u64,
    first: u8,
    done: bool,
    wanted: impl Fn(CustomerId) -> bool,
) -> Result<Option<Stored>, Malformed> {
    let Some(kind) = RequestKind::from_code(first >> 3 & 0b111) else { return decoder.malformed() };
    let flags = decoder.byte()?;
    let has = |flag| flags & flag != 0;
    let customer = CustomerId::new(decoder.id(has(WIDE_CUSTOMER))?);
    if !wanted(customer) {
        return skip_event(decoder, kind, flags).map(|()| None);
    }
    let seq = decoder.count()?;
    let time_ms = time_base_ms.wrapping_add(decoder.signed()?.cast_unsigned());
    let (transaction, amount) = if kind == RequestKind::Unlock {
        (None, Amount::ZERO)
    } else {
        let transaction = TransactionId::new(decoder.id(has(WIDE_TRANSACTION))?);
        (Some(transaction), Amount::from_steps(decoder.signed()?))
    };
    let account = take_account(decoder)?;
    let currency = CurrencyIndex(if has(HAS_CURRENCY) { decoder.byte()? } else { 0 });
    let rail = if has(HAS_RAIL) { RailId::new(decoder.byte()?) } else { None };
    let mut state = CustomerState { locked: first & LOCKED != 0, ..CustomerState::default() };
    state.accounts.set(currency, account);
    if has(HAS_OTHERS) {
        for _ in 0..decoder.byte()? {
            let other = CurrencyIndex(decoder.byte()?);
            state.accounts.set(other, take_account(decoder)?);
        }
    }
    let previous = if has(HAS_PREVIOUS) { Some(take_back(decoder, place)?) } else { None };
    let transaction_previous = if has(HAS_TRANSACTION_PREVIOUS) { Some(take_back(decoder, place)?) } else { None };
    let key = if has(HAS_KEY) { Some(take_key(decoder)?) } else { None };
    let hash = Hash(decoder.array()?);
    let transaction_kind =
        if first & OF_WITHDRAWAL != 0 { TransactionKind::Withdrawal } else { TransactionKind::Deposit };
    let event =
        Event { customer, seq, time_ms, kind, transaction, transaction_kind, amount, currency, rail, key, state };
    Ok(Some(Stored::Event(StoredEvent { linked: LinkedEvent { event, hash }, done, previous, transaction_previous })))
}

/// Steps over what follows the customer's id.
fn skip_event(decoder: &mut Decoder<'_>, kind: RequestKind, flags: u8) -> Result<(), Malformed> {
    let has = |flag| flags & flag != 0;
    // Number and time; transaction and amount; the account.
    match (kind == RequestKind::Unlock, has(WIDE_TRANSACTION)) {
        (true, _) => decoder.skip_varints(2 + 2)?,
        (false, false) => decoder.skip_varints(2 + 2 + 2)?,
        (false, true) => {
            decoder.skip_varints(2)?;
            decoder.take(16)?;
            decoder.skip_varints(1 + 2)?;
        }
    }
    decoder.take(usize::from(has(HAS_CURRENCY)) + usize::from(has(HAS_RAIL)))?;
    if has(HAS_OTHERS) {
        for _ in 0..decoder.byte()? {
            decoder.byte()?;
            decoder.skip_varints(2)?;
        }
    }
    decoder.skip_varints(u32::from(has(HAS_PREVIOUS)) + u32::from(has(HAS_TRANSACTION_PREVIOUS)))?;
    decoder.take(if has(HAS_KEY) { KEY_BYTES } else { 0 } + size_of::<Hash>())?;
    Ok(())
}

const KEY_BYTES: usize = 16;

fn take_key(decoder: &mut Decoder<'_>) -> Result<RequestKey, Malformed> {
    let bits = u128::from_be_bytes(decoder.array::<KEY_BYTES>()?);
    match RequestKey::from_bits(bits) {
        Some(key) => Ok(key),
        None => decoder.malformed(),
    }
}

fn take_account(decoder: &mut Decoder<'_>) -> Result<Account, Malformed> {
    let available = Amount::from_steps(decoder.signed()?);
    let held = Amount::from_steps(decoder.signed()?);
    Ok(Account { available, held })
}

fn take_back(decoder: &mut Decoder<'_>, place: Place) -> Result<u64, Malformed> {
    let back = decoder.varint()?;
    match place.position().checked_sub(back) {
        Some(position) if back > 0 => Ok(position),
        _ => decoder.malformed(),
    }
}

fn take_closing(
    decoder: &mut Decoder<'_>,
    place: Place,
    record_type: u8,
    wanted: impl Fn(CustomerId) -> bool,
) -> Result<Option<Stored>, Malformed> {
    let flags = decoder.byte()?;
    let customer = CustomerId::new(decoder.id(flags & WIDE_CUSTOMER != 0)?);
    let seq = decoder.count()?;
    let id = EventId::from_first_bits(u128::from_be_bytes(decoder.array()?));
    let previous = take_back(decoder, place)?;
    let started = take_back(decoder, place)?;
    let status = match record_type {
        TYPE_ABORTED => {
            let code = decoder.byte()?;
            let reason = take_text(decoder)?.and_then(|text| AbortReason::from_code(code, text));
            reason.map(EventStatus::Aborted)
        }
        TYPE_DONE_BY_HAND => take_text(decoder)?.map(|text| EventStatus::DoneByHand(ReasonText::new(text))),
        _ => Some(EventStatus::Done),
    };
    let Some(status) = status else { return decoder.malformed() };
    let closing = StoredClosing { event: EventRef { customer, seq, id }, status, previous, started };
    Ok(wanted(customer).then_some(Stored::Closing(closing)))
}

/// The counterpart of [`put_text`]; `None` for what is no text.
fn take_text<'b>(decoder: &mut Decoder<'b>) -> Result<Option<&'b str>, Malformed> {
    let length = decoder.byte()?;
    Ok(str::from_utf8(decoder.take(usize::from(length))?).ok())
}

/// The counterpart of [`put_mark_content`].
pub(crate) fn take_mark_content(decoder: &mut Decoder<'_>) -> Result<SourceMark, Malformed> {
    let finished = match decoder.byte()? {
        0 => false,
        1 => true,
        _ => return decoder.malformed(),
    };
    let source = SourceId(decoder.array()?);
    let (offset, line_count) = (decoder.count()?, decoder.count()?);
    let counts = RowCounts {
        applied: decoder.count()?,
        already_applied: decoder.count()?,
        rejected: decoder.count()?,
        unreadable: decoder.count()?,
    };
    let mut rejected_lines = Vec::new();
    let mut line = 0u64;
    for _ in 0..decoder.varint()? {
        let Some(next) = line.checked_add(decoder.varint()?) else { return decoder.malformed() };
        line = next;
        rejected_lines.push((line, decoder.byte()?));
    }
    Ok(SourceMark { source, offset, line_count, finished, counts, rejected_lines })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::codec::COUNT_MAX;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = u128> {
        prop_oneof![any::<u64>().prop_map(u128::from), any::<u128>()]
    }

    prop_compose! {
        fn event()(customer in id(), transaction in id(), seq in 0..=COUNT_MAX, time_ms: u64, kind in 0usize..6, withdrawal: bool,
                   amount: i64, accounts in proptest::collection::btree_map(0u8..64, (any::<i64>(), any::<i64>()), 1..5),
                   rail: u8, key in prop_oneof![Just(0u128), any::<u128>()], locked: bool, hash: [u8; 32]) -> LinkedEvent {
            let kind = RequestKind::ALL[kind];
            let unlock = kind == RequestKind::Unlock;
            let mut state = CustomerState { locked, ..CustomerState::default() };
            for (currency, (available, held)) in &accounts {
                let account = Account { available: Amount::from_steps(*available), held: Amount::from_steps(*held) };
                state.accounts.set(CurrencyIndex(*currency), account);
            }
            let event = Event {
                customer: CustomerId::new(customer), seq, time_ms, kind,
                transaction: (!unlock).then(|| TransactionId::new(transaction)),
                transaction_kind: if withdrawal { TransactionKind::Withdrawal } else { TransactionKind::Deposit },
                amount: if unlock { Amount::ZERO } else { Amount::from_steps(amount) },
                currency: CurrencyIndex(*accounts.keys().next().unwrap()), rail: RailId::new(rail),
                key: RequestKey::from_bits(key), state,
            };
            LinkedEvent { event, hash: Hash(hash) }
        }
    }

    proptest! {
        #[test]
        fn an_event_reads_back(linked in event(), base: u64, done: bool, frame in 1000u64..1 << 40, back in proptest::option::of(1u64..1000), back2 in proptest::option::of(1u64..1000)) {
            let place = Place { frame, offset: 80 };
            let mut out = vec![0; 80];
            let (previous, transaction_previous) = (back.map(|b| place.position() - b), back2.map(|b| place.position() - b));
            put_event(&mut out, place, base, &linked, done, previous, transaction_previous);
            prop_assert_eq!(frame_distance(&out[80..]), Ok(80));
            let mut skipping = Decoder::new(&out, 80);
            let customer = linked.event.customer;
            prop_assert_eq!(take_record_of(&mut skipping, frame, base, |id| id != customer), Ok(None));
            prop_assert!(skipping.is_at_end(), "stepped over to {} of {}", skipping.offset(), out.len());
            let got = take_record(&mut Decoder::new(&out, 80), frame, base);
            prop_assert_eq!(got, Ok(Stored::Event(StoredEvent { linked, done, previous, transaction_previous })));
            for end in 81..out.len() {
                prop_assert!(take_record(&mut Decoder::new(&out[..end], 80), frame, base).is_err());
                prop_assert!(take_record_of(&mut Decoder::new(&out[..end], 80), frame, base, |_| false).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>, frame: u64, base: u64) {
            let mut decoder = Decoder::new(&bytes, 0);
            while take_record(&mut decoder, frame >> 1, base).is_ok() {}
            let mut decoder = Decoder::new(&bytes, 0);
            while take_record_of(&mut decoder, frame >> 1, base, |_| false).is_ok() {}
        }
    }

    #[test]
    fn closings_and_marks_read_back() {
        let place = Place { frame: 5000, offset: 80 };
        let event = EventRef { customer: CustomerId::new(1 << 100), seq: 9, id: EventId::from_first_bits(77) };
        let statuses = [
            EventStatus::Done,
            EventStatus::DoneByHand(ReasonText::new("seen in the bank's ünits")),
            EventStatus::Aborted(AbortReason::TransactionConflict),
            EventStatus::Aborted(AbortReason::from_code(1, "no ünits").unwrap()),
        ];
        for status in statuses {
            let mut out = vec![0; 80];
            put_closing(&mut out, place, &event, &status, 5000, 4000);
            let got = take_record(&mut Decoder::new(&out, 80), place.frame, 0);
            let mut skipping = Decoder::new(&out, 80);
            assert_eq!(take_record_of(&mut skipping, place.frame, 0, |_| false), Ok(None));
            assert!(skipping.is_at_end());
            let expected = StoredClosing { event, status, previous: 5000, started: 4000 };
            assert_eq!(got, Ok(Stored::Closing(expected)));
        }
        let mark = SourceMark {
            source: SourceId([7; 32]),
            offset: 1 << 40,
            line_count: 12345,
            finished: true,
            counts: RowCounts { applied: 1, already_applied: 2, rejected: 3, unreadable: 4 },
            rejected_lines: vec![(5, 3), (900, 17)],
        };
        let mut out = vec![0; 80];
        put_mark(&mut out, place, &mark);
        assert_eq!(take_record(&mut Decoder::new(&out, 80), place.frame, 0), Ok(Stored::Mark(mark)));
    }

    /// The story: lines and counts near 2^64 were read, and whoever added them up panicked, or got something else.
    #[test]
    fn counts_that_cannot_be_added_up_are_malformed() {
        let read = |numbers: [u64; 6], lines: [u64; 2]| {
            let mut out = vec![0; 33];
            for number in numbers {
                put_varint(&mut out, number);
            }
            put_varint(&mut out, 2);
            for line in lines {
                put_varint(&mut out, line);
                out.push(0);
            }
            take_mark_content(&mut Decoder::new(&out, 0))
        };
        assert!(read([COUNT_MAX; 6], [u64::MAX, 0]).is_ok());
        assert!(read([1; 6], [u64::MAX, 1]).is_err());
        for place in 0..6 {
            let mut numbers = [1; 6];
            numbers[place] = COUNT_MAX + 1;
            assert!(read(numbers, [1, 1]).is_err(), "number {place}");
        }
    }
}
