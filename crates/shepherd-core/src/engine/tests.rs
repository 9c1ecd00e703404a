//! The engine's rules one at a time. The simulation tries them all together.

use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{
    Attempt as Token, Event, GiveBack, History, JobId, JobIdRule, JobSpec, JobState, ModelRef, SheepId,
    Timestamp,
};
use shepherd_protocol::{FromRunner, ToRunner};
use shepherd_queue::{Change, Claimed, Group, JobRecord, Ready};
use tokio::time::Instant;

use super::*;

const NO: SheepNo = SheepNo(0);
const SECOND: Duration = Duration::from_secs(1);
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// An engine with one sheep, whose store has only jobs of one model.
struct Bench {
    engine: Engine,
    now: Now,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(limits: RunnerLimits) -> Self {
        let now = Now { monotonic: Instant::now(), wall: Timestamp::from_micros(1_000_000_000) };
        let member = FlockMember { id: SheepId::parse("dolly").unwrap(), kind: "bare", limits };
        let mut bench = Self {
            engine: Engine::new(vec![member], Duration::from_secs(300), now),
            now,
            effects: Vec::new(),
        };
        bench.give(Input::Timer);
        bench
    }

    fn after(&mut self, pause: Duration) {
        self.now.monotonic += pause;
        self.now.wall = self.now.wall.after(pause);
    }

    /// Feeds one input, which must be taken.
    fn give(&mut self, input: Input) {
        self.engine.handle(self.now, input).unwrap();
        self.collect();
    }

    /// Notes the effects, and answers those that say nothing of interest here.
    fn collect(&mut self) {
        loop {
            let effects: Vec<Effect> = self.engine.effects().collect();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                if let Effect::CheckSpace { sheep } = effect {
                    self.engine.handle(self.now, Input::Space { sheep, problem: None }).unwrap();
                } else {
                    self.effects.push(effect);
                }
            }
        }
    }

    /// Lets time pass to the engine's deadlines, in order.
    fn wait(&mut self, pause: Duration) {
        let end = self.now.monotonic + pause;
        while let Some(due) = self.engine.deadline().filter(|due| *due <= end) {
            self.after(due.saturating_duration_since(self.now.monotonic));
            self.give(Input::Timer);
        }
        self.after(end - self.now.monotonic);
    }

    fn take<T>(&mut self, which: impl Fn(&Effect) -> Option<T>) -> Vec<T> {
        let taken = self.effects.iter().filter_map(&which).collect();
        self.effects.retain(|effect| which(effect).is_none());
        taken
    }

    /// The store has jobs, and they are claimed.
    fn claimed(&mut self, jobs: Vec<Claimed>) -> Vec<AttemptKey> {
        if self.engine.flock[0].order.is_none() {
            let groups = vec![group(jobs.len())];
            let ready = Ready { groups, next_due: None };
            self.give(Input::Looked(Ok(QueueView { ready, is_waiting: true, lacking: Vec::new() })));
        }
        if self.engine.flock[0].claim.is_none() {
            self.give(Input::QueueChanged);
        }
        self.give(Input::Claimed { sheep: NO, jobs });
        self.take(|effect| match effect {
            Effect::Stage { attempt, .. } => Some(*attempt),
            _ => None,
        })
    }

    fn staged(&mut self, attempt: AttemptKey) {
        self.give(Input::Staged { attempt, result: Ok(Staged::default()) });
    }

    /// A runner that was asked for is ready.
    fn launched(&mut self, slots: usize, ahead: usize) -> LaunchNo {
        let launches = self.take(|effect| match effect {
            Effect::Launch { launch, .. } => Some(*launch),
            _ => None,
        });
        let [launch] = launches[..] else { panic!("one launch: {launches:?}") };
        let runner = RunnerFacts {
            name: "runner".to_owned(),
            slots,
            ahead,
            can_cancel: true,
            stamp: None,
            io_data_root: "/data".into(),
        };
        self.give(Input::Launched { sheep: NO, launch, runner });
        launch
    }

    /// A sheep with a runner of so many slots that is fast enough to be sent jobs ahead, and holds these jobs.
    fn with_jobs(limits: RunnerLimits, slots: usize, jobs: u64) -> (Self, LaunchNo) {
        let mut bench = Self::new(limits);
        let first = bench.claimed(vec![claimed(1000, 0)])[0];
        bench.staged(first);
        let launch = bench.launched(slots, 32);
        bench.after(Duration::from_millis(1));
        bench.answer(launch, 1000);
        bench.give(Input::Collected { attempt: first, result: Collected::Small(Vec::new()) });
        bench.give(Input::Committed { attempt: first });
        let keys = bench.claimed((1..=jobs).map(|seq| claimed(seq, 0)).collect());
        keys.into_iter().for_each(|key| bench.staged(key));
        bench.sent();
        (bench, launch)
    }

    fn answer(&mut self, launch: LaunchNo, seq: u64) {
        let message = FromRunner::Done { job: format!("job-{seq}"), attempt: Some(TOKEN) };
        self.give(Input::Heard { sheep: NO, launch, messages: vec![message] });
    }

    /// The numbers of the jobs that were sent since this was asked last.
    fn sent(&mut self) -> Vec<u64> {
        let sent = self.take(|effect| match effect {
            Effect::Send { messages, .. } => Some(messages.iter().filter_map(sent_job).collect::<Vec<_>>()),
            _ => None,
        });
        sent.concat()
    }

    fn committed(&mut self) -> Vec<Change> {
        self.take(|effect| match effect {
            Effect::Commit { change, .. } => Some(change.clone()),
            _ => None,
        })
    }

    fn is_ended(&mut self) -> bool {
        let ends = self.take(|effect| matches!(effect, Effect::End { .. }).then_some(()));
        !ends.is_empty()
    }
}

