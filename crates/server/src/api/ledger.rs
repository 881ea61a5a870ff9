//! `GET /v1/ledger` and `GET /v1/pending`: what the ledger is, what it sums up to, and what waits.

use crate::api::Json;
use crate::cursor;
use crate::params::{self, NoParams, Params};
use crate::problem::{Problem, ProblemDocument};
use crate::service::Service;
use crate::shown::{HashText, Shown, sum};
use crate::wire::{EventBody, Page, code, linked_body};
use axum::extract::State;
use bursar_core::amount::AmountDisplay;
use bursar_core::{Currencies, CurrencyIndex, EventStatus};
use bursar_engine::CurrencyTotals;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

const LIST: &str = "pending";

/// What the ledger is, and what it sums up to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LedgerBody<'a> {
    /// The ledger's id: 32 hexadecimal digits.
    ledger: String,
    /// The digest that every chain begins with: it fixes id, policy and currencies.
    #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
    digest: HashText,
    policy: PolicyBody,
    currencies: Vec<CurrencyBody<'a>>,
    /// Customers with a chain.
    customers: u64,
    /// Deposits and withdrawals that were accepted.
    transactions: u64,
    /// Events that are done or aborted.
    events: u64,
}

/// The ledger's policy, chosen at its creation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyBody {
    /// What a locked customer may still do: `nothing`, `no_withdrawals` or `frozen`.
    #[schema(value_type = String)]
    locked: &'static str,
    /// What can be disputed: `deposits` or `deposits_and_withdrawals`.
    #[schema(value_type = String)]
    disputable: &'static str,
}

/// A currency and its sums. `total` is deposits - withdrawals - `deposits_charged_back` + `withdrawals_charged_back` +
/// `provisional`.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrencyBody<'a> {
    /// Not there in a ledger that names no currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String)]
    currency: Option<&'a str>,
    decimals: u8,
    #[schema(value_type = String)]
    deposits: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    withdrawals: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    deposits_charged_back: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    withdrawals_charged_back: Shown<AmountDisplay>,
    /// Credits given for withdrawals in dispute.
    #[schema(value_type = String)]
    provisional: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    available: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    held: Shown<AmountDisplay>,
    #[schema(value_type = String)]
    total: Shown<AmountDisplay>,
}

fn currency_body<'a>(currencies: &'a Currencies, index: CurrencyIndex, totals: &CurrencyTotals) -> CurrencyBody<'a> {
    CurrencyBody {
        currency: code(currencies, index),
        decimals: currencies.decimals(index).count(),
        deposits: sum(currencies, index, totals.deposits),
        withdrawals: sum(currencies, index, totals.withdrawals),
        deposits_charged_back: sum(currencies, index, totals.deposits_charged_back),
        withdrawals_charged_back: sum(currencies, index, totals.withdrawals_charged_back),
        provisional: sum(currencies, index, totals.provisional),
        available: sum(currencies, index, totals.available()),
        held: sum(currencies, index, totals.held),
        total: sum(currencies, index, totals.total),
    }
}

/// The ledger's policy, currencies and sums.
#[utoipa::path(
    get, path = "/v1/ledger", tag = "ledger", operation_id = "getLedger",
    responses(
        (status = 200, description = "The ledger", body = LedgerBody<'_>, content_type = "application/json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn info(
    State(service): State<Arc<Service>>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json, Problem> {
    let totals = service.read(|ledger| Ok(ledger.totals()?)).await?;
    let config = service.ledger.config();
    let currencies = &config.currencies;
    Json::of(&LedgerBody {
        ledger: format!("{:032x}", u128::from_be_bytes(config.ledger)),
        digest: HashText(config.digest()),
        policy: PolicyBody { locked: config.policy.locked.name(), disputable: config.policy.disputable.name() },
        currencies: currencies
            .iter()
            .map(|(index, _)| currency_body(currencies, index, &totals.currency(index)))
            .collect(),
        customers: totals.customer_count,
        transactions: totals.transaction_count,
        events: totals.event_count,
    })
}

/// What `GET /v1/pending` takes.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PendingParams {
    /// How many at the most, 1 to 1000 [default: 100].
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// Events that wait for their rail, by customer and place.
///
/// Until they are closed their customers wait as well; all others go on.
#[utoipa::path(
    get, path = "/v1/pending", tag = "ledger", operation_id = "listPending", params(PendingParams),
    responses(
        (status = 200, description = "A page", body = Page<EventBody<'_>>, content_type = "application/json"),
        (status = "4XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "Not read", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn pending(
    State(service): State<Arc<Service>>,
    Params(params): Params<PendingParams>,
) -> Result<Json, Problem> {
    let limit = params::limit(params.limit.as_deref())?;
    let after: Option<(String, u64)> = params.cursor.as_deref().map(|cursor| cursor::read(LIST, cursor)).transpose()?;
    let after = match after {
        Some((customer, seq)) => Some((
            bursar_core::CustomerId::parse(customer.as_bytes())
                .map_err(|_| Problem::plain(crate::problem::ServiceProblem::BadCursor))?,
            seq,
        )),
        None => None,
    };
    let mut open = service.read(|ledger| Ok(ledger.open_events()?)).await?;
    open.sort_by_key(|linked| (linked.event.customer, linked.event.seq));
    open.retain(|linked| after.is_none_or(|after| (linked.event.customer, linked.event.seq) > after));
    let has_more = open.len() > limit;
    open.truncate(limit);
    let last = open.last().filter(|_| has_more).map(|linked| (linked.event.customer.to_string(), linked.event.seq));
    let next = last.map(|place| cursor::write(LIST, &place)).transpose()?;
    let currencies = service.currencies();
    let items = open.iter().map(|linked| linked_body(linked, &EventStatus::Started, currencies)).collect();
    Json::of(&Page { items, next })
}
