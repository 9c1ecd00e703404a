//! Small objects that are stored many at a time.

use std::path::PathBuf;

use bytes::Bytes;
use shepherd_job::{JobId, ObjectPath};

/// Small objects of one job, to be stored in this order until one cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobObjects {
    /// The job.
    pub job: JobId,
    /// Its objects.
    pub objects: Vec<SmallPut>,
}

/// One small object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallPut {
    /// Its key below the job.
    pub path: ObjectPath,
    /// What it holds.
    pub bytes: Bytes,
    /// How it is stored.
    pub how: Put,
}

/// How a small object is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// In place of an older one.
    Replace,
    /// In place of an older one. The file may be there and hold just these bytes; it belongs to
    /// the caller. A storage that makes files may take it instead of writing another.
    Adopt(PathBuf),
    /// Only where there is none, which is what the caller expects; one that is there stays. A
    /// service that ignores conditions replaces it.
    New,
    /// Only where there is none. One may well be there and stays, whatever the service does with
    /// conditions: it is looked for first.
    Missing,
    /// Only where the job has data, these objects included: otherwise it is left out. A storage
    /// that cannot tell at no cost stores it all the same.
    Beside,
}

impl JobObjects {
    /// Objects of a job that are all stored in one way.
    pub fn new(job: JobId, how: &Put, objects: impl IntoIterator<Item = (ObjectPath, Bytes)>) -> Self {
        let put = |(path, bytes)| SmallPut { path, bytes, how: how.clone() };
        Self { job, objects: objects.into_iter().map(put).collect() }
    }
}
