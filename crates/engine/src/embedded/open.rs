//! Creating and opening a ledger's directory: from what the medium gives back to a running store.
//!
//! - The ledger file says which ledger this is.
//! - The segments must be one journal.
//! - The checkpoint and its index files are taken if they can be relied on, and otherwise made anew.
//! - Frames after the checkpoint are read, checked and taken into memory.
//! - What follows the last readable frame is judged: a clean end, a torn write to be cut off, or damage to be
//!   refused.
//! - Frames that may not be durable yet are written again and synced, before anything is built on them: after a
//!   failed sync, what can be read need not be on the disk.
//!
//! Every case and its decision: `docs/format.md`, "Opening".

use super::batch::OpenBatch;
use super::chain_walk::Waymarks;
use super::checkpoint::{CHECKPOINT_NAME, Checkpoint, RunName, is_index_file};
use super::disk::{Disk, LockError, RealDisk};
use super::frame::Frame;
use super::index::{Index, Runs};
use super::journal::{Journal, JournalPoint, Segment, SegmentHeader, segment_start};
use super::ledger_file::{self, Holds, LedgerFile, read_whole};
use super::maintenance::{Maintained, Maintenance, open_named_runs, write_index};
use super::memtable::{OpenEvent, Table};
use super::record::{Stored, StoredClosing, StoredEvent};
use super::run::TEMPORARY_SUFFIX;
use super::scan::{Found, Scan, check_segments, open_segments};
use super::store::{EmbeddedOptions, EmbeddedStore, Shared, State};
use super::tail::Verdict;
use crate::store::{Damage, SourceMark, StoreError};
use crate::totals::Totals;
use bursar_core::planted::{Planted, is_planted};
use bursar_core::{Hash, Head, LedgerConfig, Proposed};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// What was found and done while a ledger was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// A write that had never come to its end was cut off: the file, the offset, and how many bytes were there.
    pub cut_off: Option<CutOff>,
    /// The index could not be relied on and was made anew; why.
    pub index_rebuilt: Option<&'static str>,
    /// How many events were read from the journal's end.
    pub events_read: u64,
}

/// A torn write that was cut off. It was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutOff {
    /// Which file.
    pub path: PathBuf,
    /// Where it was cut, in bytes from its beginning.
    pub offset: u64,
    /// How many bytes there were up to the last one that was not zero.
    pub bytes: u64,
}

pub(super) fn lock_directory(directory: &Path, create: bool) -> Result<Arc<dyn Disk>, StoreError> {
    let path = || directory.to_owned();
    match RealDisk::open(directory, create) {
        Ok(disk) => Ok(Arc::new(disk)),
        Err(LockError::InUse) => Err(StoreError::InUse { path: path() }),
        Err(LockError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::NotFound { path: path() })
        }
        Err(LockError::Io(error)) => {
            Err(StoreError::Io { doing: "open the directory", path: path(), error: Arc::new(error) })
        }
    }
}

/// Locks a directory that has any file of a ledger; another one is not touched.
pub(super) fn lock_ledger(directory: &Path) -> Result<Arc<dyn Disk>, StoreError> {
    if !holds_a_ledger(directory) {
        return Err(StoreError::NotFound { path: directory.to_owned() });
    }
    lock_directory(directory, false)
}

fn holds_a_ledger(directory: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(directory) else { return false };
    let is_own = |name: &str| name == ledger_file::LEDGER_NAME || segment_start(name).is_some();
    entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_own))
}

impl EmbeddedStore {
    /// Whether there is a ledger in this directory.
    pub fn exists(directory: &Path) -> bool {
        directory.join(ledger_file::LEDGER_NAME).exists()
    }

    /// Creates a ledger in a directory, which is made if it does not exist.
    pub fn create(directory: &Path, config: &LedgerConfig, options: EmbeddedOptions) -> Result<Self, StoreError> {
        Ok(Self::create_on(lock_directory(directory, true)?, config, options)?.0)
    }

    /// Opens the ledger in a directory.
    pub fn open(directory: &Path, options: EmbeddedOptions) -> Result<(Self, OpenReport), StoreError> {
        Self::open_on(lock_ledger(directory)?, options)
    }

    /// Creates a ledger on any medium.
    pub fn create_on(
        disk: Arc<dyn Disk>,
        config: &LedgerConfig,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        Self::create_holding(Holds::Everything, disk, config, options)
    }

    /// Opens the ledger on any medium.
    pub fn open_on(disk: Arc<dyn Disk>, options: EmbeddedOptions) -> Result<(Self, OpenReport), StoreError> {
        Self::open_holding(Holds::Everything, disk, options)
    }

