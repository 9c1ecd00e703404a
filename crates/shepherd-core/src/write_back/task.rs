//! When the next batch is written.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use shepherd_job::JobId;
use shepherd_queue::Position;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::batch::{self, Batch, Written};
use super::{BATCH, Flush, MAX_BYTES, QUIET, Touched, WriteBack, lateness};
use crate::clock::now;
use crate::retry::{Backoff, store_backoff};
use crate::shared::Shared;

/// How many pending jobs storage may have taken that are not durable yet.
const MAX_UNFINISHED: usize = 4 * BATCH;

/// The task that writes batches. While some are made durable, the next ones are written.
pub(super) struct Task {
    shared: Arc<Shared>,
    write_back: Arc<WriteBack>,
    flushes: mpsc::Receiver<Flush>,
    /// What storage has taken since the last sync began.
    taken: Batch,
    /// What is made durable now, at most one.
    finishing: FuturesUnordered<BoxFuture<'static, Result<Written, String>>>,
    /// How many pending jobs that is.
    finishing_jobs: usize,
    /// The status documents that are in either.
    touched: Touched,
    /// Where the jobs begin that are in neither.
    next: Option<Position>,
    /// Pending jobs at the front that could not be written. They are passed over until it is time
    /// to try them again.
    passed: usize,
    /// Where the jobs behind them begin.
    after: Option<Position>,
    /// When those that are passed over are tried again.
    retry_at: Instant,
    /// Between tries at what was refused.
    refused: Backoff,
    /// Between tries at a storage that takes nothing.
    away: Backoff,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// The next batch, at once.
    Urgent,
    /// The next batch, in a quiet moment.
    Quiet,
    /// Nothing before something changes.
    Wait,
}

impl Task {
    pub(super) fn new(
        shared: Arc<Shared>,
        write_back: Arc<WriteBack>,
        flushes: mpsc::Receiver<Flush>,
    ) -> Self {
        Self {
            shared,
            write_back,
            flushes,
            taken: Batch::default(),
            finishing: FuturesUnordered::new(),
            finishing_jobs: 0,
            touched: Touched::new(),
            next: None,
            passed: 0,
            after: None,
            retry_at: Instant::now(),
            refused: store_backoff(),
            away: store_backoff(),
        }
    }

    pub(super) async fn run(mut self) {
        let (shared, write_back) = (Arc::clone(&self.shared), Arc::clone(&self.write_back));
        loop {
            let work = self.work();
            let retry_at = (self.passed > 0).then_some(self.retry_at);
            let is_busy = !self.finishing.is_empty();
            let mut rest = Duration::ZERO;
            // Cancel-safe: what a branch would lose stays in its channel or set, or was a look at
            // the clock.
            tokio::select! {
                biased;
                () = shared.tasks.draining.cancelled() => return,
                Some(first) = self.flushes.recv() => self.flush(first).await,
                Some(written) = self.finishing.next(), if is_busy => rest = self.finished(written),
                () = std::future::ready(()), if work == Work::Urgent => rest = self.write().await,
                // What is made durable is waited for first: it may be all there is.
                is_quiet = is_quiet(&write_back), if work == Work::Quiet && !is_busy => if is_quiet {
                    rest = self.write().await;
                },
                () = wait_for_work(&write_back, retry_at), if work == Work::Wait && !is_busy => {}
            }
            // A sync that nobody goes on with would hold up all others.
            if !self.finishing.is_empty() {
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(rest), if !rest.is_zero() => {}
                () = shared.tasks.draining.cancelled(), if !rest.is_zero() => return,
                // Whoever waits for files is served however many jobs are pending.
                Some(first) = self.flushes.recv(), if !rest.is_zero() => self.flush(first).await,
                else => {}
            }
        }
    }

    fn work(&mut self) -> Work {
        if Instant::now() >= self.retry_at {
            (self.passed, self.after) = (0, None);
        }
        let lag = self.shared.queue.lag();
        let unfinished = self.taken.jobs() + self.finishing_jobs;
        let has_more = lag.jobs > (self.passed + unfinished) as u64;
        let is_late = lateness(lag, WriteBack::max_age(&self.shared), now()).is_some();
        // The age of those that are passed over says nothing of the others.
        let is_urgent = is_late || self.passed > 0 || lag.bytes >= MAX_BYTES;
        if has_more && is_urgent && unfinished < MAX_UNFINISHED {
            Work::Urgent
        } else if has_more || self.write_back.has_touched() {
            Work::Quiet
        } else {
            Work::Wait
        }
    }

