#![no_std]
//! The heart of Bursar: the rules of money, the chains, and the commit protocol.
//!
//! Pure code without a standard library: no I/O, no clock, no randomness, no float. What the world does comes
//! in as arguments, and what should be done in the world goes out as values.

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod account;
pub mod amount;
pub mod chain;
pub mod commit;
pub mod currency;
mod digits;
pub mod event;
pub mod hash;
pub mod id;
pub mod key;
#[cfg(test)]
mod model;
pub mod planted;
pub mod policy;
pub mod rejection;
pub mod request;
pub mod rules;
pub mod time;
pub mod transaction;

pub use account::{Account, Accounts, CustomerState};
pub use amount::{Amount, AmountError, AmountErrorKind, DECIMALS_MAX, Decimals, Sum};
pub use chain::{ChainCheck, ChainFault, Head};
pub use currency::{Currencies, Currency, CurrencyError, CurrencyIndex};
pub use event::{AbortReason, Event, EventStatus, LinkedEvent, RailId, ReasonText, Record};
pub use hash::{EventId, Hash};
pub use id::{CustomerId, Id, IdError, IdErrorKind, TransactionId};
pub use key::{KEY_TEXT_BYTES_MAX, RequestKey};
pub use policy::{DisputablePolicy, LedgerConfig, LockedPolicy, Policy};
pub use rejection::{Rejection, RejectionInfo};
pub use request::{Action, Movement, Reference, Request, RequestKind};
pub use time::Time;
pub use transaction::{
    EntryId, EventRef, Proposed, TransactionEntry, TransactionKind, TransactionState, TransactionStatus,
};
