//! Whether the engine keeps limits of time, and does to runners, directories and starts what it may.

use shepherd_job::ModelRef;

use super::super::sheep::{End, State};
use super::super::{AttemptKey, Engine, LaunchNo, Mode, SheepNo};
use super::invariants::{Invariant, MAX_ABANDONED, MAX_ABANDONED_IN_VAIN, broken};
use super::runners::{Launch, Phase};
use super::world::World;

impl World {
    /// Whether what takes too long is ended.
    pub(super) fn check_times(&self, engine: &Engine) {
        let (awake, slack) = (self.awake(), self.time_slack());
        for (launch, of) in &self.launches {
            let sheep = &engine.flock[of.sheep.0];
            let Some(runner) = of.runner.as_ref().filter(|runner| runner.is_alive) else { continue };
            if let State::Stopping { end: End::Unreliable(reason), .. } = &sheep.state
                && of.phase == Phase::Up
                && reason.contains("did not answer")
                && runner.is_heard()
                && !runner.is_deaf
            {
                broken(Invariant::HonestRunner, format!("{launch:?} is ended: {reason}"));
            }
            // One that is being lost is judged by its end.
            let is_clocked = matches!(&sheep.state, State::Ready(runner) if !runner.is_fading);
            if of.end_asked.is_some() || !is_clocked {
                continue;
            }
            let tick = sheep.tick_period();
            let begun = runner.jobs.iter().filter_map(|job| job.begun).min();
            if let (Some(begun), Some(limit)) = (begun, sheep.limits.run_timeout)
                && awake - begun > limit + tick + slack
            {
                broken(Invariant::TimeLimits, format!("{launch:?} has a job since {begun:?}"));
            }
            let timeout = sheep.limits.heartbeat_timeout;
            if let Some(since) = runner.silent_since.map(|since| since.max(of.ready_at))
                && awake - since > timeout + tick + slack
            {
                broken(Invariant::TimeLimits, format!("{launch:?} is silent since {since:?}"));
            }
        }
        for (key, attempt) in &self.attempts {
            let sheep = &engine.flock[attempt.sheep.0];
            if let Some(since) = attempt.cancelling
                && attempt.stage == "cancelling"
                && matches!(&sheep.state, State::Ready(runner) if !runner.is_fading)
                && awake - since > sheep.limits.stop_grace + sheep.tick_period() + slack
            {
                broken(Invariant::TimeLimits, format!("{key} is not let go of since {since:?}"));
            }
        }
    }

    /// No runner that lives may still work in the directory of an attempt.
    pub(super) fn check_let_go(&self, key: AttemptKey, what: &str) {
        let may_use = |of: &Launch| of.runner.as_ref().is_some_and(|runner| runner.may_use(key));
        if let Some((launch, _)) = self.launches.iter().find(|(_, of)| may_use(of)) {
            broken(Invariant::OwnDirectory, format!("{key} is {what} while {launch:?} has it"));
        }
    }

    /// What its client does not want any more comes to nothing.
    pub(super) fn check_wanted(&self, key: AttemptKey, what: &str) {
        if self.attempts.get(&key).is_some_and(|attempt| attempt.is_cancelled) {
            broken(Invariant::CancelHolds, format!("{key} is cancelled and {what}"));
        }
    }

    pub(super) fn check_reopens(&self, no: SheepNo) {
        let used = self.dirs.iter().find(|((sheep, _), _)| *sheep == no);
        if used.is_some() || self.launches.values().any(|of| of.sheep == no) {
            broken(Invariant::OwnDirectory, format!("{no:?} is made again while {used:?} is used"));
        }
    }

    pub(super) fn check_launches(&self, no: SheepNo, launch: LaunchNo, model: &ModelRef) {
        if let Some((other, _)) = self.launches.iter().find(|(_, of)| of.sheep == no) {
            broken(Invariant::RightRunner, format!("{launch:?} of {model} starts while {other:?} is there"));
        }
    }

    /// Sheep that start a runner and have work for it, each with the model they should have.
    pub(super) fn busy_starts(&self) -> Vec<(SheepNo, ModelRef)> {
        let Some(engine) = &self.engine else { return Vec::new() };
        let starts = engine.flock.iter().enumerate().filter(|(_, sheep)| {
            matches!(sheep.state, State::Launching { .. })
                && sheep.order == sheep.model
                && sheep.seen.urgency.is_some()
        });
        starts.filter_map(|(index, sheep)| Some((SheepNo(index), sheep.order.clone()?))).collect()
    }

    /// A start with work is given up only for a model that may start.
    pub(super) fn check_orders(&self, starts: &[(SheepNo, ModelRef)]) {
        let Some(engine) = &self.engine else { return };
        for (no, model) in starts {
            let sheep = &engine.flock[no.0];
            if let Some(order) = sheep.order.as_ref().filter(|order| *order != model)
                && sheep.failing.contains(order)
            {
                broken(Invariant::SwapsEnd, format!("{no:?} gives up a start for {order}, which failed"));
            }
        }
    }

    /// A start is given up.
    pub(super) fn check_abort(&mut self, of: &Launch) {
        let Some(engine) = &self.engine else { return };
        let sheep = &engine.flock[of.sheep.0];
        let watch = &mut self.watch.sheep[of.sheep.0];
        if engine.mode != Mode::Running || sheep.is_homeless {
            return;
        }
        let (all, wanted) = &mut watch.abandoned;
        (*all, *wanted) = (*all + 1, *wanted + 1);
        if *wanted > MAX_ABANDONED || *all > MAX_ABANDONED_IN_VAIN {
            broken(Invariant::SwapsEnd, format!("{:?} gave up {wanted} of {all} starts in a row", of.sheep));
        }
    }
}
