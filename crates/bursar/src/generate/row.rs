//! Rows as bytes: kinds, ids and amounts written straight into a buffer, without an allocation per row.

use super::plan::Plan;
use super::random::scatter;
use super::steps_of;
use super::window::Made;
use crate::cli::{ClientIdsArg, TransactionIdsArg};
use bursar_core::RequestKind;

/// Odd numbers that keep the id spaces apart; any would do, but never others once workloads are out.
const TRANSACTIONS_HIGH: u64 = 0xd1b5_4a32_d192_ed03;
const TRANSACTIONS_LOW: u64 = 0xaef1_7502_108e_f2d9;
const CLIENTS_HIGH: u64 = 0xf135_7aea_2e62_a9c5;
const CLIENTS_LOW: u64 = 0xd605_f1bf_7bd7_62ad;

/// Writes rows in the form that a plan asks for.
pub(crate) struct Writer<'p> {
    plan: &'p Plan,
    currencies: Vec<CurrencyForm>,
    /// What scattered ids are scattered by.
    salt: u64,
}

struct CurrencyForm {
    /// `,EUR`, or nothing where there is no column for it.
    column: Vec<u8>,
    decimals: u8,
    steps_per_unit: u64,
    steps_max: u64,
}

impl<'p> Writer<'p> {
    pub(crate) fn new(plan: &'p Plan) -> Self {
        let form = |(currency, amount_max): &(bursar_core::Currency, bursar_core::Amount)| CurrencyForm {
            column: [b",", currency.code().as_bytes()].concat(),
            decimals: currency.decimals().count(),
            steps_per_unit: currency.decimals().steps_per_unit(),
            steps_max: steps_of(*amount_max),
        };
        let mut currencies: Vec<CurrencyForm> = plan.currencies.iter().map(form).collect();
        if currencies.is_empty() {
            let (decimals, amount_max) = plan.unnamed;
            currencies.push(CurrencyForm {
                column: Vec::new(),
                decimals: decimals.count(),
                steps_per_unit: decimals.steps_per_unit(),
                steps_max: steps_of(amount_max),
            });
        }
        Self { plan, currencies, salt: scatter(plan.seed) }
    }

    /// How many currencies there are to draw from, at least 1.
    pub(crate) fn currency_count(&self) -> u64 {
        self.currencies.len() as u64
    }

    /// The largest amount in a currency, in its smallest steps.
    pub(crate) fn steps_max(&self, currency: u8) -> u64 {
        self.currencies[usize::from(currency)].steps_max
    }

