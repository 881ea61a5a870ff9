//! What goes over the wire, and how it becomes a [`Request`], or is made of what the engine says.
//!
//! Reading is strict: every field once, each of its one type, no field that is not known. The rules see only what was
//! read; whether it can be done is theirs to say.

use crate::shown::{HashText, Shown, Time, account, money};
use bursar_core::amount::AmountDisplay;
use bursar_core::commit::{Minimum, Receipt, Terms};
use bursar_core::{
    Action, Amount, AmountErrorKind, Currencies, CurrencyIndex, CustomerId, EventId, EventStatus, Head, IdError,
    LedgerConfig, LinkedEvent, Movement, Reference, Request, RequestKind, TransactionId, TransactionState,
};
use bursar_engine::csv::{RowError, RowErrorKind};
use bursar_engine::store::ChainEntry;
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use utoipa::ToSchema;

/// Why a request says nothing that could be decided. The codes are those of rows of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: RowErrorKind,
    /// In which field, where it is one.
    pub field: Option<&'static str>,
    /// How many bytes of that field are in order, where that says where it goes wrong.
    pub at: Option<usize>,
}

impl Fault {
    const fn of(kind: RowErrorKind, field: &'static str) -> Self {
        Self { kind, field: Some(field), at: None }
    }

    pub(crate) const fn bad_id(field: &'static str, error: IdError) -> Self {
        Self { kind: RowErrorKind::BadId(error.kind), field: Some(field), at: Some(error.at) }
    }
}

impl From<RowError> for Fault {
    fn from(error: RowError) -> Self {
        Self { kind: error.kind, field: error.column.map(bursar_engine::csv::Column::name), at: None }
    }
}

/// One sentence, in lower case and without a full stop.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.field.unwrap_or("row");
        match self.kind {
            RowErrorKind::RowTooLong { bytes_max } => write!(f, "the row is longer than {bytes_max} bytes"),
            RowErrorKind::UnclosedQuote => f.write_str("a quote is not closed"),
            RowErrorKind::TextAfterQuote => f.write_str("text follows the closing quote of a field"),
            RowErrorKind::NotUtf8 => f.write_str("the row has bytes that are no UTF-8"),
            RowErrorKind::TooManyFields { fields, columns } => {
                write!(f, "the row has {fields} fields, the header has {columns} columns")
            }
            RowErrorKind::TooFewFields => write!(f, "the row ends before its {field}"),
            RowErrorKind::UnknownKind { .. } => f.write_str("no kind of request has this name"),
            RowErrorKind::BadId(kind) => write!(f, "bad {field}: {kind}"),
            RowErrorKind::UnlockTakesOnlyClient => write!(f, "an unlock takes only a customer, not a {field}"),
            RowErrorKind::UnknownCurrency => f.write_str("the ledger has no such currency"),
            RowErrorKind::MissingCurrency => f.write_str("no currency is given, and the ledger has several"),
            RowErrorKind::MissingAmount => f.write_str("a deposit or withdrawal needs an amount"),
            RowErrorKind::BadAmount(kind) => write!(f, "bad amount: {kind}"),
        }
    }
}

/// A string of a request, borrowed where it has no escapes.
#[derive(Debug)]
pub(crate) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Strings)
    }
}

/// A field that may be left out, but not be null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Text<'de>>, D::Error> {
    Text::deserialize(deserializer).map(Some)
}

/// A count that may be left out, but not be null.
fn counted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(deserializer).map(Some)
}

/// A request as it comes in, with its terms; [`RequestBody`] is the same for documents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with kind, customer, transaction, amount, currency and terms")]
struct RawRequest<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    customer: Text<'a>,
    #[serde(borrow, default, deserialize_with = "given")]
    transaction: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    amount: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    currency: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "given")]
    idempotency_key: Option<Text<'a>>,
    #[serde(default, deserialize_with = "counted")]
    expected_seq: Option<u64>,
    #[serde(borrow, default, deserialize_with = "given")]
    minimum_available: Option<Text<'a>>,
}

/// Why a request could not be read.
#[derive(Debug)]
pub(crate) enum ReadFault {
    /// It is no JSON, or not an object of the right fields.
    Json(serde_json::Error),
    /// It is, but a field says nothing.
    Fault(Fault),
    /// It is, but its key is none.
    Key,
}

