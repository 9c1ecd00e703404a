//! What the process knows of the store without asking the disk: the ready queue,
//! the cached records, the jobs being processed, and which are pending.
//!
//! Everything here is applied *after* the disk has it, with one exception: a claim
//! happens here and is written later, because losing it loses nothing. So this is
//! the truth about which jobs are being processed, and the disk is the truth about
//! everything else.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use shepherd_job::{JobState, Phase, Timestamp};

use super::cache::{Cache, Entry};
use super::effect::Effect;
use super::index::{GroupId, Place, ReadyIndex, Waiting};
use super::pending::PendingSet;
use crate::feed::FeedSender;
use crate::rules::{self, Standing};
use crate::{Claim, Claimed, Counts, Held, JobRecord, Lease, QueueError, Transition};

/// How many records are read together when a claim finds one that is not cached.
const READ_AHEAD: usize = 256;

/// Finished jobs by outcome: done, failed, cancelled.
pub(super) type Tally = [u64; 3];

/// Where a phase is counted, if it is a finished one.
pub(super) const fn outcome(phase: Phase) -> Option<u8> {
    match phase {
        Phase::Queued | Phase::Processing => None,
        Phase::Done => Some(0),
        Phase::Failed => Some(1),
        Phase::Cancelled => Some(2),
    }
}

/// Notices changes of jobs whose records are being read from the disk.
#[derive(Debug, Default)]
struct Loads {
    open: usize,
    stamp: u64,
    changed: HashMap<u64, u64>,
}

/// Records read from the disk for a claim.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    stamp: u64,
    pub(super) asked: Vec<u64>,
    pub(super) entries: HashMap<u64, Entry>,
}

/// Part of what a node learns when it renews its lease.
#[derive(Debug, Default)]
pub(super) struct Renewing {
    /// Attempts that the node did not name.
    pub(super) unknown: Vec<Held>,
    /// Attempts that it named and that are not current.
    pub(super) over: Vec<Held>,
}

/// What became of a claim.
#[derive(Debug)]
pub(super) enum Taken {
    Jobs(Vec<Claimed>),
    /// The lease is over.
    Fenced,
    /// The lease is about to be over.
    Joining,
    /// These must be read from the disk first.
    Missing(Loaded),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct MemoryIndex {
    /// What jobs are claimed under.
    lease: Option<Lease>,
    /// Whether a node is joining: nobody claims meanwhile.
    joining: bool,
    /// The last job that was accepted before this opening.
    old_seq: u64,
    pub(super) index: ReadyIndex,
    pub(super) cache: Cache,
    pub(super) pending: PendingSet,
    pub(super) feed: FeedSender,
    /// The last job that was accepted.
    last_seq: u64,
    tally: Tally,
    loads: Loads,
    unwritten: VecDeque<(Instant, u64)>,
}

impl MemoryIndex {
    /// What the disk says at an opening; `old_seq` is the last job it has.
    pub(super) fn new(
        old_seq: u64,
        index: ReadyIndex,
        cache: Cache,
        pending: PendingSet,
        tally: Tally,
    ) -> Self {
        Self { old_seq, last_seq: old_seq, index, cache, pending, tally, ..Self::default() }
    }

    /// The last job that was accepted. A reader that begins now sees it and all before it.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// Stops claims for a node that joins, and gives the jobs that are being processed.
    pub(super) fn begin_join(&mut self, at: Timestamp) -> Vec<Arc<JobRecord>> {
        self.index.advance(at);
        self.joining = true;
        let mut held: Vec<_> = self.cache.processing().map(|entry| Arc::clone(&entry.record)).collect();
        held.sort_unstable_by_key(|record| record.seq);
        held
    }

    /// Lets claims go on as before.
    pub(super) fn end_join(&mut self) {
        self.joining = false;
    }

    /// Renews a lease, which has no end here. Jobs of attempts that are not being processed are
    /// left to the caller.
    pub(super) fn renew(
        &mut self,
        lease: &Lease,
        held: &[Held],
        at: Timestamp,
    ) -> Result<Renewing, QueueError> {
        if self.lease.as_ref() != Some(lease) {
            return Err(QueueError::Fenced);
        }
        self.index.advance(at);
        let known: HashSet<&Held> = held.iter().collect();
        let mut renewing = Renewing::default();
        for entry in self.cache.processing() {
            if let JobState::Processing { attempt, .. } = entry.record.state {
                let current = Held { job: entry.record.spec.id.clone(), attempt };
                if !known.contains(&current) {
                    renewing.unknown.push(current);
                }
            }
        }
        for held in held {
            let record = self.cache.find(&held.job).map(|entry| &*entry.record);
            if rules::standing(held, record) != Standing::Current {
                renewing.over.push(held.clone());
            }
        }
        Ok(renewing)
    }

