//! One sheep as the engine keeps it.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::time::Duration;

use shepherd_job::{Attempt as Token, JobId, ModelRef, SheepId, Timestamp};
use tokio::time::Instant;

use super::attempt::AttemptKey;
use super::cooldown::ModelCooldowns;
use super::io::{AtWork, Death, EndReport, LaunchNo, Now, RunnerFacts};
use super::placement::{Cause, UNKNOWN};
use super::prefetch::{CompletionRate, PrefetchDepth};
use crate::retry::Backoff;

/// Bounds of one sheep's runners.
#[derive(Clone, Debug)]
pub struct RunnerLimits {
    /// A runner that was silent for so long is taken for hung, and ended.
    pub heartbeat_timeout: Duration,
    /// A job that runs longer fails, and its runner is ended.
    pub run_timeout: Option<Duration>,
    /// A runner that is not ready so long after its start is ended.
    pub start_timeout: Duration,
    /// How long a runner may take to end when it is asked to.
    pub stop_grace: Duration,
    /// How many more times a job is tried whose runner died.
    pub crash_retries: u32,
}

impl Default for RunnerLimits {
    fn default() -> Self {
        Self {
            heartbeat_timeout: Duration::from_secs(30),
            run_timeout: None,
            start_timeout: Duration::from_secs(600),
            stop_grace: Duration::from_secs(10),
            crash_retries: 0,
        }
    }
}

/// One sheep as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SheepView {
    /// Which sheep.
    pub id: SheepId,
    /// What kind of sheep: `bare`, `docker`.
    pub kind: &'static str,
    /// What its runner does.
    pub state: SheepState,
    /// The model it has or is getting; where it could not get one, the one it had before.
    pub model: Option<ModelRef>,
    /// The job its runner works on.
    pub job: Option<JobId>,
    /// Why it cannot run anything at present.
    pub problem: Option<String>,
    /// What the start of its runner is busy with, when that takes its time.
    pub activity: Option<String>,
}

/// What the runner of a sheep does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SheepState {
    /// There is none.
    Stopped,
    /// It starts and loads its model.
    Starting,
    /// It is ready or works.
    Running,
    /// It is being ended.
    Stopping,
}

/// What a sheep does. The engine's documentation has the transitions.
#[derive(Debug)]
pub(super) enum State {
    /// It has no runner.
    Empty,
    /// A runner starts.
    Launching { launch: LaunchNo, since: Instant },
    /// A runner takes jobs.
    Ready(Box<Runner>),
    /// A runner is being ended.
    Stopping { launch: LaunchNo, end: End },
    /// The runner is gone, and perhaps by a signal that the daemon is about to get, too: until then
    /// nobody is blamed.
    Gone { end: End, report: EndReport, until: Instant },
    /// It has no runner, and could not run any.
    Unfit { until: Instant },
    /// It has no runner, and its directory is being made again.
    Reopening,
}

impl State {
    pub(super) const fn view(&self) -> SheepState {
        match self {
            Self::Empty | Self::Unfit { .. } | Self::Reopening => SheepState::Stopped,
            Self::Launching { .. } => SheepState::Starting,
            Self::Ready(_) => SheepState::Running,
            Self::Stopping { .. } | Self::Gone { .. } => SheepState::Stopping,
        }
    }

    pub(super) const fn is_vacant(&self) -> bool {
        matches!(self, Self::Empty | Self::Unfit { .. } | Self::Reopening)
    }
}

/// Why a runner is being ended.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// Another model is wanted, or none, or it wants to end; it holds no jobs.
    Idle,
    /// It died, or its connection did; how.
    Died(Death),
    /// It sent what it should not have, or nothing for too long.
    Unreliable(String),
    /// This job ran too long.
    TimedOut(JobId, Duration),
    /// It did not let go of a cancelled job.
    KeptCancelled,
    /// The sheep's directory is gone, and with it what the runner works on.
    Homeless,
    /// The time to drain is over.
    Drained,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("it is not needed"),
            Self::Died(death) => write!(f, "it {}", death.how),
            Self::Unreliable(reason) => f.write_str(reason),
            Self::TimedOut(job, limit) => write!(f, "job {job} ran longer than its limit of {limit:?}"),
            Self::KeptCancelled => f.write_str("it did not let go of a cancelled job"),
            Self::Homeless => f.write_str("the sheep's directory was removed or replaced"),
            Self::Drained => f.write_str("the time to drain is over"),
        }
    }
}

