//! What is known of jobs while they are in work, beyond their records: how far they
//! are, what they print; and those who watch them.
//!
//! It costs nothing for a job that says nothing and that nobody watches. All of it is
//! lost with the daemon, except a log once its job has ended: that is part of the
//! change that ends it.
//!
//! ```text
//!  driver ── progress, log ─▶ a live job ─▶ those who watch it
//!  whoever made a change durable ── note ─▶     (each at its own pace: nothing is queued for them)
//! ```
//!
//! A watcher takes its place before it looks at the job's record, so that it either
//! sees the end there, or is told of it.

mod event;
mod log;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use shepherd_job::{JobId, LOG_OBJECT, ObjectPath};
use shepherd_queue::{JobRecord, SmallObject};
use tokio::sync::watch as signal;

use crate::clock::now;
pub use event::{EventId, EventIdError, JobEvent, JobEventKind, Progress};
pub(crate) use log::Log;
pub(crate) use watch::Watch;

/// Number of a job's events that are remembered for clients that come again.
const REMEMBERED: usize = 64;

/// The jobs that somebody has something to say of, or wants to hear of.
#[derive(Debug)]
pub(crate) struct Live {
    jobs: Mutex<HashMap<JobId, Arc<LiveJob>>>,
    /// How many there are, for those who only want to know whether there is any.
    count: AtomicUsize,
    /// Tells the numbers of this life of the daemon from those of others.
    life: u64,
    next: AtomicU64,
    max_log: usize,
    dismissed: AtomicBool,
    /// Logs of cancelled jobs whose runners have not let go of them, each with the number of its
    /// attempt: what the job printed before is in the store's hands.
    split: Mutex<HashMap<(JobId, u32), Log>>,
    has_split: AtomicBool,
}

#[derive(Debug)]
struct LiveJob {
    state: Mutex<State>,
    changed: signal::Sender<()>,
}

#[derive(Debug)]
struct State {
    progress: Option<Progress>,
    log: Log,
    /// The state that was noted last.
    record: Option<Arc<JobRecord>>,
    /// Oldest first. Of progress, only what is not outdated by later progress.
    events: VecDeque<(u64, JobEvent)>,
    /// What followed this number is all here, as far as it still matters.
    floor: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// The job has finished; the last event says so.
    Finished,
    /// The shepherd has.
    Dismissed,
}

impl Live {
    /// With at most `max_log` bytes of log for each job; none at all with 0.
    pub(crate) fn new(max_log: usize) -> Self {
        Self {
            jobs: Mutex::default(),
            count: AtomicUsize::new(0),
            life: now().as_micros().unsigned_abs().max(1),
            next: AtomicU64::new(1),
            max_log,
            dismissed: AtomicBool::new(false),
            split: Mutex::default(),
            has_split: AtomicBool::new(false),
        }
    }

    /// How far a job in work is, if it has said so.
    pub(crate) fn progress(&self, job: &JobId) -> Option<Progress> {
        self.find(job)?.lock().progress.clone()
    }

    /// The job's runner says how far it is.
    pub(crate) fn report(&self, job: &JobId, progress: Progress) {
        let live = self.find_or_begin(job);
        let mut state = live.lock();
        if matches!(state.events.back(), Some((_, JobEvent { kind: JobEventKind::Progress(_), .. }))) {
            state.events.pop_back();
        }
        state.progress = Some(progress.clone());
        self.push(&mut state, None, JobEventKind::Progress(progress));
        live.changed.send_replace(());
    }

    /// The job has printed this.
    pub(crate) fn print(&self, job: &JobId, attempt: u32, text: &str) {
        if self.max_log == 0 || text.is_empty() {
            return;
        }
        if self.has_split.load(Ordering::SeqCst)
            && let Some(log) = self.lock_split().get_mut(&(job.clone(), attempt))
        {
            log.push(attempt, text);
            return;
        }
        let live = self.find_or_begin(job);
        live.lock().log.push(attempt, text);
        live.changed.send_replace(());
    }

    /// What this attempt prints from now on is kept apart: the job was cancelled, and its log is
    /// in the store's hands.
    pub(crate) fn split(&self, job: &JobId, attempt: u32) {
        let mut split = self.lock_split();
        split.insert((job.clone(), attempt), self.new_log());
        self.has_split.store(true, Ordering::SeqCst);
        drop(split);
        self.forget(job);
    }

    /// What a cancelled attempt has printed since, once its runner has let go of it.
    pub(crate) fn take_split(&self, job: &JobId, attempt: u32) -> Option<Log> {
        let mut split = self.lock_split();
        let log = split.remove(&(job.clone(), attempt));
        self.has_split.store(!split.is_empty(), Ordering::SeqCst);
        log
    }

