//! Brings storage up to date with the queue: writes small objects that rode in
//! the queue's commits as files, and each job's status document beside them.
//!
//! The queue is the truth and what a client asks for is answered from it, so this
//! work waits for a quiet moment, but not for long: once something has lagged for
//! [`MAX_AGE`] ([`MAX_AGE_REMOTE`] where clients read the storage by themselves), it is
//! done under load too, for a [share](LOAD_PAUSE) of the time where it takes the
//! processors from the jobs. All the time is its own while more than [`SOFT`] jobs or
//! [`SOFT_BYTES`] lag behind; beyond [`HARD`], submits wait for it. Whoever needs the
//! files of one job asks for them ([`Settling::catch_up`]), and they come first.
//!
//! ```text
//!  behind? ─▶ write files ─▶ sync ─▶ tell the queue, which drops its copies
//! ```
//!
//! Killed anywhere in between, the same is done again, with the same result.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use shepherd_job::{JobId, ObjectPath, STATUS_OBJECT};
use shepherd_queue::{JobRecord, Lag, Pending, PendingLimits, Position};
use shepherd_storage::StorageError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::ShepherdError;
use crate::live::log_path;
use crate::retry::{Backoff, store_backoff};
use crate::shared::Shared;
use crate::supervise::TaskKind;

/// How many jobs are brought up to date with one sync.
const BATCH: usize = 512;
/// Nothing happened for so long: a quiet moment.
const QUIET: Duration = Duration::from_millis(15);
/// More jobs than this behind, and the work is done under load too.
const SOFT: u64 = 200_000;
/// More jobs than this behind, and submits wait.
const HARD: u64 = 1_000_000;
/// More bytes behind than this, and the work is done all the time under load:
/// they take room in the queue, which never gives it back to the file system.
const SOFT_BYTES: u64 = 64 << 20;
/// How long files may lag under load.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The same where clients read the storage by themselves. Most short jobs are through
/// by then, and need one status document, not three.
const MAX_AGE_REMOTE: Duration = Duration::from_millis(150);
/// How many times as long as a batch took the next one waits under load, where making
/// files takes as long as the jobs themselves.
const LOAD_PAUSE: u32 = 4;
/// How long a job that failed or was cancelled waits for its input to come to storage
/// before that is told.
const STORE_AT_END: Duration = Duration::from_millis(500);
/// How many inputs are looked for at once.
const LOOKS: usize = 32;

/// The settler's side that others see.
#[derive(Debug)]
pub(crate) struct Settling {
    /// Counts what happens, so that the settler sees whether it is quiet.
    activity: AtomicU64,
    wake: Notify,
    settled: Notify,
    behind: AtomicU64,
    /// Jobs whose status document is stale though nothing durable says so, and a
    /// number that tells one touch from the next. They stay until it is written.
    touched: Mutex<HashMap<JobId, u64>>,
    /// Who stores the small inputs of jobs just now, or has.
    inputs: Mutex<HashMap<JobId, Inputs>>,
    urgent: mpsc::Sender<Urgent>,
    /// Held from looking at the queue until what was seen there is in storage.
    pub(crate) batch: tokio::sync::Mutex<()>,
}

/// What is done with small inputs that the queue still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inputs {
    /// They are part of the batch that is being written.
    InBatch,
    /// Whoever is about to end the job stores them.
    Apart,
    /// They are in storage. What is there now may be the client's own.
    Stored,
}

/// Somebody waits for the files of a job.
#[derive(Debug)]
struct Urgent {
    job: JobId,
    answer: oneshot::Sender<Result<(), String>>,
}

impl Settling {
    pub(crate) fn start(shared: &Arc<Shared>) -> Arc<Self> {
        let (urgent, asked) = mpsc::channel(BATCH);
        let settling = Arc::new(Self {
            activity: AtomicU64::new(0),
            wake: Notify::new(),
            settled: Notify::new(),
            behind: AtomicU64::new(0),
            touched: Mutex::default(),
            inputs: Mutex::default(),
            urgent,
            batch: tokio::sync::Mutex::default(),
        });
        let settler = Settler { shared: Arc::clone(shared), settling: Arc::clone(&settling), asked };
        shared.tasks.spawn(TaskKind::Pillar, "settler", settler.run());
        settling
    }

