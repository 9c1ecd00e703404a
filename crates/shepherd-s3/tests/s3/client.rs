//! A client that says exactly what it is told to.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::server::{ACCESS_KEY, SECRET_KEY};
use crate::sign;

/// How a request says who it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Auth {
    Header,
    Presigned,
    Anonymous,
}

#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    pub(crate) access_key: String,
    pub(crate) secret_key: String,
}

/// A request to be.
pub(crate) struct Request {
    client: Client,
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    unsigned: Vec<(String, String)>,
    body: Vec<u8>,
    payload: Option<String>,
    auth: Auth,
    offset: i64,
    expires: String,
    /// The name it is sent to, instead of the address.
    host: Option<String>,
    /// How much of the body is sent before the connection is closed.
    cut: Option<usize>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }

    /// An error with this code.
    #[track_caller]
    pub(crate) fn fails(self, status: u16, code: &str) {
        assert_eq!(self.code().as_deref(), Some(code), "{} {}", self.status, self.text());
        assert_eq!(self.status, status);
        assert!(self.text().contains("<Message>"), "{}", self.text());
    }

    pub(crate) fn code(&self) -> Option<String> {
        crate::server::element(self, "Code")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Encodes a key as a path.
pub(crate) fn encode(text: &str, keep_slash: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (keep_slash && b == b'/');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, access_key: ACCESS_KEY.to_owned(), secret_key: SECRET_KEY.to_owned() }
    }

    /// `target` is a path and perhaps a query, both encoded.
    pub(crate) fn request(&self, method: &str, target: &str) -> Request {
        Request {
            client: self.clone(),
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            unsigned: Vec::new(),
            body: Vec::new(),
            payload: None,
            auth: Auth::Header,
            offset: 0,
            expires: "60".to_owned(),
            host: None,
            cut: None,
        }
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.request("GET", target).send().await
    }

    pub(crate) async fn head(&self, target: &str) -> Answer {
        self.request("HEAD", target).send().await
    }

    pub(crate) async fn put(&self, target: &str, body: &[u8]) -> Answer {
        self.request("PUT", target).body(body).send().await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        self.request("POST", target).body(body.as_bytes()).send().await
    }

    pub(crate) async fn delete(&self, target: &str) -> Answer {
        self.request("DELETE", target).send().await
    }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn unsigned_header(mut self, name: &str, value: &str) -> Self {
        self.unsigned.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// What `x-amz-content-sha256` says, instead of the truth.
    pub(crate) fn payload(mut self, payload: impl Into<String>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    pub(crate) fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// As if the clock were so many seconds ahead.
    pub(crate) fn offset(mut self, seconds: i64) -> Self {
        self.offset = seconds;
        self
    }

    pub(crate) fn expires(mut self, seconds: &str) -> Self {
        self.expires = seconds.to_owned();
        self
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    /// Breaks off in the middle of the body.
    pub(crate) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }

    pub(crate) async fn send(self) -> Answer {
        self.send_with(|body, _, _| body).await.expect("an answer")
    }

    /// `frame` makes what is sent of the body, the date and the signature.
    pub(crate) async fn send_with(
        mut self,
        frame: impl FnOnce(Vec<u8>, &str, &str) -> Vec<u8>,
    ) -> Option<Answer> {
        let date = sign::date(self.offset);
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let (path, mut query) = (path.to_owned(), query.to_owned());
        let payload = self.payload.clone().unwrap_or_else(|| sign::sha256(&self.body));
        let host = self.host.take().unwrap_or_else(|| self.client.address.to_string());
        self.headers.push(("host".to_owned(), host));
        if self.auth == Auth::Header {
            self.headers.push(("x-amz-content-sha256".to_owned(), payload.clone()));
            self.headers.push(("x-amz-date".to_owned(), date.clone()));
        }
        self.headers.sort();
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(";");
        let credential = format!("{}/{}", self.client.access_key, sign::scope(&date));
        if self.auth == Auth::Presigned {
            let more = [
                ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
                ("X-Amz-Credential", &credential),
                ("X-Amz-Date", &date),
                ("X-Amz-Expires", &self.expires),
                ("X-Amz-SignedHeaders", &names),
            ];
            let more = more.iter().map(|(name, value)| format!("{name}={}", encode(value, false)));
            let mut pairs: Vec<_> =
                query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
            pairs.extend(more);
            query = pairs.join("&");
        }
        let mut pairs: Vec<_> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
            .collect();
        pairs.sort();
        let canonical = pairs.join("&");
        let signed = if self.auth == Auth::Presigned { "UNSIGNED-PAYLOAD" } else { &payload };
        let signature = sign::request(
            &self.client.secret_key,
            &date,
            // A slash is a slash to S3, however it travels.
            (&self.method, &path.replace("%2F", "/"), &canonical),
            &self.headers,
            signed,
        );
        let mut target = path;
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        match self.auth {
            Auth::Header => self.unsigned.push((
                "authorization".to_owned(),
                format!(
                    "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
                ),
            )),
            Auth::Presigned => target = format!("{target}&X-Amz-Signature={signature}"),
            Auth::Anonymous => {}
        }
        let body = frame(std::mem::take(&mut self.body), &date, &signature);
        let mut head = format!("{} {target} HTTP/1.1\r\nconnection: close\r\n", self.method);
        if !body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        for (name, value) in self.headers.iter().chain(&self.unsigned) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut stream = TcpStream::connect(self.client.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let sent = self.cut.unwrap_or(body.len());
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(&body[..sent]).await;
        if self.cut.is_some() {
            stream.shutdown().await.unwrap();
        }
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    if head.starts_with("HTTP/1.1 100") {
        return parse(&bytes[end + 4..]);
    }
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
    let headers: Vec<_> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    if headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        body = unchunked(&body);
    }
    Some(Answer { status, headers, body })
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
    body
}
