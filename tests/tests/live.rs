//! What those hear who watch a job: how far it is, what it prints, how it ends.

use http::{Method, header};
use rustix::process::Signal;
use serde_json::{Value, json};
use shepherd_tests::ids::{RAW, SCRIPTED, SHEEP};
use shepherd_tests::{Client, Event, Harness, Script, Step, Stream, eventually, eventually_async};

fn print(text: &str) -> Step {
    Step::Print(text.to_owned())
}

fn progress(fraction: f64, message: &str) -> Step {
    Step::Progress(fraction, message.to_owned())
}

async fn log(client: &Client, job: &str) -> String {
    let reply = client.get(&format!("/jobs/{job}/logs")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header(header::CONTENT_TYPE), "text/plain; charset=utf-8");
    reply.text()
}

async fn logged(client: &Client, job: &str, whole: &str) {
    eventually_async(&format!("`{whole}` in the log"), || async {
        (log(client, job).await == whole).then_some(())
    })
    .await;
}

async fn follow(client: &Client, job: &str) -> Stream {
    let stream = client.open(&format!("/jobs/{job}/logs?follow=true"), &[]).await;
    assert_eq!(stream.status, 200);
    stream
}

async fn events(client: &Client, job: &str, after: Option<&Event>) -> Stream {
    let after = after.map(|event| ("Last-Event-ID", event.id.as_str()));
    client.open(&format!("/jobs/{job}/events"), after.as_slice()).await
}

/// What an event says, in a few words.
fn shown(event: &Event) -> String {
    match event.name.as_str() {
        "status" => event.data["status"].as_str().unwrap_or_default().to_owned(),
        "progress" => {
            format!("{} {}", event.data["fraction"], event.data["message"].as_str().unwrap_or_default())
        }
        other => panic!("an event `{other}`"),
    }
}

#[tokio::test]
async fn a_log_is_followed_while_its_job_runs_and_kept_afterwards() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    let steps = vec![print("one\n"), Step::Gate(gate.clone()), print("two ž\n")];
    client.submit("job-1", RAW, &Script::Steps(steps)).await.expect_status(200);
    let mut followed = follow(&client, "job-1").await;
    assert_eq!(followed.until("one\n").await, "one\n");
    assert_eq!(log(&client, "job-1").await, "one\n");
    harness.open_gate(&gate);
    assert_eq!(followed.rest().await, "two ž\n");

    let whole = "one\ntwo ž\n";
    assert_eq!(client.finished("job-1").await["status"], "done");
    assert_eq!(log(&client, "job-1").await, whole);
    assert_eq!(follow(&client, "job-1").await.rest().await, whole);
    let kept = eventually("the log in storage", || {
        std::fs::read_to_string(harness.object("job-1", "logs/log.txt")).ok()
    });
    assert_eq!(kept.await, whole);
    daemon.kill().await;
    let daemon = harness.start().await;
    assert_eq!(log(&daemon.client(), "job-1").await, whole);
    let head = daemon.client().ask(Method::HEAD, "/jobs/job-1/logs").await;
    assert_eq!(head.header(header::CONTENT_LENGTH), whole.len().to_string());
}

