//! What is found when a ledger is opened, and what is decided then.

// What fails in a helper fails the test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use bursar_engine::core::Request;
use bursar_engine::core::commit::RailAnswer;
use bursar_engine::embedded::disk::Disk;
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedOptions, EmbeddedStore, VerifyOptions, verify};
use bursar_engine::store::{Chains, Transactions};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Bench, Everything, LEDGER, OPTIONS, customer, deposit, movement, read_everything, transaction};

/// A rail took its time: its event was written before the memory was last written to index files, and closed
/// after it. The next index files were refused, since the event lies before what they cover, and the store
/// stopped for good: each further opening came to the same point.
#[test]
fn an_event_may_be_closed_after_the_index_was_written() {
    let mut bench = Bench::create(LEDGER, OPTIONS);
    bench.commit(&[deposit(1, 1, 500)]);
    let event = bench.commit(&[movement(false, 1, 2, 200, 0)])[0];
    for number in 10..60 {
        bench.commit(&[deposit(2, number, 1)]);
    }
    assert!(bench.disk.files().keys().any(|name| name.starts_with("index-")));
    bench.answer(event, RailAnswer::Done);
    let before = read_everything(&bench.store).unwrap();
    bench.store.close().unwrap();
    let disk = bench.disk.clone();
    drop(bench);
    let mut bench = Bench::open(disk, OPTIONS).unwrap();
    assert_eq!(read_everything(&bench.store).unwrap(), before);
    bench.commit(&[Request::dispute(customer(1), transaction(2))]);
    let events = bench.store.events_of(transaction(2)).unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
}

/// The checkpoint lay in a segment that was not the last one any more, as it does after most crashes, or was gone.
/// The place where a segment would be continued was computed for the last one all the same: a panic.
#[test]
fn a_checkpoint_may_be_segments_behind() {
    let options = EmbeddedOptions { segment_bytes: 3000, memtable_entries_max: 200, heads_max: 50, background: false };
    let mut bench = Bench::create(LEDGER, options);
    let mut number = 0;
    while bench.disk.files().keys().filter(|name| name.starts_with("journal-")).count() < 10 {
        number += 1;
        bench.commit(&[deposit(number % 5, number, 500)]);
    }
    let before = read_everything(&bench.store).unwrap();
    let disk = bench.disk.clone();
    drop(bench);
    for name in [None, Some("checkpoint.bursar")] {
        let copy = Arc::new(disk.copy());
        if let Some(name) = name {
            copy.remove(name).unwrap_or_default();
        }
        let bench = Bench::open(copy, options).unwrap();
        assert_eq!(read_everything(&bench.store).unwrap(), before);
    }
}

/// An index file was missing, so the index was made anew, and what the checkpoint said was forgotten: a frame at the
/// journal's end that it covered, and whose last bytes read as zero, was cut off as if nobody had been told of it.
#[test]
fn what_the_checkpoint_covers_is_not_cut_off_when_the_index_is_gone() {
    let mut bench = Bench::create(LEDGER, OPTIONS);
    for number in 0..200 {
        bench.commit(&[deposit(number % 5, number, 500)]);
    }
    let before = read_everything(&bench.store).unwrap();
    bench.store.close().unwrap();
    let disk = bench.disk.clone();
    drop(bench);
    let names: Vec<String> = disk.files().into_keys().collect();
    let index = names.iter().find(|name| name.starts_with("index-")).unwrap();
    let last = names.iter().rfind(|name| name.starts_with("journal-")).unwrap();
    for damage in ["the file is missing", "a block is damaged"] {
        for torn in [false, true] {
            let copy = Arc::new(disk.copy());
            if damage == "the file is missing" {
                copy.remove(index).unwrap();
            } else {
                copy.edit(index, |bytes| bytes[4096..].fill(0x55));
            }
            if torn {
                copy.edit(last, |bytes| {
                    let end = bytes.len();
                    bytes[end - 8..].fill(0);
                });
            }
            let journal = copy.files()[last].clone();
            match (Bench::open(copy.clone(), OPTIONS), torn) {
                (Ok(bench), false) => {
                    assert!(bench.report.index_rebuilt.is_some());
                    assert_eq!(read_everything(&bench.store).unwrap(), before);
                }
                (Err(error), true) => {
                    assert_eq!(error.code(), "damaged", "{damage}");
                    assert_eq!(copy.files()[last], journal);
                }
                (opened, _) => panic!("{damage}, torn {torn}: {opened:?}"),
            }
        }
    }
}

