//! A client of the HTTP API that takes nothing for granted: it shows the status,
//! the headers and the bytes of every answer.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{PATIENCE, Script};

/// A model by name and version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// Its version; may be empty.
    pub version: &'static str,
}

impl Model {
    /// As a request names it.
    pub fn json(self) -> Value {
        json!({"name": self.name, "version": self.version})
    }
}

/// The body of a submit with a payload.
pub fn start_body(job: &str, model: Model, payload: &str) -> Value {
    json!({"job_id": job, "model": model.json(), "payload": payload})
}

/// Asks one daemon; each request goes over a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status code.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Client {
    /// Of the daemon at an address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Where the daemon listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and reads the answer whole.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_send(&self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Reply> {
        let host = header::HeaderValue::from_str(&self.address.to_string())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let stream = TcpStream::connect(self.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async {
            let response = sender.send_request(request).await.context("sending")?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.context("reading the body")?.to_bytes();
            anyhow::Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
        };
        // The connection has to be driven while the answer is awaited; one that ends
        // first says nothing that the exchange does not say better.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            reply = &mut exchange => reply,
            _ = &mut connection => exchange.await,
        }
    }

    /// Sends a request that must be answered.
    ///
    /// # Panics
    /// When it is not.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let what = format!("{} {}", request.method(), request.uri());
        let reply = tokio::time::timeout(PATIENCE, self.try_send(request)).await;
        let reply = reply.unwrap_or_else(|_| panic!("{what} was not answered"));
        reply.unwrap_or_else(|e| panic!("{what} was not answered: {e:#}"))
    }

    /// A request of any method, without a body.
    pub async fn ask(&self, method: Method, path: &str) -> Reply {
        self.send(bare(method, path)).await
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path).await
    }

    /// `GET path` with one more header.
    ///
    /// # Panics
    /// When it is not answered.
    pub async fn get_with(&self, path: &str, name: header::HeaderName, value: &str) -> Reply {
        let mut request = bare(Method::GET, path);
        request.headers_mut().insert(name, value.parse().expect("a legal header value"));
        self.send(request).await
    }

    /// `GET path` that may fail, as when the daemon is being killed.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_get(&self, path: &str) -> anyhow::Result<Reply> {
        self.try_send(bare(Method::GET, path)).await
    }

    /// `POST /start-job` with a JSON body.
    pub async fn start_job(&self, body: &Value) -> Reply {
        self.send(start_request(body.to_string(), Some("application/json"))).await
    }

    /// `POST /start-job` that may fail, as when the daemon is being killed.
    ///
    /// # Errors
    /// When there is no whole answer: whether the job was accepted is unknown.
    pub async fn try_start_job(&self, body: &Value) -> anyhow::Result<Reply> {
        self.try_send(start_request(body.to_string(), Some("application/json"))).await
    }

    /// `POST /start-job` with any body and any or no content type.
    pub async fn start_job_raw(&self, body: impl Into<Bytes>, content_type: Option<&str>) -> Reply {
        self.send(start_request(body, content_type)).await
    }

    /// Submits a script as the payload.
    pub async fn submit(&self, job: &str, model: Model, script: &Script) -> Submitted {
        Submitted(self.start_job(&start_body(job, model, &script.text())).await)
    }

    /// Submits a script and waits until the job is finished; its status.
    pub async fn run(&self, job: &str, model: Model, script: &Script) -> Value {
        self.submit(job, model, script).await.expect_status(200);
        self.finished(job).await
    }

    /// `GET /jobs/JOB/wait_ready`: the status of the finished job.
    ///
    /// # Panics
    /// When the answer is not 200.
    pub async fn finished(&self, job: &str) -> Value {
        let reply = self.get(&format!("/jobs/{job}/wait_ready")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// `GET /jobs/JOB/status`: the body.
    ///
    /// # Panics
    /// When the answer is not 200.
    pub async fn status(&self, job: &str) -> Value {
        let reply = self.get(&format!("/jobs/{job}/status")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// `GET /jobs/JOB/result`.
    pub async fn result(&self, job: &str) -> Reply {
        self.get(&format!("/jobs/{job}/result")).await
    }

    /// `GET /status`: what it says of one sheep.
    pub async fn sheep(&self, id: &str) -> Value {
        self.get("/status").await.json()["sheep"][id].clone()
    }
}

/// The answer to a submit.
#[derive(Clone, Debug)]
#[must_use]
pub struct Submitted(pub Reply);

impl Submitted {
    /// # Panics
    /// When the status is another.
    pub fn expect_status(&self, status: u16) {
        assert_eq!(self.0.status, status, "{:?}", self.0);
    }
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value, empty when it is not there.
    pub fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Checks the status and the `message` of an error, and that it is sent as JSON.
    ///
    /// # Panics
    /// When it is another answer.
    pub fn expect_message(&self, status: u16, message: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header(header::CONTENT_TYPE), "application/json; charset=utf-8", "{self:?}");
        assert_eq!(self.json(), json!({ "message": message }));
    }

    /// The `message` of an error with this status.
    ///
    /// # Panics
    /// When it is another answer.
    pub fn message(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header(header::CONTENT_TYPE), "application/json; charset=utf-8", "{self:?}");
        self.json()["message"].as_str().unwrap_or_else(|| panic!("no message: {self:?}")).to_owned()
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        StatusCode::from_u16(self.status).is_ok_and(|status| status.is_success())
    }
}

fn bare(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::default()).expect("the path is a legal URI")
}

fn start_request(body: impl Into<Bytes>, content_type: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(Method::POST).uri("/start-job");
    if let Some(content_type) = content_type {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    request.body(Full::new(body.into())).expect("a legal request")
}
