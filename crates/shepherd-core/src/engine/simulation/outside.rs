//! What clients, operators and the machine do to a shepherd.

use std::time::Duration;

use shepherd_job::{Event, JobId, JobState, ModelRef, Phase};
use shepherd_queue::{Change, Existing, JobStore as _, NewJob, Submitted};

use super::super::{Input, Mode, SheepNo};
use super::events::Step;
use super::faults::Fault;
use super::invariants::{Invariant, broken};
use super::ledger::{Ended, Run};
use super::store::{at_once, joining};
use super::world::World;

/// How soon a client whose call was refused tries again.
const CLIENT_RETRY: Duration = Duration::from_millis(500);
/// A job's run takes no longer than so many times its planned time; with the longest grace, and
/// until it is durable, an orderly drain takes no longer than that.
const DRAIN_BOUND: Duration = Duration::from_secs(60);

/// Something that comes from outside the daemon.
#[derive(Clone, Debug)]
pub(super) enum Outside {
    Submit(JobId),
    Cancel,
    /// This job's client does not want it any more.
    CancelOf(JobId),
    Rerun,
    Drain,
    /// The time to drain is over.
    Force,
    Kill,
    Start,
    Pause(Duration),
    StoreAway(Duration),
    StorageAway(Duration),
    DiskFull(SheepNo, bool),
    SheepBroken(SheepNo, bool),
    HomeLost(SheepNo),
    ModelChanges(ModelRef),
    /// A sheep gets or loses a model.
    ModelMoves(usize, SheepNo),
    /// It must have drained by now.
    MustBeDrained(u64),
    /// From now on nothing disturbs the shepherd.
    Calm,
}

impl World {
    /// Draws when what happens from outside.
    pub(super) fn draw_outside(&mut self) {
        let horizon = self.plan.horizon;
        for job in self.plan.jobs.clone() {
            self.schedule(job.submit_at, None, Step::Outside(Outside::Submit(job.spec.id)));
        }
        let flock = self.sheep.len();
        for fault in [
            Fault::Cancel,
            Fault::Rerun,
            Fault::Drain,
            Fault::Kill,
            Fault::Pause,
            Fault::StoreAway,
            Fault::StorageAway,
            Fault::DiskFull,
            Fault::CheckProblem,
            Fault::HomeLost,
            Fault::ModelChanges,
            Fault::ModelMoves,
        ] {
            let times = self.faults.times(&mut self.rng, fault);
            let times = if matches!(fault, Fault::Cancel | Fault::Rerun) { times * 4 } else { times };
            for _ in 0..times {
                let at = horizon.mul_f64(self.rng.f64());
                let lasts = Duration::from_millis(self.rng.u64(100..8_000));
                let (sheep, model) =
                    (SheepNo(self.rng.usize(..flock)), self.rng.usize(..self.plan.models.len()));
                let (happens, ends) = match fault {
                    Fault::Cancel => (Outside::Cancel, None),
                    Fault::Rerun => (Outside::Rerun, None),
                    Fault::Drain => (Outside::Drain, None),
                    Fault::Kill => (Outside::Kill, None),
                    Fault::Pause => (Outside::Pause(lasts * 3), None),
                    Fault::StoreAway => (Outside::StoreAway(lasts), None),
                    Fault::StorageAway => (Outside::StorageAway(lasts), None),
                    Fault::DiskFull => {
                        (Outside::DiskFull(sheep, true), Some(Outside::DiskFull(sheep, false)))
                    }
                    Fault::CheckProblem => {
                        (Outside::SheepBroken(sheep, true), Some(Outside::SheepBroken(sheep, false)))
                    }
                    Fault::HomeLost => (Outside::HomeLost(sheep), None),
                    Fault::ModelChanges => {
                        (Outside::ModelChanges(self.plan.models[model].model.clone()), None)
                    }
                    _ => (Outside::ModelMoves(model, sheep), None),
                };
                self.schedule(at, None, Step::Outside(happens));
                if let Some(ends) = ends {
                    self.schedule(at + lasts, None, Step::Outside(ends));
                }
            }
        }
        self.schedule(horizon, None, Step::Outside(Outside::Calm));
    }

