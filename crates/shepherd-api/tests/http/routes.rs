//! The routes of the first shepherd and what was added to them, row by row.

use serde_json::json;
use shepherd_api::{Cors, Hosts};
use shepherd_core::ShepherdError;
use shepherd_job::{Attempt, History, JobState, SheepId};

use crate::fake::{AT, Server, cancelled, done, failed};

const TIME: &str = "2026-11-22T21:30:59.336682";

pub(crate) fn processing() -> JobState {
    JobState::Processing {
        attempt: Attempt { epoch: 1, number: 1 },
        sheep: SheepId::parse("sheep-1").unwrap(),
        started_at: AT,
        history: History::default(),
    }
}

#[tokio::test]
async fn status_shows_the_flock() {
    let server = Server::start().await;
    let reply = server.client().await.get("/status").await;
    assert_eq!(reply.status, 200);
    let sheep = &reply.json()["sheep"]["sheep-1"];
    assert_eq!(sheep["running"], true);
    assert_eq!(sheep["model"], json!({"name": null, "version": null}));
    assert_eq!(sheep["request"], json!(null));
}

#[tokio::test]
async fn a_jobs_status_is_told() {
    let server = Server::start().await;
    server.fake.job("queued", JobState::new());
    server.fake.job("processing", processing());
    server.fake.job("done", done());
    server.fake.job("failed", failed("too bad"));
    let mut client = server.client().await;
    let model = json!({"name": "ocr", "version": "latest"});
    let error = json!({"message": "too bad", "exception_type": null, "exception_traceback": null});
    for (id, error, started, finished) in [
        ("queued", json!(null), json!(null), json!(null)),
        ("processing", json!(null), json!(TIME), json!(null)),
        ("done", json!(null), json!(TIME), json!(TIME)),
        ("failed", error, json!(TIME), json!(TIME)),
    ] {
        let reply = client.get(&format!("/jobs/{id}/status")).await;
        assert_eq!(reply.status, 200);
        let expected = json!({
            "status": id, "error_details": error, "model": model, "enqueued_at": TIME,
            "processing_started_at": started, "finished_at": finished,
        });
        assert_eq!(reply.json(), expected);
    }
}

#[tokio::test]
async fn ready_is_whether_the_job_is_finished() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (id, state, ready) in [
        ("queued", JobState::new(), false),
        ("processing", processing(), false),
        ("done", done(), true),
        ("failed", failed("x"), true),
        ("cancelled", cancelled(), true),
    ] {
        server.fake.job(id, state);
        let reply = client.get(&format!("/jobs/{id}/ready")).await;
        assert_eq!((reply.status, reply.json()), (200, json!({"ready": ready})), "{id}");
    }
}

#[tokio::test]
async fn an_unknown_job_is_400_on_old_routes_and_404_on_new_ones() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let long = "a".repeat(64);
    let ids = [
        ("no-such", "no-such"),
        ("A%2Fb", "A/b"),
        ("%C5%BElu", "žlu"),
        ("..", ".."),
        ("", ""),
        (&long, &long),
    ];
    for (id, shown) in ids {
        for route in [
            "status",
            "ready",
            "wait_ready",
            "wait_ready?timeout=1",
            "result",
            "result/x",
            "input",
            "input/x",
        ] {
            let reply = client.get(&format!("/jobs/{id}/{route}")).await;
            assert_eq!(reply.error(), (400, format!("Data for job `{shown}` does not exist")), "{route}");
        }
        let unknown = (404, format!("Job `{shown}` does not exist"));
        for route in ["events", "events?after=1-1", "logs", "logs?follow=true"] {
            assert_eq!(client.get(&format!("/jobs/{id}/{route}")).await.error(), unknown, "{route}");
        }
        let reply = client.post(&format!("/jobs/{id}/cancel"), None, b"").await;
        assert_eq!(reply.error(), unknown);
    }
}

/// As the first shepherd wrote it.
fn stored(status: &str, error: &str) -> String {
    format!(
        r#"{{"status": "{status}", "error_details": {error}, "model": {{"name": "cxflow", "version": "7"}},
            "enqueued_at": "{TIME}", "processing_started_at": null, "finished_at": "2018-11-22T21:31:00"}}"#
    )
}

