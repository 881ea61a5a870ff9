//! `/v1/webhooks`: how each one fares, what was tried, and sending again.

use crate::api::{Json, body};
use crate::follow::Place;
use crate::params::{self, NoParams, Params};
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::shown::{Shown, Time};
use crate::webhooks::{Attempt, Endpoint, Overview, Paused, Resend};
use crate::wire::{Fault, Page};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::StatusCode;
use bursar_core::{CustomerId, EventId};
use bursar_engine::Ledger;
use bursar_engine::store::{FeedPosition, ReadRange};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Records that are looked at for the oldest one that is not delivered.
const LOOKED_AT_MAX: usize = 512;

/// A webhook, and how it fares.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookBody {
    name: String,
    /// Without what follows a `?`: that may be secret.
    url: String,
    /// Everything before this place in the ledger's stream was delivered, or is not wanted.
    #[schema(value_type = String)]
    position: Shown<FeedPosition>,
    /// Whether there is nothing left to deliver.
    is_current: bool,
    /// The time of the oldest event that is not delivered yet, where it is known without reading far.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "date-time")]
    oldest_undelivered: Option<Time>,
    /// `operator`, or `gone` (its receiver answered 410). Not there while it delivers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Paused)]
    paused: Option<Paused>,
    /// Deliveries since the service began.
    delivered: u64,
    /// Attempts that failed since the service began.
    failed: u64,
    /// Attempts in a row that have failed.
    failures_in_a_row: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "date-time")]
    last_success: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = FailureBody)]
    last_failure: Option<FailureBody>,
    /// When it is tried again, after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "date-time")]
    next_attempt: Option<Time>,
}

/// Why something was not delivered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FailureBody {
    #[schema(value_type = String, format = "date-time")]
    time: Time,
    what: String,
}

/// An attempt to deliver an event.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryBody {
    /// The header `webhook-id`: the same for every attempt of the same event with the same status.
    id: String,
    #[schema(value_type = String, format = "date-time")]
    time: Time,
    took_ms: u64,
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    #[schema(minimum = 1)]
    seq: u64,
    #[schema(value_type = String, format = "uuid")]
    event: Shown<EventId>,
    /// Not there where the event was sent again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    position: Option<Shown<FeedPosition>>,
    delivered: bool,
    /// The status that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u16)]
    status: Option<u16>,
    /// Why it was not delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    failure: Option<String>,
}

/// What is to be sent again: either everything behind a place (`after`), or one event, by its customer and place in the
/// chain, or by its id if it is among the newest deliveries.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"customer": "42", "seq": 7}))]
pub(crate) struct ResendBody {
    /// A position, `beginning`, or `latest` (leave out what is not delivered yet).
    #[schema(required = false, nullable = false, value_type = String)]
    after: Option<String>,
    #[schema(required = false, nullable = false, value_type = String)]
    customer: Option<String>,
    #[schema(required = false, nullable = false, value_type = u64, minimum = 1)]
    seq: Option<u64>,
    #[schema(required = false, nullable = false, value_type = String, format = "uuid")]
    event: Option<String>,
}

/// When the oldest event that is wanted and not delivered was, and whether there is nothing left.
pub(crate) fn undelivered(ledger: &Ledger, endpoint: &Endpoint) -> Result<(bool, Option<u64>), Problem> {
    let page = ledger.feed_after(endpoint.overview().position, LOOKED_AT_MAX)?;
    let oldest = page.items.iter().find(|item| endpoint.filter().takes(&item.entry));
    let oldest_ms = oldest.map(|item| item.entry.linked.event.time_ms);
    let is_current = oldest_ms.is_none() && ledger.feed_after(page.position, 1)?.position == page.position;
    Ok((is_current, oldest_ms))
}

fn webhook_body(ledger: &Ledger, endpoint: &Endpoint) -> Result<WebhookBody, Problem> {
    let (is_current, oldest_ms) = undelivered(ledger, endpoint)?;
    let Overview { position, paused, failures, next_attempt_ms, last_success_ms, last_failure, delivered, failed } =
        endpoint.overview();
    Ok(WebhookBody {
        name: endpoint.name().to_owned(),
        url: endpoint.shown_url(),
        position: Shown(position),
        is_current,
        oldest_undelivered: oldest_ms.map(Time),
        paused,
        delivered,
        failed,
        failures_in_a_row: failures,
        last_success: last_success_ms.map(Time),
        last_failure: last_failure.map(|(time_ms, what)| FailureBody { time: Time(time_ms), what }),
        next_attempt: next_attempt_ms.map(Time),
    })
}

fn delivery_body(attempt: Attempt) -> DeliveryBody {
    let Attempt { time_ms, took_ms, id, customer, seq, event, position, status, failure } = attempt;
    DeliveryBody {
        id,
        time: Time(time_ms),
        took_ms,
        customer: Shown(customer),
        seq,
        event: Shown(event),
        position: position.map(Shown),
        delivered: failure.is_none(),
        status,
        failure,
    }
}

fn found(service: &Service, path: Result<Path<String>, PathRejection>) -> Result<Arc<Endpoint>, Problem> {
    let Path(name) = path.map_err(|_| Problem::plain(ServiceProblem::UnknownWebhook))?;
    service.webhooks.find(&name).cloned().ok_or_else(|| Problem::plain(ServiceProblem::UnknownWebhook))
}

