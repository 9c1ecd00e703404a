//! When files come to storage, and who waits for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shepherd_job::{Phase, STATUS_OBJECT};
use shepherd_queue::ListQuery;

use crate::fake::{PATIENCE, echoing, file, spec};
use crate::faults::{eventually, exists, harness};

/// How many outputs of [`OUTPUT`] bytes may be pending before no more come.
const FIT: usize = (64 << 20) / OUTPUT + 1;
const OUTPUT: usize = 60_000;
const JOBS: usize = FIT + 300;
/// Something that waits has not come by then.
const WHILE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn files_come_to_storage_while_jobs_never_pause() {
    let (harness, _storage) = harness(vec![echoing()], |_| ()).await;
    let ends = AtomicBool::new(false);
    let load = async {
        for number in 0.. {
            let id = harness.submit(&format!("job-{number}"), "m", "x").await;
            harness.is_done(&id).await;
            if ends.load(Ordering::SeqCst) {
                break;
            }
        }
    };
    let look = async {
        eventually(async || exists(&harness, &format!("job-0/{STATUS_OBJECT}"))).await;
        ends.store(true, Ordering::SeqCst);
    };
    tokio::join!(load, look);
    assert!(exists(&harness, "job-0/outputs/output"));
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_take_too_much_room_hold_outcomes_and_submits_back() {
    let begins = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&begins);
    let script: crate::fake::Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            while !gate.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::fs::write(file(&input, "outputs/output"), vec![b'x'; OUTPUT]).unwrap();
            io.done(&input);
        }
    });
    let (harness, storage) = harness(vec![script], |_| ()).await;
    storage.takes_nothing.store(true, Ordering::SeqCst);
    for number in 0..JOBS {
        harness.submit(&format!("job-{number}"), "m", "x").await;
    }
    begins.store(true, Ordering::SeqCst);
    let done = async || {
        let query = ListQuery { phases: vec![Phase::Done], limit: JOBS, ..ListQuery::default() };
        harness.shepherd.jobs(query).await.unwrap().len()
    };
    eventually(async || done().await >= FIT).await;
    let last = spec(&format!("job-{}", JOBS - 1), "m").id;
    let held = tokio::time::timeout(WHILE, harness.shepherd.finished(&last)).await;
    assert!(held.is_err(), "no job ends whose output has no room");
    let late = tokio::time::timeout(WHILE, harness.submit("late", "m", "x")).await;
    assert!(late.is_err(), "no job is accepted whose input has no room");
    let problems = harness.shepherd.readiness().problems;
    assert!(problems.iter().any(|problem| problem.contains("does not take files of jobs")), "{problems:?}");
    storage.takes_nothing.store(false, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, harness.shepherd.finished(&last)).await.unwrap().unwrap();
    // The client had gone; its job was accepted all the same.
    let late = spec("late", "m").id;
    eventually(async || harness.shepherd.job(&late).await.is_ok()).await;
    harness.is_done(&late).await;
    assert!(harness.shepherd.readiness().problems.is_empty());
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_does_not_wait_for_a_sync_that_waits_for_it() {
    let (harness, storage) = harness(Vec::new(), |_| ()).await;
    storage.slow_syncs.store(true, Ordering::SeqCst);
    let asked = async {
        for number in 0..100 {
            let id = harness.submit(&format!("job-{number}"), "m", "x").await;
            // A quiet moment: a batch is being made durable when the next job is asked for.
            eventually(async || exists(&harness, &format!("{id}/inputs/input"))).await;
            let id = harness.submit(&format!("asked-{number}"), "m", "x").await;
            harness.shepherd.flush(&id).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("nobody waits for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_again_when_a_sync_of_somebody_else_failed_meanwhile() {
    let (harness, storage) = harness(Vec::new(), |_| ()).await;
    storage.others_lost.store(1, Ordering::SeqCst);
    harness.submit("job-1", "m", "x").await;
    let puts = || {
        let asked = storage.asked.lock().unwrap();
        asked.iter().filter(|asked| *asked == "put job-1/inputs/input").count()
    };
    eventually(async || harness.shepherd.unflushed().await.unwrap().is_empty()).await;
    assert_eq!(puts(), 2, "the second time it is durable");
    harness.shutdown().await;
}
