//! `GET /docs`: a page that shows `/openapi.json` to people.
//!
//! One document with its own style and script, and nothing from anywhere else: the policy that goes with it allows that
//! style, that script (by their hashes), and reading from this service.

use axum::body::Body;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const PAGE: &str = include_str!("../reader/page.html");
const STYLE: &str = include_str!("../reader/style.css");
const SCRIPT: &str = include_str!("../reader/script.js");

/// The page, and the policy that goes with it.
static READER: LazyLock<(String, HeaderValue)> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    let page = PAGE.replace("{style}", STYLE).replace("{script}", SCRIPT);
    // Base64 is ASCII.
    (page, HeaderValue::from_str(&policy).unwrap_or(const { HeaderValue::from_static("default-src 'none'") }))
});

/// This document, for people.
#[utoipa::path(
    get, path = "/docs", tag = "operations", operation_id = "getDocs", security(()),
    responses((status = 200, description = "A page", body = String, content_type = "text/html"))
)]
pub(crate) async fn page() -> Response {
    let (page, policy) = &*READER;
    let mut response = Response::new(Body::from(page.as_str()));
    let headers: [(HeaderName, HeaderValue); 4] = [
        (CONTENT_TYPE, const { HeaderValue::from_static("text/html; charset=utf-8") }),
        (CONTENT_SECURITY_POLICY, policy.clone()),
        (X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") }),
        (REFERRER_POLICY, const { HeaderValue::from_static("no-referrer") }),
    ];
    response.headers_mut().extend(headers);
    response
}
