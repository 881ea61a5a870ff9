//! The feed of the embedded store: the journal, read frame by frame from a position on.
//!
//! A position names a frame by where it begins, says how many of its records were passed, and carries the first bytes of
//! the frame's digest, which rests on everything before it. So a position is found without an index, a ledger with
//! another history refuses it, and what it costs to go on does not depend on what lies before. Only frames that are
//! durable are read; a tail that an opening cuts off was never shown.

use super::codec::Malformed;
use super::frame::Frame;
use super::journal::Journal;
use super::record::{Stored, StoredClosing};
use super::store::EmbeddedStore;
use crate::store::{ChainEntry, Feed, FeedError, FeedItem, FeedPosition, StoreError};
use bursar_core::{EventId, EventRef, EventStatus, Hash, LinkedEvent};

/// So many bytes of frames are read by one call at the most, or one frame.
const READ_BYTES_MAX: u64 = 4 << 20;

fn check_of(digest: &Hash) -> u32 {
    let [a, b, c, d, ..] = digest.as_bytes();
    u32::from_be_bytes([*a, *b, *c, *d])
}

fn behind(frame: &Frame, passed: u32) -> FeedPosition {
    FeedPosition { at: frame.position, passed, check: check_of(&frame.header.digest) }
}

fn unreadable(journal: &Journal, frame: &Frame, malformed: Malformed) -> StoreError {
    journal.damaged(frame.position + malformed.offset as u64, "a record cannot be read")
}

/// The event that a closing closes.
fn started(journal: &Journal, closing: &StoredClosing, cached: &mut Option<Frame>) -> Result<LinkedEvent, StoreError> {
    match journal.record(closing.started, cached)? {
        Stored::Event(event) if event.linked.reference() == closing.event => Ok(event.linked),
        Stored::Event(_) | Stored::Closing(_) | Stored::Mark(_) => {
            Err(journal.damaged(closing.started, "a record closes an event that is not here"))
        }
    }
}

/// Adds the frame's records behind the first `passed` ones; gives how many of the frame's records were passed in the end.
fn take_records(
    journal: &Journal,
    frame: &Frame,
    passed: u32,
    limit: usize,
    cached: &mut Option<Frame>,
    items: &mut Vec<FeedItem>,
) -> Result<u32, StoreError> {
    let mut count = 0;
    for record in frame.records() {
        let (_, record) = record.map_err(|malformed| unreadable(journal, frame, malformed))?;
        if count < passed {
            count += 1;
            continue;
        }
        let (linked, status) = match record {
            Stored::Mark(_) => {
                count += 1;
                continue;
            }
            Stored::Event(_) | Stored::Closing(_) if items.len() >= limit => return Ok(count),
            Stored::Event(event) if event.done => (event.linked, EventStatus::Done),
            Stored::Event(event) => (event.linked, EventStatus::Started),
            Stored::Closing(closing) => {
                let linked = started(journal, &closing, cached)?;
                (linked, closing.status)
            }
        };
        count += 1;
        items.push(FeedItem { position: behind(frame, count), entry: ChainEntry { linked, status } });
    }
    Ok(count)
}

impl Feed for EmbeddedStore {
    fn start(&self) -> FeedPosition {
        FeedPosition { at: 0, passed: 0, check: check_of(&self.shared.ledger_digest) }
    }

    fn latest(&self) -> Result<FeedPosition, FeedError> {
        let last = self.shared.journal.last_durable_frame()?;
        Ok(last.map_or_else(|| self.start(), |frame| behind(&frame, frame.header.record_count)))
    }

    fn read(&self, after: FeedPosition, limit: usize, items: &mut Vec<FeedItem>) -> Result<FeedPosition, FeedError> {
        let journal = &self.shared.journal;
        let end = journal.synced_position();
        // Whatever the list holds already does not count.
        let limit = limit.saturating_add(items.len());
        let (mut cached, mut bytes_read) = (None, 0);
        let (mut position, mut next) = if after.at == 0 {
            if after != self.start() {
                return Err(FeedError::NotAPosition);
            }
            (after, journal.frame_start(0))
        } else {
            if after.at >= end {
                return Err(FeedError::BehindEnd);
            }
            let frame = journal.durable_frame(after.at)?.ok_or(FeedError::NotAPosition)?;
            let is_there = (1..=frame.header.record_count).contains(&after.passed);
            if !is_there || check_of(&frame.header.digest) != after.check {
                return Err(FeedError::NotAPosition);
            }
            let passed = take_records(journal, &frame, after.passed, limit, &mut cached, items)?;
            bytes_read += frame.header.frame_bytes();
            if passed < frame.header.record_count {
                return Ok(behind(&frame, passed));
            }
            (behind(&frame, passed), journal.frame_start(frame.position + frame.header.frame_bytes()))
        };
        while next < end && items.len() < limit && bytes_read < READ_BYTES_MAX {
            let Some(frame) = journal.durable_frame(next)? else {
                return Err(journal.damaged(next, "a frame cannot be read").into());
            };
            let passed = take_records(journal, &frame, 0, limit, &mut cached, items)?;
            if passed > 0 {
                position = behind(&frame, passed);
            }
            if passed < frame.header.record_count {
                break;
            }
            bytes_read += frame.header.frame_bytes();
            next = journal.frame_start(frame.position + frame.header.frame_bytes());
        }
        Ok(position)
    }

    fn end_of(&self, event: EventId) -> Result<Option<(EventRef, EventStatus)>, FeedError> {
        let journal = &self.shared.journal;
        let (mut found, mut cached) = (None, None);
        // Who asks again mostly asks soon.
        journal.newest_segments_first(|frame| {
            for record in frame.records() {
                let (_, record) = record.map_err(|malformed| unreadable(journal, frame, malformed))?;
                if let Stored::Closing(closing) = record
                    && closing.event.id == event
                    && started(journal, &closing, &mut cached)?.event.rail.is_some()
                {
                    found = Some((closing.event, closing.status));
                }
            }
            Ok(found.is_some())
        })?;
        Ok(found)
    }
}
