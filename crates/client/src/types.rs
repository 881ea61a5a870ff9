//! What is sent, and what is answered.
//!
//! Reading is strict where money is concerned: amounts are exact, an account must add up, an event's id must be that of
//! its hash. It is lenient to fields that a newer server adds.

use crate::figure::{Figure, TimeMs};
use bursar_core::{CustomerId, EventId, Hash, Id, RequestKind, TransactionId};
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Something that stands in a JSON string.
pub(crate) trait FromText: Sized {
    fn from_text(text: &str) -> Option<Self>;
}

impl FromText for CustomerId {
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text.as_bytes()).ok()
    }
}

impl FromText for TransactionId {
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text.as_bytes()).ok()
    }
}

impl FromText for Hash {
    fn from_text(text: &str) -> Option<Self> {
        Self::parse(text.as_bytes())
    }
}

impl FromText for EventId {
    fn from_text(text: &str) -> Option<Self> {
        let id = Self::from_first_bits(Id::parse(text.as_bytes()).ok()?.bits());
        (id.to_string() == text).then_some(id)
    }
}

impl FromText for RequestKind {
    fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == text)
    }
}

impl FromText for Figure {
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl FromText for TimeMs {
    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

fn text<'de, T: FromText, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let text = Cow::<'de, str>::deserialize(deserializer)?;
    T::from_text(&text).ok_or_else(|| D::Error::custom(format_args!("'{text}' is not what should stand here")))
}

fn maybe_text<'de, T: FromText, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    text(deserializer).map(Some)
}

fn show<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, reason = "serde calls it like this")]
fn show_maybe<T: fmt::Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// A request, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Submission {
    #[serde(serialize_with = "kind_name")]
    kind: RequestKind,
    #[serde(serialize_with = "show")]
    customer: CustomerId,
    #[serde(serialize_with = "show_maybe", skip_serializing_if = "Option::is_none")]
    transaction: Option<TransactionId>,
    #[serde(serialize_with = "show_maybe", skip_serializing_if = "Option::is_none")]
    amount: Option<Figure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_seq: Option<u64>,
    #[serde(serialize_with = "show_maybe", skip_serializing_if = "Option::is_none")]
    minimum_available: Option<Figure>,
    #[serde(skip)]
    idempotency_key: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it like this")]
fn kind_name<S: Serializer>(kind: &RequestKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}

impl Submission {
    fn new(kind: RequestKind, customer: CustomerId, transaction: Option<TransactionId>) -> Self {
        Self {
            kind,
            customer,
            transaction,
            amount: None,
            currency: None,
            expected_seq: None,
            minimum_available: None,
            idempotency_key: None,
        }
    }

    /// Money comes in.
    pub fn deposit(customer: CustomerId, transaction: TransactionId, amount: Figure) -> Self {
        Self::new(RequestKind::Deposit, customer, Some(transaction)).with_amount(amount)
    }

    /// Money goes out.
    pub fn withdrawal(customer: CustomerId, transaction: TransactionId, amount: Figure) -> Self {
        Self::new(RequestKind::Withdrawal, customer, Some(transaction)).with_amount(amount)
    }

    /// The customer disputes a transaction.
    pub fn dispute(customer: CustomerId, transaction: TransactionId) -> Self {
        Self::new(RequestKind::Dispute, customer, Some(transaction))
    }

    /// The dispute ends in favour of the transaction.
    pub fn resolve(customer: CustomerId, transaction: TransactionId) -> Self {
        Self::new(RequestKind::Resolve, customer, Some(transaction))
    }

    /// The dispute ends against the transaction, and the customer is locked.
    pub fn chargeback(customer: CustomerId, transaction: TransactionId) -> Self {
        Self::new(RequestKind::Chargeback, customer, Some(transaction))
    }

    /// An operator unlocks a customer.
    pub fn unlock(customer: CustomerId) -> Self {
        Self::new(RequestKind::Unlock, customer, None)
    }

