//! Bringing inputs to a sheep.
//!
//! Every input becomes a file in the sheep's directory (`place` says where): one that
//! shares blocks where the file system can, or else a copy. With [`Staging::Share`] a hard
//! link goes before the copy; a stranger never gets one, by which it could write into the
//! object.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use shepherd_job::JobId;

use super::Staging;
use super::copying::copy;
use super::disk::{Disk, is_file, size};
use super::fault::{failed, failed_io, is_absent};
use super::key::{encoded, is_plain, split};
use super::place::{Places, create};
use super::resolve::{AT, READ};
use crate::{Result, RunnerDir, StorageError, Transfer, Trust};

const INPUTS: &str = "inputs";

/// Where inputs are brought to.
struct Stage<'a> {
    disk: &'a Disk,
    job: &'a JobId,
    to: Places,
    how: How<'a>,
    done: Transfer,
}

/// How they are brought best: what may still work between the two places.
struct How<'a> {
    disk: &'a Disk,
    job: &'a JobId,
    trust: Trust,
    clone: bool,
    link: bool,
    same_device: bool,
}

/// A file to be brought: its directory, and its name there.
#[derive(Clone, Copy)]
struct Source<'a> {
    dir: BorrowedFd<'a>,
    name: &'a str,
    stat: &'a Stat,
}

impl Disk {
    pub(super) fn stage(&self, job: &JobId, to: &RunnerDir) -> Result<Transfer> {
        let places = Places::open(to)?.resolving(self.resolve);
        let device = |fd: &OwnedFd| {
            rustix::fs::fstat(fd)
                .map(|stat| stat.st_dev)
                .map_err(|errno| failed(format_args!("look at {}", to.shown()), errno))
        };
        let same_device = device(places.dir())? == device(&self.root)?;
        let how = How {
            disk: self,
            job,
            trust: to.trust(),
            // Subvolumes of one file system are different devices that share blocks.
            clone: !same_device || self.may_clone.load(Ordering::Relaxed),
            link: self.staging == Staging::Share && to.trust() == Trust::Trusted && same_device,
            same_device,
        };
        let mut stage = Stage { disk: self, job, to: places, how, done: Transfer::default() };
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
                    if size(&stat) == 0 && self.to.folder(rest)? {
                        self.done.objects += 1;
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

    fn bring(&mut self, source: Source<'_>, rest: &str) -> Result<()> {
        let how = &mut self.how;
        let brought = self.to.place(rest, |dir, name| how.transfer(source, dir, name))?;
        brought.map_err(|errno| self.failed(rest, errno))?;
        self.done.objects += 1;
        self.done.bytes += size(source.stat);
        Ok(())
    }

    fn failed(&self, rest: &str, errno: Errno) -> StorageError {
        failed(format_args!("stage the input {rest:?} of job {}", self.job), errno)
    }
}

impl How<'_> {
    fn transfer(
        &mut self,
        source: Source<'_>,
        dir: BorrowedFd<'_>,
        name: &str,
    ) -> Result<rustix::io::Result<()>> {
        if self.clone {
            match self.clone(source, dir, name) {
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
            .and_then(|from| self.create(source, dir, name).map(|to| (from, to)))
            .map(|(from, to)| copy(&from, &to, size(source.stat)));
        match copied {
            Err(errno) => Ok(Err(errno)),
            Ok(Ok(_)) => Ok(Ok(())),
            Ok(Err(error)) => {
                let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
                Err(failed_io(format_args!("stage inputs of job {}", self.job), &error))
            }
        }
    }

    fn clone(&self, source: Source<'_>, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<()> {
        let from = open_source(source)?;
        let to = self.create(source, dir, name)?;
        rustix::fs::ioctl_ficlone(&to, &from).inspect_err(|_| {
            // It was made just now; the next way makes it again.
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::empty());
        })
    }

    fn create(&self, source: Source<'_>, dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<File> {
        // Programs stay executable.
        create(self.trust, dir, name, 0o666 | (source.stat.st_mode & 0o111))
    }
}

/// Whether a clone that failed so will never work between these file systems.
pub(super) fn cannot_clone(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::XDEV)
}

fn open_source(source: Source<'_>) -> rustix::io::Result<File> {
    let flags = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(source.dir, source.name, flags, Mode::empty()).map(File::from)
}
