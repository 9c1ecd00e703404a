//! What answers mean, and how paths are spelled.

use std::time::Duration;

use bytes::Bytes;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{CONNECT_TIMEOUT, STREAM_IDLE_TIMEOUT};
use crate::{Error, Result};

/// What stands for itself in a segment of a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Bytes,
}

/// There was no whole answer.
#[derive(Debug)]
pub(crate) struct Lost {
    /// Whether the request may have arrived.
    pub(crate) sent: bool,
    pub(crate) why: String,
    /// How long nothing was heard before.
    pub(crate) silent: Duration,
}

impl Lost {
    pub(crate) fn new(error: reqwest::Error) -> Self {
        let sent = !error.is_connect();
        let silent = match (error.is_timeout(), sent) {
            (false, _) => Duration::ZERO,
            (true, false) => CONNECT_TIMEOUT,
            (true, true) => STREAM_IDLE_TIMEOUT,
        };
        let error = error.without_url();
        // The text of the outermost error says next to nothing.
        let mut why = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            why = format!("{why}: {inner}");
            source = inner.source();
        }
        Self { sent, why, silent }
    }

    /// Nothing came in the time that there was.
    pub(crate) fn silent(silent: Duration) -> Self {
        Self { sent: true, why: format!("it has been silent for {silent:.1?}"), silent }
    }
}

/// Why a request is made again, if there is patience for that.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) why: String,
    /// How long nothing was heard before.
    pub(crate) silent: Duration,
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, silent: Duration::ZERO }
    }
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Unexpected(error.to_string()))
    }

    /// Whether to try again: a proxy found no shepherd, or the shepherd ends or lacks its storage.
    pub(crate) const fn try_again(&self) -> bool {
        matches!(self.status, 502..=504)
    }

    /// What an error says.
    pub(crate) fn message(&self) -> String {
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        match serde_json::from_slice(&self.body) {
            Ok(Message { message }) if !message.is_empty() => message,
            Ok(_) | Err(_) => format!("HTTP status {}", self.status),
        }
    }

    /// What an answer that is no success means.
    pub(crate) fn refused(&self) -> Error {
        match self.status {
            502..=504 | 507 => Error::Unavailable(self.message()),
            400..=499 => Error::Rejected { status: self.status, message: self.message() },
            _ => Error::Unexpected(self.message()),
        }
    }

    /// The same, where an unknown job is what 400 and 404 mean.
    pub(crate) fn refused_of(&self, job: &str) -> Error {
        if matches!(self.status, 400 | 404) { Error::UnknownJob(job.to_owned()) } else { self.refused() }
    }
}

/// The path of something of a job. URLs have no spelling for an id of dots, and no job has one.
pub(crate) fn job_path(job: &str, rest: &str) -> Result<String> {
    if matches!(job, "" | "." | "..") {
        return Err(Error::UnknownJob(job.to_owned()));
    }
    Ok(format!("/jobs/{}/{rest}", utf8_percent_encode(job, SEGMENT)))
}

/// The path of an output of a job.
pub(crate) fn result_path(job: &str, file: Option<&str>) -> Result<String> {
    let Some(file) = file else { return job_path(job, "result") };
    let mut rest = "result".to_owned();
    for segment in file.split('/') {
        if matches!(segment, "" | "." | "..") {
            return Err(Error::Invalid("the name of a file has no empty segments, and none of dots"));
        }
        rest.push('/');
        rest.extend(utf8_percent_encode(segment, SEGMENT));
    }
    job_path(job, &rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        assert_eq!(job_path("a b/č", "status").unwrap(), "/jobs/a%20b%2F%C4%8D/status");
        assert_eq!(result_path("a", None).unwrap(), "/jobs/a/result");
        assert_eq!(result_path("a", Some("b/č?#%")).unwrap(), "/jobs/a/result/b/%C4%8D%3F%23%25");
        for name in ["", "/a", "a/../b", ".", "a/"] {
            assert!(matches!(result_path("a", Some(name)), Err(Error::Invalid(_))), "{name}");
        }
        assert!(matches!(job_path("..", "status"), Err(Error::UnknownJob(_))));
    }
}
