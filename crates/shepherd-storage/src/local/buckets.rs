//! The directory as buckets of objects, which is how S3 clients see it.
//!
//! A bucket is a job's directory. Against the [`Storage`](crate::Storage) trait,
//! where a job begins with its first object, a bucket is there once it was made and
//! until it was removed; an object has a tag and attributes ([`Described`]); and a
//! change may depend on what is there ([`Condition`]).
//!
//! # Races
//! An object is placed by way of its bucket's open directory, and a bucket is
//! removed by `rmdir`: of a put and a removal that meet, one wins, and a put that
//! lost says [`BucketError::NoBucket`]. Nothing is ever deleted to make a bucket
//! empty but directories, which are no objects.
//!
//! A condition is looked at and the change made under a lock of the key, which all
//! changes made here take. Files that are put in by other ways are seen, but may
//! come between the two.

mod gate;
mod incoming;
mod objects;
mod uploads;

use std::error::Error;
use std::hash::{BuildHasher as _, RandomState};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use shepherd_job::{JobId, JobIdRule, ObjectPath, Timestamp};

use self::gate::Gate;
pub use self::incoming::{Content, Inspect};
pub use self::objects::Source;
pub use self::uploads::{Completion, Part, Upload};
use super::attributes::Described;
use super::disk::Disk;
use super::fault::{failed, is_absent};
use super::resolve::{AT, LIST, kind};
use super::sync::Group;
use super::{LocalStorage, blocking};
use crate::{ObjectMeta, StorageError};

/// How many locks the keys share.
const LOCKS: usize = 64;

/// What stopped a call, by what the caller can say about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BucketError {
    /// There is no such bucket.
    #[error("no such bucket")]
    NoBucket,
    /// There is no such object.
    #[error("no such object")]
    NoObject,
    /// There is no such upload.
    #[error("no such upload")]
    NoUpload,
    /// The bucket is there already.
    #[error("the bucket exists")]
    Exists,
    /// Something is in the bucket.
    #[error("the bucket is not empty")]
    NotEmpty,
    /// The condition does not hold; nothing was changed.
    #[error("the condition does not hold")]
    Unmet,
    /// A part is not there, or is another than was named.
    #[error("part {0} is not there, or has another tag")]
    NoPart(u32),
    /// Parts are not in the order of their numbers.
    #[error("part {0} is out of order")]
    PartOrder(u32),
    /// A part that is not the last is too small.
    #[error("part {0} is too small")]
    PartTooSmall(u32),
    /// The range lies outside the object, whose size this is.
    #[error("the range is outside the object's {0} bytes")]
    Range(u64),
    /// Who looked at the bytes ([`Inspect`]) refused them; nothing was changed.
    #[error("refused: {0}")]
    Refused(Box<dyn Error + Send + Sync>),
    /// Anything else.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The results of this module.
pub(super) type Result<T> = std::result::Result<T, BucketError>;

/// What must hold for a change to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// No object has the key.
    Absent,
    /// An object has the key.
    Present,
    /// The object has this tag.
    Tag(String),
}

/// A bucket, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its name, which is the job's.
    pub name: JobId,
    /// When it was made, as far as the file system knows.
    pub made: Timestamp,
}

/// The storage's buckets. Cheap to clone.
///
/// What changes a bucket or an object is durable when it returns without an error;
/// after an error of the storage it may have been done, and may be lost. Parts of
/// uploads are durable once their upload is complete.
#[derive(Clone)]
pub struct Buckets {
    disk: Arc<Disk>,
    syncs: Group,
    gate: Arc<Gate>,
}

impl LocalStorage {
    /// The same directory as buckets.
    pub fn buckets(&self) -> Buckets {
        Buckets { disk: Arc::clone(&self.disk), syncs: self.syncs.clone(), gate: Arc::default() }
    }
}

impl Buckets {
    /// Whether the file system keeps [`Attributes`](crate::buckets::Attributes).
    ///
    /// # Errors
    /// [`BucketError::Storage`].
    pub async fn keeps_attributes(&self) -> Result<bool> {
        self.run(|disk| Ok(disk.keeps_attributes()?)).await
    }

