//! The engine: one state machine that decides what the whole flock does.
//!
//! It does no I/O, reads no clock, spawns nothing and holds no lock. The
//! [driver](crate::driver) feeds it [inputs](Input) and carries out its [effects](Effect); what
//! an effect came to is an input again. So the same engine runs in the daemon and, under virtual
//! time and with every fault that can be thought of, in its `simulation`.
//!
//! ```text
//!            inputs: queue changed, looked, claimed, staged, launched, heard, lost, ended,
//!                    collected, published, released, committed, cancelled, drain, force, timer
//!                                   │
//!                                   ▼
//!   now ──────────────▶  engine.handle(now, input)  ──────────────▶ effects
//!                                   │
//!                                   └──────────────▶ deadline
//! ```
//!
//! # A job's way
//! Each attempt is in one [stage](Stage). What does not fit its stage is a typed
//! [rejection](Rejected) and changes nothing.
//!
//! | stage | what comes | becomes | effects |
//! |---|---|---|---|
//! | – | claimed | `Staging` | stage |
//! | – | claimed, but its directory here is in use, or the sheep leaves the model | `Committing` | commit: given back |
//! | `Staging` | staged | `Staged` | |
//! | `Staging` | cannot be staged | `Committing` | commit: failed, or given back for later |
//! | `Staging` | cancelled | `Abandoned` | |
//! | `Abandoned` | staged | `Releasing` | release |
//! | `Staged` | the runner has room | `Sent` | send, note begun |
//! | `Staged` | the sheep leaves the model, rests, shares or yields | `Releasing` | release, then commit: given back |
//! | `Staged` | cancelled | `Releasing` | release |
//! | `Sent` | asked back | `Recalled` | send: cancel |
//! | `Sent`, `Recalled` | cancelled | `Cancelling` | send: cancel |
//! | `Sent`, `Recalled` | done, failed | `Collecting` | collect |
//! | `Sent`, `Recalled` | let go of | `Releasing` | release, then commit: given back |
//! | `Sent`, `Recalled` | the runner is gone | `Collecting` (it fails) or `Releasing` (it is given back) | |
//! | `Cancelling` | answered, or the runner is gone | `Releasing` | release, join log |
//! | `Collecting` | small outputs | `Committing` | commit |
//! | `Collecting` | other outputs | `Publishing` | publish |
//! | `Publishing` | published | `Committing` | commit |
//! | `Publishing` | the attempt is stale | – | |
//! | `Releasing` | released | `Committing`, or – | commit |
//! | `Committing` | committed, or refused | – | |
//!
//! Nothing of an attempt is given up before its runner's processes are gone or have let go of it,
//! and no job gets a directory that another attempt at it may still use. So two attempts never
//! share a directory.
//!
//! # A sheep's way
//!
//! | state | what comes | becomes | effects |
//! |---|---|---|---|
//! | `Empty` | a job is staged, and the model does not rest | `Launching` | launch |
//! | `Launching` | launched | `Ready` | |
//! | `Launching` | the model cannot be run | `Empty` | its jobs fail, or are given back for others |
//! | `Launching` | the sheep cannot run anything | `Unfit` | its jobs are given back |
//! | `Launching` | another model is wanted, or force | `Empty` | abort launch |
//! | `Ready` | it is not needed, lost, unreliable, too slow; force | `Stopping` | end |
//! | `Stopping` | ended | `Empty` | what it had is decided |
//! | `Stopping` | ended, as if by a signal | `Gone` | |
//! | `Gone` | a moment passed, or the daemon drains | `Empty` | what it had is decided |
//! | `Unfit` | its time has come | `Empty` | |
//! | `Empty` | its directory is gone, and no job uses it | `Reopening` | reopen |
//! | `Reopening` | reopened | `Empty`, or `Unfit` | |
//!
//! # Messages of a runner
//! Each may be late, twice, wrong or never:
//!
//! - late or twice: the attempt is not with the runner, and was answered before: it is passed
//!   over; the store's fencing stands behind that.
//! - wrong (not understood, or about a job that the runner never had): the runner cannot be
//!   relied on and is ended; the job it should have answered fails.
//! - never: the process's end, the socket's end, or silence past the heartbeat timeout ends the
//!   runner; a run timeout ends the job.
//!
//! The job that was running when a runner died is blamed for it. Which one that was is certain
//! only when the runner had no other: several run at once, and answers of those sent ahead may
//! die with their runner. Otherwise all go back to the store, and for a while runners get one at
//! a time, so that the one to blame is found the next time. A job that the runner had hardly begun
//! when something outside ended it goes back, too, but only once; and nobody is to blame while the
//! daemon drains.
//!
//! # Work for the flock
//! A sheep claims jobs of the model that it has, first jobs first, whenever it has room
//! ([`dispatch`]). When it should have another model is decided for the whole flock at once, from a
//! look at the store ([`placement`]). Looks are asked for whenever something that they depend on
//! has changed, at most one per [`LOOK_INTERVAL`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use shepherd_job::{Attempt as Token, JobId, ModelRef, SheepId};
use slotmap::SlotMap;
use tokio::time::Instant;

