//! The rules of money once more, as the design's tables have them: one row for each effect, one for each refusal, in
//! the order of their precedence. No call to the engine's rules; everything in `i128`, so that nothing overflows
//! before it is looked at.

use bursar_engine::core::{Action, DisputablePolicy, LockedPolicy, Policy, Request};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Posted,
    Disputed,
    ChargedBack,
}

/// A transaction: whose, whether it is a deposit, how much, in which currency, how it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) customer: u128,
    pub(crate) is_deposit: bool,
    pub(crate) steps: i128,
    pub(crate) currency: u8,
    pub(crate) status: Status,
}

/// A customer: (available, held) by currency.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Customer {
    pub(crate) is_locked: bool,
    pub(crate) accounts: BTreeMap<u8, (i128, i128)>,
    pub(crate) event_count: u64,
}

/// A ledger.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    policy: Policy,
    currency_count: u8,
    pub(crate) customers: BTreeMap<u128, Customer>,
    pub(crate) transactions: BTreeMap<u128, Transaction>,
}

/// What an effect is looked up by, and what it says: available, held (each times the amount), status, locks.
type Effect = (&'static str, bool, i128, i128, Status, bool);

/// The table of effects: kind, of a deposit?, available, held, status afterwards, whether the customer is locked.
const EFFECTS: [Effect; 8] = [
    ("deposit", true, 1, 0, Status::Posted, false),
    ("withdrawal", false, -1, 0, Status::Posted, false),
    ("dispute", true, -1, 1, Status::Disputed, false),
    ("dispute", false, 0, 1, Status::Disputed, false),
    ("resolve", true, 1, -1, Status::Posted, false),
    ("resolve", false, 0, -1, Status::Posted, false),
    ("chargeback", true, 0, -1, Status::ChargedBack, true),
    ("chargeback", false, 1, -1, Status::ChargedBack, true),
];

fn fits(steps: i128) -> bool {
    i64::try_from(steps).is_ok()
}

impl Model {
    pub(crate) const fn new(policy: Policy, currency_count: u8) -> Self {
        Self { policy, currency_count, customers: BTreeMap::new(), transactions: BTreeMap::new() }
    }

    /// Does what is asked; gives the outcome's code.
    pub(crate) fn apply(&mut self, request: &Request) -> &'static str {
        let who = request.customer.bits();
        let customer = self.customers.get(&who).cloned().unwrap_or_default();
        let Some(id) = request.action.transaction() else { return self.unlock(who, customer) };
        let (name, known) = (request.action.kind().name(), self.transactions.get(&id.bits()).copied());
        let transaction = match request.action {
            Action::Deposit(asked) | Action::Withdrawal(asked) => {
                let steps = i128::from(asked.amount.steps());
                let (is_deposit, currency) = (name == "deposit", asked.currency.0);
                let new = Transaction { customer: who, is_deposit, steps, currency, status: Status::Posted };
                if steps <= 0 {
                    return "amount_not_positive";
                }
                if currency >= self.currency_count {
                    return "unknown_currency";
                }
                match known {
                    Some(old) if (Transaction { status: Status::Posted, ..old }) == new => return "already_applied",
                    Some(_) => return "transaction_id_taken",
                    None => new,
                }
            }
            Action::Dispute(asked) | Action::Resolve(asked) | Action::Chargeback(asked) => {
                let Some(old) = known else { return "unknown_transaction" };
                if old.customer != who {
                    return "other_customer";
                }
                if asked.currency.is_some_and(|currency| currency.0 != old.currency) {
                    return "currency_mismatch";
                }
                if asked.amount.is_some_and(|amount| i128::from(amount.steps()) != old.steps) {
                    return "amount_mismatch";
                }
                old
            }
            Action::Unlock => return "an unlock has no transaction",
        };
        if customer.is_locked && self.locked_refuses(name) {
            return "customer_locked";
        }
        let is_reference = !matches!(name, "deposit" | "withdrawal");
        if is_reference {
            if !transaction.is_deposit && self.policy.disputable == DisputablePolicy::Deposits {
                return "not_disputable";
            }
            match (transaction.status, name) {
                (Status::ChargedBack, _) => return "charged_back",
                (Status::Disputed, "dispute") => return "already_disputed",
                (Status::Posted, "resolve" | "chargeback") => return "not_disputed",
                _ => {}
            }
        }
        let effect = EFFECTS.iter().find(|effect| effect.0 == name && effect.1 == transaction.is_deposit).unwrap();
        let &(_, _, available_by, held_by, status, locks) = effect;
        let (available, held) = customer.accounts.get(&transaction.currency).copied().unwrap_or_default();
        if name == "withdrawal" && transaction.steps > available {
            return "insufficient_funds";
        }
        let after = (available + available_by * transaction.steps, held + held_by * transaction.steps);
        if !(fits(after.0) && fits(after.1) && fits(after.0 + after.1)) {
            return "balance_overflow";
        }
        let mut customer = customer;
        customer.accounts.insert(transaction.currency, after);
        customer.is_locked |= locks;
        customer.event_count += 1;
        self.customers.insert(who, customer);
        self.transactions.insert(id.bits(), Transaction { status, ..transaction });
        "applied"
    }

    fn unlock(&mut self, who: u128, customer: Customer) -> &'static str {
        if customer.event_count == 0 {
            return "unknown_customer";
        }
        if !customer.is_locked {
            return "not_locked";
        }
        let event_count = customer.event_count + 1;
        self.customers.insert(who, Customer { is_locked: false, event_count, ..customer });
        "applied"
    }

    /// What a locked customer may not do.
    fn locked_refuses(&self, name: &str) -> bool {
        match self.policy.locked {
            LockedPolicy::Nothing => matches!(name, "deposit" | "withdrawal" | "dispute"),
            LockedPolicy::NoWithdrawals => name == "withdrawal",
            LockedPolicy::Frozen => true,
        }
    }

    /// The sums of a currency: deposits, withdrawals, both charged back, withdrawals in dispute, held, total.
    pub(crate) fn sums(&self, currency: u8) -> [i128; 7] {
        let of = |is_deposit: bool, only: Option<Status>| -> i128 {
            let all = self.transactions.values();
            let meant = all.filter(|t| t.currency == currency && t.is_deposit == is_deposit);
            meant.filter(|t| only.is_none_or(|status| t.status == status)).map(|t| t.steps).sum()
        };
        let accounts = || self.customers.values().filter_map(|customer| customer.accounts.get(&currency));
        [
            of(true, None),
            of(false, None),
            of(true, Some(Status::ChargedBack)),
            of(false, Some(Status::ChargedBack)),
            of(false, Some(Status::Disputed)),
            accounts().map(|account| account.1).sum(),
            accounts().map(|account| account.0 + account.1).sum(),
        ]
    }
}
