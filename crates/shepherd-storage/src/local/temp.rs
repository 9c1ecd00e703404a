//! Things that are not visible yet, or no more.
//!
//! `DIR/.shepherd/tmp` has a directory for each process that has the storage open,
//! locked as long as it lives; an open clears those of processes that are gone.
//! What is written is written there and renamed to its place; what is removed is
//! renamed to there first, so that it vanishes at once.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::{Errno, Result};

use super::removal::{names, remove};
use super::resolve::{LIST, Resolve};

const TMP: &str = ".shepherd/tmp";

pub(super) const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// The directory of this process's temporaries.
pub(super) struct Temps {
    all: OwnedFd,
    name: String,
    dir: OwnedFd,
    next: AtomicU64,
}

impl Temps {
    /// Makes this process's directory and clears those that were left behind.
    pub(super) fn open(root: impl AsFd, resolve: Resolve) -> Result<Self> {
        resolve.make(&root, TMP, &mut Vec::new())?;
        let all = resolve.open(&root, TMP, LIST)?;
        // Until this returns, no other process takes our new directory for an
        // abandoned one.
        rustix::fs::flock(&all, FlockOperation::LockExclusive)?;
        for (name, kind) in names(all.as_fd(), usize::MAX)?.0 {
            let abandoned = kind != FileType::Directory
                || rustix::fs::openat(&all, &*name, LIST | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())
                    .and_then(|dir| rustix::fs::flock(dir, FlockOperation::NonBlockingLockExclusive))
                    .is_ok();
            if abandoned && let Err(errno) = remove(all.as_fd(), &name) {
                tracing::warn!(name = %name.to_string_lossy(), error = %errno, "a temporary cannot be removed");
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let name = format!("{}-{now}", std::process::id());
        rustix::fs::mkdirat(&all, &name, Mode::RWXU)?;
        let dir = resolve.open(&all, &name, LIST)?;
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)?;
        rustix::fs::flock(&all, FlockOperation::Unlock)?;
        Ok(Self { all, name, dir, next: AtomicU64::new(0) })
    }

    /// A name that nothing has yet.
    pub(super) fn reserve(self: &Arc<Self>) -> Temp {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Temp { temps: Arc::clone(self), name: number.to_string(), placed: false }
    }

    /// Takes a file from elsewhere on the file system, when it is a regular one of
    /// this size that has no other name.
    pub(super) fn take(self: &Arc<Self>, file: &Path, size: usize) -> Option<Temp> {
        let temp = self.reserve();
        self.take_to(file, size, &temp.name).then_some(temp)
    }

    /// [`take`](Self::take) to a place below this directory. Nothing is there when it is false.
    pub(super) fn take_to(&self, file: &Path, size: usize, place: &str) -> bool {
        if rustix::fs::renameat(rustix::fs::CWD, file, &self.dir, place).is_err() {
            return false;
        }
        let is_right = rustix::fs::statat(&self.dir, place, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && stat.st_nlink == 1
                && usize::try_from(stat.st_size) == Ok(size)
        });
        if !is_right {
            self.remove(place);
        }
        is_right
    }

    /// Removes a file or directory, as far as that can be had.
    fn remove(&self, name: &str) {
        let removed = match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                CString::new(name).map_err(|_| Errno::INVAL).and_then(|name| remove(self.dir.as_fd(), &name))
            }
            outcome => outcome,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::warn!(name, error = %errno, "a temporary cannot be removed"),
        }
    }

    /// A new file to write.
    pub(super) fn create(self: &Arc<Self>) -> Result<(Temp, File)> {
        let temp = self.reserve();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.dir, &temp.name, flags, FILE_MODE)?;
        Ok((temp, File::from(file)))
    }
}

impl Drop for Temps {
    fn drop(&mut self) {
        // What is left of it, the next open clears.
        let _ = rustix::fs::unlinkat(&self.all, &self.name, AtFlags::REMOVEDIR);
    }
}

/// A file or directory among the temporaries. Removed when it is dropped, unless
/// it was placed.
pub(super) struct Temp {
    temps: Arc<Temps>,
    name: String,
    placed: bool,
}

impl Temp {
    /// The directory it is in.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.temps.dir.as_fd()
    }

    /// Its name there.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It was renamed away.
    pub(super) fn placed(mut self) {
        self.placed = true;
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if !self.placed {
            self.temps.remove(&self.name);
        }
    }
}
