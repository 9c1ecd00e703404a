//! How a request reaches the engine.
//!
//! bollard knows the API and its types; the sending is done here, because its own
//! transports want the socket to be there when they are made, wait for a connection
//! for ever, drop the API's version from the path, and write `X-Registry-Auth` in a
//! base64 that the engine cannot read.
//!
//! Every request has a connection of its own. An engine that shuts down closes its
//! listener first and goes on answering on the connections that it has; so an answer
//! on a new one is the only sign that it will serve the next request too.
//!
//! The version of the API is the highest that both sides know, asked for before the
//! first request and again whenever a connection failed or an answer names another
//! version than before: the engine that comes back may not be the one that went.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::errors::Error;
use bollard::{API_DEFAULT_VERSION, BollardRequest};
use bytes::Bytes;
use http::header::{HOST, HeaderName};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::tls::Tls;
use super::{EngineHost, host_of};
use crate::SheepError;

/// A listener that takes no connection for so long is no engine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A ping asks for nothing: an engine that takes longer is not answering. Behind a
/// systemd socket, connecting succeeds although nobody is there to answer.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How often another machine is asked for a sign of life when nothing is to be said, and how
/// often in vain before it counts as lost.
const KEEPALIVE_PERIOD: Duration = Duration::from_secs(15);
const SIGNS: u32 = 3;

const API_VERSION: HeaderName = HeaderName::from_static("api-version");
const REGISTRY_AUTH: HeaderName = HeaderName::from_static("x-registry-auth");
const REGISTRY_CONFIG: HeaderName = HeaderName::from_static("x-registry-config");

/// What may lie beneath a connection.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What an engine said of its API's version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The engine's own, word for word; empty where it names none.
    theirs: String,
    /// What requests are sent under; without one, the engine's newest.
    ours: Option<(u32, u32)>,
}

/// The way to one engine.
pub(super) struct Transport {
    host: EngineHost,
    tls: Option<Tls>,
    agreed: Mutex<Option<Agreed>>,
}

impl Transport {
    pub(super) fn new(host: EngineHost) -> Result<Self, SheepError> {
        let tls = match &host {
            EngineHost::Tcp { authority, tls: Some(files) } => Some(Tls::read(files, host_of(authority))?),
            EngineHost::Unix(_) | EngineHost::Tcp { tls: None, .. } => None,
        };
        Ok(Self { host, tls, agreed: Mutex::new(None) })
    }

    pub(super) fn host(&self) -> &EngineHost {
        &self.host
    }

    /// Sends what bollard made.
    pub(super) async fn send(
        self: Arc<Self>,
        mut request: BollardRequest,
    ) -> Result<Response<Incoming>, Error> {
        let agreed = self.agree().await?;
        *request.uri_mut() = versioned(request.uri(), agreed.ours)?;
        mend_credentials(request.headers_mut());
        let answer = self.exchange(request).await;
        // An answer without a version says nothing of it: a proxy's own errors are such.
        let same = |theirs: &str| theirs.is_empty() || theirs == agreed.theirs;
        if !answer.as_ref().is_ok_and(|response| same(version_in(response.headers()))) {
            self.forget();
        }
        answer
    }

    /// Asks for the version where it is not known.
    pub(super) async fn ready(&self) -> Result<(), Error> {
        self.agree().await.map(|_| ())
    }

