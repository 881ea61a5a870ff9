//! What the service counts, in the text format that Prometheus reads.
//!
//! Everything has its place before it is counted: no look-up and no label is made while a request is under way.

use crate::places::NoPlace;
use crate::problem::Problem;
use axum::http::StatusCode;
use bursar_core::Rejection;
use bursar_core::commit::Outcome;
use bursar_engine::figures::{CacheFigures, Figures, HistogramFigures};
use bursar_engine::{Ledger, ReadError, Submitted, Totals};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

type Labels<const N: usize> = [(&'static str, &'static str); N];
/// Labels with names that operators have given.
type NamedLabels<const N: usize> = [(&'static str, String); N];

/// The counters of one path.
#[derive(Clone, Debug)]
pub(crate) struct RouteMetrics {
    /// By the hundreds of the status: 2xx to 5xx.
    responses: [Counter; 4],
    seconds: Histogram,
}

impl RouteMetrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, status: StatusCode, after: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(2, 5) - 2;
        self.responses[class].inc();
        self.seconds.observe(after.as_secs_f64());
    }
}

/// All counters.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    responses: Family<Labels<2>, Counter>,
    seconds: Family<Labels<1>, Histogram>,
    applied: Counter,
    already_applied: Counter,
    rejected: Vec<Counter>,
    unreadable: Counter,
    undecided: Counter,
    problems: Family<Labels<1>, Counter>,
    /// Requests handed to the engine and not answered yet.
    pub(crate) queue: Gauge,
    /// Connections.
    pub(crate) connections: Gauge,
    /// Connections that found no place: all were taken, or those of their address.
    connections_refused: [Counter; 2],
    /// HTTP requests under way.
    pub(crate) in_flight: Gauge,
    /// Batches under way.
    pub(crate) batches: Gauge,
    /// Streams of events.
    pub(crate) event_streams: Gauge,
    webhook_deliveries: Family<NamedLabels<2>, Counter>,
    webhook_lag: Family<NamedLabels<1>, Gauge>,
    /// Whether the stores said how they stand when the metrics were asked for.
    pub(crate) stores_answer: Gauge,
    /// Held by who asks them.
    pub(crate) asking: Arc<tokio::sync::Mutex<()>>,
    stand: Mutex<Stand>,
    /// Of the stand.
    open_events: Gauge,
    customers: Gauge,
    transactions: Gauge,
    events: Gauge,
}

/// What the ledger and the machine said when they were last asked; see [`Metrics::take_stand`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Stand {
    totals: Totals,
    open_count: usize,
    /// When the oldest open event was begun.
    oldest_open_ms: Option<u64>,
    /// Bytes of the ledger's file system that this process may still take, and of all.
    disk: Option<(u64, u64)>,
}

impl Stand {
    /// Asks a ledger, and waits until its stores have answered.
    pub(crate) fn of(ledger: &Ledger) -> Result<Self, ReadError> {
        let open = ledger.open_events()?;
        let disk = ledger.embedded().and_then(|store| rustix::fs::statvfs(store.path()).ok());
        Ok(Self {
            totals: ledger.totals()?,
            open_count: open.len(),
            oldest_open_ms: open.iter().map(|linked| linked.event.time_ms).min(),
            disk: disk.map(|disk| (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)),
        })
    }

    /// How long the oldest open event waits; 0 if there is none.
    fn oldest_open(&self) -> Duration {
        let age_ms = self.oldest_open_ms.map_or(0, |begun_ms| bursar_outbound::now_ms().saturating_sub(begun_ms));
        Duration::from_millis(age_ms)
    }
}

/// Seconds from microseconds.
#[expect(clippy::float_arithmetic, clippy::cast_precision_loss, reason = "times for people, not money")]
fn seconds_of(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Writes what others count, behind what is counted here.
fn write_asked(figures: &Figures, stand: &Stand, text: &mut String) -> fmt::Result {
    let mut registry = Registry::with_prefix("bursar");
    let mut gauge = |name, help, value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    };
    gauge(
        "engine_queue_requests",
        "Requests and rows that the engine has and has not answered",
        figures.queue_requests,
    );
    gauge("engine_queue_requests_max", "How many there may be; more hear busy", figures.queue_requests_max);
    gauge("engine_stopped", "1: an error has stopped the engine", figures.is_stopped.into());
    gauge(
        "open_event_oldest_age_seconds",
        "Age of the oldest event that waits for its rail",
        stand.oldest_open().as_secs(),
    );
    if let Some((free, total)) = stand.disk {
        gauge("disk_free_bytes", "Room left on the ledger's file system", free);
        gauge("disk_size_bytes", "Size of the ledger's file system", total);
    }
    if let Some(store) = &figures.store {
        gauge("store_poisoned", "1: an error has poisoned the store", store.is_poisoned.into());
        gauge("journal_size_bytes", "Durable bytes of the journal", store.journal_bytes);
        gauge("memory_entries", "Transactions and customers in memory and in no index file yet", store.memory_entries);
        gauge("memory_entries_max", "How many new ones it holds before they are written", store.memory_entries_max);
    }
    if let Some(cache) = &figures.cache {
        gauge("cache_left_alone", "1: the cache is not asked for a while, after a failure", cache.is_left_alone.into());
    }
    let of_engine = EngineMetrics(figures.clone());
    registry.register_collector(Box::new(of_engine));
    prometheus_client::encoding::text::encode(text, &registry)
}

