//! What keeps a sheep's jobs from runners that are strangers.
//!
//! The sheep's directory, which such a runner has before it, holds nothing but the
//! directories of jobs that it is to work on. Each is made and filled in a place of
//! ours outside of it, renamed into it, and renamed back before anything is done
//! with it: no name in the place is the runner's to change. What the runner holds
//! open there it can still change, so all that is done there is done by descriptor,
//! too. Directories that one model's runners may hold open are not used for the
//! jobs of another.
//!
//! A daemon that is not root reads and removes by its group what a runner of another
//! user made. What that user closes to the group waits for the runner's end, and for
//! the sheep to get it back ([`Sheep::reclaim`](shepherd_sheep::Sheep::reclaim)).

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat, XattrFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use shepherd_job::JobId;

use super::trash::Trash;
use super::{DIR, OutputPool, Ready, WorkDirs, is_dot};

/// How many names are looked at before they are dealt with.
const NAMES_AT_ONCE: usize = 4096;

/// The mode of directories that strangers work in: what they make there is of our
/// group, too.
const SHARED: Mode = Mode::from_raw_mode(0o2770);
/// The mode of the place that they have no business in.
const CLOSED: Mode = Mode::from_raw_mode(0o2700);
/// The mode of files for them.
const SHARED_FILE: Mode = Mode::from_raw_mode(0o660);
/// What is made in a directory that has this attribute is open to its group as far as its
/// maker says, whatever his umask takes; so it is in all directories that are made there. An
/// access control list in the kernel's format: version 2, and then a tag, permissions and an
/// id that is not used, for the owner, the group, and all others.
const GROUP_LIST: &[u8] = &[
    2, 0, 0, 0, 0x01, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 0x04, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 0, 0,
    0xff, 0xff, 0xff, 0xff,
];
/// The attribute's name.
const LIST_NAME: &CStr = c"system.posix_acl_default";
/// The mode bits that are looked at.
const ALL_BITS: u32 = 0o7777;

#[derive(Debug)]
pub(super) struct Isolation {
    /// Where directories are that no runner has before it.
    pub(super) back: OwnedFd,
    pub(super) path: PathBuf,
    jobs: Mutex<HashMap<JobId, Handed>>,
}

/// State of a job that has a working directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handed {
    /// Which of the models, by number, it was prepared for.
    pub(super) model: u64,
    /// Its directory is back from the runner.
    pub(super) is_back: bool,
}

impl Isolation {
    /// Sets up the directory `root` at `path`, and a place behind the isolation.
    pub(super) fn open(path: &Path, root: &OwnedFd, output_pool: &OutputPool) -> io::Result<Self> {
        settle(root, SHARED)?;
        let sheep = path.file_name().unwrap_or_default();
        let mut name = std::ffi::OsString::from(".");
        name.push(sheep);
        match rustix::fs::mkdirat(&output_pool.dir, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let back = rustix::fs::openat(&output_pool.dir, &name, DIR, Mode::empty())?;
        settle(&back, CLOSED)?;
        let probe = c".probe";
        make_dir(&back, probe)?;
        let moved = rustix::fs::renameat(&back, probe, root, probe);
        let left = if moved.is_ok() { root } else { &back };
        rustix::fs::unlinkat(left, probe, AtFlags::REMOVEDIR)?;
        moved.map_err(|errno| {
            let why = format!("nothing can be renamed into {} (is it a mount?): {errno}", path.display());
            io::Error::new(io::Error::from(errno).kind(), why)
        })?;
        for place in [root, &back] {
            open_to_group(place);
        }
        Ok(Self { back, path: output_pool.path.join(name), jobs: Mutex::default() })
    }

    pub(super) fn jobs(&self) -> MutexGuard<'_, HashMap<JobId, Handed>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorkDirs {
    /// From now on jobs are another model's: what the runners of the one before had
    /// does not come before those that follow.
    pub(crate) fn change_model(&self) {
        if self.isolation.is_none() {
            return;
        }
        let mut ready = self.lock_ready();
        ready.model += 1;
        let Ready { empty, with_input, .. } = &mut *ready;
        let old = empty.drain(..).chain(with_input.drain(..));
        self.lock_trash().extend(old.map(|name| Trash { in_root: false, name }));
    }

    /// Leaves nothing in the sheep's directory but what the next runner is to work
    /// on. To be called when no runner is there.
    ///
    /// # Errors
    /// When the directory cannot be read, or something in it not be moved away.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let Some(isolation) = &self.isolation else { return Ok(()) };
        let model = self.lock_ready().model;
        loop {
            let names = self.unburied()?;
            let mut dealt_with = 0;
            for name in names {
                // Held, so that no job comes to a place that is being cleared.
                let mut jobs = isolation.jobs();
                match jobs.iter_mut().find(|(id, _)| id.as_str().as_bytes() == name.to_bytes()) {
                    // Of this model, or of one that came while this runs.
                    Some((_, handed)) if handed.model >= model && !handed.is_back => continue,
                    Some((id, handed)) if !handed.is_back => self.bring_back(isolation, id, handed),
                    Some(_) | None => self.bury(&self.root, &*name)?,
                }
                dealt_with += 1;
            }
            // There may be more names than were looked at.
            if dealt_with == 0 {
                return Ok(());
            }
        }
    }