    pub(super) fn happens(&mut self, outside: Outside) {
        let is_daemons = matches!(outside, Outside::Drain | Outside::Force | Outside::MustBeDrained(_));
        if is_daemons && self.now < self.paused_until {
            let at = self.paused_until + self.plan.latency;
            return self.schedule(at, Some(self.life), Step::Outside(outside));
        }
        self.trace.line(self.now, || format!("* {outside:?}"));
        match outside {
            Outside::Submit(id) => self.submit(id),
            Outside::Cancel => self.cancel_any(),
            Outside::CancelOf(id) => self.cancel(id),
            Outside::Rerun => self.rerun_any(),
            Outside::Drain => self.drain(),
            Outside::Force => {
                if self.mode() == Some(Mode::Draining) {
                    self.faults.note(Fault::Force);
                    self.input(Input::Force);
                    self.force_ends();
                    let limit = DRAIN_BOUND;
                    self.after(limit, Step::Outside(Outside::MustBeDrained(self.life)));
                }
            }
            Outside::Kill => {
                if self.engine.is_some() && self.faults.is_active {
                    self.faults.note(Fault::Kill);
                    if self.is_answer_lost() {
                        self.faults.note(Fault::AnswerLost);
                    }
                    self.daemon_ends();
                }
            }
            Outside::Start => {
                self.lease = at_once(self.queue.join(joining(self.wall())));
                self.start_daemon();
            }
            Outside::Pause(pause) => {
                if self.engine.is_some() && self.faults.is_active {
                    self.faults.note(Fault::Pause);
                    self.pause(pause);
                }
            }
            Outside::StoreAway(lasts) => self.store_away_until = self.away_until(lasts),
            Outside::StorageAway(lasts) => self.storage_away_until = self.away_until(lasts),
            Outside::DiskFull(no, is_full) => {
                self.sheep[no.0].is_disk_full = is_full && self.faults.is_active;
            }
            Outside::SheepBroken(no, is_broken) => {
                self.sheep[no.0].is_broken = is_broken && self.faults.is_active;
            }
            Outside::HomeLost(no) => {
                self.sheep[no.0].is_homeless |= self.engine.is_some() && self.faults.is_active;
            }
            Outside::ModelChanges(model) => {
                self.faults.note(Fault::ModelChanges);
                *self.stamps.entry(model).or_default() += 1;
            }
            Outside::ModelMoves(model, no) => {
                self.faults.note(Fault::ModelMoves);
                self.plan.models[model].lacking[no.0] ^= true;
            }
            Outside::MustBeDrained(life) => {
                if let Some(engine) = self.engine.as_ref().filter(|_| life == self.life) {
                    let held: Vec<&str> = engine.attempts.values().map(|of| of.stage.name()).collect();
                    broken(Invariant::Drains, format!("it drains since {DRAIN_BOUND:?}: {held:?}"));
                }
            }
            Outside::Calm => {
                self.faults.is_active = false;
                (self.store_away_until, self.storage_away_until) = (self.now, self.now);
                // All jobs of a model whose runners never start take a rest of it each.
                self.plan.models.iter_mut().for_each(|model| model.dies = 0);
                for sheep in &mut self.sheep {
                    (sheep.is_disk_full, sheep.is_broken) = (false, false);
                }
            }
        }
    }

    fn away_until(&self, lasts: Duration) -> Duration {
        if self.faults.is_active { self.now + lasts } else { self.now }
    }

    /// Whether a change is durable whose attempt has not heard so.
    fn is_answer_lost(&self) -> bool {
        use super::facts::Owed;
        let waiting = self.commits.iter().filter(|commit| commit.attempt.is_some()).count();
        let owed = self.attempts.values().filter(|attempt| attempt.owed == Some(Owed::Committed)).count();
        owed > waiting
    }

