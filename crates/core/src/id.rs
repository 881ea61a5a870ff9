//! Ids of customers and transactions: 128 bits, written as a number below 2^64 or as a UUID.
//!
//! Plain counters, Snowflake ids and UUIDs are all taken as they are, without a mapping table. Ids of
//! events are not made here; they follow from an event's hash, see [`crate::hash`].

use crate::digits::Text;
use core::fmt;

/// The 128 bits behind a [`CustomerId`] or a [`TransactionId`].
///
/// A value below 2^64 is written as a decimal number, every other as a UUID in lower case. A UUID whose
/// upper 64 bits are all zero would be a second spelling of a number, so it is refused when read; no UUID
/// version makes such values, except the nil UUID, which names nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id(u128);

impl Id {
    /// The id with these 128 bits.
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// Reads a decimal number below 2^64, or a UUID in its 36 character form, in either letter case.
    pub fn parse(text: &[u8]) -> Result<Self, IdError> {
        match text.len() {
            0 => Err(IdError { kind: IdErrorKind::Empty, at: 0 }),
            36 if text[8] == b'-' => Self::parse_uuid(text),
            _ => Self::parse_number(text),
        }
    }

    fn parse_number(text: &[u8]) -> Result<Self, IdError> {
        let mut number: u64 = 0;
        for (at, &byte) in text.iter().enumerate() {
            if !byte.is_ascii_digit() {
                return Err(IdError { kind: IdErrorKind::NotAnId, at });
            }
            let next = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
            number = next.ok_or(IdError { kind: IdErrorKind::TooLarge, at })?;
        }
        Ok(Self(u128::from(number)))
    }

    fn parse_uuid(text: &[u8]) -> Result<Self, IdError> {
        let mut bits: u128 = 0;
        for (at, &byte) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(IdError { kind: IdErrorKind::NotAnId, at });
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or(IdError { kind: IdErrorKind::NotAnId, at })?;
            bits = bits << 4 | u128::from(digit);
        }
        if bits >> 64 == 0 {
            return Err(IdError { kind: IdErrorKind::UuidOfNumber, at: 0 });
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::<36>::new();
        match u64::try_from(self.0) {
            Ok(number) => text.number(number, 1),
            Err(_) => text.uuid(self.0),
        }
        text.show(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! id_of {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub Id);

        impl $name {
            /// The id with this number, or these 128 bits.
            pub const fn new(bits: u128) -> Self {
                Self(Id::from_bits(bits))
            }

            /// The 128 bits.
            pub const fn bits(self) -> u128 {
                self.0.bits()
            }

            /// As [`Id::parse`].
            pub fn parse(text: &[u8]) -> Result<Self, IdError> {
                Id::parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id_of! {
    /// Names whoever owns money here, and with that one chain.
    CustomerId
}
id_of! {
    /// Names a deposit or a withdrawal; unique across the whole ledger.
    TransactionId
}

/// Why a text is no id, and the index of the byte where that shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdError {
    /// What is wrong.
    pub kind: IdErrorKind,
    /// Index of the offending byte in the text.
    pub at: usize,
}

/// What is wrong with a text that should be an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdErrorKind {
    /// There is no text.
    Empty,
    /// A byte that neither a number nor a UUID has there.
    NotAnId,
    /// A number of 2^64 or more.
    TooLarge,
    /// A UUID whose upper half is zero: it would be a second spelling of a number.
    UuidOfNumber,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl core::error::Error for IdError {}

impl fmt::Display for IdErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no id is given",
            Self::NotAnId => "an id is a whole number below 2^64, or a UUID",
            Self::TooLarge => "a number used as an id must be below 2^64",
            Self::UuidOfNumber => "the upper half of this UUID is zero, which is reserved for numbers",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn reads_numbers_and_uuids_or_says_where() {
        use IdErrorKind as K;
        let table: &[(&str, Result<u128, (K, usize)>)] = &[
            ("0", Ok(0)),
            ("42", Ok(42)),
            ("18446744073709551615", Ok(u128::from(u64::MAX))),
            ("18446744073709551616", Err((K::TooLarge, 19))),
            ("6BA7B810-9dad-11d1-80b4-00c04fd430c8", Ok(0x6ba7_b810_9dad_11d1_80b4_00c0_4fd4_30c8)),
            ("6ba7b810-9dad-11d1-80b4_00c04fd430c8", Err((K::NotAnId, 23))),
            ("6ba7b810-9dad-11d1-80b4-00c04fd430cg", Err((K::NotAnId, 35))),
            ("00000000-0000-0000-0000-000000000000", Err((K::UuidOfNumber, 0))),
            ("", Err((K::Empty, 0))),
            ("-1", Err((K::NotAnId, 0))),
            ("1.0", Err((K::NotAnId, 1))),
            (" 1", Err((K::NotAnId, 0))),
            ("abc", Err((K::NotAnId, 0))),
        ];
        for (text, expected) in table {
            let got = Id::parse(text.as_bytes()).map(Id::bits).map_err(|e| (e.kind, e.at));
            assert_eq!(got, *expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(high in prop_oneof![Just(0u64), any::<u64>()], low: u64) {
            let id = Id::from_bits(u128::from(high) << 64 | u128::from(low));
            prop_assert_eq!(Id::parse(id.to_string().as_bytes()), Ok(id));
        }
    }
}
