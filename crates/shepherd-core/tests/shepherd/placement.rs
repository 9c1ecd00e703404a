//! Which sheep works for which job, and when.

use std::sync::Arc;
use std::time::Duration;

use crate::fake::{Farm, Script, echo, spec};
use shepherd_core::{Data, Keeping, Submit};
use shepherd_job::JobId;

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
