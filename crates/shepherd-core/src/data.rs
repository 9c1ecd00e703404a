//! Reading a job's objects, wherever they are: in the queue's commit still, or in
//! storage already.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use shepherd_job::{JobId, ObjectPath, STATUS_OBJECT, Timestamp};
use shepherd_storage::{Body, Object, ObjectMeta, StorageError};

use crate::ShepherdError;
use crate::live::log_path;
use crate::shared::Shared;

/// More of a log is never given in one piece.
const MAX_LOG: usize = 2 << 20;

/// The longest status document that is read from storage, in bytes: its client may
/// have put anything there.
pub const MAX_STATUS_DOCUMENT: usize = 1 << 20;

/// Opens an object, or the part of it in `range`, clipped to its end.
pub(crate) async fn open(
    shared: &Shared,
    job: &JobId,
    path: &ObjectPath,
    range: Option<Range<u64>>,
) -> Result<Object, ShepherdError> {
    match spooled(shared, job, path).await? {
        Some((bytes, modified)) => Ok(slice(path, &bytes, modified, range)?),
        // It may have been settled between the two looks; then storage has it.
        None => match shared.storage.get(job, path, range).await {
            Err(StorageError::NotFound) => Err(missing(shared, job).await),
            other => Ok(other?),
        },
    }
}

/// What is known of an object.
pub(crate) async fn head(
    shared: &Shared,
    job: &JobId,
    path: &ObjectPath,
) -> Result<ObjectMeta, ShepherdError> {
    match spooled(shared, job, path).await? {
        Some((bytes, modified)) => Ok(meta(path, &bytes, modified)),
        None => match shared.storage.head(job, path).await {
            Err(StorageError::NotFound) => Err(missing(shared, job).await),
            other => Ok(other?),
        },
    }
}

/// The log of a job that has finished; empty when there is none.
pub(crate) async fn log(shared: &Shared, job: &JobId) -> Result<Bytes, ShepherdError> {
    let object = match open(shared, job, &log_path(), None).await {
        // The job's data may have been removed since: its record says that it was there.
        Err(ShepherdError::UnknownObject | ShepherdError::UnknownJob) => return Ok(Bytes::new()),
        other => other?,
    };
    // Whatever its client may have put there.
    read(object.body, MAX_LOG)
        .await
        .map_err(|e| ShepherdError::Unavailable(format!("read the job's log: {e}")))
}

/// The status document of a job that the queue does not know, as storage has it: one
/// request, whether or not there is such a job.
pub(crate) async fn stored_status(shared: &Shared, job: &JobId) -> Result<Bytes, ShepherdError> {
    let path = ObjectPath::parse(STATUS_OBJECT).expect("the constant is a legal key");
    let reading = async {
        let object = shared.storage.get(job, &path, None).await?;
        if object.meta.size > MAX_STATUS_DOCUMENT as u64 {
            return Err(StorageError::NotFound);
        }
        let read = read(object.body, MAX_STATUS_DOCUMENT).await;
        read.map_err(|e| StorageError::Unavailable(format!("read the job's status document: {e}")))
    };
    match reading.await {
        Err(StorageError::NotFound) => Err(ShepherdError::UnknownJob),
        other => Ok(other?),
    }
}

/// The first bytes of a body, at most so many.
async fn read(mut body: Body, most: usize) -> std::io::Result<Bytes> {
    let mut bytes = Vec::new();
    while bytes.len() < most
        && let Some(piece) = body.next().await
    {
        bytes.extend_from_slice(&piece?);
    }
    bytes.truncate(most);
    Ok(bytes.into())
}

/// Whether it is the object or the whole job that does not exist.
async fn missing(shared: &Shared, job: &JobId) -> ShepherdError {
    match (shared.queue.get(job).await, shared.storage.contains(job).await) {
        (Ok(None), Ok(false)) => ShepherdError::UnknownJob,
        (Ok(_), Ok(_)) => ShepherdError::UnknownObject,
        (Err(error), _) => error.into(),
        (_, Err(error)) => error.into(),
    }
}

async fn spooled(
    shared: &Shared,
    job: &JobId,
    path: &ObjectPath,
) -> Result<Option<(Bytes, Timestamp)>, ShepherdError> {
    if shared.queue.lag().jobs == 0 {
        return Ok(None);
    }
    let found = shared.queue.objects(job).await?.into_iter().find(|(candidate, _)| candidate == path);
    let Some((_, bytes)) = found else { return Ok(None) };
    let modified = shared.queue.get(job).await?.map_or_else(Timestamp::default, |record| record.submitted_at);
    Ok(Some((bytes, modified)))
}

fn meta(path: &ObjectPath, bytes: &Bytes, modified: Timestamp) -> ObjectMeta {
    ObjectMeta { path: path.clone(), size: bytes.len() as u64, modified }
}

fn slice(
    path: &ObjectPath,
    bytes: &Bytes,
    modified: Timestamp,
    range: Option<Range<u64>>,
) -> Result<Object, StorageError> {
    let meta = meta(path, bytes, modified);
    let range = match range {
        None => 0..meta.size,
        Some(range) if range.start < meta.size && range.start < range.end => {
            range.start..range.end.min(meta.size)
        }
        Some(_) => return Err(StorageError::Range { size: meta.size }),
    };
    let index = |at: u64| usize::try_from(at).expect("at most the length of bytes in memory");
    let part = bytes.slice(index(range.start)..index(range.end));
    Ok(Object { meta, range, body: Box::pin(futures::stream::once(async move { Ok(part) })) })
}