    /// Makes a bucket.
    ///
    /// # Errors
    /// [`BucketError::Exists`].
    pub async fn make(&self, bucket: &JobId) -> Result<()> {
        let bucket = bucket.clone();
        self.change(move |disk| disk.make_bucket(&bucket)).await
    }

    /// Looks for a bucket.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`].
    pub async fn find(&self, bucket: &JobId) -> Result<Bucket> {
        let bucket = bucket.clone();
        self.run(move |disk| disk.bucket(&bucket)).await
    }

    /// All buckets, in the order of their names.
    ///
    /// # Errors
    /// [`BucketError::Storage`].
    pub async fn all(&self) -> Result<Vec<Bucket>> {
        self.run(Disk::buckets).await
    }

    /// Removes a bucket in which no objects are, and the uploads into it.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`], [`BucketError::NotEmpty`].
    pub async fn remove(&self, bucket: &JobId) -> Result<()> {
        let bucket = bucket.clone();
        self.change(move |disk| disk.remove_bucket(&bucket)).await
    }

    /// Objects as [`Storage::list`](crate::Storage::list) has them, of a bucket
    /// that must exist.
    ///
    /// # Errors
    /// [`BucketError::NoBucket`].
    pub async fn list(
        &self,
        bucket: &JobId,
        prefix: &str,
        after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let (bucket, prefix, after) = (bucket.clone(), prefix.to_owned(), after.cloned());
        self.run(move |disk| {
            disk.open_bucket(&bucket)?;
            Ok(disk.list(&bucket, &prefix, after.as_ref().map(ObjectPath::as_str), limit)?)
        })
        .await
    }

    /// Runs `call` on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(&self.disk, move |disk| Ok(call(disk))).await?
    }

    /// Runs `call` on a blocking thread, and returns once what it did is durable.
    async fn change<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (syncs, gate) = (self.syncs.clone(), Arc::clone(&self.gate));
        let (outcome, flushed, failed_before) = blocking(&self.disk, move |disk| {
            let failed_before = disk.changes.failed();
            let outcome = call(disk);
            let flushed = match &outcome {
                Ok(_) => gate.pass(|| syncs.run_here(|| disk.flush())),
                // There is nothing to keep.
                Err(_) => Some(Ok(())),
            };
            Ok((outcome, flushed, failed_before))
        })
        .await?;
        let flushed = match flushed {
            Some(flushed) => flushed,
            None => {
                let disk = Arc::clone(&self.disk);
                self.syncs.run(move || disk.flush()).await
            }
        };
        let flushed = flushed.and_then(|()| match self.disk.changes.failed() {
            now if now == failed_before => Ok(()),
            // What was changed may have been lost with a sync that somebody else was told of.
            _ => Err(Errno::IO),
        });
        flushed.map_err(|errno| failed(format_args!("sync {}", self.disk.path.display()), errno))?;
        outcome
    }
}

/// Locks for keys. Different keys may share one.
pub(super) struct Locks {
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
}

impl Default for Locks {
    fn default() -> Self {
        Self { locks: [const { Mutex::new(()) }; LOCKS], hasher: RandomState::new() }
    }
}

