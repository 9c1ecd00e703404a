//! The routes about jobs themselves: status, readiness, waiting, withdrawing,
//! listing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, pending};
use http::StatusCode;
use shepherd_core::{JobRecord, ListQuery, ShepherdError};
use shepherd_job::{JobId, JobState};

use crate::api::{Api, State};
use crate::backend::Backend;
use crate::error::{ApiError, json_response};
use crate::json;
use crate::query::parameter;
use crate::stored::StoredStatus;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// How often the storage is asked by one who waits for a job that the queue does not
/// know.
const STORED_STATUS_PERIOD: Duration = Duration::from_secs(2);

/// Parses an id. An invalid id is treated as an unknown job.
pub(crate) fn parse_id<B: Backend>(api: &Api<B>, id: &str) -> Result<JobId, ApiError> {
    JobId::parse(id, api.options().job_id_rule).map_err(|_| ApiError::NoData { job: id.to_owned() })
}

/// A job as the routes of the first shepherd see it.
pub(crate) enum Known {
    /// The queue knows it.
    Queue(Arc<JobRecord>),
    /// Only the storage does.
    Storage(StoredStatus),
}

/// What came of a job so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is neither done nor failed.
    Unfinished,
    /// It has outputs.
    Done,
    /// It failed, with this message.
    Failed(String),
}

impl Known {
    /// Looks the job up in the queue and, only if that does not know it, in the storage
    /// by one request.
    pub(crate) async fn look<B: Backend>(api: &Api<B>, id: &JobId) -> Result<Self, ApiError> {
        match api.backend().job(id).await {
            Ok(job) => Ok(Self::Queue(job)),
            Err(ShepherdError::UnknownJob) => Self::look_in_storage(api, id).await,
            Err(error) => Err(ApiError::of_job(error, id)),
        }
    }

    async fn look_in_storage<B: Backend>(api: &Api<B>, id: &JobId) -> Result<Self, ApiError> {
        let document = api.backend().stored_status(id).await.map_err(|error| ApiError::of_job(error, id))?;
        StoredStatus::parse(&document).map(Self::Storage).ok_or_else(|| {
            tracing::debug!(job = %id, "the job's status document in storage is not a valid one");
            ApiError::of_job(ShepherdError::UnknownJob, id)
        })
    }

    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Queue(job) => match &job.state {
                JobState::Queued { .. } | JobState::Processing { .. } => Outcome::Unfinished,
                JobState::Failed { error, .. } => Outcome::Failed(error.message.clone()),
                JobState::Cancelled { .. } => Outcome::Failed(json::CANCELLED.to_owned()),
                JobState::Done { .. } => Outcome::Done,
            },
            Self::Storage(status) => status.outcome.clone(),
        }
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Queue(job) => job.state.is_finished(),
            Self::Storage(status) => status.outcome != Outcome::Unfinished,
        }
    }

    /// The status body, with the job's progress while it is in work.
    fn body<B: Backend>(&self, api: &Api<B>) -> Bytes {
        let job = match self {
            Self::Queue(job) => job,
            Self::Storage(status) => return status.body.clone(),
        };
        let progress = match job.state {
            JobState::Processing { .. } => api.backend().progress(&job.spec.id),
            JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => None,
        };
        json::status(job, progress.as_ref())
    }
}

/// `GET /jobs/ID/status`
pub(crate) fn status<B: Backend>(api: &Api<B>, id: &str) -> State {
    let id = match parse_id(api, id) {
        Ok(id) => id,
        Err(error) => return State::Ready(Err(error)),
    };
    let api = api.clone();
    State::later(async move {
        let job = Known::look(&api, &id).await?;
        Ok(json_response(StatusCode::OK, job.body(&api)))
    })
}

/// `GET /jobs/ID/ready`
pub(crate) fn ready<B: Backend>(api: &Api<B>, id: &str) -> State {
    let id = match parse_id(api, id) {
        Ok(id) => id,
        Err(error) => return State::Ready(Err(error)),
    };
    let api = api.clone();
    State::later(async move {
        let job = Known::look(&api, &id).await?;
        Ok(json_response(StatusCode::OK, json::ready(job.is_finished())))
    })
}

