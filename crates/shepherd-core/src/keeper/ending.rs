//! Ending jobs and runners: because a client, the time or the runner itself wants
//! it, and what then becomes of the jobs that the runner had.

use std::time::Duration;

use futures::future::BoxFuture;
use shepherd_job::{Event, GiveBack, JobError, JobId};
use shepherd_protocol::ToRunner;
use shepherd_queue::Change;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hand::{Job, Sent};
use super::ops::SmallOutputs;
use super::runner::{Ended, ModelFailure};
use super::{CAREFUL, End, Keeper, State, ops, runner};
use crate::schedule::UNKNOWN;

/// A runner that somebody ended so shortly after it got a job had hardly begun it.
const BEGUN_AFTER: Duration = Duration::from_millis(250);
/// How far apart one signal to several processes may reach them.
const SIGNAL_SKEW: Duration = Duration::from_millis(250);
/// Making room for urgent jobs is worth it when they would wait this long.
const YIELD_COST: Duration = Duration::from_millis(200);
/// So many models are remembered whose runners do not start.
const MAX_FAILING: usize = 1024;

impl Keeper {
    pub(super) fn cancel(&mut self, id: &JobId, number: u32) {
        let is_meant = |job: &Job| job.id() == id && job.attempt.number == number;
        if let Some(index) = self.hand.prepared.iter().position(is_meant) {
            self.hand.prepared.remove(index);
            ops::release(&mut self.outcomes, &self.dirs, vec![id.clone()]);
        } else if let Some(sent) = self.hand.sent.iter_mut().find(|sent| is_meant(&sent.job)) {
            sent.let_go_by = Some(Instant::now() + self.keeping.stop_grace);
            sent.late = Some(self.shared.live.new_log());
            self.shared.live.forget(id);
            let message = ToRunner::Cancel { job: id.clone(), attempt: sent.job.attempt };
            if let State::Running(runner) = &mut self.state
                && let Err(end) = runner.send(&[message])
            {
                self.end(end);
            }
        } else if self.hand.is_preparing(is_meant) {
            self.hand.withdrawn.insert((id.clone(), number));
        }
    }

    /// Gives up what is ready ahead, and asks back what the runner has and has not
    /// begun: a job that takes long must not hold up those that were sent with it
    /// because their forerunners were quick.
    pub(super) fn share(&mut self) {
        // A runner that starts has begun nothing; where there is none, nothing is held up.
        if self.hand.sent.is_empty() && !matches!(self.state, State::Starting(..)) {
            return;
        }
        self.sharing = true;
        self.give_back_where(Job::is_anybodys);
        self.recall(Job::is_anybodys);
    }

    /// Makes room for jobs of `priority` that wait in the queue, where less urgent ones
    /// would keep them waiting for long.
    pub(super) fn yield_to(&mut self, priority: i32) {
        let age = self.hand.sent.front().map(|sent| sent.since.elapsed()).unwrap_or_default();
        let each = self.pace.mean().unwrap_or(UNKNOWN).max(age);
        let ahead = self.hand.prepared.len() + self.hand.waiting(self.slots).count();
        if each.saturating_mul(u32::try_from(ahead).unwrap_or(u32::MAX)) < YIELD_COST {
            return;
        }
        self.give_back_where(|job| job.priority() < priority);
        self.recall(|job| job.priority() < priority);
    }

    /// Asks jobs back that the runner has and has not begun.
    pub(super) fn recall(&mut self, which: impl Fn(&Job) -> bool) {
        if !self.can_recall() {
            return;
        }
        let mut messages = Vec::new();
        for sent in self.hand.waiting(self.slots).filter(|sent| which(&sent.job)) {
            sent.is_recalled = true;
            messages.push(ToRunner::Cancel { job: sent.job.id().clone(), attempt: sent.job.attempt });
        }
        if let State::Running(runner) = &self.state
            && let Err(end) = runner.send(&messages)
        {
            self.end(end);
        }
    }

    /// Whether the runner can let go of a job that it has.
    pub(super) fn can_recall(&self) -> bool {
        matches!(&self.state, State::Running(runner) if runner.can_cancel())
    }

    /// Looks whether the runner or a job takes too long, at a tick that was `due` then.
    pub(super) fn check_time(&mut self, due: Instant) {
        let period = self.tick_period();
        let State::Running(runner) = &mut self.state else { return };
        self.hand.printed(runner, &self.shared.live);
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        if late > period {
            // This process was stopped, or starved: no clock of a runner's goes on meanwhile.
            tracing::warn!(?late, "the daemon itself was held up; runners get the time back");
            runner.last_heard = now.min(runner.last_heard + late);
            self.hand.delayed(late, now);
        }
        if runner.last_heard.elapsed() > self.keeping.heartbeat_timeout {
            let silent = self.keeping.heartbeat_timeout;
            self.end(End::Unreliable(format!("the runner did not answer for {silent:?}")));
            return;
        }
        if runner.last_heard.elapsed() > self.keeping.heartbeat_timeout / 4
            && let Err(end) = runner.ping()
        {
            self.end(end);
            return;
        }
        if self.hand.sent.iter().any(|sent| sent.let_go_by.is_some_and(|by| by <= now)) {
            self.end(End::KeptCancelled);
            return;
        }
        let (slots, limit) = (self.slots, self.keeping.run_timeout);
        let late = limit.and_then(|limit| {
            let sent = self.hand.sent.iter().take(slots).find(|sent| now - sent.since > limit)?;
            Some((sent.job.id().clone(), limit))
        });
        if let Some((id, limit)) = late {
            self.end(End::TimedOut(id, limit));
        }
    }

