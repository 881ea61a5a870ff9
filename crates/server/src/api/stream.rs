//! `GET /v1/events`: the events of the whole ledger, as they become durable, as server-sent events.
//!
//! A stream is a follower of the ledger with a client behind it. It reads on only when the client has taken what was read
//! before, so a client that is slow or far behind costs a page of memory, whatever it has still to read; one that takes
//! nothing is cut off by its connection.

use crate::follow::{Filter, Follower, Place, Waited};
use crate::metrics::Held;
use crate::params::{self, Params};
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::shown::Shown;
use crate::wire::{EventBody, event_body};
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bursar_core::{Currencies, CustomerId, EventStatus, RequestKind};
use bursar_engine::store::{FeedItem, FeedPosition};
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::io;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// A filtered stream says where it is after so many records, also if it wants none of them.
const SILENT_RECORDS_MAX: usize = 4_096;
/// What clients are told to wait before they connect again.
const RETRY_MS: u32 = 2_000;

/// What `GET /v1/events` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParams {
    /// Go on behind this position; `latest`: only what comes from now on; `beginning` (default): all there is. The header
    /// `Last-Event-ID`, which browsers send when they connect again, counts before it.
    after: Option<String>,
    /// Only events of this customer.
    #[param(value_type = Option<String>)]
    customer: Option<String>,
    /// Only events of this kind.
    #[param(value_type = Option<crate::wire::KindName>)]
    kind: Option<String>,
    /// Only events with this status.
    #[param(value_type = Option<crate::wire::StatusName>)]
    status: Option<String>,
    /// `false`: end where the ledger ends, instead of waiting for more.
    #[param(value_type = Option<bool>)]
    follow: Option<String>,
}

/// What happened to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) enum MessageType {
    /// It waits for its rail.
    #[serde(rename = "event.started")]
    Started,
    /// It is in effect.
    #[serde(rename = "event.done")]
    Done,
    /// It never took effect.
    #[serde(rename = "event.aborted")]
    Aborted,
}

impl MessageType {
    pub(crate) const fn of(status: &EventStatus) -> Self {
        match status {
            EventStatus::Started => Self::Started,
            EventStatus::Done | EventStatus::DoneByHand(_) => Self::Done,
            EventStatus::Aborted(_) => Self::Aborted,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Started => "event.started",
            Self::Done => "event.done",
            Self::Aborted => "event.aborted",
        }
    }
}

/// The `data` of a message.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventMessage)]
pub(crate) struct MessageBody<'a> {
    /// The place behind this event, to go on from; also the `id` of the message.
    #[schema(value_type = String)]
    position: Shown<FeedPosition>,
    r#type: MessageType,
    event: EventBody<'a>,
}

pub(crate) fn kinds(text: Option<&str>) -> Result<Vec<RequestKind>, Problem> {
    Ok(text.map(params::kind).transpose()?.into_iter().collect())
}

fn statuses(text: Option<&str>) -> Result<Vec<&'static str>, Problem> {
    let status = text.map(|text| params::one_of("status", text, &super::events::STATUSES, |status| status));
    Ok(status.transpose()?.into_iter().collect())
}

