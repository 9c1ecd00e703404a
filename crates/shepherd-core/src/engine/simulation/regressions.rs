//! Defects of the engine that the simulation found, each with the few steps that show it.

use std::time::Duration;

use futures::FutureExt as _;
use shepherd_job::{JobId, JobIdRule, JobSpec, ModelRef, SheepId, Timestamp};
use shepherd_queue::{Claim, Existing, JobStore as _, Lease, MemoryStore, NewJob};
use tokio::time::Instant;

use super::super::{
    Effect, Engine, FlockMember, Input, LaunchNo, Now, QueueView, RunnerFacts, RunnerLimits, SheepNo, Staged,
};
use super::store::{at_once, joining};

const START: Timestamp = Timestamp::from_micros(1_000_000_000);

/// An engine whose looks, claims and staging are answered at once.
struct Bench {
    engine: Engine,
    queue: MemoryStore,
    lease: Lease,
    base: Instant,
    now: Duration,
    is_disk_full: bool,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Bench {
    fn new(flock: &[&str], limits: &RunnerLimits) -> Self {
        let base = Instant::now();
        let member =
            |id: &&str| FlockMember { id: SheepId::parse(id).unwrap(), kind: "test", limits: limits.clone() };
        let now = Now { monotonic: base, wall: START };
        let engine = Engine::new(flock.iter().map(member).collect(), ms(60_000), now);
        let queue = MemoryStore::new();
        let lease = at_once(queue.join(joining(START)));
        Self { engine, queue, lease, base, now: Duration::ZERO, is_disk_full: false }
    }

    fn submit(&self, id: &str, model: &str) {
        let spec = JobSpec {
            id: JobId::parse(id, JobIdRule::Bucket).unwrap(),
            model: ModelRef::parse(model, "1").unwrap(),
            sheep: None,
            priority: 0,
        };
        let job = NewJob { spec, submitted_at: START, objects: Vec::new(), existing: Existing::Refuse };
        self.queue.submit(vec![job]).now_or_never().unwrap().unwrap();
    }

    /// Takes an input, and what follows from it at once; the effects that nobody answered.
    fn take(&mut self, at: Duration, input: Input) -> Vec<Effect> {
        self.now = at;
        let (mut inputs, mut left) = (vec![input], Vec::new());
        while let Some(input) = inputs.pop() {
            let now = Now { monotonic: self.base + at, wall: START.after(at) };
            self.engine.handle(now, input).unwrap();
            let effects: Vec<Effect> = self.engine.effects().collect();
            for effect in effects {
                match self.answer(&effect) {
                    Some(answer) => inputs.push(answer),
                    None => left.push(effect),
                }
            }
        }
        left
    }

    fn answer(&self, effect: &Effect) -> Option<Input> {
        let wall = START.after(self.now);
        if let Effect::Look = effect {
            let ready = self.queue.ready(wall).now_or_never().unwrap().unwrap();
            return Some(Input::Looked(Ok(QueueView { ready, is_waiting: false, lacking: Vec::new() })));
        }
        if let Effect::Claim { sheep, model, limit, .. } = effect {
            let id = self.engine.flock[sheep.0].id.clone();
            let claim = Claim::new(model.clone(), id, *limit, wall);
            let jobs = self.queue.claim(&self.lease, claim).now_or_never().unwrap().unwrap();
            return Some(Input::Claimed { sheep: *sheep, jobs });
        }
        if let Effect::Stage { attempt, .. } = effect {
            return Some(Input::Staged { attempt: *attempt, result: Ok(Staged::default()) });
        }
        if let Effect::CheckSpace { sheep } = effect {
            let problem = self.is_disk_full.then(|| "full".to_owned());
            return Some(Input::Space { sheep: *sheep, problem });
        }
        None
    }

    /// A runner that was launched is ready.
    fn launched(&mut self, at: Duration, sheep: usize) -> LaunchNo {
        let launch = self.engine.flock[sheep].launch().unwrap();
        let runner = RunnerFacts {
            name: "runner".to_owned(),
            slots: 2,
            ahead: 0,
            can_cancel: true,
            stamp: None,
            io_data_root: "root".into(),
        };
        self.take(at, Input::Launched { sheep: SheepNo(sheep), launch, runner });
        launch
    }
}

fn is_end(effect: &Effect) -> bool {
    matches!(effect, Effect::End { .. })
}

#[test]
fn a_runner_that_gets_ready_puts_off_no_look_at_the_clocks_of_others() {
    let limits = RunnerLimits { heartbeat_timeout: ms(2_000), ..RunnerLimits::default() };
    let mut bench = Bench::new(&["a", "b"], &limits);
    bench.submit("job-a", "one");
    bench.submit("job-b", "two");
    bench.take(ms(0), Input::Timer);
    bench.launched(ms(100), 0);
    bench.launched(ms(500), 1);
    assert_eq!(bench.engine.tick_at, Some(bench.base + ms(600)));
}

#[test]
fn a_full_disk_is_looked_at_again_where_no_own_job_waits() {
    let mut bench = Bench::new(&["a"], &RunnerLimits::default());
    bench.is_disk_full = true;
    bench.submit("job-a", "one");
    // The first look at the disk is not due before.
    bench.take(ms(1_500), Input::Timer);
    assert!(!bench.engine.is_available(SheepNo(0)));
    // It knows that nothing else waits for it.
    bench.engine.flock[0].dry = Some(bench.engine.version);
    bench.is_disk_full = false;
    bench.take(ms(2_600), Input::Timer);
    assert!(bench.engine.is_available(SheepNo(0)));
    assert!(bench.engine.deadline().is_some_and(|deadline| deadline > bench.base + ms(2_600)));
}

#[test]
fn a_runner_that_is_being_lost_is_not_ended_for_being_silent_or_slow() {
    let limits = RunnerLimits {
        heartbeat_timeout: ms(1_000),
        run_timeout: Some(ms(1_000)),
        ..RunnerLimits::default()
    };
    let mut bench = Bench::new(&["a"], &limits);
    bench.submit("job-a", "one");
    bench.take(ms(0), Input::Timer);
    let launch = bench.launched(ms(100), 0);
    bench.take(ms(200), Input::Fading { sheep: SheepNo(0), launch });
    let ended = (1..12).any(|tick| bench.take(ms(200 + 250 * tick), Input::Timer).iter().any(is_end));
    assert!(!ended);
}

#[test]
fn a_job_whose_time_has_come_is_claimed_though_the_sheep_has_another() {
    let mut bench = Bench::new(&["a"], &RunnerLimits::default());
    bench.submit("job-a", "one");
    bench.take(ms(0), Input::Timer);
    bench.launched(ms(100), 0);
    assert_eq!((bench.engine.flock[0].sent.len(), bench.engine.flock[0].ahead.len()), (1, 0));
    // Nothing is heard of it but that it is seen at the next look.
    bench.submit("job-b", "one");
    let look = bench.answer(&Effect::Look).unwrap();
    bench.take(ms(200), look);
    assert_eq!(bench.engine.flock[0].sent.len(), 2);
}