    /// With an amount; that of a dispute and what follows it is compared with the transaction's.
    #[must_use]
    pub fn with_amount(mut self, amount: Figure) -> Self {
        self.amount = Some(amount);
        self
    }

    /// In this currency; it may be left out where the ledger has only one.
    #[must_use]
    pub fn in_currency(mut self, code: &str) -> Self {
        self.currency = Some(code.to_owned());
        self
    }

    /// Only if the customer's newest event, aborted ones included, has this sequence number; 0: there is none yet.
    #[must_use]
    pub fn with_expected_seq(mut self, seq: u64) -> Self {
        self.expected_seq = Some(seq);
        self
    }

    /// Only if at least so much is available afterwards, in the currency of the request. Not for an unlock.
    #[must_use]
    pub fn with_minimum_available(mut self, minimum: Figure) -> Self {
        self.minimum_available = Some(minimum);
        self
    }

    /// With a header `Idempotency-Key`: sent again with the same key, it takes effect once. Choose a new one, such as a
    /// random UUID, for each thing that is to happen. A deposit or withdrawal needs none: its transaction id is one.
    #[must_use]
    pub fn with_idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.to_owned());
        self
    }

    /// What is asked for.
    pub const fn kind(&self) -> RequestKind {
        self.kind
    }

    /// Its idempotency key.
    pub fn idempotency_key(&self) -> Option<&str> {
        self.idempotency_key.as_deref()
    }

    /// Whether it takes effect once, however often it is sent.
    pub const fn is_idempotent(&self) -> bool {
        match self.kind {
            RequestKind::Deposit | RequestKind::Withdrawal => true,
            RequestKind::Dispute | RequestKind::Resolve | RequestKind::Chargeback | RequestKind::Unlock => {
                self.idempotency_key.is_some()
            }
        }
    }
}

/// Proof of an event in effect: its hash fixes the whole history of the chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawReceipt")]
pub struct Receipt {
    /// Whose chain.
    pub customer: CustomerId,
    /// The event's place in it; the first is 1.
    pub seq: u64,
    /// The event's id.
    pub event: EventId,
    /// The event's hash: the chain's head hash right after it.
    pub hash: Hash,
    /// When it was decided.
    pub time: TimeMs,
    /// The account after the event.
    pub account: Account,
    /// Whether the customer is locked after the event.
    pub locked: bool,
}

#[derive(Deserialize)]
struct RawReceipt {
    #[serde(deserialize_with = "text")]
    customer: CustomerId,
    seq: u64,
    #[serde(deserialize_with = "text")]
    event: EventId,
    #[serde(deserialize_with = "text")]
    hash: Hash,
    #[serde(deserialize_with = "text")]
    time: TimeMs,
    #[serde(flatten)]
    account: Account,
    locked: bool,
}

const WRONG_ID: &str = "an event's id is not that of its hash";

impl TryFrom<RawReceipt> for Receipt {
    type Error = &'static str;

    fn try_from(raw: RawReceipt) -> Result<Self, Self::Error> {
        let RawReceipt { customer, seq, event, hash, time, account, locked } = raw;
        if EventId::from_hash(&hash) != event {
            return Err(WRONG_ID);
        }
        Ok(Self { customer, seq, event, hash, time, account, locked })
    }
}

/// What became of a request that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect, as the event of the receipt.
    Applied(Receipt),
    /// It took effect before; nothing moved now. The receipt is that of then.
    AlreadyApplied(Receipt),
}

impl Outcome {
    /// The receipt.
    pub const fn receipt(&self) -> &Receipt {
        match self {
            Self::Applied(receipt) | Self::AlreadyApplied(receipt) => receipt,
        }
    }
}

/// What would come of a request, if nothing happened meanwhile. Not a promise, and no proof of anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It would take effect.
    WouldApply(Would),
    /// It took effect before. The receipt is that of then.
    AlreadyApplied(Receipt),
}

