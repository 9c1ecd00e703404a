//! The thread that minds one runner: it starts it, watches it, and ends what it
//! leaves. It lives exactly as long as the runner; see the parent module for why.

use std::io;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use shepherd_job::ModelRef;
use tokio::sync::oneshot;

use super::group::Group;
use super::output::{Output, Stream};
use super::process::{Process, Tree, poll};
use super::record::{Record, RecordFile, boot_id};
use super::run::Run;
use super::{BareOptions, KILL_TIMEOUT, command, endpoint, spawn};
use crate::endpoint::Endpoint;
use crate::lines::unopened;
use crate::{Exit, ExitCause, SheepError};

/// How often a kernel without process descriptors is asked whether the runner died.
const WITHOUT_EVENTS: Duration = Duration::from_millis(20);
/// How much is read of a dead runner's output. What still comes then is written by
/// something that does not end.
const MAX_DRAIN: usize = 1 << 20;

/// Runs a runner from its start to its end. Answers `started` with the endpoint.
pub(super) fn mind(
    options: &BareOptions,
    model: &ModelRef,
    run: &Arc<Run>,
    started: oneshot::Sender<Result<String, SheepError>>,
) {
    let ending = Ending(run);
    match Minder::start(options, model, run) {
        Ok((mut monitor, output)) => {
            run.born(monitor.leader, output);
            let noted = monitor.note_leader();
            run.is_led(monitor.tree());
            if noted.is_err() {
                run.kill();
            }
            let launched = noted.is_ok();
            // A launch that nobody waits for any more has doomed its run.
            let _ = started.send(noted.map(|()| monitor.endpoint.url().to_owned()));
            let exit = monitor.watch(run);
            if launched {
                tracing::info!(sheep = %options.id, %model, "the runner {}", exit.cause);
            }
            drop(monitor);
            run.end(exit);
        }
        Err(error) => {
            // Ended first, so that who is told of the failure can launch again.
            drop(ending);
            let _ = started.send(Err(error));
        }
    }
}

/// Ends the run on every way out of the thread.
struct Ending<'a>(&'a Run);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.dead();
            self.0.end(Exit::unknown());
        }
    }
}

/// A runner and what belongs to its run.
struct Minder {
    child: Child,
    leader: Pid,
    /// Readable once the runner is dead; none on kernels before 5.3.
    death: Option<OwnedFd>,
    /// Readable when there is something to read on its streams.
    pipes: [Option<OwnedFd>; 2],
    endpoint: Endpoint,
    group: Option<Group>,
    record: Record,
    file: RecordFile,
}

impl Minder {
    fn start(options: &BareOptions, model: &ModelRef, run: &Run) -> Result<(Self, Output), SheepError> {
        command::check_model(options, model)?;
        let file = RecordFile::of(options);
        // There is one when an earlier run could not be ended, or nobody swept.
        file.sweep()?;
        let name = uuid::Uuid::now_v7().simple().to_string();
        let endpoint = endpoint::prepare(options, &name)?;
        let mut command = command::command(options, model, endpoint.url(), run.token(), &name)?;
        let no_pipe = |e| SheepError::Unavailable(format!("cannot make a pipe for the runner's output: {e}"));
        let stream = |path: &Option<std::path::PathBuf>, name| {
            Stream::open(path.as_deref(), &options.id, run.at_work(), name).map_err(|e| match path {
                Some(path) => unopened(&options.id, name, path, &e),
                None => no_pipe(e),
            })
        };
        let (stdout, stdout_end) = stream(&options.stdout_file, "stdout")?;
        let (stderr, stderr_end) = stream(&options.stderr_file, "stderr")?;
        let pipes = [stdout.readable().map_err(no_pipe)?, stderr.readable().map_err(no_pipe)?];
        command.stdin(std::process::Stdio::null()).stdout(stdout_end).stderr(stderr_end);
        let private_socket = endpoint.private_socket().map(str::to_owned);
        let (group, entrance) = Group::make(&name).unzip();
        let path = group.as_ref().map(|group| group.path().to_owned());
        let record = Record { boot_id: boot_id(), run: name, leader: None, group: path, private_socket };
        let spawned = file.write(&record).and_then(|()| {
            spawn::spawn(&mut command, entrance).map_err(|error| cannot_start(&command, &error))
        });
        let child = match spawned {
            Ok(child) => child,
            Err(error) => {
                group.iter().for_each(Group::remove);
                if let Err(stays) = file.remove() {
                    tracing::debug!(sheep = %options.id, %stays, "a record of no run stays behind");
                }
                return Err(error);
            }
        };
        let leader = Pid::from_child(&child);
        tracing::info!(
            sheep = %options.id, %model, pid = child.id(), endpoint = endpoint.url(), "started a runner"
        );
        let death = rustix::process::pidfd_open(leader, PidfdFlags::empty()).ok();
        let monitor = Self { child, leader, death, pipes, endpoint, group, record, file };
        Ok((monitor, Output::new(stdout, stderr)))
    }

