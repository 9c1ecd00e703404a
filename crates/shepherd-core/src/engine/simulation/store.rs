//! The job store as the driver uses it: looks, claims, commits and the writing back of small
//! objects. It is the real [`MemoryStore`](shepherd_queue::MemoryStore), which may be away.

use std::collections::HashSet;
use std::time::Duration;

use futures::FutureExt as _;
use shepherd_job::{ModelRef, NodeId, Timestamp};
use shepherd_queue::{Claim, JobStore as _, Join, Outbox as _, PendingLimits, Ready};

use super::super::{Input, Mode, QueueView, SheepNo};
use super::events::Step;
use super::facts::Commit;
use super::faults::Fault;
use super::world::World;

/// How long the store is not asked again that was away.
const RETRY: Duration = Duration::from_millis(200);
/// At most so many changes are made durable at once.
const MAX_BATCH: usize = 64;
const WRITE_BACK_PERIOD: Duration = Duration::from_millis(700);

/// A question to the store.
#[derive(Debug)]
pub(super) enum StoreCall {
    Look,
    Claim { sheep: SheepNo, model: ModelRef, limit: usize, overdue: Option<Timestamp> },
}

/// The life of the only node that begins now. Nobody else takes its jobs, however long it is silent.
pub(super) fn joining(at: Timestamp) -> Join {
    Join { node: NodeId::parse("meadow").unwrap(), at, lease: Duration::from_secs(1) }
}

/// The answer of a queue that answers at once.
pub(super) fn at_once<T>(answer: impl Future<Output = shepherd_queue::Result<T>>) -> T {
    answer.now_or_never().expect("the memory answers at once").expect("the memory cannot fail")
}

impl World {
    pub(super) fn is_store_away(&mut self) -> bool {
        let is_away = self.now < self.store_away_until;
        if is_away {
            self.faults.note(Fault::StoreAway);
        }
        is_away
    }

    pub(super) fn ask_store(&mut self, call: StoreCall) {
        let is_away = self.is_store_away();
        match call {
            StoreCall::Look if is_away || self.faults.strikes(&mut self.rng, Fault::LookFails) => {
                let delay = self.latency();
                self.send(delay, Input::Looked(Err("the store is away".to_owned())));
            }
            StoreCall::Look => {
                let ready = at_once(self.queue.ready(self.wall()));
                let view = self.view(ready);
                // What sheep lack may take long to be told.
                let delay = self.latency();
                self.send(delay, Input::Looked(Ok(view)));
            }
            StoreCall::Claim { sheep, .. } if is_away && self.mode() != Some(Mode::Running) => {
                self.input(Input::Claimed { sheep, jobs: Vec::new() });
            }
            call @ StoreCall::Claim { .. } if is_away => self.after(RETRY, Step::Store(call)),
            StoreCall::Claim { sheep, model, limit, overdue } => {
                let id = self.plan.sheep[sheep.0].id.clone();
                let claim = Claim { overdue, ..Claim::new(model, id, limit, self.wall()) };
                // A claim takes effect when its answer is there.
                let jobs = at_once(self.queue.claim(&self.lease, claim));
                self.note_claimed(sheep, &jobs);
                self.input(Input::Claimed { sheep, jobs });
            }
        }
    }

    /// What waits, and which sheep cannot run it. Where no sheep can, whoever may take a job does,
    /// and it fails there.
    fn view(&self, ready: Ready) -> QueueView {
        let mut lacking = vec![HashSet::new(); self.sheep.len()];
        let mut pinned = vec![HashSet::new(); self.sheep.len()];
        for group in &ready.groups {
            let Some(model) = self.plan.models.iter().find(|model| model.model == group.model) else {
                continue;
            };
            let takes = |no: &usize| group.sheep.as_ref().is_none_or(|pin| *pin == self.plan.sheep[*no].id);
            let is_served = (0..self.sheep.len()).filter(takes).any(|no| !model.lacking[no]);
            for no in 0..self.sheep.len() {
                if is_served && model.lacking[no] {
                    lacking[no].insert(group.model.clone());
                } else if !is_served && group.sheep.is_some() && takes(&no) {
                    pinned[no].insert(group.model.clone());
                }
            }
        }
        for (lacking, pinned) in lacking.iter_mut().zip(&pinned) {
            lacking.retain(|model| !pinned.contains(model));
        }
        QueueView { is_waiting: !ready.groups.is_empty(), ready, lacking }
    }

    /// Has a change made durable, with others that wait.
    pub(super) fn commit(&mut self, commit: Commit) {
        self.commits.push_back(commit);
        if self.commits_at.is_none() {
            let delay = self.latency_or(Fault::CommitSlow);
            self.commits_at = Some(self.now + delay);
            self.after(delay, Step::Commits);
        }
    }

    pub(super) fn make_durable(&mut self) {
        if self.is_store_away() {
            self.commits_at = Some(self.now + RETRY);
            self.after(RETRY, Step::Commits);
            return;
        }
        self.commits_at = None;
        let count = self.commits.len().min(self.rng.usize(1..=MAX_BATCH));
        let delay = self.latency_or(Fault::CommitSlow);
        for Commit { attempt, change } in self.commits.drain(..count).collect::<Vec<_>>() {
            let result = at_once(self.queue.apply(vec![change.clone()])).pop().expect("one answer for each");
            self.note_committed(attempt, &change, &result);
            self.trace.line(self.now, || match &result {
                Ok(record) => format!("  durable: {} {:?}", change.job, record.state),
                Err(refused) => format!("  refused: {} {:?}: {refused}", change.job, change.event),
            });
            if let Some(attempt) = attempt {
                self.send(delay, Input::Committed { attempt });
            }
        }
        if !self.commits.is_empty() {
            self.commits_at = Some(self.now + delay);
            self.after(delay, Step::Commits);
        }
    }

    /// Writes small objects to storage as files.
    pub(super) fn write_back(&mut self) {
        self.after(WRITE_BACK_PERIOD, Step::WriteBack);
        if self.is_store_away() || self.is_storage_away() {
            return;
        }
        let behind = at_once(self.queue.pending(None, PendingLimits::jobs(8)));
        for behind in &behind {
            for (path, data) in &behind.objects {
                self.storage.put(&behind.job.spec.id, path, data);
            }
        }
        at_once(self.queue.delivered(behind));
    }
}