    /// Something changed in the queue.
    pub(crate) fn stir(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The job's status document should be written anew.
    pub(crate) fn touch(&self, job: &JobId) {
        let number = self.activity.load(Ordering::Relaxed);
        lock(&self.touched).insert(job.clone(), number);
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

    /// Brings one job's files up to date now. Costs little when they are.
    pub(crate) async fn catch_up(&self, shared: &Shared, job: &JobId) -> Result<(), ShepherdError> {
        let touched = lock(&self.touched).contains_key(job);
        let behind = async || match shared.queue.lag().jobs {
            0 => Ok(false),
            _ => shared.queue.pending_of(std::slice::from_ref(job)).await.map(|found| !found.is_empty()),
        };
        if !touched && !behind().await? {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let urgent = Urgent { job: job.clone(), answer };
        self.urgent.send(urgent).await.map_err(|_| ShepherdError::ShuttingDown)?;
        answered.await.map_err(|_| ShepherdError::ShuttingDown)?.map_err(ShepherdError::Unavailable)
    }

    /// [`store_inputs`](Self::store_inputs) of a job that is about to end without outputs,
    /// for a moment: one whose storage does not take them is told to have ended all the
    /// same, and they come to storage later, where they replace nothing.
    pub(crate) async fn store_inputs_soon(&self, shared: &Shared, job: &JobId) {
        let stored = tokio::time::timeout(STORE_AT_END, self.store_inputs(shared, job));
        let error = match stored.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the storage did not take it within {STORE_AT_END:?}"),
        };
        tracing::warn!(%job, error, "the input of a job that ends comes to storage later");
    }

    /// Stores the small inputs that the queue still has of a job, so that whoever
    /// hears that it has ended finds all of it in storage, and nothing is written
    /// there behind a client's back from then on.
    pub(crate) async fn store_inputs(&self, shared: &Shared, job: &JobId) -> Result<(), StorageError> {
        loop {
            match *lock(&self.inputs).entry(job.clone()).or_insert(Inputs::Apart) {
                Inputs::Stored => return Ok(()),
                Inputs::Apart => break,
                Inputs::InBatch => {}
            }
            drop(self.batch.lock().await);
        }
        let _apart = Apart { settling: self, job };
        let objects =
            shared.queue.objects(job).await.map_err(|e| StorageError::Unavailable(e.to_string()))?;
        if objects.is_empty() {
            return Ok(());
        }
        let objects = objects.into_iter().map(|(path, bytes)| (job.clone(), path, bytes)).collect();
        shared.storage.put_new(objects).await?.into_iter().collect::<Result<Vec<()>, _>>()?;
        shared.storage.sync().await?;
        lock(&self.inputs).insert(job.clone(), Inputs::Stored);
        Ok(())
    }

    /// Whether an object that the queue still has makes the job's data when it is
    /// written: neither a log does, nor inputs that are in storage already.
    pub(crate) fn will_make_data(&self, job: &JobId, path: &ObjectPath) -> bool {
        let is_output = path.as_str().starts_with("outputs/");
        *path != log_path() && (is_output || lock(&self.inputs).get(job) != Some(&Inputs::Stored))
    }

    fn has_touched(&self) -> bool {
        !lock(&self.touched).is_empty()
    }
}

/// Forgets, when it is dropped, that somebody stores a job's inputs, unless they are
/// stored.
struct Apart<'a> {
    settling: &'a Settling,
    job: &'a JobId,
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        let mut inputs = lock(&self.settling.inputs);
        if inputs.get(self.job) == Some(&Inputs::Apart) {
            inputs.remove(self.job);
        }
    }
}

/// Forgets, when it is dropped, which inputs are part of the batch.
struct InBatch<'a>(&'a Settling);

