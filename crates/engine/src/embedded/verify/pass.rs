//! One reading of the journal, for the customers of one partition; and what all readings give together.

use super::VerifyOptions;
use super::chains::{Chains, Damage, Partition, Places};
use super::effects::Effects;
use super::index::Derived;
use super::report::{Finding, FindingCode, Findings, Lost, LostEvents, Note, VerifyReport};
use super::walk::{Digests, Ending, Fault, Seen, Walk};
use crate::embedded::codec::Decoder;
use crate::embedded::disk::Disk;
use crate::embedded::frame::{FrameHeader, HEADER_BYTES, is_end};
use crate::embedded::journal::{Journal, JournalPoint, Segment};
use crate::embedded::record::{Stored, take_record};
use crate::store::{SourceId, SourceMark, StoreError};
use crate::totals::{CurrencyTotals, Totals};
use bursar_core::{Currencies, CurrencyIndex, EventStatus, LedgerConfig, Policy, Sum};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many bytes of the journal lie between two reports of progress.
const PROGRESS_BYTES: u64 = 8 << 20;

/// How many records are read before they are taken; they stay in a processor's first cache.
const RECORDS_AT_ONCE: usize = 64;

/// What a verification reads.
pub(super) struct Inputs {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: VerifyOptions,
    /// `None`: the ledger file cannot be read, and no chain can be followed.
    pub(super) config: Option<LedgerConfig>,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) derived: Option<Derived>,
}

impl Inputs {
    pub(super) fn places(&self) -> Places<'_> {
        Places { segments: &self.segments, directory: self.disk.path() }
    }

    /// How much memory each of so many passes may take.
    pub(super) fn memory_bytes_max(&self, passes: usize) -> usize {
        self.options.memory_bytes_max / passes.max(1)
    }
}

/// How a reading goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way<'a> {
    /// Finds whether all is well, and no more: the first doubt ends all passes of the reading.
    Quick { doubt: &'a AtomicBool },
    /// Finds everything, and says what it is.
    Thorough,
}

/// How a pass ended.
pub(super) enum Ran {
    Done(Box<Done>),
    /// The tables grew beyond their limit.
    TooLarge,
    /// Of a quick one: not all is well, or it cannot be told so.
    Doubtful,
}

/// What a pass found.
pub(super) struct Done {
    /// Whether it is the one that checked what is the same for all.
    pub(super) first: bool,
    /// About frames and marks, by position.
    frames: Vec<(u64, Finding)>,
    frames_count: u64,
    /// About the checkpoint as such.
    derived: Vec<Finding>,
    chains: Findings,
    damages: Vec<Damage>,
    totals: Totals,
    at_checkpoint: Totals,
    event_count: u64,
    open_count: u64,
    /// What all accounts have, held and available.
    accounts: BTreeMap<CurrencyIndex, (Sum, Sum)>,
    frame_count: u64,
    end: JournalPoint,
    torn: Option<Note>,
    /// Of a quick pass: how many entries of index files lead to its transactions.
    index_matches: u64,
}

/// A pass under way.
pub(super) struct Pass<'a> {
    inputs: &'a Inputs,
    way: Way<'a>,
    chains: Chains<'a>,
    memory_bytes_max: usize,
    sources: BTreeMap<SourceId, SourceMark>,
    /// Records that were read and are to be taken next.
    records: Vec<(u64, Stored)>,
    done: Done,
}

impl<'a> Pass<'a> {
    pub(super) fn new(
        inputs: &'a Inputs,
        way: Way<'a>,
        partition: Partition,
        first: bool,
        memory_bytes_max: usize,
    ) -> Self {
        let findings_max = inputs.options.findings_max;
        // Without the ledger's own, no record is looked into.
        let any = LedgerConfig { ledger: [0; 16], policy: Policy::default(), currencies: Currencies::default() };
        let mut chains = Chains::new(inputs.places(), inputs.config.clone().unwrap_or(any), partition, findings_max);
        if let (Way::Quick { .. }, Some(config)) = (way, &inputs.config) {
            chains.effects = Some(Effects::new(config.ledger, partition, inputs.derived.as_ref()));
        }
        let end = JournalPoint { position: 0, frame_number: 0, digest: chains.ledger_digest };
        let done = Done {
            first,
            frames: Vec::new(),
            frames_count: 0,
            derived: Vec::new(),
            chains: Findings::new(0),
            damages: Vec::new(),
            totals: Totals::default(),
            at_checkpoint: Totals::default(),
            event_count: 0,
            open_count: 0,
            accounts: BTreeMap::new(),
            frame_count: 0,
            end,
            torn: None,
            index_matches: 0,
        };
        Self { inputs, way, chains, memory_bytes_max, sources: BTreeMap::new(), records: Vec::new(), done }
    }