impl ReadFault {
    /// The code and the sentence: what is no JSON at all, or has fields that are not as they should be.
    pub(crate) fn into_problem(self) -> crate::Problem {
        use crate::problem::ServiceProblem as P;
        match self {
            Self::Fault(fault) => crate::Problem::Unreadable(fault),
            Self::Key => crate::Problem::plain(P::BadIdempotencyKey),
            Self::Json(error) => {
                let kind = match error.classify() {
                    serde_json::error::Category::Data => P::BadField,
                    serde_json::error::Category::Syntax
                    | serde_json::error::Category::Eof
                    | serde_json::error::Category::Io => P::MalformedJson,
                };
                crate::Problem::service(kind, error.to_string())
            }
        }
    }
}

/// Reads an object from JSON.
pub(crate) fn read_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, ReadFault> {
    // An array of its fields would do for a struct as well, and is not what is documented.
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        let malformed = serde_json::from_slice::<serde::de::IgnoredAny>(json).err();
        let array = || serde_json::Error::custom("an array, where an object is expected");
        return Err(ReadFault::Json(malformed.unwrap_or_else(array)));
    }
    serde_json::from_slice(json).map_err(ReadFault::Json)
}

/// Reads a request and its terms from JSON.
pub(crate) fn read_request(json: &[u8], config: &LedgerConfig) -> Result<(Request, Terms), ReadFault> {
    let raw: RawRequest<'_> = read_object(json)?;
    let request = raw.check(&config.currencies).map_err(ReadFault::Fault)?;
    let key = raw.idempotency_key.as_ref().map(|text| crate::terms::key(text.bytes(), config).ok_or(ReadFault::Key));
    let minimum_available = raw.minimum(&config.currencies).map_err(ReadFault::Fault)?;
    Ok((request, Terms { key: key.transpose()?, expected_seq: raw.expected_seq, minimum_available }))
}

impl RawRequest<'_> {
    fn check(&self, currencies: &Currencies) -> Result<Request, Fault> {
        // Names are exact here: JSON is written by programs.
        let kind = RequestKind::ALL.into_iter().find(|kind| kind.name() == self.kind.0);
        let kind = kind.ok_or(Fault::of(RowErrorKind::UnknownKind { near: None }, "kind"))?;
        let customer = CustomerId::parse(self.customer.bytes()).map_err(|error| Fault::bad_id("customer", error))?;
        let action = match kind {
            RequestKind::Deposit => Action::Deposit(self.movement(currencies)?),
            RequestKind::Withdrawal => Action::Withdrawal(self.movement(currencies)?),
            RequestKind::Dispute => Action::Dispute(self.reference(currencies)?),
            RequestKind::Resolve => Action::Resolve(self.reference(currencies)?),
            RequestKind::Chargeback => Action::Chargeback(self.reference(currencies)?),
            RequestKind::Unlock => {
                let fields = [
                    ("transaction", &self.transaction),
                    ("amount", &self.amount),
                    ("currency", &self.currency),
                    ("minimum_available", &self.minimum_available),
                ];
                if let Some((field, _)) = fields.into_iter().find(|(_, text)| text.is_some()) {
                    return Err(Fault::of(RowErrorKind::UnlockTakesOnlyClient, field));
                }
                Action::Unlock
            }
        };
        Ok(Request { customer, action })
    }

    fn transaction(&self) -> Result<TransactionId, Fault> {
        let Some(text) = &self.transaction else { return Err(Fault::of(RowErrorKind::TooFewFields, "transaction")) };
        TransactionId::parse(text.bytes()).map_err(|error| Fault::bad_id("transaction", error))
    }

    fn currency(&self, currencies: &Currencies) -> Result<Option<CurrencyIndex>, Fault> {
        let Some(text) = &self.currency else { return Ok(None) };
        let found = currencies.find(text.bytes()).filter(|_| !text.0.is_empty());
        found.map(Some).ok_or(Fault::of(RowErrorKind::UnknownCurrency, "currency"))
    }

    fn amount(&self, currencies: &Currencies, currency: CurrencyIndex) -> Result<Option<Amount>, Fault> {
        let Some(text) = &self.amount else { return Ok(None) };
        Self::amount_of("amount", text, currencies, currency).map(Some)
    }

    /// What is to be left, in the currency of the request.
    fn minimum(&self, currencies: &Currencies) -> Result<Option<Minimum>, Fault> {
        let Some(text) = &self.minimum_available else { return Ok(None) };
        let currency = self.currency(currencies)?.or(currencies.only());
        let currency = currency.ok_or(Fault::of(RowErrorKind::MissingCurrency, "currency"))?;
        let amount = Self::amount_of("minimum_available", text, currencies, currency)?;
        Ok(Some(Minimum { currency, amount }))
    }

    fn amount_of(
        field: &'static str,
        text: &Text<'_>,
        currencies: &Currencies,
        currency: CurrencyIndex,
    ) -> Result<Amount, Fault> {
        Amount::parse(text.bytes(), currencies.decimals(currency)).map_err(|error| Fault {
            kind: RowErrorKind::BadAmount(error.kind),
            field: Some(field),
            at: match error.kind {
                AmountErrorKind::NotANumber
                | AmountErrorKind::EndsWithPoint
                | AmountErrorKind::TooManyDecimals { .. } => Some(error.at),
                AmountErrorKind::Empty | AmountErrorKind::TooLarge => None,
            },
        })
    }

    fn movement(&self, currencies: &Currencies) -> Result<Movement, Fault> {
        let transaction = self.transaction()?;
        let currency = self.currency(currencies)?.or(currencies.only());
        let currency = currency.ok_or(Fault::of(RowErrorKind::MissingCurrency, "currency"))?;
        let amount = self.amount(currencies, currency)?;
        let amount = amount.ok_or(Fault::of(RowErrorKind::MissingAmount, "amount"))?;
        Ok(Movement { transaction, amount, currency })
    }

    fn reference(&self, currencies: &Currencies) -> Result<Reference, Fault> {
        let transaction = self.transaction()?;
        let currency = self.currency(currencies)?;
        let amount = match (&self.amount, currency.or(currencies.only())) {
            (None, _) => None,
            (Some(_), Some(currency)) => self.amount(currencies, currency)?,
            (Some(_), None) => return Err(Fault::of(RowErrorKind::MissingCurrency, "currency")),
        };
        Ok(Reference { transaction, amount, currency })
    }
}

