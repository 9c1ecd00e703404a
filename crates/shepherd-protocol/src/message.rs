//! The messages of protocol version 1.

use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{Attempt, JobError, JobId, Timestamp};

use crate::Garbage;

/// The version that this crate speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// The `exception_type` of the answer for a job that was ended by
/// [`ToRunner::Cancel`], or that a runner gives up because it ends itself and has not
/// begun the job: then another runner gets it.
pub const CANCELLED: &str = "Cancelled";

/// What the shepherd says.
///
/// A runner answers every input with one [`FromRunner::Done`] or
/// [`FromRunner::Error`], also one that is cancelled. When the connection or the
/// runner ends first there is no answer.
#[derive(Clone, Debug, PartialEq)]
pub enum ToRunner {
    /// Work on this job, after those that were sent before it.
    Input(Input),
    /// End this attempt, whether it runs or waits. It is answered with an error
    /// of the type [`CANCELLED`], unless it was answered already.
    Cancel {
        /// Which job.
        job: JobId,
        /// Which attempt at it.
        attempt: Attempt,
    },
    /// Begin no other job, and exit.
    Shutdown {
        /// How long the job in work may take to end.
        grace: Duration,
    },
    /// Answer at once with [`FromRunner::Pong`], also while a job is in work.
    Ping {
        /// To be repeated in the answer.
        nonce: u64,
    },
}

/// A job to work on. Its files are in `io_data_root/job/inputs`, and its results
/// belong into `io_data_root/job/outputs`; both directories exist.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Which job.
    pub job: JobId,
    /// Which attempt at it; to be repeated in every answer.
    pub attempt: Attempt,
    /// Where the directories of the jobs are.
    pub io_data_root: Arc<str>,
    /// After this time the result is of no use to anybody: the shepherd ends a job that runs
    /// longer. On the wire: seconds since 1970-01-01T00:00:00 UTC, with a fraction.
    pub deadline: Option<Timestamp>,
}

/// What a runner says. Ids are what the runner claims: `job` is any text of at
/// most 255 bytes. `attempt` is absent in answers of runners made for the first
/// shepherd, which answer in the order of their inputs.
#[derive(Clone, Debug, PartialEq)]
pub enum FromRunner {
    /// It is ready for inputs. Comes once for each connection, after the model
    /// is loaded.
    Ready(Ready),
    /// How far it is.
    Progress {
        /// Which job.
        job: String,
        /// Which attempt at it.
        attempt: Option<Attempt>,
        /// From 0 to 1.
        fraction: Option<f64>,
        /// What it is doing.
        message: Option<String>,
    },
    /// What the job printed: the next piece of its log. All of it comes before the
    /// job's answer. Of a runner that sends none ([`Ready::logs`]) the shepherd takes what
    /// the process prints instead, as far as it can tell whose it is.
    Log {
        /// Which job.
        job: String,
        /// Which attempt at it.
        attempt: Option<Attempt>,
        /// At most 32 KiB of text, of which the end is kept. It may begin and end anywhere
        /// in a line.
        text: String,
    },
    /// The outputs are complete.
    Done {
        /// Which job.
        job: String,
        /// Which attempt at it.
        attempt: Option<Attempt>,
    },
    /// The job failed.
    Error {
        /// Which job.
        job: String,
        /// Which attempt at it.
        attempt: Option<Attempt>,
        /// Why.
        error: JobError,
    },
    /// The answer to [`ToRunner::Ping`].
    Pong {
        /// The nonce of the ping.
        nonce: u64,
    },
}

impl FromRunner {
    /// Whether it says how a job ended.
    pub const fn is_answer(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Error { .. } => true,
            Self::Ready(_) | Self::Progress { .. } | Self::Log { .. } | Self::Pong { .. } => false,
        }
    }
}

/// What a runner can do. Absent numbers are those of [`Ready::new`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The version of the protocol it speaks.
    pub protocol: u32,
    /// What it calls itself, for logs.
    pub name: String,
    /// How many jobs it works on at a time; at least 1.
    pub slots: u32,
    /// How many inputs it takes ahead, beyond those in its slots.
    pub ahead: u32,
    /// How many messages it takes in one frame; at least 1.
    pub batch: u32,
    /// Whether it says by [`FromRunner::Log`] what jobs print.
    pub logs: bool,
}

impl Ready {
    /// A runner of this protocol version with one slot that takes inputs singly.
    pub fn new(name: impl Into<String>) -> Self {
        Self { protocol: PROTOCOL_VERSION, name: name.into(), slots: 1, ahead: 0, batch: 1, logs: false }
    }
}

/// What happens on a connection, in order. Messages come only between
/// `Connected` and `Disconnected`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event<M> {
    /// A peer is there, of which nothing is known yet. A peer that has another
    /// connection already hangs up again at once.
    Connected,
    /// It said this.
    Message(M),
    /// It said something that is no message.
    Garbage(Garbage),
    /// It is gone, and whatever was on its way to it is lost.
    Disconnected,
}
