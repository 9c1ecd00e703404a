//! What the shepherd is told at the end of a job.
//!
//! | the job | was not told to stop | cancelled | the runner exits | the shepherd is gone |
//! |---|---|---|---|---|
//! | returned `Ok`, and never saw that it should stop | done | done | done | nothing |
//! | returned `Ok`, and saw it | | cancelled | nothing | nothing |
//! | returned `interrupted`, or any error after it saw it | error | cancelled | nothing | nothing |
//! | returned another error | error | error | error | nothing |
//!
//! Where nothing is said because the runner exits, the shepherd gives the job to
//! another runner. A job that the runner had not begun by then is answered as cancelled,
//! without which nobody could tell it from those that it had.

use shepherd_job::JobError;
use shepherd_protocol::{CANCELLED, FromRunner, Input};

use crate::stop::Stop;
use crate::{Job, RunError};

/// The answer, if anybody waits for one.
fn answer(job: &Job, outcome: Result<(), RunError>) -> Option<FromRunner> {
    let outcome = job.take_failure().map_or(outcome, Err);
    let (id, attempt) = (job.id().to_owned(), Some(job.attempt()));
    let gave_up = job.has_noticed() || outcome.as_ref().is_err_and(|error| error.interrupted);
    match (job.stop_reason(), gave_up) {
        (Some(Stop::Disconnected), _) | (Some(Stop::Shutdown { .. }), true) => None,
        (Some(Stop::Cancelled), true) => Some(FromRunner::Error { job: id, attempt, error: cancelled() }),
        (None, _) | (Some(Stop::Cancelled | Stop::Shutdown { .. }), false) => Some(match outcome {
            Ok(()) => FromRunner::Done { job: id, attempt },
            Err(error) => FromRunner::Error { job: id, attempt, error: error.error },
        }),
    }
}

/// The job is over: the rest of its log, and its answer if anybody waits for one.
pub(super) fn last_messages(job: &Job, outcome: Result<(), RunError>) -> impl Iterator<Item = FromRunner> {
    let log = job.close();
    log.into_iter().chain(answer(job, outcome))
}

/// The answer for a job that was not begun, and will not be.
pub(super) fn given_up(input: &Input) -> FromRunner {
    FromRunner::Error { job: input.job.as_str().to_owned(), attempt: Some(input.attempt), error: cancelled() }
}

pub(super) fn cancelled() -> JobError {
    JobError { exception_type: CANCELLED.to_owned(), ..JobError::new("the job was cancelled") }
}