    /// Hands out jobs. Those that `loaded` brings need not be cached.
    pub(super) fn claim(&mut self, lease: &Lease, claim: &Claim, loaded: &mut Loaded) -> Taken {
        if self.lease.as_ref() != Some(lease) {
            return Taken::Fenced;
        }
        if self.joining {
            return Taken::Joining;
        }
        self.index.advance(claim.at);
        let groups = self.index.open_to(claim);
        loop {
            let next: Vec<(GroupId, Place)> =
                self.index.upcoming(&groups, claim.overdue).take(claim.limit).collect();
            let missing = next.iter().filter(|(_, place)| !self.has(place.seq, loaded));
            let missing: Vec<(GroupId, Place)> = missing.copied().collect();
            if missing.is_empty() {
                let jobs = next
                    .into_iter()
                    .filter_map(|(group, place)| self.take(lease, claim, group, place, loaded));
                let jobs: Vec<Claimed> = jobs.collect();
                if self.feed.is_heard() {
                    let claimed =
                        |c: &Claimed| Transition { before: Some(Phase::Queued), job: Arc::clone(&c.job) };
                    self.feed.tell(&jobs.iter().map(claimed).collect::<Vec<_>>());
                }
                self.keep(&groups, loaded);
                return Taken::Jobs(jobs);
            }
            let mut lost = false;
            for (group, place) in missing {
                if loaded.asked.contains(&place.seq) && self.is_fresh(place.seq, loaded.stamp) {
                    // Without this the group's other jobs would wait behind it for ever.
                    tracing::error!(
                        seq = place.seq,
                        "a queued job has no readable record and is passed over"
                    );
                    self.index.remove(group, place, None);
                    lost = true;
                }
            }
            if !lost {
                break;
            }
        }
        self.keep(&groups, loaded);
        let ahead = self.index.upcoming(&groups, claim.overdue).take(claim.limit.max(READ_AHEAD));
        let asked = ahead.map(|(_, place)| place.seq).filter(|seq| !self.has(*seq, loaded)).collect();
        self.loads.open += 1;
        Taken::Missing(Loaded { stamp: self.loads.stamp, asked, entries: HashMap::new() })
    }

    /// Must follow every [`Taken::Missing`], when its records were used or given up.
    pub(super) fn end_load(&mut self) {
        self.loads.open -= 1;
        if self.loads.open == 0 {
            self.loads.changed.clear();
        }
    }

    fn is_fresh(&self, seq: u64, stamp: u64) -> bool {
        self.loads.changed.get(&seq).is_none_or(|changed| *changed <= stamp)
    }

    fn has(&self, seq: u64, loaded: &Loaded) -> bool {
        self.cache.get(seq).is_some()
            || (loaded.entries.contains_key(&seq) && self.is_fresh(seq, loaded.stamp))
    }

    fn take(
        &mut self,
        lease: &Lease,
        claim: &Claim,
        group: GroupId,
        place: Place,
        loaded: &mut Loaded,
    ) -> Option<Claimed> {
        let entry = self.cache.remove(place.seq).or_else(|| loaded.entries.remove(&place.seq))?;
        let Waiting { history, .. } = self.index.remove(group, place, None)?;
        let (attempt, state) = rules::claimed(history, lease.epoch, claim.sheep.clone(), claim.at);
        let old = &entry.record;
        let record = Arc::new(JobRecord {
            seq: old.seq,
            spec: old.spec.clone(),
            submitted_at: old.submitted_at,
            state,
        });
        let objects = entry.objects.clone();
        self.cache.insert(Entry { record: Arc::clone(&record), objects: entry.objects });
        self.unwritten.push_back((Instant::now(), place.seq));
        let first = attempt.number == 1 && place.seq > self.old_seq;
        Some(Claimed { job: record, attempt, first, objects })
    }

    /// Caches what was read ahead and is still wanted.
    fn keep(&mut self, groups: &[GroupId], loaded: &mut Loaded) {
        let stamp = loaded.stamp;
        for (seq, entry) in loaded.entries.drain() {
            let place = Place::new(entry.record.spec.priority, seq);
            let waits = groups.iter().any(|group| self.index.is_ready(*group, place));
            let fresh = self.is_fresh(seq, stamp);
            if waits && fresh && entry.record.state.phase() == Phase::Queued && self.cache.get(seq).is_none()
            {
                self.cache.insert(entry);
            }
        }
    }

