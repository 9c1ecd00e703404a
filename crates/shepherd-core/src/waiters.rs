//! Those who wait for a job to finish. Woken by whoever made the outcome durable;
//! nobody polls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shepherd_job::JobId;
use shepherd_queue::JobRecord;
use tokio::sync::oneshot;

type Sender = oneshot::Sender<Arc<JobRecord>>;

/// Waiting clients by job.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    by_job: Mutex<HashMap<JobId, Vec<Sender>>>,
}

/// A place among those who wait for one job. Dropping it gives the place up.
pub(crate) struct Waiting<'a> {
    waiters: &'a Waiters,
    job: JobId,
    receiver: oneshot::Receiver<Arc<JobRecord>>,
}

impl Waiters {
    /// Takes a place. Look at the job's record after this, or its end may be
    /// missed in between.
    pub(crate) fn wait_for(&self, job: &JobId) -> Waiting<'_> {
        let (sender, receiver) = oneshot::channel();
        self.lock().entry(job.clone()).or_default().push(sender);
        Waiting { waiters: self, job: job.clone(), receiver }
    }

    /// Tells all who wait for this job that it is finished.
    pub(crate) fn wake(&self, record: &Arc<JobRecord>) {
        debug_assert!(record.state.is_finished());
        let waiting = self.lock().remove(&record.spec.id);
        for sender in waiting.into_iter().flatten() {
            // One who left in this moment needs no answer.
            let _ = sender.send(Arc::clone(record));
        }
    }

    /// Sends everybody away: the shepherd ends.
    pub(crate) fn dismiss(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Vec<Sender>>> {
        self.by_job.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting<'_> {
    /// The finished job; `None` when the shepherd ends first.
    pub(crate) async fn finished(mut self) -> Option<Arc<JobRecord>> {
        (&mut self.receiver).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        let mut by_job = self.waiters.lock();
        if let Some(senders) = by_job.get_mut(&self.job) {
            senders.retain(|sender| !sender.is_closed());
            if senders.is_empty() {
                by_job.remove(&self.job);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shepherd_job::{History, JobIdRule, JobSpec, JobState, ModelRef, Timestamp};

    use super::*;

    fn done(id: &str) -> Arc<JobRecord> {
        Arc::new(JobRecord {
            seq: 1,
            spec: JobSpec {
                id: JobId::parse(id, JobIdRule::Bucket).unwrap(),
                model: ModelRef::parse("m", "").unwrap(),
                sheep: None,
                priority: 0,
            },
            submitted_at: Timestamp::default(),
            state: JobState::Done {
                started_at: Timestamp::default(),
                finished_at: Timestamp::default(),
                history: History::default(),
            },
        })
    }

    #[tokio::test]
    async fn all_who_wait_are_woken() {
        let waiters = Waiters::default();
        let record = done("abc");
        let (first, second) = (waiters.wait_for(&record.spec.id), waiters.wait_for(&record.spec.id));
        waiters.wake(&record);
        assert_eq!(first.finished().await, Some(Arc::clone(&record)));
        assert_eq!(second.finished().await, Some(record));
        assert!(waiters.lock().is_empty());
    }

    #[tokio::test]
    async fn one_who_leaves_costs_nothing_and_disturbs_nobody() {
        let waiters = Waiters::default();
        let record = done("abc");
        let (stays, leaves) = (waiters.wait_for(&record.spec.id), waiters.wait_for(&record.spec.id));
        drop(leaves);
        assert_eq!(waiters.lock()[&record.spec.id].len(), 1);
        drop(stays);
        assert!(waiters.lock().is_empty());
        waiters.wake(&record);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_shepherd_that_ended() {
        let waiters = Waiters::default();
        let waiting = waiters.wait_for(&done("abc").spec.id);
        waiters.dismiss();
        assert_eq!(waiting.finished().await, None);
    }
}
