//! Making outcomes durable: one task, which takes all that wait into one call of the store.

use std::sync::Arc;

use shepherd_job::{Event, SheepId};
use shepherd_queue::Change;
use tokio::sync::mpsc;

use super::Inputs;
use crate::engine::{AttemptKey, Input};
use crate::journal;
use crate::retry::store_backoff;
use crate::shared::Shared;
use crate::supervise::TaskKind;
use crate::write_back::WriteBack;

/// At most this many changes are made by one call.
const MAX_BATCH: usize = 1024;

/// A change that is to become durable.
#[derive(Debug)]
pub(super) struct Commit {
    /// Whose outcome it is; none where nobody waits for it.
    pub(super) attempt: Option<AttemptKey>,
    pub(super) sheep: SheepId,
    pub(super) change: Change,
}

/// Starts the task. It ends when what was sent is durable and the sender is gone.
pub(super) fn start(
    shared: &Arc<Shared>,
    write_back: &Arc<WriteBack>,
    inputs: &Inputs,
) -> mpsc::UnboundedSender<Commit> {
    let (sender, mut waiting) = mpsc::unbounded_channel();
    let (shared_too, write_back, inputs) = (Arc::clone(shared), Arc::clone(write_back), inputs.clone());
    shared.tasks.spawn(TaskKind::Critical, "commits", async move {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
            // At the drain the rest is written when all has ended.
            tokio::select! {
                () = write_back.admits_outcomes(&shared_too) => {}
                () = shared_too.tasks.draining.cancelled() => {}
            }
            apply(&shared_too, &mut batch, &inputs).await;
            write_back.wake();
        }
    });
    sender
}

/// Has a change made durable.
pub(super) fn commit(
    shared: &Arc<Shared>,
    write_back: &Arc<WriteBack>,
    commits: &mpsc::UnboundedSender<Commit>,
    commit: Commit,
) {
    let has_failed = matches!(commit.change.event, Event::Fail { .. });
    if !(shared.storage_is_remote() && has_failed) {
        // The task ends only after the driver.
        let _ = commits.send(commit);
        return;
    }
    let (shared_too, write_back, commits) = (Arc::clone(shared), Arc::clone(write_back), commits.clone());
    shared.tasks.spawn(TaskKind::Effect, "inputs of a failed job", async move {
        // Once it is known that a job failed, its input in storage is its client's to mend.
        write_back.store_inputs_soon(&shared_too, &commit.change.job).await;
        let _ = commits.send(commit);
    });
}

/// Makes changes durable, however long the store is away, and wakes those who wait for them.
/// Repeating is harmless: what was applied by an earlier try is fenced.
async fn apply(shared: &Shared, batch: &mut Vec<Commit>, inputs: &Inputs) {
    let mut backoff = store_backoff();
    let changes: Vec<Change> = batch.iter().map(|commit| commit.change.clone()).collect();
    let results = loop {
        match shared.queue.apply(changes.clone()).await {
            Ok(results) => break results,
            Err(error) => {
                let wait = backoff.step();
                tracing::error!(%error, jobs = changes.len(), retry_in = ?wait, "cannot record what became of jobs");
                tokio::time::sleep(wait).await;
            }
        }
    };
    let mut committed = Vec::with_capacity(batch.len());
    for (commit, result) in batch.drain(..).zip(results) {
        let Commit { attempt, sheep, change } = commit;
        // Nobody waits for a begin: the job was in work before.
        let Some(attempt) = attempt else { continue };
        let record = match result {
            Ok(record) => {
                journal::ended(&record, Some(&sheep));
                Some(record)
            }
            Err(refused) => {
                tracing::debug!(job = %change.job, %refused, "an outcome came too late");
                // What counted instead, an earlier try of this or a cancel, may have woken nobody.
                shared.queue.get(&change.job).await.ok().flatten()
            }
        };
        if let Some(record) = record {
            shared.tell(&record);
        }
        committed.push(Input::Committed { attempt });
    }
    inputs.send_all(committed).await;
}