/// The event that would be made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Would {
    /// Whose chain.
    #[serde(deserialize_with = "text")]
    pub customer: CustomerId,
    /// The event's place in it.
    pub seq: u64,
    /// The account after the event.
    #[serde(flatten)]
    pub account: Account,
    /// Whether the customer is locked after it.
    pub locked: bool,
}

#[derive(Deserialize)]
pub(crate) struct RawOutlook {
    outcome: String,
    receipt: Option<Receipt>,
    would: Option<Would>,
}

impl RawOutlook {
    pub(crate) fn into_outlook(self) -> Option<Outlook> {
        match (self.outcome.as_str(), self.receipt, self.would) {
            ("would_apply", None, Some(would)) => Some(Outlook::WouldApply(would)),
            ("already_applied", Some(receipt), None) => Some(Outlook::AlreadyApplied(receipt)),
            (_, _, _) => None,
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct RawOutcome {
    outcome: String,
    receipt: Receipt,
}

impl RawOutcome {
    pub(crate) fn into_outcome(self) -> Option<Outcome> {
        match self.outcome.as_str() {
            "applied" => Some(Outcome::Applied(self.receipt)),
            "already_applied" => Some(Outcome::AlreadyApplied(self.receipt)),
            _ => None,
        }
    }
}

/// An account: the total is what is available and what is held, and that is checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawAccount")]
pub struct Account {
    /// The currency's code; `None` in a ledger that names none.
    pub currency: Option<String>,
    /// What can be taken out.
    pub available: Figure,
    /// What is held by disputes.
    pub held: Figure,
    /// Both.
    pub total: Figure,
}

#[derive(Deserialize)]
struct RawAccount {
    currency: Option<String>,
    #[serde(deserialize_with = "text")]
    available: Figure,
    #[serde(deserialize_with = "text")]
    held: Figure,
    #[serde(deserialize_with = "text")]
    total: Figure,
}

impl TryFrom<RawAccount> for Account {
    type Error = &'static str;

    fn try_from(raw: RawAccount) -> Result<Self, Self::Error> {
        let RawAccount { currency, available, held, total } = raw;
        let adds_up = available.steps().checked_add(held.steps()) == Some(total.steps());
        if !adds_up || available.decimals() != held.decimals() || held.decimals() != total.decimals() {
            return Err("an account does not add up");
        }
        Ok(Self { currency, available, held, total })
    }
}

/// A customer with its accounts and the head of its chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Customer {
    /// Who.
    #[serde(deserialize_with = "text")]
    pub customer: CustomerId,
    /// Locked by a chargeback, until an operator unlocks.
    pub locked: bool,
    /// The sequence number of the newest event that is closed.
    pub seq: u64,
    /// The head hash: it fixes the whole chain up to that event.
    #[serde(deserialize_with = "text")]
    pub head: Hash,
    /// When the newest event was.
    #[serde(deserialize_with = "text")]
    pub time: TimeMs,
    /// In the order of the ledger's currencies.
    pub accounts: Vec<Account>,
    /// Events that wait for their rail.
    pub open_events: u64,
}

/// A moment of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After the event with this sequence number, at least 1; behind the newest one, as it is.
    Seq(u64),
    /// After the last event that is not later.
    Time(TimeMs),
}

/// A customer at a moment of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerThen {
    /// As it was.
    Was(Customer),
    /// Nothing was accepted for it by then.
    NoAccount,
    /// Nothing was ever accepted for it.
    Unknown,
}

/// An event that waits for its rail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Pending {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// How it stands about it and its rail.
    pub waits: Waits,
}

