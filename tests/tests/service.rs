//! The routes that are about the service, and what HTTP expects of any route.

use http::{Method, header};
use serde_json::{Value, json};
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::{Harness, Script};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn status_shows_the_flock() {
    let harness = Harness::new().with_sheep("second", json!({}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let reply = client.get("/status").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header(header::CONTENT_TYPE), "application/json; charset=utf-8");
    let status = reply.json();
    let names: Vec<_> = status["sheep"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, [SHEEP, "second"]);
    for sheep in [SHEEP, "second"] {
        assert_eq!(status["sheep"][sheep]["model"], json!({"name": null, "version": null}));
        assert_eq!(status["sheep"][sheep]["request"], Value::Null);
        assert!(status["sheep"][sheep]["running"].is_boolean());
    }

    let gate = harness.path("gate");
    let mut body = shepherd_tests::start_body("job-1", SCRIPTED, &Script::Gate(gate.clone()).text());
    body["sheep_id"] = json!(SHEEP);
    assert_eq!(client.start_job(&body).await.status, 200);
    harness.begun("job-1", 1).await;
    let sheep = client.sheep(SHEEP).await;
    assert_eq!(
        (&sheep["running"], &sheep["model"], &sheep["request"]),
        (&json!(true), &SCRIPTED.json(), &json!("job-1"))
    );
    assert_eq!(client.sheep("second").await["request"], Value::Null);
    harness.open_gate(&gate);
    client.finished("job-1").await;
    shepherd_tests::eventually_async("an idle sheep", || async {
        let sheep = client.sheep(SHEEP).await;
        (sheep["request"].is_null() && sheep["model"] == SCRIPTED.json() && sheep["running"] == true)
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn documentation_is_served_from_the_binary() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for path in ["/ui", "/ui/", "/apidocs", "/apidocs/"] {
        let reply = client.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header(header::CONTENT_TYPE).starts_with("text/html"), "{path}: {reply:?}");
        let text = reply.text();
        assert!(!text.contains("src=\"http") && !text.contains("href=\"http"), "{path} needs the internet");
        assert!(!text.contains("src=\"//") && !text.contains("href=\"//"), "{path} needs the internet");
    }
    let spec = client.get("/spec.json").await;
    assert_eq!(spec.status, 200);
    let spec = spec.json();
    assert!(spec["openapi"].as_str().unwrap().starts_with("3.1"), "{}", spec["openapi"]);
    for path in ["/start-job", "/status", "/jobs/{job_id}/status", "/jobs/{job_id}/wait_ready"] {
        assert!(spec["paths"][path].is_object(), "{path} is not in the specification");
    }
}

#[tokio::test]
async fn health_and_readiness() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    assert_eq!(client.get("/healthz").await.status, 200);
    assert_eq!(client.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn other_paths_and_methods() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    for path in ["/", "/nonsense", "/jobs/abc", "/jobs/abc/nonsense", "/start-job/more", "//status"] {
        assert!(!client.get(path).await.message(404).is_empty(), "{path}");
    }
    for (method, path, allowed) in [
        (Method::GET, "/start-job", "POST"),
        (Method::DELETE, "/start-job", "POST"),
        (Method::POST, "/status", "GET"),
        (Method::PUT, "/jobs/abc/status", "GET"),
        (Method::POST, "/jobs/abc/result", "GET"),
    ] {
        let reply = client.ask(method.clone(), path).await;
        assert!(!reply.message(405).is_empty(), "{method} {path}");
        assert!(reply.header(header::ALLOW).contains(allowed), "{method} {path}: {reply:?}");
    }
    for (path, allowed) in [("/status", "GET"), ("/start-job", "POST"), ("/jobs/abc/result", "GET")] {
        let reply = client.ask(Method::OPTIONS, path).await;
        assert!(reply.is_success(), "{path}: {reply:?}");
        assert!(reply.header(header::ALLOW).contains(allowed), "{path}: {reply:?}");
    }
    let (get, head) = (client.get("/status").await, client.ask(Method::HEAD, "/status").await);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header(header::CONTENT_LENGTH), get.body.len().to_string());
}

#[tokio::test]
async fn other_origins_are_not_let_in_unasked() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let reply = daemon.client().get_with("/status", header::ORIGIN, "https://elsewhere.example").await;
    assert_eq!(reply.status, 200);
    assert!(!reply.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{reply:?}");
}

#[tokio::test]
async fn origins_that_are_configured_are_let_in() {
    let harness = Harness::new().with(json!({"api": {"cors_origins": ["https://friend.example"]}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let allowed =
        |reply: &shepherd_tests::Reply| reply.header(header::ACCESS_CONTROL_ALLOW_ORIGIN).to_owned();
    let reply = client.get_with("/status", header::ORIGIN, "https://friend.example").await;
    assert_eq!((reply.status, allowed(&reply).as_str()), (200, "https://friend.example"));
    let reply = client.get_with("/status", header::ORIGIN, "https://stranger.example").await;
    assert_eq!((reply.status, allowed(&reply).as_str()), (200, ""));
    // An error is for the client's eyes, too.
    let reply = client.get_with("/jobs/nobody/status", header::ORIGIN, "https://friend.example").await;
    assert_eq!((reply.status, allowed(&reply).as_str()), (400, "https://friend.example"));
    let preflight = http::Request::builder()
        .method(Method::OPTIONS)
        .uri("/start-job")
        .header(header::ORIGIN, "https://friend.example")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
        .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "content-type")
        .body(http_body_util::Full::default())
        .unwrap();
    let reply = client.send(preflight).await;
    assert!(reply.is_success(), "{reply:?}");
    assert!(reply.header(header::ACCESS_CONTROL_ALLOW_METHODS).contains("POST"), "{reply:?}");
    let headers = reply.header(header::ACCESS_CONTROL_ALLOW_HEADERS).to_ascii_lowercase();
    assert!(headers.contains("content-type") || headers == "*", "{reply:?}");
}

#[tokio::test]
async fn a_client_that_never_finishes_its_request_is_let_go() {
    let harness = Harness::new().with(json!({"limits": {"request_header_timeout": "200ms"}}));
    let daemon = harness.start().await;
    let client = daemon.client();
    let mut slow = Vec::new();
    for bytes in ["", "G", "GET /status HTTP/1.1\r\nHost: x\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(client.address()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(client.get("/status").await.status, 200);
    for mut stream in slow {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(shepherd_tests::PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "the daemon holds the connection open");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    }
}

/// Sends bytes and reads until the daemon closes or has answered.
async fn talk(client: &shepherd_tests::Client, bytes: &[u8]) -> String {
    let mut stream = tokio::net::TcpStream::connect(client.address()).await.expect("it listens");
    // Refused early, the rest may not be taken: the answer is what counts.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bytes_that_are_no_http_disturb_nobody() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let long_header = [b"GET /status HTTP/1.1\r\nX: ".as_slice(), &[b'a'; 1 << 20], b"\r\n\r\n"].concat();
    let cases: [&[u8]; 6] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET /status HTTP/9.9\r\n\r\n",
        b"POST /start-job HTTP/1.1\r\nHost: x\r\nContent-Length: nonsense\r\n\r\n{}",
        b"POST /start-job HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"job_id\":",
        b"POST /start-job HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        &long_header,
    ];
    for bytes in cases {
        let answer = talk(&client, bytes).await;
        assert!(!answer.contains(" 200 ") && !answer.contains(" 500 "), "{answer}");
    }
    assert_eq!(client.get("/status").await.status, 200);
    assert_eq!(client.run("after", SCRIPTED, &Script::Say("fine".into())).await["status"], "done");
}

#[tokio::test]
async fn clients_that_vanish_while_they_wait_cost_nothing() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("awaited", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("awaited", 1).await;
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = open_files();
    for vanish in 0..5 {
        let mut stream = tokio::net::TcpStream::connect(client.address()).await.unwrap();
        stream.write_all(b"GET /jobs/awaited/wait_ready HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        if vanish % 2 == 0 {
            // A reset and not a close.
            stream.set_zero_linger().unwrap();
        }
        drop(stream);
    }
    // The submit of one who leaves before its answer counts or does not; nothing between.
    let mut stream = tokio::net::TcpStream::connect(client.address()).await.unwrap();
    let body = shepherd_tests::start_body("left", SCRIPTED, "payload").to_string();
    let head = format!(
        "POST /start-job HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    drop(stream);
    shepherd_tests::eventually("the connections to be closed", || (open_files() <= before).then_some(()))
        .await;
    harness.open_gate(&gate);
    assert_eq!(client.finished("awaited").await["status"], "done");
    let left = client.get("/jobs/left/status").await;
    match left.status {
        200 => assert_eq!(client.finished("left").await["status"], "done"),
        _ => left.expect_message(400, "Data for job `left` does not exist"),
    }
    assert_eq!(client.run("after", SCRIPTED, &Script::Say("fine".into())).await["status"], "done");
}
