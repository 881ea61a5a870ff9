//! What those who run the service ask for: whether it lives, whether it can serve, and what it counts.

use crate::api::Json;
use crate::metrics::Asked;
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// That all is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HealthBody {
    /// `live`, or `ready`.
    #[schema(value_type = String)]
    status: &'static str,
}

/// Whether the process answers. It does not look at the ledger.
#[utoipa::path(
    get, path = "/livez", tag = "operations", operation_id = "getLiveness", security(()),
    responses((status = 200, description = "It does", body = HealthBody, content_type = "application/json"))
)]
pub(crate) async fn live() -> Result<Json, Problem> {
    Json::of(&HealthBody { status: "live" })
}

/// Whether the service can serve: it is not being stopped, and its engine has not stopped.
#[utoipa::path(
    get, path = "/readyz", tag = "operations", operation_id = "getReadiness", security(()),
    responses(
        (status = 200, description = "It can", body = HealthBody, content_type = "application/json"),
        (status = "5XX", description = "It cannot", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ready(State(service): State<Arc<Service>>) -> Result<Json, Problem> {
    if service.is_stopping() {
        return Err(Problem::plain(ServiceProblem::Stopping));
    }
    // Waits until what the ledger has begun is durable: an engine that has stopped says so here.
    service.read(|ledger| Ok(ledger.totals()?)).await?;
    Json::of(&HealthBody { status: "ready" })
}

/// Counters, in the text format of `OpenMetrics`.
#[utoipa::path(
    get, path = "/metrics", tag = "operations", operation_id = "getMetrics",
    responses(
        (status = 200, description = "The counters", body = String, content_type = "application/openmetrics-text"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn metrics(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let read = service.read(|ledger| {
        let open = ledger.open_events()?;
        Ok((ledger.totals()?, open.len(), Asked::of(ledger, &open)))
    });
    let (totals, open_count, asked) = read.await?;
    let gauge = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    set_webhook_lags(&service).await?;
    let metrics = &service.metrics;
    metrics.customers.set(gauge(totals.customer_count));
    metrics.transactions.set(gauge(totals.transaction_count));
    metrics.events.set(gauge(totals.event_count));
    metrics.open_events.set(gauge(open_count as u64));
    let text = metrics.text(&asked).map_err(|error| Problem::service(ServiceProblem::Internal, error.to_string()))?;
    let mut response = Response::new(Body::from(text));
    let content_type = const { HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8") };
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

async fn set_webhook_lags(service: &Arc<Service>) -> Result<(), Problem> {
    for endpoint in service.webhooks.all() {
        let looked_at = endpoint.clone();
        let (_, oldest_ms) = service.read(move |ledger| super::webhooks::undelivered(ledger, &looked_at)).await?;
        let seconds = oldest_ms.map_or(0, |oldest_ms| bursar_outbound::now_ms().saturating_sub(oldest_ms) / 1_000);
        service.metrics.webhook_lag(endpoint.name(), seconds);
    }
    Ok(())
}

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", tag = "operations", operation_id = "getOpenApi", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json"))
)]
pub(crate) async fn openapi(State(service): State<Arc<Service>>) -> Response {
    let mut response = Response::new(Body::from(service.openapi.clone()));
    response.headers_mut().insert(CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
    response
}

/// Where to look.
#[derive(Debug, Serialize)]
struct RootBody {
    service: &'static str,
    version: &'static str,
    openapi: &'static str,
    docs: &'static str,
    problems: &'static str,
}

/// What people find first. Not a path of the API.
pub(crate) async fn root() -> Result<Json, Problem> {
    let version = env!("CARGO_PKG_VERSION");
    Json::of(&RootBody { service: "bursar", version, openapi: "/openapi.json", docs: "/docs", problems: "/problems" })
}