/// `GET /jobs/ID/wait_ready[?timeout=SECONDS]`
///
/// The future is dropped when the client leaves, and the waiting ends with it.
pub(crate) fn wait_ready<B: Backend>(api: &Api<B>, id: &str, query: Option<&str>) -> State {
    let checked = parse_id(api, id).and_then(|id| Ok((id, timeout(query)?)));
    let (id, timeout) = match checked {
        Ok(checked) => checked,
        Err(error) => return State::Ready(Err(error)),
    };
    let api = api.clone();
    State::later(async move {
        let timeout = match timeout {
            Some(timeout) => Either::Left(tokio::time::sleep(timeout)),
            None => Either::Right(pending()),
        };
        // All three are only dropped here, never resumed; `finished` goes first,
        // so that a job that is finished is never answered with 202 or 503.
        tokio::select! {
            biased;
            job = finished(&api, &id) => Ok(json_response(StatusCode::OK, job?.body(&api))),
            () = api.drain().begun() => Err(ApiError::shutting_down()),
            () = timeout => {
                let job = Known::look(&api, &id).await?;
                let status = if job.is_finished() { StatusCode::OK } else { StatusCode::ACCEPTED };
                Ok(json_response(status, job.body(&api)))
            }
        }
    })
}

/// Waits until the job is finished. One that only the storage knows may be another
/// shepherd's, whose changes nobody signals: its document is read again now and then.
async fn finished<B: Backend>(api: &Api<B>, id: &JobId) -> Result<Known, ApiError> {
    loop {
        match api.backend().finished(id).await {
            Ok(job) => return Ok(Known::Queue(job)),
            Err(ShepherdError::UnknownJob) => {
                let job = Known::look_in_storage(api, id).await?;
                if job.is_finished() {
                    return Ok(job);
                }
            }
            Err(error) => return Err(ApiError::of_job(error, id)),
        }
        tokio::time::sleep(STORED_STATUS_PERIOD).await;
    }
}

/// How long to wait; none is for ever, as is what a clock cannot hold.
fn timeout(query: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = parameter(query, "timeout") else { return Ok(None) };
    let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0).ok_or(
        ApiError::BadRequest("Invalid input: `timeout` must be a number of seconds, 0 or more".into()),
    )?;
    Ok(Duration::try_from_secs_f64(seconds).ok())
}

/// `POST /jobs/ID/cancel`
pub(crate) fn cancel<B: Backend>(api: &Api<B>, id: &str) -> State {
    let Ok(id) = parse_id(api, id) else {
        return State::Ready(Err(ApiError::UnknownJob { job: id.to_owned() }));
    };
    let api = api.clone();
    State::later(async move {
        let job = api.backend().cancel(&id).await.map_err(|error| ApiError::of_new_route(error, &id))?;
        Ok(json_response(StatusCode::OK, json::later_status(&job)))
    })
}

/// `GET /jobs[?limit=N][&before=CURSOR][&status=WORD]`
pub(crate) fn list<B: Backend>(api: &Api<B>, query: Option<&str>) -> State {
    let mut query = match list_query(query) {
        Ok(query) => query,
        Err(message) => return State::Ready(Err(ApiError::BadRequest(message.into()))),
    };
    let api = api.clone();
    State::later(async move {
        // One more than is shown, to know whether there is a next page.
        let limit = query.limit;
        query.limit += 1;
        let mut jobs = api.backend().jobs(query).await.map_err(|error| ApiError::of_new_route(error, ""))?;
        let more = jobs.len() > limit;
        jobs.truncate(limit);
        let next = jobs.last().filter(|_| more).map(|job: &Arc<JobRecord>| job.seq);
        Ok(json_response(StatusCode::OK, json::jobs(&jobs, next)))
    })
}

fn list_query(query: Option<&str>) -> Result<ListQuery, &'static str> {
    let limit = match parameter(query, "limit") {
        None => DEFAULT_LIMIT,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_LIMIT).contains(limit))
            .ok_or("Invalid input: `limit` must be an integer from 1 to 1000")?,
    };
    let before = match parameter(query, "before") {
        None => None,
        Some(text) => Some(
            text.parse().map_err(|_| "Invalid input: `before` must be the `next` of an earlier answer")?,
        ),
    };
    let phases = match parameter(query, "status") {
        None => &[],
        Some(word) => json::phases(&word).ok_or(
            "Invalid input: `status` must be one of `accepted`, `queued`, `processing`, `done`, `failed`, `cancelled`",
        )?,
    };
    Ok(ListQuery { phases: phases.to_vec(), before, limit })
}
