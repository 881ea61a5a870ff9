//! Parameters of a query and of a path, read strictly: none that is unknown, none twice.

use crate::problem::{Problem, ServiceProblem};
use crate::wire::Fault;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use bursar_core::{CustomerId, RequestKind, TransactionId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;

/// The parameters of the query.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(rejection) => Err(bad(rejection.body_text())),
        }
    }
}

/// A query that has no parameters.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}

/// A parameter that cannot be what it is.
pub(crate) fn bad(detail: impl Into<String>) -> Problem {
    Problem::service(ServiceProblem::BadParameter, detail.into())
}

/// How many items a page is to have.
pub(crate) fn limit(given: Option<&str>) -> Result<usize, Problem> {
    use crate::limits::{PAGE_ITEMS, PAGE_ITEMS_MAX};
    let Some(text) = given else { return Ok(PAGE_ITEMS) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse().ok().filter(|count| digits && (1..=PAGE_ITEMS_MAX).contains(count));
    count.ok_or_else(|| bad(format!("limit must be a number from 1 to {PAGE_ITEMS_MAX}")))
}

fn timestamp(name: &str, text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|_| bad(format!("{name} must be a time like 2026-01-31T12:00:00Z")))
}

/// A moment, in milliseconds since 1970. Nothing happened before.
pub(crate) fn time(name: &str, text: &str) -> Result<u64, Problem> {
    let time = timestamp(name, text)?;
    // Rounded up: what is at or after a moment begins with the first whole millisecond that is.
    let ms = time.as_nanosecond().div_euclid(1_000_000) + i128::from(time.as_nanosecond().rem_euclid(1_000_000) > 0);
    Ok(u64::try_from(ms).unwrap_or(0))
}

/// The last whole millisecond up to a moment, since 1970.
pub(crate) fn time_until(name: &str, text: &str) -> Result<u64, Problem> {
    Ok(u64::try_from(timestamp(name, text)?.as_nanosecond().div_euclid(1_000_000)).unwrap_or(0))
}

/// A place in a chain.
pub(crate) fn seq(name: &str, text: &str) -> Result<u64, Problem> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // What no chain can have is refused, as the document says.
    let seq = text.parse::<u64>().ok().filter(|seq| is_number && *seq > 0 && i64::try_from(*seq).is_ok());
    seq.ok_or_else(|| bad(format!("{name} must be a number from 1 on")))
}

/// One of these, by its name.
pub(crate) fn one_of<T: Copy>(
    name: &str,
    text: &str,
    known: &[T],
    called: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    let found = known.iter().copied().find(|one| called(*one) == text);
    found.ok_or_else(|| {
        let names: Vec<_> = known.iter().copied().map(called).collect();
        bad(format!("{name} must be one of {}", names.join(", ")))
    })
}

/// A kind of request.
pub(crate) fn kind(text: &str) -> Result<RequestKind, Problem> {
    one_of("kind", text, &RequestKind::ALL, RequestKind::name)
}

/// `true` or `false`.
pub(crate) fn flag(name: &str, text: &str) -> Result<bool, Problem> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad(format!("{name} must be true or false"))),
    }
}

/// The customer named in the path.
pub(crate) fn customer(path: Result<Path<String>, PathRejection>) -> Result<CustomerId, Problem> {
    CustomerId::parse(text(path)?.as_bytes()).map_err(|error| Fault::bad_id("customer", error).into())
}

/// The transaction named in the path.
pub(crate) fn transaction(path: Result<Path<String>, PathRejection>) -> Result<TransactionId, Problem> {
    TransactionId::parse(text(path)?.as_bytes()).map_err(|error| Fault::bad_id("transaction", error).into())
}

fn text(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(text)| text).map_err(|rejection| Problem::service(ServiceProblem::NoSuchPath, rejection.body_text()))
}