    fn lock_split(&self) -> MutexGuard<'_, HashMap<(JobId, u32), Log>> {
        self.split.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The job's runner is dead, and this is the end of what its process printed for the job:
    /// what of it has not come before is added to the log.
    pub(crate) fn complete(&self, job: &JobId, attempt: u32, text: &str) {
        if self.max_log == 0 || text.is_empty() {
            return;
        }
        let live = self.find_or_begin(job);
        live.lock().log.complete(attempt, text);
        live.changed.send_replace(());
    }

    /// An empty log with the bound of all logs.
    pub(crate) const fn new_log(&self) -> Log {
        Log::new(self.max_log)
    }

    /// The log of a job that has printed something, as it is kept with the outcome.
    pub(crate) fn log_object(&self, job: &JobId) -> Option<SmallObject> {
        let log = self.log(job)?;
        Some((log_path(), log))
    }

    /// What a job has printed, if anything.
    pub(crate) fn log(&self, job: &JobId) -> Option<Bytes> {
        let live = self.find(job)?;
        let state = live.lock();
        (!state.log.is_empty()).then(|| state.log.kept().into())
    }

    /// The job's state is this now, durably or by a claim.
    pub(crate) fn note(&self, record: &Arc<JobRecord>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let id = &record.spec.id;
        let end = EventId::end_of(record);
        let live = match end {
            Some(_) => self.remove(id),
            None => self.find(id),
        };
        let Some(live) = live else { return };
        let mut state = live.lock();
        state.progress = None;
        state.record = Some(Arc::clone(record));
        if end.is_some() {
            state.end = End::Finished;
        }
        self.push(&mut state, end, JobEventKind::State(Arc::clone(record)));
        live.changed.send_replace(());
    }

    /// Takes a place among those who watch a job. Look at its record after this.
    pub(crate) fn watch(self: &Arc<Self>, job: &JobId) -> Watch {
        let live = self.find_or_begin(job);
        Watch::new(Arc::clone(self), job.clone(), live)
    }

    /// Forgets what an attempt has said that nobody wants any more, unless somebody
    /// watches the job, which may run anew by now.
    fn forget(&self, job: &JobId) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut jobs = self.lock();
        if jobs.get(job).is_some_and(|live| Arc::strong_count(live) == 1) {
            jobs.remove(job);
            self.count.store(jobs.len(), Ordering::SeqCst);
        }
    }

    /// Sends everybody away: the shepherd ends.
    pub(crate) fn dismiss(&self) {
        let mut jobs = self.lock();
        self.dismissed.store(true, Ordering::Relaxed);
        for (_, live) in jobs.drain() {
            live.lock().end = End::Dismissed;
            live.changed.send_replace(());
        }
        self.count.store(0, Ordering::SeqCst);
    }

    fn push(&self, state: &mut State, id: Option<EventId>, kind: JobEventKind) {
        // Under the job's lock, so that its numbers rise.
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if state.events.len() == REMEMBERED
            && let Some((oldest, _)) = state.events.pop_front()
        {
            state.floor = oldest;
        }
        let id = id.unwrap_or(EventId::new(self.life, number));
        state.events.push_back((number, JobEvent { id, kind }));
    }

    fn find(&self, job: &JobId) -> Option<Arc<LiveJob>> {
        if self.count.load(Ordering::SeqCst) == 0 {
            return None;
        }
        self.lock().get(job).cloned()
    }

    fn find_or_begin(&self, job: &JobId) -> Arc<LiveJob> {
        let mut jobs = self.lock();
        if let Some(live) = jobs.get(job) {
            return Arc::clone(live);
        }
        let state = State {
            progress: None,
            log: self.new_log(),
            record: None,
            events: VecDeque::new(),
            floor: self.next.fetch_add(1, Ordering::Relaxed),
            end: if self.dismissed.load(Ordering::Relaxed) { End::Dismissed } else { End::NotYet },
        };
        let live = Arc::new(LiveJob { state: Mutex::new(state), changed: signal::Sender::new(()) });
        jobs.insert(job.clone(), Arc::clone(&live));
        self.count.store(jobs.len(), Ordering::SeqCst);
        live
    }

    fn remove(&self, job: &JobId) -> Option<Arc<LiveJob>> {
        let mut jobs = self.lock();
        let live = jobs.remove(job);
        self.count.store(jobs.len(), Ordering::SeqCst);
        live
    }

    /// A watcher leaves. A job of which nothing is known is forgotten with the last.
    fn leave(&self, job: &JobId, live: &Arc<LiveJob>) {
        let mut jobs = self.lock();
        let is_this = jobs.get(job).is_some_and(|other| Arc::ptr_eq(other, live));
        // The map's and the leaver's: places are only given under the lock that is held here.
        if is_this && Arc::strong_count(live) == 2 && live.lock().says_nothing() {
            jobs.remove(job);
            self.count.store(jobs.len(), Ordering::SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Arc<LiveJob>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveJob {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn says_nothing(&self) -> bool {
        self.progress.is_none() && self.log.is_empty()
    }
}

/// The key of a job's log.
pub(crate) fn log_path() -> ObjectPath {
    ObjectPath::parse(LOG_OBJECT).expect("the constant is a legal key")
}
