//! One simulated runner: it works on jobs in its slots, in the order they came, and misbehaves.

use std::collections::VecDeque;
use std::time::Duration;

use shepherd_job::{Attempt as Token, JobError, JobId};
use shepherd_protocol::{CANCELLED, FromRunner, ToRunner};

use super::super::{AttemptKey, Input, LaunchNo};
use super::events::Step;
use super::faults::Fault;
use super::ledger::raised;
use super::runners::{Phase, RunnerStep};
use super::scenario::{Outcome, SheepPlan};
use super::world::World;

/// How a runner's process ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeathKind {
    Crash,
    Signal,
    EngineStops,
}

impl DeathKind {
    pub(super) const fn how(self) -> &'static str {
        match self {
            Self::Crash => "exited with code 3",
            Self::Signal => "was ended by signal 15",
            Self::EngineStops => "went with its engine",
        }
    }
}

/// What a runner does that it should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misdeed {
    DieIdle,
    DieBySignal,
    DieWithEngine,
    CloseConnection,
    FallSilent,
    AnswerForNobody,
    AnswerForAnother,
    GiveUpUnasked,
    SendGarbage,
    StopReading,
}

impl Misdeed {
    pub(super) const ALL: &'static [Self] = &[
        Self::DieIdle,
        Self::DieBySignal,
        Self::DieWithEngine,
        Self::CloseConnection,
        Self::FallSilent,
        Self::AnswerForNobody,
        Self::AnswerForAnother,
        Self::GiveUpUnasked,
        Self::SendGarbage,
        Self::StopReading,
    ];

    pub(super) const fn fault(self) -> Fault {
        match self {
            Self::DieIdle => Fault::DiesIdle,
            Self::DieBySignal => Fault::DiesBySignal,
            Self::DieWithEngine => Fault::EngineStops,
            Self::CloseConnection => Fault::ConnectionCloses,
            Self::FallSilent => Fault::FallsSilent,
            Self::AnswerForNobody => Fault::AnswersForNobody,
            Self::AnswerForAnother => Fault::AnswersForAnother,
            Self::GiveUpUnasked => Fault::GivesUpUnasked,
            Self::SendGarbage => Fault::Garbage,
            Self::StopReading => Fault::DoesNotRead,
        }
    }
}

/// A job that a runner has.
#[derive(Debug)]
pub(super) struct RunnerJob {
    pub(super) key: AttemptKey,
    pub(super) job: JobId,
    pub(super) token: Token,
    /// Names the work on it; never used twice by one runner.
    work: u64,
    /// When it was begun, of the time that the daemon was awake.
    pub(super) begun: Option<Duration>,
    /// It is not let go of until the runner ends.
    is_kept: bool,
    /// It is being let go of.
    is_leaving: bool,
}

#[derive(Debug)]
pub(super) struct SimRunner {
    slots: usize,
    can_cancel: bool,
    has_tokens: bool,
    pub(super) is_alive: bool,
    /// Its launch has told that it is gone.
    pub(super) is_gone: bool,
    is_connected: bool,
    /// Since when of the daemon's time it says nothing, if it does not.
    pub(super) silent_since: Option<Duration>,
    pub(super) is_deaf: bool,
    /// It begins no more jobs, and ends.
    is_ending: bool,
    /// Jobs in the order in which they came; the first are in the slots.
    pub(super) jobs: VecDeque<RunnerJob>,
    last_work: u64,
}

impl SimRunner {
    pub(super) const fn new(plan: &SheepPlan) -> Self {
        Self {
            slots: plan.slots,
            can_cancel: plan.can_cancel,
            has_tokens: plan.has_tokens,
            is_alive: true,
            is_gone: false,
            is_connected: true,
            silent_since: None,
            is_deaf: false,
            is_ending: false,
            jobs: VecDeque::new(),
            last_work: 0,
        }
    }

    /// Whether what it says reaches the daemon.
    pub(super) const fn is_heard(&self) -> bool {
        self.is_alive && self.is_connected && self.silent_since.is_none()
    }

    /// Whether it works, or may work, on the attempt.
    pub(super) fn may_use(&self, key: AttemptKey) -> bool {
        self.is_alive && self.jobs.iter().any(|job| job.key == key)
    }
}

impl World {
    fn runner(&mut self, launch: LaunchNo) -> Option<&mut SimRunner> {
        self.launches.get_mut(&launch)?.runner.as_mut().filter(|runner| runner.is_alive)
    }