    /// Whether clients' calls are answered.
    fn is_open(&self) -> bool {
        self.mode() == Some(Mode::Running)
            && self.now >= self.store_away_until
            && self.now >= self.paused_until
    }

    fn submit(&mut self, id: JobId) {
        if !self.is_open() {
            let retry = CLIENT_RETRY + self.latency();
            return self.schedule(self.now + retry, None, Step::Outside(Outside::Submit(id)));
        }
        let spec = self.jobs[&id].plan.spec.clone();
        let job = NewJob { spec, submitted_at: self.wall(), objects: Vec::new(), existing: Existing::Rerun };
        match at_once(self.queue.submit(vec![job])).pop() {
            Some(Submitted::Accepted(record)) => {
                let run = Run { seq: record.seq, ended: None };
                self.jobs.get_mut(&id).expect("it is known").runs.push(run);
            }
            Some(Submitted::Live(_) | Submitted::Conflict) | None => {}
        }
    }

    fn any_job(&mut self, is_it: impl Fn(Phase) -> bool) -> Option<JobId> {
        if !self.is_open() || !self.faults.is_active {
            return None;
        }
        let ids: Vec<JobId> = self
            .jobs
            .keys()
            .filter(|id| at_once(self.queue.get(id)).is_some_and(|record| is_it(record.state.phase())))
            .cloned()
            .collect();
        if ids.is_empty() { None } else { Some(ids[self.rng.usize(..ids.len())].clone()) }
    }

    fn cancel_any(&mut self) {
        let prefers_running = self.rng.bool();
        let any =
            self.any_job(|phase| phase == Phase::Processing || (phase == Phase::Queued && !prefers_running));
        if let Some(id) = any {
            self.cancel(id);
        }
    }

    /// A client withdraws a job, if it is still time.
    fn cancel(&mut self, id: JobId) {
        if !self.is_open() || !self.faults.is_active {
            return;
        }
        let change =
            Change { job: id.clone(), event: Event::Cancel { at: self.wall() }, objects: Vec::new() };
        let Some(Ok(record)) = at_once(self.queue.apply(vec![change])).pop() else { return };
        self.faults.note(Fault::Cancel);
        self.ended(&record, Ended::Cancelled);
        if let JobState::Cancelled { started_at: Some(_), history, .. } = &record.state {
            let number = history.attempts;
            let delay = self.latency();
            self.send(delay, Input::Cancelled { job: id.clone(), number });
            if self.faults.strikes(&mut self.rng, Fault::CancelTwice) {
                let delay = self.latency();
                self.send(delay, Input::Cancelled { job: id.clone(), number });
            }
        }
        // Clients that cancel a job often want it run anew.
        if self.rng.u8(..3) == 0 {
            self.faults.note(Fault::Rerun);
            let delay = self.latency();
            self.schedule(self.now + delay, None, Step::Outside(Outside::Submit(id)));
        }
    }

    fn rerun_any(&mut self) {
        let is_finished = |phase| matches!(phase, Phase::Done | Phase::Failed | Phase::Cancelled);
        if let Some(id) = self.any_job(is_finished) {
            self.faults.note(Fault::Rerun);
            self.submit(id);
        }
    }

    fn drain(&mut self) {
        if self.mode() != Some(Mode::Running) || !self.faults.is_active {
            return;
        }
        self.faults.note(Fault::Drain);
        self.input(Input::Drain);
        let patience = Duration::from_millis(self.rng.u64(10..30_000));
        self.after(patience, Step::Outside(Outside::Force));
    }

    /// The daemon's process ends; somebody starts it again.
    pub(super) fn daemon_ends(&mut self) {
        self.stop_daemon();
        let down = Duration::from_millis(self.rng.u64(1..3_000));
        self.schedule(self.now + down, None, Step::Outside(Outside::Start));
    }
}
