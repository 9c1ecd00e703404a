//! What goes wrong: with one job, and with the runner.

use std::error::Error;

use shepherd_job::JobError;

/// Why a job failed. Any error turns into one with `?`, with its sources in the
/// message and its type beside it.
#[derive(Debug)]
pub struct RunError {
    pub(crate) error: JobError,
    pub(crate) interrupted: bool,
}

impl RunError {
    /// An error with a message for the job's client.
    pub fn new(message: impl Into<String>) -> Self {
        Self { error: JobError::new(message), interrupted: false }
    }

    /// The job was told to stop, and did.
    pub fn interrupted() -> Self {
        Self { error: JobError::new("the job was interrupted"), interrupted: true }
    }

    /// Names the kind of the error, such as an exception's type.
    #[must_use]
    pub fn with_type(mut self, exception_type: impl Into<String>) -> Self {
        self.error.exception_type = exception_type.into();
        self
    }

    /// Adds where it was raised, or whatever else helps.
    #[must_use]
    pub fn with_traceback(mut self, traceback: impl Into<String>) -> Self {
        self.error.exception_traceback = traceback.into();
        self
    }
}

impl<E: Error> From<E> for RunError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(message).with_type(std::any::type_name::<E>())
    }
}

/// The job was told to stop ([`Job::checkpoint`](crate::Job::checkpoint),
/// [`Job::unless_cancelled`](crate::Job::unless_cancelled)). It may become any other
/// error on its way: what counts is that the job saw that it should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job was told to stop")]
pub struct Cancelled;

/// Why a runner ended that was not told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It cannot listen where it should.
    #[error("cannot listen for the shepherd")]
    Listen(#[source] shepherd_protocol::Error),
    /// Its options contradict each other.
    #[error("the runner's options cannot be served: {0}")]
    Options(&'static str),
    /// Its set-up failed or panicked.
    #[error("the runner's set-up failed: {0}")]
    Setup(String),
    /// The system refuses a thread or a signal handler.
    #[error("cannot start the runner")]
    Start(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::fmt::Error);

    #[test]
    fn an_error_keeps_its_sources_and_its_type() {
        let error = RunError::from(Outer(std::fmt::Error)).error;
        assert_eq!(error.message, format!("outer: {}", std::fmt::Error));
        assert!(error.exception_type.ends_with("Outer"));
    }
}
