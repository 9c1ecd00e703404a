//! Which sheep should have which model. Pure: what waits, what the flock does
//! and the time go in; changes of models come out.
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

use std::collections::HashSet;
use std::time::Duration;

use shepherd_job::{ModelRef, SheepId, Timestamp};
use shepherd_queue::Group;

/// How long one job of an unknown model is taken to run, and a model that was
/// never loaded to load.
pub(crate) const UNKNOWN: Duration = Duration::from_secs(1);

/// What giving a job back and claiming it elsewhere may cost; jobs shorter than
/// that stay where they are.
const SHARE_COST: Duration = Duration::from_millis(20);

/// What the scheduler sees of one sheep.
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

/// The sheep that should give back the jobs they made ready or sent ahead, because another
/// has nothing to do and would get to them sooner. `swaps` was decided before.
pub(crate) fn shares<'a>(ready: &[Group], flock: &'a [SheepFacts], swaps: &[Swap]) -> Vec<&'a SheepId> {
    let own = own_work(flock, ready);
    let idle = |(index, sheep): &(usize, &SheepFacts)| {
        let swaps = swaps.iter().any(|swap| swap.sheep == sheep.id);
        sheep.available && sheep.in_hand == 0 && own[*index].is_none() && !swaps
    };
    let mut idle: Vec<&SheepFacts> = flock.iter().enumerate().filter(idle).map(|(_, sheep)| sheep).collect();
    let mut hoarding: Vec<&SheepFacts> = flock.iter().filter(|sheep| sheep.spare > 0).collect();
    hoarding.sort_by_key(|sheep| std::cmp::Reverse(sheep.run_time));
    let mut shares = Vec::new();
    for sheep in hoarding {
        let Some((model, _)) = &sheep.model else { continue };
        let helps = |free: &&SheepFacts| {
            let is_warm = free.pending.is_none() && free.model.as_ref().is_some_and(|(own, _)| own == model);
            let cost = if is_warm { SHARE_COST } else { free.swap_time };
            let is_sooner = if sheep.loading.is_some() { is_warm } else { sheep.run_time > cost };
            is_sooner && !free.leaves_alone.contains(model) && !free.failing.contains(model)
        };
        if let Some(helper) = idle.iter().position(helps) {
            shares.push(&sheep.id);
            idle.remove(helper);
        }
    }
    shares
}

/// Decides. `ready` has the first jobs first.
pub(crate) fn schedule(ready: &[Group], flock: &[SheepFacts], now: Timestamp, limits: Limits) -> Vec<Swap> {
    let own = own_work(flock, ready).into_iter().map(|own| own.map(|own| own.priority));
    let mut plan: Vec<Planned> =
        flock.iter().cloned().zip(own).map(|(sheep, own)| Planned { sheep, own }).collect();
    let starved = starved(ready, flock, now, limits);
    let mut swaps = Vec::new();
    for group in ready {
        while let Some((index, cause)) = best_for(group, &plan, starved, now, limits) {
            let Planned { sheep, own } = &mut plan[index];
            sheep.model = Some((group.model.clone(), now));
            sheep.run_time = UNKNOWN;
            sheep.urgency = None;
            sheep.pending = Some(cause);
            sheep.loading = None;
            // Groups come by priority: no later one of this model is more urgent.
            *own = Some(group.priority);
            swaps.push(Swap { sheep: sheep.id.clone(), model: group.model.clone(), cause });
        }
    }
    swaps
}

/// A sheep as it will be once what was decided is done.
struct Planned {
    sheep: SheepFacts,
    /// The priority of the first group in the queue that it can work on with its model.
    own: Option<i32>,
}

/// The group that waited too long, and longest, and that no sheep has the model of.
fn starved<'a>(
    ready: &'a [Group],
    flock: &[SheepFacts],
    now: Timestamp,
    limits: Limits,
) -> Option<&'a Group> {
    let is_starved = |group: &&Group| {
        now.since(group.submitted_at) > limits.max_wait
            && flock.iter().any(|sheep| sheep.available && may_take(sheep, group))
            && !flock.iter().any(|sheep| sheep.available && has(sheep, group) && may_take(sheep, group))
    };
    ready.iter().filter(is_starved).min_by_key(|group| group.submitted_at)
}

