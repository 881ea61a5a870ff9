//! The short way for ordinary rows: one pass over the bytes, straight into numbers, no allocation.
//!
//! It reads a row only if everything about it is ordinary, and otherwise says nothing: then [`super::scan`]
//! and [`super::row`] take the long way, which alone knows errors. Whatever is read here means exactly the
//! same there; a property test holds the two together.

use super::header::{Column, Header, Role};
use bursar_core::{
    Action, Amount, Currencies, CurrencyIndex, CustomerId, Decimals, Id, Movement, Reference, Request, RequestKind,
    TransactionId,
};

/// More digits than this may not fit into 64 bits.
const DIGITS_MAX: usize = 19;
const UUID_BYTES: usize = 36;

/// An ordinary row at the beginning of a text.
#[derive(Debug)]
pub(super) struct Ordinary {
    pub(super) request: Request,
    /// The length of its text, without the line end.
    pub(super) text: usize,
    /// Where the next row begins.
    pub(super) next: usize,
}

#[derive(Default)]
struct Fields {
    kind: Option<RequestKind>,
    client: Option<Id>,
    tx: Option<Id>,
    amount: Option<Decimal>,
    currency: Option<CurrencyIndex>,
}

/// A decimal number whose currency is not known yet.
#[derive(Clone, Copy)]
struct Decimal {
    negative: bool,
    digits: u64,
    /// How many of the digits are behind the point.
    decimals: u8,
}

/// Reads the row at the beginning of `text`, whose line end must be in it.
#[inline]
pub(super) fn read(text: &[u8], header: &Header, currencies: &Currencies, bytes_max: usize) -> Option<Ordinary> {
    let mut fields = Fields::default();
    let mut at = 0;
    for role in header.roles() {
        at = skip_blanks(text, at);
        match role {
            Role::Column(Column::Type) => (fields.kind, at) = kind(text, at)?,
            Role::Column(Column::Client) => (fields.client, at) = id(text, at)?,
            Role::Column(Column::Tx) => (fields.tx, at) = id(text, at)?,
            Role::Column(Column::Amount) => (fields.amount, at) = decimal(text, at)?,
            Role::Column(Column::Currency) => (fields.currency, at) = currency(text, at, currencies)?,
            Role::Reject | Role::Ignored => at = ignored(text, at)?,
        }
        at = skip_blanks(text, at);
        let line_end_bytes = match text.get(at)? {
            b',' => {
                at += 1;
                continue;
            }
            b'\n' => 1,
            b'\r' if *text.get(at + 1)? == b'\n' => 2,
            _ => return None,
        };
        if at > bytes_max {
            return None;
        }
        let request = fields.request(currencies)?;
        return Some(Ordinary { request, text: at, next: at + line_end_bytes });
    }
    None
}

impl Fields {
    #[inline]
    fn request(&self, currencies: &Currencies) -> Option<Request> {
        let customer = CustomerId(self.client?);
        let action = match self.kind? {
            RequestKind::Deposit => Action::Deposit(self.movement(currencies)?),
            RequestKind::Withdrawal => Action::Withdrawal(self.movement(currencies)?),
            RequestKind::Dispute => Action::Dispute(self.reference(currencies)?),
            RequestKind::Resolve => Action::Resolve(self.reference(currencies)?),
            RequestKind::Chargeback => Action::Chargeback(self.reference(currencies)?),
            RequestKind::Unlock if self.tx.is_some() || self.amount.is_some() || self.currency.is_some() => {
                return None;
            }
            RequestKind::Unlock => Action::Unlock,
        };
        Some(Request { customer, action })
    }

    #[inline]
    fn movement(&self, currencies: &Currencies) -> Option<Movement> {
        let transaction = TransactionId(self.tx?);
        let currency = self.currency.or(currencies.only())?;
        let amount = self.amount?.steps(currencies.decimals(currency))?;
        Some(Movement { transaction, amount, currency })
    }

    #[inline]
    fn reference(&self, currencies: &Currencies) -> Option<Reference> {
        let transaction = TransactionId(self.tx?);
        let amount = match self.amount {
            None => None,
            Some(decimal) => Some(decimal.steps(currencies.decimals(self.currency.or(currencies.only())?))?),
        };
        Some(Reference { transaction, amount, currency: self.currency })
    }
}

