//! An S3 server in this process: s3s-fs, with what happens on the way to it in the
//! test's hands.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) const ACCESS_KEY: &str = "test-access";
pub(crate) const SECRET_KEY: &str = "test-secret";

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is answered.
    Served,
    /// It is refused with this status, and a code.
    Refused(u16, &'static str),
    /// It is carried out, and the connection ends without an answer.
    Unanswered,
    /// The connection ends while the request is being read.
    Unread,
    /// The answer's body ends after so many bytes.
    Cut(usize),
    /// It is never answered.
    Ignored,
    /// It is answered this much later.
    Late(std::time::Duration),
}

type Plan = Arc<dyn Fn(&Method, &str) -> Fate + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, std::io::Error>>;

struct Inside {
    s3: S3Service,
    plan: Mutex<Plan>,
    seen: Mutex<Vec<String>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A running server. Its connections end with it.
pub(crate) struct Server {
    pub(crate) url: String,
    inside: Arc<Inside>,
    _dir: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let inside = Arc::new(Inside {
            s3: builder.build(),
            plan: Mutex::new(Arc::new(|_, _| Fate::Served)),
            seen: Mutex::default(),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&inside);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                let inside = Arc::clone(&shared);
                connections.spawn(async move {
                    let service =
                        hyper::service::service_fn(move |request| serve(Arc::clone(&inside), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { url, inside, _dir: dir, _tasks: tasks }
    }

    /// Decides what becomes of requests from now on.
    pub(crate) fn plan(&self, plan: impl Fn(&Method, &str) -> Fate + Send + Sync + 'static) {
        *self.inside.plan.lock().unwrap() = Arc::new(plan);
    }

    /// Forgets what was seen.
    pub(crate) fn forget(&self) {
        self.inside.seen.lock().unwrap().clear();
        self.inside.most.store(0, Ordering::SeqCst);
    }

    /// What was asked since, each as its method and its path, with the query where
    /// that says what is asked.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.inside.seen.lock().unwrap().clone()
    }

    /// How many requests were being answered at once at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.inside.most.load(Ordering::SeqCst)
    }
}

async fn serve(inside: Arc<Inside>, request: Request<Incoming>) -> Result<Answer, std::io::Error> {
    let now = inside.now.fetch_add(1, Ordering::SeqCst) + 1;
    inside.most.fetch_max(now, Ordering::SeqCst);
    let _leave = Leave(Arc::clone(&inside));
    let method = request.method().clone();
    let target = request.uri().to_string();
    inside.seen.lock().unwrap().push(format!("{method} {target}"));
    let plan = Arc::clone(&inside.plan.lock().unwrap());
    let gone = || std::io::Error::other("the connection is cut");
    let mut cut = usize::MAX;
    match plan(&method, &target) {
        Fate::Served => {}
        Fate::Refused(status, code) => {
            // As a server that is asked for too much, before it reads the body.
            let _ = request.into_body().collect().await;
            return Ok(error(status, code));
        }
        Fate::Unanswered => {
            let _ = answer(&inside, request).await.into_body().collect().await;
            return Err(gone());
        }
        Fate::Unread => {
            let _ = request.into_body().frame().await;
            return Err(gone());
        }
        Fate::Cut(after) => cut = after,
        Fate::Ignored => std::future::pending().await,
        Fate::Late(by) => tokio::time::sleep(by).await,
    }
    if unclean(request.uri().path()) {
        return Ok(unkept(&method));
    }
    let answered = answer(&inside, request).await;
    // s3s-fs keeps objects as files, and stumbles where it finds a directory or
    // cannot make a file. Other servers that do say what that means.
    if answered.status() == StatusCode::INTERNAL_SERVER_ERROR {
        return Ok(unkept(&method));
    }
    Ok(answered.map(|body| Cutting { body, left: cut }.boxed_unsync()))
}

/// Whether s3s-fs cannot be trusted with the key: as one that is no clean path, it
/// would be another one; a long one is kept and not listed; and an object where a
/// directory will be needed is in the way.
fn unclean(path: &str) -> bool {
    let key = path.splitn(3, '/').nth(2).unwrap_or_default();
    let unclean = key.split('/').any(str::is_empty) || key.rsplit('/').next() == Some("outputs");
    !key.is_empty() && (unclean || key.len() > 200)
}

/// What is said of a key that cannot be kept.
fn unkept(method: &Method) -> Answer {
    match *method {
        Method::GET | Method::HEAD => error(404, "NoSuchKey"),
        _ => error(400, "KeyTooLongError"),
    }
}

struct Leave(Arc<Inside>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(inside: &Inside, request: Request<Incoming>) -> Answer {
    match inside.s3.call(request.map(s3s::Body::from)).await {
        Ok(answer) => answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync()),
        Err(broken) => panic!("s3s: {broken:?}"),
    }
}

fn error(status: u16, code: &str) -> Answer {
    let text = format!("<Error><Code>{code}</Code><Message>as planned</Message></Error>");
    let body = Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

/// A body that ends with an error after so many bytes.
struct Cutting {
    body: UnsyncBoxBody<Bytes, std::io::Error>,
    left: usize,
}

impl Body for Cutting {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(Some(Err(std::io::Error::other("the body is cut"))));
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            let Ok(mut data) = frame.into_data() else { return Ok(Frame::data(Bytes::new())) };
            data.truncate(self.left);
            self.left -= data.len();
            Ok(Frame::data(data))
        }))
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.left > 0 && self.body.is_end_stream()
    }
}
