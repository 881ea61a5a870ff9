//! Verification of sound ledgers, of ledgers with lost parts, and of ledgers that somebody edited with care.

use super::*;
use crate::embedded::codec::Decoder;
use crate::embedded::codec::crc32c;
use crate::embedded::frame::FrameHeader;
use crate::embedded::memory_disk::MemoryDisk;
use crate::embedded::record::{Place, StoredEvent, frame_distance, put_event};
use crate::embedded::record::{Stored, take_record};
use crate::embedded::support;
use bursar_core::{Amount, Hash, Head, LinkedEvent, RequestKind, TransactionId};
use std::collections::{BTreeMap, BTreeSet};
use support::{OPTIONS, small_ledger};

mod keys;

fn verified(disk: &Arc<MemoryDisk>, options: &VerifyOptions) -> VerifyReport {
    verify_on(disk.clone(), options, &mut |_| {}).unwrap()
}

fn found(disk: &Arc<MemoryDisk>) -> Vec<(&'static str, Option<(u128, u64)>)> {
    let report = verified(disk, &VerifyOptions::default());
    report.findings.iter().map(|f| (f.code.code(), f.event.map(|(customer, seq)| (customer.bits(), seq)))).collect()
}

/// A frame of a journal in memory: which file, where in it, and how long.
#[derive(Clone, Debug)]
struct At {
    name: String,
    start: u64,
    offset: usize,
    bytes: usize,
}

fn frames(disk: &MemoryDisk) -> Vec<At> {
    let mut list = Vec::new();
    for (name, bytes) in disk.files() {
        let Some(start) = crate::embedded::journal::segment_start(&name) else { continue };
        let mut offset = 96;
        while let Some(header) = bytes.get(offset..).and_then(FrameHeader::read) {
            let count = header.frame_bytes() as usize;
            list.push(At { name: name.clone(), start, offset, bytes: count });
            offset += count;
        }
    }
    assert!(list.len() > 20, "{} frames", list.len());
    list
}

fn events(disk: &MemoryDisk, at: &At) -> Vec<(u64, StoredEvent)> {
    let bytes = disk.files()[&at.name][at.offset..at.offset + at.bytes].to_vec();
    let header = FrameHeader::read(&bytes).unwrap();
    let frame = crate::embedded::frame::Frame { header, position: at.start + at.offset as u64, bytes };
    let records: Vec<_> = frame.records().map(Result::unwrap).collect();
    let event = |(position, record)| match record {
        Stored::Event(event) => Some((position, event)),
        Stored::Closing(_) | Stored::Mark(_) => None,
    };
    records.into_iter().filter_map(event).collect()
}

