//! Whether the storage answers, looked at from time to time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::shared::Shared;
use crate::supervise::TaskKind;

/// How often the storage is asked.
const PERIOD: Duration = Duration::from_secs(5);
/// The same while it is away.
const AWAY: Duration = Duration::from_secs(1);
/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Health {
    problem: Mutex<Option<String>>,
}

impl Health {
    /// Looks once, and from then on in a task.
    pub(crate) async fn start(shared: &Arc<Shared>) -> Arc<Self> {
        let health = Arc::new(Self::default());
        health.look(shared).await;
        let (task, shared_too) = (Arc::clone(&health), Arc::clone(shared));
        shared.tasks.spawn(TaskKind::Pillar, "health", async move {
            let watch = async {
                loop {
                    tokio::time::sleep(if task.problem().is_some() { AWAY } else { PERIOD }).await;
                    task.look(&shared_too).await;
                }
            };
            tokio::select! {
                () = watch => {}
                () = shared_too.tasks.draining.cancelled() => {}
            }
        });
        health
    }

    /// What is wrong with the storage.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look(&self, shared: &Shared) {
        let found = match tokio::time::timeout(PATIENCE, shared.storage.check()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("the storage did not answer within {PATIENCE:?}")),
        };
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*problem, &found) {
            (None, Some(error)) => tracing::error!(%error, "the storage is unavailable"),
            (Some(_), None) => tracing::info!("the storage is available again"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *problem = found;
    }
}
