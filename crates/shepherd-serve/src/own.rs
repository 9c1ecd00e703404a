//! Answers that hyper gives by itself: to a request whose head it cannot parse, 400, 414 or
//! 431 without a body, and the service never hears of it. Their clients are told why.
//!
//! The socket recognises such an answer by its time: it is what is written while the service
//! has no request, and everything that it has answered is out.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use pin_project_lite::pin_project;

/// The service has no request, and no answer of its is left to be written.
const IDLE: u8 = 0;
/// The service has a request, or its answer is being read.
const ANSWERING: u8 = 1;
/// An answer was read to its end; it may not be written yet.
const ANSWERED: u8 = 2;

/// Whose turn it is on a connection. Only the connection's own task touches it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn(Arc<AtomicU8>);

impl Turn {
    pub(crate) fn is_idle(&self) -> bool {
        self.0.load(Ordering::Relaxed) == IDLE
    }

    /// All that was answered so far is out.
    pub(crate) fn flushed(&self) {
        if self.0.load(Ordering::Relaxed) == ANSWERED {
            self.0.store(IDLE, Ordering::Relaxed);
        }
    }
}

/// Ends a turn when it is dropped: with the answer's body, or with the future of an answer
/// that nobody waits for.
struct Answering(Turn);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(ANSWERED, Ordering::Relaxed);
    }
}

/// A service that keeps the turn.
pub(crate) struct InTurn<S> {
    pub(crate) service: S,
    pub(crate) turn: Turn,
}

impl<S, B> Service<Request<Incoming>> for InTurn<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
{
    type Response = Response<TurnBody<B>>;
    type Error = S::Error;
    type Future = TurnFuture<S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.turn.0.store(ANSWERING, Ordering::Relaxed);
        let answering = Some(Answering(self.turn.clone()));
        TurnFuture { future: self.service.call(request), answering }
    }
}

pin_project! {
    pub(crate) struct TurnFuture<F> {
        #[pin]
        future: F,
        answering: Option<Answering>,
    }
}

impl<F, B, E> Future for TurnFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<TurnBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.future.poll(cx));
        let answering = this.answering.take();
        Poll::Ready(answer.map(|response| response.map(|body| TurnBody { body, answering })))
    }
}

pin_project! {
    pub(crate) struct TurnBody<B> {
        #[pin]
        body: B,
        answering: Option<Answering>,
    }
}

impl<B: Body> Body for TurnBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes the content type and the body of a message.
pub(crate) type Shape = fn(&str) -> (&'static str, String);

/// The answer of hyper's own with a body, if `head` is one.
pub(crate) fn with_body(head: &[u8], shape: Shape) -> Option<Vec<u8>> {
    let head = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let (status, headers) = head.split_once("\r\n")?;
    let mut code = status.strip_prefix("HTTP/1.")?.split(' ').skip(1);
    let message = match code.next()? {
        "400" => "The request is not valid HTTP",
        "414" => "The URL of the request is too long",
        "431" => "The head of the request is too large",
        _ => return None,
    };
    let is_empty = |line: &str| line.eq_ignore_ascii_case("content-length: 0");
    if !headers.split("\r\n").any(is_empty) {
        return None;
    }
    let (content_type, body) = shape(message);
    let mut answer = format!("{status}\r\n");
    for line in headers.split("\r\n").filter(|line| !is_empty(line)) {
        answer.push_str(line);
        answer.push_str("\r\n");
    }
    let length = body.len();
    answer.push_str(&format!("content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n{body}"));
    Some(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::with_body;

    #[test]
    fn only_an_empty_refusal_gets_a_body() {
        let shape = |message: &str| ("text/x", format!("<{message}>"));
        let empty = b"HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";
        assert_eq!(
            String::from_utf8(with_body(empty, shape).unwrap()).unwrap(),
            "HTTP/1.1 414 URI Too Long\r\nconnection: close\r\ndate: x\r\ncontent-type: text/x\r\n\
             content-length: 36\r\n\r\n<The URL of the request is too long>"
        );
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 1\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
            b"\xff",
            b"",
        ] {
            assert_eq!(with_body(other, shape), None);
        }
    }
}
