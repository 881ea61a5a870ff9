//! `POST /v1/batches`: a body of any length, a request per row, an outcome per row, in order, as they become durable.
//!
//! ```text
//!  body ─► lines (NDJSON, a task) ────────────┐            Item: a group with its      ┌─► outcomes ─► body
//!      └─► pump ─► RowReader (CSV, a thread) ─┴─► groups ─► outcomes to come, or the ──┘   (polled by hyper when
//!                                               │           end; GROUPS_MAX of them        the client takes more)
//!                                               └─► Ledger::submit_then
//! ```
//!
//! Back pressure needs no code of its own: hyper asks for more of the answer only when the client takes it; groups that
//! nobody asks for fill their channel; whoever makes groups then waits, and nothing more is read from the client.
//!
//! The last line says how many rows became what, and why the batch ended early if it did. An answer without it was cut
//! off; what it says of rows is true all the same.

use crate::api::body::check_type;
use crate::api::outcomes::{BatchLine, LINE_BYTES, RowOutcome, Summary, put_end, put_in_effect, put_not_in_effect};
use crate::api::requests::role_of;
use crate::door::Caller;
use crate::metrics::Held;
use crate::params::{self, Params};
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::{Service, Stage};
use crate::wire::{Fault, RequestBody, read_request};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bursar_core::Request;
use bursar_core::commit::{Outcome, Terms};
use bursar_engine::csv::{Limits as CsvLimits, OpenError, RowBatch, RowErrorKind, RowReader};
use bursar_engine::{SubmitError, Submitted};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::timeout;
use utoipa::{IntoParams, ToSchema};

/// Rows that are handed to the ledger together; as many as it decides at once.
const GROUP_ROWS_MAX: usize = 1_024;
/// Groups of a batch that are under way.
const GROUPS_MAX: usize = 4;
/// Pieces of a body that wait for the thread that reads CSV.
const PIECES_MAX: usize = 2;
/// How soon a group that found the queue full is handed in again.
const AGAIN: Duration = Duration::from_millis(2);
/// How long what a client still sends is taken and thrown away after the batch has ended.
const LINGER: Duration = Duration::from_secs(2);
const NDJSON: &str = "application/x-ndjson";
const CSV: &str = "text/csv";

/// What `POST /v1/batches` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct BatchParams {
    /// `all` (default): a line for each row. `not_applied`: only for rows that are not in effect.
    #[param(value_type = Option<OutcomesName>)]
    outcomes: Option<String>,
}

/// Which rows are answered with a line of their own.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "it is there for the document")]
pub(crate) enum OutcomesName {
    All,
    NotApplied,
}

