//! Which job leaves next: the ready queue, in memory.
//!
//! One ordered map for each group (a model and a pin), and one of the jobs that
//! wait for a time. An entry is a few words and not the record, so that a million
//! queued jobs fit in some tens of megabytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::iter::Peekable;

use shepherd_job::{History, ModelRef, SheepId, Timestamp};

use crate::{Group, Ready};

/// A group's number in the store.
pub(super) type GroupId = u32;
/// What the jobs of a group have in common.
pub(super) type GroupKey = (ModelRef, Option<SheepId>);

/// The order in which jobs leave: higher priority first, then the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    priority: Reverse<i32>,
    pub(super) seq: u64,
}

impl Place {
    pub(super) fn new(priority: i32, seq: u64) -> Self {
        Self { priority: Reverse(priority), seq }
    }
}

/// A queued job as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) group: GroupId,
    pub(super) place: Place,
    pub(super) submitted_at: Timestamp,
    pub(super) not_before: Option<Timestamp>,
    pub(super) history: History,
}

/// The groups' numbers.
#[derive(Debug, Default)]
pub(super) struct Groups {
    keys: HashMap<GroupId, GroupKey>,
    ids: HashMap<GroupKey, GroupId>,
}

impl Groups {
    pub(super) fn insert(&mut self, id: GroupId, key: GroupKey) {
        self.keys.insert(id, key.clone());
        self.ids.insert(key, id);
    }

    pub(super) fn has(&self, id: GroupId) -> bool {
        self.keys.contains_key(&id)
    }

    pub(super) fn id(&self, key: &GroupKey) -> Option<GroupId> {
        self.ids.get(key).copied()
    }
}

/// The ready queue.
#[derive(Debug, Default)]
pub(super) struct ReadyIndex {
    pub(super) groups: Groups,
    /// Only groups that have a job.
    ready: HashMap<GroupId, BTreeMap<Place, Timestamp>>,
    due: BTreeMap<(Timestamp, u64), Waiting>,
    /// What queued jobs have been through, where that is anything.
    histories: HashMap<u64, History>,
    queued: usize,
    /// The latest time that anyone told: what was ready once stays so.
    clock: Timestamp,
}

impl ReadyIndex {
    /// An index of many jobs at once, in their groups; much faster than inserting.
    pub(super) fn load(groups: Groups, jobs: HashMap<GroupId, Vec<(Place, Timestamp)>>) -> Self {
        let queued = jobs.values().map(Vec::len).sum();
        let ready = jobs.into_iter().map(|(group, jobs)| (group, BTreeMap::from_iter(jobs))).collect();
        Self { groups, ready, queued, ..Self::default() }
    }

    /// Notes the history of a job that [`load`](Self::load) was given.
    pub(super) fn set_history(&mut self, seq: u64, history: History) {
        if history != History::default() {
            self.histories.insert(seq, history);
        }
    }

    pub(super) fn insert(&mut self, job: Waiting) {
        self.queued += 1;
        self.set_history(job.place.seq, job.history);
        match job.not_before {
            Some(at) if at > self.clock => {
                self.due.insert((at, job.place.seq), job);
            }
            Some(_) | None => {
                self.ready.entry(job.group).or_default().insert(job.place, job.submitted_at);
            }
        }
    }

    /// Takes a queued job out, if it is in.
    pub(super) fn remove(
        &mut self,
        group: GroupId,
        place: Place,
        not_before: Option<Timestamp>,
    ) -> Option<Waiting> {
        let job = match not_before.and_then(|at| self.due.remove(&(at, place.seq))) {
            Some(job) => job,
            None => {
                let jobs = self.ready.get_mut(&group)?;
                let submitted_at = jobs.remove(&place)?;
                if jobs.is_empty() {
                    self.ready.remove(&group);
                }
                let history = self.histories.get(&place.seq).copied().unwrap_or_default();
                Waiting { group, place, submitted_at, not_before, history }
            }
        };
        self.histories.remove(&place.seq);
        self.queued -= 1;
        Some(job)
    }

    pub(super) fn is_ready(&self, group: GroupId, place: Place) -> bool {
        self.ready.get(&group).is_some_and(|jobs| jobs.contains_key(&place))
    }

