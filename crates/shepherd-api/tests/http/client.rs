//! A client that sends exactly the bytes that a test wants.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the message of an error.
    #[track_caller]
    pub(crate) fn error(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
        (self.status, json["message"].as_str().unwrap().to_owned())
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One request without a body; `lines` are further header lines.
    pub(crate) async fn ask(&mut self, method: &str, path: &str, lines: &[&str]) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for line in lines {
            head.push_str(line);
            head.push_str("\r\n");
        }
        self.send(head + "\r\n").await;
        self.reply_to(method).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        self.ask("GET", path, &[]).await
    }

    pub(crate) async fn post(&mut self, path: &str, content_type: Option<&str>, body: &[u8]) -> Reply {
        let content_type = content_type.map_or(String::new(), |value| format!("content-type: {value}\r\n"));
        let length = body.len();
        self.send(format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\n{content_type}content-length: {length}\r\n\r\n"
        ))
        .await;
        self.send(body).await;
        self.reply().await
    }

    /// A submit whose body has this Content-Encoding.
    pub(crate) async fn post_encoded(&mut self, encoding: &str, body: &[u8]) -> Reply {
        let content_type = format!("application/json\r\ncontent-encoding: {encoding}");
        self.post("/start-job", Some(&content_type), body).await
    }

    pub(crate) async fn start_job(&mut self, body: &str) -> Reply {
        self.post("/start-job", Some("application/json"), body.as_bytes()).await
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    pub(crate) async fn reply_to(&mut self, method: &str) -> Reply {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill().await, "closed before an answer: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut reply = Reply { status, headers, body: Vec::new() };
        let length = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
        if method != "HEAD" && status != 304 {
            while self.read.len() < length {
                assert!(self.fill().await, "closed within a body, {} of {length} bytes", self.read.len());
            }
            reply.body = self.read.drain(..length).collect();
        }
        reply
    }

    /// The next chunk of a body that has no length, none at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.read.windows(2).position(|two| two == b"\r\n") {
                break at;
            }
            assert!(self.fill().await, "closed before a chunk: {:?}", String::from_utf8_lossy(&self.read));
        };
        let head = String::from_utf8(self.read.drain(..end + 2).collect()).unwrap();
        let length = usize::from_str_radix(head.trim_end(), 16).unwrap();
        while self.read.len() < length + 2 {
            assert!(self.fill().await, "closed within a chunk");
        }
        let mut chunk: Vec<u8> = self.read.drain(..length + 2).collect();
        assert!(chunk.ends_with(b"\r\n"));
        chunk.truncate(length);
        (length > 0).then_some(chunk)
    }

    /// The next chunk as text.
    pub(crate) async fn text(&mut self) -> Option<String> {
        Some(String::from_utf8(self.chunk().await?).unwrap())
    }

    /// Reads more; false when the server closed the connection.
    async fn fill(&mut self) -> bool {
        self.stream.read_buf(&mut self.read).await.unwrap() > 0
    }

    /// All that comes until the server closes the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.fill().await {}
        String::from_utf8(std::mem::take(&mut self.read)).unwrap()
    }

    /// Waits until the server closes the connection, and nothing more came.
    pub(crate) async fn closed(&mut self) {
        let more = self.stream.read_buf(&mut self.read).await.unwrap_or(0);
        assert_eq!((more, self.read.len()), (0, 0), "{:?}", String::from_utf8_lossy(&self.read));
    }
}
