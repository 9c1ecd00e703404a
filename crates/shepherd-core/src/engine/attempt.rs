//! One attempt at one job, from its claim to the moment its outcome is durable.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{Attempt as Token, Event, GiveBack, JobError, JobId, JobState, Timestamp};
use shepherd_queue::{Change, JobRecord, SmallObject};
use tokio::time::Instant;

use super::SheepNo;

/// A job that begins so long after its claim, or longer, has started when it began.
const NOTABLE_WAIT: Duration = Duration::from_millis(50);

slotmap::new_key_type! {
    /// Names an attempt between the engine and its driver; never used twice in one life of the daemon.
    pub(crate) struct AttemptKey;
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// A claimed job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) record: Arc<JobRecord>,
    pub(crate) token: Token,
    /// Whether no other attempt can have left anything in storage.
    pub(crate) first: bool,
    /// It has waited so long that no other is more urgent.
    pub(crate) is_overdue: bool,
}

/// Order in which jobs of one model are sent: priority, then arrival.
pub(super) type Place = (Reverse<i32>, u64);

impl Job {
    pub(crate) fn id(&self) -> &JobId {
        &self.record.spec.id
    }

    /// Whether any sheep may take it.
    pub(super) fn is_unpinned(&self) -> bool {
        self.record.spec.sheep.is_none()
    }

    /// How urgent it is.
    pub(super) fn priority(&self) -> i32 {
        if self.is_overdue { i32::MAX } else { self.record.spec.priority }
    }

    pub(super) fn place(&self) -> Place {
        (Reverse(self.priority()), self.record.seq)
    }

    /// Attempts at this job during which the runner died.
    pub(super) fn crashes(&self) -> u32 {
        match &self.record.state {
            JobState::Processing { history, .. } => history.crashes,
            JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => 0,
        }
    }

    /// The change that tells when the runner began it. None when that is hardly later than
    /// its claim: for jobs that follow one another fast it would cost too much.
    pub(super) fn begun(&self, now: Timestamp) -> Option<Change> {
        match &self.record.state {
            JobState::Processing { started_at, .. } if now.since(*started_at) >= NOTABLE_WAIT => {
                Some(self.change(Event::Begin { attempt: self.token, at: now }, Vec::new()))
            }
            JobState::Processing { .. }
            | JobState::Queued { .. }
            | JobState::Done { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled { .. } => None,
        }
    }

    pub(super) fn done(&self, objects: Vec<SmallObject>, now: Timestamp) -> Change {
        self.change(Event::Complete { attempt: self.token, at: now }, objects)
    }

    pub(super) fn failed(&self, error: JobError, objects: Vec<SmallObject>, now: Timestamp) -> Change {
        self.change(Event::Fail { attempt: self.token, error, at: now }, objects)
    }

    pub(super) fn given_back(&self, cause: GiveBack, after: Duration, now: Timestamp) -> Change {
        let not_before = (!after.is_zero()).then(|| now.after(after));
        self.change(Event::GiveBack { attempt: self.token, cause, not_before }, Vec::new())
    }

    fn change(&self, event: Event, objects: Vec<SmallObject>) -> Change {
        Change { job: self.id().clone(), event, objects }
    }
}

/// An attempt that the engine holds.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) sheep: SheepNo,
    pub(super) job: Job,
    pub(super) stage: Stage,
}

/// How far an attempt is. The engine's documentation has the transitions.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its working directory is being filled.
    Staging { since: Instant },
    /// Its working directory is ready.
    Staged,
    /// The runner has it.
    Sent(OnRunner),
    /// The runner has it and was asked to let go of it, because it waits for its turn there while
    /// another sheep, or a more urgent job, could go on.
    Recalled(OnRunner),
    /// The runner has it, its client does not want it any more. When the runner has not let go of
    /// it `by` then, the runner is ended.
    Cancelling { on: OnRunner, by: Instant },
    /// Its outputs are taken out of its directory.
    Collecting(Fate),
    /// Its outputs are made durable in storage.
    Publishing(Fate),
    /// Its directory is being removed; then the change, if any, is committed.
    Releasing(Option<Change>),
    /// Its outcome is made durable.
    Committing,
    /// Its client does not want it any more; its directory is still being filled.
    Abandoned,
}

/// What is known of an attempt that the runner has.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnRunner {
    /// When it was sent, or became one of those that the runner works on.
    pub(super) since: Instant,
    /// The runner works on it, or did.
    pub(super) has_begun: bool,
    /// The runner has said something about it.
    pub(super) is_heard_of: bool,
}

/// What a job comes to that its runner is through with.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    /// It is done once its outputs are kept.
    Done,
    /// It failed, whatever becomes of the outputs that it has.
    Failed(JobError),
}

impl Stage {
    /// What is known of it where the runner has it.
    pub(super) const fn on_runner(&self) -> Option<&OnRunner> {
        match self {
            Self::Sent(on) | Self::Recalled(on) | Self::Cancelling { on, .. } => Some(on),
            Self::Staging { .. }
            | Self::Staged
            | Self::Collecting(_)
            | Self::Publishing(_)
            | Self::Releasing(_)
            | Self::Committing
            | Self::Abandoned => None,
        }
    }

    pub(super) const fn on_runner_mut(&mut self) -> Option<&mut OnRunner> {
        match self {
            Self::Sent(on) | Self::Recalled(on) | Self::Cancelling { on, .. } => Some(on),
            Self::Staging { .. }
            | Self::Staged
            | Self::Collecting(_)
            | Self::Publishing(_)
            | Self::Releasing(_)
            | Self::Committing
            | Self::Abandoned => None,
        }
    }

    /// Whether its working directory is, or may be, in use.
    pub(super) const fn uses_directory(&self) -> bool {
        match self {
            Self::Staging { .. }
            | Self::Staged
            | Self::Sent(_)
            | Self::Recalled(_)
            | Self::Cancelling { .. }
            | Self::Collecting(_)
            | Self::Publishing(_)
            | Self::Releasing(_)
            | Self::Abandoned => true,
            Self::Committing => false,
        }
    }

    /// Its name, for rejections and traces.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Staging { .. } => "staging",
            Self::Staged => "staged",
            Self::Sent(_) => "sent",
            Self::Recalled(_) => "recalled",
            Self::Cancelling { .. } => "cancelling",
            Self::Collecting(_) => "collecting",
            Self::Publishing(_) => "publishing",
            Self::Releasing(_) => "releasing",
            Self::Committing => "committing",
            Self::Abandoned => "abandoned",
        }
    }
}
