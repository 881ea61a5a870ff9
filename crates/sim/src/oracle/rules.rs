//! The rules of money once more, as a table of effects over plain numbers: what the simulator believes, whatever the
//! engine says. Written from the rules' description, not from the engine's code.

use std::collections::BTreeMap;

/// What kinds of request there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Money comes in.
    Deposit,
    /// Money goes out.
    Withdraw,
    /// A transaction is contested.
    Dispute,
    /// The contest ends in its favour.
    Resolve,
    /// The contest ends against it.
    Chargeback,
    /// An operator's act.
    Unlock,
}

/// A request in plain numbers. Amount and currency are those given, for a dispute and what follows it only if given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// Who.
    pub customer: u128,
    /// What.
    pub verb: Verb,
    /// Which transaction; 0 for an unlock.
    pub transaction: u128,
    /// How much.
    pub amount: Option<i128>,
    /// In which currency.
    pub currency: Option<u8>,
}

/// What may be done by a locked customer, and what may be disputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `nothing`, `no_withdrawals` or `frozen`.
    pub locked: &'static str,
    /// Withdrawals can be disputed, too.
    pub withdrawals_disputable: bool,
    /// How many currencies there are.
    pub currency_count: u8,
}

/// A transaction as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Whose.
    pub customer: u128,
    /// A deposit; otherwise a withdrawal.
    pub is_deposit: bool,
    /// How much.
    pub amount: i128,
    /// In which currency.
    pub currency: u8,
    /// `posted`, `disputed` or `charged_back`.
    pub standing: &'static str,
}

/// A customer's money.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purse {
    /// Whether the customer is locked.
    pub locked: bool,
    /// What is available and held, by currency.
    pub accounts: BTreeMap<u8, (i128, i128)>,
}

/// What an accepted request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    currency: u8,
    available: i128,
    held: i128,
    lock: Option<bool>,
    /// The transaction afterwards.
    pub item: Option<Item>,
}

impl Purse {
    /// Does it.
    pub fn take(&mut self, effect: &Effect) {
        let account = self.accounts.entry(effect.currency).or_default();
        account.0 += effect.available;
        account.1 += effect.held;
        self.locked = effect.lock.unwrap_or(self.locked);
    }
}

const MOST: i128 = i64::MAX as i128;
const LEAST: i128 = i64::MIN as i128;

/// What a request leads to, or the code of why it leads to nothing. `item`: the transaction it names, as it stands.
pub fn judge(terms: Terms, purse: &Purse, item: Option<Item>, ask: &Ask) -> Result<Effect, &'static str> {
    let effect = match ask.verb {
        Verb::Deposit | Verb::Withdraw => movement(terms, purse, item, ask)?,
        Verb::Dispute | Verb::Resolve | Verb::Chargeback => contest(terms, purse, item, ask)?,
        Verb::Unlock => {
            let Some((&currency, _)) = purse.accounts.first_key_value() else { return Err("unknown_customer") };
            if !purse.locked {
                return Err("not_locked");
            }
            Effect { currency, available: 0, held: 0, lock: Some(false), item: None }
        }
    };
    let (available, held) = purse.accounts.get(&effect.currency).copied().unwrap_or_default();
    let after = (available + effect.available, held + effect.held);
    let fits = |steps: i128| (LEAST..=MOST).contains(&steps);
    if fits(after.0) && fits(after.1) && fits(after.0 + after.1) { Ok(effect) } else { Err("balance_overflow") }
}

fn is_barred(terms: Terms, purse: &Purse, verb: Verb) -> bool {
    let barred: &[Verb] = match terms.locked {
        "frozen" => &[Verb::Deposit, Verb::Withdraw, Verb::Dispute, Verb::Resolve, Verb::Chargeback],
        "no_withdrawals" => &[Verb::Withdraw],
        _ => &[Verb::Deposit, Verb::Withdraw, Verb::Dispute],
    };
    purse.locked && barred.contains(&verb)
}

fn movement(terms: Terms, purse: &Purse, item: Option<Item>, ask: &Ask) -> Result<Effect, &'static str> {
    let (amount, currency) = (ask.amount.unwrap_or(0), ask.currency.unwrap_or(0));
    let is_deposit = ask.verb == Verb::Deposit;
    let new = Item { customer: ask.customer, is_deposit, amount, currency, standing: "posted" };
    if amount <= 0 {
        return Err("amount_not_positive");
    }
    if currency >= terms.currency_count {
        return Err("unknown_currency");
    }
    if let Some(old) = item {
        let is_repeat = Item { standing: "posted", ..old } == new;
        return Err(if is_repeat { "already_applied" } else { "transaction_id_taken" });
    }
    if is_barred(terms, purse, ask.verb) {
        return Err("customer_locked");
    }
    let available = purse.accounts.get(&currency).map_or(0, |account| account.0);
    if !is_deposit && available < amount {
        return Err("insufficient_funds");
    }
    let available = if is_deposit { amount } else { -amount };
    Ok(Effect { currency, available, held: 0, lock: None, item: Some(new) })
}

fn contest(terms: Terms, purse: &Purse, item: Option<Item>, ask: &Ask) -> Result<Effect, &'static str> {
    let Some(old) = item else { return Err("unknown_transaction") };
    if old.customer != ask.customer {
        return Err("other_customer");
    }
    if ask.currency.is_some_and(|currency| currency != old.currency) {
        return Err("currency_mismatch");
    }
    if ask.amount.is_some_and(|amount| amount != old.amount) {
        return Err("amount_mismatch");
    }
    if is_barred(terms, purse, ask.verb) {
        return Err("customer_locked");
    }
    if !old.is_deposit && !terms.withdrawals_disputable {
        return Err("not_disputable");
    }
    let standing = match (old.standing, ask.verb) {
        ("charged_back", _) => return Err("charged_back"),
        ("disputed", Verb::Dispute) => return Err("already_disputed"),
        (_, Verb::Dispute) => "disputed",
        ("posted", _) => return Err("not_disputed"),
        (_, Verb::Resolve) => "posted",
        _ => "charged_back",
    };
    // By how many times the amount: available, held.
    let (available, held) = match (standing, old.is_deposit) {
        ("disputed", true) => (-1, 1),
        ("disputed", false) => (0, 1),
        ("posted", true) => (1, -1),
        ("posted", false) => (0, -1),
        (_, true) => (0, -1),
        (_, false) => (1, -1),
    };
    let lock = (standing == "charged_back").then_some(true);
    let item = Some(Item { standing, ..old });
    Ok(Effect { currency: old.currency, available: available * old.amount, held: held * old.amount, lock, item })
}
