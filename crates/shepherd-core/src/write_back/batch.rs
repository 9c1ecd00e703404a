//! One batch: from the store to storage.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shepherd_job::{JobId, LOG_OBJECT, ObjectPath, STATUS_OBJECT};
use shepherd_queue::{JobRecord, Pending, PendingLimits, Position, SmallObject};
use shepherd_storage::{JobObjects, Put, SmallPut, StorageError};

use super::inputs::Claim;
use super::{BATCH, BATCH_BYTES, Touched, WriteBack, lock};
use crate::shared::Shared;

/// What storage has taken, and may not keep yet.
#[derive(Default)]
pub(super) struct Batch {
    pending: Vec<Pending>,
    touched: Touched,
    failed: HashMap<JobId, StorageError>,
    /// How many syncs had failed before; none where nothing was taken.
    failed_before: Option<u64>,
}

/// What a batch came to.
pub(super) struct Written {
    /// How many pending jobs were looked at.
    pub(super) jobs: usize,
    /// How many of them could not be written.
    pub(super) refused: usize,
    /// The position of the last of those.
    pub(super) last_refused: Option<Position>,
    /// Whose files could not be written, and why.
    pub(super) failed: HashMap<JobId, StorageError>,
}

/// Writes the files of the next pending jobs, and the status documents that were touched but for
/// those that are `taken`.
///
/// # Errors
/// When the store does not answer.
pub(super) async fn put_next(
    shared: &Shared,
    write_back: &WriteBack,
    after: Option<Position>,
    taken: Touched,
) -> Result<Batch, String> {
    let _batch = write_back.batch.lock().await;
    let limits = PendingLimits { jobs: BATCH, bytes: BATCH_BYTES };
    let pending = shared.queue.pending(after, limits).await.map_err(|e| e.to_string())?;
    let mut touched = lock(&write_back.touched).clone();
    touched.retain(|job, number| taken.get(job) != Some(number));
    put(shared, write_back, pending, touched).await
}

/// Writes the files of these jobs.
///
/// # Errors
/// As [`put_next`].
pub(super) async fn put_these(
    shared: &Shared,
    write_back: &WriteBack,
    jobs: &[JobId],
) -> Result<Batch, String> {
    let _batch = write_back.batch.lock().await;
    let pending = shared.queue.pending_of(jobs).await.map_err(|e| e.to_string())?;
    let touched = {
        let touched = lock(&write_back.touched);
        jobs.iter().filter_map(|job| touched.get(job).map(|number| (job.clone(), *number))).collect()
    };
    put(shared, write_back, pending, touched).await
}

async fn put(
    shared: &Shared,
    write_back: &WriteBack,
    mut pending: Vec<Pending>,
    touched: Touched,
) -> Result<Batch, String> {
    let in_batch = write_back.inputs.begin_batch();
    let mut jobs = Vec::with_capacity(pending.len() + touched.len());
    pending.retain(|Pending { job, objects, .. }| {
        let has_inputs = objects.iter().any(|(path, _)| kind(path) == Kind::Input);
        let claim = in_batch.claim(&job.spec.id, has_inputs);
        if claim != Claim::Busy {
            jobs.push(to_store(shared, job, objects, claim));
        }
        claim != Claim::Busy
    });
    let named: HashSet<JobId> = jobs.iter().map(|job| job.job.clone()).collect();
    for id in touched.keys().filter(|id| !named.contains(*id)) {
        if let Some(job) = shared.queue.get(id).await.map_err(|e| e.to_string())? {
            jobs.push(to_store(shared, &job, &[], Claim::Stored));
        }
    }
    if shared.storage_is_remote() {
        remove_files(shared, &pending).await;
    }
    let ids: Vec<JobId> = jobs.iter().map(|job| job.job.clone()).collect();
    let failed_before = Some(shared.storage.failed_syncs());
    let stored = shared.storage.put_small(jobs).await;
    let failed = ids.into_iter().zip(stored).filter_map(|(id, stored)| Some((id, stored.err()?))).collect();
    Ok(Batch { pending, touched, failed, failed_before })
}

impl Batch {
    /// How many pending jobs it has.
    pub(super) fn jobs(&self) -> usize {
        self.pending.len()
    }

