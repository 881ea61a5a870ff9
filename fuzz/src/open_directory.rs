//! Opening a directory that was damaged: a real small ledger, edited as the input says.
//!
//! What is served without an error is what the ledger held, or what it held after an earlier frame if the journal's
//! end was edited. Where an edit makes checksums right again, the store cannot know that something is wrong; then
//! nothing may panic or hang, and verification finds what does not fit the hashes.
//!
//! Input: which ledger; then edits, see [`edit`].

use crate::input::Input;
use crate::ledger::{Bench, Everything, Files, OPTIONS, deposit, read_everything, refused, withdrawal};
use bursar_engine::core::commit::RailAnswer;
use bursar_engine::core::hash::{Domain, Hasher};
use bursar_engine::core::{
    CustomerId, EventStatus, Hash, LedgerConfig, Request, TransactionId,
    event::{aborted_link, done_by_hand_link},
};
use bursar_engine::embedded::memory_disk::MemoryDisk;
use bursar_engine::embedded::{EmbeddedStore, VerifyOptions, verify_on};
use bursar_engine::fuzzing::{AnyCheckpoint, AnyFrame, HEADER_BYTES, crc32c, put_varint};
use bursar_engine::store::StoreError;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

const EDITS_MAX: usize = 12;
const SEGMENT_HEADER_BYTES: usize = 96;

/// A ledger as it lies on its disk.
struct Ledger {
    files: Files,
    /// What it held after each of its frames, and in the beginning.
    history: Vec<Everything>,
    /// The last frame that its checkpoint covers.
    covered: u64,
}

/// Ledgers to edit: as a crash left it, as a clean stop left it, with nothing in it, and one of another id.
fn ledgers() -> &'static [Ledger; 4] {
    static LEDGERS: OnceLock<[Ledger; 4]> = OnceLock::new();
    LEDGERS.get_or_init(|| [build(7, 3, false), build(7, 2, true), build(7, 0, false), build(9, 1, false)])
}

/// A bench that keeps what the ledger holds after each frame.
struct Recorder {
    bench: Bench,
    history: Vec<Everything>,
}

impl Recorder {
    fn note(&mut self) {
        let (store, _) = EmbeddedStore::open_on(Arc::new(self.bench.disk.copy()), OPTIONS).unwrap();
        let now = read_everything(&store).unwrap();
        if self.history.last() != Some(&now) {
            self.history.push(now);
        }
    }

    fn commit(&mut self, requests: &[Request]) -> Vec<bursar_engine::core::EventId> {
        let events = self.bench.commit(requests);
        self.note();
        events
    }

    fn answer(&mut self, event: bursar_engine::core::EventId, answer: RailAnswer) {
        self.bench.answer(event, answer);
        self.note();
    }
}

fn build(ledger: u8, rounds: u128, ends_cleanly: bool) -> Ledger {
    let mut recorder = Recorder { bench: Bench::create(ledger), history: Vec::new() };
    recorder.note();
    let customer = CustomerId::new;
    let transaction = TransactionId::new;
    for round in 0..rounds {
        let id = |number: u128| round * 100 + number;
        if round == 0 {
            recorder.bench.ingest(5, &[deposit(1, id(1), 500, 0), deposit(2, id(2), 700, 1), deposit(2, id(1), 9, 0)]);
            recorder.note();
            let open = recorder.commit(&[withdrawal(1, id(3), 100)]);
            recorder.answer(open[0], refused());
        }
        let wide = 1 << 90 | round;
        recorder.commit(&[deposit(3, id(10), 1000, 0), deposit(wide, id(11), 11, 1), deposit(1, id(12) << 70, 12, 0)]);
        let open = recorder.commit(&[withdrawal(3, id(20), 50)]);
        recorder.commit(&[
            deposit(4 + round, id(13), 1, 0),
            Request::dispute(customer(4 + round), transaction(id(13))),
            Request::chargeback(customer(4 + round), transaction(id(13))),
        ]);
        recorder.answer(open[0], RailAnswer::Done);
        recorder.commit(&[
            Request::dispute(customer(3), transaction(id(20))),
            Request::dispute(customer(3), transaction(id(10))),
            Request::unlock(customer(4 + round)),
            Request::resolve(customer(3), transaction(id(10))),
        ]);
    }
    if rounds > 0 {
        recorder.commit(&[withdrawal(1, 9000, 3), deposit(3, 9001, 1, 0)]);
    }
    recorder.bench = recorder.bench.reopened(true);
    if !ends_cleanly && rounds > 0 {
        recorder.note();
        recorder.commit(&[deposit(3, 9002, 2, 0)]);
        recorder.commit(&[deposit(8, 9003, 3, 1), Request::dispute(customer(8), transaction(9003))]);
        recorder.bench.run(&[deposit(3, 9004, 4, 0)]);
        recorder.note();
    }
    let Recorder { bench, history } = recorder;
    let mut files = bench.disk.files();
    // Room that is reserved reads as zero; a little of it says as much as all.
    if let Some((_, journal)) = files.iter_mut().rfind(|(name, _)| name.starts_with("journal-")) {
        let end = journal.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        journal.truncate(end + 64);
    }
    let covered = files.get("checkpoint.bursar").and_then(|bytes| AnyCheckpoint::read(bytes));
    Ledger { files, history, covered: covered.map_or(0, |checkpoint| checkpoint.frame_number()) }
}

