//! What clients see: jobs, how their runs ended, and their outputs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shepherd_job::{Attempt as Token, Event, GiveBack, JobError, JobId, JobState, ObjectPath};
use shepherd_queue::{Change, ChangeRefused, Claimed, JobRecord, JobStore as _, ListQuery, Outbox as _};

use super::super::{AttemptKey, DIED, Job, LaunchNo, OutputKind, SheepNo};
use super::invariants::{Invariant, broken};
use super::runner::RunnerJob;
use super::scenario::{JobPlan, Outcome};
use super::store::at_once;
use super::world::World;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Done(Token),
    Failed,
    Cancelled,
}

/// One run of a job, from its submit to its end.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) seq: u64,
    pub(super) ended: Option<Ended>,
}

#[derive(Debug)]
pub(super) struct SimJob {
    pub(super) plan: JobPlan,
    pub(super) runs: Vec<Run>,
}

impl SimJob {
    pub(super) const fn new(plan: JobPlan) -> Self {
        Self { plan, runs: Vec::new() }
    }

    /// Whether its last run has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.runs.last().is_some_and(|run| run.ended.is_some())
    }
}

/// The outputs of an attempt: one that each attempt has, and one that only it has.
pub(super) fn outputs(token: Token) -> BTreeMap<String, String> {
    [("outputs/result".to_owned(), token.to_string()), (format!("outputs/of-{token}"), token.to_string())]
        .into()
}

/// What the code of a job raises that raises something.
pub(super) fn raised(job: &JobId, token: Token) -> String {
    format!("{job} raised in {token}")
}

/// The outputs in storage.
#[derive(Debug, Default)]
pub(super) struct Storage(BTreeMap<JobId, BTreeMap<String, String>>);

impl Storage {
    pub(super) fn put(&mut self, job: &JobId, path: &ObjectPath, data: &Bytes) {
        let data = String::from_utf8(data.to_vec()).expect("it is text");
        self.0.entry(job.clone()).or_default().insert(path.as_str().to_owned(), data);
    }

    /// Puts an attempt's outputs in place of those of earlier ones, if there can be any.
    pub(super) fn publish(&mut self, job: &JobId, outputs: BTreeMap<String, String>, is_first: bool) {
        let stored = self.0.entry(job.clone()).or_default();
        if !is_first {
            stored.clear();
        }
        stored.extend(outputs);
    }
}

impl World {
    /// The outputs that a client of the job sees.
    fn seen(&self, job: &JobId) -> BTreeMap<String, String> {
        let mut seen = self.storage.0.get(job).cloned().unwrap_or_default();
        let riding = at_once(self.queue.objects(job)).into_iter();
        seen.extend(riding.map(|(path, data)| {
            (path.as_str().to_owned(), String::from_utf8(data.to_vec()).expect("it is text"))
        }));
        seen
    }

    pub(super) fn open_jobs(&self) -> Vec<&JobId> {
        self.jobs.iter().filter(|(_, job)| !job.is_finished()).map(|(id, _)| id).collect()
    }

    pub(super) fn attempt_of(&self, job: &JobId, token: Token) -> Option<AttemptKey> {
        let is_it = |(_, attempt): &(&AttemptKey, &super::facts::SimAttempt)| {
            attempt.job.id() == job && attempt.job.token == token
        };
        self.attempts.iter().find(is_it).map(|(key, _)| *key)
    }

    pub(super) fn note_claimed(&mut self, sheep: SheepNo, jobs: &[Claimed]) {
        self.watch.liveness.claims.extend(jobs.iter().map(|claimed| (sheep, claimed.job.submitted_at)));
        let before = self.wall().before(self.plan.max_wait);
        for Claimed { job, .. } in jobs {
            let since_overdue = &mut self.watch.sheep[sheep.0].since_overdue;
            *since_overdue = if job.submitted_at < before { 0 } else { *since_overdue + 1 };
        }
        for Claimed { job, attempt, .. } in jobs {
            let is_held = self
                .attempts
                .values()
                .any(|held| held.job.token == *attempt && held.job.id() == &job.spec.id);
            if is_held {
                broken(
                    Invariant::EndsOnce,
                    format!("{} {attempt} is claimed twice by {sheep:?}", job.spec.id),
                );
            }
        }
    }

    /// A runner has written the outputs of a job.
    pub(super) fn wrote(&mut self, launch: LaunchNo, job: &RunnerJob) {
        let sheep = self.launches[&launch].sheep;
        match self.dirs.get_mut(&(sheep, job.job.clone())) {
            Some(dir) if dir.holder == job.key => dir.outputs = Some(job.token),
            other => broken(
                Invariant::OwnDirectory,
                format!("{launch:?} works on {} {} in a directory that is {other:?}", job.job, job.token),
            ),
        }
        if let Some(attempt) = self.attempts.get_mut(&job.key) {
            attempt.is_done = true;
        }
    }

    /// The outputs of a job that is done are taken out.
    pub(super) fn check_winner(&self, key: AttemptKey, job: &Job, kind: OutputKind) {
        match kind {
            OutputKind::Publish | OutputKind::Ride if !self.attempts[&key].is_done => {
                broken(Invariant::WinnersOutputs, format!("{} {} is not done", job.id(), job.token));
            }
            OutputKind::Publish | OutputKind::Ride | OutputKind::Failed => {}
        }
    }

