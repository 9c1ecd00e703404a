//! Every JSON shape that is sent.
//!
//! Bodies are written straight into one buffer: they are small, their keys are
//! fixed, and the status of a job is what clients ask for most. Strings go
//! through `serde_json`, so that whatever a runner or a client put into them is
//! escaped.

use bytes::Bytes;
use shepherd_core::{JobRecord, Progress, Readiness, SheepState, SheepView};
use shepherd_job::{JobError, JobState, ModelRef, Phase, Timestamp};

use crate::time::push_iso;

/// What is said of a job that its client withdrew.
pub(crate) const CANCELLED: &str = "The job was cancelled";

/// Which words are used for the states of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// Those that clients of the first shepherd know: they wait for `done` or `failed`,
    /// so a cancelled job is a failed one that says why.
    First,
    /// Those of the routes that were added: a cancelled job is `cancelled`.
    Later,
}

/// The status body of a job on the routes of the first shepherd, which is also what is
/// stored beside its data as `job_status.json`.
pub fn status_document(job: &JobRecord) -> Bytes {
    status(job, None)
}

/// The status body of a job on the routes that were added.
pub(crate) fn later_status(job: &JobRecord) -> Bytes {
    let mut to = Vec::with_capacity(320);
    to.push(b'{');
    push_status(&mut to, job, Words::Later);
    to.push(b'}');
    to.into()
}

/// The status body of a job on the routes of the first shepherd, with how far it is, if
/// that is known.
pub(crate) fn status(job: &JobRecord, progress: Option<&Progress>) -> Bytes {
    let mut to = Vec::with_capacity(320);
    to.push(b'{');
    push_status(&mut to, job, Words::First);
    if let Some(progress) = progress {
        push(&mut to, ",\"progress\":");
        push_progress(&mut to, progress);
    }
    to.push(b'}');
    to.into()
}

/// The status body of a job that only the storage knows, of checked members.
pub(crate) fn stored_status(members: &[(&str, &serde_json::Value)]) -> Bytes {
    let mut to = Vec::with_capacity(320);
    for (index, (name, value)) in members.iter().enumerate() {
        to.push(if index > 0 { b',' } else { b'{' });
        push_text(&mut to, name);
        to.push(b':');
        serde_json::to_writer(&mut to, value).expect("a value into memory always serializes");
    }
    to.push(b'}');
    to.into()
}

/// How far a job is, as events say it.
pub(crate) fn progress(progress: &Progress) -> Bytes {
    let mut to = Vec::with_capacity(64);
    push_progress(&mut to, progress);
    to.into()
}

/// Appends the members of the status object, without its braces.
fn push_status(to: &mut Vec<u8>, job: &JobRecord, words: Words) {
    let (started, finished) = times(&job.state);
    push(to, "\"status\":");
    push_text(to, status_word(job.state.phase(), words));
    push(to, ",\"error_details\":");
    match &job.state {
        JobState::Queued { .. } | JobState::Processing { .. } | JobState::Done { .. } => push(to, "null"),
        JobState::Failed { error, .. } => push_error(to, error),
        JobState::Cancelled { .. } => push_error(to, &JobError::new(CANCELLED)),
    }
    push(to, ",\"model\":");
    push_model(to, Some(&job.spec.model));
    push(to, ",\"enqueued_at\":");
    push_time(to, Some(job.submitted_at));
    push(to, ",\"processing_started_at\":");
    push_time(to, started);
    push(to, ",\"finished_at\":");
    push_time(to, finished);
}

/// When the current or last attempt began and when the outcome became final.
fn times(state: &JobState) -> (Option<Timestamp>, Option<Timestamp>) {
    match state {
        JobState::Queued { .. } => (None, None),
        JobState::Processing { started_at, .. } => (Some(*started_at), None),
        JobState::Done { started_at, finished_at, .. } | JobState::Failed { started_at, finished_at, .. } => {
            (Some(*started_at), Some(*finished_at))
        }
        JobState::Cancelled { started_at, finished_at, .. } => (*started_at, Some(*finished_at)),
    }
}

const fn status_word(phase: Phase, words: Words) -> &'static str {
    match (phase, words) {
        (Phase::Queued, _) => "queued",
        (Phase::Processing, _) => "processing",
        (Phase::Done, _) => "done",
        (Phase::Failed, _) | (Phase::Cancelled, Words::First) => "failed",
        (Phase::Cancelled, Words::Later) => "cancelled",
    }
}

/// The phases that a status word asks for.
pub(crate) fn phases(word: &str) -> Option<&'static [Phase]> {
    match word {
        "accepted" | "queued" => Some(&[Phase::Queued]),
        "processing" => Some(&[Phase::Processing]),
        "done" => Some(&[Phase::Done]),
        "failed" => Some(&[Phase::Failed]),
        "cancelled" => Some(&[Phase::Cancelled]),
        _ => None,
    }
}

/// `{"message": TEXT}`.
pub(crate) fn message(text: &str) -> Bytes {
    let mut to = Vec::with_capacity(text.len() + 16);
    push(&mut to, "{\"message\":");
    push_text(&mut to, text);
    to.push(b'}');
    to.into()
}

/// The same with its type, for requests that do not get as far as the API.
pub(crate) fn refusal(text: &str) -> (&'static str, String) {
    ("application/json; charset=utf-8", String::from_utf8_lossy(&message(text)).into_owned())
}

