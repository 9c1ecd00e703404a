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
    let idle = |sheep: &&SheepFacts| {
        let swaps = swaps.iter().any(|swap| swap.sheep == sheep.id);
        sheep.available && sheep.in_hand == 0 && own_work(sheep, ready).is_none() && !swaps
    };
    let mut idle: Vec<&SheepFacts> = flock.iter().filter(idle).collect();
    let mut hoarding: Vec<&SheepFacts> = flock.iter().filter(|sheep| sheep.spare > 0).collect();
    hoarding.sort_by_key(|sheep| std::cmp::Reverse(sheep.run_time));
    let mut shares = Vec::new();
    for sheep in hoarding {
        let Some((model, _)) = &sheep.model else { continue };
        let Some(helper) = idle.iter().position(|free| !free.leaves_alone.contains(model)) else { continue };
        let free = idle[helper];
        let same = free.model.as_ref().is_some_and(|(own, _)| own == model);
        let cost = if same { SHARE_COST } else { free.swap_time };
        if sheep.run_time > cost {
            shares.push(&sheep.id);
            idle.remove(helper);
        }
    }
    shares
}

/// Decides. `ready` has the first jobs first.
pub(crate) fn schedule(ready: &[Group], flock: &[SheepFacts], now: Timestamp, limits: Limits) -> Vec<Swap> {
    let mut plan: Vec<SheepFacts> = flock.to_vec();
    let mut swaps = Vec::new();
    for group in ready {
        while let Some((index, cause)) = best_for(group, &plan, ready, now, limits) {
            let sheep = &mut plan[index];
            sheep.model = Some((group.model.clone(), now));
            sheep.run_time = UNKNOWN;
            sheep.urgency = None;
            sheep.pending = Some(cause);
            swaps.push(Swap { sheep: sheep.id.clone(), model: group.model.clone(), cause });
        }
    }
    swaps
}

/// The sheep that should swap to the group's model, and why, if one should: rather one
/// without work than one with, without a model than with one, and the one whose
/// model was ordered longest ago.
fn best_for(
    group: &Group,
    plan: &[SheepFacts],
    ready: &[Group],
    now: Timestamp,
    limits: Limits,
) -> Option<(usize, Cause)> {
    let fits = |(index, sheep): (usize, &SheepFacts)| {
        let may = sheep.available
            && may_take(sheep, group)
            && !has(sheep, group)
            && !is_served(group, index, plan);
        let cause = may.then(|| leaves(sheep, ready, group, now, limits)).flatten()?;
        let works = sheep.in_hand > 0 || own_work(sheep, ready).is_some();
        let since = sheep.model.as_ref().map(|(_, since)| *since);
        Some(((works, since), index, cause))
    };
    let best = plan.iter().enumerate().filter_map(fits).min_by_key(|(cost, ..)| *cost);
    best.map(|(_, index, cause)| (index, cause))
}

/// The first group that the sheep can work on with the model it has.
pub(crate) fn own_work<'a>(sheep: &SheepFacts, ready: &'a [Group]) -> Option<&'a Group> {
    ready.iter().find(|own| may_take(sheep, own) && has(sheep, own))
}

fn may_take(sheep: &SheepFacts, group: &Group) -> bool {
    group.sheep.as_ref().is_none_or(|pin| *pin == sheep.id) && !sheep.leaves_alone.contains(&group.model)
}

fn has(sheep: &SheepFacts, group: &Group) -> bool {
    sheep.model.as_ref().is_some_and(|(model, _)| *model == group.model)
}

/// Whether sheep other than `asking` get to the group's jobs sooner than `asking`
/// could: the work before them is shared among all that have the model.
fn is_served(group: &Group, asking: usize, plan: &[SheepFacts]) -> bool {
    let serving = || {
        plan.iter()
            .enumerate()
            .filter(|(index, sheep)| {
                *index != asking && sheep.available && may_take(sheep, group) && has(sheep, group)
            })
            .map(|(_, sheep)| sheep)
    };
    let Some(slowest) = serving().map(|sheep| sheep.run_time).max() else { return false };
    let jobs = group.ready + serving().map(|sheep| sheep.in_hand).sum::<usize>();
    // The last of them begins when all rounds but its own are over.
    let rounds = jobs.div_ceil(serving().count()).saturating_sub(1);
    slowest.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX)) <= plan[asking].swap_time
}

/// Why the sheep should give up its model for `group`, if it should.
fn leaves(
    sheep: &SheepFacts,
    ready: &[Group],
    group: &Group,
    now: Timestamp,
    limits: Limits,
) -> Option<Cause> {
    let Some((_, since)) = &sheep.model else { return Some(Cause::First) };
    let own = own_work(sheep, ready).map(|own| own.priority).max(sheep.urgency);
    let Some(own) = own else { return (sheep.in_hand == 0).then_some(Cause::First) };
    match sheep.pending {
        Some(Cause::Starved) => None,
        Some(Cause::First) | None if group.priority > own => Some(Cause::First),
        Some(Cause::First) => None,
        None => {
            let is_starved =
                now.since(group.submitted_at) > limits.max_wait && now.since(*since) > limits.max_wait;
            is_starved.then_some(Cause::Starved)
        }
    }
}

#[cfg(test)]
mod tests;