impl Locks {
    fn lock(&self, bucket: &JobId, key: &ObjectPath) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one((bucket.as_str(), key.as_str()));
        let index = usize::try_from(hash % LOCKS as u64).unwrap_or(0);
        // It guards no data that a panic could have left half changed.
        self.locks[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    fn make_bucket(&self, bucket: &JobId) -> Result<()> {
        match rustix::fs::mkdirat(&self.root, bucket.as_str(), Mode::from_raw_mode(0o777)) {
            Ok(()) => {
                self.changes.note();
                Ok(())
            }
            Err(Errno::EXIST) => Err(BucketError::Exists),
            Err(errno) => Err(failed(format_args!("make the bucket {bucket}"), errno).into()),
        }
    }

    fn open_bucket(&self, bucket: &JobId) -> Result<OwnedFd> {
        match self.resolve.open(&self.root, bucket.as_str(), AT) {
            Ok(dir) => Ok(dir),
            Err(errno) if is_absent(errno) => Err(BucketError::NoBucket),
            Err(errno) => Err(failed(format_args!("open the bucket {bucket}"), errno).into()),
        }
    }

    fn bucket(&self, bucket: &JobId) -> Result<Bucket> {
        let dir = self.open_bucket(bucket)?;
        let wanted = StatxFlags::BTIME | StatxFlags::MTIME;
        let stat = rustix::fs::statx(&dir, "", AtFlags::EMPTY_PATH, wanted)
            .map_err(|errno| failed(format_args!("look at the bucket {bucket}"), errno))?;
        // Not every file system knows when a directory was made.
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let time = if has_birth { stat.stx_btime } else { stat.stx_mtime };
        let micros = time.tv_sec.saturating_mul(1_000_000).saturating_add(i64::from(time.tv_nsec / 1000));
        Ok(Bucket { name: bucket.clone(), made: Timestamp::from_micros(micros) })
    }

    fn buckets(&self) -> Result<Vec<Bucket>> {
        let fail = |errno| failed(format_args!("list {}", self.path.display()), errno);
        let mut entries = self.resolve.open(&self.root, ".", LIST).and_then(Dir::new).map_err(fail)?;
        let mut found = Vec::new();
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_str().ok();
            let Some(bucket) = name.and_then(|name| JobId::parse(name, JobIdRule::Bucket).ok()) else {
                continue;
            };
            let dir = entries.fd().map_err(fail)?;
            if kind(dir, entry.file_name(), entry.file_type()).map_err(fail)? != Some(FileType::Directory) {
                continue;
            }
            match self.bucket(&bucket) {
                Ok(bucket) => found.push(bucket),
                Err(BucketError::NoBucket) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn remove_bucket(&self, bucket: &JobId) -> Result<()> {
        let dir = self.open_bucket(bucket)?;
        if !self.list(bucket, "", None, 1)?.is_empty() {
            return Err(BucketError::NotEmpty);
        }
        // Of what is no object, only directories are in nobody's way.
        let mut dirs = Vec::new();
        self.resolve.walk(&dir, ".", |entry| match (entry.kind, entry.path()) {
            (FileType::Directory, Some(path)) => {
                dirs.push(path);
                Ok(())
            }
            (_, _) => Err(BucketError::NotEmpty),
        })?;
        let fail = |errno| match errno {
            Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR => BucketError::NotEmpty,
            Errno::NOENT => BucketError::NoBucket,
            errno => failed(format_args!("remove the bucket {bucket}"), errno).into(),
        };
        for path in dirs.iter().rev() {
            match self.resolve.unlink(&dir, path, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(fail(errno)),
            }
        }
        rustix::fs::unlinkat(&self.root, bucket.as_str(), AtFlags::REMOVEDIR).map_err(fail)?;
        self.changes.note();
        self.abort_uploads(bucket);
        Ok(())
    }

    /// Whether the condition holds for what is there now.
    fn holds(&self, condition: &Condition, bucket: &JobId, key: &ObjectPath) -> Result<()> {
        let present = || match self.find(bucket, key.as_str(), OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(StorageError::NotFound) => Ok(false),
            Err(error) => Err(BucketError::Storage(error)),
        };
        match condition {
            Condition::Always => Ok(()),
            Condition::Absent if present()? => Err(BucketError::Unmet),
            Condition::Absent => Ok(()),
            Condition::Present if present()? => Ok(()),
            Condition::Present => Err(BucketError::NoObject),
            Condition::Tag(tag) => {
                let Described { tag: current, .. } = self.describe(bucket, key)?;
                if current == *tag { Ok(()) } else { Err(BucketError::Unmet) }
            }
        }
    }
}

impl From<super::resolve::WalkError> for BucketError {
    fn from(error: super::resolve::WalkError) -> Self {
        Self::Storage(error.into())
    }
}

/// An object that is not there is not a bucket that is not there: which it is
/// depends on the bucket.
fn missing(disk: &Disk, bucket: &JobId, error: StorageError) -> BucketError {
    match error {
        StorageError::NotFound => match disk.open_bucket(bucket) {
            Ok(_) => BucketError::NoObject,
            Err(error) => error,
        },
        StorageError::Range { size } => BucketError::Range(size),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests;
