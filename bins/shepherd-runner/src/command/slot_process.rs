//! The process of one slot.
//!
//! ```text
//!            the command ends        ┌──▶ nothing is left ──▶ its exit code decides
//!   running ────────────────────▶ killing
//!      │ stop: TERM to all           ▲ KILL to all, again and again
//!      └──────────▶ ending ──────────┘
//!                     (grace)
//! ```
//!
//! All that a command starts ends with its job, also what left its process group or its
//! session: this process is the subreaper of its descendants, so that they stay in its
//! tree however they detach, and it has no other children.

use std::io;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, set_child_subreaper, wait};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::channel::{self, Ending, Reply, ToSlot};
use super::child::Child;
use super::tree;

/// The only argument of a slot's process.
pub(crate) const ARGUMENT: &str = "--process-of-a-slot";

/// How long killed processes may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether they are, and whether new ones came.
const CHILD_POLL_PERIOD: Duration = Duration::from_millis(10);

/// Runs what it is told to by standard input, until that ends.
pub(crate) fn run() -> ExitCode {
    let told = rustix::stdio::stdin();
    match prepare().and_then(|()| serve(told)) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => {
            eprintln!("shepherd-runner: the process of a slot gives up: {error}");
            ExitCode::FAILURE
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

fn prepare() -> io::Result<()> {
    set_child_subreaper(Some(rustix::process::getpid()))?;
    for signal in [SIGTERM, SIGINT] {
        // Whoever sends one to all processes means the runner, which says what is to end
        // when. Heard rather than ignored: the command would inherit that.
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

fn serve(told: BorrowedFd<'_>) -> io::Result<()> {
    loop {
        match channel::receive(told)? {
            ToSlot::Run(request, ends) => {
                let reply = match Child::start(&request, ends) {
                    Ok(child) => Running { child, status: None, told }.wait()?,
                    Err(error) => Reply::NotStarted(error),
                };
                channel::send_reply(told, &reply)?;
            }
            ToSlot::LateStop => {}
        }
    }
}

/// A command at work.
struct Running<'a> {
    child: Child,
    /// How the command itself ended; what it started may still be there.
    status: Option<WaitStatus>,
    told: BorrowedFd<'a>,
}

enum Phase {
    Running,
    Ending { kill_at: Instant, asked: tree::Asked },
    Killing { give_up_at: Instant },
}

impl Running<'_> {
    /// Waits until all is over. An error when nobody waits for the outcome any more.
    fn wait(mut self) -> io::Result<Reply> {
        let mut phase = Phase::Running;
        // Why nobody does, once that is known: then all is killed first.
        let mut broken = None;
        loop {
            let is_all = !self.reap()?;
            let now = Instant::now();
            if is_all || matches!(phase, Phase::Killing { give_up_at } if now >= give_up_at) {
                return broken.map_or(Ok(Reply::Ended { ending: self.ending(), is_all }), Err);
            }
            let stop = if broken.is_some() { Ok(None) } else { channel::receive_stop(self.told) };
            match (&mut phase, stop) {
                (Phase::Running | Phase::Ending { .. }, Err(error)) => {
                    broken = Some(error);
                    phase = self.kill(now);
                }
                (Phase::Running, Ok(_)) if self.status.is_some() => phase = self.kill(now),
                (Phase::Running, Ok(Some(grace))) => {
                    let mut asked = tree::Asked::default();
                    asked.terminate_all(self.child.pid);
                    phase = Phase::Ending { kill_at: now + grace, asked };
                }
                (Phase::Running, Ok(None)) => {}
                (Phase::Ending { kill_at, .. }, Ok(_)) if now >= *kill_at => phase = self.kill(now),
                (Phase::Ending { kill_at, asked }, Ok(grace)) => {
                    if let Some(grace) = grace {
                        *kill_at = (*kill_at).min(now + grace);
                    }
                    asked.terminate_all(self.child.pid);
                }
                // What was started while the others were killed.
                (Phase::Killing { .. }, stop) => {
                    broken = broken.or(stop.err());
                    tree::kill_all(Some(self.child.pid));
                }
            }
            self.sleep(&phase)?;
        }
    }

    fn kill(&self, now: Instant) -> Phase {
        tree::kill_all(Some(self.child.pid));
        Phase::Killing { give_up_at: now + KILL_TIMEOUT }
    }

    /// Waits for something to happen.
    fn sleep(&self, phase: &Phase) -> io::Result<()> {
        let mut descriptors = Vec::with_capacity(2);
        let mut timeout = Some(CHILD_POLL_PERIOD);
        if matches!(phase, Phase::Running) {
            descriptors.push(PollFd::from_borrowed_fd(self.told, PollFlags::IN));
            if let Some(pidfd) = &self.child.pidfd {
                descriptors.push(PollFd::new(pidfd, PollFlags::IN));
                timeout = None;
            }
        } else if let (Some(pidfd), None) = (&self.child.pidfd, self.status) {
            descriptors.push(PollFd::new(pidfd, PollFlags::IN));
        }
        let timeout = timeout.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Collects children that ended. Returns whether there are others.
    fn reap(&mut self) -> io::Result<bool> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.child.pid => self.status = Some(status),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return Ok(true),
                Err(Errno::CHILD) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn ending(&self) -> Option<Ending> {
        let status = self.status?;
        status.exit_status().map(Ending::Code).or_else(|| status.terminating_signal().map(Ending::Signal))
    }
}
