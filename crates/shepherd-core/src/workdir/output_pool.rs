//! Where outputs go that were read: the flock's common place for files that the
//! storage may take.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use shepherd_job::{JobId, ObjectPath};

use super::is_plain;

/// The pool's name in the data root; no sheep's id begins with a dot.
pub(crate) const OUTPUT_POOL: &str = ".attic";

/// The pool of a data root.
#[derive(Debug)]
pub(crate) struct OutputPool {
    pub(super) path: PathBuf,
    pub(super) dir: OwnedFd,
}

impl OutputPool {
    /// Makes the pool of a data root.
    pub(crate) fn open(data_root: &Path) -> io::Result<Self> {
        let path = data_root.join(OUTPUT_POOL);
        std::fs::create_dir_all(&path)?;
        let dir = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path, dir })
    }

    /// Where the file of this output would be, if it was put here.
    pub(crate) fn path_of(&self, job: &JobId, output: &ObjectPath) -> Option<PathBuf> {
        let name = output.as_str().strip_prefix("outputs/").filter(|name| is_plain(name))?;
        Self::name(job, name.as_bytes()).map(|name| self.path.join(OsStr::from_bytes(&name)))
    }

    /// No job id holds a `~`, so no two outputs share a name.
    fn name(job: &JobId, output: &[u8]) -> Option<Vec<u8>> {
        let name = [job.as_str().as_bytes(), b"~", output].concat();
        (name.len() <= 255).then_some(name)
    }

    /// Takes the file, or removes it, if it can.
    pub(super) fn store(&self, job: &JobId, dir: &OwnedFd, output: &CStr) {
        if let Some(name) = Self::name(job, output.to_bytes())
            && rustix::fs::renameat(dir, output, &self.dir, name.as_slice()).is_ok()
        {
            return;
        }
        let _ = rustix::fs::unlinkat(dir, output, AtFlags::empty());
    }
}