    /// Reads the journal once.
    pub(super) fn run(mut self, told: &mut dyn FnMut(u64, u64)) -> Result<Ran, StoreError> {
        let ledger = self.inputs.config.as_ref().map(|config| (config.ledger, config.digest()));
        let digests = match self.way {
            Way::Quick { .. } => self.chains.partition.digests(),
            Way::Thorough if self.done.first => Digests::ALL,
            Way::Thorough => Digests::None,
        };
        let mut walk = Walk::new(&self.inputs.segments, ledger, digests);
        let bytes_total = self.chains.places.journal_end();
        let point = self.inputs.derived.as_ref().map(|derived| derived.checkpoint.point.position);
        let (mut due, mut told_at) = (point.is_some(), 0);
        while let Some(seen) = walk.next()? {
            match seen {
                Seen::Fault(fault) => self.take_fault(&fault),
                Seen::Frame { header, position, bytes } => {
                    if due && Some(position) >= point {
                        due = false;
                        self.at_checkpoint(position)?;
                    }
                    let end = self.take_frame(&header, position, bytes);
                    self.done.frame_count += 1;
                    self.done.end = JournalPoint { position: end, frame_number: header.number, digest: header.digest };
                    if end - told_at > PROGRESS_BYTES {
                        told_at = end;
                        told(end, bytes_total);
                        let is_divisible = self.chains.partition.halves().is_some();
                        if is_divisible && self.chains.memory_bytes() > self.memory_bytes_max {
                            return Ok(Ran::TooLarge);
                        }
                    }
                }
            }
            if self.is_doubtful() {
                return Ok(Ran::Doubtful);
            }
        }
        let (ending, end) = (walk.ending, walk.end);
        told(end, bytes_total);
        if due {
            if point > Some(end) {
                self.too_short(end);
            }
            self.at_checkpoint(end)?;
        }
        self.finish();
        if let Some(effects) = self.chains.effects.take() {
            match effects.check(self.inputs.derived.as_ref())? {
                Some(index_matches) => self.done.index_matches = index_matches,
                None => self.doubt(),
            }
        }
        if self.is_doubtful() {
            return Ok(Ran::Doubtful);
        }
        let Self { chains, mut done, .. } = self;
        if ending == Ending::Torn {
            let at = chains.places.finding(FindingCode::FrameUnreadable, end, String::new());
            let what = "a write that never came to its end; it was not acknowledged, and the next opening cuts it off";
            done.torn = Some(Note { path: at.path, offset: at.offset, what });
        }
        done.end.position = end;
        (done.event_count, done.totals) = (chains.event_count, chains.totals);
        (done.chains, done.damages) = (chains.findings, chains.damages);
        Ok(Ran::Done(Box::new(done)))
    }

