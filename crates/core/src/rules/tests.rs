//! The rules as tables of text, in order of precedence, for each policy; and a property that compares them with
//! the independent model over random sequences.
//!
//! A row is a request and what it leads to:
//!
//! ```text
//! 1 withdrawal 11 3.EUR -> applied 7/0 posted
//! │ │          │  │        │       │   └ how the transaction stands afterwards
//! │ │          │  │        │       └ available/held of the customer in that currency, `!` if locked
//! │ │          │  │        └ the outcome's code; `.` in what follows stands for "nothing changed"
//! │ │          │  └ amount in smallest steps and currency; the first one if left out
//! │ │          └ transaction; `*11`: an open event of another customer reserves the id
//! │ └ kind
//! └ customer
//! ```

use super::*;
use crate::currency::{Currencies, Currency};
use crate::hash::EventId;
use crate::id::CustomerId;
use crate::model::Model;
use crate::policy::Policy;
use crate::rejection::RejectionInfo;
use crate::transaction::EventRef;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use proptest::prelude::*;

fn config(locked: LockedPolicy, disputable: DisputablePolicy) -> LedgerConfig {
    let currency = |code, decimals| Currency::new(code, crate::Decimals::new(decimals).unwrap()).unwrap();
    let currencies = Currencies::named(alloc::vec![currency("EUR", 2), currency("JPY", 0)]).unwrap();
    LedgerConfig { ledger: [3; 16], policy: Policy { locked, disputable }, currencies }
}

fn policies() -> impl Iterator<Item = (LockedPolicy, DisputablePolicy)> {
    LockedPolicy::ALL.into_iter().flat_map(|locked| DisputablePolicy::ALL.map(|disputable| (locked, disputable)))
}

/// A ledger in memory that applies what [`decide`] says, without any protocol.
struct Ledger {
    config: LedgerConfig,
    customers: BTreeMap<CustomerId, CustomerState>,
    transactions: BTreeMap<TransactionId, TransactionState>,
}

impl Ledger {
    fn new(config: LedgerConfig) -> Self {
        Self { config, customers: BTreeMap::new(), transactions: BTreeMap::new() }
    }

    fn apply(&mut self, request: &Request, reserved: bool) -> Result<Decision, Rejection> {
        let before = self.customers.get(&request.customer).cloned().unwrap_or_default();
        let state = request.action.transaction().and_then(|id| self.transactions.get(&id)).copied();
        let decision = decide(&self.config, &before, Known { state: state.as_ref(), reserved }, request)?;
        if let Decision::Change(change) = &decision {
            let of = |state: &CustomerState| state.accounts.get(change.currency);
            let way = change.transaction.map_or(TransactionKind::Deposit, |(_, state)| state.kind);
            assert!(keeps_invariants(change.kind, way, change.amount, of(&before), of(&change.state)), "{change:?}");
            self.customers.insert(request.customer, change.state.clone());
            self.transactions.extend(change.transaction);
        }
        Ok(decision)
    }
}

fn read_amount(text: &str) -> (Amount, CurrencyIndex) {
    let (steps, currency) = text.split_once('.').unwrap_or((text, "EUR"));
    let steps = match steps {
        "MAX" => i64::MAX,
        steps => steps.parse().expect(text),
    };
    let currency = ["EUR", "JPY", "XXX"].iter().position(|code| *code == currency).expect(text);
    (Amount::from_steps(steps), CurrencyIndex(currency as u8))
}

fn read_request(text: &str) -> (Request, bool) {
    let words: Vec<_> = text.split_whitespace().collect();
    let customer = CustomerId::new(words[0].parse().expect(text));
    let id = words.get(2).map_or("0", |word| word.trim_start_matches('*'));
    let reserved = words.get(2).is_some_and(|word| word.starts_with('*'));
    let transaction = TransactionId::new(id.parse().expect(text));
    let given = words.get(3).map(|word| read_amount(word));
    let movement = || {
        let (amount, currency) = given.expect(text);
        Movement { transaction, amount, currency }
    };
    let named = words.get(3).is_some_and(|word| word.contains('.'));
    let (amount, currency) = (given.map(|(amount, _)| amount), given.map(|(_, currency)| currency).filter(|_| named));
    let reference = Reference { transaction, amount, currency };
    let action = match RequestKind::from_name(words[1].as_bytes()).expect(text) {
        RequestKind::Deposit => Action::Deposit(movement()),
        RequestKind::Withdrawal => Action::Withdrawal(movement()),
        RequestKind::Dispute => Action::Dispute(reference),
        RequestKind::Resolve => Action::Resolve(reference),
        RequestKind::Chargeback => Action::Chargeback(reference),
        RequestKind::Unlock => Action::Unlock,
    };
    (Request { customer, action }, reserved)
}

