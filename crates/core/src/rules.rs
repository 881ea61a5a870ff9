//! The rules of money: from a customer's state, a transaction's state and a request to a change, or to a
//! rejection.
//!
//! Pure: nothing is read and nothing is written here. Reading the state first, and making the change last,
//! is the business of [`crate::commit`]; what a rejection is called is in [`crate::rejection`].

use crate::account::{Account, CustomerState};
use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use crate::id::TransactionId;
use crate::planted::{Planted, is_planted};
use crate::policy::{DisputablePolicy, LedgerConfig, LockedPolicy};
use crate::rejection::Rejection;
use crate::request::{Action, Movement, Reference, Request, RequestKind};
use crate::transaction::{TransactionKind, TransactionState, TransactionStatus};

/// What is known of the transaction a request is about, after the table's entry was settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known<'a> {
    /// Its state, if it exists.
    pub state: Option<&'a TransactionState>,
    /// An open event of another customer proposes to make it: the id is taken until that is decided.
    pub reserved: bool,
}

/// What a request leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// This change, as one event.
    Change(Change),
    /// Nothing: it was done before.
    AlreadyApplied,
}

/// All that an accepted request changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The kind of the event.
    pub kind: RequestKind,
    /// The currency whose account changes. For an unlock: the customer's first.
    pub currency: CurrencyIndex,
    /// The amount of the transaction; zero for an unlock.
    pub amount: Amount,
    /// The transaction and its new state; an unlock has none.
    pub transaction: Option<(TransactionId, TransactionState)>,
    /// The customer's state afterwards.
    pub state: CustomerState,
}

/// What an accepted request does to the one account it concerns: a [`Change`] without the customer's other accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The kind of the event.
    pub kind: RequestKind,
    /// The currency whose account changes. For an unlock: the customer's first.
    pub currency: CurrencyIndex,
    /// The amount of the transaction; zero for an unlock.
    pub amount: Amount,
    /// The transaction and its new state; an unlock has none.
    pub transaction: Option<(TransactionId, TransactionState)>,
    /// The account afterwards.
    pub account: Account,
    /// Whether the customer is locked afterwards.
    pub locked: bool,
}

impl Effect {
    /// The change that it makes of the customer's whole state.
    pub fn change(&self, before: &CustomerState) -> Change {
        let Self { kind, currency, amount, transaction, .. } = *self;
        let mut state = before.clone();
        self.apply(&mut state);
        Change { kind, currency, amount, transaction, state }
    }

    /// Takes the customer's state to what it is afterwards.
    pub fn apply(&self, state: &mut CustomerState) {
        state.accounts.set(self.currency, self.account);
        state.locked = self.locked;
    }
}

/// Decides a request.
///
/// `before` is the customer's state by the newest event of the chain, the default where there is no chain.
/// The checks run in the order of [`Rejection`]'s variants, so that the first that applies is reported.
pub fn decide(
    config: &LedgerConfig,
    before: &CustomerState,
    known: Known<'_>,
    request: &Request,
) -> Result<Decision, Rejection> {
    let effect = decide_effect(config, before, known, request)?;
    Ok(effect.map_or(Decision::AlreadyApplied, |effect| Decision::Change(effect.change(before))))
}

/// As [`decide`], for who wants only what changes; `None`: it was done before.
pub fn decide_effect(
    config: &LedgerConfig,
    before: &CustomerState,
    known: Known<'_>,
    request: &Request,
) -> Result<Option<Effect>, Rejection> {
    match &request.action {
        Action::Deposit(movement) => move_money(config, before, known, request, movement, TransactionKind::Deposit),
        Action::Withdrawal(movement) => {
            move_money(config, before, known, request, movement, TransactionKind::Withdrawal)
        }
        Action::Dispute(reference) => settle_dispute(config, before, known, request, reference),
        Action::Resolve(reference) => settle_dispute(config, before, known, request, reference),
        Action::Chargeback(reference) => settle_dispute(config, before, known, request, reference),
        Action::Unlock => unlock(before),
    }
}