#[tokio::test]
async fn a_job_that_does_not_end_well_keeps_what_it_printed() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let steps = vec![print("sad\n"), Step::Fail("no grass".into())];
    assert_eq!(client.run("failed", RAW, &Script::Steps(steps)).await["status"], "failed");
    assert_eq!(log(&client, "failed").await, "sad\n");

    let steps = vec![print("so far\n"), Step::Gate(harness.path("never"))];
    client.submit("cancelled", RAW, &Script::Steps(steps)).await.expect_status(200);
    let mut followed = follow(&client, "cancelled").await;
    followed.until("so far\n").await;
    assert_eq!(client.ask(Method::POST, "/jobs/cancelled/cancel").await.status, 200);
    assert_eq!(followed.rest().await, "");
    assert_eq!(log(&client, "cancelled").await, "so far\n");

    let gate = harness.path("gate");
    let steps = vec![print("last words\n"), Step::Gate(gate.clone()), Step::Exit(3)];
    client.submit("died", RAW, &Script::Steps(steps)).await.expect_status(200);
    logged(&client, "died", "last words\n").await;
    harness.open_gate(&gate);
    assert_eq!(client.finished("died").await["status"], "failed");
    assert_eq!(log(&client, "died").await, "last words\n");

    client.run("silent", RAW, &Script::Say("x".into())).await;
    assert_eq!(log(&client, "silent").await, "");
    assert_eq!(follow(&client, "silent").await.rest().await, "");
    assert!(!harness.object("silent", "logs").exists());
    for route in ["logs", "logs?follow=1", "events"] {
        let reply = client.get(&format!("/jobs/unknown/{route}")).await;
        reply.expect_message(404, "Job `unknown` does not exist");
    }
}

#[tokio::test]
async fn what_a_process_prints_is_given_to_the_job_that_it_works_on() {
    let harness = Harness::new().with_sheep(SHEEP, json!({"stdout_file": null, "stderr_file": null}));
    let daemon = harness.start().await;
    let client = daemon.client();
    for job in ["job-1", "job-2"] {
        let gate = harness.path(job);
        let text = format!("this is {job}\n");
        let steps = vec![print(&text), Step::Gate(gate.clone())];
        client.submit(job, SCRIPTED, &Script::Steps(steps)).await.expect_status(200);
        let mut followed = follow(&client, job).await;
        followed.until(&text).await;
        harness.open_gate(&gate);
        followed.rest().await;
        let log = log(&client, job).await;
        assert!(log.ends_with(&text), "{log}");
    }
    let log = log(&client, "job-2").await;
    assert!(!log.contains("job-1"), "{log}");
}