/// Answers remembered to tell a repeated one from one that was never asked for.
const REMEMBERED: usize = 1024;

/// A runner that takes jobs.
#[derive(Debug)]
pub(super) struct Runner {
    pub(super) launch: LaunchNo,
    pub(super) facts: RunnerFacts,
    pub(super) last_heard: Instant,
    pub(super) last_ping: Instant,
    pub(super) nonce: u64,
    /// When it last answered, or was ready.
    pub(super) last_answer: Instant,
    /// What is sent to it now is lost.
    pub(super) is_fading: bool,
    /// It has given up jobs that nobody asked back: it ends, and gets no others.
    pub(super) is_leaving: bool,
    pub(super) works_on: Option<AtWork>,
    /// Attempts that it answered, newest last.
    answered: VecDeque<(JobId, Token)>,
}

impl Runner {
    pub(super) const fn new(launch: LaunchNo, facts: RunnerFacts, now: Instant) -> Self {
        Self {
            launch,
            facts,
            last_heard: now,
            last_ping: now,
            nonce: 0,
            last_answer: now,
            is_fading: false,
            is_leaving: false,
            works_on: None,
            answered: VecDeque::new(),
        }
    }

    /// It has answered this attempt.
    pub(super) fn note_answer(&mut self, job: JobId, token: Token) {
        if self.answered.len() == REMEMBERED {
            self.answered.pop_front();
        }
        self.answered.push_back((job, token));
    }

    /// Whether it has answered this job before.
    pub(super) fn has_answered(&self, job: &str, token: Option<Token>) -> bool {
        self.answered.iter().any(|(id, of)| id.as_str() == job && token.is_none_or(|got| got == *of))
    }
}

/// A claim whose answer has not come yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingClaim {
    pub(super) limit: usize,
    /// The store's version when it was made.
    pub(super) version: u64,
    /// Jobs that were accepted before this time go first.
    pub(super) overdue: Option<Timestamp>,
    /// Placement has counted on what comes of it.
    pub(super) was_seen: bool,
}

/// What is known of the room on the disk of the working directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// There was room then.
    Free { at: Instant },
    /// There was none.
    Full { again: Instant },
    /// It is being looked at.
    Checking { was_full: bool },
}

#[derive(Debug)]
pub(super) struct Sheep {
    pub(super) id: SheepId,
    pub(super) limits: RunnerLimits,
    pub(super) state: State,
    /// The model that the jobs it holds are of.
    pub(super) model: Option<ModelRef>,
    /// The model it should have.
    pub(super) order: Option<ModelRef>,
    /// When the model was ordered, or its runner ready, whichever came later.
    pub(super) settled_at: Timestamp,
    /// Why the model was ordered; counts until its runner is ready.
    pub(super) cause: Cause,
    /// The model that it had a runner of last.
    pub(super) last_model: Option<ModelRef>,
    /// Whether the sheep could not have the present model.
    pub(super) is_refused: bool,
    /// The state of the model that was seen last since the runner was launched.
    pub(super) stamp_seen: Option<u64>,
    /// Attempts that the runner has, in the order they were sent.
    pub(super) sent: VecDeque<AttemptKey>,
    /// Attempts that are staging or staged, in the order they are to be sent.
    pub(super) ahead: Vec<AttemptKey>,
    /// All attempts of this sheep.
    pub(super) held: usize,
    pub(super) claim: Option<PendingClaim>,
    /// The store's version at which it had less than was wanted.
    pub(super) dry: Option<u64>,
    /// Jobs claimed since one was that had waited too long.
    pub(super) since_overdue: usize,
    pub(super) prefetch: PrefetchDepth,
    pub(super) rate: CompletionRate,
    pub(super) cooldowns: ModelCooldowns,
    /// Models of which its last start of a runner failed.
    pub(super) failing: HashSet<ModelRef>,
    pub(super) swap_time: Duration,
    pub(super) failures: Backoff,
    /// Number of answers before jobs are sent ahead again.
    pub(super) careful: usize,
    /// Number of answers before the runner gets more than one job at a time.
    pub(super) suspects: usize,
    /// Nothing is made ready or sent ahead until the runner answers: another sheep is free.
    pub(super) is_sharing: bool,
    /// When a staged job need no longer wait for an earlier one.
    pub(super) overtake_at: Option<Instant>,
    pub(super) space: Space,
    /// Somebody removed or replaced the sheep's directory.
    pub(super) is_homeless: bool,
    /// When the sheep is asked whether it could launch a runner; none while it is being asked.
    pub(super) check_at: Option<Instant>,
    /// Why it cannot run anything at present.
    pub(super) problem: Option<String>,
    /// What placement was told of it last.
    pub(super) seen: Seen,
    pub(super) view: SheepView,
}

