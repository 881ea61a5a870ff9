//! Verifying a ledger's directory: every byte that matters is read, and everything that can be recomputed is.
//!
//! ```text
//! walk     frames: checksums, numbers, digests; over damage to the next sound frame
//!   └─► chains   records: hashes, accounts by the rules, transactions, sums, positions
//!         └─► index    checkpoint and index files, against what the chains say at their point
//! ```
//!
//! Nothing is changed, and nothing is refused: a directory that cannot be opened is read as far as it goes. The
//! chains' tables are bounded: where they would not fit into memory, the journal is read several times, each time
//! for a part of the customers. What each finding means is in `docs/format.md`, "Verification".

mod chains;
mod index;
mod report;
#[cfg(test)]
mod tests;
mod walk;

pub use report::{Finding, FindingCode, Lost, LostEvents, Note, VerifyReport};

use super::checkpoint::{CHECKPOINT_NAME, Checkpoint, is_index_file};
use super::codec::Decoder;
use super::disk::Disk;
use super::frame::{FrameHeader, HEADER_BYTES, is_end};
use super::journal::{Journal, JournalPoint, Segment};
use super::ledger_file::{self, read_whole};
use super::open::lock_directory;
use super::record::{Stored, take_record};
use super::run::TEMPORARY_SUFFIX;
use super::scan::open_segments;
use crate::store::{Damage as StoreDamage, SourceId, SourceMark, StoreError};
use crate::totals::{CurrencyTotals, Totals};
use bursar_core::{CurrencyIndex, CustomerId, EventStatus, LedgerConfig, Sum};
use chains::{Chains, Damage, Partition, Places};
use index::Derived;
use report::Findings;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use walk::{Ending, Seen, Walk};

/// What to verify, and within which bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyOptions {
    /// Follow only this customer's chain. All frames are checked all the same; what is left out is whether its
    /// transactions were made by others as well, and the sums of the ledger.
    pub only: Option<CustomerId>,
    /// About how much memory the tables may take, in bytes. Where it is not enough, the journal is read several
    /// times.
    pub memory_bytes_max: usize,
    /// How many findings are listed; all are counted.
    pub findings_max: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { only: None, memory_bytes_max: 2 << 30, findings_max: 1000 }
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// How many bytes of the journal have been read in this pass.
    pub bytes: u64,
    /// How many there are, reserved room included.
    pub bytes_total: u64,
    /// Which pass this is, from 1, and how many are known to be needed.
    pub pass: u64,
    /// See `pass`.
    pub pass_count: u64,
}

