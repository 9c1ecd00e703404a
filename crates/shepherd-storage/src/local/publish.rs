//! Taking a runner's files over as outputs.
//!
//! What a runner of ours left is looked through first, and loses its set-user-id and
//! set-group-id bits; then the whole directory is
//! renamed to its place, whatever it holds. Only between file systems, or where it
//! may not be renamed, are the files copied.
//!
//! What a stranger left is always copied, sharing blocks where the file system can:
//! it may keep files open and have other names for them, and so change what was
//! stored; and what it owns it may close to us. (Taking the file and changing its
//! owner and mode leaves what is open.) Nothing of a stranger's is ever in the
//! storage's directory.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use shepherd_job::JobId;

use super::copying::copy;
use super::disk::{Disk, is_file, size};
use super::fault::{failed, failed_io, is_absent};
use super::key::encoded;
use super::outputs::{self, each_file};
use super::removal::empty;
use super::resolve::{AT, Parents};
use super::stage::cannot_clone;
use super::temp::Temp;
use crate::{Result, RunnerDir, StorageError, Transfer, Trust};

const OUTPUTS: &str = "outputs";

/// How often a publishing is tried while others remove the job under it.
const MAX_PUBLISH_TRIES: usize = 16;

impl Disk {
    pub(super) fn publish(&self, job: &JobId, from: &RunnerDir) -> Result<Transfer> {
        let source = outputs::open(from)?;
        let found = match from.trust() {
            Trust::Trusted => self.take(job, from, &source)?,
            Trust::Untrusted => self.take_copy(job, from, &source)?,
        };
        self.changes.note();
        Ok(found)
    }

    /// Takes the directory itself.
    fn take(&self, job: &JobId, from: &RunnerDir, source: &OwnedFd) -> Result<Transfer> {
        let mut found = Transfer::default();
        each_file(self.resolve, source, from.trust(), |file| {
            found.objects += 1;
            found.bytes += size(&file.stat);
            file.clear_set_id()
        })?;
        // First of all: what follows the renaming must not fail, for that cannot be repeated.
        self.unlink_encoded_outputs(job)?;
        match self.install(job, from.parent(), from.name()) {
            Err(Errno::XDEV | Errno::ACCESS | Errno::PERM | Errno::BUSY) => {
                return self.take_copy(job, from, source);
            }
            // What is called so now is no directory.
            Err(Errno::ISDIR) => return Err(replaced()),
            outcome => outcome.map_err(|errno| publish_failed(job, errno))?,
        }
        self.see_that_it_is(job, source)?;
        Ok(found)
    }

    /// Sees that what was renamed is what was looked through: the name was the
    /// runner's to give away.
    fn see_that_it_is(&self, job: &JobId, source: &OwnedFd) -> Result<()> {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let fail = |errno| publish_failed(job, errno);
        let wanted = rustix::fs::fstat(source).map(identity).map_err(fail)?;
        let dir = match self.resolve.open(&self.root, job.as_str(), AT) {
            Ok(dir) => dir,
            // The job was removed, and its outputs with it.
            Err(errno) if is_absent(errno) => return Ok(()),
            Err(errno) => return Err(fail(errno)),
        };
        match rustix::fs::statat(&dir, OUTPUTS, AtFlags::SYMLINK_NOFOLLOW).map(identity) {
            Ok(placed) if placed == wanted => Ok(()),
            Err(errno) if is_absent(errno) => Ok(()),
            Ok(_) => {
                let other = self.temps.reserve();
                rustix::fs::renameat(&dir, OUTPUTS, other.dir(), other.name()).map_err(fail)?;
                Err(replaced())
            }
            Err(errno) => Err(fail(errno)),
        }
    }

    /// Copies what is in the directory, and removes it there.
    fn take_copy(&self, job: &JobId, from: &RunnerDir, source: &OwnedFd) -> Result<Transfer> {
        let (copy, copied) = self.copy(job, from.trust(), source).map_err(|error| match error {
            StorageError::Full => self.full_or_too_small(from.trust(), source),
            error => error,
        })?;
        self.unlink_encoded_outputs(job)?;
        self.install(job, copy.dir(), OsStr::new(copy.name())).map_err(|errno| publish_failed(job, errno))?;
        if let Err(errno) = empty(source) {
            tracing::warn!(dir = %from.shown(), error = %errno, "copied outputs cannot be removed");
        }
        Ok(copied)
    }

    /// What it means that a runner's files do not fit: that others must go first, or that
    /// the file system has no room for them even when it is empty.
    fn full_or_too_small(&self, trust: Trust, source: &OwnedFd) -> StorageError {
        let mut needed = 0;
        let surveyed = each_file(self.resolve, source, trust, |file| {
            // A sparse file takes less than its size.
            let blocks = u64::try_from(file.stat.st_blocks).unwrap_or(0).saturating_mul(512);
            needed += size(&file.stat).min(blocks);
            Ok(())
        });
        match (surveyed, rustix::fs::fstatvfs(&self.root)) {
            (Ok(()), Ok(all)) if needed > all.f_blocks.saturating_mul(all.f_frsize) => {
                let room = all.f_blocks.saturating_mul(all.f_frsize);
                StorageError::Invalid(format!(
                    "the outputs take {needed} bytes, the storage's whole file system has {room}"
                ))
            }
            _ => StorageError::Full,
        }
    }

