//! One life of a daemon.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use crate::{Client, Log, PATIENCE, process};

/// What a daemon says once it can be asked.
const AVAILABLE: &str = "Shepherd API is available at http://";

/// What a daemon says once its storage can be asked over S3.
const SERVED: &str = "The storage is available over S3 at http://";

/// How long a dead daemon's output is read when something else holds it open.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_millis(500);

/// A running daemon. Dropping it kills it and everything that runs below its harness.
#[derive(Debug)]
pub struct Daemon {
    pid: i32,
    harness: PathBuf,
    log: Log,
    ended: watch::Receiver<Option<ExitStatus>>,
    client: Option<Client>,
}

/// How a daemon ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Whether the kernel wrote its memory to a file.
    pub core_dumped: bool,
    /// All that it printed.
    pub log: String,
}

impl Daemon {
    /// Starts `command` in a process group of its own.
    pub(crate) fn spawn(mut command: Command, harness: &Path) -> Self {
        use std::os::unix::process::CommandExt as _;

        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let log = Log::new();
        let readers =
            [child.stdout.take().map(|out| log.follow(out)), child.stderr.take().map(|err| log.follow(err))];
        let pid = i32::try_from(child.id()).expect("a process id is positive");
        let ended = reap(child, readers.into_iter().flatten().collect());
        Self { pid, harness: harness.to_owned(), log, ended, client: None }
    }

    /// Waits until the API answers.
    ///
    /// # Panics
    /// When the daemon ends instead.
    pub async fn available(&mut self) {
        self.client = Some(Client::new(self.address_after(AVAILABLE).await));
    }

    /// The URL of the S3 endpoint, once it answers.
    ///
    /// # Panics
    /// When the daemon ends instead.
    pub async fn s3_url(&self) -> String {
        format!("http://{}", self.address_after(SERVED).await)
    }

    async fn address_after(&self, words: &str) -> SocketAddr {
        let line = self.await_line(words).await;
        let address = line.split_once(words).map(|(_, rest)| rest).unwrap_or_default();
        let is_end = |c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']'));
        let address = address.split(is_end).next().unwrap_or_default();
        address.parse().unwrap_or_else(|e| panic!("no address in `{line}`: {e}"))
    }

    /// Waits for a line in the log.
    ///
    /// # Panics
    /// When the daemon ends without it.
    pub async fn await_line(&self, needle: &str) -> String {
        let mut ended = self.ended.clone();
        let line = async {
            tokio::select! {
                biased;
                line = self.log.line_with(needle) => line,
                status = ended.wait_for(Option::is_some) => {
                    let status = status.map(|status| *status);
                    // Readers are joined before the end is told, so this is all of it.
                    let text = self.log.text();
                    let found = text.lines().find(|line| line.contains(needle));
                    found.unwrap_or_else(|| panic!("it ended ({status:?}) without `{needle}`")).to_owned()
                }
            }
        };
        let line = tokio::time::timeout(PATIENCE, line).await;
        line.unwrap_or_else(|_| panic!("it never printed `{needle}`"))
    }

    /// Asks this daemon.
    ///
    /// # Panics
    /// Before [`available`](Self::available) returned.
    pub fn client(&self) -> Client {
        self.client.clone().expect("the daemon is available")
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// What it printed so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The most memory it held at any time, in bytes.
    ///
    /// # Panics
    /// When it has ended.
    pub fn peak_memory(&self) -> u64 {
        process::memory(self.pid, "VmHWM").expect("the daemon runs")
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // Reaped processes are never signalled: their number may be another's by now.
        if self.is_running() {
            process::signal(self.pid, signal);
        }
    }

    /// Waits for it to end.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let status = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
        let status = *status.expect("the daemon did not end").expect("its end is always told");
        Ended {
            code: status.and_then(|status| status.code()),
            core_dumped: status.is_some_and(|status| status.core_dumped()),
            log: self.log.text(),
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub async fn kill(self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    /// SIGTERM, and waits for the end that it makes of itself.
    pub async fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// The runners and their children that run below the harness's directory.
    pub fn runners(&self) -> Vec<i32> {
        process::below(&self.harness).into_iter().filter(|pid| *pid != self.pid).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the daemon {} ---\n{}---", self.pid, self.log.text());
        }
        if self.is_running()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            // Until it is gone it may write into directories that are removed next.
            let _ = wait_for(|| !self.is_running());
        }
    }
}

/// Waits, without the help of a runtime, for what cannot fail to come.
pub(crate) fn wait_for(mut over: impl FnMut() -> bool) -> bool {
    let since = std::time::Instant::now();
    loop {
        if over() {
            return true;
        }
        if since.elapsed() > PATIENCE {
            return false;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Waits for the child on a thread of its own, and for its last words.
fn reap(mut child: Child, readers: Vec<std::thread::JoinHandle<()>>) -> watch::Receiver<Option<ExitStatus>> {
    let (sender, receiver) = watch::channel(None);
    std::thread::spawn(move || {
        // A runner that inherited the pipe may hold it open for longer: give the
        // readers what is there, then tell the end all the same.
        let status = child.wait().expect("a child can be waited for");
        let since = std::time::Instant::now();
        let read = || readers.iter().all(std::thread::JoinHandle::is_finished);
        let _ = wait_for(|| read() || since.elapsed() > LAST_WORDS);
        sender.send_replace(Some(status));
    });
    receiver
}