/// Verifies the ledger in a directory, which is locked meanwhile and not changed.
pub fn verify(
    directory: &Path,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, StoreError> {
    verify_on(lock_directory(directory, false)?, options, progress)
}

/// Verifies a ledger on any medium.
pub fn verify_on(
    disk: Arc<dyn Disk>,
    options: &VerifyOptions,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, StoreError> {
    let mut early = Vec::new();
    let config = match ledger_file::read(&*disk) {
        Ok(config) => Some(config),
        Err(StoreError::Damaged(StoreDamage { path, offset, what })) => {
            early.push(Finding { code: FindingCode::LedgerFile, path, offset, what, event: None, lost: None });
            None
        }
        Err(error) => return Err(error),
    };
    let segments = open_segments(&*disk)?;
    let derived = match &config {
        Some(config) => open_derived(&disk, config, &mut early)?,
        None => None,
    };
    let mut report = VerifyReport::default();
    for name in disk.list().map_err(|error| io_error(&disk, error))? {
        note_file(&disk, &name, derived.as_ref(), &mut report)?;
    }
    let findings = Findings::new(options.findings_max);
    let (sources, accounts) = (BTreeMap::new(), BTreeMap::new());
    let mut run = Run { disk, options, config, segments, derived, report, findings, sources, accounts };
    let late = run.passes(progress)?;
    early.into_iter().chain(late).for_each(|finding| run.findings.push(finding));
    run.report.finding_count = run.findings.count;
    run.report.findings = run.findings.list;
    Ok(run.report)
}

fn io_error(disk: &Arc<dyn Disk>, error: io::Error) -> StoreError {
    StoreError::Io { doing: "list the directory", path: disk.path().to_owned(), error: Arc::new(error) }
}

/// Reads the checkpoint and opens its index files. What is wrong with them is a finding.
fn open_derived(
    disk: &Arc<dyn Disk>,
    config: &LedgerConfig,
    findings: &mut Vec<Finding>,
) -> Result<Option<Derived>, StoreError> {
    let path = disk.path().join(CHECKPOINT_NAME);
    let bytes = match read_whole(&**disk, CHECKPOINT_NAME) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::Io { doing: "read the checkpoint", path, error: Arc::new(error) }),
    };
    let (offset, what) = match Checkpoint::read(&bytes) {
        Ok(checkpoint) if checkpoint.ledger == config.ledger => {
            return Derived::open(&**disk, &config.ledger, checkpoint, findings).map(Some);
        }
        Ok(_) => (16, "the checkpoint belongs to another ledger"),
        Err(malformed) => (malformed.offset as u64, "this is no sound checkpoint"),
    };
    let what = what.to_owned();
    findings.push(Finding { code: FindingCode::Checkpoint, path, offset, what, event: None, lost: None });
    Ok(None)
}

fn note_file(
    disk: &Arc<dyn Disk>,
    name: &str,
    derived: Option<&Derived>,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let length = disk.open(name).and_then(|file| file.length()).map_err(|error| io_error(disk, error))?;
    report.file_bytes += length;
    let named = derived.is_some_and(|derived| derived.checkpoint.runs.iter().any(|run| run.file_name() == name));
    let what = if name.ends_with(TEMPORARY_SUFFIX) {
        "a file that was never finished; the next opening removes it"
    } else if is_index_file(name) && !named {
        "an index file that no checkpoint names; the next opening removes it"
    } else {
        return Ok(());
    };
    report.notes.push(Note { path: disk.path().join(name), offset: 0, what });
    Ok(())
}

/// A verification under way.
struct Run<'a> {
    disk: Arc<dyn Disk>,
    options: &'a VerifyOptions,
    config: Option<LedgerConfig>,
    segments: Vec<Arc<Segment>>,
    derived: Option<Derived>,
    report: VerifyReport,
    findings: Findings,
    sources: BTreeMap<SourceId, SourceMark>,
    /// What all accounts have, held and available.
    accounts: BTreeMap<CurrencyIndex, (Sum, Sum)>,
}

/// What a pass found, besides what its chains did.
#[derive(Default)]
struct PassFindings {
    /// About frames and marks: the same in every pass.
    frames: Vec<Finding>,
    /// About the checkpoint as such.
    derived: Vec<Finding>,
    at_checkpoint: Totals,
    /// The pass was given up: its tables did not fit.
    too_large: bool,
}

