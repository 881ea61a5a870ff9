//! What a ledger decides once, at its creation: its policy and its currencies.

use crate::currency::Currencies;
use crate::hash::{Domain, Hash, Hasher};

/// What a locked customer may still do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockedPolicy {
    /// Deposits, withdrawals and new disputes are refused; disputes that are already open can still be
    /// resolved or charged back.
    #[default]
    Nothing,
    /// Only withdrawals are refused.
    NoWithdrawals,
    /// Every request is refused, except an unlock, which is the way out.
    Frozen,
}

/// Which transactions can be disputed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DisputablePolicy {
    /// Deposits only.
    #[default]
    Deposits,
    /// Deposits, and withdrawals by way of a provisional credit.
    DepositsAndWithdrawals,
}

/// The rules a ledger chooses at its creation; they never change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What a locked customer may still do.
    pub locked: LockedPolicy,
    /// Which transactions can be disputed.
    pub disputable: DisputablePolicy,
}

impl LockedPolicy {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::NoWithdrawals, Self::Frozen];

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NoWithdrawals => "no_withdrawals",
            Self::Frozen => "frozen",
        }
    }

    /// The byte that stands for it in encodings.
    pub const fn code(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::NoWithdrawals => 1,
            Self::Frozen => 2,
        }
    }

    /// The policy with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.code() == code)
    }
}

impl DisputablePolicy {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 2] = [Self::Deposits, Self::DepositsAndWithdrawals];

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deposits => "deposits",
            Self::DepositsAndWithdrawals => "deposits_and_withdrawals",
        }
    }

    /// The byte that stands for it in encodings.
    pub const fn code(self) -> u8 {
        match self {
            Self::Deposits => 0,
            Self::DepositsAndWithdrawals => 1,
        }
    }

    /// The policy with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.code() == code)
    }
}

/// What makes a ledger this ledger: its own id, its policy and its currencies. Fixed at its creation and
/// part of every chain's first link, so that an event proves which rules it was decided by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// A random id, given at creation, so that two ledgers never share a chain.
    pub ledger: [u8; 16],
    /// The rules chosen.
    pub policy: Policy,
    /// The currencies chosen.
    pub currencies: Currencies,
}

impl LedgerConfig {
    /// The digest of all of it: what every chain of this ledger begins with. Its encoding is in
    /// `docs/format.md`, under "Ledger digest".
    pub fn digest(&self) -> Hash {
        let mut hasher = Hasher::new(Domain::Ledger);
        hasher.update(&self.ledger);
        hasher.update(&[self.policy.locked.code(), self.policy.disputable.code(), self.currencies.len() as u8]);
        for (_, currency) in self.currencies.iter() {
            hasher.update(&[currency.decimals().count(), currency.code().len() as u8]);
            hasher.update(currency.code().as_bytes());
        }
        hasher.finish()
    }
}
