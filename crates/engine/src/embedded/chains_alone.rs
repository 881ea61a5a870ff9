//! Chains alone in a directory, with the transactions table in another store.
//!
//! ```text
//!   append ──► a frame in the journal at once ──► heads (seen by every later call)
//!                        └── sync ──► durable
//!   propose, approve ──► the other store, whenever the commit machine says so
//! ```
//!
//! The two stores share no crash, so the way is that of any two systems: batches are not whole, and what is appended is
//! seen at once. Each [`Chains::append`] becomes a frame of its own: what was started and what was done are two frames,
//! and a crash may keep the first and lose the second. Then the event is open, and is rolled forward by whoever opens
//! the ledger next. Between the two frames the event is proposed to the table, which may be durable before the first
//! frame is: what it proposes then is an event that nobody knows, and does not count. Where a proposal rests on what
//! the chains say, the machine asks for a sync in between, which makes all frames so far durable.
//!
//! What this module does not do: know of transactions. It keeps no index of them; index files hold heads only. What was
//! proposed is approved by the table's own calls, and by nothing that is done here, closing included.

use super::disk::Disk;
use super::ledger_file::Holds;
use super::open::{OpenReport, lock_directory, lock_ledger};
use super::store::{EmbeddedOptions, EmbeddedStore, Shared, State};
use crate::store::{ChainEntry, Chains, CustomerHead, Feed, ReadRange, SourceId, SourceMark, StoreError, WholeBatch};
use crate::totals::Totals;
use bursar_core::commit::Appended;
use bursar_core::planted::{Planted, is_planted};
use bursar_core::{CustomerId, EventRef, EventStatus, Head, LedgerConfig, Record};
use std::path::Path;
use std::sync::Arc;

/// A ledger's chains in one directory, owned by one process. It is no [transactions table](crate::store::Transactions), and the
/// directory says so.
#[derive(Debug)]
pub struct EmbeddedChains(EmbeddedStore);

impl EmbeddedChains {
    /// Creates the chains of a ledger in a directory, which is made if it does not exist.
    pub fn create(directory: &Path, config: &LedgerConfig, options: EmbeddedOptions) -> Result<Self, StoreError> {
        Ok(Self::create_on(lock_directory(directory, true)?, config, options)?.0)
    }

    /// Opens the chains in a directory; an error if it holds a whole ledger.
    pub fn open(directory: &Path, options: EmbeddedOptions) -> Result<(Self, OpenReport), StoreError> {
        Self::open_on(lock_ledger(directory)?, options)
    }

    /// Creates the chains of a ledger on any medium.
    pub fn create_on(
        disk: Arc<dyn Disk>,
        config: &LedgerConfig,
        options: EmbeddedOptions,
    ) -> Result<(Self, OpenReport), StoreError> {
        let (store, report) = EmbeddedStore::create_holding(Holds::ChainsAlone, disk, config, options)?;
        Ok((Self(store), report))
    }

    /// Opens the chains on any medium.
    pub fn open_on(disk: Arc<dyn Disk>, options: EmbeddedOptions) -> Result<(Self, OpenReport), StoreError> {
        let (store, report) = EmbeddedStore::open_holding(Holds::ChainsAlone, disk, options)?;
        Ok((Self(store), report))
    }

    /// The ledger's rules and currencies.
    pub fn config(&self) -> &LedgerConfig {
        self.0.config()
    }

    /// Makes everything durable, writes the newest heads to an index file, and gives back reserved room. The next
    /// opening then has nothing to read.
    pub fn close(&self) -> Result<(), StoreError> {
        self.0.close()
    }
}

impl State {
    /// Writes what one call has appended as a frame, so that every later call sees it. A frame's time is that of the
    /// newest event: the calls say none.
    pub(super) fn write_appended(&mut self, shared: &Shared) -> Result<(), StoreError> {
        if self.batch.is_empty() || is_planted(Planted::AppendHeldBack) {
            return Ok(());
        }
        let newest = self.batch.started.iter().map(|started| started.linked.event.time_ms).max();
        let time_ms = newest.unwrap_or(0).max(self.last_time_ms);
        // Whether memory is full is asked when the batch ends.
        self.write_batch(shared, time_ms, None)?;
        Ok(())
    }
}

impl Chains for EmbeddedChains {
    fn whole_batches(&self) -> bool {
        self.0.whole_batches()
    }

    fn begin_whole(&self, time_ms: u64) -> Result<Option<Box<dyn WholeBatch + '_>>, StoreError> {
        self.0.begin_whole(time_ms)
    }

    fn load(&self, customers: &[CustomerId], heads: &mut Vec<Option<Head>>) -> Result<(), StoreError> {
        self.0.load(customers, heads)
    }

    fn append(&self, records: &[Record], results: &mut Vec<Appended>) -> Result<(), StoreError> {
        self.0.append(records, results)
    }

    fn end_batch(&self, time_ms: u64, mark: Option<&SourceMark>) -> Result<(), StoreError> {
        self.0.end_batch(time_ms, mark)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.0.sync()
    }

    fn status(&self, events: &[EventRef], statuses: &mut Vec<Option<EventStatus>>) -> Result<(), StoreError> {
        self.0.status(events, statuses)
    }

    fn read(&self, customer: CustomerId, range: ReadRange, entries: &mut Vec<ChainEntry>) -> Result<(), StoreError> {
        Chains::read(&self.0, customer, range, entries)
    }

    fn open_customers(&self) -> Result<Vec<CustomerId>, StoreError> {
        self.0.open_customers()
    }

    fn list(&self, after: Option<CustomerId>, limit: usize, heads: &mut Vec<CustomerHead>) -> Result<(), StoreError> {
        self.0.list(after, limit, heads)
    }

    fn source(&self, source: SourceId) -> Result<Option<SourceMark>, StoreError> {
        self.0.source(source)
    }

    fn sources(&self) -> Result<Vec<SourceMark>, StoreError> {
        self.0.sources()
    }

    fn rejected_lines(&self, source: SourceId) -> Result<Vec<(u64, u8)>, StoreError> {
        self.0.rejected_lines(source)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        self.0.totals()
    }

    fn last_time_ms(&self) -> Result<u64, StoreError> {
        self.0.last_time_ms()
    }

    fn feed(&self) -> Option<&dyn Feed> {
        self.0.feed()
    }

    fn embedded(&self) -> Option<&EmbeddedStore> {
        Some(&self.0)
    }
}
