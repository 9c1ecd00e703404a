//! The routes below `/jobs/ID`, row by row of the compatibility reference.

use http::{Method, header};
use serde_json::{Value, json};
use shepherd_tests::ids::{RAW, SCRIPTED};
use shepherd_tests::{Harness, Script, eventually};

const NO_FILE: &str = "Requested file does not exist";

/// `2026-11-22T21:30:59.336682`: naive UTC with microseconds.
fn is_time(value: &Value) -> bool {
    let pattern = "dddd-dd-ddTdd:dd:dd.dddddd";
    value.as_str().is_some_and(|text| {
        text.len() == pattern.len()
            && text
                .chars()
                .zip(pattern.chars())
                .all(|(c, p)| if p == 'd' { c.is_ascii_digit() } else { c == p })
    })
}

#[tokio::test]
async fn a_status_follows_the_job() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let (first, second) = (harness.path("first"), harness.path("second"));
    client.submit("job-1", SCRIPTED, &Script::Gate(first.clone())).await.expect_status(200);
    harness.begun("job-1", 1).await;
    // One that waits is made ready ahead, and the sheep has it then.
    client.submit("next-job", SCRIPTED, &Script::Nothing).await.expect_status(200);
    client.submit("job-2", SCRIPTED, &Script::Gate(second.clone())).await.expect_status(200);

    let processing = client.status("job-1").await;
    assert_eq!(processing["status"], "processing");
    assert_eq!(processing["error_details"], Value::Null);
    assert_eq!(processing["model"], SCRIPTED.json());
    assert!(
        is_time(&processing["enqueued_at"]) && is_time(&processing["processing_started_at"]),
        "{processing}"
    );
    assert_eq!(processing["finished_at"], Value::Null);

    let queued = client.status("job-2").await;
    assert!(queued["status"] == "queued" || queued["status"] == "accepted", "{queued}");
    assert!(is_time(&queued["enqueued_at"]), "{queued}");
    assert_eq!((&queued["processing_started_at"], &queued["finished_at"]), (&Value::Null, &Value::Null));

    harness.open_gate(&first);
    harness.open_gate(&second);
    let done = client.finished("job-2").await;
    assert_eq!(done["status"], "done");
    assert_eq!(done["error_details"], Value::Null);
    for time in ["enqueued_at", "processing_started_at", "finished_at"] {
        assert!(is_time(&done[time]), "{done}");
    }
    assert_eq!(client.status("job-2").await, done);
    let names: Vec<_> = done.as_object().unwrap().keys().cloned().collect();
    for name in ["status", "error_details", "model", "enqueued_at", "processing_started_at", "finished_at"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
}

#[tokio::test]
async fn a_failed_job_says_why() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let failed = client.run("sad-job", SCRIPTED, &Script::Fail("no grass: žádná tráva".into())).await;
    assert_eq!(failed["status"], "failed");
    let details = &failed["error_details"];
    assert_eq!(details["message"], "no grass: žádná tráva");
    assert!(details["exception_type"].is_null() && details["exception_traceback"].is_null(), "{details}");
    assert!(is_time(&failed["finished_at"]));
    client.result("sad-job").await.expect_message(500, "no grass: žádná tráva");
    client.get("/jobs/sad-job/result/other").await.expect_message(500, "no grass: žádná tráva");
    assert_eq!(client.get("/jobs/sad-job/ready").await.json(), json!({"ready": true}));
    assert_eq!(client.get("/jobs/sad-job/input").await.status, 200);
}

#[tokio::test]
async fn ready_and_result_before_and_after_the_end() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("job-1", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    for path in ["/jobs/job-1/result", "/jobs/job-1/result/any"] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.json()), (202, json!({"ready": false})));
    }
    let reply = client.get("/jobs/job-1/ready").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"ready": false})));
    harness.open_gate(&gate);
    client.finished("job-1").await;
    assert_eq!(client.get("/jobs/job-1/ready").await.json(), json!({"ready": true}));
    assert_eq!(client.result("job-1").await.text(), "through");
}