    /// Names in the sheep's directory, not too many at once.
    fn unburied(&self) -> io::Result<Vec<CString>> {
        let buried: HashSet<CString> =
            self.lock_trash().iter().filter(|trash| trash.in_root).map(|trash| trash.name.clone()).collect();
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            if !is_dot(name) && !buried.contains(name) {
                names.push(name.to_owned());
            }
            if names.len() == NAMES_AT_ONCE {
                break;
            }
        }
        Ok(names)
    }

    /// Takes the job's directory out of a stranger's sight.
    pub(super) fn take_back(&self, job: &JobId) {
        let Some(isolation) = &self.isolation else { return };
        if let Some(handed) = isolation.jobs().get_mut(job).filter(|handed| !handed.is_back) {
            self.bring_back(isolation, job, handed);
        }
    }

    fn bring_back(&self, isolation: &Isolation, job: &JobId, handed: &mut Handed) {
        handed.is_back = true;
        let rename = || rename(&self.root, job.as_str(), &isolation.back, job.as_str());
        let outcome = match rename() {
            // Something of an earlier attempt that could not be moved then.
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {
                self.bury(&isolation.back, job.as_str()).and_then(|()| Ok(rename()?))
            }
            // Nothing is there any more, which shows when it is opened.
            Ok(()) | Err(Errno::NOENT) => return,
            Err(errno) => Err(errno.into()),
        };
        // A stranger may have put another directory there, which is not ours to move.
        if let Err(e) = outcome.or_else(|_| self.bury(&self.root, job.as_str())) {
            tracing::warn!(job = %job, error = %e, "cannot take a working directory from its runner");
        }
    }

    pub(super) fn forget(&self, job: &JobId) {
        if let Some(isolation) = &self.isolation {
            isolation.jobs().remove(job);
        }
    }
}

/// Makes a directory that strangers may work in.
pub(super) fn make_dir(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    rustix::fs::mkdirat(&parent, name, SHARED)?;
    let dir = rustix::fs::openat(&parent, name, DIR, Mode::empty())?;
    // The umask took its part.
    rustix::fs::fchmod(&dir, SHARED)?;
    Ok(dir)
}

/// Makes a file that strangers may read and write.
pub(super) fn make_file(dir: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, SHARED_FILE)?;
    rustix::fs::fchmod(&file, SHARED_FILE)?;
    Ok(file)
}

/// Renames something out of a directory, also a directory that its runner closed:
/// one that gets another parent must be writable.
pub(super) fn rename(
    from: &OwnedFd,
    name: impl Arg + Copy,
    to: &OwnedFd,
    new: impl Arg + Copy,
) -> rustix::io::Result<()> {
    match rustix::fs::renameat(from, name, to, new) {
        Err(Errno::ACCESS) => {}
        outcome => return outcome,
    }
    let at = rustix::fs::openat(from, name, DIR | OFlags::PATH, Mode::empty())?;
    // By descriptor: by name it could be a link to something else by now.
    rustix::fs::chmod(format!("/proc/self/fd/{}", at.as_raw_fd()), Mode::RWXU)?;
    rustix::fs::renameat(from, name, to, new)
}

/// Whether a directory is one of ours and still as it was made.
pub(super) fn is_as_made(dir: &OwnedFd) -> io::Result<bool> {
    Ok(is_settled(&rustix::fs::fstat(dir)?, SHARED))
}

/// Sees to it that what strangers make in a directory is open to its group, where we are not
/// root, for whom everything is.
fn open_to_group(dir: &OwnedFd) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    if let Err(error) = rustix::fs::fsetxattr(dir, LIST_NAME, GROUP_LIST, XattrFlags::empty()) {
        tracing::debug!(%error, "what runners of other users make is open to us as their umask has it");
    }
}

/// Gives a directory our group and a mode.
fn settle(dir: &OwnedFd, mode: Mode) -> io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    if stat.st_gid != rustix::process::getegid().as_raw() {
        rustix::fs::fchown(dir, None, Some(rustix::process::getegid()))?;
    }
    if stat.st_mode & ALL_BITS != mode.as_raw_mode() {
        rustix::fs::fchmod(dir, mode)?;
    }
    Ok(())
}

fn is_settled(stat: &Stat, mode: Mode) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_gid == rustix::process::getegid().as_raw()
        && stat.st_mode & ALL_BITS == mode.as_raw_mode()
}
