//! Write-back: the consumer of the [outbox](shepherd_queue::Outbox) that brings storage up to
//! date with the job store. It writes the small objects that travelled in the store's commits as
//! files, and each job's status document beside them.
//!
//! ```text
//!  pending? ─▶ [batch]: objects to storage ─▶ sync ─▶ delivered: the store drops its copies
//! ```
//!
//! Killed anywhere in between, the same is done again, with the same result. The store is the
//! truth, and what a client asks for is answered from it. Whoever needs one job's files in storage
//! asks for them ([`WriteBack::flush`]), and they come first.
//!
//! # Bounds
//! Files cost more than a short job, so they wait for a quiet moment, within bounds:
//!
//! | bound | what happens beyond it |
//! |---|---|
//! | age: [`MAX_AGE`] ([`MAX_AGE_REMOTE`] where clients read the storage by themselves) | the work goes on without a pause, under any load |
//! | the same, when [`MAX_FINISHED`] finished jobs are pending | each batch of outcomes waits for a part of the time by which files are late ([`pause`]): jobs end no faster than their files are written |
//! | bytes: [`MAX_BYTES`] | submits and outcomes wait |
//! | count: [`MAX_JOBS`] | submits wait |
//!
//! A submit that waited for [`SUBMIT_PATIENCE`] is refused.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shepherd_job::{JobId, Timestamp};
use shepherd_queue::Lag;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::ShepherdError;
use crate::clock::now;
use crate::shared::Shared;
use crate::supervise::TaskKind;
use inputs::Inputs;
use task::Task;

mod batch;
mod inputs;
mod task;

/// How many jobs are brought up to date with one sync.
const BATCH: usize = 512;
/// How many bytes of objects one sync covers, but one job's at least.
const BATCH_BYTES: u64 = 16 << 20;
/// How long nothing has changed in a quiet moment.
const QUIET: Duration = Duration::from_millis(15);
/// How long files may wait under load.
const MAX_AGE: Duration = Duration::from_secs(1);
/// The same where clients read the storage by themselves. Most short jobs are done by then, and
/// need one status document, not three.
const MAX_AGE_REMOTE: Duration = Duration::from_millis(150);
/// How many bytes of objects may be pending before submits and outcomes wait.
const MAX_BYTES: u64 = 64 << 20;
/// How many jobs may be pending before submits wait.
const MAX_JOBS: u64 = 1_000_000;
/// How many finished jobs may be pending, whatever their age: what two batches take.
const MAX_FINISHED: u64 = 2 * BATCH as u64;
/// A batch of outcomes waits for this part of the time by which files are late. With 64 jobs at a
/// time, files that are 0.1 s late let 6,400 jobs a second end.
const PAUSE_SHARE: u32 = 10;
/// It waits for no longer than this.
const MAX_PAUSE: Duration = Duration::from_millis(100);
/// How long a submit waits for room.
const SUBMIT_PATIENCE: Duration = Duration::from_secs(10);

/// What others see of the write-back.
#[derive(Debug)]
pub(crate) struct WriteBack {
    /// Counts changes, so that the task sees whether it is quiet.
    changes: AtomicU64,
    wake: Notify,
    /// A batch is done.
    progress: Notify,
    /// The storage did not take the last batch, or parts of it.
    in_trouble: AtomicBool,
    /// Jobs whose status document is stale though nothing durable says so, and a number that tells
    /// one touch from the next. They stay until it is written.
    touched: Mutex<Touched>,
    inputs: Inputs,
    urgent: mpsc::Sender<Flush>,
    /// Held from looking at the store until what was seen there is in storage.
    batch: tokio::sync::Mutex<()>,
}

/// Jobs whose status document is stale, and the number of the touch that says so.
type Touched = HashMap<JobId, u64>;

/// Somebody waits for the files of a job.
#[derive(Debug)]
struct Flush {
    job: JobId,
    answer: oneshot::Sender<Result<(), String>>,
}

impl WriteBack {
    pub(crate) fn start(shared: &Arc<Shared>) -> Arc<Self> {
        let (urgent, flushes) = mpsc::channel(BATCH);
        let write_back = Arc::new(Self {
            changes: AtomicU64::new(0),
            wake: Notify::new(),
            progress: Notify::new(),
            in_trouble: AtomicBool::new(false),
            touched: Mutex::default(),
            inputs: Inputs::default(),
            urgent,
            batch: tokio::sync::Mutex::default(),
        });
        let task = Task::new(Arc::clone(shared), Arc::clone(&write_back), flushes);
        shared.tasks.spawn(TaskKind::Critical, "write-back", task.run());
        write_back
    }

