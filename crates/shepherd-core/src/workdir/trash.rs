//! What is thrown away: renamed aside at once, so that its place is free, and then
//! removed. What cannot be removed, because it is others' or because a runner goes
//! on filling it, is tried again.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::path::Arg;
use shepherd_storage::remove_all;

use super::{WorkDirs, isolation};

/// Something to be removed.
#[derive(Debug)]
pub(super) struct Trash {
    /// It is in the sheep's directory, not where others stand ready.
    pub(super) in_root: bool,
    pub(super) name: CString,
}

impl WorkDirs {
    /// Removes what could not be removed before, as far as that can be had now.
    pub(crate) fn empty_trash(&self) {
        let trash = std::mem::take(&mut *self.lock_trash());
        for trash in trash {
            self.remove(trash);
        }
    }

    /// Whether anything waits to be removed.
    pub(crate) fn has_trash(&self) -> bool {
        !self.lock_trash().is_empty()
    }

    /// What waits to be removed: the directories that it is in, and its names there.
    pub(crate) fn trash(&self) -> Vec<(PathBuf, Vec<OsString>)> {
        let trash = self.lock_trash();
        let names = |in_root: bool| -> Vec<OsString> {
            let there = trash.iter().filter(|trash| trash.in_root == in_root);
            there.map(|trash| OsString::from_vec(trash.name.to_bytes().to_vec())).collect()
        };
        let places = [(self.path.clone(), names(true)), (self.back_path(), names(false))];
        places.into_iter().filter(|(_, names)| !names.is_empty()).collect()
    }

    /// Moves something away, to be removed later; that it is not there is no error.
    pub(super) fn bury(&self, dir: &OwnedFd, name: impl Arg + Copy) -> io::Result<()> {
        let trash = self.move_away(dir, name)?;
        self.lock_trash().extend(trash);
        Ok(())
    }

    /// Moves something away, and removes it.
    pub(super) fn throw_away(&self, dir: &OwnedFd, name: impl Arg + Copy) {
        match self.move_away(dir, name) {
            Ok(Some(trash)) => self.remove(trash),
            Ok(None) => {}
            Err(e) => {
                let name = name.to_string_lossy().into_owned();
                tracing::warn!(sheep = %self.path.display(), name, error = %e, "cannot move a working directory away");
            }
        }
    }

    fn move_away(&self, dir: &OwnedFd, name: impl Arg + Copy) -> io::Result<Option<Trash>> {
        let trash = self.name("trash");
        match isolation::rename(dir, name, self.back(), &*trash) {
            Ok(()) => return Ok(Some(Trash { in_root: false, name: trash })),
            Err(Errno::NOENT) => return Ok(None),
            // What belongs to others can only be renamed where it is.
            Err(_) if self.is_isolated() => {}
            Err(errno) => return Err(errno.into()),
        }
        rustix::fs::renameat(dir, name, dir, &trash)?;
        Ok(Some(Trash { in_root: std::ptr::eq(dir, &self.root), name: trash }))
    }

    fn remove(&self, trash: Trash) {
        let dir = if trash.in_root { &self.root } else { self.back() };
        match remove_all(dir, OsStr::from_bytes(trash.name.to_bytes())) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                let sheep = self.path.display();
                tracing::warn!(%sheep, error = %e, "cannot remove a working directory; it is tried again when the runner has ended");
                self.lock_trash().push(trash);
            }
        }
    }
}