/// A request. A deposit or withdrawal needs `transaction` and `amount`, and `currency` if the ledger has several; a
/// dispute, resolve or chargeback needs `transaction`, and amount and currency must equal the transaction's if they
/// are given; an unlock has only `customer`. Beside them, terms: `idempotency_key` for requests that have no id of their
/// own, `expected_seq`, and `minimum_available` in the same currency (not for an unlock).
#[derive(Debug, ToSchema)]
#[schema(example = json!({"kind": "deposit", "customer": "42", "transaction": "1001", "amount": "12.5"}))]
#[allow(dead_code, reason = "it is there for the document; `RawRequest` is what is read")]
pub(crate) struct RequestBody {
    kind: KindName,
    /// Whose account is meant.
    #[schema(pattern = "^([0-9]{1,20}|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})$")]
    customer: String,
    /// The transaction made or referred to; unique across the whole ledger.
    #[schema(required = false, nullable = false, value_type = String)]
    #[schema(pattern = "^([0-9]{1,20}|[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})$")]
    transaction: Option<String>,
    /// A decimal number; digits beyond the currency's decimals must be zeros.
    #[schema(required = false, nullable = false, value_type = String, pattern = r"^-?([0-9]+(\.[0-9]+)?|\.[0-9]+)$")]
    amount: Option<String>,
    /// A currency of the ledger; may be left out where there is only one.
    #[schema(required = false, nullable = false, value_type = String, min_length = 1, max_length = 12)]
    currency: Option<String>,
    /// A dispute, resolve, chargeback or unlock with the same key takes effect once. Of a single request it can be the
    /// header `Idempotency-Key` instead.
    #[schema(required = false, nullable = false, value_type = String, min_length = 1, max_length = 255)]
    #[schema(pattern = "^[ -~]{1,255}$")]
    idempotency_key: Option<String>,
    /// Only if the customer's newest event has this sequence number; 0 for a customer without one.
    #[schema(required = false, nullable = false, value_type = u64, minimum = 0)]
    expected_seq: Option<u64>,
    /// Only if at least so much is available afterwards.
    #[schema(required = false, nullable = false, value_type = String, pattern = r"^-?([0-9]+(\.[0-9]+)?|\.[0-9]+)$")]
    minimum_available: Option<String>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "it is there for the document")]
pub(crate) enum KindName {
    Deposit,
    Withdrawal,
    Dispute,
    Resolve,
    Chargeback,
    Unlock,
}

/// How an event stands.
#[derive(Clone, Copy, Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "it is there for the document")]
pub(crate) enum StatusName {
    Started,
    Done,
    Aborted,
}

