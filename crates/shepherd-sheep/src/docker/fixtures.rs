//! What tests of several modules need: a sheep's options, and the engine to test with.

use std::path::PathBuf;
use std::time::Duration;

use shepherd_job::SheepId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{DockerOptions, Engine, EngineHost, EngineOptions, Pull};
use crate::Transport;

/// The options of a sheep of which nothing is configured.
pub(super) fn options() -> DockerOptions {
    DockerOptions {
        id: SheepId::parse("dolly").unwrap(),
        data_root: "/data/dolly".into(),
        transport: Transport::Ipc,
        port: 0,
        devices: Vec::new(),
        gpus: None,
        cdi: Vec::new(),
        autoremove: false,
        memory: None,
        cpus: None,
        pids: 100,
        shm_size: None,
        user: None,
        env: Vec::new(),
        mounts: Vec::new(),
        network: None,
        read_only: true,
        capabilities: Vec::new(),
        models: None,
        pull: Pull::Missing,
        entrypoint: None,
        command: None,
        stdout_file: None,
        stderr_file: None,
        log_max_bytes: 1000,
        log_files: 1,
    }
}

/// An engine whose options are patient, and changed by `change`.
pub(super) fn engine(host: &EngineHost, registry: &str, change: impl FnOnce(&mut EngineOptions)) -> Engine {
    let mut options = EngineOptions {
        host: host.clone(),
        instance: "test".to_owned(),
        flock: Vec::new(),
        registry: registry.to_owned(),
        login: None,
        registry_patience: Duration::from_secs(60),
        image_budget: None,
        state_dir: PathBuf::from("/nowhere"),
    };
    change(&mut options);
    Engine::new(options).unwrap()
}

/// The socket of the engine to test with.
pub(super) fn engine_socket() -> PathBuf {
    match std::env::var("SHEPHERD_TEST_DOCKER_HOST") {
        Ok(url) => {
            PathBuf::from(url.strip_prefix("unix://").expect("SHEPHERD_TEST_DOCKER_HOST is a unix:// URL"))
        }
        Err(_) => PathBuf::from("/var/run/docker.sock"),
    }
}

/// The engine to test with, where it answers.
pub(super) async fn engine_host() -> Option<EngineHost> {
    let host = EngineHost::Unix(engine_socket());
    if !engine(&host, "localhost", |_| {}).answers(Duration::from_secs(30)).await {
        skip(&format!("no engine answers at {host}"));
        return None;
    }
    Some(host)
}

pub(super) fn skip(reason: &str) {
    let forbidden = std::env::var("SHEPHERD_TEST_NO_SKIP").is_ok_and(|value| value == "1");
    assert!(!forbidden, "a test was to be skipped, and SHEPHERD_TEST_NO_SKIP forbids it: {reason}");
    println!("skipped: {reason}");
}

/// What a fake engine does with a request.
pub(super) enum Answer {
    /// Answers with this status and JSON.
    Json(u16, &'static str),
    /// Says nothing, and keeps the connection open.
    Silence,
    /// Closes the connection.
    Break,
}

/// Does something with an engine that answers as it is told for each request's method and path, pings aside.
pub(super) async fn with_fake<T>(
    mut answer: impl FnMut(&str) -> Answer,
    work: impl AsyncFnOnce(Engine) -> T,
) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = EngineHost::Tcp { authority: listener.local_addr().unwrap().to_string(), tls: None };
    let serving = async {
        let mut silent = JoinSet::new();
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = client.read_u8().await else { break };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let line = head.lines().next().unwrap_or_default().replacen("/v1.41", "", 1);
            let reply = if line.starts_with("GET /_ping") && !line.contains('?') {
                match answer("ping") {
                    Answer::Json(..) => Answer::Json(200, "OK"),
                    other => other,
                }
            } else {
                answer(line.trim_end_matches(" HTTP/1.1"))
            };
            match reply {
                Answer::Json(status, body) => {
                    let length = body.len();
                    let text = format!(
                        "HTTP/1.1 {status} So\r\nApi-Version: 1.41\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                    );
                    // Whoever asked may be gone.
                    let _ = client.write_all(text.as_bytes()).await;
                }
                Answer::Silence => drop(silent.spawn(async move {
                    let _ = client.read_u8().await;
                })),
                Answer::Break => {}
            }
        }
    };
    tokio::select! {
        done = work(engine(&host, "localhost", |_| {})) => done,
        never = serving => never,
    }
}
