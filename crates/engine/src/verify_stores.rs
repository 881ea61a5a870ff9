//! Checking a ledger in any stores: every chain event by event, what the transactions table says of each transaction and
//! key, and the sums. Nothing that a store says is believed but what it has stored.
//!
//! Engines may go on meanwhile: each chain is followed up to where it was when its turn came, entries that are ahead of
//! that are left alone, and the sums are compared only if nothing happened between the first and the last look.
//!
//! What this module does not do: files. What lies in a directory is checked byte by byte by [`crate::embedded::verify`].

use crate::store::{ChainEntry, Chains, CustomerHead, ReadRange, StoreError, Transactions};
use crate::totals::Totals;
use bursar_core::{
    ChainCheck, ChainFault, CustomerId, EntryId, EventRef, EventStatus, LedgerConfig, TransactionEntry, TransactionId,
    TransactionState,
};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// How many customers are looked at at once.
const CUSTOMERS_AT_ONCE: usize = 1024;
/// How many events of a chain are read, and entries of the table asked for, at once.
const AT_ONCE: usize = 4096;
/// How many findings are kept; all are counted.
const FINDINGS_MAX: usize = 1000;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoresFault {
    /// An event does not follow from the one before.
    Chain(ChainFault),
    /// A part of a chain is missing.
    Missing,
    /// A chain's head is not what its events lead to.
    Head,
    /// The table says something else of a transaction or a key than the chain of its customer.
    Table(EntryId),
    /// The sums that the store keeps are not those of its chains.
    Sums,
}

impl StoresFault {
    /// The stable code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Chain(fault) => fault.code(),
            Self::Missing => "events_missing",
            Self::Head => "head_differs",
            Self::Table(_) => "table_differs",
            Self::Sums => "sums_differ",
        }
    }
}

impl fmt::Display for StoresFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(fault) => fault.fmt(f),
            Self::Missing => f.write_str("the chain ends before its head"),
            Self::Head => f.write_str("the chain's head is not what its events lead to"),
            Self::Table(entry) => write!(f, "the table's entry of {entry} is not what the chain says"),
            Self::Sums => f.write_str("the sums kept by the store are not those of its chains"),
        }
    }
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoresFinding {
    /// Whose chain, and at which event; `None` for the ledger as a whole.
    pub event: Option<(CustomerId, u64)>,
    /// What is wrong there.
    pub fault: StoresFault,
}

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoresReport {
    /// How many things are wrong.
    pub finding_count: u64,
    /// The first of them.
    pub findings: Vec<StoresFinding>,
    /// The sums of all chains that were followed.
    pub totals: Totals,
    /// Events that are open.
    pub open_count: u64,
    /// Whether the store's sums could be compared: nothing happened meanwhile.
    pub sums_compared: bool,
}

impl StoresReport {
    /// Whether nothing is wrong.
    pub const fn is_sound(&self) -> bool {
        self.finding_count == 0
    }

    fn add(&mut self, event: Option<(CustomerId, u64)>, fault: StoresFault) {
        self.finding_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(StoresFinding { event, fault });
        }
    }
}

/// Checks a ledger, or one customer's chain. `progress` is told how many events have been followed.
pub fn verify_stores(
    config: &LedgerConfig,
    chains: &dyn Chains,
    transactions: &dyn Transactions,
    only: Option<CustomerId>,
    mut progress: impl FnMut(u64),
) -> Result<StoresReport, StoreError> {
    let mut checking = Checking { config, chains, transactions, report: StoresReport::default() };
    if let Some(customer) = only {
        let mut heads = Vec::new();
        chains.load(&[customer], &mut heads)?;
        if let Some(head) = heads.pop().flatten() {
            checking.chain(&CustomerHead { customer, head }, &mut progress)?;
        }
        return Ok(checking.report);
    }
    let before = chains.totals()?;
    let mut after = None;
    loop {
        let mut page = Vec::new();
        chains.list(after, CUSTOMERS_AT_ONCE, &mut page)?;
        let Some(last) = page.last() else { break };
        after = Some(last.customer);
        for of in &page {
            checking.chain(of, &mut progress)?;
        }
    }
    let mut report = checking.report;
    report.sums_compared = before == chains.totals()?;
    if report.sums_compared && report.totals != before {
        report.add(None, StoresFault::Sums);
    }
    Ok(report)
}

