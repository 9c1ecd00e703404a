//! A request's body on its way to s3s: what it may cost is bounded, and what went
//! wrong with it is noted.
//!
//! s3s wraps the body in streams that verify it, and their errors cannot be told
//! apart from outside. So it is noted here whether the body itself broke off; when
//! it did not and the streams still fail, then what they verify is wrong.
//!
//! s3s parses a document before it has verified its digest, and verifies no other
//! checksum of it. So a body is [`Held`] until the access check has seen who sends
//! it for which operation: the bytes of an object then stream through, and any other
//! body is read and verified as a whole before the operation sees it.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use shepherd_serve::BodyPace;
use tokio::time::{Instant, Sleep, sleep};

use crate::chunks::{BadChunk, Chunks};

/// What went wrong with a body, apart from what s3s verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It ended early.
    Broken,
    /// It came too slowly.
    Stalled,
    /// It is not framed as its headers say.
    Framing,
    /// A signed chunk is too large.
    Chunk,
    /// A body that is read as a whole is too large.
    Large,
}

/// What was noted of a request's body; travels with the request.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    shared: Arc<Mutex<State>>,
    chunked: bool,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    failed: bool,
}

impl Noted {
    fn note(&self, fault: Fault) {
        self.with(|state| state.fault = state.fault.or(Some(fault)));
    }

    pub(crate) fn fault(&self) -> Option<Fault> {
        self.with(|state| state.fault)
    }

    /// Notes that reading the body, through all that verifies it, gave an error.
    pub(crate) fn failed(&self) {
        self.with(|state| state.failed = true);
    }

