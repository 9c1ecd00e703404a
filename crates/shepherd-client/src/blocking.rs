//! The same client for programs without a runtime. It must not be used within one.
//!
//! ```no_run
//! use shepherd_client::{Submission, blocking::Client};
//!
//! let client = Client::new("http://127.0.0.1:5000")?;
//! let output = client.run(Submission::new("upper", "1").payload("counting sheep"))?;
//! assert_eq!(output, "COUNTING SHEEP");
//! # Ok::<(), shepherd_client::Error>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::{Error, Event, JobPage, JobStatus, Options, Readiness, Result, Sheep, Submission};

/// [`crate::Client`], blocking. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    inner: crate::Client,
    runtime: Arc<Runtime>,
}

/// [`crate::Job`], blocking.
#[derive(Clone, Debug)]
pub struct Job {
    inner: crate::Job,
    runtime: Arc<Runtime>,
}

/// [`crate::Log`], blocking: an iterator that ends after the first error.
#[derive(Debug)]
pub struct Log {
    inner: crate::Log,
    runtime: Arc<Runtime>,
    over: bool,
}

/// [`crate::Events`], blocking: an iterator that ends after the first error.
#[derive(Debug)]
pub struct Events {
    inner: crate::Events,
    runtime: Arc<Runtime>,
    over: bool,
}

impl Client {
    /// As [`crate::Client::new`].
    ///
    /// # Errors
    /// Those.
    pub fn new(url: &str) -> Result<Self> {
        Self::with_options(url, Options::default())
    }

    /// As [`crate::Client::with_options`].
    ///
    /// # Errors
    /// Those.
    pub fn with_options(url: &str, options: Options) -> Result<Self> {
        // One thread of its own, so that several of the caller's can wait at once.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("shepherd-client")
            .enable_all()
            .build()
            .map_err(|_| Error::Invalid("no thread can be started"))?;
        Ok(Self { inner: crate::Client::with_options(url, options)?, runtime: Arc::new(runtime) })
    }

    /// As [`crate::Client::submit`].
    ///
    /// # Errors
    /// Those.
    pub fn submit(&self, submission: Submission) -> Result<Job> {
        let inner = self.runtime.block_on(self.inner.submit(submission))?;
        Ok(Job { inner, runtime: self.runtime.clone() })
    }

    /// As [`crate::Client::run`].
    ///
    /// # Errors
    /// Those.
    pub fn run(&self, submission: Submission) -> Result<Bytes> {
        self.runtime.block_on(self.inner.run(submission))
    }

    /// As [`crate::Client::job`].
    pub fn job(&self, id: impl Into<String>) -> Job {
        Job { inner: self.inner.job(id), runtime: self.runtime.clone() }
    }

    /// As [`crate::Client::jobs`].
    ///
    /// # Errors
    /// Those.
    pub fn jobs(&self, status: Option<&str>, limit: u16, before: Option<&str>) -> Result<JobPage> {
        self.runtime.block_on(self.inner.jobs(status, limit, before))
    }

    /// As [`crate::Client::flock`].
    ///
    /// # Errors
    /// Those.
    pub fn flock(&self) -> Result<BTreeMap<String, Sheep>> {
        self.runtime.block_on(self.inner.flock())
    }

    /// As [`crate::Client::readiness`].
    ///
    /// # Errors
    /// Those.
    pub fn readiness(&self) -> Result<Readiness> {
        self.runtime.block_on(self.inner.readiness())
    }
}

impl Job {
    /// Its id.
    pub fn id(&self) -> &str {
        self.inner.id()
    }

    /// As [`crate::Job::status`].
    ///
    /// # Errors
    /// Those.
    pub fn status(&self) -> Result<JobStatus> {
        self.runtime.block_on(self.inner.status())
    }

    /// As [`crate::Job::wait`].
    ///
    /// # Errors
    /// Those.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<JobStatus> {
        self.runtime.block_on(self.inner.wait(timeout))
    }

    /// As [`crate::Job::result`].
    ///
    /// # Errors
    /// Those.
    pub fn result(&self, file: Option<&str>) -> Result<Bytes> {
        self.runtime.block_on(self.inner.result(file))
    }

    /// As [`crate::Job::result_json`].
    ///
    /// # Errors
    /// Those.
    pub fn result_json<T: DeserializeOwned>(&self, file: Option<&str>) -> Result<T> {
        self.runtime.block_on(self.inner.result_json(file))
    }

    /// As [`crate::Job::download`].
    ///
    /// # Errors
    /// Those.
    pub fn download(&self, file: Option<&str>, to: &Path) -> Result<()> {
        self.runtime.block_on(self.inner.download(file, to))
    }

    /// As [`crate::Job::cancel`].
    ///
    /// # Errors
    /// Those.
    pub fn cancel(&self) -> Result<JobStatus> {
        self.runtime.block_on(self.inner.cancel())
    }

    /// As [`crate::Job::logs`].
    ///
    /// # Errors
    /// Those.
    pub fn logs(&self) -> Result<Bytes> {
        self.runtime.block_on(self.inner.logs())
    }

    /// As [`crate::Job::follow_logs`].
    pub fn follow_logs(&self) -> Log {
        Log { inner: self.inner.follow_logs(), runtime: self.runtime.clone(), over: false }
    }

    /// As [`crate::Job::events`].
    pub fn events(&self, after: Option<String>) -> Events {
        Events { inner: self.inner.events(after), runtime: self.runtime.clone(), over: false }
    }
}

impl Iterator for Log {
    type Item = Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let piece = self.runtime.block_on(self.inner.next()).transpose();
        self.over = !matches!(piece, Some(Ok(_)));
        piece
    }
}

impl Iterator for Events {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let event = self.runtime.block_on(self.inner.next()).transpose();
        self.over = !matches!(event, Some(Ok(_)));
        event
    }
}
