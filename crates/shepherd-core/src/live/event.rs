//! What those hear who watch a job.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use shepherd_job::JobState;
use shepherd_queue::JobRecord;

/// How far a job in work is, as its runner said last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// From 0 to 1.
    pub fraction: Option<f64>,
    /// What it is doing.
    pub message: Option<String>,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub struct JobEvent {
    /// Names the event to a client that comes again and wants what followed it.
    pub id: EventId,
    /// What happened.
    pub kind: JobEventKind,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobEventKind {
    /// Its state is this now.
    State(Arc<JobRecord>),
    /// It is so far now.
    Progress(Progress),
}

/// Names an event of a job, also to a later life of the daemon. As text: two numbers
/// and a dash between them, which mean nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    /// Which life of the shepherd numbered it; none where the job's record gives the number.
    life: u64,
    number: u64,
}

impl EventId {
    pub(super) const fn new(life: u64, number: u64) -> Self {
        Self { life, number }
    }

    /// The id of the event that a finished job has come to its end, which is the same
    /// in every life.
    pub(super) fn end_of(record: &JobRecord) -> Option<Self> {
        let at = match record.state {
            JobState::Queued { .. } | JobState::Processing { .. } => return None,
            JobState::Done { finished_at, .. }
            | JobState::Failed { finished_at, .. }
            | JobState::Cancelled { finished_at, .. } => finished_at,
        };
        Some(Self { life: 0, number: at.as_micros().unsigned_abs() })
    }

    /// The number, if `life` gave it.
    pub(super) fn number_in(self, life: u64) -> Option<u64> {
        (self.life == life).then_some(self.number)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.life, self.number)
    }
}

/// Why a text is no [`EventId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is two numbers with a dash between them")]
pub struct EventIdError;

impl From<ParseIntError> for EventIdError {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let (life, number) = text.split_once('-').ok_or(EventIdError)?;
        Ok(Self { life: life.parse()?, number: number.parse()? })
    }
}