/// Makes the checksums of a frame right again.
fn repair(frame: &mut [u8]) {
    let crc = crc32c(&frame[80..]);
    frame[12..16].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c(&frame[8..80]);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Edits a frame and makes its checksums right again.
fn edit(disk: &MemoryDisk, at: &At, change: impl FnOnce(&mut [u8])) {
    disk.edit(&at.name, |bytes| {
        let frame = &mut bytes[at.offset..at.offset + at.bytes];
        change(frame);
        repair(frame);
    });
}

/// Makes all digests right again, and all checksums: what somebody can do who knows the format and has the files.
fn reseal(disk: &MemoryDisk) {
    let mut digest = support::config(support::LEDGER).digest();
    let mut segment = String::new();
    for at in frames(disk) {
        if at.name != segment {
            disk.edit(&at.name, |bytes| {
                bytes[48..80].copy_from_slice(digest.as_bytes());
                let crc = crc32c(&bytes[16..96]);
                bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            });
            segment.clone_from(&at.name);
        }
        edit(disk, &at, |frame| {
            repair(frame);
            let header = FrameHeader::read(frame).unwrap();
            digest = header.expected_digest(&digest, &frame[80..]);
            frame[48..80].copy_from_slice(digest.as_bytes());
        });
    }
}

/// Replaces an event by another one that takes as many bytes.
fn replace(disk: &MemoryDisk, at: &At, position: u64, event: &StoredEvent) {
    edit(disk, at, |frame| {
        let offset = (position - at.start) as usize - at.offset;
        let place = Place { frame: at.start + at.offset as u64, offset: offset as u64 };
        assert_eq!(frame_distance(&frame[offset..]), Ok(place.offset));
        let time_ms = FrameHeader::read(frame).unwrap().time_ms;
        let mut out = Vec::new();
        let StoredEvent { linked, done, previous, transaction_previous } = event;
        put_event(&mut out, place, time_ms, linked, *done, *previous, *transaction_previous);
        let mut decoder = Decoder::new(frame, offset);
        take_record(&mut decoder, place.frame, time_ms).unwrap();
        assert_eq!(decoder.offset(), offset + out.len(), "the edited record has another length");
        frame[offset..offset + out.len()].copy_from_slice(&out);
    });
}

#[test]
fn a_sound_ledger_has_no_findings() {
    let disk = small_ledger(200, OPTIONS);
    let report = verified(&disk, &VerifyOptions::default());
    assert_eq!(report.findings, []);
    let files = disk.files();
    assert!(files.len() > 5, "{:?}", files.keys());
    assert_eq!((report.open_count, report.pass_count), (1, 1));
    let small = VerifyOptions { memory_bytes_max: 4 << 10, ..VerifyOptions::default() };
    let in_parts = verified(&disk, &small);
    assert!(in_parts.pass_count > 3, "{}", in_parts.pass_count);
    assert_eq!(VerifyReport { pass_count: 1, ..in_parts }, report);
    let one = VerifyOptions { only: Some(CustomerId::new(2)), ..VerifyOptions::default() };
    let one = verified(&disk, &one);
    assert_eq!((one.finding_count, one.totals.customer_count), (0, 1));
    for name in files.keys().filter(|name| name.starts_with("index-") || name.starts_with("checkpoint")) {
        disk.remove(name).unwrap();
    }
    assert_eq!(found(&disk), [], "without what is derived");
}

/// Each frame in turn becomes unreadable, in its header or in its body: the finding says which file and where, and
/// exactly which events of which customers are gone.
#[test]
fn what_is_lost_with_a_frame_is_counted() {
    let disk = small_ledger(200, OPTIONS);
    let all = frames(&disk);
    for (index, at) in all.iter().enumerate() {
        for in_header in [true, false] {
            let copy = Arc::new(disk.copy());
            copy.edit(&at.name, |bytes| bytes[at.offset + if in_header { 20 } else { 90 }] ^= 0x10);
            let report = verified(&copy, &VerifyOptions::default());
            let damaged: Vec<&Finding> =
                report.findings.iter().filter(|f| f.code == FindingCode::FrameUnreadable).collect();
            assert_eq!(damaged.len(), 1, "frame {index}: {:?}", report.findings);
            assert!(damaged[0].path.ends_with(&at.name) && damaged[0].offset == at.offset as u64, "frame {index}");
            let lost = damaged[0].lost.as_ref().unwrap();
            assert_eq!((lost.bytes, lost.record_count.is_some()), (at.bytes as u64, !in_header), "frame {index}");
            let gone = events(&disk, at);
            // Of what came after the checkpoint, no index tells.
            let is_known = |event: &&(u64, StoredEvent)| {
                let event = &event.1.linked.event;
                let later = all[index + 1..].iter().flat_map(|later| events(&disk, later));
                at.start + (at.offset as u64) < checkpoint(&disk).point.position
                    || later.into_iter().any(|(_, later)| later.linked.event.customer == event.customer)
            };
            let known: Vec<_> = gone.iter().filter(is_known).collect();
            assert!(lost.event_count >= known.len() as u64, "frame {index}: {lost:?}");
            for (_, event) in &known {
                let event = &event.linked.event;
                let named = |lost: &&LostEvents| lost.customer == event.customer;
                let named = lost.customers.iter().find(named).unwrap();
                assert!((named.first_seq..named.first_seq + named.event_count).contains(&event.seq), "frame {index}");
            }
            let others = report.findings.iter().filter(|f| f.code != FindingCode::FrameUnreadable);
            let others: Vec<_> = others.collect();
            assert!(others.is_empty(), "frame {index}: one loss makes no other findings: {others:?}");
        }
    }
}

fn checkpoint(disk: &MemoryDisk) -> Checkpoint {
    Checkpoint::read(&disk.files()[CHECKPOINT_NAME]).unwrap()
}

#[test]
fn lost_segments_are_counted() {
    let disk = small_ledger(200, OPTIONS);
    let names: Vec<String> = disk.files().into_keys().filter(|name| name.starts_with("journal-")).collect();
    assert!(names.len() >= 3);
    for (index, name) in names.iter().enumerate() {
        let copy = Arc::new(disk.copy());
        let gone: Vec<At> = frames(&disk).into_iter().filter(|at| at.name == *name).collect();
        let point = checkpoint(&disk).point.position;
        let covered = gone.iter().filter(|at| at.start + (at.offset as u64) < point);
        let events: u64 = covered.map(|at| events(&disk, at).len() as u64).sum();
        copy.remove(name).unwrap();
        let report = verified(&copy, &VerifyOptions::default());
        if gone[0].start >= point {
            // Nothing left in the directory tells of it; a digest or a receipt noted elsewhere does.
            assert_ne!(report.journal_digest, verified(&disk, &VerifyOptions::default()).journal_digest);
            continue;
        }
        let last = index + 1 == names.len();
        let code = if last { FindingCode::JournalTooShort } else { FindingCode::SegmentMissing };
        assert_eq!(report.findings[0].code, code, "{name}");
        let lost = report.findings[0].lost.as_ref().unwrap();
        assert!(lost.event_count >= events && events > 0, "{name}: {} of {events}", lost.event_count);
        assert_eq!(report.finding_count, 1, "{name}: {:?}", report.findings);
    }
}

/// Somebody edits an event and makes the checksums right: the digest of the frame finds it. Somebody makes the
/// digests of all frames right as well: the hash of the event finds it.
#[test]
fn an_edited_field_of_an_event_is_found_and_named() {
    type Edit = fn(&mut LinkedEvent) -> bool;
    let edits: [(&str, Edit); 10] = [
        ("amount", |e| {
            e.event.amount = Amount::from_steps(e.event.amount.steps() ^ 2);
            true
        }),
        ("available", |e| change_account(e, 2, 0)),
        ("held", |e| change_account(e, 0, 1)),
        ("locked", |e| {
            e.event.state.locked = !e.event.state.locked;
            true
        }),
        ("time", |e| {
            e.event.time_ms += 1;
            true
        }),
        ("seq", |e| {
            e.event.seq ^= 1;
            true
        }),
        ("customer", |e| {
            e.event.customer = CustomerId::new(e.event.customer.bits() ^ 1);
            e.event.customer.bits() >> 64 == 0
        }),
        ("transaction", |e| {
            e.event.transaction = Some(TransactionId::new(e.event.transaction.map_or(0, TransactionId::bits) ^ 1));
            true
        }),
        ("kind", |e| {
            let is_deposit = e.event.kind == RequestKind::Deposit;
            e.event.kind = RequestKind::Withdrawal;
            is_deposit
        }),
        ("hash", |e| {
            e.hash = Hash([1; 32]);
            true
        }),
    ];
    let disk = small_ledger(200, OPTIONS);
    for (name, change) in edits {
        let mut count = 0;
        for at in frames(&disk).iter().step_by(9) {
            let Some((position, event)) = events(&disk, at).into_iter().find(|(_, e)| change(&mut e.linked.clone()))
            else {
                continue;
            };
            let original = (event.linked.event.customer.bits(), event.linked.event.seq);
            let mut edited = event;
            change(&mut edited.linked);
            let named = (edited.linked.event.customer.bits(), edited.linked.event.seq);
            let copy = Arc::new(disk.copy());
            replace(&copy, at, position, &edited);
            assert!(found(&copy).iter().any(|(code, _)| *code == "frame_digest"), "{name}");
            reseal(&copy);
            let all = found(&copy);
            let names = |event: Option<(u128, u64)>| event == Some(original) || event == Some(named);
            let chain = ["wrong_hash", "wrong_seq", "time_goes_back"];
            assert!(
                all.iter().any(|(code, event)| chain.contains(code) && names(*event)),
                "{name} {original:?}: {all:?}"
            );
            count += 1;
        }
        assert!(count > 0, "{name}: no event has it");
    }
}

fn change_account(linked: &mut LinkedEvent, available: i64, held: i64) -> bool {
    let event = &mut linked.event;
    let mut account = event.account();
    account.available = Amount::from_steps(account.available.steps() ^ available);
    account.held = Amount::from_steps(account.held.steps() ^ held);
    event.state.accounts.set(event.currency, account);
    event.seq > 0
}

/// Somebody even makes the event's own hash right. Then the rules find it, or the next event, or the index.
#[test]
fn an_edited_account_with_a_right_hash_is_found_by_the_rules() {
    let disk = small_ledger(200, OPTIONS);
    let mut count = 0;
    let mut links: BTreeMap<CustomerId, Hash> = BTreeMap::new();
    for at in frames(&disk) {
        for (position, event) in events(&disk, &at) {
            let (customer, seq) = (event.linked.event.customer, event.linked.event.seq);
            let link = links.get(&customer).copied();
            let link = link.unwrap_or(Head::start(&support::config(support::LEDGER).digest(), customer).link);
            links.insert(customer, event.linked.hash);
            // The chains with an aborted event go on from another link.
            if seq % 3 != 1
                || !event.done
                || customer.bits() <= 2
                || event.linked.event.hash(&link) != event.linked.hash
            {
                continue;
            }
            let copy = Arc::new(disk.copy());
            let mut edited = event;
            change_account(&mut edited.linked, 2, 0);
            edited.linked = LinkedEvent::new(edited.linked.event, &link);
            replace(&copy, &at, position, &edited);
            reseal(&copy);
            let all = found(&copy);
            assert!(all.contains(&("wrong_state", Some((customer.bits(), seq)))), "{all:?}");
            count += 1;
        }
    }
    assert!(count > 20, "{count} events edited");
}

/// How an event stands, why it was aborted, how far a source got, and what headers say.
#[test]
fn edited_statuses_reasons_marks_and_headers_are_found() {
    let disk = small_ledger(200, OPTIONS);
    let all = frames(&disk);
    let text_at = |needle: &[u8]| {
        let at = all.iter().find_map(|at| {
            let bytes = &disk.files()[&at.name][at.offset..at.offset + at.bytes];
            memchr::memmem::find(bytes, needle).map(|offset| (at.clone(), offset))
        });
        at.unwrap()
    };
    let check = |what: &str, at: &At, offset: usize, xor: u8, resealed: &[&str]| {
        let copy = Arc::new(disk.copy());
        edit(&copy, at, |frame| frame[offset] ^= xor);
        let first = found(&copy);
        assert!(first.iter().any(|(code, _)| ["frame_digest", "frame_number"].contains(code)), "{what}: {first:?}");
        reseal(&copy);
        let all = found(&copy);
        assert!(resealed.iter().all(|wanted| all.iter().any(|(code, _)| code == wanted)), "{what}: {all:?}");
    };
    let (at, offset) = text_at(b"no such account");
    check("reason", &at, offset, 0x20, &["wrong_hash"]);
    // The code of the reason lies two bytes before its text: an operator instead of the rail.
    check("kind of reason", &at, offset - 2, 1 ^ 3, &["wrong_hash"]);
    let (at, offset) = text_at(&[7; 32]);
    check("mark", &at, offset + 34, 1, &["checkpoint"]);
    let done = |at: &&At| events(&disk, at).iter().any(|(_, event)| event.done);
    let at = all.iter().filter(done).nth(5).unwrap();
    let (position, _) = events(&disk, at)[0];
    let first_byte = (position - at.start) as usize - at.offset;
    check("status", at, first_byte, 1 ^ 2, &["done_after_open"]);
    check("time of the frame", at, 32, 1, &["wrong_hash"]);
    check("number of the frame", at, 16, 4, &["frame_number"]);
}

/// Records that lead to the wrong place.
#[test]
fn edited_positions_are_found() {
    let disk = small_ledger(200, OPTIONS);
    let (mut previous, mut transaction_previous) = (0, 0);
    for at in frames(&disk) {
        for (position, event) in events(&disk, &at) {
            let named = Some((event.linked.event.customer.bits(), event.linked.event.seq));
            let try_edit = |edited: StoredEvent, code| {
                let copy = Arc::new(disk.copy());
                replace(&copy, &at, position, &edited);
                reseal(&copy);
                let all = found(&copy);
                assert!(all.contains(&(code, named)), "{code} {named:?}: {all:?}");
            };
            if let Some(position) = event.previous.filter(|_| previous < 5) {
                previous += 1;
                try_edit(StoredEvent { previous: Some(position ^ 1), ..event.clone() }, "previous");
            }
            if let Some(position) = event.transaction_previous.filter(|_| transaction_previous < 5) {
                transaction_previous += 1;
                let edited = StoredEvent { transaction_previous: Some(position ^ 1), ..event };
                try_edit(edited, "transaction_previous");
            }
        }
    }
    assert_eq!((previous, transaction_previous), (5, 5));
}

/// Everything derived, edited under right checksums.
#[test]
fn edited_checkpoints_and_indexes_are_found() {
    type Edit = fn(&mut Checkpoint);
    let disk = small_ledger(200, OPTIONS);
    let edits: [(&str, Edit); 10] = [
        ("position", |c| c.point.position += 8),
        ("number", |c| c.point.frame_number += 1),
        ("digest", |c| c.point.digest = Hash([3; 32])),
        ("time", |c| c.last_time_ms -= 1),
        ("totals", |c| c.totals.event_count += 1),
        ("open", |c| c.open.clear()),
        // Named twice, it used to count as two: one that was left out went unseen.
        ("open twice", |c| c.open.extend_from_within(..1)),
        ("marks", |c| c.sources[0].offset += 1),
        ("an index file left out", |c| c.runs.truncate(c.runs.len() - 1)),
        ("an index file that is not there", |c| c.runs[0].to += 1),
    ];
    for (name, change) in edits {
        let mut edited = checkpoint(&disk);
        change(&mut edited);
        let copy = Arc::new(disk.copy());
        copy.put(CHECKPOINT_NAME, edited.bytes());
        let all = found(&copy);
        let derived = ["checkpoint", "index_file", "index_head", "index_transaction"];
        assert!(!all.is_empty() && all.iter().all(|(code, _)| derived.contains(code)), "{name}: {all:?}");
    }
}

#[test]
fn index_files_with_other_heads_or_positions_are_found() {
    use crate::embedded::checkpoint::RunKind;
    use crate::embedded::run::{self, CustomerRun, IdRange, RunInfo, TransactionRun, fingerprint};
    let disk = small_ledger(200, OPTIONS);
    let ledger = support::LEDGER;
    for name in checkpoint(&disk).runs {
        let (file, info) = (name.file_name(), RunInfo { ledger, from: name.from, to: name.to });
        let copy = Arc::new(disk.copy());
        let code = match name.kind {
            RunKind::Customers => {
                let run = CustomerRun::open(&*copy, &file, &ledger).unwrap();
                let mut entries: Vec<_> = run.iter_from(None).map(Result::unwrap).collect();
                if name.to != checkpoint(&disk).point.position {
                    continue;
                }
                entries[1].1.link = Hash([9; 32]);
                run::write_customers(&*copy, &file, info, entries.len(), entries.into_iter()).unwrap();
                "index_head"
            }
            RunKind::Transactions => {
                let run = TransactionRun::open(&*copy, &file, &ledger).unwrap();
                let ids = run.ids();
                // Of each transaction, the newest entry leads to the wrong place.
                let all = frames(&disk);
                let entries = all.iter().flat_map(|at| events(&disk, at)).filter_map(|(position, event)| {
                    let id = event.linked.event.transaction?.bits();
                    let within = (name.from..name.to).contains(&position) && event.done;
                    within.then_some((fingerprint(&ledger, id), position - u64::from(position > name.from)))
                });
                let entries: Vec<_> = entries.collect();
                assert_ne!(ids, IdRange::EMPTY);
                run::write_transactions(&*copy, &file, info, ids, entries).unwrap();
                "index_transaction"
            }
        };
        let all = found(&copy);
        assert!(!all.is_empty() && all.iter().all(|(found, _)| *found == code), "{file}: {all:?}");
    }
}

/// How a quick reading may be divided.
#[derive(Clone, Copy, Debug)]
enum Divided {
    /// As memory asks for.
    By(usize),
    /// Halved so many times, into passes side by side that gather together.
    SideBySide(u32),
}

const DIVIDED: [Divided; 5] = [
    Divided::By(2 << 30),
    Divided::By(4 << 10),
    Divided::SideBySide(0),
    Divided::SideBySide(1),
    Divided::SideBySide(3),
];

/// What the quick reading says of a ledger: whether all is well, as far as it can tell.
fn is_quickly_sound(disk: &Arc<MemoryDisk>, divided: Divided) -> bool {
    let disk: Arc<dyn Disk> = disk.clone();
    let file = ledger_file::read(&*disk).unwrap();
    let mut early = Vec::new();
    let derived = open_derived(&disk, &file, &mut early).unwrap();
    assert_eq!(early, []);
    let segments = open_segments(&*disk).unwrap();
    let memory_bytes_max = if let Divided::By(bytes) = divided { bytes } else { 2 << 30 };
    let options = VerifyOptions { memory_bytes_max, ..VerifyOptions::default() };
    let inputs = Inputs { disk, options, config: Some(file.config), has_table: true, segments, derived };
    let report = VerifyReport::default();
    match divided {
        Divided::By(_) => quickly(&inputs, report, &mut |_| {}).is_some(),
        Divided::SideBySide(times) => {
            let list = (0..times).fold(vec![Partition::ALL], |list, _| halved(&list).unwrap());
            matches!(quick_passes(&inputs, list, Gathers::OfItsCustomers, report, &mut |_| {}), Some(Ok(_)))
        }
    }
}

/// Were it not enough for sound ledgers, each would be read twice, and nobody would notice.
#[test]
fn one_quick_reading_is_enough_for_a_sound_ledger() {
    for events in [90, 200, 700] {
        let disk = small_ledger(events, OPTIONS);
        for divided in DIVIDED {
            assert!(is_quickly_sound(&disk, divided), "{events} events, {divided:?}");
        }
        let copy = Arc::new(disk.copy());
        for name in copy.files().keys().filter(|name| name.starts_with("index-") || name.starts_with("checkpoint")) {
            copy.remove(name).unwrap();
        }
        for divided in DIVIDED {
            assert!(is_quickly_sound(&copy, divided), "{events} events, without what is derived, {divided:?}");
        }
    }
}

/// The last event of a chain is replaced by one that its customer's chain alone does not contradict, with every hash
/// and digest made right, behind what the index covers. Only what is known of the transaction finds it.
#[test]
fn events_that_do_not_fit_their_transactions_are_found() {
    type Forge = fn(&mut StoredEvent);
    let disk = small_ledger(200, OPTIONS);
    let of = |event: &StoredEvent| (event.linked.event.customer.bits(), event.linked.event.kind);
    let (wide, five) = ((1 << 100, RequestKind::Deposit), (5, RequestKind::Dispute));
    let cases: [(&str, (u128, RequestKind), u128, Forge, &str); 6] = [
        ("a transaction of another customer", wide, 9101, |e| set_transaction(e, 9100), "not_allowed"),
        ("one that was made long before", wide, 9101, |e| set_transaction(e, 9002), "not_allowed"),
        ("a dispute of another customer's", five, 9102, |e| set_transaction(e, 9100), "not_allowed"),
        ("a dispute of none", five, 9102, |e| set_transaction(e, 9199), "not_allowed"),
        ("a dispute with another kind", five, 9102, withdrawn, "malformed"),
        ("a dispute that points elsewhere", five, 9102, point_back, "transaction_previous"),
    ];
    for (name, which, transaction, forge, code) in cases {
        let all = frames(&disk);
        let wanted = Some(TransactionId::new(transaction));
        let found_at = all.iter().rev().find_map(|at| {
            let is_it = |(_, e): &(u64, StoredEvent)| of(e) == which && e.linked.event.transaction == wanted;
            events(&disk, at).into_iter().find(is_it).map(|(position, event)| (at, position, event))
        });
        let (at, position, original) = found_at.unwrap();
        let (customer, seq) = (original.linked.event.customer, original.linked.event.seq);
        let link = all.iter().flat_map(|at| events(&disk, at)).find_map(|(_, e)| {
            (e.linked.event.customer == customer && e.linked.event.seq + 1 == seq).then_some(e.linked.hash)
        });
        let link = link.unwrap();
        assert_eq!(original.linked.event.hash(&link), original.linked.hash, "{name}: the link before it");
        let mut forged = original;
        forge(&mut forged);
        forged.linked = LinkedEvent::new(forged.linked.event, &link);
        let copy = Arc::new(disk.copy());
        replace(&copy, at, position, &forged);
        reseal(&copy);
        let all = found(&copy);
        assert!(all.contains(&(code, Some((customer.bits(), seq)))), "{name}: {all:?}");
        for divided in DIVIDED {
            assert!(!is_quickly_sound(&copy, divided), "{name}, {divided:?}");
        }
    }
}

/// In the middle of a chain with one account, an event has another hash, all digests are right, and what is derived is
/// gone: the rules cannot tell, only hashing it can.
#[test]
fn another_hash_in_the_middle_of_a_simple_chain_is_found() {
    let disk = small_ledger(200, OPTIONS);
    // The checkpoint has the digest of its point.
    for name in disk.files().keys().filter(|name| name.starts_with("index-") || name.starts_with("checkpoint")) {
        disk.remove(name).unwrap();
    }
    let all = frames(&disk);
    let list: Vec<_> = all.iter().flat_map(|at| events(&disk, at).into_iter().map(move |(p, e)| (at, p, e))).collect();
    let mut count = 0;
    for (index, (at, position, event)) in list.iter().enumerate() {
        let LinkedEvent { event: content, .. } = &event.linked;
        let simple = |e: &StoredEvent| e.done && e.linked.event.state.accounts.len() == 1;
        let later = |e: &&(&At, u64, StoredEvent)| e.2.linked.event.customer == content.customer;
        let next_is_simple = list[index + 1..].iter().find(later).is_some_and(|(.., next)| simple(next));
        if content.seq % 4 != 1 || !simple(event) || !next_is_simple {
            continue;
        }
        let mut edited = event.clone();
        edited.linked.hash = Hash([1; 32]);
        let copy = Arc::new(disk.copy());
        replace(&copy, at, *position, &edited);
        reseal(&copy);
        let named = (content.customer.bits(), content.seq);
        assert!(found(&copy).contains(&("wrong_hash", Some(named))), "{named:?}");
        assert!(DIVIDED.iter().all(|&divided| !is_quickly_sound(&copy, divided)), "{named:?}");
        count += 1;
    }
    assert!(count > 5, "{count} events edited");
}

/// The last events of two chains, behind what the index covers, give one customer what they take from the other, with
/// every hash and digest made right. Sums and hashes fit; only the rules find it.
#[test]
fn money_moved_between_accounts_is_found_by_the_rules() {
    let disk = small_ledger(200, OPTIONS);
    let copy = Arc::new(disk.copy());
    let all = frames(&disk);
    let point = checkpoint(&disk).point.position;
    let later: Vec<_> = all.iter().flat_map(|at| events(&disk, at)).filter(|(position, _)| *position > point).collect();
    // With one account each, as nearly all customers.
    let simple = later.iter().filter(|(_, e)| e.done && e.linked.event.state.accounts.len() == 1);
    let customers: BTreeSet<CustomerId> = simple.map(|(_, e)| e.linked.event.customer).collect();
    let customers: Vec<CustomerId> = customers.into_iter().rev().take(2).collect();
    for (&customer, change) in customers.iter().zip([2, -2]) {
        let of_customer = |(_, e): &(u64, StoredEvent)| e.linked.event.customer == customer;
        let chain: Vec<(&At, u64, StoredEvent)> = all
            .iter()
            .flat_map(|at| events(&disk, at).into_iter().map(move |event| (at, event)))
            .filter(|(_, event)| of_customer(event))
            .map(|(at, (position, event))| (at, position, event))
            .collect();
        let [.., (_, _, before), (at, position, last)] = &chain[..] else { panic!("two events of {customer}") };
        assert_eq!(last.linked.event.hash(&before.linked.hash), last.linked.hash);
        assert!(*position > point && last.linked.event.state.accounts.len() == 1, "{customer}");
        let mut event = last.linked.event.clone();
        let mut account = event.account();
        account.available = Amount::from_steps(account.available.steps() + change);
        event.state.accounts.set(event.currency, account);
        let forged = StoredEvent { linked: LinkedEvent::new(event, &before.linked.hash), ..last.clone() };
        replace(&copy, at, *position, &forged);
    }
    reseal(&copy);
    let all: Vec<_> =
        found(&copy).into_iter().map(|(code, event)| (code, event.map(|(customer, _)| customer))).collect();
    let named: Vec<_> = customers.iter().map(|customer| ("wrong_state", Some(customer.bits()))).collect();
    assert_eq!(all, named);
    for divided in DIVIDED {
        assert!(!is_quickly_sound(&copy, divided), "{divided:?}");
    }
}

fn set_transaction(event: &mut StoredEvent, transaction: u128) {
    event.linked.event.transaction = Some(TransactionId::new(transaction));
}

fn withdrawn(event: &mut StoredEvent) {
    event.linked.event.transaction_kind = bursar_core::TransactionKind::Withdrawal;
}

fn point_back(event: &mut StoredEvent) {
    event.transaction_previous = event.transaction_previous.map(|position| position - 1);
}
