//! Which sheep works for which job, and when.

use std::sync::Arc;
use std::time::Duration;

use crate::fake::{Farm, Script, echo, echoing, spec};
use shepherd_core::{Data, Keeping, ShepherdError, Submit, UnknownModels};
use shepherd_job::{JobId, JobState, SheepId};

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

async fn submit(farm: &Farm, name: &str, model: &str, priority: i32) -> JobId {
    let mut spec = spec(name, model);
    spec.priority = priority;
    let id = spec.id.clone();
    farm.shepherd.submit(Submit { spec, data: Data::Payload("x".into()) }).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_models_with_mixed_priorities_all_run_and_few_runners_start() {
    let farm = Farm::keeping(loading(Duration::from_millis(300)), Keeping::default()).await;
    let mut jobs = Vec::new();
    for (number, (model, priority)) in [("b", 0), ("a", 2), ("b", -1), ("a", -1)].into_iter().enumerate() {
        jobs.push(submit(&farm, &format!("job-{number}"), model, priority).await);
    }
    for id in &jobs {
        farm.is_done(id).await;
    }
    // One for `b` at the most that the more urgent `a` has ended, then `a`, `b` and `a`.
    assert!(farm.flock[0].launches() <= 4, "{} launches", farm.flock[0].launches());
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_a_sheep_that_has_its_model() {
    let farm = Farm::flock(vec![echoing(), echoing()], Keeping::default()).await;
    farm.flock[0].lose("b");
    farm.flock[1].lose("a");
    let mut jobs = Vec::new();
    for number in 0..20 {
        jobs.push(farm.submit(&format!("job-{number}"), ["a", "b"][number % 2], "x").await);
    }
    for id in &jobs {
        farm.is_done(id).await;
    }
    assert_eq!(farm.flock.iter().map(|sheep| sheep.launches()).collect::<Vec<_>>(), [1, 1]);
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_model_no_sheep_has_is_refused_with_the_reasons() {
    let farm = Farm::flock(vec![echoing(), echoing()], Keeping::default()).await;
    farm.flock[0].lose("m");
    let mut spec = spec("job-1", "m");
    spec.sheep = Some(SheepId::parse("sheep-0").unwrap());
    let data = || Data::Payload("x".into());
    let refused = farm.shepherd.submit(Submit { spec: spec.clone(), data: data() }).await;
    let Err(ShepherdError::UnknownModel(reason)) = refused else { panic!("{refused:?}") };
    assert_eq!(
        reason,
        "No sheep can run the model `m:1` for this job: sheep `sheep-0` does not have `m:1`",
        "the other sheep is not asked"
    );
    assert!(matches!(farm.shepherd.job(&spec.id).await, Err(ShepherdError::UnknownJob)));
    assert!(!farm.dir.path().join("storage/job-1").exists());

    // The other one has it, until it loses it, too.
    spec.sheep = None;
    farm.shepherd.submit(Submit { spec: spec.clone(), data: data() }).await.unwrap();
    farm.is_done(&spec.id).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_its_model_where_that_is_configured() {
    let wait = |options: &mut shepherd_core::Options| options.unknown_models = UnknownModels::Wait;
    let farm = Farm::configured(vec![echoing()], wait).await;
    farm.flock[0].lose("late");
    let late = farm.submit("late", "late", "x").await;
    for number in 0..9 {
        let id = farm.submit(&format!("job-{number}"), "m", "x").await;
        farm.is_done(&id).await;
    }
    assert!(matches!(farm.shepherd.job(&late).await.unwrap().state, JobState::Queued { .. }));
    farm.flock[0].gain("late");
    farm.is_done(&late).await;
    farm.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_model_vanishes_after_its_submit_fails_with_the_reason() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            released.lock().unwrap().recv().unwrap();
            io.done(&input);
        }
    });
    let farm = Farm::with(script).await;
    let first = farm.submit("first", "m", "x").await;
    let second = farm.submit("second", "gone", "x").await;
    farm.flock[0].lose("gone");
    release.send(()).unwrap();
    farm.is_done(&first).await;
    let error = farm.failure(&second).await;
    assert_eq!(error.message, "Failed to start sheep for this job (Cannot load model `gone:1`.)");
    farm.shutdown().await;
}
