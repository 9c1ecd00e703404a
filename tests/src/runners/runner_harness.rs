//! A daemon with runners of one kind, on two sheep: what happens on one must not be
//! felt on the other.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Harness, Kind};
use crate::ids::{SCRIPTED, SHEEP};
use crate::{Client, Daemon, Model, Reply, Script, eventually, process, start_body};

/// The other sheep.
pub const NEIGHBOUR: &str = "neighbour";

/// What becomes of the sheep's runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is the same process as before.
    Same,
    /// It is gone, and another one took its place.
    Other,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The message for its client.
    pub message: String,
    /// The type of the exception.
    pub kind: String,
    /// The traceback.
    pub traceback: String,
}

/// One kind of runner at work: a job is in work on the [`NEIGHBOUR`] from the beginning to the end.
#[derive(Debug)]
pub struct RunnerHarness {
    /// What its runners are made with.
    pub kind: Kind,
    /// Its directories.
    pub harness: Harness,
    daemon: Daemon,
    first: i32,
    neighbours: usize,
}

impl RunnerHarness {
    /// Starts it, with these keys in its configuration; nothing when this machine lacks what the kind needs.
    pub async fn start(kind: Kind, settings: Value) -> Option<Self> {
        let mut harness = Harness::without_sheep(&std::env::temp_dir());
        for id in [SHEEP, NEIGHBOUR] {
            let runner = kind.set_up(&harness)?;
            harness = harness.with_sheep(id, runner);
        }
        let harness = harness.with(json!({"limits": {"crash_retries": 0}})).with(settings);
        let daemon = harness.start().await;
        let mut runners = Self { kind, harness, daemon, first: 0, neighbours: 1 };
        let gate = Script::Gate(runners.gate("neighbour"));
        runners.submit_to(NEIGHBOUR, "neighbour", SCRIPTED, &gate).await;
        runners.submit("first", &Script::Say("first".into())).await;
        runners.done("first", &[("output", b"first")]).await;
        runners.first = runners.pid("first").await;
        runners.harness.begun("neighbour", 1).await;
        Some(runners)
    }

    /// Asks its daemon.
    pub fn client(&self) -> Client {
        self.daemon.client()
    }

    /// Submits a job for the sheep.
    pub async fn submit(&self, job: &str, script: &Script) {
        self.submit_to(SHEEP, job, SCRIPTED, script).await;
    }

