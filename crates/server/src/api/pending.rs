//! `/v1/pending`: events that wait for their rails, and how an operator settles one by hand.

use crate::api::{Json, body};
use crate::cursor;
use crate::params::{self, NoParams, Params};
use crate::problem::{Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::shown::{Shown, Time};
use crate::wire::{EventBody, Page, linked_body};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request as HttpRequest, State};
use bursar_core::commit::{Asking, Settlement};
use bursar_core::event::REASON_BYTES_MAX;
use bursar_core::{Currencies, CustomerId, EventId, EventStatus, ReasonText};
use bursar_engine::{LastAnswer, PendingEvent, Settled};
use bursar_outbound::now_ms;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

const LIST: &str = "pending";

/// An event that waits for its rail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PendingBody<'a> {
    #[serde(flatten)]
    event: EventBody<'a>,
    waits: WaitsBody,
}

/// How it stands about an event and its rail.
#[derive(Debug, Serialize, ToSchema)]
struct WaitsBody {
    /// What the rail is called in `bursar.toml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    rail: Option<String>,
    /// Whether the event's rail is in `bursar.toml`. If not, nobody asks it, and its customer stays locked.
    configured: bool,
    #[schema(value_type = AskingName)]
    asking: &'static str,
    /// How many times the rail was called since the service was started.
    calls: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = AnswerBody)]
    last_answer: Option<AnswerBody>,
    /// When the rail is called next, if it is not being called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "date-time")]
    next_call: Option<Time>,
    /// Until when the rail is called of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, format = "date-time")]
    deadline: Option<Time>,
    /// It is past its deadline: an operator has to settle it.
    past_deadline: bool,
    /// How many requests of the customer wait behind it.
    requests_behind: usize,
}

/// Whether a rail is being asked.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "for the document: values are the names alone")]
pub(crate) enum AskingName {
    /// A call is under way.
    UnderWay,
    /// It will be called at `next_call`.
    Scheduled,
    /// It is not called any more.
    Stopped,
}

/// The last answer that said nothing certain.
#[derive(Debug, Serialize, ToSchema)]
struct AnswerBody {
    #[schema(value_type = String, format = "date-time")]
    time: Time,
    /// What is known of it.
    said: String,
}

fn pending_body(waiting: PendingEvent, now_ms: u64, currencies: &Currencies) -> PendingBody<'_> {
    let PendingEvent { pending, rail_name, is_configured, last_answer } = waiting;
    let (asking, next_call) = match pending.asking {
        Asking::UnderWay => ("under_way", None),
        Asking::At(at_ms) => ("scheduled", Some(Time(at_ms))),
        Asking::Stopped => ("stopped", None),
    };
    let waits = WaitsBody {
        rail: rail_name,
        configured: is_configured,
        asking,
        calls: pending.call_count,
        last_answer: last_answer.map(|LastAnswer { time_ms, said }| AnswerBody { time: Time(time_ms), said }),
        next_call,
        deadline: pending.deadline_ms.map(Time),
        past_deadline: pending.deadline_ms.is_some_and(|deadline_ms| now_ms >= deadline_ms),
        requests_behind: pending.waiting_count,
    };
    PendingBody { event: linked_body(&pending.linked, &EventStatus::Started, currencies), waits }
}

/// What `GET /v1/pending` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// How many at the most, 1 to 1000 [default: 100].
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// `next` of the page before. It carries the filters: give no others with it.
    cursor: Option<String>,
    /// Only events of this kind.
    #[param(value_type = Option<crate::wire::KindName>)]
    kind: Option<String>,
    /// Only events that wait for this rail: its name in `bursar.toml`, or its number.
    rail: Option<String>,
    /// Only events at or after this time (RFC 3339).
    #[param(value_type = Option<String>, format = "date-time")]
    since: Option<String>,
    /// Only events before this time (RFC 3339).
    #[param(value_type = Option<String>, format = "date-time")]
    until: Option<String>,
}

/// Where the list goes on, and what it filters.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// Behind this customer's event at this place.
    after: Option<(String, u64)>,
    kind: Option<String>,
    rail: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

impl Place {
    fn of(params: &ListParams) -> Result<Self, Problem> {
        let time = |name, text: &Option<String>| text.as_ref().map(|text| params::time(name, text)).transpose();
        let kind = params.kind.as_deref().map(params::kind).transpose()?;
        Ok(Self {
            after: None,
            kind: kind.map(|kind| kind.name().to_owned()),
            rail: params.rail.clone(),
            since_ms: time("since", &params.since)?,
            until_ms: time("until", &params.until)?,
        })
    }

    fn takes(&self, waiting: &PendingEvent) -> bool {
        let PendingEvent { pending, rail_name, .. } = waiting;
        let event = &pending.linked.event;
        let is_rail = |rail: &str| rail_name.as_deref() == Some(rail) || pending.rail.number().to_string() == rail;
        self.kind.as_ref().is_none_or(|kind| kind == event.kind.name())
            && self.rail.as_deref().is_none_or(is_rail)
            && self.since_ms.is_none_or(|since_ms| event.time_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| event.time_ms < until_ms)
    }
}

