//! The door: what happens to every request before its handler, and to every answer after it.
//!
//! In: an id, a place among the requests in flight, a key and its role. Out: the problem document, where there is a
//! problem; counters; a line in the log. A handler that panics is a problem like any other: its client hears 500, and
//! the log has the cause under the request's id.

use crate::keys::{Admission, KeyId, Role};
use crate::metrics::{Held, RouteMetrics};
use crate::problem::{Problem, ServiceProblem};
use crate::service::Service;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use std::fmt::Write;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Who may come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anybody, without a key.
    Public,
    /// Whoever has this role.
    Needs(Role),
}

/// The door of one path.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) service: Arc<Service>,
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) metrics: RouteMetrics,
}

/// Who came through, for handlers where that makes a difference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) role: Role,
    /// Its key, if keys are required.
    pub(crate) key: Option<KeyId>,
}

/// Why somebody does not come through, and when it makes sense to try again, if that depends.
struct Refused(Problem, Option<Duration>);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(problem, None)
    }
}

impl Caller {
    /// Whether an operator's act is allowed.
    pub(crate) fn needs(self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let (needs, has) = (role.name(), self.role.name());
        Err(Problem::service(ServiceProblem::RoleTooLow, format!("this needs the role {needs}, and the key has {has}")))
    }
}

/// Lets a request through, and its answer out.
pub(crate) async fn door(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let service = &gate.service;
    let id = request_id(service, request.headers());
    let _held = Held::one(&service.metrics.in_flight);
    let place = Place::take(service);
    let (method, admitted) = (request.method().clone(), admit(&gate, &request, &place));
    let span = service.traces.request(gate.path, &request, &id);
    let mut wait = None;
    let mut response = match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            let answered = AssertUnwindSafe(span.around(next.run(request))).catch_unwind().await;
            answered.unwrap_or_else(|panic| internal(&*panic).into_response())
        }
        Err(Refused(problem, until)) => {
            wait = until;
            problem.into_response()
        }
    };
    let problem = response.extensions_mut().remove::<Arc<Problem>>();
    if let Some(problem) = &problem {
        response = write_problem(service, problem, &id, response);
    }
    let status = response.status();
    let headers = response.headers_mut();
    if let Some(wait) = wait {
        // Rounded up: who comes back then is let in.
        headers.insert(RETRY_AFTER, (wait.as_secs() + 1).into());
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.entry(CACHE_CONTROL).or_insert(const { HeaderValue::from_static("no-store") });
    gate.metrics.answered(status, started.elapsed());
    span.answered(status, problem.as_deref().map(|problem| problem.info().code));
    tell(&gate, &method, status.as_u16(), &id, started, problem.as_deref());
    response
}

fn tell(gate: &Gate, method: &Method, status: u16, id: &str, started: Instant, problem: Option<&Problem>) {
    let code = problem.map_or("", |problem| problem.info().code);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    match problem.and_then(Problem::cause) {
        Some(cause) if status >= 500 => {
            tracing::error!(request_id = id, %method, path = gate.path, status, code, micros, "{cause}");
        }
        Some(_) | None => tracing::debug!(request_id = id, %method, path = gate.path, status, code, micros, "answered"),
    }
}

fn internal(panic: &(dyn std::any::Any + Send)) -> Problem {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Problem::service(ServiceProblem::Internal, format!("a handler panicked: {}", said.unwrap_or("no message")))
}

/// A place among the requests in flight.
struct Place<'a> {
    service: &'a Service,
    is_free: bool,
}

impl<'a> Place<'a> {
    fn take(service: &'a Service) -> Self {
        let before = service.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { service, is_free: before < service.limits.in_flight_max }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.service.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn admit(gate: &Gate, request: &Request, place: &Place<'_>) -> Result<Caller, Refused> {
    let Access::Needs(role) = gate.access else { return Ok(Caller { role: Role::Read, key: None }) };
    if !place.is_free {
        return Err(Problem::plain(ServiceProblem::Busy).into());
    }
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or(""));
    let caller = match gate.service.keys.admit(authorization) {
        Admission::Open => {
            check_host(request.uri(), request.headers())?;
            Caller { role: Role::Operate, key: None }
        }
        Admission::As(role, key) => Caller { role, key: Some(key) },
        Admission::Needed => return Err(Problem::plain(ServiceProblem::KeyNeeded).into()),
        Admission::Unknown => return Err(Problem::plain(ServiceProblem::KeyUnknown).into()),
        Admission::Nobody(why) => return Err(Problem::service(ServiceProblem::KeysUnreadable, why.to_string()).into()),
    };
    caller.needs(role)?;
    let taken = gate.service.rates.take(caller.key, Instant::now());
    taken.map_err(|wait| Refused(Problem::plain(ServiceProblem::RateLimited), Some(wait)))?;
    Ok(caller)
}

/// Where no key protects the service, a web page could make its own name point to this machine, and its visitor's
/// browser would then send it here. Such a request carries that name.
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let header = headers.get(HOST).map(|value| value.to_str().unwrap_or("?"));
    let named = [uri.authority().map(axum::http::uri::Authority::as_str), header];
    match named.into_iter().flatten().find(|host| !is_this_machine(host)) {
        Some(_) => Err(Problem::plain(ServiceProblem::HostNotAllowed)),
        None => Ok(()),
    }
}

