//! `GET /v1/customers/{customer}/events`: a chain, page by page, filtered.
//!
//! A cursor is the sequence number of the next event to look at, with the filters. A chain only grows at its newer end,
//! so a page never moves: newest first, later events do not show up in later pages; oldest first, they come last.

use crate::api::Json;
use crate::cursor;
use crate::limits::EVENTS_SCANNED_MAX;
use crate::params::{self, Params};
use crate::problem::{NotThere, Problem, ProblemDocument};
use crate::service::Service;
use crate::wire::{EventBody, Page, event_body};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bursar_core::{CustomerId, RequestKind};
use bursar_engine::Ledger;
use bursar_engine::store::{ChainEntry, ReadRange};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::IntoParams;

const LIST: &str = "events";
const READ_AT_ONCE: u64 = 512;
pub(crate) const STATUSES: [&str; 3] = ["started", "done", "aborted"];

/// What the list of events takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// How many at the most, 1 to 1000 [default: 100].
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// `next` of the page before. It carries order and filters: give no others with it.
    cursor: Option<String>,
    /// `newest` (default) or `oldest` first.
    #[param(value_type = Option<Order>)]
    order: Option<String>,
    /// Only events of this kind.
    #[param(value_type = Option<crate::wire::KindName>)]
    kind: Option<String>,
    /// Only events with this status.
    #[param(value_type = Option<crate::wire::StatusName>)]
    status: Option<String>,
    /// Only events at or after this time (RFC 3339).
    #[param(value_type = Option<String>, format = "date-time")]
    since: Option<String>,
    /// Only events before this time (RFC 3339).
    #[param(value_type = Option<String>, format = "date-time")]
    until: Option<String>,
}

/// Which event comes first.
#[derive(Debug, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
#[allow(dead_code, reason = "it is there for the document")]
pub(crate) enum Order {
    Newest,
    Oldest,
}

/// Where a list goes on, and what it filters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    customer: String,
    newest_first: bool,
    /// The next event to look at; `None`: the first one of the list.
    seq: Option<u64>,
    kind: Option<String>,
    status: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
}

impl Place {
    fn of(customer: CustomerId, params: &ListParams) -> Result<Self, Problem> {
        let named = |name, text: &Option<String>, known: &[&'static str]| {
            text.as_ref().map(|text| params::one_of(name, text, known, |known| known).map(str::to_owned)).transpose()
        };
        let order = named("order", &params.order, &["newest", "oldest"])?;
        let time = |name, text: &Option<String>| text.as_ref().map(|text| params::time(name, text)).transpose();
        Ok(Self {
            customer: customer.to_string(),
            newest_first: order.is_none_or(|order| order == "newest"),
            seq: None,
            kind: named("kind", &params.kind, &RequestKind::ALL.map(RequestKind::name))?,
            status: named("status", &params.status, &STATUSES)?,
            since_ms: time("since", &params.since)?,
            until_ms: time("until", &params.until)?,
        })
    }

    fn takes(&self, entry: &ChainEntry) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == entry.linked.event.kind.name())
            && self.status.as_ref().is_none_or(|status| *status == entry.status.name())
    }
}

/// The events of a customer.
///
/// Filters look at up to 4,096 events per call: a page can be short, or empty, and still have `next`.
#[utoipa::path(
    get, path = "/v1/customers/{customer}/events", tag = "customers", operation_id = "listEvents",
    params(("customer" = String, Path, description = "A number below 2^64, or a UUID"), ListParams),
    responses(
        (status = 200, description = "A page", body = Page<EventBody<'_>>, content_type = "application/json"),
        (status = 404, description = "Nothing was ever accepted for it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(params): Params<ListParams>,
) -> Result<Json, Problem> {
    let customer = params::customer(path)?;
    let limit = params::limit(params.limit.as_deref())?;
    let ListParams { cursor, order, kind, status, since, until, .. } = &params;
    let place = match cursor {
        Some(_) if [order, kind, status, since, until].into_iter().any(Option::is_some) => {
            return Err(params::bad("a cursor carries its order and its filters; give none with it"));
        }
        Some(cursor) => {
            let place: Place = cursor::read(LIST, cursor)?;
            if place.customer != customer.to_string() {
                return Err(Problem::plain(crate::problem::ServiceProblem::BadCursor));
            }
            place
        }
        None => Place::of(customer, &params)?,
    };
    service.read(move |ledger| read_page(ledger, customer, place, limit)).await
}

fn read_page(ledger: &Ledger, customer: CustomerId, mut place: Place, limit: usize) -> Result<Json, Problem> {
    let Some(head) = ledger.customer(customer)? else { return Err(Problem::NotThere(NotThere::Customer(customer))) };
    let newest = head.seq + head.open.len() as u64;
    // Both ends of what is asked for, by time; `high` is the last one that is in it.
    let low = place.since_ms.map_or(Ok(1), |ms| first_at(ledger, customer, newest, ms))?;
    let high = place.until_ms.map_or(Ok(newest + 1), |ms| first_at(ledger, customer, newest, ms))? - 1;
    let (mut low, mut high) = match (place.seq, place.newest_first) {
        (Some(seq), true) => (low, high.min(seq)),
        (Some(seq), false) => (low.max(seq), high),
        (None, _) => (low, high),
    };
    let (mut found, mut scanned) = (Vec::new(), 0);
    while low <= high && found.len() < limit && scanned < EVENTS_SCANNED_MAX {
        let range =
            ReadRange { from_seq: low, to_seq: high, limit: READ_AT_ONCE as usize, newest_first: place.newest_first };
        let entries = ledger.chain(customer, range)?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            if found.len() == limit {
                break;
            }
            scanned += 1;
            if place.newest_first {
                high = entry.linked.event.seq - 1;
            } else {
                low = entry.linked.event.seq + 1;
            }
            if place.takes(&entry) {
                found.push(entry);
            }
        }
    }
    place.seq = Some(if place.newest_first { high } else { low });
    let next = (low <= high).then(|| cursor::write(LIST, &place)).transpose()?;
    let currencies = &ledger.config().currencies;
    Json::of(&Page { items: found.iter().map(|entry| event_body(entry, currencies)).collect(), next })
}

/// The first event at or after a time; one behind the newest if there is none.
fn first_at(ledger: &Ledger, customer: CustomerId, newest: u64, time_ms: u64) -> Result<u64, Problem> {
    Ok(time_ms.checked_sub(1).map_or(Ok(1), |before| ledger.first_after(customer, newest, before))?)
}
