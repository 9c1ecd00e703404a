//! Storage that is full, away, or changed behind the daemon's back.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::{Harness, Script, SmallDisk, eventually_async, skip, start_body};

const NO_MOUNT: &str = "a file system cannot be mounted here";

/// A harness whose state and storage are on a disk of their own. The disk is dropped
/// first: a mounted directory cannot be removed.
fn on_small_disk(bytes: u64) -> Option<(Harness, SmallDisk)> {
    let harness = Harness::new();
    let (state, storage) = (harness.path("disk/state"), harness.path("disk/storage"));
    let url = format!("file://{}", storage.display());
    let harness = harness.with(json!({"state_dir": state, "storage": {"url": url}}));
    let disk = SmallDisk::mount(&harness.path("disk"), bytes).ok()?;
    Some((harness, disk))
}

#[tokio::test]
async fn data_removed_while_its_job_waits_wedges_nobody() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("opener", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("opener", 1).await;
    for i in 0..3 {
        let job = format!("robbed-{i}");
        harness.put(&job, "inputs/input", "soon gone");
        assert_eq!(client.start_job(&json!({"job_id": job, "model": SCRIPTED.json()})).await.status, 200);
    }
    for i in 0..3 {
        std::fs::remove_dir_all(harness.path("storage").join(format!("robbed-{i}"))).unwrap();
    }
    client.submit("after", SCRIPTED, &Script::Say("fine".into())).await.expect_status(200);
    harness.open_gate(&gate);
    for i in 0..3 {
        // Whatever was staged before is not asked about; that it comes to an end is.
        client.finished(&format!("robbed-{i}")).await;
    }
    assert_eq!(client.finished("after").await["status"], "done");
}

