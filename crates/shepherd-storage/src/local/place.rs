//! Placing inputs in a runner's directory, under names that others chose.
//!
//! An object is placed at the path that is its key, and where that is no path, or
//! the file system refuses it, at its encoded one. What stands there is replaced;
//! no link is followed, and nothing leaves the directory.
//!
//! Files and directories for an untrusted runner get explicit modes, whatever
//! the umask: its directory hands down the group.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::fault::{failed, is_refused};
use super::key::{encoded, is_plain, split};
use super::resolve::{AT, LIST, Parents, Resolve};
use crate::{Result, RunnerDir, StorageError, Trust};

/// Of directories that a stranger may work in.
const STRANGERS_DIR: Mode = Mode::from_raw_mode(0o2770);

/// An open directory of a runner.
pub(crate) struct Places {
    to: OwnedFd,
    trust: Trust,
    resolve: Resolve,
    parents: Parents,
}

impl Places {
    /// Opens the directory `to`.
    ///
    /// # Errors
    /// [`StorageError::NotFound`] when there is none.
    pub(crate) fn open(to: &RunnerDir) -> Result<Self> {
        let dir = to.open(AT).map_err(|errno| match errno {
            Errno::NOENT => StorageError::NotFound,
            errno => failed(format_args!("open {}", to.shown()), errno),
        })?;
        let resolve = Resolve::probe(&dir);
        Ok(Self { to: dir, trust: to.trust(), resolve, parents: Parents::default() })
    }

    /// The same with the way to resolve paths that the caller found.
    pub(super) fn resolving(self, resolve: Resolve) -> Self {
        Self { resolve, ..self }
    }

    pub(super) fn dir(&self) -> &OwnedFd {
        &self.to
    }

    /// Makes the directory that the empty object `rest` marks, if it does.
    pub(crate) fn folder(&mut self, rest: &str) -> Result<bool> {
        let dir = rest.strip_suffix('/').unwrap_or(rest);
        let made = if rest.is_empty() {
            Ok(())
        } else if dir.len() < rest.len() && is_plain(dir) {
            let mut made = Vec::new();
            let outcome = self.resolve.make(&self.to, dir, &mut made).map(drop);
            outcome.and_then(|()| self.let_in(&made))
        } else {
            return Ok(false);
        };
        match made {
            Ok(()) => Ok(true),
            Err(errno) if is_refused(errno) => Ok(false),
            Err(errno) => Err(failed(format_args!("stage the input {rest:?}"), errno)),
        }
    }

    /// Creates the file for the object `rest`, to write to.
    pub(crate) fn create(&mut self, rest: &str) -> Result<File> {
        let (mut created, trust) = (None, self.trust);
        let placed = self.place(rest, |dir, name| -> Result<_> {
            Ok(create(trust, dir, name, 0o666).map(|file| created = Some(file)))
        })?;
        placed
            .and_then(|()| created.ok_or(Errno::IO))
            .map_err(|errno| failed(format_args!("stage the input {rest:?}"), errno))
    }

    /// Has `put` put the object `rest` in a directory under a name, which it must
    /// not replace. Its outer error is final; the inner one may be the name's fault.
    pub(super) fn place<E>(
        &mut self,
        rest: &str,
        mut put: impl FnMut(BorrowedFd<'_>, &str) -> std::result::Result<rustix::io::Result<()>, E>,
    ) -> std::result::Result<rustix::io::Result<()>, E> {
        let mut placed = Err(Errno::INVAL);
        if is_plain(rest) {
            placed = self.place_at(rest, &mut put)?;
        }
        if placed.is_err_and(is_refused) {
            placed = self.place_at(&encoded(rest), &mut put)?;
        }
        Ok(placed)
    }

    fn place_at<E>(
        &mut self,
        path: &str,
        put: &mut impl FnMut(BorrowedFd<'_>, &str) -> std::result::Result<rustix::io::Result<()>, E>,
    ) -> std::result::Result<rustix::io::Result<()>, E> {
        let (parent, name) = split(path);
        let mut made = Vec::new();
        for _ in 0..2 {
            let outcome = match self.parents.make(self.resolve, &self.to, parent, &mut made) {
                Ok(dir) => put(dir, name)?,
                Err(errno) => Err(errno),
            };
            let outcome = outcome.and_then(|()| self.let_in(&made));
            match outcome {
                Err(Errno::EXIST) => {}
                Ok(()) => return Ok(Ok(())),
                Err(errno) => {
                    self.parents.forget();
                    self.resolve.unmake(&self.to, &made);
                    return Ok(Err(errno));
                }
            }
            // Something of an earlier staging, which a directory's is not: that
            // belongs to other keys of this one.
            match self.resolve.unlink(&self.to, path, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => return Ok(Err(Errno::EXIST)),
                Err(errno) => return Ok(Err(errno)),
            }
        }
        Ok(Err(Errno::EXIST))
    }

    /// Lets a stranger into directories that were made for it.
    fn let_in(&self, made: &[String]) -> rustix::io::Result<()> {
        match self.trust {
            Trust::Trusted => Ok(()),
            Trust::Untrusted => made.iter().try_for_each(|path| {
                // Whichever directory of the stranger's this is by now.
                rustix::fs::fchmod(self.resolve.open(&self.to, path, LIST)?, STRANGERS_DIR)
            }),
        }
    }
}

/// Creates a file in a runner's directory.
pub(super) fn create(trust: Trust, dir: BorrowedFd<'_>, name: &str, mode: u32) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(mode);
    match trust {
        Trust::Trusted => rustix::fs::openat(dir, name, flags, mode).map(File::from),
        Trust::Untrusted => {
            let mode = mode.difference(Mode::RWXO);
            let file = rustix::fs::openat(dir, name, flags, mode)?;
            rustix::fs::fchmod(&file, mode)?;
            Ok(File::from(file))
        }
    }
}
