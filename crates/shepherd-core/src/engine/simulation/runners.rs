//! Launches and the runners that come of them, which misbehave.

use std::time::Duration;

use shepherd_job::{JobError, ModelRef};
use shepherd_protocol::{FromRunner, ToRunner};

use super::super::{Death, EndKind, EndReport, Input, LaunchFailure, LaunchNo, Mode, RunnerFacts, SheepNo};
use super::events::Step;
use super::faults::Fault;
use super::runner::{DeathKind, Misdeed, SimRunner};
use super::world::World;

/// How long what a dead runner had said may take to come.
const LAST_MESSAGES: Duration = Duration::from_millis(500);
/// How long a runner whose connection is gone may take to be seen dead.
const EXIT_REPORT: Duration = Duration::from_secs(3);
/// When a runner misbehaves, at the latest.
const MISDEEDS_WITHIN: Duration = Duration::from_secs(6);

/// How far a launch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting,
    Up,
    /// It was told to end: nobody hears the runner any more.
    Ending,
}

/// A launch that is not over.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) sheep: SheepNo,
    pub(super) model: ModelRef,
    pub(super) phase: Phase,
    /// When the engine had it ended.
    pub(super) end_asked: Option<Duration>,
    pub(super) runner: Option<SimRunner>,
    /// The engine heard that the runner gives up jobs that nobody asked back.
    pub(super) is_leaving: bool,
    /// The end of the runner, or of its connection, was seen.
    is_seen: bool,
    /// When the engine heard that the runner is ready, of the time that the daemon was awake.
    pub(super) ready_at: Duration,
    /// It was told that the runner's machine is gone.
    pub(super) is_machines: bool,
    kind: EndKind,
    /// What it tells comes in order.
    last_told: Duration,
    /// What it is told comes in order.
    last_command: Duration,
}

/// Something that a launch or its runner does.
#[derive(Debug)]
pub(super) enum RunnerStep {
    /// The start is over.
    Started(Result<(), LaunchFailure>),
    /// The runner gets messages.
    Receive(Vec<ToRunner>),
    /// The launch is told to end its runner.
    End { grace: Duration, kind: EndKind },
    /// The runner's process ends because it was told to.
    Exit,
    /// A job in a slot comes to its end.
    Finish(u64),
    /// The runner lets go of a job that it was told to.
    LetGo(u64),
    /// The runner does what it should not.
    Misbehave(Misdeed),
    /// It is seen that the process is gone.
    SeenDead(DeathKind),
    /// It is seen that the connection is gone.
    SeenClosed,
}

impl RunnerStep {
    /// Whether the daemon's process does it.
    pub(super) const fn is_daemons(&self) -> bool {
        match self {
            Self::Started(_) | Self::End { .. } | Self::SeenDead(_) | Self::SeenClosed => true,
            Self::Receive(_) | Self::Exit | Self::Finish(_) | Self::LetGo(_) | Self::Misbehave(_) => false,
        }
    }
}

