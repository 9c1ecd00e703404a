//! What the system knows of processes, from `/proc`.

use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// Processes whose working directory is `dir` or below it.
pub fn below(dir: &Path) -> Vec<i32> {
    all()
        .filter(|pid| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .collect()
}

/// Processes that were given a path below `dir` as, or in, an argument.
pub fn naming(dir: &Path) -> Vec<i32> {
    let dir = dir.to_string_lossy();
    let is_named = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_alive(*pid) && String::from_utf8_lossy(&line).contains(&*dir)
    };
    all().filter(is_named).collect()
}

/// The living children of `parent`.
pub fn children(parent: i32) -> Vec<i32> {
    all().filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent && stat.state != 'Z')).collect()
}

/// Whether a process runs: one that ended and waits to be reaped does not.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z' && stat.state != 'X')
}

/// The processor time a process has used, in user mode and in the system for it.
/// The system counts in ticks of 10 ms.
pub fn cpu(pid: i32) -> Option<Duration> {
    let ticks = stat(pid)?.ticks;
    Some(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Bytes of memory: `VmRSS` is what a process holds now, `VmHWM` the most it held.
pub fn memory(pid: i32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// The parent of a process that is there.
pub fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|stat| stat.parent)
}

struct Stat {
    state: char,
    parent: i32,
    ticks: u64,
}

/// `/proc/PID/stat`, proc_pid_stat(5). The second field is the name in parentheses
/// and may hold anything, so counting starts behind it.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // utime and stime are fields 14 and 15; state was field 3 and parent field 4.
    let mut times = fields.skip(9);
    let ticks = times.next()?.parse::<u64>().ok()? + times.next()?.parse::<u64>().ok()?;
    Some(Stat { state, parent, ticks })
}

fn all() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_be_read_while_it_runs() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(is_alive(own));
        assert!(cpu(own).is_some());
        assert!(memory(own, "VmHWM").unwrap() >= memory(own, "VmRSS").unwrap() / 2);
        let mut child = std::process::Command::new("sleep").arg("60").current_dir("/proc").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        assert!(children(own).contains(&pid));
        assert!(below(Path::new("/proc")).contains(&pid));
        signal(pid, Signal::KILL);
        child.wait().unwrap();
        assert!(!is_alive(pid));
        assert_eq!(cpu(pid), None);
    }
}