    /// Submits a job of any model for any sheep.
    pub async fn submit_to(&self, sheep: &str, job: &str, model: Model, script: &Script) {
        let mut body = start_body(job, model, &script.text());
        body["sheep_id"] = json!(sheep);
        let reply = self.client().start_job(&body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// Runs a job, and another one that was sent behind it.
    pub async fn run(&self, job: &str, script: &Script) {
        let runs = self.run_with_another(job, script).await;
        assert_eq!(runs, 1, "it was nobody's fault but that of the job before it");
    }

    /// The same where the runner says in the first job what it should not, and is ended for it. It may have begun the
    /// other one by then, which runs again, and is not blamed.
    pub async fn run_liar(&self, job: &str, script: &Script) {
        let runs = self.run_with_another(job, script).await;
        assert!((1..=2).contains(&runs), "{runs}");
    }

    /// How often the other one was begun.
    async fn run_with_another(&self, job: &str, script: &Script) -> usize {
        self.submit(job, script).await;
        let behind = format!("behind-{job}");
        self.submit(&behind, &Script::Say(behind.clone())).await;
        self.client().finished(job).await;
        self.done(&behind, &[("output", behind.as_bytes())]).await;
        self.runs(&behind)
    }

    /// Waits for a job that must be done, and have these outputs and no others.
    pub async fn done(&self, job: &str, outputs: &[(&str, &[u8])]) {
        let status = self.client().finished(job).await;
        assert_eq!((&status["status"], &status["error_details"]), (&json!("done"), &Value::Null), "{status}");
        for (name, bytes) in outputs {
            let reply = self.output(job, name).await;
            assert_eq!((reply.status, &*reply.body), (200, *bytes), "{name} of {job}");
        }
        let mut wanted: Vec<PathBuf> = outputs.iter().map(|(name, _)| PathBuf::from(name)).collect();
        wanted.sort_unstable();
        let dir = self.harness.object(job, "outputs");
        let files = async || {
            // Small ones are brought there when there is time for it.
            let all = || Some(files_below(&dir)).filter(|files| files.len() >= wanted.len());
            eventually("the outputs in storage", all).await
        };
        assert_eq!(files().await, wanted, "of {job}");
    }

    /// Waits for a job that must fail, and have no result.
    pub async fn failed(&self, job: &str) -> Failure {
        let status = self.client().finished(job).await;
        assert_eq!(status["status"], "failed", "{status}");
        let text = |key: &str| status["error_details"][key].as_str().unwrap_or_default().to_owned();
        let failure = Failure {
            message: text("message"),
            kind: text("exception_type"),
            traceback: text("exception_traceback"),
        };
        assert!(!failure.message.is_empty(), "{status}");
        assert_eq!(self.client().result(job).await.message(500), failure.message);
        failure
    }

    /// `GET /jobs/JOB/result/NAME`.
    pub async fn output(&self, job: &str, name: &str) -> Reply {
        self.client().get(&result_path(job, name)).await
    }

    /// The process that began a job, once one has.
    pub async fn pid(&self, job: &str) -> i32 {
        self.harness.begun(job, 1).await;
        self.harness.journal().runs_of(job)[0].pid
    }

    /// How often a job was begun.
    pub fn runs(&self, job: &str) -> usize {
        self.harness.journal().runs_of(job).len()
    }

    /// A path in the harness for a [`Script::Gate`].
    pub fn gate(&self, name: &str) -> PathBuf {
        self.harness.path(format!("gate-{name}"))
    }

    /// Lets a job that waits at a [`gate`](Self::gate) go on.
    pub fn open(&self, gate: &str) {
        self.harness.open_gate(&self.gate(gate));
    }

    /// SIGTERM to the daemon; it drains.
    pub async fn terminate(&self) {
        self.daemon.signal(Signal::TERM);
        self.daemon.await_line("draining").await;
    }

    /// Waits until the terminated daemon has ended, well and with all its processes, and starts another one.
    pub async fn restart(&mut self) {
        let ended = self.daemon.ended().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(self.harness.processes().is_empty(), "a daemon that ended leaves no process");
        self.daemon = self.harness.start().await;
    }

    /// The job on the other sheep is expected to be begun so often.
    pub fn expect_neighbours(&mut self, times: usize) {
        self.neighbours = times;
    }

    /// Ends it: the next job is done, by the same runner or by another one, and the neighbour noticed nothing.
    pub async fn leave(self, after: After) {
        self.submit("last", &Script::Say("last".into())).await;
        self.done("last", &[("output", b"last")]).await;
        let last = self.pid("last").await;
        match after {
            After::Same => assert_eq!(last, self.first, "it is the same runner"),
            After::Other => {
                assert_ne!(last, self.first, "it is another runner");
                assert!(!process::is_alive(self.first), "the runner before is gone");
            }
        }
        self.open("neighbour");
        self.done("neighbour", &[("output", b"through")]).await;
        assert_eq!(self.runs("neighbour"), self.neighbours);
        let ended = self.daemon.stop().await;
        assert_eq!(ended.code, Some(0), "{}", ended.log);
        assert!(self.harness.processes().is_empty(), "a daemon that ended leaves no process");
    }
}

/// The path of an output, with what a URL cannot hold in percent-encoding.
pub fn result_path(job: &str, name: &str) -> String {
    let mut path = format!("/jobs/{job}/result/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// Files below a directory, in order; those that vanish meanwhile are no matter.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    fn list(dir: &Path, prefix: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = prefix.join(entry.file_name());
            if entry.path().is_dir() {
                list(&entry.path(), &path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    list(dir, Path::new(""), &mut found);
    found.sort_unstable();
    found
}
