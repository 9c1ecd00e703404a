//! Getting back what runners' users made, for a daemon that is not root.
//!
//! A sheep's containers may run under another user (`user`). What that user closes to the
//! daemon's group can be neither removed nor opened by the daemon, and its socket, which
//! no file system makes writable to a group by itself, not be dialled. The engine makes
//! them the daemon's own ([`ChownContainer`]).
//!
//! An engine that maps users (userns-remap, rootless) gives files to others than it is
//! told; there, what is closed to us stays.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::time::Instant;

use super::chown_container::{Change, ChownContainer};
use super::engine::{Engine, Trouble};
use super::spec::Us;
use super::{DockerOptions, spec};

/// Maximum depth of the walk. Each level costs one engine request: what is closed shows what is in
/// it only once it is open. Removing what is open brings the rest up.
const MAX_DEPTH: usize = 32;
/// Maximum number of directories that one request opens.
const MAX_DIRS_AT_ONCE: usize = 10_000;
/// How often a socket that is not there yet is looked for: nobody says that it is.
const SOCKET_POLL_PERIOD: Duration = Duration::from_millis(50);

/// The engine takes no longer paths. What lies deeper comes up when what is above it is removed.
const MAX_PATH_BYTES: usize = 3_800;
/// After so long no other layer is begun.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(30);

/// To open a directory as that.
const DIR: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes the directories `names` of `home`, and those in them, this process's own as far as
/// they are closed to it, in a container of this name. Whether there were any. What it comes
/// to in a while: the more layers of them there are, the longer it takes.
pub(super) async fn directories(
    engine: &Engine,
    options: &DockerOptions,
    container: &str,
    home: &Path,
    names: &[OsString],
) -> Result<bool, Trouble> {
    let mut chown = None;
    let mut before = Vec::new();
    let by = Instant::now() + RECLAIM_TIMEOUT;
    let outcome = loop {
        let closed = match closed(home.to_owned(), names.to_owned()).await {
            Ok(closed) => closed,
            Err(error) => break Err(Trouble::Garbled(format!("cannot look at {}: {error}", home.display()))),
        };
        // What is open is not seen again.
        if closed.is_empty() {
            break Ok(());
        }
        if closed == before {
            break Err(Trouble::Garbled("it gave them to another user than it was told".to_owned()));
        }
        let changes: Vec<Change<'_>> = closed.iter().map(|path| Change::Directory(path)).collect();
        let changed = match &chown {
            Some(chown) => ChownContainer::change(chown, &changes).await,
            None => match ChownContainer::on(engine, options, container, home).await {
                Ok(made) => chown.insert(made).change(&changes).await,
                Err(trouble) => Err(trouble),
            },
        };
        if let Err(trouble) = changed {
            break Err(trouble);
        }
        before = closed;
        if Instant::now() > by {
            break Ok(());
        }
    };
    if let Some(chown) = chown {
        chown.done().await;
    }
    match outcome {
        Ok(()) => Ok(!before.is_empty()),
        // What was changed is worth another look.
        Err(trouble) if !before.is_empty() => {
            tracing::debug!(sheep = %options.id, home = %home.display(), %trouble, "not all could be had back");
            Ok(true)
        }
        Err(trouble) => Err(trouble),
    }
}

/// Makes the socket of a runner of another user one that this process can dial, once it is
/// there.
pub(super) async fn socket(engine: &Engine, options: &DockerOptions, socket: PathBuf) {
    if options.user.is_none() || Us::effective().uid == 0 {
        return;
    }
    let stat = loop {
        if let Ok(stat) = rustix::fs::lstat(&socket) {
            break stat;
        }
        tokio::time::sleep(SOCKET_POLL_PERIOD).await;
    };
    if is_ours(&stat) || is_open(&stat, Mode::WGRP, Mode::WOTH) {
        return;
    }
    let (Some(home), Some(name)) = (socket.parent(), socket.file_name()) else { return };
    let given = async {
        let run = uuid::Uuid::now_v7().simple().to_string();
        let container = spec::name(&engine.options().instance, options.id.as_str(), &run);
        let chown = ChownContainer::on(engine, options, &container, home).await?;
        let second = [name.as_bytes(), b".ours"].concat();
        let changed = chown.change(&[Change::Other { path: name.as_bytes(), name: &second }]).await;
        chown.done().await;
        // The first name does.
        let _ = std::fs::remove_file(home.join(OsStr::from_bytes(&second)));
        changed
    };
    if let Err(trouble) = given.await {
        tracing::warn!(
            sheep = %options.id, socket = %socket.display(), %trouble,
            "the socket of a runner of another user cannot be dialled"
        );
    }
}

/// The directories that are closed to us, by their paths below `home`.
async fn closed(home: PathBuf, names: Vec<OsString>) -> io::Result<Vec<Vec<u8>>> {
    let looking = tokio::task::spawn_blocking(move || {
        let home = rustix::fs::open(&home, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut found = Vec::new();
        for name in &names {
            look(&home, name.as_bytes(), name.as_bytes(), MAX_DEPTH, &mut found)?;
        }
        Ok(found)
    });
    looking.await.map_err(io::Error::other)?
}

/// Looks at `name` in `home`, whose path is `path`.
fn look(
    home: &OwnedFd,
    name: &[u8],
    path: &[u8],
    depth: usize,
    found: &mut Vec<Vec<u8>>,
) -> rustix::io::Result<()> {
    let stat = match rustix::fs::statat(home, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if !is_directory || found.len() >= MAX_DIRS_AT_ONCE || path.len() > MAX_PATH_BYTES {
        return Ok(());
    }
    if !is_ours(&stat) && !is_open(&stat, Mode::RWXG, Mode::RWXO) {
        found.push(path.to_owned());
    }
    if depth == 0 {
        return Ok(());
    }
    // Where it cannot be opened, it can the next time; or it is ours, and who removes it opens it.
    let Ok(dir) = rustix::fs::openat(home, name, DIR, Mode::empty()) else { return Ok(()) };
    let Ok(entries) = Dir::read_from(dir.as_fd()) else { return Ok(()) };
    for entry in entries {
        let Ok(entry) = entry else { return Ok(()) };
        let name = entry.file_name().to_bytes();
        if matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
            && name != b"."
            && name != b".."
        {
            // What may not be looked at yet may be the next time.
            let _ = look(&dir, name, &[path, b"/", name].concat(), depth - 1, found);
        }
    }
    Ok(())
}

fn is_ours(stat: &Stat) -> bool {
    stat.st_uid == Us::effective().uid
}

/// Whether its group, being ours, or all others may do this.
fn is_open(stat: &Stat, group: Mode, others: Mode) -> bool {
    let mode = Mode::from_raw_mode(stat.st_mode);
    if stat.st_gid == Us::effective().gid { mode.contains(group) } else { mode.contains(others) }
}

#[cfg(test)]
mod tests;
