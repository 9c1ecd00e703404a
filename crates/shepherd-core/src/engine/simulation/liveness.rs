//! Whether work that could go on goes on: sheep that could serve a waiting job do so in time, and
//! jobs that waited too long are not passed over for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{JobState, ModelRef, Phase, Timestamp};
use shepherd_queue::{JobRecord, JobStore as _, ListQuery};

use super::super::sheep::{Sheep, Space, State};
use super::super::{Engine, Mode, SheepNo};
use super::faults::Fault;
use super::invariants::{Invariant, SheepWatch, broken};
use super::store::at_once;
use super::world::World;

/// How often it is looked whether work goes on.
const SCAN_PERIOD: Duration = Duration::from_millis(100);
/// How long each answer may take that is slow, of those that the start of a runner waits for.
const SLOW_ANSWER: Duration = Duration::from_secs(8);
/// A look that takes longer keeps sheep from what waits.
const SLOW_LOOK: Duration = Duration::from_millis(300);
/// Time after a failed look in which there may be none.
const BLIND: Duration = Duration::from_millis(1_100);
/// How long a sheep whose runner has a job's model, and nothing to do, may leave the job waiting.
const WARM_BOUND: Duration = Duration::from_millis(400);
/// How long a sheep may have nothing to do while no sheep has the model of a job that it could
/// serve, beside what answers take: less than until waiting jobs are looked at again in any case.
const ORDER_BOUND: Duration = Duration::from_millis(700);
/// How long another sheep may do so beyond twice the longest start and one grace: sheep with the
/// model may get to the job sooner than it could, and how long starts and jobs take is estimated.
const COLD_BOUND: Duration = Duration::from_secs(4);
/// How long a sheep may take to leave a model beyond two starts, for jobs that waited too long.
const SWAP_BOUND: Duration = Duration::from_secs(2);
/// How many later jobs may be begun in the place of one that waits for longer than `max_wait`: one
/// in eight claims is for jobs that waited too long, and there may be others that waited longer.
const PASSED_OVER: u64 = 16;

/// What is remembered of work that waits.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    next_scan: Duration,
    /// When the look was asked for that is pending.
    pub(super) look_at: Duration,
    /// Until then the engine may not see what waits.
    blind_until: Duration,
    /// Since when a sheep could serve a job that waits, of the time that the daemon was awake.
    waiting: BTreeMap<(SheepNo, u64), Duration>,
    /// The same where no sheep has the job's model, nor is to have it.
    unserved: BTreeMap<(SheepNo, u64), Duration>,
    /// Jobs that wait for longer than `max_wait`.
    overdue: BTreeMap<u64, Overdue>,
    /// Models of such jobs that no sheep has, nor is to have, since when.
    unloaded: BTreeMap<ModelRef, Duration>,
    /// Which sheep has claimed a job so far, and when that was submitted.
    pub(super) claims: Vec<(SheepNo, Timestamp)>,
}

/// A job that waits for too long.
#[derive(Clone, Copy, Debug)]
struct Overdue {
    since: Duration,
    /// How many jobs were claimed before.
    claims: usize,
    /// Jobs that waited longer then.
    before: u64,
}

impl Liveness {
    fn clear(&mut self) {
        self.waiting.clear();
        self.unserved.clear();
        self.overdue.clear();
        self.unloaded.clear();
    }

    /// The engine could not look at what waits.
    pub(super) fn blinded(&mut self, awake: Duration) {
        self.blind_until = awake + BLIND;
        self.clear();
    }
}

