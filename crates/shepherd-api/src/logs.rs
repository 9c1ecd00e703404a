//! `GET /jobs/ID/logs[?follow=true]`: what a job prints.
//!
//! The text came from a runner, so a browser is told to trust it no more than a file.
//! A log that is followed ends when its job has finished, when the client leaves, and
//! when the daemon drains; the job's status tells the first from the last.

use futures::StreamExt as _;
use futures::stream;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use shepherd_job::JobId;

use crate::api::{Api, State};
use crate::backend::Backend;
use crate::body::ApiBody;
use crate::error::{Answer, ApiError};
use crate::events;
use crate::jobs::parse_id;
use crate::query::parameter;

/// How much of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// What there is.
    SoFar,
    /// That, and what comes, until the job has finished.
    ToTheEnd,
}

/// `GET /jobs/ID/logs[?follow=true]`
pub(crate) fn of_job<B: Backend>(api: &Api<B>, id: &str, request: &Parts) -> State {
    let Ok(id) = parse_id(api, id) else {
        return State::Ready(Err(ApiError::UnknownJob { job: id.to_owned() }));
    };
    let extent = match extent(request.uri.query()) {
        Ok(extent) => extent,
        Err(error) => return State::Ready(Err(error)),
    };
    let (api, head) = (api.clone(), request.method == Method::HEAD);
    State::later(async move {
        match extent {
            Extent::SoFar => so_far(&api, &id).await,
            Extent::ToTheEnd if head => {
                api.backend().job(&id).await.map_err(|error| ApiError::of_new_route(error, &id))?;
                Ok(followed(ApiBody::empty()))
            }
            Extent::ToTheEnd => to_the_end(&api, &id).await,
        }
    })
}

fn extent(query: Option<&str>) -> Result<Extent, ApiError> {
    match parameter(query, "follow").as_deref() {
        None | Some("false" | "0") => Ok(Extent::SoFar),
        Some("true" | "1") => Ok(Extent::ToTheEnd),
        Some(_) => Err(ApiError::BadRequest("Invalid input: `follow` must be `true` or `false`".into())),
    }
}

async fn so_far<B: Backend>(api: &Api<B>, id: &JobId) -> Answer {
    let log = api.backend().log(id).await.map_err(|error| ApiError::of_new_route(error, id))?;
    Ok(text(log.into()))
}

async fn to_the_end<B: Backend>(api: &Api<B>, id: &JobId) -> Answer {
    let log = api.backend().follow_log(id).await.map_err(|error| ApiError::of_new_route(error, id))?;
    let pieces = stream::unfold((log, api.drain().clone()), |(mut log, drain)| async move {
        // The end of serving goes first, so that a job that prints without a pause does
        // not hold it up. Both are dropped here and begun anew for each piece; one that
        // was not taken stays in the stream.
        let piece = tokio::select! {
            biased;
            () = drain.begun() => None,
            piece = log.next() => piece,
        }?;
        Some((piece, (log, drain)))
    });
    Ok(followed(ApiBody::live(pieces.boxed())))
}

fn followed(body: ApiBody) -> Response<ApiBody> {
    let mut response = text(body);
    events::live(response.headers_mut());
    response
}

fn text(body: ApiBody) -> Response<ApiBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