use attempt::Attempt;
use placement::Limits;
use sheep::Sheep;

pub(crate) use attempt::{AttemptKey, Job};
pub(crate) use io::{
    AtWork, Collected, Death, Effect, EndKind, EndReport, Input, LaunchFailure, LaunchNo, Now, OutputKind,
    Published, QueueView, Release, RunnerFacts, SheepNo, StageFailure, Staged,
};
pub use sheep::{RunnerLimits, SheepState, SheepView};
pub(crate) use termination::DIED;

mod attempt;
mod clock;
mod cooldown;
mod dispatch;
mod finish;
mod io;
mod messages;
mod placement;
mod prefetch;
mod sheep;
#[cfg(test)]
mod simulation;
mod termination;
#[cfg(test)]
mod tests;
mod upkeep;

/// Least time between two looks at the store.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// How often waiting jobs are looked at again when nothing else happens.
const REVIEW: Duration = Duration::from_secs(1);
/// A rest that is no longer than this is not worth having jobs staged anew.
const SHORT_REST: Duration = Duration::from_secs(1);

/// One sheep of a flock that an engine is to run.
#[derive(Clone, Debug)]
pub(crate) struct FlockMember {
    pub(crate) id: SheepId,
    pub(crate) kind: &'static str,
    pub(crate) limits: RunnerLimits,
}

/// An input that does not fit what the engine knows. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejected {
    /// The attempt is not held any more.
    #[error("attempt {0} is not held")]
    Unknown(AttemptKey),
    /// The attempt is in another stage.
    #[error("attempt {attempt} is {stage}")]
    Stage {
        /// Which attempt.
        attempt: AttemptKey,
        /// The stage it is in.
        stage: &'static str,
    },
    /// It is about a runner that is not the sheep's any more.
    #[error("launch {} of sheep {} is over", launch.0, sheep.0)]
    Launch {
        /// Which sheep.
        sheep: SheepNo,
        /// Which launch.
        launch: LaunchNo,
    },
    /// It answers what was not asked.
    #[error("sheep {} was not asked", .0.0)]
    NotAsked(SheepNo),
    /// No job of this id and attempt is held.
    #[error("no attempt at the job is held")]
    NoAttempt,
}

/// Whether the daemon goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Running,
    /// What runs may end; nothing else begins.
    Draining,
    /// Nothing may go on.
    Forced,
}

/// When the store is looked at.
#[derive(Clone, Copy, Debug)]
struct Looks {
    is_wanted: bool,
    is_pending: bool,
    /// Not before this time.
    resume_at: Instant,
    /// At this time at the latest.
    due_at: Option<Instant>,
}

/// The state machine. See the module's documentation.
pub(crate) struct Engine {
    now: Now,
    mode: Mode,
    limits: Limits,
    flock: Vec<Sheep>,
    attempts: SlotMap<AttemptKey, Attempt>,
    by_job: HashMap<JobId, Vec<AttemptKey>>,
    last_launch: u64,
    /// Counts what was heard of changes of the store.
    version: u64,
    looks: Looks,
    /// For models of groups that were seen, which sheep cannot run them.
    lacking: HashMap<ModelRef, Vec<bool>>,
    /// When the clocks of runners are looked at next.
    tick_at: Option<Instant>,
    deadline: Option<Instant>,
    effects: Vec<Effect>,
}