    pub(crate) fn was_failed(&self) -> bool {
        self.with(|state| state.failed)
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.chunked
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// See the module.
pub(crate) struct Intake<B> {
    body: Pin<Box<B>>,
    chunks: Option<Chunks>,
    noted: Noted,
    pace: BodyPace,
    began: Instant,
    /// How many bytes have come.
    came: u64,
    /// Armed while nothing comes.
    timer: Pin<Box<Sleep>>,
    armed: bool,
    over: bool,
}

impl<B: Body<Data = Bytes>> Intake<B> {
    pub(crate) fn new(body: B, headers: &HeaderMap, pace: BodyPace) -> (Self, Noted) {
        let digest = headers.get("x-amz-content-sha256").map(http::HeaderValue::as_bytes);
        let chunked = digest.is_some_and(|digest| digest.starts_with(b"STREAMING-"));
        let noted = Noted { shared: Arc::default(), chunked };
        let intake = Self {
            body: Box::pin(body),
            chunks: chunked.then(Chunks::new),
            noted: noted.clone(),
            pace,
            began: Instant::now(),
            came: 0,
            timer: Box::pin(sleep(pace.stall)),
            armed: false,
            over: false,
        };
        (intake, noted)
    }

    fn fail<T>(&mut self, fault: Fault, kind: io::ErrorKind) -> Poll<Option<io::Result<T>>> {
        self.noted.note(fault);
        self.over = true;
        Poll::Ready(Some(Err(kind.into())))
    }
}

impl<B: Body<Data = Bytes>> Body for Intake<B> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        loop {
            if let Some(bytes) = this.chunks.as_mut().and_then(Chunks::pop) {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if this.over {
                return Poll::Ready(None);
            }
            let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) else {
                if !this.armed {
                    this.armed = true;
                    this.timer.as_mut().reset(this.pace.deadline(this.began, this.came));
                }
                ready!(this.timer.as_mut().poll(cx));
                return this.fail(Fault::Stalled, io::ErrorKind::TimedOut);
            };
            this.armed = false;
            if let Some(Ok(frame)) = &frame {
                this.came += frame.data_ref().map_or(0, Bytes::len) as u64;
            }
            match (frame, &mut this.chunks) {
                (Some(Ok(frame)), None) => return Poll::Ready(Some(Ok(frame))),
                (Some(Ok(frame)), Some(chunks)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    match chunks.push(bytes) {
                        Ok(()) => {}
                        Err(BadChunk::Framing) => {
                            return this.fail(Fault::Framing, io::ErrorKind::InvalidData);
                        }
                        Err(BadChunk::TooLarge) => {
                            return this.fail(Fault::Chunk, io::ErrorKind::InvalidData);
                        }
                    }
                }
                (Some(Err(_)), _) => return this.fail(Fault::Broken, io::ErrorKind::UnexpectedEof),
                // s3s takes a body without the last chunk for whole.
                (None, Some(chunks)) if !chunks.is_whole() => {
                    return this.fail(Fault::Broken, io::ErrorKind::UnexpectedEof);
                }
                (None, _) => {
                    this.over = true;
                    return Poll::Ready(None);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.chunks.is_none() && self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.chunks.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

type Unread = Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>;

/// The access check's handle of a body; travels with the request.
#[derive(Clone)]
pub(crate) struct Held {
    hold: Arc<Mutex<Hold>>,
    noted: Noted,
}

enum Hold {
    /// The access check has not decided.
    Closed(Unread),
    /// The operation reads it.
    Open(Unread),
    /// It was read as a whole.
    Whole(Bytes),
}

impl Held {
    /// Holds `body` back, of which `noted` tells; s3s is given the other end.
    pub(crate) fn new(
        body: impl Body<Data = Bytes, Error = io::Error> + Send + 'static,
        noted: Noted,
    ) -> (Self, HeldBody) {
        let held = Self { hold: Arc::new(Mutex::new(Hold::Closed(Box::pin(body)))), noted };
        (held.clone(), HeldBody(held))
    }

    /// Lets the operation read the body.
    pub(crate) fn open(&self) {
        let mut hold = self.lock();
        if let Hold::Closed(body) = std::mem::replace(&mut *hold, Hold::Whole(Bytes::new())) {
            *hold = Hold::Open(body);
        }
    }

    /// Reads the body, of `limit` bytes at most, and leaves it to the operation.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) async fn read(&self, limit: usize) -> Result<Bytes, Fault> {
        let taken = std::mem::replace(&mut *self.lock(), Hold::Whole(Bytes::new()));
        let mut body = match taken {
            Hold::Closed(body) | Hold::Open(body) => body,
            Hold::Whole(bytes) => return Ok(bytes),
        };
        if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
            return Err(Fault::Large);
        }
        let mut whole = BytesMut::new();
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame = frame.map_err(|_| self.noted.fault().unwrap_or(Fault::Broken))?;
            if let Ok(bytes) = frame.into_data() {
                if whole.len() + bytes.len() > limit {
                    return Err(Fault::Large);
                }
                whole.extend_from_slice(&bytes);
            }
        }
        let whole = whole.freeze();
        *self.lock() = Hold::Whole(whole.clone());
        Ok(whole)
    }

    /// Whether it is framed as `aws-chunked`.
    pub(crate) fn is_chunked(&self) -> bool {
        self.noted.is_chunked()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of a held body that s3s reads.
pub(crate) struct HeldBody(Held);

impl Body for HeldBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self.0.lock() {
            // Nobody who was not checked is read from.
            Hold::Closed(_) => Poll::Ready(Some(Err(io::ErrorKind::PermissionDenied.into()))),
            Hold::Open(body) => body.as_mut().poll_frame(cx),
            Hold::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Hold::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.0.lock() {
            Hold::Closed(body) | Hold::Open(body) => body.size_hint(),
            Hold::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use futures::stream::{self, BoxStream};

    use super::*;

    /// A body that brings some bytes every ten seconds.
    struct Drip(BoxStream<'static, Bytes>);

    impl Drip {
        fn new(bytes: usize, times: usize) -> Self {
            let drop = move |()| async move {
                sleep(Duration::from_secs(10)).await;
                Bytes::from(vec![b'x'; bytes])
            };
            Self(stream::repeat(()).take(times).then(drop).boxed())
        }
    }

    impl Body for Drip {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            self.0.poll_next_unpin(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    /// How much of a body came, and what was wrong with it.
    async fn came(drip: Drip) -> (u64, Option<Fault>) {
        let (mut intake, noted) = Intake::new(drip, &HeaderMap::new(), BodyPace::default());
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut intake).poll_frame(cx)).await {}
        (intake.came, noted.fault())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_given_up() {
        assert_eq!(came(Drip::new(6_000, 50)).await, (300_000, None));
        assert_eq!(
            came(Drip::new(1, 50)).await,
            (2, Some(Fault::Stalled)),
            "20 s are free, and 500 bytes a second are asked"
        );
    }
}
