//! Storing objects: small ones by one request, larger ones in parts.

use std::sync::Arc;
use std::time::SystemTime;

use futures::stream::{self, StreamExt as _};
use http::Method;
use http::header::IF_NONE_MATCH;
use shepherd_job::{JobId, ObjectPath, Timestamp};

use super::fault::Kind;
use super::get::head;
use super::http::Call;
use super::layout::Home;
use super::multipart;
use super::payload::Payload;
use super::source::{Source, Stream};
use super::store::{Missing, Store};
use crate::{Body, JobObjects, ObjectMeta, Put, Result, SmallPut, StorageError};

/// How much of a body is held before memory is asked for: most are no longer.
const FREE_BYTES: usize = 256 << 10;

/// [`Storage::put`](crate::Storage::put).
pub(super) async fn put(store: &Arc<Store>, home: Home, path: &ObjectPath, body: Body) -> Result<ObjectMeta> {
    let key = home.key(path)?;
    let mut stream = Stream::new(body);
    let part = store.http.limits.part;
    let size = if stream.hold(FREE_BYTES.min(part)).await? {
        put_one(store, &home, &key, Payload::Bytes(stream.take(FREE_BYTES))).await?
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

async fn put_object(store: &Store, home: &Home, SmallPut { path, bytes, how }: SmallPut) -> Result<()> {
    let key = home.key(&path)?;
    let call = Call::object(Method::PUT, &home.bucket, &key).body(Payload::Bytes(bytes));
    let sent = match how {
        Put::Replace | Put::Adopt(_) => store.send(home, &call, Missing::Make).await,
        Put::Beside => match store.send(home, &call, Missing::Tell).await {
            Err(fault) if fault.kind == Kind::NoBucket => return Ok(()),
            sent => sent,
        },
        Put::Missing if is_there(store, home, &path).await? => return Ok(()),
        Put::New | Put::Missing => {
            match store.send(home, &call.clone().header(IF_NONE_MATCH, "*"), Missing::Make).await {
                Err(fault) if fault.kind == Kind::Changed => return Ok(()),
                // The server knows no conditions on puts.
                Err(fault) if fault.kind == Kind::Unknown => store.send(home, &call, Missing::Make).await,
                sent => sent,
            }
        }
    };
    match sent {
        Ok(_) => Ok(()),
        Err(fault) => Err(not_stored(&key, fault.of(format_args!("put {}/{key}", home.bucket)))),
    }
}

async fn is_there(store: &Store, home: &Home, path: &ObjectPath) -> Result<bool> {
    match head(store, home, path).await {
        Ok(_) => Ok(true),
        Err(StorageError::NotFound) => Ok(false),
        Err(error) => Err(error),
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

/// [`Storage::put_small`](crate::Storage::put_small): many jobs at once, the objects of each one
/// after another.
pub(super) async fn put_small(store: &Arc<Store>, jobs: Vec<JobObjects>) -> Vec<Result<()>> {
    // All at once: each object takes its turn.
    let stored = jobs.into_iter().map(|JobObjects { job, objects }| async move {
        let home = store.home(&job);
        for object in objects {
            let _turn = store.turn().await?;
            put_object(store, &home, object).await?;
        }
        Ok(())
    });
    futures::future::join_all(stored).await
}

/// Whether each of many jobs is there, in the order given.
pub(super) async fn contains_each(store: &Arc<Store>, jobs: &[JobId]) -> Vec<Result<bool>> {
    let asked = stream::iter(jobs.to_vec()).map(|job| async move { super::contains(store, &job).await });
    asked.buffered(store.http.limits.at_once.max(1)).collect().await
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
    made.buffered(store.http.limits.at_once.max(1)).collect().await
}
