//! Events: one change of a customer's state, its canonical encoding, and its link to the event before.
//!
//! The encoding here is what is hashed, and nothing else is: how a store lays events out on its medium is the
//! store's own business, as long as it gives back the same event. `docs/format.md`, "Event content", has the
//! same table byte for byte.

use crate::account::{Account, CustomerState};
use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use crate::hash::{Domain, EventId, Hash, Hasher, sha256};
use crate::id::{CustomerId, TransactionId};
use crate::key::RequestKey;
use crate::request::{Action, Movement, Reference, Request, RequestKind};
use crate::rules::Change;
use crate::transaction::{EntryId, EventRef, TransactionKind, TransactionState, TransactionStatus};
use alloc::string::String;
use core::fmt;

/// How long the text of an [`AbortReason`] may be at the most, in bytes.
pub const REASON_BYTES_MAX: usize = 255;

/// Names a rail in events, 1 to 255. Whoever opens the ledger says which rail that is; the number must keep
/// its meaning as long as events with it are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RailId(core::num::NonZeroU8);

impl RailId {
    /// `None` for 0, which stands for "no rail" in encodings.
    pub const fn new(number: u8) -> Option<Self> {
        match core::num::NonZeroU8::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0.get()
    }
}

/// One change of one customer's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whose chain it is in.
    pub customer: CustomerId,
    /// Its place in the chain; the first is 1.
    pub seq: u64,
    /// When it was decided, in milliseconds since 1970-01-01 UTC. Never less than the event before.
    pub time_ms: u64,
    /// What was asked for.
    pub kind: RequestKind,
    /// The transaction made or referred to; an unlock has none.
    pub transaction: Option<TransactionId>,
    /// Which way that transaction moved money; a deposit for an unlock.
    pub transaction_kind: TransactionKind,
    /// The amount of the transaction; zero for an unlock.
    pub amount: Amount,
    /// The currency whose account this event changes; for an unlock, the customer's first.
    pub currency: CurrencyIndex,
    /// The rail that must agree before the event is done.
    pub rail: Option<RailId>,
    /// The key that its request came with.
    pub key: Option<RequestKey>,
    /// The customer's state once the event is done.
    pub state: CustomerState,
}

/// The bytes of content that every event has; accounts in further currencies and a key follow.
const CONTENT_BYTES: usize = 77;
const HEAD_BYTES: usize = 8 + 32;

impl Event {
    /// The event that a change makes, at the given place of the customer's chain.
    pub fn new(customer: CustomerId, seq: u64, time_ms: u64, change: Change, rail: Option<RailId>) -> Self {
        let Change { kind, currency, amount, transaction, state } = change;
        let (transaction, transaction_kind) = match transaction {
            Some((id, state)) => (Some(id), state.kind),
            None => (None, TransactionKind::Deposit),
        };
        let key = None;
        Self { customer, seq, time_ms, kind, transaction, transaction_kind, amount, currency, rail, key, state }
    }

    /// The state that it gives the table's entry of its key: that of its transaction, or for an unlock one of nothing.
    /// What the entry says is in `proposed`: which event has the key.
    pub fn key_state(&self) -> TransactionState {
        self.transaction_state().unwrap_or(TransactionState {
            customer: self.customer,
            kind: self.transaction_kind,
            amount: self.amount,
            currency: self.currency,
            status: TransactionStatus::Posted,
        })
    }

    /// The table's entries that it proposes a state for, with that state: its transaction's, and its key's.
    pub fn entries(&self) -> impl Iterator<Item = (EntryId, TransactionState)> + use<> {
        let transaction = self.transaction.zip(self.transaction_state());
        let transaction = transaction.map(|(transaction, state)| (EntryId::Transaction(transaction), state));
        let key = self.key.map(|key| (EntryId::Key(key), self.key_state()));
        transaction.into_iter().chain(key)
    }

    /// The account this event changed, as it is afterwards.
    pub fn account(&self) -> Account {
        self.state.accounts.get(self.currency)
    }

    /// The state of its transaction once the event is done; an unlock has none.
    pub fn transaction_state(&self) -> Option<TransactionState> {
        self.transaction?;
        let status = match self.kind {
            RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Resolve | RequestKind::Unlock => {
                TransactionStatus::Posted
            }
            RequestKind::Dispute => TransactionStatus::Disputed,
            RequestKind::Chargeback => TransactionStatus::ChargedBack,
        };
        Some(TransactionState {
            customer: self.customer,
            kind: self.transaction_kind,
            amount: self.amount,
            currency: self.currency,
            status,
        })
    }

