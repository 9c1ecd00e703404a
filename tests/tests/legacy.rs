//! Runners of the first shepherd: a ZeroMQ ROUTER, found out over tcp or asked for.

use serde_json::{Value, json};
use shepherd_tests::ids::{RAW, SCRIPTED, SHEEP};
use shepherd_tests::{Harness, Script, free_port, python, script};

/// A harness whose sheep has the legacy runner; none where Python lacks its packages.
fn harness(keys: &Value) -> Option<Harness> {
    let python = python()?;
    let harness = Harness::new();
    let journal = harness.journal().path().to_owned();
    let late = keys["bind_after"].as_f64().unwrap_or(0.0).to_string();
    let transport = keys["transport"].as_str().unwrap_or("tcp");
    let runner = script("legacy_runner.py");
    let sheep = json!({
        "transport": transport,
        "port": free_port(),
        "stop_grace": "500ms",
        "runner_command": [python, runner, "--journal", journal, "--bind-after", late],
    });
    Some(harness.with_sheep(SHEEP, sheep))
}

fn say(text: &str) -> Script {
    Script::Say(text.to_owned())
}

#[tokio::test]
async fn an_old_runner_works_and_its_errors_are_its_jobs() {
    for transport in ["tcp", "zmq"] {
        let Some(harness) = harness(&json!({"transport": transport, "bind_after": 0.3})) else { return };
        let daemon = harness.start().await;
        let client = daemon.client();
        assert_eq!(client.run("first", SCRIPTED, &say("hello")).await["status"], "done");
        assert_eq!(client.result("first").await.text(), "hello");
        let status = client.run("wrong", SCRIPTED, &Script::Fail("no".to_owned())).await;
        assert_eq!(status["status"], "failed");
        assert_eq!(status["error_details"]["message"], "no");
        assert_eq!(status["error_details"]["exception_type"], "ValueError");
        assert!(status["error_details"]["exception_traceback"].as_str().unwrap().contains("in work"));
        let status = client.run("odd", SCRIPTED, &Script::Fail("odd one".to_owned())).await;
        assert_eq!(status["error_details"]["message"], "odd one");
        assert_eq!(status["error_details"]["exception_traceback"], "long odd one");
        assert_eq!(client.run("other", RAW, &say("another model")).await["status"], "done");
    }
}

#[tokio::test]
async fn many_jobs_come_out_each_once() {
    let Some(harness) = harness(&json!({})) else { return };
    let daemon = harness.start().await;
    let client = daemon.client();
    let ids: Vec<String> = (0..300).map(|i| format!("job-{i:03}")).collect();
    for id in &ids {
        client.submit(id, SCRIPTED, &say(id)).await.expect_status(200);
    }
    for id in &ids {
        assert_eq!(client.finished(id).await["status"], "done");
        assert_eq!(client.result(id).await.text(), *id);
    }
    // Inputs that take long to come are overtaken, so on a busy machine the order may differ a little.
    let mut runs: Vec<String> = harness.journal().runs().into_iter().map(|run| run.job).collect();
    runs.sort();
    assert_eq!(runs, ids, "each once");
}

#[tokio::test]
async fn what_was_sent_ahead_of_a_death_reaches_no_later_runner_twice() {
    let Some(harness) = harness(&json!({})) else { return };
    let daemon = harness.start().await;
    let client = daemon.client();
    // A pace that makes the shepherd send ahead.
    for i in 0..200 {
        client.submit(&format!("warm-{i:03}"), SCRIPTED, &say("x")).await.expect_status(200);
    }
    let marker = harness.path("marker");
    client.submit("deadly", SCRIPTED, &Script::ExitOnce { marker }).await.expect_status(200);
    let after: Vec<String> = (0..50).map(|i| format!("after-{i:02}")).collect();
    for id in &after {
        client.submit(id, SCRIPTED, &say(id)).await.expect_status(200);
    }
    for id in &after {
        assert_eq!(client.finished(id).await["status"], "done", "{id}");
        assert_eq!(client.result(id).await.text(), *id);
        assert_eq!(harness.journal().runs_of(id).len(), 1, "{id}");
    }
    // Blamed at once, or tried again because others had been sent with it.
    let status = client.finished("deadly").await;
    match status["status"].as_str().unwrap() {
        "failed" => {
            let message = status["error_details"]["message"].as_str().unwrap();
            assert!(message.contains("Sheep container died without notice"), "{status}");
        }
        other => assert_eq!((other, client.result("deadly").await.text().as_str()), ("done", "survived")),
    }
}

#[tokio::test]
async fn an_old_runner_that_is_waited_for_at_a_socket_is_told_of_within_seconds() {
    // Long after the patience of this test.
    let Some(harness) = harness(&json!({"transport": "ipc"})) else { return };
    let daemon = harness.start().await;
    let status = daemon.client().run("waiting", SCRIPTED, &say("hello")).await;
    assert_eq!(status["status"], "failed");
    let message = status["error_details"]["message"].as_str().unwrap();
    assert!(message.contains("it listens at port") && message.contains("transport: tcp"), "{message}");
}

#[tokio::test]
async fn a_port_alone_is_enough_for_an_old_runner() {
    let Some(harness) = harness(&json!({})) else { return };
    let harness = harness.with(json!({"sheep": {SHEEP: {"transport": null}}}));
    let daemon = harness.start().await;
    assert_eq!(daemon.client().run("first", SCRIPTED, &say("hello")).await["status"], "done");
}
