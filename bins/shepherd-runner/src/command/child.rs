//! Starting the command.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};
use shepherd_runner::TOKEN_VARIABLE;

use super::channel::Request;

/// The command's own process. It is reaped with all others, by whoever owns this.
pub(super) struct Child {
    pub(super) pid: Pid,
    /// Readable when it ended. None where the kernel is older than 5.3.
    pub(super) pidfd: Option<OwnedFd>,
}

impl Child {
    /// Starts it in a process group of its own, with these standard output and error. To
    /// be called from a thread that lives as long as this process: when the thread ends,
    /// the command is killed.
    pub(super) fn start(request: &Request, [stdout, stderr]: [OwnedFd; 2]) -> io::Result<Self> {
        let program = Path::new(&request.command[0]);
        let mut builder = if program.is_relative() && program.components().count() > 1 {
            Command::new(request.cwd.join(program))
        } else {
            Command::new(program)
        };
        builder
            .args(&request.command[1..])
            .current_dir(&request.cwd)
            // What a command starts may outlive its job.
            .env_remove(TOKEN_VARIABLE)
            .envs(request.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0);
        die_with_parent(&mut builder);
        let pid = Pid::from_child(&builder.spawn()?);
        Ok(Self { pid, pidfd: pidfd_open(pid, PidfdFlags::empty()).ok() })
    }
}
#[expect(unsafe_code, reason = "the parent-death signal can only be set between fork and exec")]
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let set = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the signal was set.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec the closure makes two system calls and touches
    // nothing but its own copy of a number: it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(set);
    }
}
