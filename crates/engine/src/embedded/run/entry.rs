//! The entries of a run over customers, as they lie in a block.
//!
//! ```text
//! block: entry count (2 bytes) | entries ... | zeros | checksum
//! entry: body bytes * 2 + wide | customer id minus the one before | body
//! body:  accounts * 2 + locked | seq | time_ms | position | link | accounts
//! ```
//!
//! The length of the body comes first, so that a search steps over the customers it does not want. Numbers have
//! variable length, which makes a typical entry about 50 bytes, 32 of them the link.

use super::file::CONTENT_BYTES;
use crate::embedded::codec::{Decoder, Malformed, put_id, put_signed, put_varint};
use bursar_core::currency::CURRENCIES_MAX;
use bursar_core::{Account, Amount, CurrencyIndex, CustomerState, Hash, Head};
use std::ops::Range;

/// The bytes of the entry count at the beginning of a block.
pub(super) const COUNT_BYTES: usize = 2;

/// No entry is longer: length, id, numbers of the body, link, and accounts in all currencies a ledger can have.
const ENTRY_BYTES_MAX: usize = 2 + 16 + (2 + 10 + 10 + 10) + 32 + CURRENCIES_MAX * (1 + 10 + 10);
const _: () = assert!(ENTRY_BYTES_MAX <= CONTENT_BYTES - COUNT_BYTES, "every entry fits in a block");

/// Appends the body of an entry: the head without its open events, and a position relative to where the run's
/// part of the journal begins.
pub(super) fn put_body(out: &mut Vec<u8>, head: &Head, position: u64) {
    let accounts = &head.state.accounts;
    put_varint(out, (accounts.len() as u64) << 1 | u64::from(head.state.locked));
    put_varint(out, head.seq);
    put_varint(out, head.time_ms);
    put_varint(out, position);
    out.extend_from_slice(head.link.as_bytes());
    for (currency, account) in accounts.iter() {
        out.push(currency.0);
        put_signed(out, account.available.steps());
        put_signed(out, account.held.steps());
    }
}

/// Reads what [`put_body`] wrote, and nothing else.
pub(super) fn body(content: &[u8], range: &Range<usize>) -> Result<(Head, u64), Malformed> {
    let bytes = content.get(..range.end).ok_or(Malformed { offset: range.end })?;
    let mut decoder = Decoder::new(bytes, range.start);
    let first = decoder.varint()?;
    let (seq, time_ms, position) = (decoder.varint()?, decoder.varint()?, decoder.varint()?);
    let link = Hash(decoder.array()?);
    let mut state = CustomerState { locked: first & 1 != 0, ..CustomerState::default() };
    let mut last: Option<u8> = None;
    for _ in 0..first >> 1 {
        let offset = decoder.offset();
        let currency = decoder.byte()?;
        if usize::from(currency) >= CURRENCIES_MAX || last.is_some_and(|last| last >= currency) {
            return Err(Malformed { offset });
        }
        last = Some(currency);
        let available = Amount::from_steps(decoder.signed()?);
        let held = Amount::from_steps(decoder.signed()?);
        state.accounts.set(CurrencyIndex(currency), Account { available, held });
    }
    if !decoder.is_at_end() {
        return decoder.malformed();
    }
    Ok((Head { seq, link, time_ms, state, open: Vec::new() }, position))
}

/// Appends an entry behind the one of customer `previous`; 0 at the beginning of a block. Ids must ascend.
pub(super) fn put_entry(out: &mut Vec<u8>, previous: u128, customer: u128, body: &[u8]) {
    let step = customer.wrapping_sub(previous);
    put_varint(out, (body.len() as u64) << 1 | u64::from(u64::try_from(step).is_err()));
    put_id(out, step);
    out.extend_from_slice(body);
}

/// Steps through the entries of a block, which is checked already.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    offset: usize,
    left_count: u16,
    previous: Option<u128>,
}

impl Cursor {
    /// Before the first entry.
    pub(super) fn new(content: &[u8]) -> Result<Self, Malformed> {
        let mut decoder = Decoder::new(content, 0);
        let left_count = u16::from_le_bytes(decoder.array()?);
        Ok(Self { offset: decoder.offset(), left_count, previous: None })
    }

