//! Many requests as one: rows are sent while outcomes are read.
//!
//! ```text
//!  BatchSender ─► a few pieces ─► body ══════► server
//!  BatchOutcomes ◄─ lines ◄───── answer ◄═════
//! ```
//!
//! Memory does not depend on how many rows there are: the server reads no further ahead than its outcomes are read, so
//! **the two halves belong to two tasks**. A batch is never sent again by itself: its rows took effect or not, one by
//! one, and what was answered stays.

use crate::client::Client;
use crate::error::{Error, Problem};
use crate::types::{Figures, Receipt, Submission};
use bursar_outbound::has_type;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::stream;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, Method, Response};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Pieces of a body that wait to be sent.
const PIECES_MAX: usize = 4;
/// Rows are gathered into pieces of this size.
const PIECE_BYTES: usize = 16 << 10;
/// The longest line of an answer that is believed.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Sends the rows of a batch. When it is dropped, the rows that were gathered may not be sent: call
/// [`BatchSender::finish`].
#[derive(Debug)]
pub struct BatchSender {
    pieces: mpsc::Sender<Bytes>,
    gathered: BytesMut,
}

/// A row as it is sent: here the idempotency key is a field.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    submission: &'a Submission,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
}

/// Nobody takes rows any more: the batch has ended early. [`BatchOutcomes`] says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEnded;

impl fmt::Display for BatchEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the batch has ended early")
    }
}

impl std::error::Error for BatchEnded {}

impl BatchSender {
    /// Adds a row. It may wait with others until there are enough for a piece; see [`BatchSender::flush`].
    pub async fn send(&mut self, submission: &Submission) -> Result<(), BatchEnded> {
        // Writing into memory cannot fail, and a submission is made of strings.
        let row = Row { submission, idempotency_key: submission.idempotency_key() };
        let row = serde_json::to_vec(&row).map_err(|_| BatchEnded)?;
        self.gathered.extend_from_slice(&row);
        self.gathered.extend_from_slice(b"\n");
        if self.gathered.len() >= PIECE_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Sends what was gathered.
    pub async fn flush(&mut self) -> Result<(), BatchEnded> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.pieces.send(self.gathered.split().freeze()).await.map_err(|_| BatchEnded)
    }

    /// Sends what was gathered, and says that there is no more.
    pub async fn finish(mut self) -> Result<(), BatchEnded> {
        self.flush().await
    }
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowResult {
    /// It took effect.
    Applied(Receipt),
    /// It took effect before; nothing moved now.
    AlreadyApplied,
    /// The rules refused it; nothing moved.
    Refused(RowProblem),
    /// It says nothing that could be decided, or this key may not ask for it.
    NotTaken(RowProblem),
    /// It was not decided, or that is not known: send it again.
    Undecided(RowProblem),
}

/// Why a row is not in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowProblem {
    /// The stable code.
    pub code: String,
    /// What happened.
    pub detail: String,
    /// The field that is wrong, where it is one.
    pub field: Option<String>,
    /// The figures that explain a refusal.
    pub figures: Option<Box<Figures>>,
}

/// A row, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowOutcome {
    /// The row, counted from 1 in the order in which they were sent.
    pub row: u64,
    /// What became of it.
    pub result: RowResult,
}

/// How many rows became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct BatchSummary {
    /// All of them.
    pub rows: u64,
    /// Took effect now.
    pub applied: u64,
    /// Took effect before.
    pub already_applied: u64,
    /// Were refused.
    pub rejected: u64,
    /// Say nothing that could be decided.
    pub unreadable: u64,
    /// Were not decided, or that is not known.
    pub undecided: u64,
}

#[derive(Deserialize)]
struct RawLine {
    line: Option<u64>,
    outcome: Option<String>,
    receipt: Option<Receipt>,
    code: Option<String>,
    detail: Option<String>,
    field: Option<String>,
    figures: Option<Box<Figures>>,
    summary: Option<BatchSummary>,
    problem: Option<Box<Problem>>,
}

enum Line {
    Row(RowOutcome),
    End(BatchSummary, Option<Box<Problem>>),
}

impl RawLine {
    fn into_line(self) -> Option<Line> {
        if let Some(summary) = self.summary {
            return Some(Line::End(summary, self.problem));
        }
        let (code, detail) = (self.code.unwrap_or_default(), self.detail.unwrap_or_default());
        let problem = RowProblem { code, detail, field: self.field, figures: self.figures };
        let result = match self.outcome?.as_str() {
            "applied" => RowResult::Applied(self.receipt?),
            "already_applied" => RowResult::AlreadyApplied,
            "rejected" => RowResult::Refused(problem),
            "unreadable" => RowResult::NotTaken(problem),
            "undecided" => RowResult::Undecided(problem),
            _ => return None,
        };
        Some(Line::Row(RowOutcome { row: self.line?, result }))
    }
}

