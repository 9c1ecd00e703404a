//! Job stores that fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use shepherd_core::{JobRecord, ListQuery, Options, Shepherd};
use shepherd_job::{JobId, Timestamp};
use shepherd_queue::{
    Change, Changed, Claim, Claimed, Counts, Feed, Held, JobStore, Join, Lag, Lease, MemoryStore, NewJob,
    Outbox, Pending, PendingLimits, Position, Prune, QueueError, Ready, Renewed, Result, SmallObject,
    Submitted, Unstored,
};
use shepherd_storage::LocalStorage;
use tokio::sync::{Notify, watch};

use crate::fake::PATIENCE;

/// A store in memory that says of itself what it is told to.
#[derive(Default)]
struct Telling {
    queue: MemoryStore,
    problem: Mutex<Option<QueueError>>,
    failed: Notify,
}

#[async_trait]
impl JobStore for Telling {
    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        self.queue.submit(jobs).await
    }

    async fn join(&self, join: Join) -> Result<Lease> {
        self.queue.join(join).await
    }

    async fn renew(&self, lease: &Lease, held: Vec<Held>, at: Timestamp) -> Result<Renewed> {
        self.queue.renew(lease, held, at).await
    }

    async fn claim(&self, lease: &Lease, claim: Claim) -> Result<Vec<Claimed>> {
        self.queue.claim(lease, claim).await
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>> {
        self.queue.apply(changes).await
    }

    async fn ready(&self, now: Timestamp) -> Result<Ready> {
        self.queue.ready(now).await
    }

    async fn get(&self, job: &JobId) -> Result<Option<Arc<JobRecord>>> {
        self.queue.get(job).await
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>> {
        self.queue.list(query).await
    }

    async fn counts(&self) -> Result<Counts> {
        self.queue.counts().await
    }

    async fn prune(&self, prune: Prune) -> Result<Vec<JobId>> {
        self.queue.prune(prune).await
    }

    fn feed(&self) -> Feed {
        self.queue.feed()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.queue.changes()
    }

    async fn check(&self) -> Result<()> {
        self.problem.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    async fn failed(&self) {
        self.failed.notified().await;
    }
}

#[async_trait]
impl Outbox for Telling {
    async fn pending(&self, after: Option<Position>, limits: PendingLimits) -> Result<Vec<Pending>> {
        self.queue.pending(after, limits).await
    }

    async fn pending_of(&self, jobs: &[JobId]) -> Result<Vec<Pending>> {
        self.queue.pending_of(jobs).await
    }

    async fn objects(&self, job: &JobId) -> Result<Vec<SmallObject>> {
        self.queue.objects(job).await
    }

    async fn unstored(&self) -> Result<Vec<Unstored>> {
        self.queue.unstored().await
    }

    async fn delivered(&self, jobs: Vec<Pending>) -> Result<()> {
        self.queue.delivered(jobs).await
    }

    fn lag(&self) -> Lag {
        self.queue.lag()
    }
}

#[tokio::test]
async fn a_store_that_has_a_problem_is_told_and_one_that_has_failed_ends_the_shepherd() {
    let dir = tempfile::tempdir().unwrap();
    let storage = LocalStorage::open(&dir.path().join("storage")).unwrap();
    let options = Options::new(dir.path().join("data"), dir.path().join("state"));
    let store = Arc::new(Telling::default());
    *store.problem.lock().unwrap() = Some(QueueError::Unavailable("its file is gone".to_owned()));
    let shepherd = Shepherd::start(options, Arc::clone(&store) as _, Arc::new(storage)).await.unwrap();
    assert_eq!(shepherd.readiness().problems, ["the job store is unavailable: its file is gone"]);
    *store.problem.lock().unwrap() = None;
    crate::faults::eventually(async || shepherd.readiness().problems.is_empty()).await;
    let early = tokio::time::timeout(Duration::from_millis(20), shepherd.failed()).await;
    assert!(early.is_err(), "the store works");
    store.failed.notify_one();
    tokio::time::timeout(PATIENCE, shepherd.failed()).await.expect("the shepherd fails");
    assert_eq!(shepherd.readiness().problems, ["the task `job store` of the shepherd has ended"]);
    shepherd.shutdown(Duration::from_secs(1)).await;
}
