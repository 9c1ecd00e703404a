//! Bodies that are too large, too slow, or never end.

use std::time::Duration;

use shepherd_api::BodyPace;
use tokio::io::AsyncWriteExt as _;

use crate::fake::{Got, Server};

const HEAD: &str = "POST /start-job HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
const LIMIT: usize = 3_000_000;

async fn limited() -> Server {
    Server::with(|api, _| {
        api.max_body_bytes = LIMIT as u64;
        api.body_pace.stall = Duration::from_millis(100);
    })
    .await
}

/// A submit of exactly `length` bytes.
fn submit_of(length: usize) -> String {
    let (before, after) = (r#"{"job_id":"job-1","model":{"name":"m","version":"1"},"payload":""#, "\"}");
    format!("{before}{}{after}", "x".repeat(length - before.len() - after.len()))
}

#[tokio::test]
async fn the_limit_itself_passes_and_one_byte_more_does_not() {
    let server = limited().await;
    let mut client = server.client().await;
    assert_eq!(client.start_job(&submit_of(LIMIT)).await.status, 200);
    server.fake.with(|world| assert!(matches!(world.submits.pop().unwrap().1, Got::Stream { .. })));

    let text = submit_of(LIMIT + 1);
    let message = (413, format!("The request body exceeds the limit of {LIMIT} bytes"));
    let reply = client.start_job(&text).await;
    assert_eq!((reply.error(), reply.header("connection")), (message.clone(), Some("close")));

    let mut client = server.client().await;
    client
        .send(format!("{HEAD}transfer-encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n", text.len()))
        .await;
    assert_eq!(client.reply().await.error(), message);
    server.fake.was_not_submitted_to();
    assert!(server.spool_is_empty());
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_a_byte_is_sent() {
    let server = limited().await;
    let mut client = server.client().await;
    client
        .send(format!("{HEAD}content-length: {}\r\nexpect: 100-continue\r\n\r\n", 1_000_000_000_000_000_u64))
        .await;
    assert_eq!(client.reply().await.error().0, 413);
    client.closed().await;
}

#[tokio::test]
async fn a_client_that_only_sends_gets_the_refusal_all_the_same() {
    let server = limited().await;
    // Far more than the buffers between hold, none of it read by the handler.
    let text = submit_of(64_000_000);
    let reply = server.client().await.start_job(&text).await;
    assert_eq!(reply.error().0, 413);
    let unknown = format!(r#"{{"x":"{}"}}"#, "x".repeat(LIMIT - 100));
    assert_eq!(server.client().await.start_job(&unknown).await.error().0, 400);
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let server = limited().await;
    for part in ["", "{\"job_id\":\"jo"] {
        let mut client = server.client().await;
        client.send(format!("{HEAD}content-length: 100\r\n\r\n{part}")).await;
        let reply = client.reply().await;
        assert_eq!(reply.error(), (408, "The request body did not arrive in time".into()));
        assert_eq!(reply.header("connection"), Some("close"));
        client.closed().await;
    }
    server.fake.was_not_submitted_to();
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_is_given_up() {
    for change in [
        |pace: &mut BodyPace| pace.grace = Duration::from_millis(100),
        |pace: &mut BodyPace| pace.total = Duration::from_millis(100),
    ] {
        let server = Server::with(|api, _| change(&mut api.body_pace)).await;
        let mut client = server.client().await;
        client.send(format!("{HEAD}content-length: 100000000\r\n\r\n{{\"payload\":\"")).await;
        let (mut read, mut write) = client.stream.split();
        let mut answer = vec![0; 12];
        // It is never quiet, and still cut off: a byte each 10 ms is less than 500 a second.
        let drip = async {
            while write.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            read = tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer) => { read.unwrap(); }
            () = drip => panic!("the connection ended without an answer"),
        }
        assert_eq!(answer, b"HTTP/1.1 408");
        server.fake.was_not_submitted_to();
    }
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_leaves_nothing() {
    let mut server = limited().await;
    let text = submit_of(LIMIT);
    for length in [10, 2_000_000] {
        let mut client = server.client().await;
        client.send(format!("{HEAD}content-length: {LIMIT}\r\n\r\n{}", &text[..length])).await;
        client.stream.shutdown().await.unwrap();
        drop(client);
    }
    server.shut_down();
    assert!(server.spool_is_empty());
    server.fake.was_not_submitted_to();
    assert_eq!(server.drained().await.aborted, 0);
}

#[tokio::test]
async fn a_body_of_broken_chunks_is_refused() {
    let server = limited().await;
    let mut client = server.client().await;
    client.send(format!("{HEAD}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n")).await;
    assert_eq!(client.reply().await.status, 400);
    server.fake.was_not_submitted_to();
}

#[tokio::test]
async fn a_head_that_is_no_http_is_refused_with_the_reason() {
    let server = Server::start().await;
    for (head, status, message) in [
        ("nonsense\r\n\r\n".to_owned(), 400, "The request is not valid HTTP"),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(65_535)),
            414,
            "The URL of the request is too long",
        ),
        // hyper may read up to twice its limit before it looks at the size.
        (
            format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(200_000)),
            431,
            "The head of the request is too large",
        ),
    ] {
        let mut client = server.client().await;
        client.send(&head).await;
        assert_eq!(client.reply().await.error(), (status, message.to_owned()));
        client.closed().await;
        // Also behind another request, whose answer was taken.
        let mut client = server.client().await;
        assert_eq!(client.get("/healthz").await.status, 200);
        client.send(&head).await;
        assert_eq!(client.reply().await.error(), (status, message.to_owned()));
    }
}
