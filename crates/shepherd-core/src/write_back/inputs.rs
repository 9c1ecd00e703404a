//! Who stores the small inputs of jobs that the store still has: a batch, or whoever is about to
//! end the job. From its end on, what is in storage may be its client's own.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use shepherd_job::{JobId, ObjectPath};
use shepherd_storage::{JobObjects, Put, StorageError};

use super::{WriteBack, lock};
use crate::live::log_path;
use crate::shared::Shared;

/// How long a job that failed or was cancelled waits for its input to come to storage before that
/// is told.
const STORE_AT_END: Duration = Duration::from_millis(500);

/// The jobs whose small inputs are being stored, or are, while the store still has them.
#[derive(Debug, Default)]
pub(super) struct Inputs(Mutex<HashMap<JobId, State>>);

/// What is done with small inputs that the store still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// They are part of the batch that is being written.
    InBatch,
    /// Whoever is about to end the job stores them.
    Apart,
    /// They are in storage. What is there now may be the client's own.
    Stored,
}

/// What a batch does with a job's small inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It stores them.
    Store,
    /// They are in storage.
    Stored,
    /// The job ends in this moment, and comes again.
    Busy,
}

/// Forgets, when it is dropped, which inputs are part of the batch.
pub(super) struct InBatch<'a>(&'a Inputs);

impl Inputs {
    /// Begins a batch.
    pub(super) fn begin_batch(&self) -> InBatch<'_> {
        InBatch(self)
    }

    /// What remains of the job in storage's debt is gone.
    pub(super) fn forget(&self, job: &JobId) {
        let mut states = lock(&self.0);
        if states.get(job) == Some(&State::Stored) {
            states.remove(job);
        }
    }

    fn are_stored(&self, job: &JobId) -> bool {
        lock(&self.0).get(job) == Some(&State::Stored)
    }
}

impl InBatch<'_> {
    /// Decides what the batch does with a job's inputs, if it `has_inputs`.
    pub(super) fn claim(&self, job: &JobId, has_inputs: bool) -> Claim {
        let mut states = lock(&self.0.0);
        match states.get(job) {
            Some(State::Apart) => Claim::Busy,
            Some(State::Stored) => Claim::Stored,
            Some(State::InBatch) | None => {
                if has_inputs {
                    states.insert(job.clone(), State::InBatch);
                }
                Claim::Store
            }
        }
    }
}

impl Drop for InBatch<'_> {
    fn drop(&mut self) {
        lock(&self.0.0).retain(|_, state| *state != State::InBatch);
    }
}

/// Forgets, when it is dropped, that somebody stores a job's inputs, unless they are stored.
struct Apart<'a> {
    inputs: &'a Inputs,
    job: &'a JobId,
}

impl Drop for Apart<'_> {
    fn drop(&mut self) {
        let mut states = lock(&self.inputs.0);
        if states.get(self.job) == Some(&State::Apart) {
            states.remove(self.job);
        }
    }
}

impl WriteBack {
    /// [`store_inputs`](Self::store_inputs) of a job that is about to end without outputs, for a
    /// moment: one whose storage does not take them is told to have ended all the same, and they
    /// come to storage later, where they replace nothing.
    pub(crate) async fn store_inputs_soon(&self, shared: &Shared, job: &JobId) {
        let stored = tokio::time::timeout(STORE_AT_END, self.store_inputs(shared, job));
        let error = match stored.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the storage did not take it within {STORE_AT_END:?}"),
        };
        tracing::warn!(%job, error, "the input of a job that ends comes to storage later");
    }

    /// Stores the small inputs that the store still has of a job, so that whoever hears that it
    /// has ended finds all of it in storage, and nothing is written there behind a client's back
    /// from then on.
    pub(crate) async fn store_inputs(&self, shared: &Shared, job: &JobId) -> Result<(), StorageError> {
        loop {
            match *lock(&self.inputs.0).entry(job.clone()).or_insert(State::Apart) {
                State::Stored => return Ok(()),
                State::Apart => break,
                State::InBatch => {}
            }
            self.finish_batch().await;
        }
        let _apart = Apart { inputs: &self.inputs, job };
        let objects =
            shared.queue.objects(job).await.map_err(|e| StorageError::Unavailable(e.to_string()))?;
        if objects.is_empty() {
            return Ok(());
        }
        let inputs = JobObjects::new(job.clone(), &Put::New, objects);
        let failed_before = shared.storage.failed_syncs();
        let stored = shared.storage.put_small(vec![inputs]).await;
        stored.into_iter().collect::<Result<(), _>>()?;
        shared.sync_since(failed_before).await?;
        lock(&self.inputs.0).insert(job.clone(), State::Stored);
        Ok(())
    }

    /// Whether an object that the store still has makes the job's data when it is written: neither
    /// a log does, nor inputs that are in storage already.
    pub(crate) fn will_make_data(&self, job: &JobId, path: &ObjectPath) -> bool {
        let is_output = path.as_str().starts_with("outputs/");
        *path != log_path() && (is_output || !self.inputs.are_stored(job))
    }
}
