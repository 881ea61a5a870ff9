//! Why a request is refused: a closed list, in order of precedence.

use crate::amount::Amount;
use crate::currency::{Currencies, CurrencyIndex};
use crate::policy::LockedPolicy;
use crate::transaction::{EventRef, TransactionState};
use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;

/// Why a request is refused. **The order of the variants is their precedence**: where two apply, the first
/// is reported. A rejected request changes nothing and uses up neither its transaction id nor its key.
///
/// Those of a request's terms are the last ones, since places are stored and never move; what they say of a key is
/// looked at before all others, and conditions after them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// A deposit or withdrawal of nothing, or of less.
    AmountNotPositive {
        /// The currency asked in.
        currency: CurrencyIndex,
        /// The amount asked for.
        asked: Amount,
    },
    /// The ledger has no such currency.
    UnknownCurrency,
    /// An unlock of a customer who has no chain.
    UnknownCustomer,
    /// No such transaction was ever accepted.
    UnknownTransaction,
    /// The transaction is another customer's.
    OtherCustomer,
    /// The transaction id is taken by a transaction that differs in customer, kind, amount or currency.
    TransactionIdTaken {
        /// The transaction that has the id.
        existing: TransactionState,
    },
    /// Another customer's event that waits for its rail reserves this transaction id.
    TransactionPending,
    /// The currency given with a dispute, resolve or chargeback is not the transaction's.
    CurrencyMismatch {
        /// The transaction's currency.
        currency: CurrencyIndex,
    },
    /// The amount given with a dispute, resolve or chargeback is not the transaction's.
    AmountMismatch {
        /// The transaction's currency.
        currency: CurrencyIndex,
        /// The amount given.
        asked: Amount,
        /// The transaction's amount.
        amount: Amount,
    },
    /// The customer is locked, and the ledger's policy refuses this.
    CustomerLocked {
        /// What the ledger lets a locked customer do.
        policy: LockedPolicy,
    },
    /// The ledger's policy does not let withdrawals be disputed.
    NotDisputable,
    /// The transaction was charged back, which is for good.
    ChargedBack,
    /// The transaction is in dispute already.
    AlreadyDisputed,
    /// The transaction is not in dispute.
    NotDisputed,
    /// An unlock of a customer who is not locked.
    NotLocked,
    /// More is asked for than is available.
    InsufficientFunds {
        /// The currency asked in.
        currency: CurrencyIndex,
        /// The amount asked for.
        asked: Amount,
        /// What could be had.
        available: Amount,
    },
    /// The account would leave the range of amounts.
    BalanceOverflow {
        /// The account's currency.
        currency: CurrencyIndex,
        /// The amount asked for.
        asked: Amount,
    },
    /// The rail refused; the event stands in the chain as aborted.
    RailRefused {
        /// What the rail gave as its reason.
        reason: String,
    },
    /// A deposit or a withdrawal came with a key.
    IdempotencyKeyNotAllowed,
    /// The key came before, with another request, which took effect.
    IdempotencyKeyReused {
        /// The event that has the key.
        event: EventRef,
    },
    /// A request with this key is under way and waits for a rail.
    RequestInProgress,
    /// The chain's newest event is not the one expected.
    SeqMismatch {
        /// The sequence number expected.
        expected: u64,
        /// That of the newest event.
        seq: u64,
    },
    /// Less would be available than was asked to be left.
    BelowMinimum {
        /// The account's currency.
        currency: CurrencyIndex,
        /// How much was to be left.
        minimum: Amount,
        /// How much would be.
        available: Amount,
    },
}

/// One line per rejection for tables and documents: its code, its meaning, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectionInfo {
    /// The stable code, as in [`Rejection::code`].
    pub code: &'static str,
    /// What it means, in a sentence.
    pub meaning: &'static str,
    /// What somebody can do about it.
    pub hint: &'static str,
}