impl Decimal {
    #[inline]
    fn steps(self, decimals: Decimals) -> Option<Amount> {
        let missing = decimals.count().checked_sub(self.decimals)?;
        let steps = self.digits.checked_mul(10u64.pow(u32::from(missing)))?;
        let steps = i64::try_from(steps).ok()?;
        Some(Amount::from_steps(if self.negative { -steps } else { steps }))
    }
}

#[inline]
fn skip_blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

#[inline]
const fn ends_field(byte: u8) -> bool {
    matches!(byte, b',' | b'\n' | b'\r' | b' ' | b'\t')
}

#[inline]
fn kind(text: &[u8], at: usize) -> Option<(Option<RequestKind>, usize)> {
    // The first letters tell the kinds apart; the whole name is compared once.
    let kind = match text.get(at)? | 0x20 {
        b'w' => RequestKind::Withdrawal,
        b'r' => RequestKind::Resolve,
        b'c' => RequestKind::Chargeback,
        b'u' => RequestKind::Unlock,
        b'd' if text.get(at + 1)? | 0x20 == b'e' => RequestKind::Deposit,
        b'd' => RequestKind::Dispute,
        _ => return None,
    };
    let end = at + kind.name().len();
    let same = text.get(at..end)?.eq_ignore_ascii_case(kind.name().as_bytes());
    (same && ends_field(*text.get(end)?)).then_some((Some(kind), end))
}

/// The digits at `at`: their value and the place behind them. At least one, and few enough for 64 bits.
#[inline]
fn digits(text: &[u8], at: usize, value: u64) -> Option<(u64, usize)> {
    let mut value = value;
    let mut end = at;
    loop {
        let digit = text.get(end)?.wrapping_sub(b'0');
        if digit > 9 {
            return Some((value, end));
        }
        // Too many digits wrap around here; the caller counts them and then drops the value.
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        end += 1;
    }
}

#[inline]
fn id(text: &[u8], at: usize) -> Option<(Option<Id>, usize)> {
    let (number, end) = digits(text, at, 0)?;
    if ends_field(*text.get(end)?) {
        return match end - at {
            0 => Some((None, end)),
            1..=DIGITS_MAX => Some((Some(Id::from_bits(u128::from(number))), end)),
            _ => None,
        };
    }
    let end = at + UUID_BYTES;
    let id = Id::parse(text.get(at..end)?).ok()?;
    ends_field(*text.get(end)?).then_some((Some(id), end))
}

#[inline]
fn decimal(text: &[u8], at: usize) -> Option<(Option<Decimal>, usize)> {
    let negative = *text.get(at)? == b'-';
    let start = at + usize::from(negative);
    let (mut number, mut end) = digits(text, start, 0)?;
    let mut digit_count = end - start;
    let mut decimals = 0;
    if *text.get(end)? == b'.' {
        let point = end;
        (number, end) = digits(text, point + 1, number)?;
        decimals = end - point - 1;
        if decimals == 0 {
            return None;
        }
        digit_count += decimals;
    }
    if !ends_field(*text.get(end)?) || digit_count > DIGITS_MAX {
        return None;
    }
    match (digit_count, negative) {
        (0, true) => None,
        (0, false) => Some((None, end)),
        _ => Some((Some(Decimal { negative, digits: number, decimals: decimals as u8 }), end)),
    }
}

#[inline]
fn currency(text: &[u8], at: usize, currencies: &Currencies) -> Option<(Option<CurrencyIndex>, usize)> {
    let mut end = at;
    while !ends_field(*text.get(end)?) {
        end += 1;
    }
    if end == at { Some((None, end)) } else { Some((Some(currencies.find(&text[at..end])?), end)) }
}

/// The end of a field that means nothing: ASCII and not quoted, or the row is not ordinary.
#[inline]
fn ignored(text: &[u8], at: usize) -> Option<usize> {
    if *text.get(at)? == b'"' {
        return None;
    }
    let mut end = at;
    loop {
        match text.get(end)? {
            b',' | b'\n' => return Some(end),
            b'\r' if *text.get(end + 1)? == b'\n' => return Some(end),
            0x80.. => return None,
            _ => end += 1,
        }
    }
}
