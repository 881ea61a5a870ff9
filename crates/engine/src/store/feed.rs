//! The feed: the durable records of a whole ledger in one order, from any position on.
//!
//! Chains order the events of one customer. A feed orders those of all customers, as they were written, so that somebody
//! who follows a ledger reads each record once and can go on where they stopped. The chains are the outbox: no event is
//! written a second time for those who follow.
//!
//! What this module does not do: wait for more, and filter. Where one process writes, [`crate::Ledger::on_durable`] says when
//! there may be more; where several write, whoever follows also looks at [`Feed::newest_mark`] from time to time.

use super::{ChainEntry, StoreError};
use bursar_core::{EventId, EventRef, EventStatus, Hash};
use std::fmt;

/// A place in a feed, between two records. It stays good for the life of the ledger, and is of no use in another one.
///
/// What it consists of is the store's affair; as text it has letters, digits and points only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FeedPosition {
    /// Where the group of records begins that was read last; 0 at the beginning of the ledger.
    pub at: u64,
    /// How many records of that group lie before this place.
    pub passed: u32,
    /// Tells a position of another ledger, or of another history.
    pub check: u32,
}

impl FeedPosition {
    /// The longest text of a position, in bytes.
    pub const TEXT_BYTES_MAX: usize = 16 + 1 + 8 + 1 + 8;

    /// The place before the first record, for a store that gives its records places of its own.
    pub const fn beginning(ledger_digest: &Hash) -> Self {
        Self { at: 0, passed: 0, check: digits(ledger_digest) }
    }

    /// The place behind a record, for a store that gives its records places of its own: the one so many records behind
    /// the beginning of the group at `at`. It holds digits of the record, so that it is known again.
    pub const fn behind(at: u64, passed: u32, record: &ChainEntry) -> Self {
        let status = match record.status {
            EventStatus::Started => 0,
            EventStatus::Done => 1,
            EventStatus::Aborted(_) => 2,
            EventStatus::DoneByHand(_) => 3,
        };
        Self { at, passed, check: digits(&record.linked.hash) ^ status }
    }

    /// Reads the text of a position; `None` if it is none. There is one text for each position.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (at, passed, check) = (parts.next()?, parts.next()?, parts.next()?);
        let position = Self {
            at: u64::from_str_radix(at, 16).ok()?,
            passed: u32::from_str_radix(passed, 16).ok()?,
            check: u32::from_str_radix(check, 16).ok()?,
        };
        (text.len() <= Self::TEXT_BYTES_MAX && position.to_string() == text).then_some(position)
    }
}

const fn digits(hash: &Hash) -> u32 {
    let [a, b, c, d, ..] = *hash.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl fmt::Display for FeedPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}.{:08x}", self.at, self.passed, self.check)
    }
}

/// A record of a feed: that an event was started, is done, or was aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedItem {
    /// The place behind it.
    pub position: FeedPosition,
    /// The event, as this record leaves it. One that waits for a rail is there as `Started`, and again as `Done` or
    /// `Aborted`. Any other is there once it is closed; where it is begun and closed in steps of their own, a store may show
    /// both.
    pub entry: ChainEntry,
}

/// Why a feed could not be read.
#[derive(Clone, Debug)]
pub enum FeedError {
    /// This store has no feed.
    Unavailable,
    /// The position is not one of this ledger.
    NotAPosition,
    /// The position is behind the end of the ledger.
    BehindEnd,
    /// The store failed.
    Store(StoreError),
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("this store has no feed of its events"),
            Self::NotAPosition => f.write_str("no record of this ledger ends at this position"),
            Self::BehindEnd => f.write_str("the position lies behind the end of this ledger"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FeedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            Self::Unavailable | Self::NotAPosition | Self::BehindEnd => None,
        }
    }
}

impl From<StoreError> for FeedError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a store with a feed can do. All of it shows only what is durable, also beside writes.
pub trait Feed {
    /// The place before the first record.
    fn start(&self) -> FeedPosition;

    /// The place behind the newest record that is durable.
    fn latest(&self) -> Result<FeedPosition, FeedError>;

    /// Adds the records behind `after`, oldest first, at most `limit`, to `items`; gives the place behind what was
    /// looked at. A call reads a bounded amount, so there may be fewer than there are; there is nothing more for now
    /// only if the place is `after` itself.
    fn read(&self, after: FeedPosition, limit: usize, items: &mut Vec<FeedItem>) -> Result<FeedPosition, FeedError>;

    /// A number that changes whenever there are more records, and costs little to ask for: for stores that others write
    /// to as well, or that show records later than whoever appended them hears of it. `None`: nothing is shown that
    /// [`crate::Ledger::on_durable`] did not tell of.
    fn newest_mark(&self) -> Result<Option<u64>, FeedError> {
        Ok(None)
    }

    /// How an event ended that went through a rail; `None` if there is none with this id, or it has not ended. No index
    /// leads there: all records may be read.
    fn end_of(&self, event: EventId) -> Result<Option<(EventRef, EventStatus)>, FeedError> {
        const READ_AT_ONCE: usize = 1_000;
        let (mut position, mut items) = (self.start(), Vec::new());
        loop {
            let next = self.read(position, READ_AT_ONCE, &mut items)?;
            for FeedItem { entry: ChainEntry { linked, status }, .. } in items.drain(..) {
                if linked.id() == event && linked.event.rail.is_some() && status != EventStatus::Started {
                    return Ok(Some((linked.reference(), status)));
                }
            }
            if next == position {
                return Ok(None);
            }
            position = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_has_one_text() {
        let table = [
            FeedPosition { at: 0, passed: 0, check: 0x0a0b },
            FeedPosition { at: 96, passed: 3, check: 0 },
            FeedPosition { at: u64::MAX, passed: u32::MAX, check: u32::MAX },
        ];
        for position in table {
            let text = position.to_string();
            assert!(text.len() <= FeedPosition::TEXT_BYTES_MAX);
            assert_eq!(FeedPosition::parse(&text), Some(position), "{text}");
        }
        let refused = [
            "",
            "60",
            "60.3",
            "60.3.0",
            "60.3.00000000.",
            "+60.3.00000000",
            "060.3.00000000",
            "60.3.0000000A",
            "é.3.0",
        ];
        for text in refused {
            assert_eq!(FeedPosition::parse(text), None, "{text}");
        }
    }
}