impl Engine {
    pub(crate) fn new(flock: Vec<FlockMember>, max_wait: Duration, now: Now) -> Self {
        let sheep = |member: FlockMember| Sheep::new(member.id, member.kind, member.limits, now);
        let looks = Looks { is_wanted: true, is_pending: false, resume_at: now.monotonic, due_at: None };
        Self {
            now,
            mode: Mode::Running,
            limits: Limits { max_wait },
            flock: flock.into_iter().map(sheep).collect(),
            attempts: SlotMap::with_key(),
            by_job: HashMap::new(),
            last_launch: 0,
            version: 0,
            looks,
            lacking: HashMap::new(),
            tick_at: None,
            // The first timer looks at the store and the flock.
            deadline: Some(now.monotonic),
            effects: Vec::new(),
        }
    }

    /// Takes an input. What is to be done then is in [`effects`](Self::effects), and what to wait
    /// for in [`deadline`](Self::deadline).
    ///
    /// # Errors
    /// The input fits nothing that the engine knows.
    pub(crate) fn handle(&mut self, now: Now, input: Input) -> Result<(), Rejected> {
        self.now = now;
        let taken = self.take(input);
        self.look();
        self.deadline = self.next_deadline();
        taken
    }

    /// What is to be done, in this order; the next call gives only what came since.
    pub(crate) fn effects(&mut self) -> std::vec::Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// When [`Input::Timer`] is due.
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether it was told to drain and has nothing left to do.
    pub(crate) fn is_drained(&self) -> bool {
        self.mode != Mode::Running
            && self.attempts.is_empty()
            && self.flock.iter().all(|sheep| sheep.state.is_vacant() && sheep.claim.is_none())
    }

    /// A sheep as clients see it now.
    pub(crate) fn view(&self, no: SheepNo) -> &SheepView {
        &self.flock[no.0].view
    }

    fn take(&mut self, input: Input) -> Result<(), Rejected> {
        match input {
            Input::QueueChanged => {
                self.version += 1;
                self.looks.is_wanted = true;
                for no in self.all() {
                    if self.flock[no.0].dry.is_some() {
                        self.advance(no);
                    }
                }
                Ok(())
            }
            Input::Looked(view) => {
                self.take_view(view);
                Ok(())
            }
            Input::Claimed { sheep, jobs } => self.take_claimed(sheep, jobs),
            Input::Staged { attempt, result } => self.take_staged(attempt, result),
            Input::Launched { sheep, launch, runner } => self.take_launched(sheep, launch, runner),
            Input::LaunchFailed { sheep, launch, failure } => self.take_launch_failed(sheep, launch, failure),
            Input::Heard { sheep, launch, messages } => {
                self.check_launch(sheep, launch)?;
                self.take_messages(sheep, messages);
                self.advance(sheep);
                Ok(())
            }
            Input::Fading { sheep, launch } => {
                self.check_launch(sheep, launch)?;
                if let sheep::State::Ready(runner) = &mut self.flock[sheep.0].state {
                    runner.is_fading = true;
                }
                Ok(())
            }
            Input::Lost { sheep, launch, death } => self.lose(sheep, launch, sheep::End::Died(death)),
            Input::Unreliable { sheep, launch, reason } => {
                self.lose(sheep, launch, sheep::End::Unreliable(reason))
            }
            Input::Ended { sheep, launch, report } => self.take_ended(sheep, launch, report),
            Input::Collected { attempt, result } => self.take_collected(attempt, result),
            Input::Published { attempt, result } => self.take_published(attempt, result),
            Input::Released { attempt } => self.take_released(attempt),
            Input::Committed { attempt } => {
                let stage = &self.attempt(attempt)?.stage;
                let attempt::Stage::Committing = stage else { return Err(wrong_stage(attempt, stage)) };
                let sheep = self.forget(attempt);
                self.advance(sheep);
                Ok(())
            }
            Input::Cancelled { job, number } => self.cancel(&job, number),
            Input::Space { sheep, problem } => self.take_space(sheep, problem),
            Input::Reopened { sheep, result } => self.take_reopened(sheep, result),
            Input::Checked { sheep, problem } => {
                self.take_checked(sheep, problem);
                Ok(())
            }
            Input::Drain => {
                self.mode = self.mode.max(Mode::Draining);
                self.everybody();
                Ok(())
            }
            Input::Force => {
                self.mode = Mode::Forced;
                self.everybody();
                Ok(())
            }
            Input::Timer => {
                self.take_timer();
                Ok(())
            }
        }
    }

    fn all(&self) -> impl Iterator<Item = SheepNo> + use<> {
        (0..self.flock.len()).map(SheepNo)
    }

    fn everybody(&mut self) {
        for no in self.all() {
            self.advance(no);
        }
    }

