//! What is shown: one table, in order, each line with the metric that it comes from. To show another figure, add a line.

#![expect(clippy::float_arithmetic, reason = "figures for people; no money is among them")]

use super::Look;
use super::samples::{Sample, Samples};
use std::fmt::Write;

/// How a metric becomes a figure.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// A counter, per second; one figure for each value of a label.
    RateBy(&'static str),
    /// A gauge as it is.
    Gauge(Unit),
    /// A histogram: percentiles of what was counted since the look before; of all there is, where that is nothing. Only
    /// the series whose label has this value, where one is named.
    Percentiles(Unit, Option<(&'static str, &'static str)>),
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Count,
    Seconds,
    Bytes,
}

/// A line of the table.
struct Line {
    group: &'static str,
    name: &'static str,
    metric: &'static str,
    shape: Shape,
}

const fn line(group: &'static str, name: &'static str, metric: &'static str, shape: Shape) -> Line {
    Line { group, name, metric, shape }
}

const LINES: [Line; 24] = [
    line("requests", "per_second", "bursar_requests_total", Shape::RateBy("outcome")),
    line("http", "per_second", "bursar_http_responses_total", Shape::RateBy("status")),
    line("problems", "per_second", "bursar_problems_total", Shape::RateBy("code")),
    line("latency", "requests", "bursar_http_request_seconds", of_path("/v1/requests")),
    line("latency", "batches_begin", "bursar_http_request_seconds", of_path("/v1/batches")),
    line("latency", "customer", "bursar_http_request_seconds", of_path("/v1/customers/{customer}")),
    line("engine", "batch_size", "bursar_batch_size_requests", Shape::Percentiles(Unit::Count, None)),
    line("engine", "commit", "bursar_commit_seconds", Shape::Percentiles(Unit::Seconds, None)),
    line("engine", "fsync", "bursar_journal_sync_seconds", Shape::Percentiles(Unit::Seconds, None)),
    line("engine", "queue", "bursar_queue_requests", Shape::Gauge(Unit::Count)),
    line("engine", "queue_with_rows", "bursar_engine_queue_requests", Shape::Gauge(Unit::Count)),
    line("engine", "stopped", "bursar_engine_stopped", Shape::Gauge(Unit::Count)),
    line("open_events", "count", "bursar_open_events", Shape::Gauge(Unit::Count)),
    line("open_events", "oldest", "bursar_open_event_oldest_age_seconds", Shape::Gauge(Unit::Seconds)),
    line("now", "connections", "bursar_connections", Shape::Gauge(Unit::Count)),
    line("now", "http_requests", "bursar_http_requests_in_flight", Shape::Gauge(Unit::Count)),
    line("now", "batches", "bursar_batches", Shape::Gauge(Unit::Count)),
    line("now", "event_streams", "bursar_event_streams", Shape::Gauge(Unit::Count)),
    line("ledger", "customers", "bursar_customers", Shape::Gauge(Unit::Count)),
    line("ledger", "transactions", "bursar_transactions", Shape::Gauge(Unit::Count)),
    line("ledger", "events", "bursar_events", Shape::Gauge(Unit::Count)),
    line("disk", "journal", "bursar_journal_size_bytes", Shape::Gauge(Unit::Bytes)),
    line("disk", "free", "bursar_disk_free_bytes", Shape::Gauge(Unit::Bytes)),
    line("disk", "size", "bursar_disk_size_bytes", Shape::Gauge(Unit::Bytes)),
];

const fn of_path(path: &'static str) -> Shape {
    Shape::Percentiles(Unit::Seconds, Some(("path", path)))
}

/// A figure, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Words with points between them; the first is the group.
    pub(super) key: String,
    /// For people, with its unit.
    pub(super) value: String,
}

/// What two looks come to, in the order of the table.
pub(super) fn shown(before: &Look, now: &Look) -> Vec<Shown> {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    figures(&before.samples, &now.samples, seconds)
}