/// A segment was renamed to a position near 2^64, and verification panicked: it added the file's length to it.
#[test]
fn a_segment_may_have_any_name() {
    let disk = support::small_ledger(90, OPTIONS);
    let last = disk.files().into_keys().rfind(|name| name.starts_with("journal-")).unwrap();
    for position in [1 << 61, (1 << 62) - 1, 1 << 62, u64::MAX - 100, u64::MAX] {
        let copy = Arc::new(disk.copy());
        copy.rename(&last, &format!("journal-{position:020}.bursar")).unwrap();
        let report = bursar_engine::embedded::verify_on(copy.clone(), &VerifyOptions::default(), &mut |_| ()).unwrap();
        assert!(!report.is_sound(), "{position}");
        assert!(Bench::open(copy, OPTIONS).is_err(), "{position}");
    }
}

const CHECKPOINT: &str = "checkpoint.bursar";

/// What is to come of an opening.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// It opens, and everything is there.
    Whole,
    /// It opens and everything is there; the index was made anew, and that is said.
    Rebuilt,
    /// It opens without the last so many frames, which were never acknowledged, and that is said.
    CutOff(usize),
    /// It is refused with this code, and nothing is changed.
    Refused(&'static str),
    /// It opens; what is damaged is met, and then either the index is made anew, or reading is refused with this code.
    Met(&'static str),
}
use Decision::{CutOff, Met, Rebuilt, Refused, Whole};

/// A ledger, and what was in it before each of its last frames: the last one large, and written together with the
/// one before it.
struct Case {
    disk: Arc<MemoryDisk>,
    /// Everything; without the last frame; without the last two.
    states: [Everything; 3],
    segments: Vec<String>,
    /// The frames of the last segment, as offset and length.
    frames: Vec<(usize, usize)>,
}

impl Case {
    fn new() -> Self {
        let disk = support::small_ledger(200, OPTIONS);
        let mut bench = Bench::open(disk.clone(), OPTIONS).unwrap();
        let state = |bench: &Bench| read_everything(&bench.store).unwrap();
        let without_two = state(&bench);
        bench.run(&[deposit(3, 20_001, 1)]);
        let without_one = state(&bench);
        let many: Vec<Request> = (0..20).map(|number| deposit(number % 3 + 5, 30_000 + number, 1)).collect();
        bench.run(&many);
        bench.store.sync().unwrap();
        let states = [state(&bench), without_one, without_two];
        drop(bench);
        let segments: Vec<String> = disk.files().into_keys().filter(|name| name.starts_with("journal-")).collect();
        assert!(segments.len() >= 3);
        let frames = frames(&disk.files()[segments.last().unwrap()]);
        assert!(frames.len() >= 3 && frames.last().unwrap().1 > 1000, "{frames:?}");
        Self { disk, states, segments, frames }
    }

    fn last(&self) -> &str {
        self.segments.last().unwrap()
    }

    /// Changes a copy of the last segment, and opens it.
    fn in_last(&self, what: &str, decision: Decision, change: impl FnOnce(&mut Vec<u8>)) {
        self.check(what, decision, |disk| disk.edit(self.last(), change));
    }

    fn check(&self, what: &str, decision: Decision, change: impl FnOnce(&MemoryDisk)) {
        let disk = Arc::new(self.disk.copy());
        change(&disk);
        let before = disk.files();
        let opened = Bench::open(disk.clone(), OPTIONS);
        match (decision, opened) {
            (Whole, Ok(bench)) => {
                assert_eq!((&bench.report.cut_off, bench.report.index_rebuilt), (&None, None), "{what}");
                assert_eq!(read_everything(&bench.store).unwrap(), self.states[0], "{what}");
                Self::goes_on(what, bench);
            }
            (Rebuilt, Ok(bench)) => {
                assert!(bench.report.index_rebuilt.is_some(), "{what}");
                assert_eq!(read_everything(&bench.store).unwrap(), self.states[0], "{what}");
                Self::goes_on(what, bench);
            }
            (CutOff(count), Ok(bench)) => {
                let cut_off = bench.report.cut_off.clone().unwrap_or_else(|| panic!("{what}: nothing was cut off"));
                assert_eq!(cut_off.offset, self.frames[self.frames.len() - count].0 as u64, "{what}");
                assert_eq!(read_everything(&bench.store).unwrap(), self.states[count], "{what}");
                Self::goes_on(what, bench);
            }
            (Refused(code), Err(error)) => {
                assert_eq!(error.code(), code, "{what}: {error}");
                // What is derived may have been made anew as far as the journal could be read.
                let truth = |files: BTreeMap<String, Vec<u8>>| {
                    files.into_iter().filter(|(name, _)| !name.starts_with("index-") && name != CHECKPOINT)
                };
                assert!(truth(disk.files()).eq(truth(before)), "{what}: a refusal changes nothing");
            }
            (Met(code), Ok(bench)) => match read_everything(&bench.store) {
                Ok(read) => assert!(bench.report.index_rebuilt.is_some() && read == self.states[0], "{what}"),
                Err(error) => assert_eq!(error.code(), code, "{what}"),
            },
            (_, opened) => panic!("{what}: {decision:?}, but {opened:?}"),
        }
    }

    /// After any opening the ledger takes new events, and opens again with them.
    fn goes_on(what: &str, mut bench: Bench) {
        bench.commit(&[deposit(6, 40_000, 5)]);
        let state = read_everything(&bench.store).unwrap();
        let disk = bench.disk.clone();
        drop(bench);
        let bench = Bench::open(disk, OPTIONS).unwrap_or_else(|error| panic!("{what}, again: {error}"));
        assert_eq!(bench.report.cut_off, None, "{what}, again");
        assert_eq!(read_everything(&bench.store).unwrap(), state, "{what}, again");
    }
}

/// Where frames begin in a segment, and how long they are.
fn frames(bytes: &[u8]) -> Vec<(usize, usize)> {
    let (mut list, mut offset) = (Vec::new(), 96);
    while bytes.get(offset..offset + 4) == Some(b"BuFr") {
        let body = u32::from_le_bytes(bytes[offset + 8..offset + 12].try_into().unwrap());
        list.push((offset, 80 + body as usize));
        offset += 80 + body as usize;
    }
    list
}

/// The rows of the table in `docs/format.md`, "Opening", that concern the journal's end.
#[test]
fn the_end_of_the_journal() {
    let case = Case::new();
    let &(last, bytes) = case.frames.last().unwrap();
    let &(before, before_bytes) = &case.frames[case.frames.len() - 2];
    let &(durable, durable_bytes) = &case.frames[case.frames.len() - 3];
    let end = last + bytes;
    case.check("clean end with reserved room", Whole, |_| ());
    case.in_last("clean end at the file's end", Whole, |file| file.truncate(end));
    case.in_last("more reserved room", Whole, |file| file.resize(file.len() + 100_000, 0));
    for at in (8..80).step_by(8) {
        case.in_last("torn header", CutOff(1), |file| file[last + at..].fill(0));
        case.in_last("file ends in a header", CutOff(1), |file| file.truncate(last + at));
    }
    for sector in last / 512..=(end - 1) / 512 {
        let range = (sector * 512).max(last)..((sector + 1) * 512).min(end);
        case.in_last("a sector never written", CutOff(1), |file| file[range].fill(0));
    }
    for length in (80..bytes).step_by(8) {
        case.in_last("file ends in a body", CutOff(1), |file| file.truncate(last + length));
        case.in_last("body written up to somewhere", CutOff(1), |file| file[last + length..].fill(0));
    }
    for at in (0..bytes).step_by(13) {
        case.in_last("flipped in the last frame", Refused("damaged"), |file| file[last + at] ^= 0x20);
    }
    case.in_last("a frame of the same unsynced write is missing", CutOff(2), |file| {
        file[before..before + before_bytes].fill(0);
    });
    case.in_last("a durable frame is missing", Refused("damaged"), |file| {
        file[durable..durable + durable_bytes].fill(0);
    });
    case.in_last("an older frame behind the end", Refused("damaged"), |file| {
        let copy = file[before..before + before_bytes].to_vec();
        file.splice(end..end + copy.len(), copy);
    });
    case.in_last("a frame of another ledger behind the end", Refused("damaged"), |file| {
        let mut other = Bench::create([1; 16], OPTIONS);
        other.commit(&[deposit(1, 1, 1)]);
        let other = other.disk.files().into_values().find(|file| file.starts_with(b"BURSJRNL")).unwrap();
        let (at, bytes) = frames(&other)[0];
        file.splice(end..end + bytes, other[at..at + bytes].iter().copied());
    });
}

/// The rows that concern segments.
#[test]
fn segments() {
    let case = Case::new();
    let [first, middle] = [&case.segments[0], &case.segments[1]];
    case.check("missing first segment", Refused("damaged"), |disk| disk.remove(first).unwrap());
    case.check("missing middle segment", Refused("damaged"), |disk| disk.remove(middle).unwrap());
    case.check("a segment has lost its end", Refused("damaged"), |disk| {
        disk.edit(middle, |file| file.truncate(file.len() - 8));
    });
    case.check("a last segment that was never begun", Whole, |disk| {
        let file = &disk.files()[case.last()];
        let end = case.frames.last().map_or(0, |(at, bytes)| at + bytes);
        let start: u64 = case.last()[8..28].parse().unwrap();
        disk.put(case.last(), file[..end].to_vec());
        disk.put(&format!("journal-{:020}.bursar", start + end as u64), vec![0; 4096]);
    });
    for name in &case.segments {
        case.check("damaged segment header", Refused("damaged"), |disk| disk.edit(name, |file| file[40] ^= 1));
        case.check("newer segment", Refused("unknown_version"), |disk| disk.edit(name, |file| file[8] = 2));
    }
    case.check("unwritten header of a middle segment", Refused("damaged"), |disk| {
        disk.edit(middle, |file| file[..96].fill(0));
    });
    case.check("unwritten header before frames", Refused("damaged"), |disk| {
        disk.edit(case.last(), |file| file[..96].fill(0));
    });
    case.check("a segment of another ledger", Refused("damaged"), |disk| {
        let mut other = Bench::create([1; 16], OPTIONS);
        other.commit(&[deposit(1, 1, 1)]);
        disk.put(first, other.disk.files()[first].clone());
    });
    case.check("a damaged frame in a segment before the last, behind the checkpoint", Refused("damaged"), |disk| {
        disk.remove("checkpoint.bursar").unwrap();
        disk.edit(middle, |file| file[96 + 100] ^= 1);
    });
}

/// The rows that concern what is derived: never the truth, and made anew.
#[test]
fn checkpoints_and_index_files() {
    let case = Case::new();
    let files = case.disk.files();
    let newest = files.keys().rfind(|name| name.starts_with("index-c")).unwrap();
    case.check("no checkpoint", Whole, |disk| disk.remove(CHECKPOINT).unwrap());
    case.check("nothing derived at all", Whole, |disk| {
        for name in files.keys().filter(|name| name.starts_with("index-") || *name == CHECKPOINT) {
            disk.remove(name).unwrap();
        }
    });
    case.check("damaged checkpoint", Rebuilt, |disk| disk.edit(CHECKPOINT, |file| file[20] ^= 1));
    case.check("empty checkpoint", Rebuilt, |disk| disk.put(CHECKPOINT, Vec::new()));
    case.check("newer checkpoint", Rebuilt, |disk| disk.edit(CHECKPOINT, |file| file[8] = 2));
    let mut other = Bench::create([1; 16], OPTIONS);
    other.commit(&[deposit(1, 1, 1)]);
    other.store.close().unwrap();
    let other = other.disk.files()[CHECKPOINT].clone();
    case.check("checkpoint of another ledger", Rebuilt, |disk| disk.put(CHECKPOINT, other));
    case.check("the checkpoint is ahead of the journal", Refused("damaged"), |disk| {
        for name in &case.segments[1..] {
            disk.remove(name).unwrap();
        }
    });
    case.check("missing index file", Rebuilt, |disk| disk.remove(newest).unwrap());
    case.check("short index file", Rebuilt, |disk| disk.edit(newest, |file| file.truncate(100)));
    case.check("damaged header of an index file", Rebuilt, |disk| disk.edit(newest, |file| file[50] ^= 1));
    case.check("damaged block of an index file", Met("damaged"), |disk| disk.edit(newest, |file| file[4100] ^= 1));
    for name in files.keys().filter(|name| name.starts_with("index-")) {
        case.check("damaged block of an index file", Met("damaged"), |disk| disk.edit(name, |file| file[4100] ^= 1));
    }
    case.check("leftovers", Whole, |disk| {
        disk.put("checkpoint.bursar.tmp", vec![1; 10]);
        disk.put("index-t-00000000000000000000-00000000000000000001.bursar", vec![1; 10]);
        disk.put("index-c-00000000000000000000-00000000000000000001.bursar.tmp", vec![1; 10]);
    });
    let disk = Arc::new(case.disk.copy());
    disk.put("index-c-00000000000000000000-00000000000000000001.bursar.tmp", vec![1; 10]);
    drop(Bench::open(disk.clone(), OPTIONS).unwrap());
    assert!(!disk.files().keys().any(|name| name.contains(".tmp")), "leftovers are removed");
}

/// The rows that concern the ledger file and the directory.
#[test]
fn the_ledger_file_and_the_directory() {
    const LEDGER_FILE: &str = "ledger.bursar";
    let case = Case::new();
    case.check("no ledger file", Refused("no_ledger"), |disk| disk.remove(LEDGER_FILE).unwrap());
    case.check("damaged ledger file", Refused("damaged"), |disk| disk.edit(LEDGER_FILE, |file| file[20] ^= 1));
    case.check("short ledger file", Refused("damaged"), |disk| disk.edit(LEDGER_FILE, |file| file.truncate(9)));
    case.check("newer ledger", Refused("unknown_version"), |disk| disk.edit(LEDGER_FILE, |file| file[8] = 3));
    // The version of chains alone, which lack their last byte then.
    case.check("another kind", Refused("damaged"), |disk| disk.edit(LEDGER_FILE, |file| file[8] = 2));
    case.check("empty directory", Refused("no_ledger"), |disk| {
        for name in disk.files().keys() {
            disk.remove(name).unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let code = |path: &std::path::Path| EmbeddedStore::open(path, OPTIONS).unwrap_err().code();
    assert_eq!(code(&directory.path().join("not there")), "no_ledger");
    assert_eq!(code(directory.path()), "no_ledger");
    let store = EmbeddedStore::create(directory.path(), &support::config(LEDGER), OPTIONS).unwrap();
    assert_eq!(code(directory.path()), "in_use");
    assert_eq!(
        verify(directory.path(), &VerifyOptions::default(), &mut |_| {}).unwrap_err().code(),
        "in_use",
        "verification takes the lock as well"
    );
    drop(store);
    assert!(verify(directory.path(), &VerifyOptions::default(), &mut |_| {}).unwrap().is_sound());
    let again = EmbeddedStore::create(directory.path(), &support::config(LEDGER), OPTIONS);
    assert_eq!(again.unwrap_err().code(), "ledger_exists");
    EmbeddedStore::open(directory.path(), OPTIONS).unwrap();
}

/// A ledger's directory was made as the system makes them, for everybody to read.
#[cfg(unix)]
#[test]
fn a_new_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let outer = tempfile::tempdir().unwrap();
    let directory = outer.path().join("books").join("ledger");
    EmbeddedStore::create(&directory, &support::config(LEDGER), OPTIONS).unwrap();
    for path in [directory.as_path(), &outer.path().join("books")] {
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700, "{}", path.display());
    }
}
