//! Response bodies: bytes in memory, an object that is read as fast as the client
//! takes it, or what is said as it happens.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use shepherd_core::Body as ObjectBody;

/// The body of an answer.
///
/// An enum rather than a boxed trait object: most are small and in memory, and cost
/// no allocation of their own.
pub struct ApiBody(Inner);

enum Inner {
    Empty,
    Full(Bytes),
    Stream {
        body: ObjectBody,
        /// Bytes still owed. The length was announced, so a stream that ends
        /// early must break the connection rather than look complete.
        left: u64,
    },
    /// Of no length that is known ahead.
    Live(BoxStream<'static, Bytes>),
}

impl ApiBody {
    /// No bytes.
    pub const fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// Exactly `length` bytes of `body`.
    pub(crate) fn stream(body: ObjectBody, length: u64) -> Self {
        Self(if length == 0 { Inner::Empty } else { Inner::Stream { body, left: length } })
    }

    /// Everything that `stream` gives, until it ends. It is asked for more only when
    /// the client has taken what there was, and dropped when the client leaves.
    pub(crate) fn live(stream: BoxStream<'static, Bytes>) -> Self {
        Self(Inner::Live(stream))
    }
}

impl From<Bytes> for ApiBody {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() { Inner::Empty } else { Inner::Full(bytes) })
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Inner::Empty => Poll::Ready(None),
            Inner::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Inner::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Inner::Stream { body, left } => {
                let outcome = match futures::ready!(body.poll_next_unpin(cx)) {
                    Some(Ok(mut bytes)) => {
                        let most = usize::try_from(*left).unwrap_or(usize::MAX);
                        bytes.truncate(most);
                        *left -= bytes.len() as u64;
                        Ok((bytes, *left))
                    }
                    Some(Err(error)) => Err(error),
                    None => Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("the object ended {left} bytes early"),
                    )),
                };
                match outcome {
                    Ok((bytes, left)) => {
                        if left == 0 {
                            self.0 = Inner::Empty;
                        }
                        Poll::Ready(Some(Ok(Frame::data(bytes))))
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a file broke off while it was sent");
                        self.0 = Inner::Empty;
                        Poll::Ready(Some(Err(error)))
                    }
                }
            }
            Inner::Live(stream) => {
                let piece = futures::ready!(stream.poll_next_unpin(cx));
                if piece.is_none() {
                    // What has ended is not to be polled, and may hold a place somewhere.
                    self.0 = Inner::Empty;
                }
                Poll::Ready(piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Empty => SizeHint::with_exact(0),
            Inner::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Stream { left, .. } => SizeHint::with_exact(*left),
            Inner::Live(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use http_body_util::BodyExt as _;

    fn pieces(texts: &'static [&'static str]) -> ObjectBody {
        stream::iter(texts.iter().map(|text| Ok(Bytes::from_static(text.as_bytes())))).boxed()
    }

    #[tokio::test]
    async fn a_stream_gives_exactly_what_was_announced() {
        let body = ApiBody::stream(pieces(&["abc", "", "def"]), 5);
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abcde");
    }

    #[tokio::test]
    async fn what_happens_is_said_until_it_ends() {
        let mut body = ApiBody::live(stream::iter(["abc", "def"].map(Bytes::from)).boxed());
        assert_eq!((body.size_hint().exact(), body.is_end_stream()), (None, false));
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            all.extend(frame.unwrap().into_data().unwrap());
        }
        assert_eq!((all, body.is_end_stream()), (b"abcdef".to_vec(), true));
    }

    #[tokio::test]
    async fn a_stream_that_ends_early_is_an_error() {
        assert!(ApiBody::stream(pieces(&["abc"]), 5).collect().await.is_err());
    }
}