#[tokio::test]
async fn waiting_can_have_an_end() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("job-1", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("job-1", 1).await;
    let reply = client.get("/jobs/job-1/wait_ready?timeout=0.05").await;
    assert_eq!((reply.status, reply.json()["status"].clone()), (202, json!("processing")));
    for nonsense in ["-1", "soon", ""] {
        let reply = client.get(&format!("/jobs/job-1/wait_ready?timeout={nonsense}")).await;
        assert_eq!(reply.status, 400, "{nonsense}: {reply:?}");
    }
    harness.open_gate(&gate);
    let reply = client.get("/jobs/job-1/wait_ready?timeout=60").await;
    assert_eq!((reply.status, reply.json()["status"].clone()), (200, json!("done")));
}

#[tokio::test]
async fn everyone_who_waits_is_answered() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("awaited", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.finished("awaited").await })
        })
        .collect();
    harness.begun("awaited", 1).await;
    harness.open_gate(&gate);
    let finished = client.finished("awaited").await;
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), finished);
    }
}

#[tokio::test]
async fn results_are_served_with_their_types() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let files = [
        ("output", "main"),
        ("report.json", "{}"),
        ("page.html", "<p>"),
        ("picture.png", "png"),
        ("notes.txt", "text"),
        ("a/b/deep.json", "[]"),
        ("a b+č", "odd"),
    ];
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    assert_eq!(client.run("typed", SCRIPTED, &Script::Files(files)).await["status"], "done");
    let cases = [
        ("result", "main", "application/octet-stream"),
        ("result/output", "main", "application/octet-stream"),
        ("result/report.json", "{}", "application/json"),
        ("result/page.html", "<p>", "text/html"),
        ("result/picture.png", "png", "image/png"),
        ("result/notes.txt", "text", "text/plain"),
        ("result/a/b/deep.json", "[]", "application/json"),
        ("result/a%2Fb%2Fdeep.json", "[]", "application/json"),
        ("result/a%20b%2B%C4%8D", "odd", "application/octet-stream"),
    ];
    for (path, text, content_type) in cases {
        let path = format!("/jobs/typed/{path}");
        let reply = client.get(&path).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, text), "{path}");
        assert!(reply.header(header::CONTENT_TYPE).starts_with(content_type), "{path}: {reply:?}");
        let head = client.ask(Method::HEAD, &path).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header(header::CONTENT_LENGTH), text.len().to_string(), "{path}");
    }
    for path in
        ["result/missing", "result/a", "result/a/b", "result/../inputs/input", "result/%2e%2e/inputs/input"]
    {
        let reply = client.get(&format!("/jobs/typed/{path}")).await;
        reply.expect_message(404, NO_FILE);
    }
}

#[tokio::test]
async fn a_part_of_a_result_can_be_asked_for() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    client.run("ranged", SCRIPTED, &Script::Say("0123456789".into())).await;
    let path = "/jobs/ranged/result";
    for (range, part, content_range) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let reply = client.get_with(path, header::RANGE, range).await;
        assert_eq!((reply.status, reply.text().as_str()), (206, part), "{range}");
        assert_eq!(reply.header(header::CONTENT_RANGE), content_range);
    }
    let reply = client.get_with(path, header::RANGE, "bytes=10-").await;
    assert_eq!(reply.status, 416, "{reply:?}");
    assert_eq!(reply.header(header::CONTENT_RANGE), "bytes */10");
    assert_eq!(client.get(path).await.header(header::ACCEPT_RANGES), "bytes");
}

#[tokio::test]
async fn inputs_are_served() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    harness.put("placed", "inputs/input", "main");
    harness.put("placed", "inputs/a/b.json", "{}");
    let body = json!({"job_id": "placed", "model": SCRIPTED.json()});
    assert_eq!(client.start_job(&body).await.status, 200);
    client.finished("placed").await;
    assert_eq!(client.get("/jobs/placed/input").await.text(), "main");
    for path in ["/jobs/placed/input/a/b.json", "/jobs/placed/input/a%2Fb.json"] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
        assert!(reply.header(header::CONTENT_TYPE).starts_with("application/json"));
    }
    assert_eq!(client.ask(Method::HEAD, "/jobs/placed/input").await.header(header::CONTENT_LENGTH), "4");
    client.get("/jobs/placed/input/none").await.expect_message(404, NO_FILE);
}

#[tokio::test]
async fn a_job_without_outputs_has_no_result() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.run("empty", SCRIPTED, &Script::Nothing).await["status"], "done");
    client.result("empty").await.expect_message(404, NO_FILE);
}