/// The sheep that should swap to the group's model, and why, if one should: rather one
/// that can start its runners, without work than with, without a model than with one, and
/// the one whose model was ordered longest ago.
fn best_for(
    group: &Group,
    plan: &[Planned],
    starved: Option<&Group>,
    now: Timestamp,
    limits: Limits,
) -> Option<(usize, Cause)> {
    let fits = |(index, planned): (usize, &Planned)| {
        let sheep = &planned.sheep;
        let may = sheep.available && !has(sheep, group) && may_take(sheep, group);
        let is_starved = starved.is_some_and(|starved| starved.seq == group.seq);
        let cause = may.then(|| leaves(planned, group, is_starved, now, limits)).flatten()?;
        if is_served(group, index, plan) {
            return None;
        }
        let works = sheep.in_hand > 0 || planned.own.is_some();
        let since = sheep.model.as_ref().map(|(_, since)| *since);
        Some(((sheep.failing.contains(&group.model), works, since), index, cause))
    };
    let best = plan.iter().enumerate().filter_map(fits).min_by_key(|(cost, ..)| *cost);
    best.map(|(_, index, cause)| (index, cause))
}

/// For each sheep, the first group that it can work on with the model it has.
pub(crate) fn own_work<'a>(flock: &[SheepFacts], ready: &'a [Group]) -> Vec<Option<&'a Group>> {
    let mut own = vec![None; flock.len()];
    for group in ready {
        for (own, sheep) in own.iter_mut().zip(flock) {
            if own.is_none() && has(sheep, group) && may_take(sheep, group) {
                *own = Some(group);
            }
        }
    }
    own
}

fn may_take(sheep: &SheepFacts, group: &Group) -> bool {
    group.sheep.as_ref().is_none_or(|pin| *pin == sheep.id) && !sheep.leaves_alone.contains(&group.model)
}

fn has(sheep: &SheepFacts, group: &Group) -> bool {
    sheep.model.as_ref().is_some_and(|(model, _)| *model == group.model)
}

/// Whether sheep other than `asking` get to the group's jobs sooner than `asking`
/// could: the work before them is shared among all that have the model.
fn is_served(group: &Group, asking: usize, plan: &[Planned]) -> bool {
    let serves = |sheep: &SheepFacts| {
        sheep.available
            && has(sheep, group)
            && may_take(sheep, group)
            && !sheep.failing.contains(&group.model)
    };
    let serving = || {
        let others = plan.iter().enumerate().filter(|(index, _)| *index != asking);
        others.map(|(_, planned)| &planned.sheep).filter(|sheep| serves(sheep))
    };
    let Some(slowest) = serving().map(|sheep| sheep.run_time).max() else { return false };
    let jobs = group.ready + serving().map(|sheep| sheep.in_hand).sum::<usize>();
    // The last of them begins when all rounds but its own are over.
    let rounds = jobs.div_ceil(serving().count()).saturating_sub(1);
    // A start that takes long may go on as long as it did.
    let loading = serving().map(|sheep| sheep.loading.unwrap_or_default()).min().unwrap_or_default();
    let wait = slowest.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)).saturating_add(loading);
    wait <= plan[asking].sheep.swap_time
}

/// Why the sheep should give up its model for `group`, if it should.
fn leaves(
    planned: &Planned,
    group: &Group,
    is_starved: bool,
    now: Timestamp,
    limits: Limits,
) -> Option<Cause> {
    let Planned { sheep, own } = planned;
    let Some((_, since)) = &sheep.model else { return Some(Cause::First) };
    let Some(own) = (*own).max(sheep.urgency) else {
        return (sheep.in_hand == 0).then_some(Cause::First);
    };
    match sheep.pending {
        Some(Cause::Starved) => None,
        Some(Cause::First) | None if group.priority > own => Some(Cause::First),
        Some(Cause::First) => None,
        None => (is_starved && now.since(*since) > limits.max_wait).then_some(Cause::Starved),
    }
}

#[cfg(test)]
mod tests;