/// Reads the outcomes of a batch, in order.
#[derive(Debug)]
pub struct BatchOutcomes {
    client: Client,
    response: Response,
    buffer: BytesMut,
    /// Bytes of the buffer in which no line ends.
    searched: usize,
    summary: Option<BatchSummary>,
}

impl Client {
    /// Begins a batch.
    pub async fn batch(&self) -> Result<(BatchSender, BatchOutcomes), Error> {
        let (pieces, to_send) = mpsc::channel::<Bytes>(PIECES_MAX);
        let body = stream::unfold(to_send, async |mut to_send| {
            to_send.recv().await.map(|piece| (Ok::<_, Infallible>(piece), to_send))
        });
        let call = self.call(Method::POST, "/v1/batches", &[]).header(CONTENT_TYPE, "application/x-ndjson");
        let response = self.send(call.body(Body::wrap_stream(body))).await?;
        if !has_type(response.headers(), "application/x-ndjson") {
            return Err(Error::NotUnderstood(format!("{} does not answer as Bursar does", self.server())));
        }
        let outcomes =
            BatchOutcomes { client: self.clone(), response, buffer: BytesMut::new(), searched: 0, summary: None };
        Ok((BatchSender { pieces, gathered: BytesMut::new() }, outcomes))
    }
}

impl BatchOutcomes {
    /// The next outcome; `None` after the last one, when [`BatchOutcomes::summary`] has the counts.
    ///
    /// An error says that the batch ended early, or its answer was cut off: rows without an outcome may be in effect or
    /// not. Waits as long as rows are sent slowly; it is the sender who knows how long that may take.
    pub async fn next(&mut self) -> Result<Option<RowOutcome>, Error> {
        if self.summary.is_some() {
            return Ok(None);
        }
        loop {
            if let Some(line) = self.take_line() {
                let raw = serde_json::from_slice::<RawLine>(&line).map_err(|error| self.not_understood(&error))?;
                match raw.into_line() {
                    Some(Line::Row(row)) => return Ok(Some(row)),
                    Some(Line::End(summary, None)) => {
                        self.summary = Some(summary);
                        return Ok(None);
                    }
                    Some(Line::End(_, Some(problem))) => return Err(Error::Problem(problem)),
                    None => return Err(self.not_understood(&"it is no outcome")),
                }
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(self.not_understood(&"it has no end"));
            }
            match self.response.chunk().await {
                Ok(Some(piece)) => self.buffer.extend_from_slice(&piece),
                Ok(None) => {
                    return Err(Error::CutOff(format!("{}: the outcomes have no last line", self.client.server())));
                }
                Err(error) => return Err(self.client.cut_off(&error)),
            }
        }
    }

    /// As [`BatchOutcomes::next`], for when all rows were sent: not longer than a single answer may take.
    pub async fn next_in_time(&mut self) -> Result<Option<RowOutcome>, Error> {
        let within = self.client.options().answer_within;
        timeout(within, self.next()).await.unwrap_or(Err(Error::TimedOut(within)))
    }

    /// How many rows became what; `None` before the last outcome was read.
    pub const fn summary(&self) -> Option<BatchSummary> {
        self.summary
    }

    fn take_line(&mut self) -> Option<BytesMut> {
        let Some(end) = self.buffer[self.searched..].iter().position(|&byte| byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.buffer.advance(1);
        self.searched = 0;
        Some(line)
    }

    fn not_understood(&self, why: &dyn fmt::Display) -> Error {
        Error::NotUnderstood(format!("{}: an outcome cannot be read: {why}", self.client.server()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_core::{CustomerId, TransactionId};

    #[test]
    fn a_row_carries_its_idempotency_key() {
        let dispute = Submission::dispute(CustomerId::new(1), TransactionId::new(2));
        let json = |submission: &Submission| {
            serde_json::to_string(&Row { submission, idempotency_key: submission.idempotency_key() }).unwrap()
        };
        assert_eq!(json(&dispute), r#"{"kind":"dispute","customer":"1","transaction":"2"}"#);
        let expected = r#"{"kind":"dispute","customer":"1","transaction":"2","idempotency_key":"a\"b"}"#;
        assert_eq!(json(&dispute.with_idempotency_key("a\"b")), expected);
    }
}