#[tokio::test]
async fn a_full_disk_refuses_submits_and_loses_nothing() {
    let Some((harness, disk)) = on_small_disk(24 << 20) else { return skip(NO_MOUNT) };
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("running", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("running", 1).await;
    for i in 0..5 {
        client.submit(&format!("queued-{i}"), SCRIPTED, &Script::Say(i.to_string())).await.expect_status(200);
    }
    let ballast = disk.fill();
    let mut accepted = Vec::new();
    let mut refusals = 0;
    for i in 0..50 {
        let job = format!("late-{i}");
        let reply = client.start_job(&start_body(&job, SCRIPTED, &"x".repeat(300_000))).await;
        match reply.status {
            200 => accepted.push(job),
            503 | 507 => {
                assert!(!reply.json()["message"].as_str().unwrap_or_default().is_empty());
                refusals += 1;
            }
            _ => panic!("{reply:?}"),
        }
    }
    assert!(refusals > 0, "a full disk took everything");
    assert_eq!(client.get("/healthz").await.status, 200);
    harness.open_gate(&gate);
    assert_eq!(client.get("/status").await.status, 200);
    std::fs::remove_file(ballast).unwrap();
    for job in ["running".to_owned()].into_iter().chain((0..5).map(|i| format!("queued-{i}"))).chain(accepted)
    {
        assert_eq!(client.finished(&job).await["status"], "done", "{job}");
    }
    assert_eq!(client.result("running").await.text(), "through");
    assert_eq!(client.run("after", SCRIPTED, &Script::Say("fine".into())).await["status"], "done");
    // A refused job left nothing and may come again.
    let reply = client.start_job(&start_body("late-49", SCRIPTED, "x")).await;
    assert!(matches!(reply.status, 200 | 409), "{reply:?}");
    daemon.kill().await;
    let daemon = harness.start().await;
    assert_eq!(daemon.client().result("running").await.text(), "through");
}

#[tokio::test]
async fn a_daemon_starts_on_a_full_disk_or_says_why_not() {
    let Some((harness, disk)) = on_small_disk(16 << 20) else { return skip(NO_MOUNT) };
    let daemon = harness.start().await;
    daemon.client().run("early", SCRIPTED, &Script::Say("early".into())).await;
    daemon.kill().await;
    let ballast = disk.fill();
    let daemon = harness.spawn(harness.command());
    tokio::select! {
        _ = daemon.log().line_with("Shepherd API is available at") => {}
        ended = daemon.ended() => {
            assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
            assert!(ended.log.contains("full") || ended.log.contains("space"), "{}", ended.log);
        }
    }
    daemon.kill().await;
    std::fs::remove_file(ballast).unwrap();
    let daemon = harness.start().await;
    assert_eq!(daemon.client().result("early").await.text(), "early");
}

#[tokio::test]
async fn a_storage_outage_delays_jobs_and_loses_none() {
    let harness = Harness::new();
    let Ok(disk) = SmallDisk::mount(&harness.path("storage"), 64 << 20) else { return skip(NO_MOUNT) };
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    let big = 4 << 20;
    // One that ends while the storage is away, in full: too big to be kept elsewhere.
    client.submit("running", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("running", 1).await;
    client.submit("big-one", SCRIPTED, &Script::Big(big)).await.expect_status(200);
    client.submit("next", SCRIPTED, &Script::Say("next".into())).await.expect_status(200);
    // A file that is being written holds the file system open for a moment.
    eventually_async("the storage to refuse writes", || async { disk.set_read_only(true).ok() }).await;
    harness.open_gate(&gate);
    harness.begun("big-one", 1).await;
    eventually_async("readiness to tell", || async {
        (client.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    let refused = client.start_job(&start_body("refused", SCRIPTED, &"x".repeat(5 << 20))).await;
    assert!(!refused.message(503).is_empty());
    let big_one = client.status("big-one").await;
    assert!(big_one["status"] != "done" && big_one["status"] != "failed", "{big_one}");
    disk.set_read_only(false).unwrap();
    for job in ["running", "big-one", "next"] {
        assert_eq!(client.finished(job).await["status"], "done", "{job}");
    }
    assert_eq!(client.result("big-one").await.body.len() as u64, big);
    eventually_async("readiness to return", || async {
        (client.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    let reply = client.start_job(&start_body("refused", SCRIPTED, "x")).await;
    assert_eq!(reply.status, 200, "a refused submit left something behind: {reply:?}");
    assert_eq!(client.finished("refused").await["status"], "done");
}

#[tokio::test]
async fn an_output_larger_than_the_storage_fails_with_the_reason() {
    let Some((harness, _disk)) = on_small_disk(24 << 20) else { return skip(NO_MOUNT) };
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("too-big", SCRIPTED, &Script::Big(32 << 20)).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let message = failed["error_details"]["message"].as_str().unwrap();
    assert!(message.contains("the storage's whole file system has"), "{message}");
    assert_eq!(client.run("fits", SCRIPTED, &Script::Big(4 << 20)).await["status"], "done");
}

#[tokio::test]
async fn readiness_tells_of_a_full_state_directory_whatever_the_storage() {
    let harness = Harness::new();
    let state = harness.path("disk/state");
    let harness = harness.with(json!({"state_dir": state}));
    let Ok(disk) = SmallDisk::mount(&harness.path("disk"), 24 << 20) else { return skip(NO_MOUNT) };
    let daemon = harness.start().await;
    let ballast = disk.fill();
    let reply = eventually_async("readiness to tell", || async {
        let reply = daemon.client().get("/readyz").await;
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert!(reply.text().contains("`state_dir` is full"), "{}", reply.text());
    std::fs::remove_file(ballast).unwrap();
    eventually_async("readiness to return", || async {
        (daemon.client().get("/readyz").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn jobs_wait_while_the_disk_of_their_directories_is_full() {
    let harness = Harness::new();
    let data = harness.path("disk/data");
    let harness = harness.with(json!({"data_root": data}));
    let Ok(disk) = SmallDisk::mount(&harness.path("disk"), 24 << 20) else { return skip(NO_MOUNT) };
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.run("before", SCRIPTED, &Script::Say("fine".into())).await["status"], "done");
    let ballast = disk.fill();
    // The disk is looked at when a job comes and the last look is not just over: a job that comes
    // too soon may still be taken, and fail.
    let probes = AtomicUsize::new(0);
    eventually_async("the sheep to tell", || async {
        let probe = format!("probe-{}", probes.fetch_add(1, Ordering::Relaxed));
        client.submit(&probe, SCRIPTED, &Script::Say("x".into())).await.expect_status(200);
        let problem = client.sheep(SHEEP).await["problem"].as_str().unwrap_or_default().to_owned();
        problem.contains("`data_root` is full").then_some(())
    })
    .await;
    for job in ["waits-1", "waits-2"] {
        client.submit(job, SCRIPTED, &Script::Say(job.into())).await.expect_status(200);
    }
    eventually_async("readiness to tell", || async {
        (client.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    for job in ["waits-1", "waits-2"] {
        assert_eq!(client.status(job).await["status"], "queued", "{job}");
    }
    std::fs::remove_file(ballast).unwrap();
    for job in ["waits-1", "waits-2"] {
        assert_eq!(client.finished(job).await["status"], "done", "{job}");
    }
    assert_eq!(client.sheep(SHEEP).await["problem"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_job_s_log_says_that_inputs_have_other_names_than_their_keys() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    // As the storage keeps `inputs//x`, and `inputs/a/b` beside the file `inputs/a`.
    harness.put("keyed", "inputs/a", "1");
    harness.put("keyed", ".shepherd-keys/=inputs%2F%2Fx", "22");
    harness.put("keyed", ".shepherd-keys/=inputs%2Fa%2Fb", "333");
    harness.put("plain", "inputs/a", "1");
    for job in ["keyed", "plain"] {
        assert_eq!(client.start_job(&json!({"job_id": job, "model": SCRIPTED.json()})).await.status, 200);
        assert_eq!(client.finished(job).await["status"], "done");
    }
    let listing = client.result("keyed").await.text();
    let mut lines: Vec<_> = listing.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, [".shepherd-keys/=%2Fx 2", ".shepherd-keys/=a%2Fb 3", "a 1"]);
    let log = client.get("/jobs/keyed/logs").await.text();
    assert!(log.contains("`.shepherd-keys`") && log.contains("`input_keys`"), "{log}");
    assert_eq!(client.get("/jobs/plain/logs").await.text(), "");
}
