//! The codes of what verification finds.

use super::CodeInfo;
use bursar_engine::embedded::FindingCode;
use bursar_engine::verify_stores::StoresFault;

const RESTORE: &str = "Restore the ledger from a backup.";
const REBUILD: &str = "No event and no account is wrong. Delete `checkpoint.bursar` and the `index-*` files; the \
                       next opening makes them anew.";

/// What can be wrong with a ledger's files.
pub(super) const FINDINGS: [CodeInfo; 20] = [
    CodeInfo::verify(
        "ledger_file",
        "The file that says which ledger this is cannot be read.",
        "Restore `ledger.bursar` from a backup: it never changes after the ledger's creation.",
    ),
    CodeInfo::verify(
        "segment_header",
        "The header of a journal file cannot be read, or does not follow from the file before.",
        RESTORE,
    ),
    CodeInfo::verify("segment_elsewhere", "A journal file belongs to another ledger or another place.", RESTORE),
    CodeInfo::verify("segment_missing", "A part of the journal is in no file.", RESTORE),
    CodeInfo::verify("frame_unreadable", "A part of the journal cannot be read.", RESTORE),
    CodeInfo::verify("frame_number", "A frame of the journal is sound, but its number does not follow.", RESTORE),
    CodeInfo::verify(
        "frame_digest",
        "A frame fits its checksums but not its digest: somebody edited it, or one before it.",
        RESTORE,
    ),
    CodeInfo::verify("record_unreadable", "A record in a sound frame cannot be read.", RESTORE),
    CodeInfo::verify(
        "previous",
        "A record points to another place than that of the customer's record before it.",
        RESTORE,
    ),
    CodeInfo::verify(
        "transaction_previous",
        "An event points to another place than that of the event before it on its transaction.",
        RESTORE,
    ),
    CodeInfo::verify("closing_without_event", "A record closes an event that is not there, or not open.", RESTORE),
    CodeInfo::verify("transaction_twice", "A transaction was made by two customers.", RESTORE),
    CodeInfo::verify("key_twice", "The key of a request has two events in effect.", RESTORE),
    CodeInfo::verify("mark_goes_back", "The position of a file that was ingested is before an earlier one.", RESTORE),
    CodeInfo::verify("unbalanced", "The sums over the whole ledger do not fit each other.", RESTORE),
    CodeInfo::verify(
        "journal_too_short",
        "The journal ends before the point that the checkpoint covers: durable events are gone.",
        RESTORE,
    ),
    CodeInfo::verify("checkpoint", "The checkpoint cannot be read, or says something else than the journal.", REBUILD),
    CodeInfo::verify("index_file", "An index file cannot be read.", REBUILD),
    CodeInfo::verify("index_head", "The index has another end of a chain than the journal, or none.", REBUILD),
    CodeInfo::verify(
        "index_transaction",
        "The index leads to another event of a transaction or a key than it should, or to none.",
        REBUILD,
    ),
];

/// What can be wrong with a ledger in other stores, beside its chains.
pub(super) const STORES: [CodeInfo; 4] = [
    CodeInfo::verify("events_missing", "A chain in a store ends before its head.", RESTORE),
    CodeInfo::verify("head_differs", "A store has another head of a chain than its events lead to.", RESTORE),
    CodeInfo::verify(
        "table_differs",
        "The transactions table says something else of a transaction or a key than the chain of its customer.",
        "The chain counts. Stop the engines, `bursar copy` the ledger into a new place, which makes the table anew, and \
         find out who wrote to the table.",
    ),
    CodeInfo::verify("sums_differ", "The sums that a store keeps are not those of its chains.", RESTORE),
];

/// What is known about a finding in other stores.
pub(crate) fn stores_info(fault: &StoresFault) -> Option<&'static CodeInfo> {
    STORES.iter().chain(&CHAINS).find(|info| info.code == fault.code())
}

