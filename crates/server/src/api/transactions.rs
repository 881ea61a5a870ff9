//! `GET /v1/transactions/{transaction}`: its state, and the events that touched it.

use crate::api::Json;
use crate::params::{self, NoParams, Params};
use crate::problem::{NotThere, Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::shown::Shown;
use crate::wire::{EventBody, ExistingBody, event_body, existing_body};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bursar_core::TransactionId;
use bursar_engine::Ledger;
use bursar_engine::store::ReadRange;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// Events of one transaction that are shown at the most: the newest ones. A transaction can be disputed and resolved
/// without end.
const EVENTS_MAX: usize = 1_000;

/// A transaction as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransactionBody<'a> {
    #[schema(value_type = String)]
    transaction: Shown<TransactionId>,
    /// Not there while its first event is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ExistingBody)]
    current: Option<ExistingBody>,
    /// What an open event would make of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ExistingBody)]
    pending: Option<ExistingBody>,
    /// The events that touched it and are in effect or open, oldest first; the newest 1,000 of them.
    events: Vec<EventBody<'a>>,
    /// How many events there are in all.
    event_count: usize,
}

/// One transaction, with the events that touched it.
#[utoipa::path(
    get, path = "/v1/transactions/{transaction}", tag = "transactions", operation_id = "getTransaction",
    params(("transaction" = String, Path, description = "A number below 2^64, or a UUID")),
    responses(
        (status = 200, description = "The transaction", body = TransactionBody<'_>, content_type = "application/json"),
        (status = 404, description = "It was never accepted", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json, Problem> {
    let transaction = params::transaction(path)?;
    service.read(move |ledger| read(ledger, transaction)).await
}

fn read(ledger: &Ledger, transaction: TransactionId) -> Result<Json, Problem> {
    let currencies = &ledger.config().currencies;
    let Some(view) = ledger.transaction(transaction)? else {
        return Err(Problem::NotThere(NotThere::Transaction(transaction)));
    };
    let shown = &view.events[view.events.len().saturating_sub(EVENTS_MAX)..];
    let mut entries = Vec::with_capacity(shown.len());
    for event in shown {
        let range = ReadRange { from_seq: event.seq, to_seq: event.seq, limit: 1, newest_first: false };
        let entry = ledger.chain(event.customer, range)?.pop().filter(|entry| entry.linked.id() == event.id);
        entries.push(entry.ok_or_else(|| {
            Problem::service(ServiceProblem::Internal, format!("event {} of a transaction was not found", event.id))
        })?);
    }
    Json::of(&TransactionBody {
        transaction: Shown(transaction),
        current: view.state.map(|state| existing_body(&state, currencies)),
        pending: view.pending.map(|pending| existing_body(&pending.state, currencies)),
        events: entries.iter().map(|entry| event_body(entry, currencies)).collect(),
        event_count: view.events.len(),
    })
}