/// Edits a directory, and opens, reads and verifies it.
pub fn open_directory(data: &[u8]) {
    let mut input = Input::new(data);
    let ledger = &ledgers()[input.below(4)];
    let mut files = ledger.files.clone();
    let mut is_forged = false;
    for _ in 0..EDITS_MAX {
        if input.is_empty() {
            break;
        }
        is_forged |= edit(&mut input, &mut files);
    }
    // With another ledger's file that says so, it is another ledger.
    let identity = |files: &Files| files.get("ledger.bursar").cloned();
    is_forged |= identity(&files) != identity(&ledger.files)
        && ledgers().iter().any(|other| identity(&files) == identity(&other.files));
    let disk = Arc::new(MemoryDisk::with_files(files.clone()));
    let report = verify_on(disk.clone(), &VerifyOptions::default(), &mut |_| ());
    assert_eq!(disk.files(), files, "verification changed something");
    let served = open_and_read(&disk);
    match (&served, &report) {
        (Ok((served, head)), Ok(report)) => {
            if report.is_sound() {
                assert_eq!(served.totals, report.totals, "verification is content with other sums");
                assert_eq!(head.1, report.journal_digest);
                // The header of a last segment without a frame counts for verification, and for nothing else.
                assert!([0, SEGMENT_HEADER_BYTES as u64].contains(&(report.journal_bytes - head.0)));
            } else if is_forged {
                return;
            }
            if is_forged {
                check_hashes(served, &read_config(&disk));
            } else {
                check_served(served, ledger, &files);
            }
        }
        (Err(error), Ok(report)) => {
            assert!(
                is_forged || !report.is_sound(),
                "opening says `{error}`, verification nothing: {:?}",
                report.notes
            );
        }
        (Ok((served, _)), Err(error)) => {
            assert!(is_forged, "{error}: {} customers are served all the same", served.heads.len());
        }
        (Err(_), Err(_)) => {}
    }
    // What was decided at the first opening holds at the next one.
    if let Ok((served, _)) = served {
        let (again, _) = open_and_read(&disk).unwrap();
        assert_eq!(again, served, "opened a second time");
    }
}

fn open_and_read(disk: &Arc<MemoryDisk>) -> Result<(Everything, (u64, Hash)), StoreError> {
    let (store, _) = EmbeddedStore::open_on(disk.clone(), OPTIONS)?;
    Ok((read_everything(&store)?, store.journal_head()))
}

fn read_config(disk: &Arc<MemoryDisk>) -> LedgerConfig {
    EmbeddedStore::open_on(disk.clone(), OPTIONS).unwrap().0.config().clone()
}

/// What is served is what was there, or was there earlier if only the journal's end can be gone.
fn check_served(served: &Everything, ledger: &Ledger, files: &Files) {
    let is_journal = |name: &&String| name.starts_with("journal-");
    let journal_is_whole = ledger.files.keys().filter(is_journal).all(|name| files.get(name) == ledger.files.get(name));
    let is_covered = files.get("checkpoint.bursar") == ledger.files.get("checkpoint.bursar");
    let newest = ledger.history.len() - 1;
    let Some(place) = ledger.history.iter().position(|then| then == served) else {
        panic!("served is what never was: {served:?}");
    };
    assert!(place == newest || !journal_is_whole, "after frame {place} of {newest}, with a whole journal");
    assert!(place as u64 >= ledger.covered || !is_covered, "after frame {place}; {} are covered", ledger.covered);
}

