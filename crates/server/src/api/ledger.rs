//! `GET /v1/ledger`: what the ledger is, and what it sums up to.

use crate::api::Json;
use crate::params::{NoParams, Params};
use crate::problem::{Problem, ProblemDocument};
use crate::service::Service;
use crate::shown::{HashText, Shown, sum};
use crate::wire::code;
use axum::extract::State;
use bursar_core::amount::AmountDisplay;
use bursar_core::{Currencies, CurrencyIndex};
use bursar_engine::CurrencyTotals;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

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
