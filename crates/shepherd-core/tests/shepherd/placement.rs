//! Which sheep works for which job, and when.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Harness, PATIENCE, Script, echo, echoing, spec};
use shepherd_core::{Data, Options, RemovedSheep, RunnerLimits, ShepherdError, Submit, UnknownModels};
use shepherd_job::{JobId, JobState, SheepId, Timestamp};
use shepherd_queue::{Existing, JobStore as _, MemoryStore, NewJob};

/// A runner whose model takes so long to load, and that echoes.
fn loading(load: Duration) -> Script {
    Arc::new(move |io| {
        std::thread::sleep(load);
        while let Some(input) = io.next() {
            echo(&input);
            io.done(&input);
        }
    })
}

async fn submit(harness: &Harness, name: &str, model: &str, priority: i32) -> JobId {
    let mut spec = spec(name, model);
    spec.priority = priority;
    let id = spec.id.clone();
    harness.shepherd.submit(Submit { spec, data: Data::Payload("x".into()) }).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_models_with_mixed_priorities_all_run_and_few_runners_start() {
    let harness = Harness::limits(loading(Duration::from_millis(300)), RunnerLimits::default()).await;
    let mut jobs = Vec::new();
    for (number, (model, priority)) in [("b", 0), ("a", 2), ("b", -1), ("a", -1)].into_iter().enumerate() {
        jobs.push(submit(&harness, &format!("job-{number}"), model, priority).await);
    }
    for id in &jobs {
        harness.is_done(id).await;
    }
    // One for `b` at the most that the more urgent `a` has ended, then `a`, `b` and `a`.
    assert!(harness.flock[0].launches() <= 4, "{} launches", harness.flock[0].launches());
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_a_sheep_that_has_its_model() {
    let harness = Harness::flock(vec![echoing(), echoing()], RunnerLimits::default()).await;
    harness.flock[0].lose("b");
    harness.flock[1].lose("a");
    let mut jobs = Vec::new();
    for number in 0..20 {
        jobs.push(harness.submit(&format!("job-{number}"), ["a", "b"][number % 2], "x").await);
    }
    for id in &jobs {
        harness.is_done(id).await;
    }
    assert_eq!(harness.flock.iter().map(|sheep| sheep.launches()).collect::<Vec<_>>(), [1, 1]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_model_no_sheep_has_is_refused_with_the_reasons() {
    let harness = Harness::flock(vec![echoing(), echoing()], RunnerLimits::default()).await;
    harness.flock[0].lose("m");
    let mut spec = spec("job-1", "m");
    spec.sheep = Some(SheepId::parse("sheep-0").unwrap());
    let data = || Data::Payload("x".into());
    let refused = harness.shepherd.submit(Submit { spec: spec.clone(), data: data() }).await;
    let Err(ShepherdError::UnknownModel(reason)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        reason, "No sheep can run the model `m:1` for this job: sheep `sheep-0` does not have `m:1`",
        "the other sheep is not asked"
    );
    assert!(matches!(harness.shepherd.job(&spec.id).await, Err(ShepherdError::UnknownJob)));
    assert!(!harness.dir.path().join("storage/job-1").exists());

    // The other one has it, until it loses it, too.
    spec.sheep = None;
    harness.shepherd.submit(Submit { spec: spec.clone(), data: data() }).await.unwrap();
    harness.is_done(&spec.id).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_its_model_where_that_is_configured() {
    let wait = |options: &mut Options| options.unknown_models = UnknownModels::Wait;
    let harness = Harness::configured(vec![echoing()], Arc::default(), wait).await;
    harness.flock[0].lose("late");
    let late = harness.submit("late", "late", "x").await;
    for number in 0..9 {
        let id = harness.submit(&format!("job-{number}"), "m", "x").await;
        harness.is_done(&id).await;
    }
    assert!(matches!(harness.shepherd.job(&late).await.unwrap().state, JobState::Queued { .. }));
    harness.flock[0].gain("late");
    harness.is_done(&late).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_model_vanishes_after_its_submit_fails_with_the_reason() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Mutex::new(released);
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            released.lock().unwrap().recv().unwrap();
            io.done(&input);
        }
    });
    let harness = Harness::with(script).await;
    let first = harness.submit("first", "m", "x").await;
    let second = harness.submit("second", "gone", "x").await;
    harness.flock[0].lose("gone");
    release.send(()).unwrap();
    harness.is_done(&first).await;
    let error = harness.failure(&second).await;
    assert_eq!(error.message, "Failed to start sheep for this job (Cannot load model `gone:1`.)");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sheep_that_cannot_start_runners_costs_no_job_while_another_can() {
    for hangs in [false, true] {
        let fails: Script = Arc::new(move |_| {
            if hangs {
                std::thread::sleep(Duration::from_secs(1));
            }
        });
        let limits = RunnerLimits { start_timeout: Duration::from_millis(500), ..RunnerLimits::default() };
        let harness = Harness::flock(vec![fails, echoing()], limits).await;
        for round in 0..3 {
            let mut jobs = Vec::new();
            for number in 0..20 {
                jobs.push(harness.submit(&format!("job-{round}-{number}"), "m", "x").await);
            }
            for id in &jobs {
                harness.is_done(id).await;
            }
        }
        harness.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_no_sheep_can_start_fails_its_jobs_after_each_has_tried() {
    let dies = || -> Script { Arc::new(|_| {}) };
    let harness = Harness::flock(vec![dies(), dies()], RunnerLimits::default()).await;
    let id = harness.submit("job-1", "m", "x").await;
    assert_eq!(harness.failure(&id).await.exception_type, "RunnerDied");
    assert_eq!(harness.flock.iter().map(|sheep| sheep.launches()).collect::<Vec<_>>(), [1, 1]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_waits_for_a_load_while_another_sheep_is_ready() {
    // Whichever sheep loads second does so until the test is over.
    let (over, is_over) = std::sync::mpsc::channel::<()>();
    let (loads, is_over) = (AtomicUsize::new(0), Mutex::new(is_over));
    let script: Script = Arc::new(move |io| {
        if loads.fetch_add(1, Ordering::SeqCst) > 0 {
            let _ = is_over.lock().unwrap().recv();
            return;
        }
        while let Some(input) = io.next() {
            std::thread::sleep(Duration::from_millis(100));
            echo(&input);
            io.done(&input);
        }
    });
    let harness = Harness::flock(vec![Arc::clone(&script), script], RunnerLimits::default()).await;
    let first = harness.submit("first", "m", "x").await;
    harness.is_done(&first).await;
    let mut jobs = Vec::new();
    for number in 0..30 {
        jobs.push(harness.submit(&format!("job-{number}"), "m", "x").await);
    }
    for id in &jobs {
        harness.is_done(id).await;
    }
    let launches: usize = harness.flock.iter().map(|sheep| sheep.launches()).sum();
    assert_eq!(launches, 2, "another sheep loads the model for so many jobs");
    drop(over);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_jobs_of_a_model_that_loads_for_long_start_two_sheep() {
    let (load, loaded) = std::sync::mpsc::channel::<()>();
    let (loads, loaded) = (AtomicUsize::new(0), Mutex::new(loaded));
    let script: Script = Arc::new(move |io| {
        if loads.fetch_add(1, Ordering::SeqCst) == 0 {
            let _ = loaded.lock().unwrap().recv();
        }
        while let Some(input) = io.next() {
            echo(&input);
            io.done(&input);
        }
    });
    let harness = Harness::flock(vec![Arc::clone(&script), script], RunnerLimits::default()).await;
    let jobs = [harness.submit("job-1", "m", "x").await, harness.submit("job-2", "m", "x").await];
    for id in &jobs {
        harness.is_done(id).await;
    }
    drop(load);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_urgent_job_overtakes_those_that_were_made_ready_because_others_were_quick() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (released, order) = (Mutex::new(released), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&order);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            if !input.job.as_str().starts_with("quick") {
                seen.lock().unwrap().push(input.job.to_string());
                released.lock().unwrap().recv().unwrap();
            }
            io.done(&input);
        }
    }))
    .await;
    let mut jobs = Vec::new();
    for number in 0..200 {
        jobs.push(harness.submit(&format!("quick-{number}"), "m", "x").await);
    }
    for id in &jobs {
        harness.is_done(id).await;
    }
    for number in 0..20 {
        harness.submit(&format!("slow-{number}"), "m", "x").await;
    }
    while order.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let urgent = submit(&harness, "urgent", "m", 5).await;
    let is_claimed = async {
        while matches!(harness.shepherd.job(&urgent).await.unwrap().state, JobState::Queued { .. }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, is_claimed).await.expect("room is made for it");
    (0..30).for_each(|_| release.send(()).unwrap());
    harness.is_done(&urgent).await;
    assert_eq!(order.lock().unwrap()[1], "urgent");
    harness.shutdown().await;
}

/// A shepherd that finds a job for a sheep that it does not have.
async fn with_a_job_of_a_removed_sheep(policy: RemovedSheep) -> (Harness, JobId) {
    let mut spec = spec("left", "m");
    spec.sheep = Some(SheepId::parse("gone").unwrap());
    let id = spec.id.clone();
    let input = (shepherd_job::ObjectPath::parse("inputs/input").unwrap(), "x".into());
    let submitted_at = Timestamp::from_micros(1);
    let job = NewJob { spec, submitted_at, objects: vec![input], existing: Existing::Refuse };
    let queue = Arc::new(MemoryStore::new());
    queue.submit(vec![job]).await.unwrap();
    let configure = |options: &mut Options| options.removed_sheep = policy;
    (Harness::configured(vec![echoing()], queue, configure).await, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_removed_sheep_waits_and_that_is_told() {
    let (harness, left) = with_a_job_of_a_removed_sheep(RemovedSheep::Wait).await;
    let id = harness.submit("job-1", "m", "x").await;
    harness.is_done(&id).await;
    assert!(matches!(harness.shepherd.job(&left).await.unwrap().state, JobState::Queued { .. }));
    let readiness = harness.shepherd.readiness();
    assert_eq!(readiness.notices, ["1 job waits for the sheep `gone`, which is not configured"]);
    assert!(readiness.problems.is_empty());
    harness.shepherd.cancel(&left).await.unwrap();
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_removed_sheep_fails_where_that_is_configured() {
    let (harness, left) = with_a_job_of_a_removed_sheep(RemovedSheep::Fail).await;
    assert_eq!(
        harness.failure(&left).await.message,
        "The sheep `gone`, which the job is for, is not configured"
    );
    assert!(harness.shepherd.readiness().notices.is_empty());
    assert_eq!(harness.flock[0].launches(), 0);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_removed_sheep_goes_to_any_where_that_is_configured() {
    let (harness, left) = with_a_job_of_a_removed_sheep(RemovedSheep::Unpin).await;
    harness.is_done(&left).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_low_priority_gets_its_share_under_urgent_ones_of_its_model() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (released, order) = (Mutex::new(released), Arc::<Mutex<Vec<String>>>::default());
    let seen = Arc::clone(&order);
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            released.lock().unwrap().recv().unwrap();
            seen.lock().unwrap().push(input.job.to_string());
            io.done(&input);
        }
    });
    let configure = |options: &mut Options| options.max_wait = Duration::from_millis(1);
    let harness = Harness::configured(vec![script], Arc::default(), configure).await;
    let first = submit(&harness, "first", "m", 9).await;
    let low = submit(&harness, "low", "m", 0).await;
    let mut jobs = Vec::new();
    for number in 0..100 {
        jobs.push(submit(&harness, &format!("urgent-{number}"), "m", 9).await);
    }
    (0..200).for_each(|_| release.send(()).unwrap());
    for id in jobs.iter().chain([&first, &low]) {
        harness.is_done(id).await;
    }
    let place = order.lock().unwrap().iter().position(|id| id == "low").unwrap();
    assert!(place < 50, "it came as number {place}");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_low_priority_gets_its_share_under_a_stream_of_urgent_jobs_of_another() {
    let configure = |options: &mut Options| options.max_wait = Duration::from_millis(300);
    let script = loading(Duration::from_millis(400));
    let harness = Harness::configured(vec![script], Arc::default(), configure).await;
    let low = submit(&harness, "low", "b", 0).await;
    let stream = async {
        for number in 0.. {
            submit(&harness, &format!("urgent-{number}"), "a", 9).await;
            if number % 50 == 49 {
                let id = submit(&harness, &format!("last-{number}"), "a", 9).await;
                // There is always one in the queue.
                harness.shepherd.job(&id).await.unwrap();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::select! {
        () = harness.is_done(&low) => {}
        () = stream => {}
    }
    let _ = tokio::time::timeout(PATIENCE, harness.shepherd.shutdown(Duration::from_secs(1))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flock_that_cannot_run_anything_is_not_ready_and_says_why_before_a_job_comes() {
    let harness = Harness::flock(vec![echoing(), echoing()], RunnerLimits::default()).await;
    let until = async |holds: &dyn Fn() -> bool| {
        let waiting = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to hold");
    };
    harness.flock[0].is_fit(Some("the engine is away"));
    until(&|| harness.shepherd.flock()[0].problem.as_deref() == Some("the engine is away")).await;
    assert!(harness.shepherd.readiness().problems.is_empty(), "the other one can");
    harness.flock[1].is_fit(Some("no runner"));
    until(&|| !harness.shepherd.readiness().problems.is_empty()).await;
    assert_eq!(
        harness.shepherd.readiness().problems,
        ["no sheep can run anything: `sheep-0`: the engine is away; `sheep-1`: no runner"]
    );
    harness.flock[1].is_fit(None);
    until(&|| harness.shepherd.readiness().problems.is_empty()).await;
    harness.shutdown().await;
}