/// Verification is content: then every event that is served fits its chain's hashes.
fn check_hashes(served: &Everything, config: &LedgerConfig) {
    let digest = config.digest();
    for (listed, chain) in served.heads.iter().zip(&served.chains) {
        let mut hasher = Hasher::new(Domain::Chain);
        hasher.update(digest.as_bytes());
        hasher.update(&listed.customer.bits().to_be_bytes());
        let mut link = hasher.finish();
        let mut open: Option<Hash> = None;
        for entry in chain {
            let fits = |before: &Hash| entry.linked.event.hash(before) == entry.linked.hash;
            assert!(fits(&link) || open.is_some_and(|hash| fits(&hash)), "{entry:?}");
            open = Some(entry.linked.hash);
            match &entry.status {
                EventStatus::Started => {}
                EventStatus::Done => (link, open) = (entry.linked.hash, None),
                EventStatus::DoneByHand(reason) => {
                    (link, open) = (done_by_hand_link(&link, &entry.linked.hash, reason), None);
                }
                EventStatus::Aborted(reason) => link = aborted_link(&link, &entry.linked.hash, reason),
            }
        }
        assert_eq!(link, listed.head.link, "customer {}", listed.customer);
    }
}

/// One edit: a byte says which, the next which file, two or more what and where. Gives whether checksums were made
/// right again.
fn edit(input: &mut Input<'_>, files: &mut Files) -> bool {
    let (what, which) = (input.byte(), input.byte());
    let names: Vec<String> = files.keys().cloned().collect();
    if names.is_empty() {
        return false;
    }
    let name = names[usize::from(which) % names.len()].clone();
    let other = |input: &mut Input<'_>| names[input.below(names.len())].clone();
    let mut bytes = files[&name].clone();
    let length = bytes.len();
    match what % 18 {
        0 => change(&mut bytes, input.number16(), |byte| byte ^ (1 << (length % 8))),
        1 => {
            let (at, by) = (input.number16(), input.byte());
            change(&mut bytes, at, |byte| byte ^ by);
        }
        2 => bytes.truncate(input.number16() % (length + 1)),
        3 => {
            let (fill, count) = (input.byte(), usize::from(input.byte()) * 9);
            bytes.resize(length + count, fill);
        }
        4 => {
            let block = input.one_of(&[8, 32, 512, 4096]);
            let (from, to) = (input.number16() * 8, input.number16() * 8);
            swap(&mut bytes, from, to, block);
        }
        5 => {
            let source = files[&other(input)].clone();
            let block = input.one_of(&[8, 80, 512, 4096]);
            let (from, to) = (input.number16() * 8, input.number16() * 8);
            copy(&source, from, &mut bytes, to, block);
        }
        6 => {
            files.remove(&name);
            return false;
        }
        7 => {
            let to = match input.below(4) {
                0 => other(input),
                1 => format!("{name}.tmp"),
                2 => format!("journal-{:020}.bursar", input.number64()),
                _ => format!(
                    "index-{}-{:020}-{:020}.bursar",
                    input.one_of(&['c', 't', 'x']),
                    input.number64(),
                    input.number64()
                ),
            };
            files.remove(&name);
            files.insert(to, bytes);
            return false;
        }
        8 => {
            let count = usize::from(input.byte());
            bytes = input.take(count).to_vec();
        }
        9 => {
            let (at, count) = (input.number16(), input.one_of(&[8, 64, 512, 4096, usize::MAX]));
            let start = at % (length + 1);
            bytes[start..start.saturating_add(count).min(length)].fill(0);
        }
        10 => {
            // Behind sector boundaries, as a write that came only in part.
            let at = (input.number16() % (length / 512 + 1)) * 512;
            let end = (at + 512).min(length);
            bytes[at..end].fill(0);
        }
        11 => {
            let (at, count) = (input.number16() % (length + 1), usize::from(input.byte()));
            let inserted = input.take(count);
            bytes.splice(at..at, inserted.iter().copied());
        }
        12 => {
            let (at, count) = (input.number16() % (length + 1), usize::from(input.byte()));
            bytes.drain(at..(at + count).min(length));
        }
        13 => {
            let (at, value) = (input.number16() % (length + 1), input.number64());
            let wide = value.to_le_bytes();
            copy(&wide, 0, &mut bytes, at, 8);
        }
        14 => {
            let at = input.number16() % (length + 1);
            let mut varint = Vec::new();
            put_varint(&mut varint, input.number64());
            copy(&varint, 0, &mut bytes, at, 10);
        }
        15 => {
            // A file of another ledger, or of another time of this one.
            let ledger = &ledgers()[input.below(4)];
            let index = input.below(ledger.files.len());
            let (theirs, content) = ledger.files.iter().nth(index).unwrap();
            let is_other_time = ledger.files.get("ledger.bursar") == files.get("ledger.bursar");
            files.insert(if input.flag() { theirs.clone() } else { name }, content.clone());
            // A directory put together from two times is no damage that anything in it could tell.
            return is_other_time;
        }
        _ => {
            forge(&name, &mut bytes, what % 18 == 17, files);
            files.insert(name, bytes);
            return true;
        }
    }
    files.insert(name, bytes);
    false
}

