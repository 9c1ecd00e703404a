//! Listing in the order of keys.
//!
//! A directory sorts as its name with a slash, which puts its keys where they
//! belong among its siblings (`a-b` before `a/b` before `ab`). Of each directory on
//! the way down at most as many names are held as the listing still needs.

use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::vec::IntoIter;

use rustix::fs::{AtFlags, Dir, FileType, OFlags};
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath};

use super::disk::{Disk, is_file, meta};
use super::fault::{failed, is_absent};
use super::key::{AREA, decoded, is_plain};
use super::resolve::{Entry, LIST, WalkError, join, kind};
use crate::{ObjectMeta, Result, StorageError};

/// Which keys a listing shows.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
}

impl Wanted<'_> {
    fn key(&self, key: &str) -> bool {
        key.starts_with(self.prefix) && self.after.is_none_or(|after| key > after)
    }

    /// Whether a key that begins with `dir`, which ends in a slash, may be wanted.
    fn below(&self, dir: &str) -> bool {
        (dir.starts_with(self.prefix) || self.prefix.starts_with(dir))
            && self.after.is_none_or(|after| dir > after || after.starts_with(dir))
    }
}

/// The smallest of many strings.
struct Smallest {
    heap: BinaryHeap<String>,
    limit: usize,
    left_out: bool,
}

impl Smallest {
    fn new(limit: usize) -> Self {
        Self { heap: BinaryHeap::new(), limit, left_out: false }
    }

    fn push(&mut self, text: String) {
        self.heap.push(text);
        if self.heap.len() > self.limit {
            self.heap.pop();
            self.left_out = true;
        }
    }
}

/// A directory on the way down.
struct Level {
    /// Its path below the job, empty for the job's own.
    path: String,
    /// Names in order; a directory's ends in a slash.
    names: IntoIter<String>,
    /// The last of them, when there are more after it.
    resume: Option<String>,
    /// The directory, while its files are looked at.
    dir: Option<OwnedFd>,
}

impl Disk {
    pub(super) fn list(
        &self,
        job: &JobId,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let wanted = Wanted { prefix, after };
        if limit == 0 {
            return Ok(Vec::new());
        }
        let plain = self.list_plain(job, wanted, limit)?;
        if !self.has_dir(&format!("{job}/{AREA}")) {
            return Ok(plain);
        }
        let encoded = self.list_encoded(job, wanted, limit)?;
        Ok(merge(plain, encoded, limit))
    }

    fn list_plain(&self, job: &JobId, wanted: Wanted<'_>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let mut found = Vec::new();
        let top = wanted.prefix.rsplit_once('/').map_or("", |(top, _)| top);
        if wanted.prefix.contains('/') && !is_plain(top) {
            return Ok(found);
        }
        let mut levels = vec![self.level(job, top.to_owned(), None, wanted, limit)?];
        while let Some(level) = levels.last_mut()
            && found.len() < limit
        {
            let left = limit - found.len();
            match level.names.next() {
                Some(name) => match name.strip_suffix('/') {
                    Some(dir) => {
                        level.dir = None;
                        let path = join(&level.path, dir);
                        levels.push(self.level(job, path, None, wanted, left)?);
                    }
                    None => found.extend(self.look(job, level, &name)?),
                },
                None => match level.resume.take() {
                    Some(resume) => {
                        let path = std::mem::take(&mut level.path);
                        *level = self.level(job, path, Some(&resume), wanted, left)?;
                    }
                    None => {
                        levels.pop();
                    }
                },
            }
        }
        Ok(found)
    }

    fn dir_of(&self, job: &JobId, path: &str) -> Result<Option<OwnedFd>> {
        match self.resolve.open(&self.root, join(job.as_str(), path).trim_end_matches('/'), LIST) {
            Ok(dir) => Ok(Some(dir)),
            Err(errno) if is_absent(errno) => Ok(None),
            Err(errno) => Err(list_failed(job, path, errno)),
        }
    }