    /// The request that led to it, with amount and currency as the transaction has them. `None` where kind
    /// and transaction do not fit each other, as no event made by [`crate::rules::decide`] does.
    pub fn request(&self) -> Option<Request> {
        let movement = |transaction| Movement { transaction, amount: self.amount, currency: self.currency };
        let reference =
            |transaction| Reference { transaction, amount: Some(self.amount), currency: Some(self.currency) };
        let action = match (self.kind, self.transaction) {
            (RequestKind::Deposit, Some(id)) => Action::Deposit(movement(id)),
            (RequestKind::Withdrawal, Some(id)) => Action::Withdrawal(movement(id)),
            (RequestKind::Dispute, Some(id)) => Action::Dispute(reference(id)),
            (RequestKind::Resolve, Some(id)) => Action::Resolve(reference(id)),
            (RequestKind::Chargeback, Some(id)) => Action::Chargeback(reference(id)),
            (RequestKind::Unlock, None) => Action::Unlock,
            (RequestKind::Unlock, Some(_)) | (_, None) => return None,
        };
        Some(Request { customer: self.customer, action })
    }

    /// The event's hash on top of `link`, the link of the event before (or [`chain_start`]).
    pub fn hash(&self, link: &Hash) -> Hash {
        let mut bytes = [0; HEAD_BYTES + CONTENT_BYTES];
        bytes[..8].copy_from_slice(Domain::Event.tag());
        bytes[8..HEAD_BYTES].copy_from_slice(link.as_bytes());
        self.encode_content(&mut bytes[HEAD_BYTES..]);
        if self.state.accounts.len() <= 1 && self.key.is_none() {
            return sha256(&bytes);
        }
        let mut hasher = Hasher::new(Domain::Event);
        hasher.update(&bytes[8..]);
        for (currency, account) in self.other_accounts() {
            hasher.update(&[currency.0]);
            hasher.update(&account.available.steps().to_be_bytes());
            hasher.update(&account.held.steps().to_be_bytes());
        }
        if let Some(key) = self.key {
            hasher.update(&key.bits().to_be_bytes());
        }
        hasher.finish()
    }

    /// The accounts in other currencies than this event's own, in order of currency.
    pub fn other_accounts(&self) -> impl Iterator<Item = (CurrencyIndex, Account)> {
        self.state.accounts.iter().filter(|(currency, _)| *currency != self.currency)
    }

    fn encode_content(&self, out: &mut [u8]) {
        let account = self.account();
        let withdrawal = u8::from(self.transaction_kind == TransactionKind::Withdrawal);
        out[0..16].copy_from_slice(&self.customer.bits().to_be_bytes());
        out[16..24].copy_from_slice(&self.seq.to_be_bytes());
        out[24..32].copy_from_slice(&self.time_ms.to_be_bytes());
        out[32] = self.kind.code();
        out[33] = u8::from(self.state.locked) | withdrawal << 1 | u8::from(self.key.is_some()) << 2;
        out[34] = self.currency.0;
        out[35] = self.rail.map_or(0, RailId::number);
        out[36..52].copy_from_slice(&self.transaction.map_or(0, TransactionId::bits).to_be_bytes());
        out[52..60].copy_from_slice(&self.amount.steps().to_be_bytes());
        out[60..68].copy_from_slice(&account.available.steps().to_be_bytes());
        out[68..76].copy_from_slice(&account.held.steps().to_be_bytes());
        out[76] = self.other_accounts().count() as u8;
    }
}

/// The link that a customer's first event builds on: it fixes the ledger, its rules, and the customer.
pub fn chain_start(ledger_digest: &Hash, customer: CustomerId) -> Hash {
    let mut hasher = Hasher::new(Domain::Chain);
    hasher.update(ledger_digest.as_bytes());
    hasher.update(&customer.bits().to_be_bytes());
    hasher.finish()
}

/// The link that follows an aborted event: it fixes the event, that it was aborted, and why.
pub fn aborted_link(link: &Hash, hash: &Hash, reason: &AbortReason) -> Hash {
    let mut hasher = Hasher::new(Domain::Aborted);
    hasher.update(link.as_bytes());
    hasher.update(hash.as_bytes());
    hasher.update(&[reason.code()]);
    hasher.update(reason.text().as_bytes());
    hasher.finish()
}

/// The link that follows an event which an operator has settled as done: it fixes the event, and why.
pub fn done_by_hand_link(link: &Hash, hash: &Hash, reason: &ReasonText) -> Hash {
    let mut hasher = Hasher::new(Domain::DoneByHand);
    hasher.update(link.as_bytes());
    hasher.update(hash.as_bytes());
    hasher.update(reason.as_str().as_bytes());
    hasher.finish()
}

/// Why an event was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortReason {
    /// The rail refused, and said this.
    RailRefused(ReasonText),
    /// Another event had taken the transaction in the meantime.
    TransactionConflict,
    /// An operator settled it by hand, and said this.
    Operator(ReasonText),
}

