//! A ledger with its chains in private servers, and its table in memory.
#![allow(dead_code, unused_imports)] // each test uses its part

pub(crate) mod scene;
mod servers;

use bursar_engine::conformance::Stores;
use bursar_engine::core::commit::{Approval, Proposal, ProposeResult};
use bursar_engine::core::{
    Currencies, EntryId, EventRef, EventStatus, LedgerConfig, Policy, TransactionEntry, TransactionId,
};
use bursar_engine::store::{Chains, MemoryStore, ReadRange, StoreError, Transactions};
use bursar_nats::NatsChains;
pub(crate) use servers::{Cluster, Node, Sync, links};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

pub(crate) fn config(number: u8) -> LedgerConfig {
    LedgerConfig { ledger: [number; 16], policy: Policy::default(), currencies: Currencies::default() }
}

/// A transactions table in memory beside chains elsewhere: what a pair of two stores is. It outlives its process no
/// longer than that; [`PairTable::rebuilt`] makes it anew from the chains.
#[derive(Debug)]
pub(crate) struct PairTable {
    table: MemoryStore,
    chains: Arc<dyn Chains>,
    /// The events that touched each transaction, and whether they are known to be in effect.
    events: Mutex<HashMap<TransactionId, Vec<(EventRef, bool)>>>,
}

impl PairTable {
    pub(crate) fn new(config: &LedgerConfig, chains: Arc<dyn Chains>) -> Self {
        Self { table: MemoryStore::new(config).with_split_batches(), chains, events: Mutex::default() }
    }

    /// What the chains say: the last state in effect of each transaction and key, and what is proposed.
    pub(crate) fn rebuilt(config: &LedgerConfig, chains: Arc<dyn Chains>) -> Result<Self, StoreError> {
        let table = Self::new(config, chains);
        let mut listed = Vec::new();
        table.chains.list(None, usize::MAX, &mut listed)?;
        for of in listed {
            let mut entries = Vec::new();
            table.chains.read(of.customer, ReadRange::ALL, &mut entries)?;
            for entry in entries {
                if matches!(entry.status, EventStatus::Aborted(_)) {
                    continue;
                }
                for (id, state) in entry.linked.event.entries() {
                    let mut before = Vec::new();
                    table.table.get(&[id], &mut before)?;
                    let before = before.pop().unwrap_or_default();
                    let proposal = Proposal {
                        entry: id,
                        seen_approved: before.approved,
                        seen_proposed: before.proposed.map(|proposed| proposed.event.id),
                        approved: before.approved,
                        state,
                        event: entry.linked.reference(),
                    };
                    table.propose(&[proposal], &mut Vec::new())?;
                    if entry.status.is_done() {
                        table.approve(&[Approval { entry: id, event: entry.linked.id(), state }])?;
                    }
                }
            }
        }
        Ok(table)
    }
}

impl Transactions for PairTable {
    fn get(&self, ids: &[EntryId], entries: &mut Vec<TransactionEntry>) -> Result<(), StoreError> {
        self.table.get(ids, entries)
    }

    fn propose(&self, proposals: &[Proposal], results: &mut Vec<ProposeResult>) -> Result<(), StoreError> {
        let before = results.len();
        self.table.propose(proposals, results)?;
        let mut events = self.events.lock().unwrap();
        for (proposal, result) in proposals.iter().zip(&results[before..]) {
            let Some(transaction) = proposal.entry.transaction() else { continue };
            let touched = events.entry(transaction).or_default();
            if *result == ProposeResult::Proposed && touched.iter().all(|(event, _)| *event != proposal.event) {
                touched.push((proposal.event, false));
            }
        }
        Ok(())
    }

    fn approve(&self, approvals: &[Approval]) -> Result<(), StoreError> {
        let mut events = self.events.lock().unwrap();
        for approval in approvals {
            let Some(transaction) = approval.entry.transaction() else { continue };
            let touched = events.get_mut(&transaction).into_iter().flatten();
            touched.filter(|(event, _)| event.id == approval.event).for_each(|(_, in_effect)| *in_effect = true);
        }
        self.table.approve(approvals)
    }

    fn events_of(&self, transaction: TransactionId) -> Result<Vec<EventRef>, StoreError> {
        let touched = self.events.lock().unwrap().get(&transaction).cloned().unwrap_or_default();
        let mut events = Vec::new();
        for (event, in_effect) in touched {
            let mut statuses = Vec::new();
            if !in_effect {
                self.chains.status(&[event], &mut statuses)?;
            }
            let counts = |status: &EventStatus| *status == EventStatus::Started || status.is_done();
            if in_effect || statuses.iter().flatten().any(counts) {
                events.push(event);
            }
        }
        Ok(events)
    }
}

/// A pair: chains in a cluster, the table in memory.
pub(crate) fn pair(config: &LedgerConfig, chains: NatsChains) -> Result<Stores, StoreError> {
    let chains: Arc<dyn Chains> = Arc::new(chains);
    let transactions = Arc::new(PairTable::rebuilt(config, chains.clone())?);
    Ok(Stores { chains, transactions })
}