    /// Does all that one sheep can do now.
    fn advance(&mut self, no: SheepNo) {
        let now = self.now.monotonic;
        let sheep = &mut self.flock[no.0];
        match &sheep.state {
            sheep::State::Unfit { until } if *until <= now => sheep.state = sheep::State::Empty,
            sheep::State::Gone { until, .. } if *until <= now || self.mode != Mode::Running => {
                self.decide_gone(no);
            }
            sheep::State::Empty
            | sheep::State::Launching { .. }
            | sheep::State::Ready(_)
            | sheep::State::Stopping { .. }
            | sheep::State::Gone { .. }
            | sheep::State::Unfit { .. }
            | sheep::State::Reopening => {}
        }
        let sheep = &self.flock[no.0];
        if sheep.is_homeless {
            self.leave_home(no);
        } else if self.mode == Mode::Running && sheep.order == sheep.model {
            self.claim(no);
        } else {
            self.leave_model(no);
        }
        self.flock[no.0].overtake_at = None;
        let sheep = &self.flock[no.0];
        match &sheep.state {
            sheep::State::Empty | sheep::State::Unfit { .. } => match sheep.rest_until(now) {
                None if !self.has_staged(no) => {}
                None => self.launch(no),
                // Others may take them.
                Some(until) if until - now > SHORT_REST => self.give_back_staged(no, |_| true),
                Some(_) => {}
            },
            sheep::State::Ready(runner) if runner.is_leaving && sheep.sent.is_empty() => {
                self.end(no, sheep::End::Idle);
            }
            sheep::State::Ready(_) => self.send_staged(no),
            sheep::State::Launching { .. }
            | sheep::State::Stopping { .. }
            | sheep::State::Gone { .. }
            | sheep::State::Reopening => {}
        }
        if self.mode == Mode::Forced {
            self.end(no, sheep::End::Drained);
        }
        self.show(no);
    }

    /// Works towards having no job and no runner of the present model, and then takes the one
    /// that it should have.
    fn leave_model(&mut self, no: SheepNo) {
        self.give_back_staged(no, |_| true);
        self.recall(no, |_| true);
        let sheep = &mut self.flock[no.0];
        if sheep.claim.is_some() || !sheep.ahead.is_empty() || !sheep.sent.is_empty() {
            return;
        }
        match &sheep.state {
            sheep::State::Empty | sheep::State::Unfit { .. } => {
                let order = if self.mode == Mode::Running { sheep.order.clone() } else { None };
                if sheep.model == order {
                    return;
                }
                sheep.model = order;
                sheep.is_refused = false;
                sheep.prefetch = prefetch::PrefetchDepth::default();
                sheep.dry = None;
                self.effects.push(Effect::ChangeModel { sheep: no });
                self.effects.push(Effect::EmptyTrash { sheep: no });
                if self.mode == Mode::Running {
                    self.claim(no);
                }
            }
            sheep::State::Launching { launch, .. } => {
                let launch = *launch;
                sheep.is_sharing = false;
                sheep.state = sheep::State::Empty;
                self.effects.push(Effect::AbortLaunch { launch });
                self.leave_model(no);
            }
            sheep::State::Ready(_) => self.end(no, sheep::End::Idle),
            sheep::State::Stopping { .. } | sheep::State::Gone { .. } | sheep::State::Reopening => {}
        }
    }

