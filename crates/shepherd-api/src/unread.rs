//! What becomes of a request's body that nobody wants.
//!
//! A connection can go on only behind the end of a body. A short one is therefore
//! read and thrown away before the answer, so that a wrong request does not cost
//! its client the connection; in front of a long one the answer says that the
//! connection ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue};
use http_body::Body;

use crate::error::{Answer, ApiError};

/// How much is thrown away, and how long it may take to arrive.
const MAX_DISCARDED_BYTES: u64 = 64 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

/// How a client sends its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sends {
    /// Without being asked.
    Anyway,
    /// After `100 Continue` only, which reading the body would cause.
    WhenAsked,
}

impl Sends {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(EXPECT) { Self::WhenAsked } else { Self::Anyway }
    }
}

/// What is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Rest {
    /// Nothing: the connection can go on.
    Nothing,
    /// Something: it cannot.
    Something,
}

impl Rest {
    /// The answer, which says whether the connection ends.
    pub(crate) fn answer(self, answer: Answer) -> Answer {
        match self {
            Self::Nothing => answer,
            Self::Something => {
                let mut response = answer.unwrap_or_else(ApiError::into_response);
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                Ok(response)
            }
        }
    }
}

/// Throws what comes of `body` away, where that is worth it.
pub(crate) async fn discard<R: Body<Data = Bytes>>(mut body: Pin<&mut R>, sends: Sends) -> Rest {
    if body.is_end_stream() {
        return Rest::Nothing;
    }
    if sends == Sends::WhenAsked || body.size_hint().lower() > MAX_DISCARDED_BYTES {
        return Rest::Something;
    }
    let read = async {
        let mut left = MAX_DISCARDED_BYTES;
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let Ok(frame) = frame else { return Rest::Something };
            let length = frame.data_ref().map_or(0, |data| data.len() as u64);
            let Some(rest) = left.checked_sub(length) else { return Rest::Something };
            left = rest;
        }
        Rest::Nothing
    };
    tokio::time::timeout(DISCARD_TIMEOUT, read).await.unwrap_or(Rest::Something)
}
