//! Carrying out what the engine decides, with faults.

use shepherd_protocol::ToRunner;

use super::super::{AttemptKey, Effect, Input, Job, LaunchNo, Mode, SheepNo};
use super::events::Step;
use super::facts::{Commit, Dir, Owed, SimAttempt};
use super::faults::Fault;
use super::invariants::{Invariant, broken};
use super::outside::Outside;
use super::runners::{Phase, RunnerStep};
use super::store::StoreCall;
use super::work::Work;
use super::world::World;

/// Of more jobs than so many that a sheep claims, one is one that waited for too long, if there is one.
const OVERDUE_SHARE: u64 = 8;

impl World {
    pub(super) fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Look => {
                let owes = std::mem::replace(&mut self.owes_look, true);
                self.owe(!owes, "two looks at once");
                self.watch.liveness.look_at = self.awake();
                let delay = self.latency_or(Fault::LookSlow);
                self.after(delay, Step::Store(StoreCall::Look));
            }
            Effect::Claim { sheep, model, limit, overdue } => {
                let owes = std::mem::replace(&mut self.sheep[sheep.0].owes_claim, true);
                self.owe(!owes, "two claims of a sheep at once");
                let since_overdue = self.watch.sheep[sheep.0].since_overdue;
                if overdue.is_none() && since_overdue >= OVERDUE_SHARE {
                    let what = format!("{sheep:?} claimed {since_overdue} jobs since one that had waited");
                    broken(Invariant::Starvation, what);
                }
                let delay = self.latency_or(Fault::ClaimSlow);
                self.after(delay, Step::Store(StoreCall::Claim { sheep, model, limit, overdue }));
            }
            Effect::Stage { attempt, sheep, job, .. } => {
                let dir = Dir { holder: attempt, outputs: None };
                if let Some(other) = self.dirs.insert((sheep, job.id().clone()), dir) {
                    broken(
                        Invariant::OwnDirectory,
                        format!("{attempt} stages {} on {sheep:?}, where {} is", job.id(), other.holder),
                    );
                }
                self.hold(attempt, sheep, job, Owed::Staged);
                let delay = self.latency_or(Fault::StageSlow);
                self.after(delay, Step::Work(attempt, Work::Stage));
            }
            Effect::Launch { sheep, launch, model } => self.launch(sheep, launch, model),
            Effect::AbortLaunch { launch } => self.abort(launch),
            Effect::WorksOn { .. } => {}
            Effect::Send { launch, messages } => {
                self.check_sent(launch, &messages);
                self.command(launch, RunnerStep::Receive(messages));
            }
            Effect::End { launch, grace, kind } => {
                let now = self.now;
                let Some(of) = self.launches.get_mut(&launch) else {
                    broken(Invariant::Bookkeeping, format!("{launch:?} is ended and is none"))
                };
                if of.end_asked.replace(now).is_some() {
                    broken(Invariant::Bookkeeping, format!("{launch:?} is ended twice"));
                }
                self.command(launch, RunnerStep::End { grace, kind });
            }
            Effect::Collect { attempt, job, kind, .. } => {
                self.check_let_go(attempt, "collected");
                self.check_wanted(attempt, "collected");
                self.owe_attempt(attempt, Owed::Collected);
                self.check_winner(attempt, &job, kind);
                let delay = self.latency();
                self.after(delay, Step::Work(attempt, Work::Collect(kind)));
            }
            Effect::Publish { attempt, has_failed, .. } => {
                self.check_let_go(attempt, "published");
                self.check_wanted(attempt, "published");
                self.owe_attempt(attempt, Owed::Published);
                let delay = self.latency_or(Fault::PublishSlow);
                self.after(delay, Step::Work(attempt, Work::Publish { has_failed }));
            }
            Effect::Release { attempt, .. } => {
                self.check_let_go(attempt, "released");
                self.owe_attempt(attempt, Owed::Released);
                let delay = self.latency_or(Fault::ReleaseSlow);
                self.after(delay, Step::Work(attempt, Work::Release));
            }
            Effect::Commit { attempt, sheep, change } => {
                // One that is given back at once was never staged.
                if !self.attempts.contains_key(&attempt) {
                    let engine = self.engine.as_ref().expect("it decides");
                    let job = engine.attempts[attempt].job.clone();
                    self.hold(attempt, sheep, job, Owed::Committed);
                }
                self.check_wanted(attempt, "committed");
                self.owe_attempt(attempt, Owed::Committed);
                let change = Commit { attempt: Some(attempt), change };
                self.commit(change);
            }
            Effect::NoteBegun { change, .. } => self.commit(Commit { attempt: None, change }),
            Effect::Report { .. }
            | Effect::Print { .. }
            | Effect::CompleteLog { .. }
            | Effect::SplitLog { .. }
            | Effect::JoinLog { .. }
            | Effect::Touch { .. }
            | Effect::ChangeModel { .. }
            | Effect::EmptyTrash { .. }
            | Effect::Show { .. } => {}
            Effect::CheckSpace { sheep } => {
                let is_full = self.sheep[sheep.0].is_disk_full;
                if is_full {
                    self.faults.note(Fault::DiskFull);
                }
                let problem = is_full.then(|| "the disk is full".to_owned());
                self.handle(Input::Space { sheep, problem });
            }
            Effect::Reopen { sheep } => {
                let owes = std::mem::replace(&mut self.sheep[sheep.0].owes_reopen, true);
                self.owe(!owes, "two reopenings of a sheep at once");
                self.check_reopens(sheep);
                let fails = self.faults.strikes(&mut self.rng, Fault::ReopenFails);
                let result = if fails { Err("the disk is gone".to_owned()) } else { Ok(()) };
                let delay = self.latency();
                self.after(delay, Step::Reopen(sheep, result));
            }
            Effect::Check { sheep } => {
                let owes = std::mem::replace(&mut self.sheep[sheep.0].owes_check, true);
                self.owe(!owes, "two checks of a sheep at once");
                let is_bad =
                    self.sheep[sheep.0].is_broken || self.faults.strikes(&mut self.rng, Fault::CheckProblem);
                let problem = is_bad.then(|| "the sheep is broken".to_owned());
                let delay = self.latency_or(Fault::CheckSlow);
                // Nobody answers once the daemon drains.
                if self.mode() == Some(Mode::Running) {
                    self.send(delay, Input::Checked { sheep, problem });
                }
            }
        }
    }

    fn hold(&mut self, key: AttemptKey, sheep: SheepNo, job: Job, owed: Owed) {
        let attempt = SimAttempt {
            job,
            sheep,
            owed: (owed == Owed::Staged).then_some(owed),
            since: self.now,
            sent_to: None,
            is_cancelled: false,
            begun: None,
            cancelling: None,
            stage: "claimed",
            is_done: false,
            may_be_blamed: false,
            errors: Vec::new(),
        };
        if self.attempts.insert(key, attempt).is_some() {
            broken(Invariant::Bookkeeping, format!("{key} is begun twice"));
        }
    }

    fn owe(&self, is_first: bool, what: &str) {
        if !is_first {
            broken(Invariant::Bookkeeping, what);
        }
    }

    fn owe_attempt(&mut self, key: AttemptKey, owed: Owed) {
        let Some(attempt) = self.attempts.get_mut(&key) else {
            broken(Invariant::Bookkeeping, format!("{key} is none"))
        };
        if let Some(other) = attempt.owed.replace(owed) {
            broken(Invariant::Bookkeeping, format!("{key} is asked for {owed:?} while {other:?} is due"));
        }
    }

    /// What a runner gets.
    fn check_sent(&mut self, launch: LaunchNo, messages: &[ToRunner]) {
        let Some(of) = self.launches.get(&launch).filter(|of| of.phase == Phase::Up) else {
            broken(Invariant::Bookkeeping, format!("{launch:?} is sent something and is not up"))
        };
        let (no, model, end_asked) = (of.sheep, of.model.clone(), of.end_asked);
        if of.is_leaving && messages.iter().any(|message| matches!(message, ToRunner::Input(_))) {
            broken(Invariant::RightRunner, format!("{launch:?} leaves and gets a job"));
        }
        if end_asked.is_some() {
            broken(Invariant::Bookkeeping, format!("{launch:?} is sent something and is ended"));
        }
        for message in messages {
            if let ToRunner::Cancel { job, attempt } = message
                && let Some(key) = self.attempt_of(job, *attempt)
                && !self.attempts[&key].is_cancelled
                && self.faults.is_possible(Fault::Cancel)
                && self.rng.bool()
            {
                // It is only asked back; its client does not want it, either.
                let delay = self.latency();
                self.after(delay, Step::Outside(Outside::CancelOf(job.clone())));
            }
            let ToRunner::Input(input) = message else { continue };
            let key = self.attempt_of(&input.job, input.attempt);
            let Some(key) = key else {
                broken(Invariant::RightRunner, format!("{} {} is sent and is none", input.job, input.attempt))
            };
            let attempt = self.attempts.get_mut(&key).expect("it was found");
            let spec = &attempt.job.record.spec;
            let is_pinned_away = spec.sheep.as_ref().is_some_and(|pin| *pin != self.plan.sheep[no.0].id);
            if spec.model != model || is_pinned_away || attempt.sheep != no || attempt.is_cancelled {
                broken(Invariant::RightRunner, format!("{key} {spec:?} is sent to {no:?} with {model}"));
            }
            attempt.sent_to = Some(launch);
            self.watch.sent(no);
        }
        let engine = self.engine.as_ref().expect("it decides");
        let sent = engine.flock[no.0].sent.len();
        let plan = &self.plan.sheep[no.0];
        let room = if self.watch.is_on_probation(no) { 1 } else { plan.slots + plan.ahead };
        let is_input = messages.iter().any(|message| matches!(message, ToRunner::Input(_)));
        if is_input && sent > room {
            broken(Invariant::RightRunner, format!("{no:?} has {sent} jobs, and room for {room}"));
        }
    }
}
