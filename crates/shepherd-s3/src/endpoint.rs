//! The endpoint as an HTTP service.
//!
//! Two kinds of requests that s3s would take are turned away before it: forms that
//! post an object, whose file it holds in memory before it looks who sends it, and
//! signatures of version 2.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::validation::NameValidation;
use shepherd_job::{JobId, JobIdRule};
use shepherd_serve::{BodyPace, Drain, Drained, ServeOptions};
use shepherd_storage::LocalStorage;
use tokio::net::TcpListener;

use crate::access::{Credentials, MAX_DOCUMENT, Signed, query};
use crate::error::meaning;
use crate::flusher::Flusher;
use crate::hosts::Hosts;
use crate::intake::{Held, Intake};
use crate::listing::{is_xml, is_xml_text};
use crate::store::Store;

/// How far a request's time may be from the time here.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// How long the body of a request may take as a whole. Objects are larger than a job's payload, so
/// it is longer than that may.
const MAX_BODY_TIME: Duration = Duration::from_secs(24 * 60 * 60);

/// A storage directory as an S3 service. Cheap to clone.
#[derive(Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
    pace: BodyPace,
}

struct Shared {
    s3: S3Service,
    storage: Arc<LocalStorage>,
    requests: AtomicU64,
}

/// An answer to come.
pub type EndpointFuture = Pin<Box<dyn Future<Output = Result<Response<s3s::Body>, Infallible>> + Send>>;

impl Endpoint {
    /// Serves `storage` to those who hold the keys, under the names of `hosts`;
    /// `region` is what clients are told.
    pub fn new(
        storage: Arc<LocalStorage>,
        flusher: Arc<dyn Flusher>,
        credentials: Credentials,
        hosts: Hosts,
        region: impl Into<String>,
    ) -> Self {
        let mut service = S3ServiceBuilder::new(Store::new(storage.buckets(), flusher, region.into()));
        service.set_auth(credentials);
        service.set_access(Signed);
        service.set_validation(Names);
        service.set_host(hosts);
        let mut config = S3Config::default();
        config.xml_max_body_size = MAX_DOCUMENT;
        config.presigned_url_max_skew_time_secs = u32::try_from(MAX_SKEW.as_secs()).unwrap_or(u32::MAX);
        // No forms come here.
        config.post_object_max_file_size = 0;
        config.form_max_fields_size = 0;
        service.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
        let shared = Arc::new(Shared { s3: service.build(), storage, requests: AtomicU64::new(0) });
        Self { shared, pace: BodyPace { total: MAX_BODY_TIME, ..BodyPace::default() } }
    }

    /// The same with another least rate of bodies, in bytes a second; any rate with 0.
    #[must_use]
    pub fn with_min_rate(mut self, min_rate: u64) -> Self {
        self.pace.min_rate = min_rate;
        self
    }

    async fn answer<B>(self, request: Request<B>) -> Response<s3s::Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
    {
        let began = Instant::now();
        let (mut parts, body) = request.into_parts();
        // Not the query, which may hold a signature.
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let date = parts.headers.get("x-amz-date").and_then(|date| Some(date.to_str().ok()?.to_owned()));
        let date = date.or_else(|| query(&parts.uri, "X-Amz-Date"));
        let mut response = match turned_away(&parts) {
            Some((code, message)) => refusal(code, message),
            None => {
                let (intake, noted) = Intake::new(body, &parts.headers, self.pace);
                let (held, body) = Held::new(intake, noted.clone());
                parts.extensions.insert(noted);
                parts.extensions.insert(held);
                let request = Request::from_parts(parts, s3s::Body::http_body_unsync(body));
                self.shared.s3.call(request).await.unwrap_or_else(|error| {
                    tracing::error!(?error, "an answer could not be written");
                    let mut response = Response::new(s3s::Body::empty());
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                    response
                })
            }
        };
        let id = format!("{:016X}", self.shared.requests.fetch_add(1, Ordering::Relaxed));
        if response.status().is_client_error() || response.status().is_server_error() {
            explain(&mut response, &id, date.as_deref());
        }
        make_well_formed(&mut response);
        // s3s does not know that a HEAD may be of a part.
        if response.status() == StatusCode::OK && response.headers().contains_key(CONTENT_RANGE) {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert("x-amz-request-id", id);
        }
        tracing::debug!(%method, path, status = response.status().as_u16(), after = ?began.elapsed(), "answered");
        response
    }
}

