//! The shortest way, for files of nothing but `type,client,tx,amount`: eight bytes at a time.
//!
//! It reads a row only if it has no blanks, no quotes, ids and amounts of usual length, and bytes enough behind it, and
//! otherwise says nothing: then [`super::fast`] tries, and after it the long way. Whatever is read here means exactly
//! the same there; property tests and a fuzzer hold the ways together.

#![allow(clippy::inline_always)] // what a call and its result in memory cost is a good part of what a number costs

use super::fast::Ordinary;
use bursar_core::{
    Action, Amount, Currencies, CurrencyIndex, CustomerId, Decimals, Id, Movement, Reference, Request, TransactionId,
};

/// The same byte eight times.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// A text of eight bytes as [`word`] reads it.
const fn text_word(text: [u8; 8]) -> u64 {
    u64::from_le_bytes(text)
}

const DEPOSIT: u64 = text_word(*b"deposit,");
const DISPUTE: u64 = text_word(*b"dispute,");
const RESOLVE: u64 = text_word(*b"resolve,");
const WITHDRAW: u64 = text_word(*b"withdraw");
const CHARGEBA: u64 = text_word(*b"chargeba");
/// Makes letters small, and nothing else a letter.
const SMALL: u64 = eight(0x20);
/// The same for seven of eight bytes.
const SMALL_SEVEN: u64 = SMALL >> 8;

/// Powers of ten.
const POWERS: [u64; 16] = {
    let mut powers = [1; 16];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = 10 * powers[index - 1];
        index += 1;
    }
    powers
};

enum Kind {
    Deposit,
    Withdrawal,
    Dispute,
    Resolve,
    Chargeback,
}

/// Reads the row at the beginning of `text`, in a ledger with this one currency.
#[inline]
pub(super) fn read(text: &[u8], currencies: &Currencies, bytes_max: usize) -> Option<Ordinary> {
    let currency = currencies.only()?;
    let (kind, at) = kind(text)?;
    let (client, at) = id(text, at)?;
    let (tx, at) = id(text, at)?;
    let (amount, text_bytes, next) = last_field(text, at, currencies.decimals(currency))?;
    if text_bytes > bytes_max {
        return None;
    }
    let transaction = TransactionId(tx);
    let movement = |amount: Option<Amount>| Some(Movement { transaction, amount: amount?, currency });
    let reference = |amount| Reference { transaction, amount, currency: None::<CurrencyIndex> };
    let action = match kind {
        Kind::Deposit => Action::Deposit(movement(amount)?),
        Kind::Withdrawal => Action::Withdrawal(movement(amount)?),
        Kind::Dispute => Action::Dispute(reference(amount)),
        Kind::Resolve => Action::Resolve(reference(amount)),
        Kind::Chargeback => Action::Chargeback(reference(amount)),
    };
    let request = Request { customer: CustomerId(client), action };
    Some(Ordinary { request, text: text_bytes, next })
}