    /// A change was made durable or refused.
    pub(super) fn note_committed(
        &mut self,
        key: Option<AttemptKey>,
        change: &Change,
        result: &Result<Arc<JobRecord>, ChangeRefused>,
    ) {
        let id = &change.job;
        match (&change.event, result) {
            (Event::Complete { attempt, .. }, Ok(record)) => {
                self.ended(record, Ended::Done(*attempt));
                self.check_outputs(id, *attempt);
            }
            (Event::Fail { error, .. }, Ok(record)) => {
                let key = key.expect("an attempt's outcome");
                self.check_blame(key, error);
                self.ended(record, Ended::Failed);
            }
            (Event::GiveBack { cause: GiveBack::Crashed, .. }, Ok(_)) => {
                let attempt = key.and_then(|key| self.attempts.get(&key));
                let is_start = attempt.is_some_and(|attempt| attempt.sent_to.is_none());
                if !is_start && !attempt.is_some_and(|attempt| attempt.may_be_blamed) {
                    broken(Invariant::Blame, format!("{id} counts as one that killed its runner"));
                }
            }
            (Event::Begin { .. } | Event::GiveBack { cause: GiveBack::Blameless, .. }, Ok(_)) => {}
            (Event::Claim { .. } | Event::Cancel { .. } | Event::Rerun, _) => {
                broken(Invariant::Bookkeeping, format!("{id}: an attempt commits {:?}", change.event));
            }
            (
                Event::Begin { attempt, .. }
                | Event::Complete { attempt, .. }
                | Event::Fail { attempt, .. }
                | Event::GiveBack { attempt, .. },
                Err(refused),
            ) => {
                let record = at_once(self.queue.get(id)).expect("no job is forgotten");
                let is_current = matches!(&record.state, JobState::Processing { attempt: current, .. } if current == attempt);
                if is_current {
                    broken(Invariant::EndsOnce, format!("{id} {attempt} is current and {refused}"));
                }
            }
        }
    }

    /// A run has come to its end.
    pub(super) fn ended(&mut self, record: &JobRecord, ended: Ended) {
        let id = &record.spec.id;
        let job = self.jobs.get_mut(id).expect("it was submitted");
        match job.runs.iter_mut().find(|run| run.seq == record.seq) {
            Some(run) if run.ended.is_none() => run.ended = Some(ended),
            other => {
                broken(Invariant::EndsOnce, format!("{id} ends with {ended:?}, and is {other:?}"));
            }
        }
    }

    fn check_outputs(&self, id: &JobId, token: Token) {
        let (seen, own) = (self.seen(id), outputs(token));
        if seen != own {
            broken(Invariant::WinnersOutputs, format!("{id} is done by {token} and has {seen:?}"));
        }
    }

    /// A job may fail only for what was its own, or what it was blamed for by the rules.
    fn check_blame(&self, key: AttemptKey, error: &JobError) {
        let attempt = &self.attempts[&key];
        let (id, token) = (attempt.job.id(), attempt.job.token);
        let limits = &self.plan.sheep[attempt.sheep.0].limits;
        let message = &error.message;
        let raises = self.jobs[id].plan.outcome == Outcome::Raises && *message == raised(id, token);
        let model = format!("{} ", attempt.job.record.spec.model);
        let is_start = message.starts_with(&model) && attempt.sent_to.is_none();
        let is_death = error.exception_type == "RunnerDied"
            && attempt.may_be_blamed
            && attempt.job.crashes() >= limits.crash_retries
            && (message.contains(DIED) || message.starts_with("the runner "));
        let is_late = message.starts_with("The job ran longer") && {
            let slack = self.time_slack();
            attempt.begun.is_some_and(|(begun, awake)| {
                let given_back = self.plan.sheep[attempt.sheep.0]
                    .limits
                    .heartbeat_timeout
                    .min(super::invariants::MAX_TICK);
                let limit = limits.run_timeout.expect("it ran longer than that");
                self.now - begun + slack >= limit
                    && self.awake() - awake + given_back * self.pauses + slack >= limit
            })
        };
        if !(raises || is_start || is_death || is_late || attempt.errors.contains(message)) {
            broken(Invariant::Blame, format!("{id} {token} fails with {error:?}"));
        }
    }

    /// What must be so when everything has ended.
    pub(super) fn check_end(&self) {
        for (id, job) in &self.jobs {
            let record = at_once(self.queue.get(id)).expect("no job is forgotten");
            let last = job.runs.last().expect("it was submitted");
            let ended = last.ended.as_ref();
            let is_same = match (&record.state, ended) {
                (JobState::Done { .. }, Some(Ended::Done(token))) => {
                    self.check_outputs(id, *token);
                    true
                }
                (JobState::Failed { .. }, Some(Ended::Failed))
                | (JobState::Cancelled { .. }, Some(Ended::Cancelled)) => true,
                (
                    JobState::Done { .. }
                    | JobState::Failed { .. }
                    | JobState::Cancelled { .. }
                    | JobState::Queued { .. }
                    | JobState::Processing { .. },
                    _,
                ) => false,
            };
            if !is_same || record.seq != last.seq {
                broken(Invariant::EndsOnce, format!("{id} ended with {ended:?} and is {:?}", record.state));
            }
        }
        let listed = at_once(self.queue.list(ListQuery { limit: usize::MAX, ..ListQuery::default() }));
        if listed.len() != self.jobs.len() {
            broken(Invariant::EndsOnce, format!("{} of {} jobs are known", listed.len(), self.jobs.len()));
        }
        if !self.attempts.is_empty() || !self.dirs.is_empty() || !self.commits.is_empty() {
            broken(
                Invariant::Bookkeeping,
                format!("at the end there are {:?}, {:?}, {:?}", self.attempts, self.dirs, self.commits),
            );
        }
    }
}