    /// Puts the directory `from` in the place of the job's outputs, in one step
    /// where the file system can.
    fn install(&self, job: &JobId, from_dir: BorrowedFd<'_>, from: &OsStr) -> rustix::io::Result<()> {
        let mut tries = MAX_PUBLISH_TRIES;
        loop {
            let mut made = Vec::new();
            let outcome = self.resolve.make(&self.root, job.as_str(), &mut made).and_then(|dir| {
                // Replaces nothing, or an empty directory.
                match rustix::fs::renameat(from_dir, from, &dir, OUTPUTS) {
                    Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {
                        self.replace(job, &dir, from_dir, from)
                    }
                    outcome => outcome,
                }
            });
            let Err(errno) = outcome else { return Ok(()) };
            self.resolve.unmake(&self.root, &made);
            tries -= 1;
            // The job was removed between the two steps.
            if errno != Errno::NOENT || tries == 0 {
                return Err(errno);
            }
        }
    }

    fn replace(
        &self,
        job: &JobId,
        dir: &OwnedFd,
        from_dir: BorrowedFd<'_>,
        from: &OsStr,
    ) -> rustix::io::Result<()> {
        self.spare_file(job, dir)?;
        let old = self.temps.reserve();
        match rustix::fs::renameat_with(from_dir, from, dir, OUTPUTS, RenameFlags::EXCHANGE) {
            Ok(()) => {
                if let Err(errno) = rustix::fs::renameat(from_dir, from, old.dir(), old.name()) {
                    tracing::warn!(%job, error = %errno, "replaced outputs cannot be removed");
                }
                Ok(())
            }
            // This file system cannot exchange: for a moment there are no outputs.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::renameat(dir, OUTPUTS, old.dir(), old.name())?;
                rustix::fs::renameat(from_dir, from, dir, OUTPUTS).inspect_err(|_| {
                    if rustix::fs::renameat(old.dir(), old.name(), dir, OUTPUTS).is_err() {
                        tracing::error!(%job, "older outputs were lost when newer ones could not be published");
                    }
                })
            }
            Err(errno) => Err(errno),
        }
    }

    /// A file at the outputs' path is an object of its own, which is not below
    /// `outputs/`: it takes its encoded name.
    fn spare_file(&self, job: &JobId, dir: &OwnedFd) -> rustix::io::Result<()> {
        if !rustix::fs::statat(dir, OUTPUTS, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| is_file(&stat)) {
            return Ok(());
        }
        let temp = self.temps.reserve();
        rustix::fs::linkat(dir, OUTPUTS, temp.dir(), temp.name(), AtFlags::empty())?;
        let place = format!("{job}/{}", encoded(OUTPUTS));
        self.place_at(&temp, &place, &mut Parents::default())?;
        temp.placed();
        Ok(())
    }

    /// Removes the objects below `outputs/` whose keys are no paths.
    fn unlink_encoded_outputs(&self, job: &JobId) -> Result<()> {
        let mut keys = Vec::new();
        self.encoded_keys(job, |key| {
            if key.as_str().strip_prefix(OUTPUTS).is_some_and(|rest| rest.starts_with('/')) {
                keys.push(key);
            }
        })?;
        for key in keys {
            let path = format!("{job}/{}", encoded(key.as_str()));
            match self.resolve.unlink(&self.root, &path, AtFlags::empty()) {
                Ok(()) => {}
                Err(errno) if is_absent(errno) => {}
                Err(errno) => return Err(publish_failed(job, errno)),
            }
        }
        Ok(())
    }

    /// Copies a runner's directory to the temporaries.
    fn copy(&self, job: &JobId, trust: Trust, source: &OwnedFd) -> Result<(Temp, Transfer)> {
        let temp = self.temps.reserve();
        let mode = Mode::from_raw_mode(0o777);
        let top = rustix::fs::mkdirat(temp.dir(), temp.name(), mode)
            .and_then(|()| self.resolve.open(temp.dir(), temp.name(), AT))
            .map_err(|errno| publish_failed(job, errno))?;
        let (mut parents, mut copied) = (Parents::default(), Transfer::default());
        each_file(self.resolve, source, trust, |file| {
            let (from, stat) = file.open(trust)?;
            let parent = if file.entry.parent.is_empty() { "." } else { file.entry.parent };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let to = parents
                .make(self.resolve, &top, parent, &mut Vec::new())
                .and_then(|dir| rustix::fs::openat(dir, file.entry.name, flags, Mode::from_raw_mode(0o666)))
                .map_err(|errno| match errno {
                    // Names come twice where they are changed while they are read.
                    Errno::EXIST => outputs::refused(&file.output.path, "was renamed while it was published"),
                    errno => publish_failed(job, errno),
                })?;
            copied.objects += 1;
            copied.bytes += self
                .duplicate(&from, &File::from(to), size(&stat))
                .map_err(|error| failed_io(format_args!("copy outputs of job {job}"), &error))?;
            Ok(())
        })?;
        Ok((temp, copied))
    }

    /// Fills a new file with the first `len` bytes of another, and gives their number.
    fn duplicate(&self, from: &File, to: &File, len: u64) -> std::io::Result<u64> {
        if len > 0 && self.may_clone.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()) {
                Ok(()) => return Ok(to.metadata()?.len()),
                // Between file systems it never works, which says nothing of this one.
                Err(errno) if cannot_clone(errno) && errno != Errno::XDEV => {
                    self.may_clone.store(false, Ordering::Relaxed);
                }
                Err(_) => {}
            }
        }
        copy(from, to, len)
    }
}

fn publish_failed(job: &JobId, errno: Errno) -> StorageError {
    failed(format_args!("publish outputs of job {job}"), errno)
}

fn replaced() -> StorageError {
    StorageError::Invalid("the directory of outputs was replaced while it was published".to_owned())
}
