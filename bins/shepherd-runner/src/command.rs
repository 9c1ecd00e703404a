//! One command for each job.
//!
//! ```text
//!            the command ends        ┌──▶ nothing is left ──▶ its exit code decides
//!   running ────────────────────▶ killing
//!      │ stop: TERM to all           ▲ KILL to all, again and again
//!      └──────────▶ ending ──────────┘
//!                     (grace)
//! ```
//!
//! All that a command starts ends with its job, also what left its process group
//! or its session: this process is the subreaper of its descendants, so that they
//! stay in its tree however they detach, and it has no other children. A job is
//! over only when no child is left.
//!
//! What the command prints is in the job's log ([`streams`]) before its answer is.
//!
//! If this process is killed, the command itself is too (its parent-death signal);
//! the rest of its tree is then the sheep's to end.

mod child;
mod streams;
mod tail;
mod template;
mod tree;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{WaitOptions, WaitStatus, set_child_subreaper, wait};
use shepherd_runner::{Job, RunError, Runner, Stop};

use crate::settings::Settings;
use child::Child;
use streams::Streams;
use template::{Values, fill};

/// How long a cancelled command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// How long killed processes may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// How often it is looked whether they are, and whether new ones came.
const LOOK: Duration = Duration::from_millis(10);

/// What is the same for all jobs.
pub(crate) struct Model {
    /// The model's configuration; absolute.
    pub(crate) config: PathBuf,
    /// Which of its streams is asked for.
    pub(crate) stream: String,
}

/// Runs the configured command for each job.
pub(crate) struct CommandRunner {
    settings: Settings,
    model: Model,
}

impl CommandRunner {
    pub(crate) fn new(settings: Settings, model: Model) -> Self {
        Self { settings, model }
    }

    /// What it calls itself in the shepherd's log.
    pub(crate) fn name(&self) -> String {
        format!("shepherd-runner ({})", self.settings.command[0])
    }
}

impl Runner for CommandRunner {
    fn setup(&mut self) -> Result<(), RunError> {
        Ok(set_child_subreaper(Some(rustix::process::getpid()))?)
    }

    fn process(&mut self, job: &Job) -> Result<(), RunError> {
        fs::create_dir_all(job.outputs())?;
        // Before the command starts, so that no stop is missed.
        let stopped = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let wake = Arc::clone(&stopped);
        job.on_stop(move |_| {
            // It can only fail when it is readable already.
            let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
        });
        let values = Values {
            inputs: job.inputs(),
            outputs: job.outputs(),
            job_id: job.id(),
            config: &self.model.config,
            stream: &self.model.stream,
        };
        let command = fill(&self.settings.command, &values);
        let mut child = Child::start(&command, &self.settings).map_err(|error| {
            RunError::new(format!("cannot run `{}`: {error}", command[0].display())).with_type("SpawnError")
        })?;
        let streams = Streams::of(&mut child, job);
        let mut running = Running { child, stopped, status: None, streams };
        match running.wait(job) {
            Ok(stop) => running.outcome(stop),
            Err(error) => {
                tree::kill_all(running.child.pid);
                Err(error.into())
            }
        }
    }
}

/// A command at work.
struct Running {
    child: Child,
    stopped: Arc<OwnedFd>,
    /// How the command itself ended; what it started may still be there.
    status: Option<WaitStatus>,
    streams: Streams,
}

enum Phase {
    Running,
    Ending { kill_at: Instant, asked: tree::Asked },
    Killing { give_up_at: Instant },
}

impl Running {
    /// Waits until all is over. Returns why it was stopped, if it was.
    fn wait(&mut self, job: &Job) -> io::Result<Option<Stop>> {
        let mut phase = Phase::Running;
        let mut stop = None;
        loop {
            self.streams.pass_on();
            if !self.reap()? {
                self.streams.finish();
                return Ok(stop);
            }
            let now = Instant::now();
            match &mut phase {
                Phase::Running if self.status.is_some() => {
                    phase = Phase::Killing { give_up_at: now + GONE };
                    tree::kill_all(self.child.pid);
                }
                Phase::Running => {
                    stop = job.stop_reason();
                    if let Some(reason) = stop {
                        let mut asked = tree::Asked::default();
                        asked.terminate_all(self.child.pid);
                        phase = Phase::Ending { kill_at: now + grace(reason), asked };
                    }
                }
                Phase::Ending { kill_at, .. } if now >= *kill_at => {
                    phase = Phase::Killing { give_up_at: now + GONE };
                    tree::kill_all(self.child.pid);
                }
                Phase::Ending { asked, .. } => asked.terminate_all(self.child.pid),
                Phase::Killing { give_up_at } if now >= *give_up_at => {
                    self.streams.finish();
                    job.log(format!("shepherd-runner: processes of job {} cannot be killed", job.id()));
                    return Ok(stop);
                }
                // What was started while the others were killed.
                Phase::Killing { .. } => tree::kill_all(self.child.pid),
            }
            self.sleep(&phase)?;
        }
    }

    /// Waits for something to happen.
    fn sleep(&self, phase: &Phase) -> io::Result<()> {
        let mut descriptors = Vec::with_capacity(4);
        descriptors.extend(self.streams.poll_fds());
        let timeout = match (phase, &self.child.pidfd) {
            (Phase::Running, Some(pidfd)) => {
                descriptors.push(PollFd::new(pidfd, PollFlags::IN));
                descriptors.push(PollFd::new(&*self.stopped, PollFlags::IN));
                None
            }
            // Without a descriptor for the process its end is looked for.
            (Phase::Running, None) | (Phase::Ending { .. } | Phase::Killing { .. }, _) => Some(LOOK),
        };
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

    fn outcome(self, stop: Option<Stop>) -> Result<(), RunError> {
        if stop.is_some() {
            return Err(RunError::interrupted());
        }
        let Some(status) = self.status else {
            return Err(RunError::new("the command does not end"));
        };
        let ended = match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) => return Ok(()),
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => match signal_hook::low_level::signal_name(signal) {
                Some(name) => format!("signal {signal} ({name})"),
                None => format!("signal {signal}"),
            },
            (None, None) => "unknown".to_owned(),
        };
        let message = self.streams.last_words().unwrap_or_else(|| format!("the command ended with {ended}"));
        Err(RunError::new(message).with_type(ended))
    }
}

/// How long a command may go on after SIGTERM.
fn grace(stop: Stop) -> Duration {
    match stop {
        Stop::Cancelled | Stop::Disconnected => GRACE,
        // Killing takes time too, and this process must not end before it is done.
        Stop::Shutdown { within } => within * 3 / 4,
    }
}
