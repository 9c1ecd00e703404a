//! What can go wrong, by what the caller can do about it.

/// Why there is no better answer. None of them holds what a URL says of a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client was given what cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// The shepherd refuses the request as it is.
    #[error("the shepherd refuses the request: {message} (status {status})")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// The shepherd's reason.
        message: String,
    },
    /// The shepherd knows no such job.
    #[error("job `{0}` does not exist")]
    UnknownJob(String),
    /// The job is known and has no such file.
    #[error("job `{job}` has no file `{file}`")]
    UnknownFile {
        /// The job.
        job: String,
        /// The file.
        file: String,
    },
    /// Another job with this id is there already.
    #[error("a job with the id `{0}` was already submitted")]
    AlreadySubmitted(String),
    /// It is too late to cancel the job.
    #[error("job `{0}` is finished already")]
    AlreadyFinished(String),
    /// The job has ended without a result.
    #[error("job `{job}` failed: {}", error.message)]
    Failed {
        /// The job.
        job: String,
        /// Why.
        error: crate::JobError,
    },
    /// The job has ended because somebody withdrew it.
    #[error("job `{0}` was cancelled")]
    Cancelled(String),
    /// The job has not finished in the time that was given.
    #[error("job `{0}` has not finished in time")]
    Timeout(String),
    /// The shepherd cannot be reached, or cannot answer now. What was submitted may have been accepted: repeat it with
    /// the same id and [`Submission::exist_ok`](crate::Submission::exist_ok).
    #[error("the shepherd cannot be asked: {0}")]
    Unavailable(String),
    /// What answers is no shepherd, or one of another kind.
    #[error("an answer that was not expected: {0}")]
    Unexpected(String),
}
