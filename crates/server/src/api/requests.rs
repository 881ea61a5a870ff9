//! `POST /v1/requests`: one request, its outcome and its receipt.

use crate::api::Json;
use crate::door::Caller;
use crate::keys::Role;
use crate::params::{self, Params};
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::terms::key_of_header;
use crate::wire::{OutcomeBody, ReadFault, ReceiptBody, RequestBody, Success, read_request, receipt_body, would_body};
use axum::Extension;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bursar_core::commit::{Outcome, Receipt, Terms};
use bursar_core::{Action, Currencies, Request, TransactionId};
use bursar_engine::Ledger;
use bursar_engine::store::ReadRange;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use std::sync::Arc;
use tokio::time::timeout;
use utoipa::IntoParams;

/// What `POST /v1/requests` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubmitParams {
    /// `true`: say what would come of it, and do nothing.
    #[param(value_type = Option<bool>)]
    dry_run: Option<String>,
}

/// Submit one request.
///
/// Answered only after the outcome is durable. A repeat of a deposit or withdrawal with the same content is
/// `already_applied`, with the receipt of then: so it is safe to send it again if no answer came. A refusal by the
/// rules is a problem document with status 422: nothing moved, and the id is not used up. Requests that have no id of
/// their own can have an `Idempotency-Key`.
#[utoipa::path(
    post, path = "/v1/requests", tag = "requests", operation_id = "submitRequest",
    params(
        SubmitParams,
        ("Idempotency-Key" = Option<String>, Header,
            description = "A dispute, resolve, chargeback or unlock with the same key takes effect once; a string as in \
                RFC 9651, or its text without quotes"),
    ),
    request_body(content = RequestBody, content_type = "application/json"),
    responses(
        (status = 200, description = "It is in effect; or, of a dry run, it would be", body = OutcomeBody<'_>, content_type = "application/json"),
        (status = 409, description = "A request with this key is under way", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, description = "The rules or the terms refuse it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was decided", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not decided, or not known", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn submit(
    State(service): State<Arc<Service>>,
    Extension(caller): Extension<Caller>,
    Params(SubmitParams { dry_run }): Params<SubmitParams>,
    http: HttpRequest,
) -> Result<Json, Problem> {
    let dry_run = dry_run.map_or(Ok(false), |text| params::flag("dry_run", &text))?;
    let (parts, body) = http.into_parts();
    check_type(&parts.headers, &["application/json"])?;
    let body = read_body(&service, &parts.headers, body).await?;
    let read = read_request(&body, service.ledger.config()).map_err(ReadFault::into_problem);
    let read = read.and_then(|(request, terms)| {
        let terms = match (key_of_header(&parts.headers, service.ledger.config())?, terms.key) {
            (Some(_), Some(_)) => return Err(two_keys()),
            (key, None) | (None, key) => Terms { key, ..terms },
        };
        Ok((request, terms))
    });
    let (request, terms) = read.inspect_err(|_| service.metrics.unreadable())?;
    caller.needs(role_of(&request))?;
    if dry_run {
        return service.read(move |ledger| would_apply(ledger, &request, terms)).await;
    }
    let terms = if terms.is_empty() { Vec::new() } else { vec![(0, terms)] };
    let submitted = service.submit(request, terms).await;
    service.metrics.submitted(&submitted);
    let currencies = service.currencies();
    match submitted? {
        Outcome::Applied(receipt) => answer(Success::Applied, receipt_body(&receipt, currencies)),
        Outcome::AlreadyApplied(Some(receipt)) => answer(Success::AlreadyApplied, receipt_body(&receipt, currencies)),
        Outcome::AlreadyApplied(None) => {
            service.read(move |ledger| already_applied(ledger, &request, &ledger.config().currencies)).await
        }
        Outcome::Rejected(rejection) => Err(Problem::Rejected(rejection)),
    }
}

fn answer(outcome: Success, receipt: ReceiptBody<'_>) -> Result<Json, Problem> {
    Json::of(&OutcomeBody { outcome, receipt: Some(receipt), would: None })
}

fn two_keys() -> Problem {
    Problem::service(ServiceProblem::BadIdempotencyKey, "the header and the body each have an idempotency key")
}

/// What a request would lead to now.
fn would_apply(ledger: &Ledger, request: &Request, terms: Terms) -> Result<Json, Problem> {
    let currencies = &ledger.config().currencies;
    match ledger.dry_run(*request, terms)? {
        Outcome::Applied(receipt) => {
            let would = Some(would_body(&receipt, currencies));
            Json::of(&OutcomeBody { outcome: Success::WouldApply, receipt: None, would })
        }
        Outcome::AlreadyApplied(Some(receipt)) => answer(Success::AlreadyApplied, receipt_body(&receipt, currencies)),
        Outcome::AlreadyApplied(None) => already_applied(ledger, request, currencies),
        Outcome::Rejected(rejection) => Err(Problem::Rejected(rejection)),
    }
}

/// The outcome of a request that took effect before, with the receipt of then.
fn already_applied(ledger: &Ledger, request: &Request, currencies: &Currencies) -> Result<Json, Problem> {
    let lost = || Problem::service(ServiceProblem::Internal, "the event of a transaction was not found");
    let made_by = |transaction: TransactionId| -> Result<Json, Problem> {
        let view = ledger.transaction(transaction)?.ok_or_else(lost)?;
        let made_by = view.events.first().ok_or_else(lost)?;
        let range = ReadRange { from_seq: made_by.seq, to_seq: made_by.seq, limit: 1, newest_first: false };
        let entries = ledger.chain(made_by.customer, range)?;
        let entry = entries.first().ok_or_else(lost)?;
        answer(Success::AlreadyApplied, receipt_body(&Receipt::of(&entry.linked), currencies))
    };
    request.action.transaction().ok_or_else(lost).and_then(made_by)
}

/// The role that a request needs beyond that of its path.
pub(crate) const fn role_of(request: &Request) -> Role {
    match request.action {
        Action::Deposit(_)
        | Action::Withdrawal(_)
        | Action::Dispute(_)
        | Action::Resolve(_)
        | Action::Chargeback(_) => Role::Submit,
        Action::Unlock => Role::Operate,
    }
}

/// Checks that a body is of one of these types, and as it is. Returns which.
pub(crate) fn check_type(headers: &HeaderMap, accepted: &'static [&'static str]) -> Result<&'static str, Problem> {
    let refused = |what: String| Problem::service(ServiceProblem::UnsupportedMediaType, what);
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(refused("compressed bodies are not taken".to_owned()));
    }
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
    let found = accepted.iter().find(|accepted| accepted.eq_ignore_ascii_case(essence.trim()));
    let charset = parameters.trim().to_ascii_lowercase();
    let is_utf8 = !charset.starts_with("charset=") || charset["charset=".len()..].trim_matches('"') == "utf-8";
    match found {
        Some(found) if is_utf8 => Ok(found),
        Some(_) => Err(refused("bodies are UTF-8".to_owned())),
        None => Err(refused(format!("the content type must be {}", accepted.join(" or ")))),
    }
}

/// Reads a body of bounded size in bounded time.
pub(crate) async fn read_body(service: &Service, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let bytes_max = service.limits.body_bytes_max;
    let too_large =
        || Problem::service(ServiceProblem::BodyTooLarge, format!("the body is larger than {bytes_max} bytes"));
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large());
    }
    match timeout(service.limits.body_wait, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::plain(ServiceProblem::BodyCutOff)),
        Err(_) => Err(Problem::plain(ServiceProblem::TooSlow)),
    }
}
