//! The client itself: sending, trying again, submitting.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;

use crate::answer::{Answer, Lost, Trouble, job_path};
use crate::patience::Patience;
use crate::record::Flock;
use crate::submission::Body;
use crate::{Error, Job, JobPage, JobStatus, Readiness, Result, Sheep, Submission, proxy};

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a stream may be quiet.
pub(crate) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How fast a body goes out at the least, in bytes a second: it gets so much more time.
const SLOWEST_UPLOAD: u64 = 64 * 1024;

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For how long a shepherd that gives no sign of life is asked again; 30 seconds unless said otherwise. One request
    /// may be silent for 5 seconds in any case.
    pub retry_for: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { retry_for: Duration::from_secs(30) }
    }
}

/// A client of one shepherd. Clones share its connections.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: String,
    /// For people: without user and password.
    shown: String,
    /// What the environment lets requests go through, for people.
    proxy: Option<String>,
    options: Options,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Client").field(&self.inner.shown).finish()
    }
}

impl Client {
    /// A client of the shepherd at this URL, which may have a path.
    ///
    /// # Errors
    /// When the URL is none of HTTP's.
    pub fn new(url: &str) -> Result<Self> {
        Self::with_options(url, Options::default())
    }

    /// The same, with other options.
    ///
    /// # Errors
    /// When the URL is none of HTTP's.
    pub fn with_options(url: &str, options: Options) -> Result<Self> {
        // Never with the URL: it may hold a password.
        let wrong =
            Error::Invalid("the URL of the shepherd must be like http://HOST:PORT or http://HOST/PATH");
        let Ok(parsed) = Url::parse(url) else { return Err(wrong) };
        let of_http = matches!(parsed.scheme(), "http" | "https");
        if !of_http || !parsed.has_host() || parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(wrong);
        }
        let mut shown = parsed.clone();
        if shown.set_username("").is_err() || shown.set_password(None).is_err() {
            return Err(wrong);
        }
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(STREAM_IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none());
        let proxy = if proxy::leads_to_this_machine(&parsed) {
            http = http.no_proxy();
            None
        } else {
            proxy::of(&parsed)
        };
        let http = http
            .build()
            .map_err(|_| Error::Invalid("this machine's certificate authorities cannot be read"))?;
        let trim = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        let inner = Inner { http, base: trim(&parsed), shown: trim(&shown), proxy, options };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Submits a job; when this returns, the shepherd has it on disk. May be dropped, and then has submitted it or not.
    ///
    /// # Errors
    /// [`Error::AlreadySubmitted`], [`Error::Rejected`], [`Error::Unavailable`].
    pub async fn submit(&self, submission: Submission) -> Result<Job> {
        let Submission { body, exist_ok } = submission;
        match &body.payload {
            Some(payload) if !payload.is_empty() => self.start(&body, payload, exist_ok).await?,
            Some(_) | None => self.start_stored(&body, exist_ok).await?,
        }
        Ok(self.job(body.job_id))
    }

    /// Submits a job and waits for its result.
    ///
    /// # Errors
    /// As [`submit`](Self::submit) and [`Job::result`].
    pub async fn run(&self, submission: Submission) -> Result<bytes::Bytes> {
        self.submit(submission).await?.result(None).await
    }

    /// A job that was submitted before. Nothing is asked.
    pub fn job(&self, id: impl Into<String>) -> Job {
        Job::new(self.clone(), id.into())
    }

    /// A page of at most `limit` jobs (1 to 1,000), newest first: the first, or the one that begins where an earlier
    /// one said. `status` is `queued`, `processing`, `done`, `failed` or `cancelled`.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::Unavailable`].
    pub async fn jobs(&self, status: Option<&str>, limit: u16, before: Option<&str>) -> Result<JobPage> {
        let limit = limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(status.map(|status| ("status", status)));
        query.extend(before.map(|before| ("before", before)));
        let answer = self.get("/jobs", &query).await?;
        if answer.status == 200 { answer.json() } else { Err(answer.refused()) }
    }

