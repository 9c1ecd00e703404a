//! Objects with their tags and attributes.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use shepherd_job::{JobId, ObjectPath};

use super::incoming::Content;
use super::{BucketError, Buckets, Condition, Result, missing};
use crate::local::attributes::{
    Attributes, Described, UPLOAD, describe, hash, is_of_bytes, record, unreadable,
};
use crate::local::disk::Disk;
use crate::local::fault::{failed, failed_io, is_absent, is_refused};
use crate::local::key::{encoded, is_plain, split};
use crate::local::resolve::{AT, Parents, READ};
use crate::local::temp::Temp;
use crate::{Object, StorageError};

/// How often a placing is tried while others remove the directories under it.
const MAX_PLACE_TRIES: usize = 16;

/// What a copy is made from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its bucket.
    pub bucket: JobId,
    /// Its key.
    pub key: ObjectPath,
}

impl Buckets {
    /// What is known of an object.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], [`BucketError::NoObject`].
    pub async fn describe(&self, bucket: &JobId, key: &ObjectPath) -> Result<Described> {
        let (bucket, key) = (bucket.clone(), key.clone());
        self.run(move |disk| disk.describe(&bucket, &key)).await
    }

    /// What is known of each of many; those that are gone are left out.
    ///
    /// # Errors
    /// [`BucketError::Storage`].
    pub async fn describe_each(&self, bucket: &JobId, keys: Vec<ObjectPath>) -> Result<Vec<Described>> {
        let bucket = bucket.clone();
        self.run(move |disk| {
            let mut known = Vec::with_capacity(keys.len());
            for key in keys {
                match disk.describe(&bucket, &key) {
                    Ok(described) => known.push(described),
                    Err(BucketError::NoObject | BucketError::NoBucket) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(known)
        })
        .await
    }

    /// Opens an object; `choose` says which part of it is wanted, all of it by none,
    /// or why it is not wanted at all.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], [`BucketError::NoObject`], [`BucketError::Range`].
    pub async fn get<E: Send + 'static>(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        choose: impl FnOnce(&Described) -> std::result::Result<Option<Range<u64>>, E> + Send + 'static,
    ) -> Result<std::result::Result<(Described, Object), E>> {
        let (bucket, key) = (bucket.clone(), key.clone());
        self.run(move |disk| {
            let (file, stat) = disk.open_object(&bucket, &key)?;
            let described = describe(&key, &file, &stat)?;
            let range = match choose(&described) {
                Ok(range) => range,
                Err(unwanted) => return Ok(Err(unwanted)),
            };
            let opened = disk.opened(file, described.meta.clone(), range);
            Ok(Ok((described, opened.map_err(|error| missing(disk, &bucket, error))?.into())))
        })
        .await
    }

    /// Stores an object, whole or not at all.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], [`BucketError::Unmet`], [`BucketError::NoObject`]
    /// when the condition asks for one, [`BucketError::Refused`].
    pub async fn put(
        &self,
        bucket: &JobId,
        key: &ObjectPath,
        content: Content,
        condition: Condition,
    ) -> Result<Described> {
        if !content.is_small() {
            let (bucket, key, condition) = (bucket.clone(), key.clone(), condition.clone());
            self.run(move |disk| {
                disk.open_bucket(&bucket)?;
                disk.holds(&condition, &bucket, &key)
            })
            .await?;
        }
        let (incoming, part) = self.receive(content).await?;
        let (bucket, key) = (bucket.clone(), key.clone());
        self.change(move |disk| {
            let arrived = incoming.finish(disk, &part)?;
            let tag = record(&arrived.file, &arrived.md5, &arrived.attributes)?;
            disk.place_object(arrived.temp, &bucket, &key, &condition)?;
            disk.described(&key, &arrived.file, tag, arrived.attributes)
        })
        .await
    }

    /// Copies an object; `choose` gives the attributes of the copy, the source's by
    /// none, or says why there is to be none. What is known of the bytes goes with them.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], of either; [`BucketError::NoObject`].
    pub async fn copy<E: Send + 'static>(
        &self,
        from: Source,
        bucket: &JobId,
        key: &ObjectPath,
        condition: Condition,
        choose: impl FnOnce(&Described) -> std::result::Result<Option<Attributes>, E> + Send + 'static,
    ) -> Result<std::result::Result<Described, E>> {
        let (bucket, key) = (bucket.clone(), key.clone());
        self.change(move |disk| {
            disk.open_bucket(&bucket)?;
            let (source, stat) = disk.open_object(&from.bucket, &from.key)?;
            let known = describe(&from.key, &source, &stat)?;
            let attributes = match choose(&known) {
                Ok(attributes) => attributes.unwrap_or_else(|| known.attributes.clone()),
                Err(unwanted) => return Ok(Err(unwanted)),
            };
            let (temp, file) =
                disk.temps.create().map_err(|errno| failed("create a temporary file", errno))?;
            let source = File::from(source);
            let fail = |error: &std::io::Error| failed_io(format_args!("copy to {key:?} of {bucket}"), error);
            copy_whole(&source, &file).map_err(|error| fail(&error))?;
            let again =
                rustix::fs::fstat(&source).map_err(|errno| failed("look at a source again", errno))?;
            let unchanged = same(&stat, &again);
            let (tag, of_bytes) = if known.trusted && unchanged {
                let mut of_bytes = known.attributes;
                of_bytes.retain(is_of_bytes);
                (known.tag, of_bytes)
            } else {
                let mut copy = reopen(&file).map_err(|error| fail(&error))?;
                (hash(&mut copy).map_err(|error| fail(&error))?, Attributes::default())
            };
            let attributes = attributes.with(&of_bytes, |name| !is_of_bytes(name) && name != UPLOAD);
            let tag = record(&file, &tag, &attributes)?;
            disk.place_object(temp, &bucket, &key, &condition)?;
            disk.described(&key, &file, tag, attributes).map(Ok)
        })
        .await
    }

