//! Keys and sealed entries: whose they are, what they are about, when they were true, and a tag over all of it.
//!
//! An entry that was damaged, cut short, written under another key, for another ledger or by somebody without the secret is
//! not believed. Without a secret the tag only tells accidents. `docs/cache.md` has the bytes.

use bursar_core::{CustomerId, Hash, TransactionId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The version of keys and entries. Another one is another space of keys.
const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 8;

/// What entries are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The head of a customer's chain.
    Head(CustomerId),
    /// An event of a chain, closed.
    Event(CustomerId, u64),
    /// How an event of a chain was closed.
    Status(CustomerId, u64),
    /// The table's entry of a transaction.
    Transaction(TransactionId),
    /// The events that touched a transaction.
    Touches(TransactionId),
    /// The event that made a transaction, with what it builds on.
    Maker(TransactionId),
}

/// Makes keys, and seals and opens entries, for one ledger.
pub(crate) struct Seal {
    prefix: String,
    mac: Hmac<Sha256>,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64
}

impl Seal {
    pub(crate) fn new(ledger_digest: &Hash, secret: Option<&str>) -> Self {
        let mut prefix = format!("bursar:{VERSION}:");
        for byte in &ledger_digest.as_bytes()[..16] {
            // Writing to a string does not fail.
            write!(prefix, "{byte:02x}").ok();
        }
        let key = [ledger_digest.as_bytes().as_slice(), secret.unwrap_or_default().as_bytes()].concat();
        let mut mac = keyed(&key);
        mac.update(b"bursar cache");
        Self { prefix, mac }
    }

    pub(crate) fn key(&self, about: About) -> Vec<u8> {
        let prefix = &self.prefix;
        let key = match about {
            About::Head(customer) => format!("{prefix}:h:{:032x}", customer.bits()),
            About::Event(customer, seq) => format!("{prefix}:e:{:032x}:{seq:x}", customer.bits()),
            About::Status(customer, seq) => format!("{prefix}:s:{:032x}:{seq:x}", customer.bits()),
            About::Transaction(transaction) => format!("{prefix}:t:{:032x}", transaction.bits()),
            About::Touches(transaction) => format!("{prefix}:o:{:032x}", transaction.bits()),
            About::Maker(transaction) => format!("{prefix}:m:{:032x}", transaction.bits()),
        };
        key.into_bytes()
    }

    /// Seals what was true at a time.
    pub(crate) fn close(&self, key: &[u8], at_ms: u64, body: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEAD_BYTES + body.len() + TAG_BYTES);
        value.push(VERSION);
        value.extend_from_slice(&at_ms.to_be_bytes());
        value.extend_from_slice(body);
        let tag = self.tag(key, &value).finalize().into_bytes();
        value.extend_from_slice(&tag[..TAG_BYTES]);
        value
    }

    /// What was sealed under this key, and when it was true; `None` for anything else.
    pub(crate) fn open<'v>(&self, key: &[u8], value: &'v [u8]) -> Option<(u64, &'v [u8])> {
        let (sealed, tag) = value.split_at_checked(value.len().checked_sub(TAG_BYTES)?)?;
        self.tag(key, sealed).verify_truncated_left(tag).ok()?;
        let (head, body) = sealed.split_first_chunk::<HEAD_BYTES>()?;
        let [version, at @ ..] = *head;
        (version == VERSION).then_some((u64::from_be_bytes(at), body))
    }

    fn tag(&self, key: &[u8], sealed: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&(key.len() as u64).to_be_bytes());
        mac.update(key);
        mac.update(sealed);
        mac
    }
}

/// HMAC takes a key of any length; one longer than a block is hashed.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    if key.len() <= block.len() {
        block[..key.len()].copy_from_slice(key);
    } else {
        use sha2::Digest;
        block[..32].copy_from_slice(&Sha256::digest(key));
    }
    Hmac::new(&block.into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn seal(ledger: u8, secret: Option<&str>) -> Seal {
        Seal::new(&Hash([ledger; 32]), secret)
    }

    fn abouts() -> [About; 8] {
        let (customer, transaction) = (CustomerId::new(5), TransactionId::new(5));
        let of_customer = [About::Head(customer), About::Event(customer, 5), About::Event(customer, 0x55)];
        let status = [About::Status(customer, 5), About::Status(CustomerId::new(0x55), 5)];
        let [head, event, next] = of_customer;
        let [one, other] = status;
        let (entry, touches, maker) =
            (About::Transaction(transaction), About::Touches(transaction), About::Maker(transaction));
        [head, event, next, one, other, entry, touches, maker]
    }

    #[test]
    fn nothing_has_the_key_of_something_else() {
        let keys: Vec<Vec<u8>> =
            [1, 2].iter().flat_map(|&ledger| abouts().map(|about| seal(ledger, None).key(about))).collect();
        for (place, key) in keys.iter().enumerate() {
            assert!(keys[..place].iter().all(|other| other != key), "{place}");
        }
    }

    #[test]
    fn an_entry_is_opened_as_it_was_closed_and_not_otherwise() {
        let sealer = seal(1, Some("a secret of all engines"));
        let key = sealer.key(abouts()[0]);
        let value = sealer.close(&key, 77, b"what was true");
        assert_eq!(sealer.open(&key, &value), Some((77, &b"what was true"[..])));
        for bit in 0..8 * value.len() {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&key, &flipped), None, "bit {bit}");
        }
        for length in 0..value.len() {
            assert_eq!(sealer.open(&key, &value[..length]), None, "{length} bytes");
        }
        assert_eq!(sealer.open(&key, &[&value[..], &[0]].concat()), None);
        // Under another key, whose end may even be the entry's beginning; of another ledger; without the secret.
        for about in &abouts()[1..] {
            assert_eq!(sealer.open(&sealer.key(*about), &value), None);
        }
        assert_eq!(sealer.open(&key[..key.len() - 1], &[&key[key.len() - 1..], &value].concat()), None);
        for other in [seal(2, Some("a secret of all engines")), seal(1, Some("another secret of all")), seal(1, None)] {
            assert_eq!(other.open(&key, &value), None);
        }
    }

    #[test]
    fn an_entry_of_another_version_is_not_read() {
        let sealer = seal(1, None);
        let key = sealer.key(abouts()[0]);
        let mut value = [&[VERSION + 1][..], &[0; 8], b"later"].concat();
        let tag = sealer.tag(&key, &value).finalize().into_bytes();
        value.extend_from_slice(&tag[..TAG_BYTES]);
        assert_eq!(sealer.open(&key, &value), None);
    }
}
