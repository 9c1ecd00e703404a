//! Seeing to it that runners always have something to do: which models sheep should have,
//! claiming jobs ahead of time, starting runners, and sending.

use std::collections::HashSet;
use std::time::Duration;

use shepherd_job::{GiveBack, ModelRef, SheepId};
use shepherd_protocol::{Input as RunnerInput, ToRunner};
use shepherd_queue::Claimed;
use tokio::time::Instant;

use super::attempt::{AttemptKey, Job, OnRunner, Stage};
use super::io::{
    Effect, LaunchFailure, LaunchNo, QueueView, Release, RunnerFacts, SheepNo, StageFailure, Staged,
};
use super::placement::{Board, Cause, SheepFacts, UNKNOWN};
use super::sheep::{End, PendingClaim, Runner, Space, State};
use super::termination::ModelFailure;
use super::{Engine, LOOK_INTERVAL, Mode, REVIEW, Rejected, wrong_stage};

/// Of so many jobs one may be one that waited too long.
const OVERDUE_SHARE: usize = 7;
/// At most this many jobs of a sheep are past its runner and not durable yet; beyond it, no
/// more are claimed, so that a store that is away does not fill the memory.
const MAX_FINISHING: usize = 1024;
/// How long a claimed job waits whose directory an earlier attempt still uses.
const DIRECTORY_IN_USE_DELAY: Duration = Duration::from_millis(200);
/// How long a staged job waits for an earlier one that is still staging. Inputs that come side by
/// side come in any order, mostly within less; one job whose inputs take long is no reason for the
/// runner to be idle.
const IN_ORDER_PATIENCE: Duration = Duration::from_millis(100);
/// How long it is believed that the disk of the working directories has room.
const SPACE_FREE_PERIOD: Duration = Duration::from_millis(20);
/// How often that disk is looked at while it is full.
const SPACE_FULL_PERIOD: Duration = Duration::from_secs(1);
/// Status documents of jobs that are hardly longer than that are written once, at the end.
const NOTABLE_RUN_TIME: Duration = Duration::from_millis(50);

