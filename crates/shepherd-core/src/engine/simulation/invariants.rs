//! What must always be so.

use std::time::Duration;

use shepherd_protocol::{CANCELLED, FromRunner};

use super::super::attempt::Stage;
use super::super::sheep::{End, Sheep as SheepState, State};
use super::super::{AttemptKey, Effect, Input, LaunchNo, Mode, Rejected, SheepNo};
use super::bookkeeping::state_name;
use super::facts::Owed;
use super::liveness::{has_room, is_idle};
use super::world::World;

/// The longest time between two looks at the clocks of a runner.
pub(super) const MAX_TICK: Duration = Duration::from_secs(1);
/// Maximum number of starts in a row that a sheep gives up for more urgent jobs of other models.
/// There are three priorities; other sheep may take the jobs meanwhile that one was given up for.
pub(super) const MAX_ABANDONED: u32 = 8;
/// The same, where other sheep have taken all those jobs.
pub(super) const MAX_ABANDONED_IN_VAIN: u32 = 16;

/// An invariant. The simulation's documentation says what each means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invariant {
    EndsOnce,
    WinnersOutputs,
    Blame,
    OwnDirectory,
    RightRunner,
    CancelHolds,
    TimeLimits,
    HonestRunner,
    NoIdleSheep,
    Starvation,
    SwapsEnd,
    Bookkeeping,
    Quiet,
    Drains,
    Ends,
    Answers,
}

/// Ends the run: an invariant does not hold.
pub(super) fn broken(invariant: Invariant, details: impl AsRef<str>) -> ! {
    panic!("{invariant:?}: {}", details.as_ref())
}

/// What is remembered of one sheep from one step to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct SheepWatch {
    state: &'static str,
    /// How many jobs a runner has that is being ended for what one of them may have done.
    suspects: Option<usize>,
    /// Number of answers before the runner gets more than one job at a time.
    probation: usize,
    /// Starts given up in a row, and those of them since a job was gone that one was given up for.
    pub(super) abandoned: (u32, u32),
    /// Jobs that it claimed since one that had waited for too long.
    pub(super) since_overdue: u64,
    /// When it last did something, of the time that the daemon was awake.
    pub(super) active_at: Duration,
    /// When its runner last had no free slot.
    pub(super) full_at: Duration,
}

/// What is remembered from one step to the next.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) sheep: Vec<SheepWatch>,
    pub(super) liveness: super::liveness::Liveness,
}

impl Watch {
    pub(super) fn new(flock: usize) -> Self {
        Self { sheep: vec![SheepWatch::default(); flock], liveness: super::liveness::Liveness::default() }
    }

    /// The daemon has ended.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.sheep.len());
    }

    /// A start was not in vain, or came to its end.
    pub(super) fn sent(&mut self, no: SheepNo) {
        self.sheep[no.0].abandoned = (0, 0);
    }

    pub(super) fn is_on_probation(&self, no: SheepNo) -> bool {
        self.sheep[no.0].probation > 0
    }
}

/// Whether an input must be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    Taken,
    /// It is about a launch that was given up.
    Aborted,
    /// It is about an attempt that is over.
    NoAttempt,
}

impl World {
    /// How much longer than its limit something may take: until it is heard of and looked at.
    pub(super) fn time_slack(&self) -> Duration {
        self.plan.latency * 20 + self.plan.timer_slack + Duration::from_millis(700)
    }

    /// Notes that an input answers what was asked; whether it must be taken.
    pub(super) fn note_input(&mut self, input: &Input) -> Expected {
        match input {
            Input::Staged { attempt, result } => {
                self.paid(*attempt, Owed::Staged);
                if result.is_err() {
                    self.watch.sheep[self.attempts[attempt].sheep.0].abandoned.1 = 0;
                }
            }
            Input::Collected { attempt, .. } => self.paid(*attempt, Owed::Collected),
            Input::Published { attempt, .. } => self.paid(*attempt, Owed::Published),
            Input::Released { attempt } => self.paid(*attempt, Owed::Released),
            Input::Committed { attempt } => self.paid(*attempt, Owed::Committed),
            Input::Looked(view) => {
                self.owes_look = false;
                if view.is_err() {
                    let awake = self.awake();
                    self.watch.liveness.blinded(awake);
                }
            }
            Input::Claimed { sheep, jobs } => {
                self.sheep[sheep.0].owes_claim = false;
                if jobs.is_empty() {
                    self.watch.sheep[sheep.0].abandoned.1 = 0;
                }
            }
            Input::Checked { sheep, .. } => self.sheep[sheep.0].owes_check = false,
            Input::Reopened { sheep, .. } => self.sheep[sheep.0].owes_reopen = false,
            Input::LaunchFailed { launch, sheep, .. } | Input::Ended { launch, sheep, .. } => {
                let is_aborted = self.is_aborted(*launch);
                if !is_aborted {
                    self.watch.sent(*sheep);
                    self.note_suspect(*launch, *sheep);
                }
                self.launches.remove(launch);
                return if is_aborted { Expected::Aborted } else { Expected::Taken };
            }
            Input::Heard { launch, sheep, messages } => {
                if self.is_aborted(*launch) {
                    return Expected::Aborted;
                }
                let answers = messages.iter().filter(|message| message.is_answer()).count();
                self.note_leaving(*launch, messages);
                let probation = &mut self.watch.sheep[sheep.0].probation;
                *probation = probation.saturating_sub(answers);
            }
            Input::Launched { launch, .. }
            | Input::Fading { launch, .. }
            | Input::Lost { launch, .. }
            | Input::Unreliable { launch, .. } => {
                if self.is_aborted(*launch) {
                    return Expected::Aborted;
                }
                let awake = self.awake();
                if let (Input::Launched { .. }, Some(of)) = (input, self.launches.get_mut(launch)) {
                    of.ready_at = awake;
                }
            }
            Input::Cancelled { job, number } => {
                let Some(engine) = &self.engine else { return Expected::Taken };
                let is_it = |(_, held): &(AttemptKey, &super::super::attempt::Attempt)| {
                    held.job.id() == job && held.job.token.number == *number
                };
                let Some((key, held)) = engine.attempts.iter().find(is_it) else {
                    return Expected::NoAttempt;
                };
                let is_early = held.stage.on_runner().is_some()
                    || matches!(held.stage, Stage::Staging { .. } | Stage::Staged | Stage::Abandoned);
                if let Some(attempt) = self.attempts.get_mut(&key) {
                    attempt.is_cancelled |= is_early;
                }
            }
            Input::QueueChanged | Input::Space { .. } | Input::Drain | Input::Force | Input::Timer => {}
        }
        Expected::Taken
    }