fn describe(ledger: &Ledger, request: &Request) -> String {
    let transaction = request.action.transaction().and_then(|id| ledger.transactions.get(&id));
    let currency = transaction.map_or(CurrencyIndex(0), |transaction| transaction.currency);
    let state = ledger.customers.get(&request.customer).cloned().unwrap_or_default();
    let account = state.accounts.get(currency);
    let steps = |amount: Amount| if amount == Amount::MAX { "MAX".into() } else { format!("{}", amount.steps()) };
    let locked = if state.locked { "!" } else { "" };
    let status = transaction.map_or(String::new(), |transaction| format!(" {}", transaction.status.name()));
    format!("{}/{}{locked}{status}", steps(account.available), steps(account.held))
}

/// Runs a table, and gives the codes that its rows expect.
fn check(policy: (LockedPolicy, DisputablePolicy), table: &str) -> BTreeSet<String> {
    let mut ledger = Ledger::new(config(policy.0, policy.1));
    let mut codes = BTreeSet::new();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let (request, expected) = row.split_once(" -> ").expect(row);
        let (request, reserved) = read_request(request);
        let before = (ledger.customers.clone(), ledger.transactions.clone());
        let code = match ledger.apply(&request, reserved) {
            Ok(Decision::Change(_)) => "applied",
            Ok(Decision::AlreadyApplied) => "already_applied",
            Err(rejection) => rejection.code(),
        };
        if code != "applied" {
            assert_eq!(before, (ledger.customers.clone(), ledger.transactions.clone()), "{row}: nothing changes");
        }
        let (expected_code, expected_state) = expected.split_once(' ').unwrap_or((expected, "."));
        assert_eq!(code, expected_code, "{policy:?}: {row}");
        if expected_state != "." {
            assert_eq!(describe(&ledger, &request), expected_state, "{policy:?}: {row}");
        }
        codes.insert(code.into());
    }
    codes
}

