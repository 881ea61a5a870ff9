//! Hashes of chains, made from the format's description (`docs/format.md`) and a library's SHA-256 alone.

use bursar_engine::core::{AbortReason, Event, LedgerConfig, RailId, TransactionId, TransactionKind};
use sha2::{Digest, Sha256};

fn digest(domain: [u8; 8], parts: &[&[u8]]) -> [u8; 32] {
    let mut sha = Sha256::new_with_prefix(domain);
    for part in parts {
        sha.update(part);
    }
    sha.finalize().into()
}

/// The digest of a ledger whose currencies have no names but one of four decimals, or which lists some.
pub(super) fn ledger(config: &LedgerConfig) -> [u8; 32] {
    let mut bytes = config.ledger.to_vec();
    bytes.extend([config.policy.locked.code(), config.policy.disputable.code(), config.currencies.len() as u8]);
    for (_, currency) in config.currencies.iter() {
        bytes.extend([currency.decimals().count(), currency.code().len() as u8]);
        bytes.extend(currency.code().as_bytes());
    }
    digest(*b"bursar1l", &[&bytes])
}

/// The link that a customer's first event builds on.
pub(super) fn chain_start(ledger_digest: &[u8; 32], customer: u128) -> [u8; 32] {
    digest(*b"bursar1c", &[ledger_digest, &customer.to_be_bytes()])
}

/// The link behind an aborted event.
pub(super) fn aborted(link: &[u8; 32], hash: &[u8; 32], reason: &AbortReason) -> [u8; 32] {
    digest(*b"bursar1a", &[link, hash, &[reason.code()], reason.text().as_bytes()])
}

/// The link behind an event that was settled by hand as done.
pub(super) fn done_by_hand(link: &[u8; 32], hash: &[u8; 32], reason: &str) -> [u8; 32] {
    digest(*b"bursar1h", &[link, hash, reason.as_bytes()])
}

/// An event's hash on top of a link.
pub(super) fn event(link: &[u8; 32], event: &Event) -> [u8; 32] {
    let mut content = Vec::with_capacity(128);
    content.extend(event.customer.bits().to_be_bytes());
    content.extend(event.seq.to_be_bytes());
    content.extend(event.time_ms.to_be_bytes());
    let is_withdrawal = event.transaction_kind == TransactionKind::Withdrawal;
    content.extend([
        event.kind.code(),
        u8::from(event.state.locked) + 2 * u8::from(is_withdrawal) + 4 * u8::from(event.key.is_some()),
        event.currency.0,
        event.rail.map_or(0, RailId::number),
    ]);
    content.extend(event.transaction.map_or(0, TransactionId::bits).to_be_bytes());
    content.extend(event.amount.steps().to_be_bytes());
    let own = event.state.accounts.iter().find(|(currency, _)| *currency == event.currency);
    let (available, held) = own.map_or((0, 0), |(_, account)| (account.available.steps(), account.held.steps()));
    content.extend(available.to_be_bytes());
    content.extend(held.to_be_bytes());
    let others: Vec<_> = event.state.accounts.iter().filter(|(currency, _)| *currency != event.currency).collect();
    content.push(others.len() as u8);
    for (currency, account) in others {
        content.push(currency.0);
        content.extend(account.available.steps().to_be_bytes());
        content.extend(account.held.steps().to_be_bytes());
    }
    content.extend(event.key.into_iter().flat_map(|key| key.bits().to_be_bytes()));
    digest(*b"bursar1e", &[link, &content])
}