#[tokio::test]
async fn of_a_long_log_the_end_is_kept() {
    let harness = Harness::new().with(json!({"limits": {"job_log": "1000"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let steps = (0..200).map(|line| print(&format!("line {line}\n"))).collect();
    assert_eq!(client.run("long", RAW, &Script::Steps(steps)).await["status"], "done");
    let log = log(&client, "long").await;
    assert!(log.len() <= 1000 && log.starts_with('[') && log.ends_with("line 198\nline 199\n"), "{log}");
}

#[tokio::test]
async fn no_log_is_kept_where_none_is_wanted() {
    let harness = Harness::new().with(json!({"limits": {"job_log": 0}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    client.run("job-1", RAW, &Script::Steps(vec![print("psst\n")])).await;
    assert_eq!(log(&client, "job-1").await, "");
    assert!(!harness.object("job-1", "logs").exists());
}

#[tokio::test]
async fn events_tell_a_jobs_life() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let (first, second) = (harness.path("first"), harness.path("second"));
    client.submit("job-1", SCRIPTED, &Script::Gate(first.clone())).await.expect_status(200);
    harness.begun("job-1", 1).await;
    // One that waits is made ready ahead, and the sheep has it then.
    client.submit("next-job", SCRIPTED, &Script::Nothing).await.expect_status(200);
    let steps = vec![progress(0.5, "half"), Step::Gate(second.clone())];
    client.submit("job-2", SCRIPTED, &Script::Steps(steps)).await.expect_status(200);
    let mut watched = events(&client, "job-2", None).await;
    assert_eq!(watched.headers[header::CONTENT_TYPE], "text/event-stream");
    let mut seen = vec![watched.event().await.unwrap()];
    harness.open_gate(&first);
    while seen.last().unwrap().name != "progress" {
        seen.push(watched.event().await.unwrap());
    }
    let status = client.status("job-2").await;
    assert_eq!(status["progress"], json!({"fraction": 0.5, "message": "half"}));
    let waited = client.get("/jobs/job-2/wait_ready?timeout=0").await;
    assert_eq!((waited.status, waited.json()), (202, status));
    harness.open_gate(&second);
    seen.extend(watched.events().await);
    assert_eq!(seen.iter().map(shown).collect::<Vec<_>>(), ["queued", "processing", "0.5 half", "done"]);
    let last = seen.last().unwrap();
    assert_eq!(last.data, client.status("job-2").await);
    assert_eq!(last.data.get("progress"), None);

    // The document that is kept is the one of the first shepherd.
    let kept = || std::fs::read(harness.object("job-2", "job_status.json")).ok();
    eventually("the status in storage", || {
        (serde_json::from_slice::<Value>(&kept()?).ok()? == last.data).then_some(())
    })
    .await;
    let again = events(&client, "job-2", Some(last)).await;
    assert_eq!(again.status, 204);
}

#[tokio::test]
async fn events_are_taken_up_again_where_they_were_lost() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let (first, second) = (harness.path("first"), harness.path("second"));
    let steps =
        vec![progress(0.25, "a"), Step::Gate(first.clone()), progress(0.5, "b"), Step::Gate(second.clone())];
    client.submit("job-1", RAW, &Script::Steps(steps)).await.expect_status(200);
    let mut watched = events(&client, "job-1", None).await;
    let lost = loop {
        let event = watched.event().await.unwrap();
        if event.name == "progress" {
            break event;
        }
    };
    drop(watched);
    harness.open_gate(&first);
    eventually_async("progress", || async {
        (client.status("job-1").await["progress"]["message"] == "b").then_some(())
    })
    .await;
    let mut again = events(&client, "job-1", Some(&lost)).await;
    let followed = again.event().await.unwrap();
    assert_eq!(shown(&followed), "0.5 b");

    // Another life of the daemon knows nothing of it: it begins with the present state.
    daemon.kill().await;
    let daemon = harness.start().await;
    let client = daemon.client();
    let mut watched = events(&client, "job-1", Some(&followed)).await;
    let present = watched.event().await.unwrap();
    assert_eq!(present.name, "status");
    harness.open_gate(&second);
    let last = watched.events().await.pop().unwrap();
    assert_eq!(shown(&last), "done");
    assert_eq!(harness.journal().runs_of("job-1").len(), 2);

    // What ended stays so.
    daemon.kill().await;
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(events(&client, "job-1", Some(&last)).await.status, 204);
    assert_eq!(events(&client, "job-1", Some(&present)).await.events().await, [last]);
}

#[tokio::test]
async fn who_leaves_makes_room_for_others() {
    let harness = Harness::new().with(json!({"limits": {"max_connections": 2}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    let steps = vec![print("one\n"), progress(0.5, "half"), Step::Gate(gate.clone())];
    client.submit("job-1", RAW, &Script::Steps(steps)).await.expect_status(200);
    for _ in 0..5 {
        let mut followed = follow(&client, "job-1").await;
        let mut watched = events(&client, "job-1", None).await;
        followed.until("one\n").await;
        watched.event().await.unwrap();
    }
    harness.open_gate(&gate);
    assert_eq!(client.finished("job-1").await["status"], "done");
}

#[tokio::test]
async fn a_daemon_that_drains_sends_watchers_away_and_lets_the_job_end() {
    let harness = Harness::new().with(json!({"shutdown": {"grace": "1h"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    let steps = vec![print("one\n"), Step::Gate(gate.clone()), print("two\n")];
    client.submit("job-1", RAW, &Script::Steps(steps)).await.expect_status(200);
    let mut followed = follow(&client, "job-1").await;
    followed.until("one\n").await;
    let mut watched = events(&client, "job-1", None).await;
    let seen = watched.event().await.unwrap();
    daemon.signal(Signal::TERM);
    assert_eq!(followed.rest().await, "");
    assert_eq!(watched.events().await, []);
    assert!(daemon.is_running());
    harness.open_gate(&gate);
    let ended = daemon.ended().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);

    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(log(&client, "job-1").await, "one\ntwo\n");
    let rest = events(&client, "job-1", Some(&seen)).await.events().await;
    assert_eq!(rest.iter().map(shown).collect::<Vec<_>>(), ["done"]);
}
