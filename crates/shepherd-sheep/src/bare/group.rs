//! A control group for one run: what no process leaves by forking, by losing its parent or
//! by clearing its environment.
//!
//! It is made below the daemon's own group, with version 2 of control groups, where the
//! daemon may make one: as root, or where its group was delegated to it. Without it the rest
//! of [`process`](super::process) has to do.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Where version 2 is mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// What `statfs` says of it.
const MAGIC: u32 = 0x6367_7270;

/// A control group that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group(PathBuf);

impl Group {
    /// Makes one for the run of this name, and opens the file through which a process enters
    /// it by writing `0`; none where the daemon may not.
    pub(super) fn make(run: &str) -> Option<(Self, File)> {
        let path = own()?.join(name(run));
        let make = || {
            std::fs::create_dir(&path)?;
            File::options().write(true).open(path.join("cgroup.procs"))
        };
        match make() {
            Ok(entrance) => Some((Self(path), entrance)),
            Err(error) => {
                tracing::debug!(group = %path.display(), %error, "cannot make a control group for a runner");
                // If it is there, it is empty.
                let _ = std::fs::remove_dir(&path);
                None
            }
        }
    }

    /// The one that was written down for the run of this name.
    pub(super) fn recorded(run: &str, path: &Path) -> Option<Self> {
        (path.file_name()? == name(run).as_str() && is_group(path)).then(|| Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Kills all of its processes at once, which takes a kernel since 5.14.
    pub(super) fn kill(&self) {
        // Otherwise they are killed one by one.
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// The ids of its processes.
    pub(super) fn members(&self) -> io::Result<Vec<i32>> {
        let mut members = Vec::new();
        each_group(&self.0, &mut |group| {
            let text = std::fs::read_to_string(group.join("cgroup.procs"))?;
            // A process of another namespace of ids is 0.
            let ids = text.lines().filter_map(|line| line.parse::<i32>().ok());
            members.extend(ids.filter(|pid| *pid > 0));
            Ok(())
        })?;
        Ok(members)
    }

    /// Removes it, once it is empty.
    pub(super) fn remove(&self) {
        let removed = each_group(&self.0, &mut |group| match std::fs::remove_dir(group) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        });
        if let Err(error) = removed {
            tracing::debug!(group = %self.0.display(), %error, "a control group stays behind");
        }
    }
}

fn name(run: &str) -> String {
    format!("shepherd-{run}")
}

/// The group that this process is in.
fn own() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let mount = MOUNTS.iter().map(Path::new).find(|mount| is_group(mount))?;
    Some(mount.join(path))
}

fn is_group(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| u32::try_from(stat.f_type).is_ok_and(|magic| magic == MAGIC))
}

/// Visits a group and those that were made in it, which come before it.
fn each_group(group: &Path, visit: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let entries = match std::fs::read_dir(group) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            each_group(&entry.path(), visit)?;
        }
    }
    match visit(group) {
        // It went meanwhile.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        outcome => outcome,
    }
}
