//! `bursar verify --file`, and `bursar verify CLIENT --server`: a chain, checked without any ledger.

use super::unknown_customer;
use crate::book::remote::Remote;
use crate::exit::{Failure, FailureKind};
use crate::output::{Format, stdout};
use crate::pairs::{Entry, Group, Value, print};
use crate::shown::Money;
use bursar_core::{CustomerId, Hash};
use bursar_engine::chain_file::{ChainFileError, ChainFileFault, ChainFileReport, verify_chain_file};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Verifies a chain file, and says what the chain comes to.
pub(crate) fn run(path: &Path, receipt: Option<Hash>, format: Format) -> Result<(), Failure> {
    let file = File::open(path).map_err(|error| cannot_read(&path.display(), &error))?;
    let report = check(file, &path.display().to_string(), receipt)?;
    print(format, &entries(&report), stdout()).map_err(|error| Failure::stdout(&error))
}

/// The same of a server's customer: its chain is downloaded, and nothing that the server says of it is believed.
pub(crate) fn run_remote(
    remote: &Remote,
    customer: CustomerId,
    receipt: Option<Hash>,
    format: Format,
) -> Result<(), Failure> {
    let mut chain = remote.chain_file(customer)?.ok_or_else(|| unknown_customer(customer))?;
    let name = format!("the chain of {customer}");
    let checked = check(&mut chain, &name, receipt);
    if let Some(error) = chain.error() {
        return Err(error.clone().into());
    }
    let report = checked?;
    if report.customer != customer {
        let sentence = format!("{name} is another's: it is that of {}", report.customer);
        return Err(Failure::new(FailureKind::DamageFound, sentence).with_hint("Do not trust this server."));
    }
    print(format, &entries(&report), stdout()).map_err(|error| Failure::stdout(&error))
}

/// Checks a chain, wherever it comes from.
pub(super) fn check(input: impl Read, name: &str, receipt: Option<Hash>) -> Result<ChainFileReport, Failure> {
    verify_chain_file(BufReader::new(input), receipt).map_err(|error| match error {
        ChainFileError { fault: ChainFileFault::Io(error), .. } => cannot_read(&name, &error),
        error => Failure::new(FailureKind::DamageFound, format!("{name}, {error} [{}]", error.fault.code()))
            .with_hint("This is not the chain as it was exported: get the file again from where it came from."),
    })
}

fn cannot_read(name: &dyn Display, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::CannotRead, format!("{name} cannot be read: {error}"))
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
