//! `GET /v1/customers` and one of them.

use crate::api::Json;
use crate::cursor;
use crate::params::{self, Params};
use crate::problem::{NotThere, Problem, ProblemDocument, ServiceProblem};
use crate::service::Service;
use crate::wire::{CustomerBody, Page, customer_body};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bursar_core::{CustomerId, Head};
use bursar_engine::{AsOf, Ledger};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::IntoParams;

const LIST: &str = "customers";
/// Customers that one call looks at when it filters.
const SCANNED_MAX: usize = 10_000;
const READ_AT_ONCE: usize = 1_000;

/// What `GET /v1/customers` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// How many at the most, 1 to 1000 [default: 100].
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// `next` of the page before. It carries the filters: give no others with it.
    cursor: Option<String>,
    /// Only customers that are locked, or are not.
    #[param(value_type = Option<bool>)]
    locked: Option<String>,
}

/// Where the list goes on.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    /// After this customer.
    after: Option<String>,
    locked: Option<bool>,
}

/// All customers, in order of id.
///
/// Stable under writes: no customer is there twice, and none that was there at the beginning is missing.
#[utoipa::path(
    get, path = "/v1/customers", tag = "customers", operation_id = "listCustomers", params(ListParams),
    responses(
        (status = 200, description = "A page", body = Page<CustomerBody<'_>>, content_type = "application/json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(service): State<Arc<Service>>,
    Params(params): Params<ListParams>,
) -> Result<Json, Problem> {
    let limit = params::limit(params.limit.as_deref())?;
    let place = match (&params.cursor, &params.locked) {
        (Some(cursor), None) => cursor::read(LIST, cursor)?,
        (Some(_), Some(_)) => return Err(params::bad("a cursor carries its filters; give none with it")),
        (None, locked) => {
            let locked = locked.as_deref().map(|text| params::flag("locked", text)).transpose()?;
            Place { after: None, locked }
        }
    };
    service.read(move |ledger| read_page(ledger, &place, limit)).await
}

fn read_page(ledger: &Ledger, place: &Place, limit: usize) -> Result<Json, Problem> {
    let currencies = &ledger.config().currencies;
    let mut after = place.after.as_deref().map(cursor::customer).transpose()?;
    let (mut heads, mut scanned) = (Vec::new(), 0);
    // One more than asked for says whether there is more.
    let mut more = true;
    while more && heads.len() < limit && scanned < SCANNED_MAX {
        let count = if place.locked.is_none() { limit } else { READ_AT_ONCE };
        let page = ledger.customers(after, count)?;
        more = page.len() == count;
        for found in page {
            if heads.len() == limit {
                more = true;
                break;
            }
            (scanned, after) = (scanned + 1, Some(found.customer));
            if place.locked.is_none_or(|locked| locked == found.head.state.locked) {
                heads.push(found);
            }
        }
    }
    if more {
        more = !ledger.customers(after, 1)?.is_empty();
    }
    let next = Place { after: after.map(|customer| customer.to_string()), locked: place.locked };
    let items = heads.iter().map(|found| customer_body(found.customer, &found.head, currencies)).collect();
    let next = more.then(|| cursor::write(LIST, &next)).transpose()?;
    Json::of(&Page { items, next })
}

/// What `GET /v1/customers/{customer}` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OneParams {
    /// As it was after this event; behind the newest one, as it is.
    #[param(value_type = Option<u64>, minimum = 1)]
    seq: Option<String>,
    /// As it was at this time (RFC 3339): after the last event that is not later.
    #[param(value_type = Option<String>, format = "date-time")]
    at: Option<String>,
}

/// One customer: its accounts, whether it is locked, and its head hash; now, or as it was.
///
/// In the past, an event counts from the time when it was begun, by how it stands now: one that waited for its rail and
/// is done now was in effect then.
#[utoipa::path(
    get, path = "/v1/customers/{customer}", tag = "customers", operation_id = "getCustomer",
    params(("customer" = String, Path, description = "A number below 2^64, or a UUID"), OneParams),
    responses(
        (status = 200, description = "The customer", body = CustomerBody<'_>, content_type = "application/json"),
        (status = 404, description = "Nothing was accepted for it, ever or by then", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(params): Params<OneParams>,
) -> Result<Json, Problem> {
    let customer = params::customer(path)?;
    let as_of = match (&params.seq, &params.at) {
        (None, None) => None,
        (Some(seq), None) => Some(AsOf::Seq(params::seq("seq", seq)?)),
        (None, Some(at)) => Some(AsOf::TimeMs(params::time_until("at", at)?)),
        (Some(_), Some(_)) => return Err(params::bad("give seq or at, not both")),
    };
    let head = service.read(move |ledger| read_one(ledger, customer, as_of)).await?;
    Json::of(&customer_body(customer, &head, service.currencies()))
}

fn read_one(ledger: &Ledger, customer: CustomerId, as_of: Option<AsOf>) -> Result<Head, Problem> {
    let now = ledger.customer(customer)?.ok_or(Problem::NotThere(NotThere::Customer(customer)))?;
    let Some(as_of) = as_of else { return Ok(now) };
    ledger.head_as_of(customer, as_of)?.ok_or_else(|| Problem::plain(ServiceProblem::NoAccountThen))
}
