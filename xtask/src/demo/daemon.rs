//! The daemon as a child process: started on a free port, its log kept, stopped as an init system stops it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;

/// The log line that tells the address, up to the address.
const AVAILABLE: &str = "Shepherd API is available at http://";
/// It starts in a fraction of this even where everything is slow.
const START: Duration = Duration::from_secs(30);
/// Its own grace for a stop is 10 s by default.
const STOP: Duration = Duration::from_secs(30);

/// A running daemon; dropping it ends the process.
pub(super) struct Daemon {
    child: Child,
    address: String,
}

impl Daemon {
    /// Starts `program` on `config` with `path` first on its PATH, writes what it prints to `log`, shows the
    /// lines of its start, and returns once it says that it can be reached.
    ///
    /// # Errors
    /// It cannot be started, ends, or says nothing for too long.
    pub(super) fn start(program: &Path, config: &Path, log: &Path, path: &Path) -> Result<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(path.to_owned()).chain(std::env::split_paths(&paths));
        let file = File::create(log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let child = Command::new(program)
            .arg("-c")
            .arg(config)
            // Port 0: the system picks one, and the log tells which.
            .args(["-h", "127.0.0.1", "-p", "0"])
            .env("PATH", std::env::join_paths(all)?)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        // From here on an error ends the child too.
        let mut daemon = Self { child, address: String::new() };
        let (lines, received) = mpsc::channel();
        if let Some(stdout) = daemon.child.stdout.take() {
            follow(stdout, file.try_clone()?, lines.clone());
        }
        if let Some(stderr) = daemon.child.stderr.take() {
            follow(stderr, file, lines);
        }
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match received.recv_timeout(left) {
                Ok(line) => {
                    println!("    {line}");
                    if let Some(address) = address(&line) {
                        daemon.address = address.to_owned();
                        return Ok(daemon);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("the daemon did not say where it can be reached in {START:?}").into());
                }
                // Both pipes are closed: it has ended, or is about to.
                Err(RecvTimeoutError::Disconnected) => {
                    let status = daemon.child.wait()?;
                    return Err(format!("the daemon ended at its start with {status}").into());
                }
            }
        }
    }

    /// `HOST:PORT`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// It does not end in time, or not with exit code 0.
    pub(super) fn stop(mut self) -> Result<()> {
        self.terminate()?;
        match self.wait(STOP)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the daemon was stopped and ended with {status}").into()),
            None => Err(format!("the daemon did not end within {STOP:?} of SIGTERM").into()),
        }
    }

    fn terminate(&self) -> Result<()> {
        // The standard library can only kill; the shell has `kill` built in, so no package is needed.
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "sh", &pid]).status()?;
        if status.success() { Ok(()) } else { Err(format!("cannot signal process {pid}: {status}").into()) }
    }

    /// The exit status, or nothing when it still runs after `limit`.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // An error is on its way up already, so what fails here is not reported; the kill is the last resort.
        let ended = self.terminate().is_ok() && matches!(self.wait(STOP), Ok(Some(_)));
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Copies lines to the log file, and to `lines` as long as somebody listens, until the pipe closes.
fn follow(pipe: impl Read + Send + 'static, mut log: File, lines: Sender<String>) {
    thread::spawn(move || {
        let mut lines = Some(lines);
        for line in BufReader::new(pipe).lines().map_while(std::result::Result::ok) {
            // A full disk must not stop the reading: the daemon would block on its log.
            let _ = writeln!(log, "{line}");
            if lines.as_ref().is_some_and(|lines| lines.send(line).is_err()) {
                lines = None;
            }
        }
    });
}

fn address(line: &str) -> Option<&str> {
    let (_, address) = line.split_once(AVAILABLE)?;
    let end = address.find(|c: char| c.is_whitespace() || matches!(c, '"' | '/'));
    Some(&address[..end.unwrap_or(address.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_pretty_and_json_logs() {
        let pretty = "2026-11-22T21:30:59Z  INFO Shepherd API is available at http://127.0.0.1:40001";
        let json = r#"{"level":"INFO","message":"Shepherd API is available at http://127.0.0.1:40001/"}"#;
        assert_eq!(address(pretty), Some("127.0.0.1:40001"));
        assert_eq!(address(json), Some("127.0.0.1:40001"));
        assert_eq!(address("Storage appears to be up and running"), None);
    }
}