    /// Reads the first names of a directory after `resume`.
    fn level(
        &self,
        job: &JobId,
        path: String,
        resume: Option<&str>,
        wanted: Wanted<'_>,
        limit: usize,
    ) -> Result<Level> {
        let mut names = Smallest::new(limit);
        let fail = |errno| list_failed(job, &path, errno);
        if let Some(dir) = self.dir_of(job, &path)? {
            let mut entries = Dir::new(dir).map_err(fail)?;
            let mut key = if path.is_empty() { String::new() } else { format!("{path}/") };
            let parent = key.len();
            while let Some(entry) = entries.read() {
                let entry = entry.map_err(fail)?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if matches!(name, "." | "..") || (parent == 0 && name == AREA) {
                    continue;
                }
                key.truncate(parent);
                key.push_str(name);
                // Before the kind, which may have to be asked for.
                if key.len() > 1024 {
                    continue;
                }
                let dir = entries.fd().map_err(fail)?;
                match kind(dir, entry.file_name(), entry.file_type()).map_err(fail)? {
                    Some(FileType::Directory) => key.push('/'),
                    Some(FileType::RegularFile) => {}
                    Some(_) | None => continue,
                }
                let wanted = if key.ends_with('/') { wanted.below(&key) } else { wanted.key(&key) };
                if wanted && resume.is_none_or(|resume| &key[parent..] > resume) {
                    names.push(key[parent..].to_owned());
                }
            }
        }
        let left_out = names.left_out;
        let names = names.heap.into_sorted_vec();
        let resume = if left_out { names.last().cloned() } else { None };
        Ok(Level { path, names: names.into_iter(), resume, dir: None })
    }

    /// What is known of a file in a directory; nothing when it is gone.
    fn look(&self, job: &JobId, level: &mut Level, name: &str) -> Result<Option<ObjectMeta>> {
        if level.dir.is_none() {
            level.dir = self.dir_of(job, &level.path)?;
        }
        let Some(dir) = &level.dir else { return Ok(None) };
        let key = join(&level.path, name);
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_file(&stat) => Ok(ObjectPath::parse(&key).ok().map(|path| meta(&path, &stat))),
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(list_failed(job, &key, errno)),
        }
    }

    fn list_encoded(&self, job: &JobId, wanted: Wanted<'_>, limit: usize) -> Result<Vec<ObjectMeta>> {
        let mut keys = Smallest::new(limit);
        self.encoded_keys(job, |key| {
            if wanted.key(key.as_str()) {
                keys.push(key.as_str().to_owned());
            }
        })?;
        let mut found = Vec::new();
        for key in keys.heap.into_sorted_vec() {
            let Ok(path) = ObjectPath::parse(&key) else { continue };
            match self.find(job, &key, OFlags::PATH) {
                Ok((_, stat)) => found.push(meta(&path, &stat)),
                Err(StorageError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Calls `visit` for every encoded key of a job, in no order. A file at the
    /// key's own path may go before the encoded one.
    pub(super) fn encoded_keys(&self, job: &JobId, mut visit: impl FnMut(ObjectPath)) -> Result<()> {
        self.resolve
            .walk(&self.root, &format!("{job}/{AREA}"), |entry: &Entry<'_>| {
                let key = (entry.kind == FileType::RegularFile).then(|| entry.path()).flatten();
                if let Some(key) = key.and_then(|path| decoded(&join(AREA, &path))) {
                    visit(key);
                }
                Ok(())
            })
            .map_err(|WalkError { path, errno }| list_failed(job, &join(AREA, &path), errno))
    }
}

/// The first of two listings together. A key in both is the same object.
fn merge(plain: Vec<ObjectMeta>, encoded: Vec<ObjectMeta>, limit: usize) -> Vec<ObjectMeta> {
    let mut all = plain;
    all.extend(encoded);
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all.dedup_by(|a, b| a.path == b.path);
    all.truncate(limit);
    all
}

fn list_failed(job: &JobId, path: &str, errno: Errno) -> StorageError {
    failed(format_args!("list {path:?} of job {job}"), errno)
}
