//! `bursar verify --file`: an exported chain, checked without any ledger.

use crate::exit::{Failure, FailureKind};
use crate::output::{Format, stdout};
use crate::pairs::{Entry, Group, Value, print};
use crate::shown::Money;
use bursar_core::Hash;
use bursar_engine::chain_file::{ChainFileError, ChainFileFault, ChainFileReport, verify_chain_file};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

/// Verifies a chain file, and says what the chain comes to.
pub(crate) fn run(path: &Path, receipt: Option<Hash>, format: Format) -> Result<(), Failure> {
    let cannot_read = |error: &std::io::Error| {
        Failure::new(FailureKind::CannotRead, format!("{} cannot be read: {error}", path.display()))
    };
    let file = File::open(path).map_err(|error| cannot_read(&error))?;
    let report = verify_chain_file(BufReader::new(file), receipt).map_err(|error| match error {
        ChainFileError { fault: ChainFileFault::Io(error), .. } => cannot_read(&error),
        error => {
            Failure::new(FailureKind::DamageFound, format!("{}, {error} [{}]", path.display(), error.fault.code()))
                .with_hint("This is not the chain as it was exported: get the file again from where it came from.")
        }
    })?;
    print(format, &entries(&report), stdout()).map_err(|error| Failure::stdout(&error))
}

fn entries(report: &ChainFileReport) -> Vec<(&'static str, Entry)> {
    let currencies = &report.config.currencies;
    let accounts = report.state.accounts.iter().map(|(currency, account)| {
        let money = Money(currencies);
        let code = currencies.get(currency).map_or("", |currency| currency.code());
        let group: Group = vec![
            ("currency", Value::shown(&code)),
            ("available", Value::shown(&money.amount(currency, account.available))),
            ("held", Value::shown(&money.amount(currency, account.held))),
        ];
        (if code.is_empty() { "unnamed".to_owned() } else { code.to_owned() }, group)
    });
    let mut entries = vec![
        ("sound", Entry::One(Value::Flag(true))),
        ("ledger", Entry::One(Value::Text(format!("{:032x}", u128::from_be_bytes(report.config.ledger))))),
        ("client", Entry::One(Value::shown(&report.customer))),
        ("events", Entry::One(Value::Count(report.event_count))),
        ("open_events", Entry::One(Value::Count(report.open_count))),
        ("head", Entry::One(Value::shown(&report.head))),
        ("locked", Entry::One(Value::Flag(report.state.locked))),
        ("account", Entry::List(accounts.collect())),
    ];
    if let Some(seq) = report.receipt_seq {
        entries.push(("receipt_of_event", Entry::One(Value::Count(seq))));
    }
    entries
}