    /// Completes the record. The mark alone finds all but a process that wrote over
    /// its own environment.
    fn note_leader(&mut self) -> Result<(), SheepError> {
        let pid = self.leader.as_raw_nonzero().get();
        // The child is not reaped, so it is there, dead or alive.
        self.record.leader = Process::read(pid).map(|process| (pid, process.start));
        self.file.write(&self.record)
    }

    /// All processes of the run.
    fn tree(&self) -> Tree {
        Tree::new(&self.record.run, self.record.leader, self.group.clone())
    }

    /// Waits for the runner's death, and ends the run.
    fn watch(&mut self, run: &Run) -> Exit {
        let cause = loop {
            if let Some(cause) = self.cause_of_death() {
                break cause;
            }
            self.await_events(run);
        };
        match self.tree().end(KILL_TIMEOUT) {
            Ok(_) => {
                if let Err(error) = self.file.remove() {
                    tracing::warn!(%error, "a record of a run stays behind");
                }
            }
            // The record stays: the next launch tries again.
            Err(error) => tracing::error!(run = self.record.run, %error, "a runner's processes stay behind"),
        }
        let log_tail = run.with_output(|output| {
            output.pump(MAX_DRAIN);
            output.tail()
        });
        run.dead();
        if let Err(error) = self.child.wait() {
            tracing::debug!(%error, "a runner was reaped by another");
        }
        Exit { cause, log_tail: log_tail.unwrap_or_default() }
    }

    /// Why the runner is dead, if it is. Leaves it unreaped.
    fn cause_of_death(&self) -> Option<ExitCause> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        match rustix::process::waitid(WaitId::Pid(self.leader), options) {
            Ok(None) | Err(Errno::INTR) => None,
            Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitCause::Code(code),
                (None, Some(signal)) => ExitCause::Signal(signal),
                (None, None) => ExitCause::Unknown,
            }),
            // The embedding program ignores SIGCHLD, or waits for all children.
            Err(_) => Some(ExitCause::Unknown),
        }
    }

    fn await_events(&mut self, run: &Run) {
        let death = self.death.as_ref().map(rustix::fd::AsFd::as_fd);
        let pipes = self.pipes.iter().map(|pipe| pipe.as_ref().map(rustix::fd::AsFd::as_fd));
        let sources = std::iter::once(death).chain(pipes).flatten();
        let mut fds: Vec<PollFd<'_>> =
            sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = death.is_none().then_some(WITHOUT_EVENTS);
        if let Err(error) = poll(&mut fds, timeout)
            && error != Errno::INTR
        {
            // Short of memory: nothing else can happen to valid descriptors.
            std::thread::sleep(WITHOUT_EVENTS);
            return;
        }
        drop(fds);
        let open = run.with_output(|output| output.pump(1)).unwrap_or_default();
        for (pipe, is_open) in self.pipes.iter_mut().zip(open) {
            if !is_open {
                *pipe = None;
            }
        }
    }
}

fn cannot_start(command: &std::process::Command, error: &io::Error) -> SheepError {
    let message = format!("cannot start the runner {}: {error}", command.get_program().display());
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory | io::ErrorKind::ExecutableFileBusy => {
            SheepError::Unavailable(message)
        }
        _ => SheepError::Misconfigured(message),
    }
}