#[tokio::test]
async fn a_job_that_only_storage_knows_answers_from_its_document() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let error = r#"{"message": "no luck", "exception_type": null, "exception_traceback": null}"#;
    for (id, status, error) in [
        ("old-1", "queued", "null"),
        ("old-2", "processing", "null"),
        ("old-3", "done", "null"),
        ("old-4", "failed", error),
    ] {
        let document = stored(status, error);
        let expected: serde_json::Value = serde_json::from_str(&document).unwrap();
        server.fake.object(id, "job_status.json", document);
        server.fake.object(id, "outputs/output", "the result");
        server.fake.object(id, "inputs/input", "the input");
        let is_ready = matches!(status, "done" | "failed");
        let reply = client.get(&format!("/jobs/{id}/status")).await;
        assert_eq!((reply.status, reply.json()), (200, expected.clone()));
        let reply = client.get(&format!("/jobs/{id}/ready")).await;
        assert_eq!((reply.status, reply.json()), (200, json!({"ready": is_ready})));
        let reply = client.get(&format!("/jobs/{id}/wait_ready?timeout=0.01")).await;
        assert_eq!((reply.status, reply.json()), (if is_ready { 200 } else { 202 }, expected));
        let reply = client.get(&format!("/jobs/{id}/result")).await;
        match status {
            "done" => assert_eq!((reply.status, reply.text()), (200, "the result")),
            "failed" => assert_eq!(reply.error(), (500, "no luck".to_owned())),
            _ => assert_eq!((reply.status, reply.json()), (202, json!({"ready": false}))),
        }
        assert_eq!(client.get(&format!("/jobs/{id}/input")).await.text(), "the input");
    }
}

#[tokio::test]
async fn waiting_for_a_job_that_only_storage_knows_ends_when_its_document_says_so() {
    let server = Server::start().await;
    server.fake.object("old", "job_status.json", stored("processing", "null"));
    let mut client = server.client().await;
    client.send("GET /jobs/old/wait_ready HTTP/1.1\r\nhost: test\r\n\r\n").await;
    server.fake.until_begun(1).await;
    server.fake.object("old", "job_status.json", stored("done", "null"));
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.json()["status"].clone()), (200, json!("done")));
}

#[tokio::test]
async fn storage_is_asked_once_about_an_unknown_job_and_never_about_a_known_one() {
    let server = Server::start().await;
    let mut client = server.client().await;
    server.fake.job("known", done());
    server.fake.object("invalid", "job_status.json", r#"{"status": "done"}"#);
    for route in ["status", "ready", "wait_ready", "result"] {
        for (id, looks) in [("unknown", 1), ("invalid", 1), ("known", 0)] {
            server.fake.with(|world| world.stored_looks = 0);
            let reply = client.get(&format!("/jobs/{id}/{route}")).await;
            assert_eq!(server.fake.with(|world| world.stored_looks), looks, "{id}/{route}");
            if looks > 0 {
                assert_eq!(reply.error(), (400, format!("Data for job `{id}` does not exist")));
            }
        }
    }
}

#[tokio::test]
async fn waiting_ends_when_the_job_does() {
    let server = Server::start().await;
    server.fake.job("job", processing());
    let mut client = server.client().await;
    client.send("GET /jobs/job/wait_ready HTTP/1.1\r\nhost: test\r\n\r\n").await;
    server.fake.until_waiters(1).await;
    server.fake.job("job", failed("too bad"));
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.json()["status"].clone()), (200, json!("failed")));
    assert_eq!(client.get("/jobs/job/wait_ready").await.status, 200);
}

