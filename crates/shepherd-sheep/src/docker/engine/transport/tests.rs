use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::docker::engine::Trouble;

fn moved(uri: &str, version: Option<(u32, u32)>) -> String {
    versioned(&uri.parse().unwrap(), version).unwrap().to_string()
}

#[test]
fn a_path_carries_the_version_agreed_on_once() {
    assert_eq!(
        moved("http://engine/images/a%2Fb/json?all=true", Some((1, 41))),
        "/v1.41/images/a%2Fb/json?all=true"
    );
    assert_eq!(moved("http://engine/v1.53/version", Some((1, 41))), "/v1.41/version");
    assert_eq!(moved("http://engine/version", None), "/version");
    // Should bollard come to know another version, `newest` has it too.
    assert_eq!(newest(), (1, 53));
}

#[test]
fn the_engine_s_version_is_two_numbers_or_unknown() {
    assert_eq!(parse_version("1.41"), Some((1, 41)));
    for odd in ["", "1", "1.x", "1.41.2", "v1.41", "-1.2"] {
        assert_eq!(parse_version(odd), None, "{odd}");
    }
}

#[test]
fn credentials_are_in_the_url_s_base64_and_never_printed() {
    let mut headers = HeaderMap::new();
    headers.insert(REGISTRY_AUTH, HeaderValue::from_static("ab+/+z=="));
    mend_credentials(&mut headers);
    assert_eq!(headers[REGISTRY_AUTH], "ab-_-z==");
    assert!(!format!("{headers:?}").contains("ab-_"));
}

/// An engine that answers each request on a connection of its own with the next of
/// `answers`, and keeps the request lines. After the last it is away.
async fn engine_with(answers: Vec<String>) -> (Arc<Transport>, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = EngineHost::Tcp { authority: listener.local_addr().unwrap().to_string(), tls: None };
    let serving = tokio::spawn(async move {
        let mut lines = Vec::new();
        for answer in answers {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            lines.push(String::from_utf8(head).unwrap().lines().next().unwrap().to_owned());
            client.write_all(answer.as_bytes()).await.unwrap();
        }
        lines
    });
    (Arc::new(Transport::new(host).unwrap()), serving)
}

fn answer(version: &str) -> String {
    let version = if version.is_empty() { String::new() } else { format!("Api-Version: {version}\r\n") };
    format!("HTTP/1.1 200 OK\r\n{version}Content-Length: 2\r\n\r\nOK")
}

fn request() -> BollardRequest {
    let mut request = Request::new(http_body_util::Either::Left(http_body_util::Full::default()));
    *request.uri_mut() = Uri::from_static("http://engine/info");
    request
}

#[tokio::test]
async fn the_version_is_agreed_on_once_and_again_with_an_engine_that_changed() {
    let answers = ["1.41", "1.41", "1.41", "1.99", "1.99", "1.99"].map(answer).to_vec();
    let (transport, serving) = engine_with(answers).await;
    for _ in 0..4 {
        Arc::clone(&transport).send(request()).await.unwrap();
    }
    let ours = format!("GET /v{}.{}/info HTTP/1.1", newest().0, newest().1);
    assert_eq!(
        serving.await.unwrap(),
        [
            "GET /_ping HTTP/1.1",
            "GET /v1.41/info HTTP/1.1",
            "GET /v1.41/info HTTP/1.1",
            // This one's answer names another version.
            "GET /v1.41/info HTTP/1.1",
            "GET /_ping HTTP/1.1",
            &ours,
        ]
    );
    assert!(Arc::clone(&transport).send(request()).await.is_err());
    assert_eq!(*transport.agreed.lock().unwrap(), None);
}

#[tokio::test]
async fn an_engine_that_names_no_version_is_asked_without_one() {
    let (transport, serving) = engine_with(vec![answer(""), answer(""), answer("")]).await;
    for _ in 0..2 {
        Arc::clone(&transport).send(request()).await.unwrap();
    }
    assert_eq!(serving.await.unwrap(), ["GET /_ping HTTP/1.1", "GET /info HTTP/1.1", "GET /info HTTP/1.1"]);
}

#[tokio::test]
async fn what_answers_a_ping_with_an_error_is_no_engine_in_order() {
    let (transport, _serving) =
        engine_with(vec!["HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned()]).await;
    assert!(Trouble::from(transport.ping().await.unwrap_err()).is_status(500));
}

#[tokio::test]
async fn what_a_proxy_answers_in_the_engine_s_place_is_a_loss() {
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let proxys = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        let engines = format!("HTTP/1.1 {status}\r\nApi-Version: 1.41\r\nContent-Length: 0\r\n\r\n");
        let (transport, _serving) = engine_with(vec![proxys.clone(), answer("1.41"), engines, proxys]).await;
        assert!(matches!(Trouble::from(transport.ping().await.unwrap_err()), Trouble::Lost(_)), "{status}");
        let docker = crate::docker::engine::Link::over(transport).unwrap().docker;
        let start = async || Trouble::from(docker.start_container("c", None).await.unwrap_err());
        assert!(matches!(start().await, Trouble::Refused { .. }), "{status}: the engine's own");
        assert!(matches!(start().await, Trouble::Lost(_)), "{status}");
    }
}

#[tokio::test]
async fn a_machine_that_is_gone_without_a_sign_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    keep_alive(&stream).unwrap();
    assert!(sockopt::socket_keepalive(&stream).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE_PERIOD);
    assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), 60_000);
}

#[tokio::test]
async fn a_listener_behind_which_nobody_answers_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.sock");
    let host = EngineHost::Unix(path.clone());
    let link = crate::docker::engine::Link::new(host).unwrap();
    // Nothing is there at all.
    assert!(!link.answers(Duration::from_secs(60)).await);
    let refused = link.unavailable(&link.reached().await.unwrap_err()).to_string();
    assert!(refused.contains(&format!("unix://{}", path.display())), "{refused}");
    // As systemd does before it starts the engine.
    let _listener = tokio::net::UnixListener::bind(&path).unwrap();
    assert!(!link.answers(Duration::from_millis(50)).await);
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_middle_of_an_answer_is_a_loss() {
    let broken = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Length: 200\r\n\r\n{".to_owned();
    let (transport, serving) = engine_with(vec![answer("1.41"), broken]).await;
    let docker = crate::docker::engine::Link::over(transport).unwrap().docker;
    let trouble = Trouble::from(docker.info().await.unwrap_err());
    assert!(matches!(trouble, Trouble::Lost(_)), "{trouble:?}");
    serving.await.unwrap();
}
