//! The life of a job, as one total function.
//!
//! ```text
//!            Claim                 Complete
//!  Queued ──────────▶ Processing ──────────▶ Done ──────┐
//!    ▲ │  ◀───────────  │  │                            │
//!    │ │    GiveBack    │  └── Fail ──────▶ Failed ──────┤
//!    │ └──── Cancel ────┴──── Cancel ────▶ Cancelled ───┤
//!    └───────────────────── Rerun ──────────────────────┘
//! ```
//!
//! Live code and recovery both go through [`JobState::apply`]. What does not fit
//! is [`Rejected`] and changes nothing; there is no panic and no partial change.

use std::fmt;

use crate::{SheepId, Timestamp};

/// The fencing token of one attempt at a job.
///
/// The epoch is raised, durably, every time a node joins the job store, and the number
/// counts the job's attempts; so no two attempts of a job ever share a token,
/// even when a claim was lost in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// The life of the node that made the claim.
    pub epoch: u64,
    /// Which attempt at the job this is, from 1.
    pub number: u32,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.number)
    }
}

impl std::str::FromStr for Attempt {
    type Err = InvalidAttempt;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (epoch, number) = text.split_once('-').ok_or(InvalidAttempt)?;
        Ok(Self {
            epoch: epoch.parse().map_err(|_| InvalidAttempt)?,
            number: number.parse().map_err(|_| InvalidAttempt)?,
        })
    }
}

/// A text that is no attempt token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be EPOCH-NUMBER, two decimal numbers")]
pub struct InvalidAttempt;

/// Why a job failed, in the words its client sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// What went wrong, for a person.
    pub message: String,
    /// Type of the exception; empty when there was no exception.
    pub exception_type: String,
    /// Where the exception was raised; empty when there was none.
    pub exception_traceback: String,
}

impl JobError {
    /// An error that has a message only.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exception_type: String::new(), exception_traceback: String::new() }
    }
}

/// What a job has been through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Attempts begun so far, reruns included; a run that was withdrawn before it
    /// began counts as one.
    pub attempts: u32,
    /// Attempts during which the runner died, since the last rerun.
    pub crashes: u32,
}

/// Where a job is in its life, with what is known there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// Waits for a sheep.
    Queued {
        /// Not to be claimed before this time (a retry that backs off).
        not_before: Option<Timestamp>,
        /// Earlier attempts.
        history: History,
    },
    /// A sheep has it.
    Processing {
        /// Which attempt; every message about it must carry this token.
        attempt: Attempt,
        /// Which sheep.
        sheep: SheepId,
        /// When the attempt was claimed, or began if that was later.
        started_at: Timestamp,
        /// Attempts including this one.
        history: History,
    },
    /// Finished, with outputs in storage.
    Done {
        /// When the winning attempt began.
        started_at: Timestamp,
        /// When the outcome became final.
        finished_at: Timestamp,
        /// What it took; a rerun goes on counting, so that no token comes twice.
        history: History,
    },
    /// Finished with an error.
    Failed {
        /// When the last attempt began.
        started_at: Timestamp,
        /// When the outcome became final.
        finished_at: Timestamp,
        /// Why.
        error: JobError,
        /// Attempts so far.
        history: History,
    },
    /// Withdrawn by its client.
    Cancelled {
        /// When the interrupted attempt began, if one had.
        started_at: Option<Timestamp>,
        /// When it was withdrawn.
        finished_at: Timestamp,
        /// Attempts so far.
        history: History,
    },
}

/// A job's state without its data, for filters, counts and indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// See [`JobState::Queued`].
    Queued,
    /// See [`JobState::Processing`].
    Processing,
    /// See [`JobState::Done`].
    Done,
    /// See [`JobState::Failed`].
    Failed,
    /// See [`JobState::Cancelled`].
    Cancelled,
}

/// Why a sheep returns a job unfinished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveBack {
    /// Through no fault of the job: shutdown, restart of the daemon, a job sent
    /// ahead that had not begun, storage away.
    Blameless,
    /// The runner died while it worked on the job.
    Crashed,
}

/// Something that happens to a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sheep takes the job.
    Claim {
        /// The new attempt's token.
        attempt: Attempt,
        /// Who takes it.
        sheep: SheepId,
        /// Now.
        at: Timestamp,
    },
    /// The runner begins the attempt, after it waited since its claim: for inputs, for a
    /// runner, or for jobs before it.
    Begin {
        /// Which attempt.
        attempt: Attempt,
        /// Now.
        at: Timestamp,
    },
    /// The attempt's outputs are in storage.
    Complete {
        /// Whose outputs.
        attempt: Attempt,
        /// Now.
        at: Timestamp,
    },
    /// The attempt ended with an error that is the job's.
    Fail {
        /// Which attempt.
        attempt: Attempt,
        /// Why.
        error: JobError,
        /// Now.
        at: Timestamp,
    },
    /// The attempt is given up and the job waits again.
    GiveBack {
        /// Which attempt.
        attempt: Attempt,
        /// Whose fault it was.
        cause: GiveBack,
        /// Not to be claimed before this time.
        not_before: Option<Timestamp>,
    },
    /// The client withdraws the job.
    Cancel {
        /// Now.
        at: Timestamp,
    },
    /// The client wants a finished job run once more.
    Rerun,
}