#[tokio::test]
async fn waiting_ends_with_its_timeout() {
    let server = Server::start().await;
    server.fake.job("job", processing());
    let mut client = server.client().await;
    for timeout in ["0", "0.01", "1e-3"] {
        let reply = client.get(&format!("/jobs/job/wait_ready?timeout={timeout}")).await;
        assert_eq!((reply.status, reply.json()["status"].clone()), (202, json!("processing")), "{timeout}");
    }
    for timeout in ["", "x", "-1", "NaN", "inf", "1s"] {
        let (status, message) = client.get(&format!("/jobs/job/wait_ready?timeout={timeout}")).await.error();
        assert_eq!(status, 400, "{timeout}");
        assert!(message.contains("`timeout`"), "{message}");
    }
    server.fake.job("job", done());
    for timeout in ["0", "1e300"] {
        assert_eq!(client.get(&format!("/jobs/job/wait_ready?timeout={timeout}")).await.status, 200);
    }
}

#[tokio::test]
async fn a_job_is_withdrawn_once() {
    let server = Server::start().await;
    server.fake.job("job", processing());
    let mut client = server.client().await;
    let reply = client.post("/jobs/job/cancel", None, b"").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["status"], "cancelled");
    assert_eq!(reply.json()["error_details"]["message"], "The job was cancelled");
    server.fake.with(|world| assert!(world.cancelled.contains("job")));
    // The first shepherd's clients wait for `done` or `failed`.
    assert_eq!(client.get("/jobs/job/status").await.json()["status"], "failed");
    let again = client.post("/jobs/job/cancel", None, b"").await;
    assert_eq!((again.status, again.json()), (200, reply.json()));
    server.fake.job("done", done());
    assert_eq!(
        client.post("/jobs/done/cancel", None, b"").await.error(),
        (409, "The job is finished already".into())
    );
}

