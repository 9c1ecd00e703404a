//! Processes as `/proc` shows them, and the ending of a whole tree of them.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::group::Group;

/// The variable that marks every process of a run with the run's random name.
pub(super) const MARK: &str = "SHEPHERD_SHEEP_RUN";

/// One process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// When it started, in clock ticks since the boot. With the id it names one
    /// process: ids are used again, but not at once.
    pub(super) start: u64,
    parent: i32,
    group: i32,
    session: i32,
    /// Dead, and at most waiting to be reaped.
    dead: bool,
}

impl Process {
    /// The process with this id, unless it is gone.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&stat))
    }

    /// Reads a line of proc_pid_stat(5).
    fn parse(pid: i32, stat: &str) -> Option<Self> {
        // The second field, the name in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<i32>().ok();
        Some(Self {
            pid,
            start: fields.get(22 - 3)?.parse().ok()?,
            parent: number(4)?,
            group: number(5)?,
            session: number(6)?,
            dead: matches!(*fields.first()?, "Z" | "X" | "x"),
        })
    }

    fn all() -> io::Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
            all.extend(pid.and_then(Self::read));
        }
        Ok(all)
    }

    /// Whether it began with the variable `mark` (`NAME=VALUE`). A process that may
    /// not be looked into has another owner, and so is none of ours.
    fn has(&self, mark: &[u8]) -> bool {
        std::fs::read(format!("/proc/{}/environ", self.pid))
            .is_ok_and(|environ| environ.split(|b| *b == 0).any(|variable| variable == mark))
    }

    /// Kills this very process, and gives a descriptor that is readable once it is
    /// dead, where the kernel has such.
    fn kill(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(self.pid)?;
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => {
                // The descriptor may be of a successor; of which it is does not change any more.
                if Self::read(self.pid).is_some_and(|now| now.start == self.start) {
                    let _ = rustix::process::pidfd_send_signal(&fd, Signal::KILL);
                }
                Some(fd)
            }
            Err(Errno::NOSYS | Errno::PERM) => {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                None
            }
            Err(_) => None,
        }
    }
}

/// All that a run has started.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    mark: Vec<u8>,
    leader: Option<(i32, u64)>,
    group: Option<Group>,
}

/// Processes that do not end, or that cannot be looked for.
#[derive(Debug)]
pub(super) enum EndError {
    Alive(Vec<i32>),
    Proc(io::Error),
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alive(pids) => {
                let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
                write!(f, "killed processes do not end: {}", pids.join(", "))
            }
            Self::Proc(e) => write!(f, "cannot read /proc: {e}"),
        }
    }
}

impl Tree {
    /// The tree of the run of this name, led by the process with this id and start, and held
    /// by this group where there is one.
    pub(super) fn new(run: &str, leader: Option<(i32, u64)>, group: Option<Group>) -> Self {
        Self { mark: format!("{MARK}={run}").into_bytes(), leader, group }
    }

    /// Kills until nothing of the tree lives, for at most `patience`. Returns how
    /// many processes it found.
    ///
    /// # Errors
    /// When some do not go.
    pub(super) fn end(&self, patience: Duration) -> Result<usize, EndError> {
        let deadline = Instant::now() + patience;
        let mut met = HashSet::new();
        if let Some(group) = &self.group {
            met.extend(group.members().map_err(EndError::Proc)?);
            group.kill();
        }
        loop {
            let living = self.living().map_err(EndError::Proc)?;
            if living.is_empty() {
                reap(&met);
                if let Some(group) = &self.group {
                    group.remove();
                }
                return Ok(met.len());
            }
            if Instant::now() >= deadline {
                return Err(EndError::Alive(living.iter().map(|p| p.pid).collect()));
            }
            met.extend(living.iter().map(|p| p.pid));
            // All are killed before any is waited for: they must not replace each other.
            let deaths: Vec<Option<OwnedFd>> = living.iter().map(Process::kill).collect();
            for death in deaths {
                await_death(death, deadline);
            }
            reap(&met);
        }
    }

    /// Its processes that are not dead.
    pub(super) fn living(&self) -> io::Result<Vec<Process>> {
        let all = Process::all()?;
        let held = self.group.as_ref().map_or_else(|| Ok(Vec::new()), Group::members)?;
        let mut ours = self.members(&all, |process| held.contains(&process.pid) || process.has(&self.mark));
        ours.retain(|process| !process.dead);
        Ok(ours)
    }

    fn members(&self, all: &[Process], is_marked: impl Fn(&Process) -> bool) -> Vec<Process> {
        let me = rustix::process::getpid().as_raw_nonzero().get();
        // While the leader is there, dead or alive, its id names no other session or
        // group. Once it is reaped they could be a stranger's.
        let leader =
            self.leader.filter(|(pid, start)| all.iter().any(|p| p.pid == *pid && p.start == *start));
        let is_led =
            |p: &Process| leader.is_some_and(|(pid, _)| p.pid == pid || p.session == pid || p.group == pid);
        let others = || all.iter().filter(|process| process.pid != me);
        let mut ours: HashSet<i32> = others().filter(|p| is_led(p) || is_marked(p)).map(|p| p.pid).collect();
        let mut grew = true;
        // Until nothing is added: a child may stand before its parent.
        while grew {
            let before = ours.len();
            for process in others() {
                if ours.contains(&process.parent) {
                    ours.insert(process.pid);
                }
            }
            grew = ours.len() > before;
        }
        all.iter().filter(|process| ours.contains(&process.pid)).copied().collect()
    }
}

fn await_death(death: Option<OwnedFd>, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    match death {
        Some(fd) => {
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(left));
        }
        // No event to wait for on such a kernel: look again soon.
        None => std::thread::sleep(left.min(Duration::from_millis(5))),
    }
}

/// Orphans come to the daemon only when it is the first process of its container,
/// or has made itself a reaper. The others cannot be waited for, which is no error.
fn reap(met: &HashSet<i32>) {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    for pid in met {
        let is_our_zombie = Process::read(*pid).is_some_and(|p| p.dead && p.parent == me);
        if is_our_zombie && let Some(pid) = Pid::from_raw(*pid) {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Waits for one of `fds`, at most for `timeout`.
pub(super) fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<usize, Errno> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    rustix::event::poll(fds, timeout.as_ref())
}

#[cfg(test)]
mod tests;
