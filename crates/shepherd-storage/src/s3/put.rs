//! Storing objects: small ones by one request, larger ones in parts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::Method;
use http::header::IF_NONE_MATCH;
use shepherd_job::{JobId, ObjectPath, Timestamp};

use super::fault::Kind;
use super::layout::Home;
use super::multipart;
use super::payload::Payload;
use super::source::{Source, Stream};
use super::store::{Missing, Store};
use super::wire::Call;
use crate::{Body, ObjectMeta, Result, StorageError};

/// How much of a body is held before memory is asked for: most are no longer.
const FREE: usize = 256 << 10;

/// [`Storage::put`](crate::Storage::put).
pub(super) async fn put(store: &Arc<Store>, home: Home, path: &ObjectPath, body: Body) -> Result<ObjectMeta> {
    let key = home.key(path)?;
    let mut stream = Stream::new(body);
    let part = store.wire.limits.part;
    let size = if stream.hold(FREE.min(part)).await? {
        put_one(store, &home, &key, Payload::Bytes(stream.take(FREE))).await?
    } else {
        let memory = store.memory.take(part as u64).await?;
        if stream.hold(part).await? {
            put_one(store, &home, &key, Payload::Bytes(stream.take(part))).await?
        } else {
            let first = (Payload::Bytes(stream.take(part)), Some(memory));
            multipart::upload(store, home, key, Some(first), Source::Body(stream)).await?
        }
    };
    Ok(ObjectMeta { path: path.clone(), size, modified: Timestamp::from(SystemTime::now()) })
}

/// Stores an object by one request, and gives its size.
pub(super) async fn put_one(store: &Store, home: &Home, key: &str, body: Payload) -> Result<u64> {
    let len = body.len();
    let call = Call::object(Method::PUT, &home.bucket, key).body(body);
    match store.send(home, &call, Missing::Make).await {
        Ok(_) => Ok(len),
        Err(fault) => Err(not_stored(key, fault.of(format_args!("put {}/{key}", home.bucket)))),
    }
}

/// How a small object of a batch is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// In place of one that is there.
    Over,
    /// Only where there is none.
    New,
    /// With other data of its job, if there is any.
    Beside,
}

async fn put_small(store: &Store, home: &Home, key: &str, bytes: Bytes, how: Put) -> Result<()> {
    let call = Call::object(Method::PUT, &home.bucket, key).body(Payload::Bytes(bytes));
    let sent = match how {
        Put::Over => store.send(home, &call, Missing::Make).await,
        Put::Beside => store.send(home, &call, Missing::Tell).await,
        Put::New => {
            match store.send(home, &call.clone().header(IF_NONE_MATCH, "*"), Missing::Make).await {
                // The server knows no conditions on puts.
                Err(fault) if fault.kind == Kind::Unknown => store.send(home, &call, Missing::Make).await,
                sent => sent,
            }
        }
    };
    match (sent, how) {
        (Ok(_), _) => Ok(()),
        (Err(fault), Put::New) if fault.kind == Kind::Changed => Ok(()),
        (Err(fault), Put::Beside) if fault.kind == Kind::NoBucket => Ok(()),
        (Err(fault), _) => Err(not_stored(key, fault.of(format_args!("put {}/{key}", home.bucket)))),
    }
}

/// The error of a put, which has nothing to find. Some servers have no place for keys
/// with control characters, and say only that.
pub(super) fn not_stored(key: &str, error: StorageError) -> StorageError {
    match error {
        StorageError::NotFound if key.chars().any(char::is_control) => {
            StorageError::Invalid(format!("the server does not take the key {key:?}"))
        }
        StorageError::NotFound => {
            StorageError::Unavailable(format!("the server does not find where to store {key:?}"))
        }
        error => error,
    }
}

/// [`Storage::put_batch`](crate::Storage::put_batch) and its kin. Objects are stored at
/// once, but of those with one key only the last, as the others would be replaced.
pub(super) async fn put_batch(
    store: &Arc<Store>,
    objects: Vec<(JobId, ObjectPath, Bytes)>,
    how: Put,
) -> Result<Vec<Result<()>>> {
    let mut newest = HashMap::with_capacity(objects.len());
    for (job, path, bytes) in &objects {
        newest.insert((job.clone(), path.clone()), bytes.clone());
    }
    let stored = stream::iter(newest).map(|((job, path), bytes)| async move {
        let put = async {
            let _turn = store.turn().await?;
            let home = store.home(&job);
            let key = home.key(&path)?;
            put_small(store, &home, &key, bytes, how).await
        };
        let outcome = put.await;
        ((job, path), outcome)
    });
    let stored: HashMap<_, _> = stored.buffer_unordered(store.wire.limits.at_once.max(1)).collect().await;
    let outcome = |(job, path, _)| match stored.get(&(job, path)) {
        Some(Ok(())) => Ok(()),
        Some(Err(error)) => Err(again(error)),
        None => Err(StorageError::Unavailable("the object was not stored".to_owned())),
    };
    Ok(objects.into_iter().map(outcome).collect())
}

/// The same error for another object.
fn again(error: &StorageError) -> StorageError {
    match error {
        StorageError::NotFound => StorageError::NotFound,
        StorageError::Range { size } => StorageError::Range { size: *size },
        StorageError::Full => StorageError::Full,
        StorageError::Denied(message) => StorageError::Denied(message.clone()),
        StorageError::Unavailable(message) => StorageError::Unavailable(message.clone()),
        StorageError::Throttled(message) => StorageError::Throttled(message.clone()),
        StorageError::Invalid(message) => StorageError::Invalid(message.clone()),
    }
}

/// Whether each of many jobs is there, in the order given.
pub(super) async fn contains_each(store: &Arc<Store>, jobs: &[JobId]) -> Vec<Result<bool>> {
    let asked = stream::iter(jobs.to_vec()).map(|job| async move { super::contains(store, &job).await });
    asked.buffered(store.wire.limits.at_once.max(1)).collect().await
}

/// Makes the buckets of jobs that have their own.
pub(super) async fn make_homes(store: &Arc<Store>, jobs: &[JobId]) -> Vec<Result<()>> {
    let made = stream::iter(jobs.to_vec()).map(|job| async move {
        let home = store.home(&job);
        if !home.own {
            return Ok(());
        }
        let made = store.make(&home, &mut store.ask_tries()).await;
        made.map_err(|fault| fault.of(format_args!("make the bucket {}", home.bucket)))
    });
    made.buffered(store.wire.limits.at_once.max(1)).collect().await
}