impl Run<'_> {
    /// Reads the journal as often as it takes. Gives what was found about the derived files.
    fn passes(&mut self, progress: &mut dyn FnMut(VerifyProgress)) -> Result<Vec<Finding>, StoreError> {
        let mut left = self.first_partitions();
        let mut damages: Vec<Damage> = Vec::new();
        let (mut totals, mut at_checkpoint) = (Totals::default(), Totals::default());
        let (mut listed, mut late) = (Vec::new(), Vec::new());
        let mut chains_found = Findings::new(self.options.findings_max);
        let mut first = true;
        while let Some(partition) = left.pop() {
            self.report.pass_count += 1;
            let pass_count = self.report.pass_count + left.len() as u64;
            let mut told = |bytes, bytes_total, pass| progress(VerifyProgress { bytes, bytes_total, pass, pass_count });
            let config = self.config.clone();
            let places = Places { segments: &self.segments.clone(), directory: &self.disk.path().to_owned() };
            let fallback = LedgerConfig { ledger: [0; 16], policy: Default::default(), currencies: Default::default() };
            let config = config.as_ref().unwrap_or(&fallback);
            let mut chains = Chains::new(places, config, partition, self.options.findings_max);
            let pass = self.pass(&mut chains, first, &mut told)?;
            if pass.too_large {
                left.extend(partition.halves().into_iter().flatten());
                continue;
            }
            self.report.event_count += chains.event_count;
            totals.add(&chains.totals);
            at_checkpoint.add(&pass.at_checkpoint);
            merge_damages(&mut damages, chains.damages);
            if first {
                listed = pass.frames;
                late = pass.derived;
            }
            chains_found.append(chains.findings);
            first = false;
        }
        for damage in &mut damages {
            if let Some(finding) = listed.get_mut(damage.finding) {
                let lost = finding.lost.get_or_insert_default();
                lost.event_count = damage.event_count;
                lost.customer_count = damage.customer_count;
                lost.customers = std::mem::take(&mut damage.events);
            }
        }
        let intact = damages.is_empty() && self.config.is_some() && self.options.only.is_none();
        if let Some(derived) = self.derived.as_ref().filter(|_| intact)
            && derived.checkpoint.totals != at_checkpoint
        {
            late.push(derived.wrong(self.disk.path(), "the checkpoint has other sums than the journal"));
        }
        let fits = |currency: CurrencyIndex| {
            let (held, available) = self.accounts.get(&currency).copied().unwrap_or_default();
            let sums = totals.currency(currency);
            sums.held == held && sums.available() == available
        };
        let balanced =
            totals.currencies().iter().all(CurrencyTotals::is_balanced) && self.accounts.keys().all(|&c| fits(c));
        if intact && !balanced {
            let places = Places { segments: &self.segments, directory: self.disk.path() };
            let what = "the sums of deposits, withdrawals and chargebacks do not fit the accounts";
            late.push(places.finding(FindingCode::Unbalanced, self.report.journal_bytes, what));
        }
        listed.into_iter().for_each(|finding| self.findings.push(finding));
        self.findings.append(chains_found);
        self.report.totals = totals;
        Ok(late)
    }

    /// A guess by the journal's length; a pass that turns out too large is divided.
    fn first_partitions(&self) -> Vec<Partition> {
        if let Some(customer) = self.options.only {
            return vec![Partition::Only(customer)];
        }
        let bytes = Places { segments: &self.segments, directory: self.disk.path() }.journal_end();
        let mut list = vec![Partition::ALL];
        // About as much memory as journal: a transaction takes about as much of both.
        while bytes / list.len() as u64 > self.options.memory_bytes_max as u64 {
            let halves: Option<Vec<[Partition; 2]>> = list.iter().map(|partition| partition.halves()).collect();
            let Some(halves) = halves else { break };
            list = halves.into_iter().flatten().collect();
        }
        list
    }

    /// Reads the journal once, for the customers of one partition.
    fn pass(
        &mut self,
        chains: &mut Chains<'_>,
        first: bool,
        told: &mut dyn FnMut(u64, u64, u64),
    ) -> Result<PassFindings, StoreError> {
        let mut found = PassFindings::default();
        if first {
            self.sources.clear();
        }
        let ledger = self.config.as_ref().map(|config| (config.ledger, config.digest()));
        let segments = self.segments.clone();
        let mut walk = Walk::new(&segments, ledger, first);
        let bytes_total = chains.places.journal_end();
        let mut point = JournalPoint { position: 0, frame_number: 0, digest: walk.digest };
        let mut due = self.derived.is_some();
        let (mut told_at, mut frame_count) = (0, 0);
        let point_position = self.derived.as_ref().map_or(u64::MAX, |derived| derived.checkpoint.point.position);
        while let Some(seen) = walk.next()? {
            match seen {
                Seen::Fault(fault) => {
                    let finding = chains.places.finding(fault.code, fault.position, fault.what);
                    let lost = fault.lost.map(|(bytes, record_count)| Lost { bytes, record_count, ..Lost::default() });
                    if lost.is_some() {
                        let (position, finding) = (fault.position, found.frames.len());
                        let (events, event_count, customer_count) = (Vec::new(), 0, 0);
                        chains.damages.push(Damage { position, finding, events, event_count, customer_count });
                    }
                    found.frames.push(Finding { lost, ..finding });
                }
                Seen::Frame { header, position, bytes } => {
                    if due && position >= point_position {
                        due = false;
                        self.at_checkpoint(chains, &mut found, point, first)?;
                        found.at_checkpoint = chains.totals.clone();
                    }
                    frame_count += 1;
                    let end = self.take_frame(chains, &mut found, &header, position, bytes, first);
                    point = JournalPoint { position: end, frame_number: header.number, digest: header.digest };
                    if end - told_at > 8 << 20 {
                        told_at = end;
                        told(end, bytes_total, self.report.pass_count);
                        if chains.memory_bytes() > self.options.memory_bytes_max && chains.partition.halves().is_some()
                        {
                            return Ok(PassFindings { too_large: true, ..PassFindings::default() });
                        }
                    }
                }
            }
        }
        let (ending, walk_end) = (walk.ending, walk.end);
        told(walk_end, bytes_total, self.report.pass_count);
        if due {
            if point_position > walk_end {
                self.too_short(chains, &mut found, walk_end);
            }
            self.at_checkpoint(chains, &mut found, point, first)?;
            found.at_checkpoint = chains.totals.clone();
        }
        self.finish(chains);
        if first {
            let report = &mut self.report;
            (report.frame_count, report.journal_bytes, report.journal_digest) = (frame_count, walk_end, point.digest);
            if ending == Ending::Torn {
                let at = chains.places.finding(FindingCode::FrameUnreadable, walk_end, String::new());
                let what =
                    "a write that never came to its end; it was not acknowledged, and the next opening cuts it off";
                report.notes.push(Note { path: at.path, offset: at.offset, what });
            }
        }
        Ok(found)
    }

    /// Takes all records of a frame; gives the frame's end.
    fn take_frame(
        &mut self,
        chains: &mut Chains<'_>,
        found: &mut PassFindings,
        header: &FrameHeader,
        position: u64,
        bytes: &[u8],
        first: bool,
    ) -> u64 {
        let end = position + bytes.len() as u64;
        let mut decoder = Decoder::new(bytes, HEADER_BYTES);
        for index in 0..header.record_count {
            let at = position + decoder.offset() as u64;
            match take_record(&mut decoder, position, header.time_ms) {
                Ok(Stored::Event(event)) if self.config.is_some() => chains.event(at, event),
                Ok(Stored::Closing(closing)) if self.config.is_some() => chains.closing(at, &closing),
                Ok(Stored::Event(_) | Stored::Closing(_)) => {}
                Ok(Stored::Mark(mark)) if first => self.take_mark(chains, found, at, mark),
                Ok(Stored::Mark(_)) => {}
                Err(malformed) => {
                    let what = "a record cannot be read, and so none of those behind it in this frame";
                    let at = position + malformed.offset as u64;
                    let finding = chains.places.finding(FindingCode::RecordUnreadable, at, what);
                    let record_count = Some(u64::from(header.record_count - index));
                    let lost = Some(Lost { bytes: end - at, record_count, ..Lost::default() });
                    let (position, finding_index) = (at, found.frames.len());
                    found.frames.push(Finding { lost, ..finding });
                    let (events, event_count, customer_count) = (Vec::new(), 0, 0);
                    let finding = finding_index;
                    chains.damages.push(Damage { position, finding, events, event_count, customer_count });
                    return end;
                }
            }
        }
        if !is_end(&bytes[decoder.offset()..]) {
            let at = position + decoder.offset() as u64;
            let what = "the frame has bytes behind its last record that nobody writes";
            found.frames.push(chains.places.finding(FindingCode::RecordUnreadable, at, what));
        }
        end
    }

    fn take_mark(&mut self, chains: &Chains<'_>, found: &mut PassFindings, position: u64, mark: SourceMark) {
        let kept = SourceMark { rejected_lines: Vec::new(), ..mark };
        let (source, total) = (kept.source, kept.counts);
        let Some(before) = self.sources.insert(source, kept.clone()) else { return };
        let goes_back = before.offset > kept.offset
            || before.line_count > kept.line_count
            || before.finished && !kept.finished
            || before.counts.applied > total.applied
            || before.counts.already_applied > total.already_applied
            || before.counts.rejected > total.rejected
            || before.counts.unreadable > total.unreadable;
        if goes_back {
            let what = "the mark of a source says less than the one before it";
            found.frames.push(chains.places.finding(FindingCode::MarkGoesBack, position, what));
        }
    }

    /// The pass has come to the checkpoint's point.
    fn at_checkpoint(
        &mut self,
        chains: &mut Chains<'_>,
        found: &mut PassFindings,
        point: JournalPoint,
        first: bool,
    ) -> Result<(), StoreError> {
        let (Some(derived), Some(config)) = (&self.derived, &self.config) else { return Ok(()) };
        let directory = self.disk.path();
        if first && chains.damages.is_empty() {
            derived.check_point(directory, point, &mut found.derived);
            let marks: Vec<SourceMark> = self.sources.values().cloned().collect();
            if derived.checkpoint.sources != marks {
                found
                    .derived
                    .push(derived.wrong(directory, "the checkpoint has other marks of sources than the journal"));
            }
            if self.options.only.is_none() && derived.checkpoint.last_time_ms < chains.last_time_ms {
                found.derived.push(derived.wrong(directory, "the checkpoint has an older time than the journal"));
            }
        }
        let journal = Journal::for_reading(self.disk.clone(), config.ledger, self.segments.clone());
        derived.compare(chains, &journal)
    }

    /// The journal ends before the checkpoint's point.
    fn too_short(&self, chains: &mut Chains<'_>, found: &mut PassFindings, end: u64) {
        let what = "the journal ends before the point that the checkpoint covers: events that were durable are gone";
        let finding = chains.places.finding(FindingCode::JournalTooShort, end, what);
        let position = end.saturating_sub(1);
        let (events, event_count, customer_count) = (Vec::new(), 0, 0);
        chains.damages.push(Damage { position, finding: found.frames.len(), events, event_count, customer_count });
        found.frames.push(Finding { lost: Some(Lost::default()), ..finding });
    }

    /// Follows what is still open, and sums up the accounts.
    fn finish(&mut self, chains: &mut Chains<'_>) {
        for index in 0..chains.slots.len() {
            for open in std::mem::take(&mut chains.slots[index].open) {
                self.report.open_count += 1;
                chains.follow(index, &open.linked, &EventStatus::Started, open.position, open.position);
            }
            for (currency, account) in chains.slots[index].check.head().state.accounts.iter() {
                let (held, available) = self.accounts.entry(currency).or_default();
                (*held, *available) = (held.plus(account.held), available.plus(account.available));
            }
        }
    }
}

/// Adds what another pass lost at the same places.
fn merge_damages(damages: &mut Vec<Damage>, others: Vec<Damage>) {
    for other in others {
        match damages.iter_mut().find(|damage| damage.finding == other.finding) {
            Some(damage) => {
                damage.event_count += other.event_count;
                damage.customer_count += other.customer_count;
                damage.events.extend(other.events);
            }
            None => damages.push(other),
        }
    }
}