/// The events of the whole ledger, live, as server-sent events.
///
/// Each message has the position behind its event as `id`, its type as `event`, and an `EventMessage` as `data`. An event
/// that was done at once is there once, as `event.done`; one that waits for its rail is there as `event.started`, and
/// later as `event.done` or `event.aborted`. Resumed behind the last `id`, a stream has no gap and repeats nothing. A
/// block with an `id` and no `data` only says where the stream is; lines that begin with a colon say that it lives.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", operation_id = "streamEvents",
    params(StreamParams, ("Last-Event-ID" = Option<String>, Header, description = "As `after`; counts before it")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn follow(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    Params(params): Params<StreamParams>,
) -> Result<Response, Problem> {
    let customer = params.customer.as_deref().map(|text| CustomerId::parse(text.as_bytes())).transpose();
    let customer = customer.map_err(|error| crate::wire::Fault::bad_id("customer", error))?;
    let (kinds, statuses) = (kinds(params.kind.as_deref())?, statuses(params.status.as_deref())?);
    let follows = params.follow.as_deref().map_or(Ok(true), |text| params::flag("follow", text))?;
    let resumed = headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?")).filter(|text| !text.is_empty());
    let after = resumed.or(params.after.as_deref()).map_or(Ok(Place::Beginning), Place::parse)?;
    let Ok(permit) = service.streams.clone().try_acquire_owned() else {
        return Err(Problem::service(ServiceProblem::Busy, "too many streams of events are open"));
    };
    let position = service.read(move |ledger| after.find(ledger)).await?;
    let stream = Stream {
        held: (permit, Held::one(&service.metrics.event_streams)),
        filter: Filter { customer, kinds, statuses },
        told: position,
        silent_records: 0,
        last_sign: None,
        follower: Follower::new(service, position),
        follows,
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(stream, Stream::next)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, const { HeaderValue::from_static("text/event-stream") });
    headers.insert(CACHE_CONTROL, const { HeaderValue::from_static("no-store") });
    // For proxies that would otherwise gather an answer before they pass it on.
    headers.insert(HeaderName::from_static("x-accel-buffering"), const { HeaderValue::from_static("no") });
    Ok(response)
}

/// A stream on its way.
struct Stream {
    follower: Follower,
    filter: Filter,
    /// The position that the client has heard last.
    told: FeedPosition,
    /// Records passed since then.
    silent_records: usize,
    /// When something was sent last; `None`: nothing yet.
    last_sign: Option<Instant>,
    follows: bool,
    #[allow(dead_code, reason = "held as long as the stream lives")]
    held: (OwnedSemaphorePermit, Held),
}

impl Stream {
    /// What is sent next; `None` at the end.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        let text = match self.next_text().await {
            Ok(text) => Ok(text?.into()),
            Err(problem) => {
                if let Some(cause) = problem.cause() {
                    tracing::error!("a stream of events ended: {cause}");
                }
                // The client sees an answer that is cut off, and comes back.
                Err(io::Error::other("the events could not be read"))
            }
        };
        self.last_sign = Some(Instant::now());
        Some((text, self))
    }

    async fn next_text(&mut self) -> Result<Option<String>, Problem> {
        let Some(last_sign) = self.last_sign else {
            return Ok(Some(format!("retry: {RETRY_MS}\nid: {}\n\n", self.told)));
        };
        let heartbeat = last_sign + self.follower.service.limits.heartbeat;
        let service = self.follower.service.clone();
        loop {
            if service.is_stopping() {
                return Ok(None);
            }
            let before = self.follower.position;
            let page = self.follower.read().await?;
            self.follower.position = page.position;
            self.silent_records += page.items.len();
            let mut text = String::new();
            for item in page.items.iter().filter(|item| self.filter.takes(&item.entry)) {
                write_message(&mut text, item, service.currencies())?;
                (self.told, self.silent_records) = (item.position, 0);
            }
            if self.silent_records > SILENT_RECORDS_MAX {
                self.tell_position(&mut text);
            }
            if !text.is_empty() {
                return Ok(Some(text));
            }
            if page.position != before {
                continue;
            }
            if !self.follows {
                if self.told == page.position {
                    return Ok(None);
                }
                self.tell_position(&mut text);
                return Ok(Some(text));
            }
            match self.follower.wait(heartbeat).await {
                Waited::More => {}
                Waited::Stopping => return Ok(None),
                Waited::TimedOut => {
                    text.push_str(":\n\n");
                    if self.told != self.follower.position {
                        self.tell_position(&mut text);
                    }
                    return Ok(Some(text));
                }
            }
        }
    }

    /// Says where the stream is: what it has passed over need not be read again.
    fn tell_position(&mut self, text: &mut String) {
        (self.told, self.silent_records) = (self.follower.position, 0);
        // Writing to a `String` cannot fail.
        write!(text, "id: {}\n\n", self.told).unwrap_or_default();
    }
}

fn write_message(text: &mut String, item: &FeedItem, currencies: &Currencies) -> Result<(), Problem> {
    let r#type = MessageType::of(&item.entry.status);
    let body = MessageBody { position: Shown(item.position), r#type, event: event_body(&item.entry, currencies) };
    let json = serde_json::to_string(&body)
        .map_err(|error| Problem::service(ServiceProblem::Internal, format!("an event cannot be written: {error}")))?;
    // Writing to a `String` cannot fail; JSON has no line breaks.
    write!(text, "id: {}\nevent: {}\ndata: {json}\n\n", item.position, r#type.name()).unwrap_or_default();
    Ok(())
}
