//! Which sheep should have which model. Pure: what waits, what the flock does
//! and the time go in; changes of models come out, each with its cause.
//!
//! A sheep takes jobs of its model from the queue by itself, first jobs first.
//! Here is decided only when it should have another model:
//!
//! - A sheep with nothing to do takes the first group that needs one.
//! - A group needs no further sheep while those that have its model get to its
//!   jobs sooner than another could load it.
//! - A sheep with work leaves it between jobs for jobs of a higher priority, or
//!   for jobs that waited longer than [`Limits::max_wait`]; otherwise the model
//!   that is loaded goes first. Jobs that it has claimed count like jobs in the queue.
//! - A swap is carried through: until its runner is ready it is abandoned only for
//!   jobs of a higher priority, and for none when it was made for jobs that waited too
//!   long. Every swap so ends in a job that runs.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shepherd_job::{ModelRef, SheepId, Timestamp};
use shepherd_queue::Group;

/// How long one job of an unknown model is taken to run, and a model that was
/// never loaded to load.
pub(crate) const UNKNOWN: Duration = Duration::from_secs(1);

/// What giving a job back and claiming it elsewhere may cost; jobs shorter than
/// that stay where they are.
const SHARE_COST: Duration = Duration::from_millis(20);

/// What placement sees of one sheep.
#[derive(Clone, Debug)]
pub(crate) struct SheepFacts {
    /// Which sheep.
    pub(crate) id: SheepId,
    /// Whether it can run anything now (not while it backs off from a problem of
    /// its own, and not once the daemon drains).
    pub(crate) available: bool,
    /// Models that it leaves alone at present: it does not have them, or their runners die.
    pub(crate) leaves_alone: HashSet<ModelRef>,
    /// Models of which its last start of a runner failed.
    pub(crate) failing: HashSet<ModelRef>,
    /// The model it has or is getting, and since when that is so.
    pub(crate) model: Option<(ModelRef, Timestamp)>,
    /// Why it has that model, as long as no runner of it is ready.
    pub(crate) pending: Option<Cause>,
    /// Jobs it holds.
    pub(crate) in_hand: usize,
    /// The highest priority of those that are of its model and that no runner has begun.
    pub(crate) urgency: Option<i32>,
    /// Of these, jobs that its runner has not begun, that can be had back, and that any
    /// sheep may take.
    pub(crate) spare: usize,
    /// How long one of its jobs takes: the recent mean, or the age of the running
    /// one when that is more.
    pub(crate) run_time: Duration,
    /// How long its runner has been starting, where it does.
    pub(crate) loading: Option<Duration>,
    /// How long getting a model takes.
    pub(crate) swap_time: Duration,
}

/// Bounds that an operator may set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How long jobs may wait because sheep keep to the models they have.
    pub(crate) max_wait: Duration,
}

/// Why a sheep should get another model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cause {
    /// It has nothing to do, or jobs of that model are more urgent than its own.
    #[default]
    First,
    /// Jobs of that model waited too long.
    Starved,
}

/// A sheep that should get another model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Swap {
    /// Which sheep.
    pub(crate) sheep: SheepId,
    /// To which model.
    pub(crate) model: ModelRef,
    /// Why.
    pub(crate) cause: Cause,
}

/// What waits and what the flock does, at one moment: what all decisions are made from.
pub(crate) struct Board<'a> {
    /// First jobs first.
    groups: &'a [Group],
    flock: &'a [SheepFacts],
    now: Timestamp,
    limits: Limits,
    /// For each group, its model, by number.
    model_of_group: Vec<usize>,
    /// For each model, its groups.
    groups_of_model: Vec<Vec<usize>>,
    /// For each group, the sheep that its jobs are pinned to; none where that is no sheep of the flock.
    pin_of_group: Vec<Pin>,
    /// For each sheep, its model, where a group is of it.
    model_of_sheep: Vec<Option<usize>>,
    /// Whether some sheep leaves some model alone, so that it must be looked at.
    has_exceptions: bool,
}

/// Which sheep may take the jobs of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    Any,
    Only(usize),
    Nobody,
}

impl<'a> Board<'a> {
    pub(crate) fn new(groups: &'a [Group], flock: &'a [SheepFacts], now: Timestamp, limits: Limits) -> Self {
        let mut models = HashMap::with_capacity(groups.len());
        let mut groups_of_model: Vec<Vec<usize>> = Vec::with_capacity(groups.len());
        let mut model_of_group = Vec::with_capacity(groups.len());
        let mut pin_of_group = Vec::with_capacity(groups.len());
        for (index, group) in groups.iter().enumerate() {
            let model = *models.entry(&group.model).or_insert_with(|| {
                groups_of_model.push(Vec::new());
                groups_of_model.len() - 1
            });
            model_of_group.push(model);
            groups_of_model[model].push(index);
            let find = |pin: &SheepId| flock.iter().position(|sheep| sheep.id == *pin);
            pin_of_group.push(match &group.sheep {
                None => Pin::Any,
                Some(pin) => find(pin).map_or(Pin::Nobody, Pin::Only),
            });
        }
        let model_of = |sheep: &SheepFacts| models.get(&sheep.model.as_ref()?.0).copied();
        let model_of_sheep = flock.iter().map(model_of).collect();
        let is_exceptional = |sheep: &SheepFacts| !sheep.leaves_alone.is_empty() || !sheep.failing.is_empty();
        let has_exceptions = flock.iter().any(is_exceptional);
        Self {
            groups,
            flock,
            now,
            limits,
            model_of_group,
            groups_of_model,
            pin_of_group,
            model_of_sheep,
            has_exceptions,
        }
    }

