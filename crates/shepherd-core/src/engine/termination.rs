//! Ending jobs and runners: because a client, the time or the runner itself wants it, and what
//! then becomes of the jobs that the runner had.

use std::time::Duration;

use shepherd_job::{GiveBack, JobError, JobId};
use shepherd_protocol::ToRunner;
use tokio::time::Instant;

use super::attempt::{AttemptKey, Fate, Job, OnRunner, Stage};
use super::io::{Effect, EndKind, EndReport, LaunchNo, OutputKind, Release, SheepNo};
use super::placement::UNKNOWN;
use super::sheep::{End, State};
use super::{Engine, Mode, Rejected};

/// The first shepherd's words for a runner that died, which clients may look for. They follow
/// what has happened.
pub(crate) const DIED: &str = "Sheep container died without notice";

/// A runner that somebody ended so shortly after it got a job had hardly begun it.
const BEGUN_AFTER: Duration = Duration::from_millis(250);
/// How far apart one signal to several processes may reach them.
const SIGNAL_SKEW: Duration = Duration::from_millis(250);
/// Making room for urgent jobs is worth it when they would wait this long.
const YIELD_COST: Duration = Duration::from_millis(200);
/// Maximum number of models that are remembered because their runners do not start.
const MAX_FAILING: usize = 1024;
/// After a death that nobody could be blamed for, so many answers must come before
/// jobs are sent ahead again: more than are ever sent ahead.
const CAREFUL_ANSWERS: usize = 256;
/// Least time between two pings.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// How a model failed to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelFailure {
    /// The sheep cannot load it.
    Refused,
    /// Its runner died or did not become ready.
    Died,
}

impl Engine {
    pub(super) fn cancel(&mut self, id: &JobId, number: u32) -> Result<(), Rejected> {
        let is_meant = |key: &&AttemptKey| {
            self.attempts.get(**key).is_some_and(|attempt| attempt.job.token.number == number)
        };
        let key = self.by_job.get(id).and_then(|keys| keys.iter().find(is_meant).copied());
        let key = key.ok_or(Rejected::NoAttempt)?;
        let attempt = self.attempts.get_mut(key).ok_or(Rejected::Unknown(key))?;
        let no = attempt.sheep;
        let by = self.now.monotonic + self.flock[no.0].limits.stop_grace;
        match &attempt.stage {
            Stage::Staging { .. } => {
                attempt.stage = Stage::Abandoned;
                self.flock[no.0].ahead.retain(|other| *other != key);
            }
            Stage::Staged => {
                self.flock[no.0].ahead.retain(|other| *other != key);
                self.release(key, Release::Keep, None);
            }
            Stage::Sent(on) | Stage::Recalled(on) => {
                attempt.stage = Stage::Cancelling { on: *on, by };
                let token = attempt.job.token;
                self.effects.push(Effect::SplitLog { job: id.clone(), number });
                self.send(no, vec![ToRunner::Cancel { job: id.clone(), attempt: token }]);
            }
            // It is on its way out: the store fences what it comes to.
            Stage::Cancelling { .. }
            | Stage::Collecting(_)
            | Stage::Publishing(_)
            | Stage::Releasing(_)
            | Stage::Committing
            | Stage::Abandoned => {}
        }
        self.advance(no);
        Ok(())
    }

    /// Sends messages to the runner, if there is one.
    pub(super) fn send(&mut self, no: SheepNo, messages: Vec<ToRunner>) {
        if let State::Ready(runner) = &self.flock[no.0].state
            && !messages.is_empty()
        {
            self.effects.push(Effect::Send { launch: runner.launch, messages });
        }
    }

    /// Gives up what is ready ahead, and asks back what the runner has and has not begun: a job
    /// that takes long must not hold up those that were sent with it because their forerunners
    /// were quick.
    pub(super) fn share(&mut self, no: SheepNo) {
        let sheep = &mut self.flock[no.0];
        // A runner that starts has begun nothing; where there is none, nothing is held up.
        if sheep.sent.is_empty() && sheep.launching().is_none() {
            return;
        }
        sheep.is_sharing = true;
        self.give_back_staged(no, Job::is_unpinned);
        self.recall(no, Job::is_unpinned);
    }

