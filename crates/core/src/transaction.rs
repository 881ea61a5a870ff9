//! Transactions and the table's entry for one: the last approved state, and at most one proposed.

use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use crate::hash::EventId;
use crate::id::CustomerId;

/// Which way a transaction moved money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    /// Into the account.
    Deposit,
    /// Out of the account.
    Withdrawal,
}

impl TransactionKind {
    /// The name used in files, on the command line and in interfaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Withdrawal => "withdrawal",
        }
    }
}

/// How a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionStatus {
    /// Accepted; also after a dispute was resolved.
    Posted,
    /// Contested; its amount is held.
    Disputed,
    /// Taken back, for good.
    ChargedBack,
}

impl TransactionStatus {
    /// The name used in files, on the command line and in interfaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Posted => "posted",
            Self::Disputed => "disputed",
            Self::ChargedBack => "charged_back",
        }
    }
}

/// A transaction as the table knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionState {
    /// Whose it is.
    pub customer: CustomerId,
    /// Which way it moved money.
    pub kind: TransactionKind,
    /// How much; above zero.
    pub amount: Amount,
    /// In which currency.
    pub currency: CurrencyIndex,
    /// How it stands.
    pub status: TransactionStatus,
}

/// Where an event is: whose chain, at which place, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventRef {
    /// Whose chain.
    pub customer: CustomerId,
    /// The event's sequence number; the first of a chain is 1.
    pub seq: u64,
    /// The event's id.
    pub id: EventId,
}

/// A state that counts only if its event is `Done`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The state proposed.
    pub state: TransactionState,
    /// The event that proposes it.
    pub event: EventRef,
}

/// What the transactions table holds for one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransactionEntry {
    /// The last approved state.
    pub approved: Option<TransactionState>,
    /// The newest proposed state, with its event, which may be decided already. It stays when it is approved:
    /// as the mark of who wrote last, by which a conditional write notices every write in between.
    pub proposed: Option<Proposed>,
}

impl TransactionEntry {
    /// Whether the approved state is the one in effect, whatever has become of the event that proposed last:
    /// nothing is proposed, or what is proposed is approved. (No event proposes the state it finds.)
    pub fn is_settled(&self) -> bool {
        self.proposed.is_none_or(|proposed| self.approved == Some(proposed.state))
    }
}