/// What placement knew of a sheep when it was last told of a change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) in_hand: usize,
    pub(super) spare: usize,
    pub(super) urgency: Option<i32>,
    pub(super) is_available: bool,
}

impl Sheep {
    pub(super) fn new(id: SheepId, kind: &'static str, limits: RunnerLimits, now: Now) -> Self {
        let view = SheepView {
            id: id.clone(),
            kind,
            state: SheepState::Stopped,
            model: None,
            job: None,
            problem: None,
            activity: None,
        };
        Self {
            id,
            limits,
            state: State::Empty,
            model: None,
            order: None,
            settled_at: Timestamp::default(),
            cause: Cause::default(),
            last_model: None,
            is_refused: false,
            stamp_seen: None,
            sent: VecDeque::new(),
            ahead: Vec::new(),
            held: 0,
            claim: None,
            dry: None,
            since_overdue: 0,
            prefetch: PrefetchDepth::default(),
            rate: CompletionRate::default(),
            cooldowns: ModelCooldowns::default(),
            failing: HashSet::new(),
            swap_time: UNKNOWN,
            failures: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
            careful: 0,
            suspects: 0,
            is_sharing: false,
            overtake_at: None,
            space: Space::Free { at: now.monotonic },
            is_homeless: false,
            check_at: Some(now.monotonic),
            problem: None,
            seen: Seen { is_available: true, ..Seen::default() },
            view,
        }
    }

    /// Jobs past the runner whose outcome is not durable yet.
    pub(super) fn finishing(&self) -> usize {
        self.held - self.ahead.len() - self.sent.len()
    }

    /// The launch whose answers count.
    pub(super) const fn launch(&self) -> Option<LaunchNo> {
        match &self.state {
            State::Launching { launch, .. } | State::Stopping { launch, .. } => Some(*launch),
            State::Ready(runner) => Some(runner.launch),
            State::Empty | State::Gone { .. } | State::Unfit { .. } | State::Reopening => None,
        }
    }

    /// The launch that goes on, and since when.
    pub(super) const fn launching(&self) -> Option<(LaunchNo, Instant)> {
        match &self.state {
            State::Launching { launch, since } => Some((*launch, *since)),
            State::Empty
            | State::Ready(_)
            | State::Stopping { .. }
            | State::Gone { .. }
            | State::Unfit { .. }
            | State::Reopening => None,
        }
    }

    pub(super) fn slots(&self) -> usize {
        match &self.state {
            State::Ready(runner) => runner.facts.slots,
            State::Empty
            | State::Launching { .. }
            | State::Stopping { .. }
            | State::Gone { .. }
            | State::Unfit { .. }
            | State::Reopening => 1,
        }
    }

    /// Whether the runner can let go of a job that it has.
    pub(super) fn can_recall(&self) -> bool {
        matches!(&self.state, State::Ready(runner) if runner.facts.can_cancel)
    }

    /// Until when no runner of the present model is started, if that is some time off.
    pub(super) fn rest_until(&self, now: Instant) -> Option<Instant> {
        let of_model = self.model.as_ref().and_then(|model| self.cooldowns.until(model, now));
        let of_sheep = match &self.state {
            State::Unfit { until } => Some(*until).filter(|until| *until > now),
            State::Empty
            | State::Launching { .. }
            | State::Ready(_)
            | State::Stopping { .. }
            | State::Gone { .. }
            | State::Reopening => None,
        };
        of_model.max(of_sheep)
    }

    /// How often the clocks of its runner are looked at.
    pub(super) fn tick_period(&self) -> Duration {
        let shortest = self.limits.run_timeout.unwrap_or(Duration::MAX).min(self.limits.heartbeat_timeout);
        (shortest / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }
}