/// What can be wrong with a chain.
pub(super) const CHAINS: [CodeInfo; 9] = [
    CodeInfo::verify("wrong_customer", "An event stands in another customer's chain.", RESTORE),
    CodeInfo::verify("wrong_seq", "An event's number is not the one before plus one.", RESTORE),
    CodeInfo::verify("time_goes_back", "An event's time is before that of the event before.", RESTORE),
    CodeInfo::verify("wrong_hash", "An event's hash is not that of its content on top of the event before.", RESTORE),
    CodeInfo::verify("done_after_open", "An event is done although it builds on one that is not.", RESTORE),
    CodeInfo::verify("not_allowed", "The rules reject the request of an event that stands in a chain.", RESTORE),
    CodeInfo::verify("made_before", "An event makes a transaction that was made before.", RESTORE),
    CodeInfo::verify(
        "malformed",
        "The kind of an event and its transaction, or its key, do not fit each other.",
        RESTORE,
    ),
    CodeInfo::verify("wrong_state", "The account after an event is not what the rules give.", RESTORE),
];

/// What is known about a finding; `None` only of a fault in a chain that the rules have no name for.
pub(crate) fn finding_info(code: FindingCode) -> Option<&'static CodeInfo> {
    let index = match code {
        FindingCode::LedgerFile => 0,
        FindingCode::SegmentHeader => 1,
        FindingCode::SegmentElsewhere => 2,
        FindingCode::SegmentMissing => 3,
        FindingCode::FrameUnreadable => 4,
        FindingCode::FrameNumber => 5,
        FindingCode::FrameDigest => 6,
        FindingCode::RecordUnreadable => 7,
        FindingCode::Previous => 8,
        FindingCode::TransactionPrevious => 9,
        FindingCode::ClosingWithoutEvent => 10,
        FindingCode::TransactionTwice => 11,
        FindingCode::KeyTwice => 12,
        FindingCode::MarkGoesBack => 13,
        FindingCode::Unbalanced => 14,
        FindingCode::JournalTooShort => 15,
        FindingCode::Checkpoint => 16,
        FindingCode::IndexFile => 17,
        FindingCode::IndexHead => 18,
        FindingCode::IndexTransaction => 19,
        FindingCode::Chain(code) => return CHAINS.iter().find(|info| info.code == code),
    };
    FINDINGS.get(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::{ChainFault, CustomerState, Hash, Rejection};

    #[test]
    fn findings_have_the_codes_that_the_engine_gives_them() {
        let findings = [
            FindingCode::LedgerFile,
            FindingCode::SegmentHeader,
            FindingCode::SegmentElsewhere,
            FindingCode::SegmentMissing,
            FindingCode::FrameUnreadable,
            FindingCode::FrameNumber,
            FindingCode::FrameDigest,
            FindingCode::RecordUnreadable,
            FindingCode::Previous,
            FindingCode::TransactionPrevious,
            FindingCode::ClosingWithoutEvent,
            FindingCode::TransactionTwice,
            FindingCode::KeyTwice,
            FindingCode::MarkGoesBack,
            FindingCode::Unbalanced,
            FindingCode::JournalTooShort,
            FindingCode::Checkpoint,
            FindingCode::IndexFile,
            FindingCode::IndexHead,
            FindingCode::IndexTransaction,
        ];
        for (finding, info) in findings.into_iter().zip(&FINDINGS) {
            assert_eq!(finding.code(), info.code);
            assert_eq!(finding_info(finding), Some(info));
            assert_eq!(finding.is_derived(), info.hint == REBUILD);
        }
        let faults = [
            ChainFault::WrongCustomer,
            ChainFault::WrongSeq { expected: 1 },
            ChainFault::TimeGoesBack,
            ChainFault::WrongHash { expected: Hash::default() },
            ChainFault::DoneAfterOpen,
            ChainFault::NotAllowed(Box::new(Rejection::NotLocked)),
            ChainFault::MadeBefore,
            ChainFault::Malformed,
            ChainFault::WrongState { expected: Box::new(CustomerState::default()) },
        ];
        for (fault, info) in faults.iter().zip(&CHAINS) {
            assert_eq!(finding_info(FindingCode::Chain(fault.code())), Some(info));
        }
    }
}
