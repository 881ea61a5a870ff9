//! Reads of the ledger. They may go to the disk, and wait until what they saw is durable; so each runs on a thread
//! for such work, and only a bounded number at once.

use crate::problem::{Problem, ServiceProblem};
use crate::service::Service;
use bursar_engine::Ledger;
use std::sync::Arc;
use tokio::time::timeout;

impl Service {
    /// Reads on a thread of its own, when its turn has come.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Ledger) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = timeout(self.limits.read_wait, self.reads.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = turn else {
            return Err(Problem::service(ServiceProblem::Busy, "too many reads are under way"));
        };
        let service = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let done = work(&service.ledger);
            drop(permit);
            done
        });
        let done =
            read.await.unwrap_or_else(|error| Err(Problem::service(ServiceProblem::Internal, error.to_string())));
        if let Err(problem) = &done {
            self.notice(problem);
        }
        done
    }
}
