//! `POST /start-job`.
//!
//! ```text
//!  frames ── Encoding ── Scanner (syntax) ── Fields (meaning) ─┐
//!                           └── payload text ── Payload ───────┴─▶ Submit
//!                                               memory │ file
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
use shepherd_core::{Accepted, Data, ShepherdError, Submit};
use shepherd_job::{JobSpec, SheepId};
use tokio::time::Instant;

use crate::api::{Api, State};
use crate::backend::Backend;
use crate::error::{Answer, ApiError, json_response};
use crate::json;
use crate::unread::{self, Sends};

mod fields;
mod inflate;
mod scanner;
pub(crate) mod spool;

use fields::{Refused, StartJob};
use inflate::Encoding;
use scanner::Scanner;
use spool::Payload;

pub(crate) fn start_job<B, R>(api: &Api<B>, headers: &HeaderMap, body: R) -> State
where
    B: Backend,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Display,
{
    let (api, sends) = (api.clone(), Sends::of(headers));
    let encoding = check_content_type(headers).and_then(|()| Encoding::of(headers));
    State::later(async move {
        let mut body = pin!(body);
        let outcome = match encoding {
            Ok(encoding) => submit(&api, encoding, body.as_mut()).await,
            Err(error) => Err(error),
        };
        match outcome {
            // Both were read to where there is nothing more to read.
            Ok(_) | Err(ApiError::BrokenBody | ApiError::BodyStalled) => outcome,
            Err(_) => unread::discard(body, sends).await.answer(outcome),
        }
    })
}

async fn submit<B, R>(api: &Api<B>, encoding: Encoding, body: Pin<&mut R>) -> Answer
where
    B: Backend,
    R: Body<Data = Bytes>,
    R::Error: Display,
{
    let mut payload = Payload::new(api.spool());
    let job = read(api, encoding, body, &mut payload).await?;
    let sheep = match job.sheep_id {
        None => None,
        Some(id) => {
            let known = SheepId::parse(&id).ok().filter(|id| api.backend().knows_sheep(id.as_str()));
            Some(known.ok_or_else(|| ApiError::unknown_sheep(&id))?)
        }
    };
    let spec = JobSpec { id: job.job_id, model: job.model, sheep, priority: job.priority };
    let send = |data| api.backend().submit(Submit { spec: spec.clone(), data });
    let mut accepted = send(payload.finish().await?).await;
    if job.has_payload && matches!(accepted, Err(ShepherdError::NoData)) {
        // Clients of the first shepherd say "no payload" by an empty one, so it is an
        // input only where there is none.
        accepted = send(Data::Payload(Bytes::new())).await;
    }
    match accepted {
        Ok(Accepted::Queued(_)) => Ok(json_response(StatusCode::OK, json::success())),
        Ok(Accepted::Live(live)) => Ok(json_response(StatusCode::OK, live_success(&live.spec, &spec))),
        Err(error) => Err(ApiError::of_job(error, &spec.id)),
    }
}

/// The answer where a job of this id is queued or running, and goes on as it is. The
/// first shepherd's clients expect success; what differs is said beside that.
fn live_success(live: &JobSpec, submitted: &JobSpec) -> Bytes {
    let differs = if live.model != submitted.model {
        format!("the model `{}`", live.model)
    } else if live != submitted {
        "another sheep or priority".to_owned()
    } else {
        return json::success();
    };
    json::success_beside(&format!(
        "A job with this ID is queued or running with {differs}, and goes on as it is"
    ))
}

async fn read<B, R>(
    api: &Api<B>,
    mut encoding: Encoding,
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
    // Both what came and what it was before it was packed are bounded.
    let (mut came, mut meant) = (0_u64, 0_u64);
    let within = |sum: &mut u64, more: usize| {
        *sum = sum.saturating_add(more as u64);
        if *sum > limit { Err(ApiError::TooLarge { limit }) } else { Ok(()) }
    };
    while !body.is_end_stream() {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx));
        let frame = tokio::time::timeout_at(pace.deadline(began, came), frame);
        let Some(frame) = frame.await.map_err(|_| ApiError::BodyStalled)? else { break };
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "a request body broke off");
            ApiError::BrokenBody
        })?;
        let Ok(data) = frame.into_data() else { continue };
        within(&mut came, data.len())?;
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (used, text) = encoding.decode(rest)?;
            rest = &rest[used..];
            within(&mut meant, text.len())?;
            scanner.feed(text, &mut payload.text)?;
            payload.settle().await?;
        }
    }
    let text = encoding.finish()?;
    within(&mut meant, text.len())?;
    scanner.feed(text, &mut payload.text)?;
    payload.settle().await?;
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
