//! `GET /v1/customers` and one of them.

use crate::api::Json;
use crate::cursor;
use crate::params::{self, NoParams, Params};
use crate::problem::{NotThere, Problem, ProblemDocument};
use crate::service::Service;
use crate::wire::{CustomerBody, Page, customer_body};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use bursar_core::CustomerId;
use bursar_engine::Ledger;
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
    let parse = |text: &String| CustomerId::parse(text.as_bytes());
    let parsed = place.after.as_ref().map(parse).transpose();
    let mut after = parsed.map_err(|_| Problem::plain(crate::problem::ServiceProblem::BadCursor))?;
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

/// One customer: its accounts, whether it is locked, and its head hash.
#[utoipa::path(
    get, path = "/v1/customers/{customer}", tag = "customers", operation_id = "getCustomer",
    params(("customer" = String, Path, description = "A number below 2^64, or a UUID")),
    responses(
        (status = 200, description = "The customer", body = CustomerBody<'_>, content_type = "application/json"),
        (status = 404, description = "Nothing was ever accepted for it", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn one(
    State(service): State<Arc<Service>>,
    path: Result<Path<String>, PathRejection>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json, Problem> {
    let customer = params::customer(path)?;
    let head = service.read(move |ledger| Ok(ledger.customer(customer)?)).await?;
    let head = head.ok_or(Problem::NotThere(NotThere::Customer(customer)))?;
    Json::of(&customer_body(customer, &head, service.currencies()))
}
