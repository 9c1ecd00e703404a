//! A registry's other face: it passes requests on, or misbehaves as told.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What is done with a request.
#[derive(Clone, Debug)]
pub(super) enum Behaviour {
    Pass,
    /// The answer to each is held up after so many bytes in all, until it is released.
    HoldAfter(usize),
    /// Nothing is ever answered.
    Silent,
    /// Number of requests that are answered with this status; the rest is passed on.
    Fail {
        times: usize,
        status: &'static str,
    },
    /// Answered only with a bearer token, which `USER:PASSWORD` buys.
    Tokens {
        login: String,
    },
}

pub(super) struct Relay {
    pub(super) authority: String,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

struct State {
    upstream: String,
    behaviour: watch::Sender<Behaviour>,
    requests: watch::Sender<Vec<String>>,
    /// Bytes of answers that were passed on.
    passed: watch::Sender<usize>,
    /// Connections that the engine gave up while their answer was held up.
    given_up: watch::Sender<usize>,
    failed: Mutex<usize>,
    authority: String,
}

impl Relay {
    pub(super) async fn start(upstream: &str, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            behaviour: watch::Sender::new(behaviour),
            requests: watch::Sender::default(),
            passed: watch::Sender::default(),
            given_up: watch::Sender::default(),
            failed: Mutex::default(),
            authority: authority.clone(),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { state.serve(client).await });
            }
        });
        Self { authority, state, accepting }
    }

    pub(super) fn set(&self, behaviour: Behaviour) {
        self.state.behaviour.send_replace(behaviour);
    }

    /// Request lines with this in them, so far.
    pub(super) fn count(&self, part: &str) -> usize {
        self.state.requests.borrow().iter().filter(|line| line.contains(part)).count()
    }

    /// Waits until this many bytes of answers were passed on.
    pub(super) async fn passed(&self, bytes: usize) {
        self.state.passed.subscribe().wait_for(|passed| *passed >= bytes).await.unwrap();
    }

    /// Waits until the engine has given up what [`Behaviour::HoldAfter`] holds up. It
    /// looks whether it is still wanted when something comes: so a little is let
    /// through again and again.
    pub(super) async fn given_up(&self) {
        let Behaviour::HoldAfter(held_at) = self.state.behaviour.borrow().clone() else {
            panic!("nothing is held up");
        };
        let mut given_up = self.state.given_up.subscribe();
        for step in 1..=200 {
            self.set(Behaviour::HoldAfter(held_at + step * 9_000));
            let waiting = given_up.wait_for(|count| *count > 0);
            if tokio::time::timeout(Duration::from_millis(100), waiting).await.is_ok() {
                return;
            }
        }
        panic!("the engine does not give up");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    /// Serves one request, for each connection has only one.
    async fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut head = vec![client.read_u8().await.ok()?];
        // The engine tries https first; as the registry would, this does not speak it.
        if !head[0].is_ascii_uppercase() {
            return None;
        }
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).ok()?;
        let (line, headers) = head.split_once("\r\n")?;
        self.requests.send_modify(|requests| requests.push(line.to_owned()));
        let behaviour = self.behaviour.borrow().clone();
        match &behaviour {
            Behaviour::Pass | Behaviour::HoldAfter(_) => {}
            Behaviour::Silent => {
                let _ = client.read(&mut [0]).await;
                return None;
            }
            Behaviour::Fail { times, status } => {
                let fail = {
                    let mut failed = self.failed.lock().unwrap();
                    *failed += 1;
                    *failed <= *times
                };
                if fail {
                    return answer(&mut client, status, "", "{}").await;
                }
            }
            Behaviour::Tokens { login } => {
                let wanted = format!("Authorization: Basic {}", STANDARD.encode(login));
                if line.contains(" /token") {
                    return match headers.contains(&wanted) {
                        true => answer(&mut client, "200 OK", "", r#"{"token":"the-token"}"#).await,
                        false => answer(&mut client, "401 Unauthorized", "", r#"{"details":"no"}"#).await,
                    };
                }
                if !headers.contains("Authorization: Bearer the-token") {
                    let authority = &self.authority;
                    let ask = format!(
                        "WWW-Authenticate: Bearer realm=\"http://{authority}/token\",service=\"relay\"\r\n"
                    );
                    let errors =
                        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
                    return answer(&mut client, "401 Unauthorized", &ask, errors).await;
                }
            }
        }
        let headers: String = headers
            .split_inclusive("\r\n")
            .filter(|header| {
                let header = header.to_ascii_lowercase();
                let bought = header.starts_with("authorization: bearer");
                !header.starts_with("connection:") && !bought && header != "\r\n"
            })
            .collect();
        let mut server = TcpStream::connect(&self.upstream).await.ok()?;
        server.write_all(format!("{line}\r\n{headers}Connection: close\r\n\r\n").as_bytes()).await.ok()?;
        let mut buffer = vec![0; 8192];
        loop {
            let read = server.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
            let mut told = self.behaviour.subscribe();
            let passed = *self.passed.borrow();
            let is_free =
                |behaviour: &Behaviour| !matches!(behaviour, Behaviour::HoldAfter(limit) if passed >= *limit);
            let mut end = [0];
            tokio::select! {
                freed = told.wait_for(is_free) => { freed.ok()?; }
                _ = client.read(&mut end) => {
                    self.given_up.send_modify(|count| *count += 1);
                    return None;
                }
            }
            client.write_all(&buffer[..read]).await.ok()?;
            self.passed.send_modify(|passed| *passed += read);
        }
    }
}

async fn answer(client: &mut TcpStream, status: &str, headers: &str, body: &str) -> Option<()> {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    );
    client.write_all(text.as_bytes()).await.ok()?;
    client.shutdown().await.ok()
}
