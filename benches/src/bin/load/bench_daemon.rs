//! The daemon that is measured, and what is sent to it.

use std::future::Future;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shepherd_tests::{Daemon, Harness, Model, built};
use tokio::runtime::Runtime;

use crate::Options;

pub(crate) const NOOP: Model = Model { name: "noop", version: "latest" };
const SHEEP: &str = "dolly";

/// Directories that were used. They stay until all is measured: an ext4 without a
/// journal does not give out inodes that were freed in the last minutes, and looks
/// at each of them whenever a file is made (`recently_deleted`, fs/ext4/ialloc.c).
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes the directories that were used.
pub(crate) fn clean() {
    for dir in std::mem::take(&mut *LEFT.lock().unwrap_or_else(PoisonError::into_inner)) {
        if let Err(e) = std::fs::remove_dir_all(&dir) {
            eprintln!("cannot remove {}: {e}", dir.display());
        }
    }
}

/// What the runner does with a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runner {
    /// It keeps the first one for ever.
    pub(crate) hold: bool,
    /// It notes that it did it.
    pub(crate) tally: Option<PathBuf>,
    /// It notes how long it took.
    pub(crate) times: Option<PathBuf>,
}

/// A harness with one sheep, and what waits for its daemon.
pub(crate) struct BenchDaemon {
    pub(crate) harness: Harness,
    runtime: Runtime,
}

impl BenchDaemon {
    pub(crate) fn new(options: &Options, runner: &Runner) -> anyhow::Result<Self> {
        let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
        let mut harness = Harness::without_sheep(&parent);
        LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(harness.keep());
        let dir = harness.model_dir(NOOP);
        std::fs::write(dir.join("config.yaml"), "{}\n")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { harness: with_runner(harness, runner), runtime })
    }

    /// The same harness with another runner.
    pub(crate) fn with_runner(mut self, runner: &Runner) -> Self {
        self.harness = with_runner(self.harness, runner);
        self
    }

    /// The same harness with these keys of its sheep.
    pub(crate) fn with_sheep(mut self, keys: Value) -> Self {
        self.harness = self.harness.with_sheep(SHEEP, keys);
        self
    }

    /// The same harness with this storage.
    pub(crate) fn with_storage(mut self, storage: &Value) -> Self {
        // Keys of the storage before would be merged with these.
        self.harness = self.harness.with(json!({"storage": null})).with(json!({"storage": storage}));
        self
    }

    pub(crate) fn start(&self) -> Daemon {
        self.runtime.block_on(self.harness.start())
    }

    /// Starts the daemon; with it the time from the start until `path` was answered
    /// with 200.
    pub(crate) fn start_timed(&self, path: &str) -> anyhow::Result<(Daemon, Duration)> {
        // Built or found, and configured, before the clock runs.
        let command = self.harness.command();
        let begun = Instant::now();
        let daemon = self.runtime.block_on(self.harness.start_command(command));
        loop {
            if self.wait(daemon.client().try_get(path))?.status == 200 {
                return Ok((daemon, begun.elapsed()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for something of the harness.
    pub(crate) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn kill(&self, daemon: Daemon) {
        self.wait(daemon.kill());
    }

    pub(crate) fn stop(&self, daemon: Daemon) -> anyhow::Result<()> {
        let ended = self.wait(daemon.stop());
        anyhow::ensure!(ended.code == Some(0), "the daemon ended with {:?}:\n{}", ended.code, ended.log);
        Ok(())
    }

    /// Runs one job, so that the runner has its model.
    pub(crate) fn warm_up(&self, daemon: &Daemon) -> anyhow::Result<()> {
        self.run_one(daemon, "warm-up")
    }

    /// Runs one job to its end.
    pub(crate) fn run_one(&self, daemon: &Daemon, job: &str) -> anyhow::Result<()> {
        let client = daemon.client();
        let reply = self.wait(client.start_job(&shepherd_tests::start_body(job, NOOP, "x")));
        anyhow::ensure!(reply.status == 200, "{reply:?}");
        let status = self.wait(client.finished(job));
        anyhow::ensure!(status["status"] == "done", "{job}: {status}");
        Ok(())
    }
}

fn with_runner(harness: Harness, runner: &Runner) -> Harness {
    let mut command = vec![json!(built("noop_runner"))];
    if runner.hold {
        command.push(json!("--hold"));
    }
    for (option, path) in [("--tally", &runner.tally), ("--times", &runner.times)] {
        if let Some(path) = path {
            command.extend([json!(option), json!(path)]);
        }
    }
    harness.with_sheep(SHEEP, json!({"runner_command": Value::Array(command)}))
}

/// Makes the requests that clients send.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    payload: Option<String>,
}

impl Requests {
    /// Submits with a payload of this many bytes, or none.
    pub(crate) fn new(payload: Option<usize>) -> Self {
        Self { payload: payload.map(|bytes| "x".repeat(bytes)) }
    }

    /// `POST /start-job`.
    pub(crate) fn submit(&self, job: &str, request: &mut Vec<u8>) {
        const FIXED: usize = r#"{"job_id":"","model":{"name":"noop","version":"latest"}}"#.len();
        let payload = self.payload.as_deref();
        let length =
            FIXED + job.len() + payload.map_or(0, |payload| r#","payload":"""#.len() + payload.len());
        // Writing to memory does not fail.
        let _ = write!(
            request,
            "POST /start-job HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n\
             {{\"job_id\":\"{job}\",\"model\":{{\"name\":\"noop\",\"version\":\"latest\"}}"
        );
        if let Some(payload) = payload {
            let _ = write!(request, ",\"payload\":\"{payload}\"");
        }
        request.push(b'}');
    }
}

/// `GET` of any path.
pub(crate) fn get(path: &str, request: &mut Vec<u8>) {
    let _ = write!(request, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
}