    /// Writes the next batch, and goes on with what is made durable. Gives how long to rest when
    /// the storage takes nothing.
    async fn write(&mut self) -> Duration {
        let (shared, write_back) = (Arc::clone(&self.shared), Arc::clone(&self.write_back));
        let after = self.next.or(self.after);
        let touched = self.touched.clone();
        let put = async {
            tokio::select! {
                batch = batch::put_next(&shared, &write_back, after, touched) => Some(batch),
                // A batch that waits for a storage is dropped at the drain: its jobs are pending still.
                () = shared.tasks.draining.cancelled(), if shared.storage_is_remote() => None,
            }
        };
        let (batch, rest) = self.beside(put).await;
        let Some(batch) = batch else { return rest };
        match batch {
            // All of its jobs end in this moment.
            Ok(batch) if batch.is_empty() => rest.max(QUIET),
            Ok(batch) => {
                self.next = batch.last().or(self.next);
                self.touched.extend(batch.touched().clone());
                self.taken.extend(batch);
                self.finish();
                rest
            }
            Err(error) => rest.max(self.note(Err(error))),
        }
    }

    /// Does something, and goes on with what is made durable meanwhile: both may wait for one sync,
    /// and neither gets on while the other is left alone. Gives how long to rest, too.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> (T, Duration) {
        tokio::pin!(work);
        let mut rest = Duration::ZERO;
        loop {
            // Cancel-safe: what is finished stays in its set.
            tokio::select! {
                done = &mut work => return (done, rest),
                Some(written) = self.finishing.next(), if !self.finishing.is_empty() => {
                    rest = rest.max(self.finished(written));
                }
            }
        }
    }

    /// Begins to make durable what was taken, when what was taken before is.
    fn finish(&mut self) {
        if !self.finishing.is_empty() || self.taken.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.taken);
        self.finishing_jobs = batch.jobs();
        let (shared, write_back) = (Arc::clone(&self.shared), Arc::clone(&self.write_back));
        self.finishing.push(Box::pin(async move { batch.finish(&shared, &write_back).await }));
    }

    /// Takes what a sync came to, and begins the next one.
    fn finished(&mut self, written: Result<Written, String>) -> Duration {
        self.finishing_jobs = 0;
        let rest = self.note(written);
        self.finish();
        if self.finishing.is_empty() {
            // Jobs that changed meanwhile are pending where they were.
            self.next = None;
            self.touched.clear();
        }
        self.write_back.progress.notify_waiters();
        rest
    }

    /// Notes what a batch came to, and gives how long to rest. What cannot be written is passed
    /// over for a while, so that it holds up nothing.
    fn note(&mut self, written: Result<Written, String>) -> Duration {
        let (error, rest) = match written {
            Ok(Written { jobs, refused, last_refused, failed }) => {
                let error = failed.into_values().next().map(|error| error.to_string());
                // A storage that refused all of a batch is away, most likely.
                let rest = if error.is_some() && refused == jobs { self.away.step() } else { Duration::ZERO };
                if rest.is_zero() {
                    self.away.reset();
                }
                if refused > 0 {
                    self.passed += refused;
                    self.after = last_refused;
                    // Not before those behind them had their turn.
                    self.retry_at = Instant::now() + rest + self.refused.step();
                }
                let is_through = jobs < BATCH && self.passed == 0 && error.is_none();
                if is_through {
                    self.refused.reset();
                    if self.write_back.in_trouble.swap(false, Ordering::Relaxed) {
                        tracing::info!("files of jobs are written to storage again");
                    }
                }
                (error, rest)
            }
            Err(error) => (Some(error), self.away.step()),
        };
        if let Some(error) = error
            && !self.write_back.in_trouble.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "cannot write jobs' files to storage; trying again");
        }
        rest
    }

    /// Writes the files that somebody waits for.
    async fn flush(&mut self, first: Flush) {
        let mut flushes = vec![first];
        while flushes.len() < BATCH
            && let Ok(next) = self.flushes.try_recv()
        {
            flushes.push(next);
        }
        let jobs: HashSet<JobId> = flushes.iter().map(|flush| flush.job.clone()).collect();
        let jobs: Vec<JobId> = jobs.into_iter().collect();
        let (shared, write_back) = (Arc::clone(&self.shared), Arc::clone(&self.write_back));
        let write = async {
            let batch = batch::put_these(&shared, &write_back, &jobs).await?;
            batch.finish(&shared, &write_back).await.map(|written| written.failed)
        };
        let (written, _) = self.beside(write).await;
        for Flush { job, answer } in flushes {
            let outcome = match &written {
                Ok(failed) => failed.get(&job).map_or(Ok(()), |error| Err(error.to_string())),
                Err(error) => Err(error.clone()),
            };
            // Who has gone asks again when it matters.
            let _ = answer.send(outcome);
        }
        self.write_back.progress.notify_waiters();
    }
}

/// Waits until something changes, or until what was refused is tried again.
async fn wait_for_work(write_back: &WriteBack, retry_at: Option<Instant>) {
    tokio::select! {
        () = write_back.wake.notified() => {}
        () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
    }
}

/// Waits for a moment, and says whether nothing changed meanwhile.
async fn is_quiet(write_back: &WriteBack) -> bool {
    let before = write_back.changes.load(Ordering::Relaxed);
    tokio::time::sleep(QUIET).await;
    write_back.changes.load(Ordering::Relaxed) == before
}
