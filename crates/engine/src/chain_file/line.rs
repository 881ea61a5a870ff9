//! The lines of a chain file: written in one way, and read back only if they are written in that way.
//!
//! A line is read field by field, written again from what was read, and compared byte by byte.

use super::error::ChainFileFault as Fault;
use bursar_core::{
    AbortReason, Account, Accounts, Amount, ChainFault, Currencies, Currency, CurrencyIndex, CustomerId, CustomerState,
    Decimals, DisputablePolicy, Event, EventStatus, Hash, Head, LedgerConfig, LinkedEvent, LockedPolicy, Policy,
    RailId, ReasonText, RequestKey, RequestKind, TransactionId, TransactionKind,
};
use serde_json::{Map, Value};
use std::fmt::Write;

pub(super) const FORMAT: &str = "bursar-chain";
pub(super) const VERSION: u64 = 1;

/// What the first line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) config: LedgerConfig,
    pub(super) customer: CustomerId,
}

/// What the last line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    head: Hash,
    seq: u64,
    open_count: u64,
    state: CustomerState,
}

impl End {
    pub(super) fn of(head: &Head) -> Self {
        Self { head: head.link, seq: head.seq, open_count: head.open.len() as u64, state: head.state.clone() }
    }
}

/// What is wrong with a line: in which field, or at which column from 1.
#[derive(Debug)]
pub(super) enum LineFault {
    Field(&'static str, Fault),
    At(u64, Fault),
}

type Read<T> = Result<T, LineFault>;

/// Writing into a `String` does not fail.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {
        if write!($out, $($format)*).is_err() {
            debug_assert!(false, "writing into memory failed");
        }
    };
}

pub(super) fn put_header(out: &mut String, header: &Header) {
    let LedgerConfig { ledger, policy, currencies } = &header.config;
    put!(out, "{{\"format\":\"{FORMAT}\",\"version\":{VERSION},\"ledger\":\"");
    for byte in ledger {
        put!(out, "{byte:02x}");
    }
    let (locked, disputable) = (policy.locked.name(), policy.disputable.name());
    put!(out, "\",\"locked_policy\":\"{locked}\",\"disputable_policy\":\"{disputable}\",\"currencies\":[");
    for (index, currency) in currencies.iter() {
        let comma = if index.0 > 0 { "," } else { "" };
        put!(out, "{comma}{{\"code\":\"{}\",\"decimals\":{}}}", currency.code(), currency.decimals().count());
    }
    put!(out, "],\"customer\":\"{}\"}}\n", header.customer);
}

pub(super) fn put_event(out: &mut String, config: &LedgerConfig, linked: &LinkedEvent, status: &EventStatus) {
    let LinkedEvent { event, hash } = linked;
    let currencies = &config.currencies;
    let code = |currency| currencies.get(currency).map_or("?", Currency::code);
    put!(out, "{{\"seq\":{},\"time_ms\":{},\"kind\":\"{}\"", event.seq, event.time_ms, event.kind.name());
    match event.transaction {
        Some(transaction) => put!(out, ",\"transaction\":\"{transaction}\""),
        None => out.push_str(",\"transaction\":null"),
    }
    let amount = event.amount.display(currencies.decimals(event.currency));
    let (kind, currency) = (event.transaction_kind.name(), code(event.currency));
    put!(out, ",\"transaction_kind\":\"{kind}\",\"amount\":\"{amount}\",\"currency\":\"{currency}\"");
    match event.rail {
        Some(rail) => put!(out, ",\"rail\":{}", rail.number()),
        None => out.push_str(",\"rail\":null"),
    }
    if let Some(key) = event.key {
        put!(out, ",\"key\":\"{key}\"");
    }
    put_state(out, config, &event.state);
    put!(out, ",\"status\":\"{}\"", status.name());
    match status {
        EventStatus::Started | EventStatus::Done => {}
        EventStatus::DoneByHand(reason) => put!(out, ",\"reason_text\":{}", Value::from(reason.as_str())),
        EventStatus::Aborted(reason) => {
            put!(out, ",\"reason\":{},\"reason_text\":{}", reason.code(), Value::from(reason.text()));
        }
    }
    put!(out, ",\"hash\":\"{hash}\"}}\n");
}

fn put_state(out: &mut String, config: &LedgerConfig, state: &CustomerState) {
    put!(out, ",\"locked\":{},\"accounts\":[", state.locked);
    for (index, (currency, account)) in state.accounts.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let code = config.currencies.get(currency).map_or("?", Currency::code);
        let decimals = config.currencies.decimals(currency);
        let (available, held) = (account.available.display(decimals), account.held.display(decimals));
        put!(out, "{comma}{{\"currency\":\"{code}\",\"available\":\"{available}\",\"held\":\"{held}\"}}");
    }
    out.push(']');
}