#[tokio::test]
async fn jobs_are_listed_page_by_page() {
    let server = Server::start().await;
    for index in 0..5 {
        server.fake.job(&format!("job-{index}"), if index == 2 { cancelled() } else { JobState::new() });
    }
    let mut client = server.client().await;
    let mut seen = Vec::new();
    let mut path = "/jobs?limit=2".to_owned();
    loop {
        let reply = client.get(&path).await;
        assert_eq!(reply.status, 200);
        let json = reply.json();
        seen.extend(
            json["jobs"].as_array().unwrap().iter().map(|job| job["job_id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = json["next"].as_str() else { break };
        path = format!("/jobs?limit=2&before={next}");
    }
    assert_eq!(seen, ["job-4", "job-3", "job-2", "job-1", "job-0"]);
    let one = client.get("/jobs?status=cancelled").await.json();
    assert_eq!(one["jobs"][0]["job_id"], "job-2");
    assert_eq!(one["jobs"][0]["status"], "cancelled");
    assert_eq!(client.get("/jobs?status=failed").await.json()["jobs"], json!([]));
    assert_eq!((one["jobs"].as_array().unwrap().len(), &one["next"]), (1, &json!(null)));
    for bad in ["limit=0", "limit=1001", "limit=x", "before=x", "status=x", "status="] {
        let (status, message) = client.get(&format!("/jobs?{bad}")).await.error();
        let name = bad.split('=').next().unwrap();
        assert_eq!((status, message.contains(&format!("`{name}`"))), (400, true), "{message}");
    }
}

#[tokio::test]
async fn health_and_readiness_are_told() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let reply = client.get("/readyz").await;
    assert_eq!((reply.status, reply.json()), (200, json!({"ready": true, "problems": []})));
    server.fake.with(|world| world.problems.push("storage is away".into()));
    let reply = client.get("/readyz").await;
    assert_eq!((reply.status, reply.json()), (503, json!({"ready": false, "problems": ["storage is away"]})));
    assert_eq!(client.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_page_and_all_it_needs_come_from_here() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for path in ["/ui", "/ui/", "/apidocs", "/apidocs/"] {
        let reply = client.get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("http"), "{policy}");
        let html = reply.text().to_owned();
        assert!(!html.contains("//") && !html.contains('{'), "{html}");
        let links = html.split(['"']).filter(|text| {
            text.ends_with(".css")
                || text.ends_with(".js")
                || text.ends_with(".json")
                || text.ends_with(".png")
        });
        for link in links {
            // As a browser resolves it: against the directory of the page.
            let directory = &path[..=path.rfind('/').unwrap()];
            let address = match link.strip_prefix("../") {
                Some(rest) => format!("/{rest}"),
                None => format!("{directory}{link}"),
            };
            assert_eq!(client.get(&address).await.status, 200, "{path}: {link} is {address}");
        }
    }
    for path in ["/ui/index.html", "/ui/nothing", "/ui/../Cargo.toml", "/ui/swagger-initializer.js"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    let spec = client.get("/spec.json").await.json();
    assert_eq!(spec["openapi"], "3.1.0");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_apart() {
    let server = Server::start().await;
    server.fake.job("job", done());
    let mut client = server.client().await;
    for path in ["/", "/nothing", "/status/", "/jobs/job", "/jobs/job/nothing", "/jobs/"] {
        for method in ["GET", "POST", "OPTIONS"] {
            assert_eq!(client.ask(method, path, &[]).await.status, 404, "{method} {path}");
        }
    }
    let read = "GET, HEAD, OPTIONS";
    for (path, allow) in [
        ("/status", read),
        ("/jobs", read),
        ("/jobs/job/status", read),
        ("/jobs/job/wait_ready", read),
        ("/jobs/job/result/a/b", read),
        ("/healthz", read),
        ("/spec.json", read),
        ("/ui", read),
        ("/start-job", "POST, OPTIONS"),
        ("/jobs/job/cancel", "POST, OPTIONS"),
    ] {
        let options = client.ask("OPTIONS", path, &[]).await;
        assert_eq!((options.status, options.header("allow")), (204, Some(allow)), "{path}");
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "BREW"] {
            if !allow.contains(method) {
                let reply = client.ask(method, path, &[]).await;
                assert_eq!((reply.error().0, reply.header("allow")), (405, Some(allow)), "{method} {path}");
            }
        }
    }
    assert_eq!(client.ask("OPTIONS", "*", &[]).await.status, 204);
}

#[tokio::test]
async fn head_answers_as_get_without_the_body() {
    let server = Server::start().await;
    server.fake.job("job", done());
    server.fake.object("job", "outputs/output", "0123456789");
    let mut client = server.client().await;
    for path in [
        "/status",
        "/jobs/job/status",
        "/jobs/job/result",
        "/jobs/no/status",
        "/nothing",
        "/ui",
        "/spec.json",
    ] {
        let get = client.get(path).await;
        let head = client.ask("HEAD", path, &[]).await;
        assert_eq!(head.status, get.status, "{path}");
        for name in ["content-type", "content-length", "etag", "last-modified", "accept-ranges"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn every_error_has_its_code_and_a_message() {
    let server = Server::start().await;
    server.fake.job("job", done());
    let mut client = server.client().await;
    let body = r#"{"job_id":"job","model":{"name":"m","version":"1"}}"#;
    for (error, status, message) in [
        (ShepherdError::AlreadySubmitted, 409, "A job with this ID was already submitted"),
        (ShepherdError::NoData, 400, "Data for job `job` does not exist"),
        (ShepherdError::UnknownSheep("x".into()), 400, "Unknown sheep id `x`"),
        (ShepherdError::ShuttingDown, 503, "The shepherd is shutting down"),
        (ShepherdError::Unavailable("storage away".into()), 503, "storage away"),
        (ShepherdError::Unavailable(" ".into()), 503, "The shepherd cannot answer now, try again later"),
        (ShepherdError::Full, 507, "No space is left for the job"),
        (ShepherdError::Invalid("bad key".into()), 400, "bad key"),
    ] {
        server.fake.with(|world| world.failure = Some(error));
        assert_eq!(client.start_job(body).await.error(), (status, message.to_owned()));
    }
    for route in ["status", "ready", "wait_ready", "result", "input"] {
        server.fake.with(|world| world.failure = Some(ShepherdError::Unavailable("storage away".into())));
        let reply = client.get(&format!("/jobs/job/{route}")).await;
        assert_eq!(reply.error(), (503, "storage away".into()), "{route}");
    }
    server.fake.with(|world| world.failure = Some(ShepherdError::Unavailable("storage away".into())));
    assert_eq!(client.get("/jobs").await.error(), (503, "storage away".into()));
}

#[tokio::test]
async fn pages_of_other_origins_may_call_only_when_configured() {
    const PREFLIGHT: &str = "access-control-request-method: POST";
    let allowed =
        |reply: &crate::client::Reply| reply.header("access-control-allow-origin").map(str::to_owned);

    let off = Server::start().await;
    let mut client = off.client().await;
    let reply = client.ask("GET", "/status", &["origin: https://a.org"]).await;
    assert_eq!((allowed(&reply), reply.header("vary")), (None, None));

    let any = Server::with(|api, _| api.cors = Cors::Any).await;
    let mut client = any.client().await;
    let reply = client.ask("GET", "/nothing", &["origin: https://a.org"]).await;
    assert_eq!(allowed(&reply).as_deref(), Some("*"));
    assert_eq!(reply.header("access-control-allow-credentials"), None);

    let some = Server::with(|api, _| api.cors = Cors::parse(&["https://a.org"]).unwrap()).await;
    let mut client = some.client().await;
    let reply = client.ask("GET", "/status", &["origin: https://a.org"]).await;
    assert_eq!((allowed(&reply).as_deref(), reply.header("vary")), (Some("https://a.org"), Some("Origin")));
    let reply = client.ask("OPTIONS", "/start-job", &["origin: https://a.org", PREFLIGHT]).await;
    assert_eq!((reply.status, allowed(&reply).as_deref()), (204, Some("https://a.org")));
    assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));
    for origin in ["origin: https://b.org", "origin: null", "origin: https://a.org.b"] {
        let reply = client.ask("OPTIONS", "/start-job", &[origin, PREFLIGHT]).await;
        assert_eq!((allowed(&reply), reply.header("access-control-allow-methods")), (None, None), "{origin}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_neither_submits_nor_cancels() {
    let server = Server::start().await;
    server.fake.job("job", JobState::new());
    let mut client = server.client().await;
    for lines in [&["origin: http://evil.example"][..], &["sec-fetch-site: cross-site"], &["origin: null"]] {
        let lines: Vec<_> = lines.iter().chain(&["content-length: 0"]).copied().collect();
        for path in ["/jobs/job/cancel", "/start-job"] {
            let (status, message) = client.ask("POST", path, &lines).await.error();
            assert_eq!(status, 403);
            assert!(message.contains("api.cors_origins"), "{message}");
        }
    }
    server.fake.was_not_submitted_to();
    server.fake.with(|world| assert!(world.cancelled.is_empty()));
    // The API's own page may.
    let lines = ["origin: http://test", "sec-fetch-site: same-origin", "content-length: 0"];
    assert_eq!(client.ask("POST", "/jobs/job/cancel", &lines).await.status, 200);
}

#[tokio::test]
async fn a_name_that_was_made_to_lead_here_is_refused() {
    let server = Server::with(|api, _| api.hosts = Hosts::of(["shepherd.example"])).await;
    let mut client = server.client().await;
    for (host, status) in [("evil.example", 403), ("shepherd.example:80", 200), ("127.0.0.1:5000", 200)] {
        client.send(format!("GET /status HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(client.reply().await.status, status, "{host}");
    }
    for head in ["GET /status HTTP/1.1\r\n\r\n", "GET /status HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"] {
        client.send(head).await;
        let (status, message) = client.reply().await.error();
        assert!(status == 400 && message.contains("Host"), "{message}");
    }
}

#[tokio::test]
async fn what_is_answered_is_no_resource_of_other_pages() {
    let server = Server::start().await;
    server.fake.job("job", done());
    server.fake.object("job", "outputs/output", "x");
    let mut client = server.client().await;
    for path in ["/jobs/job/result", "/jobs/job/logs", "/status", "/nothing"] {
        let reply = client.get(path).await;
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"), "{path}");
    }
    let any = Server::with(|api, _| api.cors = Cors::Any).await;
    let reply = any.client().await.get("/status").await;
    assert_eq!(reply.header("cross-origin-resource-policy"), Some("cross-origin"));
}