/// What holds under every policy.
const EVERY_POLICY: &str = "
    # the effects on deposits
    1 deposit    10 7        -> applied 7/0 posted
    1 deposit    11 3        -> applied 10/0 posted
    1 withdrawal 12 4        -> applied 6/0 posted
    1 withdrawal 13 6        -> applied 0/0 posted
    1 dispute    10          -> applied -7/7 disputed
    1 resolve    10          -> applied 0/0 posted
    1 dispute    10          -> applied -7/7 disputed
    1 dispute    11          -> applied -10/10 disputed
    1 chargeback 11          -> applied -10/7! charged_back
    1 unlock                 -> applied -10/7
    1 chargeback 10          -> applied -10/0! charged_back
    1 unlock                 -> applied -10/0
    # exact repeats are already applied, whatever became of the transaction
    2 deposit    20 5        -> applied 5/0 posted
    2 deposit    20 5        -> already_applied 5/0 posted
    2 dispute    20          -> applied 0/5 disputed
    2 deposit    20 5        -> already_applied 0/5 disputed
    2 resolve    20          -> applied 5/0 posted
    2 withdrawal 21 2        -> applied 3/0 posted
    2 withdrawal 21 2        -> already_applied 3/0 posted
    1 deposit    11 3        -> already_applied -10/0 charged_back
    # every other reuse is rejected
    2 deposit    20 6        -> transaction_id_taken .
    2 deposit    20 5.JPY    -> transaction_id_taken .
    2 withdrawal 20 5        -> transaction_id_taken .
    3 deposit    20 5        -> transaction_id_taken .
    # amounts and currencies
    3 deposit    30 0        -> amount_not_positive 0/0
    3 deposit    30 -1       -> amount_not_positive 0/0
    3 withdrawal 30 0        -> amount_not_positive 0/0
    3 deposit    30 1.XXX    -> unknown_currency 0/0
    3 withdrawal 30 1.XXX    -> unknown_currency 0/0
    # a rejected request does not use up its id
    3 withdrawal 30 1        -> insufficient_funds 0/0
    3 deposit    30 1        -> applied 1/0 posted
    3 withdrawal 31 2        -> insufficient_funds 1/0
    3 dispute    30          -> applied 0/1 disputed
    3 withdrawal 31 1        -> insufficient_funds 0/1
    3 resolve    30          -> applied 1/0 posted
    3 withdrawal 31 1        -> applied 0/0 posted
    # currencies do not mix
    4 deposit    40 5        -> applied 5/0 posted
    4 deposit    41 9.JPY    -> applied 9/0 posted
    4 withdrawal 42 6        -> insufficient_funds .
    4 withdrawal 42 6.JPY    -> applied 3/0 posted
    4 dispute    41 9.JPY    -> applied -6/9 disputed
    4 dispute    40 5        -> applied 0/5 disputed
    4 chargeback 41          -> applied -6/0! charged_back
    4 unlock                 -> applied 0/5
    # what dispute, resolve and chargeback refer to
    5 dispute    99          -> unknown_transaction 0/0
    5 resolve    99          -> unknown_transaction 0/0
    5 chargeback 99          -> unknown_transaction 0/0
    5 dispute    40          -> other_customer .
    5 resolve    40          -> other_customer .
    5 chargeback 40          -> other_customer .
    4 resolve    40 5.JPY    -> currency_mismatch .
    4 resolve    40 5.XXX    -> currency_mismatch .
    4 resolve    40 4        -> amount_mismatch .
    4 chargeback 40 6        -> amount_mismatch .
    4 dispute    40          -> already_disputed .
    4 resolve    40 5.EUR    -> applied 5/0 posted
    4 resolve    40          -> not_disputed .
    4 chargeback 40          -> not_disputed .
    4 dispute    41          -> charged_back .
    4 resolve    41          -> charged_back .
    4 chargeback 41          -> charged_back .
    # unlock
    6 unlock                 -> unknown_customer .
    4 unlock                 -> not_locked .
    # an id that another's open event reserves
    4 deposit    *43 1       -> transaction_pending .
    4 withdrawal *43 1       -> transaction_pending .
    4 dispute    *43         -> unknown_transaction .
    # the range of amounts
    7 deposit    70 MAX      -> applied MAX/0 posted
    7 deposit    71 1        -> balance_overflow MAX/0
    7 withdrawal 71 MAX      -> applied 0/0 posted
    7 dispute    70          -> applied -9223372036854775807/MAX disputed
    7 deposit    72 2        -> applied -9223372036854775805/MAX posted
    7 dispute    72          -> balance_overflow .
    8 deposit    80 MAX      -> applied MAX/0 posted
    8 dispute    80          -> applied 0/MAX disputed
    8 deposit    81 1        -> balance_overflow .
";

/// What a locked customer may do. 1 is locked; 10 is its open dispute, 11 a posted deposit, 12 a withdrawal.
const LOCKED: &str = "
    1 deposit    10 7        -> applied 7/0 posted
    1 deposit    11 5        -> applied 12/0 posted
    1 withdrawal 12 2        -> applied 10/0 posted
    1 deposit    13 1        -> applied 11/0 posted
    1 deposit    14 1        -> applied 12/0 posted
    1 dispute    10          -> applied 5/7 disputed
    1 dispute    14          -> applied 4/8 disputed
    1 dispute    13          -> applied 3/9 disputed
    1 chargeback 13          -> applied 3/8! charged_back
";
const LOCKED_NOTHING: &str = "
    1 deposit    20 1        -> customer_locked .
    1 withdrawal 20 1        -> customer_locked .
    1 dispute    11          -> customer_locked .
    1 resolve    10          -> applied 10/1! posted
    1 chargeback 14          -> applied 10/0! charged_back
    1 deposit    11 5        -> already_applied 10/0! posted
";
const LOCKED_NO_WITHDRAWALS: &str = "
    1 deposit    20 1        -> applied 4/8! posted
    1 withdrawal 21 1        -> customer_locked .
    1 dispute    11          -> applied -1/13! disputed
    1 resolve    10          -> applied 6/6! posted
    1 chargeback 14          -> applied 6/5! charged_back
    1 deposit    11 5        -> already_applied 6/5! disputed
