//! What a keeper has done elsewhere, because it blocks or takes long. Each piece
//! of work ends in one [`Outcome`].

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{Event, JobError, JobId, JobState, ModelRef, SheepId};
use shepherd_queue::{Change, SmallObject};
use shepherd_sheep::Sheep;
use shepherd_storage::{Replaces, RunnerDir, StorageError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hand::Job;
use super::runner::{Runner, StartFailure};
use crate::ShepherdError;
use crate::data;
use crate::error::without_paths;
use crate::journal;
use crate::live::{Log, log_path};
use crate::retry::{Backoff, IsTransient as _, store_backoff};
use crate::settle::Settling;
use crate::shared::Shared;
use crate::workdir::{Outputs, RECLAIMS, WorkDirs};

/// What a piece of work came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The jobs' directories are ready, or not.
    Prepared {
        jobs: Vec<(Job, Result<(), Unprepared>)>,
        /// How long it took to bring inputs from storage, where that was done.
        staging: Option<Duration>,
        /// The state of their model meanwhile.
        stamp: Option<u64>,
    },
    /// The jobs' outputs were dealt with, and their directories are free.
    Collected {
        jobs: Vec<(Job, Collected)>,
        /// Jobs whose outputs must be published as files.
        large: Vec<(Job, Fate)>,
    },
    /// The jobs' directories are free.
    Released(Vec<JobId>),
    /// The jobs' directories are gone, and this is to become of the jobs.
    Vacated(Vec<JobId>, Vec<Change>),
    /// The log of a cancelled job is complete.
    LateKept,
    /// The changes are durable.
    Applied,
    /// The sheep's directory was made again, or cannot be.
    Reopened(io::Result<Arc<WorkDirs>>),
}

/// Why a job's directory could not be made ready.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// It never can be: the job fails.
    Fault(JobError),
    /// It cannot be now: the job waits so long, at least.
    Later(Duration),
    /// The sheep's directory is gone: it must be made again first.
    Homeless,
}

/// What a job comes to that its runner is through with.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It is done once its outputs are kept.
    Done,
    /// It failed, whatever becomes of the outputs that it has.
    Failed(JobError),
}

/// What became of a job's outputs.
#[derive(Debug)]
pub(super) enum Collected {
    /// They are in storage, or here to ride in the queue's commit.
    Kept(Fate, Vec<SmallObject>),
    /// They cannot be kept: the job fails.
    Fault(JobError),
    /// They are gone, or may be, through no fault of the job: it runs again.
    Lost,
    /// The job was withdrawn, or is run by others meanwhile.
    Stale,
}

/// How long a job waits whose inputs cannot be read at present.
const STAGE_LATER: Duration = Duration::from_secs(2);

type Jobs = Vec<(Job, Vec<SmallObject>)>;

/// Makes the jobs' directories ready: those whose inputs are at hand in one go,
/// the others each on its own.
pub(super) fn prepare(
    outcomes: &mut JoinSet<Outcome>,
    shared: &Arc<Shared>,
    dirs: &Arc<WorkDirs>,
    sheep: &Arc<dyn Sheep>,
    jobs: Jobs,
) {
    let has_inputs =
        |objects: &[SmallObject]| objects.iter().any(|(path, _)| path.as_str().starts_with("inputs/"));
    let (at_hand, stored): (Jobs, Jobs) = jobs.into_iter().partition(|(_, objects)| has_inputs(objects));
    if !at_hand.is_empty() {
        let (dirs, sheep) = (Arc::clone(dirs), Arc::clone(sheep));
        outcomes.spawn_blocking(move || {
            let is_in_place = dirs.is_in_place();
            let stamp = at_hand.first().and_then(|(job, _)| sheep.model_stamp(&job.record.spec.model));
            let prepare = |(job, mut objects): (Job, Vec<SmallObject>)| {
                objects.retain(|(path, _)| path.as_str().starts_with("inputs/"));
                let result = match is_in_place {
                    true => dirs.prepare(job.id(), &objects).map_err(|e| local_fault(&e)),
                    false => Err(Unprepared::Homeless),
                };
                (job, result)
            };
            Outcome::Prepared { jobs: at_hand.into_iter().map(prepare).collect(), staging: None, stamp }
        });
    }
    for (job, _) in stored {
        let (shared, dirs, sheep) = (Arc::clone(shared), Arc::clone(dirs), Arc::clone(sheep));
        outcomes.spawn(async move {
            let begun = Instant::now();
            let stamp = stamp(&dirs, sheep, job.record.spec.model.clone()).await;
            let result = stage(&shared, &dirs, &job).await;
            let staging = result.is_ok().then(|| begun.elapsed());
            Outcome::Prepared { jobs: vec![(job, result)], staging, stamp }
        });
    }
}

