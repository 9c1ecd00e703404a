//! Taking a runner's files over as outputs.
//!
//! What a runner left is looked through first; then the whole directory is renamed
//! to its place, whatever it holds. Only between file systems, or where it may not
//! be renamed, are the files copied.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use shepherd_job::JobId;

use super::disk::{Disk, is_file, size};
use super::fault::{failed, failed_io, is_absent};
use super::key::encoded;
use super::outputs;
use super::resolve::{AT, Entry, Parents, READ};
use super::temp::{Temp, empty};
use crate::{Result, StorageError, Transfer};

const OUTPUTS: &str = "outputs";

/// How often a publishing is tried while others remove the job under it.
const TRIES: usize = 16;

impl Disk {
    pub(super) fn publish(&self, job: &JobId, from: &Path) -> Result<Transfer> {
        let source = outputs::open(from)?;
        let mut found = Transfer::default();
        outputs::each_file(self.resolve, &source, |_, stat| {
            found.objects += 1;
            found.bytes += size(stat);
        })?;
        // First of all: what follows the renaming must not fail, for that cannot be repeated.
        self.unlink_encoded_outputs(job)?;
        match self.install(job, CWD, from) {
            Err(Errno::XDEV | Errno::ACCESS | Errno::PERM | Errno::BUSY) => {
                let copy = self.copy(job, &source)?;
                self.install(job, copy.dir(), Path::new(copy.name()))
                    .map_err(|errno| publish_failed(job, errno))?;
                if let Err(errno) = empty(&source) {
                    tracing::warn!(dir = %from.display(), error = %errno, "copied outputs cannot be removed");
                }
            }
            outcome => outcome.map_err(|errno| publish_failed(job, errno))?,
        }
        self.changes.note();
        Ok(found)
    }

    /// Puts the directory `from` in the place of the job's outputs, in one step
    /// where the file system can.
    fn install(&self, job: &JobId, from_dir: BorrowedFd<'_>, from: &Path) -> rustix::io::Result<()> {
        let mut tries = TRIES;
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
        from: &Path,
    ) -> rustix::io::Result<()> {
        self.spare_file(job, dir)?;
        let old = self.temps.reserve();
        match rustix::fs::renameat_with(from_dir, from, dir, OUTPUTS, RenameFlags::EXCHANGE) {
            Ok(()) => {
                if let Err(errno) = rustix::fs::renameat(from_dir, from, old.dir(), old.name()) {
                    tracing::warn!(dir = %from.display(), error = %errno, "replaced outputs cannot be removed");
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
    fn copy(&self, job: &JobId, source: &OwnedFd) -> Result<Temp> {
        let copy = self.temps.reserve();
        let mode = Mode::from_raw_mode(0o777);
        let top = rustix::fs::mkdirat(copy.dir(), copy.name(), mode)
            .and_then(|()| self.resolve.open(copy.dir(), copy.name(), AT))
            .map_err(|errno| publish_failed(job, errno))?;
        let mut parents = Parents::default();
        self.resolve.walk(source, ".", |entry: &Entry<'_>| {
            if entry.kind != FileType::RegularFile {
                return Ok(());
            }
            let parent = if entry.parent.is_empty() { "." } else { entry.parent };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let files = parents.make(self.resolve, &top, parent, &mut Vec::new()).and_then(|dir| {
                let open = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let from = rustix::fs::openat(entry.dir, entry.name, open, Mode::empty())?;
                let to = rustix::fs::openat(dir, entry.name, flags, Mode::from_raw_mode(0o666))?;
                Ok((File::from(from), File::from(to)))
            });
            let (from, to) = files.map_err(|errno| publish_failed(job, errno))?;
            std::io::copy(&mut &from, &mut &to)
                .map(drop)
                .map_err(|error| failed_io(format_args!("copy outputs of job {job}"), &error))
        })?;
        Ok(copy)
    }
}

fn publish_failed(job: &JobId, errno: Errno) -> StorageError {
    failed(format_args!("publish outputs of job {job}"), errno)
}