    /// Ends a quick reading.
    fn doubt(&self) {
        if let Way::Quick { doubt } = self.way {
            doubt.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a quick reading is at its end before the journal is: this pass has found something, or another one.
    fn is_doubtful(&self) -> bool {
        let Way::Quick { doubt } = self.way else { return false };
        let chains = &self.chains;
        let found = chains.findings.count > 0 || self.done.frames_count > 0 || !self.done.derived.is_empty();
        let doubts = chains.effects.as_ref().is_some_and(Effects::is_doubtful);
        if found || doubts || !chains.damages.is_empty() {
            doubt.store(true, Ordering::Relaxed);
        }
        doubt.load(Ordering::Relaxed)
    }

    fn find(&mut self, position: u64, finding: Finding) {
        self.done.frames_count += 1;
        if self.done.frames.len() < self.inputs.options.findings_max {
            self.done.frames.push((position, finding));
        }
    }

    fn take_fault(&mut self, fault: &Fault) {
        let finding = self.chains.places.finding(fault.code, fault.position, fault.what);
        let lost = fault.lost.map(|(bytes, record_count)| Lost { bytes, record_count, ..Lost::default() });
        if lost.is_some() {
            self.chains.damages.push(Damage::at(fault.position));
        }
        self.find(fault.position, Finding { lost, ..finding });
    }

    /// Takes all records of a frame; gives the frame's end.
    fn take_frame(&mut self, header: &FrameHeader, position: u64, bytes: &[u8]) -> u64 {
        let end = position + bytes.len() as u64;
        let follows = self.inputs.config.is_some();
        let mut decoder = Decoder::new(bytes, HEADER_BYTES);
        let mut index = 0;
        while index < header.record_count {
            let mut unreadable = None;
            while index < header.record_count && self.records.len() < RECORDS_AT_ONCE {
                let at = position + decoder.offset() as u64;
                match take_record(&mut decoder, position, header.time_ms) {
                    Ok(record) => self.records.push((at, record)),
                    Err(malformed) => {
                        unreadable = Some(malformed);
                        break;
                    }
                }
                index += 1;
            }
            let mut records = std::mem::take(&mut self.records);
            if follows {
                self.chains.bring_near(&records);
            }
            for (at, record) in &records {
                let at = *at;
                match record {
                    Stored::Event(event) if follows => self.chains.event(at, event),
                    Stored::Closing(closing) if follows => self.chains.closing(at, closing),
                    Stored::Mark(mark) if self.done.first => self.take_mark(at, mark),
                    Stored::Event(_) | Stored::Closing(_) | Stored::Mark(_) => {}
                }
            }
            records.clear();
            self.records = records;
            if let Some(malformed) = unreadable {
                let what = "a record cannot be read, and so none of those behind it in this frame";
                let at = position + malformed.offset as u64;
                let finding = self.chains.places.finding(FindingCode::RecordUnreadable, at, what);
                let record_count = Some(u64::from(header.record_count - index));
                let lost = Some(Lost { bytes: end - at, record_count, ..Lost::default() });
                self.chains.damages.push(Damage::at(at));
                self.find(at, Finding { lost, ..finding });
                return end;
            }
        }
        if !is_end(&bytes[decoder.offset()..]) {
            let at = position + decoder.offset() as u64;
            let what = "the frame has bytes behind its last record that nobody writes";
            self.find(at, self.chains.places.finding(FindingCode::RecordUnreadable, at, what));
        }
        end
    }

    fn take_mark(&mut self, position: u64, mark: &SourceMark) {
        let kept = SourceMark { rejected_lines: Vec::new(), ..mark.clone() };
        let Some(before) = self.sources.insert(kept.source, kept.clone()) else { return };
        let goes_back = before.offset > kept.offset
            || before.line_count > kept.line_count
            || before.finished && !kept.finished
            || before.counts.applied > kept.counts.applied
            || before.counts.already_applied > kept.counts.already_applied
            || before.counts.rejected > kept.counts.rejected
            || before.counts.unreadable > kept.counts.unreadable;
        if goes_back {
            let what = "the mark of a source says less than the one before it";
            self.find(position, self.chains.places.finding(FindingCode::MarkGoesBack, position, what));
        }
    }

    /// The pass has come to the checkpoint's point; the next frame begins, or would begin, at `next`.
    fn at_checkpoint(&mut self, next: u64) -> Result<(), StoreError> {
        self.done.at_checkpoint = self.chains.totals.clone();
        let Inputs { disk, options, config: Some(config), segments, derived: Some(derived) } = self.inputs else {
            return Ok(());
        };
        let directory = disk.path();
        if self.done.first && self.chains.damages.is_empty() {
            let found = &mut self.done.derived;
            derived.check_point(directory, self.done.end, next, found);
            if !derived.checkpoint.sources.iter().eq(self.sources.values()) {
                found.push(Derived::wrong(directory, "the checkpoint has other marks of sources than the journal"));
            }
            if options.only.is_none() && derived.checkpoint.last_time_ms < self.chains.last_time_ms {
                found.push(Derived::wrong(directory, "the checkpoint has an older time than the journal"));
            }
        }
        let journal = Journal::for_reading(disk.clone(), config.ledger, segments.clone());
        derived.compare(&mut self.chains, &journal)
    }

    /// The journal ends before the checkpoint's point.
    fn too_short(&mut self, end: u64) {
        let what = "the journal ends before the point that the checkpoint covers: events that were durable are gone";
        let finding = self.chains.places.finding(FindingCode::JournalTooShort, end, what);
        let position = end.saturating_sub(1);
        self.chains.damages.push(Damage::at(position));
        self.find(position, Finding { lost: Some(Lost::default()), ..finding });
    }

    /// Follows what is still open, and sums up the accounts.
    fn finish(&mut self) {
        let chains = &mut self.chains;
        for index in 0..chains.slots.len() {
            for open in std::mem::take(&mut chains.slots[index].open) {
                self.done.open_count += 1;
                chains.follow(index, &open.linked, &EventStatus::Started, open.position, open.position);
            }
            for (currency, account) in chains.slots[index].check.head().state.accounts.iter() {
                let (held, available) = self.done.accounts.entry(currency).or_default();
                (*held, *available) = (held.plus(account.held), available.plus(account.available));
            }
        }
    }
}

/// What all passes found.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) passes: Vec<Done>,
}

impl Sums {
    /// Whether every entry of the index files leads to an event that took effect on the entry's transaction.
    pub(super) fn index_is_matched(&self, derived: Option<&Derived>) -> bool {
        let runs = derived.into_iter().flat_map(|derived| &derived.transactions);
        let entry_count: u64 = runs.map(|(_, run)| run.entry_count()).sum();
        entry_count == self.passes.iter().map(|pass| pass.index_matches).sum::<u64>()
    }