#[tokio::test]
async fn an_unknown_job_is_a_bad_request() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for route in ["status", "ready", "wait_ready", "result", "result/file", "input", "input/file"] {
        let reply = client.get(&format!("/jobs/nobody/{route}")).await;
        reply.expect_message(400, "Data for job `nobody` does not exist");
    }
    for id in ["..", "%2e%2e", "UPPER", "a%2Fb", "%00"] {
        let reply = client.get(&format!("/jobs/{id}/status")).await;
        assert!(matches!(reply.status, 400 | 404), "{id}: {reply:?}");
        assert!(!reply.json()["message"].as_str().unwrap_or_default().is_empty());
    }
}

#[tokio::test]
async fn the_status_comes_to_lie_in_storage() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let good = client.run("good", SCRIPTED, &Script::Say("x".into())).await;
    let bad = client.run("bad-job", SCRIPTED, &Script::Fail("because".into())).await;
    for (job, status) in [("good", good), ("bad-job", bad)] {
        let path = harness.object(job, "job_status.json");
        let stored = eventually("a finished status in storage", || {
            let stored: Value = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
            (!stored["finished_at"].is_null()).then_some(stored)
        })
        .await;
        assert_eq!(stored, status);
    }
}

#[tokio::test]
async fn outputs_are_complete_when_the_job_is_done() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for round in 0..20 {
        let job = format!("round-{round}");
        let files: Vec<_> = (0..20).map(|i| (format!("part-{i}"), format!("{round}-{i}"))).collect();
        client
            .submit(&job, if round % 2 == 0 { SCRIPTED } else { RAW }, &Script::Files(files))
            .await
            .expect_status(200);
        // Whoever sees it done sees all of it.
        assert_eq!(client.finished(&job).await["status"], "done");
        for i in (0..20).rev() {
            assert_eq!(
                client.get(&format!("/jobs/{job}/result/part-{i}")).await.text(),
                format!("{round}-{i}")
            );
        }
    }
}

/// A migration, or a lost state directory: nobody but the storage knows the job.
#[tokio::test]
async fn a_job_of_the_first_shepherd_answers_on_its_routes() {
    let harness = Harness::new();
    let document = |status: &str, error: Value| {
        json!({
            "status": status, "error_details": error, "model": {"name": "cxflow-test", "version": "latest"},
            "enqueued_at": "2018-11-22T21:30:59.336682", "processing_started_at": "2018-11-22T21:31:00",
            "finished_at": "2018-11-22T21:31:01.000001",
        })
    };
    let done = document("done", Value::Null);
    let failed = document(
        "failed",
        json!({"message": "no luck", "exception_type": null, "exception_traceback": null}),
    );
    let lost = document("processing", Value::Null);
    for (job, document) in [("old-done", &done), ("old-failed", &failed), ("old-lost", &lost)] {
        harness.put(job, "inputs/input", "an input");
        harness.put(job, "outputs/output", "an output");
        harness.put(job, "job_status.json", document.to_string());
    }
    harness.put("hostile", "inputs/input", "an input");
    harness.put("hostile", "job_status.json", "[".repeat(1 << 20));
    let mut command = harness.command();
    // The storage was another shepherd's.
    command.arg("--new-queue");
    let daemon = harness.start_command(command).await;
    let client = daemon.client();
    for (job, document, is_ready) in
        [("old-done", &done, true), ("old-failed", &failed, true), ("old-lost", &lost, false)]
    {
        assert_eq!(client.status(job).await, *document);
        assert_eq!(client.get(&format!("/jobs/{job}/ready")).await.json(), json!({"ready": is_ready}));
        let reply = client.get(&format!("/jobs/{job}/wait_ready?timeout=0.1")).await;
        assert_eq!(reply.status, if is_ready { 200 } else { 202 });
        assert_eq!(reply.json(), *document);
        assert_eq!(client.get(&format!("/jobs/{job}/input")).await.text(), "an input");
    }
    assert_eq!(client.result("old-done").await.text(), "an output");
    client.result("old-failed").await.expect_message(500, "no luck");
    assert_eq!(client.result("old-lost").await.status, 202);
    let no_data = "Data for job `hostile` does not exist";
    client.get("/jobs/hostile/status").await.expect_message(400, no_data);
    // It runs again, and from then on the queue speaks for it.
    let body = json!({"job_id": "old-lost", "model": SCRIPTED.json()});
    assert_eq!(client.start_job(&body).await.status, 200);
    assert_eq!(client.finished("old-lost").await["model"], SCRIPTED.json());
}
