//! An answer that comes bit by bit, for as long as the daemon sends and a test reads.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{Client, PATIENCE};

/// An answer that is being read. Dropping it closes its connection.
#[derive(Debug)]
pub struct Stream {
    /// Its status code.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    read: Vec<u8>,
    /// What drives the connection.
    _connection: JoinSet<()>,
}

/// One server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What to come again with.
    pub id: String,
    /// What happened.
    pub name: String,
    /// Of it.
    pub data: Value,
}

impl Client {
    /// `GET path`, with more headers.
    ///
    /// # Panics
    /// When it is not answered.
    pub async fn open(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        tokio::time::timeout(PATIENCE, self.try_open(path, headers))
            .await
            .unwrap_or_else(|_| panic!("GET {path} was not answered"))
            .unwrap_or_else(|e| panic!("GET {path} was not answered: {e:#}"))
    }

    async fn try_open(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Stream> {
        let mut request = Request::builder().method(Method::GET).uri(path);
        request = request.header(header::HOST, self.address().to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let stream = TcpStream::connect(self.address()).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            // How it ended is seen in the body.
            let _ = connection.await;
        });
        let (head, body) = sender.send_request(request.body(Full::<Bytes>::default())?).await?.into_parts();
        Ok(Stream {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            read: Vec::new(),
            _connection: task,
        })
    }
}

impl Stream {
    /// Reads more; whether there was any.
    async fn fill(&mut self) -> bool {
        let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
        let Some(frame) = frame.expect("nothing came for too long") else { return false };
        let frame = frame.unwrap_or_else(|e| panic!("the answer broke off: {e}"));
        self.read.extend(frame.into_data().unwrap_or_default());
        true
    }

    /// Reads until this text came; all that was read and not taken before.
    ///
    /// # Panics
    /// When the answer ends without it.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            if self.read.windows(text.len()).any(|window| window == text.as_bytes()) {
                return self.take();
            }
            assert!(self.fill().await, "no `{text}` in {}", self.take());
        }
    }

    /// Reads to the end; all that was not taken before.
    ///
    /// # Panics
    /// When there is none, or the connection breaks.
    pub async fn rest(&mut self) -> String {
        while self.fill().await {}
        self.take()
    }

    /// The next event; comments and hints are passed over. None at the end.
    ///
    /// # Panics
    /// When it is none.
    pub async fn event(&mut self) -> Option<Event> {
        loop {
            let Some(end) = self.read.windows(2).position(|two| two == b"\n\n") else {
                if self.fill().await {
                    continue;
                }
                assert!(self.read.is_empty(), "it ended within an event: {}", self.take());
                return None;
            };
            let block = String::from_utf8(self.read.drain(..end + 2).collect()).expect("events are UTF-8");
            let field = |name: &str| {
                block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
            };
            let Some(data) = field("data") else { continue };
            return Some(Event {
                id: field("id").unwrap_or_else(|| panic!("no id: {block}")),
                name: field("event").unwrap_or_else(|| panic!("no name: {block}")),
                data: serde_json::from_str(&data).unwrap_or_else(|e| panic!("{e}: {data}")),
            });
        }
    }

    /// All events to the end.
    pub async fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.event().await {
            events.push(event);
        }
        events
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }
}
