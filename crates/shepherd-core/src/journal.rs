//! What the log says of each job.

use shepherd_job::{JobState, SheepId};
use shepherd_queue::JobRecord;

/// How many characters of a job's error are logged.
const MAX_ERROR: usize = 500;

/// Logs the end of a job in one line, or that it is queued again. `sheep` worked on it.
pub(crate) fn ended(record: &JobRecord, sheep: Option<&SheepId>) {
    let (outcome, started_at, finished_at, error) = match &record.state {
        JobState::Done { started_at, finished_at, .. } => ("done", Some(*started_at), *finished_at, None),
        JobState::Failed { started_at, finished_at, error, .. } => {
            ("failed", Some(*started_at), *finished_at, Some(error))
        }
        JobState::Cancelled { started_at, finished_at, .. } => ("cancelled", *started_at, *finished_at, None),
        JobState::Queued { .. } => {
            tracing::debug!(job = %record.spec.id, "given back to the queue");
            return;
        }
        JobState::Processing { .. } => return,
    };
    let waited = started_at.unwrap_or(finished_at).since(record.submitted_at);
    let ran = started_at.map(|started_at| finished_at.since(started_at));
    let error: Option<String> = error.map(|error| error.message.chars().take(MAX_ERROR).collect());
    tracing::info!(
        job = %record.spec.id,
        model = %record.spec.model,
        sheep = sheep.map(tracing::field::display),
        outcome,
        waited = ?waited,
        ran = ran.map(tracing::field::debug),
        error = error.map(tracing::field::display),
        "the job has ended"
    );
}