/// The code of a currency; none in a ledger that names none.
pub(crate) fn code(currencies: &Currencies, currency: CurrencyIndex) -> Option<&str> {
    currencies.get(currency).map(bursar_core::Currency::code).filter(|code| !code.is_empty())
}

/// Proof of an event in effect: its hash fixes the whole history of the chain. `bursar verify --file CHAIN --receipt
/// HASH` checks it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReceiptBody<'a> {
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    /// The event's place in the customer's chain; the first is 1.
    #[schema(minimum = 1)]
    seq: u64,
    /// The event's id.
    #[schema(value_type = String, format = "uuid")]
    event: Shown<EventId>,
    /// The event's hash, which is the chain's head hash right after it.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    hash: HashText,
    #[schema(value_type = String, format = "date-time")]
    time: Time,
    /// Not there in a ledger that names no currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<&'a str>,
    /// The account after the event.
    #[schema(value_type = String, example = "12.5000")]
    available: Shown<AmountDisplay>,
    #[schema(value_type = String, example = "0.0000")]
    held: Shown<AmountDisplay>,
    #[schema(value_type = String, example = "12.5000")]
    total: Shown<AmountDisplay>,
    /// Whether the customer is locked after the event.
    locked: bool,
}

pub(crate) fn receipt_body<'a>(receipt: &Receipt, currencies: &'a Currencies) -> ReceiptBody<'a> {
    let [available, held, total] = account(currencies, receipt.currency, receipt.account);
    ReceiptBody {
        customer: Shown(receipt.event.customer),
        seq: receipt.event.seq,
        event: Shown(receipt.event.id),
        hash: HashText(receipt.hash),
        time: Time(receipt.time_ms),
        currency: code(currencies, receipt.currency),
        available,
        held,
        total,
        locked: receipt.locked,
    }
}

/// Whether a request took effect now or before.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Success {
    /// It took effect, as the event of the receipt.
    Applied,
    /// It took effect before; nothing moved now. The receipt is that of then.
    AlreadyApplied,
    /// It would take effect now, if it were no dry run.
    WouldApply,
}

/// The outcome of a request that is in effect. (One that the rules refuse is a problem document with status 422.)
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutcomeBody<'a> {
    pub(crate) outcome: Success,
    /// Of a request that is in effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReceiptBody<'static>)]
    pub(crate) receipt: Option<ReceiptBody<'a>>,
    /// Of a dry run: what would come of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = WouldBody<'static>)]
    pub(crate) would: Option<WouldBody<'a>>,
}

/// What would come of a request, if nothing happened meanwhile. Not a promise, and no proof of anything.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WouldBody<'a> {
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    /// The event's place in the customer's chain.
    #[schema(minimum = 1)]
    seq: u64,
    /// Not there in a ledger that names no currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<&'a str>,
    /// The account after the event.
    #[schema(value_type = String)]
    available: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    held: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    total: Shown<AmountDisplay>,
    /// Whether the customer would be locked after the event.
    locked: bool,
}

pub(crate) fn would_body<'a>(receipt: &Receipt, currencies: &'a Currencies) -> WouldBody<'a> {
    let ReceiptBody { customer, seq, currency, available, held, total, locked, .. } = receipt_body(receipt, currencies);
    WouldBody { customer, seq, currency, available, held, total, locked }
}

/// One account of a customer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountBody<'a> {
    /// Not there in a ledger that names no currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<&'a str>,
    #[schema(value_type = String)]
    available: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    held: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    total: Shown<AmountDisplay>,
}

/// A customer with its accounts and the head of its chain.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CustomerBody<'a> {
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    /// Locked by a chargeback, until an operator unlocks.
    locked: bool,
    /// The sequence number of the newest event that is closed; 0 while the first one is open.
    seq: u64,
    /// The head hash: it fixes the whole chain up to that event.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    head: HashText,
    /// When the newest event was.
    #[schema(value_type = String, format = "date-time")]
    time: Time,
    accounts: Vec<AccountBody<'a>>,
    /// Events that wait for their rail; until they are closed, the customer waits as well.
    open_events: usize,
}

pub(crate) fn customer_body<'a>(customer: CustomerId, head: &Head, currencies: &'a Currencies) -> CustomerBody<'a> {
    let accounts = head.state.accounts.iter().map(|(currency, held)| {
        let [available, held, total] = account(currencies, currency, held);
        AccountBody { currency: code(currencies, currency), available, held, total }
    });
    CustomerBody {
        customer: Shown(customer),
        locked: head.state.locked,
        seq: head.seq,
        head: HashText(head.link),
        time: Time(head.time_ms),
        accounts: accounts.collect(),
        open_events: head.open.len(),
    }
}