    /// Deletes an object; none is no error.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], [`BucketError::Unmet`].
    pub async fn delete(&self, bucket: &JobId, key: &ObjectPath, condition: Condition) -> Result<()> {
        let (bucket, key) = (bucket.clone(), key.clone());
        self.change(move |disk| disk.delete_object(&bucket, &key, &condition)).await
    }

    /// Deletes many objects. Outcomes are in the order given.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`].
    pub async fn delete_each(&self, bucket: &JobId, keys: Vec<ObjectPath>) -> Result<Vec<Result<()>>> {
        let bucket = bucket.clone();
        self.change(move |disk| {
            disk.open_bucket(&bucket)?;
            Ok(keys.iter().map(|key| disk.delete_object(&bucket, key, &Condition::Always)).collect())
        })
        .await
    }
}

impl Disk {
    pub(super) fn open_object(&self, bucket: &JobId, key: &ObjectPath) -> Result<(OwnedFd, Stat)> {
        self.find(bucket, key.as_str(), READ).map_err(|error| missing(self, bucket, error))
    }

    pub(super) fn describe(&self, bucket: &JobId, key: &ObjectPath) -> Result<Described> {
        match self.open_object(bucket, key) {
            Ok((file, stat)) => Ok(describe(key, &file, &stat)?),
            // That it is there and cannot be read must not spoil a whole listing.
            Err(BucketError::Storage(StorageError::Denied(_))) => {
                let found = self.find(bucket, key.as_str(), OFlags::PATH);
                let (_, stat) = found.map_err(|error| missing(self, bucket, error))?;
                Ok(unreadable(key, &stat))
            }
            Err(error) => Err(error),
        }
    }

    /// What is known of an object that was written just now.
    pub(super) fn described(
        &self,
        key: &ObjectPath,
        file: &File,
        tag: String,
        attributes: Attributes,
    ) -> Result<Described> {
        let stat = rustix::fs::fstat(file)
            .map_err(|errno| failed(format_args!("look at {key:?} in {}", self.path.display()), errno))?;
        Ok(Described { meta: crate::local::disk::meta(key, &stat), tag, trusted: true, attributes })
    }

