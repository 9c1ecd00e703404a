//! Connections: what they share, and how they end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use shepherd_job::JobState;
use tokio::io::AsyncReadExt as _;

use crate::fake::{Server, done};

const WAIT: &str = "GET /jobs/job/wait_ready HTTP/1.1\r\nhost: x\r\n\r\n";

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order() {
    let server = Server::start().await;
    server.fake.job("job", done());
    let mut client = server.client().await;
    let paths = ["/jobs/job/ready", "/nothing", "/status", "/jobs/job/status"];
    client.send(paths.map(|path| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).concat()).await;
    let mut statuses = Vec::new();
    for _ in paths {
        statuses.push(client.reply().await.status);
    }
    assert_eq!(statuses, [200, 404, 200, 200]);
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_request_sent_behind_it() {
    let server = Server::start().await;
    server.fake.job("job", JobState::new());
    let mut client = server.client().await;
    client.send(format!("GET /status HTTP/1.1\r\nhost: x\r\n\r\n{WAIT}{WAIT}")).await;
    assert_eq!(client.reply().await.status, 200);
    server.fake.until_waiters(1).await;
    server.fake.job("job", done());
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test]
async fn a_waiting_client_that_leaves_is_forgotten() {
    let server = Server::start().await;
    server.fake.job("job", JobState::new());
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = server.client().await;
        client.send(WAIT).await;
        clients.push(client);
    }
    server.fake.until_waiters(20).await;
    clients.truncate(1);
    server.fake.until_waiters(1).await;
    drop(clients);
    server.fake.until_waiters(0).await;
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_ends_the_connection() {
    let server = Server::with(|_, options| options.header_timeout = Duration::from_millis(100)).await;
    for part in ["", "GET /status HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut client = server.client().await;
        client.send(part).await;
        client.closed().await;
    }
    let mut idle = server.client().await;
    assert_eq!(idle.get("/status").await.status, 200);
    idle.closed().await;
    // A handler may take longer than a head.
    server.fake.job("job", JobState::new());
    let mut waiting = server.client().await;
    assert_eq!(waiting.get("/jobs/job/wait_ready?timeout=0.3").await.status, 202);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_cut_off() {
    let server = Server::with(|_, options| {
        options.stall_timeout = Duration::from_millis(100);
        options.max_connections = 1;
    })
    .await;
    server.fake.job("job", done());
    server.fake.object("job", "outputs/output", vec![0; 64_000_000]);
    let mut stuck = server.client().await;
    stuck.send("GET /jobs/job/result HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // There is room for another only once the first was given up.
    assert_eq!(server.client().await.get("/status").await.status, 200);
    let mut rest = Vec::new();
    let _ = stuck.stream.read_to_end(&mut rest).await;
    assert!(rest.len() < 64_000_000, "it was sent whole");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_room() {
    let server = Server::with(|_, options| options.max_connections = 2).await;
    server.fake.job("job", JobState::new());
    let mut first = server.client().await;
    let mut second = server.client().await;
    first.send(WAIT).await;
    second.send(WAIT).await;
    server.fake.until_waiters(2).await;
    let mut third = server.client().await;
    third.send(WAIT).await;
    drop(first);
    server.fake.until_begun(3).await;
    assert_eq!(server.fake.waiters.load(Ordering::SeqCst), 2);
    drop(second);
    server.fake.job("job", done());
    assert_eq!(third.reply().await.status, 200);
}

#[tokio::test]
async fn connections_over_the_limit_of_an_address_are_refused_and_say_why() {
    let server = Server::with(|_, options| options.max_connections_per_address = 2).await;
    server.fake.job("job", JobState::new());
    let mut first = server.client().await;
    let mut second = server.client().await;
    first.send(WAIT).await;
    second.send(WAIT).await;
    server.fake.until_waiters(2).await;
    let mut third = server.client().await;
    let reply = third.reply().await;
    assert_eq!(reply.error(), (503, "There are too many connections from this address".into()));
    third.closed().await;
    drop(first);
    server.fake.until_waiters(1).await;
    // Its place is given back when its task has ended, a moment after its waiter.
    let reply = loop {
        let mut fourth = server.client().await;
        fourth.send("GET /status HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let reply = fourth.reply().await;
        if reply.status != 503 {
            break reply;
        }
    };
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn a_handler_that_panics_is_one_failed_request() {
    let server = Server::start().await;
    server.fake.job("job", done());
    let mut client = server.client().await;
    server.fake.with(|world| world.panics = true);
    for path in ["/jobs/job/status", "/jobs/job/wait_ready", "/jobs/job/result", "/jobs"] {
        assert_eq!(client.get(path).await.error(), (500, "Internal error".into()));
    }
    server.fake.with(|world| world.panics = false);
    assert_eq!(client.get("/jobs/job/status").await.status, 200);
}

#[tokio::test]
async fn draining_answers_what_is_in_progress_and_closes() {
    let mut server = Server::start().await;
    server.fake.job("job", JobState::new());
    let mut idle = server.client().await;
    assert_eq!(idle.get("/status").await.status, 200);
    let mut waiting = server.client().await;
    waiting.send(WAIT).await;
    let mut sending = server.client().await;
    let body = r#"{"job_id":"job-1","model":{"name":"m","version":"1"},"payload":"x"}"#;
    let (before, after) = body.split_at(20);
    let head = format!(
        "POST /start-job HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    );
    // The server asks for the body once its handler runs.
    sending.send(format!("{head}expect: 100-continue\r\n\r\n")).await;
    let mut asked = [0; 25];
    sending.stream.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    sending.send(before).await;
    server.fake.until_waiters(1).await;
    server.shut_down();

    let reply = waiting.reply().await;
    assert_eq!(reply.error(), (503, "The shepherd is shutting down".into()));
    assert_eq!(reply.header("connection"), Some("close"));
    idle.closed().await;
    sending.send(after).await;
    let reply = sending.reply().await;
    assert_eq!(
        (reply.status, reply.json(), reply.header("connection")),
        (200, json!({"success": true}), Some("close"))
    );
    let address = server.address;
    assert_eq!(server.drained().await.aborted, 0);
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it still listens");
}

#[tokio::test]
async fn draining_ends_at_its_deadline() {
    let mut server = Server::with(|_, options| options.drain_timeout = Duration::from_millis(100)).await;
    let mut stuck = server.client().await;
    stuck
        .send("POST /start-job HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let mut asked = [0; 25];
    stuck.stream.read_exact(&mut asked).await.unwrap();
    server.shut_down();
    assert_eq!(server.drained().await.aborted, 1);
    stuck.closed().await;
}