    /// How many jobs are queued, those that wait for a time included.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Makes ready what is due.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.clock = self.clock.max(now);
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > self.clock {
                return;
            }
            let job = entry.remove();
            self.ready.entry(job.group).or_default().insert(job.place, job.submitted_at);
        }
    }

    /// The groups that a sheep may take a model's jobs from.
    pub(super) fn open_to(&self, model: &ModelRef, sheep: &SheepId) -> [Option<GroupId>; 2] {
        [self.groups.id(&(model.clone(), None)), self.groups.id(&(model.clone(), Some(sheep.clone())))]
    }

    /// The ready jobs of some groups, in the order in which they leave.
    pub(super) fn upcoming(
        &self,
        groups: [Option<GroupId>; 2],
    ) -> impl Iterator<Item = (GroupId, Place)> + '_ {
        let places = |group: Option<GroupId>| {
            let jobs = group.and_then(|g| Some((g, self.ready.get(&g)?)));
            jobs.into_iter().flat_map(|(g, jobs)| jobs.keys().map(move |place| (g, *place))).peekable()
        };
        let [a, b] = groups;
        Merged { a: places(a), b: places(b) }
    }

    pub(super) fn view(&mut self, now: Timestamp) -> Ready {
        self.advance(now);
        let mut groups: Vec<(Place, Group)> = Vec::with_capacity(self.ready.len());
        for (id, jobs) in &self.ready {
            let Some((model, sheep)) = self.groups.keys.get(id) else { continue };
            let Some((&place, &submitted_at)) = jobs.first_key_value() else { continue };
            let group = Group {
                model: model.clone(),
                sheep: sheep.clone(),
                ready: jobs.len(),
                priority: place.priority.0,
                seq: place.seq,
                submitted_at,
            };
            groups.push((place, group));
        }
        groups.sort_unstable_by_key(|(place, _)| *place);
        let next_due = self.due.first_key_value().map(|((at, _), _)| *at);
        Ready { groups: groups.into_iter().map(|(_, group)| group).collect(), next_due }
    }
}

struct Merged<A: Iterator, B: Iterator> {
    a: Peekable<A>,
    b: Peekable<B>,
}

impl<A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = (GroupId, Place)>,
    B: Iterator<Item = (GroupId, Place)>,
{
    type Item = (GroupId, Place);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.a.peek(), self.b.peek()) {
            (Some((_, a)), Some((_, b))) if b < a => self.b.next(),
            (Some(_), Some(_) | None) => self.a.next(),
            (None, Some(_) | None) => self.b.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    fn waiting(group: GroupId, priority: i32, seq: u64, not_before: Option<Timestamp>) -> Waiting {
        let place = Place::new(priority, seq);
        Waiting { group, place, submitted_at: at(0), not_before, history: History::default() }
    }

    fn order(index: &ReadyIndex) -> Vec<u64> {
        index.upcoming([Some(1), Some(2)]).map(|(_, place)| place.seq).collect()
    }

    #[test]
    fn two_groups_leave_as_one_queue() {
        let mut index = ReadyIndex::default();
        for (group, priority, seq) in [(1, 0, 1), (2, 0, 2), (1, 5, 3), (2, 5, 4), (3, 9, 5), (1, -1, 6)] {
            index.insert(waiting(group, priority, seq, None));
        }
        assert_eq!(order(&index), [3, 4, 1, 2, 6]);
        assert_eq!(index.queued(), 6);
    }

    #[test]
    fn a_job_whose_time_came_stays_ready_when_the_clock_is_set_back() {
        let mut index = ReadyIndex::default();
        index.insert(waiting(1, 0, 1, Some(at(10))));
        assert_eq!(order(&index), [0; 0]);
        assert_eq!(index.view(at(9)).next_due, Some(at(10)));
        index.advance(at(10));
        index.advance(at(3));
        assert_eq!(order(&index), [1]);
        assert!(index.remove(1, Place::new(0, 1), Some(at(10))).is_some());
        assert_eq!((order(&index).len(), index.queued()), (0, 0));
    }

    #[test]
    fn removing_what_is_not_there_changes_nothing() {
        let mut index = ReadyIndex::default();
        index.insert(waiting(1, 0, 1, None));
        assert!(index.remove(1, Place::new(1, 1), None).is_none());
        assert!(index.remove(2, Place::new(0, 1), None).is_none());
        assert_eq!(index.queued(), 1);
    }
}