impl Rejection {
    /// Every rejection, in order of precedence.
    pub const ALL: [RejectionInfo; 23] = [
        RejectionInfo {
            code: "amount_not_positive",
            meaning: "A deposit or withdrawal must have an amount above zero.",
            hint: "To take money out, ask for a withdrawal with a positive amount.",
        },
        RejectionInfo {
            code: "unknown_currency",
            meaning: "The ledger has no such currency.",
            hint: "`bursar info` lists the ledger's currencies; they are chosen when it is created.",
        },
        RejectionInfo {
            code: "unknown_customer",
            meaning: "This customer has no chain: nothing was ever accepted for it.",
            hint: "Check the customer's id.",
        },
        RejectionInfo {
            code: "unknown_transaction",
            meaning: "No deposit or withdrawal with this id was ever accepted.",
            hint: "A rejected deposit or withdrawal leaves no transaction behind; look for its rejection.",
        },
        RejectionInfo {
            code: "other_customer",
            meaning: "The transaction belongs to another customer.",
            hint: "Check both ids; a dispute can only be raised by the transaction's own customer.",
        },
        RejectionInfo {
            code: "transaction_id_taken",
            meaning: "The id already names a transaction with another customer, kind, amount or currency.",
            hint: "Give the new transaction an id of its own. An exact repeat would be `already_applied`.",
        },
        RejectionInfo {
            code: "transaction_pending",
            meaning: "Another customer's event that still waits for its rail reserves this transaction id.",
            hint: "Ids are unique across the whole ledger: use another one.",
        },
        RejectionInfo {
            code: "currency_mismatch",
            meaning: "The currency given differs from the transaction's.",
            hint: "Leave the currency out, or give the transaction's own.",
        },
        RejectionInfo {
            code: "amount_mismatch",
            meaning: "The amount given differs from the transaction's; part of a transaction cannot be disputed.",
            hint: "Leave the amount out, or give the transaction's own.",
        },
        RejectionInfo {
            code: "customer_locked",
            meaning: "The customer is locked by a chargeback, and the ledger's policy refuses this request.",
            hint: "An operator can unlock the customer: `bursar unlock CLIENT`.",
        },
        RejectionInfo {
            code: "not_disputable",
            meaning: "The ledger's policy does not let withdrawals be disputed.",
            hint: "A ledger created with `--disputable deposits_and_withdrawals` allows it.",
        },
        RejectionInfo {
            code: "charged_back",
            meaning: "The transaction was charged back, which is for good.",
            hint: "Nothing can change it any more.",
        },
        RejectionInfo {
            code: "already_disputed",
            meaning: "The transaction is in dispute already.",
            hint: "Resolve it or charge it back first.",
        },
        RejectionInfo {
            code: "not_disputed",
            meaning: "The transaction is not in dispute.",
            hint: "Only an open dispute can be resolved or charged back.",
        },
        RejectionInfo { code: "not_locked", meaning: "The customer is not locked.", hint: "There is nothing to do." },
        RejectionInfo {
            code: "insufficient_funds",
            meaning: "More is asked for than the account has available; held money does not count.",
            hint: "Ask for at most what is available.",
        },
        RejectionInfo {
            code: "balance_overflow",
            meaning: "The account would leave the range of amounts, 2^63 smallest steps.",
            hint: "No real money gets there; check the amount.",
        },
        RejectionInfo {
            code: "rail_refused",
            meaning: "The rail refused, and the event stands in the chain as aborted.",
            hint: "The rail's reason says why.",
        },
        RejectionInfo {
            code: "idempotency_key_not_allowed",
            meaning: "A deposit or a withdrawal came with an idempotency key.",
            hint: "Leave the key out: the transaction's id makes it safe to ask twice.",
        },
        RejectionInfo {
            code: "idempotency_key_reused",
            meaning: "Another request with this idempotency key took effect before.",
            hint: "Give each request a key of its own; use it again only to repeat that very request.",
        },
        RejectionInfo {
            code: "request_in_progress",
            meaning: "A request with this idempotency key is under way and waits for a rail.",
            hint: "Ask again later, with the same key.",
        },
        RejectionInfo {
            code: "seq_mismatch",
            meaning: "The customer's newest event is not the one that was expected.",
            hint: "Read the customer again, and decide on what it says now.",
        },
        RejectionInfo {
            code: "below_minimum",
            meaning: "Afterwards less would be available than was asked to be left.",
            hint: "Ask for less, or for a lower minimum.",
        },
    ];

    /// The place in the order of precedence, from 0; also the index in [`Rejection::ALL`].
    pub const fn precedence(&self) -> usize {
        match self {
            Self::AmountNotPositive { .. } => 0,
            Self::UnknownCurrency => 1,
            Self::UnknownCustomer => 2,
            Self::UnknownTransaction => 3,
            Self::OtherCustomer => 4,
            Self::TransactionIdTaken { .. } => 5,
            Self::TransactionPending => 6,
            Self::CurrencyMismatch { .. } => 7,
            Self::AmountMismatch { .. } => 8,
            Self::CustomerLocked { .. } => 9,
            Self::NotDisputable => 10,
            Self::ChargedBack => 11,
            Self::AlreadyDisputed => 12,
            Self::NotDisputed => 13,
            Self::NotLocked => 14,
            Self::InsufficientFunds { .. } => 15,
            Self::BalanceOverflow { .. } => 16,
            Self::RailRefused { .. } => 17,
            Self::IdempotencyKeyNotAllowed => 18,
            Self::IdempotencyKeyReused { .. } => 19,
            Self::RequestInProgress => 20,
            Self::SeqMismatch { .. } => 21,
            Self::BelowMinimum { .. } => 22,
        }
    }

