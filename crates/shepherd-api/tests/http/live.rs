//! What those get who watch a job.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use serde_json::json;
use shepherd_api::{Api, ApiOptions};
use shepherd_core::{JobEventKind, Progress, ShepherdError};
use shepherd_job::{JobIdRule, JobState};

use crate::client::Reply;
use crate::fake::{Fake, Server, cancelled, done, failed};
use crate::routes::processing;

const ROUTES: [&str; 2] = ["/jobs/job/events", "/jobs/job/logs?follow=true"];
const RETRY: &str = "retry: 2000\n\n";
const WORKING: &str = "id: 1-1\nevent: status\ndata: {\"status\":\"processing\",\"error_details\":null,\
    \"model\":{\"name\":\"ocr\",\"version\":\"latest\"},\"enqueued_at\":\"2026-11-22T21:30:59.336682\",\
    \"processing_started_at\":\"2026-11-22T21:30:59.336682\",\"finished_at\":null}\n\n";

fn at(fraction: f64) -> Progress {
    Progress { fraction: Some(fraction), message: Some("page \"1\"\n".into()) }
}

#[track_caller]
fn is_live(reply: &Reply, content_type: &str) {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some(content_type));
    assert_eq!(reply.header("cache-control"), Some("no-cache"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(reply.header("content-encoding"), None);
}

#[tokio::test]
async fn events_are_sent_as_they_happen_until_the_job_has_finished() {
    let server = Server::start().await;
    server.fake.becomes("job", "1-1", processing());
    let mut client = server.client().await;
    is_live(&client.get("/jobs/job/events").await, "text/event-stream");
    assert_eq!(client.text().await.unwrap(), format!("{RETRY}{WORKING}"));
    server.fake.event("job", "1-2", JobEventKind::Progress(at(0.5)));
    let progress = "id: 1-2\nevent: progress\ndata: {\"fraction\":0.5,\"message\":\"page \\\"1\\\"\\n\"}\n\n";
    assert_eq!(client.text().await.unwrap(), progress);
    server.fake.becomes("job", "0-7", failed("too\nbad"));
    let end = client.text().await.unwrap();
    assert!(end.starts_with("id: 0-7\nevent: status\ndata: {\"status\":\"failed\","), "{end}");
    assert_eq!(end.matches('\n').count(), 4, "{end}");
    assert_eq!(client.text().await, None);
    assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn events_are_taken_up_again_where_they_were_lost() {
    let server = Server::start().await;
    server.fake.becomes("job", "1-1", JobState::new());
    server.fake.event("job", "1-2", JobEventKind::Progress(at(0.5)));
    server.fake.becomes("job", "0-7", done());
    let mut client = server.client().await;
    for (query, line, first) in [
        ("", "x-none: ", "1-1"),
        ("", "Last-Event-ID: 1-1", "1-2"),
        ("", "last-event-id: 1-2", "0-7"),
        ("?after=1-1", "x-none: ", "1-2"),
        ("?after=1-1", "Last-Event-ID: 1-2", "0-7"),
        ("?after=1-1", "Last-Event-ID: ", "1-2"),
        // What is no id, or of another life.
        ("", "Last-Event-ID: ", "1-1"),
        ("", "Last-Event-ID: \u{fe}", "1-1"),
        ("", "Last-Event-ID: 18446744073709551616-1", "1-1"),
        ("?after=5-5", "x-none: ", "1-1"),
    ] {
        let reply = client.ask("GET", &format!("/jobs/job/events{query}"), &[line]).await;
        is_live(&reply, "text/event-stream");
        let begin = client.text().await.unwrap();
        assert!(begin.starts_with(&format!("{RETRY}id: {first}\n")), "{query} {line}: {begin}");
        let mut all = begin;
        while let Some(text) = client.text().await {
            all.push_str(&text);
        }
        assert!(all.contains("id: 0-7\nevent: status\ndata: {\"status\":\"done\""), "{all}");
    }
    for (query, line) in [("?after=0-7", "x-none: "), ("", "Last-Event-ID: 0-7")] {
        let reply = client.ask("GET", &format!("/jobs/job/events{query}"), &[line]).await;
        assert_eq!((reply.status, reply.header("content-type"), reply.body.len()), (204, None, 0));
    }
    for after in ["", "x", "1", "1-", "-1", "1-1-1", "1.0-2"] {
        let reply = client.get(&format!("/jobs/job/events?after={after}")).await;
        let message = "Invalid input: `after` must be the id of an event of the job";
        assert_eq!(reply.error(), (400, message.into()), "{after}");
    }
}

#[tokio::test]
async fn one_who_is_up_to_date_hears_what_happens_next() {
    let server = Server::start().await;
    server.fake.becomes("job", "1-1", processing());
    let mut client = server.client().await;
    is_live(&client.get("/jobs/job/events?after=1-1").await, "text/event-stream");
    assert_eq!(client.text().await.unwrap(), RETRY);
    server.fake.becomes("job", "0-7", cancelled());
    assert!(
        client.text().await.unwrap().starts_with("id: 0-7\nevent: status\ndata: {\"status\":\"cancelled\"")
    );
    assert_eq!(client.text().await, None);
}

#[tokio::test]
async fn a_shepherd_that_ends_is_no_reason_to_stop_asking() {
    let server = Server::start().await;
    server.fake.becomes("job", "1-1", processing());
    server.fake.with(|world| world.ended = true);
    let reply = server.client().await.get("/jobs/job/events?after=1-1").await;
    assert_eq!(reply.error(), (503, "The shepherd is shutting down".into()));
}

#[tokio::test]
async fn a_log_is_given_as_far_as_it_goes() {
    let server = Server::start().await;
    server.fake.job("job", processing());
    let mut client = server.client().await;
    for (printed, whole) in [("", ""), ("žluťoučký\n", "žluťoučký\n"), ("<script>", "žluťoučký\n<script>")]
    {
        server.fake.print("job", printed);
        for query in ["", "?follow=false", "?follow=0"] {
            let reply = client.get(&format!("/jobs/job/logs{query}")).await;
            assert_eq!((reply.status, reply.text()), (200, whole));
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
            assert_eq!(reply.header("cache-control"), Some("no-cache"));
            assert_eq!(reply.header("content-length"), Some(whole.len().to_string().as_str()));
        }
    }
    for follow in ["?follow=yes", "?follow=", "?follow", "?follow=TRUE", "?follow=2"] {
        let reply = client.get(&format!("/jobs/job/logs{follow}")).await;
        assert_eq!(
            reply.error(),
            (400, "Invalid input: `follow` must be `true` or `false`".into()),
            "{follow}"
        );
    }
    let away = || ShepherdError::Unavailable("storage away".into());
    for route in ["events", "logs", "logs?follow=true"] {
        server.fake.with(|world| world.failure = Some(away()));
        let reply = client.get(&format!("/jobs/job/{route}")).await;
        assert_eq!(reply.error(), (503, "storage away".into()));
    }
}

#[tokio::test]
async fn a_log_is_followed_until_the_job_has_finished() {
    let server = Server::start().await;
    server.fake.job("job", JobState::new());
    for follow in ["true", "1"] {
        let mut client = server.client().await;
        server.fake.with(|world| world.logs.clear());
        server.fake.job("job", processing());
        server.fake.print("job", "one\n");
        let reply = client.get(&format!("/jobs/job/logs?follow={follow}")).await;
        is_live(&reply, "text/plain; charset=utf-8");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
        assert_eq!(client.text().await.unwrap(), "one\n");
        server.fake.print("job", "two ž\n");
        assert_eq!(client.text().await.unwrap(), "two ž\n");
        server.fake.job("job", failed("x"));
        assert_eq!(client.text().await, None);
        assert_eq!(client.get("/healthz").await.status, 200, "the connection goes on");
    }
}

#[tokio::test]
async fn an_old_client_gets_a_stream_to_the_end_of_its_connection() {
    let server = Server::start().await;
    server.fake.job("job", done());
    server.fake.print("job", "one\n");
    let mut client = server.client().await;
    client.send("GET /jobs/job/logs?follow=1 HTTP/1.0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, None));
    assert_eq!(client.rest().await, "one\n");
}

#[tokio::test]
async fn who_asks_for_the_head_begins_no_stream() {
    let server = Server::start().await;
    server.fake.becomes("job", "1-1", processing());
    server.fake.print("job", "one\n");
    let mut client = server.client().await;
    for (path, content_type) in ROUTES.into_iter().zip(["text/event-stream", "text/plain; charset=utf-8"]) {
        is_live(&client.ask("HEAD", path, &[]).await, content_type);
        assert_eq!(client.ask("HEAD", &path.replace("job/", "none/"), &[]).await.status, 404);
        let reply = client.ask("POST", path, &["content-length: 0"]).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    }
    let reply = client.ask("HEAD", "/jobs/job/logs", &[]).await;
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("4")));
    assert_eq!(server.fake.waiters.load(Ordering::SeqCst), 0);
    assert_eq!(server.fake.begun(), 0);
}

#[tokio::test]
async fn a_watching_client_that_leaves_is_forgotten() {
    let server = Server::start().await;
    server.fake.becomes("job", "1-1", processing());
    server.fake.print("job", "one\n");
    let mut clients = Vec::new();
    for index in 0..20 {
        let mut client = server.client().await;
        assert_eq!(client.get(ROUTES[index % 2]).await.status, 200);
        assert!(client.text().await.is_some());
        clients.push(client);
    }
    assert_eq!(server.fake.waiters.load(Ordering::SeqCst), 20);
    clients.truncate(2);
    server.fake.until_waiters(2).await;
    drop(clients);
    server.fake.until_waiters(0).await;
}

#[tokio::test]
async fn draining_ends_what_is_watched() {
    let mut server = Server::start().await;
    server.fake.becomes("job", "1-1", processing());
    server.fake.print("job", "one\n");
    let mut clients = Vec::new();
    for path in ROUTES {
        let mut client = server.client().await;
        assert_eq!(client.get(path).await.status, 200);
        assert!(client.text().await.is_some());
        clients.push(client);
    }
    // One who takes nothing, and for whom there is always something.
    let mut busy = server.client().await;
    for _ in 0..10_000 {
        server.fake.print("flood", vec![b'x'; 10_000]);
    }
    server.fake.job("flood", processing());
    assert_eq!(busy.get("/jobs/flood/logs?follow=true").await.status, 200);
    server.shut_down();
    for mut client in clients {
        assert_eq!(client.text().await, None);
        client.closed().await;
    }
    let mut bytes = 0;
    while let Some(chunk) = busy.chunk().await {
        bytes += chunk.len();
    }
    assert!(bytes < 100_000_000, "all was sent first");
    server.fake.until_waiters(0).await;
    assert_eq!(server.drained().await.aborted, 0);
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_little_and_is_cut_off() {
    let server = Server::with(|_, options| options.stall_timeout = Duration::from_millis(100)).await;
    server.fake.job("job", processing());
    let piece = Bytes::from(vec![b'x'; 10_000]);
    server.fake.with(|world| world.logs.insert("job".into(), vec![piece; 10_000]));
    let mut client = server.client().await;
    assert_eq!(client.get("/jobs/job/logs?follow=true").await.status, 200);
    server.fake.until_waiters(0).await;
    let taken = server.fake.with(|world| world.taken);
    assert!(taken < 10_000, "{taken} pieces were taken for nobody");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_of_events_says_that_it_lives() {
    let fake = Fake::new();
    fake.becomes("job", "1-1", processing());
    let mut api = Api::new(fake.clone(), ApiOptions::new(JobIdRule::Bucket, "unused"));
    let request =
        Request::get("/jobs/job/events").header("host", "test").body(Empty::<Bytes>::new()).unwrap();
    let response = tower::Service::call(&mut api, request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    let mut next = async || body.frame().await.map(|frame| frame.unwrap().into_data().unwrap());
    assert_eq!(next().await.unwrap(), format!("{RETRY}{WORKING}"));
    for _ in 0..3 {
        let began = tokio::time::Instant::now();
        assert_eq!(next().await.unwrap(), ":\n\n");
        // The clock stands still but for the timer: this is its very setting.
        assert_eq!(began.elapsed().as_secs(), 15);
    }
    fake.becomes("job", "0-7", done());
    assert!(next().await.unwrap().starts_with(b"id: 0-7\n"));
    assert_eq!(next().await, None);
    assert_eq!(fake.waiters.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn progress_is_in_the_status_of_a_job_in_work_only() {
    let server = Server::start().await;
    let mut client = server.client().await;
    server.fake.with(|world| world.progress.insert("job".into(), at(0.25)));
    for (state, told) in [
        (JobState::new(), false),
        (processing(), true),
        (done(), false),
        (failed("x"), false),
        (cancelled(), false),
    ] {
        server.fake.job("job", state);
        for path in ["status", "wait_ready?timeout=0"] {
            let status = client.get(&format!("/jobs/job/{path}")).await.json();
            let expected = told.then(|| json!({"fraction": 0.25, "message": "page \"1\"\n"}));
            assert_eq!(status.get("progress"), expected.as_ref(), "{path}: {status}");
        }
        assert!(client.get("/jobs").await.json()["jobs"][0].get("progress").is_none());
    }
}
