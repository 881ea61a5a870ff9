//! The order of the feed: entries, one behind the other in a stream of their own, each of which says how far the streams
//! of chains have come. What an entry covers and the one before does not are the messages at its place.
//!
//! Streams have no order between them, and a merge of what a reader sees would be another one for each reader. So whoever
//! follows and finds something new writes down what comes next; only one can, by the expected sequence, and all others
//! read that. An entry decides nothing about money.
//!
//! An entry has the checksum of the one before it, and those of the messages that it covers last: so an order that was
//! begun anew, or one that was written for other streams than are there, is known for what it is.
//!
//! What this module does not do: asking a cluster for anything ([`crate::entries`]).

use crate::bytes::{Unreadable, put_varint};
use crate::message::{Kind, begin, body, end};

/// What an entry covers of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Earlier entries cover it up to this sequence.
    pub(crate) from: u64,
    /// This one does up to this sequence.
    pub(crate) upto: u64,
    /// The checksum of the message there; 0 where there is none.
    pub(crate) check: u32,
}

/// A part of the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The checksum of the entry before; 0 of the first.
    pub(crate) before: u32,
    /// The newest entry before this one that has records; 0 where there is none.
    pub(crate) full_before: u64,
    /// How many records are at its place.
    pub(crate) record_count: u32,
    /// What it covers, for each stream.
    pub(crate) parts: Vec<Part>,
}

/// An entry where it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) seq: u64,
    /// Its checksum.
    pub(crate) check: u32,
    pub(crate) entry: Entry,
}

/// The checksum of a message that is as it was written: its first bytes. One without content has none.
pub(crate) fn check_of(payload: &[u8]) -> u32 {
    payload.first_chunk().map_or(0, |first| u32::from_be_bytes(*first))
}

impl Entry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = begin(Kind::Order, 32 + 16 * self.parts.len());
        out.extend_from_slice(&self.before.to_be_bytes());
        put_varint(&mut out, self.full_before);
        put_varint(&mut out, u64::from(self.record_count));
        put_varint(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            put_varint(&mut out, part.from);
            put_varint(&mut out, part.upto);
            out.extend_from_slice(&part.check.to_be_bytes());
        }
        end(out)
    }

    /// Reads what [`Entry::encode`] wrote, of a ledger with so many streams.
    pub(crate) fn decode(bytes: &[u8], stream_count: usize) -> Result<Self, Unreadable> {
        let mut reader = body(bytes, Kind::Order)?;
        let before = u32::from_be_bytes(reader.array()?);
        let full_before = reader.varint()?;
        let record_count = u32::try_from(reader.varint()?).map_err(|_| Unreadable("it has too many records"))?;
        if reader.count()? != stream_count {
            return Err(Unreadable("it is of another count of streams"));
        }
        let mut parts = Vec::with_capacity(stream_count);
        for _ in 0..stream_count {
            let (from, upto) = (reader.varint()?, reader.varint()?);
            if upto < from {
                return Err(Unreadable("it goes back"));
            }
            parts.push(Part { from, upto, check: u32::from_be_bytes(reader.array()?) });
        }
        reader.at_end()?;
        Ok(Self { before, full_before, record_count, parts })
    }
}

impl Placed {
    /// The place before the first entry: it covers nothing.
    pub(crate) fn nothing(stream_count: usize) -> Self {
        let parts = vec![Part::default(); stream_count];
        Self { seq: 0, check: 0, entry: Entry { before: 0, full_before: 0, record_count: 0, parts } }
    }

    /// An entry behind this one that covers nothing new.
    pub(crate) fn empty_behind(&self) -> Entry {
        let Entry { full_before, record_count, parts, .. } = &self.entry;
        Entry {
            before: self.check,
            full_before: if *record_count > 0 { self.seq } else { *full_before },
            record_count: 0,
            parts: parts.iter().map(|part| Part { from: part.upto, ..*part }).collect(),
        }
    }

    /// Whether it goes on where another one ends.
    pub(crate) fn follows(&self, before: &Self) -> bool {
        let Entry { parts, full_before, .. } = before.empty_behind();
        let same = |(part, there): (&Part, &Part)| {
            part.from == there.from && (part.upto > part.from || part.check == there.check)
        };
        self.seq == before.seq + 1
            && self.entry.before == before.check
            && self.entry.full_before == full_before
            && self.entry.parts.iter().zip(&parts).all(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(from: u64, upto: u64, check: u32) -> Part {
        Part { from, upto, check }
    }

    fn entry() -> Entry {
        let parts = vec![part(0, 3, 8), part(7, 7, 0), part(u64::MAX - 1, u64::MAX, u32::MAX)];
        Entry { before: 5, full_before: 300, record_count: 200, parts }
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_nothing_else_is() {
        let bytes = entry().encode();
        assert_eq!(Entry::decode(&bytes, 3), Ok(entry()));
        assert!(Entry::decode(&bytes, 2).is_err());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Entry::decode(&changed, 3).is_err(), "byte {at}");
            assert!(Entry::decode(&bytes[..at], 3).is_err(), "cut at {at}");
        }
        let back = Entry { parts: vec![part(3, 2, 0)], ..entry() };
        assert!(Entry::decode(&back.encode(), 1).is_err());
        // Golden: these bytes are the format.
        let hex = bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let golden =
            "f6748d6cb5010400000005ac02c80103000300000008070700000000feffffffffffffffff01ffffffffffffffffff01ffffffff";
        assert_eq!(hex, golden);
    }

    #[test]
    fn an_entry_goes_on_where_the_one_before_ends() {
        let placed = |seq, entry: Entry| Placed { seq, check: check_of(&entry.encode()), entry };
        let first = placed(9, entry());
        let empty = first.empty_behind();
        assert_eq!((empty.before, empty.full_before, empty.record_count), (first.check, 9, 0));
        assert!(placed(10, empty.clone()).follows(&first));
        let mut more = empty.clone();
        more.parts[1] = part(7, 9, 77);
        assert!(placed(10, more.clone()).follows(&first));
        let without = Entry { record_count: 0, ..entry() };
        assert_eq!(placed(9, without).empty_behind().full_before, 300);
        let mut gap = more.clone();
        gap.parts[1].from = 8;
        let mut other = empty.clone();
        other.parts[0].check ^= 1;
        let of_another = Entry { before: more.before ^ 1, ..more.clone() };
        let skips = Entry { full_before: 300, ..more.clone() };
        for wrong in [gap, other, of_another, skips] {
            assert!(!placed(10, wrong.clone()).follows(&first), "{wrong:?}");
        }
        assert!(!placed(11, more).follows(&first));
        assert!(placed(1, Placed::nothing(3).empty_behind()).follows(&Placed::nothing(3)));
    }
}