    /// For each sheep, the first group that it can work on with the model it has.
    pub(crate) fn own_work(&self) -> Vec<Option<&'a Group>> {
        (0..self.flock.len()).map(|sheep| self.own_group(sheep).map(|group| &self.groups[group])).collect()
    }

    fn own_group(&self, sheep: usize) -> Option<usize> {
        let model = self.model_of_sheep[sheep]?;
        self.groups_of_model[model].iter().copied().find(|group| self.may_take(sheep, *group))
    }

    fn may_take(&self, sheep: usize, group: usize) -> bool {
        let is_for_it = match self.pin_of_group[group] {
            Pin::Any => true,
            Pin::Only(pin) => pin == sheep,
            Pin::Nobody => false,
        };
        let leaves_alone =
            || self.has_exceptions && self.flock[sheep].leaves_alone.contains(&self.groups[group].model);
        is_for_it && !leaves_alone()
    }

    /// Whether the sheep's last start of a runner of this model failed.
    fn is_failing(&self, sheep: usize, model: &ModelRef) -> bool {
        self.has_exceptions && self.flock[sheep].failing.contains(model)
    }

    /// The sheep that should give back the jobs that are staged or were sent ahead, because another
    /// has nothing to do and would get to them sooner. `swaps` was decided before.
    pub(crate) fn shares(&self, swaps: &[Swap]) -> Vec<&'a SheepId> {
        let is_idle = |index: &usize| {
            let sheep = &self.flock[*index];
            let swaps = swaps.iter().any(|swap| swap.sheep == sheep.id);
            sheep.available && sheep.in_hand == 0 && self.own_group(*index).is_none() && !swaps
        };
        let mut hoarding: Vec<&SheepFacts> = self.flock.iter().filter(|sheep| sheep.spare > 0).collect();
        if hoarding.is_empty() {
            return Vec::new();
        }
        let mut idle: Vec<usize> = (0..self.flock.len()).filter(is_idle).collect();
        hoarding.sort_by_key(|sheep| Reverse(sheep.run_time));
        let mut shares = Vec::new();
        for sheep in hoarding {
            let Some((model, _)) = &sheep.model else { continue };
            let helps = |free: &usize| {
                let (index, free) = (*free, &self.flock[*free]);
                let is_warm =
                    free.pending.is_none() && free.model.as_ref().is_some_and(|(own, _)| own == model);
                let cost = if is_warm { SHARE_COST } else { free.swap_time };
                let is_sooner = if sheep.loading.is_some() { is_warm } else { sheep.run_time > cost };
                is_sooner && !free.leaves_alone.contains(model) && !self.is_failing(index, model)
            };
            if let Some(helper) = idle.iter().position(helps) {
                shares.push(&sheep.id);
                idle.remove(helper);
            }
        }
        shares
    }

    /// Which sheep should get other models.
    pub(crate) fn swaps(&self) -> Vec<Swap> {
        let mut plan: Vec<Planned> = (0..self.flock.len()).map(|sheep| self.planned(sheep)).collect();
        let starved = self.starved();
        let mut swaps = Vec::new();
        for group in 0..self.groups.len() {
            while let Some((index, cause)) = self.best_for(group, &plan, starved) {
                // Groups come by priority: no later one of this model is more urgent.
                plan[index] = Planned {
                    model: Some(self.model_of_group[group]),
                    since: Some(self.now),
                    leaves: Leaves::swapped(cause, self.groups[group].priority),
                    works: true,
                    run_time: UNKNOWN,
                    loading: Duration::ZERO,
                    ..plan[index]
                };
                let Group { model, .. } = &self.groups[group];
                swaps.push(Swap { sheep: self.flock[index].id.clone(), model: model.clone(), cause });
            }
        }
        swaps
    }

    fn planned(&self, index: usize) -> Planned {
        let sheep = &self.flock[index];
        let own = self.own_group(index).map(|group| self.groups[group].priority);
        let since = sheep.model.as_ref().map(|(_, since)| *since);
        let leaves = match (since, own.max(sheep.urgency), sheep.pending) {
            (None, _, _) => Leaves::Always,
            (Some(_), None, _) if sheep.in_hand == 0 => Leaves::Always,
            (Some(_), None, _) | (Some(_), Some(_), Some(Cause::Starved)) => Leaves::Never,
            (Some(_), Some(own), Some(Cause::First)) => Leaves::StartForPriorityAbove(own),
            (Some(since), Some(own), None) => {
                let is_settled = self.now.since(since) > self.limits.max_wait;
                if is_settled {
                    Leaves::ForPriorityAboveOrStarved(own)
                } else {
                    Leaves::ForPriorityAbove(own)
                }
            }
        };
        Planned {
            model: self.model_of_sheep[index],
            since,
            leaves,
            works: sheep.in_hand > 0 || own.is_some(),
            is_available: sheep.available,
            in_hand: sheep.in_hand,
            run_time: sheep.run_time,
            loading: sheep.loading.unwrap_or_default(),
            swap_time: sheep.swap_time,
        }
    }

    /// The group that waited too long, and longest, and that no sheep has the model of.
    fn starved(&self) -> Option<usize> {
        let takers = |group: usize| {
            let takes = move |sheep: &usize| self.flock[*sheep].available && self.may_take(*sheep, group);
            (0..self.flock.len()).filter(takes)
        };
        let is_starved = |group: &usize| {
            self.now.since(self.groups[*group].submitted_at) > self.limits.max_wait
                && takers(*group).next().is_some()
                && !takers(*group)
                    .any(|sheep| self.model_of_sheep[sheep] == Some(self.model_of_group[*group]))
        };
        (0..self.groups.len()).filter(is_starved).min_by_key(|group| self.groups[*group].submitted_at)
    }

    /// The sheep that should swap to the group's model, and why, if one should: rather one
    /// that can start its runners, without work than with, without a model than with one, and
    /// the one whose model was ordered longest ago.
    fn best_for(&self, group: usize, plan: &[Planned], starved: Option<usize>) -> Option<(usize, Cause)> {
        let Group { model, priority, .. } = &self.groups[group];
        let wait = self.wait(group, plan);
        let fits = |(index, planned): (usize, &Planned)| {
            let has = planned.model == Some(self.model_of_group[group]);
            let is_served = wait.is_some_and(|wait| wait <= planned.swap_time);
            if !planned.is_available || has || is_served || !self.may_take(index, group) {
                return None;
            }
            let is_failing = self.is_failing(index, model);
            let cause = planned.leaves.cause(*priority, starved == Some(group), is_failing)?;
            Some(((is_failing, planned.works, planned.since), index, cause))
        };
        let best = plan.iter().enumerate().filter_map(fits).min_by_key(|(cost, ..)| *cost);
        best.map(|(_, index, cause)| (index, cause))
    }

    /// How long the group's jobs wait for sheep that have their model: the work before them is
    /// shared among all of these. None where there is no such sheep.
    fn wait(&self, group: usize, plan: &[Planned]) -> Option<Duration> {
        let model = &self.groups[group].model;
        let (mut count, mut in_hand) = (0, 0);
        let (mut slowest, mut loading) = (Duration::ZERO, Duration::MAX);
        for (index, planned) in plan.iter().enumerate() {
            let serves = planned.is_available
                && planned.model == Some(self.model_of_group[group])
                && self.may_take(index, group)
                && !self.is_failing(index, model);
            if serves {
                count += 1;
                in_hand += planned.in_hand;
                slowest = slowest.max(planned.run_time);
                // A start that takes long may go on as long as it did.
                loading = loading.min(planned.loading);
            }
        }
        if count == 0 {
            return None;
        }
        // The last of them begins when all rounds but its own are over.
        let rounds = (self.groups[group].ready + in_hand).div_ceil(count).saturating_sub(1);
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        Some(slowest.saturating_mul(rounds).saturating_add(loading))
    }
}

