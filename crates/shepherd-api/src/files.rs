//! The routes that give files: a job's inputs and its result.
//!
//! A file is read as fast as its client takes it. What it holds came from a
//! client or a runner, so a browser is told to trust neither its type nor its
//! scripts.

use std::fmt::Write as _;

use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use shepherd_core::ObjectMeta;
use shepherd_job::{DEFAULT_INPUT, DEFAULT_OUTPUT, JobId, ObjectPath};

use crate::api::{Api, State};
use crate::backend::Backend;
use crate::body::ApiBody;
use crate::error::{Answer, ApiError, json_response};
use crate::jobs::{Known, Outcome, parse_id};
use crate::json;
use crate::range::Wanted;
use crate::route::File;
use crate::time::http_date;

/// `GET /jobs/ID/input[/FILE]`
pub(crate) fn input<B: Backend>(api: &Api<B>, id: &str, file: File<'_>, request: &Parts) -> State {
    let checked = parse_id(api, id).and_then(|id| Ok((id, object("inputs/", DEFAULT_INPUT, file)?)));
    let (id, path) = match checked {
        Ok(checked) => checked,
        Err(error) => return State::Ready(Err(error)),
    };
    let (api, terms) = (api.clone(), Terms::of(request));
    State::later(async move { send(&api, &id, &path, terms).await })
}

/// `GET /jobs/ID/result[/FILE]`
pub(crate) fn result<B: Backend>(api: &Api<B>, id: &str, file: File<'_>, request: &Parts) -> State {
    let id = match parse_id(api, id) {
        Ok(id) => id,
        Err(error) => return State::Ready(Err(error)),
    };
    // A name that cannot be is missing like any other, once the job is done.
    let path = object("outputs/", DEFAULT_OUTPUT, file);
    let (api, terms) = (api.clone(), Terms::of(request));
    State::later(async move {
        match Known::look(&api, &id).await?.outcome() {
            Outcome::Unfinished => Ok(json_response(StatusCode::ACCEPTED, json::ready(false))),
            Outcome::Failed(message) => Err(ApiError::JobFailed(message)),
            Outcome::Done => send(&api, &id, &path?, terms).await,
        }
    })
}

fn object(below: &str, default: &str, file: File<'_>) -> Result<ObjectPath, ApiError> {
    let path = match file {
        File::Default => ObjectPath::parse(default),
        File::Named(Some(name)) if !name.is_empty() => ObjectPath::parse(&format!("{below}{name}")),
        File::Named(_) => return Err(ApiError::NoSuchFile),
    };
    path.map_err(|_| ApiError::NoSuchFile)
}

/// What the client asks for besides the file's name.
struct Terms {
    head: bool,
    wanted: Wanted,
    if_range: Option<HeaderValue>,
    if_none_match: Option<HeaderValue>,
}

impl Terms {
    fn of(request: &Parts) -> Self {
        let header = |name| request.headers.get(name).cloned();
        let head = request.method == Method::HEAD;
        // A range means something with GET only.
        let range = header(RANGE).filter(|_| !head);
        Self {
            head,
            wanted: range.map_or(Wanted::Whole, |value| Wanted::parse(value.as_bytes())),
            if_range: header(IF_RANGE),
            if_none_match: header(IF_NONE_MATCH),
        }
    }

    /// Whether the answer depends on what the file is before it is opened.
    const fn need_meta(&self) -> bool {
        self.head
            || self.if_range.is_some()
            || self.if_none_match.is_some()
            || matches!(self.wanted, Wanted::Last(_))
    }
}

async fn send<B: Backend>(api: &Api<B>, id: &JobId, path: &ObjectPath, mut terms: Terms) -> Answer {
    let failed = |error| ApiError::of_job(error, id);
    let mut range = match terms.wanted {
        Wanted::Whole | Wanted::Last(_) => None,
        Wanted::Slice { from, to } => Some(from..to),
    };
    if terms.need_meta() {
        let meta = api.backend().head(id, path).await.map_err(failed)?;
        let file = Described::new(&meta);
        if terms.if_none_match.as_ref().is_some_and(|tags| file.is_among(tags)) {
            return Ok(file.response(StatusCode::NOT_MODIFIED, None, ApiBody::empty()));
        }
        if terms.head {
            return Ok(file.response(StatusCode::OK, Some(meta.size), ApiBody::empty()));
        }
        if terms.if_range.as_ref().is_some_and(|value| !file.is(value)) {
            terms.wanted = Wanted::Whole;
        }
        range = match terms.wanted {
            Wanted::Whole => None,
            Wanted::Slice { .. } | Wanted::Last(_) => {
                Some(terms.wanted.within(meta.size).ok_or(ApiError::Range { size: meta.size })?)
            }
        };
    }
    let partial = range.is_some();
    let object = api.backend().open(id, path, range).await.map_err(failed)?;
    let (size, part) = (object.meta.size, object.range);
    if partial && part.is_empty() {
        return Err(ApiError::Range { size });
    }
    let length = part.end.saturating_sub(part.start);
    let status = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response =
        Described::new(&object.meta).response(status, Some(length), ApiBody::stream(object.body, length));
    if partial && let Ok(value) = format!("bytes {}-{}/{size}", part.start, part.end - 1).try_into() {
        response.headers_mut().insert(CONTENT_RANGE, value);
    }
    Ok(response)
}

/// What the headers say of a file.
struct Described {
    content_type: &'static str,
    etag: String,
    modified: Vec<u8>,
}

impl Described {
    fn new(meta: &ObjectMeta) -> Self {
        let name = meta.path.as_str().rsplit('/').next().unwrap_or_default();
        let mut etag = String::with_capacity(32);
        // A file is only ever replaced as a whole, with a time in microseconds.
        let _ = write!(etag, "\"{:x}-{:x}\"", meta.modified.as_micros(), meta.size);
        Self {
            content_type: mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream"),
            etag,
            modified: http_date(meta.modified),
        }
    }

    /// Whether `If-Range` means this very file: its tag, or the date that was sent
    /// with it. Any other date is no reason to think that it is the same.
    fn is(&self, if_range: &HeaderValue) -> bool {
        if_range.as_bytes() == self.etag.as_bytes() || if_range.as_bytes() == self.modified
    }

    /// Whether `If-None-Match` names this file.
    fn is_among(&self, tags: &HeaderValue) -> bool {
        tags.to_str().is_ok_and(|tags| {
            tags.split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == self.etag)
        })
    }

    fn response(self, status: StatusCode, length: Option<u64>, body: ApiBody) -> Response<ApiBody> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        for (name, value) in [(ETAG, self.etag.into_bytes()), (LAST_MODIFIED, self.modified)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        response
    }
}
