//! Deliberate bugs, by which the simulator proves that it would notice real ones.
//!
//! They are compiled in only with the feature `planted`, which nothing but the simulator's own feature of that name
//! turns on. Without it [`is_planted`] is `false` at compile time, and no bug is in the program. With it, one bug
//! at a time is chosen for the whole process.
//!
//! A planted bug stands where the real one would: in the line that prevents it. So does its name, and that is how to
//! find what each of those lines is for.

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Planted {
    /// Answers are given before the batch is durable.
    AnsweredBeforeSync = 1,
    /// A rail is called before the event's `Started` is durable.
    RailCalledBeforeSync,
    /// The event is `Done` before its proposal is in the table.
    DoneBeforeTable,
    /// A proposed state counts although its event is still open.
    ProposedReadAsApproved,
    /// A proposal that met another one goes on as if it stood.
    ProposalConflictIgnored,
    /// A `Started` that met a longer chain goes on as if it stood.
    AppendConflictIgnored,
    /// A slow owner may close an event otherwise than its recovery has closed it. (Planted in the simulator's own
    /// store: to let the first one win is the store's part.)
    StaleOwnerOverrules,
    /// A found state becomes the approved one before the record it rests on is durable.
    PromotedBeforeSync,
    /// Events that are found open are not recovered.
    RecoveryLeftOut,
    /// Recovery aborts events with a rail instead of asking the rail.
    RailNotAskedAgain,
    /// A rail that cannot tell is taken for one that refused.
    UnknownTakenForRefused,
    /// A withdrawal is not held against what is available.
    OverdraftAllowed,
    /// A chargeback does not lock its customer.
    LockLeftOut,
    /// The journal is written and not synced.
    SyncLeftOut,
    /// A failed sync of the journal is tried once more.
    SyncRetried,
    /// A frame's body is not held against its checksum.
    ChecksumUnchecked,
    /// A torn write at the journal's end is not cut off.
    TornTailKept,
    /// Frames that may not be durable are not written again when they are found.
    RewriteLeftOut,
    /// A new segment's name is not made durable.
    DirectorySyncLeftOut,
    /// Index files are named by a checkpoint before they are durable.
    IndexSyncLeftOut,
    /// A checkpoint is written before the journal is durable up to it.
    CheckpointTooEarly,
    /// Transactions read back from the journal are forgotten, and with them that their ids are taken.
    TransactionsForgotten,
    /// A source's position read back from the journal is forgotten.
    SourceForgotten,
    /// A block of an index file is not held against its checksum.
    IndexChecksumUnchecked,
    /// The key of a request is not proposed to the table.
    KeyNotProposed,
    /// Keys read back from the journal are forgotten, and with them that they are used.
    KeysForgotten,
    /// Records of chains alone are not written before their batch ends: later calls do not see them.
    AppendHeldBack,
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::AnsweredBeforeSync,
        Self::RailCalledBeforeSync,
        Self::DoneBeforeTable,
        Self::ProposedReadAsApproved,
        Self::ProposalConflictIgnored,
        Self::AppendConflictIgnored,
        Self::StaleOwnerOverrules,
        Self::PromotedBeforeSync,
        Self::RecoveryLeftOut,
        Self::RailNotAskedAgain,
        Self::UnknownTakenForRefused,
        Self::OverdraftAllowed,
        Self::LockLeftOut,
        Self::SyncLeftOut,
        Self::SyncRetried,
        Self::ChecksumUnchecked,
        Self::TornTailKept,
        Self::RewriteLeftOut,
        Self::DirectorySyncLeftOut,
        Self::IndexSyncLeftOut,
        Self::CheckpointTooEarly,
        Self::TransactionsForgotten,
        Self::SourceForgotten,
        Self::IndexChecksumUnchecked,
        Self::KeyNotProposed,
        Self::KeysForgotten,
        Self::AppendHeldBack,
    ];
}

#[cfg(feature = "planted")]
static CHOSEN: core::sync::atomic::AtomicU8 = core::sync::atomic::AtomicU8::new(0);

/// Chooses the bug of this process, or none.
#[cfg(feature = "planted")]
pub fn plant(planted: Option<Planted>) {
    CHOSEN.store(planted.map_or(0, |planted| planted as u8), core::sync::atomic::Ordering::Relaxed);
}

/// Whether this bug is the chosen one.
#[cfg(feature = "planted")]
#[inline]
pub fn is_planted(planted: Planted) -> bool {
    CHOSEN.load(core::sync::atomic::Ordering::Relaxed) == planted as u8
}

/// Whether this bug is the chosen one: never, in a program without them.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn is_planted(_planted: Planted) -> bool {
    false
}
