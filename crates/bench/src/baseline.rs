//! The peer-like baseline: the same job with the crates that most would take for it.
//!
//! `csv` and `serde` read, `rust_decimal` counts, two `std` hash maps remember. One thread, one reused record, no
//! allocation per row: as one would write it who knows these crates and wants it fast. It keeps the rules of
//! `docs/protocol.md`'s default policy and the checks that make a result right (unique ids, repeats, order of
//! disputes, locks), so that its accounts and counts must equal the engine's; every run compares them. It keeps no
//! history, proves nothing and survives no crash.

use crate::failure::Failure;
use bursar_engine::store::RowCounts;
use csv::{ByteRecord, ReaderBuilder, Trim};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::Hash;
use std::io::{self, Read};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Deposit,
    Withdrawal,
    Dispute,
    Resolve,
    Chargeback,
}

#[derive(Debug, Deserialize)]
#[serde(bound = "Tx: Deserialize<'de>")]
struct Row<Tx> {
    #[serde(rename = "type")]
    kind: Kind,
    client: u64,
    tx: Tx,
    amount: Option<Decimal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Posted,
    Disputed,
    ChargedBack,
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    client: u64,
    amount: Decimal,
    is_deposit: bool,
    status: Status,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    available: Decimal,
    held: Decimal,
    locked: bool,
}

#[derive(Debug, Serialize)]
struct AccountRow {
    client: u64,
    available: Decimal,
    held: Decimal,
    total: Decimal,
    locked: bool,
}

/// A transaction id as a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Uuid(u128);

impl<'de> Deserialize<'de> for Uuid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Uuid;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a UUID")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uuid, E> {
                let mut bits = 0;
                for (index, byte) in text.bytes().enumerate() {
                    let digit = match (index, byte) {
                        (8 | 13 | 18 | 23, b'-') => continue,
                        (8 | 13 | 18 | 23, _) => return Err(E::custom("no hyphen where one should be")),
                        (_, b'0'..=b'9') => byte - b'0',
                        (_, b'a'..=b'f') => byte - b'a' + 10,
                        (_, b'A'..=b'F') => byte - b'A' + 10,
                        (_, _) => return Err(E::custom("no hexadecimal digit")),
                    };
                    bits = bits << 4 | u128::from(digit);
                }
                if text.len() == 36 { Ok(Uuid(bits)) } else { Err(E::custom("not 36 characters")) }
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

enum Became {
    Applied,
    AlreadyApplied,
    Rejected,
}

/// Accounts and transactions, in memory.
#[derive(Debug)]
pub(crate) struct Baseline<Tx> {
    accounts: HashMap<u64, Account>,
    transactions: HashMap<Tx, Transaction>,
}

impl<Tx: for<'de> Deserialize<'de> + Eq + Hash + Copy> Baseline<Tx> {
    pub(crate) fn new() -> Self {
        Self { accounts: HashMap::new(), transactions: HashMap::new() }
    }

    /// Applies all rows; says how many became what.
    pub(crate) fn apply(&mut self, input: impl Read) -> Result<RowCounts, Failure> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).flexible(true).from_reader(input);
        let header = reader.byte_headers()?.clone();
        let mut record = ByteRecord::new();
        let mut counts = RowCounts::default();
        while reader.read_byte_record(&mut record)? {
            let Ok(row) = record.deserialize::<Row<Tx>>(Some(&header)) else {
                counts.unreadable += 1;
                continue;
            };
            match self.row(&row) {
                Some(Became::Applied) => counts.applied += 1,
                Some(Became::AlreadyApplied) => counts.already_applied += 1,
                Some(Became::Rejected) => counts.rejected += 1,
                None => counts.unreadable += 1,
            }
        }
        Ok(counts)
    }

    fn row(&mut self, row: &Row<Tx>) -> Option<Became> {
        match row.kind {
            Kind::Deposit | Kind::Withdrawal => {
                let amount = row.amount.filter(|amount| amount.scale() <= 4)?;
                Some(self.movement(row.client, row.tx, amount, row.kind == Kind::Deposit))
            }
            Kind::Dispute | Kind::Resolve | Kind::Chargeback => Some(self.reference(row)),
        }
    }

    fn movement(&mut self, client: u64, tx: Tx, amount: Decimal, is_deposit: bool) -> Became {
        if amount <= Decimal::ZERO {
            return Became::Rejected;
        }
        let vacant = match self.transactions.entry(tx) {
            Entry::Occupied(old) => {
                let old = old.get();
                let same = old.client == client && old.amount == amount && old.is_deposit == is_deposit;
                return if same { Became::AlreadyApplied } else { Became::Rejected };
            }
            Entry::Vacant(vacant) => vacant,
        };
        if is_deposit {
            let account = self.accounts.entry(client).or_default();
            if account.locked {
                return Became::Rejected;
            }
            account.available += amount;
        } else {
            let Some(account) = self.accounts.get_mut(&client) else { return Became::Rejected };
            if account.locked || amount > account.available {
                return Became::Rejected;
            }
            account.available -= amount;
        }
        vacant.insert(Transaction { client, amount, is_deposit, status: Status::Posted });
        Became::Applied
    }

    fn reference(&mut self, row: &Row<Tx>) -> Became {
        let Some(transaction) = self.transactions.get_mut(&row.tx) else { return Became::Rejected };
        let Some(account) = self.accounts.get_mut(&row.client) else { return Became::Rejected };
        let amount = transaction.amount;
        if transaction.client != row.client
            || row.amount.is_some_and(|given| given != amount)
            || !transaction.is_deposit
        {
            return Became::Rejected;
        }
        match (row.kind, transaction.status) {
            (Kind::Dispute, Status::Posted) if !account.locked => {
                account.available -= amount;
                account.held += amount;
                transaction.status = Status::Disputed;
            }
            (Kind::Resolve, Status::Disputed) => {
                account.held -= amount;
                account.available += amount;
                transaction.status = Status::Posted;
            }
            (Kind::Chargeback, Status::Disputed) => {
                account.held -= amount;
                account.locked = true;
                transaction.status = Status::ChargedBack;
            }
            (_, _) => return Became::Rejected,
        }
        Became::Applied
    }

    /// Writes all accounts as CSV, in no order.
    pub(crate) fn write_accounts(&self, output: impl io::Write) -> Result<(), Failure> {
        let mut writer = csv::Writer::from_writer(output);
        for (&client, account) in &self.accounts {
            let Account { available, held, locked } = *account;
            writer.serialize(AccountRow { client, available, held, total: available + held, locked })?;
        }
        Ok(writer.flush()?)
    }

    /// Every account with its customer, available and held in steps of four decimals, by customer.
    pub(crate) fn accounts(&self) -> Result<Vec<(u128, i64, i64, bool)>, Failure> {
        let steps = |amount: Decimal| -> Result<i64, Failure> {
            let mut scaled = amount;
            scaled.rescale(4);
            i64::try_from(scaled.mantissa()).map_err(|error| Failure::Baseline(error.to_string()))
        };
        let row = |(&client, account): (&u64, &Account)| {
            Ok((u128::from(client), steps(account.available)?, steps(account.held)?, account.locked))
        };
        let mut accounts = self.accounts.iter().map(row).collect::<Result<Vec<_>, Failure>>()?;
        accounts.sort_unstable();
        Ok(accounts)
    }
}
