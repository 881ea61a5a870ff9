//! What those who run the service ask for: whether it lives, whether it can serve, and what it counts.

use crate::api::Json;
use crate::metrics::Stand;
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use utoipa::ToSchema;

/// How long the stores have to say how they stand when metrics are read: who reads them gives up after ten seconds, as a
/// rule, and wants to see most of all how a service does whose stores are away.
const STORES_WAIT: Duration = Duration::from_secs(3);

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
    let answered = timeout(STORES_WAIT, ask_stores(&service)).await;
    let metrics = &service.metrics;
    metrics.stores_answer.set(matches!(answered, Ok(Ok(()))).into());
    let text = metrics.text(&service.ledger.figures());
    let text = text.map_err(|error| Problem::service(ServiceProblem::Internal, error.to_string()))?;
    let mut response = Response::new(Body::from(text));
    let content_type = const { HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8") };
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// Asks the ledger how it stands, which may wait for its stores. Only one asks at a time: where they do not answer, the
/// threads that wait for them must not add up.
async fn ask_stores(service: &Arc<Service>) -> Result<(), Problem> {
    let asking = service.metrics.asking.clone().lock_owned().await;
    let endpoints = service.webhooks.all().to_vec();
    let read = service.read(move |ledger| {
        let _asking = asking;
        let lags = endpoints.iter().map(|endpoint| {
            let (_, oldest_ms) = super::webhooks::undelivered(ledger, endpoint)?;
            let seconds = oldest_ms.map_or(0, |oldest_ms| bursar_outbound::now_ms().saturating_sub(oldest_ms) / 1_000);
            Ok((endpoint.name().to_owned(), seconds))
        });
        let lags = lags.collect::<Result<Vec<_>, Problem>>()?;
        Ok((Stand::of(ledger)?, lags))
    });
    let (stand, lags) = read.await?;
    service.metrics.take_stand(stand);
    for (name, seconds) in lags {
        service.metrics.webhook_lag(&name, seconds);
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
