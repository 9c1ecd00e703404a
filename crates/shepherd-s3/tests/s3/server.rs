//! An endpoint with a directory of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use shepherd_s3::{Credentials, Drained, Endpoint, Flusher, Hosts, NoFlusher, ServeOptions, serve};
use shepherd_storage::LocalStorage;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};

pub(crate) const ACCESS_KEY: &str = "shepherd";
pub(crate) const SECRET_KEY: &str = "a long secret";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) dir: PathBuf,
    outer: TempDir,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Arc::new(NoFlusher)).await
    }

    pub(crate) async fn with(flusher: Arc<dyn Flusher>) -> Self {
        Self::over(TempDir::new().unwrap(), flusher).await
    }

    async fn over(outer: TempDir, flusher: Arc<dyn Flusher>) -> Self {
        let dir = outer.path().join("storage");
        let storage = Arc::new(LocalStorage::open(&dir).unwrap());
        let keys = Credentials::new(ACCESS_KEY, SECRET_KEY);
        let hosts = Hosts::new(["s3.example.com".to_owned()]);
        let endpoint = Endpoint::new(storage, flusher, keys, hosts, "us-east-1");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, endpoint, ServeOptions::default(), async {
            let _ = stopped.await;
        }));
        Self { address, dir, outer, stop, served }
    }

    /// The same directory under a new endpoint.
    pub(crate) async fn restart(self) -> Self {
        let _ = self.stop.send(());
        assert_eq!(self.served.await.unwrap(), Drained { aborted: 0 });
        Self::over(self.outer, Arc::new(NoFlusher)).await
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A client, and a bucket `a-job`.
    pub(crate) async fn bucket(&self) -> Client {
        let client = self.client();
        client.put("/a-job", b"").await.is(200);
        client
    }

    /// Returns once nothing is being written or removed: a client may have its answer
    /// before a blocking thread has dropped what it gave up.
    pub(crate) async fn becomes_tidy(&self) {
        let tidy = async {
            while !self.is_tidy() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), tidy).await.expect("temporaries stay");
    }

    /// Whether nothing is being written or removed.
    pub(crate) fn is_tidy(&self) -> bool {
        names(&self.dir.join(".shepherd/tmp"))
            .iter()
            .all(|process| names(&self.dir.join(".shepherd/tmp").join(process)).is_empty())
    }
}

pub(crate) fn names(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The text of the first element of this name.
pub(crate) fn element(answer: &Answer, name: &str) -> Option<String> {
    elements(answer, name).into_iter().next()
}

/// The texts of all elements of this name.
pub(crate) fn elements(answer: &Answer, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let text = answer.text();
    let found = text.split(&open).skip(1).filter_map(|rest| rest.split_once(&close));
    found.map(|(inner, _)| inner.replace("&quot;", "\"").replace("&amp;", "&")).collect()
}
