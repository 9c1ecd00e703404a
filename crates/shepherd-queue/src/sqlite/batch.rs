//! One transaction: the changes of all callers that waited, and what to do in
//! memory once it is on the disk.
//!
//! A call sees what earlier calls of its batch did, through `touched`. Nothing in
//! memory changes before the commit, but that queued jobs being cancelled are taken
//! out of the ready queue, so that nobody claims them meanwhile; they are put back
//! if the commit fails.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use shepherd_job::{Event, GiveBack, JobId, JobState, Phase, Timestamp};

use super::effect::Effect;
use super::fault::Fault;
use super::index::{GroupId, GroupKey, Waiting};
use super::memory_index::{MemoryIndex, outcome};
use super::pending::Since;
use super::rows::{self, Decoder};
use super::statements::Statements;
use crate::{
    Change, ChangeRefused, Changed, Existing, JobRecord, Join, Lease, NewJob, Outcome, Pending, SmallObject,
    Submitted, rules,
};

/// How long claims that could not be written wait for the next try.
const CLAIM_RETRY: Duration = Duration::from_secs(1);

/// The next free numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    pub(super) seq: u64,
    pub(super) position: u64,
    pub(super) group: GroupId,
    pub(super) epoch: u64,
}

/// A transaction in progress.
pub(super) struct Batch<'a, 'c> {
    conn: &'c Connection,
    statements: &'a mut Statements<'c>,
    decoder: &'a mut Decoder,
    memory: &'a Mutex<MemoryIndex>,
    next: Next,
    touched: HashMap<JobId, Arc<JobRecord>>,
    settled: HashSet<u64>,
    /// Jobs of which objects were deleted.
    deleted: HashSet<u64>,
    groups: Vec<(GroupId, GroupKey)>,
    tally: [i64; 3],
    /// By how many bytes there are more objects.
    bytes: i64,
    effects: Vec<Effect>,
    reserved: Vec<Waiting>,
    claims: Vec<Arc<JobRecord>>,
    /// Whether a node joins.
    joins: bool,
    news: News,
}

/// Whether a batch made jobs ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Some may be.
    Ready,
    /// None.
    Nothing,
}

