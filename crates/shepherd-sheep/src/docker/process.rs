//! A container's first process, where this machine shows it.
//!
//! The engine may be on another machine, or the daemon in a container: the number that
//! the engine names is then nobody's here, or a stranger's. It is believed only when
//! the process of that number is in a control group named after the container.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The first process of a container. With it all others of the container die, before
/// it counts as dead.
pub(super) struct Init {
    process: AsyncFd<OwnedFd>,
    /// What its control group tells of memory, while the group is there.
    memory: Option<File>,
    /// Whether something in the group was killed for want of memory, once it is dead.
    is_out_of_memory: OnceLock<Option<bool>>,
}

impl Init {
    /// The process of this number, if it is the container's and is alive.
    pub(super) fn find(pid: i32, container: &str) -> Option<Self> {
        // Opened before it is looked at: the number cannot come to mean another then.
        let process = rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        if container.len() < 32 || !groups.contains(container) || is_dead(&process) {
            return None;
        }
        // Its successor is `unsafe` for types that give up their descriptor; this one keeps it.
        #[allow(deprecated)]
        let process = AsyncFd::with_interest(process, Interest::READABLE).ok()?;
        Some(Self { process, memory: open_memory(&groups), is_out_of_memory: OnceLock::new() })
    }

    /// Resolves once it is dead, and with it all others of the container.
    pub(super) async fn died(&self) {
        // Whether it is ready is asked for anew: nothing is ever read from it.
        while !is_dead(self.process.get_ref()) {
            match self.process.readable().await {
                Ok(mut ready) => {
                    if !is_dead(self.process.get_ref()) {
                        ready.clear_ready();
                    }
                }
                // The runtime is ending.
                Err(_) => std::future::pending().await,
            }
        }
        // At once: the engine is about to remove the group.
        self.is_out_of_memory.get_or_init(|| kills(self.memory.as_ref()?).map(|kills| kills > 0));
    }

    /// Whether something of the container was killed for want of memory, where the kernel
    /// could still be asked when it died.
    pub(super) fn is_out_of_memory(&self) -> Option<bool> {
        self.is_out_of_memory.get().copied().flatten()
    }

    /// Kills it without the engine.
    pub(super) fn kill(&self) {
        // Refused where it is another user's: the engine must do it then.
        if let Err(error) = rustix::process::pidfd_send_signal(self.process.get_ref(), Signal::KILL) {
            tracing::debug!(%error, "cannot kill a container's process directly");
        }
    }
}

/// Opens the file of a process's control group that counts kills, of the first or the second
/// version of control groups.
fn open_memory(groups: &str) -> Option<File> {
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.strip_prefix('/').filter(|path| !path.split('/').any(|part| part == ".."))?;
        let file = match controllers {
            "" => Path::new("/sys/fs/cgroup").join(path).join("memory.events"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                Path::new("/sys/fs/cgroup/memory").join(path).join("memory.oom_control")
            }
            _ => return None,
        };
        File::open(file).ok()
    })
}

fn kills(mut memory: &File) -> Option<u64> {
    let mut text = String::new();
    memory.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

fn is_dead(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::Init;

    #[tokio::test]
    async fn a_process_that_is_not_the_containers_is_left_alone() {
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(Init::find(pid, &"0123456789abcdef".repeat(4)).is_none());
        assert!(Init::find(pid, "").is_none(), "a name that every group holds");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Init::find(pid, "").is_none());
    }
}
