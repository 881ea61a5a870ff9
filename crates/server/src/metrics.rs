//! What the service counts, in the text format that Prometheus reads.
//!
//! Everything has its place before it is counted: no look-up and no label is made while a request is under way.

use crate::problem::Problem;
use axum::http::StatusCode;
use bursar_core::Rejection;
use bursar_core::commit::Outcome;
use bursar_engine::Submitted;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
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
    /// HTTP requests under way.
    pub(crate) in_flight: Gauge,
    /// Batches under way.
    pub(crate) batches: Gauge,
    /// Streams of events.
    pub(crate) event_streams: Gauge,
    webhook_deliveries: Family<NamedLabels<2>, Counter>,
    webhook_lag: Family<NamedLabels<1>, Gauge>,
    /// Set when the metrics are asked for.
    pub(crate) open_events: Gauge,
    pub(crate) customers: Gauge,
    pub(crate) transactions: Gauge,
    pub(crate) events: Gauge,
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
            in_flight,
            batches,
            event_streams,
            webhook_deliveries,
            webhook_lag,
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
            Ok(Outcome::AlreadyApplied) => self.already_applied.inc(),
            Ok(Outcome::Rejected(rejection)) => self.rejected[rejection.precedence()].inc(),
            Err(_) => self.undecided.inc(),
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
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
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
