//! Jobs that are pinned to a sheep that is no longer configured.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shepherd_job::{Event, JobError, SheepId};
use shepherd_queue::{Change, Claim, Group, Pins, QueueError};

use crate::clock::now;
use crate::shared::Shared;
use crate::write_back::WriteBack;

/// What becomes of jobs that are pinned to a sheep that is not configured any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemovedSheep {
    /// They wait until it is configured again, or their clients withdraw them.
    #[default]
    Wait,
    /// They fail.
    Fail,
    /// Any sheep may take them.
    Unpin,
}

/// How many of them fail in one commit.
const BATCH: usize = 256;

pub(crate) struct Orphans {
    policy: RemovedSheep,
    flock: HashSet<SheepId>,
    /// How many jobs wait for each sheep that is no more.
    found: Mutex<BTreeMap<SheepId, usize>>,
}

impl Orphans {
    pub(crate) fn new(flock: HashSet<SheepId>, policy: RemovedSheep) -> Self {
        Self { policy, flock, found: Mutex::default() }
    }

    /// Sorts out what can be claimed now: the groups that are left may be scheduled, the
    /// given ones are to fail.
    pub(crate) fn sort(&self, ready: &mut Vec<Group>) -> Vec<Group> {
        let mut found = BTreeMap::<SheepId, usize>::new();
        let mut failing = Vec::new();
        ready.retain_mut(|group| {
            let Some(pin) = group.sheep.clone().filter(|pin| !self.flock.contains(pin)) else { return true };
            *found.entry(pin).or_default() += group.ready;
            match self.policy {
                RemovedSheep::Wait => {}
                RemovedSheep::Fail => failing.push(group.clone()),
                RemovedSheep::Unpin => group.sheep = None,
            }
            self.policy == RemovedSheep::Unpin
        });
        let mut before = self.found();
        for (sheep, jobs) in found.iter().filter(|(sheep, _)| !before.contains_key(*sheep)) {
            let fate = match self.policy {
                RemovedSheep::Wait => "they wait until it is",
                RemovedSheep::Fail => "they fail",
                RemovedSheep::Unpin => "any sheep may take them",
            };
            tracing::warn!(%sheep, jobs, "jobs are for a sheep that is not configured: {fate} (`scheduler.removed_sheep`)");
        }
        *before = found;
        failing
    }

    /// The sheep whose jobs any sheep may take.
    pub(crate) fn unpinned(&self) -> Option<Arc<[SheepId]>> {
        let found = self.found();
        (self.policy == RemovedSheep::Unpin && !found.is_empty()).then(|| found.keys().cloned().collect())
    }

    /// What is to be told of jobs that wait.
    pub(crate) fn notices(&self) -> Vec<String> {
        if self.policy != RemovedSheep::Wait {
            return Vec::new();
        }
        let notice = |(sheep, jobs): (&SheepId, &usize)| {
            let wait = if *jobs == 1 { "job waits" } else { "jobs wait" };
            format!("{jobs} {wait} for the sheep `{sheep}`, which is not configured")
        };
        self.found().iter().map(notice).collect()
    }

    /// Fails the jobs of a group that [`sort`](Self::sort) gave.
    ///
    /// # Errors
    /// When the queue does not answer. What was claimed then is given back at the next start.
    pub(crate) async fn fail(
        &self,
        shared: &Shared,
        write_back: &WriteBack,
        group: Group,
    ) -> Result<(), QueueError> {
        let Some(sheep) = group.sheep else { return Ok(()) };
        loop {
            let claim =
                Claim { pins: Pins::Only, ..Claim::new(group.model.clone(), sheep.clone(), BATCH, now()) };
            let claimed = shared.queue.claim(&shared.lease, claim).await?;
            if claimed.is_empty() {
                return Ok(());
            }
            let changes: Vec<Change> = claimed
                .into_iter()
                .map(|claimed| {
                    let error = JobError::new(format!(
                        "The sheep `{sheep}`, which the job is for, is not configured"
                    ));
                    let event = Event::Fail { attempt: claimed.attempt, error, at: now() };
                    Change { job: claimed.job.spec.id.clone(), event, objects: Vec::new() }
                })
                .collect();
            let mut backoff = crate::retry::store_backoff();
            let results = loop {
                match shared.queue.apply(changes.clone()).await {
                    Ok(results) => break results,
                    // Who drains gives them back at the next start.
                    Err(error) if shared.tasks.draining.is_cancelled() => return Err(error),
                    Err(error) => {
                        tracing::error!(%error, "cannot record that jobs failed; trying again");
                        let wait: Duration = backoff.step();
                        tokio::time::sleep(wait).await;
                    }
                }
            };
            // One that was cancelled meanwhile has been told about.
            results.into_iter().flatten().for_each(|record| shared.tell(&record));
            write_back.wake();
        }
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<SheepId, usize>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