fn move_money(
    config: &LedgerConfig,
    before: &CustomerState,
    known: Known<'_>,
    request: &Request,
    movement: &Movement,
    kind: TransactionKind,
) -> Result<Option<Effect>, Rejection> {
    let Movement { transaction, amount, currency } = *movement;
    if !amount.is_positive() {
        return Err(Rejection::AmountNotPositive { currency, asked: amount });
    }
    if config.currencies.get(currency).is_none() {
        return Err(Rejection::UnknownCurrency);
    }
    let state =
        TransactionState { customer: request.customer, kind, amount, currency, status: TransactionStatus::Posted };
    if let Some(existing) = known.state {
        let same = TransactionState { status: TransactionStatus::Posted, ..*existing } == state;
        return if same { Ok(None) } else { Err(Rejection::TransactionIdTaken { existing: *existing }) };
    }
    if known.reserved {
        return Err(Rejection::TransactionPending);
    }
    let account = before.accounts.get(currency);
    let after = moved(config.policy.locked, before.locked, account, kind, currency, amount)?;
    Ok(Some(effect(request.action.kind(), transaction, state, after, before.locked)))
}

/// The account after a new deposit or withdrawal of an amount above zero: the part of [`decide`] that remains once the
/// transaction is known to be new, for who keeps accounts in another form than [`CustomerState`].
#[inline]
pub fn moved(
    policy: LockedPolicy,
    locked: bool,
    account: Account,
    kind: TransactionKind,
    currency: CurrencyIndex,
    amount: Amount,
) -> Result<Account, Rejection> {
    let request = match kind {
        TransactionKind::Deposit => RequestKind::Deposit,
        TransactionKind::Withdrawal => RequestKind::Withdrawal,
    };
    refuse_if_locked(policy, locked, request)?;
    let available = match kind {
        TransactionKind::Deposit => account.available.checked_add(amount),
        TransactionKind::Withdrawal if amount > account.available && !is_planted(Planted::OverdraftAllowed) => {
            return Err(Rejection::InsufficientFunds { currency, asked: amount, available: account.available });
        }
        TransactionKind::Withdrawal => account.available.checked_sub(amount),
    };
    checked(available, Some(account.held)).ok_or(Rejection::BalanceOverflow { currency, asked: amount })
}

/// Disputes, resolves and chargebacks: they open or close a dispute of a transaction that exists.
fn settle_dispute(
    config: &LedgerConfig,
    before: &CustomerState,
    known: Known<'_>,
    request: &Request,
    reference: &Reference,
) -> Result<Option<Effect>, Rejection> {
    let kind = request.action.kind();
    let Some(&existing) = known.state else { return Err(Rejection::UnknownTransaction) };
    if existing.customer != request.customer {
        return Err(Rejection::OtherCustomer);
    }
    let TransactionState { amount, currency, .. } = existing;
    if reference.currency.is_some_and(|given| given != currency) {
        return Err(Rejection::CurrencyMismatch { currency });
    }
    if let Some(given) = reference.amount.filter(|&given| given != amount) {
        return Err(Rejection::AmountMismatch { currency, asked: given, amount });
    }
    refuse_if_locked(config.policy.locked, before.locked, kind)?;
    let withdrawal = match existing.kind {
        TransactionKind::Deposit => false,
        TransactionKind::Withdrawal => true,
    };
    if withdrawal && config.policy.disputable == DisputablePolicy::Deposits {
        return Err(Rejection::NotDisputable);
    }
    let opens = kind == RequestKind::Dispute;
    match existing.status {
        TransactionStatus::ChargedBack => return Err(Rejection::ChargedBack),
        TransactionStatus::Disputed if opens => return Err(Rejection::AlreadyDisputed),
        TransactionStatus::Posted if !opens => return Err(Rejection::NotDisputed),
        TransactionStatus::Disputed | TransactionStatus::Posted => {}
    }
    let Account { available, held } = before.accounts.get(currency);
    let (available, held, status) = match (kind, existing.kind) {
        (RequestKind::Dispute, TransactionKind::Deposit) => {
            (available.checked_sub(amount), held.checked_add(amount), TransactionStatus::Disputed)
        }
        (RequestKind::Dispute, TransactionKind::Withdrawal) => {
            (Some(available), held.checked_add(amount), TransactionStatus::Disputed)
        }
        (RequestKind::Resolve, TransactionKind::Deposit) => {
            (available.checked_add(amount), held.checked_sub(amount), TransactionStatus::Posted)
        }
        (RequestKind::Resolve, TransactionKind::Withdrawal) => {
            (Some(available), held.checked_sub(amount), TransactionStatus::Posted)
        }
        (RequestKind::Chargeback, TransactionKind::Deposit) => {
            (Some(available), held.checked_sub(amount), TransactionStatus::ChargedBack)
        }
        (RequestKind::Chargeback, TransactionKind::Withdrawal) => {
            (available.checked_add(amount), held.checked_sub(amount), TransactionStatus::ChargedBack)
        }
        (RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Unlock, _) => {
            return Err(Rejection::NotDisputable);
        }
    };
    let after = checked(available, held).ok_or(Rejection::BalanceOverflow { currency, asked: amount })?;
    let locks = kind == RequestKind::Chargeback && !is_planted(Planted::LockLeftOut);
    let locked = before.locked || locks;
    Ok(Some(effect(kind, reference.transaction, TransactionState { status, ..existing }, after, locked)))
}