";
const LOCKED_FROZEN: &str = "
    1 deposit    20 1        -> customer_locked .
    1 withdrawal 20 1        -> customer_locked .
    1 dispute    11          -> customer_locked .
    1 resolve    10          -> customer_locked .
    1 chargeback 14          -> customer_locked .
    1 deposit    11 5        -> already_applied 3/8! posted
";
const UNLOCKED: &str = "
    1 unlock                 -> applied .
    1 unlock                 -> not_locked .
    1 deposit    30 9        -> applied .
    1 withdrawal 31 1        -> applied .
    1 dispute    30          -> applied .
    1 resolve    30          -> applied .
";

const DEPOSITS: &str = "
    1 deposit    10 7        -> applied 7/0 posted
    1 withdrawal 11 3        -> applied 4/0 posted
    1 dispute    11          -> not_disputable 4/0 posted
    1 resolve    11          -> not_disputable 4/0 posted
    1 chargeback 11          -> not_disputable 4/0 posted
";
const DEPOSITS_AND_WITHDRAWALS: &str = "
    1 deposit    10 7        -> applied 7/0 posted
    1 withdrawal 11 3        -> applied 4/0 posted
    1 dispute    11 3        -> applied 4/3 disputed
    1 resolve    11          -> applied 4/0 posted
    1 dispute    11          -> applied 4/3 disputed
    1 dispute    10          -> applied -3/10 disputed
    1 chargeback 11          -> applied 0/7! charged_back
    1 unlock                 -> applied 0/7
    1 dispute    11          -> charged_back .
    1 resolve    10          -> applied 7/0 posted
    # a provisional credit that would leave the range
    2 deposit    20 MAX      -> applied MAX/0 posted
    2 withdrawal 21 1        -> applied 9223372036854775806/0 posted
    2 deposit    22 1        -> applied MAX/0 posted
    2 dispute    21          -> balance_overflow MAX/0 posted
";

/// For each pair of rejections that can apply at once, a row with the one that is reported; in order of
/// precedence. Policy: `nothing`, `deposits`. Customer 1 is locked with 11 in dispute and 13 charged back;
/// customer 4 is not locked, and has all the JPY there can be.
const PRECEDENCE: &str = "
    1 deposit    10 7        -> applied 7/0 posted
    1 deposit    11 5        -> applied 12/0 posted
    1 withdrawal 12 2        -> applied 10/0 posted
    1 dispute    11          -> applied 5/5 disputed
    1 deposit    13 1        -> applied 6/5 posted
    1 dispute    13          -> applied 5/6 disputed
    1 chargeback 13          -> applied 5/5! charged_back
    4 deposit    20 5        -> applied 5/0 posted
    4 withdrawal 21 1        -> applied 4/0 posted
    4 deposit    50 MAX.JPY  -> applied MAX/0 posted
    # amount_not_positive before unknown_currency, transaction_id_taken, transaction_pending, customer_locked
    1 deposit    30 0.XXX    -> amount_not_positive .
    4 withdrawal 10 0        -> amount_not_positive .
    4 deposit    *30 0       -> amount_not_positive .
    1 withdrawal 30 0        -> amount_not_positive .
    # unknown_currency before transaction_id_taken, transaction_pending, customer_locked, insufficient_funds
    4 deposit    10 1.XXX    -> unknown_currency .
    4 deposit    *30 1.XXX   -> unknown_currency .
    1 deposit    30 1.XXX    -> unknown_currency .
    4 withdrawal 30 99.XXX   -> unknown_currency .
    # other_customer before currency_mismatch, amount_mismatch, customer_locked, not_disputable, charged_back,
    # already_disputed, not_disputed
    4 dispute    10 7.JPY    -> other_customer .
    4 dispute    10 8        -> other_customer .
    1 dispute    20          -> other_customer .
    4 dispute    12          -> other_customer .
    4 dispute    13          -> other_customer .
    4 dispute    11          -> other_customer .
    4 resolve    10          -> other_customer .
    # transaction_id_taken before customer_locked, insufficient_funds, balance_overflow
    1 deposit    20 1        -> transaction_id_taken .
    4 withdrawal 10 99       -> transaction_id_taken .
    4 deposit    10 7.JPY    -> transaction_id_taken .
    # transaction_pending before customer_locked, insufficient_funds, balance_overflow
    1 deposit    *30 1       -> transaction_pending .
    4 withdrawal *30 99      -> transaction_pending .
    4 deposit    *30 1.JPY   -> transaction_pending .
    # currency_mismatch before amount_mismatch, customer_locked, not_disputable, charged_back, already_disputed,
    # not_disputed
    1 dispute    10 8.JPY    -> currency_mismatch .
    1 dispute    10 7.JPY    -> currency_mismatch .
    4 dispute    21 1.JPY    -> currency_mismatch .
    1 resolve    13 1.JPY    -> currency_mismatch .
    1 dispute    11 5.JPY    -> currency_mismatch .
    4 resolve    20 5.JPY    -> currency_mismatch .
    # amount_mismatch before customer_locked, not_disputable, charged_back, already_disputed, not_disputed
    1 dispute    10 8        -> amount_mismatch .
    4 dispute    21 2        -> amount_mismatch .
    1 resolve    13 2        -> amount_mismatch .
    1 dispute    11 6        -> amount_mismatch .
    4 resolve    20 6        -> amount_mismatch .
    # customer_locked before not_disputable, charged_back, already_disputed, insufficient_funds
    1 dispute    12          -> customer_locked .
    1 dispute    13          -> customer_locked .
    1 dispute    11          -> customer_locked .
    1 withdrawal 30 99       -> customer_locked .
    1 deposit    30 MAX      -> customer_locked .
    # not_disputable before not_disputed
    4 resolve    21          -> not_disputable .
    4 chargeback 21          -> not_disputable .