/// How it stands about an event and its rail.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Waits {
    /// What the rail is called in the server's settings.
    pub rail: Option<String>,
    /// Whether the rail is in the server's settings. If not, nobody asks it.
    pub configured: bool,
    /// Whether the rail is being asked.
    pub asking: Asking,
    /// How many times the rail was called since the server was started.
    pub calls: u32,
    /// The last answer that said nothing certain.
    pub last_answer: Option<LastAnswer>,
    /// When the rail is called next, if it is not being called.
    #[serde(default, deserialize_with = "maybe_text")]
    pub next_call: Option<TimeMs>,
    /// Until when the rail is called of itself.
    #[serde(default, deserialize_with = "maybe_text")]
    pub deadline: Option<TimeMs>,
    /// It is past its deadline: an operator has to settle it.
    pub past_deadline: bool,
    /// How many requests of the customer wait behind it.
    pub requests_behind: u64,
}

/// Whether a rail is being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asking {
    /// A call is under way.
    UnderWay,
    /// It will be called at a time that is known.
    Scheduled,
    /// It is not called any more.
    Stopped,
}

impl Asking {
    /// Its name, as the interface has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Scheduled => "scheduled",
            Self::Stopped => "stopped",
        }
    }
}

/// An answer of a rail that said nothing certain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LastAnswer {
    /// When it came.
    #[serde(deserialize_with = "text")]
    pub time: TimeMs,
    /// What is known of it.
    pub said: String,
}

/// An event that is closed as an operator wanted it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Settled {
    /// Whose chain.
    #[serde(deserialize_with = "text")]
    pub customer: CustomerId,
    /// Its place in it.
    pub seq: u64,
    /// Its id.
    #[serde(deserialize_with = "text")]
    pub event: EventId,
    /// Done or aborted.
    pub status: EventStatus,
    /// The reason that is in the chain.
    pub reason: String,
    /// It was settled like this before, with that reason.
    pub repeated: bool,
}

/// How an event stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventStatus {
    /// It waits for its rail.
    Started,
    /// It is in effect.
    Done,
    /// It never took effect.
    Aborted,
}

impl EventStatus {
    /// Its name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Aborted => "aborted",
        }
    }
}

/// An event of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RawEvent")]
pub struct Event {
    /// Whose chain.
    pub customer: CustomerId,
    /// Its place in it; the first is 1.
    pub seq: u64,
    /// Its id.
    pub event: EventId,
    /// Its hash.
    pub hash: Hash,
    /// How it stands.
    pub status: EventStatus,
    /// When it was decided.
    pub time: TimeMs,
    /// What was asked for.
    pub kind: RequestKind,
    /// The transaction; an unlock has none.
    pub transaction: Option<TransactionId>,
    /// The transaction's amount; an unlock has none.
    pub amount: Option<Figure>,
    /// The currency's code; `None` in a ledger that names none.
    pub currency: Option<String>,
    /// The account after it; an event that was aborted has none.
    pub account: Option<Account>,
    /// Whether the customer is locked after it; an event that was aborted does not say.
    pub locked: Option<bool>,
    /// The number of the rail that must agree, or had to.
    pub rail: Option<u8>,
    /// Why it was aborted.
    pub reason: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent {
    #[serde(deserialize_with = "text")]
    customer: CustomerId,
    seq: u64,
    #[serde(deserialize_with = "text")]
    event: EventId,
    #[serde(deserialize_with = "text")]
    hash: Hash,
    status: EventStatus,
    #[serde(deserialize_with = "text")]
    time: TimeMs,
    #[serde(deserialize_with = "text")]
    kind: RequestKind,
    #[serde(default, deserialize_with = "maybe_text")]
    transaction: Option<TransactionId>,
    #[serde(default, deserialize_with = "maybe_text")]
    amount: Option<Figure>,
    currency: Option<String>,
    #[serde(default, deserialize_with = "maybe_text")]
    available: Option<Figure>,
    #[serde(default, deserialize_with = "maybe_text")]
    held: Option<Figure>,
    #[serde(default, deserialize_with = "maybe_text")]
    total: Option<Figure>,
    locked: Option<bool>,
    rail: Option<u8>,
    reason: Option<String>,
}

impl TryFrom<RawEvent> for Event {
    type Error = &'static str;

