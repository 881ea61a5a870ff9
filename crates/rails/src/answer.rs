//! What an answer of a rail means. Pure: status, type and body in, meaning out.
//!
//! An answer is one of three, and the third is the rule: *unknown*. Only two things are certain. A success that was read
//! to its end says that the rail has acted. A refusal is one of two statuses together with a body that no proxy, gateway
//! or framework would make by itself: JSON with `refused`, and the event's own id if it names one. Everything else,
//! whatever its status, says nothing about whether the rail has acted or will: 400, 401, 403, 404, 409, 413 and 429 come
//! from whatever stands before the rail as well, as do redirects and all of 5xx.

use bursar_core::commit::RailAnswer;
use bursar_core::{AbortReason, EventId, ReasonText};
use reqwest::StatusCode;
use serde_json::{Map, Value};

/// How much of an answer is read, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// A response as it came.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Whether it says that it is JSON.
    pub is_json: bool,
    /// Its body; an error in words if that did not come to its end, or was larger than [`BODY_BYTES_MAX`].
    pub body: Result<Vec<u8>, String>,
}

/// What is known after a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The rail has acted.
    Done,
    /// It has not, and never will for this event.
    Refused(String),
    /// Of a status address: it has never heard of the event. So it can be called.
    NeverHeardOf,
    /// Nothing is known; for people, why.
    Unknown(String),
}

impl Meaning {
    /// What the ledger is told; [`Err`]: that it is unknown, and why.
    pub fn into_answer(self) -> Result<RailAnswer, String> {
        match self {
            Self::Done => Ok(RailAnswer::Done),
            Self::Refused(reason) => Ok(RailAnswer::Refused(AbortReason::RailRefused(ReasonText::new(&reason)))),
            Self::NeverHeardOf => Err("the rail has not heard of it".to_owned()),
            Self::Unknown(why) => Err(why),
        }
    }
}

impl Response {
    /// The body's JSON object, if that is what it is.
    fn object(&self) -> Option<Map<String, Value>> {
        let body = self.body.as_ref().ok().filter(|_| self.is_json)?;
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Some(object),
            Ok(_) | Err(_) => None,
        }
    }

    fn unknown(&self, why: &str) -> Meaning {
        Meaning::Unknown(format!("{}: {why}", self.status))
    }
}

/// Whether an object is about this event, as far as it says so.
fn is_about(object: &Map<String, Value>, event: EventId) -> bool {
    object.get("event").is_none_or(|found| found.as_str() == Some(event.to_string().as_str()))
}

/// A reason, as one line: it goes into the chain, into logs and onto terminals, and not every store can hold a zero.
fn reason_in(object: &Map<String, Value>, field: &str) -> Option<String> {
    let reason = object.get(field)?.as_str()?.replace(char::is_control, " ");
    let reason = reason.trim();
    (!reason.is_empty()).then(|| reason.to_owned())
}

/// What the answer to a call means.
pub fn of_call(event: EventId, response: &Response) -> Meaning {
    if let Err(why) = &response.body {
        return response.unknown(why);
    }
    let object = response.object();
    let is_about = object.as_ref().is_none_or(|object| is_about(object, event));
    let refused = object.as_ref().and_then(|object| reason_in(object, "refused"));
    let says_refused = object.is_some_and(|object| object.contains_key("refused"));
    match response.status {
        _ if !is_about => response.unknown("the answer is about another event"),
        status if status.is_success() && says_refused => response.unknown("a success that says `refused`"),
        status if status.is_success() => Meaning::Done,
        StatusCode::PAYMENT_REQUIRED | StatusCode::UNPROCESSABLE_ENTITY => match refused {
            Some(reason) => Meaning::Refused(reason),
            None => response.unknown("no JSON with a reason in `refused`"),
        },
        _ => response.unknown("says neither done nor refused"),
    }
}

