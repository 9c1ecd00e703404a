//! Brings storage up to date with the queue: writes small objects that rode in
//! the queue's commits as files, and each job's status document beside them.
//!
//! The queue is the truth and what a client asks for is answered from it, so this
//! work has no hurry: it waits for a quiet moment, unless more than [`SOFT`] jobs
//! lag behind, or some have for [`PATIENCE`] where clients read the storage by
//! themselves. Beyond [`HARD`], submits wait for it. Whoever needs the files of
//! one job asks for them ([`Settling::catch_up`]), and they come first.
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
use shepherd_job::{JobId, ObjectPath, STATUS_OBJECT};
use shepherd_queue::{Behind, JobRecord};
use shepherd_storage::StorageError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use crate::ShepherdError;
use crate::shared::{Backoff, Shared, store_backoff};
use crate::supervise::TaskKind;

/// How many jobs are brought up to date with one sync.
const BATCH: usize = 512;
/// Nothing happened for so long: a quiet moment.
const QUIET: Duration = Duration::from_millis(15);
/// More jobs than this behind, and the work is done under load too.
const SOFT: u64 = 200_000;
/// More jobs than this behind, and submits wait.
const HARD: u64 = 1_000_000;
/// How long files may lag under load where clients read the storage by themselves.
/// Most short jobs are through by then, and need one status document, not three.
const PATIENCE: Duration = Duration::from_millis(500);

/// The settler's side that others see.
#[derive(Debug)]
pub(crate) struct Settling {
    /// Counts what happens, so that the settler sees whether it is quiet.
    activity: AtomicU64,
    wake: Notify,
    settled: Notify,
    behind: AtomicU64,
    /// Jobs whose status document is stale though nothing durable says so.
    touched: Mutex<HashSet<JobId>>,
    /// Jobs whose small inputs are in storage though the queue still has them.
    stored: Mutex<HashSet<JobId>>,
    urgent: mpsc::Sender<Urgent>,
    /// Held from looking at the queue until what was seen there is in storage.
    pub(crate) batch: tokio::sync::Mutex<()>,
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
            stored: Mutex::default(),
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
        lock(&self.touched).insert(job.clone());
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
        let touched = lock(&self.touched).contains(job);
        let behind = async || match shared.queue.behind_count() {
            0 => Ok(false),
            _ => shared.queue.behind_of(std::slice::from_ref(job)).await.map(|found| !found.is_empty()),
        };
        if !touched && !behind().await? {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let urgent = Urgent { job: job.clone(), answer };
        self.urgent.send(urgent).await.map_err(|_| ShepherdError::ShuttingDown)?;
        answered.await.map_err(|_| ShepherdError::ShuttingDown)?.map_err(ShepherdError::Unavailable)
    }

    /// Stores the small inputs that the queue still has of a job, so that whoever
    /// hears that it is done finds all of it in storage. The caller is about to
    /// change the job, which has them dropped from the queue.
    pub(crate) async fn store_inputs(&self, shared: &Shared, job: &JobId) -> Result<(), StorageError> {
        if lock(&self.stored).contains(job) {
            return Ok(());
        }
        let objects =
            shared.queue.objects(job).await.map_err(|e| StorageError::Unavailable(e.to_string()))?;
        if objects.is_empty() {
            return Ok(());
        }
        let objects = objects.into_iter().map(|(path, bytes)| (job.clone(), path, bytes)).collect();
        shared.storage.put_batch(objects).await?.into_iter().collect::<Result<Vec<()>, _>>()?;
        shared.storage.sync().await?;
        lock(&self.stored).insert(job.clone());
        Ok(())
    }

    fn take_touched(&self) -> Vec<JobId> {
        lock(&self.touched).drain().collect()
    }

