//! Transactions and the table's entry for one: the last approved state, and at most one proposed.

use crate::amount::Amount;
use crate::currency::CurrencyIndex;
use crate::hash::EventId;
use crate::id::{CustomerId, TransactionId};
use crate::key::RequestKey;
use core::fmt;
use core::hash::{Hash, Hasher};

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

/// Names an entry of the transactions table. Transactions and keys of requests are spaces of their own: that a client
/// chooses the digits of somebody's key for a transaction means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryId {
    /// The entry of a transaction.
    Transaction(TransactionId),
    /// The entry of a request's key. It goes from empty to the one event in effect with that key, and stays there.
    Key(RequestKey),
}

impl EntryId {
    /// The transaction, if it is the entry of one.
    pub const fn transaction(self) -> Option<TransactionId> {
        match self {
            Self::Transaction(transaction) => Some(transaction),
            Self::Key(_) => None,
        }
    }

    /// Seventeen bytes that no other entry has, for stores that find entries by bytes: 0 for a transaction or 1 for a
    /// key, and its bits, big-endian.
    pub const fn to_bytes(self) -> [u8; 17] {
        let (space, bits) = match self {
            Self::Transaction(transaction) => (0, transaction.bits()),
            Self::Key(key) => (1, key.bits()),
        };
        let mut bytes = [space; 17];
        let bits = bits.to_be_bytes();
        let mut index = 0;
        while index < bits.len() {
            bytes[index + 1] = bits[index];
            index += 1;
        }
        bytes
    }
}

/// By the bits alone, which is as much as hashing a transaction's id.
impl Hash for EntryId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Transaction(transaction) => transaction.bits().hash(state),
            Self::Key(key) => key.bits().hash(state),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transaction(transaction) => write!(f, "transaction {transaction}"),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<TransactionId> for EntryId {
    fn from(transaction: TransactionId) -> Self {
        Self::Transaction(transaction)
    }
}

impl From<RequestKey> for EntryId {
    fn from(key: RequestKey) -> Self {
        Self::Key(key)
    }
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

/// What the transactions table holds for one [`EntryId`].
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
