//! What the shepherd says, as values. Keys that this version does not know are ignored; times are naive UTC, as text.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The error of a cancelled job, by which it is known on the routes of the first shepherd, where it is a failed one.
const CANCELLED: &str = "The job was cancelled";

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Taken, and not yet in the queue.
    Accepted,
    /// In the queue.
    Queued,
    /// In work.
    Processing,
    /// Its result is there.
    Done,
    /// It has none: it failed.
    Failed,
    /// It has none: somebody withdrew it.
    Cancelled,
}

/// A model; both are none where a sheep has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct JobError {
    /// What the runner, or the shepherd, says.
    pub message: String,
    /// The type of the exception; empty when there was none.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub exception_type: String,
    /// Its traceback; empty when there was none.
    #[serde(default, deserialize_with = "null_as_empty")]
    pub exception_traceback: String,
}

fn null_as_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: Option<f64>,
    /// In words.
    pub message: Option<String>,
}

/// Where a job is, and since when.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Told")]
pub struct JobStatus {
    /// Where.
    pub state: State,
    /// Why it failed.
    pub error: Option<JobError>,
    /// Its model.
    pub model: Model,
    /// When it was accepted.
    pub enqueued_at: Option<String>,
    /// When its last attempt began.
    pub processing_started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Only while the job is in work, and has said how far it is.
    pub progress: Option<Progress>,
}

/// A status as the shepherd says it.
#[derive(Deserialize)]
struct Told {
    status: State,
    error_details: Option<JobError>,
    model: Model,
    enqueued_at: Option<String>,
    processing_started_at: Option<String>,
    finished_at: Option<String>,
    progress: Option<Progress>,
}

impl From<Told> for JobStatus {
    fn from(told: Told) -> Self {
        let error = told.error_details;
        let cancelled = |error: &JobError| {
            let JobError { message, exception_type, exception_traceback } = error;
            message == CANCELLED && exception_type.is_empty() && exception_traceback.is_empty()
        };
        let state = match told.status {
            State::Failed if error.as_ref().is_some_and(cancelled) => State::Cancelled,
            state => state,
        };
        let Told { model, enqueued_at, processing_started_at, finished_at, progress, .. } = told;
        Self { state, error, model, enqueued_at, processing_started_at, finished_at, progress }
    }
}

impl JobStatus {
    /// Whether nothing more will happen to the job.
    pub const fn is_finished(&self) -> bool {
        match self.state {
            State::Accepted | State::Queued | State::Processing => false,
            State::Done | State::Failed | State::Cancelled => true,
        }
    }

    /// Whether it ended because somebody withdrew it.
    pub const fn is_cancelled(&self) -> bool {
        matches!(self.state, State::Cancelled)
    }
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ListedJob {
    /// Its id.
    #[serde(rename = "job_id")]
    pub id: String,
    /// Where it is.
    #[serde(flatten)]
    pub status: JobStatus,
}

/// A part of the list of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct JobPage {
    /// The jobs.
    pub jobs: Vec<ListedJob>,
    /// Where the next page begins; none after the last.
    pub next: Option<String>,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What to come again with.
    pub id: String,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen to a job.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// It is somewhere else now.
    Status(JobStatus),
    /// It is further.
    Progress(Progress),
}

/// One of the flock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sheep {
    /// Whether its runner runs.
    pub running: bool,
    /// The model that it has loaded.
    pub model: Model,
    /// The job that it works on.
    #[serde(rename = "request")]
    pub job: Option<String>,
    /// What kind of sheep it is.
    #[serde(rename = "type", default)]
    pub kind: Option<String>,
    /// Its state in a word.
    #[serde(default)]
    pub state: Option<String>,
    /// What keeps it from working.
    #[serde(default)]
    pub problem: Option<String>,
    /// What it is busy with besides jobs.
    #[serde(default)]
    pub activity: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Flock {
    pub(crate) sheep: BTreeMap<String, Sheep>,
}

/// Whether the shepherd can take and do jobs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Readiness {
    /// Whether.
    pub ready: bool,
    /// Why not.
    #[serde(default)]
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_an_exception_has_no_type_and_no_traceback() {
        for text in [
            r#"{"message":"m","exception_type":null,"exception_traceback":null}"#,
            r#"{"message":"m","exception_type":"","exception_traceback":""}"#,
            r#"{"message":"m"}"#,
        ] {
            let error: JobError = serde_json::from_str(text).unwrap();
            let (kind, traceback) = (String::new(), String::new());
            let wanted =
                JobError { message: "m".into(), exception_type: kind, exception_traceback: traceback };
            assert_eq!(error, wanted, "{text}");
        }
    }

    #[test]
    fn a_cancelled_job_is_known_on_all_routes() {
        let status = |word: &str, kind: &str| {
            let text = format!(
                r#"{{"status":"{word}","error_details":{{"message":"The job was cancelled","exception_type":{kind},
                "exception_traceback":null}},"model":{{"name":"m","version":"1"}},"enqueued_at":"T",
                "processing_started_at":null,"finished_at":"T","more":1}}"#
            );
            serde_json::from_str::<JobStatus>(&text).unwrap()
        };
        for word in ["failed", "cancelled"] {
            assert!(status(word, "null").is_cancelled() && status(word, "null").is_finished(), "{word}");
        }
        assert_eq!(status("failed", "\"E\"").state, State::Failed);
    }
}
