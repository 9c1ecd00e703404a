//! Bringing inputs to a sheep.
//!
//! Every input becomes a file in the sheep's directory without a copy where that
//! can be had: blocks shared by the file system, then a hard link, then a copy.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use shepherd_job::JobId;

use super::Staging;
use super::disk::{Disk, is_file, size};
use super::fault::{failed, failed_io, is_absent, is_refused};
use super::key::{encoded, is_plain, split};
use super::resolve::{AT, Parents, READ};
use crate::{Result, StorageError, Transfer};

const INPUTS: &str = "inputs";

/// Where inputs are brought to, and how that is done best.
struct Stage<'a> {
    disk: &'a Disk,
    job: &'a JobId,
    to: OwnedFd,
    parents: Parents,
    /// What may still work between the two places.
    clone: bool,
    link: bool,
    same_device: bool,
    done: Transfer,
}

/// A file to be brought: its directory, and its name there.
#[derive(Clone, Copy)]
struct Source<'a> {
    dir: BorrowedFd<'a>,
    name: &'a str,
    stat: &'a Stat,
}

impl Disk {
    pub(super) fn stage(&self, job: &JobId, to: &Path) -> Result<Transfer> {
        let fail = |errno| match errno {
            Errno::NOENT => StorageError::NotFound,
            errno => failed(format_args!("open {}", to.display()), errno),
        };
        let to = rustix::fs::open(to, AT | OFlags::CLOEXEC, Mode::empty()).map_err(fail)?;
        let device = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
        let same_device = device(&to).map_err(fail)? == device(&self.root).map_err(fail)?;
        let share = self.staging == Staging::Share;
        let mut stage = Stage {
            disk: self,
            job,
            to,
            parents: Parents::default(),
            // Subvolumes of one file system are different devices that share blocks.
            clone: !same_device || self.may_clone.load(Ordering::Relaxed),
            link: share && same_device,
            same_device,
            done: Transfer::default(),
        };
        stage.plain()?;
        stage.encoded()?;
        Ok(stage.done)
    }
}

