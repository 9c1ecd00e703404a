//! Conditional requests.

use crate::client::Client;
use crate::server::Server;

const TAG: &str = "\"5d41402abc4b2a76b9719d911017c592\"";
const PAST: &str = "Thu, 01 Jan 2015 00:00:00 GMT";
const FUTURE: &str = "Fri, 01 Jan 2100 00:00:00 GMT";

async fn with(client: &Client, method: &str, name: &str, value: &str) -> u16 {
    let body = if method == "PUT" { b"world".to_vec() } else { Vec::new() };
    client.request(method, "/a-job/x").header(name, value).body(body).send().await.status
}

#[tokio::test]
async fn reads() {
    let server = Server::start().await;
    let client = server.bucket().await;
    client.put("/a-job/x", b"hello").await.is(200);
    for method in ["GET", "HEAD"] {
        for (name, value, status) in [
            ("if-match", TAG, 200),
            ("if-match", "*", 200),
            ("if-match", "\"0\"", 412),
            ("if-none-match", TAG, 304),
            ("if-none-match", "*", 304),
            ("if-none-match", "\"0\"", 200),
            ("if-modified-since", PAST, 200),
            ("if-modified-since", FUTURE, 304),
            ("if-unmodified-since", PAST, 412),
            ("if-unmodified-since", FUTURE, 200),
        ] {
            assert_eq!(with(&client, method, name, value).await, status, "{method} {name}: {value}");
        }
    }
    let unchanged = client.request("GET", "/a-job/x").header("if-none-match", TAG).send().await.is(304);
    assert_eq!(unchanged.header("etag"), Some(TAG));
    let modified = client.head("/a-job/x").await.header("last-modified").unwrap().to_owned();
    assert_eq!(with(&client, "GET", "if-modified-since", &modified).await, 304);
    assert_eq!(with(&client, "GET", "if-unmodified-since", &modified).await, 200);
    // A tag goes before a time.
    let both = client.request("GET", "/a-job/x").header("if-match", TAG).header("if-unmodified-since", PAST);
    both.send().await.is(200);
}

#[tokio::test]
async fn writes() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let put = |name: &'static str, value: &'static str| {
        client.request("PUT", "/a-job/x").header(name, value).body(*b"hello").send()
    };
    put("if-match", TAG).await.fails(404, "NoSuchKey");
    put("if-none-match", "*").await.is(200);
    put("if-none-match", "*").await.fails(412, "PreconditionFailed");
    put("if-match", "\"0\"").await.fails(412, "PreconditionFailed");
    put("if-match", TAG).await.is(200);
    put("if-none-match", TAG).await.fails(501, "NotImplemented");
    assert_eq!(with(&client, "DELETE", "if-match", "\"0\"").await, 412);
    assert_eq!(with(&client, "DELETE", "if-match", TAG).await, 204);
    client.get("/a-job/x").await.fails(404, "NoSuchKey");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_make_an_object_only_where_none_is_one_does() {
    let server = Server::start().await;
    let client = server.bucket().await;
    let puts = (0..16).map(|n: u8| {
        let client = client.clone();
        async move {
            let put = client.request("PUT", "/a-job/lock").header("if-none-match", "*").body(vec![n]);
            (n, put.send().await.status)
        }
    });
    let outcomes = futures::future::join_all(puts).await;
    let won: Vec<_> = outcomes.iter().filter(|(_, status)| *status == 200).collect();
    assert_eq!(won.len(), 1, "{outcomes:?}");
    assert!(outcomes.iter().all(|(_, status)| matches!(status, 200 | 412)), "{outcomes:?}");
    assert_eq!(client.get("/a-job/lock").await.body, [won[0].0]);
}