const TOKEN: Token = Token { epoch: 1, number: 1 };

fn sent_job(message: &ToRunner) -> Option<u64> {
    match message {
        ToRunner::Input(input) => input.job.as_str().strip_prefix("job-")?.parse().ok(),
        ToRunner::Cancel { .. } | ToRunner::Shutdown { .. } | ToRunner::Ping { .. } => None,
    }
}

fn group(ready: usize) -> Group {
    let model = ModelRef::parse("m", "").unwrap();
    Group { model, sheep: None, ready, priority: 0, seq: 1, submitted_at: Timestamp::default() }
}

fn claimed(seq: u64, priority: i32) -> Claimed {
    let state = JobState::Processing {
        attempt: TOKEN,
        sheep: SheepId::parse("dolly").unwrap(),
        started_at: Timestamp::from_micros(1_000_000_000),
        history: History { attempts: 1, crashes: 0 },
    };
    let id = JobId::parse(&format!("job-{seq}"), JobIdRule::Bucket).unwrap();
    let spec = JobSpec { id, model: ModelRef::parse("m", "").unwrap(), sheep: None, priority };
    let record = JobRecord { seq, spec, submitted_at: Timestamp::default(), state };
    Claimed { job: Arc::new(record), attempt: TOKEN, first: true, objects: Vec::new() }
}

#[test]
fn jobs_are_sent_in_their_order_whichever_was_staged_first() {
    let (mut bench, _) = Bench::with_jobs(RunnerLimits::default(), 8, 0);
    let jobs = [(3, 0), (1, 0), (4, 1), (2, 0)].map(|(seq, priority)| claimed(seq, priority));
    let keys = bench.claimed(jobs.to_vec());
    keys.iter().rev().for_each(|key| bench.staged(*key));
    assert_eq!(bench.sent(), [4, 1, 2, 3]);
}

