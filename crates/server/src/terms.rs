//! The header `Idempotency-Key`, as in the IETF's draft of that name: a string of a structured field (RFC 9651), or the
//! same text without quotes, as most clients send it.

use crate::problem::{Problem, ServiceProblem};
use axum::http::HeaderMap;
use bursar_core::{LedgerConfig, RequestKey};
use std::borrow::Cow;

const HEADER: &str = "idempotency-key";

/// The key that the header says; `None` where there is no such header.
pub(crate) fn key_of_header(headers: &HeaderMap, config: &LedgerConfig) -> Result<Option<RequestKey>, Problem> {
    let mut values = headers.get_all(HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::service(ServiceProblem::BadIdempotencyKey, "there are several Idempotency-Key headers"));
    }
    let text = text_of(value.as_bytes());
    text.and_then(|text| key(&text, config)).map(Some).ok_or(Problem::plain(ServiceProblem::BadIdempotencyKey))
}

/// The key with this text.
pub(crate) fn key(text: &[u8], config: &LedgerConfig) -> Option<RequestKey> {
    RequestKey::of_text(&config.digest(), text)
}

/// What a header's value says: what is between its quotes, where it has some.
fn text_of(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(quoted) = value.strip_prefix(b"\"") else {
        // Text that is not quoted has neither spaces nor what could be meant as quoting.
        let plain = value.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b','));
        return plain.then_some(Cow::Borrowed(value));
    };
    let quoted = quoted.strip_suffix(b"\"")?;
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => return None,
            b'\\' => match bytes.next() {
                Some(&escaped @ (b'"' | b'\\')) => text.push(escaped),
                Some(_) | None => return None,
            },
            _ => text.push(byte),
        }
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_and_plain_texts_are_the_same_key() {
        for (value, expected) in [
            ("\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", Some("8e03978e-40d5-43e8-bc93-6894a57f9324")),
            ("8e03978e-40d5-43e8-bc93-6894a57f9324", Some("8e03978e-40d5-43e8-bc93-6894a57f9324")),
            (r#""order 17""#, Some("order 17")),
            (r#""a\"b\\c""#, Some("a\"b\\c")),
            ("order 17", None),
            (r#""a"b""#, None),
            (r#""a\n""#, None),
            (r#""a\""#, None),
            (r#""a"; p=1"#, None),
            (r#"a"b"#, None),
            ("a,b", None),
            ("\"", None),
            ("é", None),
        ] {
            let text = text_of(value.as_bytes());
            assert_eq!(text.as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }
}