/// The body of `GET /status`.
pub(crate) fn flock(sheep: &[SheepView], readiness: &Readiness) -> Bytes {
    let mut to = Vec::with_capacity(16 + 160 * sheep.len());
    push(&mut to, "{\"sheep\":{");
    for (index, one) in sheep.iter().enumerate() {
        if index > 0 {
            to.push(b',');
        }
        push_text(&mut to, one.id.as_str());
        push(&mut to, ":{\"running\":");
        push_bool(&mut to, matches!(one.state, SheepState::Running));
        push(&mut to, ",\"model\":");
        push_model(&mut to, one.model.as_ref());
        push(&mut to, ",\"request\":");
        push_optional(&mut to, one.job.as_ref().map(AsRef::as_ref));
        push(&mut to, ",\"type\":");
        push_text(&mut to, one.kind);
        push(&mut to, ",\"state\":");
        push_text(&mut to, sheep_state(one.state));
        push(&mut to, ",\"problem\":");
        push_optional(&mut to, one.problem.as_deref());
        push(&mut to, ",\"activity\":");
        push_optional(&mut to, one.activity.as_deref());
        to.push(b'}');
    }
    push(&mut to, "},\"problems\":[");
    push_texts(&mut to, readiness.problems.iter().chain(&readiness.notices));
    push(&mut to, "]}");
    to.into()
}

const fn sheep_state(state: SheepState) -> &'static str {
    match state {
        SheepState::Stopped => "stopped",
        SheepState::Starting => "starting",
        SheepState::Running => "running",
        SheepState::Stopping => "stopping",
    }
}

/// The body of `GET /jobs`: the jobs, and where the next page begins.
pub(crate) fn jobs<J: AsRef<JobRecord>>(jobs: &[J], next: Option<u64>) -> Bytes {
    let mut to = Vec::with_capacity(32 + 360 * jobs.len());
    push(&mut to, "{\"jobs\":[");
    for (index, job) in jobs.iter().enumerate() {
        let job = job.as_ref();
        push(&mut to, if index > 0 { ",{\"job_id\":" } else { "{\"job_id\":" });
        push_text(&mut to, job.spec.id.as_str());
        to.push(b',');
        push_status(&mut to, job, Words::Later);
        to.push(b'}');
    }
    push(&mut to, "],\"next\":");
    match next {
        Some(seq) => {
            to.push(b'"');
            push(&mut to, itoa::Buffer::new().format(seq));
            to.push(b'"');
        }
        None => push(&mut to, "null"),
    }
    to.push(b'}');
    to.into()
}

/// The body of `GET /readyz`.
pub(crate) fn readiness(readiness: &Readiness) -> Bytes {
    let mut to = Vec::with_capacity(64);
    push(&mut to, "{\"ready\":");
    push_bool(&mut to, readiness.problems.is_empty());
    push(&mut to, ",\"problems\":[");
    push_texts(&mut to, &readiness.problems);
    push(&mut to, "]}");
    to.into()
}

fn push_texts<'t>(to: &mut Vec<u8>, texts: impl IntoIterator<Item = &'t String>) {
    for (index, text) in texts.into_iter().enumerate() {
        if index > 0 {
            to.push(b',');
        }
        push_text(to, text);
    }
}

/// `{"ready": BOOL}`.
pub(crate) const fn ready(ready: bool) -> Bytes {
    Bytes::from_static(if ready { b"{\"ready\":true}" } else { b"{\"ready\":false}" })
}

/// The answer to an accepted submit.
pub(crate) const fn success() -> Bytes {
    Bytes::from_static(b"{\"success\":true}")
}

/// The answer to a submit that changed nothing, and why.
pub(crate) fn success_beside(conflict: &str) -> Bytes {
    let mut to = Vec::with_capacity(128);
    push(&mut to, "{\"success\":true,\"conflict\":");
    push_text(&mut to, conflict);
    to.push(b'}');
    to.into()
}

fn push_progress(to: &mut Vec<u8>, progress: &Progress) {
    push(to, "{\"fraction\":");
    match progress.fraction {
        // What is no number cannot be written as one.
        Some(fraction) if fraction.is_finite() => push_number(to, fraction),
        Some(_) | None => push(to, "null"),
    }
    push(to, ",\"message\":");
    push_optional(to, progress.message.as_deref());
    to.push(b'}');
}

fn push_model(to: &mut Vec<u8>, model: Option<&ModelRef>) {
    push(to, "{\"name\":");
    push_optional(to, model.map(ModelRef::name));
    push(to, ",\"version\":");
    push_optional(to, model.map(ModelRef::version));
    to.push(b'}');
}

/// Existing clients get null for the type and the traceback of an error without an exception.
fn push_error(to: &mut Vec<u8>, error: &JobError) {
    push(to, "{\"message\":");
    push_text(to, &error.message);
    for (key, text) in [
        (",\"exception_type\":", &error.exception_type),
        (",\"exception_traceback\":", &error.exception_traceback),
    ] {
        push(to, key);
        push_optional(to, Some(text.as_str()).filter(|text| !text.is_empty()));
    }
    to.push(b'}');
}

fn push_time(to: &mut Vec<u8>, at: Option<Timestamp>) {
    match at {
        Some(at) => {
            to.push(b'"');
            push_iso(to, at);
            to.push(b'"');
        }
        None => push(to, "null"),
    }
}

fn push_optional(to: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => push_text(to, text),
        None => push(to, "null"),
    }
}

fn push_bool(to: &mut Vec<u8>, value: bool) {
    push(to, if value { "true" } else { "false" });
}

fn push_number(to: &mut Vec<u8>, number: f64) {
    serde_json::to_writer(to, &number).expect("a number into memory always serializes");
}

fn push_text(to: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(to, text).expect("a string into memory always serializes");
}

fn push(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests;
