//! What a verification says: findings, each with its place, and what was counted on the way.

use crate::totals::Totals;
use bursar_core::{CustomerId, Hash};
use std::fmt;
use std::path::PathBuf;

/// What is wrong, as a closed list with stable codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FindingCode {
    /// The ledger file cannot be read. Without it no chain can be followed.
    LedgerFile,
    /// A segment's header cannot be read, or does not follow from the segment before.
    SegmentHeader,
    /// A segment belongs to another ledger or another place.
    SegmentElsewhere,
    /// A part of the journal is in no segment.
    SegmentMissing,
    /// A part of the journal cannot be read as frames.
    FrameUnreadable,
    /// A frame is sound, but its number does not follow.
    FrameNumber,
    /// A frame fits its checksums, but not its digest: somebody edited it, or one before.
    FrameDigest,
    /// A record in a sound frame cannot be read.
    RecordUnreadable,
    /// A record points to another place than that of the customer's record before it.
    Previous,
    /// An event points to another place than that of the event before on its transaction.
    TransactionPrevious,
    /// A record closes an event that is not there, or not open.
    ClosingWithoutEvent,
    /// An event breaks its chain; which rule, says the code of [`bursar_core::ChainFault`].
    Chain(&'static str),
    /// A transaction was made by two customers.
    TransactionTwice,
    /// A key of a request has two events in effect.
    KeyTwice,
    /// A source's mark says less than one before it.
    MarkGoesBack,
    /// The sums over the whole ledger do not fit each other.
    Unbalanced,
    /// The journal ends before the point that the checkpoint covers: durable events are gone.
    JournalTooShort,
    /// The checkpoint cannot be read, or says something else than the journal.
    Checkpoint,
    /// An index file cannot be read.
    IndexFile,
    /// The index has another head of a chain than the journal, or none.
    IndexHead,
    /// The index leads to another event of a transaction than the newest, or of a key than the one in effect, or to none.
    IndexTransaction,
}

impl FindingCode {
    /// The stable code.
    pub const fn code(self) -> &'static str {
        match self {
            Self::LedgerFile => "ledger_file",
            Self::SegmentHeader => "segment_header",
            Self::SegmentElsewhere => "segment_elsewhere",
            Self::SegmentMissing => "segment_missing",
            Self::FrameUnreadable => "frame_unreadable",
            Self::FrameNumber => "frame_number",
            Self::FrameDigest => "frame_digest",
            Self::RecordUnreadable => "record_unreadable",
            Self::Previous => "previous",
            Self::TransactionPrevious => "transaction_previous",
            Self::ClosingWithoutEvent => "closing_without_event",
            Self::Chain(code) => code,
            Self::TransactionTwice => "transaction_twice",
            Self::KeyTwice => "key_twice",
            Self::MarkGoesBack => "mark_goes_back",
            Self::Unbalanced => "unbalanced",
            Self::JournalTooShort => "journal_too_short",
            Self::Checkpoint => "checkpoint",
            Self::IndexFile => "index_file",
            Self::IndexHead => "index_head",
            Self::IndexTransaction => "index_transaction",
        }
    }

    /// Whether it concerns only what is derived from the journal: no event and no account is wrong, and the
    /// checkpoint and the index files can be deleted to be made anew.
    pub const fn is_derived(self) -> bool {
        match self {
            Self::Checkpoint | Self::IndexFile | Self::IndexHead | Self::IndexTransaction => true,
            Self::LedgerFile
            | Self::SegmentHeader
            | Self::SegmentElsewhere
            | Self::SegmentMissing
            | Self::FrameUnreadable
            | Self::FrameNumber
            | Self::FrameDigest
            | Self::RecordUnreadable
            | Self::Previous
            | Self::TransactionPrevious
            | Self::ClosingWithoutEvent
            | Self::Chain(_)
            | Self::TransactionTwice
            | Self::KeyTwice
            | Self::MarkGoesBack
            | Self::Unbalanced
            | Self::JournalTooShort => false,
        }
    }
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub code: FindingCode,
    /// In which file.
    pub path: PathBuf,
    /// Where in the file, in bytes from its beginning.
    pub offset: u64,
    /// What is wrong there, for people.
    pub what: String,
    /// Whose chain it is about, if it is about one, and which event of it (0: no event in particular).
    pub event: Option<(CustomerId, u64)>,
    /// What was lost with it, if a part of the journal cannot be read.
    pub lost: Option<Lost>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: [{}] {}", self.path.display(), self.offset, self.code.code(), self.what)?;
        if let Some((customer, seq)) = self.event {
            write!(f, " (customer {customer}, event {seq})")?;
        }
        if let Some(lost) = &self.lost {
            write!(f, "; it concerns {} events of {} customers", lost.event_count, lost.customer_count)?;
        }
        Ok(())
    }
}

/// What a part of the journal that cannot be read has taken with it, as far as what is left tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many bytes of the journal cannot be read.
    pub bytes: u64,
    /// How many records the headers speak of that can still be read; `None` where none can.
    pub record_count: Option<u64>,
    /// Events that are missing: by the gaps in their chains, or by the index. Less than what was lost only where
    /// a customer has no later event, and no index knows of it.
    pub event_count: u64,
    /// Of how many customers.
    pub customer_count: u64,
    /// Which; the list is bounded, the counts are not.
    pub customers: Vec<LostEvents>,
}

/// Events of one customer that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostEvents {
    /// Whose.
    pub customer: CustomerId,
    /// The first that is missing.
    pub first_seq: u64,
    /// How many.
    pub event_count: u64,
}

/// Something worth knowing that is no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// In which file.
    pub path: PathBuf,
    /// Where, in bytes from the beginning.
    pub offset: u64,
    /// What there is, for people.
    pub what: &'static str,
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// What is wrong, the journal first and in its order; bounded by [`super::VerifyOptions::findings_max`].
    pub findings: Vec<Finding>,
    /// How many findings there are, also those that are not listed.
    pub finding_count: u64,
    /// What is no fault: torn writes that were never acknowledged, files that nobody names.
    pub notes: Vec<Note>,
    /// How many frames were read.
    pub frame_count: u64,
    /// The length of the journal in bytes, up to the end of its last frame.
    pub journal_bytes: u64,
    /// The length of all files in bytes, reserved room included.
    pub file_bytes: u64,
    /// How many events were followed: done, aborted or open. Those of one customer, if only one was asked for.
    pub event_count: u64,
    /// How many of them are open.
    pub open_count: u64,
    /// The sums over what was followed, recomputed.
    pub totals: Totals,
    /// The digest of the newest frame: it fixes the whole journal. Compared with one noted elsewhere, it says
    /// that nothing at all was changed, whoever had the files.
    pub journal_digest: Hash,
    /// How often the journal was read, so that memory stayed within its bound.
    pub pass_count: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub const fn is_sound(&self) -> bool {
        self.finding_count == 0
    }
}

/// Findings being gathered: a bounded list and a count.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    pub(super) count: u64,
    max: usize,
}

impl Findings {
    pub(super) const fn new(max: usize) -> Self {
        Self { list: Vec::new(), count: 0, max }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        self.count += 1;
        if self.list.len() < self.max {
            self.list.push(finding);
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.count += other.count;
        let room = self.max.saturating_sub(self.list.len());
        self.list.extend(other.list.into_iter().take(room));
    }
}