impl Drop for InBatch<'_> {
    fn drop(&mut self) {
        lock(&self.0.inputs).retain(|_, inputs| *inputs != Inputs::InBatch);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Settler {
    shared: Arc<Shared>,
    settling: Arc<Settling>,
    asked: mpsc::Receiver<Urgent>,
}

/// How far the settler has come with what lags behind.
struct Round {
    /// Jobs at the front of the line that could not be written. They are passed over
    /// until it is time to try them again.
    passed: usize,
    /// Where the line goes on behind those that are passed over.
    after: Option<Position>,
    again: Instant,
    /// Since when something lags.
    since: Instant,
    /// Under load, the next batch comes no sooner.
    resume_at: Instant,
    trouble: bool,
    /// Between tries at what was refused.
    refused: Backoff,
    /// Between tries at a storage that takes nothing.
    away: Backoff,
}

impl Settler {
    async fn run(mut self) {
        let (shared, settling) = (Arc::clone(&self.shared), Arc::clone(&self.settling));
        let now = Instant::now();
        let (refused, away) = (store_backoff(), store_backoff());
        let mut round = Round {
            passed: 0,
            after: None,
            again: now,
            since: now,
            resume_at: now,
            trouble: false,
            refused,
            away,
        };
        loop {
            let lag = shared.queue.lag();
            settling.behind.store(lag.jobs, Ordering::Relaxed);
            settling.settled.notify_waiters();
            // Cancel-safe: what a branch would lose stays in its channel, or was a look at the clock.
            tokio::select! {
                biased;
                () = shared.tasks.draining.cancelled() => return,
                Some(first) = self.asked.recv() => self.serve(first).await,
                due = is_due(&shared, &settling, lag, &mut round) => if due {
                    // Requests are heard again when a batch is through, however many there are.
                    // One that waits for a storage is dropped at the drain: it still lags then.
                    let rest = tokio::select! {
                        rest = go_on(&shared, &settling, &mut round) => rest,
                        () = shared.tasks.draining.cancelled(), if shared.storage_is_remote() => return,
                    };
                    tokio::select! {
                        () = tokio::time::sleep(rest), if !rest.is_zero() => {}
                        () = shared.tasks.draining.cancelled(), if !rest.is_zero() => return,
                        Some(first) = self.asked.recv(), if !rest.is_zero() => self.serve(first).await,
                        else => {}
                    }
                }
            }
        }
    }

    /// Writes the files that somebody waits for.
    async fn serve(&mut self, first: Urgent) {
        let mut asked = vec![first];
        while asked.len() < BATCH
            && let Ok(next) = self.asked.try_recv()
        {
            asked.push(next);
        }
        let ids: HashSet<JobId> = asked.iter().map(|urgent| urgent.job.clone()).collect();
        let written = settle_these(&self.shared, &self.settling, &ids.into_iter().collect::<Vec<_>>()).await;
        for Urgent { job, answer } in asked {
            let outcome = match &written {
                Ok(failed) => failed.get(&job).map_or(Ok(()), |error| Err(error.to_string())),
                Err(error) => Err(error.clone()),
            };
            // Who has gone asks again when it matters.
            let _ = answer.send(outcome);
        }
    }
}

/// Waits until it may be time for the next batch, and says whether it is.
async fn is_due(shared: &Shared, settling: &Settling, lag: Lag, round: &mut Round) -> bool {
    if Instant::now() >= round.again {
        round.passed = 0;
        round.after = None;
    }
    if lag.jobs <= round.passed as u64 && !settling.has_touched() {
        tokio::select! {
            () = settling.wake.notified() => {}
            () = tokio::time::sleep_until(round.again), if round.passed > 0 => {}
        }
        round.since = Instant::now();
        return false;
    }
    let max_age = if shared.storage_is_remote() { MAX_AGE_REMOTE } else { MAX_AGE };
    let is_late = round.since.elapsed() >= max_age && Instant::now() >= round.resume_at;
    if is_late || lag.jobs >= SOFT || lag.bytes >= SOFT_BYTES {
        return true;
    }
    let seen = settling.activity.load(Ordering::Relaxed);
    tokio::time::sleep(QUIET).await;
    settling.activity.load(Ordering::Relaxed) == seen
}

/// Writes the next batch, and says how long to rest after it. What cannot be
/// written is passed over for a while, so that it holds up nothing.
async fn go_on(shared: &Shared, settling: &Settling, round: &mut Round) -> Duration {
    let begun = Instant::now();
    let written = settle_batch(shared, settling, round.after).await;
    if !shared.storage_is_remote() {
        round.resume_at = Instant::now() + LOAD_PAUSE * begun.elapsed();
    }
    let (error, rest) = match written {
        Ok(Written { jobs, lagging, last, failed }) => {
            let error = failed.into_values().next().map(|error| error.to_string());
            // A storage that refused all of a batch is away, most likely.
            let rest = if error.is_some() && lagging == jobs { round.away.step() } else { Duration::ZERO };
            if rest.is_zero() {
                round.away.reset();
            }
            if lagging > 0 {
                round.passed += lagging;
                round.after = last;
                // Not before those behind them had their turn.
                round.again = Instant::now() + rest + round.refused.step();
            }
            if jobs < BATCH {
                round.since = Instant::now();
                if round.passed == 0 && error.is_none() {
                    round.refused.reset();
                    if std::mem::take(&mut round.trouble) {
                        tracing::info!("files of jobs are written to storage again");
                    }
                }
            }
            (error, rest)
        }
        Err(error) => (Some(error), round.away.step()),
    };
    if let Some(error) = error
        && !std::mem::replace(&mut round.trouble, true)
    {
        tracing::warn!(%error, "cannot write jobs' files to storage; trying again");
    }
    rest
}

/// Brings what lags behind up to date while the daemon ends, within `budget`.
/// What is left is done at the next start.
pub(crate) async fn settle_rest(shared: &Shared, settling: &Settling, budget: Duration) {
    let work = async {
        let (mut passed, mut after) = (0, None);
        while shared.queue.lag().jobs > passed as u64 {
            match settle_batch(shared, settling, after).await {
                Ok(written) => {
                    passed += written.lagging;
                    after = written.last.or(after);
                }
                Err(error) => {
                    tracing::warn!(%error, "files that lag behind are left for the next start");
                    return;
                }
            }
        }
        if passed > 0 {
            tracing::warn!(jobs = passed, "files that cannot be written are left for the next start");
        }
    };
    let _ = tokio::time::timeout(budget, work).await;
}

/// What a batch came to.
struct Written {
    /// How many jobs of the line were looked at.
    jobs: usize,
    /// How many of them still lag.
    lagging: usize,
    /// The position of the last of those.
    last: Option<Position>,
    /// Whose files could not be written, and why.
    failed: HashMap<JobId, StorageError>,
}

async fn settle_batch(
    shared: &Shared,
    settling: &Settling,
    after: Option<Position>,
) -> Result<Written, String> {
    let _batch = settling.batch.lock().await;
    let behind = shared.queue.pending(after, PendingLimits::jobs(BATCH)).await.map_err(|e| e.to_string())?;
    let line: Vec<(Position, JobId)> =
        behind.iter().map(|behind| (behind.position, behind.job.spec.id.clone())).collect();
    let touched = lock(&settling.touched).clone();
    let failed = write(shared, settling, behind, touched).await?;
    let jobs = line.len();
    let lagging: Vec<Position> =
        line.into_iter().filter(|(_, job)| failed.contains_key(job)).map(|(position, _)| position).collect();
    let last = lagging.last().copied();
    Ok(Written { jobs, lagging: lagging.len(), last, failed })
}

async fn settle_these(
    shared: &Shared,
    settling: &Settling,
    jobs: &[JobId],
) -> Result<HashMap<JobId, StorageError>, String> {
    let _batch = settling.batch.lock().await;
    let behind = shared.queue.pending_of(jobs).await.map_err(|e| e.to_string())?;
    let touched = {
        let touched = lock(&settling.touched);
        jobs.iter().filter_map(|job| touched.get(job).map(|number| (job.clone(), *number))).collect()
    };
    write(shared, settling, behind, touched).await
}

/// Writes files of jobs that lag, and status documents of these and of those that
/// were touched, and tells the queue. Gives those that could not be written.
async fn write(
    shared: &Shared,
    settling: &Settling,
    mut behind: Vec<Pending>,
    touched: HashMap<JobId, u64>,
) -> Result<HashMap<JobId, StorageError>, String> {
    let _in_batch = InBatch(settling);
    let mut outputs = Vec::new();
    let mut inputs = Vec::new();
    let mut logs = Vec::new();
    let log_path = log_path();
    behind.retain(|Pending { job, objects, .. }| {
        let id = &job.spec.id;
        let mut held = lock(&settling.inputs);
        let is_stored = match held.get(id) {
            // It ends in this moment, and comes again.
            Some(Inputs::Apart) => return false,
            Some(Inputs::Stored) => true,
            Some(Inputs::InBatch) | None => false,
        };
        for (path, data) in objects {
            if path.as_str().starts_with("outputs/") {
                // Without a file where its name is too long for the attic.
                let file = shared.attic.path_of(id, path).unwrap_or_default();
                outputs.push((id.clone(), path.clone(), data.clone(), file));
            } else if *path == log_path {
                logs.push((id.clone(), path.clone(), data.clone()));
            } else if !is_stored {
                held.insert(id.clone(), Inputs::InBatch);
                inputs.push((id.clone(), path.clone(), data.clone()));
            }
        }
        true
    });
    let mut documented: Vec<Arc<JobRecord>> = behind.iter().map(|behind| Arc::clone(&behind.job)).collect();
    let lagging: HashSet<JobId> = documented.iter().map(|job| job.spec.id.clone()).collect();
    for id in touched.keys().filter(|id| !lagging.contains(*id)) {
        documented.extend(shared.queue.get(id).await.map_err(|e| e.to_string())?);
    }

    let mut failed = HashMap::new();
    let note = |failed: &mut HashMap<_, _>, ids: Vec<JobId>, results: Vec<Result<(), StorageError>>| {
        failed.extend(ids.into_iter().zip(results).filter_map(|(id, result)| Some((id, result.err()?))));
    };
    let ids = outputs.iter().map(|(id, ..)| id.clone()).collect();
    let stored = if shared.storage_is_remote() {
        // Those of jobs that failed: their clients know it, and may have removed all of it.
        let (files, outputs): (Vec<_>, Vec<_>) =
            outputs.into_iter().map(|(id, path, data, file)| (file, (id, path, data))).unzip();
        for file in files {
            // No storage takes it. There is none of a stranger's output.
            let _ = tokio::fs::remove_file(file).await;
        }
        shared.storage.put_beside(outputs).await
    } else {
        shared.storage.adopt_batch(outputs).await
    };
    note(&mut failed, ids, stored.map_err(|e| e.to_string())?);
    let ended = documented.iter().filter(|job| job.state.is_finished()).map(|job| &job.spec.id).collect();
    let (inputs, unknown) = new_inputs(shared, inputs, &ended).await;
    failed.extend(unknown);
    let ids = inputs.iter().map(|(id, ..)| id.clone()).collect();
    let mut note = |ids: Vec<JobId>, results: Vec<Result<(), StorageError>>| note(&mut failed, ids, results);
    note(ids, shared.storage.put_new(inputs).await.map_err(|e| e.to_string())?);
    // None brings back what its client has removed.
    if !logs.is_empty() {
        let ids = logs.iter().map(|(id, ..)| id.clone()).collect();
        note(ids, shared.storage.put_beside(logs).await.map_err(|e| e.to_string())?);
    }
    // A document that says "done" comes after the outputs that it speaks of, and is not
    // ahead of the log; nor does it bring back what its client has removed.
    documented.retain(|job| !failed.contains_key(&job.spec.id));
    if let Some(document) = shared.status_document {
        let path = || ObjectPath::parse(STATUS_OBJECT).expect("the constant is a legal key");
        let documents: Vec<(JobId, ObjectPath, Bytes)> =
            documented.iter().map(|job| (job.spec.id.clone(), path(), document(job))).collect();
        let results = shared.storage.put_beside(documents).await.map_err(|e| e.to_string())?;
        let ids = documented.iter().map(|job| job.spec.id.clone());
        failed.extend(ids.zip(results).filter_map(|(id, result)| Some((id, result.err()?))));
    }
    shared.storage.sync().await.map_err(|e| e.to_string())?;

    {
        let mut waiting = lock(&settling.touched);
        for (id, number) in touched {
            // One that was touched again meanwhile has another number.
            if !failed.contains_key(&id) && waiting.get(&id) == Some(&number) {
                waiting.remove(&id);
            }
        }
    }
    behind.retain(|behind| !failed.contains_key(&behind.job.spec.id));
    let written: Vec<JobId> = behind.iter().map(|behind| behind.job.spec.id.clone()).collect();
    if !behind.is_empty() {
        shared.queue.delivered(behind).await.map_err(|e| e.to_string())?;
    }
    let mut inputs = lock(&settling.inputs);
    for id in &written {
        if inputs.get(id) == Some(&Inputs::Stored) {
            inputs.remove(id);
        }
    }
    Ok(failed)
}

/// Those of the inputs that are to be stored. Where a job has ended, its client may
/// have put a better one in the place of the one that the queue still has: a service
/// that passes over conditions on puts would replace it, so it is looked for first.
/// Gives also of which jobs that cannot be known now.
async fn new_inputs(
    shared: &Shared,
    inputs: Vec<(JobId, ObjectPath, Bytes)>,
    ended: &HashSet<&JobId>,
) -> (Vec<(JobId, ObjectPath, Bytes)>, Vec<(JobId, StorageError)>) {
    if !shared.storage_is_remote() {
        return (inputs, Vec::new());
    }
    let (looked_for, mut new): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|(id, ..)| ended.contains(id));
    let looks = stream::iter(looked_for).map(|input| async move {
        let found = shared.storage.head(&input.0, &input.1).await;
        (input, found)
    });
    let mut looks = looks.buffer_unordered(LOOKS);
    let mut unknown = Vec::new();
    while let Some((input, found)) = looks.next().await {
        match found {
            Ok(_) => {}
            Err(StorageError::NotFound) => new.push(input),
            Err(error) => unknown.push((input.0, error)),
        }
    }
    (new, unknown)
}