    fn has_touched(&self) -> bool {
        !lock(&self.touched).is_empty()
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
    /// Jobs at the front of the line that could not be written this time round.
    passed: usize,
    /// Since when something lags.
    since: Instant,
    trouble: bool,
    backoff: Backoff,
}

impl Settler {
    async fn run(mut self) {
        let (shared, settling) = (Arc::clone(&self.shared), Arc::clone(&self.settling));
        let mut round = Round { passed: 0, since: Instant::now(), trouble: false, backoff: store_backoff() };
        loop {
            let behind = shared.queue.behind_count();
            settling.behind.store(behind, Ordering::Relaxed);
            settling.settled.notify_waiters();
            // Cancel-safe: what a branch would lose stays in its channel, or was a look at the clock.
            tokio::select! {
                biased;
                () = shared.tasks.draining.cancelled() => return,
                Some(first) = self.asked.recv() => self.serve(first).await,
                due = is_due(&shared, &settling, behind, &mut round) => if due {
                    // Requests are heard again when a batch is through, however many there are.
                    let rest = go_on(&shared, &settling, &mut round).await;
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
async fn is_due(shared: &Shared, settling: &Settling, behind: u64, round: &mut Round) -> bool {
    if behind == 0 && !settling.has_touched() {
        settling.wake.notified().await;
        round.since = Instant::now();
        return false;
    }
    let late = shared.storage_is_remote() && round.since.elapsed() >= PATIENCE;
    if behind >= SOFT || late {
        return true;
    }
    let seen = settling.activity.load(Ordering::Relaxed);
    tokio::time::sleep(QUIET).await;
    settling.activity.load(Ordering::Relaxed) == seen
}

/// Writes the next batch, and says how long to rest after it. What cannot be
/// written is passed over until the end of the line, so that it holds up nothing.
async fn go_on(shared: &Shared, settling: &Settling, round: &mut Round) -> Duration {
    let (error, rest) = match settle_batch(shared, settling, round.passed).await {
        Ok(Written { jobs, lagging, failed }) => {
            round.passed += lagging;
            let error = failed.into_values().next().map(|error| error.to_string());
            let at_end = jobs < BATCH;
            let well = round.passed == 0 && error.is_none();
            if at_end {
                round.passed = 0;
                round.since = Instant::now();
            }
            // A storage that refused all of a batch is away, most likely.
            let refused = jobs > 0 && lagging == jobs;
            if well && at_end {
                round.backoff.reset();
                if std::mem::take(&mut round.trouble) {
                    tracing::info!("files of jobs are written to storage again");
                }
            }
            let rests = refused || (at_end && !well);
            (error, if rests { round.backoff.step() } else { Duration::ZERO })
        }
        Err(error) => (Some(error), round.backoff.step()),
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
        let mut passed = 0;
        while shared.queue.behind_count() > passed as u64 {
            passed += match settle_batch(shared, settling, passed).await {
                Ok(written) => written.lagging,
                Err(error) => {
                    tracing::warn!(%error, "files that lag behind are left for the next start");
                    return;
                }
            };
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
    /// Whose files could not be written, and why.
    failed: HashMap<JobId, StorageError>,
}

async fn settle_batch(shared: &Shared, settling: &Settling, skip: usize) -> Result<Written, String> {
    let _batch = settling.batch.lock().await;
    let behind = shared.queue.behind(skip, BATCH).await.map_err(|e| e.to_string())?;
    let line: Vec<JobId> = behind.iter().map(|behind| behind.job.spec.id.clone()).collect();
    let jobs = line.len();
    let touched = records(shared, &settling.take_touched()).await?;
    let failed = write(shared, settling, behind, touched).await?;
    let lagging = line.into_iter().filter(|job| failed.contains_key(job)).count();
    Ok(Written { jobs, lagging, failed })
}

async fn settle_these(
    shared: &Shared,
    settling: &Settling,
    jobs: &[JobId],
) -> Result<HashMap<JobId, StorageError>, String> {
    let _batch = settling.batch.lock().await;
    let behind = shared.queue.behind_of(jobs).await.map_err(|e| e.to_string())?;
    let touched: Vec<JobId> = {
        let mut touched = lock(&settling.touched);
        jobs.iter().filter_map(|job| touched.take(job)).collect()
    };
    let touched = records(shared, &touched).await?;
    write(shared, settling, behind, touched).await
}

async fn records(shared: &Shared, jobs: &[JobId]) -> Result<Vec<Arc<JobRecord>>, String> {
    let mut records = Vec::with_capacity(jobs.len());
    for job in jobs {
        records.extend(shared.queue.get(job).await.map_err(|e| e.to_string())?);
    }
    Ok(records)
}

/// Writes files of jobs that lag, and status documents of these and of others, and
/// tells the queue. Gives those that could not be written.
async fn write(
    shared: &Shared,
    settling: &Settling,
    mut behind: Vec<Behind>,
    mut touched: Vec<Arc<JobRecord>>,
) -> Result<HashMap<JobId, StorageError>, String> {
    let lagging: HashSet<&JobId> = behind.iter().map(|behind| &behind.job.spec.id).collect();
    touched.retain(|job| !lagging.contains(&job.spec.id));
    let mut outputs = Vec::new();
    let mut inputs = Vec::new();
    for Behind { job, objects } in &behind {
        let id = &job.spec.id;
        let is_stored = lock(&settling.stored).contains(id);
        for (path, data) in objects {
            if let Some(file) = shared.attic.path_of(id, path) {
                outputs.push((id.clone(), path.clone(), data.clone(), file));
            } else if !is_stored {
                inputs.push((id.clone(), path.clone(), data.clone()));
            }
        }
    }
    let document = |job: &Arc<JobRecord>| -> Option<(JobId, ObjectPath, Bytes)> {
        let path = ObjectPath::parse(STATUS_OBJECT).expect("the constant is a legal key");
        Some((job.spec.id.clone(), path, shared.status_document?(job)))
    };
    let documents: Vec<_> =
        behind.iter().map(|behind| &behind.job).chain(&touched).filter_map(document).collect();

    let mut failed = HashMap::new();
    let mut note = |ids: Vec<JobId>, results: Vec<Result<(), StorageError>>| {
        failed.extend(ids.into_iter().zip(results).filter_map(|(id, result)| Some((id, result.err()?))));
    };
    // A document that says "done" comes after the outputs that it speaks of, and none brings back
    // what its client has removed.
    let ids = outputs.iter().map(|(id, ..)| id.clone()).collect();
    note(ids, shared.storage.adopt_batch(outputs).await.map_err(|e| e.to_string())?);
    let ids = inputs.iter().map(|(id, ..)| id.clone()).collect();
    note(ids, shared.storage.put_batch(inputs).await.map_err(|e| e.to_string())?);
    let ids = documents.iter().map(|(id, ..)| id.clone()).collect();
    note(ids, shared.storage.put_beside(documents).await.map_err(|e| e.to_string())?);
    shared.storage.sync().await.map_err(|e| e.to_string())?;

    for job in touched.iter().map(|job| &job.spec.id).filter(|id| failed.contains_key(*id)) {
        lock(&settling.touched).insert(job.clone());
    }
    behind.retain(|behind| !failed.contains_key(&behind.job.spec.id));
    let written: Vec<JobId> = behind.iter().map(|behind| behind.job.spec.id.clone()).collect();
    if !behind.is_empty() {
        shared.queue.caught_up(behind).await.map_err(|e| e.to_string())?;
    }
    let mut stored = lock(&settling.stored);
    for id in &written {
        stored.remove(id);
    }
    Ok(failed)
}
