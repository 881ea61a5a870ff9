//! `bursar serve`: the ledger over HTTP, until a signal.

use crate::checked::Serve;
use crate::cli::Global;
use crate::config;
use crate::exit::{Failure, FailureKind, note};
use crate::ledger_dir::{default_config, open_with_rails, with_rails};
use bursar_core::commit::Asking;
use bursar_core::{Currencies, Request};
use bursar_engine::csv::{RowBatch, RowReader};
use bursar_engine::{Ledger, LedgerOptions};
use bursar_server::keys::{Key, KeyFile, KeySet, Role};
use bursar_server::{Keys, Limits, Options, Server, logging};
use std::io::{self, Write};

/// What `--dev` begins with: the example that is shipped.
const SAMPLE: &str = include_str!("../../../../examples/data/payments.csv");

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(global: &Global, serve: &Serve, colored: bool) -> Result<(), Failure> {
    logging::start(serve.log, serve.log_format, colored);
    let dev_key = if serve.dev { Some(new_key()?) } else { None };
    let keys = match &dev_key {
        Some(key) => {
            let mut keys = KeySet::default();
            keys.add(key.entry("dev", Role::Operate, String::new()));
            Keys::Given(keys)
        }
        None => Keys::File(KeyFile::of(&global.data)),
    };
    // The address first: it is had or not at once, while a large ledger takes its time. Whoever connects early waits.
    let mut limits = Limits { rate_per_key: serve.rate_per_key, ..Limits::default() };
    if let Some(max) = serve.connections_per_address {
        limits.connections_per_address_max = max.get();
    }
    let webhooks = if serve.dev && global.config.is_none() { Vec::new() } else { config::webhooks(global)? };
    let options = Options { listen: serve.listen, keys, limits, heed_signals: true, webhooks };
    let server = Server::bind(options)?;
    let server = if serve.dev { server } else { server.with_directory(global.data.clone()) };
    #[cfg(feature = "otel")]
    let server = match bursar_server::TraceOptions::from_env() {
        Some(traces) => server.with_traces(traces),
        None => server,
    };
    #[cfg(feature = "tls")]
    let (server, scheme) = match &serve.tls {
        Some(files) => (server.with_tls(files.clone())?, "https"),
        None => (server, "http"),
    };
    #[cfg(not(feature = "tls"))]
    let scheme = "http";
    let ledger = if serve.dev { sample_ledger(global)? } else { open_with_rails(global)? };
    warn_of_pending(&ledger)?;
    let url = format!("{scheme}://{}", server.address());
    let ready = || {
        let mut out = io::stdout().lock();
        writeln!(out, "{url}")?;
        out.flush()?;
        if let Some(key) = dev_key.filter(|_| !global.quiet) {
            note(&commands_to_try(&url, &key.reveal()));
        }
        Ok(())
    };
    Ok(server.run(ledger, ready)?)
}

fn new_key() -> Result<Key, Failure> {
    Key::generate()
        .map_err(|error| Failure::new(FailureKind::CannotRead, format!("the system gives no random bytes: {error}")))
}

/// A ledger in memory. Only settings that were named count: none lie in its directory.
fn sample_ledger(global: &Global) -> Result<Ledger, Failure> {
    if global.config.is_none() {
        let ledger = Ledger::in_memory(&default_config()?, LedgerOptions::default())?;
        ledger.submit_batch(sample_requests(&ledger.config().currencies))?;
        return Ok(ledger);
    }
    let options = with_rails(LedgerOptions::default(), &config::with_secrets(global)?)?;
    let ledger = Ledger::in_memory(&default_config()?, options)?;
    // What goes through a rail is answered when the rail has answered, and nobody waits for that here.
    ledger.submit_then(sample_requests(&ledger.config().currencies), drop)?;
    Ok(ledger)
}

/// Says what will not come to its end by itself.
fn warn_of_pending(ledger: &Ledger) -> Result<(), Failure> {
    for waiting in ledger.pending()? {
        let (event, customer) = (waiting.pending.linked.id(), waiting.pending.linked.event.customer);
        let rail = waiting.pending.rail.number();
        if !waiting.is_configured {
            tracing::warn!(%event, %customer, rail, "an event waits for a rail that is not in bursar.toml; its customer stays locked");
        } else if waiting.pending.asking == Asking::Stopped {
            tracing::warn!(%event, %customer, rail, "an event waits for its rail since before its deadline; an operator has to settle it");
        }
    }
    Ok(())
}

/// What of the example can be read; a part of it is there to show what cannot.
fn sample_requests(currencies: &Currencies) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut batch = RowBatch::new();
    if let Ok(mut reader) = RowReader::open(SAMPLE.as_bytes(), currencies) {
        while reader.next_batch(&mut batch).unwrap_or(false) {
            requests.extend(batch.rows().iter().filter_map(|row| row.content.ok()));
        }
    }
    requests
}

fn commands_to_try(url: &str, key: &str) -> String {
    format!(
        "\
A ledger in memory, with sample data; it is gone when the service ends. Try:

  export KEY={key}
  curl -H \"Authorization: Bearer $KEY\" {url}/v1/customers
  curl -H \"Authorization: Bearer $KEY\" {url}/v1/customers/1/events
  curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' {url}/v1/requests \\
    -d '{{\"kind\":\"deposit\",\"customer\":\"1\",\"transaction\":\"1001\",\"amount\":\"12.5\"}}'
  printf 'type,client,tx,amount\\ndeposit,1,1002,10\\nwithdrawal,1,1003,5000\\n' |
    curl -H \"Authorization: Bearer $KEY\" -H 'Content-Type: text/csv' {url}/v1/batches --data-binary @-
  curl -H \"Authorization: Bearer $KEY\" {url}/v1/customers/1/chain > 1.chain && bursar verify --file 1.chain
  curl {url}/openapi.json

{url}/docs describes all of it, in a browser.
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_there() {
        assert!(sample_requests(&Currencies::default()).len() > 30);
    }
}
