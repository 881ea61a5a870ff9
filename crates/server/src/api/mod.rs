//! The paths: one table of them, with who may use each; one module for each kind of thing.

pub(crate) mod batches;
pub(crate) mod body;
pub(crate) mod chain;
pub(crate) mod customers;
pub(crate) mod disputes;
pub(crate) mod events;
pub(crate) mod ledger;
pub(crate) mod operations;
pub(crate) mod outcomes;
pub(crate) mod pending;
pub(crate) mod problems;
pub(crate) mod reader;
pub(crate) mod requests;
pub(crate) mod stream;
pub(crate) mod transactions;
pub(crate) mod webhooks;

use crate::door::{Access, Gate, door};
use crate::keys::Role;
use crate::problem::{Problem, ServiceProblem};
use crate::service::Service;
use axum::Router;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;
use std::sync::Arc;

type Methods = MethodRouter<Arc<Service>>;

/// Every path there is.
pub(crate) fn paths() -> [(&'static str, Access, Methods); 27] {
    const READ: Access = Access::Needs(Role::Read);
    const SUBMIT: Access = Access::Needs(Role::Submit);
    const OPERATE: Access = Access::Needs(Role::Operate);
    const PUBLIC: Access = Access::Public;
    [
        ("/v1/requests", SUBMIT, post(requests::submit)),
        ("/v1/batches", SUBMIT, post(batches::submit)),
        ("/v1/customers", READ, get(customers::list)),
        ("/v1/customers/{customer}", READ, get(customers::one)),
        ("/v1/customers/{customer}/events", READ, get(events::list)),
        ("/v1/customers/{customer}/chain", READ, get(chain::download)),
        ("/v1/customers/{customer}/disputes", READ, get(disputes::of_customer)),
        ("/v1/disputes", READ, get(disputes::of_all)),
        ("/v1/events", READ, get(stream::follow)),
        ("/v1/transactions/{transaction}", READ, get(transactions::one)),
        ("/v1/ledger", READ, get(ledger::info)),
        ("/v1/pending", READ, get(pending::list)),
        ("/v1/pending/{event}/settle", OPERATE, post(pending::settle)),
        ("/v1/webhooks", READ, get(webhooks::list)),
        ("/v1/webhooks/{name}/deliveries", READ, get(webhooks::deliveries)),
        ("/v1/webhooks/{name}/pause", OPERATE, post(webhooks::pause)),
        ("/v1/webhooks/{name}/resume", OPERATE, post(webhooks::resume)),
        ("/v1/webhooks/{name}/resend", OPERATE, post(webhooks::resend)),
        ("/metrics", READ, get(operations::metrics)),
        ("/livez", PUBLIC, get(operations::live)),
        ("/readyz", PUBLIC, get(operations::ready)),
        ("/openapi.json", PUBLIC, get(operations::openapi)),
        ("/docs", PUBLIC, get(reader::page)),
        ("/problems", PUBLIC, get(problems::list)),
        ("/problems/{code}", PUBLIC, get(problems::one)),
        // Not paths of the API: what every other path is, and the root, where people look first.
        ("/", PUBLIC, get(operations::root)),
        (OTHER, PUBLIC, get(no_such_path).fallback(no_such_path)),
    ]
}

/// Stands for every path that is none.
const OTHER: &str = "other";

/// All paths, each behind its door.
pub(crate) fn router(service: &Arc<Service>) -> Router {
    let mut router = Router::new();
    for (path, access, methods) in paths() {
        let gate = Gate { service: service.clone(), path, access, metrics: service.metrics.route(path) };
        let door = from_fn_with_state(Arc::new(gate), door);
        if path == OTHER {
            router = router.fallback_service(methods.layer(door).with_state(service.clone()));
        } else {
            router = router.route(path, methods.fallback(method_not_allowed).layer(door));
        }
    }
    router.with_state(service.clone())
}

async fn no_such_path() -> Problem {
    Problem::plain(ServiceProblem::NoSuchPath)
}

async fn method_not_allowed() -> Problem {
    Problem::plain(ServiceProblem::MethodNotAllowed)
}

/// An answer in JSON, written already.
#[derive(Debug)]
pub(crate) struct Json(Vec<u8>);

impl Json {
    pub(crate) fn of(value: &impl Serialize) -> Result<Self, Problem> {
        let written = serde_json::to_vec(value);
        written.map(Self).map_err(|error| {
            Problem::service(ServiceProblem::Internal, format!("an answer cannot be written: {error}"))
        })
    }
}

impl IntoResponse for Json {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        response.headers_mut().insert(CONTENT_TYPE, const { HeaderValue::from_static("application/json") });
        response
    }
}
