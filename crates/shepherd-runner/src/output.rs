//! The process's own output, which is the operator's log.
//!
//! What jobs log goes there besides. Where it is captured ([`Capture`]), whatever the
//! process writes while a job is in work goes to that job's log, too.

mod capture;

use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Job;
use capture::Capture;

/// How long the SDK itself waits for somebody to read what it prints.
const OWN_OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);
/// As much as a pipe takes at once if it takes anything.
const ATOMIC: usize = 4000;

/// Where the process prints. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Output {
    capture: Option<Arc<Capture>>,
}

impl Output {
    /// Has whatever the process writes come through this module, for
    /// [`begin`](Self::begin).
    pub(crate) fn captured() -> io::Result<Self> {
        Ok(Self { capture: Some(Capture::start()?) })
    }

    /// Prints to standard error. Whom it cannot be passed on to, nobody can be told.
    pub(crate) fn print(&self, bytes: &[u8]) {
        match &self.capture {
            Some(capture) => capture.print(bytes),
            None => {
                let _ = io::stderr().write_all(bytes);
            }
        }
    }

    /// Prints a line of the SDK's own; unless nobody reads it, for whom nothing of the
    /// SDK's waits, or fails.
    pub(crate) fn say(&self, text: &str) {
        let mut line = format!("shepherd-runner: {text}");
        line.truncate(line.floor_char_boundary(ATOMIC));
        line.push('\n');
        let stderr = self.stderr();
        if waits_for(stderr, OWN_OUTPUT_TIMEOUT) {
            let _ = rustix::io::write(stderr, line.as_bytes());
        }
    }

    fn stderr(&self) -> BorrowedFd<'_> {
        match &self.capture {
            Some(capture) => capture.stderr(),
            None => rustix::stdio::stderr(),
        }
    }

    /// From now on what is captured is of these jobs.
    pub(crate) fn begin(&self, jobs: &[Job]) {
        if let Some(capture) = &self.capture {
            capture.begin(jobs);
        }
    }

    /// These jobs are over. What they printed is in their logs.
    pub(crate) fn end(&self) {
        if let Some(capture) = &self.capture {
            // The end of a line that was only begun.
            let _ = io::stdout().flush();
            capture.end();
        }
    }

    /// Has the process's output lead where it did.
    pub(crate) fn restore(&self) {
        if let Some(capture) = &self.capture {
            let _ = io::stdout().flush();
            capture.restore();
        }
    }

    /// Passes on what can be, when the process is about to exit at once.
    pub(crate) fn leave(&self) {
        let Some(capture) = self.capture.clone() else { return };
        let (done, wait) = mpsc::channel();
        let passed = thread::Builder::new().name("last-words".to_owned()).spawn(move || {
            capture.pass_on();
            let _ = done.send(());
        });
        if passed.is_ok() {
            let _ = wait.recv_timeout(OWN_OUTPUT_TIMEOUT);
        }
    }
}

/// Waits until something can be written. Returns whether it can.
fn waits_for(descriptor: BorrowedFd<'_>, timeout: Duration) -> bool {
    let Ok(timeout) = Timespec::try_from(timeout) else { return false };
    matches!(poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], Some(&timeout)), Ok(1..))
}

/// Writes all, also where somebody who shares the descriptor does not want to wait.
fn write_all(descriptor: impl AsFd, mut bytes: &[u8]) {
    let descriptor = descriptor.as_fd();
    while !bytes.is_empty() {
        match rustix::io::write(descriptor, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::OUT)], None);
            }
            // Nobody reads it any more.
            Err(_) => return,
        }
    }
}
