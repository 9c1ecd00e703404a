//! The end of attempts: from the runner's answer, or the moment they are given up, to a durable
//! outcome and a free directory.

use std::time::Duration;

use shepherd_job::{Event, GiveBack};
use shepherd_queue::Change;

use super::attempt::{Attempt, AttemptKey, Fate, Job, Stage};
use super::io::{Collected, Effect, OutputKind, Published, Release, SheepNo};
use super::{Engine, Rejected, wrong_stage};

/// How long a job waits whose outputs the storage may have lost.
const RUN_AGAIN_DELAY: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn take_collected(&mut self, key: AttemptKey, result: Collected) -> Result<(), Rejected> {
        let attempt = self.attempts.get_mut(key).ok_or(Rejected::Unknown(key))?;
        let fate = match std::mem::replace(&mut attempt.stage, Stage::Committing) {
            Stage::Collecting(fate) => fate,
            other => {
                attempt.stage = other;
                return Err(wrong_stage(key, &attempt.stage));
            }
        };
        let (sheep, job, now) = (attempt.sheep, attempt.job.clone(), self.now.wall);
        let change = match (result, fate) {
            (Collected::Small(objects), Fate::Done) => job.done(objects, now),
            (Collected::Small(objects), Fate::Failed(error)) => job.failed(error, objects, now),
            (Collected::Files, fate) => {
                let has_failed = matches!(fate, Fate::Failed(_));
                attempt.stage = Stage::Publishing(fate);
                self.effects.push(Effect::Publish { attempt: key, sheep, job, has_failed });
                return Ok(());
            }
            (Collected::Unreadable(_) | Collected::Lost, Fate::Failed(error)) => {
                job.failed(error, Vec::new(), now)
            }
            (Collected::Unreadable(error), Fate::Done) => job.failed(error, Vec::new(), now),
            (Collected::Lost, Fate::Done) => job.given_back(GiveBack::Blameless, RUN_AGAIN_DELAY, now),
        };
        self.commit(key, change);
        self.advance(sheep);
        Ok(())
    }

    pub(super) fn take_published(&mut self, key: AttemptKey, result: Published) -> Result<(), Rejected> {
        let attempt = self.attempts.get_mut(key).ok_or(Rejected::Unknown(key))?;
        let fate = match std::mem::replace(&mut attempt.stage, Stage::Committing) {
            Stage::Publishing(fate) => fate,
            other => {
                attempt.stage = other;
                return Err(wrong_stage(key, &attempt.stage));
            }
        };
        let (sheep, job, now) = (attempt.sheep, attempt.job.clone(), self.now.wall);
        match (result, fate) {
            (Published::Stale, _) => {
                self.forget(key);
            }
            (_, Fate::Failed(error)) => self.commit(key, job.failed(error, Vec::new(), now)),
            (Published::Kept, Fate::Done) => self.commit(key, job.done(Vec::new(), now)),
            (Published::Refused(error), Fate::Done) => {
                self.commit(key, job.failed(error, Vec::new(), now));
            }
            (Published::Lost, Fate::Done) => {
                let cause = GiveBack::Blameless;
                self.commit(key, job.given_back(cause, RUN_AGAIN_DELAY, now));
            }
        }
        self.advance(sheep);
        Ok(())
    }

    pub(super) fn take_released(&mut self, key: AttemptKey) -> Result<(), Rejected> {
        let attempt = self.attempts.get_mut(key).ok_or(Rejected::Unknown(key))?;
        let sheep = attempt.sheep;
        match std::mem::replace(&mut attempt.stage, Stage::Committing) {
            Stage::Releasing(Some(change)) => self.commit(key, change),
            Stage::Releasing(None) => {
                self.forget(key);
            }
            other => {
                attempt.stage = other;
                return Err(wrong_stage(key, &attempt.stage));
            }
        }
        self.advance(sheep);
        Ok(())
    }

    /// Has a change of an attempt made durable. Its directory is free.
    pub(super) fn commit(&mut self, key: AttemptKey, change: Change) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        debug_assert!(
            !matches!(change.event, Event::Claim { .. } | Event::Rerun | Event::Cancel { .. }),
            "an attempt ends or goes back"
        );
        attempt.stage = Stage::Committing;
        let sheep = attempt.sheep;
        self.effects.push(Effect::Commit { attempt: key, sheep, change });
    }

    /// Has the directory of an attempt freed, and then `change` committed.
    pub(super) fn release(&mut self, key: AttemptKey, how: Release, change: Option<Change>) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.stage = Stage::Releasing(change);
        let (sheep, job) = (attempt.sheep, attempt.job.id().clone());
        self.effects.push(Effect::Release { attempt: key, sheep, job, how });
    }

    /// Has the outputs of an attempt that the runner is through with dealt with.
    pub(super) fn collect(&mut self, key: AttemptKey, fate: Fate, kind: OutputKind) {
        let Some(attempt) = self.attempts.get_mut(key) else { return };
        attempt.stage = Stage::Collecting(fate);
        let (sheep, job) = (attempt.sheep, attempt.job.clone());
        self.effects.push(Effect::Collect { attempt: key, sheep, job, kind });
    }

    /// Holds a claimed job.
    pub(super) fn hold(&mut self, sheep: SheepNo, job: Job, stage: Stage) -> AttemptKey {
        let id = job.id().clone();
        let key = self.attempts.insert(Attempt { sheep, job, stage });
        self.by_job.entry(id).or_default().push(key);
        self.flock[sheep.0].held += 1;
        key
    }

    /// Holds an attempt no more; whose it was.
    pub(super) fn forget(&mut self, key: AttemptKey) -> SheepNo {
        let attempt = self.attempts.remove(key).expect("only attempts that are held are forgotten");
        if let Some(keys) = self.by_job.get_mut(attempt.job.id()) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_job.remove(attempt.job.id());
            }
        }
        self.flock[attempt.sheep.0].held -= 1;
        attempt.sheep
    }
}
