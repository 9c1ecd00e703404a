//! Objects in an S3 service.
//!
//! # Layout
//! ```text
//! bucket per job   s3://<job_id>/inputs/input           the first shepherd's
//! prefix           s3://BUCKET/PREFIX/<job_id>/inputs/input
//! ```
//! With a bucket per job, the bucket is made by the first object that is stored
//! when it is missing, and a job without a bucket has no data. What is known of
//! buckets is remembered to save requests, never to answer.
//!
//! # Requests
//! ```text
//! contains                 1   list, at most one key
//! make_homes               1   none with a prefix, or where the bucket was seen
//! put, up to `part` bytes  1   more when the bucket is missing: it is made first
//! get, head                1
//! stage                    1 + inputs that are not empty (and 1 more a thousand)
//! publish                  outputs; with earlier ones to replace, 3 more: list
//!                          uploads, list outputs, remove what is left over
//! sync                     0
//! ```
//! Requests are signed by rust-s3 and sent by one client with one pool of
//! connections (`wire` says why not by rust-s3's own). Nothing is opened before the
//! first request: a daemon starts while its store is away.
//!
//! # Tries and times
//! What may pass is tried again, further and further apart and with jitter, for a
//! bounded time; callers that can wait come back themselves. A body has no limit
//! as a whole, only on standing still. A reading that breaks off goes on where it
//! ended, if the object is the same; a part of a large object is sent again alone.
//!
//! # What is whole, and when it is durable
//! A server shows an object whole or not at all, and keeps it when it says 200.
//! What is to replace nothing is put on the condition that nothing is there; a
//! service that knows no such condition replaces it.
//! Outputs come one by one, and those that are published again are replaced one by
//! one: whoever must see all of them waits for the job to be done.
//!
//! # Keys
//! Every key but one with a segment `.` or `..`, which no URL can hold: storing
//! such a one is refused.
//!
//! # Memory
//! Bodies that are being stored are held part by part until each is acknowledged,
//! within a bound for the whole storage. Files, and what is read, pass through.

mod fault;
mod get;
mod hints;
mod http;
mod key_encoding;
mod layout;
mod list;
mod multipart;
mod options;
mod payload;
mod publish;
mod put;
mod remove;
mod retry;
mod sign;
mod source;
mod stage;
mod store;
mod xml;

use std::ops::Range;
use std::sync::Arc;

use ::http::Method;
use async_trait::async_trait;
use shepherd_job::{JobId, ObjectPath};
use tokio::task::JoinHandle;

use self::fault::{Fault, Kind};
use self::hints::Hint;
use self::http::Call;
use self::layout::{Home, Layout};
pub use self::options::{S3Credentials, S3Layout, S3Limits, S3Options};
use self::retry::Tries;
use self::store::Store;
use crate::{
    Body, JobObjects, Object, ObjectMeta, Replaces, Result, RunnerDir, SmallObjects, Storage, StorageError,
    Transfer,
};

/// Up to how many bytes of a job's inputs ride in the queue's commit: a request
/// costs more.
const MAX_SMALL_BYTES: usize = 64 << 10;

/// A [`Storage`] in an S3 service.
pub struct S3Storage {
    store: Arc<Store>,
    /// A bucket that nobody has.
    nobody: String,
}

impl S3Storage {
    /// Sets the storage up. Nothing is sent: whether the server is there, and takes
    /// the credentials, [`check`](Storage::check) tells.
    ///
    /// # Errors
    /// [`StorageError::Invalid`] when the options cannot be meant.
    pub fn open(options: &S3Options) -> Result<Self> {
        let nobody = format!("shepherd-check-{}", uuid::Uuid::now_v7().simple());
        Ok(Self { store: Arc::new(Store::open(options)?), nobody })
    }
}

#[async_trait]
impl Storage for S3Storage {
    fn small_objects(&self) -> SmallObjects {
        // Clients read outputs by themselves, so those must be there.
        SmallObjects { inputs: MAX_SMALL_BYTES, outputs: 0 }
    }