    /// A runner gets messages.
    pub(super) fn receive(&mut self, launch: LaunchNo, messages: Vec<ToRunner>) {
        let Some(runner) = self.runner(launch).filter(|runner| runner.is_connected) else { return };
        if runner.is_deaf {
            let sheep = self.launches[&launch].sheep;
            if self.launches[&launch].phase == Phase::Up {
                let reason = "the runner does not read its messages".to_owned();
                self.tell(launch, Duration::ZERO, Input::Unreliable { sheep, launch, reason });
            }
            return;
        }
        let mut said = Vec::new();
        for message in messages {
            match message {
                ToRunner::Input(input) => {
                    let key = self.attempt_of(&input.job, input.attempt).expect("it was sent");
                    let Some(runner) = self.runner(launch) else { return };
                    runner.last_work += 1;
                    let job = RunnerJob {
                        key,
                        job: input.job,
                        token: input.attempt,
                        work: runner.last_work,
                        begun: None,
                        is_kept: false,
                        is_leaving: false,
                    };
                    runner.jobs.push_back(job);
                }
                ToRunner::Cancel { job, attempt } => said.extend(self.cancel_at(launch, &job, attempt)),
                ToRunner::Ping { nonce } => said.push(FromRunner::Pong { nonce }),
                ToRunner::Shutdown { .. } => {}
            }
        }
        self.say(launch, said);
        self.begin_jobs(launch);
        let has_waiting = self.runner(launch).is_some_and(|runner| runner.jobs.len() > runner.slots);
        if has_waiting && self.faults.strikes(&mut self.rng, Fault::GivesUpUnasked) {
            self.misbehave(launch, Misdeed::GiveUpUnasked);
        }
    }

    /// A runner is told to let go of a job. It does that at once where it has not begun it.
    fn cancel_at(&mut self, launch: LaunchNo, job: &JobId, token: Token) -> Option<FromRunner> {
        let is_kept = self.faults.strikes(&mut self.rng, Fault::KeepsCancelled);
        let delay = self.latency();
        let sheep = self.launches.get(&launch)?.sheep;
        let is_unwanted = self.attempt_of(job, token).is_some_and(|key| self.attempts[&key].is_cancelled);
        // Without a limit, and where somebody wants it, nothing ends it.
        let is_ended = is_unwanted || self.plan.sheep[sheep.0].limits.run_timeout.is_some();
        let runner = self.runner(launch)?;
        let index = runner.jobs.iter().position(|other| other.job == *job && other.token == token)?;
        if !runner.can_cancel {
            return None;
        }
        let of = &mut runner.jobs[index];
        if is_kept {
            of.is_kept = is_ended;
            return None;
        }
        if of.begun.is_some() {
            of.is_leaving = true;
            let work = of.work;
            self.after(delay, Step::Runner(launch, RunnerStep::LetGo(work)));
            return None;
        }
        let of = runner.jobs.remove(index)?;
        Some(answer(runner.has_tokens, &of, Some(cancelled())))
    }

    /// Begins jobs while there are slots.
    fn begin_jobs(&mut self, launch: LaunchNo) {
        let awake = self.awake();
        loop {
            let now = self.now;
            let Some(runner) = self.runner(launch) else { return };
            if runner.is_ending {
                return self.end_if_done(launch);
            }
            let slots = runner.slots;
            let waiting = runner.jobs.iter().take(slots).position(|job| job.begun.is_none());
            let Some(index) = waiting else { return };
            let job = &mut runner.jobs[index];
            job.begun = Some(awake);
            let (key, id, token, work) = (job.key, job.job.clone(), job.token, job.work);
            let has_tokens = runner.has_tokens;
            if let Some(attempt) = self.attempts.get_mut(&key) {
                attempt.begun = Some((now, awake));
            }
            let plan = self.jobs[&id].plan.clone();
            let takes = plan.run.mul_f64(0.7 + 0.6 * self.rng.f64());
            let sheep = self.launches[&launch].sheep;
            let has_limit = self.plan.sheep[sheep.0].limits.run_timeout.is_some();
            if plan.outcome == Outcome::Poison || self.faults.strikes(&mut self.rng, Fault::DiesAtWork) {
                let when = takes.mul_f64(self.rng.f64());
                self.after(when, Step::Runner(launch, RunnerStep::Misbehave(Misdeed::DieIdle)));
            }
            // Without a limit nothing ends it.
            if !(has_limit && self.faults.strikes(&mut self.rng, Fault::Hangs)) {
                self.after(takes, Step::Runner(launch, RunnerStep::Finish(work)));
            }
            if self.rng.u8(..10) == 0 && has_tokens {
                let text = "working\n".to_owned();
                let (job, attempt) = (id.to_string(), Some(token));
                self.say(
                    launch,
                    vec![
                        FromRunner::Log { job: job.clone(), attempt, text },
                        FromRunner::Progress { job, attempt, fraction: Some(0.5), message: None },
                    ],
                );
            }
        }
    }