pub(super) fn lock(memory: &Mutex<MemoryIndex>) -> MutexGuard<'_, MemoryIndex> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a, 'c> Batch<'a, 'c> {
    pub(super) fn new(
        conn: &'c Connection,
        statements: &'a mut Statements<'c>,
        decoder: &'a mut Decoder,
        memory: &'a Mutex<MemoryIndex>,
        next: Next,
    ) -> Self {
        Self {
            conn,
            statements,
            decoder,
            memory,
            next,
            touched: HashMap::new(),
            settled: HashSet::new(),
            deleted: HashSet::new(),
            groups: Vec::new(),
            tally: [0; 3],
            bytes: 0,
            effects: Vec::new(),
            reserved: Vec::new(),
            claims: Vec::new(),
            joins: false,
            news: News::Nothing,
        }
    }

    pub(super) fn begin(&mut self) -> Result<(), Fault> {
        Ok(self.statements.begin()?)
    }

    /// Takes a node in. Every attempt in flight is of an earlier life, of whichever name: the lock
    /// on the directory says that no other process lives.
    pub(super) fn join(&mut self, join: &Join) -> Result<Lease, Fault> {
        self.joins = true;
        let held = lock(self.memory).begin_join(join.at);
        for record in held {
            let before = self.touched.get(&record.spec.id).map_or(record, Arc::clone);
            let JobState::Processing { attempt, .. } = before.state else { continue };
            let event = Event::GiveBack { attempt, cause: GiveBack::Blameless, not_before: None };
            let state = rules::changed(&before.state, event);
            let state = state.map_err(|e| Fault::Damaged(format!("job {}: {e}", before.seq)))?;
            // Its status file may say that it is being processed.
            self.write_change(before, state, &[], join.at)?;
        }
        let lease = Lease { node: join.node.clone(), epoch: self.next.epoch };
        self.next.epoch += 1;
        self.statements.set_epoch(lease.epoch)?;
        self.effects.push(Effect::Joined(lease.clone()));
        Ok(lease)
    }

    pub(super) fn submit(&mut self, jobs: &[NewJob]) -> Result<Vec<Submitted>, Fault> {
        jobs.iter().map(|job| self.submit_one(job)).collect()
    }

    pub(super) fn change(&mut self, changes: &[Change]) -> Result<Vec<Changed>, Fault> {
        changes.iter().map(|change| self.change_one(change)).collect()
    }

    pub(super) fn delivered(&mut self, jobs: &[Pending]) -> Result<(), Fault> {
        jobs.iter().try_for_each(|given| self.delivered_one(given))
    }

    /// Removes records of finished jobs, and gives their ids.
    pub(super) fn prune(&mut self, outcome: Outcome, seqs: &[u64]) -> Result<Vec<JobId>, Fault> {
        let mut out = Vec::new();
        for &seq in seqs {
            let cached = lock(self.memory).cache.get(seq).map(|entry| Arc::clone(&entry.record));
            let record = match cached {
                Some(record) => record,
                None => match self.decoder.by_seq(self.conn, seq)? {
                    Some(record) => Arc::new(record),
                    None => continue,
                },
            };
            let id = &record.spec.id;
            let is_pending = self.touched.contains_key(id) || lock(self.memory).pending.contains(seq);
            if is_pending
                || Outcome::of(record.state.phase()) != Some(outcome)
                || !self.statements.delete_finished(seq)?
            {
                continue;
            }
            out.push(id.clone());
            self.tally(&record.state, -1);
            self.effects.push(Effect::Pruned(record));
        }
        Ok(out)
    }

    /// Removes groups that had no job up to `upto`, and have none now.
    pub(super) fn drop_groups(&mut self, groups: &[GroupId], upto: u64) -> Result<(), Fault> {
        let used = rows::groups_since(self.conn, upto)?;
        for id in groups.iter().filter(|id| !used.contains(id)) {
            self.statements.delete_group(*id)?;
            self.effects.push(Effect::Emptied(*id));
        }
        Ok(())
    }

    /// Writes claims that were made in memory; `until` leaves out newer ones.
    pub(super) fn write_claims(&mut self, until: Option<Instant>) -> Result<(), Fault> {
        self.claims = lock(self.memory).take_unwritten(until);
        for record in &self.claims {
            // A job that this batch changed is not held by that claim any more.
            if !self.touched.contains_key(&record.spec.id) {
                self.statements.write_state(record)?;
            }
        }
        Ok(())
    }

    /// Makes the batch durable, then true in memory.
    pub(super) fn commit(&mut self) -> Result<(Next, News), Fault> {
        for (at, by) in self.tally.into_iter().enumerate() {
            if by != 0 {
                self.statements.count(at, by)?;
            }
        }
        self.statements.commit()?;
        let mut memory = lock(self.memory);
        for (id, key) in self.groups.drain(..) {
            memory.index.groups.insert(id, key);
        }
        memory.pending.add_bytes(self.bytes);
        let mut transitions = Vec::new();
        let is_heard = memory.feed.is_heard();
        for effect in self.effects.drain(..) {
            if is_heard {
                transitions.extend(effect.transition());
            }
            memory.apply(effect);
        }
        memory.feed.tell(&transitions);
        Ok((self.next, self.news))
    }

    /// Undoes everything; says whether the connection can be used further.
    pub(super) fn abandon(self) -> rusqlite::Result<()> {
        {
            let mut memory = lock(self.memory);
            for job in self.reserved {
                memory.index.insert(job);
            }
            if self.joins {
                memory.end_join();
            }
            memory.put_unwritten(&self.claims, Instant::now() + CLAIM_RETRY);
        }
        // Some failures have rolled back by themselves.
        if self.conn.is_autocommit() { Ok(()) } else { self.statements.rollback() }
    }

    fn find(&mut self, id: &JobId) -> Result<Option<Arc<JobRecord>>, Fault> {
        if let Some(record) = self.touched.get(id) {
            return Ok(Some(Arc::clone(record)));
        }
        if let Some(entry) = lock(self.memory).cache.find(id) {
            return Ok(Some(Arc::clone(&entry.record)));
        }
        Ok(self.decoder.by_id(self.conn, id)?.map(Arc::new))
    }

    fn known_group(&self, key: &GroupKey) -> Option<GroupId> {
        let new = || self.groups.iter().find(|(_, new)| new == key).map(|(id, _)| *id);
        lock(self.memory).index.groups.id(key).or_else(new)
    }

    fn new_group(&mut self, key: GroupKey) -> Result<GroupId, Fault> {
        let id = self.next.group;
        self.next.group += 1;
        self.statements.insert_group(id, &key)?;
        self.groups.push((id, key));
        Ok(id)
    }

    fn since(&mut self, at: Timestamp) -> Since {
        let position = self.next.position;
        self.next.position += 1;
        Since { position, at }
    }

    fn submit_one(&mut self, job: &NewJob) -> Result<Submitted, Fault> {
        let NewJob { spec, submitted_at, objects, existing } = job;
        let key = (spec.model.clone(), spec.sheep.clone());
        let group = match self.known_group(&key) {
            Some(group) => group,
            None => {
                // A submit that is refused must leave no group behind.
                if let Some(old) = self.find(&spec.id)?
                    && let Err(refused) = rerun(&old, *existing)
                {
                    return Ok(refused);
                }
                self.new_group(key)?
            }
        };
        let seq = self.next.seq;
        if self.statements.insert_job(seq, &spec.id, group, spec.priority, *submitted_at)? {
            let objects = rules::sorted(objects);
            return self.accept(job, JobState::new(), group, None, Some(objects));
        }
        let Some(old) = self.find(&spec.id)? else {
            return Err(Fault::Damaged(format!("job {} is there and cannot be found", spec.id)));
        };
        let state = match rerun(&old, *existing) {
            Ok(state) => state,
            Err(refused) => return Ok(refused),
        };
        // A job that is not pending has no objects left.
        let is_pending = self.touched.contains_key(&spec.id) || lock(self.memory).pending.contains(old.seq);
        self.bytes -= self.statements.replace_run(old.seq, seq, is_pending)?;
        self.statements.insert_job(seq, &spec.id, group, spec.priority, *submitted_at)?;
        let objects = (!is_pending).then(|| rules::sorted(objects));
        self.tally(&old.state, -1);
        self.accept(job, state, group, Some(old), objects)
    }

    /// The rest of an accepted submit. `objects` are all of the job's, if known.
    fn accept(
        &mut self,
        job: &NewJob,
        state: JobState,
        group: GroupId,
        replaces: Option<Arc<JobRecord>>,
        objects: Option<Vec<SmallObject>>,
    ) -> Result<Submitted, Fault> {
        let seq = self.next.seq;
        self.next.seq += 1;
        let since = self.since(job.submitted_at);
        let record =
            Arc::new(JobRecord { seq, spec: job.spec.clone(), submitted_at: job.submitted_at, state });
        self.statements.insert_live(&record, group)?;
        self.bytes += self.statements.put_objects(seq, &job.objects)?;
        self.statements.insert_pending(seq, since)?;
        self.touched.insert(record.spec.id.clone(), Arc::clone(&record));
        self.effects.push(Effect::Accepted { record: Arc::clone(&record), group, objects, replaces, since });
        self.news = News::Ready;
        Ok(Submitted::Accepted(record))
    }

    fn change_one(&mut self, change: &Change) -> Result<Changed, Fault> {
        let Some(mut before) = self.find(&change.job)? else { return Ok(Err(ChangeRefused::Unknown)) };
        let mut state = match rules::changed(&before.state, change.event.clone()) {
            Ok(state) => state,
            Err(rejected) => return Ok(Err(rejected.into())),
        };
        // A queued job that this batch touched is not in the ready queue yet, or no more.
        if before.state.phase() == Phase::Queued && !self.touched.contains_key(&change.job) {
            let reserved = lock(self.memory).reserve(&before);
            match reserved {
                Some(job) => self.reserved.push(job),
                None => {
                    // It was claimed since it was looked up; only this thread ends claims.
                    let Some(current) = self.find(&change.job)? else {
                        return Ok(Err(ChangeRefused::Unknown));
                    };
                    before = current;
                    state = match rules::changed(&before.state, change.event.clone()) {
                        Ok(state) => state,
                        Err(rejected) => return Ok(Err(rejected.into())),
                    };
                }
            }
        }
        let at = rules::time_of(&change.event).unwrap_or_else(|| lock(self.memory).index.clock());
        Ok(Ok(self.write_change(before, state, &change.objects, at)?))
    }

    /// Writes a job's new state, and objects that come with it.
    fn write_change(
        &mut self,
        before: Arc<JobRecord>,
        state: JobState,
        objects: &[SmallObject],
        at: Timestamp,
    ) -> Result<Arc<JobRecord>, Fault> {
        let seq = before.seq;
        let record = JobRecord { seq, spec: before.spec.clone(), submitted_at: before.submitted_at, state };
        let after = Arc::new(record);
        let since = self.since(at);
        self.statements.write_state(&after)?;
        self.bytes += self.statements.put_objects(seq, objects)?;
        // Most jobs are pending already: their submit was moments ago.
        if self.settled.contains(&seq) || !lock(self.memory).pending.contains(seq) {
            self.statements.insert_pending(seq, since)?;
        }
        self.tally(&after.state, 1);
        self.touched.insert(after.spec.id.clone(), Arc::clone(&after));
        if after.state.phase() == Phase::Queued {
            self.news = News::Ready;
        }
        let objects = objects.to_vec();
        self.effects.push(Effect::Changed { before, after: Arc::clone(&after), objects, since });
        Ok(after)
    }

    fn delivered_one(&mut self, given: &Pending) -> Result<(), Fault> {
        let id = &given.job.spec.id;
        let touched = self.touched.contains_key(id);
        let Some(current) = self.find(id)? else { return Ok(()) };
        let seq = current.seq;
        let rerun = seq != given.job.seq;
        let ours = |object: &&SmallObject| !(rerun && rules::is_output(&object.0));
        let objects: Vec<SmallObject> = given.objects.iter().filter(ours).cloned().collect();
        if !objects.is_empty() {
            // What is cached is all that there is, unless this batch has changed it.
            let all = !touched && self.deleted.insert(seq) && {
                let memory = lock(self.memory);
                memory.cache.get(seq).is_some_and(|entry| rules::same_objects(&entry.objects, &objects))
            };
            self.bytes -= if all {
                self.statements.delete_all(seq, &objects)?
            } else {
                self.statements.delete_these(seq, &objects)?
            };
        }
        let settled = rules::settles(&given.job, &current);
        if settled {
            self.statements.delete_pending(seq)?;
            self.settled.insert(seq);
        }
        self.effects.push(Effect::Written { seq, objects, settled });
        Ok(())
    }

    fn tally(&mut self, state: &JobState, by: i64) {
        if let Some(at) = outcome(state.phase()) {
            self.tally[usize::from(at)] += by;
        }
    }
}

/// The state of a job that runs again, or the answer to a submit that is refused.
fn rerun(old: &Arc<JobRecord>, existing: Existing) -> Result<JobState, Submitted> {
    match (existing, old.state.apply(Event::Rerun)) {
        (Existing::Refuse, _) => Err(Submitted::Conflict),
        (Existing::Rerun, Err(_)) => Err(Submitted::Live(Arc::clone(old))),
        (Existing::Rerun, Ok(state)) => Ok(state),
    }
}
