//! `POST /start-job`, row by row of the compatibility reference.

use serde_json::{Value, json};
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::{Client, Daemon, Harness, Script, eventually, start_body};

const NOT_AN_OBJECT: &str = "The request body must be a JSON object";

fn no_data(job: &str) -> String {
    format!("Data for job `{job}` does not exist")
}

/// A refused job leaves nothing: no data, no record.
async fn assert_nothing_left(harness: &Harness, client: &Client, job: &str) {
    assert!(!harness.path("storage").join(job).exists(), "data of `{job}` was left behind");
    client.get(&format!("/jobs/{job}/status")).await.expect_message(400, &no_data(job));
}

#[tokio::test]
async fn a_payload_becomes_the_default_input() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let reply = client.start_job(&start_body("with-payload", SCRIPTED, "plain text")).await;
    assert_eq!((reply.status, reply.json()), (200, json!({"success": true})));
    assert_eq!(client.finished("with-payload").await["status"], "done");
    assert_eq!(client.get("/jobs/with-payload/input").await.text(), "plain text");
    assert_eq!(client.result("with-payload").await.text(), "plain text");
    // What the daemon answers from memory comes to lie in storage as plain files, too.
    for key in ["inputs/input", "outputs/output"] {
        let path = harness.object("with-payload", key);
        let text = eventually(key, || std::fs::read_to_string(&path).ok()).await;
        assert_eq!(text, "plain text");
    }
}

#[tokio::test]
async fn a_payload_may_hold_any_text() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let text = "příliš žluťoučký kůň \u{1f411} \" \\ \n \u{1} konec";
    client.start_job(&start_body("non-ascii", SCRIPTED, text)).await;
    client.finished("non-ascii").await;
    assert_eq!(client.get("/jobs/non-ascii/input").await.body, text.as_bytes());
    assert_eq!(client.result("non-ascii").await.body, text.as_bytes());
}

#[tokio::test]
async fn the_same_id_with_a_payload_is_a_conflict() {
    const SUBMITTED: &str = "A job with this ID was already submitted";
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("twice", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    let again = start_body("twice", SCRIPTED, "other");
    client.start_job(&again).await.expect_message(409, SUBMITTED);
    harness.open_gate(&gate);
    client.finished("twice").await;
    client.start_job(&again).await.expect_message(409, SUBMITTED);
    assert_eq!(client.result("twice").await.text(), "through");

    harness.put("placed", "inputs/input", "by hand");
    client.start_job(&start_body("placed", SCRIPTED, "other")).await.expect_message(409, SUBMITTED);
    assert_eq!(std::fs::read_to_string(harness.object("placed", "inputs/input")).unwrap(), "by hand");
}

#[tokio::test]
async fn the_same_id_without_a_payload_runs_again_once_it_is_finished() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    harness.put("again", "inputs/input", Script::Gate(gate.clone()).text());
    let body = json!({"job_id": "again", "model": SCRIPTED.json()});
    assert_eq!(client.start_job(&body).await.status, 200);
    harness.begun("again", 1).await;
    // It runs: accepted, and not run twice.
    assert_eq!(client.start_job(&body).await.json(), json!({"success": true}));
    harness.open_gate(&gate);
    client.finished("again").await;
    assert_eq!(harness.journal().runs_of("again").len(), 1);

    harness.put("again", "inputs/input", "new input");
    assert_eq!(client.start_job(&body).await.json(), json!({"success": true}));
    assert_eq!(client.finished("again").await["status"], "done");
    let runs = harness.journal().runs_of("again");
    assert_eq!(runs.len(), 2);
    assert_ne!(runs[0].attempt, runs[1].attempt);
    assert_eq!(client.result("again").await.text(), "new input");
}

#[tokio::test]
async fn a_queued_job_is_not_queued_twice() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("blocker", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("blocker", 1).await;
    harness.put("waiting", "inputs/input", "x");
    let body = json!({"job_id": "waiting", "model": SCRIPTED.json()});
    for _ in 0..3 {
        assert_eq!(client.start_job(&body).await.json(), json!({"success": true}));
    }
    harness.open_gate(&gate);
    client.finished("waiting").await;
    client.run("last", SCRIPTED, &Script::Say(String::new())).await;
    assert_eq!(harness.journal().runs_of("waiting").len(), 1);
}

#[tokio::test]
async fn no_payload_and_no_data_is_refused() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for payload in [None, Some(Value::Null)] {
        let mut body = json!({"job_id": "no-data", "model": SCRIPTED.json()});
        if let Some(payload) = payload {
            body["payload"] = payload;
        }
        client.start_job(&body).await.expect_message(400, &no_data("no-data"));
        assert_nothing_left(&harness, &client, "no-data").await;
    }
}

