//! Brings storage up to date with the queue: writes small objects that rode in
//! the queue's commits as files, and each job's status document beside them.
//!
//! The queue is the truth and what a client asks for is answered from it, so this
//! work has no hurry: it waits for a quiet moment, unless more than [`SOFT`] jobs
//! lag behind. Beyond [`HARD`], submits wait for it.
//!
//! ```text
//!  behind? ─▶ write files ─▶ sync ─▶ tell the queue, which drops its copies
//! ```
//!
//! Killed anywhere in between, the same is done again, with the same result.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use shepherd_job::{JobId, ObjectPath, STATUS_OBJECT};
use shepherd_queue::Behind;
use shepherd_storage::StorageError;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::shared::{Shared, store_backoff};
use crate::supervise::TaskKind;

/// How many jobs are brought up to date with one sync.
const BATCH: usize = 512;
/// Nothing happened for so long: a quiet moment.
const QUIET: Duration = Duration::from_millis(15);
/// More jobs than this behind, and the work is done under load too.
const SOFT: u64 = 200_000;
/// More jobs than this behind, and submits wait.
const HARD: u64 = 1_000_000;

/// The settler's side that others see.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Counts what happens, so that the settler sees whether it is quiet.
    activity: AtomicU64,
    wake: Notify,
    settled: Notify,
    behind: AtomicU64,
    /// Jobs whose status document is stale though nothing durable says so.
    touched: Mutex<HashSet<JobId>>,
    /// Held from looking at the queue until what was seen there is in storage.
    pub(crate) batch: tokio::sync::Mutex<()>,
}

impl Settling {
    pub(crate) fn start(shared: &Arc<Shared>) -> Arc<Self> {
        let settling = Arc::new(Self::default());
        let task = settle(Arc::clone(shared), Arc::clone(&settling));
        shared.tasks.spawn(TaskKind::Pillar, "settler", task);
        settling
    }

    /// Something changed in the queue.
    pub(crate) fn stir(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The job's status document should be written anew.
    pub(crate) fn touch(&self, job: &JobId) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(job.clone());
        self.stir();
    }

    /// Waits until not too many jobs lag behind for others to be accepted.
    pub(crate) async fn room(&self) {
        loop {
            let settled = self.settled.notified();
            if self.behind.load(Ordering::Relaxed) < HARD {
                return;
            }
            settled.await;
        }
    }

    fn take_touched(&self) -> Vec<JobId> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).drain().collect()
    }

    fn has_touched(&self) -> bool {
        !self.touched.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

async fn settle(shared: Arc<Shared>, settling: Arc<Settling>) {
    let mut backoff = store_backoff();
    let mut trouble = false;
    loop {
        let behind = shared.queue.behind_count();
        settling.behind.store(behind, Ordering::Relaxed);
        settling.settled.notify_waiters();
        if shared.tasks.draining.is_cancelled() {
            return;
        }
        if behind == 0 && !settling.has_touched() {
            tokio::select! {
                () = settling.wake.notified() => continue,
                () = shared.tasks.draining.cancelled() => return,
            }
        }
        if behind < SOFT && !is_quiet(&settling).await {
            continue;
        }
        match settle_batch(&shared, &settling).await {
            Ok(()) => {
                backoff.reset();
                if std::mem::take(&mut trouble) {
                    tracing::info!("files of finished jobs are written to storage again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut trouble, true) {
                    tracing::warn!(%error, behind, "cannot write jobs' files to storage; trying again");
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff.step()) => {}
                    () = shared.tasks.draining.cancelled() => return,
                }
            }
        }
    }
}

async fn is_quiet(settling: &Settling) -> bool {
    let seen = settling.activity.load(Ordering::Relaxed);
    tokio::time::sleep_until(Instant::now() + QUIET).await;
    settling.activity.load(Ordering::Relaxed) == seen
}

/// Brings what lags behind up to date while the daemon ends, within `budget`.
/// What is left is done at the next start.
pub(crate) async fn settle_rest(shared: &Shared, settling: &Settling, budget: Duration) {
    let work = async {
        while shared.queue.behind_count() > 0 {
            if let Err(error) = settle_batch(shared, settling).await {
                tracing::warn!(%error, "files that lag behind are left for the next start");
                return;
            }
        }
    };
    let _ = tokio::time::timeout(budget, work).await;
}

async fn settle_batch(shared: &Shared, settling: &Settling) -> Result<(), String> {
    let status = || ObjectPath::parse(STATUS_OBJECT).expect("the constant is a legal key");
    let _batch = settling.batch.lock().await;
    let mut behind = shared.queue.behind(0, BATCH).await.map_err(|e| e.to_string())?;
    let mut objects: Vec<(JobId, ObjectPath, Bytes)> = Vec::with_capacity(behind.len() * 2);
    // For each object the job that is behind until it is stored.
    let mut owners: Vec<Option<usize>> = Vec::with_capacity(behind.len() * 2);
    let mut outputs = Vec::with_capacity(behind.len());
    let mut output_owners = Vec::with_capacity(behind.len());
    for (index, Behind { job, objects: small }) in behind.iter().enumerate() {
        let id = &job.spec.id;
        for (path, data) in small {
            if let Some(file) = shared.attic.path_of(id, path) {
                outputs.push((id.clone(), path.clone(), data.clone(), file));
                output_owners.push(Some(index));
            } else {
                objects.push((id.clone(), path.clone(), data.clone()));
                owners.push(Some(index));
            }
        }
        if let Some(document) = shared.status_document {
            objects.push((id.clone(), status(), document(job)));
            owners.push(Some(index));
        }
    }
    for id in settling.take_touched() {
        let Some(document) = shared.status_document else { break };
        if behind.iter().any(|b| b.job.spec.id == id) {
            continue;
        }
        if let Some(job) = shared.queue.get(&id).await.map_err(|e| e.to_string())? {
            objects.push((id, status(), document(&job)));
            owners.push(None);
        }
    }
    // A document that says "done" comes after the outputs that it speaks of.
    let mut results = shared.storage.adopt_batch(outputs).await.map_err(|e| e.to_string())?;
    results.extend(shared.storage.put_batch(objects).await.map_err(|e| e.to_string())?);
    let mut failed: Vec<(usize, StorageError)> = Vec::new();
    for (owner, result) in output_owners.iter().chain(&owners).zip(results) {
        if let (Some(index), Err(error)) = (owner, result) {
            failed.push((*index, error));
        }
    }
    let first = failed.first().map(|(_, error)| error.to_string());
    let failed: HashSet<usize> = failed.into_iter().map(|(index, _)| index).collect();
    let mut index = 0;
    behind.retain(|_| {
        index += 1;
        !failed.contains(&(index - 1))
    });
    shared.storage.sync().await.map_err(|e| e.to_string())?;
    if !behind.is_empty() {
        shared.queue.caught_up(behind).await.map_err(|e| e.to_string())?;
    }
    first.map_or(Ok(()), Err)
}
