//! `GET /v1/customers/{customer}/chain`: the file that `bursar verify --file` checks.
//!
//! It is written by the engine, on a thread of its own, into a channel of a few pieces that the answer's body reads.
//! A client that stops reading is cut off by its connection, and the thread then hears that nobody is left.

use crate::metrics::Held;
use crate::params::{self, NoParams, Params};
use crate::problem::{NotThere, Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::Response;
use bursar_engine::chain_file::{ExportError, export_chain};
use bytes::Bytes;
use futures_util::stream;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces that are written ahead of what the client takes.
const PIECES: usize = 4;

/// A customer's chain as a file.
///
/// It proves itself: `bursar verify --file FILE` checks every hash and every account, without the ledger. Its last line
/// begins with `{"end"`; a file without it was cut off.
#[utoipa::path(
    get, path = "/v1/customers/{customer}/chain", tag = "customers", operation_id = "getChain",
    params(("customer" = String, Path, description = "A number below 2^64, or a UUID")),
    responses(
        (status = 200, description = "The file", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "Nothing was ever accepted for it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn download(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    let customer = params::customer(path)?;
    let Ok(permit) = service.downloads.clone().try_acquire_owned() else {
        return Err(Problem::service(ServiceProblem::Busy, "too many chains are being downloaded"));
    };
    let head = service.read(move |ledger| Ok(ledger.customer(customer)?)).await?;
    head.ok_or(Problem::NotThere(NotThere::Customer(customer)))?;
    let (pieces, body) = mpsc::channel::<io::Result<Bytes>>(PIECES);
    let exporting = service.clone();
    drop(tokio::task::spawn_blocking(move || {
        let _held = (permit, Held::one(&exporting.metrics.in_flight));
        let exported = export_chain(&exporting.ledger, customer, Pieces(&pieces));
        let error = match exported {
            // A client that went away needs no answer.
            Ok(_) | Err(ExportError::Write(_)) => return,
            Err(error) => error,
        };
        tracing::error!(%customer, "a chain could not be written: {error}");
        // The client sees an answer that is cut off, not one that looks whole.
        drop(pieces.blocking_send(Err(io::Error::other("the chain could not be read"))));
    }));
    let body = stream::unfold(body, |mut body| async move { body.recv().await.map(|piece| (piece, body)) });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, const { HeaderValue::from_static("application/x-ndjson") });
    if let Ok(name) = HeaderValue::from_str(&format!("attachment; filename=\"{customer}.chain\"")) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Hands on what is written.
struct Pieces<'a>(&'a mpsc::Sender<io::Result<Bytes>>);

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
