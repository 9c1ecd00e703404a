//! Storing all of a job that has nothing yet: its directory is made aside and renamed into place
//! at once. That takes a third of the system calls that one object after another does, and shows
//! all of the job or nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;

use rustix::fs::{AtFlags, OFlags, RenameFlags};
use rustix::io::{Errno, Result};
use shepherd_job::JobId;

use super::disk::Disk;
use super::key::is_plain;
use super::resolve::DIR_MODE;
use super::temp::{FILE_MODE, Temp};
use crate::{Put, SmallPut};

impl Disk {
    /// Stores the objects as all that the job has. False, and nothing is stored, where it has
    /// something already, where its objects need more care, or where something fails: then one
    /// object after another shows why.
    pub(super) fn put_whole(&self, job: &JobId, objects: &[SmallPut]) -> bool {
        let makes_data = objects.first().is_some_and(|object| object.how != Put::Beside);
        let is_new = || {
            rustix::fs::statat(&self.root, job.as_str(), AtFlags::SYMLINK_NOFOLLOW).err()
                == Some(Errno::NOENT)
        };
        if !makes_data || !objects.iter().all(|object| is_plain(object.path.as_str())) || !is_new() {
            return false;
        }
        let temp = self.temps.reserve();
        let placed = self.fill(&temp, objects).and_then(|()| {
            rustix::fs::renameat_with(
                temp.dir(),
                temp.name(),
                &self.root,
                job.as_str(),
                RenameFlags::NOREPLACE,
            )
        });
        if placed.is_ok() {
            temp.placed();
            self.changes.note();
        }
        placed.is_ok()
    }

    fn fill(&self, temp: &Temp, objects: &[SmallPut]) -> Result<()> {
        rustix::fs::mkdirat(temp.dir(), temp.name(), DIR_MODE)?;
        let mut made = HashSet::new();
        for SmallPut { path, bytes, how } in objects {
            // Nobody else makes anything here, so no name is a link.
            let key = path.as_str();
            for (end, _) in key.match_indices('/') {
                if made.insert(&key[..end]) {
                    rustix::fs::mkdirat(temp.dir(), format!("{}/{}", temp.name(), &key[..end]), DIR_MODE)?;
                }
            }
            let place = format!("{}/{key}", temp.name());
            if let Put::Adopt(file) = how
                && self.temps.take_to(file, bytes.len(), &place)
            {
                continue;
            }
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(temp.dir(), &place, flags, FILE_MODE)?;
            File::from(file)
                .write_all(bytes)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        Ok(())
    }
}
