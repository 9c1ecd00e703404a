//! One request to the server, and its answer.
//!
//! rust-s3 signs; what is sent, and when it is given up, is decided here. Its own
//! client is not used: it takes no certificate of ours, follows redirects under a
//! signature that is not for them, has no limit on connecting, and limits bodies
//! as a whole where it limits anything. All requests go through one client, which
//! is one pool of connections.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::Response;
use shepherd_job::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};
use tokio::time::Instant;
use url::Url;

use super::fault::{Fault, Kind};
use super::layout::{path_of, query_of};
use super::options::{S3Limits, S3Options};
use super::payload::Payload;
use super::retry::Tries;
use super::sign::Signer;
use super::xml::Element;
use crate::{Result, StorageError};

/// The longest answer that is read as text: a page of a thousand keys, each of
/// them encoded.
const LONGEST_TEXT: usize = 16 << 20;

/// How often a body on its way is looked at.
const TICK: Duration = Duration::from_millis(250);

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    bucket: String,
    key: Option<String>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Payload,
}

impl Call {
    /// A request about a bucket; about all of them when its name is empty.
    pub(super) fn bucket(method: Method, bucket: &str) -> Self {
        Self {
            method,
            bucket: bucket.to_owned(),
            key: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: Payload::Bytes(Bytes::new()),
        }
    }

    pub(super) fn object(method: Method, bucket: &str, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..Self::bucket(method, bucket) }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// A header that need not be signed.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    pub(super) fn body(mut self, body: Payload) -> Self {
        self.body = body;
        self
    }

    fn path_and_query(&self) -> String {
        let mut path = format!("/{}", path_of(&self.bucket));
        if let Some(key) = &self.key {
            path.push('/');
            path.push_str(&path_of(key));
        }
        for (n, (name, value)) in self.query.iter().enumerate() {
            path.push(if n == 0 { '?' } else { '&' });
            path.push_str(name);
            path.push('=');
            path.push_str(&query_of(value));
        }
        path
    }
}

/// The connections to a server.
pub(super) struct Http {
    http: reqwest::Client,
    base: String,
    proxy: Option<String>,
    signer: Signer,
    pub(super) limits: S3Limits,
}

impl Http {
    pub(super) fn new(options: &S3Options) -> Result<Self> {
        let base = base(&options.url)?;
        let secure = base.scheme() == "https";
        let mut http = reqwest::Client::builder()
            .http1_only()
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
            .connect_timeout(options.limits.connect)
            // Servers close what is idle for long; a request on its way is lost then.
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .tls_built_in_root_certs(secure)
            .user_agent(concat!("shepherd/", env!("CARGO_PKG_VERSION")))
            // The environment's is for the world outside, and seldom knows of this server.
            .no_proxy();
        if let Some(proxy) = &options.proxy {
            let proxy = reqwest::Proxy::all(proxy).map_err(|error| {
                StorageError::Invalid(format!("the proxy {proxy} cannot be used: {}", Fault::sent(error)))
            })?;
            http = http.proxy(proxy);
        }
        if let (Some(file), true) = (&options.ca_file, secure) {
            for certificate in certificates(file)? {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http.build().map_err(|error| {
            StorageError::Invalid(format!(
                "connections to the storage cannot be set up: {}",
                Fault::sent(error)
            ))
        })?;
        let signer = Signer::new(options.credentials.clone(), &options.region, &base)?;
        let base = base.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http, base, proxy: options.proxy.clone(), signer, limits: options.limits.clone() })
    }

