//! Objects as files of a local directory.
//!
//! # Layout
//! ```text
//! DIR/<job_id>/inputs/input          an object is a file, its key is its path
//! DIR/<job_id>/.shepherd-keys/=...   keys that cannot be paths, encoded
//! DIR/.shepherd/tmp/<process>/...    what is being written or removed
//! DIR/.shepherd/uploads/<id>/...     parts of objects to be (`buckets::uploads`)
//! ```
//! Whatever regular file lies in a job's directory is an object at once, so a
//! person or a script may put files there and read them. Directories are no
//! objects, and neither are symbolic links, pipes and devices: no link is ever
//! followed. A key that is no path, or that the file system refuses (too long a
//! name, `a` beside `a/b`), is kept encoded; a file at the key's own path goes
//! before it. The directory's file system must tell upper from lower case.
//!
//! # What is whole, and when it is durable
//! Every object is written aside and renamed to its place, so that a reader sees
//! all of it or the one before. Nothing is synced on the way: until
//! [`sync`](Storage::sync) returned, a power cut may leave an object missing, old,
//! or short, and whoever stored it must store it again (the queue keeps what is
//! not synced yet). A failing sync says that this is so, too.
//!
//! # What it shares with runners
//! A staged input is a file of the runner's own, unless the storage is opened with
//! [`Staging::Share`]: then it may be a hard link to the stored file, which a runner may
//! read, rename or delete; one that *writes into* it changes the stored object. Published outputs are the runner's
//! own files: what a process of it still writes after its job ended is written
//! into the object. With a stranger ([`Trust::Untrusted`](crate::Trust)) nothing is
//! shared: it gets copies, and its files are copied.
//!
//! # Where things are done
//! All work blocks, and is done on tokio's blocking threads, one call at a time
//! for as many files as the call has. A directory costs more than a file here
//! (`mkdir` as much as two of them): none is made that exists. And nothing is
//! deleted that need not be: ext4 does not give out an inode again within seconds
//! of its deletion and searches past all of those, which after some ten thousand
//! deletions makes each creation ten times as dear. So what is published or
//! replaced as a whole is renamed.

mod attributes;
mod buckets;
mod copying;
mod disk;
mod fault;
mod get;
mod key;
mod list;
mod outputs;
mod place;
mod publish;
mod put;
mod removal;
mod resolve;
mod stage;
mod sync;
mod temp;
#[cfg(test)]
mod tests;
mod whole;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use shepherd_job::{JobId, ObjectPath};
use tokio::task::{JoinError, JoinHandle};

pub use self::attributes::{Attributes, Described};
pub use self::buckets::{
    Bucket, BucketError, Buckets, Completion, Condition, Content, Inspect, Part, Source, Upload,
};
use self::disk::Disk;
pub(crate) use self::outputs::{Output, Outputs};
pub(crate) use self::place::Places;
pub use self::removal::remove_all;
use self::sync::Group;
use crate::{
    Body, JobObjects, Object, ObjectMeta, Replaces, Result, RunnerDir, SmallObjects, Storage, StorageError,
    Transfer,
};

/// Up to how many bytes of a job ride in the queue's commit.
const MAX_SMALL_BYTES: usize = 64 << 10;

/// How inputs reach a runner's directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Staging {
    /// As a clone that shares blocks where the file system can, or else as a copy: a
    /// runner may change its inputs in place.
    #[default]
    Copy,
    /// Without a copy: as a clone, or else as a hard link. A runner that writes into its
    /// input changes the stored object.
    Share,
}

/// A [`Storage`] in a local directory.
pub struct LocalStorage {
    disk: Arc<Disk>,
    syncs: Group,
}

impl LocalStorage {
    /// Opens the storage in `dir`, which is created where it is missing, and clears
    /// what earlier processes left half done. Blocks meanwhile. Several processes
    /// may have it open.
    ///
    /// # Errors
    /// [`StorageError::Denied`] or [`StorageError::Full`] when the directory cannot
    /// be written, [`StorageError::Unavailable`] when it cannot be used otherwise.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::with(dir, Staging::default())
    }

    /// The same, with a choice of how inputs reach runners.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with(dir: &Path, staging: Staging) -> Result<Self> {
        Ok(Self::over(Disk { staging, ..Disk::open(dir, None)? }))
    }

    fn over(disk: Disk) -> Self {
        Self { disk: Arc::new(disk), syncs: Group::default() }
    }

    /// Runs `call` on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        blocking(&self.disk, call).await
    }
}

