//! What the fuzzers in `fuzz/` need of the engine's inside: records, frames and checksums.
//!
//! No part of the library's interface: it exists only with the feature `fuzzing`, and changes whenever the inside
//! does. It decides nothing and checks nothing; it hands out what the store itself uses.

use crate::embedded::checkpoint::Checkpoint;
use crate::embedded::codec::{self, Decoder};
use crate::embedded::frame::{self, Frame, FrameHeader};
use crate::embedded::ledger_file;
use crate::embedded::record::{self, Place, Stored, StoredClosing, StoredEvent};
use crate::store::SourceMark;
use bursar_core::{EventRef, EventStatus, Hash, LinkedEvent};

/// The bytes of a frame's header.
pub const HEADER_BYTES: usize = frame::HEADER_BYTES;

/// CRC-32C.
pub fn crc32c(bytes: &[u8]) -> u32 {
    codec::crc32c(bytes)
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    codec::put_varint(out, value);
}

/// Appends a signed varint.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    codec::put_signed(out, value);
}

/// Appends an id; gives whether it is wide.
pub fn put_id(out: &mut Vec<u8>, bits: u128) -> bool {
    codec::put_id(out, bits)
}

/// Reads a varint at the beginning of `bytes`; gives it and how many bytes it has.
pub fn take_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut decoder = Decoder::new(bytes, 0);
    Some((decoder.varint().ok()?, decoder.offset()))
}

/// As [`take_varint`], for a signed one.
pub fn take_signed(bytes: &[u8]) -> Option<(i64, usize)> {
    let mut decoder = Decoder::new(bytes, 0);
    Some((decoder.signed().ok()?, decoder.offset()))
}

/// As [`take_varint`], for an id.
pub fn take_id(bytes: &[u8], wide: bool) -> Option<(u128, usize)> {
    let mut decoder = Decoder::new(bytes, 0);
    Some((decoder.id(wide).ok()?, decoder.offset()))
}

/// A record, as read or to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyRecord(Stored);

impl AnyRecord {
    /// An event, with the positions of the records before it.
    pub const fn event(
        linked: LinkedEvent,
        done: bool,
        previous: Option<u64>,
        transaction_previous: Option<u64>,
    ) -> Self {
        Self(Stored::Event(StoredEvent { linked, done, previous, transaction_previous }))
    }

    /// The end of an open event; the status is never `Started`.
    pub const fn closing(event: EventRef, status: EventStatus, previous: u64, started: u64) -> Self {
        Self(Stored::Closing(StoredClosing { event, status, previous, started }))
    }

    /// A source's mark.
    pub const fn mark(mark: SourceMark) -> Self {
        Self(Stored::Mark(mark))
    }

    /// The event that the record holds, if it holds one.
    pub const fn linked(&self) -> Option<&LinkedEvent> {
        match &self.0 {
            Stored::Event(event) => Some(&event.linked),
            Stored::Closing(_) | Stored::Mark(_) => None,
        }
    }

    /// Reads the record at `offset` of a frame that begins at the journal's position `frame`; gives it and the
    /// offset behind it.
    pub fn take(bytes: &[u8], offset: usize, frame: u64, time_base_ms: u64) -> Option<(Self, usize)> {
        let mut decoder = Decoder::new(bytes, offset);
        let stored = record::take_record(&mut decoder, frame, time_base_ms).ok()?;
        Some((Self(stored), decoder.offset()))
    }

    /// Appends it to a frame that begins at the journal's position `frame`.
    pub fn put(&self, out: &mut Vec<u8>, frame: u64, time_base_ms: u64) {
        let place = Place { frame, offset: out.len() as u64 };
        match &self.0 {
            Stored::Event(StoredEvent { linked, done, previous, transaction_previous }) => {
                record::put_event(out, place, time_base_ms, linked, *done, *previous, *transaction_previous);
            }
            Stored::Closing(StoredClosing { event, status, previous, started }) => {
                record::put_closing(out, place, event, status, *previous, *started);
            }
            Stored::Mark(mark) => record::put_mark(out, place, mark),
        }
    }
}

/// Reads the distance that a record's first bytes tell.
pub fn frame_distance(bytes: &[u8]) -> Option<u64> {
    record::frame_distance(bytes).ok()
}

/// Finishes a frame in place, behind whose header are its records; gives its digest.
pub fn seal(
    frame: &mut Vec<u8>,
    number: u64,
    synced_through: u64,
    time_ms: u64,
    record_count: u32,
    digest_before: &Hash,
) -> Hash {
    frame::fill_up(frame);
    frame::Unsealed { number, synced_through, time_ms, record_count }.seal(frame, digest_before)
}

/// A frame that fits its checksums.
#[derive(Clone, Debug)]
pub struct AnyFrame(Frame);

impl AnyFrame {
    /// The frame at the beginning of `bytes`, if there is a sound one.
    pub fn take(bytes: &[u8], position: u64) -> Option<Self> {
        let header = FrameHeader::read(bytes)?;
        let end = usize::try_from(header.frame_bytes()).ok()?;
        let body = bytes.get(HEADER_BYTES..end)?;
        header.fits(body).then(|| Self(Frame { header, position, bytes: bytes[..end].to_vec() }))
    }

    /// How many bytes it has.
    pub const fn frame_bytes(&self) -> u64 {
        self.0.header.frame_bytes()
    }

    /// What its header says: number, the newest frame that was durable, time, count of records.
    pub const fn header(&self) -> (u64, u64, u64, u32) {
        let FrameHeader { number, synced_through, time_ms, record_count, .. } = self.0.header;
        (number, synced_through, time_ms, record_count)
    }

    /// Whether its digest follows from that of the frame before.
    pub fn follows(&self, digest_before: &Hash) -> bool {
        self.0.header.digest == self.0.header.expected_digest(digest_before, &self.0.bytes[HEADER_BYTES..])
    }

    /// Its records with their positions, up to the first that cannot be read.
    pub fn records(&self) -> Vec<(u64, AnyRecord)> {
        self.0.records().map_while(Result::ok).map(|(position, stored)| (position, AnyRecord(stored))).collect()
    }

    /// The record at a position of the journal.
    pub fn record_at(&self, position: u64) -> Option<AnyRecord> {
        self.0.record_at(position).ok().map(AnyRecord)
    }
}

/// A checkpoint that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyCheckpoint(Checkpoint);

impl AnyCheckpoint {
    /// Reads one.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        Checkpoint::read(bytes).ok().map(Self)
    }

    /// Writes it.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.bytes()
    }

    /// The number of the last frame that it covers.
    pub const fn frame_number(&self) -> u64 {
        self.0.point.frame_number
    }
}

/// Any ledger file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnyLedgerFile(ledger_file::LedgerFile);

/// Reads a ledger file.
pub fn read_ledger_file(bytes: &[u8]) -> Option<AnyLedgerFile> {
    ledger_file::file_of(bytes).ok().map(AnyLedgerFile)
}

/// Writes a ledger file.
pub fn ledger_file_bytes(file: &AnyLedgerFile) -> Vec<u8> {
    ledger_file::bytes_of(&file.0)
}

/// The place from `offset` on where a frame may begin.
pub fn find_frame(bytes: &[u8], offset: usize) -> Option<usize> {
    frame::find_magic(bytes, offset)
}