/// An event of a chain. One that was aborted has no account: it never took effect.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventBody<'a> {
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    #[schema(minimum = 1)]
    seq: u64,
    #[schema(value_type = String, format = "uuid")]
    event: Shown<EventId>,
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    hash: HashText,
    #[schema(value_type = StatusName)]
    status: &'static str,
    #[schema(value_type = String, format = "date-time")]
    time: Time,
    #[schema(value_type = KindName)]
    kind: &'static str,
    /// An unlock has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    transaction: Option<Shown<TransactionId>>,
    /// An unlock has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    amount: Option<Shown<AmountDisplay>>,
    /// Not there in a ledger that names no currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<&'a str>,
    /// The account in this currency, once the event is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    available: Option<Shown<AmountDisplay>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    held: Option<Shown<AmountDisplay>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    total: Option<Shown<AmountDisplay>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool)]
    locked: Option<bool>,
    /// The number of the rail that must agree, or had to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u8)]
    rail: Option<u8>,
    /// Why it was aborted, or what the operator said who settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    reason: Option<String>,
}

pub(crate) fn event_body<'a>(entry: &ChainEntry, currencies: &'a Currencies) -> EventBody<'a> {
    linked_body(&entry.linked, &entry.status, currencies)
}

pub(crate) fn linked_body<'a>(linked: &LinkedEvent, status: &EventStatus, currencies: &'a Currencies) -> EventBody<'a> {
    let event = &linked.event;
    let aborted = match status {
        EventStatus::Aborted(reason) => Some(reason),
        EventStatus::Started | EventStatus::Done | EventStatus::DoneByHand(_) => None,
    };
    let account = account(currencies, event.currency, event.account());
    let [available, held, total] = account.map(|amount| aborted.is_none().then_some(amount));
    let amount = Shown(money(currencies, event.currency, event.amount));
    EventBody {
        customer: Shown(event.customer),
        seq: event.seq,
        event: Shown(linked.id()),
        hash: HashText(linked.hash),
        status: status.name(),
        time: Time(event.time_ms),
        kind: event.kind.name(),
        transaction: event.transaction.map(Shown),
        amount: event.transaction.map(|_| amount),
        currency: code(currencies, event.currency),
        available,
        held,
        total,
        locked: aborted.is_none().then_some(event.state.locked),
        rail: event.rail.map(bursar_core::RailId::number),
        reason: aborted.map(ToString::to_string).or_else(|| status.by_hand().map(str::to_owned)),
    }
}

/// A transaction's state.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ExistingBody {
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    /// `deposit` or `withdrawal`.
    #[schema(value_type = String)]
    kind: &'static str,
    #[schema(value_type = String)]
    amount: Shown<AmountDisplay>,
    /// Not there in a ledger that names no currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<String>,
    /// `posted`, `disputed` or `charged_back`.
    #[schema(value_type = String)]
    state: &'static str,
}

pub(crate) fn existing_body(state: &TransactionState, currencies: &Currencies) -> ExistingBody {
    ExistingBody {
        customer: Shown(state.customer),
        kind: state.kind.name(),
        amount: Shown(money(currencies, state.currency, state.amount)),
        currency: code(currencies, state.currency).map(str::to_owned),
        state: state.status.name(),
    }
}

