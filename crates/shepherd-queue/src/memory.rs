//! A store that lives and dies with the process, for tests.
//!
//! It keeps the contract of [`Store`](crate::Store) by the plainest means: one map of jobs, and
//! a scan for every question. Nodes may share it; their leases run out by the times that come
//! with the calls. It shares no code with the embedded store but the
//! pure rules, so that each can be checked against the other.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use shepherd_job::{Event, JobId, JobState, ModelRef, NodeId, Phase, SheepId, Timestamp};
use tokio::sync::watch;

use crate::feed::FeedSender;
use crate::rules::{self};
use crate::{
    Change, ChangeRefused, Changed, Claim, Claimed, Counts, Existing, Feed, Group, Held, JobRecord, JobStore,
    Join, Lag, Lease, ListQuery, NewJob, Outbox, Outcome, Pending, PendingLimits, Position, Prune, Ready,
    Renewed, Result, SmallObject, Submitted, Transition, Unstored,
};

mod nodes;

use nodes::Node;

/// The [store](crate::Store) that forgets. Nothing it does can fail.
#[derive(Debug)]
pub struct MemoryStore {
    store: Mutex<Store>,
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Store {
    /// The last that was given to a node.
    epoch: u64,
    nodes: HashMap<NodeId, Node>,
    last_seq: u64,
    last_position: u64,
    /// The latest time that anyone told.
    clock: Timestamp,
    feed: FeedSender,
    jobs: BTreeMap<u64, Job>,
    ids: HashMap<JobId, u64>,
}

#[derive(Debug)]
struct Job {
    record: Arc<JobRecord>,
    objects: Vec<SmallObject>,
    /// Since which change it is pending, and when that was.
    pending: Option<(Position, Timestamp)>,
}

impl Job {
    fn as_pending(&self) -> Option<Pending> {
        let (position, _) = self.pending?;
        Some(Pending { position, job: Arc::clone(&self.record), objects: self.objects.clone() })
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { store: Mutex::default(), changes: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Store {
    fn job(&self, id: &JobId) -> Option<&Job> {
        self.jobs.get(self.ids.get(id)?)
    }

    fn set_state(&mut self, seq: u64, state: JobState, at: Timestamp) -> Option<Arc<JobRecord>> {
        self.last_position += 1;
        let since = (Position(self.last_position), at);
        let job = self.jobs.get_mut(&seq)?;
        let before = job.record.state.phase();
        job.record = Arc::new(JobRecord { state, ..(*job.record).clone() });
        job.pending.get_or_insert(since);
        let transition = Transition { before: Some(before), job: Arc::clone(&job.record) };
        self.feed.tell(std::slice::from_ref(&transition));
        Some(transition.job)
    }

    fn submit(&mut self, job: NewJob) -> Submitted {
        let mut state = JobState::new();
        let mut before = None;
        let mut objects = Vec::new();
        if let Some(old) = self.job(&job.spec.id) {
            let seq = old.record.seq;
            match (job.existing, old.record.state.apply(Event::Rerun)) {
                (Existing::Refuse, _) => return Submitted::Conflict,
                (Existing::Rerun, Err(_)) => return Submitted::Live(Arc::clone(&old.record)),
                (Existing::Rerun, Ok(queued)) => state = queued,
            }
            before = Some(old.record.state.phase());
            if let Some(old) = self.jobs.remove(&seq) {
                objects = old.objects;
                objects.retain(|(path, _)| !rules::is_output(path));
            }
        }
        for object in job.objects {
            rules::put_object(&mut objects, object);
        }
        self.last_seq += 1;
        self.last_position += 1;
        let seq = self.last_seq;
        self.ids.insert(job.spec.id.clone(), seq);
        let record = Arc::new(JobRecord { seq, spec: job.spec, submitted_at: job.submitted_at, state });
        self.jobs.insert(
            seq,
            Job {
                record: Arc::clone(&record),
                objects,
                pending: Some((Position(self.last_position), job.submitted_at)),
            },
        );
        self.feed.tell(&[Transition { before, job: Arc::clone(&record) }]);
        Submitted::Accepted(record)
    }

    fn change(&mut self, change: Change) -> Changed {
        let job = self.job(&change.job).ok_or(ChangeRefused::Unknown)?;
        let seq = job.record.seq;
        let at = rules::time_of(&change.event).unwrap_or(self.clock);
        let state = rules::changed(&job.record.state, change.event)?;
        if let Some(job) = self.jobs.get_mut(&seq) {
            for object in change.objects {
                rules::put_object(&mut job.objects, object);
            }
        }
        self.set_state(seq, state, at).ok_or(ChangeRefused::Unknown)
    }

    /// Queued jobs whose time has come, best first.
    fn claimable(&self) -> Vec<&Job> {
        let mut jobs: Vec<&Job> = self
            .jobs
            .values()
            .filter(|job| match job.record.state {
                JobState::Queued { not_before, .. } => not_before.is_none_or(|t| t <= self.clock),
                JobState::Processing { .. }
                | JobState::Done { .. }
                | JobState::Failed { .. }
                | JobState::Cancelled { .. } => false,
            })
            .collect();
        jobs.sort_by_key(|job| (Reverse(job.record.spec.priority), job.record.seq));
        jobs
    }

    fn claim(&mut self, lease: &Lease, claim: &Claim) -> Vec<Claimed> {
        self.clock = self.clock.max(claim.at);
        let mut jobs = self.claimable();
        jobs.retain(|job| {
            let spec = &job.record.spec;
            spec.model == claim.model && claim.pins.allow(spec.sheep.as_ref(), &claim.sheep)
        });
        let waited = |job: &&Job| (job.record.submitted_at, job.record.seq);
        let overdue = claim.overdue.and_then(|before| {
            let overdue = jobs.iter().copied().filter(|job| job.record.submitted_at < before);
            overdue.min_by_key(waited).map(|job| job.record.seq)
        });
        // A stable sort: the others keep their order.
        jobs.sort_by_key(|job| Some(job.record.seq) != overdue);
        let seqs: Vec<u64> = jobs.into_iter().take(claim.limit).map(|job| job.record.seq).collect();
        let mut out = Vec::new();
        for seq in seqs {
            let Some(job) = self.jobs.get_mut(&seq) else { continue };
            let JobState::Queued { history, .. } = job.record.state else { continue };
            let (attempt, state) = rules::claimed(history, lease.epoch, claim.sheep.clone(), claim.at);
            job.record = Arc::new(JobRecord { state, ..(*job.record).clone() });
            self.feed.tell(&[Transition { before: Some(Phase::Queued), job: Arc::clone(&job.record) }]);
            let first = attempt.number == 1;
            out.push(Claimed { job: Arc::clone(&job.record), attempt, first, objects: job.objects.clone() });
        }
        out
    }

    fn ready(&mut self, now: Timestamp) -> Ready {
        self.clock = self.clock.max(now);
        let mut groups: Vec<Group> = Vec::new();
        let mut known: HashMap<(&ModelRef, Option<&SheepId>), usize> = HashMap::new();
        for job in self.claimable() {
            let JobRecord { seq, spec, submitted_at, .. } = &*job.record;
            if let Some(&at) = known.get(&(&spec.model, spec.sheep.as_ref())) {
                groups[at].ready += 1;
                continue;
            }
            known.insert((&spec.model, spec.sheep.as_ref()), groups.len());
            groups.push(Group {
                model: spec.model.clone(),
                sheep: spec.sheep.clone(),
                ready: 1,
                priority: spec.priority,
                seq: *seq,
                submitted_at: *submitted_at,
            });
        }
        let next_due = self
            .jobs
            .values()
            .filter_map(|job| match job.record.state {
                JobState::Queued { not_before, .. } => not_before.filter(|t| *t > self.clock),
                JobState::Processing { .. }
                | JobState::Done { .. }
                | JobState::Failed { .. }
                | JobState::Cancelled { .. } => None,
            })
            .min();
        Ready { groups, next_due }
    }

    fn delivered(&mut self, given: &Pending) {
        let Some(&seq) = self.ids.get(&given.job.spec.id) else { return };
        let Some(job) = self.jobs.get_mut(&seq) else { return };
        let rerun = job.record.seq != given.job.seq;
        let written: Vec<SmallObject> =
            given.objects.iter().filter(|(path, _)| !(rerun && rules::is_output(path))).cloned().collect();
        rules::drop_objects(&mut job.objects, &written);
        if rules::settles(&given.job, &job.record) {
            job.pending = None;
        }
    }
}

#[async_trait]
impl JobStore for MemoryStore {
    async fn join(&self, join: Join) -> Result<Lease> {
        let lease = self.lock().join(join);
        self.bump();
        Ok(lease)
    }

    async fn renew(&self, lease: &Lease, held: Vec<Held>, at: Timestamp) -> Result<Renewed> {
        let renewed = self.lock().renew(lease, held, at);
        self.bump();
        renewed
    }

    async fn submit(&self, jobs: Vec<NewJob>) -> Result<Vec<Submitted>> {
        let out = {
            let mut store = self.lock();
            jobs.into_iter().map(|job| store.submit(job)).collect()
        };
        self.bump();
        Ok(out)
    }

    async fn claim(&self, lease: &Lease, claim: Claim) -> Result<Vec<Claimed>> {
        let mut store = self.lock();
        store.check(lease)?;
        Ok(store.claim(lease, &claim))
    }

    async fn apply(&self, changes: Vec<Change>) -> Result<Vec<Changed>> {
        let out = {
            let mut store = self.lock();
            changes.into_iter().map(|change| store.change(change)).collect()
        };
        self.bump();
        Ok(out)
    }

    async fn ready(&self, now: Timestamp) -> Result<Ready> {
        Ok(self.lock().ready(now))
    }

    async fn get(&self, job: &JobId) -> Result<Option<Arc<JobRecord>>> {
        Ok(self.lock().job(job).map(|job| Arc::clone(&job.record)))
    }

    async fn list(&self, query: ListQuery) -> Result<Vec<Arc<JobRecord>>> {
        let store = self.lock();
        let before = query.before.unwrap_or(u64::MAX);
        Ok(store
            .jobs
            .range(..before)
            .rev()
            .map(|(_, job)| &job.record)
            .filter(|record| query.phases.is_empty() || query.phases.contains(&record.state.phase()))
            .take(query.limit)
            .map(Arc::clone)
            .collect())
    }

    async fn counts(&self) -> Result<Counts> {
        let store = self.lock();
        let count =
            |phase| store.jobs.values().filter(|job| job.record.state.phase() == phase).count() as u64;
        Ok(Counts {
            queued: count(Phase::Queued),
            processing: count(Phase::Processing),
            done: count(Phase::Done),
            failed: count(Phase::Failed),
            cancelled: count(Phase::Cancelled),
        })
    }

    async fn prune(&self, prune: Prune) -> Result<Vec<JobId>> {
        let mut store = self.lock();
        let of_outcome = store.jobs.values().rev().filter(|job| {
            let phase = job.record.state.phase();
            Outcome::of(phase) == Some(prune.outcome)
        });
        let older = of_outcome.skip(usize::try_from(prune.keep_newest).unwrap_or(usize::MAX)).filter(|job| {
            let finished_at = rules::finished_at(&job.record.state);
            let is_old = prune.finished_before.is_none_or(|before| finished_at.is_some_and(|at| at < before));
            is_old && job.pending.is_none()
        });
        let mut seqs: Vec<u64> = older.map(|job| job.record.seq).collect();
        seqs.reverse();
        seqs.truncate(prune.limit);
        let removed: Vec<Job> = seqs.iter().filter_map(|seq| store.jobs.remove(seq)).collect();
        let ids: Vec<JobId> = removed.iter().map(|job| job.record.spec.id.clone()).collect();
        store.ids.retain(|_, seq| !seqs.contains(seq));
        Ok(ids)
    }

    fn feed(&self) -> Feed {
        self.lock().feed.subscribe()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

#[async_trait]
impl Outbox for MemoryStore {
    async fn objects(&self, job: &JobId) -> Result<Vec<SmallObject>> {
        Ok(self.lock().job(job).map(|job| job.objects.clone()).unwrap_or_default())
    }

    async fn unstored(&self) -> Result<Vec<Unstored>> {
        let store = self.lock();
        let objects = store.jobs.values().flat_map(|job| {
            job.objects.iter().map(|(path, _)| Unstored {
                job: job.record.spec.id.clone(),
                submitted_at: job.record.submitted_at,
                path: path.clone(),
            })
        });
        Ok(objects.collect())
    }

    async fn pending(&self, after: Option<Position>, limits: PendingLimits) -> Result<Vec<Pending>> {
        let store = self.lock();
        let mut jobs: Vec<Pending> = store.jobs.values().filter_map(Job::as_pending).collect();
        jobs.retain(|job| Some(job.position) > after);
        jobs.sort_by_key(|job| job.position);
        jobs.truncate(limits.jobs);
        let mut bytes = 0_u64;
        let mut fits = |job: &Pending| {
            bytes += job.bytes();
            bytes <= limits.bytes
        };
        let fitting = jobs.iter().map_while(|job| Some(job).filter(|job| fits(job)));
        jobs.truncate(fitting.count().max(1));
        Ok(jobs)
    }

    async fn pending_of(&self, jobs: &[JobId]) -> Result<Vec<Pending>> {
        let store = self.lock();
        Ok(jobs.iter().filter_map(|id| store.job(id)?.as_pending()).collect())
    }

    async fn delivered(&self, jobs: Vec<Pending>) -> Result<()> {
        let mut store = self.lock();
        for given in &jobs {
            store.delivered(given);
        }
        Ok(())
    }

    fn lag(&self) -> Lag {
        let store = self.lock();
        let pending = || store.jobs.values().filter_map(|job| Some((job.pending?, job)));
        let bytes = store.jobs.values().flat_map(|job| &job.objects).map(|(_, data)| data.len() as u64);
        Lag {
            jobs: pending().count() as u64,
            bytes: bytes.sum(),
            since: pending().map(|(since, _)| since).min().map(|(_, at)| at),
            finished: pending().filter(|(_, job)| job.record.state.is_finished()).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{MemoryStore, contract};

    contract::suite!(contract::Node::join(MemoryStore::new()).await);

    mod fleet {
        use std::sync::Arc;

        use super::{MemoryStore, contract};

        contract::several!({
            let store = Arc::new(MemoryStore::new());
            (Arc::clone(&store), store)
        });
    }
}
