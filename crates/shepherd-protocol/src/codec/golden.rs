//! The wire's golden frames, which every codec of the wire is tested with:
//! `tests/golden.json`.
//!
//! Each entry is a frame and the messages that are read from it. `written_by` names
//! those who write exactly these bytes for them (of `given`, where they cut something
//! off).

use std::time::Duration;

use serde::Deserialize;
use shepherd_job::{JobError, JobId, JobIdRule, Timestamp};

use super::{Wire, legacy_input};
use crate::codec::tests::{all, frame};
use crate::{FromRunner, Input, Ready, ToRunner};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Golden {
    name: String,
    to: To,
    written_by: Vec<String>,
    frame: String,
    given: Option<Vec<Told>>,
    messages: Vec<Told>,
}

#[derive(Clone, Copy, Deserialize)]
enum To {
    #[serde(rename = "runner")]
    Runner,
    #[serde(rename = "legacy runner")]
    LegacyRunner,
    #[serde(rename = "shepherd")]
    Shepherd,
}

/// A message, told without the words of the wire.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    Input {
        job: String,
        attempt: String,
        io_data_root: String,
        deadline: Option<f64>,
    },
    Cancel {
        job: String,
        attempt: String,
    },
    Shutdown {
        grace: f64,
    },
    Ping {
        nonce: u64,
    },
    Ready {
        protocol: u32,
        name: String,
        slots: u32,
        ahead: u32,
        batch: u32,
        logs: bool,
    },
    Progress {
        job: String,
        attempt: Option<String>,
        fraction: Option<f64>,
        message: Option<String>,
    },
    Log {
        job: String,
        attempt: Option<String>,
        text: String,
    },
    Done {
        job: String,
        attempt: Option<String>,
    },
    Error {
        job: String,
        attempt: Option<String>,
        message: String,
        exception_type: String,
        exception_traceback: String,
    },
    Pong {
        nonce: u64,
    },
}

fn id(text: &str) -> JobId {
    JobId::parse(text, JobIdRule::Prefix).unwrap()
}

impl Told {
    fn to_runner(&self) -> ToRunner {
        match self {
            Self::Input { job, attempt, io_data_root, deadline } => ToRunner::Input(Input {
                job: id(job),
                attempt: attempt.parse().unwrap(),
                io_data_root: io_data_root.as_str().into(),
                deadline: deadline.map(|at| Timestamp::from_micros((at * 1e6).round() as i64)),
            }),
            Self::Cancel { job, attempt } => {
                ToRunner::Cancel { job: id(job), attempt: attempt.parse().unwrap() }
            }
            Self::Shutdown { grace } => ToRunner::Shutdown { grace: Duration::from_secs_f64(*grace) },
            Self::Ping { nonce } => ToRunner::Ping { nonce: *nonce },
            Self::Ready { .. }
            | Self::Progress { .. }
            | Self::Log { .. }
            | Self::Done { .. }
            | Self::Error { .. }
            | Self::Pong { .. } => panic!("not for a runner"),
        }
    }

    fn to_shepherd(&self) -> FromRunner {
        let token = |attempt: &Option<String>| attempt.as_ref().map(|text| text.parse().unwrap());
        match self {
            Self::Ready { protocol, name, slots, ahead, batch, logs } => FromRunner::Ready(Ready {
                protocol: *protocol,
                name: name.clone(),
                slots: *slots,
                ahead: *ahead,
                batch: *batch,
                logs: *logs,
            }),
            Self::Progress { job, attempt, fraction, message } => FromRunner::Progress {
                job: job.clone(),
                attempt: token(attempt),
                fraction: *fraction,
                message: message.clone(),
            },
            Self::Log { job, attempt, text } => {
                FromRunner::Log { job: job.clone(), attempt: token(attempt), text: text.clone() }
            }
            Self::Done { job, attempt } => FromRunner::Done { job: job.clone(), attempt: token(attempt) },
            Self::Error { job, attempt, message, exception_type, exception_traceback } => FromRunner::Error {
                job: job.clone(),
                attempt: token(attempt),
                error: JobError {
                    message: message.clone(),
                    exception_type: exception_type.clone(),
                    exception_traceback: exception_traceback.clone(),
                },
            },
            Self::Pong { nonce } => FromRunner::Pong { nonce: *nonce },
            Self::Input { .. } | Self::Cancel { .. } | Self::Shutdown { .. } | Self::Ping { .. } => {
                panic!("not from a runner")
            }
        }
    }
}

impl Golden {
    fn is_ours(&self) -> bool {
        self.written_by.iter().any(|by| by == "rust")
    }

    fn check<M: Wire + PartialEq + std::fmt::Debug>(&self, meant: impl Fn(&Told) -> M) {
        let all: Result<Vec<M>, _> = all(self.frame.as_bytes()).into_iter().collect();
        assert_eq!(all, Ok(self.messages.iter().map(&meant).collect()), "{}", self.name);
        if self.is_ours() {
            let given = self.given.as_ref().unwrap_or(&self.messages);
            let written = frame(&given.iter().map(&meant).collect::<Vec<_>>());
            assert_eq!(String::from_utf8(written).unwrap(), self.frame, "{}", self.name);
        }
    }
}

#[test]
fn golden_frames_are_read_and_written() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../../tests/golden.json")).unwrap();
    for golden in &goldens {
        match golden.to {
            To::Runner => golden.check(Told::to_runner),
            To::Shepherd => golden.check(Told::to_shepherd),
            To::LegacyRunner => {
                let mut written = Vec::new();
                match golden.messages[0].to_runner() {
                    ToRunner::Input(input) => legacy_input(&input, &mut written),
                    other => panic!("{other:?} is nothing that such a runner knows"),
                }
                assert_eq!(String::from_utf8(written).unwrap(), golden.frame, "{}", golden.name);
            }
        }
    }
}
