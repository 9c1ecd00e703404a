//! What all calls share: the connections, the layout, what is known of buckets,
//! and the bounds on what is done at once.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use reqwest::Response;
use shepherd_job::JobId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::fault::{Fault, Kind};
use super::hints::{Hint, Hints};
use super::http::{Call, Http};
use super::key_encoding::KeyEncoding;
use super::layout::{Home, Layout};
use super::options::S3Options;
use super::payload::Payload;
use super::retry::Tries;
use crate::{Result, StorageError};

/// How often a bucket is made for one request: others may remove it again.
const MAKES: usize = 3;

/// Memory is counted in units of so many bytes.
const UNIT: usize = 64 << 10;

/// What is done about a missing bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is made.
    Make,
    /// It is the answer.
    Tell,
}

pub(super) struct Store {
    pub(super) http: Http,
    pub(super) layout: Layout,
    region: String,
    pub(super) hints: Hints,
    pub(super) key_encoding: KeyEncoding,
    /// Objects that are moved at once.
    turns: Arc<Semaphore>,
    /// Memory for bodies that are being stored.
    pub(super) memory: Memory,
    /// Multipart uploads, which end in order also when nobody waits for them.
    pub(super) uploads: TaskTracker,
}

impl Store {
    pub(super) fn open(options: &S3Options) -> Result<Self> {
        let limits = &options.limits;
        Ok(Self {
            http: Http::new(options)?,
            layout: Layout::new(&options.layout)?,
            region: options.region.clone(),
            hints: Hints::new(),
            key_encoding: KeyEncoding::default(),
            turns: Arc::new(Semaphore::new(limits.at_once.clamp(1, 1024))),
            memory: Memory::of(limits.held),
            uploads: TaskTracker::new(),
        })
    }

    pub(super) fn home(&self, job: &JobId) -> Home {
        self.layout.home(job)
    }

    /// Tries within the time that most requests have.
    pub(super) fn tries(&self) -> Tries {
        Tries::for_(self.http.limits.retry)
    }

    /// Tries within the time that a question has which a client waits for.
    pub(super) fn ask_tries(&self) -> Tries {
        Tries::for_(self.http.limits.ask)
    }

    /// A turn to move an object.
    pub(super) async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        acquire(&self.turns, 1).await
    }

    /// The answer to a small question.
    pub(super) async fn ask(
        &self,
        home: &Home,
        call: &Call,
        tries: &mut Tries,
    ) -> std::result::Result<String, Fault> {
        let answer = self.http.text(call, self.http.limits.answer, tries).await;
        answer.map_err(|fault| self.seen(home, fault))
    }

    /// Opens what a request gives.
    pub(super) async fn open_body(
        &self,
        home: &Home,
        call: &Call,
        tries: &mut Tries,
    ) -> std::result::Result<Response, Fault> {
        let answer = self.http.call(call, self.http.limits.answer, tries).await;
        answer.map_err(|fault| self.seen(home, fault))
    }

    /// Sends what is to be stored. A missing bucket that is the job's own is made
    /// first, if that is wanted.
    pub(super) async fn send(
        &self,
        home: &Home,
        call: &Call,
        missing: Missing,
    ) -> std::result::Result<Response, Fault> {
        let mut tries = self.tries();
        let makes = home.own && missing == Missing::Make;
        if makes && self.hints.get(&home.bucket) == Some(Hint::Missing) {
            self.make(home, &mut self.tries()).await?;
        }
        for _ in 0..MAKES {
            match self.http.call(call, self.http.limits.answer, &mut tries).await {
                Ok(response) => {
                    if home.own {
                        self.hints.set(&home.bucket, Hint::There);
                    }
                    return Ok(response);
                }
                Err(fault) if fault.kind == Kind::NoBucket && makes => {
                    self.hints.set(&home.bucket, Hint::Missing);
                    self.make(home, &mut self.tries()).await?;
                }
                Err(fault) => return Err(self.seen(home, fault)),
            }
        }
        Err(Fault::new(Kind::Away, "the bucket is removed again and again"))
    }

    /// Makes the job's bucket, unless it was seen to be there.
    pub(super) async fn make(&self, home: &Home, tries: &mut Tries) -> std::result::Result<(), Fault> {
        let _turn = self.hints.turn(&home.bucket).await;
        if self.hints.get(&home.bucket) == Some(Hint::There) {
            return Ok(());
        }
        let plain = Call::bucket(Method::PUT, &home.bucket);
        // The first region is the one that must not be named.
        let mut call = plain.clone();
        if self.region != "us-east-1" {
            let region = super::xml::escaped(&self.region).unwrap_or_default();
            call = call.body(Payload::Bytes(Bytes::from(format!(
                "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                 <LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
            ))));
        }
        let mut made = self.http.text(&call, self.http.limits.answer, tries).await;
        if made.as_ref().is_err_and(|fault| {
            matches!(&*fault.code, "InvalidLocationConstraint" | "IllegalLocationConstraintException")
        }) {
            // Servers with names of their own for places.
            made = self.http.text(&plain, self.http.limits.answer, tries).await;
        }
        match made {
            Ok(_) => {}
            // Ours, or what is to be stored in it will be denied.
            Err(fault) if fault.kind == Kind::Exists => {}
            Err(fault) => return Err(fault),
        }
        self.hints.set(&home.bucket, Hint::There);
        Ok(())
    }

    /// Learns from a fault. Where all jobs share a bucket, a missing one says
    /// nothing of a job.
    pub(super) fn seen(&self, home: &Home, fault: Fault) -> Fault {
        if fault.kind != Kind::NoBucket {
            return fault;
        }
        if home.own {
            self.hints.set(&home.bucket, Hint::Missing);
            return fault;
        }
        Fault::new(Kind::Broken, format!("the storage's bucket {:?} does not exist", home.bucket))
    }
}

/// A bound on the memory of many.
pub(super) struct Memory {
    units: Arc<Semaphore>,
    all: usize,
}

impl Memory {
    fn of(bytes: usize) -> Self {
        let all = (bytes / UNIT).clamp(1, 1 << 20);
        Self { units: Arc::new(Semaphore::new(all)), all }
    }

    /// Waits for memory for so many bytes; what is more than there is takes all.
    /// Whoever holds some must not wait for more.
    pub(super) async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        acquire(&self.units, bytes.div_ceil(UNIT).clamp(1, self.all)).await
    }
}

async fn acquire(semaphore: &Arc<Semaphore>, permits: usize) -> Result<OwnedSemaphorePermit> {
    let permits = u32::try_from(permits).unwrap_or(u32::MAX);
    Arc::clone(semaphore)
        .acquire_many_owned(permits)
        .await
        .map_err(|_| StorageError::Unavailable("the storage is closed".to_owned()))
}
