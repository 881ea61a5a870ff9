//! SHA-256 under a domain, and the ids of events that follow from it.
//!
//! Every digest begins with eight bytes that say what is being hashed, so that no two kinds of content can
//! ever be mistaken for each other. SHA-256 because every language, browser and auditor has it.

use crate::digits::Text;
use core::fmt;
use sha2::{Digest, Sha256};

/// What a digest is of; its eight bytes come first in the hash. The `1` is the version of the encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// A ledger's identity, policy and currencies.
    Ledger,
    /// The beginning of one customer's chain.
    Chain,
    /// An event.
    Event,
    /// An event that was aborted.
    Aborted,
    /// An event that an operator has settled as done.
    DoneByHand,
    /// A frame of a journal.
    Frame,
    /// The key of a request.
    Key,
}

impl Domain {
    /// The eight bytes.
    pub const fn tag(self) -> &'static [u8; 8] {
        match self {
            Self::Ledger => b"bursar1l",
            Self::Chain => b"bursar1c",
            Self::Event => b"bursar1e",
            Self::Aborted => b"bursar1a",
            Self::DoneByHand => b"bursar1h",
            Self::Frame => b"bursar1f",
            Self::Key => b"bursar1k",
        }
    }
}

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads 64 hexadecimal digits, in either letter case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |b: u8| char::from(b).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::<64>::new();
        text.hex(&self.0);
        text.show(f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of an event: a UUID of version 8 (RFC 9562, section 5.8) made of the first 128 bits of its hash.
///
/// It names the event, links it and proves it; it needs no randomness, and it is the idempotency key
/// towards every rail.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventId(u128);

impl EventId {
    /// The id of the event with this hash.
    pub const fn from_hash(hash: &Hash) -> Self {
        let mut first = [0; 16];
        let mut index = 0;
        while index < first.len() {
            first[index] = hash.0[index];
            index += 1;
        }
        Self::from_first_bits(u128::from_be_bytes(first))
    }

    /// The id with these bits; the six that say version and variant are set, whatever they were.
    pub const fn from_first_bits(bits: u128) -> Self {
        let version = 0xF << 76;
        let variant = 0b11 << 62;
        Self(bits & !version & !variant | 0x8 << 76 | 0b10 << 62)
    }

    /// Reads an id as it is shown: a UUID of version 8. `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bits: u128 = 0;
        if text.len() != 36 {
            return None;
        }
        for (at, &byte) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
                continue;
            }
            bits = bits << 4 | u128::from(char::from(byte).to_digit(16)?);
        }
        Some(Self::from_first_bits(bits)).filter(|id| id.0 == bits)
    }

    /// The 128 bits.
    pub const fn bits(self) -> u128 {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::<36>::new();
        text.uuid(self.0);
        text.show(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest being made.
#[derive(Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Begins with the domain's eight bytes.
    pub fn new(domain: Domain) -> Self {
        let mut sha = Sha256::new();
        sha.update(domain.tag());
        Self(sha)
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// The digest of bytes that are already laid out with their domain in front.
pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn an_event_id_is_a_uuid_of_version_8() {
        let id = EventId::from_hash(&Hash([0xff; 32]));
        assert_eq!(id.to_string(), "ffffffff-ffff-8fff-bfff-ffffffffffff");
        let id = EventId::from_hash(&Hash([0x00; 32]));
        assert_eq!(id.to_string(), "00000000-0000-8000-8000-000000000000");
    }

    #[test]
    fn a_hash_reads_back() {
        let hash = sha256(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(Hash::parse(hash.to_string().as_bytes()), Some(hash));
        assert_eq!(Hash::parse(b"ba78"), None);
    }
}
