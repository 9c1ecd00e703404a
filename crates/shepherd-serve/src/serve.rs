//! Connections: accepting them, bounding them, and ending them.
//!
//! ```text
//!  permit ─▶ accept ─▶ place ─▶ task: hyper over Socket ─▶ permit and place back
//!    │                   │        ▲
//!    └ max_connections   │        └ Drain: running ─▶ draining ─▶ forced
//!                        └ max_connections_per_address
//! ```
//!
//! A connection is accepted only when there is room for it; more wait in the
//! kernel's queue. One address has a part of the room only, so that no client takes
//! it all: what comes from it beyond that is refused. What a client does not do in time ends its connection: sending
//! a request's head here, taking an answer in `socket`, sending a body where it
//! is read. Errors of accepting are waited out, since they pass.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::drain::{Drain, Phase};
use crate::own::{InTurn, Shape, Turn};
use crate::peers::Peers;
use crate::socket::Socket;

/// hyper's buffer for a connection's input, and so the bound on a request's head.
const MAX_BUFFER: usize = 64 * 1024;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How connections are treated.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How many may be open at once; more wait to be accepted.
    pub max_connections: usize,
    /// How many of them may come from one address, of IPv6 from one network of 64 bits;
    /// more are answered with 503 and closed.
    pub max_connections_per_address: usize,
    /// How long a client may take to send the head of a request, and how long a
    /// connection may be idle between requests.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer that is being sent.
    pub stall_timeout: Duration,
    /// The content type and the body of a message to a client whose request never reaches the
    /// service.
    pub refusal: fn(&str) -> (&'static str, String),
    /// How long requests in progress may take once the shutdown began; then their
    /// connections are closed.
    pub drain_timeout: Duration,
}

impl Default for ServeOptions {
    /// 10,000 connections, half of them from one address at most, a minute for heads and
    /// stalls, five seconds to drain, and refusals in plain text.
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 5_000,
            header_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            refusal: |message| ("text/plain; charset=utf-8", format!("{message}\n")),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut off because their requests took too long.
    pub aborted: usize,
}

/// Serves `service` on `listener` until `shutdown` is ready, then drains: accepts
/// no more, lets requests in progress finish, and closes each connection after its
/// answer. `drain` tells the service when that begins, so that it ends what waits.
///
/// A drain that was used stays so: to serve again, make another.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    drain: Drain,
    options: ServeOptions,
    shutdown: impl Future<Output = ()>,
) -> Drained
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let tasks = TaskTracker::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).max_buf_size(MAX_BUFFER);
    let permits = Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let peers = Peers::new(options.max_connections_per_address);
    let accepting = async {
        loop {
            // Never closed, so the error cannot be.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let (stream, address) = accept(&listener).await;
            let Some(place) = peers.enter(address.ip()) else {
                refuse(&stream, options.refusal);
                continue;
            };
            let connection =
                connection(http.clone(), stream, service.clone(), drain.clone(), options.clone());
            tasks.spawn(async move {
                connection.await;
                drop((place, permit));
            });
        }
    };
    // Both are dropped here, not resumed.
    tokio::select! {
        biased;
        () = shutdown => {}
        () = accepting => {}
    }
    drop(listener);
    drain.begin();
    tasks.close();
    if tokio::time::timeout(options.drain_timeout, tasks.wait()).await.is_ok() {
        return Drained { aborted: 0 };
    }
    let aborted = tasks.len();
    drain.force();
    tasks.wait().await;
    Drained { aborted }
}

/// One connection's life.
async fn connection<S, B>(
    http: http1::Builder,
    stream: TcpStream,
    service: S,
    drain: Drain,
    options: ServeOptions,
) where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: Body + 'static,
    B::Error: Into<BoxError>,
{
    let stall = options.stall_timeout;
    if let Err(error) = set_options(&stream, stall) {
        tracing::debug!(%error, "a connection is gone already");
        return;
    }
    let turn = Turn::default();
    let socket = Socket::new(stream, stall, drain.clone(), turn.clone(), options.refusal);
    let mut connection = pin!(http.serve_connection(socket, InTurn { service, turn }));
    let mut watch = drain.watch();
    let mut draining = false;
    let ended = poll_fn(|cx| {
        match watch.poll(cx) {
            Phase::Running => {}
            Phase::Draining if draining => {}
            Phase::Draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            Phase::Forced => return std::task::Poll::Ready(None),
        }
        connection.as_mut().poll(cx).map(Some)
    });
    match ended.await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "a connection ended with an error"),
        None => tracing::warn!("a connection was cut off at shutdown"),
    }
}

/// Answers a connection over the bound of its address. No time is spent on the client: what
/// does not fit into the socket's buffer at once, it does not get.
fn refuse(stream: &TcpStream, refusal: Shape) {
    use rustix::net::SendFlags;
    tracing::debug!("a connection was refused: there are too many from its address");
    let (content_type, body) = refusal("There are too many connections from this address");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {content_type}\r\nretry-after: 5\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    // It is new, so its buffer is empty; a client that is gone needs no answer.
    let _ = rustix::net::send(stream, answer.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

/// How long the kernel bears with a client that vanished without a word.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(120);

fn set_options(stream: &TcpStream, stall: Duration) -> io::Result<()> {
    use rustix::net::sockopt;
    // Without it, answers to pipelined requests wait for the client's delayed acks.
    stream.set_nodelay(true)?;
    // A client that vanished while it waits is noticed after two minutes: 60 seconds
    // of silence and four probes.
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    // One that vanished while it watches is not probed, since something is on its way
    // to it: that is sent again for a quarter of an hour unless told otherwise. This
    // also ends connections to clients that take nothing, hence not before `stall`.
    let silence = u32::try_from(KEEPALIVE_TIMEOUT.max(stall).as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, silence)?;
    Ok(())
}

/// Where connections come from: a listener, or a test.
trait Accept {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    fn accept(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send {
        Self::accept(self)
    }
}

/// The next connection, however long it takes. One that was gone before it was
/// accepted is skipped; having no descriptors or memory left is waited out.
async fn accept(listener: &impl Accept) -> (TcpStream, SocketAddr) {
    const LONGEST: Duration = Duration::from_secs(1);
    let mut pause = Duration::from_millis(5);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a client left before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, ?pause, "no connection can be accepted now");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests;
