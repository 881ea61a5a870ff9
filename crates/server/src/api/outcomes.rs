//! The lines of a batch's answer: what they say, and how they are written.
//!
//! A batch has millions of rows, and nearly all are in effect: their lines are written straight into the buffer
//! ([`put_in_effect`]), which takes a third of what serde takes for the same bytes. A test holds them against serde's.

use crate::problem::{Figures, Problem, ProblemDocument};
use crate::shown::{Time, account};
use crate::wire::{ReceiptBody, code};
use bursar_core::Currencies;
use bursar_core::commit::Receipt;
use bytes::{BufMut, BytesMut};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Write;
use utoipa::ToSchema;

/// About as long as a line with a receipt is.
pub(crate) const LINE_BYTES: usize = 360;

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowOutcome {
    /// It took effect.
    Applied,
    /// It took effect before; nothing moved now. `/v1/transactions/{transaction}` has the event of then.
    AlreadyApplied,
    /// The rules refused it; nothing moved.
    Rejected,
    /// The row says nothing that could be decided, or the key's role does not allow it.
    Unreadable,
    /// The engine did not decide it, or it is not known what it decided.
    Undecided,
}

impl RowOutcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AlreadyApplied => "already_applied",
            Self::Rejected => "rejected",
            Self::Unreadable => "unreadable",
            Self::Undecided => "undecided",
        }
    }
}

/// What became of a row.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RowBody<'a> {
    /// The row's first line in the body, counted from 1, blank lines and the header of a CSV included.
    #[schema(minimum = 1)]
    line: u64,
    outcome: RowOutcome,
    /// Of a row that took effect now, or before with the same idempotency key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReceiptBody<'static>)]
    receipt: Option<ReceiptBody<'a>>,
    /// Of a row that is not in effect: the stable code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    code: Option<&'static str>,
    /// Of a row that is not in effect: what happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    detail: Option<Cow<'static, str>>,
    /// The field that is wrong, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    field: Option<&'static str>,
    /// The figures that explain a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Figures)]
    figures: Option<Figures>,
}

/// How many rows became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Summary {
    rows: u64,
    applied: u64,
    already_applied: u64,
    rejected: u64,
    unreadable: u64,
    undecided: u64,
}

/// The last line of a batch's answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndBody {
    summary: Summary,
    /// Why the batch ended before its body did. Rows behind the last one that was answered were not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ProblemDocument)]
    problem: Option<ProblemDocument>,
}