impl AbortReason {
    /// The byte that stands for it in encodings.
    pub const fn code(&self) -> u8 {
        match self {
            Self::RailRefused(_) => 1,
            Self::TransactionConflict => 2,
            Self::Operator(_) => 3,
        }
    }

    /// What was said, if anything.
    pub fn text(&self) -> &str {
        match self {
            Self::RailRefused(text) | Self::Operator(text) => &text.0,
            Self::TransactionConflict => "",
        }
    }

    /// The reason with this code and text, if there is one.
    pub fn from_code(code: u8, text: &str) -> Option<Self> {
        match code {
            1 => Some(Self::RailRefused(ReasonText::new(text))),
            2 if text.is_empty() => Some(Self::TransactionConflict),
            3 => Some(Self::Operator(ReasonText::new(text))),
            _ => None,
        }
    }
}

impl fmt::Display for AbortReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RailRefused(text) => write!(f, "the rail refused: {}", text.0),
            Self::TransactionConflict => f.write_str("another event had taken the transaction"),
            Self::Operator(text) => write!(f, "settled by an operator: {}", text.0),
        }
    }
}

/// A reason in words, at most [`REASON_BYTES_MAX`] bytes; longer text is cut at a character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReasonText(String);

impl ReasonText {
    /// Takes the text, cut to its limit.
    pub fn new(text: &str) -> Self {
        Self(String::from(&text[..text.floor_char_boundary(REASON_BYTES_MAX)]))
    }

    /// Takes what an operator says: one line of 1 to [`REASON_BYTES_MAX`] bytes, without the blanks around it. `None` if
    /// it is not that; nothing is cut.
    pub fn of_operator(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_line = (1..=REASON_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control);
        is_line.then(|| Self(String::from(text)))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How an event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventStatus {
    /// Decided and written, but without effect yet.
    Started,
    /// In effect.
    Done,
    /// In effect: an operator settled it, and said this.
    DoneByHand(ReasonText),
    /// Never to be in effect.
    Aborted(AbortReason),
}

impl EventStatus {
    /// The name used in files, on the command line and in interfaces.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done | Self::DoneByHand(_) => "done",
            Self::Aborted(_) => "aborted",
        }
    }

    /// Whether the event is in effect, whoever closed it.
    pub const fn is_done(&self) -> bool {
        match self {
            Self::Done | Self::DoneByHand(_) => true,
            Self::Started | Self::Aborted(_) => false,
        }
    }

    /// Whether an operator closed the event, and what the operator said.
    pub fn by_hand(&self) -> Option<&str> {
        match self {
            Self::DoneByHand(reason) | Self::Aborted(AbortReason::Operator(reason)) => Some(reason.as_str()),
            Self::Started
            | Self::Done
            | Self::Aborted(AbortReason::RailRefused(_) | AbortReason::TransactionConflict) => None,
        }
    }
}

/// An event with its hash: what is appended to a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedEvent {
    /// The event.
    pub event: Event,
    /// Its hash on top of the link before it.
    pub hash: Hash,
}

impl LinkedEvent {
    /// Links an event to what comes before it.
    pub fn new(event: Event, link: &Hash) -> Self {
        let hash = event.hash(link);
        Self { event, hash }
    }

    /// The event's id.
    pub const fn id(&self) -> EventId {
        EventId::from_hash(&self.hash)
    }

    /// Where it is.
    pub const fn reference(&self) -> EventRef {
        EventRef { customer: self.event.customer, seq: self.event.seq, id: self.id() }
    }
}

/// What is appended to chains. Nothing is ever rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An event is decided; nothing has changed yet.
    Started(LinkedEvent),
    /// The event is in effect from here on.
    Done(EventRef),
    /// As `Done`, by an operator, who said this.
    DoneByHand(EventRef, ReasonText),
    /// The event will never be in effect.
    Aborted(EventRef, AbortReason),
}

impl Record {
    /// Whose chain it belongs to.
    pub const fn customer(&self) -> CustomerId {
        match self {
            Self::Started(linked) => linked.event.customer,
            Self::Done(event) | Self::DoneByHand(event, _) | Self::Aborted(event, _) => event.customer,
        }
    }