";

/// The pairs that need another policy than the one of [`PRECEDENCE`].
const PRECEDENCE_FROZEN: &str = "
    1 deposit    10 7        -> applied 7/0 posted
    1 deposit    11 1        -> applied 8/0 posted
    1 dispute    11          -> applied 7/1 disputed
    1 chargeback 11          -> applied 7/0! charged_back
    # customer_locked before not_disputed, balance_overflow
    1 resolve    10          -> customer_locked .
    1 chargeback 10          -> customer_locked .
    1 resolve    11          -> customer_locked .
    1 deposit    12 MAX      -> customer_locked .
";

/// Not made by [`decide`]: which other test has it.
const ELSEWHERE: [&str; 6] = [
    "rail_refused", // commit::tests::rails
    // commit::tests::terms
    "idempotency_key_not_allowed",
    "idempotency_key_reused",
    "request_in_progress",
    "seq_mismatch",
    "below_minimum",
];

fn tables() -> Vec<((LockedPolicy, DisputablePolicy), String)> {
    use DisputablePolicy::{Deposits, DepositsAndWithdrawals};
    let mut tables = Vec::new();
    for policy in policies() {
        let locked = match policy.0 {
            LockedPolicy::Nothing => LOCKED_NOTHING,
            LockedPolicy::NoWithdrawals => LOCKED_NO_WITHDRAWALS,
            LockedPolicy::Frozen => LOCKED_FROZEN,
        };
        let disputable = match policy.1 {
            Deposits => DEPOSITS,
            DepositsAndWithdrawals => DEPOSITS_AND_WITHDRAWALS,
        };
        tables.push((policy, EVERY_POLICY.into()));
        tables.push((policy, format!("{LOCKED}{locked}{UNLOCKED}")));
        tables.push((policy, disputable.into()));
    }
    tables.push(((LockedPolicy::Nothing, Deposits), PRECEDENCE.into()));
    tables.push(((LockedPolicy::Frozen, DepositsAndWithdrawals), PRECEDENCE_FROZEN.into()));
    tables
}