    /// Makes room for jobs of `priority` that wait in the store, where less urgent ones would keep
    /// them waiting for long.
    pub(super) fn yield_to(&mut self, no: SheepNo, priority: i32) {
        let now = self.now.monotonic;
        let sheep = &self.flock[no.0];
        let front = sheep.sent.front().and_then(|key| self.attempts.get(*key)?.stage.on_runner());
        let age = front.map(|on| now - on.since).unwrap_or_default();
        let each = sheep.prefetch.mean().unwrap_or(UNKNOWN).max(age);
        let staged = |key: &&AttemptKey| {
            self.attempts.get(**key).is_some_and(|attempt| matches!(attempt.stage, Stage::Staged))
        };
        let ahead = sheep.ahead.iter().filter(staged).count() + self.waiting(no).count();
        if each.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX)) < YIELD_COST {
            return;
        }
        self.give_back_staged(no, |job| job.priority() < priority);
        self.recall(no, |job| job.priority() < priority);
    }

    /// Attempts that the runner has and has not begun, and that were not asked back.
    fn waiting(&self, no: SheepNo) -> impl Iterator<Item = AttemptKey> + '_ {
        let sheep = &self.flock[no.0];
        let waits = |key: &AttemptKey| {
            self.attempts.get(*key).is_some_and(|attempt| matches!(attempt.stage, Stage::Sent(_)))
        };
        sheep.sent.iter().copied().skip(sheep.slots()).filter(move |key| waits(key))
    }

    /// Asks jobs back that the runner has and has not begun.
    pub(super) fn recall(&mut self, no: SheepNo, which: impl Fn(&Job) -> bool) {
        if !self.flock[no.0].can_recall() {
            return;
        }
        let keys: Vec<AttemptKey> = self.waiting(no).collect();
        let mut messages = Vec::new();
        for key in keys {
            let Some(attempt) = self.attempts.get_mut(key) else { continue };
            if let Stage::Sent(on) = attempt.stage
                && which(&attempt.job)
            {
                attempt.stage = Stage::Recalled(on);
                let (job, token) = (attempt.job.id().clone(), attempt.job.token);
                messages.push(ToRunner::Cancel { job, attempt: token });
            }
        }
        self.send(no, messages);
    }

    /// Gives back those of the staged jobs.
    pub(super) fn give_back_staged(&mut self, no: SheepNo, which: impl Fn(&Job) -> bool) {
        let now = self.now.wall;
        for key in self.take_ahead(no, which) {
            let Some(attempt) = self.attempts.get(key) else { continue };
            let change = attempt.job.given_back(GiveBack::Blameless, Duration::ZERO, now);
            self.release(key, Release::Discard, Some(change));
        }
    }

    /// Takes staged jobs out of those that are to be sent.
    fn take_ahead(&mut self, no: SheepNo, which: impl Fn(&Job) -> bool) -> Vec<AttemptKey> {
        let is_taken = |key: &AttemptKey| {
            self.attempts
                .get(*key)
                .is_some_and(|attempt| matches!(attempt.stage, Stage::Staged) && which(&attempt.job))
        };
        let (taken, kept) = self.flock[no.0].ahead.iter().copied().partition(is_taken);
        self.flock[no.0].ahead = kept;
        taken
    }

    /// Looks whether the runner of a sheep or a job takes too long, at a tick that came so `late`.
    pub(super) fn check_time(&mut self, no: SheepNo, late: Duration) {
        let now = self.now.monotonic;
        let sheep = &mut self.flock[no.0];
        let (period, limit) = (sheep.tick_period(), sheep.limits.run_timeout);
        let timeout = sheep.limits.heartbeat_timeout;
        let State::Ready(runner) = &mut sheep.state else { return };
        if late > period {
            // This process was stopped, or starved: no clock of a runner's goes on meanwhile.
            tracing::warn!(?late, "the daemon itself was held up; runners get the time back");
            runner.last_heard = now.min(runner.last_heard + late);
            for key in &sheep.sent {
                let Some(attempt) = self.attempts.get_mut(*key) else { continue };
                if let Stage::Cancelling { by, .. } = &mut attempt.stage {
                    *by += late;
                }
                if let Some(on) = attempt.stage.on_runner_mut() {
                    on.since = now.min(on.since + late);
                }
            }
        }
        if runner.is_fading {
            // How it ended is heard soon, and says more than that it is silent or slow.
            return;
        }
        let silent = now - runner.last_heard;
        if silent > timeout {
            let reason = format!("the runner did not answer for {timeout:?}");
            self.end(no, End::Unreliable(reason));
            return;
        }
        let is_due = silent > timeout / 4 && now - runner.last_ping >= PING_INTERVAL;
        let slots = runner.facts.slots;
        if is_due {
            runner.last_ping = now;
            runner.nonce += 1;
            let nonce = runner.nonce;
            self.send(no, vec![ToRunner::Ping { nonce }]);
        }
        let attempts = || self.flock[no.0].sent.iter().filter_map(|key| self.attempts.get(*key));
        let is_kept =
            attempts().any(|attempt| matches!(attempt.stage, Stage::Cancelling { by, .. } if by <= now));
        if is_kept {
            self.end(no, End::KeptCancelled);
            return;
        }
        let Some(limit) = limit else { return };
        let is_over = |on: &OnRunner| now - on.since > limit;
        let late = attempts().take(slots).find(|attempt| attempt.stage.on_runner().is_some_and(is_over));
        if let Some(id) = late.map(|attempt| attempt.job.id().clone()) {
            self.end(no, End::TimedOut(id, limit));
        }
    }

    /// The runner is lost, or cannot be relied on.
    pub(super) fn lose(&mut self, no: SheepNo, launch: LaunchNo, end: End) -> Result<(), Rejected> {
        self.check_launch(no, launch)?;
        self.end(no, end);
        self.advance(no);
        Ok(())
    }

    /// Ends the runner. Its jobs keep their places until it is gone.
    pub(super) fn end(&mut self, no: SheepNo, end: End) {
        let is_forced = self.mode == Mode::Forced;
        let sheep = &mut self.flock[no.0];
        match &sheep.state {
            State::Ready(runner) => {
                let launch = runner.launch;
                let (kind, grace) = match &end {
                    End::Idle => (EndKind::Leave, sheep.limits.stop_grace),
                    End::Drained => (EndKind::Stop, sheep.limits.stop_grace),
                    End::Died(_)
                    | End::Unreliable(_)
                    | End::TimedOut(..)
                    | End::KeptCancelled
                    | End::Homeless => (EndKind::Stop, Duration::ZERO),
                };
                match &end {
                    End::Idle | End::Drained => tracing::info!(sheep = %sheep.id, "ending the runner"),
                    other => tracing::warn!(sheep = %sheep.id, reason = %other, "ending the runner"),
                }
                let grace = if is_forced { Duration::ZERO } else { grace };
                sheep.state = State::Stopping { launch, end };
                self.effects.push(Effect::End { launch, grace, kind });
            }
            State::Launching { launch, .. } if is_forced => {
                let launch = *launch;
                sheep.state = State::Empty;
                self.effects.push(Effect::AbortLaunch { launch });
            }
            State::Empty
            | State::Launching { .. }
            | State::Stopping { .. }
            | State::Gone { .. }
            | State::Unfit { .. }
            | State::Reopening => {}
        }
        if is_forced && self.flock[no.0].state.is_vacant() {
            self.give_back_staged(no, |_| true);
        }
    }

    /// The runner's process is gone.
    pub(super) fn take_ended(
        &mut self,
        no: SheepNo,
        launch: LaunchNo,
        report: EndReport,
    ) -> Result<(), Rejected> {
        let sheep = &mut self.flock[no.0];
        let end = match std::mem::replace(&mut sheep.state, State::Empty) {
            State::Stopping { launch: current, end } if current == launch => end,
            other => {
                sheep.state = other;
                return Err(Rejected::Launch { sheep: no, launch });
            }
        };
        let is_orderly = matches!(&end, End::Died(death) if death.is_from_outside);
        if is_orderly && !sheep.sent.is_empty() && self.mode == Mode::Running {
            // Perhaps by a signal that the daemon gets, too: a job is not to blame then.
            let until = self.now.monotonic + SIGNAL_SKEW;
            sheep.state = State::Gone { end, report, until };
        } else {
            self.decide(no, &end, report);
        }
        self.advance(no);
        Ok(())
    }

    /// Nobody has ended the daemon together with its runner.
    pub(super) fn decide_gone(&mut self, no: SheepNo) {
        match std::mem::replace(&mut self.flock[no.0].state, State::Empty) {
            State::Gone { end, report, .. } => self.decide(no, &end, report),
            other => self.flock[no.0].state = other,
        }
    }

    /// What a runner that is gone had is decided.
    fn decide(&mut self, no: SheepNo, end: &End, report: EndReport) {
        let now = self.now;
        self.effects.push(Effect::EmptyTrash { sheep: no });
        let is_blamed = match end {
            // Whoever ends the daemon may have ended its runners, too.
            End::Died(death) => !death.is_blameless && self.mode == Mode::Running,
            End::Unreliable(_) => true,
            End::TimedOut(..) | End::Idle | End::KeptCancelled | End::Homeless | End::Drained => false,
        };
        let sheep = &mut self.flock[no.0];
        let sent: Vec<AttemptKey> = sheep.sent.drain(..).collect();
        let is_certain = is_blamed && sent.len() == 1;
        if is_blamed && sent.len() > 1 {
            sheep.careful = CAREFUL_ANSWERS;
            sheep.suspects = sent.len();
        }
        let crash_retries = sheep.limits.crash_retries;
        let EndReport { how, own } = report;
        for key in sent {
            let Some(attempt) = self.attempts.get(key) else { continue };
            let (job, is_cancelled) =
                (attempt.job.clone(), matches!(attempt.stage, Stage::Cancelling { .. }));
            let on = attempt.stage.on_runner().copied();
            let own = match &own {
                Some((of, own)) if *of == key => own.as_str(),
                Some(_) | None => "",
            };
            // A runner that ends in peace has sent what its jobs printed.
            let own = match end {
                End::Idle | End::Drained => "",
                End::Died(_)
                | End::Unreliable(_)
                | End::TimedOut(..)
                | End::KeptCancelled
                | End::Homeless => own,
            };
            if is_cancelled {
                let (id, token) = (job.id().clone(), job.token);
                self.effects.push(Effect::JoinLog { job: id, token, own: own.to_owned() });
                self.release(key, Release::Discard, None);
                continue;
            }
            if !own.is_empty() {
                let (job, number) = (job.id().clone(), job.token.number);
                self.effects.push(Effect::CompleteLog { job, number, text: own.to_owned() });
            }
            let had_begun = |death: &super::Death| {
                on.is_none_or(|on| {
                    on.is_heard_of || death.at.saturating_duration_since(on.since) >= BEGUN_AFTER
                })
            };
            let given_back = |cause| job.given_back(cause, Duration::ZERO, now.wall);
            let verdict = match end {
                End::Died(death) if on.is_some_and(|on| on.since >= death.at) => {
                    Err(given_back(GiveBack::Blameless))
                }
                // It was idle when somebody ended it. Should that be the job's doing after all, it counts.
                End::Died(death)
                    if is_certain && death.is_from_outside && !had_begun(death) && job.crashes() == 0 =>
                {
                    Err(given_back(GiveBack::Crashed))
                }
                End::Died(_) | End::Unreliable(_) if is_certain && job.crashes() < crash_retries => {
                    Err(given_back(GiveBack::Crashed))
                }
                End::Died(death) if is_certain => {
                    let message = format!("the runner {} ({DIED})", death.how);
                    Ok(crash(message, &death.how, own))
                }
                End::Unreliable(reason) if is_certain => Ok(crash(reason.clone(), &how, own)),
                End::TimedOut(late, limit) if late == job.id() => {
                    Ok(JobError::new(format!("The job ran longer than its limit of {limit:?}")))
                }
                End::Died(_)
                | End::Unreliable(_)
                | End::TimedOut(..)
                | End::Idle
                | End::KeptCancelled
                | End::Homeless
                | End::Drained => Err(given_back(GiveBack::Blameless)),
            };
            match verdict {
                Ok(error) => self.collect(key, Fate::Failed(error), OutputKind::Failed),
                Err(change) => self.release(key, Release::Discard, Some(change)),
            }
        }
        if matches!(end, End::Died(_) | End::Unreliable(_)) {
            self.rest(no);
        }
    }

    /// The model's runner died: it is left alone for a while.
    fn rest(&mut self, no: SheepNo) {
        let now: Instant = self.now.monotonic;
        let sheep = &mut self.flock[no.0];
        if let Some(model) = &sheep.model {
            sheep.cooldowns.begin(model, now);
            self.looks.is_wanted = true;
        }
    }

    /// No runner of the model could be started here. That is the sheep's failure and not the
    /// job's where another may still be able to; otherwise it is taken for the model's.
    pub(super) fn start_failed(&mut self, no: SheepNo, how: ModelFailure, error: &JobError) {
        let now = self.now.wall;
        let sheep = &mut self.flock[no.0];
        let Some(model) = sheep.model.clone() else { return };
        let has_died = how == ModelFailure::Died;
        if sheep.failing.len() >= MAX_FAILING {
            sheep.failing.clear();
        }
        sheep.failing.insert(model.clone());
        let crash_retries = sheep.limits.crash_retries;
        let may_elsewhere = |other: SheepNo| {
            let sheep = &self.flock[other.0];
            self.is_available(other) && !sheep.failing.contains(&model) && self.may_have(&model, other)
        };
        let is_elsewhere = self.all().any(may_elsewhere);
        if has_died || is_elsewhere {
            self.rest(no);
        }
        for key in self.take_ahead(no, |_| true) {
            let Some(attempt) = self.attempts.get(key) else { continue };
            let job = &attempt.job;
            let change = if is_elsewhere && job.is_unpinned() {
                job.given_back(GiveBack::Blameless, Duration::ZERO, now)
            } else if has_died && job.crashes() < crash_retries {
                job.given_back(GiveBack::Crashed, Duration::ZERO, now)
            } else {
                job.failed(error.clone(), Vec::new(), now)
            };
            self.release(key, Release::Discard, Some(change));
        }
    }
}

/// Why a job failed under which the runner died, or had to be ended: `how`. Of what it printed,
/// only the job's `own` words are for the job's client.
fn crash(message: String, how: &str, own: &str) -> JobError {
    JobError {
        message,
        exception_type: "RunnerDied".to_owned(),
        exception_traceback: match own.trim() {
            "" => how.to_owned(),
            own => format!("{how}; it last wrote: {own}"),
        },
    }
}
