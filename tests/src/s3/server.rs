//! `s3s-fs` on hyper.

use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;

use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::requests::{Request, Requests};
use super::thread::Thread;
use super::{ACCESS_KEY, SECRET_KEY};

/// A running server. Its data is removed when it is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    requests: Requests,
    // Before the directory, which it writes to.
    _thread: Thread,
    root: TempDir,
}

impl S3Server {
    /// Starts one that is empty, at a free port.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory can be made");
        let listener = StdListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a socket can be told");
        let address = listener.local_addr().expect("it is bound");
        let mut service =
            S3ServiceBuilder::new(FileSystem::new(root.path()).expect("the directory is there"));
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let (service, requests) = (service.build(), Requests::default());
        let recorded = requests.clone();
        let thread = Thread::run(move || serve(listener, service, recorded));
        Self { address, requests, _thread: thread, root }
    }

    /// Its address as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Its data: a directory a bucket, in that a file an object.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// A client of it.
    pub fn client(&self) -> super::S3Client {
        super::S3Client::new(self.url())
    }
}

async fn serve(listener: StdListener, service: S3Service, requests: Requests) {
    let listener = TcpListener::from_std(listener).expect("it was made for this");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, for one: the client tries again.
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(connection(stream, service.clone(), requests.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, service: S3Service, requests: Requests) {
    // Without it every answer on a connection that is kept waits 40 ms for the client's ACK.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let running = requests.begin(Request::new(request.method().as_str(), target));
        let answer = hyper::service::Service::call(&service, request);
        async move {
            // With the body, which is a part of the answer.
            answer.await.map(|answer| {
                answer.map(|body| {
                    body.map_frame(move |frame| {
                        let _while_it_lives = &running;
                        frame
                    })
                })
            })
        }
    });
    // A client that goes away is no news.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}
