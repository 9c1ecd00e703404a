//! Which job leaves next: the ready queue, in memory.
//!
//! One ordered map for each group (a model and a pin), and one of the jobs that
//! wait for a time. An entry is a few words and not the record, so that a million
//! queued jobs fit in some tens of megabytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::iter::Peekable;

use shepherd_job::{History, ModelRef, SheepId, Timestamp};

use crate::{Claim, Group, Pins, Ready};

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
    /// How many had jobs when that was last looked at.
    used: usize,
}

/// Beyond twice as many groups as have jobs, so many more are kept before those without are
/// looked for.
const MAX_SPARE_GROUPS: usize = 256;

impl Groups {
    pub(super) fn insert(&mut self, id: GroupId, key: GroupKey) {
        self.keys.insert(id, key.clone());
        self.ids.insert(key, id);
    }

    pub(super) fn remove(&mut self, id: GroupId) {
        if let Some(key) = self.keys.remove(&id) {
            self.ids.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.keys.len().max(self.ids.len())
    }

    /// Whether so many groups have come that it is worth a look which of them have jobs.
    pub(super) fn want_sweep(&self) -> bool {
        self.keys.len() > 2 * self.used + MAX_SPARE_GROUPS
    }

    /// Notes which groups have jobs, and gives the others.
    pub(super) fn unused(&mut self, used: &HashSet<GroupId>) -> Vec<GroupId> {
        self.used = used.len();
        self.keys.keys().copied().filter(|id| !used.contains(id)).collect()
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

    /// The latest time that anyone told.
    pub(super) fn clock(&self) -> Timestamp {
        self.clock
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

    /// The groups that a claim may have jobs from.
    pub(super) fn open_to(&self, claim: &Claim) -> Vec<GroupId> {
        let removed: &[SheepId] = match &claim.pins {
            Pins::OwnAnd(removed) => removed,
            Pins::Own | Pins::Only => &[],
        };
        let none = (claim.pins != Pins::Only).then_some(None);
        let pins = removed.iter().chain([&claim.sheep]).map(|pin| Some(pin.clone()));
        none.into_iter().chain(pins).filter_map(|pin| self.groups.id(&(claim.model.clone(), pin))).collect()
    }

    /// The ready jobs of some groups, in the order in which they leave; `overdue` as in
    /// [`Claim`].
    pub(super) fn upcoming(
        &self,
        groups: &[GroupId],
        overdue: Option<Timestamp>,
    ) -> impl Iterator<Item = (GroupId, Place)> + '_ {
        let places = |group: &GroupId| {
            let jobs = self.ready.get(group).map(|jobs| (*group, jobs));
            jobs.into_iter().flat_map(|(g, jobs)| jobs.keys().map(move |place| (g, *place))).peekable()
        };
        let first = overdue.and_then(|before| self.longest_waiting(groups, before));
        let merged = Merged(groups.iter().map(places).collect());
        first.into_iter().chain(merged.filter(move |next| Some(*next) != first))
    }

    /// The job that waited longest of those accepted before `before`. Of each priority only
    /// the first is looked at, and only so many priorities.
    fn longest_waiting(&self, groups: &[GroupId], before: Timestamp) -> Option<(GroupId, Place)> {
        let mut longest: Option<(Timestamp, GroupId, Place)> = None;
        for (group, jobs) in groups.iter().filter_map(|group| Some((*group, self.ready.get(group)?))) {
            // From the lowest priority up.
            let mut last = jobs.last_key_value().map(|(place, _)| *place);
            for _ in 0..MOST_PRIORITIES {
                let Some(place) = last else { break };
                let first = Place { seq: 0, ..place };
                if let Some((&place, &at)) = jobs.range(first..).next()
                    && at < before
                    && longest.is_none_or(|(longest, _, other)| (at, place.seq) < (longest, other.seq))
                {
                    longest = Some((at, group, place));
                }
                last = jobs.range(..first).next_back().map(|(place, _)| *place);
            }
        }
        longest.map(|(_, group, place)| (group, place))
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

/// How many priorities are searched for a job that waited too long.
const MOST_PRIORITIES: usize = 64;

/// A few ordered rows as one.
struct Merged<I: Iterator>(Vec<Peekable<I>>);

impl<I: Iterator<Item = (GroupId, Place)>> Iterator for Merged<I> {
    type Item = (GroupId, Place);

    fn next(&mut self) -> Option<Self::Item> {
        let first = |row: &mut Peekable<I>| row.peek().map(|(_, place)| *place);
        let rows = self.0.iter_mut().enumerate();
        let (_, index) = rows.filter_map(|(index, row)| Some((first(row)?, index))).min()?;
        self.0[index].next()
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
        index.upcoming(&[1, 2], None).map(|(_, place)| place.seq).collect()
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