    /// The next customer and where its body lies; `None` behind the last.
    pub(super) fn next(&mut self, content: &[u8]) -> Result<Option<(u128, Range<usize>)>, Malformed> {
        if self.left_count == 0 {
            return Ok(None);
        }
        let mut decoder = Decoder::new(content, self.offset);
        let first = decoder.varint()?;
        let step = decoder.id(first & 1 != 0)?;
        let customer = self.previous.unwrap_or(0).checked_add(step);
        let customer = customer.filter(|_| step > 0 || self.previous.is_none());
        let customer = customer.ok_or(Malformed { offset: self.offset })?;
        let start = decoder.offset();
        decoder.take(usize::try_from(first >> 1).map_err(|_| Malformed { offset: self.offset })?)?;
        self.offset = decoder.offset();
        self.left_count -= 1;
        self.previous = Some(customer);
        Ok(Some((customer, start..self.offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(locked: bool, accounts: &[(u8, i64, i64)]) -> Head {
        let mut state = CustomerState { locked, ..CustomerState::default() };
        for &(currency, available, held) in accounts {
            let (available, held) = (Amount::from_steps(available), Amount::from_steps(held));
            state.accounts.set(CurrencyIndex(currency), Account { available, held });
        }
        Head { seq: 3, link: Hash([7; 32]), time_ms: 300, state, open: Vec::new() }
    }

    #[test]
    fn the_layout_on_disk_never_changes() {
        let mut out = Vec::new();
        put_body(&mut out, &head(true, &[(0, 1, 0), (5, -1, 64)]), 128);
        let mut expected = vec![2 << 1 | 1, 3, 0xac, 2, 0x80, 1];
        expected.extend([7; 32]);
        expected.extend([0, 2, 0, 5, 1, 0x80, 1]);
        assert_eq!(out, expected);

        let mut block = vec![2, 0];
        put_entry(&mut block, 0, 1 << 64, b"ab");
        put_entry(&mut block, 1 << 64, (1 << 64) + 9, b"");
        assert_eq!(block, [2, 0, 2 << 1 | 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 0, 9]);
        let mut cursor = Cursor::new(&block).unwrap();
        assert_eq!(cursor.next(&block), Ok(Some((1 << 64, 19..21))));
        assert_eq!(cursor.next(&block), Ok(Some(((1 << 64) + 9, 23..23))));
        assert_eq!(cursor.next(&block), Ok(None));
    }

    #[test]
    fn the_longest_entry_is_as_long_as_it_is_said_to_be() {
        let accounts: Vec<_> = (0..CURRENCIES_MAX as u8).map(|currency| (currency, i64::MIN, i64::MAX)).collect();
        let longest = Head { seq: u64::MAX, time_ms: u64::MAX, ..head(true, &accounts) };
        let (mut out, mut entry) = (Vec::new(), Vec::new());
        put_body(&mut out, &longest, u64::MAX);
        put_entry(&mut entry, 0, u128::MAX, &out);
        assert_eq!(entry.len(), ENTRY_BYTES_MAX);
        assert_eq!(body(&out, &(0..out.len())), Ok((longest, u64::MAX)));
    }

    #[test]
    fn what_no_writer_writes_is_refused() {
        let mut good = Vec::new();
        put_body(&mut good, &head(false, &[(1, 1, 1), (2, 2, 2)]), 0);
        assert!(body(&good, &(0..good.len())).is_ok());
        let currency_at = good.len() - 6;
        let table: [(&str, fn(&mut Vec<u8>, usize)); 5] = [
            ("a byte too many", |bytes, _| bytes.push(0)),
            ("a byte too few", |bytes, _| bytes.truncate(bytes.len() - 1)),
            ("the same currency twice", |bytes, at| bytes[at] = 2),
            ("a currency no ledger has", |bytes, at| bytes[at + 3] = 64),
            ("more accounts than there are", |bytes, _| bytes[0] += 2),
        ];
        for (what, change) in table {
            let mut bad = good.clone();
            change(&mut bad, currency_at);
            assert!(body(&bad, &(0..bad.len())).is_err(), "{what}");
        }
        assert!(body(&good, &(0..good.len() + 1)).is_err());

        for bad in [&[][..], &[1], &[1, 0], &[1, 0, 2, 1], &[2, 0, 0, 5, 0, 0], &[1, 0, 0xff, 0xff]] {
            let walk = || {
                let mut cursor = Cursor::new(bad)?;
                while cursor.next(bad)?.is_some() {}
                Ok::<_, Malformed>(())
            };
            assert!(walk().is_err(), "{bad:?}");
        }
    }
}