    pub(super) fn create_holding(
        holds: Holds,
        disk: Arc<dyn Disk>,
        config: &LedgerConfig,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        ledger_file::create(&*disk, &LedgerFile { config: config.clone(), holds })?;
        Self::open_holding(holds, disk, options)
    }

    /// Opens what is there, if it is what is asked for.
    pub(super) fn open_holding(
        holds: Holds,
        disk: Arc<dyn Disk>,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let file = ledger_file::read(&*disk)?;
        if file.holds == holds {
            return Self::open_file(disk, file, options);
        }
        let chains_alone = file.holds == Holds::ChainsAlone;
        Err(StoreError::OtherStores { path: disk.path().to_owned(), chains_alone })
    }

    /// Opens what a ledger file says is there.
    pub(super) fn open_file(
        disk: Arc<dyn Disk>,
        file: LedgerFile,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let LedgerFile { config, holds } = file;
        let ledger_digest = config.digest();
        let mut segments = open_segments(&*disk)?;
        let headers = check_segments(&config.ledger, &ledger_digest, &segments)?;
        let unwritten = segments.drain(headers.len()..).map(|segment| segment.path.clone()).next();
        let mut report = OpenReport::default();
        let start = JournalPoint { position: 0, frame_number: 0, digest: ledger_digest };
        let sound = sound_checkpoint(&*disk, &config)?;
        let covered = sound.as_ref().map_or(0, |checkpoint| checkpoint.point.position);
        let usable = match sound {
            Ok(checkpoint) => open_index(&*disk, &config, &segments, checkpoint)?,
            Err(why) => Err(why),
        };
        let (checkpoint, runs) = match usable {
            Ok(usable) => usable,
            Err(why) => {
                if !segments.is_empty() && why != NO_CHECKPOINT {
                    report.index_rebuilt = Some(why);
                }
                check_covered(&segments, &headers, covered)?;
                (Checkpoint::at_start(&config, start), Runs::default())
            }
        };
        let mut opening = Opening { disk, config, ledger_digest, holds, options, segments, report };
        let (state, point, durable_from) = match opening.replay(&checkpoint, runs) {
            Err(StoreError::Damaged(damage)) if damage.is_derived() => {
                opening.report = OpenReport { index_rebuilt: Some(INDEX_DAMAGED), ..OpenReport::default() };
                check_covered(&opening.segments, &headers, covered)?;
                let at_start = Checkpoint::at_start(&opening.config, start);
                opening.replay(&at_start, Runs::default())?
            }
            replayed => replayed?,
        };
        // Not before: where opening is refused, what is there stays as it is, to be looked at.
        if let Some(path) = unwritten {
            remove(&*opening.disk, &path)?;
        }
        remove_strays(&*opening.disk, &state.runs)?;
        opening.make_durable(point, durable_from)?;
        let Opening { disk, config, ledger_digest, holds, options, segments, report } = opening;
        let journal = Journal::new(disk.clone(), config.ledger, options.segment_bytes, segments, point);
        let state = Mutex::new(state);
        let poison = OnceLock::new();
        let maintained = Maintained::default();
        let shared = Shared { disk, config, ledger_digest, holds, options, journal, state, poison, maintained };
        let (maintenance, waymarks) = (Maintenance::default(), Waymarks::default());
        Ok((Self { shared: Arc::new(shared), maintenance, waymarks }, report))
    }

    /// Makes everything durable, writes the newest events to index files, and gives back reserved room. The
    /// next opening then has nothing to read.
    pub fn close(&self) -> Result<(), StoreError> {
        self.shared.check()?;
        let closed = self.close_files();
        self.shared.poisoned_by(closed)
    }

    fn close_files(&self) -> Result<(), StoreError> {
        self.shared.journal.sync()?;
        self.maintenance.freeze(&self.shared)?;
        self.maintenance.finish(&self.shared)?;
        self.shared.journal.close()
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // A job under way must not go on writing into a directory that somebody else may open. Its error has
        // poisoned the store already, and nobody is left to hear it.
        drop(self.maintenance.join(&self.shared));
    }
}

const NO_CHECKPOINT: &str = "there is no checkpoint";
const INDEX_DAMAGED: &str = "an index file is missing or damaged";

/// Something derived, or why it has to be made anew.
type Derived<T> = Result<T, &'static str>;