impl World {
    pub(super) fn launch(&mut self, sheep: SheepNo, launch: LaunchNo, model: ModelRef) {
        self.check_launches(sheep, launch, &model);
        let place = self.plan.models.iter().position(|plan| plan.model == model).expect("it is known");
        let (plan, limits) = (&self.plan.models[place], &self.plan.sheep[sheep.0].limits);
        let (dies, lacks, timeout) = (plan.dies, plan.lacking[sheep.0], limits.start_timeout);
        let mut takes = plan.load.mul_f64(0.8 + self.rng.f64());
        let error = |what: &str| JobError::new(format!("{model} {what}"));
        let started = if lacks {
            takes = self.latency();
            Err(LaunchFailure::Refused(error("is not on this sheep")))
        } else if self.sheep[sheep.0].is_broken || self.faults.strikes(&mut self.rng, Fault::LaunchSheepFails)
        {
            Err(LaunchFailure::Sheep("the engine is away".to_owned()))
        } else if self.faults.strikes(&mut self.rng, Fault::LaunchRefused) {
            Err(LaunchFailure::Refused(error("cannot be loaded")))
        } else if self.faults.strikes(&mut self.rng, Fault::LaunchHangs) {
            takes = timeout;
            Err(LaunchFailure::Died(error("was not ready in time")))
        } else if self.rng.u8(..100) < dies {
            self.faults.note(Fault::LaunchDies);
            Err(LaunchFailure::Died(error("died at its start")))
        } else {
            Ok(())
        };
        let (last_told, last_command) = (self.now, self.now);
        let of = Launch {
            sheep,
            model,
            phase: Phase::Starting,
            end_asked: None,
            runner: None,
            is_leaving: false,
            is_seen: false,
            ready_at: Duration::ZERO,
            is_machines: false,
            kind: EndKind::Stop,
            last_told,
            last_command,
        };
        self.launches.insert(launch, of);
        self.after(takes, Step::Runner(launch, RunnerStep::Started(started)));
    }

    pub(super) fn abort(&mut self, launch: LaunchNo) {
        self.faults.note(Fault::LaunchAborted);
        self.aborted.push(launch);
        if let Some(of) = self.launches.remove(&launch) {
            if of.phase == Phase::Up {
                self.faults.note(Fault::AbortCrossesReady);
            }
            self.check_abort(&of);
        }
    }

    /// Tells a launch something, after what it was told before.
    pub(super) fn command(&mut self, launch: LaunchNo, step: RunnerStep) {
        let delay = self.latency();
        let Some(of) = self.launches.get_mut(&launch) else { return };
        of.last_command = of.last_command.max(self.now + delay);
        let delay = of.last_command - self.now;
        self.after(delay, Step::Runner(launch, step));
    }

    /// The launch tells the engine something, after what it told before.
    pub(super) fn tell(&mut self, launch: LaunchNo, delay: Duration, input: Input) {
        let Some(of) = self.launches.get_mut(&launch) else { return };
        of.last_told = of.last_told.max(self.now + delay);
        let delay = of.last_told - self.now;
        self.send(delay, input);
    }

    /// The runner says something; nobody hears one that is being ended.
    pub(super) fn say(&mut self, launch: LaunchNo, messages: Vec<FromRunner>) {
        let is_heard = self
            .launches
            .get(&launch)
            .is_some_and(|of| of.phase == Phase::Up && of.runner.as_ref().is_some_and(SimRunner::is_heard));
        if !is_heard || messages.is_empty() {
            return;
        }
        let mut delay = self.latency();
        if messages.iter().any(FromRunner::is_answer)
            && self.faults.strikes(&mut self.rng, Fault::AnswersLate)
        {
            delay += Duration::from_millis(self.rng.u64(50..600));
        }
        let sheep = self.launches[&launch].sheep;
        self.tell(launch, delay, Input::Heard { sheep, launch, messages });
    }