/// Events that wait for their rail, by customer and place.
///
/// Until they are closed their customers wait as well; all others go on.
#[utoipa::path(
    get, path = "/v1/pending", tag = "ledger", operation_id = "listPending", params(ListParams),
    responses(
        (status = 200, description = "A page", body = Page<PendingBody<'_>>, content_type = "application/json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    Params(params): Params<ListParams>,
) -> Result<Json, Problem> {
    let limit = params::limit(params.limit.as_deref())?;
    let ListParams { cursor, kind, rail, since, until, .. } = &params;
    let place = match cursor {
        Some(_) if [kind, rail, since, until].into_iter().any(Option::is_some) => {
            return Err(params::bad("a cursor carries its filters; give none with it"));
        }
        Some(cursor) => cursor::read(LIST, cursor)?,
        None => Place::of(&params)?,
    };
    let after = match &place.after {
        Some((customer, seq)) => Some((cursor::customer(customer)?, *seq)),
        None => None,
    };
    let mut open = service.read(|ledger| Ok(ledger.pending()?)).await?;
    let at = |waiting: &PendingEvent| (waiting.pending.linked.event.customer, waiting.pending.linked.event.seq);
    open.retain(|waiting| after.is_none_or(|after| at(waiting) > after) && place.takes(waiting));
    open.sort_by_key(at);
    let has_more = open.len() > limit;
    open.truncate(limit);
    let last = open.last().filter(|_| has_more).map(at).map(|(customer, seq)| (customer.to_string(), seq));
    let next = last.map(|last| cursor::write(LIST, &Place { after: Some(last), ..place })).transpose()?;
    let (now_ms, currencies) = (now_ms(), service.currencies());
    let items = open.into_iter().map(|waiting| pending_body(waiting, now_ms, currencies)).collect();
    Json::of(&Page { items, next })
}

/// How an operator settles an event, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettleBody {
    r#as: EndName,
    /// Why; it goes into the customer's chain. At most 255 bytes, one line.
    #[schema(min_length = 1, max_length = 255)]
    reason: String,
}

/// How an event ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EndName {
    /// The rail has acted.
    Done,
    /// The rail has not acted, and never will.
    Aborted,
}

/// An event that is closed as it was asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SettledBody {
    #[schema(value_type = String)]
    customer: Shown<CustomerId>,
    #[schema(minimum = 1)]
    seq: u64,
    #[schema(value_type = String, format = "uuid")]
    event: Shown<EventId>,
    #[schema(value_type = EndName)]
    status: &'static str,
    /// The reason that is in the chain.
    reason: String,
    /// It was settled like this before, with that reason.
    repeated: bool,
}

/// Settles an event by hand that waits for its rail.
///
/// For what a rail will never tell: ask it first, by the event's id. `done` says that the rail has acted, `aborted` that it
/// has not and never will; nobody can check that. The first end counts: if the rail answers at the same moment, or another
/// operator was faster, this is 409 and says how the event ended.
#[utoipa::path(
    post, path = "/v1/pending/{event}/settle", tag = "ledger", operation_id = "settlePending",
    params(("event" = String, Path, description = "The event's id", format = "uuid")),
    request_body(content = SettleBody, content_type = "application/json"),
    responses(
        (status = 200, description = "It is closed as asked, durably", body = SettledBody, content_type = "application/json"),
        (status = 404, description = "No such event waits for a rail", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "It was closed otherwise", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not settled", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not settled, or not known", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn settle(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
    http: HttpRequest,
) -> Result<Json, Problem> {
    let unknown = || Problem::plain(ServiceProblem::NotPending);
    let event = path.ok().and_then(|Path(event)| EventId::parse(event.as_bytes())).ok_or_else(unknown)?;
    let settlement = settlement(body::json(&service, http).await?)?;
    let Settled { event, status, is_repeat } =
        service.read(move |ledger| Ok(ledger.settle(event, settlement)?)).await?;
    tracing::info!(event = %event.id, customer = %event.customer, status = status.name(), "settled by hand");
    Json::of(&SettledBody {
        customer: Shown(event.customer),
        seq: event.seq,
        event: Shown(event.id),
        status: status.name(),
        reason: status.by_hand().unwrap_or_default().to_owned(),
        repeated: is_repeat,
    })
}

fn settlement(SettleBody { r#as: end, reason }: SettleBody) -> Result<Settlement, Problem> {
    let reason = ReasonText::of_operator(&reason).ok_or_else(|| {
        let why = format!("reason must be one line of 1 to {REASON_BYTES_MAX} bytes");
        Problem::service(ServiceProblem::BadField, why)
    })?;
    Ok(match end {
        EndName::Done => Settlement::Done(reason),
        EndName::Aborted => Settlement::Aborted(reason),
    })
}