    async fn contains(&self, job: &JobId) -> Result<bool> {
        contains(&self.store, job).await
    }

    async fn contains_each(&self, jobs: &[JobId]) -> Vec<Result<bool>> {
        put::contains_each(&self.store, jobs).await
    }

    async fn make_homes(&self, jobs: &[JobId]) -> Vec<Result<()>> {
        put::make_homes(&self.store, jobs).await
    }

    async fn put(&self, job: &JobId, path: &ObjectPath, body: Body) -> Result<ObjectMeta> {
        put::put(&self.store, self.store.home(job), path, body).await
    }

    async fn put_small(&self, jobs: Vec<JobObjects>) -> Vec<Result<()>> {
        put::put_small(&self.store, jobs).await
    }

    async fn get(&self, job: &JobId, path: &ObjectPath, range: Option<Range<u64>>) -> Result<Object> {
        get::get(&self.store, self.store.home(job), path, range).await
    }

    async fn head(&self, job: &JobId, path: &ObjectPath) -> Result<ObjectMeta> {
        get::head(&self.store, &self.store.home(job), path).await
    }

    async fn list(
        &self,
        job: &JobId,
        prefix: &str,
        after: Option<&ObjectPath>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>> {
        list::list(&self.store, &self.store.home(job), prefix, after, limit).await
    }

    async fn stage(&self, job: &JobId, to: &RunnerDir) -> Result<Transfer> {
        stage::stage(&self.store, self.store.home(job), to).await
    }

    async fn publish(&self, job: &JobId, from: &RunnerDir, replaces: Replaces) -> Result<Transfer> {
        publish::publish(&self.store, self.store.home(job), from, replaces).await
    }

    async fn sync(&self) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, job: &JobId) -> Result<()> {
        remove::job(&self.store, &self.store.home(job)).await
    }

    async fn check(&self) -> Result<()> {
        let store = &self.store;
        // No client waits for this: a slow service is none that is away.
        let mut tries = Tries::for_(store.http.limits.answer / 2);
        let (bucket, own) = match &store.layout {
            Layout::BucketPerJob => (&self.nobody, true),
            Layout::Prefix { bucket, .. } => (bucket, false),
        };
        let home = Home { bucket: bucket.clone(), prefix: String::new(), own };
        let fail = |fault: Fault| Err(fault.of("ask the storage"));
        match store.ask(&home, &one_key(&home), &mut tries).await {
            Ok(_) => Ok(()),
            Err(fault) if fault.kind == Kind::NoBucket => Ok(()),
            // So servers speak of keys that they do not know, and others of buckets
            // that are not ours.
            Err(fault) if own && fault.code == "AccessDenied" => {
                match store.ask(&home, &Call::bucket(Method::GET, ""), &mut tries).await {
                    Ok(_) => Ok(()),
                    Err(_) => fail(fault),
                }
            }
            Err(fault) => fail(fault),
        }
    }
}

/// Asks for one key of the job.
fn one_key(home: &Home) -> Call {
    Call::bucket(Method::GET, &home.bucket)
        .query("list-type", "2")
        .query("max-keys", "1")
        .query("prefix", &*home.prefix)
}

async fn contains(store: &Store, job: &JobId) -> Result<bool> {
    let home = store.home(job);
    let mut tries = store.ask_tries();
    match store.ask(&home, &one_key(&home), &mut tries).await {
        Ok(_) if home.own => {
            store.hints.set(&home.bucket, Hint::There);
            Ok(true)
        }
        Ok(text) => Ok(xml::Element::parse(&text).is_some_and(|root| root.all("Contents").next().is_some())),
        Err(fault) if fault.kind == Kind::NoBucket => Ok(false),
        Err(fault) => Err(fault.of(format_args!("look for {}/{}", home.bucket, home.prefix))),
    }
}

/// The outcome of work on another thread. It is not ended by dropping this.
async fn joined<T>(work: JoinHandle<Result<T>>) -> Result<T> {
    match work.await {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StorageError::Unavailable("the program is shutting down".to_owned())),
    }
}
