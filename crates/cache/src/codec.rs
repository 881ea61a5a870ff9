//! What entries say, as bytes: fixed widths, big-endian, nothing optional that is not said. `docs/cache.md` has the table.
//!
//! What this module does not do: believe anything. Who reads an entry has opened its seal before, and what is decided on it
//! is checked against the chain.

use bursar_core::{
    AbortReason, Account, Amount, CurrencyIndex, CustomerId, CustomerState, Event, EventId, EventRef, EventStatus,
    Hash, Head, LinkedEvent, Proposed, RailId, ReasonText, RequestKey, RequestKind, TransactionEntry, TransactionId,
    TransactionKind, TransactionState, TransactionStatus,
};
use bursar_engine::store::ChainEntry;

/// Reads from the front of some bytes.
struct Bytes<'b>(&'b [u8]);

impl<'b> Bytes<'b> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn wide(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    fn amount(&mut self) -> Option<Amount> {
        self.take().map(|bytes| Amount::from_steps(i64::from_be_bytes(bytes)))
    }

    fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = usize::from(self.byte()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// What was read, if it was all there is.
    fn all<T>(self, read: T) -> Option<T> {
        self.0.is_empty().then_some(read)
    }
}

fn put_state(out: &mut Vec<u8>, state: &CustomerState) {
    out.push(u8::from(state.locked));
    out.push(state.accounts.len() as u8);
    for (currency, Account { available, held }) in state.accounts.iter() {
        out.push(currency.0);
        out.extend_from_slice(&available.steps().to_be_bytes());
        out.extend_from_slice(&held.steps().to_be_bytes());
    }
}

fn state(bytes: &mut Bytes<'_>) -> Option<CustomerState> {
    let mut state = CustomerState { locked: bytes.flag()?, ..CustomerState::default() };
    for _ in 0..bytes.byte()? {
        let currency = CurrencyIndex(bytes.byte()?);
        state.accounts.set(currency, Account { available: bytes.amount()?, held: bytes.amount()? });
    }
    Some(state)
}

const fn kind_code(kind: TransactionKind) -> u8 {
    match kind {
        TransactionKind::Deposit => 1,
        TransactionKind::Withdrawal => 2,
    }
}

fn kind(bytes: &mut Bytes<'_>) -> Option<TransactionKind> {
    match bytes.byte()? {
        1 => Some(TransactionKind::Deposit),
        2 => Some(TransactionKind::Withdrawal),
        _ => None,
    }
}

fn put_event(out: &mut Vec<u8>, event: &Event) {
    out.extend_from_slice(&event.customer.bits().to_be_bytes());
    out.extend_from_slice(&event.seq.to_be_bytes());
    out.extend_from_slice(&event.time_ms.to_be_bytes());
    out.push(event.kind.code());
    out.push(kind_code(event.transaction_kind));
    out.push(event.currency.0);
    out.push(event.rail.map_or(0, RailId::number));
    out.extend_from_slice(&event.amount.steps().to_be_bytes());
    out.push(u8::from(event.transaction.is_some()));
    out.extend_from_slice(&event.transaction.map_or(0, TransactionId::bits).to_be_bytes());
    out.extend_from_slice(&event.key.map_or(0, RequestKey::bits).to_be_bytes());
    put_state(out, &event.state);
}

fn event(bytes: &mut Bytes<'_>) -> Option<Event> {
    let (customer, seq, time_ms) = (CustomerId::new(bytes.wide()?), bytes.number()?, bytes.number()?);
    let (kind, transaction_kind) = (RequestKind::from_code(bytes.byte()?)?, kind(bytes)?);
    let (currency, rail, amount) = (CurrencyIndex(bytes.byte()?), RailId::new(bytes.byte()?), bytes.amount()?);
    let (has_transaction, transaction) = (bytes.flag()?, bytes.wide()?);
    let transaction = has_transaction.then(|| TransactionId::new(transaction));
    let key = RequestKey::from_bits(bytes.wide()?);
    let state = state(bytes)?;
    Some(Event { customer, seq, time_ms, kind, transaction, transaction_kind, amount, currency, rail, key, state })
}

fn put_linked(out: &mut Vec<u8>, linked: &LinkedEvent) {
    put_event(out, &linked.event);
    out.extend_from_slice(linked.hash.as_bytes());
}

fn linked(bytes: &mut Bytes<'_>) -> Option<LinkedEvent> {
    Some(LinkedEvent { event: event(bytes)?, hash: Hash(bytes.take()?) })
}

fn put_reference(out: &mut Vec<u8>, event: &EventRef) {
    out.extend_from_slice(&event.customer.bits().to_be_bytes());
    out.extend_from_slice(&event.seq.to_be_bytes());
    out.extend_from_slice(&event.id.bits().to_be_bytes());
}

fn reference(bytes: &mut Bytes<'_>) -> Option<EventRef> {
    let (customer, seq) = (CustomerId::new(bytes.wide()?), bytes.number()?);
    let bits = bytes.wide()?;
    let id = EventId::from_first_bits(bits);
    (id.bits() == bits).then_some(EventRef { customer, seq, id })
}

fn put_status(out: &mut Vec<u8>, status: &EventStatus) {
    let (code, text) = match status {
        EventStatus::Started => (0, ""),
        EventStatus::Aborted(reason) => (reason.code(), reason.text()),
        EventStatus::Done => (16, ""),
        EventStatus::DoneByHand(reason) => (17, reason.as_str()),
    };
    out.push(code);
    out.push(text.len() as u8);
    out.extend_from_slice(text.as_bytes());
}

/// How a closed event stands.
fn closed(bytes: &mut Bytes<'_>) -> Option<EventStatus> {
    let (code, text) = (bytes.byte()?, bytes.text()?);
    match code {
        16 => Some(EventStatus::Done),
        17 => Some(EventStatus::DoneByHand(ReasonText::new(text))),
        code => AbortReason::from_code(code, text).map(EventStatus::Aborted),
    }
}

fn put_transaction_state(out: &mut Vec<u8>, state: &TransactionState) {
    out.extend_from_slice(&state.customer.bits().to_be_bytes());
    out.push(kind_code(state.kind));
    out.extend_from_slice(&state.amount.steps().to_be_bytes());
    out.push(state.currency.0);
    out.push(match state.status {
        TransactionStatus::Posted => 1,
        TransactionStatus::Disputed => 2,
        TransactionStatus::ChargedBack => 3,
    });
}

fn transaction_state(bytes: &mut Bytes<'_>) -> Option<TransactionState> {
    let (customer, kind, amount) = (CustomerId::new(bytes.wide()?), kind(bytes)?, bytes.amount()?);
    let currency = CurrencyIndex(bytes.byte()?);
    let status = match bytes.byte()? {
        1 => TransactionStatus::Posted,
        2 => TransactionStatus::Disputed,
        3 => TransactionStatus::ChargedBack,
        _ => return None,
    };
    Some(TransactionState { customer, kind, amount, currency, status })
}

/// The head of a chain. Events that are open are part of it.
pub(crate) fn put_head(head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&head.seq.to_be_bytes());
    out.extend_from_slice(head.link.as_bytes());
    out.extend_from_slice(&head.time_ms.to_be_bytes());
    put_state(&mut out, &head.state);
    out.extend_from_slice(&(head.open.len() as u64).to_be_bytes());
    for open in &head.open {
        put_linked(&mut out, open);
    }
    out
}