async fn blocking<T: Send + 'static>(
    disk: &Arc<Disk>,
    call: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
) -> Result<T> {
    let disk = Arc::clone(disk);
    match tokio::task::spawn_blocking(move || call(&disk)).await {
        Ok(outcome) => outcome,
        Err(error) => Err(stopped(error)),
    }
}

/// The outcome of blocking work that was started, if it was.
async fn joined<T>(work: Option<JoinHandle<Result<T>>>) -> Result<Option<T>> {
    match work {
        None => Ok(None),
        Some(work) => match work.await {
            Ok(outcome) => outcome.map(Some),
            Err(error) => Err(stopped(error)),
        },
    }
}

fn stopped(error: JoinError) -> StorageError {
    if error.is_panic() {
        std::panic::resume_unwind(error.into_panic());
    }
    StorageError::Unavailable("the program is shutting down".to_owned())
}

#[async_trait]
impl Storage for LocalStorage {
    fn small_objects(&self) -> SmallObjects {
        SmallObjects { inputs: MAX_SMALL_BYTES, outputs: MAX_SMALL_BYTES }
    }

    async fn contains(&self, job: &JobId) -> Result<bool> {
        let job = job.clone();
        self.run(move |disk| disk.contains(&job)).await
    }

    async fn contains_each(&self, jobs: &[JobId]) -> Vec<Result<bool>> {
        let owned = jobs.to_vec();
        let looked =
            self.run(move |disk| Ok(owned.iter().map(|job| disk.contains(job)).collect::<Vec<_>>())).await;
        looked.unwrap_or_else(|error| error.of_each(jobs.len()))
    }

    async fn put(&self, job: &JobId, path: &ObjectPath, body: Body) -> Result<ObjectMeta> {
        put::put(&self.disk, job, path, body).await
    }

    async fn put_small(&self, jobs: Vec<JobObjects>) -> Vec<Result<()>> {
        let count = jobs.len();
        let stored = self.run(move |disk| Ok(disk.put_small(&jobs))).await;
        stored.unwrap_or_else(|error| error.of_each(count))
    }

    async fn get(&self, job: &JobId, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Object> {
        let (job, path) = (job.clone(), path.clone());
        self.run(move |disk| disk.get(&job, &path, range)).await.map(Object::from)
    }

    async fn head(&self, job: &JobId, path: &ObjectPath) -> Result<ObjectMeta> {
        let (job, path) = (job.clone(), path.clone());
        self.run(move |disk| disk.head(&job, &path)).await
    }

    async fn list(
        &self,
        job: &JobId,
        prefix: &str,
        after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        let (job, prefix, after) = (job.clone(), prefix.to_owned(), after.cloned());
        self.run(move |disk| disk.list(&job, &prefix, after.as_ref().map(ObjectPath::as_str), limit)).await
    }

    async fn stage(&self, job: &JobId, to: &RunnerDir) -> Result<Transfer> {
        let (job, to) = (job.clone(), to.clone());
        self.run(move |disk| disk.stage(&job, &to)).await
    }

    async fn publish(&self, job: &JobId, from: &RunnerDir, _: Replaces) -> Result<Transfer> {
        let (job, from) = (job.clone(), from.clone());
        self.run(move |disk| disk.publish(&job, &from)).await
    }

    async fn sync(&self) -> Result<()> {
        let disk = Arc::clone(&self.disk);
        let flushed = self.syncs.run(move || disk.flush()).await;
        flushed.map_err(|errno| fault::failed(format_args!("sync {}", self.disk.path.display()), errno))
    }

    fn failed_syncs(&self) -> u64 {
        self.disk.changes.failed()
    }

    async fn remove(&self, job: &JobId) -> Result<()> {
        let job = job.clone();
        self.run(move |disk| disk.remove(&job)).await
    }

    async fn check(&self) -> Result<()> {
        self.run(Disk::check).await
    }
}