/// A sheep as it will be once what was decided is done.
#[derive(Clone, Copy, Debug)]
struct Planned {
    model: Option<usize>,
    /// Since when it has its model or is getting it.
    since: Option<Timestamp>,
    leaves: Leaves,
    /// Whether it has something to do with its model.
    works: bool,
    is_available: bool,
    in_hand: usize,
    run_time: Duration,
    loading: Duration,
    swap_time: Duration,
}

/// For which jobs of other models a sheep gives up its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    /// It has nothing to do.
    Always,
    /// Jobs of a higher priority than its own most urgent one.
    ForPriorityAbove(i32),
    /// The same while a runner is being started, which is given up for no model whose last start
    /// here failed: it might not start now, either.
    StartForPriorityAbove(i32),
    /// Jobs of a higher priority, and jobs that waited too long: it has had its model for long.
    ForPriorityAboveOrStarved(i32),
    /// It swaps for jobs that waited too long, or has jobs whose priority is not known.
    Never,
}

impl Leaves {
    /// For what a sheep gives up a model that it was just given.
    const fn swapped(cause: Cause, priority: i32) -> Self {
        match cause {
            Cause::First => Self::StartForPriorityAbove(priority),
            Cause::Starved => Self::Never,
        }
    }

    fn cause(self, priority: i32, is_starved: bool, is_failing: bool) -> Option<Cause> {
        match self {
            Self::Always => Some(Cause::First),
            Self::ForPriorityAbove(own) => (priority > own).then_some(Cause::First),
            Self::StartForPriorityAbove(own) => (priority > own && !is_failing).then_some(Cause::First),
            Self::ForPriorityAboveOrStarved(own) if priority > own => Some(Cause::First),
            Self::ForPriorityAboveOrStarved(_) => is_starved.then_some(Cause::Starved),
            Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests;
