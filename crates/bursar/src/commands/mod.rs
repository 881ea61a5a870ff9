//! One module per command: what it does with arguments that were checked.

pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod backup;
pub(crate) mod chain;
mod changes;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod generate;
pub(crate) mod info;
pub(crate) mod ingest;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod listen;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod pending;
pub(crate) mod restore;
pub(crate) mod serve;
pub(crate) mod settle;
pub(crate) mod submit;
pub(crate) mod top;
pub(crate) mod transaction;
pub(crate) mod unlock;
pub(crate) mod verify;
pub(crate) mod verify_file;

use crate::checked;
use crate::engine_failure::not_there;
use crate::exit::Failure;
use bursar_core::{CustomerId, Rejection};
use bursar_engine::AsOf;

/// A moment of the command line as the engine takes it. Nothing happened before 1970.
pub(crate) fn as_of(at: checked::AsOf) -> AsOf {
    match at {
        checked::AsOf::Seq(seq) => AsOf::Seq(seq),
        checked::AsOf::Time(time) => AsOf::TimeMs(u64::try_from(time.as_millisecond()).unwrap_or(0)),
    }
}

fn unknown_customer(customer: CustomerId) -> Failure {
    not_there(&Rejection::UnknownCustomer, format!("customer {customer} has no chain"))
}
