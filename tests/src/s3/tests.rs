//! The harness by itself: what a test relies on when it blames the daemon.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

async fn flow(client: &S3Client, bucket: &str) {
    client.make_bucket(bucket).await;
    client.put(bucket, "inputs/a b+č", "hello").await;
    assert_eq!(client.get(bucket, "inputs/a b+č").await.unwrap(), b"hello");
    assert_eq!(client.get(bucket, "inputs/other").await, None);
    assert_eq!(client.keys(bucket, "inputs/").await, ["inputs/a b+č"]);
    client.remove_bucket(bucket).await;
}

#[tokio::test]
async fn a_server_serves_and_remembers() {
    let server = S3Server::start();
    flow(&server.client(), "bucket-1").await;
    let requests = server.requests().take();
    assert!(requests[0].to_string().starts_with("PUT bucket-1?X-Amz-"), "{}", requests[0]);
    assert_eq!(requests[1].to_string(), "PUT bucket-1/inputs/a%20b%2B%C4%8D");
    assert_eq!(server.requests().most_at_once(), 1);
}

#[tokio::test]
async fn moto_serves() {
    let Some(moto) = Moto::shared() else { return };
    flow(&moto.client(), "harness-flow").await;
}

/// Sends one request by hand; what comes back, and whether it was reset then.
async fn ask(proxy: &Proxy, method: &str, body: &str) -> (String, bool) {
    let address = proxy.url().strip_prefix("http://").unwrap().to_owned();
    let Ok(mut stream) = TcpStream::connect(&address).await else { return ("refused".into(), false) };
    let head = format!("{method} /a-bucket/k HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let sent = stream.write_all((head + body).as_bytes()).await;
    let mut answer = Vec::new();
    while !answer.windows(8).any(|end| end == b"</Error>") {
        match stream.read_buf(&mut answer).await {
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), true),
        }
    }
    (String::from_utf8_lossy(&answer).into_owned(), sent.is_err())
}

#[tokio::test]
async fn a_proxy_breaks_what_it_is_told_to() {
    let server = S3Server::start();
    server.client().make_bucket("a-bucket").await;
    server.requests().take();
    let proxy = Proxy::start(server.address()).await;
    flow(&S3Client::new(proxy.url()), "through").await;
    assert_eq!(proxy.requests().take(), server.requests().take());

    let injected = proxy.inject(Fault::Answer(503), 1, |head| head.method == "PUT");
    assert_eq!(injected.hits(), 0);
    let (answer, reset) = ask(&proxy, "PUT", "hello").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("<Code>SlowDown</Code>"), "{answer}");
    assert!(!reset);
    injected.hit(1).await;
    assert_eq!(server.requests().take(), [], "the server was asked");

    // Nothing is signed, so the server refuses what reaches it.
    for (fault, expected) in [
        (Fault::Delay(Duration::from_millis(1)), "AccessDenied"),
        (Fault::CutRequest(3), ""),
        (Fault::CutAnswer(8), "<?xm"),
        (Fault::LoseAnswer, ""),
    ] {
        proxy.inject(fault, 1, |_| true).hits();
        let (answer, reset) = ask(&proxy, "PUT", "hello").await;
        assert!(
            answer.contains(expected) && (!expected.is_empty() || answer.is_empty()),
            "{fault:?}: {answer}"
        );
        assert_eq!(reset, !matches!(fault, Fault::Delay(_)), "{fault:?}");
    }

    let hole = proxy.inject(Fault::Hole, u64::MAX, |_| true);
    tokio::select! {
        answer = ask(&proxy, "GET", "") => panic!("{answer:?}"),
        () = hole.hit(1) => {}
    }
    hole.lift();
    let (answer, _) = ask(&proxy, "GET", "").await;
    assert!(answer.contains("AccessDenied"), "{answer}");

    proxy.away().await;
    assert_eq!(ask(&proxy, "GET", "").await.0, "refused");
    proxy.back().await;
    flow(&S3Client::new(proxy.url()), "again").await;
}

#[tokio::test]
async fn being_away_resets_what_is_open() {
    let server = S3Server::start();
    let proxy = Proxy::start(server.address()).await;
    let delay = proxy.inject(Fault::Delay(crate::PATIENCE), u64::MAX, |_| true);
    let asking = ask(&proxy, "PUT", "hello");
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => panic!("{answer:?}"),
        () = delay.hit(1) => {}
    }
    proxy.away().await;
    assert_eq!(asking.await, (String::new(), true));
    proxy.back().await;
    proxy.clear();
    flow(&S3Client::new(proxy.url()), "still-there").await;
}
