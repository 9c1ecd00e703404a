//! Ending jobs and runners: because a client, the time or the runner itself wants
//! it, and what then becomes of the jobs that the runner had.

use std::time::Duration;

use futures::future::BoxFuture;
use shepherd_job::{GiveBack, JobError, JobId};
use shepherd_protocol::ToRunner;
use shepherd_queue::Change;
use tokio::time::Instant;

use super::hand::{Job, Sent};
use super::{CAREFUL, End, Keeper, State, ops, runner};

impl Keeper {
    pub(super) fn cancel(&mut self, id: &JobId, number: u32) {
        let is_meant = |job: &Job| job.id() == id && job.attempt.number == number;
        if let Some(index) = self.hand.prepared.iter().position(is_meant) {
            self.hand.prepared.remove(index);
            ops::release(&mut self.outcomes, &self.dirs, vec![id.clone()]);
        } else if let Some(sent) = self.hand.sent.iter_mut().find(|sent| is_meant(&sent.job)) {
            sent.let_go_by = Some(Instant::now() + self.keeping.stop_grace);
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
        if self.hand.sent.is_empty() {
            return;
        }
        self.sharing = true;
        self.give_back_prepared(Duration::ZERO);
        if !self.can_recall() {
            return;
        }
        let mut messages = Vec::new();
        for sent in self.hand.waiting(self.slots).filter(|sent| sent.job.is_anybodys()) {
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

    pub(super) fn check_time(&mut self) {
        let State::Running(runner) = &mut self.state else { return };
        self.hand.printed(runner, &self.shared.live);
        let now = Instant::now();
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
                    other => tracing::warn!(sheep = %id, reason = ?other, "ending the runner"),
                }
                let grace = match &end {
                    End::Idle | End::Drained => self.keeping.stop_grace,
                    End::Died(_) | End::Unreliable(_) | End::TimedOut(..) | End::KeptCancelled => {
                        Duration::ZERO
                    }
                };
                let grace = if self.force_seen { Duration::ZERO } else { grace };
                let forced = self.forced.clone();
                let stopping: BoxFuture<'static, String> = match &end {
                    End::Idle => Box::pin(async move {
                        runner.leave(grace, forced).await;
                        String::new()
                    }),
                    End::Died(_)
                    | End::Unreliable(_)
                    | End::TimedOut(..)
                    | End::KeptCancelled
                    | End::Drained => Box::pin(runner.stop(grace, forced)),
                };
                self.state = State::Stopping(stopping, Some(end));
            }
            State::Starting(..) if self.force_seen => {}
            other => self.state = other,
        }
        if matches!(self.state, State::None) && self.force_seen {
            self.give_back_prepared(Duration::ZERO);
        }
    }

    /// The runner's process is gone: what it had can be decided.
    pub(super) fn take_stopped(&mut self, log: &str) {
        let State::Stopping(_, end) = std::mem::replace(&mut self.state, State::None) else {
            return;
        };
        ops::empty_trash(&mut self.outcomes, &self.dirs, &self.sheep);
        let sent: Vec<Sent> = self.hand.sent.drain(..).collect();
        let Some(end) = end else { return };
        let is_blamed = match &end {
            End::Died(death) => !death.is_blameless,
            End::Unreliable(_) => true,
            End::TimedOut(..) | End::Idle | End::KeptCancelled | End::Drained => false,
        };
        let certain = is_blamed && sent.len() == 1;
        if is_blamed && sent.len() > 1 {
            self.careful = CAREFUL;
            self.suspects = sent.len();
        }
        let mut changes = Vec::new();
        for Sent { job, let_go_by, .. } in &sent {
            if let_go_by.is_some() {
                continue;
            }
            changes.push(match &end {
                End::Died(death) if certain => self.crashed(job, runner::DIED, &death.details),
                End::Unreliable(reason) if certain => self.crashed(job, reason, log),
                End::TimedOut(late, limit) if late == job.id() => {
                    job.failed(JobError::new(format!("The job ran longer than its limit of {limit:?}")))
                }
                End::Died(_)
                | End::Unreliable(_)
                | End::TimedOut(..)
                | End::Idle
                | End::KeptCancelled
                | End::Drained => job.given_back(GiveBack::Blameless, Duration::ZERO),
            });
        }
        if matches!(end, End::Died(_) | End::Unreliable(_)) {
            self.rest();
        }
        self.vacate(&sent.into_iter().map(|sent| sent.job).collect::<Vec<_>>(), changes);
    }

    pub(super) fn crashed(&self, job: &Job, message: &str, details: &str) -> Change {
        if job.crashes() < self.keeping.crash_retries {
            return job.given_back(GiveBack::Crashed, Duration::ZERO);
        }
        job.failed(JobError {
            message: message.to_owned(),
            exception_type: "RunnerDied".to_owned(),
            exception_traceback: details.to_owned(),
        })
    }

    pub(super) fn give_back_prepared(&mut self, after: Duration) {
        if self.hand.prepared.is_empty() {
            return;
        }
        let jobs: Vec<Job> = self.hand.prepared.drain(..).collect();
        let changes = jobs.iter().map(|job| job.given_back(GiveBack::Blameless, after)).collect();
        self.vacate(&jobs, changes);
    }

    /// Removes the jobs' directories, and only then lets their fates be known: one
    /// that is given back may come to this sheep again at once.
    pub(super) fn vacate(&mut self, jobs: &[Job], changes: Vec<Change>) {
        self.hand.collecting += changes.len();
        ops::vacate(&mut self.outcomes, &self.dirs, jobs, changes);
    }
}
