//! Reading a chain: from record to record, newest first, whichever order is asked for.
//!
//! A record points to the one before it and to none behind it. So a page in the middle of a long chain is found by
//! walking back from the end, and reading a chain page by page would walk over its end once for each page.
//! [`Waymarks`] remember where walks came by, so that the next one begins nearby: all pages together cost about as many
//! records as the chain has, twice. They are in memory only, for the chains read last, and say nothing that the journal
//! does not; what was appended never changes, so a waymark never goes stale.

#[cfg(test)]
mod tests;

use super::frame::Frame;
use super::journal::Journal;
use super::record::{Stored, StoredEvent};
use crate::store::{ChainEntry, ReadRange, StoreError};
use bursar_core::{CustomerId, EventStatus};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Of how many chains waymarks are kept.
const CHAINS_MAX: usize = 8;
/// How many events lie between two waymarks of a chain, at first.
const SPACING_MIN: u64 = 256;
/// How many waymarks a chain may have before every other one is dropped.
const MARKS_MAX: usize = 1 << 16;

/// Where a walk along one chain may begin.
#[derive(Debug)]
struct Marks {
    /// By sequence number, the position of the record that closed the event: from there on back, every event up to it
    /// is met with how it was closed, since a chain's events are closed oldest first.
    positions: BTreeMap<u64, u64>,
    spacing: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { positions: BTreeMap::new(), spacing: SPACING_MIN }
    }
}

impl Marks {
    /// The nearest place from which a walk meets all events up to `seq`.
    fn before(&self, seq: u64) -> Option<u64> {
        self.positions.range(seq..).next().map(|(_, &position)| position)
    }

    fn pass(&mut self, seq: u64, position: u64) {
        let from = seq.saturating_sub(self.spacing - 1);
        if self.positions.range(from..seq.saturating_add(self.spacing)).next().is_some() {
            return;
        }
        self.positions.insert(seq, position);
        if self.positions.len() > MARKS_MAX {
            self.spacing *= 2;
            let mut stays = false;
            self.positions.retain(|_, _| {
                stays = !stays;
                stays
            });
        }
    }
}

/// The waymarks of the chains read last.
#[derive(Debug, Default)]
pub(super) struct Waymarks(Mutex<VecDeque<(CustomerId, Marks)>>);

impl Waymarks {
    /// Reads a part of a customer's chain, whose newest record is at `newest`. Gives how many records it took.
    pub(super) fn read(
        &self,
        journal: &Journal,
        customer: CustomerId,
        newest: Option<u64>,
        range: ReadRange,
        entries: &mut Vec<ChainEntry>,
    ) -> Result<u64, StoreError> {
        let mut marks = self.take(customer);
        let read = read_chain(journal, newest, &mut marks, range, entries);
        self.put_back(customer, marks);
        read
    }

    /// Takes a chain's marks out, so that nobody waits while they are used. Who comes meanwhile makes new ones.
    fn take(&self, customer: CustomerId) -> Marks {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().position(|(other, _)| *other == customer);
        index.and_then(|index| kept.remove(index)).map(|(_, marks)| marks).unwrap_or_default()
    }

    fn put_back(&self, customer: CustomerId, marks: Marks) {
        if marks.positions.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(other, _)| *other != customer);
        kept.push_front((customer, marks));
        kept.truncate(CHAINS_MAX);
    }
}

/// Reads the one event of a chain that has this sequence number.
pub(super) fn read_event(journal: &Journal, newest: Option<u64>, seq: u64) -> Result<Option<ChainEntry>, StoreError> {
    let range = ReadRange { from_seq: seq, to_seq: seq, limit: 1, newest_first: true };
    let mut entries = Vec::new();
    read_chain(journal, newest, &mut Marks::default(), range, &mut entries)?;
    Ok(entries.pop())
}

/// Reads a chain from its newest record back, or from a nearer waymark. Gives how many records it took.
fn read_chain(
    journal: &Journal,
    newest: Option<u64>,
    marks: &mut Marks,
    range: ReadRange,
    entries: &mut Vec<ChainEntry>,
) -> Result<u64, StoreError> {
    let ReadRange { from_seq, to_seq, limit, newest_first } = range;
    // No event is before the first; a limit counts from there.
    let from_seq = from_seq.max(1);
    if limit == 0 {
        return Ok(0);
    }
    // The newest event that can be in the result.
    let last_seq = match u64::try_from(limit) {
        Ok(limit) if !newest_first => to_seq.min(from_seq.saturating_add(limit - 1)),
        Ok(_) | Err(_) => to_seq,
    };
    let mut frame: Option<Frame> = None;
    let mut next = marks.before(last_seq).or(newest);
    let mut closings: BTreeMap<u64, EventStatus> = BTreeMap::new();
    let mut found: VecDeque<ChainEntry> = VecDeque::new();
    let mut record_count = 0;
    while let Some(position) = next {
        record_count += 1;
        match journal.record(position, &mut frame)? {
            Stored::Event(StoredEvent { linked, done, previous, .. }) => {
                let seq = linked.event.seq;
                if done {
                    marks.pass(seq, position);
                }
                let status = match (done, closings.remove(&seq)) {
                    (true, _) => EventStatus::Done,
                    (false, Some(status)) => status,
                    (false, None) => EventStatus::Started,
                };
                if seq < from_seq {
                    break;
                }
                if seq <= last_seq {
                    found.push_back(ChainEntry { linked, status });
                    if newest_first && found.len() >= limit {
                        break;
                    }
                }
                // Sequence numbers have no gaps: what lies before is not asked for.
                if seq == from_seq {
                    break;
                }
                next = previous;
            }
            Stored::Closing(closing) => {
                marks.pass(closing.event.seq, position);
                closings.insert(closing.event.seq, closing.status);
                next = Some(closing.previous);
            }
            Stored::Mark(_) => break,
        }
    }
    if newest_first {
        entries.extend(found);
    } else {
        entries.extend(found.into_iter().rev().take(limit));
    }
    Ok(record_count)
}