#[inline(always)]
fn word(text: &[u8], at: usize) -> Option<u64> {
    text.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The kind, and the place behind its comma.
#[inline(always)]
fn kind(text: &[u8]) -> Option<(Kind, usize)> {
    let begin = word(text, 0)?;
    match begin | SMALL_SEVEN {
        DEPOSIT => return Some((Kind::Deposit, 8)),
        DISPUTE => return Some((Kind::Dispute, 8)),
        RESOLVE => return Some((Kind::Resolve, 8)),
        _ => {}
    }
    let [a, b, comma] = *text.get(8..)?.first_chunk()?;
    match (begin | SMALL, [a | 0x20, b | 0x20, comma]) {
        (WITHDRAW, [b'a', b'l', b',']) => Some((Kind::Withdrawal, 11)),
        (CHARGEBA, [b'c', b'k', b',']) => Some((Kind::Chargeback, 11)),
        _ => None,
    }
}

/// The digits at the beginning of a word: their number, and how many there are.
#[inline(always)]
const fn digits(word: u64) -> (u64, u32) {
    let values = word ^ eight(b'0');
    // The highest bit of a byte says that it is no digit. What overflows spoils only the bytes behind it.
    let others = (values.wrapping_add(eight(0x7f - 9)) | values) & eight(0x80);
    let count = others.trailing_zeros() / 8;
    if count == 0 {
        return (0, 0);
    }
    // Zeros come in before the first digit, and what is no digit goes out. Then neighbours are joined.
    let values = values << (u64::BITS.wrapping_sub(8 * count) & 63);
    let pairs = values.wrapping_mul(10).wrapping_add(values >> 8);
    let upper = (pairs & 0xff_0000_00ff).wrapping_mul(100 + (1_000_000 << 32));
    let lower = ((pairs >> 16) & 0xff_0000_00ff).wrapping_mul(1 + (10_000 << 32));
    (upper.wrapping_add(lower) >> 32, count)
}

/// A number of at most fifteen digits: itself, how many digits it has, and the byte behind them.
#[inline(always)]
fn number(text: &[u8], at: usize) -> Option<(u64, u32, u8)> {
    let begin = word(text, at)?;
    let (number, count) = digits(begin);
    if count < 8 {
        return Some((number, count, (begin >> (8 * count)) as u8));
    }
    let more = word(text, at + 8)?;
    let (more_number, more_count) = digits(more);
    let behind = more.checked_shr(8 * more_count)? as u8;
    Some((number * POWERS[more_count as usize] + more_number, count + more_count, behind))
}

/// An id, and the place behind its comma.
#[inline(always)]
fn id(text: &[u8], at: usize) -> Option<(Id, usize)> {
    let (number, count, behind) = number(text, at)?;
    if behind == b',' && count > 0 {
        return Some((Id::from_bits(u128::from(number)), at + count as usize + 1));
    }
    uuid(text, at)
}

fn uuid(text: &[u8], at: usize) -> Option<(Id, usize)> {
    let text: &[u8; 37] = text.get(at..)?.first_chunk()?;
    if [text[8], text[13], text[18], text[23], text[36]] != *b"----," {
        return None;
    }
    let part = |from: usize| text.get(from..)?.first_chunk().map(|bytes: &[u8; 4]| u32::from_le_bytes(*bytes));
    let parts = |first, second| Some(u64::from(part(first)?) | u64::from(part(second)?) << 32);
    let upper = u64::from(hexadecimal(parts(0, 4)?)?) << 32 | u64::from(hexadecimal(parts(9, 14)?)?);
    let lower = u64::from(hexadecimal(parts(19, 24)?)?) << 32 | u64::from(hexadecimal(parts(28, 32)?)?);
    (upper > 0).then(|| (Id::from_bits(u128::from(upper) << 64 | u128::from(lower)), at + text.len()))
}

/// Eight hexadecimal digits.
#[inline]
fn hexadecimal(word: u64) -> Option<u32> {
    let letters = (word >> 6) & eight(1);
    let values = (word & eight(0x0f)) + letters * 9;
    // Written again, they must be what they were: nothing else than a digit has its value.
    let above_nine = ((values + eight(6)) >> 4) & eight(1);
    let written = values + eight(b'0') + above_nine * u64::from(b'a' - b'0' - 10);
    if values & eight(0xf0) != 0 || written != word | letters << 5 {
        return None;
    }
    let halves = values.swap_bytes();
    let bytes = (halves | halves >> 4) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes | bytes >> 8) & 0x0000_ffff_0000_ffff;
    Some((pairs | pairs >> 16) as u32)
}

/// The amount, if there is one, the place of the line's end, and the place behind that.
#[inline(always)]
fn last_field(text: &[u8], at: usize, decimals: Decimals) -> Option<(Option<Amount>, usize, usize)> {
    let (units, unit_digits, mut behind) = number(text, at)?;
    let mut end = at + unit_digits as usize;
    let decimals = u32::from(decimals.count());
    let mut steps = units.checked_mul(*POWERS.get(decimals as usize)?)?;
    let mut digit_count = unit_digits;
    if behind == b'.' {
        let (fraction, fraction_digits, behind_fraction) = number(text, end + 1)?;
        if fraction_digits == 0 {
            return None;
        }
        let missing = decimals.checked_sub(fraction_digits)?;
        steps = steps.checked_add(fraction * POWERS.get(missing as usize)?)?;
        end += 1 + fraction_digits as usize;
        digit_count += fraction_digits;
        behind = behind_fraction;
    }
    let next = match behind {
        b'\n' => end + 1,
        b'\r' if *text.get(end + 1)? == b'\n' => end + 2,
        _ => return None,
    };
    let amount = if digit_count == 0 { None } else { Some(Amount::from_steps(i64::try_from(steps).ok()?)) };
    Some((amount, end, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_end_where_they_end() {
        let table: &[(&[u8; 8], u64, u32)] = &[
            (b"12345678", 12_345_678, 8),
            (b"00000000", 0, 8),
            (b"99999999", 99_999_999, 8),
            (b"9,\xff45678", 9, 1),
            (b"1234567\n", 1_234_567, 7),
            (b",1234567", 0, 0),
            (b"12:45678", 12, 2),
            (b"12/45678", 12, 2),
            (b"12\xb045678", 12, 2),
            (b"\x00\x00 12345", 0, 0),
        ];
        for (text, number, count) in table {
            assert_eq!(digits(text_word(**text)), (*number, *count), "{text:?}");
        }
    }

    #[test]
    fn every_byte_is_a_hexadecimal_digit_or_is_none() {
        for place in 0..8 {
            for byte in 0..=u8::MAX {
                let mut text = *b"19aFfA90";
                text[place] = byte;
                let expected = std::str::from_utf8(&text).ok().filter(|_| byte.is_ascii_hexdigit());
                let expected = expected.map(|text| u32::from_str_radix(text, 16).unwrap());
                assert_eq!(hexadecimal(text_word(text)), expected, "{text:?}");
            }
        }
    }
}
