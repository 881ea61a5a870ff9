//! From the engine's values to columns and back. Ids are `uuid`: 16 bytes in the order of the numbers, which people
//! can join with. What is read is checked before it is believed.

use bursar_core::{
    AbortReason, Account, Amount, CurrencyIndex, CustomerId, CustomerState, Event, EventId, EventRef, EventStatus,
    Hash, LinkedEvent, RailId, ReasonText, RequestKey, RequestKind, TransactionId, TransactionKind, TransactionState,
    TransactionStatus,
};
use bursar_engine::store::{Damage, StoreError};
use bytes::{BufMut, BytesMut};
use std::error::Error;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

/// 128 bits as a `uuid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Uuid(pub(crate) u128);

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u128(self.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(u128::from_be_bytes(raw.try_into()?)))
    }

    accepts!(UUID);
}

pub(crate) const fn uuid(customer: CustomerId) -> Uuid {
    Uuid(customer.bits())
}

/// A number that is never negative, as the database keeps it; `None` if it is beyond that.
pub(crate) fn big(number: u64) -> Option<i64> {
    i64::try_from(number).ok()
}

/// A count of rows.
pub(crate) fn count_of(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// An error for stored data that is not what was stored.
pub(crate) fn damaged(place: &str, what: String) -> StoreError {
    StoreError::Damaged(Damage { path: place.into(), offset: 0, what })
}

/// Reads a row's columns one after the other.
pub(crate) struct Columns<'a> {
    row: &'a Row,
    place: &'a str,
    next: usize,
}

impl<'a> Columns<'a> {
    pub(crate) const fn new(row: &'a Row, place: &'a str) -> Self {
        Self { row, place, next: 0 }
    }

