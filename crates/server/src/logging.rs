//! Logs on standard error, for people or as JSON lines.
//!
//! Every line of a request carries its id, which the client has from the header `X-Request-Id`. No header, no body and
//! no key is ever logged. At the level `info` a request that goes well leaves no line: at tens of thousands per second
//! nobody would read them, and they cost more than the requests. `debug` shows each.

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Only what is wrong.
    Error,
    /// Also what may become wrong.
    Warn,
    /// Also when the service starts and stops.
    Info,
    /// Also every request.
    Debug,
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// A JSON object per line.
    Json,
}

/// Starts logging, for the whole process. Does nothing if something logs already.
pub fn start(level: Level, format: Format, colored: bool) {
    let filter = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colored);
    let layer = match format {
        Format::Text => lines.with_target(false).boxed(),
        Format::Json => lines.json().flatten_event(true).with_target(false).boxed(),
    };
    // Tests start many services in one process; the first one decides.
    drop(tracing_subscriber::registry().with(layer.with_filter(filter)).try_init());
}