/// What the engine counts in ways of its own.
#[derive(Debug)]
struct EngineMetrics(Figures);

impl EngineMetrics {
    fn histogram(
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        figures: &HistogramFigures,
        seconds: bool,
    ) -> fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "counts for people, not money")]
        let of = |value: u64| if seconds { seconds_of(value) } else { value as f64 };
        let bounds = figures.bounds.iter().map(|&bound| of(bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(figures.counts).collect();
        let unit = if seconds { Unit::Seconds } else { Unit::Other("requests".to_owned()) };
        let mut metric = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Histogram)?;
        metric.encode_histogram::<NoLabelSet>(of(figures.sum), figures.count(), &buckets, None)
    }

    fn of_cache(encoder: &mut DescriptorEncoder<'_>, cache: &CacheFigures) -> fmt::Result {
        let CacheFigures { hits, misses, disbelieved, failures, repeats, dropped, is_left_alone: _ } = *cache;
        let found = [("hit", hits), ("miss", misses), ("disbelieved", disbelieved)];
        Self::counters(encoder, ("cache_entries", "Entries that the cache was asked for"), "result", found)?;
        Self::counter(encoder, ("cache_failures", "Calls that the cache did not answer in time"), failures)?;
        Self::counter(encoder, ("cache_repeats", "Repeats recognised without the transactions table"), repeats)?;
        Self::counter(encoder, ("cache_dropped", "Entries not put, since too many were waiting"), dropped)
    }

    fn counter(encoder: &mut DescriptorEncoder<'_>, (name, help): (&str, &str), count: u64) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&count, None)
    }

    fn counters(
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        label: &'static str,
        counts: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> fmt::Result {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in counts {
            metric.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }
}

impl Collector for EngineMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(figures) = self;
        let encoder = &mut encoder;
        Self::histogram(encoder, ("batch_size", "Requests of each batch"), &figures.batch_requests, false)?;
        let commit = "From the oldest request of a batch being handed in until the batch is durable";
        Self::histogram(encoder, ("commit", commit), &figures.commit_us, true)?;
        if let Some(cache) = &figures.cache {
            Self::of_cache(encoder, cache)?;
        }
        let contradictions = "Answers of rails that contradict what an operator had settled";
        Self::counter(encoder, ("rail_contradictions", contradictions), figures.rail_contradictions)?;
        let Some(store) = &figures.store else { return Ok(()) };
        Self::histogram(encoder, ("journal_sync", "Syncs of the journal"), &store.sync_us, true)?;
        let asked = [("heads", store.heads_asked), ("transactions", store.transactions_asked)];
        Self::counters(encoder, ("lookups", "Look-ups in the index, by table"), "table", asked)?;
        let missed = [("heads", store.heads_from_files), ("transactions", store.transactions_from_files)];
        Self::counters(encoder, ("lookup_misses", "Look-ups that had to read index files"), "table", missed)?;
        let done = [("write", store.index_writes), ("merge", store.index_merges)];
        Self::counters(encoder, ("index_jobs", "Writes and merges of index files"), "job", done)?;
        let busy = "Time that writing and merging index files took";
        let mut metric = encoder.encode_descriptor("index_jobs", busy, Some(&Unit::Seconds), MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, u64>(&seconds_of(store.index_ms.saturating_mul(1_000)), None)?;
        let runs = [("transactions", store.transaction_runs), ("customers", store.customer_runs)];
        let mut metric = encoder.encode_descriptor("index_files", "Index files, by table", None, MetricType::Gauge)?;
        for (table, count) in runs {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            metric.encode_family(&[("table", table)])?.encode_gauge(&count)?;
        }
        Ok(())
    }
}

