//! `POST /v1/requests`: one request, its outcome and its receipt.

use crate::api::{Json, body};
use crate::door::Caller;
use crate::keys::Role;
use crate::params::{self, Params};
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::terms::key_of_header;
use crate::wire::{OutcomeBody, ReadFault, ReceiptBody, RequestBody, Success, read_request, receipt_body, would_body};
use axum::Extension;
use axum::extract::{Request as HttpRequest, State};
use bursar_core::commit::{Outcome, Terms};
use bursar_core::{Action, Currencies, Request};
use bursar_engine::Ledger;
use serde::Deserialize;
use std::sync::Arc;
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
    let (headers, body) = body::json_bytes(&service, http).await?;
    let read = read_request(&body, service.ledger.config()).map_err(ReadFault::into_problem);
    let read = read.and_then(|(request, terms)| {
        let terms = match (key_of_header(&headers, service.ledger.config())?, terms.key) {
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
    let receipt = ledger.receipt_of(request)?.ok_or_else(lost)?;
    answer(Success::AlreadyApplied, receipt_body(&receipt, currencies))
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