async fn shown(service: &Arc<Service>, endpoint: Arc<Endpoint>) -> Result<Json, Problem> {
    service.read(move |ledger| Json::of(&webhook_body(ledger, &endpoint)?)).await
}

/// All webhooks, and how they fare.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks", operation_id = "listWebhooks",
    responses(
        (status = 200, description = "All of them", body = Page<WebhookBody>, content_type = "application/json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json, Problem> {
    let endpoints = service.webhooks.all().to_vec();
    let read = move |ledger: &Ledger| {
        let items = endpoints.iter().map(|endpoint| webhook_body(ledger, endpoint));
        Json::of(&Page { items: items.collect::<Result<_, _>>()?, next: None })
    };
    service.read(read).await
}

/// What a list of deliveries takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeliveriesParams {
    /// How many at the most, 1 to 1000 [default: 100].
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// The newest attempts of a webhook, newest first.
///
/// The last 1,000 since the service began are remembered.
#[utoipa::path(
    get, path = "/v1/webhooks/{name}/deliveries", tag = "webhooks", operation_id = "listDeliveries",
    params(("name" = String, Path, description = "The webhook's name"), DeliveriesParams),
    responses(
        (status = 200, description = "The attempts", body = Page<DeliveryBody>, content_type = "application/json"),
        (status = 404, description = "There is no such webhook", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn deliveries(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(params): Params<DeliveriesParams>,
) -> Result<Json, Problem> {
    let limit = params::limit(params.limit.as_deref())?;
    let attempts = found(&service, path)?.attempts(limit);
    Json::of(&Page { items: attempts.into_iter().map(delivery_body).collect::<Vec<_>>(), next: None })
}

/// Deliver nothing until it is resumed. What is under way comes to its end; events wait, and none is lost.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/pause", tag = "webhooks", operation_id = "pauseWebhook",
    params(("name" = String, Path, description = "The webhook's name")),
    responses(
        (status = 200, description = "It is paused", body = WebhookBody, content_type = "application/json"),
        (status = 404, description = "There is no such webhook", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not done", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not done", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn pause(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json, Problem> {
    let endpoint = found(&service, path)?;
    endpoint.pause();
    shown(&service, endpoint).await
}

/// Deliver again, and at once: also where a receiver was gone, or an attempt was due only later.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/resume", tag = "webhooks", operation_id = "resumeWebhook",
    params(("name" = String, Path, description = "The webhook's name")),
    responses(
        (status = 200, description = "It delivers", body = WebhookBody, content_type = "application/json"),
        (status = 404, description = "There is no such webhook", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not done", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not done", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn resume(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json, Problem> {
    let endpoint = found(&service, path)?;
    endpoint.resume();
    shown(&service, endpoint).await
}

/// Send again: everything behind a place, or one event.
///
/// Everything behind a place is delivered as the first time, in order, with the same ids. One event is sent once more by
/// itself, with its status of now; what became of that is among the deliveries.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/resend", tag = "webhooks", operation_id = "resendDeliveries",
    params(("name" = String, Path, description = "The webhook's name")),
    request_body(content = ResendBody, content_type = "application/json"),
    responses(
        (status = 202, description = "It will be sent", body = WebhookBody, content_type = "application/json"),
        (status = 404, description = "There is no such webhook, or no such event", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not done", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not done", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn resend(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
    http: HttpRequest,
) -> Result<(StatusCode, Json), Problem> {
    let endpoint = found(&service, path)?;
    let wanted: ResendBody = body::json(&service, http).await?;
    let target = endpoint.clone();
    let put = move |ledger: &Ledger| put_resend(ledger, &target, &wanted);
    service.read(put).await?;
    Ok((StatusCode::ACCEPTED, shown(&service, endpoint).await?))
}

fn put_resend(ledger: &Ledger, endpoint: &Endpoint, wanted: &ResendBody) -> Result<(), Problem> {
    let ((customer, seq), position) = match wanted {
        ResendBody { after: Some(after), customer: None, seq: None, event: None } => {
            endpoint.go_to(Place::parse(after)?.find(ledger)?);
            return Ok(());
        }
        ResendBody { after: None, customer: Some(customer), seq: Some(seq), event: None } => {
            let customer = CustomerId::parse(customer.as_bytes());
            ((customer.map_err(|error| Fault::bad_id("customer", error))?, *seq), None)
        }
        ResendBody { after: None, customer: None, seq: None, event: Some(event) } => {
            let attempt = endpoint.attempt_for(event);
            let attempt = attempt.ok_or_else(|| Problem::plain(ServiceProblem::NothingToResend))?;
            ((attempt.customer, attempt.seq), attempt.position)
        }
        ResendBody { .. } => {
            let detail = "give `after`, or `customer` and `seq`, or `event`";
            return Err(Problem::service(ServiceProblem::BadField, detail));
        }
    };
    let range = ReadRange { from_seq: seq.max(1), to_seq: seq, limit: 1, newest_first: false };
    let entry = ledger.chain(customer, range)?.pop();
    let entry = entry.ok_or_else(|| Problem::plain(ServiceProblem::NothingToResend))?;
    if endpoint.resend(Resend { entry, position }) {
        return Ok(());
    }
    Err(Problem::service(ServiceProblem::Busy, "too many events wait to be sent again"))
}