/// What a job's log says where its runner finds inputs under other names.
const ENCODED_KEYS_NOTE: &str = "shepherd: some keys of the inputs cannot be names of files; these inputs are in \
                                 `.shepherd-keys` under encoded names, and `input_keys` of the runner SDKs has \
                                 them by their keys\n";

async fn stamp(dirs: &Arc<WorkDirs>, sheep: Arc<dyn Sheep>, model: ModelRef) -> Option<u64> {
    on_disk(dirs, move |_| sheep.model_stamp(&model)).await
}

async fn stage(shared: &Shared, dirs: &Arc<WorkDirs>, job: &Job) -> Result<(), Unprepared> {
    let id = job.id().clone();
    let made = on_disk(dirs, move |dirs| {
        if !dirs.is_in_place() {
            return Err(Unprepared::Homeless);
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
        shared.live.print(job.id(), job.attempt.number, ENCODED_KEYS_NOTE);
    }
    if staged.is_err() {
        let id = job.id().clone();
        // A directory that stays would only be in the way of this job's next attempt.
        on_disk(dirs, move |dirs| dirs.discard(&id)).await;
    }
    staged
}

async fn stage_inputs(shared: &Shared, inputs: &RunnerDir, job: &Job) -> Result<(), Unprepared> {
    let no_data = || Unprepared::Fault(JobError::new(format!("Data for job `{}` does not exist", job.id())));
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

fn unstaged(job: &Job, error: &StorageError) -> Unprepared {
    if error.is_transient() {
        tracing::warn!(job = %job.id(), %error, "cannot read a job's inputs; it waits");
        return Unprepared::Later(STAGE_LATER);
    }
    Unprepared::Fault(fault(job, "The job's inputs cannot be read", error))
}

/// Why a job failed on its way in or out: to its client without paths, and as it is to the log.
fn fault(job: &Job, what: &str, error: &dyn fmt::Display) -> JobError {
    tracing::warn!(job = %job.id(), %error, "{what}");
    JobError::new(format!("{what}: {}", without_paths(&error.to_string())))
}

/// A working directory that cannot be made is this machine's fault, never the job's.
fn local_fault(error: &std::io::Error) -> Unprepared {
    tracing::error!(%error, "cannot make a job's working directory; it waits");
    Unprepared::Later(STAGE_LATER)
}

/// Does what blocks.
async fn on_disk<T: Send + 'static>(
    dirs: &Arc<WorkDirs>,
    work: impl FnOnce(&WorkDirs) -> T + Send + 'static,
) -> T {
    let dirs = Arc::clone(dirs);
    match tokio::task::spawn_blocking(move || work(&dirs)).await {
        Ok(done) => done,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// What becomes of outputs that are small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SmallOutputs {
    /// They ride in the queue's commit, and are files in storage a little later.
    Ride,
    /// They are files in storage before anybody hears that the job is done.
    Publish,
}

/// Takes the jobs' outputs out of their directories where they are small and may
/// ride. Those of a job that failed always may: nobody waits for them, and the storage
/// may be away.
pub(super) fn collect(
    outcomes: &mut JoinSet<Outcome>,
    shared: &Arc<Shared>,
    dirs: &Arc<WorkDirs>,
    jobs: Vec<(Job, Fate)>,
    small: SmallOutputs,
) {
    let limits = shared.small_objects();
    let dirs = Arc::clone(dirs);
    outcomes.spawn_blocking(move || {
        let mut collected = Vec::with_capacity(jobs.len());
        let mut large = Vec::new();
        for (job, fate) in jobs {
            let (rides, max_bytes) = match fate {
                // Only publishing replaces what an earlier attempt may have left in storage.
                Fate::Done => (small == SmallOutputs::Ride && job.first, limits.outputs),
                Fate::Failed(_) => (true, limits.inputs),
            };
            let rides = rides && max_bytes > 0;
            match if rides { dirs.collect(job.id(), max_bytes) } else { Ok(Outputs::Files) } {
                Ok(Outputs::Small(objects)) => {
                    dirs.release(job.id());
                    collected.push((job, Collected::Kept(fate, objects)));
                }
                Ok(Outputs::Files) => large.push((job, fate)),
                // They are there, and may be read another time.
                Err(error) if unopened(&error).is_transient() => large.push((job, fate)),
                Err(_) if matches!(fate, Fate::Done) && !dirs.is_in_place() => {
                    collected.push((job, Collected::Lost));
                }
                Err(error) => {
                    dirs.discard(job.id());
                    let kept = match fate {
                        Fate::Done => {
                            Collected::Fault(fault(&job, "The job's outputs cannot be read", &error))
                        }
                        Fate::Failed(_) => Collected::Kept(fate, Vec::new()),
                    };
                    collected.push((job, kept));
                }
            }
        }
        Outcome::Collected { jobs: collected, large }
    });
}

/// Publishes a job's outputs, durably, however long the storage is away. Those of a job
/// that failed are given up when the storage does not take them: it is told that it failed.
pub(super) fn publish(
    outcomes: &mut JoinSet<Outcome>,
    shared: &Arc<Shared>,
    settling: &Arc<Settling>,
    dirs: &Arc<WorkDirs>,
    job: Job,
    fate: Fate,
) {
    let (shared, settling, dirs) = (Arc::clone(shared), Arc::clone(settling), Arc::clone(dirs));
    outcomes.spawn(async move {
        if !job.first {
            // What an earlier run left to the settler comes to storage before this, or not at all.
            drop(settling.batch.lock().await);
        }
        let result = publish_outputs(&shared, &settling, &dirs, &job, fate).await;
        shared.unpublished.forget(job.id());
        free(&dirs, vec![job.id().clone()], WorkDirs::release).await;
        Outcome::Collected { jobs: vec![(job, result)], large: Vec::new() }
    });
}

async fn publish_outputs(
    shared: &Shared,
    settling: &Settling,
    dirs: &Arc<WorkDirs>,
    job: &Job,
    fate: Fate,
) -> Collected {
    let has_failed = matches!(fate, Fate::Failed(_));
    let replaces = if job.first { Replaces::Nothing } else { Replaces::Earlier };
    let mut backoff = store_backoff();
    loop {
        // A job that was withdrawn and runs again elsewhere has two attempts that publish.
        let turn = shared.turns.take(job.id()).await;
        let tried = async {
            if !is_current(shared, job).await? {
                return Ok(None);
            }
            if shared.storage_is_remote() && !has_failed {
                settling.store_inputs(shared, job.id()).await?;
            }
            let id = job.id().clone();
            // Opened for each try: while the storage is away, many jobs wait for it.
            let outputs = on_disk(dirs, move |dirs| dirs.outputs(&id)).await.map_err(|e| unopened(&e))?;
            shared.storage.publish(job.id(), &outputs, replaces).await.map(Some)
        };
        let tried = tried.await;
        drop(turn);
        match tried {
            Ok(Some(_)) => break,
            Ok(None) => return Collected::Stale,
            Err(error) if has_failed => {
                tracing::warn!(job = %job.id(), %error, "the outputs of a job that failed are not kept");
                return Collected::Kept(fate, Vec::new());
            }
            Err(error) if error.is_transient() => {
                if matches!(error, StorageError::Full) {
                    shared.unpublished.note(job.id());
                }
                retry(job, &error, &mut backoff).await;
            }
            Err(error) => {
                if !on_disk(dirs, WorkDirs::is_in_place).await {
                    return Collected::Lost;
                }
                return Collected::Fault(fault(job, "The job's outputs cannot be stored", &error));
            }
        }
    }
    match shared.storage.sync().await {
        Ok(()) => Collected::Kept(fate, Vec::new()),
        Err(error) if has_failed => {
            tracing::warn!(job = %job.id(), %error, "the outputs of a job that failed may be lost");
            Collected::Kept(fate, Vec::new())
        }
        Err(error) => {
            // The runner's files are the storage's now: there is nothing to store again.
            tracing::error!(job = %job.id(), %error, "a job's outputs may be lost; it runs again");
            Collected::Lost
        }
    }
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
            JobState::Processing { attempt, .. } => attempt == job.attempt,
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

/// Frees the directories of jobs that are through.
pub(super) fn release(outcomes: &mut JoinSet<Outcome>, dirs: &Arc<WorkDirs>, ids: Vec<JobId>) {
    let dirs = Arc::clone(dirs);
    outcomes.spawn(async move {
        free(&dirs, ids.clone(), WorkDirs::release).await;
        Outcome::Released(ids)
    });
}

/// Adds to the log of a cancelled job, which the queue or the storage has, what it printed
/// until its runner let go of it: `late`, and of `own`, the end of all that it printed, what
/// is in neither.
pub(super) fn keep_late(
    outcomes: &mut JoinSet<Outcome>,
    shared: &Arc<Shared>,
    settling: &Arc<Settling>,
    job: Job,
    late: Log,
    own: String,
) {
    let (shared, settling) = (Arc::clone(shared), Arc::clone(settling));
    outcomes.spawn(async move {
        if let Err(error) = add_to_log(&shared, &settling, &job, &late, &own).await {
            tracing::warn!(job = %job.id(), %error, "what a cancelled job printed last is lost");
        }
        Outcome::LateKept
    });
}

async fn add_to_log(
    shared: &Shared,
    settling: &Settling,
    job: &Job,
    late: &Log,
    own: &str,
) -> Result<(), ShepherdError> {
    let (id, attempt) = (job.id(), job.attempt.number);
    let _turn = shared.turns.take(id).await;
    // What still rides in the queue would come to storage after this, and in its place.
    settling.catch_up(shared, id).await?;
    let mut log = shared.live.new_log();
    let before = data::log(shared, id).await?;
    log.push(attempt, &String::from_utf8_lossy(&before));
    log.push(attempt, &late.kept());
    log.complete(attempt, own);
    let text = log.kept();
    // A job that runs again by now has a log of its own.
    let is_cancelled = shared.queue.get(id).await?.is_some_and(
        |record| matches!(&record.state, JobState::Cancelled { history, .. } if history.attempts == attempt),
    );
    if is_cancelled && text.as_bytes() != &*before {
        let objects = vec![(id.clone(), log_path(), text.into())];
        shared.storage.put_beside(objects).await?.into_iter().collect::<Result<Vec<()>, _>>()?;
        shared.storage.sync().await?;
    }
    Ok(())
}

/// Throws the jobs' directories away; then `changes` may become known.
pub(super) fn vacate(
    outcomes: &mut JoinSet<Outcome>,
    dirs: &Arc<WorkDirs>,
    jobs: &[Job],
    changes: Vec<Change>,
) {
    let dirs = Arc::clone(dirs);
    let ids: Vec<JobId> = jobs.iter().map(|job| job.id().clone()).collect();
    outcomes.spawn(async move {
        free(&dirs, ids.clone(), WorkDirs::discard).await;
        Outcome::Vacated(ids, changes)
    });
}

async fn free(dirs: &Arc<WorkDirs>, ids: Vec<JobId>, how: fn(&WorkDirs, &JobId)) {
    on_disk(dirs, move |dirs| ids.iter().for_each(|id| how(dirs, id))).await;
}

/// Does `start`, which launches a runner of `model`, where nothing is left that another
/// model's runners had before them.
pub(super) async fn start(
    dirs: Arc<WorkDirs>,
    sheep: Arc<dyn Sheep>,
    model: ModelRef,
    start: impl Future<Output = Result<Box<Runner>, StartFailure>>,
) -> Result<Box<Runner>, StartFailure> {
    if dirs.is_fenced() {
        let cleared = on_disk(&dirs, WorkDirs::clear).await;
        cleared.map_err(|e| StartFailure::Sheep(format!("the sheep's directory cannot be cleared: {e}")))?;
    }
    // Before it is read.
    let stamp = stamp(&dirs, sheep, model).await;
    let mut runner = start.await?;
    runner.stamp = stamp;
    Ok(runner)
}

/// Makes the data root and the sheep's directory in it again. No job may use what was there.
pub(super) fn reopen(outcomes: &mut JoinSet<Outcome>, shared: &Arc<Shared>, dirs: &Arc<WorkDirs>) {
    let (shared, dirs) = (Arc::clone(shared), Arc::clone(dirs));
    outcomes.spawn_blocking(move || {
        Outcome::Reopened(shared.data_root.restore().and_then(|()| dirs.reopen()).map(Arc::new))
    });
}

/// Removes what could not be removed while there was a runner. What is other users', the
/// sheep may make ours.
pub(super) fn empty_trash(outcomes: &mut JoinSet<Outcome>, dirs: &Arc<WorkDirs>, sheep: &Arc<dyn Sheep>) {
    if !dirs.has_trash() {
        return;
    }
    let (dirs, sheep) = (Arc::clone(dirs), Arc::clone(sheep));
    outcomes.spawn(async move {
        on_disk(&dirs, WorkDirs::empty_trash).await;
        for _ in 0..RECLAIMS {
            let mut changed = false;
            for (dir, names) in dirs.trash() {
                changed |= sheep.reclaim(&dir, &names).await;
            }
            if !changed {
                break;
            }
            on_disk(&dirs, WorkDirs::empty_trash).await;
        }
        Outcome::Released(Vec::new())
    });
}

/// Makes changes durable, however long the queue is away, and wakes those who wait
/// for them. Repeating is harmless: what was applied by an earlier try is fenced.
pub(super) fn apply(
    outcomes: &mut JoinSet<Outcome>,
    shared: &Arc<Shared>,
    settling: &Arc<Settling>,
    sheep: SheepId,
    changes: Vec<Change>,
) {
    let (shared, settling) = (Arc::clone(shared), Arc::clone(settling));
    outcomes.spawn(async move {
        if shared.storage_is_remote() {
            let failing = changes.iter().filter(|change| matches!(change.event, Event::Fail { .. }));
            // Once it is known that a job failed, its input in storage is its client's to mend.
            let stored = failing.map(|change| settling.store_inputs_soon(&shared, &change.job));
            futures::future::join_all(stored).await;
        }
        let mut backoff = store_backoff();
        let results = loop {
            match shared.queue.apply(changes.clone()).await {
                Ok(results) => break results,
                Err(error) => {
                    let wait = backoff.step();
                    tracing::error!(%error, jobs = changes.len(), retry_in = ?wait, "cannot record what became of jobs");
                    tokio::time::sleep(wait).await;
                }
            }
        };
        for (change, result) in changes.iter().zip(results) {
            if matches!(change.event, Event::Begin { .. }) {
                // Nobody waits for it: the job was in work before.
                continue;
            }
            let record = match result {
                Ok(record) => {
                    journal::ended(&record, Some(&sheep));
                    Some(record)
                }
                Err(refused) => {
                    tracing::debug!(job = %change.job, %refused, "an outcome came too late");
                    // What counted instead, an earlier try of this or a cancel, may have woken nobody.
                    shared.queue.get(&change.job).await.ok().flatten()
                }
            };
            if let Some(record) = record {
                shared.tell(&record);
            }
        }
        settling.stir();
        Outcome::Applied
    });
}