    /// Publishes what changed of a sheep: to clients, and to placement.
    fn show(&mut self, no: SheepNo) {
        let is_available = self.is_available(no);
        let can_recall = self.flock[no.0].can_recall();
        let slots = self.flock[no.0].slots();
        let mut seen = sheep::Seen { is_available, ..sheep::Seen::default() };
        let sheep = &self.flock[no.0];
        let mut job = None;
        for (index, key) in sheep.sent.iter().enumerate() {
            let Some(attempt) = self.attempts.get(*key) else { continue };
            if matches!(attempt.stage, attempt::Stage::Cancelling { .. }) {
                continue;
            }
            seen.in_hand += 1;
            job = job.or(Some(attempt.job.id()));
            if index >= slots {
                seen.urgency = seen.urgency.max(Some(attempt.job.priority()));
                let waits = matches!(attempt.stage, attempt::Stage::Sent(_));
                seen.spare += usize::from(can_recall && waits && attempt.job.is_unpinned());
            }
        }
        seen.in_hand += sheep.ahead.len();
        let ahead = |key: &AttemptKey| self.attempts.get(*key);
        seen.urgency = seen.urgency.max(sheep.ahead.first().and_then(ahead).map(|next| next.job.priority()));
        let is_spare =
            |attempt: &Attempt| matches!(attempt.stage, attempt::Stage::Staged) && attempt.job.is_unpinned();
        // How many is nobody's business, only whether.
        seen.spare += usize::from(sheep.ahead.iter().filter_map(ahead).any(is_spare));
        let job = job.cloned();
        let front = sheep.sent.front().and_then(|key| Some((*key, self.attempts.get(*key)?)));
        let is_only = sheep.sent.len() == 1;
        let works_on = front.map(|(key, attempt)| AtWork {
            attempt: key,
            job: attempt.job.id().clone(),
            number: attempt.job.token.number,
            is_alone: slots == 1 || is_only,
            is_only,
        });
        let before = std::mem::replace(&mut self.flock[no.0].seen, seen);
        let freed = seen.in_hand == 0 && before.in_hand > 0;
        let recovered = seen.is_available && !before.is_available;
        let offers = seen.spare > 0 && before.spare == 0;
        let yields = seen.urgency < before.urgency;
        self.looks.is_wanted |= freed || recovered || offers || yields;
        let sheep = &mut self.flock[no.0];
        if let sheep::State::Ready(runner) = &mut sheep.state
            && runner.works_on != works_on
        {
            runner.works_on.clone_from(&works_on);
            let launch = runner.launch;
            self.effects.push(Effect::WorksOn { launch, job: works_on });
        }
        // One that it could not have is not its own.
        let model = if sheep.is_refused { &sheep.last_model } else { &sheep.model };
        let view = &mut sheep.view;
        let state = sheep.state.view();
        if view.state != state || view.model != *model || view.job != job || view.problem != sheep.problem {
            view.state = state;
            view.model.clone_from(model);
            view.job = job;
            view.problem.clone_from(&sheep.problem);
            self.effects.push(Effect::Show { sheep: no });
        }
    }

    /// Whether the sheep may be given work.
    fn is_available(&self, no: SheepNo) -> bool {
        let sheep = &self.flock[no.0];
        let is_fit = !matches!(sheep.state, sheep::State::Unfit { .. } | sheep::State::Reopening);
        let has_space =
            matches!(sheep.space, sheep::Space::Free { .. } | sheep::Space::Checking { was_full: false });
        is_fit && has_space && !sheep.is_homeless && self.mode == Mode::Running
    }

    fn attempt(&self, key: AttemptKey) -> Result<&Attempt, Rejected> {
        self.attempts.get(key).ok_or(Rejected::Unknown(key))
    }

    /// Whether what is said of a launch is about the present runner.
    fn check_launch(&self, sheep: SheepNo, launch: LaunchNo) -> Result<(), Rejected> {
        match self.flock[sheep.0].launch() {
            Some(current) if current == launch => Ok(()),
            Some(_) | None => Err(Rejected::Launch { sheep, launch }),
        }
    }

    /// Which models a sheep cannot run, as far as was seen.
    fn may_have(&self, model: &ModelRef, no: SheepNo) -> bool {
        let lacks = self.lacking.get(model).and_then(|lacks| lacks.get(no.0));
        !lacks.copied().unwrap_or(false)
    }

    /// Remembers which sheep lack the models of a view; forgets those that no sheep is about.
    fn note_lacking(&mut self, view: &QueueView) {
        let groups: HashSet<&ModelRef> = view.ready.groups.iter().map(|group| &group.model).collect();
        let flock = &self.flock;
        self.lacking.retain(|model, _| {
            flock
                .iter()
                .any(|sheep| sheep.model.as_ref() == Some(model) || sheep.order.as_ref() == Some(model))
        });
        if view.lacking.iter().all(HashSet::is_empty) {
            // Of models that wait now, the answer is newer than what was known.
            self.lacking.retain(|model, _| !groups.contains(model));
            return;
        }
        for model in groups {
            let lacks = view.lacking.iter().map(|models| models.contains(model)).collect();
            self.lacking.insert(model.clone(), lacks);
        }
    }
}

const fn wrong_stage(attempt: AttemptKey, stage: &attempt::Stage) -> Rejected {
    Rejected::Stage { attempt, stage: stage.name() }
}

/// A token as it is compared with what a runner says.
fn is_same(job: &Job, id: &str, token: Option<Token>) -> bool {
    job.id().as_str() == id && token.is_none_or(|token| token == job.token)
}