fn figures(before: &Samples, now: &Samples, seconds: f64) -> Vec<Shown> {
    let mut all = Vec::new();
    for Line { group, name, metric, shape } in &LINES {
        let mut add = |more: &str, value: String| {
            let key = if more.is_empty() { format!("{group}.{name}") } else { format!("{group}.{name}.{more}") };
            all.push(Shown { key, value });
        };
        match shape {
            // The first look is compared with itself, and says nothing about time.
            Shape::RateBy(_) if seconds <= 0.0 => {}
            Shape::RateBy(label) => {
                for (value, rate) in rates(before.of(metric), now.of(metric), label, seconds) {
                    add(&value, format!("{rate:.1}"));
                }
            }
            Shape::Gauge(unit) => {
                if let [sample] = now.of(metric) {
                    add("", unit.show(sample.value));
                }
            }
            Shape::Percentiles(unit, only) => {
                let bucket = format!("{metric}_bucket");
                let buckets = Buckets::since(before.of(&bucket), now.of(&bucket), *only);
                for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)] {
                    if let Some(bound) = buckets.percentile(share) {
                        add(name, bound.map_or_else(|last| format!("> {}", unit.show(last)), |bound| unit.show(bound)));
                    }
                }
            }
        }
    }
    all
}

/// How fast a counter grows, for each value of a label. A value that never counted anything is left out.
fn rates(before: &[Sample], now: &[Sample], label: &str, seconds: f64) -> Vec<(String, f64)> {
    let sum = |samples: &[Sample], value: &str| -> f64 {
        samples.iter().filter(|sample| sample.label(label) == Some(value)).map(|sample| sample.value).sum()
    };
    let mut values: Vec<&str> = now.iter().filter_map(|sample| sample.label(label)).collect();
    values.sort_unstable();
    values.dedup();
    let rate = |value: &&str| {
        // Less than before: the server was started anew, and counts from zero.
        let grown = sum(now, value) - sum(before, value);
        (sum(now, value) > 0.0)
            .then(|| ((*value).to_owned(), (if grown < 0.0 { sum(now, value) } else { grown }) / seconds))
    };
    values.iter().filter_map(rate).collect()
}

/// The buckets of a histogram: upper bounds with how many lie in each, in order.
struct Buckets(Vec<(f64, f64)>);

impl Buckets {
    fn since(before: &[Sample], now: &[Sample], only: Option<(&str, &str)>) -> Self {
        let (before, now) = (Self::cumulated(before, only), Self::cumulated(now, only));
        let count = |buckets: &[(f64, f64)]| buckets.last().map_or(0.0, |(_, count)| *count);
        let same = before.len() == now.len() && count(&before) < count(&now);
        let grown = now.iter().enumerate().map(|(index, (bound, count))| {
            let earlier = if same { before[index].1 } else { 0.0 };
            (*bound, count - earlier)
        });
        let mut below = 0.0;
        Self(grown.map(|(bound, count)| (bound, count - std::mem::replace(&mut below, count))).collect())
    }

    fn cumulated(samples: &[Sample], only: Option<(&str, &str)>) -> Vec<(f64, f64)> {
        let wanted =
            samples.iter().filter(|sample| only.is_none_or(|(label, value)| sample.label(label) == Some(value)));
        let bound = |sample: &Sample| match sample.label("le")? {
            "+Inf" => Some(f64::INFINITY),
            le => le.parse().ok(),
        };
        let mut buckets: Vec<(f64, f64)> = wanted.filter_map(|sample| Some((bound(sample)?, sample.value))).collect();
        buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        buckets
    }

