//! Reading a job's objects, wherever they are: in the queue's commit still, or in
//! storage already.

use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt as _;
use shepherd_job::{JobId, ObjectPath, Timestamp};
use shepherd_storage::{Object, ObjectMeta, StorageError};

use crate::ShepherdError;
use crate::live::log_path;
use crate::shared::Shared;

/// More of a log is never given in one piece.
const MAX_LOG: usize = 2 << 20;

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
    let mut body = object.body;
    let mut log = Vec::new();
    while log.len() < MAX_LOG
        && let Some(piece) = body.next().await
    {
        let piece = piece.map_err(|e| ShepherdError::Unavailable(format!("read the job's log: {e}")))?;
        log.extend_from_slice(&piece);
    }
    log.truncate(MAX_LOG);
    Ok(log.into())
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
    if shared.queue.behind_count() == 0 {
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
