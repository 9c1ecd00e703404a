//! Filling working directories.

use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{JobError, ModelRef};
use shepherd_queue::SmallObject;
use shepherd_sheep::Sheep;
use shepherd_storage::{RunnerDir, StorageError};
use tokio::time::Instant;

use super::outputs::fault;
use super::{Inputs, on_disk};
use crate::engine::{AttemptKey, Input, Job, StageFailure, Staged};
use crate::retry::IsTransient as _;
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::workdir::WorkDirs;

/// A claimed job, and its objects that are not in storage yet.
pub(super) type ToStage = (AttemptKey, Job, Vec<SmallObject>);

/// How long a job waits whose inputs cannot be read at present.
const STAGE_RETRY_DELAY: Duration = Duration::from_secs(2);

/// What a job's log says where its runner finds inputs under other names.
const ENCODED_KEYS_NOTE: &str = "shepherd: some keys of the inputs cannot be names of files; these inputs are in \
                                 `.shepherd-keys` under encoded names, and `input_keys` of the runner SDKs has \
                                 them by their keys\n";

/// Fills the jobs' directories: of those whose inputs are at hand in one go, of the others each on
/// its own.
pub(super) fn stage(
    shared: &Arc<Shared>,
    inputs: &Inputs,
    dirs: &Arc<WorkDirs>,
    sheep: &Arc<dyn Sheep>,
    jobs: Vec<ToStage>,
) {
    let has_inputs =
        |objects: &[SmallObject]| objects.iter().any(|(path, _)| path.as_str().starts_with("inputs/"));
    let (at_hand, stored): (Vec<_>, Vec<_>) =
        jobs.into_iter().partition(|(_, _, objects)| has_inputs(objects));
    if !at_hand.is_empty() {
        let (dirs, sheep, inputs) = (Arc::clone(dirs), Arc::clone(sheep), inputs.clone());
        shared.tasks.spawn_blocking(TaskKind::Effect, "staging", move || {
            let is_in_place = dirs.is_in_place();
            let stamp = at_hand.first().and_then(|(_, job, _)| sheep.model_stamp(&job.record.spec.model));
            let stage = |(attempt, job, mut objects): ToStage| {
                objects.retain(|(path, _)| path.as_str().starts_with("inputs/"));
                let result = match is_in_place {
                    true => dirs.prepare(job.id(), &objects).map_err(|e| local_fault(&e)),
                    false => Err(StageFailure::Homeless),
                };
                Input::Staged { attempt, result: result.map(|()| Staged { took: None, stamp }) }
            };
            inputs.send_all_blocking(at_hand.into_iter().map(stage));
        });
    }
    for (attempt, job, _) in stored {
        let (shared_too, dirs, sheep, inputs) =
            (Arc::clone(shared), Arc::clone(dirs), Arc::clone(sheep), inputs.clone());
        shared.tasks.spawn(TaskKind::Effect, "staging", async move {
            let begun = Instant::now();
            let stamp = stamp(&dirs, sheep, job.record.spec.model.clone()).await;
            let result = stage_stored(&shared_too, &dirs, &job).await;
            let result = result.map(|()| Staged { took: Some(begun.elapsed()), stamp });
            inputs.send(Input::Staged { attempt, result }).await;
        });
    }
}

async fn stamp(dirs: &Arc<WorkDirs>, sheep: Arc<dyn Sheep>, model: ModelRef) -> Option<u64> {
    on_disk(dirs, move |_| sheep.model_stamp(&model)).await
}

async fn stage_stored(shared: &Shared, dirs: &Arc<WorkDirs>, job: &Job) -> Result<(), StageFailure> {
    let id = job.id().clone();
    let made = on_disk(dirs, move |dirs| {
        if !dirs.is_in_place() {
            return Err(StageFailure::Homeless);
        }
        let inputs =
            dirs.prepare(&id, &[]).and_then(|()| dirs.inputs(&id).inspect_err(|_| dirs.discard(&id)));
        inputs.map_err(|e| local_fault(&e))
    });
    let inputs = made.await?;
    let staged = stage_inputs(shared, &inputs, job).await;
    // Open no longer than needed: there may be many jobs.
    let encoded = on_disk(dirs, move |_| inputs.has_encoded_keys()).await;
    if encoded && staged.is_ok() {
        shared.live.print(job.id(), job.token.number, ENCODED_KEYS_NOTE);
    }
    if staged.is_err() {
        let id = job.id().clone();
        // A directory that stays would only be in the way of this job's next attempt.
        on_disk(dirs, move |dirs| dirs.discard(&id)).await;
    }
    staged
}

async fn stage_inputs(shared: &Shared, inputs: &RunnerDir, job: &Job) -> Result<(), StageFailure> {
    let no_data =
        || StageFailure::Fault(JobError::new(format!("Data for job `{}` does not exist", job.id())));
    match shared.storage.stage(job.id(), inputs).await {
        Ok(transfer) if transfer.objects > 0 => Ok(()),
        Ok(_) => match shared.storage.contains(job.id()).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(no_data()),
            Err(error) => Err(unstaged(job, &error)),
        },
        Err(StorageError::NotFound) => Err(no_data()),
        Err(error) => Err(unstaged(job, &error)),
    }
}

fn unstaged(job: &Job, error: &StorageError) -> StageFailure {
    if error.is_transient() {
        tracing::warn!(job = %job.id(), %error, "cannot read a job's inputs; it waits");
        return StageFailure::Later(STAGE_RETRY_DELAY);
    }
    StageFailure::Fault(fault(job, "The job's inputs cannot be read", error))
}

/// A working directory that cannot be made is this machine's fault, never the job's.
fn local_fault(error: &std::io::Error) -> StageFailure {
    tracing::error!(%error, "cannot make a job's working directory; it waits");
    StageFailure::Later(STAGE_RETRY_DELAY)
}
