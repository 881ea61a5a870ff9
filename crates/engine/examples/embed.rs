//! A program with a ledger of its own: `cargo run -p bursar-engine --example embed -- DIRECTORY`

use bursar_engine::core::commit::Outcome;
use bursar_engine::core::{Amount, Currencies, CustomerId, Decimals, Policy, Request, TransactionId};
use bursar_engine::embedded::EmbeddedStore;
use bursar_engine::{Ledger, LedgerOptions, new_config};
use std::{error::Error, io::Write, path::Path};

fn main() -> Result<(), Box<dyn Error>> {
    run(Path::new(&std::env::args_os().nth(1).ok_or("in which directory?")?), &mut std::io::stdout())
}

pub(crate) fn run(directory: &Path, out: &mut dyn Write) -> Result<(), Box<dyn Error>> {
    let ledger = if EmbeddedStore::exists(directory) {
        Ledger::open(directory, LedgerOptions::default())?.0
    } else {
        Ledger::create(directory, &new_config(Policy::default(), Currencies::default())?, LedgerOptions::default())?
    };
    let (ann, salary, rent) = (CustomerId::new(7), TransactionId::new(1), TransactionId::new(2));
    let amount = |text: &str| Amount::parse(text.as_bytes(), Decimals::FOUR);
    let deposit = Request::deposit(ann, salary, amount("100")?);
    let withdrawal = Request::withdrawal(ann, rent, amount("30.5")?);
    for submitted in ledger.submit_batch(vec![deposit, withdrawal, Request::dispute(ann, salary)])? {
        match submitted? {
            Outcome::Applied(event) => writeln!(out, "done as event {}, receipt {}", event.event.seq, event.hash)?,
            Outcome::AlreadyApplied(_) => writeln!(out, "was done before")?,
            Outcome::Rejected(why) => writeln!(out, "refused: {}", why.sentence(&ledger.config().currencies))?,
        }
    }
    let head = ledger.customer(ann)?.ok_or("no such customer")?;
    for (currency, account) in head.state.accounts.iter() {
        let show = |amount: Amount| amount.display(ledger.config().currencies.decimals(currency));
        writeln!(out, "customer {ann}: available {}, held {}", show(account.available), show(account.held))?;
    }
    writeln!(out, "receipt for the whole chain: {}", head.link)?;
    Ok(ledger.close()?)
}
