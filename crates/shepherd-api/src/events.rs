//! `GET /jobs/ID/events[?after=EVENT]`: what happens to a job, as server-sent events.
//!
//! ```text
//! retry: 2000
//!
//! id: 1795383059336682-7
//! event: status                              as in `/jobs/ID/status`, but for `cancelled`
//! data: {"status":"processing", ...}
//!
//! id: 1795383059336682-9
//! event: progress
//! data: {"fraction":0.25,"message":"page 1 of 4"}
//! ```
//!
//! The stream ends with the event of a finished state. One that ends otherwise, since
//! the daemon drains or the connection broke, is to be taken up again with the last id
//! (`Last-Event-ID`, which browsers send by themselves). One that comes with the id of
//! the last event of all is told so by 204, which also ends a browser's tries.
//!
//! A comment goes out when nothing else did for a while: proxies cut connections that
//! are quiet, and a client that is gone is noticed only by what is sent to it.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use shepherd_core::{EventId, JobEvent, JobEventKind};
use shepherd_job::JobId;
use shepherd_serve::Drain;

use crate::api::{Api, State};
use crate::backend::Backend;
use crate::body::ApiBody;
use crate::error::{Answer, ApiError};
use crate::jobs::parse_id;
use crate::json;
use crate::query::parameter;

/// How long a stream may be quiet: less than the idle limits of common proxies,
/// which begin at half a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A line that clients ignore.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// How soon a browser tries again, in milliseconds: a restart of the daemon takes
/// about as long.
const RETRY_FIELD: Bytes = Bytes::from_static(b"retry: 2000\n\n");

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// `GET /jobs/ID/events[?after=EVENT]`
pub(crate) fn of_job<B: Backend>(api: &Api<B>, id: &str, request: &Parts) -> State {
    let Ok(id) = parse_id(api, id) else {
        return State::Ready(Err(ApiError::UnknownJob { job: id.to_owned() }));
    };
    let after = match after(request) {
        Ok(after) => after,
        Err(error) => return State::Ready(Err(error)),
    };
    let (api, head) = (api.clone(), request.method == Method::HEAD);
    State::later(async move {
        if head {
            api.backend().job(&id).await.map_err(|error| ApiError::of_new_route(error, &id))?;
            return Ok(response(ApiBody::empty()));
        }
        stream(&api, &id, after).await
    })
}

/// The last event that the client has seen. Browsers repeat the address that they were
/// given and add the header, which is therefore the newer; one that is none of ours
/// is as good as none.
fn after(request: &Parts) -> Result<Option<EventId>, ApiError> {
    let asked = match parameter(request.uri.query(), "after") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            ApiError::BadRequest("Invalid input: `after` must be the id of an event of the job".into())
        })?),
    };
    let header = request.headers.get(LAST_EVENT_ID).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(header.or(asked))
}

async fn stream<B: Backend>(api: &Api<B>, id: &JobId, after: Option<EventId>) -> Answer {
    let failed = |error| ApiError::of_new_route(error, id);
    let mut events = api.backend().events(id, after).await.map_err(failed)?;
    // What is there is there at once; nothing of the stream is lost by this look.
    let first = match events.next().now_or_never() {
        Some(Some(event)) => Some(event),
        Some(None) => return nothing_follows(api, id).await,
        None => None,
    };
    let begin = match first {
        Some(event) => Bytes::from([RETRY_FIELD, frame(&event)].concat()),
        None => RETRY_FIELD,
    };
    let rest = stream::unfold((events, api.drain().clone()), |(mut events, drain)| async move {
        let piece = next(&mut events, &drain).await?;
        Some((piece, (events, drain)))
    });
    Ok(response(ApiBody::live(stream::iter([begin]).chain(rest).boxed())))
}

/// The next piece of a stream; none at its end.
async fn next(events: &mut BoxStream<'static, JobEvent>, drain: &Drain) -> Option<Bytes> {
    // The end of serving goes first: a client that always has something to take must
    // not hold it up, and misses nothing, since it comes again. All three are dropped
    // here and begun anew; an event that was not taken stays in its stream.
    tokio::select! {
        biased;
        () = drain.begun() => None,
        event = events.next() => event.as_ref().map(frame),
        () = tokio::time::sleep(HEARTBEAT) => Some(COMMENT),
    }
}

/// There is nothing after what the client has seen: for ever if the job is finished,
/// otherwise from a shepherd that ends.
async fn nothing_follows<B: Backend>(api: &Api<B>, id: &JobId) -> Answer {
    let job = api.backend().job(id).await.map_err(|error| ApiError::of_new_route(error, id))?;
    if !job.state.is_finished() {
        return Err(ApiError::shutting_down());
    }
    let mut response = Response::new(ApiBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// An event as it is sent. The data is one line, since JSON escapes line ends.
fn frame(event: &JobEvent) -> Bytes {
    let (name, data) = match &event.kind {
        JobEventKind::State(job) => ("status", json::later_status(job)),
        JobEventKind::Progress(progress) => ("progress", json::progress(progress)),
    };
    let head = format!("id: {}\nevent: {name}\ndata: ", event.id);
    [head.as_bytes(), &data, b"\n\n"].concat().into()
}

fn response(body: ApiBody) -> Response<ApiBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    live(headers);
    response
}

/// What is said as it happens must be neither kept nor held back on its way.
pub(crate) fn live(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx, and others that took it over.
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}