    /// The flock.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn flock(&self) -> Result<BTreeMap<String, Sheep>> {
        let answer = self.get("/status", &[]).await?;
        if answer.status == 200 { Ok(answer.json::<Flock>()?.sheep) } else { Err(answer.refused()) }
    }

    /// Whether the shepherd can take and do jobs. Asks once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when nobody answers.
    pub async fn readiness(&self) -> Result<Readiness> {
        let answer =
            self.send(self.request(Method::GET, "/readyz", &[]), &self.patience(), Duration::ZERO).await;
        let answer = answer.map_err(|lost| Error::Unavailable(self.out_of_reach(&lost).why))?;
        if matches!(answer.status, 200 | 503) { answer.json() } else { Err(answer.refused()) }
    }

    /// Submits a job whose input travels with the request.
    async fn start(&self, body: &Body, payload: &str, exist_ok: bool) -> Result<()> {
        let (mut in_doubt, mut patience) = (exist_ok, self.patience());
        let text = encode(body)?;
        let upload = Duration::from_secs(text.len() as u64 / SLOWEST_UPLOAD);
        loop {
            let trouble = match self.send(self.start_request(&text), &patience, upload).await {
                Err(lost) => {
                    in_doubt |= lost.sent;
                    self.out_of_reach(&lost)
                }
                Ok(answer) => match answer.status {
                    200 => return Ok(()),
                    409 if in_doubt && self.is_ours(body, payload).await? => return Ok(()),
                    409 => return Err(Error::AlreadySubmitted(body.job_id.clone())),
                    _ if answer.try_again() => {
                        // A proxy may say so of what it has passed on.
                        in_doubt = true;
                        answer.message().into()
                    }
                    _ => return Err(answer.refused()),
                },
            };
            pause(&mut patience, trouble).await?;
        }
    }

    /// Submits a job whose inputs are in storage; or whose one input is empty, which the shepherd takes for none where
    /// there are inputs already.
    async fn start_stored(&self, body: &Body, exist_ok: bool) -> Result<()> {
        let before = self.status_if_known(&body.job_id).await?.map(|status| status.enqueued_at);
        if before.is_some() && body.payload.is_some() {
            let ours = exist_ok && self.is_ours(body, "").await?;
            return if ours { Ok(()) } else { Err(Error::AlreadySubmitted(body.job_id.clone())) };
        }
        let mut patience = self.patience();
        let text = encode(body)?;
        loop {
            let trouble = match self.send(self.start_request(&text), &patience, Duration::ZERO).await {
                Err(lost) => self.out_of_reach(&lost),
                Ok(answer) => match answer.status {
                    200 if answer.json::<Started>()?.conflict.is_none() => return Ok(()),
                    200 | 409 => return Err(Error::AlreadySubmitted(body.job_id.clone())),
                    _ if answer.try_again() => answer.message().into(),
                    _ => return Err(answer.refused()),
                },
            };
            pause(&mut patience, trouble).await?;
            let now = self.status_if_known(&body.job_id).await?.map(|status| status.enqueued_at);
            if now.is_some() && now != before {
                return Ok(());
            }
        }
    }

    /// Whether the job that is there is this one: the same model, and the same input.
    async fn is_ours(&self, body: &Body, payload: &str) -> Result<bool> {
        let Some(status) = self.status_if_known(&body.job_id).await? else { return Ok(false) };
        if status.model.name.as_deref() != Some(&body.model.name)
            || status.model.version.as_deref() != Some(&body.model.version)
        {
            return Ok(false);
        }
        let answer = self.get(&job_path(&body.job_id, "input")?, &[]).await?;
        // An input that somebody has removed since says nothing.
        Ok(matches!(answer.status, 400 | 404) || (answer.status == 200 && answer.body == payload))
    }

    pub(crate) async fn status(&self, job: &str) -> Result<JobStatus> {
        let answer = self.get(&job_path(job, "status")?, &[]).await?;
        if answer.status == 200 { answer.json() } else { Err(answer.refused_of(job)) }
    }

    async fn status_if_known(&self, job: &str) -> Result<Option<JobStatus>> {
        match self.status(job).await {
            Ok(status) => Ok(Some(status)),
            Err(Error::UnknownJob(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn start_request(&self, text: &str) -> reqwest::RequestBuilder {
        self.request(Method::POST, "/start-job", &[])
            .header("content-type", "application/json")
            .body(text.to_owned())
    }

    pub(crate) async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Answer> {
        self.asked(Method::GET, path, query).await
    }

    /// An answer to what may be asked any number of times.
    pub(crate) async fn asked(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<Answer> {
        let mut patience = self.patience();
        loop {
            let request = self.request(method.clone(), path, query);
            let trouble = match self.send(request, &patience, Duration::ZERO).await {
                Ok(answer) if answer.try_again() => answer.message().into(),
                Ok(answer) => return Ok(answer),
                Err(lost) => self.out_of_reach(&lost),
            };
            pause(&mut patience, trouble).await?;
        }
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
    ) -> reqwest::RequestBuilder {
        self.inner.http.request(method, format!("{}{path}", self.inner.base)).query(query)
    }

    /// Sends a request and reads its answer. The shepherd may be silent for as long as it `waits` and we have patience;
    /// the whole of it ends at the deadline.
    pub(crate) async fn send(
        &self,
        request: reqwest::RequestBuilder,
        patience: &Patience,
        waits: Duration,
    ) -> Result<Answer, Lost> {
        let silence = patience.silence() + waits;
        let exchange = async {
            let mut response = heard(silence, request.send()).await?;
            let status = response.status().as_u16();
            let mut body = BytesMut::new();
            while let Some(piece) = heard(silence, response.chunk()).await? {
                body.extend_from_slice(&piece);
            }
            Ok(Answer { status, body: body.freeze() })
        };
        let Some(deadline) = patience.deadline() else { return exchange.await };
        let left = deadline.saturating_duration_since(Instant::now());
        tokio::time::timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(Lost::silent(left)))
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.inner.options.retry_for, None)
    }

    pub(crate) fn options(&self) -> Options {
        self.inner.options
    }

    pub(crate) fn out_of_reach(&self, lost: &Lost) -> Trouble {
        let Inner { shown, proxy, .. } = &*self.inner;
        let why = match proxy {
            None => format!("{shown} does not answer ({})", lost.why),
            Some(proxy) => format!(
                "{shown} does not answer through the proxy {proxy}, which the environment names ({})",
                lost.why
            ),
        };
        Trouble { why, silent: lost.silent }
    }
}

/// The answer to an accepted submit.
#[derive(Deserialize)]
struct Started {
    /// What the job that is there has other than the one that was submitted.
    conflict: Option<String>,
}

/// What comes of the shepherd, unless it is silent for too long.
pub(crate) async fn heard<T>(
    silence: Duration,
    coming: impl Future<Output = reqwest::Result<T>>,
) -> Result<T, Lost> {
    match tokio::time::timeout(silence, coming).await {
        Ok(came) => came.map_err(Lost::new),
        Err(_) => Err(Lost::silent(silence)),
    }
}

fn encode(body: &Body) -> Result<String> {
    serde_json::to_string(body).map_err(|_| Error::Invalid("the submission cannot be written as JSON"))
}

pub(crate) async fn pause(patience: &mut Patience, trouble: impl Into<Trouble>) -> Result<()> {
    let Trouble { why, silent } = trouble.into();
    match patience.pause(silent) {
        Some(pause) => {
            tokio::time::sleep(pause).await;
            Ok(())
        }
        None => Err(Error::Unavailable(why)),
    }
}
