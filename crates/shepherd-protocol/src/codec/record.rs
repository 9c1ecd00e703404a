//! The wire's record types, and what they mean.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};
use shepherd_job::{Attempt, JobError, JobId, JobIdRule, Timestamp};

use super::{MAX_LOG, MAX_NAME, MAX_PROGRESS, Wire, bounded, keep_head, keep_tail};
use crate::{FromRunner, Input, MAX_BATCH, Ready, ToRunner};

/// Borrows from the frame inside an `Option`, which a bare `Cow` would not.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Any message to a runner.
#[derive(Deserialize)]
pub(crate) struct ToRunnerRecord<'a> {
    #[serde(borrow)]
    message_type: Cow<'a, str>,
    #[serde(borrow)]
    job_id: Option<Text<'a>>,
    #[serde(borrow)]
    attempt: Option<Text<'a>>,
    #[serde(borrow)]
    io_data_root: Option<Text<'a>>,
    deadline: Option<f64>,
    grace: Option<f64>,
    nonce: Option<u64>,
}

/// Any message from a runner.
#[derive(Deserialize)]
pub(crate) struct FromRunnerRecord<'a> {
    #[serde(borrow)]
    message_type: Cow<'a, str>,
    job_id: Option<String>,
    #[serde(borrow)]
    attempt: Option<Text<'a>>,
    message: Option<String>,
    exception_type: Option<String>,
    exception_traceback: Option<String>,
    short_error: Option<String>,
    long_error: Option<String>,
    fraction: Option<f64>,
    protocol: Option<u32>,
    name: Option<String>,
    slots: Option<u32>,
    ahead: Option<u32>,
    batch: Option<u32>,
    logs: Option<bool>,
    text: Option<String>,
    nonce: Option<u64>,
}

fn need<T>(value: Option<T>, key: &str) -> Result<T, String> {
    value.ok_or_else(|| format!("`{key}` is missing"))
}

fn parse_attempt(text: &Text<'_>) -> Result<Attempt, String> {
    text.0.parse().map_err(|error| format!("`attempt` {error}"))
}

fn parse_job(text: Option<&Text<'_>>) -> Result<JobId, String> {
    // The wider of the two rules: every legal id, and still one safe path segment.
    JobId::parse(&need(text, "job_id")?.0, JobIdRule::Prefix).map_err(|error| format!("`job_id` {error}"))
}

fn seconds(value: f64, key: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(value).map_err(|_| format!("`{key}` is no number of seconds"))
}

impl Wire for ToRunner {
    type Record<'de> = ToRunnerRecord<'de>;

    fn read(record: ToRunnerRecord<'_>) -> Result<Self, String> {
        let attempt = || parse_attempt(need(record.attempt.as_ref(), "attempt")?);
        match &*record.message_type {
            "InputMessage" => Ok(Self::Input(Input {
                job: parse_job(record.job_id.as_ref())?,
                attempt: attempt()?,
                io_data_root: need(record.io_data_root, "io_data_root")?.0.into(),
                deadline: record.deadline.map(timestamp).transpose()?,
            })),
            "CancelMessage" => {
                Ok(Self::Cancel { job: parse_job(record.job_id.as_ref())?, attempt: attempt()? })
            }
            "ShutdownMessage" => {
                Ok(Self::Shutdown { grace: seconds(need(record.grace, "grace")?, "grace")? })
            }
            "PingMessage" => Ok(Self::Ping { nonce: need(record.nonce, "nonce")? }),
            other => Err(unknown(other)),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Input(input) => json(
                to,
                &InputRecord {
                    identity: "",
                    job_id: input.job.as_str(),
                    attempt: input.attempt,
                    io_data_root: &input.io_data_root,
                    deadline: input.deadline.map(|at| at.as_micros() as f64 / 1e6),
                    message_type: "InputMessage",
                },
            ),
            Self::Cancel { job, attempt } => json(
                to,
                &CancelRecord { job_id: job.as_str(), attempt: *attempt, message_type: "CancelMessage" },
            ),
            Self::Shutdown { grace } => {
                json(to, &ShutdownRecord { grace: grace.as_secs_f64(), message_type: "ShutdownMessage" });
            }
            Self::Ping { nonce } => json(to, &NonceRecord { nonce: *nonce, message_type: "PingMessage" }),
        }
    }
}

impl Wire for FromRunner {
    type Record<'de> = FromRunnerRecord<'de>;

    fn read(record: FromRunnerRecord<'_>) -> Result<Self, String> {
        let job = |id: Option<String>| {
            let id = need(id, "job_id")?;
            if id.len() > MAX_NAME { Err("`job_id` is too long".to_owned()) } else { Ok(id) }
        };
        let attempt = record.attempt.as_ref().map(parse_attempt).transpose()?;
        match &*record.message_type {
            "DoneMessage" => Ok(Self::Done { job: job(record.job_id)?, attempt }),
            "ErrorMessage" => Ok(Self::Error {
                job: job(record.job_id)?,
                attempt,
                error: bounded(JobError {
                    message: record.message.or(record.short_error).unwrap_or_default(),
                    exception_type: record.exception_type.unwrap_or_default(),
                    exception_traceback: record.exception_traceback.or(record.long_error).unwrap_or_default(),
                }),
            }),
            "ProgressMessage" => Ok(Self::Progress {
                job: job(record.job_id)?,
                attempt,
                fraction: record.fraction.map(|fraction| fraction.clamp(0.0, 1.0)),
                message: record.message.map(|text| keep_head(text, MAX_PROGRESS)),
            }),
            "LogMessage" => Ok(Self::Log {
                job: job(record.job_id)?,
                attempt,
                text: keep_tail(need(record.text, "text")?, MAX_LOG),
            }),
            "PongMessage" => Ok(Self::Pong { nonce: need(record.nonce, "nonce")? }),
            "ReadyMessage" => Ok(Self::Ready(Ready {
                protocol: need(record.protocol, "protocol")?,
                name: keep_head(record.name.unwrap_or_default(), MAX_NAME),
                slots: record.slots.unwrap_or(1).max(1),
                ahead: record.ahead.unwrap_or(0),
                batch: record.batch.unwrap_or(1).clamp(1, MAX_BATCH),
                logs: record.logs.unwrap_or(false),
            })),
            other => Err(unknown(other)),
        }
    }

    fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Ready(ready) => json(
                to,
                &ReadyRecord {
                    protocol: ready.protocol,
                    name: &ready.name,
                    slots: ready.slots,
                    ahead: ready.ahead,
                    batch: ready.batch,
                    logs: ready.logs,
                    message_type: "ReadyMessage",
                },
            ),
            Self::Progress { job, attempt, fraction, message } => {
                let long = message.as_ref().filter(|text| text.len() > MAX_PROGRESS);
                let cut = long.map(|text| keep_head(text.clone(), MAX_PROGRESS));
                json(
                    to,
                    &ProgressRecord {
                        job_id: job,
                        attempt: *attempt,
                        fraction: fraction.filter(|fraction| fraction.is_finite()),
                        message: cut.as_deref().or(message.as_deref()),
                        message_type: "ProgressMessage",
                    },
                );
            }
            Self::Log { job, attempt, text } => {
                // A frame that is too long would cost the connection.
                let cut = (text.len() > MAX_LOG).then(|| keep_tail(text.clone(), MAX_LOG));
                json(
                    to,
                    &LogRecord {
                        job_id: job,
                        attempt: *attempt,
                        text: cut.as_ref().unwrap_or(text),
                        message_type: "LogMessage",
                    },
                );
            }
            Self::Done { job, attempt } => json(
                to,
                &DoneRecord { identity: "", job_id: job, attempt: *attempt, message_type: "DoneMessage" },
            ),
            Self::Error { job, attempt, error } => {
                // A frame that is too long would cost the connection.
                let error = bounded(error.clone());
                json(
                    to,
                    &ErrorRecord {
                        identity: "",
                        job_id: job,
                        attempt: *attempt,
                        message: &error.message,
                        exception_type: &error.exception_type,
                        exception_traceback: &error.exception_traceback,
                        message_type: "ErrorMessage",
                    },
                );
            }
            Self::Pong { nonce } => json(to, &NonceRecord { nonce: *nonce, message_type: "PongMessage" }),
        }
    }
}

fn unknown(message_type: &str) -> String {
    format!("unknown message type `{}`", keep_head(message_type.to_owned(), MAX_NAME))
}

fn timestamp(seconds: f64) -> Result<Timestamp, String> {
    // Up to the year 9999, where a double still holds microseconds well enough.
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return Err("`deadline` is no time".to_owned());
    }
    Ok(Timestamp::from_micros((seconds * 1e6).round() as i64))
}

fn json(to: &mut Vec<u8>, record: &impl Serialize) {
    serde_json::to_writer(to, record).expect("writing JSON to memory cannot fail");
}

fn text<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !value
}

fn optional_text<S: Serializer>(value: &Option<impl Display>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

/// Appends a frame that gives a job to a runner of the first shepherd, with not one
/// key more than that one sent.
pub(crate) fn legacy_input(input: &Input, to: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Frame<'a> {
        message: Record<'a>,
    }
    #[derive(Serialize)]
    struct Record<'a> {
        identity: &'static str,
        job_id: &'a str,
        io_data_root: &'a str,
        message_type: &'static str,
    }
    let job_id = input.job.as_str();
    let message =
        Record { identity: "", job_id, io_data_root: &input.io_data_root, message_type: "InputMessage" };
    json(to, &Frame { message });
}

#[derive(Serialize)]
struct InputRecord<'a> {
    identity: &'static str,
    job_id: &'a str,
    #[serde(serialize_with = "text")]
    attempt: Attempt,
    io_data_root: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<f64>,
    message_type: &'static str,
}

#[derive(Serialize)]
struct CancelRecord<'a> {
    job_id: &'a str,
    #[serde(serialize_with = "text")]
    attempt: Attempt,
    message_type: &'static str,
}

#[derive(Serialize)]
struct ShutdownRecord {
    grace: f64,
    message_type: &'static str,
}

#[derive(Serialize)]
struct NonceRecord {
    nonce: u64,
    message_type: &'static str,
}

#[derive(Serialize)]
struct ReadyRecord<'a> {
    protocol: u32,
    name: &'a str,
    slots: u32,
    ahead: u32,
    batch: u32,
    #[serde(skip_serializing_if = "is_false")]
    logs: bool,
    message_type: &'static str,
}

#[derive(Serialize)]
struct ProgressRecord<'a> {
    job_id: &'a str,
    #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fraction: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    message_type: &'static str,
}

#[derive(Serialize)]
struct LogRecord<'a> {
    job_id: &'a str,
    #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
    text: &'a str,
    message_type: &'static str,
}

#[derive(Serialize)]
struct DoneRecord<'a> {
    identity: &'static str,
    job_id: &'a str,
    #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
    message_type: &'static str,
}

#[derive(Serialize)]
struct ErrorRecord<'a> {
    identity: &'static str,
    job_id: &'a str,
    #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
    attempt: Option<Attempt>,
    message: &'a str,
    exception_type: &'a str,
    exception_traceback: &'a str,
    message_type: &'static str,
}
