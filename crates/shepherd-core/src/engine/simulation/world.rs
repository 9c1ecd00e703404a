//! The world around an engine: time, what is on its way, and what is durable.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::OnceLock;
use std::time::Duration;

use shepherd_job::{JobId, ModelRef, Timestamp};
use shepherd_queue::{JobStore as _, Lease, MemoryStore};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::{
    AttemptKey, Effect, Engine, FlockMember, Input, LaunchNo, Mode, Now, SheepNo, SheepState,
};
use super::coverage::Coverage;
use super::events::{Scheduled, Step};
use super::facts::{Commit, Dir, SimAttempt, SimSheep};
use super::faults::{Fault, Faults};
use super::invariants::{Invariant, Watch, broken};
use super::ledger::{SimJob, Storage};
use super::runners::Launch;
use super::scenario::Scenario;
use super::store::{at_once, joining};
use super::trace::Trace;

/// Times of records begin here.
const EPOCH: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
/// Maximum number of inputs at one instant.
const MAX_INPUTS_PER_INSTANT: u32 = 4_000;
/// Maximum number of timers in a row that are due at one instant.
const MAX_TIMERS_PER_INSTANT: u32 = 3;
/// Time after the last fault in which every job ends, beside the time that the jobs run.
const END_BOUND: Duration = Duration::from_secs(200);
/// How long the idle shepherd is watched at the end, and how many inputs it may take meanwhile.
const IDLE_WATCH: Duration = Duration::from_secs(20);
const MAX_IDLE_INPUTS: u64 = 400;

pub(super) struct World {
    pub(super) rng: fastrand::Rng,
    pub(super) faults: Faults,
    pub(super) plan: Scenario,
    pub(super) trace: Trace,
    base: Instant,
    pub(super) now: Duration,
    heap: BinaryHeap<Reverse<Scheduled>>,
    last_seq: u64,
    /// None while the daemon is down.
    pub(super) engine: Option<Engine>,
    pub(super) life: u64,
    pub(super) paused_until: Duration,
    /// All pauses so far, one that is not over included.
    paused: Duration,
    pub(super) pauses: u32,
    inputs_now: (Duration, u32, u32),
    pub(super) inputs: u64,

    pub(super) queue: MemoryStore,
    /// The present life of the node in the store.
    pub(super) lease: Lease,
    changes: watch::Receiver<u64>,
    hears_change: bool,
    pub(super) storage: Storage,
    pub(super) store_away_until: Duration,
    pub(super) storage_away_until: Duration,
    pub(super) jobs: BTreeMap<JobId, SimJob>,
    /// For each model, a number that changes with its files.
    pub(super) stamps: BTreeMap<ModelRef, u64>,

    pub(super) sheep: Vec<SimSheep>,
    pub(super) attempts: BTreeMap<AttemptKey, SimAttempt>,
    pub(super) dirs: BTreeMap<(SheepNo, JobId), Dir>,
    pub(super) launches: BTreeMap<LaunchNo, Launch>,
    /// The newest launch that was not aborted or over.
    pub(super) aborted: Vec<LaunchNo>,
    pub(super) commits: VecDeque<Commit>,
    pub(super) commits_at: Option<Duration>,
    pub(super) owes_look: bool,
    pub(super) watch: Watch,
    pub(super) coverage: Coverage,
}