    /// Puts together what the passes found: first what concerns the journal, then what is derived.
    pub(super) fn conclude(
        self,
        inputs: &Inputs,
        report: &mut VerifyReport,
        findings: &mut Findings,
    ) -> (Findings, Vec<Finding>) {
        let (mut frames, mut frames_count, mut late) = (Vec::new(), 0, Vec::new());
        let mut chains_found = Findings::new(inputs.options.findings_max);
        let mut damages: BTreeMap<u64, Damage> = BTreeMap::new();
        let (mut totals, mut at_checkpoint) = (Totals::default(), Totals::default());
        let mut accounts: BTreeMap<CurrencyIndex, (i128, i128)> = BTreeMap::new();
        for pass in self.passes {
            totals.add(&pass.totals);
            at_checkpoint.add(&pass.at_checkpoint);
            report.event_count += pass.event_count;
            report.open_count += pass.open_count;
            for (currency, (held, available)) in &pass.accounts {
                let sum = accounts.entry(*currency).or_default();
                *sum = (sum.0 + held.steps(), sum.1 + available.steps());
            }
            for damage in pass.damages {
                damages.entry(damage.position).or_insert_with(|| Damage::at(damage.position)).add(damage);
            }
            chains_found.append(pass.chains);
            if pass.first {
                (frames, frames_count, late) = (pass.frames, pass.frames_count, pass.derived);
                report.notes.extend(pass.torn);
                report.frame_count = pass.frame_count;
                (report.journal_bytes, report.journal_digest) = (pass.end.position, pass.end.digest);
            }
        }
        let intact = damages.is_empty() && inputs.config.is_some() && inputs.options.only.is_none();
        if let Some(derived) = inputs.derived.as_ref().filter(|_| intact)
            && derived.checkpoint.totals != at_checkpoint
        {
            late.push(Derived::wrong(inputs.disk.path(), "the checkpoint has other sums than the journal"));
        }
        if intact && !fit(&totals, &accounts) {
            let what = "the sums of deposits, withdrawals and chargebacks do not fit the accounts";
            late.push(inputs.places().finding(FindingCode::Unbalanced, report.journal_bytes, what));
        }
        findings.count += frames_count - frames.len() as u64;
        for (position, mut finding) in frames {
            if let Some((lost, damage)) = finding.lost.as_mut().zip(damages.remove(&position)) {
                (lost.event_count, lost.customer_count) = (damage.event_count, damage.customer_count);
                lost.customers = damage.events;
                lost.customers.sort_unstable_by_key(|lost: &LostEvents| lost.customer);
            }
            findings.push(finding);
        }
        report.totals = totals;
        (chains_found, late)
    }
}

/// Whether the sums over all events fit each other, and the accounts.
fn fit(totals: &Totals, accounts: &BTreeMap<CurrencyIndex, (i128, i128)>) -> bool {
    let fits = |(currency, sums): (u8, &CurrencyTotals)| {
        let (held, available) = accounts.get(&CurrencyIndex(currency)).copied().unwrap_or_default();
        sums.is_balanced() && sums.held.steps() == held && sums.available().steps() == available
    };
    let count = totals.currencies().len();
    (0..).zip(totals.currencies()).all(fits) && accounts.keys().all(|currency| usize::from(currency.0) < count)
}