#[test]
fn a_job_that_should_go_first_is_waited_for_but_not_for_long() {
    let (mut bench, _) = Bench::with_jobs(RunnerLimits::default(), 8, 0);
    let keys = bench.claimed((1..=4).map(|seq| claimed(seq, 0)).collect());
    [0, 3, 2].into_iter().for_each(|index| bench.staged(keys[index]));
    assert_eq!(bench.sent(), [1]);
    bench.wait(Duration::from_millis(100));
    assert_eq!(bench.sent(), [3, 4], "the second takes long");
    bench.staged(keys[1]);
    assert_eq!(bench.sent(), [2]);
}

#[test]
fn a_pause_of_the_daemon_counts_as_no_time_of_a_jobs() {
    let limits = RunnerLimits { run_timeout: Some(RUN_TIMEOUT), ..RunnerLimits::default() };
    let (mut bench, _) = Bench::with_jobs(limits, 1, 1);
    bench.wait(Duration::from_secs(20));
    // Nothing is heard, and no timer fires.
    bench.after(10 * RUN_TIMEOUT);
    bench.give(Input::Timer);
    assert!(!bench.is_ended(), "neither the silence nor the run was the runner's");
    bench.wait(RUN_TIMEOUT);
    assert!(bench.is_ended());
}

#[test]
fn an_answer_is_matched_by_job_and_token() {
    let (mut bench, launch) = Bench::with_jobs(RunnerLimits::default(), 1, 2);
    bench.answer(launch, 1);
    bench.answer(launch, 1);
    assert!(!bench.is_ended(), "it was answered before");
    let other = FromRunner::Done { job: "job-2".to_owned(), attempt: Some(Token { epoch: 1, number: 2 }) };
    bench.give(Input::Heard { sheep: NO, launch, messages: vec![other] });
    assert!(bench.is_ended(), "it never had this attempt");
}

#[test]
fn an_answer_begins_the_job_that_moves_up_and_no_other() {
    let heartbeat_timeout = 10 * RUN_TIMEOUT;
    let limits =
        RunnerLimits { run_timeout: Some(RUN_TIMEOUT), heartbeat_timeout, ..RunnerLimits::default() };
    let (mut bench, launch) = Bench::with_jobs(limits, 2, 4);
    bench.wait(50 * SECOND);
    bench.answer(launch, 1);
    bench.wait(9 * SECOND);
    assert!(!bench.is_ended());
    bench.wait(3 * SECOND);
    assert!(bench.is_ended(), "the second job began with the first");
    bench.give(Input::Ended { sheep: NO, launch, report: EndReport::default() });
    let stages: Vec<&str> = bench.engine.attempts.values().map(|attempt| attempt.stage.name()).collect();
    let failing = stages.iter().filter(|stage| **stage == "collecting").count();
    // Two jobs are answered or over their time; those that had their turn later, or not yet, run again.
    assert_eq!((failing, stages.iter().filter(|stage| **stage == "releasing").count()), (2, 2), "{stages:?}");
}

#[test]
fn a_job_that_was_sent_to_a_dead_runner_is_nobodys_fault() {
    let (mut bench, launch) = Bench::with_jobs(RunnerLimits::default(), 1, 1);
    let death = Death {
        how: "exited with code 3".to_owned(),
        is_blameless: false,
        is_from_outside: false,
        at: bench.now.monotonic,
    };
    bench.after(Duration::from_millis(5));
    bench.give(Input::Lost { sheep: NO, launch, death });
    bench.give(Input::Ended { sheep: NO, launch, report: EndReport::default() });
    let released = bench.take(|effect| match effect {
        Effect::Release { attempt, .. } => Some(*attempt),
        _ => None,
    });
    released.into_iter().for_each(|attempt| bench.give(Input::Released { attempt }));
    let events: Vec<Event> = bench.committed().into_iter().map(|change| change.event).collect();
    let gives_back = |event: &Event| matches!(event, Event::GiveBack { cause: GiveBack::Blameless, .. });
    assert!(events.last().is_some_and(gives_back), "{events:?}");
}