    pub(crate) fn get<T: FromSql<'a>>(&mut self) -> Result<T, StoreError> {
        let at = self.next;
        self.next += 1;
        self.row.try_get(at).map_err(|error| self.damaged(format!("column {at}: {error}")))
    }

    pub(crate) fn skip(&mut self, count: usize) {
        self.next += count;
    }

    pub(crate) fn number(&mut self) -> Result<u64, StoreError> {
        let number: i64 = self.get()?;
        u64::try_from(number).map_err(|_| self.damaged(format!("{number} is below zero")))
    }

    pub(crate) fn damaged(&self, what: String) -> StoreError {
        damaged(self.place, what)
    }

    fn currency(&mut self) -> Result<CurrencyIndex, StoreError> {
        let currency: i16 = self.get()?;
        u8::try_from(currency).map(CurrencyIndex).map_err(|_| self.damaged(format!("currency {currency}")))
    }

    fn transaction_kind(&mut self) -> Result<TransactionKind, StoreError> {
        Ok(if self.get()? { TransactionKind::Withdrawal } else { TransactionKind::Deposit })
    }

    /// An event by [`EVENT_COLUMNS`].
    pub(crate) fn event(&mut self) -> Result<LinkedEvent, StoreError> {
        let customer = CustomerId::new(self.get::<Uuid>()?.0);
        let id = self.get::<Uuid>()?;
        let transaction = self.get::<Option<Uuid>>()?.map(|id| TransactionId::new(id.0));
        let (seq, time_ms) = (self.number()?, self.number()?);
        let amount = Amount::from_steps(self.get()?);
        let account = Account { available: Amount::from_steps(self.get()?), held: Amount::from_steps(self.get()?) };
        let kind: i16 = self.get()?;
        let kind = u8::try_from(kind).ok().and_then(RequestKind::from_code);
        let kind = kind.ok_or_else(|| self.damaged(format!("customer {customer}, event {seq}: unknown kind")))?;
        let currency = self.currency()?;
        let rail: Option<i16> = self.get()?;
        let rail = rail.and_then(|rail| RailId::new(u8::try_from(rail).unwrap_or(0)));
        let transaction_kind = self.transaction_kind()?;
        let mut state = CustomerState { locked: self.get()?, ..CustomerState::default() };
        let hash: &[u8] = self.get()?;
        let hash = <[u8; 32]>::try_from(hash).map(Hash);
        let hash = hash.map_err(|_| self.damaged(format!("customer {customer}, event {seq}: its hash is cut")))?;
        state.accounts.set(currency, account);
        let others: Option<Vec<i16>> = self.get()?;
        let (available, held): (Option<Vec<i64>>, Option<Vec<i64>>) = (self.get()?, self.get()?);
        if let (Some(others), Some(available), Some(held)) = (others, available, held) {
            for ((currency, available), held) in others.into_iter().zip(available).zip(held) {
                let account = Account { available: Amount::from_steps(available), held: Amount::from_steps(held) };
                state.accounts.set(CurrencyIndex(u8::try_from(currency).unwrap_or(u8::MAX)), account);
            }
        }
        let key: Option<Uuid> = self.get()?;
        let known = key.map(|key| RequestKey::from_bits(key.0));
        let key = known.map(|key| key.ok_or_else(|| self.damaged(format!("customer {customer}, event {seq}: no key"))));
        let key = key.transpose()?;
        let event =
            Event { customer, seq, time_ms, kind, transaction, transaction_kind, amount, currency, rail, key, state };
        let linked = LinkedEvent { event, hash };
        if linked.id().bits() == id.0 {
            Ok(linked)
        } else {
            Err(self.damaged(format!("customer {customer}, event {seq}: its id is not that of its hash")))
        }
    }

    /// A status by [`STATUS_COLUMNS`].
    pub(crate) fn status(&mut self) -> Result<EventStatus, StoreError> {
        let (status, reason, said): (Option<i16>, Option<i16>, Option<&str>) = (self.get()?, self.get()?, self.get()?);
        let aborted = || AbortReason::from_code(u8::try_from(reason?).ok()?, said.unwrap_or_default());
        match status {
            None => Ok(EventStatus::Started),
            Some(DONE) => Ok(EventStatus::Done),
            Some(DONE_BY_HAND) => Ok(EventStatus::DoneByHand(ReasonText::new(said.unwrap_or_default()))),
            Some(ABORTED) => match aborted() {
                Some(reason) => Ok(EventStatus::Aborted(reason)),
                None => Err(self.damaged(format!("an event is aborted for the unknown reason {reason:?}"))),
            },
            Some(other) => Err(self.damaged(format!("an event has the unknown status {other}"))),
        }
    }

    /// A state: customer, withdrawal, amount, currency, status; `None` if all are null.
    pub(crate) fn state(&mut self) -> Result<Option<TransactionState>, StoreError> {
        let Some(customer) = self.get::<Option<Uuid>>()? else {
            self.skip(4);
            return Ok(None);
        };
        let kind = self.transaction_kind()?;
        let amount = Amount::from_steps(self.get()?);
        let currency = self.currency()?;
        let status: i16 = self.get()?;
        let status = match status {
            1 => TransactionStatus::Posted,
            2 => TransactionStatus::Disputed,
            3 => TransactionStatus::ChargedBack,
            other => return Err(self.damaged(format!("a transaction has the unknown state {other}"))),
        };
        Ok(Some(TransactionState { customer: CustomerId::new(customer.0), kind, amount, currency, status }))
    }

    /// Where an event is: customer, seq, id.
    pub(crate) fn reference(&mut self) -> Result<EventRef, StoreError> {
        let customer = CustomerId::new(self.get::<Uuid>()?.0);
        Ok(EventRef { customer, seq: self.number()?, id: EventId::from_first_bits(self.get::<Uuid>()?.0) })
    }
}

/// The columns of an event, in the order of [`Columns::event`].
macro_rules! event_columns {
    ($table:literal) => {
        concat!(
            $table,
            ".customer, ",
            $table,
            ".id, ",
            $table,
            ".transaction, ",
            $table,
            ".seq, ",
            $table,
            ".time_ms, ",
            $table,
            ".amount, ",
            $table,
            ".available, ",
            $table,
            ".held, ",
            $table,
            ".kind, ",
            $table,
            ".currency, ",
            $table,
            ".rail, ",
            $table,
            ".withdrawal, ",
            $table,
            ".locked, ",
            $table,
            ".hash, ",
            $table,
            ".other_currencies, ",
            $table,
            ".other_available, ",
            $table,
            ".other_held, ",
            $table,
            ".request_key"
        )
    };
}
/// How many they are.
pub(crate) const EVENT_COLUMN_COUNT: usize = 18;
pub(crate) use event_columns;

/// `statuses.status`.
pub(crate) const DONE: i16 = 1;
pub(crate) const ABORTED: i16 = 2;
pub(crate) const DONE_BY_HAND: i16 = 3;

pub(crate) const fn state_code(status: TransactionStatus) -> i16 {
    match status {
        TransactionStatus::Posted => 1,
        TransactionStatus::Disputed => 2,
        TransactionStatus::ChargedBack => 3,
    }
}

pub(crate) fn is_withdrawal(kind: TransactionKind) -> bool {
    kind == TransactionKind::Withdrawal
}
