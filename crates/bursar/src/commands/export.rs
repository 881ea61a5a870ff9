//! `bursar export`: one customer's chain as a file that can be checked by itself.

use super::unknown_customer;
use crate::cli::Global;
use crate::exit::{Failure, note};
use crate::ledger_dir::with_ledger;
use crate::output::stdout;
use crate::progress::grouped;
use bursar_core::CustomerId;
use bursar_engine::chain_file::{ExportError, export_chain};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the chain to a file, or to standard output.
pub(crate) fn run(global: &Global, customer: CustomerId, to: Option<&Path>) -> Result<(), Failure> {
    let write_error = |error: &io::Error| to.map_or_else(|| Failure::stdout(error), |path| Failure::write(path, error));
    let exported = with_ledger(global, |ledger| {
        // Asked first, so that no file is made for somebody who has no chain.
        if ledger.customer(customer)?.is_none() {
            return Err(unknown_customer(customer));
        }
        let mut out: Box<dyn Write> = match to {
            Some(path) => Box::new(BufWriter::new(File::create(path).map_err(|error| write_error(&error))?)),
            None => Box::new(stdout()),
        };
        let exported = export_chain(ledger, customer, &mut out).map_err(|error| match error {
            ExportError::UnknownCustomer { customer } => unknown_customer(customer),
            ExportError::Read(error) => error.into(),
            ExportError::Write(error) => write_error(&error),
        })?;
        out.flush().map_err(|error| write_error(&error))?;
        Ok(exported)
    })?;
    if !global.quiet && to.is_some() {
        note(&format_args!("{} events; head hash {}", grouped(exported.event_count), exported.head));
    }
    Ok(())
}