/// The checkpoint, if there is a sound one of this ledger. What the system refuses to read now, it may well give
/// later: that is an error, and no reason to do without.
fn sound_checkpoint(disk: &dyn Disk, config: &LedgerConfig) -> Result<Derived<Checkpoint>, StoreError> {
    let bytes = match read_whole(disk, CHECKPOINT_NAME) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(NO_CHECKPOINT)),
        Err(error) => {
            let path = disk.path().join(CHECKPOINT_NAME);
            return Err(StoreError::Io { doing: "read the checkpoint", path, error: Arc::new(error) });
        }
    };
    let Ok(checkpoint) = Checkpoint::read(&bytes) else { return Ok(Err("the checkpoint is damaged")) };
    let is_own = checkpoint.ledger == config.ledger;
    Ok(if is_own { Ok(checkpoint) } else { Err("the checkpoint belongs to another ledger") })
}

/// Before the index is made anew although the checkpoint is sound: what it covers was durable, so the journal's end
/// may not be cut off before that. Only the last segment is read, since elsewhere nothing is cut off.
fn check_covered(segments: &[Arc<Segment>], headers: &[SegmentHeader], covered: u64) -> Result<(), StoreError> {
    let (Some(last), Some(header)) = (segments.last(), headers.last()) else { return Ok(()) };
    let (frame_number, digest) = (header.frame_number_before, header.digest_before);
    let mut scan = Scan::new(segments, JournalPoint { position: last.start, frame_number, digest });
    while scan.point.position < covered {
        match scan.next()? {
            Found::Frame(..) => {}
            Found::Unreadable | Found::End(_) => return Err(last.damage(scan.point.position, UNREADABLE_COVERED)),
        }
    }
    Ok(())
}

const UNREADABLE_COVERED: &str = "a frame cannot be read that the checkpoint covers: it was durable";

/// A checkpoint with its index files, if they are there and sound. An error if the journal is shorter than what the
/// checkpoint covers: events that were durable are gone.
fn open_index(
    disk: &dyn Disk,
    config: &LedgerConfig,
    segments: &[Arc<Segment>],
    checkpoint: Checkpoint,
) -> Result<Derived<(Checkpoint, Runs)>, StoreError> {
    let end = match segments.last() {
        Some(segment) => segment.start + super::scan::length(segment)?,
        None => 0,
    };
    if checkpoint.point.position > end {
        let what = "the journal ends before the point that this checkpoint covers".to_owned();
        return Err(StoreError::Damaged(Damage { path: disk.path().join(CHECKPOINT_NAME), offset: 0, what }));
    }
    match open_named_runs(disk, &config.ledger, &checkpoint.runs) {
        Ok(runs) => Ok(Ok((checkpoint, runs))),
        Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(Err(INDEX_DAMAGED)),
        Err(error @ StoreError::Io { .. }) => Err(error),
        Err(_) => Ok(Err(INDEX_DAMAGED)),
    }
}

fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StoreError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    disk.remove(name).map_err(|error| StoreError::Io {
        doing: "remove a file that holds nothing",
        path: path.to_owned(),
        error: Arc::new(error),
    })
}

/// How the names of the store's own files begin; nobody else's files are touched.
const OWN_PREFIXES: [&str; 4] = ["index-", "checkpoint.", "ledger.", "input-"];

/// Removes index files that are not valid, and files that were never finished.
fn remove_strays(disk: &dyn Disk, runs: &[RunName]) -> Result<(), StoreError> {
    let names = disk.list().map_err(|error| StoreError::Io {
        doing: "list the directory",
        path: disk.path().to_owned(),
        error: Arc::new(error),
    })?;
    for name in names {
        let named = runs.iter().any(|run| run.file_name() == name);
        let unfinished = name.ends_with(TEMPORARY_SUFFIX) && OWN_PREFIXES.iter().any(|own| name.starts_with(own));
        if unfinished || (is_index_file(&name) && !named) {
            remove(disk, &disk.path().join(&name))?;
        }
    }
    Ok(())
}