/// What the answer of a status address means. It must name the event: an answer may come from a cache.
pub fn of_status(event: EventId, response: &Response) -> Meaning {
    if let Err(why) = &response.body {
        return response.unknown(why);
    }
    if response.status != StatusCode::OK {
        return response.unknown("the status address says 200, or nothing");
    }
    let Some(object) = response.object() else { return response.unknown("the status address says no JSON") };
    if !object.contains_key("event") || !is_about(&object, event) {
        return response.unknown("the status address does not name this event");
    }
    match object.get("status").and_then(Value::as_str) {
        Some("done") => Meaning::Done,
        Some("refused") => match reason_in(&object, "reason") {
            Some(reason) => Meaning::Refused(reason),
            None => response.unknown("refused, and no `reason`"),
        },
        Some("unknown") => Meaning::NeverHeardOf,
        Some("pending") => response.unknown("the rail is still at it"),
        Some(_) | None => response.unknown("`status` is not done, refused, pending or unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> EventId {
        EventId::from_first_bits(7)
    }

    fn response(status: u16, is_json: bool, body: &str) -> Response {
        let body = body.replace("EVENT", &event().to_string());
        Response { status: StatusCode::from_u16(status).unwrap(), is_json, body: Ok(body.into_bytes()) }
    }

    fn name(meaning: &Meaning) -> &str {
        match meaning {
            Meaning::Done => "done",
            Meaning::Refused(reason) => reason,
            Meaning::NeverHeardOf => "never heard of",
            Meaning::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn an_answer_is_certain_or_unknown() {
        let refusal = r#"{"refused":"account closed"}"#;
        let table: &[(u16, bool, &str, &str)] = &[
            (200, false, "", "done"),
            (201, true, r#"{"id":"pay_1"}"#, "done"),
            (204, false, "", "done"),
            (200, false, "<html>hello</html>", "done"),
            (200, true, r#"{"event":"EVENT"}"#, "done"),
            (200, true, r#"{"event":"another"}"#, "unknown"),
            (200, true, refusal, "unknown"),
            (402, true, refusal, "account closed"),
            (422, true, refusal, "account closed"),
            (422, true, r#"{"refused":"account closed","event":"EVENT"}"#, "account closed"),
            (422, true, r#"{"refused":"account closed","event":"another"}"#, "unknown"),
            (422, true, r#"{"refused":"account closed","event":7}"#, "unknown"),
            (422, false, refusal, "unknown"),
            (422, true, r#"{"refused":"account\u0000closed\n"}"#, "account closed"),
            (422, true, r#"{"refused":"\u0000"}"#, "unknown"),
            (422, true, r#"{"refused":""}"#, "unknown"),
            (422, true, r#"{"refused":true}"#, "unknown"),
            (422, true, r#"{"error":"account closed"}"#, "unknown"),
            (422, true, r#"["refused"]"#, "unknown"),
            (422, true, r#"{"refused":"account clo"#, "unknown"),
            (422, true, "", "unknown"),
        ];
        for (status, is_json, body, expected) in table {
            let meaning = of_call(event(), &response(*status, *is_json, body));
            assert_eq!(name(&meaning), *expected, "{status} {body}");
        }
        // What stands before a rail says as well, with whatever body.
        for status in
            [100, 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 425, 429, 431, 451]
                .into_iter()
                .chain(500..=530)
        {
            let meaning = of_call(event(), &response(status, true, refusal));
            assert_eq!(name(&meaning), "unknown", "{status}");
        }
        for status in [200, 402, 422] {
            let cut = Response { body: Err("cut off".to_owned()), ..response(status, true, "") };
            assert_eq!(name(&of_call(event(), &cut)), "unknown", "{status}");
            assert_eq!(name(&of_status(event(), &cut)), "unknown", "{status}");
        }
    }

    #[test]
    fn a_status_address_names_the_event() {
        let table: &[(u16, bool, &str, &str)] = &[
            (200, true, r#"{"event":"EVENT","status":"done"}"#, "done"),
            (200, true, r#"{"event":"EVENT","status":"refused","reason":"no"}"#, "no"),
            (200, true, r#"{"event":"EVENT","status":"refused"}"#, "unknown"),
            (200, true, r#"{"event":"EVENT","status":"unknown"}"#, "never heard of"),
            (200, true, r#"{"event":"EVENT","status":"pending"}"#, "unknown"),
            (200, true, r#"{"event":"EVENT","status":"paid"}"#, "unknown"),
            (200, true, r#"{"status":"done"}"#, "unknown"),
            (200, true, r#"{"event":"another","status":"done"}"#, "unknown"),
            (200, false, r#"{"event":"EVENT","status":"done"}"#, "unknown"),
            (404, true, r#"{"event":"EVENT","status":"unknown"}"#, "unknown"),
            (206, true, r#"{"event":"EVENT","status":"done"}"#, "unknown"),
            (302, true, r#"{"event":"EVENT","status":"done"}"#, "unknown"),
        ];
        for (status, is_json, body, expected) in table {
            let meaning = of_status(event(), &response(*status, *is_json, body));
            assert_eq!(name(&meaning), *expected, "{status} {body}");
        }
    }
}
