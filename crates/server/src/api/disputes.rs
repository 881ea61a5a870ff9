//! `GET /v1/disputes` and `GET /v1/customers/{customer}/disputes`: what is disputed and not decided.
//!
//! There is no index of disputes, and none is needed: what an account has on hold is the sum of its open disputes. So a
//! customer who has nothing on hold is passed over, and a chain is read from its newest event back only until the disputes
//! found add up to what is held. A call looks at a bounded number of customers and events; a page can be short, and says so.

use crate::api::Json;
use crate::cursor;
use crate::limits::EVENTS_SCANNED_MAX;
use crate::params::{self, Params};
use crate::problem::{NotThere, Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::wire::{EventBody, Page, event_body};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bursar_core::{CustomerId, EventStatus, Head, RequestKind, TransactionStatus};
use bursar_engine::Ledger;
use bursar_engine::store::{ChainEntry, ReadRange};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::IntoParams;

const LIST: &str = "disputes";
/// Customers that one call looks at.
const CUSTOMERS_SCANNED_MAX: u64 = 10_000;
const CUSTOMERS_AT_ONCE: usize = 1_000;
const EVENTS_AT_ONCE: usize = 512;

/// What lists of disputes take.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// How many at the most, 1 to 1000 [default: 100].
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Where a list goes on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// The one customer whose disputes are listed; `None`: all customers.
    only: Option<String>,
    /// The customers up to this one are done with.
    after: Option<String>,
    /// Where in a chain it goes on.
    chain: Option<ChainPlace>,
}

/// Where in a customer's chain a list goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainPlace {
    customer: String,
    /// The newest event when the list came to this chain. Later ones are not in it.
    newest: u64,
    /// The next event to look at.
    seq: u64,
    /// What is on hold and not explained yet, by currency, in smallest steps.
    held: Vec<(u8, i64)>,
}

impl ChainPlace {
    /// `None` where nothing is on hold.
    fn of(customer: CustomerId, head: &Head) -> Option<Self> {
        let held = head.state.accounts.iter().map(|(currency, account)| (currency.0, account.held.steps()));
        let held: Vec<_> = held.filter(|(_, steps)| *steps > 0).collect();
        (!held.is_empty()).then(|| Self { customer: customer.to_string(), newest: head.seq, seq: head.seq, held })
    }

    fn is_at_end(&self) -> bool {
        self.seq == 0 || self.held.iter().all(|(_, steps)| *steps <= 0)
    }
}

/// What one call may still do.
struct Reading<'a> {
    ledger: &'a Ledger,
    limit: usize,
    events_left: u64,
    found: Vec<ChainEntry>,
}

impl Reading<'_> {
    const fn has_room(&self) -> bool {
        self.found.len() < self.limit && self.events_left > 0
    }

    /// Goes back along a chain, as far as this call may.
    fn read_chain(&mut self, place: &mut ChainPlace) -> Result<(), Problem> {
        let customer = cursor::customer(&place.customer)?;
        while self.has_room() && !place.is_at_end() {
            let range = ReadRange { from_seq: 1, to_seq: place.seq, limit: EVENTS_AT_ONCE, newest_first: true };
            let entries = self.ledger.chain(customer, range)?;
            if entries.is_empty() {
                place.seq = 0;
            }
            for entry in entries {
                if !self.has_room() || place.is_at_end() {
                    break;
                }
                self.events_left -= 1;
                place.seq = entry.linked.event.seq - 1;
                if self.is_open(&entry, place.newest)? {
                    let event = &entry.linked.event;
                    for (_, steps) in place.held.iter_mut().filter(|(currency, _)| *currency == event.currency.0) {
                        *steps = steps.saturating_sub(event.amount.steps());
                    }
                    self.found.push(entry);
                }
            }
        }
        Ok(())
    }

    /// Whether this is the dispute that its transaction is in now, as far as a list goes that began at `newest`.
    fn is_open(&self, entry: &ChainEntry, newest: u64) -> Result<bool, Problem> {
        let event = &entry.linked.event;
        let (RequestKind::Dispute, EventStatus::Done, Some(transaction)) =
            (event.kind, &entry.status, event.transaction)
        else {
            return Ok(false);
        };
        let Some(view) = self.ledger.transaction(transaction)? else { return Ok(false) };
        let is_disputed = view.state.is_some_and(|state| state.status == TransactionStatus::Disputed);
        let last = view.events.iter().rev().find(|other| other.seq <= newest);
        Ok(is_disputed && last.is_some_and(|last| last.seq == event.seq))
    }
}

