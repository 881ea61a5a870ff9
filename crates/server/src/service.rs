//! What all handlers share: the ledger, the keys, the bounds, the counters, and whether the service stops.

use crate::follow::More;
use crate::keys::Ring;
use crate::limits::Limits;
use crate::metrics::{Held, Metrics};
use crate::problem::Problem;
use crate::rate::Buckets;
use crate::traces::Traces;
use crate::webhooks::Webhooks;
use bursar_core::commit::Terms;
use bursar_core::{Currencies, Request};
use bursar_engine::{EngineError, Ledger, ReadError, SubmitError, Submitted};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Semaphore, oneshot, watch};

/// How far the service is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// It serves.
    Running,
    /// What is under way comes to its end.
    Stopping,
    /// Nobody waits any longer.
    Now,
}

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) ledger: Ledger,
    pub(crate) keys: Arc<Ring>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) reads: Arc<Semaphore>,
    pub(crate) batches: Arc<Semaphore>,
    pub(crate) downloads: Arc<Semaphore>,
    pub(crate) streams: Arc<Semaphore>,
    /// Says when the ledger has more events.
    pub(crate) more: More,
    pub(crate) webhooks: Webhooks,
    pub(crate) traces: Traces,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) rates: Buckets,
    pub(crate) openapi: Bytes,
    pub(crate) stage: watch::Sender<Stage>,
    /// Begins every request id of this run.
    pub(crate) run: u32,
    pub(crate) request_count: AtomicU64,
    failure: OnceLock<Arc<EngineError>>,
}

impl Service {
    pub(crate) fn new(
        ledger: Ledger,
        keys: Arc<Ring>,
        limits: Limits,
        openapi: Bytes,
        stage: watch::Sender<Stage>,
    ) -> Self {
        let mut run = [0; 4];
        // Without randomness, ids of two runs can be the same; within a run they differ.
        let run = getrandom::fill(&mut run).map_or(0, |()| u32::from_le_bytes(run));
        let more = More::of(&ledger);
        Self {
            ledger,
            keys,
            metrics: Metrics::new(),
            reads: Arc::new(Semaphore::new(limits.reads_max)),
            batches: Arc::new(Semaphore::new(limits.batches_max)),
            downloads: Arc::new(Semaphore::new(limits.downloads_max)),
            streams: Arc::new(Semaphore::new(limits.streams_max)),
            more,
            webhooks: Webhooks::default(),
            traces: Traces::default(),
            in_flight: AtomicUsize::new(0),
            rates: Buckets::new(limits.rate_per_key),
            openapi,
            stage,
            run,
            request_count: AtomicU64::new(0),
            failure: OnceLock::new(),
            limits,
        }
    }

    /// With webhooks.
    pub(crate) fn with_webhooks(self, webhooks: Webhooks) -> Self {
        Self { webhooks, ..self }
    }

    /// With traces.
    pub(crate) fn with_traces(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    pub(crate) fn currencies(&self) -> &Currencies {
        &self.ledger.config().currencies
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stage.borrow() > Stage::Running
    }

    /// Hands requests to the engine, to be decided in this order, with the terms of some of them, by place. The outcomes
    /// come when they are durable.
    pub(crate) fn hand_in(
        &self,
        requests: Vec<Request>,
        terms: Vec<(usize, Terms)>,
    ) -> Result<oneshot::Receiver<Vec<Submitted>>, SubmitError> {
        let (sender, outcomes) = oneshot::channel();
        let held = Held::many(&self.metrics.queue, requests.len());
        self.ledger.submit_under_then(requests, terms, move |submitted| {
            drop(held);
            // If the receiver is gone, nobody waits for the outcomes any more.
            drop(sender.send(submitted));
        })?;
        Ok(outcomes)
    }

    /// Hands in one request and waits for its outcome, which is durable then.
    pub(crate) async fn submit(&self, request: Request, terms: Vec<(usize, Terms)>) -> Submitted {
        let _commit = self.traces.commit();
        let outcomes = self.hand_in(vec![request], terms)?;
        outcomes.await.ok().and_then(|mut outcomes| outcomes.pop()).unwrap_or(Err(SubmitError::Closed))
    }

    /// Looks whether a problem means that the engine has stopped: then the service stops as well.
    pub(crate) fn notice(&self, problem: &Problem) {
        match problem {
            Problem::Submit(SubmitError::Stopped(error)) | Problem::Read(ReadError::Stopped(error)) => {
                self.engine_stopped(error);
            }
            Problem::Submit(_)
            | Problem::Read(ReadError::Store(_))
            | Problem::Rejected(_)
            | Problem::Unreadable(_)
            | Problem::Header(_)
            | Problem::NotThere(_)
            | Problem::Service(..) => {}
        }
    }

    pub(crate) fn engine_stopped(&self, error: &Arc<EngineError>) {
        if self.failure.set(error.clone()).is_ok() {
            tracing::error!("the engine stopped: {error}");
            self.stage
                .send_if_modified(|stage| std::mem::replace(stage, Stage::Stopping.max(*stage)) < Stage::Stopping);
        }
    }

    /// Why the engine stopped, if it did.
    pub(crate) fn into_parts(self) -> (Ledger, Option<Arc<EngineError>>) {
        (self.ledger, self.failure.into_inner())
    }
}
