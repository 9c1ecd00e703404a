//! Removing trees, also those that a runner is still at work in.
//!
//! Everything is removed by descriptor, and no link is followed. Whatever others
//! make, rename or close meanwhile, a removal ends: it goes on as long as it gets
//! on, within a bound, and past what it may not remove.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::resolve::{AT, LIST, kind};

/// How often a removal starts over when something was placed meanwhile.
const MAX_REMOVE_TRIES: usize = 64;
/// How many levels of directories are removed, each of which takes one round.
const MAX_LEVELS: usize = 16 << 10;
/// How many names are read at once: a directory may be filled while it is read.
const NAMES_AT_ONCE: usize = 16 << 10;

/// Removes `name` from the directory `dir`, with everything below it, without
/// following a link, and within a bound whatever others do there meanwhile.
/// Directories that were closed are opened up where they are ours. What may not be
/// removed is passed over.
///
/// # Errors
/// The first of those that kept something from being removed. Of what is not there
/// [`io::ErrorKind::NotFound`].
pub fn remove_all(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    Ok(remove(dir.as_fd(), &name)?)
}

pub(super) fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        // POSIX has PERM for a directory.
        Err(Errno::ISDIR | Errno::PERM) => {}
        outcome => return outcome,
    }
    // A put that had the directory open may still place something in it; once it
    // is gone, none can.
    for _ in 0..MAX_REMOVE_TRIES {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => empty(&enter(dir, name)?)?,
            outcome => return outcome,
        }
    }
    Err(Errno::NOTEMPTY)
}

/// What a step of a removal came to.
#[derive(Default)]
struct Step {
    /// Something was removed or moved.
    got_on: bool,
    /// There may be more.
    again: bool,
    failed: Option<Errno>,
}

impl Step {
    fn note(&mut self, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.got_on = true,
            Err(Errno::NOENT) => {}
            // It is another thing by now.
            Err(Errno::ISDIR | Errno::NOTDIR) => self.again = true,
            Err(errno) => self.failed = self.failed.or(Some(errno)),
        }
    }
}

/// Removes everything below `top`.
///
/// Directories further down are first renamed to the top: however deep a runner
/// nests them, no path becomes too long and no stack of open directories grows.
pub(crate) fn empty(top: &OwnedFd) -> Result<()> {
    let mut number = 0_u64;
    for _ in 0..MAX_LEVELS {
        let mut step = Step::default();
        let (names, more) = names(top.as_fd(), NAMES_AT_ONCE)?;
        for (name, kind) in names {
            if kind == FileType::Directory {
                remove_level(top, &name, &mut number, &mut step);
            } else {
                step.note(rustix::fs::unlinkat(top, &*name, AtFlags::empty()));
            }
        }
        if !(step.got_on && (step.again || more)) {
            return match step.failed {
                Some(errno) => Err(errno),
                None if step.again => Err(Errno::NOTEMPTY),
                None => Ok(()),
            };
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Removes the directory `name`, or empties it into `top`.
fn remove_level(top: &OwnedFd, name: &CStr, number: &mut u64, step: &mut Step) {
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        outcome => return step.note(outcome),
    }
    let read = enter(top.as_fd(), name).and_then(|child| Ok((names(child.as_fd(), NAMES_AT_ONCE)?.0, child)));
    let (inner, child) = match read {
        Ok(read) => read,
        Err(errno) => return step.note(Err(errno)),
    };
    let mut level = Step::default();
    for (name, kind) in inner {
        if kind != FileType::Directory {
            level.note(rustix::fs::unlinkat(&child, &*name, AtFlags::empty()));
            continue;
        }
        match rustix::fs::unlinkat(&child, &*name, AtFlags::REMOVEDIR) {
            Err(Errno::NOTEMPTY | Errno::EXIST) => level.note(lift(top, &child, &name, number)),
            outcome => level.note(outcome),
        }
    }
    step.got_on |= level.got_on;
    step.again |= level.got_on || level.again;
    step.failed = step.failed.or(level.failed);
}

/// Renames a directory to the top, under a name that nothing has.
fn lift(top: &OwnedFd, dir: &OwnedFd, name: &CStr, number: &mut u64) -> Result<()> {
    let mut is_open = false;
    for _ in 0..MAX_REMOVE_TRIES {
        *number += 1;
        match rustix::fs::renameat(dir, name, top, format!(".shepherd-{number}")) {
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            // A directory that gets another parent is written to.
            Err(Errno::ACCESS) if !is_open => {
                drop(enter(dir.as_fd(), name)?);
                is_open = true;
            }
            outcome => return outcome,
        }
    }
    Err(Errno::EXIST)
}

/// Opens a directory to empty it, made accessible where a runner closed it.
fn enter(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let at = rustix::fs::openat(dir, name, AT | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    if !Mode::from_raw_mode(rustix::fs::fstat(&at)?.st_mode).contains(Mode::RWXU) {
        // By descriptor: by name it could be a link to something else by now.
        let path = format!("/proc/self/fd/{}", at.as_raw_fd());
        // Where this is not ours to change, the open says so.
        let _ = rustix::fs::chmod(path, Mode::RWXU);
    }
    rustix::fs::openat(&at, ".", LIST | OFlags::CLOEXEC, Mode::empty())
}

/// The names in a directory, at most `limit`, and whether there are more.
pub(super) fn names(dir: BorrowedFd<'_>, limit: usize) -> Result<(Vec<(CString, FileType)>, bool)> {
    let mut names = Vec::new();
    let mut entries = Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if names.len() == limit {
            return Ok((names, true));
        }
        if let Some(kind) = kind(dir, entry.file_name(), entry.file_type())? {
            names.push((entry.file_name().to_owned(), kind));
        }
    }
    Ok((names, false))
}
