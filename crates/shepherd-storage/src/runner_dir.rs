//! Directories that runners work in, named so that no link can lead elsewhere.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use shepherd_job::ENCODED_KEYS;

use crate::{Result, StorageError};

/// How far the runner is trusted that works in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It is a program of our own user: files may be shared with it, and its own
    /// taken over as they are.
    Trusted,
    /// It may run as anybody, and keep files open and change names at any moment.
    /// It gets files of its own, which our group may read and write, and what it
    /// leaves is copied into files of ours.
    Untrusted,
}

/// A runner's directory: the name of one in an open directory. Whatever is called
/// so when it is used is opened without following a symbolic link, and everything
/// below it by descriptor.
#[derive(Clone)]
pub struct RunnerDir {
    parent: Arc<OwnedFd>,
    name: OsString,
    shown: PathBuf,
    trust: Trust,
}

impl RunnerDir {
    /// The directory `name`, a single name, of `parent`. Messages call it `shown`.
    pub fn new(parent: OwnedFd, name: impl Into<OsString>, shown: impl Into<PathBuf>, trust: Trust) -> Self {
        Self { parent: Arc::new(parent), name: name.into(), shown: shown.into(), trust }
    }

    /// The directory at `path`, of which only the last name may be the runner's
    /// doing.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is no directory to hold it,
    /// [`StorageError::Invalid`] when the path has no last name or cannot be opened.
    pub fn at(path: &Path, trust: Trust) -> Result<Self> {
        let invalid = |why: &dyn fmt::Display| StorageError::Invalid(format!("{}: {why}", path.display()));
        let name = path.file_name().ok_or_else(|| invalid(&"the path ends in no name"))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(parent, flags, Mode::empty()) {
            Ok(parent) => Ok(Self::new(parent, name, path, trust)),
            Err(Errno::NOENT) => Err(StorageError::NotFound),
            Err(errno) => Err(invalid(&errno)),
        }
    }

    /// How far its runner is trusted.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Whether inputs were staged in it whose keys are no file names
    /// ([`ENCODED_KEYS`]). Blocks.
    pub fn has_encoded_keys(&self) -> bool {
        let found = self
            .open(OFlags::PATH)
            .and_then(|dir| rustix::fs::statat(dir, ENCODED_KEYS, rustix::fs::AtFlags::SYMLINK_NOFOLLOW));
        found.is_ok()
    }

    pub(crate) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// Its path, for messages only.
    pub(crate) fn shown(&self) -> std::path::Display<'_> {
        self.shown.display()
    }

    /// Opens the directory.
    pub(crate) fn open(&self, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.parent, &self.name, flags, Mode::empty())
    }
}

impl fmt::Debug for RunnerDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunnerDir").field("path", &self.shown).field("trust", &self.trust).finish()
    }
}
