//! The directory itself: opening it, finding an object, removing a job. All calls
//! block.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath, Timestamp};

use super::Staging;
use super::buckets::Locks;
use super::fault::{failed, failed_io, is_absent};
use super::key::{encoded, is_plain};
use super::resolve::{AT, LIST, Resolve};
use super::sync::Changes;
use super::temp::Temps;
use crate::{ObjectMeta, Result, StorageError};

/// An open storage directory.
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) root: OwnedFd,
    pub(super) resolve: Resolve,
    pub(super) temps: Arc<Temps>,
    pub(super) changes: Changes,
    pub(super) staging: Staging,
    pub(super) keys: Locks,
    /// Whether this file system may be able to share blocks between files.
    pub(super) may_clone: AtomicBool,
    /// When uploads that nobody goes on with were last looked for.
    pub(super) uploads_cleared: Mutex<Instant>,
}

impl Disk {
    pub(super) fn open(path: &Path, resolve: Option<Resolve>) -> Result<Self> {
        let shown = path.display();
        let existed = path.is_dir();
        std::fs::create_dir_all(path).map_err(|error| failed_io(format_args!("create {shown}"), &error))?;
        let root = rustix::fs::open(path, LIST | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(format_args!("open {shown}"), errno))?;
        let resolve = resolve.unwrap_or_else(|| Resolve::probe(&root));
        let temps = Temps::open(&root, resolve)
            .map_err(|errno| failed(format_args!("prepare {shown}/.shepherd"), errno))?;
        if !existed {
            // Later syncs reach up to the directory itself, but not above it.
            rustix::fs::syncfs(&root).map_err(|errno| failed(format_args!("sync {shown}"), errno))?;
        }
        let disk = Self {
            path: path.to_owned(),
            root,
            resolve,
            temps: Arc::new(temps),
            changes: Changes::default(),
            staging: Staging::Share,
            keys: Locks::default(),
            may_clone: AtomicBool::new(true),
            uploads_cleared: Mutex::new(Instant::now()),
        };
        disk.clear_old_uploads();
        Ok(disk)
    }

    pub(super) fn contains(&self, job: &JobId) -> Result<bool> {
        match rustix::fs::statat(&self.root, job.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(true),
            // Neither data nor a place for any.
            Ok(_) => Err(failed(format_args!("use the directory of job {job}"), Errno::NOTDIR)),
            Err(errno) if is_absent(errno) => Ok(false),
            Err(errno) => Err(failed(format_args!("look for job {job}"), errno)),
        }
    }

    /// Opens an object. The file at the key's own path goes before an encoded one:
    /// what a person puts there is what counts.
    pub(super) fn find(&self, job: &JobId, key: &str, flags: OFlags) -> Result<(OwnedFd, Stat)> {
        let plain = is_plain(key).then(|| format!("{job}/{key}"));
        for path in plain.into_iter().chain(std::iter::once_with(|| format!("{job}/{}", encoded(key)))) {
            let opened = self
                .resolve
                .open(&self.root, &path, flags)
                .and_then(|file| rustix::fs::fstat(&file).map(|stat| (file, stat)));
            match opened {
                Ok((file, stat)) if is_file(&stat) => return Ok((file, stat)),
                Ok(_) => {}
                Err(errno) if is_absent(errno) => {}
                Err(errno) => return Err(failed(format_args!("open {key:?} of job {job}"), errno)),
            }
        }
        Err(StorageError::NotFound)
    }

    pub(super) fn head(&self, job: &JobId, path: &ObjectPath) -> Result<ObjectMeta> {
        let (_, stat) = self.find(job, path.as_str(), OFlags::PATH)?;
        Ok(meta(path, &stat))
    }

    /// Renames the job away, so that it is gone at once, and then deletes it.
    pub(super) fn remove(&self, job: &JobId) -> Result<()> {
        let temp = self.temps.reserve();
        match rustix::fs::renameat(&self.root, job.as_str(), temp.dir(), temp.name()) {
            Ok(()) | Err(Errno::NOENT) => {
                self.abort_uploads(job);
                Ok(())
            }
            Err(errno) => Err(failed(format_args!("remove job {job}"), errno)),
        }
    }

    /// Writes a small file and removes it, and sees that the open directory is
    /// still the one at its path.
    pub(super) fn check(&self) -> Result<()> {
        use std::io::Write as _;

        let shown = self.path.display();
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let open = rustix::fs::fstat(&self.root).map(identity);
        let named = rustix::fs::stat(&self.path).map(identity);
        match (open, named) {
            (Ok(open), Ok(named)) if open == named => {}
            (Ok(_), Ok(_)) => {
                return Err(StorageError::Unavailable(format!("{shown} was replaced by another directory")));
            }
            (Err(errno), _) | (_, Err(errno)) => {
                return Err(failed(format_args!("look at {shown}"), errno));
            }
        }
        let (_temp, mut file) =
            self.temps.create().map_err(|errno| failed(format_args!("write in {shown}"), errno))?;
        file.write_all(b"check").map_err(|error| failed_io(format_args!("write in {shown}"), &error))
    }

    /// Whether a directory is at `path` below the root.
    pub(super) fn has_dir(&self, path: &str) -> bool {
        self.resolve.open(&self.root, path, AT).is_ok()
    }
}

pub(super) fn is_file(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(super) fn modified(stat: &Stat) -> Timestamp {
    let micros = i64::try_from(stat.st_mtime_nsec / 1000).unwrap_or(0);
    Timestamp::from_micros(stat.st_mtime.saturating_mul(1_000_000).saturating_add(micros))
}

pub(super) fn meta(path: &ObjectPath, stat: &Stat) -> ObjectMeta {
    ObjectMeta { path: path.clone(), size: size(stat), modified: modified(stat) }
}