    /// Takes a queued job out of the ready queue while its change is being written,
    /// so that nobody claims it meanwhile. `None`: somebody has claimed it.
    pub(super) fn reserve(&mut self, record: &JobRecord) -> Option<Waiting> {
        let JobState::Queued { not_before, .. } = record.state else { return None };
        let group = self.group_of(record)?;
        self.index.remove(group, Place::new(record.spec.priority, record.seq), not_before)
    }

    fn group_of(&self, record: &JobRecord) -> Option<GroupId> {
        self.index.groups.id(&(record.spec.model.clone(), record.spec.sheep.clone()))
    }

    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Accepted { record, group, objects, replaces, since } => {
                if let Some(old) = replaces {
                    self.forget(&old);
                }
                self.last_seq = record.seq;
                self.wait(&record, group);
                self.pending.insert(record.seq, since);
                if let Some(objects) = objects {
                    self.cache.insert(Entry { record, objects });
                }
            }
            Effect::Changed { before, after, objects, since } => {
                let seq = after.seq;
                self.note(seq);
                self.reserve(&before);
                self.pending.insert(seq, since);
                if after.state.is_finished() {
                    self.pending.note_finished(seq);
                }
                self.count(&after.state, 1);
                if after.state.phase() == Phase::Queued
                    && let Some(group) = self.group_of(&after)
                {
                    self.wait(&after, group);
                }
                if let Some(mut entry) = self.cache.remove(seq) {
                    entry.record = after;
                    for object in objects {
                        rules::put_object(&mut entry.objects, object);
                    }
                    self.cache.insert(entry);
                }
            }
            Effect::Pruned(record) => self.forget(&record),
            Effect::Emptied(group) => self.index.groups.remove(group),
            Effect::Joined(lease) => {
                self.lease = Some(lease);
                self.joining = false;
            }
            Effect::Written { seq, objects, settled } => {
                self.note(seq);
                if settled {
                    self.pending.remove(seq);
                }
                if !objects.is_empty() {
                    self.cache.edit(seq, |kept| rules::drop_objects(kept, &objects));
                }
            }
        }
    }

    fn forget(&mut self, old: &JobRecord) {
        self.note(old.seq);
        self.count(&old.state, -1);
        self.pending.remove(old.seq);
        self.cache.remove(old.seq);
    }

    fn count(&mut self, state: &JobState, by: i64) {
        if let Some(at) = outcome(state.phase()) {
            let count = &mut self.tally[usize::from(at)];
            *count = count.saturating_add_signed(by);
        }
    }

    fn note(&mut self, seq: u64) {
        if self.loads.open > 0 {
            self.loads.stamp += 1;
            self.loads.changed.insert(seq, self.loads.stamp);
        }
    }

    fn wait(&mut self, record: &JobRecord, group: GroupId) {
        if let JobState::Queued { not_before, history } = record.state {
            let place = Place::new(record.spec.priority, record.seq);
            self.index.insert(Waiting {
                group,
                place,
                submitted_at: record.submitted_at,
                not_before,
                history,
            });
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let [done, failed, cancelled] = self.tally;
        Counts {
            queued: self.index.queued() as u64,
            processing: self.cache.processing().len() as u64,
            done,
            failed,
            cancelled,
        }
    }

    /// When the oldest claim that is not written was made, or may be tried again.
    pub(super) fn oldest_unwritten(&self) -> Option<Instant> {
        self.unwritten.front().map(|(at, _)| *at)
    }

    /// Claims made up to `until` that are not written and whose jobs are still being
    /// processed. They count as written from now on.
    pub(super) fn take_unwritten(&mut self, until: Option<Instant>) -> Vec<Arc<JobRecord>> {
        let mut out = Vec::new();
        while let Some(&(at, seq)) = self.unwritten.front() {
            if until.is_some_and(|until| at > until) {
                break;
            }
            self.unwritten.pop_front();
            if self.cache.is_processing(seq)
                && let Some(entry) = self.cache.get(seq)
            {
                out.push(Arc::clone(&entry.record));
            }
        }
        out
    }

    /// Takes claims back that could not be written; they are not tried again before
    /// `at`, so that a full disk is not asked all the time.
    pub(super) fn put_unwritten(&mut self, claims: &[Arc<JobRecord>], at: Instant) {
        for record in claims.iter().rev() {
            self.unwritten.push_front((at, record.seq));
        }
    }
}