fn change(bytes: &mut [u8], at: usize, change: impl Fn(u8) -> u8) {
    if !bytes.is_empty() {
        let at = at % bytes.len();
        bytes[at] = change(bytes[at]);
    }
}

fn swap(bytes: &mut [u8], a: usize, b: usize, block: usize) {
    let length = bytes.len();
    if length >= 2 * block {
        let (a, b) = (a % (length - block + 1), b % (length - block + 1));
        for at in 0..block {
            bytes.swap(a + at, b + at);
        }
    }
}

fn copy(source: &[u8], from: usize, target: &mut [u8], to: usize, count: usize) {
    let from = from % (source.len() + 1);
    let to = to % (target.len() + 1);
    let count = count.min(source.len() - from).min(target.len() - to);
    target[to..to + count].copy_from_slice(&source[from..from + count]);
}

/// Makes a file's checksums right; of a segment, also the digests of all its frames, if `digests` says so.
fn forge(name: &str, bytes: &mut [u8], digests: bool, files: &BTreeMap<String, Vec<u8>>) {
    if name == "ledger.bursar" || name == "checkpoint.bursar" {
        if bytes.len() >= 16 {
            let crc = crc32c(&bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        }
    } else if name.starts_with("index-") {
        forge_index(name, bytes);
    } else {
        forge_segment(bytes, digests, files);
    }
}

fn forge_segment(bytes: &mut [u8], digests: bool, files: &BTreeMap<String, Vec<u8>>) {
    if bytes.len() < SEGMENT_HEADER_BYTES {
        return;
    }
    let crc = crc32c(&bytes[16..SEGMENT_HEADER_BYTES]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut before = Hash(bytes[48..80].try_into().unwrap());
    let is_first = bytes[40..48] == [0; 8];
    if let Some(ledger) = files.get("ledger.bursar").filter(|ledger| is_first && digests && ledger.len() > 16) {
        let mut hasher = Hasher::new(Domain::Ledger);
        hasher.update(&ledger[16..]);
        before = hasher.finish();
    }
    let mut at = SEGMENT_HEADER_BYTES;
    while bytes.len() >= at + HEADER_BYTES && bytes[at..at + 4] == *b"BuFr" {
        let body_bytes = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let body_start = at + HEADER_BYTES;
        let body_end = body_start.saturating_add(body_bytes).min(bytes.len());
        let body_crc = crc32c(&bytes[body_start..body_end]);
        bytes[at + 12..at + 16].copy_from_slice(&body_crc.to_le_bytes());
        if digests {
            let mut hasher = Hasher::new(Domain::Frame);
            hasher.update(before.as_bytes());
            hasher.update(&bytes[at + 8..at + 48]);
            hasher.update(&bytes[body_start..body_end]);
            before = hasher.finish();
            bytes[at + 48..at + 80].copy_from_slice(before.as_bytes());
        }
        let crc = crc32c(&bytes[at + 8..at + HEADER_BYTES]);
        bytes[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        debug_assert!(body_bytes == 0 || body_end == bytes.len() || at < body_end);
        let sound = AnyFrame::take(&bytes[at..], 0).map(|frame| frame.frame_bytes() as usize);
        at = body_end.max(at + sound.unwrap_or(HEADER_BYTES));
    }
}

/// `docs/format.md`, "Checksums and the seal".
fn forge_index(name: &str, bytes: &mut [u8]) {
    const BLOCK_BYTES: usize = 4096;
    if bytes.len() < BLOCK_BYTES {
        return;
    }
    let crc = crc32c(&bytes[..BLOCK_BYTES - 4]);
    bytes[BLOCK_BYTES - 4..BLOCK_BYTES].copy_from_slice(&crc.to_le_bytes());
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (ledger, from, to, block_count) = (bytes[16..32].to_vec(), number(32), number(40), number(56));
    let (kind, key_bytes) = if name.starts_with("index-t") { (1u32, 5) } else { (2u32, 16) };
    let block_count = (block_count as usize).min(bytes.len() / BLOCK_BYTES - 1);
    let keys_start = (block_count + 1) * BLOCK_BYTES;
    let filter_start = (keys_start + block_count * key_bytes + 4).min(bytes.len());
    let mut parts: Vec<(usize, usize)> =
        (1..=block_count).map(|block| (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)).collect();
    parts.extend([(keys_start, filter_start), (filter_start, bytes.len())]);
    for (start, end) in parts {
        if end >= start + 4 {
            let mut seal = kind.to_le_bytes().to_vec();
            seal.extend(&ledger);
            for number in [from, to, start as u64] {
                seal.extend(number.to_le_bytes());
            }
            let crc = crc32c(&bytes[start..end - 4]) ^ crc32c(&seal);
            bytes[end - 4..end].copy_from_slice(&crc.to_le_bytes());
        }
    }
}
