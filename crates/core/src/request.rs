//! What somebody asks for. A request says nothing yet about whether it can be done; see [`crate::rules`].

use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use crate::id::{CustomerId, TransactionId};

/// The six kinds of request, and of the events that accepted requests make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// Money comes in.
    Deposit,
    /// Money goes out.
    Withdrawal,
    /// A transaction is contested; its amount is held.
    Dispute,
    /// A dispute ends in favour of the transaction.
    Resolve,
    /// A dispute ends against the transaction, for good, and the customer is locked.
    Chargeback,
    /// An operator unlocks a customer.
    Unlock,
}

impl RequestKind {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 6] =
        [Self::Deposit, Self::Withdrawal, Self::Dispute, Self::Resolve, Self::Chargeback, Self::Unlock];

    /// The name used in files, on the command line and in interfaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Withdrawal => "withdrawal",
            Self::Dispute => "dispute",
            Self::Resolve => "resolve",
            Self::Chargeback => "chargeback",
            Self::Unlock => "unlock",
        }
    }

    /// The byte that stands for it in encodings.
    pub const fn code(self) -> u8 {
        match self {
            Self::Deposit => 1,
            Self::Withdrawal => 2,
            Self::Dispute => 3,
            Self::Resolve => 4,
            Self::Chargeback => 5,
            Self::Unlock => 6,
        }
    }

    /// The kind with this code, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Deposit),
            2 => Some(Self::Withdrawal),
            3 => Some(Self::Dispute),
            4 => Some(Self::Resolve),
            5 => Some(Self::Chargeback),
            6 => Some(Self::Unlock),
            _ => None,
        }
    }

    /// The kind with this name, whatever its letter case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().as_bytes().eq_ignore_ascii_case(name))
    }
}

/// A new transaction: what a deposit or a withdrawal brings with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The id of the transaction to be made.
    pub transaction: TransactionId,
    /// How much. Anything not above zero is rejected.
    pub amount: Amount,
    /// In which currency.
    pub currency: CurrencyIndex,
}

/// An existing transaction: what a dispute, a resolve or a chargeback refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The id of the transaction meant.
    pub transaction: TransactionId,
    /// If given, it must equal the transaction's.
    pub amount: Option<Amount>,
    /// If given, it must equal the transaction's.
    pub currency: Option<CurrencyIndex>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Money comes in.
    Deposit(Movement),
    /// Money goes out.
    Withdrawal(Movement),
    /// Contest a transaction.
    Dispute(Reference),
    /// End a dispute in favour of the transaction.
    Resolve(Reference),
    /// End a dispute against the transaction.
    Chargeback(Reference),
    /// Unlock the customer.
    Unlock,
}

impl Action {
    /// Whether its request may come with a key: whether it brings no id of its own by which it takes effect once.
    pub const fn takes_key(&self) -> bool {
        match self {
            Self::Deposit(_) | Self::Withdrawal(_) => false,
            Self::Dispute(_) | Self::Resolve(_) | Self::Chargeback(_) | Self::Unlock => true,
        }
    }

    /// Which of the six kinds it is.
    pub const fn kind(&self) -> RequestKind {
        match self {
            Self::Deposit(_) => RequestKind::Deposit,
            Self::Withdrawal(_) => RequestKind::Withdrawal,
            Self::Dispute(_) => RequestKind::Dispute,
            Self::Resolve(_) => RequestKind::Resolve,
            Self::Chargeback(_) => RequestKind::Chargeback,
            Self::Unlock => RequestKind::Unlock,
        }
    }

    /// The transaction it makes or refers to; an unlock has none.
    pub const fn transaction(&self) -> Option<TransactionId> {
        match self {
            Self::Deposit(movement) | Self::Withdrawal(movement) => Some(movement.transaction),
            Self::Dispute(reference) | Self::Resolve(reference) | Self::Chargeback(reference) => {
                Some(reference.transaction)
            }
            Self::Unlock => None,
        }
    }
}

/// What somebody asks for, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose account is meant.
    pub customer: CustomerId,
    /// What is asked for.
    pub action: Action,
}

impl Request {
    /// A deposit in the currency of a ledger that has only one.
    pub const fn deposit(customer: CustomerId, transaction: TransactionId, amount: Amount) -> Self {
        let currency = CurrencyIndex(0);
        Self { customer, action: Action::Deposit(Movement { transaction, amount, currency }) }
    }

    /// A withdrawal in the currency of a ledger that has only one.
    pub const fn withdrawal(customer: CustomerId, transaction: TransactionId, amount: Amount) -> Self {
        let currency = CurrencyIndex(0);
        Self { customer, action: Action::Withdrawal(Movement { transaction, amount, currency }) }
    }

    /// A dispute of a whole transaction.
    pub const fn dispute(customer: CustomerId, transaction: TransactionId) -> Self {
        Self { customer, action: Action::Dispute(Reference { transaction, amount: None, currency: None }) }
    }

    /// A resolve.
    pub const fn resolve(customer: CustomerId, transaction: TransactionId) -> Self {
        Self { customer, action: Action::Resolve(Reference { transaction, amount: None, currency: None }) }
    }

    /// A chargeback.
    pub const fn chargeback(customer: CustomerId, transaction: TransactionId) -> Self {
        Self { customer, action: Action::Chargeback(Reference { transaction, amount: None, currency: None }) }
    }

    /// An unlock.
    pub const fn unlock(customer: CustomerId) -> Self {
        Self { customer, action: Action::Unlock }
    }
}