    pub(crate) fn header(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"type,client,tx,amount");
        out.extend_from_slice(if self.plan.currencies.is_empty() { b"\n" } else { b",currency\n" });
    }

    /// A deposit or a withdrawal.
    pub(crate) fn movement(&self, out: &mut Vec<u8>, kind: RequestKind, made: &Made) {
        self.raw(out, kind.name().as_bytes(), made, None);
    }

    /// A row with any bytes as its kind and, if given, as its amount.
    pub(crate) fn raw(&self, out: &mut Vec<u8>, kind: &[u8], made: &Made, amount: Option<&[u8]>) {
        self.kind_and_ids(out, kind, made.client, made.transaction);
        match amount {
            Some(amount) => out.extend_from_slice(amount),
            None => self.amount(out, made),
        }
        self.end(out, made);
    }

    /// A deposit or withdrawal of less than nothing.
    pub(crate) fn negative(&self, out: &mut Vec<u8>, kind: RequestKind, made: &Made) {
        self.kind_and_ids(out, kind.name().as_bytes(), made.client, made.transaction);
        out.push(b'-');
        self.amount(out, made);
        self.end(out, made);
    }

    /// A row that ends after its client.
    pub(crate) fn without_transaction(&self, out: &mut Vec<u8>, kind: RequestKind, made: &Made) {
        out.extend_from_slice(kind.name().as_bytes());
        out.push(b',');
        self.client(out, made.client);
        out.push(b'\n');
    }

    /// A dispute, resolve or chargeback: without an amount, and without a currency.
    pub(crate) fn reference(&self, out: &mut Vec<u8>, kind: RequestKind, client: u64, transaction: u64) {
        self.kind_and_ids(out, kind.name().as_bytes(), client, transaction);
        out.extend_from_slice(if self.plan.currencies.is_empty() { b"\n" } else { b",\n" });
    }

    fn kind_and_ids(&self, out: &mut Vec<u8>, kind: &[u8], client: u64, transaction: u64) {
        out.extend_from_slice(kind);
        out.push(b',');
        self.client(out, client);
        out.push(b',');
        self.transaction(out, transaction);
        out.push(b',');
    }

    fn client(&self, out: &mut Vec<u8>, rank: u64) {
        match self.plan.client_ids {
            ClientIdsArg::Number => push_number(out, rank.saturating_add(1)),
            ClientIdsArg::Uuid => self.push_uuid(out, rank, CLIENTS_HIGH, CLIENTS_LOW),
        }
    }

    /// The id of the transaction with this number. [`scatter`] is a bijection, so no two share an id.
    fn transaction(&self, out: &mut Vec<u8>, number: u64) {
        match self.plan.ids {
            TransactionIdsArg::Rising => push_number(out, number),
            TransactionIdsArg::Random => push_number(out, scatter(number ^ self.salt)),
            TransactionIdsArg::Uuid => self.push_uuid(out, number, TRANSACTIONS_HIGH, TRANSACTIONS_LOW),
        }
    }

    fn amount(&self, out: &mut Vec<u8>, made: &Made) {
        let form = &self.currencies[usize::from(made.currency)];
        push_number(out, made.steps / form.steps_per_unit);
        if form.decimals > 0 {
            out.push(b'.');
            push_padded(out, made.steps % form.steps_per_unit, usize::from(form.decimals));
        }
    }

    fn end(&self, out: &mut Vec<u8>, made: &Made) {
        out.extend_from_slice(&self.currencies[usize::from(made.currency)].column);
        out.push(b'\n');
    }

    /// A UUID in the form of version 4 (RFC 9562, section 5.4) whose 122 bits follow from a number.
    fn push_uuid(&self, out: &mut Vec<u8>, number: u64, high: u64, low: u64) {
        let salted = number ^ self.salt;
        let high = (scatter(salted ^ high) & !0xf000) | 0x4000;
        let low = (scatter(salted ^ low) >> 2) | 1 << 63;
        push_hex(out, high >> 32, 8);
        out.push(b'-');
        push_hex(out, high >> 16, 4);
        out.push(b'-');
        push_hex(out, high, 4);
        out.push(b'-');
        push_hex(out, low >> 48, 4);
        out.push(b'-');
        push_hex(out, low, 12);
    }
}

/// The lowest `digit_count` hexadecimal digits.
fn push_hex(out: &mut Vec<u8>, bits: u64, digit_count: usize) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 12];
    for (place, byte) in text[..digit_count].iter_mut().rev().enumerate() {
        *byte = DIGITS[(bits >> (4 * place)) as usize & 0xf];
    }
    out.extend_from_slice(&text[..digit_count]);
}

/// A number in decimal.
fn push_number(out: &mut Vec<u8>, number: u64) {
    const DIGITS_MAX: usize = 20;
    let mut text = [b'0'; DIGITS_MAX];
    let mut start = DIGITS_MAX;
    let mut rest = number;
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

/// A number in decimal with zeros before it, up to nine digits.
fn push_padded(out: &mut Vec<u8>, number: u64, digit_count: usize) {
    let mut text = [b'0'; bursar_core::DECIMALS_MAX as usize];
    let mut rest = number;
    for byte in text[..digit_count].iter_mut().rev() {
        *byte = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&text[..digit_count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_the_standard_library_writes_them() {
        for number in [0, 1, 9, 10, 99, 12_345, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().into_bytes());
        }
        let mut out = Vec::new();
        push_padded(&mut out, 42, 4);
        push_padded(&mut out, 7, 9);
        push_hex(&mut out, 0xabc, 4);
        assert_eq!(out, b"00420000000070abc");
    }
}
