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
use bursar_core::{Account, Currencies, CurrencyIndex, EventStatus, Hash, LedgerConfig, Policy, Sum};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many bytes of the journal lie between two reports of progress.
pub(super) const PROGRESS_BYTES: u64 = 8 << 20;

/// How many records are read before they are taken; they stay in a processor's first cache.
const RECORDS_AT_ONCE: usize = 64;

/// What a verification reads.
pub(super) struct Inputs {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) options: VerifyOptions,
    /// `None`: the ledger file cannot be read, and no chain can be followed.
    pub(super) config: Option<LedgerConfig>,
    /// The transactions table is here, too: events point to those before them on their transactions, and an index leads
    /// to them.
    pub(super) has_table: bool,
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
    pub(super) derived: Vec<Finding>,
    chains: Findings,
    damages: Vec<Damage>,
    pub(super) totals: Totals,
    pub(super) at_checkpoint: Totals,
    pub(super) event_count: u64,
    pub(super) open_count: u64,
    /// What all accounts have, held and available.
    accounts: BTreeMap<CurrencyIndex, (Sum, Sum)>,
    pub(super) frame_count: u64,
    pub(super) end: JournalPoint,
    torn: Option<Note>,
    /// Of a quick pass: what it gathered, if that is to be checked together with what others gathered.
    pub(super) effects: Option<Effects>,
    /// Of a quick pass that checked it: how many entries of index files lead to it.
    pub(super) index_matches: u64,
}

impl Done {
    /// Nothing yet, before the journal's beginning.
    pub(super) fn new(first: bool, ledger_digest: Hash) -> Self {
        Self {
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
            end: JournalPoint { position: 0, frame_number: 0, digest: ledger_digest },
            torn: None,
            effects: None,
            index_matches: 0,
        }
    }

    /// Adds an account to what all of them have.
    pub(super) fn account(&mut self, currency: CurrencyIndex, account: Account) {
        let (held, available) = self.accounts.entry(currency).or_default();
        (*held, *available) = (held.plus(account.held), available.plus(account.available));
    }

    /// Notes where and how the journal ends.
    pub(super) fn ended(&mut self, inputs: &Inputs, ending: Ending, end: u64) {
        if ending == Ending::Torn {
            let at = inputs.places().finding(FindingCode::FrameUnreadable, end, String::new());
            let what = "a write that never came to its end; it was not acknowledged, and the next opening cuts it off";
            self.torn = Some(Note { path: at.path, offset: at.offset, what });
        }
        self.end.position = end;
    }
}

/// A pass under way.
pub(super) struct Pass<'a> {
    inputs: &'a Inputs,
    chains: Chains<'a>,
    memory_bytes_max: usize,
    sources: BTreeMap<SourceId, SourceMark>,
    /// Records that were read and are to be taken next.
    records: Vec<(u64, Stored)>,
    done: Done,
}

impl<'a> Pass<'a> {
    pub(super) fn new(inputs: &'a Inputs, partition: Partition, first: bool, memory_bytes_max: usize) -> Self {
        let findings_max = inputs.options.findings_max;
        // Without the ledger's own, no record is looked into.
        let any = LedgerConfig { ledger: [0; 16], policy: Policy::default(), currencies: Currencies::default() };
        let config = inputs.config.clone().unwrap_or(any);
        let chains = Chains::new(inputs.places(), config, inputs.has_table, partition, findings_max);
        let done = Done::new(first, chains.ledger_digest);
        Self { inputs, chains, memory_bytes_max, sources: BTreeMap::new(), records: Vec::new(), done }
    }

    /// Reads the journal once.
    pub(super) fn run(mut self, told: &mut dyn FnMut(u64, u64)) -> Result<Ran, StoreError> {
        let ledger = self.inputs.config.as_ref().map(|config| (config.ledger, config.digest()));
        let digests = if self.done.first { Digests::ALL } else { Digests::None };
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
        let Self { inputs, chains, mut done, .. } = self;
        done.ended(inputs, ending, end);
        (done.event_count, done.totals) = (chains.event_count, chains.totals);
        (done.chains, done.damages) = (chains.findings, chains.damages);
        Ok(Ran::Done(Box::new(done)))
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
        if goes_back(&before, &kept) {
            let what = "the mark of a source says less than the one before it";
            self.find(position, self.chains.places.finding(FindingCode::MarkGoesBack, position, what));
        }
    }

    /// The pass has come to the checkpoint's point; the next frame begins, or would begin, at `next`.
    fn at_checkpoint(&mut self, next: u64) -> Result<(), StoreError> {
        self.done.at_checkpoint = self.chains.totals.clone();
        let Inputs { disk, options, config: Some(config), segments, derived: Some(derived), .. } = self.inputs else {
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
                self.done.account(currency, account);
            }
        }
    }
}

/// Whether a source's mark says less than the one before it.
pub(super) const fn goes_back(before: &SourceMark, mark: &SourceMark) -> bool {
    before.offset > mark.offset
        || before.line_count > mark.line_count
        || before.finished && !mark.finished
        || before.counts.applied > mark.counts.applied
        || before.counts.already_applied > mark.counts.already_applied
        || before.counts.rejected > mark.counts.rejected
        || before.counts.unreadable > mark.counts.unreadable
}

/// What all passes found.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) passes: Vec<Done>,
}

impl Sums {
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
