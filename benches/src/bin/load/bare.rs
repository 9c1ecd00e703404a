//! A hyper handler that does nothing but answer, as the measure of one that does
//! something: what it costs to take a request and send these bytes.

use std::convert::Infallible;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// Reads the body from standard input, prints the port and serves until it is
/// killed. The runtime is the daemon's: one worker for each core.
pub(crate) fn serve() -> anyhow::Result<()> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let body = Bytes::from(body);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let body = body.clone();
            tokio::spawn(async move {
                let service = service_fn(move |_| {
                    let response = http::Response::builder()
                        .header(http::header::CONTENT_TYPE, "application/json; charset=utf-8")
                        .body(Full::new(body.clone()))
                        .expect("a legal response");
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

/// A process that serves a body. Killed when dropped.
pub(crate) struct Bare {
    child: Child,
    pub(crate) address: std::net::SocketAddr,
}

impl Bare {
    pub(crate) fn start(body: &[u8]) -> anyhow::Result<Self> {
        use std::io::{BufRead as _, Write as _};

        let mut child = Command::new(std::env::current_exe()?)
            .arg("bare")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the bare server")?;
        child.stdin.take().context("it has a standard input")?.write_all(body)?;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().context("it has a standard output")?)
            .read_line(&mut line)?;
        let address = line.trim().parse().context("the bare server's address")?;
        Ok(Self { child, address })
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