fn unlock(before: &CustomerState) -> Result<Option<Effect>, Rejection> {
    let Some((currency, account)) = before.accounts.iter().next() else { return Err(Rejection::UnknownCustomer) };
    if !before.locked {
        return Err(Rejection::NotLocked);
    }
    let (kind, amount) = (RequestKind::Unlock, Amount::ZERO);
    Ok(Some(Effect { kind, currency, amount, transaction: None, account, locked: false }))
}

#[inline]
fn refuse_if_locked(policy: LockedPolicy, locked: bool, kind: RequestKind) -> Result<(), Rejection> {
    let refused = match (policy, kind) {
        (_, RequestKind::Unlock) => false,
        (LockedPolicy::Frozen, _) => true,
        (LockedPolicy::NoWithdrawals, kind) => kind == RequestKind::Withdrawal,
        (LockedPolicy::Nothing, RequestKind::Deposit | RequestKind::Withdrawal | RequestKind::Dispute) => true,
        (LockedPolicy::Nothing, RequestKind::Resolve | RequestKind::Chargeback) => false,
    };
    if locked && refused { Err(Rejection::CustomerLocked { policy }) } else { Ok(()) }
}

/// An account whose parts and whose total all fit; a held amount below zero is no account.
#[inline]
fn checked(available: Option<Amount>, held: Option<Amount>) -> Option<Account> {
    let account = Account { available: available?, held: held? };
    account.total()?;
    Some(account)
}

fn effect(
    kind: RequestKind,
    transaction: TransactionId,
    state: TransactionState,
    account: Account,
    locked: bool,
) -> Effect {
    let TransactionState { currency, amount, .. } = state;
    Effect { kind, currency, amount, transaction: Some((transaction, state)), account, locked }
}

/// Whether an event of this kind may lead from one account to the other: the invariants of money, checked
/// for every event in production, since wrong money is worse than no service.
///
/// `held` is never below zero, and `total` moves by exactly what the effects say: up by a deposit and by a
/// disputed withdrawal's provisional credit, down by a withdrawal, by a deposit's chargeback and by a
/// withdrawal's resolve, and by nothing else. Summed over a ledger: the totals are deposits minus
/// withdrawals, minus deposits charged back, plus withdrawals charged back or in dispute.
#[inline]
pub fn keeps_invariants(
    kind: RequestKind,
    transaction: TransactionKind,
    amount: Amount,
    before: Account,
    after: Account,
) -> bool {
    let total = |account: Account| i128::from(account.available.steps()) + i128::from(account.held.steps());
    !after.held.is_negative()
        && after.total().is_some()
        && total(after) - total(before) == total_delta(kind, transaction) * i128::from(amount.steps())
}

/// By how many times its amount an event moves the total of its account: -1, 0 or 1.
pub const fn total_delta(kind: RequestKind, transaction: TransactionKind) -> i128 {
    match (kind, transaction) {
        (RequestKind::Deposit, _) | (RequestKind::Dispute, TransactionKind::Withdrawal) => 1,
        (RequestKind::Withdrawal, _)
        | (RequestKind::Resolve, TransactionKind::Withdrawal)
        | (RequestKind::Chargeback, TransactionKind::Deposit) => -1,
        (RequestKind::Dispute | RequestKind::Resolve, TransactionKind::Deposit)
        | (RequestKind::Chargeback, TransactionKind::Withdrawal)
        | (RequestKind::Unlock, _) => 0,
    }
}

#[cfg(test)]
mod tests;