pub(super) fn put_end(out: &mut String, config: &LedgerConfig, end: &End) {
    put!(out, "{{\"end\":\"{FORMAT}\",\"seq\":{},\"open\":{},\"head\":\"{}\"", end.seq, end.open_count, end.head);
    put_state(out, config, &end.state);
    out.push_str("}\n");
}

/// Whether a line is meant to be the last one.
pub(super) fn is_end(text: &str) -> bool {
    text.starts_with("{\"end\"")
}

pub(super) fn header(text: &str) -> Read<Header> {
    let object = object(text)?;
    if object.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(LineFault::At(1, Fault::NotAChainFile));
    }
    let version = number(&object, "version")?;
    if version != VERSION {
        return Err(LineFault::Field("version", Fault::Version { found: version }));
    }
    let policy = Policy {
        locked: named(&object, "locked_policy", &LockedPolicy::ALL, LockedPolicy::name)?,
        disputable: named(&object, "disputable_policy", &DisputablePolicy::ALL, DisputablePolicy::name)?,
    };
    let ledger = ledger_id(string(&object, "ledger")?).ok_or_else(|| bad("ledger", "32 hexadecimal digits"))?;
    let config = LedgerConfig { ledger, policy, currencies: currencies(&object)? };
    let header = Header { config, customer: customer(&object)? };
    let mut again = String::new();
    put_header(&mut again, &header);
    same(text, &again, |expected| Fault::NotCanonical { expected })?;
    Ok(header)
}

pub(super) fn event(text: &str, config: &LedgerConfig, customer: CustomerId) -> Read<(LinkedEvent, EventStatus)> {
    let object = object(text)?;
    let currency = currency_of(config, string(&object, "currency")?)?;
    let transaction = if field(&object, "transaction")?.is_null() {
        None
    } else {
        let id = TransactionId::parse(string(&object, "transaction")?.as_bytes());
        Some(id.map_err(|_| bad("transaction", "an id: a number below 2^64 or a UUID"))?)
    };
    let rail = if field(&object, "rail")?.is_null() {
        None
    } else {
        let rail = u8::try_from(number(&object, "rail")?).ok().and_then(RailId::new);
        Some(rail.ok_or_else(|| bad("rail", "a number from 1 to 255, or null"))?)
    };
    let key = match object.get("key") {
        None => None,
        Some(key) => {
            let key = key.as_str().and_then(RequestKey::parse);
            Some(key.ok_or_else(|| bad("key", "32 hexadecimal digits in lower case, not all zero"))?)
        }
    };
    let kinds = [TransactionKind::Deposit, TransactionKind::Withdrawal];
    let event = Event {
        customer,
        seq: number(&object, "seq")?,
        time_ms: number(&object, "time_ms")?,
        kind: named(&object, "kind", &RequestKind::ALL, RequestKind::name)?,
        transaction,
        transaction_kind: named(&object, "transaction_kind", &kinds, TransactionKind::name)?,
        amount: amount(&object, "amount", config.currencies.decimals(currency))?,
        currency,
        rail,
        key,
        state: state(&object, config)?,
    };
    let hash = Hash::parse(string(&object, "hash")?.as_bytes()).ok_or_else(|| bad("hash", "64 hexadecimal digits"))?;
    let status = status(&object)?;
    let linked = LinkedEvent { event, hash };
    let mut again = String::new();
    put_event(&mut again, config, &linked, &status);
    same(text, &again, |expected| Fault::NotCanonical { expected })?;
    Ok((linked, status))
}

/// Compares the last line with what the events lead to.
pub(super) fn check_end(text: &str, config: &LedgerConfig, end: &End) -> Read<()> {
    let mut again = String::new();
    put_end(&mut again, config, end);
    same(text, &again, |expected| Fault::WrongEnd { expected })
}

/// The field of an event's line that a broken chain shows in.
pub(super) const fn field_of(fault: &ChainFault) -> &'static str {
    match fault {
        ChainFault::WrongCustomer | ChainFault::WrongSeq { .. } => "seq",
        ChainFault::TimeGoesBack => "time_ms",
        ChainFault::WrongHash { .. } => "hash",
        ChainFault::DoneAfterOpen => "status",
        ChainFault::NotAllowed(_) | ChainFault::Malformed => "kind",
        ChainFault::MadeBefore => "transaction",
        ChainFault::WrongState { .. } => "accounts",
    }
}

/// Compares a line with how it should be written; the error says from where on.
fn same(text: &str, again: &str, fault: impl FnOnce(String) -> Fault) -> Read<()> {
    let again = again.trim_end_matches('\n');
    if text == again {
        return Ok(());
    }
    let at = text.bytes().zip(again.bytes()).take_while(|(a, b)| a == b).count();
    let at = again.floor_char_boundary(at);
    let end = again.floor_char_boundary(at + 80);
    Err(LineFault::At(at as u64 + 1, fault(again[at..end].to_owned())))
}

