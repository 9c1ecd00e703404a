//! Paths that stay below a directory.
//!
//! Every path made of a key is resolved here, relative to an open directory, and
//! no symbolic link is ever followed. The kernel does that in one call; where it
//! is too old, or a sandbox hides the call, the path is walked name by name.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

use super::fault::{failed, is_absent};
use super::key::split;
use crate::StorageError;

/// To open a directory only to name things in it.
pub(super) const AT: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);
/// To open a directory to read its names.
pub(super) const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY);
/// To open a file to read it, without waiting where it proves to be a pipe.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK);

/// No path of ours below a job is longer; the kernel takes 4,095 bytes.
const MAX_PATH_BYTES: usize = 3500;

pub(super) const DIR_MODE: Mode = Mode::RWXU.union(Mode::RWXG).union(Mode::RWXO);

/// How paths are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolve {
    /// By `openat2`.
    Kernel,
    /// Name by name.
    Walk,
}

impl Resolve {
    /// The best way there is here.
    pub(super) fn probe(dir: impl AsFd) -> Self {
        match Self::Kernel.open(dir, ".", AT) {
            Ok(_) => Self::Kernel,
            Err(_) => Self::Walk,
        }
    }

    /// Opens `path` below `dir`.
    pub(super) fn open(self, dir: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match self {
            Self::Kernel => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                rustix::fs::openat2(dir, path, flags, Mode::empty(), resolve)
            }
            Self::Walk => {
                let (parent, name) = split(path);
                if parent == "." {
                    return rustix::fs::openat(dir, name, flags, Mode::empty());
                }
                let mut names = parent.split('/');
                let mut at = step(dir.as_fd(), names.next().unwrap_or("."))?;
                for name in names {
                    at = step(at.as_fd(), name)?;
                }
                rustix::fs::openat(&at, name, flags, Mode::empty())
            }
        }
    }

    /// Opens the directory `path` below `dir`, making what is missing of it. The
    /// paths of the directories that were made are pushed to `made`.
    pub(super) fn make(self, dir: impl AsFd, path: &str, made: &mut Vec<String>) -> Result<OwnedFd> {
        match self.open(&dir, path, AT) {
            Err(Errno::NOENT) => {}
            outcome => return outcome,
        }
        let mut at: Option<OwnedFd> = None;
        let mut end = 0;
        for name in path.split('/') {
            end += name.len();
            let below = at.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
            // What is in a directory made just now cannot be there yet.
            let next = match if made.is_empty() { step(below, name) } else { Err(Errno::NOENT) } {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(below, name, DIR_MODE) {
                        Ok(()) => made.push(path[..end].to_owned()),
                        Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    step(below, name)?
                }
                outcome => outcome?,
            };
            at = Some(next);
            end += 1;
        }
        at.ok_or(Errno::NOENT)
    }

    /// Takes back what [`make`](Self::make) made, where it is still empty.
    pub(super) fn unmake(self, dir: impl AsFd, made: &[String]) {
        for path in made.iter().rev() {
            // Somebody else may use it by now; then it is not empty and stays.
            let _ = self.unlink(&dir, path, AtFlags::REMOVEDIR);
        }
    }

    /// Unlinks `path` below `dir`.
    pub(super) fn unlink(self, dir: impl AsFd, path: &str, flags: AtFlags) -> Result<()> {
        let (parent, name) = split(path);
        let parent = self.open(dir, parent, AT)?;
        rustix::fs::unlinkat(parent, name, flags)
    }

    /// Calls `visit` for everything below the directory `top` of `dir`, directory
    /// by directory; nothing when there is no such directory. Directories that
    /// vanish meanwhile, and those whose path is no text or longer than any that is
    /// ours, are not entered. No more than one directory is open at a time, and the
    /// depth does not matter.
    pub(super) fn walk<E>(
        self,
        dir: impl AsFd,
        top: &str,
        mut visit: impl FnMut(&Entry<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E>
    where
        E: From<WalkError>,
    {
        let top = match self.open(&dir, top, LIST) {
            Ok(top) => top,
            Err(errno) if is_absent(errno) => return Ok(()),
            Err(errno) => return Err(WalkError { path: top.to_owned(), errno }.into()),
        };
        let mut todo = vec![String::new()];
        while let Some(path) = todo.pop() {
            let fail = |errno| WalkError { path: path.clone(), errno };
            let opened = match self.open(&top, if path.is_empty() { "." } else { &path }, LIST) {
                Ok(opened) => opened,
                Err(errno) if is_absent(errno) => continue,
                Err(errno) => return Err(fail(errno).into()),
            };
            let mut entries = Dir::new(opened).map_err(fail)?;
            while let Some(found) = entries.read() {
                let found = found.map_err(fail)?;
                let name = found.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                let dir = entries.fd().map_err(fail)?;
                let Some(kind) = kind(dir, name, found.file_type()).map_err(fail)? else { continue };
                visit(&Entry { dir, parent: &path, name, kind })?;
                if kind == FileType::Directory
                    && let Ok(name) = name.to_str()
                {
                    let path = join(&path, name);
                    if path.len() <= MAX_PATH_BYTES {
                        todo.push(path);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Something that [`Resolve::walk`] found.
pub(super) struct Entry<'a> {
    /// The directory it is in.
    pub(super) dir: BorrowedFd<'a>,
    /// That directory's path below the top, empty for the top itself.
    pub(super) parent: &'a str,
    /// Its name there.
    pub(super) name: &'a CStr,
    /// What it is.
    pub(super) kind: FileType,
}

impl Entry<'_> {
    /// Its path below the top, when that is text.
    pub(super) fn path(&self) -> Option<String> {
        Some(join(self.parent, self.name.to_str().ok()?))
    }
}

/// A directory that could not be read.
pub(super) struct WalkError {
    pub(super) path: String,
    pub(super) errno: Errno,
}

impl From<WalkError> for StorageError {
    fn from(WalkError { path, errno }: WalkError) -> Self {
        failed(format_args!("read the directory {path:?}"), errno)
    }
}

/// The directory that was used last, open: most objects follow one in the same.
#[derive(Default)]
pub(super) struct Parents {
    last: Option<(String, OwnedFd)>,
}

impl Parents {
    /// [`Resolve::make`], unless it is open already.
    pub(super) fn make(
        &mut self,
        resolve: Resolve,
        dir: impl AsFd,
        path: &str,
        made: &mut Vec<String>,
    ) -> Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            self.last = None;
            let opened = resolve.make(dir, path, made)?;
            self.last = Some((path.to_owned(), opened));
        }
        self.last.as_ref().map(|(_, fd)| fd.as_fd()).ok_or(Errno::NOENT)
    }

    /// Forgets it: it may have been removed.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}

/// `name` in the directory `parent`, where empty is the top.
pub(super) fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") }
}

/// The kind of an entry, asked for where the directory does not tell; none when
/// it is gone.
pub(super) fn kind(dir: BorrowedFd<'_>, name: &CStr, told: FileType) -> Result<Option<FileType>> {
    if told != FileType::Unknown {
        return Ok(Some(told));
    }
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn step(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, AT | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
}
