//! The life of jobs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Harness, PATIENCE, Script, echo, echoing, file, spec};
use bytes::Bytes;
use shepherd_core::{Accepted, Data, MAX_STATUS_DOCUMENT, RunnerLimits, SheepState, ShepherdError, Submit};
use shepherd_job::{JobState, ObjectPath, STATUS_OBJECT, SheepId};
use shepherd_storage::{Storage as _, body};

fn path(text: &str) -> ObjectPath {
    ObjectPath::parse(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_done_and_its_files_come_to_storage() {
    let harness = Harness::with(echoing()).await;
    let id = harness.submit("job-1", "m", "hello").await;
    harness.is_done(&id).await;
    assert_eq!(harness.read(&id, "outputs/output").await, b"hello");
    assert_eq!(harness.read(&id, "inputs/input").await, b"hello");
    let dir = harness.dir.path().join("storage/job-1");
    harness.shepherd.shutdown(Duration::from_secs(5)).await;
    assert_eq!(std::fs::read(dir.join("outputs/output")).unwrap(), b"hello");
    assert_eq!(std::fs::read(dir.join("inputs/input")).unwrap(), b"hello");
    assert_eq!(std::fs::read(dir.join(STATUS_OBJECT)).unwrap(), b"Done");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_jobs_stream_through_one_runner() {
    let harness = Arc::new(Harness::with(echoing()).await);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..16 {
        let harness = Arc::clone(&harness);
        clients.spawn(async move {
            for number in 0..50 {
                let text = format!("{client}-{number}");
                let id = harness.submit(&format!("job-{text}"), "m", &text).await;
                harness.is_done(&id).await;
                assert_eq!(harness.read(&id, "outputs/output").await, text.as_bytes());
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert_eq!(harness.flock[0].launches(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_carries_its_message_and_disturbs_nobody() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            if input.job.as_str() == "bad" { io.fail(&input, "no such luck") } else { io.done(&input) }
        }
    }))
    .await;
    let (bad, good) = (harness.submit("bad", "m", "x").await, harness.submit("good", "m", "x").await);
    assert_eq!(harness.failure(&bad).await.message, "no such luck");
    harness.is_done(&good).await;
    assert_eq!(harness.flock[0].launches(), 1);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_in_storage_are_staged_and_large_outputs_published() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            assert_eq!(std::fs::read(file(&input, "inputs/a/b")).unwrap(), b"deep");
            std::fs::create_dir(file(&input, "outputs/sub")).unwrap();
            std::fs::write(file(&input, "outputs/sub/large"), vec![7; 300_000]).unwrap();
            io.done(&input);
        }
    }))
    .await;
    let spec = spec("job-1", "m");
    let id = spec.id.clone();
    harness.storage.put(&id, &path("inputs/a/b"), body("deep")).await.unwrap();
    harness.shepherd.submit(Submit { spec, data: Data::Stored }).await.unwrap();
    harness.is_done(&id).await;
    assert_eq!(harness.read(&id, "outputs/sub/large").await, vec![7; 300_000]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_goes_through_storage() {
    let harness = Harness::with(echoing()).await;
    let payload = vec![b'x'; 2_000_000];
    let submit = |data| Submit { spec: spec("job-1", "m"), data };
    let pieces: Vec<_> = payload.chunks(100_000).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let stream = Data::Stream(Box::pin(futures::stream::iter(pieces)));
    harness.shepherd.submit(submit(stream)).await.unwrap();
    let id = spec("job-1", "m").id;
    harness.is_done(&id).await;
    assert_eq!(harness.read(&id, "outputs/output").await, payload);
    let again = harness.shepherd.submit(submit(Data::Payload(payload.into()))).await;
    assert!(matches!(again, Err(ShepherdError::AlreadySubmitted)), "{again:?}");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_breaks_off_leaves_nothing_behind() {
    let harness = Harness::with(echoing()).await;
    let pieces = vec![Ok(Bytes::from_static(b"half")), Err(std::io::Error::other("gone"))];
    let data = Data::Stream(Box::pin(futures::stream::iter(pieces)));
    assert!(harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data }).await.is_err());
    let id = spec("job-1", "m").id;
    assert!(matches!(harness.shepherd.job(&id).await, Err(ShepherdError::UnknownJob)));
    assert!(!harness.storage.contains(&id).await.unwrap());
    assert_eq!(std::fs::read_dir(harness.dir.path().join("state/incoming")).unwrap().count(), 0);
    harness.submit("job-1", "m", "whole").await;
    harness.is_done(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_submits_are_refused_and_leave_nothing_behind() {
    let harness = Harness::with(echoing()).await;
    let pinned =
        shepherd_job::JobSpec { sheep: Some(SheepId::parse("nobody").unwrap()), ..spec("job-1", "m") };
    let refused = harness.shepherd.submit(Submit { spec: pinned, data: Data::Payload("x".into()) }).await;
    assert!(matches!(refused, Err(ShepherdError::UnknownSheep(_))), "{refused:?}");
    let refused = harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data: Data::Stored }).await;
    assert!(matches!(refused, Err(ShepherdError::NoData)), "{refused:?}");
    assert!(matches!(harness.shepherd.job(&spec("job-1", "m").id).await, Err(ShepherdError::UnknownJob)));

    let taken = spec("taken", "m");
    harness.storage.put(&taken.id, &path("inputs/input"), body("mine")).await.unwrap();
    let refused = harness.shepherd.submit(Submit { spec: taken, data: Data::Payload("x".into()) }).await;
    assert!(matches!(refused, Err(ShepherdError::AlreadySubmitted)), "{refused:?}");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_runs_again_and_its_outputs_are_replaced() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            std::fs::write(file(&input, &format!("outputs/run-{run}")), "x").unwrap();
            io.done(&input);
        }
    }))
    .await;
    let id = harness.submit("job-1", "m", "hello").await;
    harness.is_done(&id).await;
    let again =
        harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data: Data::Stored }).await.unwrap();
    assert!(matches!(again, Accepted::Queued(_)), "{again:?}");
    harness.is_done(&id).await;
    harness.shepherd.shutdown(Duration::from_secs(5)).await;
    let listed = harness.storage.list(&id, "outputs/", None, 10).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|meta| meta.path.as_str()).collect();
    assert_eq!(names, ["outputs/run-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_job_is_not_run_twice() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            counted.fetch_add(1, Ordering::SeqCst);
            wait.lock().unwrap().recv().unwrap();
            io.done(&input);
        }
    }))
    .await;
    let id = harness.submit("job-1", "m", "hello").await;
    let again =
        harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data: Data::Stored }).await.unwrap();
    assert!(matches!(again, Accepted::Live(_)), "{again:?}");
    release.send(()).unwrap();
    harness.is_done(&id).await;
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_alternate_in_the_queue_are_not_swapped_for_each_job() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let (open, gate) = tokio::sync::watch::channel(false);
    let seen = Arc::clone(&order);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            // All jobs are queued before the first one ends.
            while !*gate.borrow() {
                std::thread::yield_now();
            }
            seen.lock().unwrap().push(io.model.name().to_owned());
            io.done(&input);
        }
    }))
    .await;
    let mut ids = Vec::new();
    for (number, model) in ["a", "b", "a", "a", "c", "a", "b", "c"].into_iter().enumerate() {
        ids.push(harness.submit(&format!("job-{number}"), model, "x").await);
    }
    open.send_replace(true);
    for id in &ids {
        harness.is_done(id).await;
    }
    assert_eq!(order.lock().unwrap().concat(), "aaaabbcc");
    assert_eq!(harness.flock[0].launches(), 3);
    assert_eq!(harness.flock[0].vacated(), 2, "nobody waits for how a runner ended that another follows");
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_removed_while_the_job_is_queued_fails_it_and_no_other() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            while !*gate.borrow() {
                std::thread::yield_now();
            }
            echo(&input);
            io.done(&input);
        }
    }))
    .await;
    // The first one runs, the second is ready, the third only queued.
    let mut ids = Vec::new();
    for name in ["first", "second", "third", "fourth"] {
        let spec = spec(name, "m");
        harness.storage.put(&spec.id, &path("inputs/input"), body("x")).await.unwrap();
        ids.push(spec.id.clone());
        harness.shepherd.submit(Submit { spec, data: Data::Stored }).await.unwrap();
    }
    harness.storage.remove(&ids[2]).await.unwrap();
    open.send_replace(true);
    assert_eq!(harness.failure(&ids[2]).await.message, "Data for job `third` does not exist");
    harness.is_done(&ids[0]).await;
    harness.is_done(&ids[3]).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_time_is_taken_when_it_comes() {
    let harness = Harness::with(echoing()).await;
    let warm = harness.submit("warm", "m", "x").await;
    harness.is_done(&warm).await;
    // Inputs that cannot be read make the job wait; nothing else happens afterwards.
    let spec = spec("job-1", "m");
    let (id, inputs) = (spec.id.clone(), harness.dir.path().join("storage/job-1/inputs"));
    harness.storage.put(&id, &path("inputs/input"), body("hello")).await.unwrap();
    let home = harness.dir.path().join("data/sheep-0/job-1");
    std::fs::create_dir_all(home.join("in-the-way")).unwrap();
    harness.shepherd.submit(Submit { spec, data: Data::Stored }).await.unwrap();
    let given_back = async {
        loop {
            let record = harness.shepherd.job(&id).await.unwrap();
            if matches!(record.state, JobState::Queued { not_before: Some(_), .. }) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, given_back).await.unwrap();
    std::fs::remove_dir_all(&home).unwrap();
    assert!(inputs.join("input").exists());
    harness.is_done(&id).await;
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sheep_share_the_work_of_slow_jobs() {
    let together = Arc::new(std::sync::Barrier::new(2));
    let script = || -> Script {
        let together = Arc::clone(&together);
        Arc::new(move |io| {
            while let Some(input) = io.next() {
                // Passes only when both sheep have a job at the same time.
                together.wait();
                io.done(&input);
            }
        })
    };
    let harness = Harness::flock(vec![script(), script()], RunnerLimits::default()).await;
    let ids = [harness.submit("job-1", "m", "x").await, harness.submit("job-2", "m", "x").await];
    for id in &ids {
        harness.is_done(id).await;
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_job_runs_on_its_sheep() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let script = |name: &'static str| -> Script {
        let names = Arc::clone(&names);
        Arc::new(move |io| {
            while let Some(input) = io.next() {
                names.lock().unwrap().push(name);
                io.done(&input);
            }
        })
    };
    let harness = Harness::flock(vec![script("0"), script("1")], RunnerLimits::default()).await;
    let pinned =
        shepherd_job::JobSpec { sheep: Some(SheepId::parse("sheep-1").unwrap()), ..spec("job-1", "m") };
    let id = pinned.id.clone();
    harness.shepherd.submit(Submit { spec: pinned, data: Data::Payload("x".into()) }).await.unwrap();
    harness.is_done(&id).await;
    assert_eq!(*names.lock().unwrap(), ["1"]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_only_a_busy_sheep_may_take_leaves_the_others_in_peace() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let script: Script = Arc::new(move |io| {
        while let Some(input) = io.next() {
            while input.job.as_str() == "long" && !*gate.borrow() {
                std::thread::yield_now();
            }
            io.done(&input);
        }
    });
    let harness = Harness::flock(vec![Arc::clone(&script), script], RunnerLimits::default()).await;
    let mut ids = Vec::new();
    for (name, sheep) in [("warm", "sheep-1"), ("long", "sheep-0"), ("next", "sheep-0"), ("third", "sheep-0")]
    {
        let pinned = shepherd_job::JobSpec { sheep: Some(SheepId::parse(sheep).unwrap()), ..spec(name, "m") };
        ids.push(pinned.id.clone());
        harness.shepherd.submit(Submit { spec: pinned, data: Data::Payload("x".into()) }).await.unwrap();
    }
    harness.is_done(&ids[0]).await;
    // Both have the model; the idle one must not be woken over and over for what it may not take.
    let metrics = tokio::runtime::Handle::current().metrics();
    let polls = || (0..metrics.num_workers()).map(|w| metrics.worker_park_unpark_count(w)).sum::<u64>();
    let before = polls();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(polls() - before < 500, "{} wakes in a quiet moment", polls() - before);
    open.send_replace(true);
    for id in &ids {
        harness.is_done(id).await;
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_cancelled_over_and_over_still_runs_again() {
    let harness = Harness::with(echoing()).await;
    let spec = spec("job-1", "m");
    let id = spec.id.clone();
    harness.storage.put(&id, &path("inputs/input"), body("hello")).await.unwrap();
    for _ in 0..50 {
        // Wherever the cancel meets the job, in the queue, made ready, running or published.
        harness.shepherd.submit(Submit { spec: spec.clone(), data: Data::Stored }).await.unwrap();
        let cancelled = harness.shepherd.cancel(&id).await;
        assert!(matches!(cancelled, Ok(_) | Err(ShepherdError::Finished)), "{cancelled:?}");
        harness.shepherd.submit(Submit { spec: spec.clone(), data: Data::Stored }).await.unwrap();
        harness.is_done(&id).await;
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_running_jobs_finish_and_gives_the_others_back() {
    let (started, has_started) = std::sync::mpsc::channel();
    let started = Mutex::new(started);
    let (open, gate) = tokio::sync::watch::channel(false);
    let harness = Harness::with(Arc::new(move |io| {
        while let Some(input) = io.next() {
            started.lock().unwrap().send(()).unwrap();
            while !*gate.borrow() {
                std::thread::yield_now();
            }
            io.done(&input);
        }
    }))
    .await;
    let (first, second) = (harness.submit("first", "m", "x").await, harness.submit("second", "m", "x").await);
    tokio::task::spawn_blocking(move || has_started.recv_timeout(PATIENCE).unwrap()).await.unwrap();
    let shepherd = harness.shepherd.clone();
    let drained = tokio::spawn(async move { shepherd.shutdown(PATIENCE).await });
    while harness.shepherd.readiness().problems.is_empty() {
        tokio::task::yield_now().await;
    }
    let refused =
        harness.shepherd.submit(Submit { spec: spec("late", "m"), data: Data::Payload("x".into()) }).await;
    assert!(matches!(refused, Err(ShepherdError::ShuttingDown)), "{refused:?}");
    open.send_replace(true);
    drained.await.unwrap();
    assert!(matches!(harness.shepherd.job(&first).await.unwrap().state, JobState::Done { .. }));
    assert!(matches!(harness.shepherd.job(&second).await.unwrap().state, JobState::Queued { .. }));
    assert!(harness.shepherd.flock().iter().all(|sheep| sheep.state == SheepState::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_with_several_slots_gets_several_jobs() {
    let harness = Harness::with(Arc::new(|io| {
        io.ready.slots = 2;
        while let (Some(first), Some(second)) = (io.next(), io.next()) {
            // The order of answers is the runner's.
            io.done(&second);
            io.done(&first);
        }
    }))
    .await;
    let ids = [harness.submit("job-1", "m", "x").await, harness.submit("job-2", "m", "x").await];
    for id in &ids {
        harness.is_done(id).await;
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_document_that_only_storage_has_is_read_whatever_its_size() {
    let harness = Harness::with(echoing()).await;
    let id = spec("old", "m").id;
    assert!(matches!(harness.shepherd.stored_status(&id).await, Err(ShepherdError::UnknownJob)));
    for (size, is_read) in [(0, true), (300_000, true), (MAX_STATUS_DOCUMENT + 1, false)] {
        let document = Bytes::from(vec![b'x'; size]);
        harness.storage.put(&id, &path(STATUS_OBJECT), body(document.clone())).await.unwrap();
        match harness.shepherd.stored_status(&id).await {
            Ok(read) => assert!(is_read && read == document, "{size}"),
            Err(error) => assert!(!is_read && matches!(error, ShepherdError::UnknownJob), "{size}: {error}"),
        }
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_of_a_failed_job_are_kept() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            let name = input.job.as_str();
            let size = if name.starts_with("large") { 300_000 } else { 3 };
            std::fs::write(file(&input, "outputs/output"), vec![b'x'; size]).unwrap();
            if name.ends_with("dies") {
                return;
            }
            io.fail(&input, "no luck");
        }
    }))
    .await;
    for (name, size) in [("small", 3), ("large", 300_000), ("small-dies", 3), ("large-dies", 300_000)] {
        let id = harness.submit(name, "m", "x").await;
        harness.failure(&id).await;
        assert_eq!(harness.read(&id, "outputs/output").await.len(), size, "{name}");
        harness.shepherd.flush(&id).await.unwrap();
        let output = harness.dir.path().join("storage").join(name).join("outputs/output");
        assert_eq!(std::fs::metadata(output).unwrap().len(), size as u64, "{name}");
    }
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_come_to_storage_under_a_load_that_never_pauses() {
    let harness = Arc::new(Harness::with(echoing()).await);
    let first = harness.submit("first", "m", "hello").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let (harness, is_over) = (Arc::clone(&harness), Arc::clone(&is_over));
        async move {
            for number in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    return number;
                }
                // Two at once, so that there is always one under way.
                let [one, two] = ["a", "b"].map(|which| format!("job-{which}-{number}"));
                let (one, two) = tokio::join!(harness.submit(&one, "m", "x"), harness.submit(&two, "m", "x"));
                tokio::join!(harness.is_done(&one), harness.is_done(&two));
            }
            unreachable!("the load ends when it is told to");
        }
    });
    let document = harness.dir.path().join("storage/first").join(STATUS_OBJECT);
    let comes = async {
        while !std::fs::read(&document).is_ok_and(|document| document == b"Done") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    harness.is_done(&first).await;
    tokio::time::timeout(PATIENCE, comes).await.expect("the load does not hold it up");
    is_over.store(true, Ordering::SeqCst);
    load.await.unwrap();
    harness.shepherd.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_runner_writes_into_its_input_does_not_reach_the_stored_one() {
    let harness = Harness::with(Arc::new(|io| {
        while let Some(input) = io.next() {
            echo(&input);
            std::fs::write(file(&input, "inputs/input"), "changed").unwrap();
            io.done(&input);
        }
    }))
    .await;
    let id = spec("job-1", "m").id;
    harness.storage.put(&id, &path("inputs/input"), body("as it was")).await.unwrap();
    for _ in 0..2 {
        harness.shepherd.submit(Submit { spec: spec("job-1", "m"), data: Data::Stored }).await.unwrap();
        harness.is_done(&id).await;
        assert_eq!(harness.read(&id, "outputs/output").await, b"as it was");
        assert_eq!(harness.read(&id, "inputs/input").await, b"as it was");
    }
    harness.shutdown().await;
}
