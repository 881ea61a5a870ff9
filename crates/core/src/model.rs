//! The rules a second time, for tests: written from the design's table of effects, in another shape, and without
//! a call to [`crate::rules`]. What both say is compared.

use crate::policy::{DisputablePolicy, LedgerConfig, LockedPolicy};
use crate::request::{Action, Request};
use alloc::collections::BTreeMap;

/// What the model knows of a customer: locked, and (available, held) by currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelCustomer {
    pub(crate) locked: bool,
    pub(crate) accounts: BTreeMap<u8, (i128, i128)>,
}

/// What the model knows of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModelTransaction {
    pub(crate) customer: u128,
    pub(crate) deposit: bool,
    pub(crate) amount: i128,
    pub(crate) currency: u8,
    /// `posted`, `disputed` or `charged_back`.
    pub(crate) status: &'static str,
}

/// A whole ledger, in plain maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) customers: BTreeMap<u128, ModelCustomer>,
    pub(crate) transactions: BTreeMap<u128, ModelTransaction>,
}

/// What an accepted request does: to whom, by how much, and the transaction afterwards.
struct Effect {
    currency: u8,
    available: i128,
    held: i128,
    locks: Option<bool>,
    transaction: Option<(u128, ModelTransaction)>,
}

const RANGE: core::ops::RangeInclusive<i128> = i64::MIN as i128..=i64::MAX as i128;

impl Model {
    /// The code of the outcome: `applied`, `already_applied`, or that of a rejection.
    pub(crate) fn outcome(&self, config: &LedgerConfig, request: &Request) -> &'static str {
        match self.effect(config, request) {
            Ok(_) => "applied",
            Err(code) => code,
        }
    }

    /// As [`Model::outcome`], and does it.
    pub(crate) fn apply(&mut self, config: &LedgerConfig, request: &Request) -> &'static str {
        let effect = match self.effect(config, request) {
            Ok(effect) => effect,
            Err(code) => return code,
        };
        let customer = self.customers.entry(request.customer.bits()).or_default();
        let account = customer.accounts.entry(effect.currency).or_default();
        *account = (account.0 + effect.available, account.1 + effect.held);
        customer.locked = effect.locks.unwrap_or(customer.locked);
        self.transactions.extend(effect.transaction);
        "applied"
    }

    fn effect(&self, config: &LedgerConfig, request: &Request) -> Result<Effect, &'static str> {
        let customer_id = request.customer.bits();
        let customer = self.customers.get(&customer_id);
        let locked = customer.is_some_and(|customer| customer.locked);
        let policy = config.policy.locked;
        let stopped = |nothing: bool, no_withdrawals: bool| match policy {
            _ if !locked => false,
            LockedPolicy::Nothing => nothing,
            LockedPolicy::NoWithdrawals => no_withdrawals,
            LockedPolicy::Frozen => true,
        };
        let account =
            |currency: u8| customer.and_then(|customer| customer.accounts.get(&currency)).copied().unwrap_or_default();
        let effect = match request.action {
            Action::Deposit(m) | Action::Withdrawal(m) => {
                let deposit = matches!(request.action, Action::Deposit(_));
                let amount = i128::from(m.amount.steps());
                let new = ModelTransaction {
                    customer: customer_id,
                    deposit,
                    amount,
                    currency: m.currency.0,
                    status: "posted",
                };
                if amount <= 0 {
                    return Err("amount_not_positive");
                } else if usize::from(m.currency.0) >= config.currencies.len() {
                    return Err("unknown_currency");
                } else if let Some(old) = self.transactions.get(&m.transaction.bits()) {
                    let repeat = ModelTransaction { status: "posted", ..*old } == new;
                    return Err(if repeat { "already_applied" } else { "transaction_id_taken" });
                } else if stopped(true, !deposit) {
                    return Err("customer_locked");
                } else if !deposit && account(m.currency.0).0 < amount {
                    return Err("insufficient_funds");
                }
                let available = if deposit { amount } else { -amount };
                let transaction = Some((m.transaction.bits(), new));
                Effect { currency: m.currency.0, available, held: 0, locks: None, transaction }
            }
            Action::Dispute(r) | Action::Resolve(r) | Action::Chargeback(r) => {
                let old = *self.transactions.get(&r.transaction.bits()).ok_or("unknown_transaction")?;
                let a = old.amount;
                if old.customer != customer_id {
                    return Err("other_customer");
                } else if r.currency.is_some_and(|currency| currency.0 != old.currency) {
                    return Err("currency_mismatch");
                } else if r.amount.is_some_and(|amount| i128::from(amount.steps()) != a) {
                    return Err("amount_mismatch");
                } else if stopped(matches!(request.action, Action::Dispute(_)), false) {
                    return Err("customer_locked");
                } else if !old.deposit && config.policy.disputable == DisputablePolicy::Deposits {
                    return Err("not_disputable");
                }
                let (available, held, status) = match (&request.action, old.status, old.deposit) {
                    (_, "charged_back", _) => return Err("charged_back"),
                    (Action::Dispute(_), "disputed", _) => return Err("already_disputed"),
                    (Action::Dispute(_), _, true) => (-a, a, "disputed"),
                    (Action::Dispute(_), _, false) => (0, a, "disputed"),
                    (_, "posted", _) => return Err("not_disputed"),
                    (Action::Resolve(_), _, true) => (a, -a, "posted"),
                    (Action::Resolve(_), _, false) => (0, -a, "posted"),
                    (_, _, true) => (0, -a, "charged_back"),
                    (_, _, false) => (a, -a, "charged_back"),
                };
                let locks = (status == "charged_back").then_some(true);
                let transaction = Some((r.transaction.bits(), ModelTransaction { status, ..old }));
                Effect { currency: old.currency, available, held, locks, transaction }
            }
            Action::Unlock => {
                let accounts = &customer.ok_or("unknown_customer")?.accounts;
                if !locked {
                    return Err("not_locked");
                }
                let currency = *accounts.keys().next().ok_or("unknown_customer")?;
                Effect { currency, available: 0, held: 0, locks: Some(false), transaction: None }
            }
        };
        let (available, held) = account(effect.currency);
        let (available, held) = (available + effect.available, held + effect.held);
        let fits = [available, held, available + held].iter().all(|steps| RANGE.contains(steps));
        if fits { Ok(effect) } else { Err("balance_overflow") }
    }
}