    /// The bound below which this share lies; `Err` with the largest bound if it lies beyond; `None` if nothing was
    /// counted.
    fn percentile(&self, share: f64) -> Option<Result<f64, f64>> {
        let total: f64 = self.0.iter().map(|(_, count)| count).sum();
        if total <= 0.0 {
            return None;
        }
        let (mut below, mut last) = (0.0, 0.0);
        for (bound, count) in &self.0 {
            below += count;
            // `f64::MAX` stands for no bound as well.
            let is_bound = *bound < f64::MAX;
            if below >= total * share {
                return Some(if is_bound { Ok(*bound) } else { Err(last) });
            }
            if is_bound {
                last = *bound;
            }
        }
        Some(Err(last))
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value}"),
            Self::Seconds if value < 0.001 => format!("{:.0} us", value * 1e6),
            Self::Seconds if value < 1.0 => format!("{:.1} ms", value * 1e3),
            Self::Seconds => format!("{value:.1} s"),
            Self::Bytes => bytes(value),
        }
    }
}

fn bytes(value: f64) -> String {
    const STEP: f64 = 1024.0;
    let mut text = String::new();
    let (mut value, mut units) = (value, ["B", "KiB", "MiB", "GiB", "TiB"].into_iter().peekable());
    while let Some(unit) = units.next() {
        if value < STEP || units.peek().is_none() {
            // Writing to a `String` cannot fail.
            write!(text, "{value:.1} {unit}").unwrap_or_default();
            break;
        }
        value /= STEP;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(before: &str, now: &str) -> Vec<(String, String)> {
        let shown = figures(&Samples::parse(before), &Samples::parse(now), 2.0);
        shown.into_iter().map(|shown| (shown.key, shown.value)).collect()
    }

    fn one(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn what_a_server_does_not_have_is_left_out_and_not_zero() {
        assert_eq!(values("", ""), []);
        assert_eq!(values("", "bursar_connections 0\nbursar_other 3\n"), [one("now.connections", "0")]);
    }

    #[test]
    fn counters_become_rates_by_their_label() {
        let before = "bursar_requests_total{outcome=\"applied\",code=\"\"} 10\n";
        let now = "bursar_requests_total{outcome=\"applied\",code=\"\"} 30\n\
                   bursar_requests_total{outcome=\"rejected\",code=\"a\"} 1\n\
                   bursar_requests_total{outcome=\"rejected\",code=\"b\"} 2\n\
                   bursar_requests_total{outcome=\"undecided\",code=\"\"} 0\n";
        let expected = [one("requests.per_second.applied", "10.0"), one("requests.per_second.rejected", "1.5")];
        assert_eq!(values(before, now), expected);
        // Started anew.
        assert_eq!(values(now, before), [one("requests.per_second.applied", "5.0")]);
    }

    #[test]
    fn percentiles_are_of_what_came_since() {
        let bucket = |le: &str, count: u32| format!("bursar_journal_sync_seconds_bucket{{le=\"{le}\"}} {count}\n");
        let before = bucket("0.001", 100) + &bucket("0.01", 100) + &bucket("+Inf", 100);
        let now = bucket("0.001", 101) + &bucket("0.01", 109) + &bucket("+Inf", 110);
        let expected = [
            one("engine.fsync.p50", "10.0 ms"),
            one("engine.fsync.p90", "10.0 ms"),
            one("engine.fsync.p99", "> 10.0 ms"),
        ];
        assert_eq!(values(&before, &now), expected);
        // Nothing new: what there is.
        let expected = ["p50", "p90", "p99"].map(|name| one(&format!("engine.fsync.{name}"), "1.0 ms"));
        assert_eq!(values(&before, &before), expected);
    }

    #[test]
    fn units_are_for_people() {
        let table = [
            (Unit::Count, 12.0, "12"),
            (Unit::Seconds, 0.000_05, "50 us"),
            (Unit::Seconds, 0.25, "250.0 ms"),
            (Unit::Seconds, 90.0, "90.0 s"),
            (Unit::Bytes, 1536.0, "1.5 KiB"),
            (Unit::Bytes, 4e15, "3638.0 TiB"),
        ];
        for (unit, value, expected) in table {
            assert_eq!(unit.show(value), expected);
        }
    }
}