    async fn agree(&self) -> Result<Agreed, Error> {
        let known = self.agreed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(agreed) => Ok(agreed),
            None => self.ping().await,
        }
    }

    fn forget(&self) {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Asks the engine for a sign of life, and for its version.
    pub(super) async fn ping(&self) -> Result<Agreed, Error> {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::from_static("/_ping");
        let response =
            timeout(PING_TIMEOUT, self.exchange(request)).await.map_err(|_| Error::RequestTimeoutError)??;
        if !response.status().is_success() {
            return Err(Error::DockerResponseServerError {
                status_code: response.status().as_u16(),
                message: format!("it answers a ping with {}", response.status()),
            });
        }
        let theirs = version_in(response.headers()).to_owned();
        let ours = parse_version(&theirs).map(|theirs| theirs.min(newest()));
        let agreed = Agreed { theirs, ours };
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) = Some(agreed.clone());
        Ok(agreed)
    }

    async fn exchange<B>(&self, mut request: Request<B>) -> Result<Response<Incoming>, Error>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        request.headers_mut().insert(HOST, self.host_header());
        let connecting = timeout(CONNECT_TIMEOUT, self.connect()).await;
        let stream =
            connecting.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"))??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The one task that nobody holds. It ends by itself with the request: when this
        // future or the response is dropped, when the response has been read, or when
        // the connection breaks; and whoever has the response hears of the last.
        tokio::spawn(connection.with_upgrades());
        let answer = sender.send_request(request).await?;
        if is_proxys(&answer) {
            let why = format!("something before it answers {} in its place", answer.status());
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, why).into());
        }
        Ok(answer)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match &self.host {
            EngineHost::Unix(path) => Ok(Box::new(UnixStream::connect(Path::new(path)).await?)),
            EngineHost::Tcp { authority, .. } => {
                let stream = TcpStream::connect(authority.as_str()).await?;
                stream.set_nodelay(true)?;
                keep_alive(&stream)?;
                match &self.tls {
                    None => Ok(Box::new(stream)),
                    Some(tls) => Ok(Box::new(tls.connector.connect(tls.server.clone(), stream).await?)),
                }
            }
        }
    }

    fn host_header(&self) -> HeaderValue {
        let host = match &self.host {
            EngineHost::Unix(_) => None,
            EngineHost::Tcp { authority, .. } => HeaderValue::from_str(authority).ok(),
        };
        host.unwrap_or(HeaderValue::from_static("localhost"))
    }
}

/// Whether it is a proxy that answers, because it does not reach the engine or lost it:
/// engines name their version with all they say.
fn is_proxys<B>(answer: &Response<B>) -> bool {
    let is_lost = matches!(
        answer.status(),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    is_lost && version_in(answer.headers()).is_empty()
}

/// Has the kernel notice that the other machine is gone, which may be without a sign, within
/// about a minute: logs are followed, and deaths awaited, for as long as a runner lives.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_PERIOD)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_PERIOD)?;
    sockopt::set_tcp_keepcnt(stream, SIGNS)?;
    // The same for what was sent.
    let patience = KEEPALIVE_PERIOD * (SIGNS + 1);
    sockopt::set_tcp_user_timeout(stream, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

fn newest() -> (u32, u32) {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (number(API_DEFAULT_VERSION.major_version), number(API_DEFAULT_VERSION.minor_version))
}

fn version_in(headers: &HeaderMap) -> &str {
    headers.get(API_VERSION).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The path of bollard's URI, with the version before it. bollard means to put its own
/// there and loses it on the way; it would be taken off if it no longer did.
fn versioned(uri: &Uri, version: Option<(u32, u32)>) -> Result<Uri, Error> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (major, minor) = newest();
    let bare = match path.strip_prefix(&format!("/v{major}.{minor}")) {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) | None => path,
    };
    Ok(match version {
        Some((major, minor)) => format!("/v{major}.{minor}{bare}").parse()?,
        None => bare.parse()?,
    })
}

/// The engine wants the URL's base64, bollard writes the other: they differ in two
/// letters. Marked as secret, so that nothing prints them.
fn mend_credentials(headers: &mut HeaderMap) {
    for name in [REGISTRY_AUTH, REGISTRY_CONFIG] {
        let Some(value) = headers.get_mut(&name) else { continue };
        let mended: Vec<u8> = value
            .as_bytes()
            .iter()
            .map(|byte| match byte {
                b'+' => b'-',
                b'/' => b'_',
                other => *other,
            })
            .collect();
        if let Ok(mut mended) = HeaderValue::from_bytes(&mended) {
            mended.set_sensitive(true);
            *value = mended;
        }
    }
}

#[cfg(test)]
mod tests;