    /// The record that closes an event like this; `None` for an event that stays open.
    pub fn closing(event: EventRef, status: &EventStatus) -> Option<Self> {
        match status {
            EventStatus::Started => None,
            EventStatus::Done => Some(Self::Done(event)),
            EventStatus::DoneByHand(reason) => Some(Self::DoneByHand(event, reason.clone())),
            EventStatus::Aborted(reason) => Some(Self::Aborted(event, reason.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{LedgerConfig, Policy};
    use alloc::string::ToString;

    fn event() -> Event {
        let mut state = CustomerState::default();
        let account = Account { available: Amount::from_steps(15_000), held: Amount::from_steps(-2) };
        state.accounts.set(CurrencyIndex(0), account);
        Event {
            customer: CustomerId::new(7),
            seq: 1,
            time_ms: 1_800_000_000_000,
            kind: RequestKind::Deposit,
            transaction: Some(TransactionId::new(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8)),
            transaction_kind: TransactionKind::Deposit,
            amount: Amount::from_steps(15_000),
            currency: CurrencyIndex(0),
            rail: RailId::new(3),
            key: None,
            state,
        }
    }

    fn ledger() -> LedgerConfig {
        LedgerConfig { ledger: [9; 16], policy: Policy::default(), currencies: crate::Currencies::default() }
    }

    #[test]
    fn what_an_operator_says_is_one_line() {
        let longest = "é".repeat(REASON_BYTES_MAX / 2);
        for (text, taken) in
            [(" seen \n", "seen"), ("seen in the bank's book", "seen in the bank's book"), (&longest, &longest)]
        {
            assert_eq!(ReasonText::of_operator(text).unwrap().as_str(), taken);
        }
        for text in ["", " \t", "two\nlines", "a\tb", "bell\u{7}", &alloc::format!("{longest}xy")] {
            assert_eq!(ReasonText::of_operator(text), None, "{text:?}");
        }
    }

    /// Golden: these values are the format. A change here is a new version of the encoding.
    #[test]
    fn hashes_are_what_the_format_says() {
        let digest = ledger().digest();
        let start = chain_start(&digest, CustomerId::new(7));
        let linked = LinkedEvent::new(event(), &start);
        let aborted = aborted_link(&start, &linked.hash, &AbortReason::RailRefused(ReasonText::new("no")));
        let by_hand = done_by_hand_link(&start, &linked.hash, &ReasonText::new("no"));
        let mut two = event();
        two.state.accounts.set(CurrencyIndex(4), Account { available: Amount::MAX, held: Amount::ZERO });
        let key = RequestKey::from_bits(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10);
        let keyed = Event { key, ..event() };
        let two_keyed = Event { key, ..two.clone() };
        let expected = [
            ("ledger", digest, "27f4db782cf64b64"),
            ("chain", start, "27c3872e26448a85"),
            ("event", linked.hash, "386f6d25c0297160"),
            ("aborted", aborted, "5374012d61cd0596"),
            ("done by hand", by_hand, "6367ff42b4f0dff5"),
            ("two currencies", two.hash(&start), "c2fcbfa46f3a7802"),
            ("with a key", keyed.hash(&start), "ed3257245362c08d"),
            ("two currencies with a key", two_keyed.hash(&start), "84b427ff9a244478"),
        ];
        let got: alloc::vec::Vec<_> = expected.iter().map(|(n, h, _)| (*n, h.to_string())).collect();
        for ((name, hash), (_, _, prefix)) in got.iter().zip(&expected) {
            assert!(hash.starts_with(prefix), "{name}: {hash}");
        }
    }

    /// Every field is under the hash: changing any one changes it.
    #[test]
    fn every_field_is_hashed() {
        type Edit = fn(&mut Event);
        let edits: [(&str, Edit); 13] = [
            ("customer", |e| e.customer = CustomerId::new(8)),
            ("seq", |e| e.seq = 2),
            ("time", |e| e.time_ms += 1),
            ("kind", |e| e.kind = RequestKind::Withdrawal),
            ("transaction", |e| e.transaction = None),
            ("transaction kind", |e| e.transaction_kind = TransactionKind::Withdrawal),
            ("amount", |e| e.amount = Amount::ZERO),
            ("currency", |e| e.currency = CurrencyIndex(1)),
            ("rail", |e| e.rail = None),
            ("key", |e| e.key = RequestKey::from_bits(1)),
            ("locked", |e| e.state.locked = true),
            ("account", |e| e.state.accounts.set(CurrencyIndex(0), Account::default())),
            ("other account", |e| e.state.accounts.set(CurrencyIndex(1), Account::default())),
        ];
        let link = Hash([1; 32]);
        let original = event().hash(&link);
        assert_ne!(original, event().hash(&Hash([2; 32])), "link");
        for (name, edit) in edits {
            let mut edited = event();
            edit(&mut edited);
            assert_ne!(edited.hash(&link), original, "{name}");
        }
        let keyed = |bits| Event { key: RequestKey::from_bits(bits), ..event() }.hash(&link);
        assert_ne!(keyed(1), keyed(2), "another key");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let text = "é".repeat(200);
        assert_eq!(ReasonText::new(&text).as_str().len(), 254);
    }
}