/// From 50 microseconds to about 26 seconds, each bucket twice the one before.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("bursar");
        let responses = Family::<Labels<2>, Counter>::default();
        registry.register("http_responses", "Answers, by path and class of status", responses.clone());
        let seconds = Family::<Labels<1>, Histogram>::new_with_constructor(seconds);
        registry.register_with_unit(
            "http_request",
            "From the header to the first byte of the answer",
            Unit::Seconds,
            seconds.clone(),
        );
        let requests = Family::<Labels<2>, Counter>::default();
        registry.register("requests", "Requests of single calls and of batches, by outcome", requests.clone());
        let counter = |outcome, code| requests.get_or_create_owned(&[("outcome", outcome), ("code", code)]);
        let rejected = Rejection::ALL.iter().map(|info| counter("rejected", info.code)).collect();
        let [applied, already_applied] = ["applied", "already_applied"].map(|outcome| counter(outcome, ""));
        let [unreadable, undecided] = ["unreadable", "undecided"].map(|outcome| counter(outcome, ""));
        let problems = Family::<Labels<1>, Counter>::default();
        registry.register("problems", "Problem documents that were answered, by code", problems.clone());
        let webhook_deliveries = Family::<NamedLabels<2>, Counter>::default();
        registry.register("webhook_deliveries", "Attempts to deliver an event", webhook_deliveries.clone());
        let webhook_lag = Family::<NamedLabels<1>, Gauge>::default();
        let help = "Age of the oldest event that is not delivered";
        registry.register_with_unit("webhook_lag", help, Unit::Seconds, webhook_lag.clone());
        let refused = Family::<Labels<1>, Counter>::default();
        registry.register("connections_refused", "Connections for which there was no place", refused.clone());
        let connections_refused = ["all", "address"].map(|limit| refused.get_or_create_owned(&[("limit", limit)]));
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let queue = gauge("queue_requests", "Requests handed to the engine and not answered yet");
        let connections = gauge("connections", "Connections");
        let in_flight = gauge("http_requests_in_flight", "HTTP requests under way");
        let batches = gauge("batches", "Batches under way");
        let event_streams = gauge("event_streams", "Streams of events");
        let help = "1: the stores said how they stand; 0: not in time, and what is of them is what they said last";
        let stores_answer = gauge("stores_answer", help);
        let open_events = gauge("open_events", "Events that wait for their rail");
        let customers = gauge("customers", "Customers with a chain");
        let transactions = gauge("transactions", "Deposits and withdrawals that were accepted");
        let events = gauge("events", "Events that are done or aborted");
        Self {
            registry,
            responses,
            seconds,
            applied,
            already_applied,
            rejected,
            unreadable,
            undecided,
            problems,
            queue,
            connections,
            connections_refused,
            in_flight,
            batches,
            event_streams,
            webhook_deliveries,
            webhook_lag,
            stores_answer,
            asking: Arc::default(),
            stand: Mutex::default(),
            open_events,
            customers,
            transactions,
            events,
        }
    }

    /// The counters of a path.
    pub(crate) fn route(&self, path: &'static str) -> RouteMetrics {
        let class = |class| self.responses.get_or_create_owned(&[("path", path), ("status", class)]);
        RouteMetrics {
            responses: ["2xx", "3xx", "4xx", "5xx"].map(class),
            seconds: self.seconds.get_or_create_owned(&[("path", path)]),
        }
    }

    /// Counts what became of a request.
    pub(crate) fn submitted(&self, submitted: &Submitted) {
        match submitted {
            Ok(Outcome::Applied(_)) => self.applied.inc(),
            Ok(Outcome::AlreadyApplied(_)) => self.already_applied.inc(),
            Ok(Outcome::Rejected(rejection)) => self.rejected[rejection.precedence()].inc(),
            Err(_) => self.undecided.inc(),
        };
    }

    /// Counts a connection for which there was no place.
    pub(crate) fn connection_refused(&self, why: NoPlace) {
        let [all, address] = &self.connections_refused;
        match why {
            NoPlace::All => all.inc(),
            NoPlace::Address => address.inc(),
        };
    }

    /// Counts a request that says nothing.
    pub(crate) fn unreadable(&self) {
        self.unreadable.inc();
    }

    /// Counts an attempt to deliver an event.
    pub(crate) fn webhook_attempt(&self, webhook: &str, delivered: bool) {
        let outcome = if delivered { "delivered" } else { "failed" };
        let labels = [("webhook", webhook.to_owned()), ("outcome", outcome.to_owned())];
        self.webhook_deliveries.get_or_create(&labels).inc();
    }

    /// Sets the age of the oldest event that is not delivered.
    pub(crate) fn webhook_lag(&self, webhook: &str, seconds: u64) {
        let labels = [("webhook", webhook.to_owned())];
        self.webhook_lag.get_or_create(&labels).set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Counts a problem document.
    pub(crate) fn problem(&self, problem: &Problem) {
        self.problems.get_or_create(&[("code", problem.info().code)]).inc();
    }

    /// All of it as text.
    pub(crate) fn text(&self, figures: &Figures) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &self.registry)?;
        let stand = self.lock_stand().clone();
        write_asked(figures, &stand, &mut text)?;
        Ok(text)
    }

    /// Takes over what the ledger said.
    pub(crate) fn take_stand(&self, stand: Stand) {
        let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.customers.set(gauge(stand.totals.customer_count));
        self.transactions.set(gauge(stand.totals.transaction_count));
        self.events.set(gauge(stand.totals.event_count));
        self.open_events.set(gauge(stand.open_count as u64));
        *self.lock_stand() = stand;
    }

    fn lock_stand(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts something up as long as it lives.
#[derive(Debug)]
pub(crate) struct Held(Gauge, i64);

impl Held {
    pub(crate) fn one(gauge: &Gauge) -> Self {
        Self::many(gauge, 1)
    }

    pub(crate) fn many(gauge: &Gauge, count: usize) -> Self {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        gauge.inc_by(count);
        Self(gauge.clone(), count)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec_by(self.1);
    }
}
