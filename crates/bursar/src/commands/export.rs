//! `bursar export`: one customer's chain as a file that can be checked by itself.

use super::unknown_customer;
use super::verify_file::check;
use crate::book::{Book, with_book};
use crate::cli::Global;
use crate::exit::{Failure, note};
use crate::output::stdout;
use crate::progress::grouped;
use bursar_client::blocking::ChainReader;
use bursar_core::CustomerId;
use bursar_engine::chain_file::{ExportError, export_chain};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

/// Writes the chain to a file, or to standard output.
pub(crate) fn run(global: &Global, customer: CustomerId, to: Option<&Path>) -> Result<(), Failure> {
    let write_error = |error: &io::Error| to.map_or_else(|| Failure::stdout(error), |path| Failure::write(path, error));
    let create = || -> Result<Box<dyn Write>, Failure> {
        Ok(match to {
            Some(path) => Box::new(BufWriter::new(File::create(path).map_err(|error| write_error(&error))?)),
            None => Box::new(stdout()),
        })
    };
    let (event_count, head) = with_book(global, |book| match book {
        Book::Directory(ledger) => {
            // Asked first, so that no file is made for somebody who has no chain.
            if ledger.customer(customer)?.is_none() {
                return Err(unknown_customer(customer));
            }
            let mut out = create()?;
            let exported = export_chain(ledger, customer, &mut out).map_err(|error| match error {
                ExportError::UnknownCustomer { customer } => unknown_customer(customer),
                ExportError::Read(error) => error.into(),
                ExportError::Write(error) => write_error(&error),
            })?;
            out.flush().map_err(|error| write_error(&error))?;
            Ok((exported.event_count, exported.head))
        }
        Book::Server(remote) => {
            let chain = remote.chain_file(customer)?.ok_or_else(|| unknown_customer(customer))?;
            let mut copied = Copied { chain, out: create()?, write_error: None };
            // What comes over a network is checked while it is written.
            let checked = check(&mut copied, &customer.to_string(), None);
            if let Some(error) = copied.write_error {
                return Err(write_error(&error));
            }
            if let Some(error) = copied.chain.error() {
                return Err(error.clone().into());
            }
            let report = checked?;
            copied.out.flush().map_err(|error| write_error(&error))?;
            Ok((report.event_count, report.head))
        }
    })?;
    if !global.quiet && to.is_some() {
        note(&format_args!("{} events; head hash {head}", grouped(event_count)));
    }
    Ok(())
}

/// Writes down what is read.
struct Copied {
    chain: ChainReader,
    out: Box<dyn Write>,
    write_error: Option<io::Error>,
}

impl Read for Copied {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.chain.read(into)?;
        self.out.write_all(&into[..count]).map_err(|error| {
            self.write_error = Some(error);
            io::Error::other("the chain cannot be written")
        })?;
        Ok(count)
    }
}
