//! One command for each job.
//!
//! ```text
//!   this process, a thread a slot                 a process a slot
//!   job ──── command, its two streams ───────────▶ starts it, and reaps all that it starts
//!    │ stop ── ask to end, within a time ────────▶ TERM, then KILL, until nothing is left
//!    ◀────── how it ended ───────────────────────┘
//! ```
//!
//! Each slot has a process of its own ([`slot_process`]) because a process can only
//! tell apart what *one* command has started: it is the subreaper of its descendants, so
//! that they stay in its tree however they detach. A job is over only when nothing of
//! that tree is left. The process is there for many jobs, and is small: to fork it costs
//! less than to fork this one.
//!
//! If this process is killed, its slots see the end of their channels and end what they
//! run. If a slot's process is killed, its command is too (its parent-death signal), and
//! this process ends the rest and itself: the shepherd then finds out which job is to
//! blame.
//!
//! What the command prints is in the job's log ([`streams`]) before its answer is.

mod channel;
mod child;
mod slot;
pub(crate) mod slot_process;
mod streams;
mod tail;
mod template;
mod tree;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::process::set_child_subreaper;
use shepherd_runner::{Job, ParallelRunner, RunError, Stop};

use crate::settings::Settings;
use channel::{Ending, Reply, Request};
use slot::Slot;
use streams::Streams;
use template::{Values, fill};

/// How long a cancelled command may take to end after SIGTERM.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// The variable that tells a command when nobody wants its result any more, in seconds
/// since 1970.
const DEADLINE_VARIABLE: &str = "SHEPHERD_JOB_DEADLINE";
/// Has Python programs print at once, and not when a pipe's worth has come together.
const PYTHON_UNBUFFERED: &str = "PYTHONUNBUFFERED";

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
    /// Those without a job. As many are made as there are jobs at a time.
    idle: Mutex<Vec<Slot>>,
}

impl CommandRunner {
    pub(crate) fn new(settings: Settings, model: Model) -> Self {
        Self { settings, model, idle: Mutex::default() }
    }

    /// What it calls itself in the shepherd's log.
    pub(crate) fn name(&self) -> String {
        format!("shepherd-runner ({})", self.settings.command[0])
    }

    /// How many jobs it works on at a time.
    pub(crate) fn slots(&self) -> u32 {
        self.settings.slots
    }

    fn take_slot(&self) -> io::Result<Slot> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(Slot::start, Ok)
    }

    fn put_back(&self, slot: Slot) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }

    fn request(&self, job: &Job) -> Request {
        let values = Values {
            inputs: job.inputs(),
            outputs: job.outputs(),
            job_id: job.id(),
            config: &self.model.config,
            stream: &self.model.stream,
        };
        let own = &self.settings.env;
        let mut env: Vec<(OsString, OsString)> =
            own.iter().map(|(name, value)| (name.into(), value.into())).collect();
        if !own.contains_key(PYTHON_UNBUFFERED) && std::env::var_os(PYTHON_UNBUFFERED).is_none() {
            env.push((PYTHON_UNBUFFERED.into(), "1".into()));
        }
        if let Some(deadline) = job.deadline().and_then(|at| at.duration_since(UNIX_EPOCH).ok()) {
            env.push((DEADLINE_VARIABLE.into(), format!("{:.3}", deadline.as_secs_f64()).into()));
        }
        Request { command: fill(&self.settings.command, &values), cwd: self.settings.cwd.clone(), env }
    }
}

impl ParallelRunner for CommandRunner {
    fn setup(&mut self) -> Result<(), RunError> {
        // For what a slot's process leaves behind, should it be killed.
        set_child_subreaper(Some(rustix::process::getpid()))?;
        self.idle.get_mut().unwrap_or_else(PoisonError::into_inner).push(Slot::start()?);
        Ok(())
    }

    fn process(&self, job: &Job) -> Result<(), RunError> {
        fs::create_dir_all(job.outputs())?;
        // Before the command starts, so that no stop is missed.
        let stopped = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let wake = Arc::clone(&stopped);
        job.on_stop(move |_| {
            // It can only fail when it is readable already.
            let _ = rustix::io::write(&*wake, &1_u64.to_ne_bytes());
        });
        let request = self.request(job);
        let cannot_run = |error: io::Error| {
            let program = OsStr::display(&request.command[0]);
            RunError::new(format!("cannot run `{program}`: {error}")).with_type("SpawnError")
        };
        let (mut streams, ends) = Streams::open(job, self.settings.tty).map_err(cannot_run)?;
        let slot = self.take_slot().map_err(cannot_run)?;
        if let Err(error) = slot.run(&request, &ends) {
            self.put_back(slot);
            return Err(cannot_run(error));
        }
        // They are the command's alone, whose end is also theirs.
        drop(ends);
        // On an error the slot is dropped, and its process ends the command.
        let (reply, stop) = wait(&slot, job, &stopped, &mut streams)?;
        self.put_back(slot);
        streams.finish();
        match reply {
            Reply::NotStarted(error) => Err(cannot_run(error)),
            Reply::Ended { ending, is_all } => {
                if !is_all {
                    job.log(format!("shepherd-runner: processes of job {} cannot be killed", job.id()));
                }
                outcome(ending, stop, &streams)
            }
        }
    }
}

/// Waits until all is over, and passes on what is printed. Returns why the command was
/// stopped, if it was.
fn wait(
    slot: &Slot,
    job: &Job,
    stopped: &OwnedFd,
    streams: &mut Streams,
) -> io::Result<(Reply, Option<Stop>)> {
    let mut stop = None;
    loop {
        streams.pass_on();
        if let Some(reply) = slot.reply() {
            return Ok((reply, stop));
        }
        if stop.is_none() {
            stop = job.stop_reason();
            if let Some(reason) = stop {
                slot.stop(grace(reason));
            }
        }
        let mut descriptors = Vec::with_capacity(4);
        descriptors.extend(streams.poll_fds());
        descriptors.push(slot.poll_fd());
        if stop.is_none() {
            descriptors.push(PollFd::new(stopped, PollFlags::IN));
        }
        match poll(&mut descriptors, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn outcome(ending: Option<Ending>, stop: Option<Stop>, streams: &Streams) -> Result<(), RunError> {
    if stop.is_some() {
        return Err(RunError::interrupted());
    }
    let ended = match ending {
        Some(Ending::Code(0)) => return Ok(()),
        Some(Ending::Code(code)) => format!("exit code {code}"),
        Some(Ending::Signal(signal)) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("signal {signal} ({name})"),
            None => format!("signal {signal}"),
        },
        None => return Err(RunError::new("the command does not end")),
    };
    let message = streams.last_words().unwrap_or_else(|| format!("the command ended with {ended}"));
    Err(RunError::new(message).with_type(ended))
}

/// How long a command may go on after SIGTERM.
fn grace(stop: Stop) -> Duration {
    match stop {
        Stop::Cancelled | Stop::Disconnected => CANCEL_GRACE,
        // Killing takes time too, and this process must not end before it is done.
        Stop::Shutdown { within } => within * 3 / 4,
    }
}
