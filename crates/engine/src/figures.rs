//! What the engine counts about itself: how large batches are, how long they take, how the index fares.
//!
//! Counting costs a few additions for each batch and each sync, and nothing for an event. Nobody is told: whoever wants
//! to know asks ([`crate::Ledger::figures`]), as often as they like. What this module does not do: names for the
//! outside and units of floating point; that is the service's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of times, in microseconds: each twice the one before, from 16 microseconds to 16.8 seconds.
pub const LATENCY_BOUNDS_US: [u64; 21] = doubled(16);
/// Upper bounds of sizes of batches, in requests: each twice the one before, from 1 to 1,048,576.
pub const BATCH_BOUNDS: [u64; 21] = doubled(1);

const fn doubled<const COUNT: usize>(first: u64) -> [u64; COUNT] {
    let mut bounds = [0; COUNT];
    let mut index = 0;
    while index < COUNT {
        bounds[index] = first << index;
        index += 1;
    }
    bounds
}

/// Counts by size, in buckets that never change.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64; 21],
    /// One more than there are bounds, for what is above all of them.
    counts: [AtomicU64; 22],
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) const fn new(bounds: &'static [u64; 21]) -> Self {
        Self { bounds, counts: [const { AtomicU64::new(0) }; 22], sum: AtomicU64::new(0) }
    }

    pub(crate) const fn of_latencies() -> Self {
        Self::new(&LATENCY_BOUNDS_US)
    }

    pub(crate) fn record(&self, value: u64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn record_time(&self, time: Duration) {
        self.record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn figures(&self) -> HistogramFigures {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        HistogramFigures { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

/// A histogram at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistogramFigures {
    /// The upper bound of each bucket, itself included.
    pub bounds: &'static [u64; 21],
    /// How many there are in each bucket, those before not counted; the last one has no bound.
    pub counts: [u64; 22],
    /// The sum of all.
    pub sum: u64,
}

impl HistogramFigures {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What a ledger counts as it works.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Requests of each batch.
    pub(crate) batch_requests: Histogram,
    /// From the oldest of a batch's requests being handed in until the batch is durable.
    pub(crate) commit: Histogram,
    /// Answers of rails that contradict an operator.
    pub(crate) rail_contradictions: AtomicU64,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            batch_requests: Histogram::new(&BATCH_BOUNDS),
            commit: Histogram::of_latencies(),
            rail_contradictions: AtomicU64::new(0),
        }
    }
}

/// What a ledger has counted since it was opened, and how it stands.
#[derive(Clone, Debug)]
pub struct Figures {
    /// How many requests each batch answers; rows of a source are not among them.
    pub batch_requests: HistogramFigures,
    /// Microseconds from the oldest of a batch's requests, or rows, being handed in until the batch is durable.
    pub commit_us: HistogramFigures,
    /// Requests and rows handed in and not answered yet.
    pub queue_requests: u64,
    /// How many there may be.
    pub queue_requests_max: u64,
    /// An error has stopped the engine; nothing is acknowledged any more.
    pub is_stopped: bool,
    /// Answers of rails that came after an operator had settled the event, and say otherwise.
    pub rail_contradictions: u64,
    /// What the embedded store counts, if the ledger lives in one.
    pub store: Option<StoreFigures>,
    /// What a cache in front of the stores counts, if there is one.
    pub cache: Option<CacheFigures>,
}

/// What a cache in front of the stores has done since it was put there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Entries that were there and told what was asked.
    pub hits: u64,
    /// Entries that were not there.
    pub misses: u64,
    /// Entries that were there and not believed: damaged, too old, of somebody else, or not what the chain says.
    pub disbelieved: u64,
    /// Calls that the cache did not answer, or not in time.
    pub failures: u64,
    /// Repeated requests that were recognised without the transactions table.
    pub repeats: u64,
    /// Entries that were not put, since too many were waiting.
    pub dropped: u64,
    /// Whether the cache is left alone at the moment.
    pub is_left_alone: bool,
}

/// What the embedded store has counted since it was opened, and how it stands.
#[derive(Clone, Debug)]
pub struct StoreFigures {
    /// Microseconds that each sync of the journal took on the disk, without the writing before it.
    pub sync_us: HistogramFigures,
    /// Bytes of the journal that are durable.
    pub journal_bytes: u64,
    /// An error has poisoned the store.
    pub is_poisoned: bool,
    /// Times that a customer's head was looked for.
    pub heads_asked: u64,
    /// Of those, how often index files had to be read.
    pub heads_from_files: u64,
    /// Times that a transaction was looked for.
    pub transactions_asked: u64,
    /// Of those, how often index files had to be read, and mostly the journal as well.
    pub transactions_from_files: u64,
    /// Transactions and customers in memory that are in no index file yet, those that are being written included.
    pub memory_entries: u64,
    /// How many transactions or customers the memory for new ones holds at the most.
    pub memory_entries_max: u64,
    /// Index files of transactions.
    pub transaction_runs: u64,
    /// Index files of customers.
    pub customer_runs: u64,
    /// Times that memory was written to index files.
    pub index_writes: u64,
    /// Times that index files were merged.
    pub index_merges: u64,
    /// Milliseconds that writing and merging index files took.
    pub index_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::new(&BATCH_BOUNDS);
        for value in [0, 1, 2, 3, 4, 1 << 20, (1 << 20) + 1] {
            histogram.record(value);
        }
        let figures = histogram.figures();
        let mut expected = [0; 22];
        (expected[0], expected[1], expected[2], expected[20], expected[21]) = (2, 1, 2, 1, 1);
        assert_eq!((figures.counts, figures.count()), (expected, 7));
        assert_eq!(figures.sum, 10 + (2 << 20) + 1);
        assert_eq!(figures.bounds[20], 1 << 20);
        let times = Histogram::of_latencies();
        times.record_time(Duration::from_micros(16));
        times.record_time(Duration::from_nanos(16_999));
        times.record_time(Duration::from_secs(17));
        assert_eq!((times.figures().counts[0], times.figures().counts[21]), (2, 1));
    }
}