    /// A runner is through with a job.
    pub(super) fn finish(&mut self, launch: LaunchNo, work: u64) {
        let Some(runner) = self.runner(launch) else { return };
        let Some(index) = runner.jobs.iter().position(|job| job.work == work && !job.is_kept) else { return };
        let Some(job) = runner.jobs.remove(index) else { return };
        let has_tokens = runner.has_tokens;
        let raises = self.jobs[&job.job].plan.outcome == Outcome::Raises;
        let error = raises.then(|| JobError::new(raised(&job.job, job.token)));
        self.wrote(launch, &job);
        let said = answer(has_tokens, &job, error);
        let twice = has_tokens && self.faults.strikes(&mut self.rng, Fault::AnswersTwice);
        self.say(launch, vec![said.clone()]);
        if twice {
            self.say(launch, vec![said]);
        }
        self.begin_jobs(launch);
    }

    /// A runner lets go of a job that it had begun.
    pub(super) fn let_go(&mut self, launch: LaunchNo, work: u64) {
        let Some(runner) = self.runner(launch) else { return };
        let Some(index) = runner.jobs.iter().position(|job| job.work == work && job.is_leaving) else {
            return;
        };
        let Some(job) = runner.jobs.remove(index) else { return };
        let said = answer(runner.has_tokens, &job, Some(cancelled()));
        self.say(launch, vec![said]);
        self.begin_jobs(launch);
    }

    fn end_if_done(&mut self, launch: LaunchNo) {
        let Some(runner) = self.runner(launch) else { return };
        if runner.jobs.iter().all(|job| job.begun.is_none()) {
            self.die(launch, DeathKind::Signal);
        }
    }

    fn die(&mut self, launch: LaunchNo, kind: DeathKind) {
        let Some(runner) = self.runner(launch) else { return };
        runner.is_alive = false;
        let delay = self.latency();
        self.after(delay, Step::Runner(launch, RunnerStep::SeenDead(kind)));
    }

    pub(super) fn misbehave(&mut self, launch: LaunchNo, misdeed: Misdeed) {
        let (awake, now) = (self.awake(), self.now);
        let (phase, sheep) = match self.launches.get(&launch) {
            Some(of) => (of.phase, of.sheep),
            None => return,
        };
        if phase != Phase::Up {
            return;
        }
        let Some(runner) = self.runner(launch) else { return };
        match misdeed {
            Misdeed::DieIdle => {
                let fault = if runner.jobs.is_empty() { Fault::DiesIdle } else { Fault::DiesAtWork };
                self.faults.note(fault);
                self.die(launch, DeathKind::Crash);
            }
            Misdeed::DieBySignal => self.die(launch, DeathKind::Signal),
            Misdeed::DieWithEngine => self.die(launch, DeathKind::EngineStops),
            Misdeed::CloseConnection => {
                runner.is_connected = false;
                let delay = self.latency();
                self.after(delay, Step::Runner(launch, RunnerStep::SeenClosed));
            }
            Misdeed::FallSilent => drop(runner.silent_since.get_or_insert(awake)),
            Misdeed::AnswerForNobody => {
                let said = FromRunner::Done { job: "nobody".to_owned(), attempt: None };
                self.say(launch, vec![said]);
            }
            Misdeed::AnswerForAnother => {
                let other = self.attempts.values().find(|attempt| {
                    attempt.sheep != sheep && self.jobs[attempt.job.id()].plan.outcome == Outcome::Done
                });
                if let Some(other) = other {
                    let (job, attempt) = (other.job.id().to_string(), Some(other.job.token));
                    self.say(launch, vec![FromRunner::Done { job, attempt }]);
                }
            }
            Misdeed::GiveUpUnasked => {
                runner.is_ending = true;
                let (begun, waiting): (VecDeque<_>, VecDeque<_>) =
                    runner.jobs.drain(..).partition(|job| job.begun.is_some());
                runner.jobs = begun;
                let has_tokens = runner.has_tokens;
                let said = waiting.iter().map(|job| answer(has_tokens, job, Some(cancelled()))).collect();
                self.say(launch, said);
                self.end_if_done(launch);
            }
            Misdeed::SendGarbage => {
                let reason = "the runner sent a message that cannot be understood".to_owned();
                let delay = self.latency();
                self.tell(launch, delay, Input::Unreliable { sheep, launch, reason });
            }
            Misdeed::StopReading => runner.is_deaf = true,
        }
        self.trace.line(now, || format!("  {launch:?} {misdeed:?}"));
    }
}

fn cancelled() -> JobError {
    JobError { exception_type: CANCELLED.to_owned(), ..JobError::new("cancelled") }
}

/// What a runner says when it is through with a job.
fn answer(has_tokens: bool, job: &RunnerJob, error: Option<JobError>) -> FromRunner {
    let (attempt, job) = (has_tokens.then_some(job.token), job.job.to_string());
    match error {
        None => FromRunner::Done { job, attempt },
        Some(error) => FromRunner::Error { job, attempt, error },
    }
}
