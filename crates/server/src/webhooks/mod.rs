//! Webhooks: the ledger's events, posted to addresses of the operator's choice.
//!
//! ```text
//!  journal ──► follow ──► filter ──► delivery ──► POST, signed ──► receiver
//!                            ▲          │
//!                            └─ cursor ◄┘  2xx: on to the next;  410: paused;  anything else: again, later
//! ```
//!
//! Each endpoint follows the ledger by itself, with a cursor of its own in a file of the ledger's directory, or of the
//! service's where the ledger is in other stores; so none holds up another, or the engine. Events of an endpoint are
//! delivered one by one in the order of the feed: the next one is sent when the one before was taken. The cursor is
//! written after the deliveries it covers, so after a crash some are sent again, with the same id and the same body; none
//! is left out.
//!
//! Messages and signatures are as in Standard Webhooks. Addresses come only from the operator's own file: nobody who
//! uses the API can make the service call anything.
//!
//! What this module does not do: follow redirects, use proxies, or read answers beyond their status.

mod config;
mod cursor;
mod delivery;
mod endpoint;
mod lock;

pub use bursar_outbound::Hidden;
pub use config::{WebhookConfig, WebhookError};
pub(crate) use cursor::Paused;
pub(crate) use delivery::Message;
pub(crate) use endpoint::{Attempt, Endpoint, Overview, Resend};

use crate::service::Service;
use bursar_engine::Ledger;
use bursar_engine::embedded::disk::FileLock;
use config::Prepared;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What was configured, checked, and not at work yet.
#[derive(Debug, Default)]
pub(crate) struct Configured(Vec<Prepared>);

impl Configured {
    /// Checks what was configured, and reads the secrets.
    pub(crate) fn check(configs: Vec<WebhookConfig>) -> Result<Self, WebhookError> {
        let mut checked: Vec<Prepared> = Vec::new();
        for config in configs {
            let prepared = config.prepare()?;
            if checked.iter().any(|other| other.name == prepared.name) {
                return Err(WebhookError::of(&prepared.name, "there is another webhook with this name"));
            }
            checked.push(prepared);
        }
        Ok(Self(checked))
    }

    /// Finds where each one goes on: by a file of the ledger's directory, or of this one if the ledger is in none. This one is
    /// locked then, as long as there are the webhooks.
    pub(crate) fn open(self, ledger: &Ledger, directory: Option<&Path>) -> Result<Webhooks, WebhookError> {
        let own = directory.filter(|_| ledger.embedded().is_none()).zip(self.0.first());
        let lock = own.map(|(directory, first)| lock::lock(directory, &first.name)).transpose()?;
        let endpoints = self.0.into_iter().map(|prepared| Endpoint::open(prepared, ledger, directory).map(Arc::new));
        Ok(Webhooks { endpoints: endpoints.collect::<Result<_, _>>()?, _lock: lock })
    }
}

/// All webhooks, in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    endpoints: Vec<Arc<Endpoint>>,
    /// Of the directory with their places.
    _lock: Option<FileLock>,
}

impl Webhooks {
    pub(crate) fn all(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| endpoint.name() == name)
    }
}

/// The tasks that deliver, one for each endpoint.
#[derive(Debug)]
pub(crate) struct Running(JoinSet<()>);

impl Running {
    /// Begins to deliver.
    pub(crate) fn start(service: &Arc<Service>) -> Self {
        let mut tasks = JoinSet::new();
        for endpoint in service.webhooks.all() {
            tasks.spawn(delivery::deliver_all(endpoint.clone(), service.clone()));
        }
        Self(tasks)
    }

    /// Waits until all have seen that the service stops, and have written their cursors.
    pub(crate) async fn stopped(mut self, wait: Duration) {
        let all = async { while self.0.join_next().await.is_some() {} };
        if timeout(wait, all).await.is_err() {
            tracing::warn!("a webhook did not come to its end in time; what it delivered last may be sent again");
        }
    }
}