impl Checkpoint {
    pub(super) fn at_start(config: &LedgerConfig, start: JournalPoint) -> Self {
        Self {
            ledger: config.ledger,
            point: start,
            last_time_ms: 0,
            totals: Totals::default(),
            runs: Vec::new(),
            open: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// A ledger on its way to being open.
struct Opening {
    disk: Arc<dyn Disk>,
    config: LedgerConfig,
    ledger_digest: Hash,
    holds: Holds,
    options: EmbeddedOptions,
    segments: Vec<Arc<Segment>>,
    report: OpenReport,
}

impl Opening {
    /// Reads what came after the checkpoint. Gives the state, the journal's end, and the position from which on
    /// frames may not be durable.
    fn replay(&mut self, checkpoint: &Checkpoint, runs: Runs) -> Result<(State, JournalPoint, u64), StoreError> {
        let mut state = self.state_at(checkpoint, runs)?;
        let mut recent: Vec<(u64, u64)> = Vec::new();
        let mut scan = Scan::new(&self.segments, checkpoint.point);
        loop {
            match scan.next()? {
                Found::Frame(frame, point) => {
                    self.report.events_read += state.take_frame(&self.ledger_digest, &self.segments, &frame)?;
                    state.index.make_room();
                    recent.retain(|&(number, _)| number > frame.header.synced_through);
                    recent.push((frame.header.number, frame.position));
                    let in_last = self.segments.last().is_some_and(|last| frame.position >= last.start);
                    if !in_last && state.index.is_full(self.options.memtable_entries_max) {
                        self.spill(&mut state, point)?;
                    }
                }
                Found::Unreadable => {
                    let position = scan.point.position;
                    let Some((_, segment)) = scan.segment() else { continue };
                    return Err(segment.damage(position, "a frame cannot be read, and later ones rest on it"));
                }
                Found::End(verdict) => {
                    let point = scan.point;
                    let Some((_, segment)) = scan.segment() else { return Ok((state, point, point.position)) };
                    match verdict {
                        Verdict::CleanEnd => {}
                        Verdict::Torn => self.report.cut_off = Some(cut_off(segment, point.position)?),
                        Verdict::Damaged(what) => return Err(segment.damage(point.position, what)),
                    }
                    let durable_from = recent.first().map_or(point.position, |&(_, position)| position);
                    return Ok((state, point, durable_from));
                }
            }
        }
    }

    fn state_at(&self, checkpoint: &Checkpoint, runs: Runs) -> Result<State, StoreError> {
        let mut state = State {
            index: Index::new(self.config.ledger, self.holds, runs, self.options.heads_max),
            batch: OpenBatch::default(),
            open: BTreeMap::new(),
            proposals: Table::default(),
            sources: checkpoint.sources.iter().map(|mark| (mark.source, mark.clone())).collect(),
            totals: checkpoint.totals.clone(),
            last_time_ms: checkpoint.last_time_ms,
            runs: checkpoint.runs.clone(),
        };
        let journal = self.reading_journal();
        for (customer, positions) in &checkpoint.open {
            for &position in positions {
                if let Stored::Event(event) = journal.record(position, &mut None)? {
                    state.take_open(OpenEvent { linked: event.linked, position });
                }
            }
            // Brings the head into memory with the right count of open events behind it.
            state.head_mut(*customer)?;
        }
        Ok(state)
    }

    fn reading_journal(&self) -> Journal {
        Journal::for_reading(self.disk.clone(), self.config.ledger, self.segments.clone())
    }

    /// Writes a full memtable to index files in the middle of a long replay. Only for what lies in segments that
    /// are not the last: they are durable.
    fn spill(&self, state: &mut State, point: JournalPoint) -> Result<(), StoreError> {
        let checkpoint = state.checkpoint(&self.config, point);
        state.index.freeze(checkpoint);
        let Some(frozen) = state.index.frozen.clone() else { return Ok(()) };
        let mut inner = State {
            index: Index::new(self.config.ledger, self.holds, state.index.runs.clone(), 0),
            batch: OpenBatch::default(),
            open: BTreeMap::new(),
            proposals: Table::default(),
            sources: BTreeMap::new(),
            totals: Totals::default(),
            last_time_ms: 0,
            runs: Vec::new(),
        };
        std::mem::swap(&mut inner.runs, &mut state.runs);
        let shared = Shared {
            disk: self.disk.clone(),
            config: self.config.clone(),
            ledger_digest: self.ledger_digest,
            holds: self.holds,
            options: self.options,
            journal: self.reading_journal(),
            state: Mutex::new(inner),
            poison: OnceLock::new(),
            maintained: Maintained::default(),
        };
        write_index(&shared, &frozen)?;
        let written = shared.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.runs = written.runs;
        state.index.runs = written.index.runs;
        state.index.frozen = None;
        Ok(())
    }

    /// Cuts the journal at its end, and writes again what may not be durable.
    fn make_durable(&self, point: JournalPoint, durable_from: u64) -> Result<(), StoreError> {
        let Some(last) = self.segments.last() else { return Ok(()) };
        let io_error = |error| last.io_error("make the journal's end durable", error);
        let end = point.position.max(last.start + super::journal::SEGMENT_HEADER_BYTES as u64);
        if !is_planted(Planted::TornTailKept) {
            last.file.set_length(end - last.start).map_err(io_error)?;
        }
        let from = durable_from.max(last.start);
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(from)).unwrap_or(0)];
        let count = last.file.read_at(&mut bytes, from - last.start).map_err(io_error)?;
        if !is_planted(Planted::RewriteLeftOut) {
            last.file.write_at(&bytes[..count], from - last.start).map_err(io_error)?;
        }
        last.file.sync().map_err(io_error)?;
        self.disk.sync_directory().map_err(io_error)
    }
}

fn cut_off(segment: &Segment, position: u64) -> Result<CutOff, StoreError> {
    let offset = position - segment.start;
    let rest = super::scan::read_rest(segment, offset)?;
    let bytes = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1);
    Ok(CutOff { path: segment.path.clone(), offset, bytes })
}

