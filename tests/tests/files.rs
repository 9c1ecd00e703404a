//! The daemon's own files: whose they are, and what happens when somebody takes them away.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::{Client, Harness, Script, eventually_async};

/// Waits until `/readyz` answers this, and says why.
async fn readiness(client: &Client, status: u16) -> String {
    eventually_async("another readiness", || async {
        let reply = client.get("/readyz").await;
        (reply.status == status).then(|| reply.text())
    })
    .await
}

#[tokio::test]
async fn a_second_daemon_on_one_data_root_is_refused() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("guarded", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("guarded", 1).await;
    let mut command = harness.command();
    // With a queue of its own over the same storage, which is refused otherwise.
    command.env("SHEPHERD__STATE_DIR", harness.path("other-state")).arg("--new-queue");
    let ended = harness.run(command).await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    let data = harness.path("data").display().to_string();
    assert!(ended.log.contains(&format!("another shepherd uses the data root {data}")), "{}", ended.log);
    // The first was not disturbed.
    harness.open_gate(&gate);
    assert_eq!(client.finished("guarded").await["status"], "done");
    daemon.kill().await;
    harness.start().await;
}

#[tokio::test]
async fn working_directories_that_vanish_are_made_again() {
    for vanished in ["data", "data/dolly"] {
        let harness = Harness::new();
        let daemon = harness.start().await;
        let client = daemon.client();
        assert_eq!(client.run("before", SCRIPTED, &Script::Say("x".into())).await["status"], "done");
        // Once while the sheep is idle, once while it works.
        std::fs::remove_dir_all(harness.path(vanished)).unwrap();
        assert_eq!(client.run("idle", SCRIPTED, &Script::Say("y".into())).await["status"], "done");
        assert_eq!(client.result("idle").await.text(), "y");
        let gate = harness.path("gate");
        client.submit("at-work", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
        harness.begun("at-work", 1).await;
        std::fs::remove_dir_all(harness.path(vanished)).unwrap();
        client.submit("next", SCRIPTED, &Script::Say("z".into())).await.expect_status(200);
        harness.open_gate(&gate);
        assert_eq!(client.finished("next").await["status"], "done");
        assert_eq!(client.result("next").await.text(), "z");
        client.finished("at-work").await;
        assert!(daemon.log().text().contains("the sheep's directory was removed or replaced"));
        // The lock is there again, too.
        let mut command = harness.command();
        command.env("SHEPHERD__STATE_DIR", harness.path("other-state")).arg("--new-queue");
        let ended = harness.run(command).await;
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("another shepherd uses the data root"), "{}", ended.log);
    }
}

#[tokio::test]
async fn a_file_that_is_taken_from_a_directory_that_stands_ready_delays_nothing() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for job in ["one", "two"] {
        client.run(job, SCRIPTED, &Script::Say("x".into())).await;
        // As a cleaner of old files does.
        let home = harness.path("data").join(SHEEP);
        let status = Command::new("find").arg(&home).args(["-name", "input", "-delete"]).status().unwrap();
        assert!(status.success());
    }
    assert_eq!(client.run("three", SCRIPTED, &Script::Say("y".into())).await["status"], "done");
    assert!(!daemon.log().text().contains("cannot make a job's working directory"));
}

#[tokio::test]
async fn a_storage_directory_that_vanishes_is_told() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let (storage, aside) = (harness.path("storage"), harness.path("aside"));
    std::fs::rename(&storage, &aside).unwrap();
    let why = readiness(&client, 503).await;
    assert!(why.contains(&storage.display().to_string()), "{why}");
    std::fs::rename(&aside, &storage).unwrap();
    readiness(&client, 200).await;
}

#[tokio::test]
async fn queue_files_that_vanish_are_told_and_take_no_jobs() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.run("before", SCRIPTED, &Script::Say("x".into())).await["status"], "done");
    let aside = harness.path("aside");
    std::fs::create_dir(&aside).unwrap();
    let names = ["queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm"];
    let state = harness.path("state");
    names.iter().for_each(|name| std::fs::rename(state.join(name), aside.join(name)).unwrap());
    let refused = client.submit("lost", SCRIPTED, &Script::Say("x".into())).await;
    let message = refused.0.message(503);
    // Clients are told no path of the server.
    assert!(message.contains("was removed"), "{message}");
    assert!(readiness(&client, 503).await.contains("queue.sqlite was removed"));
    // Nothing is lost when they come back.
    names.iter().for_each(|name| std::fs::rename(aside.join(name), state.join(name)).unwrap());
    readiness(&client, 200).await;
    assert_eq!(client.run("after", SCRIPTED, &Script::Say("x".into())).await["status"], "done");
    daemon.kill().await;

    // At a start without them, going on would lose the jobs.
    names.iter().for_each(|name| drop(std::fs::rename(state.join(name), aside.join(name))));
    let ended = harness.run(harness.command()).await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains("--new-queue"), "{}", ended.log);
    assert!(!state.join(names[0]).exists(), "a refusal makes nothing");
    // Nor is a storage full of jobs begun anew by chance.
    let mut command = harness.command();
    command.env("SHEPHERD__STATE_DIR", harness.path("other-state"));
    let ended = harness.run(command).await;
    assert_eq!(ended.code, Some(1), "{}", ended.log);
    assert!(ended.log.contains(&harness.path("storage").display().to_string()), "{}", ended.log);

    let mut command = harness.command();
    command.arg("--new-queue");
    let daemon = harness.start_command(command).await;
    assert_eq!(daemon.client().run("new", SCRIPTED, &Script::Say("x".into())).await["status"], "done");
}

/// What is in `dir` and open to others than its owner.
fn open_to_others(dir: &Path, bits: u32) -> Vec<String> {
    let out =
        Command::new("find").arg(dir).args(["-perm", &format!("/{bits:o}")]).output().expect("find runs");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn files_are_private_whatever_the_umask() {
    let harness = Harness::new().with(json!({"storage": null}));
    let (data, state) = (harness.path("data"), harness.path("state"));
    // As an earlier version has left it.
    std::fs::create_dir(&state).unwrap();
    for dir in [&data, &state] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let start = |umask: Option<&'static str>| {
        let harness = &harness;
        async move {
            let daemon = harness.command();
            let mut command = Command::new("sh");
            command.current_dir(harness.path("")).args(["-c", "umask 0; exec \"$0\" \"$@\""]);
            command.arg(daemon.get_program()).args(daemon.get_args());
            command.envs(umask.map(|umask| ("SHEPHERD__UMASK", umask)));
            harness.start_command(command).await
        }
    };
    let daemon = start(None).await;
    daemon.client().run("job", SCRIPTED, &Script::Say("secret".into())).await;
    eventually_async("the job's files", || async {
        harness.path("state/storage/job/outputs/output").exists().then_some(())
    })
    .await;
    for dir in [&data, &state] {
        assert_eq!(open_to_others(dir, 0o077), [""; 0], "{}", dir.display());
    }
    for log in ["runners.out", "runners.err"] {
        assert_eq!(open_to_others(&harness.path(log), 0o077), [""; 0]);
    }
    daemon.stop().await;
    // Unless it is wanted otherwise.
    let daemon = start(Some("027")).await;
    daemon.client().run("other", SCRIPTED, &Script::Say("shared".into())).await;
    let output = harness.path("state/storage/other/outputs/output");
    eventually_async("the job's files", || async { output.exists().then_some(()) }).await;
    assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o640);
}
