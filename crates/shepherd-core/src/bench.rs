//! The engine, for the project's benchmarks: a large flock that is at work. Not an interface.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shepherd_job::{
    Attempt as Token, History, JobId, JobIdRule, JobSpec, JobState, ModelRef, SheepId, Timestamp,
};
use shepherd_protocol::{FromRunner, ToRunner};
use shepherd_queue::{Claimed, Group, JobRecord, Ready};
use tokio::time::Instant;

use crate::engine::{
    Collected, Effect, Engine, FlockMember, Input, Now, QueueView, RunnerFacts, RunnerLimits, SheepNo, Staged,
};

/// How many jobs of each model wait.
const WAITING: usize = 1000;
const TOKEN: Token = Token { epoch: 1, number: 1 };

/// A flock whose runners all work, and whose store has jobs of many models.
pub struct BusyFlock {
    engine: Engine,
    now: Now,
    view: QueueView,
    next_job: u64,
    /// For each sheep, its runner, and the jobs that it has.
    running: BTreeMap<SheepNo, (crate::engine::LaunchNo, Vec<JobId>)>,
    launches: BTreeMap<crate::engine::LaunchNo, SheepNo>,
    next_sheep: usize,
}

impl BusyFlock {
    /// A number of sheep, and 1,000 waiting jobs for each of a number of models.
    pub fn new(sheep: usize, models: usize) -> Self {
        let now = Now { monotonic: Instant::now(), wall: Timestamp::from_micros(1_000_000_000) };
        let member = |index| FlockMember {
            id: SheepId::parse(&format!("sheep-{index}")).expect("a legal id"),
            kind: "bare",
            limits: RunnerLimits::default(),
        };
        let engine = Engine::new((0..sheep).map(member).collect(), Duration::from_secs(300), now);
        let group = |index: usize| Group {
            model: ModelRef::parse(&format!("model-{index}"), "1").expect("a legal model"),
            sheep: None,
            ready: WAITING,
            priority: 0,
            seq: index as u64,
            submitted_at: now.wall,
        };
        let ready = Ready { groups: (0..models).map(group).collect(), next_due: None };
        let view = QueueView { ready, is_waiting: true, lacking: Vec::new() };
        let mut flock = Self {
            engine,
            now,
            view,
            next_job: 0,
            running: BTreeMap::new(),
            launches: BTreeMap::new(),
            next_sheep: 0,
        };
        flock.give(Input::Timer);
        flock.place();
        for _ in 0..100 * sheep {
            flock.finish_one();
        }
        assert_eq!(flock.running.len(), sheep, "all sheep work");
        flock
    }

    /// Decides which sheep should have which models.
    pub fn place(&mut self) {
        let view = Input::Looked(Ok(self.view.clone()));
        self.give(view);
    }

    /// One job from its runner's answer to the next one's being sent; how many inputs that took.
    pub fn finish_one(&mut self) -> usize {
        self.now.monotonic += Duration::from_micros(200);
        let sheep = SheepNo(self.next_sheep % self.running.len());
        self.next_sheep += 1;
        let Some((launch, jobs)) = self.running.get_mut(&sheep) else { return 0 };
        let launch = *launch;
        if jobs.is_empty() {
            return 0;
        }
        let job = jobs.remove(0).to_string();
        let messages = vec![FromRunner::Done { job, attempt: Some(TOKEN) }];
        self.give(Input::Heard { sheep, launch, messages })
    }

    /// Feeds an input, and answers what is asked for; how many inputs that took.
    fn give(&mut self, input: Input) -> usize {
        let mut inputs = vec![input];
        let mut count = 0;
        while let Some(input) = inputs.pop() {
            count += 1;
            self.engine.handle(self.now, input).expect("the input fits");
            let effects: Vec<Effect> = self.engine.effects().collect();
            inputs.extend(effects.into_iter().filter_map(|effect| self.answer(effect)));
        }
        count
    }

    fn answer(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Claim { sheep, model, limit, .. } => {
                let jobs = (0..limit).map(|_| self.claimed(&model)).collect();
                Some(Input::Claimed { sheep, jobs })
            }
            Effect::Stage { attempt, .. } => Some(Input::Staged { attempt, result: Ok(Staged::default()) }),
            Effect::Launch { sheep, launch, .. } => {
                let runner = RunnerFacts {
                    name: "runner".to_owned(),
                    slots: 1,
                    ahead: 32,
                    can_cancel: true,
                    stamp: None,
                    io_data_root: "/data".into(),
                };
                self.running.insert(sheep, (launch, Vec::new()));
                self.launches.insert(launch, sheep);
                Some(Input::Launched { sheep, launch, runner })
            }
            Effect::Send { launch, messages } => {
                let (_, jobs) = self.running.get_mut(self.launches.get(&launch)?)?;
                jobs.extend(messages.into_iter().filter_map(|message| match message {
                    ToRunner::Input(input) => Some(input.job),
                    ToRunner::Cancel { .. } | ToRunner::Shutdown { .. } | ToRunner::Ping { .. } => None,
                }));
                None
            }
            Effect::Collect { attempt, .. } => {
                Some(Input::Collected { attempt, result: Collected::Small(Vec::new()) })
            }
            Effect::Release { attempt, .. } => Some(Input::Released { attempt }),
            Effect::Commit { attempt, .. } => Some(Input::Committed { attempt }),
            Effect::CheckSpace { sheep } => Some(Input::Space { sheep, problem: None }),
            Effect::Look
            | Effect::AbortLaunch { .. }
            | Effect::WorksOn { .. }
            | Effect::End { .. }
            | Effect::Publish { .. }
            | Effect::NoteBegun { .. }
            | Effect::Report { .. }
            | Effect::Print { .. }
            | Effect::CompleteLog { .. }
            | Effect::SplitLog { .. }
            | Effect::JoinLog { .. }
            | Effect::Touch { .. }
            | Effect::ChangeModel { .. }
            | Effect::EmptyTrash { .. }
            | Effect::Reopen { .. }
            | Effect::Check { .. }
            | Effect::Show { .. } => None,
        }
    }

    fn claimed(&mut self, model: &ModelRef) -> Claimed {
        self.next_job += 1;
        let id = JobId::parse(&format!("job-{}", self.next_job), JobIdRule::Bucket).expect("a legal id");
        let state = JobState::Processing {
            attempt: TOKEN,
            sheep: SheepId::parse("dolly").expect("a legal id"),
            started_at: self.now.wall,
            history: History { attempts: 1, crashes: 0 },
        };
        let spec = JobSpec { id, model: model.clone(), sheep: None, priority: 0 };
        let record = JobRecord { seq: self.next_job, spec, submitted_at: self.now.wall, state };
        Claimed { job: Arc::new(record), attempt: TOKEN, first: true, objects: Vec::new() }
    }
}
