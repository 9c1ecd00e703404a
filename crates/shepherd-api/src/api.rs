//! The service: from a request to an answer, and what all answers share.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{ALLOW, HeaderName};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use shepherd_job::JobIdRule;
use shepherd_serve::{BodyPace, Drain};

use crate::access::{self, Hosts};
use crate::backend::Backend;
use crate::body::ApiBody;
use crate::cors::{Cors, Grant};
use crate::error::{Answer, ApiError, json_response};
use crate::route::{Methods, OfJob, Route};
use crate::submit::spool::Spool;
use crate::unread::Sends;
use crate::{docs, events, files, jobs, json, logs, submit, unread};

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// How the API treats requests.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// Which job ids are legal.
    pub job_id_rule: JobIdRule,
    /// Where payloads too large for memory lie while they arrive, as files without
    /// names. Created when the first of them comes.
    pub spool_dir: PathBuf,
    /// The largest request body in bytes, packed or not; more is answered with 413.
    pub max_body_bytes: u64,
    /// How slowly a request body may come; slower ones are answered with 408.
    pub body_pace: BodyPace,
    /// Which web pages of other origins may call.
    pub cors: Cors,
    /// The host names that requests may be sent to.
    pub hosts: Hosts,
}

impl ApiOptions {
    /// Options with the defaults: bodies up to 1 GiB at the usual pace, no other origins,
    /// and no names but those of this machine.
    pub fn new(job_id_rule: JobIdRule, spool_dir: impl Into<PathBuf>) -> Self {
        Self {
            job_id_rule,
            spool_dir: spool_dir.into(),
            max_body_bytes: 1 << 30,
            body_pace: BodyPace::default(),
            cors: Cors::Off,
            hosts: Hosts::default(),
        }
    }
}

/// The HTTP API over a shepherd: a tower service (and a hyper one), cheap to
/// clone.
pub struct Api<B>(Arc<Shared<B>>);

struct Shared<B> {
    backend: B,
    options: ApiOptions,
    spool: Spool,
    drain: Drain,
}

impl<B> Clone for Api<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Backend> Api<B> {
    /// The API of `backend`.
    pub fn new(backend: B, options: ApiOptions) -> Self {
        let spool = Spool::new(options.spool_dir.clone());
        Self(Arc::new(Shared { backend, options, spool, drain: Drain::new() }))
    }

    pub(crate) fn backend(&self) -> &B {
        &self.0.backend
    }

    pub(crate) fn options(&self) -> &ApiOptions {
        &self.0.options
    }

    pub(crate) fn spool(&self) -> &Spool {
        &self.0.spool
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.0.drain
    }

    /// Begins to answer a request.
    fn handle<R>(&self, request: Request<R>) -> ApiFuture
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: std::fmt::Display,
    {
        let grant = self.options().cors.grant(request.method(), request.headers());
        let log = tracing::enabled!(tracing::Level::DEBUG).then(|| Box::new(AccessLog::new(&request)));
        let state = catch_unwind(AssertUnwindSafe(|| self.dispatch(request)))
            .unwrap_or_else(|panic| State::Ready(Err(panicked(&*panic))));
        let resource_policy = self.options().cors.resource_policy();
        ApiFuture { state, grant, resource_policy, log }
    }

