//! One customer's chain as a file that proves itself: written by [`export_chain`], checked by
//! [`verify_chain_file`] without the ledger.
//!
//! The file is text, one JSON object per line: a header with all that the ledger's digest is made of, then the
//! events with every field that is hashed, then the end with the head hash and the accounts. There is one way to
//! write each line, so a changed byte is found even where it changes no meaning. Amounts are decimal strings, never
//! JSON numbers. `docs/format.md`, "Chain files", has every field.

mod error;
mod line;
#[cfg(test)]
mod tests;

pub use error::{ChainFileError, ChainFileFault, ExportError};

use crate::ledger::Ledger;
use crate::store::ReadRange;
use bursar_core::{
    ChainCheck, CustomerId, CustomerState, EventStatus, Hash, Head, LedgerConfig, TransactionId, TransactionState,
};
use line::{End, Header};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};

/// How many events are read from the ledger at once.
const EVENTS_AT_ONCE: usize = 1 << 16;
/// No line is longer, in bytes.
const LINE_BYTES_MAX: usize = 1 << 16;

/// What an export wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// How many events.
    pub event_count: u64,
    /// The head hash that the file ends with: a receipt of all of it.
    pub head: Hash,
}

/// Writes a customer's chain, up to its newest event at the moment of the call.
pub fn export_chain(ledger: &Ledger, customer: CustomerId, out: impl Write) -> Result<Exported, ExportError> {
    let Some(newest) = ledger.customer(customer)? else { return Err(ExportError::UnknownCustomer { customer }) };
    let last_seq = newest.seq + newest.open.len() as u64;
    let mut out = std::io::BufWriter::new(out);
    let config = ledger.config();
    let mut text = String::new();
    line::put_header(&mut text, &Header { config: config.clone(), customer });
    let mut head = Head::start(&config.digest(), customer);
    let mut from_seq = 1;
    while from_seq <= last_seq {
        let range = ReadRange { from_seq, to_seq: last_seq, limit: EVENTS_AT_ONCE, newest_first: false };
        let entries = ledger.chain(customer, range)?;
        if entries.is_empty() {
            break;
        }
        from_seq += entries.len() as u64;
        for entry in entries {
            line::put_event(&mut text, config, &entry.linked, &entry.status);
            head.take(entry.linked, &entry.status);
            if text.len() >= LINE_BYTES_MAX {
                out.write_all(text.as_bytes())?;
                text.clear();
            }
        }
    }
    let event_count = head.seq + head.open.len() as u64;
    let head_hash = head.link;
    line::put_end(&mut text, config, &End::of(&head));
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(Exported { event_count, head: head_hash })
}

/// What a sound chain file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainFileReport {
    /// The ledger's identity, policy and currencies. Whether it is the ledger that one thinks it is, says its id.
    pub config: LedgerConfig,
    /// Whose chain it is.
    pub customer: CustomerId,
    /// How many events there are, open ones included.
    pub event_count: u64,
    /// How many of them are open.
    pub open_count: u64,
    /// The head hash: it fixes the whole chain but its open events.
    pub head: Hash,
    /// The state by the newest event in effect.
    pub state: CustomerState,
    /// Behind which event the receipt was given, if there was one to compare with.
    pub receipt_seq: Option<u64>,
}

/// Verifies a chain file: every link, every hash, every account by the rules. `receipt` is a head hash that was
/// handed out at some time: the chain must contain it, so the history up to there is the one it was given for.
pub fn verify_chain_file(input: impl Read, receipt: Option<Hash>) -> Result<ChainFileReport, ChainFileError> {
    let mut lines = Lines { input: BufReader::with_capacity(1 << 20, input), bytes: Vec::new(), number: 0 };
    let Some(text) = lines.next()? else { return Err(lines.error(None, ChainFileFault::Truncated)) };
    let header = line::header(text).map_err(|fault| lines.error_of(fault))?;
    let Header { config, customer } = header;
    let mut check = ChainCheck::new(&config.digest(), customer);
    let mut transactions: HashMap<TransactionId, TransactionState> = HashMap::new();
    let mut receipt_seq = None;
    loop {
        let Some(text) = lines.next()? else { return Err(lines.error(None, ChainFileFault::Truncated)) };
        if line::is_end(text) {
            let end = End::of(check.head());
            line::check_end(text, &config, &end).map_err(|fault| lines.error_of(fault))?;
            break;
        }
        let (linked, status) = line::event(text, &config, customer).map_err(|fault| lines.error_of(fault))?;
        let transaction = linked.event.transaction;
        let known = transaction.and_then(|transaction| transactions.get(&transaction).copied());
        match check.follow(&config, known, &linked, &status) {
            Ok(state) => transactions.extend(transaction.zip(state)),
            Err(fault) => {
                let field = line::field_of(&fault);
                return Err(lines.error(Some(field), ChainFileFault::Chain(fault)));
            }
        }
        // The receipt of an event that was settled by hand is its own hash, and the head covers the reason as well.
        let is_receipt = receipt == Some(check.head().link) || (receipt == Some(linked.hash) && status.is_done());
        if is_receipt && status != EventStatus::Started {
            receipt_seq = Some(linked.event.seq);
        }
    }
    if lines.next()?.is_some() {
        return Err(lines.error(None, ChainFileFault::BehindEnd));
    }
    if let Some(receipt) = receipt.filter(|_| receipt_seq.is_none()) {
        return Err(lines.error(None, ChainFileFault::OtherReceipt { receipt }));
    }
    let head = check.head();
    Ok(ChainFileReport {
        config,
        customer,
        event_count: head.seq + head.open.len() as u64,
        open_count: head.open.len() as u64,
        head: head.link,
        state: head.state.clone(),
        receipt_seq,
    })
}

/// The lines of a file, one in memory at a time.
struct Lines<R> {
    input: BufReader<R>,
    bytes: Vec<u8>,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// The next line without its end; `None` behind the last.
    fn next(&mut self) -> Result<Option<&str>, ChainFileError> {
        self.bytes.clear();
        self.number += 1;
        let mut limited = self.input.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        if let Err(error) = limited.read_until(b'\n', &mut self.bytes) {
            return Err(self.error(None, ChainFileFault::Io(error)));
        }
        if self.bytes.is_empty() {
            return Ok(None);
        }
        if self.bytes.pop() != Some(b'\n') {
            let fault = if self.bytes.len() >= LINE_BYTES_MAX {
                ChainFileFault::LineTooLong
            } else {
                ChainFileFault::Truncated
            };
            return Err(self.error(None, fault));
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => {
                let column = error.valid_up_to() as u64 + 1;
                Err(ChainFileError { line: self.number, column, field: None, fault: ChainFileFault::NotUtf8 })
            }
        }
    }

    /// An error on the current line, at a field of it if that is known.
    fn error(&self, field: Option<&'static str>, fault: ChainFileFault) -> ChainFileError {
        let column = field.and_then(|field| {
            let needle = format!("\"{field}\":");
            memchr::memmem::find(&self.bytes, needle.as_bytes()).map(|at| (at + needle.len()) as u64 + 1)
        });
        ChainFileError { line: self.number, column: column.unwrap_or(1), field, fault }
    }

    fn error_of(&self, fault: line::LineFault) -> ChainFileError {
        match fault {
            line::LineFault::Field(field, fault) => self.error(Some(field), fault),
            line::LineFault::At(column, fault) => ChainFileError { line: self.number, column, field: None, fault },
        }
    }
}
