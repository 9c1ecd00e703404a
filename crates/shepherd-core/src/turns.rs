//! Who may change a job's outputs in storage: one attempt at a time.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use shepherd_job::JobId;
use tokio::sync::Notify;

/// The jobs whose outputs are being published.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<HashSet<JobId>>,
    freed: Notify,
}

/// The right to publish one job's outputs, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    job: JobId,
}

impl Turns {
    /// Waits until nobody else publishes outputs of this job.
    pub(crate) async fn take(&self, job: &JobId) -> Turn<'_> {
        loop {
            // Made before the look, so that no turn is freed unseen between the two.
            let freed = self.freed.notified();
            if self.lock().insert(job.clone()) {
                return Turn { turns: self, job: job.clone() };
            }
            freed.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<JobId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.job);
        self.turns.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use shepherd_job::JobIdRule;

    use super::*;

    #[tokio::test]
    async fn a_job_has_one_turn_and_others_have_theirs() {
        let turns = Turns::default();
        let [one, other] = ["one", "other"].map(|id| JobId::parse(id, JobIdRule::Bucket).unwrap());
        let first = turns.take(&one).await;
        let mut second = Box::pin(turns.take(&one));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(turns.take(&other).now_or_never().is_some());
        drop(first);
        assert!(second.now_or_never().is_some());
        assert!(turns.lock().is_empty());
    }
}