    fn dispatch<R>(&self, request: Request<R>) -> State
    where
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let route = Route::parse(parts.uri.path());
        let state = match access::check(&parts, &self.options().hosts, &self.options().cors) {
            Err(refused) => State::Ready(Err(refused)),
            Ok(()) if route == Some(Route::StartJob) && parts.method == Method::POST => {
                return submit::start_job(self, &parts.headers, body);
            }
            Ok(()) => self.answer(route, &parts),
        };
        if body.is_end_stream() {
            return state;
        }
        let sends = Sends::of(&parts.headers);
        State::later(async move {
            // First, since hyper does not notice before a body's end that the
            // client left, and the answer may take long.
            let rest = unread::discard(pin!(body), sends).await;
            rest.answer(match state {
                State::Ready(answer) => answer,
                State::Later(future) => future.await,
            })
        })
    }

    /// Answers a request whose body means nothing.
    fn answer(&self, route: Option<Route<'_>>, request: &Parts) -> State {
        let Some(route) = route else {
            return State::Ready(if request.uri.path() == "*" && request.method == Method::OPTIONS {
                Ok(options(Methods::Get))
            } else {
                Err(ApiError::NoSuchPath)
            });
        };
        let methods = route.methods();
        if request.method == Method::OPTIONS {
            return State::Ready(Ok(options(methods)));
        }
        if !methods.allow(&request.method) {
            return State::Ready(Err(ApiError::Method(methods)));
        }
        let query = request.uri.query();
        match route {
            Route::Status => State::ok(json::flock(&self.backend().flock(), &self.backend().readiness())),
            Route::Job(id, of_job) => match of_job {
                OfJob::Status => jobs::status(self, &id),
                OfJob::Ready => jobs::ready(self, &id),
                OfJob::WaitReady => jobs::wait_ready(self, &id, query),
                OfJob::Events => events::of_job(self, &id, request),
                OfJob::Logs => logs::of_job(self, &id, request),
                OfJob::Cancel => jobs::cancel(self, &id),
                OfJob::Result(file) => files::result(self, &id, file, request),
                OfJob::Input(file) => files::input(self, &id, file, request),
            },
            Route::Jobs => jobs::list(self, query),
            Route::Healthz => State::ok(Bytes::from_static(b"{\"alive\":true}")),
            Route::Readyz => State::Ready(Ok(self.readiness())),
            Route::Spec => State::Ready(Ok(docs::spec())),
            Route::Ui { assets } => State::Ready(Ok(docs::page(assets))),
            Route::UiAsset(name) => State::Ready(docs::asset(name)),
            // Posts went another way, and other methods were refused above.
            Route::StartJob => State::Ready(Err(ApiError::Method(methods))),
        }
    }

    fn readiness(&self) -> Response<ApiBody> {
        let readiness = self.backend().readiness();
        let status =
            if readiness.problems.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        json_response(status, json::readiness(&readiness))
    }
}

fn options(methods: Methods) -> Response<ApiBody> {
    let mut response = Response::new(ApiBody::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, methods.header());
    response
}

impl<B, R> tower::Service<Request<R>> for Api<B>
where
    B: Backend,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: std::fmt::Display,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = ApiFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<R>) -> ApiFuture {
        self.handle(request)
    }
}

impl<B, R> hyper::service::Service<Request<R>> for Api<B>
where
    B: Backend,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: std::fmt::Display,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = ApiFuture;

    fn call(&self, request: Request<R>) -> ApiFuture {
        self.handle(request)
    }
}

/// An answer being made.
///
/// What a handler that waits for nothing returned is held as it is; only the
/// others are boxed.
pub struct ApiFuture {
    state: State,
    grant: Option<Grant>,
    resource_policy: HeaderValue,
    log: Option<Box<AccessLog>>,
}

/// What a handler gives.
pub(crate) enum State {
    /// The answer.
    Ready(Answer),
    /// The answer later.
    Later(Pin<Box<dyn Future<Output = Answer> + Send>>),
}

impl State {
    /// 200 with a JSON body.
    fn ok(body: Bytes) -> Self {
        Self::Ready(Ok(json_response(StatusCode::OK, body)))
    }

    pub(crate) fn later(future: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self::Later(Box::pin(future))
    }
}

impl Future for ApiFuture {
    type Output = Result<Response<ApiBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = match &mut self.state {
            State::Ready(answer) => std::mem::replace(answer, Err(ApiError::Internal)),
            State::Later(future) => match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(poll) => std::task::ready!(poll),
                Err(panic) => {
                    // What panicked must not be polled, nor dropped later than here.
                    self.state = State::Ready(Err(ApiError::Internal));
                    Err(panicked(&*panic))
                }
            },
        };
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        response.headers_mut().insert(CROSS_ORIGIN_RESOURCE_POLICY, self.resource_policy.clone());
        if let Some(grant) = self.grant.take() {
            grant.apply(response.headers_mut());
        }
        if let Some(log) = self.log.take() {
            log.write(response.status());
        }
        Poll::Ready(Ok(response))
    }
}

/// A panic in a handler is one failed request; the daemon lives on.
fn panicked(panic: &(dyn std::any::Any + Send)) -> ApiError {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text.unwrap_or("not a text"), "a request handler panicked");
    ApiError::Internal
}

struct AccessLog {
    method: Method,
    uri: Uri,
    began: Instant,
}

impl AccessLog {
    fn new<R>(request: &Request<R>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone(), began: Instant::now() }
    }

    fn write(self, status: StatusCode) {
        let micros = self.began.elapsed().as_micros();
        tracing::debug!(method = %self.method, uri = %self.uri, status = status.as_u16(), micros, "request");
    }
}