/// A line of a batch's answer: one for each row, and a last one.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, clippy::large_enum_variant, reason = "it is there for the document")]
pub(crate) enum BatchLine {
    /// What became of a row.
    Row(RowBody<'static>),
    /// The last line.
    End(EndBody),
}

impl Summary {
    pub(crate) fn count(&mut self, outcome: RowOutcome) {
        self.rows += 1;
        *match outcome {
            RowOutcome::Applied => &mut self.applied,
            RowOutcome::AlreadyApplied => &mut self.already_applied,
            RowOutcome::Rejected => &mut self.rejected,
            RowOutcome::Unreadable => &mut self.unreadable,
            RowOutcome::Undecided => &mut self.undecided,
        } += 1;
    }
}

/// Writes the line of a row that is in effect.
pub(crate) fn put_in_effect(
    buffer: &mut BytesMut,
    line: u64,
    outcome: RowOutcome,
    receipt: Option<&Receipt>,
    currencies: &Currencies,
) {
    // Writing to memory does not fail.
    try_put_in_effect(buffer, line, outcome, receipt, currencies).unwrap_or_default();
}

/// As serde writes a [`RowBody`]. Nothing here has a character that JSON escapes: a currency's code is made of letters,
/// digits, `_` and `-`.
fn try_put_in_effect(
    buffer: &mut BytesMut,
    line: u64,
    outcome: RowOutcome,
    receipt: Option<&Receipt>,
    currencies: &Currencies,
) -> std::fmt::Result {
    write!(buffer, r#"{{"line":{line},"outcome":"{}""#, outcome.name())?;
    if let Some(Receipt { event, hash, time_ms, currency, account: of, locked }) = receipt {
        let (customer, seq, id, time) = (event.customer, event.seq, event.id, Time(*time_ms));
        write!(
            buffer,
            r#","receipt":{{"customer":"{customer}","seq":{seq},"event":"{id}","hash":"{hash}","time":"{time}""#
        )?;
        if let Some(code) = code(currencies, *currency) {
            write!(buffer, r#","currency":"{code}""#)?;
        }
        let [available, held, total] = account(currencies, *currency, *of);
        write!(buffer, r#","available":"{available}","held":"{held}","total":"{total}","locked":{locked}}}"#)?;
    }
    buffer.write_str("}\n")
}

/// Writes the line of a row that is not in effect.
pub(crate) fn put_not_in_effect(
    buffer: &mut BytesMut,
    line: u64,
    outcome: RowOutcome,
    problem: &Problem,
    currencies: &Currencies,
) {
    let document = problem.document(currencies, None);
    let code = Some(document.code());
    let (detail, field, figures) = document.into_detail();
    put_line(buffer, &RowBody { line, outcome, receipt: None, code, detail: Some(detail), field, figures });
}

/// Writes the last line.
pub(crate) fn put_end(buffer: &mut BytesMut, summary: Summary, problem: Option<&Problem>, currencies: &Currencies) {
    let problem = problem.map(|problem| problem.document(currencies, None));
    put_line(buffer, &EndBody { summary, problem });
}

fn put_line(buffer: &mut BytesMut, line: &impl Serialize) {
    // Writing to memory does not fail, nor does any of these types.
    if serde_json::to_writer(buffer.writer(), line).is_ok() {
        buffer.put_u8(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::receipt_body;
    use bursar_core::EventRef;
    use bursar_core::{Account, Amount, Currency, CurrencyIndex, CustomerId, Decimals, EventId, Hash};

    fn receipt(customer: u128, seq: u64, steps: i64, held: i64) -> Receipt {
        let mut hash = Hash::default();
        hash.0.iter_mut().zip(0u8..).for_each(|(byte, at)| *byte = (seq as u8).wrapping_add(at.wrapping_mul(37)));
        Receipt {
            event: EventRef { customer: CustomerId::new(customer), seq, id: EventId::from_hash(&hash) },
            hash,
            time_ms: 1_769_860_800_007_u64.saturating_add(seq),
            currency: CurrencyIndex(0),
            account: Account { available: Amount::from_steps(steps), held: Amount::from_steps(held) },
            locked: seq.is_multiple_of(2),
        }
    }

    #[test]
    fn a_row_in_effect_is_written_as_serde_writes_it() {
        let euro = Currency::new("EUR", Decimals::new(2).unwrap()).unwrap();
        let several = [Currencies::default(), Currencies::named(vec![euro]).unwrap()];
        let receipts = [
            None,
            Some(receipt(1, 1, 125_000, 0)),
            Some(receipt(u128::MAX, u64::MAX, i64::MAX, i64::MAX)),
            Some(receipt(u128::from(u64::MAX), 200, i64::MIN, 0)),
            Some(receipt(0, 2, -1, 1)),
        ];
        for currencies in &several {
            for (receipt, line) in receipts.iter().zip(1..) {
                for outcome in [RowOutcome::Applied, RowOutcome::AlreadyApplied] {
                    let mut written = BytesMut::new();
                    put_in_effect(&mut written, line, outcome, receipt.as_ref(), currencies);
                    let mut expected = BytesMut::new();
                    let (code, detail, field, figures) = (None, None, None, None);
                    let receipt = receipt.as_ref().map(|receipt| receipt_body(receipt, currencies));
                    put_line(&mut expected, &RowBody { line, outcome, receipt, code, detail, field, figures });
                    assert_eq!(written, expected);
                }
            }
        }
    }

    #[test]
    fn outcomes_are_named_as_serde_names_them() {
        use RowOutcome as O;
        for outcome in [O::Applied, O::AlreadyApplied, O::Rejected, O::Unreadable, O::Undecided] {
            assert_eq!(serde_json::to_string(&outcome).unwrap(), format!("\"{}\"", outcome.name()));
        }
    }
}
