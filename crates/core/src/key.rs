//! Keys of requests: what an idempotency key becomes in a ledger.
//!
//! A deposit and a withdrawal bring the id of their transaction with them, and asking twice is safe. The other
//! requests have no id of their own; a caller can give them a key. What an event carries is not the caller's text but
//! its digest: short, of one length, and another one in every ledger.

use crate::hash::{Domain, Hash, Hasher};
use core::fmt;
use core::num::NonZeroU128;

/// The most bytes that the text of a key may have.
pub const KEY_TEXT_BYTES_MAX: usize = 255;

/// The key of a request, as its event carries it: the first 128 bits of a digest of the ledger and the caller's text.
///
/// It is one of the whole ledger, as a transaction id is, and names at most one event in effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKey(NonZeroU128);

impl RequestKey {
    /// The key with this text in a ledger; `None` unless the text has 1 to [`KEY_TEXT_BYTES_MAX`] bytes, all of them
    /// visible ASCII characters or spaces, as RFC 9651 has them in a string.
    pub fn of_text(ledger_digest: &Hash, text: &[u8]) -> Option<Self> {
        let fits = (1..=KEY_TEXT_BYTES_MAX).contains(&text.len());
        if !fits || !text.iter().all(|byte| (0x20..=0x7e).contains(byte)) {
            return None;
        }
        let mut hasher = Hasher::new(Domain::Key);
        hasher.update(ledger_digest.as_bytes());
        hasher.update(text);
        let mut first = [0; 16];
        first.copy_from_slice(&hasher.finish().as_bytes()[..16]);
        // Zero stands for "no key" in encodings; a text with that digest has the next number instead.
        Some(Self(NonZeroU128::new(u128::from_be_bytes(first)).unwrap_or(NonZeroU128::MIN)))
    }

    /// The key with these bits; `None` for zero, which no key has.
    pub const fn from_bits(bits: u128) -> Option<Self> {
        match NonZeroU128::new(bits) {
            Some(bits) => Some(Self(bits)),
            None => None,
        }
    }

    /// The 128 bits.
    pub const fn bits(self) -> u128 {
        self.0.get()
    }

    /// Reads 32 hexadecimal digits in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 32 || !text.as_bytes().iter().all(is_digit) {
            return None;
        }
        Self::from_bits(u128::from_str_radix(text, 16).ok()?)
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    /// Golden: this value is the format.
    #[test]
    fn a_key_is_a_digest_of_the_ledger_and_the_text() {
        let key = RequestKey::of_text(&Hash([9; 32]), b"order 17").unwrap();
        assert_eq!(key.to_string(), "28c742e2273ffbd49f373cac854d4936");
        assert_eq!(RequestKey::parse(&key.to_string()), Some(key));
        assert_ne!(RequestKey::of_text(&Hash([8; 32]), b"order 17"), Some(key));
        assert_ne!(RequestKey::of_text(&Hash([9; 32]), b"order 18"), Some(key));
    }

    #[test]
    fn only_some_texts_are_keys() {
        let fits = |text: &[u8]| RequestKey::of_text(&Hash::default(), text).is_some();
        for (text, expected) in [
            (vec![], false),
            (vec![b'x'], true),
            (vec![b'x'; 255], true),
            (vec![b'x'; 256], false),
            (vec![b' '], true),
            (vec![b'\t'], false),
            (vec![0x7f], false),
            ("é".as_bytes().to_vec(), false),
        ] {
            assert_eq!(fits(&text), expected, "{text:?}");
        }
        for text in ["0".repeat(32), "F".repeat(32), "f".repeat(31), "f".repeat(33)] {
            assert_eq!(RequestKey::parse(&text), None, "{text}");
        }
    }
}
