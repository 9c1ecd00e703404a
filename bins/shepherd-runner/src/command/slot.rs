//! A slot: the process that runs one command after another, as the rest of this program
//! sees it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio, exit};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::channel::{self, Reply, Request};
use super::{slot_process, tree};

/// The exit code after the death of a slot's process.
const BROKEN: i32 = 1;

/// A slot's process and the channel to it.
pub(super) struct Slot {
    socket: OwnedFd,
    /// It ends when the channel does.
    process: Child,
}

impl Slot {
    /// Starts the process.
    pub(super) fn start() -> io::Result<Self> {
        let (socket, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let mut command = Command::new("/proc/self/exe");
        // In a group of its own: what a terminal sends to this program is not for it.
        command
            .arg0("shepherd-runner")
            .arg(slot_process::ARGUMENT)
            .stdin(Stdio::from(theirs))
            .process_group(0);
        let process = command.spawn().map_err(|error| {
            io::Error::new(error.kind(), format!("cannot start the process of a slot: {error}"))
        })?;
        Ok(Self { socket, process })
    }

    /// Has it run a command. An error when the command is too long.
    pub(super) fn run(&self, request: &Request, ends: &[OwnedFd; 2]) -> io::Result<()> {
        channel::send_run(&self.socket, request, ends).inspect_err(|error| {
            if error.kind() == io::ErrorKind::BrokenPipe {
                self.is_gone(error);
            }
        })
    }

    /// Has it end the command.
    pub(super) fn stop(&self, grace: Duration) {
        // It fails only when the process is dead, which its reply tells.
        let _ = channel::send_stop(&self.socket, grace);
    }

    /// How the command ended, once it has with all that it started.
    pub(super) fn reply(&self) -> Option<Reply> {
        channel::receive_reply(&self.socket).unwrap_or_else(|error| self.is_gone(&error))
    }

    /// It was killed: for want of memory, or by its own command.
    fn is_gone(&self, error: &io::Error) -> ! {
        eprintln!("shepherd-runner: the process {} of a slot is gone: {error}", self.process.id());
        tree::kill_all(None);
        exit(BROKEN)
    }

    /// Readable when there is a reply.
    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&self.socket, PollFlags::IN)
    }
}