fn object(text: &str) -> Read<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(LineFault::At(1, Fault::NotJson)),
        Err(error) => Err(LineFault::At(error.column().max(1) as u64, Fault::NotJson)),
    }
}

const fn bad(field: &'static str, expected: &'static str) -> LineFault {
    LineFault::Field(field, Fault::BadValue { expected })
}

fn field<'a>(object: &'a Map<String, Value>, name: &'static str) -> Read<&'a Value> {
    object.get(name).ok_or(LineFault::At(1, Fault::Missing { expected: name }))
}

fn string<'a>(object: &'a Map<String, Value>, name: &'static str) -> Read<&'a str> {
    field(object, name)?.as_str().ok_or_else(|| bad(name, "a string"))
}

/// Whole numbers below 2^64 are kept exactly by the JSON reader; any other is refused.
fn number(object: &Map<String, Value>, name: &'static str) -> Read<u64> {
    field(object, name)?.as_u64().ok_or_else(|| bad(name, "a whole number below 2^64"))
}

fn named<T: Copy>(object: &Map<String, Value>, name: &'static str, all: &[T], text: fn(T) -> &'static str) -> Read<T> {
    let found = string(object, name)?;
    all.iter().copied().find(|&value| text(value) == found).ok_or_else(|| bad(name, "one of the known names"))
}

fn amount(object: &Map<String, Value>, name: &'static str, decimals: Decimals) -> Read<Amount> {
    let expected = "an amount with the currency's decimals";
    Amount::parse(string(object, name)?.as_bytes(), decimals).map_err(|_| bad(name, expected))
}

fn customer(object: &Map<String, Value>) -> Read<CustomerId> {
    let id = CustomerId::parse(string(object, "customer")?.as_bytes());
    id.map_err(|_| bad("customer", "an id: a number below 2^64 or a UUID"))
}

fn ledger_id(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    if text.len() != 32 {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(id)
}

fn currencies(object: &Map<String, Value>) -> Read<Currencies> {
    let wrong = || bad("currencies", "a list of currencies, each with code and decimals");
    let Value::Array(list) = field(object, "currencies")? else { return Err(wrong()) };
    let mut named = Vec::new();
    for item in list {
        let Value::Object(item) = item else { return Err(wrong()) };
        let decimals = u8::try_from(number(item, "decimals")?).ok().and_then(Decimals::new).ok_or_else(wrong)?;
        let code = string(item, "code")?;
        if code.is_empty() && list.len() == 1 {
            return Ok(Currencies::unnamed(decimals));
        }
        named.push(Currency::new(code, decimals).map_err(|_| wrong())?);
    }
    Currencies::named(named).map_err(|_| wrong())
}

fn currency_of(config: &LedgerConfig, code: &str) -> Read<CurrencyIndex> {
    let found = config.currencies.iter().find(|(_, currency)| currency.code() == code);
    found.map(|(index, _)| index).ok_or_else(|| bad("currency", "one of the ledger's currencies"))
}

fn state(object: &Map<String, Value>, config: &LedgerConfig) -> Read<CustomerState> {
    let wrong = || bad("accounts", "a list of accounts, each with currency, available and held");
    let locked = field(object, "locked")?.as_bool().ok_or_else(|| bad("locked", "true or false"))?;
    let Value::Array(list) = field(object, "accounts")? else { return Err(wrong()) };
    let mut accounts = Accounts::default();
    for item in list {
        let Value::Object(item) = item else { return Err(wrong()) };
        let currency = currency_of(config, string(item, "currency")?)?;
        let decimals = config.currencies.decimals(currency);
        let (available, held) = (amount(item, "available", decimals)?, amount(item, "held", decimals)?);
        accounts.set(currency, Account { available, held });
    }
    Ok(CustomerState { locked, accounts })
}

fn status(object: &Map<String, Value>) -> Read<EventStatus> {
    match string(object, "status")? {
        "started" => Ok(EventStatus::Started),
        "done" if object.contains_key("reason_text") => {
            Ok(EventStatus::DoneByHand(ReasonText::new(string(object, "reason_text")?)))
        }
        "done" => Ok(EventStatus::Done),
        "aborted" => {
            let code = u8::try_from(number(object, "reason")?).unwrap_or(0);
            let reason = AbortReason::from_code(code, string(object, "reason_text")?);
            reason.map(EventStatus::Aborted).ok_or_else(|| bad("reason", "a known reason"))
        }
        _ => Err(bad("status", "started, done or aborted")),
    }
}