    /// Something changed in the store.
    pub(crate) fn wake(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// The job's status document should be written anew.
    pub(crate) fn touch(&self, job: &JobId) {
        let number = self.changes.load(Ordering::Relaxed);
        lock(&self.touched).insert(job.clone(), number);
        self.wake();
    }

    /// Waits until more jobs may be accepted; false when that takes too long.
    pub(crate) async fn admits(&self, shared: &Shared) -> bool {
        let has_room = |lag: Lag| lag.jobs < MAX_JOBS && lag.bytes < MAX_BYTES;
        tokio::time::timeout(SUBMIT_PATIENCE, self.until(shared, has_room)).await.is_ok()
    }

    /// Waits until more jobs may end: while their objects take too much room, and for a moment
    /// while files are written more slowly than jobs end. Where clients read the storage by
    /// themselves, a job's outputs are there before it ends, and nothing is waited for.
    pub(crate) async fn admits_outcomes(&self, shared: &Shared) {
        if shared.storage_is_remote() {
            return;
        }
        self.until(shared, |lag| lag.bytes < MAX_BYTES).await;
        let pause = pause(shared.queue.lag(), now());
        if !pause.is_zero() && !self.in_trouble.load(Ordering::Relaxed) {
            tokio::time::sleep(pause).await;
        }
    }

    /// Why no job is accepted and none ends, if the storage does not take what has no more room.
    pub(crate) fn problem(&self, shared: &Shared) -> Option<String> {
        let Lag { jobs, bytes, .. } = shared.queue.lag();
        let is_stuck = bytes >= MAX_BYTES && self.in_trouble.load(Ordering::Relaxed);
        is_stuck.then(|| {
            format!("the storage does not take files of jobs: {bytes} bytes of {jobs} jobs wait, which is all there is room for")
        })
    }

    /// Waits until the lag is as it should be.
    async fn until(&self, shared: &Shared, is_right: impl Fn(Lag) -> bool) {
        loop {
            // Made before the look, so that no batch is done unseen between the two.
            let progress = self.progress.notified();
            if is_right(shared.queue.lag()) {
                return;
            }
            progress.await;
        }
    }

    /// Brings one job's files in storage up to date now. Costs little when they are.
    pub(crate) async fn flush(&self, shared: &Shared, job: &JobId) -> Result<(), ShepherdError> {
        let is_touched = lock(&self.touched).contains_key(job);
        let is_pending = async || match shared.queue.lag().jobs {
            0 => Ok(false),
            _ => shared.queue.pending_of(std::slice::from_ref(job)).await.map(|found| !found.is_empty()),
        };
        if !is_touched && !is_pending().await? {
            return Ok(());
        }
        let (answer, answered) = oneshot::channel();
        let flush = Flush { job: job.clone(), answer };
        self.urgent.send(flush).await.map_err(|_| ShepherdError::ShuttingDown)?;
        answered.await.map_err(|_| ShepherdError::ShuttingDown)?.map_err(ShepherdError::Unavailable)
    }

    /// Waits until what is being written just now is in storage.
    pub(crate) async fn finish_batch(&self) {
        drop(self.batch.lock().await);
    }

    /// Brings everything up to date while the daemon ends, within `budget`. What is left is done
    /// at the next start.
    pub(crate) async fn flush_all(&self, shared: &Shared, budget: Duration) {
        let work = async {
            let (mut passed, mut after) = (0, None);
            while shared.queue.lag().jobs > passed as u64 {
                let written = match batch::put_next(shared, self, after, Touched::new()).await {
                    Ok(batch) => batch.finish(shared, self).await,
                    Err(error) => Err(error),
                };
                match written {
                    Ok(written) => {
                        passed += written.refused;
                        after = written.last_refused.or(after);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "files that are not in storage yet are left for the next start");
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

    fn has_touched(&self) -> bool {
        !lock(&self.touched).is_empty()
    }

    /// How long files may wait.
    fn max_age(shared: &Shared) -> Duration {
        if shared.storage_is_remote() { MAX_AGE_REMOTE } else { MAX_AGE }
    }
}

/// How long the first pending job has waited longer than it may. Where the clock was set back,
/// files count as late, too.
fn lateness(lag: Lag, max_age: Duration, now: Timestamp) -> Option<Duration> {
    let waited = now.as_micros() - lag.since?.as_micros();
    match u64::try_from(waited) {
        Ok(waited) => Duration::from_micros(waited).checked_sub(max_age),
        Err(_) => Some(Duration::ZERO),
    }
}

/// How long a batch of outcomes waits.
fn pause(lag: Lag, now: Timestamp) -> Duration {
    match lateness(lag, MAX_AGE, now) {
        Some(late) if lag.finished >= MAX_FINISHED => (late / PAUSE_SHARE).min(MAX_PAUSE),
        Some(_) | None => Duration::ZERO,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_wait_longer_the_later_files_are() {
        let pause = |waited_ms: i64, finished| {
            let since = Some(Timestamp::from_micros(5_000_000));
            let lag = Lag { jobs: 1_000_000, finished, since, bytes: 0 };
            super::pause(lag, Timestamp::from_micros(5_000_000 + waited_ms * 1000)).as_millis()
        };
        let waits = [0, 999, 1_000, 1_100, 1_500, 2_000, 60_000].map(|waited| pause(waited, MAX_FINISHED));
        assert_eq!(waits, [0, 0, 0, 10, 50, 100, 100]);
        assert_eq!(
            pause(60_000, MAX_FINISHED - 1),
            0,
            "the jobs that wait still are not what is written late"
        );
        assert_eq!(super::pause(Lag::default(), Timestamp::from_micros(0)), Duration::ZERO);
    }

    #[test]
    fn files_are_late_after_their_time_and_when_the_clock_was_set_back() {
        let late = |now: i64| {
            let lag = Lag { jobs: 1, since: Some(Timestamp::from_micros(10_000_000)), ..Lag::default() };
            lateness(lag, MAX_AGE, Timestamp::from_micros(now))
        };
        assert_eq!(late(10_500_000), None);
        assert_eq!(late(11_250_000), Some(Duration::from_millis(250)));
        assert_eq!(late(9_000_000), Some(Duration::ZERO));
        assert_eq!(lateness(Lag::default(), MAX_AGE, Timestamp::from_micros(0)), None);
    }
}