struct Checking<'a> {
    config: &'a LedgerConfig,
    chains: &'a dyn Chains,
    transactions: &'a dyn Transactions,
    report: StoresReport,
}

/// The state of an entry by its chain, and the event that led to it.
type Entries = BTreeMap<EntryId, (TransactionState, EventRef)>;

impl Checking<'_> {
    /// Follows a chain up to a head.
    fn chain(&mut self, of: &CustomerHead, progress: &mut impl FnMut(u64)) -> Result<(), StoreError> {
        let CustomerHead { customer, head } = of;
        let last_seq = head.seq + head.open.len() as u64;
        let mut check = ChainCheck::new(&self.config.digest(), *customer);
        let mut states: HashMap<TransactionId, TransactionState> = HashMap::new();
        let mut entries = Entries::new();
        let mut next_seq = 1;
        while next_seq <= last_seq {
            let mut page = Vec::new();
            let range = ReadRange { from_seq: next_seq, to_seq: last_seq, limit: AT_ONCE, newest_first: false };
            self.chains.read(*customer, range, &mut page)?;
            if page.is_empty() {
                self.report.add(Some((*customer, next_seq)), StoresFault::Missing);
                return Ok(());
            }
            next_seq += page.len() as u64;
            for ChainEntry { linked, status } in page {
                // What was open when the head was read may be closed by now.
                let status = if linked.event.seq > head.seq { EventStatus::Started } else { status };
                let event = &linked.event;
                let known = event.transaction.and_then(|transaction| states.get(&transaction).copied());
                match check.follow(self.config, known, &linked, &status) {
                    Ok(state) => states.extend(event.transaction.zip(state)),
                    Err(fault) => {
                        self.report.add(Some((*customer, event.seq)), StoresFault::Chain(fault));
                        return Ok(());
                    }
                }
                self.report.totals.begun(event);
                match &status {
                    EventStatus::Started => self.report.open_count += 1,
                    EventStatus::Aborted(_) => self.report.totals.aborted(),
                    EventStatus::Done | EventStatus::DoneByHand(_) => {
                        self.report.totals.done(event);
                        let reference = linked.reference();
                        entries.extend(event.entries().map(|(id, state)| (id, (state, reference))));
                    }
                }
            }
            progress(self.report.totals.event_count);
        }
        if check.head() != head {
            self.report.add(Some((*customer, last_seq)), StoresFault::Head);
        }
        self.table(&entries, last_seq)
    }

    /// Compares what the table has with what a chain says.
    fn table(&mut self, entries: &Entries, last_seq: u64) -> Result<(), StoreError> {
        let all: Vec<_> = entries.iter().collect();
        for some in all.chunks(AT_ONCE) {
            let ids: Vec<EntryId> = some.iter().map(|(id, _)| **id).collect();
            let mut found = Vec::new();
            self.transactions.get(&ids, &mut found)?;
            for ((id, (state, event)), entry) in some.iter().zip(&found) {
                if !self.says(entry, state, event, last_seq)? {
                    self.report.add(Some((event.customer, event.seq)), StoresFault::Table(**id));
                }
            }
        }
        Ok(())
    }

    /// Whether an entry leads to a state, or is ahead of it.
    fn says(
        &self,
        entry: &TransactionEntry,
        state: &TransactionState,
        event: &EventRef,
        last_seq: u64,
    ) -> Result<bool, StoreError> {
        let Some(proposed) = entry.proposed else { return Ok(entry.approved == Some(*state)) };
        if proposed.event == *event {
            return Ok(proposed.state == *state);
        }
        if proposed.event.customer == event.customer && proposed.event.seq > last_seq {
            return Ok(true);
        }
        // Another event that is not in effect, or not known to be: the approved state counts.
        let mut statuses = Vec::new();
        self.chains.status(&[proposed.event], &mut statuses)?;
        let is_done = statuses.iter().flatten().any(EventStatus::is_done);
        Ok(!is_done && entry.approved == Some(*state))
    }
}
