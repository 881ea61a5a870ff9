//! The manifest of a copy: up to where it is whole. Written last, after everything before its point is durable.

use super::super::disk::Disk;
use super::super::journal::JournalPoint;
use super::read;
use crate::store::{Damage, StoreError};
use bursar_core::Hash;
use serde_json::{Value, json};

/// The file's name in a copy.
pub const MANIFEST_NAME: &str = "backup.json";
const FORMAT: &str = "bursar-backup";
const VERSION: u64 = 1;

/// Up to where a copy is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The ledger's id.
    pub ledger: [u8; 16],
    pub(super) point: JournalPoint,
    /// The time of the newest frame, in milliseconds since 1970; 0 if there is none.
    pub time_ms: u64,
}

impl Manifest {
    pub(super) const fn new(ledger: [u8; 16], point: JournalPoint, time_ms: u64) -> Self {
        Self { ledger, point, time_ms }
    }

    /// The length of the copied journal, in bytes.
    pub const fn journal_bytes(&self) -> u64 {
        self.point.position
    }

    /// The number of the newest frame.
    pub const fn frame_number(&self) -> u64 {
        self.point.frame_number
    }

    /// The digest of the newest frame, which fixes all of the journal.
    pub const fn digest(&self) -> Hash {
        self.point.digest
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let document = json!({
            "format": FORMAT,
            "version": VERSION,
            "ledger": format!("{:032x}", u128::from_be_bytes(self.ledger)),
            "journal_bytes": self.point.position,
            "frame": self.point.frame_number,
            "digest": self.point.digest.to_string(),
            "time_ms": self.time_ms,
        });
        let mut text = format!("{document:#}");
        text.push('\n');
        text.into_bytes()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(bytes).ok()?;
        let (text, number) = (|name: &str| document.get(name)?.as_str(), |name: &str| document.get(name)?.as_u64());
        if text("format")? != FORMAT || number("version")? != VERSION {
            return None;
        }
        let ledger = text("ledger").filter(|digits| digits.len() == 32)?;
        let point = JournalPoint {
            position: number("journal_bytes")?,
            frame_number: number("frame")?,
            digest: Hash::parse(text("digest")?.as_bytes())?,
        };
        let ledger = u128::from_str_radix(ledger, 16).ok()?.to_be_bytes();
        Some(Self { ledger, point, time_ms: number("time_ms")? })
    }
}

/// Reads the manifest of a copy; `None` if there is none.
pub(super) fn read_manifest(disk: &dyn Disk) -> Result<Option<Manifest>, StoreError> {
    let Some(bytes) = read(disk, MANIFEST_NAME)? else { return Ok(None) };
    let damaged = || {
        let what = "this is no manifest of a copy that this version knows".to_owned();
        StoreError::Damaged(Damage { path: disk.path().join(MANIFEST_NAME), offset: 0, what })
    };
    Manifest::parse(&bytes).map(Some).ok_or_else(damaged)
}