#[tokio::test]
async fn an_empty_payload_is_an_input_where_there_is_none_and_none_where_there_is() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.start_job(&start_body("empty", SCRIPTED, "")).await.status, 200);
    assert_eq!(client.finished("empty").await["status"], "done");
    let input = client.get("/jobs/empty/input").await;
    assert_eq!((input.status, input.body.len()), (200, 0));
    harness.put("stored", "inputs/input", Script::Say("from storage".into()).text());
    assert_eq!(client.start_job(&start_body("stored", SCRIPTED, "")).await.status, 200);
    assert_eq!(client.finished("stored").await["status"], "done");
    assert_eq!(client.result("stored").await.text(), "from storage");
}

#[tokio::test]
async fn an_unknown_sheep_is_refused_before_anything_is_stored() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for sheep in ["", "nobody", "../dolly"] {
        let mut body = start_body("lost-lamb", SCRIPTED, "payload");
        body["sheep_id"] = json!(sheep);
        client.start_job(&body).await.expect_message(400, &format!("Unknown sheep id `{sheep}`"));
        assert_nothing_left(&harness, &client, "lost-lamb").await;
    }
}

#[tokio::test]
async fn a_null_sheep_is_any_sheep() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let mut body = start_body("any-sheep", SCRIPTED, "payload");
    body["sheep_id"] = Value::Null;
    assert_eq!(client.start_job(&body).await.status, 200);
    client.finished("any-sheep").await;
    assert_eq!(harness.journal().runs_of("any-sheep")[0].sheep, SHEEP);
}

#[tokio::test]
async fn a_body_that_is_no_object_is_refused() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for body in
        ["", "{", "not json", "\"text\"", "[]", "[{}]", "1", "null", "true", "{\"job_id\": \"abc\"", "{} {}"]
    {
        let reply = client.start_job_raw(body, Some("application/json")).await;
        reply.expect_message(400, NOT_AN_OBJECT);
    }
    let reply = client.start_job_raw(&b"{\"job_id\": \"\xff\xfe\"}"[..], Some("application/json")).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test]
async fn another_content_type_is_refused_with_the_reason() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let body = start_body("typed", SCRIPTED, "payload").to_string();
    for content_type in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("nonsense")]
    {
        let message = client.start_job_raw(body.clone(), content_type).await.message(400);
        assert!(message.contains("application/json"), "{message}");
    }
    assert_nothing_left(&harness, &client, "typed").await;
    let reply = client.start_job_raw(body, Some("application/json; charset=utf-8")).await;
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[tokio::test]
async fn an_invalid_field_is_named() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let model = SCRIPTED.json();
    let cases = [
        (json!({}), "job_id"),
        (json!({"job_id": "abc", "payload": "x"}), "model"),
        (json!({"model": model, "payload": "x"}), "job_id"),
        (json!({"job_id": null, "model": model}), "job_id"),
        (json!({"job_id": true, "model": model}), "job_id"),
        (json!({"job_id": ["abc"], "model": model}), "job_id"),
        (json!({"job_id": {"id": "abc"}, "model": model}), "job_id"),
        (json!({"job_id": "abc", "model": null}), "model"),
        (json!({"job_id": "abc", "model": "scripted"}), "model"),
        (json!({"job_id": "abc", "model": ["scripted", "latest"]}), "model"),
        (json!({"job_id": "abc", "model": {"version": "latest"}}), "name"),
        (json!({"job_id": "abc", "model": {"name": "scripted"}}), "version"),
        (json!({"job_id": "abc", "model": {"name": null, "version": "latest"}}), "name"),
        (json!({"job_id": "abc", "model": {"name": "a", "version": true}}), "version"),
        (json!({"job_id": "abc", "model": {"name": "a", "version": "b", "nonsense": 1}}), "nonsense"),
        (json!({"job_id": "abc", "model": {"name": "../../etc", "version": "b"}}), "name"),
        (json!({"job_id": "abc", "model": {"name": "a", "version": "../.."}}), "version"),
        (json!({"job_id": "abc", "model": model, "payload": true}), "payload"),
        (json!({"job_id": "abc", "model": model, "payload": ["x"]}), "payload"),
        (json!({"job_id": "abc", "model": model, "payload": {"x": 1}}), "payload"),
        (json!({"job_id": "abc", "model": model, "payload": "x", "sheep_id": true}), "sheep_id"),
        (json!({"job_id": "abc", "model": model, "payload": "x", "sheep_id": ["dolly"]}), "sheep_id"),
        (json!({"job_id": "abc", "model": model, "payload": "x", "nonsense": 1}), "nonsense"),
    ];
    for (body, field) in cases {
        let message = client.start_job(&body).await.message(400);
        assert!(message.starts_with("Invalid input: "), "{body}: {message}");
        assert!(message.contains(field), "{body}: {message}");
    }
    assert_nothing_left(&harness, &client, "abc").await;
}

