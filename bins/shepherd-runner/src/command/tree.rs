//! All processes below this one. Where `/proc` cannot be read, the process group
//! of the command has to do.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

/// How often a tree that grows while it is being stopped is looked at again.
const MAX_STOP_ROUNDS: usize = 32;

/// A process, told from later ones of the same number by when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    pid: Pid,
    started: u64,
}

struct Stat {
    parent: i32,
    started: u64,
    zombie: bool,
}

/// Those that were asked to end.
#[derive(Debug, Default)]
pub(super) struct Asked(HashSet<Process>);

impl Asked {
    /// Asks the descendants to end that were not asked yet: some may have been
    /// started while the others were asked.
    pub(super) fn terminate_all(&mut self, leader: Pid) {
        let Ok(found) = descendants() else {
            let _ = kill_process_group(leader, Signal::TERM);
            return;
        };
        for process in found {
            if self.0.insert(process) {
                process.signal(Signal::TERM);
                // One that was stopped would not hear it.
                process.signal(Signal::CONT);
            }
        }
    }
}

/// Kills all descendants. They are stopped first, so that none gets away by
/// starting others faster than they are killed.
pub(super) fn kill_all(leader: Option<Pid>) {
    let mut stopped = HashSet::new();
    for _ in 0..MAX_STOP_ROUNDS {
        let Ok(found) = descendants() else {
            if let Some(leader) = leader {
                let _ = kill_process_group(leader, Signal::KILL);
            }
            break;
        };
        let before = stopped.len();
        for process in found {
            if stopped.insert(process) {
                process.signal(Signal::STOP);
            }
        }
        if stopped.len() == before {
            break;
        }
    }
    for process in stopped {
        process.signal(Signal::KILL);
    }
}

impl Process {
    /// Sends a signal to this process, if it is still there.
    fn signal(self, signal: Signal) {
        match pidfd_open(self.pid, PidfdFlags::empty()) {
            Ok(pidfd) => {
                // The descriptor holds on to one process; is it the one meant?
                if read_stat(self.pid).is_some_and(|stat| stat.started == self.started) {
                    let _ = pidfd_send_signal(pidfd, signal);
                }
            }
            // A kernel before 5.3 leaves no better way.
            Err(Errno::NOSYS) => {
                let _ = kill_process(self.pid, signal);
            }
            Err(_) => {}
        }
    }
}

/// The living descendants of this process.
fn descendants() -> io::Result<Vec<Process>> {
    let mut children: HashMap<i32, Vec<(Process, bool)>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // One that ended meanwhile is not there any more.
        let Some(stat) = read_stat(pid) else { continue };
        let process = Process { pid, started: stat.started };
        children.entry(stat.parent).or_default().push((process, stat.zombie));
    }
    let mut found = Vec::new();
    let mut parents = vec![getpid().as_raw_nonzero().get()];
    while let Some(parent) = parents.pop() {
        for (process, zombie) in children.remove(&parent).unwrap_or_default() {
            parents.push(process.pid.as_raw_nonzero().get());
            if !zombie {
                found.push(process);
            }
        }
    }
    Ok(found)
}

fn read_stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
}

/// See proc_pid_stat(5). The name in parentheses may hold anything, also `) `.
fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let after_name = bytes.iter().rposition(|byte| *byte == b')')? + 1;
    let text = std::str::from_utf8(&bytes[after_name..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    // Fields 3 and 4 are taken; the start time is field 22.
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { parent, started, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_name_holds() {
        let line = b"42 (a) S 9 \xff) S 7 42 42 0 -1 4194560 1 0 0 0 5 6 0 0 20 0 1 0 12345 1000 1 18446744073709551615\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.started, stat.zombie), (7, 12345, false));
        assert!(parse_stat(b"42 (a").is_none() && parse_stat(b"").is_none());
        let own = read_stat(getpid()).unwrap();
        assert_eq!(Some(own.parent), rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()));
    }
}