    /// Code, meaning and hint.
    pub const fn info(&self) -> &'static RejectionInfo {
        &Self::ALL[self.precedence()]
    }

    /// The stable code, fit for programs.
    pub const fn code(&self) -> &'static str {
        self.info().code
    }

    /// A sentence with the figures that explain it, in the currency's decimals.
    pub fn sentence<'a>(&'a self, currencies: &'a Currencies) -> impl fmt::Display + 'a {
        Sentence { rejection: self, currencies }
    }
}

struct Sentence<'a> {
    rejection: &'a Rejection,
    currencies: &'a Currencies,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let money = |amount: Amount, currency: CurrencyIndex| {
            let code = self.currencies.get(currency).map_or("", |c| c.code());
            let mut text = alloc::format!("{}", amount.display(self.currencies.decimals(currency)));
            if !code.is_empty() {
                text.push(' ');
                text.push_str(code);
            }
            text
        };
        match self.rejection {
            Rejection::AmountNotPositive { currency, asked } => {
                write!(f, "the amount must be above zero, not {}", money(*asked, *currency))
            }
            Rejection::UnknownCurrency => f.write_str("the ledger has no such currency"),
            Rejection::UnknownCustomer => f.write_str("this customer has no chain"),
            Rejection::UnknownTransaction => f.write_str("no transaction with this id was ever accepted"),
            Rejection::OtherCustomer => f.write_str("the transaction belongs to another customer"),
            Rejection::TransactionIdTaken { existing } => write!(
                f,
                "the id is taken by a {} of {} of customer {}",
                existing.kind.name(),
                money(existing.amount, existing.currency),
                existing.customer
            ),
            Rejection::TransactionPending => f.write_str("another customer's open event reserves this transaction id"),
            Rejection::CurrencyMismatch { currency } => {
                let code = self.currencies.get(*currency).map_or_else(String::new, |c| c.code().to_owned());
                write!(f, "the transaction's currency is {code}")
            }
            Rejection::AmountMismatch { currency, asked, amount } => write!(
                f,
                "the amount given is {}, the transaction's is {}",
                money(*asked, *currency),
                money(*amount, *currency)
            ),
            Rejection::CustomerLocked { policy } => {
                write!(f, "the customer is locked (the ledger's policy for locked customers: {})", policy.name())
            }
            Rejection::NotDisputable => f.write_str("withdrawals cannot be disputed in this ledger"),
            Rejection::ChargedBack => f.write_str("the transaction was charged back, which is for good"),
            Rejection::AlreadyDisputed => f.write_str("the transaction is in dispute already"),
            Rejection::NotDisputed => f.write_str("the transaction is not in dispute"),
            Rejection::NotLocked => f.write_str("the customer is not locked"),
            Rejection::InsufficientFunds { currency, asked, available } => {
                write!(f, "asked for {}, available are {}", money(*asked, *currency), money(*available, *currency))
            }
            Rejection::BalanceOverflow { currency, asked } => {
                write!(f, "with {} the account would leave the range of amounts", money(*asked, *currency))
            }
            Rejection::RailRefused { reason } => write!(f, "the rail refused: {reason}"),
            Rejection::IdempotencyKeyNotAllowed => {
                f.write_str("a deposit or a withdrawal has its transaction id, and takes no idempotency key")
            }
            Rejection::IdempotencyKeyReused { event } => {
                write!(f, "the idempotency key is that of event {} of customer {}", event.seq, event.customer)
            }
            Rejection::RequestInProgress => f.write_str("a request with this idempotency key waits for a rail"),
            Rejection::SeqMismatch { expected, seq } => {
                write!(f, "the newest event was expected to be {expected}, and is {seq}")
            }
            Rejection::BelowMinimum { currency, minimum, available } => write!(
                f,
                "{} would be left available, and at least {} are to be",
                money(*available, *currency),
                money(*minimum, *currency)
            ),
        }
    }
}