/// Submit many requests.
///
/// The body is NDJSON (`application/x-ndjson`, an object per line as for a single request) or CSV (`text/csv`, as for
/// `bursar ingest`, with the header `type,client,tx,amount` and optionally `currency`), of any length. Rows are decided
/// in order. The answer begins at once: a line for each row, in order, once its outcome is durable, and a last line
/// with the counts. Read it while you send: the service reads no further ahead than its answers are read. Not all or
/// nothing: each row has an outcome of its own, and what was answered stays, whatever happens later.
#[utoipa::path(
    post, path = "/v1/batches", tag = "requests", operation_id = "submitBatch", params(BatchParams),
    request_body(content(
        (RequestBody = "application/x-ndjson"),
        (String = "text/csv", example = "type,client,tx,amount\ndeposit,1,1,2.5\n"),
    )),
    responses(
        (status = 200, description = "A JSON object per line", body = BatchLine, content_type = "application/x-ndjson"),
        (status = "4XX", description = "Nothing was decided", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Nothing was decided", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn submit(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Params(params): Params<BatchParams>,
    http: HttpRequest,
) -> Result<Response, Problem> {
    let only_not_applied = match params.outcomes.as_deref() {
        None | Some("all") => false,
        Some("not_applied") => true,
        Some(_) => return Err(params::bad("outcomes must be all or not_applied")),
    };
    let (parts, body) = http.into_parts();
    let content_type = check_type(&parts.headers, &[NDJSON, CSV])?;
    if service.is_stopping() {
        return Err(Problem::plain(ServiceProblem::Stopping));
    }
    let Ok(permit) = service.batches.clone().try_acquire_owned() else {
        return Err(Problem::service(ServiceProblem::Busy, "too many batches are under way"));
    };
    let held = Arc::new((permit, Held::one(&service.metrics.batches)));
    let (items, to_answer) = mpsc::channel(GROUPS_MAX);
    let groups =
        Groups { service: service.clone(), caller, items, lines: Vec::new(), requests: Vec::new(), terms: Vec::new() };
    if content_type == CSV {
        csv(groups, body, held.clone()).await?;
    } else {
        let held = held.clone();
        drop(tokio::spawn(async move {
            ndjson(groups, body).await;
            drop(held);
        }));
    }
    let answers = Answers {
        service,
        to_answer,
        only_not_applied,
        summary: Summary::default(),
        buffer: BytesMut::new(),
        is_over: false,
        _held: held,
    };
    let lines = stream::unfold(answers, |mut answers| async move {
        answers.next().await.map(|bytes| (Ok::<_, Infallible>(bytes), answers))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response.headers_mut().insert(CONTENT_TYPE, const { HeaderValue::from_static(NDJSON) });
    Ok(response)
}

type HeldPlace = Arc<(OwnedSemaphorePermit, Held)>;

/// A row that was read: what to say of it if it is not handed in.
#[derive(Debug)]
struct Line {
    number: u64,
    /// `None`: it is handed in, as the next of its group.
    problem: Option<Problem>,
}

/// What the answer is made of, in order.
#[derive(Debug)]
enum Item {
    /// Rows, and the outcomes of those that were handed in.
    Group { lines: Vec<Line>, outcomes: oneshot::Receiver<Vec<Submitted>> },
    /// There are no more.
    End(Option<Problem>),
}

/// Makes groups of rows and hands them in.
struct Groups {
    service: Arc<Service>,
    caller: Caller,
    items: mpsc::Sender<Item>,
    lines: Vec<Line>,
    requests: Vec<Request>,
    /// Those of some of the requests, by place.
    terms: Vec<(usize, Terms)>,
}

/// Nobody reads the answer any more, or the engine takes no more: there is nothing left to do.
struct Over;

impl Groups {
    /// Adds a row. `true`: the group is full.
    fn add(&mut self, number: u64, read: Result<(Request, Terms), Problem>) -> bool {
        let allowed = read.and_then(|(request, terms)| self.caller.needs(role_of(&request)).map(|()| (request, terms)));
        let problem = match allowed {
            Ok((request, terms)) => {
                if !terms.is_empty() {
                    self.terms.push((self.requests.len(), terms));
                }
                self.requests.push(request);
                None
            }
            Err(problem) => Some(problem),
        };
        self.lines.push(Line { number, problem });
        self.lines.len() >= GROUP_ROWS_MAX
    }

    /// Hands in what was gathered, if the queue has room for it. `Err` with what to say if it never will.
    fn try_hand_in(&mut self) -> Result<Option<Item>, Problem> {
        if self.lines.is_empty() {
            return Ok(None);
        }
        let (rates, key) = (&self.service.rates, self.caller.key);
        if !rates.is_ready(key, Instant::now()) {
            let is_over = self.service.is_stopping();
            return if is_over { Err(Problem::plain(ServiceProblem::Stopping)) } else { Ok(None) };
        }
        // The queue takes all or nothing; a group that is refused is handed in again.
        match self.service.hand_in(self.requests.clone(), self.terms.clone()) {
            Ok(outcomes) => {
                rates.charge(key, self.lines.len(), Instant::now());
                self.requests.clear();
                self.terms.clear();
                Ok(Some(Item::Group { lines: std::mem::take(&mut self.lines), outcomes }))
            }
            Err(SubmitError::Busy) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn hand_in(&mut self) -> Result<(), Over> {
        while !self.lines.is_empty() {
            // Room for the answer first: what is handed in is answered.
            let Ok(room) = self.items.clone().reserve_owned().await else { return Err(Over) };
            match self.try_hand_in() {
                Ok(Some(item)) => drop(room.send(item)),
                Ok(None) => {
                    drop(room);
                    tokio::time::sleep(AGAIN).await;
                }
                Err(problem) => {
                    room.send(Item::End(Some(problem)));
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    fn hand_in_blocking(&mut self) -> Result<(), Over> {
        while !self.lines.is_empty() {
            match self.try_hand_in() {
                Ok(Some(item)) => self.items.blocking_send(item).map_err(|_| Over)?,
                Ok(None) if self.items.is_closed() => return Err(Over),
                Ok(None) => std::thread::sleep(AGAIN),
                Err(problem) => {
                    self.end_blocking(Some(problem));
                    return Err(Over);
                }
            }
        }
        Ok(())
    }

    fn end_blocking(&self, problem: Option<Problem>) {
        // If nobody reads the answer any more, nobody misses its end.
        drop(self.items.blocking_send(Item::End(problem)));
    }
}

/// The pieces of a body, none of which may take too long.
struct Pieces {
    service: Arc<Service>,
    body: axum::body::BodyDataStream,
}

impl Pieces {
    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let mut stage = self.service.stage.subscribe();
        let wait = self.service.limits.batch_wait;
        let piece = tokio::select! {
            piece = timeout(wait, self.body.next()) => piece,
            _ = stage.wait_for(|stage| *stage > Stage::Running) => return Err(Problem::plain(ServiceProblem::Stopping)),
        };
        match piece {
            Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
            Ok(Some(Err(_))) => Err(Problem::plain(ServiceProblem::BodyCutOff)),
            Ok(None) => Ok(None),
            Err(_) => {
                Err(Problem::service(ServiceProblem::TooSlow, format!("no row came for {} seconds", wait.as_secs())))
            }
        }
    }
}

impl Pieces {
    /// Takes what still comes, for a while, when the batch has ended early. Were the connection closed over it, the
    /// system would reset it, and the client could lose answers that it has not read yet.
    async fn linger(mut self) {
        let rest = async { while let Some(Ok(_)) = self.body.next().await {} };
        // Whoever goes on sending has had its time.
        drop(timeout(LINGER, rest).await);
    }
}

/// Reads lines of JSON and hands them in, as they come.
async fn ndjson(mut groups: Groups, body: Body) {
    let mut pieces = Pieces { service: groups.service.clone(), body: body.into_data_stream() };
    let mut lines = Lines::new(groups.service.limits.row_bytes_max);
    let end = loop {
        let piece = match pieces.next().await {
            Ok(piece) => piece,
            Err(problem) => break Some(problem),
        };
        let is_last = piece.is_none();
        lines.add(piece.unwrap_or_default(), is_last);
        while let Some((number, line)) = lines.next() {
            let read = match line {
                Ok(line) => {
                    read_request(&line, groups.service.ledger.config()).map_err(crate::wire::ReadFault::into_problem)
                }
                Err(fault) => Err(fault.into()),
            };
            if groups.add(number, read) && groups.hand_in().await.is_err() {
                return;
            }
        }
        // What is there is not kept waiting for more.
        if groups.hand_in().await.is_err() {
            return;
        }
        if is_last {
            break None;
        }
    };
    let ended_early = end.is_some();
    // If nobody reads the answer any more, nobody misses its end.
    drop(groups.items.send(Item::End(end)).await);
    drop(groups);
    if ended_early {
        pieces.linger().await;
    }
}

/// Cuts pieces of a body into lines. What it keeps is bounded: part of one line, and one piece.
struct Lines {
    row_bytes_max: usize,
    number: u64,
    /// The beginning of a line whose end has not come.
    part: BytesMut,
    piece: Bytes,
    is_last: bool,
    /// The line is too long; its end has not come.
    skipping: bool,
}

impl Lines {
    fn new(row_bytes_max: usize) -> Self {
        Self { row_bytes_max, number: 0, part: BytesMut::new(), piece: Bytes::new(), is_last: false, skipping: false }
    }

    fn add(&mut self, piece: Bytes, is_last: bool) {
        self.piece = piece;
        self.is_last = is_last;
    }

    /// The next line that is not blank, with its number; `None`: more must be added first.
    fn next(&mut self) -> Option<(u64, Result<Bytes, Fault>)> {
        loop {
            let end = self.piece.iter().position(|&byte| byte == b'\n');
            let Some(end) = end.or_else(|| (self.is_last && self.has_rest()).then_some(self.piece.len())) else {
                self.keep();
                return None;
            };
            let line = self.piece.split_to(end);
            if self.piece.has_remaining() {
                self.piece.advance(1);
            } else {
                self.is_last = false;
            }
            self.number += 1;
            let is_long = std::mem::take(&mut self.skipping) || self.part.len() + line.len() > self.row_bytes_max;
            if is_long {
                self.part.clear();
                let kind =
                    RowErrorKind::RowTooLong { bytes_max: u32::try_from(self.row_bytes_max).unwrap_or(u32::MAX) };
                return Some((self.number, Err(Fault { kind, field: None, at: None })));
            }
            let line = if self.part.is_empty() {
                line
            } else {
                self.part.extend_from_slice(&line);
                self.part.split().freeze()
            };
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Some((self.number, Ok(line)));
            }
        }
    }

    fn has_rest(&self) -> bool {
        self.skipping || !self.part.is_empty() || self.piece.has_remaining()
    }

    /// Keeps the beginning of a line, unless it is too long already.
    fn keep(&mut self) {
        let piece = std::mem::take(&mut self.piece);
        if self.skipping || self.part.len() + piece.len() > self.row_bytes_max {
            self.skipping = true;
            self.part.clear();
        } else {
            self.part.extend_from_slice(&piece);
        }
    }
}

/// Reads CSV on a thread of its own, since its reader waits for what it reads. Returns when the header was read.
async fn csv(groups: Groups, body: Body, held: HeldPlace) -> Result<(), Problem> {
    let (to_thread, pieces) = mpsc::channel(PIECES_MAX);
    let mut body = Pieces { service: groups.service.clone(), body: body.into_data_stream() };
    drop(tokio::spawn(async move {
        loop {
            let piece = body.next().await;
            let (is_last, ended_early) = (matches!(piece, Ok(None)), piece.is_err());
            if to_thread.send(piece).await.is_err() || is_last {
                return;
            }
            if ended_early {
                drop(to_thread);
                return body.linger().await;
            }
        }
    }));
    let (opened, header) = oneshot::channel();
    drop(tokio::task::spawn_blocking(move || {
        let csv_limits = CsvLimits { row_bytes_max: groups.service.limits.row_bytes_max, ..CsvLimits::default() };
        let source = PieceReader { pieces, piece: Bytes::new(), failure: None };
        let opened_reader = RowReader::with_limits(source, groups.service.currencies(), csv_limits);
        let reader = match opened_reader {
            Ok(reader) => reader,
            Err(error) => {
                // If nobody waits for it, the client is gone.
                drop(opened.send(Err(error)));
                return;
            }
        };
        drop(opened.send(Ok(())));
        read_rows(groups, reader);
        drop(held);
    }));
    match header.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(OpenError::Header(error))) => Err(Problem::Header(Arc::new(error))),
        Ok(Err(OpenError::Read(error))) => Err(source_problem(&error)),
        Err(_) => Err(Problem::service(ServiceProblem::Internal, "the thread that reads a batch has ended")),
    }
}

fn read_rows(mut groups: Groups, mut reader: RowReader<PieceReader>) {
    let mut batch = RowBatch::new();
    let end = loop {
        match reader.next_batch(&mut batch) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(reader.input().failure.clone().unwrap_or_else(|| source_problem(&error))),
        }
        for row in batch.rows() {
            let read = row.content.map(|request| (request, Terms::default()));
            let read = read.map_err(|error| Problem::Unreadable(error.into()));
            if groups.add(row.line, read) && groups.hand_in_blocking().is_err() {
                return;
            }
        }
        if groups.hand_in_blocking().is_err() {
            return;
        }
    };
    groups.end_blocking(end);
}

/// Why a body could not be read; what it carries was made by [`PieceReader`].
fn source_problem(error: &io::Error) -> Problem {
    let carried = error.get_ref().and_then(|inner| inner.downcast_ref::<Carried>());
    carried.map_or_else(|| Problem::plain(ServiceProblem::BodyCutOff), |carried| carried.0.clone())
}

#[derive(Debug)]
struct Carried(Problem);

impl std::fmt::Display for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.info().code)
    }
}

impl std::error::Error for Carried {}

/// The pieces of a body as something to read from.
struct PieceReader {
    pieces: mpsc::Receiver<Result<Option<Bytes>, Problem>>,
    piece: Bytes,
    failure: Option<Problem>,
}

impl io::Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.pieces.blocking_recv() {
                Some(Ok(Some(piece))) => self.piece = piece,
                Some(Ok(None)) => return Ok(0),
                Some(Err(problem)) => {
                    self.failure = Some(problem.clone());
                    return Err(io::Error::other(Carried(problem)));
                }
                None => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Writes the lines of the answer.
struct Answers {
    service: Arc<Service>,
    to_answer: mpsc::Receiver<Item>,
    only_not_applied: bool,
    summary: Summary,
    buffer: BytesMut,
    is_over: bool,
    _held: HeldPlace,
}

impl Answers {
    /// The next lines; `None` behind the last one.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.is_over {
            match self.to_answer.recv().await {
                Some(Item::Group { lines, outcomes }) => {
                    // The ledger drops a call only when it is closed.
                    let outcomes = outcomes.await.unwrap_or_default();
                    self.write_group(lines, outcomes);
                }
                Some(Item::End(problem)) => self.write_end(problem.as_ref()),
                // Whoever made groups is gone without an end: a fault of the program.
                None => self.write_end(Some(&Problem::service(ServiceProblem::Internal, "a batch lost its rows"))),
            }
            if !self.buffer.is_empty() {
                return Some(self.buffer.split().freeze());
            }
        }
        None
    }

    fn write_group(&mut self, lines: Vec<Line>, outcomes: Vec<Submitted>) {
        let Self { service, buffer, summary, only_not_applied, .. } = self;
        let currencies = service.currencies();
        if !*only_not_applied {
            buffer.reserve(lines.len() * LINE_BYTES);
        }
        let mut outcomes = outcomes.into_iter();
        for Line { number, problem } in lines {
            let (outcome, problem) = if let Some(problem) = problem {
                service.metrics.unreadable();
                (RowOutcome::Unreadable, problem)
            } else {
                let submitted = outcomes.next().unwrap_or(Err(SubmitError::Closed));
                service.metrics.submitted(&submitted);
                let (outcome, receipt) = match submitted {
                    Ok(Outcome::Applied(receipt)) => (RowOutcome::Applied, Ok(Some(receipt))),
                    Ok(Outcome::AlreadyApplied(receipt)) => (RowOutcome::AlreadyApplied, Ok(receipt)),
                    Ok(Outcome::Rejected(rejection)) => (RowOutcome::Rejected, Err(Problem::Rejected(rejection))),
                    Err(error) => {
                        let problem = Problem::from(error);
                        service.notice(&problem);
                        (RowOutcome::Undecided, Err(problem))
                    }
                };
                match receipt {
                    Ok(receipt) => {
                        summary.count(outcome);
                        if !*only_not_applied {
                            put_in_effect(buffer, number, outcome, receipt.as_ref(), currencies);
                        }
                        continue;
                    }
                    Err(problem) => (outcome, problem),
                }
            };
            summary.count(outcome);
            put_not_in_effect(buffer, number, outcome, &problem, currencies);
        }
    }

    fn write_end(&mut self, problem: Option<&Problem>) {
        self.is_over = true;
        if let Some(problem) = problem {
            self.service.metrics.problem(problem);
            self.service.notice(problem);
            if let Some(cause) = problem.cause() {
                tracing::error!(code = problem.info().code, "a batch ended early: {cause}");
            }
        }
        put_end(&mut self.buffer, self.summary, problem, self.service.currencies());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of a body that comes in pieces of this size.
    fn cut(body: &[u8], piece_bytes: usize, row_bytes_max: usize) -> Vec<(u64, Option<String>)> {
        let mut lines = Lines::new(row_bytes_max);
        let mut found = Vec::new();
        let pieces = body.chunks(piece_bytes).map(|piece| (Bytes::copy_from_slice(piece), false));
        for (piece, is_last) in pieces.chain([(Bytes::new(), true)]) {
            lines.add(piece, is_last);
            while let Some((number, line)) = lines.next() {
                found.push((number, line.ok().map(|line| String::from_utf8(line.to_vec()).unwrap())));
            }
            assert!(lines.part.len() <= row_bytes_max);
        }
        found
    }

    #[test]
    fn lines_are_the_same_however_the_body_is_cut() {
        let long = "x".repeat(50);
        let bodies = [
            String::new(),
            "\n".to_owned(),
            "a".to_owned(),
            "a\n".to_owned(),
            "a\r\nb\n\n  \nc".to_owned(),
            format!("a\n{long}\nb\n"),
            format!("{long}\n{long}"),
            format!("{long}{long}"),
            format!("{}\nb", &long[..20]),
        ];
        let expected = |body: &str| {
            let lines = body.split('\n').zip(1..).filter(|(line, _)| !line.trim().is_empty());
            lines.map(|(line, number)| (number, (line.len() <= 20).then(|| line.to_owned()))).collect::<Vec<_>>()
        };
        for body in &bodies {
            for piece_bytes in 1..=body.len().max(1) {
                assert_eq!(cut(body.as_bytes(), piece_bytes, 20), expected(body), "{body:?} by {piece_bytes}");
            }
        }
    }
}
