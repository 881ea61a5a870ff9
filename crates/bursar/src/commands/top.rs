//! `bursar top`: a server's load, from its metrics and its pending events.
//!
//! ```text
//!  /metrics ─► samples ─► figures: one table of what is shown, and of which metric ─► view (a terminal), or pairs
//! ```
//!
//! A figure whose metric the server does not have is left out; it is never shown as zero.

mod figures;
mod samples;
mod view;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Cell, Column, Format, Records, stdout};
use bursar_client::PendingList;
use bursar_client::blocking::Client;
use figures::Shown;
use samples::Samples;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

const COLUMNS: &[Column] = &[Column::left("key"), Column::left("value")];
/// How many pending events are listed at the most.
const PENDING_MAX: usize = 50;
/// How far apart the two looks of a single snapshot are.
const SNAPSHOT: Duration = Duration::from_secs(1);

/// What was seen at one moment.
struct Look {
    at: Instant,
    samples: Samples,
    /// Client, seq, kind and time of events that wait for their rail.
    pending: Vec<[String; 4]>,
}

fn look(client: &Client) -> Result<Look, Failure> {
    let samples = Samples::parse(&client.metrics()?);
    let mut pending = Vec::new();
    for waiting in client.pending(&PendingList::default()).take(PENDING_MAX) {
        let event = waiting?.event;
        let kind = event.kind.name().to_owned();
        pending.push([event.customer.to_string(), event.seq.to_string(), kind, event.time.to_string()]);
    }
    Ok(Look { at: Instant::now(), samples, pending })
}

/// Shows a server's load.
pub(crate) fn run(global: &Global, once: bool, every_s: u64, format: Format) -> Result<(), Failure> {
    let client = global.client_needed("top")?;
    let first = look(&client)?;
    if !once && io::stdout().is_terminal() && io::stdin().is_terminal() {
        return view::run(&client, first, Duration::from_secs(every_s));
    }
    // Rates need two looks.
    std::thread::sleep(SNAPSHOT);
    let second = look(&client)?;
    print(&figures::shown(&first, &second), format).map_err(|error| Failure::stdout(&error))
}

fn print(shown: &[Shown], format: Format) -> io::Result<()> {
    let mut records = Records::list(format, COLUMNS, stdout())?;
    for figure in shown {
        records.row(&[Cell::Text(&figure.key), Cell::Text(&figure.value)])?;
    }
    records.finish()
}
