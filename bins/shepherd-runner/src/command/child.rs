//! Starting the command.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, pidfd_open, set_parent_process_death_signal,
};

use crate::settings::Settings;

/// The command's own process. It is reaped with all others, by whoever owns this.
pub(super) struct Child {
    pub(super) pid: Pid,
    /// Readable when it ended. None where the kernel is older than 5.3.
    pub(super) pidfd: Option<OwnedFd>,
    /// What it writes, to be read without waiting, by whoever takes it.
    pub(super) stdout: Option<OwnedFd>,
    /// As `stdout`.
    pub(super) stderr: Option<OwnedFd>,
}

impl Child {
    /// Starts it in a process group of its own. To be called from a thread that
    /// lives as long as this process: when the thread ends, the command is killed.
    pub(super) fn start(command: &[OsString], settings: &Settings) -> io::Result<Self> {
        let program = Path::new(&command[0]);
        let mut builder = if program.is_relative() && program.components().count() > 1 {
            Command::new(settings.cwd.join(program))
        } else {
            Command::new(program)
        };
        builder
            .args(&command[1..])
            .current_dir(&settings.cwd)
            .envs(&settings.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        die_with_parent(&mut builder);
        let mut child = builder.spawn()?;
        let pid = Pid::from_child(&child);
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        for pipe in stdout.iter().chain(&stderr) {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self { pid, pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(), stdout, stderr })
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