    fn try_from(raw: RawEvent) -> Result<Self, Self::Error> {
        if EventId::from_hash(&raw.hash) != raw.event {
            return Err(WRONG_ID);
        }
        let account = match (raw.available, raw.held, raw.total) {
            (Some(available), Some(held), Some(total)) => {
                let currency = raw.currency.clone();
                Some(Account::try_from(RawAccount { currency, available, held, total })?)
            }
            (None, None, None) => None,
            (_, _, _) => return Err("a part of an event's account is missing"),
        };
        let has_effect = match raw.status {
            EventStatus::Started | EventStatus::Done => true,
            EventStatus::Aborted => false,
        };
        if account.is_some() != has_effect || raw.locked.is_some() != has_effect {
            return Err("an event's account and its status do not fit each other");
        }
        Ok(Self {
            customer: raw.customer,
            seq: raw.seq,
            event: raw.event,
            hash: raw.hash,
            status: raw.status,
            time: raw.time,
            kind: raw.kind,
            transaction: raw.transaction,
            amount: raw.amount,
            currency: raw.currency,
            account,
            locked: raw.locked,
            rail: raw.rail,
            reason: raw.reason,
        })
    }
}

/// A transaction's state.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TransactionState {
    /// Whose it is.
    #[serde(deserialize_with = "text")]
    pub customer: CustomerId,
    /// `deposit` or `withdrawal`.
    pub kind: String,
    /// Its amount.
    #[serde(deserialize_with = "text")]
    pub amount: Figure,
    /// The currency's code; `None` in a ledger that names none.
    pub currency: Option<String>,
    /// `posted`, `disputed` or `charged_back`.
    pub state: String,
}

/// A transaction as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Transaction {
    /// Which.
    #[serde(deserialize_with = "text")]
    pub transaction: TransactionId,
    /// Its state in effect; `None` while its first event is open.
    pub current: Option<TransactionState>,
    /// What an open event would make of it.
    pub pending: Option<TransactionState>,
    /// The events that touched it and are in effect or open, oldest first; the newest 1,000 of them.
    pub events: Vec<Event>,
    /// How many events there are in all.
    pub event_count: u64,
}

/// A ledger's policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// What a locked customer may still do.
    pub locked: String,
    /// What can be disputed.
    pub disputable: String,
}

/// A currency of a ledger, and its sums.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CurrencyTotals {
    /// Its code; `None` in a ledger that names none.
    pub currency: Option<String>,
    /// How many decimals its amounts have.
    pub decimals: u8,
    /// All deposits.
    #[serde(deserialize_with = "text")]
    pub deposits: Figure,
    /// All withdrawals.
    #[serde(deserialize_with = "text")]
    pub withdrawals: Figure,
    /// Deposits that were charged back.
    #[serde(deserialize_with = "text")]
    pub deposits_charged_back: Figure,
    /// Withdrawals that were charged back.
    #[serde(deserialize_with = "text")]
    pub withdrawals_charged_back: Figure,
    /// Credits given for withdrawals in dispute.
    #[serde(deserialize_with = "text")]
    pub provisional: Figure,
    /// What all accounts have available.
    #[serde(deserialize_with = "text")]
    pub available: Figure,
    /// What all accounts hold.
    #[serde(deserialize_with = "text")]
    pub held: Figure,
    /// What all accounts have.
    #[serde(deserialize_with = "text")]
    pub total: Figure,
}

/// What a ledger is, and what it sums up to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ledger {
    /// Its id: 32 hexadecimal digits.
    pub ledger: String,
    /// The digest that every chain begins with.
    #[serde(deserialize_with = "text")]
    pub digest: Hash,
    /// Its policy.
    pub policy: Policy,
    /// Its currencies, in their order.
    pub currencies: Vec<CurrencyTotals>,
    /// Customers with a chain.
    pub customers: u64,
    /// Deposits and withdrawals that were accepted.
    pub transactions: u64,
    /// Events that are done or aborted.
    pub events: u64,
}

