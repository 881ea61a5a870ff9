//! Events by hand, without an engine; and a client that goes past the store.
#![allow(dead_code)] // each test uses its part

use super::servers::Cluster;
use bursar_engine::core::commit::Appended;
use bursar_engine::core::rules::{Decision, Known, decide};
use bursar_engine::core::{Amount, CustomerId, Event, Head, LedgerConfig, LinkedEvent, Record, Request, TransactionId};
use bursar_engine::store::Chains;
use bursar_nats::NatsChains;
use bytes::Bytes;
use serde_json::Value;

pub(crate) fn customer(number: u128) -> CustomerId {
    CustomerId::new(number)
}

pub(crate) fn head(chains: &NatsChains, config: &LedgerConfig, of: CustomerId) -> Head {
    let mut heads = Vec::new();
    chains.load(&[of], &mut heads).unwrap();
    heads.pop().unwrap().unwrap_or_else(|| Head::start(&config.digest(), of))
}

/// The event of a deposit on top of a head.
pub(crate) fn deposit(config: &LedgerConfig, head: &Head, of: CustomerId, transaction: u128) -> LinkedEvent {
    let request = Request::deposit(of, TransactionId::new(transaction), Amount::from_steps(5));
    let Ok(Decision::Change(change)) = decide(config, &head.state, Known::default(), &request) else {
        panic!("a deposit is always possible")
    };
    LinkedEvent::new(Event::new(of, head.seq + 1, 1_700_000_000_000, change, None), &head.link)
}

pub(crate) fn append(chains: &NatsChains, records: &[Record]) -> Vec<Appended> {
    let mut results = Vec::new();
    chains.append(records, &mut results).unwrap();
    results
}

/// Appends a deposit and its end.
pub(crate) fn commit(chains: &NatsChains, config: &LedgerConfig, of: CustomerId, transaction: u128) -> LinkedEvent {
    let event = deposit(config, &head(chains, config, of), of, transaction);
    assert_eq!(append(chains, &[Record::Started(event.clone())]), [Appended::Yes]);
    assert_eq!(append(chains, &[Record::Done(event.reference())]), [Appended::Yes]);
    event
}

/// A client of one's own, beside the store.
pub(crate) struct Raw {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) client: async_nats::Client,
}

impl Raw {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connect = async_nats::ConnectOptions::with_user_and_password("books".into(), "books".into());
        let client = runtime.block_on(connect.connect(cluster.nodes[0].address())).unwrap();
        Self { runtime, client }
    }

    pub(crate) fn ask(&self, subject: &str, payload: impl Into<Bytes>) -> Bytes {
        self.runtime.block_on(self.client.request(subject.to_owned(), payload.into())).unwrap().payload
    }

    pub(crate) fn api(&self, subject: &str, body: &Value) -> Value {
        serde_json::from_slice(&self.ask(&format!("$JS.API.{subject}"), body.to_string())).unwrap()
    }
}