impl State {
    /// Takes a frame read from the journal; gives how many events it holds.
    fn take_frame(
        &mut self,
        ledger_digest: &Hash,
        segments: &[Arc<Segment>],
        frame: &Frame,
    ) -> Result<u64, StoreError> {
        let mut event_count = 0;
        for record in frame.records() {
            let (position, record) = record.map_err(|malformed| {
                let position = frame.position + malformed.offset as u64;
                let after = segments.partition_point(|segment| segment.start <= position);
                match segments.get(after.saturating_sub(1)) {
                    Some(segment) => segment.damage(position, "a record cannot be read"),
                    None => StoreError::NotFound { path: PathBuf::new() },
                }
            })?;
            match record {
                Stored::Event(event) => {
                    event_count += 1;
                    self.take_event(ledger_digest, position, event)?;
                }
                Stored::Closing(closing) => self.take_stored_closing(position, &closing)?,
                Stored::Mark(_) if is_planted(Planted::SourceForgotten) => {}
                Stored::Mark(mark) => {
                    let kept = SourceMark { rejected_lines: Vec::new(), ..mark };
                    self.sources.insert(kept.source, kept);
                }
            }
        }
        Ok(event_count)
    }

    fn take_event(&mut self, ledger_digest: &Hash, position: u64, event: StoredEvent) -> Result<(), StoreError> {
        let StoredEvent { mut linked, done, .. } = event;
        if is_planted(Planted::KeysForgotten) {
            linked.event.key = None;
        }
        let customer = linked.event.customer;
        let seq = linked.event.seq;
        self.last_time_ms = self.last_time_ms.max(linked.event.time_ms);
        self.totals.begun(&linked.event);
        self.index.count_record();
        if self.head_mut(customer)?.is_none() {
            let head = Head::start(ledger_digest, customer);
            self.index.begin_head(customer, &head);
        }
        if let Some(mut head) = self.index.loaded_head_mut(customer) {
            head.move_newest(position);
            head.set_last_seq(seq);
            if done {
                head.done(&linked);
            }
        }
        if done && is_planted(Planted::TransactionsForgotten) {
            self.totals.done(&linked.event);
        } else if done {
            self.take_effect(&linked, position);
        } else {
            self.take_open(OpenEvent { linked, position });
        }
        Ok(())
    }

    fn take_open(&mut self, open: OpenEvent) {
        let event = &open.linked.event;
        for (entry, state) in event.entries().filter(|_| self.index.has_table()) {
            let event = open.linked.reference();
            self.proposals.insert(entry, Proposed { state, event });
        }
        self.open.entry(event.customer).or_default().push_back(open);
    }

    fn take_stored_closing(&mut self, position: u64, closing: &StoredClosing) -> Result<(), StoreError> {
        let customer = closing.event.customer;
        self.head_mut(customer)?;
        let Some(list) = self.open.get_mut(&customer) else { return Ok(()) };
        let Some(open) = list.pop_front() else { return Ok(()) };
        self.index.count_record();
        if list.is_empty() {
            self.open.remove(&customer);
        }
        if let Some(mut head) = self.index.loaded_head_mut(customer) {
            head.move_newest(position);
            head.take(&open.linked, &closing.status);
        }
        self.take_closing(position, &open, &closing.status);
        Ok(())
    }

    /// The checkpoint for the end of what is in memory, still without the index files that are to be written.
    pub(super) fn checkpoint(&self, config: &LedgerConfig, point: JournalPoint) -> Checkpoint {
        let positions = |list: &VecDeque<OpenEvent>| list.iter().map(|open| open.position).collect();
        Checkpoint {
            ledger: config.ledger,
            point,
            last_time_ms: self.last_time_ms,
            totals: self.totals.clone(),
            runs: self.runs.clone(),
            open: self.open.iter().map(|(customer, list)| (*customer, positions(list))).collect(),
            sources: self.sources.values().cloned().collect(),
        }
    }
}
