//! What goes into the store and what comes out: plain values, shared by every
//! implementation.

use std::sync::Arc;

use bytes::Bytes;
use shepherd_job::{
    Attempt, Event, JobId, JobSpec, JobState, ModelRef, ObjectPath, Phase, Rejected, SheepId, Timestamp,
};

/// A small object that rides in the queue's own commit until it is written to
/// storage as a file.
///
/// The bytes may stay in memory for a while, so they should not be a slice of a
/// much larger buffer.
pub type SmallObject = (ObjectPath, Bytes);

/// A job to be accepted.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What to run.
    pub spec: JobSpec,
    /// When it arrived.
    pub submitted_at: Timestamp,
    /// Objects of the job that become durable with the record.
    pub objects: Vec<SmallObject>,
    /// What to do when the id is known already.
    pub existing: Existing,
}

/// What to do with a submit whose id is known already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse it ([`Submitted::Conflict`]).
    Refuse,
    /// Run a finished job again with the new spec; leave a live one alone.
    ///
    /// The rerun has a sequence number of its own and goes on counting attempts.
    /// Inputs of the older run that storage still lacks go with it; outputs of the
    /// older run that storage still lacks are dropped.
    Rerun,
}

/// What became of one submit.
#[derive(Clone, Debug)]
pub enum Submitted {
    /// It is queued, durably.
    Accepted(Arc<JobRecord>),
    /// A job of this id is queued or running; nothing was changed.
    Live(Arc<JobRecord>),
    /// A job of this id exists; nothing was changed.
    Conflict,
}

/// Everything that is known of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Order of arrival; unique, and new for every rerun.
    pub seq: u64,
    /// What to run.
    pub spec: JobSpec,
    /// When it was accepted.
    pub submitted_at: Timestamp,
    /// Where it is in its life.
    pub state: JobState,
}

/// A request for work.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Jobs of this model only.
    pub model: ModelRef,
    /// Who asks.
    pub sheep: SheepId,
    /// Which jobs may be had.
    pub pins: Pins,
    /// At most this many.
    pub limit: usize,
    /// Now.
    pub at: Timestamp,
    /// Where given, the job that waited longest of those that were accepted before this
    /// time goes first, whatever its priority, if there is one.
    pub overdue: Option<Timestamp>,
}

impl Claim {
    /// A claim of jobs that `sheep` may take: those pinned to it, and those that are not
    /// pinned.
    pub const fn new(model: ModelRef, sheep: SheepId, limit: usize, at: Timestamp) -> Self {
        Self { model, sheep, pins: Pins::Own, limit, at, overdue: None }
    }
}

/// Jobs by the sheep that they are pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pins {
    /// Jobs that are pinned to the sheep that asks, or to none.
    Own,
    /// These, and those that are pinned to one of these sheep, which are no more.
    OwnAnd(Arc<[SheepId]>),
    /// Jobs that are pinned to the sheep that asks.
    Only,
}

impl Pins {
    /// Whether `sheep` may have a job that is pinned like this.
    pub fn allow(&self, pin: Option<&SheepId>, sheep: &SheepId) -> bool {
        match (self, pin) {
            (Self::Own | Self::OwnAnd(_), None) => true,
            (Self::Only, None) => false,
            (Self::OwnAnd(removed), Some(pin)) => pin == sheep || removed.contains(pin),
            (Self::Own | Self::Only, Some(pin)) => pin == sheep,
        }
    }
}

/// A job that was handed to a sheep.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The record, whose state is [`JobState::Processing`].
    pub job: Arc<JobRecord>,
    /// The attempt's token.
    pub attempt: Attempt,
    /// Whether no other attempt can have begun, also none that a crash forgot.
    pub first: bool,
    /// The job's objects that are not in storage yet, by path.
    pub objects: Vec<SmallObject>,
}

/// One change of one job's state.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which job.
    pub job: JobId,
    /// What happened; anything but [`Event::Claim`] and [`Event::Rerun`], which
    /// are refused here.
    pub event: Event,
    /// Objects that become durable with the change, in place of older ones of the
    /// same paths; dropped when the change is refused.
    pub objects: Vec<SmallObject>,
}

/// Why a change was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// No job has this id.
    #[error("no such job")]
    Unknown,
    /// The event does not fit the job's state; a stale attempt is fenced off here.
    #[error(transparent)]
    Rejected(#[from] Rejected),
}

/// The outcome of one change: the record after it.
pub type Changed = Result<Arc<JobRecord>, ChangeRefused>;

/// Jobs that may be claimed together: one model, one pin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Their model.
    pub model: ModelRef,
    /// The only sheep that may take them, or any.
    pub sheep: Option<SheepId>,
    /// How many may be claimed now; at least 1.
    pub ready: usize,
    /// The priority of the first.
    pub priority: i32,
    /// The sequence number of the first.
    pub seq: u64,
    /// When the first was accepted.
    pub submitted_at: Timestamp,
}

/// What the scheduler sees of the queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Every group that has a job to claim, first jobs first (priority
    /// descending, then sequence).
    pub groups: Vec<Group>,
    /// When the next job that waits for its time becomes ready.
    pub next_due: Option<Timestamp>,
}

/// Which jobs a listing shows.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Only jobs in one of these phases; empty means all.
    pub phases: Vec<Phase>,
    /// Only jobs that arrived before this sequence number (newest first).
    pub before: Option<u64>,
    /// At most this many.
    pub limit: usize,
}

/// How a job finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// See [`JobState::Done`].
    Done,
    /// See [`JobState::Failed`].
    Failed,
    /// See [`JobState::Cancelled`].
    Cancelled,
}

impl Outcome {
    /// The outcome of a job in this phase, if it is finished.
    pub const fn of(phase: Phase) -> Option<Self> {
        match phase {
            Phase::Queued | Phase::Processing => None,
            Phase::Done => Some(Self::Done),
            Phase::Failed => Some(Self::Failed),
            Phase::Cancelled => Some(Self::Cancelled),
        }
    }
}

/// Which records of finished jobs are removed. All conditions must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// Only jobs that finished like this.
    pub outcome: Outcome,
    /// Only jobs that finished before this time.
    pub finished_before: Option<Timestamp>,
    /// None of so many jobs of this outcome that arrived last.
    pub keep_newest: u64,
    /// At most this many, those that arrived first.
    pub limit: usize,
}

/// How many jobs are in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting, those included that wait for a time.
    pub queued: u64,
    /// Held by a sheep.
    pub processing: u64,
    /// Finished well.
    pub done: u64,
    /// Finished with an error.
    pub failed: u64,
    /// Withdrawn.
    pub cancelled: u64,
}