fn read_page(ledger: &Ledger, mut place: Place, limit: usize) -> Result<Json, Problem> {
    let mut reading = Reading { ledger, limit, events_left: EVENTS_SCANNED_MAX, found: Vec::new() };
    let mut customers_left = CUSTOMERS_SCANNED_MAX;
    let mut waiting = Vec::new().into_iter();
    let has_more = loop {
        if let Some(chain) = &mut place.chain {
            reading.read_chain(chain)?;
            if !chain.is_at_end() {
                break true;
            }
            place.after = Some(chain.customer.clone());
            place.chain = None;
        }
        if place.only.is_some() {
            break false;
        }
        if !reading.has_room() || customers_left == 0 {
            break true;
        }
        let Some(next): Option<bursar_engine::store::CustomerHead> = waiting.next() else {
            let after = place.after.as_deref().map(cursor::customer).transpose()?;
            waiting = ledger.customers(after, CUSTOMERS_AT_ONCE)?.into_iter();
            if waiting.len() == 0 {
                break false;
            }
            continue;
        };
        customers_left -= 1;
        place.after = Some(next.customer.to_string());
        place.chain = ChainPlace::of(next.customer, &next.head);
    };
    let next = has_more.then(|| cursor::write(LIST, &place)).transpose()?;
    let currencies = &ledger.config().currencies;
    Json::of(&Page { items: reading.found.iter().map(|entry| event_body(entry, currencies)).collect(), next })
}

/// A customer's open disputes, newest first: the events by which they began.
///
/// A call looks at up to 4,096 events: a page can be short, or empty, and still have `next`.
#[utoipa::path(
    get, path = "/v1/customers/{customer}/disputes", tag = "customers", operation_id = "listCustomerDisputes",
    params(("customer" = String, Path, description = "A number below 2^64, or a UUID"), ListParams),
    responses(
        (status = 200, description = "A page", body = Page<EventBody<'_>>, content_type = "application/json"),
        (status = 404, description = "Nothing was ever accepted for it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn of_customer(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(params): Params<ListParams>,
) -> Result<Json, Problem> {
    let customer = params::customer(path)?;
    let limit = params::limit(params.limit.as_deref())?;
    let place: Option<Place> = params.cursor.as_deref().map(|text| cursor::read(LIST, text)).transpose()?;
    let only = Some(customer.to_string());
    if place.as_ref().is_some_and(|place| place.only != only) {
        return Err(Problem::plain(ServiceProblem::BadCursor));
    }
    let read = move |ledger: &Ledger| {
        let head = ledger.customer(customer)?.ok_or(Problem::NotThere(NotThere::Customer(customer)))?;
        let place = place.unwrap_or_else(|| Place { only, after: None, chain: ChainPlace::of(customer, &head) });
        read_page(ledger, place, limit)
    };
    service.read(read).await
}

/// All open disputes, by customer, each customer's newest first: the events by which they began.
///
/// A call looks at up to 10,000 customers and 4,096 events: a page can be short, or empty, and still have `next`.
#[utoipa::path(
    get, path = "/v1/disputes", tag = "ledger", operation_id = "listDisputes", params(ListParams),
    responses(
        (status = 200, description = "A page", body = Page<EventBody<'_>>, content_type = "application/json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn of_all(
    State(service): State<Arc<Service>>,
    Params(params): Params<ListParams>,
) -> Result<Json, Problem> {
    let limit = params::limit(params.limit.as_deref())?;
    let place: Option<Place> = params.cursor.as_deref().map(|text| cursor::read(LIST, text)).transpose()?;
    if place.as_ref().is_some_and(|place| place.only.is_some()) {
        return Err(Problem::plain(ServiceProblem::BadCursor));
    }
    service.read(move |ledger| read_page(ledger, place.unwrap_or_default(), limit)).await
}