impl Stage<'_> {
    fn plain(&mut self) -> Result<()> {
        let (disk, job) = (self.disk, self.job);
        disk.resolve.walk(&disk.root, &format!("{job}/{INPUTS}"), |entry| {
            if entry.kind != FileType::RegularFile {
                return Ok(());
            }
            let (Ok(name), Some(rest)) = (entry.name.to_str(), entry.path()) else { return Ok(()) };
            if INPUTS.len() + 1 + rest.len() > 1024 {
                return Ok(());
            }
            match rustix::fs::statat(entry.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if is_file(&stat) => self.bring(Source { dir: entry.dir, name, stat: &stat }, &rest),
                Ok(_) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(self.failed(&rest, errno)),
            }
        })
    }

    /// Keys that are no paths in storage; without their `inputs/` they may be.
    fn encoded(&mut self) -> Result<()> {
        let (disk, job) = (self.disk, self.job);
        let mut keys = Vec::new();
        disk.encoded_keys(job, |key| {
            if key.as_str().strip_prefix(INPUTS).is_some_and(|rest| rest.starts_with('/')) {
                keys.push(key);
            }
        })?;
        // In order, so that what is placed where does not depend on the directory.
        keys.sort_unstable();
        for key in keys {
            let key = key.as_str();
            let rest = &key[INPUTS.len() + 1..];
            let plain = format!("{job}/{key}");
            if is_plain(key)
                && let Ok(file) = disk.resolve.open(&disk.root, &plain, OFlags::PATH)
                && rustix::fs::fstat(file).is_ok_and(|stat| is_file(&stat))
            {
                continue;
            }
            let path = format!("{job}/{}", encoded(key));
            let (parent, name) = split(&path);
            let found = disk.resolve.open(&disk.root, parent, AT).and_then(|dir| {
                rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| (dir, stat))
            });
            match found {
                Ok((dir, stat)) if is_file(&stat) => {
                    if size(&stat) == 0 && self.folder(rest)? {
                        continue;
                    }
                    self.bring(Source { dir: dir.as_fd(), name, stat: &stat }, rest)?;
                }
                Ok(_) => {}
                Err(errno) if is_absent(errno) => {}
                Err(errno) => return Err(self.failed(rest, errno)),
            }
        }
        Ok(())
    }

    /// Makes the directory that an empty object `rest` marks, if it does.
    fn folder(&mut self, rest: &str) -> Result<bool> {
        let dir = rest.strip_suffix('/').unwrap_or(rest);
        let made = if rest.is_empty() {
            Ok(())
        } else if dir.len() < rest.len() && is_plain(dir) {
            self.disk.resolve.make(&self.to, dir, &mut Vec::new()).map(drop)
        } else {
            return Ok(false);
        };
        match made {
            Ok(()) => {
                self.done.objects += 1;
                Ok(true)
            }
            Err(errno) if is_refused(errno) => Ok(false),
            Err(errno) => Err(self.failed(rest, errno)),
        }
    }

    fn bring(&mut self, source: Source<'_>, rest: &str) -> Result<()> {
        let mut brought = Err(Errno::INVAL);
        if is_plain(rest) {
            brought = self.bring_to(source, rest)?;
        }
        if brought.is_err_and(is_refused) {
            brought = self.bring_to(source, &encoded(rest))?;
        }
        brought.map_err(|errno| self.failed(rest, errno))?;
        self.done.objects += 1;
        self.done.bytes += size(source.stat);
        Ok(())
    }

    /// The outer error is final; the inner one may be the name's fault.
    fn bring_to(&mut self, source: Source<'_>, path: &str) -> Result<rustix::io::Result<()>> {
        let (parent, name) = split(path);
        let (disk, mut made) = (self.disk, Vec::new());
        for _ in 0..2 {
            let mut parents = std::mem::take(&mut self.parents);
            let outcome = match parents.make(disk.resolve, &self.to, parent, &mut made) {
                Ok(dir) => self.transfer(source, dir, name)?,
                Err(errno) => Err(errno),
            };
            self.parents = parents;
            match outcome {
                Err(Errno::EXIST) => {}
                Ok(()) => return Ok(Ok(())),
                Err(errno) => {
                    self.parents.forget();
                    disk.resolve.unmake(&self.to, &made);
                    return Ok(Err(errno));
                }
            }
            // Something of an earlier staging, which a directory's is not: that
            // belongs to other keys of this one.
            match disk.resolve.unlink(&self.to, path, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => return Ok(Err(Errno::EXIST)),
                Err(errno) => return Ok(Err(errno)),
            }
        }
        Ok(Err(Errno::EXIST))
    }

    fn transfer(
        &mut self,
        source: Source<'_>,
        dir: BorrowedFd<'_>,
        name: &str,
    ) -> Result<rustix::io::Result<()>> {
        if self.clone {
            match clone(source, dir, name) {
                Ok(()) => return Ok(Ok(())),
                Err(Errno::EXIST) => return Ok(Err(Errno::EXIST)),
                Err(errno) => {
                    self.clone = false;
                    if self.same_device && cannot_clone(errno) {
                        self.disk.may_clone.store(false, Ordering::Relaxed);
                    }
                }
            }
        }
        if self.link {
            match rustix::fs::linkat(source.dir, source.name, dir, name, AtFlags::empty()) {
                Ok(()) => return Ok(Ok(())),
                Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => self.link = false,
                // Somebody else's file (`fs.protected_hardlinks`), or too many links.
                Err(Errno::PERM | Errno::ACCESS | Errno::MLINK) => {}
                Err(errno) => return Ok(Err(errno)),
            }
        }
        let copied = open_source(source)
            .and_then(|from| create(source, dir, name).map(|to| (from, to)))
            .map(|(from, to)| std::io::copy(&mut &from, &mut &to));
        match copied {
            Err(errno) => Ok(Err(errno)),
            Ok(Ok(_)) => Ok(Ok(())),
            Ok(Err(error)) => {
                let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
                Err(failed_io(format_args!("stage inputs of job {}", self.job), &error))
            }
        }
    }

    fn failed(&self, rest: &str, errno: Errno) -> StorageError {
        failed(format_args!("stage the input {rest:?} of job {}", self.job), errno)
    }
}

/// Whether a clone that failed so will never work between these file systems.
fn cannot_clone(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::XDEV)
}

fn clone(source: Source<'_>, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
    let from = open_source(source)?;
    let to = create(source, dir, name)?;
    rustix::fs::ioctl_ficlone(&to, &from).inspect_err(|_| {
        // It was made just now; the next way makes it again.
        let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
    })
}

fn open_source(source: Source<'_>) -> rustix::io::Result<File> {
    let flags = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(source.dir, source.name, flags, Mode::empty()).map(File::from)
}

fn create(source: Source<'_>, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Programs stay executable; all else is the umask's business.
    let mode = Mode::from_raw_mode(0o666 | (source.stat.st_mode & 0o111));
    rustix::fs::openat(dir, name, flags, mode).map(File::from)
}