/// The figures that explain a refusal; which ones there are follows from the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Figures {
    /// The currency of the amounts; `None` in a ledger that names none.
    pub currency: Option<String>,
    /// The amount asked for.
    #[serde(default, deserialize_with = "maybe_text")]
    pub asked: Option<Figure>,
    /// What could be had.
    #[serde(default, deserialize_with = "maybe_text")]
    pub available: Option<Figure>,
    /// The transaction's amount.
    #[serde(default, deserialize_with = "maybe_text")]
    pub amount: Option<Figure>,
    /// What the ledger lets a locked customer do.
    pub policy: Option<String>,
    /// The transaction that has the id.
    pub existing: Option<TransactionState>,
    /// What the rail said.
    pub reason: Option<String>,
}

/// Items of a list, and where it goes on.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = r#"{"available":"-1.5","held":"2.0","total":"0.5","new":{"field":1}}"#;

    #[test]
    fn an_account_must_add_up() {
        let account: Account = serde_json::from_str(ACCOUNT).unwrap();
        assert_eq!((account.total.steps(), account.currency), (5, None));
        for (from, to) in [("0.5", "0.6"), ("0.5", "0.50"), ("\"2.0\"", "2.0"), ("\"2.0\"", "null"), ("2.0", "2,0")] {
            assert!(serde_json::from_str::<Account>(&ACCOUNT.replace(from, to)).is_err(), "{from} {to}");
        }
    }

    #[test]
    fn an_event_must_be_what_its_hash_says() {
        let hash = Hash([7; 32]);
        let id = EventId::from_hash(&hash);
        let json = format!(
            r#"{{"customer":"1","seq":2,"event":"{id}","hash":"{hash}","status":"done","time":"2026-01-31T12:00:00.000Z",
            "kind":"deposit","transaction":"3","amount":"1.0","available":"1.0","held":"0.0","total":"1.0","locked":false}}"#
        );
        let event: Event = serde_json::from_str(&json).unwrap();
        assert_eq!((event.seq, event.account.unwrap().total.to_string().as_str()), (2, "1.0"));
        let wrong = [
            (hash.to_string(), Hash([8; 32]).to_string()),
            ("\"held\":\"0.0\",".to_owned(), String::new()),
            ("\"done\"".to_owned(), "\"aborted\"".to_owned()),
            ("\"deposit\"".to_owned(), "\"gift\"".to_owned()),
            ("\"total\":\"1.0\"".to_owned(), "\"total\":\"2.0\"".to_owned()),
        ];
        for (from, to) in wrong {
            assert!(serde_json::from_str::<Event>(&json.replace(&from, &to)).is_err(), "{from}");
        }
    }

    #[test]
    fn requests_are_strings_and_only_some_take_effect_once() {
        let (customer, transaction) = (CustomerId::new(42), TransactionId::new(7));
        let deposit = Submission::deposit(customer, transaction, "12.5".parse().unwrap()).in_currency("EUR");
        let json = r#"{"kind":"deposit","customer":"42","transaction":"7","amount":"12.5","currency":"EUR"}"#;
        assert_eq!(serde_json::to_string(&deposit).unwrap(), json);
        let unlock = Submission::unlock(customer);
        assert_eq!(serde_json::to_string(&unlock).unwrap(), r#"{"kind":"unlock","customer":"42"}"#);
        let withdrawal = Submission::withdrawal(customer, transaction, "2".parse().unwrap());
        let withdrawal = withdrawal.with_expected_seq(3).with_minimum_available("-1.50".parse().unwrap());
        let json = r#"{"kind":"withdrawal","customer":"42","transaction":"7","amount":"2","expected_seq":3,"minimum_available":"-1.50"}"#;
        assert_eq!(serde_json::to_string(&withdrawal).unwrap(), json);
        assert!(deposit.is_idempotent() && !unlock.is_idempotent());
        assert!(unlock.with_idempotency_key("k").is_idempotent());
        assert!(!Submission::dispute(customer, transaction).is_idempotent());
    }
}