/// An event that does not fit the state. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The event belongs to an attempt that is no longer (or was never) current.
    #[error("attempt {got} is stale")]
    Stale {
        /// The token that came.
        got: Attempt,
    },
    /// A claim's token is not newer than the attempts before it.
    #[error("attempt {got} does not follow {attempts} earlier attempts")]
    OutOfOrder {
        /// The token that came.
        got: Attempt,
        /// Attempts begun so far.
        attempts: u32,
    },
    /// The job waits until a later time.
    #[error("the job may not be claimed yet")]
    TooEarly,
    /// The job is finished, and this event needs one that is not.
    #[error("the job is finished")]
    Finished,
    /// The job is queued or running, and this event needs a finished one.
    #[error("the job is not finished")]
    NotFinished,
    /// The job is already being processed.
    #[error("the job is being processed")]
    Claimed,
}

impl JobState {
    /// The state of a job that was just accepted.
    pub const fn new() -> Self {
        Self::Queued { not_before: None, history: History { attempts: 0, crashes: 0 } }
    }

    /// The state's name.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Queued { .. } => Phase::Queued,
            Self::Processing { .. } => Phase::Processing,
            Self::Done { .. } => Phase::Done,
            Self::Failed { .. } => Phase::Failed,
            Self::Cancelled { .. } => Phase::Cancelled,
        }
    }

    /// Whether the outcome is final (until a rerun).
    pub const fn is_finished(&self) -> bool {
        match self.phase() {
            Phase::Queued | Phase::Processing => false,
            Phase::Done | Phase::Failed | Phase::Cancelled => true,
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`Rejected`] when the event does not fit; `self` is unchanged.
    pub fn apply(&self, event: Event) -> Result<Self, Rejected> {
        match self {
            Self::Queued { not_before, history } => queued(*not_before, *history, event),
            Self::Processing { attempt, sheep, started_at, history } => {
                processing(*attempt, sheep, *started_at, *history, event)
            }
            Self::Done { history, .. } | Self::Failed { history, .. } | Self::Cancelled { history, .. } => {
                finished(*history, &event)
            }
        }
    }
}

impl Default for JobState {
    fn default() -> Self {
        Self::new()
    }
}

fn queued(not_before: Option<Timestamp>, history: History, event: Event) -> Result<JobState, Rejected> {
    match event {
        Event::Claim { attempt, sheep, at } => {
            if not_before.is_some_and(|t| at < t) {
                return Err(Rejected::TooEarly);
            }
            if attempt.number != history.attempts.saturating_add(1) {
                return Err(Rejected::OutOfOrder { got: attempt, attempts: history.attempts });
            }
            let history = History { attempts: attempt.number, ..history };
            Ok(JobState::Processing { attempt, sheep, started_at: at, history })
        }
        Event::Cancel { at } => Ok(JobState::Cancelled { started_at: None, finished_at: at, history }),
        Event::Begin { attempt, .. }
        | Event::Complete { attempt, .. }
        | Event::Fail { attempt, .. }
        | Event::GiveBack { attempt, .. } => Err(Rejected::Stale { got: attempt }),
        Event::Rerun => Err(Rejected::NotFinished),
    }
}

fn processing(
    current: Attempt,
    sheep: &SheepId,
    started_at: Timestamp,
    history: History,
    event: Event,
) -> Result<JobState, Rejected> {
    let fence = |got: Attempt| if got == current { Ok(()) } else { Err(Rejected::Stale { got }) };
    match event {
        Event::Claim { .. } => Err(Rejected::Claimed),
        Event::Begin { attempt, at } => {
            fence(attempt)?;
            let started_at = started_at.max(at);
            Ok(JobState::Processing { attempt, sheep: sheep.clone(), started_at, history })
        }
        Event::Complete { attempt, at } => {
            fence(attempt)?;
            Ok(JobState::Done { started_at, finished_at: at, history })
        }
        Event::Fail { attempt, error, at } => {
            fence(attempt)?;
            Ok(JobState::Failed { started_at, finished_at: at, error, history })
        }
        Event::GiveBack { attempt, cause, not_before } => {
            fence(attempt)?;
            let crashes = match cause {
                GiveBack::Blameless => history.crashes,
                GiveBack::Crashed => history.crashes.saturating_add(1),
            };
            Ok(JobState::Queued { not_before, history: History { crashes, ..history } })
        }
        Event::Cancel { at } => {
            Ok(JobState::Cancelled { started_at: Some(started_at), finished_at: at, history })
        }
        Event::Rerun => Err(Rejected::NotFinished),
    }
}

fn finished(history: History, event: &Event) -> Result<JobState, Rejected> {
    match event {
        Event::Rerun => {
            // A run that was withdrawn before it began may have begun all the same: a
            // crash forgets claims.
            let history = History { attempts: history.attempts.max(1), crashes: 0 };
            Ok(JobState::Queued { not_before: None, history })
        }
        Event::Begin { attempt, .. }
        | Event::Complete { attempt, .. }
        | Event::Fail { attempt, .. }
        | Event::GiveBack { attempt, .. } => Err(Rejected::Stale { got: *attempt }),
        Event::Claim { .. } | Event::Cancel { .. } => Err(Rejected::Finished),
    }
}

#[cfg(test)]
mod tests;