    /// Sends a request until it is answered, as long as `tries` allows, and gives
    /// the answer's head. `limit` is for one try.
    pub(super) async fn call(
        &self,
        call: &Call,
        limit: Duration,
        tries: &mut Tries,
    ) -> std::result::Result<Response, Fault> {
        let hash = call.body.hash().await?;
        loop {
            match self.once(call, &hash, limit, tries).await {
                Ok(response) => return Ok(response),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// The same for an answer that is read as a whole.
    pub(super) async fn text(
        &self,
        call: &Call,
        limit: Duration,
        tries: &mut Tries,
    ) -> std::result::Result<String, Fault> {
        let hash = call.body.hash().await?;
        loop {
            let read = async {
                let response = self.once(call, &hash, limit, tries).await?;
                let text = self.read(response).await?;
                // An answer that was begun with 200 may end as an error.
                match text.contains("<Error")
                    && Element::parse(&text).is_some_and(|root| root.name == "Error")
                {
                    true => Err(Fault::answered(200, &text, call.key.is_some())),
                    false => Ok(text),
                }
            };
            match read.await {
                Ok(text) => return Ok(text),
                Err(fault) => tries.again(fault).await?,
            }
        }
    }

    /// One try. The time in which a body was on its way is none of the tries'.
    async fn once(
        &self,
        call: &Call,
        hash: &str,
        limit: Duration,
        tries: &mut Tries,
    ) -> std::result::Result<Response, Fault> {
        let mut request = self.request(call, hash)?;
        let (body, progress) = call.body.body();
        if call.body.len() > 0 {
            *request.body_mut() = Some(body);
        }
        let (begun, left) = (Instant::now(), tries.left());
        let mut answer = std::pin::pin!(self.http.execute(request));
        let response = loop {
            let sent = progress.now();
            let limit = if sent.all { limit.min(left) } else { self.limits.progress };
            let until = sent.last + limit;
            let look = if sent.all { until } else { until.min(Instant::now() + TICK) };
            match tokio::time::timeout_at(look, &mut answer).await {
                Ok(answered) => break answered.map_err(|error| self.unreachable(error)),
                Err(_) if look < until || progress.now().last > sent.last => {}
                Err(_) => {
                    let what = if sent.all { "no answer" } else { "the body was not taken" };
                    let message = format!("{what} within {} s", limit.as_secs_f32());
                    break Err(Fault::new(Kind::Away, message));
                }
            }
        };
        let sent = progress.now();
        tries.excuse(sent.last.saturating_duration_since(begun));
        if let Some(fault) = sent.broken {
            return Err(fault);
        }
        let response = response?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = response.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        let location = header(response.headers(), http::header::LOCATION.as_str()).map(str::to_owned);
        // What cannot be read says nothing; the status does.
        let body = self.read(response).await.unwrap_or_default();
        if status.is_redirection() {
            let to = location.or_else(|| Element::parse(&body).map(|root| root.get("Endpoint").to_owned()));
            let message = format!(
                "the server answered {} and redirects to {:?}; are the storage's URL and region right?",
                status.as_u16(),
                to.unwrap_or_default(),
            );
            return Err(Fault::new(Kind::Broken, message));
        }
        let mut fault = Fault::answered(status.as_u16(), &body, call.key.is_some());
        fault.after = after.map(Duration::from_secs);
        Err(fault)
    }

    /// Nothing came back. The proxy may be to blame, so it is named.
    fn unreachable(&self, error: reqwest::Error) -> Fault {
        let fault = Fault::sent(error);
        match &self.proxy {
            None => fault,
            Some(proxy) => fault.through(proxy),
        }
    }

    fn request(&self, call: &Call, hash: &str) -> std::result::Result<reqwest::Request, Fault> {
        let refused = |error: &dyn std::fmt::Display| {
            Fault::new(Kind::Refused, format!("the request cannot be made: {error}"))
        };
        let path = call.path_and_query();
        let text = format!("{}{path}", self.base);
        let url = Url::parse(&text).map_err(|error| refused(&error))?;
        if url.as_str() != text {
            // The URL means another object.
            return Err(refused(&format_args!("{path:?} is no path of a URL")));
        }
        let mut headers = HeaderMap::with_capacity(8);
        self.signer
            .sign(call.method.as_str(), &url, hash, OffsetDateTime::now_utc(), &mut headers)
            .map_err(|error| refused(&error))?;
        headers.extend(call.headers.iter().cloned());
        if matches!(call.method, Method::PUT | Method::POST) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        }
        let mut request = reqwest::Request::new(call.method.clone(), url);
        *request.headers_mut() = headers;
        Ok(request)
    }

    async fn read(&self, mut response: Response) -> std::result::Result<String, Fault> {
        let mut text = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            text.extend_from_slice(&piece);
            if text.len() > LONGEST_TEXT {
                return Err(Fault::new(Kind::Broken, "the server's answer does not end"));
            }
        }
        String::from_utf8(text).map_err(|_| Fault::new(Kind::Broken, "the server's answer is no text"))
    }

    /// The next piece of an answer's body.
    pub(super) async fn piece(&self, response: &mut Response) -> std::result::Result<Option<Bytes>, Fault> {
        match tokio::time::timeout(self.limits.progress, response.chunk()).await {
            Ok(piece) => piece.map_err(Fault::sent),
            Err(_) => Err(Fault::new(
                Kind::Away,
                format!("nothing more came within {} s", self.limits.progress.as_secs_f32()),
            )),
        }
    }
}

/// The header's value, when it is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The time that a header or an answer tells, in either of their notations.
pub(super) fn time_of(text: &str) -> Option<Timestamp> {
    let time =
        OffsetDateTime::parse(text, &Rfc2822).or_else(|_| OffsetDateTime::parse(text, &Rfc3339)).ok()?;
    let micros = time.unix_timestamp().checked_mul(1_000_000)?;
    Some(Timestamp::from_micros(micros + i64::from(time.microsecond())))
}

fn base(url: &str) -> Result<Url> {
    let refuse = |why: &str| Err(StorageError::Invalid(format!("the storage's URL {why}")));
    let Ok(base) = Url::parse(url) else { return refuse("cannot be understood") };
    if !matches!(base.scheme(), "http" | "https") {
        return refuse("must begin with http:// or https://");
    }
    // It may hold a secret, so it is not shown.
    if !base.username().is_empty() || base.password().is_some() {
        return refuse("must not hold a user or a password");
    }
    if base.query().is_some() || base.fragment().is_some() {
        return refuse("must not hold a query or a fragment");
    }
    Ok(base)
}

fn certificates(file: &Path) -> Result<Vec<reqwest::Certificate>> {
    let shown = file.display();
    let pem = std::fs::read(file)
        .map_err(|error| StorageError::Invalid(format!("read the certificates in {shown}: {error}")))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(StorageError::Invalid(format!("{shown} holds no certificates in PEM"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_queries_are_encoded() {
        let call = Call::object(Method::GET, "bucket", "/a b//c+d%2F/")
            .query("prefix", "a b/+")
            .query("uploads", "");
        assert_eq!(call.path_and_query(), "/bucket//a%20b//c%2Bd%252F/?prefix=a%20b%2F%2B&uploads=");
        assert_eq!(Call::bucket(Method::GET, "").path_and_query(), "/");
    }

    #[test]
    fn urls_that_are_none_of_a_store_are_refused() {
        for url in [
            "",
            "host",
            "ftp://host",
            "http://user:secret@host",
            "http://host?a=b",
            "http://host#a",
            "http://",
        ] {
            let refused = base(url).unwrap_err().to_string();
            assert!(!refused.contains("secret"), "{refused}");
        }
        for url in ["http://127.0.0.1:7000", "https://host/base/", "https://[::1]:9000"] {
            assert!(base(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn times_are_understood_as_headers_and_listings_have_them() {
        let micros = 1_259_253_030_000_000;
        assert_eq!(time_of("Thu, 26 Nov 2009 16:30:30 GMT").unwrap().as_micros(), micros);
        assert_eq!(time_of("2009-11-26T16:30:30.000Z").unwrap().as_micros(), micros);
        assert_eq!(time_of("2009-11-26T16:30:30.250Z").unwrap().as_micros(), micros + 250_000);
        assert!(time_of("yesterday").is_none());
    }
}