    /// Puts a temporary in an object's place.
    pub(in crate::local) fn place_object(
        &self,
        temp: Temp,
        bucket: &JobId,
        key: &ObjectPath,
        condition: &Condition,
    ) -> Result<()> {
        let _lock = self.keys.lock(bucket, key);
        self.holds(condition, bucket, key)?;
        for _ in 0..MAX_PLACE_TRIES {
            let dir = self.open_bucket(bucket)?;
            match self.place_in(&dir, &temp, key.as_str()) {
                Ok(()) => {
                    temp.placed();
                    self.changes.note();
                    return Ok(());
                }
                // The bucket was removed meanwhile, and perhaps made again.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed(format_args!("store {key:?} in {bucket}"), errno).into()),
            }
        }
        Err(BucketError::NoBucket)
    }

    fn place_in(&self, bucket: &OwnedFd, temp: &Temp, key: &str) -> rustix::io::Result<()> {
        let mut parents = Parents::default();
        if is_plain(key) {
            match self.place_below(bucket, temp, key, &mut parents, RenameFlags::empty()) {
                Ok(_) => return self.unlink_in(bucket, &encoded(key)).map(drop),
                Err(errno) if is_refused(errno) => {}
                Err(errno) => return Err(errno),
            }
        }
        self.place_below(bucket, temp, &encoded(key), &mut parents, RenameFlags::empty()).map(drop)
    }

    fn delete_object(&self, bucket: &JobId, key: &ObjectPath, condition: &Condition) -> Result<()> {
        let _lock = self.keys.lock(bucket, key);
        let dir = self.open_bucket(bucket)?;
        self.holds(condition, bucket, key)?;
        let fail = |errno| failed(format_args!("delete {key:?} of {bucket}"), errno);
        let plain = is_plain(key.as_str()).then(|| key.as_str().to_owned());
        for path in plain.into_iter().chain([encoded(key.as_str())]) {
            if self.unlink_in(&dir, &path).map_err(fail)? {
                self.changes.note();
                self.prune(&dir, &path);
            }
        }
        Ok(())
    }

    /// Unlinks a regular file; false when none is there.
    fn unlink_in(&self, bucket: &OwnedFd, path: &str) -> rustix::io::Result<bool> {
        let (parent, name) = split(path);
        let unlinked = self.resolve.open(bucket, parent, AT).and_then(|dir| {
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Ok(false);
            }
            rustix::fs::unlinkat(dir, name, AtFlags::empty()).map(|()| true)
        });
        match unlinked {
            Err(errno) if is_absent(errno) => Ok(false),
            outcome => outcome,
        }
    }

    /// Removes the directories that an object's path needed and nothing else does: a
    /// key that is one of them could not be a path else.
    fn prune(&self, bucket: &OwnedFd, path: &str) {
        let mut parent = split(path).0;
        while parent != "." && self.resolve.unlink(bucket, parent, AtFlags::REMOVEDIR).is_ok() {
            parent = split(parent).0;
        }
    }
}

/// Copies a file, by sharing its blocks where that can be.
fn copy_whole(from: &File, to: &File) -> std::io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    copy_part(from, to, 0..u64::MAX).map(drop)
}

/// Appends a part of one file to another, inside the kernel where that can be.
pub(super) fn copy_part(from: &File, mut to: &File, range: Range<u64>) -> std::io::Result<u64> {
    let mut from = from;
    from.seek(SeekFrom::Start(range.start))?;
    std::io::copy(&mut from.take(range.end - range.start), &mut to)
}

/// The same file, from its beginning, to be read.
pub(super) fn reopen(file: &File) -> std::io::Result<File> {
    use std::os::fd::AsRawFd as _;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Whether a file was not written to between two looks at it.
fn same(a: &Stat, b: &Stat) -> bool {
    (a.st_size, a.st_mtime, a.st_mtime_nsec) == (b.st_size, b.st_mtime, b.st_mtime_nsec)
}
