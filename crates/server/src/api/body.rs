//! Bodies of single requests: of the right type, of bounded size, in bounded time.

use crate::problem::{Problem, ServiceProblem};
use crate::service::Service;
use crate::wire::{ReadFault, read_object};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The headers and the bytes of a request whose body is JSON.
pub(crate) async fn json_bytes(service: &Service, http: HttpRequest) -> Result<(HeaderMap, Bytes), Problem> {
    let (parts, body) = http.into_parts();
    check_type(&parts.headers, &["application/json"])?;
    let body = read_body(service, &parts.headers, body).await?;
    Ok((parts.headers, body))
}

/// What the body of a request says: one JSON object.
pub(crate) async fn json<T: DeserializeOwned>(service: &Service, http: HttpRequest) -> Result<T, Problem> {
    let (_, body) = json_bytes(service, http).await?;
    read_object(&body).map_err(ReadFault::into_problem)
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
async fn read_body(service: &Service, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
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