    /// Ends the runner. Its jobs keep their places until it is gone.
    pub(super) fn end(&mut self, end: End) {
        // What it answered it has answered.
        self.take_awaiting();
        match std::mem::replace(&mut self.state, State::None) {
            State::Running(mut runner) => {
                self.hand.printed(&mut runner, &self.shared.live);
                let id = &self.cell.facts().view.id;
                match &end {
                    End::Idle | End::Drained => tracing::info!(sheep = %id, "ending the runner"),
                    other => tracing::warn!(sheep = %id, reason = %other, "ending the runner"),
                }
                let grace = match &end {
                    End::Idle | End::Drained => self.keeping.stop_grace,
                    End::Died(_)
                    | End::Unreliable(_)
                    | End::TimedOut(..)
                    | End::KeptCancelled
                    | End::Homeless => Duration::ZERO,
                };
                let grace = if self.force_seen { Duration::ZERO } else { grace };
                let forced = self.forced.clone();
                let stopping: BoxFuture<'static, Ended> = match &end {
                    End::Idle => Box::pin(async move {
                        runner.leave(grace, forced).await;
                        Ended::default()
                    }),
                    End::Died(_)
                    | End::Unreliable(_)
                    | End::TimedOut(..)
                    | End::KeptCancelled
                    | End::Homeless
                    | End::Drained => {
                        let is_orderly = matches!(&end, End::Died(death) if death.is_from_outside)
                            && !self.hand.sent.is_empty();
                        let draining = self.shared.tasks.draining.clone();
                        Box::pin(async move {
                            let ended = runner.stop(grace, forced).await;
                            if is_orderly {
                                Self::is_same_signal(draining).await;
                            }
                            ended
                        })
                    }
                };
                self.state = State::Stopping(stopping, Some(end));
            }
            State::Starting(..) if self.force_seen => {}
            other => self.state = other,
        }
        if matches!(self.state, State::None) && self.force_seen {
            self.give_back_prepared();
        }
    }

    /// The runner is gone, and perhaps by a signal that the daemon got, too: waits a moment
    /// for that, since a job is not to blame then.
    async fn is_same_signal(draining: CancellationToken) {
        tokio::select! {
            () = draining.cancelled() => {}
            () = tokio::time::sleep(SIGNAL_SKEW) => {}
        }
    }

    /// The runner's process is gone: what it had can be decided.
    pub(super) fn take_stopped(&mut self, ended: &Ended) {
        let State::Stopping(_, end) = std::mem::replace(&mut self.state, State::None) else {
            return;
        };
        ops::empty_trash(&mut self.outcomes, &self.dirs, &self.sheep);
        self.hand.note_printed(&ended.printed, self.slots, ended.prints_for_jobs, &self.shared.live);
        let sent: Vec<Sent> = self.hand.sent.drain(..).collect();
        let Some(end) = end else { return };
        let draining = self.shared.tasks.draining.is_cancelled();
        let is_blamed = match &end {
            // Whoever ends the daemon may have ended its runners, too.
            End::Died(death) => !death.is_blameless && !draining,
            End::Unreliable(_) => true,
            End::TimedOut(..) | End::Idle | End::KeptCancelled | End::Homeless | End::Drained => false,
        };
        let certain = is_blamed && sent.len() == 1;
        if is_blamed && sent.len() > 1 {
            self.careful = CAREFUL;
            self.suspects = sent.len();
        }
        let mut changes = Vec::new();
        let mut jobs = Vec::with_capacity(sent.len());
        for sent in sent {
            let job = sent.job.clone();
            // A runner that ends in peace has sent what its jobs printed.
            let own = match &end {
                End::Idle | End::Drained => "",
                End::Died(_)
                | End::Unreliable(_)
                | End::TimedOut(..)
                | End::KeptCancelled
                | End::Homeless => self.hand.words.of(&job),
            }
            .to_owned();
            jobs.push(job.clone());
            if sent.let_go_by.is_some() {
                self.keep_late(sent, &own);
                continue;
            }
            self.shared.live.complete(job.id(), job.attempt.number, &own);
            let job = &job;
            if let End::Died(death) = &end
                && certain
                && !sent.is_heard_of
                && death.is_from_outside
                && death.at.saturating_duration_since(sent.since) < BEGUN_AFTER
                && job.crashes() == 0
            {
                // It was idle when somebody ended it. Should that be the job's doing after all, it counts.
                changes.push(job.given_back(GiveBack::Crashed, Duration::ZERO));
                continue;
            }
            changes.push(match &end {
                End::Died(death) if certain => self.crashed(
                    job,
                    format!("the runner {} ({})", death.how, runner::DIED),
                    &death.how,
                    &own,
                ),
                End::Unreliable(reason) if certain => self.crashed(job, reason.clone(), &ended.how, &own),
                End::TimedOut(late, limit) if late == job.id() => {
                    job.failed(JobError::new(format!("The job ran longer than its limit of {limit:?}")))
                }
                End::Died(_)
                | End::Unreliable(_)
                | End::TimedOut(..)
                | End::Idle
                | End::KeptCancelled
                | End::Homeless
                | End::Drained => job.given_back(GiveBack::Blameless, Duration::ZERO),
            });
        }
        if matches!(end, End::Died(_) | End::Unreliable(_)) {
            self.rest();
        }
        self.decide(jobs.into_iter(), changes);
    }

    /// Throws away what a runner that is gone has left of jobs, but keeps the outputs of
    /// those that fail.
    fn decide(&mut self, jobs: impl Iterator<Item = Job>, mut changes: Vec<Change>) {
        let (mut failed, mut given_up) = (Vec::new(), Vec::new());
        for job in jobs {
            let fails =
                |change: &Change| change.job == *job.id() && matches!(change.event, Event::Fail { .. });
            match changes.iter().position(fails).map(|index| changes.remove(index).event) {
                Some(Event::Fail { error, .. }) => failed.push((job, ops::Fate::Failed(error))),
                Some(_) | None => given_up.push(job),
            }
        }
        self.vacate(&given_up, changes);
        if !failed.is_empty() {
            self.hand.collecting += failed.len();
            ops::collect(&mut self.outcomes, &self.shared, &self.dirs, failed, SmallOutputs::Ride);
        }
    }

    /// No runner of the model could be started here. That is the sheep's failure and not the
    /// job's where another may still be able to; otherwise it is taken for the model's.
    pub(super) fn start_failed(&mut self, how: ModelFailure, error: &JobError) {
        let Some(model) = self.model.clone() else { return };
        let has_died = how == ModelFailure::Died;
        {
            let mut facts = self.cell.facts();
            if facts.failing.len() >= MAX_FAILING {
                facts.failing.clear();
            }
            facts.failing.insert(model.clone());
        }
        let is_elsewhere = self.flock.iter().any(|cell| {
            let facts = cell.facts();
            facts.available && !facts.failing.contains(&model) && self.models.may_have(&model, &facts.view.id)
        });
        if has_died || is_elsewhere {
            self.rest();
        }
        let jobs: Vec<Job> = self.hand.prepared.drain(..).collect();
        let fate = |job: &Job| {
            if is_elsewhere && job.is_anybodys() {
                job.given_back(GiveBack::Blameless, Duration::ZERO)
            } else if has_died && job.crashes() < self.keeping.crash_retries {
                job.given_back(GiveBack::Crashed, Duration::ZERO)
            } else {
                job.failed(error.clone())
            }
        };
        let changes = jobs.iter().map(fate).collect();
        self.vacate(&jobs, changes);
    }

    /// The runner died under the job, or had to be ended: `how`. Of what it printed, only the
    /// job's `own` words are for the job's client.
    fn crashed(&self, job: &Job, message: String, how: &str, own: &str) -> Change {
        if job.crashes() < self.keeping.crash_retries {
            return job.given_back(GiveBack::Crashed, Duration::ZERO);
        }
        let own = own.trim();
        job.failed(JobError {
            message,
            exception_type: "RunnerDied".to_owned(),
            exception_traceback: match own {
                "" => how.to_owned(),
                own => format!("{how}; it last wrote: {own}"),
            },
        })
    }

    /// Adds to its log what a cancelled job has printed until its runner let go of it. `own`
    /// is the end of what a runner that had to be ended printed for it.
    pub(super) fn keep_late(&mut self, sent: Sent, own: &str) {
        if let Some(late) = sent.late
            && (!late.is_empty() || !own.is_empty())
        {
            self.hand.late += 1;
            let (shared, settling) = (&self.shared, &self.settling);
            ops::keep_late(&mut self.outcomes, shared, settling, sent.job, late, own.to_owned());
        }
    }

    pub(super) fn give_back_prepared(&mut self) {
        self.give_back_where(|_| true);
    }

    /// Gives back those of the prepared jobs.
    fn give_back_where(&mut self, which: impl Fn(&Job) -> bool) {
        let (jobs, kept): (Vec<Job>, Vec<Job>) = self.hand.prepared.drain(..).partition(which);
        self.hand.prepared = kept.into();
        if !jobs.is_empty() {
            let changes =
                jobs.iter().map(|job| job.given_back(GiveBack::Blameless, Duration::ZERO)).collect();
            self.vacate(&jobs, changes);
        }
    }

    /// Removes the jobs' directories, and only then lets their fates be known: one
    /// that is given back may come to this sheep again at once.
    pub(super) fn vacate(&mut self, jobs: &[Job], changes: Vec<Change>) {
        self.hand.collecting += changes.len();
        ops::vacate(&mut self.outcomes, &self.dirs, jobs, changes);
    }
}
