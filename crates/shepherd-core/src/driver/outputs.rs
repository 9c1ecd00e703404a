//! Taking outputs out of working directories and making them durable.

use std::fmt;
use std::io;
use std::sync::Arc;

use shepherd_job::{JobError, JobState};
use shepherd_storage::{Replaces, SmallObjects, StorageError};

use super::{Inputs, on_disk};
use crate::engine::{AttemptKey, Collected, Input, Job, OutputKind, Published};
use crate::error::without_paths;
use crate::retry::{Backoff, IsTransient as _, store_backoff};
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::workdir::{Outputs, WorkDirs};
use crate::write_back::WriteBack;

/// A job whose runner is through with it.
pub(super) type ToCollect = (AttemptKey, Job, OutputKind);

/// Takes the jobs' outputs out of their directories where they are small and may ride in the
/// store's commit.
pub(super) fn collect(shared: &Arc<Shared>, inputs: &Inputs, dirs: &Arc<WorkDirs>, jobs: Vec<ToCollect>) {
    let limits = shared.small_objects();
    let (dirs, inputs) = (Arc::clone(dirs), inputs.clone());
    shared.tasks.spawn_blocking(TaskKind::Effect, "collecting", move || {
        let take = |(attempt, job, kind)| {
            let result = take_out(&dirs, limits, &job, kind);
            Input::Collected { attempt, result }
        };
        inputs.send_all_blocking(jobs.into_iter().map(take));
    });
}

fn take_out(dirs: &WorkDirs, limits: SmallObjects, job: &Job, kind: OutputKind) -> Collected {
    let max_bytes = match kind {
        OutputKind::Publish => 0,
        OutputKind::Ride => limits.outputs,
        // Nobody waits for them, and the storage may be away.
        OutputKind::Failed => limits.inputs,
    };
    let found = if max_bytes > 0 { dirs.collect(job.id(), max_bytes) } else { Ok(Outputs::Files) };
    match found {
        Ok(Outputs::Small(objects)) => {
            dirs.release(job.id());
            Collected::Small(objects)
        }
        Ok(Outputs::Files) => Collected::Files,
        // They are there, and may be read another time.
        Err(error) if unopened(&error).is_transient() => Collected::Files,
        Err(_) if kind != OutputKind::Failed && !dirs.is_in_place() => Collected::Lost,
        Err(error) => {
            dirs.discard(job.id());
            Collected::Unreadable(fault(job, "The job's outputs cannot be read", &error))
        }
    }
}

/// Publishes a job's outputs, durably, however long the storage is away. Those of a job that
/// failed are given up when the storage does not take them: it is told that it failed.
pub(super) fn publish(
    shared: &Arc<Shared>,
    write_back: &Arc<WriteBack>,
    inputs: &Inputs,
    dirs: Arc<WorkDirs>,
    attempt: AttemptKey,
    job: Job,
    has_failed: bool,
) {
    let (shared_too, write_back, inputs) = (Arc::clone(shared), Arc::clone(write_back), inputs.clone());
    shared.tasks.spawn(TaskKind::Effect, "publishing", async move {
        if !job.first {
            // What an earlier run left to the write-back comes to storage before this, or not at all.
            write_back.finish_batch().await;
        }
        let result = publish_outputs(&shared_too, &write_back, &dirs, &job, has_failed).await;
        shared_too.unpublished.forget(job.id());
        on_disk(&dirs, move |dirs| dirs.release(job.id())).await;
        inputs.send(Input::Published { attempt, result }).await;
    });
}

async fn publish_outputs(
    shared: &Shared,
    write_back: &WriteBack,
    dirs: &Arc<WorkDirs>,
    job: &Job,
    has_failed: bool,
) -> Published {
    let replaces = if job.first { Replaces::Nothing } else { Replaces::Earlier };
    let mut backoff = store_backoff();
    let failed_before = shared.storage.failed_syncs();
    loop {
        // A job that was withdrawn and runs again elsewhere has two attempts that publish.
        let publish_lock = shared.publish_locks.lock(job.id()).await;
        let tried = async {
            if !is_current(shared, job).await? {
                return Ok(None);
            }
            if shared.storage_is_remote() && !has_failed {
                write_back.store_inputs(shared, job.id()).await?;
            }
            let id = job.id().clone();
            // Opened for each try: while the storage is away, many jobs wait for it.
            let outputs = on_disk(dirs, move |dirs| dirs.outputs(&id)).await.map_err(|e| unopened(&e))?;
            shared.storage.publish(job.id(), &outputs, replaces).await.map(Some)
        };
        let tried = tried.await;
        drop(publish_lock);
        match tried {
            Ok(Some(_)) => break,
            Ok(None) => return Published::Stale,
            Err(error) if has_failed => {
                tracing::warn!(job = %job.id(), %error, "the outputs of a job that failed are not kept");
                return Published::Kept;
            }
            Err(error) if error.is_transient() => {
                if matches!(error, StorageError::Full) {
                    shared.unpublished.note(job.id());
                }
                retry(job, &error, &mut backoff).await;
            }
            Err(error) => {
                if !on_disk(dirs, WorkDirs::is_in_place).await {
                    return Published::Lost;
                }
                return Published::Refused(fault(job, "The job's outputs cannot be stored", &error));
            }
        }
    }
    match shared.sync_since(failed_before).await {
        Ok(()) => Published::Kept,
        Err(error) if has_failed => {
            tracing::warn!(job = %job.id(), %error, "the outputs of a job that failed may be lost");
            Published::Kept
        }
        Err(error) => {
            // The runner's files are the storage's now: there is nothing to store again.
            tracing::error!(job = %job.id(), %error, "a job's outputs may be lost; it runs again");
            Published::Lost
        }
    }
}

/// Why a job failed on its way in or out: to its client without paths, and as it is to the log.
pub(super) fn fault(job: &Job, what: &str, error: &dyn fmt::Display) -> JobError {
    tracing::warn!(job = %job.id(), %error, "{what}");
    JobError::new(format!("{what}: {}", without_paths(&error.to_string())))
}

/// Why the directory of a job that its runner has left cannot be opened.
fn unopened(error: &io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::NotFound => StorageError::NotFound,
        // The runner made it so.
        io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied => {
            StorageError::Invalid(format!("the job's directory: {error}"))
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            StorageError::Invalid(format!("the job's directory: {error}"))
        }
        _ => StorageError::Unavailable(format!("open the job's directory: {error}")),
    }
}

/// Whether the job is still this attempt's.
async fn is_current(shared: &Shared, job: &Job) -> Result<bool, StorageError> {
    match shared.queue.get(job.id()).await {
        Ok(record) => Ok(record.is_some_and(|record| match record.state {
            JobState::Processing { attempt, .. } => attempt == job.token,
            JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => false,
        })),
        Err(error) => Err(StorageError::Unavailable(format!("the job's state cannot be read: {error}"))),
    }
}

async fn retry(job: &Job, error: &StorageError, backoff: &mut Backoff) {
    let wait = backoff.step();
    tracing::warn!(job = %job.id(), %error, retry_in = ?wait, "cannot publish a job's outputs");
    tokio::time::sleep(wait).await;
}