impl World {
    pub(super) fn check_liveness(&mut self) {
        let awake = self.awake();
        if awake < self.watch.liveness.next_scan {
            return;
        }
        self.watch.liveness.next_scan = awake + SCAN_PERIOD;
        let is_disturbed = self.mode() != Some(Mode::Running)
            || self.now < self.store_away_until
            || awake < self.watch.liveness.blind_until
            || self.now < self.paused_until
            || (self.owes_look && awake > self.watch.liveness.look_at + SLOW_LOOK);
        if is_disturbed {
            self.watch.liveness.clear();
            return;
        }
        let phases = vec![Phase::Queued];
        let queued =
            at_once(self.queue.list(ListQuery { phases, limit: usize::MAX, ..ListQuery::default() }));
        let wall = self.wall();
        let is_ready = |record: &&Arc<JobRecord>| match &record.state {
            JobState::Queued { not_before, .. } => not_before.is_none_or(|at| at <= wall),
            JobState::Processing { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => false,
        };
        let ready: Vec<&Arc<JobRecord>> = queued.iter().filter(is_ready).collect();
        // What comes of a look is not known before.
        if self.owes_look {
            self.watch.liveness.waiting.clear();
            self.watch.liveness.unserved.clear();
        } else {
            self.check_idle(&ready);
        }
        self.check_overdue(&ready);
    }

    /// No sheep has nothing to do for long while it could serve a job.
    fn check_idle(&mut self, ready: &[&Arc<JobRecord>]) {
        let awake = self.awake();
        let mut waiting = std::mem::take(&mut self.watch.liveness.waiting);
        let mut unserved = std::mem::take(&mut self.watch.liveness.unserved);
        let (mut now_waiting, mut now_unserved) = (BTreeMap::new(), BTreeMap::new());
        let Some(engine) = &self.engine else { return };
        let longest = engine.flock.iter().map(|sheep| sheep.swap_time).max().unwrap_or_default();
        let grace = engine.flock.iter().map(|sheep| sheep.limits.stop_grace).max().unwrap_or_default();
        for record in ready {
            let model = &record.spec.model;
            let is_served = engine.flock.iter().any(|sheep| sheep.order.as_ref() == Some(model));
            for (index, sheep) in engine.flock.iter().enumerate() {
                let no = SheepNo(index);
                let has_model = matches!(sheep.state, State::Ready(_))
                    && sheep.model == sheep.order
                    && sheep.model.as_ref() == Some(model);
                let is_idle = is_idle(sheep);
                let has_room = has_model && has_room(sheep);
                if !(is_idle || has_room) || !self.could_serve(engine, no, record) {
                    continue;
                }
                let SheepWatch { active_at, full_at, .. } = self.watch.sheep[index];
                let active_at = if has_room { full_at } else { active_at };
                let since = |before: &mut BTreeMap<_, _>| {
                    before.remove(&(no, record.seq)).unwrap_or(awake).max(active_at)
                };
                let waits_since = since(&mut waiting);
                now_waiting.insert((no, record.seq), waits_since);
                let answers = self.plan.latency * 12 + self.plan.timer_slack;
                let bound = if has_model { WARM_BOUND } else { COLD_BOUND + 2 * longest + grace };
                let is_too_long = awake - waits_since > bound + answers;
                let is_unserved_too_long = !is_served && {
                    let since = since(&mut unserved);
                    now_unserved.insert((no, record.seq), since);
                    awake - since > ORDER_BOUND + answers
                };
                if is_too_long || is_unserved_too_long {
                    broken(
                        Invariant::NoIdleSheep,
                        format!(
                            "{no:?} could serve {} #{} since {waits_since:?}",
                            record.spec.id, record.seq
                        ),
                    );
                }
            }
        }
        self.watch.liveness.unserved = now_unserved;
        self.watch.liveness.waiting = now_waiting;
    }

    /// Whether nothing is in the way of a sheep's serving a job but other work.
    fn could_serve(&self, engine: &Engine, no: SheepNo, record: &JobRecord) -> bool {
        let sheep = &engine.flock[no.0];
        let model = self.plan.models.iter().position(|plan| plan.model == record.spec.model);
        let has_model = model.is_some_and(|model| !self.plan.models[model].lacking[no.0]);
        let is_allowed = record.spec.sheep.as_ref().is_none_or(|pin| *pin == sheep.id);
        let world = &self.sheep[no.0];
        is_allowed
            && has_model
            && !world.is_homeless
            && !world.is_disk_full
            && !world.is_broken
            && !sheep.is_homeless
            && matches!(sheep.space, Space::Free { .. })
            && sheep.cooldowns.until(&record.spec.model, engine.now.monotonic).is_none()
            && !sheep.failing.contains(&record.spec.model)
    }

    /// How long the start of a runner may take in this scenario, with the end of the one before it.
    fn longest_start(&self) -> Duration {
        let has_come = |fault: Fault| self.faults.counts[fault as usize] > 0;
        let load = self.plan.models.iter().map(|model| model.load * 2).max().unwrap_or_default();
        let limits = || self.plan.sheep.iter().map(|sheep| &sheep.limits);
        let hang = limits().map(|limits| limits.start_timeout).max().filter(|_| has_come(Fault::LaunchHangs));
        let grace = limits().map(|limits| limits.stop_grace).max().unwrap_or_default();
        let slow = [Fault::ReadySlow, Fault::ClaimSlow, Fault::StageSlow, Fault::ReleaseSlow, Fault::EndSlow];
        let late = SLOW_ANSWER * slow.into_iter().filter(|fault| has_come(*fault)).count() as u32;
        load.max(hang.unwrap_or_default()) + grace + late
    }

    /// A job that waits for too long is not passed over for ever.
    fn check_overdue(&mut self, ready: &[&Arc<JobRecord>]) {
        let awake = self.awake();
        let (max_wait, wall) = (self.plan.max_wait, self.wall());
        let old = std::mem::take(&mut self.watch.liveness.overdue);
        let old_unloaded = std::mem::take(&mut self.watch.liveness.unloaded);
        let (mut overdue, mut unloaded) = (BTreeMap::new(), BTreeMap::new());
        let longest_start = self.longest_start();
        let longest_run = self.plan.jobs.iter().map(|job| job.run * 2).max().unwrap_or_default();
        let Some(engine) = &self.engine else { return };
        let models = self.plan.models.len() as u32;
        for record in ready.iter().filter(|record| wall.since(record.submitted_at) > max_wait) {
            let could = engine.flock.iter().enumerate().any(|(index, sheep)| {
                self.could_serve(engine, SheepNo(index), record)
                    && matches!(sheep.state, State::Empty | State::Launching { .. } | State::Ready(_))
            });
            if !could {
                continue;
            }
            let model = &record.spec.model;
            if !engine.flock.iter().any(|sheep| sheep.order.as_ref() == Some(model)) {
                let since = old_unloaded.get(model).copied().unwrap_or(awake);
                unloaded.insert(model.clone(), since);
                let patience = models * (max_wait + 2 * longest_start + longest_run + SWAP_BOUND);
                if awake - since > patience {
                    broken(Invariant::Starvation, format!("no sheep takes {model} since {since:?}"));
                }
            }
            let before = ready.iter().filter(|other| other.submitted_at < record.submitted_at).count() as u64;
            let claims = self.watch.liveness.claims.len();
            let of = old.get(&record.seq).copied().unwrap_or(Overdue { since: awake, claims, before });
            overdue.insert(record.seq, of);
            // Claims of other sheep pass over nothing; older jobs that run again go first again.
            let may_take = |sheep: SheepNo| {
                record.spec.sheep.as_ref().is_none_or(|pin| *pin == engine.flock[sheep.0].id)
            };
            let since =
                || self.watch.liveness.claims[of.claims..].iter().filter(|(sheep, _)| may_take(*sheep));
            let older = since().filter(|(_, at)| *at < record.submitted_at).count() as u64;
            let passed = since().count() as u64 - older;
            let patience = (models + 1) * (2 * max_wait + 2 * longest_start + longest_run + SWAP_BOUND);
            if passed > PASSED_OVER * (of.before + older + 1) && awake - of.since > patience {
                broken(
                    Invariant::Starvation,
                    format!(
                        "{} is overdue since {:?}, and {passed} jobs went first",
                        record.spec.id, of.since
                    ),
                );
            }
        }
        self.watch.liveness.overdue = overdue;
        self.watch.liveness.unloaded = unloaded;
    }
}

/// Whether a sheep has nothing to do.
pub(super) fn is_idle(sheep: &Sheep) -> bool {
    sheep.held == 0 && sheep.claim.is_none() && matches!(sheep.state, State::Empty | State::Ready(_))
}

/// Whether a sheep's runner has a free slot, and nothing is on its way to it.
pub(super) fn has_room(sheep: &Sheep) -> bool {
    let State::Ready(runner) = &sheep.state else { return false };
    let slots = if sheep.suspects > 0 { 1 } else { runner.facts.slots };
    let is_changed = sheep.stamp_seen.is_some() && sheep.stamp_seen != runner.facts.stamp;
    sheep.sent.len() < slots
        && sheep.ahead.is_empty()
        && sheep.claim.is_none()
        && !(runner.is_leaving || runner.is_fading || is_changed)
}
