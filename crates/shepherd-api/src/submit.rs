//! `POST /start-job`.
//!
//! ```text
//!  frames ── Scanner (syntax) ── Fields (meaning) ─┐
//!               └── payload text ── Payload ───────┴─▶ Submit
//!                                   memory │ file
//! ```
//!
//! The body is parsed as it arrives and never held as a whole: all fields but
//! the payload are small, and the payload's text goes to [`spool`], wherever in
//! the object it is. Whatever is wrong ends the reading at once, and nothing is
//! left behind.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::{Pin, pin};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::Body;
use shepherd_core::{Accepted, Submit};
use shepherd_job::{JobSpec, SheepId};
use tokio::time::Instant;

use crate::api::{Api, State};
use crate::backend::Backend;
use crate::error::{Answer, ApiError, json_response};
use crate::json;
use crate::unread::{self, Sends};

mod fields;
mod scanner;
pub(crate) mod spool;

use fields::{Refused, StartJob};
use scanner::Scanner;
use spool::Payload;

/// A frame is parsed in pieces of this size, so that a large one does not make
/// the payload's buffer as large.
const PIECE: usize = 64 * 1024;

pub(crate) fn start_job<B, R>(api: &Api<B>, headers: &HeaderMap, body: R) -> State
where
    B: Backend,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Display,
{
    let (api, content_type, sends) = (api.clone(), check_content_type(headers), Sends::of(headers));
    State::later(async move {
        let mut body = pin!(body);
        let outcome = match content_type {
            Ok(()) => submit(&api, body.as_mut()).await,
            Err(error) => Err(error),
        };
        match outcome {
            // Both were read to where there is nothing more to read.
            Ok(_) | Err(ApiError::BrokenBody | ApiError::BodyStalled) => outcome,
            Err(_) => unread::discard(body, sends).await.answer(outcome),
        }
    })
}

async fn submit<B, R>(api: &Api<B>, body: Pin<&mut R>) -> Answer
where
    B: Backend,
    R: Body<Data = Bytes>,
    R::Error: Display,
{
    let mut payload = Payload::new(api.spool());
    let job = read(api, body, &mut payload).await?;
    let sheep = match job.sheep_id {
        None => None,
        Some(id) => {
            let known = SheepId::parse(&id).ok().filter(|id| api.backend().knows_sheep(id.as_str()));
            Some(known.ok_or_else(|| ApiError::unknown_sheep(&id))?)
        }
    };
    let id = job.job_id.clone();
    let spec = JobSpec { id: job.job_id, model: job.model, sheep, priority: job.priority };
    let submit = Submit { spec, data: payload.finish().await? };
    match api.backend().submit(submit).await {
        Ok(Accepted::Queued(_) | Accepted::Live(_)) => Ok(json_response(StatusCode::OK, json::success())),
        Err(error) => Err(ApiError::of_job(error, &id)),
    }
}

async fn read<B, R>(
    api: &Api<B>,
    mut body: Pin<&mut R>,
    payload: &mut Payload<'_>,
) -> Result<StartJob, ApiError>
where
    B: Backend,
    R: Body<Data = Bytes>,
    R::Error: Display,
{
    let (limit, pace) = (api.options().max_body_bytes, &api.options().body_pace);
    // Known from Content-Length: refused before a byte of it was asked for.
    if body.size_hint().lower() > limit {
        return Err(ApiError::TooLarge { limit });
    }
    let began = Instant::now();
    let mut scanner = Scanner::new(api.options().job_id_rule);
    let mut seen = 0_u64;
    while !body.is_end_stream() {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx));
        let frame = tokio::time::timeout_at(pace.deadline(began, seen), frame);
        let Some(frame) = frame.await.map_err(|_| ApiError::BodyStalled)? else { break };
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a request body broke off");
            ApiError::BrokenBody
        })?;
        let Ok(data) = frame.into_data() else { continue };
        seen = seen.saturating_add(data.len() as u64);
        if seen > limit {
            return Err(ApiError::TooLarge { limit });
        }
        for piece in data.chunks(PIECE) {
            scanner.feed(piece, &mut payload.text)?;
            payload.settle().await?;
        }
    }
    Ok(scanner.finish()?)
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::BadRequest(match refused {
            Refused::NotAnObject => "The request body must be a JSON object".into(),
            Refused::Invalid(why) => format!("Invalid input: {why}").into(),
        })
    }
}

/// A media type that is JSON, whatever its parameters.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else {
        return Err(ApiError::BadRequest(
            "The Content-Type header is missing, expected application/json".into(),
        ));
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let suffixed = essence.strip_prefix("application/").is_some_and(|subtype| subtype.ends_with("+json"));
    if essence == "application/json" || suffixed {
        return Ok(());
    }
    Err(ApiError::BadRequest(format!("The Content-Type must be application/json, not `{text}`").into()))
}