    /// Whether it changes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.touched.is_empty()
    }

    /// Where the next batch begins.
    pub(super) fn last(&self) -> Option<Position> {
        self.pending.last().map(|pending| pending.position)
    }

    pub(super) fn touched(&self) -> &Touched {
        &self.touched
    }

    /// Adds a batch that was taken after it.
    pub(super) fn extend(&mut self, later: Self) {
        self.pending.extend(later.pending);
        self.touched.extend(later.touched);
        self.failed.extend(later.failed);
        self.failed_before = self.failed_before.or(later.failed_before);
    }

    /// Makes it durable, and tells the store.
    ///
    /// # Errors
    /// When the store does not answer, or the storage cannot keep what it took.
    pub(super) async fn finish(self, shared: &Shared, write_back: &WriteBack) -> Result<Written, String> {
        let Self { mut pending, touched, failed, failed_before } = self;
        let failed_before = failed_before.unwrap_or_else(|| shared.storage.failed_syncs());
        shared.sync_since(failed_before).await.map_err(|e| e.to_string())?;
        {
            let mut waiting = lock(&write_back.touched);
            for (id, number) in touched {
                // One that was touched again meanwhile has another number.
                if !failed.contains_key(&id) && waiting.get(&id) == Some(&number) {
                    waiting.remove(&id);
                }
            }
        }
        let jobs = pending.len();
        let is_refused = |pending: &&Pending| failed.contains_key(&pending.job.spec.id);
        let refused = pending.iter().filter(is_refused).count();
        let last_refused = pending.iter().rfind(is_refused).map(|pending| pending.position);
        pending.retain(|pending| !is_refused(&pending));
        let written: Vec<Arc<JobRecord>> = pending.iter().map(|pending| Arc::clone(&pending.job)).collect();
        if !pending.is_empty() {
            shared.queue.delivered(pending).await.map_err(|e| e.to_string())?;
        }
        for job in written {
            write_back.inputs.forget(&job.spec.id);
        }
        Ok(Written { jobs, refused, last_refused, failed })
    }
}

/// Removes the files of outputs, which no storage at the other end of a network takes.
async fn remove_files(shared: &Shared, pending: &[Pending]) {
    for Pending { job, objects, .. } in pending {
        for (path, _) in objects.iter().filter(|(path, _)| kind(path) == Kind::Output) {
            if let Some(file) = shared.output_pool.path_of(&job.spec.id, path) {
                // There is none of a stranger's output.
                let _ = tokio::fs::remove_file(file).await;
            }
        }
    }
}

/// In the order in which they are stored: data makes the job's place, beside which the rest may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Output,
    Input,
    Log,
}

fn kind(path: &ObjectPath) -> Kind {
    match path.as_str() {
        path if path.starts_with("outputs/") => Kind::Output,
        LOG_OBJECT => Kind::Log,
        _ => Kind::Input,
    }
}

/// What storage lacks of a job. Its status document comes last: one that says "done" follows the
/// outputs that it speaks of, and is not ahead of the log. Neither it nor the log brings back what
/// a client has removed.
fn to_store(shared: &Shared, job: &JobRecord, objects: &[SmallObject], inputs: Claim) -> JobObjects {
    let id = &job.spec.id;
    let mut puts = Vec::with_capacity(objects.len() + 1);
    let mut objects: Vec<_> = objects.iter().map(|(path, bytes)| (kind(path), path, bytes)).collect();
    objects.sort_by_key(|(kind, ..)| *kind);
    for (kind, path, bytes) in objects {
        let how = match kind {
            // Only failed jobs have them here: their clients know it, and may have removed all of it.
            Kind::Output if shared.storage_is_remote() => Put::Beside,
            // There is no file where its name is too long for the pool.
            Kind::Output => Put::Adopt(shared.output_pool.path_of(id, path).unwrap_or_default()),
            Kind::Log => Put::Beside,
            Kind::Input if inputs == Claim::Stored => continue,
            // Its client may have put a better one in the place of the one that the store still has.
            Kind::Input if job.state.is_finished() => Put::Missing,
            Kind::Input => Put::New,
        };
        puts.push(SmallPut { path: path.clone(), bytes: bytes.clone(), how });
    }
    if let Some(document) = shared.status_document {
        let path = ObjectPath::parse(STATUS_OBJECT).expect("the constant is a legal key");
        puts.push(SmallPut { path, bytes: document(job), how: Put::Beside });
    }
    JobObjects { job: id.clone(), objects: puts }
}