    /// A runner that gives up jobs unasked gets no others.
    fn note_leaving(&mut self, launch: LaunchNo, messages: &[FromRunner]) {
        let Some(engine) = &self.engine else { return };
        let sheep = self.launches.get(&launch).map(|of| of.sheep);
        let is_unasked = messages.iter().any(|message| match message {
            FromRunner::Error { job, attempt, error } if error.exception_type == CANCELLED => {
                engine.attempts.values().any(|held| {
                    Some(held.sheep) == sheep
                        && held.job.id().as_str() == job
                        && attempt.is_none_or(|token| held.job.token == token)
                        && matches!(held.stage, Stage::Sent(_))
                })
            }
            FromRunner::Error { .. }
            | FromRunner::Done { .. }
            | FromRunner::Progress { .. }
            | FromRunner::Log { .. }
            | FromRunner::Ready(_)
            | FromRunner::Pong { .. } => false,
        });
        // What was decided before is not carried out yet.
        if is_unasked
            && engine.effects.is_empty()
            && let Some(of) = self.launches.get_mut(&launch)
        {
            of.is_leaving = true;
        }
    }

    /// A runner is gone: which job may be blamed for it.
    fn note_suspect(&mut self, launch: LaunchNo, sheep: SheepNo) {
        let Some(engine) = &self.engine else { return };
        let is_machines = self.launches.get(&launch).is_some_and(|of| of.is_machines);
        let SheepState { sent, state, .. } = &engine.flock[sheep.0];
        let is_machines = is_machines && matches!(state, State::Stopping { end: End::Died(_), .. });
        if let (Some(key), 1, false) = (sent.front(), sent.len(), is_machines)
            && let Some(attempt) = self.attempts.get_mut(key)
        {
            attempt.may_be_blamed = true;
        }
    }

    fn paid(&mut self, key: AttemptKey, owed: Owed) {
        let due = self.attempts.get_mut(&key).and_then(|attempt| attempt.owed.take());
        assert_eq!(due, Some(owed), "the world answers what was not asked: {key}");
    }

    /// Whether a launch was given up, also where that is not carried out yet.
    fn is_aborted(&self, launch: LaunchNo) -> bool {
        let is_it = |effect: &Effect| matches!(effect, Effect::AbortLaunch { launch: of } if *of == launch);
        self.aborted.contains(&launch)
            || self.engine.as_ref().is_some_and(|engine| engine.effects.iter().any(is_it))
    }

    pub(super) fn check_result(&mut self, expected: Expected, result: &Result<(), Rejected>) {
        let is_right = match (expected, result) {
            (Expected::Taken, Ok(()))
            | (Expected::Aborted, Err(Rejected::Launch { .. }))
            | (Expected::NoAttempt, Err(Rejected::NoAttempt)) => true,
            (Expected::Taken | Expected::Aborted | Expected::NoAttempt, _) => false,
        };
        if !is_right {
            broken(Invariant::Answers, format!("an input is {expected:?}, and was {result:?}"));
        }
        self.watch_sheep();
    }

    /// Follows what becomes of sheep.
    fn watch_sheep(&mut self) {
        let awake = self.awake();
        let Some(engine) = &self.engine else { return };
        for (sheep, watch) in engine.flock.iter().zip(&mut self.watch.sheep) {
            let end = match &sheep.state {
                State::Stopping { end, .. } | State::Gone { end, .. } => Some(end),
                State::Empty
                | State::Launching { .. }
                | State::Ready(_)
                | State::Unfit { .. }
                | State::Reopening => None,
            };
            let is_blamed = end.is_some_and(|end| match end {
                End::Died(death) => !death.is_blameless,
                End::Unreliable(_) => true,
                End::Idle | End::TimedOut(..) | End::KeptCancelled | End::Homeless | End::Drained => false,
            });
            let suspects = is_blamed.then_some(sheep.sent.len());
            if let (Some(before), None) = (watch.suspects, end)
                && before > 1
                && engine.mode == Mode::Running
            {
                watch.probation = before;
            }
            watch.suspects = suspects;
            let state = state_name(&sheep.state);
            if watch.state != state {
                if !watch.state.is_empty() {
                    *self.coverage.transitions.entry((watch.state, state)).or_default() = 1;
                }
                watch.state = state;
            }
            if !is_idle(sheep) {
                watch.active_at = awake;
            }
            if !has_room(sheep) {
                watch.full_at = awake;
            }
        }
    }
}
