//! Where the data of jobs lies.
//!
//! One trait, [`Storage`]: objects by job and key, streamed with bounded memory.
//! [`LocalStorage`] keeps them as files in a directory, [`S3Storage`] in an S3
//! service. Neither knows anything of sheep or queues, or keeps any state of a job
//! beyond its objects.
//!
//! The suite in `contract` (feature `contract`) says what every backend must do,
//! and each backend runs it.
//!
//! ```
//! use futures::TryStreamExt as _;
//! use shepherd_job::{JobId, JobIdRule, ObjectPath};
//! use shepherd_storage::{LocalStorage, Storage, body};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let storage = LocalStorage::open(dir.path())?;
//! let job = JobId::parse("a-job", JobIdRule::Bucket)?;
//! let input = ObjectPath::parse("inputs/input")?;
//!
//! storage.put(&job, &input, body("hello")).await?;
//! storage.sync().await?;
//!
//! assert_eq!(std::fs::read(dir.path().join("a-job/inputs/input"))?, b"hello");
//! let object = storage.get(&job, &input, Some(1..4)).await?;
//! let pieces: Vec<_> = object.body.try_collect().await?;
//! assert_eq!(pieces.concat(), b"ell");
//! # Ok(())
//! # }
//! ```

#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod error;
mod local;
mod object;
mod runner_dir;
mod s3;
mod small;

/// A local storage's directory as buckets of objects, which is how S3 clients see it.
pub mod buckets {
    pub use crate::local::{
        Attributes, Bucket, BucketError, Buckets, Completion, Condition, Content, Described, Inspect, Part,
        Source, Upload,
    };
}

use std::ops::Range;

use async_trait::async_trait;
use shepherd_job::{JobId, ObjectPath};

pub use self::s3::{S3Credentials, S3Layout, S3Limits, S3Options, S3Storage};
pub use error::{Result, StorageError};
pub use local::{LocalStorage, Staging, remove_all};
pub use object::{Body, Object, ObjectMeta, body};
pub use runner_dir::{RunnerDir, Trust};
pub use small::{JobObjects, Put, SmallPut};

/// How many bytes of one job's small objects are best kept in the queue's own
/// commit, to be [`put_small`](Storage::put_small) later: where each object costs a
/// file or a request, and the commit is made anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SmallObjects {
    /// The largest sum of bytes of a job's inputs.
    pub inputs: usize,
    /// The largest sum of bytes of a job's outputs. Zero where clients read the
    /// storage by themselves: they must find them once the job is done.
    pub outputs: usize,
}

/// What publishing outputs may find in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// No attempt at this job came so far before: a storage need not look. What
    /// others put there may stay.
    Nothing,
    /// Outputs of an earlier attempt, whole or in part. They are removed.
    Earlier,
}

/// How much was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// How many objects.
    pub objects: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// Job data. Every backend passes the suite in `contract`.
#[async_trait]
pub trait Storage: Send + Sync + 'static {
    /// How small objects are best brought in.
    fn small_objects(&self) -> SmallObjects;

    /// Whether anything is stored for the job (on S3: whether its bucket exists).
    async fn contains(&self, job: &JobId) -> Result<bool>;

    /// [`contains`](Storage::contains) for each of many jobs, in the order given.
    async fn contains_each(&self, jobs: &[JobId]) -> Vec<Result<bool>> {
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            answers.push(self.contains(job).await);
        }
        answers
    }

    /// Makes the places of jobs where others are to find them before anything is stored
    /// there (on S3, buckets), in the order given; one that exists is no error. A job
    /// whose place needs no making has none.
    async fn make_homes(&self, jobs: &[JobId]) -> Vec<Result<()>> {
        jobs.iter().map(|_| Ok(())).collect()
    }

    /// Stores one object, in place of an older one. It becomes visible whole or
    /// not at all, and is durable after the next [`sync`](Storage::sync).
    async fn put(&self, job: &JobId, path: &ObjectPath, body: Body) -> Result<ObjectMeta>;

    /// Stores small objects of many jobs, each visible whole or not at all, durable after the
    /// next [`sync`](Storage::sync). Gives one outcome for each of `jobs`, in the order given:
    /// after an error some of that job's objects may be stored. A job may be named once only.
    async fn put_small(&self, jobs: Vec<JobObjects>) -> Vec<Result<()>>;

    /// Opens an object, or the part of it in `range` (clipped to its end). The
    /// range must begin before the object's end.
    async fn get(&self, job: &JobId, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Object>;

    /// What is known of an object.
    async fn head(&self, job: &JobId, path: &ObjectPath) -> Result<ObjectMeta>;

    /// Objects whose keys begin with `prefix` and come after `after`, in the
    /// order of their keys' bytes, at most `limit`. A job without any data has none.
    async fn list(
        &self,
        job: &JobId,
        prefix: &str,
        after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>>;

    /// Brings all objects below `inputs/` into the existing directory `to`, as
    /// files named by the rest of their keys. Costs no copy where the file system
    /// can do without; but a [stranger](Trust::Untrusted) gets files of its own, by
    /// which it cannot reach the objects. Nothing is placed outside `to`, whatever
    /// the keys hold, and whatever its runner does there meanwhile.
    ///
    /// A job without inputs, or without any data, gives an empty transfer. The
    /// empty object with a key that ends in `/`, by which S3 consoles mark a
    /// folder, becomes a directory. A file that stands in an object's place is
    /// replaced. After an error some objects may have been placed. Where `to` does
    /// not exist, this is [`StorageError::NotFound`].
    async fn stage(&self, job: &JobId, to: &RunnerDir) -> Result<Transfer>;

    /// Makes the files below `from` the job's objects below `outputs/`, in place of
    /// those that were there; `from` is empty or gone afterwards, unless its runner
    /// goes on filling it or may keep us from it. Objects made of a stranger's files
    /// are ours, and nothing that it has open reaches them. Symbolic links,
    /// special files and what may not be read are refused
    /// ([`StorageError::Invalid`]), and then nothing was changed. After any other
    /// error some outputs may be in place, and the same call may be repeated.
    /// Durable after the next [`sync`](Storage::sync). Where `from` does not exist,
    /// this is [`StorageError::NotFound`].
    async fn publish(&self, job: &JobId, from: &RunnerDir, replaces: Replaces) -> Result<Transfer>;

    /// Makes everything durable that was stored by calls that returned before this
    /// one began. Calls that arrive together share the work.
    ///
    /// After an error it is unknown what of it is durable: store it again.
    async fn sync(&self) -> Result<()>;

    /// How many syncs have failed. The system tells the loss of a write to one sync only,
    /// whoever wrote: who finds another number after its own sync than before it began to
    /// store must store again.
    fn failed_syncs(&self) -> u64 {
        0
    }

    /// Removes all of a job's data; none is no error.
    async fn remove(&self, job: &JobId) -> Result<()>;

    /// Whether the storage answers and can be written.
    async fn check(&self) -> Result<()>;
}