    pub(super) fn runner_step(&mut self, launch: LaunchNo, step: RunnerStep) {
        let Some(of) = self.launches.get_mut(&launch) else { return };
        let sheep = of.sheep;
        match step {
            RunnerStep::Started(Ok(())) => {
                of.phase = Phase::Up;
                let plan = &self.plan.sheep[sheep.0];
                let stamp = plan.has_stamps.then(|| self.stamps.get(&of.model).copied().unwrap_or(0));
                let facts = RunnerFacts {
                    name: format!("runner-{}", launch.0),
                    slots: plan.slots,
                    ahead: plan.ahead,
                    can_cancel: plan.can_cancel,
                    stamp,
                    io_data_root: "root".into(),
                };
                of.runner = Some(SimRunner::new(plan));
                let delay = self.latency_or(Fault::ReadySlow);
                self.tell(launch, delay, Input::Launched { sheep, launch, runner: facts });
                for misdeed in Misdeed::ALL {
                    if self.faults.strikes(&mut self.rng, misdeed.fault()) {
                        let when = MISDEEDS_WITHIN.mul_f64(self.rng.f64() * self.rng.f64());
                        self.after(when, Step::Runner(launch, RunnerStep::Misbehave(*misdeed)));
                    }
                }
            }
            RunnerStep::Started(Err(failure)) => {
                let delay = self.latency_or(Fault::ReadySlow);
                self.tell(launch, delay, Input::LaunchFailed { sheep, launch, failure });
            }
            RunnerStep::Receive(messages) => self.receive(launch, messages),
            RunnerStep::End { grace, kind } => {
                of.phase = Phase::Ending;
                of.kind = kind;
                let is_alive = of.runner.as_ref().is_some_and(|runner| runner.is_alive);
                let slow = self.faults.strikes(&mut self.rng, Fault::EndSlow);
                let kill = self.latency() + Duration::from_millis(if slow { 1_500 } else { 0 });
                let is_forced = self.mode() == Some(Mode::Forced);
                let takes =
                    if is_alive && !is_forced { grace.mul_f64(self.rng.f64()) } else { Duration::ZERO };
                self.after(takes + kill, Step::Runner(launch, RunnerStep::Exit));
            }
            RunnerStep::Exit => self.exit(launch),
            RunnerStep::Finish(work) => self.finish(launch, work),
            RunnerStep::LetGo(work) => self.let_go(launch, work),
            RunnerStep::Misbehave(misdeed) => self.misbehave(launch, misdeed),
            RunnerStep::SeenDead(kind) if of.phase == Phase::Up && !of.is_seen => {
                of.is_seen = true;
                of.is_machines = kind == DeathKind::EngineStops;
                self.tell(launch, Duration::ZERO, Input::Fading { sheep, launch });
                let wait = LAST_MESSAGES.mul_f64(self.rng.f64());
                let death = Death {
                    how: kind.how().to_owned(),
                    is_blameless: kind == DeathKind::EngineStops,
                    is_from_outside: kind != DeathKind::Crash,
                    at: self.instant(self.now),
                };
                self.tell(launch, wait, Input::Lost { sheep, launch, death });
            }
            RunnerStep::SeenClosed if of.phase == Phase::Up && !of.is_seen => {
                of.is_seen = true;
                self.tell(launch, Duration::ZERO, Input::Fading { sheep, launch });
                let wait = EXIT_REPORT;
                let death = Death {
                    how: "closed its connection".to_owned(),
                    is_blameless: false,
                    is_from_outside: false,
                    at: self.instant(self.now + wait),
                };
                self.tell(launch, wait, Input::Lost { sheep, launch, death });
            }
            RunnerStep::SeenDead(_) | RunnerStep::SeenClosed => {}
        }
    }

    /// The runner's process is gone, as it was told.
    fn exit(&mut self, launch: LaunchNo) {
        let Some(of) = self.launches.get_mut(&launch) else { return };
        let Some(runner) = &mut of.runner else { return };
        if std::mem::replace(&mut runner.is_gone, true) {
            return;
        }
        runner.is_alive = false;
        let own = runner.jobs.front().filter(|_| runner.jobs.len() == 1 && of.kind == EndKind::Stop);
        let own = own.map(|job| (job.key, "last words".to_owned()));
        let report = EndReport { how: "was ended".to_owned(), own };
        let sheep = of.sheep;
        runner.jobs.clear();
        let delay = self.latency();
        self.tell(launch, delay, Input::Ended { sheep, launch, report });
    }

    /// Force: runners that may take their time to end may not any more.
    pub(super) fn force_ends(&mut self) {
        let ending: Vec<LaunchNo> = self
            .launches
            .iter()
            .filter(|(_, of)| of.phase == Phase::Ending)
            .map(|(launch, _)| *launch)
            .collect();
        for launch in ending {
            let delay = self.latency();
            self.after(delay, Step::Runner(launch, RunnerStep::Exit));
        }
    }
}