impl Engine {
    /// Decides by a look at the store which sheep should have which model, and who should give
    /// jobs back.
    pub(super) fn take_view(&mut self, view: Result<QueueView, String>) {
        let now = self.now;
        self.looks.is_pending = false;
        let mut view = match view {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(%error, "cannot see the queue");
                self.looks.is_wanted = true;
                self.looks.resume_at = now.monotonic + REVIEW;
                return;
            }
        };
        self.looks.resume_at = now.monotonic + LOOK_INTERVAL;
        if self.mode != Mode::Running {
            return;
        }
        self.note_lacking(&view);
        let groups = &view.ready.groups;
        let mut lacking = std::mem::take(&mut view.lacking).into_iter();
        let facts: Vec<SheepFacts> =
            self.all().map(|no| self.facts(no, lacking.next().unwrap_or_default())).collect();
        for sheep in &mut self.flock {
            sheep.claim.iter_mut().for_each(|claim| claim.was_seen = true);
        }
        let board = Board::new(groups, &facts, now.wall, self.limits);
        let swaps = board.swaps();
        let shares = board.shares(&swaps);
        let find =
            |id: &SheepId| SheepNo(facts.iter().position(|facts| facts.id == *id).expect("of the flock"));
        for id in shares {
            self.share(find(id));
        }
        for swap in swaps {
            let sheep = &mut self.flock[find(&swap.sheep).0];
            sheep.settled_at = now.wall;
            sheep.cause = swap.cause;
            sheep.order = Some(swap.model);
        }
        let own = board.own_work();
        for (index, (facts, own)) in facts.iter().zip(own).enumerate() {
            let Some(own) = own.filter(|_| facts.available) else { continue };
            // A job whose time has come changes nothing in the store that would be heard of.
            self.flock[index].dry = None;
            if facts.in_hand > 0 && facts.urgency.is_some_and(|urgency| own.priority > urgency) {
                self.yield_to(SheepNo(index), own.priority);
            }
        }
        let is_spare = facts.len() > 1 && facts.iter().any(|facts| facts.spare > 0);
        let review = (is_spare || view.is_waiting).then(|| now.monotonic + REVIEW);
        let due = view.ready.next_due.map(|due| now.monotonic + due.since(now.wall));
        self.looks.due_at = review.into_iter().chain(due).min();
        self.everybody();
    }

    /// What placement sees of a sheep that cannot run the models `leaves_alone`.
    fn facts(&self, no: SheepNo, mut leaves_alone: HashSet<ModelRef>) -> SheepFacts {
        let now = self.now.monotonic;
        let sheep = &self.flock[no.0];
        let has_model = sheep.model == sheep.order;
        let is_ready = has_model && matches!(sheep.state, State::Ready(_));
        leaves_alone.extend(sheep.cooldowns.all(now).into_iter().map(|(model, _)| model));
        let since = sheep.sent.front().and_then(|key| self.attempts.get(*key)?.stage.on_runner());
        let age = since.map_or(Duration::ZERO, |on| now - on.since);
        let seen = sheep.seen;
        // Nothing is more urgent than what is not known yet.
        let urgency = if sheep.claim.is_some() { Some(i32::MAX) } else { seen.urgency };
        SheepFacts {
            id: sheep.id.clone(),
            available: self.is_available(no),
            leaves_alone,
            failing: sheep.failing.clone(),
            model: sheep.order.clone().map(|model| (model, sheep.settled_at)),
            pending: (!is_ready).then_some(sheep.cause),
            in_hand: seen.in_hand + usize::from(sheep.claim.is_some()),
            urgency: urgency.filter(|_| has_model),
            spare: seen.spare,
            run_time: sheep.prefetch.mean().unwrap_or(UNKNOWN).max(age),
            loading: sheep.launching().map(|(_, since)| now - since),
            swap_time: sheep.swap_time,
        }
    }

    /// Claims as many jobs as are to be staged now.
    pub(super) fn claim(&mut self, no: SheepNo) {
        let (now, version) = (self.now, self.version);
        let max_wait = self.limits.max_wait;
        let sheep = &self.flock[no.0];
        let Some(model) = sheep.model.clone() else { return };
        if sheep.claim.is_some() || sheep.dry == Some(version) {
            return;
        }
        let is_resting = match &sheep.state {
            State::Empty | State::Unfit { .. } => sheep.rest_until(now.monotonic).is_some(),
            State::Gone { .. } | State::Reopening => true,
            State::Launching { .. } | State::Ready(_) | State::Stopping { .. } => false,
        };
        let is_full = sheep.is_sharing && (sheep.sent.len() >= sheep.slots() || sheep.launching().is_some());
        if is_resting || is_full || sheep.finishing() >= MAX_FINISHING {
            return;
        }
        let ready = sheep.ahead.len();
        let wanted = sheep.prefetch.ready_ahead();
        // Few large claims rather than many small ones.
        if ready * 2 > wanted || (ready > 0 && wanted == 1) || !self.has_space(no) {
            return;
        }
        let sheep = &mut self.flock[no.0];
        let limit = wanted - ready;
        // A share of the work is for jobs that more urgent ones would keep waiting for ever.
        let overdue = (sheep.since_overdue >= OVERDUE_SHARE).then(|| now.wall.before(max_wait));
        sheep.claim = Some(PendingClaim { limit, version, overdue, was_seen: false });
        sheep.dry = None;
        self.effects.push(Effect::Claim { sheep: no, model, limit, overdue });
    }

    pub(super) fn take_claimed(&mut self, no: SheepNo, jobs: Vec<Claimed>) -> Result<(), Rejected> {
        let now = self.now;
        let sheep = &mut self.flock[no.0];
        let claim = sheep.claim.take().ok_or(Rejected::NotAsked(no))?;
        sheep.dry = (jobs.len() < claim.limit).then_some(claim.version);
        let is_wanted = self.mode == Mode::Running && !sheep.is_homeless && sheep.order == sheep.model;
        self.looks.is_wanted |= claim.was_seen;
        for (index, Claimed { job: record, attempt, first, objects }) in jobs.into_iter().enumerate() {
            let sheep = &mut self.flock[no.0];
            let is_overdue = index == 0 && claim.overdue.is_some_and(|before| record.submitted_at < before);
            sheep.since_overdue = if is_overdue { 0 } else { sheep.since_overdue.saturating_add(1) };
            let job = Job { record, token: attempt, first, is_overdue };
            let is_occupied = self.by_job.get(job.id()).is_some_and(|keys| {
                let mut attempts = keys.iter().filter_map(|key| self.attempts.get(*key));
                attempts.any(|other| other.sheep == no && other.stage.uses_directory())
            });
            if !is_wanted || is_occupied {
                let delay = if is_occupied { DIRECTORY_IN_USE_DELAY } else { Duration::ZERO };
                let change = job.given_back(GiveBack::Blameless, delay, now.wall);
                let key = self.hold(no, job, Stage::Committing);
                self.commit(key, change);
                continue;
            }
            let place = job.place();
            let key = self.hold(no, job.clone(), Stage::Staging { since: now.monotonic });
            let index = self.flock[no.0].ahead.partition_point(|other| self.place(*other) < Some(place));
            self.flock[no.0].ahead.insert(index, key);
            self.effects.push(Effect::Stage { attempt: key, sheep: no, job, objects });
        }
        self.advance(no);
        Ok(())
    }

    fn place(&self, key: AttemptKey) -> Option<super::attempt::Place> {
        self.attempts.get(key).map(|attempt| attempt.job.place())
    }

    pub(super) fn take_staged(
        &mut self,
        key: AttemptKey,
        result: Result<Staged, StageFailure>,
    ) -> Result<(), Rejected> {
        let now = self.now.wall;
        let attempt = self.attempts.get_mut(key).ok_or(Rejected::Unknown(key))?;
        let no = attempt.sheep;
        let is_abandoned = match &attempt.stage {
            Stage::Staging { .. } => false,
            Stage::Abandoned => true,
            stage @ (Stage::Staged
            | Stage::Sent(_)
            | Stage::Recalled(_)
            | Stage::Cancelling { .. }
            | Stage::Collecting(_)
            | Stage::Publishing(_)
            | Stage::Releasing(_)
            | Stage::Committing) => return Err(wrong_stage(key, stage)),
        };
        match result {
            Ok(Staged { took, stamp }) => {
                attempt.stage = Stage::Staged;
                tracing::debug!(job = %attempt.job.id(), "its working directory is ready");
                let sheep = &mut self.flock[no.0];
                sheep.stamp_seen = stamp.or(sheep.stamp_seen);
                if let Some(took) = took {
                    sheep.prefetch.staged(took);
                }
                if is_abandoned {
                    self.release(key, Release::Keep, None);
                }
            }
            Err(failure) => {
                let job = attempt.job.clone();
                self.flock[no.0].ahead.retain(|other| *other != key);
                if matches!(failure, StageFailure::Homeless) {
                    self.flock[no.0].is_homeless = true;
                }
                if is_abandoned {
                    self.forget(key);
                } else {
                    let change = match failure {
                        StageFailure::Fault(error) => job.failed(error, Vec::new(), now),
                        StageFailure::Later(after) => job.given_back(GiveBack::Blameless, after, now),
                        StageFailure::Homeless => job.given_back(GiveBack::Blameless, Duration::ZERO, now),
                    };
                    self.commit(key, change);
                }
            }
        }
        self.advance(no);
        Ok(())
    }

    /// Whether a staged job waits for a runner.
    pub(super) fn has_staged(&self, no: SheepNo) -> bool {
        let staged = |key: &AttemptKey| {
            self.attempts.get(*key).is_some_and(|attempt| matches!(attempt.stage, Stage::Staged))
        };
        self.flock[no.0].ahead.iter().any(staged)
    }

    pub(super) fn launch(&mut self, no: SheepNo) {
        self.last_launch += 1;
        let launch = LaunchNo(self.last_launch);
        let since = self.now.monotonic;
        let sheep = &mut self.flock[no.0];
        let model = sheep.model.clone().expect("jobs are staged for a model");
        tracing::info!(sheep = %sheep.id, %model, "starting a runner");
        sheep.stamp_seen = None;
        sheep.is_refused = false;
        sheep.state = State::Launching { launch, since };
        self.effects.push(Effect::Launch { sheep: no, launch, model });
    }

    pub(super) fn take_launched(
        &mut self,
        no: SheepNo,
        launch: LaunchNo,
        facts: RunnerFacts,
    ) -> Result<(), Rejected> {
        let now = self.now;
        let sheep = &mut self.flock[no.0];
        let Some((_, since)) = sheep.launching().filter(|(current, _)| *current == launch) else {
            return Err(Rejected::Launch { sheep: no, launch });
        };
        let took = now.monotonic - since;
        tracing::info!(sheep = %sheep.id, runner = %facts.name, ?took, "runner is ready");
        sheep.last_model.clone_from(&sheep.model);
        sheep.is_sharing = false;
        sheep.failures.reset();
        if let Some(model) = &sheep.model {
            sheep.failing.remove(model);
        }
        sheep.swap_time = took;
        (sheep.settled_at, sheep.cause) = (now.wall, Cause::default());
        sheep.problem = None;
        sheep.state = State::Ready(Box::new(Runner::new(launch, facts, now.monotonic)));
        // The others' clocks are looked at no later for it.
        let due = now.monotonic + sheep.tick_period();
        self.tick_at = self.tick_at.map(|tick| tick.min(due));
        self.advance(no);
        Ok(())
    }

    pub(super) fn take_launch_failed(
        &mut self,
        no: SheepNo,
        launch: LaunchNo,
        failure: LaunchFailure,
    ) -> Result<(), Rejected> {
        let sheep = &mut self.flock[no.0];
        if sheep.launching().is_none_or(|(current, _)| current != launch) {
            return Err(Rejected::Launch { sheep: no, launch });
        }
        sheep.is_sharing = false;
        sheep.state = State::Empty;
        let (how, error) = match failure {
            LaunchFailure::Refused(error) => (ModelFailure::Refused, error),
            LaunchFailure::Died(error) => (ModelFailure::Died, error),
            LaunchFailure::Sheep(problem) => {
                self.becomes_unfit(no, problem);
                self.give_back_staged(no, |_| true);
                self.advance(no);
                return Ok(());
            }
        };
        tracing::warn!(sheep = %sheep.id, error = %error.message, details = %error.exception_traceback, "cannot start a runner for the model");
        sheep.is_refused = how == ModelFailure::Refused;
        self.start_failed(no, how, &error);
        self.advance(no);
        Ok(())
    }

    /// Whether the disk has room for jobs. What it has no room for is no fault of theirs, so they
    /// wait. Where that is not known, it is asked for, and the answer brings the sheep back here.
    pub(super) fn has_space(&mut self, no: SheepNo) -> bool {
        let now = self.now.monotonic;
        let was_full = match self.flock[no.0].space {
            Space::Free { at } if now - at < SPACE_FREE_PERIOD => return true,
            Space::Free { .. } => false,
            Space::Full { again } if again > now => return false,
            Space::Full { .. } => true,
            Space::Checking { .. } => return false,
        };
        self.flock[no.0].space = Space::Checking { was_full };
        self.effects.push(Effect::CheckSpace { sheep: no });
        false
    }

    pub(super) fn take_space(&mut self, no: SheepNo, problem: Option<String>) -> Result<(), Rejected> {
        let now = self.now.monotonic;
        let sheep = &mut self.flock[no.0];
        let Space::Checking { was_full } = sheep.space else { return Err(Rejected::NotAsked(no)) };
        match problem {
            Some(problem) => {
                if !was_full {
                    tracing::error!(sheep = %sheep.id, %problem, "the sheep takes no jobs");
                }
                sheep.problem = Some(problem);
                sheep.space = Space::Full { again: now + SPACE_FULL_PERIOD };
            }
            None => {
                if was_full {
                    tracing::info!(sheep = %sheep.id, "there is room on the disk again; the sheep takes jobs");
                    sheep.problem = None;
                }
                sheep.space = Space::Free { at: now };
            }
        }
        self.advance(no);
        Ok(())
    }

    /// Sends the runner as many staged jobs as it is to have, in their order.
    pub(super) fn send_staged(&mut self, no: SheepNo) {
        let now = self.now;
        let sheep = &self.flock[no.0];
        let State::Ready(runner) = &sheep.state else { return };
        if runner.is_leaving || runner.is_fading {
            return;
        }
        let stamp = runner.facts.stamp;
        if sheep.stamp_seen.is_some() && stamp.is_some() && sheep.stamp_seen != stamp {
            // It ends its jobs, and a new one takes those that come.
            if sheep.sent.is_empty() && self.has_staged(no) {
                tracing::info!(sheep = %sheep.id, runner = %runner.facts.name, "the model was changed: another runner is started");
                self.end(no, End::Idle);
            }
            return;
        }
        let slots = runner.facts.slots;
        let at_once = match (sheep.suspects, sheep.careful) {
            (0, 0) => slots + sheep.prefetch.sent_ahead(runner.facts.ahead),
            (0, _) => slots,
            _ => 1,
        };
        let room = at_once.saturating_sub(sheep.sent.len());
        if room == 0 {
            return;
        }
        let (keys, overtake_at) = self.in_order(no, room);
        self.flock[no.0].overtake_at = overtake_at;
        if keys.is_empty() || !self.has_space(no) {
            return;
        }
        let sheep = &mut self.flock[no.0];
        let State::Ready(runner) = &sheep.state else { return };
        let (launch, root) = (runner.launch, runner.facts.io_data_root.clone());
        let is_notable = sheep.prefetch.mean().is_none_or(|mean| mean > NOTABLE_RUN_TIME);
        let run_timeout = sheep.limits.run_timeout;
        // Of a job that waits for its turn, not before its run limit can end.
        let deadline = |place: usize| {
            let rounds = u32::try_from(place / slots + 1).unwrap_or(u32::MAX);
            run_timeout.map(|limit| now.wall.after(limit.saturating_mul(rounds)))
        };
        let mut messages = Vec::with_capacity(keys.len());
        let sent: HashSet<AttemptKey> = keys.iter().copied().collect();
        sheep.ahead.retain(|key| !sent.contains(key));
        for key in keys {
            let Some(attempt) = self.attempts.get_mut(key) else { continue };
            let (job, token) = (attempt.job.id().clone(), attempt.job.token);
            tracing::debug!(%job, attempt = %token, "sent to the runner");
            attempt.stage =
                Stage::Sent(OnRunner { since: now.monotonic, has_begun: false, is_heard_of: false });
            let place = sheep.sent.len();
            sheep.sent.push_back(key);
            if is_notable {
                self.effects.push(Effect::Touch { job: job.clone() });
            }
            messages.push(ToRunner::Input(RunnerInput {
                job,
                attempt: token,
                io_data_root: root.clone(),
                deadline: deadline(place),
            }));
        }
        // What the runner printed before is of no job of these.
        self.show(no);
        self.effects.push(Effect::Send { launch, messages });
        self.note_begun(no);
    }

    /// The staged jobs that may be sent now, at most `limit`, so that jobs are sent in their order; and when
    /// the next one may be, should the one that it waits for take longer.
    fn in_order(&self, no: SheepNo, limit: usize) -> (Vec<AttemptKey>, Option<Instant>) {
        let now = self.now.monotonic;
        let mut keys = Vec::new();
        for key in &self.flock[no.0].ahead {
            let Some(attempt) = self.attempts.get(*key) else { continue };
            match &attempt.stage {
                Stage::Staged if keys.len() == limit => return (keys, None),
                Stage::Staged => keys.push(*key),
                Stage::Staging { since } if now - *since < IN_ORDER_PATIENCE => {
                    let is_first_of_staged = self.has_staged_after(no, *key);
                    return (keys, is_first_of_staged.then(|| *since + IN_ORDER_PATIENCE));
                }
                // One that takes long holds up nobody.
                Stage::Staging { .. }
                | Stage::Sent(_)
                | Stage::Recalled(_)
                | Stage::Cancelling { .. }
                | Stage::Collecting(_)
                | Stage::Publishing(_)
                | Stage::Releasing(_)
                | Stage::Committing
                | Stage::Abandoned => {}
            }
        }
        (keys, None)
    }

    fn has_staged_after(&self, no: SheepNo, key: AttemptKey) -> bool {
        let after = self.flock[no.0].ahead.iter().skip_while(|other| **other != key);
        after.filter_map(|key| self.attempts.get(*key)).any(|attempt| matches!(attempt.stage, Stage::Staged))
    }

    /// The runner works on the first of the jobs that it has: makes it known of those of which
    /// that is news.
    pub(super) fn note_begun(&mut self, no: SheepNo) {
        let slots = self.flock[no.0].slots();
        for key in self.flock[no.0].sent.iter().take(slots) {
            let Some(attempt) = self.attempts.get_mut(*key) else { continue };
            let Some(on) = attempt.stage.on_runner_mut() else { continue };
            if std::mem::replace(&mut on.has_begun, true) {
                continue;
            }
            if let Some(change) = attempt.job.begun(self.now.wall) {
                self.effects.push(Effect::NoteBegun { sheep: no, change });
            }
        }
    }
}