#[test]
fn each_effect_and_each_rejection_under_each_policy() {
    let mut codes: BTreeSet<String> = ELSEWHERE.map(Into::into).into();
    for (policy, table) in tables() {
        codes.extend(check(policy, &table));
    }
    let missing: Vec<_> = Rejection::ALL.iter().filter(|info| !codes.contains(info.code)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// One of each, in order of precedence. A new variant does not compile in `precedence()` and has no row here.
fn one_of_each() -> Vec<Rejection> {
    let (currency, asked, amount) = (CurrencyIndex(0), Amount::ZERO, Amount::MAX);
    let existing = TransactionState {
        customer: CustomerId::new(1),
        kind: TransactionKind::Deposit,
        amount,
        currency,
        status: TransactionStatus::Posted,
    };
    let event = EventRef { customer: CustomerId::new(1), seq: 3, id: EventId::default() };
    alloc::vec![
        Rejection::AmountNotPositive { currency, asked },
        Rejection::UnknownCurrency,
        Rejection::UnknownCustomer,
        Rejection::UnknownTransaction,
        Rejection::OtherCustomer,
        Rejection::TransactionIdTaken { existing },
        Rejection::TransactionPending,
        Rejection::CurrencyMismatch { currency },
        Rejection::AmountMismatch { currency, asked, amount },
        Rejection::CustomerLocked { policy: LockedPolicy::Frozen },
        Rejection::NotDisputable,
        Rejection::ChargedBack,
        Rejection::AlreadyDisputed,
        Rejection::NotDisputed,
        Rejection::NotLocked,
        Rejection::InsufficientFunds { currency, asked, available: asked },
        Rejection::BalanceOverflow { currency, asked },
        Rejection::RailRefused { reason: "no".into() },
        Rejection::IdempotencyKeyNotAllowed,
        Rejection::IdempotencyKeyReused { event },
        Rejection::RequestInProgress,
        Rejection::SeqMismatch { expected: 7, seq: 8 },
        Rejection::BelowMinimum { currency, minimum: amount, available: asked },
    ]
}

#[test]
fn the_list_of_rejections_is_in_order_of_precedence() {
    let rejections = one_of_each();
    assert_eq!(rejections.len(), Rejection::ALL.len());
    let mut codes = BTreeSet::new();
    for (place, rejection) in rejections.iter().enumerate() {
        assert_eq!(rejection.precedence(), place, "{rejection:?}");
        let RejectionInfo { code, meaning, hint } = *rejection.info();
        // The code is the variant's name in snake case.
        let debug = format!("{rejection:?}");
        let name: String = debug.chars().take_while(char::is_ascii_alphanumeric).collect();
        let snake = name.chars().fold(String::new(), |mut snake, c| {
            if c.is_ascii_uppercase() && !snake.is_empty() {
                snake.push('_');
            }
            snake.push(c.to_ascii_lowercase());
            snake
        });
        assert_eq!(code, snake);
        assert!(codes.insert(code), "{code} twice");
        assert!(meaning.ends_with('.') && hint.ends_with('.'), "{code}: whole sentences");
    }
}

#[test]
fn a_sentence_has_the_figures_that_explain_it() {
    let config = config(LockedPolicy::Nothing, DisputablePolicy::Deposits);
    let sentences: Vec<_> = one_of_each().iter().map(|r| format!("{}", r.sentence(&config.currencies))).collect();
    let expected = [
        "the amount must be above zero, not 0.00 EUR",
        "the ledger has no such currency",
        "this customer has no chain",
        "no transaction with this id was ever accepted",
        "the transaction belongs to another customer",
        "the id is taken by a deposit of 92233720368547758.07 EUR of customer 1",
        "another customer's open event reserves this transaction id",
        "the transaction's currency is EUR",
        "the amount given is 0.00 EUR, the transaction's is 92233720368547758.07 EUR",
        "the customer is locked (the ledger's policy for locked customers: frozen)",
        "withdrawals cannot be disputed in this ledger",
        "the transaction was charged back, which is for good",
        "the transaction is in dispute already",
        "the transaction is not in dispute",
        "the customer is not locked",
        "asked for 0.00 EUR, available are 0.00 EUR",
        "with 0.00 EUR the account would leave the range of amounts",
        "the rail refused: no",
        "a deposit or a withdrawal has its transaction id, and takes no idempotency key",
        "the idempotency key is that of event 3 of customer 1",
        "a request with this idempotency key waits for a rail",
        "the newest event was expected to be 7, and is 8",
        "0.00 EUR would be left available, and at least 92233720368547758.07 EUR are to be",
    ];
    assert_eq!(sentences, expected);
}

/// A request by rough numbers; `shape` is read with knowledge of the ledger, so that most requests fit it.
fn request_for(ledger: &Ledger, shape: (u8, u8, u8, u8, i64)) -> Request {
    let (kind, customer, transaction, currency, amount) = shape;
    let transaction = TransactionId::new(u128::from(transaction));
    let known = ledger.transactions.get(&transaction);
    let customer = CustomerId::new(u128::from(customer));
    let amount = match amount {
        0 if currency == 1 => Amount::MAX,
        amount => Amount::from_steps(amount),
    };
    let movement = Movement { transaction, amount, currency: CurrencyIndex(currency) };
    let bare = Reference { transaction, amount: None, currency: None };
    let full = Reference { transaction, amount: Some(amount), currency: Some(CurrencyIndex(currency)) };
    let own = known.map_or(customer, |known| known.customer);
    let (customer, action) = match (kind, known.map(|known| known.status)) {
        (0..4, _) => (customer, Action::Deposit(movement)),
        (4..8, _) => (customer, Action::Withdrawal(movement)),
        (8, _) => (customer, Action::Dispute(full)),
        (9, _) => (customer, Action::Resolve(full)),
        (10, _) => (customer, Action::Chargeback(full)),
        (11..13, _) => (customer, Action::Unlock),
        (_, None | Some(TransactionStatus::Posted)) => (own, Action::Dispute(bare)),
        (13..16, _) => (own, Action::Resolve(bare)),
        (_, _) => (own, Action::Chargeback(bare)),
    };
    Request { customer, action }
}

/// What the ledger's totals must sum up to, by its transactions: deposits − withdrawals − deposits charged back
/// + withdrawals charged back + withdrawals in dispute, for which the customer has a provisional credit.
fn total_by_transactions(ledger: &Ledger, currency: CurrencyIndex) -> i128 {
    let amounts = ledger.transactions.values().filter(|transaction| transaction.currency == currency);
    let signed = amounts.map(|transaction| {
        let sign = match (transaction.kind, transaction.status) {
            (TransactionKind::Deposit, TransactionStatus::ChargedBack) => 0,
            (TransactionKind::Deposit, _) => 1,
            (TransactionKind::Withdrawal, TransactionStatus::Posted) => -1,
            (TransactionKind::Withdrawal, _) => 0,
        };
        sign * i128::from(transaction.amount.steps())
    });
    signed.sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_sequences_agree_with_the_model_and_conserve_money(
        policy in 0..6usize,
        shapes in prop::collection::vec((0..20u8, 1..4u8, 1..8u8, 0..3u8, -1..6i64), 1..80),
    ) {
        let (locked, disputable) = policies().nth(policy).unwrap();
        let config = config(locked, disputable);
        let mut ledger = Ledger::new(config.clone());
        let mut model = Model::default();
        for shape in shapes {
            let request = request_for(&ledger, shape);
            let before = (ledger.customers.clone(), ledger.transactions.clone());
            let code = match ledger.apply(&request, false) {
                Ok(Decision::Change(_)) => "applied",
                Ok(Decision::AlreadyApplied) => "already_applied",
                Err(rejection) => rejection.code(),
            };
            prop_assert_eq!(code, model.apply(&config, &request), "{:?}", request);
            if code != "applied" {
                prop_assert_eq!(&before, &(ledger.customers.clone(), ledger.transactions.clone()));
            }
            for (id, state) in &ledger.customers {
                let modelled = &model.customers[&id.bits()];
                prop_assert_eq!(state.locked, modelled.locked);
                for (currency, account) in state.accounts.iter() {
                    let steps = (i128::from(account.available.steps()), i128::from(account.held.steps()));
                    prop_assert_eq!(Some(&steps), modelled.accounts.get(&currency.0));
                    prop_assert!(steps.1 >= 0, "held is never below zero");
                    prop_assert!(account.total().is_some());
                }
            }
            for currency in [CurrencyIndex(0), CurrencyIndex(1)] {
                let accounts = ledger.customers.values().map(|state| state.accounts.get(currency));
                let sum = accounts.fold(0, |sum, account| sum + i128::from(account.total().unwrap().steps()));
                prop_assert_eq!(sum, total_by_transactions(&ledger, currency), "conservation of money");
            }
        }
    }
}
