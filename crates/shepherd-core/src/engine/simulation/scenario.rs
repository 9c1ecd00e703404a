//! What a seed draws: a flock, models, jobs, and when what happens to them.

use std::time::Duration;

use shepherd_job::{JobId, JobIdRule, JobSpec, ModelRef, SheepId};

use super::super::RunnerLimits;
use super::faults::{Fault, Faults};

/// One sheep and what its runners can do.
#[derive(Clone, Debug)]
pub(super) struct SheepPlan {
    pub(super) id: SheepId,
    pub(super) limits: RunnerLimits,
    pub(super) slots: usize,
    pub(super) ahead: usize,
    pub(super) can_cancel: bool,
    /// Whether its runners name the attempts that they answer for.
    pub(super) has_tokens: bool,
    /// Whether it tells states of models.
    pub(super) has_stamps: bool,
}

/// One model.
#[derive(Clone, Debug)]
pub(super) struct ModelPlan {
    pub(super) model: ModelRef,
    /// How long a runner of it takes to be ready, at least.
    pub(super) load: Duration,
    /// How likely a runner of it dies at its start, in percent.
    pub(super) dies: u8,
    /// About how long its jobs run.
    pub(super) run: Duration,
    /// For each sheep, whether it lacks the model.
    pub(super) lacking: Vec<bool>,
}

/// How a job ends that nothing comes in the way of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// Its code raises.
    Raises,
    /// It kills its runner.
    Poison,
}

/// One job.
#[derive(Clone, Debug)]
pub(super) struct JobPlan {
    pub(super) spec: JobSpec,
    pub(super) submit_at: Duration,
    pub(super) run: Duration,
    pub(super) outcome: Outcome,
    /// Whether its outputs are small enough to ride in a commit.
    pub(super) is_small: bool,
    /// Whether its inputs come with it.
    pub(super) is_payload: bool,
}

#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) sheep: Vec<SheepPlan>,
    pub(super) models: Vec<ModelPlan>,
    pub(super) jobs: Vec<JobPlan>,
    pub(super) max_wait: Duration,
    /// From then on there are no faults and no new jobs.
    pub(super) horizon: Duration,
    /// How late timers are.
    pub(super) timer_slack: Duration,
    /// About how long what takes no time takes.
    pub(super) latency: Duration,
}

/// A time between the two, rather a short one.
pub(super) fn between(rng: &mut fastrand::Rng, least: Duration, most: Duration) -> Duration {
    let (least, most) = (least.as_micros() as f64, most.as_micros() as f64);
    let drawn = least.max(1.0) * (most.max(1.0) / least.max(1.0)).powf(rng.f64());
    Duration::from_micros(drawn as u64)
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Scenario {
    pub(super) fn draw(rng: &mut fastrand::Rng, faults: &mut Faults) -> Self {
        let horizon = between(rng, ms(3_000), ms(60_000));
        let mut sheep: Vec<SheepPlan> =
            (0..rng.usize(1..=5)).map(|no| Self::sheep(rng, faults, no)).collect();
        let mut models: Vec<ModelPlan> =
            (0..rng.usize(1..=6)).map(|no| Self::model(rng, no, sheep.len())).collect();
        let mut max_jobs = [6, 20, 60, 150][rng.usize(..4)];
        let mut window = if rng.bool() { horizon / 10 } else { horizon };
        let levels = rng.i32(1..=3);
        // More than the flock can do, of one model mostly: who waits then?
        let is_flood = rng.u8(..64) == 0;
        if is_flood {
            (max_jobs, window) = (500, horizon / 4);
            sheep.truncate(1);
            models.truncate(2);
            for model in &mut models {
                (model.load, model.dies, model.lacking) = (model.load.min(ms(200)), 0, vec![false]);
            }
            sheep[0].slots = 1;
            if rng.bool() {
                faults.calm();
            }
        }
        let mut is_long = false;
        let least = if is_flood { max_jobs } else { 1 };
        let jobs = (0..rng.usize(least..=max_jobs))
            .map(|no| {
                let is_usual = is_flood && rng.u8(..16) > 0;
                let model = &models[if is_usual { 0 } else { rng.usize(..models.len()) }];
                let pin = rng.u8(..8) == 0;
                // Some take long among short ones, and often several in a row.
                is_long = rng.u8(..32) == 0 || (is_long && rng.bool());
                JobPlan {
                    spec: JobSpec {
                        id: JobId::parse(&format!("job-{no}"), JobIdRule::Bucket).unwrap(),
                        model: model.model.clone(),
                        sheep: pin.then(|| sheep[rng.usize(..sheep.len())].id.clone()),
                        priority: if is_usual { 2 } else { rng.i32(0..levels) },
                    },
                    submit_at: window.mul_f64(rng.f64()),
                    run: if is_flood {
                        between(rng, ms(40), ms(150))
                    } else if is_long {
                        between(rng, ms(500), ms(4_000))
                    } else {
                        between(rng, model.run / 3, model.run * 3)
                    },
                    outcome: match rng.u8(..20) {
                        0 => Outcome::Raises,
                        1 if faults.strikes(rng, Fault::Poison) => Outcome::Poison,
                        _ => Outcome::Done,
                    },
                    is_small: rng.bool(),
                    is_payload: rng.bool(),
                }
            })
            .collect();
        Self {
            sheep,
            models,
            jobs,
            max_wait: between(rng, ms(200), ms(if is_flood { 800 } else { 10_000 })),
            horizon,
            timer_slack: [Duration::ZERO, ms(1), ms(15)][rng.usize(..3)],
            latency: between(rng, Duration::from_micros(10), ms(20)),
        }
    }

    fn sheep(rng: &mut fastrand::Rng, faults: &mut Faults, no: usize) -> SheepPlan {
        let is_old = rng.u8(..8) == 0;
        if is_old {
            faults.note(Fault::OldRunner);
        }
        SheepPlan {
            id: SheepId::parse(&format!("sheep-{no}")).unwrap(),
            limits: RunnerLimits {
                heartbeat_timeout: between(rng, ms(2_000), ms(12_000)),
                run_timeout: (rng.u8(..5) > 1).then(|| between(rng, ms(1_000), ms(12_000))),
                start_timeout: between(rng, ms(6_000), ms(20_000)),
                stop_grace: between(rng, ms(1), ms(4_000)),
                crash_retries: rng.u32(0..=2),
            },
            slots: if rng.bool() { 1 } else { rng.usize(1..=4) },
            ahead: if is_old { 0 } else { [0, 1, 4, 32][rng.usize(..4)] },
            can_cancel: !is_old && rng.u8(..4) > 0,
            has_tokens: !is_old,
            has_stamps: rng.u8(..4) > 0,
        }
    }

    fn model(rng: &mut fastrand::Rng, no: usize, flock: usize) -> ModelPlan {
        ModelPlan {
            model: ModelRef::parse(&format!("model-{no}"), "1").unwrap(),
            load: between(rng, ms(5), ms(4_000)),
            dies: [0, 0, 0, 0, 0, 0, 40, 100][rng.usize(..8)],
            run: [ms(1), ms(10), ms(100), ms(1_500)][rng.usize(..4)],
            lacking: (0..flock).map(|_| rng.u8(..6) == 0).collect(),
        }
    }
}