pub(crate) fn head(body: &[u8]) -> Option<Head> {
    let bytes = &mut Bytes(body);
    let (seq, link, time_ms, state) = (bytes.number()?, Hash(bytes.take()?), bytes.number()?, state(bytes)?);
    let open = (0..bytes.number()?).map(|_| linked(bytes)).collect::<Option<Vec<_>>>()?;
    Bytes(bytes.0).all(Head { seq, link, time_ms, state, open })
}

/// An event that is closed, and how.
pub(crate) fn put_closed_event(entry: &ChainEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    put_linked(&mut out, &entry.linked);
    put_status(&mut out, &entry.status);
    out
}

pub(crate) fn closed_event(body: &[u8]) -> Option<ChainEntry> {
    let bytes = &mut Bytes(body);
    let entry = ChainEntry { linked: linked(bytes)?, status: closed(bytes)? };
    Bytes(bytes.0).all(entry)
}

/// How an event was closed, with its reference.
pub(crate) fn put_closed(event: &EventRef, status: &EventStatus) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put_reference(&mut out, event);
    put_status(&mut out, status);
    out
}

pub(crate) fn closed_status(body: &[u8]) -> Option<(EventRef, EventStatus)> {
    let bytes = &mut Bytes(body);
    let found = (reference(bytes)?, closed(bytes)?);
    Bytes(bytes.0).all(found)
}

/// The table's entry of a transaction.
pub(crate) fn put_entry(entry: &TransactionEntry) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.push(u8::from(entry.approved.is_some()) | u8::from(entry.proposed.is_some()) << 1);
    if let Some(approved) = &entry.approved {
        put_transaction_state(&mut out, approved);
    }
    if let Some(Proposed { state, event }) = &entry.proposed {
        put_transaction_state(&mut out, state);
        put_reference(&mut out, event);
    }
    out
}

pub(crate) fn entry(body: &[u8]) -> Option<TransactionEntry> {
    let bytes = &mut Bytes(body);
    let has = bytes.byte().filter(|has| *has <= 3)?;
    let mut entry = TransactionEntry::default();
    if has & 1 != 0 {
        entry.approved = Some(transaction_state(bytes)?);
    }
    if has & 2 != 0 {
        entry.proposed = Some(Proposed { state: transaction_state(bytes)?, event: reference(bytes)? });
    }
    Bytes(bytes.0).all(entry)
}

/// References to events.
pub(crate) fn put_references(events: &[EventRef]) -> Vec<u8> {
    let mut out = Vec::with_capacity(events.len() * 40);
    for event in events {
        put_reference(&mut out, event);
    }
    out
}

pub(crate) fn references(body: &[u8]) -> Option<Vec<EventRef>> {
    let bytes = &mut Bytes(body);
    let mut events = Vec::new();
    while !bytes.0.is_empty() {
        events.push(reference(bytes)?);
    }
    Some(events)
}

/// An event that proves its own id: with the link that it builds on, and without its hash.
pub(crate) fn put_maker(event: &Event, link: &Hash) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.extend_from_slice(link.as_bytes());
    put_event(&mut out, event);
    out
}

/// The event, with the hash that follows from its content.
pub(crate) fn maker(body: &[u8]) -> Option<LinkedEvent> {
    let bytes = &mut Bytes(body);
    let (link, event) = (Hash(bytes.take()?), event(bytes)?);
    Bytes(bytes.0).all(LinkedEvent::new(event, &link))
}

#[cfg(test)]
mod tests;
