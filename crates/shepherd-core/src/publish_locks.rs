//! Who may change a job's outputs in storage: one attempt at a time.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use shepherd_job::JobId;
use tokio::sync::Notify;

/// The jobs whose outputs are being published.
#[derive(Debug, Default)]
pub(crate) struct PublishLocks {
    taken: Mutex<HashSet<JobId>>,
    freed: Notify,
}

/// The right to publish one job's outputs, until it is dropped.
#[derive(Debug)]
pub(crate) struct PublishLock<'a> {
    locks: &'a PublishLocks,
    job: JobId,
}

impl PublishLocks {
    /// Waits until nobody else publishes outputs of this job.
    pub(crate) async fn lock(&self, job: &JobId) -> PublishLock<'_> {
        loop {
            // Made before the look, so that no turn is freed unseen between the two.
            let freed = self.freed.notified();
            if self.held().insert(job.clone()) {
                return PublishLock { locks: self, job: job.clone() };
            }
            freed.await;
        }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PublishLock<'_> {
    fn drop(&mut self) {
        self.locks.held().remove(&self.job);
        self.locks.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shepherd_job::JobIdRule;

    use super::*;

    #[tokio::test]
    async fn a_job_has_one_turn_and_others_have_theirs() {
        let locks = PublishLocks::default();
        let [one, other] = ["one", "other"].map(|id| JobId::parse(id, JobIdRule::Bucket).unwrap());
        let first = locks.lock(&one).await;
        let mut second = Box::pin(locks.lock(&one));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(locks.lock(&other).now_or_never().is_some());
        drop(first);
        assert!(second.now_or_never().is_some());
        assert!(locks.held().is_empty());
    }
}