/// Items of a list, and where it goes on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// May be fewer than asked for, even none, where filters leave little; `next` says whether there is more.
    pub(crate) items: Vec<T>,
    /// Pass it as `cursor`. Not there on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    pub(crate) next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::{Currency, Decimals};

    fn code(json: &str, currencies: &Currencies) -> &'static str {
        let (ledger, policy, currencies) = ([1; 16], bursar_core::Policy::default(), currencies.clone());
        match read_request(json.as_bytes(), &LedgerConfig { ledger, policy, currencies }) {
            Ok(_) => "ok",
            Err(fault) => fault.into_problem().info().code,
        }
    }

    #[test]
    fn requests_are_read_strictly() {
        let one = Currencies::default();
        let two = |(code, decimals)| Currency::new(code, Decimals::new(decimals).unwrap()).unwrap();
        let several = Currencies::named([("EUR", 2), ("JPY", 0)].map(two).into()).unwrap();
        let table = [
            (r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"3.5"}"#, "ok", "missing_currency"),
            (
                r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"3.5","currency":"EUR"}"#,
                "unknown_currency",
                "ok",
            ),
            (
                r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"3.5","currency":"JPY"}"#,
                "unknown_currency",
                "bad_amount",
            ),
            (
                r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"3.5","currency":""}"#,
                "unknown_currency",
                "unknown_currency",
            ),
            (r#"{"kind":"withdrawal","customer":"1","transaction":"2"}"#, "missing_amount", "missing_currency"),
            (r#"{"kind":"dispute","customer":"1","transaction":"2"}"#, "ok", "ok"),
            (r#"{"kind":"dispute","customer":"1","transaction":"2","amount":"1"}"#, "ok", "missing_currency"),
            (r#"{"kind":"chargeback","customer":"1"}"#, "too_few_fields", "too_few_fields"),
            (r#"{"kind":"unlock","customer":"1"}"#, "ok", "ok"),
            (
                r#"{"kind":"unlock","customer":"1","transaction":"2"}"#,
                "unlock_takes_only_client",
                "unlock_takes_only_client",
            ),
            (r#"{"kind":"\u0075nlock","customer":"1"}"#, "ok", "ok"),
            (r#"{"kind":"Deposit","customer":"1","transaction":"2","amount":"3"}"#, "unknown_kind", "unknown_kind"),
            (r#"{"kind":"deposit","customer":1,"transaction":"2","amount":"3"}"#, "bad_field", "bad_field"),
            (r#"{"kind":"deposit","customer":"1","transaction":"2","amount":3}"#, "bad_field", "bad_field"),
            (r#"{"kind":"deposit","customer":"1","transaction":"2","amount":null}"#, "bad_field", "bad_field"),
            (
                r#"{"kind":"deposit","customer":"1","customer":"1","transaction":"2","amount":"3"}"#,
                "bad_field",
                "bad_field",
            ),
            (r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"3","note":""}"#, "bad_field", "bad_field"),
            (r#"{"customer":"1"}"#, "bad_field", "bad_field"),
            (r#"["unlock","1"]"#, "bad_field", "bad_field"),
            (r#""unlock""#, "bad_field", "bad_field"),
            (r#"{"kind":"unlock","customer":"1"} x"#, "malformed_json", "malformed_json"),
            (r#"{"kind":"unlock","customer":"x"}"#, "bad_id", "bad_id"),
            (r#"{"kind":"unlock","customer":"18446744073709551616"}"#, "bad_id", "bad_id"),
            (r#"{"kind":"deposit","customer":"1","transaction":"2","amount":"1e3"}"#, "bad_amount", "missing_currency"),
            (r#"{"kind":"dispute","customer":"1","transaction":"2","idempotency_key":"a b"}"#, "ok", "ok"),
            (
                r#"{"kind":"dispute","customer":"1","transaction":"2","idempotency_key":""}"#,
                "bad_idempotency_key",
                "bad_idempotency_key",
            ),
            (
                r#"{"kind":"dispute","customer":"1","transaction":"2","idempotency_key":"é"}"#,
                "bad_idempotency_key",
                "bad_idempotency_key",
            ),
            (r#"{"kind":"unlock","customer":"1","idempotency_key":17}"#, "bad_field", "bad_field"),
            (r#"{"kind":"unlock","customer":"1","expected_seq":17}"#, "ok", "ok"),
            (r#"{"kind":"unlock","customer":"1","expected_seq":"17"}"#, "bad_field", "bad_field"),
            (r#"{"kind":"unlock","customer":"1","expected_seq":-1}"#, "bad_field", "bad_field"),
            (r#"{"kind":"unlock","customer":"1","expected_seq":1.0}"#, "bad_field", "bad_field"),
            (r#"{"kind":"unlock","customer":"1","expected_seq":null}"#, "bad_field", "bad_field"),
            (
                r#"{"kind":"unlock","customer":"1","minimum_available":"1"}"#,
                "unlock_takes_only_client",
                "unlock_takes_only_client",
            ),
            (
                r#"{"kind":"dispute","customer":"1","transaction":"2","minimum_available":"-1.5"}"#,
                "ok",
                "missing_currency",
            ),
            (
                r#"{"kind":"dispute","customer":"1","transaction":"2","minimum_available":"1.5","currency":"JPY"}"#,
                "unknown_currency",
                "bad_amount",
            ),
            ("", "malformed_json", "malformed_json"),
            ("\u{0}", "malformed_json", "malformed_json"),
        ];
        for (json, with_one, with_several) in table {
            assert_eq!((code(json, &one), code(json, &several)), (with_one, with_several), "{json}");
        }
    }
}
