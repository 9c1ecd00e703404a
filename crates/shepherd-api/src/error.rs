//! Errors as answers: the only place that knows which error is which status code.
//!
//! The body is `{"message": TEXT}`. Some codes are what clients of the first
//! shepherd rely on rather than what one would choose: an unknown job is a 400
//! on the routes that it had, and a 404 on later ones.

use std::borrow::Cow;

use http::header::{ALLOW, CONNECTION, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use shepherd_core::{ShepherdError, without_paths};

use crate::body::ApiBody;
use crate::json;
use crate::route::Methods;

/// The content type of every JSON answer.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// An answer, or why there is none.
pub(crate) type Answer = Result<Response<ApiBody>, ApiError>;

/// Why a request gets no better answer.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The request itself is wrong.
    BadRequest(Cow<'static, str>),
    /// The body broke off or its framing is wrong.
    BrokenBody,
    /// Not on behalf of this host or web page.
    Forbidden(String),
    /// No body in the time that it had.
    BodyStalled,
    /// A body over the limit.
    TooLarge { limit: u64 },
    /// No such path.
    NoSuchPath,
    /// Not by this method.
    Method(Methods),
    /// No such job, on a route that the first shepherd had.
    NoData { job: String },
    /// No such job, on a later route.
    UnknownJob { job: String },
    /// The job has no such file.
    NoSuchFile,
    /// The range lies outside the file.
    Range { size: u64 },
    /// The state of the job forbids it.
    Conflict(&'static str),
    /// The result of a job that has none, because it failed.
    JobFailed(String),
    /// Try again later.
    Unavailable(String),
    /// No space is left.
    Full,
    /// A defect of ours; its cause is in the log.
    Internal,
}

impl ApiError {
    /// What a shepherd's error means on a route that the first shepherd had.
    pub(crate) fn of_job(error: ShepherdError, job: impl AsRef<str>) -> Self {
        let job = job.as_ref();
        match error {
            ShepherdError::UnknownJob | ShepherdError::NoData => Self::NoData { job: job.to_owned() },
            ShepherdError::UnknownObject => Self::NoSuchFile,
            ShepherdError::AlreadySubmitted => Self::Conflict("A job with this ID was already submitted"),
            ShepherdError::UnknownSheep(id) => Self::unknown_sheep(&id),
            ShepherdError::Finished => Self::Conflict("The job is finished already"),
            ShepherdError::ShuttingDown => Self::shutting_down(),
            ShepherdError::Full => Self::Full,
            ShepherdError::Range { size } => Self::Range { size },
            ShepherdError::UnknownModel(message) => Self::BadRequest(message.into()),
            ShepherdError::Invalid(message) => {
                tracing::debug!(job, message, "what a client gave cannot be stored");
                Self::BadRequest(without_paths(&message).into())
            }
            ShepherdError::Unavailable(message) => {
                // The core logs an outage once; here it would be a line a request.
                tracing::debug!(job, message, "the shepherd is unavailable");
                Self::Unavailable(without_paths(&message))
            }
            error => {
                tracing::error!(job, %error, "an error without a status code");
                Self::Internal
            }
        }
    }

    /// What a shepherd's error means on a later route.
    pub(crate) fn of_new_route(error: ShepherdError, job: impl AsRef<str>) -> Self {
        match Self::of_job(error, job) {
            Self::NoData { job } => Self::UnknownJob { job },
            other => other,
        }
    }

    pub(crate) fn unknown_sheep(id: &str) -> Self {
        Self::BadRequest(format!("Unknown sheep id `{id}`").into())
    }

    pub(crate) fn shutting_down() -> Self {
        Self::Unavailable("The shepherd is shutting down".to_owned())
    }

    /// The answer.
    pub(crate) fn into_response(self) -> Response<ApiBody> {
        let text: Cow<'static, str> = match &self {
            Self::BadRequest(message) => message.clone(),
            Self::Forbidden(message) => message.clone().into(),
            Self::BrokenBody => "The request body could not be read".into(),
            Self::BodyStalled => "The request body did not arrive in time".into(),
            Self::TooLarge { limit } => format!("The request body exceeds the limit of {limit} bytes").into(),
            Self::NoSuchPath => "There is nothing at this path".into(),
            Self::Method(_) => "This path does not answer this method".into(),
            Self::NoData { job } => format!("Data for job `{job}` does not exist").into(),
            Self::UnknownJob { job } => format!("Job `{job}` does not exist").into(),
            Self::NoSuchFile => "Requested file does not exist".into(),
            Self::Range { size } => format!("The range is outside the file's {size} bytes").into(),
            Self::Conflict(message) => (*message).into(),
            Self::JobFailed(message) => or(message, "The job failed"),
            Self::Unavailable(message) => or(message, "The shepherd cannot answer now, try again later"),
            Self::Full => "No space is left for the job".into(),
            Self::Internal => "Internal error".into(),
        };
        let mut response = json_response(self.status(), json::message(&text));
        let headers = response.headers_mut();
        match self {
            Self::Method(methods) => {
                headers.insert(ALLOW, methods.header());
            }
            Self::Range { size } => {
                if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
                    headers.insert(CONTENT_RANGE, value);
                }
            }
            Self::BrokenBody | Self::BodyStalled => {
                // The end of the body is not known, so nothing can follow it.
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Self::BadRequest(_)
            | Self::Forbidden(_)
            | Self::NoSuchPath
            | Self::NoData { .. }
            | Self::UnknownJob { .. }
            | Self::NoSuchFile
            | Self::TooLarge { .. }
            | Self::Conflict(_)
            | Self::JobFailed(_)
            | Self::Unavailable(_)
            | Self::Full
            | Self::Internal => {}
        }
        response
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BrokenBody | Self::NoData { .. } => StatusCode::BAD_REQUEST,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NoSuchPath | Self::UnknownJob { .. } | Self::NoSuchFile => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::JobFailed(_) | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

fn or(message: &str, fallback: &'static str) -> Cow<'static, str> {
    if message.trim().is_empty() { fallback.into() } else { message.to_owned().into() }
}

/// An answer with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: bytes::Bytes) -> Response<ApiBody> {
    let mut response = Response::new(ApiBody::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}