impl<B> hyper::service::Service<Request<B>> for Endpoint
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<s3s::Body>;
    type Error = Infallible;
    type Future = EndpointFuture;

    fn call(&self, request: Request<B>) -> EndpointFuture {
        let endpoint = self.clone();
        Box::pin(async move { Ok(endpoint.answer(request).await) })
    }
}

/// Serves `endpoint` on `listener` until `shutdown` is ready, and then drains.
pub async fn serve(
    listener: TcpListener,
    endpoint: Endpoint,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Drained {
    match endpoint.shared.storage.buckets().keeps_attributes().await {
        Ok(true) => {}
        Ok(false) => tracing::warn!(
            "the file system of the storage keeps no extended attributes: objects that come with metadata over S3 \
             are refused"
        ),
        Err(error) => tracing::warn!(%error, "whether the storage keeps extended attributes is unknown"),
    }
    shepherd_serve::serve(listener, endpoint, Drain::new(), options, shutdown).await
}

/// What s3s must not see, and why.
fn turned_away(parts: &http::request::Parts) -> Option<(&'static str, &'static str)> {
    let text = |name| parts.headers.get(name).map(HeaderValue::as_bytes);
    let is_form = text(CONTENT_TYPE).is_some_and(|value| {
        value.trim_ascii_start().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
    });
    if parts.method == http::Method::POST && is_form {
        return Some(("NotImplemented", "Posting forms is not implemented"));
    }
    let other_way = text(AUTHORIZATION).is_some_and(|value| !value.starts_with(b"AWS4-HMAC-SHA256 "));
    if other_way || query(&parts.uri, "Signature").is_some() {
        return Some((
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        ));
    }
    None
}

fn refusal(code: &str, message: &str) -> Response<s3s::Body> {
    let text = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"#
    );
    let mut response = Response::new(s3s::Body::from(text));
    *response.status_mut() =
        if code == "NotImplemented" { StatusCode::NOT_IMPLEMENTED } else { StatusCode::BAD_REQUEST };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// Says in words what went wrong, where s3s gave a code only: clients show it. One
/// whose clock is wrong is told both times; `date` is the request's.
fn explain(response: &mut Response<s3s::Body>, id: &str, date: Option<&str>) {
    const END: &str = "</Code>";
    let Some(bytes) = response.body().bytes() else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    let Some((before, after)) = text.split_once(END) else { return };
    let code = before.rsplit('>').next().unwrap_or_default();
    let message = if text.contains("<Message>") {
        String::new()
    } else {
        format!("<Message>{}</Message>", meaning(code))
    };
    let times = match date {
        // s3s has parsed it, so nothing in it needs escaping.
        Some(date) if code == "RequestTimeTooSkewed" => format!(
            "<RequestTime>{date}</RequestTime><ServerTime>{}</ServerTime>\
             <MaxAllowedSkewMilliseconds>{}</MaxAllowedSkewMilliseconds>",
            server_time(),
            MAX_SKEW.as_millis()
        ),
        _ => String::new(),
    };
    replace(response, format!("{before}{END}{message}{times}<RequestId>{id}</RequestId>{after}"));
}

/// The time here, as S3 writes it.
fn server_time() -> String {
    let mut text = Vec::new();
    let written = Timestamp::from(SystemTime::now()).format(TimestampFormat::DateTime, &mut text);
    written.map_or_else(|_| String::new(), |()| String::from_utf8_lossy(&text).into_owned())
}

/// Makes of a document one that XML parsers take and read as it was meant: s3s
/// escapes the five characters of XML's syntax only. Keys that XML cannot hold are
/// encoded in listings, so what is replaced here is what a client said, in an error.
fn make_well_formed(response: &mut Response<s3s::Body>) {
    let is_document = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == "application/xml");
    let Some(bytes) = response.body().bytes().filter(|_| is_document) else { return };
    let Ok(text) = std::str::from_utf8(&bytes) else { return };
    if text.contains('\r') || !is_xml_text(text) {
        // A parser would read a bare carriage return as a line feed.
        let fixed = text.replace('\r', "&#13;").replace(|char| !is_xml(char), "\u{FFFD}");
        replace(response, fixed);
    }
}

fn replace(response: &mut Response<s3s::Body>, text: String) {
    response.headers_mut().remove(CONTENT_LENGTH);
    *response.body_mut() = s3s::Body::from(text);
}

/// A bucket's name is a job's.
struct Names;

impl NameValidation for Names {
    fn validate_bucket_name(&self, name: &str) -> bool {
        JobId::parse(name, JobIdRule::Bucket).is_ok()
    }
}