/// The beginning of every scenario: the same for all, so that two runs of a seed print the same.
static BASE: OnceLock<Instant> = OnceLock::new();

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut faults = Faults::draw(&mut rng);
        let plan = Scenario::draw(&mut rng, &mut faults);
        let queue = MemoryStore::new();
        let lease = at_once(queue.join(joining(EPOCH)));
        let changes = queue.changes();
        let jobs = plan.jobs.iter().map(|job| (job.spec.id.clone(), SimJob::new(job.clone()))).collect();
        let sheep = plan.sheep.iter().map(|_| SimSheep::default()).collect();
        let watch = Watch::new(plan.sheep.len());
        let mut world = Self {
            rng,
            faults,
            trace,
            base: *BASE.get_or_init(Instant::now),
            now: Duration::ZERO,
            heap: BinaryHeap::new(),
            last_seq: 0,
            engine: None,
            life: 0,
            paused_until: Duration::ZERO,
            paused: Duration::ZERO,
            pauses: 0,
            inputs_now: (Duration::ZERO, 0, 0),
            inputs: 0,
            queue,
            lease,
            changes,
            hears_change: false,
            storage: Storage::default(),
            store_away_until: Duration::ZERO,
            storage_away_until: Duration::ZERO,
            jobs,
            stamps: BTreeMap::new(),
            sheep,
            attempts: BTreeMap::new(),
            dirs: BTreeMap::new(),
            launches: BTreeMap::new(),
            aborted: Vec::new(),
            commits: VecDeque::new(),
            commits_at: None,
            owes_look: false,
            watch,
            coverage: Coverage::default(),
            plan,
        };
        world.draw_outside();
        world.start_daemon();
        world
    }

    /// Runs the scenario to its end.
    pub(super) fn run(&mut self) {
        let runs: Duration = self.plan.jobs.iter().map(|job| job.run * 2).sum();
        let limit = self.plan.horizon + END_BOUND + runs;
        while !self.is_over() {
            self.step();
            if self.now > limit {
                let open = self.open_jobs();
                broken(Invariant::Ends, format!("long after the last fault there are {open:?}"));
            }
        }
        let (until, before) = (self.now + IDLE_WATCH, self.inputs);
        while self.step_before(until) {}
        let inputs = self.inputs - before;
        if inputs > MAX_IDLE_INPUTS {
            broken(Invariant::Quiet, format!("{inputs} inputs of an idle shepherd within {IDLE_WATCH:?}"));
        }
        self.check_end();
        self.coverage.scenarios = 1;
        self.coverage.jobs = self.jobs.len() as u64;
        self.coverage.inputs = self.inputs;
        for (fault, count) in Fault::ALL.iter().zip(&self.faults.counts) {
            if *count > 0 {
                self.coverage.faults.insert(*fault, 1);
            }
        }
    }

    /// The time of the daemon's clocks.
    pub(super) fn daemon_now(&self) -> Now {
        Now { monotonic: self.base + self.now, wall: EPOCH.after(self.now) }
    }

    pub(super) fn wall(&self) -> Timestamp {
        EPOCH.after(self.now)
    }

    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.base + at
    }

    /// How long the daemon was awake so far: what it is slow with counts in this time.
    pub(super) fn awake(&self) -> Duration {
        let ahead = self.paused_until.saturating_sub(self.now);
        self.now - (self.paused - ahead)
    }

    /// Stops the daemon's process for a while.
    pub(super) fn pause(&mut self, pause: Duration) {
        let until = self.paused_until.max(self.now) + pause;
        self.paused_until = until;
        self.paused += pause;
        self.pauses += 1;
    }

    /// Puts a step of the present life of the daemon on its way.
    pub(super) fn after(&mut self, delay: Duration, step: Step) {
        self.schedule(self.now + delay, Some(self.life), step);
    }

    pub(super) fn schedule(&mut self, at: Duration, life: Option<u64>, step: Step) {
        self.last_seq += 1;
        self.heap.push(Reverse(Scheduled { at, seq: self.last_seq, life, step }));
    }

    /// How long something takes that mostly takes no time.
    pub(super) fn latency(&mut self) -> Duration {
        let usual = self.plan.latency;
        match self.rng.u8(..16) {
            0..=3 => Duration::ZERO,
            4..=14 => usual.mul_f64(self.rng.f64()),
            _ => usual * 5,
        }
    }

    /// The same, or very long.
    pub(super) fn latency_or(&mut self, fault: Fault) -> Duration {
        if self.faults.strikes(&mut self.rng, fault) {
            Duration::from_millis(self.rng.u64(200..8_000))
        } else {
            self.latency()
        }
    }

    fn step(&mut self) {
        self.step_before(Duration::MAX);
    }

    /// Does the next thing that happens, if it happens before `limit`.
    fn step_before(&mut self, limit: Duration) -> bool {
        let due = self.engine.as_ref().and_then(Engine::deadline).map(|due| {
            let due = due.saturating_duration_since(self.base);
            let slack = if due > self.now { self.plan.timer_slack } else { Duration::ZERO };
            (due + slack).max(self.now).max(self.paused_until)
        });
        loop {
            let next = self.heap.peek().map(|Reverse(next)| next.at);
            let is_timer = due.is_some_and(|due| next.is_none_or(|next| due < next));
            if is_timer {
                let due = due.unwrap();
                if due > limit {
                    return false;
                }
                self.now = due;
                self.input(Input::Timer);
                return true;
            }
            let Some(next) = next else { return false };
            if next > limit {
                return false;
            }
            let Reverse(Scheduled { at, seq, life, step }) = self.heap.pop().unwrap();
            if life.is_some_and(|life| life != self.life) {
                continue;
            }
            if at < self.paused_until && step.is_daemons() {
                let at = self.paused_until;
                self.heap.push(Reverse(Scheduled { at, seq, life, step }));
                continue;
            }
            self.now = at.max(self.now);
            self.take(step);
            return true;
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Deliver(input) => self.deliver(input),
            Step::Store(call) => self.ask_store(call),
            Step::Commits => self.make_durable(),
            Step::Work(attempt, work) => self.work(attempt, work),
            Step::Runner(launch, step) => self.runner_step(launch, step),
            Step::Outside(outside) => self.happens(outside),
            Step::WriteBack => self.write_back(),
            Step::Reopen(sheep, result) => {
                if result.is_ok() {
                    self.sheep[sheep.0].is_homeless = false;
                }
                self.input(Input::Reopened { sheep, result });
            }
        }
        self.hear_changes();
    }

    /// Puts an input on its way to the engine.
    pub(super) fn send(&mut self, delay: Duration, input: Input) {
        self.after(delay, Step::Deliver(input));
    }

    /// Tells the engine of a change of the store, a moment later and once for several.
    fn hear_changes(&mut self) {
        if !self.hears_change && self.engine.is_some() && self.changes.has_changed().unwrap_or(false) {
            self.changes.mark_unchanged();
            self.hears_change = true;
            let delay = self.latency();
            self.send(delay, Input::QueueChanged);
        }
    }

    /// Takes an input that has come and, as the driver does, others that are there too before
    /// what they ask for is done.
    fn deliver(&mut self, input: Input) {
        // Checks are broken off when the daemon drains.
        if matches!(input, Input::Checked { .. }) && self.mode() != Some(Mode::Running) && self.rng.bool() {
            return;
        }
        self.handle(input);
        while let Some(Reverse(next)) = self.heap.peek() {
            let is_input = matches!(next.step, Step::Deliver(_)) && next.life == Some(self.life);
            if !is_input || next.at.max(self.paused_until) > self.now || self.rng.bool() {
                break;
            }
            let Some(Reverse(Scheduled { step: Step::Deliver(input), .. })) = self.heap.pop() else { break };
            self.handle(input);
        }
        self.carry_out();
    }

    /// Takes an input at once.
    pub(super) fn input(&mut self, input: Input) {
        self.handle(input);
        self.carry_out();
        self.hear_changes();
    }

    pub(super) fn handle(&mut self, input: Input) {
        let now = self.daemon_now();
        self.count(&input);
        self.trace.input(self.now, &input);
        let expected = self.note_input(&input);
        if matches!(input, Input::QueueChanged) {
            self.hears_change = false;
        }
        let starts = if matches!(input, Input::Looked(_)) { self.busy_starts() } else { Vec::new() };
        let Some(engine) = &mut self.engine else { return };
        let result = engine.handle(now, input);
        self.check_orders(&starts);
        if let Err(rejected) = &result {
            self.trace.line(self.now, || format!("  rejected: {rejected}"));
        }
        self.check_result(expected, &result);
    }

    fn count(&mut self, input: &Input) {
        self.inputs += 1;
        let (at, inputs, timers) = &mut self.inputs_now;
        if *at != self.now {
            (*at, *inputs, *timers) = (self.now, 0, 0);
        }
        *inputs += 1;
        *timers = if matches!(input, Input::Timer) { *timers + 1 } else { 0 };
        let is_idle = *timers > MAX_TIMERS_PER_INSTANT;
        if is_idle || *inputs > MAX_INPUTS_PER_INSTANT {
            let deadline = self.engine.as_ref().and_then(Engine::deadline);
            let deadline = deadline.map(|due| due.saturating_duration_since(self.base));
            broken(
                Invariant::Quiet,
                format!("{inputs} inputs, {timers} timers at one instant; deadline {deadline:?}"),
            );
        }
    }

    /// Does what the engine decided, and checks what is so then.
    fn carry_out(&mut self) {
        loop {
            let Some(engine) = &mut self.engine else { return };
            let effects: Vec<Effect> = engine.effects().collect();
            if effects.is_empty() {
                break;
            }
            for effect in effects {
                self.trace.effect(self.now, &effect);
                self.carry_out_one(effect);
            }
        }
        self.check();
        if self.engine.as_ref().is_some_and(Engine::is_drained) {
            self.daemon_ends();
        }
    }

    /// Begins a life of the daemon.
    pub(super) fn start_daemon(&mut self) {
        let member = |plan: &super::scenario::SheepPlan| FlockMember {
            id: plan.id.clone(),
            kind: "simulated",
            limits: plan.limits.clone(),
        };
        let flock = self.plan.sheep.iter().map(member).collect();
        let engine = Engine::new(flock, self.plan.max_wait, self.daemon_now());
        assert_eq!(engine.view(SheepNo(0)).state, SheepState::Stopped);
        self.engine = Some(engine);
        self.changes.mark_changed();
        self.hears_change = false;
        self.commits_at = None;
        let delay = Duration::from_millis(500);
        self.after(delay, Step::WriteBack);
        self.hear_changes();
    }

    /// Everything of the daemon's process is gone, and its runners with it.
    pub(super) fn stop_daemon(&mut self) {
        self.life += 1;
        self.engine = None;
        self.attempts.clear();
        self.dirs.clear();
        self.launches.clear();
        self.aborted.clear();
        self.commits.clear();
        self.commits_at = None;
        self.owes_look = false;
        for sheep in &mut self.sheep {
            sheep.is_homeless = false;
            (sheep.owes_claim, sheep.owes_check, sheep.owes_reopen) = (false, false, false);
        }
        self.watch.forget();
        self.paused -= self.paused_until.saturating_sub(self.now);
        self.paused_until = self.paused_until.min(self.now);
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        self.engine.as_ref().map(|engine| engine.mode)
    }

    fn is_over(&self) -> bool {
        !self.faults.is_active
            && self.engine.as_ref().is_some_and(|engine| engine.attempts.is_empty())
            && self.mode() == Some(Mode::Running)
            && self.open_jobs().is_empty()
    }
}
