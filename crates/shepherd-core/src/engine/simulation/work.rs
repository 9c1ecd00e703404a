//! What is done with attempts' directories: filling, taking outputs out, publishing, freeing.

use std::time::Duration;

use bytes::Bytes;
use shepherd_job::{JobError, JobState, ObjectPath};

use super::super::{AttemptKey, Collected, Input, OutputKind, Published, StageFailure, Staged};
use super::events::Step;
use super::facts::Dir;
use super::faults::Fault;
use super::invariants::{Invariant, broken};
use super::ledger::outputs;
use super::store::at_once;
use super::world::World;
use shepherd_queue::JobStore as _;

/// How long the storage is not asked again that was away.
const RETRY: Duration = Duration::from_millis(300);
/// How long a job waits whose inputs cannot be read at present.
const STAGE_RETRY: Duration = Duration::from_secs(2);

/// What is done with an attempt once its time has passed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Stage,
    Collect(OutputKind),
    Publish { has_failed: bool },
    Release,
}

impl World {
    pub(super) fn is_storage_away(&mut self) -> bool {
        let is_away = self.now < self.storage_away_until;
        if is_away {
            self.faults.note(Fault::StorageAway);
        }
        is_away
    }

    pub(super) fn work(&mut self, key: AttemptKey, work: Work) {
        match work {
            Work::Stage => self.stage(key),
            Work::Collect(kind) => self.collect(key, kind),
            Work::Publish { has_failed } => self.publish(key, has_failed),
            Work::Release => {
                self.free(key);
                let delay = self.latency();
                self.send(delay, Input::Released { attempt: key });
            }
        }
    }

    /// The attempt's directory is no more.
    fn free(&mut self, key: AttemptKey) {
        let attempt = &self.attempts[&key];
        let place = (attempt.sheep, attempt.job.id().clone());
        match self.dirs.remove(&place) {
            Some(Dir { holder, .. }) if holder == key => {}
            other => broken(Invariant::OwnDirectory, format!("{key} frees {place:?}, which is {other:?}")),
        }
    }

    fn stage(&mut self, key: AttemptKey) {
        let SimAttemptFacts { sheep, id, is_payload, model } = self.facts(key);
        let error = format!("the inputs of {id} are bad");
        let failure = if self.sheep[sheep].is_homeless {
            self.faults.note(Fault::HomeLost);
            Some(StageFailure::Homeless)
        } else if self.faults.strikes(&mut self.rng, Fault::StageFails) {
            self.attempts.get_mut(&key).unwrap().errors.push(error.clone());
            Some(StageFailure::Fault(JobError::new(error)))
        } else if self.faults.strikes(&mut self.rng, Fault::StageLater)
            || (!is_payload && self.is_storage_away())
        {
            Some(StageFailure::Later(STAGE_RETRY))
        } else {
            None
        };
        let result = match failure {
            Some(failure) => {
                self.free(key);
                Err(failure)
            }
            None => {
                let took = (!is_payload).then_some(self.now - self.attempts[&key].since);
                let has_stamps = self.plan.sheep[sheep].has_stamps;
                let stamp = has_stamps.then(|| self.stamps.get(&model).copied().unwrap_or(0));
                Ok(Staged { took, stamp })
            }
        };
        let delay = self.latency();
        self.send(delay, Input::Staged { attempt: key, result });
    }

    fn facts(&self, key: AttemptKey) -> SimAttemptFacts {
        let attempt = &self.attempts[&key];
        let id = attempt.job.id().clone();
        let is_payload = self.jobs[&id].plan.is_payload;
        let model = attempt.job.record.spec.model.clone();
        SimAttemptFacts { sheep: attempt.sheep.0, id, is_payload, model }
    }

    fn collect(&mut self, key: AttemptKey, kind: OutputKind) {
        let SimAttemptFacts { sheep, id, .. } = self.facts(key);
        let is_small = self.jobs[&id].plan.is_small;
        let error = format!("the outputs of {id} cannot be read");
        let is_looked_at = kind != OutputKind::Publish;
        let result = if is_looked_at && self.sheep[sheep].is_homeless {
            self.faults.note(Fault::OutputsLost);
            self.free(key);
            match kind {
                OutputKind::Failed => Collected::Unreadable(JobError::new(error)),
                OutputKind::Publish | OutputKind::Ride => Collected::Lost,
            }
        } else if is_looked_at && self.faults.strikes(&mut self.rng, Fault::OutputsUnreadable) {
            self.attempts.get_mut(&key).unwrap().errors.push(error.clone());
            self.free(key);
            Collected::Unreadable(JobError::new(error))
        } else if is_looked_at && is_small {
            let token = self.dirs[&(self.attempts[&key].sheep, id.clone())].outputs;
            self.free(key);
            let objects = token.map(outputs).unwrap_or_default();
            let object = |(path, data): (String, String)| {
                (ObjectPath::parse(&path).unwrap(), Bytes::from(data.into_bytes()))
            };
            Collected::Small(objects.into_iter().map(object).collect())
        } else {
            Collected::Files
        };
        let delay = self.latency();
        self.send(delay, Input::Collected { attempt: key, result });
    }

    fn publish(&mut self, key: AttemptKey, has_failed: bool) {
        let SimAttemptFacts { sheep, id, .. } = self.facts(key);
        let (token, is_first) = (self.attempts[&key].job.token, self.attempts[&key].job.first);
        let error = format!("the outputs of {id} cannot be stored");
        if self.is_store_away() || (self.is_storage_away() && !has_failed) {
            let retry = RETRY + self.latency();
            return self.after(retry, Step::Work(key, Work::Publish { has_failed }));
        }
        let record = at_once(self.queue.get(&id)).expect("no job is forgotten");
        let is_current =
            matches!(record.state, JobState::Processing { attempt: current, .. } if current == token);
        let result = if !is_current {
            self.faults.note(Fault::PublishStale);
            Published::Stale
        } else if self.sheep[sheep].is_homeless && !has_failed {
            self.faults.note(Fault::OutputsLost);
            Published::Lost
        } else if !has_failed && self.faults.strikes(&mut self.rng, Fault::PublishRefused) {
            self.attempts.get_mut(&key).unwrap().errors.push(error.clone());
            Published::Refused(JobError::new(error))
        } else {
            let place = (self.attempts[&key].sheep, id.clone());
            let found = self.dirs.get(&place).filter(|dir| dir.holder == key);
            let Some(&Dir { outputs: of, .. }) = found else {
                broken(Invariant::OwnDirectory, format!("{key} publishes what is not in {place:?}"))
            };
            if !has_failed && of != Some(token) {
                broken(Invariant::WinnersOutputs, format!("{id} {token} publishes the outputs of {of:?}"));
            }
            if !self.is_storage_away() {
                self.storage.publish(&id, of.map(outputs).unwrap_or_default(), is_first);
            }
            if !has_failed && self.faults.strikes(&mut self.rng, Fault::PublishLost) {
                Published::Lost
            } else {
                Published::Kept
            }
        };
        self.free(key);
        let delay = self.latency_or(Fault::PublishSlow);
        self.send(delay, Input::Published { attempt: key, result });
    }
}

struct SimAttemptFacts {
    sheep: usize,
    id: shepherd_job::JobId,
    is_payload: bool,
    model: shepherd_job::ModelRef,
}
