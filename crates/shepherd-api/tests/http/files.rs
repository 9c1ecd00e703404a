//! Inputs and results as files.

use bytes::Bytes;
use serde_json::json;
use shepherd_job::JobState;

use crate::client::{Client, Reply};
use crate::fake::{Server, cancelled, done, failed};

const MISSING: (u16, &str) = (404, "Requested file does not exist");

async fn serve_digits() -> (Server, Client) {
    let server = Server::start().await;
    server.fake.job("job", done());
    server.fake.object("job", "outputs/output", "0123456789");
    server.fake.object("job", "outputs/empty", "");
    let client = server.client().await;
    (server, client)
}

fn summary(reply: &Reply) -> (u16, Option<&str>, &str) {
    (reply.status, reply.header("content-range"), reply.text())
}

#[tokio::test]
async fn files_are_found_by_name_and_typed_by_it() {
    let (server, mut client) = serve_digits().await;
    let fake = &server.fake;
    fake.object("job", "inputs/input", "in");
    fake.object("job", "inputs/a b.txt", "text");
    fake.object("job", "outputs/a/b/ž.JSON", "{}");
    fake.object("job", "outputs/page.html", "<p>");
    fake.object("job", "outputs/100%", "percent");
    for (path, content_type, body) in [
        ("result", "application/octet-stream", "0123456789"),
        ("result/output", "application/octet-stream", "0123456789"),
        ("result/empty", "application/octet-stream", ""),
        ("result/a/b/%C5%BE.JSON", "application/json", "{}"),
        ("result/a%2Fb%2f%C5%BE.JSON", "application/json", "{}"),
        ("result/page.html", "text/html", "<p>"),
        ("result/100%25", "application/octet-stream", "percent"),
        ("input", "application/octet-stream", "in"),
        ("input/a%20b.txt?x=y", "text/plain", "text"),
    ] {
        let reply = client.get(&format!("/jobs/job/{path}")).await;
        assert_eq!(
            (reply.status, reply.header("content-type"), reply.text()),
            (200, Some(content_type), body),
            "{path}"
        );
        assert_eq!(reply.header("content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("content-security-policy"), Some("sandbox"));
        assert_eq!(reply.header("last-modified"), Some("Sun, 22 Nov 2026 21:30:59 GMT"));
    }
    let long = "a".repeat(1_100);
    for name in ["nothing", "", "..", "../job_status.json", "%2e%2e/inputs/input", "%FF", "a", "a/", &long] {
        for route in ["result", "input"] {
            let (status, message) = client.get(&format!("/jobs/job/{route}/{name}")).await.error();
            assert_eq!((status, message.as_str()), MISSING, "{route}/{name}");
        }
    }
}

#[tokio::test]
async fn a_result_is_there_only_when_the_job_is_done() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (id, state, status, body) in [
        ("queued", JobState::new(), 202, json!({"ready": false})),
        ("failed", failed("too bad"), 500, json!({"message": "too bad"})),
        ("speechless", failed(""), 500, json!({"message": "The job failed"})),
        ("cancelled", cancelled(), 500, json!({"message": "The job was cancelled"})),
    ] {
        server.fake.job(id, state);
        server.fake.object(id, "outputs/output", "of an earlier attempt");
        for path in ["result", "result/output", "result/nothing", "result/"] {
            let reply = client.get(&format!("/jobs/{id}/{path}")).await;
            assert_eq!((reply.status, reply.json()), (status, body.clone()), "{id}/{path}");
        }
        server.fake.object(id, "inputs/input", "in");
        assert_eq!(client.get(&format!("/jobs/{id}/input")).await.text(), "in");
    }
    server.fake.with(|world| assert_eq!(world.opens, 4, "only the inputs"));
}

#[tokio::test]
async fn one_range_is_answered_with_its_part() {
    let (_server, mut client) = serve_digits().await;
    let whole = (200, None, "0123456789");
    for (range, expected) in [
        ("bytes=0-0", (206, Some("bytes 0-0/10"), "0")),
        ("bytes=2-5", (206, Some("bytes 2-5/10"), "2345")),
        ("bytes=7-", (206, Some("bytes 7-9/10"), "789")),
        ("bytes=0-", (206, Some("bytes 0-9/10"), "0123456789")),
        ("bytes=8-99", (206, Some("bytes 8-9/10"), "89")),
        ("bytes=-3", (206, Some("bytes 7-9/10"), "789")),
        ("bytes=-30", (206, Some("bytes 0-9/10"), "0123456789")),
        ("bytes=0-1,4-5", whole),
        ("bytes=5-2", whole),
        ("lines=0-1", whole),
        ("bytes=x", whole),
    ] {
        let reply = client.ask("GET", "/jobs/job/result", &[&format!("range: {range}")]).await;
        assert_eq!(summary(&reply), expected, "{range}");
        assert_eq!(reply.header("content-length"), Some(expected.2.len().to_string().as_str()));
    }
    for (path, size, ranges) in [
        (
            "result",
            10,
            &[
                "bytes=10-",
                "bytes=10-11",
                "bytes=-0",
                "bytes=99999999999999999999-",
                "bytes=18446744073709551615-",
            ][..],
        ),
        ("result/empty", 0, &["bytes=0-0", "bytes=0-", "bytes=-1"]),
    ] {
        for range in ranges {
            let reply = client.ask("GET", &format!("/jobs/job/{path}"), &[&format!("range: {range}")]).await;
            assert_eq!(reply.error().0, 416, "{range}");
            assert_eq!(reply.header("content-range"), Some(format!("bytes */{size}").as_str()), "{range}");
        }
    }
    let head = client.ask("HEAD", "/jobs/job/result", &["range: bytes=2-5"]).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
}

#[tokio::test]
async fn a_download_is_continued_or_spared_only_for_the_same_file() {
    let (_server, mut client) = serve_digits().await;
    let whole = client.get("/jobs/job/result").await;
    let tag = whole.header("etag").unwrap().to_owned();
    let date = whole.header("last-modified").unwrap().to_owned();
    for (condition, status) in [
        (tag.as_str(), 206),
        (date.as_str(), 206),
        ("\"other\"", 200),
        ("Sun, 22 Nov 2026 21:30:58 GMT", 200),
    ] {
        for range in ["range: bytes=2-5", "range: bytes=-4"] {
            let reply =
                client.ask("GET", "/jobs/job/result", &[range, &format!("if-range: {condition}")]).await;
            assert_eq!(reply.status, status, "{condition}");
        }
    }
    for (condition, status) in
        [(tag.clone(), 304), (format!("\"x\", W/{tag}"), 304), ("*".into(), 304), ("\"x\"".into(), 200)]
    {
        let reply = client.ask("GET", "/jobs/job/result", &[&format!("if-none-match: {condition}")]).await;
        assert_eq!(reply.status, status, "{condition}");
        assert_eq!(reply.header("etag"), Some(tag.as_str()));
    }
}

#[tokio::test]
async fn a_large_file_arrives_whole() {
    let (server, mut client) = serve_digits().await;
    let bytes: Bytes = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    server.fake.object("job", "outputs/large", bytes.clone());
    assert_eq!(client.get("/jobs/job/result/large").await.body, bytes);
    let reply = client.ask("GET", "/jobs/job/result/large", &["range: bytes=1000000-18999999"]).await;
    assert_eq!(reply.body, bytes[1_000_000..19_000_000]);
}