/// `localhost` or an address, with or without a port.
fn is_this_machine(host: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<std::net::Ipv6Addr>().is_ok() && is_port(port.strip_prefix(':').unwrap_or(port));
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The client's own id if it is short and plain, else a new one.
fn request_id(service: &Service, headers: &HeaderMap) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let given = given.filter(|id| (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain));
    if let Some(id) = given {
        return id.to_owned();
    }
    let count = service.request_count.fetch_add(1, Ordering::Relaxed) + 1;
    let mut id = String::with_capacity(24);
    // Writing to a `String` cannot fail; were it to, ids would be shorter.
    write!(id, "{:08x}-{count:x}", service.run).unwrap_or_default();
    id
}

/// Writes the document of a problem. Keeps what the answer has of headers, as `Allow`.
fn write_problem(service: &Service, problem: &Problem, id: &str, answer: Response) -> Response {
    service.metrics.problem(problem);
    service.notice(problem);
    let document = problem.document(service.currencies(), Some(id));
    let bytes = serde_json::to_vec(&document).unwrap_or_default();
    let (mut parts, _) = answer.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, const { HeaderValue::from_static("application/problem+json") });
    if let Some(seconds) = problem.retry_after_s() {
        parts.headers.insert(RETRY_AFTER, seconds.into());
    }
    if parts.status == axum::http::StatusCode::UNAUTHORIZED {
        parts.headers.insert(WWW_AUTHENTICATE, const { HeaderValue::from_static("Bearer realm=\"bursar\"") });
    }
    Response::from_parts(parts, Body::from(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeySet, Ring};
    use crate::limits::Limits;
    use crate::service::Stage;
    use axum::Router;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use bursar_core::{Currencies, Policy};
    use bursar_engine::{Ledger, LedgerOptions, new_config};
    use http_body_util::BodyExt;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::sync::watch;

    async fn broken() -> &'static str {
        panic!("what is inside is nobody's business")
    }

    #[test]
    fn a_handler_that_panics_is_answered_with_a_problem_that_says_nothing_of_the_inside() {
        let config = new_config(Policy::default(), Currencies::default()).unwrap();
        let ledger = Ledger::in_memory(&config, LedgerOptions::default()).unwrap();
        let (keys, stage) = (Arc::new(Ring::given(KeySet::default())), watch::Sender::new(Stage::Running));
        let service = Arc::new(Service::new(ledger, keys, Limits::default(), bytes::Bytes::new(), stage));
        let metrics = service.metrics.route("/broken");
        let gate = Gate { service: service.clone(), path: "/broken", access: Access::Public, metrics };
        let router = Router::new().route("/broken", get(broken).layer(from_fn_with_state(Arc::new(gate), door)));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let request = Request::builder().uri("/broken").body(Body::empty()).unwrap();
        let answer = runtime.block_on(TowerToHyperService::new(router).call(request)).unwrap();
        assert_eq!(answer.status(), 500);
        let body = runtime.block_on(answer.into_body().collect()).unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["code"], "internal");
        assert!(!document.to_string().contains("inside"), "{document}");
        assert_eq!(service.in_flight.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn only_this_machine_is_served_without_keys() {
        let table = [
            ("localhost", true),
            ("LOCALHOST:7400", true),
            ("127.0.0.1:7400", true),
            ("192.0.2.1", true),
            ("[::1]:7400", true),
            ("[::1]", true),
            ("evil.example", false),
            ("evil.example:7400", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("user@localhost", false),
            ("localhost:x", false),
            ("[::1", false),
            ("", false),
        ];
        for (host, expected) in table {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }
}