#[tokio::test]
async fn numbers_are_taken_as_text() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let body = json!({"job_id": 20261122, "model": SCRIPTED.json(), "payload": 42});
    assert_eq!(client.start_job(&body).await.status, 200);
    assert_eq!(client.finished("20261122").await["status"], "done");
    assert_eq!(client.result("20261122").await.text(), "42");
}

/// Sends submits with these ids, and sees that each is refused and leaves nothing.
async fn are_refused(harness: &Harness, daemon: &Daemon, ids: &[&str]) {
    let client = daemon.client();
    for id in ids {
        for payload in [json!("payload"), Value::Null] {
            let body = json!({"job_id": id, "model": SCRIPTED.json(), "payload": payload});
            let message = client.start_job(&body).await.message(400);
            assert!(message.contains("job_id") && message.contains("must"), "`{id}`: {message}");
        }
    }
    // Nothing came to be, inside or outside of the storage.
    let entries = std::fs::read_dir(harness.path("storage")).expect("the storage can be read");
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with('.')), "{names:?}");
    assert!(!harness.path("escaped").exists() && !harness.path("../escaped").exists());
}

/// No names of directories in a storage of any kind.
const NO_NAMES: [&str; 13] = [
    "",
    "a/b",
    "/etc",
    "..",
    "../..",
    "../../escaped",
    ".abc",
    "with space",
    "nul\0byte",
    "žluť",
    "%2e%2e",
    "a\\b",
    "line\nbreak",
];

#[tokio::test]
async fn a_job_id_that_is_no_bucket_name_is_refused_with_the_rule_where_jobs_are_buckets() {
    let served =
        json!({"storage": {"serve_s3": {"listen": "127.0.0.1:0", "access_key": "a", "secret_key": "b"}}});
    let harness = Harness::new().with(served);
    let daemon = harness.start().await;
    let long = "a".repeat(64);
    let mut ids = vec!["ab", &long, "Upper", "under_score", "a..b", "-abc", "abc-", "192.168.0.1"];
    ids.extend(NO_NAMES);
    are_refused(&harness, &daemon, &ids).await;
}

#[tokio::test]
async fn a_job_in_a_directory_that_no_s3_client_sees_need_not_be_named_as_a_bucket() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    are_refused(&harness, &daemon, &NO_NAMES).await;
    let client = daemon.client();
    let long = "a".repeat(128);
    for id in ["request_id", "Upper", "a", "192.168.0.1", "a..b", "-abc-", &long] {
        assert_eq!(client.start_job(&start_body(id, SCRIPTED, "x")).await.status, 200, "{id}");
        assert_eq!(client.finished(id).await["status"], "done", "{id}");
        assert_eq!(client.result(id).await.text(), "x", "{id}");
    }
    let message = client.start_job(&start_body(&"a".repeat(129), SCRIPTED, "x")).await.message(400);
    assert!(message.contains("128"), "{message}");
}

#[tokio::test]
async fn a_job_whose_directory_is_a_link_or_a_file_is_refused_or_fails() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let outside = harness.path("outside");
    std::fs::create_dir_all(outside.join("inputs")).unwrap();
    std::fs::write(outside.join("inputs/input"), "x").unwrap();
    std::os::unix::fs::symlink(&outside, harness.path("storage/linked")).unwrap();
    std::fs::write(harness.path("storage/a-file"), "").unwrap();
    for id in ["linked", "a-file"] {
        for payload in [json!("payload"), json!("x".repeat(200_000)), Value::Null] {
            let body = json!({"job_id": id, "model": SCRIPTED.json(), "payload": payload});
            let message = client.start_job(&body).await.message(400);
            assert!(message.contains("in the way"), "{message}");
        }
    }
    assert!(std::fs::read_dir(&outside).unwrap().count() == 1, "nothing was written there");
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused() {
    let harness = Harness::new().with(json!({"limits": {"max_body_bytes": 2000}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let message = client.start_job(&start_body("too-big", SCRIPTED, &"x".repeat(4000))).await.message(413);
    assert!(!message.is_empty());
    assert_nothing_left(&harness, &client, "too-big").await;
    assert_eq!(client.start_job(&start_body("fits", SCRIPTED, &"x".repeat(1000))).await.status, 200);
    assert_eq!(client.finished("fits").await["status"], "done");
}

#[tokio::test]
async fn accepted_means_on_disk() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("durable", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    daemon.kill().await;
    harness.open_gate(&gate);
    let daemon = harness.start().await;
    assert_eq!(daemon.client().finished("durable").await["status"], "done");
    assert_eq!(daemon.client().result("durable").await.text(), "through");
}
